/*
 * peer - what scripted clients and servers of the outside world share: a connection read line by line, which may be cut at
 * any byte, be slow, or run out of patience.
 */
#ifndef SIM_PEER_H
#define SIM_PEER_H

#include "sim/sim.h"

struct conn {
    struct rt *rt;
    struct stream *stream;
    int64_t patience;      /* ns for each wait */
    uint64_t budget;       /* bytes that may still be written; then the connection is cut */
    bool budget_resets;    /* cut by a reset, else by a close */
    bool slow;             /* byte by byte */
    bool broken;           /* nothing more comes or goes */
    size_t from, to;
    char in[4096];
};

/* Takes the stream. */
void conn_init(struct conn *, struct rt *, struct stream *);
void conn_close(struct conn *);
void conn_reset(struct conn *);
/* All of it. False: the connection is over. */
bool conn_put(struct conn *, struct str);
bool conn_putf(struct conn *, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* A line without its end; good until the next call. False: the connection is over, or patience. */
bool conn_line(struct conn *, struct str *out);
/* The same with its end; a line that is longer than the buffer comes in parts. */
bool conn_raw_line(struct conn *, struct str *out);
/* len bytes, as they come: at least one, at most cap. */
bool conn_bytes(struct conn *, char *memory, size_t cap, size_t *out_len);
/* A whole reply, of which the code; and its last line, if asked for. */
bool conn_reply(struct conn *, unsigned *out_code, struct str *out_last);

#endif
