/*
 * spool_fixture - for tests only: a spool in a directory of its own, messages whose envelope and content follow from a
 * number, so that what comes back can be checked without remembering it, and a recovery that collects what it found.
 */
#ifndef SPOOL_SPOOL_FIXTURE_H
#define SPOOL_SPOOL_FIXTURE_H

#include "base/check.h"
#include "base/prng.h"
#include "base/test.h"
#include "spool/spool.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FIXTURE_FOUND = 4096 };

struct fixture {
    struct test *t;
    struct rt *rt;
    const struct spool_ops *ops;
    struct spool_settings settings;
    char path[200];
    struct dir *dir;
    struct spool *spool;

    struct message_id found[FIXTURE_FOUND];
    size_t found_count;
    bool recovered;
    struct err recovery;
    struct event recovered_event;
    size_t damages, remarks;  /* reports */
    size_t content_max;       /* of messages that fixture_commit() makes; 0: 3000 */
};

static inline void
fixture_remove_tree(const char *path)
{
    DIR *dir = opendir(path);
    struct dirent *entry;
    char below[400];

    while (dir && (entry = readdir(dir)) != NULL) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        snprintf(below, sizeof below, "%s/%s", path, entry->d_name);
        if (entry->d_type == DT_DIR)
            fixture_remove_tree(below);
        else
            CHECK(unlink(below) == 0);
    }
    if (dir)
        closedir(dir);
    (void)rmdir(path);
}

static inline void
fixture_report(void *arg, const struct spool_report *r)
{
    struct fixture *f = arg;

    f->damages += r->damage;
    f->remarks += !r->damage;
    if (getenv("SPOOL_TEST_REPORTS"))
        printf("# %.*s at %llu, %llu bytes: %.*s\n", STR_ARG(r->file), (unsigned long long)r->offset,
               (unsigned long long)r->len, STR_ARG(r->what));
}

/* Memory is fastest, and a kill is all that these tests play. */
static inline void
fixture_temporary(char *path, size_t size)
{
    const char *base = getenv("TMPDIR");

    if (!base)
        base = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    snprintf(path, size, "%s/postrider-spool-XXXXXX", base);
    CHECK(mkdtemp(path));
}

static inline void
fixture_init(struct fixture *f, struct test *t, struct rt *rt, const struct spool_ops *ops)
{
    *f = (struct fixture){ .t = t, .rt = rt, .ops = ops };
    fixture_temporary(f->path, sizeof f->path);
    f->settings = (struct spool_settings){ .segment_bytes = 256 << 10, .fresh_bytes_max = 1 << 20,
                                           .report = fixture_report, .report_arg = f };
    event_init(&f->recovered_event);
}

static inline void
fixture_found(void *arg, const struct spool_message *m)
{
    struct fixture *f = arg;

    CHECK(f->found_count < FIXTURE_FOUND);
    f->found[f->found_count++] = m->id;
}

static inline void
fixture_done(void *arg, struct err e)
{
    struct fixture *f = arg;

    f->recovered = true;
    f->recovery = e;
    event_wake(f->rt, &f->recovered_event);
}

/* Opens, and waits for the end of recovery. */
static inline struct err
fixture_try_open(struct fixture *f)
{
    f->found_count = f->damages = f->remarks = 0;
    f->recovered = false;
    TRY(dir_open(f->rt, str_from_cstr(f->path), LANE_BACKGROUND, FOREVER, &f->dir));
    struct err e = f->ops->open(f->rt, f->dir, &f->settings, &f->spool, FOREVER);
    if (err_is(e)) {
        dir_close(f->dir);
        return e;
    }
    TRY(f->ops->recover(f->spool, fixture_found, fixture_done, f, FOREVER));
    while (!f->recovered)
        TRY(event_wait(f->rt, &f->recovered_event, FOREVER));
    return f->recovery;
}

static inline void
fixture_expect_ok(struct fixture *f, struct err e, const char *what, int line)
{
    char memory[200];
    struct text text = text_init(memory, sizeof memory);

    if (test_expect(f->t, !err_is(e), what, __FILE__, line))
        return;
    err_text(e, &text);
    printf("#   %.*s\n", STR_ARG(text_str(&text)));
}
#define FIXTURE_OK(f, expression) fixture_expect_ok((f), (expression), #expression, __LINE__)

static inline void
fixture_open(struct fixture *f)
{
    FIXTURE_OK(f, fixture_try_open(f));
    CHECK(!err_is(f->recovery));
}

static inline void
fixture_close(struct fixture *f)
{
    f->ops->close(f->spool, FOREVER);
    dir_close(f->dir);
}

static inline void
fixture_done_with(struct fixture *f)
{
    fixture_remove_tree(f->path);
}

/* ---- messages from numbers ---- */

static inline struct message_id
fixture_id(uint64_t number)
{
    return (struct message_id){ 0x1122334455667788 ^ number, number * 0x9e3779b97f4a7c15 };
}

static inline size_t
fixture_size(const struct fixture *f, uint64_t number)
{
    struct prng prng;

    prng_seed(&prng, number + 1);
    return number % 7 == 0 ? 0 : (size_t)prng_below(&prng, f->content_max ? f->content_max : 3000);
}

static inline void
fixture_fill(uint64_t number, char *memory, size_t size)
{
    struct prng prng;

    prng_seed(&prng, number + 1000000);
    for (size_t i = 0; i < size; i++)
        memory[i] = (char)prng_u64(&prng);
}

enum { FIXTURE_RECIPIENTS_MAX = 200 };

struct fixture_envelope {
    struct envelope envelope;
    struct recipient recipients[FIXTURE_RECIPIENTS_MAX];
    char words[FIXTURE_RECIPIENTS_MAX][32];
    char from[32];
};

static inline size_t
fixture_recipient_count(uint64_t number)
{
    return number % 50 == 49 ? 150 : 1 + number % 3;
}

static inline void
fixture_envelope(const struct fixture *f, uint64_t number, struct fixture_envelope *out)
{
    size_t count = fixture_recipient_count(number);

    memset(out, 0, sizeof *out);
    snprintf(out->from, sizeof out->from, "sender%llu@a.example", (unsigned long long)number);
    out->envelope.reverse_path = str_from_cstr(out->from);
    out->envelope.helo = S("client.example");
    out->envelope.client = S("192.0.2.1");
    out->envelope.session = S("s1");
    out->envelope.size = fixture_size(f, number);
    out->envelope.accepted_wall = (int64_t)number;
    out->envelope.trace = S("Received: from client.example\r\n");
    out->envelope.recipients = out->recipients;
    out->envelope.recipient_count = count;
    for (size_t i = 0; i < count; i++) {
        snprintf(out->words[i], sizeof out->words[i], "r%llu.%zu@b.example", (unsigned long long)number, i);
        out->recipients[i].address = str_from_cstr(out->words[i]);
    }
}

/* Commits message `number`, put in pieces. */
static inline struct err
fixture_try_commit(struct fixture *f, uint64_t number)
{
    struct fixture_envelope *e = malloc(sizeof *e);
    size_t size = fixture_size(f, number);
    char *content = malloc(size + 1);
    struct draft *draft;

    fixture_envelope(f, number, e);
    fixture_fill(number, content, size);
    struct err err = f->ops->begin(f->spool, fixture_id(number), size, FOREVER, &draft);
    if (!err_is(err)) {
        for (size_t at = 0; at < size && !err_is(err); at += 4000)
            err = f->ops->put(draft, str_slice(str_new(content, size), at, at + 4000), FOREVER);
        if (err_is(err))
            f->ops->abort(draft);
        else
            err = f->ops->commit(draft, &e->envelope, NULL, NULL, FOREVER);
    }
    free(content);
    free(e);
    return err;
}

static inline void
fixture_commit(struct fixture *f, uint64_t number)
{
    FIXTURE_OK(f, fixture_try_commit(f, number));
}

/* Is it there, whole? */
static inline bool
fixture_is_whole(struct fixture *f, uint64_t number)
{
    struct arena arena;
    struct spool_message m;
    struct fixture_envelope *want = malloc(sizeof *want);
    size_t size = fixture_size(f, number), got = 0, part;
    char *content = malloc(size + 1), *back = malloc(size + 100);
    bool ok;

    arena_init(&arena, rt_mem(f->rt), 4096, 16 << 20);
    fixture_envelope(f, number, want);
    fixture_fill(number, content, size);
    ok = !err_is(f->ops->get(f->spool, fixture_id(number), &arena, FOREVER, &m)) &&
         str_eq(m.envelope.reverse_path, want->envelope.reverse_path) &&
         str_eq(m.envelope.trace, want->envelope.trace) && m.envelope.size == size &&
         m.envelope.recipient_count == want->envelope.recipient_count;
    for (size_t i = 0; ok && i < m.envelope.recipient_count; i++)
        ok = str_eq(m.envelope.recipients[i].address, want->recipients[i].address) && m.statuses[i].index == i;
    do {
        part = 0;
        ok = ok && !err_is(f->ops->read(f->spool, fixture_id(number), got, back + got, size + 100 - got, FOREVER, &part));
        got += part;
    } while (ok && part > 0);
    ok = ok && got == size && memcmp(content, back, size) == 0;
    arena_done(&arena);
    free(back);
    free(content);
    free(want);
    return ok;
}

/* All of its recipients get this state. */
static inline struct err
fixture_settle(struct fixture *f, uint64_t number, uint8_t state, struct str reply, bool lazy)
{
    struct recipient_status statuses[FIXTURE_RECIPIENTS_MAX];
    struct spool_settle settle = { .id = fixture_id(number), .statuses = statuses, .count = fixture_recipient_count(number) };

    memset(statuses, 0, sizeof statuses);
    for (size_t i = 0; i < settle.count; i++) {
        statuses[i].index = (uint32_t)i;
        statuses[i].state = state;
        statuses[i].attempts = 1;
        statuses[i].next_wall = 77;
        statuses[i].last_reply = reply;
    }
    return f->ops->settle(f->spool, &settle, lazy, FOREVER);
}

static inline bool
fixture_was_found(const struct fixture *f, uint64_t number)
{
    for (size_t i = 0; i < f->found_count; i++)
        if (message_id_eq(f->found[i], fixture_id(number)))
            return true;
    return false;
}

/* Runs body(fixture) in a world with a spool directory of its own. */
struct fixture_case {
    struct test *t;
    const struct spool_ops *ops;
    void (*body)(struct fixture *);
};

static inline void
fixture_main(struct rt *rt, void *arg)
{
    const struct fixture_case *c = arg;
    struct fixture *f = malloc(sizeof *f);

    fixture_init(f, c->t, rt, c->ops);
    c->body(f);
    fixture_done_with(f);
    free(f);
}

/* run: rt_run() or rt_run_leaping(). */
static inline void
fixture_run_by(struct err (*run)(void (*main_fiber)(struct rt *, void *arg), void *arg), struct test *t, const struct spool_ops *ops,
               void (*body)(struct fixture *))
{
    struct fixture_case c = { t, ops, body };

    CHECK(!err_is(run(fixture_main, &c)));
}

static inline void
fixture_run(struct test *t, const struct spool_ops *ops, void (*body)(struct fixture *))
{
    fixture_run_by(rt_run, t, ops, body);
}

#endif
