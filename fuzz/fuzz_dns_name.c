/*
 * fuzz_dns_name - names on the wire, with and without compression.
 *
 * Aims at: dns/name.c
 * Seeds:   dns/answer_test.c dns/name_test.c
 * Longest: 600
 * Test:    250000 runs
 * Choices: 1 bytes in front
 *
 * A name taken anywhere in a packet ends, moves on, has at most 255 bytes, and is taken again the same from its own
 * uncompressed form; as text it leads back to the same bytes.
 */
#include "fuzz.h"

#include "dns/name.h"

void
fuzz_one(struct str input, struct arena *arena)
{
    struct str packet = input;
    size_t at = fuzz_choice(&packet), before = at, zero = 0;
    struct name_wire name, again;
    struct text t = fuzz_text(arena, NAME_TEXT_MAX + 2);

    if (!name_take(packet, &at, &name))
        return;
    CHECK(at > before && at <= packet.len && name.len >= 1 && name.len <= NAME_WIRE_MAX);
    CHECK(name.bytes[name.len - 1] == 0);
    CHECK(name_take(str_new(name.bytes, name.len), &zero, &again) && zero == name.len && name_wire_eq(&name, &again));
    if (name_put_text(&t, &name)) {
        CHECK(!t.full && name_to_wire(text_str(&t), &again) && name_wire_eq(&name, &again));
        CHECK(str_eq(text_str(&t), S(".")) || name_is_valid(text_str(&t)));
    }
}
