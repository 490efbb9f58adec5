/*
 * tls - "postrider tls DOMAIN": what we would do for mail to a destination, and why. It asks the DNS by itself, by the
 * configuration's resolvers and trust anchor, decides as a sender does, and then connects to each host to see what is there:
 * EHLO, STARTTLS, QUIT. No mail is sent, and the server need not run.
 */
#include "base/check.h"
#include "base/json.h"
#include "cli/cli.h"
#include "dns/mx.h"
#include "dns/resolver.h"
#include "message/date.h"
#include "message/domain.h"
#include "message/utf8.h"
#include "net/tls.h"
#include "policy/sts_policies.h"
#include "role/load.h"
#include "role/tls_rule.h"
#include "runtime/host.h"
#include "runtime/log.h"
#include "smtp/client.h"

#include <stddef.h>

enum {
    FILE_MAX = 4 << 20,
    /* Of a host: addresses, TLSA records, names and issuer of its certificate, and why; in JSON a byte may become six. */
    HOST_MAX = 2 * DNS_RECORDS_MAX * 50 + DNS_RECORDS_MAX * 160 + 6 * (TLS_CERTIFICATE_NAMES + TLS_COMMON_NAME + LIMIT_REPLY_TEXT) + 8192,
    REPORT_MAX = LIMIT_MX_HOSTS * HOST_MAX + STS_BODY_MAX + 8192,
    LOOKUP_S = 60,
    CONNECT_S = 15,
    REPLY_S = 30,
};

struct settings {
    struct str config; /* absent: the usual one, if it is there */
    bool json, no_connect;
};

static const struct option options[] = {
    { "--config", "FILE", OPTION_WORD, offsetof(struct settings, config), "instead of " CLI_CONFIG },
    { "--no-connect", NULL, OPTION_FLAG, offsetof(struct settings, no_connect), "to no mail host: only what the DNS and the MTA-STS policy say" },
    { "--json", NULL, OPTION_FLAG, offsetof(struct settings, json), "the same for programs" },
    { 0 },
};

struct seen { /* a host, and what was found of it */
    struct str name;
    uint16_t preference, port;
    struct host_result addresses;
    struct tls_policy policy;
    bool decided, lowered;   /* lowered: by insecure-override */
    struct address address;  /* that was connected to; ADDRESS_NONE: none */
    bool offers, encrypted, verified, goes;
    uint8_t result;          /* enum tls_result */
    struct tls_facts facts;
    struct tls_certificate certificate;
    struct key_certificate key;
    struct str why;          /* what went wrong, or why mail would not go */
};

struct look {
    struct rt *rt;
    struct settings set;
    struct arena arena;
    struct loaded site;      /* zeroed: there is no configuration to be read */
    struct str hostname;
    struct resolver *resolver;
    struct dns dns;
    struct crypto *crypto;
    struct tls_client *client;
    struct tls_trust *trust;
    const struct route *route;
    bool direct;             /* by MX records */
    struct str domain;
    struct mx_result mx;
    struct str promise_domain;   /* whose MTA-STS policy counts; absent: nobody's */
    bool promise_known, promise_kept; /* kept: not to be fetched now, and taken from what the server keeps */
    struct sts_answer promise;
    struct seen *hosts;
    size_t host_count;
};

/* ---- what there is to begin with --------------------------------------------------------------------------------- */

static struct str
read_or_empty(struct look *l, struct str path)
{
    struct str text;

    return err_is(host_read_file(l->rt, path, FILE_MAX, &l->arena, within(l->rt, 10 * SECOND), &text)) ? S("") : text;
}

static int
prepare(struct look *l)
{
    static const struct route fallback = { .kind = ROUTE_MX, .port = 25, .host = STR(""), .path = STR(""), .tls_ca = STR("") };
    struct text problems = text_init(arena_alloc(&l->arena, 64 << 10), 64 << 10);
    struct host_file file;
    struct resolver_settings settings = { 0 };
    struct str why;

    bool named = !str_is_absent(l->set.config);
    struct str config = named ? l->set.config : S(CLI_CONFIG);
    bool none = !named && host_stat(l->rt, config, within(l->rt, 10 * SECOND), &file).kind == ERR_NOT_FOUND;
    if (!none && !load_file(l->rt, config, &l->site, &problems))
        return cli_fail(&verb_tls, EXIT_CONFIG, "%.*s", STR_ARG(str_trim(text_str(&problems))));
    const struct site *site = l->site.site;
    if (site)
        settings = (struct resolver_settings){ .forwarders = site->forwarders, .forwarder_count = site->forwarder_count };
    settings.resolv_conf = read_or_empty(l, S("/etc/resolv.conf"));
    struct str anchor = site && !str_is_absent(site->trust_anchor) ? site->trust_anchor : S(SITE_TRUST_ANCHOR);
    settings.trust_anchor = read_or_empty(l, anchor);
    if (settings.trust_anchor.len == 0)
        cli_fail(&verb_tls, 0, "%.*s cannot be read: DNSSEC vouches for nothing", STR_ARG(anchor));
    if (err_is(resolver_open(l->rt, &settings, within(l->rt, LOOKUP_S * SECOND), &l->resolver, &why)))
        return cli_fail(&verb_tls, EXIT_OS, "the resolver cannot start: %.*s", STR_ARG(why));
    l->dns = resolver_dns(l->resolver);
    if (err_is(crypto_open(l->rt, &l->crypto)))
        return cli_fail(&verb_tls, EXIT_OS, "OpenSSL cannot start");
    l->client = tls_client_new(l->crypto);
    l->route = site ? site_route(site, l->domain) : &fallback;
    if (site)
        l->hostname = l->route->helo.len > 0 ? l->route->helo : site->hostname;
    else if (err_is(host_name(l->rt, &l->arena, &l->hostname)))
        l->hostname = S("localhost");
    struct str authorities = { NULL, 0 };
    for (size_t i = 0; site && i < site->authorities_count; i++)
        if (str_eq(site->authorities[i].path, l->route->tls_ca))
            authorities = site->authorities[i].pem;
    if (str_is_absent(authorities))
        authorities = read_or_empty(l, S(SITE_AUTHORITIES));
    size_t count;
    l->trust = tls_trust_new(l->crypto, authorities, &count);
    return EXIT_WELL;
}

/* ---- the DNS ----------------------------------------------------------------------------------------------------- */

static struct str
written(const struct address *a, struct arena *arena)
{
    char memory[64];
    struct text text = text_init(memory, sizeof memory);

    address_put_ip(&text, a);
    return arena_keep(arena, text_str(&text));
}

static int
find_hosts(struct look *l)
{
    struct address literal = { 0 };

    if (l->route->kind == ROUTE_MAILDIR || l->route->path.len > 0)
        return cli_fail(&verb_tls, EXIT_DATA, "mail for %.*s does not leave this machine", STR_ARG(l->domain));
    l->direct = l->route->kind == ROUTE_MX && !domain_parse_literal(l->domain, &literal);
    if (!l->direct) {
        l->hosts = arena_new(&l->arena, struct seen);
        l->hosts[0].name = l->route->kind == ROUTE_MX ? written(&literal, &l->arena) : l->route->host;
        l->host_count = 1;
        return EXIT_WELL;
    }
    struct err e = mx_lookup(&l->dns, l->domain, within(l->rt, LOOKUP_S * SECOND), &l->arena, &l->mx);
    if (err_is(e) || l->mx.status != MX_OK)
        return cli_fail(&verb_tls, err_is(e) || l->mx.status == MX_TEMPORARY ? EXIT_AGAIN : EXIT_NO_HOST, "%.*s",
                        STR_ARG(err_is(e) ? S("the resolver did not answer") : l->mx.why));
    l->hosts = arena_alloc(&l->arena, (l->mx.host_count + 1) * sizeof *l->hosts);
    l->host_count = l->mx.host_count < LIMIT_MX_HOSTS ? l->mx.host_count : LIMIT_MX_HOSTS;
    for (size_t i = 0; i < l->host_count; i++)
        l->hosts[i] = (struct seen){ .name = l->mx.hosts[i].name, .preference = l->mx.hosts[i].preference };
    return EXIT_WELL;
}

static struct err
get(void *arg, const struct https_request *request, int64_t until, struct arena *arena, struct https_answer *out)
{
    return https_get(arg, request, until, arena, out);
}

/* What the running server keeps of it, if we may read that. */
static void
look_for_kept_promise(struct look *l)
{
    const struct site *site = l->site.site;
    struct sts_policy policy;
    struct sts_file file;
    struct str bytes, why;

    if (!site || str_is_absent(site->state))
        return;
    bytes = read_or_empty(l, arena_printf(&l->arena, "%.*s/mta-sts/%.*s", STR_ARG(site->state), STR_ARG(l->promise_domain)));
    if (!sts_file_parse(bytes, &file) || !sts_policy_parse(file.body, &l->arena, &policy, &why) ||
        file.fetched_wall + (int64_t)policy.max_age * SECOND <= rt_wall(l->rt))
        return;
    l->promise_kept = l->promise.found = l->promise_known = true;
    l->promise.policy = policy;
    l->promise.id = file.id;
}

/* RFC 8461. */
static void
find_promise(struct look *l)
{
    const struct site *site = l->site.site;
    struct str domain = l->direct ? l->domain : l->route->kind == ROUTE_SMTP ? l->route->host : (struct str){ NULL, 0 };
    struct address literal;
    struct https *https;
    char memory[300];
    struct text why = text_init(memory, sizeof memory);

    if (str_is_absent(domain) || !domain_is_hostname(domain) || address_from_ip(domain, &literal) || (site && !site->mta_sts))
        return;
    l->promise_domain = domain;
    log_set_level(l->rt, LOG_ERROR); /* what went wrong is in the answer */
    struct str authorities = read_or_empty(l, site ? site->mta_sts_ca : S(SITE_AUTHORITIES));
    if (err_is(https_open(l->rt, authorities, &https, &why))) {
        cli_fail(&verb_tls, 0, "MTA-STS policies cannot be fetched: %.*s", STR_ARG(text_str(&why)));
    } else {
        struct sts_policies *policies = sts_policies_new(l->rt, &l->dns, &(struct sts_policies_hooks){ https, get }, FILE_MAX);
        l->promise_known = !err_is(sts_policies_find(policies, domain, within(l->rt, STS_ANSWER_NS), &l->arena, &l->promise));
        https_stop(https);
        sts_policies_free(policies);
        https_close(https);
    }
    if (!l->promise_known || (!l->promise.found && l->promise.result != TLS_RESULT_OK))
        look_for_kept_promise(l);
}

/* As role/sender.c does. */
static void
decide(struct look *l, struct seen *h)
{
    int64_t until = within(l->rt, LOOKUP_S * SECOND);
    const struct tls_rule rule = { l->route->tls, l->route->implicit_tls, l->trust };
    struct tls_decision decision;

    h->port = l->route->port ? l->route->port : 25;
    if (err_is(host_addresses(&l->dns, h->name, HOST_IPV4 | HOST_IPV6 | HOST_ANY, until, &l->arena, &h->addresses))) {
        h->why = S("the resolver did not answer");
        return;
    }
    if (h->addresses.status != HOST_OK) {
        h->why = h->addresses.why;
        return;
    }
    const struct tls_candidate candidate = {
        .hop = { h->name, h->addresses.canonical, h->addresses.secure, h->addresses.aliased, h->port,
                 l->direct ? l->domain : (struct str){ NULL, 0 } },
        .minds_dane = l->route->kind != ROUTE_LMTP && (!l->direct || l->mx.secure),
        .promise_domain = l->promise_domain,
        .answer = l->promise_known ? &l->promise : NULL,
    };
    if (err_is(tls_rule_decide(&rule, &candidate, &l->dns, rt_mem(l->rt), until, &l->arena, &decision))) {
        h->why = S("the resolver did not answer");
        return;
    }
    h->decided = true;
    h->policy = decision.policy;
    h->lowered = decision.lowered;
}

/* ---- the host itself --------------------------------------------------------------------------------------------- */

struct handshake {
    struct look *l;
    struct seen *h;
};

/* Whatever is wrong with its certificate, it is looked at. */
static struct err
start_tls(void *arg, struct wire *wire, int64_t until, struct client_encryption *out, struct text *reason)
{
    struct handshake *s = arg;
    struct seen *h = s->h;
    struct tls_policy policy = h->policy;
    struct tls_expected expected = { .server_name = h->name, .policy = &policy };
    enum tls_result result;
    const struct tls *tls;

    policy.testing = true;
    struct err e = tls_connect(s->l->client, wire, &expected, until, &tls, &result, reason);
    if (result != TLS_RESULT_OK)
        h->result = (uint8_t)result;
    if (reason->len > 0)
        h->why = arena_keep(&s->l->arena, text_str(reason));
    TRY(e);
    h->encrypted = true;
    h->verified = tls_policy_has_checks(&h->policy) && result == TLS_RESULT_OK;
    h->facts = tls_facts(tls);
    h->facts.protocol = arena_keep(&s->l->arena, h->facts.protocol);
    h->facts.cipher = arena_keep(&s->l->arena, h->facts.cipher);
    if (tls_certificate(tls, &s->l->arena, &h->certificate))
        (void)key_look_at_certificate(s->l->crypto, h->certificate.pem, &h->key);
    *out = (struct client_encryption){ h->facts.protocol, h->facts.cipher, false };
    return OK;
}

static void
talk(struct look *l, struct seen *h, struct stream *stream)
{
    const int64_t ns = REPLY_S * SECOND;
    const struct client_settings settings = { .lmtp = l->route->kind == ROUTE_LMTP, .helo = l->hostname,
                                              .times = { ns, ns, ns, ns, ns, ns, ns, ns } };
    struct client *client = client_new(stream, &settings);
    struct handshake handshake = { l, h };
    const struct client_tls tls = { start_tls, &handshake };
    struct remote_reply reply = { 0 };
    char memory[TLS_REASON];
    struct text reason = text_init(memory, sizeof memory);
    struct err e = OK;

    if (l->route->implicit_tls)
        e = client_begin_tls(client, &tls, &reason);
    if (!err_is(e))
        e = client_greeting(client, &l->arena, &reply);
    if (!err_is(e) && remote_reply_is_positive(&reply))
        e = client_hello(client, &l->arena, &reply);
    if (!err_is(e) && remote_reply_is_positive(&reply) && !h->encrypted) {
        h->offers = client_has(client_features(client), CLIENT_STARTTLS);
        if (h->offers)
            e = client_start_tls(client, &tls, &l->arena, &reply, &reason);
    }
    if (err_is(e) && h->why.len == 0)
        h->why = reason.len > 0 ? arena_keep(&l->arena, text_str(&reason)) : cli_error(e, &l->arena);
    else if (!err_is(e) && !remote_reply_is_positive(&reply) && h->why.len == 0)
        h->why = reply.text;
    if (err_is(e))
        client_close(client);
    else
        client_quit(client);
}

static void
connect_to(struct look *l, struct seen *h)
{
    struct stream *stream;
    struct err e = ERR(ERR_NOT_FOUND, "find an address");

    for (size_t i = 0; i < h->addresses.address_count && i < LIMIT_MX_ADDRESSES; i++) {
        struct address to = h->addresses.addresses[i];
        to.port = h->port;
        e = stream_connect(l->rt, &to, NULL, within(l->rt, CONNECT_S * SECOND), &stream);
        if (err_is(e))
            continue;
        h->address = to;
        talk(l, h, stream);
        return;
    }
    h->why = cli_error(e, &l->arena);
}

/* Whether mail would go to this host, as it is now. */
static void
conclude(struct look *l, struct seen *h)
{
    bool strict = tls_policy_is_strict(&h->policy);

    if (!h->decided)
        return;
    if (h->policy.level == TLS_REFUSED && !h->policy.testing) {
        h->result = h->policy.result;
        h->why = h->policy.why;
        return;
    }
    h->result = h->policy.result;
    h->why = h->policy.why;
    if (l->set.no_connect)
        return;
    connect_to(l, h);
    if (h->address.family == ADDRESS_NONE)
        return;
    if (!h->encrypted && strict) {
        h->result = h->offers ? TLS_RESULT_VALIDATION_FAILURE : TLS_RESULT_NO_STARTTLS;
        if (h->why.len == 0)
            h->why = S("the host does not offer STARTTLS");
    }
    h->goes = !strict || (h->encrypted && (h->verified || !tls_policy_has_checks(&h->policy) ||
                                           h->result == TLS_RESULT_TLSA_INVALID));
}

/* ---- the report -------------------------------------------------------------------------------------------------- */

static void
put_record(struct text *t, const struct tls_record *r)
{
    text_putf(t, "%u %u %u ", r->usage, r->selector, r->matching);
    for (size_t i = 0; i < r->data.len && i < 64; i++)
        text_putf(t, "%02x", (unsigned char)r->data.ptr[i]);
    if (r->data.len > 64)
        text_put(t, S("..."));
}

static void
put_key(struct text *t, const struct key_certificate *k)
{
    for (size_t i = 0; i < sizeof k->key.bytes; i++)
        text_putf(t, "%02x", k->key.bytes[i]);
}

static void
put_addresses(struct text *t, const struct host_result *r, const char *quote)
{
    for (size_t i = 0; i < r->address_count; i++) {
        text_putf(t, "%s%s", i ? ", " : "", quote);
        address_put_ip(t, &r->addresses[i]);
        text_putf(t, "%s", quote);
    }
}

static const char *
dnssec(bool secure)
{
    return secure ? "secure" : "not secure";
}

static void
put_seen(struct text *t, const struct look *l, const struct seen *h)
{
    struct str level = tls_level_name(h->policy.level), source = tls_source_name(h->policy.source);

    text_put_byte(t, '\n');
    utf8_put_visible(t, h->name);
    if (l->direct)
        text_putf(t, " (%u)", h->preference);
    text_putf(t, ", port %u\n", h->port);
    if (h->decided) {
        text_put(t, S("  addresses    "));
        put_addresses(t, &h->addresses, "");
        text_putf(t, "; DNSSEC: %s\n  policy       %.*s, by %.*s%s\n", dnssec(h->addresses.secure), STR_ARG(level), STR_ARG(source),
                  h->lowered ? ", which is less than the destination asks for" : "");
    }
    for (size_t i = 0; i < h->policy.record_count; i++) {
        text_put(t, S("  TLSA         "));
        put_record(t, &h->policy.records[i]);
        text_put_byte(t, '\n');
    }
    if (h->encrypted) {
        text_put(t, S("  seen at      "));
        address_put(t, &h->address);
        text_putf(t, ": %.*s %.*s\n", STR_ARG(h->facts.protocol), STR_ARG(h->facts.cipher));
    } else if (h->address.family != ADDRESS_NONE) {
        text_put(t, S("  seen at      "));
        address_put(t, &h->address);
        text_putf(t, ": %s\n", h->offers ? "STARTTLS is offered, and fails" : "no TLS");
    }
    if (h->certificate.pem.len > 0) {
        text_put(t, S("  certificate  for "));
        utf8_put_visible(t, h->certificate.names);
        text_put(t, S("; by "));
        utf8_put_visible(t, h->certificate.issuer);
        text_put(t, S("; until "));
        date_put_rfc3339(t, h->key.until);
        text_put(t, S("\n               as a TLSA record: 3 1 1 "));
        put_key(t, &h->key);
        text_put_byte(t, '\n');
    }
    if (l->set.no_connect && h->policy.level != TLS_REFUSED && h->decided)
        return;
    text_putf(t, "  so           %s", !h->goes       ? "no mail goes there"
                                      : h->verified   ? "mail goes there, verified"
                                      : h->encrypted  ? "mail goes there, encrypted to whoever answers"
                                                      : "mail goes there in clear");
    if (h->result != TLS_RESULT_OK)
        text_putf(t, " (%.*s)", STR_ARG(tls_result_name(h->result)));
    if (h->why.len > 0) {
        text_put(t, S(": "));
        utf8_put_visible(t, h->why);
    }
    text_put_byte(t, '\n');
}

static void
put_promise(struct text *t, const struct look *l)
{
    const struct sts_policy *p = &l->promise.policy;

    if (str_is_absent(l->promise_domain))
        return;
    text_put(t, S("MTA-STS: "));
    if (l->promise_known && l->promise.found) {
        text_put(t, sts_mode_name(p->mode));
        text_put(t, p->mx_count ? S(", for") : S(""));
        for (size_t i = 0; i < p->mx_count; i++)
            text_putf(t, "%s %.*s", i ? "," : "", STR_ARG(p->mx[i]));
        text_putf(t, "; id %.*s%s", STR_ARG(l->promise.id), l->promise_kept ? ", as the server keeps it" : "");
    } else {
        text_put(t, l->promise_known ? S("no policy") : S("not known now"));
    }
    if (l->promise.result != TLS_RESULT_OK) {
        text_putf(t, " (%.*s): ", STR_ARG(tls_result_name(l->promise.result)));
        utf8_put_visible(t, l->promise.why);
    }
    text_put_byte(t, '\n');
}

static void
put_text(struct text *t, const struct look *l)
{
    static const char *const rules[] = { "try", "off", "require", "require verify", "insecure-override" };

    text_putf(t, "%.*s: ", STR_ARG(l->domain));
    if (l->direct) {
        text_putf(t, "%s; DNSSEC: %s\n", l->mx.implicit ? "no MX records, so the domain itself" : "by its MX records",
                  dnssec(l->mx.secure));
    } else {
        text_putf(t, "by %s\n", l->route->kind == ROUTE_MX ? "its address" : "the route of the configuration");
    }
    put_promise(t, l);
    text_putf(t, "rule: tls %s%s\n", rules[l->route->tls], l->route->implicit_tls ? ", from the first byte" : "");
    for (size_t i = 0; i < l->host_count; i++)
        put_seen(t, l, &l->hosts[i]);
}

static void
put_seen_json(struct text *t, const struct look *l, const struct seen *h)
{
    char memory[160];
    struct text word = text_init(memory, sizeof memory);

    text_put(t, S("{\"name\":"));
    json_put_str(t, h->name);
    if (l->direct)
        json_put_number(t, "preference", h->preference);
    json_put_number(t, "port", h->port);
    text_put(t, S(",\"addresses\":["));
    put_addresses(t, &h->addresses, "\"");
    text_put(t, S("]"));
    json_put_bool(t, "secure", h->addresses.secure);
    if (h->decided) {
        json_put_field(t, "policy", tls_level_name(h->policy.level));
        json_put_field(t, "by", tls_source_name(h->policy.source));
        json_put_bool(t, "lowered", h->lowered);
    }
    text_put(t, S(",\"tlsa\":["));
    for (size_t i = 0; i < h->policy.record_count; i++) {
        text_put(t, i ? S(",\"") : S("\""));
        put_record(t, &h->policy.records[i]);
        text_put_byte(t, '"');
    }
    text_put(t, S("]"));
    if (h->address.family != ADDRESS_NONE) {
        address_put(&word, &h->address);
        json_put_field(t, "seen-at", text_str(&word));
        json_put_bool(t, "encrypted", h->encrypted);
        json_put_bool(t, "verified", h->verified);
        json_put_bool(t, "goes", h->goes);
    }
    if (h->encrypted) {
        json_put_field(t, "protocol", h->facts.protocol);
        json_put_field(t, "cipher", h->facts.cipher);
    }
    if (h->certificate.pem.len > 0) {
        json_put_field(t, "certificate-names", h->certificate.names);
        json_put_field(t, "certificate-issuer", h->certificate.issuer);
        word.len = 0;
        date_put_rfc3339(&word, h->key.until);
        json_put_field(t, "certificate-until", text_str(&word));
        word.len = 0;
        put_key(&word, &h->key);
        json_put_field(t, "certificate-key-sha256", text_str(&word));
    }
    json_put_field(t, "result", tls_result_name(h->result));
    if (h->why.len > 0)
        json_put_field(t, "why", h->why);
    text_put(t, S("}"));
}

static void
put_json(struct text *t, const struct look *l)
{
    text_put(t, S("{\"version\":1"));
    json_put_field(t, "domain", l->domain);
    json_put_bool(t, "direct", l->direct);
    if (l->direct)
        json_put_bool(t, "secure", l->mx.secure);
    if (!str_is_absent(l->promise_domain)) {
        bool found = l->promise_known && l->promise.found;
        json_put_field(t, "mta-sts", !l->promise_known ? S("unknown") : found ? sts_mode_name(l->promise.policy.mode) : S("no-policy"));
        if (found) {
            json_put_field(t, "mta-sts-id", l->promise.id);
            json_put_bool(t, "mta-sts-kept", l->promise_kept);
        }
        json_put_field(t, "mta-sts-result", tls_result_name(l->promise.result));
    }
    text_put(t, S(",\"hosts\":["));
    for (size_t i = 0; i < l->host_count; i++) {
        text_put(t, i ? S(",") : S(""));
        put_seen_json(t, l, &l->hosts[i]);
    }
    text_put(t, S("]}\n"));
}

/* ---- postrider tls ----------------------------------------------------------------------------------------------- */

static int
look_at(struct look *l)
{
    struct text report = text_init(arena_alloc(&l->arena, REPORT_MAX), REPORT_MAX);
    bool goes = false;
    int exit = prepare(l);

    if (exit == EXIT_WELL)
        exit = find_hosts(l);
    if (exit != EXIT_WELL)
        return exit;
    find_promise(l);
    for (size_t i = 0; i < l->host_count; i++) {
        decide(l, &l->hosts[i]);
        conclude(l, &l->hosts[i]);
        goes |= l->hosts[i].goes || (l->set.no_connect && l->hosts[i].decided && l->hosts[i].policy.level != TLS_REFUSED);
    }
    if (l->set.json)
        put_json(&report, l);
    else
        put_text(&report, l);
    CHECK(!report.full);
    return err_is(terminal_write(TERMINAL_OUT, text_str(&report))) ? EXIT_IO : goes ? EXIT_WELL : EXIT_FALSE;
}

static void
done(struct look *l)
{
    if (l->trust)
        tls_trust_free(l->trust);
    if (l->client)
        tls_client_free(l->client);
    if (l->crypto)
        crypto_close(l->crypto);
    if (l->resolver)
        resolver_close(l->resolver);
    load_free(&l->site);
}

static int
run(struct rt *rt, int argc, char **argv)
{
    struct look *l = mem_new(rt_mem(rt), struct look);
    struct words operands = { 0 };
    int exit;

    l->rt = rt;
    arena_init(&l->arena, rt_mem(rt), 64 << 10, SIZE_MAX / 2);
    if (cli_parse(&verb_tls, argc, argv, &l->arena, &l->set, &operands, &exit)) {
        struct address literal;
        if (operands.count == 1) {
            struct str word = operands.word[0];
            size_t at = str_find_last_byte(word, '@');
            if (at < word.len) /* an address will do */
                word = str_from(word, at + 1);
            bool is_address = domain_parse_literal(word, &literal);
            l->domain = is_address ? word : domain_to_ascii(domain_without_dot(word), &l->arena);
            if (is_address || (!str_is_absent(l->domain) && domain_is_name(l->domain)))
                exit = look_at(l);
            else
                exit = cli_fail(&verb_tls, EXIT_USAGE, "\"%.*s\" is not a domain", STR_ARG(word));
        } else {
            exit = cli_fail(&verb_tls, EXIT_USAGE, "one DOMAIN, please");
        }
    }
    done(l);
    arena_done(&l->arena);
    mem_free(rt_mem(rt), l, sizeof *l);
    return exit;
}

const struct verb verb_tls = {
    .name = "tls",
    .summary = "show how mail to a domain would be encrypted, and why",
    .arguments = "DOMAIN",
    .about = "Looks up the hosts of DOMAIN, what DNSSEC says of them, their TLSA records, the domain's MTA-STS policy, and decides as\n"
             "the server would; then connects to each (EHLO, STARTTLS, QUIT) to see its certificate. No mail is sent.\n"
             "\n"
             "  postrider tls example.org\n"
             "\n"
             "Exit codes: 0 mail would go to some host; 1 to none; 68 there is no such domain, or it takes no mail;\n"
             "75 the DNS does not know now.\n",
    .options = options,
    .run = run,
};
