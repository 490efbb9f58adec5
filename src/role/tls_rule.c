/* tls_rule - see tls_rule.h. */
#include "role/tls_rule.h"

static struct tls_policy
without_policy(const struct tls_rule *r)
{
    return (struct tls_policy){ .level = r->tls == ROUTE_TLS_OFF && !r->smtps ? TLS_NEVER : TLS_MAY,
                                .source = r->tls == ROUTE_TLS_TRY ? TLS_BY_DEFAULT : TLS_BY_RULE };
}

/* Where the destination asks for nothing. True: whatever it asks for, this is the policy. */
static bool
begin(const struct tls_rule *r, struct str host, struct arena *arena, struct tls_policy *out)
{
    *out = without_policy(r);
    if (r->tls != ROUTE_TLS_VERIFY)
        return false;
    *out = (struct tls_policy){ .level = TLS_VERIFY, .source = TLS_BY_RULE, .names = { arena_keep(arena, host) },
                                .name_count = 1, .trust = r->trust };
    return true;
}

/* Where the destination itself asks for nothing *out stays as it is. */
static struct err
ask_destination(const struct tls_rule *r, const struct tls_candidate *c, const struct dns *dns, struct mem *mem, int64_t until,
                struct arena *arena, struct tls_policy *out)
{
    struct arena scratch;
    bool found;

    if (c->minds_dane) {
        arena_init(&scratch, mem, 4096, DANE_SCRATCH_BYTES);
        struct err e = dane_lookup(dns, &c->hop, until, &scratch, arena, out, &found);
        arena_done(&scratch);
        TRY(e);
    }
    if (!str_is_absent(c->promise_domain))
        tls_rule_promise(c->answer, c->promise_domain, c->hop.host, r->trust, arena, out);
    return OK;
}

struct err
tls_rule_decide(const struct tls_rule *r, const struct tls_candidate *c, const struct dns *dns, struct mem *mem, int64_t until,
                struct arena *arena, struct tls_decision *out)
{
    struct tls_decision d = { .lowered = false };

    if (!begin(r, c->hop.host, arena, &d.policy)) {
        struct err e = ask_destination(r, c, dns, mem, until, arena, &d.policy);
        if (err_is(e) && (!c->optional || e.kind == ERR_CANCELLED))
            return e;
        if (c->optional && (d.policy.source == TLS_BY_DANE || d.policy.source == TLS_BY_STS))
            d.policy.testing = true;
    }
    d.asked = d.policy;
    d.lowered = tls_rule_end(r, &d.policy);
    *out = d;
    return OK;
}

void
tls_rule_promise(const struct sts_answer *a, struct str domain, struct str host, const struct tls_trust *trust,
                 struct arena *arena, struct tls_policy *out)
{
    bool binds = a && a->found && a->policy.mode != STS_NONE;

    /* DANE's word stands, unless all it found were records that nobody can use: that shall not undo a promise. */
    if (out->source == TLS_BY_DANE && (out->level != TLS_ENCRYPT || (a && !(binds && a->policy.mode == STS_ENFORCE))))
        return;
    if (a && !binds && a->result == TLS_RESULT_OK)
        return;
    out->source = TLS_BY_STS;
    out->domain = domain;
    if (!a) {
        out->level = TLS_REFUSED;
        out->result = TLS_RESULT_STS_FETCH_ERROR;
        out->why = S("whether the domain has an MTA-STS policy cannot be known now");
    } else if (!binds) { /* RFC 8461 section 3.3: as if it had none */
        out->result = a->result;
        out->why = a->why;
    } else if (!sts_policy_allows(&a->policy, host)) {
        out->level = TLS_REFUSED;
        out->testing = a->policy.mode == STS_TESTING;
        out->result = TLS_RESULT_VALIDATION_FAILURE;
        out->why = S("the domain's MTA-STS policy does not name this host");
    } else {
        *out = (struct tls_policy){ .level = TLS_VERIFY, .source = TLS_BY_STS, .testing = a->policy.mode == STS_TESTING,
                                    .domain = domain, .names = { arena_keep(arena, host) }, .name_count = 1, .trust = trust };
    }
}

bool
tls_rule_end(const struct tls_rule *r, struct tls_policy *policy)
{
    bool lowers = r->tls == ROUTE_TLS_OVERRIDE && tls_policy_is_strict(policy);

    if (lowers)
        *policy = without_policy(r);
    if (!tls_policy_is_strict(policy) && (r->tls == ROUTE_TLS_REQUIRE || r->smtps)) /* who only tests asks for nothing */
        *policy = (struct tls_policy){ .level = TLS_ENCRYPT, .source = TLS_BY_RULE };
    return lowers;
}
