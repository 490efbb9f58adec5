/*
 * json - writing JSON text (RFC 8259) by hand: strings escaped, numbers plain. Bytes that are no UTF-8 become U+FFFD;
 * control characters are escaped, those of U+0080 to U+009F too: whoever looks at it has a terminal.
 */
#ifndef BASE_JSON_H
#define BASE_JSON_H

#include "base/str.h"

void json_put_inside(struct text *, struct str); /* what stands between the quotes */
void json_put_str(struct text *, struct str);    /* with quotes; an absent str is null */
/* ,"name":  (without the comma after '{', '[' or at the start) */
void json_put_name(struct text *, const char *name);
void json_put_field(struct text *, const char *name, struct str value);
void json_put_number(struct text *, const char *name, int64_t value);
void json_put_bool(struct text *, const char *name, bool value);

#endif
