/*
 * pending - what the queue keeps of a live message and of each of its recipients: as little as it can, because there
 * may be a million. Addresses and replies stay in the spool. For queue/ alone.
 *
 * A recipient is always in exactly one *place*, and each place has an event that will come: that is what nothing being
 * forgotten means, and queue_audit() counts it.
 *
 *     WAITING      in domain->waiting; the timer is its next attempt
 *     UNRESOLVED   in domain->pool until its route is known; the timer is delay notice or expiry
 *     READY        in a turn of its lane; the timer likewise
 *     IN_FLIGHT    in a flight
 *     HELD         nowhere, until an operator releases it
 *     TELLING      nowhere, while the notice of its delay is being committed
 *     DOOMED       in queue->doomed: its end is decided, and about to be told to the spool
 *     OWED         failed; a notice about it is to be composed
 *     SUCCESS_OWED ended well; a notice of success is to be composed
 *     GONE         ended; its memory is about to be given back
 */
#ifndef QUEUE_PENDING_H
#define QUEUE_PENDING_H

#include "base/heap.h"
#include "base/list.h"
#include "message/envelope.h"

enum place {
    PLACE_WAITING,
    PLACE_UNRESOLVED,
    PLACE_READY,
    PLACE_IN_FLIGHT,
    PLACE_HELD,
    PLACE_TELLING,
    PLACE_DOOMED,
    PLACE_OWED,
    PLACE_SUCCESS_OWED,
    PLACE_GONE,
    PLACES,
};

enum doom { /* why a recipient's end was decided without asking anybody */
    DOOM_EXPIRED,
    DOOM_ROUTE,   /* its domain takes no mail: the domain says why */
    DOOM_BOUNCED, /* by an operator */
    DOOM_REMOVED, /* by an operator, silently */
    DOOM_DROPPED, /* it failed before, and nobody is left to be told */
};

struct submitter { /* interned: those who take turns */
    uint32_t number;
    size_t refs;
    struct str name;
    char bytes[];
};

struct queue_domain;
struct pending;

struct live {
    struct message_id id;        /* first, for queue->ids */
    int64_t accepted_wall;
    int64_t born;                /* monotonic time at which its running time would have been 0 */
    uint64_t size : 41;          /* bytes: more than any listener takes */
    uint64_t within : 23;        /* seconds, RFC 2852: told of, or failed, at this age; 0: as others */
    struct submitter *submitter;
    struct pending *first;       /* by index; the ended ones among them are swept now and then */
    uint16_t total, gone;        /* pendings in the list; of which PLACE_GONE */
    uint8_t deaths;              /* > 0: suspect: goes out alone */
    bool null_sender : 1, trusted : 1, own_notice : 1, held : 1;
    bool returns : 1;            /* `within` is the end of its life */
    bool bounce : 1, remove : 1; /* what an operator decided while some recipients were in flight */
};

struct pending {
    struct list link;
    struct heap_node timer;
    struct live *live;
    struct queue_domain *domain;
    struct pending *sibling;         /* the message's next recipient */
    uint16_t index, attempts;        /* index: in the envelope */
    uint8_t sender_group;            /* recipients of one message with one group have one reverse-path */
    uint8_t place : 4, notify : 4;
    uint8_t detail : 4; /* DOOMED: enum doom; SUCCESS_OWED: the state it ended in; TELLING: its place before */
    bool null_reverse_path : 1, is_postmaster : 1;
    bool delay_told : 1;             /* NOTICE_DELAYED */
    bool composing : 1;              /* a notice is, of its failure or success if that is owed, else of its delay */
    bool delay_asked : 1;            /* a delay notice is to be, or being, composed */
};
/* Groups beyond this are not told apart: such recipients travel alone. */
enum { SENDER_GROUPS = 32, SENDER_GROUP_ALONE = UINT8_MAX };

static_assert(LIMIT_RCPT_EXPANDED <= UINT16_MAX, "an index fits");
static_assert(STATE_LAST < 16 && PLACES <= 16, "they fit their bits");
static_assert(offsetof(struct live, id) == 0 && sizeof(struct live) + sizeof(struct pending) <= 136,
              "a million messages fit");

#endif
