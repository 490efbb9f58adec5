/*
 * nth - see nth.h: counts, makes the points, runs them in processes of their own that take the next one from a common
 * number, so that one that crashes or hangs names its point.
 */
#include "sim/nth.h"

#include "base/check.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ROLES = 12, WORKERS_MAX = 64, FAILURES_MAX = 40, HANGS_AFTER_S = 60, POINT_TEXT = 240, POINTS_A_RUN = 2 };

#define REST_NS (1 * MINUTE) /* for what operators asked last to be over */

static const char *const role_names[ROLES] = { "supervisor", "receiver", "submission", "gate", "store", "sender", "mailbox",
                                               "resolver", "checker", "console", "keys", "fetch" };

static const struct {
    enum seam_call call;
    const char *name;
} calls[] = {
    { CALL_OPEN, "open" },       { CALL_READ, "read" },       { CALL_WRITE, "write" },
    { CALL_SYNC, "sync" },       { CALL_DIR, "name" },        { CALL_SYNC_DIR, "sync-dir" },
    { CALL_CONNECT, "connect" }, { CALL_ACCEPT, "accept" },   { CALL_LISTEN, "listen" },
    { CALL_PAIR, "pair" },       { CALL_TAKE, "take" },       { CALL_DUPLICATE, "duplicate" },
    { CALL_RECEIVE, "receive" }, { CALL_SEND, "send" },       { CALL_LINK_RECEIVE, "link-receive" },
    { CALL_LINK_SEND, "link-send" }, { CALL_HANDLES, "handles" }, { CALL_SPAWN, "spawn" },
    { CALL_SIGNALS, "signals" }, { CALL_HOST, "host" },       { CALL_SANDBOX, "sandbox" },
    { CALL_RESOLVER, "resolver" }, { CALL_QUERY, "query" },   { CALL_MEMORY, "memory" },
};
static_assert(sizeof calls / sizeof *calls == CALL_KINDS, "each kind has a name");

#define TO_DISK (CALL_OPEN | CALL_READ | CALL_WRITE | CALL_SYNC | CALL_DIR | CALL_SYNC_DIR)
#define MAKES_DESCRIPTOR (CALL_OPEN | CALL_CONNECT | CALL_ACCEPT | CALL_LISTEN | CALL_PAIR | CALL_SPAWN | CALL_SIGNALS | CALL_HOST)
#define MAKES_KERNEL_OBJECT                                                                                            \
    (MAKES_DESCRIPTOR | CALL_READ | CALL_DIR | CALL_TAKE | CALL_RECEIVE | CALL_SEND | CALL_LINK_RECEIVE | CALL_LINK_SEND | \
     CALL_SANDBOX | CALL_RESOLVER)

enum { IS_SIGKILL = -1, IS_POWER = -2 }; /* no error: the end of the process, or of all */

/* EINTR and short reads and writes are not here: runtime/ answers them itself. */
static const struct {
    int number;
    unsigned calls;  /* that can give it: bits of enum seam_call */
    bool of_machine; /* if it lasts, then for every role */
} errors[] = {
    { ENOSPC, CALL_OPEN | CALL_WRITE | CALL_SYNC | CALL_DIR | CALL_SYNC_DIR, true },
    { EIO, CALL_OPEN | CALL_READ | CALL_WRITE | CALL_SYNC | CALL_DIR | CALL_SYNC_DIR, true },
    { EROFS, CALL_OPEN | CALL_WRITE | CALL_DIR, true },
    { EMFILE, MAKES_DESCRIPTOR | CALL_DUPLICATE | CALL_HANDLES, false },
    { ENFILE, MAKES_DESCRIPTOR, true },
    { ENOMEM, MAKES_KERNEL_OBJECT, false },
    { ENOMEM, CALL_MEMORY, false },
    { ENOSPC, CALL_TAKE, false }, /* too many watches */
    { EAGAIN, CALL_SPAWN | CALL_QUERY, false },
    { EACCES, CALL_OPEN | CALL_DIR | CALL_LISTEN | CALL_HOST, false },
    { EADDRINUSE, CALL_LISTEN, false },
    { ECONNREFUSED, CALL_CONNECT, false },
    { ETIMEDOUT, CALL_CONNECT | CALL_RECEIVE | CALL_SEND, false },
    { ENETUNREACH, CALL_CONNECT, false },
    { EADDRNOTAVAIL, CALL_CONNECT, false },
    { ECONNRESET, CALL_RECEIVE | CALL_SEND | CALL_LINK_RECEIVE | CALL_LINK_SEND, false },
    { EPIPE, CALL_SEND | CALL_LINK_SEND, false },
    { EPERM, CALL_SANDBOX, false },
    { IS_SIGKILL, CALL_MEMORY - 1, false },
    { IS_POWER, CALL_MEMORY - 1, false },
};
enum { ERRORS = sizeof errors / sizeof *errors };

enum how { ONCE, LASTS, POWER, HOWS };
static const char *const how_names[HOWS] = { "once", "lasts", "power" };
#define POWER_WITHIN (5 * SECOND)

struct point {
    uint16_t workload;
    uint8_t role, call, error; /* indices of the tables above */
    uint8_t how;               /* enum how */
    uint32_t n;                /* from 1 */
};

/* What is there when all is quiet, of all processes of a role together. */
struct holdings {
    uint32_t processes, fibers, handles;
};

struct baseline {
    uint32_t counts[ROLES][CALL_KINDS];
    struct holdings holdings[ROLES];
};

struct nth {
    struct call_watch watch; /* first */
    struct sim_event opens, power_fails, is_killed;
    struct fault power;
    uint32_t killed;         /* the process that is to end */
    const struct workload *workload;
    struct point points[POINTS_A_RUN];
    size_t point_count;
    bool hit[POINTS_A_RUN];  /* the call came */
    bool counting, open;
    uint32_t counts[ROLES][CALL_KINDS];
    struct holdings holdings[ROLES];
    const struct baseline *baseline;
};

/* ---- the watch --------------------------------------------------------------------------------------------------- */

static int
find_role(const char *name)
{
    for (int i = 0; i < ROLES; i++)
        if (strcmp(role_names[i], name) == 0)
            return i;
    return -1;
}

static int
find_call(enum seam_call call)
{
    int i = 0;

    while (calls[i].call != call)
        i++;
    return i;
}

static const char *
error_name(int number)
{
    return number == IS_SIGKILL ? "SIGKILL" : number == IS_POWER ? "POWER" : strerrorname_np(number);
}

static void
kill_now(struct sim *sim, struct sim_event *event)
{
    const struct nth *nth = container_of(event, struct nth, is_killed);

    list_each(node, &sim->processes) {
        struct process *p = container_of(node, struct process, node);
        if (p->pid == nth->killed && !p->ended)
            process_kill(p, 256 + SIGKILL);
    }
}

/* Does not return if the process runs: it ends before the call has an effect. A call to the disk has had it: its end is told to
 * nobody. */
static void
end_there(struct nth *nth, struct process *p, bool power)
{
    struct sim *sim = p->sim;
    bool runs = sim->running == p;

    nth->killed = p->pid;
    nth->power = (struct fault){ .kind = FAULT_POWER_LOSS, .at = sim->now };
    if (runs && power)
        sim->fault_at_step = &nth->power;
    if (runs)
        process_kill(p, 256 + SIGKILL);
    else
        sim_at(sim, power ? &nth->power_fails : &nth->is_killed, sim->now);
}

static int
fail(struct nth *nth, struct process *p, int call, int number)
{
    struct sim *sim = p->sim;

    sim_trace(sim, p, "FAULT: %s fails: %s", calls[call].name, error_name(number));
    if (sim->options.logs && !sim->options.trace)
        printf("%14.6f %s.%u: FAULT: %s fails: %s\n", (double)sim->now / (double)SECOND, p->name, p->pid, calls[call].name,
               error_name(number));
    if (number < 0) {
        sim->faults.planted++;
        end_there(nth, p, number == IS_POWER);
        return 0;
    }
    /* A broken connection may have taken final replies with it: P5. */
    if (calls[call].call & (CALL_RECEIVE | CALL_SEND | CALL_LINK_RECEIVE | CALL_LINK_SEND))
        faults_death(sim);
    return number;
}

static int
on_call(struct call_watch *watch, struct process *p, enum seam_call kind)
{
    struct nth *nth = (struct nth *)watch;
    int role = find_role(p->name), call = find_call(kind), number = 0;

    if (!nth->open || role < 0)
        return 0;
    uint32_t n = ++nth->counts[role][call];
    for (size_t i = 0; i < nth->point_count && !number; i++) {
        const struct point *point = &nth->points[i];
        bool now = role == point->role && call == point->call && n == point->n;
        bool again = nth->hit[i] && point->how == LASTS && errors[point->error].calls & kind &&
                     (role == point->role || errors[point->error].of_machine);
        nth->hit[i] |= now;
        if (now && point->how == POWER)
            sim_at(p->sim, &nth->power_fails, p->sim->now + (int64_t)dice_below(p->sim, POWER_WITHIN));
        if (now || again)
            number = errors[point->error].number;
    }
    return number ? fail(nth, p, call, number) : 0;
}

/* A sync that failed has brought nothing to the disk, and the page cache does not say so: sim/states has the others. */
static enum disk_fate
lose(void *arg, const struct disk_op *op)
{
    (void)arg;
    (void)op;
    return DISK_LOST;
}

static bool
keep_no_sector(void *arg, const struct disk_op *op, uint64_t sector)
{
    (void)arg;
    (void)op;
    (void)sector;
    return false;
}

/* ---- one run ----------------------------------------------------------------------------------------------------- */

static void
plan(struct run *run, void *arg)
{
    struct nth *nth = arg;

    workload_plan(run, nth->workload);
}

static void
window_opens(struct sim *sim, struct sim_event *event)
{
    struct nth *nth = container_of(event, struct nth, opens);

    nth->open = true;
    if (!nth->workload->from_start && !sim->daemon_ready)
        sim_fail(sim, "the daemon is not ready when the workload begins");
}

static void
lose_power(struct sim *sim, struct sim_event *event)
{
    (void)event;
    faults_lose_power(sim);
}

static void
begin(struct run *run, void *arg)
{
    struct nth *nth = arg;
    struct sim *sim = run->sim;

    nth->watch = (struct call_watch){ .call = on_call, .sees_all = true, .failed_sync = { lose, keep_no_sector, NULL } };
    sim->call_watch = &nth->watch;
    nth->opens.due = window_opens;
    nth->power_fails.due = lose_power;
    nth->is_killed.due = kill_now;
    nth->open = nth->workload->from_start;
    if (!nth->open)
        sim_at(sim, &nth->opens, sim->now + WORKLOAD_OPENS);
    workload_begin(run);
}

static void
heal(struct run *run, void *arg)
{
    struct nth *nth = arg;

    nth->open = false;
    run->sim->call_watch = NULL;
    sim_stop_event(run->sim, &nth->opens);
    sim_stop_event(run->sim, &nth->power_fails);
    sim_stop_event(run->sim, &nth->is_killed);
    workload_probe(run);
}

/* How many segments the store has open depends on how much it wrote, but none is open twice. */
static void
check_files_of_store(struct sim *sim, const struct process *p)
{
    size_t open = 0, names = 0;
    disk_inode spool;

    list_each(node, &p->files)
        open++;
    CHECK(disk_walk(sim->disk, DISK_ROOT, S(STATE_DIR "/spool"), &spool));
    while (!str_is_absent(disk_name(sim->disk, spool, names)))
        names++;
    if (open > names)
        sim_fail(sim, "P9: the store has %zu files open, and there are %zu", open, names);
}

static uint32_t
count_handles(const struct process *p, bool with_files)
{
    const struct list *lists[] = { &p->streams, &p->listeners, &p->dirs, with_files ? &p->files : NULL };
    uint32_t count = 0;

    for (int32_t i = 0; i < p->handles_top; i++)
        count += p->handles[i] != NULL;
    for (size_t i = 0; i < sizeof lists / sizeof *lists && lists[i]; i++)
        for (const struct list *node = lists[i]->next; node != lists[i]; node = node->next)
            count++;
    return count;
}

static void
look_at_roles(struct nth *nth, struct sim *sim)
{
    list_each(node, &sim->processes) {
        struct process *p = container_of(node, struct process, node);
        int role = find_role(p->name);
        if (role < 0 || p->ended)
            continue;
        bool is_store = strcmp(p->name, "store") == 0;
        nth->holdings[role].processes++;
        nth->holdings[role].fibers += (uint32_t)p->rt.fiber_count;
        nth->holdings[role].handles += count_handles(p, !is_store);
        if (is_store)
            check_files_of_store(sim, p);
    }
}

static void
quiet(struct run *run, void *arg)
{
    struct nth *nth = arg;

    run->unattended = true;
    (void)sim_run(run->sim, run->sim->now + REST_NS, NULL, NULL);
    if (run->sim->failed)
        return;
    look_at_roles(nth, run->sim);
    for (size_t i = 0; !nth->counting && i < ROLES; i++) {
        const struct holdings *now = &nth->holdings[i], *then = &nth->baseline->holdings[i];
        if (now->processes != then->processes || now->fibers != then->fibers || now->handles != then->handles)
            sim_fail(run->sim, "P9: all is quiet, and of %s there are %u processes, %u fibers, %u handles in place of %u, %u, %u",
                     role_names[i], now->processes, now->fibers, now->handles, then->processes, then->fibers, then->handles);
    }
}

static void
run_nth(struct nth *nth, struct sim_options options, struct run_result *out)
{
    struct run_script script = { plan, begin, heal, quiet, nth };
    struct run_options how = { .script = &script, .sim = options };

    run_seed(1, &how, out);
    if (!out->failed && !nth->counting && !nth->hit[0] && !nth->hit[1]) {
        out->failed = true;
        (void)snprintf(out->failure, sizeof out->failure, "the call never came: the run is not the one that was counted");
    }
}

/* Once as it should be. False: that fails already. */
static bool
count_calls(const struct workload *w, struct sim_options options, struct baseline *out)
{
    struct nth nth = { .workload = w, .counting = true };
    struct run_result result;

    run_nth(&nth, options, &result);
    memcpy(out->counts, nth.counts, sizeof out->counts);
    memcpy(out->holdings, nth.holdings, sizeof out->holdings);
    if (result.failed)
        printf("workload %s fails though nothing else does: %s\n", w->name, result.failure);
    return !result.failed;
}

static void
run_points(const struct point *first, const struct point *second, const struct baseline *baselines, struct sim_options options,
           struct run_result *out)
{
    struct nth nth = { .workload = &workloads[first->workload], .baseline = &baselines[first->workload] };

    nth.points[nth.point_count++] = *first;
    if (second)
        nth.points[nth.point_count++] = *second;
    run_nth(&nth, options, out);
}

/* ---- points ------------------------------------------------------------------------------------------------------ */

struct points {
    struct point *list, *seconds; /* seconds: of pairs; else NULL */
    size_t count, cap;
};

static void
put_point(struct text *out, const struct point *p)
{
    text_putf(out, "%s:%s:%s:%u:%s:%s", workloads[p->workload].name, role_names[p->role], calls[p->call].name, p->n,
              error_name(errors[p->error].number), how_names[p->how]);
}

/* As --nth takes it. */
static const char *
point_text(const struct points *all, size_t i, char memory[POINT_TEXT])
{
    struct text text = text_init(memory, POINT_TEXT);

    put_point(&text, &all->list[i]);
    if (all->seconds) {
        text_put(&text, S("+"));
        put_point(&text, &all->seconds[i]);
    }
    return text_cstr(&text);
}

static void
add_point(struct points *all, struct point p)
{
    if (all->count == all->cap) {
        all->cap = all->cap ? all->cap * 2 : 4096;
        all->list = realloc(all->list, all->cap * sizeof *all->list);
        CHECK(all->list);
    }
    all->list[all->count++] = p;
}

static void
add_points(struct points *all, uint16_t workload, const struct baseline *b)
{
    for (uint8_t role = 0; role < ROLES; role++)
        for (uint8_t call = 0; call < CALL_KINDS; call++)
            for (uint32_t n = 1; n <= b->counts[role][call]; n++)
                for (uint8_t error = 0; error < ERRORS; error++)
                    for (uint8_t how = 0; how < HOWS && errors[error].calls & calls[call].call; how++)
                        if (how == ONCE || (errors[error].number > 0 && (how == LASTS || calls[call].call & TO_DISK)))
                            add_point(all, (struct point){ workload, role, call, error, how, n });
}

/* A share of them that is the same each time, and holds something of all kinds. */
static void
thin_out(struct points *all, uint64_t every)
{
    size_t kept = 0;

    for (size_t i = 0; i < all->count; i++)
        if ((i * UINT64_C(0x9e3779b97f4a7c15) >> 32) % every == 0)
            all->list[kept++] = all->list[i];
    all->count = kept;
}

static const struct point *
find_point(const struct points *all, struct str name)
{
    for (size_t i = 0; i < all->count; i++) {
        char memory[POINT_TEXT];
        if (str_eq(str_from_cstr(point_text(all, i, memory)), name))
            return &all->list[i];
    }
    return NULL;
}

/* Two points of one workload each: those of a workload stand together. */
static void
draw_pairs(struct points *all, uint64_t count, uint64_t seed)
{
    struct points pairs = { calloc(count, sizeof *pairs.list), calloc(count, sizeof *pairs.list), count, count };
    struct prng dice;

    CHECK(pairs.list && pairs.seconds && all->count > 0);
    prng_seed(&dice, seed);
    for (uint64_t i = 0; i < count; i++) {
        size_t at = prng_below(&dice, all->count), first = at, end = at;
        while (first > 0 && all->list[first - 1].workload == all->list[at].workload)
            first--;
        while (end < all->count && all->list[end].workload == all->list[at].workload)
            end++;
        pairs.list[i] = all->list[at];
        pairs.seconds[i] = all->list[first + prng_below(&dice, end - first)];
    }
    free(all->list);
    *all = pairs;
}

/* ---- many -------------------------------------------------------------------------------------------------------- */

struct failure {
    size_t point;
    char text[512];
};

/* What the workers share. */
struct common {
    atomic_size_t next, done, failed;
    atomic_uint_fast64_t failed_calls;
    atomic_size_t at[WORKERS_MAX];   /* the point that each is at */
    struct failure failures[FAILURES_MAX];
};

static void
tell_failure(struct common *common, size_t point, const char *text)
{
    size_t i = atomic_fetch_add(&common->failed, 1);

    if (i < FAILURES_MAX) {
        common->failures[i].point = point;
        (void)snprintf(common->failures[i].text, sizeof common->failures[i].text, "%s", text);
    }
}

_Noreturn static void
work(struct common *common, size_t worker, const struct points *all, const struct baseline *baselines)
{
    size_t i;

    while ((i = atomic_fetch_add(&common->next, 1)) < all->count) {
        struct run_result result;
        atomic_store(&common->at[worker], i);
        alarm(HANGS_AFTER_S);
        run_points(&all->list[i], all->seconds ? &all->seconds[i] : NULL, baselines, (struct sim_options){ false, false }, &result);
        atomic_fetch_add(&common->done, 1);
        atomic_fetch_add(&common->failed_calls, result.planted);
        if (result.failed)
            tell_failure(common, i, result.failure);
    }
    _exit(0);
}

static void
start_worker(struct common *common, pid_t *out, size_t worker, const struct points *all, const struct baseline *baselines)
{
    fflush(NULL);
    *out = fork();
    CHECK(*out >= 0);
    if (*out == 0)
        work(common, worker, all, baselines);
}

static void
run_all(struct common *common, size_t workers, const struct points *all, const struct baseline *baselines)
{
    pid_t pids[WORKERS_MAX];
    int status;
    pid_t ended;

    for (size_t i = 0; i < workers; i++)
        start_worker(common, &pids[i], i, all, baselines);
    while ((ended = wait(&status)) > 0)
        for (size_t i = 0; i < workers && status != 0; i++) {
            char text[100];
            if (pids[i] != ended)
                continue;
            (void)snprintf(text, sizeof text, "the simulator %s (status %d)",
                           WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM ? "does not end" : "crashed", status);
            tell_failure(common, common->at[i], text);
            start_worker(common, &pids[i], i, all, baselines);
        }
}

static int
show_all(const struct common *common, const struct points *all, size_t of, size_t workload_total, double seconds)
{
    size_t failed = common->failed;

    for (size_t i = 0; i < failed && i < FAILURES_MAX; i++) {
        char name[POINT_TEXT];
        printf("FAILED: %s\n    replay: postrider-sim --nth %s --trace\n", common->failures[i].text,
               point_text(all, common->failures[i].point, name));
    }
    printf("%zu workloads, %zu %s %zu%s, %llu failed calls, %.0f s: %zu failed\n", workload_total, all->count,
           all->seconds ? "pairs of" : "points of", of, all->seconds ? " points" : "", (unsigned long long)common->failed_calls,
           seconds, failed);
    return failed > 0;
}

/* By kinds of call: how many there were, and how many points they gave. */
static void
write_report(const char *path, const struct common *common, const struct points *all, const struct baseline *baselines,
             size_t workload_total)
{
    uint32_t points[CALL_KINDS] = { 0 }, counted[CALL_KINDS] = { 0 };
    FILE *out = fopen(path, "w");

    if (!out)
        return;
    for (size_t i = 0; i < all->count; i++)
        points[all->list[i].call]++;
    for (size_t w = 0; w < workload_count; w++)
        for (size_t role = 0; role < ROLES; role++)
            for (size_t call = 0; call < CALL_KINDS; call++)
                counted[call] += baselines[w].counts[role][call];
    fprintf(out, "%zu workloads, %zu points, %llu failed calls: %zu failed\n\n| call | calls | points |\n|---|--:|--:|\n",
            workload_total, all->count, (unsigned long long)common->failed_calls, (size_t)common->failed);
    for (size_t call = 0; call < CALL_KINDS; call++)
        fprintf(out, "| %s | %u | %u |\n", calls[call].name, counted[call], points[call]);
    fclose(out);
}

static int
run_many(const struct nth_options *o, struct points *all, const struct baseline *baselines, size_t workload_total)
{
    size_t of = all->count, workers = o->workers > 0 && o->workers <= WORKERS_MAX ? (size_t)o->workers : 1;
    double began = seconds_now();

    if (o->pairs)
        draw_pairs(all, o->pairs, o->from);
    else if (o->every > 1)
        thin_out(all, o->every);
    struct common *common = mmap(NULL, sizeof *common, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(common != MAP_FAILED);
    run_all(common, workers, all, baselines);
    int code = show_all(common, all, of, workload_total, seconds_now() - began);
    if (o->report)
        write_report(o->report, common, all, baselines, workload_total);
    munmap(common, sizeof *common);
    return code;
}

/* ---- the command ------------------------------------------------------------------------------------------------- */

static int
run_one(const struct nth_options *o, const struct points *all, const struct baseline *baselines)
{
    struct str rest = str_from_cstr(o->point);
    const struct point *first = find_point(all, str_cut(&rest, '+'));
    const struct point *second = str_is_absent(rest) ? NULL : find_point(all, rest);
    struct run_result result;

    if (!first || (!second && !str_is_absent(rest))) {
        fprintf(stderr, "there is no point \"%s\": WORKLOAD:ROLE:CALL:N:ERROR:HOW (once, lasts, power); --nth-list shows how many calls there are\n",
                o->point);
        return 64;
    }
    run_points(first, second, baselines, o->sim, &result);
    printf("%s: %s; %llu failed calls, %.3f s for %.1f virtual s\n", o->point, result.failed ? "FAILED" : "ok",
           (unsigned long long)result.planted, result.seconds, (double)result.virtual_ns / (double)SECOND);
    if (result.failed)
        printf("    %s\n", result.failure);
    return result.failed;
}

static void
list_counts(const struct workload *w, const struct baseline *b)
{
    printf("%s\n", w->name);
    for (size_t role = 0; role < ROLES; role++) {
        printf("    %-12s", role_names[role]);
        for (size_t call = 0; call < CALL_KINDS; call++)
            if (b->counts[role][call])
                printf(" %s %u", calls[call].name, b->counts[role][call]);
        printf("\n");
    }
}

static bool
is_wanted(const struct nth_options *o, const struct workload *w)
{
    size_t len = strlen(w->name);

    if (o->point)
        return strncmp(o->point, w->name, len) == 0 && o->point[len] == ':';
    return !o->only || strcmp(o->only, w->name) == 0;
}

int
nth_main(const struct nth_options *o)
{
    struct baseline *baselines = calloc(workload_count, sizeof *baselines);
    struct points all = { NULL, NULL, 0, 0 };
    size_t wanted = 0;
    int code = 0;

    CHECK(baselines);
    for (size_t i = 0; i < workload_count && !code; i++) {
        if (!is_wanted(o, &workloads[i]))
            continue;
        wanted++;
        code = !count_calls(&workloads[i], o->list ? o->sim : (struct sim_options){ false, false }, &baselines[i]);
        add_points(&all, (uint16_t)i, &baselines[i]);
        if (o->list)
            list_counts(&workloads[i], &baselines[i]);
    }
    if (o->list)
        printf("%zu workloads, %zu points\n", wanted, all.count);
    else if (!code)
        code = o->point ? run_one(o, &all, baselines) : run_many(o, &all, baselines, wanted);
    free(all.list);
    free(all.seconds);
    free(baselines);
    return code;
}
