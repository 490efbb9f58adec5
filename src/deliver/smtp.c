/*
 * smtp - which hosts and addresses, in which order, over which connections: RFC 5321 section 5.1, standards 5.1.
 */
#include "deliver/smtp.h"

#include "base/check.h"
#include "deliver/attempt.h"
#include "message/domain.h"

enum { RESOLVE_S = 60, NOBODY = UINT16_MAX + 1 };

static const struct address *
source_for(const struct attempt *a, const struct address *to)
{
    if (to->family == ADDRESS_IPV4 && a->settings->source_ipv4.family == ADDRESS_IPV4)
        return &a->settings->source_ipv4;
    if (to->family == ADDRESS_IPV6 && a->settings->source_ipv6.family == ADDRESS_IPV6)
        return &a->settings->source_ipv6;
    return NULL;
}

static void
say_goodbye(struct attempt *a, struct client *client)
{
    if (a->connections)
        connections_end(a->connections, client);
    else
        client_quit(client);
}

/* What is said of the host for those who come next; one address that serves makes up for others that do not. */
static void
note_host(struct attempt *a, const struct target *to, bool up)
{
    uint32_t bit = UINT32_C(1) << (to->host - a->job->hosts);

    if (up)
        a->figures->hosts_up |= bit;
    else
        a->figures->hosts_down |= bit;
    a->figures->hosts_down &= ~a->figures->hosts_up;
}

/* ---- TLS ---- */

struct handshake { /* what client_start_tls() needs of us */
    struct attempt *a;
    const struct target *to;
    enum tls_result result;
};

static struct err
start_tls(void *arg, struct wire *wire, int64_t until, struct client_encryption *out, struct text *reason)
{
    struct handshake *h = arg;
    const struct delivery_hooks *hooks = h->a->hooks;

    return hooks->start_tls(hooks->arg, h->to->host->name, h->to->policy, wire, until, out, &h->result, reason);
}

static bool
wants_tls(const struct target *to, enum next how)
{
    if (tls_policy_is_strict(to->policy))
        return true;
    return to->policy->level != TLS_NEVER && how == NEXT_CONNECTION && to->to.family != ADDRESS_UNIX;
}

static void
tell_trouble(struct attempt *a, const struct target *to, enum tls_result result, struct str why, struct str so)
{
    attempt_note_tls(a, to, NULL, result);
    if (a->hooks->tls_trouble)
        a->hooks->tls_trouble(a->hooks->arg, to->host->name, to->policy, result, why, so);
}

/* What a broken connection or a resolver in trouble does not explain. */
static bool
is_lasting(enum tls_result result)
{
    return result == TLS_RESULT_NO_STARTTLS || result == TLS_RESULT_HOST_MISMATCH || result == TLS_RESULT_EXPIRED ||
           result == TLS_RESULT_NOT_TRUSTED;
}

/* What the policy asks for is not to be had at this host: the next one, and if there is none the mail waits. That says
 * nothing of the host to those who ask for less; what belongs to one domain says nothing of its hosts at all. */
static void
go_without(struct attempt *a, const struct target *to, enum tls_result result, bool lasting, struct str why)
{
    bool about_message = to->policy->source == TLS_BY_STS || to->policy->source == TLS_BY_MESSAGE;

    tell_trouble(a, to, result, why, S("not by this host"));
    if (attempt_requires_tls(a) && lasting) {
        attempt_unfit(a, to, to->policy->lasting ? S("4.7.30") : S("4.7.10"),
                      arena_printf(&a->own_scratch, "the message requires TLS, and it was not to be had as it should be: %.*s",
                                   STR_ARG(why)));
        return;
    }
    attempt_trouble(a, to, about_message ? OUTCOME_ABOUT_MESSAGE : OUTCOME_ABOUT_DESTINATION,
                    result == TLS_RESULT_NO_STARTTLS ? S("4.7.10") : S("4.7.5"),
                    arena_printf(&a->own_scratch, "TLS as this host needs it was not to be had (%.*s, by %.*s): %.*s",
                                 STR_ARG(tls_level_name(to->policy->level)), STR_ARG(tls_source_name(to->policy->source)),
                                 STR_ARG(why)));
}

/*
 * Encrypts where the server offers it, and says hello again. False: the client is gone; *out_next says whether another
 * connection is to be used, in clear (RFC 7435: some protection most of the time), or none (a policy that asks for more).
 */
static bool
try_tls(struct attempt *a, const struct target *to, struct client *client, bool at_once, enum next *out_next)
{
    struct handshake handshake = { a, to, TLS_RESULT_OK };
    const struct client_tls tls = { start_tls, &handshake };
    bool strict = tls_policy_is_strict(to->policy);
    char memory[200];
    struct text reason = text_init(memory, sizeof memory);
    struct remote_reply reply = { 0 };
    struct err e;

    if (at_once) {
        e = client_begin_tls(client, &tls, &reason);
    } else if (!client_has(client_features(client), CLIENT_STARTTLS)) {
        if (strict) {
            go_without(a, to, TLS_RESULT_NO_STARTTLS, !client_by_helo(client), S("the host does not offer STARTTLS"));
            say_goodbye(a, client);
            return false;
        }
        if (to->policy->testing)
            tell_trouble(a, to, a->tls_result = TLS_RESULT_NO_STARTTLS, S("the host does not offer STARTTLS"), S("in clear"));
        return true;
    } else {
        e = client_start_tls(client, &tls, &a->own_scratch, &reply, &reason);
        if (!err_is(e) && remote_reply_is_positive(&reply))
            e = client_hello(client, &a->own_scratch, &reply);
    }
    if (!err_is(e) && (at_once || remote_reply_is_positive(&reply))) {
        a->tls_result = (uint8_t)handshake.result;
        if (handshake.result != TLS_RESULT_OK)
            tell_trouble(a, to, handshake.result, text_str(&reason), S("all the same"));
        return true;
    }
    client_close(client);
    if (attempt_is_cancelled(a, e))
        return false;
    *out_next = strict || at_once ? NEXT_HOST : NEXT_CONNECTION_CLEAR; /* TLS at once: that port speaks nothing else */
    if (!err_is(e) && reason.len == 0)
        text_put(&reason, str_slice(reply.text, 0, sizeof memory));
    if (err_is(e) && reason.len == 0)
        err_text(e, &reason);
    if (handshake.result == TLS_RESULT_OK)
        handshake.result = err_is(e) ? TLS_RESULT_VALIDATION_FAILURE : TLS_RESULT_NO_STARTTLS;
    a->tls_result = (uint8_t)handshake.result;
    bool not_now = !err_is(e) && reply.code / 100 == 4; /* it says so itself: 454 to STARTTLS, 421 to the second hello */
    if (*out_next == NEXT_HOST)
        go_without(a, to, handshake.result, !not_now && is_lasting(handshake.result), text_str(&reason));
    else
        tell_trouble(a, to, handshake.result, text_str(&reason), S("once more in clear"));
    return false;
}

/* ---- AUTH ---- */

/*
 * A wrong password is our operator's trouble and not the sender's: whatever the server says, the mail waits. False: the client
 * is gone.
 */
static bool
log_in(struct attempt *a, const struct target *to, struct client *client)
{
    char memory[200];
    struct text reason = text_init(memory, sizeof memory);
    struct str mechanism = { NULL, 0 };
    struct remote_reply reply = { 0 };
    struct err e = OK;

    if (!client_is_encrypted(client))
        text_put(&reason, S("nobody logs in without TLS"));
    else if (a->settings->login->secret.len == 0)
        text_put(&reason, S("there is no password: its file is missing, empty or cannot be read"));
    else
        e = client_login(client, a->settings->login, &a->own_scratch, &reply, &mechanism, &reason);
    if (!err_is(e) && remote_reply_is_positive(&reply))
        return true;
    if (err_is(e))
        client_close(client);
    else
        say_goodbye(a, client);
    if (attempt_is_cancelled(a, e))
        return false;
    if (err_is(e))
        text_put(&reason, attempt_reason(a, "lost the connection at AUTH", e));
    struct str why = reply.code > 0 ? reply.text : text_str(&reason);
    if (a->hooks->login_trouble)
        a->hooks->login_trouble(a->hooks->arg, to->host->name, mechanism, why);
    if (reply.code > 0)
        attempt_trouble_reply(a, to, &reply, OUTCOME_ABOUT_DESTINATION);
    else
        attempt_trouble(a, to, OUTCOME_ABOUT_DESTINATION, S("4.7.0"),
                        arena_printf(&a->own_scratch, "cannot log in: %.*s", STR_ARG(why)));
    return false;
}

static bool
is_own_name(const struct attempt *a, struct str name)
{
    for (size_t i = 0; i < a->settings->own_name_count; i++)
        if (name_eq(a->settings->own_names[i], name))
            return true;
    return false;
}

/* Mail for a host that is no better than ourselves would come back to us: RFC 5321 section 5.1. */
static void
note_ourselves(struct attempt *a, const struct delivery_host *host)
{
    if (host->preference < a->own_preference)
        a->own_preference = host->preference;
}

/*
 * We know our addresses only where listeners name them, and not what leads here from outside: a backup whose MX record has
 * another name of ours would be its own next hop, over and over, until the message had too many Received fields. Another
 * host may bear our name by mistake: so the mail waits, where a name in the MX list is beyond doubt.
 */
static void
meet_ourselves(struct attempt *a, const struct target *to)
{
    a->met_ourselves = true;
    note_ourselves(a, to->host);
    a->only_521 = a->only_absent = a->only_unfit = false;
    if (!a->trouble.set) /* or a better host was tried: what is wrong with that one says more */
        attempt_trouble(a, to, OUTCOME_ABOUT_DESTINATION, S("4.4.6"),
                        S("the host calls itself as we do: mail for this domain would come back to us"));
}

/* NULL: nobody answers at this address, and that is noted. */
static struct client *
connect_to(struct attempt *a, const struct target *to, bool helo_only)
{
    const struct delivery_settings *settings = a->settings;
    struct stream *stream;
    struct err e = stream_connect(a->rt, &to->to, source_for(a, &to->to),
                                  within(a->rt, settings->connect > 0 ? settings->connect : LIMIT_CONNECT_NS), &stream);

    if (err_is(e)) {
        bool ours = e.kind == ERR_NO_FILES || e.kind == ERR_NO_MEMORY || e.kind == ERR_DENIED;
        if (attempt_is_cancelled(a, e))
            return NULL;
        attempt_trouble(a, to, ours ? OUTCOME_ABOUT_MESSAGE : OUTCOME_ABOUT_DESTINATION, S("4.4.1"),
                        attempt_reason(a, "cannot connect", e));
        if (!ours)
            note_host(a, to, false);
        return NULL;
    }
    a->figures->connections++;
    return client_new(stream, &(struct client_settings){
                                  .lmtp = settings->lmtp,
                                  .helo_only = helo_only,
                                  .helo = settings->helo,
                                  .times = settings->times,
                              });
}

/* The server says no; or e: the connection is lost. Takes the client. */
static void
give_up(struct attempt *a, const struct target *to, struct client *client, struct err e, const char *lost,
        const struct remote_reply *reply)
{
    if (!err_is(e)) {
        attempt_trouble_reply(a, to, reply, OUTCOME_ABOUT_DESTINATION);
        note_host(a, to, false);
        say_goodbye(a, client);
        return;
    }
    client_close(client);
    if (!attempt_is_cancelled(a, e)) {
        attempt_trouble(a, to, OUTCOME_ABOUT_DESTINATION, S("4.4.2"), attempt_reason(a, lost, e));
        note_host(a, to, false);
    }
}

/* Connects, and goes through greeting, hello, TLS and AUTH. NULL: *out_next says how to go on. */
static struct client *
open_connection(struct attempt *a, const struct target *to, enum next how, enum next *out_next)
{
    bool helo_only = how == NEXT_CONNECTION_HELO;
    const struct delivery_settings *settings = a->settings;
    struct remote_reply reply;
    int64_t start = rt_now(a->rt);
    struct client *client = connect_to(a, to, helo_only);

    *out_next = NEXT_HOST;
    if (!client)
        return NULL;
    if (settings->smtps && !try_tls(a, to, client, true, out_next))
        return NULL;

    struct err e = client_greeting(client, &a->own_scratch, &reply);
    if (err_is(e) || !remote_reply_is_positive(&reply)) {
        give_up(a, to, client, e, "lost the connection before the greeting", &reply);
        return NULL;
    }
    e = client_hello(client, &a->own_scratch, &reply);
    if (err_is(e) || !remote_reply_is_positive(&reply)) {
        const char *lost = helo_only        ? "lost the connection after HELO"
                           : settings->lmtp ? "lost the connection after LHLO"
                                            : "lost the connection after EHLO";
        if (err_is(e) && !settings->lmtp && !helo_only && !tls_policy_is_strict(to->policy))
            *out_next = NEXT_CONNECTION_HELO; /* some servers hang up at EHLO: one more time, with HELO */
        give_up(a, to, client, e, lost, &reply);
        return NULL;
    }
    if (wants_tls(to, how) && !settings->smtps && !try_tls(a, to, client, false, out_next))
        return NULL;
    if (!a->job->configured && is_own_name(a, client_server_name(client))) {
        meet_ourselves(a, to);
        say_goodbye(a, client);
        return NULL;
    }
    if (settings->login && !log_in(a, to, client))
        return NULL;
    a->figures->connect = rt_now(a->rt) - start;
    note_host(a, to, true);
    return client;
}

/* One address. A connection that is spent after progress is followed by another; after none, the next address comes. */
static void
try_target(struct attempt *a, const struct target *to)
{
    const struct address *source = source_for(a, &to->to);
    char memory[TLS_POLICY_KEY_MAX];
    struct text policy = text_init(memory, sizeof memory);
    tls_policy_put_key(&policy, to->policy);
    CHECK(!policy.full);
    const struct connection_key key = {
        .to = to->to,
        .source = source ? *source : (struct address){ 0 },
        .host = to->host->name,
        .helo = a->settings->helo,
        .lmtp = a->settings->lmtp,
        .smtps = a->settings->smtps,
        .policy = text_str(&policy),
        .login = a->settings->login ? a->settings->login_name : S(""),
        .messages_max = a->settings->messages_per_connection,
    };
    enum next how = NEXT_CONNECTION;

    for (enum next next = NEXT_CONNECTION; next != NEXT_HOST && a->pending > 0 && !a->stop;) {
        struct client *client = NULL;
        size_t pending = a->pending;

        arena_reset(&a->own_scratch);
        if (a->connections && how == NEXT_CONNECTION)
            client = connections_take(a->connections, &key);
        bool reused = client != NULL;
        if (how == NEXT_CONNECTION) /* what follows it in clear has its result: that is told, and not kept for others */
            a->tls_result = TLS_RESULT_OK;
        if (reused) {
            client_set_times(client, &a->settings->times);
            note_host(a, to, true);
        } else {
            client = open_connection(a, to, how, &next);
        }
        if (!client) {
            how = next;
            continue;
        }
        next = attempt_use_connection(a, to, client);
        if (next == NEXT_CONNECTION && a->pending == pending && !reused)
            next = NEXT_HOST;
        /* What waits, or comes next, may need what only EHLO offers; where that was refused it will be refused again. */
        bool asks_anew = client_by_helo(client) && (how == NEXT_CONNECTION_HELO || a->pending > 0);
        if (!client_is_usable(client) || !client_is_quiet(client) || asks_anew)
            say_goodbye(a, client);
        else if (a->connections && a->tls_result == TLS_RESULT_OK)
            connections_put(a->connections, &key, client);
        else
            client_quit(client);
    }
}

static bool
is_own_address(const struct attempt *a, const struct address *to)
{
    for (size_t i = 0; i < a->settings->own_address_count; i++) {
        const struct address *own = &a->settings->own_addresses[i];

        if (address_same_ip(own, to) && (own->port == 0 || own->port == to->port))
            return true;
    }
    return false;
}

static bool
is_allowed_private(const struct attempt *a, const struct address *to)
{
    for (size_t i = 0; i < a->settings->allow_private_count; i++)
        if (prefix_has(&a->settings->allow_private[i], to))
            return true;
    return false;
}

static struct str
target_text(struct attempt *a, struct str name, const struct address *to)
{
    struct text t = text_init(arena_alloc(&a->own_job, REMOTE_BYTES), REMOTE_BYTES);
    bool is_unix = to->family == ADDRESS_UNIX;

    text_put(&t, str_slice(name, 0, LIMIT_DOMAIN));
    text_put(&t, S(" ["));
    if (is_unix)
        address_put(&t, to);
    else
        address_put_ip(&t, to);
    text_put_byte(&t, ']');
    if (!is_unix) {
        text_put_byte(&t, ':');
        text_put_u64(&t, to->port);
    }
    return text_str(&t);
}

struct targets {
    struct target list[LIMIT_MX_HOSTS * LIMIT_MX_ADDRESSES];
    size_t count;
};

static void
targets_add(struct attempt *a, struct targets *targets, const struct delivery_host *host, struct address to,
            const struct tls_policy *policy)
{
    struct target *target = &targets->list[targets->count];

    *target = (struct target){ .host = host, .to = to, .text = target_text(a, host->name, &to), .policy = policy };
    if (a->settings->lmtp && to.family != ADDRESS_UNIX && to.port == 25) {
        attempt_trouble(a, target, OUTCOME_ABOUT_DESTINATION, S("4.3.5"), S("LMTP must not use port 25"));
        return;
    }
    if (!a->job->configured && is_own_address(a, &to)) {
        note_ourselves(a, host);
        return;
    }
    if (!a->job->configured && address_is_forbidden_target(&to) && !is_allowed_private(a, &to)) {
        attempt_trouble(a, target, OUTCOME_ABOUT_DESTINATION, S("4.4.4"), S("no mail goes to such an address"));
        return;
    }
    if (policy->level == TLS_REFUSED && !policy->testing) {
        go_without(a, target, policy->result, policy->lasting, policy->why);
        return;
    }
    targets->count++;
}

/* NULL: this host is not used now, and why is said. */
static const struct tls_policy *
policy_for(struct attempt *a, const struct delivery_host *host, const struct delivery_addresses *addresses)
{
    struct tls_policy *policy = arena_new(&a->own_job, struct tls_policy);
    struct err e = OK;

    if (a->hooks->tls_policy)
        e = a->hooks->tls_policy(a->hooks->arg, host, addresses, within(a->rt, RESOLVE_S * SECOND), &a->own_job, policy);
    if (!err_is(e))
        return policy;
    if (!attempt_is_cancelled(a, e))
        attempt_trouble(a, NULL, OUTCOME_ABOUT_DESTINATION, S("4.4.3"),
                        attempt_reason(a, "cannot look up how the host is to be spoken to", e));
    return NULL;
}

static void
targets_add_fixed(struct attempt *a, struct targets *targets, const struct delivery_host *host)
{
    struct delivery_addresses addresses = { .canonical = host->name, .port = host->fixed.port };
    const struct tls_policy *policy = policy_for(a, host, &addresses);

    if (policy)
        targets_add(a, targets, host, host->fixed, policy);
}

static void
targets_add_resolved(struct attempt *a, struct targets *targets, const struct delivery_host *host)
{
    const struct delivery_settings *settings = a->settings;
    unsigned families = settings->families ? settings->families : HOST_IPV4 | HOST_IPV6;
    struct host_result found = { 0 };

    arena_reset(&a->own_scratch);
    /* Forbidden addresses are ours to judge where some of them are allowed. */
    unsigned any = a->job->configured || settings->allow_private_count > 0 ? HOST_ANY : 0;
    struct err e = a->hooks->addresses(a->hooks->arg, host->name, families | any, within(a->rt, RESOLVE_S * SECOND),
                                       &a->own_scratch, &found);

    if (attempt_is_cancelled(a, e))
        return;
    if (err_is(e)) {
        attempt_trouble(a, NULL, OUTCOME_ABOUT_DESTINATION, S("4.4.3"),
                        attempt_reason(a, "cannot look up the host", e));
        return;
    }
    struct delivery_addresses addresses = { found.secure, found.aliased, found.canonical, settings->port ? settings->port : 25 };
    const struct tls_policy *policy = NULL;
    switch ((enum host_status)found.status) {
    case HOST_OK:
        policy = policy_for(a, host, &addresses);
        for (size_t i = 0; policy && i < found.address_count && i < LIMIT_MX_ADDRESSES; i++) {
            struct address to = found.addresses[i];

            to.port = addresses.port;
            targets_add(a, targets, host, to, policy);
        }
        return;
    case HOST_NO_ADDRESS:
        if (families == (HOST_IPV4 | HOST_IPV6))
            break;
        attempt_trouble(a, NULL, OUTCOME_ABOUT_DESTINATION, S("4.4.4"),
                        arena_printf(&a->own_scratch, "the host %.*s has no address in the family that we use",
                                     STR_ARG(host->name)));
        return;
    case HOST_TEMPORARY:
        attempt_trouble(a, NULL, OUTCOME_ABOUT_DESTINATION, S("4.4.3"),
                        arena_printf(&a->own_scratch, "cannot look up the host %.*s: %.*s", STR_ARG(host->name),
                                     STR_ARG(found.why)));
        return;
    case HOST_NXDOMAIN:
        break;
    }
    attempt_remember(a, (struct outcome){
                            .kind = OUTCOME_DEFERRED,
                            .about = OUTCOME_ABOUT_DESTINATION,
                            .enhanced = S("4.4.4"),
                            .reply = arena_printf(&a->own_scratch, "the host %.*s has no address", STR_ARG(host->name)),
                            .remote = S(""),
                        });
    a->only_521 = a->only_unfit = false;
}

/* All hosts of one preference whose turn it is. */
static void
try_preference(struct attempt *a, const struct delivery_host *const *hosts, size_t count)
{
    struct targets *targets = arena_new(&a->own_job, struct targets);

    for (size_t i = 0; i < count && !a->stop; i++) {
        if (hosts[i]->preference >= a->own_preference)
            continue;
        if (hosts[i]->fixed.family != ADDRESS_NONE)
            targets_add_fixed(a, targets, hosts[i]);
        else
            targets_add_resolved(a, targets, hosts[i]);
    }
    for (size_t i = 0; i < targets->count && a->pending > 0 && !a->stop; i++)
        if (targets->list[i].host->preference < a->own_preference)
            try_target(a, &targets->list[i]);
}

static bool
goes_before(const struct delivery_host *a, const struct delivery_host *b)
{
    return a->turn != b->turn ? a->turn < b->turn : a->preference < b->preference;
}

/* In their turns, those of one by preference, equal ones in random order, every time: RFC 5321 section 5.1. */
static const struct delivery_host **
order_hosts(struct attempt *a)
{
    const struct delivery_job *job = a->job;
    const struct delivery_host **hosts = arena_alloc(&a->own_job, job->host_count * sizeof(struct delivery_host *));
    struct prng prng;

    prng_seed(&prng, rt_random(a->rt));
    for (size_t i = 0; i < job->host_count; i++) {
        size_t at = (size_t)prng_below(&prng, i + 1);

        hosts[i] = hosts[at];
        hosts[at] = &job->hosts[i];
    }
    for (size_t i = 1; i < job->host_count; i++) {
        const struct delivery_host *host = hosts[i];
        size_t at = i;

        for (; at > 0 && goes_before(host, hosts[at - 1]); at--)
            hosts[at] = hosts[at - 1];
        hosts[at] = host;
    }
    return hosts;
}

/* A domain in U-labels behind an ASCII local part goes as A-labels: standards 1.2, SMTPUTF8. */
static struct str
address_for_wire(struct attempt *a, struct str address)
{
    size_t at = str_find_last_byte(address, '@');

    if (str_is_ascii(address) || at == address.len || !str_is_ascii(str_slice(address, 0, at)))
        return address;
    struct str domain = domain_to_ascii(str_from(address, at + 1), &a->own_job);
    return str_is_absent(domain) ? address : arena_join(&a->own_job, str_slice(address, 0, at + 1), domain);
}

static void
prepare_addressees(struct attempt *a)
{
    const struct delivery_job *job = a->job;

    a->addressees = arena_alloc(&a->own_job, job->recipient_count * sizeof *a->addressees);
    a->pending = job->recipient_count;
    for (size_t i = 0; i < job->recipient_count; i++) {
        struct addressee *one = &a->addressees[i];
        struct str reverse_path = job->recipients[i].reverse_path;

        one->recipient = job->recipients[i];
        one->recipient.address = address_for_wire(a, one->recipient.address);
        one->reverse_path =
            address_for_wire(a, str_is_absent(reverse_path) ? job->envelope->reverse_path : reverse_path);
        one->needs_utf8 = !str_is_ascii(one->recipient.address);
        one->pending = true;
        if (!client_can_say(one->recipient.address) || one->recipient.address.len == 0
            || !client_can_say(one->recipient.orcpt))
            attempt_settle(a, i,
                           attempt_outcome(a, NULL, OUTCOME_FAILED, OUTCOME_ABOUT_RECIPIENT, S("5.1.3"),
                                           S("such an address cannot be said in SMTP")));
        else if (!client_can_say(one->reverse_path) || !client_can_say(job->envelope->envid))
            attempt_settle(a, i,
                           attempt_outcome(a, NULL, OUTCOME_FAILED, OUTCOME_ABOUT_MESSAGE, S("5.1.7"),
                                           S("such a sender address cannot be said in SMTP")));
    }
}

static void
settle_all_pending(struct attempt *a, struct outcome outcome)
{
    for (size_t i = 0; i < a->job->recipient_count; i++)
        if (a->addressees[i].pending)
            attempt_settle(a, i, outcome);
}

/* A name of ours counts from the beginning, wherever the host stands; an address only once it is known. */
static void
find_ourselves(struct attempt *a)
{
    a->own_preference = NOBODY;
    for (size_t i = 0; i < a->job->host_count; i++)
        if (!a->job->configured && is_own_name(a, a->job->hosts[i].name))
            note_ourselves(a, &a->job->hosts[i]);
}

static bool
are_best(const struct attempt *a)
{
    for (size_t i = 0; i < a->job->host_count; i++)
        if (a->job->hosts[i].preference < a->own_preference)
            return false;
    return a->job->host_count > 0 && !a->met_ourselves;
}

static void
settle_rest(struct attempt *a)
{
    struct outcome *o = &a->trouble.outcome;

    if (a->pending == 0)
        return;
    if (are_best(a)) {
        settle_all_pending(a, attempt_outcome(a, NULL, OUTCOME_FAILED, OUTCOME_ABOUT_DESTINATION, S("5.4.6"),
                                              S("mail for this domain would come back to us: its MX list names us")));
        return;
    }
    if (!a->trouble.set)
        attempt_trouble(a, NULL, OUTCOME_ABOUT_DESTINATION, S("4.4.4"), S("there is no host to go to"));
    bool all_seen = a->job->host_count < LIMIT_MX_HOSTS; /* else there may be more than the queue has listed */
    /* A name of our own configuration that is not in DNS just now is the operator's trouble, and no sender's. */
    bool only_absent = a->only_absent && !a->job->configured;
    if (all_seen && (a->only_521 || only_absent || a->only_unfit)) {
        o->kind = OUTCOME_FAILED;
        a->trouble.enhanced[0] = '5';
    }
    o->enhanced = arena_keep(a->arena, o->enhanced);
    o->reply = arena_keep(a->arena, o->reply);
    o->remote = arena_keep(a->arena, o->remote);
    settle_all_pending(a, *o);
}

void
smtp_deliver(struct rt *rt, const struct delivery_job *job, const struct delivery_settings *settings,
             const struct delivery_hooks *hooks, struct connections *connections, struct arena *arena,
             struct outcome *out_outcomes, struct delivery_figures *out_figures)
{
    struct attempt *a = mem_new(rt_mem(rt), struct attempt);

    CHECK(job->recipient_count > 0);
    CHECK(job->recipient_count <= LIMIT_RCPT_PER_JOB);
    *a = (struct attempt){
        .rt = rt,
        .job = job,
        .settings = settings,
        .hooks = hooks,
        .connections = connections,
        .arena = arena,
        .outcomes = out_outcomes,
        .figures = out_figures,
        .only_521 = true,
        .only_absent = true,
        .only_unfit = true,
    };
    *out_figures = (struct delivery_figures){ 0 };
    arena_init(&a->own_job, rt_mem(rt), 4096, (size_t)2 << 20);
    arena_init(&a->own_scratch, rt_mem(rt), 4096, (size_t)4 << 20);
    prepare_addressees(a);
    find_ourselves(a);

    const struct delivery_host **hosts = order_hosts(a);
    size_t host_count = job->host_count < LIMIT_MX_HOSTS ? job->host_count : LIMIT_MX_HOSTS;
    for (size_t from = 0, to; from < host_count && a->pending > 0 && !a->stop; from = to) {
        to = from + 1;
        while (to < host_count && !goes_before(hosts[from], hosts[to]))
            to++;
        try_preference(a, hosts + from, to - from);
    }
    settle_rest(a);
    CHECK(a->pending == 0);
    arena_done(&a->own_scratch);
    arena_done(&a->own_job);
    mem_free(rt_mem(rt), a, sizeof *a);
}
