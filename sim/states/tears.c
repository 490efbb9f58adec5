/*
 * tears - which of the operations that were not synced survive a power failure.
 *
 * Of n operations that matter (writes that change no byte do not; a write is looked at by its *sectors*, of 512 bytes,
 * that change something):
 *
 *   1. Whole operations: every subset, where there are at most ops_all of them. Else: none, all, each one alone, all
 *      but each one, the first k and the last k for every k.
 *   2. One write torn: every subset of its sectors where there are at most sectors_all of them; else the first k and
 *      the last k for every k, each sector alone, all but each one (and, deep, all but each two). Each of these with
 *      every subset of the other operations where there are at most others_all of them; else with all of them, none of
 *      them, those before it, and those behind it. (Brief: of many sectors only the first half and the last.)
 *   3. Two writes torn at once, each to its first half, its last half or every second sector, with all others kept and
 *      with all others lost.
 *
 *               ops_all   sectors_all   others_all   two torn
 *      brief          3             2            0   no          recovery that is crashed in its turn
 *      usual          6             5            2   yes
 *      deep          10            10            4   yes
 *
 * Not tried: tears of two writes in all combinations, of three and more; sectors that are torn inside (disks do not); a
 * sector that turns into something else (damage.c does that).
 */
#include "sim/states/states.h"

#include "base/check.h"

#include <string.h>

enum { OPS_MAX = 64, SECTORS_MAX = 256 };

static const struct { size_t ops_all, sectors_all, others_all; bool two, pairs; } limits[] = {
    [EFFORT_BRIEF] = { 3, 2, 0, false, false },
    [EFFORT_USUAL] = { 6, 5, 2, true, false },
    [EFFORT_DEEP] = { 10, 10, 4, true, true },
};

struct tears {
    enum effort effort;
    void (*each)(void *arg, const struct disk_choice *);
    void *arg;
    size_t count;
    struct tears_op {
        bool matters, is_write;
        size_t sector_count;       /* that matter */
        uint16_t sectors[SECTORS_MAX];
        enum disk_fate fate;
        bool keep[SECTORS_MAX];    /* by number in the write */
    } ops[OPS_MAX];
    size_t matter_count, matter[OPS_MAX];
    size_t next;                   /* operation that is asked about */
};

/* ---- choices ----------------------------------------------------------------------------------------------------- */

static enum disk_fate
fate_of(void *arg, const struct disk_op *op)
{
    struct tears *t = arg;

    (void)op;
    CHECK(t->next < t->count);
    return t->ops[t->next++].fate;
}

static bool
keeps_sector(void *arg, const struct disk_op *op, uint64_t sector)
{
    struct tears *t = arg;

    (void)op;
    return t->ops[t->next - 1].keep[sector];
}

static void
try_this(struct tears *t)
{
    struct disk_choice choice = { fate_of, keeps_sector, t };

    t->next = 0;
    t->each(t->arg, &choice);
}

void
tears_put(struct text *out, const struct disk_choice *choice, const struct disk *d)
{
    const struct tears *t = choice->arg;
    static const char *const kinds[] = { "write", "size", "link", "unlink", "rename" };
    static const char *const fates[] = { "lost", "kept", "torn" };

    for (size_t i = 0; choice->fate == fate_of && i < t->count; i++) {
        const struct disk_op *op = disk_op(d, i);
        const struct tears_op *o = &t->ops[i];
        text_putf(out, "%s%s of file %u at %llu, %llu: %s", i ? "; " : "", kinds[op->kind], op->inode,
                  (unsigned long long)op->offset, (unsigned long long)op->len,
                  o->matters ? fates[o->fate] : "all the same");
        for (size_t k = 0; o->fate == DISK_TORN && k < o->sector_count; k++)
            text_putf(out, " %c%u", o->keep[o->sectors[k]] ? '+' : '-', o->sectors[k]);
    }
}

static enum disk_fate
lose(void *arg, const struct disk_op *op)
{
    (void)arg;
    (void)op;
    return DISK_LOST;
}

static enum disk_fate
keep(void *arg, const struct disk_op *op)
{
    (void)arg;
    (void)op;
    return DISK_KEPT;
}

const struct disk_choice nothing_kept = { lose, NULL, NULL }, all_kept = { keep, NULL, NULL };

/* ---- what matters ------------------------------------------------------------------------------------------------ */

struct first { /* the first n are kept; or only the nth */
    size_t next, n;
    bool only;
};

static enum disk_fate
keep_first(void *arg, const struct disk_op *op)
{
    struct first *f = arg;
    size_t at = f->next++;

    (void)op;
    return (f->only ? at == f->n : at < f->n) ? DISK_KEPT : DISK_LOST;
}

static struct disk *
disk_after(const struct disk *d, size_t n, bool only)
{
    struct first first = { 0, n, only };
    struct disk_choice choice = { keep_first, NULL, &first };
    struct disk *after = disk_clone(d);

    disk_release_all(after);
    disk_lose_power(after, &choice);
    return after;
}

static bool
has_name(const struct disk *d, disk_inode inode, disk_inode dir);

/* Does that sector of the write change the file from what it is on the one disk to what it is on the other? */
static bool
sector_changes(const struct disk *was, const struct disk *is, const struct disk_op *op, uint64_t from, size_t len)
{
    char before[DISK_SECTOR] = { 0 }, after[DISK_SECTOR] = { 0 };

    if (!has_name(was, op->inode, DISK_ROOT) || !has_name(is, op->inode, DISK_ROOT))
        return true; /* nobody knows */
    size_t a = disk_read(was, op->inode, before, len, from), b = disk_read(is, op->inode, after, len, from);
    return a != b || a < len || memcmp(before, after, len) != 0;
}

struct seek {
    disk_inode inode;
    bool found;
};

static void
is_it(void *arg, disk_inode inode, struct str path)
{
    struct seek *s = arg;

    (void)path;
    s->found |= s->inode == inode;
}

static bool
has_name(const struct disk *d, disk_inode inode, disk_inode dir)
{
    struct seek s = { inode, false };

    disk_each_file(d, dir, is_it, &s);
    return s.found;
}

/* Against what is durable, and against what the operations before it would have left. */
static void
look_at_sectors(const struct disk *d, struct tears_op *t, const struct disk_op *op, size_t nth)
{
    struct disk *none = disk_after(d, 0, false), *alone = disk_after(d, nth, true), *before = disk_after(d, nth, false),
                *with = disk_after(d, nth + 1, false);
    uint64_t at = op->offset, end = op->offset + op->len;

    for (uint16_t sector = 0; at < end; sector++) {
        uint64_t stop = (at / DISK_SECTOR + 1) * DISK_SECTOR;
        if (stop > end)
            stop = end;
        CHECK(sector < SECTORS_MAX);
        if (sector_changes(none, alone, op, at, (size_t)(stop - at)) ||
            sector_changes(before, with, op, at, (size_t)(stop - at)))
            t->sectors[t->sector_count++] = sector;
        at = stop;
    }
    disk_free(none);
    disk_free(alone);
    disk_free(before);
    disk_free(with);
}

static void
look_at_ops(struct tears *t, const struct disk *d)
{
    t->count = disk_op_count(d);
    CHECK(t->count <= OPS_MAX);
    for (size_t i = 0; i < t->count; i++) {
        const struct disk_op *op = disk_op(d, i);
        struct tears_op *o = &t->ops[i];
        o->is_write = op->kind == DISK_WRITE;
        if (o->is_write)
            look_at_sectors(d, o, op, i);
        o->matters = !o->is_write || o->sector_count > 0;
        o->fate = DISK_KEPT;
        if (o->matters)
            t->matter[t->matter_count++] = i;
    }
}

/* ---- 1. whole ---------------------------------------------------------------------------------------------------- */

static void
set_all(struct tears *t, enum disk_fate fate)
{
    for (size_t i = 0; i < t->matter_count; i++)
        t->ops[t->matter[i]].fate = fate;
}

static enum disk_fate
fate_if(bool kept)
{
    return kept ? DISK_KEPT : DISK_LOST;
}

static void
whole_ones(struct tears *t)
{
    size_t n = t->matter_count;

    if (n <= limits[t->effort].ops_all) {
        for (uint32_t subset = 0; subset < 1u << n; subset++) {
            for (size_t i = 0; i < n; i++)
                t->ops[t->matter[i]].fate = fate_if(subset >> i & 1);
            try_this(t);
        }
        return;
    }
    for (size_t k = 0; k <= n; k++) { /* the first k, the last n - k */
        for (size_t i = 0; i < n; i++)
            t->ops[t->matter[i]].fate = fate_if(i < k);
        try_this(t);
        for (size_t i = 0; i < n; i++)
            t->ops[t->matter[i]].fate = fate_if(i >= k);
        try_this(t);
    }
    for (size_t k = 0; k < n; k++) { /* one alone; all but one */
        for (size_t i = 0; i < n; i++)
            t->ops[t->matter[i]].fate = fate_if(i == k);
        try_this(t);
        for (size_t i = 0; i < n; i++)
            t->ops[t->matter[i]].fate = fate_if(i != k);
        try_this(t);
    }
}

/* ---- 2. one torn ------------------------------------------------------------------------------------------------- */

static void
with_others(struct tears *t, size_t torn)
{
    size_t n = t->matter_count, others = n - 1;

    t->ops[t->matter[torn]].fate = DISK_TORN;
    if (others <= limits[t->effort].others_all) {
        for (uint32_t subset = 0; subset < 1u << others; subset++) {
            for (size_t i = 0, bit = 0; i < n; i++)
                if (i != torn)
                    t->ops[t->matter[i]].fate = fate_if(subset >> bit++ & 1);
            try_this(t);
        }
        return;
    }
    for (int way = 0; way < 4; way++) { /* none, all, those before, those behind */
        bool before = way == 1 || way == 2, behind = way == 1 || way == 3;
        if ((torn == 0 && way == 2) || (torn == n - 1 && way == 3))
            continue; /* as none */
        if ((torn == 0 && way == 3) || (torn == n - 1 && way == 2))
            continue; /* as all */
        for (size_t i = 0; i < n; i++)
            if (i != torn)
                t->ops[t->matter[i]].fate = fate_if(i < torn ? before : behind);
        try_this(t);
    }
}

static void
keep_sectors(struct tears_op *o, bool (*kept)(size_t i, size_t a, size_t b), size_t a, size_t b)
{
    for (size_t i = 0; i < o->sector_count; i++)
        o->keep[o->sectors[i]] = kept(i, a, b);
}

static bool
in_subset(size_t i, size_t subset, size_t b)
{
    (void)b;
    return subset >> i & 1;
}

static bool
in_range(size_t i, size_t from, size_t to)
{
    return i >= from && i < to;
}

static bool
is_neither(size_t i, size_t a, size_t b)
{
    return i != a && i != b;
}

static bool
is_even(size_t i, size_t a, size_t b)
{
    (void)a;
    (void)b;
    return i % 2 == 0;
}

static void
tear_one(struct tears *t, size_t torn)
{
    struct tears_op *o = &t->ops[t->matter[torn]];
    size_t n = o->sector_count;

    if (n <= limits[t->effort].sectors_all) {
        for (size_t subset = 1; n > 1 && subset < ((size_t)1 << n) - 1; subset++) {
            keep_sectors(o, in_subset, subset, 0);
            with_others(t, torn);
        }
        return;
    }
    for (size_t k = 1; k < n; k++) {
        if (t->effort == EFFORT_BRIEF && k != n / 2)
            continue;
        keep_sectors(o, in_range, 0, k);
        with_others(t, torn);
        keep_sectors(o, in_range, k, n);
        with_others(t, torn);
    }
    for (size_t k = 0; k < n && t->effort != EFFORT_BRIEF; k++) {
        if (k > 0 && k < n - 1) { /* else it is one of those above */
            keep_sectors(o, in_range, k, k + 1);
            with_others(t, torn);
            keep_sectors(o, is_neither, k, k);
            with_others(t, torn);
        }
        for (size_t m = k + 1; m < n && limits[t->effort].pairs; m++) {
            keep_sectors(o, is_neither, k, m);
            with_others(t, torn);
        }
    }
}

/* ---- 3. two torn ------------------------------------------------------------------------------------------------- */

static void
tear_in_way(struct tears_op *o, int way)
{
    o->fate = DISK_TORN;
    if (way == 2)
        keep_sectors(o, is_even, 0, 0);
    else
        keep_sectors(o, in_range, way == 0 ? 0 : o->sector_count / 2, way == 0 ? o->sector_count / 2 : o->sector_count);
}

static void
tear_two(struct tears *t)
{
    for (size_t a = 0; a < t->matter_count; a++)
        for (size_t b = a + 1; b < t->matter_count; b++)
            for (int way = 0; way < 18; way++) {
                struct tears_op *first = &t->ops[t->matter[a]], *second = &t->ops[t->matter[b]];
                if (first->sector_count < 2 || second->sector_count < 2)
                    continue;
                set_all(t, fate_if(way >= 9));
                tear_in_way(first, way % 3);
                tear_in_way(second, way / 3 % 3);
                try_this(t);
            }
}

void
tears_each(const struct disk *d, enum effort effort, void (*each)(void *, const struct disk_choice *), void *arg)
{
    struct mem mem = mem_libc();
    struct tears *t = mem_new(&mem, struct tears);

    t->effort = effort;
    t->each = each;
    t->arg = arg;
    look_at_ops(t, d);
    whole_ones(t);
    for (size_t i = 0; i < t->matter_count; i++)
        if (t->ops[t->matter[i]].is_write && t->ops[t->matter[i]].sector_count > 1)
            tear_one(t, i);
    if (limits[effort].two)
        tear_two(t);
    mem_free(&mem, t, sizeof *t);
}
