/* link: calls, one-way messages, long messages, ends, and hostile peers. */
#include "base/check.h"
#include "base/test.h"
#include "link/frame.h"
#include "link/link.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TYPE_ECHO = 1, TYPE_NEVER = 2, TYPE_NOTE = 3, TYPE_BAD = 4, TYPE_HANDLE = 5 };

struct side {
    struct rt *rt;
    struct link *link;
    size_t notes, closes, handles;
    uint32_t unanswered[8];
    size_t asked; /* how many these are */
    struct err why;
    struct event changed;
    struct handle kept;
};

static bool
handle_message(void *ctx, struct link *link, struct link_message *m)
{
    struct side *side = ctx;

    switch (m->type) {
    case TYPE_ECHO:
        link_reply(link, m->call, m->type, m->body);
        return true;
    case TYPE_NEVER:
        CHECK(side->asked < 8);
        side->unanswered[side->asked++] = m->call;
        event_wake(side->rt, &side->changed);
        return true;
    case TYPE_NOTE:
        side->notes++;
        event_wake(side->rt, &side->changed);
        return true;
    case TYPE_HANDLE:
        side->handles += m->handle_count;
        if (m->handle_count == 1) {
            side->kept = m->handles[0];
            m->handle_count = 0;
        }
        event_wake(side->rt, &side->changed);
        return true;
    default:
        return false;
    }
}

static void
note_close(void *ctx, struct link *link, struct err why)
{
    struct side *side = ctx;

    (void)link;
    side->closes++;
    side->why = why;
    event_wake(side->rt, &side->changed);
}

static struct link_settings
settings_of(struct side *side)
{
    return (struct link_settings){ .name = S("test"), .ctx = side, .handle = handle_message, .closed = note_close };
}

struct world {
    struct test *t;
    struct rt *rt;
    struct side a, b;
    struct arena arena;
    void (*body)(struct world *);
    bool forgets;
    uint32_t asked_max; /* of a */
};

static void
wait_until_closed(struct world *w, struct side *side)
{
    while (side->closes == 0)
        if (err_is(event_wait(w->rt, &side->changed, within(w->rt, 5 * SECOND))))
            break;
    EXPECT_INT(w->t, side->closes, 1);
}

static void
run_pair(struct rt *rt, void *arg)
{
    struct world *w = arg;
    struct handle pair[2];

    w->rt = w->a.rt = w->b.rt = rt;
    event_init(&w->a.changed);
    event_init(&w->b.changed);
    arena_init(&w->arena, rt_mem(rt), 4096, 4 * LINK_MESSAGE_MAX);
    EXPECT(w->t, !err_is(stream_pair(rt, pair)));
    struct link_settings a = settings_of(&w->a), b = settings_of(&w->b);
    a.takes_handles = b.takes_handles = true;
    a.forgets = b.forgets = w->forgets;
    a.asked_max = w->asked_max;
    b.calls_max = 3;
    EXPECT(w->t, !err_is(link_open(rt, pair[0], &a, &w->a.link)));
    EXPECT(w->t, !err_is(link_open(rt, pair[1], &b, &w->b.link)));
    w->body(w);
    if (w->a.link)
        link_free(w->a.link);
    if (w->b.link)
        link_free(w->b.link);
    arena_done(&w->arena);
}

static void
with_pair(struct test *t, void (*body)(struct world *))
{
    struct world w = { .t = t, .body = body };

    EXPECT(t, !err_is(rt_run(run_pair, &w)));
}

static void
calls_body(struct world *w)
{
    struct str reply;
    char *long_body = arena_alloc(&w->arena, LINK_MESSAGE_MAX);
    static const size_t lengths[] = { 0, 1, LIMIT_FRAME_BODY - 1, LIMIT_FRAME_BODY, LIMIT_FRAME_BODY + 1, LINK_MESSAGE_MAX };

    for (size_t i = 0; i < LINK_MESSAGE_MAX; i++)
        long_body[i] = (char)(i * 7);
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        struct str body = str_new(long_body, lengths[i]);
        EXPECT(w->t, !err_is(link_call(w->a.link, TYPE_ECHO, body, &w->arena, within(w->rt, 5 * SECOND), &reply)));
        EXPECT(w->t, str_eq(reply, body));
    }
    struct str parts[] = { S("ab"), S(""), str_new(long_body, LIMIT_FRAME_BODY), S("cd") };
    EXPECT(w->t, !err_is(link_call_parts(w->a.link, TYPE_ECHO, parts, 4, &w->arena, within(w->rt, 5 * SECOND), &reply)));
    EXPECT_INT(w->t, reply.len, LIMIT_FRAME_BODY + 4);
    EXPECT(w->t, str_starts(reply, parts[0]) && str_ends(reply, parts[3]));
    for (int i = 0; i < 1000; i++)
        EXPECT(w->t, !err_is(link_send(w->a.link, TYPE_NOTE, str_new(long_body, 1000), FOREVER)));
    while (w->b.notes < 1000)
        if (!EXPECT(w->t, !err_is(event_wait(w->rt, &w->b.changed, within(w->rt, 5 * SECOND)))))
            return;
}

static void
calls_of_any_length(struct test *t)
{
    with_pair(t, calls_body);
}

static void
late_reply_body(struct world *w)
{
    struct str reply;

    struct err e = link_call(w->a.link, TYPE_NEVER, S("x"), &w->arena, within(w->rt, 10 * MILLISECOND), &reply);
    EXPECT_INT(w->t, e.kind, ERR_TIMEOUT);
    EXPECT_INT(w->t, w->b.asked, 1);
    link_reply(w->b.link, w->b.unanswered[0], TYPE_NEVER, S("late"));
    EXPECT(w->t, !err_is(link_call(w->a.link, TYPE_ECHO, S("y"), &w->arena, within(w->rt, 5 * SECOND), &reply)));
    EXPECT_STR(w->t, reply, S("y"));
}

static void
late_reply_is_dropped(struct test *t)
{
    with_pair(t, late_reply_body);
}

struct caller {
    struct world *w;
    int64_t wait; /* 0: without end */
    struct err err;
    bool done;
};

static void
run_caller(void *arg)
{
    struct caller *c = arg;
    struct str reply;

    int64_t until = c->wait ? within(c->w->rt, c->wait) : FOREVER;
    c->err = link_call(c->w->a.link, TYPE_NEVER, S("x"), &c->w->arena, until, &reply);
    c->done = true;
}

static void
cut_body(struct world *w)
{
    struct caller caller = { .w = w };
    struct scope scope;

    scope_init(&scope, w->rt);
    scope_start(&scope, "caller", run_caller, &caller);
    while (w->b.asked == 0)
        EXPECT(w->t, !err_is(event_wait(w->rt, &w->b.changed, within(w->rt, 5 * SECOND))));
    link_free(w->b.link);
    w->b.link = NULL;
    EXPECT(w->t, !err_is(scope_wait(&scope, within(w->rt, 5 * SECOND))));
    scope_end(&scope);
    EXPECT(w->t, caller.done);
    EXPECT_INT(w->t, caller.err.kind, ERR_UNKNOWN);
    wait_until_closed(w, &w->a);
    struct str reply;
    EXPECT_INT(w->t, link_call(w->a.link, TYPE_ECHO, S("x"), &w->arena, FOREVER, &reply).kind, ERR_CLOSED);
}

static void
a_link_cut_in_a_call_says_unknown(struct test *t)
{
    with_pair(t, cut_body);
}

static void
too_long_body(struct world *w)
{
    struct arena small;
    struct str reply;

    arena_init(&small, rt_mem(w->rt), 512, 1000);
    EXPECT(w->t, !err_is(link_call(w->a.link, TYPE_ECHO, S("fits"), &small, FOREVER, &reply)));
    struct str body = str_new(arena_alloc(&w->arena, 1000), 1000);
    EXPECT_INT(w->t, link_call(w->a.link, TYPE_ECHO, body, &small, FOREVER, &reply).kind, ERR_UNKNOWN);
    wait_until_closed(w, &w->a);
    EXPECT_INT(w->t, w->a.why.kind, ERR_LIMIT);
    arena_done(&small);
}

static void
a_reply_without_room_closes_the_link(struct test *t)
{
    with_pair(t, too_long_body);
}

static void
too_many_body(struct world *w)
{
    struct caller callers[4] = { { .w = w }, { .w = w }, { .w = w }, { .w = w } };
    struct scope scope;

    scope_init(&scope, w->rt);
    for (int i = 0; i < 4; i++)
        scope_start(&scope, "caller", run_caller, &callers[i]);
    wait_until_closed(w, &w->b);
    EXPECT_INT(w->t, w->b.why.kind, ERR_LIMIT);
    scope_end(&scope);
}

static void
more_calls_than_allowed_close_the_link(struct test *t)
{
    with_pair(t, too_many_body);
}

static void
wait_until_asked(struct world *w, size_t count)
{
    while (w->b.asked < count)
        if (!EXPECT(w->t, !err_is(event_wait(w->rt, &w->b.changed, within(w->rt, 5 * SECOND)))))
            return;
    EXPECT_INT(w->t, w->b.asked, count);
}

static void
room_for_calls_body(struct world *w)
{
    enum { GIVES_UP, NEVER_SENT = 3, WAITS, CUT, CALLERS };
    struct caller callers[CALLERS] = { [GIVES_UP] = { .wait = 20 * MILLISECOND }, [NEVER_SENT] = { .wait = 10 * MILLISECOND } };
    struct scope scope;

    scope_init(&scope, w->rt);
    for (int i = 0; i < CALLERS; i++) {
        callers[i].w = w;
        scope_start(&scope, "caller", run_caller, &callers[i]);
    }
    wait_until_asked(w, 3);
    rt_sleep(w->rt, within(w->rt, 100 * MILLISECOND));
    test_case(w->t, "a call without its reply counts, whoever gave up");
    wait_until_asked(w, 3);
    EXPECT_INT(w->t, callers[GIVES_UP].err.kind, ERR_TIMEOUT);
    EXPECT_INT(w->t, callers[NEVER_SENT].err.kind, ERR_TIMEOUT);
    test_case(w->t, "a late reply makes room for one");
    link_reply(w->b.link, w->b.unanswered[0], TYPE_NEVER, S("late"));
    wait_until_asked(w, 4);
    rt_sleep(w->rt, within(w->rt, 10 * MILLISECOND));
    wait_until_asked(w, 4);
    EXPECT(w->t, link_is_open(w->b.link) && !callers[WAITS].done && !callers[CUT].done);
    test_case(w->t, "the end of the link ends the waiting");
    link_free(w->b.link);
    w->b.link = NULL;
    EXPECT(w->t, !err_is(scope_wait(&scope, within(w->rt, 5 * SECOND))));
    scope_end(&scope);
    EXPECT_INT(w->t, callers[WAITS].err.kind, ERR_UNKNOWN);
    EXPECT_INT(w->t, callers[CUT].err.kind, ERR_CLOSED);
}

static void
calls_wait_for_those_before(struct test *t)
{
    struct world w = { .t = t, .body = room_for_calls_body, .asked_max = 3 };

    EXPECT(t, !err_is(rt_run(run_pair, &w)));
}

static void
handles_body(struct world *w)
{
    struct handle pair[2];
    struct stream *near, *far;
    char memory[8];
    size_t got = 0;

    EXPECT(w->t, !err_is(stream_pair(w->rt, pair)));
    EXPECT(w->t, !err_is(link_send(w->a.link, TYPE_NOTE, S("before"), FOREVER)));
    EXPECT(w->t, !err_is(link_send_handles(w->a.link, TYPE_HANDLE, S("take this"), &pair[1], 1, FOREVER)));
    handle_close(w->rt, pair[1]);
    while (w->b.handles == 0)
        if (!EXPECT(w->t, !err_is(event_wait(w->rt, &w->b.changed, within(w->rt, 5 * SECOND)))))
            return;
    EXPECT(w->t, !err_is(stream_from_handle(w->rt, pair[0], &near)));
    EXPECT(w->t, !err_is(stream_from_handle(w->rt, w->b.kept, &far)));
    EXPECT(w->t, !err_is(stream_write(near, S("hello"), FOREVER)));
    EXPECT(w->t, !err_is(stream_read(far, memory, sizeof memory, within(w->rt, 5 * SECOND), &got)));
    EXPECT_STR(w->t, str_new(memory, got), S("hello"));
    stream_close(near);
    stream_close(far);
}

static void
handles_pass(struct test *t)
{
    with_pair(t, handles_body);
}

static void
no_such_handle_body(struct world *w)
{
    const struct handle nobodys = { 1 << 20 };

    EXPECT(w->t, err_is(link_send_handles(w->a.link, TYPE_HANDLE, S("take this"), &nobodys, 1, FOREVER)));
    EXPECT(w->t, !link_is_open(w->a.link));
    wait_until_closed(w, &w->a);
}

/* What was written of the frame is not known: nothing may follow it. */
static void
handles_that_cannot_be_sent_end_the_link(struct test *t)
{
    with_pair(t, no_such_handle_body);
}

static_assert(LINK_VERSION == 2, "VERSION is what a hello says");

/* Raw bytes instead of a peer. */
static const struct {
    const char *why;
    struct str bytes;
    int32_t kind; /* of the error that `closed` gets */
} hostile[] = {
#define VERSION "\x02\0\0\0"
#define HELLO "\x0d\0\0\0\xff\xff\0\0\0\0\0\0" VERSION "\x05\0\0\0" POSTRIDER_VERSION
    { "no hello", STR("\x01\0\0\0\x01\0\0\0\0\0\0\0x"), ERR_PROTOCOL },
    { "hello of another version", STR("\x0d\0\0\0\xff\xff\0\0\0\0\0\0\x01\0\0\0\x05\0\0\0" POSTRIDER_VERSION), ERR_PROTOCOL },
    { "hello of another build", STR("\x0d\0\0\0\xff\xff\0\0\0\0\0\0" VERSION "\x05\0\0\0" "9.9.9"), ERR_PROTOCOL },
    { "hello with bytes behind", STR("\x0e\0\0\0\xff\xff\0\0\0\0\0\0" VERSION "\x05\0\0\0" POSTRIDER_VERSION "x"), ERR_PROTOCOL },
    { "body longer than a frame", STR(HELLO "\x01\0\x01\0\x01\0\0\0\0\0\0\0"), ERR_PROTOCOL },
    { "unknown flag", STR(HELLO "\0\0\0\0\x03\0\x04\0\0\0\0\0"), ERR_PROTOCOL },
    { "an empty part of a message", STR(HELLO "\0\0\0\0\x03\0\x02\0\0\0\0\0" "\x01\0\0\0\x03\0\0\0\0\0\0\0x"), ERR_PROTOCOL },
    { "descriptors that did not come", STR(HELLO "\0\0\0\0\x03\0\0\x01\0\0\0\0"), ERR_PROTOCOL },
    { "reply to a call that was not made", STR(HELLO "\0\0\0\0\x03\0\x01\0\x01\0\0\0"), ERR_PROTOCOL },
    { "reply to nothing asked", STR(HELLO "\0\0\0\0\x03\0\x01\0\0\0\0\0"), ERR_PROTOCOL },
    { "unknown type", STR(HELLO "\0\0\0\0\x04\0\0\0\0\0\0\0"), ERR_PROTOCOL },
    { "ends in a header", STR(HELLO "\0\0\0\0\x03"), ERR_CLOSED },
    { "ends in a body", STR(HELLO "\x05\0\0\0\x03\0\0\0\0\0\0\0ab"), ERR_CLOSED },
};

struct hostile_run {
    struct test *t;
    struct str bytes;
    int32_t kind;
    bool one_by_one;
};

static void
run_hostile(struct rt *rt, void *arg)
{
    struct hostile_run *run = arg;
    struct side side = { .rt = rt };
    struct handle pair[2];
    struct stream *peer;

    event_init(&side.changed);
    EXPECT(run->t, !err_is(stream_pair(rt, pair)));
    struct link_settings settings = settings_of(&side);
    EXPECT(run->t, !err_is(link_open(rt, pair[0], &settings, &side.link)));
    EXPECT(run->t, !err_is(stream_from_handle(rt, pair[1], &peer)));
    for (size_t at = 0; at < run->bytes.len;) {
        size_t n = run->one_by_one ? 1 : run->bytes.len;
        if (err_is(stream_write(peer, str_slice(run->bytes, at, at + n), FOREVER)))
            break; /* closed early: that is what we want to see below */
        at += n;
        fiber_yield(rt);
    }
    stream_shut_down(peer);
    while (side.closes == 0)
        if (!EXPECT(run->t, !err_is(event_wait(rt, &side.changed, within(rt, 5 * SECOND)))))
            break;
    EXPECT_INT(run->t, side.why.kind, run->kind);
    EXPECT(run->t, !link_is_open(side.link));
    link_free(side.link);
    stream_close(peer);
}

static void
hostile_peers_end_their_link_and_nothing_else(struct test *t)
{
    for (size_t i = 0; i < sizeof hostile / sizeof *hostile; i++)
        for (int one_by_one = 0; one_by_one < 2; one_by_one++) {
            struct hostile_run run = { t, hostile[i].bytes, hostile[i].kind, one_by_one };
            test_case(t, hostile[i].why);
            EXPECT(t, !err_is(rt_run(run_hostile, &run)));
        }
}

/* It asks again and again, and never looks at an answer. */
struct deaf {
    struct stream *stream;
    size_t asked;
};

static void
run_asking(void *arg)
{
    struct deaf *deaf = arg;
    char *frame = calloc(1, LINK_HEADER + LIMIT_FRAME_BODY);
    struct put p = put_init(frame, LINK_HEADER + LIMIT_FRAME_BODY);

    frame_put(&p, TYPE_ECHO, 0, 1, str_new(frame + LINK_HEADER, LIMIT_FRAME_BODY));
    while (deaf->asked < 2u * LINK_REPLIES_MAX && !err_is(stream_write(deaf->stream, put_str_so_far(&p), FOREVER)))
        deaf->asked += LIMIT_FRAME_BODY;
    free(frame);
}

static void
run_deaf(struct rt *rt, void *arg)
{
    struct test *t = arg;
    struct side side = { .rt = rt };
    struct deaf deaf = { 0 };
    struct handle pair[2];
    struct scope scope;

    event_init(&side.changed);
    scope_init(&scope, rt);
    EXPECT(t, !err_is(stream_pair(rt, pair)));
    struct link_settings settings = settings_of(&side);
    EXPECT(t, !err_is(link_open(rt, pair[0], &settings, &side.link)));
    EXPECT(t, !err_is(stream_from_handle(rt, pair[1], &deaf.stream)));
    EXPECT(t, !err_is(stream_write(deaf.stream, S(HELLO), FOREVER)));
    scope_start(&scope, "asking", run_asking, &deaf);
    while (side.closes == 0)
        if (!EXPECT(t, !err_is(event_wait(rt, &side.changed, within(rt, 20 * SECOND)))))
            break;
    EXPECT_INT(t, side.why.kind, ERR_LIMIT);
    link_free(side.link);
    scope_end(&scope);
    EXPECT(t, deaf.asked >= LINK_REPLIES_MAX && deaf.asked < LINK_REPLIES_MAX + (4u << 20));
    stream_close(deaf.stream);
}

static void
who_does_not_read_its_replies_is_cut_off(struct test *t)
{
    EXPECT(t, !err_is(rt_run(run_deaf, t)));
}

struct asker {
    struct side *side;
    struct arena arena;
    struct err err;
    bool done;
};

static void
run_asker(void *arg)
{
    struct asker *a = arg;
    struct str reply;

    a->err = link_call(a->side->link, TYPE_ECHO, S("x"), &a->arena, FOREVER, &reply);
    a->done = true;
    event_wake(a->side->rt, &a->side->changed);
}

static void
write_frame(struct stream *peer, uint16_t flags, uint32_t call, size_t len)
{
    static char frame[LINK_HEADER + LIMIT_FRAME_BODY], body[LIMIT_FRAME_BODY];
    struct put p = put_init(frame, sizeof frame);

    frame_put(&p, TYPE_ECHO, flags, call, str_new(body, len));
    CHECK(!err_is(stream_write(peer, put_str_so_far(&p), FOREVER)));
}

/* It answers a call a second time, while the next one waits for room behind replies that it does not read; then it goes. */
static void
run_answering_twice(struct rt *rt, void *arg)
{
    struct test *t = arg;
    struct side side = { .rt = rt };
    struct asker first = { .side = &side }, second = { .side = &side };
    struct handle pair[2];
    struct stream *peer;
    struct scope scope;

    event_init(&side.changed);
    scope_init(&scope, rt);
    arena_init(&first.arena, rt_mem(rt), 512, 4096);
    arena_init(&second.arena, rt_mem(rt), 512, 4096);
    EXPECT(t, !err_is(stream_pair(rt, pair)));
    struct link_settings settings = settings_of(&side);
    EXPECT(t, !err_is(link_open(rt, pair[0], &settings, &side.link)));
    EXPECT(t, !err_is(stream_from_handle(rt, pair[1], &peer)));
    EXPECT(t, !err_is(stream_write(peer, S(HELLO), FOREVER)));
    scope_start(&scope, "first", run_asker, &first);
    fiber_yield(rt);
    write_frame(peer, LINK_REPLY, 1, 0);
    while (!first.done)
        CHECK(!err_is(event_wait(rt, &side.changed, within(rt, 5 * SECOND))));
    for (int i = 0; i < 40; i++)
        write_frame(peer, 0, 1, LIMIT_FRAME_BODY);
    for (int64_t until = within(rt, 5 * SECOND); link_unsent(side.link) <= LINK_UNSENT_MAX && rt_now(rt) < until;)
        fiber_yield(rt);
    EXPECT(t, link_unsent(side.link) > LINK_UNSENT_MAX);
    scope_start(&scope, "second", run_asker, &second);
    fiber_yield(rt);
    write_frame(peer, LINK_REPLY, 1, 0);
    stream_close(peer);
    while (!second.done)
        CHECK(!err_is(event_wait(rt, &side.changed, within(rt, 5 * SECOND))));
    EXPECT(t, !err_is(first.err) && second.err.kind == ERR_CLOSED);
    scope_end(&scope);
    link_free(side.link);
    arena_done(&first.arena);
    arena_done(&second.arena);
}

static void
who_answers_twice_ends_no_more_than_his_link(struct test *t)
{
    EXPECT(t, !err_is(rt_run(run_answering_twice, t)));
}

/* ---- secrets ---- */

enum { SECRET = 3 * LIMIT_FRAME_BODY, MARK = 64, PIECE = 64 << 10 };

/* Not zeros, nor as the other way round in memory. */
static void
put_secret(unsigned char *memory, size_t len)
{
    for (size_t i = 0; i < len; i++)
        memory[i] = (unsigned char)(17 + i % MARK * 3);
}

/* How often its marks stand in what this process can read of itself. */
static size_t
count_secrets(void)
{
    static unsigned char piece[PIECE];
    unsigned char mark[MARK];
    char line[400];
    size_t found = 0;

    FILE *maps = fopen("/proc/self/maps", "r"), *memory = fopen("/proc/self/mem", "rb");
    CHECK(maps && memory && setvbuf(memory, NULL, _IONBF, 0) == 0);
    while (fgets(line, sizeof line, maps)) {
        unsigned long from, to;
        CHECK(sscanf(line, "%lx-%lx", &from, &to) == 2);
        if (!strstr(line, " rw") || to - from > 1ul << 30) /* the second: a sanitizer's own */
            continue;
        for (unsigned long at = from; at < to; at += PIECE) {
            size_t len = to - at < PIECE ? to - at : PIECE;
            if ((unsigned char *)at < piece + PIECE && piece < (unsigned char *)at + len) /* found once more where it is read to */
                continue;
            if (fseek(memory, (long)at, SEEK_SET) != 0 || fread(piece, 1, len, memory) != len)
                continue;
            put_secret(mark, sizeof mark);
            for (const unsigned char *p = piece; (p = memmem(p, len - (size_t)(p - piece), mark, sizeof mark)); p += MARK)
                found++;
            explicit_bzero(mark, sizeof mark);
        }
    }
    explicit_bzero(piece, sizeof piece);
    CHECK(fclose(maps) == 0 && fclose(memory) == 0);
    return found;
}

static void
secrets_body(struct world *w)
{
    unsigned char *secret = arena_alloc(&w->arena, SECRET);
    struct str reply;

    put_secret(secret, SECRET);
    EXPECT(w->t, count_secrets() > 0);
    for (int i = 0; i < 3; i++) {
        struct err e = link_call(w->a.link, TYPE_ECHO, str_new((char *)secret, SECRET), &w->arena, within(w->rt, 5 * SECOND), &reply);
        CHECK(!err_is(e));
        EXPECT_INT(w->t, reply.len, SECRET);
        explicit_bzero((char *)(uintptr_t)reply.ptr, reply.len);
    }
    explicit_bzero(secret, SECRET);
    test_case(w->t, "while the link is open");
    EXPECT_INT(w->t, count_secrets(), 0);
    link_free(w->a.link);
    link_free(w->b.link);
    w->a.link = w->b.link = NULL;
    test_case(w->t, "when it is gone");
    EXPECT_INT(w->t, count_secrets(), 0);
}

/* Calls and replies, also such as come in several frames. */
static void
secrets_are_forgotten(struct test *t)
{
    struct world w = { .t = t, .body = secrets_body, .forgets = true };

    EXPECT(t, !err_is(rt_run(run_pair, &w)));
}

TEST_MAIN({ "calls of any length", calls_of_any_length }, { "a late reply is dropped", late_reply_is_dropped },
          { "a link cut in a call says unknown", a_link_cut_in_a_call_says_unknown },
          { "more calls than allowed close the link", more_calls_than_allowed_close_the_link },
          { "calls wait for those before", calls_wait_for_those_before },
          { "a reply without room closes the link", a_reply_without_room_closes_the_link },
          { "secrets are forgotten", secrets_are_forgotten }, { "handles pass", handles_pass },
          { "handles that cannot be sent end the link", handles_that_cannot_be_sent_end_the_link },
          { "who does not read its replies is cut off", who_does_not_read_its_replies_is_cut_off },
          { "who answers twice ends no more than his link", who_answers_twice_ends_no_more_than_his_link },
          { "hostile peers end their link and nothing else", hostile_peers_end_their_link_and_nothing_else })
