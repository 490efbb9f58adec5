/*
 * latency - how long things took, for load and sink: counted in buckets of 3 percent, told as percentiles.
 */
#ifndef CLI_LATENCY_H
#define CLI_LATENCY_H

#include "base/str.h"

enum {
    LATENCY_BITS = 5, /* 32 buckets for each power of two, from 1 us */
    LATENCY_BUCKETS = 64 << LATENCY_BITS,
    LATENCY_TEXT = 160, /* what latency_put_json() writes at most */
};

struct latency { /* all zero: nothing yet */
    uint64_t bucket[LATENCY_BUCKETS];
    uint64_t count;
    int64_t max; /* ns */
};

void latency_add(struct latency *, int64_t ns);

/* In ms: what the share `part` of all, 0 to 1, did not exceed, to 3 percent. 0 of nothing. */
double latency_percentile(const struct latency *, double part);

/* In ms: {"p50":1.234,"p90":...,"p95":...,"p99":...,"p999":...,"max":...}; for people " p50 1.23 ... max 5.67". */
void latency_put_json(struct text *, const struct latency *);
void latency_put_words(struct text *, const struct latency *);

#endif
