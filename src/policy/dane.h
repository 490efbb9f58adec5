/*
 * dane - what TLSA records ask of the connection to an SMTP server: RFC 7672, with RFC 6698 and RFC 7671.
 *
 * Only where DNSSEC vouches for all of the way there: the MX records (or the configuration), the host's addresses, the
 * TLSA records. Who cannot tell us that there are none (a server failure, a bogus answer) keeps us from that host: or
 * whoever is between could take the records away.
 */
#ifndef POLICY_DANE_H
#define POLICY_DANE_H

#include "dns/answer.h"
#include "net/tls_policy.h"

struct dane_hop {
    struct str host;      /* as the MX record or the configuration names it */
    struct str canonical; /* behind its CNAMEs; absent: not a name */
    bool secure;          /* DNSSEC vouches for its addresses */
    bool aliased;         /* it is a CNAME */
    uint16_t port;
    struct str domain;    /* whose MX it is: a certificate may be for that instead; absent: nobody's, or of several */
};

/*
 * False in *out_found: DANE has nothing to say, and *out is as it was. Else TLS_DANE; TLS_ENCRYPT, where there are records
 * and we can use none of them (section 2.2); or TLS_REFUSED. *out lives in the arena; scratch needs DANE_SCRATCH_BYTES.
 */
struct err dane_lookup(const struct dns *, const struct dane_hop *, int64_t until, struct arena *scratch, struct arena *,
                       struct tls_policy *out, bool *out_found);
enum { DANE_SCRATCH_BYTES = 4 * DNS_ARENA_BYTES };

/* What one secure answer asks for. base: the name that the records are for. */
struct tls_policy dane_policy_of(const struct dns_answer *, const struct dane_hop *, struct str base, struct arena *);

#endif
