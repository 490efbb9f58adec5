/*
 * ledger - what happened to every message, written down by the outside world: clients note what they were told, servers
 * what they took, Maildirs are read at the end. From these and nothing else ledger_check() judges the promises P1 to P8
 * (issue text): the daemon's own counters are not believed.
 *
 * A message is one attempt of a client to hand it in; an attempt that failed is tried again as another message. Its number,
 * the *token*, stands in its addresses and its content, so that whoever sees either knows which message it is.
 */
#ifndef SIM_LEDGER_H
#define SIM_LEDGER_H

#include "sim/sim.h"

enum mail_state {
    MAIL_PLANNED,
    MAIL_CUT,       /* its end was never sent: nobody may ever see it */
    MAIL_DOUBTFUL,  /* its end was sent and no answer came: none or one of it */
    MAIL_DEFERRED,  /* 4xx to its end: none or one (the store may have had it when its link broke) */
    MAIL_REFUSED,   /* 5xx to its end: nobody may see it */
    MAIL_ACCEPTED,  /* 250: it must arrive */
};

enum { TARGETS_MAX = 16, NOTICES_MAX = 32 };

/* A final recipient: after aliases. */
struct target {
    char address[80];
    bool silent;            /* its failure owes no notice: null sender, NOTIFY=NEVER */
    uint32_t deliveries;    /* next hops that said 250, files in Maildirs */
    uint32_t doubts;        /* final replies that the daemon may not have got */
    uint32_t refusals;      /* 5xx that the daemon may have got */
    uint32_t deferred;      /* times that a server said 4xx for its name's sake */
    int64_t deferred_at;    /* the latest of them */
    uint32_t hurries;       /* tries that came too soon after it */
    bool waited;            /* behind a message that its server said nothing about for minutes */
    uint32_t failed_notices, delay_notices; /* each notice counted once */
};

struct mail {
    uint32_t token, original; /* original: of the first attempt */
    uint8_t state;          /* enum mail_state */
    bool spoiled;           /* its bytes in the spool were damaged at rest: it may be lost, if that is said */
    bool mime;              /* 8-bit: a next hop may get it converted */
    bool null_sender, delay_told;
    bool notice_returned;   /* a notice about it could not be delivered, and went to our postmaster */
    bool removed;           /* an operator took it out of the queue, or tried: it need not arrive */
    char sender[80];
    struct target targets[TARGETS_MAX];
    size_t target_count;
    struct str own_content; /* with CRLF and without dot-stuffing */
    int64_t begun_at, accepted_at; /* virtual */
    uint64_t notices[NOTICES_MAX]; /* hashes of the Message-IDs of those that came */
    size_t notice_count;
};

struct ledger {
    struct sim *sim;
    bool damaged, damage_told; /* bytes of the spool were; and the daemon's log says so */
    struct mail **mails;
    size_t count, cap;
    int64_t lifetime;       /* as configured */
    bool thin;              /* some messages take minutes to go through the network */
    int64_t soonest;        /* after a 4xx the next try comes no sooner */
    int64_t slack;          /* that a failure may come before its time: jitter, a clock that jumped */
    uint64_t accepted, delivered, duplicates, bounced, double_bounces, converted;
};

void ledger_init(struct ledger *, struct sim *);
void ledger_done(struct ledger *);
struct mail *ledger_new(struct ledger *, uint32_t original);  /* the next token */
struct mail *ledger_find(const struct ledger *, uint32_t token); /* NULL: there is none */
/* The number in "ok-17-2@good.test" and "s-17@back.test"; 0: none. */
uint32_t ledger_token(struct str address);
/* NULL: not a target of that message. */
struct target *ledger_target(struct mail *, struct str address);
struct target *ledger_add_target(struct mail *, struct str address);

/* A next hop said 250 to this content for this recipient, or it was found in a Maildir (with LF for CRLF). */
void ledger_delivered(struct ledger *, struct str address, struct str content, bool lf_only);
/* A notice from the null sender arrived at the address of a message's sender. */
void ledger_notice(struct ledger *, struct str to, struct str content);
/* Whether its final reply arrived is not known; and then it is. */
void ledger_doubt(struct ledger *, uint32_t token, struct str address, bool known);
void ledger_deferred(struct ledger *, struct target *);
void ledger_refused(struct ledger *, uint32_t token, struct str address);
/* This one's server says nothing for minutes: whoever else has mail for it may wait for that. */
void ledger_waited(struct ledger *, struct str address);
uint32_t ledger_token_in(struct str content);

/* All promises, at the end, Maildirs read. sim_fail() with the first that is broken. */
void ledger_read_maildirs(struct ledger *);
void ledger_check(struct ledger *);

#endif
