/*
 * wire_fake - for tests and the simulator: a cover that hides nothing. Its cover is the stream.
 */
#ifndef NET_WIRE_FAKE_H
#define NET_WIRE_FAKE_H

#include "net/wire.h"

void wire_fake_cover(struct wire *);
/* The same, but wire_write_now() takes a byte, as if no more would go now: the rest must come by wire_write(). */
void wire_fake_cover_tight(struct wire *);

#endif
