/* xtext, ENVID and ORCPT. */
#include "message/xtext.h"

#include "base/limits.h"
#include "base/test.h"

static void
encodes_and_decodes(struct test *t)
{
    static const struct { const char *why; struct str raw, xtext; } cases[] = {
        { "plain",           STR("abc"), STR("abc") },
        { "plus and equals", STR("a+b=c"), STR("a+2Bb+3Dc") },
        { "space",           STR("a b"), STR("a+20b") },
        { "line end",        STR("\r\n"), STR("+0D+0A") },
        { "high byte",       STR("\xff"), STR("+FF") },
        { "empty",           STR(""), STR("") },
    };
    char memory[64];

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct text text = text_init(memory, sizeof memory);
        test_case(t, cases[i].why);
        xtext_put(&text, cases[i].raw);
        EXPECT_STR(t, text_str(&text), cases[i].xtext);
        text.len = 0;
        EXPECT(t, xtext_decode(cases[i].xtext, &text));
        EXPECT_STR(t, text_str(&text), cases[i].raw);
    }
    static const struct { const char *why; struct str in; } bad[] = {
        { "half an escape", STR("a+2") }, { "no digits", STR("+") }, { "not hex", STR("+2G") },
        { "space", STR("a b") }, { "equals", STR("a=b") }, { "high byte", STR("\x80") },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct text text = text_init(memory, sizeof memory);
        struct str in = test_edge(bad[i].in);
        test_case(t, bad[i].why);
        EXPECT(t, !xtext_decode(in, &text));
        test_edge_free(in);
    }
}

static void
checks_envid(struct test *t)
{
    static const struct { const char *why; struct str in; bool ok; } cases[] = {
        { "plain", STR("QQ314159"), true }, { "encoded space", STR("a+20b"), true }, { "empty", STR(""), false },
        { "line end", STR("a+0Ab"), false }, { "not ASCII", STR("a+C3+A4"), false }, { "lower case hex", STR("a+2bb"),
          true },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        test_case(t, cases[i].why);
        EXPECT(t, envid_is_valid(cases[i].in) == cases[i].ok);
    }
    char longest[3 * LIMIT_ENVID + 1];
    for (size_t i = 0; i < sizeof longest; i++)
        longest[i] = "+41"[i % 3];
    test_case(t, "longest");
    EXPECT(t, envid_is_valid(str_new(longest, 3 * LIMIT_ENVID)));
    longest[3 * LIMIT_ENVID] = 'A';
    EXPECT(t, !envid_is_valid(str_new(longest, sizeof longest)));
}

static void
checks_orcpt(struct test *t)
{
    static const struct { const char *why; struct str in; bool ok, ok_utf8; struct str decoded,
      decoded_utf8; } cases[] = {
        { "plain", STR("rfc822;a@b.ex"), true, true, STR("rfc822;a@b.ex"), STR("rfc822;a@b.ex") },
        { "encoded", STR("rfc822;a+2Bc@b.ex"), true, true, STR("rfc822;a+c@b.ex"), STR("rfc822;a+c@b.ex") },
        { "another type", STR("x400;/G=A/S=B"), false, false, STR("x400;/G?A/S?B"), STR("x400;/G?A/S?B") },
        { "no type", STR("a@b.ex"), false, false, { 0 }, { 0 } },
        { "no address", STR("rfc822;"), false, false, { 0 }, { 0 } },
        { "injection", STR("rfc822;a+0D+0ABcc:x@b.ex"), false, false, STR("rfc822;a??Bcc:x@b.ex"),
          STR("rfc822;a??Bcc:x@b.ex") },
        { "bytes as xtext", STR("rfc822;+C3+A4@b.ex"), false, false, STR("rfc822;??@b.ex"), STR("rfc822;??@b.ex") },
        { "embedded", STR("utf-8;\\x{E4}@b.ex"), true, true, STR("utf-8;\\x{E4}@b.ex"), STR("utf-8;\xc3\xa4@b.ex") },
        { "unitext", STR("utf-8;\xc3\xa4@b.ex"), false, true, STR("utf-8;\\x{E4}@b.ex"), STR("utf-8;\xc3\xa4@b.ex") },
        { "embedded line end", STR("utf-8;\\x{0D}\\x{0A}@b.ex"), false, false, STR("utf-8;\\x{0D}\\x{0A}@b.ex"),
          STR("utf-8;??@b.ex") },
        { "embedded nonsense", STR("utf-8;\\x{D800}@b.ex"), false, false, { 0 }, { 0 } },
        { "lone backslash", STR("utf-8;a\\b@b.ex"), false, false, STR("utf-8;a?b@b.ex"), STR("utf-8;a?b@b.ex") },
    };
    char memory[128];

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct str in = test_edge(cases[i].in);
        test_case(t, cases[i].why);
        EXPECT(t, orcpt_is_valid(in, false) == cases[i].ok);
        EXPECT(t, orcpt_is_valid(in, true) == cases[i].ok_utf8);
        for (int utf8 = 0; utf8 < 2; utf8++) {
            struct text text = text_init(memory, sizeof memory);
            struct str want = utf8 ? cases[i].decoded_utf8 : cases[i].decoded;
            orcpt_put_decoded(&text, in, utf8);
            if (!str_is_absent(want))
                EXPECT_STR(t, text_str(&text), want);
        }
        test_edge_free(in);
        for (size_t cut = 0; cut < cases[i].in.len; cut++) {
            struct text text = text_init(memory, sizeof memory);
            struct str piece = test_edge(str_slice(cases[i].in, 0, cut));
            if (orcpt_is_valid(piece, true))
                orcpt_put_decoded(&text, piece, true);
            EXPECT(t, !text.full);
            test_edge_free(piece);
        }
    }
}

TEST_MAIN({ "encodes and decodes", encodes_and_decodes }, { "checks ENVID", checks_envid }, { "checks ORCPT",
  checks_orcpt })
