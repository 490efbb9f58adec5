/*
 * prepare - user names and passwords as they are compared: the profiles of RFC 8265 (PRECIS), UsernameCaseMapped and
 * OpaqueString. So a password is the same whatever keyboard it was typed at, and "Anna" is "anna", in wide letters as well.
 *
 * What RFC 8264 forbids in its FreeformClass is refused: controls, code points that are not assigned, private use,
 * invisible ones. A joiner is taken behind a virama only, where RFC 5892 appendix A would take some more.
 */
#ifndef SASL_PREPARE_H
#define SASL_PREPARE_H

#include "base/str.h"

enum { PREPARED_MAX = 1024 }; /* bytes, before and after */

/* False: it can be nobody's name or password (empty ones too), or does not fit. *out then holds anything. */
bool prepare_password(struct str, struct text *out);
bool prepare_name(struct str, struct text *out); /* at most LIMIT_USER_NAME bytes; no ":", no spaces */

#endif
