/*
 * linux_lane - threads for what an epoll cannot wait for: disk work and helper work.
 *
 * A job lives on the stack of the fiber that waits for it. The fiber may leave before its turn (timeout), but once a
 * thread has begun the job, the fiber waits for its end, however long that takes: the thread uses the fiber's memory.
 * Threads start with the first job, so that a sandbox entered before reaches them, and touch neither rt nor its heap.
 */
#include "runtime/linux.h"

#include <errno.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum job_state { JOB_WAITING, JOB_RUNNING, JOB_DONE };
enum { THREAD_STACK = 1 << 20 }; /* libunbound's first question takes 200 KiB */

static const struct {
    size_t threads;
    char name[16];
} lane_table[LANES] = {
    [LANE_COMMIT] = { 1, "commit" },
    [LANE_BACKGROUND] = { 1, "background" },
    [LANE_POOL] = { 4, "pool" },
    [LANE_DELIVERY] = { LIMIT_DELIVERIES, "delivery" },
};

/* Ends when it is told to stop and nothing is queued. */
static void
work_on(struct lanes *lanes, struct lane_state *lane)
{
    for (;;) {
        struct list *node = list_pop_front(&lane->queue);
        if (!node && lanes->stop)
            return;
        if (!node) {
            lane->idle++;
            pthread_cond_wait(&lane->more, &lanes->lock);
            lane->idle--;
            continue;
        }
        struct job *job = container_of(node, struct job, in_lane);
        lane->queued--;
        job->state = JOB_RUNNING;
        pthread_mutex_unlock(&lanes->lock);
        job->work(job);
        pthread_mutex_lock(&lanes->lock);
        job->state = JOB_DONE;
        if (list_is_empty(&lanes->done)) {
            uint64_t one = 1;
            CHECK(write(lanes->source.fd, &one, sizeof one) == (ssize_t)sizeof one);
        }
        list_push_back(&lanes->done, &job->in_lane);
    }
}

static void *
thread_main(void *arg)
{
    struct lane_state *lane = arg;
    const char *name = lane_table[lane - lane->lanes->lane].name;
    struct fault_stack *own_stack = fault_stack_enter(container_of(lane->lanes, struct world, lanes), name);

    /* By itself: glibc names another thread through /proc, which a sandbox does not have. */
    (void)pthread_setname_np(pthread_self(), name);
    pthread_mutex_lock(&lane->lanes->lock);
    work_on(lane->lanes, lane);
    pthread_mutex_unlock(&lane->lanes->lock);
    fault_stack_leave(own_stack);
    return NULL;
}

static void
something_is_done(struct source *s, uint32_t events)
{
    struct lanes *lanes = container_of(s, struct lanes, source);
    struct list *node;
    uint64_t count;

    (void)events;
    if (read(s->fd, &count, sizeof count) < 0)
        CHECK(errno == EAGAIN);
    pthread_mutex_lock(&lanes->lock);
    while ((node = list_pop_front(&lanes->done)))
        sched_wake(container_of(node, struct job, in_lane)->fiber, ERR_NONE);
    pthread_mutex_unlock(&lanes->lock);
}

static void
start_thread(struct lane_state *lane)
{
    pthread_attr_t attr;
    sigset_t all, before;

    /* Signals are the reactor's, but for the one that says what this thread itself did. */
    sigfillset(&all);
    sigdelset(&all, SIGSEGV);
    CHECK(pthread_sigmask(SIG_BLOCK, &all, &before) == 0);
    CHECK(pthread_attr_init(&attr) == 0);
    CHECK(pthread_attr_setstacksize(&attr, THREAD_STACK) == 0);
    int failed = pthread_create(&lane->threads[lane->started], &attr, thread_main, lane);
    pthread_attr_destroy(&attr);
    CHECK(pthread_sigmask(SIG_SETMASK, &before, NULL) == 0);
    /* Without one thread the lane would wait for ever; with fewer than wished it is slower. */
    CHECK(!failed || lane->started > 0);
    lane->started += !failed;
}

/* Its turn did not come in time. A job that runs already is waited for all the same. */
static void
give_up(struct alarm *a)
{
    struct job *job = container_of(a, struct job, give_up);
    struct lanes *lanes = &world_of(job->fiber->rt)->lanes;

    pthread_mutex_lock(&lanes->lock);
    if (job->state == JOB_WAITING) {
        list_remove(&job->in_lane);
        lanes->lane[job->lane].queued--;
        sched_wake(job->fiber, ERR_TIMEOUT);
    }
    pthread_mutex_unlock(&lanes->lock);
}

struct err
lane_run(struct rt *rt, enum lane which, struct job *job, void (*work)(struct job *), int64_t until, const char *what)
{
    struct lanes *lanes = &world_of(rt)->lanes;
    struct lane_state *lane = &lanes->lane[which];

    TRY(sched_enter(rt));
    job->work = work;
    job->fiber = rt->running;
    job->lane = (uint8_t)which;
    job->state = JOB_WAITING;
    job->give_up = (struct alarm){ .due = give_up };
    if (until != FOREVER)
        alarm_set(rt, &job->give_up, until);

    pthread_mutex_lock(&lanes->lock);
    list_push_back(&lane->queue, &job->in_lane);
    lane->queued++;
    bool more = lane->queued > lane->idle && lane->started < lane_table[which].threads;
    if (more)
        start_thread(lane);
    pthread_mutex_unlock(&lanes->lock);
    if (!more) /* not under the lock, or the thread would wake only to wait for it */
        pthread_cond_signal(&lane->more);

    sched_park_firmly(rt);
    alarm_stop(rt, &job->give_up);
    return job->state == JOB_DONE ? OK : ERR(ERR_TIMEOUT, what);
}

static void
source_is_embedded(struct world *w, struct source *s)
{
    (void)w;
    (void)s;
}

void
rt_lanes_init(struct world *w)
{
    struct lanes *lanes = &w->lanes;
    pthread_mutexattr_t attr;

    /* Held for a few instructions, and wanted by a hundred threads at once when a commit of the journal ends their syncs. */
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_ADAPTIVE_NP);
    pthread_mutex_init(&lanes->lock, &attr);
    pthread_mutexattr_destroy(&attr);
    list_init(&lanes->done);
    for (size_t i = 0; i < LANES; i++) {
        list_init(&lanes->lane[i].queue);
        pthread_cond_init(&lanes->lane[i].more, NULL);
        lanes->lane[i].lanes = lanes;
    }
    lanes->source = (struct source){ .ready = something_is_done, .free = source_is_embedded };
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    CHECK(fd >= 0);
    struct err e = source_add(w, &lanes->source, fd, EPOLLIN | EPOLLET);
    CHECK(!err_is(e));
}

void
rt_lanes_stop(struct world *w)
{
    struct lanes *lanes = &w->lanes;

    pthread_mutex_lock(&lanes->lock);
    lanes->stop = true;
    for (size_t i = 0; i < LANES; i++)
        pthread_cond_broadcast(&lanes->lane[i].more);
    pthread_mutex_unlock(&lanes->lock);
    for (size_t i = 0; i < LANES; i++) {
        for (size_t j = 0; j < lanes->lane[i].started; j++)
            CHECK(pthread_join(lanes->lane[i].threads[j], NULL) == 0);
        lanes->lane[i].started = 0;
    }
    lanes->stop = false;
}

void
rt_lanes_done(struct world *w)
{
    struct lanes *lanes = &w->lanes;
    int fd = lanes->source.fd;

    rt_lanes_stop(w);
    for (size_t i = 0; i < LANES; i++)
        pthread_cond_destroy(&lanes->lane[i].more);
    pthread_mutex_destroy(&lanes->lock);
    source_retire(w, &lanes->source);
    close(fd);
}

/* ---- helper work ------------------------------------------------------------------------------------------------- */

struct offload {
    struct job job;
    void (*work)(void *arg);
    void *arg;
};

static void
offload_work(struct job *job)
{
    struct offload *o = container_of(job, struct offload, job);

    o->work(o->arg);
}

struct err
rt_offload(struct rt *rt, void (*work)(void *arg), void *arg, int64_t until)
{
    struct offload o = { .work = work, .arg = arg };

    return lane_run(rt, LANE_POOL, &o.job, offload_work, until, "wait for a helper thread");
}
