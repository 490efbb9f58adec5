/* Paths, domains and UTF-8: our own cases, and the public ones of is_email and Postfix. */
#include "message/path.h"

#include "base/limits.h"
#include "base/test.h"
#include "message/domain.h"
#include "message/utf8.h"

#include <stdio.h>

static void
takes_paths(struct test *t)
{
    static const struct { const char *why; struct str in; bool ok; struct str local, domain, rest, text; } cases[] = {
        { "null sender",            STR("<>"),                     true, STR(""), STR(""), STR(""), STR("") },
        { "parameters stay",        STR("<a@b.ex> SIZE=1"),        true, STR("a"), STR("b.ex"), STR(" SIZE=1"),
          STR("a@b.ex") },
        { "space after the colon",  STR(" <a@b.ex>"),              true, STR("a"), STR("b.ex"), STR(""),
          STR("a@b.ex") },
        { "source route drops",     STR("<@x.example:a@b.ex>"),    true, STR("a"), STR("b.ex"), STR(""),
          STR("a@b.ex") },
        { "long route drops",       STR("<@x.ex,@[192.0.2.1]:a@b.ex>"), true, STR("a"), STR("b.ex"), STR(""),
          STR("a@b.ex") },
        { "route without mailbox",  STR("<@x.example:>"),          false },
        { "route without colon",    STR("<@x.example>"),           false },
        { "route of nothing",       STR("<@:a@b.ex>"),             false },
        { "quoted space",           STR("<\"a b\"@c.example>"),    true, STR("a b"), STR("c.example"), STR(""),
          STR("\"a b\"@c.example") },
        { "quotes not needed",      STR("<\"ab\"@c.example>"),     true, STR("ab"), STR("c.example"), STR(""),
          STR("ab@c.example") },
        { "quoted pairs",           STR("<\"a\\\"\\\\\\b\"@c.ex>"), true, STR("a\"\\b"), STR("c.ex"), STR(""),
          STR("\"a\\\"\\\\b\"@c.ex") },
        { "quoted at and bracket",  STR("<\"a@b>\"@c.ex>"),        true, STR("a@b>"), STR("c.ex"), STR(""),
          STR("\"a@b>\"@c.ex") },
        { "quoted path of files",   STR("<\"../../x\"@c.ex>"),     true, STR("../../x"), STR("c.ex"), STR(""),
          STR("\"../../x\"@c.ex") },
        { "empty local part",       STR("<\"\"@c.ex>"),            true, STR(""), STR("c.ex"), STR(""),
          STR("\"\"@c.ex") },
        { "dots of a carrier",      STR("<a..b.@c.ex>"),           true, STR("a..b."), STR("c.ex"), STR(""),
          STR("\"a..b.\"@c.ex") },
        { "percent and bang",       STR("<a%b!c@d.ex>"),           true, STR("a%b!c"), STR("d.ex"), STR(""),
          STR("a%b!c@d.ex") },
        { "postmaster",             STR("<PostMaster>"),           true, STR("PostMaster"), STR(""), STR(""),
          STR("PostMaster") },
        { "another bare name",      STR("<root>"),                 false },
        { "no brackets",            STR("a@b.ex BODY=7BIT"),       true, STR("a"), STR("b.ex"), STR(" BODY=7BIT"),
          STR("a@b.ex") },
        { "no closing bracket",     STR("<a@b.example"),           false },
        { "no opening bracket",     STR("a@b.example>"),           false },
        { "text behind",            STR("<a@b.ex>x"),              false },
        { "two at signs",           STR("<a@b@c.ex>"),             false },
        { "space within",           STR("<a @b.ex>"),              false },
        { "space before",           STR("< a@b.ex>"),              false },
        { "comment",                STR("<a(x)@b.ex>"),            false },
        { "line end in quotes",     STR("<\"a\r\nb\"@c.ex>"),      false },
        { "NUL",                    STR("<a\0b@c.ex>"),            false },
        { "NUL in quotes",          STR("<\"a\0b\"@c.ex>"),        false },
        { "no local part",          STR("<@b.ex>"),                false },
        { "no domain",              STR("<a@>"),                   false },
        { "only an at sign",        STR("<@>"),                    false },
        { "nothing",                STR(""),                       false },
        { "underscore",             STR("<a@b_c._d.ex>"),          true, STR("a"), STR("b_c._d.ex"), STR(""),
          STR("a@b_c._d.ex") },
        { "trailing dot",           STR("<a@B.Ex.>"),              true, STR("a"), STR("B.Ex"), STR(""),
          STR("a@b.ex") },
        { "two trailing dots",      STR("<a@b.ex..>"),             false },
        { "IPv4 literal",           STR("<a@[192.0.2.1]>"),        true, STR("a"), STR("[192.0.2.1]"), STR(""),
          STR("a@[192.0.2.1]") },
        { "IPv6 literal",           STR("<a@[IPv6:2001:DB8::1]>"), true, STR("a"), STR("[IPv6:2001:DB8::1]"), STR(""),
          STR("a@[ipv6:2001:db8::1]") },
        { "IPv6 without its tag",   STR("<a@[2001:db8::1]>"),      false },
        { "IPv4 with octal",        STR("<a@[192.0.2.010]>"),      false },
        { "another tag",            STR("<a@[x400:c=no]>"),        false },
        { "UTF-8",                  STR("<\xc3\xa4@b\xc3\xbc.ex>"), true, STR("\xc3\xa4"), STR("b\xc3\xbc.ex"),
          STR(""), STR("\xc3\xa4@b\xc3\xbc.ex") },
        { "UTF-8 in quotes",        STR("<\"\xc3\xa4 b\"@c.ex>"),  true, STR("\xc3\xa4 b"), STR("c.ex"), STR(""),
          STR("\"\xc3\xa4 b\"@c.ex") },
        { "a control character in UTF-8", STR("<a\xc2\x9b@b.ex>"),    false },
        { "and in quotes",          STR("<\"\xc2\x85\"@b.ex>"),       false },
        { "and in the domain",      STR("<a@b\xc2\x9b.ex>"),           false },
        { "the first behind them",  STR("<\xc2\xa0@b.ex>"),            true, STR("\xc2\xa0"), STR("b.ex"), STR(""),
          STR("\xc2\xa0@b.ex") },
        { "UTF-8 cut short",        STR("<\xc3@b.ex>"),            false },
        { "UTF-8 too long a form",  STR("<\xc0\xaf@b.ex>"),        false },
        { "UTF-8 surrogate",        STR("<a@\xed\xa0\x80.ex>"),    false },
    };
    struct mem mem = mem_libc();
    struct arena arena;

    arena_init(&arena, &mem, 4096, 1 << 20);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct str in = test_edge(cases[i].in), rest = in;
        struct path path;
        test_case(t, cases[i].why);
        bool ok = path_take(&rest, &arena, &path);
        EXPECT(t, ok == cases[i].ok);
        EXPECT_STR(t, rest, ok ? cases[i].rest : in);
        if (ok && cases[i].ok) {
            EXPECT_STR(t, path.local, cases[i].local);
            EXPECT_STR(t, path.domain, cases[i].domain);
            EXPECT_STR(t, path_text(path, &arena), cases[i].text);
        }
        test_edge_free(in);
        for (size_t cut = 0; cut < cases[i].in.len; cut++) {
            struct str piece = test_edge(str_slice(cases[i].in, 0, cut));
            rest = piece;
            if (path_take(&rest, &arena, &path)) /* what was taken can be put, and is taken again as the same */
                EXPECT(t, path_text(path, &arena).len <= piece.len + 2);
            test_edge_free(piece);
        }
        arena_reset(&arena);
    }
    arena_done(&arena);
}

/* What we put on the wire, the next hop reads as what we had. */
static void
put_and_taken_again(struct test *t)
{
    struct mem mem = mem_libc();
    struct arena arena;

    arena_init(&arena, &mem, 4096, 1 << 20);
    for (int a = ' '; a < 0x7f; a++)
        for (int b = ' '; b < 0x7f; b += 3) {
            char local[2] = { (char)a, (char)b };
            struct path path = { str_new(local, 2), S("c.ex") }, back;
            struct str wire = arena_join(&arena, arena_join(&arena, S("<"), path_text(path, &arena)), S(">"));
            EXPECT(t, path_take(&wire, &arena, &back) && path_eq(path, back) && wire.len == 0);
            arena_reset(&arena);
        }
    char longest[LIMIT_COMMAND_LINE - 10];
    struct path back;
    for (size_t i = 0; i < sizeof longest; i++)
        longest[i] = 'x';
    longest[sizeof longest - 3] = '@';
    struct str wire = str_new(longest, sizeof longest);
    EXPECT(t, path_parse(wire, &arena, &back) && back.local.len == sizeof longest - 3);
    EXPECT(t, path_parse(S("root"), &arena, &back) && back.domain.len == 0);
    EXPECT(t, path_parse(S("<a@b.ex>"), &arena, &back) && str_eq(back.domain, S("b.ex")));
    EXPECT(t, !path_parse(S("a@b.ex c@d.ex"), &arena, &back));
    EXPECT(t, path_eq((struct path){ S("a"), S("B.ex") }, (struct path){ S("a"), S("b.EX") }));
    EXPECT(t, !path_eq((struct path){ S("A"), S("b.ex") }, (struct path){ S("a"), S("b.ex") }));
    arena_done(&arena);
}

static void
splits_details(struct test *t)
{
    static const struct { const char *why; struct str local, delimiters; bool ok; struct str user, detail; } cases[] = {
        { "Postfix strip_addr foo-ext",     STR("foo-ext"), STR("-"), true, STR("foo"), STR("ext") },
        { "Postfix strip_addr foo+ext",     STR("foo+ext"), STR("-+"), true, STR("foo"), STR("ext") },
        { "Postfix strip_addr foo bar+ext", STR("foo bar+ext"), STR("+"), true, STR("foo bar"), STR("ext") },
        { "Postfix with another delimiter", STR("foo-ext"), STR("+"), false },
        { "the first one counts",           STR("a+b+c"), STR("+"), true, STR("a"), STR("b+c") },
        { "begins with it",                 STR("+b"), STR("+"), false },
        { "ends with it",                   STR("a+"), STR("+"), false },
        { "no delimiters",                  STR("a+b"), STR(""), false },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct str user = { 0 }, detail = { 0 };
        test_case(t, cases[i].why);
        EXPECT(t, path_split_detail(cases[i].local, cases[i].delimiters, &user, &detail) == cases[i].ok);
        EXPECT_STR(t, user, cases[i].user);
        EXPECT_STR(t, detail, cases[i].detail);
    }
}

static void
domains_to_ascii(struct test *t)
{
    static const struct { const char *why; struct str in, ascii; } cases[] = {
        { "ASCII is lowered",   STR("Example.ORG"), STR("example.org") },
        { "umlaut",             STR("B\xc3\xbc" "cher.example"), STR("xn--bcher-kva.example") },
        { "decomposed umlaut",  STR("bu\xcc\x88" "cher.example"), STR("xn--bcher-kva.example") },
        { "sharp s stays",      STR("stra\xc3\x9f" "e.example"), STR("xn--strae-oqa.example") },
        { "A-label",            STR("xn--bcher-kva.example"), STR("xn--bcher-kva.example") },
        { "underscore",         STR("_b\xc3\xbc.example"), STR("xn--_b-yka.example") },
        { "literal",            STR("[192.0.2.1]"), STR("[192.0.2.1]") },
        { "not IDNA",           STR("a\xe2\x80\x8b" "\xe2\x9d\xa4.example"), { 0 } },
        { "not UTF-8",          STR("a\xff.example"), { 0 } },
    };
    struct mem mem = mem_libc();
    struct arena arena;

    arena_init(&arena, &mem, 4096, 1 << 20);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        test_case(t, cases[i].why);
        EXPECT_STR(t, domain_to_ascii(cases[i].in, &arena), cases[i].ascii);
    }
    arena_done(&arena);
}

static void
utf8_is_strict(struct test *t)
{
    char memory[8];
    uint32_t back;

    for (uint32_t point = 0; point <= 0x10ffff; point += point < 0x900 ? 1 : 37) {
        if (point >= 0xd800 && point < 0xe000)
            continue;
        struct text text = text_init(memory, sizeof memory);
        utf8_put(&text, point);
        struct str s = text_str(&text);
        EXPECT(t, utf8_take(&s, &back) && back == point && s.len == 0);
    }
    EXPECT(t, !utf8_is_valid(S("\xf4\x90\x80\x80")));
    EXPECT(t, !utf8_is_valid(S("\xf0\x8f\xbf\xbf")));
    EXPECT(t, !utf8_is_valid(S("\x80")));
    struct text text = text_init(memory, sizeof memory);
    utf8_put_visible(&text, S("a\x1b\xc2\x9b\xc3\xa4\xc3"));
    EXPECT_STR(t, text_str(&text), S("a??\xc3\xa4?"));
    EXPECT_STR(t, utf8_cut(S("a\xc3\xa4"), 2), S("a"));
    EXPECT_STR(t, utf8_cut(S("a\xc3\xa4"), 3), S("a\xc3\xa4"));
}

/* The text between <tag> and </tag>, with entities and the "control pictures" that stand for control characters. */
static struct str
element(struct str xml, struct str open, struct str close, struct text *out)
{
    struct str s = str_from(xml, str_find(xml, open));
    s = str_from(s, open.len);
    s = str_slice(s, 0, str_find(s, close));
    out->len = 0;
    while (s.len) {
        uint32_t point = 0;
        uint64_t number;
        if (str_take(&s, S("&amp;")))
            text_put_byte(out, '&');
        else if (str_take(&s, S("&lt;")))
            text_put_byte(out, '<');
        else if (str_take(&s, S("&gt;")))
            text_put_byte(out, '>');
        else if (str_take(&s, S("&quot;")))
            text_put_byte(out, '"');
        else if (str_take(&s, S("&#x"))) {
            for (number = 0; byte_hex(s.ptr[0]) >= 0; s = str_from(s, 1))
                number = number << 4 | (uint64_t)byte_hex(s.ptr[0]);
            str_take_byte(&s, ';');
            point = (uint32_t)number;
        } else if (str_take(&s, S("&#")) && str_take_u64(&s, &number)) {
            str_take_byte(&s, ';');
            point = (uint32_t)number;
        } else if (!utf8_take(&s, &point)) {
            s = str_from(s, 1);
            point = '?';
        }
        if (point >= 0x2400 && point <= 0x2420)
            text_put_byte(out, (char)(point - 0x2400));
        else if (point)
            utf8_put(out, point);
    }
    return text_str(out);
}

/* Where we take what is_email calls wrong for SMTP, or the other way round. */
static const struct { int id; const char *because; } deviations[] = {
    { 15,
      "a local part that begins with a dot: carriers gave such out, Postfix and Exim take them; we send it quoted" },
    { 16, "a local part that ends with a dot: the same" },
    { 26,
      "65 bytes of local part: RFC 5321 4.5.3.1.1 says what a receiver must take at least; VERP and SRS need more" },
    { 59, "65 bytes of local part, quoted: the same" },
    { 60, "65 bytes of local part, with a quoted pair: the same" },
    { 35, "a trailing dot of the domain: taken and dropped, as the name it stands for in DNS" },
    { 39, "a path of 255 bytes: RFC 5321 4.5.3.1.3 asks for at least 256 with brackets" },
    { 40, "a domain of 255 bytes, and so a path of 257: the same, and 4.5.3.1.2 asks for 255" },
};

static void
is_email(struct test *t)
{
    struct str file = test_shared_file(t, "conformance/address-isemail/tests.xml");
    struct mem mem = mem_libc();
    struct arena arena;
    size_t rows = 0, passed = 0, deviating = 0;

    if (str_is_absent(file))
        return;
    arena_init(&arena, &mem, 4096, 1 << 20);
    for (struct str rest = file; str_find(rest, S("<test id=\"")) < rest.len;) {
        char address_memory[1024], category_memory[64], id_memory[16], why[1100];
        struct text address_text = text_init(address_memory, sizeof address_memory);
        struct text category_text = text_init(category_memory, sizeof category_memory);
        struct text id_text = text_init(id_memory, sizeof id_memory);
        uint64_t id;

        rest = str_from(rest, str_find(rest, S("<test id=\"")));
        size_t end = str_find(rest, S("</test>"));
        struct str test = str_slice(rest, 0, end);
        rest = str_from(rest, end);
        EXPECT(t, str_to_u64(element(test, S("<test id=\""), S("\""), &id_text), &id));
        struct str category = element(test, S("<category>"), S("</category>"), &category_text);
        bool has_address = str_find(test, S("<address>")) < test.len;
        struct str address = has_address ? element(test, S("<address>"), S("</address>"), &address_text) : S("");

        /* Usable unmodified in SMTP: its first categories, and an IPv6 form that RFC 4291 has. */
        bool want = str_eq(category, S("ISEMAIL_VALID_CATEGORY")) || str_eq(category, S("ISEMAIL_DNSWARN")) ||
                    str_eq(category, S("ISEMAIL_RFC5321")) ||
                    str_find(test, S("ISEMAIL_RFC5321_IPV6DEPRECATED")) < test.len;
        const char *because = NULL;
        for (size_t i = 0; i < sizeof deviations / sizeof *deviations; i++)
            if (deviations[i].id == (int)id)
                because = deviations[i].because;
        struct str in = arena_join(&arena, arena_join(&arena, S("<"), address), S(">")), left = in;
        struct path path;
        bool got = address.len > 0 && path_take(&left, &arena, &path) && left.len == 0;
        snprintf(why, sizeof why, "row %d, %.*s", (int)id, STR_ARG(address));
        test_case(t, why);
        bool ok = EXPECT(t, got == (want != (because != NULL)));
        rows++;
        passed += ok && !because;
        deviating += ok && because;
        if (because)
            printf("# row %d deviates: %s\n", (int)id, because);
        arena_reset(&arena);
    }
    printf("# is_email: %zu of %zu rows as there, %zu deviate with a reason\n", passed, rows, deviating);
    test_case(t, "all rows");
    EXPECT_INT(t, passed + deviating, rows);
    EXPECT(t, rows == 164);
    arena_done(&arena);
    test_file_free(file);
}

/* valid_hostname.ref: a name is valid if no warning of valid_hostname's follows it; an address likewise. */
static void
postfix_hostnames(struct test *t)
{
    struct str in = test_shared_file(t, "conformance/unit-postfix/util/valid_hostname.in");
    struct str ref = test_shared_file(t, "conformance/unit-postfix/util/valid_hostname.ref");
    size_t rows = 0, passed = 0, deviating = 0;

    if (str_is_absent(in) || str_is_absent(ref))
        return;
    for (struct str lines = in, answers = ref; lines.len; rows++) {
        struct str name = str_cut(&lines, '\n');
        bool want_name = true, want_ip = true;
        struct address ip;
        char why[256];

        str_cut(&answers, '\n'); /* testing: "..." */
        while (str_starts(answers, S("./valid_hostname: warning: "))) {
            struct str warning = str_cut(&answers, '\n');
            if (str_find(warning, S("warning: valid_hostname: ")) < warning.len)
                want_name = false;
            else
                want_ip = false;
        }
        snprintf(why, sizeof why, "%.*s", STR_ARG(name));
        test_case(t, why);
        /* Postfix lets "*" stand for a label: with us that belongs to the configuration's patterns. It takes five
         * groups and an IPv4 address for a whole IPv6 address: RFC 4291 section 2.2 wants six. */
        bool odd_name = str_eq(name, S("*.foo.bar")), odd_ip = str_eq(name, S("a:a:a:a:a:1.2.3.4"));
        bool deviates = odd_name || odd_ip;
        bool got_ip = address_from_ip(name, &ip);
        /* It refuses 0.x.x.x as an address where we do so as a target: address_is_forbidden_target(). */
        if (got_ip && ip.family == ADDRESS_IPV4 && ip.ip[0] == 0 && !str_eq(name, S("0.0.0.0")))
            got_ip = false;
        bool ok = EXPECT(t, domain_is_hostname(name) == (want_name && !odd_name));
        ok = EXPECT(t, str_has_byte(name, '*') || got_ip == (want_ip && !odd_ip)) && ok;
        passed += ok && !deviates;
        deviating += ok && deviates;
    }
    printf("# valid_hostname: %zu of %zu, %zu deviate with a reason\n", passed, rows, deviating);
    test_case(t, "all rows");
    EXPECT_INT(t, passed + deviating, rows);
    test_file_free(in);
    test_file_free(ref);
}

/* smtpd_token.in by meaning: Postfix splits the line into tokens, we say which of them is a path. */
static void
postfix_tokens(struct test *t)
{
    static const struct { struct str text; const char *why; } cases[] = {
        { STR("wietse@porcupine.org"),          "plain" },
        { STR("wietse venema@porcupine.org"),   "quoted" },
        { STR("wietse@porcupine.org"),          "no brackets" },
        { { 0 },                                "spaces around the at sign are RFC 5322, not 5321" },
        { { 0 },                                "comments are RFC 5322, not 5321" },
        { { 0 },                                "a display name is RFC 5322, not 5321" },
        { { 0 },                                "nested comments" },
        { STR("wietse venema@porcupine.org"),   "quoted without brackets" },
        { { 0 },                                "a backslash outside of quotes is no RFC 5321 syntax" },
        { { 0 },                                "unclosed quote" },
        { { 0 },                                "unclosed literal" },
        { { 0 },                                "quote in a literal" },
    };
    struct str file = test_shared_file(t, "conformance/unit-postfix/smtpd/smtpd_token.in");
    struct mem mem = mem_libc();
    struct arena arena;
    size_t row = 0, passed = 0;

    if (str_is_absent(file))
        return;
    arena_init(&arena, &mem, 4096, 1 << 20);
    for (struct str rest = file; rest.len && row < sizeof cases / sizeof *cases; row++) {
        struct str line = str_cut(&rest, '\n');
        struct path path = { 0 };
        test_case(t, cases[row].why);
        str_cut(&line, ':');
        bool ok = path_take(&line, &arena, &path) && line.len == 0;
        struct str got = arena_join(&arena, arena_join(&arena, path.local, S("@")), path.domain);
        passed += EXPECT(t, ok != str_is_absent(cases[row].text) && (!ok || str_eq(got, cases[row].text)));
    }
    printf("# smtpd_token: %zu of %zu\n", passed, row);
    EXPECT(t, row == sizeof cases / sizeof *cases);
    arena_done(&arena);
    test_file_free(file);
}

/* quote_822_local.ref: the last "@" divides, what stands before it is quoted where it must be. */
static void
postfix_quotes(struct test *t)
{
    struct mem mem = mem_libc();
    struct arena arena;
    struct path path;
    size_t passed = 0;

    arena_init(&arena, &mem, 4096, 1 << 20);
    passed += EXPECT_STR(t, path_text((struct path){ S("a@b@c"), S("d") }, &arena), S("\"a@b@c\"@d"));
    passed += EXPECT_STR(t, path_text((struct path){ S("a@b@c@d"), S("") }, &arena), S("\"a@b@c@d\""));
    passed += EXPECT(t, path_parse(S("\"a@b@c\"@d"), &arena, &path) && str_eq(path.local, S("a@b@c")));
    passed += EXPECT(t, path_parse(S("\"a@b@c\""), &arena, &path) && str_eq(path.local, S("a@b@c")));
    /* Postfix unquotes "a@b@c"@d@e too; with us a second "@" is never guessed at. */
    passed += EXPECT(t, !path_parse(S("\"a@b@c\"@d@e"), &arena, &path));
    /* The empty local part is quoted where it stands before a domain; alone it is the null path, which is empty. */
    passed += EXPECT_STR(t, path_text((struct path){ S(""), S("d") }, &arena), S("\"\"@d"));
    printf("# quote_822_local: %zu of 6, one of them deviates with a reason\n", passed);
    arena_done(&arena);
}

TEST_MAIN({ "takes paths", takes_paths }, { "put and taken again", put_and_taken_again },
          { "splits details", splits_details }, { "domains to ASCII", domains_to_ascii },
          { "UTF-8 is strict", utf8_is_strict }, { "is_email", is_email }, { "Postfix host names", postfix_hostnames },
          { "Postfix tokens", postfix_tokens }, { "Postfix quoting", postfix_quotes })
