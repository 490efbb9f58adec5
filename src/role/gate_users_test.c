/*
 * gate_users_test - the gate's side of logins by the messages that receivers send: right and wrong passwords, many of them,
 * what is kept over a restart, and what a day may hold.
 */
#include "role/gate_users.h"

#include "base/check.h"
#include "base/test.h"
#include "role/border.h"
#include "runtime/host.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ANNA "anna@example.org:$6$rounds=1000$saltsalt$LAV5VE5Y7w1d73x1mFNspYWUpazfmwv2SoepNXNKJ/otop/Zok96Hr8Q13LEv0DRY/x8v0/crpIjl8NJSAqXV/:send-as=sales@example.org,@example.net\n"
#define BOB "bob:$6$rounds=1000$saltsalt$lefO3JZN6VjRq2buzt8mM.jfa5vNKOZbApxIpnO4f72Z/OJ4CfMKDvzZjAITsKwzOl7Op/POqF8.WuZBkm70i.\n"
#define OFF "off:$6$rounds=1000$saltsalt$LAV5VE5Y7w1d73x1mFNspYWUpazfmwv2SoepNXNKJ/otop/Zok96Hr8Q13LEv0DRY/x8v0/crpIjl8NJSAqXV/:off\n"

enum { CALLS = 512, FACTS = 32 };

struct world {
    struct test *t;
    struct rt *rt;
    struct site site;
    char folder[64], path[100];
    struct gate_users *g;
    struct event answered;
    struct arena arena;
    /* Of each call: its answer. */
    bool have[CALLS];
    struct border_verdict verdicts[CALLS];
    struct border_spent spent;
    uint32_t calls;
    uint64_t exchanges;
    size_t bans;
    int64_t patience;
};

/* ---- the receiver ------------------------------------------------------------------------------------------------ */

static void
hear(void *ctx, uint64_t peer, uint32_t call, uint16_t type, struct str body)
{
    struct world *w = ctx;
    struct take t = take_init(body);

    (void)peer;
    CHECK(call < CALLS);
    if (type == BORDER_SPEND) {
        CHECK(border_take_spent(&t, &w->spent));
    } else if (type == BORDER_BANS) {
        w->bans = take_count(&t, BORDER_BANS_MAX);
    } else {
        CHECK(border_take_verdict(&t, &w->arena, &w->verdicts[call]));
    }
    w->have[call] = true;
    event_wake(w->rt, &w->answered);
}

static uint32_t
say(struct world *w, uint16_t type, struct str body)
{
    struct link_message m = { .type = type, .call = 1 + w->calls++ % (CALLS - 1), .body = body };

    w->have[m.call] = false;
    EXPECT(w->t, gate_users_message(w->g, 1, &m));
    return m.call;
}

static enum sasl_status
hear_answer(struct world *w, uint32_t call)
{
    while (!w->have[call])
        CHECK(!err_is(event_wait(w->rt, &w->answered, FOREVER)));
    return w->verdicts[call].status;
}

static struct address
at(unsigned network, unsigned host)
{
    return (struct address){ .family = ADDRESS_IPV4, .ip = { 10, (uint8_t)(network >> 8), (uint8_t)network, (uint8_t)host } };
}

static uint32_t
begin(struct world *w, struct str mechanism, struct str initial, struct address client, bool tls)
{
    static unsigned char memory[BORDER_AUTH_BYTES];
    struct put p = put_init(memory, sizeof memory);
    struct border_auth a = { .exchange = ++w->exchanges, .mechanism = mechanism, .initial = initial, .client = client, .tls = tls };

    border_put_auth(&p, &a);
    CHECK(!p.full);
    return say(w, BORDER_AUTH, put_str_so_far(&p));
}

static enum sasl_status
step(struct world *w, struct str response, bool cancelled)
{
    unsigned char memory[1024];
    struct put p = put_init(memory, sizeof memory);

    border_put_auth_step(&p, &(struct border_auth_step){ w->exchanges, cancelled, response });
    CHECK(!p.full);
    return hear_answer(w, say(w, BORDER_AUTH_STEP, put_str_so_far(&p)));
}

static enum sasl_status
plain(struct world *w, const char *name, const char *password, struct address client)
{
    char memory[300];
    struct text text = text_init(memory, sizeof memory);

    text_put_byte(&text, '\0');
    text_put(&text, str_from_cstr(name));
    text_put_byte(&text, '\0');
    text_put(&text, str_from_cstr(password));
    return hear_answer(w, begin(w, S("PLAIN"), text_str(&text), client, true));
}

/* ---- a gate ------------------------------------------------------------------------------------------------------ */

static void
give_file(struct world *w, const char *lines)
{
    struct handle handle;
    FILE *file = fopen(w->path, "w");

    CHECK(file != NULL);
    fputs(lines, file);
    fclose(file);
    CHECK(!err_is(host_open(w->rt, str_from_cstr(w->path), FOREVER, &handle)));
    gate_users_take_file(w->g, handle);
}

/* Reading goes on beside: until somebody is answered otherwise than "later". */
static void
wait_for(struct world *w, const char *name, const char *password, enum sasl_status wanted)
{
    for (int i = 0; i < 10000; i++) {
        if (plain(w, name, password, at(9000, 1)) == wanted)
            return;
        rt_sleep(w->rt, within(w->rt, MILLISECOND));
    }
    EXPECT_INT(w->t, plain(w, name, password, at(9000, 1)), wanted); /* the users file was never taken up */
}

static void
gate_begin(struct world *w)
{
    struct dir *dir;

    CHECK(!err_is(dir_open(w->rt, str_from_cstr(w->folder), LANE_BACKGROUND, FOREVER, &dir)));
    struct gate_users_settings settings = {
        .rt = w->rt, .site = &w->site, .threads = 2, .patience = w->patience, .state = dir_handle(w->rt, dir), .reply = hear, .ctx = w,
    };
    dir_close(dir);
    w->g = gate_users_new(&settings);
    gate_users_start(w->g);
}

static void
world_begin(struct world *w, struct test *t, struct rt *rt)
{
    *w = (struct world){ .t = t, .rt = rt, .patience = 10 * MINUTE };
    w->site.hostname = S("mx.example.org");
    w->site.users = (struct site_users){
        .kind = USERS_FILE, .path = S("/users"), .messages_per_day = 3, .recipients_per_day = 10, .account_failures = 10,
        .network_failures = 30, .failures_within = HOUR, .ban = HOUR,
        .mechanisms = SASL_BIT(SASL_PLAIN) | SASL_BIT(SASL_LOGIN) | SASL_BIT(SASL_SCRAM_SHA_256) | SASL_BIT(SASL_SCRAM_SHA_256_PLUS),
    };
    strcpy(w->folder, "/tmp/postrider-gate-XXXXXX");
    CHECK(mkdtemp(w->folder) != NULL);
    snprintf(w->path, sizeof w->path, "%s/file", w->folder);
    event_init(&w->answered);
    arena_init(&w->arena, rt_mem(rt), 4096, 64 << 20);
    gate_begin(w);
}

static void
world_end(struct world *w)
{
    char memory[200];

    gate_users_end(w->g);
    arena_done(&w->arena);
    snprintf(memory, sizeof memory, "%s/users", w->folder);
    unlink(memory);
    unlink(w->path);
    EXPECT_INT(w->t, rmdir(w->folder), 0);
}

/* ---- tests ------------------------------------------------------------------------------------------------------- */

struct job {
    struct test *t;
    void (*run)(struct world *);
};

static void
run_job(struct rt *rt, void *arg)
{
    struct job *job = arg;
    struct world *w = mem_new(rt_mem(rt), struct world);

    world_begin(w, job->t, rt);
    job->run(w);
    world_end(w);
    mem_free(rt_mem(rt), w, sizeof *w);
}

static void
in_world(struct test *t, void (*run)(struct world *))
{
    struct job job = { t, run };

    EXPECT(t, !err_is(rt_run(run_job, &job)));
}

static void
do_logins(struct world *w)
{
    struct test *t = w->t;

    EXPECT_INT(t, plain(w, "bob", "other", at(1, 1)), SASL_LATER); /* there is no file yet */
    give_file(w, ANNA BOB OFF);
    wait_for(w, "bob", "other", SASL_OK);
    EXPECT_INT(t, plain(w, "Anna@example.org", "secret", at(1, 1)), SASL_OK);
    const struct border_verdict *v = &w->verdicts[1 + (w->calls - 1) % (CALLS - 1)];
    EXPECT_STR(t, v->user, S("anna@example.org"));
    EXPECT(t, v->sender_count == 2 && str_eq(v->senders[1], S("@example.net")));
    EXPECT_INT(t, plain(w, "anna@example.org", "Secret", at(1, 1)), SASL_REFUSED);
    EXPECT_INT(t, plain(w, "off", "secret", at(1, 1)), SASL_REFUSED);
    EXPECT_INT(t, plain(w, "nobody", "secret", at(1, 1)), SASL_REFUSED);
    EXPECT_INT(t, hear_answer(w, begin(w, S("plain"), S("nonsense"), at(1, 1), true)), SASL_MALFORMED);
    EXPECT_INT(t, hear_answer(w, begin(w, S("PLAIN"), S("\0a\0b"), at(1, 1), false)), SASL_WEAK);
    EXPECT_INT(t, hear_answer(w, begin(w, S("CRAM-MD5"), (struct str){ NULL, 0 }, at(1, 1), true)), SASL_UNKNOWN_MECHANISM);
    EXPECT_INT(t, hear_answer(w, begin(w, S("SCRAM-SHA-256-PLUS"), S(""), at(1, 1), true)), SASL_UNKNOWN_MECHANISM);
    test_case(t, "two steps");
    EXPECT_INT(t, hear_answer(w, begin(w, S("LOGIN"), (struct str){ NULL, 0 }, at(1, 1), true)), SASL_CHALLENGE);
    EXPECT_INT(t, step(w, S("bob"), false), SASL_CHALLENGE);
    EXPECT_INT(t, step(w, S("other"), false), SASL_OK);
    EXPECT_INT(t, step(w, S("other"), false), SASL_LATER); /* it has ended */
    test_case(t, "given up");
    EXPECT_INT(t, hear_answer(w, begin(w, S("LOGIN"), S("bob"), at(1, 1), true)), SASL_CHALLENGE);
    EXPECT_INT(t, step(w, S(""), true), SASL_REFUSED);
    EXPECT_INT(t, step(w, S("other"), false), SASL_LATER);
    test_case(t, "the receiver is gone");
    EXPECT_INT(t, hear_answer(w, begin(w, S("LOGIN"), S("bob"), at(1, 1), true)), SASL_CHALLENGE);
    gate_users_peer_down(w->g, 1);
    EXPECT_INT(t, step(w, S("other"), false), SASL_LATER);
    test_case(t, "and while a password is compared");
    begin(w, S("PLAIN"), S("\0bob\0other"), at(1, 1), true);
    gate_users_peer_down(w->g, 1);
    test_case(t, "what is no message");
    struct link_message broken = { .type = BORDER_AUTH, .call = 1, .body = S("x") };
    EXPECT(t, !gate_users_message(w->g, 1, &broken));
    test_case(t, "a changed file");
    give_file(w, BOB);
    wait_for(w, "anna@example.org", "secret", SASL_REFUSED);
    EXPECT_INT(t, plain(w, "bob", "other", at(1, 1)), SASL_OK);
    test_case(t, "a file that goes away between two steps"); /* nobody is told that his password is wrong */
    EXPECT_INT(t, hear_answer(w, begin(w, S("LOGIN"), S("bob"), at(1, 1), true)), SASL_CHALLENGE);
    uint64_t under_way = w->exchanges;
    gate_users_take_file(w->g, HANDLE_NONE);
    wait_for(w, "bob", "other", SASL_LATER);
    w->exchanges = under_way;
    EXPECT_INT(t, step(w, S("other"), false), SASL_LATER);
}

static void
logins(struct test *t)
{
    in_world(t, do_logins);
}

static void
do_nobody(struct world *w)
{
    struct test *t = w->t;
    char first[200], second[200];
    struct text one = text_init(first, sizeof first), two = text_init(second, sizeof second);

    give_file(w, BOB);
    wait_for(w, "bob", "other", SASL_OK);
    uint32_t call = begin(w, S("SCRAM-SHA-256"), S("n,,n=nobody,r=abc"), at(1, 1), true);
    EXPECT_INT(t, hear_answer(w, call), SASL_CHALLENGE);
    text_put(&one, str_from(w->verdicts[call].bytes, str_find(w->verdicts[call].bytes, S(",s="))));
    test_case(t, "the same over a restart");
    gate_users_end(w->g);
    gate_begin(w);
    give_file(w, BOB);
    wait_for(w, "bob", "other", SASL_OK);
    call = begin(w, S("SCRAM-SHA-256"), S("n,,n=nobody,r=abc"), at(1, 1), true);
    EXPECT_INT(t, hear_answer(w, call), SASL_CHALLENGE);
    text_put(&two, str_from(w->verdicts[call].bytes, str_find(w->verdicts[call].bytes, S(",s="))));
    EXPECT_STR(t, text_str(&two), text_str(&one));
    call = begin(w, S("SCRAM-SHA-256"), S("n,,n=nobodyelse,r=abc"), at(1, 1), true);
    EXPECT_INT(t, hear_answer(w, call), SASL_CHALLENGE);
    EXPECT(t, !str_ends(w->verdicts[call].bytes, text_str(&one)));
    test_case(t, "bob has no SCRAM keys, and looks like nobody");
    call = begin(w, S("SCRAM-SHA-256"), S("n,,n=bob,r=abc"), at(1, 1), true);
    EXPECT_INT(t, hear_answer(w, call), SASL_CHALLENGE);
    EXPECT(t, str_ends(w->verdicts[call].bytes, S(",i=65536")));
}

static void
nobody_looks_the_same_each_time(struct test *t)
{
    in_world(t, do_nobody);
}

/* Line 6 of what users are promised, in small; tests/test_users.py does it with 10,000 and with sessions. */
static void
do_guessing(struct world *w)
{
    struct test *t = w->t;
    size_t refused = 0, throttled = 0;
    char name[20];

    give_file(w, ANNA BOB);
    wait_for(w, "bob", "other", SASL_OK);
    EXPECT_INT(t, plain(w, "anna@example.org", "secret", at(500, 7)), SASL_OK);
    gate_users_end(w->g);
    gate_begin(w);
    give_file(w, ANNA BOB);
    wait_for(w, "bob", "other", SASL_OK);
    test_case(t, "from 1000 networks at one account");
    for (unsigned i = 0; i < 1000; i++) {
        enum sasl_status status = plain(w, "anna@example.org", "guess", at(1000 + i, 1));
        refused += status == SASL_REFUSED;
        throttled += status == SASL_THROTTLED;
    }
    EXPECT_INT(t, refused, 10);
    EXPECT_INT(t, throttled, 990);
    EXPECT_INT(t, plain(w, "anna@example.org", "secret", at(3000, 1)), SASL_THROTTLED);
    EXPECT_INT(t, plain(w, "anna@example.org", "secret", at(500, 8)), SASL_OK); /* home, over a restart */
    test_case(t, "from one network at all accounts");
    refused = throttled = 0;
    for (unsigned i = 0; i < 1000; i++) {
        snprintf(name, sizeof name, "user%u", i);
        enum sasl_status status = plain(w, name, "guess", at(4000, i % 256));
        refused += status == SASL_REFUSED;
        throttled += status == SASL_THROTTLED;
    }
    EXPECT_INT(t, refused, 30);
    EXPECT_INT(t, throttled, 970);
    EXPECT_INT(t, plain(w, "bob", "other", at(4001, 1)), SASL_OK);
    EXPECT_INT(t, plain(w, "bob", "other", at(4000, 1)), SASL_THROTTLED);
    uint32_t call = say(w, BORDER_BANS, S(""));
    (void)hear_answer(w, call);
    EXPECT_INT(t, w->bans, 2);
}

static void
guessing(struct test *t)
{
    in_world(t, do_guessing);
}

/* More at once than may wait: some are told to come later, all are answered. */
static void
do_crowd(struct world *w)
{
    struct test *t = w->t;
    uint32_t calls[400];
    size_t counts[SASL_STATUS_LAST + 1] = { 0 };

    give_file(w, BOB);
    wait_for(w, "bob", "other", SASL_OK);
    for (unsigned i = 0; i < 400; i++) {
        char memory[40];
        struct text text = text_init(memory, sizeof memory);
        text_put_byte(&text, '\0');
        text_putf(&text, "user%u", i);
        text_put_byte(&text, '\0');
        text_put_byte(&text, 'x');
        calls[i] = begin(w, S("PLAIN"), text_str(&text), at(i, 1), true);
    }
    for (unsigned i = 0; i < 400; i++)
        counts[hear_answer(w, calls[i])]++;
    EXPECT_INT(t, counts[SASL_REFUSED] + counts[SASL_LATER], 400);
    EXPECT(t, counts[SASL_REFUSED] >= 200 && counts[SASL_LATER] > 0);
    EXPECT_INT(t, plain(w, "bob", "other", at(1, 1)), SASL_OK);
}

static void
a_crowd(struct test *t)
{
    in_world(t, do_crowd);
}

/* Logins that stop where the client is asked for something, as often as an account has failures; then the user comes. */
static void
do_stopped(struct world *w)
{
    struct test *t = w->t;

    give_file(w, BOB);
    wait_for(w, "bob", "other", SASL_OK);
    for (unsigned i = 0; i < 12; i++) {
        EXPECT_INT(t, hear_answer(w, begin(w, S("LOGIN"), S("bob"), at(1, i), true)), SASL_CHALLENGE);
        EXPECT_INT(t, hear_answer(w, begin(w, S("SCRAM-SHA-256"), S("n,,n=bob,r=abc"), at(1, i), true)), SASL_CHALLENGE);
    }
    EXPECT_INT(t, plain(w, "bob", "other", at(2, 1)), SASL_OK);
    EXPECT_INT(t, plain(w, "bob", "other", at(1, 1)), SASL_OK);
    test_case(t, "a network has only so many under way");
    for (unsigned i = 24; i < 200; i++)
        EXPECT_INT(t, hear_answer(w, begin(w, S("LOGIN"), S("bob"), at(1, i), true)), SASL_CHALLENGE);
    EXPECT_INT(t, hear_answer(w, begin(w, S("LOGIN"), S("bob"), at(1, 7), true)), SASL_LATER);
    EXPECT_INT(t, hear_answer(w, begin(w, S("LOGIN"), S("bob"), at(2, 7), true)), SASL_CHALLENGE);
    gate_users_peer_down(w->g, 1);
    EXPECT_INT(t, hear_answer(w, begin(w, S("LOGIN"), S("bob"), at(1, 7), true)), SASL_CHALLENGE);
}

static void
stopped_logins_close_nothing(struct test *t)
{
    in_world(t, do_stopped);
}

/* A user's many programs at once: more than may fail, and all are right. They wait for each other. */
static void
do_right_at_once(struct world *w)
{
    struct test *t = w->t;
    uint32_t calls[100];

    give_file(w, BOB);
    wait_for(w, "bob", "other", SASL_OK);
    for (unsigned i = 0; i < 100; i++)
        calls[i] = begin(w, S("PLAIN"), S("\0bob\0other"), at(1, i), true);
    for (unsigned i = 0; i < 100; i++)
        EXPECT_INT(t, hear_answer(w, calls[i]), SASL_OK);
    test_case(t, "all are wrong: as many are compared as may fail, and the others hear it");
    size_t counts[SASL_STATUS_LAST + 1] = { 0 };
    for (unsigned i = 0; i < 100; i++)
        calls[i] = begin(w, S("PLAIN"), S("\0nobody\0other"), at(100 + i, 1), true);
    for (unsigned i = 0; i < 100; i++)
        counts[hear_answer(w, calls[i])]++;
    EXPECT_INT(t, counts[SASL_REFUSED], 10);
    EXPECT_INT(t, counts[SASL_THROTTLED], 90);
    test_case(t, "the gate ends while they wait");
    for (unsigned i = 0; i < 100; i++)
        begin(w, S("PLAIN"), S("\0bob\0other"), at(1, i), true);
}

static void
many_are_right_at_once(struct test *t)
{
    in_world(t, do_right_at_once);
}

static uint8_t
spend(struct world *w, struct str user, uint32_t messages, uint32_t recipients)
{
    unsigned char memory[300];
    struct put p = put_init(memory, sizeof memory);

    border_put_spend(&p, &(struct border_spend){ user, messages, recipients });
    uint32_t call = say(w, BORDER_SPEND, put_str_so_far(&p));
    EXPECT(w->t, w->have[call]);
    return w->spent.answer;
}

static void
do_spending(struct world *w)
{
    struct test *t = w->t;

    EXPECT_INT(t, spend(w, S("anna"), 1, 4), SPEND_OK);
    EXPECT_INT(t, spend(w, S("anna"), 1, 7), SPEND_RECIPIENTS);
    EXPECT_INT(t, w->spent.limit, 10);
    EXPECT(t, w->spent.again_wall > rt_wall(w->rt) && w->spent.again_wall <= rt_wall(w->rt) + DAY);
    EXPECT_INT(t, spend(w, S("anna"), 1, 6), SPEND_OK);
    gate_users_end(w->g);
    gate_begin(w);
    EXPECT_INT(t, spend(w, S("anna"), 1, 0), SPEND_OK);
    EXPECT_INT(t, spend(w, S("anna"), 1, 0), SPEND_MESSAGES);
    EXPECT_INT(t, w->spent.limit, 3);
    EXPECT_INT(t, spend(w, S("bob"), 3, 10), SPEND_OK);
    EXPECT_INT(t, spend(w, S("bob"), UINT32_MAX, 0), SPEND_MESSAGES);
    w->site.users.messages_per_day = 0;
    EXPECT_INT(t, spend(w, S("anna"), 1000, 0), SPEND_OK);
}

static void
a_day_of_sending(struct test *t)
{
    in_world(t, do_spending);
}

static void
do_damage(struct world *w)
{
    char path[200];
    struct test *t = w->t;

    EXPECT_INT(t, spend(w, S("anna"), 1, 10), SPEND_OK);
    gate_users_end(w->g);
    snprintf(path, sizeof path, "%s/users", w->folder);
    FILE *file = fopen(path, "r+");
    CHECK(file != NULL && fseek(file, 60, SEEK_SET) == 0);
    fputc('x', file);
    fputc('y', file);
    fclose(file);
    gate_begin(w);
    EXPECT_INT(t, spend(w, S("anna"), 1, 10), SPEND_OK); /* forgotten, and the gate is there */
}

static void
a_damaged_state(struct test *t)
{
    in_world(t, do_damage);
}

/* Nobody is there to be asked: what gets so far is SASL_LATER, and what nobody could count does not. */
static void
dovecot_in(struct world *w)
{
    static char long_nonce[340];
    static const struct {
        const char *why;
        struct str mechanism, initial;
        enum sasl_status status;
    } cases[] = {
        { "a name", STR("PLAIN"), STR("\0anna\0p"), SASL_LATER },
        { "name first", STR("LOGIN"), STR("anna"), SASL_LATER },
        { "it asks for the name", STR("LOGIN"), { NULL, 0 }, SASL_LATER },
        { "it would ask for the name again", STR("LOGIN"), STR(""), SASL_MALFORMED },
        { "no name", STR("PLAIN"), STR("anna"), SASL_MALFORMED },
        { "an empty name", STR("PLAIN"), STR("\0\0p"), SASL_MALFORMED },
        { "SCRAM", STR("SCRAM-SHA-256"), STR("n,,n=anna,r=abc"), SASL_LATER },
        { "a nonce as we take none", STR("SCRAM-SHA-256"), { long_nonce, sizeof long_nonce }, SASL_MALFORMED },
        { "its challenge comes first", STR("CRAM-MD5"), { NULL, 0 }, SASL_LATER },
        { "another's name, which it would not look at", STR("CRAM-MD5"), STR("bob 0123"), SASL_MALFORMED },
    };

    w->site.users.kind = USERS_DOVECOT;
    w->site.users.path = S("/nonexistent/dovecot");
    w->site.users.mechanisms |= SASL_BIT(SASL_CRAM_MD5);
    memset(long_nonce, 'a', sizeof long_nonce);
    memcpy(long_nonce, "n,,n=anna,r=", 12);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        test_case(w->t, cases[i].why);
        EXPECT_INT(w->t, hear_answer(w, begin(w, cases[i].mechanism, cases[i].initial, at(1, 1), true)), cases[i].status);
    }
}

static void
dovecot(struct test *t)
{
    in_world(t, dovecot_in);
}

/* Whoever it lets in hears the greeting, and then nothing, or a challenge for each line. */
struct stand_in {
    struct world *w;
    struct listener *listener;
    struct scope work;
    bool silent;
};

struct caller {
    struct stand_in *d;
    struct stream *stream;
};

static void
run_caller(void *arg)
{
    struct caller *c = arg;
    struct rt *rt = c->d->w->rt;
    char memory[1000];
    size_t got = 1;

    (void)stream_write(c->stream, S("VERSION\t1\t2\nMECH\tLOGIN\nDONE\n"), FOREVER);
    while (!err_is(stream_read(c->stream, memory, sizeof memory, FOREVER, &got)) && got > 0) {
        struct str said = str_new(memory, got);
        if (!c->d->silent && (str_find(said, S("AUTH\t")) < said.len || str_starts(said, S("CONT"))))
            (void)stream_write(c->stream, S("CONT\t1\tUGFzc3dvcmQ6\n"), FOREVER);
    }
    stream_close(c->stream);
    mem_free(rt_mem(rt), c, sizeof *c);
}

static void
run_stand_in(void *arg)
{
    struct stand_in *d = arg;
    struct stream *stream;
    struct address peer;

    while (!err_is(listener_accept(d->listener, FOREVER, &stream, &peer))) {
        struct caller *c = mem_new(rt_mem(d->w->rt), struct caller);
        *c = (struct caller){ d, stream };
        scope_start(&d->work, "caller", run_caller, c);
    }
}

static void
silent_dovecot_in(struct world *w)
{
    struct stand_in d = { .w = w };
    struct address socket = { .family = ADDRESS_UNIX };
    struct test *t = w->t;
    uint32_t calls[110];

    snprintf(socket.path, sizeof socket.path, "%s/dovecot", w->folder);
    CHECK(!err_is(listener_open(w->rt, &socket, &d.listener)));
    scope_init(&d.work, w->rt);
    scope_start(&d.work, "Dovecot", run_stand_in, &d);
    w->site.users.kind = USERS_DOVECOT;
    w->site.users.path = str_from_cstr(socket.path);
    test_case(t, "who says nothing goes when another comes");
    for (unsigned i = 0; i < 110; i++)
        EXPECT_INT(t, hear_answer(w, begin(w, S("LOGIN"), S("anna"), at(i, 1), true)), SASL_CHALLENGE);
    EXPECT_INT(t, step(w, S("more"), false), SASL_CHALLENGE);
    w->exchanges -= 109; /* the first, whose client comes too late */
    EXPECT_INT(t, step(w, S("more"), false), SASL_LATER);
    w->exchanges += 109;
    gate_users_peer_down(w->g, 1);
    test_case(t, "it says nothing: all are told in bounded time");
    gate_users_end(w->g);
    d.silent = true;
    w->patience = 200 * MILLISECOND;
    gate_begin(w);
    for (unsigned i = 0; i < 110; i++)
        calls[i] = begin(w, S("LOGIN"), S("anna"), at(i, 1), true);
    for (unsigned i = 0; i < 110; i++)
        EXPECT_INT(t, hear_answer(w, calls[i]), SASL_LATER);
    test_case(t, "and answers again");
    d.silent = false;
    gate_users_end(w->g);
    w->patience = 10 * MINUTE;
    gate_begin(w);
    EXPECT_INT(t, hear_answer(w, begin(w, S("LOGIN"), S("anna"), at(1, 1), true)), SASL_CHALLENGE);
    gate_users_end(w->g);
    scope_end(&d.work);
    listener_close(d.listener);
    unlink(socket.path);
    gate_begin(w);
}

static void
a_silent_dovecot(struct test *t)
{
    in_world(t, silent_dovecot_in);
}

TEST_MAIN({ "logins", logins }, { "nobody looks the same each time", nobody_looks_the_same_each_time }, { "guessing", guessing },
          { "a crowd", a_crowd },
          { "stopped logins close nothing", stopped_logins_close_nothing },
          { "many are right at once", many_are_right_at_once }, { "a silent Dovecot", a_silent_dovecot },
          { "a day of sending", a_day_of_sending }, { "a damaged state", a_damaged_state }, { "Dovecot", dovecot })
