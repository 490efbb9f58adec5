/*
 * message - what the spool knows in memory of each live message: where its base and its settles lie, the state of each
 * recipient in four bits, and so which bytes of which segment are still needed. Everything else stays on disk.
 */
#include "spool/log/log.h"

#include <string.h>

struct message *
message_find(const struct spool *sp, struct message_id id)
{
    return ids_get(&sp->messages, id);
}

struct message *
message_new(struct spool *sp, struct message_id id)
{
    struct message *m = slab_take(&sp->message_slab);

    m->id = id;
    m->base_first = UINT64_MAX;
    list_init(&m->link);
    ids_put(&sp->messages, &m->id);
    return m;
}

/* ---- what is needed of a segment --------------------------------------------------------------------------------- */

void
segment_count_live(struct spool *sp, struct segment *seg, int64_t bytes)
{
    if (!seg)
        return;
    CHECK(bytes >= 0 || seg->live_bytes >= (uint64_t)-bytes);
    seg->live_bytes += (uint64_t)bytes;
    sp->live_bytes += (uint64_t)bytes;
}

static void
drop_elsewhere(struct spool *sp, struct message *m)
{
    struct elsewhere *e = m->own_elsewhere;

    if (!e)
        return;
    for (uint32_t i = 0; i < e->count; i++)
        segment_count_live(sp, e->at[i].segment, -(int64_t)e->at[i].bytes);
    list_remove(&e->link);
    mem_free(sp->mem, e, sizeof *e + e->count * sizeof e->at[0]);
    m->own_elsewhere = NULL;
}

void
message_set_elsewhere(struct spool *sp, struct message *m, const struct extent *extents, uint32_t count)
{
    struct elsewhere *e;
    uint32_t used = 0;

    drop_elsewhere(sp, m);
    if (count == 0)
        return;
    e = mem_alloc(sp->mem, sizeof *e + count * sizeof e->at[0]);
    for (uint32_t i = 0; i < count; i++) {
        struct segment *seg = extents[i].segment ? segment_by_sequence(sp, extents[i].segment) : NULL;
        uint32_t at = 0;
        if (!seg)
            continue;
        while (at < used && e->at[at].segment != seg)
            at++;
        used += at == used;
        e->at[at].segment = seg;
        e->at[at].bytes += extents[i].len;
        segment_count_live(sp, seg, extents[i].len);
    }
    m->own_elsewhere = mem_resize(sp->mem, e, sizeof *e + count * sizeof e->at[0], sizeof *e + used * sizeof e->at[0]);
    m->own_elsewhere->count = used;
    m->own_elsewhere->message = m;
    list_push_back(&sp->elsewhere, &m->own_elsewhere->link);
}

void
message_set_base(struct spool *sp, struct message *m, struct place place, uint32_t head_size)
{
    segment_count_live(sp, m->base.segment, -(int64_t)m->base.size);
    m->base = place;
    m->head_size = head_size;
    segment_count_live(sp, place.segment, place.size);
    if (place.segment->sequence < m->base_first)
        m->base_first = place.segment->sequence;
    m->version++;
}

static struct place *
refs(struct message *m)
{
    return m->ref_cap > 0 ? m->refs.own_many : &m->refs.one;
}

const struct place *
message_refs(const struct message *m)
{
    return m->ref_cap > 0 ? m->refs.own_many : &m->refs.one;
}

static void
make_room_for_ref(struct spool *sp, struct message *m)
{
    size_t room = m->ref_cap > 0 ? m->ref_cap : 1, cap = 2 * room;
    struct place *many;

    if (m->ref_count < room)
        return;
    CHECK(cap <= UINT16_MAX);
    many = mem_alloc(sp->mem, cap * sizeof *many);
    memcpy(many, refs(m), m->ref_count * sizeof *many);
    mem_free(sp->mem, m->ref_cap > 0 ? m->refs.own_many : NULL, m->ref_cap * sizeof *many);
    m->refs.own_many = many;
    m->ref_cap = (uint16_t)cap;
}

void
message_add_ref(struct spool *sp, struct message *m, struct place place)
{
    make_room_for_ref(sp, m);
    refs(m)[m->ref_count++] = place;
    segment_count_live(sp, place.segment, place.size);
    m->version++;
}

void
message_add_older_ref(struct spool *sp, struct message *m, struct place place)
{
    message_add_ref(sp, m, place);
    memmove(refs(m) + 1, refs(m), (m->ref_count - 1u) * sizeof place);
    refs(m)[0] = place;
}

void
message_clear_refs(struct spool *sp, struct message *m)
{
    for (size_t i = 0; i < m->ref_count; i++)
        segment_count_live(sp, refs(m)[i].segment, -(int64_t)refs(m)[i].size);
    if (m->ref_cap > 0)
        mem_free(sp->mem, m->refs.own_many, m->ref_cap * sizeof *m->refs.own_many);
    m->ref_count = m->ref_cap = 0;
    m->version++;
}

uint64_t
message_base_first(const struct spool *sp, const struct message *m)
{
    return sp->index_known ? m->base_first : 0;
}

bool
message_needs(const struct message *m, const struct segment *seg)
{
    if (m->base.segment == seg)
        return true;
    for (size_t i = 0; i < m->ref_count; i++)
        if (message_refs(m)[i].segment == seg)
            return true;
    for (uint32_t i = 0; m->own_elsewhere && i < m->own_elsewhere->count; i++)
        if (m->own_elsewhere->at[i].segment == seg)
            return true;
    return false;
}

/* ---- recipients -------------------------------------------------------------------------------------------------- */

static size_t
states_size(const struct message *m)
{
    return ((size_t)m->recipients + 1) / 2;
}

static uint8_t *
states(struct message *m)
{
    return states_size(m) <= sizeof m->states.few ? m->states.few : m->states.own_many;
}

/* All are pending. */
void
message_set_recipients(struct spool *sp, struct message *m, uint32_t count)
{
    CHECK(m->recipients == 0 && count <= UINT16_MAX);
    m->recipients = m->open = m->unended = (uint16_t)count;
    sp->open_recipients += count;
    if (states_size(m) > sizeof m->states.few)
        m->states.own_many = mem_alloc(sp->mem, states_size(m));
}

/* Ended well, but the notice that says so is still owed: each of these has a number of its own behind the states. */
static const uint8_t owing[] = { STATE_DELIVERED, STATE_RELAYED, STATE_EXPANDED };
static_assert(STATE_LAST + sizeof owing < 16, "four bits for each recipient");

static uint8_t
pack_state(uint8_t state, uint8_t notices)
{
    CHECK(state <= STATE_LAST);
    for (size_t i = 0; (notices & NOTICE_SUCCESS_OWED) && i < sizeof owing; i++)
        if (owing[i] == state)
            return (uint8_t)(STATE_LAST + 1 + i);
    return state;
}

static uint8_t
packed_state(const struct message *m, uint32_t i)
{
    uint8_t pair;

    CHECK(i < m->recipients);
    pair = states_size(m) <= sizeof m->states.few ? m->states.few[i / 2] : m->states.own_many[i / 2];
    return i % 2 ? pair >> 4 : pair & 15;
}

uint8_t
message_state(const struct message *m, uint32_t i)
{
    uint8_t packed = packed_state(m, i);

    return packed > STATE_LAST ? owing[packed - STATE_LAST - 1] : packed;
}

static bool
is_open(uint8_t packed)
{
    return packed > STATE_LAST || !recipient_state_is_ended(packed);
}

void
message_set_state(struct spool *sp, struct message *m, uint32_t i, uint8_t state, uint8_t notices)
{
    uint8_t was = packed_state(m, i), is = pack_state(state, notices), *pair = &states(m)[i / 2];
    bool was_ended = recipient_state_is_ended(message_state(m, i));

    *pair = (uint8_t)(i % 2 ? (*pair & 15) | is << 4 : (*pair & 0xf0) | is);
    m->open = (uint16_t)(m->open + is_open(is) - is_open(was));
    m->unended = (uint16_t)(m->unended + was_ended - recipient_state_is_ended(state));
    sp->open_recipients += (uint64_t)was_ended - (uint64_t)recipient_state_is_ended(state);
}

void
message_adopt(struct spool *sp, struct message *m, const struct loaded *l)
{
    struct extent *extents;
    uint32_t count = l->base.head.extent_count;

    CHECK(!m->loaded);
    m->loaded = true;
    m->order = l->base.head.order;
    m->held = l->message.held;
    m->deaths = l->message.deaths;
    message_set_recipients(sp, m, (uint32_t)l->message.envelope.recipient_count);
    for (uint32_t i = 0; i < m->recipients; i++)
        message_set_state(sp, m, i, l->message.statuses[i].state, l->message.statuses[i].notices);
    extents = mem_alloc(sp->mem, count * sizeof *extents);
    for (uint32_t i = 0; i < count; i++)
        extents[i] = base_extent(&l->base, i);
    message_set_elsewhere(sp, m, extents, count);
    mem_free(sp->mem, extents, count * sizeof *extents);
}

/* ---- fresh content ----------------------------------------------------------------------------------------------- */

static size_t
fresh_size(const struct fresh *f)
{
    return sizeof *f + f->head_size + f->data_cap;
}

static void
fresh_free(struct spool *sp, struct fresh *f)
{
    sp->fresh_bytes -= fresh_size(f);
    list_remove(&f->link);
    f->message->own_fresh = NULL;
    mem_free(sp->mem, f->own_head, f->head_size);
    mem_free(sp->mem, f->own_data, f->data_cap);
    mem_free(sp->mem, f, sizeof *f);
}

/* Takes what f owns. When no more comes, the keeper lets what is old go. */
void
message_make_fresh(struct spool *sp, struct message *m, struct fresh *f)
{
    f->message = m;
    f->until = within(sp->rt, FRESH_NS);
    m->own_fresh = f;
    list_push_back(&sp->fresh, &f->link);
    sp->fresh_bytes += fresh_size(f);
    message_age_fresh(sp);
    if (!sp->keeper_looks) {
        sp->keeper_looks = true;
        event_wake(sp->rt, &sp->keep);
    }
}

/* The oldest give way when there is too much, or when they have waited for too long. */
void
message_age_fresh(struct spool *sp)
{
    while (!list_is_empty(&sp->fresh)) {
        struct fresh *oldest = container_of(sp->fresh.next, struct fresh, link);
        if (sp->fresh_bytes <= sp->settings.fresh_bytes_max && oldest->until >= rt_now(sp->rt))
            return;
        fresh_free(sp, oldest);
    }
}

void
message_forget_fresh(struct spool *sp, struct message *m)
{
    if (m->own_fresh)
        fresh_free(sp, m->own_fresh);
}

/* ---- the end ----------------------------------------------------------------------------------------------------- */

void
message_release(struct spool *sp, struct message *m)
{
    message_forget_fresh(sp, m);
    drop_elsewhere(sp, m);
    message_clear_refs(sp, m);
    segment_count_live(sp, m->base.segment, -(int64_t)m->base.size);
    sp->open_recipients -= m->unended;
    if (states_size(m) > sizeof m->states.few)
        mem_free(sp->mem, m->states.own_many, states_size(m));
    order_remove(sp, m);
    slab_give(&sp->message_slab, m);
}

void
message_free(struct spool *sp, struct message *m)
{
    ids_remove(&sp->messages, &m->id);
    message_release(sp, m);
}

void
message_end(struct spool *sp, struct message *m)
{
    ended_add(sp, m->id);
    recover_note_end(sp, m->id);
    message_free(sp, m);
    if (keeper_is_needed(sp))
        keeper_wake(sp);
}

/* Only now: until it is synced, the bytes of the message must stay where they are, or an older base of it comes back. */
static void
finish_retired(struct spool *sp, struct append *a)
{
    struct message *m = message_find(sp, a->id);

    CHECK(m && m->ending);
    m->ending = false;
    if (!err_is(a->err))
        message_end(sp, m);
    append_drop(sp, a);
}

/*
 * A DONE without anybody's asking, lest an old state comes back: its own was damaged; or its base is, so that nobody
 * can be told any more, and who is open has failed. Written soon; then the message is no more.
 */
void
message_retire(struct spool *sp, struct message *m)
{
    struct append *a = mem_new(sp->mem, struct append);
    struct recipient_status *statuses = mem_alloc(sp->mem, m->open * sizeof *statuses);
    struct spool_settle settle = { .id = m->id, .statuses = statuses };

    for (uint32_t i = 0; i < m->recipients; i++) {
        uint8_t state = message_state(m, i);
        if (!is_open(packed_state(m, i)))
            continue;
        statuses[settle.count++] = (struct recipient_status){
            .index = i,
            .state = recipient_state_is_ended(state) ? state : STATE_FAILED_SILENT,
            .last_reply = S("5.3.0 the message was damaged on our disk"),
        };
    }
    append_init(a, sp, RECORD_DONE, m->id, settle_size(&settle));
    struct put p = append_put(a);
    settle_put(&p, &settle);
    for (uint32_t i = 0; i < settle.count; i++)
        settle_patch_was(append_body(a), i, message_state(m, statuses[i].index));
    settle_patch(append_body(a), message_base_first(sp, m), m->base.segment->sequence, true);
    a->need = NEED_CLEAN;
    a->finish = finish_retired;
    mem_free(sp->mem, statuses, m->open * sizeof *statuses);
    m->ending = true;
    append_queue(sp, a);
}

void
ended_add(struct spool *sp, struct message_id id)
{
    struct message_id *slot;

    if (ended_has(sp, id))
        return;
    if (!sp->own_ended)
        sp->own_ended = mem_buffer(sp->mem, LIMIT_ENDED * sizeof *sp->own_ended);
    slot = &sp->own_ended[sp->ended_count % LIMIT_ENDED];
    if (sp->ended_count++ >= LIMIT_ENDED)
        ids_remove(&sp->ended, slot);
    *slot = id;
    ids_put(&sp->ended, slot);
}

bool
ended_has(const struct spool *sp, struct message_id id)
{
    return ids_get(&sp->ended, id) != NULL;
}
