/*
 * control - what supervisor and roles say to each other on a role's control link.
 *
 * Supervisor to role, in this order before GO: SETUP, BUNDLE (in parts), LISTENER, DIR, TICKETS, CERTIFICATE, USERS, PEER; later
 * PEER, DRAIN, STOP, CERTIFICATE and USERS when files have changed, TRY before a reload, and BUNDLE again to the store, which alone swaps settings. Role to
 * supervisor: READY, then UNLINKED, CLOSED, and calls of the console. Handles come with LISTENER, DIR and PEER, one each (two for
 * a peer that signs), and with CERTIFICATE, TRY and USERS.
 */
#ifndef ROLE_CONTROL_H
#define ROLE_CONTROL_H

#include "role/role.h"

enum control_type {
    CONTROL_SETUP = 1,   /* struct control_setup */
    CONTROL_BUNDLE,      /* u8 last, then a part of the configuration bundle */
    CONTROL_LISTENER,    /* name, address as text; a handle */
    CONTROL_DIR,         /* purpose, path; a handle */
    CONTROL_PEER,        /* u8 kind, u32 index, u32 generation, u32 tie; a handle, or two */
    CONTROL_GO,
    CONTROL_DRAIN,       /* take no new work, finish what there is, end */
    CONTROL_STOP,        /* end soon: say 421, abort drafts, close */
    CONTROL_READY,       /* the sandbox report as text */
    CONTROL_RELOAD,      /* call: the answer is that of BORDER_RELOAD */
    CONTROL_STOP_ALL,    /* call: the answer is empty; then everything ends */
    CONTROL_STATUS,      /* call: the answer is JSON, one object a role */
    CONTROL_UNLINKED,    /* the link to a peer is gone, or could not be made. u32 tie, as PEER said */
    CONTROL_CERTIFICATE, /* to the role `keys`. u32 index; handles of certificate and key; none: that was the last one */
    CONTROL_TRY,         /* to the role `keys`. Handles of certificate and key; then a call: the answer about them is u8
                            enum certificate_fault */
    CONTROL_TICKETS,     /* to the role `keys`, and a call of it. i64 since when (monotonic) the first one seals, u8 count, and so many
                            struct tls_ticket_key; a new generation goes on with those of the one before */
    CONTROL_USERS,       /* to the gate: the users file, anew when it changed; without a handle: there is none */
    CONTROL_SECRET,      /* to a sender. A file's path, and what is in it: how we log in by some route */
    CONTROL_CLOSED,      /* of a receiver that was told DRAIN or STOP: it accepts no more connections */
    CONTROL_LOST,        /* to the store: a sender or mailbox died. u8 kind, u32 index, generation, status (child_wait()) */
};

enum certificate_fault {
    CERTIFICATE_GOOD,
    CERTIFICATE_NOT_READ,
    CERTIFICATE_UNUSABLE, /* it, or its key */
    CERTIFICATE_OF_ANOTHER_KEY,
    CERTIFICATE_FAULTS,
};

struct control_setup {
    enum role_kind kind;
    uint32_t index, generation, user_id;
};

void control_put_setup(struct put *, const struct control_setup *);
bool control_take_setup(struct take *, struct control_setup *out);

#endif
