/*
 * Tests of server.c: whole dialogs over a socket pair, with server_fake.h as the site. A case is a list of what the
 * client sends and the reply codes it must get for that; "end" is the server closing.
 */
#include "smtp/server.h"

#include "base/check.h"
#include "base/test.h"
#include "smtp/server_fake.h"

#include <stdlib.h>
#include <string.h>

/* ---- a client ---------------------------------------------------------------------------------------------------- */

struct peer {
    struct rt *rt;
    struct test *t;
    struct stream *stream, *far;
    struct wire wire; /* over `far`: the server's */
    struct scope scope;
    struct listener_settings settings;
    struct fake_site *site;
    struct server_client client;
    char here[8192]; /* read, not looked at */
    size_t len;
    char reply[8192]; /* the last one, all its lines */
    size_t reply_len;
    int64_t patience; /* of each wait of ours */
};

static void
serve(void *arg)
{
    struct peer *p = arg;

    p->wire = wire_in_clear(p->far);
    server_run(&p->wire, &p->settings, &p->site->hooks, &p->client);
    wire_close(&p->wire);
    p->far = NULL;
}

static void
peer_connect(struct peer *p)
{
    struct handle ends[2];

    CHECK(!err_is(stream_pair(p->rt, ends)));
    CHECK(!err_is(stream_from_handle(p->rt, ends[0], &p->stream)));
    CHECK(!err_is(stream_from_handle(p->rt, ends[1], &p->far)));
    p->len = p->reply_len = 0;
    p->client = (struct server_client){.name = STR("192.0.2.7")};
    CHECK(address_from_ip(S("192.0.2.7"), &p->client.address));
    scope_init(&p->scope, p->rt);
    scope_start(&p->scope, "server", serve, p);
}

static void
peer_leave(struct peer *p)
{
    stream_close(p->stream);
    CHECK(!err_is(scope_wait(&p->scope, within(p->rt, 10 * SECOND))));
    scope_end(&p->scope);
}

static bool
peer_send(struct peer *p, struct str bytes)
{
    return !err_is(stream_write(p->stream, bytes, within(p->rt, 10 * SECOND)));
}

/* The code of the next reply; 0: the server closed; -1: it said something that is no reply; -2: nothing. */
static int
peer_read(struct peer *p)
{
    p->reply_len = 0;
    for (;;) {
        struct str here = str_new(p->here, p->len);
        size_t line = str_find(here, S("\r\n"));
        if (line < here.len) {
            uint64_t code;
            bool last = line < 4 || here.ptr[3] != '-';
            size_t taken = line + 2;
            if (line < 3 || line > LIMIT_REPLY_LINE - 2 || !str_to_u64(str_slice(here, 0, 3), &code))
                return -1;
            CHECK(p->reply_len + taken < sizeof p->reply);
            memcpy(p->reply + p->reply_len, p->here, taken);
            p->reply_len += taken;
            memmove(p->here, p->here + taken, p->len - taken);
            p->len -= taken;
            if (last)
                return (int)code;
            continue;
        }
        size_t got;
        struct err e =
            stream_read(p->stream, p->here + p->len, sizeof p->here - p->len, within(p->rt, p->patience), &got);
        if (err_is(e))
            return e.kind == ERR_RESET ? 0 : -2;
        if (got == 0)
            return 0;
        p->len += got;
    }
}

static bool
peer_said(const struct peer *p, struct str what)
{
    struct str reply = str_new(p->reply, p->reply_len);

    return str_find(reply, what) < reply.len;
}

/* Reads a reply for each code in the list. */
static bool
peer_expect(struct peer *p, struct str codes)
{
    for (struct str code = str_cut_word(&codes); code.len > 0; code = str_cut_word(&codes)) {
        uint64_t want = 0;
        int got = peer_read(p);
        if (!str_eq(code, S("end")))
            CHECK(str_to_u64(code, &want));
        if (!EXPECT_INT(p->t, got, want))
            return false;
    }
    return true;
}

struct step {
    struct str send;
    struct str codes;
};

static bool
peer_play(struct peer *p, const struct step *steps, size_t count)
{
    for (size_t i = 0; i < count && steps[i].codes.len > 0; i++) {
        peer_send(p, steps[i].send);
        if (!peer_expect(p, steps[i].codes))
            return false;
    }
    return true;
}

/* Runs each(p) in a world of its own, with a fresh site and the default settings. */
struct run {
    struct test *t;
    void (*each)(struct peer *);
};

static void
run_fiber(struct rt *rt, void *arg)
{
    struct run *run = arg;
    struct peer *p = calloc(1, sizeof *p);
    struct fake_site *site = calloc(1, sizeof *site);

    CHECK(p && site);
    p->rt = rt;
    p->t = run->t;
    p->site = site;
    fake_site_init(site);
    site->rt = rt;
    p->settings = listener_settings_default(S("mx.local.test"));
    p->settings.slow_down = 0;
    p->patience = 10 * SECOND;
    run->each(p);
    EXPECT_INT(p->t, site->begun, site->committed + site->aborted); /* each draft ended exactly once */
    EXPECT_INT(p->t, site->admitted, site->left);
    fake_site_done(site);
    free(site);
    free(p);
}

static void
in_world(struct test *t, void (*each)(struct peer *))
{
    EXPECT(t, !err_is(rt_run(run_fiber, &(struct run){t, each})));
}

/* The same by a clock that leaps: see rt_run_leaping(). */
static void
in_leaping_world(struct test *t, void (*each)(struct peer *))
{
    EXPECT(t, !err_is(rt_run_leaping(run_fiber, &(struct run){t, each})));
}

#define EHLO STR("EHLO client.test\r\n")
#define MAIL STR("MAIL FROM:<a@client.test>\r\n")
#define RCPT STR("RCPT TO:<ok@local.test>\r\n")
#define NOBODY STR("RCPT TO:<nobody@local.test>\r\n")
#define DATA STR("DATA\r\n")
#define NOOP STR("NOOP\r\n")
#define QUIT STR("QUIT\r\n")

static bool
peer_begin(struct peer *p)
{
    return peer_play(p, (struct step[]){{STR(""), STR("220")}, {EHLO, STR("250")}}, 2);
}

static bool
peer_begin_message(struct peer *p)
{
    return peer_play(p, (struct step[]){{MAIL, STR("250")}, {RCPT, STR("250")}, {DATA, STR("354")}}, 3);
}

/* ---- dialogs ----------------------------------------------------------------------------------------------------- */

static const struct dialog {
    const char *why;
    struct step steps[12]; /* after the greeting */
} dialogs[] = {
    {"a message",
     {{EHLO, STR("250")},
      {MAIL, STR("250")},
      {RCPT, STR("250")},
      {DATA, STR("354")},
      {STR("Subject: x\r\n\r\nbody\r\n.\r\n"), STR("250")},
      {QUIT, STR("221 end")}}},
    {"HELO, and verbs in any case",
     {{STR("helo x\r\n"), STR("250")},
      {STR("mail from:<a@b.test>\r\n"), STR("250")},
      {STR("rcpt to:<ok@local.test>\r\n"), STR("250")},
      {STR("data\r\n"), STR("354")},
      {STR(".\r\n"), STR("250")}}},
    {"pipelined as RFC 2920 has it",
     {{EHLO, STR("250")},
      {STR("MAIL FROM:<a@b.test>\r\nRCPT TO:<ok@local.test>\r\nRCPT TO:<nobody@local.test>\r\nDATA\r\n"),
       STR("250 250 550 354")},
      {STR("x\r\n.\r\nMAIL FROM:<>\r\nRCPT TO:<v@local.test>\r\nDATA\r\n"), STR("250 250 250 354")},
      {STR(".\r\nQUIT\r\n"), STR("250 221 end")}}},
    {"two hellos",
     {{EHLO, STR("250")}, {MAIL, STR("250")}, {EHLO, STR("250")}, {RCPT, STR("503")}, {MAIL, STR("250")}}},
    {"RSET",
     {{STR("RSET\r\n"), STR("250")},
      {MAIL, STR("503")},
      {EHLO, STR("250")},
      {MAIL, STR("250")},
      {RCPT, STR("250")},
      {STR("RSET\r\n"), STR("250")},
      {DATA, STR("503")},
      {MAIL, STR("250")}}},
    {"bytes behind EHLO", {{STR("EHLO x\r\nMAIL FROM:<>\r\n"), STR("554 end")}}},
    {"bytes behind HELO", {{STR("HELO x\r\nNOOP\r\n"), STR("554 end")}}},
    {"bytes behind DATA",
     {{EHLO, STR("250")}, {MAIL, STR("250")}, {RCPT, STR("250")}, {STR("DATA\r\nx\r\n.\r\n"), STR("554 end")}}},
    {"bytes behind a DATA that was refused are commands",
     {{EHLO, STR("250")}, {STR("DATA\r\nNOOP\r\n"), STR("503 250")}}},
    {"bytes behind NOOP, VRFY, EXPN, HELP, RSET",
     {{EHLO, STR("250")},
      {STR("NOOP\r\nVRFY ok\r\nEXPN list\r\nHELP\r\nRSET\r\nNOOP\r\n"), STR("250 252 502 214 250 250")}}},
    {"bare LF in a command", {{STR("EHLO x\n"), STR("500 end")}}},
    {"bare LF within a line", {{STR("EHLO x\nMAIL FROM:<>\r\n"), STR("500 end")}}},
    {"bare CR in a command", {{STR("EHLO x\rNOOP\r\n"), STR("500")}, {NOOP, STR("250")}}},
    {"NUL in a command", {{STR("EHLO x\0y\r\n"), STR("501")}, {STR("NOOP \0\r\n"), STR("501")}, {NOOP, STR("250")}}},
    {"HTTP", {{STR("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), STR("end")}}},
    {"HTTP POST in the middle", {{EHLO, STR("250")}, {STR("POST / HTTP/1.1\r\n"), STR("end")}}},
    {"TLS", {{STR("\x16\x03\x01\x02\x00\x01\x00\x01\xfc"), STR("end")}}},
    {"empty lines", {{STR("\r\n"), STR("500")}, {STR("   \r\n"), STR("500")}, {NOOP, STR("250")}}},
    {"space in front of a verb", {{STR(" NOOP\r\n"), STR("500")}}},
    {"trailing space",
     {{EHLO, STR("250")}, {STR("MAIL FROM:<a@b.test> \t \r\n"), STR("250")}, {STR("NOOP  \r\n"), STR("250")}}},
    {"known, not offered",
     {{STR("TURN\r\n"), STR("502")},
      {STR("SEND FROM:<a@b.test>\r\n"), STR("502")},
      {STR("SOML FROM:<>\r\n"), STR("502")},
      {STR("SAML\r\n"), STR("502")},
      {STR("STARTTLS\r\n"), STR("502")},
      {STR("AUTH PLAIN x\r\n"), STR("502")}}},
    {"HELO takes names as they come",
     {{STR("HELO under_score\r\n"), STR("250")},
      {STR("HELO 192.0.2.1\r\n"), STR("250")},
      {STR("HELO localhost\r\n"), STR("250")},
      {STR("HELO [IPv6:::1]\r\n"), STR("250")},
      {STR("HELO\r\n"), STR("501")},
      {STR("EHLO  \r\n"), STR("501")}}},
    {"parameters need EHLO",
     {{STR("HELO x\r\n"), STR("250")},
      {STR("MAIL FROM:<> SIZE=1\r\n"), STR("555")},
      {STR("MAIL FROM:<>\r\n"), STR("250")}}},
    {"verdicts",
     {{EHLO, STR("250")},
      {MAIL, STR("250")},
      {NOBODY, STR("550")},
      {STR("RCPT TO:<moved@local.test>\r\n"), STR("551")},
      {STR("RCPT TO:<busy@local.test>\r\n"), STR("450")},
      {STR("RCPT TO:<x@elsewhere.test>\r\n"), STR("550")},
      {DATA, STR("554")},
      {STR("RCPT TO:<fwd@local.test>\r\n"), STR("251")},
      {STR("RCPT TO:<Postmaster>\r\n"), STR("250")},
      {DATA, STR("354")},
      {STR(".\r\n"), STR("250")}}},
    {"a 421 from a hook ends it",
     {{EHLO, STR("250")},
      {MAIL, STR("250")},
      {RCPT, STR("250")},
      {STR("RCPT TO:<bye@local.test>\r\n"), STR("421 end")}}},
    {"VRFY, EXPN off; ETRN",
     {{EHLO, STR("250")},
      {STR("VRFY ok\r\n"), STR("252")},
      {STR("VRFY\r\n"), STR("501")},
      {STR("EXPN list\r\n"), STR("502")},
      {STR("ETRN backup.test\r\n"), STR("250")},
      {STR("ETRN other.test\r\n"), STR("459")},
      {STR("ETRN\r\n"), STR("501")},
      {MAIL, STR("250")},
      {STR("ETRN backup.test\r\n"), STR("503")}}},
    {"DATA with an argument",
     {{EHLO, STR("250")},
      {MAIL, STR("250")},
      {RCPT, STR("250")},
      {STR("DATA now\r\n"), STR("501")},
      {DATA, STR("354")},
      {STR(".\r\n"), STR("250")}}},
    {"HELP",
     {{STR("HELP\r\n"), STR("214")},
      {STR("HELP mail\r\nHELP MAIL FROM:\r\n"), STR("214 214")},
      {STR("HELP nonsense\r\n"), STR("504")},
      {STR("HELP TURN\r\n"), STR("504")}}},
    {"a bare LF in content is refused at its end",
     {{EHLO, STR("250")},
      {MAIL, STR("250")},
      {RCPT, STR("250")},
      {DATA, STR("354")},
      {STR("x\n.\nMAIL FROM:<smuggled@attacker.test>\r\n.\r\n"), STR("550")},
      {MAIL, STR("250")}}},

    {"BDAT",
     {{EHLO, STR("250")},
      {STR("MAIL FROM:<>\r\nRCPT TO:<ok@local.test>\r\nBDAT 3\r\na\r\nBDAT 3 LAST\r\n.\r\n"), STR("250 250 250 250")},
      {MAIL, STR("250")}}},
    {"BDAT 0 LAST",
     {{EHLO, STR("250")},
      {MAIL, STR("250")},
      {RCPT, STR("250")},
      {STR("BDAT 0\r\n"), STR("250")},
      {STR("bdat 0 last\r\n"), STR("250")},
      {NOOP, STR("250")}}},
    {"BDAT without anything before",
     {{STR("BDAT 5 LAST\r\nQUIT\n"), STR("503")}, {EHLO, STR("250")}, {STR("BDAT 4\r\nRSETNOOP\r\n"), STR("503 250")}}},
    {"BDAT without a recipient",
     {{EHLO, STR("250")},
      {MAIL, STR("250")},
      {STR("BDAT 3 LAST\r\nx\r\n"), STR("503")},
      {NOBODY, STR("550")},
      {STR("BDAT 3 LAST\r\nx\r\n"), STR("554")},
      {RCPT, STR("250")}}},
    {"a refused chunk with chunks behind it",
     {{EHLO, STR("250")},
      {STR("MAIL FROM:<>\r\nRCPT TO:<ok@local.test>\r\nBDAT 2\r\na\nBDAT 6\r\nQUIT\r\nBDAT 2 LAST\r\nx\nNOOP\r\n"),
       STR("250 250 550 503 503 250")},
      {MAIL, STR("250")}}},
    {"a refused chunk, then RSET",
     {{EHLO, STR("250")},
      {MAIL, STR("250")},
      {RCPT, STR("250")},
      {STR("BDAT 2\r\na\n"), STR("550")},
      {MAIL, STR("503")},
      {RCPT, STR("503")},
      {DATA, STR("503")},
      {STR("RSET\r\n"), STR("250")},
      {MAIL, STR("250")}}},
    {"BDAT, then DATA",
     {{EHLO, STR("250")},
      {MAIL, STR("250")},
      {RCPT, STR("250")},
      {STR("BDAT 1\r\nx"), STR("250")},
      {DATA, STR("503")},
      {RCPT, STR("503")},
      {MAIL, STR("503")},
      {STR("BDAT 0 LAST\r\n"), STR("250")}}},
    {"DATA, then BDAT as text",
     {{EHLO, STR("250")},
      {MAIL, STR("250")},
      {RCPT, STR("250")},
      {DATA, STR("354")},
      {STR("BDAT 1 LAST\r\n.\r\n"), STR("250")}}},
    {"BDAT without a size",
     {{EHLO, STR("250")}, {MAIL, STR("250")}, {RCPT, STR("250")}, {STR("BDAT\r\nx"), STR("501 end")}}},
    {"BDAT with a control character",
     {{EHLO, STR("250")},
      {MAIL, STR("250")},
      {RCPT, STR("250")},
      {STR("BDAT 1\r\nx"), STR("250")},
      {STR("BDAT 6\x7f\r\nRSET\r\nBDAT 0 LAST\r\n"), STR("501 end")}}},
    {"BDAT with a NUL", {{EHLO, STR("250")}, {STR("BDAT 6\0 LAST\r\nRSET\r\n"), STR("501 end")}}},
    {"BDAT with a bad size", {{EHLO, STR("250")}, {STR("BDAT 12x LAST\r\nNOOP\r\n"), STR("501 end")}}},
    {"BDAT with a negative size", {{EHLO, STR("250")}, {STR("BDAT -1\r\nNOOP\r\n"), STR("501 end")}}},
    {"BDAT with a size over 64 bits",
     {{EHLO, STR("250")}, {STR("BDAT 99999999999999999999 LAST\r\nNOOP\r\n"), STR("501 end")}}},
    {"BDAT with a huge size", {{EHLO, STR("250")}, {STR("BDAT 99999999999 LAST\r\nNOOP\r\n"), STR("552 end")}}},
    {"BDAT with another word",
     {{EHLO, STR("250")},
      {MAIL, STR("250")},
      {RCPT, STR("250")},
      {STR("BDAT 4 FIRST\r\nQUIT"), STR("501")},
      {STR("RSET\r\n"), STR("250")},
      {MAIL, STR("250")}}},
    {"BDAT: a CR split from its LF",
     {{EHLO, STR("250")},
      {MAIL, STR("250")},
      {RCPT, STR("250")},
      {STR("BDAT 2\r\na\rBDAT 1 LAST\r\n\n"), STR("250 250")}}},
    {"BDAT: CR at the very end",
     {{EHLO, STR("250")},
      {MAIL, STR("250")},
      {RCPT, STR("250")},
      {STR("BDAT 2 LAST\r\na\r"), STR("550")},
      {MAIL, STR("250")}}},
};

static void
plays_dialogs(struct peer *p)
{
    for (size_t i = 0; i < sizeof dialogs / sizeof *dialogs; i++) {
        test_case(p->t, dialogs[i].why);
        peer_connect(p);
        if (peer_expect(p, S("220")))
            peer_play(p, dialogs[i].steps, sizeof dialogs[i].steps / sizeof *dialogs[i].steps);
        peer_leave(p);
    }
}

static void
dialogs_test(struct test *t)
{
    in_world(t, plays_dialogs);
}

/* Every command at every point of the dialog. */
static void
keeps_the_order(struct peer *p)
{
    /* how to get there, in one group behind EHLO */
    static const struct {
        const char *why;
        struct step way[2];
    } points[] = {
        {"before HELO", {{STR(""), STR("")}}},
        {"before MAIL", {{EHLO, STR("250")}}},
        {"after MAIL", {{EHLO, STR("250")}, {MAIL, STR("250")}}},
        {"after a refused RCPT",
         {{EHLO, STR("250")}, {STR("MAIL FROM:<>\r\nRCPT TO:<nobody@local.test>\r\n"), STR("250 550")}}},
        {"after RCPT", {{EHLO, STR("250")}, {STR("MAIL FROM:<>\r\nRCPT TO:<ok@local.test>\r\n"), STR("250 250")}}},
        {"after BDAT",
         {{EHLO, STR("250")}, {STR("MAIL FROM:<>\r\nRCPT TO:<ok@local.test>\r\nBDAT 0\r\n"), STR("250 250 250")}}},
        {"after a refused BDAT",
         {{EHLO, STR("250")}, {STR("MAIL FROM:<>\r\nRCPT TO:<ok@local.test>\r\nBDAT 1\r\n\n"), STR("250 250 550")}}},
    };
    static const struct {
        struct str command;
        struct str codes; /* at each point */
    } rows[] = {
        {EHLO, STR("250 250 250 250 250 250 250")},
        {STR("HELO x\r\n"), STR("250 250 250 250 250 250 250")},
        {MAIL, STR("503 250 503 503 503 503 503")},
        {RCPT, STR("503 503 250 250 250 503 503")},
        {DATA, STR("503 503 503 554 354 503 503")},
        {STR("BDAT 0 LAST\r\n"), STR("503 503 503 554 250 250 503")},
        {STR("BDAT 0\r\n"), STR("503 503 503 554 250 250 503")},
        {STR("RSET\r\n"), STR("250 250 250 250 250 250 250")},
        {NOOP, STR("250 250 250 250 250 250 250")},
        {STR("VRFY x\r\n"), STR("252 252 252 252 252 252 252")},
        {STR("EXPN x\r\n"), STR("502 502 502 502 502 502 502")},
        {STR("HELP\r\n"), STR("214 214 214 214 214 214 214")},
        {STR("ETRN backup.test\r\n"), STR("503 250 503 503 503 503 503")},
        {STR("TURN\r\n"), STR("502 502 502 502 502 502 502")},
        {STR("FOO\r\n"), STR("500 500 500 500 500 500 500")},
        {QUIT, STR("221 221 221 221 221 221 221")},
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct str codes = rows[i].codes;
        for (size_t j = 0; j < sizeof points / sizeof *points; j++) {
            char why[80];
            struct text text = text_init(why, sizeof why);
            text_putf(&text, "%.*s %s", STR_ARG(str_trim_end(rows[i].command)), points[j].why);
            test_case(p->t, text_cstr(&text));
            peer_connect(p);
            peer_expect(p, S("220"));
            peer_play(p, points[j].way, 2);
            peer_send(p, rows[i].command);
            peer_expect(p, str_cut_word(&codes));
            peer_leave(p);
        }
    }
    test_case(p->t, NULL);
}

static void
order_test(struct test *t)
{
    in_world(t, keeps_the_order);
}

/* ---- what is stored ---------------------------------------------------------------------------------------------- */

static const struct fake_message *
last_message(const struct peer *p)
{
    CHECK(p->site->committed > 0 && p->site->committed <= FAKE_MESSAGES);
    return &p->site->messages[p->site->committed - 1];
}

/* Each time all members are looked up again, for recipients that it had already. */
static void
looks_a_list_up_only_so_often(struct peer *p)
{
    static const struct step many = { STR("RCPT TO:<crowd@local.test>\r\n"), STR("250") };
    static const struct step more = { STR("RCPT TO:<crowd@local.test>\r\nRCPT TO:<ok@local.test>\r\n"), STR("452 452") };

    peer_connect(p);
    peer_begin(p);
    peer_play(p, (struct step[]){{STR("MAIL FROM:<a@client.test>\r\n"), STR("250")}, many, many, many, many, many, many, more}, 8);
    EXPECT_INT(p->t, p->site->crowd_asked, 6);
    peer_play(p, (struct step[]){{STR("RSET\r\nMAIL FROM:<a@client.test>\r\n"), STR("250 250")}, many}, 2);
    EXPECT_INT(p->t, p->site->crowd_asked, 7);
    peer_leave(p);
}

static void
stores_envelopes(struct peer *p)
{
    char id[MESSAGE_ID_TEXT];
    const struct fake_message *m;

    p->site->reverse_name = S("host.client.test");
    peer_connect(p);
    peer_begin(p);
    peer_play(p,
              (struct step[]){{STR("MAIL FROM:<a@client.test> BODY=8BITMIME SMTPUTF8\r\n"), STR("250")},
                              {STR("RCPT TO:<LIST@local.test>\r\n"), STR("550")},
                              {STR("RCPT TO:<sales@local.test> NOTIFY=SUCCESS,DELAY\r\n"), STR("250")},
                              {STR("RCPT TO:<list@local.test>\r\n"), STR("250")},
                              {STR("RCPT TO:<ok@local.test> NOTIFY=NEVER\r\n"), STR("250")},
                              {DATA, STR("354")},
                              {STR("Subject: \xc3\xa4\r\n\r\n..\r\n.\r\n"), STR("250")}},
              7);
    m = last_message(p);
    EXPECT_STR(p->t, str_new(m->content, m->len), S("Subject: \xc3\xa4\r\n\r\n.\r\n"));
    EXPECT_STR(p->t, str_from_cstr(m->reverse_path), S("a@client.test"));
    /* sales expanded (2 + 8), its member v (without SUCCESS), list expanded, ok as named itself; nobody twice */
    EXPECT_STR(p->t, str_from_cstr(m->recipients),
               S("sales@local.test/10/3 ok@local.test/1/0 v@local.test/8/2 list@local.test/0/3 "));
    EXPECT_INT(p->t, m->body, BODY_8BITMIME);
    EXPECT(p->t, m->smtputf8);
    EXPECT(p->t, peer_said(p, message_id_text(m->id, id)));
    struct str trace = str_from_cstr(m->trace);
    EXPECT(p->t, str_starts(trace, S("Received: from client.test (host.client.test [192.0.2.7])")));
    EXPECT(p->t, str_find(trace, S("with UTF8SMTP")) < trace.len);
    EXPECT(p->t, str_find(trace, S(" for ")) == trace.len); /* several recipients: none is named */

    test_case(p->t, "a single recipient is named, as the client did");
    peer_play(p,
              (struct step[]){{MAIL, STR("250")},
                              {STR("RCPT TO:<fwd@local.test>\r\n"), STR("251")},
                              {DATA, STR("354")},
                              {STR(".\r\n"), STR("250")}},
              4);
    m = last_message(p);
    trace = str_from_cstr(m->trace);
    EXPECT(p->t, str_find(trace, S("for <fwd@local.test>")) < trace.len);
    EXPECT(p->t, str_find(trace, S("with ESMTP")) < trace.len);
    EXPECT_INT(p->t, m->body, BODY_7BIT);
    EXPECT_INT(p->t, m->len, 0);
    peer_leave(p);
    EXPECT_INT(p->t, p->site->report.messages, 2);
    EXPECT_INT(p->t, p->site->report.recipients, 4);
    EXPECT_INT(p->t, p->site->report.refused, 1);
    EXPECT_STR(p->t, str_from_cstr(p->site->last_refused), S("RCPT TO:<LIST@local.test>"));
    EXPECT_STR(p->t, str_from_cstr(p->site->ended), S("closed by the client"));
}

static void
envelopes_test(struct test *t)
{
    in_world(t, looks_a_list_up_only_so_often);
    in_world(t, stores_envelopes);
}

/* A message of many blocks, lines and dots, sent in odd pieces, must come out as it went in. */
static void
stores_large(struct peer *p)
{
    size_t len = 3 << 20, at = 0;
    char *sent = malloc(2 * len), *want = malloc(len + 128);
    size_t sent_len = 0, want_len = 0;
    struct prng prng;

    CHECK(sent && want);
    prng_seed(&prng, 1);
    while (want_len < len) {
        uint64_t n = prng_below(&prng, 100);
        if (n % 5 == 0) {
            sent[sent_len++] = '.';
            sent[sent_len++] = '.';
            want[want_len++] = '.';
        }
        for (uint64_t i = 0; i < n; i++)
            sent[sent_len++] = want[want_len++] = (char)('a' + i % 26);
        sent[sent_len++] = want[want_len++] = '\r';
        sent[sent_len++] = want[want_len++] = '\n';
        if (want_len < 200) /* the header ends early */
            sent[sent_len++] = want[want_len++] = '\r', sent[sent_len++] = want[want_len++] = '\n';
    }
    memcpy(sent + sent_len, ".\r\n", 3);
    sent_len += 3;

    peer_connect(p);
    if (peer_begin(p) && peer_begin_message(p)) {
        while (at < sent_len) {
            size_t n = 1 + (size_t)prng_below(&prng, 70000);
            n = n < sent_len - at ? n : sent_len - at;
            peer_send(p, str_new(sent + at, n));
            at += n;
        }
        peer_expect(p, S("250"));
        const struct fake_message *m = last_message(p);
        EXPECT(p->t, str_eq(str_new(m->content, m->len), str_new(want, want_len)));
        EXPECT(p->t, p->site->puts < 2000); /* blocks, not lines */
    }
    peer_leave(p);
    free(sent);
    free(want);
}

static void
large_test(struct test *t)
{
    in_world(t, stores_large);
}

/* ---- limits ------------------------------------------------------------------------------------------------------ */

static void
repeat(struct peer *p, struct str line, int count, struct str code)
{
    for (int i = 0; i < count; i++) {
        peer_send(p, line);
        if (!peer_expect(p, code))
            return;
    }
}

static void
holds_limits(struct peer *p)
{
    char *big = malloc(2 << 20);

    CHECK(big != NULL);
    test_case(p->t, "a command line of just 2048 bytes");
    peer_connect(p);
    peer_begin(p);
    memset(big, 'x', 2 << 20);
    memcpy(big, "NOOP ", 5);
    memcpy(big + LIMIT_COMMAND_LINE - 2, "\r\n", 2);
    peer_send(p, str_new(big, LIMIT_COMMAND_LINE));
    peer_expect(p, S("250"));
    test_case(p->t, "one byte more, and it is one command");
    memcpy(big + LIMIT_COMMAND_LINE - 2, "xx\r\nNOOP\r\n", 9);
    memcpy(big + LIMIT_COMMAND_LINE - 1, "\r\nNOOP\r\n", 8);
    peer_send(p, str_new(big, LIMIT_COMMAND_LINE + 7));
    peer_expect(p, S("500 250"));
    test_case(p->t, "a command line of a MiB");
    memset(big, 'x', 2 << 20);
    memcpy(big + (1 << 20), "\r\nNOOP\r\n", 8);
    peer_send(p, str_new(big, (1 << 20) + 8));
    peer_expect(p, S("500 250"));
    test_case(p->t, "a bare LF in a line that is too long");
    big[1 << 19] = '\n';
    peer_send(p, str_new(big, (1 << 20) + 8));
    peer_expect(p, S("500 end"));
    peer_leave(p);

    test_case(p->t, "20 wrong commands, and one more");
    peer_connect(p);
    peer_expect(p, S("220"));
    repeat(p, S("FOOBAR\r\n"), 20, S("500"));
    peer_send(p, S("FOOBAR\r\n"));
    peer_expect(p, S("421 end"));
    peer_leave(p);
    EXPECT_INT(p->t, p->site->report.wrong, 21);

    test_case(p->t, "RCPT out of order is wrong like others");
    peer_connect(p);
    peer_begin(p);
    repeat(p, S("RCPT TO:<ok@local.test>\r\n"), 20, S("503"));
    peer_send(p, S("RCPT TO:<ok@local.test>\r\n"));
    peer_expect(p, S("421 end"));
    peer_leave(p);

    test_case(p->t, "RCPT and DATA that were in flight behind a refused MAIL are excused");
    peer_connect(p);
    peer_begin(p);
    peer_send(p, S("MAIL FROM:<> SIZE=99999999999\r\n"));
    peer_expect(p, S("552"));
    repeat(p, S("RCPT TO:<ok@local.test>\r\n"), 50, S("503"));
    peer_send(p, S("DATA\r\nRSET\r\nMAIL FROM:<>\r\n"));
    peer_expect(p, S("503 250 250"));
    peer_leave(p);

    test_case(p->t, "100 commands without a message, and one more");
    peer_connect(p);
    peer_begin(p);
    repeat(p, S("NOOP\r\n"), 99, S("250"));
    peer_send(p, S("NOOP\r\n"));
    peer_expect(p, S("421 end"));
    peer_leave(p);

    test_case(p->t, "the same with DATA and with chunks that no recipient is there for");
    for (int i = 0; i < 2; i++) {
        peer_connect(p);
        peer_begin(p);
        peer_send(p, S("MAIL FROM:<>\r\nRCPT TO:<nobody@local.test>\r\n"));
        peer_expect(p, S("250 550"));
        repeat(p, i ? S("BDAT 1 LAST\r\nx") : S("DATA\r\n"), 99, S("554"));
        peer_send(p, i ? S("BDAT 1 LAST\r\nx") : S("DATA\r\n"));
        peer_expect(p, S("421 end"));
        peer_leave(p);
    }

    test_case(p->t, "and with messages that are all refused");
    for (int i = 0; i < 2; i++) {
        peer_connect(p);
        peer_begin(p);
        for (int j = 0; j < 100; j++) {
            peer_send(p, S("MAIL FROM:<>\r\nRCPT TO:<ok@local.test>\r\n"));
            peer_expect(p, S("250 250"));
            peer_send(p, i ? S("BDAT 2 LAST\r\nx\n") : S("DATA\r\n"));
            if (i == 0) {
                peer_expect(p, S("354"));
                peer_send(p, S("x\n\r\n.\r\n"));
            }
            if (!peer_expect(p, i && j == 99 ? S("421 end") : S("550")))
                break;
        }
        if (i == 0) {
            peer_send(p, S("MAIL FROM:<>\r\n"));
            peer_expect(p, S("421 end"));
        }
        peer_leave(p);
    }

    test_case(p->t, "20 refused recipients and none accepted, and one more");
    peer_connect(p);
    peer_begin(p);
    peer_send(p, S("MAIL FROM:<>\r\n"));
    peer_expect(p, S("250"));
    repeat(p, S("RCPT TO:<nobody@local.test>\r\n"), 20, S("550"));
    peer_send(p, S("RCPT TO:<nobody@local.test>\r\n"));
    peer_expect(p, S("421 end"));
    peer_leave(p);

    test_case(p->t, "25 unknown and 5 good recipients: the five get it");
    peer_connect(p);
    peer_begin(p);
    peer_send(p, S("MAIL FROM:<>\r\nRCPT TO:<user0@local.test>\r\n"));
    peer_expect(p, S("250 250"));
    repeat(p, S("RCPT TO:<nobody@local.test>\r\n"), 25, S("550"));
    for (int i = 1; i < 5; i++) {
        char line[64];
        struct text text = text_init(line, sizeof line);
        text_putf(&text, "RCPT TO:<user%d@local.test>\r\n", i);
        peer_send(p, text_str(&text));
        peer_expect(p, S("250"));
    }
    peer_send(p, S("DATA\r\n"));
    peer_expect(p, S("354"));
    peer_send(p, S(".\r\n"));
    peer_expect(p, S("250"));
    EXPECT_INT(p->t, last_message(p)->recipient_count, 5);

    test_case(p->t, "a message of just the limit, and larger by one");
    p->settings.size_max = 1000;
    for (int over = 0; over < 2; over++) {
        peer_begin_message(p);
        memset(big, 'x', 1000);
        memcpy(big + 998 + over, "\r\n.\r\n", 5);
        peer_send(p, str_new(big, 1003 + (size_t)over));
        peer_expect(p, over ? S("552") : S("250"));
    }
    test_case(p->t, "SIZE= over the limit by one");
    peer_send(p, S("MAIL FROM:<> SIZE=1001\r\n"));
    peer_expect(p, S("552"));
    peer_leave(p);
    free(big);
}

static void
limits_test(struct test *t)
{
    in_world(t, holds_limits);
}

/* Sends many RCPTs and reads the replies beside: counts by code. */
struct flood {
    struct peer *p;
    int count, padding; /* padding: digits more in each name and ORCPT */
};
static void
send_rcpts(void *arg)
{
    struct flood *f = arg;

    for (int i = 0; i < f->count; i++) {
        char line[LIMIT_COMMAND_LINE];
        struct text text = text_init(line, sizeof line);
        text_putf(&text, "RCPT TO:<user%0*d@local.test>", f->padding, i);
        if (f->padding > 0)
            text_putf(&text, " ORCPT=rfc822;user%0*d", f->padding, i);
        text_put(&text, S("\r\n"));
        if (!peer_send(f->p, text_str(&text)))
            return;
    }
}

static void
takes_many_recipients(struct peer *p)
{
    struct flood flood = {p, 10001, 0};
    struct scope scope;
    int ok = 0, later = 0, code;

    peer_connect(p);
    peer_begin(p);
    peer_send(p, S("MAIL FROM:<>\r\n"));
    peer_expect(p, S("250"));
    scope_init(&scope, p->rt);
    scope_start(&scope, "rcpts", send_rcpts, &flood);
    while ((code = peer_read(p)) == 250 || code == 452) {
        ok += code == 250;
        later += code == 452;
    }
    EXPECT_INT(p->t, ok, LIMIT_RCPT_PER_TRANSACTION);
    EXPECT_INT(p->t, later, LIMIT_RCPT_COMMANDS - LIMIT_RCPT_PER_TRANSACTION);
    EXPECT_INT(p->t, code, 421);
    scope_end(&scope);
    peer_leave(p);
    EXPECT_INT(p->t, p->site->committed, 0);
}

static void
many_recipients_test(struct test *t)
{
    in_world(t, takes_many_recipients);
}

/* The envelope has a limit in bytes too; who has no room comes in another transaction. */
static void
takes_long_recipients(struct peer *p)
{
    struct flood flood = {p, 5000, 450};
    struct scope scope;
    int ok = 0, later = 0;

    p->settings.rcpt_max = LIMIT_RCPT_EXPANDED;
    peer_connect(p);
    peer_begin(p);
    peer_send(p, S("MAIL FROM:<>\r\n"));
    peer_expect(p, S("250"));
    scope_init(&scope, p->rt);
    scope_start(&scope, "rcpts", send_rcpts, &flood);
    for (int i = 0, code = 0; i < flood.count && code >= 0; i++) {
        code = peer_read(p);
        ok += code == 250 && later == 0;
        later += code == 452 && peer_said(p, S("4.5.3"));
    }
    EXPECT(p->t, ok > LIMIT_RCPT_PER_TRANSACTION && later > 0);
    EXPECT_INT(p->t, ok + later, flood.count);
    scope_end(&scope);
    peer_send(p, S("DATA\r\n"));
    peer_expect(p, S("354"));
    peer_send(p, S("Subject: x\r\n\r\nhi\r\n.\r\n"));
    peer_expect(p, S("250"));
    EXPECT_INT(p->t, last_message(p)->recipient_count, (size_t)ok);

    test_case(p->t, "the next transaction begins with room");
    peer_send(p, S("MAIL FROM:<>\r\nRCPT TO:<ok@local.test>\r\n"));
    peer_expect(p, S("250 250"));
    peer_leave(p);
}

static void
long_recipients_test(struct test *t)
{
    in_world(t, takes_long_recipients);
}

static void
takes_tiny_chunks(struct peer *p)
{
    enum { CHUNKS = 10000 };

    peer_connect(p);
    peer_begin(p);
    peer_send(p, S("MAIL FROM:<>\r\nRCPT TO:<ok@local.test>\r\n"));
    peer_expect(p, S("250 250"));
    for (int i = 0; i < CHUNKS / 10; i++) {
        for (int j = 0; j < 10; j++)
            peer_send(p, S("BDAT 1\r\nx"));
        for (int j = 0; j < 10; j++)
            if (!peer_expect(p, S("250")))
                return;
    }
    peer_send(p, S("BDAT 2 LAST\r\n\r\n"));
    peer_expect(p, S("250"));
    EXPECT_INT(p->t, last_message(p)->len, CHUNKS + 2);
    peer_leave(p);
}

static void
tiny_chunks_test(struct test *t)
{
    in_world(t, takes_tiny_chunks);
}

/* ---- time and trouble -------------------------------------------------------------------------------------------- */

static void
gives_up(struct peer *p)
{
    test_case(p->t, "no command comes");
    p->settings.command_wait = 30 * MILLISECOND;
    peer_connect(p);
    peer_expect(p, S("220 421 end"));
    peer_leave(p);
    EXPECT_STR(p->t, str_from_cstr(p->site->ended), S("timeout"));

    test_case(p->t, "a command line that drips");
    peer_connect(p);
    peer_expect(p, S("220"));
    for (int i = 0; i < 20 && peer_send(p, S("x")); i++)
        (void)rt_sleep(p->rt, within(p->rt, 5 * MILLISECOND));
    peer_expect(p, S("421 end"));
    peer_leave(p);

    test_case(p->t, "content stops");
    p->settings = listener_settings_default(S("mx.local.test"));
    p->settings.block_wait = 30 * MILLISECOND;
    peer_connect(p);
    peer_begin(p);
    peer_begin_message(p);
    peer_send(p, S("Subject: x\r\n\r\nhal"));
    peer_expect(p, S("421 end"));
    peer_leave(p);

    test_case(p->t, "content drips");
    p->settings.block_wait = 10 * SECOND;
    p->settings.rate_window = 100 * MILLISECOND;
    p->settings.rate_bytes = 10000;
    peer_connect(p);
    peer_begin(p);
    peer_begin_message(p);
    for (int i = 0; i < 40 && peer_send(p, S("x")); i++)
        (void)rt_sleep(p->rt, within(p->rt, 5 * MILLISECOND));
    peer_expect(p, S("421 end"));
    peer_leave(p);
    EXPECT_STR(p->t, str_from_cstr(p->site->ended), S("content came too slowly"));

    test_case(p->t, "the client goes within DATA, and within BDAT");
    for (int i = 0; i < 2; i++) {
        peer_connect(p);
        peer_begin(p);
        if (i == 0) {
            peer_begin_message(p);
            peer_send(p, S("Subject: x\r\n\r\n.\r"));
        } else {
            peer_send(p, S("MAIL FROM:<>\r\nRCPT TO:<ok@local.test>\r\nBDAT 100 LAST\r\nx"));
            peer_expect(p, S("250 250"));
        }
        peer_leave(p);
    }
    EXPECT_INT(p->t, p->site->committed, 0);
}

static void
gives_up_test(struct test *t)
{
    in_world(t, gives_up);
}

/* ---- minutes apart, by a clock that leaps; with the limits as they are ---- */

enum { LINES = 500 };
static char lines[LINES * 80]; /* enough for the minimum rate */

struct late_step {
    int64_t after; /* seconds */
    struct str send, codes;
};

static void
peer_wait(struct peer *p, int64_t seconds)
{
    CHECK(!err_is(rt_sleep(p->rt, within(p->rt, seconds * SECOND))));
}

static bool
peer_play_late(struct peer *p, const struct late_step *steps, size_t count)
{
    for (size_t i = 0; i < count && steps[i].send.len > 0; i++) {
        peer_wait(p, steps[i].after);
        peer_send(p, steps[i].send);
        if (!peer_expect(p, steps[i].codes))
            return false;
    }
    return true;
}

/* A client that takes almost all the time that it has, again and again, is served to the end. */
static void
waits_for_the_patient(struct peer *p)
{
    static const struct {
        const char *why;
        struct late_step steps[14];
    } patient[] = {
        {"one command at a time",
         {{295, EHLO, STR("250")},
          {295, NOOP, STR("250")},
          {295, MAIL, STR("250")},
          {295, RCPT, STR("250")},
          {295, RCPT, STR("250")},
          {295, DATA, STR("354")},
          {175, {lines, sizeof lines}, STR("")},
          {175, {lines, sizeof lines}, STR("")},
          {175, STR(".\r\n"), STR("250")},
          {295, MAIL, STR("250")},
          {295, QUIT, STR("221 end")}}},
        {"commands in pieces",
         {{0, EHLO, STR("250")},
          {295, STR("MAIL FROM:<a@b.test>\r\nRCPT TO:<ok@loc"), STR("250")},
          {100, STR("al.te"), STR("")},
          {100, STR("st>"), STR("")},
          {95, STR("\r\nRCPT TO:<v@local.test>\r\nDA"), STR("250 250")},
          {295, STR("TA\r\n"), STR("354")},
          {175, {lines, sizeof lines}, STR("")},
          {175, STR(".\r\nQUIT"), STR("250")},
          {295, STR("\r\n"), STR("221 end")}}},
        {"chunks, and between chunks",
         {{0, EHLO, STR("250")},
          {0, STR("MAIL FROM:<a@b.test>\r\nRCPT TO:<ok@local.test>\r\n"), STR("250 250")},
          {295, STR("BDAT 40000\r\n"), STR("")},
          {175, {lines, sizeof lines}, STR("250")},
          {295, STR("BDAT 2 L"), STR("")},
          {4, STR("AST\r\n"), STR("")},
          {175, STR("\r\n"), STR("250")},
          {295, QUIT, STR("221 end")}}},
    };

    p->patience = HOUR;
    for (size_t i = 0; i < LINES; i++)
        memcpy(lines + i * 80, "345678 1 2345678 2 2345678 3 2345678 4 2345678 5 2345678 6 2345678 7 2345678 8\r\n", 80);
    for (size_t i = 0; i < sizeof patient / sizeof *patient; i++) {
        test_case(p->t, patient[i].why);
        peer_connect(p);
        if (peer_expect(p, S("220")))
            peer_play_late(p, patient[i].steps, sizeof patient[i].steps / sizeof *patient[i].steps);
        peer_leave(p);
    }
    EXPECT_INT(p->t, p->site->committed, sizeof patient / sizeof *patient);
}

/* And one that takes more than it has, anywhere, is told so when the time has come: not before, not later. */
static void
sends_the_late_away(struct peer *p)
{
    static const struct {
        const char *why;
        int64_t seconds; /* from the greeting to 421 */
        struct late_step steps[6];
    } cases[] = {
        {"before EHLO", 300, {{0}}},
        {"within EHLO", 300, {{100, STR("EHLO cl"), STR("")}}},
        {"behind EHLO", 400, {{100, EHLO, STR("250")}}},
        {"behind MAIL", 400, {{0, EHLO, STR("250")}, {100, MAIL, STR("250")}}},
        {"behind RCPT", 400, {{0, EHLO, STR("250")}, {0, MAIL, STR("250")}, {100, RCPT, STR("250")}}},
        {"a command that drips",
         300,
         {{0, EHLO, STR("250")}, {100, STR("N"), STR("")}, {100, STR("O"), STR("")}, {99, STR("O"), STR("")}}},
        {"a command without its LF", 300, {{0, EHLO, STR("250")}, {200, STR("NOOP\r"), STR("")}}},
        {"behind 354",
         280,
         {{0, EHLO, STR("250")}, {0, MAIL, STR("250")}, {0, RCPT, STR("250")}, {100, DATA, STR("354")}}},
        {"within content",
         350,
         {{0, EHLO, STR("250")},
          {0, MAIL, STR("250")},
          {0, RCPT, STR("250")},
          {0, DATA, STR("354")},
          {170, {lines, sizeof lines}, STR("")}}},
        {"before the very last byte",
         280,
         {{0, EHLO, STR("250")},
          {0, MAIL, STR("250")},
          {0, RCPT, STR("250")},
          {0, DATA, STR("354")},
          {100, STR("x\r\n.\r"), STR("")}}},
        {"content that drips",
         300,
         {{0, EHLO, STR("250")},
          {0, STR("MAIL FROM:<>\r\nRCPT TO:<ok@local.test>\r\nDATA\r\n"), STR("250 250 354")},
          {100, STR("x"), STR("")},
          {100, STR("x"), STR("")},
          {100, STR("x"), STR("")}}},
        {"a chunk that does not come",
         180,
         {{0, EHLO, STR("250")},
          {0, STR("MAIL FROM:<>\r\nRCPT TO:<ok@local.test>\r\nBDAT 3 LAST\r\n.\r"), STR("250 250")}}},
        {"chunks that drip",
         598,
         {{0, EHLO, STR("250")},
          {0, STR("MAIL FROM:<>\r\nRCPT TO:<ok@local.test>\r\nBDAT 1\r\nx"), STR("250 250 250")},
          {299, STR("BDAT 1\r\nx"), STR("250")},
          {299, STR("BDAT 0\r\n"), STR("")}}},
        {"behind a chunk",
         300,
         {{0, EHLO, STR("250")},
          {0, STR("MAIL FROM:<>\r\nRCPT TO:<ok@local.test>\r\nBDAT 3\r\nabc"), STR("250 250 250")}}},
    };

    p->patience = HOUR;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        test_case(p->t, cases[i].why);
        peer_connect(p);
        peer_expect(p, S("220"));
        int64_t began = rt_now(p->rt);
        peer_play_late(p, cases[i].steps, sizeof cases[i].steps / sizeof *cases[i].steps);
        peer_expect(p, S("421 end"));
        EXPECT_INT(p->t, (rt_now(p->rt) - began) / SECOND, cases[i].seconds);
        peer_leave(p);
    }
    EXPECT_INT(p->t, p->site->committed, 0);
}

static void
wait_for_slow(struct peer *p, size_t asked)
{
    while (p->site->slow_asked < asked)
        CHECK(!err_is(rt_sleep(p->rt, within(p->rt, MILLISECOND))));
}

/* What the server itself must ask for may take minutes: its replies come minutes apart, each as soon as it is known. */
static void
answers_late(struct peer *p)
{
    p->patience = HOUR;
    test_case(p->t, "three recipients that the next hop must be asked for");
    peer_connect(p);
    peer_begin(p);
    int64_t began = rt_now(p->rt);
    peer_send(p, S("MAIL FROM:<>\r\nRCPT TO:<slow@local.test>\r\nRCPT TO:<slow@local.test>\r\n"
                   "RCPT TO:<slow@local.test>\r\n"));
    for (size_t i = 1; i <= 3; i++) {
        wait_for_slow(p, i);
        peer_wait(p, 115);
        event_wake(p->rt, &p->site->slow);
        peer_expect(p, i == 1 ? S("250 250") : S("250"));
        EXPECT_INT(p->t, (rt_now(p->rt) - began) / SECOND, 115 * i);
    }
    test_case(p->t, "and one that gives no answer");
    peer_send(p, S("RCPT TO:<slow@local.test>\r\nNOOP\r\n"));
    began = rt_now(p->rt);
    peer_expect(p, S("450 250"));
    EXPECT_INT(p->t, (rt_now(p->rt) - began) / SECOND, LIMIT_ANSWER_NS / SECOND);

    for (int late = 0; late < 2; late++) {
        test_case(p->t, late ? "a commit that does not end" : "a commit of minutes");
        p->site->commit_takes = LIMIT_COMMIT_NS + (late ? 1 : -1) * SECOND;
        peer_send(p, late ? S("MAIL FROM:<>\r\nRCPT TO:<ok@local.test>\r\nDATA\r\n") : S("DATA\r\n"));
        peer_expect(p, late ? S("250 250 354") : S("354"));
        peer_send(p, S(".\r\n"));
        began = rt_now(p->rt);
        peer_expect(p, late ? S("451") : S("250"));
        EXPECT_INT(p->t, (rt_now(p->rt) - began) / SECOND, LIMIT_COMMIT_NS / SECOND - !late);
    }
    EXPECT_INT(p->t, p->site->committed, 1);
    peer_leave(p);
}

static void
minutes_test(struct test *t)
{
    in_leaping_world(t, waits_for_the_patient);
    in_leaping_world(t, sends_the_late_away);
    in_leaping_world(t, answers_late);
}

/* A recipient that the next hop must be asked for takes its time; whoever pipelined a hundred of them must not wait for
 * the last one's answer to hear the first. */
static void
tells_in_time(struct peer *p)
{
    peer_connect(p);
    peer_begin(p);
    peer_send(p, S("MAIL FROM:<>\r\nRCPT TO:<slow@local.test>\r\nRCPT TO:<slow@local.test>\r\n"));
    wait_for_slow(p, 1);
    (void)rt_sleep(p->rt, within(p->rt, SECOND + 10 * MILLISECOND)); /* so slow is slow */
    event_wake(p->rt, &p->site->slow);
    wait_for_slow(p, 2);
    peer_expect(p, S("250 250"));
    event_wake(p->rt, &p->site->slow);
    peer_expect(p, S("250"));
    peer_leave(p);
}

static void
tells_in_time_test(struct test *t)
{
    in_world(t, tells_in_time);
}

static void
reports_trouble(struct peer *p)
{
    static const struct {
        const char *why;
        int begin, put, commit;
        struct str codes;
    } cases[] = {
        {"no room at DATA", ERR_NO_SPACE, 0, 0, STR("452")},
        {"no store at DATA", ERR_CLOSED, 0, 0, STR("451")},
        {"no room for the content", 0, ERR_NO_SPACE, 0, STR("354 452")},
        {"no store for the content", 0, ERR_CLOSED, 0, STR("354 451")},
        {"commit says no", 0, 0, ERR_IO, STR("354 451")},
        {"commit cannot be known", 0, 0, ERR_UNKNOWN, STR("354 451")},
        {"no room at commit", 0, 0, ERR_NO_SPACE, STR("354 452")},
        {"more recipients than the spool can ever keep", 0, 0, ERR_LIMIT, STR("354 552")},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int bdat = 0; bdat < 2; bdat++) {
            struct str codes = cases[i].codes;
            struct str first = str_cut_word(&codes);
            size_t logged = p->site->refusals_logged;
            test_case(p->t, cases[i].why);
            p->site->begin_error = ERR(cases[i].begin, "begin");
            p->site->put_error = ERR(cases[i].put, "put");
            p->site->commit_error = ERR(cases[i].commit, "commit");
            peer_connect(p);
            peer_begin(p);
            peer_send(p, S("MAIL FROM:<>\r\nRCPT TO:<ok@local.test>\r\n"));
            peer_expect(p, S("250 250"));
            if (bdat) {
                peer_send(p, S("BDAT 3 LAST\r\nx\r\n"));
                peer_expect(p, codes.len > 0 ? codes : first);
            } else {
                peer_send(p, S("DATA\r\n"));
                peer_expect(p, first);
                if (codes.len > 0)
                    peer_send(p, S("x\r\n.\r\n"));
                peer_expect(p, codes);
            }
            peer_send(p, S("RSET\r\nMAIL FROM:<>\r\n"));
            peer_expect(p, S("250 250"));
            EXPECT_INT(p->t, p->site->refusals_logged, logged + 1);
            peer_leave(p);
        }

    test_case(p->t, "a line too long between chunks: logged once, when the message was lost");
    size_t logged = p->site->refusals_logged;
    char line[2 * LIMIT_COMMAND_LINE + 2];
    memset(line, 'x', sizeof line - 2);
    memcpy(line + sizeof line - 2, "\r\n", 2);
    p->site->begin_error = p->site->put_error = p->site->commit_error = OK;
    peer_connect(p);
    peer_begin(p);
    peer_send(p, S("MAIL FROM:<>\r\nRCPT TO:<ok@local.test>\r\nBDAT 1\r\nx"));
    peer_expect(p, S("250 250 250"));
    peer_send(p, str_new(line, sizeof line));
    peer_send(p, S("BDAT 2 LAST\r\n\r\n"));
    peer_expect(p, S("500 503"));
    EXPECT_INT(p->t, p->site->refusals_logged, logged + 1);
    peer_leave(p);
    EXPECT_INT(p->t, p->site->committed, 0);
}

static void
trouble_test(struct test *t)
{
    in_world(t, reports_trouble);
}

static void
keeps_the_door(struct peer *p)
{
    static const struct reply busy = {421, STR("4.7.0"), STR("Too many connections from you")};
    static const struct reply never = {554, STR(""), STR("No mail from you")};
    static const struct reply no_mail = {521, STR(""), STR("This host takes no mail")};

    test_case(p->t, "421 at connect");
    p->site->admission = &busy;
    peer_connect(p);
    peer_expect(p, S("421 end"));
    peer_leave(p);

    test_case(p->t, "554: only QUIT is left");
    p->site->admission = &never;
    peer_connect(p);
    peer_play(p,
              (struct step[]){{STR(""), STR("554")},
                              {EHLO, STR("503")},
                              {MAIL, STR("503")},
                              {STR("FOO\r\n"), STR("503")},
                              {QUIT, STR("221 end")}},
              5);
    peer_leave(p);

    test_case(p->t, "521: that is said to everything but QUIT");
    p->site->admission = &no_mail;
    peer_connect(p);
    peer_play(p, (struct step[]){{STR(""), STR("521")}, {EHLO, STR("521")}, {NOOP, STR("521")}, {QUIT, STR("221 end")}},
              4);
    peer_leave(p);
    p->site->admission = NULL;

    test_case(p->t, "who speaks before the greeting");
    p->settings.greeting_delay = 10 * SECOND;
    peer_connect(p);
    peer_send(p, S("EHLO x\r\n"));
    peer_expect(p, S("554 end"));
    peer_leave(p);
    test_case(p->t, "and where that is taken");
    p->settings.refuse_early_talk = false;
    peer_connect(p);
    peer_send(p, S("EHLO x\r\n"));
    peer_expect(p, S("220 250"));
    peer_leave(p);
    p->settings.greeting_delay = 0;

    test_case(p->t, "over the memory budget");
    p->site->over_budget = true;
    peer_connect(p);
    peer_begin(p);
    peer_send(p, S("MAIL FROM:<>\r\n"));
    peer_expect(p, S("452"));
    p->site->over_budget = false;
    peer_send(p, S("MAIL FROM:<>\r\nRCPT TO:<ok@local.test>\r\nDATA\r\n"));
    peer_expect(p, S("250 250 354"));
    test_case(p->t, "draining: the message is finished first");
    p->site->draining = true;
    EXPECT(p->t, p->client.busy);
    peer_send(p, S(".\r\n"));
    peer_expect(p, S("250 421 end"));
    peer_leave(p);
    p->site->draining = false;

    test_case(p->t, "cancelled while idle, and within content");
    for (int i = 0; i < 2; i++) {
        peer_connect(p);
        peer_begin(p);
        if (i == 1)
            peer_begin_message(p);
        EXPECT_INT(p->t, p->client.busy, i);
        scope_cancel(&p->scope);
        peer_expect(p, S("421 end"));
        peer_leave(p);
    }
    EXPECT_INT(p->t, p->site->committed, 1);
}

static void
door_test(struct test *t)
{
    in_world(t, keeps_the_door);
}

static void
offers_what_works(struct peer *p)
{
    static const struct str always[] = {STR("250-PIPELINING\r\n"), STR("250-SIZE 52428800\r\n"),
                                        STR("250-8BITMIME\r\n"),   STR("250-ENHANCEDSTATUSCODES\r\n"),
                                        STR("250-CHUNKING\r\n"),   STR("250-SMTPUTF8\r\n"),
                                        STR("250-DSN\r\n"), STR("250-DELIVERBY\r\n"),        STR("250-LIMITS RCPTMAX=1000\r\n"),
                                        STR("250-ETRN\r\n"),       STR("250 HELP\r\n")};

    peer_connect(p);
    peer_begin(p);
    for (size_t i = 0; i < sizeof always / sizeof *always; i++) {
        test_case(p->t, always[i].ptr);
        EXPECT(p->t, peer_said(p, always[i]));
    }
    EXPECT(p->t, !peer_said(p, S("VRFY")) && !peer_said(p, S("EXPN")) && !peer_said(p, S("BINARYMIME")));
    peer_leave(p);

    test_case(p->t, "VRFY and EXPN on; no size limit");
    p->settings.vrfy = p->settings.expn = OFFER_ON;
    p->settings.size_max = 0;
    peer_connect(p);
    peer_begin(p);
    EXPECT(p->t, peer_said(p, S("250-VRFY\r\n")) && peer_said(p, S("250-EXPN\r\n")) && peer_said(p, S("250-SIZE\r\n")));
    peer_play(p, (struct step[]){{STR("VRFY ok SMTPUTF8\r\n"), STR("250")}, {STR("VRFY nobody\r\n"), STR("550")}}, 2);
    peer_send(p, S("EXPN list\r\n"));
    peer_expect(p, S("250"));
    EXPECT(p->t, peer_said(p, S("250-2.1.5 <ok@local.test>\r\n250 2.1.5 <v@local.test>\r\n")));
    peer_leave(p);

    test_case(p->t, "local: not to strangers");
    p->settings.vrfy = OFFER_LOCAL;
    peer_connect(p);
    peer_begin(p);
    EXPECT(p->t, !peer_said(p, S("VRFY")));
    peer_send(p, S("VRFY ok\r\n"));
    peer_expect(p, S("252"));
    peer_leave(p);
    p->settings.trusted = true;
    peer_connect(p);
    peer_begin(p);
    EXPECT(p->t, peer_said(p, S("VRFY")));
    peer_leave(p);
}

static void
offers_test(struct test *t)
{
    in_world(t, offers_what_works);
}

static void
send_header(struct peer *p, size_t count)
{
    char line[256];

    memset(line, 'x', sizeof line);
    memcpy(line, "X-Long: ", 8);
    memcpy(line + sizeof line - 2, "\r\n", 2);
    for (size_t i = 0; i < count; i++)
        peer_send(p, str_new(line, sizeof line));
}

/* What is kept of a header until it is whole. */
static void
keeps_headers_within_bounds(struct peer *p)
{
    static const struct { const char *why; size_t fields; bool over_budget; struct str codes; } cases[] = {
        { "a long one", 2000, false, STR("250") },
        { "a short one while memory is scarce", 40, true, STR("250") },
        { "a long one while memory is scarce", 2000, true, STR("452") },
    };

    p->settings.complete = true;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        test_case(p->t, cases[i].why);
        peer_connect(p);
        peer_begin(p);
        peer_begin_message(p);
        p->site->over_budget = cases[i].over_budget;
        send_header(p, cases[i].fields);
        peer_send(p, S("\r\nx\r\n.\r\n"));
        peer_expect(p, cases[i].codes);
        p->site->over_budget = false;
        peer_begin_message(p);
        peer_send(p, S("Subject: x\r\n\r\nx\r\n.\r\n"));
        peer_expect(p, S("250"));
        peer_leave(p);
    }

    test_case(p->t, "one that is too long goes at once");
    peer_connect(p);
    peer_begin(p);
    peer_begin_message(p);
    size_t before = mem_in_use(rt_mem(p->rt)), aborted = p->site->aborted;
    send_header(p, LIMIT_HEADER_BYTES / 256 + 1000);
    while (p->site->aborted == aborted)
        fiber_yield(p->rt);
    EXPECT(p->t, mem_in_use(rt_mem(p->rt)) < before + LIMIT_HEADER_BYTES / 2);
    peer_send(p, S("\r\nx\r\n.\r\n"));
    peer_expect(p, S("554"));
    peer_leave(p);
    p->settings.complete = false;
}

static void
header_memory_test(struct test *t)
{
    in_world(t, keeps_headers_within_bounds);
}

/* XCLIENT: the session of another client, from the greeting on. */
static void
speaks_for_others(struct peer *p)
{
    static const struct str tell = STR("XCLIENT NAME=host.told.test ADDR=IPV6:2001:db8::7 PORT=77 HELO=helo.told.test DESTADDR=192.0.2.25\r\n");
    static const struct reply busy = { 421, STR("4.7.0"), STR("Too many of you") };
    static const struct reply refused = { 554, STR("5.7.1"), STR("Not you") };

    test_case(p->t, "not from everybody");
    p->site->reverse_name = S("host.client.test");
    peer_connect(p);
    peer_expect(p, S("220"));
    peer_send(p, tell);
    peer_expect(p, S("550"));
    peer_send(p, S("EHLO client.test\r\n"));
    peer_expect(p, S("250"));
    EXPECT(p->t, !peer_said(p, S("XCLIENT")));
    peer_leave(p);

    test_case(p->t, "in a transaction");
    p->settings.xclient = true;
    peer_connect(p);
    peer_begin(p);
    EXPECT(p->t, peer_said(p, S("XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT\r\n")));
    peer_send(p, S("MAIL FROM:<a@b.test>\r\n"));
    peer_expect(p, S("250"));
    peer_send(p, tell);
    peer_expect(p, S("503"));
    EXPECT_INT(p->t, p->site->told, 0);
    test_case(p->t, "wrong words");
    peer_send(p, S("RSET\r\nXCLIENT\r\nXCLIENT ADDR=there\r\nXCLIENT LOGIN=anna\r\n"));
    peer_expect(p, S("250 501 501 550"));
    EXPECT_INT(p->t, p->site->told, 0);
    EXPECT_STR(p->t, p->client.helo, S("client.test"));

    test_case(p->t, "another client");
    p->client.tls.client_name = S("proxy.test");
    peer_send(p, tell);
    peer_expect(p, S("220"));
    EXPECT(p->t, str_is_absent(p->client.tls.client_name)); /* the certificate was the proxy's */
    EXPECT_INT(p->t, p->site->admitted, p->site->left + 1);
    EXPECT_INT(p->t, p->site->told, 1);
    EXPECT_INT(p->t, p->client.address.family, ADDRESS_IPV6);
    EXPECT_INT(p->t, p->client.address.port, 77);
    EXPECT_INT(p->t, p->client.local.family, ADDRESS_IPV4);
    EXPECT_STR(p->t, p->client.reverse_name, S("host.told.test"));
    peer_send(p, S("MAIL FROM:<a@b.test>\r\n"));
    peer_expect(p, S("503"));
    peer_send(p, S("EHLO proxy.test\r\nMAIL FROM:<a@b.test>\r\n"));
    peer_expect(p, S("554 end"));
    peer_leave(p);

    test_case(p->t, "its mail");
    peer_connect(p);
    peer_begin(p);
    peer_send(p, tell);
    peer_begin(p); /* from the greeting on */
    peer_begin_message(p);
    peer_send(p, S("Subject: x\r\n\r\nx\r\n.\r\n"));
    peer_expect(p, S("250"));
    EXPECT(p->t, strstr(p->site->messages[0].trace, "from helo.told.test (host.told.test [IPv6:2001:db8::7])") != NULL);
    test_case(p->t, "and of the next one, of whom less is known");
    peer_send(p, S("XCLIENT ADDR=[UNAVAILABLE] NAME=[UNAVAILABLE]\r\n"));
    peer_begin(p);
    EXPECT_INT(p->t, p->site->told_unknown, 1);
    EXPECT_STR(p->t, p->client.reverse_name, S(""));
    EXPECT_STR(p->t, p->client.helo, S("client.test"));
    test_case(p->t, "who is not known stays so until an address is said");
    peer_send(p, S("XCLIENT PROTO=ESMTP\r\n"));
    peer_begin(p);
    EXPECT_INT(p->t, p->site->told_unknown, 2);
    test_case(p->t, "no end of clients");
    for (int i = 0; i < 7; i++) {
        peer_send(p, S("XCLIENT ADDR=192.0.2.9\r\n"));
        peer_expect(p, S("220"));
    }
    EXPECT_INT(p->t, p->site->told_unknown, 2);
    fiber_yield(p->rt);
    fiber_yield(p->rt);
    EXPECT_STR(p->t, p->client.reverse_name, S("host.client.test"));
    peer_send(p, S("XCLIENT ADDR=192.0.2.9\r\n"));
    peer_expect(p, S("421 end"));
    peer_leave(p);

    test_case(p->t, "a client that is not let in");
    peer_connect(p);
    peer_begin(p);
    p->site->admission = &busy;
    peer_send(p, tell);
    peer_expect(p, S("421 end"));
    p->site->admission = NULL;
    peer_leave(p);
    peer_connect(p);
    peer_begin(p);
    p->site->admission = &refused;
    peer_send(p, tell);
    peer_expect(p, S("554"));
    peer_send(p, S("EHLO x\r\nXCLIENT ADDR=192.0.2.9\r\nQUIT\r\n"));
    peer_expect(p, S("503 503 221 end"));
    p->site->admission = NULL;
    peer_leave(p);
}

static void
speaks_for_others_test(struct test *t)
{
    in_world(t, speaks_for_others);
}

/* design: an idle session must cost well under 8 KiB beside its stack. */
static void
rests_small(struct peer *p)
{
    size_t before;

    p->site->reverse_name = S("host.client.test");
    peer_connect(p); /* the runtime keeps a fiber or two for the next one */
    peer_begin(p);
    peer_leave(p);
    before = mem_in_use(rt_mem(p->rt));
    peer_connect(p);
    peer_begin(p);
    peer_begin_message(p);
    peer_send(p, S("Subject: x\r\n\r\nx\r\n.\r\n"));
    peer_expect(p, S("250"));
    for (int i = 0; i < 5; i++)
        fiber_yield(p->rt);
    size_t used = mem_in_use(rt_mem(p->rt)) - before;
    EXPECT(p->t, used < 2048); /* with the two streams of this test */
    peer_leave(p);
    EXPECT_INT(p->t, mem_in_use(rt_mem(p->rt)), before);
}

static void
rests_small_test(struct test *t)
{
    in_world(t, rests_small);
}

/* Whatever way a dialog is cut into packets, the replies are the same. Lockstep where the standard wants it. */
static void
survives_cuts(struct peer *p)
{
    static const struct str group = STR("MAIL FROM:<a@b.test> SIZE=3\r\nRCPT TO:<ok@local.test>\r\nRCPT "
                                        "TO:<nobody@local.test>\r\nNOOP\r\nBDAT 3\r\na\r\n"
                                        "BDAT 2 LAST\r\n\r\nRSET\r\nFOO\r\nQUIT\r\n");

    for (size_t cut = 1; cut < group.len; cut++) {
        peer_connect(p);
        peer_begin(p);
        peer_send(p, str_slice(group, 0, cut));
        for (int i = 0; i < 3; i++)
            fiber_yield(p->rt);
        peer_send(p, str_from(group, cut));
        if (!peer_expect(p, S("250 250 550 250 250 250 250 500 221 end")))
            break;
        peer_leave(p);
    }
}

static void
cuts_test(struct test *t)
{
    in_world(t, survives_cuts);
}

/* Fragments in any order: whatever comes, replies are well formed, drafts end, and nothing dies. */
static void
survives_nonsense(struct peer *p)
{
    static const struct str fragments[] = {
        EHLO,
        MAIL,
        MAIL,
        RCPT,
        RCPT,
        NOBODY,
        DATA,
        NOOP,
        STR("RSET\r\n"),
        STR("HELP\r\n"),
        STR("VRFY x\r\n"),
        STR("\r\n"),
        STR("BDAT 3\r\nab\r"),
        STR("BDAT 4 LAST\r\na\nb\n"),
        STR("BDAT 2 LAST\r\n\r\n"),
        STR("BDAT 0\r\n"),
        STR("BDAT 70000\r\n"),
        STR(".\r\n"),
        STR("\r\n.\r\n"),
        STR("text\r\n"),
        STR("..\r\n"),
        STR("\r"),
        STR("x"),
        STR("MAIL FROM:<\xff> SMTPUTF8\r\n"),
        STR("MAIL FROM:<a@b.test> SIZE=1 BODY=8BITMIME RET=HDRS ENVID=x\r\n"),
        STR("RCPT TO:<list@local.test> NOTIFY=SUCCESS ORCPT=rfc822;x\r\n"),
        STR("RCPT TO:<sales@local.test>\r\n"),
        STR("\0"),
        STR("ETRN x\r\n"),
        STR("QUI"),
    };
    struct prng prng;

    for (uint64_t seed = 1; seed <= 1000; seed++) {
        char why[32];
        struct text text = text_init(why, sizeof why);
        text_putf(&text, "seed %u", (unsigned)seed);
        test_case(p->t, text_cstr(&text));
        prng_seed(&prng, seed);
        p->settings.line_ends = seed % 2 ? LINE_ENDS_REFUSE : LINE_ENDS_REPAIR;
        peer_connect(p);
        int code = 1;
        if (seed % 4 != 0) /* by chance alone, few would come past EHLO */
            peer_begin(p);
        for (int i = 0; i < 60; i++) {
            peer_send(p, fragments[prng_below(&prng, sizeof fragments / sizeof *fragments)]);
            if (prng_below(&prng, 2) == 0)
                fiber_yield(p->rt);
        }
        stream_shut_down(p->stream);
        while ((code = peer_read(p)) > 0)
            ;
        EXPECT_INT(p->t, code, 0);
        peer_leave(p);
    }
    test_case(p->t, "among the nonsense there were messages");
    EXPECT(p->t, p->site->committed > 20);
}

static void
nonsense_test(struct test *t)
{
    in_world(t, survives_nonsense);
}

TEST_MAIN({"dialogs", dialogs_test}, {"every command at every point", order_test},
          {"envelopes and trace", envelopes_test}, {"a large message", large_test},
          {"limits exceeded by one", limits_test}, {"10,001 recipients", many_recipients_test},
          {"more bytes of recipients than fit", long_recipients_test},
          {"10,000 chunks of a byte", tiny_chunks_test}, {"gives up on time", gives_up_test},
          {"minutes apart", minutes_test}, {"tells in time", tells_in_time_test},
          {"a store in trouble", trouble_test}, {"who may enter", door_test}, {"speaks for others", speaks_for_others_test},
          {"offers what works", offers_test}, {"headers within bounds", header_memory_test},
          {"rests small", rests_small_test}, {"cut at every byte", cuts_test}, {"nonsense", nonsense_test})
