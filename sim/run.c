/* run - see run.h. */
#include "sim/run.h"

#include "base/check.h"
#include "spool/spool.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define STOP_WITHIN (3 * MINUTE)  /* for the whole daemon to end in good order */
#define THIN_BYTES 10000          /* each way in a second; what is large has some 100,000 */
#define REST_WITHIN (20 * MINUTE) /* for deadlines of what waits for somebody who is gone */
#define QUIET_NS (1 * MINUTE)     /* when all is told, something may still come twice */

/* ---- the spool beforehand: small segments ------------------------------------------------------------------------ */

static void
found(void *arg, const struct spool_message *m)
{
    (void)m;
    if (arg)
        (*(uint64_t *)arg)++;
}

static void
recovered(void *arg, struct err e)
{
    (void)arg;
    (void)e;
}

static int
make_spool(struct rt *rt, void *arg)
{
    struct run *run = arg;
    struct spool_settings settings = { .segment_bytes = run->plan.segment_bytes };
    struct spool *spool;
    struct dir *dir;

    CHECK(!err_is(dir_open(rt, S(STATE_DIR "/spool"), LANE_POOL, FOREVER, &dir)));
    CHECK(!err_is(spool_log_ops.open(rt, dir, &settings, &spool, FOREVER)));
    CHECK(!err_is(spool_log_ops.recover(spool, found, recovered, NULL, FOREVER)));
    (void)rt_sleep(rt, within(rt, 5 * SECOND)); /* the keeper makes what it wants to have */
    spool_log_ops.close(spool, within(rt, MINUTE));
    dir_close(dir);
    return 0;
}

bool
run_nobody_left(struct sim *sim, void *arg)
{
    (void)arg;
    list_each(node, &sim->processes)
        if (container_of(node, struct process, node)->host == sim->home)
            return false;
    return true;
}

bool
run_put_file(struct sim *sim, const char *path, struct str bytes)
{
    struct str rest = str_from_cstr(path + 1), part = str_cut(&rest, '/');
    disk_inode dir = DISK_ROOT, file;

    for (; !str_is_absent(rest); part = str_cut(&rest, '/')) {
        disk_inode parent = dir;
        if (disk_look_up(sim->disk, parent, part, &dir))
            continue;
        if (err_is(disk_create(sim->disk, parent, part, true, &dir)))
            return false;
        disk_sync(sim->disk, parent);
    }
    if (err_is(disk_create(sim->disk, dir, S("new"), false, &file)))
        return false;
    bool fits = !err_is(disk_write(sim->disk, file, bytes, 0));
    disk_sync(sim->disk, file);
    CHECK(!err_is(fits ? disk_rename(sim->disk, dir, S("new"), dir, part) : disk_unlink(sim->disk, dir, S("new"))));
    disk_sync(sim->disk, dir);
    return fits;
}

/* An operator made the state directory, and that was long ago. */
void
run_prepare_disk(struct run *run)
{
    struct sim *sim = run->sim;
    static const char *const parts[] = { "var", "lib", "postrider", "spool" };
    disk_inode dir = DISK_ROOT, mail;

    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        disk_inode parent = dir;
        CHECK(!err_is(disk_create(sim->disk, parent, str_from_cstr(parts[i]), true, &dir)));
        if (i == 0)
            CHECK(!err_is(disk_create(sim->disk, dir, S("mail"), true, &mail)));
    }
    process_start(sim, "setup", sim->home, make_spool, run);
    (void)sim_run(sim, sim->now + HOUR, run_nobody_left, NULL);
    disk_sync_all(sim->disk);
}

/* ---- the end ----------------------------------------------------------------------------------------------------- */

struct count {
    uint64_t messages, pending, accepted, ended;
};

/* What the daemon left in its spool, read by its own code in a process of its own. */
static int
read_spool(struct rt *rt, void *arg)
{
    struct count *count = arg;
    struct spool_settings settings = { .read_only = true };
    struct spool_counters c;
    struct spool *spool;
    struct dir *dir;

    CHECK(!err_is(dir_open(rt, S(STATE_DIR "/spool"), LANE_POOL, FOREVER, &dir)));
    struct err e = spool_log_ops.open(rt, dir, &settings, &spool, FOREVER);
    if (err_is(e)) {
        sim_fail(process_of(rt)->sim, "the spool cannot be opened at the end");
        return 1;
    }
    (void)spool_log_ops.recover(spool, found, recovered, &count->messages, FOREVER);
    do {
        (void)rt_sleep(rt, within(rt, SECOND));
        spool_log_ops.counters(spool, &c);
    } while (c.recovering);
    count->pending = c.pending;
    count->accepted = c.accepted;
    count->ended = c.delivered + c.failed + c.relayed + c.expanded + c.suppressed + c.removed;
    spool_log_ops.close(spool, within(rt, MINUTE));
    dir_close(dir);
    return 0;
}

static void
check_spool(struct run *run)
{
    struct sim *sim = run->sim;
    struct count count = { 0 };

    process_start(sim, "reader", sim->home, read_spool, &count);
    (void)sim_run(sim, sim->now + HOUR, run_nobody_left, NULL);
    if (count.messages && !run->ledger.damaged) /* whose end is lost, they come again */
        sim_fail(sim, "P4: %llu messages are left in the spool though everything has ended",
                 (unsigned long long)count.messages);
    if (count.accepted != count.ended + count.pending && !run->ledger.damaged) /* recipients that nobody can count */
        sim_fail(sim, "P4: accepted %llu, ended %llu, pending %llu", (unsigned long long)count.accepted,
                 (unsigned long long)count.ended, (unsigned long long)count.pending);
}

static void
stop_daemon(struct run *run)
{
    struct sim *sim = run->sim;
    struct process *daemon = sim_daemon(sim);

    sim->daemon_is_over = true;
    sim_stop_event(sim, &sim->start_again);
    if (!daemon) {
        sim_fail(sim, "P9: the daemon is not running at the end");
        return;
    }
    process_signal(daemon, SIGTERM);
    if (sim_run(sim, sim->now + STOP_WITHIN, run_nobody_left, NULL) || sim->failed)
        return;
    list_each(node, &sim->processes) {
        struct process *p = container_of(node, struct process, node);
        if (p->host == sim->home && !p->ended)
            sim_fail(sim, "P9: %s does not end when it is told to: fiber \"%s\"", p->name,
                     list_is_empty(&p->rt.all) ? "" : container_of(p->rt.all.next, struct fiber, in_all)->name);
    }
}

/* ---- one seed ---------------------------------------------------------------------------------------------------- */

static bool
is_settled(struct sim *sim, void *arg)
{
    struct run *run = arg;

    return run->clients_busy == 0 && sim_daemon(sim) && run->empty_at > run->busy_until;
}

static void
watch_log(struct sim *sim, struct process *p, struct str line)
{
    static const struct str never[] = { STR("link-violated\""), STR("configuration\"") };
    static const struct str marker = STR("\"event\":\"");
    struct run *run = run_of(sim);
    struct str event = str_from(line, str_find(line, marker) + marker.len);

    if (str_starts(event, S("spool-damage\"")) || str_starts(event, S("message-unreadable\"")) ||
        (run->ledger.damaged && str_find(line, S("the message cannot be read from the spool")) < line.len)) /* in "attempt" */
        run->ledger.damage_told = true;
    if (str_starts(event, S("spool-broken\"")))
        faults_death(sim); /* the store ends itself, with what it could not write down */
    for (size_t i = 0; i < sizeof never / sizeof *never && !sim->faults.planted; i++)
        if (str_starts(event, never[i]))
            sim_fail(sim, "%s says what should never be said: %.*s", p->name, (int)(line.len < 300 ? line.len : 300), line.ptr);
}

static void
keep_crashed_disk(struct sim *sim)
{
    struct run *run = run_of(sim);
    disk_inode spool;

    if (!run->crashed && disk_walk(sim->disk, DISK_ROOT, S(STATE_DIR "/spool"), &spool))
        run->crashed = disk_clone(sim->disk);
}

static void
start_peers(struct run *run, const struct run_options *options)
{
    server_start(run, "mx1", "203.0.113.10", 25, false);
    server_start(run, "mx2", "203.0.113.11", 25, false);
    server_start(run, "smart", "192.0.2.60", 25, false);
    server_start(run, "lmtp", "192.0.2.50", 24, true);
    server_start(run, "box", "192.0.2.51", 0, true);
    operator_start(run);
    for (size_t i = 0; i < run->plan.client_count; i++)
        if (!run->plan.clients[i].later && !(options->clients_off >> i & 1))
            client_start(run, i);
}

static void
live(struct run *run, const struct run_options *options)
{
    struct sim *sim = run->sim;
    const struct run_script *script = options->script;

    run_prepare_disk(run);
    if (run->has_users)
        users_write_first(run);
    sim->config = str_from_cstr(run->plan.config);
    sim_start_daemon(sim);
    start_peers(run, options);
    if (script)
        script->begin(run, script->arg);
    else
        plan_faults(run);
    if (run->has_users && !script)
        users_start(run);
    for (size_t i = 0; i < sim->faults.count; i++)
        sim->faults.list[i].off = options->calm || (options->faults_off >> i & 1);
    int64_t begin = sim->now;
    for (size_t i = 0; i < sim->faults.count; i++)
        sim->faults.list[i].at += begin;
    faults_arm(sim);
    (void)sim_run(sim, begin + run->plan.active + MINUTE, NULL, NULL);
    int64_t stalled = sim->disk_speed.stall_until; /* until then what waits for the disk waits on */
    faults_end(sim);
    run->calm = true;
    run->healed_at = stalled > sim->now ? stalled : sim->now;
    if (script)
        script->heal(run, script->arg);
    if (!sim_run(sim, sim->now + run->plan.lifetime + HOUR, is_settled, run) && !sim->failed && !is_settled(sim, run)) {
        ledger_read_maildirs(&run->ledger);
        ledger_check(&run->ledger);
        sim_fail(sim, "P9: the world does not come to rest: %zu clients are busy", run->clients_busy);
    }
    (void)sim_run(sim, sim->now + QUIET_NS, NULL, NULL);
    check_rest(sim, REST_WITHIN);
    if (!sim->failed && script)
        script->quiet(run, script->arg);
    if (sim->failed)
        return;
    stop_daemon(run);
    if (sim->failed)
        return;
    ledger_read_maildirs(&run->ledger);
    ledger_check(&run->ledger);
    if (!sim->failed)
        check_spool(run);
}

/* A window of bytes for each turn to and fro, of which some are late. */
static bool
is_thin(const struct sim_net *net)
{
    int64_t turn = 2 * net->delay_max + (net->loss ? SECOND : 0);

    return net->window * SECOND / turn < THIN_BYTES;
}

double
seconds_now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

void
run_seed(uint64_t seed, const struct run_options *options, struct run_result *out)
{
    double began = seconds_now();
    struct run *run;
    struct sim *sim = sim_new(seed, options->sim);
    run = mem_new(&sim->mem, struct run);
    run->sim = sim;
    sim->ctx = run;
    sim->log_line = watch_log;
    sim->memory_of_role = memory_of_role;
    sim->crashes_begin = keep_crashed_disk;
    sim->home = host_new(sim, "home", "192.0.2.1");
    run->clients = client_table_new(sim);
    ledger_init(&run->ledger, sim);
    if (options->script)
        options->script->plan(run, options->script->arg);
    else
        plan_draw(run);
    if (options->calm)
        run->plan.hostility = 0;
    run->ledger.lifetime = run->plan.lifetime;
    run->ledger.slack = run->plan.lifetime / 8;
    run->ledger.thin = run->plan.big > 0 && is_thin(&sim->net);
    run->ledger.soonest = run->plan.first_wait - run->plan.first_wait / 5;
    live(run, options);
    if (!sim->failed && !run->ledger.damaged)
        check_recovery(run);
    if (run->crashed)
        disk_free(run->crashed);
    *out = (struct run_result){ .failed = sim->failed, .hash = sim->hash, .turns = sim->turns, .virtual_ns = sim->now,
                                .mails = run->ledger.count, .accepted = run->ledger.accepted,
                                .delivered = run->ledger.delivered, .duplicates = run->ledger.duplicates,
                                .bounced = run->ledger.bounced, .converted = run->ledger.converted, .deaths = sim->faults.process_deaths,
                                .planted = sim->faults.planted, .fault_count = sim->faults.count, .client_count = run->plan.client_count };
    memcpy(out->failure, sim->failure, sizeof out->failure);
    out->counts = run->counts;
    memcpy(out->injected, sim->faults.injected, sizeof out->injected);
    struct mem *mem = &sim->mem;
    (void)mem;
    client_table_free(run);
    ledger_done(&run->ledger);
    servers_free(run);
    mem_free(&sim->mem, run, sizeof *run);
    sim_free(sim);
    out->seconds = seconds_now() - began;
}
