/* prng - see prng.h. Seeded through splitmix64, as its authors advise. */
#include "base/prng.h"

#include "base/check.h"

static uint64_t
rotl(uint64_t x, int by)
{
    return x << by | x >> (64 - by);
}

void
prng_seed(struct prng *p, uint64_t seed)
{
    for (int i = 0; i < 4; i++) {
        uint64_t z = seed += 0x9e3779b97f4a7c15ULL;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
        z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
        p->s[i] = z ^ z >> 31;
    }
}

uint64_t
prng_u64(struct prng *p)
{
    uint64_t result = rotl(p->s[1] * 5, 7) * 9, t = p->s[1] << 17;

    p->s[2] ^= p->s[0];
    p->s[3] ^= p->s[1];
    p->s[1] ^= p->s[2];
    p->s[0] ^= p->s[3];
    p->s[2] ^= t;
    p->s[3] = rotl(p->s[3], 45);
    return result;
}

uint64_t
prng_below(struct prng *p, uint64_t bound)
{
    CHECK(bound > 0);
    for (;;) {
        uint64_t value = prng_u64(p);
        if (value >= bound || value >= (0 - bound) % bound) /* the second is below the first, and seldom asked */
            return value % bound;
    }
}
