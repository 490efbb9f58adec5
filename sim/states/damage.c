/*
 * damage - one block zeroed, one byte flipped: at most the messages in it are lost, that is reported, all else is there
 * (P3).
 *
 * The spools are the bases with a past, closed in good order: several messages in several segments. Each block of 4 KiB
 * of each file is zeroed in turn; one bit of each byte is flipped in turn, in the used part: in headers, indexes and
 * the heads of records every byte, in content every 61st (deep: every one). For each:
 *
 *     1. A read-only recovery finds every message that has no record there exactly as it was, and no message that was
 *        not there but for those that have a record there (whose end may be what was damaged).
 *     2. What is lost or changed is reported; and `verify` calls damage in a record, a header or an index a problem.
 *     3. After a zeroed block: a recovery that may write finds the same, accepts one more message, puts damaged bytes
 *        into quarantine and cleans; and then the next recovery still finds all others, and that message.
 */
#include "sim/states/states.h"

#include "spool/log/log.h"

#include <string.h>

enum { EXTENTS_MAX = 600, OWNERS_MAX = 2, PROBE = 50000, CONTENT_STEP = 61 };

enum part { IN_HEAD, IN_DATA, IN_HEADER, IN_INDEX, IN_TAIL }; /* tail: no PROOF covers it, so it may be torn as well */

struct stretch { /* of a segment's file: a record, or part of it */
    uint32_t file;           /* its number */
    uint64_t from, to;
    enum part in;
    uint64_t lsn;            /* of a record */
    uint32_t owners[OWNERS_MAX]; /* messages; 0: none */
};

struct map_of { /* which bytes are whose */
    struct stretch all[EXTENTS_MAX];
    size_t count;
    uint32_t file;
    bool finished;
    struct err err;
};

static void
add_stretch(struct map_of *m, uint64_t from, uint64_t to, enum part in, uint32_t first, uint32_t second)
{
    CHECK(m->count < EXTENTS_MAX);
    if (from < to)
        m->all[m->count++] = (struct stretch){ m->file, from, to, in, 0, { first, second } };
}

static bool
meet_record(void *arg, const struct record *r, uint64_t offset, struct str head, struct str data, bool data_ok)
{
    struct map_of *m = arg;
    uint32_t owner = number_of(r->id), other = 0;
    struct base base;

    CHECK(data_ok);
    if (r->type == RECORD_ACCEPT && base_take(r->body, &base) && base.settles.len > 0) {
        struct take t = take_init(base.settles);
        struct message_id id;
        id.hi = take_u64(&t);
        id.lo = take_u64(&t);
        other = number_of(id);
    }
    add_stretch(m, offset, offset + head.len, IN_HEAD, owner, other);
    m->all[m->count - 1].lsn = r->lsn;
    if (data.len == 0)
        return true;
    add_stretch(m, offset + head.len, offset + head.len + data.len, IN_DATA, owner, other);
    m->all[m->count - 1].lsn = r->lsn;
    return true;
}

static bool
meet_damage(void *arg, uint64_t offset, uint64_t len, bool torn)
{
    (void)arg;
    (void)offset;
    (void)len;
    (void)torn;
    UNREACHABLE();
}

static void
map_segment(struct map_of *m, struct spool *sp, struct segment *seg)
{
    enum { HEADER_BYTES = 512 };
    struct walk walk = { m, meet_record, meet_damage };
    struct walked walked;

    m->file = seg->number;
    add_stretch(m, 0, HEADER_BYTES, IN_HEADER, 0, 0);
    add_stretch(m, seg->header.bytes - BLOCK, seg->header.bytes - BLOCK + HEADER_BYTES, IN_HEADER, 0, 0);
    if (seg->state == SEGMENT_SEALED)
        add_stretch(m, seg->header.index_offset, seg->header.index_offset + seg->header.index_count * INDEX_ENTRY,
                    IN_INDEX, 0, 0);
    m->err = segment_walk(sp, seg, &walk, FOREVER, &walked);
    for (size_t i = 0; i < m->count && !err_is(m->err); i++)
        if (m->all[i].file == seg->number && m->all[i].lsn > walked.proven)
            m->all[i].in = IN_TAIL;
}

static int
map_main(struct rt *rt, void *arg)
{
    struct map_of *m = arg;
    struct spool_settings settings = { .read_only = true };
    struct spool *sp;
    struct dir *dir;

    m->err = dir_open(rt, S("/spool"), LANE_BACKGROUND, FOREVER, &dir);
    if (!err_is(m->err))
        m->err = spool_log_ops.open(rt, dir, &settings, &sp, FOREVER);
    for (uint32_t i = 0; !err_is(m->err) && i < sp->segment_count; i++)
        map_segment(m, sp, sp->own_segments[i]);
    m->finished = true;
    (void)rt_sleep(rt, FOREVER);
    return 0;
}

/* ---- what may be lost -------------------------------------------------------------------------------------------- */

struct harm {
    uint32_t file;
    uint64_t from, to;
    uint32_t lost[EXTENTS_MAX * OWNERS_MAX]; /* messages that may be */
    size_t lost_count;
    bool in_record, in_header, in_index;
};

static void
harm_init(struct harm *d, const struct map_of *m, uint32_t file, uint64_t from, uint64_t to)
{
    *d = (struct harm){ .file = file, .from = from, .to = to };
    for (size_t i = 0; i < m->count; i++) {
        const struct stretch *s = &m->all[i];
        if (s->file != file || s->to <= from || s->from >= to)
            continue;
        d->in_header |= s->in == IN_HEADER;
        d->in_index |= s->in == IN_INDEX;
        d->in_record |= s->in == IN_HEAD || s->in == IN_DATA;
        for (size_t k = 0; k < OWNERS_MAX; k++)
            if (s->owners[k])
                d->lost[d->lost_count++] = s->owners[k];
    }
}

static bool
may_be_lost(const struct harm *d, uint32_t number)
{
    for (size_t i = 0; i < d->lost_count; i++)
        if (d->lost[i] == number)
            return true;
    return false;
}

static bool
same_one(const struct one *a, const struct one *b)
{
    struct view x = { .messages = { *a }, .count = 1 }, y = { .messages = { *b }, .count = 1 };

    return view_eq(&x, &y);
}

/* Everything else is there, and nothing more. *out_changed: something is not as it was. */
static void
check_rest(struct bench *b, const struct view *base, const struct harm *d, struct look *look, bool *out_changed)
{
    *out_changed = !look->whole;
    if (look->number && !may_be_lost(d, look->number))
        bench_fail(b, "of another message: %s", look->problem);
    for (size_t i = 0; i < base->count; i++) {
        const struct one *was = &base->messages[i], *is = view_find(&look->view, was->number);
        bool same = is && same_one(was, is);
        *out_changed |= !same;
        if (!same && !may_be_lost(d, was->number))
            bench_fail(b, "message %u is %s, and has no record there", was->number, is ? "not as it was" : "lost");
    }
    for (size_t i = 0; i < look->view.count; i++) {
        uint32_t number = look->view.messages[i].number;
        struct view copy = *base;
        if (number != PROBE && !view_find(&copy, number) && !may_be_lost(d, number))
            bench_fail(b, "message %u lives again, and has no record there", number);
    }
}

static bool
look_at(struct bench *b, struct disk *disk, struct look *look)
{
    if (!run_over(b->sim, disk, look_main, look, &look->finished))
        bench_fail(b, "%s", b->sim->failure);
    else if (!look->finished || err_is(look->err))
        bench_fail(b, "the spool cannot be opened: %s", look->finished ? look->err.what : "it never ends");
    else
        return true;
    return false;
}

static void
check_damage(struct bench *b, const struct view *base, struct disk *disk, const struct harm *d, bool write)
{
    struct act probe = { .kind = ACT_ACCEPT, .number = PROBE };
    struct look look = { .read_only = true }, writing = { .then = &probe }, last = { .read_only = true };
    struct verified v = { .finished = false };
    bool changed;

    if (!look_at(b, disk, &look))
        return;
    check_rest(b, base, d, &look, &changed);
    if (changed && look.damages == 0)
        bench_fail(b, "something is not as it was, and nobody is told");
    if (!run_over(b->sim, disk, verify_main, &v, &v.finished))
        bench_fail(b, "verify: %s", b->sim->failure);
    else if (!err_is(v.err) && v.problems == 0 && (d->in_record || d->in_header || d->in_index))
        bench_fail(b, "verify finds no problem");
    if (!write || bench_is_over(b) || !look_at(b, disk, &writing))
        return;
    check_rest(b, base, d, &writing, &changed);
    if (probe.progress != ACT_DONE)
        bench_fail(b, "and then nothing can be accepted");
    disk_lose_power(disk, &nothing_kept);
    if (!look_at(b, disk, &last))
        return;
    check_rest(b, base, d, &last, &changed);
    if (!view_find(&last.view, PROBE))
        bench_fail(b, "what was accepted after that is lost");
}

/* ---- all --------------------------------------------------------------------------------------------------------- */

static void
describe(struct bench *b, enum base_kind base, const struct harm *d, const char *what)
{
    struct text text = text_init(b->what, sizeof b->what - 1);

    text_putf(&text, "spool: %s; %s %llu to %llu of segment file %u", base_name(base), what,
              (unsigned long long)d->from, (unsigned long long)d->to, d->file);
    b->what[text.len] = '\0';
}

static disk_inode
file_of_segment(const struct disk *disk, uint32_t number)
{
    char memory[64];
    struct text path = text_init(memory, sizeof memory);
    disk_inode inode;

    text_put(&path, S("spool/"));
    segment_name(number, &path);
    CHECK(disk_walk(disk, DISK_ROOT, text_str(&path), &inode));
    return inode;
}

static bool
is_zero(struct str s)
{
    for (size_t i = 0; i < s.len; i++)
        if (s.ptr[i] != 0)
            return false;
    return true;
}

static void
zero_blocks(struct bench *b, enum base_kind base, const struct map_of *m, uint32_t file)
{
    const struct base_spool *spool = &b->bases[base];
    static struct harm d;

    for (uint64_t at = 0; at < SEGMENT_BYTES && !bench_is_over(b); at += BLOCK) {
        disk_inode inode = file_of_segment(spool->disk, file);
        if (is_zero(str_slice(disk_bytes(spool->disk, inode), at, at + BLOCK)) || !bench_turn(b))
            continue;
        harm_init(&d, m, file, at, at + BLOCK);
        describe(b, base, &d, "zeros from");
        struct disk *disk = disk_clone(spool->disk);
        disk_blank(disk, inode, at, BLOCK);
        b->counts.blocks++;
        check_damage(b, &spool->view, disk, &d, true);
        disk_free(disk);
    }
}

static void
flip_bytes(struct bench *b, enum base_kind base, const struct map_of *m, const struct stretch *s)
{
    const struct base_spool *spool = &b->bases[base];
    static struct harm d;
    uint64_t step = s->in == IN_DATA && !b->deep ? CONTENT_STEP : 1;

    for (uint64_t at = s->from; at < s->to && !bench_is_over(b); at += step) {
        if (!bench_turn(b))
            continue;
        harm_init(&d, m, s->file, at, at + 1);
        describe(b, base, &d, "a flipped bit from");
        struct disk *disk = disk_clone(spool->disk);
        disk_flip(disk, file_of_segment(disk, s->file), at, (uint8_t)(1u << at % 8));
        b->counts.bytes++;
        check_damage(b, &spool->view, disk, &d, false);
        disk_free(disk);
    }
}

void
damage_all(struct bench *b)
{
    static struct map_of m;

    for (enum base_kind base = BASE_LIVED_IN; base < BASE_KINDS && !bench_is_over(b); base++) {
        if (!b->deep && base == BASE_FULL)
            continue;
        memset(&m, 0, sizeof m);
        struct disk *disk = disk_clone(b->bases[base].disk);
        CHECK(run_over(b->sim, disk, map_main, &m, &m.finished) && m.finished && !err_is(m.err));
        disk_free(disk);
        for (size_t i = 0; i < m.count && !bench_is_over(b); i++) {
            if (m.all[i].in == IN_HEADER && m.all[i].from == 0)
                zero_blocks(b, base, &m, m.all[i].file);
            flip_bytes(b, base, &m, &m.all[i]);
        }
    }
}
