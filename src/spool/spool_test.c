/*
 * spool_test - what any spool does, whatever it is made of. An implementation passes when this passes with its
 * operations.
 */
#include "spool/spool_fixture.h"

static const struct spool_ops *const ops = &spool_log_ops;
#define CASE(name)                                                                                                     \
    static void name##_body(struct fixture *f);                                                                        \
    static void name(struct test *t)                                                                                   \
    {                                                                                                                  \
        fixture_run(t, ops, name##_body);                                                                              \
    }                                                                                                                  \
    static void name##_body(struct fixture *f)

static struct spool_counters
counters(struct fixture *f)
{
    struct spool_counters c;

    f->ops->counters(f->spool, &c);
    return c;
}

static bool
has(struct fixture *f, uint64_t number)
{
    bool yes = false;

    FIXTURE_OK(f, f->ops->has(f->spool, fixture_id(number), FOREVER, &yes));
    return yes;
}

CASE(keeps_what_was_committed)
{
    fixture_open(f);
    for (uint64_t i = 0; i < 60; i++)
        fixture_commit(f, i);
    for (uint64_t i = 0; i < 60; i++)
        EXPECT(f->t, fixture_is_whole(f, i));
    EXPECT_INT(f->t, counters(f).messages, 60);
    fixture_close(f);

    fixture_open(f);
    EXPECT_INT(f->t, f->found_count, 60);
    for (uint64_t i = 0; i < 60; i++) {
        EXPECT(f->t, fixture_was_found(f, i));
        EXPECT(f->t, fixture_is_whole(f, i));
        EXPECT(f->t, message_id_eq(f->found[i], fixture_id(59 - i))); /* newest first */
    }
    EXPECT(f->t, has(f, 3));
    EXPECT(f->t, !has(f, 61));
    EXPECT_INT(f->t, f->damages, 0);
    fixture_close(f);
}

CASE(reads_fresh_content_and_forgets_it)
{
    fixture_open(f);
    f->content_max = 60000;
    for (uint64_t i = 1; i < 30; i++) {
        fixture_commit(f, i);
        EXPECT(f->t, fixture_is_whole(f, i));
        if (i % 2) {
            f->ops->forget_fresh(f->spool, fixture_id(i));
            EXPECT(f->t, fixture_is_whole(f, i));
        }
    }
    for (uint64_t i = 1; i < 30; i++)
        EXPECT(f->t, fixture_is_whole(f, i));
    fixture_close(f);
}

CASE(keeps_large_messages)
{
    f->settings.segment_bytes = 1 << 20;
    f->content_max = 700000;
    fixture_open(f);
    for (uint64_t i = 1; i < 7; i++)
        fixture_commit(f, i);
    for (uint64_t i = 1; i < 7; i++)
        EXPECT(f->t, fixture_is_whole(f, i));
    fixture_close(f);
    fixture_open(f);
    for (uint64_t i = 1; i < 7; i++)
        EXPECT(f->t, fixture_is_whole(f, i));
    fixture_close(f);
}

CASE(reads_any_range)
{
    char content[3000], back[3000];
    size_t got;

    f->settings.fresh_bytes_max = 0;
    fixture_open(f);
    fixture_commit(f, 5);
    size_t size = fixture_size(f, 5);
    fixture_fill(5, content, size);
    for (size_t from = 0; from <= size + 10; from += 97) {
        FIXTURE_OK(f, f->ops->read(f->spool, fixture_id(5), from, back, 100, FOREVER, &got));
        size_t want = from >= size ? 0 : size - from < 100 ? size - from : 100;
        EXPECT_INT(f->t, got, want);
        EXPECT(f->t, memcmp(back, content + (from < size ? from : 0), got) == 0);
    }
    fixture_close(f);
}

CASE(a_draft_is_read_back_and_given_up)
{
    struct draft *draft;
    char *content = malloc(200000), *back = malloc(200000);
    size_t got, at = 0;

    fixture_open(f);
    fixture_fill(9, content, 200000);
    FIXTURE_OK(f, f->ops->begin(f->spool, fixture_id(9), 0, FOREVER, &draft));
    FIXTURE_OK(f, f->ops->put(draft, str_new(content, 200000), FOREVER));
    EXPECT_INT(f->t, f->ops->draft_size(draft), 200000);
    do {
        FIXTURE_OK(f, f->ops->draft_read(draft, at, back + at, 200000 - at, FOREVER, &got));
        at += got;
    } while (got > 0);
    EXPECT_INT(f->t, at, 200000);
    EXPECT(f->t, memcmp(content, back, 200000) == 0);
    f->ops->abort(draft);
    EXPECT(f->t, !has(f, 9));
    EXPECT_INT(f->t, counters(f).live_bytes, 0);
    fixture_close(f);
    fixture_open(f);
    EXPECT_INT(f->t, f->found_count, 0);
    fixture_close(f);
    free(content);
    free(back);
}

CASE(an_id_is_used_once)
{
    struct draft *first, *second;

    fixture_open(f);
    FIXTURE_OK(f, f->ops->begin(f->spool, fixture_id(1), 0, FOREVER, &first));
    EXPECT_INT(f->t, f->ops->begin(f->spool, fixture_id(1), 0, FOREVER, &second).kind, ERR_EXISTS);
    f->ops->abort(first);
    fixture_commit(f, 1);
    EXPECT_INT(f->t, f->ops->begin(f->spool, fixture_id(1), 0, FOREVER, &second).kind, ERR_EXISTS);
    FIXTURE_OK(f, fixture_settle(f, 1, STATE_DELIVERED, S("250 ok"), false));
    EXPECT_INT(f->t, f->ops->begin(f->spool, fixture_id(1), 0, FOREVER, &second).kind, ERR_EXISTS);
    EXPECT(f->t, has(f, 1)); /* ended, and the client may still ask */
    fixture_close(f);
    fixture_open(f);
    EXPECT_INT(f->t, f->ops->begin(f->spool, fixture_id(1), 0, FOREVER, &second).kind, ERR_EXISTS);
    EXPECT_INT(f->t, f->found_count, 0);
    fixture_close(f);
}

CASE(works_while_recovering)
{
    struct draft *draft;
    struct fixture_envelope *e = malloc(sizeof *e);

    fixture_open(f);
    for (uint64_t i = 0; i < 200; i++)
        fixture_commit(f, i);
    for (uint64_t i = 0; i < 100; i++)
        FIXTURE_OK(f, fixture_settle(f, i, STATE_DELIVERED, S("250"), true));
    fixture_close(f);

    f->recovered = false;
    f->found_count = 0;
    FIXTURE_OK(f, dir_open(f->rt, str_from_cstr(f->path), LANE_BACKGROUND, FOREVER, &f->dir));
    FIXTURE_OK(f, f->ops->open(f->rt, f->dir, &f->settings, &f->spool, FOREVER));
    fixture_envelope(f, 150, e);
    FIXTURE_OK(f, f->ops->begin(f->spool, fixture_id(150), 0, FOREVER, &draft)); /* an id that it does not know yet */
    FIXTURE_OK(f, f->ops->recover(f->spool, fixture_found, fixture_done, f, FOREVER));
    EXPECT_INT(f->t, f->ops->commit(draft, &e->envelope, NULL, NULL, FOREVER).kind, ERR_EXISTS);
    EXPECT(f->t, has(f, 150));
    EXPECT(f->t, !has(f, 999));
    fixture_commit(f, 300);
    FIXTURE_OK(f, fixture_settle(f, 120, STATE_DELIVERED, S("250"), false)); /* whether shown already or not */
    FIXTURE_OK(f, fixture_settle(f, 199, STATE_PENDING, S("450"), false));
    EXPECT_INT(f->t, fixture_settle(f, 7, STATE_DELIVERED, S("250"), false).kind, ERR_NOT_FOUND);
    while (!f->recovered)
        FIXTURE_OK(f, event_wait(f->rt, &f->recovered_event, FOREVER));
    EXPECT(f->t, f->found_count == 100 || f->found_count == 99);
    EXPECT(f->t, fixture_is_whole(f, 150));
    fixture_close(f);
    fixture_open(f);
    EXPECT_INT(f->t, f->found_count, 100);
    EXPECT(f->t, !fixture_was_found(f, 120) && fixture_was_found(f, 300));
    fixture_close(f);
    free(e);
}

CASE(settles_are_kept)
{
    struct arena arena;
    struct spool_message m;

    arena_init(&arena, rt_mem(f->rt), 4096, 1 << 20);
    fixture_open(f);
    fixture_commit(f, 2); /* three recipients */
    for (int round = 0; round < 3; round++) {
        struct recipient_status one = { .index = 1, .state = STATE_PENDING, .attempts = (uint16_t)(round + 1),
                                        .next_wall = 1234, .notices = NOTICE_DELAYED, .last_reply = S("451 later"),
                                        .last_remote = S("mx.example [192.0.2.9]:25") };
        struct spool_settle settle = { .id = fixture_id(2), .statuses = &one, .count = 1 };
        FIXTURE_OK(f, f->ops->settle(f->spool, &settle, round == 1, FOREVER));
        FIXTURE_OK(f, f->ops->get(f->spool, fixture_id(2), &arena, FOREVER, &m));
        EXPECT_INT(f->t, m.statuses[1].attempts, round + 1); /* also of a lazy one */
    }
    struct recipient_status ended = { .index = 0, .state = STATE_DELIVERED, .last_reply = S("250 ok") };
    struct spool_settle settle = { .id = fixture_id(2), .statuses = &ended, .count = 1, .set_held = true, .held = true,
                                   .held_why = S("by hand"), .set_deaths = true, .deaths = 2 };
    FIXTURE_OK(f, f->ops->settle(f->spool, &settle, false, FOREVER));
    for (int life = 0; life < 2; life++) {
        FIXTURE_OK(f, f->ops->get(f->spool, fixture_id(2), &arena, FOREVER, &m));
        EXPECT_INT(f->t, m.statuses[0].state, STATE_DELIVERED);
        EXPECT_STR(f->t, m.statuses[0].last_reply, S("250 ok"));
        EXPECT_INT(f->t, m.statuses[1].state, STATE_PENDING);
        EXPECT_INT(f->t, m.statuses[1].attempts, 3);
        EXPECT_INT(f->t, m.statuses[1].next_wall, 1234);
        EXPECT_INT(f->t, m.statuses[1].notices, NOTICE_DELAYED);
        EXPECT_STR(f->t, m.statuses[1].last_reply, S("451 later"));
        EXPECT_STR(f->t, m.statuses[1].last_remote, S("mx.example [192.0.2.9]:25"));
        EXPECT_INT(f->t, m.statuses[2].state, STATE_PENDING);
        EXPECT(f->t, m.held);
        EXPECT_INT(f->t, m.deaths, 2);
        EXPECT_STR(f->t, m.held_why, S("by hand"));
        EXPECT_INT(f->t, counters(f).pending, 2);
        fixture_close(f);
        fixture_open(f);
    }
    fixture_close(f);
    arena_done(&arena);
}

CASE(many_settles_of_one_message)
{
    struct arena arena;
    struct spool_message m;

    arena_init(&arena, rt_mem(f->rt), 64 << 10, 16 << 20);
    fixture_open(f);
    fixture_commit(f, 49); /* 150 recipients */
    for (uint32_t i = 0; i < 149; i++) {
        char reply[40];
        snprintf(reply, sizeof reply, "450 reply %u", i);
        struct recipient_status one = { .index = i, .state = i % 2 ? STATE_DELIVERED : STATE_PENDING, .attempts = 1,
                                        .last_reply = str_from_cstr(reply) };
        struct spool_settle settle = { .id = fixture_id(49), .statuses = &one, .count = 1 };
        FIXTURE_OK(f, f->ops->settle(f->spool, &settle, i % 3 != 0, FOREVER));
    }
    for (int life = 0; life < 2; life++) {
        FIXTURE_OK(f, f->ops->get(f->spool, fixture_id(49), &arena, FOREVER, &m));
        for (uint32_t i = 0; i < 150; i++) {
            char reply[40];
            snprintf(reply, sizeof reply, "450 reply %u", i);
            EXPECT_INT(f->t, m.statuses[i].state, i < 149 && i % 2 ? STATE_DELIVERED : STATE_PENDING);
            EXPECT_STR(f->t, m.statuses[i].last_reply, i < 149 ? str_from_cstr(reply) : str_new(m.statuses[i].last_reply.ptr, 0));
        }
        EXPECT(f->t, fixture_is_whole(f, 49));
        fixture_close(f);
        fixture_open(f);
        EXPECT_INT(f->t, f->found_count, 1);
    }
    fixture_close(f);
    arena_done(&arena);
}

CASE(ends_when_all_recipients_did)
{
    fixture_open(f);
    for (uint64_t i = 0; i < 9; i++)
        fixture_commit(f, i);
    FIXTURE_OK(f, fixture_settle(f, 0, STATE_DELIVERED, S("250"), false));
    FIXTURE_OK(f, fixture_settle(f, 1, STATE_FAILED_OWED, S("550"), false)); /* stays: a notice is owed */
    FIXTURE_OK(f, fixture_settle(f, 2, STATE_REMOVED, S(""), true));
    EXPECT_INT(f->t, fixture_settle(f, 2, STATE_REMOVED, S(""), false).kind, ERR_NOT_FOUND);
    EXPECT_INT(f->t, fixture_settle(f, 700, STATE_REMOVED, S(""), false).kind, ERR_NOT_FOUND);
    fixture_commit(f, 10);
    EXPECT_INT(f->t, counters(f).messages, 8);
    fixture_close(f);
    fixture_open(f);
    EXPECT_INT(f->t, f->found_count, 8);
    EXPECT(f->t, !fixture_was_found(f, 0) && fixture_was_found(f, 1) && !fixture_was_found(f, 2));
    struct spool_counters c = counters(f);
    EXPECT_INT(f->t, c.accepted, 20);
    EXPECT_INT(f->t, c.delivered, 1);
    EXPECT_INT(f->t, c.removed, 3);
    EXPECT_INT(f->t, c.accepted, c.delivered + c.failed + c.relayed + c.expanded + c.suppressed + c.removed + c.pending);
    fixture_close(f);
}

CASE(a_notice_and_what_it_settles_are_one)
{
    struct fixture_envelope *e = malloc(sizeof *e);
    struct draft *draft;
    struct recipient_status statuses[2] = { { .index = 0, .state = STATE_FAILED_SENT, .last_reply = S("550 no") },
                                            { .index = 1, .state = STATE_FAILED_SENT, .last_reply = S("550 no") } };
    struct spool_settle settles = { .id = fixture_id(1), .statuses = statuses, .count = 2 };

    fixture_open(f);
    fixture_commit(f, 1); /* two recipients */
    FIXTURE_OK(f, fixture_settle(f, 1, STATE_FAILED_OWED, S("550 no"), false));
    fixture_envelope(f, 3, e);
    FIXTURE_OK(f, f->ops->begin(f->spool, fixture_id(3), 0, FOREVER, &draft));
    FIXTURE_OK(f, f->ops->commit(draft, &e->envelope, NULL, &settles, FOREVER));
    FIXTURE_OK(f, f->ops->begin(f->spool, fixture_id(4), 0, FOREVER, &draft));
    EXPECT_INT(f->t, f->ops->commit(draft, &e->envelope, NULL, &settles, FOREVER).kind, ERR_NOT_FOUND);
    EXPECT(f->t, !has(f, 4));
    for (int life = 0; life < 2; life++) {
        EXPECT_INT(f->t, counters(f).messages, 1);
        EXPECT_INT(f->t, counters(f).failed, 2);
        fixture_close(f);
        fixture_open(f);
        EXPECT_INT(f->t, f->found_count, 1);
        EXPECT(f->t, fixture_was_found(f, 3));
    }
    fixture_close(f);
    free(e);
}

CASE(a_notice_of_success_keeps_its_message)
{
    struct recipient_status statuses[2] = {
        { .index = 0, .state = STATE_RELAYED, .notices = NOTICE_SUCCESS_OWED },
        { .index = 1, .state = STATE_DELIVERED },
    };
    struct spool_settle settle = { .id = fixture_id(1), .statuses = statuses, .count = 2 };
    struct spool_message m;
    struct arena arena;

    arena_init(&arena, rt_mem(f->rt), 4096, 1 << 20);
    fixture_open(f);
    fixture_commit(f, 1); /* two recipients */
    FIXTURE_OK(f, f->ops->settle(f->spool, &settle, false, FOREVER));
    for (int life = 0; life < 2; life++) {
        FIXTURE_OK(f, f->ops->get(f->spool, fixture_id(1), &arena, FOREVER, &m));
        EXPECT_INT(f->t, m.statuses[0].notices, NOTICE_SUCCESS_OWED);
        EXPECT_INT(f->t, counters(f).messages, 1);
        EXPECT_INT(f->t, counters(f).pending, 0);
        EXPECT_INT(f->t, counters(f).relayed, 1);
        EXPECT_INT(f->t, counters(f).delivered, 1);
        fixture_close(f);
        fixture_open(f);
        EXPECT_INT(f->t, f->found_count, 1);
    }
    statuses[0].notices = 0; /* told */
    settle.count = 1;
    FIXTURE_OK(f, f->ops->settle(f->spool, &settle, false, FOREVER));
    EXPECT_INT(f->t, counters(f).messages, 0);
    EXPECT_INT(f->t, counters(f).relayed, 1);
    fixture_close(f);
    arena_done(&arena);
}

CASE(statuses_given_at_commit)
{
    struct fixture_envelope *e = malloc(sizeof *e);
    struct draft *draft;
    struct recipient_status statuses[3] = { { .index = 0, .state = STATE_EXPANDED, .notices = NOTICE_SUCCESS_OWED },
                                            { .index = 1 },
                                            { .index = 2, .state = STATE_SUPPRESSED } };
    struct spool_message m;
    struct arena arena;

    arena_init(&arena, rt_mem(f->rt), 4096, 1 << 20);
    fixture_open(f);
    fixture_envelope(f, 2, e);
    FIXTURE_OK(f, f->ops->begin(f->spool, fixture_id(2), 0, FOREVER, &draft));
    FIXTURE_OK(f, f->ops->commit(draft, &e->envelope, statuses, NULL, FOREVER));
    statuses[0].notices = 0;
    statuses[1].state = STATE_SUPPRESSED; /* nobody is left */
    FIXTURE_OK(f, f->ops->begin(f->spool, fixture_id(5), 0, FOREVER, &draft));
    FIXTURE_OK(f, f->ops->commit(draft, &e->envelope, statuses, NULL, FOREVER));
    fixture_close(f);
    fixture_open(f);
    EXPECT_INT(f->t, f->found_count, 1);
    FIXTURE_OK(f, f->ops->get(f->spool, fixture_id(2), &arena, FOREVER, &m));
    EXPECT_INT(f->t, m.statuses[0].state, STATE_EXPANDED);
    EXPECT_INT(f->t, m.statuses[0].notices, NOTICE_SUCCESS_OWED);
    EXPECT_INT(f->t, counters(f).pending, 1);
    EXPECT_INT(f->t, counters(f).expanded, 2);
    fixture_close(f);
    arena_done(&arena);
    free(e);
}

CASE(lists_in_order_of_acceptance)
{
    struct spool_place page[7];
    uint64_t after = 0;
    size_t seen = 0, count;

    f->settings.segment_bytes = 64 << 10; /* so that cleaning moves the first ones to the end of the log */
    fixture_open(f);
    for (uint64_t i = 0; i < 40; i++)
        fixture_commit(f, i);
    for (uint64_t i = 100; i < 300; i++) {
        fixture_commit(f, i);
        FIXTURE_OK(f, fixture_settle(f, i, STATE_DELIVERED, S("250"), true));
    }
    for (uint64_t i = 40; i < 60; i++)
        fixture_commit(f, i);
    for (uint64_t life = 0; life < 3; life++) {
        after = seen = 0;
        while ((count = f->ops->scan(f->spool, after, page, 7)) > 0) {
            for (size_t i = 0; i < count; i++)
                EXPECT(f->t, message_id_eq(page[i].id, fixture_id(life + seen++)));
            after = page[count - 1].order;
            if (life == 0 && seen == 21) /* it was the last of a page */
                FIXTURE_OK(f, fixture_settle(f, 20, STATE_PENDING, S("450"), false));
        }
        EXPECT_INT(f->t, seen, 60 - life);
        FIXTURE_OK(f, fixture_settle(f, life, STATE_DELIVERED, S("250"), false));
        fixture_close(f);
        fixture_open(f);
    }
    fixture_close(f);
}

struct committer {
    struct fixture *f;
    uint64_t first, count, failed;
};

static void
commit_many(void *arg)
{
    struct committer *c = arg;

    for (uint64_t i = 0; i < c->count; i++)
        c->failed += err_is(fixture_try_commit(c->f, c->first + i));
}

CASE(commits_share_syncs)
{
    enum { FIBERS = 50, EACH = 10 };
    struct committer committers[FIBERS];
    struct scope scope;

    fixture_open(f);
    uint64_t syncs = counters(f).syncs;
    scope_init(&scope, f->rt);
    for (uint64_t i = 0; i < FIBERS; i++) {
        committers[i] = (struct committer){ f, i * EACH, EACH, 0 };
        scope_start(&scope, "commit", commit_many, &committers[i]);
    }
    FIXTURE_OK(f, scope_wait(&scope, FOREVER));
    scope_end(&scope);
    for (uint64_t i = 0; i < FIBERS; i++)
        EXPECT_INT(f->t, committers[i].failed, 0);
    EXPECT_INT(f->t, counters(f).messages, FIBERS * EACH);
    EXPECT(f->t, counters(f).syncs - syncs < FIBERS * EACH / 4);
    fixture_close(f);
    fixture_open(f);
    EXPECT_INT(f->t, f->found_count, FIBERS * EACH);
    for (uint64_t i = 0; i < FIBERS * EACH; i += 17)
        EXPECT(f->t, fixture_is_whole(f, i));
    fixture_close(f);
}

CASE(is_open_once)
{
    struct spool *other;

    fixture_open(f);
    EXPECT_INT(f->t, f->ops->open(f->rt, f->dir, &f->settings, &other, FOREVER).kind, ERR_BUSY);
    fixture_close(f);
}

CASE(refuses_what_does_not_fit)
{
    struct draft *draft;
    uint64_t i = 1;
    struct err e = OK;

    f->settings.space_max = 8 * f->settings.segment_bytes;
    fixture_open(f);
    EXPECT_INT(f->t, f->ops->begin(f->spool, fixture_id(1), 100 << 20, FOREVER, &draft).kind, ERR_NO_SPACE);
    for (; i < 5000 && !err_is(e); i++)
        e = fixture_try_commit(f, i);
    EXPECT_INT(f->t, e.kind, ERR_NO_SPACE);
    EXPECT(f->t, !f->ops->is_broken(f->spool));
    uint64_t full = i - 1;
    EXPECT(f->t, full > 300);
    for (i = 1; i < full; i++) { /* it drains, with the reserve */
        EXPECT(f->t, fixture_is_whole(f, i));
        FIXTURE_OK(f, fixture_settle(f, i, STATE_DELIVERED, S("250 ok, and a rather long reply that takes some space"), false));
    }
    for (int turns = 0; turns < 2000 && err_is(e); turns++) { /* cleaning runs beside us */
        e = fixture_try_commit(f, 6000);
        fiber_yield(f->rt);
    }
    FIXTURE_OK(f, e);
    fixture_close(f);
    fixture_open(f);
    EXPECT_INT(f->t, f->found_count, 1);
    fixture_close(f);
}

/* Clients announce more than there is, all together, and send nothing. */
CASE(what_is_announced_is_not_kept_from_others)
{
    struct draft *drafts[6];

    f->settings.space_max = 128 * f->settings.segment_bytes;
    fixture_open(f);
    for (int i = 0; i < 6; i++)
        FIXTURE_OK(f, f->ops->begin(f->spool, fixture_id(100 + (uint64_t)i), 20 << 20, FOREVER, &drafts[i]));
    EXPECT_INT(f->t, f->ops->begin(f->spool, fixture_id(99), 64 << 20, FOREVER, &drafts[0]).kind, ERR_NO_SPACE);
    fixture_commit(f, 1);
    for (int i = 0; i < 6; i++)
        f->ops->abort(drafts[i]);
    fixture_close(f);
}

TEST_MAIN({ "keeps what was committed", keeps_what_was_committed },
          { "reads fresh content and forgets it", reads_fresh_content_and_forgets_it },
          { "keeps large messages", keeps_large_messages }, { "reads any range", reads_any_range },
          { "a draft is read back and given up", a_draft_is_read_back_and_given_up },
          { "an id is used once", an_id_is_used_once }, { "works while recovering", works_while_recovering },
          { "settles are kept", settles_are_kept },
          { "many settles of one message", many_settles_of_one_message },
          { "ends when all recipients did", ends_when_all_recipients_did },
          { "a notice and what it settles are one", a_notice_and_what_it_settles_are_one },
          { "a notice of success keeps its message", a_notice_of_success_keeps_its_message },
          { "statuses given at commit", statuses_given_at_commit },
          { "lists in order of acceptance", lists_in_order_of_acceptance }, { "commits share syncs", commits_share_syncs },
          { "is open once", is_open_once }, { "refuses what does not fit", refuses_what_does_not_fit },
          { "what is announced is not kept from others", what_is_announced_is_not_kept_from_others })
