/*
 * check_recovery - P7: many crashes during recovery end in the same state as one. A run's disk is copied as a series of
 * crashes begins (run.h). Over one copy the spool recovers at once; over the other its recovery is killed again and again, at
 * any call, before it may come to its end; and then the power fails. Each time the same messages must be there: envelopes,
 * what became of each recipient, contents, and the totals.
 */
#include "sim/run.h"

#include "base/check.h"
#include "base/map.h"
#include "spool/spool.h"

#include <signal.h>
#include <string.h>

enum { CRASHES_MAX = 12, STEPS_MAX = 120, IDS_MAX = 2000, PIECE = 64 << 10 };
#define RECOVERS_WITHIN (10 * MINUTE)

struct state {
    uint64_t messages, sum;  /* of hashes: in any order */
    struct spool_counters counters;
};

struct recovery {
    struct rt *rt;
    struct state state;
    struct message_id ids[IDS_MAX];
    bool done, failed;
};

/* ---- what is there ----------------------------------------------------------------------------------------------- */

static uint64_t
hash_of(uint64_t so_far, struct str bytes)
{
    return hash_bytes(bytes, so_far);
}

static uint64_t
hash_number(uint64_t so_far, uint64_t number)
{
    return hash_of(so_far, str_new((const char *)&number, sizeof number));
}

static void
add_message(void *arg, const struct spool_message *m)
{
    struct recovery *r = arg;
    uint64_t hash = hash_of(m->held, str_new((const char *)&m->id, sizeof m->id));

    hash = hash_of(hash, m->envelope.reverse_path);
    for (size_t i = 0; i < m->envelope.recipient_count; i++) {
        const struct recipient_status *s = &m->statuses[i];
        hash = hash_of(hash, m->envelope.recipients[i].address);
        hash = hash_number(hash, (uint64_t)s->state << 32 | (uint64_t)s->notices << 16 | s->attempts);
        hash = hash_number(hash, (uint64_t)s->next_wall);
        hash = hash_of(hash, s->last_reply);
        hash = hash_of(hash, s->last_remote);
    }
    r->state.sum += hash;
    CHECK(r->state.messages < IDS_MAX);
    r->ids[r->state.messages++] = m->id;
}

static void
has_recovered(void *arg, struct err e)
{
    struct recovery *r = arg;

    r->done = !err_is(e);
    r->failed = err_is(e);
}

static void
add_content(struct recovery *r, struct spool *spool, struct message_id id)
{
    char *piece = mem_alloc(rt_mem(r->rt), PIECE);
    uint64_t hash = 0, offset = 0;
    size_t len = 1;

    for (; len > 0 && !r->failed; offset += len) {
        r->failed = err_is(spool_log_ops.read(spool, id, offset, piece, PIECE, FOREVER, &len));
        hash = hash_of(hash, str_new(piece, r->failed ? 0 : len));
    }
    r->state.sum += hash_number(hash, offset);
    mem_free(rt_mem(r->rt), piece, PIECE);
}

/* As the store does at its start; then it stands still, until somebody kills it. */
static int
recover(struct rt *rt, void *arg)
{
    struct recovery *r = arg;
    struct spool_settings settings = { .segment_bytes = 0 };
    struct spool *spool;
    struct dir *dir;

    *r = (struct recovery){ .rt = rt };
    CHECK(!err_is(dir_open(rt, S(STATE_DIR "/spool"), LANE_POOL, FOREVER, &dir)));
    r->failed = err_is(spool_log_ops.open(rt, dir, &settings, &spool, FOREVER)) ||
                err_is(spool_log_ops.recover(spool, add_message, has_recovered, r, FOREVER));
    while (!r->done && !r->failed)
        (void)rt_sleep(rt, within(rt, 10 * MILLISECOND));
    r->done = false;
    for (uint64_t i = 0; i < r->state.messages && !r->failed; i++)
        add_content(r, spool, r->ids[i]);
    spool_log_ops.counters(spool, &r->state.counters);
    r->done = !r->failed;
    (void)rt_sleep(rt, FOREVER);
    return 0;
}

static bool
same_state(const struct state *a, const struct state *b)
{
    const struct spool_counters *x = &a->counters, *y = &b->counters;

    return a->messages == b->messages && a->sum == b->sum && x->accepted == y->accepted && x->delivered == y->delivered &&
           x->failed == y->failed && x->relayed == y->relayed && x->expanded == y->expanded &&
           x->suppressed == y->suppressed && x->removed == y->removed && x->pending == y->pending;
}

/* ---- a machine that does nothing else ---------------------------------------------------------------------------- */

static bool
is_over(struct sim *sim, void *arg)
{
    const struct recovery *r = arg;

    return r->done || r->failed || run_nobody_left(sim, NULL);
}

/* crash_at: the call of the seam at which it is killed; 0: it may come to its end, and is killed then. */
static void
run_recovery(struct sim *sim, struct recovery *r, uint64_t crash_at)
{
    sim->faults = (struct faults){ .count = crash_at > 0 };
    sim->faults.list[0] = (struct fault){ .kind = FAULT_KILL_ROLE, .role = "recovery", .by_step = true, .step = crash_at,
                                          .at = sim->now };
    *r = (struct recovery){ 0 };
    process_start(sim, "recovery", sim->home, recover, r);
    faults_arm(sim);
    (void)sim_run(sim, sim->now + RECOVERS_WITHIN, is_over, r);
    sim_kill_home(sim, 256 + SIGKILL);
    process_bury(sim);
}

static struct sim *
machine_new(const struct run *run, struct disk *disk)
{
    struct sim *sim = sim_new(run->sim->seed, (struct sim_options){ 0 });

    disk_free(sim->disk);
    sim->disk = disk;
    disk_release_all(disk); /* nobody lives who had a file open */
    disk_set_capacity(disk, run->sim->disk_capacity * 4);
    sim->disk_speed = (struct sim_disk_speed){ 1000, 100000, 0 };
    sim->daemon_is_over = true;
    sim->home = host_new(sim, "home", "192.0.2.1");
    return sim;
}

void
check_recovery(struct run *run)
{
    static struct recovery r; /* of some size; nothing of it outlives this */
    struct state once;

    if (!run->crashed)
        return;
    struct disk *copy = disk_clone(run->crashed);
    struct sim *sim = machine_new(run, run->crashed);
    run->crashed = NULL;
    run_recovery(sim, &r, 0);
    once = r.state;
    if (!r.done)
        sim_fail(run->sim, "P7: the spool as a crash left it does not recover: %s", sim->failure);
    sim_free(sim);
    sim = machine_new(run, copy);
    for (uint64_t left = 1 + dice_below(sim, CRASHES_MAX); left > 0; left--)
        run_recovery(sim, &r, 1 + dice_below(sim, STEPS_MAX));
    run_recovery(sim, &r, 0);
    if (!r.done || !same_state(&once, &r.state))
        sim_fail(run->sim, "P7: after many crashes in recovery there are %llu messages, after one there were %llu: %s",
                 (unsigned long long)r.state.messages, (unsigned long long)once.messages, sim->failure);
    struct disk_choice choice = file_draws(sim);
    disk_lose_power(sim->disk, &choice);
    run_recovery(sim, &r, 0);
    if (!r.done || !same_state(&once, &r.state))
        sim_fail(run->sim, "P7: what recovery had shown did not last: %llu messages, not %llu: %s",
                 (unsigned long long)r.state.messages, (unsigned long long)once.messages, sim->failure);
    run->counts.recoveries++;
    sim_note(run->sim, NULL, "recovered", once.messages, once.sum);
    sim_free(sim);
}
