/*
 * dsn - delivery status notices: multipart/report (RFC 6522) with words for people, the delivery-status of RFC 3464,
 * and what comes back of the original. With addresses that are not ASCII: the forms of RFC 6533.
 *
 * The notice of several recipients of one message is one. It is written piece by piece, so that ten thousand recipients
 * need no memory for all of them:
 *
 *     struct dsn_writer w = { .dsn = &dsn };
 *     while (dsn_next(&w, &text))            // text has DSN_PIECE bytes of room; header first
 *         put text, empty it
 *     for each piece of the original, its trace fields first, while dsn_wants_original(&w):
 *         put dsn_original(&w, piece)        // the part of it that goes into the notice
 *     dsn_end(&w, &text)                     // closing boundary
 *
 * What others wrote (replies, addresses, ENVID) is made safe here: no control characters, no line over 998. The
 * boundary is made of the notice's own random id, which no message that exists already can contain.
 *
 * There is no Last-Attempt-Date: a notice may be composed long after the last attempt, whose time nobody keeps, and RFC 3464
 * section 2.3.7 forbids any other.
 *
 * Its envelope: null reverse-path, to `to`, notice = true, smtputf8 = dsn_is_utf8(), body = dsn_body().
 */
#ifndef MESSAGE_DSN_H
#define MESSAGE_DSN_H

#include "message/envelope.h"
#include "message/header.h"

/* Action of RFC 3464 section 2.3.3. */
enum dsn_action { DSN_FAILED, DSN_DELAYED, DSN_DELIVERED, DSN_RELAYED, DSN_EXPANDED, DSN_ACTION_LAST = DSN_EXPANDED };

struct dsn_recipient {
    uint8_t action;              /* enum dsn_action */
    struct str address;          /* final forward-path */
    struct str given;            /* what the sender wrote instead, or absent */
    struct str orcpt;            /* as in struct recipient */
    struct str status;           /* "5.1.1"; anything that is none becomes x.0.0 */
    struct str reply;            /* the remote's words in full, or our reason */
    struct str remote;           /* "mx.example.org [192.0.2.1]:25"; absent or empty: the reply is ours */
    int64_t retry_until_wall;    /* of a delayed one; 0: not said */
};

struct dsn {
    struct message_id id;        /* of the notice */
    struct message_id original;  /* of the message it is about */
    struct str hostname;         /* ours */
    struct str to;               /* the original's reverse-path */
    struct str envid;            /* xtext, or absent */
    int64_t arrival_wall, now_wall;
    uint64_t original_size;
    uint8_t ret;                 /* enum ret, of the original */
    uint8_t original_body;       /* enum body */
    bool original_utf8;          /* it came with SMTPUTF8 */
    const struct dsn_recipient *recipients;
    size_t recipient_count;      /* at least 1 */
};

enum {
    DSN_PIECE    = 32 << 10,
    DSN_FULL_MAX = 256 << 10, /* a larger original comes back as its header only */
};

struct dsn_writer {
    const struct dsn *dsn;
    uint8_t section;
    size_t index;
    struct header_end header;
    uint64_t original_bytes;
};

bool dsn_next(struct dsn_writer *, struct text *);
bool dsn_wants_original(const struct dsn_writer *); /* false: all that comes back has come */
struct str dsn_original(struct dsn_writer *, struct str piece);
void dsn_end(struct dsn_writer *, struct text *);

/* The whole original comes back: RET=FULL or none asked for, a recipient failed (not with 5.6.3), not too large. */
bool dsn_returns_full(const struct dsn *);
bool dsn_is_utf8(const struct dsn *);
enum body dsn_body(const struct dsn *);

#endif
