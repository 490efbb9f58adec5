/* Who lives here: RCPT, VRFY, EXPN and routes from small configurations, and forty ways that are no way to relay. */
#include "base/conf_fake.h"
#include "base/limits.h"
#include "base/test.h"
#include "policy/directory.h"

#include <string.h>

static const struct conf_fake_file site_files[] = {
    { STR("/etc/m.conf"), STR("domain example.org example.net {\n"
                              "    mailbox anna Bob \"quoted name\" \"\xc3\xa4nne\"; mailbox file mailboxes\n"
                              "    subaddress +-\n"
                              "    alias postmaster abuse -> anna\n"
                              "    alias sales -> anna, bob, carol@elsewhere.example, ANNA\n"
                              "    alias bob -> bob, bob@elsewhere.example      # a copy\n"
                              "    alias list-dev -> include:dev.list\n"
                              "    alias owner-list-dev -> anna\n"
                              "    alias all -> list-dev, sales\n"
                              "    alias round -> trip; alias trip -> round, anna\n"
                              "    alias one -> two; alias two -> three; alias three -> dave@example.net\n"
                              "    forward old -> new@partner.example reply 251\n"
                              "    forward gone -> new@partner.example reply 551\n"
                              "    forward silent -> new@partner.example\n"
                              "    deliver maildir /var/mail/{domain}/{local} user mail quota 1GiB\n"
                              "}\n"
                              "domain old.example { same-as example.org }\n"
                              "domain catch.example { mailbox zoe; catch-all -> zoe; deliver maildir m/{local} }\n"
                              "domain gate.example { recipients verify; relay via smtp://10.0.0.5 }\n"
                              "domain any.example { recipients any; relay mx; alias info -> anna@example.org }\n"
                              "domain listed.example { recipients file listed; relay mx; subaddress + }\n"
                              "domain b\xc3\xbc" "cher.example { mailbox eva; deliver lmtp:/run/lmtp }\n"
                              "domain lmtp.example { recipients verify; deliver lmtp://[::1]:24 }\n") },
    { STR("/etc/mailboxes"), STR("# ours\ncarol # since May\n\n dave@example.org\r\n") },
    { STR("/etc/dev.list"), STR("anna\nx@far.example\n\"y z\"@far.example\nX@FAR.example\nnobody\n") },
    { STR("/etc/listed"), STR("eve\nfrank@listed.example\nodd%name\n") },
};

struct fixture {
    struct conf_fixture conf;
    struct arena answers;
    struct address ours;
    struct directory *d;
};

static void
fixture_init(struct fixture *f, const struct conf_fake_file *files, size_t count)
{
    struct conf_fixture *c = &f->conf;

    conf_fixture_init(c, files, count);
    address_from_ip(S("192.0.2.25"), &f->ours);
    f->d = directory_new(&c->mem, 42);
    struct setting_reader reader = { &c->bundle, &c->problems, &c->arena, NULL };
    for (struct conf_node *n = conf_parse(&c->bundle, &c->arena, &c->problems); n; n = n->next)
        directory_read_domain(&reader, f->d, n);
    directory_finish(&reader, f->d, S("mx.example.org"), &f->ours, 1);
    arena_init(&f->answers, &c->mem, 4096, directory_answer_bytes(f->d));
}

static void
fixture_done(struct fixture *f)
{
    directory_free(f->d);
    arena_done(&f->answers);
    conf_fixture_done(&f->conf);
}

static const char *const answer_names[] = {
    [DIRECTORY_ACCEPT] = "accept",
    [DIRECTORY_FORWARD] = "251",
    [DIRECTORY_RELAY] = "relay",
    [DIRECTORY_VERIFY] = "verify",
    [DIRECTORY_UNKNOWN] = "unknown",
    [DIRECTORY_MOVED] = "551",
    [DIRECTORY_NOT_RELAYED] = "no relay",
    [DIRECTORY_UNQUALIFIED] = "unqualified",
    [DIRECTORY_LOOP] = "loop",
    [DIRECTORY_TOO_MANY] = "too many",
    [DIRECTORY_AMBIGUOUS] = "ambiguous",
};

/* "accept given:anna@example.org", "accept expanded:... member:...(by owner@...)". */
static void
put_verdict(struct text *t, const struct directory_verdict *v)
{
    static const char *const origins[] = { "given", "alias", "member", "expanded" };

    text_putf(t, "%s", answer_names[v->answer]);
    if (!str_is_absent(v->elsewhere))
        text_putf(t, " <%.*s>", STR_ARG(v->elsewhere));
    for (size_t i = 0; i < v->count; i++) {
        text_putf(t, " %s:%.*s", origins[v->recipients[i].origin], STR_ARG(v->recipients[i].address));
        if (!str_is_absent(v->recipients[i].reverse_path))
            text_putf(t, "(by %.*s)", STR_ARG(v->recipients[i].reverse_path));
    }
}

/* The verdict on "<...>" as it stands behind RCPT TO:. "bad path": it does not come that far. */
static void
lookup(struct fixture *f, struct str path, bool trusted, struct text *out)
{
    struct directory_query q = { .trusted = trusted };
    struct directory_verdict v;
    struct address local;
    struct str rest = path;

    address_parse(S("[::ffff:198.51.100.7]:25"), &local);
    q.local = &local;
    arena_reset(&f->answers);
    if (!path_take(&rest, &f->answers, &q.path) || rest.len > 0) {
        text_put(out, S("bad path"));
        return;
    }
    directory_lookup(f->d, &q, &f->answers, &v);
    put_verdict(out, &v);
}

struct lookup_case {
    const char *why;
    struct str path, out;
    bool trusted;
};

static const struct lookup_case cases[] = {
    { "a mailbox", STR("<anna@example.org>"), STR("accept given:anna@example.org") },
    { "names have no case", STR("<ANNA@Example.ORG>"), STR("accept given:anna@example.org") },
    { "the second domain", STR("<anna@example.net>"), STR("accept given:anna@example.net") },
    { "configured in capitals", STR("<bob@example.org>"),
      STR("accept expanded:bob@example.org member:Bob@example.org member:bob@elsewhere.example") },
    { "from a file", STR("<carol@example.org>"), STR("accept given:carol@example.org") },
    { "from a file with its domain", STR("<dave@example.org>"), STR("accept given:dave@example.org") },
    { "a quoted name", STR("<\"Quoted Name\"@example.org>"), STR("accept given:\"quoted name\"@example.org") },
    { "a name in UTF-8", STR("<\xc3\xa4nne@example.org>"), STR("accept given:\xc3\xa4nne@example.org") },
    { "needless quotes", STR("<\"anna\"@example.org>"), STR("accept given:anna@example.org") },
    { "nobody", STR("<nobody@example.org>"), STR("unknown") },
    { "a subaddress", STR("<anna+lists@example.org>"), STR("accept alias:anna@example.org") },
    { "another delimiter", STR("<anna-x@example.org>"), STR("accept alias:anna@example.org") },
    { "of an alias", STR("<abuse+x@example.org>"), STR("accept alias:anna@example.org") },
    { "a whole name wins over a subaddress", STR("<list-dev@example.org>"),
      STR("accept expanded:list-dev@example.org member:anna@example.org(by owner-list-dev@example.org) "
          "member:x@far.example(by owner-list-dev@example.org) "
          "member:\"y z\"@far.example(by owner-list-dev@example.org) "
          "member:X@far.example(by owner-list-dev@example.org) "
          "member:nobody@example.org(by owner-list-dev@example.org)") },
    { "only a delimiter", STR("<+x@example.org>"), STR("unknown") },
    { "an alias to one", STR("<abuse@example.org>"), STR("accept alias:anna@example.org") },
    { "in the domain it was named", STR("<abuse@example.net>"), STR("accept alias:anna@example.net") },
    { "an alias to several, twice anna, one elsewhere", STR("<sales@example.org>"),
      STR("accept expanded:sales@example.org member:anna@example.org member:carol@elsewhere.example "
          "member:Bob@example.org member:bob@elsewhere.example") },
    { "a list in an alias keeps its owner", STR("<all@example.net>"),
      STR("accept expanded:all@example.net member:anna@example.net(by owner-list-dev@example.net) "
          "member:x@far.example(by owner-list-dev@example.net) "
          "member:\"y z\"@far.example(by owner-list-dev@example.net) "
          "member:X@far.example(by owner-list-dev@example.net) "
          "member:nobody@example.net(by owner-list-dev@example.net) member:carol@elsewhere.example "
          "member:Bob@example.net member:bob@elsewhere.example") },
    { "a loop ends", STR("<round@example.org>"), STR("accept alias:anna@example.org") },
    { "three steps, into the other domain", STR("<one@example.org>"), STR("accept alias:dave@example.net") },
    { "forward and say so", STR("<old@example.org>"), STR("251 <new@partner.example> alias:new@partner.example") },
    { "only say so", STR("<gone@example.org>"), STR("551 <new@partner.example>") },
    { "forward", STR("<silent@example.org>"), STR("accept alias:new@partner.example") },
    { "the same under another name", STR("<anna@old.example>"), STR("accept alias:anna@example.org") },
    { "unknown under another name", STR("<nobody@old.example>"), STR("unknown") },
    { "catch-all", STR("<what.ever@catch.example>"), STR("accept alias:zoe@catch.example") },
    { "catch-all leaves a mailbox alone", STR("<zoe@catch.example>"), STR("accept given:zoe@catch.example") },
    { "a gateway asks", STR("<x+y@gate.example>"), STR("verify given:x+y@gate.example") },
    { "a backup takes all", STR("<x@any.example>"), STR("accept given:x@any.example") },
    { "a backup's alias", STR("<info@any.example>"), STR("accept alias:anna@example.org") },
    { "listed", STR("<eve@listed.example>"), STR("accept given:eve@listed.example") },
    { "listed with its domain", STR("<Frank@listed.example>"), STR("accept given:frank@listed.example") },
    { "listed, with a subaddress", STR("<eve+x@listed.example>"), STR("accept alias:eve@listed.example") },
    { "listed, odd as it is", STR("<odd%name@listed.example>"), STR("accept given:odd%name@listed.example") },
    { "not listed", STR("<mallory@listed.example>"), STR("unknown") },
    { "an LMTP server asks", STR("<x@lmtp.example>"), STR("verify given:x@lmtp.example") },
    { "a U-label domain", STR("<eva@b\xc3\xbc" "cher.example>"), STR("accept given:eva@xn--bcher-kva.example") },
    { "its A-label", STR("<eva@XN--bcher-kva.example>"), STR("accept given:eva@xn--bcher-kva.example") },
    { "postmaster", STR("<Postmaster>"), STR("accept alias:anna@example.org") },
    { "postmaster here", STR("<POSTMASTER@example.net>"), STR("accept alias:anna@example.net") },
    { "postmaster where there is none", STR("<postmaster@xn--bcher-kva.example>"),
      STR("accept alias:anna@example.org") },
    { "postmaster at the host", STR("<postmaster@mx.example.org>"), STR("accept alias:anna@example.org") },
    { "others at the host", STR("<anna@mx.example.org>"), STR("unknown") },
    { "postmaster behind the list", STR("<postmaster@listed.example>"), STR("accept alias:anna@example.org") },
    { "postmaster behind the gateway", STR("<postmaster@gate.example>"), STR("verify given:postmaster@gate.example") },
    { "our literal", STR("<anna@[192.0.2.25]>"), STR("accept alias:anna@example.org") },
    { "the literal that the client came to", STR("<anna@[198.51.100.7]>"), STR("accept alias:anna@example.org") },
    { "nobody at our literal", STR("<nobody@[192.0.2.25]>"), STR("unknown") },
    { "no domain is no path", STR("<anna>"), STR("bad path") },
    { "no local part", STR("<\"\"@example.org>"), STR("unqualified") },
    { "a trailing dot", STR("<anna@example.org.>"), STR("accept given:anna@example.org") },
    { "a source route to us", STR("<@a.example,@b.example:anna@example.org>"), STR("accept given:anna@example.org") },
    { "elsewhere", STR("<x@elsewhere.example>"), STR("no relay") },
    { "elsewhere for a trusted client", STR("<X@Elsewhere.Example>"), STR("relay given:X@elsewhere.example"), true },
    { "a literal for a trusted client", STR("<x@[192.0.2.9]>"), STR("relay given:x@[192.0.2.9]"), true },
    { "a percent hack for a trusted client", STR("<x%y@gate.example>"), STR("verify given:x%y@gate.example"), true },
    { "nobody here, even for a trusted client", STR("<nobody@example.org>"), STR("unknown"), true },
};

static void
answers_rcpt(struct test *t)
{
    struct fixture f;

    fixture_init(&f, site_files, sizeof site_files / sizeof *site_files);
    EXPECT_INT(t, f.conf.problems.errors, 0);
    for (size_t i = 0; i < f.conf.problems.count; i++) {
        char memory[300];
        struct text out = text_init(memory, sizeof memory);
        conf_problem_put(&out, &f.conf.problems.items[i]);
        if (i == 0)
            EXPECT(t, str_starts(text_str(&out), S("/etc/m.conf:20:22: warning: \"recipients any\" makes")));
        else
            EXPECT_STR(t, text_str(&out), S("/etc/dev.list:5:1: warning: nobody in example.org is called \"nobody\""));
        if (i == 1)
            break;
    }
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char memory[800];
        struct text out = text_init(memory, sizeof memory);
        test_case(t, cases[i].why);
        lookup(&f, cases[i].path, cases[i].trusted, &out);
        EXPECT_STR(t, text_str(&out), cases[i].out);
    }
    fixture_done(&f);
}

/*
 * Ways to make a careless host relay. A stranger gets each of them refused, or, where that is what stands there,
 * delivered at home: never a recipient at a domain that our own configuration does not name.
 */
static void
is_no_open_relay(struct test *t)
{
    static const struct {
        const char *why;
        struct str path;
    } tricks[] = {
        { "plainly", STR("<victim@target.example>") },
        { "percent", STR("<victim%target.example@example.org>") },
        { "percent twice", STR("<victim%target.example%example.net@example.org>") },
        { "percent at our literal", STR("<victim%target.example@[192.0.2.25]>") },
        { "percent at our host name", STR("<victim%target.example@mx.example.org>") },
        { "percent through the gateway", STR("<victim%target.example@gate.example>") },
        { "percent through the backup that takes all", STR("<victim%target.example@any.example>") },
        { "percent through the listed backup", STR("<victim%target.example@listed.example>") },
        { "percent into the catch-all", STR("<victim%target.example@catch.example>") },
        { "percent without a domain", STR("<victim%target.example>") },
        { "bang", STR("<target.example!victim@example.org>") },
        { "bang without a domain", STR("<target.example!victim>") },
        { "bang through two hosts", STR("<example.org!target.example!victim@example.org>") },
        { "bang through the gateway", STR("<target.example!victim@gate.example>") },
        { "bang into the catch-all", STR("<target.example!victim@catch.example>") },
        { "bang and percent", STR("<target.example!victim%example.org@gate.example>") },
        { "a source route", STR("<@example.org:victim@target.example>") },
        { "a source route over two of ours", STR("<@example.org,@example.net:victim@target.example>") },
        { "a source route over our literal", STR("<@[192.0.2.25]:victim@target.example>") },
        { "a source route and percent", STR("<@example.org:victim%target.example@example.org>") },
        { "an empty source route", STR("<@:victim@target.example>") },
        { "a source route without brackets", STR("@example.org:victim@target.example") },
        { "a quoted at-sign", STR("<\"victim@target.example\"@example.org>") },
        { "a quoted at-sign at the gateway", STR("<\"victim@target.example\"@gate.example>") },
        { "a quoted at-sign in the catch-all", STR("<\"victim@target.example\"@catch.example>") },
        { "a quoted address without a domain", STR("<\"victim@target.example\">") },
        { "a quoted source route", STR("<\"@example.org:victim@target.example\"@example.org>") },
        { "nested quotes", STR("<\"\\\"victim\\\"@target.example\"@example.org>") },
        { "nested brackets", STR("<<victim@target.example>>") },
        { "an escaped at-sign", STR("<victim\\@target.example@example.org>") },
        { "two at-signs", STR("<victim@target.example@example.org>") },
        { "two at-signs, ours first", STR("<victim@example.org@target.example>") },
        { "quotes around the whole", STR("\"victim@target.example\"") },
        { "no brackets", STR("victim@target.example") },
        { "a literal elsewhere", STR("<victim@[203.0.113.9]>") },
        { "an IPv6 literal elsewhere", STR("<victim@[IPv6:2001:db8::9]>") },
        { "our literal mapped to IPv6", STR("<victim@[IPv6:::ffff:192.0.2.25]>") },
        { "a literal with a name in it", STR("<victim@[target.example]>") },
        { "an address without brackets as domain", STR("<victim@203.0.113.9>") },
        { "our domain below theirs", STR("<victim@example.org.target.example>") },
        { "theirs below ours", STR("<victim@target.example.example.org>") },
        { "ours as an end", STR("<victim@notexample.org>") },
        { "a trailing dot", STR("<victim@target.example.>") },
        { "two trailing dots", STR("<anna@example.org..>") },
        { "a leading dot", STR("<anna@.example.org>") },
        { "only a dot", STR("<victim@.>") },
        { "a NUL", STR("<victim@target.example\0@example.org>") },
        { "a space", STR("<victim@target.example @example.org>") },
        { "a comma", STR("<anna@example.org,victim@target.example>") },
        { "a semicolon", STR("<anna@example.org;victim@target.example>") },
        { "a line break", STR("<anna@example.org>\nRCPT TO:<victim@target.example>") },
        { "a comment", STR("<victim@target.example(@example.org)>") },
        { "a group", STR("<x:victim@target.example;@example.org>") },
        { "a Cyrillic a", STR("<anna@ex\xd0\xb0mple.org>") },
        { "a fullwidth dot", STR("<anna@example\xef\xbc\x8eorg>") },
        { "an ideographic full stop", STR("<victim@target.example\xe3\x80\x82" "example.org>") },
        { "a fullwidth at-sign", STR("<victim\xef\xbc\xa0target.example@example.org>") },
        { "a soft hyphen", STR("<anna@exam\xc2\xadple.org>") },
        { "a zero width space", STR("<anna@example.org\xe2\x80\x8b>") },
        { "overlong UTF-8", STR("<victim\xc1\x80target.example@gate.example>") },
        { "a path up the tree", STR("<\"../../x\"@example.org>") },
        { "a path up from the catch-all", STR("<\"../../x\"@catch.example>") },
        { "a moved user", STR("<old%target.example@example.org>") },
    };
    static const struct str homes[] = { STR("@example.org"), STR("@example.net"), STR("@catch.example") };
    size_t count = sizeof tricks / sizeof *tricks;
    struct fixture f;

    fixture_init(&f, site_files, sizeof site_files / sizeof *site_files);
    EXPECT(t, count >= 40);
    for (size_t i = 0; i < count; i++) {
        struct directory_query q = { 0 };
        struct directory_verdict v;
        struct str edge = test_edge(tricks[i].path), rest = edge;
        test_case(t, tricks[i].why);
        arena_reset(&f.answers);
        if (path_take(&rest, &f.answers, &q.path) && rest.len == 0) {
            directory_lookup(f.d, &q, &f.answers, &v);
            EXPECT(t, v.answer == DIRECTORY_ACCEPT || v.answer >= DIRECTORY_REFUSED);
            EXPECT(t, v.answer == DIRECTORY_ACCEPT || v.count == 0);
            for (size_t r = 0; r < v.count; r++) {
                char memory[300];
                struct text path = text_init(memory, sizeof memory);
                bool home = false;
                for (size_t h = 0; h < sizeof homes / sizeof *homes; h++)
                    home = home || str_ends(v.recipients[r].address, homes[h]);
                EXPECT(t, home);
                EXPECT(t, directory_maildir(f.d, v.recipients[r].address, &path));
                EXPECT(t, str_find(text_str(&path), S("..")) == path.len);
            }
        }
        test_edge_free(edge);
    }
    fixture_done(&f);
}

/* A path without a domain may come from elsewhere than path_take(). */
static void
needs_a_domain(struct test *t)
{
    static const struct {
        const char *why;
        struct str local;
        bool trusted;
        struct str out;
    } bare[] = {
        { "anybody", STR("anna"), false, STR("unqualified") },
        { "anybody trusted", STR("anna"), true, STR("unqualified") },
        { "abuse", STR("Abuse"), false, STR("accept alias:anna@example.org") },
        { "nobody", STR(""), true, STR("unqualified") },
    };
    struct fixture f;

    fixture_init(&f, site_files, sizeof site_files / sizeof *site_files);
    for (size_t i = 0; i < sizeof bare / sizeof *bare; i++) {
        struct directory_query q = { .path = { bare[i].local, STR("") }, .trusted = bare[i].trusted };
        struct directory_verdict v;
        char memory[200];
        struct text out = text_init(memory, sizeof memory);
        test_case(t, bare[i].why);
        directory_lookup(f.d, &q, &f.answers, &v);
        put_verdict(&out, &v);
        EXPECT_STR(t, text_str(&out), bare[i].out);
    }
    fixture_done(&f);
}

static void
answers_vrfy_and_expn(struct test *t)
{
    static const struct {
        const char *why;
        struct str what, vrfy, expn;
    } questions[] = {
        { "a mailbox", STR("anna@example.org"), STR("accept given:anna@example.org"),
          STR("accept given:anna@example.org") },
        { "in brackets", STR("<dave@example.net>"), STR("accept given:dave@example.net"),
          STR("accept given:dave@example.net") },
        { "an alias is not expanded", STR("abuse@example.net"), STR("accept given:abuse@example.net"),
          STR("accept member:anna@example.net") },
        { "in two domains", STR("dave"), STR("ambiguous"), STR("ambiguous") },
        { "in one", STR("eva"), STR("accept given:eva@xn--bcher-kva.example"),
          STR("accept given:eva@xn--bcher-kva.example") },
        { "nobody", STR("nobody@example.org"), STR("unknown"), STR("unknown") },
        { "nobody anywhere", STR("nobody"), STR("unknown"), STR("unknown") },
        { "elsewhere", STR("x@elsewhere.example"), STR("no relay"), STR("no relay") },
        { "moved", STR("old@example.org"), STR("251 <new@partner.example>"),
          STR("accept member:new@partner.example") },
        { "gone", STR("gone@example.org"), STR("551 <new@partner.example>"), STR("accept member:new@partner.example") },
        { "only the gateway knows", STR("x@gate.example"), STR("verify"), STR("verify") },
        { "caught", STR("x@catch.example"), STR("verify"), STR("accept member:zoe@catch.example") },
        { "a list", STR("sales@example.org"), STR("accept given:sales@example.org"),
          STR("accept member:anna@example.org member:bob@example.org member:carol@elsewhere.example "
              "member:ANNA@example.org") },
        { "nothing", STR(""), STR("unknown"), STR("unknown") },
        { "no address", STR("a b"), STR("unknown"), STR("unknown") },
    };
    struct fixture f;

    fixture_init(&f, site_files, sizeof site_files / sizeof *site_files);
    for (size_t i = 0; i < sizeof questions / sizeof *questions; i++) {
        char memory[800];
        struct text out = text_init(memory, sizeof memory);
        struct directory_verdict v;
        test_case(t, questions[i].why);
        arena_reset(&f.answers);
        directory_vrfy(f.d, questions[i].what, &f.answers, &v);
        put_verdict(&out, &v);
        EXPECT_STR(t, text_str(&out), questions[i].vrfy);
        out.len = 0;
        directory_expn(f.d, questions[i].what, &f.answers, &v);
        put_verdict(&out, &v);
        EXPECT_STR(t, text_str(&out), questions[i].expn);
    }
    fixture_done(&f);
}

static void
knows_where_mail_goes(struct test *t)
{
    static const struct {
        const char *why;
        struct str domain;
        enum directory_route_kind kind;
    } routes[] = {
        { "a Maildir", STR("example.org"), DIRECTORY_ROUTE_MAILDIR },
        { "in other letters", STR("Example.NET."), DIRECTORY_ROUTE_MAILDIR },
        { "the same as", STR("old.example"), DIRECTORY_ROUTE_MAILDIR },
        { "a gateway", STR("gate.example"), DIRECTORY_ROUTE_VIA },
        { "a backup", STR("any.example"), DIRECTORY_ROUTE_MX },
        { "LMTP", STR("xn--bcher-kva.example"), DIRECTORY_ROUTE_LMTP },
        { "LMTP in U-labels", STR("b\xc3\xbc" "cher.example"), DIRECTORY_ROUTE_LMTP },
        { "elsewhere", STR("elsewhere.example"), DIRECTORY_ROUTE_NONE },
        { "a literal", STR("[192.0.2.25]"), DIRECTORY_ROUTE_NONE },
        { "nothing", STR(""), DIRECTORY_ROUTE_NONE },
    };
    static const struct {
        const char *why;
        struct str address, path;
    } maildirs[] = {
        { "a mailbox", STR("anna@example.org"), STR("/var/mail/example.org/anna") },
        { "as configured", STR("BOB@EXAMPLE.NET"), STR("/var/mail/example.net/Bob") },
        { "quoted", STR("\"quoted name\"@example.org"), STR("/var/mail/example.org/quoted name") },
        { "relative to the file", STR("zoe@catch.example"), STR("/etc/m/zoe") },
        { "an alias has none", STR("sales@example.org"), { NULL, 0 } },
        { "nobody", STR("nobody@example.org"), { NULL, 0 } },
        { "catch-all is not looked at", STR("x@catch.example"), { NULL, 0 } },
        { "up the tree", STR("\"../anna\"@example.org"), { NULL, 0 } },
        { "LMTP", STR("eva@xn--bcher-kva.example"), { NULL, 0 } },
        { "elsewhere", STR("anna@elsewhere.example"), { NULL, 0 } },
        { "no domain", STR("anna"), { NULL, 0 } },
    };
    struct directory_domain_info info;
    const struct domain *at = NULL;
    size_t count = 0;
    struct fixture f;

    fixture_init(&f, site_files, sizeof site_files / sizeof *site_files);
    for (size_t i = 0; i < sizeof routes / sizeof *routes; i++) {
        test_case(t, routes[i].why);
        EXPECT_INT(t, directory_route(f.d, routes[i].domain)->kind, routes[i].kind);
    }
    const struct directory_route *route = directory_route(f.d, S("example.org"));
    EXPECT_STR(t, route->user, S("mail"));
    EXPECT_INT(t, route->quota, 1 << 30);
    for (size_t i = 0; i < sizeof maildirs / sizeof *maildirs; i++) {
        char memory[100];
        struct text path = text_init(memory, sizeof memory);
        test_case(t, maildirs[i].why);
        EXPECT(t, directory_maildir(f.d, maildirs[i].address, &path) == !str_is_absent(maildirs[i].path));
        EXPECT(t, str_eq(text_str(&path), maildirs[i].path));
    }
    test_case(t, "a path that does not fit");
    char small[10];
    struct text path = text_init(small, sizeof small);
    EXPECT(t, !directory_maildir(f.d, S("anna@example.org"), &path));
    while (directory_next(f.d, &at, &info))
        count++;
    EXPECT_INT(t, count, 9);
    fixture_done(&f);
}

/* What cannot be is said with its place. */
static void
refuses(struct test *t)
{
    static const struct {
        const char *why;
        struct str in, out;
    } broken[] = {
        { "no name", STR("domain { mailbox a }"), STR("/m:1:1: write \"domain NAME ... { ... }\"") },
        { "no block", STR("domain a.example"), STR("/m:1:1: write \"domain NAME ... { ... }\"") },
        { "not a name", STR("domain a..b { mailbox a; deliver maildir /{local} }"),
          STR("/m:1:8: \"a..b\" is not a domain name") },
        { "twice", STR("domain a.b { alias x -> y@z.e }\ndomain c.d A.B { alias x -> y@z.e }"),
          STR("/m:2:12: the domain \"A.B\" was given before, at /m:1:8") },
        { "a misspelt word", STR("domain a.b {\n mailbx x }"),
          STR("/m:2:2: \"mailbx\" is not known in this block; did you mean \"mailbox\"?") },
        { "no delivery", STR("domain a.b { mailbox x }"),
          STR("/m:1:1: this domain has mailboxes but no way to deliver: add \"deliver maildir PATH\" or \"deliver "
              "lmtp:/SOCKET\"") },
        { "nothing at all", STR("domain a.b { }"),
          STR("/m:1:1: this domain has no way to deliver: it needs mailboxes, aliases, \"relay\" or \"same-as\"") },
        { "nobody lives there", STR("domain a.b { deliver maildir /{local} }"),
          STR("/m:1:1: nobody lives in this domain: it needs a mailbox") },
        { "two ways", STR("domain a.b { relay mx\ndeliver lmtp:/x }"),
          STR("/m:2:1: a domain has one way for its mail, and another was given at /m:1:14") },
        { "a mailbox twice", STR("domain a.b { mailbox x y\nmailbox X; deliver lmtp:/x }"),
          STR("/m:2:9: mailbox \"X\" was given before, at /m:1:22") },
        { "a mailbox with a slash", STR("domain a.b { mailbox ../x; deliver lmtp:/x }"),
          STR("/m:1:22: \"../x\" cannot be a mailbox: no \"/\", and no dot in front") },
        { "a long mailbox", STR("domain a.b { mailbox "
                                "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; deliver lmtp:/x }"),
          STR("/m:1:22: \"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\" is longer than 64 "
              "bytes") },
        { "a mailbox elsewhere", STR("domain a.b { mailbox x@c.d; deliver lmtp:/x }"),
          STR("/m:1:22: \"x@c.d\" is not in this domain") },
        { "no mailbox", STR("domain a.b { mailbox; deliver lmtp:/x }"),
          STR("/m:1:14: write \"mailbox NAME ...\", \"mailbox file FILE\" or \"mailbox passwd-file FILE\"") },
        { "a missing file", STR("domain a.b { mailbox file none; deliver lmtp:/x }"),
          STR("/m:1:27: \"/none\" cannot be read: not found") },
        { "an alias twice", STR("domain a.b { alias x -> y@z.e\nalias w x -> y@z.e }"),
          STR("/m:2:9: alias \"x\" was given before, at /m:1:20") },
        { "an alias to nobody", STR("domain a.b { mailbox anna\nalias x -> ana; deliver lmtp:/x }"),
          STR("/m:2:12: nobody in a.b is called \"ana\"; did you mean \"anna\"?") },
        { "an alias to nobody in another domain", STR("domain a.b { mailbox anna; deliver lmtp:/x }\n"
                                                      "domain c.d { alias x -> zzz@a.b }"),
          STR("/m:2:25: nobody in a.b is called \"zzz\"") },
        { "an alias to itself", STR("domain a.b { alias x -> y; alias y -> x }"),
          STR("/m:1:20: \"x\" leads to nobody but itself") },
        { "over more than 20 aliases: nobody on the way may be left out",
          STR("domain a.b { "
              "alias a1 -> a2 x@z.e; alias a2 -> a3; alias a3 -> a4; alias a4 -> a5; alias a5 -> a6; "
              "alias a6 -> a7; alias a7 -> a8; alias a8 -> a9; alias a9 -> a10; alias a10 -> a11; "
              "alias a11 -> a12; alias a12 -> a13; alias a13 -> a14; alias a14 -> a15; alias a15 -> a16; "
              "alias a16 -> a17; alias a17 -> a18; alias a18 -> a19; alias a19 -> a20; alias a20 -> a21; "
              "alias a21 -> y@z.e }"),
          STR("/m:1:20: \"a1\" leads over more than 20 aliases in a row") },
        { "an alias without an arrow", STR("domain a.b { alias x y }"),
          STR("/m:1:14: something is missing here: write \"alias NAME ... -> ADDRESS ...\"") },
        { "an alias with a tight arrow", STR("domain a.b { alias x->y }"),
          STR("/m:1:20: \"->\" stands between spaces: write \"alias NAME ... -> ADDRESS ...\"") },
        { "an alias of nothing", STR("domain a.b { alias -> y@z.e }"),
          STR("/m:1:20: a name is missing before \"->\"") },
        { "an alias to nothing", STR("domain a.b { alias x -> }"),
          STR("/m:1:14: something is missing here: write \"alias NAME ... -> ADDRESS ...\"") },
        { "an alias to a program", STR("domain a.b { alias x -> \"|cat\" }"),
          STR("/m:1:25: \"|cat\" is not an address: an alias leads to addresses or to include:FILE, not to programs or "
              "files") },
        { "an alias to no address", STR("domain a.b { alias x -> y@ }"), STR("/m:1:25: \"y@\" is not an address") },
        { "a forward to two", STR("domain a.b { forward x -> y@z.e z@z.e }"),
          STR("/m:1:33: write \"forward NAME -> ADDRESS [reply silent|251|551]\"") },
        { "an unknown reply", STR("domain a.b { forward x -> y@z.e reply 250 }"),
          STR("/m:1:39: \"250\" is not a reply: it is one of silent, 251, 551; did you mean \"251\"?") },
        { "subaddress by a letter", STR("domain a.b { alias x -> y@z.e; subaddress x }"),
          STR("/m:1:43: write the characters that begin a subaddress, such as \"subaddress +\"") },
        { "recipients of no kind", STR("domain a.b { recipients verfy; relay mx }"),
          STR("/m:1:25: \"verfy\" is not a way to know recipients: it is one of any, file, verify; did you mean "
              "\"verify\"?") },
        { "recipients without a file", STR("domain a.b { recipients file; relay mx }"),
          STR("/m:1:25: write \"recipients file FILE\"") },
        { "recipients of a local domain", STR("domain a.b { recipients any; mailbox x; deliver maildir /{local} }"),
          STR("/m:1:14: \"recipients\" is for domains with \"relay\" or \"deliver lmtp\": local ones have mailboxes") },
        { "mailboxes behind a gateway", STR("domain a.b { mailbox x; relay mx }"),
          STR("/m:1:1: a domain that is relayed has no mailboxes of its own: name them in \"recipients file\"") },
        { "relay to nowhere", STR("domain a.b { relay via }"),
          STR("/m:1:14: write \"relay via smtp://HOST\" or \"relay mx\"") },
        { "relay by a wrong scheme", STR("domain a.b { relay via smpt://x }"),
          STR("/m:1:24: \"smpt://x\" is not a next hop: write smtp://HOST:PORT, smtps://HOST, lmtp://HOST:PORT or "
              "lmtp:/SOCKET; did you mean \"smtp\"?") },
        { "asking over smtps", STR("domain a.b { relay via smtps://x }"),
          STR("/m:1:1: who is asked for recipients must speak SMTP in clear or by STARTTLS, not smtps://: name them in "
              "\"recipients file\"") },
        { "a misspelt delivery", STR("domain a.b { mailbox x; deliver mailddir /x }"),
          STR("/m:1:33: write \"deliver maildir PATH [user NAME] [quota SIZE]\" or \"deliver lmtp:/SOCKET\"; did you "
              "mean \"maildir\"?") },
        { "an unknown placeholder", STR("domain a.b { mailbox x; deliver maildir /{user}/{locl} }"),
          STR("/m:1:41: \"{user}\" is not known in a Maildir's path: there are {domain} and {local}") },
        { "a misspelt placeholder", STR("domain a.b { mailbox x; deliver maildir /{locl} }"),
          STR("/m:1:41: \"{locl}\" is not known in a Maildir's path: there are {domain} and {local}; did you mean "
              "\"local\"?") },
        { "a quota of words", STR("domain a.b { mailbox x; deliver maildir /{local} quota big }"),
          STR("/m:1:56: \"big\" is not a size such as 64KiB or 50MiB") },
        { "same as nobody", STR("domain a.example { same-as b.exampel }\ndomain b.example { alias x -> y@z.e }"),
          STR("/m:1:28: the domain \"b.exampel\" is not configured; did you mean \"b.example\"?") },
        { "same as the same", STR("domain a.e { same-as b.e }\ndomain b.e { same-as a.e }"),
          STR("/m:1:22: \"b.e\" is itself the same as another domain: name that one") },
        { "same as and more", STR("domain a.e { same-as b.e; mailbox x }\ndomain b.e { alias x -> y@z.e }"),
          STR("/m:1:14: nothing else may stand in a block with same-as") },
    };

    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        struct conf_fake_file file = { STR("/m"), broken[i].in };
        struct fixture f;
        test_case(t, broken[i].why);
        fixture_init(&f, &file, 1);
        EXPECT(t, f.conf.problems.errors > 0);
        EXPECT_STR(t, conf_fixture_problem(&f.conf, 0), broken[i].out);
        fixture_done(&f);
    }
}

static void
passwd_file_gives_names(struct test *t)
{
    static const struct conf_fake_file files[] = {
        { STR("/m"), STR("domain a.example { mailbox passwd-file users; deliver lmtp:/run/lmtp; alias x -> anna }") },
        { STR("/users"), STR("anna:{SSHA}secret:1000::::\nbob@a.example:x\neve@other.example:x\n") },
    };
    char memory[100];
    struct text out = text_init(memory, sizeof memory);
    struct fixture f;

    fixture_init(&f, files, 2);
    EXPECT_INT(t, f.conf.problems.count, 0);
    lookup(&f, S("<bob@a.example>"), false, &out);
    EXPECT_STR(t, text_str(&out), S("accept given:bob@a.example"));
    out.len = 0;
    lookup(&f, S("<eve@a.example>"), false, &out);
    EXPECT_STR(t, text_str(&out), S("unknown"));
    fixture_done(&f);
}

static void
postmaster_is_looked_for(struct test *t)
{
    static const struct {
        const char *why;
        struct str in;
        bool has;
    } sites[] = {
        {"none", STR(""), false},
        {"an alias", STR("domain a.e { alias postmaster -> x@y.e }"), true},
        {"a mailbox", STR("domain a.e { mailbox PostMaster; deliver lmtp:/x }"), true},
        {"in the second domain",
         STR("domain a.e { mailbox x; deliver lmtp:/x }\ndomain b.e { alias postmaster -> x@a.e }"), true},
        {"catch-all", STR("domain a.e { mailbox x; catch-all -> x; deliver lmtp:/x }"), true},
        {"behind a gateway", STR("domain a.e { relay via 10.0.0.5 }"), true},
        {"nobody", STR("domain b.e { same-as a.e }\ndomain a.e { mailbox x; deliver lmtp:/x }"), false},
    };

    for (size_t i = 0; i < sizeof sites / sizeof *sites; i++) {
        struct conf_fake_file file = { STR("/m"), sites[i].in };
        struct conf_where where;
        struct fixture f;
        test_case(t, sites[i].why);
        fixture_init(&f, &file, 1);
        EXPECT_INT(t, f.conf.problems.errors, 0);
        EXPECT(t, directory_has_postmaster(f.d, &where) == sites[i].has);
        fixture_done(&f);
    }
}

/* Many aliases are only memory; a list as long as may be fits the arena that it asked for. */
static void
bears_many_names(struct test *t)
{
    enum { ALIASES = 100000, LINE = 40 };
    struct mem mem = mem_libc();
    size_t cap = ALIASES * LINE + 200;
    struct text conf = text_init(mem_alloc(&mem, cap), cap);
    size_t list_cap = (LIMIT_RCPT_EXPANDED + 1) * LINE;
    struct text list = text_init(mem_alloc(&mem, list_cap), list_cap);
    char memory[200];
    struct text out = text_init(memory, sizeof memory);
    struct directory_verdict v;
    struct directory_query q = { .path = { STR("list"), STR("a.example") } };
    struct fixture f;

    text_put(&conf, S("domain a.example {\nmailbox anna; deliver lmtp:/x\nalias list -> include:list\n"));
    for (int i = 0; i < ALIASES; i++)
        text_putf(&conf, "alias name%d -> %s\n", i, i % 2 ? "anna" : "x@elsewhere.example");
    text_put(&conf, S("}\n"));
    for (int i = 0; i < LIMIT_RCPT_EXPANDED; i++)
        text_putf(&list, "someone%d@elsewhere.example\n", i);
    EXPECT(t, !conf.full && !list.full);
    struct conf_fake_file files[] = { { STR("/m"), text_str(&conf) }, { STR("/list"), text_str(&list) } };
    fixture_init(&f, files, 2);
    EXPECT_INT(t, f.conf.problems.count, 0);
    lookup(&f, S("<name77777@a.example>"), false, &out);
    EXPECT_STR(t, text_str(&out), S("accept alias:anna@a.example"));
    arena_reset(&f.answers);
    directory_lookup(f.d, &q, &f.answers, &v);
    EXPECT_INT(t, v.answer, DIRECTORY_ACCEPT);
    EXPECT_INT(t, v.count, LIMIT_RCPT_EXPANDED + 1);
    fixture_done(&f);
    text_put(&list, S("toomuch@elsewhere.example\n"));
    files[1].text = text_str(&list);
    fixture_init(&f, files, 2);
    EXPECT_INT(t, f.conf.problems.errors, 1);
    fixture_done(&f);
    mem_free(&mem, conf.ptr, cap);
    mem_free(&mem, list.ptr, list_cap);
    EXPECT_INT(t, mem_in_use(&mem), 0);
}

/* Lists in lists, each of which may be, but not all of them together. */
static void
refuses_what_no_answer_could_hold(struct test *t)
{
    enum { LONG = 900, MEMBERS = LIMIT_RCPT_EXPANDED, LINE = LONG + 30 };
    struct mem mem = mem_libc();
    struct text list = text_init(mem_alloc(&mem, MEMBERS * LINE), MEMBERS * LINE);
    struct fixture f;
    char local[LONG + 1];

    memset(local, 'x', LONG);
    local[LONG] = '\0';
    for (int i = 0; i < MEMBERS; i++)
        text_putf(&list, "%s%d@e.example\n", local, i);
    struct conf_fake_file files[] = {
        {STR("/m"), STR("domain a.example { alias l1 -> include:list; alias l2 -> include:list\nalias l3 -> l1, l2 }")},
        {STR("/list"), text_str(&list)},
    };
    fixture_init(&f, files, 2);
    EXPECT_INT(t, f.conf.problems.errors, 1);
    EXPECT(t, f.conf.problems.errors > 0 && f.conf.problems.items[0].where.line == 2);
    fixture_done(&f);
    mem_free(&mem, list.ptr, MEMBERS * LINE);
}

/* A receiver answers within an arena, however many domains are asked for a bare name. */
static void
vrfy_takes_no_memory_for_each_domain(struct test *t)
{
    enum { DOMAINS = 3000, LINE = 100 };
    struct mem mem = mem_libc();
    struct text site = text_init(mem_alloc(&mem, DOMAINS * LINE), DOMAINS * LINE);
    struct directory_verdict v;
    struct arena arena;
    struct fixture f;

    for (int i = 0; i < DOMAINS; i++)
        text_putf(&site, "domain d%d.example { mailbox u%d; alias postmaster -> u%d; deliver maildir /m/{local} }\n", i, i, i);
    struct conf_fake_file files[] = { { STR("/m"), text_str(&site) } };
    fixture_init(&f, files, 1);
    EXPECT_INT(t, f.conf.problems.errors, 0);
    arena_init(&arena, &mem, 4096, 64 << 10);
    directory_vrfy(f.d, S("postmaster"), &arena, &v);
    EXPECT_INT(t, v.answer, DIRECTORY_AMBIGUOUS);
    directory_vrfy(f.d, S("u2999"), &arena, &v);
    EXPECT_INT(t, v.answer, DIRECTORY_ACCEPT);
    EXPECT_STR(t, v.recipients[0].address, S("u2999@d2999.example"));
    arena_done(&arena);
    fixture_done(&f);
    mem_free(&mem, site.ptr, DOMAINS * LINE);
}

static void
empty_list_is_nobody(struct test *t)
{
    static const struct conf_fake_file files[] = {
        { STR("/m"), STR("domain a.example { alias list -> include:list; alias postmaster -> x@b.example }") },
        { STR("/list"), STR("# nobody yet\n") },
    };
    char memory[100];
    struct text out = text_init(memory, sizeof memory);
    struct fixture f;

    fixture_init(&f, files, 2);
    EXPECT_INT(t, f.conf.problems.errors, 0);
    EXPECT_INT(t, f.conf.problems.warnings, 1);
    lookup(&f, S("<list@a.example>"), false, &out);
    EXPECT_STR(t, text_str(&out), S("unknown"));
    fixture_done(&f);
}

TEST_MAIN({"answers RCPT", answers_rcpt}, {"is no open relay", is_no_open_relay}, {"needs a domain", needs_a_domain},
          {"vrfy takes no memory for each domain", vrfy_takes_no_memory_for_each_domain},
          {"answers VRFY and EXPN", answers_vrfy_and_expn}, {"knows where mail goes", knows_where_mail_goes},
          {"refuses", refuses}, {"passwd-file gives names", passwd_file_gives_names},
          {"postmaster is looked for", postmaster_is_looked_for}, {"bears many names", bears_many_names},
          { "refuses what no answer could hold", refuses_what_no_answer_could_hold },
          { "empty list is nobody", empty_list_is_nobody })
