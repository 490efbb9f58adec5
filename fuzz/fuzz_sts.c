/*
 * fuzz_sts - MTA-STS: a TXT record, and a policy with a host's name behind it.
 *
 * Aims at: policy/sts.c
 * Seeds:   policy/sts_test.c mta-sts/
 * Longest: 2000
 * Test:    100000 runs
 *
 * A policy's patterns are names of the body, and each allows what it says: itself, or one label more. Written down from what
 * was read, the same policy is read again.
 */
#include "fuzz.h"

#include "policy/sts.h"

static void
check_pattern(const struct sts_policy *policy, struct str pattern, struct arena *arena)
{
    CHECK(pattern.len > 0 && str_is_ascii(pattern));
    if (!str_take(&pattern, S("*."))) {
        CHECK(sts_policy_allows(policy, pattern));
        return;
    }
    const struct sts_policy alone = { .mx = &(struct str){ arena_join(arena, S("*."), pattern).ptr, pattern.len + 2 }, .mx_count = 1 };
    CHECK(sts_policy_allows(policy, arena_join(arena, S("x."), pattern)));
    CHECK(!sts_policy_allows(&alone, pattern));
    CHECK(!sts_policy_allows(&alone, arena_join(arena, S("x.y."), pattern)));
}

static void
check_policy(const struct sts_policy *policy, struct arena *arena)
{
    struct text t = fuzz_text(arena, STS_BODY_MAX);
    struct sts_policy again;
    struct str why;

    CHECK(policy->mode < STS_MODES && policy->max_age <= STS_MAX_AGE_MAX);
    CHECK(policy->mx_count > 0 || policy->mode == STS_NONE);
    text_putf(&t, "version: STSv1\r\nmode: %.*s\r\nmax_age: %u\r\n", STR_ARG(sts_mode_name(policy->mode)), policy->max_age);
    for (size_t i = 0; i < policy->mx_count; i++) {
        check_pattern(policy, policy->mx[i], arena);
        text_putf(&t, "mx: %.*s\r\n", STR_ARG(policy->mx[i]));
    }
    CHECK(!t.full && sts_policy_parse(text_str(&t), arena, &again, &why));
    CHECK(again.mode == policy->mode && again.max_age == policy->max_age && again.mx_count == policy->mx_count);
    for (size_t i = 0; i < policy->mx_count; i++)
        CHECK(str_eq(again.mx[i], policy->mx[i]));
}

void
fuzz_one(struct str input, struct arena *arena)
{
    struct dns_record two[2] = { { .data = input }, { .data = S("v=STSv1; id=2") } };
    struct str rest = input, id, why = S("");
    struct sts_policy policy;

    if (sts_record_parse(input, &id)) {
        CHECK(id.len > 0 && id.len <= STS_ID_MAX && sts_records_parse(two, 1, &id) && !sts_records_parse(two, 2, &id));
    } else {
        CHECK(!sts_records_parse(two, 1, &id));
    }
    struct str body = fuzz_field(&rest);
    if (sts_policy_parse(body, arena, &policy, &why))
        check_policy(&policy, arena);
    else
        CHECK(why.len > 0);
    if (why.len == 0)
        (void)sts_policy_allows(&policy, rest);
}
