/*
 * linux_log - how log lines leave: gathered in a ring, written when the reactor turns, never waited for.
 *
 * Standard error is shared with other processes, often with the shell, so its mode is not ours to change (O_NONBLOCK
 * is a property of the open file, not of the descriptor). A socket is sent to with MSG_DONTWAIT. A terminal or pipe is
 * opened again, with a mode of our own; where that is not allowed it is asked with poll() before each write. A file
 * never waits.
 */
#include "runtime/log_sink.h"

#include "runtime/linux.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    RING_BYTES = 256 << 10,
    LAST_WORDS_MS = 500, /* the end waits this long for a slow reader */
};
#define HELD_TELL_NS (10 * SECOND)

/* Lines wait in ring[from, to), never wrapped: what is left moves to the front when there is no room behind it. */
struct linux_log {
    struct log_sink sink;
    struct source source; /* registered while a reader is slow */
    struct world *world;
    int fd;
    bool own_fd, is_socket, must_ask, blocked;
    int64_t held_told_at, held_times; /* since then */
    size_t from, to;
    char ring[RING_BYTES];
};

static bool
put(struct log_sink *sink, struct str line)
{
    struct linux_log *log = container_of(sink, struct linux_log, sink);

    if (log->to - log->from + line.len > sizeof log->ring)
        return false;
    if (log->to + line.len > sizeof log->ring) {
        memmove(log->ring, log->ring + log->from, log->to - log->from);
        log->to -= log->from;
        log->from = 0;
    }
    memcpy(log->ring + log->to, line.ptr, line.len);
    log->to += line.len;
    return true;
}

/* As many whole lines as reach a pipe in one piece. */
static struct str
next_lines(const struct linux_log *log)
{
    struct str all = str_new(log->ring + log->from, log->to - log->from);

    if (all.len > LOG_LINE_BYTES) {
        all.len = LOG_LINE_BYTES;
        all.len = str_find_last_byte(all, '\n') + 1;
    }
    return all;
}

static bool
is_writable(const struct linux_log *log)
{
    struct pollfd p = { .fd = log->fd, .events = POLLOUT };

    return !log->must_ask || (poll(&p, 1, 0) == 1 && (p.revents & POLLOUT));
}

/* Writes what goes without waiting. False: the reader is slow. */
static bool
write_now(struct linux_log *log)
{
    while (log->from < log->to) {
        struct str lines = next_lines(log);
        ssize_t n;

        if (!is_writable(log))
            return false;
        if (log->is_socket)
            n = send(log->fd, lines.ptr, lines.len, MSG_DONTWAIT | MSG_NOSIGNAL);
        else
            n = write(log->fd, lines.ptr, lines.len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return false;
        if (n < 0) /* nobody reads it any more, or the disk is full: there is nowhere to say so */
            n = (ssize_t)lines.len;
        log->from += (size_t)n;
    }
    log->from = log->to = 0;
    return true;
}

static void
reader_is_ready(struct source *s, uint32_t events)
{
    struct linux_log *log = container_of(s, struct linux_log, source);

    (void)events;
    if (log->blocked && write_now(log)) {
        log->blocked = false;
        source_change(log->world, &log->source, 0);
    }
}

static void
source_is_embedded(struct world *w, struct source *s)
{
    (void)w;
    (void)s;
}

void
log_flush(struct world *w)
{
    struct linux_log *log = w->log;

    if (log->from == log->to || log->blocked || write_now(log))
        return;
    if (log->source.fd >= 0) {
        source_change(w, &log->source, EPOLLOUT);
        log->blocked = true;
    } else {
        log->blocked = !err_is(source_add(w, &log->source, log->fd, EPOLLOUT));
    }
}

void
log_open(struct world *w)
{
    struct linux_log *log = mem_new(&w->mem, struct linux_log);
    struct stat st = { 0 };

    w->log = log;
    log->world = w;
    log->source = (struct source){ .ready = reader_is_ready, .free = source_is_embedded, .fd = -1 };
    log_sink_init(&log->sink, &w->rt, put);
    log->sink.pid = (uint32_t)getpid();
    log->sink.readable = isatty(STDERR_FILENO);
    log->fd = STDERR_FILENO;
    (void)fstat(STDERR_FILENO, &st);
    log->is_socket = S_ISSOCK(st.st_mode);
    if (S_ISFIFO(st.st_mode) || S_ISCHR(st.st_mode)) {
        int fd = open("/proc/self/fd/2", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
        log->own_fd = fd >= 0;
        log->must_ask = fd < 0;
        if (fd >= 0)
            log->fd = fd;
    }
}

void
log_close(struct world *w)
{
    struct linux_log *log = w->log;
    struct pollfd p = { .fd = log->fd, .events = POLLOUT };

    if (!write_now(log) && poll(&p, 1, LAST_WORDS_MS) == 1)
        (void)write_now(log);
    if (log->source.fd >= 0)
        source_retire(w, &log->source);
    if (log->own_fd)
        close(log->fd);
}

void
log_free(struct world *w)
{
    mem_free(&w->mem, w->log, sizeof *w->log);
    w->log = NULL;
    w->rt.log = NULL;
}

/* A fiber held the reactor: the others waited. On a busy machine that can be the machine's doing: it is said rarely. */
void
log_held(struct rt *rt, const char *fiber_name, int64_t ns)
{
    struct linux_log *log = world_of(rt)->log;
    struct log_line line;

    log->held_times++;
    if (rt->now < log->held_told_at + HELD_TELL_NS && log->held_told_at > 0)
        return;
    log_begin(&line, rt, LOG_WARNING, "fiber-held-reactor");
    log_str(&line, "fiber", str_from_cstr(fiber_name));
    log_seconds(&line, "seconds", ns);
    log_int(&line, "times", log->held_times);
    log_end(&line);
    log->held_told_at = rt->now;
    log->held_times = 0;
}
