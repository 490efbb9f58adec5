/*
 * clean - the keeper, one fiber beside the commits: it puts damaged bytes into quarantine, moves what is still needed
 * out of old segments and frees them, and sees to it that there are free ones.
 *
 * A segment is freed when nothing that lives needs it any more and all that was moved out is synced; then both its
 * headers say so, and that is synced before anything relies on it. DONE marks in it are said again only while a segment
 * that may hold an ACCEPT or STATE of theirs is in use. Which one: the oldest, whose DONE marks are free, unless half
 * of it lives or space presses; then the deadest, which takes the least of what is left. Since space in use is over
 * twice what lives when cleaning begins, the deadest is always worth it. One that has a block that cannot be read is passed over
 * for an hour. Nothing is freed before recovery has shown all that lives.
 */
#include "spool/log/log.h"

#include <inttypes.h>
#include <string.h>

enum { CLEANERS = 16, PASSES = 4, YIELD_EVERY = 1000 };
#define FREE_LIST_LONG_NS HOUR
#define SPACE_LOOK_NS (SECOND)
#define CLEAN_AGAIN_NS HOUR
#define WAIT_FOR_READERS_NS (2 * MILLISECOND)

/* ---- quarantine -------------------------------------------------------------------------------------------------- */

void
damage_add(struct spool *sp, struct segment *seg, uint64_t offset, uint64_t len, struct message_id id, struct str what)
{
    char memory[32];
    struct text name = text_init(memory, sizeof memory);
    struct damage *d;

    list_each(node, &sp->damages) {
        d = container_of(node, struct damage, link);
        if (d->segment == seg && d->offset == offset)
            return;
    }
    segment_name(seg->number, &name);
    spool_report(sp, (struct spool_report){ true, what, text_str(&name), offset, len, id });
    sp->counters.quarantined++;
    if (sp->read_only)
        return;
    d = mem_new(sp->mem, struct damage);
    *d = (struct damage){ .segment = seg, .offset = offset, .len = len };
    seg->pins++;
    list_push_back(&sp->damages, &d->link);
    keeper_wake(sp);
}

static void
damage_free(struct spool *sp, struct damage *d)
{
    segment_unpin(sp, d->segment);
    list_remove(&d->link);
    mem_free(sp->mem, d, sizeof *d);
}

static struct err
copy_bytes(struct spool *sp, const struct damage *d, struct file *to, int64_t until)
{
    char *step = mem_buffer(sp->mem, LIMIT_STEP);
    struct err e = OK;

    for (uint64_t done = 0; done < d->len && !err_is(e); done += LIMIT_STEP) {
        size_t len = d->len - done < LIMIT_STEP ? (size_t)(d->len - done) : LIMIT_STEP;
        struct str part = { step, len };
        e = segment_read(sp, d->segment, d->offset + done, step, len, until);
        if (!err_is(e))
            e = file_write(to, &part, 1, done, LANE_BACKGROUND, until);
    }
    mem_free(sp->mem, step, LIMIT_STEP);
    return err_is(e) ? e : file_sync(to, LANE_BACKGROUND, until);
}

/* quarantine/SEQUENCE-OFFSET. What lies there already was put there by an earlier start. */
static struct err
quarantine_one(struct spool *sp, const struct damage *d, int64_t until)
{
    char memory[64];
    struct text name = text_init(memory, sizeof memory);
    struct dir *dir;
    struct file *file;

    text_putf(&name, "%016" PRIx64 "-%08" PRIx64, d->segment->sequence, d->offset);
    struct err e = dir_make(sp->dir, S("quarantine"), 0700, LANE_BACKGROUND, until);
    if (err_is(e) && e.kind != ERR_EXISTS)
        return e;
    TRY(dir_open_at(sp->dir, S("quarantine"), LANE_BACKGROUND, until, &dir));
    e = file_open(dir, text_str(&name), FILE_WRITE | FILE_CREATE | FILE_NEW, 0600, LANE_BACKGROUND, until, &file);
    if (!err_is(e)) {
        e = copy_bytes(sp, d, file, until);
        file_close(file);
        if (err_is(e))
            (void)dir_unlink(dir, text_str(&name), LANE_BACKGROUND, until);
        else
            e = dir_sync(dir, LANE_BACKGROUND, until);
    } else if (e.kind == ERR_EXISTS) {
        e = OK;
    }
    dir_close(dir);
    return e;
}

static struct err
quarantine_all(struct spool *sp, int64_t until)
{
    while (!list_is_empty(&sp->damages)) {
        struct damage *d = container_of(sp->damages.next, struct damage, link);
        struct err e = quarantine_one(sp, d, until);
        if (e.kind == ERR_CANCELLED)
            return e;
        if (err_is(e))
            spool_report(sp, (struct spool_report){ .what = S("damaged bytes could not be put into quarantine") });
        damage_free(sp, d);
    }
    return OK;
}

/* ---- one message anew -------------------------------------------------------------------------------------------- */

struct restate {
    struct append append;
    uint32_t version;
    struct extent *own_extents;
    uint32_t extent_count;
};

static struct err
prepare_state(struct spool *sp, struct append *a)
{
    struct restate *r = container_of(a, struct restate, append);
    struct message *m = message_find(sp, a->id);

    if (!m || m->ending)
        return ERR(ERR_NOT_FOUND, "write spool message anew");
    if (m->version != r->version || m->unwritten > 0)
        return ERR(ERR_BUSY, "write spool message anew");
    m->unwritten++;
    m->moving = true;
    return OK;
}

static void
finish_state(struct spool *sp, struct append *a)
{
    struct restate *r = container_of(a, struct restate, append);
    struct message *m = message_find(sp, a->id);

    if (!err_is(a->err)) {
        CHECK(m);
        message_forget_fresh(sp, m);
        message_clear_refs(sp, m);
        message_set_base(sp, m, a->place, a->head_size);
        message_set_elsewhere(sp, m, r->own_extents, r->extent_count);
    }
    if (m && a->lsn != 0) {
        m->unwritten--;
        m->moving = false;
    }
    append_done(sp, a);
}

static void
finish_chunk(struct spool *sp, struct append *a)
{
    append_done(sp, a);
}

/* Content that is damaged is not copied: what cannot be read is said to be lost, and the bytes go to the quarantine. */
static struct err
move_chunk(struct spool *sp, struct message_id id, struct segment *from, struct extent *e, int64_t until)
{
    char *memory = mem_alloc(sp->mem, e->len);
    struct append a;
    struct err err = extent_read(sp, *e, memory, until);

    if (err.kind == ERR_CORRUPT) {
        damage_add(sp, from, e->offset, e->len + RECORD_HEADER + RECORD_CHECK, id, S("content is damaged"));
        *e = (struct extent){ 0, 0, e->len };
        err = OK;
    } else if (!err_is(err)) {
        append_init(&a, sp, RECORD_CHUNK, id, 0);
        a.data = str_new(memory, e->len);
        a.data_hash = record_hash_data(a.data);
        a.sync = false;
        a.need = NEED_CLEAN;
        a.finish = finish_chunk;
        err = append_wait(sp, &a);
        if (!err_is(err))
            *e = (struct extent){ a.place.segment->sequence, a.place.offset, e->len };
        mem_free(sp->mem, a.own_head, a.head_size);
    }
    mem_free(sp->mem, memory, e->len);
    return err;
}

/* Where the content will lie: *out_data is what goes into the record itself. */
static struct err
place_content(struct spool *sp, const struct loaded *l, struct segment *from, struct restate *r, struct arena *arena,
              struct str *out_data, int64_t until)
{
    uint32_t count = l->base.head.extent_count;
    bool is_inline = count == 0 && l->record.data_size > 0;

    r->extent_count = is_inline ? 1 : count;
    r->own_extents = mem_alloc(sp->mem, r->extent_count * sizeof *r->own_extents);
    for (uint32_t i = 0; i < count; i++)
        r->own_extents[i] = base_extent(&l->base, i);
    if (is_inline)
        r->own_extents[0] = (struct extent){ l->place.segment->sequence, l->place.offset, l->record.data_size };
    if (r->extent_count == 1 && from && r->own_extents[0].segment == from->sequence &&
        r->own_extents[0].len <= sp->inline_max) {
        char *memory = arena_alloc(arena, r->own_extents[0].len);
        struct err e = extent_read(sp, r->own_extents[0], memory, until);
        if (e.kind != ERR_CORRUPT) {
            *out_data = str_new(memory, r->own_extents[0].len);
            mem_free(sp->mem, r->own_extents, sizeof *r->own_extents);
            r->own_extents = NULL;
            r->extent_count = 0;
            return e;
        }
    }
    for (uint32_t i = 0; i < r->extent_count; i++)
        if (from && r->own_extents[i].segment == from->sequence)
            TRY(move_chunk(sp, l->message.id, from, &r->own_extents[i], until));
    return OK;
}

static bool
status_is_new(const struct recipient_status *s)
{
    return s->state == STATE_PENDING && s->notices == 0 && s->attempts == 0 && s->next_wall == 0 && s->last_reply.len == 0 &&
           s->last_remote.len == 0;
}

/* What remotes said is for people to read: where all of it does not fit a record, each gets the same share of it. */
static void
shorten_replies(struct spool_settle *state, struct recipient_status *statuses, size_t room)
{
    for (size_t longest = LIMIT_REPLY_TEXT; settle_size(state) > room && longest > 0;) {
        longest /= 2;
        for (size_t i = 0; i < state->count; i++) {
            statuses[i].last_reply = str_slice(statuses[i].last_reply, 0, longest);
            statuses[i].last_remote = str_slice(statuses[i].last_remote, 0, longest);
        }
    }
}

static struct err
write_state(struct spool *sp, const struct loaded *l, struct restate *r, struct str data, struct arena *arena)
{
    const struct spool_message *m = &l->message;
    struct recipient_status *statuses = arena_alloc(arena, m->envelope.recipient_count * sizeof *statuses);
    struct spool_settle state = { .id = m->id, .statuses = statuses, .set_held = m->held, .held = m->held,
                                  .held_why = m->held_why, .set_deaths = m->deaths > 0, .deaths = m->deaths };

    for (size_t i = 0; i < m->envelope.recipient_count; i++)
        if (!status_is_new(&m->statuses[i]))
            statuses[state.count++] = m->statuses[i];
    size_t rest = BASE_FIXED + r->extent_count * EXTENT_SIZE + l->base.envelope.len;
    struct record without = { .body = str_new(NULL, rest), .data_size = (uint32_t)data.len };
    shorten_replies(&state, statuses, record_size_max(sp) - record_size(&without));
    struct base_head head = l->base.head;
    head.extent_count = r->extent_count;
    head.state_size = (uint32_t)settle_size(&state);
    head.settles_size = 0;
    append_init(&r->append, sp, RECORD_STATE, m->id, rest + head.state_size);
    r->append.data = data;
    r->append.data_hash = record_hash_data(data);
    r->append.prepare = prepare_state;
    r->append.finish = finish_state;
    r->append.need = NEED_CLEAN;
    r->version = l->version;
    struct put p = append_put(&r->append);
    base_put(&p, &head);
    p.len += r->extent_count * EXTENT_SIZE;
    for (uint32_t i = 0; i < r->extent_count; i++)
        extent_put_at(append_body(&r->append), i, r->own_extents[i]);
    settle_put(&p, &state);
    put_raw(&p, l->base.envelope);
    CHECK(!p.full && p.len == p.cap);
    struct err e = append_wait(sp, &r->append);
    mem_free(sp->mem, r->append.own_head, r->append.head_size);
    return e;
}

static void
forget_place(struct spool *sp, struct restate *r)
{
    mem_free(sp->mem, r->own_extents, r->extent_count * sizeof *r->own_extents);
    r->own_extents = NULL;
    r->extent_count = 0;
}

static struct err
restate_once(struct spool *sp, struct message_id id, struct segment *from, struct restate *r, struct arena *arena, int64_t until)
{
    struct loaded l;
    struct str data = { NULL, 0 };

    TRY(message_load(sp, id, arena, until, &l));
    struct err e = r->own_extents ? OK : place_content(sp, &l, from, r, arena, &data, until);
    if (err_is(e)) /* half of it may have been moved */
        forget_place(sp, r);
    else
        e = write_state(sp, &l, r, data, arena);
    return e;
}

static struct err
restate(struct spool *sp, struct message_id id, struct segment *from, int64_t until)
{
    struct restate r = { .own_extents = NULL };
    struct arena arena;
    struct err e;

    arena_init(&arena, sp->mem, 16 << 10, SIZE_MAX / 2);
    /* Until nothing changed while we read. Content that was moved to the end of the log is not moved again: until a STATE names it
     * nothing counts it as living, but only the keeper moves any, and meanwhile it frees no other segment than `from`. */
    do {
        arena_reset(&arena);
        e = restate_once(sp, id, from, &r, &arena, until);
    } while (e.kind == ERR_BUSY);
    forget_place(sp, &r);
    arena_done(&arena);
    return e;
}

struct err
message_restate(struct spool *sp, struct message_id id, struct segment *from, int64_t until)
{
    struct message *m = message_find(sp, id);

    if (m && m->restating) { /* once will do; who asked looks again */
        while ((m = message_find(sp, id)) != NULL && m->restating)
            TRY(event_wait(sp->rt, &sp->written, until));
        return OK;
    }
    if (m)
        m->restating = true;
    struct err e = restate(sp, id, from, until);
    if ((m = message_find(sp, id)) != NULL)
        m->restating = false;
    event_wake(sp->rt, &sp->written);
    if (e.kind == ERR_CORRUPT && m && m->unwritten == 0 && !m->ending)
        message_retire(sp, m); /* its head is lost, and with it the message; the bytes are in quarantine */
    if (e.kind != ERR_CORRUPT && e.kind != ERR_NOT_FOUND)
        return e;
    while ((m = message_find(sp, id)) != NULL && m->ending && !sp->broken) /* until that is on disk */
        TRY(event_wait(sp->rt, &sp->written, until));
    return OK;
}

/* ---- one segment ------------------------------------------------------------------------------------------------- */

struct cleaning { /* several fibers share the work, so that a batch has many of their records */
    struct spool *sp;
    struct segment *segment;
    const struct index_entry *entries;
    uint32_t count, next;
    struct err err;
};

static bool
is_in_use(const struct spool *sp, uint64_t first, uint64_t last, const struct segment *but)
{
    for (uint32_t i = 0; i < sp->segment_count; i++) {
        uint64_t sequence = sp->own_segments[i]->sequence;
        if (sequence >= first && sequence <= last && sp->own_segments[i] != but)
            return true;
    }
    return false;
}

/* A DONE that something on disk still needs is said again. */
static struct err
move_done(struct spool *sp, struct segment *seg, const struct index_entry *e)
{
    struct settle_reader settle = { .head.base_first = 0, .head.base_last = seg->sequence };
    struct spool_settle nothing = { .id = e->id };
    struct arena arena;
    struct record r;
    struct append a;

    arena_init(&arena, sp->mem, 4096, SIZE_MAX / 2);
    struct err err = head_read(sp, (struct place){ seg, e->offset, e->size }, e->head_size, &arena, FOREVER, &r);
    struct base base;
    if (!err_is(err)) {
        struct take t = take_init(r.body);
        if (r.type == RECORD_ACCEPT && base_take(r.body, &base))
            t = take_init(str_from(base.settles, MESSAGE_ID_BYTES));
        (void)settle_take(&t, &settle);
    }
    arena_done(&arena);
    if (err_is(err) && err.kind != ERR_CORRUPT)
        return err;
    if (!is_in_use(sp, settle.head.base_first, settle.head.base_last, seg))
        return OK;
    append_init(&a, sp, RECORD_DONE, e->id, settle_size(&nothing));
    struct put p = append_put(&a);
    settle_put(&p, &nothing);
    settle_patch(append_body(&a), settle.head.base_first, settle.head.base_last, true);
    a.need = NEED_CLEAN;
    err = append_wait(sp, &a);
    mem_free(sp->mem, a.own_head, a.head_size);
    return err;
}

static struct err
clean_entry(struct spool *sp, struct segment *seg, const struct index_entry *e)
{
    struct message *m = message_find(sp, e->id);

    if (e->type == RECORD_CHECKPOINT)
        return OK;
    if (m && message_needs(m, seg))
        return message_restate(sp, e->id, seg, FOREVER);
    if (e->type == RECORD_DONE && !m)
        return move_done(sp, seg, e);
    return OK;
}

static void
clean_some(void *arg)
{
    struct cleaning *c = arg;

    while (c->next < c->count && !err_is(c->err)) {
        struct err e = clean_entry(c->sp, c->segment, &c->entries[c->next++]);
        if (err_is(e))
            c->err = e;
        fiber_yield(c->sp->rt);
    }
}

/*
 * Large messages have content where no index speaks of them. The list may be long, and changes while others run: each
 * goes to its end once it was looked at, until the mark that stood there comes to the front. What is written anew joins
 * behind it.
 */
static struct err
clean_elsewhere(struct spool *sp, struct segment *seg)
{
    struct list mark;
    struct err e = OK;
    size_t steps = 0;

    list_init(&mark);
    list_push_back(&sp->elsewhere, &mark);
    while (sp->elsewhere.next != &mark && !err_is(e)) {
        struct list *node = list_pop_front(&sp->elsewhere);
        struct message *m = container_of(node, struct elsewhere, link)->message;
        list_push_back(&sp->elsewhere, node);
        if (message_needs(m, seg) && !m->ending)
            e = message_restate(sp, m->id, seg, FOREVER);
        else if (++steps % YIELD_EVERY == 0)
            fiber_yield(sp->rt);
    }
    list_remove(&mark);
    return e;
}

static struct draft *
draft_in(struct spool *sp, const struct segment *seg, uint32_t *out_extent)
{
    list_each(node, &sp->drafts) {
        struct draft *d = container_of(node, struct draft, link);
        for (uint32_t i = 0; i < d->extent_count; i++)
            if (d->own_extents[i].segment == seg->sequence) {
                *out_extent = i;
                return d;
            }
    }
    return NULL;
}

/* A slow client must not hold on to a segment: what it has sent so far moves too. */
static struct err
clean_drafts(struct spool *sp, struct segment *seg)
{
    struct draft *d;
    uint32_t i;

    while ((d = draft_in(sp, seg, &i)) != NULL) {
        struct extent old = d->own_extents[i], moved = old;
        struct message_id id = d->id;
        if (d->committing) { /* a moment, and it is a message's */
            TRY(event_wait(sp->rt, &sp->written, FOREVER));
            continue;
        }
        TRY(move_chunk(sp, id, seg, &moved, FOREVER));
        bool is_there = false;
        list_each(node, &sp->drafts)
            is_there |= container_of(node, struct draft, link) == d;
        if (!is_there || !message_id_eq(d->id, id) || d->committing || i >= d->extent_count ||
            d->own_extents[i].segment != old.segment || d->own_extents[i].offset != old.offset)
            continue; /* committed or given up meanwhile */
        d->own_extents[i] = moved;
        segment_count_live(sp, seg, -(int64_t)old.len);
        segment_count_live(sp, moved.segment ? segment_by_sequence(sp, moved.segment) : NULL, moved.len);
    }
    return OK;
}

static struct err
clean_index(struct spool *sp, struct segment *seg, int64_t until)
{
    struct cleaning c = { .sp = sp, .segment = seg, .err = OK };
    struct index_entry *own_entries = NULL;
    struct scope scope;

    if (seg->state == SEGMENT_SEALED) {
        TRY(index_read(sp, seg, until, &own_entries, &c.count));
        c.entries = own_entries;
    } else {
        c.entries = seg->own_index;
        c.count = seg->index_count;
    }
    scope_init(&scope, sp->rt);
    for (size_t i = 0; i < CLEANERS && i < c.count; i++)
        scope_start(&scope, "clean", clean_some, &c);
    struct err e = scope_wait(&scope, until);
    if (err_is(e))
        c.err = e;
    scope_end(&scope);
    if (own_entries)
        mem_free(sp->mem, own_entries, c.count * sizeof *own_entries);
    return c.err;
}

/* ---- free segments ----------------------------------------------------------------------------------------------- */

/* Both headers say that it is free, and that is synced. */
static struct err
write_free_headers(struct spool *sp, struct segment *seg, bool written, enum lane lane, int64_t until)
{
    unsigned char *block = mem_alloc(sp->mem, BLOCK);
    struct str part = { (const char *)block, BLOCK };

    seg->header = (struct segment_header){
        .version = SEGMENT_VERSION,
        .state = SEGMENT_FREE,
        .bytes = seg->header.bytes,
        .sequence = seg->sequence,
        .created_spool = spool_now(sp),
        .created_wall = rt_wall(sp->rt),
        .end = written ? seg->header.bytes : 0,
    };
    segment_header_put(block, &seg->header);
    struct err e = segment_pin(sp, seg, until);
    if (!err_is(e)) {
        e = file_write(seg->own_file, &part, 1, 0, lane, until);
        if (!err_is(e))
            e = file_write_sync(seg->own_file, &part, 1, seg->header.bytes - BLOCK, lane, until);
        segment_unpin(sp, seg);
        if (err_is(e) && e.kind != ERR_NO_SPACE && e.kind != ERR_CANCELLED)
            spool_break(sp, e); /* here too: never again in hope */
    }
    mem_free(sp->mem, block, BLOCK);
    return e;
}

static void
enter_free(struct spool *sp, struct segment *seg, bool written)
{
    seg->state = SEGMENT_FREE;
    seg->written = written;
    seg->free_since = rt_now(sp->rt);
    list_push_back(&sp->free, &seg->link);
    sp->free_count++;
    sp->starved = sp->hopeless = false;
    event_wake(sp->rt, &sp->work);
}

struct segment *
free_take(struct spool *sp)
{
    struct segment *taken = NULL;

    list_each(node, &sp->free) {
        struct segment *seg = container_of(node, struct segment, link);
        if (!taken || (seg->written && !taken->written))
            taken = seg;
    }
    list_remove(&taken->link);
    sp->free_count--;
    return taken;
}

static struct err
unlink_segment(struct spool *sp, struct segment *seg, int64_t until)
{
    char memory[32];
    struct text name = text_init(memory, sizeof memory);

    segment_name(seg->number, &name);
    segment_free(sp, seg);
    return dir_unlink(sp->dir, text_str(&name), LANE_BACKGROUND, until);
}

static bool
may_grow(const struct spool *sp)
{
    uint64_t files = sp->segment_count + sp->free_count + sp->making;

    return sp->settings.space_max == 0 || (files + 1) * sp->settings.segment_bytes <= sp->settings.space_max;
}

static struct err
fill_new(struct spool *sp, struct segment *seg, enum lane lane)
{
    TRY(segment_pin(sp, seg, FOREVER));
    struct err e = file_claim(seg->own_file, seg->header.bytes, lane, FOREVER);
    if (!err_is(e))
        e = write_free_headers(sp, seg, false, lane, FOREVER);
    segment_unpin(sp, seg);
    return err_is(e) ? e : dir_sync(sp->dir, lane, FOREVER);
}

/* Its space is claimed, so that a full disk shows here and not in the middle of a batch. */
struct err
segment_make(struct spool *sp, enum lane lane)
{
    char memory[32];
    struct text name = text_init(memory, sizeof memory);
    struct file *file;

    if (!may_grow(sp))
        return ERR(ERR_NO_SPACE, "make spool segment: as much as the setting allows is in use");
    struct segment *seg = segment_new(sp, sp->next_number);
    seg->header.bytes = sp->settings.segment_bytes;
    segment_name(seg->number, &name);
    sp->making++;
    struct err e = file_open(sp->dir, text_str(&name), FILE_READ | FILE_WRITE | FILE_CREATE | FILE_NEW, 0600, lane, FOREVER,
                             &file);
    if (!err_is(e)) {
        file_close(file);
        e = fill_new(sp, seg, lane);
    }
    if (err_is(e))
        (void)unlink_segment(sp, seg, FOREVER);
    sp->making--;
    sp->fs_free_at = 0;
    if (err_is(e))
        event_wake(sp->rt, &sp->work); /* who waits for it need not */
    else
        enter_free(sp, seg, false);
    return e;
}

/* Zeros over all of it, in steps that give way: a commit into blocks that were written once changes no metadata. */
static struct err
prewrite(struct spool *sp, struct segment *seg, int64_t until)
{
    char *zeros = mem_alloc(sp->mem, LIMIT_STEP / 4);
    struct str part = { zeros, LIMIT_STEP / 4 };
    struct err e = segment_pin(sp, seg, until);

    if (!err_is(e)) {
        for (uint64_t at = BLOCK; at < seg->header.bytes - BLOCK && !err_is(e); at += part.len) {
            if (part.len > seg->header.bytes - BLOCK - at)
                part.len = (size_t)(seg->header.bytes - BLOCK - at);
            e = file_write(seg->own_file, &part, 1, at, LANE_BACKGROUND, until);
            fiber_yield(sp->rt);
        }
        if (!err_is(e))
            e = write_free_headers(sp, seg, true, LANE_BACKGROUND, until);
        segment_unpin(sp, seg);
    }
    mem_free(sp->mem, zeros, LIMIT_STEP / 4);
    return e;
}

static struct err
free_segment(struct spool *sp, struct segment *seg, int64_t until)
{
    bool written = seg->header.bytes == sp->settings.segment_bytes;

    do {
        while (seg->pins > 0) { /* readers that began before it was moved */
            TRY(quarantine_all(sp, until));
            TRY(rt_sleep(sp->rt, within(sp->rt, WAIT_FOR_READERS_NS)));
        }
        TRY(write_free_headers(sp, seg, written, LANE_BACKGROUND, until));
    } while (seg->pins > 0);
    segment_drop_cache(sp, seg);
    for (size_t i = 0; i < CONTENT_SLOTS; i++)
        if (sp->own_slots[i].sequence == seg->sequence)
            sp->own_slots[i].sequence = sp->own_slots[i].used_at = 0;
    segment_leave(sp, seg); /* only now: until it is synced, what lies there may come back */
    segment_index_drop(sp, seg);
    if (!written)
        return unlink_segment(sp, seg, until);
    enter_free(sp, seg, true);
    return OK;
}

static struct err
clean_segment(struct spool *sp, struct segment *seg, int64_t until)
{
    for (int pass = 0; pass < PASSES; pass++) {
        TRY(clean_index(sp, seg, until));
        TRY(clean_elsewhere(sp, seg));
        TRY(clean_drafts(sp, seg));
        if (seg->live_bytes == 0)
            return free_segment(sp, seg, until);
    }
    return ERR(ERR_BUSY, "clean spool segment");
}

/* ---- what next --------------------------------------------------------------------------------------------------- */

static bool
may_be_cleaned(const struct spool *sp, const struct segment *seg)
{
    return seg->clean_after <= rt_now(sp->rt);
}

/* Sealed ones first; an unsealed one that is not the current one is left from before a crash. */
static struct segment *
left_over(const struct spool *sp)
{
    for (uint32_t i = 0; i < sp->segment_count; i++) {
        struct segment *seg = sp->own_segments[i];
        if (seg->state == SEGMENT_OPEN && seg != sp->current && may_be_cleaned(sp, seg))
            return seg;
    }
    return NULL;
}

static bool
space_presses(const struct spool *sp)
{
    return sp->free_count < RESERVE_SEGMENTS || space_for_mail(sp) < 2 * sp->settings.segment_bytes;
}

/* As it was when cleaning last won a segment: little has died of what lived then, and little came. A round moves all that lives, so
 * what is little goes by that; but where space presses each segment counts, or the queue could not drain. */
static bool
is_as_it_was(const struct spool *sp)
{
    uint64_t live = sp->live_bytes, then = sp->cleaned_live_bytes, size = sp->settings.segment_bytes;
    uint64_t died = then > live ? then - live : 0, little = (then > size && !space_presses(sp) ? then : size) / 16;

    return died < little && sp->came_bytes - sp->cleaned_came_bytes < little;
}

/*
 * Each batch takes whole blocks, so many small records that are moved one by one may fill as much as is freed, or more. A round
 * through all segments that has not won a single one is not begun again before something has changed.
 */
static bool
is_in_vain(const struct spool *sp)
{
    return is_as_it_was(sp) && sp->cleaned_in_vain > sp->segment_count;
}

static void
note_cleaned(struct spool *sp)
{
    if (is_as_it_was(sp) && sp->segment_count >= sp->cleaned_segments) {
        sp->cleaned_in_vain++;
        return;
    }
    sp->cleaned_in_vain = 0;
    sp->cleaned_segments = sp->segment_count;
    sp->cleaned_live_bytes = sp->live_bytes;
    sp->cleaned_came_bytes = sp->came_bytes;
}

static bool
much_is_dead(const struct spool *sp)
{
    uint64_t used = sp->segment_count * sp->settings.segment_bytes, size = sp->settings.segment_bytes;
    bool much = used > 2 * sp->live_bytes + 3 * size || (space_presses(sp) && used > sp->live_bytes + 2 * size);

    return much && !is_in_vain(sp);
}

static struct segment *
choose_victim(const struct spool *sp)
{
    struct segment *best = NULL;

    for (uint32_t i = 0; i < sp->segment_count; i++) {
        struct segment *seg = sp->own_segments[i];
        if (seg->state != SEGMENT_SEALED || !may_be_cleaned(sp, seg))
            continue;
        if (!best && seg->live_bytes <= seg->header.bytes / 2 && !space_presses(sp)) /* the oldest of all */
            return seg;
        if (!best || seg->live_bytes + seg->done_bytes < best->live_bytes + best->done_bytes)
            best = seg;
    }
    return best && best->live_bytes + best->done_bytes < best->header.bytes / 8 * 7 ? best : NULL;
}

bool
keeper_is_needed(const struct spool *sp)
{
    return sp->keeping && (!list_is_empty(&sp->damages) || (sp->ordered && much_is_dead(sp)));
}

static struct segment *
unwritten_free(const struct spool *sp)
{
    list_each(node, &sp->free)
        if (!container_of(node, struct segment, link)->written)
            return container_of(node, struct segment, link);
    return NULL;
}

static bool
written_is_free(const struct spool *sp)
{
    list_each(node, &sp->free)
        if (container_of(node, struct segment, link)->written)
            return true;
    return false;
}

/* A reserve always; and once there is traffic, one segment ahead of it that was written once already. */
static struct err
keep_free(struct spool *sp, bool *out_did, int64_t until)
{
    bool traffic = sp->current && sp->current->used > sp->settings.segment_bytes / 4;
    uint32_t want = RESERVE_SEGMENTS + (traffic ? SPARE_SEGMENTS : 0);
    struct segment *seg;

    if (sp->free_count < want) {
        struct err e = segment_make(sp, LANE_BACKGROUND);
        if (e.kind == ERR_NO_SPACE)
            return OK;
        TRY(e);
        *out_did = true;
    }
    if (traffic && sp->free_count >= want && !written_is_free(sp) && (seg = unwritten_free(sp)) != NULL) {
        list_remove(&seg->link);
        sp->free_count--;
        sp->making++;
        struct err e = prewrite(sp, seg, until);
        sp->making--;
        enter_free(sp, seg, !err_is(e));
        TRY(e);
        *out_did = true;
    }
    if (sp->free_count > RESERVE_SEGMENTS + SPARE_SEGMENTS) {
        seg = container_of(sp->free.next, struct segment, link);
        if (rt_now(sp->rt) - seg->free_since > FREE_LIST_LONG_NS) {
            list_remove(&seg->link);
            sp->free_count--;
            checkpoint_queue(sp); /* the last one may still name it */
            *out_did = true;
            return unlink_segment(sp, seg, until);
        }
    }
    return OK;
}

/* It has a block that cannot be read, say: others can be cleaned. */
static void
put_off(struct spool *sp, uint64_t sequence)
{
    struct segment *seg = segment_by_sequence(sp, sequence);

    if (seg)
        seg->clean_after = within(sp->rt, CLEAN_AGAIN_NS);
}

static struct err
keep_once(struct spool *sp, bool *out_did, int64_t until)
{
    struct segment *victim;

    *out_did = false;
    TRY(quarantine_all(sp, until));
    if (space_look(sp, until).kind == ERR_CANCELLED) /* anything else keeps nothing from being cleaned */
        return ERR(ERR_CANCELLED, "clean spool");
    TRY(keep_free(sp, out_did, until));
    if (!sp->ordered) /* what recovery could not show may need any segment */
        return OK;
    victim = left_over(sp);
    if (victim)
        TRY(checkpoint_first(sp));
    if (!victim && ((sp->starved && !is_in_vain(sp)) || much_is_dead(sp)))
        victim = choose_victim(sp);
    if (!victim)
        return OK;
    uint64_t sequence = victim->sequence;
    struct err e = clean_segment(sp, victim, until);
    if (e.kind == ERR_BUSY) /* its readers and settles were faster than we: later */
        return OK;
    *out_did = true;
    if (err_is(e) && e.kind != ERR_NO_SPACE && e.kind != ERR_CANCELLED)
        put_off(sp, sequence);
    if (!err_is(e))
        note_cleaned(sp);
    return e;
}

void
keeper_wake(struct spool *sp)
{
    sp->keep_wanted = true;
    event_wake(sp->rt, &sp->keep);
}

/* Who waits for a free segment need not. */
static void
give_up_hope(struct spool *sp)
{
    if (!sp->starved)
        return;
    sp->starved = false;
    sp->hopeless = true;
    event_wake(sp->rt, &sp->work);
    event_wake(sp->rt, &sp->written); /* a lazy settle that stands in the queue now is not waited for */
}

void
keeper_run(void *arg)
{
    struct spool *sp = arg;
    struct err e = OK;

    while (e.kind != ERR_CANCELLED && !sp->broken && !sp->stopping) {
        bool did = false;
        sp->keep_wanted = false;
        e = keep_once(sp, &did, FOREVER);
        if (err_is(e) && e.kind != ERR_CANCELLED) {
            char memory[200];
            struct text text = text_init(memory, sizeof memory);
            text_put(&text, S("the spool could not be cleaned: "));
            err_text(e, &text);
            spool_report(sp, (struct spool_report){ .what = text_str(&text) });
            if (!choose_victim(sp)) /* else the next one may give */
                give_up_hope(sp);
            e = rt_sleep(sp->rt, within(sp->rt, SECOND));
        } else if (!did && sp->starved) {
            give_up_hope(sp);
        } else if (!did && !sp->keep_wanted && e.kind != ERR_CANCELLED) {
            bool free_list_long = sp->free_count > RESERVE_SEGMENTS + SPARE_SEGMENTS;
            bool space_short = sp->free_count < RESERVE_SEGMENTS || space_for_mail(sp) < sp->settings.segment_bytes;
            message_age_fresh(sp);
            sp->keeper_looks = !list_is_empty(&sp->fresh);
            e = event_wait(sp->rt, &sp->keep,
                           space_short                          ? within(sp->rt, SECOND) /* until somebody frees the disk */
                           : free_list_long || sp->keeper_looks ? within(sp->rt, MINUTE)
                                                                : FOREVER);
            if (e.kind == ERR_TIMEOUT)
                e = OK;
        }
    }
}

void
keeper_drop(struct spool *sp)
{
    while (!list_is_empty(&sp->damages))
        damage_free(sp, container_of(sp->damages.next, struct damage, link));
}

/* ---- space ------------------------------------------------------------------------------------------------------- */

struct err
space_look(struct spool *sp, int64_t until)
{
    uint64_t bytes, inodes;

    if (sp->fs_free_at != 0 && rt_now(sp->rt) - sp->fs_free_at < SPACE_LOOK_NS)
        return OK;
    TRY(dir_free_space(sp->dir, LANE_BACKGROUND, until, &bytes, &inodes));
    sp->fs_free = inodes > 0 ? bytes : 0;
    sp->fs_free_at = rt_now(sp->rt);
    return OK;
}

/* What the free segments beyond the reserve hold, what is left of the current one, and what the disk would still
 * give. */
uint64_t
space_for_mail(const struct spool *sp)
{
    uint64_t size = sp->settings.segment_bytes, usable = size - size / 16;
    uint64_t free = sp->free_count + sp->making, files = sp->segment_count + free;
    uint64_t more = sp->fs_free / size, current = 0;

    if (sp->settings.space_max > 0) {
        uint64_t max = sp->settings.space_max / size;
        more = max <= files ? 0 : more < max - files ? more : max - files;
    }
    if (sp->current) {
        uint64_t end = segment_room_end(sp, sp->current, sp->current->index_count / 8 + 16);
        current = sp->current->used < end ? end - sp->current->used : 0;
    }
    uint64_t segments = free + more;
    if (segments < RESERVE_SEGMENTS)
        return 0;
    return current + (segments > RESERVE_SEGMENTS ? (segments - RESERVE_SEGMENTS) * usable : 0);
}
