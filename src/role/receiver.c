/*
 * receiver - accepts SMTP sessions and answers the session's questions: admission from the gate, recipients from the
 * directory, reverse names from the checking resolver, drafts from the store. Two pools are this same code: `receiver`
 * for the mx listeners, `submission` for those of users and for the socket that local programs use.
 *
 * It accepts on inherited sockets and opens nothing: no socket(), connect() or open() after the sandbox.
 */
#include "base/check.h"
#include "dns/cache.h"
#include "dns/mx.h"
#include "message/domain.h"
#include "net/proxy.h"
#include "net/signing.h"
#include "net/tls.h"
#include "policy/directory.h"
#include "role/ask.h"
#include "role/border.h"
#include "role/control.h"
#include "role/login.h"
#include "role/role.h"
#include "runtime/log.h"
#include "smtp/input.h"
#include "smtp/server.h"

#include <string.h>

enum {
    LISTENERS_MAX = ROLE_LISTENERS_MAX,
    BUDGET_BYTES = 256 << 20, /* this role's heap: what would go over it gets 452 */
    CONTENT_BYTES = INPUT_BLOCKS + (64 << 10), /* what a message under way takes in the end: its input and its draft */
    NAMES_BYTES = 1 << 20,    /* of clients' names: some thousands */
    STOP_GRACE = 5,           /* seconds that open transactions have when the role is told to stop */
};

#define STORE_WAIT_NS (30 * SECOND) /* for a store that is being restarted: its disk may be slow */
#define KEYS_WAIT_NS (5 * SECOND)   /* for `keys`, since it was last there */
#define GATE_WAIT_NS (5 * SECOND)   /* for what a gate says of limits: without it they do not keep mail out */

struct receiver;

struct door { /* one listening socket */
    struct receiver *r;
    struct listener *listener;
    const struct site_listener *site; /* NULL: the socket of local programs */
    struct tls_server *tls;           /* NULL there too */
};

struct front { /* what a listener shows to its clients */
    const struct site_listener *site;
    struct tls_server *own_tls;
};

struct receiver {
    struct role *role;
    struct door doors[LISTENERS_MAX];
    size_t door_count, sessions, local_sessions, drafts;
    struct scope accepting, talking;
    struct asker checker;
    struct dns checker_dns;    /* behind the cache */
    struct dns_cache *names;   /* of clients: most come again */
    struct list open;          /* sessions */
    struct crypto *own_crypto;
    struct front fronts[LISTENERS_MAX];
    size_t front_count;
    struct signing_asker keys; /* who signs for us */
    uint64_t keys_peer;
    bool keys_told;            /* it has told us what to show */
    int64_t keys_until;        /* so long clients wait for it */
    struct key_signer signer;
};

struct session {
    struct list node;
    struct receiver *r;
    struct door *door;
    struct stream *stream;
    struct server_client client;
    struct listener_settings settings;
    struct fiber *fiber;
    bool admitted;
    struct login login;
    char name[64], proxy[64];
    struct proxy_header *own_header; /* what the proxy said; NULL: none stands in front */
};

static int64_t
sooner(const struct session *s, int64_t ns, int64_t until)
{
    int64_t patience = within(s->r->role->rt, ns);

    return patience < until ? patience : until;
}

/* ---- hooks: who may enter ---- */

/* NULL: yes. `unasked` is the answer while there is no gate, or none that makes sense. */
static const struct reply *
ask_gate(struct session *s, uint16_t type, struct str body, const struct reply *unasked, struct arena *arena,
         int64_t until)
{
    struct str answer;

    if (err_is(role_call(s->r->role, ROLE_GATE, type, body, arena, until, &answer)))
        return unasked;
    struct take t = take_init(answer);
    unsigned code = take_u16(&t);
    struct str enhanced = take_bytes(&t, 16), text = take_bytes(&t, LIMIT_REPLY_LINE);
    if (!take_end(&t) || (code != 0 && (code < 400 || code > 599)))
        return unasked;
    return code == 0 ? NULL : reply_make(arena, code, arena_cstr(arena, enhanced), "%.*s", STR_ARG(text));
}

static const struct reply *
admit(void *ctx, struct server_client *client, struct arena *arena, int64_t until)
{
    struct session *s = ctx;
    unsigned char memory[256];
    struct put p = put_init(memory, sizeof memory);

    if (s->r->sessions > LIMIT_SESSIONS)
        return reply_make(arena, 421, "4.3.2", "Too many sessions here at the moment; try again in a few minutes");
    if (!s->door->site)
        return NULL;
    border_put_address(&p, &client->address);
    put_u32(&p, s->door->site->connections_per_client);
    /* Limits that cannot be asked for do not keep mail out. */
    const struct reply *refusal = ask_gate(s, BORDER_ADMIT, put_str_so_far(&p), NULL, arena, sooner(s, GATE_WAIT_NS, until));
    s->admitted = refusal == NULL;
    return refusal;
}

static void
leave(void *ctx, struct server_client *client)
{
    struct session *s = ctx;
    struct peer *gate = role_peer(s->r->role, ROLE_GATE);
    unsigned char memory[256];
    struct put p = put_init(memory, sizeof memory);

    if (!s->admitted || !gate)
        return;
    border_put_address(&p, &client->address);
    link_post(gate->link, BORDER_LEAVE, put_str_so_far(&p));
}

static struct err
reverse_name(void *ctx, const struct address *address, struct arena *arena, int64_t until, struct str *out_name)
{
    struct session *s = ctx;
    struct dns dns = dns_cache_dns(s->r->names);
    struct iprev iprev;
    struct arena scratch;

    arena_init(&scratch, rt_mem(s->r->role->rt), 4096, IPREV_ARENA_BYTES);
    struct err e = iprev_lookup(&dns, address, until, &scratch, &iprev);
    if (!err_is(e) && iprev.status == IPREV_TEMPORARY)
        e = ERR(ERR_TIMEOUT, "reverse name");
    if (!err_is(e))
        *out_name = iprev.status == IPREV_PASS ? arena_keep(arena, iprev.name) : S("");
    arena_done(&scratch);
    return e;
}

/* ---- hooks: TLS ---- */

/* A client that is offered no STARTTLS sends in clear, and a handshake that nobody signs is a broken connection: of a start of
 * `keys`, the first or another, clients see a pause. False: it has not come. */
static bool
wait_for_keys(struct receiver *r, int64_t until)
{
    struct role *role = r->role;

    while (!r->keys.hold || !r->keys_told)
        if (role->stopping || err_is(event_wait(role->rt, &role->changed, r->keys_until < until ? r->keys_until : until)))
            return false;
    return true;
}

static bool
tls_ready(void *ctx, int64_t until)
{
    const struct session *s = ctx;

    return wait_for_keys(s->r, until) && tls_server_has_certificate(s->door->tls);
}

static void
lose_keys(struct receiver *r)
{
    hold_free(r->keys.hold);
    r->keys.hold = NULL;
    r->keys_told = false;
    r->keys_until = within(r->role->rt, KEYS_WAIT_NS);
}

/* Keys that do not answer in time are asked no more; their link is made anew, and with it this. */
static void
mind_keys(struct receiver *r)
{
    if (!r->keys.hold || hold_is_open(r->keys.hold))
        return;
    lose_keys(r);
    struct peer *keys = role_peer(r->role, ROLE_KEYS);
    if (keys)
        link_close(keys->link, ERR(ERR_TIMEOUT, "wait for a signature"));
}

static struct err
start_tls(void *ctx, struct wire *wire, int64_t until, struct server_tls *out, struct text *reason)
{
    struct session *s = ctx;
    const struct tls *tls;

    (void)wait_for_keys(s->r, until); /* without them the handshake fails, and says so */
    struct err e = tls_accept(s->door->tls, wire, until, &tls, reason);
    mind_keys(s->r);
    TRY(e);
    struct tls_facts facts = tls_facts(tls);
    s->login.tls = tls;
    *out = (struct server_tls){ facts.protocol, facts.cipher, facts.server_name, facts.resumed, facts.client_name };
    return OK;
}

/* ---- hooks: users ---- */

static struct str
mechanisms(void *ctx, const struct server_client *client, struct arena *arena)
{
    return login_mechanisms(&((struct session *)ctx)->login, client, arena);
}

static void
auth_start(void *ctx, const struct server_client *client, struct str mechanism, struct str initial, struct arena *arena,
           int64_t until, struct auth_answer *out)
{
    login_start(&((struct session *)ctx)->login, client, mechanism, initial, arena, until, out);
}

static void
auth_step(void *ctx, const struct server_client *client, struct str response, struct arena *arena, int64_t until,
          struct auth_answer *out)
{
    login_step(&((struct session *)ctx)->login, client, response, arena, until, out);
}

static const struct reply *
author(void *ctx, const struct server_client *client, struct path path, struct arena *arena, int64_t until)
{
    (void)until;
    return login_may_send(&((struct session *)ctx)->login, client, path, arena);
}

/* MAIL. The null sender is everybody's: RFC 6409 section 6.1 is about addresses. */
static const struct reply *
mail(void *ctx, const struct server_client *client, const struct mail_request *request, struct arena *arena, int64_t until)
{
    struct session *s = ctx;

    (void)until;
    login_begin_message(&s->login);
    if (str_is_absent(client->user) || path_is_null(request->reverse_path))
        return NULL;
    const struct reply *refusal = login_check_domain(&s->login, request->reverse_path, arena);
    return refusal ? refusal : login_may_send(&s->login, client, request->reverse_path, arena);
}

/* ---- hooks: drafts ---- */

/* Of a restart of the store clients see a pause, not a refusal. */
static struct err
wait_for_store(const struct session *s, int64_t until)
{
    struct role *role = s->r->role;

    until = sooner(s, STORE_WAIT_NS, until);
    while (!role_peer(role, ROLE_STORE) || !role->space.accepting)
        if (err_is(event_wait(role->rt, &role->changed, until)))
            return ERR(ERR_BUSY, "the store takes no mail at the moment");
    return OK;
}

static struct err
draft_begin(void *ctx, struct message_id id, uint64_t expected_size, int64_t until, void **out_draft)
{
    struct session *s = ctx;
    struct role *role = s->r->role;

    TRY(wait_for_store(s, until));
    if (expected_size > role->space.free_bytes)
        return ERR(ERR_NO_SPACE, "spool");
    *out_draft = ask_draft_new(role, id, expected_size);
    s->r->drafts++;
    return OK;
}

static struct err
draft_put(void *ctx, void *draft, const struct str *parts, size_t count, int64_t until)
{
    (void)ctx;
    return ask_draft_put(draft, parts, count, until);
}

/* An alias or list that led to several is ended at acceptance; on NOTIFY=SUCCESS it owes an "expanded" notice. */
static struct recipient_status *
statuses_of(const struct envelope *e, struct arena *arena)
{
    struct recipient_status *statuses = NULL;

    for (size_t i = 0; i < e->recipient_count; i++) {
        if (e->recipients[i].origin != RECIPIENT_EXPANDED)
            continue;
        if (!statuses)
            statuses = arena_alloc(arena, e->recipient_count * sizeof *statuses);
        statuses[i].state = STATE_EXPANDED;
        if (e->recipients[i].notify & NOTIFY_SUCCESS && e->reverse_path.len)
            statuses[i].notices = NOTICE_SUCCESS_OWED;
    }
    return statuses;
}

static struct err
draft_commit(void *ctx, void *draft, const struct envelope *envelope, int64_t until)
{
    struct session *s = ctx;
    struct arena scratch;

    arena_init(&scratch, rt_mem(s->r->role->rt), 1024, 64 << 20);
    struct recipient_status *statuses = statuses_of(envelope, &scratch);
    struct err e = ask_draft_commit(draft, envelope, statuses, until);
    s->r->drafts--;
    arena_done(&scratch);
    return e;
}

static void
draft_abort(void *ctx, void *draft)
{
    struct session *s = ctx;

    s->r->drafts--;
    ask_draft_abort(draft);
}

/* Ten thousand clients that are welcome at DATA one by one could all go on at once. */
static bool
over_budget(void *ctx)
{
    struct session *s = ctx;

    return mem_in_use(rt_mem(s->r->role->rt)) + crypto_memory() + s->r->drafts * CONTENT_BYTES > BUDGET_BYTES;
}

static bool
draining(void *ctx)
{
    struct session *s = ctx;

    return s->r->role->stopping;
}

/* ---- hooks: who is here ---- */

/* What the directory's answer is for the client. NULL: plain yes. */
static const struct reply *
reply_of(const struct directory_verdict *v, struct str asked, struct arena *arena)
{
    switch (v->answer) {
    case DIRECTORY_FORWARD:
        return reply_make(arena, 251, "2.1.5", "User not local; will forward to <%.*s>", STR_ARG(v->elsewhere));
    case DIRECTORY_UNKNOWN:
        return reply_make(arena, 550, "5.1.1", "<%.*s>: no such mailbox here; check the spelling", STR_ARG(asked));
    case DIRECTORY_MOVED:
        return reply_make(arena, 551, "5.1.6", "User not local; please try <%.*s>", STR_ARG(v->elsewhere));
    case DIRECTORY_NOT_RELAYED:
        return reply_make(arena, 550, "5.7.1", "<%.*s>: we do not relay to that domain; send through your own mail server",
                          STR_ARG(asked));
    case DIRECTORY_UNQUALIFIED:
        return reply_make(arena, 553, "5.1.3", "<%.*s>: the address needs a domain, as in user@example.org",
                          STR_ARG(asked));
    case DIRECTORY_LOOP:
        return reply_make(arena, 550, "5.4.6", "<%.*s>: this alias leads only to itself; tell our postmaster",
                          STR_ARG(asked));
    case DIRECTORY_TOO_MANY:
        return reply_make(arena, 452, "4.5.3", "<%.*s>: that list is too long for one message; send it alone",
                          STR_ARG(asked));
    case DIRECTORY_AMBIGUOUS:
        return reply_make(arena, 553, "5.1.4", "%.*s: ambiguous; say it with its domain", STR_ARG(asked));
    default:
        return NULL;
    }
}

/* The client's address was measured, but ours for it may have a longer domain, and what an alias leads to is the operator's. */
static bool
are_paths(const struct recipient *recipients, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (recipients[i].address.len > LIMIT_PATH || recipients[i].reverse_path.len > LIMIT_PATH)
            return false;
    return true;
}

static void
rcpt(void *ctx, const struct server_client *client, const struct rcpt_request *request, struct arena *arena, int64_t until,
     struct rcpt_verdict *out)
{
    struct session *s = ctx;
    bool user = !str_is_absent(client->user);
    struct directory_query query = { request->forward_path, s->settings.trusted || user, &client->local };
    struct directory_verdict v;

    if (user && (out->reply = login_check_domain(&s->login, request->forward_path, arena)) != NULL)
        return;
    directory_lookup(s->r->role->site->directory, &query, arena, &v);
    *out = (struct rcpt_verdict){ reply_of(&v, request->address, arena), v.recipients, v.count };
    if (v.answer < DIRECTORY_REFUSED && !are_paths(v.recipients, v.count)) {
        out->reply = &reply_recipient_too_long;
        return;
    }
    if (v.answer == DIRECTORY_VERIFY) {
        unsigned char memory[4 + LIMIT_PATH + 1];
        struct put p = put_init(memory, sizeof memory);
        put_bytes(&p, v.recipients[0].address);
        put_u8(&p, request->mail->require_tls);
        CHECK(!p.full);
        out->reply = ask_gate(s, BORDER_VERIFY, put_str_so_far(&p), &reply_cannot_verify, arena, until);
    }
    const struct reply *spent = user && (!out->reply || reply_is_positive(out->reply))
                                    ? login_spend(&s->login, client, arena, sooner(s, GATE_WAIT_NS, until)) : NULL;
    if (spent)
        out->reply = spent;
}

static const struct reply *
vrfy(void *ctx, const struct server_client *client, struct str what, struct arena *arena, int64_t until)
{
    struct session *s = ctx;
    struct directory_verdict v;

    (void)client;
    (void)until;
    directory_vrfy(s->r->role->site->directory, what, arena, &v);
    const struct reply *reply = reply_of(&v, what, arena);
    if (reply)
        return reply;
    if (v.count == 0)
        return reply_make(arena, 252, "2.0.0", "%.*s: not checked, but we take mail for it", STR_ARG(what));
    return reply_make(arena, 250, "2.1.5", "<%.*s>", STR_ARG(v.recipients[0].address));
}

static const struct reply *
expn(void *ctx, const struct server_client *client, struct str what, struct arena *arena, int64_t until)
{
    struct session *s = ctx;
    struct directory_verdict v;

    (void)client;
    (void)until;
    directory_expn(s->r->role->site->directory, what, arena, &v);
    const struct reply *reply = reply_of(&v, what, arena);
    if (reply)
        return reply;
    if (v.count == 0)
        return reply_make(arena, 252, "2.0.0", "%.*s: who that is we do not know, but we take mail for it",
                          STR_ARG(what));
    size_t size = 1;
    for (size_t i = 0; i < v.count; i++)
        size += v.recipients[i].address.len + 3;
    struct text text = text_init(arena_alloc(arena, size), size);
    for (size_t i = 0; i < v.count; i++) {
        text_put(&text, i ? S("\n<") : S("<"));
        text_put(&text, v.recipients[i].address);
        text_put(&text, S(">"));
    }
    return reply_make(arena, 250, "2.1.5", "%.*s", STR_ARG(text_str(&text)));
}

static const struct reply *
etrn(void *ctx, const struct server_client *client, struct str node, struct arena *arena, int64_t until)
{
    struct session *s = ctx;
    unsigned char memory[LIMIT_DOMAIN + 16];
    struct put p = put_init(memory, sizeof memory);
    struct str domain = node, answer;

    (void)client;
    (void)until;
    if (!str_take_byte(&domain, '@'))
        str_take_byte(&domain, '#');
    domain = domain_to_ascii(domain_without_dot(domain), arena); /* as the queue has it */
    if (str_is_absent(domain))
        domain = S("");
    put_bytes(&p, domain);
    uint8_t kind = directory_route(s->r->role->site->directory, domain)->kind;
    if (p.full || (kind != DIRECTORY_ROUTE_VIA && kind != DIRECTORY_ROUTE_MX && kind != DIRECTORY_ROUTE_LMTP))
        return reply_make(arena, 459, "4.7.1", "%.*s: we keep no queue for that domain", STR_ARG(node));
    if (err_is(role_call(s->r->role, ROLE_STORE, BORDER_ETRN, put_str_so_far(&p), arena, until, &answer)))
        return reply_make(arena, 458, "4.3.0", "Unable to start the queue for %.*s now; try again later", STR_ARG(node));
    return reply_make(arena, 250, "2.0.0", "Queue for %.*s started", STR_ARG(domain));
}

/* ---- hooks: logs ---- */

static void
put_proxy(struct log_line *line, const struct session *s)
{
    const struct proxy_header *h = s->own_header;

    if (s->proxy[0])
        log_str(line, "proxy", str_from_cstr(s->proxy));
    if (!h)
        return;
    if (h->tls_len)
        log_str(line, "proxy-tls", str_new(h->tls, h->tls_len));
    if (h->server_name_len)
        log_str(line, "proxy-tls-name", str_new(h->server_name, h->server_name_len));
}

static void
put_client(struct log_line *line, const struct session *s, const struct server_client *client)
{
    log_str(line, "session", client->session);
    log_str(line, "client", client->name);
    if (client->reverse_name.len)
        log_str(line, "name", client->reverse_name);
    if (!str_is_absent(client->helo))
        log_str(line, "helo", client->helo);
    put_proxy(line, s);
    if (!str_is_absent(client->user))
        log_str(line, "user", client->user);
    if (str_is_absent(client->tls.protocol))
        return;
    log_str(line, "tls", client->tls.protocol);
    log_str(line, "cipher", client->tls.cipher);
    if (client->tls.resumed)
        log_str(line, "tls-resumed", S("yes"));
    if (!str_is_absent(client->tls.server_name))
        log_str(line, "tls-name", client->tls.server_name);
    if (!str_is_absent(client->tls.client_name))
        log_str(line, "tls-client", client->tls.client_name);
}

static void
log_message(void *ctx, const struct server_client *client, const struct server_message *m)
{
    struct session *s = ctx;
    struct log_line line;
    char id[MESSAGE_ID_TEXT];

    log_begin(&line, s->r->role->rt, LOG_INFO, "accepted");
    log_str(&line, "id", message_id_text(m->id, id));
    put_client(&line, s, client);
    log_str(&line, "from", m->envelope->reverse_path);
    log_int(&line, "bytes", (int64_t)m->envelope->size);
    log_int(&line, "recipients", (int64_t)m->envelope->recipient_count);
    if (m->envelope->recipient_count == 1)
        log_str(&line, "to", m->envelope->recipients[0].address);
    if (m->repaired)
        log_int(&line, "line-ends-repaired", (int64_t)m->repaired);
    log_seconds(&line, "took", m->took);
    log_end(&line);
}

static void
log_refusal(void *ctx, const struct server_client *client, struct str reverse_path, struct str command,
            const struct reply *r)
{
    struct session *s = ctx;
    struct log_line line;
    char memory[LIMIT_REPLY_LINE];
    struct text words = text_init(memory, sizeof memory);

    text_putf(&words, "%u %.*s %.*s", r->code, STR_ARG(r->enhanced), STR_ARG(r->text));
    log_begin(&line, s->r->role->rt, LOG_INFO, "refused");
    put_client(&line, s, client);
    if (!str_is_absent(reverse_path))
        log_str(&line, "from", reverse_path);
    log_str(&line, "refusal", text_str(&words));
    log_str(&line, "to-command", command);
    log_end(&line);
}

static void
log_session(void *ctx, const struct server_client *client, const struct server_report *report)
{
    struct session *s = ctx;
    struct log_line line;

    log_begin(&line, s->r->role->rt, LOG_INFO, "session");
    put_client(&line, s, client);
    log_str(&line, "listener", s->door->site ? s->door->site->name : S("local"));
    log_int(&line, "messages", report->messages);
    log_int(&line, "recipients", report->recipients);
    log_int(&line, "refused", report->refused);
    log_int(&line, "commands", report->commands);
    log_int(&line, "wrong", report->wrong);
    log_int(&line, "bytes-in", (int64_t)report->bytes_in);
    log_str(&line, "ended", report->ended);
    if (!str_is_absent(report->tls_failure))
        log_str(&line, "tls-failure", report->tls_failure);
    if (!str_is_absent(report->last_refusal)) {
        log_str(&line, "refusal", report->last_refusal);
        log_str(&line, "to-command", report->last_refused);
    }
    log_seconds(&line, "took", report->took);
    log_end(&line);
}

/* ---- one session ---- */

/* Local programs: trusted, and known by their user id. */
static struct listener_settings
local_settings(const struct site *site)
{
    struct listener_settings settings = listener_settings_default(site->hostname);

    settings.trusted = true;
    settings.line_ends = LINE_ENDS_REPAIR;
    settings.complete = true;
    return settings;
}

static void
name_client(struct session *s)
{
    struct text name = text_init(s->name, sizeof s->name);
    struct peer_credentials who;

    if (!s->door->site && stream_peer_credentials(s->stream, &who))
        text_putf(&name, "local:%u", who.uid);
    else
        address_put_ip(&name, &s->client.address);
    s->client.name = text_str(&name);
}

/* ---- a proxy in front ---- */

static void
log_proxy_refused(struct session *s, struct str why)
{
    struct log_line line;

    log_begin(&line, s->r->role->rt, LOG_INFO, "proxy-refused");
    log_str(&line, "client", s->client.name);
    log_str(&line, "listener", s->door->site->name);
    log_str(&line, "reason", why);
    log_end(&line);
}

/* Whom the proxy passes on takes its place. False: this session is none, and nobody is answered: it was not SMTP that
 * was spoken, or not by a proxy of ours. */
static bool
read_header(struct session *s)
{
    struct rt *rt = s->r->role->rt;
    char memory[80];
    struct text failure = text_init(memory, sizeof memory), proxy = text_init(s->proxy, sizeof s->proxy - 1);
    struct str why = S("this listener is for proxies alone, and this is none of them");

    if (!setting_prefixes_have(&s->door->site->proxy_from, &s->client.address)) {
        log_proxy_refused(s, why);
        return false;
    }
    text_put(&proxy, s->client.name);
    s->own_header = mem_new(rt_mem(rt), struct proxy_header);
    struct err e = proxy_read(s->stream, within(rt, LIMIT_PROXY_NS), s->own_header, &why);
    if (err_is(e)) {
        err_text(e, &failure);
        log_proxy_refused(s, e.kind == ERR_PROTOCOL ? why : text_str(&failure));
        return false;
    }
    if (s->own_header->told) {
        s->client.address = s->own_header->client;
        s->client.local = s->own_header->local;
        name_client(s);
    }
    return true;
}

/* Who is connected stays the proxy, and what XCLIENT says about later clients too. */
static void
told(void *ctx, struct server_client *client, bool known)
{
    struct session *s = ctx;
    struct text proxy = text_init(s->proxy, sizeof s->proxy - 1);

    if (!s->proxy[0])
        text_put(&proxy, client->name);
    s->login.sender_count = 0; /* what was granted to the client before */
    name_client(s);
    s->settings = site_listener_settings(s->door->site, known ? &client->address : NULL);
    s->settings.xclient = true;
}

static void
run_session(void *arg)
{
    static const struct server_hooks hooks = {
        .admit = admit, .leave = leave, .told = told, .reverse_name = reverse_name, .tls_ready = tls_ready, .start_tls = start_tls,
        .mechanisms = mechanisms, .auth_start = auth_start, .auth_step = auth_step, .mail = mail, .author = author,
        .rcpt = rcpt, .vrfy = vrfy, .expn = expn, .etrn = etrn, .draft_begin = draft_begin, .draft_put = draft_put, .draft_commit = draft_commit,
        .draft_abort = draft_abort, .over_budget = over_budget, .draining = draining, .log_message = log_message,
        .log_refusal = log_refusal, .log_session = log_session,
    };
    struct session *s = arg;
    struct receiver *r = s->r;
    struct server_hooks mine = hooks;

    mine.ctx = s;
    if (!s->door->site) /* nobody is between us and the programs of this machine */
        mine.tls_ready = NULL;
    s->fiber = fiber_current(r->role->rt);
    name_client(s);
    bool proxied = s->door->site && s->door->site->proxy_from.count > 0;
    login_init(&s->login, r->role);
    struct wire wire = wire_in_clear(s->stream);
    if (!proxied || read_header(s)) {
        bool known = !proxied || s->own_header->told;
        s->settings = s->door->site ? site_listener_settings(s->door->site, known ? &s->client.address : NULL)
                                    : local_settings(r->role->site);
        server_run(&wire, &s->settings, &mine, &s->client);
    }
    wire_close(&wire);
    mem_free(rt_mem(r->role->rt), s->own_header, sizeof *s->own_header);
    login_done(&s->login);
    list_remove(&s->node);
    r->local_sessions -= !s->door->site;
    if (--r->sessions == 0)
        event_wake(r->role->rt, &r->role->changed); /* it may be what a drain waits for */
    mem_free(rt_mem(r->role->rt), s, sizeof *s);
}

/* ---- accepting ---- */

static void
start_session(struct door *door, struct stream *stream, const struct address *peer)
{
    struct receiver *r = door->r;
    struct session *s;
    bool local = !door->site;

    /* An old kernel bounds how many stacks there can be; and programs of this machine share this role's sessions with users. */
    if (!fiber_room(r->role->rt) || (local && r->local_sessions >= LIMIT_SESSIONS_LOCAL)) {
        size_t written;
        stream_write_now(stream, S("421 4.3.2 Too many sessions here at the moment; try again in a few minutes\r\n"), &written);
        stream_close(stream);
        return;
    }
    s = mem_new(rt_mem(r->role->rt), struct session);
    s->r = r;
    s->door = door;
    s->stream = stream;
    s->client.address = address_unmap(*peer);
    s->client.local = address_unmap(stream_local(stream));
    list_push_back(&r->open, &s->node);
    r->sessions++;
    r->local_sessions += local;
    scope_start(&r->talking, "session", run_session, s);
}

static void
run_door(void *arg)
{
    struct door *door = arg;
    struct rt *rt = door->r->role->rt;
    struct stream *stream;
    struct address peer;

    for (;;) {
        struct err e = listener_accept(door->listener, FOREVER, &stream, &peer);
        if (e.kind == ERR_CANCELLED)
            break;
        if (!err_is(e)) {
            start_session(door, stream, &peer);
            continue;
        }
        struct log_line line;
        log_begin(&line, rt, LOG_WARNING, "cannot-accept");
        log_err(&line, e);
        log_end(&line);
        /* Out of descriptors or memory: what is open must end first; the kernel keeps the newcomers meanwhile. */
        if (err_is(rt_sleep(rt, within(rt, 100 * MILLISECOND))))
            break;
    }
    listener_close(door->listener);
}

static const struct front *
front_named(const struct receiver *r, struct str name)
{
    for (size_t i = 0; i < r->front_count; i++)
        if (str_eq(r->fronts[i].site->name, name))
            return &r->fronts[i];
    return NULL;
}

static struct err
open_door(struct receiver *r, struct role_listener *l)
{
    struct door *door = &r->doors[r->door_count];
    bool local = l->address.family == ADDRESS_UNIX;

    door->r = r;
    if (!local) {
        const struct front *front = front_named(r, l->name);
        if (!front)
            return ERR(ERR_NOT_FOUND, "find a listener's settings");
        door->site = front->site;
        door->tls = front->own_tls;
    }
    struct handle handle = l->handle;
    l->handle = HANDLE_NONE;
    TRY(listener_from_handle(r->role->rt, handle, &door->listener));
    r->door_count++;
    scope_start(&r->accepting, "accept", run_door, door);
    return OK;
}

/* Without one of its listeners a receiver would be there and deaf: it ends, to be started again. */
static bool
open_doors(struct receiver *r)
{
    for (size_t i = 0; i < r->role->listener_count; i++) {
        struct err e = open_door(r, &r->role->listeners[i]);
        if (!err_is(e))
            continue;
        struct log_line line;
        log_begin(&line, r->role->rt, LOG_ERROR, "cannot-listen");
        log_err(&line, e);
        log_end(&line);
        return false;
    }
    return true;
}

enum { SHOWN_MAX = SITE_CERTIFICATES_MAX + LISTENERS_MAX };
struct shown { /* certificates, and which listener each is for; empty: all that have none of their own */
    struct str listeners[SHOWN_MAX], pems[SHOWN_MAX];
    size_t count;
};

/* `keys` has looked at each certificate. One that we cannot show all the same is left out, not the others with it. */
static void
front_show(struct rt *rt, struct front *front, const struct shown *all)
{
    struct str pems[SHOWN_MAX], listener = front->site->own_certificates ? front->site->name : S("");
    size_t count = 0, bad;
    struct err e;

    for (size_t i = 0; i < all->count; i++)
        if (str_eq(all->listeners[i], listener))
            pems[count++] = all->pems[i];
    while (err_is(e = tls_server_set_certificates(front->own_tls, pems, count, &bad))) {
        struct log_line line;
        log_begin(&line, rt, LOG_ERROR, "certificate-left-out");
        log_str(&line, "listener", front->site->name);
        log_err(&line, e);
        log_end(&line);
        memmove(&pems[bad], &pems[bad + 1], (--count - bad) * sizeof *pems);
    }
}

static bool
take_certificates(struct receiver *r, const struct peer *keys, struct link_message *m)
{
    struct take t = take_init(m->body);
    struct shown all = { .count = take_u16(&t) };

    if (m->call != 0 || all.count > SHOWN_MAX)
        return false;
    for (size_t i = 0; i < all.count; i++) {
        all.listeners[i] = take_bytes(&t, LIMIT_LISTENER_NAME);
        all.pems[i] = take_bytes(&t, KEY_FILE_MAX);
    }
    if (!take_end(&t))
        return false;
    for (size_t i = 0; i < r->front_count; i++)
        front_show(r->role->rt, &r->fronts[i], &all);
    r->keys_told |= keys->serial == r->keys_peer;
    event_wake(r->role->rt, &r->role->changed);
    return true;
}

static bool
take_tickets(struct receiver *r, struct link_message *m)
{
    struct take t = take_init(m->body);
    struct tls_ticket_key keys[TLS_TICKET_KEYS];
    size_t count = take_u8(&t);

    if (m->call != 0 || count > TLS_TICKET_KEYS)
        return false;
    for (size_t i = 0; i < count && !t.bad; i++) {
        struct str bytes = take_raw(&t, sizeof keys[i]);
        if (!t.bad)
            memcpy(&keys[i], bytes.ptr, sizeof keys[i]);
    }
    if (!take_end(&t))
        return false;
    for (size_t i = 0; i < r->front_count; i++)
        tls_server_set_tickets(r->fronts[i].own_tls, keys, count);
    explicit_bzero(keys, sizeof keys);
    return true;
}

static void
peer_up(struct role *role, struct peer *peer)
{
    struct receiver *r = role->ctx;
    struct hold *hold;

    if (!r || peer->kind != ROLE_KEYS || handle_is_none(peer->second))
        return;
    struct err e = hold_open(role->rt, peer->second, &hold);
    peer->second = HANDLE_NONE;
    if (err_is(e))
        return;
    if (r->keys.hold)
        lose_keys(r);
    r->keys.hold = hold;
    r->keys_peer = peer->serial;
}

static void
peer_down(struct role *role, struct peer *peer)
{
    struct receiver *r = role->ctx;

    if (r && r->keys.hold && peer->serial == r->keys_peer)
        lose_keys(r);
}

static bool
message(struct role *role, struct peer *peer, struct link_message *m)
{
    struct take t = take_init(m->body);

    if (peer->kind == ROLE_KEYS && !role->ctx) /* no session is left */
        return true;
    if (peer->kind == ROLE_KEYS)
        return m->type == BORDER_CERTIFICATES ? take_certificates(role->ctx, peer, m)
               : m->type == BORDER_TICKETS    ? take_tickets(role->ctx, m)
                                              : false;
    if (peer->kind != ROLE_STORE || m->type != BORDER_SPACE || m->call != 0)
        return false;
    struct role_space space = { .accepting = take_bool(&t) };

    space.free_bytes = take_u64(&t);
    if (!take_end(&t))
        return false;
    role->space = space;
    event_wake(role->rt, &role->changed);
    return true;
}

/* Told to stop: no new sessions; those with a transaction open may end it, the others hear 421 now. */
static void
end_sessions(struct receiver *r)
{
    struct rt *rt = r->role->rt;

    list_each (node, &r->open) {
        struct session *s = container_of(node, struct session, node);
        if (!s->client.busy && s->fiber)
            fiber_cancel(s->fiber);
    }
    scope_wait(&r->talking, within(rt, STOP_GRACE * SECOND));
    scope_end(&r->talking);
}

/* One that cannot ask clients as it should has no authority who vouches for any: nobody gets in by that. */
static void
ask_clients(struct receiver *r, const struct front *front)
{
    const struct site_listener *site = front->site;
    struct log_line line;

    if (site->ask_clients == TLS_ASK_NOT)
        return;
    struct err e = tls_server_ask_clients(front->own_tls, site->ask_clients, site->authorities);
    if (!err_is(e))
        return;
    log_begin(&line, r->role->rt, LOG_ERROR, "client-certificates-unusable");
    log_str(&line, "listener", site->name);
    log_str(&line, "file", site->authorities_path.text);
    log_err(&line, e);
    log_end(&line);
}

static void
add_fronts(struct receiver *r)
{
    const struct site *site = r->role->site;
    char memory[LIMIT_LISTENER_NAME + 32];

    for (size_t i = 0; i < site->listener_count; i++) {
        const struct site_listener *l = &site->listeners[i];
        struct text name = text_init(memory, sizeof memory);
        if (role_of_listener(l->kind) != r->role->kind)
            continue;
        CHECK(r->front_count < LISTENERS_MAX); /* each has an address, and there are no more of these */
        struct front *front = &r->fronts[r->front_count++];
        text_putf(&name, "%.*s %.*s", STR_ARG(role_kind_name(r->role->kind)), STR_ARG(l->name));
        *front = (struct front){ l, tls_server_new(r->own_crypto, text_str(&name), &r->signer) };
        if (l->settings.login)
            tls_server_forget(front->own_tls);
        ask_clients(r, front);
    }
}

/* OpenSSL reads what it wants of this machine before the sandbox. */
static void
prepare(struct role *role)
{
    struct receiver *r = mem_new(rt_mem(role->rt), struct receiver);

    r->role = role;
    role->ctx = r;
    r->signer = (struct key_signer){ signing_ask, &r->keys };
    struct err e = crypto_open(role->rt, &r->own_crypto);
    CHECK(!err_is(e)); /* only where OpenSSL is broken, and then so is what it would keep safe */
    add_fronts(r);
}

static void
run(struct role *role)
{
    struct receiver *r = role->ctx;

    r->checker = (struct asker){ role, ROLE_CHECKER };
    r->checker_dns = ask_dns(&r->checker);
    r->names = dns_cache_new(role->rt, &r->checker_dns, NAMES_BYTES);
    list_init(&r->open);
    scope_init(&r->accepting, role->rt);
    scope_init(&r->talking, role->rt);
    r->keys_until = within(role->rt, KEYS_WAIT_NS);
    if (open_doors(r))
        role_wait_for_end(role);
    scope_end(&r->accepting);
    link_post(role->control, CONTROL_CLOSED, S(""));
    /* A drain lets every session go on; only a stop, or the supervisor's deadline, ends them. */
    while (r->sessions > 0 && !role->stopping)
        if (event_wait(role->rt, &role->changed, FOREVER).kind == ERR_CANCELLED)
            break;
    end_sessions(r);
    if (r->keys.hold)
        hold_free(r->keys.hold);
    for (size_t i = 0; i < r->front_count; i++)
        tls_server_free(r->fronts[i].own_tls);
    dns_cache_free(r->names);
    crypto_close(r->own_crypto);
    role->ctx = NULL; /* links outlive this */
    mem_free(rt_mem(role->rt), r, sizeof *r);
}

static void
sandbox(struct role *role, struct sandbox_rules *rules)
{
    (void)role;
    rules->calls = SANDBOX_ACCEPT;
}

const struct role_ops receiver_ops = {
    .kind = ROLE_RECEIVER, .prepare = prepare, .sandbox = sandbox, .run = run, .message = message, .peer_up = peer_up,
    .peer_down = peer_down,
};
const struct role_ops submission_ops = {
    .kind = ROLE_SUBMISSION, .prepare = prepare, .sandbox = sandbox, .run = run, .message = message, .peer_up = peer_up,
    .peer_down = peer_down,
};
