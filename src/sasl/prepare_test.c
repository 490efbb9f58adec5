/* prepare_test - names and passwords as RFC 8265 compares them. */
#include "sasl/prepare.h"

#include "base/limits.h"
#include "base/test.h"

#include <string.h>

static const struct {
    const char *why;
    struct str in;
    bool password, name;
    struct str as_password, as_name;
} cases[] = {
    { "ASCII", STR("Correct-Horse"), true, true, STR("Correct-Horse"), STR("correct-horse") },
    { "an address", STR("Anna@Example.ORG"), true, true, STR("Anna@Example.ORG"), STR("anna@example.org") },
    { "spaces inside stay: RFC 8265 section 4.3", STR("Ich bin's"), true, false, STR("Ich bin's"), STR("") },
    { "empty", STR(""), false, false, STR(""), STR("") },
    { "a control", STR("my\tpass"), false, false, STR(""), STR("") },
    { "a NUL", STR("a\0b"), false, false, STR(""), STR("") },
    { "DEL", STR("a\x7f"), false, false, STR(""), STR("") },
    { "a colon cannot be in the file", STR("a:b"), true, false, STR("a:b"), STR("") },
    { "composed already", STR("\xc3\xa4\xc3\x96"), true, true, STR("\xc3\xa4\xc3\x96"), STR("\xc3\xa4\xc3\xb6") },
    { "put together", STR("a\xcc\x88"), true, true, STR("\xc3\xa4"), STR("\xc3\xa4") },
    { "an ideographic space is a space", STR("a\xe3\x80\x80z"), true, false, STR("a z"), STR("") },
    { "a no-break space too", STR("a\xc2\xa0z"), true, false, STR("a z"), STR("") },
    { "a ligature stays: NFC, not NFKC", STR("\xef\xac\x81"), true, true, STR("\xef\xac\x81"), STR("\xef\xac\x81") },
    { "another width is the same name, not the same password", STR("\xef\xbc\xa1nna\xef\xbc\xa0" "b"), true, true,
      STR("\xef\xbc\xa1nna\xef\xbc\xa0" "b"), STR("anna@b") },
    { "half as wide, and put together after that", STR("\xef\xbd\xb6\xef\xbe\x9e"), true, true, STR("\xef\xbd\xb6\xef\xbe\x9e"),
      STR("\xe3\x82\xac") },
    { "a wide colon is a colon", STR("a\xef\xbc\x9a" "b"), true, false, STR("a\xef\xbc\x9a" "b"), STR("") },
    { "not assigned", STR("\xcd\xb8"), false, false, STR(""), STR("") },
    { "private use", STR("\xee\x80\x80"), false, false, STR(""), STR("") },
    { "a soft hyphen is invisible", STR("a\xc2\xad" "b"), false, false, STR(""), STR("") },
    { "a joiner behind a virama", STR("\xe0\xa4\x95\xe0\xa5\x8d\xe2\x80\x8d"), true, true,
      STR("\xe0\xa4\x95\xe0\xa5\x8d\xe2\x80\x8d"), STR("\xe0\xa4\x95\xe0\xa5\x8d\xe2\x80\x8d") },
    { "a joiner behind anything else", STR("a\xe2\x80\x8d"), false, false, STR(""), STR("") },
    { "a joiner behind a virama that composing moves", STR("\xe0\xa3\x95\xe0\xa5\x8d\xe2\x80\x8d"), false, false, STR(""),
      STR("") },
    { "a C1 control", STR("a\xc2\x9b"), false, false, STR(""), STR("") },
    { "not UTF-8", STR("caf\xe9"), false, false, STR(""), STR("") },
    { "overlong UTF-8", STR("\xc0\xaf"), false, false, STR(""), STR("") },
    { "a surrogate", STR("\xed\xa0\x80"), false, false, STR(""), STR("") },
    { "an emoji is a symbol", STR("\xf0\x9f\x94\x91"), true, true, STR("\xf0\x9f\x94\x91"), STR("\xf0\x9f\x94\x91") },
};

static void
as_the_rfc_has_it(struct test *t)
{
    char memory[PREPARED_MAX];

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct str in = test_edge(cases[i].in);
        struct text out = text_init(memory, sizeof memory);
        test_case(t, cases[i].why);
        EXPECT_INT(t, prepare_password(in, &out), cases[i].password);
        if (cases[i].password)
            EXPECT_STR(t, text_str(&out), cases[i].as_password);
        out.len = 0;
        EXPECT_INT(t, prepare_name(in, &out), cases[i].name);
        if (cases[i].name)
            EXPECT_STR(t, text_str(&out), cases[i].as_name);
        test_edge_free(in);
    }
}

static void
long_ones(struct test *t)
{
    char memory[PREPARED_MAX], many[PREPARED_MAX + 1];
    struct text out = text_init(memory, sizeof memory);

    memset(many, 'a', sizeof many);
    EXPECT(t, prepare_password(str_new(many, PREPARED_MAX), &out));
    out.len = 0;
    EXPECT(t, !prepare_password(str_new(many, PREPARED_MAX + 1), &out));
    EXPECT(t, prepare_name(str_new(many, LIMIT_USER_NAME), &out));
    out.len = 0;
    EXPECT(t, !prepare_name(str_new(many, LIMIT_USER_NAME + 1), &out));
    /* U+0390 comes apart into three and together again; U+FB2C stays apart: three times its size. */
    for (size_t i = 0; i + 3 <= 255; i += 3)
        memcpy(many + i, "\xef\xac\xac", 3);
    EXPECT(t, prepare_password(str_new(many, 255), &out));
    EXPECT(t, out.len > 255);
}

TEST_MAIN({ "as the RFC has it", as_the_rfc_has_it }, { "long ones", long_ones })
