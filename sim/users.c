/* users - see users.h. */
#include "sim/users.h"

#include "base/base64.h"
#include "base/check.h"
#include "base/limits.h"
#include "sasl/client.h"
#include "sasl/users.h"
#include "sim/run.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

enum { ITERATIONS = SCRAM_ITERATIONS_MIN, GUESSES_MAX = 5, BAN_S_MAX = 80, WITHIN_S_MAX = 150, STRANGER_TRIES = 4,
       FAILURES_MAX = 10 };
#define SETTLED (2 * MINUTE) /* what was changed is known by then, if nothing is broken */
/* All that was wrong is forgotten, and sessions whose client has vanished within AUTH have ended too; an exchange that none of
 * them has given up would still be there. */
#define FORGIVEN (LIMIT_COMMAND_NS - SETTLED + MINUTE)
static_assert((BAN_S_MAX + WITHIN_S_MAX) * SECOND < FORGIVEN && SETTLED + FORGIVEN < 2 * LIMIT_COMMAND_NS, "BORDER_AUTH_NS");
#define SALT S("saltsalt")

static const char *const passwords[PASSWORDS] = { "secret", "terces" };
static const char *const wrong_passwords[] = { "secre", "secret ", "guess", "" };

/* ---- the file ---------------------------------------------------------------------------------------------------- */

struct keys { /* of a password: the same in each run */
    struct scram_keys server;
    unsigned char client_key[DIGEST_MAX], server_key[DIGEST_MAX];
};

static const struct keys *
keys_of(unsigned password)
{
    static struct keys made[PASSWORDS];
    struct keys *k = &made[password];
    struct str word = str_from_cstr(passwords[password]);

    if (k->server.iterations == 0) {
        scram_make_keys(DIGEST_SHA256, word, SALT, ITERATIONS, &k->server);
        scram_client_keys(DIGEST_SHA256, word, SALT, ITERATIONS, k->client_key, k->server_key);
    }
    return k;
}

static void
put_users(const struct run *run, struct text *t)
{
    for (size_t i = 0; i < USERS; i++) {
        const struct user_of_site *u = &run->users[i];
        char hash[64], sender[64];
        (void)snprintf(hash, sizeof hash, "$sim$%s", passwords[u->password]);
        (void)snprintf(sender, sizeof sender, "@%s", u->domain);
        struct user line = { .name = str_from_cstr(u->name), .hash = str_from_cstr(hash), .senders = { str_from_cstr(sender) },
                             .sender_count = 1, .sha256 = keys_of(u->password)->server };
        user_put(t, &line);
    }
    CHECK(!t->full);
}

static bool
write_file(struct run *run)
{
    char memory[2000];
    struct text t = text_init(memory, sizeof memory);

    put_users(run, &t);
    return run_put_file(run->sim, "/etc/users", text_str(&t));
}

void
users_write_first(struct run *run)
{
    CHECK(write_file(run));
}

static void
take_users(struct run *run)
{
    run->users[0] = (struct user_of_site){ "anna", "back.test", "other.test", 0, 0 };
    run->users[1] = (struct user_of_site){ "bert", "other.test", "back.test", 0, 0 };
    run->has_users = true;
}

void
users_make(struct run *run, struct text *config)
{
    take_users(run);
    text_put(config, S("listen submissions { address 192.0.2.1:465 }\nusers file /etc/users { mechanisms plain }\n"));
}

/* Dice of their own, so that runs without users are what they were. */
void
users_draw(struct run *run, struct text *config)
{
    struct prng *p = &run->user_draws;

    prng_seed(p, run->sim->seed ^ UINT64_C(0x7573657273)); /* "users" */
    if (prng_below(p, 3) > 0)
        return;
    take_users(run);
    text_put(config, S("listen submission { address 192.0.2.1:587 }\nlisten submissions { address 192.0.2.1:465 }\n"));
    text_putf(config, "users file /etc/users { mechanisms plain login scram-sha-256; ban %us; failures-per-account %u\n"
                      "    failures-per-network %u; failures-within %us }\n",
              10 + (unsigned)prng_below(p, BAN_S_MAX - 10), 2 + (unsigned)prng_below(p, FAILURES_MAX - 2), 4 + (unsigned)prng_below(p, 30),
              10 + (unsigned)prng_below(p, WITHIN_S_MAX - 10));
    for (size_t i = 0; i < run->plan.client_count; i++) {
        struct client_plan *c = &run->plan.clients[i];
        if (c->local || prng_below(p, 3) == 0)
            continue;
        c->user = &run->users[prng_below(p, USERS)];
        c->trusted = true;
    }
}

void
users_add_faults(struct run *run)
{
    static const char *const roles[] = { "gate", "gate", "keys", "submission", "supervisor" };
    struct faults *all = &run->sim->faults;
    struct prng *p = &run->user_draws;

    for (uint64_t left = prng_below(p, 3); left > 0; left--) {
        struct fault *f = &all->list[all->count++];
        CHECK(all->count <= FAULTS_MAX);
        *f = (struct fault){ .kind = FAULT_KILL_ROLE, .by_step = true, .step = 1 + prng_below(p, 300),
                             .at = SECOND + (int64_t)prng_below(p, (uint64_t)run->plan.active) };
        (void)snprintf(f->role, sizeof f->role, "%s", roles[prng_below(p, sizeof roles / sizeof *roles)]);
    }
}

/* ---- what an answer says about the daemon ------------------------------------------------------------------------ */

/* What was changed must have been known when he was asked: the answer may have been on its way for as long as a partition. */
static bool
is_settled(const struct run *run, const struct user_of_site *u, int64_t asked)
{
    return u->changed_at == 0 || (run->calm && asked - run->healed_at > SETTLED && asked - u->changed_at > SETTLED);
}

static bool
ever_was(const struct user_of_site *u, const char *password)
{
    for (unsigned i = 0; i < PASSWORDS; i++)
        if (strcmp(passwords[i], password) == 0)
            return u->changed_at != 0 || i == u->password;
    return false;
}

/* u: NULL: there is nobody of that name. asked: when this login began. */
static void
judge_login(struct run *run, const struct user_of_site *u, const char *password, int64_t asked, unsigned code)
{
    bool right = u && strcmp(passwords[u->password], password) == 0;

    run->counts.logins += code == 235;
    run->counts.logins_refused += code == 535 || code == 454;
    if (code == 235 && (!u || (!right && (is_settled(run, u, asked) || !ever_was(u, password)))))
        sim_fail(run->sim, "%s is let in with a password that is not right", u ? u->name : "somebody who does not exist");
    if (code == 535 && right && is_settled(run, u, asked))
        sim_fail(run->sim, "%s is refused with the right password", u->name);
}

/* What nobody may have. A 4xx says no as well. */
static void
judge_refusal(const struct user_session *s, unsigned code, const char *what)
{
    if (s->sound && (code / 100 == 2 || code / 100 == 3))
        sim_fail(s->run->sim, "%s: %u", what, code);
}

/* ---- AUTH -------------------------------------------------------------------------------------------------------- */

enum way { PLAIN_AT_ONCE, PLAIN_ASKED, BY_LOGIN, BY_SCRAM, WAYS };
enum { PART = 2000 };

static bool
put_base64(struct conn *c, const char *before, struct str bytes)
{
    char memory[PART];
    struct text t = text_init(memory, sizeof memory);

    text_put(&t, str_from_cstr(before));
    base64_put(&t, bytes);
    text_put(&t, S("\r\n"));
    CHECK(!t.full);
    return conn_put(c, text_str(&t));
}

/* A 334's bytes. */
static bool
take_challenge(struct str line, struct text *out)
{
    return base64_decode_strictly(str_trim(str_from(line, 4)), out);
}

/* Without the time that it takes: whose password is none of ours proves nothing, whatever the key. */
static void
take_keys(struct sasl_client *x)
{
    for (unsigned i = 0; i < PASSWORDS; i++)
        if (str_eq(x->login.secret, str_from_cstr(passwords[i])) && str_eq(x->salt, SALT) && x->iterations == ITERATIONS) {
            memcpy(x->client_key, keys_of(i)->client_key, DIGEST_MAX);
            memcpy(x->server_key, keys_of(i)->server_key, DIGEST_MAX);
        }
    x->needs_keys = false;
}

enum patience { GOES_ON, CANCELS, LEAVES }; /* when he is asked for more: with "*", without a word */

/* The code that ends it; 0: none came. */
static unsigned
log_in(struct run *run, struct conn *c, const char *name, const char *password, enum way way, enum patience patience)
{
    struct sasl_login login = { str_from_cstr(name), str_from_cstr(password), false };
    enum sasl_client_mechanism m = way == BY_LOGIN   ? SASL_CLIENT_LOGIN
                                   : way == BY_SCRAM ? SASL_CLIENT_SCRAM_SHA_256
                                                     : SASL_CLIENT_PLAIN;
    char nonce[SCRAM_NONCE + 1], said[PART], heard[PART];
    struct text first = text_init(said, sizeof said);
    struct sasl_client x;
    struct str line, why;
    unsigned code = 0;

    (void)snprintf(nonce, sizeof nonce, "%024llu", (unsigned long long)dice_below(run->sim, UINT64_MAX / 2));
    sasl_client_begin(&x, m, &login, str_new(nonce, SCRAM_NONCE));
    bool has_first = sasl_client_initial(&x, &first);
    if (way == PLAIN_ASKED || way == BY_LOGIN ? !conn_putf(c, "AUTH %s\r\n", way == BY_LOGIN ? "LOGIN" : "PLAIN")
                                              : !put_base64(c, way == BY_SCRAM ? "AUTH SCRAM-SHA-256 " : "AUTH PLAIN ",
                                                            text_str(&first)))
        return 0;
    if (!conn_reply(c, &code, &line))
        return 0;
    while (code == 334) {
        struct text challenge = text_init(heard, sizeof heard), answer = text_init(said, sizeof said);
        if (patience == LEAVES)
            conn_close(c);
        if (patience != GOES_ON)
            return conn_put(c, S("*\r\n")) && conn_reply(c, &code, NULL) ? code : 0;
        if (has_first && way == PLAIN_ASKED) {
            (void)sasl_client_initial(&x, &answer);
            has_first = false;
        } else {
            if (!take_challenge(line, &challenge))
                sim_fail(run->sim, "a challenge is not in base64");
            else if (!sasl_client_take(&x, text_str(&challenge), &why))
                sim_fail(run->sim, "login of %s: %.*s", name, STR_ARG(why));
            if (run->sim->failed)
                return 0;
            if (x.needs_keys)
                take_keys(&x);
            sasl_client_answer(&x, &answer);
        }
        if (!put_base64(c, "", text_str(&answer)) || !conn_reply(c, &code, &line))
            return 0;
    }
    if (code == 235 && !sasl_client_may_succeed(&x))
        sim_fail(run->sim, "%s is let in by a server that has not shown that it knows the password", name);
    return code;
}

/* ---- a session's begin ------------------------------------------------------------------------------------------- */

static bool
say_ehlo(const struct user_session *s)
{
    struct str line;

    if (!conn_put(s->conn, S("EHLO client.test\r\n")))
        return false;
    do {
        if (!conn_line(s->conn, &line) || line.len < 4 || line.ptr[0] != '2')
            return false;
        if (s->extension)
            s->extension(s->ctx, str_from(line, 4));
    } while (line.ptr[3] == '-');
    return true;
}

static bool
ask(struct conn *c, const char *line, unsigned *out_code)
{
    return conn_putf(c, "%s\r\n", line) && conn_reply(c, out_code, NULL);
}

/* Before there is a reason to believe him. */
static bool
try_too_early(const struct user_session *s, bool in_clear)
{
    unsigned code = 0;

    if (in_clear && dice_chance(s->run->sim, 100)) {
        if (!ask(s->conn, "AUTH PLAIN AGFubmEAc2VjcmV0", &code))
            return false;
        judge_refusal(s, code, "a password is taken in clear");
    }
    if (dice_chance(s->run->sim, 100)) {
        if (!ask(s->conn, "MAIL FROM:<s-0@back.test>", &code))
            return false;
        judge_refusal(s, code, "MAIL without a login");
    }
    return !s->run->sim->failed;
}

static bool
start_tls(const struct user_session *s)
{
    unsigned code = 0;

    return ask(s->conn, "STARTTLS", &code) && code == 220 && say_ehlo(s);
}

bool
user_enters(const struct user_session *s)
{
    struct sim *sim = s->run->sim;
    const char *password = passwords[s->user->password];
    int64_t asked = sim->now;
    unsigned code = 0;

    if (!say_ehlo(s) || (!s->plain && !try_too_early(s, !s->tls_first)))
        return false;
    if (!s->tls_first && (!start_tls(s) || !try_too_early(s, false)))
        return false;
    if (!s->plain && !s->run->calm && dice_chance(sim, 100)) { /* mistyped */
        code = log_in(s->run, s->conn, s->user->name, wrong_passwords[0], (enum way)dice_below(sim, WAYS),
                      dice_chance(sim, 300) ? CANCELS : GOES_ON);
        if (s->sound)
            judge_login(s->run, s->user, wrong_passwords[0], asked, code);
        if (code == 0 || code == 421)
            return false;
    }
    enum way way = s->plain ? PLAIN_AT_ONCE : (enum way)dice_below(sim, WAYS);
    code = log_in(s->run, s->conn, s->user->name, password, way, GOES_ON);
    /* It may have been changed while this was under way. */
    if (s->sound && strcmp(password, passwords[s->user->password]) == 0)
        judge_login(s->run, s->user, password, asked, code);
    return code == 235;
}

/* His own reverse-path, and another in From. */
static bool
try_another_author(const struct user_session *s)
{
    unsigned code = 0;

    if (!conn_putf(s->conn, "MAIL FROM:<s-0@%s>\r\n", s->user->domain) || !conn_reply(s->conn, &code, NULL))
        return false;
    if (code != 250)
        return code != 421;
    if (!ask(s->conn, "RCPT TO:<user0@local.test>", &code) || code == 421)
        return false;
    if (code == 250 && (!ask(s->conn, "DATA", &code) || code == 421))
        return false;
    if (code == 354) {
        if (!conn_putf(s->conn, "From: s-0@%s\r\n\r\ntext\r\n.\r\n", s->user->other_domain) ||
            !conn_reply(s->conn, &code, NULL))
            return false;
        judge_refusal(s, code, "a message From somebody else");
    }
    return code != 421 && ask(s->conn, "RSET", &code) && code == 250;
}

bool
user_tries_another(const struct user_session *s)
{
    unsigned code = 0;

    if (!dice_chance(s->run->sim, 100))
        return true;
    if (dice_chance(s->run->sim, 300))
        return try_another_author(s);
    if (!conn_putf(s->conn, "MAIL FROM:<s-0@%s>\r\n", s->user->other_domain) || !conn_reply(s->conn, &code, NULL))
        return false;
    judge_refusal(s, code, "MAIL FROM somebody else");
    return code != 421 && !s->run->sim->failed;
}

/* ---- an operator, who changes passwords -------------------------------------------------------------------------- */

/* False: the disk is full. */
static bool
change_password(struct run *run, struct rt *rt, struct user_of_site *u)
{
    struct user_of_site before = *u;

    u->password = (u->password + 1) % PASSWORDS;
    u->changed_at = run->sim->now;
    bool changed = write_file(run);
    if (!changed)
        *u = before;
    sim_trace(run->sim, process_of(rt), "%s has password %u", u->name, u->password);
    return changed;
}

static void
reload(struct sim *sim)
{
    if (!sim_daemon(sim))
        return;
    sim->faults.injected[FAULT_RELOAD]++; /* sessions may end by it */
    process_signal(sim_daemon(sim), SIGHUP);
}

static int
change_passwords(struct rt *rt, void *arg)
{
    struct run *run = arg;
    struct sim *sim = run->sim;
    struct prng p;

    prng_seed(&p, prng_u64(&run->user_draws));
    for (uint64_t left = prng_below(&p, 4); left > 0; left--) {
        (void)rt_sleep(rt, within(rt, (int64_t)prng_below(&p, (uint64_t)run->plan.active)));
        if (run->calm)
            break;
        change_password(run, rt, &run->users[prng_below(&p, USERS)]);
        if (prng_below(&p, 3) == 0)
            reload(sim);
    }
    return 0;
}

/* ---- somebody who guesses ---------------------------------------------------------------------------------------- */

/* One login, of anybody, with whatever may be his password. */
static bool
guess(struct run *run, struct conn *c)
{
    struct sim *sim = run->sim;
    enum { NOBODY = USERS };
    uint64_t who = dice_below(sim, USERS + 1);
    const struct user_of_site *u = who == NOBODY ? NULL : &run->users[who];
    unsigned other = u ? (u->password + 1) % PASSWORDS : 0;
    const char *password = dice_chance(sim, 500) ? passwords[other] : wrong_passwords[dice_below(sim, 4)];
    enum way way = (enum way)dice_below(sim, WAYS);

    if (password[0] == '\0' && way != BY_LOGIN) /* an empty answer is none: "=" */
        password = wrong_passwords[1];
    int64_t asked = sim->now;
    unsigned code = log_in(run, c, u ? u->name : "nobody", password, way, dice_chance(sim, 100) ? CANCELS : GOES_ON);
    judge_login(run, u, password, asked, code);
    return code != 0 && code != 421 && code != 235 && !sim->failed;
}

static bool
come(struct run *run, struct rt *rt, uint16_t port, struct conn *conn)
{
    struct address to = run->sim->home->address;
    struct stream *stream;

    to.port = port;
    if (err_is(stream_connect(rt, &to, NULL, within(rt, MINUTE), &stream)))
        return false;
    conn_init(conn, rt, stream);
    return true;
}

static void
visit(struct run *run, struct rt *rt)
{
    struct sim *sim = run->sim;
    struct conn conn;
    struct user_session s = { .run = run, .conn = &conn, .tls_first = dice_chance(sim, 500), .sound = true };
    unsigned code = 0;

    if (!come(run, rt, s.tls_first ? 465 : 587, &conn))
        return;
    if (!run->calm && dice_chance(sim, 300)) {
        conn.budget = dice_below(sim, 400);
        conn.budget_resets = dice_chance(sim, 500);
    }
    bool going = conn_reply(&conn, &code, NULL) && code == 220 && say_ehlo(&s) && try_too_early(&s, !s.tls_first) &&
                 (s.tls_first || (start_tls(&s) && try_too_early(&s, false)));
    for (uint64_t left = 1 + dice_below(sim, GUESSES_MAX); left > 0 && going; left--)
        going = guess(run, &conn) && try_too_early(&s, false);
    conn_close(&conn);
}

/* Begins as often as failures are allowed, and never says the password: that is no failure. */
static void
give_up_often(struct run *run, struct rt *rt)
{
    struct sim *sim = run->sim;
    struct conn conn;
    struct user_session s = { .run = run, .conn = &conn };
    unsigned code = 0;

    for (int left = FAILURES_MAX; left > 0; left--) {
        if (!come(run, rt, 465, &conn))
            continue;
        if (conn_reply(&conn, &code, NULL) && code == 220 && say_ehlo(&s))
            (void)log_in(run, &conn, run->users[left % USERS].name, "", BY_SCRAM,
                         dice_chance(sim, 500) ? CANCELS : LEAVES);
        conn_close(&conn);
    }
}

/* A session that a reload lets go on asks the gate of its own generation, which must know of the new password too. */
static void
outlive_reload(struct run *run, struct rt *rt)
{
    struct user_of_site *u = &run->users[dice_below(run->sim, USERS)];
    const char *tried = passwords[dice_below(run->sim, PASSWORDS)];
    struct conn conn;
    struct user_session s = { .run = run, .conn = &conn };
    unsigned code = 0;

    if (!come(run, rt, 465, &conn))
        return;
    if (conn_reply(&conn, &code, NULL) && code == 220 && say_ehlo(&s) && change_password(run, rt, u)) {
        reload(run->sim);
        (void)rt_sleep(rt, within(rt, SETTLED + SECOND));
        int64_t asked = run->sim->now;
        judge_login(run, u, tried, asked, log_in(run, &conn, u->name, tried, PLAIN_AT_ONCE, GOES_ON));
    }
    conn_close(&conn);
}

/* From where he never was before, each user gets in when bans and what was wrong are over. */
static void
log_in_as_stranger(struct run *run, struct rt *rt, const struct user_of_site *u)
{
    struct conn conn;
    struct user_session s = { .run = run, .conn = &conn };
    unsigned code = 0;

    for (int tries = 0; tries < STRANGER_TRIES && code != 235 && !run->sim->failed; tries++) {
        if (tries > 0)
            (void)rt_sleep(rt, within(rt, 10 * SECOND));
        if (!come(run, rt, 465, &conn))
            continue;
        if (conn_reply(&conn, &code, NULL) && code == 220 && say_ehlo(&s))
            code = log_in(run, &conn, u->name, passwords[u->password], PLAIN_AT_ONCE, GOES_ON);
        conn_close(&conn);
    }
    if (code != 235)
        sim_fail(run->sim, "%s cannot log in from elsewhere though all bans are over: %u", u->name, code);
}

/* Comes once more when all is well, when every answer is known; and again when nothing counts any more. */
static int
guess_passwords(struct rt *rt, void *arg)
{
    struct run *run = arg;

    run->clients_busy++;
    do {
        (void)rt_sleep(rt, within(rt, dice_between(run->sim, SECOND, run->plan.active / 4)));
        if (!run->calm)
            visit(run, rt);
    } while (!run->calm);
    (void)rt_sleep(rt, run->healed_at + SETTLED + SECOND);
    if (dice_chance(run->sim, 200))
        outlive_reload(run, rt);
    give_up_often(run, rt);
    visit(run, rt);
    (void)rt_sleep(rt, within(rt, FORGIVEN));
    check_memory_rests(run->sim, "gate");
    for (size_t i = 0; i < USERS; i++)
        log_in_as_stranger(run, rt, &run->users[i]);
    run->clients_busy--;
    run->busy_until = run->sim->now;
    return 0;
}

void
users_start(struct run *run)
{
    struct sim *sim = run->sim;

    process_start(sim, "user keeper", host_new(sim, "user keeper", "127.0.0.5"), change_passwords, run);
    if (prng_below(&run->user_draws, 3) > 0)
        process_start(sim, "guesser", host_new(sim, "guesser", "203.0.113.200"), guess_passwords, run);
}
