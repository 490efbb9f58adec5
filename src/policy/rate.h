/*
 * rate - how often something may happen, and how much of it at once: token buckets, and sessions counted by client.
 *
 * Pure but for memory; times are monotonic ns that the caller passes.
 */
#ifndef POLICY_RATE_H
#define POLICY_RATE_H

#include "base/address.h"
#include "base/mem.h"

/* "100/h" with a burst of 1 is one every 36 seconds; with a burst of 100, all at once and then none for an hour. */
struct rate {
    uint32_t count; /* 0: no limit */
    uint32_t burst; /* 0 counts as 1 */
    int64_t per;    /* ns */
};

/* A token bucket. Zeroed is full. */
struct bucket {
    int64_t full_at; /* when it is full again, if nothing more is taken */
};
bool    bucket_take(struct bucket *, struct rate, int64_t now); /* false: empty, and nothing was taken */
int64_t bucket_ready_at(const struct bucket *, struct rate);    /* from then on a take succeeds */

/*
 * clients - how many sessions each client (IPv4 address, or IPv6 /64) has. Bounded: at most `entries_max` clients have any;
 * a stranger beyond is refused.
 */
struct clients;
struct clients *clients_new(struct mem *, uint64_t seed, uint32_t entries_max);
void clients_free(struct clients *);
/* One more session, unless it would be more than sessions_max: then false, and nothing is counted. */
bool clients_enter(struct clients *, const struct address *, uint32_t sessions_max);
/* The session that clients_enter() let in has ended. */
void clients_leave(struct clients *, const struct address *);
uint32_t clients_sessions(const struct clients *, const struct address *);
size_t clients_known(const struct clients *);

#endif
