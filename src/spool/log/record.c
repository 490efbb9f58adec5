/*
 * record - see record.h. Little-endian throughout; offsets are bytes.
 *
 *   segment        +--------+-----------+-----------+-- ... --+---------------+--------+
 *                  | header |  batch    |  batch    |         | index         | header |   all parts on 4 KiB
 *                  +--------+-----------+-----------+-- ... --+---------------+--------+
 *                  0        4096                              (when sealed)   size-4096
 *
 *   batch          PROOF record, records, zeros up to the next 4 KiB
 *
 *   record         0  type       u8     4  body length u32     16 message id  u64 high, u64 low    40 data hash u64
 *                  1  flags      u8     8  LSN         u64     32 data length u32                  48 body
 *                  2  zero       u16                           36 zero        u32
 *                  48+body: check u64 = XXH3-64, seeded with the segment's secret, of all before it
 *                  56+body: data, then zeros up to a multiple of 8
 *
 *   header block   0  "PRSPOOL\n"       32 segment bytes u64   64 created, wall ns  i64    96  index offset u64
 *                  8  version u32       40 sequence      u64   72 first LSN u64            104 index hash   u64
 *                  12 compat u32        48 secret        u64   80 last LSN  u64            112 index count  u32
 *                  16 read-only u32     56 created,            88 end of the batches u64   116 zero         u32
 *                  20 incompat u32         spool time i64                                  120 tally, 7 x u64
 *                  24 state u32                                                            176 spool time   i64
 *                  28 zero u32          ... zeros ...          504 check u64 = XXH3-64, seed 0, of all before it
 *                  All of it is one sector: a disk that loses power writes it whole or not at all, so no crash leaves a
 *                  segment without a header. Zeros follow, and say nothing.
 *
 * A segment's life: free (both headers say so, synced) -> open (first header and last, new secret, written with the
 * first batch) -> sealed (index and last header; the first stays "open") -> free. The first header wins if it says
 * free; a last header of another life (another secret) says nothing.
 */
#include "spool/log/record.h"

#include "base/check.h"

#include <string.h>
#include <xxhash.h>

enum { HEADER_CHECK = 504 }; /* where it stands */

static void
store(unsigned char *at, uint64_t value, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        at[i] = (unsigned char)(value >> (8 * i));
}

static uint64_t
load(const unsigned char *at, size_t bytes)
{
    uint64_t value = 0;

    for (size_t i = bytes; i > 0; i--)
        value = value << 8 | at[i - 1];
    return value;
}

/* ---- records ----------------------------------------------------------------------------------------------------- */

size_t
record_head_size(const struct record *r)
{
    return RECORD_HEADER + r->body.len + RECORD_CHECK;
}

size_t
record_size(const struct record *r)
{
    return (record_head_size(r) + r->data_size + RECORD_ALIGN - 1) / RECORD_ALIGN * RECORD_ALIGN;
}

void
record_seal(unsigned char *head, const struct record *r, uint64_t secret)
{
    CHECK(r->type >= 1);
    CHECK(r->body.len < UINT32_MAX);
    store(head, r->type, 1);
    store(head + 1, r->flags, 1);
    store(head + 2, 0, 2);
    store(head + 4, r->body.len, 4);
    store(head + 8, r->lsn, 8);
    store(head + 16, r->id.hi, 8);
    store(head + 24, r->id.lo, 8);
    store(head + 32, r->data_size, 4);
    store(head + 36, 0, 4);
    store(head + 40, r->data_hash, 8);
    store(head + RECORD_HEADER + r->body.len, XXH3_64bits_withSeed(head, RECORD_HEADER + r->body.len, secret), 8);
}

static bool
may_begin(const unsigned char *at)
{
    return at[0] != 0 && (at[2] | at[3]) == 0 && (at[36] | at[37] | at[38] | at[39]) == 0;
}

size_t
record_find(struct str bytes)
{
    const unsigned char *at = (const unsigned char *)bytes.ptr;
    size_t i = 0;

    while (bytes.len - i >= RECORD_HEADER + RECORD_CHECK && !may_begin(at + i))
        i += RECORD_ALIGN;
    return i;
}

bool
record_peek(struct str bytes, struct record *out)
{
    const unsigned char *at = (const unsigned char *)bytes.ptr;

    if (bytes.len < RECORD_HEADER + RECORD_CHECK || !may_begin(at))
        return false;
    *out = (struct record){
        .type = at[0],
        .flags = at[1],
        .lsn = load(at + 8, 8),
        .id = { load(at + 16, 8), load(at + 24, 8) },
        .body = { bytes.ptr + RECORD_HEADER, load(at + 4, 4) },
        .data_size = (uint32_t)load(at + 32, 4),
        .data_hash = load(at + 40, 8),
    };
    return true;
}

bool
record_verify(struct str bytes, const struct record *r, uint64_t secret)
{
    const unsigned char *at = (const unsigned char *)bytes.ptr;
    size_t covered = RECORD_HEADER + r->body.len;

    return bytes.len >= covered + RECORD_CHECK && load(at + covered, 8) == XXH3_64bits_withSeed(at, covered, secret);
}

uint64_t
record_hash_data(struct str data)
{
    return data.len ? XXH3_64bits(data.ptr, data.len) : 0;
}

/* ---- PROOF, CHECKPOINT ------------------------------------------------------------------------------------------- */

void
proof_put(struct put *p, const struct proof *proof)
{
    put_u64(p, proof->proven);
    put_i64(p, proof->spool_time);
    put_u64(p, proof->sequence);
    put_u32(p, proof->batch_bytes);
    put_u32(p, proof->records);
}

bool
proof_take(struct take *t, struct proof *out)
{
    *out = (struct proof){ .proven = take_u64(t), .spool_time = 0 };
    out->spool_time = take_i64(t);
    out->sequence = take_u64(t);
    out->batch_bytes = take_u32(t);
    out->records = take_u32(t);
    return !t->bad && out->batch_bytes % BLOCK == 0 && out->batch_bytes > 0;
}

static const size_t tally_fields[] = {
    offsetof(struct tally, accepted), offsetof(struct tally, delivered),  offsetof(struct tally, failed),
    offsetof(struct tally, relayed),  offsetof(struct tally, expanded),   offsetof(struct tally, suppressed),
    offsetof(struct tally, removed),
};
static_assert(sizeof tally_fields / sizeof *tally_fields * 8 == TALLY_BODY, "every counter is written");

static uint64_t *
tally_field(struct tally *t, size_t i)
{
    return (uint64_t *)(void *)((char *)t + tally_fields[i]);
}

void
tally_put(struct put *p, const struct tally *tally)
{
    struct tally t = *tally;

    for (size_t i = 0; i < TALLY_BODY / 8; i++)
        put_u64(p, *tally_field(&t, i));
}

void
tally_take(struct take *t, struct tally *out)
{
    for (size_t i = 0; i < TALLY_BODY / 8; i++)
        *tally_field(out, i) = take_u64(t);
}

static uint64_t *
tally_of_state(struct tally *t, uint8_t state)
{
    switch ((enum recipient_state)state) {
    case STATE_PENDING:
    case STATE_FAILED_OWED: return NULL; /* still ours */
    case STATE_DELIVERED: return &t->delivered;
    case STATE_FAILED_SENT:
    case STATE_FAILED_SILENT: return &t->failed;
    case STATE_RELAYED: return &t->relayed;
    case STATE_EXPANDED: return &t->expanded;
    case STATE_SUPPRESSED: return &t->suppressed;
    case STATE_REMOVED: return &t->removed;
    }
    return NULL;
}

void
tally_move(struct tally *t, uint8_t was, uint8_t is)
{
    uint64_t *from = tally_of_state(t, was), *to = tally_of_state(t, is);

    if (from)
        --*from;
    if (to)
        ++*to;
}

uint64_t
tally_ended(const struct tally *t)
{
    return t->delivered + t->failed + t->relayed + t->expanded + t->suppressed + t->removed;
}

void
checkpoint_put(struct put *p, const struct tally *tally, int64_t spool_time, uint32_t count)
{
    tally_put(p, tally);
    put_i64(p, spool_time);
    put_u32(p, count);
}

void
checkpoint_put_segment(struct put *p, uint64_t sequence, uint32_t number)
{
    put_u64(p, sequence);
    put_u32(p, number);
}

bool
checkpoint_take(struct take *t, struct checkpoint *out)
{
    tally_take(t, &out->tally);
    out->spool_time = take_i64(t);
    out->count = take_count(t, LIMIT_SEGMENTS);
    out->segments = take_raw(t, (size_t)out->count * CHECKPOINT_SEGMENT);
    return take_end(t);
}

void
checkpoint_segment(const struct checkpoint *c, uint32_t i, uint64_t *out_sequence, uint32_t *out_number)
{
    const unsigned char *at = (const unsigned char *)c->segments.ptr + (size_t)i * CHECKPOINT_SEGMENT;

    CHECK(i < c->count);
    *out_sequence = load(at, 8);
    *out_number = (uint32_t)load(at + 8, 4);
}

/* ---- settles -------------------------------------------------------------------------------------------------------- *
 *
 *   0 first segment u64    16 flags u8 (1 sets held, 2 held, 4 sets deaths, 8 ends)    20 count u32
 *   8 last segment  u64    17 deaths u8    18 zero u16                                  24 statuses, 24 bytes each:
 *        0 index u32   4 state u8   5 state before u8   6 notices u8   7 zero   8 attempts u16   10 zero, 6   16 next i64
 *   then strings (u32 length, bytes): why held; for each status the last reply and the last remote
 */
enum { SETTLE_SETS_HELD = 1, SETTLE_HELD = 2, SETTLE_SETS_DEATHS = 4, SETTLE_FLAGS = 15 };

size_t
settle_size(const struct spool_settle *s)
{
    size_t size = SETTLE_FIXED + s->count * SETTLE_STATUS + 4 + str_slice(s->held_why, 0, LIMIT_HELD_WHY).len;

    for (size_t i = 0; i < s->count; i++)
        size += 8 + str_slice(s->statuses[i].last_reply, 0, LIMIT_REPLY_TEXT).len +
                str_slice(s->statuses[i].last_remote, 0, LIMIT_REMOTE_NAME).len;
    return size;
}

size_t
settle_size_bare(size_t count)
{
    return SETTLE_FIXED + count * (SETTLE_STATUS + 8) + 4 + LIMIT_HELD_WHY;
}

void
settle_put(struct put *p, const struct spool_settle *s)
{
    uint8_t flags = (uint8_t)((s->set_held ? SETTLE_SETS_HELD : 0) | (s->held ? SETTLE_HELD : 0) |
                              (s->set_deaths ? SETTLE_SETS_DEATHS : 0));

    put_u64(p, 0);
    put_u64(p, 0);
    put_u8(p, flags);
    put_u8(p, s->deaths);
    put_u16(p, 0);
    put_u32(p, (uint32_t)s->count);
    for (size_t i = 0; i < s->count; i++) {
        const struct recipient_status *r = &s->statuses[i];
        CHECK(r->state <= STATE_LAST);
        put_u32(p, r->index);
        put_u8(p, r->state);
        put_u8(p, STATE_PENDING);
        put_u8(p, r->notices);
        put_u8(p, 0);
        put_u16(p, r->attempts);
        put_u16(p, 0);
        put_u32(p, 0);
        put_i64(p, r->next_wall);
    }
    put_bytes(p, str_slice(s->held_why, 0, LIMIT_HELD_WHY));
    for (size_t i = 0; i < s->count; i++) {
        put_bytes(p, str_slice(s->statuses[i].last_reply, 0, LIMIT_REPLY_TEXT));
        put_bytes(p, str_slice(s->statuses[i].last_remote, 0, LIMIT_REMOTE_NAME));
    }
}

void
settle_patch(unsigned char *at, uint64_t base_first, uint64_t base_last, bool ends)
{
    store(at, base_first, 8);
    store(at + 8, base_last, 8);
    at[16] = (unsigned char)((at[16] & ~SETTLE_ENDS) | (ends ? SETTLE_ENDS : 0));
}

void
settle_patch_all(unsigned char *at, bool held, uint8_t deaths)
{
    at[16] = (unsigned char)(at[16] | SETTLE_SETS_HELD | SETTLE_SETS_DEATHS | (held ? SETTLE_HELD : 0));
    at[17] = deaths;
}

void
settle_patch_was(unsigned char *at, uint32_t i, uint8_t was)
{
    at[SETTLE_FIXED + (size_t)i * SETTLE_STATUS + 5] = was;
}

void
settle_peek(const unsigned char *at, uint32_t i, uint32_t *out_index)
{
    const unsigned char *status = at + SETTLE_FIXED + (size_t)i * SETTLE_STATUS;

    *out_index = (uint32_t)load(status, 4);
}

bool
settle_take(struct take *t, struct settle_reader *out)
{
    *out = (struct settle_reader){ .strings = t };
    out->head.base_first = take_u64(t);
    out->head.base_last = take_u64(t);
    uint32_t flags = take_enum(t, SETTLE_FLAGS);
    out->head.set_held = flags & SETTLE_SETS_HELD;
    out->head.held = flags & SETTLE_HELD;
    out->head.set_deaths = flags & SETTLE_SETS_DEATHS;
    out->head.ends = flags & SETTLE_ENDS;
    out->head.deaths = take_u8(t);
    take_u16(t);
    out->head.count = take_u32(t);
    out->fixed = take_raw(t, (size_t)out->head.count * SETTLE_STATUS);
    out->held_why = take_bytes(t, LIMIT_HELD_WHY);
    return !t->bad;
}

bool
settle_next(struct settle_reader *r, struct recipient_status *out, uint8_t *out_was)
{
    if (r->next == r->head.count || r->strings->bad)
        return false;
    struct take t = take_init(str_slice(r->fixed, (size_t)r->next * SETTLE_STATUS, (size_t)(r->next + 1) * SETTLE_STATUS));
    r->next++;
    out->index = take_u32(&t);
    out->state = (uint8_t)take_enum(&t, STATE_LAST);
    *out_was = (uint8_t)take_enum(&t, STATE_LAST);
    out->notices = take_u8(&t);
    take_u8(&t);
    out->attempts = take_u16(&t);
    take_raw(&t, 6);
    out->next_wall = take_i64(&t);
    out->last_reply = take_bytes(r->strings, LIMIT_REPLY_TEXT);
    out->last_remote = take_bytes(r->strings, LIMIT_REMOTE_NAME);
    r->strings->bad |= t.bad;
    return !r->strings->bad;
}

/* ---- ACCEPT and STATE ----------------------------------------------------------------------------------------------- *
 *
 *   0 order u64    8 spool time of acceptance i64    16 content size u64
 *   24 extents u32    28 bytes of state u32    32 bytes of `settles` u32    36 recipients u32
 *   40 extents, 16 bytes each: segment u64, offset u32, length u32
 *   then the state (a settle of all recipients that are not as new), `settles` (id, settle), and the envelope to the end
 */
void
base_put(struct put *p, const struct base_head *b)
{
    put_u64(p, b->order);
    put_i64(p, b->accepted_spool);
    put_u64(p, b->content_size);
    put_u32(p, b->extent_count);
    put_u32(p, b->state_size);
    put_u32(p, b->settles_size);
    put_u32(p, b->recipients);
}

void
base_patch_order(unsigned char *body, uint64_t order)
{
    store(body, order, 8);
}

void
extent_put_at(unsigned char *body, uint32_t i, struct extent e)
{
    unsigned char *at = body + BASE_FIXED + (size_t)i * EXTENT_SIZE;

    store(at, e.segment, 8);
    store(at + 8, e.offset, 4);
    store(at + 12, e.len, 4);
}

bool
base_take(struct str body, struct base *out)
{
    struct take t = take_init(body);

    out->head.order = take_u64(&t);
    out->head.accepted_spool = take_i64(&t);
    out->head.content_size = take_u64(&t);
    out->head.extent_count = take_count(&t, LIMIT_EXTENTS);
    out->head.state_size = take_u32(&t);
    out->head.settles_size = take_u32(&t);
    out->head.recipients = take_u32(&t);
    out->extents = take_raw(&t, (size_t)out->head.extent_count * EXTENT_SIZE);
    out->state = take_raw(&t, out->head.state_size);
    out->settles = take_raw(&t, out->head.settles_size);
    out->envelope = t.rest;
    return !t.bad;
}

struct extent
base_extent(const struct base *b, uint32_t i)
{
    const unsigned char *at = (const unsigned char *)b->extents.ptr + (size_t)i * EXTENT_SIZE;

    CHECK(i < b->head.extent_count);
    return (struct extent){ load(at, 8), (uint32_t)load(at + 8, 4), (uint32_t)load(at + 12, 4) };
}

/* ---- segment header and index ------------------------------------------------------------------------------------ */

static const struct str magic = STR("PRSPOOL\n");

void
segment_header_put(unsigned char block[BLOCK], const struct segment_header *h)
{
    struct put p = put_init(block, HEADER_CHECK);

    memset(block, 0, BLOCK);
    put_raw(&p, magic);
    put_u32(&p, h->version);
    put_u32(&p, h->compat);
    put_u32(&p, h->read_only_compat);
    put_u32(&p, h->incompat);
    put_u32(&p, h->state);
    put_u32(&p, 0);
    put_u64(&p, h->bytes);
    put_u64(&p, h->sequence);
    put_u64(&p, h->secret);
    put_i64(&p, h->created_spool);
    put_i64(&p, h->created_wall);
    put_u64(&p, h->first_lsn);
    put_u64(&p, h->last_lsn);
    put_u64(&p, h->end);
    put_u64(&p, h->index_offset);
    put_u64(&p, h->index_hash);
    put_u32(&p, h->index_count);
    put_u32(&p, 0);
    tally_put(&p, &h->tally);
    put_i64(&p, h->spool_time);
    CHECK(!p.full);
    store(block + HEADER_CHECK, XXH3_64bits(block, HEADER_CHECK), 8);
}

bool
segment_header_take(struct str block, struct segment_header *out)
{
    struct take t = take_init(block);

    if (block.len != BLOCK || !str_eq(take_raw(&t, magic.len), magic) ||
        load((const unsigned char *)block.ptr + HEADER_CHECK, 8) != XXH3_64bits(block.ptr, HEADER_CHECK))
        return false;
    out->version = take_u32(&t);
    out->compat = take_u32(&t);
    out->read_only_compat = take_u32(&t);
    out->incompat = take_u32(&t);
    out->state = take_u32(&t);
    take_u32(&t);
    out->bytes = take_u64(&t);
    out->sequence = take_u64(&t);
    out->secret = take_u64(&t);
    out->created_spool = take_i64(&t);
    out->created_wall = take_i64(&t);
    out->first_lsn = take_u64(&t);
    out->last_lsn = take_u64(&t);
    out->end = take_u64(&t);
    out->index_offset = take_u64(&t);
    out->index_hash = take_u64(&t);
    out->index_count = take_u32(&t);
    take_u32(&t);
    tally_take(&t, &out->tally);
    out->spool_time = take_i64(&t);
    return !t.bad && out->state >= SEGMENT_FREE && out->state <= SEGMENT_SEALED && out->bytes >= SEGMENT_BYTES_MIN &&
           out->bytes % BLOCK == 0 && out->bytes <= UINT32_MAX && out->end <= out->bytes &&
           out->index_offset + (uint64_t)out->index_count * INDEX_ENTRY <= out->bytes;
}

void
index_entry_put(unsigned char at[INDEX_ENTRY], const struct index_entry *e)
{
    store(at, e->type, 1);
    store(at + 1, e->flags, 1);
    store(at + 2, 0, 2);
    store(at + 4, e->offset, 4);
    store(at + 8, e->lsn, 8);
    store(at + 16, e->id.hi, 8);
    store(at + 24, e->id.lo, 8);
    store(at + 32, e->head_size, 4);
    store(at + 36, e->size, 4);
}

bool
index_entry_take(const unsigned char at[INDEX_ENTRY], struct index_entry *out)
{
    *out = (struct index_entry){
        .type = at[0],
        .flags = at[1],
        .offset = (uint32_t)load(at + 4, 4),
        .lsn = load(at + 8, 8),
        .id = { load(at + 16, 8), load(at + 24, 8) },
        .head_size = (uint32_t)load(at + 32, 4),
        .size = (uint32_t)load(at + 36, 4),
    };
    return out->type >= 1 && out->head_size >= RECORD_HEADER + RECORD_CHECK && out->size >= out->head_size;
}
