/* queue - see queue.h; state.h says which file does what. Here: life, adding, ending, time, counting. */
#include "queue/state.h"

#include "base/check.h"

#include <string.h>

#define SIZE_MOST ((UINT64_C(1) << 41) - 1) /* what the fields of struct live hold */
enum { WITHIN_MAX = (1 << 23) - 1 };

void
own_str(struct mem *mem, struct str *own, struct str s)
{
    char *copy = s.len ? mem_alloc(mem, s.len) : NULL;

    if (s.len > 0)
        memcpy(copy, s.ptr, s.len);
    if (own->len > 0)
        mem_free(mem, (char *)(uintptr_t)own->ptr, own->len);
    *own = s.len ? str_new(copy, s.len) : S("");
}

static void
take_settings(struct queue *q, const struct queue_settings *s)
{
    struct str hostname = q->settings.hostname, postmaster = q->settings.postmaster;

    CHECK(s->retry.step_count > 0 && s->retry.step_count <= RETRY_STEPS_MAX && s->find_route);
    own_str(q->mem, &hostname, s->hostname);
    own_str(q->mem, &postmaster, s->postmaster);
    q->settings = *s;
    q->settings.hostname = hostname;
    q->settings.postmaster = postmaster;
}

struct queue *
queue_new(struct mem *mem, uint64_t seed, const struct queue_settings *settings, struct moment t)
{
    struct queue *q = mem_new(mem, struct queue);

    (void)t;
    q->mem = mem;
    q->next_job = 1;
    prng_seed(&q->prng, seed);
    seed = prng_u64(&q->prng);
    lanes_init(&q->lanes, mem, &q->prng, &q->settings.retry, seed);
    ids_init(&q->ids, mem, seed);
    slab_init(&q->lives, mem, sizeof(struct live), SLAB_MANY);
    slab_init(&q->pendings, mem, sizeof(struct pending), SLAB_MANY);
    map_init(&q->domains, mem, seed);
    map_init(&q->submitters, mem, seed);
    map_init(&q->flights, mem, seed);
    map_init(&q->notices_waiting, mem, seed);
    map_init(&q->notices_composing, mem, seed);
    heap_init(&q->timers, mem);
    heap_init(&q->domain_timers, mem);
    heap_init(&q->notice_timers, mem);
    list_init(&q->questions);
    list_init(&q->idle_domains);
    list_init(&q->placing);
    list_init(&q->starting);
    list_init(&q->doomed);
    take_settings(q, settings);
    return q;
}

void
queue_set_settings(struct queue *q, struct moment t, const struct queue_settings *settings)
{
    take_settings(q, settings);
    queue_reroute(q, t);
}

void
queue_free(struct queue *q)
{
    struct map_slot *slot;
    struct live *m;

    /* In an order in which nothing refers to what is gone: jobs and notices, recipients, domains, lanes. */
    for (size_t at = 0; (slot = map_next(&q->flights, &at));)
        flight_free(q, slot->value);
    for (size_t at = 0; (slot = map_next(&q->notices_waiting, &at));)
        notice_free(q, slot->value);
    for (size_t at = 0; (slot = map_next(&q->notices_composing, &at));)
        notice_free(q, slot->value);
    for (size_t at = 0; (m = ids_next(&q->ids, &at));) {
        for (struct pending *p = m->first, *next; p; p = next) {
            next = p->sibling;
            if (p->place == PLACE_READY)
                lane_remove(pending_lane(p), p, 0);
            slab_give(&q->pendings, p);
        }
        slab_give(&q->lives, m);
    }
    for (size_t at = 0; (slot = map_next(&q->domains, &at));)
        domain_free(q, slot->value);
    for (size_t at = 0; (slot = map_next(&q->submitters, &at));) {
        struct submitter *s = slot->value;
        mem_free(q->mem, s, sizeof *s + s->name.len);
    }
    lanes_done(&q->lanes);
    ids_done(&q->ids);
    slab_done(&q->lives);
    slab_done(&q->pendings);
    map_done(&q->domains);
    map_done(&q->submitters);
    map_done(&q->flights);
    map_done(&q->notices_waiting);
    map_done(&q->notices_composing);
    heap_done(&q->timers);
    heap_done(&q->domain_timers);
    heap_done(&q->notice_timers);
    own_str(q->mem, &q->settings.hostname, S(""));
    own_str(q->mem, &q->settings.postmaster, S(""));
    mem_free(q->mem, q, sizeof *q);
}

/* ---- messages and recipients ------------------------------------------------------------------------------------ */

struct live *
queue_find(const struct queue *q, struct message_id id)
{
    return ids_get(&q->ids, id);
}

bool
queue_has(const struct queue *q, struct message_id id)
{
    return queue_find(q, id) != NULL;
}

int64_t
live_age(const struct live *m, struct moment t)
{
    return retry_age(m->born, m->accepted_wall, t);
}

int64_t
live_lifetime(const struct queue *q, const struct live *m)
{
    const struct retry *r = &q->settings.retry;

    int64_t most = m->null_sender && r->lifetime_null < r->lifetime ? r->lifetime_null : r->lifetime;
    return m->returns && (int64_t)m->within * SECOND < most ? (int64_t)m->within * SECOND : most;
}

bool
live_is_expired(const struct queue *q, const struct live *m, struct moment t)
{
    return live_age(m, t) >= live_lifetime(q, m);
}

struct notice_facts
pending_facts(const struct queue *q, const struct pending *p)
{
    return (struct notice_facts){
        .notify = p->notify,
        .null_reverse_path = p->null_reverse_path,
        .own_notice = p->live->own_notice,
        .by = p->live->within > 0 && !p->live->returns,
        .trusted = p->live->trusted,
        .has_postmaster = q->settings.postmaster.len > 0,
        .is_postmaster = p->is_postmaster,
    };
}

void
pending_set_place(struct queue *q, struct pending *p, enum place place)
{
    q->places[p->place]--;
    q->places[place]++;
    p->place = place & 15u;
}

static struct submitter *
submitter_get(struct queue *q, struct str name)
{
    struct submitter *s = map_get(&q->submitters, name);

    if (!s) {
        s = mem_alloc(q->mem, sizeof *s + name.len);
        if (name.len > 0)
            memcpy(s->bytes, name.ptr, name.len);
        s->name = str_new(s->bytes, name.len);
        s->number = ++q->next_submitter;
        map_put(&q->submitters, s->name, s);
    }
    s->refs++;
    return s;
}

static void
submitter_unref(struct queue *q, struct submitter *s)
{
    if (--s->refs > 0)
        return;
    map_remove(&q->submitters, s->name);
    mem_free(q->mem, s, sizeof *s + s->name.len);
}

/* Where a recipient of this status begins; PLACE_GONE: it has ended, and nothing is owed. */
static enum place
first_place(const struct recipient_status *s)
{
    if (s->state == STATE_PENDING)
        return PLACE_WAITING;
    if (s->state == STATE_FAILED_OWED)
        return PLACE_OWED;
    return (s->notices & NOTICE_SUCCESS_OWED) ? PLACE_SUCCESS_OWED : PLACE_GONE;
}

/* Recipients of different groups never share a transaction. The envelope's reverse-path is group 0, others (owners of
 * lists) get theirs as they come. */
struct sender_groups {
    struct str paths[SENDER_GROUPS];
    uint8_t count;
};

static uint8_t
sender_group(struct sender_groups *groups, struct str reverse_path)
{
    for (uint8_t i = 0; i < groups->count; i++)
        if (str_eq(groups->paths[i], reverse_path))
            return i;
    if (groups->count == SENDER_GROUPS)
        return SENDER_GROUP_ALONE;
    groups->paths[groups->count] = reverse_path;
    return groups->count++;
}

static struct pending *
add_recipient(struct queue *q, struct live *m, const struct envelope *e, size_t index, struct sender_groups *groups,
              const struct recipient_status *status)
{
    const struct recipient *r = &e->recipients[index];
    struct str reverse_path = str_is_absent(r->reverse_path) ? e->reverse_path : r->reverse_path;
    enum place place = first_place(status);

    if (place == PLACE_GONE) {
        q->counts.accepted += status->state == STATE_EXPANDED;
        q->counts.expanded += status->state == STATE_EXPANDED;
        return NULL;
    }
    struct pending *p = slab_take(&q->pendings);
    p->live = m;
    p->domain = domain_get(q, r->address);
    p->domain->refs++;
    p->index = (uint16_t)index;
    p->attempts = status->attempts;
    p->sender_group = sender_group(groups, reverse_path);
    p->notify = r->notify & 15u;
    p->null_reverse_path = reverse_path.len == 0;
    p->is_postmaster = str_eq_nocase(r->address, q->settings.postmaster);
    p->delay_told = (status->notices & NOTICE_DELAYED) != 0;
    p->detail = status->state & 15u;
    p->place = place & 15u;
    q->places[place]++;
    m->total++;
    if (place != PLACE_SUCCESS_OWED) {
        q->counts.accepted++;
        q->counts.pending++;
    } else if (status->state == STATE_EXPANDED) {
        q->counts.accepted++;
        q->counts.expanded++;
    }
    list_init(&p->link);
    return p;
}

static bool
was_tried(const struct spool_message *message)
{
    for (size_t i = 0; message->statuses && i < message->envelope.recipient_count; i++)
        if (message->statuses[i].attempts > 0)
            return true;
    return false;
}

bool
queue_add(struct queue *q, struct moment t, const struct spool_message *message)
{
    const struct envelope *e = &message->envelope;
    static const struct recipient_status fresh = { .state = STATE_PENDING };

    CHECK(e->recipient_count <= LIMIT_RCPT_EXPANDED);
    if (queue_has(q, message->id))
        return false;
    struct live *m = slab_take(&q->lives);
    m->id = message->id;
    /* RFC 4865: what is to be held until a time begins to age then. If it was tried before, an operator had it go. */
    bool early = e->hold_until > t.wall && was_tried(message);
    m->accepted_wall = early ? t.wall : e->hold_until > e->accepted_wall ? e->hold_until : e->accepted_wall;
    m->born = early ? t.now : e->hold_until > t.wall ? t.now + (e->hold_until - t.wall) : t.now - message->age;
    m->within = (uint64_t)(e->deliver_within / SECOND) & WITHIN_MAX;
    if (e->deliver_within / SECOND > WITHIN_MAX) /* no mail lives so long */
        m->within = WITHIN_MAX;
    m->returns = e->deliver_or_return;
    m->size = e->size & SIZE_MOST;
    m->deaths = message->deaths;
    m->held = message->held;
    m->null_sender = e->reverse_path.len == 0;
    m->trusted = e->trusted;
    m->own_notice = e->notice;
    m->submitter = submitter_get(q, str_is_absent(e->client) ? S("") : e->client);
    ids_put(&q->ids, &m->id);
    q->suspects += m->deaths > 0;

    struct pending **tail = &m->first;
    struct sender_groups groups = { .paths = { e->reverse_path }, .count = 1 };
    for (size_t i = 0; i < e->recipient_count; i++) {
        struct pending *p = add_recipient(q, m, e, i, &groups, message->statuses ? &message->statuses[i] : &fresh);
        if (!p)
            continue;
        *tail = p;
        tail = &p->sibling;
    }
    for (struct pending *p = m->first; p; p = p->sibling) {
        const struct recipient_status *status = message->statuses ? &message->statuses[p->index] : &fresh;
        int64_t wait = status->next_wall - t.wall, longest = 2 * retry_longest(&q->settings.retry);

        if (p->place == PLACE_OWED)
            notice_ask(q, t, p, m->own_notice ? NOTICE_OF_DOUBLE_BOUNCE : NOTICE_OF_FAILURE);
        else if (p->place == PLACE_SUCCESS_OWED)
            notice_ask(q, t, p, NOTICE_OF_SUCCESS);
        else if (wait <= 0 || m->held)
            pending_start(q, t, p);
        else /* a wall clock that was wrong must not send it to sleep for years */
            pending_wait(q, t, p, t.now + (wait < longest ? wait : longest));
    }
    live_tidy(q, m);
    return true;
}

void
count_end(struct queue *q, enum recipient_state state)
{
    q->counts.pending--;
    switch (state) {
    case STATE_DELIVERED: q->counts.delivered++; return;
    case STATE_RELAYED: q->counts.relayed++; return;
    case STATE_EXPANDED: q->counts.expanded++; return;
    case STATE_SUPPRESSED: q->counts.suppressed++; return;
    case STATE_REMOVED: q->counts.removed++; return;
    case STATE_FAILED_SENT:
    case STATE_FAILED_SILENT: q->counts.failed++; return;
    case STATE_PENDING:
    case STATE_FAILED_OWED: break;
    }
    UNREACHABLE();
}

void
pending_end(struct queue *q, struct pending *p, enum recipient_state state)
{
    CHECK(!list_is_linked(&p->link) && !heap_has(&p->timer) && p->place != PLACE_GONE);
    if (p->place != PLACE_SUCCESS_OWED)
        count_end(q, state);
    pending_set_place(q, p, PLACE_GONE);
    p->live->gone++;
    domain_unref(q, p->domain);
    p->domain = NULL;
}

bool
live_tidy(struct queue *q, struct live *m)
{
    /* Swept when half are gone: on the average, each is looked at twice. */
    if (m->gone * 2 < m->total)
        return false;
    for (struct pending **at = &m->first; *at;) {
        struct pending *p = *at;
        if (p->place != PLACE_GONE) {
            at = &p->sibling;
            continue;
        }
        *at = p->sibling;
        q->places[PLACE_GONE]--;
        m->gone--;
        m->total--;
        slab_give(&q->pendings, p);
    }
    CHECK(m->gone == 0);
    if (m->total > 0)
        return false;
    q->suspects -= m->deaths > 0;
    ids_remove(&q->ids, &m->id);
    submitter_unref(q, m->submitter);
    slab_give(&q->lives, m);
    return true;
}

/* ---- time ------------------------------------------------------------------------------------------------------- */

static int64_t
first_due(const struct heap *h, int64_t best)
{
    const struct heap_node *first = heap_first(h);

    return first && first->due < best ? first->due : best;
}

int64_t
queue_due(const struct queue *q, unsigned can)
{
    bool idle = list_is_empty(&q->starting) && list_is_empty(&q->placing) && list_is_empty(&q->doomed);
    int64_t due = idle ? lanes_due(&q->lanes) : INT64_MIN;

    due = first_due(&q->timers, due);
    due = first_due(&q->domain_timers, due);
    return can & QUEUE_NOTICE ? first_due(&q->notice_timers, due) : due;
}

/* The next one of a domain that was started, which waited then already. NULL: that was all. */
static struct pending *
next_to_start(struct queue *q)
{
    while (!list_is_empty(&q->starting)) {
        struct queue_domain *d = container_of(q->starting.next, struct queue_domain, start_link);
        struct pending *p = container_of(d->waiting.next, struct pending, link);
        if (!list_is_empty(&d->waiting) && p->timer.order < d->start_order)
            return p;
        list_remove(&d->start_link);
    }
    return NULL;
}

bool
queue_tick(struct queue *q, struct moment t)
{
    size_t events = 0;
    struct heap_node *node;
    struct pending *p;

    lanes_tick(&q->lanes, t.now);
    while ((node = heap_first(&q->domain_timers)) && node->due <= t.now) {
        if (events++ >= QUEUE_TICK_EVENTS)
            return true;
        heap_remove(&q->domain_timers, node);
        domain_timer(q, t, container_of(node, struct queue_domain, timer));
    }
    while ((node = heap_first(&q->timers)) && node->due <= t.now) {
        if (events++ >= QUEUE_TICK_EVENTS)
            return true;
        pending_timer(q, t, container_of(node, struct pending, timer));
    }
    if (!list_is_empty(&q->placing)) { /* each domain in its turn */
        struct queue_domain *d = container_of(list_pop_front(&q->placing), struct queue_domain, place_link);
        if (domain_place_some(q, t, d, QUEUE_TICK_EVENTS))
            list_push_back(&q->placing, &d->place_link);
        return true;
    }
    while ((p = next_to_start(q))) {
        if (events++ >= QUEUE_TICK_EVENTS)
            return true;
        pending_unplace(q, p, t.now);
        pending_start(q, t, p);
    }
    return false;
}

void
queue_start_all(struct queue *q, struct moment t)
{
    struct map_slot *slot;

    for (size_t at = 0; (slot = map_next(&q->domains, &at));)
        domain_start(q, t, slot->value);
}

/* ---- counting --------------------------------------------------------------------------------------------------- */

void
queue_counts(const struct queue *q, struct queue_counts *out)
{
    *out = q->counts;
    out->waiting = q->places[PLACE_WAITING] + q->places[PLACE_TELLING];
    out->unresolved = q->places[PLACE_UNRESOLVED];
    out->ready = q->places[PLACE_READY];
    out->in_flight = q->places[PLACE_IN_FLIGHT];
    out->held = q->places[PLACE_HELD];
    out->ending = q->places[PLACE_DOOMED];
    out->owed = q->places[PLACE_OWED];
    out->success_owed = q->places[PLACE_SUCCESS_OWED];
    out->messages = q->ids.count;
    out->suspects = q->suspects;
    out->lanes = q->lanes.by_key.count;
    out->domains = q->domains.count;
    out->jobs = q->flights.count;
    out->notices = q->notices_waiting.count + q->notices_composing.count;
}

bool
queue_balances(const struct queue *q)
{
    struct queue_counts c;

    queue_counts(q, &c);
    uint64_t ended = c.delivered + c.relayed + c.failed + c.expanded + c.suppressed + c.removed;
    uint64_t placed = c.waiting + c.unresolved + c.ready + c.in_flight + c.held + c.ending + c.owed;
    return c.accepted == ended + c.pending && c.pending == placed;
}

void
queue_audit(const struct queue *q)
{
    uint64_t places[PLACES] = { 0 };
    struct live *m;

    CHECK(queue_balances(q));
    for (size_t at = 0; (m = ids_next(&q->ids, &at));) {
        size_t total = 0, gone = 0;
        CHECK(m->total > m->gone);
        for (const struct pending *p = m->first; p; p = p->sibling) {
            bool linked = list_is_linked(&p->link), timed = heap_has(&p->timer);
            CHECK(p->live == m);
            CHECK(!p->sibling || p->sibling->index > p->index);
            switch ((enum place)p->place) {
            case PLACE_WAITING:
                CHECK(linked && timed && !m->held);
                break;
            case PLACE_UNRESOLVED: /* somebody will answer, or it is asked again */
                CHECK(linked && timed && !m->held);
                CHECK(p->domain->asking || heap_has(&p->domain->timer) || list_is_linked(&p->domain->place_link));
                break;
            case PLACE_READY: /* lanes_check() knows that its lane's turn comes */
                CHECK(linked && timed && !m->held && p->domain->state == DOMAIN_KNOWN);
                break;
            case PLACE_IN_FLIGHT:
            case PLACE_DOOMED:
                CHECK(linked && !timed);
                break;
            case PLACE_HELD:
                CHECK(!linked && !timed && m->held);
                break;
            case PLACE_TELLING:
            case PLACE_OWED:
            case PLACE_SUCCESS_OWED:
                CHECK(!linked && !timed && notice_is_coming(q, p));
                break;
            case PLACE_GONE:
                CHECK(!linked && !timed);
                break;
            default:
                UNREACHABLE();
            }
            places[p->place]++;
            total++;
            gone += p->place == PLACE_GONE;
        }
        CHECK(total == m->total && gone == m->gone);
    }
    for (size_t i = 0; i < PLACES; i++)
        CHECK(places[i] == q->places[i]);
    lanes_check(&q->lanes);
}
