/* frame - what link.c and hold.c share of the wire format: see link.h. */
#ifndef LINK_FRAME_H
#define LINK_FRAME_H

#include "base/err.h"
#include "link/link.h"

enum { LINK_HEADER = 12, LINK_REPLY = 1, LINK_MORE = 2, LINK_TYPE_HELLO = 0xffff };

/* handles and flags are one number on the wire; apart here. */
struct frame {
    uint32_t len, call;
    uint16_t type;
    uint8_t flags, handles;
    struct str body;
};

void frame_put(struct put *, uint16_t type, uint16_t flags, uint32_t call, struct str body);
/* Takes one off the front of *bytes. *out_whole: it was all there; else nothing is taken. */
struct err frame_take(struct str *bytes, struct frame *out, bool *out_whole);
void frame_put_hello(struct put *);
struct err frame_check_hello(const struct frame *);

#endif
