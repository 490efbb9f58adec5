/*
 * log_test - what a crash, a bad disk or a long life may do to the log, done to copies of it.
 */
#include "spool/log/log.h"
#include "spool/spool_fixture.h"
#include "spool/verify.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#define CASE(name)                                                                                                     \
    static void name##_body(struct fixture *f);                                                                        \
    static void name(struct test *t)                                                                                   \
    {                                                                                                                  \
        fixture_run(t, &spool_log_ops, name##_body);                                                                   \
    }                                                                                                                  \
    static void name##_body(struct fixture *f)

/* ---- a disk that lies or fails ----------------------------------------------------------------------------------- */

/*
 * In the place of the C library's: counts, and fails when it is told to. It is called from the disk threads. After a
 * failure a file that failed must not be synced again, since that could succeed though the data is gone.
 */
static atomic_long syncs_done, syncs_until_failure = -1, syncs_in_hope, writes_until_failure = -1;
static _Atomic ino_t failed_files[16], synced_files[64];

static void
note_sync(int fd)
{
    struct stat st;

    CHECK(fstat(fd, &st) == 0);
    for (size_t i = 0; i < 64; i++) {
        ino_t none = 0;
        if (atomic_compare_exchange_strong(&synced_files[i], &none, st.st_ino) || none == st.st_ino)
            return;
    }
}

static bool
was_synced(const char *path)
{
    struct stat st;
    bool found = false;

    CHECK(stat(path, &st) == 0);
    for (size_t i = 0; i < 64; i++)
        found |= atomic_load(&synced_files[i]) == st.st_ino;
    return found;
}

int
fsync(int fd)
{
    int result = (int)syscall(SYS_fsync, fd);

    note_sync(fd);
    return result;
}

ssize_t
pwritev(int fd, const struct iovec *parts, int count, off_t offset)
{
    if (atomic_load(&writes_until_failure) == 0) {
        errno = EIO;
        return -1;
    }
    if (atomic_load(&writes_until_failure) > 0)
        atomic_fetch_sub(&writes_until_failure, 1);
    return (ssize_t)syscall(SYS_pwritev, fd, parts, count, offset, 0);
}

static atomic_long reads_done, unreadable_at;
static _Atomic ino_t unreadable_file; /* 0: none */

static bool
is_unreadable(int fd, size_t len, off_t offset)
{
    ino_t file = atomic_load(&unreadable_file);
    struct stat st;

    return file != 0 && fstat(fd, &st) == 0 && st.st_ino == file && offset <= atomic_load(&unreadable_at) &&
           atomic_load(&unreadable_at) < offset + (off_t)len;
}

ssize_t
pread(int fd, void *memory, size_t len, off_t offset)
{
    atomic_fetch_add(&reads_done, 1);
    if (is_unreadable(fd, len, offset)) {
        errno = EIO;
        return -1;
    }
    return (ssize_t)syscall(SYS_pread64, fd, memory, len, offset);
}

int
fdatasync(int fd)
{
    long left = atomic_load(&syncs_until_failure);
    struct stat st;

    CHECK(fstat(fd, &st) == 0);
    for (size_t i = 0; left == 0 && i < 16; i++) {
        ino_t none = 0;
        if (atomic_load(&failed_files[i]) == st.st_ino)
            atomic_fetch_add(&syncs_in_hope, 1);
        else if (!atomic_compare_exchange_strong(&failed_files[i], &none, st.st_ino))
            continue;
        errno = EIO;
        return -1;
    }
    if (left > 0)
        atomic_fetch_sub(&syncs_until_failure, 1);
    int result = (int)syscall(SYS_fdatasync, fd);
    note_sync(fd);
    atomic_fetch_add(&syncs_done, 1);
    return result;
}

/* ---- copies ------------------------------------------------------------------------------------------------------ */

static void
copy_file(const char *from, const char *to)
{
    char *buffer = malloc(1 << 20);
    int in = open(from, O_RDONLY), out = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    ssize_t n;

    CHECK(in >= 0 && out >= 0);
    while ((n = read(in, buffer, 1 << 20)) > 0)
        CHECK(write(out, buffer, (size_t)n) == n);
    close(in);
    close(out);
    free(buffer);
}

/* As a kill would leave it: what was written is there, nothing is closed in good order. */
static void
copy_spool(const char *from, const char *to)
{
    DIR *dir = opendir(from);
    struct dirent *entry;
    char a[500], b[500];

    CHECK(dir);
    while ((entry = readdir(dir)) != NULL) {
        snprintf(a, sizeof a, "%s/%s", from, entry->d_name);
        snprintf(b, sizeof b, "%s/%s", to, entry->d_name);
        if (entry->d_type == DT_REG)
            copy_file(a, b);
    }
    closedir(dir);
}

static void
copy_begin(struct fixture *copy, const struct fixture *of)
{
    fixture_init(copy, of->t, of->rt, of->ops);
    copy->settings = of->settings;
    copy->settings.report_arg = copy;
    copy->content_max = of->content_max;
    copy_spool(of->path, copy->path);
}

static void
copy_again(struct fixture *copy, const struct fixture *of)
{
    fixture_remove_tree(copy->path);
    CHECK(mkdir(copy->path, 0700) == 0);
    copy_spool(of->path, copy->path);
}

static void
segment_path(const struct fixture *f, uint32_t number, char out[300])
{
    snprintf(out, 300, "%s/%08x.segment", f->path, number);
}

static int
open_segment(const struct fixture *f, uint32_t number)
{
    char path[300];

    segment_path(f, number, path);
    int fd = open(path, O_RDWR);
    CHECK(fd >= 0);
    return fd;
}

static void
flip_bit(const struct fixture *f, uint32_t number, uint64_t offset)
{
    int fd = open_segment(f, number);
    unsigned char byte;

    CHECK(pread(fd, &byte, 1, (off_t)offset) == 1);
    byte ^= 0x10;
    CHECK(pwrite(fd, &byte, 1, (off_t)offset) == 1);
    close(fd);
}

/* False: it was zero already. */
static bool
zero_block(const struct fixture *f, uint32_t number, uint64_t offset)
{
    static const char zeros[BLOCK];
    char block[BLOCK];
    int fd = open_segment(f, number);

    CHECK(pread(fd, block, BLOCK, (off_t)offset) == BLOCK);
    CHECK(pwrite(fd, zeros, BLOCK, (off_t)offset) == BLOCK);
    close(fd);
    return memcmp(block, zeros, BLOCK) != 0;
}

static size_t
quarantined_files(const struct fixture *f)
{
    char path[300];
    struct dirent *entry;
    size_t count = 0;

    snprintf(path, sizeof path, "%s/quarantine", f->path);
    DIR *dir = opendir(path);
    while (dir && (entry = readdir(dir)) != NULL)
        count += entry->d_name[0] != '.';
    if (dir)
        closedir(dir);
    return count;
}

static size_t
count_whole(struct fixture *f, uint64_t first, uint64_t end)
{
    size_t whole = 0;

    for (uint64_t i = first; i < end; i++)
        whole += fixture_is_whole(f, i);
    return whole;
}

static struct message *
message(struct fixture *f, uint64_t number)
{
    struct message *m = message_find(f->spool, fixture_id(number));

    CHECK(m);
    return m;
}

/* Whoever reads what a message is and how it stands gets an error from now on, until make_readable(). */
static void
make_unreadable(struct fixture *f, uint64_t number)
{
    const struct message *m = message(f, number);
    char path[300];
    struct stat st;

    segment_path(f, m->base.segment->number, path);
    CHECK(stat(path, &st) == 0);
    segment_drop_cache(f->spool, m->base.segment);
    atomic_store(&unreadable_at, (long)m->base.offset);
    atomic_store(&unreadable_file, st.st_ino);
}

static void
make_readable(void)
{
    atomic_store(&unreadable_file, 0);
}

/* Until keeper and commit wait for something to do: then no disk thread is at work, and the files may be copied. */
static void
until_kept(struct fixture *f)
{
    struct spool *sp = f->spool;

    for (int64_t end = rt_wall(f->rt) + 20 * SECOND; rt_wall(f->rt) < end;) {
        if (!keeper_is_needed(sp) && list_is_empty(&sp->damages) && sp->keeping && sp->free_count >= RESERVE_SEGMENTS &&
            !sp->keep_wanted && !list_is_empty(&sp->keep.waiters) && !list_is_empty(&sp->work.waiters))
            return;
        (void)rt_sleep(f->rt, within(f->rt, MILLISECOND));
    }
    test_expect(f->t, false, "the keeper comes to an end", __FILE__, __LINE__);
}

/* Until a PROOF says that all was synced, and lies on disk itself. */
static void
until_proved(struct fixture *f)
{
    until_kept(f);
    while (f->spool->synced_lsn != f->spool->proof_lsn || !list_is_empty(&f->spool->queue))
        (void)rt_sleep(f->rt, within(f->rt, MILLISECOND));
    until_kept(f);
}

/* ---- crashes ----------------------------------------------------------------------------------------------------- */

enum { FEW = 24 };

CASE(cut_anywhere)
{
    uint64_t ends[FEW + 1];
    struct fixture *copy = malloc(sizeof *copy);

    fixture_open(f);
    ends[0] = BLOCK;
    for (uint64_t i = 0; i < FEW; i++) {
        fixture_commit(f, i);
        ends[i + 1] = f->spool->current->used;
    }
    copy_begin(copy, f);
    for (int zeroed = 0; zeroed < 2; zeroed++) { /* what was not written is missing, or zero */
        size_t whole_before = 0;
        for (uint64_t cut = BLOCK; cut <= ends[FEW]; cut += 1024) {
            size_t want = 0;
            char *zeros = calloc(1, 256 << 10);
            copy_again(copy, f);
            int fd = open_segment(copy, f->spool->current->number);
            if (zeroed)
                CHECK(pwrite(fd, zeros, (256 << 10) - cut, (off_t)cut) == (ssize_t)((256 << 10) - cut));
            else
                CHECK(ftruncate(fd, (off_t)cut) == 0);
            close(fd);
            free(zeros);
            while (want < FEW && ends[want + 1] <= cut)
                want++;
            fixture_open(copy);
            size_t whole = count_whole(copy, 0, want);
            EXPECT_INT(f->t, whole, want); /* a torn batch may still have whole records: they count as well */
            EXPECT(f->t, copy->found_count >= want && copy->found_count <= want + 1);
            EXPECT(f->t, copy->found_count >= whole_before);
            whole_before = copy->found_count;
            size_t found = copy->found_count;
            fixture_commit(copy, 500);
            fixture_close(copy);
            fixture_open(copy);
            EXPECT_INT(f->t, copy->found_count, found + 1);
            EXPECT_INT(f->t, count_whole(copy, 0, want), want);
            EXPECT(f->t, fixture_is_whole(copy, 500));
            fixture_close(copy);
        }
    }
    fixture_done_with(copy);
    free(copy);
    fixture_close(f);
}

struct snapshot {
    struct fixture *f;
    struct fixture *copy;
    size_t checks;
};

static void
check_files_unchanged(void *arg, const struct spool_message *m)
{
    struct snapshot *s = arg;
    struct dirent *entry;

    fixture_found(s->copy, m);
    DIR *dir = opendir(s->f->path);
    while ((entry = readdir(dir)) != NULL) {
        char a[500], b[500];
        struct stat sa, sb;
        char *ba, *bb;
        if (!strstr(entry->d_name, ".segment"))
            continue;
        snprintf(a, sizeof a, "%s/%s", s->f->path, entry->d_name);
        snprintf(b, sizeof b, "%s/%s", s->copy->path, entry->d_name);
        int fa = open(a, O_RDONLY), fb = open(b, O_RDONLY);
        CHECK(fa >= 0 && fb >= 0 && fstat(fa, &sa) == 0 && fstat(fb, &sb) == 0);
        EXPECT_INT(s->f->t, sa.st_size, sb.st_size);
        ba = malloc((size_t)sa.st_size);
        bb = malloc((size_t)sa.st_size);
        CHECK(read(fa, ba, (size_t)sa.st_size) == sa.st_size && read(fb, bb, (size_t)sa.st_size) == sa.st_size);
        EXPECT(s->f->t, memcmp(ba, bb, (size_t)sa.st_size) == 0);
        free(ba);
        free(bb);
        close(fa);
        close(fb);
        s->checks++;
    }
    closedir(dir);
}

static void
snapshot_done(void *arg, struct err e)
{
    struct snapshot *s = arg;

    fixture_done(s->copy, e);
}

CASE(recovery_writes_nothing)
{
    struct fixture *copy = malloc(sizeof *copy);
    struct snapshot s = { f, copy, 0 };

    f->settings.segment_bytes = 64 << 10;
    fixture_open(f);
    for (uint64_t i = 0; i < 60; i++) {
        fixture_commit(f, i);
        if (i % 2)
            FIXTURE_OK(f, fixture_settle(f, i, i % 3 ? STATE_DELIVERED : STATE_PENDING, S("450"), false));
    }
    until_kept(f);
    copy_begin(copy, f);
    flip_bit(copy, message(f, 58)->base.segment->number, message(f, 58)->base.offset + 60);
    fixture_close(f);
    FIXTURE_OK(f, dir_open(f->rt, str_from_cstr(copy->path), LANE_BACKGROUND, FOREVER, &copy->dir));
    FIXTURE_OK(f, f->ops->open(f->rt, copy->dir, &copy->settings, &copy->spool, FOREVER));
    copy_again(f, copy); /* the damaged one, twice; opening wrote a CHECKPOINT */
    FIXTURE_OK(f, f->ops->recover(copy->spool, check_files_unchanged, snapshot_done, &s, FOREVER));
    while (!copy->recovered)
        FIXTURE_OK(f, event_wait(f->rt, &copy->recovered_event, FOREVER));
    EXPECT(f->t, s.checks > 100);
    EXPECT_INT(f->t, copy->damages, 1);
    size_t found = copy->found_count;
    fixture_close(copy);
    fixture_open(f); /* as if that one had crashed */
    EXPECT_INT(f->t, f->found_count, found);
    fixture_close(f);
    fixture_done_with(copy);
    free(copy);
}

/* Committing, deferring and ending by many fibers; now and then the process "dies": a copy must hold what was
 * promised. */
enum { LOAD = 1200, LOAD_FIBERS = 12 };
struct load {
    struct fixture *f;
    uint64_t next;
    bool committed[LOAD], ended[LOAD], ending[LOAD];
    size_t failures;
    bool paused; /* while a copy is looked at */
};

static void
load_some(void *arg)
{
    struct load *l = arg;

    while (l->next < LOAD) {
        while (l->paused)
            (void)rt_sleep(l->f->rt, within(l->f->rt, MILLISECOND));
        uint64_t i = l->next++;
        if (i >= LOAD)
            return;
        if (err_is(fixture_try_commit(l->f, i))) {
            l->failures++;
            continue;
        }
        l->committed[i] = true;
        if (i % 3 == 0)
            l->failures += err_is(fixture_settle(l->f, i, STATE_PENDING, S("450 try later"), i % 2));
        if (i % 10 == 0) /* stays */
            continue;
        l->ending[i] = true;
        l->failures += err_is(fixture_settle(l->f, i, STATE_DELIVERED, S("250"), false));
        l->ended[i] = true;
    }
}

static void
check_copy(struct fixture *copy, const struct load *l)
{
    fixture_open(copy);
    EXPECT_INT(l->f->t, copy->damages, 0);
    for (uint64_t i = 0; i < LOAD; i++) {
        if (l->ended[i])
            EXPECT(l->f->t, !fixture_was_found(copy, i));
        else if (l->committed[i] && !l->ending[i])
            EXPECT(l->f->t, fixture_was_found(copy, i) && fixture_is_whole(copy, i));
    }
    struct spool_counters c;
    copy->ops->counters(copy->spool, &c);
    EXPECT_INT(l->f->t, c.accepted, c.delivered + c.pending);
    fixture_close(copy);
}

CASE(killed_under_load)
{
    struct load *l = calloc(1, sizeof *l);
    struct fixture *copy = malloc(sizeof *copy);
    struct scope scope;
    size_t kills = 0;

    f->settings.segment_bytes = 64 << 10;
    l->f = f;
    fixture_open(f);
    copy_begin(copy, f);
    scope_init(&scope, f->rt);
    for (size_t i = 0; i < LOAD_FIBERS; i++)
        scope_start(&scope, "load", load_some, l);
    struct load *then = malloc(sizeof *then);
    while (scope.count > 0) {
        uint64_t at = l->next;
        while (scope.count > 0 && l->next < at + 20)
            fiber_yield(f->rt);
        copy_again(copy, f);
        *then = *l;
        l->paused = true;
        check_copy(copy, then);
        l->paused = false;
        kills++;
    }
    scope_end(&scope);
    EXPECT_INT(f->t, l->failures, 0);
    EXPECT(f->t, kills > 10);
    fixture_close(f);
    fixture_done_with(copy);
    free(copy);
    free(then);
    free(l);
}

/* ---- bad disks --------------------------------------------------------------------------------------------------- */

/* Each byte of one record, and what lies there besides. */
static void
flip_each(struct fixture *f, struct fixture *copy, uint64_t victim, bool sealed)
{
    struct message *m = message(f, victim);
    uint32_t number = m->base.segment->number;
    size_t content = fixture_size(f, victim);
    uint64_t last_byte = m->base.offset + m->head_size + content;

    EXPECT_INT(f->t, m->base.segment->state == SEGMENT_SEALED, sealed);
    for (uint64_t at = m->base.offset; at < m->base.offset + m->base.size; at++) {
        copy_again(copy, f);
        flip_bit(copy, number, at);
        fixture_open(copy);
        size_t whole = 0;
        for (uint64_t i = 0; i < FEW; i++)
            whole += i != victim && fixture_is_whole(copy, i);
        EXPECT_INT(f->t, whole, FEW - 1);
        EXPECT_INT(f->t, fixture_is_whole(copy, victim), at >= last_byte);
        if (at < last_byte) {
            EXPECT(f->t, copy->damages > 0);
            until_kept(copy);
            EXPECT(f->t, quarantined_files(copy) > 0);
        }
        fixture_close(copy);
    }
}

CASE(flip_each_byte_of_a_record)
{
    struct fixture *copy = malloc(sizeof *copy);

    f->content_max = 600;
    fixture_open(f);
    for (uint64_t i = 0; i < FEW; i++)
        fixture_commit(f, i);
    copy_begin(copy, f);
    flip_each(f, copy, FEW / 2, false);
    fixture_close(f);
    fixture_done_with(copy);
    free(copy);
}

CASE(flip_each_byte_of_a_sealed_record)
{
    struct fixture *copy = malloc(sizeof *copy);

    f->settings.segment_bytes = 64 << 10;
    f->content_max = 600;
    fixture_open(f);
    for (uint64_t i = 0; i < FEW; i++)
        fixture_commit(f, i);
    copy_begin(copy, f);
    flip_each(f, copy, 5, true);
    fixture_close(f);
    fixture_done_with(copy);
    free(copy);
}

/* One record of each type, the shortest there is, as verify sees them. */
struct specimens {
    struct specimen {
        uint32_t segment;
        uint64_t offset, size;
    } of[RECORD_LAST + 1];
};

static uint64_t
number_after(struct str line, struct str name)
{
    uint64_t number = 0;

    line = str_from(line, str_find(line, name) + name.len);
    CHECK(str_take_u64(&line, &number));
    return number;
}

static void
take_specimen(void *arg, struct str line)
{
    static const char *const types[] = { "?", "CHUNK", "ACCEPT", "SETTLE", "STATE", "DONE", "PROOF", "CHECKPOINT" };
    struct specimens *s = arg;

    if (!str_take(&line, S("{\"record\":\"")))
        return;
    struct str type = str_cut(&line, '"');
    for (size_t i = 1; i <= RECORD_LAST; i++) {
        struct specimen one = { .size = number_after(line, S("\"size\":")) };
        if (!str_eq(type, str_from_cstr(types[i])) || (s->of[i].size > 0 && s->of[i].size <= one.size))
            continue;
        struct str name = str_from(line, str_find(line, S("\"segment\":\"")) + 11);
        one.segment = (uint32_t)strtoul(name.ptr, NULL, 16);
        one.offset = number_after(line, S("\"offset\":"));
        s->of[i] = one;
    }
}

static struct spool_verified
verify(struct fixture *f, struct specimens *out)
{
    struct spool_verify how = { .dump = true, .json = true, .line = take_specimen, .arg = out };
    struct spool_verified found;

    FIXTURE_OK(f, dir_open(f->rt, str_from_cstr(f->path), LANE_BACKGROUND, FOREVER, &f->dir));
    FIXTURE_OK(f, spool_verify(f->rt, f->dir, &how, FOREVER, &found));
    dir_close(f->dir);
    return found;
}

/* Head, body and check, and the data behind: not the zeros that fill up the last eight bytes. */
static uint64_t
checked_bytes(const struct fixture *f, const struct specimen *s)
{
    char *bytes = malloc(s->size);
    struct record r;
    int fd = open_segment(f, s->segment);

    CHECK(pread(fd, bytes, s->size, (off_t)s->offset) == (ssize_t)s->size);
    close(fd);
    CHECK(record_peek(str_new(bytes, s->size), &r));
    free(bytes);
    return record_head_size(&r) + r.data_size;
}

/* Content up to a limit is one record with its envelope; a byte more, and it is in two. */
CASE(content_of_just_the_limit)
{
    struct fixture_envelope *e = malloc(sizeof *e);
    char *content = malloc(LIMIT_CONTENT_INLINE + 1), *back = malloc(LIMIT_CONTENT_INLINE + 2);

    f->settings.segment_bytes = 1 << 20;
    for (size_t over = 0; over < 2; over++) {
        struct specimens specimens = { 0 };
        size_t size = LIMIT_CONTENT_INLINE + over, got = 0, part;
        struct draft *draft;
        fixture_open(f);
        fixture_envelope(f, over, e);
        e->envelope.size = size;
        fixture_fill(over, content, size);
        FIXTURE_OK(f, f->ops->begin(f->spool, fixture_id(over), size, FOREVER, &draft));
        FIXTURE_OK(f, f->ops->put(draft, str_new(content, size), FOREVER));
        FIXTURE_OK(f, f->ops->commit(draft, &e->envelope, NULL, NULL, FOREVER));
        fixture_close(f);
        EXPECT_INT(f->t, verify(f, &specimens).problems, 0);
        EXPECT_INT(f->t, specimens.of[RECORD_CHUNK].size > 0, over);
        fixture_open(f);
        do {
            FIXTURE_OK(f, f->ops->read(f->spool, fixture_id(over), got, back + got, size + 1 - got, FOREVER, &part));
            got += part;
        } while (part > 0);
        EXPECT(f->t, got == size && memcmp(content, back, size) == 0);
        fixture_close(f);
    }
    free(back);
    free(content);
    free(e);
}

/* Whatever the record is, verify sees it; the daemon loses one message at most, says so, and goes on. */
CASE(flip_each_byte_of_a_record_of_each_type)
{
    enum { DEAD = 50 };
    struct fixture *copy = malloc(sizeof *copy);
    struct specimens specimens = { 0 }, ignored;
    bool lives[DEAD] = { false };
    size_t live = 0;

    f->settings.segment_bytes = 64 << 10;
    f->settings.fresh_bytes_max = 0;
    f->content_max = 9000; /* what is over an eighth of a segment is written in chunks */
    fixture_open(f);
    for (uint64_t i = 0; i < DEAD; i++) { /* cleaning moves those that stay: STATE */
        fixture_commit(f, i);
        lives[i] = i % 5 == 0;
        live += lives[i];
        FIXTURE_OK(f, fixture_settle(f, i, lives[i] ? STATE_PENDING : STATE_DELIVERED, S("250"), false));
    }
    until_kept(f);
    fixture_close(f);
    EXPECT_INT(f->t, verify(f, &specimens).problems, 0);
    copy_begin(copy, f);
    for (size_t type = RECORD_CHUNK; type <= RECORD_LAST; type++) {
        struct specimen *s = &specimens.of[type];
        char why[32];
        snprintf(why, sizeof why, "type %zu", type);
        test_case(f->t, why);
        if (!EXPECT(f->t, s->size > 0))
            continue;
        uint64_t end = s->offset + checked_bytes(f, s);
        for (uint64_t at = s->offset; at < end; at++) {
            size_t whole = 0;
            flip_bit(f, s->segment, at);
            EXPECT(f->t, verify(f, &ignored).problems > 0);
            if (at % 7 == 0)
                copy_again(copy, f);
            flip_bit(f, s->segment, at);
            if (at % 7 != 0)
                continue;
            fixture_open(copy); /* which looks at bodies in sealed segments only when it needs them */
            for (uint64_t i = 0; i < DEAD; i++)
                whole += lives[i] && fixture_is_whole(copy, i);
            if (!EXPECT(f->t, whole == live || (whole == live - 1 && copy->damages > 0)))
                printf("#   byte %llu: %zu of %zu whole, %zu damages\n", (unsigned long long)(at - s->offset), whole,
                       live, copy->damages);
            fixture_commit(copy, 600);
            EXPECT(f->t, fixture_is_whole(copy, 600));
            fixture_close(copy);
        }
    }
    fixture_done_with(copy);
    free(copy);
}

static struct str
what_lies_at(const struct segment *seg, uint64_t offset)
{
    if (offset == 0)
        return S("first header");
    if (offset == seg->header.bytes - BLOCK)
        return S("last header");
    if (offset < seg->used)
        return S("batches");
    return seg->state == SEGMENT_SEALED && offset < seg->used + seg->header.index_count * INDEX_ENTRY ? S("index") : S("");
}

CASE(zero_each_block)
{
    struct fixture *copy = malloc(sizeof *copy);
    size_t seen = 0;

    f->settings.segment_bytes = 64 << 10;
    fixture_open(f);
    for (uint64_t i = 0; i < FEW; i++)
        fixture_commit(f, i);
    until_proved(f);
    copy_begin(copy, f);
    for (uint32_t s = 0; s < f->spool->segment_count; s++) {
        struct segment *seg = f->spool->own_segments[s];
        for (uint64_t at = 0; at < seg->header.bytes; at += BLOCK) {
            size_t touched = 0, whole;
            bool last_proof = seg == f->spool->current && at == seg->used - BLOCK;
            for (uint64_t i = 0; i < FEW; i++) {
                const struct place *p = &message(f, i)->base;
                touched += p->segment == seg && p->offset < at + BLOCK && p->offset + p->size > at;
            }
            copy_again(copy, f);
            if (!zero_block(copy, seg->number, at) || what_lies_at(seg, at).len == 0)
                continue;
            seen++;
            fixture_open(copy);
            whole = count_whole(copy, 0, FEW);
            if (!EXPECT(f->t, whole >= FEW - touched && whole <= FEW) || (!last_proof && !EXPECT(f->t, copy->damages > 0)))
                printf("#   block %llu of segment %u (%.*s): %zu of %d whole, %zu lay there\n",
                       (unsigned long long)at / BLOCK, seg->number, STR_ARG(what_lies_at(seg, at)), whole, FEW, touched);
            fixture_commit(copy, 600);
            until_kept(copy);
            fixture_close(copy);
            fixture_open(copy);
            EXPECT_INT(f->t, count_whole(copy, 0, FEW), whole);
            EXPECT(f->t, fixture_is_whole(copy, 600));
            fixture_close(copy);
        }
    }
    EXPECT(f->t, seen > 20);
    fixture_close(f);
    fixture_done_with(copy);
    free(copy);
}

CASE(a_write_error_breaks_it)
{
    struct rlimit before, small;

    fixture_open(f);
    for (uint64_t i = 0; i < 5; i++)
        fixture_commit(f, i);
    CHECK(signal(SIGXFSZ, SIG_IGN) != SIG_ERR);
    CHECK(getrlimit(RLIMIT_FSIZE, &before) == 0);
    small = (struct rlimit){ f->spool->current->used + 512, before.rlim_max };
    CHECK(setrlimit(RLIMIT_FSIZE, &small) == 0);
    EXPECT(f->t, err_is(fixture_try_commit(f, 5)));
    EXPECT(f->t, f->ops->is_broken(f->spool));
    CHECK(setrlimit(RLIMIT_FSIZE, &before) == 0);
    EXPECT(f->t, err_is(fixture_try_commit(f, 6))); /* not in the hope that it goes well now */
    EXPECT(f->t, err_is(fixture_settle(f, 1, STATE_DELIVERED, S(""), false)));
    fixture_close(f);
    fixture_open(f);
    EXPECT_INT(f->t, f->found_count, 5);
    fixture_commit(f, 5);
    fixture_close(f);
}

CASE(nothing_is_answered_before_its_sync)
{
    fixture_open(f);
    for (uint64_t i = 0; i < 20; i++) {
        long before = atomic_load(&syncs_done);
        fixture_commit(f, i);
        EXPECT(f->t, atomic_load(&syncs_done) > before);
        before = atomic_load(&syncs_done);
        FIXTURE_OK(f, fixture_settle(f, i, STATE_DELIVERED, S("250"), false));
        EXPECT(f->t, atomic_load(&syncs_done) > before);
    }
    fixture_close(f);
}

CASE(each_sync_fails_in_turn)
{
    f->settings.segment_bytes = 64 << 10;
    size_t broken = 0;

    for (long n = 0; n < 60; n++) {
        uint64_t first = 1000 * (uint64_t)n, acknowledged = 0;
        fixture_open(f);
        size_t before = f->found_count;
        atomic_store(&syncs_in_hope, 0);
        for (size_t i = 0; i < 16; i++)
            atomic_store(&failed_files[i], 0);
        atomic_store(&syncs_until_failure, n % 30);
        while (acknowledged < 40 && !err_is(fixture_try_commit(f, first + acknowledged)))
            acknowledged++;
        if (f->ops->is_broken(f->spool)) {
            broken++;
            EXPECT(f->t, acknowledged < 40);
            EXPECT(f->t, err_is(fixture_settle(f, first, STATE_DELIVERED, S("250"), false)));
            EXPECT(f->t, err_is(fixture_try_commit(f, first + 999)));
        }
        fixture_close(f);
        EXPECT_INT(f->t, atomic_load(&syncs_in_hope), 0);
        atomic_store(&syncs_until_failure, -1);
        fixture_open(f);
        EXPECT(f->t, f->found_count >= before + acknowledged && f->found_count <= before + acknowledged + 1);
        EXPECT_INT(f->t, count_whole(f, first, first + acknowledged), acknowledged);
        for (uint64_t i = 0; i < f->found_count; i++) { /* tidy up for the next turn */
            struct recipient_status all[FIXTURE_RECIPIENTS_MAX] = { { 0 } };
            struct spool_settle settle = { .id = f->found[i], .statuses = all,
                                           .count = message_find(f->spool, f->found[i])->recipients };
            for (uint32_t k = 0; k < settle.count; k++)
                all[k] = (struct recipient_status){ .index = k, .state = STATE_REMOVED };
            FIXTURE_OK(f, f->ops->settle(f->spool, &settle, true, FOREVER));
        }
        fixture_close(f);
    }
    EXPECT(f->t, broken > 30);
}

CASE(each_write_fails_in_turn)
{
    f->settings.segment_bytes = 64 << 10;
    for (long n = 0; n < 40; n++) {
        uint64_t first = 1000 * (uint64_t)n, acknowledged = 0;
        fixture_open(f);
        until_kept(f);
        atomic_store(&writes_until_failure, n);
        while (acknowledged < 60 && !err_is(fixture_try_commit(f, first + acknowledged)))
            acknowledged++;
        EXPECT(f->t, acknowledged < 60);
        fixture_close(f);
        atomic_store(&writes_until_failure, -1);
        fixture_open(f);
        EXPECT_INT(f->t, count_whole(f, first, first + acknowledged), acknowledged);
        for (uint64_t i = 0; i < acknowledged; i++)
            FIXTURE_OK(f, fixture_settle(f, first + i, STATE_REMOVED, S("gone"), true));
        fixture_close(f);
    }
}

/* A kill leaves more in the page cache than there is on disk: names and headers that nobody synced. */
CASE(what_was_found_is_synced_before_it_is_believed)
{
    char path[300];

    f->settings.segment_bytes = 64 << 10;
    fixture_open(f);
    for (uint64_t i = 0; i < 100; i++) {
        fixture_commit(f, i);
        FIXTURE_OK(f, fixture_settle(f, i, STATE_DELIVERED, S("250"), false));
    }
    until_kept(f);
    fixture_close(f);
    for (size_t i = 0; i < 64; i++)
        atomic_store(&synced_files[i], 0);
    CHECK(!err_is(dir_open(f->rt, str_from_cstr(f->path), LANE_BACKGROUND, FOREVER, &f->dir)));
    FIXTURE_OK(f, f->ops->open(f->rt, f->dir, &f->settings, &f->spool, FOREVER));
    EXPECT(f->t, f->spool->free_count >= RESERVE_SEGMENTS);
    EXPECT(f->t, was_synced(f->path));
    list_each(node, &f->spool->free) {
        snprintf(path, sizeof path, "%s/%08x.segment", f->path, container_of(node, struct segment, link)->number);
        EXPECT(f->t, was_synced(path));
    }
    fixture_close(f);
}

/* Whoever is told that all of a sealed segment is on disk must find it there: chunks too, that no commit has synced. */
CASE(a_segment_is_synced_before_it_says_so)
{
    struct draft *d;
    char content[20000] = "x";

    f->settings.segment_bytes = 64 << 10;
    fixture_open(f);
    FIXTURE_OK(f, f->ops->begin(f->spool, fixture_id(1), 0, FOREVER, &d));
    while (f->spool->segment_count < 3) { /* nothing but chunks */
        struct segment *seg = f->spool->current;
        long before = atomic_load(&syncs_done);
        FIXTURE_OK(f, f->ops->put(d, str_new(content, sizeof content), FOREVER));
        if (seg && f->spool->current != seg) /* one for chunks and index, one for the last header, one for the CHECKPOINT */
            EXPECT(f->t, atomic_load(&syncs_done) >= before + 3);
    }
    f->ops->abort(d);
    fixture_close(f);
}

/* Blocks that were never written are written once ahead of the mail, by few of the batches and behind none of a used segment. */
CASE(small_batches_write_ahead)
{
    uint64_t ahead = 0, moved = 0, batches = 0;

    f->settings.segment_bytes = 1 << 20;
    fixture_open(f);
    for (uint64_t i = 0; f->spool->segment_count < 2; i++) {
        fixture_commit(f, i);
        struct segment *seg = f->spool->current;
        EXPECT(f->t, seg->ahead >= seg->used);
        EXPECT(f->t, seg->ahead <= seg->header.bytes - BLOCK);
        moved += seg->ahead != ahead;
        ahead = seg->ahead;
        batches++;
    }
    EXPECT(f->t, batches > 50 && moved >= 8 && moved < 12);
    fixture_close(f);
}

/* Their blocks were written once: in a former life, or by the keeper. */
CASE(nothing_is_written_ahead_in_recycled_segments)
{
    uint64_t before, number = 1;

    f->settings.segment_bytes = 1 << 20;
    fixture_open(f);
    before = f->spool->counters.bytes_written;
    fixture_commit(f, number);
    EXPECT(f->t, f->spool->counters.bytes_written - before >= (1 << 20) / 8);
    while (f->spool->next_sequence < 20 && !f->spool->current->written) {
        before = f->spool->counters.bytes_written;
        FIXTURE_OK(f, fixture_settle(f, number, STATE_DELIVERED, S("250"), false));
        fixture_commit(f, ++number); /* one of both is the first in its segment at last */
    }
    EXPECT(f->t, f->spool->current->written);
    EXPECT(f->t, f->spool->counters.bytes_written - before < (1 << 20) / 8);
    fixture_close(f);
}

/* Mail that said nothing of its size must not use up what is there for the end of other mail. */
CASE(chunks_leave_the_reserve)
{
    struct draft *d;
    char content[20000] = "x";
    struct err e = OK;

    f->settings.segment_bytes = 64 << 10;
    f->settings.space_max = 6 * f->settings.segment_bytes;
    fixture_open(f);
    until_kept(f);
    for (uint64_t i = 0; i < 20; i++)
        fixture_commit(f, i);
    FIXTURE_OK(f, f->ops->begin(f->spool, fixture_id(1000), 0, FOREVER, &d));
    for (int i = 0; i < 50 && !err_is(e); i++)
        e = f->ops->put(d, str_new(content, sizeof content), FOREVER);
    EXPECT_INT(f->t, e.kind, ERR_NO_SPACE);
    EXPECT_INT(f->t, f->ops->begin(f->spool, fixture_id(1001), f->settings.space_max, FOREVER, &(struct draft *){ NULL }).kind,
               ERR_NO_SPACE);
    for (uint64_t i = 0; i < 20; i++)
        FIXTURE_OK(f, fixture_settle(f, i, STATE_DELIVERED, S("250"), false));
    f->ops->abort(d);
    fixture_close(f);
}

/* What was promised to the one who settled lazily is written when there is space again, in whatever state that finds
 * us. */
CASE(lazy_settles_outlast_a_full_disk)
{
    static char words[150];
    struct fixture_envelope *envelope = malloc(sizeof *envelope);
    struct draft *late;
    uint64_t many = 0;
    struct err e = OK;
    struct spool_counters c;

    memset(words, 'x', sizeof words);
    f->settings.segment_bytes = 64 << 10;
    f->settings.space_max = 6 * f->settings.segment_bytes;
    fixture_open(f);
    until_kept(f);
    fixture_envelope(f, 999, envelope);
    FIXTURE_OK(f, f->ops->begin(f->spool, fixture_id(999), 0, FOREVER, &late));
    while (!err_is(fixture_try_commit(f, many))) {
        do
            many++;
        while (!err_is(fixture_try_commit(f, many)));
        until_kept(f); /* what cleaning can still win is filled as well */
    }
    for (uint64_t i = 0; i < 2000 && !err_is(e); i++) /* all of it lives, so that cleaning has nothing to give */
        e = fixture_settle(f, i % many, STATE_PENDING, str_new(words, sizeof words), false);
    EXPECT_INT(f->t, e.kind, ERR_NO_SPACE);
    for (uint64_t i = 0; i < many; i++)
        FIXTURE_OK(f, fixture_settle(f, i, STATE_DELIVERED, S("250"), true));
    (void)rt_sleep(f->rt, within(f->rt, 20 * MILLISECOND));
    f->ops->counters(f->spool, &c);
    EXPECT(f->t, c.stuck);
    struct spool_message m;
    struct arena arena;
    arena_init(&arena, rt_mem(f->rt), 4096, 1 << 20);
    EXPECT_INT(f->t, f->ops->get(f->spool, fixture_id(0), &arena, within(f->rt, MILLISECOND), &m).kind, ERR_TIMEOUT);
    FIXTURE_OK(f, f->ops->get_written(f->spool, fixture_id(0), &arena, FOREVER, &m));
    EXPECT_INT(f->t, m.statuses[0].state, STATE_PENDING);
    arena_done(&arena);
    EXPECT_INT(f->t, f->ops->commit(late, &envelope->envelope, NULL, NULL, FOREVER).kind, ERR_NO_SPACE);
    free(envelope);
    f->spool->settings.space_max *= 2;
    for (int i = 0; i < 10000 && f->spool->messages.count > 0; i++)
        (void)rt_sleep(f->rt, within(f->rt, MILLISECOND));
    EXPECT_INT(f->t, f->spool->messages.count, 0);
    f->ops->counters(f->spool, &c);
    EXPECT(f->t, !c.stuck);
    fixture_close(f);
    fixture_open(f);
    EXPECT_INT(f->t, f->found_count, 0);
    fixture_close(f);
}

/* That there is no space for something large keeps nothing waiting that fits. */
CASE(what_fits_is_written_when_more_would_not)
{
    struct spool_counters c;

    fixture_open(f);
    fixture_commit(f, 1);
    until_kept(f);
    f->spool->hopeless = true; /* as it is when the large one was refused */
    FIXTURE_OK(f, fixture_settle(f, 1, STATE_DELIVERED, S("250"), true));
    f->ops->counters(f->spool, &c);
    EXPECT(f->t, !c.stuck);
    for (int i = 0; i < 10000 && f->spool->messages.count > 0; i++)
        (void)rt_sleep(f->rt, within(f->rt, MILLISECOND));
    EXPECT_INT(f->t, f->spool->messages.count, 0);
    EXPECT(f->t, f->spool->hopeless);
    fixture_close(f);
}

struct late {
    struct fixture *f;
    uint64_t number;
    bool begun, ended;
};

static void
settle_late(void *arg)
{
    struct late *l = arg;
    struct recipient_status status = { .index = 0, .state = STATE_FAILED_OWED, .last_reply = S("550") };
    struct spool_settle settle = { .id = fixture_id(l->number), .statuses = &status, .count = 1 };

    l->begun = true;
    FIXTURE_OK(l->f, l->f->ops->settle(l->f->spool, &settle, true, FOREVER));
    l->ended = true;
}

/* Who settles while the message is written anew comes before whoever settles after him: or a failure whose notice is
 * sent would be owed again. */
CASE(settles_are_written_in_the_order_of_the_calls)
{
    struct late late = { .f = f, .number = 1 }; /* of two recipients */
    struct recipient_status status = { .index = 0, .state = STATE_PENDING, .last_reply = S("450") };
    struct spool_settle settle = { .id = fixture_id(1), .statuses = &status, .count = 1 };
    struct fixture_envelope *e = malloc(sizeof *e);
    struct spool_message m;
    struct arena arena;
    struct draft *draft;

    f->settings.fresh_bytes_max = 0;
    fixture_open(f);
    fixture_commit(f, 1);
    for (int i = 0; i < REFS_MAX; i++)
        FIXTURE_OK(f, f->ops->settle(f->spool, &settle, true, FOREVER));
    segment_drop_cache(f->spool, f->spool->current); /* so that writing it anew takes a while */
    fixture_envelope(f, 2, e);
    FIXTURE_OK(f, f->ops->begin_notice(f->spool, fixture_id(2), 0, FOREVER, &draft));
    struct scope scope;
    scope_init(&scope, f->rt);
    scope_start(&scope, "late", settle_late, &late);
    while (!late.begun)
        fiber_yield(f->rt);
    status.state = STATE_FAILED_SENT;
    FIXTURE_OK(f, f->ops->commit(draft, &e->envelope, NULL, &settle, FOREVER));
    while (!late.ended)
        (void)rt_sleep(f->rt, within(f->rt, MILLISECOND));
    scope_end(&scope);
    for (int life = 0; life < 2; life++) {
        arena_init(&arena, rt_mem(f->rt), 4096, 1 << 20);
        FIXTURE_OK(f, f->ops->get(f->spool, fixture_id(1), &arena, FOREVER, &m));
        EXPECT_INT(f->t, m.statuses[0].state, STATE_FAILED_SENT);
        arena_done(&arena);
        fixture_close(f);
        fixture_open(f);
    }
    free(e);
    fixture_close(f);
}

/* A draft's chunks are moved while it is committed: what the ACCEPT says must stay where it is. */
CASE(drafts_are_committed_while_they_move)
{
    enum { ROUNDS = 300 };
    char content[30000];
    struct fixture_envelope *e = malloc(sizeof *e);

    f->settings.segment_bytes = 64 << 10;
    f->settings.fresh_bytes_max = 0;
    f->content_max = sizeof content;
    fixture_open(f);
    for (uint64_t i = 1; i < ROUNDS; i++) {
        uint64_t number = 100000 + i, size = fixture_size(f, number);
        struct draft *d;
        fixture_envelope(f, number, e);
        fixture_fill(number, content, size);
        FIXTURE_OK(f, f->ops->begin(f->spool, fixture_id(number), size, FOREVER, &d));
        FIXTURE_OK(f, f->ops->put(d, str_new(content, size), FOREVER));
        uint64_t chunks_at = d->extent_count > 0 ? d->own_extents[0].segment : 0;
        for (uint64_t k = 0; k < 200 && chunks_at != 0 && d->own_extents[0].segment == chunks_at; k++) {
            fixture_commit(f, 1000 * i + k);
            FIXTURE_OK(f, fixture_settle(f, 1000 * i + k, STATE_DELIVERED, S("250"), true));
            if (k > 60 - i % 60) /* at some moment of its cleaning */
                break;
        }
        FIXTURE_OK(f, f->ops->commit(d, &e->envelope, NULL, NULL, FOREVER));
        until_kept(f);
        EXPECT(f->t, fixture_is_whole(f, number));
        FIXTURE_OK(f, fixture_settle(f, number, STATE_DELIVERED, S("250"), true));
    }
    free(e);
    fixture_close(f);
}

/* Cleaning finds a head that is damaged: its recipients have failed, for good. */
CASE(a_damaged_head_ends_its_message)
{
    struct spool_counters c;

    f->settings.segment_bytes = 64 << 10;
    f->settings.fresh_bytes_max = 0;
    fixture_open(f);
    fixture_commit(f, 5);
    flip_bit(f, message(f, 5)->base.segment->number, message(f, 5)->base.offset + 70);
    segment_drop_cache(f->spool, message(f, 5)->base.segment);
    for (uint64_t i = 10; i < 200; i++) {
        fixture_commit(f, i);
        FIXTURE_OK(f, fixture_settle(f, i, STATE_DELIVERED, S("250"), false));
    }
    until_kept(f);
    EXPECT(f->t, f->damages > 0);
    EXPECT(f->t, message_find(f->spool, fixture_id(5)) == NULL);
    for (int life = 0; life < 2; life++) {
        fixture_commit(f, 500 + (uint64_t)life); /* takes the lazy ones along */
        f->ops->counters(f->spool, &c);
        EXPECT_INT(f->t, c.failed, fixture_recipient_count(5));
        EXPECT_INT(f->t, c.accepted, c.failed + c.delivered + c.pending);
        fixture_close(f);
        fixture_open(f);
        EXPECT(f->t, !fixture_was_found(f, 5));
    }
    fixture_close(f);
}

/* The bytes of what is ended by us are needed until its DONE is on disk: or an older base, elsewhere, would live again. */
CASE(nothing_is_forgotten_before_its_end_is_synced)
{
    f->settings.fresh_bytes_max = 0;
    fixture_open(f);
    fixture_commit(f, 5);
    struct segment *seg = message(f, 5)->base.segment;
    flip_bit(f, seg->number, message(f, 5)->base.offset + 70);
    segment_drop_cache(f->spool, seg);
    long before = atomic_load(&syncs_done);
    FIXTURE_OK(f, message_restate(f->spool, fixture_id(5), seg, FOREVER));
    EXPECT(f->t, message_find(f->spool, fixture_id(5)) == NULL);
    EXPECT(f->t, atomic_load(&syncs_done) > before);
    EXPECT_INT(f->t, seg->live_bytes, 0);
    fixture_close(f);
    fixture_open(f);
    EXPECT(f->t, !fixture_was_found(f, 5) && f->spool->messages.count == 0);
    fixture_close(f);
}

/* What waits for a dead destination is not kept in memory for a first attempt that does not come. */
CASE(fresh_content_is_not_kept_for_long)
{
    fixture_open(f);
    fixture_commit(f, 1);
    struct fresh *fresh = message(f, 1)->own_fresh;
    EXPECT(f->t, fresh != NULL && fresh->data_cap == fixture_size(f, 1));
    fresh->until = rt_now(f->rt) - 1;
    fixture_commit(f, 2);
    EXPECT(f->t, message(f, 1)->own_fresh == NULL);
    EXPECT(f->t, message(f, 2)->own_fresh != NULL);
    EXPECT(f->t, fixture_is_whole(f, 1) && fixture_is_whole(f, 2));

    fixture_close(f);
}

/*
 * When no more comes, the keeper looks, within a minute. In a time that leaps: the disk's threads take none of it, so what
 * they do is waited for by the clock on the wall.
 */
static void
fresh_content_goes_when_no_more_comes_body(struct fixture *f)
{
    fixture_open(f);
    until_kept(f);
    fixture_commit(f, 1);
    EXPECT(f->t, message(f, 1)->own_fresh != NULL && f->spool->fresh_bytes > 0);
    for (int64_t end = rt_wall(f->rt) + 20 * SECOND; f->spool->fresh_bytes > 0 && rt_wall(f->rt) < end;)
        (void)rt_sleep(f->rt, within(f->rt, SECOND));
    EXPECT(f->t, message(f, 1)->own_fresh == NULL && f->spool->fresh_bytes == 0);
    until_kept(f);
    EXPECT(f->t, !f->spool->keeper_looks && fixture_is_whole(f, 1));
    fixture_close(f);
}

static void
fresh_content_goes_when_no_more_comes(struct test *t)
{
    fixture_run_by(rt_run_leaping, t, &spool_log_ops, fresh_content_goes_when_no_more_comes_body);
}

static long changes_until; /* so many reads are done */

/* As settles and cleaning do it, until it is cancelled. */
static void
change_while_it_is_read(void *arg)
{
    struct fixture *f = arg;

    while (!err_is(rt_sleep(f->rt, rt_now(f->rt)))) {
        struct message *m = message(f, 49);
        segment_drop_cache(f->spool, m->base.segment);
        m->version += atomic_load(&reads_done) < changes_until;
    }
}

/* However often it changes meanwhile: each try takes the memory of the one before. */
CASE(reading_again_takes_no_more_memory)
{
    struct arena arena;
    struct spool_message m;
    struct scope scope;

    f->settings.fresh_bytes_max = 0;
    fixture_open(f);
    fixture_commit(f, 49); /* many recipients */
    arena_init(&arena, rt_mem(f->rt), 512, 1 << 20);
    FIXTURE_OK(f, f->ops->get(f->spool, fixture_id(49), &arena, FOREVER, &m));
    size_t once = arena.used;
    arena_done(&arena);
    arena_init(&arena, rt_mem(f->rt), 512, 2 * once);
    scope_init(&scope, f->rt);
    changes_until = atomic_load(&reads_done) + 20;
    scope_start(&scope, "change", change_while_it_is_read, f);
    while (atomic_load(&reads_done) < changes_until) {
        (void)rt_sleep(f->rt, rt_now(f->rt)); /* until what is in the cache has gone */
        arena_release(&arena);
        FIXTURE_OK(f, f->ops->get(f->spool, fixture_id(49), &arena, FOREVER, &m));
        EXPECT_INT(f->t, arena.used, once);
        EXPECT_INT(f->t, m.envelope.recipient_count, fixture_recipient_count(49));
    }
    scope_end(&scope);
    arena_done(&arena);
    fixture_close(f);
}

struct lines {
    size_t count, records, messages, problems, recipients;
    bool json;
};

static void
take_line(void *arg, struct str line)
{
    struct lines *l = arg;

    CHECK(!l->json || (str_starts(line, S("{\"")) && str_ends(line, S(",\"version\":1}"))));
    l->count++;
    l->records += str_starts(line, l->json ? S("{\"record\":") : S("record "));
    l->messages += str_starts(line, l->json ? S("{\"message\":") : S("message "));
    l->recipients += str_starts(line, l->json ? S("{\"recipient\":") : S("recipient "));
    l->problems += str_starts(line, l->json ? S("{\"problem\":") : S("problem "));
}

CASE(verify_says_what_is_there)
{
    f->settings.segment_bytes = 64 << 10;
    fixture_open(f);
    for (uint64_t i = 0; i < FEW; i++)
        fixture_commit(f, i);
    FIXTURE_OK(f, fixture_settle(f, 3, STATE_DELIVERED, S("250"), false));
    FIXTURE_OK(f, fixture_settle(f, 4, STATE_PENDING, S("450 \"no\""), false));
    struct place victim = message(f, 5)->base;
    uint32_t number = victim.segment->number;
    fixture_close(f);
    for (int round = 0; round < 4; round++) { /* sound and damaged, text and JSON */
        struct lines lines = { .json = round % 2 };
        struct spool_verify how = { .dump = true, .json = round % 2, .line = take_line, .arg = &lines };
        struct spool_verified found;
        if (round == 2)
            flip_bit(f, number, victim.offset + 70);
        FIXTURE_OK(f, dir_open(f->rt, str_from_cstr(f->path), LANE_BACKGROUND, FOREVER, &f->dir));
        FIXTURE_OK(f, spool_verify(f->rt, f->dir, &how, FOREVER, &found));
        dir_close(f->dir);
        EXPECT_INT(f->t, found.problems > 0, round >= 2);
        EXPECT_INT(f->t, found.messages, FEW - 1 - (round >= 2));
        EXPECT_INT(f->t, lines.messages, found.messages);
        EXPECT_INT(f->t, lines.problems, found.problems);
        EXPECT_INT(f->t, lines.records, found.records);
        EXPECT_INT(f->t, lines.recipients, found.recipients);
        EXPECT(f->t, found.records > 2 * FEW);
    }
}

/* ---- a long life ------------------------------------------------------------------------------------------------- */

CASE(space_is_bounded)
{
    enum { ROUNDS = 3000, LIVE = 40 };
    uint64_t most = 0;

    f->settings.segment_bytes = 64 << 10;
    fixture_open(f);
    for (uint64_t i = 0; i < ROUNDS; i++) {
        fixture_commit(f, i);
        if (i % 4 == 0)
            FIXTURE_OK(f, fixture_settle(f, i, STATE_PENDING, S("450"), true));
        if (i >= LIVE && i % 75 != LIVE % 75) /* some stay for ever */
            FIXTURE_OK(f, fixture_settle(f, i - LIVE, STATE_DELIVERED, S("250"), true));
        else if (i >= LIVE)
            FIXTURE_OK(f, fixture_settle(f, i - LIVE, STATE_PENDING, S("450"), true));
        uint64_t used = f->spool->segment_count * f->settings.segment_bytes;
        if (i % 100 == 99) {
            until_kept(f);
            used = f->spool->segment_count * f->settings.segment_bytes;
            EXPECT(f->t, used <= 2 * f->spool->live_bytes + 4 * f->settings.segment_bytes);
        }
        most = used > most ? used : most;
    }
    until_proved(f); /* lazy settles too */
    size_t live = 0;
    for (uint64_t i = 0; i < ROUNDS; i++)
        if (message_find(f->spool, fixture_id(i))) {
            live++;
            EXPECT(f->t, fixture_is_whole(f, i));
        }
    EXPECT_INT(f->t, live, LIVE + (ROUNDS - LIVE - 1) / 75 + 1);
    uint64_t live_bytes = f->spool->live_bytes;
    struct fixture *copy = malloc(sizeof *copy);
    copy_begin(copy, f);
    fixture_close(f);
    for (int killed = 0; killed < 2; killed++) { /* remains of former lives mean nothing */
        struct fixture *g = killed ? copy : f;
        fixture_open(g);
        EXPECT_INT(f->t, g->damages, 0);
        EXPECT_INT(f->t, g->found_count, live);
        EXPECT_INT(f->t, count_whole(g, 0, ROUNDS), live);
        EXPECT(f->t, g->spool->live_bytes <= live_bytes); /* cleaning may run already */
        fixture_close(g);
    }
    fixture_done_with(copy);
    free(copy);
}

CASE(large_messages_and_drafts_move)
{
    struct draft *slow;
    char content[50000], back[50000];
    size_t got = 0, part;

    f->settings.segment_bytes = 128 << 10; /* so that a few messages, each in blocks of its own, leave room to win */
    f->content_max = 60000;
    fixture_open(f);
    fixture_fill(1234567, content, sizeof content);
    FIXTURE_OK(f, f->ops->begin(f->spool, fixture_id(9999), sizeof content, FOREVER, &slow));
    FIXTURE_OK(f, f->ops->put(slow, str_new(content, sizeof content), FOREVER));
    for (uint64_t i = 1; i < 200; i++) {
        fixture_commit(f, i);
        if (i % 20 != 0)
            FIXTURE_OK(f, fixture_settle(f, i, STATE_DELIVERED, S("250"), false));
    }
    until_kept(f);
    EXPECT(f->t, f->spool->segment_count * f->settings.segment_bytes <= 2 * f->spool->live_bytes + 4 * f->settings.segment_bytes);
    do {
        FIXTURE_OK(f, f->ops->draft_read(slow, got, back + got, sizeof back - got, FOREVER, &part));
        got += part;
    } while (part > 0);
    EXPECT_INT(f->t, got, sizeof content);
    EXPECT(f->t, memcmp(content, back, sizeof content) == 0);
    f->ops->abort(slow);
    for (int life = 0; life < 2; life++) {
        for (uint64_t i = 20; i < 200; i += 20)
            EXPECT(f->t, fixture_is_whole(f, i));
        fixture_close(f);
        fixture_open(f);
        EXPECT_INT(f->t, f->found_count, 9);
    }
    fixture_close(f);
}

CASE(damaged_content_stays_damaged_when_moved)
{
    char memory[3000];
    size_t got;

    f->settings.segment_bytes = 64 << 10;
    f->settings.fresh_bytes_max = 0;
    fixture_open(f);
    fixture_commit(f, 5);
    struct message *m = message(f, 5);
    flip_bit(f, m->base.segment->number, m->base.offset + m->head_size + 3);
    for (uint64_t i = 10; i < 200; i++) {
        fixture_commit(f, i);
        FIXTURE_OK(f, fixture_settle(f, i, STATE_DELIVERED, S("250"), false));
    }
    until_kept(f);
    EXPECT(f->t, f->damages > 0);
    EXPECT_INT(f->t, f->ops->read(f->spool, fixture_id(5), 0, memory, sizeof memory, FOREVER, &got).kind, ERR_CORRUPT);
    fixture_close(f);
    fixture_open(f);
    EXPECT(f->t, fixture_was_found(f, 5)); /* its envelope is whole: somebody can be told */
    EXPECT_INT(f->t, f->ops->read(f->spool, fixture_id(5), 0, memory, sizeof memory, FOREVER, &got).kind, ERR_CORRUPT);
    EXPECT(f->t, quarantined_files(f) > 0);
    fixture_close(f);
}

static void
restate_it(void *arg)
{
    struct fixture *f = arg;

    FIXTURE_OK(f, message_restate(f->spool, fixture_id(1), message(f, 1)->base.segment, FOREVER));
}

/* A message has several records in a segment, and several fibers clean it. */
CASE(who_writes_a_message_anew_does_it_for_all_who_want_it)
{
    struct scope scope;

    fixture_open(f);
    fixture_commit(f, 1);
    uint32_t entries = f->spool->current->index_count;
    scope_init(&scope, f->rt);
    for (int i = 0; i < 16; i++)
        scope_start(&scope, "restate", restate_it, f);
    FIXTURE_OK(f, scope_wait(&scope, FOREVER));
    scope_end(&scope);
    EXPECT_INT(f->t, f->spool->current->index_count, entries + 1);
    EXPECT(f->t, fixture_is_whole(f, 1));
    fixture_close(f);
}

/* One recipient after the other: the remote's words are as long as we keep them. */
static void
defer_each(struct fixture *f, uint64_t number, size_t recipients)
{
    char reply[LIMIT_REPLY_TEXT];

    memset(reply, 'x', sizeof reply);
    for (size_t i = 0; i < recipients; i++) {
        snprintf(reply, 12, "450 no. %3zu", i);
        reply[11] = ' ';
        struct recipient_status one = { .index = (uint32_t)i, .state = STATE_PENDING, .attempts = 1,
                                        .last_reply = str_new(reply, sizeof reply), .last_remote = S("mx.example [192.0.2.1]:25") };
        struct spool_settle settle = { .id = fixture_id(number), .statuses = &one, .count = 1 };
        FIXTURE_OK(f, f->ops->settle(f->spool, &settle, false, FOREVER));
    }
}

static void
expect_all_deferred(struct fixture *f, uint64_t number, size_t recipients, size_t reply_min)
{
    struct spool_message m;
    struct arena arena;
    char reply[12];

    arena_init(&arena, rt_mem(f->rt), 64 << 10, 16 << 20);
    FIXTURE_OK(f, f->ops->get(f->spool, fixture_id(number), &arena, FOREVER, &m));
    EXPECT_INT(f->t, m.envelope.recipient_count, recipients);
    for (size_t i = 0; i < recipients; i++) {
        struct str found = m.statuses[i].last_reply;
        snprintf(reply, sizeof reply, "450 no. %3zu", i);
        EXPECT_INT(f->t, m.statuses[i].attempts, 1);
        EXPECT(f->t, found.len >= reply_min);
        EXPECT_STR(f->t, str_slice(found, 0, sizeof reply - 1), str_slice(str_from_cstr(reply), 0, found.len));
    }
    arena_done(&arena);
}

/* The words of 150 remotes are more than half a segment: what is written anew has a share of each. */
CASE(long_replies_of_many_are_cut_so_that_all_fit)
{
    fixture_open(f);
    fixture_commit(f, 49);
    defer_each(f, 49, 150);
    FIXTURE_OK(f, message_restate(f->spool, fixture_id(49), message(f, 49)->base.segment, FOREVER));
    expect_all_deferred(f, 49, 150, 512);
    EXPECT(f->t, fixture_is_whole(f, 49));
    fixture_close(f);
    fixture_open(f);
    expect_all_deferred(f, 49, 150, 512);
    fixture_close(f);
}

static struct err
commit_to_many(struct fixture *f, uint64_t number, size_t recipients, size_t address_len)
{
    struct recipient to[FIXTURE_RECIPIENTS_MAX];
    struct fixture_envelope *e = malloc(sizeof *e);
    struct draft *draft;
    char address[LIMIT_PATH];

    CHECK(recipients <= FIXTURE_RECIPIENTS_MAX && address_len <= sizeof address);
    memset(address, 'a', sizeof address);
    fixture_envelope(f, number, e);
    for (size_t i = 0; i < recipients; i++)
        to[i] = (struct recipient){ .address = str_new(address, address_len) };
    e->envelope.recipients = to;
    e->envelope.recipient_count = recipients;
    e->envelope.size = 0;
    FIXTURE_OK(f, f->ops->begin(f->spool, fixture_id(number), 0, FOREVER, &draft));
    struct err err = f->ops->commit(draft, &e->envelope, NULL, NULL, FOREVER);
    free(e);
    return err;
}

/* Of each number of bytes in an address: either it is refused at once, or it can be written anew whatever remotes say. */
CASE(what_is_accepted_leaves_room_for_what_becomes_of_it)
{
    enum { RECIPIENTS = 150 };
    uint64_t number = 49;
    int refused = 0, taken = 0;

    f->settings.segment_bytes = 64 << 10;
    fixture_open(f);
    for (size_t len = 100; len < 250; len += 3, number += 50) {
        struct err e = commit_to_many(f, number, RECIPIENTS, len);
        if (e.kind == ERR_LIMIT) {
            refused++;
            continue;
        }
        FIXTURE_OK(f, e);
        taken++;
        defer_each(f, number, RECIPIENTS);
        FIXTURE_OK(f, message_restate(f->spool, fixture_id(number), message(f, number)->base.segment, FOREVER));
        expect_all_deferred(f, number, RECIPIENTS, 0);
        FIXTURE_OK(f, fixture_settle(f, number, STATE_DELIVERED, S("250"), false));
    }
    EXPECT(f->t, taken > 5 && refused > 5);
    fixture_close(f);
}

/* A disk that cannot read one message when the log is opened: where the content of the others lies is not known then. */
CASE(what_recovery_could_not_show_is_not_cleaned_away)
{
    enum { COUNT = 48 };

    f->settings.segment_bytes = 64 << 10;
    f->settings.fresh_bytes_max = 0;
    f->content_max = 30000;
    fixture_open(f);
    for (uint64_t i = 0; i < COUNT; i++)
        fixture_commit(f, i);
    f->spool->ordered = false; /* so that nothing is cleaned now */
    for (uint64_t i = 0; i < COUNT; i++)
        if (i % 4 != 1)
            FIXTURE_OK(f, fixture_settle(f, i, STATE_DELIVERED, S("250"), false));
    make_unreadable(f, COUNT - 3);
    fixture_close(f);
    EXPECT_INT(f->t, fixture_try_open(f).kind, ERR_IO);
    until_kept(f);
    fixture_close(f);
    make_readable();
    fixture_open(f);
    for (uint64_t i = 1; i < COUNT; i += 4)
        EXPECT(f->t, fixture_is_whole(f, i));
    fixture_close(f);
}

/* A segment that cannot be cleaned, as a block of it cannot be read, does not keep the others. */
CASE(others_are_cleaned_when_one_cannot_be)
{
    enum { COUNT = 60 };

    f->settings.segment_bytes = 64 << 10;
    f->settings.fresh_bytes_max = 0;
    fixture_open(f);
    for (uint64_t i = 0; i < 10 * COUNT; i++)
        fixture_commit(f, i);
    uint32_t all = f->spool->segment_count;
    make_unreadable(f, 1);
    for (uint64_t i = 2; i < 10 * COUNT; i++)
        FIXTURE_OK(f, fixture_settle(f, i, STATE_DELIVERED, S("250"), i < 10 * COUNT - 1));
    until_kept(f);
    EXPECT(f->t, all > 10 && f->spool->segment_count < all / 2);
    make_readable();
    EXPECT(f->t, fixture_is_whole(f, 1));
    fixture_close(f);
}

/* Nobody begins a message, as all were told that there is no space; then somebody frees the disk. */
CASE(space_that_comes_back_is_seen)
{
    struct spool_counters c;

    f->settings.space_max = 3 * f->settings.segment_bytes;
    fixture_open(f);
    fixture_commit(f, 1);
    until_kept(f);
    f->spool->settings.space_max = f->spool->fs_free = 0; /* now it is the disk that is full, when it was looked at last */
    f->ops->counters(f->spool, &c);
    EXPECT(f->t, c.free_bytes < f->settings.segment_bytes);
    for (int64_t end = rt_wall(f->rt) + 20 * SECOND; c.free_bytes < f->settings.segment_bytes && rt_wall(f->rt) < end;) {
        (void)rt_sleep(f->rt, within(f->rt, MILLISECOND));
        f->ops->counters(f->spool, &c);
    }
    EXPECT(f->t, c.free_bytes >= f->settings.segment_bytes);
    fixture_close(f);
}

CASE(an_idle_log_proves_its_last_batch)
{
    fixture_open(f);
    fixture_commit(f, 1);
    EXPECT(f->t, f->spool->synced_lsn != f->spool->proof_lsn);
    uint64_t batches = f->spool->counters.batches;
    until_proved(f);
    (void)rt_sleep(f->rt, within(f->rt, 2 * IDLE_NS));
    EXPECT_INT(f->t, f->spool->counters.batches, batches + 1); /* once */
    fixture_close(f);
}

static void
settle_until_cancelled(void *arg)
{
    struct fixture *f = arg;

    while (!err_is(fixture_settle(f, 1, STATE_PENDING, S("450"), false)) && !err_is(rt_sleep(f->rt, rt_now(f->rt))))
        ;
}

/* Though cleaning still writes when the log is told to end. */
CASE(a_log_that_ends_proves_its_last_batch)
{
    fixture_open(f);
    fixture_commit(f, 1);
    scope_start(&f->spool->helpers, "settle", settle_until_cancelled, f);
    while (list_is_empty(&f->spool->queue))
        fiber_yield(f->rt);
    f->spool->stopping = true; /* as log_close() does it */
    event_wake(f->rt, &f->spool->work);
    for (uint64_t batches = f->spool->counters.batches; f->spool->counters.batches < batches + 4 && !f->spool->commit_ended;)
        event_wait_firmly(f->rt, &f->spool->written);
    scope_end(&f->spool->helpers);
    f->spool->ending = true;
    event_wake(f->rt, &f->spool->work);
    while (!f->spool->commit_ended)
        event_wait_firmly(f->rt, &f->spool->written);
    EXPECT_INT(f->t, f->spool->proof_lsn, f->spool->synced_lsn);
    fixture_close(f);
}

/* Power failed before the sync that covers pieces and ACCEPT: the pieces did not arrive, and nobody was told of the message. */
CASE(a_message_that_lacks_a_piece_was_never_accepted)
{
    struct fixture *copy = malloc(sizeof *copy);
    struct spool_counters c;
    struct draft *d;
    struct fixture_envelope *e = malloc(sizeof *e);
    char content[20000] = "x";

    f->settings.segment_bytes = 64 << 10;
    fixture_open(f);
    fixture_envelope(f, 1, e);
    e->envelope.size = sizeof content;
    FIXTURE_OK(f, f->ops->begin(f->spool, fixture_id(1), sizeof content, FOREVER, &d));
    FIXTURE_OK(f, f->ops->put(d, str_new(content, sizeof content), FOREVER));
    FIXTURE_OK(f, f->ops->commit(d, &e->envelope, NULL, NULL, FOREVER));
    EXPECT(f->t, f->spool->synced_lsn != f->spool->proof_lsn);
    copy_begin(copy, f);
    flip_bit(copy, f->spool->current->number, BLOCK + 1000);
    fixture_open(copy);
    EXPECT(f->t, copy->damages > 0);
    EXPECT_INT(f->t, copy->found_count, 0);
    copy->ops->counters(copy->spool, &c);
    EXPECT_INT(f->t, c.accepted, 0);
    fixture_close(copy);
    until_proved(f);
    copy_again(copy, f);
    flip_bit(copy, f->spool->current->number, BLOCK + 1000);
    fixture_open(copy);
    EXPECT(f->t, fixture_was_found(copy, 1)); /* now it is damage, and somebody can be told */
    copy->ops->counters(copy->spool, &c);
    EXPECT_INT(f->t, c.accepted, fixture_recipient_count(1));
    fixture_close(copy);
    fixture_close(f);
    fixture_done_with(copy);
    free(copy);
    free(e);
}

static void
commit_two(void *arg)
{
    fixture_commit(arg, 2);
}

/* The keeper asks for one at any time: what waits to be written then is counted, too. */
CASE(a_checkpoint_forgets_nothing)
{
    struct fixture *copy = malloc(sizeof *copy);
    struct spool_counters c;
    struct scope scope;

    fixture_open(f);
    fixture_commit(f, 1);
    scope_init(&scope, f->rt);
    scope_start(&scope, "commit", commit_two, f);
    while (list_is_empty(&f->spool->queue))
        fiber_yield(f->rt);
    checkpoint_queue(f->spool);
    FIXTURE_OK(f, scope_wait(&scope, FOREVER));
    scope_end(&scope);
    copy_begin(copy, f);
    fixture_open(copy);
    copy->ops->counters(copy->spool, &c);
    EXPECT_INT(f->t, c.accepted, fixture_recipient_count(1) + fixture_recipient_count(2));
    EXPECT_INT(f->t, c.pending, c.accepted);
    fixture_close(copy);
    fixture_close(f);
    fixture_done_with(copy);
    free(copy);
}

/* A crash came before the first batch of a segment, and with that its CHECKPOINT: the older ones, whose last headers alone know
 * the counters, must not go before they stand there. */
CASE(a_segment_that_was_just_begun_takes_the_counters)
{
    struct fixture *begun = malloc(sizeof *begun), *after = malloc(sizeof *after);
    struct spool_counters before, c;
    uint64_t number = 0;
    char path[300];

    f->settings.segment_bytes = 64 << 10;
    fixture_open(f);
    for (; f->spool->segment_count < 2; number++) {
        fixture_commit(f, number);
        FIXTURE_OK(f, fixture_settle(f, number, STATE_DELIVERED, S("250"), false));
    }
    copy_begin(begun, f);
    for (uint64_t at = BLOCK; at < f->settings.segment_bytes - BLOCK; at += BLOCK)
        zero_block(begun, f->spool->current->number, at);
    fixture_open(begun);
    begun->ops->counters(begun->spool, &before);
    EXPECT(f->t, before.accepted > 0);
    EXPECT_INT(f->t, begun->spool->current->number, f->spool->current->number);
    fixture_commit(begun, number);
    copy_begin(after, begun);
    segment_path(after, f->spool->own_segments[0]->number, path);
    CHECK(unlink(path) == 0);
    fixture_open(after);
    after->ops->counters(after->spool, &c);
    EXPECT_INT(f->t, c.accepted, before.accepted + fixture_recipient_count(number));
    EXPECT_INT(f->t, c.delivered, before.delivered);
    fixture_close(after);
    fixture_close(begun);
    fixture_close(f);
    fixture_done_with(after);
    fixture_done_with(begun);
    free(after);
    free(begun);
}

/* A crash cut the last batch, so the segment is not used on; nothing in it lives, and it is free soon. */
CASE(a_segment_that_a_crash_cut_leaves_its_counters)
{
    struct fixture *cut = malloc(sizeof *cut), *after = malloc(sizeof *after);
    struct spool_counters before, c;

    fixture_open(f);
    fixture_commit(f, 1);
    FIXTURE_OK(f, fixture_settle(f, 1, STATE_DELIVERED, S("250"), false));
    until_kept(f);
    fixture_commit(f, 2);
    copy_begin(cut, f);
    flip_bit(cut, f->spool->current->number, message_find(f->spool, fixture_id(2))->base.offset + RECORD_HEADER);
    fixture_open(cut);
    cut->ops->counters(cut->spool, &before);
    EXPECT_INT(f->t, before.delivered, fixture_recipient_count(1));
    until_kept(cut);
    EXPECT_INT(f->t, cut->spool->messages.count, 0);
    copy_begin(after, cut);
    fixture_open(after);
    after->ops->counters(after->spool, &c);
    EXPECT_INT(f->t, c.accepted, before.accepted);
    EXPECT_INT(f->t, c.delivered, before.delivered);
    fixture_close(after);
    fixture_close(cut);
    fixture_close(f);
    fixture_done_with(after);
    fixture_done_with(cut);
    free(after);
    free(cut);
}

/* Where a process dies before it has cleaned, again and again, each takes a block, and not a segment. */
CASE(starts_beside_a_cut_segment_share_the_next)
{
    struct fixture *cut = malloc(sizeof *cut);

    fixture_open(f);
    fixture_commit(f, 1);
    fixture_commit(f, 2);
    copy_begin(cut, f);
    flip_bit(cut, f->spool->current->number, message_find(f->spool, fixture_id(2))->base.offset + RECORD_HEADER);
    for (int life = 0; life < 4; life++) {
        FIXTURE_OK(f, dir_open(f->rt, str_from_cstr(cut->path), LANE_BACKGROUND, FOREVER, &cut->dir));
        FIXTURE_OK(f, f->ops->open(f->rt, cut->dir, &cut->settings, &cut->spool, FOREVER));
        EXPECT_INT(f->t, cut->spool->segment_count, 2);
        f->ops->close(cut->spool, FOREVER);
        dir_close(cut->dir);
    }
    fixture_open(cut);
    EXPECT(f->t, fixture_is_whole(cut, 1));
    fixture_close(cut);
    fixture_close(f);
    fixture_done_with(cut);
    free(cut);
}

TEST_MAIN({ "cut anywhere", cut_anywhere }, { "recovery writes nothing", recovery_writes_nothing },
          { "killed under load", killed_under_load }, { "flip each byte of a record", flip_each_byte_of_a_record },
          { "flip each byte of a sealed record", flip_each_byte_of_a_sealed_record },
          { "content of just the limit", content_of_just_the_limit },
          { "flip each byte of a record of each type", flip_each_byte_of_a_record_of_each_type }, { "zero each block", zero_each_block },
          { "a write error breaks it", a_write_error_breaks_it },
          { "nothing is answered before its sync", nothing_is_answered_before_its_sync },
          { "each sync fails in turn", each_sync_fails_in_turn }, { "each write fails in turn", each_write_fails_in_turn },
          { "what was found is synced before it is believed", what_was_found_is_synced_before_it_is_believed },
          { "a segment that a crash cut leaves its counters", a_segment_that_a_crash_cut_leaves_its_counters },
          { "starts beside a cut segment share the next", starts_beside_a_cut_segment_share_the_next },
          { "a segment is synced before it says so", a_segment_is_synced_before_it_says_so },
          { "small batches write ahead", small_batches_write_ahead },
          { "nothing is written ahead in recycled segments", nothing_is_written_ahead_in_recycled_segments },
          { "chunks leave the reserve", chunks_leave_the_reserve },
          { "lazy settles outlast a full disk", lazy_settles_outlast_a_full_disk },
          { "what fits is written when more would not", what_fits_is_written_when_more_would_not },
          { "nothing is forgotten before its end is synced", nothing_is_forgotten_before_its_end_is_synced },
          { "settles are written in the order of the calls", settles_are_written_in_the_order_of_the_calls },
          { "drafts are committed while they move", drafts_are_committed_while_they_move },
          { "a damaged head ends its message", a_damaged_head_ends_its_message },
          { "fresh content is not kept for long", fresh_content_is_not_kept_for_long },
          { "fresh content goes when no more comes", fresh_content_goes_when_no_more_comes },
          { "reading again takes no more memory", reading_again_takes_no_more_memory },
          { "verify says what is there", verify_says_what_is_there }, { "space is bounded", space_is_bounded },
          { "large messages and drafts move", large_messages_and_drafts_move },
          { "damaged content stays damaged when moved", damaged_content_stays_damaged_when_moved },
          { "what recovery could not show is not cleaned away", what_recovery_could_not_show_is_not_cleaned_away },
          { "others are cleaned when one cannot be", others_are_cleaned_when_one_cannot_be },
          { "space that comes back is seen", space_that_comes_back_is_seen },
          { "long replies of many are cut so that all fit", long_replies_of_many_are_cut_so_that_all_fit },
          { "what is accepted leaves room for what becomes of it", what_is_accepted_leaves_room_for_what_becomes_of_it },
          { "who writes a message anew does it for all who want it", who_writes_a_message_anew_does_it_for_all_who_want_it },
          { "an idle log proves its last batch", an_idle_log_proves_its_last_batch },
          { "a log that ends proves its last batch", a_log_that_ends_proves_its_last_batch },
          { "a message that lacks a piece was never accepted", a_message_that_lacks_a_piece_was_never_accepted },
          { "a checkpoint forgets nothing", a_checkpoint_forgets_nothing },
          { "a segment that was just begun takes the counters", a_segment_that_was_just_begun_takes_the_counters })
