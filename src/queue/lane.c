/*
 * lane - see lane.h. Every change of a lane ends in lane_file(), which alone decides where it stands.
 */
#include "queue/state.h"

#include "base/check.h"

#include <string.h>

/* What one submitter has ready in one lane. It exists only while that is something. */
struct turn {
    struct list link; /* lane->turns */
    struct list pendings;
    int64_t deficit;  /* bytes that it may still send before the next one's turn; below 0: what it owes */
    struct turn_key {
        uint32_t lane, submitter;
    } key;
};

void
lanes_init(struct lanes *ls, struct mem *mem, struct prng *prng, const struct retry *retry, uint64_t seed)
{
    *ls = (struct lanes){ .mem = mem, .prng = prng, .retry = retry, .next_number = 1 };
    map_init(&ls->by_key, mem, seed);
    map_init(&ls->by_number, mem, seed);
    map_init(&ls->destinations, mem, seed);
    map_init(&ls->hosts, mem, seed);
    map_init(&ls->turns, mem, seed);
    heap_init(&ls->timers, mem);
    for (size_t i = 0; i < LANE_CLASSES; i++) {
        list_init(&ls->runnable[i][0]);
        list_init(&ls->runnable[i][1]);
    }
}

void
lanes_done(struct lanes *ls)
{
    CHECK(ls->by_key.count == 0 && ls->destinations.count == 0 && ls->hosts.count == 0 && ls->turns.count == 0);
    map_done(&ls->by_key);
    map_done(&ls->by_number);
    map_done(&ls->destinations);
    map_done(&ls->hosts);
    map_done(&ls->turns);
    heap_done(&ls->timers);
}

/* ---- destinations and hosts ------------------------------------------------------------------------------------- */

static struct lane_limit *
limit_get(struct lanes *ls, struct map *map, struct str name)
{
    struct lane_limit *limit = map_get(map, name);

    if (!limit) {
        limit = mem_alloc(ls->mem, sizeof *limit + name.len);
        if (name.len > 0)
            memcpy(limit->bytes, name.ptr, name.len);
        limit->name = str_new(limit->bytes, name.len);
        list_init(&limit->waiting);
        map_put(map, limit->name, limit);
    }
    limit->refs++;
    return limit;
}

static void
limit_unref(struct lanes *ls, struct map *map, struct lane_limit *limit)
{
    CHECK(limit->refs > 0);
    if (--limit->refs > 0)
        return;
    CHECK(limit->in_flight == 0 && list_is_empty(&limit->waiting));
    map_remove(map, limit->name);
    mem_free(ls->mem, limit, sizeof *limit + limit->name.len);
}

/* ---- a lane's life ---------------------------------------------------------------------------------------------- */

static bool
host_before(const struct mx_host *a, const struct mx_host *b)
{
    return a->preference != b->preference ? a->preference < b->preference : str_cmp(a->name, b->name) < 0;
}

/* The hosts that are tried, in an order that does not depend on the answer's: or one provider would have many lanes. */
static size_t
best_hosts(const struct mx_host *hosts, size_t count, const struct mx_host *best[LIMIT_MX_HOSTS])
{
    size_t kept = 0;

    for (size_t i = 0; i < count; i++) {
        size_t at = kept;
        while (at > 0 && host_before(&hosts[i], best[at - 1]))
            at--;
        if (at == LIMIT_MX_HOSTS || (at > 0 && str_eq(best[at - 1]->name, hosts[i].name)))
            continue;
        kept += kept < LIMIT_MX_HOSTS;
        for (size_t j = kept - 1; j > at; j--)
            best[j] = best[j - 1];
        best[at] = &hosts[i];
    }
    return kept;
}

static void
put_hosts(struct text *out, const struct mx_host *const *best, size_t count, bool with_ranks)
{
    for (size_t i = 0; i < count; i++) {
        if (i > 0)
            text_put_byte(out, with_ranks && best[i]->preference != best[i - 1]->preference ? ';' : ',');
        text_put(out, best[i]->name);
    }
}

static uint32_t
connections_max(const struct queue_lane *l)
{
    if (l->own_route->kind == ROUTE_MAILDIR) /* suspects too: they share the destination with the others */
        return LIMIT_DELIVERIES;
    return l->own_route->connections ? l->own_route->connections : LANE_CONNECTIONS;
}

static struct queue_lane *
lane_new(struct lanes *ls, const struct route *route, struct str key, struct str destination)
{
    struct queue_lane *l = mem_alloc(ls->mem, sizeof *l + key.len);

    memcpy(l->bytes, key.ptr, key.len);
    l->key = str_new(l->bytes, key.len);
    l->lanes = ls;
    l->number = ls->next_number++;
    l->class = route->kind == ROUTE_MAILDIR ? LANE_MAILBOX : LANE_NETWORK;
    l->refs = 1;
    l->own_route = route_copy(route, ls->mem);
    l->destination = limit_get(ls, &ls->destinations, destination);
    l->window = connections_max(l) < LANE_WINDOW_START ? connections_max(l) : LANE_WINDOW_START;
    l->fast_start = true;
    list_init(&l->turns);
    list_init(&l->link);
    map_put(&ls->by_key, l->key, l);
    map_put(&ls->by_number, str_new(&l->number, sizeof l->number), l);
    return l;
}

struct queue_lane *
lane_get(struct lanes *ls, const struct route *route, const struct mx_host *hosts, size_t host_count)
{
    const struct mx_host *best[LIMIT_MX_HOSTS];
    size_t count = best_hosts(hosts, host_count, best), cap = 2 * (size_t)ROUTE_KEY_MAX;
    char *memory = mem_alloc(ls->mem, 2 * cap);
    struct text names = text_init(memory, cap / 2), key = text_init(memory + cap / 2, cap / 2),
                destination = text_init(memory + cap, cap);

    put_hosts(&names, best, count, true);
    route_put_key(&key, route, text_str(&names));
    struct queue_lane *l = map_get(&ls->by_key, text_str(&key));
    if (l) {
        l->refs++;
    } else {
        const struct mx_host *sorted[LIMIT_MX_HOSTS];
        for (size_t i = 0; i < count; i++) {
            size_t at = i;
            for (; at > 0 && str_cmp(best[i]->name, sorted[at - 1]->name) < 0; at--)
                sorted[at] = sorted[at - 1];
            sorted[at] = best[i];
        }
        names.len = 0;
        put_hosts(&names, sorted, count, false);
        route_put_destination(&destination, route, text_str(&names));
        l = lane_new(ls, route, text_str(&key), text_str(&destination));
        l->host_count = count;
        l->hosts = count ? mem_alloc(ls->mem, count * sizeof *l->hosts) : NULL;
        for (size_t i = 0; i < count; i++) {
            bool equal = i > 0 && best[i]->preference == best[i - 1]->preference;
            l->hosts[i].limit = limit_get(ls, &ls->hosts, best[i]->name);
            l->hosts[i].rank = i == 0 ? 0 : (uint16_t)(l->hosts[i - 1].rank + (equal ? 0 : 1));
        }
    }
    CHECK(!names.full && !key.full && !destination.full);
    mem_free(ls->mem, memory, 2 * cap);
    return l;
}

struct queue_lane *
lane_for_suspects(struct queue_lane *l)
{
    struct lanes *ls = l->lanes;

    if (l->alone)
        return l->alone;
    size_t cap = l->key.len + 8;
    char *memory = mem_alloc(ls->mem, cap);
    struct text key = text_init(memory, cap);
    text_put(&key, l->key);
    text_put(&key, S(" alone"));
    /* One whose lane has gone meanwhile may still be at work, for a lane that was like this one. */
    struct queue_lane *alone = map_get(&ls->by_key, text_str(&key));
    if (alone) {
        lane_ref(alone);
        mem_free(ls->mem, memory, cap);
        return l->alone = alone;
    }
    alone = lane_new(ls, l->own_route, text_str(&key), l->destination->name);
    mem_free(ls->mem, memory, cap);
    alone->class = LANE_ALONE;
    alone->window = 1;
    alone->host_count = l->host_count;
    alone->hosts = l->host_count ? mem_alloc(ls->mem, l->host_count * sizeof *l->hosts) : NULL;
    for (size_t i = 0; i < l->host_count; i++) {
        alone->hosts[i] = l->hosts[i];
        alone->hosts[i].limit->refs++;
    }
    return l->alone = alone;
}

void
lane_ref(struct queue_lane *l)
{
    l->refs++;
}

static void
unrunnable(struct queue_lane *l)
{
    list_remove(&l->link);
    heap_remove(&l->lanes->timers, &l->timer);
    l->lanes->runnable_count -= l->runnable;
    l->runnable = false;
}

void
lane_unref(struct queue_lane *l)
{
    struct lanes *ls = l->lanes;

    CHECK(l->refs > 0);
    if (--l->refs > 0)
        return;
    CHECK(l->ready == 0 && l->in_flight == 0 && list_is_empty(&l->turns));
    unrunnable(l);
    if (l->alone)
        lane_unref(l->alone);
    for (size_t i = 0; i < l->host_count; i++)
        limit_unref(ls, &ls->hosts, l->hosts[i].limit);
    mem_free(ls->mem, l->hosts, l->host_count * sizeof *l->hosts);
    limit_unref(ls, &ls->destinations, l->destination);
    map_remove(&ls->by_key, l->key);
    map_remove(&ls->by_number, str_new(&l->number, sizeof l->number));
    route_free(l->own_route, ls->mem);
    mem_free(ls->mem, l, sizeof *l + l->key.len);
}

/* ---- where a lane stands ---------------------------------------------------------------------------------------- */

/* Of the most preferred hosts that are not thought down, the one with the least to do. NULL: the lane has no hosts. */
static struct lane_limit *
least_busy_host(const struct queue_lane *l, int64_t now, struct prng *prng)
{
    const struct lane_host *best = NULL;
    uint64_t equals = 0;

    for (size_t i = 0; i < l->host_count; i++) {
        const struct lane_host *h = &l->hosts[i];
        bool h_down = now < h->limit->down_until, best_down = best && now < best->limit->down_until;

        if (best &&
            (h_down != best_down ? h_down : h->rank != best->rank || h->limit->in_flight > best->limit->in_flight))
            continue;
        bool tie =
            best && h_down == best_down && h->rank == best->rank && h->limit->in_flight == best->limit->in_flight;
        equals = tie ? equals + 1 : 1;
        if (!tie || (prng && prng_below(prng, equals) == 0))
            best = h;
    }
    return best ? best->limit : NULL;
}

static void
lane_file(struct queue_lane *l, int64_t now)
{
    struct lanes *ls = l->lanes;
    uint32_t cap = connections_max(l);
    int64_t ready_at = l->dead ? l->probe_at : bucket_ready_at(&l->bucket, l->own_route->rate);

    /* One that can still run keeps its place in the line, or the busiest would never be passed. */
    struct list *where = NULL;
    struct lane_limit *host = NULL;
    if (l->ready == 0 || l->in_flight >= (l->dead ? 1 : l->window)) {
        unrunnable(l);
        return;
    }
    if (ready_at > now) {
        unrunnable(l);
        heap_insert(&ls->timers, &l->timer, ready_at);
        return;
    }
    host = least_busy_host(l, now, NULL);
    if (l->destination->in_flight >= cap)
        where = &l->destination->waiting;
    else if (host && host->in_flight >= (cap > LANE_CONNECTIONS ? cap : LANE_CONNECTIONS))
        where = &host->waiting;
    if (where) {
        unrunnable(l);
        list_push_back(where, &l->link);
        return;
    }
    bool busy = l->in_flight > 0;
    if (l->runnable && l->runnable_busy == busy)
        return;
    unrunnable(l);
    list_push_back(&ls->runnable[l->class][busy], &l->link);
    ls->runnable_count++;
    l->runnable = true;
    l->runnable_busy = busy;
}

static void
wake_waiting(struct lane_limit *limit, int64_t now)
{
    struct list woken;

    list_init(&woken);
    for (struct list *node; (node = list_pop_front(&limit->waiting));)
        list_push_back(&woken, node);
    for (struct list *node; (node = list_pop_front(&woken));)
        lane_file(container_of(node, struct queue_lane, link), now);
}

void
lanes_tick(struct lanes *ls, int64_t now)
{
    for (struct heap_node *node; (node = heap_first(&ls->timers)) && node->due <= now;) {
        heap_remove(&ls->timers, node);
        lane_file(container_of(node, struct queue_lane, timer), now);
    }
}

int64_t
lanes_due(const struct lanes *ls)
{
    const struct heap_node *first = heap_first(&ls->timers);

    return first ? first->due : INT64_MAX;
}

/* ---- turns ------------------------------------------------------------------------------------------------------ */

static struct turn *
turn_find(struct queue_lane *l, const struct submitter *s)
{
    struct turn_key key = { l->number, s->number };

    return map_get(&l->lanes->turns, str_new(&key, sizeof key));
}

void
lane_push(struct queue_lane *l, struct pending *p, int64_t now)
{
    struct turn *turn = turn_find(l, p->live->submitter);

    if (!turn) {
        turn = mem_new(l->lanes->mem, struct turn);
        turn->key = (struct turn_key){ l->number, p->live->submitter->number };
        turn->deficit = LANE_QUANTUM;
        list_init(&turn->pendings);
        list_push_back(&l->turns, &turn->link);
        map_put(&l->lanes->turns, str_new(&turn->key, sizeof turn->key), turn);
    }
    list_push_back(&turn->pendings, &p->link);
    l->ready++;
    lane_file(l, now);
}

static void
turn_end_if_empty(struct queue_lane *l, struct turn *turn)
{
    if (!list_is_empty(&turn->pendings))
        return;
    list_remove(&turn->link);
    map_remove(&l->lanes->turns, str_new(&turn->key, sizeof turn->key));
    mem_free(l->lanes->mem, turn, sizeof *turn);
}

void
lane_remove(struct queue_lane *l, struct pending *p, int64_t now)
{
    struct turn *turn = turn_find(l, p->live->submitter);

    CHECK(turn && l->ready > 0);
    list_remove(&p->link);
    l->ready--;
    turn_end_if_empty(l, turn);
    lane_file(l, now);
}

static void
remove_left(struct queue_lane *l, const struct queue_lane *left, struct list *out, int64_t now)
{
    list_each_safe(turn_node, &l->turns) {
        struct turn *turn = container_of(turn_node, struct turn, link);
        list_each_safe(node, &turn->pendings) {
            if (container_of(node, struct pending, link)->domain->left != left)
                continue;
            list_remove(node);
            list_push_back(out, node);
            l->ready--;
        }
        turn_end_if_empty(l, turn);
    }
    lane_file(l, now);
}

void
lane_remove_left(struct queue_lane *l, struct list *out, int64_t now)
{
    remove_left(l, l, out, now);
    if (l->alone)
        remove_left(l->alone, l, out, now);
    l->left = false;
}

size_t
lane_take(struct queue_lane *l, size_t max, struct list *out)
{
    struct turn *turn;

    CHECK(l->ready > 0 && max > 0);
    for (;;) {
        turn = container_of(l->turns.next, struct turn, link);
        if (turn->deficit > 0)
            break;
        turn->deficit += LANE_QUANTUM;
        list_remove(&turn->link);
        list_push_back(&l->turns, &turn->link);
    }
    const struct pending *first = container_of(turn->pendings.next, struct pending, link);
    size_t count = 0;
    while (count < max && !list_is_empty(&turn->pendings)) {
        struct pending *p = container_of(turn->pendings.next, struct pending, link);
        if (count > 0 && (p->live != first->live || p->sender_group != first->sender_group ||
                          p->sender_group == SENDER_GROUP_ALONE))
            break;
        list_remove(&p->link);
        list_push_back(out, &p->link);
        count++;
    }
    l->ready -= count;
    uint64_t size = first->live->size;
    turn->deficit -= (int64_t)(size < LANE_COST_MAX ? size : LANE_COST_MAX) + (int64_t)count * LANE_COST_RECIPIENT;
    if (turn->deficit <= 0 && !list_is_empty(&turn->pendings)) {
        turn->deficit += LANE_QUANTUM;
        list_remove(&turn->link);
        list_push_back(&l->turns, &turn->link);
    }
    turn_end_if_empty(l, turn);
    return count;
}

/* ---- jobs ------------------------------------------------------------------------------------------------------- */

/* It could run when it was put there; others may have filled its destination or host since. */
static bool
still_runnable(struct queue_lane *l, int64_t now)
{
    if (l->runnable)
        lane_file(l, now);
    return l->runnable;
}

struct queue_lane *
lanes_pick(struct lanes *ls, unsigned classes, uint32_t prefer, int64_t now)
{
    struct queue_lane *preferred = prefer ? map_get(&ls->by_number, str_new(&prefer, sizeof prefer)) : NULL;

    for (int busy = 0; busy < 2; busy++) {
        if (busy && preferred && (classes & 1u << preferred->class) && still_runnable(preferred, now))
            return preferred;
        for (unsigned class = 0; class < LANE_CLASSES; class++)
            while ((classes & 1u << class) && !list_is_empty(&ls->runnable[class][busy])) {
                struct queue_lane *l = container_of(ls->runnable[class][busy].next, struct queue_lane, link);
                if (still_runnable(l, now))
                    return l;
            }
    }
    return NULL;
}

struct lane_limit *
lane_begin(struct queue_lane *l, int64_t now)
{
    struct lane_limit *host = least_busy_host(l, now, l->lanes->prng);

    CHECK(l->in_flight < (l->dead ? 1 : l->window));
    bucket_take(&l->bucket, l->own_route->rate, now);
    l->in_flight++;
    l->destination->in_flight++;
    if (host)
        host->in_flight++;
    l->refs++;
    unrunnable(l); /* and so to the end of the line */
    lane_file(l, now);
    return host;
}

static void
grow(struct queue_lane *l)
{
    if (++l->successes < (l->fast_start ? 1 : l->window))
        return;
    l->successes = 0;
    l->window += l->window < connections_max(l) && l->class != LANE_ALONE;
}

static void
shrink(struct queue_lane *l, uint32_t window)
{
    l->window = window > 0 ? window : 1;
    l->successes = 0;
    l->fast_start = false;
}

static void
unreachable(struct queue_lane *l, int64_t started, int64_t now)
{
    shrink(l, l->window / 2);
    if (++l->failures < LANE_FAILURES_TO_DIE)
        return;
    if (!l->dead) {
        l->dead = true;
        l->dead_since = now;
        l->probes = 1;
    } else if (started > l->dead_since) {
        l->probes++;
    } else {
        return; /* under way since before it died: nothing new */
    }
    int64_t delay = retry_delay(l->lanes->retry, l->probes, l->lanes->prng);
    l->probe_at = now + (delay < LANE_PROBE_MAX ? delay : LANE_PROBE_MAX);
}

static void
reached(struct queue_lane *l)
{
    l->failures = 0;
    l->reason_len = 0;
    if (!l->dead)
        return;
    l->dead = false;
    l->window = l->class == LANE_ALONE || connections_max(l) == 1 ? 1 : 2;
    l->fast_start = true;
}

void
lane_end(struct queue_lane *l, struct lane_limit *host, enum lane_result result, int64_t started, uint64_t bytes,
         int64_t now)
{
    bool slow = now - started > LANE_SLOW_NS + (int64_t)(bytes >> 16) * SECOND;

    CHECK(l->in_flight > 0 && l->destination->in_flight > 0);
    l->in_flight--;
    l->destination->in_flight--;
    if (host)
        host->in_flight--;
    switch (result) {
    case LANE_RESULT_GOOD:
        reached(l);
        if (slow)
            shrink(l, l->window - 1);
        else
            grow(l);
        break;
    case LANE_RESULT_REACHED:
        reached(l);
        break;
    case LANE_RESULT_BUSY:
        reached(l);
        shrink(l, l->window - 1);
        break;
    case LANE_RESULT_UNREACHABLE:
        unreachable(l, started, now);
        break;
    case LANE_RESULT_UNKNOWN:
        break;
    }
    lane_file(l, now);
    wake_waiting(l->destination, now);
    if (host)
        wake_waiting(host, now);
    lane_unref(l);
}

size_t
lane_order_hosts(struct queue_lane *l, const struct lane_limit *first, int64_t now, struct mx_host *out, size_t cap)
{
    struct sortable {
        const struct lane_host *host;
        uint64_t by; /* down, rank, not first, chance */
    } sorted[LIMIT_MX_HOSTS];
    size_t count = l->host_count < cap ? l->host_count : cap;

    CHECK(l->host_count <= LIMIT_MX_HOSTS);
    for (size_t i = 0; i < l->host_count; i++) {
        const struct lane_host *h = &l->hosts[i];
        uint64_t by = (uint64_t)(now < h->limit->down_until) << 63 | (uint64_t)h->rank << 40 |
                      (uint64_t)(h->limit != first) << 39 | prng_below(l->lanes->prng, 1u << 30);
        size_t at = i;
        for (; at > 0 && by < sorted[at - 1].by; at--)
            sorted[at] = sorted[at - 1];
        sorted[at] = (struct sortable){ h, by };
    }
    for (size_t i = 0; i < count; i++)
        out[i] = (struct mx_host){ sorted[i].host->limit->name, sorted[i].host->rank };
    return count;
}

void
lane_set_reason(struct queue_lane *l, struct str reason)
{
    l->reason_len = reason.len < LANE_REASON ? reason.len : LANE_REASON;
    if (l->reason_len > 0)
        memcpy(l->reason, reason.ptr, l->reason_len);
}

void
lane_probe_now(struct queue_lane *l, int64_t now)
{
    if (l->dead)
        l->probe_at = now;
    lane_file(l, now);
}

void
lanes_host_down(struct lanes *ls, struct str name, int64_t now)
{
    struct lane_limit *host = map_get(&ls->hosts, name);

    if (!host || now < host->down_until) /* others were under way when it was found */
        return;
    host->failures += host->failures < 10;
    int64_t delay = MINUTE << (host->failures - 1);
    host->down_until = now + (delay < LANE_PROBE_MAX ? delay : LANE_PROBE_MAX);
}

void
lanes_host_up(struct lanes *ls, struct str name)
{
    struct lane_limit *host = map_get(&ls->hosts, name);

    if (host) {
        host->failures = 0;
        host->down_until = 0;
    }
}

void
lanes_check(const struct lanes *ls)
{
    struct map_slot *slot;
    size_t runnable = 0, turns = 0;

    for (size_t at = 0; (slot = map_next(&ls->by_key, &at));) {
        struct queue_lane *l = slot->value;
        size_t ready = 0;
        list_each(node, &l->turns) {
            turns++;
            list_each(pending, &container_of(node, struct turn, link)->pendings)
                ready++;
        }
        CHECK(ready == l->ready);
        bool wants = l->ready > 0 && l->in_flight < (l->dead ? 1 : l->window);
        CHECK(wants == (list_is_linked(&l->link) || heap_has(&l->timer)));
        CHECK(!(list_is_linked(&l->link) && heap_has(&l->timer)));
        /* Who waits for another's end must have somebody to wait for. */
        if (list_is_linked(&l->link) && !l->runnable) {
            uint32_t in_flight = l->destination->in_flight;
            for (size_t i = 0; i < l->host_count; i++)
                in_flight += l->hosts[i].limit->in_flight;
            CHECK(in_flight > 0);
        }
        CHECK(l->window >= 1 && l->window <= connections_max(l));
        runnable += l->runnable;
    }
    CHECK(runnable == ls->runnable_count && turns == ls->turns.count);
}
