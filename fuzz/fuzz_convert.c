/*
 * fuzz_convert - a message made fit for a next hop without 8BITMIME or BINARYMIME.
 *
 * Aims at: message/convert.c message/to_ascii.c message/mime.c
 * Seeds:   message/convert_test.c mime-mikel-mail/ mime-mail-parser/ mime-mime4j/ bounces-sisimai/
 * Longest: 9000
 * Test:    2700 runs
 * Choices: 3 bytes in front
 *
 * What comes out is what was asked for (7-bit, or free of bare line ends and NUL), needs no more conversion, has no line
 * over 998 bytes, is the same however the message is cut, and has the same parts: each of the same kind, and, decoded, of the
 * same bytes as before.
 */
#include "fuzz.h"

#include "decode.h"
#include "message/lines.h"

enum { BODIES = 64 };

static void
check_bodies(struct str before, struct str after, struct arena *arena)
{
    struct decoded_body was[BODIES], is[BODIES];
    size_t count = decode_message(arena, before, was, BODIES);

    CHECK(decode_message(arena, after, is, BODIES) == count);
    for (size_t i = 0; i < count; i++) {
        CHECK(was[i].entity.class == is[i].entity.class);
        /* Fields become encoded words; what is base64 for us and has other bytes within loses them; with another encoding,
         * that nobody knows, there is nothing to compare. */
        if (was[i].entity.class != MIME_FIELDS && was[i].entity.encoding != MIME_UNKNOWN)
            CHECK(str_eq(was[i].decoded, is[i].decoded));
    }
}

void
fuzz_one(struct str input, struct arena *arena)
{
    struct str message = input;
    enum convert_to to = fuzz_choice(&message) & 1 ? CONVERT_TO_8BIT : CONVERT_TO_7BIT;
    size_t cut = 16u * fuzz_choice(&message), room = CONVERT_ROOM + fuzz_choice(&message);
    const struct mime_needs *needs = scan_message(arena, message, cut);
    struct fuzz_lines lines;

    if (convert_check(needs, to) != CONVERT_NEEDED)
        return;
    struct str out = convert_message(arena, needs, to, message, cut, room);
    fuzz_show("before", message);
    fuzz_show("after", out);
    CHECK(str_eq(out, convert_message(arena, needs, to, message, 0, CONVERT_ROOM)));
    const struct mime_needs *after = scan_message(arena, out, 0);
    CHECK(convert_check(after, to) == CONVERT_NOT_NEEDED);
    CHECK(to == CONVERT_TO_8BIT || str_is_ascii(out));
    lines = fuzz_lines(out);
    CHECK(!lines.bare_cr && !lines.nul && !after->bare); /* a bare LF may end a line of a header */
    CHECK(after->longest <= 998 || after->longest <= needs->longest + 1); /* of a header's line its CR counts, and one may lack it */
    check_bodies(message, out, arena);
}
