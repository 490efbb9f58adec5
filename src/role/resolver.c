/*
 * resolver - answers BORDER_QUERY by libunbound. Two instances are this same code: `resolver` for routing, and
 * `checker` for names that strangers chose, so that these cannot starve routing.
 */
#include "dns/resolver.h"
#include "role/border.h"
#include "role/role.h"
#include "runtime/host.h"
#include "runtime/log.h"

enum { QUERIES_MAX = 1000, NAME_MAX_BYTES = 256, FILE_MAX_BYTES = 256 << 10 };

#define QUERY_NS (30 * SECOND) /* the caller has given up by then */

struct work {
    struct role *role;
    struct resolver *resolver;
    struct scope queries;
    size_t running;
    struct arena arena;
    struct str resolv_conf, trust_anchor, trust_anchor_path;
    bool complete; /* both were read, or are not there */
};

struct query {
    struct work *w;
    uint64_t peer;
    uint32_t call;
    uint16_t type;
    char name[NAME_MAX_BYTES];
    size_t name_len;
};

static void
answer(struct role *role, uint64_t peer, uint32_t call, const struct dns_answer *a)
{
    struct mem *mem = rt_mem(role->rt);
    void *memory = mem_alloc(mem, DNS_ANSWER_ENCODED_MAX);
    struct put p = put_init(memory, DNS_ANSWER_ENCODED_MAX);

    dns_answer_put(&p, a);
    role_reply(role, peer, call, BORDER_QUERY, put_str_so_far(&p));
    mem_free(mem, memory, DNS_ANSWER_ENCODED_MAX);
}

static void
run_query(void *arg)
{
    struct query *q = arg;
    struct role *role = q->w->role;
    struct arena arena;
    struct dns_answer a;

    arena_init(&arena, rt_mem(role->rt), 4096, DNS_ARENA_BYTES);
    struct err e = resolver_query(q->w->resolver, str_new(q->name, q->name_len), q->type, within(role->rt, QUERY_NS),
                                  &arena, &a);
    if (!err_is(e)) /* else this role is ending: whoever asked sees the link close, and asks the next one */
        answer(role, q->peer, q->call, &a);
    arena_done(&arena);
    q->w->running--;
    mem_free(rt_mem(role->rt), q, sizeof *q);
}

static bool
message(struct role *role, struct peer *peer, struct link_message *m)
{
    struct work *w = role->ctx;
    struct take t = take_init(m->body);
    uint16_t type = take_u16(&t);
    struct str name = take_bytes(&t, NAME_MAX_BYTES);

    if (m->type != BORDER_QUERY || m->call == 0 || !take_end(&t))
        return false;
    if (!w->resolver) /* as above */
        return true;
    if (w->running >= QUERIES_MAX) {
        struct dns_answer busy = dns_answer_temporary(type, S("the resolver has too much to do"));
        answer(role, peer->serial, m->call, &busy);
        return true;
    }
    struct query *q = mem_new(rt_mem(role->rt), struct query);
    *q = (struct query){ .w = w, .peer = peer->serial, .call = m->call, .type = type, .name_len = name.len };
    for (size_t i = 0; i < name.len; i++)
        q->name[i] = name.ptr[i];
    w->running++;
    scope_start(&w->queries, "query", run_query, q);
    return true;
}

/* False: not now; nothing is known of the file. */
static bool
read_file(struct work *w, struct str path, struct str *out)
{
    struct err e = host_read_file(w->role->rt, path, FILE_MAX_BYTES, &w->arena, FOREVER, out);

    if (err_is(e))
        *out = S("");
    return e.kind != ERR_NO_FILES && e.kind != ERR_NO_MEMORY;
}

/* Neither file must be there: without name servers we ask the root, without an anchor nothing is validated. */
static void
prepare(struct role *role)
{
    struct work *w = mem_new(rt_mem(role->rt), struct work);
    struct str own = role->site->trust_anchor;

    w->role = role;
    w->trust_anchor_path = str_is_absent(own) ? S(SITE_TRUST_ANCHOR) : own;
    role->ctx = w;
    scope_init(&w->queries, role->rt);
    arena_init(&w->arena, rt_mem(role->rt), 4096, 4 * FILE_MAX_BYTES);
    w->complete = read_file(w, S("/etc/resolv.conf"), &w->resolv_conf) &&
                  read_file(w, w->trust_anchor_path, &w->trust_anchor);
}

/* Our hello follows READY, and whoever hears it asks at once. */
static bool
start(struct role *role)
{
    struct work *w = role->ctx;
    const struct site *site = role->site;
    struct resolver_settings settings = {
        .forwarders = site->forwarders, .forwarder_count = site->forwarder_count, .resolv_conf = w->resolv_conf,
        .trust_anchor = w->trust_anchor,
    };
    struct str why = S("");

    if (!w->complete)
        return false;
    struct err e = resolver_open(role->rt, &settings, FOREVER, &w->resolver, &why);

    if (err_is(e)) {
        struct log_line line;
        log_begin(&line, role->rt, LOG_ERROR, "resolver-cannot-start");
        log_str(&line, "why", why);
        log_err(&line, e);
        log_end(&line);
        return false;
    }
    if (w->trust_anchor.len == 0) {
        struct log_line line;
        log_begin(&line, role->rt, LOG_WARNING, "dnssec-off");
        log_str(&line, "file", w->trust_anchor_path);
        log_str(&line, "why", S("it holds no keys that DNSSEC could begin with, or cannot be read"));
        log_str(&line, "so", S("no answer of the DNS is vouched for, and no host is held to its TLSA records"));
        log_end(&line);
    }
    return true;
}

static void
run(struct role *role)
{
    struct work *w = role->ctx;

    role_wait_for_end(role);
    scope_end(&w->queries);
    resolver_close(w->resolver);
    w->resolver = NULL;
}

static void
sandbox(struct role *role, struct sandbox_rules *rules)
{
    (void)role;
    rules->calls = SANDBOX_CONNECT;
    rules->connect.all = true;
}

const struct role_ops resolver_ops = {
    .kind = ROLE_RESOLVER, .prepare = prepare, .start = start, .sandbox = sandbox, .run = run, .message = message
};
const struct role_ops checker_ops = {
    .kind = ROLE_CHECKER, .prepare = prepare, .start = start, .sandbox = sandbox, .run = run, .message = message
};
