/* retry - see retry.h. */
#include "queue/retry.h"

#include "base/check.h"

struct retry
retry_default(void)
{
    return (struct retry){
        .steps = { 5 * MINUTE, 15 * MINUTE, 30 * MINUTE, 1 * HOUR, 2 * HOUR, 4 * HOUR },
        .step_count = 6,
        .lifetime = 5 * DAY,
        .lifetime_null = 1 * DAY,
        .delay_notice = 4 * HOUR,
    };
}

int64_t
retry_delay(const struct retry *r, uint32_t attempts, struct prng *prng)
{
    CHECK(r->step_count > 0 && r->step_count <= RETRY_STEPS_MAX);
    size_t at = attempts == 0 ? 0 : attempts - 1;
    int64_t step = r->steps[at < r->step_count ? at : r->step_count - 1];

    return step - step / 10 + (int64_t)prng_below(prng, (uint64_t)(step / 5) + 1);
}

int64_t
retry_longest(const struct retry *r)
{
    int64_t longest = 0;

    for (size_t i = 0; i < r->step_count; i++)
        longest = r->steps[i] > longest ? r->steps[i] : longest;
    return longest;
}

int64_t
retry_age(int64_t born, int64_t accepted_wall, struct moment t)
{
    int64_t running = t.now - born, wall = t.wall - accepted_wall;

    return running < wall || wall < 0 ? running : wall;
}
