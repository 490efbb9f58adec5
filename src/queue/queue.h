/*
 * queue - what next: which mail goes where and when, what became of it, and who is told. In memory, rebuilt from the
 * spool.
 *
 * The queue decides and never does. It has no clock, no files, no links: every call brings the time (struct moment),
 * and what is to be done is fetched from it. The store role is its hands:
 *
 *     queue_add()            a message was committed, or recovery found it
 *     queue_tick()           when queue_due() has come
 *     queue_next_question()  -> look up that domain's MX, then queue_answer()
 *     queue_next_settle()    -> ends that the queue decided itself (expiry, no such domain): write them to the spool
 *     queue_next_job()       -> hand it to a sender or mailbox, then exactly one of
 *                               queue_outcome(), queue_job_lost(), queue_job_returned(); or for notices
 *                               queue_notice_settle() and queue_notice_committed(), or queue_notice_failed(),
 *                               queue_notice_lost() or queue_notice_returned()
 *
 * After any call that changes something, the four queue_next/due functions may have something new. A settle must be
 * given to the spool before the next queue_next_job(): so its record comes before that of any notice about it.
 *
 * A recipient that failed and whose sender is to be told stays here, STATE_FAILED_OWED in the spool, until its notice
 * is committed, in one record with its end: a crash in between composes it again, and never loses it or gives two.
 *
 * Memory: some 175 bytes for each message with one recipient. Adding and picking are O(log n) or better, apart from
 * walks over the recipients of one message.
 */
#ifndef QUEUE_QUEUE_H
#define QUEUE_QUEUE_H

#include "deliver/outcome.h"
#include "dns/mx.h"
#include "queue/notice.h"
#include "queue/retry.h"
#include "queue/route.h"
#include "spool/spool.h"

struct queue;

struct queue_settings {
    struct retry retry;
    struct str hostname;    /* ours: an MX of this name, and those it is preferred over, are not tried. Copied */
    struct str postmaster;  /* address that is told of double bounces; empty: they are counted and dropped. Copied */
    /* Where mail for the domain (in lower case) goes. False: nowhere, which fails it. The strings of *out need to live
     * only until the next call. */
    bool (*find_route)(void *arg, struct str domain, struct route *out);
    void *arg;
};

struct queue *queue_new(struct mem *, uint64_t seed, const struct queue_settings *, struct moment);
void queue_free(struct queue *);
/* After a reload: every domain's route is asked for again; jobs under way end as they began. */
void queue_set_settings(struct queue *, struct moment, const struct queue_settings *);

/* statuses NULL: all are pending. False: this message is here already, and nothing changed. */
bool queue_add(struct queue *, struct moment, const struct spool_message *);
bool queue_has(const struct queue *, struct message_id);

/* ---- time ------------------------------------------------------------------------------------------------------- */

/* When queue_tick(), queue_next_settle() or, with these hands (enum queue_can), queue_next_job() has something to do; INT64_MAX: not before
 * something else happens. Without QUEUE_NOTICE the notices that are due wait for a hand, and not for a time. */
int64_t queue_due(const struct queue *, unsigned can);
/* Does what is due, some of it; true: there is more, call again after letting others run. */
bool queue_tick(struct queue *, struct moment);

/* ---- routes ----------------------------------------------------------------------------------------------------- */

enum { QUEUE_QUESTIONS_MAX = 100 };
/* A domain whose MX should be looked up now. Its name lives until it is answered, which every question must be. */
bool queue_next_question(struct queue *, struct moment, struct str *out_domain);
void queue_answer(struct queue *, struct moment, struct str domain, const struct mx_result *);

/* ---- jobs ------------------------------------------------------------------------------------------------------- */

enum queue_can { /* what there is a free hand for */
    QUEUE_NETWORK = 1, /* a sender: SMTP, LMTP */
    QUEUE_MAILBOX = 2, /* a mailbox role: Maildir */
    QUEUE_ALONE = 4,   /* a process that is thrown away after this one job, of either kind */
    QUEUE_NOTICE = 8,  /* a sender that composes a notice */
};

struct queue_job { /* everything that it points to lives until the job's end */
    uint64_t number;
    struct message_id id;
    const uint16_t *recipients; /* indices in the envelope, growing */
    size_t count;
    bool notice;                /* which of the two below it is */
    bool alone;                 /* a suspect: for a process of its own */

    /* delivery */
    uint32_t lane;              /* give it to a hand that has a connection of this lane open, if there is one */
    struct str lane_key;
    const struct route *route;
    struct mx_host hosts[LIMIT_MX_HOSTS]; /* ROUTE_MX: in the order to try them; preference: their ranks */
    size_t host_count;
    uint16_t attempts;          /* most of any of its recipients, before this one */

    /* notice */
    uint8_t notice_kind;        /* enum notice_kind; to the reverse-path of these recipients, or to postmaster */
    bool bare;                  /* composing killed twice: without anything of the original's content */
    int64_t expires_wall;       /* of a delay: until when it will be tried */
};

/* can: enum queue_can bits. prefer: a lane whose connection would be free, or 0. False: nothing for these hands now. */
bool queue_next_job(struct queue *, struct moment, unsigned can, uint32_t prefer, struct queue_job *out);

/*
 * One outcome for each of the job's recipients, in their order. *out: what to tell the spool; lives in the arena, its
 * replies ("5.1.1 550 5.1.1 unknown user": enhanced code, space, reply) too.
 */
void queue_outcome(struct queue *, struct moment, uint64_t job, const struct outcome *, struct arena *,
                   struct spool_settle *out);
/* The process that had it died: nobody knows what became of it. It is a suspect now; after two deaths it is held. */
void queue_job_lost(struct queue *, struct moment, uint64_t job, struct arena *, struct spool_settle *out);
/* An operator held, bounced or removed its message since: what is not begun is given back. */
bool queue_job_is_stopped(const struct queue *, uint64_t job);
/* Whether any of its recipients is on its way. */
bool queue_is_under_way(const struct queue *, struct message_id);
/* It was never begun. */
void queue_job_returned(struct queue *, struct moment, uint64_t job);
/* A sender could not connect to this host, or could: others then try it later than its equals, or no longer. */
void queue_host_down(struct queue *, struct moment, struct str host);
void queue_host_up(struct queue *, struct str host);

/* What the notice's commit settles. False: there is nothing left to report: end it by queue_notice_failed(). */
bool queue_notice_settle(struct queue *, struct moment, uint64_t job, struct arena *, struct spool_settle *out);
/* It is in the spool, with its settle. (The notice itself is then added as any message.) */
void queue_notice_committed(struct queue *, struct moment, uint64_t job);
void queue_notice_failed(struct queue *, struct moment, uint64_t job);
/* The process that composed it died. */
void queue_notice_lost(struct queue *, struct moment, uint64_t job);
/* Composing it was never begun. */
void queue_notice_returned(struct queue *, struct moment, uint64_t job);

/* Ends that need no job. False: none. *out lives in the arena. */
bool queue_next_settle(struct queue *, struct moment, struct arena *, struct spool_settle *out);

/* What a reply in a recipient's status says: "5.1.1", and the rest. Empty enhanced: it has none. */
void queue_reply_split(struct str last_reply, struct str *out_enhanced, struct str *out_text);

/* ---- operators -------------------------------------------------------------------------------------------------- */

/* All return false if there is no such message. *out is for the spool; why is borrowed. */
bool queue_hold(struct queue *, struct moment, struct message_id, struct str why, struct spool_settle *out);
bool queue_release(struct queue *, struct moment, struct message_id, struct spool_settle *out);
bool queue_retry(struct queue *, struct moment, struct message_id); /* now, whatever its time is */
/* As failed for good, or as if it never was; recipients in flight follow if they come back. Then queue_next_settle() */
bool queue_bounce(struct queue *, struct moment, struct message_id);
bool queue_remove(struct queue *, struct moment, struct message_id);
/* ETRN: mail for this domain (in lower case) is tried as soon as queue_tick() comes to it, once a minute at most.
 * Returns the recipients there, 0: none. */
size_t queue_start_domain(struct queue *, struct moment, struct str domain);
/* All that waits for a time now is tried as soon as queue_tick() comes to it. Mail that its user had held (RFC 4865)
 * waits on, here and there. */
void queue_start_all(struct queue *, struct moment);

/* ---- looking ---------------------------------------------------------------------------------------------------- */

struct queue_recipient_view {
    uint16_t index, attempts;
    struct str place;      /* "waiting", "unresolved", "ready", "in flight", "held", "ending", "notice owed" */
    struct str domain;
    uint32_t lane;         /* 0: not known */
    struct str lane_key;
    int64_t next_wall;     /* of the next attempt, as far as it is known; 0: when its turn comes */
    struct str reason;     /* why its lane or domain waits; empty: it does not, or look into the spool */
};
struct queue_message_view {
    struct message_id id;
    uint64_t size;
    int64_t accepted_wall, expires_wall;
    bool held;
    uint8_t deaths;
    size_t count;          /* recipients that are not ended */
    struct queue_recipient_view *recipients; /* at most recipients_max, in the arena; strings until the next change */
    size_t recipient_count;
};
/* One message; a listing is pages of spool scan() with this for each. */
bool queue_view(const struct queue *, struct moment, struct message_id, size_t recipients_max, struct arena *,
                struct queue_message_view *out);

struct queue_lane_view {
    uint32_t number;
    struct str key, destination;
    size_t ready;
    uint32_t in_flight, window;
    bool dead;
    int64_t probe_wall;    /* dead: the next probe */
    struct str reason;
};
/* For tests: a page of lanes from *at (0 at first), which moves on; the count of out[] that was filled, 0 at the end. */
size_t queue_lanes(const struct queue *, struct moment, size_t *at, struct queue_lane_view *out, size_t cap);
struct queue_domain_view {
    struct str name, reason;
    size_t count;          /* recipients */
    uint32_t lane;         /* 0: not known */
};
/* For tests: the same of domains. */
size_t queue_domains(const struct queue *, size_t *at, struct queue_domain_view *out, size_t cap);

/* Recipients, since queue_new(). accepted = delivered + relayed + failed + expanded + suppressed + removed + pending */
struct queue_counts {
    uint64_t accepted, delivered, relayed, failed, expanded, suppressed, removed, pending;
    uint64_t waiting, unresolved, ready, in_flight, held, ending, owed; /* pending, by place */
    uint64_t success_owed;                                              /* ended, but a notice is owed */
    uint64_t messages, suspects, lanes, domains, jobs, notices;         /* now */
    uint64_t double_bounces_dropped, jobs_lost, attempts;
};
void queue_counts(const struct queue *, struct queue_counts *out);
/* Whether the counters balance: any difference is an alarm. */
bool queue_balances(const struct queue *);
/* Walks everything and CHECKs that each recipient is where its place says and will be heard of again. For tests. */
void queue_audit(const struct queue *);

#endif
