/* The configuration's grammar, its positions, its bundle, and its values. */
#include "base/conf.h"
#include "base/conf_fake.h"
#include "base/limits.h"
#include "base/prng.h"
#include "base/test.h"

#include <string.h>

/* The tree as one line: words in brackets, blocks in braces. */
static void
put_tree(struct text *t, const struct conf_node *first)
{
    for (const struct conf_node *n = first; n; n = n->next) {
        for (size_t i = 0; i < n->count; i++)
            text_putf(t, "[%.*s]", STR_ARG(n->words[i].text));
        if (n->has_block) {
            text_put(t, S("{"));
            put_tree(t, n->children);
            text_put(t, S("}"));
        }
        text_put(t, n->next ? S(" ") : S(""));
    }
}

/* What parsing gives: the tree, or the first problem. */
static void
parse_to_text(struct str input, struct text *out)
{
    struct conf_fake_file file = { STR("/etc/main.conf"), input };
    struct conf_fixture f;

    conf_fixture_init(&f, &file, 1);
    struct conf_node *tree = conf_parse(&f.bundle, &f.arena, &f.problems);
    if (f.problems.count > 0)
        conf_problem_put(out, &f.problems.items[0]);
    else
        put_tree(out, tree);
    conf_fixture_done(&f);
}

static void
trees(struct test *t)
{
    static const struct {
        const char *why;
        struct str in, out;
    } cases[] = {
        {"nothing", STR(""), STR("")},
        {"one statement", STR("hostname mx.example.org"), STR("[hostname][mx.example.org]")},
        {"comments", STR("# one\na b # two\n  # three\nc"), STR("[a][b] [c]")},
        {"a # inside a word", STR("a b#c"), STR("[a][b#c]")},
        {"a block on one line", STR("listen mx { address :25 }"), STR("[listen][mx]{[address][:25]}")},
        {"semicolons", STR("t { a b; c d; }; e"), STR("[t]{[a][b] [c][d]} [e]")},
        {"a tight end of a block", STR("t { a b;}"), STR("[t]{[a][b]}")},
        {"an empty block", STR("t {}"), STR("[t]{}")},
        {"blocks in blocks", STR("a { b { c }; d }\ne"), STR("[a]{[b]{[c]} [d]} [e]")},
        {"a line ends a statement", STR("t {\na b\nc\n}\n"), STR("[t]{[a][b] [c]}")},
        {"commas", STR("alias sales -> anna, bob,carol"), STR("[alias][sales][->][anna][bob][carol]")},
        {"a comma goes on", STR("a b,\n  # comment\n\n c, d\ne"), STR("[a][b][c][d] [e]")},
        {"placeholders", STR("d /var/{domain}/{local} }x"), STR("/etc/main.conf:1:25: this \"}\" closes nothing")},
        {"a placeholder at the end", STR("b { d /var/{domain}/{local} }"), STR("[b]{[d][/var/{domain}/{local}]}")},
        {"quotes", STR("a \"b c\" \"\" \"\\\"\\\\\\t\""), STR("[a][b c][][\"\\\t]")},
        {"a quoted brace", STR("a \"{\" \"}\""), STR("[a][{][}]")},
        {"CRLF line ends", STR("a b\r\nc\r\n"), STR("[a][b] [c]")},
        {"a byte order mark",
         STR("\xef\xbb\xbf"
             "a"),
         STR("[a]")},
        {"a variable cannot add words", STR("a x${HOST}y"), STR("[a][xmx; } \"xy]")},
        {"a variable in quotes", STR("a \"${HOST}\""), STR("[a][mx; } \"x]")},
        {"an unset variable", STR("a ${NOPE}"),
         STR("/etc/main.conf:1:3: the environment variable \"NOPE\" is not set")},
        {"an open variable", STR("a \"${NOPE\""),
         STR("/etc/main.conf:1:3: \"${\" begins the name of an environment variable: write ${NAME}")},
        {"no space before a block", STR("t mx{ a }"),
         STR("/etc/main.conf:1:5: a space is missing before \"{\" (a brace "
             "inside a word is part of the word)")},
        {"no space behind a block", STR("t { a}"),
         STR("/etc/main.conf:1:6: a space is missing before \"}\" (a brace "
             "inside a word is part of the word)")},
        {"an open placeholder", STR("a x{local y"),
         STR("/etc/main.conf:1:3: \"{\" in \"x{local\" is not closed in the same word")},
        {"an open quote", STR("a\nb \"c\nd\""),
         STR("/etc/main.conf:2:3: the quote that opens here is not closed on its line")},
        {"a tight quote", STR("a \"b\"c"), STR("/etc/main.conf:1:6: a space is missing behind the closing quote")},
        {"an unknown escape", STR("a \"\\x\""),
         STR("/etc/main.conf:1:3: in quotes a backslash stands before \" \\ n or t only")},
        {"an open block", STR("a {\n b {\n c }\n"),
         STR("/etc/main.conf:1:1: the block of \"a\" is not closed: \"}\" is missing")},
        {"a brace on its own line", STR("a\n{\n"),
         STR("/etc/main.conf:2:1: \"{\" must stand on the line of the statement whose block it opens")},
        {"a word behind a block", STR("a { b } c"),
         STR("/etc/main.conf:1:9: a new line or \";\" is missing behind the \"}\" before this")},
        {"a comma first", STR(", a"), STR("/etc/main.conf:1:1: a statement cannot begin with a comma")},
        {"a comma behind the name", STR("a, b"), STR("/etc/main.conf:1:2: a word is missing before this comma")},
        {"two commas", STR("a b,, c"), STR("/etc/main.conf:1:5: a word is missing before this comma")},
        {"a comma last", STR("a b,"), STR("/etc/main.conf:1:4: a word is missing behind this comma")},
        {"a NUL byte", STR("a b\0c"), STR("/etc/main.conf:1:3: the control character 0x00 cannot be part of a word")},
        {"columns count characters", STR("\xc3\xa4\xc3\xb6 \"x"),
         STR("/etc/main.conf:1:4: the quote that opens here is not closed on its line")},
        {"too deep", STR("a { a { a { a { a { a { a { a { a {"),
         STR("/etc/main.conf:1:35: blocks are nested more than 8 deep")},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char memory[400];
        struct text out = text_init(memory, sizeof memory);
        test_case(t, cases[i].why);
        parse_to_text(cases[i].in, &out);
        EXPECT_STR(t, text_str(&out), cases[i].out);
    }
}

/* Every end and every flipped byte: an error or a tree, never a read behind the end. */
static void
survives_every_cut(struct test *t)
{
    static const struct str whole = STR("hostname \"a\\tb\" ${HOST}\nlisten mx { address :25, \n[::1]:25; x { y } }\n"
                                        "include sub.conf d/*\nalias a -> b, c # d\ndeliver /x/{domain}/{local}\n");
    struct prng prng;
    char memory[4000];

    prng_seed(&prng, 7);
    for (size_t len = 0; len <= whole.len; len++) {
        struct text out = text_init(memory, sizeof memory);
        struct str edge = test_edge(str_slice(whole, 0, len));
        parse_to_text(edge, &out);
        test_edge_free(edge);
        EXPECT(t, len == 0 || out.len > 0);
    }
    for (size_t i = 0; i < 2000; i++) {
        char bytes[400];
        struct text out = text_init(memory, sizeof memory);
        memcpy(bytes, whole.ptr, whole.len);
        bytes[prng_below(&prng, whole.len)] = (char)prng_below(&prng, 256);
        bytes[prng_below(&prng, whole.len)] = "{}\";,\n#$\\ "[prng_below(&prng, 10)];
        struct str edge = test_edge(str_new(bytes, whole.len));
        parse_to_text(edge, &out);
        test_edge_free(edge);
        EXPECT(t, out.len > 0);
    }
}

static const struct conf_fake_file site[] = {
    { STR("/etc/main.conf"), STR("a\nb { include conf.d/* }\ninclude ./one.conf\nc\n") },
    { STR("/etc/conf.d/1"), STR("in 1\n") },
    { STR("/etc/conf.d/2"), STR("in 2\ninclude ../one.conf") },
    { STR("/etc/conf.d/../one.conf"), STR("up") },
    { STR("/etc/one.conf"), STR("one") },
    { STR("/passwd"), STR("anna:secret:1000\n\nbob\ncarol:secret") },
};

static void
includes(struct test *t)
{
    char memory[400];
    struct text out = text_init(memory, sizeof memory);
    struct conf_fixture f;

    conf_fixture_init(&f, site, sizeof site / sizeof *site);
    struct conf_node *tree = conf_parse(&f.bundle, &f.arena, &f.problems);
    put_tree(&out, tree);
    EXPECT_INT(t, f.problems.count, 0);
    EXPECT_STR(t, text_str(&out), S("[a] [b]{[in][1] [in][2] [up]} [one] [c]"));
    struct conf_where where = tree->next->children->next->words[1].where;
    EXPECT_STR(t, where.file->path, S("/etc/conf.d/2"));
    EXPECT_INT(t, where.line, 1);
    EXPECT_INT(t, where.column, 4);
    conf_fixture_done(&f);
}

static void
includes_that_cannot_be(struct test *t)
{
    static const struct conf_fake_file files[] = {
        { STR("/m"), STR("include l1\ninclude none\ninclude\ninclude none*\nb {\ninclude open }\ninclude */x a[1]") },
        { STR("/l1"), STR("include l2") },
        { STR("/l2"), STR("\n include l1") },
        { STR("/open"), STR("a {") },
    };
    static const struct str wanted[] = {
        STR("/l2:2:10: \"/l1\" would include itself"),
        STR("/m:2:9: \"/none\" cannot be read: not found"),
        STR("/m:3:1: include needs a file or a pattern"),
        STR("/m:4:9: warning: there is no file like \"/none*\""),
        STR("/open:1:1: the block of \"a\" is not closed: \"}\" is missing"),
        STR("/m:7:9: \"*\" and \"?\" stand for names of files only, behind the last \"/\""),
        STR("/m:7:13: \"/a[1]\" cannot be read: not found"),
    };
    struct conf_fixture f;

    conf_fixture_init(&f, files, sizeof files / sizeof *files);
    conf_parse(&f.bundle, &f.arena, &f.problems);
    EXPECT_INT(t, f.problems.count, sizeof wanted / sizeof *wanted);
    for (size_t i = 0; i < f.problems.count && i < sizeof wanted / sizeof *wanted; i++) {
        char memory[400];
        struct text out = text_init(memory, sizeof memory);
        conf_problem_put(&out, &f.problems.items[i]);
        EXPECT_STR(t, text_str(&out), wanted[i]);
    }
    conf_fixture_done(&f);
}

/* A role sees what the supervisor saw: the same tree from the bundle alone, and the same errors. */
static void
bundle_holds_all_that_was_asked(struct test *t)
{
    char memory[400], memory2[400];
    struct text before = text_init(memory, sizeof memory), after = text_init(memory2, sizeof memory2);
    unsigned char blob[4096];
    struct put p = put_init(blob, sizeof blob);
    struct conf_bundle copy;
    struct conf_fixture f;
    struct str bytes;

    conf_fixture_init(&f, site, sizeof site / sizeof *site);
    put_tree(&before, conf_parse(&f.bundle, &f.arena, &f.problems));
    EXPECT(t, conf_bundle_load(&f.bundle, S("/none"), &bytes).kind == ERR_NOT_FOUND);
    EXPECT_STR(t, conf_bundle_env(&f.bundle, S("HOST")), S("mx; } \"x"));
    EXPECT(t, !err_is(conf_bundle_load_names(&f.bundle, S("/passwd"), &bytes)));
    EXPECT_STR(t, bytes, S("anna\n\nbob\ncarol"));
    size_t loads = f.fake.loads;
    conf_bundle_put(&p, &f.bundle);
    EXPECT(t, !p.full);
    EXPECT_INT(t, p.len, conf_bundle_size(&f.bundle));
    EXPECT(t, str_find(put_str_so_far(&p), S("secret")) == p.len);
    struct take all = take_init(put_str_so_far(&p));
    EXPECT(t, conf_bundle_take(&all, &f.arena, &copy));
    EXPECT(t, take_end(&all));
    put_tree(&after, conf_parse(&copy, &f.arena, &f.problems));
    EXPECT_STR(t, text_str(&after), text_str(&before));
    EXPECT_STR(t, conf_bundle_env(&copy, S("HOST")), S("mx; } \"x"));
    EXPECT(t, conf_bundle_load(&copy, S("/none"), &bytes).kind == ERR_NOT_FOUND);
    EXPECT(t, conf_bundle_load(&copy, S("/other"), &bytes).kind == ERR_NOT_FOUND);
    EXPECT_INT(t, f.fake.loads, loads);
    EXPECT_INT(t, f.problems.count, 0);
    conf_bundle_done(&copy);
    for (size_t len = 0; len < p.len; len++) {
        struct str edge = test_edge(str_new(blob, len));
        struct take cut = take_init(edge);
        EXPECT(t, !conf_bundle_take(&cut, &f.arena, &copy));
        test_edge_free(edge);
    }
    conf_fixture_done(&f);
}

static void
keeps_twenty_errors(struct test *t)
{
    char memory[400], text[300];
    struct text out = text_init(memory, sizeof memory);
    struct conf_fixture f;

    memset(text, ',', sizeof text);
    for (size_t i = 1; i < sizeof text; i += 2)
        text[i] = '\n';
    struct conf_fake_file file = { STR("/m"), { text, sizeof text } };
    conf_fixture_init(&f, &file, 1);
    conf_parse(&f.bundle, &f.arena, &f.problems);
    EXPECT_INT(t, f.problems.errors, 150);
    EXPECT_INT(t, f.problems.count, LIMIT_CONF_PROBLEMS);
    conf_warn(&f.problems, (struct conf_where){ 0 }, "beep \a%s", "x");
    conf_problem_put(&out, &f.problems.items[LIMIT_CONF_PROBLEMS]);
    EXPECT_STR(t, text_str(&out), S("warning: beep ?x"));
    conf_fixture_done(&f);
}

static void
guesses(struct test *t)
{
    static const struct {
        const char *why;
        struct str word, best;
    } cases[] = {
        { "a letter missing", STR("mailbx"), STR("mailbox") },   { "two swapped", STR("ailas"), STR("alias") },
        { "case", STR("Deliver"), STR("deliver") },              { "far", STR("certificate"), { NULL, 0 } },
        { "short and far", STR("xy"), { NULL, 0 } },             { "empty", STR(""), { NULL, 0 } },
        { "one too many", STR("deliverr"), STR("deliver") },
    };
    static const struct str known[] = { STR("alias"), STR("mailbox"), STR("deliver") };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct conf_guess guess = { .word = cases[i].word };
        test_case(t, cases[i].why);
        for (size_t k = 0; k < sizeof known / sizeof *known; k++)
            conf_guess_offer(&guess, known[k]);
        struct str best = conf_guess_best(&guess);
        EXPECT(t, str_is_absent(best) == str_is_absent(cases[i].best));
        EXPECT(t, str_eq(best, cases[i].best));
    }
}

static void
sizes_times_rates(struct test *t)
{
    static const struct {
        const char *why;
        struct str in;
        bool size_ok, time_ok;
        uint64_t size;
        int64_t ns;
    } cases[] = {
        { "a bare number", STR("1000"), true, false, 1000, 0 },
        { "zero is both", STR("0"), true, true, 0, 0 },
        { "mebibytes", STR("50MiB"), true, false, 50 << 20, 0 },
        { "any case", STR("2gib"), true, false, UINT64_C(2) << 30, 0 },
        { "too large", STR("99999999999TiB"), false, false, 0, 0 },
        { "minutes", STR("5m"), false, true, 0, 5 * MINUTE },
        { "milliseconds, not minutes", STR("500ms"), false, true, 0, 500 * MILLISECOND },
        { "a sum", STR("1h30m"), false, true, 0, 90 * MINUTE },
        { "a sum in the wrong order", STR("30m1h"), false, false, 0, 0 },
        { "twice the same unit", STR("1m1m"), false, false, 0, 0 },
        { "too long", STR("99999999999w"), false, false, 0, 0 },
        { "an unknown unit", STR("5q"), false, false, 0, 0 },
        { "a sign", STR("-5m"), false, false, 0, 0 },
        { "nothing", STR(""), false, false, 0, 0 },
        { "no number", STR("MiB"), false, false, 0, 0 },
    };
    struct conf_rate rate;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint64_t size = 0;
        int64_t ns = 0;
        test_case(t, cases[i].why);
        EXPECT(t, conf_take_size(cases[i].in, &size) == cases[i].size_ok);
        EXPECT(t, size == cases[i].size);
        EXPECT(t, conf_take_time(cases[i].in, &ns) == cases[i].time_ok);
        EXPECT(t, ns == cases[i].ns);
    }
    test_case(t, "rates");
    EXPECT(t, conf_take_rate(S("100/h"), &rate) && rate.count == 100 && rate.per_ns == HOUR);
    EXPECT(t, !conf_take_rate(S("100"), &rate) && !conf_take_rate(S("0/h"), &rate) && !conf_take_rate(S("1/w"), &rate));
}

static void
addresses(struct test *t)
{
    struct address out[2];
    size_t count = 0;

    EXPECT(t, conf_take_addresses(S(":25"), out, &count) && count == 2);
    EXPECT(t, out[0].family == ADDRESS_IPV4 && out[0].port == 25 && out[1].family == ADDRESS_IPV6 && out[1].port == 25);
    EXPECT(t, conf_take_addresses(S("[2001:db8::25]:25"), out, &count) && count == 1);
    EXPECT(t, !conf_take_addresses(S("2001:db8::25:25"), out, &count));
    EXPECT(t, !conf_take_addresses(S("192.0.2.1"), out, &count));
    EXPECT(t, !conf_take_addresses(S(":65536"), out, &count));
    EXPECT(t, !conf_take_addresses(S(":"), out, &count));
    EXPECT(t, !conf_take_addresses(S("/run/socket"), out, &count));
}

static void
hops(struct test *t)
{
    static const struct {
        const char *why;
        struct str in;
        bool ok;
        uint8_t kind;
        uint16_t port;
        struct str host, path;
    } cases[] = {
        { "smtp", STR("smtp://10.0.0.9:2525"), true, CONF_HOP_SMTP, 2525, STR("10.0.0.9"), { NULL, 0 } },
        { "its port", STR("smtp://mx.example"), true, CONF_HOP_SMTP, 25, STR("mx.example"), { NULL, 0 } },
        { "smtps", STR("smtps://smtp.isp.example"), true, CONF_HOP_SMTPS, 465, STR("smtp.isp.example"), { NULL, 0 } },
        { "bare", STR("127.0.0.1:2600"), true, CONF_HOP_SMTP, 2600, STR("127.0.0.1"), { NULL, 0 } },
        { "a bare name", STR("mx.example"), true, CONF_HOP_SMTP, 25, STR("mx.example"), { NULL, 0 } },
        { "IPv6", STR("lmtp://[2001:db8::1]:24"), true, CONF_HOP_LMTP, 24, STR("2001:db8::1"), { NULL, 0 } },
        { "IPv6 without a port", STR("smtp://[::1]"), true, CONF_HOP_SMTP, 25, STR("::1"), { NULL, 0 } },
        { "a socket", STR("lmtp:/run/dovecot/lmtp"), true, CONF_HOP_LMTP, 0, { NULL, 0 }, STR("/run/dovecot/lmtp") },
        { "lmtp over TCP", STR("lmtp://host"), true, CONF_HOP_LMTP, 24, STR("host"), { NULL, 0 } },
        { "an unknown scheme", STR("http://host"), false, 0, 0, { NULL, 0 }, { NULL, 0 } },
        { "no host", STR("smtp://"), false, 0, 0, { NULL, 0 }, { NULL, 0 } },
        { "no port behind the colon", STR("smtp://h:"), false, 0, 0, { NULL, 0 }, { NULL, 0 } },
        { "port 0", STR("smtp://h:0"), false, 0, 0, { NULL, 0 }, { NULL, 0 } },
        { "a large port", STR("smtp://h:65536"), false, 0, 0, { NULL, 0 }, { NULL, 0 } },
        { "an open bracket", STR("smtp://[::1"), false, 0, 0, { NULL, 0 }, { NULL, 0 } },
        { "junk behind the bracket", STR("smtp://[::1]x"), false, 0, 0, { NULL, 0 }, { NULL, 0 } },
        { "not quite an address", STR("300.0.0.1"), false, 0, 0, { NULL, 0 }, { NULL, 0 } },
        { "IPv6 without brackets", STR("smtp://::1"), false, 0, 0, { NULL, 0 }, { NULL, 0 } },
        { "a path", STR("smtp://h/x"), false, 0, 0, { NULL, 0 }, { NULL, 0 } },
        { "only the scheme", STR("lmtp:"), false, 0, 0, { NULL, 0 }, { NULL, 0 } },
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct conf_hop hop = { 0 };
        struct str edge = test_edge(cases[i].in);
        test_case(t, cases[i].why);
        EXPECT(t, conf_take_hop(edge, &hop) == cases[i].ok);
        EXPECT_INT(t, hop.kind, cases[i].kind);
        EXPECT_INT(t, hop.port, cases[i].port);
        EXPECT(t, str_eq(hop.host, cases[i].host));
        EXPECT(t, str_eq(hop.path, cases[i].path));
        test_edge_free(edge);
    }
}

TEST_MAIN({ "trees", trees }, { "survives every cut", survives_every_cut }, { "includes", includes },
          { "includes that cannot be", includes_that_cannot_be },
          { "bundle holds all that was asked", bundle_holds_all_that_was_asked },
          { "keeps twenty errors", keeps_twenty_errors }, { "guesses", guesses },
          { "sizes, times, rates", sizes_times_rates }, { "addresses", addresses }, { "hops", hops })
