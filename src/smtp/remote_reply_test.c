#include "smtp/remote_reply.h"

#include "base/test.h"

static const struct {
    const char *why;
    struct str lines; /* each ends in LF */
    enum reply_progress progress; /* after the last line */
    uint16_t code;
    struct str enhanced, text;
} cases[] = {
    { "one line", STR("250 Ok\n"), REPLY_WHOLE, 250, STR(""), STR("250 Ok") },
    { "code alone", STR("250\n"), REPLY_WHOLE, 250, STR(""), STR("250") },
    { "code and space alone", STR("250 \n"), REPLY_WHOLE, 250, STR(""), STR("250") },
    { "enhanced code", STR("550 5.1.1 No such user\n"), REPLY_WHOLE, 550, STR("5.1.1"), STR("550 5.1.1 No such user") },
    { "enhanced code alone", STR("250 2.0.0\n"), REPLY_WHOLE, 250, STR("2.0.0"), STR("250 2.0.0") },
    { "enhanced three digits", STR("550 5.123.456 x\n"), REPLY_WHOLE, 550, STR("5.123.456"), STR("550 5.123.456 x") },
    { "enhanced four digits", STR("550 5.1.1234 x\n"), REPLY_WHOLE, 550, STR(""), STR("550 5.1.1234 x") },
    { "enhanced contradicts", STR("550 4.1.1 x\n"), REPLY_WHOLE, 550, STR(""), STR("550 4.1.1 x") },
    { "version number only", STR("220 5.1.1beta ready\n"), REPLY_WHOLE, 220, STR(""), STR("220 5.1.1beta ready") },
    { "enhanced said once", STR("550-5.7.1 Not\n550 5.7.1 you\n"), REPLY_WHOLE, 550, STR("5.7.1"),
        STR("550 5.7.1 Not you") },
    { "many lines", STR("250-a\n250-b\n250 c\n"), REPLY_WHOLE, 250, STR(""), STR("250 a b c") },
    { "empty line within", STR("250-a\n250-\n250 c\n"), REPLY_WHOLE, 250, STR(""), STR("250 a c") },
    { "not ended", STR("250-a\n"), REPLY_MORE, 0, STR(""), STR("") },
    { "control bytes", STR("550 a\x01" "b\tc\x7f\xc3\xa4\n"), REPLY_WHOLE, 550, STR(""), STR("550 a?b c???") },
    { "two codes", STR("250-a\n550 b\n"), REPLY_MALFORMED, 0, STR(""), STR("") },
    { "no code", STR("hello\n"), REPLY_MALFORMED, 0, STR(""), STR("") },
    { "empty line", STR("\n"), REPLY_MALFORMED, 0, STR(""), STR("") },
    { "two digits", STR("25\n"), REPLY_MALFORMED, 0, STR(""), STR("") },
    { "1yz", STR("150 x\n"), REPLY_MALFORMED, 0, STR(""), STR("") },
    { "6yz", STR("650 x\n"), REPLY_MALFORMED, 0, STR(""), STR("") },
    { "no separator", STR("250x\n"), REPLY_MALFORMED, 0, STR(""), STR("") },
    { "HTTP", STR("HTTP/1.1 400 Bad Request\n"), REPLY_MALFORMED, 0, STR(""), STR("") },
};

static void
reads_replies(struct test *t)
{
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct mem mem = mem_libc();
        struct arena arena;
        struct reply_reader reader;
        enum reply_progress progress = REPLY_MORE;
        struct str lines = cases[i].lines;

        test_case(t, cases[i].why);
        arena_init(&arena, &mem, 2048, 8192);
        reply_reader_start(&reader);
        while (lines.len > 0 && progress == REPLY_MORE) {
            struct str words, line = test_edge(str_cut(&lines, '\n'));

            progress = reply_reader_take(&reader, line, &words);
            test_edge_free(line);
        }
        EXPECT_INT(t, progress, cases[i].progress);
        if (progress == REPLY_WHOLE) {
            struct remote_reply reply = reply_reader_keep(&reader, &arena);
            EXPECT_INT(t, reply.code, cases[i].code);
            EXPECT_STR(t, reply.enhanced, cases[i].enhanced);
            EXPECT_STR(t, reply.text, cases[i].text);
        }
        arena_done(&arena);
    }
}

static void
bounds_what_it_keeps(struct test *t)
{
    static char line[LIMIT_REPLY_LINE_READ];
    struct mem mem = mem_libc();
    struct arena arena;
    struct reply_reader reader;
    struct str words;

    for (size_t i = 0; i < sizeof line; i++)
        line[i] = i < 4 ? "550-"[i] : 'x';
    arena_init(&arena, &mem, 2048, 8192);
    reply_reader_start(&reader);
    for (size_t i = 0; i + 1 < LIMIT_REPLY_LINES; i++)
        EXPECT_INT(t, reply_reader_take(&reader, str_new(line, sizeof line), &words), REPLY_MORE);
    EXPECT_INT(t, words.len, sizeof line - 4);
    line[3] = ' ';
    EXPECT_INT(t, reply_reader_take(&reader, str_new(line, sizeof line), &words), REPLY_WHOLE);
    EXPECT_INT(t, reply_reader_keep(&reader, &arena).text.len, LIMIT_REPLY_TEXT);
    EXPECT_INT(t, reply_reader_take(&reader, str_new(line, sizeof line), &words), REPLY_MALFORMED);
    arena_done(&arena);
}

TEST_MAIN({ "reads replies", reads_replies }, { "bounds what it keeps", bounds_what_it_keeps })
