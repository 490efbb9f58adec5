/*
 * keys - the private keys, and nothing else that a stranger could reach: it has no network, and speaks only to roles.
 *
 * The supervisor opens the files that the configuration names and passes them on, again when they change. Receivers get
 * the certificates and ask for signatures; the keys stay here. Where no certificate is configured, or none can be used,
 * one that it signs itself is made in the state directory: encryption against whoever only listens from the first minute.
 *
 * It also makes the keys of tickets, so that all receivers resume each other's sessions; they are never written down, and
 * each seals for TICKETS_NS.
 */
#include "base/check.h"
#include "net/signing.h"
#include "net/tls.h"
#include "role/border.h"
#include "role/role.h"
#include "runtime/log.h"

#include <string.h>

#define TICKETS_NS (12 * HOUR)
#define SOON_NS (14 * DAY) /* a certificate that ends by then is told of */

enum { OURS = SITE_CERTIFICATES_MAX, TICKETS_KEPT = 2 };

struct asking { /* a receiver's socket for signatures */
    struct list node;
    struct keys *k;
    struct link *link;
    uint64_t peer;
};

struct keys {
    struct role *role;
    struct crypto *own_crypto;
    struct scope work;
    struct list askings;
    bool loading, again;

    struct key *own_keys[SITE_CERTIFICATES_MAX];
    struct arena pems; /* of the certificates to these keys */
    struct str pem[SITE_CERTIFICATES_MAX];
    size_t count;
    struct tls_ticket_key tickets[TICKETS_KEPT];
    size_t ticket_count;
};

/* ---- what receivers are told ------------------------------------------------------------------------------------- */

static void
tell_certificates(struct keys *k, struct peer *peer)
{
    struct mem *mem = rt_mem(k->role->rt);
    size_t cap = 1;

    for (size_t i = 0; i < k->count; i++)
        cap += 4 + k->pem[i].len;
    unsigned char *memory = mem_alloc(mem, cap);
    struct put p = put_init(memory, cap);
    put_u8(&p, (uint8_t)k->count);
    for (size_t i = 0; i < k->count; i++)
        put_bytes(&p, k->pem[i]);
    CHECK(!p.full);
    link_post(peer->link, BORDER_CERTIFICATES, put_str_so_far(&p));
    mem_free(mem, memory, cap);
}

static void
tell_tickets(struct keys *k, struct peer *peer)
{
    unsigned char memory[1 + sizeof k->tickets];
    struct put p = put_init(memory, sizeof memory);

    put_u8(&p, (uint8_t)k->ticket_count);
    put_raw(&p, str_new(k->tickets, k->ticket_count * sizeof *k->tickets));
    link_post(peer->link, BORDER_TICKETS, put_str_so_far(&p));
    explicit_bzero(memory, sizeof memory);
}

static void
tell_all(struct keys *k, void (*tell)(struct keys *, struct peer *))
{
    list_each (node, &k->role->peers)
        tell(k, container_of(node, struct peer, node));
}

/* ---- signatures -------------------------------------------------------------------------------------------------- */

static bool
answer(void *ctx, struct link *link, struct link_message *m)
{
    const struct asking *a = ctx;
    struct key_table table = { a->k->own_keys, a->k->count };
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
    struct asking *a = mem_new(rt_mem(role->rt), struct asking);
    struct link_settings settings = {
        .name = S("signatures"), .ctx = a, .handle = answer, .closed = asking_closed, .calls_max = 1,
    };

    *a = (struct asking){ .k = k, .peer = peer->serial };
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
    log_str(&line, "file", index < site->certificate_count ? site->certificates[index].certificate : S("self-signed"));
    if (c)
        log_int(&line, "days", (c->until - rt_wall(k->role->rt)) / DAY);
    if (err_is(e))
        log_err(&line, e);
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

/* What is being loaded: it takes the place of what there is once it is whole. */
struct fresh {
    struct keys *k;
    struct key *keys[SITE_CERTIFICATES_MAX];
    struct arena arena;
    struct str pem[SITE_CERTIFICATES_MAX];
    size_t count;
};

/* A certificate and its key, if they are one. Both texts are read already. */
static void
fresh_add(struct fresh *f, uint32_t index, struct str certificate, struct str pem)
{
    struct keys *k = f->k;
    struct key_certificate c;
    struct key *key;

    struct err e = key_look_at_certificate(k->own_crypto, certificate, &c);
    if (!err_is(e))
        e = key_parse(k->own_crypto, pem, &key);
    if (err_is(e)) {
        log_certificate(k, index, LOG_ERROR, "certificate-unusable", e, NULL);
        return;
    }
    struct key_name name = key_name(key);
    if (memcmp(&name, &c.key, sizeof name) != 0) {
        log_certificate(k, index, LOG_ERROR, "certificate-of-another-key", OK, NULL);
        key_free(key);
        return;
    }
    bool ends = c.until < rt_wall(k->role->rt) + SOON_NS;
    log_certificate(k, index, ends ? LOG_WARNING : LOG_INFO, ends ? "certificate-ends-soon" : "certificate", OK, &c);
    f->keys[f->count] = key;
    f->pem[f->count++] = arena_keep(&f->arena, certificate);
}

static void
fresh_read(struct fresh *f, struct role_certificate *c, unsigned char *memory)
{
    struct rt *rt = f->k->role->rt;
    struct str certificate, pem;

    struct err e = read_handle(rt, c->certificate, memory, KEY_FILE_MAX, &certificate);
    struct err second = read_handle(rt, c->key, memory + KEY_FILE_MAX, KEY_FILE_MAX, &pem);
    if (!err_is(e))
        e = second;
    if (err_is(e))
        log_certificate(f->k, c->index, LOG_ERROR, "certificate-not-read", e, NULL);
    else
        fresh_add(f, c->index, certificate, pem);
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

/* One file with both, so that they cannot be of two minds. */
static struct err
make_ours(struct fresh *f, struct dir *dir, struct arena *arena)
{
    struct keys *k = f->k;
    struct str certificate, pem;

    TRY(key_make_self_signed(k->own_crypto, k->role->site->hostname, arena, &certificate, &pem));
    fresh_add(f, OURS, certificate, pem);
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
use_ours(struct fresh *f, unsigned char *memory)
{
    struct role *role = f->k->role;
    struct role_dir *state = role_dir_of(role, S("tls"));
    struct dir *dir;
    struct file *file;
    struct str both;
    struct arena scratch;

    if (!state || handle_is_none(state->handle) || err_is(dir_from_handle(role->rt, state->handle, &dir)))
        return;
    state->handle = dir_handle(role->rt, dir); /* for the next time */
    struct err e = file_open(dir, S("self-signed.pem"), FILE_READ, 0, LANE_POOL, FOREVER, &file);
    if (!err_is(e))
        e = read_whole(role->rt, file, memory, KEY_FILE_MAX, &both);
    if (!err_is(e))
        fresh_add(f, OURS, both, both);
    if (f->count == 0) {
        arena_init(&scratch, rt_mem(role->rt), 4096, 64 << 10);
        e = make_ours(f, dir, &scratch);
        arena_done(&scratch);
        if (err_is(e))
            log_certificate(f->k, OURS, LOG_ERROR, "certificate-not-kept", e, NULL);
    }
    dir_close(dir);
    struct log_line line;
    log_begin(&line, role->rt, LOG_WARNING, "certificate-signed-by-ourselves");
    log_str(&line, "advice", S("get one, and say: tls { certificate FILE; key FILE }"));
    log_end(&line);
}

static void
drop(struct keys *k)
{
    for (size_t i = 0; i < k->count; i++)
        key_free(k->own_keys[i]);
    k->count = 0;
    arena_done(&k->pems);
}

/* All of what the supervisor passed; what we have stays until that is read. */
static void
load(struct keys *k)
{
    struct rt *rt = k->role->rt;
    struct role_certificate files[SITE_CERTIFICATES_MAX];
    size_t count = role_take_certificates(k->role, files), size = 2 * KEY_FILE_MAX;
    struct fresh *f = mem_new(rt_mem(rt), struct fresh);
    unsigned char *memory = mem_alloc(rt_mem(rt), size);

    f->k = k;
    arena_init(&f->arena, rt_mem(rt), 4096, SITE_CERTIFICATES_MAX * (size_t)KEY_FILE_MAX);
    for (size_t i = 0; i < count; i++)
        fresh_read(f, &files[i], memory);
    if (f->count == 0)
        use_ours(f, memory);
    explicit_bzero(memory, size);
    mem_free(rt_mem(rt), memory, size);
    drop(k);
    k->pems = f->arena;
    k->count = f->count;
    for (size_t i = 0; i < f->count; i++) {
        k->own_keys[i] = f->keys[i];
        k->pem[i] = f->pem[i];
    }
    mem_free(rt_mem(rt), f, sizeof *f);
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

    k->again = true;
    if (k->loading || !k->own_crypto) /* NULL: this role is ending */
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
}

static void
run_tickets(void *arg)
{
    struct keys *k = arg;

    while (!err_is(rt_sleep(k->role->rt, within(k->role->rt, TICKETS_NS)))) {
        new_ticket_key(k);
        tell_all(k, tell_tickets);
    }
}

static void
prepare(struct role *role)
{
    struct keys *k = mem_new(rt_mem(role->rt), struct keys);

    k->role = role;
    role->ctx = k;
    list_init(&k->askings);
    arena_init(&k->pems, rt_mem(role->rt), 4096, 4096);
    scope_init(&k->work, role->rt);
    struct err e = crypto_open(role->rt, &k->own_crypto);
    CHECK(!err_is(e)); /* as in receiver.c */
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
    role_wait_for_end(role);
    scope_end(&k->work);
    while (!list_is_empty(&k->askings))
        asking_end(container_of(k->askings.next, struct asking, node));
    drop(k);
    crypto_close(k->own_crypto);
    k->own_crypto = NULL;
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
    .peer_down = peer_down, .certificates = certificates,
};
