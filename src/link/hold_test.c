/* hold_test: calls that hold a role up, answered by a link in another process. */
#include "link/hold.h"

#include "base/check.h"
#include "base/test.h"
#include "link/frame.h"

#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { TYPE_ECHO = 1, TYPE_SILENT, TYPE_LONG, TYPE_WRONG, TYPE_END };

struct side {
    struct handle handle;
    struct rt *rt;
    struct event ended;
    bool over;
};

static bool
answer(void *ctx, struct link *link, struct link_message *m)
{
    static char text[HOLD_BODY_MAX * 3];

    (void)ctx;
    if (m->type == TYPE_ECHO)
        link_reply(link, m->call, m->type, m->body);
    else if (m->type == TYPE_LONG)
        link_reply(link, m->call, m->type, str_new(text, sizeof text));
    else if (m->type == TYPE_WRONG)
        link_reply(link, m->call, TYPE_ECHO, m->body);
    return m->type != TYPE_END;
}

static void
closed(void *ctx, struct link *link, struct err why)
{
    struct side *side = ctx;

    (void)link;
    (void)why;
    side->over = true;
    event_wake(side->rt, &side->ended);
}

static void
run_answers(struct rt *rt, void *arg)
{
    struct side *side = arg;
    struct link_settings settings = { .name = S("test"), .ctx = side, .handle = answer, .closed = closed };
    struct link *link;

    side->rt = rt;
    event_init(&side->ended);
    CHECK(!err_is(link_open(rt, side->handle, &settings, &link)));
    while (!side->over)
        CHECK(!err_is(event_wait(rt, &side->ended, FOREVER)));
    link_free(link);
}

struct asking {
    struct test *t;
    struct hold *hold;
    struct handle theirs, ours;
};

static void
run_pair(struct rt *rt, void *arg)
{
    struct handle ends[2];
    struct asking *a = arg;

    CHECK(!err_is(stream_pair(rt, ends)));
    a->ours = ends[0];
    a->theirs = ends[1];
}

static void
run_questions(struct rt *rt, void *arg)
{
    static const struct {
        const char *why;
        uint16_t type;
        enum err_kind kind;
    } last[] = { { "no answer in time", TYPE_SILENT, ERR_TIMEOUT }, { "too long", TYPE_LONG, ERR_PROTOCOL },
                 { "of another kind", TYPE_WRONG, ERR_PROTOCOL },   { "it hangs up", TYPE_END, ERR_CLOSED } };
    struct asking *a = arg;
    struct test *t = a->t;
    static char most[HOLD_BODY_MAX];
    struct str said;

    for (size_t i = 0; i < sizeof last / sizeof *last; i++) {
        run_pair(rt, a);
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            struct side side = { .handle = a->theirs };
            handle_close(rt, a->ours);
            _exit(err_is(rt_run(run_answers, &side)));
        }
        handle_close(rt, a->theirs);
        test_case(t, last[i].why);
        CHECK(!err_is(hold_open(rt, a->ours, &a->hold)));
        for (int k = 0; k < 100; k++) {
            memset(most, 'a' + k % 26, sizeof most);
            struct str question = str_new(most, (size_t)k * sizeof most / 99);
            EXPECT(t, !err_is(hold_call(a->hold, TYPE_ECHO, question, 100 * SECOND, &said)) && str_eq(said, question));
        }
        EXPECT(t, hold_is_open(a->hold));
        int64_t ns = last[i].type == TYPE_SILENT ? 10 * MILLISECOND : 100 * SECOND;
        EXPECT_INT(t, hold_call(a->hold, last[i].type, S("x"), ns, &said).kind, last[i].kind);
        EXPECT(t, !hold_is_open(a->hold));
        EXPECT_INT(t, hold_call(a->hold, TYPE_ECHO, S("x"), SECOND, &said).kind, ERR_CLOSED);
        hold_free(a->hold);
        int status;
        CHECK(waitpid(child, &status, 0) == child);
        EXPECT_INT(t, status, 0);
    }
}

static void
questions_are_answered_and_end(struct test *t)
{
    struct asking a = { .t = t };

    EXPECT(t, !err_is(rt_run(run_questions, &a)));
}

static void
run_strangers(struct rt *rt, void *arg)
{
    struct asking *a = arg;
    struct stream *stream;
    struct str said;
    size_t sent;

    for (int i = 0; i < 2; i++) {
        run_pair(rt, a);
        CHECK(!err_is(stream_from_handle(rt, a->theirs, &stream)));
        CHECK(!err_is(hold_open(rt, a->ours, &a->hold)));
        unsigned char frame[100];
        struct put p = put_init(frame, sizeof frame);
        frame_put(&p, i == 0 ? LINK_TYPE_HELLO : TYPE_ECHO, 0, 0, S("\1\0\0\0\3\0\0\0old"));
        CHECK(!err_is(stream_write_now(stream, put_str_so_far(&p), &sent)) && sent == p.len);
        EXPECT_INT(a->t, hold_call(a->hold, TYPE_ECHO, S("x"), SECOND, &said).kind, ERR_PROTOCOL);
        hold_free(a->hold);
        stream_close(stream);
    }
}

static void
strangers_are_refused(struct test *t)
{
    struct asking a = { .t = t };

    EXPECT(t, !err_is(rt_run(run_strangers, &a)));
}

TEST_MAIN({ "questions are answered, and end", questions_are_answered_and_end },
          { "strangers are refused", strangers_are_refused })
