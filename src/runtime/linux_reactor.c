/* linux_reactor - the real world: clock, randomness, epoll, and rt_run(), which turns until its main fiber has ended.
 * */
#include "runtime/linux.h"

#include <errno.h>
#include <malloc.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum {
    EVENTS_AT_ONCE = 256,
    RESUMES_PER_TURN = 256, /* fibers that run between two looks at the descriptors */
};
#if defined(CONTEXT_ASAN) || defined(CONTEXT_TSAN)
#define HELD_NS (1 * SECOND) /* everything is slow there, and that says nothing */
#else
#define HELD_NS (10 * MILLISECOND)
#endif
#define TRIM_AFTER_NS (1 * SECOND)

struct err
err_here(const char *what)
{
    return err_from_os(errno, what);
}

static int64_t
read_clock(clockid_t id)
{
    struct timespec t;

    CHECK(clock_gettime(id, &t) == 0);
    return t.tv_sec * SECOND + t.tv_nsec;
}

static int64_t
monotonic(struct rt *rt)
{
    (void)rt;
    return read_clock(CLOCK_MONOTONIC);
}

static int64_t
leaping(struct rt *rt)
{
    return world_of(rt)->leapt;
}

int64_t
rt_wall(struct rt *rt)
{
    (void)rt;
    return read_clock(CLOCK_REALTIME);
}

uint64_t
rt_random(struct rt *rt)
{
    struct world *w = world_of(rt);

    if (w->random_left == 0) {
        CHECK(getrandom(w->random, sizeof w->random, 0) == (ssize_t)sizeof w->random); /* up to 256 bytes come whole */
        w->random_left = RANDOM_BATCH;
    }
    uint64_t value = w->random[--w->random_left];
    w->random[w->random_left] = 0; /* what was given out is not found here again */
    return value;
}

/* ---- sources ----------------------------------------------------------------------------------------------------- */

struct err
source_add(struct world *w, struct source *s, int fd, uint32_t events)
{
    struct epoll_event e = { .events = events, .data.ptr = s };

    if (epoll_ctl(w->epoll_fd, EPOLL_CTL_ADD, fd, &e) < 0)
        return err_here("watch a descriptor");
    s->fd = fd;
    return OK;
}

void
source_change(struct world *w, struct source *s, uint32_t events)
{
    struct epoll_event e = { .events = events, .data.ptr = s };

    CHECK(epoll_ctl(w->epoll_fd, EPOLL_CTL_MOD, s->fd, &e) == 0);
}

void
source_retire(struct world *w, struct source *s)
{
    CHECK(s->fd >= 0);
    CHECK(epoll_ctl(w->epoll_fd, EPOLL_CTL_DEL, s->fd, NULL) == 0);
    s->fd = -1;
    s->next_retired = w->retired;
    w->retired = s;
}

static void
free_retired(struct world *w)
{
    while (w->retired) {
        struct source *s = w->retired;
        w->retired = s->next_retired;
        s->free(w, s);
    }
}

/* ---- foreign libraries' descriptors ------------------------------------------------------------------------------ */

struct watch {
    struct source source;
    struct world *world;
    void (*ready)(void *arg, bool readable, bool writable);
    void *arg;
};

static void
watch_ready(struct source *s, uint32_t events)
{
    struct watch *w = container_of(s, struct watch, source);
    bool broken = events & (EPOLLERR | EPOLLHUP);

    w->ready(w->arg, broken || (events & EPOLLIN), broken || (events & EPOLLOUT));
}

static void
watch_free(struct world *w, struct source *s)
{
    mem_free(&w->mem, container_of(s, struct watch, source), sizeof(struct watch));
}

struct watch *
watch_start(struct rt *rt, int fd, bool readable, bool writable,
            void (*ready)(void *arg, bool readable, bool writable), void *arg)
{
    struct world *w = world_of(rt);
    struct watch *watch = mem_new(&w->mem, struct watch);

    *watch = (struct watch){ .source = { .ready = watch_ready, .free = watch_free }, .world = w, .ready = ready,
                             .arg = arg };
    struct err e = source_add(w, &watch->source, fd, (readable ? EPOLLIN : 0u) | (writable ? EPOLLOUT : 0u));
    CHECK(!err_is(e)); /* a socket that is not watched already */
    return watch;
}

void
watch_stop(struct watch *watch)
{
    source_retire(watch->world, &watch->source);
}

/* ---- the turn ---------------------------------------------------------------------------------------------------- */

static int
wait_ms(const struct world *w, int64_t until)
{
    int64_t due = sched_next_alarm(&w->rt);

    due = due < until ? due : until;
    if (sched_has_ready(&w->rt) || due <= w->rt.now)
        return 0;
    if (due == FOREVER)
        return -1;
    int64_t ms = (due - w->rt.now + MILLISECOND - 1) / MILLISECOND; /* up: never wake before the time has come */
    return ms < 60000 ? (int)ms : 60000;
}

static bool
leaps(const struct world *w)
{
    return w->rt.clock == leaping && sched_next_alarm(&w->rt) != FOREVER;
}

static void
leap(struct world *w, int64_t until)
{
    int64_t due = sched_next_alarm(&w->rt);

    due = due < until ? due : until;
    if (!sched_has_ready(&w->rt) && due > w->leapt)
        w->leapt = due;
}

static void
run_fibers(struct world *w)
{
    sched_run(&w->rt, RESUMES_PER_TURN);
    free_retired(w);
    log_flush(w);
}

static void
wait_for_events(struct world *w, int64_t until)
{
    struct epoll_event events[EVENTS_AT_ONCE];

    int n = epoll_wait(w->epoll_fd, events, EVENTS_AT_ONCE, leaps(w) ? 0 : wait_ms(w, until));
    CHECK(n >= 0 || errno == EINTR);
    if (n == 0 && leaps(w))
        leap(w, until);
    w->rt.now = w->rt.clock(&w->rt);
    for (int i = 0; i < n; i++) {
        struct source *s = events[i].data.ptr;
        if (s->fd >= 0)
            s->ready(s, events[i].events);
    }
    sched_call_alarms(&w->rt);
}

/* ---- a world ----------------------------------------------------------------------------------------------------- */

static size_t
map_count_max(void)
{
    char text[32];
    size_t count = 0;
    int fd = open("/proc/sys/vm/max_map_count", O_RDONLY | O_CLOEXEC);

    if (fd >= 0) {
        ssize_t n = read(fd, text, sizeof text);
        for (ssize_t i = 0; i < n && byte_is_digit(text[i]); i++)
            count = count * 10 + (size_t)(text[i] - '0');
        close(fd);
    }
    return count ? count : 65530; /* Linux's default */
}

/* What follows `what` in POSTRIDER_PRETEND up to the next comma; absent: it is not there. */
static struct str
pretended(const char *what)
{
    const char *env = getenv("POSTRIDER_PRETEND");
    struct str rest = env ? str_from_cstr(env) : (struct str){ 0 };

    while (!str_is_absent(rest)) {
        struct str item = str_cut(&rest, ',');
        if (str_take(&item, str_from_cstr(what)))
            return item;
    }
    return (struct str){ 0 };
}

bool
world_pretends(const char *what)
{
    return !str_is_absent(pretended(what));
}

int64_t
world_pretended(const char *what, int64_t otherwise)
{
    struct str item = pretended(what);
    uint64_t number;

    return str_take_byte(&item, '=') && str_to_u64(item, &number) && number < INT32_MAX ? (int64_t)number : otherwise;
}

static void
raise_file_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit); /* without it we take fewer sessions: ERR_NO_FILES says so */
    }
}

struct start {
    struct rt *rt;
    void (*main_fiber)(struct rt *, void *arg);
    void *arg;
    bool ended;
};

static void
run_main(void *start)
{
    struct start *s = start;

    s->main_fiber(s->rt, s->arg);
    s->ended = true;
}

/* Sessions that began at once leave holes where their handshakes' buffers were, between what they still hold; malloc
 * gives back of its own accord only what is free at its end. */
static void
trim_heap(struct rt *rt)
{
    (void)rt;
    (void)malloc_trim(0);
}

static struct err
run_world(int64_t (*clock)(struct rt *), void (*main_fiber)(struct rt *, void *arg), void *arg)
{
    struct world *w = calloc(1, sizeof *w);
    struct sigaction ignore = { .sa_handler = SIG_IGN }, pipe_before;

    if (!w)
        return ERR(ERR_NO_MEMORY, "start the runtime");
    w->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (w->epoll_fd < 0) {
        struct err e = err_here("create the reactor");
        free(w);
        return e;
    }
    CHECK(sigaction(SIGPIPE, &ignore, &pipe_before) == 0);
    raise_file_limit();
    w->mem = mem_libc();
    w->rt.mem = &w->mem;
    w->rt.clock = clock;
    w->rt.held = log_held;
    w->rt.held_ns = HELD_NS;
    w->rt.trim_after_ns = TRIM_AFTER_NS;
    w->rt.trim_memory = trim_heap;
    stacks_init(&w->rt.stacks, &w->mem, map_count_max(), !world_pretends("no-guard-advice"));
    sched_init(&w->rt);
    fault_init(w);
    process_init(w);
    rt_lanes_init(w);
    log_open(w);

    struct start start = { &w->rt, main_fiber, arg, false };
    fiber_start(&w->rt, "main", run_main, &start);
    while (run_fibers(w), !start.ended)
        wait_for_events(w, FOREVER);
    sched_cancel_all(&w->rt);
    int64_t deadline = w->rt.now + RT_CANCEL_GRACE_NS + SECOND; /* a fiber that is not done by then is left behind */
    while (run_fibers(w), w->rt.fiber_count > 0 && w->rt.now < deadline)
        wait_for_events(w, deadline);

    rt_lanes_done(w);
    process_done(w);
    log_close(w);
    free_retired(w);
    log_free(w);
    sched_done(&w->rt);
    fault_done(w);
    close(w->epoll_fd);
    CHECK(sigaction(SIGPIPE, &pipe_before, NULL) == 0);
    free(w);
    return OK;
}

struct err
rt_run(void (*main_fiber)(struct rt *, void *arg), void *arg)
{
    return run_world(monotonic, main_fiber, arg);
}

struct err
rt_run_leaping(void (*main_fiber)(struct rt *, void *arg), void *arg)
{
    return run_world(leaping, main_fiber, arg);
}
