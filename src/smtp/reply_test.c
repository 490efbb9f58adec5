/* Tests of reply.c. */
#include "smtp/reply.h"

#include "base/limits.h"
#include "base/mem.h"
#include "base/test.h"

#include <string.h>

static void
writes_replies(struct test *t)
{
    static const struct {
        const char *why;
        struct reply reply;
        struct str wire;
    } cases[] = {
        { "one line", { 250, STR("2.0.0"), STR("Ok") }, STR("250 2.0.0 Ok\r\n") },
        { "no enhanced code", { 354, STR(""), STR("Go") }, STR("354 Go\r\n") },
        { "no text", { 250, STR(""), STR("") }, STR("250 \r\n") },
        { "several lines, the code on each", { 214, STR("2.0.0"), STR("a\nb\nc") },
          STR("214-2.0.0 a\r\n214-2.0.0 b\r\n214 2.0.0 c\r\n") },
        { "newline at the end is no line", { 250, STR(""), STR("a\n") }, STR("250 a\r\n") },
        { "line within", { 250, STR(""), STR("a\n\nb") }, STR("250-a\r\n250-\r\n250 b\r\n") },
        { "nothing breaks out of its line", { 550, STR("5.1.1"), STR("a\r250 b\t\x7f\xc3\xa4") },
          STR("550 5.1.1 a?250 b????\r\n") },
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char memory[2048];
        struct text out = text_init(memory, sizeof memory);
        test_case(t, cases[i].why);
        reply_put(&out, &cases[i].reply);
        EXPECT_STR(t, text_str(&out), cases[i].wire);
        EXPECT(t, reply_size(&cases[i].reply) >= out.len);
    }
}

static void
breaks_long_lines(struct test *t)
{
    char words[1500], out_memory[4096];
    struct mem mem = mem_libc();
    struct arena arena;
    struct text out;

    for (int spaces = 0; spaces < 2; spaces++) {
        arena_init(&arena, &mem, 512, 64 << 10);
        memset(words, 'x', sizeof words);
        for (size_t i = 0; spaces && i < sizeof words; i += 10)
            words[i] = ' ';
        const struct reply *r = reply_make(&arena, 550, "5.7.1", "%.*s", (int)sizeof words, words);
        out = text_init(out_memory, reply_size(r));
        reply_put(&out, r);
        EXPECT(t, !out.full);
        struct str rest = text_str(&out);
        size_t lines = 0, xs = 0;
        while (rest.len > 0) {
            size_t end = str_find(rest, S("\r\n"));
            EXPECT(t, end + 2 <= LIMIT_REPLY_LINE);
            EXPECT(t, str_starts(rest, S("550-5.7.1 ")) || str_starts(rest, S("550 5.7.1 ")));
            for (size_t i = 0; i < end; i++)
                xs += rest.ptr[i] == 'x';
            rest = str_from(rest, end + 2);
            lines++;
        }
        EXPECT_INT(t, lines, 3);
        EXPECT_INT(t, xs, spaces ? 1350 : 1500);
        arena_done(&arena);
    }
}

static void
enhanced_codes_agree(struct test *t)
{
    static const struct reply *const replies[] = {
        &reply_closing, &reply_ok, &reply_shutting_down, &reply_talked_ahead, &reply_unknown_command,
        &reply_hello_first,
        &reply_sender_ok, &reply_recipient_ok, &reply_too_many_recipients, &reply_no_valid_recipients, &reply_too_big,
        &reply_no_space, &reply_envelope_too_big, &reply_try_again, &reply_mail_loop,
        &reply_vrfy_off, &reply_needs_utf8, &reply_sender_needs_smtputf8,
    };

    for (size_t i = 0; i < sizeof replies / sizeof *replies; i++) {
        test_case(t, replies[i]->text.ptr);
        EXPECT_INT(t, replies[i]->enhanced.ptr[0] - '0', replies[i]->code / 100); /* RFC 2034 section 4 */
    }
    EXPECT_INT(t, reply_start_content.enhanced.len, 0);
}

TEST_MAIN({ "writes replies", writes_replies }, { "breaks long lines", breaks_long_lines },
          { "enhanced codes agree with the code", enhanced_codes_agree })
