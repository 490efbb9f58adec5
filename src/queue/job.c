/* job - what is handed out, and what comes back. See state.h. */
#include "queue/state.h"

#include "base/check.h"

static_assert((int)QUEUE_NETWORK == 1 << LANE_NETWORK && (int)QUEUE_MAILBOX == 1 << LANE_MAILBOX &&
              (int)QUEUE_ALONE == 1 << LANE_ALONE, "what hands can do is the class of a lane");

/* ---- out -------------------------------------------------------------------------------------------------------- */

bool
queue_next_job(struct queue *q, struct moment t, unsigned can, uint32_t prefer, struct queue_job *out)
{
    if (notice_next(q, t, can, out))
        return true;
    struct queue_lane *l = lanes_pick(&q->lanes, can & (QUEUE_NETWORK | QUEUE_MAILBOX | QUEUE_ALONE), prefer, t.now);
    if (!l)
        return false;

    struct flight *f = mem_new(q->mem, struct flight);
    list_init(&f->pendings);
    f->number = q->next_job++;
    f->count = lane_take(l, LIMIT_RCPT_PER_JOB, &f->pendings);
    f->live = container_of(f->pendings.next, struct pending, link)->live;
    f->lane = l;
    f->host = lane_begin(l, t.now);
    f->started = t.now;
    f->own_indices = mem_alloc(q->mem, f->count * sizeof *f->own_indices);
    map_put(&q->flights, str_new(&f->number, sizeof f->number), f);

    *out = (struct queue_job){
        .number = f->number,
        .id = f->live->id,
        .recipients = f->own_indices,
        .count = f->count,
        .alone = l->class == LANE_ALONE,
        .lane = l->number,
        .lane_key = l->key,
        .route = l->own_route,
    };
    out->host_count = lane_order_hosts(l, f->host, t.now, out->hosts, LIMIT_MX_HOSTS);
    size_t i = 0;
    list_each(node, &f->pendings) {
        struct pending *p = container_of(node, struct pending, link);
        heap_remove(&q->timers, &p->timer);
        pending_set_place(q, p, PLACE_IN_FLIGHT);
        p->domain->ready--;
        domain_refresh(q, t, p->domain);
        f->own_indices[i++] = p->index;
        out->attempts = p->attempts > out->attempts ? p->attempts : out->attempts;
    }
    return true;
}

/* ---- back ------------------------------------------------------------------------------------------------------- */

void
flight_free(struct queue *q, struct flight *f)
{
    lane_end(f->lane, f->host, LANE_RESULT_UNKNOWN, f->started, 0, f->started);
    mem_free(q->mem, f->own_indices, f->count * sizeof *f->own_indices);
    mem_free(q->mem, f, sizeof *f);
}

/* The flight is the caller's to land(), once its recipients have places again. */
static struct flight *
flight_take(struct queue *q, uint64_t job)
{
    struct flight *f = map_remove(&q->flights, str_new(&job, sizeof job));

    CHECK(f);
    return f;
}

static void
land(struct queue *q, struct flight *f, enum lane_result result, struct moment t)
{
    CHECK(list_is_empty(&f->pendings));
    lane_end(f->lane, f->host, result, f->started, f->live->size, t.now);
    live_tidy(q, f->live);
    mem_free(q->mem, f->own_indices, f->count * sizeof *f->own_indices);
    mem_free(q->mem, f, sizeof *f);
}

static enum lane_result
result_of(const struct outcome *outcomes, size_t count)
{
    bool reached = false, busy = false;

    for (size_t i = 0; i < count; i++) {
        if (outcome_is_good(&outcomes[i]))
            return LANE_RESULT_GOOD;
        bool deferred = outcomes[i].kind == OUTCOME_DEFERRED;
        reached |= !deferred || outcomes[i].about != OUTCOME_ABOUT_DESTINATION;
        busy |= deferred && outcomes[i].about == OUTCOME_ABOUT_MESSAGE;
    }
    return busy ? LANE_RESULT_BUSY : reached ? LANE_RESULT_REACHED : LANE_RESULT_UNREACHABLE;
}

struct recipient_status *
statuses_new(struct arena *arena, size_t count, struct spool_settle *out, struct message_id id)
{
    struct recipient_status *statuses = arena_alloc(arena, count * sizeof *statuses);

    *out = (struct spool_settle){ .id = id, .statuses = statuses, .count = count };
    return statuses;
}

static void
put_duration(struct text *out, int64_t ns)
{
    static const struct {
        int64_t ns;
        const char *name;
    } units[] = { { DAY, "day" }, { HOUR, "hour" }, { MINUTE, "minute" }, { SECOND, "second" } };

    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        if (ns % units[i].ns == 0 || units[i].ns == SECOND) {
            text_putf(out, "%lld %s%s", (long long)(ns / units[i].ns), units[i].name, ns == units[i].ns ? "" : "s");
            return;
        }
}

/* "5.4.7 not delivered within 5 days; last answer: 4.4.1 connection timed out". What nobody answered has none. */
static struct str
expired_reply(struct arena *arena, int64_t lifetime, const char *why, struct str enhanced, struct str reply)
{
    char memory[LIMIT_REPLY_TEXT];
    struct text text = text_init(memory, sizeof memory);

    text_put(&text, S("5.4.7 not delivered within "));
    put_duration(&text, lifetime);
    if (reply.len > 0) {
        text_putf(&text, "; %s: ", why);
        text_put(&text, enhanced);
        text_put(&text, enhanced.len ? S(" ") : S(""));
        text_put(&text, str_slice(reply, 0, sizeof memory - text.len));
    }
    return arena_keep(arena, text_str(&text));
}

static struct str
outcome_reply(struct arena *arena, const struct outcome *o)
{
    struct str reply = arena_join(arena, arena_join(arena, o->enhanced, S(" ")), o->reply);

    return str_slice(reply, 0, LIMIT_REPLY_TEXT);
}

static void
end_well(struct queue *q, struct moment t, struct pending *p, const struct outcome *o, struct recipient_status *status)
{
    bool relayed = o->kind == OUTCOME_RELAYED;
    struct notice_facts facts = pending_facts(q, p);
    bool owed = relayed ? notice_for_relay(facts) : notice_for_success(facts) && !o->dsn_passed_on;

    status->state = relayed && owed ? STATE_RELAYED : STATE_DELIVERED;
    if (!owed) {
        pending_end(q, p, status->state);
        return;
    }
    status->notices |= NOTICE_SUCCESS_OWED;
    count_end(q, status->state);
    pending_set_place(q, p, PLACE_SUCCESS_OWED);
    p->detail = status->state & 15u;
    p->composing = false;
    notice_ask(q, t, p, NOTICE_OF_SUCCESS);
}

/* Tells the status when it will be tried next: where that is known. */
static void
status_of_pending(struct recipient_status *status, const struct pending *p, struct moment t)
{
    status->state = STATE_PENDING;
    status->next_wall = p->place == PLACE_WAITING ? t.wall + (p->timer.due - t.now) : 0;
}

static void
try_later(struct queue *q, struct moment t, struct pending *p, int64_t due, struct recipient_status *status)
{
    const struct live *m = p->live;

    if (m->held || m->bounce || m->remove) {
        pending_start(q, t, p);
    } else {
        pending_wait(q, t, p, due);
        if (notice_delay_is_due(q, p, t))
            notice_ask(q, t, p, NOTICE_OF_DELAY);
    }
    status_of_pending(status, p, t);
}

static void
count_attempt(struct queue *q, struct pending *p)
{
    q->counts.attempts++;
    if (p->attempts < UINT16_MAX)
        p->attempts++;
}

void
queue_outcome(struct queue *q, struct moment t, uint64_t job, const struct outcome *outcomes, struct arena *arena,
              struct spool_settle *out)
{
    struct flight *f = flight_take(q, job);
    struct live *m = f->live;
    enum lane_result result = result_of(outcomes, f->count);
    struct recipient_status *statuses = statuses_new(arena, f->count, out, m->id);
    /* One draw for all, by the oldest of them, so that what was deferred together goes together again. */
    uint32_t attempts = 0;
    list_each(node, &f->pendings) {
        uint32_t n = container_of(node, struct pending, link)->attempts;
        attempts = n > attempts ? n : attempts;
    }
    int64_t due = t.now + retry_delay(&q->settings.retry, attempts + 1, &q->prng);

    /* It came back: whatever killed its last carrier, it was not this. */
    if (f->lane->class == LANE_ALONE) {
        live_set_deaths(q, t, m, 0);
        out->set_deaths = true;
    }
    const struct outcome *o = outcomes;
    struct recipient_status *status = statuses;
    for (struct list *node; (node = list_pop_front(&f->pendings)); o++, status++) {
        struct pending *p = container_of(node, struct pending, link);
        count_attempt(q, p);
        *status = (struct recipient_status){
            .index = p->index,
            .attempts = p->attempts,
            .notices = p->delay_told ? NOTICE_DELAYED : 0,
            .last_reply = outcome_reply(arena, o),
            .last_remote = o->remote,
        };
        if (outcome_is_good(o)) {
            end_well(q, t, p, o, status);
        } else if (o->kind == OUTCOME_FAILED) {
            status->state = pending_fail(q, t, p) & 15u;
        } else if (live_is_expired(q, m, t) && !m->held) {
            status->last_reply = expired_reply(arena, live_lifetime(q, m), "last answer", o->enhanced, o->reply);
            status->state = pending_fail(q, t, p) & 15u;
        } else {
            try_later(q, t, p, due, status);
        }
    }
    if (result == LANE_RESULT_UNREACHABLE)
        lane_set_reason(f->lane, outcomes[0].reply);
    land(q, f, result, t);
}

void
queue_job_lost(struct queue *q, struct moment t, uint64_t job, struct arena *arena, struct spool_settle *out)
{
    struct flight *f = flight_take(q, job);
    struct live *m = f->live;
    struct recipient_status *statuses = statuses_new(arena, f->count, out, m->id), *status = statuses;

    q->counts.jobs_lost++;
    /* Several jobs of one message may die together; that is one death. */
    if (m->deaths == 0 || f->lane->class == LANE_ALONE) {
        live_set_deaths(q, t, m, (uint8_t)(m->deaths + 1));
        out->set_deaths = true;
        out->deaths = m->deaths;
    }
    if (m->deaths >= QUEUE_DEATHS_MAX && !m->held) {
        live_hold(q, t, m);
        out->set_held = out->held = true;
        out->held_why = S("the process that delivered it died, twice");
    }
    for (struct list *node; (node = list_pop_front(&f->pendings)); status++) {
        struct pending *p = container_of(node, struct pending, link);
        count_attempt(q, p);
        *status = (struct recipient_status){
            .index = p->index,
            .attempts = p->attempts,
            .notices = p->delay_told ? NOTICE_DELAYED : 0,
            .last_reply = S("4.3.0 the process that delivered it died; whether it arrived is not known"),
        };
        pending_start(q, t, p); /* by itself, at once: most of those that died together are innocent */
        status_of_pending(status, p, t);
    }
    land(q, f, LANE_RESULT_UNKNOWN, t);
}

bool
queue_job_is_stopped(const struct queue *q, uint64_t job)
{
    const struct flight *f = map_get(&q->flights, str_new(&job, sizeof job));

    CHECK(f);
    return f->live->held || f->live->bounce || f->live->remove;
}

bool
queue_is_under_way(const struct queue *q, struct message_id id)
{
    const struct live *m = queue_find(q, id);

    for (const struct pending *p = m ? m->first : NULL; p; p = p->sibling)
        if (p->place == PLACE_IN_FLIGHT)
            return true;
    return false;
}

void
queue_job_returned(struct queue *q, struct moment t, uint64_t job)
{
    struct flight *f = flight_take(q, job);

    for (struct list *node; (node = list_pop_front(&f->pendings));)
        pending_start(q, t, container_of(node, struct pending, link));
    land(q, f, LANE_RESULT_UNKNOWN, t);
}

void
queue_host_down(struct queue *q, struct moment t, struct str host)
{
    lanes_host_down(&q->lanes, host, t.now);
}

void
queue_host_up(struct queue *q, struct str host)
{
    lanes_host_up(&q->lanes, host);
}

/* ---- ends without a job ----------------------------------------------------------------------------------------- */

static struct str
doom_reply(const struct queue *q, const struct pending *p, struct arena *arena)
{
    const struct queue_domain *d = p->domain;
    bool dead = d->state == DOMAIN_KNOWN && d->lane->dead;
    struct str reason = dead ? str_new(d->lane->reason, d->lane->reason_len) : d->why;

    switch ((enum doom)p->detail) {
    case DOOM_EXPIRED: return expired_reply(arena, live_lifetime(q, p->live), "the last trouble", S(""), reason);
    case DOOM_ROUTE: return arena_keep(arena, d->why);
    case DOOM_BOUNCED: return S("5.7.1 returned by an operator");
    case DOOM_REMOVED: return S("5.7.1 removed by an operator");
    case DOOM_DROPPED: return S("5.3.5 nobody could be told of the failure");
    }
    UNREACHABLE();
}

bool
queue_next_settle(struct queue *q, struct moment t, struct arena *arena, struct spool_settle *out)
{
    if (list_is_empty(&q->doomed))
        return false;
    struct live *m = container_of(q->doomed.next, struct pending, link)->live;
    size_t count = 0;
    for (const struct pending *p = m->first; p; p = p->sibling)
        count += p->place == PLACE_DOOMED;
    struct recipient_status *status = statuses_new(arena, count, out, m->id);

    for (struct pending *p = m->first; p; p = p->sibling) {
        if (p->place != PLACE_DOOMED)
            continue;
        list_remove(&p->link);
        *status = (struct recipient_status){
            .index = p->index,
            .attempts = p->attempts,
            .notices = p->delay_told ? NOTICE_DELAYED : 0,
            .last_reply = doom_reply(q, p, arena),
            .state = p->detail == DOOM_REMOVED ? STATE_REMOVED : STATE_FAILED_SILENT,
        };
        if (p->detail == DOOM_REMOVED || p->detail == DOOM_DROPPED)
            pending_end(q, p, status->state);
        else
            status->state = pending_fail(q, t, p) & 15u;
        status++;
    }
    live_tidy(q, m);
    return true;
}

void
queue_reply_split(struct str last_reply, struct str *out_enhanced, struct str *out_text)
{
    struct str rest = last_reply, word = str_cut_word(&rest);
    size_t dots = 0, digits = 0;

    for (size_t i = 0; i < word.len; i++) {
        dots += word.ptr[i] == '.';
        digits += byte_is_digit(word.ptr[i]);
    }
    bool enhanced = dots == 2 && dots + digits == word.len && word.ptr[0] != '.' && word.ptr[1] == '.';
    *out_enhanced = enhanced ? word : S("");
    *out_text = enhanced ? str_trim(rest) : last_reply;
}
