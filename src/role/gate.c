/*
 * gate - what receivers must share: how many sessions each client has, and which recipients a next hop knows.
 *
 * ADMIT   address, u32 sessions a client may have  ->  u16 code (0: welcome), enhanced, text
 * LEAVE   address
 * VERIFY  forward-path, whether its mail must be encrypted (REQUIRETLS)  ->  as ADMIT; 0: the next hop takes it
 * AUTH, AUTH_STEP, SPEND, BANS: role/gate_users.h
 *
 * Recipients of a `recipients verify` domain are asked of its next hop by RCPT, from the null sender, without a
 * message; those of a backup, of the MX hosts that are preferred over us. The answer is kept: an hour if good, five
 * minutes if bad. It is asked in clear: where the mail, the route or the destination wants encryption, all recipients are taken
 * instead; of a destination that is remembered for five minutes. Where it cannot be known what the destination wants, it is not
 * asked and nobody is taken unseen: that is as if the next hop did not answer. While it does not, an old good answer counts for a
 * week, so that a gateway goes on while the host behind it is down. One that kept us waiting in vain is left alone for half a
 * minute, or every recipient would wait as long.
 */
#include "base/map.h"
#include "message/domain.h"
#include "policy/dane.h"
#include "policy/rate.h"
#include "policy/sts.h"
#include "role/ask.h"
#include "role/border.h"
#include "role/gate_users.h"
#include "role/role.h"
#include "runtime/host.h"
#include "runtime/log.h"
#include "smtp/client.h"

enum { CLIENTS_MAX = 100000, VERIFY_MAX = 50000, VERIFY_RUNNING_MAX = 200, HOSTS_TRIED = 2, ADDRESSES_TRIED = 4 };

#define VERIFY_GOOD_NS (1 * HOUR)
#define VERIFY_BAD_NS (5 * MINUTE)
#define VERIFY_STALE_NS (7 * DAY)
#define VERIFY_CONNECT_NS (30 * SECOND)
#define VERIFY_REPLY_NS (15 * SECOND) /* all of them together must stay below what the receiver waits: LIMIT_ANSWER_NS */
#define VERIFY_SLOW_NS SECOND
#define VERIFY_SILENT_NS (30 * SECOND)
#define VERIFY_ENCRYPTED_NS (5 * MINUTE)
#define FILE_WAIT_NS (2 * SECOND) /* for the users file, at the start: shorter than receivers wait for a gate */
#define LOGIN_PATIENCE_NS (30 * SECOND) /* Dovecot holds back a refusal for 2 seconds, and for 15 where it is suspicious */

struct verified { /* what a next hop said of one address; the address follows */
    struct list recent; /* most recently used last */
    unsigned code;
    int64_t asked;
    size_t address_len;
    char address[];
};

struct hop_known { /* of a next hop; its key in the map follows */
    int64_t until;
    uint8_t probed; /* enum probed: SILENT or NOT_IN_CLEAR */
    char key[];
};

struct gate {
    struct role *role;
    struct clients *clients;
    struct map verified;
    struct map hops;
    struct list recent;
    struct asker resolver;
    struct scope probes;
    size_t running;
    /* which links entered which clients, so that a receiver that dies leaves no sessions behind */
    struct map entered;
    struct gate_users *users;
};

/* ---- sessions ---- */

static void
answer(struct role *role, uint64_t peer, uint32_t call, uint16_t type, unsigned code, struct str enhanced, struct str text)
{
    unsigned char memory[LIMIT_REPLY_LINE + 64];
    struct put p = put_init(memory, sizeof memory);

    put_u16(&p, (uint16_t)code);
    put_bytes(&p, enhanced);
    put_bytes(&p, text);
    role_reply(role, peer, call, type, put_str_so_far(&p));
}

/* How many sessions of one client came over one link. */
enum { ENTRY_KEY = 8 + 1 + 16 };
struct entry {
    unsigned char key[ENTRY_KEY]; /* link, family, address */
    uint64_t peer;
    struct address client;
    uint32_t sessions;
};

static struct entry
entry_of(uint64_t peer, const struct address *client)
{
    struct entry e = { .peer = peer, .client = address_client_key(client) };
    struct put p = put_init(e.key, sizeof e.key);

    put_u64(&p, peer);
    put_u8(&p, e.client.family);
    put_raw(&p, str_new(e.client.ip, sizeof e.client.ip));
    return e;
}

static struct str
entry_key(const struct entry *e)
{
    return str_new(e->key, sizeof e->key);
}

/* False: nobody to leave. */
static bool
note_entry(struct gate *g, uint64_t peer, const struct address *client, bool enters)
{
    struct entry key = entry_of(peer, client);
    struct entry *e = map_get(&g->entered, entry_key(&key));
    if (!e && enters) {
        e = mem_new(rt_mem(g->role->rt), struct entry);
        *e = key;
        map_put(&g->entered, entry_key(e), e);
    }
    if (!e)
        return false;
    e->sessions += enters ? 1 : (uint32_t)-1;
    if (e->sessions == 0) {
        map_remove(&g->entered, entry_key(e));
        mem_free(rt_mem(g->role->rt), e, sizeof *e);
    }
    return true;
}

static bool
admit(struct gate *g, struct peer *peer, struct link_message *m)
{
    struct take t = take_init(m->body);
    struct address client = border_take_address(&t);
    uint32_t most = take_u32(&t);

    if (m->call == 0 || !take_end(&t) || client.family == ADDRESS_NONE)
        return false;
    if (clients_enter(g->clients, &client, most)) {
        note_entry(g, peer->serial, &client, true);
        answer(g->role, peer->serial, m->call, m->type, 0, S(""), S(""));
    } else {
        answer(g->role, peer->serial, m->call, m->type, 421, S("4.7.0"),
               S("Too many sessions from your network at once; close some, or try again in a few minutes"));
    }
    return true;
}

static bool
leave(struct gate *g, struct peer *peer, struct link_message *m)
{
    struct take t = take_init(m->body);
    struct address client = border_take_address(&t);

    if (m->call != 0 || !take_end(&t) || client.family == ADDRESS_NONE)
        return false;
    /* A session that entered before this gate was started leaves nothing behind here. */
    if (note_entry(g, peer->serial, &client, false))
        clients_leave(g->clients, &client);
    return true;
}

static void
peer_down(struct role *role, struct peer *peer)
{
    struct gate *g = role->ctx;
    struct map others;
    struct map_slot *slot;

    map_init(&others, g->entered.mem, g->entered.seed);
    for (size_t at = 0; (slot = map_next(&g->entered, &at));) {
        struct entry *e = slot->value;
        if (e->peer != peer->serial) {
            map_put(&others, entry_key(e), e);
            continue;
        }
        while (e->sessions-- > 0)
            clients_leave(g->clients, &e->client);
        mem_free(rt_mem(role->rt), e, sizeof *e);
    }
    map_done(&g->entered);
    g->entered = others;
    if (g->users) /* NULL: this role is ending, and its peers go after it */
        gate_users_peer_down(g->users, peer->serial);
}

/* ---- recipients that only the next hop knows ---- */

static struct verified *
verified_get(struct gate *g, struct str address)
{
    struct verified *v = map_get(&g->verified, address);

    if (v) {
        list_remove(&v->recent);
        list_push_back(&g->recent, &v->recent);
    }
    return v;
}

static void
verified_drop(struct gate *g, struct verified *v)
{
    map_remove(&g->verified, str_new(v->address, v->address_len));
    list_remove(&v->recent);
    mem_free(rt_mem(g->role->rt), v, sizeof *v + v->address_len);
}

static void
verified_put(struct gate *g, struct str address, unsigned code)
{
    struct verified *v = verified_get(g, address);

    if (!v) {
        if (g->verified.count >= VERIFY_MAX)
            verified_drop(g, container_of(g->recent.next, struct verified, recent));
        v = mem_alloc(rt_mem(g->role->rt), sizeof *v + address.len);
        v->address_len = address.len;
        for (size_t i = 0; i < address.len; i++)
            v->address[i] = address.ptr[i];
        list_push_back(&g->recent, &v->recent);
        map_put(&g->verified, str_new(v->address, v->address_len), v);
    }
    v->code = code;
    v->asked = rt_now(g->role->rt);
}

static struct str
domain_of(struct str address)
{
    return str_from(address, str_find_last_byte(address, '@') + 1);
}

enum probed {
    UNKNOWN,      /* whether it may be asked in clear, or where it is: the DNS or a policy's host did not answer */
    SILENT,       /* it did not answer */
    SAID,
    NOT_IN_CLEAR, /* mail goes there encrypted only */
};

struct question {
    struct gate *g;
    uint64_t peer;
    uint32_t call;
    struct arena arena;
    int64_t until;
    int64_t waited; /* for the next hop itself, not for the DNS */
    bool by_mx;     /* an MX record led there, not our configuration */
    bool met_ourselves;
    struct remote_reply reply;
    size_t len;
    char address[LIMIT_PATH];
};

/* Of each address up to five replies are kept: to the connection, EHLO, HELO, MAIL and RCPT. */
enum { QUESTION_HOST_BYTES = HOST_ARENA_BYTES + ADDRESSES_TRIED * 5 * (LIMIT_REPLY_TEXT + 256) };

static struct str
recipient_of(const struct question *q)
{
    return str_new(q->address, q->len);
}

static bool
may_go_on(const struct question *q)
{
    return !q->met_ourselves && rt_now(q->g->role->rt) < q->until;
}

/* An MX record may have any name for us: whoever calls itself as we do would ask us again, and so on. */
static bool
is_somebody_else(struct question *q, const struct client *client)
{
    q->met_ourselves = q->by_mx && site_is_own_name(q->g->role->site, client_server_name(client));
    return !q->met_ourselves;
}

static bool
dialog(struct question *q, struct client *client)
{
    struct str recipient = recipient_of(q);
    bool asked = false;

    if (err_is(client_greeting(client, &q->arena, &q->reply)) || q->reply.code != 220 ||
        err_is(client_hello(client, &q->arena, &q->reply)) || q->reply.code / 100 != 2 || !is_somebody_else(q, client) ||
        !client_can_say(recipient))
        return false;
    if (!str_is_ascii(recipient) && !client_has(client_features(client), CLIENT_SMTPUTF8)) {
        q->reply.code = 550; /* it cannot even be told of that mailbox: RFC 6531 section 3.5 */
        return true;
    }
    return !err_is(client_probe(client, recipient, &q->arena, &asked, &q->reply)) && asked;
}

/* One question to one server, and its words. */
static enum probed
probe_address(struct question *q, const struct address *to, bool lmtp)
{
    struct rt *rt = q->g->role->rt;
    const int64_t ns = VERIFY_REPLY_NS, began = rt_now(rt);
    struct client_settings settings = {
        .lmtp = lmtp, .helo = q->g->role->site->hostname, .times = { ns, ns, ns, ns, ns, ns, ns, ns }
    };
    struct stream *stream;
    enum probed probed = SILENT;

    if (!err_is(stream_connect(rt, to, NULL, q->until, &stream))) {
        struct client *client = client_new(stream, &settings);
        probed = dialog(q, client) ? SAID : SILENT;
        client_quit(client);
    }
    q->waited += rt_now(rt) - began;
    return probed;
}

/* SAID: it may be asked in clear. */
static enum probed
look_for_dane(struct question *q, const struct dane_hop *hop)
{
    struct dns dns = ask_dns(&q->g->resolver);
    struct tls_policy policy = { .level = TLS_MAY };
    struct arena scratch, records;
    bool found = false;

    arena_init(&scratch, rt_mem(q->g->role->rt), 4096, DANE_SCRATCH_BYTES);
    arena_init(&records, rt_mem(q->g->role->rt), 1024, DNS_ARENA_BYTES);
    struct err e = dane_lookup(&dns, hop, q->until, &scratch, &records, &policy, &found);
    arena_done(&records);
    arena_done(&scratch);
    if (err_is(e) || policy.level == TLS_REFUSED)
        return UNKNOWN;
    return found && tls_policy_is_strict(&policy) ? NOT_IN_CLEAR : SAID;
}

/* Likewise. As a sender: a policy that cannot be fetched, tests only or says `none` keeps no mail from going in clear. */
static enum probed
look_for_sts(struct question *q, struct str domain)
{
    struct role *role = q->g->role;
    struct str name = domain_to_ascii(domain, &q->arena);
    struct sts_answer answer;
    struct arena arena;

    if (!role->site->mta_sts || !domain_is_hostname(name))
        return SAID;
    arena_init(&arena, rt_mem(role->rt), 4096, STS_ANSWER_ARENA_BYTES);
    struct err e = ask_policy(role, name, q->until, &arena, &answer);
    bool enforces = !err_is(e) && answer.found && answer.policy.mode == STS_ENFORCE;
    arena_done(&arena);
    if (err_is(e))
        return UNKNOWN;
    return enforces ? NOT_IN_CLEAR : SAID;
}

struct next_hop {
    struct str name, domain; /* domain: whose MX it is; absent: nobody's */
    uint16_t port;
    unsigned families;
    bool lmtp, minds_dane; /* the second: where its name comes from is sure, and no route overrides it */
};

static enum probed
probe_host(struct question *q, const struct next_hop *hop)
{
    struct dns dns = ask_dns(&q->g->resolver);
    struct host_result hosts;

    if (err_is(host_addresses(&dns, hop->name, hop->families, q->until, &q->arena, &hosts)) || hosts.address_count == 0)
        return UNKNOWN;
    struct dane_hop dane = { hop->name, hosts.canonical, hosts.secure, hosts.aliased, hop->port, hop->domain };
    enum probed may = hop->minds_dane ? look_for_dane(q, &dane) : SAID;
    if (may != SAID)
        return may;
    for (size_t i = 0; i < hosts.address_count && i < ADDRESSES_TRIED && may_go_on(q); i++) {
        struct address to = hosts.addresses[i];
        to.port = hop->port;
        if (probe_address(q, &to, hop->lmtp) == SAID)
            return SAID;
    }
    return SILENT;
}

/* A backup asks the hosts that are preferred over it. */
static enum probed
probe_mx(struct question *q, bool overrides)
{
    struct dns dns = ask_dns(&q->g->resolver);
    struct str domain = domain_of(recipient_of(q));
    struct mx_host hosts[HOSTS_TRIED];
    struct mx_result mx;

    if (err_is(mx_lookup(&dns, domain, q->until, &q->arena, &mx)) || mx.status != MX_OK)
        return UNKNOWN;
    enum probed probed = overrides ? SAID : look_for_sts(q, domain);
    if (probed != SAID)
        return probed;
    q->by_mx = true;
    size_t count = mx_better_than(&mx, q->g->role->site->hostname, hosts, HOSTS_TRIED);
    probed = UNKNOWN;
    for (size_t i = 0; i < count && probed != SAID && probed != NOT_IN_CLEAR && may_go_on(q); i++) {
        struct next_hop hop = { hosts[i].name, domain, 25, HOST_IPV4 | HOST_IPV6, false, mx.secure && !overrides };
        probed = probe_host(q, &hop);
    }
    return probed;
}

static enum probed
probe(struct question *q, const struct directory_route *route)
{
    const struct conf_hop *hop = &route->hop;
    bool lmtp = hop->kind == CONF_HOP_LMTP;
    bool overrides = site_route(q->g->role->site, domain_of(recipient_of(q)))->tls == ROUTE_TLS_OVERRIDE;
    struct address to = { .family = ADDRESS_UNIX };

    if (route->kind == DIRECTORY_ROUTE_MX)
        return probe_mx(q, overrides);
    if (!str_is_absent(hop->path)) {
        struct text path = text_init(to.path, sizeof to.path - 1);
        text_put(&path, hop->path);
        return path.full ? SILENT : probe_address(q, &to, lmtp);
    }
    if (address_from_ip(hop->host, &to)) {
        to.port = hop->port;
        return probe_address(q, &to, lmtp);
    }
    bool minds = !lmtp && !overrides;
    enum probed may = minds ? look_for_sts(q, hop->host) : SAID;
    if (may != SAID)
        return may;
    struct next_hop next = { hop->host, { NULL, 0 }, hop->port, HOST_IPV4 | HOST_IPV6 | HOST_ANY, lmtp, minds };
    return probe_host(q, &next);
}

static void
answer_code(struct gate *g, uint64_t peer, uint32_t call, unsigned code)
{
    if (code / 100 == 2)
        answer(g->role, peer, call, BORDER_VERIFY, 0, S(""), S(""));
    else if (code / 100 == 5)
        answer(g->role, peer, call, BORDER_VERIFY, 550, S("5.1.1"),
               S("No such mailbox at the host that this mail goes to; check the spelling"));
    else
        answer(g->role, peer, call, BORDER_VERIFY, 450, S("4.4.1"),
               S("The host that this mail goes to cannot be asked for that mailbox now; try again later"));
}

/* Without the next hop: what it said once, if that was yes. */
static void
answer_alone(struct gate *g, uint64_t peer, uint32_t call, struct str address)
{
    const struct verified *known = verified_get(g, address);
    bool yes = known && known->code / 100 == 2 && rt_now(g->role->rt) - known->asked < VERIFY_STALE_NS;

    answer_code(g, peer, call, yes ? known->code : 450);
}

/* Domains that are described together share a route; what holds of its one hop holds for all of them, but each has MX hosts
 * of its own. `route` must outlive the key. */
static struct str
hop_key(const struct directory_route *const *route, struct str address)
{
    return (*route)->kind == DIRECTORY_ROUTE_MX ? domain_of(address) : str_new((const char *)route, sizeof *route);
}

/* Why it is not asked now; SAID: it is. */
static enum probed
known_of_hop(struct gate *g, const struct directory_route *route, struct str address)
{
    const struct hop_known *h = map_get(&g->hops, hop_key(&route, address));

    return h && rt_now(g->role->rt) < h->until ? h->probed : SAID;
}

static void
note_hop(struct gate *g, const struct directory_route *route, struct str address, enum probed probed)
{
    struct str key = hop_key(&route, address);
    struct hop_known *h = map_get(&g->hops, key);

    if (!h && g->hops.count >= VERIFY_MAX) /* more than anybody has domains: they are asked all the same */
        return;
    if (!h) {
        h = mem_alloc(rt_mem(g->role->rt), sizeof *h + key.len);
        for (size_t i = 0; i < key.len; i++)
            h->key[i] = key.ptr[i];
        map_put(&g->hops, str_new(h->key, key.len), h);
    }
    h->probed = (uint8_t)probed;
    h->until = within(g->role->rt, probed == NOT_IN_CLEAR ? VERIFY_ENCRYPTED_NS : VERIFY_SILENT_NS);
}

static void
log_unasked(const struct question *q, enum probed probed)
{
    static const struct str why[] = {
        [UNKNOWN] = STR("where its mail goes, or whether only encrypted, cannot be known now"),
        [SILENT] = STR("the next hop does not answer"),
        [NOT_IN_CLEAR] = STR("its mail goes encrypted only, by DANE or MTA-STS: all its recipients are taken"),
    };
    struct log_line line;

    log_begin(&line, q->g->role->rt, probed == NOT_IN_CLEAR ? LOG_INFO : LOG_WARNING, "recipient-not-asked");
    log_str(&line, "domain", domain_of(recipient_of(q)));
    log_str(&line, "why", why[probed]);
    log_end(&line);
}

static void
run_question(void *arg)
{
    struct question *q = arg;
    struct gate *g = q->g;
    struct str address = recipient_of(q);
    const struct directory_route *route = directory_route(g->role->site->directory, domain_of(address));

    arena_init(&q->arena, rt_mem(g->role->rt), 4096, MX_ARENA_BYTES + HOSTS_TRIED * QUESTION_HOST_BYTES);
    q->until = within(g->role->rt, VERIFY_CONNECT_NS);
    int64_t began = rt_now(g->role->rt);
    enum probed probed = probe(q, route);
    int64_t waited = probed == SILENT ? q->waited : rt_now(g->role->rt) - began; /* for the DNS or a policy, if UNKNOWN */
    if (probed == NOT_IN_CLEAR || (probed != SAID && waited > VERIFY_SLOW_NS))
        note_hop(g, route, address, probed);
    if (probed != SAID)
        log_unasked(q, probed);
    if (probed == NOT_IN_CLEAR) {
        answer_code(g, q->peer, q->call, 250);
    } else if (probed == SAID && (q->reply.code / 100 == 2 || q->reply.code / 100 == 5)) {
        verified_put(g, address, q->reply.code);
        answer_code(g, q->peer, q->call, q->reply.code);
    } else {
        answer_alone(g, q->peer, q->call, address);
    }
    arena_done(&q->arena);
    g->running--;
    mem_free(rt_mem(g->role->rt), q, sizeof *q);
}

/* The question names sender and recipient as the mail does, and goes in clear: where the mail or its route forbids that, it is not
 * asked. LMTP stays in the house. */
static bool
may_ask_in_clear(const struct gate *g, struct str address, bool require_tls)
{
    const struct route *route = site_route(g->role->site, domain_of(address));

    return route->kind == ROUTE_LMTP || (!require_tls && route->tls != ROUTE_TLS_REQUIRE && route->tls != ROUTE_TLS_VERIFY);
}

static bool
verify(struct gate *g, struct peer *peer, struct link_message *m)
{
    struct take t = take_init(m->body);
    struct str address = take_bytes(&t, LIMIT_PATH);
    bool require_tls = take_bool(&t);

    if (m->call == 0 || !take_end(&t) || address.len == 0)
        return false;
    struct verified *v = verified_get(g, address);
    int64_t fresh = v && v->code / 100 == 2 ? VERIFY_GOOD_NS : VERIFY_BAD_NS;
    if (v && rt_now(g->role->rt) - v->asked < fresh) {
        answer_code(g, peer->serial, m->call, v->code);
        return true;
    }
    const struct directory_route *route = directory_route(g->role->site->directory, domain_of(address));
    enum probed known = known_of_hop(g, route, address);
    if (!may_ask_in_clear(g, address, require_tls) || known == NOT_IN_CLEAR) {
        answer_code(g, peer->serial, m->call, 250);
        return true;
    }
    bool asks = route->kind == DIRECTORY_ROUTE_VIA || route->kind == DIRECTORY_ROUTE_LMTP ||
                route->kind == DIRECTORY_ROUTE_MX;
    if (!asks || known != SAID || g->running >= VERIFY_RUNNING_MAX) {
        answer_alone(g, peer->serial, m->call, address);
        return true;
    }
    struct question *q = mem_new(rt_mem(g->role->rt), struct question);
    *q = (struct question){ .g = g, .peer = peer->serial, .call = m->call, .len = address.len };
    for (size_t i = 0; i < address.len; i++)
        q->address[i] = address.ptr[i];
    g->running++;
    scope_start(&g->probes, "verify", run_question, q);
    return true;
}

/* ---- the role ---- */

static bool
message(struct role *role, struct peer *peer, struct link_message *m)
{
    struct gate *g = role->ctx;
    bool receiver = peer->kind == ROLE_RECEIVER || peer->kind == ROLE_SUBMISSION;

    switch (m->type) {
    case BORDER_ADMIT:
        return receiver && admit(g, peer, m);
    case BORDER_LEAVE:
        return receiver && leave(g, peer, m);
    case BORDER_VERIFY:
        return receiver && verify(g, peer, m);
    case BORDER_AUTH:
    case BORDER_AUTH_STEP:
    case BORDER_SPEND:
        /* Nobody logs in at `mx`: a receiver of that pool has nothing to guess here. */
        return peer->kind == ROLE_SUBMISSION && (!g->users || gate_users_message(g->users, peer->serial, m));
    case BORDER_BANS:
        return peer->kind == ROLE_CONSOLE && (!g->users || gate_users_message(g->users, peer->serial, m));
    default:
        return false;
    }
}

static void
reply(void *ctx, uint64_t peer, uint32_t call, uint16_t type, struct str body)
{
    role_reply(ctx, peer, call, type, body);
}

static void
users_file(struct role *role)
{
    struct gate *g = role->ctx;

    if (role->users_said && g->users)
        gate_users_take_file(g->users, role->users);
    role->users = HANDLE_NONE;
    role->users_said = false;
}

static void
prepare(struct role *role)
{
    struct gate *g = mem_new(rt_mem(role->rt), struct gate);

    role->ctx = g;
    g->role = role;
    g->clients = clients_new(rt_mem(role->rt), rt_random(role->rt), CLIENTS_MAX);
    map_init(&g->verified, rt_mem(role->rt), rt_random(role->rt));
    map_init(&g->hops, rt_mem(role->rt), rt_random(role->rt));
    map_init(&g->entered, rt_mem(role->rt), rt_random(role->rt));
    list_init(&g->recent);
    g->resolver = (struct asker){ role, ROLE_RESOLVER };
    scope_init(&g->probes, role->rt);
    struct role_dir *state = role_dir_of(role, S("gate"));
    struct gate_users_settings settings = {
        .rt = role->rt, .site = role->site, .state = state ? state->handle : HANDLE_NONE, .reply = reply, .ctx = role,
        .threads = (host_processors(role->rt) + 1) / 2, /* the other half is for the mail */
        .patience = LOGIN_PATIENCE_NS,
    };
    g->users = gate_users_new(&settings);
}

static bool
start(struct role *role)
{
    struct gate *g = role->ctx;

    gate_users_start(g->users);
    users_file(role); /* who logs in at once finds it read */
    gate_users_wait_for_file(g->users, within(role->rt, FILE_WAIT_NS));
    return true;
}

static void
run(struct role *role)
{
    struct gate *g = role->ctx;

    users_file(role); /* what came meanwhile */
    role_wait_for_end(role);
    scope_end(&g->probes);
    gate_users_end(g->users);
    g->users = NULL;
}

static void
sandbox(struct role *role, struct sandbox_rules *rules)
{
    struct role_dir *state = role_dir_of(role, S("gate"));
    bool asks_unix = role->site->users.kind == USERS_DOVECOT || site_has_unix_hop(role->site);

    rules->calls = SANDBOX_CONNECT | SANDBOX_FILES | (asks_unix ? SANDBOX_CONNECT_UNIX : 0u);
    rules->connect.all = true;
    if (!state)
        return;
    role->paths[0] = (struct sandbox_path){ .handle = state->handle, .access = SANDBOX_READ | SANDBOX_WRITE };
    rules->paths = role->paths;
    rules->path_count = 1;
}

const struct role_ops gate_ops = {
    .kind = ROLE_GATE, .prepare = prepare, .sandbox = sandbox, .start = start, .run = run, .message = message,
    .peer_down = peer_down, .users_file = users_file,
};
