/*
 * fuzz_base64 - base64 of RFC 2045, encoding and decoding.
 *
 * Aims at: base/base64.c
 * Seeds:   message/header_test.c mime-haraka/
 * Longest: 1000
 * Test:    99000 runs
 *
 * Any bytes come back. What decodes as pure base64 encodes to the same characters, but for spaces, line ends and the bits
 * that padding leaves over.
 */
#include "fuzz.h"

#include "base/base64.h"

void
fuzz_one(struct str input, struct arena *arena)
{
    struct text encoded = fuzz_text(arena, 4 * (input.len / 3 + 1)), decoded = fuzz_text(arena, input.len),
                again = fuzz_text(arena, 4 * (input.len / 3 + 1));

    base64_put(&encoded, input);
    CHECK(!encoded.full && encoded.len % 4 == 0);
    CHECK(base64_decode(text_str(&encoded), &decoded) && !decoded.full);
    CHECK(str_eq(text_str(&decoded), input));

    decoded.len = 0;
    bool pure = base64_decode(input, &decoded);
    CHECK(!decoded.full && decoded.len <= (input.len + 3) / 4 * 3);
    if (pure) {
        base64_put(&again, text_str(&decoded));
        struct text twice = fuzz_text(arena, input.len);
        CHECK(base64_decode(text_str(&again), &twice) && str_eq(text_str(&twice), text_str(&decoded)));
    }
}
