/* store_operator - what an operator asks of the store, through the console: figures, listings, one message, and
 * acts. */
#include "base/check.h"
#include "role/store.h"
#include "runtime/log.h"

#include <string.h>

enum { ARENA_MAX = 128 << 20, COUNTERS_BYTES = 4096, TEXT_MAX = 256 };

#define PATIENCE_NS (2 * SECOND)

struct request {
    struct store *s;
    uint64_t peer;
    uint32_t call;
    uint16_t type;
    struct arena arena;
    int64_t patience; /* until when it waits for what is not written yet */
    size_t len;
    char body[64];
};

static void
reply(struct request *r, const struct put *p)
{
    CHECK(!p->full);
    role_reply(r->s->role, r->peer, r->call, r->type, put_str_so_far(p));
}

/* ---- figures ---- */

static void
put_counters(struct store *s, struct put *p)
{
    struct spool_counters c;
    struct queue_counts q;

    s->ops->counters(s->spool, &c);
    queue_counts(s->queue, &q);
    const struct {
        const char *name;
        uint64_t value;
    } figures[] = {
        { "messages", c.messages },        { "recipients-pending", c.pending },   { "accepted", c.accepted },
        { "delivered", c.delivered },      { "relayed", c.relayed },              { "failed", c.failed },
        { "expanded", c.expanded },        { "suppressed", c.suppressed },        { "removed", c.removed },
        { "waiting", q.waiting },          { "unresolved", q.unresolved },        { "ready", q.ready },
        { "in-flight", q.in_flight },      { "held", q.held },                    { "notices-owed", q.owed + q.success_owed },
        { "destinations", q.lanes },       { "suspects", q.suspects },            { "attempts", q.attempts },
        { "jobs-lost", q.jobs_lost },      { "double-bounces-dropped", q.double_bounces_dropped },
        { "balanced", queue_balances(s->queue) },
        { "syncs", c.syncs },              { "batches", c.batches },              { "bytes-written", c.bytes_written },
        { "quarantined", c.quarantined },  { "spool-free", c.free_bytes },        { "spool-segments", c.segments },
        { "spool-live-bytes", c.live_bytes }, { "spool-bytes", c.space_bytes },   { "recovering", c.recovering },
    };
    put_u32(p, sizeof figures / sizeof *figures);
    for (size_t i = 0; i < sizeof figures / sizeof *figures; i++) {
        put_bytes(p, str_from_cstr(figures[i].name));
        put_u64(p, figures[i].value);
    }
}

static bool
answer_counters(struct request *r, struct take *t)
{
    unsigned char memory[COUNTERS_BYTES];
    struct put p = put_init(memory, sizeof memory);

    if (!take_end(t))
        return false;
    put_counters(r->s, &p);
    reply(r, &p);
    return true;
}

/* ---- listings ---- */

static const struct queue_recipient_view *
first_of(const struct queue_message_view *v)
{
    return v->recipient_count ? &v->recipients[0] : NULL;
}

/* On a full disk, what became of a message last may not be written for long: then as it is there. The queue knows more. */
static struct err
get_soon(struct request *r, struct message_id id, struct arena *arena, struct spool_message *out)
{
    struct store *s = r->s;
    struct err e = s->ops->get(s->spool, id, arena, r->patience, out);

    return e.kind == ERR_TIMEOUT ? s->ops->get_written(s->spool, id, arena, FOREVER, out) : e;
}

static void
list_one(struct request *r, const struct spool_place *place, struct put *p, uint32_t *count)
{
    struct store *s = r->s;
    struct queue_message_view view = { 0 };
    struct spool_message m;
    struct arena arena;

    arena_init(&arena, rt_mem(s->rt), 4096, ARENA_MAX);
    if (!err_is(get_soon(r, place->id, &arena, &m))) {
        struct border_listed l = { .id = place->id, .size = m.envelope.size,
                                   .accepted_wall = m.envelope.accepted_wall, .held = m.held, .deaths = m.deaths,
                                   .reverse_path = m.envelope.reverse_path, .recipient = S(""), .place = S("recovering"),
                                   .reason = S("") };
        bool known = queue_view(s->queue, store_moment(s), place->id, 1, &arena, &view);
        if (known)
            l.held = view.held, l.deaths = view.deaths;
        const struct queue_recipient_view *first = known ? first_of(&view) : NULL;
        l.pending = known ? (uint32_t)view.count : (uint32_t)m.envelope.recipient_count;
        if (first && first->index < m.envelope.recipient_count) {
            l.recipient = m.envelope.recipients[first->index].address;
            l.place = first->place;
            l.next_wall = first->next_wall;
            l.attempts = first->attempts;
            l.reason = first->reason.len ? first->reason : m.statuses[first->index].last_reply;
        }
        border_put_listed(p, &l);
        ++*count;
    }
    arena_done(&arena);
}

enum { LIST_HEAD = 8 + 8 + 4 };

/* While the spool is being read after a start, not all that is there is found. False: it is, or that takes longer. */
static bool
wait_to_find_more(struct request *r)
{
    return !r->s->recovered && !err_is(event_wait(r->s->rt, &r->s->kick, r->patience));
}

static bool
answer_list(struct request *r, struct take *t)
{
    struct store *s = r->s;
    uint64_t after = take_u64(t);
    uint32_t want = take_count(t, BORDER_LIST_MAX), listed = 0;
    struct spool_counters c;

    if (!take_end(t))
        return false;
    while (after == 0 && wait_to_find_more(r))
        ;
    r->patience = within(s->rt, PATIENCE_NS);
    struct spool_place *places = arena_alloc(&r->arena, (want + 1) * sizeof *places);
    size_t found = s->ops->scan(s->spool, after, places, want), size = 64 + found * BORDER_LISTED_BYTES;
    unsigned char *memory = arena_alloc(&r->arena, size);
    struct put p = put_init(memory + LIST_HEAD, size - LIST_HEAD);
    for (size_t i = 0; i < found; i++)
        list_one(r, &places[i], &p, &listed);
    s->ops->counters(s->spool, &c);
    struct put head = put_init(memory, LIST_HEAD);
    put_u64(&head, c.messages);
    put_u64(&head, found == want && found > 0 ? places[found - 1].order : 0);
    put_u32(&head, listed);
    p = (struct put){ memory, p.len + LIST_HEAD, size, p.full };
    reply(r, &p);
    return true;
}

static void
show_recipients(const struct spool_message *m, const struct queue_message_view *view, struct border_shown *out,
                struct arena *arena)
{
    size_t all = m->envelope.recipient_count;

    out->recipient_count = (uint32_t)all;
    out->shown = all < BORDER_SHOW_RECIPIENTS ? all : BORDER_SHOW_RECIPIENTS;
    out->recipients = arena_alloc(arena, (out->shown + 1) * sizeof *out->recipients);
    for (size_t i = 0; i < out->shown; i++)
        out->recipients[i] = (struct border_shown_recipient){
            .address = m->envelope.recipients[i].address, .given = m->envelope.recipients[i].given,
            .place = recipient_state_name(m->statuses[i].state), .reason = S(""),
            .last_reply = m->statuses[i].last_reply, .last_remote = m->statuses[i].last_remote,
            .state = m->statuses[i].state, .attempts = m->statuses[i].attempts, .next_wall = m->statuses[i].next_wall,
        };
    for (size_t i = 0; i < view->recipient_count; i++) {
        const struct queue_recipient_view *v = &view->recipients[i];
        if (v->index >= out->shown)
            continue;
        out->recipients[v->index].place = v->place;
        out->recipients[v->index].reason = v->reason;
        out->recipients[v->index].next_wall = v->next_wall;
        out->recipients[v->index].attempts = v->attempts;
    }
}

static bool
answer_show(struct request *r, struct take *t)
{
    struct store *s = r->s;
    struct message_id id = border_take_id(t);
    struct queue_message_view view = { 0 };
    struct spool_message m;

    if (!take_end(t))
        return false;
    struct err e = get_soon(r, id, &r->arena, &m);
    while (e.kind == ERR_NOT_FOUND && wait_to_find_more(r))
        e = get_soon(r, id, &r->arena, &m);
    if (err_is(e)) {
        role_reply(s->role, r->peer, r->call, r->type, str_new("", 1));
        return true;
    }
    if (queue_view(s->queue, store_moment(s), id, BORDER_SHOW_RECIPIENTS, &r->arena, &view))
        m.held = view.held, m.deaths = view.deaths;
    struct border_shown shown = {
        .id = id, .size = m.envelope.size, .accepted_wall = m.envelope.accepted_wall, .expires_wall = view.expires_wall,
        .held = m.held, .deaths = m.deaths, .held_why = m.held_why, .reverse_path = m.envelope.reverse_path,
        .client = m.envelope.client, .helo = m.envelope.helo, .session = m.envelope.session, .envid = m.envelope.envid,
    };
    show_recipients(&m, &view, &shown, &r->arena);
    size_t size = 1 + border_shown_size(&shown);
    struct put p = put_init(arena_alloc(&r->arena, size), size);
    put_u8(&p, 1);
    border_put_shown(&p, &shown);
    reply(r, &p);
    return true;
}

/* ---- acts ---- */

/* What is on its way then ends as the act says when it comes back. If this process dies before, the next one finds it held and
 * does not deliver it; what else is to become of it nobody knows any more. */
static void
hold_under_way(struct store *s, struct message_id id, struct str why)
{
    struct spool_settle settle = { .id = id, .set_held = true, .held = true, .held_why = why };

    if (queue_is_under_way(s->queue, id))
        store_settle(s, &settle);
}

static bool
act(struct store *s, enum border_act what, struct message_id id)
{
    struct moment now = store_moment(s);
    struct spool_settle settle;

    switch (what) {
    case ACT_RETRY:
        return queue_retry(s->queue, now, id);
    case ACT_HOLD:
        if (!queue_hold(s->queue, now, id, S("by an operator"), &settle))
            return false;
        store_settle(s, &settle);
        return true;
    case ACT_RELEASE:
        if (!queue_release(s->queue, now, id, &settle))
            return false;
        store_settle(s, &settle);
        return true;
    case ACT_BOUNCE:
        if (!queue_bounce(s->queue, now, id))
            return false;
        hold_under_way(s, id, S("returned by an operator while under way"));
        return true;
    case ACT_REMOVE:
        if (!queue_remove(s->queue, now, id))
            return false;
        hold_under_way(s, id, S("removed by an operator while under way"));
        return true;
    case ACT_RETRY_ALL:
        queue_start_all(s->queue, now);
        return true;
    }
    return false;
}

static bool
answer_act(struct request *r, struct take *t)
{
    static const struct str names[] = { STR("retry"), STR("hold"), STR("release"), STR("bounce"), STR("rm"), STR("retry-all") };
    enum border_act what = (enum border_act)take_enum(t, ACT_LAST);
    struct message_id id = border_take_id(t);
    char id_memory[MESSAGE_ID_TEXT];
    unsigned char answer[TEXT_MAX];
    struct put p = put_init(answer, sizeof answer);

    if (!take_end(t))
        return false;
    bool done = act(r->s, what, id);
    while (!done && wait_to_find_more(r))
        done = act(r->s, what, id);
    struct log_line line;
    log_begin(&line, r->s->rt, LOG_INFO, "operator");
    log_str(&line, "act", names[what]);
    log_str(&line, "id", message_id_text(id, id_memory));
    log_bool(&line, "done", done);
    log_end(&line);
    put_u8(&p, done);
    struct str why = r->s->recovered ? S("no such message in the queue")
                                     : S("that message is not found yet: the spool is still being read after the start");
    put_raw(&p, done ? S("") : why);
    reply(r, &p);
    event_wake(r->s->rt, &r->s->role->changed); /* a job of it may wait for a hand */
    store_kick(r->s);
    return true;
}

/* ---- requests ---- */

static const struct {
    uint16_t type;
    bool (*answer)(struct request *, struct take *);
} requests[] = {
    { BORDER_COUNTERS, answer_counters },
    { BORDER_LIST, answer_list },
    { BORDER_SHOW, answer_show },
    { BORDER_ACT, answer_act },
};

static void
run_request(void *arg)
{
    struct request *r = arg;
    struct store *s = r->s;
    struct take t = take_init(str_new(r->body, r->len));
    bool fine = false;

    for (size_t i = 0; i < sizeof requests / sizeof *requests; i++)
        if (requests[i].type == r->type)
            fine = requests[i].answer(r, &t);
    struct peer *peer = role_peer_by_serial(s->role, r->peer);
    if (!fine && peer)
        link_close(peer->link, ERR(ERR_PROTOCOL, "a request makes no sense"));
    arena_done(&r->arena);
    mem_free(rt_mem(s->rt), r, sizeof *r);
}

bool
store_operator_message(struct store *s, struct peer *peer, struct link_message *m)
{
    bool known = false;

    for (size_t i = 0; i < sizeof requests / sizeof *requests; i++)
        known |= requests[i].type == m->type;
    struct request *r;
    if (!known || m->call == 0 || m->body.len > sizeof r->body)
        return false;
    r = mem_new(rt_mem(s->rt), struct request);
    *r = (struct request){ .s = s, .peer = peer->serial, .call = m->call, .type = m->type, .len = m->body.len,
                           .patience = within(s->rt, PATIENCE_NS) };
    memcpy(r->body, m->body.ptr, m->body.len);
    arena_init(&r->arena, rt_mem(s->rt), 8192, ARENA_MAX);
    scope_start(&s->work, "request", run_request, r);
    return true;
}
