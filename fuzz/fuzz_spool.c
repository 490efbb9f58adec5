/*
 * fuzz_spool - a spool directory whose files were damaged: recovery, verify, reading, and what they say of each other.
 *
 * Aims at: spool/log/recover.c spool/log/verify.c spool/log/segment.c spool/log/read.c spool/log/record.c
 * Seeds:   zeros
 * Longest: 600
 * Test:    150 runs
 *
 * A small spool of several segments, closed or killed, is made once. Each input damages it: bits, blocks, cuts, pieces copied
 * elsewhere, segments exchanged. Then verify reads it, recovery opens it, every message found is read, and verify reads what
 * recovery left. Nothing is found that was not stored, and no byte of a message is ever wrong: what cannot be right is an
 * error. A spool that verify calls sound loses nothing, and recovery then reports no damage but what verify remarks: a
 * batch at the end that may have been cut by a crash.
 */
#include "fuzz.h"

#include "spool/spool_fixture.h"
#include "spool/verify.h"
#include "world.h"

enum { MESSAGES = 26, FILES = 16, PATH = 64 };

struct saved {
    char path[PATH];
    char *bytes;
    size_t len;
};

static struct saved saved[FILES];
static size_t saved_count;
static struct test test = { .name = "fuzz" };

struct damaging {
    struct str input;
    struct arena *arena;
    size_t changed; /* bytes that are not as they were */
};

static void
save(void *arg, struct str path, struct str bytes)
{
    (void)arg;
    CHECK(saved_count < FILES && path.len < PATH);
    struct saved *s = &saved[saved_count++];
    memcpy(s->path, path.ptr, path.len);
    s->bytes = malloc(bytes.len + 1);
    s->len = bytes.len;
    memcpy(s->bytes, bytes.ptr, bytes.len);
}

static void
prepare(struct fixture *f, struct rt *rt)
{
    *f = (struct fixture){ .t = &test, .rt = rt, .ops = &spool_log_ops, .path = "spool" };
    f->settings = (struct spool_settings){ .segment_bytes = 64 << 10, .fresh_bytes_max = 0, .report = fixture_report,
                                           .report_arg = f };
    f->content_max = 9000;
    event_init(&f->recovered_event);
}

/* The spool as it is before damage. Killed, not closed: the copy is taken while it is open. */
static void
make(struct rt *rt, void *arg)
{
    struct fixture *f = malloc(sizeof *f);

    (void)arg;
    prepare(f, rt);
    fixture_open(f);
    for (uint64_t i = 0; i < MESSAGES; i++) {
        fixture_commit(f, i);
        if (i % 3 == 0)
            CHECK(!err_is(fixture_settle(f, i, i % 2 ? STATE_DELIVERED : STATE_PENDING, S("451 4.0.0 later"), false)));
    }
    world_files_each(save, NULL);
    fixture_close(f);
    free(f);
    CHECK(test.failures == 0);
}

static void
restore(void)
{
    world_files_remove(S("spool"));
    for (size_t i = 0; i < saved_count; i++)
        world_file_put(str_from_cstr(saved[i].path), str_new(saved[i].bytes, saved[i].len));
}

static void
damage(struct damaging *d)
{
    struct take t = take_init(d->input);

    while (t.rest.len > 0) {
        struct saved *s = &saved[take_u8(&t) % saved_count], *other = &saved[take_u8(&t) % saved_count];
        uint8_t what = take_u8(&t);
        size_t at = take_u32(&t), from = take_u16(&t) * 8u, len = 1;
        struct str bytes, others;
        if (t.bad || !world_file_get(str_from_cstr(s->path), &bytes) ||
            !world_file_get(str_from_cstr(other->path), &others) || bytes.len == 0)
            break;
        char *copy = arena_alloc(d->arena, bytes.len);
        memcpy(copy, bytes.ptr, bytes.len);
        at %= bytes.len;
        switch (what % 8) {
        case 0: /* a bit */
            copy[at] ^= (char)(1 << what / 8 % 8);
            break;
        case 1: /* a byte among those that are used */
            copy[at % 16384] = (char)(what ^ from);
            break;
        case 2: /* a lost block */
            at &= ~(size_t)511;
            len = bytes.len - at < 512 ? bytes.len - at : 512;
            memset(copy + at, 0, len);
            break;
        case 3: /* a lost page */
            at &= ~(size_t)4095;
            len = bytes.len - at < 4096 ? bytes.len - at : 4096;
            memset(copy + at, what, len);
            break;
        case 4: /* something from elsewhere */
            len = 1 + what / 8 * 64u;
            for (size_t i = 0; i < len && at + i < bytes.len && from + i < others.len; i++)
                copy[at + i] = others.ptr[from + i];
            break;
        case 5: /* the file ends early */
            bytes.len = at;
            break;
        case 6: /* another file's bytes whole */
            if (others.len <= bytes.len)
                memcpy(copy, others.ptr, others.len);
            break;
        case 7: /* bytes of the input */
            for (size_t i = 0; i < t.rest.len && at + i < bytes.len && i < 64; i++)
                copy[at + i] = t.rest.ptr[i];
            break;
        }
        world_file_put(str_from_cstr(s->path), str_new(copy, bytes.len));
    }
    for (size_t i = 0; i < saved_count; i++) {
        struct str now;
        if (!world_file_get(str_from_cstr(saved[i].path), &now) || !str_eq(now, str_new(saved[i].bytes, saved[i].len)))
            d->changed++;
    }
}

static void
drop_line(void *arg, struct str line)
{
    (void)arg;
    CHECK(line.len > 0 && !str_has_byte(line, '\n'));
}

static struct err
verify(struct rt *rt, bool dump, struct spool_verified *out)
{
    const struct spool_verify v = { .dump = dump, .json = dump, .line = drop_line };
    struct dir *dir;

    *out = (struct spool_verified){ 0 };
    CHECK(!err_is(dir_open(rt, S("spool"), LANE_BACKGROUND, FOREVER, &dir)));
    struct err e = spool_verify(rt, dir, &v, FOREVER, out);
    dir_close(dir);
    return e;
}

/* What can be read is what was stored; which bytes cannot be, is for the disk to say. */
static void
check_message(struct fixture *f, uint64_t number, struct arena *arena)
{
    struct spool_message m;
    struct fixture_envelope *want = arena_new(arena, struct fixture_envelope);
    size_t size = fixture_size(f, number), got = 0, part = 1;
    char *content = arena_alloc(arena, size + 1), *back = arena_alloc(arena, size + 100);

    fixture_envelope(f, number, want);
    fixture_fill(number, content, size);
    struct err e = f->ops->get(f->spool, fixture_id(number), arena, FOREVER, &m);
    if (err_is(e))
        return;
    CHECK(str_eq(m.envelope.reverse_path, want->envelope.reverse_path));
    CHECK(m.envelope.size == size && m.envelope.recipient_count == want->envelope.recipient_count);
    for (size_t i = 0; i < m.envelope.recipient_count; i++) {
        CHECK(str_eq(m.envelope.recipients[i].address, want->recipients[i].address));
        CHECK(m.statuses[i].index == i && m.statuses[i].state <= STATE_LAST);
    }
    while (part > 0) {
        e = f->ops->read(f->spool, fixture_id(number), got, back + got, size + 100 - got, FOREVER, &part);
        if (err_is(e))
            return;
        got += part;
        CHECK(got <= size && memcmp(content, back, got) == 0);
    }
    CHECK(got == size);
}

static void
run_damaged(struct rt *rt, void *arg)
{
    struct damaging *d = arg;
    struct fixture *f = arena_new(d->arena, struct fixture);
    struct spool_verified before, after;

    struct err verified = verify(rt, d->input.len % 2, &before);
    prepare(f, rt);
    struct err opened = fixture_try_open(f);
    if (err_is(opened)) {
        CHECK(d->changed > 0);
        if (opened.kind == ERR_READ_ONLY)
            CHECK(verified.kind == ERR_READ_ONLY);
        if (!f->recovered) /* it was not opened at all */
            return;
    } else {
        for (size_t i = 0; i < f->found_count; i++) {
            bool known = false;
            for (uint64_t n = 0; n < MESSAGES; n++)
                known |= message_id_eq(f->found[i], fixture_id(n));
            CHECK(known);
        }
        for (uint64_t n = 0; n < MESSAGES; n++)
            check_message(f, n, d->arena);
        bool sound = !err_is(verified) && before.problems == 0;
        if (sound)
            CHECK(f->damages <= before.remarks && f->found_count == before.messages);
        if (d->changed == 0)
            CHECK(sound && f->damages == 0 && f->found_count == before.messages);
    }
    fixture_close(f);
    verify(rt, false, &after);
}

void
fuzz_one(struct str input, struct arena *arena)
{
    struct damaging d = { .input = input, .arena = arena };

    world_rules = (struct world_rules){ .seed = 1 };
    if (saved_count == 0)
        world_run(make, NULL);
    restore();
    damage(&d);
    world_run(run_damaged, &d);
}
