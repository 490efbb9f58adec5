/*
 * envelope - what SMTP says about a message beside its content: reverse-path, recipients, and their parameters. It is
 * made by the receiver, kept by the spool, and read by queue and delivery.
 *
 * Addresses are "local@domain" without angle brackets, as RFC 5321 writes them on the wire (a local part that needs
 * quotes has them); the null reverse-path is empty. The domain is in lower case A-labels or U-labels as received,
 * without a trailing dot. Ownership: an envelope borrows every str; envelope_take() puts them into the arena.
 */
#ifndef MESSAGE_ENVELOPE_H
#define MESSAGE_ENVELOPE_H

#include "base/address.h"
#include "base/arena.h"
#include "base/codec.h"
#include "base/limits.h"

/* 128 random bits, chosen by the receiver when the transaction begins. */
struct message_id {
    uint64_t hi, lo;
};
enum { MESSAGE_ID_TEXT = 26 }; /* Crockford base32, lower case: the queue id in replies, logs and commands */
void message_id_put(struct text *, struct message_id);
struct str message_id_text(struct message_id, char memory[MESSAGE_ID_TEXT]);
bool message_id_parse(struct str, struct message_id *out);
static inline bool
message_id_eq(struct message_id a, struct message_id b)
{
    return a.hi == b.hi && a.lo == b.lo;
}

enum notify { /* RFC 3461 section 4.1; 0: no NOTIFY was given */
    NOTIFY_NEVER = 1,
    NOTIFY_SUCCESS = 2,
    NOTIFY_FAILURE = 4,
    NOTIFY_DELAY = 8,
};
/* "NEVER", or a list of the others as in "SUCCESS,FAILURE", in any case. False: it is neither. */
bool notify_parse(struct str, uint8_t *out_bits);
enum ret { RET_NONE, RET_FULL, RET_HDRS };
enum body { BODY_7BIT, BODY_8BITMIME, BODY_BINARYMIME };

/* Why a recipient is there besides being named by the client. */
enum recipient_origin {
    RECIPIENT_GIVEN,     /* as the client gave it */
    RECIPIENT_ALIAS,     /* an alias, catch-all or forward to one address: keeps NOTIFY and ORCPT (RFC 3461 5.2.7.1) */
    RECIPIENT_MEMBER,    /* one of several an alias or list led to: 5.2.7.2 or .3 */
    RECIPIENT_EXPANDED,  /* the alias or list itself: ended at acceptance; owes an "expanded" notice if asked */
};

struct recipient {
    struct str address;      /* final forward-path */
    struct str orcpt;        /* "rfc822;..." as it came, still xtext; absent: none */
    struct str given;        /* the forward-path the client named, where it differs from address; else absent */
    struct str reverse_path; /* in place of the envelope's: a list's owner; absent: the envelope's */
    uint8_t notify;          /* enum notify bits */
    uint8_t origin;          /* enum recipient_origin */
};

struct envelope {
    struct str reverse_path;
    struct str envid;        /* still xtext; absent: none */
    struct str helo;         /* client's EHLO name */
    struct str client;       /* "192.0.2.1", "local:1000", for turns between submitters and for logs */
    struct str session;      /* the receiver's session id, for logs */
    uint64_t size;           /* bytes of content, without `trace` */
    int64_t accepted_wall;   /* ns since 1970, when it was committed */
    int64_t hold_until;      /* wall ns; 0: none */
    int64_t deliver_within;  /* ns from acceptance or release on, RFC 2852; 0: not said */
    bool deliver_or_return;  /* then: fail what is not delivered by then, instead of telling of the delay */
    bool deliver_trace;      /* BY= had a T: "relayed" notices tell of its way */
    uint8_t ret;             /* enum ret */
    uint8_t body;            /* enum body; what the content needs (8-bit seen counts, whatever MAIL said) */
    bool smtputf8;           /* MAIL said SMTPUTF8 */
    bool require_tls;        /* MAIL said REQUIRETLS: RFC 8689 */
    bool tls_optional;       /* the header says TLS-Required: No, and MAIL did not say REQUIRETLS */
    bool trusted;            /* from our users or a `relay from` network: may get delay notices unasked */
    bool notice;             /* a notice of our own making: never answered by another */
    struct str trace;        /* header fields to prepend (Received), CRLF lines; stored apart from the content */
    struct recipient *recipients;
    size_t recipient_count;
};

enum {
    LIMIT_ENVELOPE_WORD       = 512,      /* envid, helo, client, session */
    LIMIT_ENVELOPE_TRACE      = 8 << 10,
    LIMIT_ENVELOPE_RECIPIENTS = LIMIT_RCPT_EXPANDED, /* the lists that led to some of them too */
    LIMIT_ENVELOPE_FIXED      = 16 << 10, /* all but the recipients, encoded */
    LIMIT_ENVELOPE_RCPT_BYTES = 3840 << 10, /* the recipients of what comes in, encoded: a link's message holds it */
};
/*
 * Bytes that envelope_put() needs. It CHECKs what envelope_take() asks for: every address and parameter at most
 * LIMIT_COMMAND_LINE bytes, the words and the trace within the limits above, no control character in any of them (but
 * for the trace, which is whole lines), and no recipient with an empty address.
 */
size_t envelope_size(const struct envelope *);
size_t recipient_size(const struct recipient *); /* its part of that */
void envelope_put(struct put *, const struct envelope *);
/* False: not an envelope that we could have put. */
bool envelope_take(struct take *, struct arena *, struct envelope *out);
/* Only the part before the recipients; they follow, recipient_take() one by one. */
bool envelope_take_head(struct take *, struct arena *, struct envelope *out);
bool recipient_take(struct take *, struct arena *, struct recipient *out);

/* What became of a recipient: the states of spool.md. */
enum recipient_state {
    STATE_PENDING,
    STATE_DELIVERED,
    STATE_FAILED_OWED,    /* failed; its notice is not committed yet */
    STATE_FAILED_SENT,    /* failed; the notice is in the spool as a message of its own */
    STATE_FAILED_SILENT,  /* failed; no notice: null sender, NOTIFY=NEVER */
    STATE_RELAYED,        /* to the next hop, and a "relayed" notice was asked for */
    STATE_EXPANDED,       /* an alias or list: its members are recipients of their own */
    STATE_SUPPRESSED,     /* a duplicate of another recipient of the same message */
    STATE_REMOVED,        /* by an operator */
    STATE_LAST = STATE_REMOVED,
};
static inline bool
recipient_state_is_ended(enum recipient_state s)
{
    return s != STATE_PENDING && s != STATE_FAILED_OWED;
}
struct str recipient_state_name(enum recipient_state);

#endif
