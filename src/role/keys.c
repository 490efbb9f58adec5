/*
 * keys - the private keys, and nothing else that a stranger could reach: it has no network, and speaks only to roles.
 *
 * The supervisor opens the files that the configuration names and passes them on, again when they change. Receivers get
 * the certificates and ask for signatures; the keys stay here. Where no certificate is configured, or none can be used,
 * one that it signs itself is made in the state directory: encryption against whoever only listens from the first minute.
 *
 * It also makes the keys of tickets, so that all receivers resume each other's sessions; they are never written down. At a
 * reload the supervisor passes them to the next generation.
 */
#include "base/check.h"
#include "net/signing.h"
#include "net/tls.h"
#include "role/border.h"
#include "role/control.h"
#include "role/role.h"
#include "runtime/log.h"

#include <string.h>

#define FORMER_NS (5 * SECOND) /* and as long as a handshake may last: until all receivers have heard of the new one */

enum {
    OURS = SITE_CERTIFICATES_MAX, /* index of the one that we sign ourselves */
    PLACES = OURS + 1,
    FORMERS = 4,                  /* keys that were replaced within the time of a handshake; before them the first goes early */
    TICKETS_KEPT = 2,
    POOLS = 2,                    /* of receivers */
    SHOWN_MAX = SITE_CERTIFICATES_MAX + LIMIT_LISTEN_ADDRESSES,
    KEPT_MAX = 48 << 10,          /* bytes of a certificate and its chain */
    OURS_MAX = 8 << 10,           /* of the one that we sign ourselves, which each listener may show */
};
static_assert(SITE_CERTIFICATES_MAX * (KEPT_MAX + LIMIT_LISTENER_NAME + 8) +
                      LIMIT_LISTEN_ADDRESSES * (OURS_MAX + LIMIT_LISTENER_NAME + 8) + 2 <= LINK_MESSAGE_MAX,
              "all that a pool shows is one message");
static const enum role_kind pool_roles[POOLS] = { ROLE_RECEIVER, ROLE_SUBMISSION };

struct held { /* a certificate with its key; own_key NULL: none */
    struct key *own_key;
    struct str own_pem;
};
struct former { /* a handshake that began with it may still ask, until then */
    struct held held;
    int64_t until;
};
struct place { /* by its index in the configuration */
    struct held now, fresh; /* fresh: it is read, and takes the other's place when all are */
    struct former formers[FORMERS]; /* the latest first; none behind one that is empty */
};

/* What a pool's listeners show, each its own or the site's: so far go the rights of its receivers, and no further. */
struct pool {
    struct str pems[SHOWN_MAX];
    struct str listeners[SHOWN_MAX]; /* empty: all that have none of their own */
    size_t count;
    struct key *keys[(1 + FORMERS) * SHOWN_MAX]; /* to these, and to those before them */
    size_t key_count;
    int64_t ours_until; /* so long the one that we signed ourselves may be used: FOREVER while it is shown; 0: not */
};

struct asking { /* a receiver's socket for signatures */
    struct list node;
    struct keys *k;
    struct link *link;
    const struct pool *pool;
    uint64_t peer;
};

struct keys {
    struct role *role;
    struct crypto *own_crypto;
    struct scope work;
    struct list askings;
    bool loading, again;
    struct dir *own_state; /* NULL: not needed yet */

    struct place places[PLACES];
    struct pool pools[POOLS];
    struct tls_ticket_key tickets[TICKETS_KEPT];
    size_t ticket_count;
    int64_t sealing_since; /* the first of them; monotonic */
    struct event replaced; /* there is a former key */
};

/* ---- what receivers are told ------------------------------------------------------------------------------------- */

static struct pool *
pool_of(struct keys *k, enum role_kind kind)
{
    CHECK(kind == pool_roles[0] || kind == pool_roles[1]); /* the supervisor links us to no others */
    return &k->pools[kind == pool_roles[1]];
}

static void
tell_certificates(struct keys *k, struct peer *peer)
{
    struct mem *mem = rt_mem(k->role->rt);
    const struct pool *pool = pool_of(k, peer->kind);
    size_t cap = 2;

    for (size_t i = 0; i < pool->count; i++)
        cap += 4 + pool->listeners[i].len + 4 + pool->pems[i].len;
    unsigned char *memory = mem_alloc(mem, cap);
    struct put p = put_init(memory, cap);
    put_u16(&p, (uint16_t)pool->count);
    for (size_t i = 0; i < pool->count; i++) {
        put_bytes(&p, pool->listeners[i]);
        put_bytes(&p, pool->pems[i]);
    }
    CHECK(!p.full);
    link_post(peer->link, BORDER_CERTIFICATES, put_str_so_far(&p));
    mem_free(mem, memory, cap);
}

static void
put_tickets(const struct keys *k, struct put *p)
{
    put_u8(p, (uint8_t)k->ticket_count);
    put_raw(p, str_new(k->tickets, k->ticket_count * sizeof *k->tickets));
    CHECK(!p->full);
}

static void
tell_tickets(struct keys *k, struct peer *peer)
{
    unsigned char memory[1 + sizeof k->tickets];
    struct put p = put_init(memory, sizeof memory);

    put_tickets(k, &p);
    link_post(peer->link, BORDER_TICKETS, put_str_so_far(&p));
    explicit_bzero(memory, sizeof memory);
}

static void
tell_all(struct keys *k, void (*tell)(struct keys *, struct peer *))
{
    list_each (node, &k->role->peers) {
        struct peer *peer = container_of(node, struct peer, node);
        if (peer->up) /* others hear it when they are */
            tell(k, peer);
    }
}

/* ---- signatures -------------------------------------------------------------------------------------------------- */

static bool
answer(void *ctx, struct link *link, struct link_message *m)
{
    const struct asking *a = ctx;
    struct key_table table = { a->pool->keys, a->pool->key_count };
    unsigned char memory[KEY_SIGNATURE_MAX + 4];
    struct str said;

    if (m->type != SIGNING_CALL || m->call == 0 || !signing_answer(&table, m->body, memory, sizeof memory, &said))
        return false;
    link_reply(link, m->call, m->type, said);
    return true;
}

static void
asking_end(struct asking *a)
{
    list_remove(&a->node);
    link_free_later(a->link);
    mem_free(rt_mem(a->k->role->rt), a, sizeof *a);
}

/* One goes with the other: the supervisor makes both anew. */
static void
asking_closed(void *ctx, struct link *link, struct err why)
{
    struct asking *a = ctx;
    struct peer *peer = role_peer_by_serial(a->k->role, a->peer);

    (void)link;
    asking_end(a);
    if (peer)
        link_close(peer->link, why);
}

static void
peer_up(struct role *role, struct peer *peer)
{
    struct keys *k = role->ctx;

    if (!k) /* this role is ending */
        return;
    struct asking *a = mem_new(rt_mem(role->rt), struct asking);
    struct link_settings settings = {
        .name = S("signatures"), .ctx = a, .handle = answer, .closed = asking_closed, .calls_max = 1,
    };

    *a = (struct asking){ .k = k, .pool = pool_of(k, peer->kind), .peer = peer->serial };
    struct err e = handle_is_none(peer->second) ? ERR(ERR_CLOSED, "hear what is to be signed")
                                                : link_open(role->rt, peer->second, &settings, &a->link);
    peer->second = HANDLE_NONE;
    if (err_is(e)) {
        mem_free(rt_mem(role->rt), a, sizeof *a);
        link_close(peer->link, e);
        return;
    }
    list_push_back(&k->askings, &a->node);
    tell_certificates(k, peer);
    tell_tickets(k, peer);
}

static void
peer_down(struct role *role, struct peer *peer)
{
    struct keys *k = role->ctx;

    if (!k)
        return;
    list_each_safe (node, &k->askings) {
        struct asking *a = container_of(node, struct asking, node);
        if (a->peer == peer->serial)
            asking_end(a);
    }
}

/* ---- files ------------------------------------------------------------------------------------------------------- */

static void
log_certificate(struct keys *k, uint32_t index, enum log_level level, const char *what, struct err e,
                const struct key_certificate *c)
{
    const struct site *site = k->role->site;
    struct log_line line;

    log_begin(&line, k->role->rt, level, what);
    log_str(&line, "file", index == OURS ? S("self-signed") : site->certificates[index].certificate);
    if (c)
        log_int(&line, "days", (c->until - rt_wall(k->role->rt)) / DAY);
    if (err_is(e))
        log_err(&line, e);
    if (level == LOG_ERROR && index != OURS)
        log_str(&line, "so", k->places[index].now.own_key ? S("the one before stays in use") : S("it is left out"));
    log_end(&line);
}

/* All of it, in memory of `cap` bytes; takes the file. */
static struct err
read_whole(struct rt *rt, struct file *file, unsigned char *memory, size_t cap, struct str *out)
{
    size_t len = 0, got = 1;
    struct err e = OK;

    while (got > 0 && !err_is(e)) {
        if (len == cap)
            e = ERR(ERR_LIMIT, "read a certificate or key");
        else
            e = file_read(file, memory + len, cap - len, len, LANE_POOL, FOREVER, &got);
        len += err_is(e) ? 0 : got;
    }
    file_close(file);
    (void)rt;
    if (!err_is(e))
        *out = str_new(memory, len);
    return e;
}

static struct err
read_handle(struct rt *rt, struct handle handle, unsigned char *memory, size_t cap, struct str *out)
{
    struct file *file;

    TRY(file_from_handle(rt, handle, &file));
    return read_whole(rt, file, memory, cap, out);
}

static void
let_go(struct keys *k, struct held *h)
{
    if (!h->own_key)
        return;
    key_free(h->own_key);
    mem_free(rt_mem(k->role->rt), (void *)(uintptr_t)h->own_pem.ptr, h->own_pem.len);
    *h = (struct held){ NULL, { NULL, 0 } };
}

/* Whether a certificate and its key, both read already, are one that receivers can show: then *out_key is the caller's. */
static enum certificate_fault
judge(struct keys *k, struct str certificate, struct str pem, struct key_certificate *out, struct key **out_key, struct err *why)
{
    *why = key_look_at_certificate(k->own_crypto, certificate, out);
    if (!err_is(*why))
        *why = key_parse(k->own_crypto, pem, out_key);
    if (err_is(*why))
        return CERTIFICATE_UNUSABLE;
    struct key_name name = key_name(*out_key);
    bool fits = memcmp(&name, &out->key, sizeof name) == 0;
    if (fits && tls_certificate_can_be_shown(k->own_crypto, certificate))
        return CERTIFICATE_GOOD;
    key_free(*out_key);
    if (fits)
        *why = ERR(ERR_DENIED, "show a certificate that is so weak, or has such a chain");
    return fits ? CERTIFICATE_UNUSABLE : CERTIFICATE_OF_ANOTHER_KEY;
}

/* A file may hold the key beside the certificates, or all authorities of the system behind them, and receivers are told what is
 * kept: so only certificates are, as many as are shown. */
static size_t
put_certificates(struct str pem, size_t most, char *out)
{
    static const struct str begin = STR("-----BEGIN ");
    size_t len = 0, count = 0;

    for (;;) {
        struct str block = str_from(pem, str_find(pem, begin));
        struct str inside = str_from(block, begin.len);
        size_t end = str_find(inside, S("-----END "));
        if (end == inside.len || count > TLS_CHAIN_MAX) /* also: there is no block */
            return len;
        pem = inside;
        if (str_find(inside, begin) < end) /* this one does not end */
            continue;
        end += str_find(str_from(inside, end), S("\n"));
        block = str_slice(block, 0, begin.len + end + (end < inside.len));
        if (str_ends(str_slice(inside, 0, str_find(inside, S("-----"))), S("CERTIFICATE"))) {
            if (len + block.len > most)
                return len;
            memcpy(out + len, block.ptr, block.len);
            len += block.len;
            count++;
        }
    }
}

static void
hold(struct keys *k, uint32_t index, struct str certificate, struct str pem)
{
    struct mem *mem = rt_mem(k->role->rt);
    struct key_certificate c;
    struct key *key;
    struct err e;

    enum certificate_fault fault = judge(k, certificate, pem, &c, &key, &e);
    if (fault != CERTIFICATE_GOOD) {
        log_certificate(k, index, LOG_ERROR,
                        fault == CERTIFICATE_UNUSABLE ? "certificate-unusable" : "certificate-of-another-key", e, NULL);
        return;
    }
    char *kept = mem_alloc(mem, certificate.len);
    size_t len = put_certificates(certificate, index == OURS ? OURS_MAX : KEPT_MAX, kept);
    if (len == 0) {
        mem_free(mem, kept, certificate.len);
        key_free(key);
        log_certificate(k, index, LOG_ERROR, "certificate-unusable", ERR(ERR_LIMIT, "keep a certificate so long"), NULL);
        return;
    }
    bool ends = c.until < rt_wall(k->role->rt) + CERTIFICATE_SOON_NS;
    log_certificate(k, index, ends ? LOG_WARNING : LOG_INFO, ends ? "certificate-ends-soon" : "certificate", OK, &c);
    kept = mem_resize(mem, kept, certificate.len, len);
    let_go(k, &k->places[index].fresh); /* files that changed while they were read are passed on again */
    k->places[index].fresh = (struct held){ key, str_new(kept, len) };
}

/* Both files, in 2 * KEY_FILE_MAX bytes of memory; takes the handles. */
static struct err
read_both(struct rt *rt, struct role_certificate *c, unsigned char *memory, struct str *out_certificate, struct str *out_key)
{
    struct err e = read_handle(rt, c->certificate, memory, KEY_FILE_MAX, out_certificate);
    struct err second = read_handle(rt, c->key, memory + KEY_FILE_MAX, KEY_FILE_MAX, out_key);

    c->certificate = c->key = HANDLE_NONE;
    return err_is(e) ? e : second;
}

static void
read_certificate(struct keys *k, struct role_certificate *c, unsigned char *memory)
{
    struct str certificate, pem;

    struct err e = read_both(k->role->rt, c, memory, &certificate, &pem);
    if (c->index >= k->role->site->certificate_count || e.kind == ERR_CANCELLED) /* of a site that is ours no more; we are ending */
        return;
    if (err_is(e))
        log_certificate(k, c->index, LOG_ERROR, "certificate-not-read", e, NULL);
    else
        hold(k, c->index, certificate, pem);
}

struct trial {
    struct keys *k;
    struct role_certificate files;
    uint32_t call;
};

/* Of another site, which may become ours if it is good: nothing is kept of it. */
static void
run_trial(void *arg)
{
    struct trial *trial = arg;
    struct keys *k = trial->k;
    struct mem *mem = rt_mem(k->role->rt);
    unsigned char *memory = mem_alloc(mem, 2 * (size_t)KEY_FILE_MAX), said;
    enum certificate_fault fault = CERTIFICATE_NOT_READ;
    struct str certificate, pem;
    struct key_certificate c;
    struct key *key;

    struct err e = read_both(k->role->rt, &trial->files, memory, &certificate, &pem);
    if (!err_is(e))
        fault = judge(k, certificate, pem, &c, &key, &e);
    if (fault == CERTIFICATE_GOOD)
        key_free(key);
    explicit_bzero(memory, 2 * (size_t)KEY_FILE_MAX);
    mem_free(mem, memory, 2 * (size_t)KEY_FILE_MAX);
    said = (unsigned char)fault;
    bool looked = e.kind != ERR_CANCELLED; /* this role is ending, which says nothing of them */
    link_reply(k->role->control, trial->call, CONTROL_TRY, looked ? str_new(&said, 1) : S(""));
    mem_free(mem, trial, sizeof *trial);
}

static void
try_certificate(struct role *role, uint32_t call)
{
    struct keys *k = role->ctx;

    if (!k) { /* this role is ending: whoever asks need not wait for it */
        handle_close(role->rt, role->tried.certificate);
        handle_close(role->rt, role->tried.key);
        role->tried.certificate = role->tried.key = HANDLE_NONE;
        link_reply(role->control, call, CONTROL_TRY, S(""));
        return;
    }
    struct trial *trial = mem_new(rt_mem(role->rt), struct trial);
    *trial = (struct trial){ k, role->tried, call };
    role->tried.certificate = role->tried.key = HANDLE_NONE;
    scope_start(&k->work, "trial", run_trial, trial);
}

static struct err
write_new(struct dir *dir, struct str name, struct str bytes)
{
    struct file *file;

    TRY(file_open(dir, name, FILE_WRITE | FILE_CREATE | FILE_TRUNCATE, 0600, LANE_POOL, FOREVER, &file));
    struct err e = file_write_sync(file, &bytes, 1, 0, LANE_POOL, FOREVER);
    file_close(file);
    return e;
}

/* One file with both, so that they cannot be of two minds; for_now: only in memory. */
static struct err
make_ours(struct keys *k, struct dir *dir, bool for_now, struct arena *arena)
{
    struct str certificate, pem;

    TRY(key_make_self_signed(k->own_crypto, k->role->site->hostname, arena, &certificate, &pem));
    hold(k, OURS, certificate, pem);
    if (for_now) {
        explicit_bzero((void *)(uintptr_t)pem.ptr, pem.len);
        return OK;
    }
    struct str both = arena_join(arena, certificate, pem);
    struct err e = write_new(dir, S("self-signed.new"), both);
    if (!err_is(e))
        e = dir_rename(dir, S("self-signed.new"), dir, S("self-signed.pem"), LANE_POOL, FOREVER);
    if (!err_is(e))
        e = dir_sync(dir, LANE_POOL, FOREVER);
    explicit_bzero((void *)(uintptr_t)both.ptr, both.len);
    explicit_bzero((void *)(uintptr_t)pem.ptr, pem.len);
    return e;
}

static void
use_ours(struct keys *k, unsigned char *memory)
{
    struct role *role = k->role;
    struct role_dir *state = role_dir_of(role, S("tls"));
    struct dir *dir;
    struct file *file;
    struct str both;
    struct arena scratch;

    if (!k->own_state && (!state || handle_is_none(state->handle) ||
                          err_is(dir_from_handle(role->rt, state->handle, &k->own_state))))
        return;
    if (state)
        state->handle = HANDLE_NONE; /* the directory stays open for the next time */
    dir = k->own_state;
    struct err e = file_open(dir, S("self-signed.pem"), FILE_READ, 0, LANE_POOL, FOREVER, &file);
    if (!err_is(e))
        e = read_whole(role->rt, file, memory, KEY_FILE_MAX, &both);
    if (!err_is(e))
        hold(k, OURS, both, both);
    if (!k->places[OURS].fresh.own_key) {
        /* One that is there but cannot be read just now is not replaced: others may know its key (DANE). */
        bool for_now = err_is(e) && e.kind != ERR_NOT_FOUND && e.kind != ERR_LIMIT;
        if (for_now)
            log_certificate(k, OURS, LOG_ERROR, "certificate-not-read", e, NULL);
        arena_init(&scratch, rt_mem(role->rt), 4096, 64 << 10);
        e = make_ours(k, dir, for_now, &scratch);
        arena_done(&scratch);
        if (err_is(e))
            log_certificate(k, OURS, LOG_ERROR, "certificate-not-kept", e, NULL);
    }
    struct log_line line;
    log_begin(&line, role->rt, LOG_WARNING, "certificate-signed-by-ourselves");
    log_str(&line, "advice", S("get one, and say: tls { certificate FILE; key FILE }"));
    log_end(&line);
}

/* How long a handshake may go on that began with a key which was just replaced. */
static int64_t
former_time(const struct site *site)
{
    int64_t longest = 0;

    for (size_t i = 0; i < site->listener_count; i++)
        if (site->listeners[i].settings.tls_wait > longest)
            longest = site->listeners[i].settings.tls_wait;
    return longest + FORMER_NS;
}

static bool
is_same_key(const struct held *a, const struct held *b)
{
    if (!a->own_key || !b->own_key)
        return false;
    struct key_name first = key_name(a->own_key), second = key_name(b->own_key);
    return memcmp(&first, &second, sizeof first) == 0;
}

static void
take_fresh(struct keys *k, struct place *place)
{
    if (!place->fresh.own_key)
        return;
    if (is_same_key(&place->now, &place->fresh)) { /* another one's file has changed: what was replaced here has its time still */
        let_go(k, &place->now);
    } else {
        if (place->now.own_key) {
            let_go(k, &place->formers[FORMERS - 1].held);
            memmove(&place->formers[1], &place->formers[0], (FORMERS - 1) * sizeof *place->formers);
            place->formers[0] = (struct former){ place->now, within(k->role->rt, former_time(k->role->site)) };
        }
        event_wake(k->role->rt, &k->replaced);
    }
    place->now = place->fresh;
    place->fresh = (struct held){ NULL, { NULL, 0 } };
}

static void
allow(struct pool *pool, const struct place *place)
{
    pool->keys[pool->key_count++] = place->now.own_key;
    for (int i = 0; i < FORMERS && place->formers[i].held.own_key; i++)
        pool->keys[pool->key_count++] = place->formers[i].held.own_key;
}

static void
show(struct pool *pool, const struct place *place, struct str listener)
{
    CHECK(pool->count < SHOWN_MAX);
    pool->pems[pool->count] = place->now.own_pem;
    pool->listeners[pool->count++] = listener;
    allow(pool, place);
}

/* It stands in no more: handshakes that it began may still ask for it, as long as for one that was replaced. */
static void
leave_ours(struct keys *k, struct pool *pool)
{
    if (pool->ours_until == FOREVER) {
        pool->ours_until = within(k->role->rt, former_time(k->role->site));
        event_wake(k->role->rt, &k->replaced);
    }
    if (rt_now(k->role->rt) < pool->ours_until)
        allow(pool, &k->places[OURS]);
    else
        pool->ours_until = 0;
}

/* All that are for this listener (empty: for the site). False: none can be used. */
static bool
show_those_of(struct keys *k, struct pool *pool, struct str listener)
{
    const struct site *site = k->role->site;
    size_t before = pool->count;

    for (size_t i = 0; i < site->certificate_count; i++)
        if (k->places[i].now.own_key && str_eq(site->certificates[i].listener, listener))
            show(pool, &k->places[i], listener);
    return pool->count > before;
}

/* Who may use what, from now on. Where nothing else can be shown, what we signed ourselves stands in: false if that is wanted and not
 * there. */
static bool
give_rights(struct keys *k)
{
    const struct site *site = k->role->site;
    bool fine = true, sites_shown[POOLS] = { false }, ours_shown[POOLS] = { false };

    for (int i = 0; i < POOLS; i++)
        k->pools[i].count = k->pools[i].key_count = 0;
    for (size_t i = 0; i < site->listener_count; i++) {
        const struct site_listener *l = &site->listeners[i];
        struct pool *pool = pool_of(k, role_of_listener(l->kind));
        if (!l->own_certificates && sites_shown[pool - k->pools])
            continue;
        struct str listener = l->own_certificates ? l->name : S("");
        sites_shown[pool - k->pools] |= !l->own_certificates;
        if (show_those_of(k, pool, listener))
            continue;
        if (!k->places[OURS].now.own_key) {
            fine = false;
            continue;
        }
        show(pool, &k->places[OURS], listener);
        ours_shown[pool - k->pools] = true;
    }
    for (int i = 0; i < POOLS; i++) {
        if (ours_shown[i])
            k->pools[i].ours_until = FOREVER;
        else
            leave_ours(k, &k->pools[i]);
    }
    return fine;
}

static bool
arrange(struct keys *k)
{
    for (int i = 0; i < PLACES; i++)
        take_fresh(k, &k->places[i]);
    return give_rights(k);
}

/* A key that was replaced, perhaps because somebody has a copy, is not for use until the next one comes. */
static void
run_former(void *arg)
{
    struct keys *k = arg;
    struct rt *rt = k->role->rt;
    int64_t until = FOREVER;
    struct err e;

    do {
        e = event_wait(rt, &k->replaced, until);
        until = FOREVER;
        bool gone = false;
        for (int i = 0; i < PLACES * FORMERS; i++) {
            struct former *former = &k->places[i / FORMERS].formers[FORMERS - 1 - i % FORMERS]; /* the oldest first */
            if (former->held.own_key && rt_now(rt) >= former->until) {
                let_go(k, &former->held);
                gone = true;
            }
            if (former->held.own_key && former->until < until)
                until = former->until;
        }
        for (int i = 0; i < POOLS; i++) {
            int64_t ours = k->pools[i].ours_until;
            gone |= ours > 0 && rt_now(rt) >= ours;
            if (ours > 0 && rt_now(rt) < ours && ours < until)
                until = ours;
        }
        if (gone)
            (void)give_rights(k);
    } while (!err_is(e) || e.kind == ERR_TIMEOUT);
}

/* All of what the supervisor passed. A certificate that cannot be used any more leaves the one before in its place. */
static void
load(struct keys *k)
{
    struct rt *rt = k->role->rt;
    struct role_certificate files[SITE_CERTIFICATES_MAX];
    size_t count = role_take_certificates(k->role, files), size = 2 * KEY_FILE_MAX;
    unsigned char *memory = mem_alloc(rt_mem(rt), size);

    for (size_t i = 0; i < count; i++)
        read_certificate(k, &files[i], memory);
    if (!arrange(k)) {
        use_ours(k, memory);
        (void)arrange(k); /* without it those listeners offer no TLS; it was said why */
    }
    explicit_bzero(memory, size);
    mem_free(rt_mem(rt), memory, size);
}

static void
run_load(void *arg)
{
    struct keys *k = arg;

    do {
        k->again = false;
        load(k);
        tell_all(k, tell_certificates);
    } while (k->again);
    k->loading = false;
}

static void
certificates(struct role *role)
{
    struct keys *k = role->ctx;

    if (!k) /* this role is ending */
        return;
    k->again = true;
    if (k->loading)
        return;
    k->loading = true;
    scope_start(&k->work, "load", run_load, k);
}

/* ---- the role ---------------------------------------------------------------------------------------------------- */

static void
new_ticket_key(struct keys *k)
{
    k->tickets[1] = k->tickets[0];
    crypto_random(k->own_crypto, &k->tickets[0], sizeof k->tickets[0]);
    k->ticket_count = k->ticket_count < TICKETS_KEPT ? k->ticket_count + 1 : TICKETS_KEPT;
    k->sealing_since = rt_now(k->role->rt);
}

/* From the generation before us, so that clients go on to resume. False: nobody has said any. */
static bool
take_tickets(struct keys *k)
{
    struct role *role = k->role;
    struct take t = take_init(str_new(role->tickets, role->tickets_len));

    int64_t since = take_i64(&t);
    size_t count = take_u8(&t);
    struct str bytes = take_raw(&t, count * sizeof *k->tickets);
    bool fine = take_end(&t) && count > 0 && count <= TICKETS_KEPT && since <= rt_now(role->rt);
    if (fine) {
        memcpy(k->tickets, bytes.ptr, bytes.len);
        k->ticket_count = count;
        k->sealing_since = since;
    }
    explicit_bzero(role->tickets, sizeof role->tickets);
    return fine;
}

static void
pass_tickets(struct role *role, uint32_t call)
{
    struct keys *k = role->ctx;
    unsigned char memory[ROLE_TICKETS_MAX];
    struct put p = put_init(memory, sizeof memory);

    if (k) { /* else this role is ending, and has none */
        put_i64(&p, k->sealing_since);
        put_tickets(k, &p);
    }
    link_reply(role->control, call, CONTROL_TICKETS, put_str_so_far(&p));
    explicit_bzero(memory, sizeof memory);
}

static void
run_tickets(void *arg)
{
    struct keys *k = arg;

    while (!err_is(rt_sleep(k->role->rt, k->sealing_since + k->role->site->ticket_time))) {
        struct log_line line;
        new_ticket_key(k);
        tell_all(k, tell_tickets);
        log_begin(&line, k->role->rt, LOG_INFO, "ticket-key-replaced");
        log_end(&line);
    }
}

static void
prepare(struct role *role)
{
    struct keys *k = mem_new(rt_mem(role->rt), struct keys);

    k->role = role;
    role->ctx = k;
    list_init(&k->askings);
    scope_init(&k->work, role->rt);
    struct err e = crypto_open(role->rt, &k->own_crypto);
    CHECK(!err_is(e)); /* as in receiver.c */
    event_init(&k->replaced);
    if (!take_tickets(k))
        new_ticket_key(k);
}

static bool
start(struct role *role)
{
    load(role->ctx);
    return true;
}

static void
run(struct role *role)
{
    struct keys *k = role->ctx;

    scope_start(&k->work, "tickets", run_tickets, k);
    scope_start(&k->work, "former", run_former, k);
    if (role->certificate_count > 0) /* they changed while start() read them */
        certificates(role);
    role_wait_for_end(role);
    scope_end(&k->work);
    while (!list_is_empty(&k->askings))
        asking_end(container_of(k->askings.next, struct asking, node));
    for (int i = 0; i < PLACES; i++) {
        let_go(k, &k->places[i].now);
        let_go(k, &k->places[i].fresh);
        for (int f = 0; f < FORMERS; f++)
            let_go(k, &k->places[i].formers[f].held);
    }
    if (k->own_state)
        dir_close(k->own_state);
    crypto_close(k->own_crypto);
    role->ctx = NULL; /* links outlive this */
    mem_free(rt_mem(role->rt), k, sizeof *k);
}

static void
sandbox(struct role *role, struct sandbox_rules *rules)
{
    struct role_dir *state = role_dir_of(role, S("tls"));

    rules->calls = SANDBOX_FILES;
    if (!state)
        return;
    role->paths[0] =
        (struct sandbox_path){ .handle = state->handle, .access = SANDBOX_READ | SANDBOX_WRITE };
    rules->paths = role->paths;
    rules->path_count = 1;
}

const struct role_ops keys_ops = {
    .kind = ROLE_KEYS, .prepare = prepare, .sandbox = sandbox, .start = start, .run = run, .peer_up = peer_up,
    .peer_down = peer_down, .certificates = certificates, .try_certificate = try_certificate,
    .tell_tickets = pass_tickets,
};
