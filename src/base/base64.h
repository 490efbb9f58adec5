/* base64 - RFC 4648 section 4: as text of one run, without line ends. */
#ifndef BASE_BASE64_H
#define BASE_BASE64_H

#include "base/str.h"

/* With padding. */
void base64_put(struct text *, struct str bytes);
/* As mail is written: spaces and line ends are skipped, padding may be missing. False: something else was there too. */
bool base64_decode(struct str, struct text *out);
/* As protocols are written: nothing is skipped, and there is one way only to write each run of bytes. False: it is not
 * that, or does not fit. */
bool base64_decode_strictly(struct str, struct text *out);

#endif
