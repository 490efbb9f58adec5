/*
 * crash - power fails, or everything is killed, at every call to the disk.
 *
 * A *point* is a moment between two calls to the disk (a write that is synced in one call is two). At each point of
 * each workload:
 *
 *     power failure   what was not synced survives as tears.c chooses
 *     kill            the cache survives, with all that was written; of a write under way also only the first blocks
 *
 * Of a workload of several acts only the points from the last act's beginning on are looked at: those before are those
 * of a shorter workload. Then, for each state of the disk:
 *
 *     1. `verify` finds no problem.
 *     2. Recovery finds what the model allows. One more message is accepted.
 *     3. Power fails, and nothing that was not synced survives: what was found, and that message, are there exactly.
 *        So what a recovery showed lasts, also what it read in the cache of one that was killed (sync before belief).
 *     4. For some states (of each point: nothing kept, all kept, the first tears; of short workloads every kill): the
 *        recovery itself is crashed at each of its points (not deep: at every fourth, each time from another one on),
 *        briefly in the sense of tears.c, and what the next recovery finds is the same.
 */
#include "sim/states/states.h"

#include "base/check.h"
#include "base/map.h"
#include "spool/log/record.h"

#include <stdio.h>
#include <string.h>

enum { POINTS_MAX = 400, PROBE = 50000, SEEN_MAX = 1 << 14, AGAIN_STEP = 4 };

struct point {
    struct disk *disk;
    struct model model;
    bool believed;
};

struct points {
    struct call_watch watch; /* first */
    const struct model *model;
    const bool *believed;
    size_t from;             /* act with which looking begins */
    bool on;
    size_t count;
    struct point at[POINTS_MAX];
};

struct effort_of {
    enum effort tears;
    size_t again;            /* states of each point in which the recovery is crashed too */
    bool kills_again;
};

struct crash {
    struct bench *bench;
    const struct point *point;
    struct effort_of effort;
    uint64_t seen[SEEN_MAX]; /* states of this point: a table of hashes */
    size_t tried;
};

static void
points_take(struct points *p, const struct disk *disk)
{
    struct point *last = p->count ? &p->at[p->count - 1] : NULL;

    if (last && disk_next_number(last->disk) == disk_next_number(disk) &&
        disk_op_count(last->disk) == disk_op_count(disk)) {
        last->model = *p->model; /* the same disk, and more was promised */
        last->believed = p->believed && *p->believed;
        return;
    }
    CHECK(p->count < POINTS_MAX);
    p->at[p->count] = (struct point){ disk_clone(disk), *p->model, p->believed && *p->believed };
    disk_release_all(p->at[p->count++].disk);
}

static int
before_call(struct call_watch *watch, struct process *process, enum seam_call call)
{
    struct points *p = (struct points *)watch;

    (void)call;
    if (p->on)
        points_take(p, process->sim->disk);
    return 0;
}

static void
before_act(void *arg, size_t nth)
{
    struct points *p = arg;

    p->on = p->on || nth == p->from;
}

static void
points_drop(struct points *p)
{
    for (size_t i = 0; i < p->count; i++)
        disk_free(p->at[i].disk);
    p->count = 0;
    p->on = false;
}

/* ---- one state --------------------------------------------------------------------------------------------------- */

static void
fail_view(struct bench *b, const char *what, const struct model *model, const struct view *found)
{
    char memory[3000];
    struct text text = text_init(memory, sizeof memory - 1);

    text_put(&text, S("\n    found:  "));
    view_put(&text, found);
    text_put(&text, S("\n    before: "));
    view_put(&text, &model->base);
    text_put(&text, S("\n    acts:   "));
    model_put(&text, model);
    bench_fail(b, "%s%.*s", what, STR_ARG(text_str(&text)));
}

static void
how_put(struct bench *b, const char *what, const struct disk_choice *choice, const struct disk *d)
{
    struct text text = text_init(b->how, sizeof b->how - 1);

    text_putf(&text, "%s: ", what);
    if (choice)
        tears_put(&text, choice, d);
    b->how[text.len] = '\0';
}

static bool
verifies(struct bench *b, struct disk *d)
{
    struct verified v = { .finished = false };

    if (!run_over(b->sim, d, verify_main, &v, &v.finished))
        bench_fail(b, "verify: %s", b->sim->failure);
    else if (err_is(v.err))
        bench_fail(b, "verify cannot read it: %s", v.err.what);
    else if (v.problems)
        bench_fail(b, "verify finds %llu problems: %s", (unsigned long long)v.problems, v.problem);
    else
        return true;
    return false;
}

static bool
looks(struct bench *b, struct disk *d, struct look *look, const char *when)
{
    if (!run_over(b->sim, d, look_main, look, &look->finished))
        bench_fail(b, "%s: %s", when, b->sim->failure);
    else if (err_is(look->err))
        bench_fail(b, "%s fails: %s (%d)", when, look->err.what, look->err.os);
    else if (!look->whole)
        bench_fail(b, "%s: %s", when, look->problem);
    else if (look->then && look->then->progress != ACT_DONE)
        bench_fail(b, "%s: and then nothing can be accepted", when);
    else
        return true;
    return false;
}

struct again { /* recoveries that are crashed */
    struct bench *bench;
    const struct point *point;
    struct model model;
};

static void
look_again(void *arg, const struct disk_choice *choice)
{
    struct again *a = arg;
    struct bench *b = a->bench;
    struct look look = { .finished = false };
    struct view was;

    if (bench_is_over(b))
        return;
    struct disk *d = disk_clone(a->point->disk);
    how_put(b, "power failure in a recovery", choice, a->point->disk);
    disk_lose_power(d, choice);
    b->counts.again++;
    if (looks(b, d, &look, "the recovery after a recovery that was crashed") &&
        !model_allows(&a->model, &look.view, &was))
        fail_view(b, "a recovery that was crashed changed what there is", &a->model, &look.view);
    disk_free(d);
}

/* powered: nothing was unsynced when it began, so that what it found was certain from the beginning. */
static void
crash_recovery(struct bench *b, struct points *points, const struct model *model, const struct view *found,
               bool powered)
{
    size_t step = b->deep ? 1 : AGAIN_STEP; /* from another one each time */

    for (size_t i = b->counts.states % step; i < points->count && !bench_is_over(b); i += step) {
        struct point *p = &points->at[i];
        struct again again = { b, p, p->model };
        if (powered || p->believed)
            again.model.base = *found;
        else
            again.model = *model;
        tears_each(p->disk, b->deep ? EFFORT_USUAL : EFFORT_BRIEF, look_again, &again);
    }
}

void
check_state(struct bench *b, struct disk *d, const struct model *model, bool powered, bool crash_again)
{
    static struct points points; /* large; nothing of it lasts */
    struct model then = { .acts = { { .kind = ACT_ACCEPT, .number = PROBE } }, .count = 1 };
    struct look look = { .then = &then.acts[0] }, last = { .read_only = true };
    struct view found, unused;

    b->counts.states++;
    if (!verifies(b, d))
        return;
    points.watch.call = before_call;
    points.model = &then;
    points.believed = &look.done;
    points.on = crash_again;
    b->sim->call_watch = &points.watch;
    bool good = looks(b, d, &look, "recovery");
    b->sim->call_watch = NULL;
    if (good && !model_allows(model, &look.view, &found)) {
        fail_view(b, "recovery finds what must not be", model, &look.view);
        good = false;
    }
    if (good) {
        if (crash_again)
            points_take(&points, d);
        crash_recovery(b, &points, model, &found, powered);
        then.base = found;
        disk_lose_power(d, &nothing_kept);
        if (looks(b, d, &last, "the recovery after a power failure") && !model_allows(&then, &last.view, &unused))
            fail_view(b, "what a recovery showed did not last", &then, &last.view);
    }
    points_drop(&points);
}

/* ---- one point --------------------------------------------------------------------------------------------------- */

static void
add_to_hash(void *arg, disk_inode inode, struct str path)
{
    struct { const struct disk *disk; uint64_t hash; } *h = arg;
    struct str bytes = disk_bytes(h->disk, inode);

    h->hash = (h->hash ^ record_hash_data(path)) * UINT64_C(0x9e3779b97f4a7c15);
    h->hash = (h->hash ^ record_hash_data(bytes) ^ bytes.len) * UINT64_C(0x9e3779b97f4a7c15);
}

static bool
seen_before(struct crash *c, const struct disk *d)
{
    struct { const struct disk *disk; uint64_t hash; } h = { d, 1 };

    disk_each_file(d, DISK_ROOT, add_to_hash, &h);
    h.hash |= 1;
    for (size_t i = h.hash % SEEN_MAX, steps = 0; steps < SEEN_MAX; i = (i + 1) % SEEN_MAX, steps++) {
        if (c->seen[i] == h.hash)
            return true;
        if (c->seen[i] == 0) {
            c->seen[i] = h.hash;
            return false;
        }
    }
    return false;
}

static void
lose_power_so(void *arg, const struct disk_choice *choice)
{
    struct crash *c = arg;

    if (bench_is_over(c->bench))
        return;
    struct disk *d = disk_clone(c->point->disk);
    how_put(c->bench, "power failure", choice, c->point->disk);
    disk_lose_power(d, choice);
    if (seen_before(c, d))
        c->bench->counts.same++;
    else
        check_state(c->bench, d, &c->point->model, true, c->tried++ < c->effort.again);
    disk_free(d);
}

/* The call that comes is a write: everything is killed when the first blocks of it are in the cache. */
static void
kill_in_write(struct crash *c, const struct disk *next)
{
    const struct disk *now = c->point->disk;
    size_t count = disk_op_count(next);
    const struct disk_op *op = count ? disk_op(next, count - 1) : NULL;

    if (!op || op->kind != DISK_WRITE || op->number < disk_next_number(now))
        return;
    char *bytes = mem_alloc(&c->bench->sim->mem, op->len);
    CHECK(disk_read(next, op->inode, bytes, op->len, op->offset) == op->len);
    for (uint64_t len = DISK_BLOCK; len < op->len && !bench_is_over(c->bench); len += DISK_BLOCK) {
        struct disk *d = disk_clone(now);
        if (!err_is(disk_write(d, op->inode, str_new(bytes, len), op->offset))) {
            how_put(c->bench, "kill in a write", NULL, NULL);
            c->bench->counts.kills++;
            check_state(c->bench, d, &c->point->model, false, c->effort.kills_again);
        }
        disk_free(d);
    }
    mem_free(&c->bench->sim->mem, bytes, op->len);
}

static void
crash_at(struct bench *b, const struct point *p, const struct disk *next, struct effort_of effort)
{
    static struct crash c;

    c = (struct crash){ .bench = b, .point = p, .effort = effort };
    b->counts.points++;
    tears_each(p->disk, effort.tears, lose_power_so, &c);
    struct disk *d = disk_clone(p->disk);
    how_put(b, "kill", NULL, NULL);
    b->counts.kills++;
    check_state(b, d, &p->model, false, effort.kills_again);
    disk_free(d);
    if (next)
        kill_in_write(&c, next);
}

/* ---- workloads --------------------------------------------------------------------------------------------------- */

static void
describe(struct bench *b, enum base_kind base, const struct model *model, const char *where, size_t at, size_t of)
{
    struct text text = text_init(b->what, sizeof b->what - 1);

    text_putf(&text, "spool: %s; acts: ", base_name(base));
    for (size_t i = 0; i < model->count; i++)
        text_putf(&text, "%s%s", i ? model->at_once ? " | " : ", " : "", act_name(model->acts[i].kind));
    text_putf(&text, "; %s %zu of %zu", where, at, of);
    b->what[text.len] = '\0';
}

static void
crash_workload(struct bench *b, enum base_kind base, const uint8_t *kinds, size_t count, bool at_once,
               struct effort_of effort)
{
    static struct points points;
    struct model model = { .base = b->bases[base].view, .count = count, .at_once = at_once };
    struct script script = { .model = &model, .before_act = before_act, .arg = &points, .calm = true };

    for (size_t i = 0; i < count; i++)
        model.acts[i] = (struct act){ .kind = kinds[i], .number = (uint32_t)(60001 + i) };
    points.watch.call = before_call;
    points.model = &model;
    points.from = count && !at_once ? count - 1 : 0;
    struct disk *disk = disk_clone(b->bases[base].disk);
    describe(b, base, &model, "undisturbed", 0, 0);
    if (!bench_is_wanted(b)) {
        disk_free(disk);
        return;
    }
    b->sim->call_watch = &points.watch;
    bool good = run_over(b->sim, disk, script_main, &script, &script.finished);
    b->sim->call_watch = NULL;
    bool possible = true;
    for (size_t i = 0; i < count; i++)
        possible &= model.acts[i].progress != ACT_REFUSED;
    if (!good || !script.opened || script.broken) {
        bench_fail(b, "the workload itself fails: %s", b->sim->failure);
    } else if (possible) { /* else there was nothing to settle */
        b->counts.workloads++;
        points_take(&points, disk);
        for (size_t i = 0; i < points.count && !bench_is_over(b); i++) {
            describe(b, base, &model, "point", i + 1, points.count);
            crash_at(b, &points.at[i], i + 1 < points.count ? points.at[i + 1].disk : NULL, effort);
        }
    }
    points_drop(&points);
    disk_free(disk);
}

/* All of that length; at once: their order says nothing. */
static void
crash_tuples(struct bench *b, enum base_kind base, size_t length, bool at_once, struct effort_of effort)
{
    uint8_t kinds[3] = { 0 };

    while (!bench_is_over(b)) {
        bool counts = true;
        for (size_t i = 0; i + 1 < length && at_once; i++)
            counts &= kinds[i] <= kinds[i + 1];
        if (counts && bench_turn(b))
            crash_workload(b, base, kinds, length, at_once, effort);
        size_t i = length;
        while (i > 0 && ++kinds[i - 1] == ACT_KINDS)
            kinds[--i] = 0;
        if (i == 0)
            return;
    }
}

/*
 * Deep: every workload of up to three acts on every base. Else three acts on the one that has lived, and where the next
 * record  * needs the next segment, one act, and two at once.
 */
void
crash_all(struct bench *b)
{
    static const struct effort_of usual[] = {
        {EFFORT_USUAL, 2, true}, {EFFORT_USUAL, 1, false}, {EFFORT_BRIEF, 0, false}};
    static const struct effort_of deep[] = {{EFFORT_DEEP, 20, true}, {EFFORT_DEEP, 3, true}, {EFFORT_USUAL, 1, true}};
    static const struct effort_of quick[] = {
        {EFFORT_USUAL, 0, false}, {EFFORT_BRIEF, 0, false}, {EFFORT_BRIEF, 0, false}};
    const struct effort_of *efforts = b->deep ? deep : b->quick ? quick : usual;

    for (size_t length = 0; length <= 3; length++)
        for (enum base_kind base = 0; base < BASE_KINDS; base++) {
            bool is_full = base == BASE_FULL || base == BASE_FULL_OF_ENDS;
            if (length <= 1 || b->deep || base == BASE_LIVED_IN || (length == 2 && !is_full))
                crash_tuples(b, base, length, false, efforts[length ? length - 1 : 0]);
            if (length == 2 || (length == 3 && (b->deep || base == BASE_LIVED_IN)))
                crash_tuples(b, base, length, true, efforts[b->deep || !is_full ? length - 1 : 2]);
        }
}
