/* schedule - places of recipients, and the domains that lead them to lanes. See state.h. */
#include "queue/state.h"

#include "base/check.h"

#include <string.h>

/* ---- places ----------------------------------------------------------------------------------------------------- */

/* A suspect's lane is one of its own: whoever carries it carries nothing else. */
struct queue_lane *
pending_lane(const struct pending *p)
{
    struct queue_lane *l = p->domain->lane;

    return p->live->deaths > 0 ? lane_for_suspects(l) : l;
}

void
pending_unplace(struct queue *q, struct pending *p, int64_t now)
{
    if (p->place == PLACE_READY) {
        lane_remove(pending_lane(p), p, now);
        p->domain->ready--;
    }
    list_remove(&p->link);
    heap_remove(&q->timers, &p->timer);
}

/* While it waits for its turn or its route: until the delay is told, or until it is too old. What is too old when its
 * last wait ends has one more try, for as long as the first wait between tries. */
static void
set_patience(struct queue *q, struct moment t, struct pending *p)
{
    int64_t left = live_lifetime(q, p->live) - live_age(p->live, t);
    int64_t due = t.now + (left > 0 ? left : q->settings.retry.steps[0]), delay_at = notice_delay_at(q, p, t);

    heap_insert(&q->timers, &p->timer, delay_at < due ? delay_at : due);
}

void
pending_wait(struct queue *q, struct moment t, struct pending *p, int64_t due)
{
    int64_t left = live_lifetime(q, p->live) - live_age(p->live, t), delay_at = notice_delay_at(q, p, t);

    /* Its last try is at the end of its life; and whoever is told of a delay shall know the latest. */
    if (left > 0 && due > t.now + left)
        due = t.now + left;
    if (due > delay_at && delay_at > t.now)
        due = delay_at;
    pending_set_place(q, p, PLACE_WAITING);
    list_push_back(&p->domain->waiting, &p->link);
    heap_insert(&q->timers, &p->timer, due);
}

void
pending_doom(struct queue *q, struct pending *p, enum doom why)
{
    pending_set_place(q, p, PLACE_DOOMED);
    p->detail = why & 15u;
    list_push_back(&q->doomed, &p->link);
}

static void domain_resolve(struct queue *, struct moment, struct queue_domain *);

/* Where it belongs by what its domain's state is now. */
static void
place_by_domain(struct queue *q, struct moment t, struct pending *p)
{
    struct queue_domain *d = p->domain;

    switch ((enum domain_state)d->state) {
    case DOMAIN_KNOWN:
        pending_set_place(q, p, PLACE_READY);
        d->ready++;
        set_patience(q, t, p);
        lane_push(pending_lane(p), p, t.now);
        return;
    case DOMAIN_REFUSED:
        pending_doom(q, p, DOOM_ROUTE);
        return;
    case DOMAIN_NEW:
        pending_set_place(q, p, PLACE_UNRESOLVED);
        list_push_back(&d->pool, &p->link);
        set_patience(q, t, p);
        return;
    }
}

void
pending_start(struct queue *q, struct moment t, struct pending *p)
{
    struct live *m = p->live;

    if (m->remove || m->bounce) {
        pending_doom(q, p, m->remove ? DOOM_REMOVED : DOOM_BOUNCED);
        return;
    }
    if (m->held) {
        pending_set_place(q, p, PLACE_HELD);
        return;
    }
    if (m->born > t.now) { /* its user wants it to go later: RFC 4865 */
        pending_wait(q, t, p, m->born);
        return;
    }
    domain_resolve(q, t, p->domain);
    place_by_domain(q, t, p);
}

void
pending_timer(struct queue *q, struct moment t, struct pending *p)
{
    bool tell_delay = notice_delay_is_due(q, p, t);

    if (tell_delay)
        notice_ask(q, t, p, NOTICE_OF_DELAY);
    if (p->place == PLACE_WAITING) {
        pending_unplace(q, p, t.now);
        pending_start(q, t, p);
    } else if (live_is_expired(q, p->live, t)) {
        pending_unplace(q, p, t.now);
        pending_doom(q, p, DOOM_EXPIRED);
    } else {
        heap_remove(&q->timers, &p->timer);
        set_patience(q, t, p);
    }
}

void
live_set_deaths(struct queue *q, struct moment t, struct live *m, uint8_t deaths)
{
    struct list ready;

    if (m->deaths == deaths)
        return;
    list_init(&ready);
    if ((m->deaths > 0) != (deaths > 0))
        for (struct pending *p = m->first; p; p = p->sibling) {
            if (p->place != PLACE_READY)
                continue;
            lane_remove(pending_lane(p), p, t.now);
            list_push_back(&ready, &p->link);
        }
    q->suspects += (size_t)(deaths > 0) - (size_t)(m->deaths > 0);
    m->deaths = deaths;
    for (struct list *node; (node = list_pop_front(&ready));) {
        struct pending *p = container_of(node, struct pending, link);
        lane_push(pending_lane(p), p, t.now);
    }
}

/* ---- domains ---------------------------------------------------------------------------------------------------- */

struct queue_domain *
domain_get(struct queue *q, struct str address)
{
    size_t at = str_find_last_byte(address, '@');
    struct str name = at < address.len ? str_from(address, at + 1) : S("");
    char memory[LIMIT_PATH];
    struct text lower = text_init(memory, sizeof memory);

    text_put_lower(&lower, name);
    struct queue_domain *d = map_get(&q->domains, text_str(&lower));
    if (d) {
        if (d->refs == 0 && !d->asking) {
            list_remove(&d->link);
            q->idle_count--;
        }
        return d;
    }
    d = mem_alloc(q->mem, sizeof *d + lower.len);
    memcpy(d->bytes, memory, lower.len);
    d->name = str_new(d->bytes, lower.len);
    d->why = S("");
    list_init(&d->link);
    list_init(&d->pool);
    list_init(&d->waiting);
    list_init(&d->start_link);
    list_init(&d->place_link);
    map_put(&q->domains, d->name, d);
    return d;
}

void
domain_free(struct queue *q, struct queue_domain *d)
{
    list_remove(&d->start_link);
    list_remove(&d->place_link);
    if (d->lane)
        lane_unref(d->lane);
    own_str(q->mem, &d->why, S(""));
    mem_free(q->mem, d, sizeof *d + d->name.len);
}

static void
went_idle(struct queue *q, struct queue_domain *d)
{
    if (d->refs > 0 || d->asking)
        return;
    list_push_back(&q->idle_domains, &d->link);
    if (++q->idle_count <= QUEUE_IDLE_DOMAINS)
        return;
    struct queue_domain *oldest = container_of(q->idle_domains.next, struct queue_domain, link);
    list_remove(&oldest->link);
    q->idle_count--;
    heap_remove(&q->domain_timers, &oldest->timer);
    map_remove(&q->domains, oldest->name);
    domain_free(q, oldest);
}

void
domain_unref(struct queue *q, struct queue_domain *d)
{
    CHECK(d->refs > 0);
    d->refs--;
    went_idle(q, d);
}

static void
domain_ask(struct queue *q, struct queue_domain *d)
{
    if (d->asking)
        return;
    CHECK(d->refs > 0);
    heap_remove(&q->domain_timers, &d->timer);
    d->asking = true;
    list_push_back(&q->questions, &d->link);
}

bool
domain_place_some(struct queue *q, struct moment t, struct queue_domain *d, size_t most)
{
    while (d->state != DOMAIN_NEW && !list_is_empty(&d->pool)) {
        if (most-- == 0)
            return true;
        struct pending *p = container_of(list_pop_front(&d->pool), struct pending, link);
        heap_remove(&q->timers, &p->timer);
        place_by_domain(q, t, p);
    }
    list_remove(&d->place_link);
    return false;
}

/* All that waited for the answer, and all that stood in a lane that is no longer right: some at once, the others, who
 * may be a million, as queue_tick() comes to them. */
static void
place_again(struct queue *q, struct moment t, struct queue_domain *d)
{
    if (domain_place_some(q, t, d, QUEUE_TICK_EVENTS) && !list_is_linked(&d->place_link))
        list_push_back(&q->placing, &d->place_link);
}

/* What stands in this lane of domains that left it, into their pools. */
static void
sweep(struct queue *q, struct queue_lane *l, int64_t now)
{
    struct list displaced;

    list_init(&displaced);
    lane_remove_left(l, &displaced, now);
    for (struct list *node; (node = list_pop_front(&displaced));) {
        struct pending *p = container_of(node, struct pending, link);
        p->domain->ready--;
        pending_set_place(q, p, PLACE_UNRESOLVED);
        list_push_back(&p->domain->pool, node);
    }
}

/* In a reload all domains of a lane leave it together, and it is swept once. */
static void
leave_lane(struct queue *q, struct queue_domain *d, int64_t now)
{
    if (!d->lane || d->ready == 0)
        return;
    d->left = d->lane;
    if (q->rerouting) {
        lane_ref(d->lane);
        d->lane->left = true;
        return;
    }
    sweep(q, d->lane, now);
    d->left = NULL;
}

/* The lane's reference becomes the domain's. */
static void
domain_know(struct queue *q, struct moment t, struct queue_domain *d, struct queue_lane *lane, int64_t valid_until)
{
    if (d->lane != lane)
        leave_lane(q, d, t.now);
    if (d->lane)
        lane_unref(d->lane);
    d->lane = lane;
    d->state = DOMAIN_KNOWN;
    d->valid_until = valid_until;
    d->troubles = 0;
    heap_remove(&q->domain_timers, &d->timer);
    own_str(q->mem, &d->why, S(""));
    place_again(q, t, d);
}

static void
domain_refuse(struct queue *q, struct moment t, struct queue_domain *d, struct str enhanced, struct str why,
              int64_t ttl)
{
    char memory[LANE_REASON];
    struct text text = text_init(memory, sizeof memory);

    leave_lane(q, d, t.now);
    text_putf(&text, "%.*s ", STR_ARG(enhanced));
    text_put(&text, str_slice(why, 0, sizeof memory - text.len));
    own_str(q->mem, &d->why, text_str(&text));
    d->state = DOMAIN_REFUSED;
    d->valid_until = t.now + ttl;
    d->troubles = 0;
    heap_remove(&q->domain_timers, &d->timer);
    place_again(q, t, d);
}

/* What was known is used on: an old answer is better than none. */
static void
domain_trouble(struct queue *q, struct moment t, struct queue_domain *d, struct str why)
{
    int64_t delay = retry_delay(&q->settings.retry, ++d->troubles, &q->prng);

    own_str(q->mem, &d->why, str_slice(why, 0, LANE_REASON));
    if (d->state == DOMAIN_REFUSED)
        d->state = DOMAIN_NEW;
    if (d->refs > 0)
        heap_insert(&q->domain_timers, &d->timer, t.now + (delay < LANE_PROBE_MAX ? delay : LANE_PROBE_MAX));
}

static bool
is_literal(const struct queue_domain *d)
{
    return d->name.len > 0 && d->name.ptr[0] == '[';
}

/* By the configuration alone, where that is enough. False: DNS must be asked. */
static bool
route_without_dns(struct queue *q, struct moment t, struct queue_domain *d)
{
    struct route route = { 0 };
    struct mx_host literal = { d->name, 0 };

    if (!q->settings.find_route(q->settings.arg, d->name, &route)) {
        domain_refuse(q, t, d, S("5.4.4"), S("no route to this domain"), ROUTE_TTL_REFUSED);
        return true;
    }
    if (route.kind == ROUTE_MX && !is_literal(d))
        return false;
    domain_know(q, t, d, lane_get(&q->lanes, &route, &literal, route.kind == ROUTE_MX), INT64_MAX);
    return true;
}

/* Before one of its recipients is placed. */
static void
domain_resolve(struct queue *q, struct moment t, struct queue_domain *d)
{
    if (d->state == DOMAIN_REFUSED && t.now >= d->valid_until)
        d->state = DOMAIN_NEW;
    if (d->state == DOMAIN_KNOWN)
        domain_refresh(q, t, d);
    else if (d->state == DOMAIN_NEW && !d->asking && !heap_has(&d->timer) && !route_without_dns(q, t, d))
        domain_ask(q, d);
}

/* An answer that is out of date is used until the new one is there. */
void
domain_refresh(struct queue *q, struct moment t, struct queue_domain *d)
{
    if (d->state == DOMAIN_KNOWN && t.now >= d->valid_until && !heap_has(&d->timer))
        domain_ask(q, d);
}

/* Hosts that are known need no new lookup, but perhaps another lane. */
static void
domain_reroute(struct queue *q, struct moment t, struct queue_domain *d)
{
    struct route route = { 0 };
    struct mx_host hosts[LIMIT_MX_HOSTS];
    size_t count = 0;

    if (d->state == DOMAIN_REFUSED)
        d->state = DOMAIN_NEW;
    if (d->state != DOMAIN_KNOWN) {
        heap_remove(&q->domain_timers, &d->timer);
        if (d->refs > 0 && !route_without_dns(q, t, d))
            domain_ask(q, d);
        return;
    }
    bool had_hosts = d->lane->own_route->kind == ROUTE_MX;
    bool has_route = q->settings.find_route(q->settings.arg, d->name, &route);
    if (has_route && route.kind == ROUTE_MX && had_hosts) {
        for (; count < d->lane->host_count; count++)
            hosts[count] = (struct mx_host){ d->lane->hosts[count].limit->name, d->lane->hosts[count].rank };
        route.mx_secure = d->lane->own_route->mx_secure;
        domain_know(q, t, d, lane_get(&q->lanes, &route, hosts, count), d->valid_until);
    } else if (has_route && route.kind == ROUTE_MX && !is_literal(d)) {
        leave_lane(q, d, t.now);
        d->state = DOMAIN_NEW;
        if (d->refs > 0)
            domain_ask(q, d);
        place_again(q, t, d);
    } else {
        route_without_dns(q, t, d);
    }
}

void
queue_reroute(struct queue *q, struct moment t)
{
    struct map_slot *slot;

    q->rerouting = true;
    for (size_t at = 0; (slot = map_next(&q->domains, &at));)
        domain_reroute(q, t, slot->value);
    q->rerouting = false;
    for (size_t at = 0; (slot = map_next(&q->lanes.by_key, &at));)
        if (((struct queue_lane *)slot->value)->left)
            sweep(q, slot->value, t.now);
    for (size_t at = 0; (slot = map_next(&q->domains, &at));) {
        struct queue_domain *d = slot->value;
        if (!d->left)
            continue;
        lane_unref(d->left);
        d->left = NULL;
        place_again(q, t, d);
    }
}

void
domain_timer(struct queue *q, struct moment t, struct queue_domain *d)
{
    (void)t;
    if (d->refs > 0)
        domain_ask(q, d);
}

void
domain_hurry(struct queue *q, struct moment t, struct queue_domain *d)
{
    if (heap_has(&d->timer)) {
        heap_remove(&q->domain_timers, &d->timer);
        domain_timer(q, t, d);
    }
    if (d->state != DOMAIN_KNOWN)
        return;
    lane_probe_now(d->lane, t.now);
    if (d->lane->alone)
        lane_probe_now(d->lane->alone, t.now);
}

void
domain_start(struct queue *q, struct moment t, struct queue_domain *d)
{
    domain_hurry(q, t, d);
    d->start_order = q->timers.next_order;
    if (!list_is_empty(&d->waiting) && !list_is_linked(&d->start_link))
        list_push_back(&q->starting, &d->start_link);
}

bool
queue_next_question(struct queue *q, struct moment t, struct str *out_domain)
{
    (void)t;
    /* Far ahead of the senders an answer would only grow old; after a restart there may be a million domains. */
    if (q->asked_count >= QUEUE_QUESTIONS_MAX || q->lanes.runnable_count >= QUEUE_LANES_AHEAD)
        return false;
    struct list *node = list_pop_front(&q->questions);
    if (!node)
        return false;
    struct queue_domain *d = container_of(node, struct queue_domain, link);
    d->asked = true;
    q->asked_count++;
    *out_domain = d->name;
    return true;
}

static int64_t
clamp_ttl(uint32_t ttl, int64_t least, int64_t most)
{
    int64_t ns = (int64_t)ttl * SECOND;

    return ns < least ? least : ns > most ? most : ns;
}

static void
take_answer(struct queue *q, struct moment t, struct queue_domain *d, const struct mx_result *answer)
{
    int64_t refused_ttl = clamp_ttl(answer->ttl, SECOND, ROUTE_TTL_REFUSED);
    struct route route = { 0 };
    enum { HOSTS = 64 };
    struct mx_host hosts[HOSTS];
    size_t count;

    if (route_without_dns(q, t, d)) /* the configuration may have changed since the question */
        return;
    switch ((enum mx_status)answer->status) {
    case MX_OK:
        CHECK(q->settings.find_route(q->settings.arg, d->name, &route) && route.kind == ROUTE_MX);
        route.mx_secure = answer->secure;
        count = mx_better_than(answer, q->settings.hostname, hosts, HOSTS);
        if (count == 0)
            domain_refuse(q, t, d, S("5.4.6"), S("mail for this domain comes to us, who do not take it"), refused_ttl);
        else
            domain_know(q, t, d, lane_get(&q->lanes, &route, hosts, count),
                        t.now + clamp_ttl(answer->ttl, ROUTE_TTL_MIN, ROUTE_TTL_MAX));
        return;
    case MX_NULL:
        domain_refuse(q, t, d, S("5.1.10"), S("this domain takes no mail (null MX)"), refused_ttl);
        return;
    case MX_NXDOMAIN:
        domain_refuse(q, t, d, S("5.1.2"), S("there is no such domain"), refused_ttl);
        return;
    case MX_NO_ADDRESS:
        domain_refuse(q, t, d, S("5.4.4"), answer->why, refused_ttl);
        return;
    case MX_TEMPORARY:
        domain_trouble(q, t, d, answer->why);
        return;
    }
}

void
queue_answer(struct queue *q, struct moment t, struct str domain, const struct mx_result *answer)
{
    struct queue_domain *d = map_get(&q->domains, domain);

    CHECK(d && d->asked);
    d->asked = d->asking = false;
    q->asked_count--;
    take_answer(q, t, d, answer);
    went_idle(q, d);
}
