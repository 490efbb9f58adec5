/*
 * fuzz_quoted_printable - bodies as quoted-printable and as base64, as the conversion writes them.
 *
 * Aims at: message/convert.c
 * Seeds:   message/convert_test.c mime-mikel-mail/multi_charset
 * Longest: 2000
 * Test:    2900 runs
 *
 * A body of any bytes, as text and as something else, converted to 7 bits and decoded by an independent decoder, is the
 * same bytes; lines are at most 76 bytes, and none ends with a space or tab.
 */
#include "fuzz.h"

#include "decode.h"

static void
check_lines(struct str body)
{
    while (body.len > 0) {
        struct str line = str_trim_end(str_cut(&body, '\n')), raw = line;
        CHECK(line.len <= 76 && raw.len == line.len);
    }
}

static void
check(struct str header, struct str body, struct str encoding, void (*decode)(struct str, struct text *),
      struct arena *arena)
{
    struct str message = arena_join(arena, header, body);
    const struct mime_needs *needs = scan_message(arena, message, header.len);

    if (convert_check(needs, CONVERT_TO_7BIT) != CONVERT_NEEDED)
        return;
    struct str out = convert_message(arena, needs, CONVERT_TO_7BIT, message, header.len / 2, CONVERT_ROOM);
    size_t end = str_find(out, S("\r\n\r\n")), said = str_find(out, encoding);
    CHECK(said < end && end < out.len);
    struct str encoded = str_from(out, end + 4);
    struct text decoded = fuzz_text(arena, 2 * encoded.len);
    decode(encoded, &decoded);
    CHECK(str_eq(text_str(&decoded), body));
    for (size_t i = 0; i + 2 < encoded.len; i++)
        CHECK(!(byte_is_space(encoded.ptr[i]) && encoded.ptr[i + 1] == '\r'));
    check_lines(encoded);
}

void
fuzz_one(struct str input, struct arena *arena)
{
    check(S("MIME-Version: 1.0\r\nContent-Type: text/plain\r\n\r\n"), input,
          S("\r\nContent-Transfer-Encoding: quoted-printable\r\n"), decode_quoted_printable, arena);
    check(S("MIME-Version: 1.0\r\nContent-Type: image/png\r\n\r\n"), input,
          S("\r\nContent-Transfer-Encoding: base64\r\n"), decode_base64, arena);
}
