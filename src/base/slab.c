/* slab - see slab.h. Before each thing stands where its block is. */
#include "base/slab.h"

#include "base/check.h"

#include <string.h>

struct slab_block {
    struct list link;       /* among those with room */
    struct slab_item *free; /* given back; those from `cut` on were never taken */
    size_t cut, used;
    char items[];
};

struct slab_item {
    struct slab_block *block;
    struct slab_item *next; /* while it is free; else the thing begins here */
};
enum { BEFORE = offsetof(struct slab_item, next) };

void
slab_init(struct slab *p, struct mem *mem, size_t size, size_t per_block)
{
    CHECK(size >= sizeof(struct slab_item *) && size % sizeof(struct slab_item *) == 0);
    *p = (struct slab){ .mem = mem, .size = BEFORE + size, .per_block = per_block };
    list_init(&p->with_room);
}

void
slab_done(struct slab *p)
{
    CHECK(p->used == 0 && list_is_empty(&p->with_room));
}

static size_t
block_size(const struct slab *p)
{
    return sizeof(struct slab_block) + p->per_block * p->size;
}

static struct slab_block *
block_new(struct slab *p)
{
    struct slab_block *b = mem_buffer(p->mem, block_size(p));

    *b = (struct slab_block){ .used = 0 };
    list_push_front(&p->with_room, &b->link);
    return b;
}

void *
slab_take(struct slab *p)
{
    struct slab_block *b = list_is_empty(&p->with_room) ? block_new(p)
                                                        : container_of(p->with_room.next, struct slab_block, link);
    struct slab_item *item = b->free;

    if (item)
        b->free = item->next;
    else
        item = (struct slab_item *)(void *)(b->items + b->cut++ * p->size);
    item->block = b;
    if (++b->used == p->per_block)
        list_remove(&b->link);
    p->used++;
    return memset(&item->next, 0, p->size - BEFORE);
}

void
slab_give(struct slab *p, void *thing)
{
    struct slab_item *item = container_of(thing, struct slab_item, next);
    struct slab_block *b = item->block;

    if (b->used-- == p->per_block)
        list_push_front(&p->with_room, &b->link);
    item->next = b->free;
    b->free = item;
    p->used--;
    if (b->used > 0)
        return;
    list_remove(&b->link);
    mem_free(p->mem, b, block_size(p));
}
