/*
 * notice - who is told what about a recipient: RFC 3461 sections 4.1, 5.2 and 6.2, RFC 5321 section 6.1, standards 5.7.
 * Pure policy; composing is message/dsn's matter.
 */
#ifndef QUEUE_NOTICE_H
#define QUEUE_NOTICE_H

#include <stdbool.h>
#include <stdint.h>

enum notice_kind {
    NOTICE_NONE,
    NOTICE_OF_FAILURE,
    NOTICE_OF_DELAY,
    NOTICE_OF_SUCCESS,       /* delivered, relayed or expanded: the recipient's state says which */
    NOTICE_OF_DOUBLE_BOUNCE, /* a notice of ours could not be delivered: postmaster is told */
};

struct notice_facts {
    uint8_t notify;           /* enum notify bits of the recipient; 0: none given */
    bool null_reverse_path;   /* of this recipient: a list's owner counts before the envelope's */
    bool own_notice;          /* the message is a notice of our own making */
    bool by;                  /* DELIVERBY asks for word of its delay */
    bool trusted;             /* from our users or a `relay from` network */
    bool has_postmaster;      /* double bounces have somewhere to go */
    bool is_postmaster;       /* the recipient is that postmaster: after him nobody is told */
};

/* NOTICE_NONE, NOTICE_OF_FAILURE or NOTICE_OF_DOUBLE_BOUNCE. */
enum notice_kind notice_for_failure(struct notice_facts);
/* With no NOTIFY only mail of our own people, and what asks by DELIVERBY: a backup MX must not backscatter. */
bool notice_for_delay(struct notice_facts);
bool notice_for_success(struct notice_facts);
/* Of one that was relayed, and deliver/ says that it is ours to tell: OUTCOME_RELAYED. */
bool notice_for_relay(struct notice_facts);

#endif
