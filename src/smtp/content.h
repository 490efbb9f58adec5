/*
 * content - the message itself on its way in: where it ends, and what of it is stored.
 *
 * DATA: only CR LF . CR LF ends it (or . CR LF as the first bytes), found on the raw bytes; a leading dot is removed:
 * RFC 5321 section 4.5.2. BDAT: the chunk sizes say where it ends, and bytes are as they are. A bare CR or LF (RFC
 * 5321 section 2.3.8) is a fault, or is made CRLF; since that happens behind the search for the end, it can neither
 * make nor hide one. A NUL is a byte like others.
 *
 * Pure: bytes in, parts out. Parts borrow from the bytes given, or are constants.
 */
#ifndef SMTP_CONTENT_H
#define SMTP_CONTENT_H

#include "base/str.h"
#include "message/received.h"
#include "message/tls_required.h"

enum content_fault {
    CONTENT_FINE,
    CONTENT_BARE_CR,
    CONTENT_BARE_LF,
    CONTENT_LONG_LINE,   /* over LIMIT_TEXT_LINE */
    CONTENT_TOO_BIG,     /* over size_max */
    CONTENT_LOOP,        /* over LIMIT_RECEIVED_HOPS Received fields */
    CONTENT_BIG_HEADER,  /* over LIMIT_HEADER_BYTES without an empty line */
};

struct content {
    bool dots;              /* DATA */
    bool repair;            /* bare CR and LF */
    uint64_t size_max;      /* 0: none */

    uint64_t size;          /* of what is stored */
    uint64_t line;          /* the one at hand, from 1 */
    uint64_t repaired;      /* line ends */
    uint64_t fault_line;
    uint8_t fault;          /* the first one, enum content_fault; from then on there are no parts */
    bool eight_bit;         /* a byte above 127 was seen */

    uint8_t at;             /* what the last bytes were: enum in content.c */
    size_t line_len;
    struct received_counter received;
    struct tls_required tls_required;
};

enum { CONTENT_PARTS = 64 };
struct content_parts {
    struct str part[CONTENT_PARTS];
    size_t count;
    bool ended; /* DATA: the end was among the bytes taken */
};

void content_init(struct content *, bool dots, bool repair, uint64_t size_max);
/* Takes bytes off the front of raw, all of them unless the parts are full or the end was found. Returns how many. */
size_t content_scan(struct content *, struct str raw, struct content_parts *out);
/* BDAT: that was the last chunk. What was still open (a CR) becomes a part or a fault. */
void content_end(struct content *, struct content_parts *out);

#endif
