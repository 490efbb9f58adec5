/*
 * err - the world failing us: two words by value, no allocation. Outcomes that are ordinary (a 550 from the peer) are
 * not errors; our own bugs are CHECKs.
 *
 * Only runtime/ reads errno, on the very next line, and carries it here: a fiber switch would lose it.
 */
#ifndef BASE_ERR_H
#define BASE_ERR_H

#include "base/str.h"

enum err_kind {
    ERR_NONE,
    ERR_TIMEOUT,   /* `until` came first */
    ERR_CANCELLED, /* this fiber was asked to end: clean up within the grace time and return */
    ERR_CLOSED,    /* the other side closed in good order, or the link is gone */
    ERR_RESET,     /* the connection broke */
    ERR_REFUSED,   /* nobody listens there */
    ERR_UNREACHABLE,
    ERR_UNKNOWN,   /* a link closed in the middle of a call: whether it took effect cannot be known */
    ERR_PROTOCOL,  /* the other side broke the rules of the conversation */
    ERR_SYNTAX,
    ERR_LIMIT,     /* one of ours (base/limits.h, or the configuration) */
    ERR_NOT_FOUND,
    ERR_EXISTS,
    ERR_NO_SPACE,  /* disk full, quota */
    ERR_NO_FILES,  /* out of descriptors */
    ERR_NO_MEMORY,
    ERR_READ_ONLY,
    ERR_DENIED,
    ERR_CORRUPT,   /* stored bytes fail their check */
    ERR_BUSY,
    ERR_NO_CALL,   /* the kernel has no such call, or a filter around us hides it */
    ERR_IO,        /* anything else the system said */
};

struct err {
    const char *what; /* a literal: what was being done, "write spool segment" */
    int32_t kind;     /* enum err_kind */
    int32_t os;       /* errno, or 0 */
};

#define OK ((struct err){ NULL, ERR_NONE, 0 })
#define ERR(kind, what) ((struct err){ (what), (kind), 0 })
#define TRY(expression)                                                                                                \
    do {                                                                                                               \
        struct err try_err_ = (expression);                                                                            \
        if (try_err_.kind != ERR_NONE)                                                                                 \
            return try_err_;                                                                                           \
    } while (0)

static inline bool
err_is(struct err e)
{
    return e.kind != ERR_NONE;
}

/* From an errno value; never ERR_NONE. */
struct err err_from_os(int os, const char *what);
/* "write spool segment: disk full (ENOSPC)" */
void err_text(struct err, struct text *);
struct str err_kind_name(int32_t kind); /* "timeout" */

#endif
