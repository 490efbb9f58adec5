/* Percentiles from buckets. */
#include "cli/latency.h"

#include "base/test.h"

static void
percentiles_are_close(struct test *t)
{
    static const struct {
        const char *why;
        int64_t step; /* ns: a thousand values, one step from each other */
    } cases[] = {
        { "microseconds, each in a bucket of its own", 1000 },
        { "milliseconds", 1000000 },
        { "minutes", INT64_C(60000000000) },
    };
    static struct latency l;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        test_case(t, cases[i].why);
        l = (struct latency){ 0 };
        for (int64_t n = 1; n <= 1000; n++)
            latency_add(&l, n * cases[i].step);
        for (int p = 10; p <= 100; p += 10) {
            double found = latency_percentile(&l, p / 100.0), exact = (double)(p * 10 * cases[i].step) / 1e6;
            EXPECT(t, found >= exact * 0.999 && found <= exact * 1.035 + 0.001);
        }
    }
}

static void
edges(struct test *t)
{
    static struct latency l;
    char memory[LATENCY_TEXT];
    struct text out = text_init(memory, sizeof memory);

    test_case(t, "nothing took no time");
    latency_put_json(&out, &l);
    EXPECT_STR(t, text_str(&out),
               S("{\"p50\":0.000,\"p90\":0.000,\"p95\":0.000,\"p99\":0.000,\"p999\":0.000,\"max\":0.000}"));

    test_case(t, "the longest time is exact, and the longest text fits");
    latency_add(&l, INT64_MAX);
    out.len = 0;
    latency_put_json(&out, &l);
    EXPECT(t, str_ends(text_str(&out), S("\"max\":9223372036854.775}")) ||
                  str_ends(text_str(&out), S("\"max\":9223372036854.776}")));
    out.len = 0;
    latency_put_words(&out, &l);
    EXPECT(t, out.len < LATENCY_TEXT);
    test_case(t, "a clock that went back");
    latency_add(&l, -5);
    EXPECT(t, latency_percentile(&l, 0.5) <= 0.001);
}

TEST_MAIN({ "percentiles are close", percentiles_are_close }, { "edges", edges })
