/*
 * connections - a list in the order of going idle, oldest first: since every one may be idle equally long, the first is
 * the next to end. A sender has few of them, so looking through all is fine.
 */
#include "deliver/connections.h"

#include "base/check.h"

struct idle {
    struct list node; /* in connections.idle */
    struct client *own_client;
    int64_t due;
    struct arena names; /* the key's strings */
    struct connection_key key;
};

struct goodbye {
    struct connections *pool;
    struct client *own_client;
};

struct connections {
    struct rt *rt;
    struct connections_settings settings;
    struct list idle;
    size_t count;
    bool closing;
    struct event changed;
    struct scope fibers; /* the keeper, and goodbyes */
};

struct connections_settings
connections_settings_default(void)
{
    return (struct connections_settings){ .idle = 5 * SECOND, .messages_max = 100, .count_max = 200 };
}

static void
say_goodbye(void *arg)
{
    struct goodbye *goodbye = arg;
    struct mem *mem = rt_mem(goodbye->pool->rt);

    client_quit(goodbye->own_client);
    mem_free(mem, goodbye, sizeof *goodbye);
}

void
connections_end(struct connections *pool, struct client *client)
{
    struct goodbye *goodbye = mem_new(rt_mem(pool->rt), struct goodbye);

    *goodbye = (struct goodbye){ pool, client };
    scope_start(&pool->fibers, "smtp client goodbye", say_goodbye, goodbye);
}

static struct client *
idle_take(struct connections *pool, struct idle *idle)
{
    struct client *client = idle->own_client;

    list_remove(&idle->node);
    pool->count--;
    arena_done(&idle->names);
    mem_free(rt_mem(pool->rt), idle, sizeof *idle);
    return client;
}

static struct idle *
idle_oldest(struct connections *pool)
{
    return list_is_empty(&pool->idle) ? NULL : container_of(pool->idle.next, struct idle, node);
}

static void
keep(void *arg)
{
    struct connections *pool = arg;

    while (!pool->closing) {
        struct idle *oldest = idle_oldest(pool);

        if (oldest && oldest->due <= rt_now(pool->rt)) {
            connections_end(pool, idle_take(pool, oldest));
            continue;
        }
        struct err e = event_wait(pool->rt, &pool->changed, oldest ? oldest->due : FOREVER);
        if (e.kind == ERR_CANCELLED)
            return;
    }
}

struct connections *
connections_new(struct rt *rt, const struct connections_settings *settings)
{
    struct connections *pool = mem_new(rt_mem(rt), struct connections);

    pool->rt = rt;
    pool->settings = *settings;
    list_init(&pool->idle);
    event_init(&pool->changed);
    scope_init(&pool->fibers, rt);
    scope_start(&pool->fibers, "smtp client keeper", keep, pool);
    return pool;
}

void
connections_free(struct connections *pool)
{
    struct idle *oldest;

    pool->closing = true;
    while ((oldest = idle_oldest(pool)))
        connections_end(pool, idle_take(pool, oldest));
    event_wake(pool->rt, &pool->changed);
    (void)scope_wait(&pool->fibers, within(pool->rt, SECOND));
    scope_end(&pool->fibers);
    mem_free(rt_mem(pool->rt), pool, sizeof *pool);
}

static bool
key_eq(const struct connection_key *a, const struct connection_key *b)
{
    return a->lmtp == b->lmtp && a->smtps == b->smtps && str_eq(a->policy, b->policy) && str_eq(a->login, b->login) &&
           a->source.family == b->source.family && address_eq(&a->to, &b->to)
        && (a->source.family == ADDRESS_NONE || address_eq(&a->source, &b->source)) && str_eq_nocase(a->host, b->host)
        && str_eq(a->helo, b->helo);
}

struct client *
connections_take(struct connections *pool, const struct connection_key *key)
{
    list_each_safe(node, &pool->idle)
    {
        struct idle *idle = container_of(node, struct idle, node);

        if (!key_eq(&idle->key, key))
            continue;
        struct client *client = idle_take(pool, idle);
        if (client_is_quiet(client))
            return client;
        client_close(client); /* it said 421, or closed */
    }
    return NULL;
}

void
connections_put(struct connections *pool, const struct connection_key *key, struct client *client)
{
    size_t messages_max = key->messages_max > 0 ? key->messages_max : pool->settings.messages_max;

    if (pool->closing || !client_is_usable(client) || client_transactions(client) >= messages_max) {
        connections_end(pool, client);
        return;
    }
    struct idle *idle = mem_new(rt_mem(pool->rt), struct idle);
    idle->own_client = client;
    idle->due = within(pool->rt, pool->settings.idle);
    arena_init(&idle->names, rt_mem(pool->rt), 512, 4096);
    idle->key = *key;
    idle->key.host = arena_keep(&idle->names, key->host);
    idle->key.helo = arena_keep(&idle->names, key->helo);
    idle->key.policy = arena_keep(&idle->names, key->policy);
    idle->key.login = arena_keep(&idle->names, key->login);
    list_push_back(&pool->idle, &idle->node);
    pool->count++;
    if (pool->count > pool->settings.count_max)
        connections_end(pool, idle_take(pool, idle_oldest(pool)));
    event_wake(pool->rt, &pool->changed);
}

size_t
connections_count(const struct connections *pool)
{
    return pool->count;
}
