/*
 * retry - when to try again, and when to give up: standards 5.7. Pure.
 */
#ifndef QUEUE_RETRY_H
#define QUEUE_RETRY_H

#include "base/limits.h"
#include "base/prng.h"

#include <stddef.h>

/* One instant on both clocks. `now` is monotonic and orders everything; `wall` (ns since 1970) is for what must outlive
 * the process, and may jump. */
struct moment {
    int64_t now, wall;
};

enum { RETRY_STEPS_MAX = 16 };
struct retry {
    int64_t steps[RETRY_STEPS_MAX]; /* after the first attempt, the second, ...; the last one repeats */
    size_t step_count;              /* at least 1 */
    int64_t lifetime;               /* older mail fails */
    int64_t lifetime_null;          /* of mail from the null sender, if that is less */
    int64_t delay_notice;           /* the sender is told of the delay after this time, once; 0: never */
};

/* 5m 15m 30m 1h 2h 4h, then every 4h, for 5 days; 1 day for the null sender; delay notice after 4 h. */
struct retry retry_default(void);

/* How long to wait after the attempts'th attempt (1 is the first): the step, up to a tenth more or less, so that what
 * failed together does not come back together. */
int64_t retry_delay(const struct retry *, uint32_t attempts, struct prng *);

int64_t retry_longest(const struct retry *); /* of the steps */

/*
 * How long the message has been ours: accumulated running time of the spool or wall clock, whichever is smaller, so
 * neither a machine that was off for a week nor a clock that jumps ahead fails mail that was hardly tried. A wall clock
 * that stands before the acceptance is wrong, and does not count: or such mail would be tried for ever. `born` is
 * the monotonic time at which its running time would have been 0. Below 0: it is to begin only then (RFC 4865).
 */
int64_t retry_age(int64_t born, int64_t accepted_wall, struct moment);

#endif
