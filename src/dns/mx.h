/*
 * mx - where mail for a domain goes: RFC 5321 section 5.1, RFC 7505 (null MX), and the decisions of standards 5.1.
 *
 * Pure but for the questions, which go to a struct dns. An address literal is the caller's to see before: it has no MX.
 * Everything that is not known for sure is MX_TEMPORARY: the mail waits, and nothing ever falls back from a failed MX
 * lookup to an address record. Errors are only those of struct dns (a link that broke, a fiber that was cancelled).
 */
#ifndef DNS_MX_H
#define DNS_MX_H

#include "dns/answer.h"

enum mx_status {
    MX_OK,
    MX_NULL,       /* the domain takes no mail: 5.1.10, at once */
    MX_NXDOMAIN,   /* there is no such domain: 5.1.2 */
    MX_NO_ADDRESS, /* it names no host that mail could go to: 5.4.4 */
    MX_TEMPORARY,  /* defer; `why` says what happened */
};
struct mx_host {
    struct str name;     /* lower case, no trailing dot; may be an IPv4 address as text: host_addresses() takes that */
    uint16_t preference; /* lowest first */
};
struct mx_result {
    uint8_t status;        /* enum mx_status */
    bool implicit;         /* no MX records: the domain itself is the only host */
    bool secure;           /* DNSSEC vouches for this result; for DANE (RFC 7672 section 2.2.1) */
    uint32_t ttl;          /* seconds */
    struct mx_host *hosts; /* by preference; equal ones as they came, for the caller to shuffle each time */
    size_t host_count;
    struct str canonical;  /* the domain after its CNAMEs */
    struct str why;        /* one sentence, for every status but MX_OK */
};

/* Room that an arena needs for one call. */
enum {
    MX_ARENA_BYTES = 2 * DNS_ARENA_BYTES,
    HOST_ARENA_BYTES = 3 * DNS_ARENA_BYTES,
    IPREV_ARENA_BYTES = 7 * DNS_ARENA_BYTES,
};

/* domain: A-labels. */
struct err mx_lookup(const struct dns *, struct str domain, int64_t until, struct arena *, struct mx_result *out);

/* RFC 5321 section 5.1: if we are one of the hosts, those that are not preferred over us would only send it back. The
 * others into out, at most cap; returns how many. */
size_t mx_better_than(const struct mx_result *, struct str us, struct mx_host *out, size_t cap);

enum {
    HOST_IPV4 = 1,
    HOST_IPV6 = 2,
    HOST_ANY = 4, /* with one or both: also loopback and other addresses that DNS must not send us to */
};
enum host_status {
    HOST_OK,
    HOST_NXDOMAIN,   /* the host does not exist */
    HOST_NO_ADDRESS, /* it exists, without an address in these families that we would go to */
    HOST_TEMPORARY,
};
struct host_result {
    uint8_t status;            /* enum host_status */
    bool secure;               /* every answer that gave addresses was */
    bool aliased;              /* the host's name is a CNAME: not allowed for an MX target, and tolerated */
    uint32_t ttl;              /* seconds */
    struct address *addresses; /* IPv6 and IPv4 by turns, so that one broken family costs one attempt; port 0 */
    size_t address_count;
    struct str canonical;      /* after CNAMEs, for DANE (RFC 7672 section 2.2.2) */
    struct str why;            /* one sentence, for every status but HOST_OK */
};

/* What family a host has is enough: one that cannot be looked up now matters only if the other has no address. */
struct err host_addresses(const struct dns *, struct str name, unsigned families, int64_t until, struct arena *,
                          struct host_result *out);

/* iprev: the name of an address, believed only if that name leads back to the address (RFC 8601 section 3). */
enum iprev_status { IPREV_PASS, IPREV_FAIL, IPREV_NONE, IPREV_TEMPORARY };
struct iprev {
    uint8_t status;  /* enum iprev_status; NONE: the address has no name at all */
    struct str name; /* PASS: the confirmed name; FAIL: what the address claims; else absent */
};
enum { IPREV_NAMES_MAX = 5 }; /* of one address that are looked at */
struct err iprev_lookup(const struct dns *, const struct address *, int64_t until, struct arena *, struct iprev *out);

#endif
