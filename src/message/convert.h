/*
 * convert - a message made fit for a next hop without 8BITMIME, or without BINARYMIME (RFC 6152 section 3, RFC 3030).
 *
 * Two passes over the content: mime_scan (mime.h) says what each part needs, then this rewrites only the parts that
 * need it: text becomes quoted-printable, everything else base64; multiparts and encapsulated messages keep their form,
 * and what is in them is converted (RFC 2045 section 6.4). Content-Transfer-Encoding says so. A message without MIME
 * fields gets them. Header fields with 8-bit bytes become encoded words (RFC 2047) or encoded parameters (RFC 2231).
 *
 * Decoded, every part is the same bytes as before. Memory is bounded whatever the message is; signatures over it break,
 * so DKIM comes after.
 */
#ifndef MESSAGE_CONVERT_H
#define MESSAGE_CONVERT_H

#include "message/mime.h"

enum convert_to {
    CONVERT_TO_7BIT, /* the next hop offers neither */
    CONVERT_TO_8BIT, /* it offers 8BITMIME, the message is BINARYMIME */
};
enum convert_verdict {
    CONVERT_NOT_NEEDED, /* it can go as it is */
    CONVERT_NEEDED,
    CONVERT_IMPOSSIBLE, /* 5.6.3: nested too deep, or a message/partial with 8-bit content, and the like */
};
enum convert_verdict convert_check(const struct mime_needs *, enum convert_to);

struct convert;
enum { CONVERT_ROOM = 256 }; /* free bytes that `out` must have at each call */
struct convert *convert_new(struct arena *, const struct mime_needs *, enum convert_to);
/* Takes from *bytes, the same as were scanned, and puts into `out`. True: all of them are used up. False: `out` is
 * full: call again when it is emptied, with what is left of the bytes, which stay where they are until then. */
bool convert_feed(struct convert *, struct str *bytes, struct text *out);
/* No more bytes come. False: call again, with `out` emptied. */
bool convert_end(struct convert *, struct text *out);

#endif
