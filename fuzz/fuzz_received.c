/*
 * fuzz_received - the Received field that we add, and counting those that are there.
 *
 * Aims at: message/received.c
 * Seeds:   message/received_test.c mime-mikel-mail/ bounces-sisimai/
 * Longest: 2048
 * Test:    32000 runs
 * Choices: 2 bytes in front
 *
 * Whatever a client says of itself, what we add is one field with lines of at most 998 bytes, fits its bound, and counts as
 * one. The count is the same however the header is cut.
 */
#include "fuzz.h"

#include "message/header.h"
#include "message/received.h"

static size_t
count(struct str header, size_t step)
{
    struct received_counter c = { 0 };

    for (size_t at = 0; at < header.len; at += step)
        received_count(&c, str_slice(header, at, at + step));
    return c.count;
}

void
fuzz_one(struct str input, struct arena *arena)
{
    struct str rest = input;
    uint8_t choice = fuzz_choice(&rest);
    size_t step = 1 + fuzz_choice(&rest);
    struct received r = {
        .smtp_extended = choice & 1, .lmtp = choice & 2, .tls = choice & 4, .authenticated = choice & 8,
        .utf8 = choice & 16, .id = { choice, step }, .by = S("mx.example.org"), .wall = 1,
    };
    struct text t = fuzz_text(arena, LIMIT_RECEIVED);
    struct header_field field;

    CHECK(count(rest, step) == count(rest, rest.len + 1));
    r.helo = str_slice(fuzz_field(&rest), 0, 255);
    r.rdns = choice & 32 ? str_slice(fuzz_field(&rest), 0, 253) : (struct str){ 0 };
    r.local = str_slice(fuzz_field(&rest), 0, 100);
    r.recipient = choice & 64 ? str_slice(fuzz_field(&rest), 0, 1024) : (struct str){ 0 };
    if (choice & 128)
        CHECK(address_from_ip(choice & 1 ? S("192.0.2.1") : S("2001:db8::1"), &r.client));
    received_put(&t, &r);
    CHECK(!t.full);
    struct str written = text_str(&t);
    CHECK(count(written, step) == 1);
    CHECK(header_take(&written, &field) && written.len == 0 && str_eq(field.name, S("Received")));
    for (struct str lines = text_str(&t); lines.len > 0;) {
        struct str line = str_cut(&lines, '\n');
        CHECK(str_ends(line, S("\r")) && line.len <= 999);
        for (size_t i = 0; i + 1 < line.len; i++)
            CHECK((unsigned char)line.ptr[i] >= ' ' || line.ptr[i] == '\t');
        CHECK(r.utf8 || str_is_ascii(line));
    }
}
