/*
 * recipients - the addresses in a field such as To: (RFC 5322 section 3.4, and the obsolete forms of 4.4), as people
 * write them: names, comments, groups, routes, missing commas at the end.
 *
 * This finds where each address stands and takes its surroundings away; whether it is one is for message/path.h to say.
 */
#ifndef CLI_RECIPIENTS_H
#define CLI_RECIPIENTS_H

#include "base/arena.h"

/* The next address of the list, without brackets, comments and the spaces around its dots and "@". False: none is
 * left. */
bool recipients_take(struct str *rest, struct arena *, struct str *out);

#endif
