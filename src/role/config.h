/*
 * config - a whole site as read-only structs: what the roles run by. Every role makes its own from the bundle that the
 * supervisor made (base/conf.h); a reload makes a new one and swaps it whole.
 *
 * Two stages. site_load() is pure: grammar, words, ranges, whether names lead anywhere, and what would be unwise. Then
 * site_check_world() looks at the machine through hooks: for `postrider check`.
 */
#ifndef ROLE_CONFIG_H
#define ROLE_CONFIG_H

#include "base/conf.h"
#include "base/limits.h"
#include "base/setting.h"
#include "net/tls.h"
#include "policy/directory.h"
#include "queue/retry.h"
#include "queue/route.h"
#include "sasl/mechanism.h"
#include "smtp/server.h"

/* Debian's ca-certificates and dns-root-data: whom the system trusts, and what DNSSEC begins with. */
#define SITE_AUTHORITIES "/etc/ssl/certs/ca-certificates.crt"
#define SITE_TRUST_ANCHOR "/usr/share/dns/root.key"

enum listener_kind { LISTENER_MX, LISTENER_SUBMISSION, LISTENER_SUBMISSIONS };

struct site_listener {
    struct conf_where where;
    uint8_t kind;                      /* enum listener_kind */
    struct str name;                   /* its own, or its kind's */
    struct address *addresses;         /* ":25" is two: 0.0.0.0 and :: (to be opened for IPv6 only) */
    bool *if_any;                      /* for each of them: it is the :: of ":25", and the machine may have no IPv6 */
    size_t address_count;
    /*
     * As for strangers. `trusted`, `refuse_early_talk` and, unless line_ends_said, `line_ends` depend on the client, too:
     * site_listener_settings().
     */
    struct listener_settings settings;
    bool line_ends_said;
    uint32_t connections_per_client;
    struct setting_prefixes relay_from;
    bool own_certificates;             /* it shows those of its own `tls` blocks; else those of the site's */
    uint8_t ask_clients;               /* enum tls_ask */
    struct conf_word authorities_path; /* of the file that vouches for clients, as it was said */
    struct str authorities;            /* its text, PEM; lives as long as the bundle */
    struct setting_prefixes xclient_from;
    struct setting_prefixes proxy_from; /* some: only these may connect, and begin with a PROXY header */
};
/* The settings for this client: trusted if `relay from` has it, xclient if `xclient from` does. NULL: a proxy did not
 * say who it is. */
struct listener_settings site_listener_settings(const struct site_listener *, const struct address *client);

struct site_route {
    struct conf_where where;
    struct str name;                   /* its first domain, or "default" */
    struct str *domains;               /* lower case A-labels; ".corp.example" is all below it; none: default */
    size_t domain_count;
    struct route route;                /* what the queue goes by; helo is never absent */
    struct str user, password_file, token_file; /* absent: none */
};

struct site_certificate {
    struct conf_where where;
    struct str listener;               /* whose own it is; empty: the site's */
    struct str certificate, key;       /* paths */
};
enum {
    SITE_CERTIFICATES_MAX = 64,
    SITE_SECRETS_MAX = 256,   /* routes that log in */
    SITE_MAIL_DIRS_MAX = 256, /* directories with Maildirs below: load_mail_base(), for each user that delivers there */
};
#define CERTIFICATE_SOON_NS (14 * DAY) /* one that ends by then is told of */

enum users_kind { USERS_NONE, USERS_FILE, USERS_DOVECOT };
struct site_users {
    struct conf_where where;
    uint8_t kind;                      /* enum users_kind */
    struct str path;                   /* the file, or the socket */
    unsigned mechanisms;               /* SASL_BITs that may be offered: sasl_offered() */
    uint32_t messages_per_day, recipients_per_day; /* 0: no limit */
    uint32_t account_failures, network_failures;   /* then a ban */
    int64_t failures_within, ban;
};

struct site_authorities { /* of `tls-ca`: whom a route trusts */
    struct str path, pem;
};

enum site_sandbox { SITE_SANDBOX_TRY, SITE_SANDBOX_REQUIRE, SITE_SANDBOX_OFF };

struct site {
    struct str hostname;               /* never absent */
    struct str state;                  /* directory */
    struct site_listener *listeners;
    size_t listener_count;
    struct str *own_names;             /* whom MX records may mean by us: hostname, and those of "listen mx" */
    size_t own_name_count;
    struct directory *directory;
    struct site_route *routes;         /* in the order of the configuration; the last one is the default */
    size_t route_count;
    struct retry retry;
    struct address *forwarders;        /* resolvers; none: the system's */
    size_t forwarder_count;
    struct str trust_anchor;           /* path; absent: the system's root key */
    struct site_authorities *authorities;
    size_t authorities_count;
    uint8_t sandbox;                   /* enum site_sandbox */
    struct site_certificate *certificates; /* none: the role `keys` makes one */
    size_t certificate_count;
    bool mta_sts;                      /* what other domains say about TLS is looked up and kept to */
    struct str mta_sts_ca;             /* PEM: who vouches for their web servers */
    int64_t ticket_time;               /* a key seals tickets for so long, and opens them for as long again */
    struct site_users users;

    struct mem *mem;                   /* the rest is config.c's */
    struct arena arena;
    struct map route_by_domain;
};

/*
 * The site that the bundle describes, in memory of its own; NULL if problems->errors. With a bundle that has a world,
 * this reads everything the site needs into it. Positions (conf_where) point into the bundle's arena, which must
 * outlive the site. Problems that are only warnings are for the log.
 */
struct site *site_load(struct mem *, struct conf_bundle *, uint64_t seed, struct conf_problems *);
void site_free(struct site *);

/*
 * How mail for a domain leaves us. A domain of ours: its Maildirs, LMTP server, gateway, or MX hosts better than us.
 * Any other: the route of exactly this name, of the longest ".suffix", or default. Never NULL.
 */
const struct route *site_route(const struct site *, struct str domain);

/* Some mail goes to a Unix socket, or its recipients are asked for there. */
bool site_has_unix_hop(const struct site *);

/* One of own_names. */
bool site_is_own_name(const struct site *, struct str name);

/* ---- what is wrong with the world ------------------------------------------------------------------------------ */

/* What is in a certificate's files. What cannot be read or used has its error, and then nothing more is said. */
struct site_certificate_look {
    struct err certificate_read, key_read, certificate_use, key_use;
    bool fits;               /* it is the certificate's key */
    bool self_signed;
    int64_t now, from, until; /* ns since 1970 */
    struct str pem;
};

/* Answers about the machine. Each may suspend; each may be NULL: not asked. */
struct site_world {
    void *ctx;
    /* A PTR record exists for the address. */
    bool (*has_reverse_name)(void *ctx, const struct address *);
    /* Port 25 of the world can be reached; ERR_NOT_FOUND: there is no host to try it with. Asked only for `check --network`. */
    struct err (*reaches_port_25)(void *ctx);
    /* family ADDRESS_NONE: there is none. */
    struct address (*default_gateway)(void *ctx, uint8_t family);
    /* OK, ERR_NOT_FOUND, ERR_DENIED: a directory that we can write to. */
    struct err (*directory_writable)(void *ctx, struct str path);
    /* The system knows the user, who is to deliver into Maildirs. */
    bool (*has_user)(void *ctx, struct str name);
    /*
     * What whoever opens this file will meet (a plain one: as host_open_plain() does): an error, or OK and the permission bits. A file
     * that only those who check may not see is OK, without any: the daemon has rights of its own.
     */
    struct err (*look_at_file)(void *ctx, struct str path, bool plain, uint32_t *out_mode);
    void (*look_at_certificate)(void *ctx, const struct site_certificate *, struct site_certificate_look *out);
    /* Asked only with the one above: of a PEM text, whether a certificate is in it, and whether it is for this host. */
    bool (*is_certificate)(void *ctx, struct str pem);
    bool (*is_for_host)(void *ctx, struct str pem, struct str hostname);
    /* A daemon that we start could deliver as this user, whom the system knows; asked only with has_user. */
    bool (*may_be_user)(void *ctx, struct str name);
    /* The user (empty: whom roles run as), delivering, can make something in this directory; or it is not there yet. */
    bool (*makes_in)(void *ctx, struct str user, struct str path);
};
/* Adds errors and warnings. */
void site_check_world(const struct site *, const struct site_world *, struct conf_problems *);

/* What a configuration may say at its top: for `config reference`. */
extern const struct setting_table site_settings;

#endif
