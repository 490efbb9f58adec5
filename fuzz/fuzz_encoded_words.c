/*
 * fuzz_encoded_words - encoded words of RFC 2047, and UTF-8.
 *
 * Aims at: message/header.c message/utf8.c
 * Seeds:   message/header_test.c message/compose_test.c mime-mikel-mail/rfc2822 mime-mikel-mail/multi_charset
 * Longest: 600
 * Test:    6600 runs
 * Choices: 1 bytes in front
 *
 * Any bytes that we encode are ASCII in lines of at most 78 bytes, and UTF-8 decodes to the same UTF-8. Characters are taken
 * one by one from exactly what utf8_is_valid() calls valid, and put together again they are the same bytes.
 */
#include "fuzz.h"

#include "message/header.h"
#include "message/test_words.h"
#include "message/utf8.h"

static void
check_utf8(struct str input, size_t max, struct arena *arena)
{
    struct text again = fuzz_text(arena, input.len);
    struct str rest = input;
    uint32_t point;

    while (utf8_take(&rest, &point)) {
        CHECK(point <= 0x10ffff && (point < 0xd800 || point > 0xdfff));
        utf8_put(&again, point);
    }
    CHECK(utf8_is_valid(input) == (rest.len == 0));
    CHECK(str_eq(text_str(&again), str_slice(input, 0, input.len - rest.len)));
    struct str cut = utf8_cut(input, max);
    CHECK(cut.ptr == input.ptr && cut.len <= max && cut.len <= input.len);
    if (utf8_is_valid(input))
        CHECK(utf8_is_valid(cut) && (cut.len == input.len || max - cut.len < 4));
}

static void
check_words(struct str text, size_t column, struct arena *arena)
{
    struct text words = fuzz_text(arena, 200 + 20 * text.len);
    size_t line = column;

    encoded_words_put(&words, text, column);
    CHECK(!words.full && str_is_ascii(text_str(&words)));
    for (size_t i = 0; i < words.len; i++) {
        char c = words.ptr[i];
        CHECK(c != '\n' || (i > 0 && words.ptr[i - 1] == '\r'));
        line = c == '\n' ? 0 : line + 1;
        CHECK(line <= 79 || c == '\r'); /* 78 and its CR */
    }
    struct str back = test_words_decode(fuzz_unfold(text_str(&words), arena), arena);
    for (size_t i = 0; i < text.len; i++)
        if ((unsigned char)text.ptr[i] < ' ' || text.ptr[i] == 0x7f)
            return; /* what has no place in a header becomes a space */
    if (utf8_is_valid(text) && text.len > 0)
        CHECK(str_eq(back, text));
}

void
fuzz_one(struct str input, struct arena *arena)
{
    struct str rest = input;
    size_t column = fuzz_choice(&rest) % 40;

    check_utf8(rest, column, arena);
    check_words(rest, column, arena);
}
