/* sandbox_test - each case is a process of its own that enters a sandbox and then does one thing. */
#include "base/check.h"
#include "base/test.h"
#include "runtime/context.h"
#include "runtime/sandbox.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LISTENER = 100, PAIR = 101 }; /* descriptors that a case has before it enters the sandbox */
enum { ALLOWED = 0, REFUSED = 1, ODD = 2 }; /* exit codes of a case's process */

struct attempt {
    const char *why;
    const char *pretend; /* POSTRIDER_PRETEND, or NULL */
    unsigned calls;
    bool renames_between_dirs;
    int (*act)(struct rt *, const char *dir);
    int wanted;          /* exit code, or 256 + signal */
    int needs_abi;       /* of Landlock */
};

static int
of_err(struct err e)
{
    return !err_is(e) ? ALLOWED : e.kind == ERR_DENIED ? REFUSED : ODD;
}

/* ---- what is attempted ------------------------------------------------------------------------------------------- */

static int
work_as_usual(struct rt *rt, const char *dir)
{
    struct stream *a, *b;
    char byte = 0;
    size_t n;

    (void)dir;
    if (err_is(rt_sleep(rt, within(rt, MILLISECOND))))
        return ODD;
    if (err_is(stream_from_handle(rt, (struct handle){ PAIR }, &a))
        || err_is(stream_from_handle(rt, (struct handle){ PAIR + 1 }, &b)))
        return ODD;
    if (err_is(stream_write(a, S("x"), FOREVER)) || err_is(stream_read(b, &byte, 1, within(rt, SECOND), &n)))
        return ODD;
    stream_close(a);
    stream_close(b);
    return byte == 'x' ? ALLOWED : ODD;
}

static void
allocate(void *arg)
{
    void *volatile memory = malloc(1 << 20); /* in an arena of the thread's own */

    CHECK(memory);
    memset(memory, 1, 1 << 20);
    free(memory);
    *(int *)arg = 42;
}

static int
start_a_thread(struct rt *rt, const char *dir)
{
    int number = 0;

    (void)dir;
    return err_is(rt_offload(rt, allocate, &number, FOREVER)) || number != 42 ? ODD : ALLOWED;
}

static int
make_a_socket(struct rt *rt, const char *dir)
{
    (void)rt;
    (void)dir;
    return socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0) < 0 ? REFUSED : ALLOWED;
}

static int
make_a_unix_socket(struct rt *rt, const char *dir)
{
    struct address to;
    struct stream *s;

    (void)dir;
    CHECK(address_parse(S("/nonexistent/socket"), &to));
    struct err e = stream_connect(rt, &to, NULL, within(rt, SECOND), &s);
    return e.kind == ERR_NOT_FOUND ? ALLOWED : e.kind == ERR_DENIED ? REFUSED : ODD;
}

static int
make_a_raw_socket(struct rt *rt, const char *dir)
{
    (void)rt;
    (void)dir;
    return socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0) < 0 ? REFUSED : ALLOWED;
}

static int
signal_another_process(struct rt *rt, const char *dir)
{
    (void)rt;
    (void)dir;
    return syscall(SYS_tgkill, 1, 1, 0) < 0 ? REFUSED : ALLOWED;
}

static int
end_itself(struct rt *rt, const char *dir)
{
    (void)rt;
    (void)dir;
    abort();
}

static int
make_a_directory(struct rt *rt, const char *dir)
{
    (void)rt;
    return mkdirat(AT_FDCWD, dir, 0700) < 0 ? REFUSED : ALLOWED;
}

static int
start_a_process(struct rt *rt, const char *dir)
{
    (void)rt;
    (void)dir;
    char name[] = "true", *argv[] = { name, NULL };
    return execve("/bin/true", argv, NULL);
}

#if !defined(CONTEXT_ASAN) && !defined(CONTEXT_TSAN) /* sanitizers map code */
static int
map_code(struct rt *rt, const char *dir)
{
    (void)rt;
    (void)dir;
    void *code = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return code == MAP_FAILED ? REFUSED : ALLOWED;
}
#endif

static int
read_elsewhere(struct rt *rt, const char *dir)
{
    struct dir *d;

    (void)dir;
    return of_err(dir_open(rt, S("/etc"), LANE_POOL, FOREVER, &d));
}

/* As a mailbox does: write below tmp, rename into new. */
static int
deliver(struct rt *rt, const char *path)
{
    struct str content = S("content");
    struct dir *dir;
    struct file *file;

    struct err e = dir_open(rt, str_from_cstr(path), LANE_POOL, FOREVER, &dir);
    if (err_is(e))
        return of_err(e);
    e = file_open(dir, S("tmp/a"), FILE_WRITE | FILE_CREATE | FILE_NEW, 0600, LANE_POOL, FOREVER, &file);
    if (err_is(e))
        return of_err(e);
    if (err_is(file_write_sync(file, &content, 1, 0, LANE_POOL, FOREVER)))
        return ODD;
    file_close(file);
    e = dir_rename(dir, S("tmp/a"), dir, S("new/a"), LANE_POOL, FOREVER);
    if (!err_is(e))
        e = dir_sync(dir, LANE_POOL, FOREVER);
    if (!err_is(e))
        e = dir_unlink(dir, S("new/a"), LANE_POOL, FOREVER);
    dir_close(dir);
    return of_err(e);
}

/* Nobody listens on port 1: a connection that is allowed is refused by the peer. */
static int
connect_to_port(struct rt *rt, uint16_t port)
{
    struct address to;
    struct stream *s;

    CHECK(address_parse(S("127.0.0.1:1"), &to));
    to.port = port;
    struct err e = stream_connect(rt, &to, NULL, within(rt, SECOND), &s);
    return e.kind == ERR_REFUSED ? ALLOWED : e.kind == ERR_DENIED ? REFUSED : ODD;
}

static int
connect_as_ruled(struct rt *rt, const char *dir)
{
    (void)dir;
    return connect_to_port(rt, 1);
}

static int
connect_elsewhere(struct rt *rt, const char *dir)
{
    (void)dir;
    return connect_to_port(rt, 2);
}

static int
accept_one(struct rt *rt, const char *dir)
{
    struct listener *l;
    struct stream *s;

    (void)dir;
    if (err_is(listener_from_handle(rt, (struct handle){ LISTENER }, &l)))
        return ODD;
    return listener_accept(l, within(rt, MILLISECOND), &s, NULL).kind == ERR_TIMEOUT ? ALLOWED : ODD;
}

static const struct attempt attempts[] = {
    { "works on what it has", NULL, 0, false, work_as_usual, ALLOWED, 0 },
#if !defined(CONTEXT_ASAN) && !defined(CONTEXT_TSAN)
    { "makes no code", NULL, SANDBOX_FILES, false, map_code, 256 + SIGSYS, 0 },
#endif
    { "starts threads", NULL, 0, false, start_a_thread, ALLOWED, 0 },
    { "makes no socket", NULL, SANDBOX_ACCEPT | SANDBOX_FILES, false, make_a_socket, 256 + SIGSYS, 0 },
    { "makes a socket where it may", NULL, SANDBOX_CONNECT, false, make_a_socket, ALLOWED, 0 },
    { "makes no Unix socket even there", NULL, SANDBOX_CONNECT | SANDBOX_FILES, false, make_a_unix_socket, REFUSED, 0 },
    { "makes one where it may", NULL, SANDBOX_CONNECT | SANDBOX_CONNECT_UNIX, false, make_a_unix_socket, ALLOWED, 0 },
    { "makes none for that word alone", NULL, SANDBOX_CONNECT_UNIX, false, make_a_unix_socket, 256 + SIGSYS, 0 },
    { "makes no raw socket even there", NULL, SANDBOX_CONNECT, false, make_a_raw_socket, 256 + SIGSYS, 0 },
    { "makes no directory", NULL, SANDBOX_CONNECT, false, make_a_directory, 256 + SIGSYS, 0 },
    { "starts no process", NULL, SANDBOX_FILES | SANDBOX_CONNECT, false, start_a_process, 256 + SIGSYS, 0 },
    { "signals no other process", "landlock=2", 0, false, signal_another_process, 256 + SIGSYS, 0 },
    { "can abort", NULL, 0, false, end_itself, 256 + SIGABRT, 0 },
    { "accepts where it may", NULL, SANDBOX_ACCEPT, false, accept_one, ALLOWED, 0 },
    { "accepts nowhere else", NULL, 0, false, accept_one, 256 + SIGSYS, 0 },
    { "reads nothing elsewhere", NULL, SANDBOX_FILES, true, read_elsewhere, REFUSED, 2 },
    { "delivers into its directory", NULL, SANDBOX_FILES, true, deliver, ALLOWED, 0 },
    { "connects where it may", NULL, SANDBOX_CONNECT, false, connect_as_ruled, ALLOWED, 0 },
    { "connects nowhere else", NULL, SANDBOX_CONNECT, false, connect_elsewhere, REFUSED, 4 },
    /* The kernel of a stock Debian 12: ABI 2. */
    { "delivers at ABI 2", "landlock=2,no-guard-advice", SANDBOX_FILES, true, deliver, ALLOWED, 0 },
    { "reads nothing elsewhere at ABI 2", "landlock=2", SANDBOX_FILES, true, read_elsewhere, REFUSED, 2 },
    { "cannot bound ports at ABI 2", "landlock=2", SANDBOX_CONNECT, false, connect_elsewhere, ALLOWED, 0 },
    /* ABI 1 cannot allow a mailbox's rename: no Landlock for it, but for the others. */
    { "delivers at ABI 1", "landlock=1", SANDBOX_FILES, true, deliver, ALLOWED, 0 },
    { "is not bounded there", "landlock=1", SANDBOX_FILES, true, read_elsewhere, ALLOWED, 0 },
    { "is bounded without renames", "landlock=1", SANDBOX_FILES, false, read_elsewhere, REFUSED, 1 },
    { "delivers without Landlock", "landlock=0", SANDBOX_FILES, true, deliver, ALLOWED, 0 },
    { "makes no socket without Landlock", "landlock=0", 0, false, make_a_socket, 256 + SIGSYS, 0 },
};

/* ---- running them ------------------------------------------------------------------------------------------------ */

struct in_child {
    const struct attempt *attempt;
    const char *dir;
    bool thread_first; /* a helper thread exists already when the sandbox is entered */
    struct sandbox_report report;
    int result;
};

static void
enter_and_act(struct rt *rt, void *arg)
{
    struct in_child *c = arg;
    static const uint16_t port_one[] = { 1 };
    struct sandbox_path path = { c->dir, HANDLE_NONE, SANDBOX_READ | SANDBOX_WRITE };
    struct sandbox_rules rules = {
        .calls = c->attempt->calls,
        .paths = &path,
        .path_count = 1,
        .renames_between_dirs = c->attempt->renames_between_dirs,
        .connect = { .ports = port_one, .count = 1 },
    };
    int number = 0;

    c->result = ODD;
    if (c->thread_first && err_is(rt_offload(rt, allocate, &number, FOREVER)))
        return;
    if (err_is(sandbox_enter(rt, &rules, &c->report)) || !c->report.calls || !c->report.no_new_privileges)
        return;
    c->result = c->attempt->act(rt, c->dir);
}

static void
prepare_descriptors(void)
{
    struct sockaddr_in any = { .sin_family = AF_INET };
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), ends[2];

    any.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK(bind(listener, (struct sockaddr *)&any, sizeof any) == 0 && listen(listener, 1) == 0);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    CHECK(dup2(listener, LISTENER) == LISTENER);
    CHECK(dup2(ends[0], PAIR) == PAIR && dup2(ends[1], PAIR + 1) == PAIR + 1);
}

static int
run_attempt(const struct attempt *a, const char *dir, bool thread_first)
{
    int status;

    fflush(stdout);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        struct in_child c = { .attempt = a, .dir = dir, .thread_first = thread_first };
        prepare_descriptors();
        if (a->pretend)
            CHECK(setenv("POSTRIDER_PRETEND", a->pretend, 1) == 0);
        if (err_is(rt_run(enter_and_act, &c)))
            _exit(ODD);
        _exit(c.result);
    }
    CHECK(waitpid(pid, &status, 0) == pid);
    return WIFSIGNALED(status) ? 256 + WTERMSIG(status) : WEXITSTATUS(status);
}

/* What this kernel has, without entering anything here. */
static void
report_only(struct rt *rt, void *arg)
{
    struct sandbox_report *report = arg;
    struct sandbox_rules rules = { .calls = SANDBOX_FILES };

    (void)sandbox_enter(rt, &rules, report);
}

static struct sandbox_report
report_of_child(const char *pretend)
{
    struct sandbox_report report = { 0 };
    int fds[2];

    CHECK(pipe(fds) == 0);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        if (pretend)
            setenv("POSTRIDER_PRETEND", pretend, 1);
        (void)rt_run(report_only, &report);
        _exit(write(fds[1], &report, sizeof report) < 0);
    }
    close(fds[1]);
    CHECK(read(fds[0], &report, sizeof report) == (ssize_t)sizeof report);
    close(fds[0]);
    CHECK(waitpid(pid, NULL, 0) == pid);
    return report;
}

static void
roles_do_what_they_may(struct test *t)
{
    char dir[] = "/tmp/sandbox_test.XXXXXX", sub[64];
    struct sandbox_report report = report_of_child(NULL);

    CHECK(mkdtemp(dir));
    for (int i = 0; i < 2; i++) {
        snprintf(sub, sizeof sub, "%s/%s", dir, i ? "tmp" : "new");
        CHECK(mkdir(sub, 0700) == 0);
    }
    for (size_t i = 0; i < 2 * (sizeof attempts / sizeof *attempts); i++) {
        const struct attempt *a = &attempts[i / 2];
        test_case(t, a->why);
        if (report.landlock_abi >= a->needs_abi)
            EXPECT_INT(t, run_attempt(a, dir, i % 2), a->wanted);
    }
    for (int i = 0; i < 2; i++) {
        snprintf(sub, sizeof sub, "%s/%s", dir, i ? "tmp" : "new");
        CHECK(rmdir(sub) == 0);
    }
    CHECK(rmdir(dir) == 0);
}

static void
the_report_says_what_is_in_force(struct test *t)
{
    struct sandbox_report full = report_of_child(NULL), old = report_of_child("no-guard-advice,landlock=2");
    struct sandbox_report none = report_of_child("landlock=0");
    char memory[128];
    struct text text = text_init(memory, sizeof memory);

    EXPECT(t, full.no_new_privileges && full.calls);
    EXPECT(t, full.files == (full.landlock_abi >= 1));
    EXPECT(t, full.ports == (full.landlock_abi >= 4));
    EXPECT(t, full.scopes == (full.landlock_abi >= 6));
    EXPECT(t, !old.ports && !old.scopes && !old.guard_advice && old.landlock_abi <= 2);
    EXPECT(t, !none.files && none.landlock_abi == 0 && none.calls);
    sandbox_report_text(&none, &text);
    EXPECT(t, str_starts(text_str(&text), S("no Landlock, seccomp, no new privileges, guard pages by ")));
    text = text_init(memory, sizeof memory);
    sandbox_report_text(&(struct sandbox_report){ .landlock_abi = 4, .files = true, .ports = true }, &text);
    EXPECT_STR(t, text_str(&text),
               S("Landlock 4 (files, ports), no seccomp, new privileges possible, guard pages by mapping"));
}

TEST_MAIN({ "roles do what they may", roles_do_what_they_may },
          { "the report says what is in force", the_report_says_what_is_in_force })
