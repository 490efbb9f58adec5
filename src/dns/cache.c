/*
 * cache - see cache.h. An entry is one allocation: the struct, its key (two bytes of type, the name in lower case)
 * and the answer as it would go over a link.
 */
#include "dns/cache.h"

#include "base/list.h"
#include "base/map.h"
#include "runtime/rt.h"

#include <string.h>

enum { KEY_MAX = 2 + NAME_TEXT_MAX };

struct entry {
    struct list by_use; /* in dns_cache.by_use: used last, last */
    int64_t expires;    /* monotonic ns */
    size_t key_len, len;
    char bytes[];       /* key, answer */
};

struct dns_cache {
    struct rt *rt;
    const struct dns *behind;
    struct map entries; /* key -> struct entry */
    struct list by_use;
    struct dns_cache_counts counts;
    size_t bytes_max;
};

struct dns_cache *
dns_cache_new(struct rt *rt, const struct dns *behind, size_t bytes_max)
{
    struct dns_cache *c = mem_new(rt_mem(rt), struct dns_cache);

    c->rt = rt;
    c->behind = behind;
    c->bytes_max = bytes_max;
    map_init(&c->entries, rt_mem(rt), rt_random(rt));
    list_init(&c->by_use);
    return c;
}

static size_t
entry_size(size_t key_len, size_t len)
{
    return sizeof(struct entry) + key_len + len;
}

static void
drop(struct dns_cache *c, struct entry *e)
{
    size_t size = entry_size(e->key_len, e->len);

    map_remove(&c->entries, str_new(e->bytes, e->key_len));
    list_remove(&e->by_use);
    c->counts.entries--;
    c->counts.bytes -= size;
    mem_free(rt_mem(c->rt), e, size);
}

void
dns_cache_clear(struct dns_cache *c)
{
    list_each_safe (node, &c->by_use)
        drop(c, container_of(node, struct entry, by_use));
}

void
dns_cache_free(struct dns_cache *c)
{
    if (!c)
        return;
    dns_cache_clear(c);
    map_done(&c->entries);
    mem_free(rt_mem(c->rt), c, sizeof *c);
}

static void
keep(struct dns_cache *c, struct str key, const struct dns_answer *answer)
{
    size_t len = dns_answer_size(answer), size = entry_size(key.len, len);
    struct entry *e = map_get(&c->entries, key);

    if (e) /* another fiber asked the same and was answered first */
        drop(c, e);
    if (answer->status == DNS_TEMPORARY || answer->ttl == 0 || size > c->bytes_max)
        return;
    while (c->counts.bytes + size > c->bytes_max)
        drop(c, container_of(c->by_use.next, struct entry, by_use));
    e = mem_alloc(rt_mem(c->rt), size);
    e->key_len = key.len;
    e->len = len;
    e->expires = rt_now(c->rt) + answer->ttl * SECOND;
    memcpy(e->bytes, key.ptr, key.len);
    struct put put = put_init(e->bytes + key.len, len);
    dns_answer_put(&put, answer);
    list_push_back(&c->by_use, &e->by_use);
    map_put(&c->entries, str_new(e->bytes, e->key_len), e);
    c->counts.entries++;
    c->counts.bytes += size;
}

static bool
look_up(struct dns_cache *c, struct str key, struct arena *arena, struct dns_answer *out)
{
    struct entry *e = map_get(&c->entries, key);
    int64_t left;

    if (!e)
        return false;
    left = e->expires - rt_now(c->rt);
    struct take take = take_init(str_new(e->bytes + e->key_len, e->len));
    if (left <= 0 || !dns_answer_take(&take, arena, out)) {
        drop(c, e);
        return false;
    }
    out->ttl = (uint32_t)((left + SECOND - 1) / SECOND);
    list_remove(&e->by_use);
    list_push_back(&c->by_use, &e->by_use);
    return true;
}

static struct err
query(void *arg, struct str name, enum dns_type type, int64_t until, struct arena *arena, struct dns_answer *out)
{
    struct dns_cache *c = arg;
    char memory[KEY_MAX];
    struct text key = text_init(memory, sizeof memory);

    if (!name_is_valid(name)) {
        *out = dns_answer_temporary(type, S("not a domain name"));
        return OK;
    }
    text_put_byte(&key, (char)((unsigned)type >> 8));
    text_put_byte(&key, (char)type);
    text_put_lower(&key, name_without_dot(name));
    if (look_up(c, text_str(&key), arena, out)) {
        c->counts.hits++;
        return OK;
    }
    c->counts.misses++;
    TRY(dns_query(c->behind, name, type, until, arena, out));
    keep(c, text_str(&key), out);
    return OK;
}

struct dns
dns_cache_dns(struct dns_cache *c)
{
    return (struct dns){ query, c };
}

struct dns_cache_counts
dns_cache_counts(const struct dns_cache *c)
{
    return c->counts;
}
