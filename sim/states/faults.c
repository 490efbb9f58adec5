/*
 * faults - the Nth call to the disk fails, for all N; the Nth allocation ends the process, for all N.
 *
 * The calls of a workload's last act are counted, and what follows it until the spool is closed. Then, for each of them
 * and each error that such a call can have (errors[]), the workload is done again: once so that only this call fails,
 * once so that from it on every call fails that can fail so. A sync that fails leaves nothing of what it covered, with
 * and without the page cache dropped; or all of it; or every second sector.
 *
 * An act whose error was told while the spool could go on has come to nothing for good. Where the spool is broken the
 * process ends: the cache survives, and what was under way is whole or absent. In both cases, and also when power fails
 * right then: what was acknowledged is there (crash.c: check_state()). While the error lasts a recovery may fail, but
 * does no harm.
 *
 * There is no memory left: the process ends there, by design. So does it here, at each allocation of the last act and
 * what follows; states of the disk that were looked at already are counted, and not looked at again.
 */
#include "sim/states/states.h"

#include "base/check.h"

#include <errno.h>

static const struct {
    int number;
    unsigned calls; /* bits of enum seam_call */
} errors[] = {
    { ENOSPC, CALL_OPEN | CALL_WRITE | CALL_SYNC | CALL_DIR | CALL_SYNC_DIR },
    { EIO, CALL_OPEN | CALL_READ | CALL_WRITE | CALL_SYNC | CALL_DIR | CALL_SYNC_DIR },
    { EROFS, CALL_OPEN | CALL_WRITE | CALL_DIR },
    { EMFILE, CALL_OPEN },
    { ENOMEM, CALL_OPEN | CALL_READ | CALL_DIR },
};

enum { CALLS_MAX = 1000, SYNC_WAYS = 4 };

struct fault_watch {
    struct call_watch watch; /* first */
    size_t from;             /* act with which counting begins */
    bool on, lasts, only_count;
    uint64_t count, at;
    size_t error;
    uint8_t calls[CALLS_MAX];
    uint64_t first_allocation;
    struct sim *sim;
};

static int
on_call(struct call_watch *watch, struct process *p, enum seam_call call)
{
    struct fault_watch *f = (struct fault_watch *)watch;

    (void)p;
    if (!f->on)
        return 0;
    uint64_t nth = f->count++;
    if (f->only_count) {
        CHECK(nth < CALLS_MAX);
        f->calls[nth] = (uint8_t)call;
        return 0;
    }
    bool fails = nth == f->at || (nth > f->at && f->lasts);
    return fails && errors[f->error].calls & call ? errors[f->error].number : 0;
}

static void
before_act(void *arg, size_t nth)
{
    struct fault_watch *f = arg;

    if (nth != f->from)
        return;
    f->on = true;
    f->first_allocation = f->sim->running->allocations;
}

static bool
every_second(void *arg, const struct disk_op *op, uint64_t sector)
{
    (void)arg;
    (void)op;
    return sector % 2;
}

static enum disk_fate
tear(void *arg, const struct disk_op *op)
{
    (void)arg;
    return op->kind == DISK_WRITE ? DISK_TORN : DISK_KEPT;
}

static void
set_sync_way(struct call_watch *w, int way)
{
    static const struct disk_choice torn = { tear, every_second, NULL };

    w->failed_sync = way == 2 ? all_kept : way == 3 ? torn : nothing_kept;
    w->drops_cache = way == 1;
}

/* ---- one workload with one fault --------------------------------------------------------------------------------- */

struct workload {
    enum base_kind base;
    const uint8_t *kinds;
    size_t count;
};

static void
model_init(struct model *model, const struct bench *b, const struct workload *w)
{
    *model = (struct model){ .base = b->bases[w->base].view, .count = w->count };
    for (size_t i = 0; i < w->count; i++)
        model->acts[i] = (struct act){ .kind = w->kinds[i], .number = (uint32_t)(60001 + i) };
}

static void
describe(struct bench *b, const struct workload *w)
{
    struct text text = text_init(b->what, sizeof b->what - 1);

    text_putf(&text, "spool: %s; acts: ", base_name(w->base));
    for (size_t i = 0; i < w->count; i++)
        text_putf(&text, "%s%s", i ? ", " : "", act_name(w->kinds[i]));
    b->what[text.len] = '\0';
}

/* As the machine's power fails: with only what was synced. */
static void
check_without_power(struct bench *b, const struct disk *disk, const struct model *model)
{
    struct disk *d = disk_clone(disk);

    disk_lose_power(d, &nothing_kept);
    check_state(b, d, model, true, false);
    disk_free(d);
}

/*
 * Every call that can fail so fails, until somebody mends it: nothing is believed, nothing hangs, nothing is damaged.
 */
static void
recover_in_vain(struct bench *b, struct disk *disk, struct fault_watch *f)
{
    struct look look = { .finished = false };

    f->on = true;
    f->at = 0;
    f->count = 0;
    b->sim->call_watch = &f->watch;
    if (!run_over(b->sim, disk, look_main, &look, &look.finished))
        bench_fail(b, "a recovery while the error lasts: %s", b->sim->failure);
    else if (!look.finished)
        bench_fail(b, "a recovery while the error lasts never ends");
    b->sim->call_watch = NULL;
}

static void
fail_call(struct bench *b, const struct workload *w, struct fault_watch *f, uint64_t at, int way)
{
    struct model model;
    struct script script = { .model = &model, .before_act = before_act, .arg = f };
    struct text how = text_init(b->how, sizeof b->how - 1);
    char reason[60];
    struct text text = text_init(reason, sizeof reason);

    err_text(err_from_os(errors[f->error].number, "use the disk"), &text);
    text_putf(&how, "call %llu (kind %u) fails%s: %.*s, way %d", (unsigned long long)at, f->calls[at],
              f->lasts ? ", and all that follow" : "", STR_ARG(text_str(&text)), way);
    b->how[how.len] = '\0';
    model_init(&model, b, w);
    f->on = f->only_count = false;
    f->count = 0;
    f->at = at;
    set_sync_way(&f->watch, way);
    struct disk *disk = disk_clone(b->bases[w->base].disk);
    b->sim->call_watch = &f->watch;
    bool good = run_over(b->sim, disk, script_main, &script, &script.finished);
    b->sim->call_watch = NULL;
    b->counts.calls++;
    if (!good) {
        bench_fail(b, "%s", b->sim->failure);
    } else if (!script.finished) {
        bench_fail(b, "it never ends");
    } else {
        check_without_power(b, disk, &model);
        if (f->lasts)
            recover_in_vain(b, disk, f);
        check_state(b, disk, &model, false, false);
    }
    disk_free(disk);
}

/* Where nothing fails: which calls there are, and how many allocations. */
static bool
count_calls(struct bench *b, const struct workload *w, struct fault_watch *f, uint64_t *out_allocations)
{
    struct model model;
    struct script script = { .model = &model, .before_act = before_act, .arg = f };
    bool possible = true;

    model_init(&model, b, w);
    struct disk *disk = disk_clone(b->bases[w->base].disk);
    f->only_count = true;
    b->sim->call_watch = &f->watch;
    CHECK(run_over(b->sim, disk, script_main, &script, &script.finished));
    b->sim->call_watch = NULL;
    disk_free(disk);
    for (size_t i = 0; i < w->count; i++)
        possible &= model.acts[i].progress != ACT_REFUSED;
    *out_allocations = script.allocations;
    return possible;
}

static void
fail_calls(struct bench *b, const struct workload *w, struct fault_watch *f, uint64_t count)
{
    for (uint64_t at = 0; at < count && !bench_is_over(b); at++)
        for (f->error = 0; f->error < sizeof errors / sizeof *errors; f->error++) {
            bool sync = f->calls[at] == CALL_SYNC;
            if (!(errors[f->error].calls & f->calls[at]))
                continue;
            for (int way = 0; way < (sync ? SYNC_WAYS : 1); way++)
                for (int lasts = 0; lasts < 2; lasts++) {
                    f->lasts = lasts;
                    fail_call(b, w, f, at, way);
                }
        }
}

/* ---- allocations ------------------------------------------------------------------------------------------------- */

static void
end_at_allocations(struct bench *b, const struct workload *w, uint64_t first, uint64_t last)
{
    uint64_t next_number = 0, op_count = 0;
    struct model was = { .count = 0 };

    for (uint64_t at = first; at <= last && !bench_is_over(b); at++) {
        struct model model;
        struct script script = { .model = &model, .ends_at = at };
        struct text how = text_init(b->how, sizeof b->how - 1);

        text_putf(&how, "there is no memory for allocation %llu", (unsigned long long)at);
        b->how[how.len] = '\0';
        model_init(&model, b, w);
        struct disk *disk = disk_clone(b->bases[w->base].disk);
        if (!run_over(b->sim, disk, script_main, &script, &script.finished))
            bench_fail(b, "%s", b->sim->failure);
        disk_release_all(disk);
        b->counts.allocations++;
        bool same = next_number == disk_next_number(disk) && op_count == disk_op_count(disk);
        for (size_t i = 0; i < w->count; i++)
            same &= model.acts[i].progress == was.acts[i].progress;
        if (!same) {
            check_without_power(b, disk, &model);
            next_number = disk_next_number(disk);
            op_count = disk_op_count(disk);
            was = model;
            check_state(b, disk, &model, false, false);
        }
        disk_free(disk);
    }
}

/* ---- all --------------------------------------------------------------------------------------------------------- */

static void
fault_workload(struct bench *b, const struct workload *w, bool allocations)
{
    static struct fault_watch f;
    uint64_t last_allocation;

    f = (struct fault_watch){ .watch.call = on_call, .from = w->count - 1, .sim = b->sim };
    describe(b, w);
    if (!bench_is_wanted(b) || !count_calls(b, w, &f, &last_allocation))
        return;
    b->counts.workloads++;
    uint64_t first = f.first_allocation;
    fail_calls(b, w, &f, f.count);
    if (allocations)
        end_at_allocations(b, w, first + 1, last_allocation);
}

void
faults_all(struct bench *b)
{
    for (enum base_kind base = 0; base < BASE_KINDS; base++)
        for (uint8_t a = 0; a < ACT_KINDS && !bench_is_over(b); a++) {
            if (bench_turn(b))
                fault_workload(b, &(struct workload){ base, (const uint8_t[]){ a }, 1 }, true);
            for (uint8_t c = 0; c < ACT_KINDS && !bench_is_over(b) && (b->deep || base == BASE_LIVED_IN); c++)
                if (bench_turn(b))
                    fault_workload(b, &(struct workload){ base, (const uint8_t[]){ a, c }, 2 }, b->deep);
        }
}
