/*
 * report - notices from the moment they are owed until they are committed. See state.h; who gets one: notice.h.
 *
 * One notice for each message, kind and reverse-path at a time: what becomes owed while one waits joins it, what
 * becomes owed while one is composed gets the next.
 */
#include "queue/state.h"

#include "base/check.h"

static struct str
key_of(const struct notice *n)
{
    return str_new(&n->key, sizeof n->key);
}

void
notice_free(struct queue *q, struct notice *n)
{
    if (n->count > 0)
        mem_free(q->mem, n->own_indices, n->count * sizeof *n->own_indices);
    mem_free(q->mem, n, sizeof *n);
}

/* ---- delay ------------------------------------------------------------------------------------------------------ */

int64_t
notice_delay_at(const struct queue *q, const struct pending *p, struct moment t)
{
    const struct live *m = p->live;
    bool by = m->within > 0 && !m->returns; /* RFC 2852: its sender said how late is late */
    int64_t after = by ? (int64_t)m->within * SECOND : q->settings.retry.delay_notice, age = live_age(m, t);

    if (after == 0 || p->delay_told || p->delay_asked || age >= live_lifetime(q, p->live) ||
        !notice_for_delay(pending_facts(q, p)))
        return INT64_MAX;
    return age >= after ? t.now : t.now + (after - age);
}

static bool
waits(const struct pending *p)
{
    return p->place == PLACE_WAITING || p->place == PLACE_UNRESOLVED || p->place == PLACE_READY;
}

bool
notice_delay_is_due(const struct queue *q, const struct pending *p, struct moment t)
{
    return waits(p) && notice_delay_at(q, p, t) <= t.now;
}

/* ---- asking ----------------------------------------------------------------------------------------------------- */

void
notice_ask(struct queue *q, struct moment t, const struct pending *about, enum notice_kind kind)
{
    struct notice_key key = { .id = about->live->id, .kind = (uint8_t)kind, .sender_group = about->sender_group };

    CHECK(kind != NOTICE_NONE);
    if (kind == NOTICE_OF_DELAY)
        for (struct pending *p = about->live->first; p; p = p->sibling)
            if (p->sender_group == about->sender_group && notice_delay_is_due(q, p, t))
                p->delay_asked = true;
    if (map_get(&q->notices_waiting, str_new(&key, sizeof key)))
        return;
    struct notice *n = mem_new(q->mem, struct notice);
    n->key = key;
    n->asked_at = t.now;
    map_put(&q->notices_waiting, key_of(n), n);
    heap_insert(&q->notice_timers, &n->timer, t.now);
}

enum recipient_state
pending_fail(struct queue *q, struct moment t, struct pending *p)
{
    enum notice_kind kind = p->live->remove ? NOTICE_NONE : notice_for_failure(pending_facts(q, p));

    if (kind == NOTICE_NONE) {
        q->counts.double_bounces_dropped += p->live->own_notice && !p->live->remove;
        pending_end(q, p, STATE_FAILED_SILENT);
        return STATE_FAILED_SILENT;
    }
    pending_set_place(q, p, PLACE_OWED);
    p->composing = false;
    notice_ask(q, t, p, kind);
    return STATE_FAILED_OWED;
}

/* ---- composing -------------------------------------------------------------------------------------------------- */

/* Whether this notice, when it is handed out, tells of this recipient. */
static bool
concerns(const struct notice *n, const struct pending *p)
{
    if (p->sender_group != n->key.sender_group)
        return false;
    switch ((enum notice_kind)n->key.kind) {
    case NOTICE_OF_FAILURE:
    case NOTICE_OF_DOUBLE_BOUNCE: return p->place == PLACE_OWED && !p->composing;
    case NOTICE_OF_SUCCESS: return p->place == PLACE_SUCCESS_OWED && !p->composing;
    case NOTICE_OF_DELAY: return p->delay_asked && !p->delay_told && !p->composing && waits(p);
    case NOTICE_NONE: break;
    }
    UNREACHABLE();
}

static bool
is_busy(const struct live *m)
{
    for (const struct pending *p = m->first; p; p = p->sibling)
        if (p->place == PLACE_IN_FLIGHT || p->place == PLACE_READY || p->place == PLACE_UNRESOLVED)
            return true;
    return false;
}

/* Fills own_indices. False: there is nothing to tell. A notice that failed may have been too long: half as many. */
static bool
gather(struct queue *q, struct moment t, struct notice *n, struct live *m)
{
    size_t count = 0, most = QUEUE_NOTICE_RECIPIENTS >> (n->failures < 9 ? n->failures : 9);

    if (n->key.sender_group == SENDER_GROUP_ALONE) /* each has an owner of its own */
        most = 1;
    for (struct pending *p = m->first; p; p = p->sibling) {
        /* Who is in flight when its delay would be told may just be arriving: it is asked again if not. */
        if (n->key.kind == NOTICE_OF_DELAY && p->sender_group == n->key.sender_group && !waits(p) &&
            p->place != PLACE_TELLING)
            p->delay_asked = false;
        count += concerns(n, p);
    }
    if (count == 0)
        return false;
    if (count > most)
        count = most;
    n->own_indices = mem_alloc(q->mem, count * sizeof *n->own_indices);
    for (struct pending *p = m->first; p; p = p->sibling) {
        if (!concerns(n, p))
            continue;
        if (n->count == count) { /* the others get the next */
            notice_ask(q, t, p, (enum notice_kind)n->key.kind);
            break;
        }
        n->own_indices[n->count++] = p->index;
        p->composing = true;
    }
    CHECK(n->count == count);
    return true;
}

/* No postmaster any more, since a reload or a restart. */
static void
drop_double_bounce(struct queue *q, const struct notice *n, struct live *m)
{
    for (struct pending *p = m->first; p; p = p->sibling)
        if (concerns(n, p)) {
            q->counts.double_bounces_dropped++;
            pending_doom(q, p, DOOM_DROPPED);
        }
}

bool
notice_next(struct queue *q, struct moment t, unsigned can, struct queue_job *out)
{
    struct heap_node *node;

    while ((can & QUEUE_NOTICE) && (node = heap_first(&q->notice_timers)) && node->due <= t.now) {
        struct notice *n = container_of(node, struct notice, timer);
        struct live *m = queue_find(q, n->key.id);
        bool alone = n->deaths == 1;

        heap_remove(&q->notice_timers, &n->timer);
        if (alone && !(can & QUEUE_ALONE)) {
            heap_insert(&q->notice_timers, &n->timer, t.now + SECOND);
            continue;
        }
        if (m && n->key.kind != NOTICE_OF_DELAY && t.now < n->asked_at + NOTICE_WAIT && is_busy(m)) {
            heap_insert(&q->notice_timers, &n->timer, n->asked_at + NOTICE_WAIT);
            continue;
        }
        if (m && n->key.kind == NOTICE_OF_DOUBLE_BOUNCE && q->settings.postmaster.len == 0)
            drop_double_bounce(q, n, m);
        map_remove(&q->notices_waiting, key_of(n));
        if (!m || !gather(q, t, n, m)) {
            notice_free(q, n);
            continue;
        }
        n->number = q->next_job++;
        map_put(&q->notices_composing, str_new(&n->number, sizeof n->number), n);
        *out = (struct queue_job){
            .number = n->number,
            .id = n->key.id,
            .recipients = n->own_indices,
            .count = n->count,
            .notice = true,
            .alone = alone,
            .notice_kind = n->key.kind,
            .bare = n->deaths >= QUEUE_DEATHS_MAX,
            .expires_wall = t.wall + (live_lifetime(q, m) - live_age(m, t)),
        };
        return true;
    }
    return false;
}

/* ---- committing ------------------------------------------------------------------------------------------------- */

static struct notice *
find_composing(const struct queue *q, uint64_t job)
{
    struct notice *n = map_get(&q->notices_composing, str_new(&job, sizeof job));

    CHECK(n);
    return n;
}

/* The next recipient from p on, p itself too, that the notice was composed about. *at moves along its indices; both are
 * in order. NULL: that was the last. */
static struct pending *
next_told(const struct notice *n, size_t *at, struct pending *p)
{
    for (; p && *at < n->count; p = p->sibling) {
        while (*at < n->count && n->own_indices[*at] < p->index)
            ++*at;
        if (*at < n->count && n->own_indices[*at] == p->index)
            return p;
    }
    return NULL;
}

/* And is still as it was when the notice was handed out. */
static bool
still_concerns(const struct notice *n, const struct pending *p)
{
    switch ((enum notice_kind)n->key.kind) {
    case NOTICE_OF_FAILURE:
    case NOTICE_OF_DOUBLE_BOUNCE: return p->place == PLACE_OWED && p->composing;
    case NOTICE_OF_SUCCESS: return p->place == PLACE_SUCCESS_OWED && p->composing;
    case NOTICE_OF_DELAY: return p->delay_asked && !p->delay_told && (waits(p) || p->place == PLACE_TELLING);
    case NOTICE_NONE: break;
    }
    UNREACHABLE();
}

void
notice_drop_removed(struct queue *q, struct pending *p)
{
    if (p->live->remove && p->place == PLACE_OWED && !p->composing)
        pending_doom(q, p, DOOM_DROPPED);
}

/* Another may be composed about it. Whoever left while its delay was to be told may be in another already. */
static void
let_go(const struct notice *n, struct pending *p)
{
    if (n->key.kind != NOTICE_OF_DELAY || (p->place != PLACE_OWED && p->place != PLACE_SUCCESS_OWED))
        p->composing = false;
}

/*
 * Until the commit has ended nothing that it settles may change: a delayed recipient that is delivered meanwhile would
 * be pending again in the spool, and be delivered twice. So those go to a place of their own.
 */
static void
stop_for_telling(struct queue *q, struct moment t, struct pending *p)
{
    uint8_t before = p->place & 15u;

    if (p->place == PLACE_TELLING)
        return;
    pending_unplace(q, p, t.now);
    pending_set_place(q, p, PLACE_TELLING);
    p->detail = before & 15u;
}

static void
go_on_after_telling(struct queue *q, struct moment t, struct pending *p)
{
    const struct live *m = p->live;

    if (p->detail == PLACE_WAITING && p->timer.due > t.now && !m->held && !m->bounce && !m->remove)
        pending_wait(q, t, p, p->timer.due);
    else
        pending_start(q, t, p);
}

bool
queue_notice_settle(struct queue *q, struct moment t, uint64_t job, struct arena *arena, struct spool_settle *out)
{
    struct notice *n = find_composing(q, job);
    struct live *m = queue_find(q, n->key.id);
    size_t count = 0, at = 0;
    bool untrue = false;

    for (struct pending *p = m ? m->first : NULL; (p = next_told(n, &at, p)); p = p->sibling) {
        count += still_concerns(n, p);
        /* In flight now, it is not settled by this; if it comes back, its delay is told by another. So this one, which
         * names it already, must not go out: it is composed again without it. */
        if (n->key.kind == NOTICE_OF_DELAY && !still_concerns(n, p)) {
            p->delay_asked = false;
            let_go(n, p);
            untrue = true;
        }
    }
    n->nothing_left = count == 0 || untrue;
    if (n->nothing_left)
        return false;
    struct recipient_status *status = statuses_new(arena, count, out, n->key.id);
    at = 0;
    for (struct pending *p = m->first; (p = next_told(n, &at, p)); p = p->sibling) {
        if (!still_concerns(n, p))
            continue;
        *status = (struct recipient_status){ .index = p->index, .attempts = p->attempts };
        if (n->key.kind == NOTICE_OF_DELAY) {
            status->state = STATE_PENDING;
            status->next_wall = p->place == PLACE_WAITING ? t.wall + (p->timer.due - t.now) : 0;
            status->notices = NOTICE_DELAYED;
            stop_for_telling(q, t, p);
        } else {
            status->state = p->place == PLACE_SUCCESS_OWED ? p->detail : STATE_FAILED_SENT;
            status->notices = p->delay_told ? NOTICE_DELAYED : 0;
        }
        status++;
    }
    return true;
}

void
queue_notice_committed(struct queue *q, struct moment t, uint64_t job)
{
    struct notice *n = find_composing(q, job);
    struct live *m = queue_find(q, n->key.id);
    size_t at = 0;

    CHECK(m);
    for (struct pending *p = m->first; (p = next_told(n, &at, p)); p = p->sibling) {
        if (n->key.kind == NOTICE_OF_DELAY) {
            if (p->place != PLACE_TELLING)
                continue;
            p->delay_told = true;
            p->composing = false;
            go_on_after_telling(q, t, p);
        } else if (still_concerns(n, p)) {
            pending_end(q, p, p->place == PLACE_SUCCESS_OWED ? p->detail : STATE_FAILED_SENT);
        }
    }
    live_tidy(q, m);
    map_remove(&q->notices_composing, str_new(&n->number, sizeof n->number));
    notice_free(q, n);
}

/* Back to those that wait; or into the one that is waiting already. */
static void
compose_again(struct queue *q, struct moment t, struct notice *n, int64_t due)
{
    struct live *m = queue_find(q, n->key.id);
    size_t at = 0;

    for (struct pending *p = m ? m->first : NULL; (p = next_told(n, &at, p)); p = p->sibling) {
        let_go(n, p);
        if (p->place == PLACE_TELLING)
            go_on_after_telling(q, t, p);
        notice_drop_removed(q, p);
    }
    map_remove(&q->notices_composing, str_new(&n->number, sizeof n->number));
    struct notice *other = map_get(&q->notices_waiting, key_of(n));
    if (other || !m) {
        if (other) {
            other->deaths = n->deaths > other->deaths ? n->deaths : other->deaths;
            other->failures = n->failures > other->failures ? n->failures : other->failures;
        }
        notice_free(q, n);
        return;
    }
    mem_free(q->mem, n->own_indices, n->count * sizeof *n->own_indices);
    n->own_indices = NULL;
    n->count = 0;
    n->number = 0;
    n->nothing_left = false;
    map_put(&q->notices_waiting, key_of(n), n);
    heap_insert(&q->notice_timers, &n->timer, due);
}

void
queue_notice_failed(struct queue *q, struct moment t, uint64_t job)
{
    struct notice *n = find_composing(q, job);
    int64_t delay = MINUTE << (n->failures < 6 ? n->failures : 6);

    if (n->nothing_left) { /* it ends when its turn comes, unless somebody came back meanwhile */
        compose_again(q, t, n, t.now);
        return;
    }
    n->failures++;
    compose_again(q, t, n, t.now + (delay < NOTICE_RETRY_MAX ? delay : NOTICE_RETRY_MAX));
}

void
queue_notice_returned(struct queue *q, struct moment t, uint64_t job)
{
    compose_again(q, t, find_composing(q, job), t.now);
}

void
queue_notice_lost(struct queue *q, struct moment t, uint64_t job)
{
    struct notice *n = find_composing(q, job);

    n->deaths++;
    compose_again(q, t, n, t.now);
}

bool
notice_is_coming(const struct queue *q, const struct pending *p)
{
    enum notice_kind kind = p->place == PLACE_TELLING        ? NOTICE_OF_DELAY
                            : p->place == PLACE_SUCCESS_OWED ? NOTICE_OF_SUCCESS
                            : p->live->own_notice            ? NOTICE_OF_DOUBLE_BOUNCE
                                                             : NOTICE_OF_FAILURE;
    struct notice_key key = { .id = p->live->id, .kind = (uint8_t)kind, .sender_group = p->sender_group };
    struct map_slot *slot;

    if (!p->composing && p->place != PLACE_TELLING)
        return map_get(&q->notices_waiting, str_new(&key, sizeof key)) != NULL;
    for (size_t at = 0; (slot = map_next(&q->notices_composing, &at));)
        if (str_eq(key_of(slot->value), str_new(&key, sizeof key)))
            return true;
    return false;
}
