/*
 * received - the Received field that we add (RFC 5321 section 4.4, standards of names after "with": RFC 3848, RFC 6531
 * section 4.3), and counting those that are there, for loops (section 6.3). The field is ASCII, whatever it is given.
 */
#ifndef MESSAGE_RECEIVED_H
#define MESSAGE_RECEIVED_H

#include "base/address.h"
#include "message/envelope.h"

struct received {
    struct str helo;          /* as the client said it; made safe here */
    struct str rdns;          /* the verified name of the client; absent or empty: "unknown" */
    struct address client;    /* not IPv4 or IPv6: `local` says who it was */
    struct str local;         /* "uid 1000"; only for clients without an address */
    struct str by;            /* our name */
    bool smtp_extended;       /* EHLO or LHLO, not HELO */
    bool lmtp, tls, authenticated, utf8;
    struct str tls_version;   /* "TLSv1.3 with cipher ..."; absent: not said */
    struct message_id id;
    struct str recipient;     /* the forward-path if there is just one, so that none is given away, else absent; left out unless ASCII */
    int64_t wall;
};

enum { LIMIT_RECEIVED = 4096 }; /* bytes that received_put() needs at most; no line is over 998 */
void received_put(struct text *, const struct received *);
/* "ESMTPSA" and its kind. */
struct str received_protocol(const struct received *);

/* Counts the Received fields of a header that arrives in pieces of any size. Starts zeroed. */
struct received_counter {
    size_t count;
    uint64_t bytes;   /* of the header, with the empty line that ends it */
    uint8_t matched;  /* bytes of "received:" at the beginning of this line */
    bool mid_line;    /* this line is another field */
    bool ended;       /* the empty line was seen */
};
void received_count(struct received_counter *, struct str bytes);

#endif
