/* rt_test - the contract of rt.h, run against the real world. Every test is the main fiber of a world of its own. */
#include "base/arena.h"
#include "base/check.h"
#include "base/test.h"
#include "runtime/host.h"
#include "runtime/sched.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

struct ctx { /* what a fiber of a test needs */
    struct test *t;
    struct rt *rt;
    struct event event;
    struct stream *stream;
    struct scope *scope;
    struct text *log; /* the order of events, one letter each */
    char letter;
    int count;
    struct err err;
    bool flag;
};

struct run_in_world {
    struct test *t;
    void (*body)(struct test *, struct rt *);
};

static void
body_main(struct rt *rt, void *arg)
{
    struct run_in_world *r = arg;

    r->body(r->t, rt);
}

static void
in_world(struct test *t, void (*body)(struct test *, struct rt *))
{
    struct run_in_world r = { t, body };
    struct err e = rt_run(body_main, &r);

    EXPECT(t, !err_is(e));
}

#define WORLD_TEST(name)                                                                                               \
    static void name##_body(struct test *, struct rt *);                                                               \
    static void name(struct test *t)                                                                                   \
    {                                                                                                                  \
        in_world(t, name##_body);                                                                                      \
    }                                                                                                                  \
    static void name##_body(struct test *t, struct rt *rt)

/* ---- fibers ------------------------------------------------------------------------------------------------------ */

static void
say_letter_thrice(void *arg)
{
    struct ctx *c = arg;

    for (int i = 0; i < 3; i++) {
        text_put_byte(c->log, c->letter);
        fiber_yield(c->rt);
    }
}

WORLD_TEST(fibers_take_turns)
{
    char memory[32];
    struct text log = text_init(memory, sizeof memory);
    struct ctx a = { .rt = rt, .log = &log, .letter = 'a' }, b = { .rt = rt, .log = &log, .letter = 'b' };

    fiber_start(rt, "a", say_letter_thrice, &a);
    fiber_start(rt, "b", say_letter_thrice, &b);
    EXPECT_INT(t, fiber_count(rt), 3);
    while (fiber_count(rt) > 1)
        fiber_yield(rt);
    EXPECT_STR(t, text_str(&log), S("ababab"));
    EXPECT(t, fiber_room(rt));
}

static void
sleep_then_say(void *arg)
{
    struct ctx *c = arg;

    c->err = rt_sleep(c->rt, within(c->rt, c->count * 2 * MILLISECOND));
    text_put_byte(c->log, c->letter);
}

WORLD_TEST(sleepers_wake_in_the_order_of_their_time)
{
    char memory[8];
    struct text log = text_init(memory, sizeof memory);
    struct ctx late = { .rt = rt, .log = &log, .letter = 'l', .count = 3 };
    struct ctx soon = { .rt = rt, .log = &log, .letter = 's', .count = 1 };
    int64_t before = rt_now(rt);

    fiber_start(rt, "late", sleep_then_say, &late);
    fiber_start(rt, "soon", sleep_then_say, &soon);
    while (fiber_count(rt) > 1)
        EXPECT(t, !err_is(rt_sleep(rt, within(rt, MILLISECOND))));
    EXPECT_STR(t, text_str(&log), S("sl"));
    EXPECT(t, rt_now(rt) - before >= 6 * MILLISECOND);
    EXPECT(t, !err_is(rt_sleep(rt, 0))); /* long past */
}

static int
use_stack(struct rt *rt, int depth)
{
    volatile char frame[512];

    memset((void *)(uintptr_t)frame, depth, sizeof frame);
    fiber_yield(rt);
    return depth == 0 ? 0 : use_stack(rt, depth - 1) + (frame[17] == (char)depth);
}

static void
dive(void *arg)
{
    struct ctx *c = arg;

    c->count = use_stack(c->rt, 40);
}

WORLD_TEST(stacks_are_reused_and_keep_their_frames)
{
    struct ctx c[20];

    for (int round = 0; round < 10; round++) {
        for (size_t i = 0; i < 20; i++) {
            c[i] = (struct ctx){ .rt = rt };
            fiber_start(rt, "dive", dive, &c[i]);
        }
        while (fiber_count(rt) > 1)
            fiber_yield(rt);
        for (size_t i = 0; i < 20; i++)
            EXPECT_INT(t, c[i].count, 40);
    }
}

/* After a burst most free stacks have given their pages back; those that go on coming and going have not. */
WORLD_TEST(warm_stacks_stay_warm)
{
    enum { BURST = 200 };
    unsigned char *stacks[BURST];

    for (size_t i = 0; i < BURST; i++) {
        stacks[i] = stack_take(&rt->stacks);
        CHECK(stacks[i]);
        memset(stacks[i], 0x55, STACK_BYTES - 64);
    }
    for (size_t i = 0; i < BURST; i++)
        stack_put(&rt->stacks, stacks[i]);
    EXPECT_INT(t, rt->stacks.warm, rt->stacks.keep_warm);
    for (size_t i = 0; i < BURST; i++) {
        stacks[i] = stack_take(&rt->stacks);
        EXPECT(t, (stacks[i][0] == 0x55) == (i < rt->stacks.keep_warm));
    }
    for (size_t i = 0; i < BURST; i++)
        stack_put(&rt->stacks, stacks[i]);
    for (size_t i = 0; i < 10; i++) {
        stacks[0] = stack_take(&rt->stacks);
        stacks[0][0] = 0x56;
        stack_put(&rt->stacks, stacks[0]);
        unsigned char *same = stack_take(&rt->stacks);
        EXPECT(t, same == stacks[0] && same[0] == 0x56);
        stack_put(&rt->stacks, same);
    }
}

WORLD_TEST(unused_stack_is_given_back)
{
    unsigned char *stack = stack_take(&rt->stacks);
    size_t kept = 0, cleared = 0;

    CHECK(stack);
    memset(stack, 0x55, STACK_BYTES);
    stack_trim(stack, stack + STACK_BYTES - 5000);
    for (size_t i = 0; i < STACK_BYTES; i++) {
        kept += i >= STACK_BYTES - 5000 - 128 && stack[i] == 0x55; /* the ABI's red zone below the stack pointer too */
        cleared += i < STACK_BYTES - 5000 - 8192 && stack[i] == 0;
    }
    EXPECT_INT(t, kept, 5000 + 128);
    EXPECT_INT(t, cleared, STACK_BYTES - 5000 - 8192);
    stack_put(&rt->stacks, stack);
}

static void
rest_with_a_frame(void *arg)
{
    struct ctx *c = arg;
    volatile unsigned char frame[3000];

    for (size_t i = 0; i < sizeof frame; i++)
        frame[i] = (unsigned char)i;
    c->err = event_wait(c->rt, &c->event, FOREVER);
    for (size_t i = 0; i < sizeof frame; i++)
        c->count += frame[i] == (unsigned char)i;
}

WORLD_TEST(a_fiber_that_rests_keeps_its_frames)
{
    struct ctx c[200];
    struct event go;

    rt->trim_after_ns = MILLISECOND;
    event_init(&go);
    for (size_t i = 0; i < 200; i++) { /* more than one trim takes on */
        c[i] = (struct ctx){ .rt = rt };
        event_init(&c[i].event);
        fiber_start(rt, "rest", rest_with_a_frame, &c[i]);
    }
    fiber_yield(rt);
    while (!list_is_empty(&rt->resting))
        fiber_yield(rt);
    for (size_t i = 0; i < 200; i++)
        event_wake(rt, &c[i].event);
    while (fiber_count(rt) > 1)
        fiber_yield(rt);
    for (size_t i = 0; i < 200; i++)
        EXPECT_INT(t, c[i].count, 3000);
}

static void
note_trim(struct rt *rt)
{
    rt->trim_memory = NULL;
}

WORLD_TEST(memory_is_trimmed_once_many_fibers_rest)
{
    struct ctx c[64];

    rt->trim_after_ns = MILLISECOND;
    rt->trim_memory = note_trim;
    for (size_t i = 0; i < 64; i++) {
        c[i] = (struct ctx){ .rt = rt };
        event_init(&c[i].event);
        if (i < 63)
            fiber_start(rt, "rest", rest_with_a_frame, &c[i]);
    }
    fiber_yield(rt);
    while (!list_is_empty(&rt->resting))
        fiber_yield(rt);
    EXPECT(t, !heap_has(&rt->memory_trim.node));
    fiber_start(rt, "rest", rest_with_a_frame, &c[63]);
    while (!heap_has(&rt->memory_trim.node))
        fiber_yield(rt);
    alarm_set(rt, &rt->memory_trim, rt_now(rt));
    while (rt->trim_memory)
        fiber_yield(rt);
    EXPECT_INT(t, rt->rested, 0);
    for (size_t i = 0; i < 64; i++)
        event_wake(rt, &c[i].event);
    while (fiber_count(rt) > 1)
        fiber_yield(rt);
}

WORLD_TEST(memory_is_trimmed_once_much_was_freed)
{
    enum { MUCH = 32 << 20 };
    void *memory = mem_buffer(rt_mem(rt), MUCH);

    rt->trim_memory = note_trim;
    rt->memory_look_at = 0;
    while (rt->memory_look_at == 0)
        fiber_yield(rt);
    EXPECT(t, rt->trim_memory && rt->memory_most >= MUCH);
    mem_free(rt_mem(rt), memory, MUCH);
    rt->memory_look_at = 0;
    while (rt->memory_look_at == 0)
        fiber_yield(rt);
    EXPECT(t, !rt->trim_memory && rt->memory_most < MUCH);
}

WORLD_TEST(room_for_fibers_has_an_end)
{
    struct stacks few;

    stacks_init(&few, rt_mem(rt), 5000, false); /* an old kernel, with few mappings */
    EXPECT(t, !few.guard_by_advice);
    EXPECT(t, few.most < 2500);
    void *stack = stack_take(&few);
    few.most = 1;
    EXPECT(t, stack && !stacks_room(&few));
    stack_put(&few, stack);
    EXPECT(t, stacks_room(&few));
    stacks_done(&few);
}

static void
note_held(struct rt *rt, const char *fiber_name, int64_t ns)
{
    rt->held = ns >= rt->held_ns && strcmp(fiber_name, "holds") == 0 ? NULL : rt->held;
}

static void
hold_the_reactor(void *arg)
{
    struct ctx *c = arg;
    int64_t until = c->rt->clock(c->rt) + 2 * MILLISECOND;

    while (c->rt->clock(c->rt) < until)
        continue;
}

WORLD_TEST(who_holds_the_reactor_is_named)
{
    struct ctx c = { .rt = rt };

    rt->held = note_held;
    rt->held_ns = MILLISECOND;
    fiber_start(rt, "holds", hold_the_reactor, &c);
    fiber_yield(rt);
    EXPECT(t, rt->held == NULL);
}

/* ---- events and cancellation ------------------------------------------------------------------------------------- */

static void
wait_for_event(void *arg)
{
    struct ctx *c = arg;

    c->err = event_wait(c->rt, &c->event, FOREVER);
    c->flag = true;
}

WORLD_TEST(events_wake_one_or_all)
{
    struct ctx c = { .rt = rt };

    event_init(&c.event);
    for (int i = 0; i < 3; i++)
        fiber_start(rt, "waiter", wait_for_event, &c);
    fiber_yield(rt);
    event_wake_one(rt, &c.event);
    fiber_yield(rt);
    EXPECT_INT(t, fiber_count(rt), 3);
    event_wake(rt, &c.event);
    fiber_yield(rt);
    EXPECT_INT(t, fiber_count(rt), 1);
    EXPECT_INT(t, event_wait(rt, &c.event, within(rt, MILLISECOND)).kind, ERR_TIMEOUT);
    EXPECT_INT(t, event_wait(rt, &c.event, 0).kind, ERR_TIMEOUT);
}

static void
be_cancelled_then_say_goodbye(void *arg)
{
    struct ctx *c = arg;

    c->err = event_wait(c->rt, &c->event, FOREVER);
    /* Told once: the next wait is an ordinary one. */
    c->flag = !err_is(rt_sleep(c->rt, within(c->rt, MILLISECOND)));
}

WORLD_TEST(cancellation_is_told_once)
{
    struct ctx c = { .rt = rt };

    event_init(&c.event);
    struct fiber *f = fiber_start(rt, "waiter", be_cancelled_then_say_goodbye, &c);
    fiber_yield(rt);
    fiber_cancel(f);
    fiber_cancel(f);
    while (fiber_count(rt) > 1)
        fiber_yield(rt);
    EXPECT_INT(t, c.err.kind, ERR_CANCELLED);
    EXPECT(t, c.flag);
}

static void
cancel_before_first_call(void *arg)
{
    struct ctx *c = arg;

    c->err = rt_sleep(c->rt, 0);
}

WORLD_TEST(cancellation_meets_the_next_call)
{
    struct ctx c = { .rt = rt };
    struct fiber *f = fiber_start(rt, "sleeper", cancel_before_first_call, &c);

    fiber_cancel(f); /* it has not run yet */
    while (fiber_count(rt) > 1)
        fiber_yield(rt);
    EXPECT_INT(t, c.err.kind, ERR_CANCELLED);
}

static void
wait_long_after_cancel(void *arg)
{
    struct ctx *c = arg;

    c->err = event_wait(c->rt, &c->event, FOREVER);
    int64_t before = rt_now(c->rt);
    c->flag = event_wait(c->rt, &c->event, FOREVER).kind == ERR_TIMEOUT && rt_now(c->rt) > before;
}

WORLD_TEST(grace_bounds_later_waits)
{
    struct ctx c = { .rt = rt };

    event_init(&c.event);
    struct fiber *f = fiber_start(rt, "waiter", wait_long_after_cancel, &c);
    fiber_yield(rt);
    fiber_cancel(f);
    EXPECT(t, f->grace_until == rt_now(rt) + RT_CANCEL_GRACE_NS);
    f->grace_until = within(rt, 10 * MILLISECOND); /* shorter, for the test's sake */
    while (fiber_count(rt) > 1)
        EXPECT(t, !err_is(rt_sleep(rt, within(rt, MILLISECOND))));
    EXPECT_INT(t, c.err.kind, ERR_CANCELLED);
    EXPECT(t, c.flag);
}

WORLD_TEST(scope_ends_its_children)
{
    struct ctx c = { .rt = rt };
    struct scope scope;

    event_init(&c.event);
    scope_init(&scope, rt);
    for (int i = 0; i < 3; i++)
        scope_start(&scope, "child", wait_for_event, &c);
    fiber_yield(rt);
    EXPECT_INT(t, scope.count, 3);
    EXPECT_INT(t, scope_wait(&scope, within(rt, MILLISECOND)).kind, ERR_TIMEOUT);
    scope_end(&scope);
    EXPECT_INT(t, scope.count, 0);
    EXPECT_INT(t, fiber_count(rt), 1);
    EXPECT_INT(t, c.err.kind, ERR_CANCELLED);

    scope_start(&scope, "child", say_letter_thrice, &(struct ctx){ .rt = rt, .log = &(struct text){ 0 } });
    EXPECT(t, !err_is(scope_wait(&scope, FOREVER)));
    scope_end(&scope);
}

static void
outlive_main(void *arg)
{
    struct ctx *c = arg;

    c->err = event_wait(c->rt, &c->event, FOREVER);
    c->count++;
}

static void
start_and_leave(struct rt *rt, void *arg)
{
    struct ctx *c = arg;

    c->rt = rt;
    event_init(&c->event);
    fiber_start(rt, "outlive", outlive_main, c);
    fiber_yield(rt);
}

static void
a_world_cancels_what_is_left(struct test *t)
{
    struct ctx c = { 0 };

    EXPECT(t, !err_is(rt_run(start_and_leave, &c)));
    EXPECT_INT(t, c.err.kind, ERR_CANCELLED);
    EXPECT_INT(t, c.count, 1);
}

/* ---- timers and watches ------------------------------------------------------------------------------------------ */

static void
count_and_wake(void *arg)
{
    struct ctx *c = arg;

    EXPECT(c->t, fiber_current(c->rt) == NULL);
    c->count++;
    event_wake(c->rt, &c->event);
}

WORLD_TEST(timers_call_back_once)
{
    struct ctx c = { .t = t, .rt = rt };

    event_init(&c.event);
    timer_start(rt, within(rt, MILLISECOND), count_and_wake, &c);
    struct timer *never = timer_start(rt, within(rt, MILLISECOND), count_and_wake, &c);
    timer_stop(never);
    while (c.count == 0)
        EXPECT(t, !err_is(event_wait(rt, &c.event, within(rt, SECOND))));
    EXPECT_INT(t, event_wait(rt, &c.event, within(rt, 3 * MILLISECOND)).kind, ERR_TIMEOUT);
    EXPECT_INT(t, c.count, 1);
}

struct watched {
    struct ctx ctx;
    struct watch *watch;
    int fd;
    char byte;
};

static void
read_watched(void *arg, bool readable, bool writable)
{
    struct watched *w = arg;

    EXPECT(w->ctx.t, readable && !writable);
    EXPECT_INT(w->ctx.t, read(w->fd, &w->byte, 1), 1);
    watch_stop(w->watch);
    event_wake(w->ctx.rt, &w->ctx.event);
}

WORLD_TEST(watch_tells_of_a_foreign_descriptor)
{
    struct watched w = { .ctx = { .t = t, .rt = rt } };
    int fds[2];

    CHECK(pipe(fds) == 0);
    event_init(&w.ctx.event);
    w.fd = fds[0];
    w.watch = watch_start(rt, fds[0], true, false, read_watched, &w);
    EXPECT_INT(t, write(fds[1], "x", 1), 1);
    EXPECT(t, !err_is(event_wait(rt, &w.ctx.event, within(rt, SECOND))));
    EXPECT_INT(t, w.byte, 'x');
    close(fds[0]);
    close(fds[1]);
}

struct two_watches {
    struct watch *watch[2];
    int calls;
};

static void
stop_both(void *arg, bool readable, bool writable)
{
    struct two_watches *w = arg;

    (void)readable;
    (void)writable;
    w->calls++;
    watch_stop(w->watch[0]);
    watch_stop(w->watch[1]);
}

/* Both are ready in one batch of events: the second must not be called after it was stopped. */
WORLD_TEST(a_stopped_watch_is_silent)
{
    struct two_watches w = { 0 };
    int fds[2][2];

    for (int i = 0; i < 2; i++) {
        CHECK(pipe(fds[i]) == 0);
        w.watch[i] = watch_start(rt, fds[i][0], true, false, stop_both, &w);
        EXPECT_INT(t, write(fds[i][1], "x", 1), 1);
    }
    while (w.calls == 0)
        EXPECT(t, !err_is(rt_sleep(rt, within(rt, MILLISECOND))));
    EXPECT(t, !err_is(rt_sleep(rt, within(rt, MILLISECOND))));
    EXPECT_INT(t, w.calls, 1);
    for (int i = 0; i < 4; i++)
        close(fds[i / 2][i % 2]);
}

/* ---- streams ----------------------------------------------------------------------------------------------------- */

static void
pair(struct rt *rt, struct stream *out[2])
{
    struct handle handles[2];
    struct err e = stream_pair(rt, handles);

    CHECK(!err_is(e));
    for (int i = 0; i < 2; i++) {
        e = stream_from_handle(rt, handles[i], &out[i]);
        CHECK(!err_is(e));
    }
}

static struct address
loopback(bool v6)
{
    struct address a;

    CHECK(address_parse(v6 ? S("[::1]:0") : S("127.0.0.1:0"), &a));
    return a;
}

struct transfer {
    struct ctx ctx;
    size_t bytes;
    size_t step; /* of a read */
};

static unsigned char
pattern(size_t at)
{
    return (unsigned char)(at * 7 + at / 251);
}

static void
write_pattern(void *arg)
{
    struct transfer *w = arg;
    char chunk[999];

    for (size_t at = 0; at < w->bytes && !err_is(w->ctx.err);) {
        size_t n = w->bytes - at < sizeof chunk ? w->bytes - at : sizeof chunk;
        for (size_t i = 0; i < n; i++)
            chunk[i] = (char)pattern(at + i);
        /* In three parts, one of them empty: they must arrive as one. */
        struct str parts[] = { str_new(chunk, n / 3), S(""), str_new(chunk + n / 3, n - n / 3) };
        w->ctx.err = stream_write_parts(w->ctx.stream, parts, 3, within(w->ctx.rt, 10 * SECOND));
        at += n;
    }
    stream_shut_down(w->ctx.stream);
}

static void
read_pattern(struct test *t, struct stream *s, size_t bytes, size_t step)
{
    char chunk[1000];
    size_t at = 0, n, wrong = 0;

    for (;;) {
        struct err e = stream_read(s, chunk, step, within(stream_rt(s), 10 * SECOND), &n);
        if (!EXPECT(t, !err_is(e)) || n == 0)
            break;
        for (size_t i = 0; i < n; i++)
            wrong += (unsigned char)chunk[i] != pattern(at + i);
        at += n;
    }
    EXPECT_INT(t, at, bytes);
    EXPECT_INT(t, wrong, 0);
}

static void
transfer(struct test *t, struct rt *rt, struct stream *ends[2], size_t bytes, size_t step, size_t buffer)
{
    struct transfer w = { .ctx = { .rt = rt, .stream = ends[1] }, .bytes = bytes };
    struct scope scope;

    scope_init(&scope, rt);
    for (int i = 0; i < 2 && buffer; i++)
        stream_set_buffers(ends[i], buffer, buffer);
    scope_start(&scope, "writer", write_pattern, &w);
    read_pattern(t, ends[0], bytes, step);
    scope_end(&scope);
    EXPECT(t, !err_is(w.ctx.err));
    stream_close(ends[0]);
    stream_close(ends[1]);
}

/* Connects over loopback; ends[1] is the client's. */
static void
tcp_pair(struct test *t, struct rt *rt, bool v6, struct stream *ends[2])
{
    struct address at = loopback(v6), peer;
    struct listener *l;

    struct err e = listener_open(rt, &at, &l);
    CHECK(!err_is(e));
    at = listener_address(l);
    e = stream_connect(rt, &at, NULL, within(rt, SECOND), &ends[1]);
    CHECK(!err_is(e));
    e = listener_accept(l, within(rt, SECOND), &ends[0], &peer);
    CHECK(!err_is(e));
    struct address local = stream_local(ends[1]), remote = stream_peer(ends[1]);
    EXPECT(t, address_eq(&peer, &local));
    EXPECT(t, address_eq(&remote, &at));
    listener_close(l);
}

static const struct {
    const char *why;
    size_t bytes, step, buffer;
    bool tcp, v6;
} transfers[] = {
    { "one byte at a time", 3000, 1, 0, false, false },
    { "tiny buffers", 300000, 1000, 1, false, false },
    { "nothing at all", 0, 10, 0, false, false },
    { "much", 3000000, 1000, 0, false, false },
    { "TCP, one byte at a time", 3000, 1, 0, true, false },
    { "TCP, tiny buffers", 15000, 999, 1, true, false },
    { "TCP, much", 3000000, 1000, 0, true, true },
};

WORLD_TEST(streams_carry_every_byte)
{
    for (size_t i = 0; i < sizeof transfers / sizeof *transfers; i++) {
        struct stream *ends[2];
        test_case(t, transfers[i].why);
        if (transfers[i].tcp)
            tcp_pair(t, rt, transfers[i].v6, ends);
        else
            pair(rt, ends);
        transfer(t, rt, ends, transfers[i].bytes, transfers[i].step, transfers[i].buffer);
    }
}

static void
fill_until_told(void *arg)
{
    struct ctx *c = arg;
    char chunk[4096] = { 0 };

    while (!err_is(c->err))
        c->err = stream_write(c->stream, str_new(chunk, sizeof chunk), FOREVER);
    c->flag = true;
}

static void
read_until_told(void *arg)
{
    struct ctx *c = arg;
    char byte;
    size_t n = 1;

    while (!err_is(c->err) && n > 0)
        c->err = stream_read(c->stream, &byte, 1, FOREVER, &n);
    c->flag = true;
}

WORLD_TEST(closing_wakes_reader_and_writer)
{
    struct stream *ends[2];

    pair(rt, ends);
    struct ctx reader = { .rt = rt, .stream = ends[0] }, writer = { .rt = rt, .stream = ends[0] };
    fiber_start(rt, "reader", read_until_told, &reader);
    fiber_start(rt, "writer", fill_until_told, &writer);
    EXPECT(t, !err_is(rt_sleep(rt, within(rt, MILLISECOND)))); /* both wait */
    EXPECT(t, !reader.flag && !writer.flag);
    EXPECT(t, !err_is(stream_write(ends[1], S("x"), FOREVER)));
    stream_close(ends[0]);
    while (fiber_count(rt) > 1)
        fiber_yield(rt);
    EXPECT_INT(t, reader.err.kind, ERR_CLOSED);
    EXPECT_INT(t, writer.err.kind, ERR_CLOSED);
    stream_close(ends[1]);
}

/* Bytes on a stream come first: time passes only when there is nothing to do. */
static void
leap_body(struct test *t, struct rt *rt)
{
    struct stream *ends[2];
    char byte;
    size_t len;
    int64_t began = rt_now(rt);

    pair(rt, ends);
    EXPECT(t, !err_is(stream_write(ends[1], S("x"), FOREVER)));
    EXPECT(t, !err_is(stream_read(ends[0], &byte, 1, within(rt, HOUR), &len)) && len == 1);
    EXPECT_INT(t, rt_now(rt) - began, 0);
    EXPECT_INT(t, stream_read(ends[0], &byte, 1, within(rt, HOUR), &len).kind, ERR_TIMEOUT);
    EXPECT_INT(t, rt_now(rt) - began, HOUR);
    EXPECT(t, !err_is(rt_sleep(rt, within(rt, DAY + 1))));
    EXPECT_INT(t, rt_now(rt) - began, HOUR + DAY + 1);
    stream_close(ends[0]);
    stream_close(ends[1]);
}

static void
a_clock_that_leaps(struct test *t)
{
    EXPECT(t, !err_is(rt_run_leaping(body_main, &(struct run_in_world){ t, leap_body })));
}

WORLD_TEST(a_call_gives_up_in_time)
{
    struct stream *ends[2];
    char byte;
    size_t n = 7;

    pair(rt, ends);
    EXPECT_INT(t, stream_read(ends[0], &byte, 1, within(rt, MILLISECOND), &n).kind, ERR_TIMEOUT);
    EXPECT_INT(t, stream_wait_readable(ends[0], within(rt, MILLISECOND)).kind, ERR_TIMEOUT);
    EXPECT(t, !err_is(stream_read_now(ends[0], &byte, 1, &n)));
    EXPECT_INT(t, n, 0);
    EXPECT(t, !err_is(stream_write_now(ends[1], S("ab"), &n)));
    EXPECT_INT(t, n, 2);
    EXPECT(t, !err_is(stream_wait_readable(ends[0], within(rt, SECOND))));
    EXPECT(t, !err_is(stream_read_now(ends[0], &byte, 1, &n)));
    EXPECT_INT(t, n, 1);
    EXPECT_INT(t, byte, 'a');
    EXPECT(t, !err_is(stream_read(ends[0], &byte, 1, within(rt, SECOND), &n)));
    EXPECT_INT(t, byte, 'b');
    stream_close(ends[1]);
    EXPECT(t, !err_is(stream_wait_readable(ends[0], within(rt, SECOND))));
    EXPECT_INT(t, stream_read_now(ends[0], &byte, 1, &n).kind, ERR_CLOSED);
    EXPECT(t, !err_is(stream_read(ends[0], &byte, 1, within(rt, SECOND), &n)));
    EXPECT_INT(t, n, 0);
    EXPECT_INT(t, stream_write(ends[0], S("x"), within(rt, SECOND)).kind, ERR_RESET);
    stream_close(ends[0]);
}

WORLD_TEST(a_full_peer_takes_what_fits)
{
    struct stream *ends[2];
    char chunk[4096] = { 0 };
    size_t n;

    pair(rt, ends);
    do
        EXPECT(t, !err_is(stream_write_now(ends[0], str_new(chunk, sizeof chunk), &n)));
    while (n > 0);
    EXPECT_INT(t, stream_write(ends[0], S("x"), within(rt, MILLISECOND)).kind, ERR_TIMEOUT);
    EXPECT_INT(t, stream_wait_writable(ends[0], within(rt, MILLISECOND)).kind, ERR_TIMEOUT);
    do
        EXPECT(t, !err_is(stream_read_now(ends[1], chunk, sizeof chunk, &n)));
    while (n > 0);
    EXPECT(t, !err_is(stream_wait_writable(ends[0], within(rt, 10 * SECOND))));
    EXPECT(t, !err_is(stream_write_now(ends[0], S("x"), &n)));
    EXPECT_INT(t, n, 1);
    stream_close(ends[0]);
    stream_close(ends[1]);
}

static void *
answer_in_a_thread(void *arg)
{
    int fd = *(int *)arg;
    char byte;

    CHECK(read(fd, &byte, 1) == 1 && write(fd, "b", 1) == 1);
    return NULL;
}

static void
count_turns(void *arg)
{
    struct ctx *c = arg;

    for (c->count = 0; !err_is(fiber_turn(c->rt)); c->count++)
        ;
}

WORLD_TEST(an_answer_can_be_held_for)
{
    struct ctx c = { .rt = rt };
    struct handle ends[2];
    struct stream *stream;
    pthread_t thread;
    char byte = 0;
    size_t n;

    CHECK(!err_is(stream_pair(rt, ends)) && !err_is(stream_from_handle(rt, ends[0], &stream)));
    EXPECT(t, !err_is(stream_read_now(stream, &byte, 1, &n)));
    struct fiber *other = fiber_start(rt, "turns", count_turns, &c);
    EXPECT_INT(t, stream_hold_readable(stream, MILLISECOND).kind, ERR_TIMEOUT);
    EXPECT(t, !err_is(stream_write_now(stream, S("a"), &n)));
    CHECK(pthread_create(&thread, NULL, answer_in_a_thread, &ends[1].number) == 0);
    EXPECT(t, !err_is(stream_hold_readable(stream, 100 * SECOND)));
    EXPECT(t, !err_is(stream_read_now(stream, &byte, 1, &n)));
    EXPECT_INT(t, byte, 'b');
    EXPECT_INT(t, c.count, 0); /* nobody else ran */
    CHECK(pthread_join(thread, NULL) == 0);
    for (int i = 0; i < 3; i++)
        fiber_yield(rt);
    EXPECT(t, c.count > 3); /* many turns before it yields, and not for ever */
    fiber_cancel(other);
    while (fiber_count(rt) > 1)
        fiber_yield(rt);
    handle_close(rt, ends[1]);
    EXPECT(t, !err_is(stream_hold_readable(stream, 100 * SECOND)));
    EXPECT_INT(t, stream_read_now(stream, &byte, 1, &n).kind, ERR_CLOSED);
    stream_close(stream);
}

WORLD_TEST(a_reset_is_told)
{
    struct stream *ends[2];
    char byte;
    size_t n;

    tcp_pair(t, rt, false, ends);
    stream_reset(ends[1]);
    EXPECT_INT(t, stream_read(ends[0], &byte, 1, within(rt, SECOND), &n).kind, ERR_RESET);
    stream_close(ends[0]);
}

WORLD_TEST(handles_travel_with_the_bytes)
{
    struct stream *ends[2], *carried[2];
    struct handle inner[2], got[RT_HANDLES_MAX];
    char bytes[16];
    size_t n, count;
    struct peer_credentials who;

    pair(rt, ends);
    EXPECT(t, !err_is(stream_pair(rt, inner)));
    EXPECT(t, !err_is(stream_write(ends[0], S("before"), FOREVER)));
    EXPECT(t, !err_is(stream_write_handles(ends[0], S("take"), inner, 2, FOREVER)));
    EXPECT(t, !err_is(stream_write(ends[0], S("after"), FOREVER)));
    handle_close(rt, inner[0]);
    handle_close(rt, inner[1]);
    for (size_t all = 0, handles = 0; all < 15; all += n) {
        struct err e = stream_read_handles(ends[1], bytes, sizeof bytes, got + handles, &count,
                                           within(rt, SECOND), &n);
        if (!EXPECT(t, !err_is(e) && n > 0))
            break;
        handles += count;
        EXPECT(t, all + n < 15 || handles == 2);
    }
    for (int i = 0; i < 2; i++)
        EXPECT(t, !err_is(stream_from_handle(rt, got[i], &carried[i])));
    EXPECT(t, !err_is(stream_write(carried[0], S("hello"), FOREVER)));
    EXPECT(t, !err_is(stream_read(carried[1], bytes, sizeof bytes, within(rt, SECOND), &n)));
    EXPECT_STR(t, str_new(bytes, n), S("hello"));
    EXPECT(t, stream_peer_credentials(ends[0], &who) && who.pid == (uint32_t)getpid());
    for (int i = 0; i < 2; i++) {
        stream_close(carried[i]);
        stream_close(ends[i]);
    }
}

/* Handles that nobody asked for are closed by the kernel, and no byte behind them is lost. */
WORLD_TEST(unwanted_handles_do_not_stop_the_bytes)
{
    struct stream *ends[2];
    struct handle inner[2];
    char bytes[16];
    size_t n, all = 0;

    pair(rt, ends);
    EXPECT(t, !err_is(stream_pair(rt, inner)));
    EXPECT(t, !err_is(stream_write_handles(ends[0], S("take"), inner, 2, FOREVER)));
    EXPECT(t, !err_is(stream_write(ends[0], S("after"), FOREVER)));
    handle_close(rt, inner[0]);
    handle_close(rt, inner[1]);
    for (; all < 9; all += n)
        if (!EXPECT(t, !err_is(stream_read(ends[1], bytes, sizeof bytes, within(rt, SECOND), &n)) && n > 0))
            break;
    EXPECT_INT(t, all, 9);
    stream_close(ends[0]);
    stream_close(ends[1]);
}

/* A telnet client's interrupt is urgent data, at which the kernel stops a read though more is there. */
WORLD_TEST(urgent_data_does_not_stop_the_bytes)
{
    struct address at = loopback(false);
    struct sockaddr_in name = { .sin_family = AF_INET };
    struct listener *l;
    struct stream *s;
    char bytes[16];
    size_t n, all = 0;

    EXPECT(t, !err_is(listener_open(rt, &at, &l)));
    name.sin_port = htons(listener_address(l).port);
    name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(connect(fd, (struct sockaddr *)&name, sizeof name) == 0);
    EXPECT(t, !err_is(listener_accept(l, within(rt, SECOND), &s, NULL)));
    CHECK(send(fd, "ab", 2, 0) == 2 && send(fd, "!", 1, MSG_OOB) == 1 && send(fd, "cd", 2, 0) == 2);
    for (; all < 4; all += n)
        if (!EXPECT(t, !err_is(stream_read(s, bytes + all, sizeof bytes - all, within(rt, 5 * SECOND), &n)) && n > 0))
            break;
    EXPECT_STR(t, str_new(bytes, all), S("abcd"));
    close(fd);
    stream_close(s);
    listener_close(l);
}

/* ---- listeners --------------------------------------------------------------------------------------------------- */

WORLD_TEST(nobody_listens)
{
    struct address at = loopback(false);
    struct listener *l;
    struct stream *s;

    EXPECT(t, !err_is(listener_open(rt, &at, &l)));
    at = listener_address(l);
    EXPECT(t, at.port != 0);
    EXPECT_INT(t, listener_accept(l, within(rt, MILLISECOND), &s, NULL).kind, ERR_TIMEOUT);
    listener_close(l);
    EXPECT_INT(t, stream_connect(rt, &at, NULL, within(rt, SECOND), &s).kind, ERR_REFUSED);
}

WORLD_TEST(a_listener_is_shared)
{
    struct address at = loopback(false), from = loopback(false);
    struct listener *first, *second;
    struct stream *client, *server;

    EXPECT(t, !err_is(listener_open(rt, &at, &first)));
    EXPECT(t, !err_is(listener_from_handle(rt, listener_handle(rt, first), &second)));
    listener_close(first);
    at = listener_address(second);
    EXPECT(t, !err_is(stream_connect(rt, &at, &from, within(rt, SECOND), &client)));
    EXPECT(t, !err_is(listener_accept(second, within(rt, SECOND), &server, NULL)));
    stream_close(client);
    stream_close(server);
    listener_close(second);
}

WORLD_TEST(accepting_without_descriptors_is_an_error_that_passes)
{
    struct address at = loopback(false);
    struct listener *l;
    struct stream *client, *server;
    struct rlimit before, none;

    EXPECT(t, !err_is(listener_open(rt, &at, &l)));
    at = listener_address(l);
    EXPECT(t, !err_is(stream_connect(rt, &at, NULL, within(rt, SECOND), &client)));
    CHECK(getrlimit(RLIMIT_NOFILE, &before) == 0);
    none = before;
    none.rlim_cur = 3;
    CHECK(setrlimit(RLIMIT_NOFILE, &none) == 0);
    EXPECT_INT(t, listener_accept(l, within(rt, SECOND), &server, NULL).kind, ERR_NO_FILES);
    CHECK(setrlimit(RLIMIT_NOFILE, &before) == 0);
    EXPECT(t, !err_is(listener_accept(l, within(rt, SECOND), &server, NULL))); /* no new connection had to come */
    stream_close(client);
    stream_close(server);
    listener_close(l);
}

/* A directory that is made for the test and removed with all that is in it. */
struct place {
    char path[64];
    struct dir *dir;
    struct mem mem;
    struct arena arena;
};

static void
place_make(struct rt *rt, struct place *p)
{
    memcpy(p->path, "/tmp/rt_test.XXXXXX", 20);
    CHECK(mkdtemp(p->path));
    struct err e = dir_open(rt, str_from_cstr(p->path), LANE_POOL, FOREVER, &p->dir);
    CHECK(!err_is(e));
    p->mem = mem_libc();
    arena_init(&p->arena, &p->mem, 1024, 1 << 20);
}

static void
place_remove(struct place *p)
{
    struct str *names;
    size_t count;

    struct err e = dir_list(p->dir, &p->arena, LANE_POOL, FOREVER, &names, &count);
    CHECK(!err_is(e));
    for (size_t i = 0; i < count; i++)
        (void)dir_unlink(p->dir, names[i], LANE_POOL, FOREVER);
    dir_close(p->dir);
    arena_done(&p->arena);
    CHECK(rmdir(p->path) == 0);
}

WORLD_TEST(a_unix_listener_replaces_what_was_left)
{
    struct place p;
    struct address at = { .family = ADDRESS_UNIX };
    struct listener *first, *second;
    struct stream *client, *server;

    place_make(rt, &p);
    CHECK(strlen(p.path) + sizeof "/socket" <= sizeof at.path);
    memcpy(at.path, p.path, strlen(p.path));
    memcpy(at.path + strlen(p.path), "/socket", sizeof "/socket");
    EXPECT(t, !err_is(listener_open(rt, &at, &first)));
    listener_close(first);
    EXPECT(t, !err_is(listener_open(rt, &at, &second)));
    EXPECT_INT(t, listener_open(rt, &at, &first).kind, ERR_BUSY); /* a second server must not take the first one's */
    EXPECT(t, !err_is(listener_accept(second, within(rt, 30 * SECOND), &server, NULL)));
    stream_close(server);
    EXPECT(t, !err_is(stream_connect(rt, &at, NULL, within(rt, 30 * SECOND), &client)));
    EXPECT(t, !err_is(listener_accept(second, within(rt, 30 * SECOND), &server, NULL)));
    stream_close(client);
    stream_close(server);
    listener_close(second);
    place_remove(&p);
}

/* ---- files ------------------------------------------------------------------------------------------------------- */

WORLD_TEST(files_keep_what_was_written)
{
    static const enum lane lanes[] = { LANE_COMMIT, LANE_BACKGROUND, LANE_POOL, LANE_DELIVERY };
    struct place p;

    place_make(rt, &p);
    for (size_t i = 0; i < LANES; i++) {
        enum lane lane = lanes[i];
        struct file *f;
        char bytes[32];
        size_t n;
        uint64_t size, inodes;
        const struct str parts[] = { S("Hello"), S(""), S(", "), S("disk") };
        EXPECT(t, !err_is(file_open(p.dir, S("a"), FILE_READ | FILE_WRITE | FILE_CREATE | FILE_NEW, 0600, lane,
                                    FOREVER, &f)));
        EXPECT(t, !err_is(file_write(f, parts, 4, 2, lane, FOREVER)));
        EXPECT(t, !err_is(file_write_sync(f, parts, 1, 13, lane, FOREVER)));
        EXPECT(t, !err_is(file_sync(f, lane, FOREVER)));
        EXPECT(t, !err_is(dir_sync(p.dir, lane, FOREVER)));
        EXPECT(t, !err_is(file_read(f, bytes, sizeof bytes, 0, lane, FOREVER, &n)));
        EXPECT_STR(t, str_new(bytes, n), str_new("\0\0Hello, diskHello", 18));
        EXPECT(t, !err_is(file_set_size(f, 7, lane, FOREVER)));
        EXPECT(t, !err_is(file_size(f, lane, FOREVER, &size)));
        EXPECT_INT(t, size, 7);
        EXPECT(t, !err_is(dir_free_space(p.dir, lane, FOREVER, &size, &inodes)));
        EXPECT(t, size > 0 && inodes > 0);
        file_close(f);
        EXPECT(t, !err_is(dir_unlink(p.dir, S("a"), lane, FOREVER)));
    }
    place_remove(&p);
}

WORLD_TEST(large_background_reads_come_whole)
{
    enum { SIZE = (2 << 20) + 12345 };
    struct place p;
    struct file *f;
    size_t n, wrong = 0;
    unsigned char *bytes = mem_alloc(rt_mem(rt), SIZE);

    place_make(rt, &p);
    for (size_t i = 0; i < SIZE; i++)
        bytes[i] = pattern(i);
    struct str all = str_new(bytes, SIZE);
    EXPECT(t, !err_is(file_open(p.dir, S("large"), FILE_READ | FILE_WRITE | FILE_CREATE, 0600, LANE_POOL, FOREVER,
                                &f)));
    EXPECT(t, !err_is(file_write(f, &all, 1, 0, LANE_BACKGROUND, FOREVER)));
    memset(bytes, 0, SIZE);
    EXPECT(t, !err_is(file_read(f, bytes, SIZE, 0, LANE_BACKGROUND, FOREVER, &n)));
    EXPECT_INT(t, n, SIZE);
    for (size_t i = 0; i < SIZE; i++)
        wrong += bytes[i] != pattern(i);
    EXPECT_INT(t, wrong, 0);
    file_close(f);
    place_remove(&p);
    mem_free(rt_mem(rt), bytes, SIZE);
}

static const struct {
    const char *why;
    struct str name;
    int32_t kind;
} bad_names[] = {
    { "leaves by dots", STR("../escape"), ERR_SYNTAX },
    { "leaves by dots inside", STR("sub/../../escape"), ERR_SYNTAX },
    { "is absolute", STR("/etc/passwd"), ERR_SYNTAX },
    { "is empty", STR(""), ERR_SYNTAX },
    { "has a NUL", STR("a\0b"), ERR_SYNTAX },
    { "goes through a link", STR("link/passwd"), ERR_IO }, /* ELOOP */
    { "is a link", STR("link"), ERR_IO },
    { "is not there", STR("nothing"), ERR_NOT_FOUND },
    { "its directory is not there", STR("nothing/at/all"), ERR_NOT_FOUND },
};

WORLD_TEST(names_stay_below_their_directory)
{
    struct place p;
    struct file *f;

    place_make(rt, &p);
    char link[80];
    struct text path = text_init(link, sizeof link);
    text_putf(&path, "%s/link", p.path);
    CHECK(symlink("/etc", text_cstr(&path)) == 0);
    EXPECT(t, !err_is(dir_make(p.dir, S("sub"), 0700, LANE_POOL, FOREVER)));
    for (size_t i = 0; i < sizeof bad_names / sizeof *bad_names; i++) {
        test_case(t, bad_names[i].why);
        struct err e = file_open(p.dir, bad_names[i].name, FILE_READ, 0, LANE_POOL, FOREVER, &f);
        EXPECT_INT(t, e.kind, bad_names[i].kind);
    }
    test_case(t, "rename, unlink and make as well");
    EXPECT(t, err_is(dir_unlink(p.dir, S("link/passwd"), LANE_POOL, FOREVER)));
    EXPECT(t, err_is(dir_make(p.dir, S("link/new"), 0700, LANE_POOL, FOREVER)));
    EXPECT(t, err_is(dir_rename(p.dir, S("sub"), p.dir, S("link/sub"), LANE_POOL, FOREVER)));
    path = text_init(link, sizeof link);
    text_putf(&path, "%s/sub", p.path);
    CHECK(rmdir(text_cstr(&path)) == 0);
    place_remove(&p);
}

WORLD_TEST(directories_list_in_byte_order)
{
    static const struct str names[] = { STR("b"), STR("a"), STR("B"), STR("aa"), STR(".hidden") };
    struct place p;
    struct str *got;
    size_t count;
    struct file *f;
    struct dir *sub;

    place_make(rt, &p);
    for (size_t i = 0; i < 5; i++) {
        EXPECT(t, !err_is(file_open(p.dir, names[i], FILE_WRITE | FILE_CREATE, 0600, LANE_POOL, FOREVER, &f)));
        file_close(f);
    }
    EXPECT(t, !err_is(dir_list(p.dir, &p.arena, LANE_POOL, FOREVER, &got, &count)));
    if (EXPECT_INT(t, count, 5)) {
        EXPECT_STR(t, got[0], S(".hidden"));
        EXPECT_STR(t, got[1], S("B"));
        EXPECT_STR(t, got[2], S("a"));
        EXPECT_STR(t, got[3], S("aa"));
        EXPECT_STR(t, got[4], S("b"));
    }
    struct arena small;
    arena_init(&small, rt_mem(rt), 512, 100); /* less than the five names and their places */
    EXPECT_INT(t, dir_list(p.dir, &small, LANE_POOL, FOREVER, &got, &count).kind, ERR_LIMIT);
    EXPECT_INT(t, small.used, 0);
    arena_done(&small);
    EXPECT(t, !err_is(dir_make(p.dir, S("sub"), 0700, LANE_POOL, FOREVER)));
    EXPECT_INT(t, dir_make(p.dir, S("sub"), 0700, LANE_POOL, FOREVER).kind, ERR_EXISTS);
    EXPECT(t, !err_is(dir_open_at(p.dir, S("sub"), LANE_POOL, FOREVER, &sub)));
    EXPECT(t, !err_is(dir_rename(p.dir, S("a"), sub, S("moved"), LANE_POOL, FOREVER)));
    EXPECT(t, !err_is(dir_rename(p.dir, S("sub/moved"), p.dir, S("back"), LANE_POOL, FOREVER)));
    EXPECT(t, !err_is(dir_rename_sync(p.dir, S("back"), p.dir, S("sub/moved"), LANE_POOL, FOREVER)));
    EXPECT(t, !err_is(dir_rename_sync(sub, S("moved"), p.dir, S("back"), LANE_POOL, FOREVER)));
    EXPECT_INT(t, dir_rename_sync(sub, S("moved"), p.dir, S("back"), LANE_POOL, FOREVER).kind, ERR_NOT_FOUND);
    EXPECT(t, !err_is(dir_list(sub, &p.arena, LANE_POOL, FOREVER, &got, &count)));
    EXPECT_INT(t, count, 0);
    dir_close(sub);
    char path[80];
    struct text text = text_init(path, sizeof path);
    text_putf(&text, "%s/sub", p.path);
    CHECK(rmdir(text_cstr(&text)) == 0);
    place_remove(&p);
}

WORLD_TEST(a_lock_is_held_once)
{
    struct place p;
    struct file *first, *second;

    place_make(rt, &p);
    EXPECT(t, !err_is(dir_lock(p.dir, S("lock"), FOREVER, &first)));
    EXPECT_INT(t, dir_lock(p.dir, S("lock"), FOREVER, &second).kind, ERR_BUSY);
    file_close(first);
    EXPECT(t, !err_is(dir_lock(p.dir, S("lock"), FOREVER, &second)));
    file_close(second);
    place_remove(&p);
}

WORLD_TEST(directories_and_files_travel_as_handles)
{
    struct place p;
    struct dir *dir;
    struct file *file;
    char bytes[8];
    size_t n;
    struct str content = S("content");

    place_make(rt, &p);
    EXPECT(t, !err_is(dir_from_handle(rt, dir_handle(rt, p.dir), &dir)));
    EXPECT(t, !err_is(file_open(dir, S("a"), FILE_WRITE | FILE_CREATE, 0600, LANE_POOL, FOREVER, &file)));
    EXPECT(t, !err_is(file_claim(file, 100, LANE_POOL, FOREVER)));
    EXPECT(t, !err_is(file_write(file, &content, 1, 0, LANE_POOL, FOREVER)));
    file_close(file);
    dir_close(dir);
    CHECK(chdir(p.path) == 0);
    int fd = open("a", O_RDONLY | O_CLOEXEC);
    CHECK(chdir("/") == 0 && fd >= 0);
    EXPECT_INT(t, dir_from_handle(rt, (struct handle){ dup(fd) }, &dir).kind, ERR_NOT_FOUND);
    EXPECT(t, !err_is(file_from_handle(rt, (struct handle){ fd }, &file)));
    EXPECT(t, !err_is(file_read(file, bytes, 7, 0, LANE_POOL, FOREVER, &n)));
    EXPECT_STR(t, str_new(bytes, n), S("content"));
    file_close(file);
    place_remove(&p);
}

/* ---- helper work ------------------------------------------------------------------------------------------------- */

struct gate { /* holds helper threads until it is told */
    int began, hold; /* ends of pipes: says that it runs, waits for a byte */
    struct err err;
    struct rt *rt;
    int64_t until;
    bool done, ended;
};

static void
wait_at_gate(void *arg)
{
    struct gate *g = arg;
    char byte = 'b';

    CHECK(write(g->began, &byte, 1) == 1);
    CHECK(read(g->hold, &byte, 1) == 1);
    g->done = true;
}

static void
offload_gate(void *arg)
{
    struct gate *g = arg;

    g->err = rt_offload(g->rt, wait_at_gate, g, g->until);
    g->ended = true;
}

static void
add_up(void *arg)
{
    volatile char stack[300 << 10]; /* more than a fiber has */

    stack[0] = 1;
    stack[sizeof stack - 1] = 2;
    *(int *)arg += stack[0] + stack[sizeof stack - 1];
}

WORLD_TEST(offloaded_work_has_a_large_stack)
{
    int sum = 39;

    EXPECT(t, !err_is(rt_offload(rt, add_up, &sum, FOREVER)));
    EXPECT_INT(t, sum, 42);
}

/* Blocks the reactor too, which is fine here: it is the helper threads that are waited for. */
static void
wait_for_byte(int fd)
{
    char byte;

    CHECK(read(fd, &byte, 1) == 1);
}

/* More work than threads: who waits for a turn may leave, who has begun stays. */
WORLD_TEST(a_turn_is_waited_for_in_time)
{
    enum { BUSY = 16 };
    struct gate gates[BUSY], late;
    int began[2], hold[2];
    size_t done = 0;

    CHECK(pipe(began) == 0 && pipe(hold) == 0);
    int64_t soon = within(rt, 10 * SECOND);
    for (size_t i = 0; i < BUSY; i++) {
        gates[i] = (struct gate){ .began = began[1], .hold = hold[0], .rt = rt, .until = FOREVER };
        fiber_start(rt, "gate", offload_gate, &gates[i]);
    }
    fiber_yield(rt);
    wait_for_byte(began[0]);
    late = (struct gate){ .began = began[1], .hold = hold[0], .rt = rt, .until = within(rt, MILLISECOND) };
    fiber_start(rt, "late", offload_gate, &late);
    while (!late.ended && rt_now(rt) < soon)
        fiber_yield(rt);
    EXPECT_INT(t, late.err.kind, ERR_TIMEOUT);
    EXPECT(t, !late.done);
    for (size_t i = 0; i < BUSY; i++)
        CHECK(write(hold[1], "x", 1) == 1);
    while (fiber_count(rt) > 1)
        EXPECT(t, !err_is(rt_sleep(rt, within(rt, MILLISECOND))));
    for (size_t i = 0; i < BUSY; i++)
        done += gates[i].done && !err_is(gates[i].err);
    EXPECT_INT(t, done, BUSY);

    gates[0] = (struct gate){ .began = began[1], .hold = hold[0], .rt = rt, .until = within(rt, SECOND) };
    for (size_t i = 1; i < BUSY; i++)
        wait_for_byte(began[0]);
    fiber_start(rt, "begun", offload_gate, &gates[0]);
    fiber_yield(rt);
    wait_for_byte(began[0]);
    EXPECT(t, !err_is(rt_sleep(rt, gates[0].until + 5 * MILLISECOND)));
    EXPECT(t, !gates[0].ended);
    CHECK(write(hold[1], "x", 1) == 1);
    while (fiber_count(rt) > 1)
        EXPECT(t, !err_is(rt_sleep(rt, within(rt, MILLISECOND))));
    EXPECT(t, gates[0].done && !err_is(gates[0].err));
    for (int i = 0; i < 2; i++) {
        close(began[i]);
        close(hold[i]);
    }
}

/* The thread uses the fiber's memory: the fiber learns of its cancellation only afterwards. */
static void
offload_then_sleep(void *arg)
{
    struct gate *g = arg;

    g->err = rt_offload(g->rt, wait_at_gate, g, FOREVER);
    g->ended = rt_sleep(g->rt, 0).kind == ERR_CANCELLED;
}

WORLD_TEST(begun_work_is_not_cancelled)
{
    int began[2], hold[2];

    CHECK(pipe(began) == 0 && pipe(hold) == 0);
    struct gate g = { .began = began[1], .hold = hold[0], .rt = rt };
    struct fiber *f = fiber_start(rt, "gate", offload_then_sleep, &g);
    fiber_yield(rt);
    wait_for_byte(began[0]);
    fiber_cancel(f);
    EXPECT(t, !err_is(rt_sleep(rt, within(rt, MILLISECOND))));
    EXPECT_INT(t, fiber_count(rt), 2);
    CHECK(write(hold[1], "x", 1) == 1);
    while (fiber_count(rt) > 1)
        EXPECT(t, !err_is(rt_sleep(rt, within(rt, MILLISECOND))));
    EXPECT(t, g.done && !err_is(g.err) && g.ended);
    for (int i = 0; i < 2; i++) {
        close(began[i]);
        close(hold[i]);
    }
}

/* ---- the machine as its operator sees it ------------------------------------------------------------------------- */

WORLD_TEST(what_a_link_leads_to_is_not_given_away)
{
    char file[80], link[80];
    struct host_file found;
    struct place p;

    place_make(rt, &p);
    snprintf(file, sizeof file, "%s/file", p.path);
    snprintf(link, sizeof link, "%s/link", p.path);
    EXPECT(t, !err_is(host_write_file(rt, str_from_cstr(file), S("x"), 0600, FOREVER)));
    CHECK(symlink("file", link) == 0);
    EXPECT(t, err_is(host_own(rt, str_from_cstr(link), 0666, -1, -1, FOREVER)));
    struct handle handle = HANDLE_NONE;
    EXPECT_INT(t, host_open_plain(rt, str_from_cstr(link), FOREVER, &handle, &found).kind, ERR_DENIED);
    EXPECT_INT(t, host_open_plain(rt, str_from_cstr(p.path), FOREVER, &handle, &found).kind, ERR_DENIED);
    struct sockaddr_un bound = { .sun_family = AF_UNIX };
    int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    snprintf(bound.sun_path, sizeof bound.sun_path, "%s/socket", p.path);
    CHECK(s >= 0 && bind(s, (struct sockaddr *)&bound, sizeof bound) == 0);
    EXPECT_INT(t, host_open_plain(rt, str_from_cstr(bound.sun_path), FOREVER, &handle, &found).kind, ERR_DENIED);
    CHECK(close(s) == 0 && unlink(bound.sun_path) == 0);
    EXPECT(t, handle_is_none(handle) && !err_is(host_open_plain(rt, str_from_cstr(file), FOREVER, &handle, &found)));
    EXPECT(t, found.mode == 0600 && found.size == 1);
    handle_close(rt, handle);
    EXPECT(t, !err_is(host_stat(rt, str_from_cstr(file), FOREVER, &found)));
    EXPECT_INT(t, found.mode, 0600);
    EXPECT(t, !err_is(host_own(rt, str_from_cstr(file), 0640, (int64_t)getuid(), -1, FOREVER)));
    EXPECT(t, !err_is(host_stat(rt, str_from_cstr(file), FOREVER, &found)));
    EXPECT_INT(t, found.mode, 0640);
    place_remove(&p);
}

static unsigned
mode_of(struct rt *rt, const char *path)
{
    struct host_file found = { 0 };

    return err_is(host_stat(rt, str_from_cstr(path), FOREVER, &found)) ? 0 : found.mode;
}

WORLD_TEST(directories_on_the_way_are_for_all_to_pass)
{
    char above[80], made[90];
    struct place p;

    place_make(rt, &p);
    snprintf(above, sizeof above, "%s/above", p.path);
    snprintf(made, sizeof made, "%s/made", above);
    mode_t before = umask(077); /* as dist/postrider.service has it */
    EXPECT(t, !err_is(host_make_dir(rt, str_from_cstr(made), 0750, -1, -1, FOREVER)));
    umask(before);
    EXPECT_INT(t, mode_of(rt, above), 0755);
    EXPECT_INT(t, mode_of(rt, made), 0750);
    CHECK(chmod(made, 0700) == 0 && chmod(above, 0711) == 0);
    EXPECT(t, !err_is(host_make_dir(rt, str_from_cstr(made), 0750, -1, -1, FOREVER)));
    EXPECT_INT(t, mode_of(rt, above), 0711); /* what is there is left as it is */
    EXPECT_INT(t, mode_of(rt, made), 0700);
    CHECK(rmdir(made) == 0 && rmdir(above) == 0);
    place_remove(&p);
}

WORLD_TEST(root_makes_nothing_where_somebody_elses_link_leads)
{
    static const struct {
        const char *why, *path;
        bool as_others, as_root; /* what a user may, and what root may */
    } cases[] = {
        { "through our own link", "ours/a", true, true },
        { "and links one behind the other", "twice/b/c", true, true },
        { "a link at the end, which leads nowhere yet", "last", true, true },
        { "somebody else's link to what is there", "theirs/a", true, true },
        { "and to what is not", "theirs/d", true, false },
        { "nor further behind it", "theirs/a/e", true, false },
        { "nor where theirs leads by ours", "byours/f", true, false },
        { "up again from ours", "ours/../g", true, true },
        { "a link to itself", "loop/h", false, false },
        { "a file in the way", "file/i", false, false },
        { "a file in its place", "file", false, false },
    };
    static const char *const links[][2] = { { "ours", "real" }, { "twice", "./ours//" }, { "last", "real/z" },
                                            { "theirs", "real" }, { "byours", "theirs" }, { "loop", "loop" } };
    static const char *const made[] = { "real/a/e", "real/a", "real/b/c", "real/b", "real/d", "real/f", "real/z", "real", "g" };
    char path[120];
    struct place p;

    place_make(rt, &p);
    snprintf(path, sizeof path, "%s/real", p.path);
    CHECK(mkdir(path, 0755) == 0);
    snprintf(path, sizeof path, "%s/file", p.path);
    EXPECT(t, !err_is(host_write_file(rt, str_from_cstr(path), S("x"), 0600, FOREVER)));
    for (size_t i = 0; i < sizeof links / sizeof *links; i++) {
        snprintf(path, sizeof path, "%s/%s", p.path, links[i][0]);
        CHECK(symlink(links[i][1], path) == 0);
        if (strcmp(links[i][0], "theirs") == 0 && geteuid() == 0)
            CHECK(lchown(path, 65534, 65534) == 0);
    }
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        test_case(t, cases[i].why);
        snprintf(path, sizeof path, "%s/%s", p.path, cases[i].path);
        EXPECT_INT(t, !err_is(host_make_dir(rt, str_from_cstr(path), 0700, -1, -1, FOREVER)),
                   geteuid() == 0 ? cases[i].as_root : cases[i].as_others);
    }
    for (size_t i = 0; i < sizeof made / sizeof *made; i++) {
        snprintf(path, sizeof path, "%s/%s", p.path, made[i]);
        (void)rmdir(path);
    }
    for (size_t i = 0; i < sizeof links / sizeof *links; i++) {
        snprintf(path, sizeof path, "%s/%s", p.path, links[i][0]);
        CHECK(unlink(path) == 0);
    }
    place_remove(&p);
}

/* ---- last words -------------------------------------------------------------------------------------------------- */

static int
go_deeper(int depth)
{
    volatile char frame[1024];

    frame[0] = (char)depth;
    return depth > 0 ? go_deeper(depth - 1) + frame[0] : 0;
}

static void
run_off_the_stack(void *arg)
{
    *(volatile int *)arg = go_deeper(1 << 20);
}

static void
overflow_in_a_fiber(struct rt *rt, void *arg)
{
    fiber_start(rt, "deep one", run_off_the_stack, arg);
    rt_sleep(rt, FOREVER);
}

static void
overflow_in_a_thread(struct rt *rt, void *arg)
{
    rt_offload(rt, run_off_the_stack, arg, FOREVER);
}

static struct str
last_words_of(void (*body)(struct rt *, void *), char *memory, size_t cap, int *out_status)
{
    int ends[2], number = 0;
    size_t len = 0;
    ssize_t n;

    CHECK(pipe(ends) == 0);
    fflush(stdout);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        CHECK(dup2(ends[1], STDERR_FILENO) == STDERR_FILENO);
        (void)rt_run(body, &number);
        _exit(0);
    }
    close(ends[1]);
    while ((n = read(ends[0], memory + len, cap - len)) > 0)
        len += (size_t)n;
    close(ends[0]);
    CHECK(waitpid(pid, out_status, 0) == pid);
    return str_new(memory, len);
}

static void
who_overflows_is_named(struct test *t)
{
    enum { WORDS_MAX = 64 << 10 }; /* a sanitizer's report comes behind */
    char *memory = malloc(WORDS_MAX);
    int status = 0;

    CHECK(memory);
    struct str words = last_words_of(overflow_in_a_fiber, memory, WORDS_MAX, &status);
    EXPECT(t, str_find(words, S("]: fiber \"deep one\" ran off its stack\n")) < words.len);
    EXPECT(t, status != 0);
    words = last_words_of(overflow_in_a_thread, memory, WORDS_MAX, &status);
    EXPECT(t, str_find(words, S("]: thread \"pool\" touched memory that it has not\n")) < words.len);
    EXPECT(t, status != 0);
    free(memory);
}

/* ---- children and signals ---------------------------------------------------------------------------------------- */

WORLD_TEST(children_tell_how_they_ended)
{
    static const char *const seven[] = { "sh", "-c", "exit 7", NULL };
    static const char *const long_sleep[] = { "sleep", "1000", NULL };
    static const char *const nothing[] = { "nothing", NULL };
    struct child *c;
    int status = -1;

    EXPECT(t, !err_is(child_start(rt, &(struct spawn){ .argv = seven, .program = "/bin/sh" }, &c)));
    EXPECT(t, child_pid(c) > 1);
    EXPECT(t, !err_is(child_wait(c, within(rt, 100 * SECOND), &status)));
    EXPECT_INT(t, status, 7);

    EXPECT(t, !err_is(child_start(rt, &(struct spawn){ .argv = long_sleep, .program = "/bin/sleep" }, &c)));
    EXPECT_INT(t, child_wait(c, within(rt, MILLISECOND), &status).kind, ERR_TIMEOUT);
    child_signal(c, SIGTERM);
    EXPECT(t, !err_is(child_wait(c, within(rt, 100 * SECOND), &status)));
    EXPECT_INT(t, status, 256 + SIGTERM);

    EXPECT_INT(t, child_start(rt, &(struct spawn){ .argv = nothing, .program = "/nonexistent/x" }, &c).kind,
               ERR_NOT_FOUND);

    EXPECT(t, !err_is(child_start(rt, &(struct spawn){ .argv = seven, .program = "/bin/sh" }, &c)));
    child_release(c);
}

WORLD_TEST(children_get_their_handles)
{
    /* Says on descriptor 4 what it reads from descriptor 3, and which descriptors it has. */
    static const char *const argv[] = { "sh", "-c", "read line <&3; echo \"got $line\" >&4; for i in 5 6 7 8 9; do "
                                        "if [ -e /proc/self/fd/$i ]; then echo extra $i >&4; fi; done", NULL };
    struct handle in[2], out[2];
    struct stream *to, *from;
    struct child *c;
    char bytes[64];
    size_t len = 0, n;
    int status;

    EXPECT(t, !err_is(stream_pair(rt, in)) && !err_is(stream_pair(rt, out)));
    const struct handle handles[] = { in[1], out[1] };
    struct spawn spawn = { .argv = argv, .program = "/bin/sh", .handles = handles, .handle_count = 2 };
    EXPECT(t, !err_is(child_start(rt, &spawn, &c)));
    handle_close(rt, in[1]);
    handle_close(rt, out[1]);
    EXPECT(t, !err_is(stream_from_handle(rt, in[0], &to)));
    EXPECT(t, !err_is(stream_from_handle(rt, out[0], &from)));
    EXPECT(t, !err_is(stream_write(to, S("line\n"), FOREVER)));
    do {
        struct err e = stream_read(from, bytes + len, sizeof bytes - len, within(rt, 100 * SECOND), &n);
        if (!EXPECT(t, !err_is(e)))
            break;
        len += n;
    } while (n > 0);
    EXPECT_STR(t, str_new(bytes, len), S("got line\n"));
    EXPECT(t, !err_is(child_wait(c, within(rt, 100 * SECOND), &status)));
    EXPECT_INT(t, status, 0);
    stream_close(to);
    stream_close(from);
}

WORLD_TEST(children_become_who_they_should)
{
    /* CAP_NET_BIND_SERVICE is bit 10. */
    static const char *const argv[] = { "sh", "-c", "[ \"$(id -u):$(id -g):$(id -G)\" = 65534:65533:65533 ] && "
                                        "grep -q '^CapEff:.*0000000000000400$' /proc/self/status", NULL };
    struct spawn spawn = { .argv = argv, .program = "/bin/sh", .set_ids = true, .uid = 65534, .gid = 65533,
                           .keep_net_bind = true };
    struct child *c;
    int status = -1;

    if (geteuid() != 0) {
        EXPECT_INT(t, child_start(rt, &spawn, &c).kind, ERR_DENIED);
        return;
    }
    EXPECT(t, !err_is(child_start(rt, &spawn, &c)));
    EXPECT(t, !err_is(child_wait(c, within(rt, 100 * SECOND), &status)));
    EXPECT_INT(t, status, 0);
}

/* The image of a test is the test: asked for a test that does not exist, it runs none and ends with 0. */
WORLD_TEST(children_run_our_own_image)
{
    static const char *const argv[] = { "rt_test", "no such test", NULL };
    struct child *c;
    int status = -1;
    int null = dup(STDOUT_FILENO);

    CHECK(freopen("/dev/null", "w", stdout)); /* its TAP is not ours */
    EXPECT(t, !err_is(child_start(rt, &(struct spawn){ .argv = argv }, &c)));
    fflush(stdout);
    CHECK(dup2(null, STDOUT_FILENO) == STDOUT_FILENO);
    close(null);
    EXPECT(t, !err_is(child_wait(c, within(rt, 100 * SECOND), &status)));
    EXPECT_INT(t, status, 0);
}

WORLD_TEST(signals_are_caught)
{
    static const int signals[] = { SIGUSR1, SIGHUP };
    int got = 0;

    EXPECT(t, !err_is(rt_catch_signals(rt, signals, 2)));
    EXPECT_INT(t, rt_wait_signal(rt, within(rt, MILLISECOND), &got).kind, ERR_TIMEOUT);
    kill(getpid(), SIGHUP);
    EXPECT(t, !err_is(rt_wait_signal(rt, within(rt, 100 * SECOND), &got)));
    EXPECT_INT(t, got, SIGHUP);
    kill(getpid(), SIGUSR1);
    EXPECT(t, !err_is(rt_wait_signal(rt, within(rt, 100 * SECOND), &got)));
    EXPECT_INT(t, got, SIGUSR1);
}

WORLD_TEST(randomness_does_not_repeat)
{
    uint64_t seen[100];
    size_t same = 0;

    for (size_t i = 0; i < 100; i++) {
        seen[i] = rt_random(rt);
        for (size_t j = 0; j < i; j++)
            same += seen[i] == seen[j];
    }
    EXPECT_INT(t, same, 0);
    EXPECT(t, rt_wall(rt) > INT64_C(1600000000) * SECOND);
}

TEST_MAIN({ "fibers take turns", fibers_take_turns },
          { "sleepers wake in the order of their time", sleepers_wake_in_the_order_of_their_time },
          { "stacks are reused and keep their frames", stacks_are_reused_and_keep_their_frames },
          { "warm stacks stay warm", warm_stacks_stay_warm },
          { "unused stack is given back", unused_stack_is_given_back },
          { "a fiber that rests keeps its frames", a_fiber_that_rests_keeps_its_frames },
          { "memory is trimmed once many fibers rest", memory_is_trimmed_once_many_fibers_rest },
          { "memory is trimmed once much was freed", memory_is_trimmed_once_much_was_freed },
          { "room for fibers has an end", room_for_fibers_has_an_end },
          { "who holds the reactor is named", who_holds_the_reactor_is_named },
          { "events wake one or all", events_wake_one_or_all },
          { "cancellation is told once", cancellation_is_told_once },
          { "cancellation meets the next call", cancellation_meets_the_next_call },
          { "grace bounds later waits", grace_bounds_later_waits },
          { "scope ends its children", scope_ends_its_children },
          { "a world cancels what is left", a_world_cancels_what_is_left },
          { "timers call back once", timers_call_back_once },
          { "a clock that leaps", a_clock_that_leaps },
          { "watch tells of a foreign descriptor", watch_tells_of_a_foreign_descriptor },
          { "a stopped watch is silent", a_stopped_watch_is_silent },
          { "streams carry every byte", streams_carry_every_byte },
          { "closing wakes reader and writer", closing_wakes_reader_and_writer },
          { "a call gives up in time", a_call_gives_up_in_time },
          { "a full peer takes what fits", a_full_peer_takes_what_fits },
          { "an answer can be held for", an_answer_can_be_held_for },
          { "a reset is told", a_reset_is_told },
          { "handles travel with the bytes", handles_travel_with_the_bytes },
          { "unwanted handles do not stop the bytes", unwanted_handles_do_not_stop_the_bytes },
          { "urgent data does not stop the bytes", urgent_data_does_not_stop_the_bytes },
          { "nobody listens", nobody_listens },
          { "a listener is shared", a_listener_is_shared },
          { "accepting without descriptors is an error that passes",
            accepting_without_descriptors_is_an_error_that_passes },
          { "a Unix listener replaces what was left", a_unix_listener_replaces_what_was_left },
          { "files keep what was written", files_keep_what_was_written },
          { "large background reads come whole", large_background_reads_come_whole },
          { "names stay below their directory", names_stay_below_their_directory },
          { "directories list in byte order", directories_list_in_byte_order },
          { "a lock is held once", a_lock_is_held_once },
          { "directories and files travel as handles", directories_and_files_travel_as_handles },
          { "offloaded work has a large stack", offloaded_work_has_a_large_stack },
          { "a turn is waited for in time", a_turn_is_waited_for_in_time },
          { "begun work is not cancelled", begun_work_is_not_cancelled },
          { "what a link leads to is not given away", what_a_link_leads_to_is_not_given_away },
          { "directories on the way are for all to pass", directories_on_the_way_are_for_all_to_pass },
          { "root makes nothing where somebody else's link leads", root_makes_nothing_where_somebody_elses_link_leads },
          { "who overflows is named", who_overflows_is_named },
          { "children tell how they ended", children_tell_how_they_ended },
          { "children get their handles", children_get_their_handles },
          { "children become who they should", children_become_who_they_should },
          { "children run our own image", children_run_our_own_image },
          { "signals are caught", signals_are_caught },
          { "randomness does not repeat", randomness_does_not_repeat })
