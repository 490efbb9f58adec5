/* rate - see rate.h. The bucket is the generic cell rate algorithm: one number says all. */
#include "policy/rate.h"

#include "base/check.h"
#include "base/map.h"

#include <string.h>

static int64_t
interval(struct rate r)
{
    return r.per / r.count;
}

int64_t
bucket_ready_at(const struct bucket *b, struct rate r)
{
    return r.count == 0 ? INT64_MIN : b->full_at - interval(r) * ((r.burst ? r.burst : 1) - (int64_t)1);
}

bool
bucket_take(struct bucket *b, struct rate r, int64_t now)
{
    if (r.count == 0)
        return true;
    if (now < bucket_ready_at(b, r))
        return false;
    b->full_at = (b->full_at > now ? b->full_at : now) + interval(r);
    return true;
}

struct client_entry {
    unsigned char key[17]; /* family and address, without port and scope */
    uint32_t sessions;     /* never 0 */
};

struct clients {
    struct mem *mem;
    struct map entries;
    uint32_t entries_max;
};

struct clients *
clients_new(struct mem *mem, uint64_t seed, uint32_t entries_max)
{
    struct clients *c = mem_new(mem, struct clients);

    c->mem = mem;
    c->entries_max = entries_max;
    map_init(&c->entries, mem, seed);
    return c;
}

void
clients_free(struct clients *c)
{
    struct map_slot *slot;

    for (size_t at = 0; (slot = map_next(&c->entries, &at));)
        mem_free(c->mem, slot->value, sizeof(struct client_entry));
    map_done(&c->entries);
    mem_free(c->mem, c, sizeof *c);
}

static struct str
entry_key(const struct address *a, unsigned char memory[17])
{
    struct address client = address_client_key(a);

    memory[0] = client.family;
    memcpy(memory + 1, client.ip, sizeof client.ip);
    return str_new(memory, 17);
}

static struct client_entry *
find(const struct clients *c, const struct address *a)
{
    unsigned char memory[17];

    return map_get(&c->entries, entry_key(a, memory));
}

bool
clients_enter(struct clients *c, const struct address *a, uint32_t sessions_max)
{
    struct client_entry *e = find(c, a);

    if ((e ? e->sessions : 0) >= sessions_max)
        return false;
    if (!e) {
        if (c->entries.count >= c->entries_max)
            return false;
        e = mem_new(c->mem, struct client_entry);
        map_put(&c->entries, entry_key(a, e->key), e);
    }
    e->sessions++;
    return true;
}

void
clients_leave(struct clients *c, const struct address *a)
{
    struct client_entry *e = find(c, a);

    CHECK(e && e->sessions > 0);
    if (--e->sessions > 0)
        return;
    map_remove(&c->entries, str_new(e->key, sizeof e->key));
    mem_free(c->mem, e, sizeof *e);
}

uint32_t
clients_sessions(const struct clients *c, const struct address *a)
{
    const struct client_entry *e = find(c, a);

    return e ? e->sessions : 0;
}

size_t
clients_known(const struct clients *c)
{
    return c->entries.count;
}
