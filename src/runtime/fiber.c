/* fiber - the scheduler of sched.h: fibers, events, scopes, timers; the same in the daemon and in the simulator. */
#include "base/check.h"
#include "runtime/sched.h"

enum {
    OPERATIONS_AT_ONCE = 64, /* then a fiber yields, though nothing makes it wait */
    TRIMS_AT_ONCE = 128,     /* some 100 us of madvise() */
    RESTED_MANY = 64,        /* fewer leave too little behind to look for it */
    FREED_MUCH = 32 << 20,   /* bytes: likewise */
};
#define MEMORY_TRIM_AFTER_NS (5 * SECOND) /* so that it is done once for all who go to rest meanwhile */
#define MEMORY_LOOK_NS (5 * SECOND)       /* what mail under load takes and frees in between is left alone */
#define RUN_NS_MAX (4 * MILLISECOND) /* then it is time to look at descriptors and alarms again */
static_assert(STACK_BYTES > 16 * sizeof(struct fiber), "the fiber lies on its own stack");

/* ---- the turn ---------------------------------------------------------------------------------------------------- */

static void trim_resting(struct alarm *);
static void trim_memory(struct alarm *);

void
sched_init(struct rt *rt)
{
    CHECK(rt->mem && rt->clock);
    list_init(&rt->ready);
    list_init(&rt->all);
    list_init(&rt->resting);
    heap_init(&rt->alarms, rt->mem);
    rt->trim.due = trim_resting;
    rt->memory_trim.due = trim_memory;
    context_init_here(&rt->reactor);
    rt->now = rt->clock(rt);
}

void
sched_done(struct rt *rt)
{
    list_each_safe(node, &rt->all) {
        struct fiber *f = container_of(node, struct fiber, in_all);
        context_done(&f->context);
        stack_put(&rt->stacks, f->stack);
    }
    heap_done(&rt->alarms);
    stacks_done(&rt->stacks);
}

bool
sched_has_ready(const struct rt *rt)
{
    return !list_is_empty(&rt->ready);
}

static void
bury(struct rt *rt, struct fiber *f)
{
    struct scope *scope = f->scope;

    list_remove(&f->in_all);
    rt->fiber_count--;
    if (scope) {
        list_remove(&f->in_scope);
        scope->count--;
        event_wake(rt, &scope->ended);
    }
    context_done(&f->context);
    stack_put(&rt->stacks, f->stack);
}

void
sched_run(struct rt *rt, size_t most)
{
    struct list *node;

    rt->now = rt->clock(rt);
    int64_t enough = rt->now + RUN_NS_MAX;
    while (most-- > 0 && rt->now <= enough && (node = list_pop_front(&rt->ready))) {
        struct fiber *f = container_of(node, struct fiber, in_queue);
        int64_t began = rt->now;

        CHECK(f->state == FIBER_READY);
        f->state = FIBER_RUNNING;
        rt->running = f;
        rt->budget = OPERATIONS_AT_ONCE;
        context_switch(&rt->reactor, &f->context);
        rt->running = NULL;
        rt->now = rt->clock(rt);
        if (rt->held && rt->now - began > rt->held_ns)
            rt->held(rt, f->name, rt->now - began);
        if (f->state == FIBER_ENDED)
            bury(rt, f);
    }
}

int64_t
sched_next_alarm(const struct rt *rt)
{
    const struct heap_node *first = heap_first(&rt->alarms);

    return first ? first->due : FOREVER;
}

/* A long queue was drained, or much mail went that was kept in memory. */
static void
look_at_memory(struct rt *rt)
{
    size_t in_use = mem_in_use(rt->mem);

    rt->memory_look_at = rt->now + MEMORY_LOOK_NS;
    if (in_use > rt->memory_most)
        rt->memory_most = in_use;
    if (rt->memory_most - in_use < FREED_MUCH)
        return;
    rt->memory_most = in_use;
    rt->trim_memory(rt);
}

void
sched_call_alarms(struct rt *rt)
{
    struct heap_node *first;

    rt->now = rt->clock(rt);
    if (rt->trim_memory && rt->now >= rt->memory_look_at)
        look_at_memory(rt);
    /* An alarm that sets itself again, due at once, waits for the next turn. */
    uint64_t newer = rt->alarms.next_order;
    while ((first = heap_first(&rt->alarms)) && first->due <= rt->now && first->order < newer) {
        struct alarm *a = container_of(first, struct alarm, node);
        heap_remove(&rt->alarms, first);
        a->due(a);
    }
}

void
alarm_set(struct rt *rt, struct alarm *a, int64_t at)
{
    heap_remove(&rt->alarms, &a->node);
    heap_insert(&rt->alarms, &a->node, at);
}

void
alarm_stop(struct rt *rt, struct alarm *a)
{
    heap_remove(&rt->alarms, &a->node);
}

/* ---- fibers ------------------------------------------------------------------------------------------------------ */

int64_t
rt_now(struct rt *rt)
{
    return rt->now;
}

struct mem *
rt_mem(struct rt *rt)
{
    return rt->mem;
}

static void
make_ready(struct fiber *f)
{
    f->state = FIBER_READY;
    list_push_back(&f->rt->ready, &f->in_queue);
}

static void
fiber_main(void *fiber)
{
    struct fiber *f = fiber;

    f->run(f->arg);
    f->state = FIBER_ENDED;
    context_leave(&f->context, &f->rt->reactor);
}

static void
wait_is_over(struct alarm *a)
{
    sched_wake(container_of(a, struct fiber, alarm), ERR_TIMEOUT);
}

bool
fiber_room(struct rt *rt)
{
    return stacks_room(&rt->stacks);
}

struct fiber *
fiber_start(struct rt *rt, const char *name, void (*run)(void *arg), void *arg)
{
    char *stack = stack_take(&rt->stacks);

    CHECK(stack); /* whoever starts fibers for strangers asks fiber_room() */
    struct fiber *f = (void *)(stack + ((STACK_BYTES - sizeof *f) & ~(size_t)63));
    *f = (struct fiber){ .rt = rt, .stack = stack, .name = name, .run = run, .arg = arg, .alarm.due = wait_is_over };
    context_init(&f->context, stack, (size_t)((char *)f - stack), fiber_main, f);
    list_push_back(&rt->all, &f->in_all);
    rt->fiber_count++;
    make_ready(f);
    if (rt->ending)
        fiber_cancel(f);
    return f;
}

struct fiber *
fiber_current(struct rt *rt)
{
    return rt->running;
}

size_t
fiber_count(struct rt *rt)
{
    return rt->fiber_count;
}

void
fiber_cancel(struct fiber *f)
{
    if (f->cancelled)
        return;
    f->cancelled = true;
    f->cancel_pending = true;
    f->grace_until = f->rt->now + RT_CANCEL_GRACE_NS;
    if (f->state == FIBER_PARKED && !f->firm)
        sched_wake(f, ERR_CANCELLED);
}

void
sched_cancel_all(struct rt *rt)
{
    rt->ending = true;
    list_each(node, &rt->all)
        fiber_cancel(container_of(node, struct fiber, in_all));
}

struct err
sched_enter(struct rt *rt)
{
    struct fiber *f = rt->running;

    CHECK(f); /* the reactor's own stack must not suspend */
    if (!f->cancel_pending)
        return OK;
    f->cancel_pending = false;
    return ERR(ERR_CANCELLED, "this work");
}

static void
suspend(struct rt *rt, struct fiber *f)
{
    f->state = FIBER_PARKED;
    f->result = ERR_NONE;
    if (rt->trim_after_ns) {
        f->parked_at = rt->now;
        if (list_is_empty(&rt->resting) && !heap_has(&rt->trim.node))
            alarm_set(rt, &rt->trim, rt->now + rt->trim_after_ns);
        list_push_back(&rt->resting, &f->in_resting);
    }
    context_switch(&f->context, &rt->reactor);
}

struct err
sched_park(struct rt *rt, int64_t until, const char *what)
{
    struct fiber *f = rt->running;

    CHECK(f && f->state == FIBER_RUNNING);
    TRY(sched_enter(rt)); /* cancelled since it was woken from an earlier wait of the same call */
    if (f->cancelled && until > f->grace_until)
        until = f->grace_until;
    if (until != FOREVER)
        heap_insert(&rt->alarms, &f->alarm.node, until);
    suspend(rt, f);
    if (f->result == ERR_CANCELLED)
        f->cancel_pending = false;
    return f->result == ERR_NONE ? OK : ERR(f->result, what);
}

void
sched_park_firmly(struct rt *rt)
{
    struct fiber *f = rt->running;

    CHECK(f && f->state == FIBER_RUNNING);
    f->firm = true;
    suspend(rt, f);
    f->firm = false;
}

void
sched_wake(struct fiber *f, int32_t result)
{
    struct rt *rt = f->rt;

    if (f->state == FIBER_READY && result == ERR_CLOSED)
        f->result = result;
    if (f->state != FIBER_PARKED)
        return;
    f->result = result;
    heap_remove(&rt->alarms, &f->alarm.node);
    list_remove(&f->in_resting);
    list_remove(&f->in_queue); /* out of the event that it waited for */
    make_ready(f);
}

void
fiber_yield(struct rt *rt)
{
    struct fiber *f = rt->running;

    CHECK(f);
    make_ready(f);
    context_switch(&f->context, &rt->reactor);
}

void
sched_spend(struct rt *rt)
{
    if (--rt->budget <= 0)
        fiber_yield(rt);
}

struct err
fiber_turn(struct rt *rt)
{
    sched_spend(rt);
    return sched_enter(rt);
}

struct err
rt_sleep(struct rt *rt, int64_t until)
{
    TRY(sched_enter(rt));
    struct err e = sched_park(rt, until, "sleep");
    return e.kind == ERR_TIMEOUT && rt->now >= until ? OK : e;
}

/* The resting fibers stand in the order in which they went to rest. */
static void
trim_resting(struct alarm *a)
{
    struct rt *rt = container_of(a, struct rt, trim);

    for (int i = 0; !list_is_empty(&rt->resting); i++) {
        struct fiber *f = container_of(rt->resting.next, struct fiber, in_resting);
        int64_t due = f->parked_at + rt->trim_after_ns;
        if (due > rt->now || i == TRIMS_AT_ONCE) {
            alarm_set(rt, &rt->trim, due > rt->now ? due : rt->now);
            return;
        }
        list_remove(&f->in_resting);
        if (f->context.sp)
            stack_trim(f->stack, f->context.sp);
        if (++rt->rested == RESTED_MANY && rt->trim_memory)
            alarm_set(rt, &rt->memory_trim, rt->now + MEMORY_TRIM_AFTER_NS);
    }
}

static void
trim_memory(struct alarm *a)
{
    struct rt *rt = container_of(a, struct rt, memory_trim);

    rt->rested = 0;
    rt->trim_memory(rt);
}

/* ---- events ------------------------------------------------------------------------------------------------------ */

void
event_init(struct event *e)
{
    list_init(&e->waiters);
}

struct err
event_wait(struct rt *rt, struct event *e, int64_t until)
{
    TRY(sched_enter(rt));
    list_push_back(&e->waiters, &rt->running->in_queue);
    return sched_park(rt, until, "wait");
}

void
event_wait_firmly(struct rt *rt, struct event *e)
{
    list_push_back(&e->waiters, &rt->running->in_queue);
    sched_park_firmly(rt);
}

void
event_wake_one(struct rt *rt, struct event *e)
{
    (void)rt;
    if (!list_is_empty(&e->waiters))
        sched_wake(container_of(e->waiters.next, struct fiber, in_queue), ERR_NONE);
}

void
event_wake(struct rt *rt, struct event *e)
{
    while (!list_is_empty(&e->waiters))
        event_wake_one(rt, e);
}

/* ---- scopes ------------------------------------------------------------------------------------------------------ */

void
scope_init(struct scope *s, struct rt *rt)
{
    *s = (struct scope){ .rt = rt };
    list_init(&s->children);
    event_init(&s->ended);
}

void
scope_start(struct scope *s, const char *name, void (*run)(void *arg), void *arg)
{
    struct fiber *f = fiber_start(s->rt, name, run, arg);

    f->scope = s;
    list_push_back(&s->children, &f->in_scope);
    s->count++;
}

void
scope_cancel(struct scope *s)
{
    list_each(node, &s->children)
        fiber_cancel(container_of(node, struct fiber, in_scope));
}

struct err
scope_wait(struct scope *s, int64_t until)
{
    while (s->count > 0)
        TRY(event_wait(s->rt, &s->ended, until));
    return OK;
}

void
scope_end(struct scope *s)
{
    struct rt *rt = s->rt;

    scope_cancel(s);
    while (s->count > 0) {
        list_push_back(&s->ended.waiters, &rt->running->in_queue);
        sched_park_firmly(rt);
    }
}

/* ---- timers ------------------------------------------------------------------------------------------------------ */

struct timer {
    struct alarm alarm;
    struct rt *rt;
    void (*due)(void *arg);
    void *arg;
    bool calling;
};

static void
timer_is_due(struct alarm *a)
{
    struct timer *t = container_of(a, struct timer, alarm);

    t->calling = true;
    t->due(t->arg);
    mem_free(t->rt->mem, t, sizeof *t);
}

struct timer *
timer_start(struct rt *rt, int64_t at, void (*due)(void *arg), void *arg)
{
    struct timer *t = mem_new(rt->mem, struct timer);

    *t = (struct timer){ .alarm.due = timer_is_due, .rt = rt, .due = due, .arg = arg };
    alarm_set(rt, &t->alarm, at);
    return t;
}

void
timer_stop(struct timer *t)
{
    if (t->calling)
        return;
    alarm_stop(t->rt, &t->alarm);
    mem_free(t->rt->mem, t, sizeof *t);
}
