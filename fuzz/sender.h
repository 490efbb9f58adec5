/* sender - what fuzz_client and fuzz_lmtp share: one connection of smtp/client.c to a hostile server, two transactions. */
#ifndef FUZZ_SENDER_H
#define FUZZ_SENDER_H

#include "base/arena.h"

void sender_fuzz(struct str input, bool lmtp, struct arena *);

#endif
