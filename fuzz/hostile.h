/*
 * hostile - for targets that deliver: a server that says what it likes, when it likes, and a strict reading of what the
 * client said to it.
 */
#ifndef FUZZ_HOSTILE_H
#define FUZZ_HOSTILE_H

#include "runtime/rt.h"
#include "smtp/client.h"

enum hostile_pace {
    HOSTILE_AT_ONCE,
    HOSTILE_LINES,  /* a line when the client has said something, or after a second */
    HOSTILE_PIECES, /* `step` bytes, then others run */
    HOSTILE_SLOW,   /* `step` bytes, then a minute */
};
enum hostile_end { HOSTILE_CLOSES, HOSTILE_RESETS, HOSTILE_STAYS };
struct hostile {
    struct rt *rt;
    struct stream *stream; /* the hostile server's end; taken */
    struct str script;
    enum hostile_pace pace;
    enum hostile_end end;
    size_t step;
    bool deaf;             /* reads nothing until its script is over */
    struct text heard;     /* memory by the caller; more is dropped */
    size_t heard_bytes;
    struct scope *scope;   /* where its second fiber runs */
    bool gone;             /* the client closed */
};
void hostile_run(void *hostile); /* a fiber's body */

/* What one transaction was, for hostile_check(). */
struct hostile_sent {
    const struct client_transaction *t;
    struct str content; /* as it was read from the source */
    bool binary;        /* BINARYMIME was declared and offered */
    bool convertible;   /* the content may have been converted: only its form is looked at */
};
/*
 * Reads what was heard as the strictest server does: command lines end with CRLF, have no control characters and the length
 * that is allowed; content is there only after 354 or BDAT, once, and is what was to be sent, with its line ends repaired;
 * nothing of it is ever left to be read as a command, and no end of data is in it but the last.
 */
void hostile_check(struct str heard, const struct hostile_sent *, size_t count, struct arena *);

#endif
