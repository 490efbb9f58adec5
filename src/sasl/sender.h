/*
 * sender - which addresses a user may send as, beside his own: one address ("sales@example.org"), every address of a
 * domain ("@example.org"), or all of them ("*").
 */
#ifndef SASL_SENDER_H
#define SASL_SENDER_H

#include "base/str.h"

/* Case does not matter, in local parts neither: our mailboxes do not care. */
bool sasl_may_send_as(const struct str *senders, size_t count, struct str address);
/* Whether it is one of those three forms, by a first look: something before or nothing, one "@", something behind. */
bool sasl_is_sender(struct str);

#endif
