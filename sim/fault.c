/* fault - see fault.h: what each kind does to the world. */
#include "sim/fault.h"

#include "base/check.h"
#include "sim/sim.h"

#include <errno.h>
#include <signal.h>
#include <string.h>

#define BOOT_NS (20 * SECOND) /* from power loss to the daemon's start */

static const char *const names[FAULT_KINDS] = {
    [FAULT_KILL_ROLE] = "kill of a role",     [FAULT_KILL_ALL] = "kill of all roles",
    [FAULT_POWER_LOSS] = "power loss",        [FAULT_DISK_ERROR] = "disk error",
    [FAULT_DISK_FULL] = "full disk",          [FAULT_DISK_STALL] = "stalled disk",
    [FAULT_CLOCK_JUMP] = "clock jump",        [FAULT_DNS_OUTAGE] = "DNS outage",
    [FAULT_PARTITION] = "network partition",  [FAULT_RESET] = "connection reset",
    [FAULT_HALF_OPEN] = "half-open connection", [FAULT_NO_FILES] = "descriptors exhausted",
    [FAULT_RELOAD] = "reload",                [FAULT_RESTART] = "restart in good order",
    [FAULT_CRASHES] = "crashes in recovery",
};

const char *
fault_name(enum fault_kind kind)
{
    CHECK((unsigned)kind < FAULT_KINDS);
    return names[kind];
}

void
fault_describe(const struct fault *f, struct text *out)
{
    text_putf(out, "%.3f s: %s", (double)f->at / (double)SECOND, fault_name((enum fault_kind)f->kind));
    if (f->by_step)
        text_putf(out, " at step %llu after that", (unsigned long long)f->step);
    if (f->role[0])
        text_putf(out, ", %s", f->role);
    if (f->error)
        text_putf(out, ", errno %d, calls %u", f->error, f->which);
    if (f->lasts)
        text_putf(out, ", for %.3f s", (double)f->lasts / (double)SECOND);
    if (f->amount)
        text_putf(out, ", by %lld", (long long)f->amount);
}

/* ---- the daemon comes back --------------------------------------------------------------------------------------- */

static void
start_again(struct sim *sim, struct sim_event *event)
{
    (void)event;
    if (sim->now < sim->home->down_until) {
        sim_at(sim, &sim->start_again, sim->home->down_until);
        return;
    }
    bool left = false; /* roles of the one before, which find that their supervisor is gone */
    list_each(node, &sim->processes) {
        struct process *p = container_of(node, struct process, node);
        left |= p->host == sim->home && !p->ended;
    }
    if (left) {
        sim_at(sim, &sim->start_again, sim->now + SECOND);
        return;
    }
    sim->daemon_ready = false;
    sim_start_daemon(sim);
}

void
sim_daemon_comes_back(struct sim *sim, int64_t after)
{
    sim->start_again.due = start_again;
    sim_at(sim, &sim->start_again, sim->now + after);
}

/* ---- what each does ---------------------------------------------------------------------------------------------- */

static bool
is_of(const struct process *p, const struct fault *f)
{
    return !p->is_peer && !p->ended && (f->role[0] == '\0' || strcmp(f->role, p->name) == 0);
}

static struct process *
choose_process(struct sim *sim, const struct fault *f)
{
    size_t count = 0;

    list_each(node, &sim->processes)
        count += is_of(container_of(node, struct process, node), f);
    size_t nth = count ? f->which % count : 0;
    list_each(node, &sim->processes) {
        struct process *p = container_of(node, struct process, node);
        if (is_of(p, f) && nth-- == 0)
            return p;
    }
    return NULL;
}

static struct host *
choose_host(struct sim *sim, uint32_t which)
{
    size_t count = 0;

    list_each(node, &sim->hosts)
        count++;
    which %= (uint32_t)count;
    list_each(node, &sim->hosts)
        if (which-- == 0)
            return container_of(node, struct host, node);
    UNREACHABLE();
}

static void
kill_role(struct sim *sim, struct fault *f, struct process *victim)
{
    struct process *p = victim ? victim : choose_process(sim, f);

    if (!p)
        return;
    process_kill(p, 256 + SIGKILL);
}

static void
lose_power(struct sim *sim)
{
    struct disk_choice choice = file_draws(sim);

    sim->home->down_until = sim->now + BOOT_NS;
    sim_daemon_comes_back(sim, BOOT_NS);
    net_lose_home(sim);
    sim->faults.disk_error_until = 0;
    list_each(node, &sim->processes) {
        struct process *p = container_of(node, struct process, node);
        if (p->host == sim->home && !p->ended)
            process_kill(p, 256 + SIGKILL);
    }
    disk_lose_power(sim->disk, &choice);
    sim->booted = sim->now - (int64_t)dice_below(sim, HOUR);
}

static void
disk_is_well(struct sim *sim, struct sim_event *event)
{
    event->due = NULL;
    disk_set_capacity(sim->disk, sim->disk_capacity);
}

static void
inject(struct sim *sim, struct fault *f, struct process *victim)
{
    struct faults *all = &sim->faults;
    int64_t until = sim->now + f->lasts;
    char memory[200];
    struct text text = text_init(memory, sizeof memory);
    struct process *daemon = sim_daemon(sim);

    if (f->kind == FAULT_CRASHES && !f->begun && sim->crashes_begin)
        sim->crashes_begin(sim);
    f->done = f->again == 0;
    all->injected[f->kind] += !f->begun; /* many crashes are one fault */
    f->begun = true;
    if (f->again > 0) {
        f->again--;
        f->step = 1 + dice_below(sim, dice_chance(sim, 500) ? 30 : 600);
    }
    fault_describe(f, &text);
    sim_trace(sim, NULL, "FAULT %.*s", STR_ARG(text_str(&text)));
    switch ((enum fault_kind)f->kind) {
    case FAULT_KILL_ROLE:
        kill_role(sim, f, victim);
        break;
    case FAULT_CRASHES:
        sim->faults.armed = true;
        if (victim)
            process_kill(victim, 256 + SIGKILL);
        else
            lose_power(sim);
        break;
    case FAULT_KILL_ALL:
        sim_daemon_comes_back(sim, f->lasts);
        sim_kill_home(sim, 256 + SIGKILL);
        break;
    case FAULT_POWER_LOSS:
        lose_power(sim);
        break;
    case FAULT_DISK_ERROR:
        all->disk_error = f->error;
        all->disk_error_calls = (uint8_t)f->which;
        all->disk_error_once = f->lasts == 0;
        all->disk_error_until = f->lasts ? until : FOREVER;
        break;
    case FAULT_DISK_FULL:
        disk_set_capacity(sim->disk, disk_used(sim->disk) + (uint64_t)f->amount);
        sim->disk_is_well.due = disk_is_well;
        sim_at(sim, &sim->disk_is_well, until);
        break;
    case FAULT_DISK_STALL:
        if (until > sim->disk_speed.stall_until) /* what the longer one holds, it holds on */
            sim->disk_speed.stall_until = until;
        break;
    case FAULT_CLOCK_JUMP:
        sim->wall += f->amount;
        break;
    case FAULT_DNS_OUTAGE:
        all->dns_out_until = until;
        break;
    case FAULT_PARTITION:
        choose_host(sim, f->which)->down_until = until;
        break;
    case FAULT_RESET:
    case FAULT_HALF_OPEN:
        if (net_connections(sim))
            net_break(sim, f->which % net_connections(sim), f->kind == FAULT_HALF_OPEN);
        break;
    case FAULT_NO_FILES:
        all->no_files_until = until;
        break;
    case FAULT_RELOAD:
        if (daemon)
            process_signal(daemon, SIGHUP);
        break;
    case FAULT_RESTART:
        if (!daemon)
            break;
        process_signal(daemon, SIGTERM); /* it is started again when it has ended */
        if (sim->now < all->disk_error_until || sim->disk_is_well.due != NULL) /* what it cannot write ends with it: as in a death */
            faults_death(sim);
        break;
    default:
        UNREACHABLE();
    }
}

/* ---- when -------------------------------------------------------------------------------------------------------- */

static void
fault_is_due(struct sim *sim, struct sim_event *event)
{
    size_t i = (size_t)((struct sim_event *)event - sim->fault_events);
    struct fault *f = &sim->faults.list[i];

    if (sim->faults_over)
        return;
    if (f->by_step)
        sim->faults.armed = true;
    else
        inject(sim, f, NULL);
}

void
faults_arm(struct sim *sim)
{
    for (size_t i = 0; i < sim->faults.count; i++) {
        sim->fault_events[i].due = fault_is_due;
        if (!sim->faults.list[i].off)
            sim_at(sim, &sim->fault_events[i], sim->faults.list[i].at);
    }
}

void
faults_death(struct sim *sim)
{
    sim->faults.process_deaths += sim->faults.last_death != sim->now;
    sim->faults.last_death = sim->now;
}

void
faults_at_step(struct sim *sim, struct process *p)
{
    bool left = false;

    for (size_t i = 0; i < sim->faults.count && !sim->faults_over; i++) {
        struct fault *f = &sim->faults.list[i];
        if (f->off || f->done || !f->by_step || sim->now < f->at)
            continue;
        if (is_of(p, f) && --f->step == 0) {
            if (f->kind == FAULT_KILL_ROLE || (f->kind == FAULT_CRASHES && dice_chance(sim, 700))) {
                inject(sim, f, p); /* does not come back; what is armed stays so */
            } else { /* this process stands still at once, the rest of the fault comes before any other runs */
                sim->fault_at_step = f;
                process_kill(p, 256 + SIGKILL);
            }
            return;
        }
        left = true;
    }
    sim->faults.armed = left;
}

bool
faults_were_gentle(const struct sim *sim)
{
    static const uint8_t gentle[] = { FAULT_RELOAD, FAULT_CLOCK_JUMP, FAULT_DNS_OUTAGE, FAULT_DISK_STALL };
    uint64_t left = sim->faults.planted;

    for (size_t i = 0; i < FAULT_KINDS; i++)
        left += sim->faults.injected[i];
    for (size_t i = 0; i < sizeof gentle; i++)
        left -= sim->faults.injected[gentle[i]];
    return left == 0;
}

void
faults_after_turn(struct sim *sim)
{
    struct fault *f = sim->fault_at_step;

    sim->fault_at_step = NULL;
    if (f)
        inject(sim, f, NULL);
}

static int
ask_watch(struct process *p, enum seam_call call)
{
    int error = p->sim->call_watch->call(p->sim->call_watch, p, call);

    p->sim->faults.planted += error != 0;
    return error;
}

int
faults_disk_error(struct sim *sim, struct process *p, enum seam_call call)
{
    struct faults *all = &sim->faults;

    if (sim->call_watch)
        return ask_watch(p, call);
    if (p->is_peer || sim->faults_over || sim->now >= all->disk_error_until || !(all->disk_error_calls & call))
        return 0;
    if (all->disk_error_once)
        all->disk_error_until = 0;
    sim_note(sim, p, "disk error", (uint64_t)all->disk_error, call);
    return all->disk_error;
}

int
faults_call(struct process *p, enum seam_call call)
{
    struct call_watch *watch = p->sim->call_watch;

    return watch && watch->sees_all && !p->is_peer ? ask_watch(p, call) : 0;
}

void
faults_lose_power(struct sim *sim)
{
    struct fault f = { .kind = FAULT_POWER_LOSS, .at = sim->now };

    inject(sim, &f, NULL);
}

bool
faults_no_files(struct sim *sim)
{
    return sim->now < sim->faults.no_files_until && !sim->faults_over;
}

void
faults_end(struct sim *sim)
{
    sim->faults_over = true;
    sim->faults.armed = false;
    sim->disk_speed.stall_until = 0;
    sim->faults.dns_out_until = 0;
    disk_set_capacity(sim->disk, sim->disk_capacity);
    list_each(node, &sim->hosts)
        container_of(node, struct host, node)->down_until = sim->now;
    sim_trace(sim, NULL, "no more faults");
}
