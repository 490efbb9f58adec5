/*
 * linux_stream - TCP and Unix stream sockets, and listeners.
 *
 * A socket is registered once, edge-triggered. A call tries first and parks only when the kernel has said "not now",
 * so a busy connection costs no epoll at all. After a short read the socket is known to be empty and the next read
 * parks without asking, unless something was seen (an end, an error, urgent data, descriptors) that also makes reads
 * short. Writability is asked for only while somebody waits for it: a Unix socket would otherwise wake us each time
 * its peer reads.
 */
#include "runtime/linux.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    WATCH_READS = EPOLLIN | EPOLLRDHUP | EPOLLPRI, /* EPOLLET is added: it does not fit an int */
    PARTS_AT_ONCE = 16,                            /* of a gathered write: an iovec on a fiber's stack */
    LISTEN_BACKLOG = 4096,                         /* the kernel cuts it down to net.core.somaxconn */
};
#define UNIX_BACKLOG_RETRY_NS (10 * MILLISECOND)

struct stream {
    struct source source;
    struct rt *rt;
    struct fiber *reader, *writer; /* who waits */
    bool is_unix;
    bool readable;                 /* as far as we know: a read is worth trying */
    bool distrust_short;           /* a short read says nothing */
    bool asks_writable;            /* EPOLLOUT is registered */
    struct address peer;
};

struct listener {
    struct source source;
    struct rt *rt;
    struct fiber *acceptor;
    bool is_unix;
};

/* ---- addresses --------------------------------------------------------------------------------------------------- */

union socket_address {
    struct sockaddr any;
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
    struct sockaddr_un un;
};

static_assert(sizeof((struct sockaddr_un *)0)->sun_path == sizeof((struct address *)0)->path, "a path fits");

static socklen_t
to_socket_address(const struct address *a, union socket_address *out)
{
    memset(out, 0, sizeof *out);
    switch (a->family) {
    case ADDRESS_IPV4:
        out->in.sin_family = AF_INET;
        out->in.sin_port = htons(a->port);
        memcpy(&out->in.sin_addr, a->ip, 4);
        return sizeof out->in;
    case ADDRESS_IPV6:
        out->in6.sin6_family = AF_INET6;
        out->in6.sin6_port = htons(a->port);
        out->in6.sin6_scope_id = a->scope;
        memcpy(&out->in6.sin6_addr, a->ip, 16);
        return sizeof out->in6;
    case ADDRESS_UNIX:
        out->un.sun_family = AF_UNIX;
        memcpy(out->un.sun_path, a->path, sizeof a->path);
        return sizeof out->un;
    default:
        UNREACHABLE();
    }
}

static struct address
from_socket_address(const union socket_address *from, socklen_t len)
{
    struct address a = { 0 };

    switch (len ? from->any.sa_family : AF_UNSPEC) {
    case AF_INET:
        a.family = ADDRESS_IPV4;
        a.port = ntohs(from->in.sin_port);
        memcpy(a.ip, &from->in.sin_addr, 4);
        break;
    case AF_INET6:
        a.family = ADDRESS_IPV6;
        a.port = ntohs(from->in6.sin6_port);
        a.scope = from->in6.sin6_scope_id;
        memcpy(a.ip, &from->in6.sin6_addr, 16);
        break;
    case AF_UNIX: /* a peer that is bound to nothing has no path */
        a.family = ADDRESS_UNIX;
        if (len > offsetof(struct sockaddr_un, sun_path))
            memcpy(a.path, from->un.sun_path, sizeof a.path - 1);
        break;
    default:
        break;
    }
    return a;
}

static struct address
local_address(int fd)
{
    union socket_address name = { 0 };
    socklen_t len = sizeof name;

    if (getsockname(fd, &name.any, &len) < 0)
        len = 0;
    return from_socket_address(&name, len);
}

static int
set_option(int fd, int level, int option, int value)
{
    return setsockopt(fd, level, option, &value, sizeof value);
}

/* ---- a stream's life --------------------------------------------------------------------------------------------- */

static void
stream_ready(struct source *source, uint32_t events)
{
    struct stream *s = container_of(source, struct stream, source);

    if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR | EPOLLPRI))
        s->distrust_short = true;
    if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR | EPOLLPRI)) {
        s->readable = true;
        if (s->reader)
            sched_wake(s->reader, ERR_NONE);
    }
    if (events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) {
        if (s->writer) {
            sched_wake(s->writer, ERR_NONE);
        } else if (s->asks_writable) {
            s->asks_writable = false;
            source_change(world_of(s->rt), &s->source, WATCH_READS | EPOLLET);
        }
    }
}

static void
stream_free(struct world *w, struct source *source)
{
    mem_free(&w->mem, container_of(source, struct stream, source), sizeof(struct stream));
}

/* Takes the descriptor, also on error. */
static struct err
stream_new(struct rt *rt, int fd, bool connecting, const struct address *peer, struct stream **out)
{
    struct world *w = world_of(rt);
    struct stream *s = mem_new(&w->mem, struct stream);

    *s = (struct stream){
        .source = { .ready = stream_ready, .free = stream_free },
        .rt = rt,
        .is_unix = peer->family == ADDRESS_UNIX,
        .readable = !connecting,
        .asks_writable = connecting,
        .peer = *peer,
    };
    struct err e = source_add(w, &s->source, fd, WATCH_READS | EPOLLET | (connecting ? EPOLLOUT : 0u));
    if (err_is(e)) {
        close(fd);
        mem_free(&w->mem, s, sizeof *s);
        return e;
    }
    *out = s;
    return OK;
}

void
stream_close(struct stream *s)
{
    int fd = s->source.fd;

    if (s->reader)
        sched_wake(s->reader, ERR_CLOSED);
    if (s->writer)
        sched_wake(s->writer, ERR_CLOSED);
    source_retire(world_of(s->rt), &s->source);
    close(fd);
}

void
stream_reset(struct stream *s)
{
    struct linger now = { .l_onoff = 1, .l_linger = 0 };

    (void)setsockopt(s->source.fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    stream_close(s);
}

void
stream_shut_down(struct stream *s)
{
    (void)shutdown(s->source.fd, SHUT_WR); /* fails if the connection is broken: the next read says so */
}

/* Suspends until an event for this direction. On ERR_CLOSED the stream is gone. */
static struct err
wait_for(struct stream *s, struct fiber **waiter, int64_t until, const char *what)
{
    CHECK(!*waiter); /* one fiber reads, one writes */
    *waiter = s->rt->running;
    struct err e = sched_park(s->rt, until, what);
    if (e.kind != ERR_CLOSED)
        *waiter = NULL;
    return e;
}

static struct err
wait_readable(struct stream *s, int64_t until, const char *what)
{
    s->readable = false;
    return wait_for(s, &s->reader, until, what);
}

static struct err
wait_writable(struct stream *s, int64_t until, const char *what)
{
    if (!s->asks_writable) {
        s->asks_writable = true;
        /* Changing a registration reports at once what is true now: nothing is missed in between. */
        source_change(world_of(s->rt), &s->source, WATCH_READS | EPOLLOUT | EPOLLET);
    }
    return wait_for(s, &s->writer, until, what);
}

static struct err
connect_unix(struct rt *rt, int fd, const union socket_address *to, socklen_t len, int64_t until)
{
    while (connect(fd, &to->any, len) < 0) {
        if (errno == EINTR)
            continue;
        if (errno != EAGAIN)
            return err_here("connect");
        /* The listener's backlog is full, and epoll would not tell when it no longer is. */
        int64_t again = within(rt, UNIX_BACKLOG_RETRY_NS);
        if (again > until)
            return ERR(ERR_TIMEOUT, "connect");
        TRY(sched_enter(rt));
        TRY(rt_sleep(rt, again));
    }
    return OK;
}

static struct err
bind_source(int fd, const struct address *from)
{
    union socket_address name;
    socklen_t len = to_socket_address(from, &name);

    if (from->family != ADDRESS_UNIX) /* the port is chosen with the peer in view: more of them last longer */
        (void)set_option(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, from->port == 0);
    return bind(fd, &name.any, len) < 0 ? err_here("bind the source address") : OK;
}

struct err
stream_connect(struct rt *rt, const struct address *to, const struct address *from, int64_t until, struct stream **out)
{
    union socket_address name;
    socklen_t len = to_socket_address(to, &name);
    struct stream *s;
    struct err e = OK;
    bool is_unix = to->family == ADDRESS_UNIX;

    TRY(sched_enter(rt));
    int fd = socket(name.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return err_here("make a socket");
    if (from)
        e = bind_source(fd, from);
    if (!err_is(e) && is_unix)
        e = connect_unix(rt, fd, &name, len, until);
    if (!err_is(e) && !is_unix) {
        (void)set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
        if (connect(fd, &name.any, len) < 0 && errno != EINPROGRESS && errno != EINTR)
            e = err_here("connect");
    }
    if (err_is(e)) {
        close(fd);
        return e;
    }
    TRY(stream_new(rt, fd, !is_unix, to, &s));
    if (!is_unix) {
        int failure = 0;
        socklen_t size = sizeof failure;
        e = wait_writable(s, until, "connect");
        if (!err_is(e) && (getsockopt(fd, SOL_SOCKET, SO_ERROR, &failure, &size) < 0 || failure))
            e = err_from_os(failure ? failure : EIO, "connect");
        s->readable = true;
        if (err_is(e)) {
            stream_close(s);
            return e;
        }
    }
    *out = s;
    return OK;
}

struct err
stream_from_handle(struct rt *rt, struct handle handle, struct stream **out)
{
    union socket_address name = { 0 };
    socklen_t len = sizeof name;
    int fd = handle.number, flags = fcntl(fd, F_GETFL);

    struct address peer = { .family = local_address(fd).family };
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 || peer.family == ADDRESS_NONE) {
        close(fd);
        return ERR(ERR_IO, "take over a socket");
    }
    if (getpeername(fd, &name.any, &len) == 0)
        peer = from_socket_address(&name, len);
    if (peer.family != ADDRESS_UNIX)
        (void)set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    return stream_new(rt, fd, false, &peer, out);
}

struct err
stream_pair(struct rt *rt, struct handle out[2])
{
    int fds[2];

    (void)rt;
    /* They wait, as programs expect that get one as a descriptor; stream_from_handle() changes that for us. */
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
        return err_here("make a socket pair");
    out[0] = (struct handle){ fds[0] };
    out[1] = (struct handle){ fds[1] };
    return OK;
}

void
handle_close(struct rt *rt, struct handle h)
{
    (void)rt;
    if (!handle_is_none(h))
        close(h.number);
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

/* One attempt; ERR_BUSY: nothing there now. Handles only where the caller has room for them. */
static struct err
try_read(struct stream *s, void *memory, size_t cap, struct handle *handles, size_t *out_count, size_t *out_len)
{
    union {
        struct cmsghdr aligned;
        char bytes[CMSG_SPACE(RT_HANDLES_MAX * sizeof(int))];
    } control;
    struct iovec part = { memory, cap };
    struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };
    ssize_t n;

    if (!s->readable)
        return ERR(ERR_BUSY, "read");
    if (handles) {
        message.msg_control = control.bytes;
        message.msg_controllen = sizeof control.bytes;
    }
    do
        n = s->is_unix ? recvmsg(s->source.fd, &message, MSG_CMSG_CLOEXEC) : recv(s->source.fd, memory, cap, 0);
    while (n < 0 && errno == EINTR);
    if (n < 0 && errno == EAGAIN) {
        s->readable = false;
        return ERR(ERR_BUSY, "read");
    }
    if (n < 0)
        return err_here("read");
    if (s->is_unix) {
        size_t count = 0;
        for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); handles && c; c = CMSG_NXTHDR(&message, c)) {
            if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
                continue;
            count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
            for (size_t i = 0; i < count; i++) {
                int fd;
                memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
                handles[i] = (struct handle){ fd };
            }
        }
        if (handles)
            *out_count = count;
        if (count > 0 || (message.msg_flags & MSG_CTRUNC)) { /* the kernel stops a read behind descriptors */
            *out_len = (size_t)n;
            return OK;
        }
    }
    if ((size_t)n < cap && n > 0 && !s->distrust_short)
        s->readable = false;
    *out_len = (size_t)n;
    return OK;
}

static struct err
read_some(struct stream *s, void *memory, size_t cap, struct handle *handles, size_t *out_count, int64_t until,
          size_t *out_len)
{
    struct rt *rt = s->rt;
    struct err e;

    CHECK(cap > 0);
    TRY(sched_enter(rt));
    while ((e = try_read(s, memory, cap, handles, out_count, out_len)).kind == ERR_BUSY)
        TRY(wait_readable(s, until, "read"));
    sched_spend(rt);
    return e;
}

struct err
stream_read(struct stream *s, void *memory, size_t cap, int64_t until, size_t *out_len)
{
    return read_some(s, memory, cap, NULL, NULL, until, out_len);
}

struct err
stream_read_handles(struct stream *s, void *memory, size_t cap, struct handle *handles, size_t *out_count,
                    int64_t until, size_t *out_len)
{
    *out_count = 0;
    return read_some(s, memory, cap, handles, out_count, until, out_len);
}

struct err
stream_read_now(struct stream *s, void *memory, size_t cap, size_t *out_len)
{
    size_t len = 0;

    CHECK(cap > 0);
    struct err e = try_read(s, memory, cap, NULL, NULL, &len);
    if (e.kind == ERR_BUSY) {
        *out_len = 0;
        return OK;
    }
    if (!err_is(e) && len == 0)
        return ERR(ERR_CLOSED, "read");
    TRY(e);
    *out_len = len;
    return OK;
}

struct err
stream_wait_readable(struct stream *s, int64_t until)
{
    char byte;

    TRY(sched_enter(s->rt));
    for (;;) {
        ssize_t n = s->readable ? recv(s->source.fd, &byte, 1, MSG_PEEK) : -1;
        if (n >= 0 || (s->readable && errno != EAGAIN && errno != EINTR))
            return OK;
        if (s->readable && errno == EINTR)
            continue;
        TRY(wait_readable(s, until, "read"));
        if (!s->distrust_short) /* the reactor saw bytes: no need to ask again */
            return OK;
    }
}

struct err
stream_hold_readable(struct stream *s, int64_t ns)
{
    struct pollfd fd = { .fd = s->source.fd, .events = POLLIN };
    struct timespec most = { .tv_sec = ns / SECOND, .tv_nsec = ns % SECOND };
    int n;

    do /* a signal begins the wait anew: only supervisors get any */
        n = ppoll(&fd, 1, &most, NULL);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return err_here("wait for an answer");
    s->readable = true; /* the reactor has not looked meanwhile */
    return n == 0 ? ERR(ERR_TIMEOUT, "wait for an answer") : OK;
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

static ssize_t
send_parts(struct stream *s, struct iovec *parts, size_t count, const struct handle *handles, size_t handle_count)
{
    union {
        struct cmsghdr aligned;
        char bytes[CMSG_SPACE(RT_HANDLES_MAX * sizeof(int))];
    } control;
    struct msghdr message = { .msg_iov = parts, .msg_iovlen = count };
    ssize_t n;

    if (handle_count > 0) {
        memset(&control, 0, sizeof control);
        message.msg_control = control.bytes;
        message.msg_controllen = CMSG_SPACE(handle_count * sizeof(int));
        struct cmsghdr *c = CMSG_FIRSTHDR(&message);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(handle_count * sizeof(int));
        for (size_t i = 0; i < handle_count; i++) {
            int fd = handles[i].number;
            memcpy(CMSG_DATA(c) + i * sizeof fd, &fd, sizeof fd);
        }
    }
    do
        n = count == 1 && handle_count == 0 ? send(s->source.fd, parts->iov_base, parts->iov_len, MSG_NOSIGNAL)
                                            : sendmsg(s->source.fd, &message, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return n;
}

/* Sends parts[] from byte *sent of part *at on, one system call. */
static struct err
try_write(struct stream *s, const struct str *parts, size_t count, size_t *at, size_t *sent,
          const struct handle *handles, size_t handle_count)
{
    struct iovec iov[PARTS_AT_ONCE];
    size_t used = 0;

    for (size_t i = *at; i < count && used < PARTS_AT_ONCE; i++) {
        size_t skip = i == *at ? *sent : 0;
        if (parts[i].len > skip)
            iov[used++] = (struct iovec){ (char *)(uintptr_t)parts[i].ptr + skip, parts[i].len - skip };
    }
    ssize_t n = used > 0 ? send_parts(s, iov, used, handles, handle_count) : 0;
    if (n < 0)
        return errno == EAGAIN ? ERR(ERR_BUSY, "write") : err_here("write");
    size_t left = (size_t)n;
    while (*at < count && (used == 0 || left >= parts[*at].len - *sent)) {
        left -= used == 0 ? 0 : parts[*at].len - *sent;
        *sent = 0;
        ++*at;
    }
    *sent += left;
    return OK;
}

static struct err
write_all(struct stream *s, const struct str *parts, size_t count, const struct handle *handles, size_t handle_count,
          int64_t until)
{
    struct rt *rt = s->rt;
    size_t at = 0, sent = 0;

    TRY(sched_enter(rt));
    while (at < count) {
        struct err e = try_write(s, parts, count, &at, &sent, handles, handle_count);
        if (e.kind == ERR_BUSY) {
            TRY(wait_writable(s, until, "write"));
            continue;
        }
        TRY(e);
        handle_count = 0; /* they went with the first byte */
    }
    sched_spend(rt);
    return OK;
}

struct err
stream_write(struct stream *s, struct str bytes, int64_t until)
{
    return write_all(s, &bytes, 1, NULL, 0, until);
}

struct err
stream_write_parts(struct stream *s, const struct str *parts, size_t count, int64_t until)
{
    return write_all(s, parts, count, NULL, 0, until);
}

struct err
stream_write_handles(struct stream *s, struct str bytes, const struct handle *handles, size_t count, int64_t until)
{
    CHECK(bytes.len > 0);
    CHECK(count <= RT_HANDLES_MAX);
    return write_all(s, &bytes, 1, handles, count, until);
}

struct err
stream_write_now(struct stream *s, struct str bytes, size_t *out_len)
{
    size_t at = 0, sent = 0;
    struct err e = try_write(s, &bytes, 1, &at, &sent, NULL, 0);

    if (err_is(e) && e.kind != ERR_BUSY)
        return e;
    *out_len = at == 1 ? bytes.len : sent;
    return OK;
}

/* The kernel reports the next room only after it has refused something: not after a write that was merely short. */
struct err
stream_wait_writable(struct stream *s, int64_t until)
{
    TRY(sched_enter(s->rt));
    return wait_writable(s, until, "write");
}

/* ---- what a stream knows ----------------------------------------------------------------------------------------- */

struct address
stream_peer(const struct stream *s)
{
    return s->peer;
}

struct address
stream_local(const struct stream *s)
{
    return local_address(s->source.fd);
}

void
stream_set_buffers(struct stream *s, size_t send_bytes, size_t receive_bytes)
{
    if (send_bytes)
        (void)set_option(s->source.fd, SOL_SOCKET, SO_SNDBUF, (int)send_bytes);
    if (receive_bytes)
        (void)set_option(s->source.fd, SOL_SOCKET, SO_RCVBUF, (int)receive_bytes);
}

struct rt *
stream_rt(const struct stream *s)
{
    return s->rt;
}

bool
stream_peer_credentials(const struct stream *s, struct peer_credentials *out)
{
    struct ucred cred;
    socklen_t len = sizeof cred;

    if (!s->is_unix || getsockopt(s->source.fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0 || cred.pid <= 0)
        return false;
    *out = (struct peer_credentials){ (uint32_t)cred.pid, cred.uid, cred.gid };
    return true;
}

/* ---- listeners --------------------------------------------------------------------------------------------------- */

static void
listener_ready(struct source *source, uint32_t events)
{
    struct listener *l = container_of(source, struct listener, source);

    (void)events;
    if (l->acceptor)
        sched_wake(l->acceptor, ERR_NONE);
}

static void
listener_free(struct world *w, struct source *source)
{
    mem_free(&w->mem, container_of(source, struct listener, source), sizeof(struct listener));
}

static struct err
listener_new(struct rt *rt, int fd, struct listener **out)
{
    struct world *w = world_of(rt);
    struct listener *l = mem_new(&w->mem, struct listener);

    *l = (struct listener){
        .source = { .ready = listener_ready, .free = listener_free },
        .rt = rt,
        .is_unix = local_address(fd).family == ADDRESS_UNIX,
    };
    /* Of the processes that share the socket, one is woken. It accepts until nothing is left, so an edge is enough. */
    struct err e = source_add(w, &l->source, fd, EPOLLIN | EPOLLET | EPOLLEXCLUSIVE);
    if (err_is(e)) {
        close(fd);
        mem_free(&w->mem, l, sizeof *l);
        return e;
    }
    *out = l;
    return OK;
}

/* Takes away the socket that an earlier run left behind; never a file of somebody's, nor a socket that is in use. */
static struct err
make_way(int fd, const struct address *at, const union socket_address *name, socklen_t len)
{
    struct stat st;

    if (lstat(at->path, &st) < 0 || !S_ISSOCK(st.st_mode))
        return OK;
    if (connect(fd, &name->any, len) == 0 || errno == EAGAIN) /* EAGAIN: so busy that no more can wait there */
        return ERR(ERR_BUSY, "replace the socket, where another server listens");
    return unlink(at->path) < 0 ? err_here("replace the socket") : OK;
}

static struct err
listen_at(int fd, const struct address *at)
{
    union socket_address name;
    socklen_t len = to_socket_address(at, &name);

    if (at->family == ADDRESS_UNIX) {
        TRY(make_way(fd, at, &name, len));
    } else {
        (void)set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
        (void)set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1); /* what is accepted inherits it */
        if (at->family == ADDRESS_IPV6) /* 0.0.0.0 is a listener of its own */
            (void)set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
    }
    if (bind(fd, &name.any, len) < 0)
        return err_here("bind");
    return listen(fd, LISTEN_BACKLOG) < 0 ? err_here("listen") : OK;
}

struct err
listener_open(struct rt *rt, const struct address *at, struct listener **out)
{
    union socket_address name;

    to_socket_address(at, &name);
    int fd = socket(name.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return err_here("make a socket");
    struct err e = listen_at(fd, at);
    if (err_is(e)) {
        close(fd);
        return e;
    }
    return listener_new(rt, fd, out);
}

struct err
listener_from_handle(struct rt *rt, struct handle handle, struct listener **out)
{
    int fd = handle.number, flags = fcntl(fd, F_GETFL);

    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) {
        struct err e = err_here("take over a listener");
        close(fd);
        return e;
    }
    return listener_new(rt, fd, out);
}

struct handle
listener_handle(struct rt *rt, struct listener *l)
{
    (void)rt;
    return (struct handle){ fcntl(l->source.fd, F_DUPFD_CLOEXEC, 3) };
}

struct address
listener_address(const struct listener *l)
{
    return local_address(l->source.fd);
}

/* What accept(2) says about the connection, not about us: the next one may be fine. */
static bool
concerns_the_peer_only(int os)
{
    return os == EINTR || os == ECONNABORTED || os == EPROTO || os == ENETDOWN || os == ENOPROTOOPT || os == EHOSTDOWN
           || os == ENONET || os == EHOSTUNREACH || os == EOPNOTSUPP || os == ENETUNREACH || os == ETIMEDOUT
           || os == EPERM;
}

struct err
listener_accept(struct listener *l, int64_t until, struct stream **out, struct address *out_peer)
{
    struct rt *rt = l->rt;
    union socket_address name;
    socklen_t len;
    int fd;

    TRY(sched_enter(rt));
    while (len = sizeof name, (fd = accept4(l->source.fd, &name.any, &len, SOCK_NONBLOCK | SOCK_CLOEXEC)) < 0) {
        if (concerns_the_peer_only(errno))
            continue;
        if (errno != EAGAIN)
            return err_here("accept");
        CHECK(!l->acceptor);
        l->acceptor = rt->running;
        struct err e = sched_park(rt, until, "accept");
        if (e.kind == ERR_CLOSED)
            return e;
        l->acceptor = NULL;
        TRY(e);
    }
    struct address peer = from_socket_address(&name, len);
    TRY(stream_new(rt, fd, false, &peer, out));
    if (out_peer)
        *out_peer = peer;
    sched_spend(rt);
    return OK;
}

void
listener_close(struct listener *l)
{
    int fd = l->source.fd;

    if (l->acceptor)
        sched_wake(l->acceptor, ERR_CLOSED);
    source_retire(world_of(l->rt), &l->source);
    close(fd);
}
