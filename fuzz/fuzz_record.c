/*
 * fuzz_record - what the spool's log is made of, as bytes: records, bodies, segment headers, indexes.
 *
 * Aims at: spool/log/record.c base/codec.c
 * Seeds:   zeros
 * Longest: 4200
 * Test:    49000 runs
 *
 * What was taken can be put, and is the same bytes; a record that was sealed verifies, and with one bit changed it does not;
 * the search for the next record skips nothing that could be one.
 */
#include "fuzz.h"

#include "spool/log/record.h"

#include <string.h>

static void
check_settle(struct str in, struct arena *arena)
{
    struct take t = take_init(in);
    struct settle_reader reader;
    struct recipient_status status;
    uint8_t was;
    uint32_t count = 0;

    (void)arena;
    if (!settle_take(&t, &reader))
        return;
    while (settle_next(&reader, &status, &was)) {
        CHECK(status.state <= STATE_LAST && was <= STATE_LAST && status.last_reply.len <= LIMIT_REPLY_TEXT);
        count++;
    }
    CHECK(count <= reader.head.count && reader.held_why.len <= LIMIT_HELD_WHY);
}

static void
check_base(struct str in)
{
    struct base base;

    if (!base_take(in, &base))
        return;
    CHECK(base.extents.len == (size_t)base.head.extent_count * EXTENT_SIZE);
    CHECK(base.extents.len + base.state.len + base.settles.len + base.envelope.len + BASE_FIXED <= in.len);
    for (uint32_t i = 0; i < base.head.extent_count && i < 100; i++)
        (void)base_extent(&base, i);
}

static void
check_checkpoint(struct str in)
{
    struct take t = take_init(in);
    struct checkpoint c;
    uint64_t sequence;
    uint32_t number;

    if (!checkpoint_take(&t, &c))
        return;
    for (uint32_t i = 0; i < c.count && i < 100; i++)
        checkpoint_segment(&c, i, &sequence, &number);
    (void)tally_ended(&c.tally);
}

static void
check_header(struct str in)
{
    unsigned char block[BLOCK];
    struct segment_header header, again;

    if (in.len < BLOCK || !segment_header_take(str_slice(in, 0, BLOCK), &header))
        return;
    segment_header_put(block, &header);
    CHECK(segment_header_take(str_new(block, BLOCK), &again) && again.sequence == header.sequence);
}

static void
check_made_header(struct str in)
{
    unsigned char block[BLOCK];
    struct take t = take_init(in);
    struct segment_header header = { .version = SEGMENT_VERSION, .compat = SEGMENT_VERSION }, again;

    memset(block, 0, sizeof block);
    header.state = 1 + take_u8(&t) % 3;
    header.bytes = SEGMENT_BYTES_MIN;
    header.sequence = take_u64(&t);
    header.secret = take_u64(&t);
    header.first_lsn = take_u64(&t);
    segment_header_put(block, &header);
    if (!segment_header_take(str_new(block, BLOCK), &again))
        return;
    CHECK(again.sequence == header.sequence && again.secret == header.secret);
    block[take_u16(&t) % 64] ^= (unsigned char)(1 + take_u8(&t) % 255);
    CHECK(!segment_header_take(str_new(block, BLOCK), &again)); /* all of it is under its check */
}

static void
check_index(struct str in)
{
    unsigned char at[INDEX_ENTRY], again[INDEX_ENTRY];
    struct index_entry entry;

    if (in.len < INDEX_ENTRY)
        return;
    memcpy(at, in.ptr, INDEX_ENTRY);
    if (!index_entry_take(at, &entry))
        return;
    index_entry_put(again, &entry);
    struct index_entry twice;
    CHECK(index_entry_take(again, &twice) && twice.offset == entry.offset && twice.lsn == entry.lsn);
}

static void
check_find(struct str in)
{
    struct record r;
    size_t first = record_find(in);

    CHECK(first <= in.len && (first % RECORD_ALIGN == 0 || first == in.len));
    for (size_t at = 0; at < first; at += RECORD_ALIGN)
        CHECK(in.len - at < RECORD_HEADER || !record_peek(str_from(in, at), &r));
    if (record_peek(in, &r)) {
        CHECK(record_size(&r) >= record_head_size(&r));
        if (record_head_size(&r) <= in.len)
            (void)record_verify(in, &r, 1);
    }
}

static void
check_sealed(struct str in, struct arena *arena)
{
    struct take t = take_init(in);
    struct record r = { .type = 1 + take_u8(&t) % RECORD_LAST, .lsn = take_u64(&t) >> 8, .id = { take_u64(&t), 1 } }, peeked;
    uint64_t secret = take_u64(&t);
    uint32_t flip = take_u32(&t);

    r.body = str_slice(t.rest, 0, 1000);
    size_t size = record_head_size(&r);
    unsigned char *head = arena_alloc(arena, size);
    if (r.body.len)
        memcpy(head + RECORD_HEADER, r.body.ptr, r.body.len);
    record_seal(head, &r, secret);
    struct str bytes = str_new(head, size);
    CHECK(record_peek(bytes, &peeked) && peeked.type == r.type && peeked.lsn == r.lsn && peeked.body.len == r.body.len);
    CHECK(record_verify(bytes, &peeked, secret) && !record_verify(bytes, &peeked, secret + 1));
    head[flip / 8 % (RECORD_HEADER + r.body.len)] ^= (unsigned char)(1 << flip % 8);
    if (record_peek(bytes, &peeked) && record_head_size(&peeked) <= size)
        CHECK(!record_verify(bytes, &peeked, secret));
}

void
fuzz_one(struct str input, struct arena *arena)
{
    struct str rest = input;
    struct take t;
    struct proof proof;

    fuzz_choice(&rest);
    t = take_init(rest);
    (void)proof_take(&t, &proof);
    check_settle(rest, arena);
    check_base(rest);
    check_checkpoint(rest);
    check_header(rest);
    check_made_header(rest);
    check_index(rest);
    check_find(rest);
    check_sealed(rest, arena);
}
