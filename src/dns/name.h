/*
 * name - domain names: as text, on the wire (RFC 1035 section 3.1), and reversed for PTR.
 *
 * Text has no trailing dot, but one is taken everywhere; the root alone is ".". What we ask for and believe is letters,
 * digits, hyphens and underscores (real names have those): anything else is not a name here. U-labels are the
 * caller's to turn into A-labels: message/domain.h. The wire form is uncompressed and in lower case, so two wire
 * names are equal when their bytes are.
 */
#ifndef DNS_NAME_H
#define DNS_NAME_H

#include "base/address.h"
#include "base/codec.h"

enum {
    NAME_LABEL_MAX = 63,
    NAME_TEXT_MAX = 253,
    NAME_WIRE_MAX = 255,
    NAME_REVERSE_MAX = 73, /* 32 nibbles with their dots, "ip6.arpa" */
};

struct name_wire {
    unsigned char bytes[NAME_WIRE_MAX];
    size_t len;
};

/* One or more labels of 1 to 63 letters, digits, '-' or '_', 253 bytes in all; not the root. */
bool name_is_valid(struct str);
struct str name_without_dot(struct str);       /* the root becomes empty */
bool name_eq(struct str a, struct str b);      /* without case, and a trailing dot does not count */

/* False: not a valid name (the root "." is one here). */
bool name_to_wire(struct str, struct name_wire *out);
/* False, with nothing said about t: a label has a byte that name_is_valid() does not take. */
bool name_put_text(struct text *t, const struct name_wire *);
/*
 * Takes a name, compressed perhaps, at *at; *at moves behind it. Pointers must lead backwards, which ends every loop
 * (RFC 1035 section 4.1.4: "a prior occurrence").
 */
bool name_take(struct str packet, size_t *at, struct name_wire *out);
static inline bool
name_wire_eq(const struct name_wire *a, const struct name_wire *b)
{
    return str_eq(str_new(a->bytes, a->len), str_new(b->bytes, b->len));
}

/* "1.2.0.192.in-addr.arpa", nibbles below "ip6.arpa"; nothing for other families. RFC 1035 3.5, RFC 3596 2.5. */
void name_put_reverse(struct text *, const struct address *);

#endif
