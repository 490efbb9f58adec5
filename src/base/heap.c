/* heap - see heap.h. */
#include "base/heap.h"

#include "base/check.h"

void
heap_init(struct heap *h, struct mem *mem)
{
    *h = (struct heap){ .mem = mem };
}

void
heap_done(struct heap *h)
{
    mem_free(h->mem, h->nodes, h->cap * sizeof(struct heap_node *));
    *h = (struct heap){ .mem = h->mem };
}

static bool
before(const struct heap_node *a, const struct heap_node *b)
{
    return a->due != b->due ? a->due < b->due : a->order < b->order;
}

static void
place(struct heap *h, size_t at, struct heap_node *node)
{
    h->nodes[at] = node;
    node->at_plus1 = (uint32_t)(at + 1);
}

static void
sift_up(struct heap *h, size_t at)
{
    struct heap_node *node = h->nodes[at];

    while (at > 0 && before(node, h->nodes[(at - 1) / 2])) {
        place(h, at, h->nodes[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    place(h, at, node);
}

static void
sift_down(struct heap *h, size_t at)
{
    struct heap_node *node = h->nodes[at];

    for (size_t child; (child = 2 * at + 1) < h->count; at = child) {
        if (child + 1 < h->count && before(h->nodes[child + 1], h->nodes[child]))
            child++;
        if (!before(h->nodes[child], node))
            break;
        place(h, at, h->nodes[child]);
    }
    place(h, at, node);
}

void
heap_insert(struct heap *h, struct heap_node *node, int64_t due)
{
    CHECK(!heap_has(node) && h->count < UINT32_MAX - 1);
    if (h->count == h->cap) {
        size_t cap = h->cap ? h->cap * 2 : 16;
        h->nodes = mem_resize(h->mem, h->nodes, h->cap * sizeof(struct heap_node *), cap * sizeof(struct heap_node *));
        h->cap = cap;
    }
    node->due = due;
    node->order = h->next_order++;
    h->nodes[h->count] = node;
    sift_up(h, h->count++);
}

void
heap_remove(struct heap *h, struct heap_node *node)
{
    if (!heap_has(node))
        return;
    size_t at = node->at_plus1 - 1;
    CHECK(at < h->count && h->nodes[at] == node);
    struct heap_node *last = h->nodes[--h->count];
    node->at_plus1 = 0;
    if (last == node)
        return;
    place(h, at, last);
    sift_up(h, at);
    sift_down(h, last->at_plus1 - 1);
}

struct heap_node *
heap_first(const struct heap *h)
{
    return h->count ? h->nodes[0] : NULL;
}
