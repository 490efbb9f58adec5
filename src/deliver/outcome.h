/*
 * outcome - what became of one recipient in one delivery attempt. It is what deliver/ gives back and queue/ decides by.
 *
 * Ownership: an outcome borrows its strings; deliver/ keeps them in the arena that its caller passed.
 */
#ifndef DELIVER_OUTCOME_H
#define DELIVER_OUTCOME_H

#include "base/str.h"

enum outcome_kind {
    OUTCOME_DELIVERED, /* ended well: in the Maildir, with the LMTP server, or taken over by the next MTA */
    OUTCOME_RELAYED,   /* the same, and a "relayed" notice is ours to send: NOTIFY=SUCCESS, and the next hop knows no DSN; or DELIVERBY */
    OUTCOME_DEFERRED,  /* not now: again later */
    OUTCOME_FAILED,    /* never */
};

/* What the outcome tells about others: a dead destination is one state of the queue, not a record for each message. */
enum outcome_about {
    OUTCOME_ABOUT_RECIPIENT,   /* this one alone (RCPT refused, mailbox full) */
    OUTCOME_ABOUT_MESSAGE,     /* all recipients of this message there (MAIL or the content refused) */
    OUTCOME_ABOUT_DESTINATION, /* no host of it could be used: whoever comes next would fare the same */
};

struct outcome {
    uint8_t kind;          /* enum outcome_kind */
    uint8_t about;         /* enum outcome_about */
    bool dsn_passed_on;    /* the next hop took NOTIFY, ORCPT, RET and ENVID: it owes the notices of success, not we */
    uint8_t attempt;       /* of several that were made for one job: whose figures are this one's. deliver/ says 0 */
    struct str enhanced;   /* "5.1.1": the remote's own where it gave one, else ours; never empty */
    struct str reply;      /* the remote's reply whole, its code in front; or our own reason: outcome_is_remote() */
    struct str remote;     /* "mx.example.org [192.0.2.1]:25", also if it was not reached; empty: none was tried */
};

/* The words in `reply` are the remote's: our own reasons never begin with a digit. */
static inline bool
outcome_is_remote(const struct outcome *o)
{
    return o->reply.len > 0 && byte_is_digit(o->reply.ptr[0]);
}

static inline bool
outcome_is_good(const struct outcome *o)
{
    return o->kind == OUTCOME_DELIVERED || o->kind == OUTCOME_RELAYED;
}

#endif
