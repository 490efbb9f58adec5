/*
 * linux_process - children and signals.
 *
 * A child is watched by its pidfd, so no SIGCHLD handler and no number that may be another process by now. The image
 * is the one that this process was started from, even if the file was replaced since: an upgrade never mixes versions.
 */
#include "runtime/linux.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { FIRST_HANDLE = 3 }; /* of a child: after standard input, output and error */

struct child {
    struct source source; /* the pidfd: readable when it has ended */
    struct rt *rt;
    struct event ended;
    struct list in_released;
    pid_t pid;
    bool has_ended, released;
};

static void
source_is_embedded(struct world *w, struct source *s)
{
    (void)w;
    (void)s;
}

/* ---- signals ----------------------------------------------------------------------------------------------------- */

static void
signal_ready(struct source *s, uint32_t events)
{
    struct world *w = container_of(s, struct world, signals);

    (void)events;
    event_wake(&w->rt, &w->signal_came);
}

struct err
rt_catch_signals(struct rt *rt, const int *signals, size_t count)
{
    struct world *w = world_of(rt);

    for (size_t i = 0; i < count; i++)
        CHECK(sigaddset(&w->caught, signals[i]) == 0);
    CHECK(pthread_sigmask(SIG_BLOCK, &w->caught, NULL) == 0);
    bool is_new = w->signals.fd < 0;
    int fd = signalfd(w->signals.fd, &w->caught, SFD_CLOEXEC | SFD_NONBLOCK);
    if (fd < 0)
        return err_here("catch signals");
    return is_new ? source_add(w, &w->signals, fd, EPOLLIN | EPOLLET) : OK;
}

struct err
rt_wait_signal(struct rt *rt, int64_t until, int *out_signal)
{
    struct world *w = world_of(rt);
    struct signalfd_siginfo info;

    CHECK(w->signals.fd >= 0); /* rt_catch_signals() came before */
    while (read(w->signals.fd, &info, sizeof info) < 0) {
        if (errno == EINTR)
            continue;
        if (errno != EAGAIN)
            return err_here("read signals");
        TRY(event_wait(rt, &w->signal_came, until));
    }
    *out_signal = (int)info.ssi_signo;
    return OK;
}

/* ---- children ---------------------------------------------------------------------------------------------------- */

static bool
reap(struct child *c, int *out_status)
{
    siginfo_t info = { 0 };

    if (waitid(P_PIDFD, (id_t)c->source.fd, &info, WEXITED | WNOHANG) < 0 || info.si_pid == 0)
        return false;
    *out_status = info.si_code == CLD_EXITED ? info.si_status : 256 + info.si_status;
    return true;
}

static void
child_forget(struct child *c)
{
    int fd = c->source.fd;

    source_retire(world_of(c->rt), &c->source);
    close(fd);
}

static void
child_ready(struct source *s, uint32_t events)
{
    struct child *c = container_of(s, struct child, source);
    int status;

    (void)events;
    c->has_ended = true;
    event_wake(c->rt, &c->ended);
    if (c->released && reap(c, &status)) {
        list_remove(&c->in_released);
        child_forget(c);
    }
}

static void
child_free(struct world *w, struct source *s)
{
    mem_free(&w->mem, container_of(s, struct child, source), sizeof(struct child));
}

/* After fork(): only system calls from here on; a thread of ours may have held malloc's lock. */

static bool
keep_net_bind(void)
{
    struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
    struct __user_cap_data_struct data[2] = { 0 };

    data[0].permitted = data[0].effective = data[0].inheritable = 1u << CAP_NET_BIND_SERVICE;
    return syscall(SYS_capset, &header, data) == 0
           && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_NET_BIND_SERVICE, 0, 0) == 0;
}

static bool
become(const struct spawn *spawn)
{
    if (!spawn->set_ids)
        return true;
    if (spawn->keep_net_bind && prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0)
        return false;
    /* The raw calls: glibc's would ask every thread to change too, and there are none here. */
    if (syscall(SYS_setgroups, 0, NULL) < 0 || syscall(SYS_setresgid, spawn->gid, spawn->gid, spawn->gid) < 0
        || syscall(SYS_setresuid, spawn->uid, spawn->uid, spawn->uid) < 0)
        return false;
    return !spawn->keep_net_bind || keep_net_bind();
}

/* Puts from[i] to number FIRST_HANDLE + i: first all out of the way, so that none is overwritten before its turn. */
static bool
arrange(const int *from, int *moved, int count)
{
    for (int i = 0; i < count; i++)
        if ((moved[i] = fcntl(from[i], F_DUPFD_CLOEXEC, FIRST_HANDLE + count)) < 0)
            return false;
    for (int i = 0; i < count; i++)
        if (dup2(moved[i], FIRST_HANDLE + i) < 0)
            return false;
    return true;
}

enum { SPAWN_HANDLES_MAX = 256, SPAWN_OWN = 2 }; /* our own: the image, the pipe that says what failed */

struct spawn_descriptors {
    int from[SPAWN_HANDLES_MAX + SPAWN_OWN], moved[SPAWN_HANDLES_MAX + SPAWN_OWN];
    int count;
};

_Noreturn static void
be_the_child(const struct spawn *spawn, struct spawn_descriptors *d)
{
    static const struct sigaction as_usual = { .sa_handler = SIG_DFL };
    int image = FIRST_HANDLE + d->count - 2, report = FIRST_HANDLE + d->count - 1;
    sigset_t none;
    int failure;

    sigemptyset(&none);
    for (int i = 1; i < NSIG; i++)
        (void)sigaction(i, &as_usual, NULL);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    if (!arrange(d->from, d->moved, d->count)) {
        report = d->from[d->count - 1];
        goto failed;
    }
    (void)fcntl(image, F_SETFD, FD_CLOEXEC);
    (void)fcntl(report, F_SETFD, FD_CLOEXEC);
    if (syscall(SYS_close_range, (unsigned)(FIRST_HANDLE + d->count), ~0u, 0u) < 0)
        goto failed;
    if (!become(spawn))
        goto failed;
    if (spawn->program)
        execve(spawn->program, (char *const *)(uintptr_t)spawn->argv, environ);
    else
        execveat(image, "", (char *const *)(uintptr_t)spawn->argv, environ, AT_EMPTY_PATH);
failed:
    failure = errno;
    if (write(report, &failure, sizeof failure) < 0)
        _exit(126);
    _exit(127);
}

/* What the child said before its image began: nothing (the pipe closed), or the errno of what failed. */
static struct err
hear_child(int fd)
{
    int failure = 0;
    ssize_t n;

    do
        n = read(fd, &failure, sizeof failure);
    while (n < 0 && errno == EINTR);
    return n == (ssize_t)sizeof failure ? err_from_os(failure, "start a process") : OK;
}

struct err
child_start(struct rt *rt, const struct spawn *spawn, struct child **out)
{
    struct world *w = world_of(rt);
    struct spawn_descriptors d = { .count = 0 };
    int report[2];

    CHECK(spawn->handle_count <= SPAWN_HANDLES_MAX);
    if (w->image_fd < 0 && !spawn->program)
        return ERR(ERR_NOT_FOUND, "open the running program");
    if (pipe2(report, O_CLOEXEC) < 0)
        return err_here("start a process");
    for (size_t i = 0; i < spawn->handle_count; i++)
        d.from[d.count++] = spawn->handles[i].number;
    d.from[d.count++] = w->image_fd >= 0 ? w->image_fd : report[1];
    d.from[d.count++] = report[1];

    pid_t pid = fork();
    if (pid == 0)
        be_the_child(spawn, &d);
    struct err e = pid < 0 ? err_here("start a process") : OK;
    close(report[1]);
    if (!err_is(e))
        e = hear_child(report[0]);
    w->rt.now = w->rt.clock(rt); /* on a busy machine that took its time, and deadlines set now count from now */
    close(report[0]);
    int fd = pid > 0 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;
    if (!err_is(e) && fd < 0)
        e = err_here("watch a process");
    struct child *c = mem_new(&w->mem, struct child);
    *c = (struct child){ .source = { .ready = child_ready, .free = child_free, .fd = fd }, .rt = rt, .pid = pid };
    event_init(&c->ended);
    if (!err_is(e))
        e = source_add(w, &c->source, fd, EPOLLIN | EPOLLET);
    if (err_is(e)) {
        if (pid > 0) {
            kill(pid, SIGKILL);
            waitpid(pid, NULL, 0);
        }
        if (fd >= 0)
            close(fd);
        mem_free(&w->mem, c, sizeof *c);
        return e;
    }
    *out = c;
    return OK;
}

struct err
child_wait(struct child *c, int64_t until, int *out_status)
{
    CHECK(!c->released);
    while (!c->has_ended)
        TRY(event_wait(c->rt, &c->ended, until));
    CHECK(reap(c, out_status));
    child_forget(c);
    return OK;
}

void
child_signal(struct child *c, int signal)
{
    (void)syscall(SYS_pidfd_send_signal, c->source.fd, signal, NULL, 0); /* fails when it has ended: as good */
}

uint32_t
child_pid(const struct child *c)
{
    return (uint32_t)c->pid;
}

void
child_release(struct child *c)
{
    struct world *w = world_of(c->rt);
    int status;

    CHECK(!c->released);
    c->released = true;
    list_push_back(&w->children, &c->in_released);
    if (c->has_ended && reap(c, &status)) {
        list_remove(&c->in_released);
        child_forget(c);
    }
}

/* ---- the world's part -------------------------------------------------------------------------------------------- */

void
process_init(struct world *w)
{
    CHECK(pthread_sigmask(SIG_SETMASK, NULL, &w->mask_before) == 0);
    sigemptyset(&w->caught);
    w->signals = (struct source){ .ready = signal_ready, .free = source_is_embedded, .fd = -1 };
    event_init(&w->signal_came);
    list_init(&w->children);
    w->image_fd = open("/proc/self/exe", O_PATH | O_CLOEXEC); /* none in a chroot without /proc: no children then */
}

void
process_done(struct world *w)
{
    list_each_safe(node, &w->children) { /* they live on; init reaps them */
        struct child *c = container_of(node, struct child, in_released);
        list_remove(node);
        child_forget(c);
    }
    if (w->signals.fd >= 0) {
        int fd = w->signals.fd;
        struct signalfd_siginfo info;
        while (read(fd, &info, sizeof info) > 0) /* what came and nobody asked for must not strike once unblocked */
            ;
        source_retire(w, &w->signals);
        close(fd);
    }
    if (w->image_fd >= 0)
        close(w->image_fd);
    CHECK(pthread_sigmask(SIG_SETMASK, &w->mask_before, NULL) == 0);
}
