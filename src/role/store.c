/*
 * store - see store.h. The pump is one fiber: it gives the queue its time, and does what the queue asks for until there
 * is nothing more: settles to the spool, questions to the resolver, jobs to senders and mailboxes.
 */
#include "role/store.h"

#include "base/check.h"
#include "message/domain.h"
#include "role/control.h"
#include "runtime/log.h"

enum { SPACE_CHANGE = 64 << 20 }; /* bytes of difference that receivers are told of */

#define SPACE_NS (1 * SECOND)
#define RECOVER_AGAIN_NS (30 * SECOND)
#define RUN_OUT_NS (30 * SECOND) /* for what is on its way then */

struct moment
store_moment(struct store *s)
{
    return (struct moment){ rt_now(s->rt), rt_wall(s->rt) };
}

void
store_kick(struct store *s)
{
    s->kicked = true;
    event_wake(s->rt, &s->kick);
}

void
store_check_broken(struct store *s)
{
    if (s->failed || !s->ops->is_broken(s->spool))
        return;
    s->failed = true;
    struct log_line line;
    log_begin(&line, s->rt, LOG_ERROR, "spool-broken");
    log_str(&line, "meaning", S("a write or sync failed; nothing unsynced was acknowledged; the store starts again"));
    log_end(&line);
    event_wake(s->rt, &s->role->changed);
}

void
store_settle(struct store *s, const struct spool_settle *settle)
{
    struct err e = s->ops->settle(s->spool, settle, true, FOREVER);

    if (err_is(e) && e.kind != ERR_NOT_FOUND) {
        struct log_line line;
        log_begin(&line, s->rt, LOG_ERROR, "settle-failed");
        log_err(&line, e);
        log_end(&line);
    }
    store_check_broken(s);
}

/* ---- routes ---- */

static bool
find_route(void *arg, struct str domain, struct route *out)
{
    struct store *s = arg;

    *out = *site_route(s->role->site, domain);
    return true;
}

/* Where double bounces go: whoever <Postmaster> is here. */
struct str
store_postmaster(struct store *s, struct arena *arena)
{
    struct directory_query query = { .path = { S("postmaster"), S("") } };
    struct directory_verdict v;

    directory_lookup(s->role->site->directory, &query, arena, &v);
    for (size_t i = 0; v.answer < DIRECTORY_REFUSED && i < v.count; i++)
        if (v.recipients[i].origin != RECIPIENT_EXPANDED)
            return v.recipients[i].address;
    return S("");
}

static struct queue_settings
queue_settings_of(struct store *s, struct arena *arena)
{
    const struct site *site = s->role->site;
    struct queue_settings settings = { .retry = site->retry, .hostname = site->hostname, .find_route = find_route, .arg = s };

    settings.postmaster = store_postmaster(s, arena);
    return settings;
}

/* ---- the pump ---- */

struct question {
    struct store *s;
    struct str domain;
};

static void
run_question(void *arg)
{
    struct question *q = arg;
    struct store *s = q->s;
    struct dns dns = ask_dns(&s->resolver);
    struct mx_result result = { .status = MX_TEMPORARY, .why = S("the resolver did not answer") };
    struct address literal;
    struct mx_host host;
    struct arena arena;

    arena_init(&arena, rt_mem(s->rt), 4096, MX_ARENA_BYTES);
    struct str inside = str_slice(q->domain, 1, q->domain.len - 1);
    str_take_nocase(&inside, S("IPv6:"));
    if (str_starts(q->domain, S("[")) && address_from_ip(inside, &literal)) {
        host = (struct mx_host){ inside, 0 };
        result = (struct mx_result){ .status = MX_OK, .implicit = true, .ttl = 3600, .hosts = &host, .host_count = 1 };
    } else {
        struct str name = domain_to_ascii(q->domain, &arena); /* absent: no name that DNS could have */
        struct err e = mx_lookup(&dns, str_is_absent(name) ? q->domain : name, within(s->rt, MINUTE), &arena, &result);
        if (err_is(e))
            result = (struct mx_result){ .status = MX_TEMPORARY, .why = S("the resolver did not answer"), .ttl = 60 };
    }
    queue_answer(s->queue, store_moment(s), q->domain, &result);
    store_kick(s);
    arena_done(&arena);
    mem_free(rt_mem(s->rt), q, sizeof *q);
}

/* Which hands are free. A suspect waits for a process of its own, which any sender becomes by being given nothing
 * else. */
static unsigned
free_hands(const struct store *s)
{
    size_t senders = 0, mailboxes = 0;

    list_each (node, &s->role->peers) {
        struct peer *peer = container_of(node, struct peer, node);
        struct hand *hand = peer->own_ctx;
        if (!hand || hand->reserved || peer->generation != s->role->generation)
            continue;
        senders += peer->kind == ROLE_SENDER;
        mailboxes += peer->kind == ROLE_MAILBOX;
    }
    unsigned can = s->sender_jobs < senders * STORE_HANDS_SENDER ? QUEUE_NETWORK | QUEUE_NOTICE | QUEUE_ALONE : 0;
    return can | (s->mailbox_jobs < mailboxes * STORE_HANDS_MAILBOX ? QUEUE_MAILBOX : 0);
}

/* What can be begun now: nothing while what is delivered could not be written down. */
static unsigned
can_begin(const struct store *s)
{
    return s->stuck || s->ending || s->runs_out || role_is_ending(s->role) ? 0 : free_hands(s);
}

static void
settle_doomed(struct store *s)
{
    for (bool more = true; more;) {
        struct arena arena;
        struct spool_settle settle;
        arena_init(&arena, rt_mem(s->rt), 4096, 64 << 20);
        more = queue_next_settle(s->queue, store_moment(s), &arena, &settle);
        if (more)
            store_settle(s, &settle);
        arena_done(&arena);
    }
}

static void
pump(struct store *s)
{
    struct rt *rt = s->rt;
    struct queue_job job;
    struct spool_counters c;
    struct str domain;
    unsigned can;

    if (queue_tick(s->queue, store_moment(s)))
        s->kicked = true; /* the rest of it after what can be done already */
    settle_doomed(s);
    while (queue_next_question(s->queue, store_moment(s), &domain)) {
        struct question *q = mem_new(rt_mem(rt), struct question);
        *q = (struct question){ s, domain };
        scope_start(&s->work, "question", run_question, q);
    }
    s->ops->counters(s->spool, &c);
    s->stuck = c.stuck;
    while ((can = can_begin(s)) && queue_next_job(s->queue, store_moment(s), can, 0, &job))
        store_start_job(s, &job);
}

static void
run_pump(void *arg)
{
    struct store *s = arg;

    while (!s->failed && !s->ending) { /* whether this was cancelled a settle may have heard, not the wait here */
        s->kicked = false;
        pump(s);
        if (s->kicked)
            fiber_yield(s->rt);
        else if (event_wait(s->rt, &s->kick, queue_due(s->queue, can_begin(s))).kind == ERR_CANCELLED)
            break;
    }
}

/* ---- recovery ---- */

static void
found(void *arg, const struct spool_message *m)
{
    struct store *s = arg;

    queue_add(s->queue, store_moment(s), m);
    store_kick(s);
}

/*
 * The disk could not be read to its end. What was not found would wait, and nothing new be taken, for as long as this process
 * lives: so it starts again. What was found goes out first, or a disk that stays so would stop all mail; and what is on its way
 * comes to its end, or it would be delivered once more each time.
 */
static void
run_out(void *arg)
{
    struct store *s = arg;

    if (err_is(rt_sleep(s->rt, within(s->rt, RECOVER_AGAIN_NS))))
        return;
    s->runs_out = true;
    for (int64_t until = within(s->rt, RUN_OUT_NS); s->sender_jobs + s->mailbox_jobs > 0;)
        if (err_is(event_wait(s->rt, &s->kick, until)))
            break;
    s->failed = true;
    event_wake(s->rt, &s->role->changed);
}

static void
recovered(void *arg, struct err e)
{
    struct store *s = arg;
    struct spool_counters c;
    struct log_line line;

    if (s->ending) /* closing the spool ended it early */
        return;
    s->ops->counters(s->spool, &c);
    log_begin(&line, s->rt, err_is(e) ? LOG_ERROR : LOG_INFO, "spool-recovered");
    log_int(&line, "messages", (int64_t)c.messages);
    log_int(&line, "recipients-pending", (int64_t)c.pending);
    log_int(&line, "quarantined", (int64_t)c.quarantined);
    if (err_is(e))
        log_err(&line, e);
    log_end(&line);
    s->recovered = true;
    if (err_is(e))
        scope_start(&s->work, "run out", run_out, s);
    store_kick(s);
}

/* ---- space: receivers refuse at MAIL what would not fit ---- */

static void
run_space(void *arg)
{
    struct store *s = arg;
    struct spool_counters c;

    do {
        s->ops->counters(s->spool, &c);
        if (s->stuck && !c.stuck)
            store_kick(s);
        bool accepting = !s->failed && !s->ending && !s->ops->is_broken(s->spool);
        uint64_t change = c.free_bytes > s->space_free ? c.free_bytes - s->space_free : s->space_free - c.free_bytes;
        bool plenty = c.free_bytes >= SPACE_CHANGE && s->space_free >= SPACE_CHANGE; /* now, and when they were told */
        if (accepting == s->space_accepting && change < SPACE_CHANGE && plenty)
            continue;
        s->space_accepting = accepting;
        s->space_free = c.free_bytes;
        list_each (node, &s->role->peers) {
            struct peer *peer = container_of(node, struct peer, node);
            if (peer->up) /* others hear it when they are */
                store_put_space(s, peer);
        }
    } while (!err_is(rt_sleep(s->rt, within(s->rt, SPACE_NS))));
}

/* ---- the role ---- */

static bool
message(struct role *role, struct peer *peer, struct link_message *m)
{
    struct store *s = role->ctx;
    bool intake = peer->kind == ROLE_RECEIVER || peer->kind == ROLE_SUBMISSION;

    if (s->ending && !intake) /* the spool is being closed; who asked sees the link close */
        return true;
    switch (peer->kind) {
    case ROLE_RECEIVER:
    case ROLE_SUBMISSION:
        return store_intake_message(s, peer, m);
    case ROLE_SENDER:
    case ROLE_MAILBOX:
        return store_read_message(s, peer, m);
    case ROLE_CONSOLE:
        return store_operator_message(s, peer, m);
    default:
        return false;
    }
}

static void
peer_up(struct role *role, struct peer *peer)
{
    struct store *s = role->ctx;

    if (peer->kind == ROLE_RECEIVER || peer->kind == ROLE_SUBMISSION)
        store_put_space(s, peer);
    if (peer->kind == ROLE_SENDER || peer->kind == ROLE_MAILBOX) {
        struct hand *hand = mem_new(rt_mem(s->rt), struct hand);
        list_init(&hand->jobs);
        peer->own_ctx = hand;
    }
    store_kick(s);
}

static void
peer_down(struct role *role, struct peer *peer)
{
    struct store *s = role->ctx;
    struct hand *hand = peer->own_ctx;

    store_intake_peer_down(s, peer);
    if (hand) {
        mem_free(rt_mem(s->rt), hand, sizeof *hand);
        peer->own_ctx = NULL;
    }
    store_kick(s);
}

static bool
lost(struct role *role, struct link_message *m)
{
    struct store *s = role->ctx;
    struct take t = take_init(m->body);
    struct death death = { .kind = (enum role_kind)take_enum(&t, ROLE_KINDS - 1) };

    death.index = take_u32(&t);
    death.generation = take_u32(&t);
    death.status = take_u32(&t);
    if (!take_end(&t))
        return false;
    s->deaths[s->death_count++ % STORE_DEATHS] = death;
    event_wake(s->rt, &s->died);
    return true;
}

static void
configured(struct role *role)
{
    struct store *s = role->ctx;
    struct arena arena;

    s->mail_user_count = load_mail_users(role->site, s->mail_users);
    if (!s->queue) /* the spool is still being opened: the queue begins with what the site says then */
        return;
    s->reloads++;
    arena_init(&arena, rt_mem(s->rt), 4096, 16 << 20);
    struct queue_settings settings = queue_settings_of(s, &arena);
    queue_set_settings(s->queue, store_moment(s), &settings);
    arena_done(&arena);
    event_wake(s->rt, &role->changed); /* who waits for a mailbox that has moved */
    store_kick(s);
}

static void
prepare(struct role *role)
{
    struct store *s = mem_new(rt_mem(role->rt), struct store);

    s->role = role;
    s->rt = role->rt;
    s->ops = &spool_log_ops;
    role->ctx = s;
    s->resolver = (struct asker){ role, ROLE_RESOLVER };
    event_init(&s->kick);
    event_init(&s->died);
    map_init(&s->drafts, rt_mem(role->rt), rt_random(role->rt));
    list_init(&s->draft_list);
    scope_init(&s->work, role->rt);
    s->mail_user_count = load_mail_users(role->site, s->mail_users);
}

static void
log_damage(void *arg, const struct spool_report *report)
{
    struct store *s = arg;
    struct log_line line;

    log_begin(&line, s->rt, report->damage ? LOG_ERROR : LOG_WARNING, report->damage ? "spool-damage" : "spool-remark");
    log_str(&line, "what", report->what);
    if (report->file.len > 0)
        log_str(&line, "file", report->file);
    if (report->len > 0) {
        log_int(&line, "offset", (int64_t)report->offset);
        log_int(&line, "length", (int64_t)report->len);
    }
    if (report->id.hi != 0 || report->id.lo != 0) {
        char id[MESSAGE_ID_TEXT];
        log_str(&line, "id", message_id_text(report->id, id));
    }
    log_end(&line);
    if (s->spool) /* it may have broken while nobody waited for it: cleaning, a proof, lazy settles */
        store_check_broken(s);
}

static bool
start(struct role *role)
{
    struct store *s = role->ctx;
    struct role_dir *dir = role_dir_of(s->role, S("spool"));
    struct spool_settings settings = SPOOL_SETTINGS_DEFAULT;
    struct err e = ERR(ERR_NOT_FOUND, "no spool directory was given");

    settings.report = log_damage;
    settings.report_arg = s;
    if (dir)
        e = dir_from_handle(s->rt, dir->handle, &s->dir);
    if (!err_is(e))
        e = s->ops->open(s->rt, s->dir, &settings, &s->spool, FOREVER);
    if (!err_is(e)) {
        struct arena arena;
        arena_init(&arena, rt_mem(s->rt), 4096, 16 << 20);
        struct queue_settings queue = queue_settings_of(s, &arena);
        s->queue = queue_new(rt_mem(s->rt), rt_random(s->rt), &queue, store_moment(s));
        arena_done(&arena);
        e = s->ops->recover(s->spool, found, recovered, s, FOREVER);
    }
    if (!err_is(e))
        return true;
    struct log_line line;
    log_begin(&line, s->rt, LOG_ERROR, "spool-cannot-be-opened");
    if (dir)
        log_str(&line, "path", dir->path);
    log_err(&line, e);
    log_end(&line);
    return false;
}

static void
run(struct role *role)
{
    struct store *s = role->ctx;

    scope_start(&s->work, "pump", run_pump, s);
    scope_start(&s->work, "space", run_space, s);
    while (!role->stopping && !s->failed)
        if (err_is(event_wait(role->rt, &role->changed, FOREVER)))
            break;
    s->ending = true;
    scope_end(&s->work);
    if (!s->failed) /* what an operator removed while it was under way has come back now */
        settle_doomed(s);
    store_intake_end(s);
    /* Also a broken one: its recovery would go on finding messages for a role that is gone. */
    s->ops->close(s->spool, within(role->rt, 10 * SECOND));
}

static void
sandbox(struct role *role, struct sandbox_rules *rules)
{
    struct role_dir *dir = role_dir_of(role, S("spool"));

    rules->calls = SANDBOX_FILES;
    if (!dir)
        return;
    role->paths[0] = (struct sandbox_path){ .handle = dir->handle, .access = SANDBOX_READ | SANDBOX_WRITE };
    rules->paths = role->paths;
    rules->path_count = 1;
}

const struct role_ops store_ops = {
    .kind = ROLE_STORE, .prepare = prepare, .sandbox = sandbox, .start = start, .run = run, .message = message,
    .peer_up = peer_up, .peer_down = peer_down, .configured = configured, .lost = lost,
};
