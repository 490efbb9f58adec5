/* tls_rule - see tls_rule.h. */
#include "role/tls_rule.h"

static struct tls_policy
without_policy(const struct tls_rule *r)
{
    return (struct tls_policy){ .level = r->tls == ROUTE_TLS_OFF && !r->smtps ? TLS_NEVER : TLS_MAY,
                                .source = r->tls == ROUTE_TLS_TRY ? TLS_BY_DEFAULT : TLS_BY_RULE };
}

bool
tls_rule_begin(const struct tls_rule *r, struct str host, struct arena *arena, struct tls_policy *out)
{
    *out = without_policy(r);
    if (r->tls != ROUTE_TLS_VERIFY)
        return false;
    *out = (struct tls_policy){ .level = TLS_VERIFY, .source = TLS_BY_RULE, .names = { arena_keep(arena, host) },
                                .name_count = 1, .trust = r->trust };
    return true;
}

bool
tls_rule_end(const struct tls_rule *r, struct tls_policy *policy)
{
    bool lowers = r->tls == ROUTE_TLS_OVERRIDE && tls_policy_is_strict(policy);

    if (lowers)
        *policy = without_policy(r);
    if (policy->level < TLS_ENCRYPT && (r->tls == ROUTE_TLS_REQUIRE || r->smtps))
        *policy = (struct tls_policy){ .level = TLS_ENCRYPT, .source = TLS_BY_RULE };
    return lowers;
}
