/* linux_sandbox - see sandbox.h: no new privileges, then Landlock, then seccomp, which would forbid the other two. */
#include "runtime/sandbox.h"

#include "runtime/linux.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <malloc.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#if defined(CONTEXT_ASAN) || defined(CONTEXT_TSAN)
static const bool is_sanitized = true; /* whose own needs are met: it reads /proc, and looks for leaks by ptrace */
#else
static const bool is_sanitized = false;
#endif

/* ---- Landlock ---------------------------------------------------------------------------------------------------- */

/* As of ABI 6; Debian 12's header stops at 2. Older kernels are given the part that they know. */
struct ruleset {
    uint64_t files, ports, scopes;
};
struct port_rule {
    uint64_t access, port;
};
enum {
    RULE_PORT = 2,
    PORT_BIND = 1,
    PORT_CONNECT = 2,
    SCOPE_ABSTRACT_SOCKETS = 1,
    SCOPE_SIGNALS = 2,
    FILE_TRUNCATE_RIGHT = 1 << 14, /* ABI 3 */
    FILE_IOCTL_RIGHT = 1 << 15,    /* ABI 5 */
    FILES_OF_ABI_1 = (1 << 13) - 1,
};

enum {
    READ_FILE = LANDLOCK_ACCESS_FS_READ_FILE,
    READ_DIR = LANDLOCK_ACCESS_FS_READ_DIR,
    WRITE_FILE = LANDLOCK_ACCESS_FS_WRITE_FILE | FILE_TRUNCATE_RIGHT,
    WRITE_DIR = LANDLOCK_ACCESS_FS_REMOVE_DIR | LANDLOCK_ACCESS_FS_REMOVE_FILE | LANDLOCK_ACCESS_FS_MAKE_DIR
                | LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_MAKE_SOCK | LANDLOCK_ACCESS_FS_REFER,
};

static int
landlock_abi(void)
{
    long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    int most = (int)world_pretended("landlock", INT32_MAX);

    return abi < 0 ? 0 : abi < most ? (int)abi : most;
}

static uint64_t
files_of_abi(int abi)
{
    return FILES_OF_ABI_1 | (abi >= 2 ? LANDLOCK_ACCESS_FS_REFER : 0u) | (abi >= 3 ? FILE_TRUNCATE_RIGHT : 0u)
           | (abi >= 5 ? FILE_IOCTL_RIGHT : 0u);
}

static struct err
allow_path(int ruleset, uint64_t handled, const struct sandbox_path *p)
{
    struct landlock_path_beneath_attr rule = { .parent_fd = p->handle.number };
    struct stat st;
    struct err e = OK;

    if (p->path)
        rule.parent_fd = open(p->path, O_PATH | O_CLOEXEC);
    if (rule.parent_fd < 0 || fstat(rule.parent_fd, &st) < 0)
        return err_here("open what the sandbox allows");
    uint64_t access = (p->access & SANDBOX_READ ? READ_FILE | READ_DIR : 0u)
                      | (p->access & SANDBOX_WRITE ? WRITE_FILE | WRITE_DIR : 0u);
    if (!S_ISDIR(st.st_mode)) /* rights of directories are refused for a file */
        access &= READ_FILE | WRITE_FILE;
    rule.allowed_access = access & handled;
    if (rule.allowed_access && syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) < 0)
        e = err_here("allow a path in the sandbox");
    if (p->path)
        close(rule.parent_fd);
    return e;
}

static struct err
allow_ports(int ruleset, uint64_t access, const struct sandbox_ports *ports)
{
    for (size_t i = 0; !ports->all && i < ports->count; i++) {
        struct port_rule rule = { access, ports->ports[i] };
        if (syscall(SYS_landlock_add_rule, ruleset, RULE_PORT, &rule, 0) < 0)
            return err_here("allow a port in the sandbox");
    }
    return OK;
}

static struct err
fill_ruleset(int fd, const struct ruleset *handled, const struct sandbox_rules *rules)
{
    static const struct sandbox_path proc = { "/proc", { -1 }, SANDBOX_READ };

    for (size_t i = 0; i < rules->path_count; i++)
        TRY(allow_path(fd, handled->files, &rules->paths[i]));
    if (is_sanitized)
        TRY(allow_path(fd, handled->files, &proc));
    if (handled->ports & PORT_CONNECT)
        TRY(allow_ports(fd, PORT_CONNECT, &rules->connect));
    if (handled->ports & PORT_BIND)
        TRY(allow_ports(fd, PORT_BIND, &rules->bind));
    return OK;
}

static struct err
enter_landlock(const struct sandbox_rules *rules, struct sandbox_report *report)
{
    int abi = report->landlock_abi = landlock_abi();

    /* ABI 1 has no right for a rename to another directory: it forbids all of them. */
    if (abi == 0 || (abi == 1 && rules->renames_between_dirs))
        return OK;
    struct ruleset handled = { .files = files_of_abi(abi) };
    size_t size = sizeof handled.files;
    if (abi >= 4) {
        size += sizeof handled.ports;
        handled.ports = (rules->connect.all ? 0u : PORT_CONNECT) | (rules->bind.all ? 0u : PORT_BIND);
    }
    if (abi >= 6) {
        size += sizeof handled.scopes;
        handled.scopes = SCOPE_ABSTRACT_SOCKETS | SCOPE_SIGNALS;
    }
    int fd = (int)syscall(SYS_landlock_create_ruleset, &handled, size, 0);
    if (fd < 0)
        return err_here("make a Landlock ruleset");
    struct err e = fill_ruleset(fd, &handled, rules);
    if (!err_is(e) && syscall(SYS_landlock_restrict_self, fd, 0) < 0)
        e = err_here("enter the Landlock ruleset");
    close(fd);
    TRY(e);
    report->files = true;
    report->ports = abi >= 4;
    report->scopes = abi >= 6;
    return OK;
}

/* ---- seccomp ----------------------------------------------------------------------------------------------------- */

enum { ALWAYS = 0, SANITIZED = 1 << 30 };

/* What a group may call; those with conditions on their arguments follow below. */
static const struct {
    unsigned group; /* ALWAYS, SANITIZED, enum sandbox_calls */
    int call;
} allowed[] = {
    /* what is open */
    { ALWAYS, SCMP_SYS(read) }, { ALWAYS, SCMP_SYS(write) }, { ALWAYS, SCMP_SYS(readv) }, { ALWAYS, SCMP_SYS(writev) },
    { ALWAYS, SCMP_SYS(pread64) }, { ALWAYS, SCMP_SYS(preadv) }, { ALWAYS, SCMP_SYS(lseek) },
    { ALWAYS, SCMP_SYS(close) }, { ALWAYS, SCMP_SYS(fstat) }, { ALWAYS, SCMP_SYS(newfstatat) },
    { ALWAYS, SCMP_SYS(recvfrom) }, { ALWAYS, SCMP_SYS(recvmsg) }, { ALWAYS, SCMP_SYS(sendto) },
    { ALWAYS, SCMP_SYS(sendmsg) }, { ALWAYS, SCMP_SYS(shutdown) }, { ALWAYS, SCMP_SYS(getsockopt) },
    { ALWAYS, SCMP_SYS(setsockopt) }, { ALWAYS, SCMP_SYS(getsockname) }, { ALWAYS, SCMP_SYS(getpeername) },
    /* waiting */
    { ALWAYS, SCMP_SYS(epoll_wait) }, { ALWAYS, SCMP_SYS(epoll_pwait) }, { ALWAYS, SCMP_SYS(epoll_ctl) },
    { ALWAYS, SCMP_SYS(epoll_create1) }, { ALWAYS, SCMP_SYS(eventfd2) }, { ALWAYS, SCMP_SYS(signalfd4) },
    { ALWAYS, SCMP_SYS(poll) }, { ALWAYS, SCMP_SYS(ppoll) }, { ALWAYS, SCMP_SYS(nanosleep) },
    { ALWAYS, SCMP_SYS(clock_nanosleep) }, { ALWAYS, SCMP_SYS(futex) }, { ALWAYS, SCMP_SYS(sched_yield) },
    /* time, randomness, memory, who we are */
    { ALWAYS, SCMP_SYS(clock_gettime) }, { ALWAYS, SCMP_SYS(clock_getres) }, { ALWAYS, SCMP_SYS(gettimeofday) },
    { ALWAYS, SCMP_SYS(time) }, { ALWAYS, SCMP_SYS(getrandom) }, { ALWAYS, SCMP_SYS(brk) },
    { ALWAYS, SCMP_SYS(munmap) }, { ALWAYS, SCMP_SYS(mremap) }, { ALWAYS, SCMP_SYS(madvise) },
    { ALWAYS, SCMP_SYS(getpid) }, { ALWAYS, SCMP_SYS(gettid) }, { ALWAYS, SCMP_SYS(getuid) },
    { ALWAYS, SCMP_SYS(geteuid) }, { ALWAYS, SCMP_SYS(getgid) }, { ALWAYS, SCMP_SYS(getegid) },
    { ALWAYS, SCMP_SYS(getrusage) }, { ALWAYS, SCMP_SYS(sysinfo) }, { ALWAYS, SCMP_SYS(uname) },
    { ALWAYS, SCMP_SYS(sched_getaffinity) },
    /* threads and signals of our own, and the end */
    { ALWAYS, SCMP_SYS(set_robust_list) }, { ALWAYS, SCMP_SYS(rseq) }, { ALWAYS, SCMP_SYS(membarrier) },
    { ALWAYS, SCMP_SYS(rt_sigaction) }, { ALWAYS, SCMP_SYS(rt_sigprocmask) }, { ALWAYS, SCMP_SYS(rt_sigreturn) },
    { ALWAYS, SCMP_SYS(sigaltstack) }, { ALWAYS, SCMP_SYS(restart_syscall) }, { ALWAYS, SCMP_SYS(exit) },
    { ALWAYS, SCMP_SYS(exit_group) },

    { SANDBOX_ACCEPT, SCMP_SYS(accept4) }, { SANDBOX_ACCEPT, SCMP_SYS(accept) },

    { SANDBOX_CONNECT, SCMP_SYS(connect) }, { SANDBOX_CONNECT, SCMP_SYS(bind) },
    { SANDBOX_CONNECT, SCMP_SYS(sendmmsg) }, { SANDBOX_CONNECT, SCMP_SYS(recvmmsg) },

    { SANDBOX_FILES, SCMP_SYS(openat2) }, { SANDBOX_FILES, SCMP_SYS(openat) }, { SANDBOX_FILES, SCMP_SYS(open) },
    { SANDBOX_FILES, SCMP_SYS(mkdirat) }, { SANDBOX_FILES, SCMP_SYS(renameat) }, { SANDBOX_FILES, SCMP_SYS(renameat2) },
    { SANDBOX_FILES, SCMP_SYS(unlinkat) }, { SANDBOX_FILES, SCMP_SYS(fsync) }, { SANDBOX_FILES, SCMP_SYS(fdatasync) },
    { SANDBOX_FILES, SCMP_SYS(ftruncate) }, { SANDBOX_FILES, SCMP_SYS(fallocate) },
    { SANDBOX_FILES, SCMP_SYS(fadvise64) }, { SANDBOX_FILES, SCMP_SYS(getdents64) },
    { SANDBOX_FILES, SCMP_SYS(fstatfs) }, { SANDBOX_FILES, SCMP_SYS(flock) }, { SANDBOX_FILES, SCMP_SYS(pwrite64) },
    { SANDBOX_FILES, SCMP_SYS(pwritev) }, { SANDBOX_FILES, SCMP_SYS(stat) }, { SANDBOX_FILES, SCMP_SYS(lstat) },
    { SANDBOX_FILES, SCMP_SYS(statx) },

    { SANITIZED, SCMP_SYS(open) }, { SANITIZED, SCMP_SYS(openat) }, { SANITIZED, SCMP_SYS(readlink) },
    { SANITIZED, SCMP_SYS(readlinkat) }, { SANITIZED, SCMP_SYS(stat) }, { SANITIZED, SCMP_SYS(getdents64) },
    { SANITIZED, SCMP_SYS(getdents) }, { SANITIZED, SCMP_SYS(clone) }, { SANITIZED, SCMP_SYS(prctl) },
    { SANITIZED, SCMP_SYS(ptrace) }, { SANITIZED, SCMP_SYS(wait4) }, { SANITIZED, SCMP_SYS(getppid) },
    { SANITIZED, SCMP_SYS(mmap) }, { SANITIZED, SCMP_SYS(mprotect) }, { SANITIZED, SCMP_SYS(process_vm_readv) },
    { SANITIZED, SCMP_SYS(tkill) }, { SANITIZED, SCMP_SYS(ioctl) }, { SANITIZED, SCMP_SYS(arch_prctl) },
    { SANITIZED, SCMP_SYS(prlimit64) }, { SANITIZED, SCMP_SYS(dup) },
};

/* Allowed if argument `arg`, masked, has the value. */
static const struct {
    unsigned group;
    int call;
    unsigned arg;
    uint64_t mask, value;
} conditional[] = {
    /* no code that was data before */
    { ALWAYS, SCMP_SYS(mmap), 2, PROT_EXEC, 0 },
    { ALWAYS, SCMP_SYS(mprotect), 2, PROT_EXEC, 0 },
    /* threads, no processes */
    { ALWAYS, SCMP_SYS(clone), 0, CLONE_THREAD, CLONE_THREAD },
    { ALWAYS, SCMP_SYS(prctl), 0, UINT64_MAX, PR_SET_NAME },
    { ALWAYS, SCMP_SYS(prlimit64), 2, UINT64_MAX, 0 }, /* ask, not set */
    { ALWAYS, SCMP_SYS(fcntl), 1, UINT64_MAX, F_GETFL },
    { ALWAYS, SCMP_SYS(fcntl), 1, UINT64_MAX, F_SETFL },
    { ALWAYS, SCMP_SYS(fcntl), 1, UINT64_MAX, F_GETFD },
    { ALWAYS, SCMP_SYS(fcntl), 1, UINT64_MAX, F_SETFD },
    { ALWAYS, SCMP_SYS(fcntl), 1, UINT64_MAX, F_DUPFD_CLOEXEC },
    { ALWAYS, SCMP_SYS(ioctl), 1, UINT64_MAX, FIONBIO },
    { ALWAYS, SCMP_SYS(ioctl), 1, UINT64_MAX, FIONREAD },
    { ALWAYS, SCMP_SYS(ioctl), 1, UINT64_MAX, TCGETS }, /* isatty(): stdio's */
    { SANDBOX_CONNECT, SCMP_SYS(socket), 0, UINT64_MAX, AF_INET },
    { SANDBOX_CONNECT, SCMP_SYS(socket), 0, UINT64_MAX, AF_INET6 },
    { SANDBOX_CONNECT_UNIX, SCMP_SYS(socket), 0, UINT64_MAX, AF_UNIX },
    /* libcurl wakes itself by one; an end of a pair of datagrams could send to any Unix socket of datagrams */
    { SANDBOX_CONNECT, SCMP_SYS(socketpair), 1, 0xf, SOCK_STREAM },
};

static bool
has_group(const struct sandbox_rules *rules, unsigned group)
{
    return group == ALWAYS || (group == SANITIZED && is_sanitized) || (rules->calls & group & ~(unsigned)SANITIZED);
}

static bool
allows_always(const struct sandbox_rules *rules, int call)
{
    for (size_t i = 0; i < sizeof allowed / sizeof *allowed; i++)
        if (allowed[i].call == call && has_group(rules, allowed[i].group))
            return true;
    return false;
}

/* 0, or a negative errno as libseccomp has it. Calls that this machine does not have are negative and left out. */
static int
fill_filter(scmp_filter_ctx filter, const struct sandbox_rules *rules)
{
    int failed = 0;

    for (size_t i = 0; !failed && i < sizeof allowed / sizeof *allowed; i++)
        if (allowed[i].call >= 0 && has_group(rules, allowed[i].group))
            failed = seccomp_rule_add(filter, SCMP_ACT_ALLOW, allowed[i].call, 0);
    for (size_t i = 0; !failed && i < sizeof conditional / sizeof *conditional; i++)
        if (conditional[i].call >= 0 && has_group(rules, conditional[i].group)
            && !allows_always(rules, conditional[i].call))
            failed = seccomp_rule_add(filter, SCMP_ACT_ALLOW, conditional[i].call, 1,
                                      SCMP_CMP64(conditional[i].arg, SCMP_CMP_MASKED_EQ, conditional[i].mask,
                                                 conditional[i].value));
    /* abort() ends this process; without the condition a role could end the others, which run as the same user. */
    if (!failed)
        failed = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1,
                                  SCMP_A0_64(SCMP_CMP_EQ, (scmp_datum_t)getpid()));
    /* The server's own belong to the user that roles run as. An error only: glibc asks nscd before it does the work itself. */
    if (!failed && has_group(rules, SANDBOX_CONNECT) && !has_group(rules, SANDBOX_CONNECT_UNIX))
        failed = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EACCES), SCMP_SYS(socket), 1, SCMP_A0_64(SCMP_CMP_EQ, AF_UNIX));
    /* Its flags lie in memory, where no filter can look: glibc then takes clone(). */
    if (!failed)
        failed = seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
    return failed;
}

static struct err
enter_seccomp(const struct sandbox_rules *rules, struct sandbox_report *report)
{
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_KILL_PROCESS);

    if (!filter)
        return ERR(ERR_NO_MEMORY, "make a seccomp filter");
    int failed = seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1);
    if (!failed)
        failed = fill_filter(filter, rules);
    if (!failed) /* the most frequent calls first: a tree, not a list */
        failed = seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2);
    if (!failed) {
        int refused = seccomp_load(filter);
        report->calls = refused == 0;
        if (refused != -ENOSYS && refused != -EINVAL && refused != -EOPNOTSUPP) /* a kernel without it */
            failed = refused;
    }
    seccomp_release(filter);
    return failed ? err_from_os(-failed, "enter the seccomp filter") : OK;
}

/* ---- both -------------------------------------------------------------------------------------------------------- */

struct err
sandbox_enter(struct rt *rt, const struct sandbox_rules *rules, struct sandbox_report *out_report)
{
    struct world *w = world_of(rt);

    *out_report = (struct sandbox_report){ .guard_advice = rt->stacks.guard_by_advice };
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return err_here("give up new privileges");
    out_report->no_new_privileges = true;
    rt_lanes_stop(w); /* Landlock would not reach their threads */
    /* malloc counts processors in /sys before a thread's first arena, unless it is told how many arenas to make. */
    (void)mallopt(M_ARENA_MAX, 4);
    tzset(); /* gmtime_r() opens /etc/localtime at its first call, and OpenSSL calls it for each certificate that it verifies */
    TRY(enter_landlock(rules, out_report));
    return enter_seccomp(rules, out_report);
}

static void
put_item(struct text *out, bool *first, struct str item)
{
    if (!*first)
        text_put(out, S(", "));
    text_put(out, item);
    *first = false;
}

void
sandbox_report_text(const struct sandbox_report *r, struct text *out)
{
    bool first = true;

    if (r->landlock_abi > 0) {
        text_putf(out, "Landlock %d (", r->landlock_abi);
        if (r->files)
            put_item(out, &first, S("files"));
        if (r->ports)
            put_item(out, &first, S("ports"));
        if (r->scopes)
            put_item(out, &first, S("scopes"));
        if (first)
            text_put(out, S("nothing"));
        text_put(out, S(")"));
    } else {
        text_put(out, S("no Landlock"));
    }
    text_put(out, r->calls ? S(", seccomp") : S(", no seccomp"));
    text_put(out, r->no_new_privileges ? S(", no new privileges") : S(", new privileges possible"));
    text_put(out, r->guard_advice ? S(", guard pages by advice") : S(", guard pages by mapping"));
}
