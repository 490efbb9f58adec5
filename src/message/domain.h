/*
 * domain - what stands behind the "@": a name in A-labels or U-labels, or an address literal (RFC 5321 sections 4.1.2
 * and 4.1.3, RFC 6531 section 3.3, RFC 5890).
 *
 * Wider than the RFC on purpose: an underscore is taken anywhere, because hosts in use have it. A trailing dot is for
 * the caller to drop: domain_without_dot(). A name of digits alone is syntax; that no such host exists, DNS will say.
 */
#ifndef MESSAGE_DOMAIN_H
#define MESSAGE_DOMAIN_H

#include "base/address.h"
#include "base/arena.h"

/* A name whose labels have 1 to 63 bytes (U-labels: four times that) of letters, digits, "_", "-" but not at an end,
 * and well-formed UTF-8; LIMIT_DOMAIN bytes in all; no trailing dot. */
bool domain_is_name(struct str);
/* A name that a host can have: domain_is_name(), ASCII, and not only of digits and dots. */
bool domain_is_hostname(struct str);
/* "[192.0.2.1]", "[IPv6:2001:db8::1]". IANA lists no other kind, so none is taken. */
bool domain_parse_literal(struct str, struct address *out);
/* Either of the two. */
bool domain_is_valid(struct str);
/* "example.org." gives "example.org". */
struct str domain_without_dot(struct str);

/* As DNS wants it: lower case A-labels (libidn2: IDNA 2008, non-transitional, after NFC). A literal is only lowered.
 * Absent: not a name that IDNA allows. */
struct str domain_to_ascii(struct str domain, struct arena *);
bool domain_eq(struct str, struct str); /* ASCII without case; U-labels only if they are the same bytes */

#endif
