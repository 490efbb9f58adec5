/*
 * input - what a peer sends, read through a buffer: command lines, and blocks of content.
 *
 * The buffer is taken when bytes are there and can be given back while none are (input_rest()), so that an idle
 * session costs none. What a function returns as str points into it and is good until the next call with this input.
 */
#ifndef SMTP_INPUT_H
#define SMTP_INPUT_H

#include "base/mem.h"
#include "net/wire.h"

enum {
    INPUT_LINES = 4096,         /* buffer for commands: more than a line */
    INPUT_BLOCKS = 32 << 10,    /* and for content */
};

struct input {
    struct wire *wire;
    struct mem *mem;
    char *own_buffer;           /* NULL: given back */
    size_t cap;
    size_t begin, end;          /* what is there and not taken */
    uint64_t bytes;             /* read so far */
    size_t searched;            /* of the line at hand, no LF among these */
    bool skipping;              /* a line that was too long, up to its end */
    bool after_cr;              /* while skipping: the last byte dropped was a CR */
};

void input_init(struct input *, struct wire *, struct mem *);
void input_done(struct input *);

/* What has been read and not taken yet. */
static inline struct str
input_here(const struct input *in)
{
    return str_new(in->own_buffer ? in->own_buffer + in->begin : "", in->end - in->begin);
}
void input_take(struct input *, size_t len);

/* Reads what is there, at least one byte more than before. ERR_CLOSED: the end of the stream. The buffer must not be
 * full: it is not when a line was incomplete or a block was taken. */
struct err input_fill(struct input *, int64_t until);
/* The same, but what does not have to be waited for only. *out_any: there is something to take. */
struct err input_fill_now(struct input *, bool *out_any);
/* Waits until input_fill() would not have to. Gives the buffer back meanwhile if it is empty. */
struct err input_rest(struct input *, int64_t until);
/* From now on the buffer is for blocks (lines: input_rest() makes it small again). */
void input_want_blocks(struct input *);

enum input_line {
    INPUT_LINE,          /* a whole line, without its CRLF */
    INPUT_LINE_MORE,     /* its end is not here yet: input_fill() */
    INPUT_LINE_TOO_LONG, /* it was dropped up to its CRLF */
    INPUT_LINE_BARE_LF,  /* LF without CR: it ends no line. Nobody can say what the peer meant: end the session */
};
/* Only CRLF ends a line (standards 4.3), which has at most max bytes with it; max is less than INPUT_LINES. */
enum input_line input_line(struct input *, size_t max, struct str *out_line);
/* Overwrites what was taken: a password does not stay for whoever reads this memory later. */
void input_wipe(struct input *);

#endif
