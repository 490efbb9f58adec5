#include "deliver/maildir.h"

#include "base/check.h"
#include "base/test.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* In the place of the C library's, called from the disk threads: directories are synced by it, files by fdatasync(). */
static atomic_int dirs_synced;
static atomic_bool syncs_fail;
static struct {
    pthread_mutex_t lock;
    pthread_cond_t all_here;
    int wanted, here; /* syncs that wait for each other; wanted 0: they do not */
} meeting = { PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, 0 };

/* One sync stands here until it is let go. */
static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int before;                /* syncs that pass before it; -1: all do */
    bool fails, reached, open;
} gate = { PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, -1, false, false, false };

/* False: it fails. */
static bool
pass_gate(void)
{
    bool passes = true;

    pthread_mutex_lock(&gate.lock);
    if (gate.before >= 0 && gate.before-- == 0) {
        gate.reached = true;
        pthread_cond_broadcast(&gate.changed);
        while (!gate.open)
            pthread_cond_wait(&gate.changed, &gate.lock);
        passes = !gate.fails;
    }
    pthread_mutex_unlock(&gate.lock);
    return passes;
}

static void
gate_shut(int before, bool fails)
{
    pthread_mutex_lock(&gate.lock);
    gate.before = before;
    gate.fails = fails;
    gate.reached = gate.open = false;
    pthread_mutex_unlock(&gate.lock);
}

static void
gate_open(void)
{
    pthread_mutex_lock(&gate.lock);
    gate.open = true;
    pthread_cond_broadcast(&gate.changed);
    pthread_mutex_unlock(&gate.lock);
}

/* On a thread beside. */
static void
gate_await(void *arg)
{
    (void)arg;
    pthread_mutex_lock(&gate.lock);
    while (!gate.reached)
        pthread_cond_wait(&gate.changed, &gate.lock);
    pthread_mutex_unlock(&gate.lock);
}

/* False: they did not all come within a minute. */
static bool
meet(void)
{
    struct timespec until;
    int late = 0;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 60;
    pthread_mutex_lock(&meeting.lock);
    if (meeting.wanted > 0 && ++meeting.here == meeting.wanted)
        pthread_cond_broadcast(&meeting.all_here);
    while (meeting.here < meeting.wanted && !late)
        late = pthread_cond_timedwait(&meeting.all_here, &meeting.lock, &until);
    pthread_mutex_unlock(&meeting.lock);
    return !late;
}

int
fsync(int fd)
{
    atomic_fetch_add(&dirs_synced, 1);
    if (!pass_gate() || atomic_load(&syncs_fail) || !meet()) {
        errno = EIO;
        return -1;
    }
    return (int)syscall(SYS_fsync, fd);
}

/* ---- a directory for each test ----------------------------------------------------------------------------------- */

struct place {
    struct test *t;
    struct rt *rt;
    struct dir *base;
    struct maildir_base maildirs; /* in base */
    struct arena arena;
    uint64_t messages;
    void (*body)(struct test *, struct place *);
};

static void
remove_tree(struct place *p, struct dir *parent, struct str name)
{
    struct dir *dir;
    struct str *names;
    size_t count;

    if (err_is(dir_open_at(parent, name, LANE_POOL, FOREVER, &dir))) {
        EXPECT(p->t, !err_is(dir_unlink(parent, name, LANE_POOL, FOREVER)));
        return;
    }
    EXPECT(p->t, !err_is(dir_list(dir, &p->arena, LANE_POOL, FOREVER, &names, &count)));
    for (size_t i = 0; i < count; i++)
        remove_tree(p, dir, names[i]);
    dir_close(dir);
}

static void
in_place(struct rt *rt, void *arg)
{
    struct place *p = arg;
    char path[] = "/tmp/maildir_test.XXXXXX", command[160];
    struct text t = text_init(command, sizeof command);

    p->rt = rt;
    CHECK(mkdtemp(path));
    struct err e = dir_open(rt, str_from_cstr(path), LANE_POOL, FOREVER, &p->base);
    CHECK(!err_is(e));
    maildir_base_init(&p->maildirs, p->base);
    arena_init(&p->arena, rt_mem(rt), 4096, (size_t)64 << 20);
    p->body(p->t, p);
    arena_done(&p->arena);
    dir_close(p->base);
    text_putf(&t, "chmod -R u+w %s; rm -r %s", path, path);
    CHECK(system(text_cstr(&t)) == 0); /* rt has no way to remove a directory: nothing but a test needs one */
}

static void
with_place(struct test *t, void (*body)(struct test *, struct place *))
{
    struct place p = { .t = t, .body = body };

    EXPECT(t, !err_is(rt_run(in_place, &p)));
}

#define PLACE_TEST(name)                                                                                               \
    static void name##_body(struct test *, struct place *);                                                            \
    static void name(struct test *t)                                                                                   \
    {                                                                                                                  \
        with_place(t, name##_body);                                                                                    \
    }                                                                                                                  \
    static void name##_body(struct test *t, struct place *p)

/* ---- messages ---------------------------------------------------------------------------------------------------- */

struct source {
    struct str content;
    size_t step;     /* bytes of a read; 0: as many as fit */
    uint64_t breaks; /* reads fail from here on; 0: never */
    uint64_t id;     /* 0: that of no other message */
    uint32_t index;
    bool abandoned;  /* nobody waits for the outcome */
    int64_t wait;    /* 0: a minute */
    struct rt *rt;
    struct event *turn; /* the first read says that it is there, and waits until it may go on; NULL: it does not */
    bool is_there, may_go_on;
};

static struct err
source_read(void *arg, uint64_t offset, void *memory, size_t len, int64_t until, size_t *out_len)
{
    struct source *source = arg;
    struct text t = text_init(memory, len);

    if (source->turn && !source->is_there) {
        source->is_there = true;
        event_wake(source->rt, source->turn);
        while (!source->may_go_on)
            TRY(event_wait(source->rt, source->turn, until));
    }
    if (source->breaks > 0 && offset >= source->breaks)
        return ERR(ERR_IO, "read the spool");
    if (source->step && len > source->step)
        len = source->step;
    text_put(&t, str_slice(source->content, (size_t)offset, (size_t)offset + len));
    *out_len = t.len;
    return OK;
}

static bool
is_awaited(void *arg)
{
    const struct source *source = arg;

    return !source->abandoned;
}

static const struct maildir_place usual = { .pattern = STR("{domain}/{local}"), .domain = STR("local.test"),
                                            .mailbox = STR("ok"), .host = STR("mx.local.test") };

static struct outcome
deliver_from(struct place *p, const struct maildir_place *usual_place, struct source *source)
{
    struct maildir_place place = *usual_place;
    struct envelope envelope = { .reverse_path = S("a@a.example"), .trace = S("Received: x\r\n\tby us\r\n"),
                                 .size = source->content.len };
    struct recipient recipient = { .address = S("ok@local.test") };
    struct message_id id = { 1, source->id ? source->id : 1000 + p->messages++ };
    struct maildir_message message = { &envelope, &recipient, id, source->index, source_read, is_awaited, source };

    place.base = &p->maildirs;
    return maildir_deliver(p->rt, &place, &message, &p->arena, within(p->rt, source->wait ? source->wait : MINUTE));
}

static struct outcome
deliver(struct place *p, const struct maildir_place *place, struct str content)
{
    struct source source = { .content = content };

    return deliver_from(p, place, &source);
}

static size_t
list(struct place *p, struct str path, struct str **out_names)
{
    struct dir *dir;
    size_t count = 0;

    if (err_is(dir_open_at(p->base, path, LANE_POOL, FOREVER, &dir)))
        return SIZE_MAX;
    EXPECT(p->t, !err_is(dir_list(dir, &p->arena, LANE_POOL, FOREVER, out_names, &count)));
    dir_close(dir);
    return count;
}

static struct str
read_whole(struct place *p, struct str path)
{
    struct file *file;
    uint64_t bytes = 0;
    size_t len;

    if (err_is(file_open(p->base, path, FILE_READ, 0, LANE_POOL, FOREVER, &file)))
        return (struct str){ 0 };
    EXPECT(p->t, !err_is(file_size(file, LANE_POOL, FOREVER, &bytes)));
    struct text t = text_init(arena_alloc(&p->arena, (size_t)bytes + 1), (size_t)bytes);
    while (t.len < bytes && !err_is(file_read(file, t.ptr + t.len, bytes - t.len, t.len, LANE_POOL, FOREVER, &len)) &&
        len > 0)
        t.len += len;
    file_close(file);
    return text_str(&t);
}

/* The one message of the usual Maildir, and nothing else in it. */
static struct str
read_only_message(struct place *p)
{
    struct str *names;

    EXPECT_INT(p->t, list(p, S("local.test/ok/tmp"), &names), 0);
    EXPECT_INT(p->t, list(p, S("local.test/ok/cur"), &names), 0);
    if (!EXPECT_INT(p->t, list(p, S("local.test/ok/new"), &names), 1))
        return (struct str){ 0 };
    return read_whole(p, arena_join(&p->arena, S("local.test/ok/new/"), names[0]));
}

static void
forget_messages(struct place *p)
{
    struct dir *new_dir;
    struct str *names;
    size_t count;

    EXPECT(p->t, !err_is(dir_open_at(p->base, S("local.test/ok/new"), LANE_POOL, FOREVER, &new_dir)));
    EXPECT(p->t, !err_is(dir_list(new_dir, &p->arena, LANE_POOL, FOREVER, &names, &count)));
    for (size_t i = 0; i < count; i++)
        remove_tree(p, new_dir, names[i]);
    dir_close(new_dir);
}

/* ---- tests ------------------------------------------------------------------------------------------------------- */

#define TOP "Return-Path: <a@a.example>\nDelivered-To: ok@local.test\nReceived: x\n\tby us\n"

PLACE_TEST(writes_the_message)
{
    static const struct {
        const char *why;
        struct str content, wanted; /* behind TOP */
    } cases[] = {
        { "LF for CRLF", STR("Subject: x\r\n\r\na\r\n"), STR("Subject: x\n\na\n") },
        { "empty", STR(""), STR("") },
        { "no body", STR("Subject: x\r\n"), STR("Subject: x\n") },
        { "no header", STR("\r\nReturn-Path: body\r\n"), STR("\nReturn-Path: body\n") },
        { "bare CR stays", STR("\r\na\rb\r\r\n\r"), STR("\na\rb\r\n\r") },
        { "bare LF stays", STR("\r\na\nb\n"), STR("\na\nb\n") },
        { "no last line end", STR("\r\na"), STR("\na") },
        { "Return-Path goes, folded too", STR("A: 1\r\nreturn-path : <x>\r\n y\r\nB: 2\r\n\r\nReturn-Path: z\r\n"),
          STR("A: 1\nB: 2\n\nReturn-Path: z\n") },
        { "Return-Path first and last", STR("Return-Path: <x>\r\nA: 1\r\nReturn-Path: <y>\r\n"), STR("A: 1\n") },
        { "a name that begins alike", STR("Return-Pathology: x\r\nReturn: y\r\n\r\n"),
          STR("Return-Pathology: x\nReturn: y\n\n") },
        { "a line without a colon", STR("hello\r\nReturn-Path\r\n\r\nx\r\n"), STR("hello\nReturn-Path\n\nx\n") },
        { "a long name", STR("X-0123456789012345678901234567890123456789: x\r\n\r\n"),
          STR("X-0123456789012345678901234567890123456789: x\n\n") },
        { "Delivered-To of another", STR("Delivered-To: OK@local.test\r\nDelivered-To: ok@local.test.org\r\n\r\n"),
          STR("Delivered-To: OK@local.test\nDelivered-To: ok@local.test.org\n\n") },
        { "Delivered-To in the body", STR("\r\nDelivered-To: ok@local.test\r\n"),
          STR("\nDelivered-To: ok@local.test\n") },
        { "NUL", STR("A: \0\r\n\r\n\0\r\n"), STR("A: \0\n\n\0\n") },
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (size_t step = 0; step < 3; step++) { /* whole, and cut everywhere */
            struct source source = { cases[i].content, step, 0 };

            test_case(t, cases[i].why);
            struct outcome o = deliver_from(p, &usual, &source);
            EXPECT_INT(t, o.kind, OUTCOME_DELIVERED);
            EXPECT_STR(t, read_only_message(p), arena_join(&p->arena, S(TOP), cases[i].wanted));
            forget_messages(p);
        }
}

PLACE_TEST(writes_a_large_message)
{
    enum { LINES = 12000 };
    struct text content = text_init(arena_alloc(&p->arena, LINES * 40), LINES * 40);
    struct text wanted = text_init(arena_alloc(&p->arena, LINES * 40), LINES * 40);

    text_put(&content, S("A: 1\r\n\r\n"));
    text_put(&wanted, S(TOP "A: 1\n\n"));
    for (unsigned i = 0; i < LINES; i++) {
        text_putf(&content, "line %u of the message\r\n", i);
        text_putf(&wanted, "line %u of the message\n", i);
    }
    EXPECT_INT(t, deliver(p, &usual, text_str(&content)).kind, OUTCOME_DELIVERED);
    EXPECT(t, str_eq(read_only_message(p), text_str(&wanted)));
}

PLACE_TEST(refuses_a_loop)
{
    static const struct {
        const char *why;
        struct str content;
    } cases[] = {
        { "plain", STR("Delivered-To: ok@local.test\r\n\r\n") },
        { "case of the name", STR("A: 1\r\ndelivered-to:ok@local.test\r\nB: 2\r\n\r\n") },
        { "folded", STR("Delivered-To:\r\n ok@local.test\r\n\r\n") },
        { "the last field, no body", STR("Delivered-To: ok@local.test") },
    };
    struct str *names;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        test_case(t, cases[i].why);
        struct outcome o = deliver(p, &usual, cases[i].content);
        EXPECT_INT(t, o.kind, OUTCOME_FAILED);
        EXPECT_STR(t, o.enhanced, S("5.4.6"));
        EXPECT_INT(t, list(p, S("local.test/ok/tmp"), &names), 0);
        EXPECT_INT(t, list(p, S("local.test/ok/new"), &names), 0);
    }
}

PLACE_TEST(leaves_nothing_behind_when_it_fails)
{
    struct source broken = { S("A: 1\r\n\r\nsome body\r\n"), 4, 8 };
    struct str *names;

    struct outcome o = deliver_from(p, &usual, &broken);
    EXPECT_INT(t, o.kind, OUTCOME_DEFERRED);
    EXPECT_INT(t, list(p, S("local.test/ok/tmp"), &names), 0);
    EXPECT_INT(t, list(p, S("local.test/ok/new"), &names), 0);

    struct envelope envelope = { .size = 1000 };
    struct recipient recipient = { .address = S("ok@local.test") };
    struct source source = { .content = S("short") };
    struct maildir_message message = { .envelope = &envelope, .recipient = &recipient, .read = source_read,
                                       .is_awaited = is_awaited, .arg = &source };
    struct maildir_place place = usual;
    place.base = &p->maildirs;
    test_case(t, "a message that is cut short");
    o = maildir_deliver(p->rt, &place, &message, &p->arena, FOREVER);
    EXPECT_INT(t, o.kind, OUTCOME_FAILED); /* damaged on our side: it will not grow */
    EXPECT_STR(t, o.enhanced, S("5.3.0"));
    EXPECT_INT(t, list(p, S("local.test/ok/new"), &names), 0);

    test_case(t, "a sender with a line end");
    envelope = (struct envelope){ .reverse_path = S("a@b>\r\nX: y"), .size = source.content.len };
    EXPECT_INT(t, maildir_deliver(p->rt, &place, &message, &p->arena, FOREVER).kind, OUTCOME_FAILED);
    EXPECT_INT(t, list(p, S("local.test/ok/new"), &names), 0);
}

/* A process that was killed may have made directories that are in the page cache only: the next one does not rely on
 * them. */
PLACE_TEST(syncs_what_leads_there_once)
{
    struct maildir_place place = usual;

    for (int life = 0; life < 2; life++) {
        int before = atomic_load(&dirs_synced);
        EXPECT_INT(t, deliver(p, &place, S("A: 1\r\n")).kind, OUTCOME_DELIVERED);
        EXPECT_INT(t, atomic_load(&dirs_synced) - before, 4); /* base, domain, mailbox, new */
        before = atomic_load(&dirs_synced);
        EXPECT_INT(t, deliver(p, &place, S("A: 2\r\n")).kind, OUTCOME_DELIVERED);
        EXPECT_INT(t, atomic_load(&dirs_synced) - before, 1);
        for (size_t i = 0; i < MAILDIR_KNOWN; i++)
            p->maildirs.known[i] = 0;
    }
    EXPECT_INT(t, deliver(p, &place, S("A: 3\r\n")).kind, OUTCOME_DELIVERED);
    struct dir *home;
    EXPECT(t, !err_is(dir_open_at(p->base, S("local.test"), LANE_POOL, FOREVER, &home)));
    EXPECT(t, !err_is(dir_rename(home, S("ok"), home, S("gone"), LANE_POOL, FOREVER)));
    dir_close(home);
    EXPECT_INT(t, deliver(p, &place, S("A: 4\r\n")).kind, OUTCOME_DELIVERED); /* made anew */
}

PLACE_TEST(makes_anew_what_somebody_removed)
{
    static const struct str parts[] = { STR("tmp"), STR("new"), STR("cur") };
    struct maildir_place place = usual;
    struct dir *home;

    EXPECT_INT(t, deliver(p, &place, S("\r\n")).kind, OUTCOME_DELIVERED);
    EXPECT(t, !err_is(dir_open_at(p->base, S("local.test/ok"), LANE_POOL, FOREVER, &home)));
    for (size_t i = 0; i < 2; i++) {
        test_case(t, i ? "new/" : "tmp/");
        EXPECT(t, !err_is(dir_rename(home, parts[i], home, arena_join(&p->arena, S("gone-"), parts[i]), LANE_POOL, FOREVER)));
        EXPECT_INT(t, deliver(p, &place, S("A: 1\r\n")).kind, OUTCOME_DELIVERED);
    }
    EXPECT_STR(t, read_only_message(p), S(TOP "A: 1\n"));
    test_case(t, "cur/, where a quota is counted");
    place.quota = 1 << 20;
    EXPECT(t, !err_is(dir_rename(home, parts[2], home, S("gone-cur"), LANE_POOL, FOREVER)));
    EXPECT_INT(t, deliver(p, &place, S("A: 2\r\n")).kind, OUTCOME_DELIVERED);
    dir_close(home);
}

/* It comes again: nobody may see it twice. */
PLACE_TEST(takes_back_what_could_not_be_synced)
{
    struct maildir_place place = usual;
    struct str *names;

    EXPECT_INT(t, deliver(p, &place, S("A: 1\r\n")).kind, OUTCOME_DELIVERED);
    atomic_store(&syncs_fail, true);
    EXPECT_INT(t, deliver(p, &place, S("A: 2\r\n")).kind, OUTCOME_DEFERRED);
    atomic_store(&syncs_fail, false);
    EXPECT_STR(t, read_only_message(p), S(TOP "A: 1\n"));
    EXPECT_INT(t, list(p, S("local.test/ok/tmp"), &names), 0);

    test_case(t, "by then another process may have delivered it");
    struct source source = { .content = S("A: 2\r\n"), .id = 7, .abandoned = true };
    atomic_store(&syncs_fail, true);
    EXPECT_INT(t, deliver_from(p, &usual, &source).kind, OUTCOME_DEFERRED);
    atomic_store(&syncs_fail, false);
    EXPECT_INT(t, list(p, S("local.test/ok/new"), &names), 2);
}

PLACE_TEST(keeps_a_quota)
{
    struct maildir_place place = usual;
    struct str *names;
    struct file *file;

    place.quota = 321;
    EXPECT_INT(t, deliver(p, &place, S("\r\n0123456789\r\n")).kind, OUTCOME_DELIVERED);
    EXPECT_INT(t, list(p, S("local.test/ok/new"), &names), 1);
    EXPECT(t, str_ends(names[0], S(",S=86")));
    EXPECT_INT(t, read_only_message(p).len, 86);
    test_case(t, "a file of another program counts too");
    EXPECT(t, !err_is(file_open(p->base, S("local.test/ok/cur/1.x.y:2,S"), FILE_WRITE | FILE_CREATE, 0600, LANE_POOL,
        FOREVER,
                                &file)));
    EXPECT(t, !err_is(file_set_size(file, 150, LANE_POOL, FOREVER)));
    file_close(file);
    struct outcome o = deliver(p, &place, S("\r\n0123456789\r\n"));
    EXPECT_INT(t, o.kind, OUTCOME_DEFERRED);
    EXPECT_STR(t, o.enhanced, S("4.2.2"));
    EXPECT_INT(t, list(p, S("local.test/ok/tmp"), &names), 0);
    test_case(t, "up to the last byte");
    place.quota = 86 + 150 + 86; /* new, cur, and what comes */
    EXPECT_INT(t, deliver(p, &place, S("\r\n0123456789\r\n")).kind, OUTCOME_DELIVERED);
    place.quota--;
    EXPECT_INT(t, deliver(p, &place, S("\r\n0123456789\r\n")).kind, OUTCOME_DEFERRED);
}

struct one_of_many {
    struct place *p;
    struct outcome outcome;
};

static void
deliver_one(void *arg)
{
    struct one_of_many *one = arg;

    one->outcome = deliver(one->p, &usual, S("A: 1\r\n\r\nx\r\n"));
}

/* The former attempt's copy stands there, though nobody knows that it was delivered. */
PLACE_TEST(replaces_what_a_former_attempt_left)
{
    struct source source = { .content = S("Subject: x\r\n\r\n"), .id = 7 };
    struct str *names;

    struct maildir_place place = usual;
    for (int attempt = 0; attempt < 2; attempt++)
        EXPECT_INT(t, deliver_from(p, &usual, &source).kind, OUTCOME_DELIVERED);
    test_case(t, "our name and the quota changed since");
    place.host = S("other.local.test");
    place.quota = 99; /* what is replaced does not count */
    EXPECT_INT(t, deliver_from(p, &place, &source).kind, OUTCOME_DELIVERED);
    EXPECT_INT(t, read_only_message(p).len, 86);
    test_case(t, "not the same");
    source.index = 1;
    EXPECT_INT(t, deliver_from(p, &usual, &source).kind, OUTCOME_DELIVERED); /* another recipient in the same mailbox */
    source.id = 8;
    EXPECT_INT(t, deliver_from(p, &usual, &source).kind, OUTCOME_DELIVERED);
    EXPECT_INT(t, list(p, S("local.test/ok/new"), &names), 3);
}

struct attempt {
    struct place *p;
    struct source *source;
    struct outcome outcome;
};

static void
attempt(void *arg)
{
    struct attempt *a = arg;

    a->outcome = deliver_from(a->p, &usual, a->source);
}

/* Who finds it while it is made anew may not rely on it either. */
PLACE_TEST(relies_on_nothing_that_another_still_makes)
{
    struct source source = { .content = S("A: 1\r\n") };
    struct attempt maker = { .p = p, .source = &source };
    struct scope scope;
    struct dir *home;

    EXPECT_INT(t, deliver(p, &usual, S("\r\n")).kind, OUTCOME_DELIVERED);
    EXPECT(t, !err_is(dir_open_at(p->base, S("local.test"), LANE_POOL, FOREVER, &home)));
    EXPECT(t, !err_is(dir_rename(home, S("ok"), home, S("gone"), LANE_POOL, FOREVER)));
    dir_close(home);
    scope_init(&scope, p->rt);
    gate_shut(2, false); /* the base and the domain are synced, the mailbox is not */
    scope_start(&scope, "maker", attempt, &maker);
    EXPECT(t, !err_is(rt_offload(p->rt, gate_await, NULL, FOREVER)));
    int before = atomic_load(&dirs_synced);
    EXPECT_INT(t, deliver(p, &usual, S("A: 2\r\n")).kind, OUTCOME_DELIVERED);
    EXPECT_INT(t, atomic_load(&dirs_synced) - before, 4); /* base, domain, mailbox, new */
    gate_open();
    EXPECT(t, !err_is(scope_wait(&scope, FOREVER)));
    scope_end(&scope);
    EXPECT_INT(t, maker.outcome.kind, OUTCOME_DELIVERED);
}

/* Nor who found it whole when he began to write, and moves his message into what is made anew by then. */
PLACE_TEST(relies_on_nothing_that_is_made_anew_meanwhile)
{
    struct event turn;
    struct source source = { .content = S("A: 1\r\n"), .rt = p->rt, .turn = &turn }, other = { .content = S("A: 2\r\n") };
    struct attempt slow = { .p = p, .source = &source }, maker = { .p = p, .source = &other };
    struct scope slow_one, makers;
    struct dir *home;

    event_init(&turn);
    EXPECT_INT(t, deliver(p, &usual, S("\r\n")).kind, OUTCOME_DELIVERED);
    scope_init(&slow_one, p->rt);
    scope_init(&makers, p->rt);
    scope_start(&slow_one, "slow", attempt, &slow);
    while (!source.is_there)
        CHECK(!err_is(event_wait(p->rt, &turn, within(p->rt, MINUTE))));
    EXPECT(t, !err_is(dir_open_at(p->base, S("local.test/ok"), LANE_POOL, FOREVER, &home)));
    EXPECT(t, !err_is(dir_rename(home, S("new"), home, S("gone"), LANE_POOL, FOREVER)));
    dir_close(home);
    gate_shut(2, false); /* new/ is there again, the mailbox is not synced */
    scope_start(&makers, "maker", attempt, &maker);
    EXPECT(t, !err_is(rt_offload(p->rt, gate_await, NULL, FOREVER)));
    int before = atomic_load(&dirs_synced);
    source.may_go_on = true;
    event_wake(p->rt, &turn);
    EXPECT(t, !err_is(scope_wait(&slow_one, FOREVER)));
    EXPECT_INT(t, slow.outcome.kind, OUTCOME_DELIVERED);
    EXPECT_INT(t, atomic_load(&dirs_synced) - before, 4); /* new, base, domain, mailbox */
    gate_open();
    EXPECT(t, !err_is(scope_wait(&makers, FOREVER)));
    EXPECT_INT(t, maker.outcome.kind, OUTCOME_DELIVERED);
    scope_end(&slow_one);
    scope_end(&makers);
}

/* Its last sync fails late, and it takes the name away that a later one's copy would bear by then. */
PLACE_TEST(waits_for_the_former_attempt)
{
    struct source source = { .content = S("A: 1\r\n"), .id = 7 }, hasty = source, other = source;
    struct attempt former = { .p = p, .source = &source }, later = former;
    struct scope scope;
    struct str *names;

    hasty.wait = 50 * MILLISECOND;
    other.index = 1;
    EXPECT_INT(t, deliver(p, &usual, S("\r\n")).kind, OUTCOME_DELIVERED);
    scope_init(&scope, p->rt);
    gate_shut(0, true);
    scope_start(&scope, "former", attempt, &former);
    EXPECT(t, !err_is(rt_offload(p->rt, gate_await, NULL, FOREVER)));
    EXPECT_INT(t, deliver_from(p, &usual, &other).kind, OUTCOME_DELIVERED); /* of others nothing waits */
    EXPECT_INT(t, deliver_from(p, &usual, &hasty).kind, OUTCOME_DEFERRED);
    scope_start(&scope, "later", attempt, &later);
    fiber_yield(p->rt);
    gate_open();
    EXPECT(t, !err_is(scope_wait(&scope, FOREVER)));
    scope_end(&scope);
    EXPECT_INT(t, former.outcome.kind, OUTCOME_DEFERRED);
    EXPECT_INT(t, later.outcome.kind, OUTCOME_DELIVERED);
    EXPECT_INT(t, list(p, S("local.test/ok/new"), &names), 3);
}

/* The first deliveries of all meet where the directories are not there yet. */
PLACE_TEST(delivers_at_once)
{
    enum { MANY = 40 };
    struct one_of_many *many = arena_alloc(&p->arena, MANY * sizeof *many);
    struct scope scope;
    struct str *names;

    scope_init(&scope, p->rt);
    for (size_t i = 0; i < MANY; i++) {
        many[i].p = p;
        scope_start(&scope, "delivery", deliver_one, &many[i]);
    }
    EXPECT(t, !err_is(scope_wait(&scope, within(p->rt, 30 * SECOND))));
    scope_end(&scope);
    for (size_t i = 0; i < MANY; i++)
        EXPECT_INT(t, many[i].outcome.kind, OUTCOME_DELIVERED);
    EXPECT_INT(t, list(p, S("local.test/ok/tmp"), &names), 0);
    EXPECT_INT(t, list(p, S("local.test/ok/new"), &names), MANY);
    for (size_t i = 1; i < MANY; i++)
        EXPECT(t, !str_eq(names[i - 1], names[i]));
}

/* Deliveries are as fast as many can wait for the disk at once. */
PLACE_TEST(all_wait_for_the_disk_at_once)
{
    enum { MANY = LIMIT_DELIVERIES };
    struct one_of_many *many = arena_alloc(&p->arena, MANY * sizeof *many);
    struct maildir_place place = usual;
    struct scope scope;
    struct str *names;

    EXPECT_INT(t, deliver(p, &place, S("\r\n")).kind, OUTCOME_DELIVERED);
    meeting.wanted = MANY;
    scope_init(&scope, p->rt);
    for (size_t i = 0; i < MANY; i++) {
        many[i].p = p;
        scope_start(&scope, "delivery", deliver_one, &many[i]);
    }
    EXPECT(t, !err_is(scope_wait(&scope, FOREVER)));
    scope_end(&scope);
    meeting.wanted = meeting.here = 0;
    for (size_t i = 0; i < MANY; i++)
        EXPECT_INT(t, many[i].outcome.kind, OUTCOME_DELIVERED);
    EXPECT_INT(t, list(p, S("local.test/ok/new"), &names), MANY + 1);
}

PLACE_TEST(cleans_what_was_never_finished)
{
    static const struct str stale[] = { STR("1000000000.R1.x"), STR("1000000001.M5P6.y") };
    struct str *names, fresh = arena_printf(&p->arena, "%lld.R1.x", (long long)(rt_wall(p->rt) / SECOND - 3600));
    struct file *file;
    size_t left = 4;

    EXPECT_INT(t, deliver(p, &usual, S("\r\n")).kind, OUTCOME_DELIVERED);
    const struct str all[] = { stale[0], stale[1], fresh, STR("not-a-maildir-name") };
    for (size_t i = 0; i < 4; i++) {
        EXPECT(t, !err_is(file_open(p->base, arena_join(&p->arena, S("local.test/ok/tmp/"), all[i]), FILE_WRITE |
          FILE_CREATE, 0600,
                                    LANE_POOL, FOREVER, &file)));
        file_close(file);
    }
    for (int i = 0; i < 4000 && left != 2; i++) { /* one in 64 cleans: the chance that none does is 10^-27 */
        EXPECT_INT(t, deliver(p, &usual, S("\r\n")).kind, OUTCOME_DELIVERED);
        left = list(p, S("local.test/ok/tmp"), &names);
    }
    EXPECT_INT(t, left, 2);
    EXPECT_STR(t, names[0], fresh);
    EXPECT_STR(t, names[1], S("not-a-maildir-name"));
}

PLACE_TEST(stays_below_its_base)
{
    static const struct {
        const char *why;
        struct str pattern, domain, mailbox;
    } cases[] = {
        { "dot-dot mailbox", STR("{domain}/{local}"), STR("d"), STR("..") },
        { "dot mailbox", STR("{domain}/{local}"), STR("d"), STR(".") },
        { "slash in a mailbox", STR("{domain}/{local}"), STR("d"), STR("../../x") },
        { "slash in a domain", STR("{domain}/{local}"), STR("d/e"), STR("x") },
        { "NUL", STR("{domain}/{local}"), STR("d"), STR("x\0y") },
        { "empty mailbox", STR("{domain}/{local}"), STR("d"), STR("") },
        { "empty domain", STR("{local}"), STR(""), STR("x") },
        { "dots that meet", STR("{domain}/.{local}"), STR("d"), STR(".") },
        { "absolute", STR("/{domain}/{local}"), STR("d"), STR("x") },
        { "dot-dot in the pattern", STR("../{local}"), STR("d"), STR("x") },
        { "empty part", STR("{domain}//{local}"), STR("d"), STR("x") },
        { "empty pattern", STR(""), STR("d"), STR("x") },
        { "too long", STR("{local}{local}{local}{local}{local}"), STR("d"),
          STR("0123456789012345678901234567890123456789012345678901234567890123") },
    };
    struct str *names;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char memory[1024];
        struct text path = text_init(memory, sizeof memory);
        struct maildir_place place = usual;

        test_case(t, cases[i].why);
        EXPECT(t, !maildir_path(&path, cases[i].pattern, cases[i].domain, cases[i].mailbox));
        place.pattern = cases[i].pattern;
        place.domain = cases[i].domain;
        place.mailbox = cases[i].mailbox;
        struct outcome o = deliver(p, &place, S("\r\n"));
        EXPECT_INT(t, o.kind, OUTCOME_DEFERRED);
        EXPECT_STR(t, o.enhanced, S("4.3.5"));
        EXPECT_INT(t, list(p, S("."), &names), 0);
    }
    test_case(t, "a link that leads out");
    EXPECT_INT(t, deliver(p, &usual, S("\r\n")).kind, OUTCOME_DELIVERED);
    struct dir *domain;
    EXPECT(t, !err_is(dir_open_at(p->base, S("local.test"), LANE_POOL, FOREVER, &domain)));
    struct handle handle = dir_handle(p->rt, domain);
    EXPECT_INT(t, symlinkat("/tmp", handle.number, "out"), 0);
    handle_close(p->rt, handle);
    dir_close(domain);
    struct maildir_place place = usual;
    place.mailbox = S("out");
    EXPECT_INT(t, deliver(p, &place, S("\r\n")).kind, OUTCOME_DEFERRED);
}

TEST_MAIN({ "writes the message", writes_the_message }, { "writes a large message", writes_a_large_message },
          { "refuses a loop", refuses_a_loop }, { "leaves nothing behind when it fails",
            leaves_nothing_behind_when_it_fails },
          { "syncs what leads there, once", syncs_what_leads_there_once }, { "keeps a quota", keeps_a_quota },
          { "replaces what a former attempt left", replaces_what_a_former_attempt_left },
          { "relies on nothing that another still makes", relies_on_nothing_that_another_still_makes },
          { "relies on nothing that is made anew meanwhile", relies_on_nothing_that_is_made_anew_meanwhile },
          { "waits for the former attempt", waits_for_the_former_attempt },
          { "delivers at once", delivers_at_once },
          { "makes anew what somebody removed", makes_anew_what_somebody_removed },
          { "takes back what could not be synced", takes_back_what_could_not_be_synced },
          { "all wait for the disk at once", all_wait_for_the_disk_at_once },
          { "cleans what was never finished", cleans_what_was_never_finished }, { "stays below its base",
            stays_below_its_base })
