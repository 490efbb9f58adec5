/*
 * tls_required - looks for the header field "TLS-Required: No" (RFC 8689 section 3): the sender would rather have the
 * message delivered than kept to what its destination promises about TLS. Any other value is none.
 *
 * The header arrives in pieces of any size. Starts zeroed.
 */
#ifndef MESSAGE_TLS_REQUIRED_H
#define MESSAGE_TLS_REQUIRED_H

#include "base/str.h"

struct tls_required {
    bool no;          /* it was there, with that value */
    bool ended;       /* the header has */
    bool in_line;     /* not at a line's beginning */
    uint8_t len;      /* of the field at hand, unfolded */
    char field[40];   /* one that is longer is another */
};
void tls_required_scan(struct tls_required *, struct str bytes);

#endif
