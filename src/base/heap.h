/*
 * heap - a priority queue of things with a due time (binary heap). Intrusive: each thing carries a heap_node; ties come
 * out in the order of insertion, so that a run can be repeated exactly.
 */
#ifndef BASE_HEAP_H
#define BASE_HEAP_H

#include "base/mem.h"

#include <stdbool.h>
#include <stdint.h>

struct heap_node {
    int64_t due;
    uint64_t order;   /* of insertion */
    uint32_t at_plus1; /* index in the heap plus one; 0: in no heap */
};

struct heap {
    struct mem *mem;
    struct heap_node **nodes;
    size_t count, cap;
    uint64_t next_order;
};

void heap_init(struct heap *, struct mem *);
void heap_done(struct heap *);
void heap_insert(struct heap *, struct heap_node *, int64_t due);
void heap_remove(struct heap *, struct heap_node *); /* fine for a node in no heap */
struct heap_node *heap_first(const struct heap *);   /* NULL: empty */
static inline bool
heap_has(const struct heap_node *node)
{
    return node->at_plus1 != 0;
}

#endif
