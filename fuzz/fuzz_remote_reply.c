/*
 * fuzz_remote_reply - what a server answers us, line by line; and our own replies, read by that same reader.
 *
 * Aims at: smtp/remote_reply.c smtp/reply.c
 * Seeds:   smtp/remote_reply_test.c smtp/reply_test.c deliver/smtp_test.c bounces-sisimai/
 * Longest: 2048
 * Test:    38000 runs
 * Choices: 1 bytes in front
 *
 * What was read is safe for logs and notices: printable ASCII of bounded length, and a code that belongs to its enhanced
 * code. A reply with any words that we say is one reply with lines of at most 512 bytes, and reads back with the same codes.
 */
#include "fuzz.h"

#include "smtp/remote_reply.h"
#include "smtp/reply.h"

static void
check_reply(const struct remote_reply *r)
{
    CHECK(r->code >= 200 && r->code <= 599 && r->text.len <= LIMIT_REPLY_TEXT && r->text.len >= 3);
    for (size_t i = 0; i < r->text.len; i++)
        CHECK((unsigned char)r->text.ptr[i] >= ' ' && (unsigned char)r->text.ptr[i] < 0x7f);
    CHECK(r->enhanced.len == 0 || (r->enhanced.len >= 5 && r->enhanced.ptr[0] - '0' == r->code / 100));
    CHECK(remote_reply_is_positive(r) + remote_reply_is_transient(r) + remote_reply_is_permanent(r) <= 1);
}

static void
read_theirs(struct str input, struct arena *arena)
{
    struct reply_reader *reader = arena_new(arena, struct reply_reader);
    struct str words;

    reply_reader_start(reader);
    while (input.len > 0) {
        struct str line = str_cut(&input, '\n');
        if (str_is_absent(input))
            input = S("");
        switch (reply_reader_take(reader, line, &words)) {
        case REPLY_MORE:
            CHECK(reader->lines < LIMIT_REPLY_LINES);
            break;
        case REPLY_WHOLE: {
            struct remote_reply r = reply_reader_keep(reader, arena);
            check_reply(&r);
            reply_reader_start(reader);
            break;
        }
        case REPLY_MALFORMED:
            reply_reader_start(reader);
            break;
        }
    }
}

static void
say_ours(unsigned code, struct str words, struct arena *arena)
{
    const char *enhanced = code < 300 ? "2.0.0" : code < 500 ? "4.3.2" : "5.7.1";
    const struct reply *reply = reply_make(arena, code, enhanced, "%.*s", STR_ARG(words));
    struct text t = fuzz_text(arena, reply_size(reply));
    struct reply_reader *reader = arena_new(arena, struct reply_reader);
    enum reply_progress progress = REPLY_MORE;

    reply_put(&t, reply);
    CHECK(!t.full && t.len > 0);
    reply_reader_start(reader);
    for (struct str rest = text_str(&t); rest.len > 0;) {
        size_t end = str_find(rest, S("\r\n"));
        struct str line = str_slice(rest, 0, end), ignored;
        CHECK(end + 2 <= LIMIT_REPLY_LINE && end < rest.len);
        for (size_t i = 0; i < line.len; i++)
            CHECK((unsigned char)line.ptr[i] >= ' ' && (unsigned char)line.ptr[i] < 0x7f);
        CHECK(progress == REPLY_MORE);
        if (reader->lines + 1 >= LIMIT_REPLY_LINES)
            return;
        progress = reply_reader_take(reader, line, &ignored);
        rest = str_from(rest, end + 2);
    }
    CHECK(progress == REPLY_WHOLE);
    struct remote_reply r = reply_reader_keep(reader, arena);
    check_reply(&r);
    CHECK(r.code == code && str_eq(r.enhanced, str_from_cstr(enhanced)));
}

void
fuzz_one(struct str input, struct arena *arena)
{
    static const unsigned codes[] = { 250, 421, 451, 550, 554 };
    struct str rest = input;
    unsigned code = codes[fuzz_choice(&rest) % 5];

    read_theirs(rest, arena);
    say_ours(code, rest, arena);
}
