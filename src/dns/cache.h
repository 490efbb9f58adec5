/*
 * cache - answers kept for as long as they may be believed, in front of a resolver that lives in another role.
 *
 * Negative answers are kept too (RFC 2308); temporary ones never. Bounded in bytes: what was used longest ago goes
 * first. A kept answer's TTL counts down. Not for fibers to share across roles: one cache, one role.
 */
#ifndef DNS_CACHE_H
#define DNS_CACHE_H

#include "dns/answer.h"

struct rt;
struct dns_cache;

/* behind must outlive the cache. bytes_max: of all it holds, its own overhead included. */
struct dns_cache *dns_cache_new(struct rt *, const struct dns *behind, size_t bytes_max);
void dns_cache_free(struct dns_cache *);
struct dns dns_cache_dns(struct dns_cache *); /* whom to ask */
void dns_cache_clear(struct dns_cache *);

struct dns_cache_counts {
    uint64_t hits, misses;
    size_t entries, bytes;
};
struct dns_cache_counts dns_cache_counts(const struct dns_cache *);

#endif
