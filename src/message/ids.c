/* ids - see ids.h. Linear probing; removal moves later entries back. */
#include "message/ids.h"

#include "base/check.h"

enum { CAP_MIN = 8, AT_SLOT_BITS = 32 };

void
ids_init(struct ids *ids, struct mem *mem, uint64_t seed)
{
    *ids = (struct ids){ .mem = mem, .seed = seed };
}

void
ids_done(struct ids *ids)
{
    for (size_t i = 0; i < IDS_TABLES; i++)
        mem_free(ids->mem, ids->tables[i].slots, ids->tables[i].cap * sizeof *ids->tables[i].slots);
    ids_init(ids, ids->mem, ids->seed);
}

/* Each bit of both halves and of the seed moves the table and the slot. A tenth of what a map's hash takes: it is asked
 * several times for each message, and ids are not chosen by strangers. */
static uint64_t
hash(const struct ids *ids, struct message_id id)
{
    uint64_t x = (id.lo ^ ids->seed) * 0x9e3779b97f4a7c15ULL;

    x = (x ^ x >> 32 ^ id.hi) * 0xd6e8feb86659fd93ULL;
    x = (x ^ x >> 32) * 0xd6e8feb86659fd93ULL;
    return x ^ x >> 32;
}

/* Bits that home() does not look at. */
static size_t
table_of(uint64_t hash)
{
    return (size_t)(hash >> 32) % IDS_TABLES;
}

static size_t
home(const struct ids_table *table, uint64_t hash)
{
    return (size_t)hash & (table->cap - 1);
}

/* The slot that holds id, or the free one where it would go. */
static size_t
find(const struct ids_table *table, uint64_t hash, struct message_id id)
{
    size_t at = home(table, hash);

    while (table->slots[at] && !message_id_eq(*table->slots[at], id))
        at = (at + 1) & (table->cap - 1);
    return at;
}

static void
resize(struct ids *ids, struct ids_table *table, uint32_t cap)
{
    struct ids_table old = *table;

    table->cap = cap;
    table->slots = mem_alloc(ids->mem, cap * sizeof *table->slots);
    for (size_t i = 0; i < old.cap; i++)
        if (old.slots[i])
            table->slots[find(table, hash(ids, *old.slots[i]), *old.slots[i])] = old.slots[i];
    mem_free(ids->mem, old.slots, old.cap * sizeof *old.slots);
}

void *
ids_get(const struct ids *ids, struct message_id id)
{
    uint64_t h = hash(ids, id);
    const struct ids_table *table = &ids->tables[table_of(h)];

    return table->cap ? table->slots[find(table, h, id)] : NULL;
}

void
ids_put(struct ids *ids, struct message_id *thing)
{
    uint64_t h = hash(ids, *thing);
    struct ids_table *table = &ids->tables[table_of(h)];

    if ((table->count + 1) * 5 > table->cap * 4)
        resize(ids, table, table->cap ? table->cap * 2 : CAP_MIN);
    size_t at = find(table, h, *thing);
    CHECK(!table->slots[at]);
    table->slots[at] = thing;
    table->count++;
    ids->count++;
}

void
ids_remove(struct ids *ids, struct message_id *thing)
{
    uint64_t h = hash(ids, *thing);
    struct ids_table *table = &ids->tables[table_of(h)];

    CHECK(table->cap > 0);
    size_t hole = find(table, h, *thing), mask = table->cap - 1;
    CHECK(table->slots[hole] == thing);
    table->count--;
    ids->count--;
    for (size_t at = hole;;) {
        table->slots[hole] = NULL;
        do {
            at = (at + 1) & mask;
            if (!table->slots[at]) {
                if (table->cap > CAP_MIN && table->count * 8 < table->cap)
                    resize(ids, table, table->cap / 4 < CAP_MIN ? CAP_MIN : table->cap / 4);
                return;
            }
        } while (((at - home(table, hash(ids, *table->slots[at]))) & mask) < ((at - hole) & mask));
        table->slots[hole] = table->slots[at];
        hole = at;
    }
}

/* *at: the table, and in its lower half the slot. */
void *
ids_next(const struct ids *ids, size_t *at)
{
    static_assert(sizeof *at * 8 > AT_SLOT_BITS, "*at holds both");

    for (size_t i = *at >> AT_SLOT_BITS; i < IDS_TABLES; i++, *at = i << AT_SLOT_BITS) {
        const struct ids_table *table = &ids->tables[i];
        for (size_t slot; (slot = *at & UINT32_MAX) < table->cap;) {
            ++*at;
            if (table->slots[slot])
                return table->slots[slot];
        }
    }
    return NULL;
}
