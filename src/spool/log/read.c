/*
 * read - messages and content back from the segments. Places may change while the disk is asked (cleaning moves,
 * settles come), so after each wait the message is looked up again, and what was read is used only if its version is
 * still the same.
 */
#include "spool/log/log.h"

#include <string.h>

/* ---- heads ------------------------------------------------------------------------------------------------------- */

struct err
head_read(struct spool *sp, struct place place, uint32_t head_size, struct arena *arena, int64_t until, struct record *out)
{
    void *memory = arena_alloc(arena, head_size);
    struct segment *seg = place.segment;
    uint64_t secret = seg->secret;

    TRY(segment_pin(sp, seg, until));
    struct err e = segment_read_cached(sp, seg, place.offset, memory, head_size, until);
    segment_unpin(sp, seg);
    TRY(e);
    struct str bytes = { memory, head_size };
    if (!record_peek(bytes, out) || record_head_size(out) != head_size || !record_verify(bytes, out, secret))
        return ERR(ERR_CORRUPT, "read spool record: its check fails");
    return OK;
}

/* A record of which only the place is known. */
static struct err
record_read(struct spool *sp, struct segment *seg, uint32_t offset, struct arena *arena, int64_t until, struct record *out)
{
    char header[RECORD_HEADER + RECORD_CHECK];

    TRY(segment_read_cached(sp, seg, offset, header, sizeof header, until));
    if (!record_peek(str_new(header, sizeof header), out) || out->body.len > seg->used)
        return ERR(ERR_CORRUPT, "read spool record: its header is damaged");
    return head_read(sp, (struct place){ seg, offset, 0 }, (uint32_t)record_head_size(out), arena, until, out);
}

/* ---- one message with its settles -------------------------------------------------------------------------------- */

static bool
apply_settle(struct spool_message *m, struct take *t)
{
    struct settle_reader settle;
    struct recipient_status status;
    uint8_t was;

    if (!settle_take(t, &settle))
        return false;
    if (settle.head.set_held) {
        m->held = settle.head.held;
        m->held_why = settle.held_why;
    }
    if (settle.head.set_deaths)
        m->deaths = settle.head.deaths;
    while (settle_next(&settle, &status, &was)) {
        if (status.index >= m->envelope.recipient_count)
            return false;
        struct recipient_status *now = &m->statuses[status.index];
        if (status.last_reply.len == 0) { /* a notice was sent, say: what the remote said stays as it was */
            status.last_reply = now->last_reply;
            status.last_remote = now->last_remote;
        }
        *now = status;
    }
    return !t->bad;
}

/* Everything that is decoded borrows from the record's bytes, which are in the arena. */
static bool
decode_base(struct spool *sp, const struct record *record, struct arena *arena, struct loaded *out)
{
    struct spool_message *m = &out->message;
    struct take t;

    out->record = *record;
    if (!base_take(record->body, &out->base))
        return false;
    m->id = record->id;
    t = take_init(out->base.envelope);
    if (!envelope_take(&t, arena, &m->envelope) || !take_end(&t))
        return false;
    m->statuses = arena_alloc(arena, m->envelope.recipient_count * sizeof *m->statuses);
    for (size_t i = 0; i < m->envelope.recipient_count; i++)
        m->statuses[i].index = (uint32_t)i;
    t = take_init(out->base.state);
    if (!apply_settle(m, &t) || !take_end(&t))
        return false;
    m->age = spool_now(sp) - out->base.head.accepted_spool;
    if (m->age < 0)
        m->age = 0;
    return true;
}

/* The settle in a SETTLE, or the one inside an ACCEPT. */
static bool
settle_of(const struct record *r, struct message_id id, struct take *out)
{
    struct base base;
    struct message_id settled;

    if (r->type == RECORD_SETTLE || r->type == RECORD_DONE) {
        *out = take_init(r->body);
        return message_id_eq(r->id, id);
    }
    if (r->type != RECORD_ACCEPT || !base_take(r->body, &base))
        return false;
    *out = take_init(base.settles);
    settled.hi = take_u64(out);
    settled.lo = take_u64(out);
    return message_id_eq(settled, id);
}

static struct err
load_refs(struct spool *sp, const struct place *refs, size_t count, struct arena *arena, int64_t until, struct loaded *out)
{
    for (size_t i = 0; i < count; i++) {
        struct record r;
        struct take t;
        struct err e = record_read(sp, refs[i].segment, refs[i].offset, arena, until, &r);
        if (e.kind == ERR_CORRUPT || (!err_is(e) && (!settle_of(&r, out->message.id, &t) || !apply_settle(&out->message, &t)))) {
            /* The older state stays: what it says is done again rather than lost. */
            damage_add(sp, refs[i].segment, refs[i].offset, refs[i].size, out->message.id, S("a settle is damaged"));
            continue;
        }
        TRY(e);
    }
    return OK;
}

static struct err
load_base(struct spool *sp, struct message *m, struct arena *arena, int64_t until, struct loaded *out)
{
    struct record r;
    struct place base = m->base;
    struct message_id id = m->id;

    out->place = base;
    if (m->own_fresh) {
        struct str head = arena_keep(arena, str_new(m->own_fresh->own_head, m->own_fresh->head_size));
        CHECK(record_peek(head, &r));
        CHECK(decode_base(sp, &r, arena, out));
        return OK;
    }
    struct err e = head_read(sp, base, m->head_size, arena, until, &r);
    if (!err_is(e) && (!message_id_eq(r.id, id) || !decode_base(sp, &r, arena, out)))
        e = ERR(ERR_CORRUPT, "read spool message: it makes no sense");
    return e;
}

struct err
message_load(struct spool *sp, struct message_id id, struct arena *arena, int64_t until, struct loaded *out)
{
    struct arena_mark before = arena_mark(arena);

    for (;;) {
        arena_rewind(arena, before); /* what a former try took: a message of many recipients may be tried often */
        struct message *m = message_find(sp, id);
        if (!m || !m->base.segment || m->ending)
            return ERR(ERR_NOT_FOUND, "find spool message");
        if (m->unwritten > 0) { /* it is in a batch: soon known where */
            TRY(event_wait(sp->rt, &sp->written, until));
            continue;
        }
        uint32_t version = m->version;
        size_t count = m->ref_count;
        struct place base = m->base;
        struct place *refs = arena_alloc(arena, count * sizeof *refs);
        if (count > 0)
            memcpy(refs, message_refs(m), count * sizeof *refs);
        for (size_t i = 0; i < count; i++) /* none of them may be written anew while we read */
            refs[i].segment->pins++;
        base.segment->pins++;
        *out = (struct loaded){ .version = version };
        struct err e = load_base(sp, m, arena, until, out);
        if (!err_is(e))
            e = load_refs(sp, refs, count, arena, until, out);
        for (size_t i = 0; i < count; i++)
            segment_unpin(sp, refs[i].segment);
        segment_unpin(sp, base.segment);
        m = message_find(sp, id);
        if (!m)
            return ERR(ERR_NOT_FOUND, "find spool message");
        if (m->version != version)
            continue;
        if (e.kind == ERR_CORRUPT)
            damage_add(sp, base.segment, base.offset, base.size, id, S("a message is damaged"));
        return e;
    }
}

struct err
message_await(struct spool *sp, struct message_id id, int64_t until, struct message **out)
{
    for (;;) {
        struct message *m = message_find(sp, id);
        if (m && m->loaded && !m->ending) {
            *out = m;
            return OK;
        }
        if (m && m->base.segment && !m->ending) {
            struct arena arena;
            struct loaded loaded;
            arena_init(&arena, sp->mem, 4096, SIZE_MAX / 2);
            struct err e = message_load(sp, id, &arena, until, &loaded);
            m = message_find(sp, id);
            if (!err_is(e) && m && !m->loaded)
                message_adopt(sp, m, &loaded);
            arena_done(&arena);
            TRY(e);
            continue;
        }
        if (sp->index_known || sp->read_only || !sp->recovering)
            return ERR(ERR_NOT_FOUND, "find spool message");
        TRY(event_wait(sp->rt, &sp->written, until));
    }
}

struct err
log_get_written(struct spool *sp, struct message_id id, struct arena *arena, int64_t until, struct spool_message *out)
{
    struct loaded loaded;

    TRY(message_load(sp, id, arena, until, &loaded));
    *out = loaded.message;
    return OK;
}

struct err
log_get(struct spool *sp, struct message_id id, struct arena *arena, int64_t until, struct spool_message *out)
{
    struct message *m;

    while ((m = message_find(sp, id)) != NULL && m->queued > 0) /* lazy settles are seen too */
        TRY(event_wait(sp->rt, &sp->written, until));
    return log_get_written(sp, id, arena, until, out);
}

/* ---- content ----------------------------------------------------------------------------------------------------- */

static struct err
data_read(struct spool *sp, struct segment *seg, struct extent extent, void *memory, int64_t until)
{
    struct arena arena;
    struct record r;

    arena_init(&arena, sp->mem, 4096, SIZE_MAX / 2);
    struct err e = record_read(sp, seg, extent.offset, &arena, until, &r);
    uint64_t at = extent.offset + (err_is(e) ? 0 : record_head_size(&r));
    arena_done(&arena);
    TRY(e);
    if (r.data_size != extent.len)
        return ERR(ERR_CORRUPT, "read spool content: another length than said");
    TRY(segment_read(sp, seg, at, memory, extent.len, until));
    if (record_hash_data(str_new(memory, extent.len)) != r.data_hash)
        return ERR(ERR_CORRUPT, "read spool content: its hash fails");
    return OK;
}

struct err
extent_read(struct spool *sp, struct extent extent, void *memory, int64_t until)
{
    struct segment *seg = extent.segment ? segment_by_sequence(sp, extent.segment) : NULL;

    if (!seg)
        return ERR(ERR_CORRUPT, "read spool content: it is lost");
    seg->pins++;
    struct err e = data_read(sp, seg, extent, memory, until);
    segment_unpin(sp, seg);
    return e;
}

static struct content_slot *
slot_find(struct spool *sp, struct extent extent)
{
    for (size_t i = 0; i < CONTENT_SLOTS; i++)
        if (sp->own_slots[i].sequence == extent.segment && sp->own_slots[i].offset == extent.offset && extent.segment)
            return &sp->own_slots[i];
    return NULL;
}

static void
slot_put(struct spool *sp, struct extent extent, char *own_bytes)
{
    struct content_slot *oldest = &sp->own_slots[0];

    for (size_t i = 0; i < CONTENT_SLOTS; i++)
        if (sp->own_slots[i].used_at < oldest->used_at)
            oldest = &sp->own_slots[i];
    mem_free(sp->mem, oldest->own_bytes, oldest->cap);
    *oldest = (struct content_slot){ extent.segment, extent.offset, ++sp->cache_clock, extent.len, extent.len, own_bytes };
}

/* Whole pieces are read, since only whole ones can be checked; a reader that comes for the next part finds it here. */
static struct err
piece_read(struct spool *sp, struct extent extent, uint64_t from, void *memory, size_t len, int64_t until)
{
    struct content_slot *slot = slot_find(sp, extent);

    if (slot && slot->len == extent.len) {
        slot->used_at = ++sp->cache_clock;
        memcpy(memory, slot->own_bytes + from, len);
        return OK;
    }
    if (from == 0 && len == extent.len)
        return extent_read(sp, extent, memory, until);
    char *own_bytes = mem_alloc(sp->mem, extent.len);
    struct err e = extent_read(sp, extent, own_bytes, until);
    if (err_is(e)) {
        mem_free(sp->mem, own_bytes, extent.len);
        return e;
    }
    memcpy(memory, own_bytes + from, len);
    if (slot_find(sp, extent))
        mem_free(sp->mem, own_bytes, extent.len);
    else
        slot_put(sp, extent, own_bytes);
    return OK;
}

/* The piece of content that holds this offset. */
static bool
find_piece(const struct loaded *l, uint64_t offset, struct extent *out, uint64_t *out_from)
{
    uint64_t start = 0;

    if (l->base.head.extent_count == 0) {
        *out = (struct extent){ l->place.segment->sequence, l->place.offset, l->record.data_size };
        *out_from = offset;
        return offset < l->record.data_size;
    }
    for (uint32_t i = 0; i < l->base.head.extent_count; i++) {
        *out = base_extent(&l->base, i);
        if (offset - start < out->len) {
            *out_from = offset - start;
            return true;
        }
        start += out->len;
    }
    return false;
}

/* Only the base is needed, not the settles. */
static struct err
load_places(struct spool *sp, struct message *m, struct arena *arena, int64_t until, struct loaded *out)
{
    *out = (struct loaded){ .place = m->base, .version = m->version };
    struct segment *seg = m->base.segment;
    struct record r;

    seg->pins++;
    struct err e = head_read(sp, m->base, m->head_size, arena, until, &r);
    segment_unpin(sp, seg);
    TRY(e);
    out->record = r;
    return base_take(r.body, &out->base) ? OK : ERR(ERR_CORRUPT, "read spool message: it makes no sense");
}

static struct err
read_once(struct spool *sp, struct message *m, uint64_t offset, void *memory, size_t len, int64_t until, size_t *out_len,
          struct extent *out_piece)
{
    struct arena arena;
    struct loaded l;
    struct extent piece = { 0, 0, 0 };
    uint64_t from;

    *out_len = 0;
    if (m->own_fresh && m->own_fresh->data_size > 0) {
        struct str rest = str_from(str_new(m->own_fresh->own_data, m->own_fresh->data_size),
                                   offset < m->own_fresh->data_size ? (size_t)offset : m->own_fresh->data_size);
        *out_len = rest.len < len ? rest.len : len;
        memcpy(memory, rest.ptr, *out_len);
        return OK;
    }
    arena_init(&arena, sp->mem, 4096, SIZE_MAX / 2);
    struct err e = load_places(sp, m, &arena, until, &l);
    if (!err_is(e) && find_piece(&l, offset, &piece, &from)) {
        size_t part = piece.len - from < len ? (size_t)(piece.len - from) : len;
        e = piece_read(sp, piece, from, memory, part, until);
        *out_piece = piece;
        if (!err_is(e))
            *out_len = part;
    }
    arena_done(&arena);
    return e;
}

struct err
log_read(struct spool *sp, struct message_id id, uint64_t offset, void *memory, size_t len, int64_t until, size_t *out_len)
{
    for (;;) {
        struct message *m = message_find(sp, id);
        if (!m || !m->base.segment || m->ending)
            return ERR(ERR_NOT_FOUND, "find spool message");
        uint32_t version = m->version;
        struct extent piece = { m->base.segment->sequence, m->base.offset, m->base.size };
        struct err e = read_once(sp, m, offset, memory, len, until, out_len, &piece);
        if (e.kind != ERR_CORRUPT)
            return e;
        m = message_find(sp, id);
        if (!m || m->version != version)
            continue; /* it moved or ended while we read */
        struct segment *seg = segment_by_sequence(sp, piece.segment);
        if (seg)
            damage_add(sp, seg, piece.offset, piece.len + RECORD_HEADER + RECORD_CHECK, id, S("content is damaged"));
        return e;
    }
}
