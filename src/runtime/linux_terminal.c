/* linux_terminal - see terminal.h. */
#include "runtime/terminal.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

/*
 * Input may be a file, which epoll does not take, or a terminal that others share, which must not become
 * non-blocking: so a helper thread reads it. It comes back now and then to see whether anybody still waits.
 */
enum { LOOK_UP_MS = 200 };

struct reading {
    void *memory;
    size_t cap;
    ssize_t got; /* -1: os says why */
    bool waits;
    int os;
};

static void
read_some(void *arg)
{
    struct reading *r = arg;
    struct pollfd in = { .fd = STDIN_FILENO, .events = POLLIN };
    int ready = poll(&in, 1, LOOK_UP_MS);

    r->waits = ready == 0 || (ready < 0 && errno == EINTR);
    if (r->waits)
        return;
    r->got = read(STDIN_FILENO, r->memory, r->cap);
    r->os = r->got < 0 ? errno : 0;
}

struct err
terminal_read(struct rt *rt, void *memory, size_t cap, int64_t until, size_t *out_len)
{
    struct reading r;

    do {
        r = (struct reading){ .memory = memory, .cap = cap };
        TRY(rt_offload(rt, read_some, &r, until));
    } while (r.waits && rt_now(rt) < until);
    if (r.waits)
        return ERR(ERR_TIMEOUT, "read standard input");
    if (r.got < 0)
        return err_from_os(r.os, "read standard input");
    *out_len = (size_t)r.got;
    return OK;
}

enum { CONTROL_C = 3, CONTROL_D = 4, BACKSPACE = 8, DELETE = 0x7f };

/* Byte by byte, so that nothing behind the line is taken: the next line may be the next secret. */
static struct err
read_line(bool typed, char *memory, size_t cap, size_t *out_len)
{
    size_t len = 0;
    char c;

    for (;;) {
        ssize_t got = read(STDIN_FILENO, &c, 1);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return err_from_os(errno, "read standard input");
        if (got == 0 && len == 0)
            return ERR(ERR_CLOSED, "read a line of standard input");
        if (got == 0 || c == '\n' || (typed && c == '\r'))
            break;
        if (typed && (c == CONTROL_C || c == CONTROL_D))
            return ERR(ERR_CANCELLED, "read a line");
        if (typed && (c == BACKSPACE || c == DELETE)) { /* a whole character of UTF-8 */
            while (len > 0 && ((unsigned char)memory[--len] & 0xc0) == 0x80)
                continue;
            continue;
        }
        if (len == cap)
            return ERR(ERR_LIMIT, "read a line of standard input");
        memory[len++] = c;
    }
    *out_len = len > 0 && memory[len - 1] == '\r' ? len - 1 : len;
    return OK;
}

struct err
terminal_secret(struct rt *rt, struct str prompt, void *memory, size_t cap, size_t *out_len)
{
    struct termios before, silent;

    (void)rt;
    if (tcgetattr(STDIN_FILENO, &before) != 0) /* it is none */
        return read_line(false, memory, cap, out_len);
    silent = before;
    silent.c_lflag &= ~(tcflag_t)(ECHO | ECHONL | ICANON | ISIG);
    silent.c_cc[VMIN] = 1;
    silent.c_cc[VTIME] = 0;
    if (tcsetattr(STDIN_FILENO, TCSAFLUSH, &silent) != 0)
        return err_from_os(errno, "make the terminal silent");
    terminal_write(TERMINAL_ERROR, prompt); /* only now: who sees it may type */
    struct err e = read_line(true, memory, cap, out_len);
    tcsetattr(STDIN_FILENO, TCSADRAIN, &before);
    terminal_write(TERMINAL_ERROR, S("\n"));
    return e;
}

struct err
terminal_write(enum terminal_output output, struct str s)
{
    while (s.len > 0) {
        ssize_t put = write(output == TERMINAL_ERROR ? STDERR_FILENO : STDOUT_FILENO, s.ptr, s.len);
        int os = errno;
        if (put < 0 && os == EAGAIN) {
            struct pollfd out = { .fd = output == TERMINAL_ERROR ? STDERR_FILENO : STDOUT_FILENO, .events = POLLOUT };
            poll(&out, 1, LOOK_UP_MS);
        } else if (put < 0 && os != EINTR) {
            return err_from_os(os, "write output");
        } else if (put > 0) {
            s = str_from(s, (size_t)put);
        }
    }
    return OK;
}

bool
terminal_is_one(enum terminal_output output)
{
    return isatty(output == TERMINAL_ERROR ? STDERR_FILENO : STDOUT_FILENO) == 1;
}

bool
terminal_input_is_one(void)
{
    return isatty(STDIN_FILENO) == 1;
}

struct err
terminal_open(struct rt *rt, struct str path, unsigned flags, struct file **out)
{
    int how = O_CLOEXEC | O_NOCTTY | (!(flags & FILE_WRITE) ? O_RDONLY : flags & FILE_READ ? O_RDWR : O_WRONLY);
    char cstr[4096];
    struct text t = text_init(cstr, sizeof cstr);

    how |= (flags & FILE_CREATE ? O_CREAT : 0) | (flags & FILE_NEW ? O_EXCL : 0) |
           (flags & FILE_TRUNCATE ? O_TRUNC : 0);
    text_put(&t, path);
    text_cstr(&t);
    if (t.full || str_find_byte(path, '\0') < path.len)
        return ERR(ERR_NOT_FOUND, "open file");
    int fd = open(cstr, how, 0666);
    if (fd < 0) {
        int os = errno;
        return err_from_os(os, "open file");
    }
    return file_from_handle(rt, (struct handle){ fd }, out);
}

struct lookup {
    char host[256];
    struct addrinfo *own_found;
    int result;
};

static void
look_up(void *arg)
{
    struct lookup *l = arg;
    struct addrinfo wanted = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG };

    l->result = getaddrinfo(l->host, NULL, &wanted, &l->own_found);
}

static bool
from_sockaddr(const struct sockaddr *sa, struct address *out)
{
    *out = (struct address){ 0 };
    if (sa->sa_family == AF_INET) {
        out->family = ADDRESS_IPV4;
        memcpy(out->ip, &((const struct sockaddr_in *)(const void *)sa)->sin_addr, 4);
    } else if (sa->sa_family == AF_INET6) {
        out->family = ADDRESS_IPV6;
        out->scope = ((const struct sockaddr_in6 *)(const void *)sa)->sin6_scope_id;
        memcpy(out->ip, &((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr, 16);
    }
    return out->family != ADDRESS_NONE;
}

struct err
terminal_addresses(struct rt *rt, struct str host, int64_t until, struct address *out, size_t cap, size_t *out_count)
{
    struct lookup l = { .own_found = NULL };

    if (host.len >= sizeof l.host || str_find_byte(host, '\0') < host.len)
        return ERR(ERR_NOT_FOUND, "look up host");
    memcpy(l.host, host.ptr, host.len);
    TRY(rt_offload(rt, look_up, &l, until));
    *out_count = 0;
    for (struct addrinfo *a = l.result == 0 ? l.own_found : NULL; a && *out_count < cap; a = a->ai_next)
        if (from_sockaddr(a->ai_addr, &out[*out_count]))
            ++*out_count;
    if (l.result == 0)
        freeaddrinfo(l.own_found);
    if (*out_count == 0)
        return ERR(l.result == EAI_AGAIN ? ERR_TIMEOUT : ERR_NOT_FOUND, "look up host");
    return OK;
}
