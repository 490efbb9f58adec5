/*
 * fuzz_mime - the structure of a message, found while it streams by.
 *
 * Aims at: message/mime.c
 * Seeds:   message/convert_test.c mime-mikel-mail/ mime-mail-parser/ mime-mime4j/ dkim-mimekit/ bounces-sisimai/
 * Longest: 4096
 * Test:    6100 runs
 * Choices: 1 bytes in front
 *
 * The pieces put together are the message, byte by byte; numbers of entities grow one by one; and what is found is the same
 * however the message is cut. What the scan says that a message needs is what a plain look at its bytes says.
 */
#include "fuzz.h"

#include "decode.h"
#include "message/lines.h"

#include <string.h>

static void
walk(struct str message, size_t step, struct arena *arena)
{
    struct mime *mime = mime_new(arena);
    struct text all = fuzz_text(arena, message.len);
    struct mime_piece piece;
    uint32_t entities = 0;

    for (size_t at = 0; at < message.len; at += step) {
        struct str part = str_slice(message, at, at + step);
        while (mime_next(mime, &part, &piece)) {
            text_put(&all, piece.bytes);
            CHECK(piece.entity <= entities);
            if (piece.place == MIME_HEADER_END) {
                CHECK(piece.entity == entities);
                entities++;
            }
        }
        CHECK(part.len == 0);
    }
    while (mime_end(mime, &piece))
        text_put(&all, piece.bytes);
    CHECK(!all.full && str_eq(text_str(&all), message));
}

static void
check_scan(struct str message, size_t cut, struct arena *arena)
{
    const struct mime_needs *whole = scan_message(arena, message, 0), *parts = scan_message(arena, message, cut);
    struct fuzz_lines lines;

    CHECK(whole->count == parts->count && whole->odd == parts->odd && whole->longest == parts->longest);
    CHECK(whole->header_8bit == parts->header_8bit && whole->body_8bit == parts->body_8bit && whole->bare == parts->bare);
    CHECK(memcmp(whole->entities, parts->entities, whole->count * sizeof *whole->entities) == 0);
    lines = fuzz_lines(message);
    CHECK((whole->header_8bit || whole->body_8bit) == !str_is_ascii(message));
    CHECK(lines.bare_cr || lines.bare_lf || lines.nul || !whole->bare);
    CHECK(whole->bare || (!lines.bare_cr && !lines.nul)); /* a bare LF may end a line of a header */
    (void)convert_check(whole, CONVERT_TO_8BIT);
}

void
fuzz_one(struct str input, struct arena *arena)
{
    struct str message = input;
    size_t step = 1 + fuzz_choice(&message);

    walk(message, step, arena);
    walk(message, 1, arena);
    check_scan(message, 7 * step, arena);
}
