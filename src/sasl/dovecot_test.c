/* dovecot_test - the client's side of Dovecot's protocol against a server that follows a script. tests/test_users.py has
 * the real one. */
#include "sasl/dovecot.h"

#include "base/check.h"
#include "base/test.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define HELLO "VERSION\t1\t2\nMECH\tPLAIN\tplaintext\nMECH\tSCRAM-SHA-256\nMECH\tX-ODD\nSPID\t7\nCUID\t1\nCOOKIE\tabc\nDONE\n"

struct script {
    const char *why;
    struct str hello;
    struct str answers[2];
    bool opens;
    enum sasl_status first, second;
    struct str out; /* of the last step; with SASL_OK the user */
};

static const struct script scripts[] = {
    { "a password that is right", STR(HELLO), { STR("OK\t1\tuser=anna\tx=y\n") }, true, SASL_OK, SASL_OK, STR("anna") },
    { "a name with a tab", STR(HELLO), { STR("OK\t1\tuser=a\001tb\n") }, true, SASL_LATER, SASL_OK, STR("") },
    { "a name with a line end", STR(HELLO), { STR("OK\t1\tuser=a\001nb\n") }, true, SASL_LATER, SASL_OK, STR("") },
    { "wrong", STR(HELLO), { STR("FAIL\t1\tuser=anna\n") }, true, SASL_REFUSED, SASL_OK, STR("") },
    { "not now", STR(HELLO), { STR("FAIL\t1\tuser=anna\ttemp\n") }, true, SASL_LATER, SASL_OK, STR("") },
    { "not now, in newer words", STR(HELLO), { STR("FAIL\t1\tcode=temp_fail\n") }, true, SASL_LATER, SASL_OK, STR("") },
    { "two steps", STR(HELLO), { STR("CONT\t1\tcj14\n"), STR("OK\t1\tuser=anna\n") }, true, SASL_CHALLENGE, SASL_OK, STR("anna") },
    { "an empty challenge", STR(HELLO), { STR("CONT\t1\t\n"), STR("FAIL\t1\n") }, true, SASL_CHALLENGE, SASL_REFUSED, STR("") },
    { "success of nobody", STR(HELLO), { STR("OK\t1\n") }, true, SASL_LATER, SASL_OK, STR("") },
    { "of another exchange", STR(HELLO), { STR("OK\t2\tuser=anna\n") }, true, SASL_LATER, SASL_OK, STR("") },
    { "a word that is none", STR(HELLO), { STR("HUH\t1\n") }, true, SASL_LATER, SASL_OK, STR("") },
    { "base64 that is none", STR(HELLO), { STR("CONT\t1\t*\n") }, true, SASL_LATER, SASL_OK, STR("") },
    { "the end instead", STR(HELLO), { STR("") }, true, SASL_LATER, SASL_OK, STR("") },
    { "another version", STR("VERSION\t2\t0\nDONE\n"), { STR("") }, false, SASL_OK, SASL_OK, STR("") },
    { "no version", STR("DONE\n"), { STR("") }, false, SASL_OK, SASL_OK, STR("") },
    { "hung up", STR(""), { STR("") }, false, SASL_OK, SASL_OK, STR("") },
};

struct world {
    struct test *t;
    struct rt *rt;
    struct listener *listener;
    const struct script *script;
    char heard[1000];
    size_t heard_len;
};

/* Up to and with the line that begins so. False: the client is gone. */
static bool
hear(struct world *w, struct stream *stream, struct str begin)
{
    size_t got;

    for (;;) {
        struct str rest = str_new(w->heard, w->heard_len);
        size_t at = str_find(rest, begin);
        if (at < rest.len && str_has_byte(str_from(rest, at), '\n'))
            return true;
        CHECK(w->heard_len < sizeof w->heard);
        if (err_is(stream_read(stream, w->heard + w->heard_len, sizeof w->heard - w->heard_len, FOREVER, &got)) || got == 0)
            return false;
        w->heard_len += got;
    }
}

static void
serve(void *arg)
{
    struct world *w = arg;
    struct stream *stream;
    struct address peer;

    CHECK(!err_is(listener_accept(w->listener, FOREVER, &stream, &peer)));
    w->heard_len = 0;
    bool there = hear(w, stream, S("CPID\t"));
    if (there)
        (void)stream_write(stream, w->script->hello, FOREVER);
    for (int i = 0; there && w->script->opens && i < 2 && w->script->answers[i].len > 0; i++) {
        there = hear(w, stream, i == 0 ? S("AUTH\t1\t") : S("CONT\t1\t"));
        if (there)
            (void)stream_write(stream, w->script->answers[i], FOREVER);
    }
    stream_close(stream);
}

static void
follow(struct world *w, const struct address *socket)
{
    const struct script *s = w->script;
    struct test *t = w->t;
    struct scope scope;
    struct dovecot *d;
    struct address client;
    char memory[300];
    struct text out = text_init(memory, sizeof memory);

    address_from_ip(S("192.0.2.7"), &client);
    scope_init(&scope, w->rt);
    scope_start(&scope, "server", serve, w);
    bool opened = !err_is(dovecot_open(w->rt, socket, FOREVER, &d));
    EXPECT_INT(t, opened, s->opens);
    if (opened) {
        EXPECT(t, dovecot_knows(d, SASL_PLAIN) && dovecot_knows(d, SASL_SCRAM_SHA_256) && !dovecot_knows(d, SASL_LOGIN));
        enum sasl_status status = dovecot_begin(d, SASL_PLAIN, &client, S("\0anna\0secret"), FOREVER, &out);
        EXPECT_INT(t, status, s->first);
        if (s->answers[0].len > 0)
            EXPECT(t, str_find(str_new(w->heard, w->heard_len),
                               S("AUTH\t1\tPLAIN\tservice=smtp\tsecured\tnologin\trip=192.0.2.7\tresp=AGFubmEAc2VjcmV0\n")) < w->heard_len);
        if (status == SASL_CHALLENGE) {
            status = dovecot_step(d, S("abc"), FOREVER, &out);
            EXPECT_INT(t, status, s->second);
        }
        if (status == SASL_OK)
            EXPECT_STR(t, dovecot_user(d), s->out);
        dovecot_close(d);
    }
    scope_wait(&scope, FOREVER);
    scope_end(&scope);
}

static void
run(struct rt *rt, void *arg)
{
    struct world w = { .t = arg, .rt = rt };
    struct address socket = { .family = ADDRESS_UNIX };

    snprintf(socket.path, sizeof socket.path, "/tmp/postrider-dovecot-%d", (int)getpid());
    CHECK(!err_is(listener_open(rt, &socket, &w.listener)));
    for (size_t i = 0; i < sizeof scripts / sizeof *scripts; i++) {
        test_case(arg, scripts[i].why);
        w.script = &scripts[i];
        follow(&w, &socket);
    }
    listener_close(w.listener);
    unlink(socket.path);
    struct dovecot *d;
    test_case(arg, "nobody is there");
    EXPECT((struct test *)arg, err_is(dovecot_open(rt, &socket, FOREVER, &d)));
}

static void
follows_the_protocol(struct test *t)
{
    EXPECT(t, !err_is(rt_run(run, t)));
}

TEST_MAIN({ "follows the protocol", follows_the_protocol })
