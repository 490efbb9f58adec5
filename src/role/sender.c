/*
 * sender - one delivery attempt after another for the store, over the network: SMTP and LMTP. It also composes notices,
 * because that reads the header of a message, which the store does not.
 */
#include "base/check.h"
#include "deliver/smtp.h"
#include "dns/cache.h"
#include "net/tls.h"
#include "role/ask.h"
#include "role/border.h"
#include "role/role.h"
#include "runtime/log.h"

#include <string.h>

enum { READ_PIECE = 56 << 10, ARENA_MAX = 64 << 20, DNS_CACHE_BYTES = 4 << 20, OWN_ADDRESSES_MAX = 64 };

struct sender {
    struct role *role;
    struct connections *connections;
    struct asker asker;
    struct dns behind;          /* the cache: the resolver's role */
    struct dns_cache *cache;
    struct dns resolver;
    struct scope jobs;
    size_t running;
    bool ended; /* takes no more: the store finds its call unanswered, and does it elsewhere */
    struct address own[OWN_ADDRESSES_MAX]; /* where we listen */
    size_t own_count;
    struct crypto *own_crypto;
    struct tls_client *own_tls;
};

/* One call of the store. body is a copy. */
struct task {
    struct sender *sender;
    uint64_t store;
    uint32_t call;
    uint16_t type;
    struct arena arena;
    struct message_id id;
    struct str content; /* absent: READ it */
    size_t len;
    char body[];
};

/* ---- content ---- */

static struct err
read_from_store(struct task *t, uint64_t offset, void *memory, size_t len, int64_t until, size_t *out_len)
{
    return ask_content(t->sender->role, t->store, t->id, offset, memory, len, until, out_len);
}

static struct err
read_content(void *arg, uint64_t offset, void *memory, size_t len, int64_t until, size_t *out_len)
{
    struct task *t = arg;

    if (str_is_absent(t->content))
        return read_from_store(t, offset, memory, len, until, out_len);
    struct str part = str_slice(t->content, (size_t)offset, (size_t)offset + len);
    memcpy(memory, part.ptr, part.len);
    *out_len = part.len;
    return OK;
}

static struct err
addresses(void *arg, struct str host, unsigned families, int64_t until, struct arena *arena, struct host_result *out)
{
    struct task *t = arg;

    return host_addresses(&t->sender->resolver, host, families, until, arena, out);
}

/* ---- TLS ---- */

static struct err
start_tls(void *arg, struct str host, struct wire *wire, int64_t until, struct text *reason)
{
    struct task *t = arg;
    const struct tls *tls;

    enum tls_result result;

    return tls_connect(t->sender->own_tls, wire, &(struct tls_expected){ .server_name = host }, until, &tls, &result, reason);
}

static void
in_clear(void *arg, struct str host, struct str why)
{
    struct task *t = arg;
    struct log_line line;
    char memory[MESSAGE_ID_TEXT];
    struct text id = text_init(memory, sizeof memory);

    message_id_put(&id, t->id);
    log_begin(&line, t->sender->role->rt, LOG_WARNING, "tls-failed");
    log_str(&line, "id", text_str(&id));
    log_str(&line, "host", host);
    log_str(&line, "why", why);
    log_str(&line, "so", S("once more in clear"));
    log_end(&line);
}

/* ---- delivery ---- */

/* RFC 5321 section 4.5.3.2, none of them longer than the route allows. */
static struct client_times
times_within(int64_t longest)
{
    struct client_times times = client_times_default();
    int64_t *each[] = { &times.greeting, &times.hello, &times.mail, &times.rcpt, &times.data, &times.block, &times.final,
                        &times.quit };

    for (size_t i = 0; longest > 0 && i < sizeof each / sizeof *each; i++)
        *each[i] = *each[i] < longest ? *each[i] : longest;
    return times;
}

static bool
run_delivery(struct task *t, struct take *take)
{
    struct sender *s = t->sender;
    struct border_job job;

    if (!border_take_job(take, &t->arena, &job) || job.kind == DELIVERY_MAILDIR || job.envelope.recipient_count == 0)
        return false;
    t->id = job.id;
    t->content = job.content;
#ifdef POSTRIDER_PLANTED_CRASH /* for tests only: meson's option planted_crash */
    if (str_starts(job.content, S("X-Planted-Crash:")))
        __builtin_trap();
#endif
    struct delivery_job what = {
        .envelope = &job.envelope, .recipients = job.envelope.recipients, .recipient_count = job.envelope.recipient_count,
        .hosts = job.hosts, .host_count = job.host_count, .configured = job.configured,
    };
    struct delivery_settings settings = {
        .lmtp = job.kind == DELIVERY_LMTP, .port = job.port, .families = job.families, .helo = job.helo,
        .source_ipv4 = job.source_ipv4, .source_ipv6 = job.source_ipv6,
        .allow_private = job.allow_private, .allow_private_count = job.allow_private_count,
        .own_names = &s->role->site->hostname, .own_name_count = 1, .own_addresses = s->own,
        .own_address_count = s->own_count, .connect = job.connect_wait, .times = times_within(job.reply_wait),
        .messages_per_connection = job.messages_per_connection, .try_tls = job.try_tls,
    };
    struct delivery_hooks hooks = { t, addresses, read_content, start_tls, in_clear };
    size_t count = what.recipient_count;
    struct outcome *outcomes = arena_alloc(&t->arena, count * sizeof *outcomes);
    struct delivery_figures figures = { 0 };
    smtp_deliver(s->role->rt, &what, &settings, &hooks, s->connections, &t->arena, outcomes, &figures);
    size_t size = border_outcomes_size(outcomes, count);
    struct put p = put_init(arena_alloc(&t->arena, size), size);
    border_put_figures(&p, &figures);
    border_put_outcomes(&p, outcomes, count);
    CHECK(!p.full);
    role_reply(s->role, t->store, t->call, t->type, put_str_so_far(&p));
    return true;
}

/* ---- notices ---- */

struct notice { /* grows in the heap: its end is not known before */
    struct mem *mem;
    char *bytes;
    size_t len, cap;
};

static void
notice_put(struct notice *n, struct str piece)
{
    if (n->len + piece.len > n->cap) {
        size_t cap = n->cap ? n->cap : 16384;
        while (cap < n->len + piece.len)
            cap *= 2;
        n->bytes = mem_resize(n->mem, n->bytes, n->cap, cap);
        n->cap = cap;
    }
    if (piece.len)
        memcpy(n->bytes + n->len, piece.ptr, piece.len);
    n->len += piece.len;
}

static struct err
put_original(struct task *t, struct dsn_writer *w, const struct border_compose *c, struct notice *n)
{
    char *memory = arena_alloc(&t->arena, READ_PIECE);
    size_t got = 1;

    notice_put(n, dsn_original(w, c->trace));
    for (uint64_t at = 0; !c->bare && got > 0 && n->len < LINK_MESSAGE_MAX / 2; at += got) {
        TRY(read_from_store(t, at, memory, READ_PIECE, within(t->sender->role->rt, MINUTE), &got));
        notice_put(n, dsn_original(w, str_new(memory, got)));
    }
    return OK;
}

static bool
run_compose(struct task *t, struct take *take)
{
    struct sender *s = t->sender;
    struct border_compose c;

    if (!border_take_compose(take, &t->arena, &c))
        return false;
    t->id = c.dsn.original;
    struct notice n = { .mem = rt_mem(s->role->rt) };
    struct dsn_writer w = { .dsn = &c.dsn };
    struct text piece = text_init(arena_alloc(&t->arena, DSN_PIECE), DSN_PIECE);
    while (dsn_next(&w, &piece)) {
        notice_put(&n, text_str(&piece));
        piece.len = 0;
    }
    notice_put(&n, text_str(&piece));
    piece.len = 0;
    struct err e = put_original(t, &w, &c, &n);
    if (e.kind == ERR_CORRUPT) /* and stays so: with what could be read of it */
        e = OK;
    dsn_end(&w, &piece);
    notice_put(&n, text_str(&piece));
    bool fits = !err_is(e) && n.len <= LINK_MESSAGE_MAX;
    role_reply(s->role, t->store, t->call, t->type, fits ? str_new(n.bytes, n.len) : S(""));
    mem_free(n.mem, n.bytes, n.cap);
    return true;
}

/* ---- the role ---- */

static void
run_task(void *arg)
{
    struct task *t = arg;
    struct sender *s = t->sender;
    struct take take = take_init(str_new(t->body, t->len));
    bool fine = t->type == BORDER_DELIVER ? run_delivery(t, &take) : run_compose(t, &take);
    struct peer *store = role_peer_by_serial(s->role, t->store);

    if (!fine && store)
        link_close(store->link, ERR(ERR_PROTOCOL, "a job makes no sense"));
    s->running--;
    event_wake(s->role->rt, &s->role->changed);
    arena_done(&t->arena);
    mem_free(rt_mem(s->role->rt), t, sizeof *t + t->len);
}

static bool
message(struct role *role, struct peer *peer, struct link_message *m)
{
    struct sender *s = role->ctx;

    if (peer->kind != ROLE_STORE || m->call == 0 || (m->type != BORDER_DELIVER && m->type != BORDER_COMPOSE))
        return false;
    if (s->ended)
        return true;
    struct task *t = mem_alloc(rt_mem(role->rt), sizeof *t + m->body.len);
    *t = (struct task){ .sender = s, .store = peer->serial, .call = m->call, .type = m->type, .len = m->body.len };
    memcpy(t->body, m->body.ptr, m->body.len);
    arena_init(&t->arena, rt_mem(role->rt), 8192, ARENA_MAX);
    s->running++;
    scope_start(&s->jobs, "delivery", run_task, t);
    return true;
}

static void
prepare(struct role *role)
{
    struct sender *s = mem_new(rt_mem(role->rt), struct sender);
    struct connections_settings settings = connections_settings_default();

    role->ctx = s;
    s->role = role;
    s->connections = connections_new(role->rt, &settings);
    s->asker = (struct asker){ role, ROLE_RESOLVER };
    s->behind = ask_dns(&s->asker);
    s->cache = dns_cache_new(role->rt, &s->behind, DNS_CACHE_BYTES);
    s->resolver = dns_cache_dns(s->cache);
    scope_init(&s->jobs, role->rt);
    struct err e = crypto_open(role->rt, &s->own_crypto);
    CHECK(!err_is(e)); /* as in receiver.c */
    s->own_tls = tls_client_new(s->own_crypto);
    for (size_t i = 0; i < role->site->listener_count; i++)
        for (size_t k = 0; k < role->site->listeners[i].address_count && s->own_count < OWN_ADDRESSES_MAX; k++)
            s->own[s->own_count++] = role->site->listeners[i].addresses[k];
}

static void
run(struct role *role)
{
    struct sender *s = role->ctx;

    role_wait_for_end(role);
    /* What is under way has its end, so that the store need not guess; the supervisor's deadline bounds it. */
    while (s->running > 0 && !role->control_lost)
        if (err_is(event_wait(role->rt, &role->changed, FOREVER)))
            break;
    s->ended = true;
    scope_end(&s->jobs);
    connections_free(s->connections);
    tls_client_free(s->own_tls);
    crypto_close(s->own_crypto);
}

static void
sandbox(struct role *role, struct sandbox_rules *rules)
{
    (void)role;
    rules->calls = SANDBOX_CONNECT;
    rules->connect.all = true;
}

const struct role_ops sender_ops = {
    .kind = ROLE_SENDER, .prepare = prepare, .sandbox = sandbox, .run = run, .message = message
};
