/*
 * fuzz_envelope - envelopes as bytes: what the store gets from a receiver, and the spool keeps.
 *
 * Aims at: message/envelope.c base/codec.c
 * Seeds:   message/envelope_test.c
 * Longest: 2048
 * Test:    130000 runs
 *
 * What was taken can be put, in the size foretold, and taken again the same. A message's id is text and back.
 */
#include "fuzz.h"

#include "message/envelope.h"

static void
check_id(struct str input, struct arena *arena)
{
    struct text t = fuzz_text(arena, MESSAGE_ID_TEXT);
    struct message_id id, again;
    struct take take = take_init(input);

    id.hi = take_u64(&take);
    id.lo = take_u64(&take);
    message_id_put(&t, id);
    CHECK(t.len == MESSAGE_ID_TEXT && message_id_parse(text_str(&t), &again) && message_id_eq(id, again));
    if (message_id_parse(str_slice(input, 0, MESSAGE_ID_TEXT), &id)) {
        t.len = 0;
        message_id_put(&t, id);
        CHECK(message_id_parse(text_str(&t), &again) && message_id_eq(id, again));
    }
}

void
fuzz_one(struct str input, struct arena *arena)
{
    struct take take = take_init(input);
    struct envelope e, again;

    check_id(input, arena);
    if (!envelope_take(&take, arena, &e))
        return;
    size_t size = envelope_size(&e);
    struct put once = put_init(arena_alloc(arena, size), size), twice = put_init(arena_alloc(arena, size), size);
    envelope_put(&once, &e);
    CHECK(!once.full);
    struct take back = take_init(put_str_so_far(&once));
    CHECK(envelope_take(&back, arena, &again) && take_end(&back));
    CHECK(envelope_size(&again) == size);
    envelope_put(&twice, &again);
    CHECK(str_eq(put_str_so_far(&once), put_str_so_far(&twice)));
    CHECK(str_eq(put_str_so_far(&once), str_slice(input, 0, input.len - take.rest.len)));
}
