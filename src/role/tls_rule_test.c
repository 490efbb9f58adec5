/* Which policy a host is spoken to by: what a route's `tls` makes of what a destination asks for. */
#include "role/tls_rule.h"

#include "base/test.h"

static const struct {
    const char *why;
    uint8_t rule;
    bool smtps;
    struct tls_policy asked, expected;
    bool lowers;
} rules[] = {
    { "as the destination asks for", ROUTE_TLS_TRY, false, { .level = TLS_DANE, .source = TLS_BY_DANE },
      { .level = TLS_DANE, .source = TLS_BY_DANE }, false },
    { "testing stays testing", ROUTE_TLS_TRY, false, { .level = TLS_VERIFY, .source = TLS_BY_STS, .testing = true },
      { .level = TLS_VERIFY, .source = TLS_BY_STS, .testing = true }, false },
    { "raised", ROUTE_TLS_REQUIRE, false, { .level = TLS_MAY }, { .level = TLS_ENCRYPT, .source = TLS_BY_RULE }, false },
    { "what asks for more stays", ROUTE_TLS_REQUIRE, false, { .level = TLS_VERIFY, .source = TLS_BY_STS },
      { .level = TLS_VERIFY, .source = TLS_BY_STS }, false },
    { "testing asks for nothing, and is raised", ROUTE_TLS_REQUIRE, false,
      { .level = TLS_VERIFY, .source = TLS_BY_STS, .testing = true }, { .level = TLS_ENCRYPT, .source = TLS_BY_RULE }, false },
    { "nor does a host that a policy in testing does not name", ROUTE_TLS_REQUIRE, false,
      { .level = TLS_REFUSED, .source = TLS_BY_STS, .testing = true }, { .level = TLS_ENCRYPT, .source = TLS_BY_RULE }, false },
    { "TLS from the first byte", ROUTE_TLS_TRY, true, { .level = TLS_VERIFY, .source = TLS_BY_STS, .testing = true },
      { .level = TLS_ENCRYPT, .source = TLS_BY_RULE }, false },
    { "a host that is refused stays refused", ROUTE_TLS_REQUIRE, false, { .level = TLS_REFUSED, .source = TLS_BY_DANE },
      { .level = TLS_REFUSED, .source = TLS_BY_DANE }, false },
    { "off lowers nothing", ROUTE_TLS_OFF, false, { .level = TLS_DANE, .source = TLS_BY_DANE },
      { .level = TLS_DANE, .source = TLS_BY_DANE }, false },
    { "lowered", ROUTE_TLS_OVERRIDE, false, { .level = TLS_DANE, .source = TLS_BY_DANE },
      { .level = TLS_MAY, .source = TLS_BY_RULE }, true },
};

static void
raises_and_lowers_only_by_override(struct test *t)
{
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
        const struct tls_rule rule = { rules[i].rule, rules[i].smtps, NULL };
        struct tls_policy policy = rules[i].asked;

        test_case(t, rules[i].why);
        EXPECT(t, tls_rule_end(&rule, &policy) == rules[i].lowers);
        EXPECT_INT(t, policy.level, rules[i].expected.level);
        EXPECT_INT(t, policy.source, rules[i].expected.source);
        EXPECT(t, tls_policy_is_strict(&policy) == tls_policy_is_strict(&rules[i].expected));
    }
}

static const struct {
    const char *why;
    struct tls_policy dane;
    bool known, found;
    uint8_t mode;
    struct str mx;
    uint8_t level, source;
} promises[] = {
    { "nothing from DANE", { .level = TLS_MAY }, true, true, STS_ENFORCE, STR("mx.test"), TLS_VERIFY, TLS_BY_STS },
    { "DANE beats it", { .level = TLS_DANE, .source = TLS_BY_DANE }, true, true, STS_ENFORCE, STR("mx.test"), TLS_DANE,
      TLS_BY_DANE },
    { "it does not rescue what DANE refuses", { .level = TLS_REFUSED, .source = TLS_BY_DANE }, true, true, STS_ENFORCE,
      STR("mx.test"), TLS_REFUSED, TLS_BY_DANE },
    { "nor does it veto", { .level = TLS_DANE, .source = TLS_BY_DANE }, true, true, STS_ENFORCE, STR("other.test"), TLS_DANE,
      TLS_BY_DANE },
    { "records that cannot be used undo no promise", { .level = TLS_ENCRYPT, .source = TLS_BY_DANE }, true, true, STS_ENFORCE,
      STR("mx.test"), TLS_VERIFY, TLS_BY_STS },
    { "nor for a host that it does not name", { .level = TLS_ENCRYPT, .source = TLS_BY_DANE }, true, true, STS_ENFORCE,
      STR("other.test"), TLS_REFUSED, TLS_BY_STS },
    { "who tests lowers nothing", { .level = TLS_ENCRYPT, .source = TLS_BY_DANE }, true, true, STS_TESTING, STR("other.test"),
      TLS_ENCRYPT, TLS_BY_DANE },
    { "nor who promises nothing", { .level = TLS_ENCRYPT, .source = TLS_BY_DANE }, true, false, STS_NONE, STR("mx.test"),
      TLS_ENCRYPT, TLS_BY_DANE },
    { "perhaps it promises more", { .level = TLS_ENCRYPT, .source = TLS_BY_DANE }, false, false, STS_NONE, STR("mx.test"),
      TLS_REFUSED, TLS_BY_STS },
};

static void
dane_beats_a_promise(struct test *t)
{
    for (size_t i = 0; i < sizeof promises / sizeof *promises; i++) {
        struct str mx = promises[i].mx;
        const struct sts_answer answer = { .found = promises[i].found,
                                           .policy = { .mode = promises[i].mode, .mx = &mx, .mx_count = 1 },
                                           .why = S("") };
        struct tls_policy policy = promises[i].dane;
        struct mem mem = mem_libc();
        struct arena arena;

        test_case(t, promises[i].why);
        arena_init(&arena, &mem, 512, 4096);
        tls_rule_promise(promises[i].known ? &answer : NULL, S("example.test"), S("mx.test"), NULL, &arena, &policy);
        EXPECT_INT(t, policy.level, promises[i].level);
        EXPECT_INT(t, policy.source, promises[i].source);
        EXPECT(t, !policy.testing);
        arena_done(&arena);
    }
}

enum { MINDS_DANE = 1, RECORD = 2, PROMISE = 4, OPTIONAL = 8, LOST = 16, CANCELLED = 32 }; /* the last two: the DNS's answer */

static const struct {
    const char *why;
    uint8_t rule;
    unsigned with;
    size_t questions;
    struct str expected; /* "dane by dane, asked dane" */
} decisions[] = {
    { "nobody asks for anything", ROUTE_TLS_TRY, MINDS_DANE, 1, STR("may by default, asked may") },
    { "the route's rule comes first, and nothing is asked", ROUTE_TLS_VERIFY, MINDS_DANE | LOST | PROMISE, 0,
      STR("verify by rule, asked verify") },
    { "then DANE", ROUTE_TLS_TRY, MINDS_DANE | RECORD | PROMISE, 1, STR("dane by dane, asked dane") },
    { "then MTA-STS", ROUTE_TLS_TRY, MINDS_DANE | PROMISE, 1, STR("verify by sts, asked verify") },
    { "nobody vouches for the host's name", ROUTE_TLS_TRY, RECORD | PROMISE, 0, STR("verify by sts, asked verify") },
    { "raised", ROUTE_TLS_REQUIRE, MINDS_DANE, 1, STR("encrypt by rule, asked may") },
    { "lowered", ROUTE_TLS_OVERRIDE, MINDS_DANE | RECORD, 1, STR("may by rule, asked dane, lowered") },
    { "optional: DANE is only told of", ROUTE_TLS_TRY, OPTIONAL | MINDS_DANE | RECORD, 1,
      STR("dane by dane, testing, asked dane") },
    { "optional: MTA-STS likewise", ROUTE_TLS_TRY, OPTIONAL | MINDS_DANE | PROMISE, 1,
      STR("verify by sts, testing, asked verify") },
    { "optional: that lowers nothing else", ROUTE_TLS_OVERRIDE, OPTIONAL | MINDS_DANE | RECORD, 1,
      STR("dane by dane, testing, asked dane") },
    { "optional: what the route asks for stays", ROUTE_TLS_REQUIRE, OPTIONAL | MINDS_DANE | RECORD, 1,
      STR("encrypt by rule, asked dane") },
    { "optional: and so does its rule", ROUTE_TLS_VERIFY, OPTIONAL | MINDS_DANE | RECORD, 0, STR("verify by rule, asked verify") },
    { "the DNS does not answer", ROUTE_TLS_TRY, MINDS_DANE | LOST | PROMISE, 1, STR("timeout") },
    { "optional: then nothing is asked for", ROUTE_TLS_TRY, OPTIONAL | MINDS_DANE | LOST | PROMISE, 1,
      STR("may by default, asked may") },
    { "optional: but by the route", ROUTE_TLS_REQUIRE, OPTIONAL | MINDS_DANE | LOST, 1, STR("encrypt by rule, asked may") },
    { "optional: who is called off ends", ROUTE_TLS_TRY, OPTIONAL | MINDS_DANE | CANCELLED, 1, STR("cancelled") },
};

struct zone {
    unsigned with;
    size_t questions;
};

static struct err
zone_query(void *arg, struct str name, enum dns_type type, int64_t until, struct arena *arena, struct dns_answer *out)
{
    struct zone *zone = arg;

    (void)name;
    (void)until;
    zone->questions++;
    if (zone->with & LOST)
        return ERR(ERR_TIMEOUT, "ask");
    if (zone->with & CANCELLED)
        return ERR(ERR_CANCELLED, "ask");
    *out = (struct dns_answer){ .status = DNS_NODATA, .security = DNS_SECURE, .type = (uint16_t)type };
    if (zone->with & RECORD) {
        out->status = DNS_FOUND;
        out->records = arena_new(arena, struct dns_record);
        out->records[out->count++] = (struct dns_record){ .usage = 3, .selector = 1, .matching = 1,
                                                          .data = S("0123456789abcdef0123456789abcdef") };
    }
    return OK;
}

static struct str
show(struct err e, const struct tls_decision *d, struct arena *arena)
{
    if (err_is(e))
        return e.kind == ERR_TIMEOUT ? S("timeout") : e.kind == ERR_CANCELLED ? S("cancelled") : S("another error");
    return arena_printf(arena, "%.*s by %.*s%s, asked %.*s%s", STR_ARG(tls_level_name(d->policy.level)),
                        STR_ARG(tls_source_name(d->policy.source)), d->policy.testing ? ", testing" : "",
                        STR_ARG(tls_level_name(d->asked.level)), d->lowered ? ", lowered" : "");
}

static void
decides_in_order(struct test *t)
{
    struct str mx = S("mx.test");
    const struct sts_answer promise = { .found = true, .policy = { .mode = STS_ENFORCE, .mx = &mx, .mx_count = 1 }, .why = S("") };
    struct mem mem = mem_libc();

    for (size_t i = 0; i < sizeof decisions / sizeof *decisions; i++) {
        unsigned with = decisions[i].with;
        struct zone zone = { with, 0 };
        const struct dns dns = { zone_query, &zone };
        const struct tls_rule rule = { decisions[i].rule, false, NULL };
        const struct tls_candidate candidate = {
            .hop = { mx, mx, true, false, 25, S("example.test") }, .minds_dane = with & MINDS_DANE,
            .promise_domain = with & PROMISE ? S("example.test") : (struct str){ NULL, 0 }, .answer = &promise,
            .optional = with & OPTIONAL,
        };
        struct tls_decision d;
        struct arena arena;

        test_case(t, decisions[i].why);
        arena_init(&arena, &mem, 512, 4096);
        struct err e = tls_rule_decide(&rule, &candidate, &dns, &mem, 0, &arena, &d);
        EXPECT_STR(t, show(e, &d, &arena), decisions[i].expected);
        EXPECT_INT(t, zone.questions, decisions[i].questions);
        arena_done(&arena);
    }
}

TEST_MAIN({ "raises, and lowers only by override", raises_and_lowers_only_by_override },
          { "DANE beats a promise", dane_beats_a_promise }, { "decides in order", decides_in_order })
