/*
 * Tests of STARTTLS and AUTH in server.c, over real TLS (net/tls.h) and a socket pair, with server_fake.h as the site. A case is
 * what the client sends and the reply codes it gets; "TLS" is a handshake.
 */
#include "base/check.h"
#include "base/test.h"
#include "net/tls.h"
#include "smtp/server.h"
#include "smtp/server_fake.h"

#include <stdlib.h>
#include <string.h>

struct peer {
    struct rt *rt;
    struct test *t;
    struct crypto *crypto;
    struct key *key;
    struct key_table table;
    struct key_signer signer;
    struct tls_server *server;
    struct tls_client *client;
    bool tls_ready;
    struct fake_site site;
    struct listener_settings settings;
    struct server_client who;
    struct wire near, far;
    struct scope scope;
    struct fiber *session;
    char here[16384], failure[200]; /* here: read, not looked at */
    size_t len;
    char reply[4096];
    size_t reply_len;
    char helo[64], protocol[16];
    size_t auth_started, auth_steps, auth_gone, auth_bytes; /* gone: without an end */
    bool auth_login;
};

/* ---- the server's side ------------------------------------------------------------------------------------------- */

static struct peer *
peer_of(void *ctx)
{
    return container_of((struct fake_site *)ctx, struct peer, site);
}

static bool
tls_ready(void *ctx, int64_t until)
{
    (void)until;
    return peer_of(ctx)->tls_ready;
}

static struct err
start_tls(void *ctx, struct wire *wire, int64_t until, struct server_tls *out, struct text *reason)
{
    const struct tls *tls;

    TRY(tls_accept(peer_of(ctx)->server, wire, until, &tls, reason));
    struct tls_facts facts = tls_facts(tls);
    *out = (struct server_tls){ facts.protocol, facts.cipher, facts.server_name, facts.resumed, facts.client_name };
    return OK;
}

static void
log_session(void *ctx, const struct server_client *client, const struct server_report *report)
{
    struct peer *p = peer_of(ctx);
    struct text ended = text_init(p->site.ended, sizeof p->site.ended - 1);
    struct text refused = text_init(p->site.last_refused, sizeof p->site.last_refused - 1);
    struct text failure = text_init(p->failure, sizeof p->failure - 1);
    struct text helo = text_init(p->helo, sizeof p->helo - 1), protocol = text_init(p->protocol, sizeof p->protocol - 1);

    text_put(&ended, report->ended);
    text_put(&refused, report->last_refused);
    text_put(&failure, report->tls_failure);
    text_put(&helo, client->helo);
    text_put(&protocol, client->tls.protocol);
    (void)text_cstr(&ended), (void)text_cstr(&refused), (void)text_cstr(&failure), (void)text_cstr(&helo), (void)text_cstr(&protocol);
    p->site.sessions_logged++;
}

static void
serve(void *arg)
{
    struct peer *p = arg;

    p->session = fiber_current(p->rt);
    server_run(&p->far, &p->settings, &p->site.hooks, &p->who);
    wire_close(&p->far);
    p->session = NULL;
}

/* ---- the client's side ------------------------------------------------------------------------------------------- */

static int64_t
soon(struct peer *p)
{
    return within(p->rt, 100 * SECOND);
}

static void
peer_connect(struct peer *p)
{
    struct handle ends[2];
    struct stream *near, *far;

    CHECK(!err_is(stream_pair(p->rt, ends)));
    CHECK(!err_is(stream_from_handle(p->rt, ends[0], &near)) && !err_is(stream_from_handle(p->rt, ends[1], &far)));
    p->near = wire_in_clear(near);
    p->far = wire_in_clear(far);
    p->len = p->reply_len = 0;
    p->who = (struct server_client){ .name = STR("192.0.2.7") };
    CHECK(address_from_ip(S("192.0.2.7"), &p->who.address));
    scope_init(&p->scope, p->rt);
    scope_start(&p->scope, "server", serve, p);
}

static void
peer_leave(struct peer *p)
{
    if (p->near.stream)
        wire_close(&p->near);
    EXPECT(p->t, !err_is(scope_wait(&p->scope, within(p->rt, HOUR))));
    scope_end(&p->scope);
}

static bool
peer_tls(struct peer *p)
{
    char memory[TLS_REASON];
    struct text reason = text_init(memory, sizeof memory);
    struct tls_expected expected = { .server_name = S("mx.local.test") };
    const struct tls *tls;
    enum tls_result result;

    return p->len == 0 && !err_is(tls_connect(p->client, &p->near, &expected, soon(p), &tls, &result, &reason));
}

/* The code of the next reply; 0: the server closed. */
static int
peer_read(struct peer *p)
{
    p->reply_len = 0;
    for (;;) {
        struct str here = str_new(p->here, p->len);
        size_t line = str_find(here, S("\r\n")), got;
        if (line < here.len) {
            uint64_t code = 0;
            bool last = line < 4 || here.ptr[3] != '-';
            CHECK(p->reply_len + line + 2 < sizeof p->reply);
            memcpy(p->reply + p->reply_len, p->here, line + 2);
            p->reply_len += line + 2;
            CHECK(str_to_u64(str_slice(here, 0, 3), &code));
            memmove(p->here, p->here + line + 2, p->len - line - 2);
            p->len -= line + 2;
            if (last)
                return (int)code;
            continue;
        }
        if (err_is(wire_read(&p->near, p->here + p->len, sizeof p->here - p->len, soon(p), &got)) || got == 0)
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

struct step {
    struct str send, codes; /* codes: "end" is the server closing, "TLS" a handshake that we make */
};

static bool
peer_play(struct peer *p, const struct step *steps, size_t count)
{
    for (size_t i = 0; i < count && steps[i].codes.len > 0; i++) {
        (void)wire_write(&p->near, steps[i].send, soon(p));
        struct str codes = steps[i].codes;
        for (struct str code = str_cut_word(&codes); code.len > 0; code = str_cut_word(&codes)) {
            uint64_t want = 0;
            if (str_eq(code, S("TLS"))) {
                if (!EXPECT(p->t, peer_tls(p)))
                    return false;
                continue;
            }
            if (!str_eq(code, S("end")))
                CHECK(str_to_u64(code, &want));
            if (!EXPECT_INT(p->t, peer_read(p), want))
                return false;
        }
    }
    return true;
}
#define PLAY(p, ...) peer_play((p), (struct step[]){ __VA_ARGS__ }, sizeof((struct step[]){ __VA_ARGS__ }) / sizeof(struct step))

struct run {
    struct test *t;
    void (*each)(struct peer *);
};

static void
run_fiber(struct rt *rt, void *arg)
{
    struct run *run = arg;
    struct peer *p = calloc(1, sizeof *p);
    struct arena arena;
    struct str certificate, key;
    size_t bad;

    CHECK(p);
    p->rt = rt;
    p->t = run->t;
    CHECK(!err_is(crypto_open(rt, &p->crypto)));
    arena_init(&arena, rt_mem(rt), 4096, 64 << 10);
    CHECK(!err_is(key_make_self_signed(p->crypto, S("mx.local.test"), &arena, &certificate, &key)));
    CHECK(!err_is(key_parse(p->crypto, key, &p->key)));
    p->table = (struct key_table){ &p->key, 1 };
    p->signer = (struct key_signer){ key_table_sign, &p->table };
    p->server = tls_server_new(p->crypto, S("mx"), &p->signer);
    CHECK(!err_is(tls_server_set_certificates(p->server, &certificate, 1, &bad)));
    p->client = tls_client_new(p->crypto);
    arena_done(&arena);
    fake_site_init(&p->site);
    p->site.rt = rt;
    p->site.hooks.tls_ready = tls_ready;
    p->site.hooks.start_tls = start_tls;
    p->site.hooks.log_session = log_session;
    p->tls_ready = true;
    p->settings = listener_settings_default(S("mx.local.test"));
    run->each(p);
    EXPECT_INT(p->t, p->site.begun, p->site.committed + p->site.aborted);
    EXPECT_INT(p->t, p->site.admitted, p->site.left);
    fake_site_done(&p->site);
    tls_client_free(p->client);
    tls_server_free(p->server);
    key_free(p->key);
    crypto_close(p->crypto);
    free(p);
}

#define PEER_TEST(name)                                                                                                \
    static void name##_each(struct peer *);                                                                            \
    static void name(struct test *t)                                                                                   \
    {                                                                                                                  \
        struct run run = { t, name##_each };                                                                           \
        EXPECT(t, !err_is(rt_run_leaping(run_fiber, &run)));                                                           \
    }                                                                                                                  \
    static void name##_each(struct peer *p)

#define EHLO STR("EHLO client.test\r\n")
#define MAIL STR("MAIL FROM:<a@client.test>\r\n")
#define RCPT STR("RCPT TO:<ok@local.test>\r\n")
#define STARTTLS STR("STARTTLS\r\n")

/* ---- the dialogs ------------------------------------------------------------------------------------------------- */

static const struct dialog {
    const char *why;
    bool no_hook, not_ready;
    struct step steps[8]; /* after the greeting */
    struct str ended;
} dialogs[] = {
    { "all begins anew behind the handshake", .steps = {
      { EHLO, STR("250") }, { STARTTLS, STR("220 TLS") }, { MAIL, STR("503") }, { EHLO, STR("250") },
      { MAIL, STR("250") }, { RCPT, STR("250") }, { STR("DATA\r\n"), STR("354") },
      { STR("x\r\n.\r\nQUIT\r\n"), STR("250 221 end") } }, .ended = STR("quit") },
    { "HELO will do", .steps = {
      { STR("HELO x\r\n"), STR("250") }, { STARTTLS, STR("220 TLS") }, { STR("QUIT\r\n"), STR("221 end") } },
      .ended = STR("quit") },
    { "once only", .steps = {
      { EHLO, STR("250") }, { STARTTLS, STR("220 TLS") }, { STARTTLS, STR("503") }, { EHLO, STR("250") },
      { STARTTLS, STR("503") }, { STR("QUIT\r\n"), STR("221 end") } }, .ended = STR("quit") },
    { "not before EHLO, not inside a transaction", .steps = {
      { STARTTLS, STR("503") }, { EHLO, STR("250") }, { MAIL, STR("250") }, { STARTTLS, STR("503") }, { RCPT, STR("250") },
      { STARTTLS, STR("503") }, { STR("RSET\r\n"), STR("250") }, { STARTTLS, STR("220 TLS") } },
      .ended = STR("closed by the client") },
    { "it stands alone", .steps = {
      { EHLO, STR("250") }, { STR("STARTTLS now\r\n"), STR("501") }, { STR("starttls  \r\n"), STR("220 TLS") } },
      .ended = STR("closed by the client") },
    { "not at the moment", .not_ready = true, .steps = {
      { EHLO, STR("250") }, { STARTTLS, STR("454") }, { MAIL, STR("250") }, { STR("QUIT\r\n"), STR("221 end") } },
      .ended = STR("quit") },
    { "not here", .no_hook = true, .steps = {
      { STARTTLS, STR("502") }, { EHLO, STR("250") }, { STARTTLS, STR("502") }, { STR("QUIT\r\n"), STR("221 end") } },
      .ended = STR("quit") },
    /* CVE-2011-0411 and its kind */
    { "a command behind it", .steps = {
      { EHLO, STR("250") }, { STR("STARTTLS\r\nRSET\r\n"), STR("554 end") } },
      .ended = STR("pipelined where that is not allowed") },
    { "a transaction behind it", .steps = {
      { EHLO, STR("250") }, { STR("STARTTLS\r\nEHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<ok@local.test>\r\nDATA\r\n"),
                              STR("554 end") } }, .ended = STR("pipelined where that is not allowed") },
    { "a single byte behind it", .steps = {
      { EHLO, STR("250") }, { STR("STARTTLS\r\nR"), STR("554 end") } },
      .ended = STR("pipelined where that is not allowed") },
    { "in clear behind the 220", .steps = {
      { EHLO, STR("250") }, { STARTTLS, STR("220") }, { STR("RSET\r\n"), STR("end") } },
      .ended = STR("TLS handshake failed") },
};

PEER_TEST(plays_dialogs)
{
    for (size_t i = 0; i < sizeof dialogs / sizeof *dialogs; i++) {
        const struct dialog *d = &dialogs[i];
        test_case(p->t, d->why);
        p->site.hooks.tls_ready = d->no_hook ? NULL : tls_ready;
        p->tls_ready = !d->not_ready;
        peer_connect(p);
        if (EXPECT_INT(p->t, peer_read(p), 220))
            peer_play(p, d->steps, sizeof d->steps / sizeof *d->steps);
        wire_shut_down(&p->near);
        peer_leave(p);
        EXPECT_STR(p->t, str_from_cstr(p->site.ended), d->ended);
        EXPECT(p->t, (p->failure[0] != '\0') == str_eq(d->ended, S("TLS handshake failed")));
    }
}

PEER_TEST(says_what_is_there)
{
    peer_connect(p);
    EXPECT(p->t, PLAY(p, { STR(""), STR("220") }, { STR("EHLO before.test\r\n"), STR("250") }));
    EXPECT(p->t, peer_said(p, S("-STARTTLS\r\n")));
    EXPECT(p->t, PLAY(p, { STARTTLS, STR("220 TLS") }, { STR("EHLO after.test\r\n"), STR("250") }));
    EXPECT(p->t, !peer_said(p, S("STARTTLS")));
    EXPECT(p->t, PLAY(p, { STR("HELP STARTTLS\r\n"), STR("504") }, { MAIL, STR("250") }, { RCPT, STR("250") },
                      { STR("DATA\r\n"), STR("354") }, { STR("x\r\n.\r\n"), STR("250") },
                      { STR("QUIT\r\n"), STR("221 end") }));
    peer_leave(p);
    EXPECT_INT(p->t, p->site.committed, 1);
    struct str trace = str_from_cstr(p->site.messages[0].trace);
    EXPECT(p->t, str_find(trace, S("from after.test")) < trace.len);
    EXPECT(p->t, str_find(trace, S("with ESMTPS\r\n")) < trace.len);
    EXPECT(p->t, str_find(trace, S("(TLSv1.3 with cipher TLS_")) < trace.len);
    EXPECT_STR(p->t, str_from_cstr(p->protocol), S("TLSv1.3"));
    EXPECT_STR(p->t, str_from_cstr(p->helo), S("after.test"));

    p->tls_ready = false;
    peer_connect(p);
    EXPECT(p->t, PLAY(p, { STR(""), STR("220") }, { EHLO, STR("250") }));
    EXPECT(p->t, !peer_said(p, S("STARTTLS")));
    peer_leave(p);
    EXPECT_STR(p->t, str_from_cstr(p->protocol), S(""));
}

PEER_TEST(tls_from_the_first_byte)
{
    static const struct reply full = { 421, STR("4.7.0"), STR("Too many") };

    p->settings.tls_at_once = true;
    p->settings.refuse_early_talk = false;
    peer_connect(p);
    EXPECT(p->t, PLAY(p, { STR(""), STR("TLS 220") }, { EHLO, STR("250") }, { STARTTLS, STR("503") },
                      { STR("QUIT\r\n"), STR("221 end") }));
    peer_leave(p);
    EXPECT_STR(p->t, str_from_cstr(p->site.ended), S("quit"));

    peer_connect(p);
    EXPECT(p->t, PLAY(p, { EHLO, STR("end") })); /* the alert is no reply, and nobody is greeted */
    peer_leave(p);
    EXPECT_STR(p->t, str_from_cstr(p->site.ended), S("TLS handshake failed"));
    EXPECT_INT(p->t, p->reply_len, 0);

    p->site.admission = &full;
    peer_connect(p);
    EXPECT(p->t, PLAY(p, { STR(""), STR("end") }));
    peer_leave(p);
    EXPECT_STR(p->t, str_from_cstr(p->site.ended), S("refused"));
}

/* Nothing of a message is kept whose connection ended before its last word, in whatever way (standards 4.4). */
PEER_TEST(an_end_inside_a_message_keeps_nothing)
{
    static const struct str unfinished[][2] = {
        { STR("DATA\r\n"), STR("Subject: x\r\n\r\nhalf of it\r\n") },
        { STR("DATA\r\n"), STR("Subject: x\r\n\r\nall of it\r\n.") },
        { STR("BDAT 100\r\n"), STR("Subject: x\r\n\r\nhalf of it") },
        { STR("BDAT 8 LAST\r\n"), STR("seven b") },
    };

    for (size_t i = 0; i < sizeof unfinished / sizeof *unfinished; i++)
        for (int how = 0; how < 3; how++) {
            test_case(p->t, how == 0 ? "with a goodbye" : how == 1 ? "without" : "and then in clear");
            peer_connect(p);
            EXPECT(p->t, PLAY(p, { STR(""), STR("220") }, { EHLO, STR("250") }, { STARTTLS, STR("220 TLS") },
                              { EHLO, STR("250") }, { MAIL, STR("250") }, { RCPT, STR("250") }));
            EXPECT(p->t, !err_is(wire_write(&p->near, unfinished[i][0], soon(p))));
            if (i < 2)
                EXPECT_INT(p->t, peer_read(p), 354);
            EXPECT(p->t, !err_is(wire_write(&p->near, unfinished[i][1], soon(p))));
            if (how == 0)
                wire_shut_down(&p->near);
            if (how == 2) /* CVE-2026-45185: a byte behind the goodbye, read as content */
                EXPECT(p->t, !err_is(stream_write(p->near.stream, S("\r\n.\r\n"), soon(p))));
            peer_leave(p);
            EXPECT_STR(p->t, str_from_cstr(p->site.ended), S("closed by the client"));
        }
    EXPECT_INT(p->t, p->site.committed, 0);
    EXPECT(p->t, p->site.aborted > 0);
}

PEER_TEST(a_handshake_has_its_time)
{
    peer_connect(p);
    EXPECT(p->t, PLAY(p, { STR(""), STR("220") }, { EHLO, STR("250") }, { STARTTLS, STR("220") }));
    int64_t began = rt_now(p->rt);
    EXPECT(p->t, PLAY(p, { STR("\x16\x03\x01\x02"), STR("end") }));
    EXPECT(p->t, rt_now(p->rt) >= began + LIMIT_TLS_NS);
    peer_leave(p);
    EXPECT_STR(p->t, str_from_cstr(p->site.ended), S("TLS handshake failed"));
    EXPECT(p->t, str_find(str_from_cstr(p->failure), S("time")) < strlen(p->failure));
}

PEER_TEST(a_session_is_told_to_end)
{
    peer_connect(p);
    EXPECT(p->t, PLAY(p, { STR(""), STR("220") }, { EHLO, STR("250") }, { STARTTLS, STR("220 TLS") }, { EHLO, STR("250") }));
    fiber_cancel(p->session);
    EXPECT(p->t, PLAY(p, { STR(""), STR("421 end") }));
    peer_leave(p);
    EXPECT_STR(p->t, str_from_cstr(p->site.ended), S("shutting down"));
}

/* ---- AUTH: RFC 4954 ---------------------------------------------------------------------------------------------- */

static struct str
mechanisms(void *ctx, const struct server_client *client, struct arena *arena)
{
    (void)arena;
    EXPECT(peer_of(ctx)->t, !str_is_absent(client->tls.protocol));
    return S("PLAIN LOGIN");
}

/* authzid NUL authcid NUL password. The user's name says what becomes of him. */
static void
answer_plain(struct str message, struct auth_answer *out)
{
    static const struct {
        struct str user;
        uint8_t status;
    } users[] = {
        { STR("anna"), SASL_OK },           { STR("weak"), SASL_WEAK },   { STR("malformed"), SASL_MALFORMED },
        { STR("throttled"), SASL_THROTTLED }, { STR("later"), SASL_LATER },
    };

    str_cut(&message, '\0');
    struct str user = str_cut(&message, '\0');
    out->status = SASL_REFUSED;
    for (size_t i = 0; i < sizeof users / sizeof *users; i++)
        if (str_eq(user, users[i].user) && str_eq(message, S("p")))
            *out = (struct auth_answer){ .status = users[i].status, .user = users[i].user };
}

static void
auth_start(void *ctx, const struct server_client *client, struct str mechanism, struct str initial, struct arena *arena,
           int64_t until, struct auth_answer *out)
{
    struct peer *p = peer_of(ctx);

    (void)client, (void)arena, (void)until;
    p->auth_started++;
    p->auth_steps = 0;
    p->auth_login = str_eq_nocase(mechanism, S("LOGIN"));
    if (str_eq_nocase(mechanism, S("LONG")))
        *out = (struct auth_answer){ .status = SASL_CHALLENGE, .bytes = str_new(p->reply, sizeof p->reply / 2) };
    else if (p->auth_login)
        *out = (struct auth_answer){ .status = SASL_CHALLENGE, .bytes = S("Username:") };
    else if (!str_eq_nocase(mechanism, S("PLAIN")))
        out->status = SASL_UNKNOWN_MECHANISM;
    else if (str_is_absent(initial))
        *out = (struct auth_answer){ .status = SASL_CHALLENGE, .bytes = S("") };
    else
        answer_plain(initial, out);
}

static void
auth_step(void *ctx, const struct server_client *client, struct str response, struct arena *arena, int64_t until,
          struct auth_answer *out)
{
    struct peer *p = peer_of(ctx);

    (void)client, (void)arena, (void)until;
    p->auth_gone += str_is_absent(response);
    p->auth_bytes = response.len;
    if (p->auth_login && p->auth_steps++ == 0)
        *out = (struct auth_answer){ .status = SASL_CHALLENGE, .bytes = S("Password:") };
    else if (p->auth_login)
        *out = (struct auth_answer){ .status = str_eq(response, S("p")) ? SASL_OK : SASL_REFUSED, .user = S("anna") };
    else
        answer_plain(response, out);
}

static void
users(struct peer *p)
{
    p->settings.login = true;
    p->site.hooks.mechanisms = mechanisms;
    p->site.hooks.auth_start = auth_start;
    p->site.hooks.auth_step = auth_step;
}

#define AUTH STR("AUTH PLAIN AGFubmEAcA==\r\n")
#define QUIT STR("QUIT\r\n"), STR("221 end")

static const struct auth_case {
    const char *why;
    struct step steps[9]; /* after EHLO under TLS */
    struct str ended;
} auths[] = {
    { "with an initial response", { { AUTH, STR("235") }, { MAIL, STR("250") }, { QUIT } }, STR("quit") },
    { "without one", {
      { STR("auth plain\r\n"), STR("334") }, { STR("AGFubmEAcA==\r\n"), STR("235") }, { QUIT } }, STR("quit") },
    { "in two steps", {
      { STR("AUTH LOGIN\r\n"), STR("334") }, { STR("YW5uYQ==\r\n"), STR("334") }, { STR("cA==\r\n"), STR("235") },
      { QUIT } }, STR("quit") },
    { "an empty initial response", { { STR("AUTH PLAIN =\r\n"), STR("535") }, { QUIT } }, STR("quit") },
    { "sent ahead", {
      { STR("AUTH LOGIN\r\nYW5uYQ==\r\ncA==\r\nMAIL FROM:<a@client.test>\r\nQUIT\r\n"), STR("334 334 235 250 221 end") } },
      STR("quit") },
    { "cancelled", {
      { STR("AUTH LOGIN\r\n"), STR("334") }, { STR("*\r\n"), STR("501") }, { MAIL, STR("530") }, { AUTH, STR("235") },
      { QUIT } }, STR("quit") },
    { "not base64", {
      { STR("AUTH PLAIN ?\r\n"), STR("501") }, { STR("AUTH PLAIN AGE\r\n"), STR("501") },
      { STR("AUTH PLAIN A===\r\n"), STR("501") }, { STR("AUTH PLAIN A=AA\r\n"), STR("501") },
      { STR("AUTH LOGIN\r\n"), STR("334") }, { STR("YW 5u\r\n"), STR("501") }, { AUTH, STR("235") } },
      STR("closed by the client") },
    { "nonsense", {
      { STR("AUTH\r\n"), STR("501") }, { STR("AUTH PLAIN AA== AA==\r\n"), STR("501") }, { STR("AUTH PL.AIN\r\n"), STR("501") },
      { STR("AUTH ABCDEFGHIJKLMNOPQRSTU\r\n"), STR("501") }, { STR("AUTH NTLM\r\n"), STR("504") }, { AUTH, STR("235") } },
      STR("closed by the client") },
    { "wrong, and each other answer", {
      { STR("AUTH PLAIN AGFubmEAcQ==\r\n"), STR("535") },
      { STR("AUTH PLAIN AHdlYWsAcA==\r\n"), STR("534") },
      { STR("AUTH PLAIN AG1hbGZvcm1lZABw\r\n"), STR("501") },
      { STR("AUTH PLAIN AGxhdGVyAHA=\r\n"), STR("454") },
      { STR("AUTH PLAIN AHRocm90dGxlZABw\r\n"), STR("454") }, { AUTH, STR("235") } },
      STR("closed by the client") },
    { "once only, and not inside a transaction", {
      { AUTH, STR("235") }, { AUTH, STR("503") }, { MAIL, STR("250") }, { AUTH, STR("503") }, { EHLO, STR("250") },
      { AUTH, STR("503") }, { MAIL, STR("250") } }, STR("closed by the client") },
    { "EHLO comes first, HELO will not do", {
      { STR("HELO x\r\n"), STR("250") }, { AUTH, STR("503") }, { MAIL, STR("530") }, { EHLO, STR("250") },
      { AUTH, STR("235") } }, STR("closed by the client") },
    { "what else needs a login", {
      { MAIL, STR("530") }, { STR("MAIL nonsense\r\n"), STR("530") }, { STR("VRFY ok\r\n"), STR("530") },
      { STR("EXPN list\r\n"), STR("530") }, { STR("ETRN local.test\r\n"), STR("530") },
      { STR("NOOP\r\nRSET\r\nHELP\r\n"), STR("250 250 214") }, { RCPT, STR("503") }, { QUIT } }, STR("quit") },
    { "MAIL AUTH=", {
      { STR("MAIL FROM:<a@client.test> AUTH=<>\r\n"), STR("530") }, { AUTH, STR("235") },
      { STR("MAIL FROM:<a@client.test> AUTH=a+zz\r\n"), STR("501") },
      { STR("MAIL FROM:<a@client.test> AUTH=b@client.test\r\n"), STR("250") } }, STR("closed by the client") },
    { "a bare LF", { { STR("AUTH LOGIN\r\n"), STR("334") }, { STR("YQ==\n"), STR("500 end") } }, STR("bare LF") },
    { "a long challenge is one line", {
      { STR("AUTH LONG\r\n"), STR("334") }, { STR("*\r\n"), STR("501") } }, STR("closed by the client") },
    { "too often", { /* LIMIT_AUTH_FAILURES are answered */
      { STR("AUTH PLAIN AA==\r\nAUTH PLAIN AA==\r\nAUTH PLAIN AA==\r\nAUTH PLAIN AA==\r\nAUTH PLAIN AA==\r\n"),
        STR("535 535 535 535 535") }, { AUTH, STR("421 end") } }, STR("refused") },
};

static void
peer_encrypt(struct peer *p)
{
    peer_connect(p);
    EXPECT(p->t, PLAY(p, { STR(""), STR("220") }, { EHLO, STR("250") }, { STARTTLS, STR("220 TLS") }, { EHLO, STR("250") }));
}

PEER_TEST(logs_in)
{
    users(p);
    for (size_t i = 0; i < sizeof auths / sizeof *auths; i++) {
        const struct auth_case *c = &auths[i];
        test_case(p->t, c->why);
        peer_encrypt(p);
        EXPECT(p->t, peer_said(p, S("-AUTH PLAIN LOGIN\r\n")));
        peer_play(p, c->steps, sizeof c->steps / sizeof *c->steps);
        wire_shut_down(&p->near);
        peer_leave(p);
        EXPECT_STR(p->t, str_from_cstr(p->site.ended), c->ended);
    }
}

PEER_TEST(only_where_users_are)
{
    test_case(p->t, "not in clear");
    users(p);
    peer_connect(p);
    EXPECT(p->t, PLAY(p, { STR(""), STR("220") }, { AUTH, STR("503") }, { EHLO, STR("250") }));
    EXPECT(p->t, !peer_said(p, S("AUTH")));
    EXPECT(p->t, PLAY(p, { AUTH, STR("538") }, { MAIL, STR("530") }, { STR("HELP AUTH\r\n"), STR("504") }, { QUIT }));
    peer_leave(p);

    test_case(p->t, "what trusted clients may spares nobody the login");
    p->settings.trusted = true;
    peer_encrypt(p);
    EXPECT(p->t, PLAY(p, { MAIL, STR("530") }, { QUIT }));
    peer_leave(p);

    test_case(p->t, "not on port 25");
    p->settings.login = p->settings.trusted = false;
    peer_encrypt(p);
    EXPECT(p->t, !peer_said(p, S("AUTH")));
    EXPECT(p->t, PLAY(p, { AUTH, STR("502") }, { STR("MAIL FROM:<> AUTH=<>\r\n"), STR("555") }, { MAIL, STR("250") }, { QUIT }));
    peer_leave(p);
    EXPECT_INT(p->t, p->auth_started, 0);
}

/* Clients that wait for no answer send a password whether it was asked for or not. */
PEER_TEST(no_password_is_logged)
{
    static const struct {
        struct str lines, replies, logged;
    } cases[] = {
        { STR("AUTH LOGIN\r\nYW5uYQ==\r\nc2VjcmV0\r\n"), STR("538 500 500"), STR("(no command)") },
        { STR("AUTH PLAIN\r\nAGFubmEAcA==\r\n"), STR("538 500"), STR("(no command)") },
        { STR(" AUTH PLAIN AGFubmEAcA==\r\n"), STR("500"), STR("AUTH") },
        { STR("AUTH PLAIN AGFubmEAcA==\r\nMAIL FROM:a@client.test\r\n"), STR("538 530"), STR("MAIL FROM:a@client.test") },
        { STR("c2VjcmV0\r\n"), STR("500"), STR("(no command)") },
        { STR("PASS secret\r\n"), STR("500"), STR("(no command)") },
    };

    users(p);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        peer_connect(p);
        EXPECT(p->t, PLAY(p, { STR(""), STR("220") }, { EHLO, STR("250") }, { cases[i].lines, cases[i].replies }, { QUIT }));
        peer_leave(p);
        EXPECT_STR(p->t, str_from_cstr(p->site.last_refused), cases[i].logged);
    }
}

static void
put_many(struct text *t, size_t digits)
{
    for (size_t i = 0; i < digits; i++)
        text_put_byte(t, 'A');
    text_put(t, S("\r\n"));
}

PEER_TEST(lines_have_a_limit)
{
    enum { FITS = (LIMIT_AUTH_LINE - 2) / 4 * 4 };
    char memory[2 * LIMIT_AUTH_LINE];

    users(p);
    for (int first = 0; first < 2; first++)
        for (int over = 0; over < 2; over++) {
            struct text t = text_init(memory, sizeof memory);
            test_case(p->t, first ? "in the command" : "in a response");
            if (first)
                text_put(&t, S("AUTH PLAIN "));
            put_many(&t, (size_t)((first ? FITS - 12 : FITS) + (over ? 8 : 0)));
            peer_encrypt(p);
            if (!first)
                EXPECT(p->t, PLAY(p, { STR("AUTH PLAIN\r\n"), STR("334") }));
            EXPECT(p->t, PLAY(p, { text_str(&t), over ? S("500") : S("535") }));
            EXPECT(p->t, peer_said(p, over ? S("5.5.6") : S("5.7.8")));
            EXPECT(p->t, PLAY(p, { AUTH, STR("235") }, { QUIT }));
            peer_leave(p);
        }
}

PEER_TEST(who_logged_in_counts)
{
    users(p);
    peer_encrypt(p);
    EXPECT(p->t, PLAY(p, { AUTH, STR("235") }, { MAIL, STR("250") }, { RCPT, STR("250") },
                      { STR("DATA\r\n"), STR("354") }, { STR("x\r\n.\r\n"), STR("250") }));
    p->settings.hide_client = true;
    EXPECT(p->t, PLAY(p, { STR("MAIL FROM:<a@client.test> SMTPUTF8\r\n"), STR("250") }, { RCPT, STR("250") },
                      { STR("DATA\r\n"), STR("354") }, { STR("x\r\n.\r\n"), STR("250") }, { QUIT }));
    peer_leave(p);
    EXPECT_INT(p->t, p->site.committed, 2);
    struct str trace = str_from_cstr(p->site.messages[0].trace), hidden = str_from_cstr(p->site.messages[1].trace);
    EXPECT(p->t, str_find(trace, S("with ESMTPSA\r\n")) < trace.len);
    EXPECT(p->t, str_find(trace, S("from client.test (unknown [192.0.2.7])")) < trace.len);
    EXPECT(p->t, str_find(hidden, S("with UTF8SMTPSA\r\n")) < hidden.len);
    EXPECT(p->t, str_find(hidden, S("from mx.local.test (a user of ours)")) < hidden.len);
    EXPECT(p->t, str_find(hidden, S("192.0.2.7")) == hidden.len && str_find(hidden, S("client.test")) == hidden.len);
    EXPECT_STR(p->t, str_from_cstr(p->site.messages[0].client), S("user:anna"));
    EXPECT(p->t, p->site.messages[0].trusted);

    test_case(p->t, "whoever goes away in the middle of it");
    p->auth_gone = 0;
    peer_encrypt(p);
    EXPECT(p->t, PLAY(p, { STR("AUTH LOGIN\r\n"), STR("334") }));
    wire_shut_down(&p->near);
    peer_leave(p);
    EXPECT_INT(p->t, p->auth_gone, 1);
}

static const struct reply *
author(void *ctx, const struct server_client *client, struct path path, struct arena *arena, int64_t until)
{
    (void)ctx, (void)client, (void)until;
    return str_eq(path.local, S("bob")) ? reply_make(arena, 550, "5.7.1", "<%.*s> is not you", STR_ARG(path_text(path, arena)))
                                        : NULL;
}

/* RFC 6409 sections 6.1 and 8. A message is its header and then "body"; it comes by DATA, and by BDAT cut anywhere. */
PEER_TEST(completes_what_users_send)
{
    static const struct {
        const char *why;
        struct str header;
        int code;
        struct str there, gone; /* of what was stored */
    } cases[] = {
        { "what is missing", STR("Subject: x\r\n"), 250, STR("From: a@client.test\r\n"), STR("Bcc") },
        { "a date", STR("Subject: x\r\n"), 250, STR("Date: "), STR("Bcc") },
        { "Bcc", STR("From: a\r\nBcc: secret@local.test\r\nTo: b\r\n"), 250, STR("To: b@mx.local.test\r\n"), STR("secret") },
        { "no header at all", STR(""), 250, STR("Message-ID: <"), STR("Bcc") },
        { "somebody else's", STR("From: bob@local.test\r\n"), 550, STR(""), STR("") },
        { "among others", STR("From: a@b.test, bob@local.test\r\n"), 550, STR(""), STR("") },
        { "in another field", STR("From: a@b.test\r\nFROM : bob@local.test\r\n"), 550, STR(""), STR("") },
        { "without a domain, under a signature", STR("DKIM-Signature: v=1\r\nFrom: bob\r\n"), 550, STR(""), STR("") },
        { "the sender of several", STR("From: a@b.test, c@d.test\r\nSender: bob@local.test\r\n"), 550, STR(""), STR("") },
        { "no address", STR("From: a b c\r\n"), 550, STR(""), STR("") },
    };
    static const struct str body = STR("\r\nbody\r\n");

    users(p);
    p->settings.complete = true;
    p->site.hooks.author = author;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int chunks = 0; chunks < 2; chunks++) {
            char memory[512];
            struct text said = text_init(memory, sizeof memory);
            size_t stored = p->site.committed, len = cases[i].header.len + body.len;
            test_case(p->t, cases[i].why);
            if (chunks) /* the end of the header may lie in either */
                text_putf(&said, "BDAT %zu\r\n", len / 2);
            size_t begin = said.len;
            text_put(&said, cases[i].header);
            text_put(&said, body);
            if (chunks) {
                char second[256];
                struct text rest = text_init(second, sizeof second);
                text_put(&rest, str_from(text_str(&said), begin + len / 2));
                said.len = begin + len / 2;
                text_putf(&said, "BDAT %zu LAST\r\n", rest.len);
                text_put(&said, text_str(&rest));
            } else {
                text_put(&said, S(".\r\n"));
            }
            peer_encrypt(p);
            EXPECT(p->t, PLAY(p, { AUTH, STR("235") }, { MAIL, STR("250") }, { RCPT, STR("250") }));
            if (!chunks)
                EXPECT(p->t, PLAY(p, { STR("DATA\r\n"), STR("354") }));
            EXPECT(p->t, !err_is(wire_write(&p->near, text_str(&said), soon(p))));
            int code = peer_read(p);
            if (chunks && code == 250)
                code = peer_read(p);
            EXPECT_INT(p->t, code, cases[i].code);
            wire_shut_down(&p->near);
            peer_leave(p);
            EXPECT_INT(p->t, p->site.committed, stored + (cases[i].code == 250));
            if (p->site.committed == stored)
                continue;
            struct str mail = str_new(p->site.messages[stored].content, p->site.messages[stored].len);
            EXPECT(p->t, str_find(mail, cases[i].there) < mail.len && str_find(mail, cases[i].gone) == mail.len);
            EXPECT(p->t, str_ends(mail, S("\r\n\r\nbody\r\n")));
        }
}

TEST_MAIN({ "plays dialogs", plays_dialogs }, { "says what is there", says_what_is_there },
          { "TLS from the first byte", tls_from_the_first_byte },
          { "an end inside a message keeps nothing", an_end_inside_a_message_keeps_nothing },
          { "a handshake has its time", a_handshake_has_its_time },
          { "a session is told to end", a_session_is_told_to_end }, { "logs in", logs_in },
          { "only where users are", only_where_users_are }, { "no password is logged", no_password_is_logged },
          { "lines have a limit", lines_have_a_limit },
          { "who logged in counts", who_logged_in_counts },
          { "completes what users send", completes_what_users_send })
