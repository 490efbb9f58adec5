/*
 * fetch - asks other hosts' web servers for their MTA-STS policies, by HTTPS and for nothing else, and keeps them
 * (policy/sts_policies.h). Senders ask it before they go to a domain's hosts.
 *
 * libcurl and the authorities are loaded before the sandbox; inside it there is port 443, and the directory of policies.
 */
#include "base/check.h"
#include "dns/cache.h"
#include "message/domain.h"
#include "net/https.h"
#include "role/ask.h"
#include "role/border.h"
#include "role/role.h"
#include "runtime/host.h"
#include "runtime/log.h"

enum { POLICIES_BYTES = 32 << 20, DNS_CACHE_BYTES = 4 << 20, QUESTIONS_MAX = 2000, AUTHORITIES_MAX = 4 << 20 };

struct fetch {
    struct role *role;
    struct arena arena;      /* authorities */
    struct https *own_https; /* NULL: libcurl is not to be had */
    struct asker asker;
    struct dns behind, dns;
    struct dns_cache *cache;
    struct sts_policies *policies;
    struct dir *own_dir;
    struct scope questions;
    size_t running;
    bool ended;
};

struct question {
    struct fetch *f;
    uint64_t peer;
    uint32_t call;
    char domain[LIMIT_DOMAIN];
    size_t domain_len;
};

static struct err
get(void *arg, const struct https_request *request, int64_t until, struct arena *arena, struct https_answer *out)
{
    struct fetch *f = arg;

    if (f->own_https)
        return https_get(f->own_https, request, until, arena, out);
    *out = (struct https_answer){ .status = HTTPS_UNREACHABLE, .body = S(""), .why = S("this host has no libcurl") };
    return OK;
}

static void
run_question(void *arg)
{
    struct question *q = arg;
    struct fetch *f = q->f;
    struct mem *mem = rt_mem(f->role->rt);
    struct arena arena;
    struct sts_answer answer;

    arena_init(&arena, mem, 4096, STS_ANSWER_ARENA_BYTES + BORDER_POLICY_MAX);
    struct err e = sts_policies_find(f->policies, str_new(q->domain, q->domain_len),
                                     within(f->role->rt, STS_ANSWER_NS), &arena, &answer);
    size_t size = BORDER_POLICY_FIXED + (err_is(e) ? 0 : border_policy_size(&answer));
    struct put p = put_init(arena_alloc(&arena, size), size);
    border_put_policy(&p, err_is(e) ? NULL : &answer);
    CHECK(!p.full);
    role_reply(f->role, q->peer, q->call, BORDER_POLICY, put_str_so_far(&p));
    arena_done(&arena);
    f->running--;
    mem_free(mem, q, sizeof *q);
}

static bool
message(struct role *role, struct peer *peer, struct link_message *m)
{
    struct fetch *f = role->ctx;
    struct take t = take_init(m->body);
    struct str domain = take_bytes(&t, LIMIT_DOMAIN);
    unsigned char memory[BORDER_POLICY_FIXED];

    if (m->type != BORDER_POLICY || m->call == 0 || !take_end(&t) || !domain_is_hostname(domain))
        return false;
    if (f->ended || f->running >= QUESTIONS_MAX) {
        struct put p = put_init(memory, sizeof memory);
        border_put_policy(&p, NULL);
        link_reply(peer->link, m->call, BORDER_POLICY, put_str_so_far(&p));
        return true;
    }
    struct question *q = mem_new(rt_mem(role->rt), struct question);
    *q = (struct question){ .f = f, .peer = peer->serial, .call = m->call, .domain_len = domain.len };
    for (size_t i = 0; i < domain.len; i++)
        q->domain[i] = byte_lower(domain.ptr[i]);
    f->running++;
    scope_start(&f->questions, "policy", run_question, q);
    return true;
}

static void
run_refresh(void *arg)
{
    struct fetch *f = arg;

    sts_policies_refresh(f->policies);
}

/* ---- the role ---------------------------------------------------------------------------------------------------- */

static void
log_trouble(struct fetch *f, const char *what, struct str why, struct err e)
{
    struct log_line line;

    log_begin(&line, f->role->rt, LOG_ERROR, what);
    log_str(&line, "why", why);
    log_err(&line, e);
    log_end(&line);
}

static void
prepare(struct role *role)
{
    struct fetch *f = mem_new(rt_mem(role->rt), struct fetch);
    char memory[300];
    struct text why = text_init(memory, sizeof memory);
    struct str authorities = S("");

    f->role = role;
    role->ctx = f;
    scope_init(&f->questions, role->rt);
    arena_init(&f->arena, rt_mem(role->rt), 4096, AUTHORITIES_MAX + 4096);
    struct err e = host_read_file(role->rt, role->site->mta_sts_ca, AUTHORITIES_MAX, &f->arena, FOREVER, &authorities);
    if (err_is(e)) /* nobody is trusted then, and no policy is believed */
        log_trouble(f, "authorities-not-read", role->site->mta_sts_ca, e);
    e = https_open(role->rt, authorities, &f->own_https, &why);
    if (err_is(e))
        log_trouble(f, "no-policy-can-be-fetched", text_str(&why), e);
    f->asker = (struct asker){ role, ROLE_RESOLVER };
    f->behind = ask_dns(&f->asker);
    f->cache = dns_cache_new(role->rt, &f->behind, DNS_CACHE_BYTES);
    f->dns = dns_cache_dns(f->cache);
    f->policies = sts_policies_new(role->rt, &f->dns, &(struct sts_policies_hooks){ f, get }, POLICIES_BYTES);
}

static bool
start(struct role *role)
{
    struct fetch *f = role->ctx;
    struct role_dir *kept = role_dir_of(role, S("mta-sts"));
    struct err e = kept ? dir_from_handle(role->rt, kept->handle, &f->own_dir) : ERR(ERR_NOT_FOUND, "open its directory");

    if (!err_is(e))
        e = sts_policies_load(f->policies, f->own_dir, FOREVER);
    if (err_is(e)) {
        log_trouble(f, "policies-not-read", S("without what they promise mail might go to anybody"), e);
        return false;
    }
    return true;
}

static void
run(struct role *role)
{
    struct fetch *f = role->ctx;

    scope_start(&f->questions, "refresh", run_refresh, f);
    role_wait_for_end(role);
    f->ended = true;
    if (f->own_https)
        https_stop(f->own_https);
    scope_end(&f->questions);
    sts_policies_free(f->policies);
    dns_cache_free(f->cache);
    dir_close(f->own_dir);
    if (f->own_https)
        https_close(f->own_https);
    arena_done(&f->arena);
}

static void
sandbox(struct role *role, struct sandbox_rules *rules)
{
    static const uint16_t ports[] = { 443 };
    struct role_dir *kept = role_dir_of(role, S("mta-sts"));

    rules->calls = SANDBOX_CONNECT | SANDBOX_FILES;
    rules->connect = (struct sandbox_ports){ ports, sizeof ports / sizeof *ports, false };
    if (!kept)
        return;
    role->paths[0] = (struct sandbox_path){ .handle = kept->handle, .access = SANDBOX_READ | SANDBOX_WRITE };
    rules->paths = role->paths;
    rules->path_count = 1;
}

const struct role_ops fetch_ops = {
    .kind = ROLE_FETCH, .prepare = prepare, .sandbox = sandbox, .start = start, .run = run, .message = message,
};
