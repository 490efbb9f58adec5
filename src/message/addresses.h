/*
 * addresses - the address lists of From, To, Cc and their kind (RFC 5322 sections 3.4 and 4.4): names, comments,
 * groups, quoted strings, and the obsolete forms: spaces around dots and "@", routes, empty list elements.
 */
#ifndef MESSAGE_ADDRESSES_H
#define MESSAGE_ADDRESSES_H

#include "message/path.h"

struct mailbox {
    struct str name;  /* as it stands before <...>: trimmed, still quoted or encoded; empty: none */
    struct str text;  /* the whole element */
    struct str spec;  /* the part of it that is the address, as it stands */
    struct path path; /* an empty domain: none was written */
};
enum addresses { ADDRESSES_END, ADDRESSES_ONE, ADDRESSES_BAD };
/* Takes the next address off a field's value. Groups are seen through: only their members count. BAD: out->text is no
 * address; the next call goes on behind it. What is taken borrows from the value and the arena. */
enum addresses addresses_next(struct str *rest, struct arena *, struct mailbox *out);

#endif
