/*
 * utf8 - well-formed UTF-8 as RFC 3629 section 4 has it: shortest forms only, no surrogates, nothing above U+10FFFF.
 */
#ifndef MESSAGE_UTF8_H
#define MESSAGE_UTF8_H

#include "base/str.h"

/* Takes one character off the front and gives its code point. False: none that is well formed; *s is unchanged. */
bool utf8_take(struct str *s, uint32_t *out_point);
bool utf8_is_valid(struct str);
void utf8_put(struct text *, uint32_t point); /* a scalar value: not a surrogate, at most U+10FFFF */
/* C0, DEL and C1: U+009B steers a terminal as well as ESC does. */
static inline bool
utf8_is_control(uint32_t point)
{
    return point < ' ' || (point >= 0x7f && point < 0xa0);
}
/* Well formed, and without a control character. */
bool utf8_is_clean(struct str);
/* For people to look at: control characters, and bytes that are no UTF-8, become "?". */
void utf8_put_visible(struct text *, struct str);
/* The longest part of s with at most max bytes that does not end within a character. */
struct str utf8_cut(struct str s, size_t max);

#endif
