/* Options as the tables of the verbs want them. */
#include "cli/cli.h"

#include "base/test.h"

#include <stddef.h>

static void
numbers_and_times(struct test *t)
{
    static const struct {
        const char *why;
        struct str in;
        bool is_number, is_time;
        uint64_t number;
        int64_t ns;
    } cases[] = {
        { "plain", STR("10"), true, true, 10, 10 * SECOND },
        { "kibi", STR("64k"), true, false, 65536, 0 },
        { "m is mebi, or minutes", STR("5m"), true, true, 5 << 20, 5 * MINUTE },
        { "gibi", STR("2G"), true, false, UINT64_C(2) << 30, 0 },
        { "fraction", STR("0.25"), false, true, 0, SECOND / 4 },
        { "milliseconds", STR("20ms"), false, true, 0, 20 * MILLISECOND },
        { "seconds", STR("3s"), false, true, 0, 3 * SECOND },
        { "half an hour", STR("0.5h"), false, true, 0, 30 * MINUTE },
        { "nothing", STR(""), false, false, 0, 0 },
        { "a unit alone", STR("k"), false, false, 0, 0 },
        { "negative", STR("-1"), false, false, 0, 0 },
        { "a dot alone", STR("."), false, false, 0, 0 },
        { "nothing behind the dot", STR("1."), false, false, 0, 0 },
        { "too large when shifted", STR("18446744073709551615k"), false, false, 0, 0 },
        { "too many hours", STR("1000000000h"), false, false, 0, 0 },
        { "as many minutes as fit", STR("16666666m"), true, true, UINT64_C(16666666) << 20, 16666666 * MINUTE },
        { "too many minutes", STR("200000000m"), true, false, UINT64_C(200000000) << 20, 0 },
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint64_t number = 0;
        int64_t ns = 0;
        test_case(t, cases[i].why);
        if (EXPECT(t, cli_number(cases[i].in, &number) == cases[i].is_number) && cases[i].is_number)
            EXPECT(t, number == cases[i].number);
        if (EXPECT(t, cli_seconds(cases[i].in, &ns) == cases[i].is_time) && cases[i].is_time)
            EXPECT_INT(t, ns, cases[i].ns);
    }
}

struct settings {
    bool flag;
    struct str word;
    struct words words;
    uint64_t number;
    int64_t time;
};
static const struct option options[] = {
    { "--flag", NULL, OPTION_FLAG, offsetof(struct settings, flag), "a flag" },
    { "--word", "WORD", OPTION_WORD, offsetof(struct settings, word), "a word" },
    { "--words", "WORD", OPTION_WORDS, offsetof(struct settings, words), "a word, many times" },
    { "--number", "N", OPTION_NUMBER, offsetof(struct settings, number), "a number" },
    { "--time", "TIME", OPTION_SECONDS, offsetof(struct settings, time), "a time" },
    { 0 },
};
static const struct verb verb = { .name = "verb", .summary = "for this test", .arguments = "", .options = options };

enum { ARGS_MAX = 12 };

static void
fills_settings(struct test *t)
{
    char *argv[ARGS_MAX] = { (char[]){ "verb" },         (char[]){ "--words" }, (char[]){ "a" },    (char[]){ "first" },
                             (char[]){ "--words=b=c" },  (char[]){ "--flag" },  (char[]){ "--time" }, (char[]){ "2m" },
                             (char[]){ "--number=3k" },  (char[]){ "-" },       (char[]){ "--" },   (char[]){ "--flag" } };
    struct settings set = { .word = STR("default") };
    struct words operands = { 0 };
    struct mem mem = mem_libc();
    struct arena arena;
    int exit;

    arena_init(&arena, &mem, 1024, 1 << 16);
    EXPECT(t, cli_parse(&verb, ARGS_MAX, argv, &arena, &set, &operands, &exit));
    EXPECT(t, set.flag);
    EXPECT_STR(t, set.word, S("default"));
    EXPECT_INT(t, set.number, 3072);
    EXPECT_INT(t, set.time, 2 * MINUTE);
    if (EXPECT_INT(t, set.words.count, 2)) {
        EXPECT_STR(t, set.words.word[0], S("a"));
        EXPECT_STR(t, set.words.word[1], S("b=c"));
    }
    if (EXPECT_INT(t, operands.count, 3)) {
        EXPECT_STR(t, operands.word[0], S("first"));
        EXPECT_STR(t, operands.word[1], S("-"));
        EXPECT_STR(t, operands.word[2], S("--flag"));
    }
    arena_done(&arena);
}

static void
keeps_many_words(struct test *t)
{
    enum { MANY = 100 };
    char name[] = "verb", word[] = "x";
    char *argv[MANY + 1] = { name };
    struct settings set = { 0 };
    struct words operands = { 0 };
    struct mem mem = mem_libc();
    struct arena arena;
    int exit;

    for (size_t i = 1; i <= MANY; i++)
        argv[i] = word;
    arena_init(&arena, &mem, 1024, 1 << 16);
    EXPECT(t, cli_parse(&verb, MANY + 1, argv, &arena, &set, &operands, &exit));
    EXPECT_INT(t, operands.count, MANY);
    for (size_t i = 0; i < operands.count; i++)
        EXPECT_STR(t, operands.word[i], S("x"));
    arena_done(&arena);
}

TEST_MAIN({ "numbers and times", numbers_and_times }, { "fills settings", fills_settings },
          { "keeps many words", keeps_many_words })
