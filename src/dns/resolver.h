/*
 * resolver - asks the DNS and validates what it says (DNSSEC), by libunbound inside this process. For the resolver
 * roles only: others ask by a link, through dns_cache.
 *
 * Runs on the reactor's thread through libunbound's event interface; no thread or process of its own. What libunbound
 * does happens on the reactor's own stack, since it needs more than a fiber has.
 */
#ifndef DNS_RESOLVER_H
#define DNS_RESOLVER_H

#include "dns/answer.h"

struct rt;
struct resolver;

struct resolver_settings {
    const struct address *forwarders; /* with port; 0 is 53. None: resolv_conf's name servers */
    size_t forwarder_count;
    struct str resolv_conf;  /* the text of /etc/resolv.conf. None in there either: from the root servers down */
    struct str trust_anchor; /* the text of root.key: DS or DNSKEY records, one a line. Empty: nothing is validated */
    size_t outstanding_max;  /* questions at a time, the others wait; 0: 256 */
};

/* Suspends for a moment. out_why: of an error, for people; a literal. */
struct err resolver_open(struct rt *, const struct resolver_settings *, int64_t until, struct resolver **out,
                         struct str *out_why);
/* No fiber may be in resolver_query(). */
void resolver_close(struct resolver *);

/* As struct dns wants it: no answer in time is DNS_TEMPORARY, and the only error is ERR_CANCELLED. */
struct err resolver_query(struct resolver *, struct str name, enum dns_type, int64_t until, struct arena *,
                          struct dns_answer *out);
struct dns resolver_dns(struct resolver *);
size_t resolver_outstanding(const struct resolver *);

#endif
