/* map - see map.h. Linear probing; removal moves later entries back, so there are no tombstones. */
#include "base/map.h"

#include "base/check.h"

#include <string.h>

static uint64_t
rotl(uint64_t x, int by)
{
    return x << by | x >> (64 - by);
}

static void
sip_round(uint64_t v[4])
{
    v[0] += v[1], v[1] = rotl(v[1], 13), v[1] ^= v[0], v[0] = rotl(v[0], 32);
    v[2] += v[3], v[3] = rotl(v[3], 16), v[3] ^= v[2];
    v[0] += v[3], v[3] = rotl(v[3], 21), v[3] ^= v[0];
    v[2] += v[1], v[1] = rotl(v[1], 17), v[1] ^= v[2], v[2] = rotl(v[2], 32);
}

uint64_t
hash_bytes(struct str s, uint64_t seed)
{
    uint64_t k0 = seed, k1 = seed * 0x9e3779b97f4a7c15ULL + 1;
    uint64_t v[4] = { 0x736f6d6570736575ULL ^ k0, 0x646f72616e646f6dULL ^ k1, 0x6c7967656e657261ULL ^ k0,
                      0x7465646279746573ULL ^ k1 };
    size_t at = 0;

    for (; at + 8 <= s.len; at += 8) {
        uint64_t word;
        memcpy(&word, s.ptr + at, 8);
        v[3] ^= word;
        sip_round(v);
        v[0] ^= word;
    }
    uint64_t last = (uint64_t)s.len << 56;
    for (size_t i = 0; at + i < s.len; i++)
        last |= (uint64_t)(unsigned char)s.ptr[at + i] << (8 * i);
    v[3] ^= last;
    sip_round(v);
    v[0] ^= last;
    v[2] ^= 0xff;
    for (int i = 0; i < 3; i++)
        sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

void
map_init(struct map *m, struct mem *mem, uint64_t seed)
{
    *m = (struct map){ .mem = mem, .seed = seed };
}

void
map_done(struct map *m)
{
    mem_free(m->mem, m->slots, m->cap * sizeof *m->slots);
    *m = (struct map){ .mem = m->mem, .seed = m->seed };
}

static size_t
home(const struct map *m, struct str key)
{
    return (size_t)hash_bytes(key, m->seed) & (m->cap - 1);
}

/* The slot that holds key, or the free one where it would go. */
static size_t
find(const struct map *m, struct str key)
{
    size_t at = home(m, key);

    while (m->slots[at].key.ptr && !str_eq(m->slots[at].key, key))
        at = (at + 1) & (m->cap - 1);
    return at;
}

static void
grow(struct map *m)
{
    struct map old = *m;

    m->cap = old.cap ? old.cap * 2 : 16;
    m->slots = mem_alloc(m->mem, m->cap * sizeof *m->slots);
    for (size_t i = 0; i < old.cap; i++)
        if (old.slots[i].key.ptr)
            m->slots[find(m, old.slots[i].key)] = old.slots[i];
    mem_free(m->mem, old.slots, old.cap * sizeof *old.slots);
}

void *
map_get(const struct map *m, struct str key)
{
    return m->cap ? m->slots[find(m, key)].value : NULL;
}

void *
map_put(struct map *m, struct str key, void *value)
{
    CHECK(value && key.ptr);
    if ((m->count + 1) * 4 > m->cap * 3)
        grow(m);
    struct map_slot *slot = &m->slots[find(m, key)];
    void *before = slot->value;
    m->count += slot->key.ptr == NULL;
    *slot = (struct map_slot){ key, value };
    return before;
}

void *
map_remove(struct map *m, struct str key)
{
    if (m->cap == 0)
        return NULL;
    size_t hole = find(m, key);
    void *value = m->slots[hole].value;
    if (!value)
        return NULL;
    m->count--;
    for (size_t at = hole;;) {
        m->slots[hole] = (struct map_slot){ { NULL, 0 }, NULL };
        do {
            at = (at + 1) & (m->cap - 1);
            if (!m->slots[at].key.ptr)
                return value;
        } while (((at - home(m, m->slots[at].key)) & (m->cap - 1)) < ((at - hole) & (m->cap - 1)));
        m->slots[hole] = m->slots[at];
        hole = at;
    }
}

struct map_slot *
map_next(const struct map *m, size_t *at)
{
    while (*at < m->cap) {
        struct map_slot *slot = &m->slots[(*at)++];
        if (slot->key.ptr)
            return slot;
    }
    return NULL;
}
