#include "cli/latency.h"

static const struct {
    const char *name;
    double part;
} parts[] = { { "p50", 0.5 }, { "p90", 0.9 }, { "p95", 0.95 }, { "p99", 0.99 }, { "p999", 0.999 } };
enum { PARTS = sizeof parts / sizeof *parts };

static size_t
bucket_of(int64_t ns)
{
    uint64_t us = ns > 0 ? (uint64_t)ns / 1000 : 0;

    if (us < 1u << LATENCY_BITS)
        return us;
    unsigned power = 63u - (unsigned)__builtin_clzll(us);
    return ((size_t)(power - LATENCY_BITS + 1) << LATENCY_BITS) + (us >> (power - LATENCY_BITS)) - (1u << LATENCY_BITS);
}

/* The upper edge of a bucket, in milliseconds. */
static double
bucket_ms(size_t bucket)
{
    if (bucket < 1u << LATENCY_BITS)
        return (double)(bucket + 1) / 1000;
    size_t power = (bucket >> LATENCY_BITS) - 1, step = bucket & ((1u << LATENCY_BITS) - 1);
    return (double)((step + (1u << LATENCY_BITS) + 1) << power) / 1000;
}

static double
max_ms(const struct latency *l)
{
    return (double)l->max / 1e6;
}

void
latency_add(struct latency *l, int64_t ns)
{
    l->bucket[bucket_of(ns)]++;
    l->count++;
    if (ns > l->max)
        l->max = ns;
}

double
latency_percentile(const struct latency *l, double part)
{
    uint64_t seen = 0;

    for (size_t i = 0; i < LATENCY_BUCKETS; i++) {
        seen += l->bucket[i];
        if (seen > 0 && (double)seen >= (double)l->count * part)
            return bucket_ms(i) < max_ms(l) ? bucket_ms(i) : max_ms(l);
    }
    return 0;
}

void
latency_put_json(struct text *t, const struct latency *l)
{
    text_put_byte(t, '{');
    for (size_t i = 0; i < PARTS; i++)
        text_putf(t, "\"%s\":%.3f,", parts[i].name, latency_percentile(l, parts[i].part));
    text_putf(t, "\"max\":%.3f}", max_ms(l));
}

void
latency_put_words(struct text *t, const struct latency *l)
{
    for (size_t i = 0; i < PARTS; i++)
        text_putf(t, " %s %.2f", parts[i].name, latency_percentile(l, parts[i].part));
    text_putf(t, " max %.2f", max_ms(l));
}
