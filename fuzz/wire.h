/* wire - the other end of a link, as bytes: what fuzz_link and fuzz_console share. */
#ifndef FUZZ_WIRE_H
#define FUZZ_WIRE_H

#include "link/link.h"

struct far_link {
    struct rt *rt;
    struct stream *stream;
    char bytes[1 << 16];   /* what came; more is dropped, and `full` */
    size_t len;
    bool full, ended;
};
/* A fiber's body: reads until the other side closes. */
void wire_listen(void *wire);
/* Waits for the other side's hello and says the same: from then on we are of its build. */
void wire_say_hello(struct far_link *);
/* Says bytes, `step` at a time. */
void wire_say(struct far_link *, struct str bytes, size_t step);
/* What came is whole frames: their count, and how many were replies. Each reply answers a call once. */
size_t wire_check(const struct far_link *, size_t *out_replies);

#endif
