/*
 * throttle - see throttle.h. One map of records, by a letter, a network and an account: "a" the account, "n" the network,
 * "h" the account at one of its homes.
 */
#include "policy/throttle.h"

#include "base/check.h"
#include "base/list.h"
#include "base/map.h"

#include <string.h>

enum { KEY_MAX = 1 + THROTTLE_NETWORK + LIMIT_USER_NAME };

struct record {
    struct list recent;
    uint32_t failures, open;
    int64_t since, banned_until; /* 0: not banned */
    size_t key_len;
    char key[];
};

struct home {
    struct list recent;
    int64_t wall;                /* of the last success */
    size_t key_len;
    char key[];                  /* network, account */
};

struct throttle {
    struct mem *mem;
    struct throttle_settings settings;
    uint32_t records_max;
    struct map records, homes;
    struct list recent, homes_recent; /* touched last: at the end */
    uint64_t version;
};

struct throttle *
throttle_new(struct mem *mem, uint64_t seed, struct throttle_settings settings, uint32_t records_max)
{
    struct throttle *t = mem_new(mem, struct throttle);

    *t = (struct throttle){ .mem = mem, .settings = settings, .records_max = records_max };
    map_init(&t->records, mem, seed);
    map_init(&t->homes, mem, seed);
    list_init(&t->recent);
    list_init(&t->homes_recent);
    return t;
}

void
throttle_free(struct throttle *t)
{
    list_each_safe (node, &t->recent) {
        struct record *r = container_of(node, struct record, recent);
        mem_free(t->mem, r, sizeof *r + r->key_len);
    }
    list_each_safe (node, &t->homes_recent) {
        struct home *h = container_of(node, struct home, recent);
        mem_free(t->mem, h, sizeof *h + h->key_len);
    }
    map_done(&t->records);
    map_done(&t->homes);
    mem_free(t->mem, t, sizeof *t);
}

/* ---- keys -------------------------------------------------------------------------------------------------------- */

static void
network_of(const struct address *client, unsigned char out[THROTTLE_NETWORK])
{
    memset(out, 0, THROTTLE_NETWORK);
    out[0] = client->family;
    if (client->family == ADDRESS_IPV4)
        memcpy(out + 1, client->ip, 3);
    else if (client->family == ADDRESS_IPV6)
        memcpy(out + 1, client->ip, 7);
}

static struct address
address_of(const unsigned char network[THROTTLE_NETWORK])
{
    struct address a = { .family = network[0] };

    memcpy(a.ip, network + 1, THROTTLE_NETWORK - 1);
    return a;
}

struct address
throttle_network(const struct address *client)
{
    unsigned char network[THROTTLE_NETWORK];

    network_of(client, network);
    return address_of(network);
}

static struct str
put_key(struct text *t, char kind, const unsigned char *network, struct str account)
{
    text_put_byte(t, kind);
    text_put(t, str_new(network, THROTTLE_NETWORK));
    text_put(t, account);
    CHECK(!t->full);
    return text_str(t);
}

static const unsigned char everywhere[THROTTLE_NETWORK];

/* ---- records ----------------------------------------------------------------------------------------------------- */

static void
drop(struct throttle *t, struct record *r)
{
    map_remove(&t->records, str_new(r->key, r->key_len));
    list_remove(&r->recent);
    mem_free(t->mem, r, sizeof *r + r->key_len);
}

/* The oldest that no attempt holds. */
static void
make_room(struct throttle *t)
{
    list_each_safe (node, &t->recent) {
        struct record *r = container_of(node, struct record, recent);
        if (r->open == 0) {
            drop(t, r);
            return;
        }
    }
}

static struct record *
get(struct throttle *t, struct str key)
{
    struct record *r = map_get(&t->records, key);

    if (r) {
        list_remove(&r->recent);
        list_push_back(&t->recent, &r->recent);
        return r;
    }
    if (t->records.count >= t->records_max)
        make_room(t);
    r = mem_alloc(t->mem, sizeof *r + key.len);
    r->key_len = key.len;
    memcpy(r->key, key.ptr, key.len);
    list_push_back(&t->recent, &r->recent);
    map_put(&t->records, str_new(r->key, r->key_len), r);
    return r;
}

static struct record *
get_for(struct throttle *t, char kind, const unsigned char *network, struct str account)
{
    char memory[KEY_MAX];
    struct text key = text_init(memory, sizeof memory);

    return get(t, put_key(&key, kind, network, account));
}

/* One attempt less. What says nothing any more goes: or whoever begins attempts under made-up names, and never ends one,
 * would have those forgotten that are closed. */
static void
let_go(struct throttle *t, struct record *r)
{
    CHECK(r->open > 0);
    if (--r->open == 0 && r->failures == 0)
        drop(t, r);
}

static void
forget_old(const struct throttle *t, struct record *r, int64_t now)
{
    if (r->banned_until != 0 ? now >= r->banned_until : r->failures > 0 && now - r->since >= t->settings.within) {
        r->failures = 0;
        r->banned_until = 0;
    }
}

static enum throttle_answer
has_room(const struct throttle *t, struct record *r, uint32_t most, int64_t now)
{
    forget_old(t, r, now);
    if (r->banned_until != 0)
        return THROTTLE_CLOSED;
    return r->failures + r->open < most ? THROTTLE_OPEN : THROTTLE_FULL;
}

/* True: this one closes it. */
static bool
count_failure(const struct throttle *t, struct record *r, uint32_t most, int64_t now)
{
    forget_old(t, r, now);
    if (r->failures++ == 0)
        r->since = now;
    if (r->failures < most || r->banned_until != 0)
        return false;
    r->banned_until = now + t->settings.ban;
    return true;
}

/* ---- homes ------------------------------------------------------------------------------------------------------- */

static struct home *
find_home(const struct throttle *t, const struct throttle_attempt *a)
{
    char memory[KEY_MAX];
    struct text key = text_init(memory, sizeof memory);

    return map_get(&t->homes, str_from(put_key(&key, 'h', a->network, str_new(a->account, a->account_len)), 1));
}

static void
drop_home(struct throttle *t, struct home *h)
{
    map_remove(&t->homes, str_new(h->key, h->key_len));
    list_remove(&h->recent);
    mem_free(t->mem, h, sizeof *h + h->key_len);
}

static void
note_home(struct throttle *t, struct str key, int64_t wall)
{
    struct home *h = map_get(&t->homes, key);

    if (!h) {
        if (t->homes.count >= THROTTLE_HOMES_MAX)
            drop_home(t, container_of(t->homes_recent.next, struct home, recent));
        h = mem_alloc(t->mem, sizeof *h + key.len);
        h->key_len = key.len;
        memcpy(h->key, key.ptr, key.len);
        map_put(&t->homes, str_new(h->key, h->key_len), h);
    } else {
        list_remove(&h->recent);
    }
    list_push_back(&t->homes_recent, &h->recent);
    if (wall > h->wall)
        h->wall = wall;
    t->version++;
}

/* ---- attempts ---------------------------------------------------------------------------------------------------- */

static struct str
account_of(const struct throttle_attempt *a)
{
    return str_new(a->account, a->account_len);
}

enum throttle_answer
throttle_begin(struct throttle *t, struct str account, const struct address *client, int64_t now, int64_t wall,
               struct throttle_attempt *out)
{
    enum throttle_answer answer;

    CHECK(account.len <= sizeof out->account);
    *out = (struct throttle_attempt){ .account_len = account.len };
    memcpy(out->account, account.ptr, account.len);
    network_of(client, out->network);
    const struct home *home = find_home(t, out);
    out->home = home && wall - home->wall < THROTTLE_HOME_NS;
    if (out->home) {
        struct record *here = get_for(t, 'h', out->network, account);
        answer = has_room(t, here, t->settings.account_failures, now);
        if (answer != THROTTLE_OPEN)
            return answer;
        here->open++;
    } else {
        struct record *network = get_for(t, 'n', out->network, S(""));
        answer = has_room(t, network, t->settings.network_failures, now);
        if (answer != THROTTLE_OPEN)
            return answer;
        network->open++; /* so that it is not dropped for the account's */
        struct record *everyone = get_for(t, 'a', everywhere, account);
        answer = has_room(t, everyone, t->settings.account_failures, now);
        if (answer != THROTTLE_OPEN) {
            let_go(t, network);
            return answer;
        }
        everyone->open++;
    }
    out->open = true;
    return THROTTLE_OPEN;
}

/* No longer under way. The records are there: what an attempt holds is not dropped. */
static void
release(struct throttle *t, struct throttle_attempt *a)
{
    CHECK(a->open);
    a->open = false;
    if (a->home) {
        let_go(t, get_for(t, 'h', a->network, account_of(a)));
        return;
    }
    let_go(t, get_for(t, 'n', a->network, S("")));
    let_go(t, get_for(t, 'a', everywhere, account_of(a)));
}

void
throttle_right(struct throttle *t, struct throttle_attempt *a, int64_t wall)
{
    char memory[KEY_MAX];
    struct text key = text_init(memory, sizeof memory);

    if (a->home) /* elsewhere nothing is forgiven: somebody may have an account of his own here */
        get_for(t, 'h', a->network, account_of(a))->failures = 0;
    release(t, a);
    note_home(t, str_from(put_key(&key, 'h', a->network, account_of(a)), 1), wall);
}

unsigned
throttle_wrong(struct throttle *t, struct throttle_attempt *a, int64_t now)
{
    unsigned closed = 0;

    release(t, a);
    struct record *account = a->home ? get_for(t, 'h', a->network, account_of(a)) : get_for(t, 'a', everywhere, account_of(a));
    if (count_failure(t, account, t->settings.account_failures, now))
        closed |= THROTTLE_ACCOUNT;
    if (count_failure(t, get_for(t, 'n', a->network, S("")), t->settings.network_failures, now))
        closed |= THROTTLE_NETWORK_TOO;
    return closed;
}

void
throttle_undecided(struct throttle *t, struct throttle_attempt *a)
{
    release(t, a);
}

/* ---- for people -------------------------------------------------------------------------------------------------- */

static void
put_network(struct text *out, const unsigned char *network)
{
    struct address a = address_of(network);

    if (a.family != ADDRESS_IPV4 && a.family != ADDRESS_IPV6) {
        text_put(out, S("local"));
        return;
    }
    address_put_ip(out, &a);
    text_put(out, a.family == ADDRESS_IPV4 ? S("/24") : S("/56"));
}

void
throttle_each_ban(const struct throttle *t, int64_t now,
                  bool (*tell)(void *ctx, struct str account, struct str network, int64_t until), void *ctx)
{
    char memory[100];

    list_each (node, &t->recent) {
        const struct record *r = container_of(node, struct record, recent);
        struct text network = text_init(memory, sizeof memory);
        if (now >= r->banned_until)
            continue;
        if (r->key[0] != 'a')
            put_network(&network, (const unsigned char *)r->key + 1);
        if (!tell(ctx, str_from(str_new(r->key, r->key_len), 1 + THROTTLE_NETWORK), text_str(&network), r->banned_until))
            return;
    }
}

/* ---- kept -------------------------------------------------------------------------------------------------------- */

size_t
throttle_homes_size(const struct throttle *t)
{
    size_t size = 4;

    list_each (node, &t->homes_recent)
        size += 12 + container_of(node, struct home, recent)->key_len;
    return size;
}

void
throttle_put_homes(struct put *p, const struct throttle *t)
{
    put_u32(p, (uint32_t)t->homes.count);
    list_each (node, &t->homes_recent) {
        const struct home *h = container_of(node, struct home, recent);
        put_bytes(p, str_new(h->key, h->key_len));
        put_i64(p, h->wall);
    }
}

bool
throttle_take_homes(struct take *take, struct throttle *t, int64_t wall)
{
    uint32_t count = take_count(take, THROTTLE_HOMES_MAX);

    for (uint32_t i = 0; i < count && !take->bad; i++) {
        struct str key = take_bytes(take, KEY_MAX - 1);
        int64_t when = take_i64(take);
        if (take->bad || key.len <= THROTTLE_NETWORK)
            return false;
        if (when <= wall && wall - when < THROTTLE_HOME_NS)
            note_home(t, key, when);
    }
    return !take->bad;
}

uint64_t
throttle_homes_version(const struct throttle *t)
{
    return t->version;
}
