/*
 * pool - see pool.h. One list for each class of sizes: steps of 16 bytes up to 1 KiB, then four to a doubling. Small blocks
 * are cut from slabs; nothing ever goes back to malloc but what is larger than every class.
 */
#include "sim/pool.h"

#include "base/check.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { GRAIN = 16, SMALL = 1024, SMALL_CLASSES = SMALL / GRAIN, DOUBLINGS = 12, SLAB = 1 << 20 };
#define LARGEST ((size_t)SMALL << DOUBLINGS)

#if defined(__SANITIZE_ADDRESS__)
#define POOLED 0
#elif defined(__has_feature)
#define POOLED !__has_feature(address_sanitizer)
#else
#define POOLED 1
#endif

struct free_block {
    struct free_block *next;
};

/* The only state outside a run, with the stacks of world.c. */
static struct free_block *classes[SMALL_CLASSES + 4 * DOUBLINGS];
static char *slab;
static size_t slab_left;

static size_t
class_of(size_t size, size_t *out_room)
{
    if (size <= SMALL) {
        size_t grains = size ? (size + GRAIN - 1) / GRAIN : 1;
        *out_room = grains * GRAIN;
        return grains - 1;
    }
    unsigned log = 63 - (unsigned)__builtin_clzll(size - 1); /* 10 and more */
    size_t quarter = (size - 1) >> (log - 2);                /* 4 to 7 */
    *out_room = (quarter + 1) << (log - 2);
    return SMALL_CLASSES + 4 * (log - 10) + quarter - 4;
}

static void *
from_malloc(size_t size)
{
    void *memory = malloc(size);

    CHECK(memory);
    return memory;
}

static void *
cut(size_t room)
{
    if (room > SLAB / 8)
        return from_malloc(room);
    if (room > slab_left) {
        slab = from_malloc(SLAB);
        slab_left = SLAB;
    }
    slab_left -= room;
    return slab + slab_left;
}

void *
pool_take(size_t size)
{
    size_t room;

    if (!POOLED || size > LARGEST)
        return from_malloc(size);
    struct free_block **list = &classes[class_of(size, &room)], *first = *list;
    if (!first)
        return cut(room);
    *list = first->next;
    return first;
}

void
pool_give(void *memory, size_t size)
{
    size_t room;

    if (!POOLED || size > LARGEST) {
        free(memory);
        return;
    }
    struct free_block **list = &classes[class_of(size, &room)], *block = memory;
    block->next = *list;
    *list = block;
}

void *
pool_resize(void *memory, size_t old_size, size_t new_size)
{
    size_t old_room, new_room;
    char *moved = memory;

    if (!POOLED || old_size > LARGEST || new_size > LARGEST || class_of(old_size, &old_room) != class_of(new_size, &new_room)) {
        moved = pool_take(new_size);
        memcpy(moved, memory, old_size < new_size ? old_size : new_size);
        pool_give(memory, old_size);
    }
    if (new_size > old_size)
        memset(moved + old_size, 0, new_size - old_size);
    return moved;
}

static void *
buffer(struct mem *mem, size_t size)
{
    mem->in_use += size;
    return pool_take(size);
}

static void *
resize(struct mem *mem, void *memory, size_t old_size, size_t new_size)
{
    mem->in_use += new_size - old_size;
    if (new_size == 0) {
        pool_give(memory, old_size);
        return NULL;
    }
    if (memory)
        return pool_resize(memory, old_size, new_size);
    return memset(pool_take(new_size), 0, new_size);
}

struct mem
pool_mem(void)
{
    return (struct mem){ resize, 0, buffer };
}
