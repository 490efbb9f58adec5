/* operator - what people do to the queue, and see of it. See state.h. */
#include "queue/state.h"

#include "base/check.h"

#define START_PAUSE_NS MINUTE /* between two runs of a domain that ETRN asks for */

static bool
rests(const struct pending *p)
{
    return p->place == PLACE_WAITING || p->place == PLACE_UNRESOLVED || p->place == PLACE_READY ||
           p->place == PLACE_HELD;
}

/* Each finds its place anew, by what its message is now. */
static void
place_all(struct queue *q, struct moment t, struct live *m)
{
    for (struct pending *p = m->first; p; p = p->sibling)
        if (rests(p)) {
            pending_unplace(q, p, t.now);
            pending_start(q, t, p);
        }
}

void
live_hold(struct queue *q, struct moment t, struct live *m)
{
    m->held = true;
    place_all(q, t, m);
}

bool
queue_hold(struct queue *q, struct moment t, struct message_id id, struct str why, struct spool_settle *out)
{
    struct live *m = queue_find(q, id);

    if (!m)
        return false;
    live_hold(q, t, m);
    *out = (struct spool_settle){ .id = id, .set_held = true, .held = true, .held_why = why };
    return true;
}

bool
queue_release(struct queue *q, struct moment t, struct message_id id, struct spool_settle *out)
{
    struct live *m = queue_find(q, id);

    if (!m)
        return false;
    bool ends = m->bounce || m->remove; /* when it comes back: until then the spool holds it */
    *out = (struct spool_settle){ .id = id, .set_held = true, .held = ends,
                                  .held_why = ends ? S("returned or removed by an operator while under way") : S("") };
    if (!m->held) /* what waits for its time waits on */
        return true;
    /* Poison that is released still goes alone; one more death and it is held again. */
    if (m->deaths >= QUEUE_DEATHS_MAX) {
        live_set_deaths(q, t, m, QUEUE_DEATHS_MAX - 1);
        out->set_deaths = true;
        out->deaths = m->deaths;
    }
    m->held = false;
    place_all(q, t, m);
    return true;
}

bool
queue_retry(struct queue *q, struct moment t, struct message_id id)
{
    struct live *m = queue_find(q, id);

    if (!m)
        return false;
    if (m->born > t.now) { /* its user would have it go later */
        m->born = t.now;
        m->accepted_wall = t.wall;
    }
    for (struct pending *p = m->first; p; p = p->sibling) {
        if (p->place == PLACE_WAITING) {
            pending_unplace(q, p, t.now);
            pending_start(q, t, p);
        }
        if (p->place == PLACE_READY || p->place == PLACE_UNRESOLVED)
            domain_hurry(q, t, p->domain);
    }
    return true;
}

bool
queue_bounce(struct queue *q, struct moment t, struct message_id id)
{
    struct live *m = queue_find(q, id);

    if (!m)
        return false;
    m->bounce = true;
    place_all(q, t, m);
    return true;
}

bool
queue_remove(struct queue *q, struct moment t, struct message_id id)
{
    struct live *m = queue_find(q, id);

    if (!m)
        return false;
    m->remove = true;
    place_all(q, t, m);
    for (struct pending *p = m->first; p; p = p->sibling)
        notice_drop_removed(q, p);
    return true;
}

size_t
queue_start_domain(struct queue *q, struct moment t, struct str domain)
{
    struct queue_domain *d = map_get(&q->domains, domain);

    if (!d)
        return 0;
    if (t.now >= d->start_again) { /* anybody may ask, as often as he likes */
        domain_start(q, t, d);
        d->start_again = t.now + START_PAUSE_NS;
    }
    return d->refs;
}

/* ---- looking ---------------------------------------------------------------------------------------------------- */

static int64_t
to_wall(struct moment t, int64_t due)
{
    return t.wall + (due - t.now);
}

static struct queue_recipient_view
view_recipient(const struct pending *p, struct moment t)
{
    static const struct str names[PLACES] = {
        [PLACE_WAITING] = STR("waiting"),
        [PLACE_UNRESOLVED] = STR("unresolved"),
        [PLACE_READY] = STR("ready"),
        [PLACE_IN_FLIGHT] = STR("in flight"),
        [PLACE_HELD] = STR("held"),
        [PLACE_TELLING] = STR("waiting"),
        [PLACE_DOOMED] = STR("ending"),
        [PLACE_OWED] = STR("notice owed"),
        [PLACE_SUCCESS_OWED] = STR("notice owed"),
    };
    const struct queue_domain *d = p->domain;
    struct queue_recipient_view view = {
        .index = p->index, .attempts = p->attempts, .place = names[p->place], .domain = d->name, .reason = S("") };

    if (d->state == DOMAIN_KNOWN) {
        bool alone = p->live->deaths > 0 && d->lane->alone;
        const struct queue_lane *l = alone ? d->lane->alone : d->lane;
        view.lane = l->number;
        view.lane_key = l->key;
        if (p->place == PLACE_READY) {
            view.reason = str_new(l->reason, l->reason_len);
            view.next_wall = l->dead ? to_wall(t, l->probe_at) : 0;
        }
    } else if (p->place == PLACE_UNRESOLVED) {
        view.reason = d->why;
        view.next_wall = heap_has(&d->timer) ? to_wall(t, d->timer.due) : 0;
    }
    if (p->place == PLACE_WAITING || p->place == PLACE_TELLING)
        view.next_wall = to_wall(t, p->timer.due);
    return view;
}

bool
queue_view(const struct queue *q, struct moment t, struct message_id id, size_t recipients_max, struct arena *arena,
           struct queue_message_view *out)
{
    const struct live *m = queue_find(q, id);

    if (!m)
        return false;
    *out = (struct queue_message_view){
        .id = id,
        .size = m->size,
        .accepted_wall = m->accepted_wall,
        .expires_wall = t.wall + (live_lifetime(q, m) - live_age(m, t)),
        .held = m->held,
        .deaths = m->deaths,
        .count = (size_t)(m->total - m->gone),
    };
    size_t cap = out->count < recipients_max ? out->count : recipients_max;
    out->recipients = arena_alloc(arena, cap * sizeof *out->recipients);
    for (const struct pending *p = m->first; p && out->recipient_count < cap; p = p->sibling)
        if (p->place != PLACE_GONE)
            out->recipients[out->recipient_count++] = view_recipient(p, t);
    return true;
}

size_t
queue_lanes(const struct queue *q, struct moment t, size_t *at, struct queue_lane_view *out, size_t cap)
{
    struct map_slot *slot;
    size_t count = 0;

    while (count < cap && (slot = map_next(&q->lanes.by_key, at))) {
        const struct queue_lane *l = slot->value;
        out[count++] = (struct queue_lane_view){
            .number = l->number,
            .key = l->key,
            .destination = l->destination->name,
            .ready = l->ready,
            .in_flight = l->in_flight,
            .window = l->window,
            .dead = l->dead,
            .probe_wall = l->dead ? to_wall(t, l->probe_at) : 0,
            .reason = str_new(l->reason, l->reason_len),
        };
    }
    return count;
}

size_t
queue_domains(const struct queue *q, size_t *at, struct queue_domain_view *out, size_t cap)
{
    struct map_slot *slot;
    size_t count = 0;

    while (count < cap && (slot = map_next(&q->domains, at))) {
        const struct queue_domain *d = slot->value;
        if (d->refs == 0)
            continue;
        out[count++] = (struct queue_domain_view){
            .name = d->name,
            .reason = d->why,
            .count = d->refs,
            .lane = d->state == DOMAIN_KNOWN ? d->lane->number : 0,
        };
    }
    return count;
}
