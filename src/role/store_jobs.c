/*
 * store_jobs - what the queue hands out, done: a delivery goes to a sender or mailbox and comes back as outcomes; a
 * notice goes to a sender to be composed and comes back as content, which is committed together with the end of what it
 * reports.
 *
 * A process that dies with a job leaves it in doubt. If it crashed, the job is a suspect (queue_job_lost); if it was
 * killed from outside or told to end, the message is tried again as it was.
 */
#include "role/store.h"

#include "base/check.h"
#include "message/domain.h"
#include "message/dsn.h"
#include "runtime/log.h"

enum { READ_PIECE = 56 << 10, JOB_INLINE_MAX = 48 << 10, ARENA_MAX = 64 << 20, REASON_MAX = 256 };

#define DELIVER_NS (2 * DAY)       /* the sender has deadlines of its own, with LMTP up to 15 minutes a recipient; this
                                      one only ends what hangs for good */
#define COMPOSE_NS (2 * MINUTE)
#define PEER_WAIT_NS (30 * SECOND) /* for a process to come back */
#define DEATH_WAIT_NS (2 * SECOND) /* for the supervisor to say how it went */

struct work {
    struct store *s;
    struct queue_job job;
    struct arena arena;
    uint64_t peer;
    enum role_kind kind;
    uint32_t index, generation;
    size_t deaths_seen;
    size_t reloads; /* when it was handed out */
    bool unserved;  /* take_hand() waited, and there is no process for the directory */
    struct list node; /* while a hand has it */
};

/* ---- who does it ---- */

/* Which mailbox role a route is for. Nobody is asked: one whose user has him in hand would have the others' mail too. */
static uint32_t
mailbox_index(const struct store *s, const struct route *route)
{
    struct str user = str_is_absent(route->user) ? S("") : route->user;
    size_t i = 0;

    while (i < s->mail_user_count && !str_eq(s->mail_users[i], user))
        i++;
    return (uint32_t)i;
}

/* "anna /var/mail": the name that a mailbox role knows its directories by. */
static struct str
base_name(const struct route *route, struct arena *arena)
{
    return arena_printf(arena, "%.*s %.*s", STR_ARG(str_is_absent(route->user) ? S("") : route->user),
                        STR_ARG(load_mail_base(route->path)));
}

/*
 * A process for this job: of this generation, not reserved, with room. Among senders the lane decides, so that its
 * connections are found again.
 */
static struct peer *
choose(struct work *w, enum role_kind kind, uint32_t mailbox)
{
    struct store *s = w->s;
    struct peer *best = NULL;
    size_t most = kind == ROLE_SENDER ? STORE_HANDS_SENDER : STORE_HANDS_MAILBOX;
    uint32_t count = 0;

    list_each (node, &s->role->peers) {
        const struct peer *peer = container_of(node, struct peer, node);
        count += peer->kind == kind && peer->generation == s->role->generation;
    }
    list_each (node, &s->role->peers) {
        struct peer *peer = container_of(node, struct peer, node);
        struct hand *hand = peer->own_ctx;
        if (peer->kind != kind || !hand || hand->reserved || peer->generation != s->role->generation)
            continue;
        if (kind == ROLE_MAILBOX && peer->index != mailbox)
            continue;
        if (hand->in_flight >= most && !w->job.alone)
            continue;
        if (!best || (kind == ROLE_SENDER && peer->index == w->job.lane % count))
            best = peer;
    }
    return best;
}

/* As long as a mailbox process cannot open one of its directories it is not there at all. */
static bool
is_served(const struct store *s, uint32_t mailbox)
{
    list_each (node, &s->role->peers) {
        const struct peer *peer = container_of(node, struct peer, node);
        if (peer->kind == ROLE_MAILBOX && peer->own_ctx && peer->generation == s->role->generation && peer->index == mailbox)
            return true;
    }
    return false;
}

/* An operator stopped it; or a reload may have moved its Maildirs, or taken them away: the queue hands it out anew, by what is
 * true now. */
static bool
is_outdated(const struct work *w)
{
    return !w->job.notice && (queue_job_is_stopped(w->s->queue, w->job.number) ||
                              (w->job.route->kind == ROUTE_MAILDIR && w->reloads != w->s->reloads));
}

/* mailbox: which one, of this kind. */
static struct peer *
take_hand(struct work *w, enum role_kind kind, uint32_t mailbox)
{
    struct store *s = w->s;
    int64_t until = within(s->rt, PEER_WAIT_NS);
    struct peer *peer;

    for (;;) {
        if (is_outdated(w))
            return NULL;
        if ((peer = choose(w, kind, mailbox)))
            break;
        if (s->ending || role_is_ending(s->role))
            return NULL;
        struct err e = event_wait(s->rt, &s->role->changed, until);
        w->unserved = e.kind == ERR_TIMEOUT && kind == ROLE_MAILBOX && !is_served(s, mailbox);
        if (err_is(e))
            return NULL;
    }
    w->peer = peer->serial;
    w->kind = peer->kind;
    w->index = peer->index;
    w->generation = peer->generation;
    w->deaths_seen = s->death_count;
    struct hand *hand = peer->own_ctx;
    if (w->job.alone) { /* everything else that it has ends first, and nothing new is given to it */
        hand->reserved = true;
        while (hand->in_flight > 0) {
            event_wait(s->rt, &s->kick, within(s->rt, SECOND));
            peer = role_peer_by_serial(s->role, w->peer);
            if (!peer)
                return NULL;
            hand = peer->own_ctx;
            if (is_outdated(w) || s->ending || role_is_ending(s->role)) { /* nothing is begun then, however long it waited */
                hand->reserved = false;
                event_wake(s->rt, &s->role->changed);
                return NULL;
            }
        }
    }
    hand->in_flight++;
    list_push_back(&hand->jobs, &w->node);
    return peer;
}

static void
give_hand_back(struct work *w)
{
    struct peer *peer = role_peer_by_serial(w->s->role, w->peer);

    if (!peer)
        return;
    struct hand *hand = peer->own_ctx;
    CHECK(hand->in_flight > 0);
    hand->in_flight--;
    list_remove(&w->node);
    if (w->job.alone)
        hand->reserved = false;
    event_wake(w->s->rt, &w->s->role->changed);
}

/* Whether the process of this job crashed. Killed from outside, or told to end, is not the message's fault. */
static bool
crashed(struct work *w)
{
    struct store *s = w->s;
    int64_t until = within(s->rt, DEATH_WAIT_NS);

    enum { KILL = 9, TERM = 15, INT = 2, SANITIZER = 1 /* the exit code with which a sanitizer ends a process */ };
    for (;;) {
        for (; w->deaths_seen < s->death_count; w->deaths_seen++) {
            const struct death *d = &s->deaths[w->deaths_seen % STORE_DEATHS];
            if (d->kind != w->kind || d->index != w->index || d->generation != w->generation)
                continue;
            uint32_t signal = d->status >= 256 ? d->status - 256 : 0;
            return signal ? signal != KILL && signal != TERM && signal != INT : d->status == SANITIZER;
        }
        if (s->ending || err_is(event_wait(s->rt, &s->died, until)))
            return false;
    }
}

/* ---- delivery ---- */

/* What the connection was, what it had to be, and what came of it in the words of RFC 8460. */
static void
log_tls(struct log_line *line, const struct delivery_tls *tls)
{
    log_str(line, "tls", !tls->encrypted ? S("none") : tls->verified ? S("verified") : S("unverified"));
    if (tls->encrypted) {
        log_str(line, "tls-protocol", str_from_cstr(tls->protocol));
        log_str(line, "tls-cipher", str_from_cstr(tls->cipher));
    }
    if (tls->resumed)
        log_str(line, "tls-resumed", S("yes"));
    log_str(line, "tls-policy", tls_level_name(tls->level));
    log_str(line, "tls-policy-by", tls_source_name(tls->source));
    if (tls->domain[0] != '\0')
        log_str(line, "tls-policy-domain", str_from_cstr(tls->domain));
    log_str(line, "tls-result", tls_result_name(tls->result));
}

/* "rejected" and the like as one line for each recipient. */
static void
log_attempts(struct work *w, const struct envelope *e, const struct delivery_figures *figures, const struct outcome *outcomes,
             const struct spool_settle *settle)
{
    static const struct str names[] = { STR("delivered"), STR("relayed"), STR("deferred"), STR("failed") };
    struct store *s = w->s;
    char memory[MESSAGE_ID_TEXT];
    struct str id = message_id_text(w->job.id, memory);

    for (size_t i = 0; i < w->job.count; i++) {
        const struct recipient *r = &e->recipients[w->job.recipients[i]];
        struct log_line line;
        log_begin(&line, s->rt, LOG_INFO, "attempt");
        log_str(&line, "id", id);
        log_str(&line, "to", r->address);
        log_str(&line, "given", r->given);
        log_str(&line, "from", str_is_absent(r->reverse_path) ? e->reverse_path : r->reverse_path);
        log_str(&line, "result", names[outcomes[i].kind]);
        log_str(&line, "status", outcomes[i].enhanced);
        if (outcomes[i].remote.len)
            log_str(&line, "remote", outcomes[i].remote);
        log_str(&line, "reply", outcomes[i].reply);
        log_seconds(&line, "age", rt_wall(s->rt) - e->accepted_wall);
        log_seconds(&line, "connect", figures[outcomes[i].attempt].connect);
        log_seconds(&line, "transfer", figures[outcomes[i].attempt].transfer);
        if (figures[outcomes[i].attempt].tls.known)
            log_tls(&line, &figures[outcomes[i].attempt].tls);
        for (size_t k = 0; k < settle->count; k++)
            if (settle->statuses[k].index == w->job.recipients[i] && settle->statuses[k].state == STATE_PENDING)
                log_time(&line, "next", settle->statuses[k].next_wall);
        log_end(&line);
    }
}

/* figures: of so many attempts; each outcome names its own. */
static void
settle_outcomes(struct work *w, const struct envelope *e, const struct delivery_figures *figures, size_t attempts,
                const struct outcome *outcomes)
{
    struct spool_settle settle;
    struct moment now = store_moment(w->s);
    uint32_t up = 0, down = 0;

    for (size_t i = 0; i < attempts; i++) {
        up |= figures[i].hosts_up;
        down |= figures[i].hosts_down;
    }
    for (size_t i = 0; i < w->job.host_count; i++) { /* their names are gone when the job has ended */
        if (up >> i & 1)
            queue_host_up(w->s->queue, w->job.hosts[i].name);
        else if (down >> i & 1)
            queue_host_down(w->s->queue, now, w->job.hosts[i].name);
    }
    queue_outcome(w->s->queue, now, w->job.number, outcomes, &w->arena, &settle);
    log_attempts(w, e, figures, outcomes, &settle);
    store_settle(w->s, &settle);
    w->s->ops->forget_fresh(w->s->spool, w->job.id);
}

static struct outcome *
all_alike(struct work *w, struct outcome outcome)
{
    struct outcome *outcomes = arena_alloc(&w->arena, (w->job.count + 1) * sizeof *outcomes);

    for (size_t i = 0; i < w->job.count; i++)
        outcomes[i] = outcome;
    return outcomes;
}

/* All recipients of the job alike: for what went wrong before a delivery could be tried. */
static void
settle_all(struct work *w, const struct envelope *e, struct outcome outcome)
{
    struct delivery_figures none = { 0 };

    settle_outcomes(w, e, &none, 1, all_alike(w, outcome));
}

static struct outcome
unread(struct work *w, struct err e)
{
    struct text text = text_init(arena_alloc(&w->arena, REASON_MAX), REASON_MAX);
    bool lost = e.kind == ERR_CORRUPT || e.kind == ERR_NOT_FOUND;

    text_put(&text, S("the message cannot be read from the spool: "));
    err_text(e, &text);
    return (struct outcome){ .kind = lost ? OUTCOME_FAILED : OUTCOME_DEFERRED, .about = OUTCOME_ABOUT_MESSAGE,
                             .enhanced = lost ? S("5.3.0") : S("4.3.0"), .remote = S(""), .reply = text_str(&text) };
}

static void
put_hosts(struct work *w, struct border_job *out)
{
    const struct route *route = w->job.route;
    size_t count = route->kind == ROUTE_MX ? w->job.host_count : 1;

    out->hosts = arena_alloc(&w->arena, (count + 1) * sizeof *out->hosts);
    for (size_t i = 0; i < count; i++) {
        struct delivery_host *host = &out->hosts[i];
        host->name = route->kind == ROUTE_MX ? w->job.hosts[i].name : route->host;
        host->preference = route->kind == ROUTE_MX ? w->job.hosts[i].preference : 0;
        host->turn = (uint16_t)i;
        if (address_from_ip(host->name, &host->fixed) || domain_parse_literal(host->name, &host->fixed))
            host->fixed.port = route->port;
        if (route->kind != ROUTE_MX && route->path.len) {
            struct text path = text_init(host->fixed.path, sizeof host->fixed.path - 1);
            text_put(&path, route->path);
            host->fixed.family = ADDRESS_UNIX;
            host->name = S("localhost");
        }
    }
    out->host_count = count;
}

/* The Maildir of each recipient, below the base. Who has none leaves the job, with an outcome; the others get their mail. */
static void
put_mailboxes(struct work *w, struct border_job *out, struct outcome *outcomes)
{
    static const struct outcome gone = { .kind = OUTCOME_FAILED, .about = OUTCOME_ABOUT_RECIPIENT, .enhanced = STR("5.1.1"),
                                         .reply = STR("this mailbox is not in the configuration any more") };
    static const struct outcome unusable = { .kind = OUTCOME_DEFERRED, .about = OUTCOME_ABOUT_RECIPIENT,
                                             .enhanced = STR("4.3.5"),
                                             .reply = STR("the path of this mailbox cannot be used: it is too long") };
    struct str base = load_mail_base(w->job.route->path);
    struct envelope *e = &out->envelope;

    out->mailboxes = arena_alloc(&w->arena, (w->job.count + 1) * sizeof *out->mailboxes);
    e->recipient_count = 0;
    for (size_t i = 0; i < w->job.count; i++) {
        struct text path = text_init(arena_alloc(&w->arena, 4096), 4096);
        bool found = directory_maildir(w->s->role->site->directory, e->recipients[i].address, &path);
        struct str below = text_str(&path);
        if (!found || !str_take(&below, base)) {
            outcomes[i] = found || path.full ? unusable : gone;
            continue;
        }
        str_take_byte(&below, '/');
        out->mailboxes[e->recipient_count] = below;
        out->indices[e->recipient_count] = out->indices[i];
        e->recipients[e->recipient_count++] = e->recipients[i];
    }
}

static void
describe(struct work *w, const struct spool_message *m, struct border_job *out)
{
    const struct route *route = w->job.route;
    struct store *s = w->s;

    *out = (struct border_job){
        .id = w->job.id,
        .kind = route->kind == ROUTE_MAILDIR ? DELIVERY_MAILDIR : route->kind == ROUTE_LMTP ? DELIVERY_LMTP : DELIVERY_SMTP,
        .alone = w->job.alone,
        .port = route->port,
        .families = route->family == ROUTE_FAMILY_IPV4 ? HOST_IPV4 : route->family == ROUTE_FAMILY_IPV6 ? HOST_IPV6 : 0,
        .configured = route->kind != ROUTE_MX,
        .domain = str_slice(w->job.lane_key, 0, LIMIT_PATH),
        .source_ipv4 = route->source_ipv4,
        .source_ipv6 = route->source_ipv6,
        /* A copy: while a process is waited for, two reloads may pass. */
        .helo = arena_keep(&w->arena, route->helo.len ? route->helo : s->role->site->hostname),
        .connect_wait = route->connect_wait,
        .tls = route->tls,
        .smtps = route->implicit_tls,
        .hosts_secure = route->kind != ROUTE_MX || route->mx_secure,
        .tls_ca = arena_keep(&w->arena, route->tls_ca),
        .login_user = arena_keep(&w->arena, route->login_user),
        .login_file = arena_keep(&w->arena, route->login_file),
        .login_token = route->login_token,
        .reply_wait = route->reply_wait,
        .messages_per_connection = route->messages_per_connection,
        .quota = route->quota,
        .envelope = m->envelope,
    };
    out->allow_private = (struct prefix *)(uintptr_t)route->allow_private;
    out->allow_private_count = route->allow_private_count;
    out->envelope.recipients = arena_alloc(&w->arena, (w->job.count + 1) * sizeof *out->envelope.recipients);
    out->envelope.recipient_count = w->job.count;
    out->indices = arena_alloc(&w->arena, (w->job.count + 1) * sizeof *out->indices);
    for (size_t i = 0; i < w->job.count; i++) {
        CHECK(w->job.recipients[i] < m->envelope.recipient_count);
        out->envelope.recipients[i] = m->envelope.recipients[w->job.recipients[i]];
        out->indices[i] = w->job.recipients[i];
    }
}

/* Small content goes with the job; a longer one is read by the sender as it is sent. */
static struct err
put_content(struct work *w, struct border_job *out)
{
    struct store *s = w->s;
    size_t size = (size_t)out->envelope.size, done = 0, got = 1;

    if (out->envelope.size > JOB_INLINE_MAX)
        return OK;
    char *memory = arena_alloc(&w->arena, size + 1);
    while (done < size && got > 0) {
        TRY(s->ops->read(s->spool, w->job.id, done, memory + done, size - done, FOREVER, &got));
        done += got;
    }
    if (done < size)
        return ERR(ERR_CORRUPT, "content is shorter than its envelope says");
    out->content = str_new(memory, size);
    return OK;
}

static struct err
call_hand(struct work *w, struct link *link, uint16_t type, struct put *p, int64_t ns, struct str *out_reply)
{
    CHECK(!p->full);
    return link_call(link, type, put_str_so_far(p), &w->arena, within(w->s->rt, ns), out_reply);
}

/* The process is gone, or did not answer. */
static void
lose(struct work *w)
{
    struct store *s = w->s;
    struct spool_settle settle;

    if (!s->ending && crashed(w)) {
        struct log_line line;
        char id[MESSAGE_ID_TEXT];
        log_begin(&line, s->rt, LOG_ERROR, "process-crashed-with-message");
        log_str(&line, "id", message_id_text(w->job.id, id));
        log_str(&line, "role", role_kind_name(w->kind));
        log_end(&line);
        if (w->job.notice) {
            queue_notice_lost(s->queue, store_moment(s), w->job.number);
            return;
        }
        queue_job_lost(s->queue, store_moment(s), w->job.number, &w->arena, &settle);
        store_settle(s, &settle);
    } else if (w->job.notice) {
        queue_notice_failed(s->queue, store_moment(s), w->job.number);
    } else {
        queue_job_returned(s->queue, store_moment(s), w->job.number);
    }
}

/* What the hand says became of them, and its attempts' figures, with zeros behind. NULL: it makes no sense. */
static const struct outcome *
take_outcomes(struct work *w, struct str reply, size_t asked, size_t *out_attempts,
              struct delivery_figures **out_figures)
{
    struct take t = take_init(reply);
    size_t attempts = take_u8(&t);

    if (attempts == 0 || attempts > LIMIT_RCPT_PER_JOB)
        return NULL;
    struct delivery_figures *figures = arena_alloc(&w->arena, (attempts + 1) * sizeof *figures);
    struct outcome *told = arena_alloc(&w->arena, asked * sizeof *told);
    for (size_t i = 0; i < attempts; i++)
        border_take_figures(&t, &figures[i]);
    if (!border_take_outcomes(&t, &w->arena, told, asked))
        return NULL;
    for (size_t i = 0; i < asked; i++)
        if (told[i].attempt >= attempts)
            return NULL;
    *out_attempts = attempts;
    *out_figures = figures;
    return told;
}

static void
deliver(struct work *w, const struct spool_message *m)
{
    static const struct outcome unserved = { .kind = OUTCOME_DEFERRED, .about = OUTCOME_ABOUT_DESTINATION, .enhanced = STR("4.3.5"),
                                             .reply = STR("no process has this mailbox's directory: see the log") };
    struct store *s = w->s;
    struct border_job job;
    struct delivery_figures none = { 0 };
    struct outcome *outcomes = arena_alloc(&w->arena, (w->job.count + 1) * sizeof *outcomes);
    struct str reply;
    bool mailbox = w->job.route->kind == ROUTE_MAILDIR;

    if (is_outdated(w)) {
        queue_job_returned(s->queue, store_moment(s), w->job.number);
        return;
    }
    describe(w, m, &job);
    if (mailbox)
        put_mailboxes(w, &job, outcomes);
    else
        put_hosts(w, &job);
    size_t asked = job.envelope.recipient_count;
    if (asked == 0) {
        settle_outcomes(w, &m->envelope, &none, 1, outcomes);
        return;
    }
    struct err e = put_content(w, &job);
    if (e.kind == ERR_CANCELLED) {
        queue_job_returned(s->queue, store_moment(s), w->job.number);
        return;
    }
    if (err_is(e)) {
        settle_all(w, &m->envelope, unread(w, e));
        return;
    }
    if (mailbox)
        job.base = base_name(w->job.route, &w->arena);
    struct peer *peer = mailbox ? take_hand(w, ROLE_MAILBOX, mailbox_index(s, w->job.route)) : take_hand(w, ROLE_SENDER, 0);
    if (!peer && w->unserved) {
        settle_all(w, &m->envelope, unserved);
        return;
    }
    if (!peer) {
        queue_job_returned(s->queue, store_moment(s), w->job.number);
        return;
    }
    size_t size = border_job_size(&job);
    struct put p = put_init(arena_alloc(&w->arena, size), size);
    border_put_job(&p, &job);
    e = call_hand(w, peer->link, BORDER_DELIVER, &p, DELIVER_NS, &reply);
    give_hand_back(w);
    if (err_is(e)) {
        lose(w);
        return;
    }
    struct delivery_figures *figures;
    size_t attempts;
    const struct outcome *told = take_outcomes(w, reply, asked, &attempts, &figures);
    if (!told) {
        peer = role_peer_by_serial(s->role, w->peer);
        if (peer)
            link_close(peer->link, ERR(ERR_PROTOCOL, "outcomes make no sense"));
        lose(w);
        return;
    }
    for (size_t i = 0, k = 0; i < w->job.count; i++)
        if (k < asked && job.indices[k] == w->job.recipients[i])
            outcomes[i] = told[k++];
        else
            outcomes[i].attempt = (uint8_t)attempts; /* none: its figures are zero */
    settle_outcomes(w, &m->envelope, figures, attempts + 1, outcomes);
}

/* ---- notices ---- */

static enum dsn_action
action_of(uint8_t notice_kind, uint8_t state)
{
    if (notice_kind == NOTICE_OF_DELAY)
        return DSN_DELAYED;
    if (notice_kind != NOTICE_OF_SUCCESS)
        return DSN_FAILED;
    return state == STATE_RELAYED ? DSN_RELAYED : state == STATE_EXPANDED ? DSN_EXPANDED : DSN_DELIVERED;
}

static struct str
default_status(enum dsn_action action)
{
    return action == DSN_FAILED ? S("5.0.0") : action == DSN_DELAYED ? S("4.0.0") : S("2.0.0");
}

static void
describe_notice(struct work *w, const struct spool_message *m, struct message_id id, struct dsn *out)
{
    struct store *s = w->s;
    struct dsn_recipient *recipients = arena_alloc(&w->arena, (w->job.count + 1) * sizeof *recipients);
    const struct recipient *first = &m->envelope.recipients[w->job.recipients[0]];

    for (size_t i = 0; i < w->job.count; i++) {
        const struct recipient *r = &m->envelope.recipients[w->job.recipients[i]];
        const struct recipient_status *status = &m->statuses[w->job.recipients[i]];
        struct dsn_recipient *d = &recipients[i];
        *d = (struct dsn_recipient){ .action = (uint8_t)action_of(w->job.notice_kind, status->state), .address = r->address,
                                     .given = r->given, .orcpt = r->orcpt, .remote = status->last_remote,
                                     .retry_until_wall = w->job.expires_wall };
        queue_reply_split(status->last_reply, &d->status, &d->reply);
        if (d->status.len == 0)
            d->status = default_status(d->action);
    }
    *out = (struct dsn){
        .id = id, .original = m->id, .hostname = s->role->site->hostname,
        .to = w->job.notice_kind == NOTICE_OF_DOUBLE_BOUNCE ? store_postmaster(s, &w->arena)
              : str_is_absent(first->reverse_path) ? m->envelope.reverse_path : first->reverse_path,
        .envid = m->envelope.envid, .arrival_wall = m->envelope.accepted_wall, .now_wall = rt_wall(s->rt),
        .original_size = m->envelope.size, .ret = w->job.bare || m->envelope.require_tls ? RET_HDRS : m->envelope.ret, /* RFC 8689 section 5 */
        .original_body = m->envelope.body, .original_utf8 = m->envelope.smtputf8, .recipients = recipients,
        .recipient_count = w->job.count,
    };
}

static struct err
commit_notice(struct work *w, struct message_id id, const struct dsn *dsn, bool require_tls, struct str content)
{
    struct store *s = w->s;
    struct recipient recipient = { .address = dsn->to, .orcpt = { NULL, 0 }, .given = { NULL, 0 }, .reverse_path = { NULL, 0 },
                                   .notify = NOTIFY_NEVER };
    struct envelope envelope = { .reverse_path = S(""), .envid = { NULL, 0 }, .helo = S(""), .client = S("local:notice"),
                                 .session = S(""), .body = (uint8_t)dsn_body(dsn), .smtputf8 = dsn_is_utf8(dsn),
                                 .require_tls = require_tls, .notice = true, .trace = S(""), .recipients = &recipient, .recipient_count = 1 };
    struct spool_settle settle;
    struct draft *draft;

    TRY(s->ops->begin_notice(s->spool, id, content.len, FOREVER, &draft));
    struct err e = s->ops->put(draft, content, FOREVER);
    if (!err_is(e) && !queue_notice_settle(s->queue, store_moment(s), w->job.number, &w->arena, &settle))
        e = ERR(ERR_NOT_FOUND, "nothing is left to report");
    if (err_is(e)) {
        s->ops->abort(draft);
        return e;
    }
    return store_commit(s, draft, id, &envelope, &settle);
}

/* Nobody is there to ask for it, or it cannot be asked for: a postmaster who is gone since a reload, which the queue knows; or
 * more than a call holds, as a receiver that was taken over may have handed in. Then half as many are told of. */
static bool
put_off(struct work *w, const struct border_compose *ask)
{
    struct store *s = w->s;
    bool too_long = border_compose_size(ask) > LINK_MESSAGE_MAX;
    struct log_line line;
    char id[MESSAGE_ID_TEXT];
    struct text text = text_init(id, sizeof id);

    if (ask->dsn.to.len > 0 && !too_long)
        return false;
    if (!too_long) {
        queue_notice_returned(s->queue, store_moment(s), w->job.number);
        return true;
    }
    message_id_put(&text, w->job.id);
    log_begin(&line, s->rt, LOG_WARNING, "notice-too-long");
    log_str(&line, "about", text_str(&text));
    log_int(&line, "recipients", (int64_t)ask->dsn.recipient_count);
    log_end(&line);
    queue_notice_failed(s->queue, store_moment(s), w->job.number);
    return true;
}

static void
log_notice(struct work *w, struct message_id id, const struct dsn *dsn)
{
    char memory[MESSAGE_ID_TEXT], about[MESSAGE_ID_TEXT];
    struct log_line line;

    log_begin(&line, w->s->rt, LOG_INFO, "notice");
    log_str(&line, "id", message_id_text(id, memory));
    log_str(&line, "about", message_id_text(w->job.id, about));
    log_str(&line, "to", dsn->to);
    log_int(&line, "recipients", (int64_t)dsn->recipient_count);
    log_end(&line);
}

static void
compose(struct work *w, const struct spool_message *m)
{
    struct store *s = w->s;
    struct message_id id = { rt_random(s->rt), rt_random(s->rt) };
    struct dsn dsn;
    struct str content;
    struct peer *peer = take_hand(w, ROLE_SENDER, 0);

    if (!peer) {
        queue_notice_returned(s->queue, store_moment(s), w->job.number);
        return;
    }
    describe_notice(w, m, id, &dsn);
    struct border_compose ask = { dsn, m->envelope.trace, w->job.bare };
    if (put_off(w, &ask)) {
        give_hand_back(w);
        return;
    }
    size_t size = border_compose_size(&ask);
    struct put p = put_init(arena_alloc(&w->arena, size), size);
    border_put_compose(&p, &ask);
    struct err e = call_hand(w, peer->link, BORDER_COMPOSE, &p, COMPOSE_NS, &content);
    give_hand_back(w);
    if (err_is(e)) {
        lose(w);
        return;
    }
    if (content.len)
        e = commit_notice(w, id, &dsn, m->envelope.require_tls, content);
    else
        e = ERR(ERR_IO, "the original cannot be read now, or the notice is too long");
    if (err_is(e)) {
        queue_notice_failed(s->queue, store_moment(s), w->job.number);
        return;
    }
    queue_notice_committed(s->queue, store_moment(s), w->job.number);
    log_notice(w, id, &dsn);
}

/* ---- one job ---- */

static size_t *
running(struct work *w)
{
    bool mailbox = !w->job.notice && w->job.route->kind == ROUTE_MAILDIR;

    return mailbox ? &w->s->mailbox_jobs : &w->s->sender_jobs;
}

/* Its sender is not known any more: the failure that it was to tell of ends without. */
static void
give_up_notice(struct work *w)
{
    struct store *s = w->s;
    struct spool_settle settle;

    if (!queue_notice_settle(s->queue, store_moment(s), w->job.number, &w->arena, &settle)) {
        queue_notice_failed(s->queue, store_moment(s), w->job.number);
        return;
    }
    struct recipient_status *statuses = arena_alloc(&w->arena, settle.count * sizeof *statuses);
    for (size_t i = 0; i < settle.count; i++) {
        statuses[i] = settle.statuses[i];
        if (statuses[i].state == STATE_FAILED_SENT)
            statuses[i].state = STATE_FAILED_SILENT;
    }
    settle.statuses = statuses;
    store_settle(s, &settle);
    queue_notice_committed(s->queue, store_moment(s), w->job.number);
}

/* Not even its envelope can be read. What is damaged stays so; for anything else, later perhaps it can. */
static void
unreadable(struct work *w, struct err e)
{
    struct store *s = w->s;
    struct log_line line;
    struct spool_settle settle;
    char id[MESSAGE_ID_TEXT];
    bool lost = e.kind == ERR_CORRUPT || e.kind == ERR_NOT_FOUND;

    log_begin(&line, s->rt, LOG_ERROR, "message-unreadable");
    log_str(&line, "id", message_id_text(w->job.id, id));
    log_err(&line, e);
    log_end(&line);
    if (w->job.notice && lost) {
        give_up_notice(w);
    } else if (w->job.notice) {
        queue_notice_failed(s->queue, store_moment(s), w->job.number);
    } else {
        queue_outcome(s->queue, store_moment(s), w->job.number, all_alike(w, unread(w, e)), &w->arena, &settle);
        store_settle(s, &settle);
    }
}

static void
run_work(void *arg)
{
    struct work *w = arg;
    struct store *s = w->s;
    size_t *counter = running(w); /* now: the job's route is gone when the job has ended */
    struct spool_message m;

    struct err e = s->ops->get(s->spool, w->job.id, &w->arena, FOREVER, &m);
    if (e.kind == ERR_CANCELLED && w->job.notice) { /* the store ends */
        queue_notice_returned(s->queue, store_moment(s), w->job.number);
    } else if (e.kind == ERR_CANCELLED) {
        queue_job_returned(s->queue, store_moment(s), w->job.number);
    } else if (err_is(e)) {
        unreadable(w, e);
    } else if (w->job.notice) {
        compose(w, &m);
    } else {
        deliver(w, &m);
    }
    *counter -= 1;
    store_kick(s);
    arena_done(&w->arena);
    mem_free(rt_mem(s->rt), w, sizeof *w);
}

void
store_start_job(struct store *s, const struct queue_job *job)
{
    struct work *w = mem_new(rt_mem(s->rt), struct work);

    w->s = s;
    w->job = *job;
    w->reloads = s->reloads;
    *running(w) += 1;
    arena_init(&w->arena, rt_mem(s->rt), 8192, ARENA_MAX);
    /* What the job points to ends with it; the log line comes a moment later. */
    uint16_t *recipients = arena_alloc(&w->arena, (job->count + 1) * sizeof *recipients);
    for (size_t i = 0; i < job->count; i++)
        recipients[i] = job->recipients[i];
    w->job.recipients = recipients;
    scope_start(&s->work, "job", run_work, w);
}

/* ---- READ ---- */

struct reading {
    struct store *s;
    uint64_t peer;
    uint32_t call;
    struct message_id id;
    uint64_t offset;
    uint32_t len;
};

/* The answer: an error byte, then the bytes. */
static void
run_read(void *arg)
{
    struct reading *r = arg;
    struct store *s = r->s;
    char *memory = mem_buffer(rt_mem(s->rt), READ_PIECE + 1);
    size_t got = 0;
    struct err e = s->ops->read(s->spool, r->id, r->offset, memory + 1, r->len, FOREVER, &got);

    memory[0] = (char)e.kind;
    role_reply(s->role, r->peer, r->call, BORDER_READ, str_new(memory, err_is(e) ? 1 : got + 1));
    mem_free(rt_mem(s->rt), memory, READ_PIECE + 1);
    mem_free(rt_mem(s->rt), r, sizeof *r);
}

/* Else a mailbox role that its user has in hand could read the mail of all. */
static bool
has_message(const struct hand *hand, struct message_id id)
{
    list_each (node, &hand->jobs)
        if (message_id_eq(container_of(node, struct work, node)->job.id, id))
            return true;
    return false;
}

bool
store_read_message(struct store *s, struct peer *peer, struct link_message *m)
{
    struct take t = take_init(m->body);
    struct reading reading = { s, peer->serial, m->call, border_take_id(&t), 0, 0 };

    reading.offset = take_u64(&t);
    reading.len = take_count(&t, READ_PIECE);
    if (m->type != BORDER_READ || m->call == 0 || !take_end(&t))
        return false;
    if (!has_message(peer->own_ctx, reading.id)) { /* or no more: the job was given up */
        char denied = ERR_DENIED;
        link_reply(peer->link, m->call, BORDER_READ, str_new(&denied, 1));
        return true;
    }
    struct reading *r = mem_new(rt_mem(s->rt), struct reading);
    *r = reading;
    scope_start(&s->work, "read", run_read, r);
    return true;
}
