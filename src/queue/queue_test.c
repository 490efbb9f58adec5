/*
 * The queue with a clock of our own: nothing here waits. `world` plays the store: it keeps what a spool would have been
 * told, and checks at each step that the counters balance.
 */
#include "queue/queue.h"

#include "base/check.h"
#include "base/map.h"
#include "base/slab.h"
#include "base/test.h"

#include <stdio.h>
#include <string.h>

struct world {
    struct mem mem;
    struct queue *q;
    struct moment t;
    struct arena arena;
    struct queue_settings settings;
    struct route local, smarthost, mx;
    bool parting; /* those of one lane have routes of their own */
    uint64_t next_id;
};

/* What is below home.test is local, below hub.test goes to a smarthost, none.test nowhere, the rest by MX. */
static bool
find_route(void *arg, struct str domain, struct route *out)
{
    const struct world *w = arg;

    if (str_ends(domain, S("none.test")) || (w->parting && str_eq(domain, S("x.test"))))
        return false;
    *out = str_ends(domain, S("home.test")) ? w->local : str_ends(domain, S("hub.test")) ? w->smarthost : w->mx;
    if (w->parting && out->kind == ROUTE_MX)
        out->helo = S("other.us.test");
    else if (w->parting)
        out->port = 26;
    return true;
}

static void
world_init(struct world *w, uint64_t seed)
{
    *w = (struct world){
        .mem = mem_libc(),
        .t = { 1000 * HOUR, 20000 * DAY },
        .settings = { .retry = retry_default(), .hostname = S("mx.us.test"), .postmaster = S("postmaster@home.test"),
                      .find_route = find_route },
        .local = { .kind = ROUTE_MAILDIR, .path = S("/mail/{domain}/{local}") },
        .smarthost = { .kind = ROUTE_SMTP, .host = S("10.0.0.9"), .port = 25 },
        .mx = { .kind = ROUTE_MX, .port = 25 },
        .next_id = 1,
    };
    w->settings.arg = w;
    arena_init(&w->arena, &w->mem, 4096, 64 << 20);
    w->q = queue_new(&w->mem, seed, &w->settings, w->t);
}

static void
world_done(struct world *w, struct test *t)
{
    queue_free(w->q);
    arena_done(&w->arena);
    EXPECT_INT(t, mem_in_use(&w->mem), 0);
}

/* "a@x b@y" */
struct mail {
    const char *to, *from; /* from NULL: s@sender.test; "": the null sender */
    uint8_t notify;
    bool trusted, notice;
    uint64_t size;
    const char *client;
    const struct recipient_status *statuses;
    int64_t age;
    int64_t hold;                /* RFC 4865 */
    int64_t within;              /* RFC 2852 */
    bool or_return;
    bool held;
    uint8_t deaths;
};

static struct message_id
add(struct world *w, struct mail mail)
{
    struct recipient recipients[100];
    struct message_id id = { 1, w->next_id++ * UINT64_C(0x9e3779b97f4a7c15) };
    struct str rest = str_from_cstr(mail.to);
    struct spool_message m = {
        .id = id,
        .envelope = {
            .reverse_path = mail.from ? str_from_cstr(mail.from) : S("s@sender.test"),
            .client = mail.client ? str_from_cstr(mail.client) : S("192.0.2.1"),
            .size = mail.size ? mail.size : 5000,
            .accepted_wall = w->t.wall - mail.age,
            .hold_until = mail.hold ? w->t.wall + mail.hold : 0,
            .trusted = mail.trusted,
            .deliver_within = mail.within,
            .deliver_or_return = mail.or_return,
            .notice = mail.notice,
            .recipients = recipients,
        },
        .statuses = (struct recipient_status *)(uintptr_t)mail.statuses,
        .age = mail.age,
        .held = mail.held,
        .deaths = mail.deaths,
    };

    while ((rest = str_trim(rest)).len > 0) {
        struct str word = str_cut_word(&rest), address = str_cut(&word, '/');
        recipients[m.envelope.recipient_count++] =
            (struct recipient){ .address = address, .reverse_path = word, .notify = mail.notify };
    }
    CHECK(queue_add(w->q, w->t, &m));
    return id;
}

static struct str
status_text(struct world *w, const struct spool_settle *s)
{
    static const char *const names[] = { "pending", "delivered", "owed", "sent", "silent", "relayed", "expanded",
                                         "suppressed", "removed" };
    char memory[2000];
    struct text text = text_init(memory, sizeof memory);

    for (size_t i = 0; i < s->count; i++)
        text_putf(&text, "%s%u:%s", i ? " " : "", s->statuses[i].index, names[s->statuses[i].state]);
    if (s->set_deaths)
        text_putf(&text, " deaths=%u", s->deaths);
    if (s->set_held)
        text_putf(&text, " held=%d", s->held);
    return arena_keep(&w->arena, text_str(&text));
}

enum { ANY = QUEUE_NETWORK | QUEUE_MAILBOX | QUEUE_NOTICE, ALL = ANY | QUEUE_ALONE };

static struct queue_job
next(struct world *w, unsigned can)
{
    struct queue_job job = { 0 };

    while (queue_tick(w->q, w->t))
        ;
    if (!queue_next_job(w->q, w->t, can, 0, &job))
        job.number = 0;
    queue_audit(w->q);
    return job;
}

static struct str
finish(struct world *w, struct queue_job job, const struct outcome *outcomes)
{
    struct spool_settle settle;

    CHECK(job.number > 0);
    queue_outcome(w->q, w->t, job.number, outcomes, &w->arena, &settle);
    queue_audit(w->q);
    return status_text(w, &settle);
}

static struct str
commit(struct world *w, struct queue_job job)
{
    struct spool_settle settle;

    CHECK(job.notice);
    if (!queue_notice_settle(w->q, w->t, job.number, &w->arena, &settle)) {
        queue_notice_failed(w->q, w->t, job.number);
        return S("nothing");
    }
    queue_audit(w->q);
    queue_notice_committed(w->q, w->t, job.number);
    queue_audit(w->q);
    return status_text(w, &settle);
}

static const struct outcome delivered = { .kind = OUTCOME_DELIVERED, .enhanced = STR("2.0.0"), .reply = STR("250 ok") };
static const struct outcome refused = { .kind = OUTCOME_FAILED,
                                       .enhanced = STR("5.1.1"),
                                       .reply = STR("550 5.1.1 nobody"),
                                       .remote = STR("mx.x.test [192.0.2.9]:25") };
static const struct outcome later = {
    .kind = OUTCOME_DEFERRED, .enhanced = STR("4.2.2"), .reply = STR("452 4.2.2 full") };
static const struct outcome busy = { .kind = OUTCOME_DEFERRED, .about = OUTCOME_ABOUT_MESSAGE, .enhanced = STR("4.3.2"),
                                     .reply = STR("421 4.3.2 too busy") };
static const struct outcome dead = { .kind = OUTCOME_DEFERRED,
                                    .about = OUTCOME_ABOUT_DESTINATION,
                                    .enhanced = STR("4.4.1"),
                                    .reply = STR("connection timed out") };

/* All recipients alike. */
static struct str
finish_all(struct world *w, struct queue_job job, const struct outcome *o)
{
    struct outcome outcomes[LIMIT_RCPT_PER_JOB];

    for (size_t i = 0; i < job.count; i++)
        outcomes[i] = *o;
    return finish(w, job, outcomes);
}

static void
pass(struct world *w, int64_t ns)
{
    w->t.now += ns;
    w->t.wall += ns;
}

/* To when something is due; false: never. */
static bool
pass_until_due(struct world *w)
{
    int64_t due = queue_due(w->q, ANY);

    if (due == INT64_MAX)
        return false;
    pass(w, due > w->t.now ? due - w->t.now : 0);
    return true;
}

/* Every question gets the hosts "mx1.DOMAIN" and "mx2.DOMAIN", unless `shared` names one for all. */
static size_t
answer_all(struct world *w, struct str shared)
{
    struct str domain;
    size_t count = 0;

    for (; queue_next_question(w->q, w->t, &domain); count++) {
        struct mx_host hosts[2] = { { arena_join(&w->arena, S("mx1."), domain), 10 },
                                    { arena_join(&w->arena, S("mx2."), domain), 20 } };
        struct mx_result answer = { .status = MX_OK, .ttl = 3600, .hosts = hosts, .host_count = 2, .why = S("") };
        if (shared.len > 0) {
            hosts[0].name = shared;
            answer.host_count = 1;
        }
        queue_answer(w->q, w->t, domain, &answer);
        queue_audit(w->q);
    }
    return count;
}

static struct queue_counts
counts(const struct world *w)
{
    struct queue_counts c;

    queue_counts(w->q, &c);
    return c;
}

static void
answer_one(struct world *w, const struct mx_result *answer)
{
    struct str domain;

    CHECK(queue_next_question(w->q, w->t, &domain));
    queue_answer(w->q, w->t, domain, answer);
    queue_audit(w->q);
}

/* ---- one message ------------------------------------------------------------------------------------------------ */

static void
each_recipient_has_its_own_fate(struct test *t)
{
    struct world w;

    world_init(&w, 1);
    add(&w, (struct mail){ .to = "a@home.test b@home.test c@home.test", .notify = NOTIFY_NEVER });
    struct queue_job job = next(&w, ANY);
    EXPECT_INT(t, job.count, 3);
    EXPECT(t, job.route && job.route->kind == ROUTE_MAILDIR);
    EXPECT(t, next(&w, ANY).number == 0);
    EXPECT_STR(t, finish(&w, job, (struct outcome[]){ delivered, refused, later }),
               S("0:delivered 1:silent 2:pending"));
    EXPECT(t, next(&w, ANY).number == 0);
    EXPECT(t, pass_until_due(&w));
    job = next(&w, ANY);
    EXPECT_INT(t, job.count, 1);
    EXPECT_INT(t, job.recipients[0], 2);
    EXPECT_INT(t, job.attempts, 1);
    EXPECT_STR(t, finish(&w, job, &delivered), S("2:delivered"));
    struct queue_counts c = counts(&w);
    EXPECT_INT(t, c.accepted, 3);
    EXPECT_INT(t, c.delivered, 2);
    EXPECT_INT(t, c.failed, 1);
    EXPECT_INT(t, c.messages, 0);
    world_done(&w, t);
}

static void
hands_get_what_they_can_do(struct test *t)
{
    struct world w;

    world_init(&w, 1);
    add(&w, (struct mail){ .to = "a@home.test b@hub.test" });
    struct queue_job box = next(&w, QUEUE_MAILBOX), net = next(&w, QUEUE_NETWORK);
    EXPECT(t, box.number && box.route->kind == ROUTE_MAILDIR);
    EXPECT(t, net.number && net.route->kind == ROUTE_SMTP);
    EXPECT(t, next(&w, ALL).number == 0);
    finish(&w, box, &delivered);
    queue_job_returned(w.q, w.t, net.number);
    net = next(&w, QUEUE_NETWORK);
    EXPECT_INT(t, net.attempts, 0); /* what was never begun is no attempt */
    finish(&w, net, &delivered);
    world_done(&w, t);
}

static void
many_recipients_go_in_hundreds(struct test *t)
{
    struct world w;
    struct recipient *recipients;
    static char addresses[250][20];
    struct mem mem = mem_libc();

    world_init(&w, 1);
    recipients = mem_alloc(&mem, 250 * sizeof *recipients);
    for (size_t i = 0; i < 250; i++) {
        struct text text = text_init(addresses[i], sizeof addresses[i]);
        text_putf(&text, "u%zu@x%zu.hub.test", i, i % 3); /* domains differ, the smarthost is one */
        recipients[i].address = text_str(&text);
    }
    struct spool_message m = { .id = { 1, 1 },
                              .envelope = { .reverse_path = S("s@sender.test"),
                                           .recipients = recipients,
                                           .recipient_count = 250,
                                           .accepted_wall = w.t.wall } };
    CHECK(queue_add(w.q, w.t, &m));
    EXPECT(t, !queue_add(w.q, w.t, &m));
    struct queue_job jobs[3];
    for (size_t i = 0; i < 3; i++) {
        jobs[i] = next(&w, ANY);
        EXPECT_INT(t, jobs[i].count, i < 2 ? 100 : 50);
    }
    EXPECT(t, next(&w, ANY).number == 0);
    /* Deferred together, they go together again. */
    finish_all(&w, jobs[0], &later);
    finish_all(&w, jobs[1], &delivered);
    finish_all(&w, jobs[2], &delivered);
    EXPECT(t, pass_until_due(&w));
    jobs[0] = next(&w, ANY);
    EXPECT_INT(t, jobs[0].count, 100);
    finish_all(&w, jobs[0], &delivered);
    EXPECT_INT(t, counts(&w).messages, 0);
    mem_free(&mem, recipients, 250 * sizeof *recipients);
    world_done(&w, t);
}

static void
reverse_paths_never_share_a_transaction(struct test *t)
{
    struct world w;

    world_init(&w, 1);
    add(&w, (struct mail){ .to = "a@hub.test b@hub.test/owner@l.test c@hub.test/owner@l.test d@hub.test" });
    struct queue_job first = next(&w, ANY), second = next(&w, ANY), third = next(&w, ANY);
    EXPECT_INT(t, first.count, 1);
    EXPECT_INT(t, second.count, 2);
    EXPECT_INT(t, third.count, 1);
    finish_all(&w, first, &refused);
    finish_all(&w, second, &refused);
    finish_all(&w, third, &refused);
    /* And two notices, since two people are told. */
    struct queue_job n1 = next(&w, ANY), n2 = next(&w, ANY);
    EXPECT(t, n1.notice && n1.count == 2 && n1.recipients[0] == 0 && n1.recipients[1] == 3);
    EXPECT(t, n2.notice && n2.count == 2 && n2.recipients[0] == 1 && n2.recipients[1] == 2);
    world_done(&w, t);
}

/* Also where there are more owners than are told apart in memory. */
static void
each_of_many_owners_is_told(struct test *t)
{
    enum { OWNERS = 40 };
    char to[OWNERS * 40] = "", owner[40];
    bool told[OWNERS] = { false };
    struct world w;

    world_init(&w, 1);
    for (int i = 0; i < OWNERS; i++) {
        snprintf(owner, sizeof owner, "%sa%d@hub.test/owner%d@l.test", i ? " " : "", i, i);
        strcat(to, owner);
    }
    add(&w, (struct mail){ .to = to });
    for (int i = 0; i < OWNERS; i++)
        finish_all(&w, next(&w, QUEUE_NETWORK), &refused);
    for (int i = 0; i < OWNERS; i++) {
        struct queue_job n = next(&w, QUEUE_NOTICE);
        CHECK(n.notice);
        EXPECT(t, n.count == 1 && !told[n.recipients[0]]);
        told[n.recipients[0]] = true;
        EXPECT(t, str_ends(commit(&w, n), S(":sent")));
    }
    EXPECT_INT(t, counts(&w).messages, 0);
    world_done(&w, t);
}

/* ---- time ------------------------------------------------------------------------------------------------------- */

static void
retries_until_it_expires(struct test *t)
{
    static const struct {
        const char *why;
        struct mail mail;
        size_t attempts_min, attempts_max;
        int64_t lifetime;
        struct str end;
    } cases[] = {
        { "five days", { .to = "a@hub.test" }, 34, 38, 5 * DAY, STR("0:owed") },
        { "one day for the null sender", { .to = "a@hub.test", .from = "" }, 10, 13, 1 * DAY, STR("0:silent") },
        { "dead destination, five days", { .to = "a@dead.test" }, 34, 38, 5 * DAY, STR("0:owed") },
        { "in two hours or not at all", { .to = "a@hub.test", .within = 2 * HOUR, .or_return = true }, 5, 6, 2 * HOUR, STR("0:owed") },
        { "in a second or not at all", { .to = "a@hub.test", .within = SECOND, .or_return = true }, 2, 2, 1 * SECOND, STR("0:owed") },
        { "no longer than others", { .to = "a@hub.test", .within = 900 * DAY, .or_return = true }, 34, 38, 5 * DAY, STR("0:owed") },
        { "what is told of does not fail", { .to = "a@hub.test", .within = HOUR }, 34, 38, 5 * DAY, STR("0:owed") },
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct world w;
        struct str end = S("");
        size_t attempts = 0;
        struct queue_job job;

        test_case(t, cases[i].why);
        world_init(&w, 1);
        int64_t born = w.t.now;
        add(&w, cases[i].mail);
        while (!str_eq(end, cases[i].end)) {
            answer_all(&w, S(""));
            job = next(&w, ANY);
            if (job.notice) {
                (void)commit(&w, job); /* of its delay */
            } else if (job.number) {
                attempts++;
                end = finish(&w, job, str_starts(str_from_cstr(cases[i].mail.to), S("a@dead")) ? &dead : &later);
            } else if (!pass_until_due(&w)) {
                break;
            }
            if (attempts > 100)
                break;
        }
        EXPECT_STR(t, end, cases[i].end);
        EXPECT(t, attempts >= cases[i].attempts_min && attempts <= cases[i].attempts_max);
        EXPECT_INT(t, w.t.now - born, cases[i].lifetime);
        world_done(&w, t);
    }
}

static void
the_last_words_are_told_at_expiry(struct test *t)
{
    struct world w;
    struct spool_settle settle;

    world_init(&w, 1);
    add(&w, (struct mail){ .to = "a@hub.test", .age = 5 * DAY + HOUR });
    struct queue_job job = next(&w, ANY);
    queue_outcome(w.q, w.t, job.number, &later, &w.arena, &settle);
    EXPECT_STR(t, settle.statuses[0].last_reply,
               S("5.4.7 not delivered within 5 days; last answer: 4.2.2 452 4.2.2 full"));
    struct str enhanced, text;
    queue_reply_split(settle.statuses[0].last_reply, &enhanced, &text);
    EXPECT_STR(t, enhanced, S("5.4.7"));
    EXPECT_STR(t, text, S("not delivered within 5 days; last answer: 4.2.2 452 4.2.2 full"));
    queue_reply_split(S("550 no code"), &enhanced, &text);
    EXPECT_STR(t, enhanced, S(""));
    EXPECT_STR(t, text, S("550 no code"));
    world_done(&w, t);
}

static void
clocks_that_jump_expire_nothing(struct test *t)
{
    struct world w;
    struct queue_job job;

    world_init(&w, 1);
    add(&w, (struct mail){ .to = "a@hub.test" });
    finish(&w, next(&w, ANY), &later);
    w.t.wall += 400 * DAY;
    EXPECT(t, pass_until_due(&w));
    job = next(&w, ANY);
    EXPECT_STR(t, finish(&w, job, &later), S("0:pending"));
    w.t.wall -= 800 * DAY;
    EXPECT(t, pass_until_due(&w));
    job = next(&w, ANY);
    EXPECT_STR(t, finish(&w, job, &later), S("0:pending"));
    world_done(&w, t);
}

static void
a_restart_keeps_times_and_ages(struct test *t)
{
    struct world w;

    world_init(&w, 1);
    struct recipient_status statuses[] = {
        { .index = 0, .state = STATE_DELIVERED },
        { .index = 1, .state = STATE_PENDING, .attempts = 3, .next_wall = w.t.wall + 20 * MINUTE },
        { .index = 2, .state = STATE_PENDING, .attempts = 3, .next_wall = w.t.wall + 900 * DAY }, /* a wrong clock */
        { .index = 3, .state = STATE_FAILED_OWED },
    };
    add(&w, (struct mail){ .to = "a@hub.test b@hub.test c@hub.test d@hub.test", .statuses = statuses, .age = DAY });
    struct queue_job notice = next(&w, ANY);
    EXPECT(t,
           notice.notice && notice.notice_kind == NOTICE_OF_FAILURE && notice.count == 1 && notice.recipients[0] == 3);
    EXPECT(t, next(&w, ANY).number == 0);
    pass(&w, 20 * MINUTE);
    struct queue_job job = next(&w, ANY);
    EXPECT(t, job.count == 1 && job.recipients[0] == 1 && job.attempts == 3);
    pass(&w, 8 * HOUR);
    EXPECT(t, next(&w, ANY).recipients[0] == 2);
    EXPECT_INT(t, counts(&w).accepted, 3);
    world_done(&w, t);
}

/* ---- routes ----------------------------------------------------------------------------------------------------- */

static void
answers_decide(struct test *t)
{
    static struct mx_host us_first[] = { { STR("mx.us.test"), 5 }, { STR("other.test"), 10 } };
    static struct mx_host us_second[] = {
        { STR("better.test"), 5 }, { STR("MX.us.test"), 10 }, { STR("worse.test"), 10 } };
    static const struct {
        const char *why;
        struct mx_result answer;
        struct str end, reply;
        struct str key; /* of the lane, if there is a job */
    } cases[] = {
        { "null mx",
         { .status = MX_NULL, .ttl = 60 },
         STR("0:owed"),
         STR("5.1.10 this domain takes no mail (null MX)"),
         { NULL, 0 } },
        { "no such domain",
         { .status = MX_NXDOMAIN, .ttl = 60 },
         STR("0:owed"),
         STR("5.1.2 there is no such domain"),
         { NULL, 0 } },
        { "no address",
         { .status = MX_NO_ADDRESS, .ttl = 60, .why = STR("no host has an address") },
         STR("0:owed"),
         STR("5.4.4 no host has an address"),
         { NULL, 0 } },
        { "we are first: a loop",
         { .status = MX_OK, .ttl = 60, .hosts = us_first, .host_count = 2 },
         STR("0:owed"),
         STR("5.4.6 mail for this domain comes to us, who do not take it"),
         { NULL, 0 } },
        { "we are second: only the better",
         { .status = MX_OK, .ttl = 60, .hosts = us_second, .host_count = 3 },
         { NULL, 0 },
         { NULL, 0 },
         STR("better.test") },
        { "trouble waits", { .status = MX_TEMPORARY, .why = STR("SERVFAIL") }, { NULL, 0 }, { NULL, 0 }, { NULL, 0 } },
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct world w;
        struct spool_settle settle;

        test_case(t, cases[i].why);
        world_init(&w, 1);
        struct message_id id = add(&w, (struct mail){ .to = "a@x.test" });
        EXPECT(t, next(&w, QUEUE_NETWORK).number == 0);
        answer_one(&w, &cases[i].answer);
        bool ended = queue_next_settle(w.q, w.t, &w.arena, &settle);
        queue_audit(w.q);
        EXPECT(t, ended == !str_is_absent(cases[i].end));
        if (ended) {
            EXPECT_STR(t, status_text(&w, &settle), cases[i].end);
            EXPECT_STR(t, settle.statuses[0].last_reply, cases[i].reply);
        }
        struct queue_job job = next(&w, QUEUE_NETWORK);
        EXPECT(t, (job.number > 0) == !str_is_absent(cases[i].key));
        if (job.number)
            EXPECT_STR(t, job.lane_key, cases[i].key);
        struct queue_message_view view;
        EXPECT(t, queue_view(w.q, w.t, id, 10, &w.arena, &view));
        if (cases[i].answer.status == MX_TEMPORARY) {
            EXPECT_STR(t, view.recipients[0].reason, S("SERVFAIL"));
            EXPECT_STR(t, view.recipients[0].place, S("unresolved"));
            EXPECT(t, pass_until_due(&w));
            queue_tick(w.q, w.t);
            EXPECT_INT(t, answer_all(&w, S("")), 1);
            EXPECT(t, next(&w, QUEUE_NETWORK).number > 0);
        }
        world_done(&w, t);
    }
}

static void
no_route_fails_and_literals_need_no_lookup(struct test *t)
{
    struct world w;
    struct spool_settle settle;

    world_init(&w, 1);
    add(&w, (struct mail){ .to = "a@none.test b@[192.0.2.7] c@" });
    EXPECT(t, queue_next_settle(w.q, w.t, &w.arena, &settle));
    EXPECT_STR(t, status_text(&w, &settle), S("0:owed"));
    EXPECT_STR(t, settle.statuses[0].last_reply, S("5.4.4 no route to this domain"));
    struct queue_job job = next(&w, QUEUE_NETWORK);
    EXPECT_INT(t, job.host_count, 1);
    EXPECT_STR(t, job.hosts[0].name, S("[192.0.2.7]"));
    world_done(&w, t);
}

static void
domains_of_one_provider_share_a_lane(struct test *t)
{
    struct world w;
    struct mx_host forth[] = { { S("a.big.test"), 10 }, { S("b.big.test"), 10 }, { S("c.big.test"), 20 } };
    struct mx_host back[] = { { S("c.big.test"), 7 }, { S("b.big.test"), 3 }, { S("a.big.test"), 3 } };
    struct mx_host other[] = { { S("c.big.test"), 1 }, { S("b.big.test"), 3 }, { S("a.big.test"), 3 } };

    world_init(&w, 1);
    add(&w, (struct mail){ .to = "a@one.test b@two.test" });
    add(&w, (struct mail){ .to = "c@three.test" });
    answer_one(&w, &(struct mx_result){ .status = MX_OK, .hosts = forth, .host_count = 3 });
    answer_one(&w, &(struct mx_result){ .status = MX_OK, .hosts = back, .host_count = 3 });
    answer_one(&w, &(struct mx_result){ .status = MX_OK, .hosts = other, .host_count = 3 });
    struct queue_job both = next(&w, ANY);
    EXPECT_INT(t, both.count, 2);
    EXPECT_STR(t, both.lane_key, S("a.big.test,b.big.test;c.big.test"));
    EXPECT_STR(t, both.hosts[2].name, S("c.big.test"));
    /* Another order is another lane, to the same destination. */
    struct queue_job third = next(&w, ANY);
    EXPECT_STR(t, third.lane_key, S("c.big.test;a.big.test,b.big.test"));
    struct queue_lane_view lanes[5];
    size_t at = 0;
    EXPECT_INT(t, queue_lanes(w.q, w.t, &at, lanes, 5), 2);
    EXPECT_STR(t, lanes[0].destination, lanes[1].destination);
    world_done(&w, t);
}

static void
equal_hosts_take_turns(struct test *t)
{
    struct world w;
    struct mx_host hosts[] = { { S("a.test"), 10 }, { S("b.test"), 10 }, { S("c.test"), 20 }, { S("d.test"), 10 } };
    size_t first[3] = { 0 };

    world_init(&w, 1);
    for (int i = 0; i < 300; i++)
        add(&w, (struct mail){ .to = "x@equal.test" });
    answer_one(&w, &(struct mx_result){ .status = MX_OK, .hosts = hosts, .host_count = 4, .ttl = 86400 });
    for (int i = 0; i < 300; i++) {
        struct queue_job job = next(&w, ANY);
        EXPECT_INT(t, job.host_count, 4);
        EXPECT_STR(t, job.hosts[3].name, S("c.test"));
        EXPECT_INT(t, job.hosts[2].preference, 0);
        EXPECT_INT(t, job.hosts[3].preference, 1);
        first[job.hosts[0].name.ptr[0] == 'a' ? 0 : job.hosts[0].name.ptr[0] == 'b' ? 1 : 2]++;
        finish(&w, job, &delivered);
    }
    for (int i = 0; i < 3; i++)
        EXPECT(t, first[i] > 60 && first[i] < 140);
    add(&w, (struct mail){ .to = "x@equal.test" });
    queue_host_down(w.q, w.t, S("a.test"));
    queue_host_down(w.q, w.t, S("b.test"));
    struct queue_job job = next(&w, ANY);
    EXPECT_STR(t, job.hosts[0].name, S("d.test"));
    EXPECT_STR(t, job.hosts[1].name, S("c.test"));
    EXPECT_INT(t, job.hosts[1].preference, 1);
    EXPECT_INT(t, job.hosts[2].preference, 0); /* later, and yet the better one */
    queue_job_returned(w.q, w.t, job.number);
    pass(&w, 2 * MINUTE);
    job = next(&w, ANY);
    EXPECT_STR(t, job.hosts[3].name, S("c.test"));
    world_done(&w, t);
}

static void
a_stale_answer_serves_until_the_new_one(struct test *t)
{
    struct world w;
    struct mx_host moved[] = { { S("new.test"), 10 } };

    world_init(&w, 1);
    add(&w, (struct mail){ .to = "a@x.test" });
    answer_all(&w, S("old.test"));
    finish(&w, next(&w, ANY), &delivered);
    pass(&w, 2 * HOUR);
    for (int i = 0; i < 20; i++)
        add(&w, (struct mail){ .to = "a@x.test" });
    struct queue_job job = next(&w, ANY);
    EXPECT_STR(t, job.lane_key, S("old.test"));
    answer_one(&w, &(struct mx_result){ .status = MX_OK, .hosts = moved, .host_count = 1 });
    EXPECT_STR(t, next(&w, ANY).lane_key, S("new.test"));
    EXPECT_STR(t, finish(&w, job, &delivered), S("0:delivered"));
    EXPECT_INT(t, counts(&w).lanes, 1);
    /* The domain is given up: those that stand in its lane fail. */
    pass(&w, 2 * HOUR);
    add(&w, (struct mail){ .to = "a@x.test" });
    answer_one(&w, &(struct mx_result){ .status = MX_NXDOMAIN });
    EXPECT_INT(t, counts(&w).ending, 19);
    EXPECT_INT(t, counts(&w).ready, 0);
    world_done(&w, t);
}

static void
a_reload_reroutes(struct test *t)
{
    struct world w;

    world_init(&w, 1);
    add(&w, (struct mail){ .to = "a@hub.test b@x.test c@y.none.test" });
    answer_all(&w, S("mx.test"));
    w.smarthost.host = S("10.0.0.10");
    w.mx.helo = S("other.us.test");
    queue_set_settings(w.q, w.t, &w.settings);
    queue_audit(w.q);
    EXPECT_INT(t, answer_all(&w, S("")), 0); /* hosts were known */
    EXPECT_STR(t, next(&w, QUEUE_NETWORK).lane_key, S("smtp://10.0.0.10:25"));
    EXPECT_STR(t, next(&w, QUEUE_NETWORK).lane_key, S("mx.test helo other.us.test"));
    EXPECT_INT(t, counts(&w).lanes, 2);
    add(&w, (struct mail){ .to = "a@hub.test" });
    w.smarthost = (struct route){ .kind = ROUTE_MX, .port = 25 };
    queue_set_settings(w.q, w.t, &w.settings);
    queue_audit(w.q);
    EXPECT_INT(t, answer_all(&w, S("hub-mx.test")), 1);
    EXPECT_STR(t, next(&w, QUEUE_NETWORK).lane_key, S("hub-mx.test"));
    w.smarthost = w.local;
    queue_set_settings(w.q, w.t, &w.settings);
    queue_audit(w.q);
    world_done(&w, t);
}

/* Whatever DNS says then: it is not asked any more. */
static void
a_reload_overtakes_a_question(struct test *t)
{
    static const struct {
        const char *why;
        bool known; /* the question is for a newer answer */
        enum mx_status status;
    } cases[] = {
        { "hosts", false, MX_OK },
        { "null MX", false, MX_NULL },
        { "no such domain", false, MX_NXDOMAIN },
        { "no address", false, MX_NO_ADDRESS },
        { "trouble", false, MX_TEMPORARY },
        { "other hosts", true, MX_OK },
        { "null MX since", true, MX_NULL },
        { "no such domain any more", true, MX_NXDOMAIN },
        { "no address any more", true, MX_NO_ADDRESS },
        { "trouble since", true, MX_TEMPORARY },
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct world w;
        struct str domain;
        struct mx_host hosts[] = { { S("mx.test"), 10 } };
        struct mx_result answer = { .status = (uint8_t)cases[i].status, .ttl = 3600, .hosts = hosts, .host_count = 1,
                                    .why = S("because") };

        test_case(t, cases[i].why);
        world_init(&w, 1);
        for (int n = 0; n < 3; n++)
            add(&w, (struct mail){ .to = "a@x.test" });
        if (cases[i].known) {
            answer_all(&w, S("old.test"));
            pass(&w, 2 * HOUR);
            finish(&w, next(&w, ANY), &delivered);
        }
        EXPECT(t, queue_next_question(w.q, w.t, &domain));
        w.mx = w.smarthost;
        queue_set_settings(w.q, w.t, &w.settings);
        queue_audit(w.q);
        EXPECT_STR(t, next(&w, ANY).lane_key, S("smtp://10.0.0.9:25"));
        queue_answer(w.q, w.t, domain, &answer);
        queue_audit(w.q);
        EXPECT_INT(t, counts(&w).ending, 0);
        EXPECT_STR(t, next(&w, ANY).lane_key, S("smtp://10.0.0.9:25"));
        world_done(&w, t);
    }
}

/* Of one lane, each to somewhere else, and a suspect among them. */
static void
domains_of_a_lane_part_in_a_reload(struct test *t)
{
    struct world w;
    struct spool_settle settle;

    world_init(&w, 1);
    for (int i = 0; i < 3; i++)
        add(&w, (struct mail){ .to = "a@home.test a@hub.test a@x.test a@y.test", .deaths = i == 0 });
    answer_all(&w, S("mx.test"));
    struct queue_job lost = next(&w, QUEUE_NETWORK);
    EXPECT_INT(t, counts(&w).ready, 12 - lost.count);
    w.parting = true;
    queue_set_settings(w.q, w.t, &w.settings);
    queue_audit(w.q);
    EXPECT_INT(t, counts(&w).in_flight, lost.count);
    queue_job_lost(w.q, w.t, lost.number, &w.arena, &settle);
    queue_audit(w.q);
    EXPECT_INT(t, answer_all(&w, S("")), 0); /* hosts were known */
    EXPECT_INT(t, counts(&w).ending, 3);
    EXPECT_INT(t, counts(&w).ready, 9);
    while (queue_next_settle(w.q, w.t, &w.arena, &settle))
        queue_audit(w.q);
    for (struct queue_job job; (job = next(&w, QUEUE_NETWORK | QUEUE_MAILBOX | QUEUE_ALONE)).number;) {
        EXPECT(t, !str_eq(job.lane_key, S("mx.test")));
        finish_all(&w, job, &delivered);
    }
    EXPECT_INT(t, counts(&w).delivered, 9);
    world_done(&w, t);
}

static void
a_restart_does_not_ask_for_a_million(struct test *t)
{
    struct world w;
    struct str domain;
    char to[40];
    size_t asked = 0;

    world_init(&w, 1);
    for (int i = 0; i < 3000; i++) {
        struct text text = text_init(to, sizeof to);
        text_putf(&text, "a@d%d.test", i);
        text_cstr(&text);
        add(&w, (struct mail){ .to = to });
    }
    while (queue_next_question(w.q, w.t, &domain))
        asked++;
    EXPECT_INT(t, asked, QUEUE_QUESTIONS_MAX);
    world_done(&w, t);

    world_init(&w, 1);
    for (int i = 0; i < 3000; i++) {
        struct text text = text_init(to, sizeof to);
        text_putf(&text, "a@d%d.test", i);
        text_cstr(&text);
        add(&w, (struct mail){ .to = to });
    }
    asked = answer_all(&w, S(""));
    EXPECT(t, asked >= 200 && asked <= 300); /* enough lanes have work */
    for (int i = 0; i < 200; i++)
        finish(&w, next(&w, ANY), &delivered);
    EXPECT(t, answer_all(&w, S("")) >= 150);
    world_done(&w, t);
}

/* ---- lanes ------------------------------------------------------------------------------------------------------ */

/* Jobs that can be under way at once. */
static size_t
take_all(struct world *w, struct queue_job *jobs, size_t cap)
{
    size_t count = 0;

    while (count < cap && (jobs[count] = next(w, ANY)).number)
        count++;
    return count;
}

static void
concurrency_adapts(struct test *t)
{
    struct world w;
    struct queue_job jobs[50];

    world_init(&w, 1);
    for (int i = 0; i < 400; i++)
        add(&w, (struct mail){ .to = "a@hub.test" });
    EXPECT_INT(t, take_all(&w, jobs, 50), 5);
    for (int i = 0; i < 5; i++)
        finish(&w, jobs[i], &delivered);
    size_t count = take_all(&w, jobs, 50);
    EXPECT_INT(t, count, 10);
    for (size_t i = 0; i < count; i++)
        finish(&w, jobs[i], &delivered);
    count = take_all(&w, jobs, 50);
    EXPECT_INT(t, count, 20); /* the most */
    for (size_t i = 0; i < count; i++)
        finish(&w, jobs[i], &delivered);
    count = take_all(&w, jobs, 50);
    EXPECT_INT(t, count, 20);
    for (size_t i = 0; i < 5; i++)
        finish(&w, jobs[i], &busy);
    for (size_t i = 5; i < count; i++) {
        pass(&w, SECOND);
        finish(&w, jobs[i], i % 2 ? &later : &delivered);
    }
    count = take_all(&w, jobs, 50);
    EXPECT_INT(t, count, 15);
    pass(&w, 3 * MINUTE); /* slow for 5000 bytes */
    for (size_t i = 0; i < count; i++)
        finish(&w, jobs[i], &delivered);
    count = take_all(&w, jobs, 50);
    EXPECT_INT(t, count, 1);
    world_done(&w, t);
}

static void
a_dead_destination_is_probed_by_one(struct test *t)
{
    struct world w;
    struct queue_job jobs[50];
    struct queue_lane_view lane;
    size_t at = 0, probes = 0;

    world_init(&w, 1);
    for (int i = 0; i < 1000; i++)
        add(&w, (struct mail){ .to = "a@hub.test", .from = "" });
    size_t count = take_all(&w, jobs, 50);
    for (size_t i = 0; i < count; i++)
        finish(&w, jobs[i], &dead);
    EXPECT_INT(t, take_all(&w, jobs, 50), 0);
    EXPECT_INT(t, queue_lanes(w.q, w.t, &at, &lane, 1), 1);
    EXPECT(t, lane.dead && lane.ready == 995);
    EXPECT(t, lane.probe_wall > w.t.wall + 4 * MINUTE && lane.probe_wall < w.t.wall + 6 * MINUTE);
    EXPECT_STR(t, lane.reason, S("connection timed out"));
    for (int64_t end = w.t.now + 12 * HOUR; w.t.now < end; pass_until_due(&w)) {
        struct queue_job job = next(&w, ANY);
        if (job.number) {
            probes++;
            EXPECT(t, next(&w, ANY).number == 0); /* alone */
            finish(&w, job, &dead);
        }
    }
    EXPECT(t, probes >= 20 && probes <= 30); /* not a thousand */
    /* An hour before its end it comes back, and all goes. */
    struct queue_job job = next(&w, ANY);
    while (!job.number && pass_until_due(&w))
        job = next(&w, ANY);
    finish(&w, job, &delivered);
    size_t sent = 1;
    do {
        count = take_all(&w, jobs, 50);
        for (size_t i = 0; i < count; i++)
            finish(&w, jobs[i], &delivered);
        sent += count;
    } while (count > 0);
    EXPECT(t, sent > 950);
    world_done(&w, t);
}

static void
mail_in_a_dead_lane_expires(struct test *t)
{
    struct world w;
    struct queue_job job;
    struct spool_settle settle;
    size_t ended = 0, calls = 0;

    world_init(&w, 1);
    for (int i = 0; i < 100; i++)
        add(&w, (struct mail){ .to = "a@hub.test b@hub.test", .from = "" });
    for (int64_t end = w.t.now + 25 * HOUR; w.t.now < end && counts(&w).messages > 0; pass_until_due(&w)) {
        while ((job = next(&w, ANY)).number)
            finish_all(&w, job, &dead);
        arena_reset(&w.arena);
        while (queue_next_settle(w.q, w.t, &w.arena, &settle)) {
            queue_audit(w.q);
            ended += settle.count;
            calls++;
            EXPECT_STR(t, settle.statuses[0].last_reply,
                       S("5.4.7 not delivered within 1 day; the last trouble: connection timed out"));
        }
    }
    EXPECT_INT(t, counts(&w).messages, 0);
    EXPECT_INT(t, counts(&w).failed, 200);
    EXPECT_INT(t, ended, calls * 2); /* both recipients in one record */
    EXPECT(t, ended > 0);
    world_done(&w, t);
}

static void
submitters_take_turns(struct test *t)
{
    static const struct {
        const char *why;
        uint64_t newsletter, letter;
        size_t before; /* at most so many newsletters go before the letter */
    } cases[] = {
        { "small ones", 2000, 2000, 16 },
        { "large newsletters", 1 << 20, 2000, 1 },
        { "a large letter", 2000, 10 << 20, 16 },
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct world w;
        size_t before = 0;

        test_case(t, cases[i].why);
        world_init(&w, 1);
        for (int n = 0; n < 500; n++)
            add(&w, (struct mail){ .to = "a@hub.test", .size = cases[i].newsletter, .client = "192.0.2.50" });
        struct message_id letter =
            add(&w, (struct mail){ .to = "b@hub.test", .size = cases[i].letter, .client = "192.0.2.51" });
        for (;;) {
            struct queue_job job = next(&w, ANY);
            bool found = message_id_eq(job.id, letter);
            finish(&w, job, &delivered);
            if (found)
                break;
            before++;
        }
        EXPECT(t, before <= cases[i].before);
        world_done(&w, t);
    }
}

static void
bytes_are_shared_fairly(struct test *t)
{
    struct world w;
    uint64_t sent[3] = { 0 };
    static const uint64_t sizes[3] = { 3000, 60000, 900000 };
    static const char *const clients[3] = { "10.0.0.1", "10.0.0.2", "10.0.0.3" };

    world_init(&w, 1);
    for (size_t s = 0; s < 3; s++)
        for (int n = 0; n < (s == 0 ? 3000 : 200); n++)
            add(&w, (struct mail){ .to = "a@hub.test", .size = sizes[s], .client = clients[s] });
    struct queue_message_view view;
    for (uint64_t total = 0; total < 6000000;) {
        struct queue_job job;
        CHECK(queue_next_job(w.q, w.t, ANY, 0, &job) && queue_view(w.q, w.t, job.id, 1, &w.arena, &view));
        size_t s = view.size == sizes[0] ? 0 : view.size == sizes[1] ? 1 : 2;
        sent[s] += view.size;
        total += view.size;
        finish(&w, job, &delivered);
    }
    for (size_t s = 0; s < 3; s++) /* a third each, but for what one recipient costs and one large message */
        EXPECT(t, sent[s] > 1200000 && sent[s] < 3000000);
    world_done(&w, t);
}

static void
idle_lanes_go_before_connections(struct test *t)
{
    struct world w;

    world_init(&w, 1);
    for (int i = 0; i < 20; i++)
        add(&w, (struct mail){ .to = "a@hub.test" });
    struct queue_job big = next(&w, ANY), job;
    uint32_t lane = big.lane;
    add(&w, (struct mail){ .to = "a@x.test" });
    add(&w, (struct mail){ .to = "a@y.test" });
    answer_all(&w, S(""));
    for (int i = 0; i < 2; i++) {
        CHECK(queue_next_job(w.q, w.t, ANY, lane, &job));
        EXPECT(t, job.lane != lane); /* nothing of theirs is under way */
    }
    CHECK(queue_next_job(w.q, w.t, ANY, lane, &job));
    EXPECT_INT(t, job.lane, lane);
    world_done(&w, t);
}

static void
limits_hold_for_destination_and_host(struct test *t)
{
    struct world w;
    struct queue_job jobs[100];
    struct mx_host one[] = { { S("h.test"), 10 } }, set[] = { { S("h.test"), 10 }, { S("z.test"), 20 } };

    world_init(&w, 1);
    for (int i = 0; i < 200; i++)
        add(&w, (struct mail){ .to = i % 2 ? "a@one.test" : "a@set.test" });
    answer_one(&w, &(struct mx_result){ .status = MX_OK, .hosts = set, .host_count = 2, .ttl = 86400 });
    answer_one(&w, &(struct mx_result){ .status = MX_OK, .hosts = one, .host_count = 1, .ttl = 86400 });
    for (int round = 0; round < 3; round++) { /* both windows grow to 20 */
        size_t count = take_all(&w, jobs, 100);
        EXPECT_INT(t, count, round == 0 ? 10 : 20); /* but h.test has no more than 20 */
        for (size_t i = 0; i < count; i++)
            finish(&w, jobs[i], &delivered);
    }
    size_t count = take_all(&w, jobs, 100);
    EXPECT_INT(t, count, 20);
    finish(&w, jobs[0], &delivered);
    EXPECT_INT(t, take_all(&w, jobs, 100), 1); /* whoever waited for the host */
    world_done(&w, t);

    world_init(&w, 1); /* two lanes by source address, one destination; and a limit of one's own */
    w.smarthost.connections = 3;
    for (int i = 0; i < 20; i++)
        add(&w, (struct mail){ .to = "a@hub.test" });
    EXPECT_INT(t, take_all(&w, jobs, 100), 3);
    world_done(&w, t);
}

/* They wait for the disk, and one commit of its journal serves all: the limit of connections is not theirs. */
static void
many_go_into_maildirs_at_once(struct test *t)
{
    struct world w;
    struct queue_job jobs[LIMIT_DELIVERIES + 1];
    size_t count = 0;

    world_init(&w, 1);
    w.local.connections = 3;
    for (int i = 0; i < 8 * LIMIT_DELIVERIES; i++)
        add(&w, (struct mail){ .to = "a@home.test" });
    for (int round = 0; round < 7; round++) { /* 5, and twice as many each time */
        count = take_all(&w, jobs, LIMIT_DELIVERIES + 1);
        for (size_t i = 0; i < count && round < 6; i++)
            finish(&w, jobs[i], &delivered);
    }
    EXPECT_INT(t, count, LIMIT_DELIVERIES);
    add(&w, (struct mail){ .to = "a@home.test", .deaths = 1 });
    EXPECT(t, next(&w, QUEUE_ALONE).number == 0);
    finish(&w, jobs[0], &delivered);
    EXPECT(t, next(&w, QUEUE_ALONE).alone); /* a suspect has its turn beside so many */
    world_done(&w, t);
}

static void
rates_are_kept(struct test *t)
{
    struct world w;
    size_t sent = 0;

    world_init(&w, 1);
    w.smarthost.rate = (struct rate){ .count = 60, .per = HOUR };
    for (int i = 0; i < 500; i++)
        add(&w, (struct mail){ .to = "a@hub.test" });
    for (int64_t end = w.t.now + 2 * HOUR; w.t.now < end; pass_until_due(&w)) {
        struct queue_job job;
        while ((job = next(&w, QUEUE_NETWORK)).number) {
            sent++;
            finish(&w, job, &delivered);
        }
    }
    EXPECT_INT(t, sent, 120);
    world_done(&w, t);
}

/* ---- notices ---------------------------------------------------------------------------------------------------- */

static void
failures_share_a_notice(struct test *t)
{
    struct world w;

    world_init(&w, 1);
    add(&w, (struct mail){ .to = "a@hub.test b@home.test c@hub.test" });
    struct queue_job box = next(&w, QUEUE_MAILBOX), n, net = next(&w, QUEUE_NETWORK);
    finish(&w, net, (struct outcome[]){ refused, later });
    EXPECT(t, next(&w, ANY).number == 0); /* waits a moment for the other */
    finish_all(&w, box, &refused);
    EXPECT(t, pass_until_due(&w));
    n = next(&w, ANY);
    EXPECT(t, n.notice && n.notice_kind == NOTICE_OF_FAILURE && n.count == 2);
    EXPECT_STR(t, commit(&w, n), S("0:sent 1:sent"));
    EXPECT(t, next(&w, ANY).number == 0);
    pass(&w, HOUR);
    finish_all(&w, next(&w, ANY), &refused);
    n = next(&w, ANY);
    EXPECT_STR(t, commit(&w, n), S("2:sent"));
    EXPECT_INT(t, counts(&w).messages, 0);
    world_done(&w, t);
}

/* It is no reason to run again and again: 100 % of a core, for as long as no sender could be started. */
static void
a_due_notice_waits_for_a_hand(struct test *t)
{
    struct world w;

    world_init(&w, 1);
    add(&w, (struct mail){ .to = "a@hub.test" });
    finish_all(&w, next(&w, QUEUE_NETWORK), &refused);
    EXPECT(t, next(&w, QUEUE_NETWORK).number == 0);
    EXPECT(t, queue_due(w.q, QUEUE_NETWORK) > w.t.now && queue_due(w.q, 0) > w.t.now);
    EXPECT(t, queue_due(w.q, QUEUE_NOTICE) <= w.t.now);
    EXPECT_STR(t, commit(&w, next(&w, ANY)), S("0:sent"));
    world_done(&w, t);
}

static void
a_notice_waits_only_so_long(struct test *t)
{
    struct world w;

    world_init(&w, 1);
    add(&w, (struct mail){ .to = "a@hub.test b@home.test" });
    struct queue_job box = next(&w, QUEUE_MAILBOX), net = next(&w, QUEUE_NETWORK), n;
    finish(&w, net, &refused);
    EXPECT(t, next(&w, ANY).number == 0);
    pass(&w, 10 * SECOND);
    n = next(&w, ANY);
    EXPECT(t, n.notice && n.count == 1);
    /* Composing fails, then its process dies, twice. */
    queue_notice_failed(w.q, w.t, n.number);
    EXPECT(t, next(&w, ALL).number == 0);
    pass(&w, MINUTE);
    n = next(&w, ANY);
    EXPECT(t, n.notice && !n.alone && !n.bare);
    queue_notice_lost(w.q, w.t, n.number);
    EXPECT(t, next(&w, ANY).number == 0); /* only in a process of its own */
    pass(&w, SECOND);
    n = next(&w, ALL);
    EXPECT(t, n.notice && n.alone && !n.bare);
    queue_notice_lost(w.q, w.t, n.number);
    n = next(&w, ANY);
    EXPECT(t, n.notice && !n.alone && n.bare);
    EXPECT_STR(t, commit(&w, n), S("0:sent"));
    finish(&w, box, &delivered);
    EXPECT_INT(t, counts(&w).messages, 0);
    world_done(&w, t);
}

static void
notices_by_notify_and_outcome(struct test *t)
{
    static const struct outcome relayed = { .kind = OUTCOME_RELAYED, .enhanced = STR("2.0.0"), .reply = STR("250 ok") };
    static const struct outcome passed_on = {
        .kind = OUTCOME_DELIVERED, .enhanced = STR("2.0.0"), .reply = STR("250 ok"), .dsn_passed_on = true };
    static const struct outcome traced = {
        .kind = OUTCOME_RELAYED, .enhanced = STR("2.0.0"), .reply = STR("250 ok"), .dsn_passed_on = true };
    enum {
        NONE = NOTICE_NONE,
        FAILURE = NOTICE_OF_FAILURE,
        SUCCESS = NOTICE_OF_SUCCESS,
        DOUBLE = NOTICE_OF_DOUBLE_BOUNCE
    };
    static const struct {
        const char *why;
        struct mail mail;
        const struct outcome *outcome;
        uint8_t kind;
        struct str settle;
    } cases[] = {
        { "delivered", { .to = "a@home.test" }, &delivered, NONE, STR("") },
        { "delivered, asked", { .to = "a@home.test", .notify = NOTIFY_SUCCESS }, &delivered, SUCCESS,
          STR("0:delivered") },
        { "relayed, asked", { .to = "a@hub.test", .notify = NOTIFY_SUCCESS }, &relayed, SUCCESS, STR("0:relayed") },
        { "passed on", { .to = "a@hub.test", .notify = NOTIFY_SUCCESS }, &passed_on, NONE, STR("") },
        { "relayed, and by DELIVERBY that is told", { .to = "a@hub.test" }, &relayed, SUCCESS, STR("0:relayed") },
        { "relayed, DSN passed on, told all the same", { .to = "a@hub.test", .notify = NOTIFY_SUCCESS }, &traced, SUCCESS, STR("0:relayed") },
        { "relayed, null sender", { .to = "a@hub.test", .from = "" }, &relayed, NONE, STR("") },
        { "relayed, never", { .to = "a@hub.test", .notify = NOTIFY_NEVER }, &relayed, NONE, STR("") },
        { "failed", { .to = "a@hub.test" }, &refused, FAILURE, STR("0:sent") },
        { "failed, only success asked", { .to = "a@hub.test", .notify = NOTIFY_SUCCESS }, &refused, NONE, STR("") },
        { "failed, never", { .to = "a@hub.test", .notify = NOTIFY_NEVER }, &refused, NONE, STR("") },
        { "failed, null sender", { .to = "a@hub.test", .from = "" }, &refused, NONE, STR("") },
        { "list owner before null sender",
         { .to = "a@hub.test/owner@l.test", .from = "" },
         &refused,
         FAILURE,
         STR("0:sent") },
        { "double bounce", { .to = "a@hub.test", .from = "", .notice = true }, &refused, DOUBLE, STR("0:sent") },
        { "not to postmaster himself",
         { .to = "Postmaster@home.test", .from = "", .notice = true },
         &refused,
         NONE,
         STR("") },
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct world w;

        test_case(t, cases[i].why);
        world_init(&w, 1);
        add(&w, cases[i].mail);
        finish(&w, next(&w, ANY), cases[i].outcome);
        struct queue_job n = next(&w, ANY);
        EXPECT_INT(t, n.notice_kind, cases[i].kind);
        if (n.number)
            EXPECT_STR(t, commit(&w, n), cases[i].settle);
        EXPECT_INT(t, counts(&w).messages, 0);
        EXPECT_INT(t, counts(&w).double_bounces_dropped, cases[i].mail.notice && cases[i].kind == NONE);
        world_done(&w, t);
    }
}

/* A reload took the postmaster away. */
static void
a_double_bounce_that_is_dropped_ends_at_once(struct test *t)
{
    struct world w;
    struct spool_settle settle;

    world_init(&w, 1);
    add(&w, (struct mail){ .to = "a@hub.test", .from = "", .notice = true });
    EXPECT_STR(t, finish(&w, next(&w, ANY), &refused), S("0:owed"));
    w.settings.postmaster = S("");
    queue_set_settings(w.q, w.t, &w.settings);
    EXPECT_INT(t, next(&w, QUEUE_NOTICE).number, 0);
    EXPECT_INT(t, counts(&w).ending, 1);
    EXPECT(t, queue_due(w.q, 0) <= w.t.now);
    EXPECT(t, queue_next_settle(w.q, w.t, &w.arena, &settle));
    EXPECT_STR(t, status_text(&w, &settle), S("0:silent"));
    EXPECT_INT(t, queue_due(w.q, ANY), INT64_MAX);
    EXPECT_INT(t, counts(&w).double_bounces_dropped, 1);
    world_done(&w, t);
}

static void
expansion_owes_its_notice(struct test *t)
{
    struct world w;
    static const struct recipient_status statuses[] = {
        { .index = 0, .state = STATE_EXPANDED, .notices = NOTICE_SUCCESS_OWED },
        { .index = 1, .state = STATE_PENDING },
        { .index = 2, .state = STATE_EXPANDED },
    };

    world_init(&w, 1);
    add(&w, (struct mail){
                .to = "list@home.test a@home.test other@home.test", .notify = NOTIFY_SUCCESS, .statuses = statuses });
    struct queue_job job = next(&w, QUEUE_MAILBOX);
    EXPECT(t, job.count == 1 && job.recipients[0] == 1);
    finish(&w, job, &later);
    struct queue_job n = next(&w, ANY);
    EXPECT(t, n.notice_kind == NOTICE_OF_SUCCESS && n.count == 1);
    EXPECT_STR(t, commit(&w, n), S("0:expanded"));
    EXPECT_INT(t, counts(&w).expanded, 2);
    EXPECT_INT(t, counts(&w).accepted, 3);
    world_done(&w, t);
}

/* RFC 4865: it is nobody's before its time, and begins to age then. */
static void
held_mail_goes_at_its_time(struct test *t)
{
    static const struct {
        const char *why;
        struct mail mail;
        int64_t lifetime;
    } cases[] = {
        { "soon", { .to = "a@hub.test", .hold = 3 * SECOND }, 5 * DAY },
        { "later than its delay would be told", { .to = "a@hub.test", .trusted = true, .hold = DAY }, 5 * DAY },
        { "later than its sender wants to hear of a delay", { .to = "a@hub.test", .within = HOUR, .hold = 2 * HOUR }, 5 * DAY },
        { "for longer than it lives", { .to = "a@hub.test", .trusted = true, .hold = 30 * DAY }, 5 * DAY },
        { "from the null sender", { .to = "a@hub.test", .from = "", .hold = 2 * DAY }, 1 * DAY },
        { "to come in time, from then on", { .to = "a@hub.test", .within = HOUR, .or_return = true, .hold = DAY }, 1 * HOUR },
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct world w;
        struct str end = S("0:pending");
        struct queue_message_view view;
        struct spool_settle settle;
        struct queue_job job;

        test_case(t, cases[i].why);
        world_init(&w, 1);
        int64_t release = w.t.now + cases[i].mail.hold, expires = w.t.wall + cases[i].mail.hold + cases[i].lifetime;
        struct message_id id = add(&w, cases[i].mail);
        EXPECT(t, queue_view(w.q, w.t, id, 1, &w.arena, &view));
        EXPECT_INT(t, view.expires_wall, expires);
        queue_start_all(w.q, w.t); /* what waits for a release does not wait for a better time */
        EXPECT_INT(t, queue_start_domain(w.q, w.t, S("hub.test")), 1);
        EXPECT(t, queue_hold(w.q, w.t, id, S("x"), &settle) && queue_release(w.q, w.t, id, &settle));
        while (!(job = next(&w, ANY)).number && w.t.now < release && pass_until_due(&w))
            ;
        EXPECT_INT(t, w.t.now, release);
        while (str_eq(end, S("0:pending"))) {
            if (job.notice)
                (void)commit(&w, job); /* of its delay */
            else if (job.number)
                end = finish(&w, job, &later);
            else if (!pass_until_due(&w))
                break;
            job = next(&w, ANY);
        }
        EXPECT_INT(t, w.t.wall, expires);
        world_done(&w, t);
        world_init(&w, 1);
        id = add(&w, cases[i].mail);
        EXPECT(t, !next(&w, ANY).number && queue_retry(w.q, w.t, id));
        job = next(&w, ANY);
        EXPECT(t, job.number > 0 && !job.notice); /* an operator means this one, and now */
        EXPECT_STR(t, finish(&w, job, &delivered), S("0:delivered"));
        world_done(&w, t);
        world_init(&w, 1); /* that attempt was deferred, and the store starts again */
        struct recipient_status tried = { .state = STATE_PENDING, .attempts = 1, .next_wall = w.t.wall + 5 * MINUTE };
        struct mail mail = cases[i].mail;
        mail.statuses = &tried;
        mail.age = 10 * DAY; /* longer than it lives; it was held most of it */
        id = add(&w, mail);
        EXPECT(t, !next(&w, ANY).number);
        pass(&w, 5 * MINUTE);
        job = next(&w, ANY);
        EXPECT(t, job.number > 0 && !job.notice);
        EXPECT(t, queue_view(w.q, w.t, id, 1, &w.arena, &view));
        EXPECT_INT(t, view.expires_wall, w.t.wall - 5 * MINUTE + cases[i].lifetime);
        EXPECT_STR(t, finish(&w, job, &delivered), S("0:delivered"));
        world_done(&w, t);
    }
}

static void
delay_is_told_once_after_four_hours(struct test *t)
{
    static const struct {
        const char *why;
        struct mail mail;
        bool told;
    } cases[] = {
        { "asked", { .to = "a@hub.test b@hub.test", .notify = NOTIFY_DELAY }, true },
        { "our user", { .to = "a@hub.test b@hub.test", .trusted = true }, true },
        { "a stranger", { .to = "a@hub.test b@hub.test" }, false },
        { "null sender", { .to = "a@hub.test b@hub.test", .from = "", .notify = NOTIFY_DELAY }, false },
        { "by a lane that is dead", { .to = "a@dead.test b@dead.test", .trusted = true }, true },
        { "by a domain that DNS does not find", { .to = "a@lost.test b@lost.test", .trusted = true }, true },
        { "as soon as its sender says", { .to = "a@hub.test b@hub.test", .trusted = true, .within = 30 * MINUTE }, true },
        { "as soon as a stranger says", { .to = "a@hub.test b@hub.test", .within = 30 * MINUTE }, true },
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct world w;
        size_t notices = 0;
        int64_t told_at = 0;
        struct str to = str_from_cstr(cases[i].mail.to), domain;

        test_case(t, cases[i].why);
        world_init(&w, 1);
        int64_t born = w.t.now;
        add(&w, cases[i].mail);
        if (str_find(to, S("dead")) < to.len) /* others killed it before */
            for (int n = 0; n < 3; n++)
                add(&w, (struct mail){ .to = "a@dead.test", .from = "" });
        for (int64_t end = w.t.now + 20 * HOUR; w.t.now < end; pass_until_due(&w)) {
            while (queue_next_question(w.q, w.t, &domain)) {
                struct mx_host host = { S("mx.test"), 1 };
                bool lost = str_eq(domain, S("lost.test"));
                queue_answer(
                    w.q, w.t, domain,
                    &(struct mx_result){ .status = lost ? MX_TEMPORARY : MX_OK, .hosts = &host, .host_count = 1 });
            }
            struct queue_job job;
            while ((job = next(&w, ANY)).number) {
                if (job.notice) {
                    EXPECT_INT(t, job.notice_kind, NOTICE_OF_DELAY);
                    EXPECT_INT(t, job.count, 2);
                    int64_t left = 5 * DAY - (w.t.now - born);
                    EXPECT(t, job.expires_wall > w.t.wall + left - HOUR && job.expires_wall <= w.t.wall + left);
                    EXPECT_STR(t, commit(&w, job), S("0:pending 1:pending"));
                    notices++;
                    told_at = w.t.now;
                } else {
                    finish_all(&w, job, str_find(to, S("dead")) < to.len ? &dead : &later);
                }
            }
            arena_reset(&w.arena);
        }
        EXPECT_INT(t, notices, cases[i].told);
        if (cases[i].told)
            EXPECT_INT(t, told_at - born, cases[i].mail.within ? cases[i].mail.within : 4 * HOUR);
        world_done(&w, t);
    }
}

/* While its delay notice is being committed, a recipient cannot leave: or it could be pending again after it ended. */
static void
nothing_leaves_while_its_delay_is_told(struct test *t)
{
    struct world w;
    struct spool_settle settle, ignored;

    world_init(&w, 1);
    struct message_id id = add(&w, (struct mail){ .to = "a@hub.test b@hub.test", .trusted = true, .age = 5 * HOUR });
    finish(&w, next(&w, QUEUE_NETWORK), (struct outcome[]){ later, later });
    struct queue_job n = next(&w, ANY);
    EXPECT_INT(t, n.notice_kind, NOTICE_OF_DELAY);
    EXPECT(t, queue_notice_settle(w.q, w.t, n.number, &w.arena, &settle));
    queue_audit(w.q);
    queue_retry(w.q, w.t, id);
    EXPECT(t, next(&w, QUEUE_NETWORK).number == 0);
    queue_notice_committed(w.q, w.t, n.number);
    EXPECT(t, queue_retry(w.q, w.t, id));
    finish(&w, next(&w, QUEUE_NETWORK), (struct outcome[]){ delivered, later });
    EXPECT(t, next(&w, ANY).number == 0);
    world_done(&w, t);

    world_init(&w, 1); /* in flight when its notice comes: told by none, and asked again */
    id = add(&w, (struct mail){ .to = "a@hub.test", .trusted = true, .age = 5 * HOUR });
    finish(&w, next(&w, QUEUE_NETWORK), &later);
    n = next(&w, QUEUE_NOTICE);
    queue_retry(w.q, w.t, id);
    struct queue_job job = next(&w, QUEUE_NETWORK);
    EXPECT(t, job.number && !queue_notice_settle(w.q, w.t, n.number, &w.arena, &settle));
    queue_notice_failed(w.q, w.t, n.number);
    finish(&w, job, &later);
    n = next(&w, QUEUE_NOTICE);
    EXPECT(t, n.number && n.notice_kind == NOTICE_OF_DELAY);
    /* Held while it is told. */
    EXPECT(t, queue_notice_settle(w.q, w.t, n.number, &w.arena, &settle));
    EXPECT(t, queue_hold(w.q, w.t, id, S("x"), &ignored));
    queue_notice_committed(w.q, w.t, n.number);
    queue_audit(w.q);
    EXPECT_INT(t, counts(&w).held, 1);
    world_done(&w, t);
}

/* Two notices of one message's delay at a time: neither tells what the other does, nor takes it away. */
static void
notices_of_delay_do_not_meet(struct test *t)
{
    struct world w;
    struct spool_settle settle;

    world_init(&w, 1);
    struct message_id id = add(&w, (struct mail){ .to = "a@hub.test b@home.test", .trusted = true, .age = 5 * HOUR });
    struct queue_job b = next(&w, QUEUE_MAILBOX);
    finish(&w, next(&w, QUEUE_NETWORK), &later);
    struct queue_job first = next(&w, QUEUE_NOTICE);
    EXPECT(t, queue_notice_settle(w.q, w.t, first.number, &w.arena, &settle));
    EXPECT_STR(t, status_text(&w, &settle), S("0:pending"));
    finish(&w, b, &later);
    struct queue_job second = next(&w, QUEUE_NOTICE);
    EXPECT(t, second.count == 1 && second.recipients[0] == 1);
    queue_notice_failed(w.q, w.t, first.number);
    EXPECT_STR(t, commit(&w, second), S("1:pending"));
    pass(&w, MINUTE);
    EXPECT_STR(t, commit(&w, next(&w, QUEUE_NOTICE)), S("0:pending"));
    EXPECT(t, queue_retry(w.q, w.t, id));
    EXPECT_INT(t, next(&w, QUEUE_NETWORK).count, 1);
    EXPECT_INT(t, next(&w, QUEUE_MAILBOX).count, 1);
    EXPECT(t, next(&w, ANY).number == 0);
    world_done(&w, t);
}

/* ---- operators and poison ---------------------------------------------------------------------------------------- */

static void
poison_is_held_after_two_deaths(struct test *t)
{
    struct world w;
    struct spool_settle settle;

    world_init(&w, 1);
    struct message_id bad = add(&w, (struct mail){ .to = "a@hub.test b@hub.test" });
    add(&w, (struct mail){ .to = "c@hub.test" });
    struct queue_job one = next(&w, ANY), two = next(&w, ANY);
    queue_job_lost(w.q, w.t, one.number, &w.arena, &settle);
    EXPECT_STR(t, status_text(&w, &settle), S("0:pending 1:pending deaths=1"));
    queue_job_lost(w.q, w.t, two.number, &w.arena, &settle);
    queue_audit(w.q);
    EXPECT_INT(t, counts(&w).suspects, 2);
    EXPECT(t, next(&w, ANY).number == 0); /* suspects go alone */
    one = next(&w, ALL);
    EXPECT(t, one.alone && message_id_eq(one.id, bad));
    EXPECT(t, next(&w, ALL).number == 0); /* one by one */
    queue_job_lost(w.q, w.t, one.number, &w.arena, &settle);
    EXPECT_STR(t, status_text(&w, &settle), S("0:pending 1:pending deaths=2 held=1"));
    queue_audit(w.q);
    two = next(&w, ALL);
    EXPECT(t, two.alone);
    EXPECT_STR(t, finish(&w, two, &delivered), S("0:delivered deaths=0")); /* the innocent one */
    EXPECT(t, next(&w, ALL).number == 0);
    EXPECT_INT(t, counts(&w).held, 2);
    EXPECT(t, !pass_until_due(&w)); /* held mail waits for people only */
    EXPECT(t, queue_release(w.q, w.t, bad, &settle));
    EXPECT_STR(t, status_text(&w, &settle), S(" deaths=1 held=0"));
    one = next(&w, ALL);
    EXPECT(t, one.alone && one.attempts == 2);
    EXPECT_STR(t, finish(&w, one, (struct outcome[]){ delivered, later }), S("0:delivered 1:pending deaths=0"));
    EXPECT(t, pass_until_due(&w));
    EXPECT(t, next(&w, ANY).number > 0); /* no suspect any more */
    EXPECT_INT(t, counts(&w).jobs_lost, 3);
    world_done(&w, t);
}

static void
several_jobs_of_one_message_die_once(struct test *t)
{
    struct world w;
    struct spool_settle settle;

    world_init(&w, 1);
    add(&w, (struct mail){ .to = "a@hub.test b@x.test c@y.test" });
    struct queue_job one = next(&w, ANY);
    answer_all(&w, S(""));
    struct queue_job two = next(&w, ANY);
    queue_job_lost(w.q, w.t, one.number, &w.arena, &settle);
    queue_audit(w.q); /* c, which was ready, waits for a process of its own too */
    queue_job_lost(w.q, w.t, two.number, &w.arena, &settle);
    EXPECT_STR(t, status_text(&w, &settle), S("1:pending"));
    EXPECT(t, next(&w, ANY).number == 0);
    for (int i = 0; i < 3; i++) {
        one = next(&w, ALL);
        EXPECT(t, one.number > 0 && one.alone == (i == 0));
        finish(&w, one, &delivered);
    }
    world_done(&w, t);
}

static void
operators_decide(struct test *t)
{
    struct world w;
    struct spool_settle settle;
    struct message_id none = { 7, 7 };

    world_init(&w, 1);
    EXPECT(t, !queue_hold(w.q, w.t, none, S(""), &settle) && !queue_release(w.q, w.t, none, &settle) &&
                  !queue_retry(w.q, w.t, none) && !queue_bounce(w.q, w.t, none) && !queue_remove(w.q, w.t, none));

    test_case(t, "hold and release");
    struct message_id id = add(&w, (struct mail){ .to = "a@hub.test b@lost.test c@home.test" });
    struct queue_job job = next(&w, QUEUE_MAILBOX);
    EXPECT(t, queue_hold(w.q, w.t, id, S("who is this?"), &settle));
    EXPECT(t, settle.set_held && settle.held);
    EXPECT_STR(t, settle.held_why, S("who is this?"));
    EXPECT(t, next(&w, ALL).number == 0);
    EXPECT(t, queue_job_is_stopped(w.q, job.number) && queue_is_under_way(w.q, id));
    finish(&w, job, &later); /* joins the others */
    EXPECT(t, !queue_is_under_way(w.q, id) && !queue_is_under_way(w.q, none));
    EXPECT_INT(t, counts(&w).held, 3);
    EXPECT(t, queue_release(w.q, w.t, id, &settle));
    EXPECT(t, settle.set_held && !settle.held);
    EXPECT_INT(t, counts(&w).held, 0);
    EXPECT(t, next(&w, QUEUE_NETWORK).number == 2);
    EXPECT(t, !queue_job_is_stopped(w.q, 2));

    test_case(t, "remove takes what comes back too");
    EXPECT(t, queue_remove(w.q, w.t, id));
    EXPECT(t, queue_job_is_stopped(w.q, 2));
    queue_audit(w.q);
    EXPECT(t, queue_next_settle(w.q, w.t, &w.arena, &settle));
    EXPECT_STR(t, status_text(&w, &settle), S("1:removed 2:removed"));
    queue_job_returned(w.q, w.t, 2);
    EXPECT(t, queue_next_settle(w.q, w.t, &w.arena, &settle));
    EXPECT_STR(t, status_text(&w, &settle), S("0:removed"));
    EXPECT_INT(t, counts(&w).removed, 3);
    EXPECT(t, !queue_has(w.q, id));

    test_case(t, "bounce tells the sender");
    id = add(&w, (struct mail){ .to = "a@hub.test" });
    EXPECT(t, queue_bounce(w.q, w.t, id));
    EXPECT(t, queue_next_settle(w.q, w.t, &w.arena, &settle));
    EXPECT_STR(t, status_text(&w, &settle), S("0:owed"));
    EXPECT_STR(t, commit(&w, next(&w, ANY)), S("0:sent"));

    test_case(t, "remove tells nobody, also of what failed before");
    id = add(&w, (struct mail){ .to = "a@hub.test b@home.test" });
    EXPECT_STR(t, finish(&w, next(&w, QUEUE_NETWORK), &refused), S("0:owed"));
    EXPECT(t, queue_remove(w.q, w.t, id));
    queue_audit(w.q);
    EXPECT(t, queue_next_settle(w.q, w.t, &w.arena, &settle));
    EXPECT_STR(t, status_text(&w, &settle), S("0:silent 1:removed"));
    EXPECT(t, !queue_has(w.q, id) && next(&w, ANY).number == 0);
    id = add(&w, (struct mail){ .to = "a@hub.test" });
    EXPECT_STR(t, finish(&w, next(&w, ANY), &refused), S("0:owed"));
    job = next(&w, ANY);
    EXPECT(t, job.notice && queue_remove(w.q, w.t, id));
    queue_audit(w.q);
    EXPECT(t, !queue_next_settle(w.q, w.t, &w.arena, &settle)); /* it may be on its way to the spool */
    queue_notice_failed(w.q, w.t, job.number);
    queue_audit(w.q);
    EXPECT(t, queue_next_settle(w.q, w.t, &w.arena, &settle));
    EXPECT_STR(t, status_text(&w, &settle), S("0:silent"));
    EXPECT(t, !queue_has(w.q, id) && next(&w, ANY).number == 0);
    id = add(&w, (struct mail){ .to = "a@hub.test" });
    job = next(&w, ANY);
    EXPECT(t, queue_bounce(w.q, w.t, id));
    EXPECT(t, queue_job_is_stopped(w.q, job.number));
    EXPECT(t, queue_remove(w.q, w.t, id));
    EXPECT_STR(t, finish(&w, job, &refused), S("0:silent")); /* refused while it was being removed */
    EXPECT(t, !queue_has(w.q, id));
    id = add(&w, (struct mail){ .to = "a@hub.test", .from = "", .notice = true });
    job = next(&w, ANY);
    EXPECT(t, queue_remove(w.q, w.t, id));
    EXPECT_STR(t, finish(&w, job, &refused), S("0:silent"));
    EXPECT_INT(t, counts(&w).double_bounces_dropped, 0); /* nobody is missing who should have been told */

    test_case(t, "retry comes before its time");
    id = add(&w, (struct mail){ .to = "a@hub.test" });
    finish(&w, next(&w, ANY), &later);
    EXPECT(t, next(&w, ANY).number == 0);
    EXPECT(t, queue_release(w.q, w.t, id, &settle)); /* it was not held */
    EXPECT(t, next(&w, ANY).number == 0);
    EXPECT(t, queue_retry(w.q, w.t, id));
    finish(&w, next(&w, ANY), &later);

    test_case(t, "a domain is started, with its dead lane");
    for (int i = 0; i < 4; i++) {
        queue_retry(w.q, w.t, id);
        job = next(&w, ANY);
        if (job.number)
            finish(&w, job, &dead);
    }
    EXPECT_INT(t, queue_start_domain(w.q, w.t, S("hub.test")), 1);
    EXPECT_INT(t, queue_start_domain(w.q, w.t, S("nobody.test")), 0);
    job = next(&w, ANY);
    EXPECT(t, message_id_eq(job.id, id));
    finish(&w, job, &later);
    test_case(t, "not twice in a minute");
    EXPECT_INT(t, queue_start_domain(w.q, w.t, S("hub.test")), 1);
    EXPECT(t, next(&w, ANY).number == 0);
    w.t.now += MINUTE;
    EXPECT_INT(t, queue_start_domain(w.q, w.t, S("hub.test")), 1);
    job = next(&w, ANY);
    EXPECT(t, job.number != 0);
    finish(&w, job, &later);

    test_case(t, "all are started");
    for (int i = 0; i < 30; i++)
        add(&w, (struct mail){ .to = "a@hub.test b@home.test" });
    while ((job = next(&w, ANY)).number)
        finish_all(&w, job, &later);
    EXPECT_INT(t, counts(&w).waiting, 61);
    queue_start_all(w.q, w.t);
    EXPECT(t, queue_due(w.q, ANY) <= w.t.now);
    size_t started = 0;
    while ((job = next(&w, ANY)).number) {
        started++;
        finish_all(&w, job, &later); /* and not started again */
    }
    EXPECT_INT(t, started, 61);
    world_done(&w, t);
}

/* ---- everything at once ------------------------------------------------------------------------------------------ */

enum { RANDOM_JOBS = 64, RANDOM_MESSAGES = 1000 };

struct chaos {
    struct world w;
    struct prng prng;
    struct queue_job jobs[RANDOM_JOBS];
    size_t job_count;
    struct message_id ids[RANDOM_MESSAGES];
    size_t id_count;
    struct str questions[QUEUE_QUESTIONS_MAX];
    size_t question_count;
    uint64_t added, ended; /* recipients, as a spool would have counted them */
    struct map states;     /* "ID.INDEX" to the state, + 1 */
};

static uint64_t
dice(struct chaos *c, uint64_t sides)
{
    return prng_below(&c->prng, sides);
}

/* A spool knows no way back, and nothing that ends twice. */
static void
record(struct chaos *c, const struct spool_settle *s)
{
    for (size_t i = 0; i < s->count; i++) {
        const struct recipient_status *status = &s->statuses[i];
        struct state {
            struct message_id id;
            uint64_t index, state;
        } key = { s->id, status->index, 0 }, *state = map_get(&c->states, str_new(&key, 24));
        CHECK(state);
        bool was_ended = recipient_state_is_ended((enum recipient_state)state->state);
        bool ended = recipient_state_is_ended((enum recipient_state)status->state);
        CHECK(!was_ended || state->state == status->state);
        CHECK(state->state != STATE_FAILED_OWED || status->state == STATE_FAILED_SENT ||
              status->state == STATE_FAILED_SILENT);
        c->ended += !was_ended && ended;
        state->state = status->state;
    }
}

static void
chaos_add(struct chaos *c)
{
    static const char *const domains[] = { "hub.test", "home.test", "x.test", "y.test", "z.test", "none.test",
                                           "big1.test", "big2.test", "lost.test" };
    char to[400];
    struct text text = text_init(to, sizeof to);
    size_t count = 1 + dice(c, dice(c, 4) == 0 ? 8 : 2);
    static const char *const clients[] = { "10.0.0.1", "10.0.0.2", "10.0.0.3" };

    for (size_t i = 0; i < count; i++)
        text_putf(&text, "u%zu@%s%s ", i, domains[dice(c, 9)], dice(c, 8) == 0 ? "/owner@l.test" : "");
    text_cstr(&text);
    struct message_id id = add(&c->w, (struct mail){
        .to = to,
        .from = dice(c, 4) == 0 ? "" : NULL,
        .notify = (uint8_t)dice(c, 16),
        .trusted = dice(c, 2),
        .notice = dice(c, 10) == 0,
        .size = 1 + dice(c, 100000),
        .client = clients[dice(c, 3)],
        .age = (int64_t)dice(c, 5) * 20 * HOUR,
    });
    for (size_t i = 0; i < count; i++) {
        uint64_t *state = mem_alloc(&c->w.mem, 32);
        state[0] = id.hi, state[1] = id.lo, state[2] = i, state[3] = STATE_PENDING;
        map_put(&c->states, str_new(state, 24), state);
    }
    c->added += count;
    c->ids[c->id_count++] = id;
}

static void
chaos_finish(struct chaos *c)
{
    struct world *w = &c->w;
    size_t at = dice(c, c->job_count);
    struct queue_job job = c->jobs[at];
    struct spool_settle settle = { 0 };
    struct outcome outcomes[LIMIT_RCPT_PER_JOB];
    static const struct outcome relayed = { .kind = OUTCOME_RELAYED, .enhanced = STR("2.0.0"), .reply = STR("250 ok") };

    c->jobs[at] = c->jobs[--c->job_count];
    if (job.notice) {
        switch (dice(c, 8)) {
        case 0: queue_notice_failed(w->q, w->t, job.number); return;
        case 1: queue_notice_lost(w->q, w->t, job.number); return;
        case 2: queue_notice_returned(w->q, w->t, job.number); return;
        default:
            if (!queue_notice_settle(w->q, w->t, job.number, &w->arena, &settle)) {
                queue_notice_failed(w->q, w->t, job.number);
            } else if (dice(c, 8) == 0) {
                queue_tick(w->q, w->t);
                queue_audit(w->q);
                queue_notice_failed(w->q, w->t, job.number);
            } else {
                queue_notice_committed(w->q, w->t, job.number);
                record(c, &settle);
            }
            return;
        }
    }
    switch (dice(c, 12)) {
    case 0:
        queue_job_lost(w->q, w->t, job.number, &w->arena, &settle);
        break;
    case 1:
        queue_job_returned(w->q, w->t, job.number);
        return;
    case 2:
    case 3:
        for (size_t i = 0; i < job.count; i++)
            outcomes[i] = dead;
        queue_outcome(w->q, w->t, job.number, outcomes, &w->arena, &settle);
        break;
    default:
        for (size_t i = 0; i < job.count; i++) {
            const struct outcome *kinds[] = { &delivered, &relayed, &refused, &later, &busy, &delivered };
            outcomes[i] = *kinds[dice(c, 6)];
        }
        queue_outcome(w->q, w->t, job.number, outcomes, &w->arena, &settle);
    }
    record(c, &settle);
}

static void
chaos_answer(struct chaos *c)
{
    struct world *w = &c->w;
    uint16_t second = (uint16_t)(10 + dice(c, 2));
    struct mx_host hosts[3] = { { S("p.test"), 10 }, { S("q.test"), second }, { S("r.test"), 20 } };
    struct mx_result answer = { .status = MX_OK,
                               .ttl = (uint32_t)dice(c, 7200),
                               .hosts = hosts,
                               .host_count = 1 + dice(c, 3),
                               .why = S("because") };
    struct str domain = c->questions[--c->question_count];

    if (str_starts(domain, S("big")))
        answer.host_count = 3;
    if (dice(c, 6) == 0)
        answer.status = (uint8_t)(MX_NULL + dice(c, 4));
    queue_answer(w->q, w->t, domain, &answer);
}

static void
chaos_step(struct chaos *c)
{
    struct world *w = &c->w;
    struct spool_settle settle;
    struct message_id id = c->ids[c->id_count ? dice(c, c->id_count) : 0];

    switch (dice(c, 24)) {
    case 0:
    case 1:
        if (counts(w).messages < 150 && c->id_count < RANDOM_MESSAGES)
            chaos_add(c);
        break;
    case 2:
    case 3:
    case 4:
    case 5:
    case 6:
    case 7:
        if (c->job_count < RANDOM_JOBS && queue_next_job(w->q, w->t, 1 + (unsigned)dice(c, 15), (uint32_t)dice(c, 5),
                                                         &c->jobs[c->job_count]))
            c->job_count++;
        break;
    case 8:
    case 9:
    case 10:
    case 11:
    case 12:
        if (c->job_count > 0)
            chaos_finish(c);
        break;
    case 13:
        if (c->question_count < QUEUE_QUESTIONS_MAX &&
            queue_next_question(w->q, w->t, &c->questions[c->question_count]))
            c->question_count++;
        break;
    case 14:
        if (c->question_count > 0)
            chaos_answer(c);
        break;
    case 15:
    case 16:
        while (queue_next_settle(w->q, w->t, &w->arena, &settle))
            record(c, &settle);
        break;
    case 17: pass(w, (int64_t)dice(c, 10 * SECOND)); break;
    case 18: dice(c, 20) ? pass_until_due(w) : (pass(w, (int64_t)dice(c, 10 * HOUR)), true); break;
    case 19:
        switch (dice(c, 6)) {
        case 0: queue_hold(w->q, w->t, id, S("why not"), &settle); break;
        case 1: queue_bounce(w->q, w->t, id); break;
        case 2: queue_remove(w->q, w->t, id); break;
        default: queue_release(w->q, w->t, id, &settle); break;
        }
        break;
    case 20: queue_retry(w->q, w->t, id); break;
    case 21:
        switch (dice(c, 8)) {
        case 0: queue_start_all(w->q, w->t); break;
        case 1: queue_start_domain(w->q, w->t, S("hub.test")); break;
        case 2: queue_host_down(w->q, w->t, S("p.test")); break;
        case 3: queue_host_up(w->q, S("p.test")); break;
        case 4: w->t.wall += (int64_t)dice(c, 2 * HOUR) - HOUR; break;
        default: break;
        }
        break;
    case 22:
        if (dice(c, 30) == 0) {
            w->smarthost.port = (uint16_t)(25 + dice(c, 2));
            w->settings.postmaster = dice(c, 2) ? S("postmaster@home.test") : S("");
            w->mx.helo = dice(c, 2) ? S("a.test") : S("b.test");
            w->mx.kind = dice(c, 3) ? ROUTE_MX : ROUTE_SMTP;
            w->mx.host = w->mx.kind == ROUTE_MX ? S("") : S("10.0.0.8");
            queue_set_settings(w->q, w->t, &w->settings);
        }
        break;
    default: queue_tick(w->q, w->t); break;
    }
    queue_audit(w->q);
}

/* Whatever the world did, in the end everything has ended: nothing waits for what never comes. */
static void
chaos_drain(struct chaos *c, struct test *t)
{
    struct world *w = &c->w;
    struct spool_settle settle;

    for (int n = 0; n < 200000 && counts(w).messages > 0; n++) {
        while (c->question_count < QUEUE_QUESTIONS_MAX &&
               queue_next_question(w->q, w->t, &c->questions[c->question_count]))
            c->question_count++;
        while (c->question_count > 0)
            chaos_answer(c);
        while (queue_next_settle(w->q, w->t, &w->arena, &settle))
            record(c, &settle);
        while (c->job_count < RANDOM_JOBS && queue_next_job(w->q, w->t, ALL, 0, &c->jobs[c->job_count]))
            c->job_count++;
        if (c->job_count > 0)
            chaos_finish(c);
        else if (!queue_tick(w->q, w->t) && !pass_until_due(w) && c->question_count == 0)
            break;
        for (size_t i = 0; counts(w).held > 0 && i < c->id_count; i++) /* poison is held again and again */
            queue_release(w->q, w->t, c->ids[i], &settle);
        queue_audit(w->q);
        arena_reset(&w->arena);
    }
    EXPECT_INT(t, counts(w).messages, 0);
    EXPECT_INT(t, counts(w).pending, 0);
    EXPECT_INT(t, c->ended, c->added);
    EXPECT_INT(t, counts(w).accepted, c->added);
}

static uint64_t
run_chaos(struct test *t, uint64_t seed)
{
    struct chaos c = { .job_count = 0 };
    struct map_slot *slot;
    char why[40];
    struct text text = text_init(why, sizeof why);

    text_putf(&text, "seed %llu", (unsigned long long)seed);
    test_case(t, text_cstr(&text));
    world_init(&c.w, seed);
    prng_seed(&c.prng, seed);
    map_init(&c.states, &c.w.mem, seed);
    for (int i = 0; i < 6000; i++) {
        chaos_step(&c);
        if (i % 100 == 0)
            arena_reset(&c.w.arena);
    }
    EXPECT(t, counts(&c.w).accepted == c.added && c.added > 100);
    chaos_drain(&c, t);
    uint64_t trail = c.added * 1000003 + counts(&c.w).attempts * 31 + (uint64_t)c.w.t.now;
    for (size_t at = 0; (slot = map_next(&c.states, &at));)
        mem_free(&c.w.mem, slot->value, 32);
    map_done(&c.states);
    world_done(&c.w, t);
    test_case(t, NULL);
    return trail;
}

static void
nothing_is_lost_whatever_happens(struct test *t)
{
    for (uint64_t seed = 1; seed <= 12; seed++)
        run_chaos(t, seed);
}

static void
a_seed_repeats_itself(struct test *t)
{
    EXPECT(t, run_chaos(t, 77) == run_chaos(t, 77));
    EXPECT(t, run_chaos(t, 77) != run_chaos(t, 78));
}

/* ---- size -------------------------------------------------------------------------------------------------------- */

static void
messages_are_small(struct test *t)
{
    enum { MESSAGES = 200000 };
    static const char *const states[] = { "ready", "waiting" };

    for (int deferred = 0; deferred < 2; deferred++) {
        struct world w;
        struct queue_job job;
        struct queue_message_view view;
        struct recipient_status status = { .state = STATE_PENDING, .attempts = 1 };
        char to[40];

        test_case(t, states[deferred]);
        world_init(&w, 1);
        size_t before = mem_in_use(&w.mem);
        status.next_wall = deferred ? w.t.wall + HOUR : 0;
        struct message_id id = { 0 };
        for (int i = 0; i < MESSAGES; i++) {
            struct text text = text_init(to, sizeof to);
            text_putf(&text, "user@d%d.hub.test", i % 500);
            text_cstr(&text);
            id = add(&w, (struct mail){ .to = to, .statuses = &status });
        }
        size_t each = (mem_in_use(&w.mem) - before) / MESSAGES;
        EXPECT(t, each <= (SLAB_MANY > 1 ? 176 : 256)); /* a sanitizer wants each by itself */
        EXPECT_INT(t, counts(&w).messages, MESSAGES);
        EXPECT(t, queue_view(w.q, w.t, id, 1, &w.arena, &view));
        EXPECT_INT(t, queue_next_job(w.q, w.t, ANY, 0, &job), !deferred);
        /* An operator's list of lanes or domains costs its page. */
        struct queue_domain_view domains[20];
        size_t at = 0;
        EXPECT_INT(t, queue_domains(w.q, &at, domains, 20), 20);
        EXPECT(t, at < 200);
        world_done(&w, t);
    }
}

/* A million may wait for one answer: nobody else waits until all of them have their places. */
static void
an_answer_for_many_is_worked_off_bit_by_bit(struct test *t)
{
    enum { MANY = 3000 };
    struct world w;
    size_t ready = 0, ticks = 0;

    world_init(&w, 1);
    for (int i = 0; i < MANY; i++)
        add(&w, (struct mail){ .to = "a@big.test" });
    EXPECT_INT(t, counts(&w).unresolved, MANY);
    answer_all(&w, S(""));
    for (bool more = true; more; ticks++) {
        EXPECT(t, counts(&w).ready - ready <= 250);
        ready = counts(&w).ready;
        queue_audit(w.q);
        EXPECT(t, ready == MANY || queue_due(w.q, ANY) <= w.t.now);
        more = queue_tick(w.q, w.t);
    }
    EXPECT_INT(t, counts(&w).ready, MANY);
    EXPECT(t, ticks >= MANY / 250);
    struct mx_result none = { .status = MX_NXDOMAIN, .ttl = 3600, .why = S("") };
    add(&w, (struct mail){ .to = "a@gone.test" });
    answer_one(&w, &none);
    EXPECT_INT(t, counts(&w).ending, 1);
    world_done(&w, t);
}

static struct spool_message
add_to_many(struct world *w, size_t count)
{
    struct recipient *recipients = arena_alloc(&w->arena, count * sizeof *recipients);

    for (size_t i = 0; i < count; i++)
        recipients[i] = (struct recipient){ .address = S("a@home.test"), .reverse_path = { NULL, 0 } };
    struct spool_message m = { .id = { 1, 1 }, .envelope = { .reverse_path = S("s@sender.test"), .client = S("192.0.2.1"),
                               .accepted_wall = w->t.wall, .recipients = recipients, .recipient_count = count } };
    CHECK(queue_add(w->q, w->t, &m));
    return m;
}

/* What does not fit one message to the sender is told by the next. */
static void
a_notice_tells_of_a_thousand(struct test *t)
{
    enum { MANY = 1500 };
    struct world w;
    struct spool_settle settle;
    size_t told[] = { 1000, 500 };

    world_init(&w, 1);
    struct spool_message m = add_to_many(&w, MANY);
    EXPECT(t, queue_bounce(w.q, w.t, m.id));
    EXPECT(t, queue_next_settle(w.q, w.t, &w.arena, &settle));
    EXPECT_INT(t, settle.count, MANY);
    for (size_t i = 0; i < 2; i++) {
        struct queue_job job = next(&w, QUEUE_NOTICE);
        EXPECT(t, job.notice);
        EXPECT_INT(t, job.count, told[i]);
        EXPECT_INT(t, job.recipients[0], i * 1000);
        EXPECT(t, queue_notice_settle(w.q, w.t, job.number, &w.arena, &settle));
        EXPECT_INT(t, settle.count, told[i]);
        queue_notice_committed(w.q, w.t, job.number);
    }
    EXPECT_INT(t, counts(&w).failed, MANY);
    EXPECT_INT(t, counts(&w).messages, 0);
    m = (struct spool_message){ .id = { 1, 2 }, .envelope = m.envelope, .age = 5 * HOUR }; /* of a delay too */
    m.envelope.trusted = true;
    m.envelope.accepted_wall -= m.age;
    CHECK(queue_add(w.q, w.t, &m));
    for (struct queue_job job; (job = next(&w, QUEUE_MAILBOX)).number;)
        finish_all(&w, job, &later);
    for (size_t i = 0; i < 2; i++) {
        struct queue_job job = next(&w, QUEUE_NOTICE);
        EXPECT_INT(t, job.notice_kind, NOTICE_OF_DELAY);
        EXPECT_INT(t, job.count, told[i]);
        EXPECT(t, queue_notice_settle(w.q, w.t, job.number, &w.arena, &settle));
        EXPECT_INT(t, settle.count, told[i]);
        queue_notice_committed(w.q, w.t, job.number);
        queue_audit(w.q);
    }
    EXPECT_INT(t, next(&w, QUEUE_NOTICE).number, 0);
    world_done(&w, t);
}

/* Such as a thousand with long addresses and long replies: they are told in smaller parts. */
static void
a_notice_that_is_too_long_is_told_in_parts(struct test *t)
{
    enum { MANY = 1500 };
    struct world w;
    struct spool_settle settle;
    size_t told[] = { 250, 1000, 250 };

    world_init(&w, 1);
    struct spool_message m = add_to_many(&w, MANY);
    EXPECT(t, queue_bounce(w.q, w.t, m.id));
    EXPECT(t, queue_next_settle(w.q, w.t, &w.arena, &settle));
    queue_notice_returned(w.q, w.t, next(&w, QUEUE_NOTICE).number); /* no sender was there: that says nothing of its length */
    queue_audit(w.q);
    for (size_t most = 1000; most > 250; most /= 2) {
        struct queue_job job = next(&w, QUEUE_NOTICE);
        EXPECT_INT(t, job.count, most);
        queue_notice_failed(w.q, w.t, job.number);
        queue_audit(w.q);
        pass(&w, HOUR);
    }
    for (size_t i = 0; i < 3; i++) {
        struct queue_job job = next(&w, QUEUE_NOTICE);
        EXPECT_INT(t, job.count, told[i]);
        EXPECT(t, queue_notice_settle(w.q, w.t, job.number, &w.arena, &settle));
        queue_notice_committed(w.q, w.t, job.number);
        queue_audit(w.q);
    }
    EXPECT_INT(t, counts(&w).failed, MANY);
    EXPECT_INT(t, counts(&w).messages, 0);
    world_done(&w, t);
}

/* Those who were under way together when it was found down say nothing new. */
static void
a_host_goes_down_once(struct test *t)
{
    struct world w;
    struct mx_host hosts[] = { { S("a.test"), 10 }, { S("b.test"), 20 } };
    struct mx_result answer = { .status = MX_OK, .ttl = 86400, .hosts = hosts, .host_count = 2, .why = S("") };

    world_init(&w, 1);
    add(&w, (struct mail){ .to = "x@two.test" });
    answer_one(&w, &answer);
    for (int i = 0; i < 20; i++)
        queue_host_down(w.q, w.t, S("a.test"));
    struct queue_job job = next(&w, ANY);
    EXPECT_STR(t, job.hosts[0].name, S("b.test"));
    queue_job_returned(w.q, w.t, job.number);
    pass(&w, MINUTE + 1);
    job = next(&w, ANY);
    EXPECT_STR(t, job.hosts[0].name, S("a.test"));
    queue_job_returned(w.q, w.t, job.number);
    world_done(&w, t);
}

TEST_MAIN({ "each recipient has its own fate", each_recipient_has_its_own_fate },
          { "hands get what they can do", hands_get_what_they_can_do },
          { "many recipients go in hundreds", many_recipients_go_in_hundreds },
          { "an answer for many is worked off bit by bit", an_answer_for_many_is_worked_off_bit_by_bit },
          { "a notice tells of a thousand", a_notice_tells_of_a_thousand },
          { "a notice that is too long is told in parts", a_notice_that_is_too_long_is_told_in_parts },
          { "a host goes down once", a_host_goes_down_once },
          { "reverse-paths never share a transaction", reverse_paths_never_share_a_transaction },
          { "each of many owners is told", each_of_many_owners_is_told },
          { "retries until it expires", retries_until_it_expires },
          { "the last words are told at expiry", the_last_words_are_told_at_expiry },
          { "clocks that jump expire nothing", clocks_that_jump_expire_nothing },
          { "a restart keeps times and ages", a_restart_keeps_times_and_ages },
          { "answers decide", answers_decide },
          { "no route fails, and literals need no lookup", no_route_fails_and_literals_need_no_lookup },
          { "domains of one provider share a lane", domains_of_one_provider_share_a_lane },
          { "equal hosts take turns", equal_hosts_take_turns },
          { "a stale answer serves until the new one", a_stale_answer_serves_until_the_new_one },
          { "a reload reroutes", a_reload_reroutes },
          { "a reload overtakes a question", a_reload_overtakes_a_question },
          { "domains of a lane part in a reload", domains_of_a_lane_part_in_a_reload },
          { "a restart does not ask for a million", a_restart_does_not_ask_for_a_million },
          { "concurrency adapts", concurrency_adapts },
          { "a dead destination is probed by one", a_dead_destination_is_probed_by_one },
          { "mail in a dead lane expires", mail_in_a_dead_lane_expires },
          { "submitters take turns", submitters_take_turns },
          { "bytes are shared fairly", bytes_are_shared_fairly },
          { "idle lanes go before connections", idle_lanes_go_before_connections },
          { "limits hold for destination and host", limits_hold_for_destination_and_host },
          { "many go into Maildirs at once", many_go_into_maildirs_at_once },
          { "rates are kept", rates_are_kept },
          { "failures share a notice", failures_share_a_notice },
          { "a due notice waits for a hand", a_due_notice_waits_for_a_hand },
          { "a notice waits only so long", a_notice_waits_only_so_long },
          { "notices by NOTIFY and outcome", notices_by_notify_and_outcome },
          { "a double bounce that is dropped ends at once", a_double_bounce_that_is_dropped_ends_at_once },
          { "expansion owes its notice", expansion_owes_its_notice },
          { "held mail goes at its time", held_mail_goes_at_its_time },
          { "delay is told once after four hours", delay_is_told_once_after_four_hours },
          { "nothing leaves while its delay is told", nothing_leaves_while_its_delay_is_told },
          { "notices of delay do not meet", notices_of_delay_do_not_meet },
          { "poison is held after two deaths", poison_is_held_after_two_deaths },
          { "several jobs of one message die once", several_jobs_of_one_message_die_once },
          { "operators decide", operators_decide },
          { "nothing is lost whatever happens", nothing_is_lost_whatever_happens },
          { "a seed repeats itself", a_seed_repeats_itself },
          { "messages are small", messages_are_small })
