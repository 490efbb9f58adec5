/* workloads - see nth.h: what the daemon does while its calls fail. What a recipient's name means: peers_server.c. */
#include "sim/nth.h"

#include "base/check.h"
#include "link/link.h"
#include "role/border.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

#define WORK (WORKLOAD_OPENS + SECOND)
#define THEN (WORK + 2 * SECOND)  /* the event */
#define HEALED (70 * SECOND)
#define OPERATE_NS (2 * SECOND)
#define RELEASED_AT (25 * SECOND) /* from then on nothing is held any more */
#define RELEASE_NS (10 * SECOND)

#define LETTER(...) { .rcpt = { __VA_ARGS__ }, .size = 400, .way = CONTENT_DATA }
#define LONG_LETTER(...) { .rcpt = { __VA_ARGS__ }, .size = 70 << 10, .way = CONTENT_CHUNKS }
#define BY_TCP(...) { .letters = { __VA_ARGS__ }, .count = 1, .starts = WORK }
#define BY_SOCKET(...) { .letters = { __VA_ARGS__ }, .count = 1, .starts = WORK, .local = true }

#define BY_LOGIN(...) { .letters = { __VA_ARGS__ }, .count = 1, .starts = WORK, .logs_in = true }

const struct workload workloads[] = {
    { .name = "start", .from_start = true, .clients = { BY_TCP(LETTER("user0@local.test")) } },
    { .name = "maildir", .clients = { BY_TCP(LETTER("user0@local.test")) } },
    { .name = "relay", .clients = { BY_TCP(LETTER("ok-%u-0@good.test")) } },
    { .name = "lmtp", .clients = { BY_TCP(LETTER("m0@lmtp.test", "m1@lmtp.test")) } },
    { .name = "submission", .clients = { BY_SOCKET(LETTER("user1@local.test", "ok-%u-1@good.test")) } },
    { .name = "login", .clients = { BY_LOGIN(LETTER("user1@local.test", "ok-%u-1@good.test")) } },
    { .name = "start-with-users", .from_start = true, .clients = { BY_LOGIN(LETTER("user1@local.test")) } },
    { .name = "refused-here", .clients = { BY_TCP(LETTER("user0@local.test", "nobody@local.test")) } },
    { .name = "refused-there", .clients = { BY_TCP(LETTER("ok-%u-0@good.test", "no-%u@good.test")) } },
    { .name = "deferred", .clients = { BY_TCP(LETTER("later-%u@good.test")) } },
    { .name = "bounce", .clients = { BY_TCP(LETTER("x-%u@nowhere.test")) } },
    { .name = "chunks", .clients = { BY_TCP(LONG_LETTER("user2@local.test", "ok-%u-2@smart.test")) } },
    { .name = "queue", .clients = { BY_TCP(LETTER("later-%u@good.test")), BY_TCP(LETTER("never-%u@good.test")) },
      .operated = true },
    { .name = "reload", .clients = { BY_TCP(LETTER("later-%u@good.test")), BY_SOCKET(LETTER("user0@local.test")) },
      .then = RELOADED },
    { .name = "reconfigure", .clients = { BY_TCP(LETTER("user0@local.test", "later-%u@good.test")) }, .then = RECONFIGURED },
    { .name = "restart", .clients = { BY_TCP(LETTER("later-%u@good.test")) }, .then = RESTARTED },
};
const size_t workload_count = sizeof workloads / sizeof *workloads;

/* ---- the plan ---------------------------------------------------------------------------------------------------- */

/* By every way, when all is well again. */
static const struct script_letter probes[] = {
    LETTER("user1@local.test", "ok-%u-3@good.test", "m1@lmtp.test"),
    LETTER("user2@local.test"),
    LETTER("n0@new.test"), /* after RECONFIGURED */
};

static const struct str site =
    STR("hostname mx.sim.test\nstate " STATE_DIR "\nlisten mx { address 192.0.2.1:25; relay from 198.51.100.0/24 }\n"
        "domain local.test { mailbox user0 user1 user2; alias postmaster -> user0\n"
        "    deliver maildir /var/mail/{domain}/{local} }\n"
        "domain lmtp.test { mailbox m0 m1; alias postmaster -> m0; deliver lmtp://192.0.2.50:24 }\n"
        "route smart.test { via smtp://192.0.2.60:25; tls off }\n"
        "route default { direct; tls off; connections 2 }\n"
        "retry 5s 10s 30s for 900s { delay-notice 450s }\n");
/* RECONFIGURED: what is behind it too. Another socket, another directory. */
static const struct str more_of_site =
    STR("listen mx other { address 192.0.2.1:2525 }\n"
        "domain new.test { mailbox n0; alias postmaster -> n0; deliver maildir /var/mail/more/{domain}/{local} }\n");

static void
add_client(struct run *run, const char *kind, const struct script_letter *letters, size_t count, bool local, int64_t starts,
           bool later)
{
    size_t i = run->plan.client_count++;
    struct client_plan *c = &run->plan.clients[i];

    *c = (struct client_plan){ .script = letters, .mails = (uint32_t)count, .messages_each = (uint32_t)count, .local = local,
                               .trusted = true, .starts = starts, .later = later };
    (void)snprintf(c->name, sizeof c->name, "%s%zu", kind, i);
    (void)snprintf(c->ip, sizeof c->ip, "198.51.100.%zu", 100 + i);
}

void
workload_plan(struct run *run, const struct workload *w)
{
    struct sim *sim = run->sim;
    struct text t = text_init(run->plan.config, sizeof run->plan.config - 1);

    run->workload = w;
    run->plan.lifetime = 15 * MINUTE;
    run->plan.first_wait = 5 * SECOND;
    run->plan.never = true;
    run->plan.segment_bytes = 64 << 10;
    text_put(&t, site);
    CHECK(!t.full);
    sim_dns_add_mx(sim, "good.test", 10, "mx1.good.test");
    sim_dns_add_mx(sim, "back.test", 10, "mx1.good.test");
    sim_dns_add_address(sim, "mx1.good.test", "203.0.113.10");
    sim->disk_capacity = UINT64_C(256) << 20; /* the store tells of little space each second */
    disk_set_capacity(sim->disk, sim->disk_capacity);
    for (size_t i = 0; i < WORKLOAD_CLIENTS && w->clients[i].count; i++) {
        add_client(run, "client", w->clients[i].letters, w->clients[i].count, w->clients[i].local, w->clients[i].starts, false);
        if (!w->clients[i].logs_in)
            continue;
        users_make(run, &t);
        run->plan.clients[i].user = &run->users[0];
    }
    CHECK(!t.full);
    add_client(run, "probe", &probes[0], 1, false, 0, true);
    add_client(run, "probe", &probes[1], 1, true, 0, true);
    if (w->then == RECONFIGURED)
        add_client(run, "probe", &probes[2], 1, false, 20 * SECOND, true);
}

/* ---- an operator -------------------------------------------------------------------------------------------------- */

static void
act_on(struct run *run, struct rt *rt, struct link *link, struct arena *arena, const struct border_listed *l, bool release)
{
    bool never = str_starts(l->recipient, S("never-"));
    struct mail *m = ledger_find(&run->ledger, ledger_token(l->recipient));
    unsigned char body[32];
    struct put p = put_init(body, sizeof body);
    struct str reply;

    enum border_act act = never ? ACT_REMOVE : release ? ACT_RELEASE : ACT_HOLD;
    if (!never && l->held != release)
        return;
    if (never && m)
        m->removed = true;
    put_u8(&p, (uint8_t)act);
    border_put_id(&p, l->id);
    (void)link_call(link, BORDER_ACT, put_str_so_far(&p), arena, within(rt, MINUTE), &reply);
}

/* Holds what is listed, later releases it; takes out what would never be delivered. */
static void
operate_once(struct run *run, struct rt *rt, bool release)
{
    struct address at = { .family = ADDRESS_UNIX, .path = STATE_DIR "/control.sock" };
    struct link_settings settings = { .name = S("console") };
    struct border_listed listed[8];
    struct stream *stream;
    struct arena arena;
    struct str reply;
    unsigned char body[16];
    struct put p = put_init(body, sizeof body);
    size_t count = 0;

    if (err_is(stream_connect(rt, &at, NULL, within(rt, MINUTE), &stream)))
        return;
    struct link *link = link_on_stream(stream, &settings);
    arena_init(&arena, rt_mem(rt), 4096, 1 << 20);
    put_u64(&p, 0);
    put_u32(&p, 8);
    if (!err_is(link_call(link, BORDER_LIST, put_str_so_far(&p), &arena, within(rt, MINUTE), &reply))) {
        struct take t = take_init(reply);
        (void)take_u64(&t);
        (void)take_u64(&t);
        uint32_t told = take_count(&t, 8);
        while (count < told && !t.bad)
            border_take_listed(&t, &listed[count++]);
        CHECK(take_end(&t));
    }
    for (size_t i = 0; i < count; i++)
        act_on(run, rt, link, &arena, &listed[i], release);
    arena_done(&arena);
    link_free(link);
}

static int
operate(struct rt *rt, void *arg)
{
    struct run *run = arg;
    int64_t begin = rt_now(rt);

    (void)rt_sleep(rt, begin + WORK);
    while (!err_is(rt_sleep(rt, within(rt, OPERATE_NS))) && !run->unattended)
        operate_once(run, rt, rt_now(rt) - begin >= RELEASED_AT);
    return 0;
}

/* What was in flight at two deaths is held, as suspect, until somebody releases it. */
static int
release(struct rt *rt, void *arg)
{
    const struct run *run = arg;

    while (!err_is(rt_sleep(rt, within(rt, RELEASE_NS))) && !run->unattended)
        operate_once(arg, rt, true);
    return 0;
}

/* ---- an administrator --------------------------------------------------------------------------------------------- */

static void
tell_daemon(struct sim *sim, int signal)
{
    struct process *daemon = sim_daemon(sim);

    if (daemon)
        process_signal(daemon, signal);
}

/* Told to stop, the daemon is started again as a service manager would. */
static int
administer(struct rt *rt, void *arg)
{
    struct run *run = arg;
    enum workload_event event = run->workload->then;
    int64_t begin = rt_now(rt);

    (void)rt_sleep(rt, begin + THEN);
    if (event == RECONFIGURED) {
        struct text t = text_init(run->plan.config, sizeof run->plan.config - 1);
        text_put(&t, site);
        text_put(&t, more_of_site);
        CHECK(!t.full);
        run->sim->config = text_str(&t);
    }
    tell_daemon(run->sim, event == RESTARTED ? SIGTERM : SIGHUP);
    if (event != RECONFIGURED)
        return 0;
    (void)rt_sleep(rt, begin + HEALED); /* perhaps the new configuration could not be had then */
    tell_daemon(run->sim, SIGHUP);
    return 0;
}

void
workload_begin(struct run *run)
{
    if (run->workload->operated)
        process_start(run->sim, "operator2", host_new(run->sim, "operator2", "127.0.0.8"), operate, run);
    if (run->workload->then)
        process_start(run->sim, "administrator", host_new(run->sim, "administrator", "127.0.0.6"), administer, run);
}

void
workload_probe(struct run *run)
{
    for (size_t i = 0; i < run->plan.client_count; i++)
        if (run->plan.clients[i].later)
            client_start(run, i);
    process_start(run->sim, "releaser", host_new(run->sim, "releaser", "127.0.0.7"), release, run);
}
