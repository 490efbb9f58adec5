/*
 * remote_reply - what a server answered us: RFC 5321 section 4.2, with the enhanced code of RFC 2034.
 *
 * Lines are given one by one, without their CRLF, so that the reader works with any way of reading. A line may be only
 * its code ("250"). All lines of a reply bear one code; a reply that breaks the form counts as a lost connection. The
 * words are for logs and notices: control bytes and bytes above 127 become '?'.
 */
#ifndef SMTP_REMOTE_REPLY_H
#define SMTP_REMOTE_REPLY_H

#include "base/arena.h"
#include "base/limits.h"

struct remote_reply {
    uint16_t code;       /* 200 to 599; 0: no answer */
    struct str enhanced; /* "5.1.1"; empty: none, or one that contradicts the code */
    struct str text;     /* "550 5.1.1 No such user here", lines joined by a space, at most LIMIT_REPLY_TEXT */
};

static inline bool
remote_reply_is_positive(const struct remote_reply *r) /* 2xx */
{
    return r->code / 100 == 2;
}
static inline bool
remote_reply_is_transient(const struct remote_reply *r) /* 4xx */
{
    return r->code / 100 == 4;
}
static inline bool
remote_reply_is_permanent(const struct remote_reply *r) /* 5xx */
{
    return r->code / 100 == 5;
}

struct reply_reader {
    uint16_t code;
    uint16_t lines;
    struct str enhanced; /* points into memory */
    struct text words;
    char memory[LIMIT_REPLY_TEXT];
};
enum reply_progress { REPLY_MORE, REPLY_WHOLE, REPLY_MALFORMED };

void reply_reader_start(struct reply_reader *);
/* *out_words: what stands behind the code on this line (it borrows the line): EHLO is read from it. */
enum reply_progress reply_reader_take(struct reply_reader *, struct str line, struct str *out_words);
/* After REPLY_WHOLE. */
struct remote_reply reply_reader_keep(const struct reply_reader *, struct arena *);

/* "5.1.1" in front of s, followed by a space or the end; takes it and the space. */
bool enhanced_take(struct str *s, struct str *out_enhanced);

#endif
