/*
 * sched - the scheduler behind rt.h's fibers, events, scopes and timers, and what a world (linux_*.c, sim/) does with
 * it. For runtime/ and sim/ only.
 *
 * A world embeds a struct rt, fills in its clock, and turns: run the ready fibers, wait until something happens or the
 * next alarm is due, call the alarms. Nothing here calls the operating system but for stack memory.
 *
 * A fiber is READY (in rt->ready), RUNNING, or PARKED. Parking always ends in exactly one result, and the first one
 * that comes counts: whoever was woken with OK does not time out any more. Only ERR_CLOSED overrides: it says that
 * what was waited for is gone and must not be touched.
 */
#ifndef RUNTIME_SCHED_H
#define RUNTIME_SCHED_H

#include "base/heap.h"
#include "runtime/context.h"
#include "runtime/rt.h"
#include "runtime/stack.h"

/* Something that happens at a time, on the reactor's own stack. */
struct alarm {
    struct heap_node node;
    void (*due)(struct alarm *);
};

enum fiber_state { FIBER_READY, FIBER_RUNNING, FIBER_PARKED, FIBER_ENDED };

/* Lies at the top of its own stack. */
struct fiber {
    struct context context;
    struct rt *rt;
    void *stack;
    const char *name;
    void (*run)(void *arg);
    void *arg;
    struct list in_all;
    struct list in_queue;   /* rt->ready, or an event's waiters */
    struct list in_resting; /* while parked and not trimmed */
    struct alarm alarm;     /* the end of the wait */
    int64_t parked_at;
    int64_t grace_until;    /* once cancelled: no wait is longer than this */
    struct scope *scope;
    struct list in_scope;
    int32_t result;         /* enum err_kind: how the wait ended */
    uint8_t state;          /* enum fiber_state */
    bool firm;              /* this wait cannot be cancelled */
    bool cancelled;         /* for good */
    bool cancel_pending;    /* not yet told */
};

struct rt {
    struct mem *mem;
    int64_t now;
    int64_t (*clock)(struct rt *);
    /* A fiber ran longer than held_ns without suspending; may be NULL. */
    void (*held)(struct rt *, const char *fiber_name, int64_t ns);
    int64_t held_ns;
    int64_t trim_after_ns;      /* a fiber that waits this long gives back the stack that it does not use; 0: never */
    /* Many fibers went to rest a while ago, or much was freed: it may go back to the system; may be NULL. */
    void (*trim_memory)(struct rt *);
    struct log_sink *log;       /* runtime/log.c's */

    struct fiber *running;      /* NULL: the reactor itself */
    struct context reactor;
    struct list ready, all, resting;
    size_t fiber_count;
    struct heap alarms;
    struct alarm trim, memory_trim;
    size_t rested;              /* fibers trimmed since trim_memory was called last */
    size_t memory_most;         /* bytes in use at any look since then, */
    int64_t memory_look_at;     /* and the next look */
    struct stacks stacks;
    int budget;                 /* operations that the running fiber may still do at once before it yields */
    bool ending;                /* new fibers start cancelled */
};

/* mem, clock, held, trim_after_ns and trim_memory are set before, stacks_init() was called. */
void sched_init(struct rt *);
void sched_done(struct rt *); /* fibers that have not ended are dropped where they stand */
/* Runs ready fibers, those that become ready meanwhile too, but not for ever: `most` resumes, some milliseconds. */
void sched_run(struct rt *, size_t most);
bool sched_has_ready(const struct rt *);
int64_t sched_next_alarm(const struct rt *); /* FOREVER: none */
void sched_call_alarms(struct rt *);         /* those that are due */
void sched_cancel_all(struct rt *);          /* and those to come */

void alarm_set(struct rt *, struct alarm *, int64_t at);
void alarm_stop(struct rt *, struct alarm *);

/* What a suspending call begins with: the running fiber, or ERR_CANCELLED to pass on. */
struct err sched_enter(struct rt *);
/* Suspends the running fiber until sched_wake(): OK, ERR_TIMEOUT, ERR_CANCELLED, or the kind it was woken with. */
struct err sched_park(struct rt *, int64_t until, const char *what);
/* The same, but neither cancelled nor timed out. */
void sched_park_firmly(struct rt *);
/* Fine in any state: only a parked fiber is woken, only ERR_CLOSED changes the result of one that is ready again. */
void sched_wake(struct fiber *, int32_t result);
/* After an operation that did not have to wait: every so often it yields, and then what the caller used may be gone. */
void sched_spend(struct rt *);

#endif
