/* err - see err.h. */
#include "base/err.h"

#include <errno.h>
#include <string.h>

static const struct {
    int os;
    enum err_kind kind;
} from_os[] = {
    { ETIMEDOUT, ERR_TIMEOUT },       { ECANCELED, ERR_CANCELLED },  { EPIPE, ERR_RESET },
    { ECONNRESET, ERR_RESET },        { ECONNABORTED, ERR_RESET },   { ECONNREFUSED, ERR_REFUSED },
    { ENETUNREACH, ERR_UNREACHABLE }, { EHOSTUNREACH, ERR_UNREACHABLE }, { EADDRNOTAVAIL, ERR_UNREACHABLE },
    { ENETDOWN, ERR_UNREACHABLE },    { EHOSTDOWN, ERR_UNREACHABLE }, { EAFNOSUPPORT, ERR_UNREACHABLE },
    { ENOENT, ERR_NOT_FOUND },        { ENOTDIR, ERR_NOT_FOUND },    { EEXIST, ERR_EXISTS },
    { ENOSPC, ERR_NO_SPACE },         { EDQUOT, ERR_NO_SPACE },      { EFBIG, ERR_NO_SPACE },
    { EMFILE, ERR_NO_FILES },         { ENFILE, ERR_NO_FILES },      { ENOMEM, ERR_NO_MEMORY },
    { ENOBUFS, ERR_NO_MEMORY },       { EROFS, ERR_READ_ONLY },      { EACCES, ERR_DENIED },
    { EPERM, ERR_DENIED },            { EBUSY, ERR_BUSY },           { EADDRINUSE, ERR_BUSY },
    { EWOULDBLOCK, ERR_BUSY },        { ENOSYS, ERR_NO_CALL },
};

static const struct str kind_names[] = {
    [ERR_NONE] = STR("ok"),
    [ERR_TIMEOUT] = STR("timed out"),
    [ERR_CANCELLED] = STR("cancelled"),
    [ERR_CLOSED] = STR("closed by the other side"),
    [ERR_RESET] = STR("connection broken"),
    [ERR_REFUSED] = STR("connection refused"),
    [ERR_UNREACHABLE] = STR("no route to the host"),
    [ERR_UNKNOWN] = STR("outcome unknown"),
    [ERR_PROTOCOL] = STR("protocol violated"),
    [ERR_SYNTAX] = STR("bad syntax"),
    [ERR_LIMIT] = STR("over the limit"),
    [ERR_NOT_FOUND] = STR("not found"),
    [ERR_EXISTS] = STR("exists already"),
    [ERR_NO_SPACE] = STR("no space left"),
    [ERR_NO_FILES] = STR("too many open files"),
    [ERR_NO_MEMORY] = STR("out of memory"),
    [ERR_READ_ONLY] = STR("read-only file system"),
    [ERR_DENIED] = STR("permission denied"),
    [ERR_CORRUPT] = STR("corrupt"),
    [ERR_BUSY] = STR("busy"),
    [ERR_NO_CALL] = STR("the kernel has no such call, or a filter around this process hides it"),
    [ERR_IO] = STR("input/output error"),
};

struct err
err_from_os(int os, const char *what)
{
    for (size_t i = 0; i < sizeof from_os / sizeof *from_os; i++)
        if (from_os[i].os == os)
            return (struct err){ what, (int32_t)from_os[i].kind, os };
    return (struct err){ what, ERR_IO, os };
}

struct str
err_kind_name(int32_t kind)
{
    if (kind < 0 || (size_t)kind >= sizeof kind_names / sizeof *kind_names)
        return S("unknown error");
    return kind_names[kind];
}

void
err_text(struct err e, struct text *out)
{
    if (e.what) {
        text_put(out, str_from_cstr(e.what));
        text_put(out, S(": "));
    }
    text_put(out, err_kind_name(e.kind));
    if (e.os) {
        const char *name = strerrorname_np(e.os);
        text_put(out, S(" ("));
        text_put(out, name ? str_from_cstr(name) : S("errno unknown"));
        text_put(out, S(")"));
    }
}
