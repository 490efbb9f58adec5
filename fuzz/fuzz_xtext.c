/*
 * fuzz_xtext - the encodings of RFC 3461 and RFC 6533: xtext, ENVID, ORCPT.
 *
 * Aims at: message/xtext.c
 * Seeds:   message/xtext_test.c
 * Longest: 1100
 * Test:    57000 runs
 *
 * Any bytes encode and decode to themselves. What decodes is printed as xtext that decodes to the same. A valid ORCPT is shown
 * without control characters, and as ASCII where that is asked for.
 */
#include "fuzz.h"

#include "base/limits.h"
#include "message/xtext.h"

static void
check_round_trip(struct str raw, struct arena *arena)
{
    struct text encoded = fuzz_text(arena, 3 * raw.len + 1), decoded = fuzz_text(arena, raw.len);

    xtext_put(&encoded, raw);
    CHECK(!encoded.full && str_is_ascii(text_str(&encoded)) && !str_has_byte(text_str(&encoded), ' '));
    CHECK(xtext_decode(text_str(&encoded), &decoded) && !decoded.full);
    CHECK(str_eq(text_str(&decoded), raw));
}

void
fuzz_one(struct str input, struct arena *arena)
{
    struct text decoded = fuzz_text(arena, input.len);

    check_round_trip(input, arena);
    if (xtext_decode(input, &decoded)) {
        CHECK(!decoded.full);
        check_round_trip(text_str(&decoded), arena);
    }
    if (envid_is_valid(input)) {
        decoded.len = 0;
        CHECK(xtext_decode(input, &decoded) && decoded.len >= 1 && decoded.len <= LIMIT_ENVID);
    }
    for (int utf8 = 0; utf8 < 2; utf8++) {
        if (!orcpt_is_valid(input, utf8))
            continue;
        CHECK(input.len <= LIMIT_ORCPT && (utf8 || str_is_ascii(input)));
        CHECK(utf8 || orcpt_is_valid(input, true));
        for (int shown_utf8 = 0; shown_utf8 < 2; shown_utf8++) {
            struct text shown = fuzz_text(arena, 8 * input.len + 100);
            orcpt_put_decoded(&shown, input, shown_utf8);
            CHECK(!shown.full && (shown_utf8 || str_is_ascii(text_str(&shown))));
            for (size_t i = 0; i < shown.len; i++)
                CHECK((unsigned char)shown.ptr[i] >= ' ' && shown.ptr[i] != 0x7f);
        }
    }
}
