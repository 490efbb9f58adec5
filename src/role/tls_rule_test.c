/* What a route's `tls` makes of what a destination asks for. */
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

TEST_MAIN({ "raises, and lowers only by override", raises_and_lowers_only_by_override },
          { "DANE beats a promise", dane_beats_a_promise })
