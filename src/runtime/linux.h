/*
 * linux - what the linux_*.c files share: the real world behind struct rt. One epoll for a role; everything that can
 * become ready is a struct source in it.
 */
#ifndef RUNTIME_LINUX_H
#define RUNTIME_LINUX_H

#include "base/check.h"
#include "runtime/sched.h"

#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>

/*
 * A descriptor in the epoll. ready() is called on the reactor's own stack. Whoever ends a source calls source_retire()
 * before it closes the descriptor: epoll knows open files, not descriptors, so a duplicate in a child between fork and
 * exec would keep a closed one reporting. Memory is freed after the turn, when no event of the batch can name it any
 * more.
 */
struct world;
struct source {
    void (*ready)(struct source *, uint32_t events);
    void (*free)(struct world *, struct source *); /* its memory */
    struct source *next_retired;
    int fd;       /* -1: retired */
};

enum { RANDOM_BATCH = 32 };

/* A piece of work for a lane; lives on the stack of the fiber that waits for it. */
struct job {
    struct list in_lane; /* the lane's queue, then the list of those that are done */
    void (*work)(struct job *);
    struct fiber *fiber;
    struct alarm give_up;
    uint8_t lane;        /* enum lane */
    uint8_t state;       /* enum job_state in linux_lane.c; under the lock, but for the fiber once it is woken */
};

struct lane_state {
    struct lanes *lanes;
    struct list queue;
    pthread_cond_t more;
    pthread_t threads[LIMIT_DELIVERIES];
    size_t queued, started, idle;
};

/* All of it is under the lock. */
struct lanes {
    pthread_mutex_t lock;
    struct lane_state lane[LANES];
    struct list done;
    bool stop;
    struct source source; /* an eventfd: something is done */
};

struct world {
    struct rt rt;
    struct mem mem;
    int64_t leapt; /* rt_run_leaping()'s clock */
    int epoll_fd;
    int image_fd;            /* this program's file, as it was when we started */
    struct source *retired;
    struct lanes lanes;
    struct linux_log *log;
    uint64_t random[RANDOM_BATCH];
    size_t random_left;
    struct source signals;
    sigset_t caught, mask_before;
    struct event signal_came;
    struct list children;    /* that nobody waits for any more */
    struct sigaction fault_before;
    struct fault_stack *fault_stack;
};

static inline struct world *
world_of(struct rt *rt)
{
    return container_of(rt, struct world, rt);
}

/* events: of epoll_ctl(2). */
struct err source_add(struct world *, struct source *, int fd, uint32_t events);
void source_change(struct world *, struct source *, uint32_t events);
void source_retire(struct world *, struct source *); /* does not close */

void rt_lanes_init(struct world *);
void rt_lanes_done(struct world *);
/* Ends the threads; they start again with the next job. For what only reaches threads yet to be started. */
void rt_lanes_stop(struct world *);
/* Runs work(job) on a thread of the lane, while the fiber waits. Not OK: it never began. */
struct err lane_run(struct rt *, enum lane, struct job *, void (*work)(struct job *), int64_t until, const char *what);

void process_init(struct world *);
void process_done(struct world *);

/* SIGSEGV is explained before it ends the process; each thread enters, and leaves before it ends. lane: a literal, its
 * name; NULL: the reactor's. */
void fault_init(struct world *);
void fault_done(struct world *);
struct fault_stack *fault_stack_enter(struct world *, const char *lane);
void fault_stack_leave(struct fault_stack *);

void log_open(struct world *);
void log_flush(struct world *);  /* at the end of a turn */
void log_close(struct world *);  /* says its last words */
void log_free(struct world *);   /* after the retired sources were freed */
void log_held(struct rt *, const char *fiber_name, int64_t ns);

/* From POSTRIDER_PRETEND (runtime/sandbox.h): whether "what" is there; the number of "what=NUMBER", or `otherwise`. */
bool world_pretends(const char *what);
int64_t world_pretended(const char *what, int64_t otherwise);

/* errno at once after a call that failed. */
struct err err_here(const char *what);

#endif
