/*
 * slab - many things of one size, cut from blocks: where there may be a million of them it saves what malloc keeps beside
 * each, and large buffers that come and go leave no holes between them. A block of which nothing is used goes back.
 */
#ifndef BASE_SLAB_H
#define BASE_SLAB_H

#include "base/list.h"
#include "base/mem.h"

#ifdef __has_feature
#if __has_feature(address_sanitizer)
#define SLAB_MANY 1
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define SLAB_MANY 1
#endif
#ifndef SLAB_MANY
#define SLAB_MANY 128 /* in a block; under a sanitizer each by itself, so that it sees what is used after its end */
#endif

struct slab {
    struct mem *mem;
    size_t size;           /* of a thing, with what stands before it */
    size_t per_block, used;
    struct list with_room; /* blocks */
};

void slab_init(struct slab *, struct mem *, size_t size, size_t per_block);
void slab_done(struct slab *);  /* all have been given back */
void *slab_take(struct slab *); /* zeroed */
void slab_give(struct slab *, void *thing);

#endif
