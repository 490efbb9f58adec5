/*
 * route - how mail for a domain leaves us, as the configuration says it: into a Maildir, to an LMTP server, to a fixed next
 * hop, or to the domain's MX hosts.
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
enum route_tls { ROUTE_TLS_TRY, ROUTE_TLS_OFF, ROUTE_TLS_REQUIRE };
enum route_family { ROUTE_FAMILY_ANY, ROUTE_FAMILY_IPV4, ROUTE_FAMILY_IPV6 };
enum { ROUTE_PRIVATE_MAX = 8 };

struct route {
    uint8_t kind;            /* enum route_kind */
    uint8_t tls;             /* enum route_tls */
    uint8_t family;          /* enum route_family */
    bool implicit_tls;       /* smtps: TLS from the first byte */
    bool relay_mx;           /* MX: we are a backup MX of the domain: only hosts preferred over ourselves count */
    uint16_t port;           /* SMTP, LMTP, MX */
    struct str name;         /* "default", "partner.example", "domain example.org": for people */
    struct str host;         /* SMTP, LMTP; empty if path is set */
    struct str path;         /* MAILDIR, LMTP */
    struct str source;       /* address to connect from, as text; empty: any */
    struct str helo;         /* our name in EHLO; empty: the host name */
    struct rate rate;        /* messages; count 0: no limit */
    uint32_t uid, gid;       /* MAILDIR: whose the files are */
    struct prefix allow_private[ROUTE_PRIVATE_MAX]; /* targets that DNS may name although forbidden: for tests only */
    uint8_t allow_private_count;
};

/* One line of the route table. */
struct route_entry {
    struct str match; /* "partner.example"; ".corp.example": every domain below it; "default" */
    struct route route;
};
/* The longest match: the domain itself, else the nearest parent with a dot in front, else default; NULL: none. */
const struct route *route_find(const struct route_entry *, size_t count, struct str domain);

/*
 * What all mail of one lane has in common, as text: two routes that give the same key share connections and limits. The text
 * begins with the destination, "lmtp:/run/lmtp" or "smtp://10.0.0.9:25" or, for MX, whatever `hosts` says.
 */
void route_put_key(struct text *, const struct route *, struct str hosts);
void route_put_destination(struct text *, const struct route *, struct str hosts);
enum { ROUTE_KEY_MAX = 8 << 10 };

/* A copy that owns its strings, in one piece of memory. */
struct route *route_copy(const struct route *, struct mem *);
void route_free(struct route *, struct mem *);

#endif
