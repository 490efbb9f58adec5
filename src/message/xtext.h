/*
 * xtext - the encoding of RFC 3461 section 4, and the two parameters that are made of it: ENVID and ORCPT (sections 4.4
 * and 4.2), the latter with the utf-8 address type of RFC 6533 section 3.
 */
#ifndef MESSAGE_XTEXT_H
#define MESSAGE_XTEXT_H

#include "base/str.h"

/* Printable ASCII but "+" and "=" stays; everything else becomes "+HH". */
void xtext_put(struct text *, struct str raw);
/* False: not xtext; what was written to the text then is to be thrown away. */
bool xtext_decode(struct str xtext, struct text *out);

/* Xtext that stands for 1 to LIMIT_ENVID printable characters, spaces among them. */
bool envid_is_valid(struct str);
/* Address type, ";", address in the encoding of that type; LIMIT_ORCPT bytes at most. With `utf8` (SMTPUTF8 was given)
 * the address of type utf-8 may hold UTF-8 as it is. */
bool orcpt_is_valid(struct str, bool utf8);
/* As the Original-Recipient field of a notice wants it, "rfc822;a@b": decoded, and never with a line end or another
 * control character. With `utf8` an address of type utf-8 gets its characters; else it gets utf-8-addr-xtext, which is
 * also what the parameter may be where SMTPUTF8 is not offered. */
void orcpt_put_decoded(struct text *, struct str orcpt, bool utf8);

#endif
