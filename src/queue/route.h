/*
 * route - how mail for a domain leaves us, as the configuration says it: into a Maildir, to an LMTP server, to a fixed
 * next hop, or to the domain's MX hosts.
 */
#ifndef QUEUE_ROUTE_H
#define QUEUE_ROUTE_H

#include "base/address.h"
#include "base/mem.h"
#include "policy/rate.h"

enum route_kind {
    ROUTE_MAILDIR, /* path: with {domain} and {local} */
    ROUTE_LMTP,    /* host and port, or path of a Unix socket */
    ROUTE_SMTP,    /* host and port: a smarthost or gateway; no MX lookup */
    ROUTE_MX,      /* `direct`: MX hosts of the recipient's domain */
};
/* What the configuration says of connections by this route. It raises what the destination asks for by itself (DANE,
 * MTA-STS), and only the last one lowers it. */
enum route_tls {
    ROUTE_TLS_TRY,      /* where it is offered; if that fails in clear */
    ROUTE_TLS_OFF,      /* in clear, where the destination asks for nothing */
    ROUTE_TLS_REQUIRE,  /* never in clear */
    ROUTE_TLS_VERIFY,   /* and with a certificate that is for the host and leads to a trusted authority */
    ROUTE_TLS_OVERRIDE, /* as TRY, whatever the destination asks for */
};
enum route_family { ROUTE_FAMILY_ANY, ROUTE_FAMILY_IPV4, ROUTE_FAMILY_IPV6 };
enum { ROUTE_PRIVATE_MAX = 4 };

struct route {
    uint8_t kind;            /* enum route_kind */
    uint8_t tls;             /* enum route_tls */
    uint8_t family;          /* enum route_family */
    bool implicit_tls;       /* smtps: TLS from the first byte */
    bool mx_secure;          /* MX: DNSSEC vouches for the hosts; not the configuration's, set where they are known */
    uint16_t port;           /* SMTP, LMTP, MX */
    struct str host;         /* SMTP, LMTP; empty if path is set */
    struct str path;         /* MAILDIR, LMTP */
    struct str user;         /* MAILDIR: who delivers; empty: whoever we are */
    uint64_t quota;          /* MAILDIR: bytes for each; 0: none */
    struct str helo;         /* our name in EHLO */
    struct str login_user, login_file; /* SMTP: whom to log in as, and where the secret is; empty: nobody */
    bool login_token;        /* the secret is a token (XOAUTH2), not a password */
    struct str tls_ca;       /* a file with those whom TLS_VERIFY trusts; empty: the system's */
    struct address source_ipv4, source_ipv6; /* family ADDRESS_NONE: the system's choice */
    struct rate rate;        /* messages; count 0: no limit */
    uint32_t connections;    /* at most, to one destination; 0: LANE_CONNECTIONS */
    uint32_t messages_per_connection; /* 0: the sender's default */
    int64_t connect_wait;    /* for one address; 0: LIMIT_CONNECT_NS */
    int64_t reply_wait;      /* at most, for any reply; 0: as RFC 5321 section 4.5.3.2 says for each */
    struct prefix allow_private[ROUTE_PRIVATE_MAX]; /* targets that DNS may name although forbidden: for tests only */
    uint8_t allow_private_count;
};

/*
 * What all mail of one lane has in common, as text: two routes that give the same key share connections and limits. It
 * begins with the destination: "lmtp:/run/lmtp", "smtp://10.0.0.9:25" or, for MX, whatever `hosts` says.
 */
void route_put_key(struct text *, const struct route *, struct str hosts);
void route_put_destination(struct text *, const struct route *, struct str hosts);
enum { ROUTE_KEY_MAX = 8 << 10 };

/* A copy that owns its strings, in one piece of memory. */
struct route *route_copy(const struct route *, struct mem *);
void route_free(struct route *, struct mem *);

#endif
