/*
 * decode - for targets that look at what a receiver would read: quoted-printable and base64, written from RFC 2045 and not
 * from our own code, and the decoded bodies of a message.
 */
#ifndef FUZZ_DECODE_H
#define FUZZ_DECODE_H

#include "message/convert.h"

/* Both need up to twice in.len bytes of room. Lenient as readers are: "=" without two digits stays; what is no base64 is skipped. */
void decode_quoted_printable(struct str in, struct text *out);
void decode_base64(struct str in, struct text *out);

/* The scan of a message that comes in two pieces. */
const struct mime_needs *scan_message(struct arena *, struct str message, size_t cut);
/* The same for a conversion, whose output is taken away `room` bytes at a time. */
struct str convert_message(struct arena *, const struct mime_needs *, enum convert_to, struct str message, size_t cut,
                           size_t room);

struct decoded_body {
    struct mime_entity entity;
    struct text raw;
    struct str decoded;
};
/* The entities of a message, in order; .raw of one without a body is empty. Returns their count, at most max. */
size_t decode_message(struct arena *, struct str message, struct decoded_body *out, size_t max);

#endif
