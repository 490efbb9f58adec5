/* world - time, dice, events, the turn and the trace: see sim.h. */
#include "sim/sim.h"

#include "base/check.h"
#include "base/map.h"
#include "sim/pool.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FAIRNESS = 12 }; /* a process runs at most so many fibers before another has its turn */
#define TURN_NS_MAX 30000
#define BUSY_TURNS 500000 /* in less than an hour: all of a run has some 5,000 to 40,000 */
#define IDLE_TURNS 20000  /* of one process that does nothing: some 0.3 s of a core */
#define PAUSE MILLISECOND

/* ---- dice -------------------------------------------------------------------------------------------------------- */

uint64_t
dice_below(struct sim *sim, uint64_t bound)
{
    return prng_below(&sim->dice, bound);
}

bool
dice_chance(struct sim *sim, uint32_t of_1000)
{
    return of_1000 > 0 && prng_below(&sim->dice, 1000) < of_1000;
}

int64_t
dice_between(struct sim *sim, int64_t least, int64_t most)
{
    return most <= least ? least : least + (int64_t)prng_below(&sim->dice, (uint64_t)(most - least));
}

/* ---- trace ------------------------------------------------------------------------------------------------------- */

static void
hash_u64(struct sim *sim, uint64_t value)
{
    sim->hash = (sim->hash ^ value) * UINT64_C(0x9e3779b97f4a7c15);
    sim->hash ^= sim->hash >> 29;
}

uint64_t
hash_line(struct str line)
{
    return hash_bytes(line, 2);
}

void
sim_note(struct sim *sim, const struct process *p, const char *kind, uint64_t a, uint64_t b)
{
    hash_u64(sim, (uint64_t)sim->now);
    hash_u64(sim, (uint64_t)(p ? p->pid : 0) << 32 | (uint64_t)(uint8_t)kind[0] << 8 | (uint8_t)kind[1]);
    hash_u64(sim, a);
    hash_u64(sim, b);
    if (sim->options.trace)
        printf("%14.6f %s.%u: %s %llu %llu\n", (double)sim->now / (double)SECOND, p ? p->name : "world", p ? p->pid : 0, kind,
               (unsigned long long)a, (unsigned long long)b);
}

void
sim_trace(struct sim *sim, const struct process *p, const char *format, ...)
{
    char text[1024];
    va_list args;

    va_start(args, format);
    int n = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    size_t len = n < 0 ? 0 : (size_t)n < sizeof text ? (size_t)n : sizeof text - 1;
    hash_u64(sim, (uint64_t)sim->now);
    hash_u64(sim, hash_bytes(str_new(text, len), 1));
    if (sim->options.trace)
        printf("%14.6f %s.%u: %s\n", (double)sim->now / (double)SECOND, p ? p->name : "world", p ? p->pid : 0, text);
}

void
sim_fail(struct sim *sim, const char *format, ...)
{
    va_list args;

    if (sim->failed)
        return;
    sim->failed = true;
    va_start(args, format);
    (void)vsnprintf(sim->failure, sizeof sim->failure, format, args);
    va_end(args);
    sim_trace(sim, NULL, "FAILED: %s", sim->failure);
}

/* ---- events ------------------------------------------------------------------------------------------------------ */

void
sim_at(struct sim *sim, struct sim_event *e, int64_t time)
{
    heap_remove(&sim->events, &e->node);
    heap_insert(&sim->events, &e->node, time > sim->now ? time : sim->now);
}

void
sim_stop_event(struct sim *sim, struct sim_event *e)
{
    heap_remove(&sim->events, &e->node);
}

static void
call_events(struct sim *sim)
{
    struct heap_node *first;

    while ((first = heap_first(&sim->events)) && first->due <= sim->now) {
        struct sim_event *e = container_of(first, struct sim_event, node);
        heap_remove(&sim->events, first);
        e->due(sim, e);
    }
}

/* ---- the turn ---------------------------------------------------------------------------------------------------- */

/* Nobody else changes its alarms but by waking it, which gives it a turn. */
static void
note_alarm(struct process *p)
{
    p->next_alarm = p->ended || p->rt.alarms.count == 0 ? FOREVER : p->rt.alarms.nodes[0]->due + p->boot;
}

/* One that can run, drawn among all that can; NULL: none, and *out_next is when one of them can. One walk for both: this is
 * where a run spends its time. */
static struct process *
draw_process(struct sim *sim, int64_t *out_next)
{
    struct process *can[256];
    size_t count = 0;
    int64_t next = FOREVER;

    for (struct list *node = sim->processes.next; node != &sim->processes; node = node->next) {
        struct process *p = container_of(node, struct process, node);
        next = p->next_alarm < next ? p->next_alarm : next;
        if (count < sizeof can / sizeof *can && (p->next_alarm <= sim->now || process_has_ready(p)))
            can[count++] = p;
    }
    *out_next = next;
    return count == 0 ? NULL : can[count == 1 ? 0 : dice_below(sim, count)];
}

/* A process that runs again and again, and nobody can see what for, would take a whole core. */
static void
check_idle(struct sim *sim, struct process *p)
{
    bool idle = p->steps == p->steps_then && sim->now - p->turn_ended < PAUSE;

    p->idle_turns = idle ? p->idle_turns + 1 : 0;
    p->steps_then = p->steps;
    p->turn_ended = sim->now;
    if (p->idle_turns > IDLE_TURNS && !p->ended)
        sim_fail(sim, "%s runs again and again and does nothing", p->name);
}

bool
sim_run(struct sim *sim, int64_t until, bool (*enough)(struct sim *, void *arg), void *arg)
{
    uint64_t turns_then = sim->turns;
    int64_t now_then = sim->now;

    while (!sim->failed) {
        call_events(sim);
        int64_t next;
        struct process *p = draw_process(sim, &next);
        if (p) {
            process_turn(sim, p);
            note_alarm(p);
            check_idle(sim, p);
            faults_after_turn(sim);
            if (sim->any_ended)
                process_bury(sim);
            sim->now += (int64_t)dice_below(sim, TURN_NS_MAX);
            if (++sim->turns - turns_then > BUSY_TURNS) {
                if (sim->now - now_then < HOUR)
                    sim_fail(sim, "the daemon is busy without end: %s runs again and again", p->name);
                turns_then = sim->turns;
                now_then = sim->now;
            }
            continue;
        }
        if (enough && enough(sim, arg))
            return true;
        const struct heap_node *first = heap_first(&sim->events);
        if (first && first->due < next)
            next = first->due;
        if (next >= until) {
            if (until != FOREVER && sim->now < until)
                sim->now = until;
            return false;
        }
        if (next > sim->now)
            sim->now = next;
    }
    return false;
}

/* CHECK has no argument that leads here. */
static struct sim *the_sim;

struct process *
sim_running_process(void)
{
    return the_sim ? the_sim->running : NULL;
}

/* Processes' stacks are kept from run to run: the only state outside a run, and invisible in it. */
static struct process *kept;

void
sim_forget_processes(void)
{
    while (kept) {
        struct process *p = kept;
        kept = p->next_free;
        stacks_done(&p->rt.stacks);
        free(p);
    }
}

/* ---- a world ----------------------------------------------------------------------------------------------------- */

struct sim *
sim_new(uint64_t seed, struct sim_options options)
{
    struct sim *sim = calloc(1, sizeof *sim);

    CHECK(sim);
    sim->mem = pool_mem();
    sim->options = options;
    sim->seed = seed;
    sim->wall = SIM_WALL_START;
    sim->now = SECOND;
    sim->hash = seed;
    prng_seed(&sim->dice, seed * 2 + 1);
    heap_init(&sim->events, &sim->mem);
    list_init(&sim->processes);
    list_init(&sim->hosts);
    list_init(&sim->listeners);
    list_init(&sim->connections);
    list_init(&sim->locks);
    sim->net = (struct sim_net){ MILLISECOND, 30 * MILLISECOND, 0, 64 << 10, 200 << 10, 0 };
    sim->disk_speed = (struct sim_disk_speed){ 20000, 2 * MILLISECOND, 0 };
    sim->disk_capacity = UINT64_C(64) << 20;
    sim->disk = disk_new(&sim->mem, sim->disk_capacity);
    sim->next_port = 40000;
    sim->free_processes = kept;
    kept = NULL;
    sim->outer = the_sim;
    the_sim = sim;
    return sim;
}

void
sim_free(struct sim *sim)
{
    sim->daemon_is_over = true;
    list_each(node, &sim->processes) {
        struct process *p = container_of(node, struct process, node);
        if (!p->ended)
            process_kill(p, 256 + 9);
    }
    list_each(node, &sim->processes)
        container_of(node, struct process, node)->parent = 0;
    process_bury(sim);
    net_free(sim);
    sim_dns_free(sim);
    sim_web_free(sim);
    while (!list_is_empty(&sim->hosts)) {
        struct host *h = container_of(sim->hosts.next, struct host, node);
        list_remove(&h->node);
        mem_free(&sim->mem, h, sizeof *h);
    }
    disk_free(sim->disk);
    heap_done(&sim->events);
    struct process **last = &sim->free_processes;
    while (*last)
        last = &(*last)->next_free;
    *last = kept; /* of worlds within */
    kept = sim->free_processes;
    the_sim = sim->outer;
    free(sim);
}
