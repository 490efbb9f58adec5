/* Address lists, and messages of our users' making. */
#include "message/compose.h"

#include "base/test.h"
#include "message/header.h"

#include <stdio.h>

/* The list as "local@domain" words, "!" for what is no address. */
static struct str
listed(struct str in, struct arena *arena, struct text *out)
{
    struct mailbox m;
    enum addresses next;

    while ((next = addresses_next(&in, arena, &m)) != ADDRESSES_END) {
        text_put(out, out->len ? S(" | ") : S(""));
        text_put(out, next == ADDRESSES_BAD ? S("!") : path_text(m.path, arena));
        if (next == ADDRESSES_ONE && m.name.len) {
            text_put(out, S(" "));
            text_put(out, m.name);
        }
    }
    return text_str(out);
}

static void
reads_address_lists(struct test *t)
{
    static const struct { const char *why; struct str in, out; } cases[] = {
        { "one",               STR(" a@b.ex"), STR("a@b.ex") },
        { "several",           STR("a@b.ex, c@d.ex ,e@f.ex"), STR("a@b.ex | c@d.ex | e@f.ex") },
        { "names",
          STR("Joe Q. Public <john.q.public@example.com>, <boss@nil.test>,"
              " \"Giant; \\\"Big\\\" Box\" <services@example.net>"),
          STR("john.q.public@example.com Joe Q. Public | boss@nil.test |"
              " services@example.net \"Giant; \\\"Big\\\" Box\"") },
        { "RFC 5322 A.1.3",    STR("A Group:Ed Jones <c@a.test>,joe@where.test,John <jdoe@one.test>;"),
          STR("c@a.test Ed Jones | joe@where.test | jdoe@one.test John") },
        { "empty group",       STR("Undisclosed recipients:;"), STR("") },
        { "RFC 5322 A.5",      STR("Pete(A nice \\) chap) <pete(his account)@silly.test(his host)>"),
          STR("pete@silly.test Pete(A nice \\) chap)") },
        { "A.5 group",
          STR("A Group(Some people)\r\n     :Chris Jones <c@(Chris's host.)public.example>,\r\n"
              "         joe@example.org,\r\n  John <jdoe@one.test> (my dear friend); (the end of the group)"),
          STR("c@public.example Chris Jones | joe@example.org | jdoe@one.test John") },
        { "A.5 empty group",   STR("(Empty list)(start)Hidden recipients  :(nobody(that I know))  ;"), STR("") },
        { "A.6.1 routes",      STR("Mary Smith <@node.test:mary@example.net>, , jdoe@test  . example"),
          STR("mary@example.net Mary Smith | jdoe@test.example") },
        { "A.6.3 spaces",      STR("\"Joe & J. Harvey\" <ddd @ Org . test>"), STR("ddd@org.test \"Joe & J. Harvey\"") },
        { "quoted words",      STR("\"a b\".c@d.ex"), STR("\"a b.c\"@d.ex") },
        { "local part alone",  STR("root, Joe <joe>"), STR("root | joe Joe") },
        { "literal",           STR("a@[192.0.2.1]"), STR("a@[192.0.2.1]") },
        { "UTF-8",             STR("\xc3\xa4@b\xc3\xbc.ex"), STR("\xc3\xa4@b\xc3\xbc.ex") },
        { "comma in comment",  STR("a@b.ex (x, y), c@d.ex"), STR("a@b.ex | c@d.ex") },
        { "two words",         STR("a b@c.ex, d@e.ex"), STR("! | d@e.ex") },
        { "no closing bracket", STR("x <a@b.ex, c@d.ex"), STR("!") },
        { "no domain",         STR("a@, b@c.ex"), STR("! | b@c.ex") },
        { "text behind",       STR("<a@b.ex> x"), STR("!") },
        { "two brackets",      STR("<a@b.ex><c@d.ex>"), STR("!") },
        { "control character", STR("\"a\001b\"@c.ex"), STR("!") },
        { "only commas",       STR(",,;;"), STR("") },
        { "empty brackets",    STR("x <>"), STR("!") },
        { "tok822: plain",     STR("wietse@porcupine.org"), STR("wietse@porcupine.org") },
        { "tok822: quoted",    STR("\"wietse venema\"@porcupine.org"), STR("\"wietse venema\"@porcupine.org") },
        { "tok822: spaces",    STR("wietse @ porcupine.org"), STR("wietse@porcupine.org") },
        { "tok822: comment that ends early", STR("\"wietse venema\"@porcupine.org (\"wietse ) venema\")"), STR("!") },
        { "tok822: name",      STR("\"wietse venema\" <wietse@porcupine.org>"),
          STR("wietse@porcupine.org \"wietse venema\"") },
        { "tok822: comment closed twice", STR("\"wietse venema\"@porcupine.org ( (\"wietse ) venema\") )"), STR("!") },
        { "tok822: backslash", STR("wietse\\ venema@porcupine.org"), STR("!") },
        { "tok822: open quote", STR("\"wietse venema"), STR("!") },
        { "tok822: open literal", STR("wietse@[stuff"), STR("!") },
        { "tok822: group",     STR("named group: foo@bar, baz@barf;"), STR("foo@bar | baz@barf") },
        { "tok822: open comment", STR("wietse@foo (wietse\n\tvenema)"), STR("wietse@foo") },
    };
    struct mem mem = mem_libc();
    struct arena arena;
    size_t tok822 = 0;

    arena_init(&arena, &mem, 4096, 1 << 20);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char memory[1024];
        struct text out = text_init(memory, sizeof memory);
        struct str in = test_edge(cases[i].in);
        test_case(t, cases[i].why);
        bool ok = EXPECT_STR(t, listed(in, &arena, &out), cases[i].out);
        tok822 += ok && str_starts(str_from_cstr(cases[i].why), S("tok822"));
        test_edge_free(in);
        for (size_t cut = 0; cut < cases[i].in.len; cut++) {
            struct str piece = test_edge(str_slice(cases[i].in, 0, cut));
            out.len = 0;
            listed(piece, &arena, &out);
            test_edge_free(piece);
        }
        arena_reset(&arena);
    }
    printf("# tok822_parse: %zu of 11 by meaning (Postfix makes something of what is no address; we refuse it)\n",
      tok822);
    arena_done(&arena);
}

/* delivered_hdr by meaning: an address is found again among Delivered-To fields, whatever the case of the domain. */
static void
finds_delivered_to(struct test *t)
{
    struct str header = S("Delivered-To: one@Example.org\r\nX: y\r\nDelivered-To: three@example.org\r\n\r\n"
        "Delivered-To: two@example.org\r\n");
    static const struct { const char *why; struct str local; bool found; } cases[] = {
        { "first", STR("one"), true }, { "only in the body", STR("two"), false }, { "later", STR("three"), true },
    };
    struct mem mem = mem_libc();
    struct arena arena;
    size_t passed = 0;

    arena_init(&arena, &mem, 4096, 1 << 20);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bool found = false;
        struct header_field field;
        struct path path;
        test_case(t, cases[i].why);
        for (struct str rest = header; header_take(&rest, &field);)
            found |= str_eq_nocase(field.name, S("Delivered-To")) && path_parse(field.value, &arena, &path) &&
                     path_eq(path, (struct path){ cases[i].local, S("example.org") });
        passed += EXPECT(t, found == cases[i].found);
    }
    printf("# delivered_hdr: %zu of 3\n", passed);
    arena_done(&arena);
}

static const struct compose_origin origin = { .address = STR("me@host.example"), .hostname = STR("host.example"),
  .id = { 0, 1 } };

static void
composes(struct test *t)
{
    static const struct str to[] = { STR("a@b.ex"), STR("c@d.ex") };
    static const struct compose_attachment files[] = { { STR("a.txt"), STR("hello") }, { STR("\xc3\xa4 \".bin"),
      STR("\0\xff") } };
    char memory[16384];
    struct compose c = { .origin = origin, .to = to, .to_count = 2, .subject = S("Hi \xc3\xa4"),
      .text = S("line\n.\rlast") };
    struct text out = text_init(memory, compose_size(&c));

    compose_put(&out, &c);
    EXPECT(t, !out.full);
    EXPECT_STR(t, text_str(&out),
               S("Date: Thu, 01 Jan 1970 00:00:00 +0000\r\nFrom: me@host.example\r\nTo: a@b.ex,\r\n c@d.ex\r\n"
                 "Subject: =?utf-8?Q?Hi_=C3=A4?=\r\nMessage-ID: <00000000000000000000000001@host.example>\r\n"
                 "MIME-Version: 1.0\r\n"
                 "Content-Type: text/plain; charset=us-ascii\r\n\r\nline\r\n.\r\nlast\r\n"));

    c.attachments = files;
    c.attachment_count = 2;
    c.text = S("gr\xc3\xbc\xc3\x9f\n");
    c.origin.name = S("M. E.");
    out = text_init(memory, compose_size(&c));
    compose_put(&out, &c);
    EXPECT_STR(t, str_from(text_str(&out), str_find(text_str(&out), S("From: "))),
               S("From: \"M. E.\" <me@host.example>\r\nTo: a@b.ex,\r\n c@d.ex\r\nSubject: =?utf-8?Q?Hi_=C3=A4?=\r\n"
                 "Message-ID: <00000000000000000000000001@host.example>\r\nMIME-Version: 1.0\r\n"
                 "Content-Type: multipart/mixed; boundary=\"=_00000000000000000000000001\"\r\n"
                 "Content-Transfer-Encoding: 8bit\r\n\r\n"
                 "--=_00000000000000000000000001\r\nContent-Type: text/plain; charset=utf-8\r\n"
                 "Content-Transfer-Encoding: 8bit\r\n\r\n"
                 "gr\xc3\xbc\xc3\x9f\r\n\r\n--=_00000000000000000000000001\r\n"
                 "Content-Type: application/octet-stream\r\n"
                 "Content-Transfer-Encoding: base64\r\nContent-Disposition: attachment;\r\n filename=\"a.txt\"\r\n"
                 "\r\naGVsbG8=\r\n\r\n"
                 "--=_00000000000000000000000001\r\nContent-Type: application/octet-stream\r\n"
                 "Content-Transfer-Encoding: base64\r\n"
                 "Content-Disposition: attachment;\r\n filename*=utf-8''%C3%A4%20%22.bin\r\n\r\nAP8=\r\n"
                 "--=_00000000000000000000000001--\r\n"));
}

static void
lets_no_address_begin_a_line(struct test *t)
{
    static const struct str to = STR("a@b.ex\nX-Own: y\r\n\r\n");
    const struct compose c = { .origin = { .address = S("me@host.example"), .hostname = S("host.example") },
                               .to = &to, .to_count = 1, .text = S("body\n") };
    char memory[2048];
    struct text out = text_init(memory, sizeof memory);
    struct header_field field;

    compose_put(&out, &c);
    for (struct str rest = text_str(&out); header_take(&rest, &field);) {
        EXPECT(t, !str_eq(field.name, S("X-Own")));
        if (str_eq(field.name, S("To")))
            EXPECT_STR(t, str_trim(field.value), S("a@b.ex X-Own: y"));
    }
}

static void
completes_headers(struct test *t)
{
    static const struct { const char *why; struct str in, header, body, recipients; } cases[] = {
        { "complete", STR("From: x@y.ex\nDate: now\nMessage-ID: <1>\nTo: a@b.ex\n\nbody\n"),
          STR("From: x@y.ex\r\nDate: now\r\nMessage-ID: <1>\r\nTo: a@b.ex\r\n\r\n"), STR("body\n"), STR("a@b.ex") },
        { "Bcc goes",
          STR("From: x@y.ex\r\nDate: now\r\nMessage-ID: <1>\r\nBCC: c@d.ex,\r\n e@f.ex\r\nTo: a@b.ex\r\n\r\nbody"),
          STR("From: x@y.ex\r\nDate: now\r\nMessage-ID: <1>\r\nTo: a@b.ex\r\n\r\n"), STR("body"),
            STR("c@d.ex e@f.ex a@b.ex") },
        { "nothing there", STR("To: root\n\n\nbody"),
          STR("To: root\r\nFrom: me@host.example\r\nDate: Thu, 01 Jan 1970 00:00:00 +0000\r\n"
              "Message-ID: <00000000000000000000000001@host.example>\r\n\r\n"), STR("\nbody"), STR("root") },
        { "no header", STR("just text\n"),
          STR("From: me@host.example\r\nDate: Thu, 01 Jan 1970 00:00:00 +0000\r\n"
              "Message-ID: <00000000000000000000000001@host.example>\r\n\r\n"), STR("just text\n"), STR("") },
        { "mbox line", STR("From x Thu Jan 1\nFrom: x@y.ex\nDate: now\nMessage-ID: <1>\nTo: a@b.ex\n\nb"),
          STR("From: x@y.ex\r\nDate: now\r\nMessage-ID: <1>\r\nTo: a@b.ex\r\n\r\n"), STR("b"), STR("a@b.ex") },
        { "no mbox line", STR("From : x@y.ex\nDate: now\nMessage-ID: <1>\nTo: a@b.ex\n\nb"),
          STR("From : x@y.ex\r\nDate: now\r\nMessage-ID: <1>\r\nTo: a@b.ex\r\n\r\n"), STR("b"), STR("a@b.ex") },
        { "resent",
          STR("Resent-To: r@s.ex\nResent-Bcc: t@u.ex\nFrom: x@y.ex\nDate: now\nMessage-ID: <1>\nTo: a@b.ex\n\nb"),
          STR("Resent-To: r@s.ex\r\nFrom: x@y.ex\r\nDate: now\r\nMessage-ID: <1>\r\nTo: a@b.ex\r\n\r\n"), STR("b"),
            STR("r@s.ex t@u.ex") },
        { "bare CR begins no line", STR("From: x@y.ex\nDate: now\nMessage-ID: <1>\nSubject: a\rBcc: c@d.ex\r\n\nb"),
          STR("From: x@y.ex\r\nDate: now\r\nMessage-ID: <1>\r\nSubject: a Bcc: c@d.ex\r\n\r\n"), STR("b"), STR("") },
        { "bad address", STR("From: x@y.ex\nDate: now\nMessage-ID: <1>\nTo: a b, c@d.ex\n\nb"),
          STR("From: x@y.ex\r\nDate: now\r\nMessage-ID: <1>\r\nTo: a b, c@d.ex\r\n\r\n"), STR("b"), STR("! c@d.ex") },
    };
    struct mem mem = mem_libc();
    struct arena arena;

    arena_init(&arena, &mem, 4096, 1 << 20);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char memory[96 << 10], names[256];
        struct str in = test_edge(cases[i].in), rest = in;
        struct text out = text_init(memory, compose_header_size(in, &origin)), list = text_init(names, sizeof names);
        test_case(t, cases[i].why);
        compose_header(&out, &rest, &origin, &mem);
        EXPECT(t, !out.full);
        EXPECT_STR(t, text_str(&out), cases[i].header);
        EXPECT_STR(t, rest, cases[i].body);
        struct compose_recipients r = { .header = in };
        struct mailbox m;
        for (enum addresses next; (next = compose_next_recipient(&r, &arena, &m)) != ADDRESSES_END;) {
            text_put(&list, list.len ? S(" ") : S(""));
            text_put(&list, next == ADDRESSES_BAD ? S("!") : path_text(m.path, &arena));
        }
        EXPECT_STR(t, text_str(&list), cases[i].recipients);
        test_edge_free(in);
    }
    arena_done(&arena);
}

static void
keeps_bcc(struct test *t)
{
    struct str in = S("From: x@y.ex\nDate: now\nMessage-ID: <1>\nBcc: c@d.ex,\n bad<\nResent-Bcc: e@f.ex\n\nb");
    struct compose_origin at = origin;
    struct mem mem = mem_libc();
    char memory[96 << 10];
    struct text out = text_init(memory, sizeof memory);

    at.keeps_bcc = true;
    compose_header(&out, &in, &at, &mem);
    EXPECT_STR(t, text_str(&out), S("From: x@y.ex\r\nDate: now\r\nMessage-ID: <1>\r\nBcc: c@d.ex,\r\n bad<\r\nResent-Bcc: e@f.ex\r\n\r\n"));
}

static void
gives_addresses_a_domain(struct test *t)
{
    static const struct { const char *why; struct str in, out; } cases[] = {
        { "bare ones", STR("From: anna\nTo: bob, carol@x.ex,\n dora\nCc: Ed <ed>\n"),
          STR("From: anna@local.test\r\nTo: bob@local.test, carol@x.ex,\r\n dora@local.test\r\nCc: Ed <ed@local.test>\r\n") },
        { "each field that names people", STR("Sender: a\nReply-To: b\nResent-From: c\nResent-To: d\nSubject: e\nX-To: f\nFrom: g\n"),
          STR("Sender: a@local.test\r\nReply-To: b@local.test\r\nResent-From: c@local.test\r\nResent-To: d@local.test\r\n"
              "Subject: e\r\nX-To: f\r\nFrom: g@local.test\r\n") },
        { "comments, quotes and groups", STR("From: bob (Bob Smith)\nTo: \"a b\", team: x, <y>;, nobody:;\n"),
          STR("From: bob@local.test (Bob Smith)\r\nTo: \"a b\"@local.test, team: x@local.test, <y@local.test>;, nobody:;\r\n") },
        { "what is no address stays", STR("From: a@b.ex\nTo: a b, c\n"), STR("From: a@b.ex\r\nTo: a b, c@local.test\r\n") },
        { "not under a signature", STR("From: anna\nDKIM-Signature: v=1\n"), STR("From: anna\r\nDKIM-Signature: v=1\r\n") },
    };
    struct compose_origin at = origin;
    struct mem mem = mem_libc();
    struct arena arena;

    at.domain = S("local.test");
    arena_init(&arena, &mem, 4096, 1 << 20);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char memory[96 << 10];
        struct text out = text_init(memory, sizeof memory);
        struct str in = arena_join(&arena, cases[i].in, S("Date: x\nMessage-ID: <1>\n\n"));
        test_case(t, cases[i].why);
        compose_header(&out, &in, &at, &mem);
        EXPECT_STR(t, text_str(&out), arena_join(&arena, cases[i].out, S("Date: x\r\nMessage-ID: <1>\r\n\r\n")));
    }
    test_case(t, "too many stay as they are");
    enum { MANY = 10000 };
    size_t cap = 2 * MANY + 256 + compose_header_size(str_new("", 2 * MANY + 256), &at);
    struct text in = text_init(arena_alloc(&arena, 2 * MANY + 256), 2 * MANY + 256);
    struct text out = text_init(arena_alloc(&arena, cap), cap);
    text_put(&in, S("From: b@c.ex\r\nTo: "));
    for (int i = 0; i < MANY; i++)
        text_put(&in, S("a,"));
    text_put(&in, S("\r\nDate: x\r\nMessage-ID: <1>\r\n\r\n"));
    struct str rest = text_str(&in);
    compose_header(&out, &rest, &at, &mem);
    EXPECT_STR(t, text_str(&out), text_str(&in));
    arena_done(&arena);
}

TEST_MAIN({ "reads address lists", reads_address_lists }, { "finds Delivered-To", finds_delivered_to },
          { "composes", composes }, { "lets no address begin a line", lets_no_address_begin_a_line },
          { "completes headers", completes_headers }, { "keeps Bcc where it is told", keeps_bcc }, { "gives addresses a domain", gives_addresses_a_domain })
