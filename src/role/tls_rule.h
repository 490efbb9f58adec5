/*
 * tls_rule - which policy a host is spoken to by, in the order of net/tls_policy.h: the route's `tls`, DANE, MTA-STS, else
 * whatever is offered. The route raises what the destination asks for, and lowers it only by insecure-override. For the
 * sender, and for `postrider tls`, which shows what the sender would do.
 */
#ifndef ROLE_TLS_RULE_H
#define ROLE_TLS_RULE_H

#include "base/arena.h"
#include "net/tls_policy.h"
#include "policy/dane.h"
#include "policy/sts_policies.h"
#include "queue/route.h"

struct tls_rule {
    uint8_t tls;     /* enum route_tls */
    bool smtps;      /* TLS from the first byte */
    const struct tls_trust *trust; /* of ROUTE_TLS_VERIFY, and of whoever promises; for others it may be NULL */
};

struct tls_candidate { /* a host that mail might go to */
    struct dane_hop hop;
    bool minds_dane;                 /* SMTP, and DNSSEC or the configuration vouches for its name */
    struct str promise_domain;       /* whose MTA-STS policy counts; absent: nobody's */
    const struct sts_answer *answer; /* what that is; NULL: not known now */
    bool optional;                   /* TLS-Required: No lets go what the destination asks for, and not what the route does */
};

struct tls_decision {
    struct tls_policy policy, asked; /* asked: before the rule lowers or raises it */
    bool lowered;                    /* by insecure-override */
};

/* An error: whether there are TLSA records could not be asked. To a message for which TLS is optional that is no hindrance. */
struct err tls_rule_decide(const struct tls_rule *, const struct tls_candidate *, const struct dns *, struct mem *,
                           int64_t until, struct arena *, struct tls_decision *out);
/*
 * What the recipients' domain promises by MTA-STS: in `enforce` only hosts that it names, with a certificate for their name; in
 * `testing` the same, and what does not hold is said. Its hosts may be others' too: what is refused for its sake says nothing
 * of them. answer NULL: not known now. *out stays as it is where nothing is promised, and where DANE decided; if that only
 * asks for any certificate, because no record can be used, `enforce` asks for more.
 */
void tls_rule_promise(const struct sts_answer *, struct str domain, struct str host, const struct tls_trust *, struct arena *,
                      struct tls_policy *out);
/* What the destination asks for, or where that is nothing whatever is offered, becomes the policy. True: the rule lowers it. */
bool tls_rule_end(const struct tls_rule *, struct tls_policy *);

#endif
