/*
 * process - simulated processes: a struct rt each, a heap that is dropped whole, handles, signals, children.
 *
 * A process dies only inside one of its own calls of the seam (process_step()) or between its turns. In the first case it
 * runs on the stack of a fiber: its ready list is emptied and the fiber is left for good, so that sched_run() returns.
 */
#include "sim/sim.h"

#include "base/check.h"
#include "role/role.h"
#include "role/supervisor.h"
#include "runtime/host.h"
#include "sim/pool.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAPS = 1 << 20, EXIT_CHECK_FAILED = 256 + SIGABRT };

/* ---- the heap ---------------------------------------------------------------------------------------------------- */

struct block {
    struct list node;
    size_t size;
    size_t unused; /* keeps what follows aligned to 16 */
};

static void
count_allocation(struct process *p)
{
    if (++p->allocations == p->ends_at)
        process_kill(p, EXIT_CHECK_FAILED);
    if (p == p->sim->running && !p->in_seam && !p->dying && faults_call(p, CALL_MEMORY))
        process_kill(p, EXIT_CHECK_FAILED);
}

/* P9, at each allocation: its bound holds while things happen too. */
static void
check_memory(struct process *p)
{
    if (p->memory_max && p->mem.in_use > p->memory_max)
        sim_fail(p->sim, "P9: %s has %zu bytes of memory, and should never have more than %zu", p->name, p->mem.in_use,
                 p->memory_max);
}

static void *
block_add(struct process *p, struct block *b, size_t size)
{
    b->size = size;
    list_push_back(&p->blocks, &b->node);
    return b + 1;
}

static void *
heap_buffer(struct mem *mem, size_t size)
{
    struct process *p = container_of(mem, struct process, mem);

    count_allocation(p);
    mem->in_use += size;
    check_memory(p);
    return block_add(p, pool_take(sizeof(struct block) + size), size);
}

static void *
heap_resize(struct mem *mem, void *ptr, size_t old_size, size_t new_size)
{
    struct process *p = container_of(mem, struct process, mem);
    struct block *b = ptr ? (struct block *)ptr - 1 : NULL;

    CHECK(!b || b->size == old_size);
    if (!b)
        return memset(heap_buffer(mem, new_size), 0, new_size);
    if (new_size > old_size)
        count_allocation(p);
    mem->in_use += new_size - old_size;
    check_memory(p);
    list_remove(&b->node);
    if (new_size == 0) {
        pool_give(b, sizeof *b + old_size);
        return NULL;
    }
    return block_add(p, pool_resize(b, sizeof *b + old_size, sizeof *b + new_size), new_size);
}

void *
process_alloc(struct process *p, size_t size)
{
    p->in_seam = true;
    void *memory = mem_alloc(&p->mem, size);
    p->in_seam = false;
    return memory;
}

static void
drop_heap(struct process *p)
{
    for (struct list *node = p->blocks.next, *next; node != &p->blocks; node = next) {
        struct block *b = container_of(node, struct block, node);
        next = node->next;
        pool_give(b, sizeof *b + b->size);
    }
    list_init(&p->blocks);
    p->mem.in_use = 0;
}

/* ---- start and end ----------------------------------------------------------------------------------------------- */

static int64_t
process_clock(struct rt *rt)
{
    struct process *p = process_of(rt);

    return p->sim->now - p->boot;
}

static void
run_main(void *arg)
{
    struct process *p = arg;

    p->exit_code = p->main(&p->rt, p->main_arg);
    p->main_ended = true;
}

static bool
take_line(struct log_sink *sink, struct str line)
{
    struct process *p = container_of(sink, struct process, log);
    struct sim *sim = p->sim;

    if (p->is_peer)
        return true;
    sim_note(sim, p, "log", line.len, hash_line(line));
    if (sim->options.logs)
        printf("%14.6f %s.%u: %.*s", (double)sim->now / (double)SECOND, p->name, p->pid, STR_ARG(line));
    if (sim->log_line)
        sim->log_line(sim, p, line);
    return true;
}

static struct process *
process_new(struct sim *sim)
{
    struct process *p = sim->free_processes;

    if (p) {
        struct stacks stacks = p->rt.stacks; /* whose lists' heads stay where they are */
        sim->free_processes = p->next_free;
        CHECK(p->handles_top == 0);
        memset(&p->rt, 0, sizeof p->rt);
        memset((char *)p + sizeof p->rt, 0, offsetof(struct process, handles) - sizeof p->rt);
        memset((char *)p + offsetof(struct process, handles_top), 0, sizeof *p - offsetof(struct process, handles_top));
        p->rt.stacks = stacks;
    } else {
        static struct mem stacks_mem; /* outlives every run */
        if (!stacks_mem.resize)
            stacks_mem = mem_libc();
        p = calloc(1, sizeof *p);
        CHECK(p);
        stacks_init(&p->rt.stacks, &stacks_mem, MAPS, true);
        p->rt.stacks.keep_warm = SIZE_MAX; /* the next run wants them: giving pages back took a twentieth of the time */
    }
    p->sim = sim;
    list_init(&p->blocks);
    list_init(&p->streams);
    list_init(&p->listeners);
    list_init(&p->files);
    list_init(&p->dirs);
    list_init(&p->jobs);
    list_init(&p->children);
    event_init(&p->signal_came);
    p->mem = (struct mem){ heap_resize, 0, heap_buffer };
    p->rt.mem = &p->mem;
    p->rt.clock = process_clock;
    return p;
}

struct process *
process_start(struct sim *sim, const char *name, struct host *host, int (*main)(struct rt *, void *arg), void *arg)
{
    struct process *p = process_new(sim);

    (void)snprintf(p->name, sizeof p->name, "%s", name);
    p->pid = ++sim->last_pid;
    p->host = host;
    p->is_peer = host != sim->home;
    p->memory_max = !p->is_peer && sim->memory_of_role ? sim->memory_of_role(p->name) : 0;
    p->boot = p->is_peer ? 0 : sim->booted;
    p->next_alarm = FOREVER;
    p->uid = p->gid = p->is_peer || !sim->as_root ? SIM_USER : 0;
    p->main = main;
    p->main_arg = arg;
    sched_init(&p->rt);
    log_sink_init(&p->log, &p->rt, take_line);
    p->log.pid = p->pid;
    list_push_back(&sim->processes, &p->node);
    fiber_start(&p->rt, "main", run_main, p);
    sim_note(sim, p, "start", p->pid, p->is_peer);
    return p;
}

static void
drop_fibers(struct process *p)
{
    list_each_safe(node, &p->rt.all) {
        struct fiber *f = container_of(node, struct fiber, in_all);
        context_done(&f->context);
        stack_put(&p->rt.stacks, f->stack);
    }
    list_init(&p->rt.all);
    list_init(&p->rt.ready);
    p->rt.fiber_count = 0;
}

/* Not on one of its own stacks. */
static void
process_end(struct process *p, int status, bool killed)
{
    struct sim *sim = p->sim;

    CHECK(!p->ended);
    p->ended = sim->any_ended = true;
    p->next_alarm = FOREVER;
    p->status = status;
    sim_note(sim, p, "end", (uint64_t)status, killed);
    if (killed && !p->is_peer)
        faults_death(sim);
    file_close_all(p, killed);
    net_close_all(p);
    for (int32_t i = 0; i < p->handles_top; i++) {
        if (p->handles[i])
            object_release(p->handles[i]);
        p->handles[i] = NULL;
    }
    p->handles_top = 0;
    drop_fibers(p);
    heap_done(&p->rt.alarms);
    drop_heap(p);
    child_ended(p);
    if (p->pid == sim->daemon_pid && !sim->daemon_is_over && !heap_has(&sim->start_again.node))
        sim_daemon_comes_back(sim, 5 * SECOND); /* as a service manager does */
}

void
process_kill(struct process *p, int status)
{
    if (p->ended || p->dying)
        return;
    p->status = status;
    if (p->sim->running != p) {
        process_end(p, status, true);
        return;
    }
    p->dying = true;
    list_init(&p->rt.ready);
    struct fiber *f = p->rt.running;
    if (f)
        context_leave(&f->context, &p->rt.reactor);
}

static void
look_again(struct alarm *a)
{
    (void)a;
}

void
process_turn(struct sim *sim, struct process *p)
{
    sim->running = p;
    p->rt.now = p->rt.clock(&p->rt);
    sched_call_alarms(&p->rt);
    if (!p->dying)
        sched_run(&p->rt, 1 + (size_t)dice_below(sim, 12));
    sim->running = NULL;
    if (p->dying) {
        process_end(p, p->status, true);
        return;
    }
    if (!p->main_ended)
        return;
    if (!p->cancelled) {
        sched_cancel_all(&p->rt);
        p->cancelled = true;
        p->give_up_at = p->rt.now + RT_CANCEL_GRACE_NS + SECOND;
        p->last_look.due = look_again;
        alarm_set(&p->rt, &p->last_look, p->give_up_at);
    }
    if (p->rt.fiber_count == 0 || p->rt.now >= p->give_up_at) {
        if (p->rt.fiber_count > 0 && !p->is_peer)
            sim_fail(sim, "%s: fiber \"%s\" had not ended when its role had", p->name,
                     container_of(p->rt.all.next, struct fiber, in_all)->name);
        process_end(p, p->exit_code, false);
    }
}

void
sim_kill_home(struct sim *sim, int status)
{
    list_each(node, &sim->processes) {
        struct process *p = container_of(node, struct process, node);
        if (p->host == sim->home && !p->ended && p != sim->running)
            process_kill(p, status);
    }
    if (sim->running && sim->running->host == sim->home)
        process_kill(sim->running, status);
}

void
process_step(struct process *p)
{
    p->steps++;
    if (p->sim->faults.armed && !p->is_peer)
        faults_at_step(p->sim, p);
}

_Noreturn void
check_failed(const char *file, int line, const char *what)
{
    struct process *p = sim_running_process();

    if (!p) {
        fprintf(stderr, "simulator: CHECK failed: %s (%s:%d)\n", what, file, line);
        abort();
    }
    sim_fail(p->sim, "%s: CHECK failed: %s (%s:%d)", p->name, what, file, line);
    process_kill(p, EXIT_CHECK_FAILED);
    /* On the reactor's stack nothing can be left; the failure is known all the same. */
    fprintf(stderr, "simulator: seed %llu: CHECK failed on the reactor's stack: %s (%s:%d)\n",
            (unsigned long long)p->sim->seed, what, file, line);
    abort();
}

/* ---- children ---------------------------------------------------------------------------------------------------- */

struct child {
    struct list node;      /* of its parent's children */
    struct process *parent;
    struct process *process; /* NULL: buried */
    uint32_t pid;
    bool has_ended, released;
    int status;
    struct event ended;
};

static const struct role_ops *const roles[] = { &receiver_ops, &submission_ops, &gate_ops,    &store_ops,  &sender_ops,
                                                &mailbox_ops,  &resolver_ops,   &checker_ops, &console_ops,
                                                &keys_ops,     &fetch_ops };

static int
role_process(struct rt *rt, void *arg)
{
    return role_main(rt, arg);
}

/* "--role NAME": whatever else might be started is not simulated. */
static const struct role_ops *
role_of(const struct spawn *spawn)
{
    for (size_t i = 0; i < sizeof roles / sizeof *roles && spawn->argv[1] && spawn->argv[2]; i++)
        if (str_eq(str_from_cstr(spawn->argv[2]), role_kind_name(roles[i]->kind)))
            return roles[i];
    return NULL;
}

enum { FIRST_HANDLE = 3 };

struct err
child_start(struct rt *rt, const struct spawn *spawn, struct child **out)
{
    struct process *parent = process_of(rt);
    const struct role_ops *ops = role_of(spawn);

    process_step(parent);
    CHECK(ops && !spawn->program);
    if (faults_no_files(parent->sim))
        return err_from_os(EMFILE, "start a process");
    int error = faults_call(parent, CALL_SPAWN);
    if (error)
        return err_from_os(error, "start a process");
    struct process *p = process_start(parent->sim, spawn->argv[2], parent->host, role_process, (void *)(uintptr_t)ops);
    p->parent = parent->pid;
    if (spawn->set_ids) {
        p->uid = spawn->uid;
        p->gid = spawn->gid;
    }
    for (size_t i = 0; i < spawn->handle_count; i++) {
        struct object *o = object_of(parent, spawn->handles[i]);
        o->refs++;
        p->handles[FIRST_HANDLE + i] = o;
        p->handles_top = (int32_t)(FIRST_HANDLE + i + 1);
    }
    struct child *c = process_alloc_new(parent, struct child);
    *c = (struct child){ .parent = parent, .process = p, .pid = p->pid };
    event_init(&c->ended);
    list_push_back(&parent->children, &c->node);
    *out = c;
    return OK;
}

void
child_ended(struct process *p)
{
    list_each(node, &p->sim->processes) {
        struct process *parent = container_of(node, struct process, node);
        if (parent->pid != p->parent || parent->ended)
            continue;
        list_each_safe(at, &parent->children) {
            struct child *c = container_of(at, struct child, node);
            if (c->process != p)
                continue;
            c->has_ended = true;
            c->status = p->status;
            c->process = NULL;
            event_wake(&parent->rt, &c->ended);
            if (c->released) {
                list_remove(&c->node);
                mem_free(parent->rt.mem, c, sizeof *c);
            }
        }
    }
}

struct err
child_wait(struct child *c, int64_t until, int *out_status)
{
    struct rt *rt = &c->parent->rt;

    CHECK(!c->released);
    while (!c->has_ended)
        TRY(event_wait(rt, &c->ended, until));
    *out_status = c->status;
    list_remove(&c->node);
    mem_free(rt->mem, c, sizeof *c);
    return OK;
}

void
child_signal(struct child *c, int signal)
{
    process_step(c->parent);
    if (c->process)
        process_signal(c->process, signal);
}

uint32_t
child_pid(const struct child *c)
{
    return c->pid;
}

void
child_release(struct child *c)
{
    CHECK(!c->released);
    c->released = true;
    if (c->has_ended) {
        list_remove(&c->node);
        mem_free(c->parent->rt.mem, c, sizeof *c);
    }
}

void
process_bury(struct sim *sim)
{
    sim->any_ended = false;
    list_each_safe(node, &sim->processes) {
        struct process *p = container_of(node, struct process, node);
        if (!p->ended)
            continue;
        list_remove(&p->node);
        p->next_free = sim->free_processes;
        sim->free_processes = p;
    }
}

/* ---- signals ----------------------------------------------------------------------------------------------------- */

void
process_signal(struct process *p, int signal)
{
    if (p->ended)
        return;
    sim_note(p->sim, p, "signal", (uint64_t)signal, 0);
    if (signal == SIGKILL || !(p->signals_caught >> signal & 1)) {
        process_kill(p, 256 + signal);
        return;
    }
    p->signals_pending |= UINT64_C(1) << signal;
    event_wake(&p->rt, &p->signal_came);
}

struct err
rt_catch_signals(struct rt *rt, const int *signals, size_t count)
{
    int error = faults_call(process_of(rt), CALL_SIGNALS);

    if (error)
        return err_from_os(error, "catch signals");
    for (size_t i = 0; i < count; i++)
        process_of(rt)->signals_caught |= UINT64_C(1) << signals[i];
    return OK;
}

struct err
rt_wait_signal(struct rt *rt, int64_t until, int *out_signal)
{
    struct process *p = process_of(rt);

    CHECK(p->signals_caught);
    while (!p->signals_pending)
        TRY(event_wait(rt, &p->signal_came, until));
    for (int i = 1; i < 64; i++)
        if (p->signals_pending >> i & 1) {
            p->signals_pending &= ~(UINT64_C(1) << i);
            *out_signal = i;
            break;
        }
    return OK;
}

/* ---- clock, randomness ------------------------------------------------------------------------------------------- */

int64_t
rt_wall(struct rt *rt)
{
    struct sim *sim = process_of(rt)->sim;

    return (process_of(rt)->is_peer ? SIM_WALL_START : sim->wall) + sim->now;
}

uint64_t
rt_random(struct rt *rt)
{
    return prng_u64(&process_of(rt)->sim->dice);
}

/* ---- the daemon -------------------------------------------------------------------------------------------------- */

static int
supervisor_process(struct rt *rt, void *arg)
{
    (void)arg;
    return supervisor_main(rt, S(SIM_CONFIG_PATH));
}

struct process *
sim_start_daemon(struct sim *sim)
{
    CHECK(!sim_daemon(sim));
    struct process *p = process_start(sim, "supervisor", sim->home, supervisor_process, NULL);
    sim->daemon_pid = p->pid;
    return p;
}

struct process *
sim_daemon(struct sim *sim)
{
    list_each(node, &sim->processes) {
        struct process *p = container_of(node, struct process, node);
        if (p->pid == sim->daemon_pid && !p->ended)
            return p;
    }
    return NULL;
}
