/* ids - see ids.h. Ids are random and chosen by ourselves: half of one is as good as a hash. Linear probing; removal
 * moves later entries back. */
#include "message/ids.h"

#include "base/check.h"

void
ids_init(struct ids *ids, struct mem *mem)
{
    *ids = (struct ids){ .mem = mem };
}

void
ids_done(struct ids *ids)
{
    mem_free(ids->mem, ids->slots, ids->cap * sizeof *ids->slots);
    *ids = (struct ids){ .mem = ids->mem };
}

static size_t
home(const struct ids *ids, struct message_id id)
{
    return (size_t)id.lo & (ids->cap - 1);
}

static size_t
find(const struct ids *ids, struct message_id id)
{
    size_t at = home(ids, id);

    while (ids->slots[at] && !message_id_eq(*ids->slots[at], id))
        at = (at + 1) & (ids->cap - 1);
    return at;
}

static void
resize(struct ids *ids, size_t cap)
{
    struct ids old = *ids;

    ids->cap = cap;
    ids->slots = mem_alloc(ids->mem, cap * sizeof *ids->slots);
    for (size_t i = 0; i < old.cap; i++)
        if (old.slots[i])
            ids->slots[find(ids, *old.slots[i])] = old.slots[i];
    mem_free(ids->mem, old.slots, old.cap * sizeof *old.slots);
}

void *
ids_get(const struct ids *ids, struct message_id id)
{
    return ids->cap ? ids->slots[find(ids, id)] : NULL;
}

void
ids_put(struct ids *ids, struct message_id *thing)
{
    if ((ids->count + 1) * 5 > ids->cap * 4)
        resize(ids, ids->cap ? ids->cap * 2 : 16);
    size_t at = find(ids, *thing);
    CHECK(!ids->slots[at]);
    ids->slots[at] = thing;
    ids->count++;
}

void
ids_remove(struct ids *ids, struct message_id *thing)
{
    size_t hole = find(ids, *thing);

    CHECK(ids->slots[hole] == thing);
    ids->count--;
    for (size_t at = hole;;) {
        ids->slots[hole] = NULL;
        do {
            at = (at + 1) & (ids->cap - 1);
            if (!ids->slots[at]) {
                if (ids->cap > 16 && ids->count * 8 < ids->cap)
                    resize(ids, ids->cap / 4);
                return;
            }
        } while (((at - home(ids, *ids->slots[at])) & (ids->cap - 1)) < ((at - hole) & (ids->cap - 1)));
        ids->slots[hole] = ids->slots[at];
        hole = at;
    }
}

void *
ids_next(const struct ids *ids, size_t *at)
{
    while (*at < ids->cap) {
        struct message_id *thing = ids->slots[(*at)++];
        if (thing)
            return thing;
    }
    return NULL;
}
