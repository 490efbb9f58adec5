/*
 * order - the live messages in order of acceptance, for listings: one list through all of them. New mail goes to its
 * end; what recovery finds comes in the order of the log, where cleaning has moved old messages to the front, and is
 * sorted once when all is there. A listing comes page by page, so the place where the last page ended is remembered.
 */
#include "spool/log/log.h"

#include <string.h>

enum { BINS = 32, SORT_YIELD = 1000 };

static struct message *
of(struct list *node)
{
    return container_of(node, struct message, link);
}

void
order_add(struct spool *sp, struct message *m)
{
    list_push_back(&sp->by_order, &m->link);
}

void
order_add_found(struct spool *sp, struct message *m)
{
    list_remove(&m->link);
    list_push_back(&sp->unsorted, &m->link);
}

void
order_remove(struct spool *sp, struct message *m)
{
    if (sp->last_listed == m)
        sp->last_listed = m->link.prev == &sp->by_order ? NULL : of(m->link.prev);
    list_remove(&m->link);
}

/* Merges two sorted lists into *out. Other fibers may run meanwhile, and messages end: all lists are whole at any
 * time. */
static void
merge(struct spool *sp, struct list *a, struct list *b, struct list *out, size_t *steps)
{
    while (!list_is_empty(a) || !list_is_empty(b)) {
        bool from_a = list_is_empty(b) || (!list_is_empty(a) && of(a->next)->order < of(b->next)->order);
        list_push_back(out, list_pop_front(from_a ? a : b));
        if (++*steps % SORT_YIELD == 0)
            fiber_yield(sp->rt);
    }
}

static void
take_all(struct list *from, struct list *to)
{
    CHECK(list_is_empty(to));
    if (list_is_empty(from))
        return;
    *to = *from;
    to->next->prev = to->prev->next = to;
    list_init(from);
}

/* Merge sort: bin i holds a sorted list of some 2^i messages, or none. */
void
order_sort(struct spool *sp)
{
    struct list *bins = mem_alloc(sp->mem, (BINS + 2) * sizeof *bins), *carry = &bins[BINS], *merged = &bins[BINS + 1];
    size_t steps = 0;

    for (size_t i = 0; i < BINS + 2; i++)
        list_init(&bins[i]);
    while (!list_is_empty(&sp->unsorted)) {
        size_t i = 0;
        list_push_back(carry, list_pop_front(&sp->unsorted));
        for (; i < BINS - 1 && !list_is_empty(&bins[i]); i++) {
            merge(sp, &bins[i], carry, merged, &steps);
            take_all(merged, carry);
        }
        take_all(carry, &bins[i]);
    }
    for (size_t i = 0; i < BINS; i++) {
        merge(sp, &bins[i], carry, merged, &steps);
        take_all(merged, carry);
    }
    if (!list_is_empty(carry)) { /* before what has come since: all of that is newer */
        carry->prev->next = sp->by_order.next;
        sp->by_order.next->prev = carry->prev;
        sp->by_order.next = carry->next;
        carry->next->prev = &sp->by_order;
    }
    sp->ordered = true;
    mem_free(sp->mem, bins, (BINS + 2) * sizeof *bins);
}

/* While recovery is not through: a walk over all, keeping the first. */
static size_t
scan_unordered(struct spool *sp, uint64_t after, struct spool_place *out, size_t cap)
{
    const struct message *m;
    size_t count = 0;

    for (size_t at = 0; (m = ids_next(&sp->messages, &at));) {
        size_t to = count;
        if (!m->loaded || m->ending || m->order <= after || (count == cap && (cap == 0 || m->order > out[cap - 1].order)))
            continue;
        while (to > 0 && out[to - 1].order > m->order)
            to--;
        count += count < cap;
        memmove(&out[to + 1], &out[to], (count - 1 - to) * sizeof *out);
        out[to] = (struct spool_place){ m->id, m->order };
    }
    return count;
}

size_t
log_scan(struct spool *sp, uint64_t after, struct spool_place *out, size_t cap)
{
    struct list *node = sp->by_order.next;
    size_t count = 0;

    if (!sp->ordered)
        return scan_unordered(sp, after, out, cap);
    if (sp->last_listed && sp->last_listed->order <= after)
        node = &sp->last_listed->link;
    for (; node != &sp->by_order && count < cap; node = node->next) {
        struct message *m = of(node);
        if (m->order <= after || m->ending)
            continue;
        out[count++] = (struct spool_place){ m->id, m->order };
        sp->last_listed = m;
    }
    return count;
}
