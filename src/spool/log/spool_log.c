/*
 * spool_log - the log spool behind spool_ops: open and close, drafts, commit, settle, and what is asked of it. log.h
 * says which file does what.
 */
#include "spool/log/log.h"

#include <string.h>

enum { DRAFT_OVERHEAD = 2048, DRAFT_FIRST = 4096, PROMISE_AHEAD = 1 << 20 };

int64_t
spool_now(const struct spool *sp)
{
    return sp->spool_time + (rt_now(sp->rt) - sp->opened_at);
}

void
spool_report(struct spool *sp, struct spool_report report)
{
    if (sp->settings.report)
        sp->settings.report(sp->settings.report_arg, &report);
}

/* ---- open and close ---------------------------------------------------------------------------------------------- */

static void
forget_all(struct spool *sp)
{
    struct message *m;
    struct list *node;

    recover_drop(sp);
    keeper_drop(sp);
    for (size_t at = 0; (m = ids_next(&sp->messages, &at));)
        message_release(sp, m);
    ids_done(&sp->messages);
    slab_done(&sp->message_slab);
    ids_done(&sp->ended);
    mem_free(sp->mem, sp->own_ended, LIMIT_ENDED * sizeof *sp->own_ended);
    if (sp->current)
        segment_unpin(sp, sp->current);
    for (uint32_t i = 0; i < sp->segment_count; i++)
        segment_free(sp, sp->own_segments[i]);
    mem_free(sp->mem, sp->own_segments, sp->segment_cap * sizeof *sp->own_segments);
    while ((node = list_pop_front(&sp->free)) != NULL)
        segment_free(sp, container_of(node, struct segment, link));
    for (size_t i = 0; i < CACHE_WINDOWS; i++)
        mem_free(sp->mem, sp->own_windows[i].own_bytes, CACHE_WINDOW);
    for (size_t i = 0; i < CONTENT_SLOTS; i++)
        mem_free(sp->mem, sp->own_slots[i].own_bytes, sp->own_slots[i].cap);
    mem_free(sp->mem, sp->own_parts, sp->part_cap * sizeof *sp->own_parts);
    mem_free(sp->mem, sp->own_block, BLOCK);
    if (sp->own_lock)
        file_close(sp->own_lock);
    mem_free(sp->mem, sp, sizeof *sp);
}

static void
log_close(struct spool *sp, int64_t until)
{
    (void)until; /* what is under way ends when the disk does */
    CHECK(list_is_empty(&sp->drafts));
    sp->stopping = true;
    scope_end(&sp->helpers);
    sp->ending = true;
    event_wake(sp->rt, &sp->work);
    while (!sp->commit_ended)
        event_wait_firmly(sp->rt, &sp->written);
    scope_end(&sp->fibers);
    forget_all(sp);
}

static struct err
log_open(struct rt *rt, struct dir *dir, const struct spool_settings *settings, struct spool **out, int64_t until)
{
    struct spool *sp = mem_new(rt_mem(rt), struct spool);
    struct err e = OK;

    sp->rt = rt;
    sp->mem = rt_mem(rt);
    sp->dir = dir;
    sp->settings = *settings;
    if (sp->settings.segment_bytes != 0) {
        CHECK(sp->settings.segment_bytes % BLOCK == 0);
        CHECK(sp->settings.segment_bytes >= SEGMENT_BYTES_MIN);
        CHECK(sp->settings.segment_bytes <= UINT32_MAX);
    }
    sp->read_only = settings->read_only;
    sp->opened_at = rt_now(rt);
    sp->cleaned_segments = UINT32_MAX; /* whatever cleaning leaves is fewer */
    scope_init(&sp->fibers, rt);
    scope_init(&sp->helpers, rt);
    list_init(&sp->free);
    list_init(&sp->open_files);
    list_init(&sp->queue);
    list_init(&sp->elsewhere);
    list_init(&sp->drafts);
    list_init(&sp->fresh);
    list_init(&sp->damages);
    list_init(&sp->by_order);
    list_init(&sp->unsorted);
    event_init(&sp->work);
    event_init(&sp->written);
    event_init(&sp->keep);
    ids_init(&sp->messages, sp->mem, rt_random(sp->rt));
    slab_init(&sp->message_slab, sp->mem, sizeof(struct message), SLAB_MANY);
    ids_init(&sp->ended, sp->mem, rt_random(sp->rt));
    sp->own_block = mem_alloc(sp->mem, BLOCK);
    if (!sp->read_only)
        e = dir_lock(dir, S("lock"), until, &sp->own_lock);
    if (!err_is(e))
        e = recover_open(sp, until);
    if (!err_is(e))
        e = space_look(sp, until);
    if (err_is(e)) {
        forget_all(sp);
        return e;
    }
    sp->inline_max = sp->settings.segment_bytes / 8 < LIMIT_CONTENT_INLINE ? (size_t)sp->settings.segment_bytes / 8
                                                                         : LIMIT_CONTENT_INLINE;
    sp->commit_ended = sp->read_only;
    sp->recovering = true;
    if (!sp->read_only) {
        scope_start(&sp->fibers, "commit", commit_run, sp);
        if (sp->segment_count > 0)
            e = checkpoint_first(sp);
    }
    if (err_is(e)) {
        log_close(sp, until);
        return e;
    }
    *out = sp;
    return OK;
}

/* Recovery, and then the keeper for as long as the spool is open. */
static void
helper_run(void *arg)
{
    struct spool *sp = arg;

    recover_run(sp);
    if (sp->read_only || sp->stopping)
        return;
    sp->keeping = true;
    keeper_run(sp);
    sp->keeping = false;
}

static struct err
log_recover(struct spool *sp, void (*found)(void *arg, const struct spool_message *), void (*done)(void *arg, struct err),
            void *arg, int64_t until)
{
    (void)until;
    CHECK(!sp->found);
    sp->found = found;
    sp->found_all = done;
    sp->found_arg = arg;
    scope_start(&sp->helpers, "spool recovery", helper_run, sp);
    return OK;
}

/* ---- drafts ------------------------------------------------------------------------------------------------------ */

static bool
is_known(const struct spool *sp, struct message_id id)
{
    const struct message *m = message_find(sp, id);

    if ((m && m->base.segment) || ended_has(sp, id))
        return true;
    list_each(node, &sp->drafts)
        if (message_id_eq(container_of(node, struct draft, link)->id, id))
            return true;
    return false;
}

/* Of what is announced only so much ahead of what has come: announcing costs nothing, and others want the space. */
static uint64_t
promised(const struct draft *d)
{
    uint64_t ahead = d->expected > d->size ? d->expected - d->size : 0;

    return d->size + (ahead < PROMISE_AHEAD ? ahead : PROMISE_AHEAD) + DRAFT_OVERHEAD;
}

static struct err
draft_begin(struct spool *sp, struct message_id id, uint64_t expected_size, enum need need, int64_t until,
            struct draft **out)
{
    struct draft *d;

    if (sp->broken || sp->read_only || sp->stopping)
        return ERR(ERR_READ_ONLY, "begin spool message");
    if (is_known(sp, id))
        return ERR(ERR_EXISTS, "begin spool message");
    TRY(space_look(sp, until));
    if (expected_size > UINT32_MAX * (uint64_t)BLOCK ||
        (need == NEED_MAIL && sp->draft_bytes + expected_size + DRAFT_OVERHEAD > space_for_mail(sp))) {
        keeper_wake(sp);
        return ERR(ERR_NO_SPACE, "begin spool message");
    }
    if (is_known(sp, id))
        return ERR(ERR_EXISTS, "begin spool message");
    d = mem_new(sp->mem, struct draft);
    *d = (struct draft){ .spool = sp, .id = id, .expected = expected_size, .need = (uint8_t)need };
    list_push_back(&sp->drafts, &d->link);
    sp->draft_bytes += promised(d);
    *out = d;
    return OK;
}

static struct err
log_begin(struct spool *sp, struct message_id id, uint64_t expected_size, int64_t until, struct draft **out)
{
    return draft_begin(sp, id, expected_size, NEED_MAIL, until, out);
}

static struct err
log_begin_notice(struct spool *sp, struct message_id id, uint64_t expected_size, int64_t until, struct draft **out)
{
    return draft_begin(sp, id, expected_size, NEED_DRAIN, until, out);
}

static void
set_buffer(struct draft *d, size_t cap)
{
    struct spool *sp = d->spool;

    if (cap > 0)
        d->own_data = d->own_data ? mem_resize(sp->mem, d->own_data, d->data_cap, cap) : mem_buffer(sp->mem, cap);
    else
        mem_free(sp->mem, d->own_data, d->data_cap);
    sp->draft_memory += cap - d->data_cap;
    d->data_cap = cap;
    if (cap == 0)
        d->own_data = NULL;
}

/* Most that a draft may hold in memory. */
static size_t
piece_max(const struct spool *sp)
{
    return sp->draft_memory > LIMIT_DRAFT_MEMORY ? sp->inline_max / 8 : sp->inline_max;
}

static void
draft_drop_extents(struct draft *d)
{
    struct spool *sp = d->spool;

    for (uint32_t i = 0; i < d->extent_count; i++)
        if (d->own_extents[i].segment)
            segment_count_live(sp, segment_by_sequence(sp, d->own_extents[i].segment), -(int64_t)d->own_extents[i].len);
    d->extent_count = 0;
}

static void
draft_free(struct draft *d)
{
    struct spool *sp = d->spool;

    draft_drop_extents(d);
    sp->draft_bytes -= promised(d);
    list_remove(&d->link);
    set_buffer(d, 0);
    mem_free(sp->mem, d->own_extents, d->extent_cap * sizeof *d->own_extents);
    mem_free(sp->mem, d, sizeof *d);
}

static void
finish_chunk(struct spool *sp, struct append *a)
{
    struct draft *d = a->arg;

    if (!err_is(a->err)) {
        if (d->extent_count == d->extent_cap) {
            uint32_t cap = d->extent_cap ? 2 * d->extent_cap : 8;
            d->own_extents = mem_resize(sp->mem, d->own_extents, d->extent_cap * sizeof *d->own_extents,
                                        cap * sizeof *d->own_extents);
            d->extent_cap = cap;
        }
        d->own_extents[d->extent_count++] =
            (struct extent){ a->place.segment->sequence, a->place.offset, (uint32_t)a->data.len };
        segment_count_live(sp, a->place.segment, (int64_t)a->data.len);
    }
    append_done(sp, a);
}

/* What has come so far goes to disk ahead of the commit, so that a large message needs no memory. */
static struct err
flush_chunk(struct draft *d)
{
    struct spool *sp = d->spool;
    struct append a;

    append_init(&a, sp, RECORD_CHUNK, d->id, 0);
    a.data = str_new(d->own_data, d->data_size);
    a.data_hash = record_hash_data(a.data);
    a.sync = false; /* the commit's sync covers it */
    a.need = d->need;
    a.arg = d;
    a.finish = finish_chunk;
    struct err e = append_wait(sp, &a);
    mem_free(sp->mem, a.own_head, a.head_size);
    d->data_size = 0;
    if (piece_max(sp) < sp->inline_max)
        set_buffer(d, 0);
    return e;
}

static void
make_room(struct draft *d, size_t more, size_t max)
{
    size_t cap = d->data_cap ? d->data_cap : d->expected == 0 ? DRAFT_FIRST : d->expected < max ? (size_t)d->expected : max;

    while (cap < d->data_size + more)
        cap *= 2;
    if (cap > max && d->data_size + more <= max)
        cap = max;
    if (cap != d->data_cap)
        set_buffer(d, cap);
}

static struct err
log_put(struct draft *d, struct str content, int64_t until)
{
    struct spool *sp = d->spool;

    (void)until; /* a record that is being written is waited for */
    while (content.len > 0) {
        size_t max = piece_max(sp);
        if (d->data_size >= max) {
            TRY(flush_chunk(d));
            continue;
        }
        size_t room = max - d->data_size, part = content.len < room ? content.len : room;
        if (d->data_size + part > d->data_cap)
            make_room(d, part, max);
        memcpy(d->own_data + d->data_size, content.ptr, part);
        sp->draft_bytes -= promised(d);
        d->data_size += part;
        d->size += part;
        sp->draft_bytes += promised(d);
        content = str_from(content, part);
    }
    return OK;
}

static uint64_t
log_draft_size(const struct draft *d)
{
    return d->size;
}

static struct err
log_draft_read(struct draft *d, uint64_t offset, void *memory, size_t len, int64_t until, size_t *out_len)
{
    struct spool *sp = d->spool;

    *out_len = 0;
    for (uint32_t i = 0; i < d->extent_count; i++) {
        struct extent e = d->own_extents[i];
        if (offset < e.len) {
            char *whole = mem_alloc(sp->mem, e.len);
            struct err err;
            do /* cleaning may have moved it while we read */
                err = extent_read(sp, e = d->own_extents[i], whole, until);
            while (err.kind == ERR_CORRUPT && (d->own_extents[i].segment != e.segment || d->own_extents[i].offset != e.offset));
            if (!err_is(err)) {
                *out_len = e.len - offset < len ? (size_t)(e.len - offset) : len;
                memcpy(memory, whole + offset, *out_len);
            }
            mem_free(sp->mem, whole, e.len);
            return err;
        }
        offset -= e.len;
    }
    if (offset < d->data_size) {
        *out_len = d->data_size - offset < len ? (size_t)(d->data_size - offset) : len;
        memcpy(memory, d->own_data + offset, *out_len);
    }
    return OK;
}

static void
log_abort(struct draft *d)
{
    struct spool *sp = d->spool;

    draft_free(d);
    if (keeper_is_needed(sp))
        keeper_wake(sp);
}

/* ---- settling ---------------------------------------------------------------------------------------------------- */

/* Its message, if the settle can be applied to it. */
static struct message *
settled_message(const struct spool *sp, struct message_id id, const unsigned char *settle, uint32_t count)
{
    struct message *m = message_find(sp, id);

    if (!m || !m->loaded || m->ending)
        return NULL;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t index;
        settle_peek(settle, i, &index);
        CHECK(index < m->recipients); /* the queue counts recipients as we do */
    }
    return m;
}

/*
 * The order of settles is decided here. A settle that says all of what earlier ones said replaces them; since get()
 * then reads one record where it would read many, it is made to say all whenever it names all recipients.
 */
static void
prepare_settle(struct spool *sp, struct append *a, struct message *m)
{
    unsigned char *at = a->own_head + a->settle_at;
    struct take t = take_init(str_new(at, a->head_size - a->settle_at));
    struct settle_reader settle;
    struct recipient_status status;
    uint32_t in_order = 0; /* and with a reply: without one, an earlier settle says it */
    uint8_t was;

    CHECK(settle_take(&t, &settle));
    for (uint32_t i = 0; settle_next(&settle, &status, &was); i++) {
        in_order += status.index == i && status.last_reply.len > 0;
        settle_patch_was(at, i, message_state(m, status.index));
        message_set_state(sp, m, status.index, status.state, status.notices);
    }
    if (settle.head.set_held)
        m->held = settle.head.held;
    if (settle.head.set_deaths)
        m->deaths = settle.head.deaths;
    m->unwritten++;
    a->ends = m->open == 0;
    a->covers = a->type == RECORD_SETTLE && in_order == m->recipients && (settle.head.set_held || !m->held);
    if (a->covers) {
        a->flags |= RECORD_COVERS;
        settle_patch_all(at, m->held, m->deaths);
    }
    if (a->ends) {
        uint64_t last = m->moving ? sp->current->sequence : m->base.segment->sequence;
        settle_patch(at, message_base_first(sp, m), last, true);
        m->ending = true;
        if (a->type == RECORD_SETTLE) {
            a->type = RECORD_DONE;
            a->flags = 0;
        }
    }
    m->version++;
}

static void
finish_settled(struct spool *sp, struct append *a, struct message_id id, struct place place)
{
    struct message *m = message_find(sp, id);

    if (!m)
        return;
    m->queued--;
    if (a->lsn == 0)
        return; /* withdrawn before it changed anything */
    m->unwritten--;
    if (err_is(a->err))
        return;
    if (a->ends) {
        message_end(sp, m);
        return;
    }
    if (a->covers)
        message_clear_refs(sp, m);
    message_add_ref(sp, m, place);
}

static struct err
prepare_settle_alone(struct spool *sp, struct append *a)
{
    struct settle_reader settle;
    struct take t = take_init(str_new(a->own_head + a->settle_at, a->head_size - a->settle_at));

    CHECK(settle_take(&t, &settle));
    struct message *m = settled_message(sp, a->id, a->own_head + a->settle_at, settle.head.count);
    if (!m)
        return ERR(ERR_NOT_FOUND, "settle spool message");
    prepare_settle(sp, a, m);
    return OK;
}

static void
finish_settle_alone(struct spool *sp, struct append *a)
{
    finish_settled(sp, a, a->id, a->place);
    if (a->lazy)
        append_drop(sp, a);
    else
        append_done(sp, a);
}

static uint16_t
refs_max(const struct message *m)
{
    return m->recipients > MANY_RECIPIENTS ? REFS_MAX_MANY : REFS_MAX;
}

/* So that get() never has to read a long tail of settles, and memory stays small: now and then the whole is written
 * anew. */
static struct err
fold(struct spool *sp, struct message_id id, int64_t until)
{
    for (;;) {
        struct message *m;
        TRY(message_await(sp, id, until, &m));
        bool stuck = m->queued > 0 && commit_is_stuck(sp); /* perhaps for days */
        if (m->ref_count + m->queued < refs_max(m) || stuck)
            return OK;
        if (m->queued > 0)
            TRY(event_wait(sp->rt, &sp->written, until));
        else
            TRY(message_restate(sp, id, NULL, until));
    }
}

static struct err
log_settle(struct spool *sp, const struct spool_settle *s, bool lazy, int64_t until)
{
    struct append *a;
    struct message *m;
    struct err e = OK;

    if (sp->broken || sp->read_only)
        return ERR(ERR_READ_ONLY, "settle spool message");
    TRY(message_await(sp, s->id, until, &m));
    a = mem_new(sp->mem, struct append);
    append_init(a, sp, RECORD_SETTLE, s->id, settle_size(s));
    struct put p = append_put(a);
    settle_put(&p, s);
    CHECK(!p.full && p.len == p.cap);
    a->settle_at = RECORD_HEADER;
    a->lazy = lazy;
    a->need = NEED_DRAIN;
    a->prepare = prepare_settle_alone;
    a->finish = finish_settle_alone;
    m->queued++;
    if (lazy) {
        append_queue(sp, a);
        while (sp->queued > LIMIT_QUEUED && !sp->broken && !sp->starved && !sp->hopeless) /* not faster than the disk */
            if (err_is(event_wait(sp->rt, &sp->written, until)))
                break;
    } else {
        e = append_wait(sp, a);
        append_drop(sp, a);
    }
    if (!err_is(e))
        (void)fold(sp, s->id, until); /* behind it: settles are written in the order in which they come */
    return e;
}

/* ---- commit ------------------------------------------------------------------------------------------------------ */

struct commit {
    struct append append;
    struct draft *draft;
    uint32_t recipients;
    struct fresh *own_fresh;
};

static struct err
prepare_accept(struct spool *sp, struct append *a)
{
    struct commit *c = container_of(a, struct commit, append);
    struct message *settled = NULL;

    if (message_find(sp, a->id) || ended_has(sp, a->id)) /* begun while recovery did not know of it yet */
        return ERR(ERR_EXISTS, "commit spool message: its id is in use");

    if (a->settle_at > 0) {
        struct settle_reader settle;
        struct take t = take_init(str_new(a->own_head + a->settle_at, a->head_size - a->settle_at));
        CHECK(settle_take(&t, &settle));
        settled = settled_message(sp, a->settles_id, a->own_head + a->settle_at, settle.head.count);
        if (!settled)
            return ERR(ERR_NOT_FOUND, "commit spool notice: what it reports on is no more");
    }
    for (uint32_t i = 0; i < c->draft->extent_count; i++) /* cleaning may have moved them until now */
        extent_put_at(append_body(a), i, c->draft->own_extents[i]);
    if (settled)
        prepare_settle(sp, a, settled);
    c->draft->committing = true;
    return OK;
}

static void
keep_fresh(struct spool *sp, struct commit *c, struct message *m)
{
    struct fresh *f = mem_new(sp->mem, struct fresh);
    struct draft *d = c->draft;
    struct append *a = &c->append;

    *f = (struct fresh){ .own_head = a->own_head, .head_size = a->head_size };
    list_init(&f->link);
    a->own_head = NULL;
    if (d->extent_count == 0 && d->data_size > 0) {
        f->own_data = d->own_data;
        f->data_size = d->data_size;
        f->data_cap = d->data_cap;
        sp->draft_memory -= d->data_cap;
        d->own_data = NULL;
        d->data_cap = 0;
    }
    message_make_fresh(sp, m, f);
}

static void
finish_accept(struct spool *sp, struct append *a)
{
    struct commit *c = container_of(a, struct commit, append);
    struct draft *d = c->draft;
    struct base base;

    if (a->settle_at > 0)
        finish_settled(sp, a, a->settles_id, (struct place){ a->place.segment, a->place.offset, INDEX_ENTRY });
    if (!err_is(a->err)) {
        struct message *m = message_new(sp, a->id);
        struct settle_reader state;
        struct recipient_status status;
        uint8_t was;
        struct record r;
        CHECK(record_peek(str_new(a->own_head, a->head_size), &r) && base_take(r.body, &base));
        m->loaded = true;
        m->order = a->lsn;
        order_add(sp, m);
        message_set_recipients(sp, m, c->recipients);
        struct take t = take_init(base.state);
        CHECK(settle_take(&t, &state));
        while (settle_next(&state, &status, &was))
            message_set_state(sp, m, status.index, status.state, status.notices);
        message_set_base(sp, m, a->place, a->head_size);
        message_set_elsewhere(sp, m, d->own_extents, d->extent_count);
        if (sp->settings.fresh_bytes_max > 0 && m->open > 0)
            keep_fresh(sp, c, m);
        draft_drop_extents(d);
    }
    append_done(sp, a);
}

static void
encode_accept(struct spool *sp, struct commit *c, const struct envelope *envelope, const struct spool_settle *state,
              const struct spool_settle *settles)
{
    struct append *a = &c->append;
    struct draft *d = c->draft;
    struct base_head head = {
        .accepted_spool = spool_now(sp),
        .content_size = d->size,
        .extent_count = d->extent_count,
        .state_size = (uint32_t)settle_size(state),
        .settles_size = settles ? (uint32_t)(MESSAGE_ID_BYTES + settle_size(settles)) : 0,
        .recipients = (uint32_t)envelope->recipient_count,
    };

    append_init(a, sp, RECORD_ACCEPT, d->id,
                BASE_FIXED + d->extent_count * EXTENT_SIZE + head.state_size + head.settles_size + envelope_size(envelope));
    struct put p = append_put(a);
    base_put(&p, &head);
    p.len += d->extent_count * EXTENT_SIZE; /* prepare_accept() */
    settle_put(&p, state);
    if (settles) {
        put_u64(&p, settles->id.hi);
        put_u64(&p, settles->id.lo);
        a->settle_at = RECORD_HEADER + p.len;
        a->settles_id = settles->id;
        settle_put(&p, settles);
    }
    envelope_put(&p, envelope);
    CHECK(!p.full && p.len == p.cap);
    if (d->extent_count == 0) {
        a->data = str_new(d->own_data, d->data_size);
        a->data_hash = record_hash_data(a->data);
    }
    a->need = settles ? NEED_DRAIN : NEED_MAIL;
    a->prepare = prepare_accept;
    a->finish = finish_accept;
}

static struct spool_settle
changed_statuses(struct spool *sp, struct message_id id, const struct envelope *envelope,
                 const struct recipient_status *statuses, struct recipient_status **out_own)
{
    size_t size = envelope->recipient_count * sizeof *statuses;
    struct spool_settle state = { .id = id };

    *out_own = statuses ? mem_alloc(sp->mem, size) : NULL;
    state.statuses = *out_own;
    for (size_t i = 0; statuses && i < envelope->recipient_count; i++) {
        const struct recipient_status *s = &statuses[i];
        CHECK(s->index == i);
        if (s->state != STATE_PENDING || s->notices != 0 || s->next_wall != 0 || s->attempts != 0)
            (*out_own)[state.count++] = *s;
    }
    return state;
}

/* An alias whose members were all duplicates, say: nobody is left to deliver to. */
static void
end_if_nothing_is_open(struct spool *sp, struct message_id id)
{
    struct message *m = message_find(sp, id);
    struct spool_settle nothing = { .id = id };

    if (m && m->open == 0 && !m->ending)
        (void)log_settle(sp, &nothing, true, FOREVER);
}

/* A second message with the id of an older one would take its place: so all ids are known before the first is
 * committed. */
static struct err
await_index(struct spool *sp, int64_t until)
{
    while (!sp->index_known) {
        if (!sp->recovering)
            return ERR(ERR_IO, "commit spool message: recovery failed");
        TRY(event_wait(sp->rt, &sp->written, until));
    }
    return OK;
}

/* And its STATE will, once every recipient has been tried. */
static bool
fits_a_segment(const struct spool *sp, const struct append *a, size_t recipients)
{
    return append_size(a) + settle_size_bare(recipients) <= record_size_max(sp);
}

static struct err
log_commit(struct draft *d, const struct envelope *envelope, const struct recipient_status *statuses,
           const struct spool_settle *settles, int64_t until)
{
    struct spool *sp = d->spool;
    struct commit c = { .draft = d, .recipients = (uint32_t)envelope->recipient_count };
    struct message_id id = d->id;
    struct message *settled = NULL;
    struct err e = await_index(sp, until);

    if (!err_is(e) && d->extent_count > 0 && d->data_size > 0)
        e = flush_chunk(d);
    if (!err_is(e) && settles)
        e = message_await(sp, settles->id, until, &settled);
    if (!err_is(e)) {
        struct recipient_status *own_changed;
        struct spool_settle state = changed_statuses(sp, id, envelope, statuses, &own_changed);
        encode_accept(sp, &c, envelope, &state, settles);
        mem_free(sp->mem, own_changed, envelope->recipient_count * sizeof *own_changed);
        if (settled)
            settled->queued++;
        if (!fits_a_segment(sp, &c.append, envelope->recipient_count)) {
            e = ERR(ERR_LIMIT, "commit spool message: its envelope does not fit a segment");
            if (settled)
                settled->queued--;
        } else {
            e = append_wait(sp, &c.append);
        }
        mem_free(sp->mem, c.append.own_head, c.append.head_size);
    }
    draft_free(d);
    if (!err_is(e))
        end_if_nothing_is_open(sp, id);
    return e;
}

/* ---- questions --------------------------------------------------------------------------------------------------- */

static struct err
log_has(struct spool *sp, struct message_id id, int64_t until, bool *out)
{
    for (;;) {
        const struct message *m = message_find(sp, id);
        if ((m && m->base.segment) || ended_has(sp, id)) {
            *out = true;
            return OK;
        }
        if (sp->index_known) {
            *out = false;
            return OK;
        }
        if (!sp->recovering)
            return ERR(ERR_IO, "find spool message: recovery failed");
        TRY(event_wait(sp->rt, &sp->written, until));
    }
}

static void
log_forget_fresh(struct spool *sp, struct message_id id)
{
    struct message *m = message_find(sp, id);

    if (m)
        message_forget_fresh(sp, m);
}

static void
log_counters(const struct spool *sp, struct spool_counters *out)
{
    *out = sp->counters;
    out->accepted = sp->tally.accepted;
    out->delivered = sp->tally.delivered;
    out->failed = sp->tally.failed;
    out->relayed = sp->tally.relayed;
    out->expanded = sp->tally.expanded;
    out->suppressed = sp->tally.suppressed;
    out->removed = sp->tally.removed;
    out->pending = sp->recovering ? sp->tally.accepted - tally_ended(&sp->tally) : sp->open_recipients;
    out->messages = sp->messages.count;
    out->segments = sp->segment_count;
    out->live_bytes = sp->live_bytes;
    out->space_bytes = sp->segment_count * sp->settings.segment_bytes;
    uint64_t free = space_for_mail(sp);
    out->free_bytes = free > sp->draft_bytes ? free - sp->draft_bytes : 0;
    out->stuck = commit_is_stuck(sp);
    out->recovering = sp->recovering;
}

static bool
log_is_broken(const struct spool *sp)
{
    return sp->broken;
}

const struct spool_ops spool_log_ops = {
    .open = log_open,
    .recover = log_recover,
    .close = log_close,
    .begin = log_begin,
    .begin_notice = log_begin_notice,
    .put = log_put,
    .draft_size = log_draft_size,
    .draft_read = log_draft_read,
    .commit = log_commit,
    .abort = log_abort,
    .settle = log_settle,
    .has = log_has,
    .get = log_get,
    .get_written = log_get_written,
    .read = log_read,
    .scan = log_scan,
    .forget_fresh = log_forget_fresh,
    .counters = log_counters,
    .is_broken = log_is_broken,
};
