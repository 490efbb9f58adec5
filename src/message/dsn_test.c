/* Notices: what they say, and what others wrote stays where it belongs. */
#include "message/dsn.h"

#include "base/test.h"

#include <stdlib.h>

static char memory[4 << 20];

static struct str
compose(struct test *t, const struct dsn *d, struct str original, size_t cut)
{
    static char piece[DSN_PIECE];
    struct text out = text_init(memory, sizeof memory);
    struct dsn_writer w = { .dsn = d };

    for (struct text part = text_init(piece, sizeof piece); dsn_next(&w, &part); part.len = 0)
        text_put(&out, text_str(&part));
    EXPECT(t, dsn_wants_original(&w));
    text_put(&out, dsn_original(&w, str_slice(original, 0, cut)));
    text_put(&out, dsn_original(&w, str_from(original, cut)));
    EXPECT(t, dsn_wants_original(&w) == dsn_returns_full(d)); /* a header and its end were there */
    dsn_end(&w, &out);
    EXPECT(t, !out.full);
    return text_str(&out);
}

/* Lines end with CRLF, none is over 998, and 7-bit is 7-bit. */
static void
expect_sound(struct test *t, const struct dsn *d, struct str notice)
{
    EXPECT(t, dsn_body(d) != BODY_7BIT || str_is_ascii(notice));
    for (struct str rest = notice; rest.len;) {
        struct str line = str_cut(&rest, '\n');
        EXPECT(t, str_ends(line, S("\r")) && line.len <= 999);
        EXPECT(t, str_find_byte(line, '\r') == line.len - 1);
    }
}

static const struct str original = STR("Received: from x\r\n\tby y; z\r\nFrom: a@sender.example\r\nSubject: hello\r\n"
    "\r\n"
                                       "The text.\r\n.\r\nlast line\r\n");

static struct dsn
example(const struct dsn_recipient *recipients, size_t count)
{
    return (struct dsn){
        .id = { 0, 2 }, .original = { 0, 1 }, .hostname = S("mx.example.org"), .to = S("a@sender.example"),
        .envid = S("QQ+3D1"), .arrival_wall = INT64_C(1795255200000000000), .now_wall = INT64_C(1795258800000000000),
        .original_size = original.len, .recipients = recipients, .recipient_count = count,
    };
}

static void
a_failure(struct test *t)
{
    struct dsn_recipient r = {
        .action = DSN_FAILED, .address = S("b@rcpt.example"), .given = S("alias@example.org"),
        .orcpt = S("rfc822;alias+2Bx@example.org"), .status = S("5.1.1"),
          .reply = S("550 5.1.1 <b@rcpt.example>: no such user"),
        .remote = S("mx.rcpt.example [192.0.2.1]:25"),
    };
    struct dsn d = example(&r, 1);

    for (size_t cut = 0; cut <= original.len; cut++)
        EXPECT_STR(t, compose(t, &d, original, cut),
                   S("Date: Sat, 21 Nov 2026 11:00:00 +0000\r\n"
                     "From: Mail Delivery System <MAILER-DAEMON@mx.example.org>\r\n"
                     "To: a@sender.example\r\n"
                     "Subject: Undelivered mail: your message did not reach its recipient\r\n"
                     "Message-ID: <00000000000000000000000002@mx.example.org>\r\n"
                     "Auto-Submitted: auto-replied\r\n"
                     "MIME-Version: 1.0\r\n"
                     "Content-Type: multipart/report; report-type=delivery-status;\r\n"
                     " boundary=\"=_00000000000000000000000002\"\r\n"
                     "\r\n"
                     "This is a delivery status notice in MIME format.\r\n"
                     "\r\n"
                     "--=_00000000000000000000000002\r\n"
                     "Content-Type: text/plain; charset=us-ascii\r\n"
                     "\r\n"
                     "Your message could not be delivered, and we have stopped trying.\r\n"
                     "\r\n"
                     "This notice is from the mail system of mx.example.org, about the message\r\n"
                     "that it took on Sat, 21 Nov 2026 10:00:00 +0000 as 00000000000000000000000001.\r\n"
                     "\r\n"
                     "b@rcpt.example\r\n"
                     "    (you wrote to)\r\n"
                     "    alias@example.org\r\n"
                     "    mx.rcpt.example [192.0.2.1]:25\r\n"
                     "    said:\r\n"
                     "        550 5.1.1 <b@rcpt.example>: no such user\r\n"
                     "    There is no such mailbox. Please check the part before the @ for a\r\n"
                     "    typing error.\r\n"
                     "\r\n"
                     "--=_00000000000000000000000002\r\n"
                     "Content-Type: message/delivery-status\r\n"
                     "\r\n"
                     "Reporting-MTA: dns; mx.example.org\r\n"
                     "Original-Envelope-Id: QQ=1\r\n"
                     "Arrival-Date: Sat, 21 Nov 2026 10:00:00 +0000\r\n"
                     "X-Postrider-Queue-Id: 00000000000000000000000001\r\n"
                     "\r\n"
                     "Original-Recipient: rfc822; alias+x@example.org\r\n"
                     "Final-Recipient: rfc822; b@rcpt.example\r\n"
                     "Action: failed\r\n"
                     "Status: 5.1.1\r\n"
                     "Remote-MTA: dns; mx.rcpt.example\r\n"
                     "Diagnostic-Code: smtp; 550 5.1.1 <b@rcpt.example>: no such user\r\n"
                     "\r\n"
                     "--=_00000000000000000000000002\r\n"
                     "Content-Type: message/rfc822\r\n"
                     "\r\n"
                     "Received: from x\r\n\tby y; z\r\n"
                     "From: a@sender.example\r\n"
                     "Subject: hello\r\n"
                     "\r\n"
                     "The text.\r\n.\r\nlast line\r\n"
                     "\r\n"
                     "--=_00000000000000000000000002--\r\n"));
    expect_sound(t, &d, compose(t, &d, original, 0));
}

static void
what_comes_back(struct test *t)
{
    static const struct {
        const char *why;
        uint8_t action; /* enum dsn_action */
        uint8_t ret;    /* enum ret */
        uint64_t size;
        uint8_t body;   /* enum body */
        bool utf8, full;
        struct str type, status;
    } cases[] = {
        { "failure",             DSN_FAILED,    RET_NONE, 100, BODY_7BIT, false, true, STR("message/rfc822") },
        { "RET=FULL",            DSN_FAILED,    RET_FULL, 100, BODY_8BITMIME, false, true, STR("message/rfc822") },
        { "RET=HDRS",            DSN_FAILED,    RET_HDRS, 100, BODY_7BIT, false, false, STR("text/rfc822-headers") },
        { "too large",           DSN_FAILED,    RET_FULL, DSN_FULL_MAX + 1, BODY_7BIT, false, false,
          STR("text/rfc822-headers") },
        { "only by BDAT",        DSN_FAILED,    RET_FULL, 100, BODY_BINARYMIME, false, false,
          STR("text/rfc822-headers") },
        { "not convertible",     DSN_FAILED,    RET_FULL, 100, BODY_8BITMIME, false, false,
          STR("text/rfc822-headers"), STR("5.6.3") },
        { "delay",               DSN_DELAYED,   RET_FULL, 100, BODY_7BIT, false, false, STR("text/rfc822-headers") },
        { "success",             DSN_DELIVERED, RET_FULL, 100, BODY_7BIT, false, false, STR("text/rfc822-headers") },
        { "UTF-8",               DSN_FAILED,    RET_NONE, 100, BODY_8BITMIME, true, true, STR("message/global") },
        { "UTF-8, header only",  DSN_RELAYED,   RET_NONE, 100, BODY_8BITMIME, true, false,
          STR("message/global-headers") },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (size_t cut = 0; cut <= original.len; cut += 7) {
            struct dsn_recipient r = { .action = cases[i].action, .address = S("b@c.ex"), .status = cases[i].status };
            struct dsn d = example(&r, 1);
            test_case(t, cases[i].why);
            d.ret = cases[i].ret;
            d.original_size = cases[i].size;
            d.original_body = cases[i].body;
            d.original_utf8 = cases[i].utf8;
            struct str notice = compose(t, &d, original, cut);
            EXPECT(t, dsn_returns_full(&d) == cases[i].full);
            EXPECT(t, dsn_body(&d) == (cases[i].body == BODY_7BIT ? BODY_7BIT : BODY_8BITMIME));
            char line[100];
            struct text type = text_init(line, sizeof line);
            text_putf(&type, "Content-Type: %.*s\r\n", STR_ARG(cases[i].type));
            EXPECT(t, str_find(notice, text_str(&type)) < notice.len);
            EXPECT(t, (str_find(notice, S("last line")) < notice.len) == cases[i].full);
            EXPECT(t, str_find(notice, S("Subject: hello")) < notice.len);
            expect_sound(t, &d, notice);
        }
}

/* Every action, many recipients, and values made to break out of their place. */
static void
hostile_values(struct test *t)
{
    enum { COUNT = 500 };
    struct dsn_recipient *r = calloc(COUNT, sizeof *r);
    static char longest[LIMIT_COMMAND_LINE - 10];

    for (size_t i = 0; i < sizeof longest; i++)
        longest[i] = 'x';
    for (size_t i = 0; i < COUNT; i++)
        r[i] = (struct dsn_recipient){
            .action = (uint8_t)(i % (DSN_ACTION_LAST + 1)), .address = str_new(longest, sizeof longest),
            .orcpt = S("rfc822;a+0D+0AAction:+20failed"), .status = S("5.1.1\r\nAction: x"),
            .reply = i % 2 ? str_new(longest,
              LIMIT_REPLY_TEXT) : S("550 a\r\n\r\n--=_00000000000000000000000002--\r\nb\xff\0c\x7f"),
            .remote = S("mx\r\nX: y [192.0.2.1]"), .retry_until_wall = 1,
        };
    struct dsn d = example(r, COUNT);
    struct str notice = compose(t, &d, original, 5);
    size_t closing = 0;

    expect_sound(t, &d, notice);
    for (struct str rest = notice; rest.len;)
        closing += str_eq(str_cut(&rest, '\n'), S("--=_00000000000000000000000002--\r"));
    EXPECT_INT(t, closing, 1);
    EXPECT(t, str_find(notice, S("\nX:")) == notice.len);
    for (int action = 0; action <= DSN_ACTION_LAST; action++) {
        d.recipient_count = 1;
        d.recipients = &r[action];
        notice = compose(t, &d, original, 0);
        expect_sound(t, &d, notice);
        EXPECT(t, str_find(notice, S("\r\nStatus: ")) < notice.len);
    }
    free(r);
}

static void
utf8_addresses(struct test *t)
{
    struct dsn_recipient r = { .action = DSN_FAILED, .address = S("\xc3\xa4@b.ex"), .orcpt = S("utf-8;\\x{E4}@b.ex"),
                               .reply = S("550 kein \xc3\xa4") , .status = S("5.1.1") };
    struct dsn d = example(&r, 1);
    struct str notice = compose(t, &d, original, 0);

    EXPECT(t, dsn_is_utf8(&d) && dsn_body(&d) == BODY_8BITMIME);
    EXPECT(t, str_find(notice, S("Content-Type: message/global-delivery-status\r\n")) < notice.len);
    EXPECT(t, str_find(notice, S("report-type=global-delivery-status;")) < notice.len);
    EXPECT(t, str_find(notice, S("Final-Recipient: utf-8; \xc3\xa4@b.ex\r\n")) < notice.len);
    EXPECT(t, str_find(notice, S("Original-Recipient: utf-8; \xc3\xa4@b.ex\r\n")) < notice.len);
    EXPECT(t, str_find(notice, S("550 kein \xc3\xa4")) < notice.len);
    expect_sound(t, &d, notice);
}

/* In a notice that is ASCII two bytes of a letter are six. */
static void
long_original_recipient(struct test *t)
{
    static char unfolded[64 << 10];
    char orcpt_memory[LIMIT_ORCPT], want_memory[3 * LIMIT_ORCPT + 64];
    struct text orcpt = text_init(orcpt_memory, sizeof orcpt_memory), want = text_init(want_memory, sizeof want_memory);

    text_put(&orcpt, S("utf-8;"));
    while (orcpt.cap - orcpt.len >= 2 + 5) {
        text_put(&orcpt, S("\xc3\xa4"));
        text_put(&want, S("\\x{E4}"));
    }
    text_put(&orcpt, S("@b.ex"));
    text_put(&want, S("@b.ex"));
    struct dsn_recipient r = { .action = DSN_FAILED, .address = S("a@b.ex"), .orcpt = text_str(&orcpt), .status = S("5.1.1") };
    struct dsn d = example(&r, 1);
    struct str notice = compose(t, &d, original, 0);
    struct text whole = text_init(unfolded, sizeof unfolded);
    expect_sound(t, &d, notice);
    for (struct str rest = notice; rest.len > 0; rest = str_from(rest, 1))
        if (!str_starts(rest, S("\r\n ")))
            text_put_byte(&whole, rest.ptr[0]);
        else
            rest = str_from(rest, 2);
    EXPECT(t, !orcpt.full && !want.full && !whole.full && str_find(text_str(&whole), text_str(&want)) < whole.len);
}

/* What we found wrong with a server is not put into its mouth. */
static void
our_own_words(struct test *t)
{
    struct dsn_recipient r = { .action = DSN_DELAYED, .address = S("b@c.ex"), .remote = S("mx.c.ex [192.0.2.1]:25"),
                               .reply = S("cannot connect: connection refused"), .status = S("4.4.1") };
    struct dsn d = example(&r, 1);
    struct str notice = compose(t, &d, original, 0);

    EXPECT(t, str_find(notice, S("    mx.c.ex [192.0.2.1]:25\r\n    was tried:\r\n        cannot")) < notice.len);
    EXPECT(t, str_find(notice, S("\r\nRemote-MTA: dns; mx.c.ex\r\n"
                                 "Diagnostic-Code: X-Postrider; cannot connect")) < notice.len);
    expect_sound(t, &d, notice);
}

TEST_MAIN({ "a failure", a_failure }, { "our own words", our_own_words }, { "what comes back", what_comes_back },
          { "hostile values", hostile_values }, { "UTF-8 addresses", utf8_addresses },
          { "a long original recipient", long_original_recipient })
