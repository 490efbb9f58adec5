/* Tables of settings: what they read, what they refuse and how they say it, and how they are printed. */
#include "base/conf_fake.h"
#include "base/limits.h"
#include "base/setting.h"
#include "base/test.h"

struct values {
    bool flag;
    uint32_t count;
    uint64_t size;
    int64_t time;
    uint8_t choice;
    struct str word, host, path;
    struct setting_prefixes prefixes;
    size_t repeated;
    struct values *inner;
};

static void
count_it(struct setting_reader *r, const struct conf_node *node, void *target)
{
    struct values *v = target;

    (void)r;
    v->repeated += node->count - 1;
}

static const struct str choices[] = { STR("refuse"), STR("repair"), { NULL, 0 } };
static const struct setting inner_settings[] = {
    { STR("depth"), STR("NUMBER"), SETTING_COUNT, .offset = offsetof(struct values, count), .help = STR("How deep") },
};
static const struct setting_table inner_table = SETTING_TABLE(inner_settings);

static void
read_inner(struct setting_reader *r, const struct conf_node *node, void *target)
{
    struct values *v = target;

    v->inner = arena_new(r->arena, struct values);
    setting_read(r, &inner_table, node->children, v->inner);
}

static const struct setting settings[] = {
    { STR("enabled"), STR("on|off"), SETTING_FLAG, .offset = offsetof(struct values, flag), .fallback = STR("on"),
      .help = STR("Whether") },
    { STR("count"), STR("NUMBER"), SETTING_COUNT, .offset = offsetof(struct values, count), .min = 1, .max = 50,
      .fallback = STR("20"), .help = STR("How many") },
    { STR("max-size"), STR("SIZE"), SETTING_SIZE, .offset = offsetof(struct values, size), .min = 1 << 10,
      .max = UINT64_C(1) << 40, .fallback = STR("50MiB"), .help = STR("How much") },
    { STR("wait"), STR("TIME"), SETTING_TIME, .offset = offsetof(struct values, time), .min = MINUTE, .max = DAY,
      .fallback = STR("90s"), .help = STR("How long") },
    { STR("line-ends"), STR("refuse|repair"), SETTING_CHOICE, .offset = offsetof(struct values, choice),
      .choices = choices, .fallback = STR("repair"), .help = STR("Which") },
    { STR("word"), STR("WORD"), SETTING_WORD, .offset = offsetof(struct values, word), .help = STR("What") },
    { STR("hostname"), STR("NAME"), SETTING_HOST, .offset = offsetof(struct values, host), .help = STR("Who") },
    { STR("state"), STR("PATH"), SETTING_PATH, .offset = offsetof(struct values, path), .help = STR("Where") },
    { STR("from"), STR("NETWORK ..."), SETTING_PREFIXES, .offset = offsetof(struct values, prefixes),
      .help = STR("From whom") },
    { STR("again"), STR("WORD"), SETTING_CUSTOM, .repeats = true, .read = count_it, .help = STR("Again") },
    { STR("inner"), STR(""), SETTING_CUSTOM, .read = read_inner, .block = &inner_table, .help = STR("A block") },
};
static const struct setting_table table = SETTING_TABLE(settings);

struct fixture {
    struct conf_fixture conf;
    struct values values;
};

static void
fixture_read(struct fixture *f, struct str text)
{
    struct conf_fake_file file = { STR("/etc/m.conf"), text };
    struct conf_fixture *c = &f->conf;

    conf_fixture_init(c, &file, 1);
    f->values = (struct values){ 0 };
    struct conf_node *tree = conf_parse(&c->bundle, &c->arena, &c->problems);
    struct setting_reader reader = { &c->bundle, &c->problems, &c->arena, NULL };
    setting_read(&reader, &table, tree, &f->values);
}

static void
fixture_done(struct fixture *f)
{
    conf_fixture_done(&f->conf);
}

static void
reads_every_kind(struct test *t)
{
    struct fixture f;

    fixture_read(
        &f, S("enabled off; count 7; max-size 1KiB; wait 1h; line-ends refuse\nword \"a b\"; hostname MX.Example.\n"
              "state sub/dir\nfrom 10.0.0.0/8, ::1\nagain 1; again 2 3\ninner { depth 9 }"));
    EXPECT_INT(t, f.conf.problems.count, 0);
    EXPECT(t, !f.values.flag);
    EXPECT_INT(t, f.values.count, 7);
    EXPECT_INT(t, f.values.size, 1024);
    EXPECT_INT(t, f.values.time, HOUR);
    EXPECT_INT(t, f.values.choice, 0);
    EXPECT_STR(t, f.values.word, S("a b"));
    EXPECT_STR(t, f.values.host, S("mx.example"));
    EXPECT_STR(t, f.values.path, S("/etc/sub/dir"));
    EXPECT_INT(t, f.values.prefixes.count, 2);
    EXPECT_INT(t, f.values.repeated, 3);
    EXPECT(t, f.values.inner && f.values.inner->count == 9);
    fixture_done(&f);
}

static void
knows_defaults(struct test *t)
{
    struct fixture f;

    fixture_read(&f, S(""));
    EXPECT_INT(t, f.conf.problems.count, 0);
    EXPECT(t, f.values.flag);
    EXPECT_INT(t, f.values.count, 20);
    EXPECT_INT(t, f.values.size, 50 << 20);
    EXPECT_INT(t, f.values.time, 90 * SECOND);
    EXPECT_INT(t, f.values.choice, 1);
    EXPECT(t, str_is_absent(f.values.word));
    fixture_done(&f);
}

static void
refuses(struct test *t)
{
    static const struct {
        const char *why;
        struct str in, out;
    } cases[] = {
        {"unknown", STR("\n cuont 3"),
         STR("/etc/m.conf:2:2: \"cuont\" is not known at the top of a configuration; did you "
             "mean \"count\"?")},
        {"unknown in a block", STR("inner { width 3 }"), STR("/etc/m.conf:1:9: \"width\" is not known in this block")},
        {"twice", STR("count 3\ncount 4"), STR("/etc/m.conf:2:1: \"count\" was given before, at /etc/m.conf:1:1")},
        {"no value", STR("count"), STR("/etc/m.conf:1:1: something is missing here: write \"count NUMBER\"")},
        {"two values", STR("count 1 2"), STR("/etc/m.conf:1:9: this is a word too many: write \"count NUMBER\"")},
        {"not a number", STR("count x"), STR("/etc/m.conf:1:7: \"x\" is not a number")},
        {"over the range", STR("count 51"), STR("/etc/m.conf:1:7: \"51\" is out of range: count may be 1 to 50")},
        {"under the range", STR("max-size 1023"),
         STR("/etc/m.conf:1:10: \"1023\" is out of range: max-size may be 1KiB to 1TiB")},
        {"not a size", STR("max-size 5MB"), STR("/etc/m.conf:1:10: \"5MB\" is not a size such as 64KiB or 50MiB")},
        {"a time out of range", STR("wait 2s"), STR("/etc/m.conf:1:6: \"2s\" is out of range: wait may be 1m to 1d")},
        {"not a time", STR("wait 2"), STR("/etc/m.conf:1:6: \"2\" is not a time such as 30s, 5m or 1h")},
        {"not a choice", STR("line-ends repare"),
         STR("/etc/m.conf:1:11: \"repare\" is not a value here: it is one of "
             "refuse, repair; did you mean \"repair\"?")},
        {"not a flag", STR("enabled yes"), STR("/etc/m.conf:1:9: \"yes\" is not a value here: it is one of off, on")},
        {"not a host", STR("hostname a..b"), STR("/etc/m.conf:1:10: \"a..b\" is not a host or domain name")},
        {"not a network", STR("from x"),
         STR("/etc/m.conf:1:6: \"x\" is neither an address nor a network such as 192.0.2.0/24")},
        {"host bits", STR("from 10.0.0.1/8"),
         STR("/etc/m.conf:1:6: \"10.0.0.1/8\" is not a network: the bits behind its "
             "length must be zero, as in 192.0.2.0/24")},
        {"no block", STR("count 1 { x }"), STR("/etc/m.conf:1:1: \"count\" has no block: write \"count NUMBER\"")},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct fixture f;
        test_case(t, cases[i].why);
        fixture_read(&f, cases[i].in);
        EXPECT_INT(t, f.conf.problems.count, 1);
        EXPECT_STR(t, conf_fixture_problem(&f.conf, 0), cases[i].out);
        fixture_done(&f);
    }
}

static void
prints_itself(struct test *t)
{
    static const struct setting some[] = {
        {STR("max-size"), STR("SIZE"), SETTING_SIZE, .min = 1 << 10, .max = UINT64_C(1) << 40, .fallback = STR("50MiB"),
         .help = STR("The largest message")},
        {STR("inner"), STR(""), SETTING_CUSTOM, .repeats = true, .block = &inner_table,
         .help = STR("A block. May hold what stands below it, which here is next to nothing at all, in lines that are "
                     "filled, but .dots must be escaped")},
    };
    static const struct setting_table few = SETTING_TABLE(some);
    char memory[2000];
    struct text out = text_init(memory, sizeof memory);

    setting_put_reference(&out, &few);
    EXPECT_STR(t, text_str(&out),
               S("max-size SIZE\n        The largest message (default 50MiB; 1KiB to 1TiB)\n"
                 "inner { ... }\n        A block. May hold what stands below it, which here is next to nothing "
                 "at all, in lines that\n        are filled, but .dots must be escaped (may be "
                 "repeated)\n"
                 "    depth NUMBER\n            How deep\n"));
    out.len = 0;
    setting_put_mdoc(&out, &few);
    EXPECT_STR(
        t, text_str(&out),
        S(".Bl -tag -width Ds\n.It Ic max\\-size No SIZE\nThe largest message (default 50MiB; 1KiB to "
          "1TiB).\n.It Ic inner No { ... }\nA block.\nMay hold what stands below it, which here is next to nothing at "
          "all, in lines\nthat are filled, but \\&.dots must be escaped (may be repeated).\n.Bl -tag -width Ds\n"
          ".It Ic depth No NUMBER\nHow deep.\n.El\n.El\n"));
}

TEST_MAIN({ "reads every kind", reads_every_kind }, { "knows defaults", knows_defaults }, { "refuses", refuses },
          { "prints itself", prints_itself })
