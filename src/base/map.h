/*
 * map - bytes to pointer, open addressing, keyed hash (the seed comes from the runtime's randomness, so that a stranger
 * cannot choose collisions). The map borrows the key's bytes: they must live as long as the entry.
 * Iteration is in slot order: with one seed and one history it is always the same.
 */
#ifndef BASE_MAP_H
#define BASE_MAP_H

#include "base/mem.h"
#include "base/str.h"

struct map_slot {
    struct str key; /* ptr NULL: free */
    void *value;
};

struct map {
    struct mem *mem;
    struct map_slot *slots;
    size_t count, cap; /* cap: 0 or a power of two */
    uint64_t seed;
};

void   map_init(struct map *, struct mem *, uint64_t seed);
void   map_done(struct map *); /* not the values */
void  *map_get(const struct map *, struct str key);             /* NULL: none */
void  *map_put(struct map *, struct str key, void *value);      /* value not NULL; returns the one it replaces, or NULL */
void  *map_remove(struct map *, struct str key);                /* returns the value taken out, or NULL */
/* for (size_t at = 0; (slot = map_next(m, &at));) — the map must not change meanwhile. */
struct map_slot *map_next(const struct map *, size_t *at);

uint64_t hash_bytes(struct str, uint64_t seed); /* SipHash-1-3 */

#endif
