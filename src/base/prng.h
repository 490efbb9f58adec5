/*
 * prng - xoshiro256**: repeatable from its seed; for jitter, shuffles, ids and tests, never for secrets.
 */
#ifndef BASE_PRNG_H
#define BASE_PRNG_H

#include <stdint.h>

struct prng {
    uint64_t s[4];
};

void     prng_seed(struct prng *, uint64_t seed);
uint64_t prng_u64(struct prng *);
uint64_t prng_below(struct prng *, uint64_t bound); /* 0 .. bound-1, without bias; bound > 0 */

#endif
