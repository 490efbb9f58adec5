/* Header fields, read and written. */
#include "message/header.h"

#include "base/base64.h"
#include "base/test.h"
#include "message/test_words.h"

static void
takes_fields(struct test *t)
{
    static const struct { const char *why; struct str in; size_t fields; struct str name, value, rest; } cases[] = {
        { "folded",            STR("Subject: a\r\n b\r\n\tc\r\nTo: x\r\n\r\nbody"), 2, STR("Subject"),
          STR(" a\r\n b\r\n\tc"), STR("\r\nbody") },
        { "space before colon", STR("Subject : a\r\n\r\n"), 1, STR("Subject"), STR(" a"), STR("\r\n") },
        { "LF alone",          STR("A: b\n c\n\nbody"), 1, STR("A"), STR(" b\n c"), STR("\nbody") },
        { "no value",          STR("A:\r\n\r\n"), 1, STR("A"), STR(""), STR("\r\n") },
        { "cut off",           STR("A: b"), 1, STR("A"), STR(" b"), STR("") },
        { "garbage",           STR("A: b\r\ngarbage here: x\r\n"), 1, STR("A"), STR(" b"), STR("garbage here: x\r\n") },
        { "no name",           STR(": b\r\n"), 0, STR(""), STR(""), STR(": b\r\n") },
        { "mbox line",         STR("From a@b Thu Jan 11 13:08:21\r\n"), 0, STR(""), STR(""),
          STR("From a@b Thu Jan 11 13:08:21\r\n") },
        { "empty",             STR(""), 0, STR(""), STR(""), STR("") },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct str in = test_edge(cases[i].in), rest = in;
        struct header_field field, first = { S(""), S(""), S("") };
        size_t count = 0;
        test_case(t, cases[i].why);
        for (; header_take(&rest, &field); count++)
            first = count ? first : field;
        EXPECT_INT(t, count, cases[i].fields);
        EXPECT_STR(t, first.name, cases[i].name);
        EXPECT_STR(t, first.value, cases[i].value);
        EXPECT_STR(t, rest, cases[i].rest);
        test_edge_free(in);
        for (size_t cut = 0; cut < cases[i].in.len; cut++) {
            struct str piece = test_edge(str_slice(cases[i].in, 0, cut));
            size_t total = 0;
            for (rest = piece; header_take(&rest, &field);)
                total += field.whole.len;
            EXPECT_INT(t, total + rest.len, cut);
            test_edge_free(piece);
        }
    }
    EXPECT(t, header_is_ascii(S("A: 1\r\n\r\nC: \xc3\xa4\r\n")));
    EXPECT(t, !header_is_ascii(S("A: 1\r\nB: \xc3\xa4\r\n\r\n")));
}

static void
finds_the_end(struct test *t)
{
    static const struct { const char *why; struct str in; bool found; uint64_t bytes; } cases[] = {
        { "usual",       STR("A: b\r\n c\r\n\r\nbody"), true, 12 },
        { "no header",   STR("\r\nbody"), true, 2 },
        { "LF alone",    STR("A: b\n\nbody"), true, 6 },
        { "not yet",     STR("A: b\r\n\r"), false, 7 },
        { "never",       STR("A: b\r\n"), false, 6 },
        { "two CR",      STR("A: b\r\n\r\r\n\r\nx"), true, 11 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (size_t cut = 0; cut <= cases[i].in.len; cut++) {
            struct header_end end = { 0 };
            size_t len = 0;
            test_case(t, cases[i].why);
            if (!header_end_feed(&end, str_slice(cases[i].in, 0, cut), &len) &&
                header_end_feed(&end, str_from(cases[i].in, cut), &len))
                len += cut;
            EXPECT(t, end.found == cases[i].found);
            EXPECT_INT(t, end.bytes, cases[i].bytes);
            if (end.found)
                EXPECT_INT(t, len, cases[i].bytes);
        }
}

static void
skips_between_words(struct test *t)
{
    static const struct { const char *why; struct str in, rest; } cases[] = {
        { "spaces and line ends", STR(" \t\r\n x "), STR("x ") },
        { "a word comes first",   STR("x (a)"), STR("x (a)") },
        { "comments",             STR("(a (b) c)(d) x"), STR("x") },
        { "a quoted pair",        STR("(\\)\\() x"), STR("x") },
        { "quotes mean nothing",  STR("(\") x"), STR("x") },
        { "no end",               STR("(a (b) x"), STR("") },
        { "ends with a backslash", STR("(a\\"), STR("") },
        { "a stray end",          STR(" ) x"), STR(") x") },
        { "a stray backslash",    STR(" \\ x"), STR("\\ x") },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (size_t cut = 0; cut <= cases[i].in.len; cut++) {
            struct str in = test_edge(str_slice(cases[i].in, 0, cut)), rest = in;
            test_case(t, cases[i].why);
            header_skip_cfws(&rest);
            if (cut == cases[i].in.len)
                EXPECT_STR(t, rest, cases[i].rest);
            test_edge_free(in);
        }
    EXPECT_INT(t, header_skip_enclosed(S("a\"b\\\"c\"d"), 1), 7);
    EXPECT_INT(t, header_skip_enclosed(S("[a[b]c"), 0), 5); /* these do not lie in each other */
    EXPECT_INT(t, header_skip_enclosed(S("\"ab"), 0), 4);
}

static void
writes_fields(struct test *t)
{
    static const struct { const char *why; struct str value; bool text, utf8; struct str out; } cases[] = {
        { "plain",          STR("hello"), false, false, STR("Subject: hello\r\n") },
        { "injection",      STR("a\r\nBcc: x"), false, false, STR("Subject: a  Bcc: x\r\n") },
        { "folds",          STR("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb c"),
          false, false,
          STR("Subject: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb c\r\n") },
        { "not ASCII",      STR("\xc3\xa4"), false, false, STR("Subject: ??\r\n") },
        { "UTF-8 wanted",   STR("\xc3\xa4"), false, true, STR("Subject: \xc3\xa4\r\n") },
        { "not UTF-8",      STR("\xe4"), false, true, STR("Subject: ?\r\n") },
        { "encoded",        STR("\xc3\xa4 b_c"), true, false, STR("Subject: =?utf-8?Q?=C3=A4_b=5Fc?=\r\n") },
        { "unknown",        STR("\xe4"), true, false, STR("Subject: =?unknown-8bit?Q?=E4?=\r\n") },
        { "text in ASCII",  STR("a b"), true, false, STR("Subject: a b\r\n") },
        { "empty",          STR(""), false, false, STR("Subject:\r\n") },
    };
    char memory[1024];

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct text text = text_init(memory, sizeof memory);
        test_case(t, cases[i].why);
        if (cases[i].text)
            header_put_text(&text, S("Subject"), cases[i].value, cases[i].utf8);
        else
            header_put(&text, S("Subject"), cases[i].value, cases[i].utf8);
        EXPECT_STR(t, text_str(&text), cases[i].out);
    }
    struct text text = text_init(memory, sizeof memory);
    header_put_phrase(&text, S("Jane \"x\" Doe, Dr."), false);
    EXPECT_STR(t, text_str(&text), S("\"Jane \\\"x\\\" Doe, Dr.\""));
    text.len = 0;
    header_put_phrase(&text, S("Jane Doe"), false);
    EXPECT_STR(t, text_str(&text), S("Jane Doe"));
}

static void
encoded_words_and_back(struct test *t)
{
    static const struct { const char *why; struct str in, out; } cases[] = {
        { "Q",             STR("=?utf-8?Q?a=C3=A4_b?= c"), STR("a\xc3\xa4 b c") },
        { "B",             STR("=?UTF-8?b?w6Q=?="), STR("\xc3\xa4") },
        { "latin 1",       STR("=?iso-8859-1*de?Q?=E4?="), STR("\xc3\xa4") },
        { "two words",     STR("=?utf-8?Q?a?=\r\n =?utf-8?Q?b?= c"), STR("ab c") },
        { "unknown",       STR("=?koi8-r?Q?=E4?="), STR("=?koi8-r?Q?=E4?=") },
        { "not a word",    STR("=?utf-8?X?a?= =?utf-8?Q?"), STR("=?utf-8?X?a?= =?utf-8?Q?") },
        { "line end inside", STR("=?utf-8?Q?a=0D=0Ab?="), STR("a  b") },
        { "bad UTF-8",     STR("=?utf-8?Q?=E4?="), STR("=?utf-8?Q?=E4?=") },
    };
    struct mem mem = mem_libc();
    struct arena arena;
    char memory[4096];

    arena_init(&arena, &mem, 4096, 1 << 20);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct str in = test_edge(cases[i].in);
        test_case(t, cases[i].why);
        EXPECT_STR(t, test_words_decode(in, &arena), cases[i].out);
        test_edge_free(in);
        for (size_t cut = 0; cut < cases[i].in.len; cut++) {
            struct str piece = test_edge(str_slice(cases[i].in, 0, cut));
            test_words_decode(piece, &arena);
            test_edge_free(piece);
        }
    }
    test_case(t, "a long text");
    struct str text = S("\xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e\xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e"
                        " and more of it, so that several lines are needed: \xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e");
    struct text out = text_init(memory, sizeof memory);
    encoded_words_put(&out, text, 9);
    EXPECT_STR(t, test_words_decode(text_str(&out), &arena), text);
    for (struct str rest = text_str(&out); rest.len;)
        EXPECT(t, str_cut(&rest, '\n').len <= 76 + 1); /* and the \r */
    test_case(t, "one of ASCII alone is as long as a line may be, and no longer");
    out.len = 0;
    encoded_words_put(&out, S("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"), 9);
    EXPECT_INT(t, 9 + str_find(text_str(&out), S("\r")), 76);

    test_case(t, "base64");
    for (size_t len = 0; len < 10; len++) {
        char back[16];
        struct text encoded = text_init(memory, sizeof memory), decoded = text_init(back, sizeof back);
        struct str bytes = str_slice(S("\0\xff" "abcdefgh"), 0, len);
        base64_put(&encoded, bytes);
        EXPECT(t, base64_decode(text_str(&encoded), &decoded));
        EXPECT(t, str_eq(text_str(&decoded), bytes));
    }
    struct text decoded = text_init(memory, sizeof memory);
    EXPECT(t, !base64_decode(S("ab*d"), &decoded));
    test_case(t, "base64, strictly");
    static const struct str sound[] = { STR(""), STR("AA=="), STR("/w=="), STR("AAA="), STR("AAAA"), STR("AHRpbQ==") };
    static const struct str unsound[] = { STR("="), STR("=="), STR("===="), STR("A"), STR("A==="), STR("AA"), STR("AAA"),
                                          STR("AB=="), STR("AAB="), STR("AA==AA=="), STR("AA ="), STR("AA=\n"), STR("A*AA") };
    for (size_t i = 0; i < sizeof sound / sizeof *sound; i++) {
        char back[16];
        struct text bytes = text_init(back, sizeof back), again = text_init(memory, sizeof memory);
        EXPECT(t, base64_decode_strictly(sound[i], &bytes));
        base64_put(&again, text_str(&bytes));
        EXPECT_STR(t, text_str(&again), sound[i]);
    }
    for (size_t i = 0; i < sizeof unsound / sizeof *unsound; i++) {
        char back[16];
        struct text bytes = text_init(back, sizeof back);
        EXPECT(t, !base64_decode_strictly(unsound[i], &bytes));
    }
    arena_done(&arena);
}

TEST_MAIN({ "takes fields", takes_fields }, { "finds the end", finds_the_end },
          { "skips between words", skips_between_words }, { "writes fields", writes_fields },
          { "encoded words and back", encoded_words_and_back })
