/* The Received field, and counting them. */
#include "message/received.h"

#include "base/test.h"

static void
puts_the_field(struct test *t)
{
    char memory[LIMIT_RECEIVED], line[2000];
    struct text text = text_init(memory, sizeof memory);
    struct received r = {
        .helo = S("client.example"), .rdns = S("host.example"), .by = S("mx.example.org"), .smtp_extended = true,
        .tls = true, .tls_version = S("TLSv1.3 with cipher TLS_AES_256_GCM_SHA384"), .id = { 0, 1 },
        .recipient = S("a@example.org"), .wall = 0,
    };

    EXPECT(t, address_from_ip(S("192.0.2.1"), &r.client));
    received_put(&text, &r);
    EXPECT_STR(t, text_str(&text),
               S("Received: from client.example (host.example [192.0.2.1])\r\n"
                 "\tby mx.example.org with ESMTPS\r\n"
                 "\tid 00000000000000000000000001\r\n"
                 "\t(TLSv1.3 with cipher TLS_AES_256_GCM_SHA384)\r\n"
                 "\tfor <a@example.org>;\r\n"
                 "\tThu, 01 Jan 1970 00:00:00 +0000\r\n"));

    test_case(t, "what strangers say stays in its place");
    r = (struct received){ .helo = S("a) by evil;\r\nX: y\xff"), .rdns = S("b(c"), .by = S("mx.example.org"),
                           .recipient = S("a\r\nB: c@d") };
    r.client.family = ADDRESS_NONE;
    r.local = S("uid 1000");
    text.len = 0;
    received_put(&text, &r);
    EXPECT_STR(t, text_str(&text),
               S("Received: from a??by?evil???X:?y? (uid 1000)\r\n"
                 "\tby mx.example.org with SMTP\r\n"
                 "\tid 00000000000000000000000000;\r\n"
                 "\tThu, 01 Jan 1970 00:00:00 +0000\r\n"));

    test_case(t, "ASCII, for it may go on without SMTPUTF8");
    r = (struct received){ .helo = S("b\xc3\xbc" "cher.example"), .by = S("mx.example.org"), .smtp_extended = true, .utf8 = true,
                           .recipient = S("x@b\xc3\xbc" "cher.example"), .local = S("uid 1000") };
    text.len = 0;
    received_put(&text, &r);
    EXPECT_STR(t, text_str(&text),
               S("Received: from b??cher.example (uid 1000)\r\n"
                 "\tby mx.example.org with UTF8SMTP\r\n"
                 "\tid 00000000000000000000000000;\r\n"
                 "\tThu, 01 Jan 1970 00:00:00 +0000\r\n"));

    test_case(t, "no line over 998");
    for (size_t i = 0; i < sizeof line; i++)
        line[i] = 'x';
    r = (struct received){ .helo = str_new(line, sizeof line), .rdns = str_new(line, sizeof line),
                           .by = str_new(line, sizeof line), .recipient = str_new(line, 899),
                           .tls = true, .tls_version = str_new(line, sizeof line) };
    EXPECT(t, address_from_ip(S("2001:db8::1"), &r.client));
    text.len = 0;
    received_put(&text, &r);
    EXPECT(t, !text.full);
    for (struct str rest = text_str(&text); rest.len;)
        EXPECT(t, str_cut(&rest, '\n').len <= 999);
    EXPECT(t, str_find(text_str(&text), S("for <")) < text.len);
    r.recipient.len = 900;
    text.len = 0;
    received_put(&text, &r);
    EXPECT(t, str_find(text_str(&text), S("for <")) == text.len);
}

static void
names_protocols(struct test *t)
{
    EXPECT_STR(t, received_protocol(&(struct received){ .smtp_extended = true, .tls = true, .authenticated = true }),
      S("ESMTPSA"));
    EXPECT_STR(t, received_protocol(&(struct received){ .smtp_extended = true, .utf8 = true }), S("UTF8SMTP"));
    EXPECT_STR(t, received_protocol(&(struct received){ .smtp_extended = true, .lmtp = true, .tls = true }),
      S("LMTPS"));
    EXPECT_STR(t, received_protocol(&(struct received){ .helo = S("x") }), S("SMTP"));
}

static void
counts_hops(struct test *t)
{
    static const struct { const char *why; struct str in; size_t count; } cases[] = {
        { "two",                  STR("Received: a\r\n\tb\r\nRECEIVED:c\r\nSubject: x\r\n\r\nReceived: body\r\n"), 2 },
        { "obsolete space",       STR("Received : a\r\n\r\n"), 1 },
        { "other names",          STR("Received-SPF: a\r\nX-Received: b\r\nReceive: c\r\n\r\n"), 0 },
        { "in a folded line",     STR("Subject: a\r\n Received: b\r\n\r\n"), 0 },
        { "no header at all",     STR("\r\nReceived: a\r\n"), 0 },
        { "line ends of its own", STR("Received: a\nReceived: b\n\nReceived: c\n"), 2 },
        { "header only",          STR("Received: a"), 1 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (size_t cut = 0; cut <= cases[i].in.len; cut++) {
            struct received_counter counter = { 0 };
            test_case(t, cases[i].why);
            received_count(&counter, str_slice(cases[i].in, 0, cut));
            received_count(&counter, str_from(cases[i].in, cut));
            EXPECT_INT(t, counter.count, cases[i].count);
        }
}

TEST_MAIN({ "puts the field", puts_the_field }, { "names protocols", names_protocols }, { "counts hops", counts_hops })
