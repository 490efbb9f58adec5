/*
 * config - see config.h. First the tables of what may be said and the functions that read it, in the order of the
 * manual page; then the assembly, and the checks of the world.
 */
#include "role/config.h"

#include "base/check.h"
#include "base/limits.h"
#include "dns/name.h"
#include "message/domain.h"
#include "role/load.h"

#include <stdio.h>
#include <string.h>

struct loading { /* the reader's ctx */
    struct site *site;
    struct conf_where hostname_where;
    size_t listener_cap, route_cap, certificate_cap, authorities_cap, secrets;
    const struct conf_node *via, *direct, *port, *allow_private; /* of the route block being read */
};

static struct loading *
loading(struct setting_reader *r)
{
    return r->ctx;
}

/* Room for one more of an array that doubles in the site's arena. */
static void *
grow(struct arena *arena, void *list, size_t count, size_t *cap, size_t size)
{
    if (count < *cap)
        return list;
    *cap = *cap ? 2 * *cap : 4;
    void *more = arena_alloc(arena, *cap * size);
    if (count > 0)
        memcpy(more, list, count * size);
    return more;
}

static void
say_form(struct setting_reader *r, struct conf_where where, const char *form)
{
    conf_error(r->problems, where, CONF_NO_SUGGESTION, "write \"%s\"", form);
}

/* A name that we call ourselves, as those to whom it is told can read it: in A-labels. */
static bool
read_own_name(struct setting_reader *r, struct conf_word word, struct str *out)
{
    struct str host;

    if (!setting_read_host(r, word, &host))
        return false;
    host = domain_to_ascii(host, r->arena);
    if (str_is_absent(host))
        conf_error(r->problems, word.where, CONF_NO_SUGGESTION, "\"%.*s\" is not a name that IDNA allows", STR_ARG(word.text));
    else
        *out = host;
    return !str_is_absent(host);
}

/* ---- listen ---------------------------------------------------------------------------------------------------- */

static void
read_addresses(struct setting_reader *r, const struct conf_node *node, void *target)
{
    struct site_listener *listener = target;
    size_t cap = 2 * node->count;

    listener->addresses = arena_alloc(r->arena, cap * sizeof *listener->addresses);
    listener->if_any = arena_alloc(r->arena, cap * sizeof *listener->if_any);
    if (node->count < 2)
        say_form(r, node->words[0].where, "address :25");
    for (size_t i = 1; i < node->count; i++) {
        size_t count;
        if (conf_take_addresses(node->words[i].text, listener->addresses + listener->address_count, &count))
            for (size_t k = 0; k < count; k++)
                listener->if_any[listener->address_count++] = k > 0;
        else
            conf_error(r->problems, node->words[i].where, CONF_NO_SUGGESTION,
                       "\"%.*s\" is not an address to listen on: write :25, 192.0.2.1:25 or [2001:db8::1]:25",
                       STR_ARG(node->words[i].text));
    }
}

static void
read_listener_hostname(struct setting_reader *r, const struct conf_node *node, void *target)
{
    struct site_listener *listener = target;

    if (node->count == 2)
        read_own_name(r, node->words[1], &listener->settings.hostname);
    else
        say_form(r, node->words[0].where, "hostname mx.example.org");
}

static void
read_line_ends(struct setting_reader *r, const struct conf_node *node, void *target)
{
    static const struct str choices[] = { STR("refuse"), STR("repair"), { NULL, 0 } };
    struct site_listener *listener = target;

    if (node->count != 2) {
        say_form(r, node->words[0].where, "line-ends refuse|repair");
        return;
    }
    size_t choice = setting_choice(r, node->words[1], "a value here", choices);
    if (str_is_absent(choices[choice]))
        return;
    listener->settings.line_ends = choice == 0 ? LINE_ENDS_REFUSE : LINE_ENDS_REPAIR;
    listener->line_ends_said = true;
}

static void
read_connections(struct setting_reader *r, const struct conf_node *node, void *target)
{
    struct site_listener *listener = target;
    uint64_t count;

    if (node->count != 3 || !str_eq(node->words[2].text, S("per-client"))) {
        say_form(r, node->words[0].where, "connections NUMBER per-client");
        return;
    }
    if (str_to_u64(node->words[1].text, &count) && count >= 1 && count <= LIMIT_SESSIONS)
        listener->connections_per_client = (uint32_t)count;
    else
        conf_error(r->problems, node->words[1].where, CONF_NO_SUGGESTION,
                   "\"%.*s\" is out of range: connections per client may be 1 to %d", STR_ARG(node->words[1].text),
                   LIMIT_SESSIONS);
}

/* "relay from NETWORK ..." and its like. */
static bool
read_from(struct setting_reader *r, const struct conf_node *node, const char *form, struct setting_prefixes *out)
{
    if (node->count < 3 || !str_eq(node->words[1].text, S("from"))) {
        say_form(r, node->words[0].where, form);
        return false;
    }
    return setting_read_prefixes(r, node->words + 2, node->count - 2, out);
}

/* Trust in half of the world is an error, in a large network worth a word. */
static void
check_width(struct setting_reader *r, const struct conf_node *node, const struct setting_prefixes *from, const char *error,
            const char *warning)
{
    char memory[64];

    for (size_t i = 0; i < from->count; i++) {
        const struct prefix *p = &from->list[i];
        struct conf_where where = node->words[i + 2].where;
        unsigned wide = p->base.family == ADDRESS_IPV4 ? 16 : 48, world = p->base.family == ADDRESS_IPV4 ? 7 : 15;
        struct text shown = text_init(memory, sizeof memory);
        address_put_ip(&shown, &p->base);
        if (p->bits <= world)
            conf_error(r->problems, where, CONF_NO_SUGGESTION, "\"%.*s from %.*s/%u\" %s", STR_ARG(node->words[0].text),
                       STR_ARG(text_str(&shown)), p->bits, error);
        else if (p->bits < wide)
            conf_warn(r->problems, where, "\"%.*s from %.*s/%u\" is wider than /%u: %s", STR_ARG(node->words[0].text),
                      STR_ARG(text_str(&shown)), p->bits, wide, warning);
    }
}

static void
read_relay_from(struct setting_reader *r, const struct conf_node *node, void *target)
{
    struct site_listener *listener = target;

    if (!read_from(r, node, "relay from NETWORK ...", &listener->relay_from))
        return;
    check_width(r, node, &listener->relay_from, "is an open relay", "everybody there may relay");
}

static void read_tls(struct setting_reader *r, const struct conf_node *node, void *target);

static void
read_own_tls(struct setting_reader *r, const struct conf_node *node, void *target)
{
    struct site_listener *listener = target;
    struct site *site = loading(r)->site;
    size_t before = site->certificate_count;

    read_tls(r, node, site);
    if (site->certificate_count > before)
        site->certificates[before].listener = listener->name;
    listener->own_certificates = true;
}

/* The text goes to the roles with the configuration: it is nobody's secret. */
static void
read_client_certificates(struct setting_reader *r, const struct conf_node *node, void *target)
{
    static const struct str choices[] = { STR("ask"), STR("require"), { NULL, 0 } };
    struct site_listener *listener = target;
    char memory[160];
    struct text why = text_init(memory, sizeof memory);

    if (node->count != 3) {
        say_form(r, node->words[0].where, "client-certificates ask|require FILE");
        return;
    }
    size_t choice = setting_choice(r, node->words[1], "a value here", choices);
    if (str_is_absent(choices[choice]))
        return;
    listener->ask_clients = choice == 0 ? TLS_ASK : TLS_ASK_REQUIRE;
    struct conf_word *path = &listener->authorities_path;
    path->where = node->words[2].where;
    path->text = arena_keep(r->arena, conf_resolve(r->arena, path->where.file, node->words[2].text));
    struct err e = conf_bundle_load(r->bundle, path->text, &listener->authorities);
    if (err_is(e)) {
        err_text(e, &why);
        conf_error(r->problems, path->where, CONF_NO_SUGGESTION, "\"%.*s\" cannot be read: %.*s", STR_ARG(path->text),
                   STR_ARG(text_str(&why)));
        return;
    }
    if (str_find(listener->authorities, S("PRIVATE KEY-----")) < listener->authorities.len)
        conf_error(r->problems, path->where, CONF_NO_SUGGESTION,
                   "\"%.*s\" holds a private key: name a file with the authorities' certificates alone",
                   STR_ARG(path->text));
    else if (str_find(listener->authorities, S("-----BEGIN CERTIFICATE-----")) == listener->authorities.len)
        conf_error(r->problems, path->where, CONF_NO_SUGGESTION, "there is no certificate in \"%.*s\"",
                   STR_ARG(path->text));
    else if (listener->kind == LISTENER_MX && listener->ask_clients == TLS_ASK_REQUIRE)
        conf_warn(r->problems, path->where,
                  "other mail hosts show no certificate: with \"require\" their mail comes in clear, or not at all");
}

static void
read_proxy_from(struct setting_reader *r, const struct conf_node *node, void *target)
{
    struct site_listener *listener = target;

    if (read_from(r, node, "proxy from NETWORK ...", &listener->proxy_from))
        check_width(r, node, &listener->proxy_from, "lets the world say who it is", "everybody there may say who it is");
}

static void
read_xclient_from(struct setting_reader *r, const struct conf_node *node, void *target)
{
    struct site_listener *listener = target;

    if (read_from(r, node, "xclient from NETWORK ...", &listener->xclient_from))
        check_width(r, node, &listener->xclient_from, "lets the world say who it is", "everybody there may say who it is");
}

static const struct str offers[] = { STR("off"), STR("local"), STR("on"), { NULL, 0 } }; /* enum offer */
static const struct setting_table tls_settings;
#define IN_LISTENER(field) .offset = offsetof(struct site_listener, field)
static const struct setting listener_table[] = {
    { STR("address"), STR(":PORT | IP:PORT ..."), SETTING_CUSTOM, .read = read_addresses,
      .help = STR("Where to listen; :25 is every address of both families") },
    { STR("hostname"), STR("NAME"), SETTING_CUSTOM, .read = read_listener_hostname,
      .help = STR("The name in this listener's greeting, instead of the site's") },
    { STR("max-size"), STR("SIZE"), SETTING_SIZE, IN_LISTENER(settings.size_max), .min = 64 << 10,
      .max = UINT64_C(1) << 40, .fallback = STR("50MiB"), .help = STR("The largest message taken") },
    { STR("max-recipients"), STR("NUMBER"), SETTING_COUNT, IN_LISTENER(settings.rcpt_max), .min = 100,
      .max = LIMIT_RCPT_EXPANDED, .fallback = STR("1000"),
      .help = STR("Recipients in one transaction; each further one is told to come again") },
    { STR("line-ends"), STR("refuse|repair"), SETTING_CUSTOM, .read = read_line_ends,
      .help = STR("What to do with a bare CR or LF in content: refuse it from strangers and repair it from those who "
                  "may relay, unless this says otherwise for all") },
    { STR("vrfy"), STR("off|local|on"), SETTING_CHOICE, IN_LISTENER(settings.vrfy), .choices = offers,
      .fallback = STR("off"), .help = STR("Who may ask whether a mailbox exists; local: this machine, and relay from") },
    { STR("expn"), STR("off|local|on"), SETTING_CHOICE, IN_LISTENER(settings.expn), .choices = offers,
      .fallback = STR("off"), .help = STR("Who may ask for the members of a list; local as with vrfy") },
    { STR("connections"), STR("NUMBER per-client"), SETTING_CUSTOM, .read = read_connections,
      .help = STR("Sessions of one IPv4 address or IPv6 /64 at a time, 50 if nothing is said") },
    { STR("relay"), STR("from NETWORK ..."), SETTING_CUSTOM, .read = read_relay_from,
      .help = STR("Who may send to anywhere without a password; programs of this machine need it not, they use "
                  "sendmail") },
    { STR("tls"), STR(""), SETTING_CUSTOM, .repeats = true, .read = read_own_tls, .block = &tls_settings,
      .help = STR("A certificate that this listener shows instead of the site's") },
    { STR("client-certificates"), STR("ask|require FILE"), SETTING_CUSTOM, .read = read_client_certificates,
      .help = STR("Ask clients for a certificate that an authority in FILE vouches for; require it, or go on without. "
                  "If nothing is said nobody is asked") },
    { STR("proxy"), STR("from NETWORK ..."), SETTING_CUSTOM, .read = read_proxy_from,
      .help = STR("Which proxies stand in front: only they may connect here, each connection must begin with a PROXY "
                  "header (version 1 or 2), and everything then goes by the client that it tells of") },
    { STR("xclient"), STR("from NETWORK ..."), SETTING_CUSTOM, .read = read_xclient_from,
      .help = STR("Who may say by XCLIENT for whom it speaks, as a proxy that knows SMTP does: address, name, and who has "
                  "logged in there") },
    { STR("tls-wait"), STR("TIME"), SETTING_TIME, IN_LISTENER(settings.tls_wait), .min = (uint64_t)SECOND,
      .max = (uint64_t)(10 * MINUTE), .fallback = STR("1m"), .help = STR("How long a handshake may take") },
    { STR("hide-client"), STR("on|off"), SETTING_FLAG, IN_LISTENER(settings.hide_client), .fallback = STR("off"),
      .help = STR("Whether mail of users leaves without the name and address of the machine that it was sent from") },
    { STR("hold-at-most"), STR("TIME"), SETTING_TIME, IN_LISTENER(settings.hold_max), .max = (uint64_t)(365 * DAY),
      .fallback = STR("30d"), .help = STR("How long users may have us hold their mail (FUTURERELEASE); 0: not at all") },
    { STR("failed-logins"), STR("NUMBER"), SETTING_COUNT, IN_LISTENER(settings.auth_failures_max), .min = 1,
      .max = 100, .fallback = STR("5"), .help = STR("How many logins of a session may fail before it is closed") },
    { STR("greeting-delay"), STR("TIME"), SETTING_TIME, IN_LISTENER(settings.greeting_delay), .max = (uint64_t)MINUTE,
      .fallback = STR("0"), .help = STR("How long a client must wait for the greeting") },
    { STR("command-wait"), STR("TIME"), SETTING_TIME, IN_LISTENER(settings.command_wait), .min = (uint64_t)MINUTE,
      .max = (uint64_t)HOUR, .fallback = STR("5m"), .help = STR("How long a client may think about its next command") },
    { STR("content-wait"), STR("TIME"), SETTING_TIME, IN_LISTENER(settings.block_wait), .min = (uint64_t)MINUTE,
      .max = (uint64_t)HOUR, .fallback = STR("3m"), .help = STR("How long content may pause") },
    { STR("content-rate"), STR("SIZE"), SETTING_SIZE, IN_LISTENER(settings.rate_bytes), .max = 1 << 20,
      .fallback = STR("100B"),
      .help = STR("How much content must come each second, over every 5 minutes of waiting for it; 0: however slow") },
    { STR("wrong-commands"), STR("NUMBER"), SETTING_COUNT, IN_LISTENER(settings.wrong_commands_max), .min = 1,
      .max = 10000, .fallback = STR("20"), .help = STR("How many commands a session may get wrong before it is closed") },
    { STR("idle-commands"), STR("NUMBER"), SETTING_COUNT, IN_LISTENER(settings.idle_commands_max), .min = 10,
      .max = 100000, .fallback = STR("100"),
      .help = STR("How many commands a session may give from one message to the next before it is closed") },
};
static const struct setting_table listener_settings_table = SETTING_TABLE(listener_table);

static void
read_listen(struct setting_reader *r, const struct conf_node *node, void *target)
{
    static const struct str kinds[] = { STR("mx"), STR("submission"), STR("submissions"), { NULL, 0 } };
    struct site *site = target;
    struct loading *l = loading(r);

    if (node->count < 2 || node->count > 3 || !node->has_block) {
        say_form(r, node->words[node->count > 3 ? 3 : 0].where, "listen mx|submission|submissions [NAME] { ... }");
        return;
    }
    size_t kind = setting_choice(r, node->words[1], "a kind of listener", kinds);
    if (str_is_absent(kinds[kind]))
        return;
    site->listeners =
        grow(r->arena, site->listeners, site->listener_count, &l->listener_cap, sizeof *site->listeners);
    struct site_listener *listener = &site->listeners[site->listener_count];
    *listener = (struct site_listener){
        .where = node->words[0].where,
        .kind = (uint8_t)kind,
        .name = arena_keep(r->arena, node->words[node->count - 1].text),
        .settings = listener_settings_default((struct str){ NULL, 0 }),
        .connections_per_client = LIMIT_SESSIONS_PER_CLIENT,
    };
    listener->settings.login = listener->settings.complete = kind != LISTENER_MX;
    listener->settings.tls_at_once = kind == LISTENER_SUBMISSIONS;
    if (listener->name.len == 0)
        conf_error(r->problems, node->words[2].where, CONF_NO_SUGGESTION, "a listener's name is not empty");
    if (listener->name.len > LIMIT_LISTENER_NAME)
        conf_error(r->problems, node->words[2].where, CONF_NO_SUGGESTION, "a listener's name may have %d bytes",
                   LIMIT_LISTENER_NAME);
    for (size_t i = 0; i < site->listener_count; i++)
        if (str_eq(site->listeners[i].name, listener->name))
            conf_error(r->problems, node->words[node->count - 1].where, CONF_NO_SUGGESTION,
                       "another listener is called \"%.*s\": give each a name of its own, \"listen %.*s NAME { ... }\"",
                       STR_ARG(listener->name), STR_ARG(kinds[kind]));
    size_t errors = r->problems->errors;
    setting_read(r, &listener_settings_table, node->children, listener);
    if (listener->address_count == 0 && r->problems->errors == errors)
        conf_error(r->problems, node->words[0].where, CONF_NO_SUGGESTION,
                   "this listener has no address: add \"address :%d\"",
                   kind == LISTENER_MX           ? 25
                   : kind == LISTENER_SUBMISSION ? 587
                                                 : 465);
    if (kind != LISTENER_MX && listener->relay_from.count > 0)
        conf_error(r->problems, node->words[0].where, CONF_NO_SUGGESTION,
                   "\"relay from\" excuses nobody from logging in here: it goes with \"listen mx\"");
    if (kind == LISTENER_MX && listener->settings.hide_client)
        conf_error(r->problems, node->words[0].where, CONF_NO_SUGGESTION,
                   "\"hide-client\" is about users: it goes with \"listen submission\" and \"listen submissions\"");
    site->listener_count++;
}

static void
for_strangers(struct listener_settings *settings)
{
    if (settings->vrfy == OFFER_LOCAL)
        settings->vrfy = OFFER_OFF;
    if (settings->expn == OFFER_LOCAL)
        settings->expn = OFFER_OFF;
}

struct listener_settings
site_listener_settings(const struct site_listener *listener, const struct address *client)
{
    struct listener_settings settings = listener->settings;
    bool proxied = listener->proxy_from.count > 0;

    settings.trusted = client && setting_prefixes_have(&listener->relay_from, client);
    settings.xclient = client && setting_prefixes_have(&listener->xclient_from, client);
    if (!client) /* it may be anybody in the world, however near the proxy is */
        for_strangers(&settings);
    /* What a proxy passes on may come in one piece with its header. */
    settings.refuse_early_talk = !settings.trusted && !proxied && listener->kind == LISTENER_MX;
    if ((settings.trusted || listener->kind != LISTENER_MX) && !listener->line_ends_said)
        settings.line_ends = LINE_ENDS_REPAIR;
    return settings;
}

/* ---- tls, users, resolver, retry ------------------------------------------------------------------------------- */

static const struct setting tls_table[] = {
    { STR("certificate"), STR("FILE"), SETTING_PATH, .offset = offsetof(struct site_certificate, certificate),
      .help = STR("The certificate and behind it those that lead to its issuer, PEM; a change is taken up at once") },
    { STR("key"), STR("FILE"), SETTING_PATH, .offset = offsetof(struct site_certificate, key),
      .help = STR("Its private key, which others must not be able to read") },
};
static const struct setting_table tls_settings = SETTING_TABLE(tls_table);

static void
read_tls(struct setting_reader *r, const struct conf_node *node, void *target)
{
    struct site *site = target;
    struct site_certificate c = { .where = node->words[0].where, .listener = S("") };
    size_t errors = r->problems->errors;

    if (node->count != 1 || !node->has_block) {
        say_form(r, node->words[0].where, "tls { certificate FILE; key FILE }");
        return;
    }
    setting_read(r, &tls_settings, node->children, &c);
    if (r->problems->errors != errors)
        return;
    if (str_is_absent(c.certificate) || str_is_absent(c.key)) {
        conf_error(r->problems, c.where, CONF_NO_SUGGESTION, "certificate and key go together: %s is missing",
                   str_is_absent(c.certificate) ? "certificate" : "key");
        return;
    }
    if (site->certificate_count == SITE_CERTIFICATES_MAX) {
        conf_error(r->problems, c.where, CONF_NO_SUGGESTION, "there may be %d certificates", SITE_CERTIFICATES_MAX);
        return;
    }
    site->certificates = grow(r->arena, site->certificates, site->certificate_count, &loading(r)->certificate_cap,
                              sizeof *site->certificates);
    site->certificates[site->certificate_count++] = c;
}

static void
read_mechanisms(struct setting_reader *r, const struct conf_node *node, void *target)
{
    struct site_users *users = target;

    if (node->count < 2)
        say_form(r, node->words[0].where, "mechanisms NAME ...");
    users->mechanisms = 0;
    for (size_t i = 1; i < node->count; i++) {
        enum sasl_mechanism m = sasl_mechanism_by_name(node->words[i].text);
        struct conf_guess guess = { .word = node->words[i].text };
        for (int k = 0; k < SASL_MECHANISMS && m == SASL_MECHANISMS; k++)
            conf_guess_offer(&guess, setting_fold(r->arena, sasl_mechanism_name((enum sasl_mechanism)k)));
        if (m == SASL_MECHANISMS)
            conf_error(r->problems, node->words[i].where, conf_guess_best(&guess), "\"%.*s\" is no mechanism that we know",
                       STR_ARG(node->words[i].text));
        else
            users->mechanisms |= SASL_BIT(m);
    }
}

#define IN_USERS(member) .offset = offsetof(struct site_users, member)
static const struct setting users_table[] = {
    { STR("mechanisms"), STR("NAME ..."), SETTING_CUSTOM, .read = read_mechanisms,
      .help = STR("The ways to log in, all of them under TLS only; external, scram-sha-256-plus, scram-sha-256, plain and "
                  "login if nothing is said; of Dovecot's plain and login. Those that are known beside these, "
                  "scram-sha-1-plus, scram-sha-1 and cram-md5, want \"postrider user add --legacy\"") },
    { STR("messages-per-day"), STR("NUMBER"), SETTING_COUNT, IN_USERS(messages_per_day), .fallback = STR("1000"),
      .help = STR("What one user may send within 24 hours; 0 is no limit") },
    { STR("recipients-per-day"), STR("NUMBER"), SETTING_COUNT, IN_USERS(recipients_per_day), .fallback = STR("5000"),
      .help = STR("And to how many recipients; 0 is no limit") },
    { STR("failures-per-account"), STR("NUMBER"), SETTING_COUNT, IN_USERS(account_failures), .min = 1, .max = 1000000,
      .fallback = STR("10"),
      .help = STR("After so many wrong passwords the account is closed to networks from which its user has not logged in for "
                  "30 days") },
    { STR("failures-per-network"), STR("NUMBER"), SETTING_COUNT, IN_USERS(network_failures), .min = 1, .max = 1000000,
      .fallback = STR("30"), .help = STR("After so many from one network (IPv4 /24, IPv6 /56) it may not log in") },
    { STR("failures-within"), STR("TIME"), SETTING_TIME, IN_USERS(failures_within), .min = SECOND, .max = 30 * DAY,
      .fallback = STR("1h"), .help = STR("Wrong passwords older than this are forgotten") },
    { STR("ban"), STR("TIME"), SETTING_TIME, IN_USERS(ban), .min = SECOND, .max = 30 * DAY, .fallback = STR("15m"),
      .help = STR("How long an account or a network is then refused") },
};
static const struct setting_table users_settings = SETTING_TABLE(users_table);

static void
read_users(struct setting_reader *r, const struct conf_node *node, void *target)
{
    struct site_users *users = &((struct site *)target)->users;
    bool dovecot = node->count == 3 && str_eq(node->words[1].text, S("dovecot"));

    if (node->count != 3 || (!dovecot && !str_eq(node->words[1].text, S("file")))) {
        say_form(r, node->words[0].where, "users file FILE");
        return;
    }
    *users = (struct site_users){
        .where = node->words[0].where,
        .kind = dovecot ? USERS_DOVECOT : USERS_FILE,
        .path = arena_keep(r->arena, conf_resolve(r->arena, node->words[2].where.file, node->words[2].text)),
        .mechanisms = SASL_BIT(SASL_EXTERNAL) | SASL_BIT(SASL_SCRAM_SHA_256_PLUS) | SASL_BIT(SASL_SCRAM_SHA_256) |
                      SASL_BIT(SASL_PLAIN) | SASL_BIT(SASL_LOGIN),
    };
    if (dovecot)
        users->mechanisms = SASL_BIT(SASL_PLAIN) | SASL_BIT(SASL_LOGIN);
    setting_read(r, &users_settings, node->children, users);
    unsigned ours = SASL_BIT(SASL_EXTERNAL) | SASL_BIT(SASL_SCRAM_SHA_256_PLUS) | SASL_BIT(SASL_SCRAM_SHA_1_PLUS);
    if (dovecot && (users->mechanisms & ours))
        conf_error(r->problems, node->words[0].where, CONF_NO_SUGGESTION,
                   "Dovecot's socket takes no certificate and no channel binding: leave external and -plus out of mechanisms");
    if (dovecot && users->path.len >= sizeof((struct address *)0)->path)
        conf_error(r->problems, node->words[2].where, CONF_NO_SUGGESTION, "a socket's path may have %zu bytes",
                   sizeof((struct address *)0)->path - 1);
}

static void
read_forward(struct setting_reader *r, const struct conf_node *node, void *target)
{
    struct site *site = target;

    if (node->count < 2)
        say_form(r, node->words[0].where, "forward IP:PORT ...");
    site->forwarders = arena_alloc(r->arena, node->count * sizeof *site->forwarders);
    for (size_t i = 1; i < node->count; i++) {
        struct address *address = &site->forwarders[site->forwarder_count];
        struct str text = node->words[i].text;
        if (address_from_ip(text, address))
            address->port = 53;
        else if (!address_parse(text, address) || address->family == ADDRESS_UNIX || address->port == 0) {
            conf_error(r->problems, node->words[i].where, CONF_NO_SUGGESTION,
                       "\"%.*s\" is not a resolver's address: write 192.0.2.53 or 127.0.0.1:5300", STR_ARG(text));
            continue;
        }
        site->forwarder_count++;
    }
}

static const struct setting resolver_table[] = {
    { STR("forward"), STR("IP[:PORT] ..."), SETTING_CUSTOM, .read = read_forward,
      .help = STR("Which resolvers to ask; without this, those of the system, validating by ourselves") },
    { STR("trust-anchor"), STR("FILE"), SETTING_PATH, .offset = offsetof(struct site, trust_anchor),
      .help = STR("Keys that DNSSEC begins with, DS or DNSKEY records one on a line, instead of those of the root "
                  "(" SITE_TRUST_ANCHOR ")") },
};
static const struct setting_table resolver_settings = SETTING_TABLE(resolver_table);

static void
read_resolver(struct setting_reader *r, const struct conf_node *node, void *target)
{
    if (node->count != 1 || !node->has_block)
        say_form(r, node->words[0].where, "resolver { forward IP:PORT ... }");
    else
        setting_read(r, &resolver_settings, node->children, target);
}

static void
read_delay_notice(struct setting_reader *r, const struct conf_node *node, void *target)
{
    struct retry *retry = target;

    if (node->count != 2) {
        say_form(r, node->words[0].where, "delay-notice 4h");
        return;
    }
    struct conf_word word = node->words[1];
    if (str_eq(word.text, S("off")))
        retry->delay_notice = 0;
    else if (!conf_take_time(word.text, &retry->delay_notice) || retry->delay_notice < SECOND ||
             retry->delay_notice > 60 * DAY)
        conf_error(r->problems, word.where, CONF_NO_SUGGESTION,
                   "\"%.*s\" is neither \"off\" nor a time after which people are told: 1s to 60d", STR_ARG(word.text));
    else if (retry->delay_notice >= retry->lifetime)
        conf_error(r->problems, word.where, CONF_NO_SUGGESTION,
                   "mail fails before its delay would be told: \"%.*s\" is not shorter than its lifetime",
                   STR_ARG(word.text));
}

static const struct setting retry_table[] = {
    { STR("delay-notice"), STR("TIME|off"), SETTING_CUSTOM, .read = read_delay_notice,
      .help = STR("When senders are told, once, that their mail still waits: those who asked for it, and our own "
                  "people; 1s to 60d, and 4h if nothing is said") },
};
static const struct setting_table retry_settings = SETTING_TABLE(retry_table);

static void
read_retry(struct setting_reader *r, const struct conf_node *node, void *target)
{
    struct site *site = target;
    struct retry retry = { 0 };
    size_t i = 1;

    for (; i < node->count && !str_eq(node->words[i].text, S("for")); i++) {
        int64_t step;
        bool good = conf_take_time(node->words[i].text, &step);
        if (!good || step < SECOND || step > 7 * DAY) {
            conf_error(r->problems, node->words[i].where, CONF_NO_SUGGESTION,
                       good ? "\"%.*s\" is out of range: a wait may be 1s to 7d"
                            : "\"%.*s\" is not a time such as 30s, 5m or 1h",
                       STR_ARG(node->words[i].text));
            return;
        }
        if (retry.step_count == RETRY_STEPS_MAX) {
            conf_error(r->problems, node->words[i].where, CONF_NO_SUGGESTION,
                       "there may be %d waits; the last one repeats", RETRY_STEPS_MAX);
            return;
        }
        retry.steps[retry.step_count++] = step;
    }
    if (retry.step_count == 0 || i + 2 != node->count) {
        say_form(r, node->words[i + 2 < node->count ? i + 2 : 0].where, "retry 5m 15m 30m 1h 2h 4h for 5d");
        return;
    }
    struct conf_word lifetime = node->words[i + 1];
    if (!conf_take_time(lifetime.text, &retry.lifetime) || retry.lifetime < MINUTE || retry.lifetime > 60 * DAY) {
        conf_error(r->problems, lifetime.where, CONF_NO_SUGGESTION,
                   "\"%.*s\" is not a time that mail may wait: 1m to 60d", STR_ARG(lifetime.text));
        return;
    }
    struct retry usual = retry_default();
    retry.lifetime_null = usual.lifetime_null < retry.lifetime ? usual.lifetime_null : retry.lifetime;
    retry.delay_notice = usual.delay_notice < retry.lifetime ? usual.delay_notice : 0; /* it would say nothing new */
    setting_read(r, &retry_settings, node->children, &retry);
    site->retry = retry;
}

/* ---- route ----------------------------------------------------------------------------------------------------- */

static const struct setting via_table[] = {
    { STR("user"), STR("NAME"), SETTING_WORD, .offset = offsetof(struct site_route, user),
      .help = STR("Whom to log in as") },
    { STR("password-file"), STR("FILE"), SETTING_PATH, .offset = offsetof(struct site_route, password_file),
      .help = STR("A file with the password alone, which others must not be able to read; after a change: postrider "
                  "reload") },
    { STR("token-file"), STR("FILE"), SETTING_PATH, .offset = offsetof(struct site_route, token_file),
      .help = STR("Instead of a password: a file with an OAuth token (XOAUTH2), likewise") },
};
static const struct setting_table via_settings = SETTING_TABLE(via_table);

static void
route_from_hop(struct route *route, const struct conf_hop *hop)
{
    route->kind = hop->kind == CONF_HOP_LMTP ? ROUTE_LMTP : ROUTE_SMTP;
    route->implicit_tls = hop->kind == CONF_HOP_SMTPS;
    route->host = str_is_absent(hop->host) ? S("") : hop->host;
    route->path = str_is_absent(hop->path) ? S("") : hop->path;
    route->port = hop->port;
}

static void
read_via(struct setting_reader *r, const struct conf_node *node, void *target)
{
    struct site_route *sr = target;
    struct conf_hop hop;

    loading(r)->via = node;
    if (node->count != 2) {
        say_form(r, node->words[0].where, "via smtp://HOST:PORT");
        return;
    }
    if (!directory_read_hop(r, node->words[1], &hop))
        return;
    route_from_hop(&sr->route, &hop);
    size_t errors = r->problems->errors;
    setting_read(r, &via_settings, node->children, sr);
    bool password = !str_is_absent(sr->password_file), token = !str_is_absent(sr->token_file);
    if (r->problems->errors == errors && str_is_absent(sr->user) == (password || token))
        conf_error(r->problems, node->words[0].where, CONF_NO_SUGGESTION,
                   "user and password-file go together: %s is missing",
                   str_is_absent(sr->user) ? "user" : "password-file");
    if (password && token)
        conf_error(r->problems, node->words[0].where, CONF_NO_SUGGESTION, "either a password-file or a token-file, not both");
    if (str_is_absent(sr->user))
        return;
    if (++loading(r)->secrets == SITE_SECRETS_MAX + 1)
        conf_error(r->problems, node->words[0].where, CONF_NO_SUGGESTION, "there may be %d routes with a password or token",
                   SITE_SECRETS_MAX);
    if (hop.kind == CONF_HOP_LMTP)
        conf_error(r->problems, node->words[1].where, CONF_NO_SUGGESTION, "nobody logs in by LMTP");
    if (sr->user.len > LIMIT_USER_NAME)
        conf_error(r->problems, node->words[0].where, CONF_NO_SUGGESTION, "a user name may have %d bytes", LIMIT_USER_NAME);
    sr->route.login_user = sr->user;
    sr->route.login_file = token ? sr->token_file : password ? sr->password_file : S("");
    sr->route.login_token = token;
}

static void
read_direct(struct setting_reader *r, const struct conf_node *node, void *target)
{
    struct site_route *sr = target;

    loading(r)->direct = node;
    if (node->count != 1)
        say_form(r, node->words[1].where, "direct");
    sr->route.kind = ROUTE_MX;
}

static void
read_source(struct setting_reader *r, const struct conf_node *node, void *target)
{
    struct site_route *sr = target;
    size_t i = 1;

    for (; i < node->count && !str_eq(node->words[i].text, S("helo")); i++) {
        struct address a;
        bool good = address_from_ip(node->words[i].text, &a);
        struct address *to = good && a.family == ADDRESS_IPV4 ? &sr->route.source_ipv4 : &sr->route.source_ipv6;
        if (!good || to->family != ADDRESS_NONE) {
            conf_error(r->problems, node->words[i].where, CONF_NO_SUGGESTION,
                       good ? "\"%.*s\" is a second address of its family" : "\"%.*s\" is not an IP address",
                       STR_ARG(node->words[i].text));
            return;
        }
        *to = a;
    }
    if (i == 1 || (i < node->count && i + 2 != node->count)) {
        say_form(r, node->words[0].where, "source IP [IP] [helo NAME]");
        return;
    }
    if (i < node->count)
        read_own_name(r, node->words[i + 1], &sr->route.helo);
}

static void
read_port(struct setting_reader *r, const struct conf_node *node, void *target)
{
    struct site_route *sr = target;
    uint64_t port;

    loading(r)->port = node;
    if (node->count == 2 && str_to_u64(node->words[1].text, &port) && port >= 1 && port <= UINT16_MAX)
        sr->route.port = (uint16_t)port;
    else
        say_form(r, node->words[node->count > 1].where, "port NUMBER");
}

static void
read_allow_private(struct setting_reader *r, const struct conf_node *node, void *target)
{
    struct site_route *sr = target;
    struct setting_prefixes prefixes;

    loading(r)->allow_private = node;
    if (node->count < 2 || node->count > 1 + ROUTE_PRIVATE_MAX) {
        say_form(r, node->words[0].where, "allow-private NETWORK ...");
        return;
    }
    if (!setting_read_prefixes(r, node->words + 1, node->count - 1, &prefixes))
        return;
    memcpy(sr->route.allow_private, prefixes.list, prefixes.count * sizeof *prefixes.list);
    sr->route.allow_private_count = (uint8_t)prefixes.count;
    conf_warn(r->problems, node->words[0].where,
              "\"allow-private\" is for tests: whoever owns a domain can name addresses there");
}

static void
read_rate(struct setting_reader *r, const struct conf_node *node, void *target)
{
    struct site_route *sr = target;
    struct conf_rate rate;

    if (node->count == 2 && conf_take_rate(node->words[1].text, &rate) && rate.count <= UINT32_MAX)
        sr->route.rate = (struct rate){ .count = (uint32_t)rate.count, .burst = 1, .per = rate.per_ns };
    else
        conf_error(r->problems, node->words[node->count > 1].where, CONF_NO_SUGGESTION,
                   "write a rate such as \"rate 100/h\": messages a s, m, h or d");
}

static void
read_route_tls(struct setting_reader *r, const struct conf_node *node, void *target)
{
    static const struct str choices[] = { STR("try"), STR("off"), STR("require"), STR("insecure-override"), { NULL, 0 } };
    static const uint8_t meanings[] = { ROUTE_TLS_TRY, ROUTE_TLS_OFF, ROUTE_TLS_REQUIRE, ROUTE_TLS_OVERRIDE };
    struct site_route *sr = target;
    bool verify = node->count == 3 && str_eq(node->words[1].text, S("require")) && str_eq(node->words[2].text, S("verify"));

    if (node->count != 2 && !verify) {
        say_form(r, node->words[0].where, "tls try|off|require [verify]|insecure-override");
        return;
    }
    size_t choice = setting_choice(r, node->words[1], "a value here", choices);
    if (str_is_absent(choices[choice]))
        return;
    sr->route.tls = verify ? ROUTE_TLS_VERIFY : meanings[choice];
    if (sr->route.tls == ROUTE_TLS_OVERRIDE)
        conf_warn(r->problems, node->words[0].where,
                  "\"tls insecure-override\" sends mail past what its destination asks for: who is between can read it");
}

static void
read_tls_ca(struct setting_reader *r, const struct conf_node *node, void *target)
{
    struct site_route *sr = target;
    struct site *site = loading(r)->site;
    struct site_authorities a;

    if (node->count != 2) {
        say_form(r, node->words[0].where, "tls-ca FILE");
        return;
    }
    a.path = arena_keep(r->arena, conf_resolve(r->arena, node->words[1].where.file, node->words[1].text));
    struct err e = conf_bundle_load(r->bundle, a.path, &a.pem);
    if (err_is(e)) {
        char memory[200];
        struct text why = text_init(memory, sizeof memory);
        err_text(e, &why);
        conf_error(r->problems, node->words[1].where, CONF_NO_SUGGESTION, "\"%.*s\" cannot be read: %.*s", STR_ARG(a.path),
                   STR_ARG(text_str(&why)));
        return;
    }
    a.pem = arena_keep(r->arena, a.pem);
    sr->route.tls_ca = a.path;
    for (size_t i = 0; i < site->authorities_count; i++)
        if (str_eq(site->authorities[i].path, a.path))
            return;
    site->authorities = grow(r->arena, site->authorities, site->authorities_count, &loading(r)->authorities_cap,
                             sizeof *site->authorities);
    site->authorities[site->authorities_count++] = a;
}

static const struct str families[] = {STR("any"), STR("ipv4"), STR("ipv6"), {NULL, 0}};      /* enum route_family */
#define IN_ROUTE(field) .offset = offsetof(struct site_route, field)
static const struct setting route_table[] = {
    { STR("via"), STR("smtp://HOST:PORT"), SETTING_CUSTOM, .read = read_via, .block = &via_settings,
      .help = STR("All mail goes to this host; also smtps://HOST, lmtp://HOST:PORT, lmtp:/SOCKET") },
    { STR("direct"), STR(""), SETTING_CUSTOM, .read = read_direct,
      .help = STR("Mail goes to the MX hosts of each domain") },
    { STR("tls"), STR("try|off|require [verify]|insecure-override"), SETTING_CUSTOM, .read = read_route_tls,
      .help = STR("Whether connections are encrypted: where the server offers it, and if that fails in clear (try, if nothing is "
                  "said); not; always; always, with a certificate for the host that leads to a trusted authority. What a "
                  "destination asks for by DANE or MTA-STS is done all the same, unless insecure-override says no: each "
                  "use of that is logged") },
    { STR("tls-ca"), STR("FILE"), SETTING_CUSTOM, .read = read_tls_ca,
      .help = STR("Who may vouch for certificates, PEM; without this, whom the system trusts "
                  "(" SITE_AUTHORITIES ")") },
    { STR("source"), STR("IP [IP] [helo NAME]"), SETTING_CUSTOM, .read = read_source,
      .help = STR("Our own address for these connections, one for each family, and the name that belongs to it") },
    { STR("family"), STR("any|ipv4|ipv6"), SETTING_CHOICE, IN_ROUTE(route.family), .choices = families,
      .fallback = STR("any"), .help = STR("Which addresses of the other side are used") },
    { STR("connections"), STR("NUMBER"), SETTING_COUNT, IN_ROUTE(route.connections), .min = 1, .max = 1000,
      .fallback = STR("20"), .help = STR("To one destination at a time, at most") },
    { STR("messages-per-connection"), STR("NUMBER"), SETTING_COUNT, IN_ROUTE(route.messages_per_connection), .min = 1,
      .max = 10000, .fallback = STR("100"), .help = STR("Then a connection is closed and another one opened") },
    { STR("rate"), STR("NUMBER/s|m|h|d"), SETTING_CUSTOM, .read = read_rate,
      .help = STR("Messages to one destination; without this, as fast as it takes them") },
    { STR("connect-wait"), STR("TIME"), SETTING_TIME, IN_ROUTE(route.connect_wait), .min = (uint64_t)SECOND,
      .max = (uint64_t)(10 * MINUTE),
      .help = STR("How long one address may take to answer at all; 60s if nothing is said") },
    { STR("reply-wait"), STR("TIME"), SETTING_TIME, IN_ROUTE(route.reply_wait), .min = (uint64_t)SECOND,
      .max = (uint64_t)(10 * MINUTE),
      .help = STR("The longest wait for any reply; without this, the 2 to 10 minutes that RFC 5321 asks for") },
    { STR("port"), STR("NUMBER"), SETTING_CUSTOM, .read = read_port,
      .help = STR("For tests, with direct: another port than 25") },
    { STR("allow-private"), STR("NETWORK ..."), SETTING_CUSTOM, .read = read_allow_private,
      .help = STR("For tests, with direct: addresses that DNS may name although nobody should send there") },
};
static const struct setting_table route_settings = SETTING_TABLE(route_table);

static void
read_route_names(struct setting_reader *r, const struct conf_node *node, struct site_route *sr)
{
    bool is_default = node->count == 2 && str_eq(node->words[1].text, S("default"));

    sr->name = arena_keep(r->arena, node->words[1].text);
    sr->domains = arena_alloc(r->arena, (node->count - 1) * sizeof *sr->domains);
    for (size_t i = 1; i < node->count && !is_default; i++) {
        struct str name = node->words[i].text;
        if (str_eq(name, S("default"))) {
            conf_error(r->problems, node->words[i].where, CONF_NO_SUGGESTION,
                       "\"default\" is all domains without a route of their own: it stands alone");
            continue;
        }
        bool suffix = str_take_byte(&name, '.');
        name = domain_to_ascii(domain_without_dot(name), r->arena);
        if (str_is_absent(name) || !domain_is_name(name))
            conf_error(r->problems, node->words[i].where, CONF_NO_SUGGESTION,
                       "\"%.*s\" is not a domain, nor \".domain\" for all below one, nor \"default\"",
                       STR_ARG(node->words[i].text));
        else
            sr->domains[sr->domain_count++] = suffix ? arena_join(r->arena, S("."), name) : name;
    }
}

/* Every name leads to one route only. */
static void
claim_route_names(struct setting_reader *r, const struct conf_node *node, struct site_route *sr)
{
    struct site *site = loading(r)->site;

    for (size_t i = 0; i < (sr->domain_count ? sr->domain_count : 1); i++) {
        struct str name = sr->domain_count ? sr->domains[i] : S("default");
        char memory[300];
        struct text where = text_init(memory, sizeof memory);
        for (size_t at = 0; at < site->route_count; at++)
            for (size_t d = 0; d < (site->routes[at].domain_count ? site->routes[at].domain_count : 1); d++)
                if (str_eq(name, site->routes[at].domain_count ? site->routes[at].domains[d] : S("default")) &&
                    where.len == 0)
                    conf_where_put(&where, site->routes[at].where);
        if (where.len > 0)
            conf_error(r->problems, node->words[1].where, CONF_NO_SUGGESTION,
                       "a route for \"%.*s\" was given before, at %.*s", STR_ARG(name), STR_ARG(text_str(&where)));
    }
}

static void
read_route(struct setting_reader *r, const struct conf_node *node, void *target)
{
    struct site *site = target;
    struct loading *l = loading(r);
    struct site_route sr = { .where = node->words[0].where };

    if (node->count < 2 || !node->has_block) {
        say_form(r, node->words[0].where, "route default|DOMAIN ... { ... }");
        return;
    }
    sr.route = (struct route){ .host = S(""), .path = S(""), .user = S(""), .tls_ca = S("") };
    l->via = l->direct = l->port = l->allow_private = NULL;
    size_t errors = r->problems->errors;
    read_route_names(r, node, &sr);
    setting_read(r, &route_settings, node->children, &sr);
    if (r->problems->errors > errors)
        return;
    claim_route_names(r, node, &sr);
    if (sr.route.reply_wait > 0 && sr.route.reply_wait < LIMIT_FINAL_NS)
        conf_warn(r->problems, node->words[0].where,
                  "\"reply-wait\" is shorter than RFC 5321 section 4.5.3.2 allows: a server that is slow to take a "
                  "message gets it twice");
    const struct conf_node *for_direct = l->port ? l->port : l->allow_private;
    if (!l->via == !l->direct)
        conf_error(r->problems, (l->via ? l->direct : node)->words[0].where, CONF_NO_SUGGESTION,
                   "a route has either \"via smtp://HOST\" or \"direct\"");
    else if (l->via && for_direct)
        conf_error(r->problems, for_direct->words[0].where, CONF_NO_SUGGESTION, "\"%.*s\" goes with \"direct\" only",
                   STR_ARG(for_direct->words[0].text));
    bool always = sr.route.tls == ROUTE_TLS_REQUIRE || sr.route.tls == ROUTE_TLS_VERIFY;
    if (always && sr.route.path.len > 0)
        conf_error(r->problems, node->words[0].where, CONF_NO_SUGGESTION, "over a socket of this machine there is no TLS");
    if (sr.route.implicit_tls && !always && sr.route.tls != ROUTE_TLS_TRY)
        conf_error(r->problems, node->words[0].where, CONF_NO_SUGGESTION, "smtps:// is TLS from the first byte: it is not without");
    if (!str_is_absent(sr.user) && (sr.route.tls == ROUTE_TLS_OFF || sr.route.tls == ROUTE_TLS_OVERRIDE))
        conf_error(r->problems, node->words[0].where, CONF_NO_SUGGESTION,
                   "\"user\" with \"tls %s\" would send the password in clear",
                   sr.route.tls == ROUTE_TLS_OFF ? "off" : "insecure-override");
    else if (!str_is_absent(sr.user) && !always)
        sr.route.tls = ROUTE_TLS_VERIFY; /* a password goes to nobody else, unless "tls require" says that anybody will do */
    if (l->direct && !sr.route.port)
        sr.route.port = 25;
    site->routes = grow(r->arena, site->routes, site->route_count, &l->route_cap, sizeof *site->routes);
    site->routes[site->route_count++] = sr;
}

/* ---- the top --------------------------------------------------------------------------------------------------- */

static void
read_hostname(struct setting_reader *r, const struct conf_node *node, void *target)
{
    struct site *site = target;

    if (node->count != 2) {
        say_form(r, node->words[0].where, "hostname mx.example.org");
        return;
    }
    loading(r)->hostname_where = node->words[1].where;
    if (!read_own_name(r, node->words[1], &site->hostname))
        return;
    if (str_find_byte(site->hostname, '.') == site->hostname.len)
        conf_warn(r->problems, node->words[1].where,
                  "\"%.*s\" is not fully qualified: others want a name such as mx.example.org",
                  STR_ARG(site->hostname));
}

static void
read_domain(struct setting_reader *r, const struct conf_node *node, void *target)
{
    struct site *site = target;

    directory_read_domain(r, site->directory, node);
}

/* The parser has done it; one with a block is refused before it comes here. */
static void
read_include(struct setting_reader *r, const struct conf_node *node, void *target)
{
    (void)r, (void)node, (void)target;
    UNREACHABLE();
}

static const struct str sandboxes[] = { STR("try"), STR("require"), STR("off"), { NULL, 0 } }; /* enum site_sandbox */
static const struct setting site_table[] = {
    {STR("hostname"), STR("NAME"), SETTING_CUSTOM, .read = read_hostname,
     .help = STR("The full name of this host: what it calls itself, and what its address should lead back to")},
    {STR("listen"), STR("mx|submission|submissions [NAME]"), SETTING_CUSTOM, .repeats = true, .read = read_listen,
     .block = &listener_settings_table,
     .help =
         STR("Where mail comes in: from the world, from users who encrypt by STARTTLS and log in, or from users over TLS "
             "from the first byte; NAME is for logs")},
    {STR("tls"), STR(""), SETTING_CUSTOM, .repeats = true, .read = read_tls, .block = &tls_settings,
     .help =
         STR("A certificate to show to clients; each gets one that is for the name it asks for, of the kind of key that it "
             "likes (EC, RSA), else the first. Without any, one is made that nobody vouches for")},
    {STR("tls-tickets"), STR("TIME"), SETTING_TIME, .offset = offsetof(struct site, ticket_time), .min = (uint64_t)SECOND,
     .max = (uint64_t)DAY, .fallback = STR("12h"),
     .help =
         STR("How long a key seals the tickets by which clients resume TLS sessions; it opens them for as long again")},
    {STR("domain"), STR("NAME ..."), SETTING_CUSTOM, .repeats = true, .read = read_domain, .block = &directory_settings,
     .help = STR("A domain that we take mail for, or several with one description")},
    {STR("mta-sts"), STR("on|off"), SETTING_FLAG, .offset = offsetof(struct site, mta_sts), .fallback = STR("on"),
     .help =
         STR("Whether what other domains promise about encryption of mail to them (MTA-STS, RFC 8461) is looked up and "
             "kept to")},
    {STR("mta-sts-ca"), STR("FILE"), SETTING_PATH, .offset = offsetof(struct site, mta_sts_ca),
     .fallback = STR(SITE_AUTHORITIES),
     .help = STR("Who vouches for the web servers that their policies are fetched from, PEM")},
    {STR("users"), STR("file FILE | dovecot SOCKET"), SETTING_CUSTOM, .read = read_users, .block = &users_settings,
     .help = STR("Who may submit, and their passwords: a file that \"postrider user\" writes, or Dovecot's auth socket")},
    {STR("route"), STR("default|DOMAIN ..."), SETTING_CUSTOM, .repeats = true, .read = read_route,
     .block = &route_settings,
     .help =
         STR("How mail to elsewhere leaves: for a domain, for all below .domain, or for all others; direct if nothing "
             "is said")},
    {STR("retry"), STR("TIME ... for TIME"), SETTING_CUSTOM, .read = read_retry, .block = &retry_settings,
     .help =
         STR("Waits between attempts, the last one again and again, and when to give up; 5m 15m 30m 1h 2h 4h for 5d "
             "if nothing is said. Each wait, 1s to 7d, is made up to a tenth longer or shorter; the end may be 1m to 60d. Notices and all "
             "else that comes from nobody (<>) is given up after a day, if that is sooner")},
    {STR("resolver"), STR(""), SETTING_CUSTOM, .read = read_resolver, .block = &resolver_settings,
     .help = STR("Who answers questions to the DNS")},
    {STR("state"), STR("DIRECTORY"), SETTING_PATH, .offset = offsetof(struct site, state),
     .max = sizeof((struct address *)0)->path - sizeof "/submission.sock",
     .fallback = STR("/var/lib/postrider"), .help = STR("Spool and sockets")},
    {STR("sandbox"), STR("try|require|off"), SETTING_CHOICE, .offset = offsetof(struct site, sandbox),
     .choices = sandboxes, .fallback = STR("try"),
     .help = STR("Whether processes shut themselves in: as well as the kernel can, or not at all without")},
    {STR("include"), STR("FILE|PATTERN ..."), SETTING_CUSTOM, .repeats = true, .read = read_include,
     .help = STR("The statements of other files, in this place, also inside a block")},
};
const struct setting_table site_settings = SETTING_TABLE(site_table);

/* ---- assembly -------------------------------------------------------------------------------------------------- */

static bool
is_wildcard(const struct address *a)
{
    static const uint8_t zero[16];

    return memcmp(a->ip, zero, sizeof zero) == 0;
}

/* The system opens one of them only. */
static bool
are_in_the_way(const struct address *a, const struct address *b)
{
    return a->port == b->port && a->port != 0 && a->family == b->family &&
           (is_wildcard(a) || is_wildcard(b) || address_eq(a, b));
}

static void
check_listener(struct setting_reader *r, const struct site_listener *listener, const struct address *before,
               size_t count, const struct address *a)
{
    char memory[160];

    if (count == LIMIT_LISTEN_ADDRESSES)
        conf_error(r->problems, listener->where, CONF_NO_SUGGESTION,
                   "all listeners together may have %d addresses; \":25\" is two", LIMIT_LISTEN_ADDRESSES);
    for (size_t i = 0; i < count; i++)
        if (are_in_the_way(a, &before[i])) {
            struct text shown = text_init(memory, sizeof memory);
            address_put(&shown, is_wildcard(a) ? &before[i] : a);
            conf_error(r->problems, listener->where, CONF_NO_SUGGESTION, "two listeners have the address %.*s",
                       STR_ARG(text_str(&shown)));
            return;
        }
}

/* All listeners' addresses in one array: their literals are ours too. */
static const struct address *
gather_addresses(struct setting_reader *r, struct site *site, size_t *out_count)
{
    size_t count = 0;

    for (size_t i = 0; i < site->listener_count; i++)
        count += site->listeners[i].address_count;
    struct address *all = arena_alloc(&site->arena, (count + 1) * sizeof *all);
    *out_count = 0;
    for (size_t i = 0; i < site->listener_count; i++)
        for (size_t a = 0; a < site->listeners[i].address_count; a++) {
            check_listener(r, &site->listeners[i], all, *out_count, &site->listeners[i].addresses[a]);
            all[(*out_count)++] = site->listeners[i].addresses[a];
        }
    return all;
}

/* Nobody reads on the way what goes there by LMTP. */
static bool
is_on_this_machine(const struct conf_hop *hop)
{
    struct address address;

    if (hop->kind != CONF_HOP_LMTP)
        return false;
    return !str_is_absent(hop->path) || str_eq_nocase(hop->host, S("localhost")) ||
           (address_from_ip(hop->host, &address) && address_is_loopback(&address));
}

/*
 * For a domain of ours: of the default route what is about ourselves, its source, HELO name, connections and waits. How
 * it encrypts, who logs in there and how fast it may go is about the host that it leads to, and goes with it: the
 * smarthost's password is not for our own LMTP server. A `direct` one leads to no host of its own: what it asks is asked of
 * all hosts, so also of those that we relay to or deliver to by LMTP, unless they are on this machine.
 */
static struct route
beside(const struct route *fallback, const struct directory_route *own)
{
    struct route route = *fallback;
    bool remote = own->kind == DIRECTORY_ROUTE_MX || (own->kind != DIRECTORY_ROUTE_MAILDIR && !is_on_this_machine(&own->hop));

    if (remote && fallback->kind == ROUTE_MX)
        return route;
    route.kind = ROUTE_MX;
    route.port = 25;
    route.host = route.path = route.tls_ca = route.login_user = route.login_file = S("");
    route.login_token = route.implicit_tls = false;
    route.tls = ROUTE_TLS_TRY;
    route.rate = (struct rate){ 0 };
    return route;
}

/* Routes as the queue knows them: the default moves to the end, names go into the map, and so do our own domains. */
static void
finish_routes(struct setting_reader *r, struct site *site)
{
    struct directory_domain_info info;
    struct site_route last = {
        .name = S("default"),
        .route = { .kind = ROUTE_MX, .port = 25, .host = S(""), .path = S(""), .user = S(""), .connections = 20,
                   .messages_per_connection = 100 },
    };
    struct site_route *routes = arena_alloc(&site->arena, (site->route_count + 1) * sizeof *routes);
    const struct domain *at = NULL;
    size_t count = 0;

    for (size_t i = 0; i < site->route_count; i++)
        if (site->routes[i].domain_count > 0)
            routes[count++] = site->routes[i];
        else
            last = site->routes[i];
    routes[count++] = last;
    site->routes = routes;
    site->route_count = count;
    for (size_t i = 0; i < count; i++) {
        if (str_is_absent(routes[i].route.helo))
            routes[i].route.helo = site->hostname;
        for (size_t d = 0; d < routes[i].domain_count; d++)
            map_put(&site->route_by_domain, routes[i].domains[d], &routes[i].route);
    }
    while (directory_next(site->directory, &at, &info)) {
        const struct directory_route *from = info.route;
        if (from->kind == DIRECTORY_ROUTE_NONE)
            continue;
        struct route *route = arena_new(&site->arena, struct route);
        *route = beside(&last.route, from);
        if (from->kind == DIRECTORY_ROUTE_MAILDIR) {
            route->kind = ROUTE_MAILDIR;
            route->path = from->maildir;
            route->user = str_is_absent(from->user) ? S("") : from->user;
            route->quota = from->quota;
        } else if (from->kind != DIRECTORY_ROUTE_MX) {
            route_from_hop(route, &from->hop);
        }
        struct route *unused = map_put(&site->route_by_domain, info.name, route);
        if (unused)
            conf_warn(r->problems, container_of(unused, struct site_route, route)->where, "a route for \"%.*s\" is never used: the domain is ours",
                      STR_ARG(info.name));
    }
}

const struct route *
site_route(const struct site *site, struct str domain)
{
    const struct route *fallback = &site->routes[site->route_count - 1].route;
    struct arena scratch;

    arena_init(&scratch, site->mem, 512, 64 << 10);
    struct str name = domain_to_ascii(domain_without_dot(domain), &scratch);
    const struct route *route = str_is_absent(name) ? fallback : map_get(&site->route_by_domain, name);
    while (!route && name.len > 0) { /* "x.corp.example", ".corp.example", ".example" */
        size_t dot = str_find_byte(str_from(name, 1), '.');
        name = str_from(name, 1 + dot);
        if (name.len > 0)
            route = map_get(&site->route_by_domain, name);
    }
    arena_done(&scratch);
    return route ? route : fallback;
}

bool
site_has_unix_hop(const struct site *site)
{
    struct directory_domain_info info;

    for (size_t i = 0; i < site->route_count; i++)
        if (site->routes[i].route.kind != ROUTE_MAILDIR && site->routes[i].route.path.len > 0)
            return true;
    for (const struct domain *at = NULL; directory_next(site->directory, &at, &info);)
        if (info.route->hop.path.len > 0)
            return true;
    return false;
}

/* What other listeners are called says nothing about port 25, where another machine may answer to that name. */
static void
gather_names(struct setting_reader *r, struct site *site)
{
    site->own_names = arena_alloc(r->arena, (site->listener_count + 1) * sizeof *site->own_names);
    site->own_names[site->own_name_count++] = site->hostname;
    for (size_t i = 0; i < site->listener_count; i++)
        if (site->listeners[i].kind == LISTENER_MX && !site_is_own_name(site, site->listeners[i].settings.hostname))
            site->own_names[site->own_name_count++] = site->listeners[i].settings.hostname;
}

bool
site_is_own_name(const struct site *site, struct str name)
{
    for (size_t i = 0; i < site->own_name_count; i++)
        if (name_eq(site->own_names[i], name))
            return true;
    return false;
}

/* So many can be handed to the roles that deliver. */
static void
count_mail_dirs(struct setting_reader *r, const struct site *site)
{
    const struct directory_route *seen[SITE_MAIL_DIRS_MAX];
    struct directory_domain_info info;
    size_t count = 0;

    for (const struct domain *at = NULL; directory_next(site->directory, &at, &info);) {
        const struct directory_route *route = info.route;
        size_t i = 0;
        if (route->kind != DIRECTORY_ROUTE_MAILDIR)
            continue;
        while (i < count && !(str_eq(load_mail_base(seen[i]->maildir), load_mail_base(route->maildir)) &&
                              str_eq(seen[i]->user, route->user)))
            i++;
        if (i == SITE_MAIL_DIRS_MAX) {
            conf_error(r->problems, route->where, CONF_NO_SUGGESTION,
                       "there may be %d directories for mail: what stands before the first {...}, for each user",
                       SITE_MAIL_DIRS_MAX);
            return;
        }
        if (i == count)
            seen[count++] = route;
    }
}

static void
finish(struct setting_reader *r, struct site *site)
{
    struct conf_where nowhere = { 0 };
    size_t count;

    if (str_is_absent(site->hostname) && !loading(r)->hostname_where.file)
        conf_error(r->problems, nowhere, CONF_NO_SUGGESTION, "the host has no name: write \"hostname mx.example.org\"");
    if (str_is_absent(site->hostname))
        site->hostname = S("localhost"); /* an error was said: only to go on checking */
    for (size_t i = 0; i < site->listener_count; i++)
        if (str_is_absent(site->listeners[i].settings.hostname))
            site->listeners[i].settings.hostname = site->hostname;
    gather_names(r, site);
    for (size_t i = 0; i < site->listener_count; i++)
        if (site->listeners[i].settings.login && site->users.kind == USERS_NONE)
            conf_error(r->problems, site->listeners[i].where, CONF_NO_SUGGESTION,
                       "nobody could log in here: add \"users file FILE\", and people by \"postrider user add\"");
    if (site->listener_count == 0)
        conf_warn(r->problems, nowhere, "there is no \"listen\": mail comes in by sendmail only");
    const struct address *ours = gather_addresses(r, site, &count);
    directory_finish(r, site->directory, site->hostname, ours, count);
    if (r->problems->errors == 0) { /* or domains may lead to others that are not there */
        finish_routes(r, site);
        count_mail_dirs(r, site);
    }
}

struct site *
site_load(struct mem *mem, struct conf_bundle *bundle, uint64_t seed, struct conf_problems *problems)
{
    struct site *site = mem_new(mem, struct site);
    struct loading l = { .site = site };
    struct arena tree;
    size_t errors = problems->errors;

    site->mem = mem;
    arena_init(&site->arena, mem, 16 << 10, SIZE_MAX / 2); /* bounded by the bundle */
    arena_init(&tree, mem, 64 << 10, SIZE_MAX / 2);
    map_init(&site->route_by_domain, mem, seed);
    site->directory = directory_new(mem, seed);
    site->retry = retry_default();
    struct setting_reader reader = { bundle, problems, &site->arena, &l };
    const struct conf_node *first = conf_parse(bundle, &tree, problems);
    if (first || problems->errors == errors) {
        setting_read(&reader, &site_settings, first, site);
        finish(&reader, site);
    }
    arena_done(&tree);
    if (problems->errors == errors)
        return site;
    site_free(site);
    return NULL;
}

void
site_free(struct site *site)
{
    struct mem *mem = site->mem;

    directory_free(site->directory);
    map_done(&site->route_by_domain);
    arena_done(&site->arena);
    mem_free(mem, site, sizeof *site);
}

/* ---- what is wrong with the world ------------------------------------------------------------------------------ */

static void
check_listener_world(const struct site_listener *listener, const struct site_world *w, struct conf_problems *problems)
{
    char memory[80];

    for (size_t i = 0; i < listener->address_count && w->has_reverse_name; i++) {
        const struct address *a = &listener->addresses[i];
        struct text shown = text_init(memory, sizeof memory);
        if (is_wildcard(a) || address_is_loopback(a) || w->has_reverse_name(w->ctx, a))
            continue;
        address_put_ip(&shown, a);
        conf_warn(problems, listener->where, "%.*s has no reverse name: many hosts refuse mail from such an address",
                  STR_ARG(text_str(&shown)));
    }
    for (size_t i = 0; i < listener->relay_from.count && w->default_gateway; i++) {
        const struct prefix *p = &listener->relay_from.list[i];
        struct address gateway = w->default_gateway(w->ctx, p->base.family);
        struct text shown = text_init(memory, sizeof memory);
        if (gateway.family == ADDRESS_NONE || !prefix_has(p, &gateway))
            continue;
        address_put_ip(&shown, &gateway);
        conf_warn(problems, listener->where,
                  "\"relay from\" contains the default gateway %.*s: behind address translation the whole world comes "
                  "from there",
                  STR_ARG(text_str(&shown)));
    }
}

/* format: what is wrong with the path, and then why. */
static void
say_file(struct conf_problems *problems, struct conf_where where, struct str path, struct err e, const char *format)
{
    char memory[100];
    struct text why = text_init(memory, sizeof memory);

    err_text(e, &why);
    conf_error(problems, where, CONF_NO_SUGGESTION, format, STR_ARG(path), STR_ARG(text_str(&why)));
}

/* False: it is not as it should be, and that is said by this format. */
static bool
check_file(const struct site_world *w, struct conf_problems *problems, struct conf_where where, struct str path,
           const char *format, uint32_t *out_mode)
{
    *out_mode = 0;
    if (str_is_absent(path) || !w->look_at_file)
        return true;
    struct err e = w->look_at_file(w->ctx, path, false, out_mode);
    if (err_is(e))
        say_file(problems, where, path, e, format);
    return !err_is(e);
}

static void
say_others(struct conf_problems *problems, struct conf_where where, struct str path)
{
    conf_error(problems, where, CONF_NO_SUGGESTION, "others can read the secret file \"%.*s\": chmod o-rwx", STR_ARG(path));
}

static void
check_secret(const struct site_world *w, struct conf_problems *problems, struct conf_where where, struct str path)
{
    uint32_t mode;

    if (check_file(w, problems, where, path, "the secret file \"%.*s\" cannot be read: %.*s", &mode) && (mode & 07))
        say_others(problems, where, path);
}

/* Nothing secret is in these: roles open them themselves, with few rights. */
static void
check_public(const struct site_world *w, struct conf_problems *problems, struct str path, const char *format)
{
    struct conf_where nowhere = { 0 };
    uint32_t mode;

    if (check_file(w, problems, nowhere, path, format, &mode) && mode != 0 && !(mode & 044))
        conf_warn(problems, nowhere, "only its owner can read \"%.*s\", and the server's roles are not root: chmod a+r", STR_ARG(path));
}

/* The first user makes it: "postrider user add". */
static void
check_users(const struct site_world *w, struct conf_problems *problems, const struct site_users *users)
{
    uint32_t mode = 0;

    if (users->kind != USERS_FILE || !w->look_at_file)
        return;
    struct err e = w->look_at_file(w->ctx, users->path, true, &mode);
    if (e.kind == ERR_NOT_FOUND)
        conf_warn(problems, users->where, "there is no users file \"%.*s\": nobody can log in until \"postrider user add\" makes it",
                  STR_ARG(users->path));
    else if (err_is(e))
        say_file(problems, users->where, users->path, e, "the users file \"%.*s\" cannot be used: %.*s");
    else if (mode & 07)
        say_others(problems, users->where, users->path);
}

static const char *
days(int64_t ns, char memory[32])
{
    snprintf(memory, 32, "%lld %s", (long long)(ns / DAY), ns / DAY == 1 ? "day" : "days");
    return memory;
}

/* Whether its files are as they should be; what its dates say is told by the way. */
static bool
check_certificate(const struct site_certificate *c, const struct site_certificate_look *look, struct conf_problems *problems)
{
    char memory[32];

    if (err_is(look->certificate_read))
        say_file(problems, c->where, c->certificate, look->certificate_read, "the certificate \"%.*s\" cannot be read: %.*s");
    else if (look->certificate_use.kind == ERR_DENIED)
        conf_error(problems, c->where, CONF_NO_SUGGESTION,
                   "the certificate \"%.*s\", or one behind it, is too weak to be shown: none may be signed with SHA-1, or have RSA of "
                   "less than 2048 bits",
                   STR_ARG(c->certificate));
    else if (err_is(look->certificate_use))
        conf_error(problems, c->where, CONF_NO_SUGGESTION,
                   "there is no certificate in \"%.*s\": PEM is expected, \"-----BEGIN CERTIFICATE-----\"",
                   STR_ARG(c->certificate));
    if (err_is(look->key_read))
        say_file(problems, c->where, c->key, look->key_read, "the key \"%.*s\" cannot be read: %.*s");
    else if (look->key_use.kind == ERR_SYNTAX)
        conf_error(problems, c->where, CONF_NO_SUGGESTION,
                   "there is no private key in \"%.*s\": PEM is expected, without a passphrase", STR_ARG(c->key));
    else if (err_is(look->key_use))
        conf_error(problems, c->where, CONF_NO_SUGGESTION,
                   "the key in \"%.*s\" cannot be used: EC on P-256, P-384 or P-521 can, and RSA of 2048 to 8192 bits",
                   STR_ARG(c->key));
    if (err_is(look->certificate_read) || err_is(look->certificate_use))
        return false;
    if (look->until <= look->now)
        conf_warn(problems, c->where, "the certificate \"%.*s\" ended %s ago", STR_ARG(c->certificate),
                  days(look->now - look->until, memory));
    else if (look->until - look->now < CERTIFICATE_SOON_NS)
        conf_warn(problems, c->where, "the certificate \"%.*s\" ends in %s", STR_ARG(c->certificate),
                  days(look->until - look->now, memory));
    if (look->from > look->now)
        conf_warn(problems, c->where, "the certificate \"%.*s\" is not valid yet: it begins in %s",
                  STR_ARG(c->certificate), days(look->from - look->now, memory));
    if (err_is(look->key_read) || err_is(look->key_use))
        return false;
    if (!look->fits)
        conf_error(problems, c->where, CONF_NO_SUGGESTION, "\"%.*s\" is not the key of the certificate \"%.*s\"",
                   STR_ARG(c->key), STR_ARG(c->certificate));
    return look->fits;
}

/* What its clients will think of what they are shown. */
static void
check_shown(const struct site *site, const struct site_listener *l, const struct site_certificate_look *looks,
            const bool *good, const struct site_world *w, struct conf_problems *problems)
{
    struct str owner = l->own_certificates ? l->name : S("");
    bool any = false, all_good = true, is_for_host = false, self_signed = false;

    for (size_t i = 0; i < site->certificate_count; i++) {
        if (!str_eq(site->certificates[i].listener, owner))
            continue;
        any = true;
        all_good = all_good && good[i];
        self_signed = self_signed || (good[i] && looks[i].self_signed);
        is_for_host = is_for_host || (good[i] && w->is_for_host(w->ctx, looks[i].pem, l->settings.hostname));
    }
    if (any && all_good && !is_for_host)
        conf_warn(problems, l->where, "no certificate that this listener shows is for its name \"%.*s\"",
                  STR_ARG(l->settings.hostname));
    if (l->kind != LISTENER_MX && (!any || self_signed))
        conf_warn(problems, l->where,
                  "this listener shows a certificate that nobody vouches for: mail programs will warn, or refuse");
    if (l->ask_clients != TLS_ASK_NOT && !w->is_certificate(w->ctx, l->authorities))
        conf_error(problems, l->authorities_path.where, CONF_NO_SUGGESTION,
                   "there is no certificate that can be read in \"%.*s\"", STR_ARG(l->authorities_path.text));
}

static void
check_certificates(const struct site *site, const struct site_world *w, struct conf_problems *problems)
{
    struct site_certificate_look looks[SITE_CERTIFICATES_MAX];
    bool good[SITE_CERTIFICATES_MAX];

    for (size_t i = 0; i < site->certificate_count; i++) {
        looks[i] = (struct site_certificate_look){ .certificate_read = OK };
        w->look_at_certificate(w->ctx, &site->certificates[i], &looks[i]);
        good[i] = check_certificate(&site->certificates[i], &looks[i], problems);
        if (!err_is(looks[i].key_read) && !err_is(looks[i].key_use)) /* else there is no secret in it */
            check_secret(w, problems, site->certificates[i].where, site->certificates[i].key);
    }
    for (size_t i = 0; i < site->listener_count; i++)
        check_shown(site, &site->listeners[i], looks, good, w, problems);
}

static void
check_route_secrets(const struct site_world *w, struct conf_problems *problems, const struct site_route *r)
{
    check_secret(w, problems, r->where, r->password_file);
    check_secret(w, problems, r->where, r->token_file);
}

/* A base like /var/mail, where only root makes something: it makes each domain's own directory there, and no other. */
static void
check_maildirs(const struct site *site, const struct site_world *w, struct conf_problems *problems)
{
    struct directory_domain_info info;
    const struct directory_route *before = NULL, *route = NULL;

    for (const struct domain *at = NULL; w->makes_in && directory_next(site->directory, &at, &info); before = route) {
        route = info.route;
        if (route->kind != DIRECTORY_ROUTE_MAILDIR || route == before || !str_is_absent(info.same_as)) /* it has many names */
            continue;
        struct str base = load_mail_base(route->maildir), user = str_is_absent(route->user) ? S("") : route->user;
        if (str_starts(str_from(route->maildir, base.len), S("/{domain}/")) || w->makes_in(w->ctx, user, base))
            continue;
        conf_warn(problems, route->where,
                  "the user who delivers%s%.*s%s can make no Maildirs in \"%.*s\", so mail for who has none there would wait: let "
                  "them begin with \"%.*s/{domain}/\", where the server makes what is missing, or make them for that user",
                  user.len ? ", \"" : "", STR_ARG(user), user.len ? "\"," : "", STR_ARG(base), STR_ARG(base));
    }
}

void
site_check_world(const struct site *site, const struct site_world *w, struct conf_problems *problems)
{
    struct conf_where where, nowhere = { 0 };
    struct directory_domain_info info;

    for (size_t i = 0; i < site->listener_count; i++)
        check_listener_world(&site->listeners[i], w, problems);
    if (!directory_has_postmaster(site->directory, &where)) {
        if (where.file)
            conf_error(problems, where, CONF_NO_SUGGESTION,
                       "postmaster leads nowhere: add \"alias postmaster -> SOMEBODY\" (RFC 5321 section 4.5.1)");
        else
            conf_warn(problems, nowhere, "there is no domain, so nobody gets mail for postmaster");
    }
    for (const struct domain *at = NULL; w->has_user && directory_next(site->directory, &at, &info);) {
        const struct directory_route *route = info.route;
        if (route->kind != DIRECTORY_ROUTE_MAILDIR || str_is_absent(route->user))
            continue;
        if (!w->has_user(w->ctx, route->user))
            conf_error(problems, route->where, CONF_NO_SUGGESTION, "there is no user \"%.*s\" on this machine",
                       STR_ARG(route->user));
        else if (w->may_be_user && !w->may_be_user(w->ctx, route->user)) /* others may start the daemon */
            conf_warn(problems, route->where, "only root can deliver as user \"%.*s\": who checks this could not start the server",
                      STR_ARG(route->user));
    }
    check_maildirs(site, w, problems);
    if (w->directory_writable) {
        struct err e = w->directory_writable(w->ctx, site->state);
        if (e.kind == ERR_NOT_FOUND)
            conf_warn(problems, nowhere, "the state directory \"%.*s\" does not exist yet: \"postrider run\" makes it",
                      STR_ARG(site->state));
        else if (err_is(e))
            conf_error(problems, nowhere, CONF_NO_SUGGESTION, "the state directory \"%.*s\" cannot be written to",
                       STR_ARG(site->state));
    }
    struct err reached = w->reaches_port_25 ? w->reaches_port_25(w->ctx) : OK;
    if (reached.kind == ERR_NOT_FOUND)
        conf_warn(problems, nowhere, "the host that --network names has no address that can be found: nothing is known of port 25");
    else if (err_is(reached))
        conf_warn(problems, nowhere,
                  "port 25 of other hosts cannot be reached: a provider may block it; \"route default { via "
                  "smtp://HOST:587 }\" goes another way");
    if (w->look_at_certificate)
        check_certificates(site, w, problems);
    check_users(w, problems, &site->users);
    check_public(w, problems, site->trust_anchor, "the trust-anchor \"%.*s\" cannot be read, so nothing is validated: %.*s");
    if (site->mta_sts && !str_eq(site->mta_sts_ca, S(SITE_AUTHORITIES)))
        check_public(w, problems, site->mta_sts_ca, "the mta-sts-ca \"%.*s\" cannot be read, so no policy is believed: %.*s");
    for (size_t i = 0; i < site->route_count; i++)
        check_route_secrets(w, problems, &site->routes[i]);
}
