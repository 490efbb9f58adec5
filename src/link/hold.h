/*
 * hold - calls over a socket of their own that hold up the whole role until the answer is there: for questions from
 * inside a library's callback, where no fiber may be switched. The other side is a link like any other (link.h), in a
 * role that answers at once: it takes as long as doing the work here would, and not much longer.
 *
 * A call that gets no answer in time ends the connection: whoever answers so slowly would hold up the next ones too.
 */
#ifndef LINK_HOLD_H
#define LINK_HOLD_H

#include "link/link.h"

enum { HOLD_BODY_MAX = 2048 }; /* of a question, and of an answer */

struct hold;

struct err hold_open(struct rt *, struct handle, struct hold **out); /* takes the handle */
void hold_free(struct hold *);
bool hold_is_open(const struct hold *);
/* ns: how long it may take. *out_answer is good until the next call. */
struct err hold_call(struct hold *, uint16_t type, struct str question, int64_t ns, struct str *out_answer);

#endif
