/*
 * sender - one delivery attempt after another for the store, over the network: SMTP and LMTP. It also composes notices,
 * because that reads the header of a message, which the store does not.
 */
#include "base/check.h"
#include "deliver/smtp.h"
#include "dns/cache.h"
#include "message/domain.h"
#include "net/tls.h"
#include "role/ask.h"
#include "role/border.h"
#include "role/role.h"
#include "role/tls_rule.h"
#include "runtime/host.h"
#include "runtime/log.h"

#include <string.h>

enum { AUTHORITIES_BYTES = 4 << 20 };
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
    struct str authorities;      /* whom the system trusts, PEM; until they are asked for the first time */
    struct arena files;
    struct tls_trust *own_trust; /* NULL: not asked for yet */
    struct tls_trust **own_route_trusts; /* in the order of site->authorities; likewise */
};

/* One call of the store. body is a copy. */
struct task {
    struct sender *sender;
    uint64_t store;
    uint32_t call;
    uint16_t type;
    struct arena arena;
    struct message_id id;
    struct border_job job;
    const struct recipient *recipients; /* of the job, those that are under way: one policy is for all of them */
    size_t recipient_count;
    const struct promise *promise;      /* NULL: none was looked for */
    size_t len;
    char body[];
};

/* What a domain says of its hosts, by MTA-STS. */
struct promise {
    struct task *task;
    struct str domain; /* A-labels; absent: such a one can have none */
    bool known;        /* else it may have a policy */
    struct sts_answer answer;
};

/* ---- content ---- */

static struct err
read_content(void *arg, uint64_t offset, void *memory, size_t len, int64_t until, size_t *out_len)
{
    struct task *t = arg;

    return ask_job_content(t->sender->role, t->store, &t->job, offset, memory, len, until, out_len);
}

static struct err
addresses(void *arg, struct str host, unsigned families, int64_t until, struct arena *arena, struct host_result *out)
{
    struct task *t = arg;

    return host_addresses(&t->sender->resolver, host, families, until, arena, out);
}

/* ---- TLS ---- */

/* Certificates of authorities are only read where they are needed: it takes 10 ms and 3 MB for the system's. */
static struct tls_trust *
trust_of(struct sender *s, struct tls_trust **trust, struct str pem, struct str path)
{
    size_t count;

    if (*trust)
        return *trust;
    *trust = tls_trust_new(s->own_crypto, pem, &count);
    if (count == 0) {
        struct log_line line;
        log_begin(&line, s->role->rt, LOG_ERROR, "no-authorities");
        log_str(&line, "file", path);
        log_str(&line, "so", S("no certificate that has to be verified will be"));
        log_end(&line);
    }
    return *trust;
}

/* Whom this job's route trusts. NULL: a reload took them away while the job was on its way. */
static const struct tls_trust *
trust_for(struct sender *s, const struct border_job *job)
{
    const struct site *site = s->role->site;

    if (job->tls_ca.len == 0)
        return trust_of(s, &s->own_trust, s->authorities, S(SITE_AUTHORITIES));
    for (size_t i = 0; i < site->authorities_count; i++)
        if (str_eq(site->authorities[i].path, job->tls_ca))
            return trust_of(s, &s->own_route_trusts[i], site->authorities[i].pem, job->tls_ca);
    return NULL;
}

/* The domain of all recipients; absent: there are several. */
static struct str
only_domain(const struct task *t)
{
    struct str only = { NULL, 0 };

    for (size_t i = 0; i < t->recipient_count; i++) {
        struct str address = t->recipients[i].address;
        struct str domain = str_from(address, str_find_last_byte(address, '@') + 1);
        if (!str_is_absent(only) && !name_eq(only, domain))
            return (struct str){ NULL, 0 };
        only = domain;
    }
    return only;
}

/* A line of the log on what a host must be spoken to by. */
static void
log_begin_tls(struct log_line *line, const struct task *t, const char *event, struct str host, const struct tls_policy *policy)
{
    char id[MESSAGE_ID_TEXT];

    log_begin(line, t->sender->role->rt, LOG_WARNING, event);
    log_str(line, "id", message_id_text(t->id, id));
    log_str(line, "host", host);
    log_str(line, "tls-policy", tls_level_name(policy->level));
    log_str(line, "tls-policy-by", tls_source_name(policy->source));
}

static void
log_override(const struct task *t, struct str host, const struct tls_policy *policy)
{
    struct log_line line;

    log_begin_tls(&line, t, "tls-override", host, policy);
    log_str(&line, "so", S("not as the destination asks for, because the route says so"));
    log_end(&line);
}

/* A literal without its brackets: certificates name an address as such, and as a server's name it is not sent (RFC 6066 section 3). */
static struct str
name_for_tls(struct str host)
{
    struct address literal;

    if (!domain_parse_literal(host, &literal))
        return host;
    struct str inside = str_slice(host, 1, host.len - 1);
    (void)str_take_nocase(&inside, S("IPv6:"));
    return inside;
}

/* What the message wants comes behind this. */
static struct err
policy_of_others(struct task *t, const struct delivery_host *host, const struct delivery_addresses *addresses, int64_t until,
                 struct arena *arena, struct tls_policy *out)
{
    const struct border_job *job = &t->job;
    const struct promise *p = t->promise;
    struct tls_rule rule = { job->tls, job->smtps, NULL };
    struct tls_decision decision;

    if (host->fixed.family == ADDRESS_UNIX) {
        *out = (struct tls_policy){ .level = TLS_NEVER };
        return OK;
    }
    struct str domain = job->configured ? (struct str){ NULL, 0 } : domain_to_ascii(only_domain(t), arena);
    const struct tls_candidate candidate = {
        .hop = { name_for_tls(host->name), addresses->canonical, addresses->secure, addresses->aliased, addresses->port, domain },
        .minds_dane = job->kind == DELIVERY_SMTP && job->hosts_secure,
        .promise_domain = p ? p->domain : (struct str){ NULL, 0 },
        .answer = p && p->known ? &p->answer : NULL,
        .optional = job->envelope.tls_optional,
    };
    if (job->tls == ROUTE_TLS_VERIFY || !str_is_absent(candidate.promise_domain))
        rule.trust = trust_for(t->sender, job);
    TRY(tls_rule_decide(&rule, &candidate, &t->sender->resolver, rt_mem(t->sender->role->rt), until, arena, &decision));
    if (decision.lowered)
        log_override(t, host->name, &decision.asked);
    *out = decision.policy;
    return OK;
}

/* The host's name is what it should be: DNSSEC or a policy vouches for it, or it is the domain's or the configuration's own. */
static bool
is_vouched_for(const struct task *t, const struct delivery_host *host)
{
    const struct promise *p = t->promise;
    struct str domain = only_domain(t);

    if (t->job.configured || t->job.hosts_secure || (!str_is_absent(domain) && name_eq(domain, host->name)))
        return true;
    return p && p->known && p->answer.found && p->answer.policy.mode != STS_NONE &&
           sts_policy_allows(&p->answer.policy, host->name);
}

/* Nor will anybody vouch for it later: no policy was looked for, or what there is of one is known. */
static bool
is_never_vouched_for(const struct task *t)
{
    const struct promise *p = t->promise;

    return !p || (p->known && p->answer.result == TLS_RESULT_OK);
}

/* RFC 8689 section 4.2.1: whatever the destination asks for, no less than this. */
static void
require_tls(struct task *t, const struct delivery_host *host, struct arena *arena, struct tls_policy *out)
{
    bool refused = out->level == TLS_REFUSED && !out->testing;

    out->testing = false;
    out->lasting = refused && out->result == TLS_RESULT_VALIDATION_FAILURE; /* else more may be known later */
    if (refused || out->level == TLS_DANE)
        return;
    if (is_vouched_for(t, host))
        *out = (struct tls_policy){ .level = TLS_VERIFY, .source = TLS_BY_MESSAGE, .domain = out->domain,
                                    .names = { arena_keep(arena, name_for_tls(host->name)) }, .name_count = 1,
                                    .trust = trust_for(t->sender, &t->job) };
    else
        *out = (struct tls_policy){ .level = TLS_REFUSED, .source = TLS_BY_MESSAGE, .domain = out->domain,
                                    .lasting = is_never_vouched_for(t), .result = TLS_RESULT_VALIDATION_FAILURE,
                                    .why = S("neither DNSSEC nor MTA-STS vouches for the host's name") };
}

/* What the message itself wants comes last: REQUIRETLS raises. */
static struct err
tls_policy(void *arg, const struct delivery_host *host, const struct delivery_addresses *addresses, int64_t until,
           struct arena *arena, struct tls_policy *out)
{
    struct task *t = arg;
    const struct envelope *e = &t->job.envelope;
    bool lmtp = t->job.kind == DELIVERY_LMTP;

    TRY(policy_of_others(t, host, addresses, until, arena, out));
    if (e->require_tls && e->reverse_path.len > 0 && !lmtp)
        require_tls(t, host, arena, out);
    return OK;
}

/* What can be asked of the host beside its TLSA records: if none of those can be used, that is not undone. */
static bool
asks_for_more(const struct task *t)
{
    const struct promise *p = t->promise;
    bool promised = p && !str_is_absent(p->domain) &&
                    (!p->known || (p->answer.found && p->answer.policy.mode == STS_ENFORCE));

    return promised || (t->job.envelope.require_tls && t->job.envelope.reverse_path.len > 0);
}

static struct err
start_tls(void *arg, struct str host, const struct tls_policy *policy, struct wire *wire, int64_t until,
          struct client_encryption *out, enum tls_result *out_result, struct text *reason)
{
    struct task *t = arg;
    const struct tls *tls;
    char memory[TLS_RESUME_MAX];
    struct text resume = text_init(memory, sizeof memory);
    struct address peer = stream_peer(wire->stream);

    tls_policy_put_key(&resume, policy);
    text_put_byte(&resume, ' ');
    text_put(&resume, host);
    text_put_byte(&resume, ' ');
    address_put(&resume, &peer);
    struct tls_expected expected = { .server_name = name_for_tls(host), .policy = policy, .resume = resume.full ? S("") : text_str(&resume) };
    TRY(tls_connect(t->sender->own_tls, wire, &expected, until, &tls, out_result, reason));
    if (*out_result == TLS_RESULT_TLSA_INVALID && !policy->testing && asks_for_more(t))
        return ERR(ERR_DENIED, "check a certificate by TLSA records that cannot be used");
    struct tls_facts facts = tls_facts(tls);
    *out = (struct client_encryption){ facts.protocol, facts.cipher, facts.resumed };
    return OK;
}

static void
tls_trouble(void *arg, struct str host, const struct tls_policy *policy, enum tls_result result, struct str why, struct str so)
{
    struct log_line line;

    log_begin_tls(&line, arg, "tls-failed", host, policy);
    log_str(&line, "tls-policy-domain", policy->domain);
    log_str(&line, "tls-result", tls_result_name(result));
    log_str(&line, "why", why);
    log_str(&line, "so", so);
    log_end(&line);
}

/* ---- AUTH ---- */

static void
login_trouble(void *arg, struct str host, struct str mechanism, struct str why)
{
    struct task *t = arg;
    struct log_line line;
    char id[MESSAGE_ID_TEXT];

    log_begin(&line, t->sender->role->rt, LOG_WARNING, "login-failed");
    log_str(&line, "id", message_id_text(t->id, id));
    log_str(&line, "host", host);
    log_str(&line, "user", t->job.login_user);
    log_str(&line, "mechanism", mechanism);
    log_str(&line, "why", why);
    log_str(&line, "so", S("the mail waits"));
    log_str(&line, "see", t->job.login_file);
    log_end(&line);
}

/* NULL: nobody logs in by this route. An empty secret: its file told us none. */
static const struct sasl_login *
login_of(struct task *t)
{
    const struct role *role = t->sender->role;
    const struct border_job *job = &t->job;

    if (job->login_user.len == 0)
        return NULL;
    struct sasl_login *login = arena_new(&t->arena, struct sasl_login);
    *login = (struct sasl_login){ job->login_user, S(""), job->login_token };
    for (size_t i = 0; i < role->secret_count; i++)
        if (str_eq(role->secrets[i].path, job->login_file))
            login->secret = role->secrets[i].secret;
    return login;
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

/* To these recipients, all of whom have one policy. */
static void
deliver(struct task *t, const struct recipient *recipients, size_t count, const struct promise *promise,
        struct outcome *outcomes, struct delivery_figures *figures)
{
    struct sender *s = t->sender;
    const struct border_job *job = &t->job;
    struct delivery_job what = {
        .envelope = &job->envelope, .recipients = recipients, .recipient_count = count,
        .hosts = job->hosts, .host_count = job->host_count, .configured = job->configured,
    };
    struct delivery_settings settings = {
        .lmtp = job->kind == DELIVERY_LMTP, .port = job->port, .families = job->families, .helo = job->helo,
        .source_ipv4 = job->source_ipv4, .source_ipv6 = job->source_ipv6,
        .allow_private = job->allow_private, .allow_private_count = job->allow_private_count,
        .own_names = s->role->site->own_names, .own_name_count = s->role->site->own_name_count, .own_addresses = s->own,
        .own_address_count = s->own_count, .connect = job->connect_wait, .times = times_within(job->reply_wait),
        .messages_per_connection = job->messages_per_connection, .smtps = job->smtps,
        .login = login_of(t),
    };
    struct delivery_hooks hooks = { t, addresses, read_content, tls_policy, start_tls, login_trouble, tls_trouble };

    if (settings.login)
        settings.login_name = arena_printf(&t->arena, "%.*s %.*s", STR_ARG(job->login_user), STR_ARG(job->login_file));

    t->recipients = recipients;
    t->recipient_count = count;
    t->promise = promise;
    smtp_deliver(s->role->rt, &what, &settings, &hooks, s->connections, &t->arena, outcomes, figures);
}

/* ---- MTA-STS: recipients by their domains' promises ---- */

/* Whose policy counts for a recipient: RFC 8461 section 3.4. */
static struct str
policy_domain(struct task *t, const struct recipient *r)
{
    const struct border_job *job = &t->job;
    const struct delivery_host *smarthost = &job->hosts[0];
    struct str domain = domain_to_ascii(str_from(r->address, str_find_last_byte(r->address, '@') + 1), &t->arena);

    if (job->configured)
        domain = smarthost->fixed.family == ADDRESS_NONE ? smarthost->name : (struct str){ NULL, 0 };
    return !str_is_absent(domain) && domain_is_hostname(domain) ? domain : (struct str){ NULL, 0 };
}

static void
run_ask(void *arg)
{
    struct promise *p = arg;
    struct role *role = p->task->sender->role;

    p->known = str_is_absent(p->domain) ||
               !err_is(ask_policy(role, p->domain, within(role->rt, STS_ANSWER_NS + MINUTE), &p->task->arena, &p->answer));
}

/* They keep to nothing: all of these go together. */
static bool
promises_nothing(const struct promise *p)
{
    return p->known && (!p->answer.found || p->answer.policy.mode == STS_NONE) && p->answer.result == TLS_RESULT_OK;
}

/* Finds or adds. */
static struct promise *
promise_of(struct task *t, struct promise *all, size_t *count, struct str domain)
{
    for (size_t i = 0; i < *count; i++)
        if (str_is_absent(all[i].domain) == str_is_absent(domain) && str_eq_nocase(all[i].domain, domain))
            return &all[i];
    all[*count] = (struct promise){ .task = t, .domain = domain };
    return &all[(*count)++];
}

/* Those whose promise is this one, or for NULL all of those that have none, by themselves. */
static void
deliver_group(struct task *t, struct promise *const *of, const struct promise *promise, struct outcome *outcomes,
              struct delivery_figures *figures, size_t *attempts)
{
    static const struct outcome interrupted = { .kind = OUTCOME_DEFERRED, .about = OUTCOME_ABOUT_MESSAGE, .enhanced = STR("4.3.2"),
                                                .reply = STR("delivery was interrupted: we are shutting down"), .remote = STR("") };
    const struct envelope *e = &t->job.envelope;
    struct recipient *group = arena_alloc(&t->arena, e->recipient_count * sizeof *group);
    struct outcome *ends = arena_alloc(&t->arena, e->recipient_count * sizeof *ends);
    size_t count = 0;

    for (size_t i = 0; i < e->recipient_count; i++)
        if (promise ? of[i] == promise : promises_nothing(of[i]))
            group[count++] = e->recipients[i];
    if (count == 0)
        return;
    if (t->sender->ended) /* who was cancelled has heard it once: the next group would begin anew */
        for (size_t i = 0; i < count; i++)
            ends[i] = interrupted;
    else
        deliver(t, group, count, promise, ends, &figures[*attempts]);
    count = 0;
    for (size_t i = 0; i < e->recipient_count; i++)
        if (promise ? of[i] == promise : promises_nothing(of[i])) {
            outcomes[i] = ends[count++];
            outcomes[i].attempt = (uint8_t)*attempts;
        }
    ++*attempts;
}

/* Domains that share their hosts share a job, and each may have a policy of its own. How many attempts that took. */
static size_t
deliver_by_promise(struct task *t, struct outcome *outcomes, struct delivery_figures *figures)
{
    const struct border_job *job = &t->job;
    const struct envelope *e = &job->envelope;
    struct promise **of = arena_alloc(&t->arena, e->recipient_count * sizeof(struct promise *));
    struct promise *all = arena_alloc(&t->arena, e->recipient_count * sizeof *all);
    struct scope asking;
    size_t count = 0, attempts = 0;

    if (!t->sender->role->site->mta_sts || job->kind != DELIVERY_SMTP || job->host_count == 0) {
        deliver(t, e->recipients, e->recipient_count, NULL, outcomes, figures);
        return 1;
    }
    for (size_t i = 0; i < e->recipient_count; i++)
        of[i] = promise_of(t, all, &count, policy_domain(t, &e->recipients[i]));
    scope_init(&asking, t->sender->role->rt);
    for (size_t i = 1; i < count; i++)
        scope_start(&asking, "policy", run_ask, &all[i]);
    run_ask(&all[0]);
    (void)scope_wait(&asking, FOREVER);
    scope_end(&asking);
    deliver_group(t, of, NULL, outcomes, figures, &attempts);
    for (size_t i = 0; i < count; i++)
        if (!promises_nothing(&all[i]))
            deliver_group(t, of, &all[i], outcomes, figures, &attempts);
    return attempts;
}

static bool
run_delivery(struct task *t, struct take *take)
{
    struct sender *s = t->sender;

    if (!border_take_job(take, &t->arena, &t->job) || t->job.kind == DELIVERY_MAILDIR || t->job.envelope.recipient_count == 0)
        return false;
    const struct border_job job = t->job;
    t->id = job.id;
#ifdef POSTRIDER_PLANTED_CRASH /* for tests only: meson's option planted_crash */
    if (str_starts(job.content, S("X-Planted-Crash:")))
        __builtin_trap();
#endif
    size_t count = job.envelope.recipient_count;
    struct outcome *outcomes = arena_alloc(&t->arena, count * sizeof *outcomes);
    struct delivery_figures *figures = arena_alloc(&t->arena, count * sizeof *figures);
    size_t attempts = deliver_by_promise(t, outcomes, figures);
    size_t size = border_outcomes_size(outcomes, count) + attempts * sizeof *figures;
    struct put p = put_init(arena_alloc(&t->arena, size), size);
    put_u8(&p, (uint8_t)attempts);
    for (size_t i = 0; i < attempts; i++)
        border_put_figures(&p, &figures[i]);
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
    for (uint64_t at = 0; !c->bare && got > 0 && dsn_wants_original(w) && n->len < LINK_MESSAGE_MAX / 2; at += got) {
        TRY(ask_content(t->sender->role, t->store, t->id, at, memory, READ_PIECE, within(t->sender->role->rt, MINUTE), &got));
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
    arena_init(&s->files, rt_mem(role->rt), 4096, 2 * AUTHORITIES_BYTES);
    if (err_is(host_read_file(role->rt, S(SITE_AUTHORITIES), AUTHORITIES_BYTES, &s->files, FOREVER, &s->authorities)))
        s->authorities = S(""); /* which is said when somebody has to be verified */
    s->own_route_trusts =
        arena_alloc(&s->files, (role->site->authorities_count + 1) * sizeof(struct tls_trust *));
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
    if (s->own_trust)
        tls_trust_free(s->own_trust);
    for (size_t i = 0; i < s->role->site->authorities_count; i++)
        if (s->own_route_trusts[i])
            tls_trust_free(s->own_route_trusts[i]);
    arena_done(&s->files);
    crypto_close(s->own_crypto);
}

static void
sandbox(struct role *role, struct sandbox_rules *rules)
{
    /* The store gives a job to senders of the configuration that it goes by. */
    rules->calls = SANDBOX_CONNECT | (site_has_unix_hop(role->site) ? SANDBOX_CONNECT_UNIX : 0u);
    rules->connect.all = true;
}

const struct role_ops sender_ops = {
    .kind = ROLE_SENDER, .prepare = prepare, .sandbox = sandbox, .run = run, .message = message
};
