/*
 * gate_users - see gate_users.h.
 *
 * STATE/gate/users, little-endian: 16 bytes of MAGIC, SHA-256 of all that follows, the secret, homes (policy/throttle.h),
 * count, then for each user who sent something: name, begin of his day, messages, recipients. It is written anew and
 * renamed, and what an older generation of us wrote meanwhile is taken in first.
 */
#include "role/gate_users.h"

#include "base/check.h"
#include "net/digest.h"
#include "policy/rate.h"
#include "policy/throttle.h"
#include "role/border.h"
#include "runtime/log.h"
#include "sasl/dovecot.h"
#include "sasl/exchange.h"
#include "sasl/password.h"
#include "sasl/prepare.h"

#include <string.h>

enum {
    CHECKS_MAX = 200,         /* passwords that wait to be compared: some seconds */
    WAITING_MAX = 200,        /* logins that wait for others of their account or network */
    NETWORK_EXCHANGES_MAX = 200, /* under way from one network */
    DOVECOTS_MAX = 100,       /* connections to Dovecot */
    SPENDERS_MAX = 100000,
    SECRET = 32,
    STATE_MAX = 128 << 20,
    STEP = 1 << 20,           /* of what is read at once */
    LINES_AT_ONCE = 200,
    BAN_BYTES = LIMIT_USER_NAME + 100,
};
#define KEEP_NS (1 * MINUTE)
#define AGAIN_NS (2 * SECOND)
#define SWEEP_NS (30 * SECOND)
#define MAGIC S("postrider gate 1")
/* Compared where there is no hash: as long as ours take. */
#define NOBODYS_HASH S("$y$j9T$abcdefghijklmnopqrstu/$0123456789abcdefghijklmnopqrstuvwxyzABCDEFG")

struct spender { /* a user's day; his name follows */
    struct list recent;
    int64_t since_wall;
    uint32_t messages, recipients;
    size_t name_len;
    char name[];
};

struct gate_users {
    struct gate_users_settings settings;
    struct rt *rt;
    const struct site_users *site;
    struct users *own_users;
    struct throttle *throttle;
    struct map exchanges;            /* by link and number */
    struct list by_age;              /* struct exchange: the one that was heard of longest ago is the first */
    struct clients *open;            /* how many exchanges each network has under way */
    struct scope work;
    bool loading, again, unreadable; /* of the users file */
    struct handle file;              /* to be read next */
    struct event loaded;             /* or reading it has failed */
    bool ending;
    size_t checking, hashing;        /* passwords waiting or being compared; being compared */
    struct event turn;
    size_t waiting, dovecots;
    struct event settled, dovecot_closed; /* an attempt */

    struct dir *own_state;           /* NULL: nothing is kept */
    unsigned char secret[SECRET];
    struct map spenders;
    struct list spent_recently;
    uint64_t spent_version, kept_spent, kept_homes;
};

enum { EXCHANGE_KEY = 16 };
struct exchange {
    struct list age;
    struct gate_users *g;
    unsigned char key[EXCHANGE_KEY];
    uint64_t peer;
    struct sasl_exchange *own_x;     /* NULL: Dovecot holds it */
    struct dovecot *own_dovecot;     /* NULL: it was not asked yet */
    bool refused;                    /* by Dovecot */
    enum sasl_mechanism mechanism;
    char name[LIMIT_USER_NAME];      /* what he says he is, to Dovecot; prepared */
    size_t name_len;
    struct throttle_attempt attempt; /* open within a step that compares something */
    struct address client, network;
    int64_t until;
    bool busy, gone; /* gone: it was given up while busy; its fiber ends it */
};

/* ---- who: the store that exchanges ask --------------------------------------------------------------------------- */

/* Where as many are under way as may fail, one waits its turn: most often they are right, and it is let through then. */
static enum sasl_status
attempt(void *ctx, struct str name, int64_t until)
{
    struct exchange *x = ctx;
    struct gate_users *g = x->g;
    int64_t patience = within(g->rt, g->settings.patience);

    for (;;) {
        enum throttle_answer answer =
            throttle_begin(g->throttle, name, &x->client, rt_now(g->rt), rt_wall(g->rt), &x->attempt);
        if (answer != THROTTLE_FULL)
            return answer == THROTTLE_OPEN ? SASL_OK : SASL_THROTTLED;
        if (g->waiting >= WAITING_MAX)
            return SASL_LATER;
        g->waiting++;
        struct err e = event_wait(g->rt, &g->settled, patience < until ? patience : until);
        g->waiting--;
        if (err_is(e) || x->gone)
            return SASL_LATER;
    }
}

static bool
find(void *ctx, struct str name, struct user *out)
{
    const struct exchange *x = ctx;

    return x->g->own_users && users_find(x->g->own_users, name, out) && !out->off;
}

/* A number that only we can know for this name. */
static void
number_of(const struct gate_users *g, struct str name, struct str what, unsigned char out[DIGEST_MAX])
{
    struct str parts[] = { what, name };

    digest_hmac(DIGEST_SHA256, str_new(g->secret, SECRET), parts, 2, out);
}

static void
make_up(const struct gate_users *g, struct str name, struct str what, struct scram_keys *keys)
{
    unsigned char number[DIGEST_MAX];

    if (keys->iterations == 0)
        *keys = (struct scram_keys){ .iterations = SCRAM_ITERATIONS, .salt_len = SCRAM_SALT };
    number_of(g, name, what, number);
    for (size_t i = 0; i < keys->salt_len; i++)
        keys->salt[i] = number[i % DIGEST_MAX];
    number_of(g, name, S("key"), keys->stored);
    memcpy(keys->server, keys->stored, DIGEST_MAX);
}

/* Like one of ours, so that what can be seen of people who are not there is as often what it is of those who are. */
static void
pretend(void *ctx, struct str name, struct user *out)
{
    const struct exchange *x = ctx;
    unsigned char number[DIGEST_MAX];
    struct take t = take_init(str_new(number, 8));

    number_of(x->g, name, S("like"), number);
    if (!x->g->own_users || !users_any(x->g->own_users, take_u64(&t), out))
        *out = (struct user){ .hash = S("*") };
    make_up(x->g, name, S("sha-256"), &out->sha256);
    make_up(x->g, name, S("sha-1"), &out->sha1);
    out->name = name;
}

struct check {
    void *memory;
    size_t password_len, hash_len;
    char password[PASSWORD_MAX], hash[PASSWORD_HASH_MAX];
    bool right;
};

static void
run_check(void *arg)
{
    struct check *c = arg;

    c->right = password_is(str_new(c->password, c->password_len), str_new(c->hash, c->hash_len), c->memory);
}

static struct err
compare(struct gate_users *g, struct check *c, int64_t until)
{
    while (g->hashing >= g->settings.threads)
        TRY(event_wait(g->rt, &g->turn, until));
    g->hashing++;
    c->memory = mem_alloc(rt_mem(g->rt), password_memory());
    struct err e = rt_offload(g->rt, run_check, c, until);
    mem_free(rt_mem(g->rt), c->memory, password_memory());
    g->hashing--;
    event_wake_one(g->rt, &g->turn);
    return e;
}

static enum sasl_status
check(void *ctx, struct str name, struct str password, int64_t until)
{
    struct exchange *x = ctx;
    struct gate_users *g = x->g;
    struct user user;
    bool real = find(x, name, &user);

    if (g->checking >= CHECKS_MAX)
        return SASL_LATER;
    if (!real)
        pretend(x, name, &user);
    struct str hash = user.hash;
    if (str_eq(hash, S("*"))) {
        real = false;
        hash = NOBODYS_HASH;
    }
    CHECK(password.len <= PASSWORD_MAX && hash.len <= PASSWORD_HASH_MAX);
    struct check *c = mem_new(rt_mem(g->rt), struct check);
    c->password_len = password.len;
    memcpy(c->password, password.ptr, password.len);
    c->hash_len = hash.len;
    memcpy(c->hash, hash.ptr, hash.len);
    g->checking++;
    struct err e = compare(g, c, until);
    g->checking--;
    bool right = c->right;
    explicit_bzero(c, sizeof *c);
    mem_free(rt_mem(g->rt), c, sizeof *c);
    return err_is(e) ? SASL_LATER : right && real ? SASL_OK : SASL_REFUSED;
}

static void
give_random(void *ctx, unsigned char *out, size_t len)
{
    const struct exchange *x = ctx;

    for (size_t i = 0; i < len; i++)
        out[i] = (unsigned char)rt_random(x->g->rt);
}

/* ---- exchanges --------------------------------------------------------------------------------------------------- */

static void
put_exchange_key(unsigned char key[EXCHANGE_KEY], uint64_t peer, uint64_t number)
{
    struct put p = put_init(key, EXCHANGE_KEY);

    put_u64(&p, peer);
    put_u64(&p, number);
}

static void
hang_up(struct exchange *x)
{
    if (!x->own_dovecot)
        return;
    dovecot_close(x->own_dovecot);
    x->own_dovecot = NULL;
    x->g->dovecots--;
    event_wake_one(x->g->rt, &x->g->dovecot_closed);
}

static void
exchange_free(struct exchange *x)
{
    struct gate_users *g = x->g;

    CHECK(!x->attempt.open);
    clients_leave(g->open, &x->network);
    if (!x->gone)
        map_remove(&g->exchanges, str_new(x->key, EXCHANGE_KEY));
    list_remove(&x->age);
    if (x->own_x)
        sasl_exchange_free(x->own_x);
    hang_up(x);
    mem_free(rt_mem(g->rt), x, sizeof *x);
}

/* Nobody will hear of it any more. */
static void
exchange_drop(struct exchange *x)
{
    if (!x->busy) {
        exchange_free(x);
        return;
    }
    x->gone = true;
    map_remove(&x->g->exchanges, str_new(x->key, EXCHANGE_KEY));
}

static void
reply_verdict(struct gate_users *g, uint64_t peer, uint32_t call, uint16_t type, const struct border_verdict *v)
{
    struct mem *mem = rt_mem(g->rt);
    unsigned char *memory = mem_buffer(mem, BORDER_VERDICT_BYTES);
    struct put p = put_init(memory, BORDER_VERDICT_BYTES);

    border_put_verdict(&p, v);
    CHECK(!p.full);
    g->settings.reply(g->settings.ctx, peer, call, type, put_str_so_far(&p));
    mem_free(mem, memory, BORDER_VERDICT_BYTES);
}

static void
log_file(struct gate_users *g, enum log_level level, const char *event, struct err e)
{
    struct log_line line;

    log_begin(&line, g->rt, level, event);
    log_str(&line, "file", g->site->path);
    if (err_is(e))
        log_err(&line, e);
    if (g->own_users && !err_is(e))
        log_int(&line, "users", (int64_t)users_count(g->own_users));
    log_end(&line);
}

/* Who says he is there; with success, who is. */
static struct str
name_of(const struct exchange *x)
{
    if (x->own_x)
        return sasl_exchange_name(x->own_x);
    struct str user = x->own_dovecot ? dovecot_user(x->own_dovecot) : S("");
    return user.len > 0 ? user : str_new(x->name, x->name_len);
}

static void
log_login(const struct exchange *x, enum log_level level, const char *event, const char *closed)
{
    struct log_line line;

    log_begin(&line, x->g->rt, level, event);
    log_str(&line, "user", name_of(x));
    log_str(&line, "mechanism", sasl_mechanism_name(x->mechanism));
    log_address(&line, "client", &x->client);
    if (closed) {
        log_str(&line, "closed", str_from_cstr(closed));
        log_seconds(&line, "for", x->g->site->ban);
    }
    log_end(&line);
}

/* What the attempt came to, if this step was one, for those that follow. Its end is the step's: between two of them nothing
 * is under way, however long a client takes. */
static void
settle(struct exchange *x, enum sasl_status status)
{
    struct gate_users *g = x->g;

    if (!x->attempt.open)
        return;
    if (status == SASL_OK || (x->own_x && status == SASL_CHALLENGE)) {
        throttle_right(g->throttle, &x->attempt, rt_wall(g->rt));
    } else if (x->own_x ? sasl_exchange_failed(x->own_x) : x->refused) {
        unsigned closed = throttle_wrong(g->throttle, &x->attempt, rt_now(g->rt));
        log_login(x, LOG_INFO, "login-refused", NULL);
        if (closed & THROTTLE_ACCOUNT)
            log_login(x, LOG_WARNING, "login-closed", x->attempt.home ? "the account at home" : "the account");
        if (closed & THROTTLE_NETWORK_TOO)
            log_login(x, LOG_WARNING, "login-closed", "the network");
    } else {
        throttle_undecided(g->throttle, &x->attempt);
    }
    event_wake(g->rt, &g->settled);
}

/* Who he says he is. Where we find no name Dovecot might, and compare a password that nobody counts: that does not get
 * there. */
static bool
take_name(struct exchange *x, struct str response)
{
    char said_memory[LIMIT_USER_NAME];
    struct text said = text_init(said_memory, sizeof said_memory), name = text_init(x->name, sizeof x->name);

    struct str given = sasl_said_name(x->mechanism, response, &said);
    if (given.len == 0 || (x->mechanism == SASL_CRAM_MD5 && !x->own_dovecot)) /* that one's challenge comes first */
        return false;
    if (!prepare_name(given, &name)) {
        name = text_init(x->name, sizeof x->name);
        text_put_byte(&name, ' ');
    }
    x->name_len = name.len;
    return true;
}

/* SASL_OK: this response may go to Dovecot, and if it has something to compare there, that is an attempt now. Whatever
 * follows what has the name only (LOGIN, SCRAM) may be compared; these two have both in one. */
static enum sasl_status
take_response(struct exchange *x, struct str response, int64_t until)
{
    bool compares = x->name_len > 0 || x->mechanism == SASL_PLAIN || x->mechanism == SASL_CRAM_MD5;

    if (str_is_absent(response))
        return SASL_OK;
    if (x->name_len == 0 && !take_name(x, response))
        return SASL_MALFORMED;
    return compares ? attempt(x, str_new(x->name, x->name_len), until) : SASL_OK;
}

/* In whose exchange nobody said anything for longest. */
static bool
hang_up_idle(struct gate_users *g)
{
    list_each (node, &g->by_age) {
        struct exchange *x = container_of(node, struct exchange, age);
        if (!x->own_dovecot || x->busy)
            continue;
        exchange_drop(x);
        return true;
    }
    return false;
}

/* So many at once and no more; the next waits, or whoever says nothing to the end of his exchange would keep others out. */
static struct err
reach_dovecot(struct exchange *x, int64_t until)
{
    struct gate_users *g = x->g;
    struct address socket = { .family = ADDRESS_UNIX };
    struct text path = text_init(socket.path, sizeof socket.path - 1);

    text_put(&path, g->site->path);
    while (g->dovecots >= DOVECOTS_MAX)
        if (!hang_up_idle(g))
            TRY(event_wait(g->rt, &g->dovecot_closed, until));
    g->dovecots++;
    struct err e = dovecot_open(g->rt, &socket, until, &x->own_dovecot);
    if (err_is(e)) {
        g->dovecots--;
        event_wake_one(g->rt, &g->dovecot_closed);
    }
    return e;
}

static enum sasl_status
step_dovecot(struct exchange *x, struct str response, int64_t until, struct text *out)
{
    bool first = !x->own_dovecot;

    if (str_is_absent(response) && !first)
        return SASL_MALFORMED;
    enum sasl_status status = take_response(x, response, until);
    if (status != SASL_OK)
        return status;
    if (first) {
        struct err e = reach_dovecot(x, until);
        if (err_is(e)) {
            log_file(x->g, LOG_ERROR, "dovecot-not-reached", e);
            return SASL_LATER;
        }
        if (!dovecot_knows(x->own_dovecot, x->mechanism))
            return SASL_UNKNOWN_MECHANISM;
        status = dovecot_begin(x->own_dovecot, x->mechanism, &x->client, response, until, out);
    } else {
        status = dovecot_step(x->own_dovecot, response, until, out);
    }
    x->refused = status == SASL_REFUSED;
    if (status == SASL_LATER)
        log_login(x, LOG_ERROR, "dovecot-no-answer", NULL);
    return status;
}

struct turn { /* one step; the response follows */
    struct exchange *x;
    uint32_t call;
    uint16_t type;
    bool absent;
    size_t len;
    char response[];
};

static void
run_turn(void *arg)
{
    static const struct sasl_store hooks = { NULL, attempt, find, pretend, check, give_random };
    struct turn *turn = arg;
    struct exchange *x = turn->x;
    struct gate_users *g = x->g;
    struct sasl_store store = hooks;
    char *memory = mem_alloc(rt_mem(g->rt), LIMIT_AUTH_MESSAGE);
    struct text said = text_init(memory, LIMIT_AUTH_MESSAGE);
    struct user user = { .sender_count = 0 };

    struct str response = turn->absent ? (struct str){ NULL, 0 } : str_new(turn->response, turn->len);
    int64_t until = within(g->rt, x->own_x ? LIMIT_ANSWER_NS : g->settings.patience);

    store.ctx = x;
    enum sasl_status status = !x->own_x       ? step_dovecot(x, response, until, &said)
                              : !g->own_users ? SASL_LATER /* the file went since he began */
                                              : sasl_exchange_step(x->own_x, &store, response, until, &said);
    CHECK(!said.full);
    /* Somebody may have taken him out, or the file away, while his password was compared. */
    if (x->own_x && status == SASL_OK && !find(x, name_of(x), &user))
        status = g->own_users ? SASL_REFUSED : SASL_LATER;
    struct border_verdict v = { .status = (uint8_t)status, .bytes = text_str(&said), .user = name_of(x),
                                .senders = user.senders, .sender_count = user.sender_count };
    settle(x, status);
    if (!x->gone)
        reply_verdict(g, x->peer, turn->call, turn->type, &v);
    x->busy = false;
    x->until = within(g->rt, BORDER_AUTH_NS);
    list_remove(&x->age);
    list_push_back(&g->by_age, &x->age);
    if (status != SASL_CHALLENGE || x->gone)
        exchange_free(x);
    mem_free(rt_mem(g->rt), memory, LIMIT_AUTH_MESSAGE);
    explicit_bzero(turn->response, turn->len);
    mem_free(rt_mem(g->rt), turn, sizeof *turn + turn->len);
}

static void
start_turn(struct exchange *x, uint32_t call, uint16_t type, struct str response)
{
    struct turn *turn = mem_alloc(rt_mem(x->g->rt), sizeof *turn + response.len);

    *turn = (struct turn){ .x = x, .call = call, .type = type, .absent = str_is_absent(response), .len = response.len };
    if (response.len > 0)
        memcpy(turn->response, response.ptr, response.len);
    x->busy = true;
    scope_start(&x->g->work, "login", run_turn, turn);
}

/* SASL_OK: it may begin, and counts as one of its network. */
static enum sasl_status
may_begin(struct gate_users *g, const struct border_auth *a, enum sasl_mechanism m, unsigned offered)
{
    if (m == SASL_MECHANISMS || !(g->site->mechanisms & SASL_BIT(m)))
        return SASL_UNKNOWN_MECHANISM;
    if (!a->tls)
        return SASL_WEAK;
    if (!(offered & SASL_BIT(m)))
        return SASL_UNKNOWN_MECHANISM;
    if (g->site->kind == USERS_FILE && !g->own_users) /* not read yet, or it cannot be: nobody is told that his password is wrong */
        return SASL_LATER;
    if (g->exchanges.count >= BORDER_EXCHANGES_MAX || !fiber_room(g->rt))
        return SASL_LATER;
    struct address network = throttle_network(&a->client);
    return clients_enter(g->open, &network, NETWORK_EXCHANGES_MAX) ? SASL_OK : SASL_LATER;
}

static bool
auth(struct gate_users *g, uint64_t peer, struct link_message *m)
{
    struct take t = take_init(m->body);
    struct border_auth a;
    unsigned char key[EXCHANGE_KEY];

    if (m->call == 0 || !border_take_auth(&t, &a))
        return false;
    enum sasl_mechanism mechanism = sasl_mechanism_by_name(a.mechanism);
    unsigned offered = sasl_offered(g->site->mechanisms, (struct sasl_situation){
        a.tls, !str_is_absent(a.exporter) || !str_is_absent(a.end_point), !str_is_absent(a.certificate) });
    put_exchange_key(key, peer, a.exchange);
    if (map_get(&g->exchanges, str_new(key, EXCHANGE_KEY)))
        return false;
    enum sasl_status status = may_begin(g, &a, mechanism, offered);
    if (status != SASL_OK) {
        reply_verdict(g, peer, m->call, m->type, &(struct border_verdict){ .status = (uint8_t)status });
        return true;
    }
    struct sasl_facts facts = { offered, a.exporter, a.end_point, a.certificate, g->settings.site->hostname };
    struct exchange *x = mem_new(rt_mem(g->rt), struct exchange);
    *x = (struct exchange){ .g = g, .peer = peer, .client = a.client, .mechanism = mechanism, .until = FOREVER,
                            .network = throttle_network(&a.client),
                            .own_x = g->site->kind == USERS_FILE ? sasl_exchange_new(rt_mem(g->rt), mechanism, &facts) : NULL };
    memcpy(x->key, key, sizeof key);
    map_put(&g->exchanges, str_new(x->key, EXCHANGE_KEY), x);
    list_push_back(&g->by_age, &x->age);
    start_turn(x, m->call, m->type, a.initial);
    return true;
}

static bool
auth_step(struct gate_users *g, uint64_t peer, struct link_message *m)
{
    struct take t = take_init(m->body);
    struct border_auth_step s;
    unsigned char key[EXCHANGE_KEY];

    if (m->call == 0 || !border_take_auth_step(&t, &s))
        return false;
    put_exchange_key(key, peer, s.exchange);
    struct exchange *x = map_get(&g->exchanges, str_new(key, EXCHANGE_KEY));
    if (x && x->busy && !s.cancelled) /* the client speaks before it was asked: not through a receiver that is sound */
        return false;
    if (x && !s.cancelled) {
        start_turn(x, m->call, m->type, s.response);
        return true;
    }
    /* Given up, or we have forgotten it: this gate may be younger than the exchange. */
    if (x)
        exchange_drop(x);
    struct border_verdict v = { .status = s.cancelled ? SASL_REFUSED : SASL_LATER };
    reply_verdict(g, peer, m->call, m->type, &v);
    return true;
}

void
gate_users_peer_down(struct gate_users *g, uint64_t peer)
{
    list_each_safe (node, &g->by_age) {
        struct exchange *x = container_of(node, struct exchange, age);
        if (x->peer == peer && !x->gone)
            exchange_drop(x);
    }
}

static void
run_sweep(void *arg)
{
    struct gate_users *g = arg;

    while (!err_is(rt_sleep(g->rt, within(g->rt, SWEEP_NS))))
        list_each_safe (node, &g->by_age) {
            struct exchange *x = container_of(node, struct exchange, age);
            if (!x->busy && rt_now(g->rt) >= x->until)
                exchange_free(x);
        }
}

/* ---- what users send in a day ------------------------------------------------------------------------------------ */

static struct spender *
spender_of(struct gate_users *g, struct str name)
{
    struct spender *s = map_get(&g->spenders, name);

    if (s) {
        list_remove(&s->recent);
        list_push_back(&g->spent_recently, &s->recent);
        return s;
    }
    if (g->spenders.count >= SPENDERS_MAX) {
        struct spender *oldest = container_of(g->spent_recently.next, struct spender, recent);
        map_remove(&g->spenders, str_new(oldest->name, oldest->name_len));
        list_remove(&oldest->recent);
        mem_free(rt_mem(g->rt), oldest, sizeof *oldest + oldest->name_len);
    }
    s = mem_alloc(rt_mem(g->rt), sizeof *s + name.len);
    s->name_len = name.len;
    memcpy(s->name, name.ptr, name.len);
    map_put(&g->spenders, str_new(s->name, s->name_len), s);
    list_push_back(&g->spent_recently, &s->recent);
    return s;
}

static bool
is_over(uint32_t limit, uint32_t spent, uint32_t more)
{
    return limit > 0 && more > 0 && (more > limit || spent > limit - more);
}

static bool
spend(struct gate_users *g, uint64_t peer, struct link_message *m)
{
    struct take t = take_init(m->body);
    unsigned char memory[16];
    struct put p = put_init(memory, sizeof memory);
    struct border_spend s;
    int64_t wall = rt_wall(g->rt);

    if (m->call == 0 || !border_take_spend(&t, &s))
        return false;
    struct spender *who = spender_of(g, s.user);
    if (wall - who->since_wall >= DAY || wall < who->since_wall) {
        who->since_wall = wall;
        who->messages = who->recipients = 0;
    }
    struct border_spent spent = { .answer = SPEND_OK };
    if (is_over(g->site->messages_per_day, who->messages, s.messages))
        spent = (struct border_spent){ SPEND_MESSAGES, g->site->messages_per_day, who->since_wall + DAY };
    else if (is_over(g->site->recipients_per_day, who->recipients, s.recipients))
        spent = (struct border_spent){ SPEND_RECIPIENTS, g->site->recipients_per_day, who->since_wall + DAY };
    if (spent.answer == SPEND_OK) {
        who->messages += s.messages;
        who->recipients += s.recipients;
        g->spent_version++;
    }
    border_put_spent(&p, &spent);
    CHECK(!p.full);
    g->settings.reply(g->settings.ctx, peer, m->call, m->type, put_str_so_far(&p));
    return true;
}

/* ---- for operators ----------------------------------------------------------------------------------------------- */

struct bans {
    struct put put;
    uint32_t count;
    int64_t ahead; /* of the wall's time before the monotonic one */
};

static bool
put_ban(void *ctx, struct str account, struct str network, int64_t until)
{
    struct bans *b = ctx;

    put_bytes(&b->put, account);
    put_bytes(&b->put, network);
    put_i64(&b->put, until + b->ahead);
    return ++b->count < BORDER_BANS_MAX;
}

static bool
tell_bans(struct gate_users *g, uint64_t peer, struct link_message *m)
{
    size_t size = BORDER_BANS_MAX * BAN_BYTES + 4;
    unsigned char *memory = mem_alloc(rt_mem(g->rt), size), count[4];
    struct bans b = { .put = put_init(memory, size), .ahead = rt_wall(g->rt) - rt_now(g->rt) };
    struct put front = put_init(count, sizeof count);

    put_u32(&b.put, 0);
    throttle_each_ban(g->throttle, rt_now(g->rt), put_ban, &b);
    CHECK(!b.put.full);
    put_u32(&front, b.count);
    memcpy(memory, count, sizeof count);
    g->settings.reply(g->settings.ctx, peer, m->call, m->type, put_str_so_far(&b.put));
    mem_free(rt_mem(g->rt), memory, size);
    return true;
}

bool
gate_users_message(struct gate_users *g, uint64_t peer, struct link_message *m)
{
    if (g->ending) /* the link will be gone in a moment, and says it */
        return true;
    switch (m->type) {
    case BORDER_AUTH:
        return auth(g, peer, m);
    case BORDER_AUTH_STEP:
        return auth_step(g, peer, m);
    case BORDER_SPEND:
        return spend(g, peer, m);
    case BORDER_BANS:
        return m->call != 0 && m->body.len == 0 && tell_bans(g, peer, m);
    default:
        return false;
    }
}

/* ---- the users file ---------------------------------------------------------------------------------------------- */

static void
tell_problem(void *ctx, size_t number, const char *what)
{
    const struct gate_users *g = ctx;
    struct log_line line;

    log_begin(&line, g->rt, LOG_ERROR, "user-left-out");
    log_str(&line, "file", g->site->path);
    log_int(&line, "line", (int64_t)number);
    log_str(&line, "why", str_from_cstr(what));
    log_end(&line);
}

/* Bytes of mem_alloc(), the caller's to free with *out_size. */
static struct err
read_file(struct rt *rt, struct file *file, size_t max, unsigned char **out, size_t *out_len, size_t *out_size)
{
    uint64_t size;
    size_t len = 0, got = 1;

    TRY(file_size(file, LANE_BACKGROUND, FOREVER, &size));
    if (size > max)
        return ERR(ERR_LIMIT, "read: the file is too long");
    unsigned char *memory = mem_alloc(rt_mem(rt), (size_t)size + 1);
    struct err e = OK;
    while (len < size && got > 0 && !err_is(e)) {
        size_t rest = (size_t)size - len;
        e = file_read(file, memory + len, rest < STEP ? rest : STEP, len, LANE_BACKGROUND, FOREVER, &got);
        len += err_is(e) ? 0 : got;
    }
    if (err_is(e)) {
        mem_free(rt_mem(rt), memory, (size_t)size + 1);
        return e;
    }
    *out = memory;
    *out_len = len;
    *out_size = (size_t)size + 1;
    return OK;
}

static struct err
read_users(struct gate_users *g, struct file *file, struct users **out)
{
    unsigned char *bytes;
    size_t len, size;

    TRY(read_file(g->rt, file, USERS_BYTES_MAX, &bytes, &len, &size));
    *out = users_new(rt_mem(g->rt), rt_random(g->rt), bytes, len, size);
    while (users_take(*out, LINES_AT_ONCE, (struct users_problem){ tell_problem, g }))
        fiber_yield(g->rt);
    return OK;
}

static void
run_load(void *arg)
{
    struct gate_users *g = arg;

    while (g->again) {
        struct handle handle = g->file;
        struct users *fresh = NULL;
        struct file *file = NULL;
        g->again = false;
        g->file = HANDLE_NONE;
        struct err e = handle_is_none(handle) ? OK : file_from_handle(g->rt, handle, &file);
        /* What we have stays until that is read. Nobody passes it on again unless it changes: so here it is tried again. */
        while (!err_is(e) && file && err_is(read_users(g, file, &fresh))) {
            log_file(g, LOG_ERROR, "users-not-read", ERR(ERR_IO, "read the users file"));
            g->unreadable = true;
            event_wake(g->rt, &g->loaded);
            e = g->again ? ERR(ERR_CLOSED, "read the former users file") : rt_sleep(g->rt, within(g->rt, AGAIN_NS));
        }
        if (file)
            file_close(file);
        if (err_is(e))
            continue;
        if (g->own_users)
            users_free(g->own_users);
        g->own_users = fresh;
        log_file(g, fresh ? LOG_INFO : LOG_WARNING, fresh ? "users" : "no-users", OK);
    }
    g->loading = false;
    event_wake(g->rt, &g->loaded);
}

void
gate_users_take_file(struct gate_users *g, struct handle handle)
{
    handle_close(g->rt, g->file);
    g->file = handle;
    g->again = true;
    if (g->loading || g->ending)
        return;
    g->loading = true;
    scope_start(&g->work, "users file", run_load, g);
}

void
gate_users_wait_for_file(struct gate_users *g, int64_t until)
{
    while (g->loading && !g->unreadable)
        if (err_is(event_wait(g->rt, &g->loaded, until)))
            break;
}

/* ---- what is kept ------------------------------------------------------------------------------------------------ */

static bool
take_spenders(struct gate_users *g, struct take *t)
{
    uint32_t count = take_count(t, SPENDERS_MAX);

    for (uint32_t i = 0; i < count && !t->bad; i++) {
        struct str name = take_bytes(t, LIMIT_USER_NAME);
        int64_t since = take_i64(t);
        uint32_t messages = take_u32(t), recipients = take_u32(t);
        if (t->bad || name.len == 0)
            return false;
        struct spender *s = spender_of(g, name);
        if (s->since_wall > since || (s->since_wall == since && s->recipients > recipients))
            continue;
        s->since_wall = since;
        s->messages = messages;
        s->recipients = recipients;
    }
    return !t->bad;
}

static bool
take_state(struct gate_users *g, struct str bytes)
{
    unsigned char sum[DIGEST_MAX];
    struct take t = take_init(bytes);

    struct str magic = take_raw(&t, MAGIC.len), kept = take_raw(&t, DIGEST_MAX), rest = t.rest;
    if (t.bad || !str_eq(magic, MAGIC))
        return false;
    digest_of(DIGEST_SHA256, &rest, 1, sum);
    if (!str_eq(kept, str_new(sum, DIGEST_MAX)))
        return false;
    struct str secret = take_raw(&t, SECRET);
    if (t.bad || !throttle_take_homes(&t, g->throttle, rt_wall(g->rt)) || !take_spenders(g, &t) || !take_end(&t))
        return false;
    memcpy(g->secret, secret.ptr, SECRET);
    return true;
}

static struct err
read_state(struct gate_users *g)
{
    struct file *file;
    unsigned char *bytes;
    size_t len, size;

    struct err e = file_open(g->own_state, S("users"), FILE_READ, 0, LANE_BACKGROUND, FOREVER, &file);
    if (e.kind == ERR_NOT_FOUND)
        return OK;
    TRY(e);
    e = read_file(g->rt, file, STATE_MAX, &bytes, &len, &size);
    file_close(file);
    TRY(e);
    bool sound = take_state(g, str_new(bytes, len));
    explicit_bzero(bytes, size);
    mem_free(rt_mem(g->rt), bytes, size);
    return sound ? OK : ERR(ERR_CORRUPT, "read what the gate kept");
}

static void
put_state(struct gate_users *g, struct put *p)
{
    put_raw(p, MAGIC);
    p->len += DIGEST_MAX;
    size_t from = p->len;
    put_raw(p, str_new(g->secret, SECRET));
    throttle_put_homes(p, g->throttle);
    put_u32(p, (uint32_t)g->spenders.count);
    list_each (node, &g->spent_recently) {
        const struct spender *s = container_of(node, struct spender, recent);
        put_bytes(p, str_new(s->name, s->name_len));
        put_i64(p, s->since_wall);
        put_u32(p, s->messages);
        put_u32(p, s->recipients);
    }
    CHECK(!p->full);
    struct str rest = str_new(p->ptr + from, p->len - from);
    digest_of(DIGEST_SHA256, &rest, 1, p->ptr + MAGIC.len);
}

static struct err
write_state(struct gate_users *g, struct str bytes)
{
    struct file *file;

    TRY(file_open(g->own_state, S("users.new"), FILE_WRITE | FILE_CREATE | FILE_TRUNCATE, 0600, LANE_BACKGROUND, FOREVER, &file));
    struct err e = file_write_sync(file, &bytes, 1, 0, LANE_BACKGROUND, FOREVER);
    file_close(file);
    TRY(e);
    TRY(dir_rename(g->own_state, S("users.new"), g->own_state, S("users"), LANE_BACKGROUND, FOREVER));
    return dir_sync(g->own_state, LANE_BACKGROUND, FOREVER);
}

static void
keep(struct gate_users *g)
{
    if (!g->own_state || (g->kept_homes == throttle_homes_version(g->throttle) && g->kept_spent == g->spent_version))
        return;
    struct err e = read_state(g); /* of another generation; what is damaged is written anew */
    g->kept_homes = throttle_homes_version(g->throttle);
    g->kept_spent = g->spent_version;
    size_t size = MAGIC.len + DIGEST_MAX + SECRET + throttle_homes_size(g->throttle) + 4 +
                  g->spenders.count * (4 + LIMIT_USER_NAME + 16);
    unsigned char *memory = mem_alloc(rt_mem(g->rt), size);
    struct put p = put_init(memory, size);
    put_state(g, &p);
    e = write_state(g, put_str_so_far(&p));
    explicit_bzero(memory, size);
    mem_free(rt_mem(g->rt), memory, size);
    if (!err_is(e))
        return;
    g->kept_homes = g->kept_spent = UINT64_MAX;
    log_file(g, LOG_ERROR, "gate-state-not-kept", e);
}

static void
run_keep(void *arg)
{
    struct gate_users *g = arg;

    while (!err_is(rt_sleep(g->rt, within(g->rt, KEEP_NS))))
        keep(g);
}

/* ---- begin and end ----------------------------------------------------------------------------------------------- */

struct gate_users *
gate_users_new(const struct gate_users_settings *settings)
{
    struct mem *mem = rt_mem(settings->rt);
    struct gate_users *g = mem_new(mem, struct gate_users);
    const struct site_users *site = &settings->site->users;

    *g = (struct gate_users){ .settings = *settings, .rt = settings->rt, .site = site, .file = HANDLE_NONE };
    struct throttle_settings limits = { site->account_failures, site->network_failures, site->failures_within, site->ban };
    g->throttle = throttle_new(mem, rt_random(g->rt), limits, THROTTLE_RECORDS_MAX);
    map_init(&g->exchanges, mem, rt_random(g->rt));
    g->open = clients_new(mem, rt_random(g->rt), BORDER_EXCHANGES_MAX + 1);
    map_init(&g->spenders, mem, rt_random(g->rt));
    list_init(&g->by_age);
    list_init(&g->spent_recently);
    scope_init(&g->work, g->rt);
    event_init(&g->loaded);
    event_init(&g->turn);
    event_init(&g->settled);
    event_init(&g->dovecot_closed);
    for (size_t i = 0; i < SECRET; i++)
        g->secret[i] = (unsigned char)rt_random(g->rt);
    return g;
}

void
gate_users_start(struct gate_users *g)
{
    struct err e = OK;

    if (!handle_is_none(g->settings.state))
        e = dir_from_handle(g->rt, g->settings.state, &g->own_state);
    if (!err_is(e) && g->own_state)
        e = read_state(g);
    g->kept_homes = g->kept_spent = UINT64_MAX; /* the secret, at least, is to be kept */
    if (err_is(e))
        log_file(g, LOG_ERROR, "gate-state-not-read", e);
    scope_start(&g->work, "sweep", run_sweep, g);
    if (g->own_state)
        scope_start(&g->work, "keep", run_keep, g);
}

void
gate_users_end(struct gate_users *g)
{
    struct mem *mem = rt_mem(g->rt);

    g->ending = true;
    scope_end(&g->work);
    keep(g);
    while (!list_is_empty(&g->by_age))
        exchange_free(container_of(g->by_age.next, struct exchange, age));
    list_each_safe (node, &g->spent_recently) {
        struct spender *s = container_of(node, struct spender, recent);
        mem_free(mem, s, sizeof *s + s->name_len);
    }
    map_done(&g->spenders);
    map_done(&g->exchanges);
    clients_free(g->open);
    throttle_free(g->throttle);
    if (g->own_users)
        users_free(g->own_users);
    handle_close(g->rt, g->file);
    if (g->own_state)
        dir_close(g->own_state);
    explicit_bzero(g, sizeof *g);
    mem_free(mem, g, sizeof *g);
}
