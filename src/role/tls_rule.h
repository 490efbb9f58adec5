/*
 * tls_rule - what a route's `tls` makes of the policy for a host: it raises what the destination asks for, and lowers it
 * only by insecure-override. For the sender, and for `postrider tls`, which shows what the sender would do.
 */
#ifndef ROLE_TLS_RULE_H
#define ROLE_TLS_RULE_H

#include "base/arena.h"
#include "net/tls_policy.h"
#include "policy/sts_policies.h"
#include "queue/route.h"

struct tls_rule {
    uint8_t tls;     /* enum route_tls */
    bool smtps;      /* TLS from the first byte */
    const struct tls_trust *trust; /* of ROUTE_TLS_VERIFY */
};

/* Where the destination asks for nothing. True: whatever it asks for, this is the policy. */
bool tls_rule_begin(const struct tls_rule *, struct str host, struct arena *, struct tls_policy *out);
/*
 * What the recipients' domain promises by MTA-STS: in `enforce` only hosts that it names, with a certificate for their name; in
 * `testing` the same, and what does not hold is said. Its hosts may be others' too: what is refused for its sake says nothing
 * of them. answer NULL: not known now. *out stays as it is where nothing is promised, and where DANE decided; if that only
 * asks for any certificate, because no record can be used, `enforce` asks for more.
 */
void tls_rule_promise(const struct sts_answer *, struct str domain, struct str host, const struct tls_trust *, struct arena *,
                      struct tls_policy *out);
/* What the destination asked for, or what tls_rule_begin() gave, becomes the policy. True: the rule lowers it. */
bool tls_rule_end(const struct tls_rule *, struct tls_policy *);

#endif
