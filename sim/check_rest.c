/*
 * check_rest - P9: what the daemon's processes hold when the world has been quiet. Who waits for nobody any more must be
 * gone: no fiber but those that serve, no connection to the outside, no block of memory that a session or a job left
 * behind; and every process is there once, with all of its links.
 */
#include "sim/run.h"

#include "base/check.h"

#include <string.h>

enum {
    FIBERS_MAX = 5,
    BLOCKS_A_LINK = 6,        /* of a heap, with its two stacks of buffers */
    BYTES_A_LINK = 192 << 10,
    BYTES_OWN = 1 << 20,
    BLOCKS_OF_USERS = 20,     /* the file, who was wrong from where, who is at home where: sim/users.c knows few of each */
};
#define COUNT_ANY UINT32_MAX

/* Links: one to the supervisor, one to each process of ARCHITECTURE.md's borders. KiB at most: a good deal above what
 * they have when they have most, in tens of thousands of runs of some clients each; messages have 300 KiB at most here. */
static const struct rest {
    const char *role;
    uint32_t processes, links;
    uint32_t blocks;          /* beside those of its links; COUNT_ANY: a spool's index is as large as it is */
    uint32_t kib_max;
    const char *fibers[FIBERS_MAX];
} rests[] = {
    { "supervisor", 1, 13, 90, 13000, { "main", "signals", "watch", "watch users" } }, /* it knows of each link between two others */
    { "store", 1, 9, COUNT_ANY, 20000, { "main", "commit", "spool recovery", "pump", "space" } },
    { "resolver", 1, 6, 24, 3500, { "main" } },
    { "checker", 1, 4, 24, 3000, { "main" } },
    { "gate", 1, 7, 32, 3500, { "main", "sweep", "keep" } },
    { "sender", 2, 4, 40, 6000, { "main", "smtp client keeper" } },
    { "mailbox", 1, 2, 24, 3000, { "main" } },
    { "console", 1, 3, 24, 3500, { "main", "accept" } },
    { "submission", 1, 5, 32, 4500, { "main", "accept" } },
    { "receiver", 2, 5, 32, 4000, { "main", "accept" } },
    { "keys", 1, 7, 32, 5000, { "main", "tickets", "former" } }, /* two to each receiver: one of them for signatures */
    { "fetch", 1, 5, 32, 3000, { "main", "refresh" } },
};
enum { RESTS = sizeof rests / sizeof *rests };

size_t
memory_of_role(const char *name)
{
    for (size_t i = 0; i < RESTS; i++)
        if (strcmp(rests[i].role, name) == 0)
            return (size_t)rests[i].kib_max << 10;
    return 0;
}

static bool
is_of_fiber(const struct fiber *f, const char *name)
{
    return strcmp(f->name, name) == 0;
}

static bool
is_expected(const struct rest *r, const struct fiber *f)
{
    if (is_of_fiber(f, "link reader") || is_of_fiber(f, "link writer"))
        return true;
    if (r == rests) /* the supervisor has two for each process */
        return is_of_fiber(f, "process") || is_of_fiber(f, "reaper") || is_of_fiber(f, "main") || is_of_fiber(f, "signals") ||
               is_of_fiber(f, "watch") || is_of_fiber(f, "watch users");
    for (size_t i = 0; i < FIBERS_MAX && r->fibers[i]; i++)
        if (is_of_fiber(f, r->fibers[i]))
            return true;
    return false;
}

static uint32_t
count_fibers(const struct process *p, const char *name)
{
    uint32_t count = 0;

    list_each(node, &p->rt.all)
        count += is_of_fiber(container_of(node, struct fiber, in_all), name);
    return count;
}

static uint32_t
count_listeners(const struct process *p)
{
    uint32_t count = 0;

    list_each(node, &p->listeners)
        count++;
    return count;
}

static bool
fibers_rest(const struct rest *r, const struct process *p, struct text *why)
{
    list_each(node, &p->rt.all) {
        const struct fiber *f = container_of(node, struct fiber, in_all);
        if (is_expected(r, f))
            continue;
        text_putf(why, "%s has a fiber \"%s\"", p->name, f->name);
        return false;
    }
    for (size_t i = 0; i < FIBERS_MAX && r->fibers[i]; i++)
        if (count_fibers(p, r->fibers[i]) > (strcmp(r->fibers[i], "accept") == 0 ? count_listeners(p) : 1)) {
            text_putf(why, "%s has %u fibers \"%s\"", p->name, count_fibers(p, r->fibers[i]), r->fibers[i]);
            return false;
        }
    return true;
}

/* Nothing of a session or a job is left. */
static bool
memory_rests(const struct rest *r, const struct process *p, struct text *why)
{
    uint32_t links = count_fibers(p, "link reader"), blocks = 0, most = r->blocks + BLOCKS_A_LINK * links;

    if (r->blocks == COUNT_ANY)
        return true;
    if (run_of(p->sim)->has_users && strcmp(p->name, "gate") == 0)
        most += BLOCKS_OF_USERS;
    list_each(node, &p->blocks)
        blocks++;
    if (blocks > most)
        text_putf(why, "%s has %u blocks of memory with %u links", p->name, blocks, links);
    else if (p->mem.in_use > BYTES_OWN + BYTES_A_LINK * links)
        text_putf(why, "%s has %zu bytes of memory with %u links", p->name, p->mem.in_use, links);
    return why->len == 0;
}

static bool
process_rests(const struct rest *r, const struct process *p, struct text *why)
{
    uint32_t links = count_fibers(p, "link reader");

    if (!fibers_rest(r, p, why))
        return false;
    if (links != r->links)
        text_putf(why, "%s has %u links, not %u", p->name, links, r->links);
    else if (net_outside(p) > 0)
        text_putf(why, "%s has %zu connections to the outside", p->name, net_outside(p));
    else
        return memory_rests(r, p, why);
    return false;
}

static bool
is_at_rest(struct sim *sim, struct text *why)
{
    uint32_t found[RESTS] = { 0 };

    list_each(node, &sim->processes) {
        struct process *p = container_of(node, struct process, node);
        if (p->host != sim->home || p->ended)
            continue;
        for (size_t i = 0; i < RESTS; i++) {
            if (strcmp(p->name, rests[i].role) != 0)
                continue;
            found[i]++;
            if (!process_rests(&rests[i], p, why))
                return false;
        }
    }
    for (size_t i = 0; i < RESTS; i++)
        if (found[i] != rests[i].processes) {
            text_putf(why, "there are %u processes \"%s\"", found[i], rests[i].role);
            return false;
        }
    return true;
}

void
check_memory_rests(struct sim *sim, const char *role)
{
    char memory[256];
    struct text why = text_init(memory, sizeof memory);

    list_each(node, &sim->processes) {
        struct process *p = container_of(node, struct process, node);
        for (size_t i = 0; i < RESTS && strcmp(p->name, role) == 0 && !p->ended; i++)
            if (strcmp(rests[i].role, role) == 0 && !memory_rests(&rests[i], p, &why))
                sim_fail(sim, "P9: nobody asks anything of it, and %.*s", (int)why.len, why.ptr);
    }
}

static bool
rests_now(struct sim *sim, void *arg)
{
    char memory[256];
    struct text why = text_init(memory, sizeof memory);

    (void)arg;
    return is_at_rest(sim, &why);
}

void
check_rest(struct sim *sim, int64_t patience)
{
    char memory[256];
    struct text why = text_init(memory, sizeof memory);

    if (sim_run(sim, sim->now + patience, rests_now, NULL) || sim->failed || is_at_rest(sim, &why))
        return;
    sim_fail(sim, "P9: all is quiet, and %.*s", (int)why.len, why.ptr);
}
