/*
 * date - the date-time of RFC 5322 section 3.3, and that of RFC 3339. Times are nanoseconds since 1970, UTC, without leap
 * seconds.
 */
#ifndef MESSAGE_DATE_H
#define MESSAGE_DATE_H

#include "base/str.h"

enum { DATE_TEXT = 31 }; /* "Sat, 21 Nov 2026 10:00:00 +0000" */

/* Always UTC with the numeric zone +0000. Years before 1900 and after 9999 are put as those. */
void date_put(struct text *, int64_t wall);
/* "2026-11-21T10:00:00Z", RFC 3339: for listings. */
void date_put_rfc3339(struct text *, int64_t wall);
/* The date-time of RFC 3339; parts of a second are dropped. False: not one, or beyond the years that we can count. */
bool date_parse_rfc3339(struct str, int64_t *out_wall);

#endif
