/*
 * state - the queue's own struct, shared by the files of queue/ and nobody else.
 *
 *     queue.c     life, adding, ending, time
 *     schedule.c  places of recipients; domains and their routes
 *     job.c       jobs and what comes back
 *     report.c    notices
 *     operator.c  what operators do and see
 */
#ifndef QUEUE_STATE_H
#define QUEUE_STATE_H

#include "base/slab.h"
#include "message/ids.h"
#include "queue/lane.h"
#include "queue/queue.h"

enum {
    QUEUE_LANES_AHEAD = 256,    /* no domain is looked up while so many lanes have work that can begin */
    QUEUE_IDLE_DOMAINS = 4096,  /* without mail, kept for their routes and what is known of their lanes */
    QUEUE_TICK_EVENTS = 250,    /* some 3 ms when there are a million */
    QUEUE_DEATHS_MAX = 2,
    QUEUE_NOTICE_RECIPIENTS = 1000, /* in one notice: it must fit a message to the sender */
};
#define ROUTE_TTL_MIN (5 * MINUTE)
#define ROUTE_TTL_MAX (1 * DAY)
#define ROUTE_TTL_REFUSED (5 * MINUTE)  /* longest that "no such domain" is believed */
/* Recipients of one message that fail together share one notice: how long it waits for those still in flight. */
#define NOTICE_WAIT (10 * SECOND)
#define NOTICE_RETRY_MAX (1 * HOUR)

enum domain_state {
    DOMAIN_NEW,     /* its route is not known yet, or not known any more */
    DOMAIN_KNOWN,   /* lane */
    DOMAIN_REFUSED, /* takes no mail: why */
};

/* A recipient domain, interned. */
struct queue_domain {
    struct list link; /* in queue->questions while asking and not asked yet; in queue->idle_domains without refs */
    struct list pool;        /* PLACE_UNRESOLVED */
    struct list waiting;     /* PLACE_WAITING */
    struct heap_node timer;  /* in queue->domain_timers: ask again after trouble */
    struct list place_link;  /* in queue->placing: its pool is being emptied */
    struct list start_link;  /* in queue->starting: what waits is to be tried now, */
    uint64_t start_order;    /* but for timers that were set since */
    int64_t start_again;     /* not before that time */
    struct queue_lane *lane; /* KNOWN; and of the last answer */
    struct queue_lane *left; /* where its READY still stand until the sweep; NULL: nowhere */
    int64_t valid_until;
    size_t refs, ready;      /* pendings; of which in the lane */
    uint32_t troubles;       /* lookups that failed in a row */
    uint8_t state;           /* enum domain_state */
    bool asking, asked;      /* a question is due; and has been handed out */
    struct str why;          /* own: of REFUSED or trouble, "5.1.2 no such domain"; empty: none */
    struct str name;
    char bytes[];
};

/* A job: recipients of one message on their way. */
struct flight {
    uint64_t number;
    struct live *live;
    struct queue_lane *lane;
    struct lane_limit *host;
    struct list pendings;
    uint16_t *own_indices;
    size_t count;
    int64_t started;
};

/* A notice, from the moment it is owed until it is committed. */
struct notice {
    struct notice_key {
        struct message_id id;
        uint8_t kind, sender_group;
        uint8_t zero[6];     /* the key is compared as bytes */
    } key;
    struct heap_node timer;  /* until it is composed */
    int64_t asked_at;
    uint64_t number;         /* of the job; 0: not handed out */
    uint32_t failures, deaths;
    uint16_t *own_indices;
    size_t count;
    bool nothing_left;       /* when it was composed, nobody needed it: it did not fail */
};

struct queue {
    struct mem *mem;
    struct prng prng;
    struct queue_settings settings; /* own strings */
    struct lanes lanes;
    struct ids ids;                 /* struct live */
    struct slab lives, pendings;
    struct map domains, submitters, flights, notices_waiting, notices_composing;
    struct heap timers, domain_timers, notice_timers;
    struct list questions, idle_domains, placing, starting, doomed;
    size_t idle_count, asked_count, suspects;
    uint64_t next_job;
    uint32_t next_submitter;
    bool rerouting;
    struct queue_counts counts;     /* those that are events */
    uint64_t places[PLACES];
};

/* ---- queue.c ---- */

int64_t live_age(const struct live *, struct moment);
int64_t live_lifetime(const struct queue *, const struct live *);
bool live_is_expired(const struct queue *, const struct live *, struct moment);
struct notice_facts pending_facts(const struct queue *, const struct pending *);
/* Moves between places, with the counters; the lists and timers are the caller's. */
void pending_set_place(struct queue *, struct pending *, enum place);
/* It ended so; its notice may still be owed. */
void count_end(struct queue *, enum recipient_state);
/* It is in no list and has no timer, and ended so. Call live_tidy() when done with its message. */
void pending_end(struct queue *, struct pending *, enum recipient_state);
/* Gives back what is gone; the message too, if that is all of it: true. */
bool live_tidy(struct queue *, struct live *);
struct live *queue_find(const struct queue *, struct message_id);
/* Own copy of s in place of *own. */
void own_str(struct mem *, struct str *own, struct str s);

/* ---- schedule.c ---- */

/* Takes it out of its list and timer; its place is then the caller's to set. */
void pending_unplace(struct queue *, struct pending *, int64_t now);
/* All for an unplaced one: */
void pending_start(struct queue *, struct moment, struct pending *);             /* its time has come */
void pending_wait(struct queue *, struct moment, struct pending *, int64_t due);
void pending_doom(struct queue *, struct pending *, enum doom);
void pending_timer(struct queue *, struct moment, struct pending *);             /* its timer went off */
/* A new deaths count, and every ready recipient in the lane where it now belongs. */
void live_set_deaths(struct queue *, struct moment, struct live *, uint8_t deaths);
struct queue_domain *domain_get(struct queue *, struct str address);
void domain_unref(struct queue *, struct queue_domain *);
void domain_timer(struct queue *, struct moment, struct queue_domain *);
/* Empties the pool of one whose route is known, by at most so many. True: there are more. */
bool domain_place_some(struct queue *, struct moment, struct queue_domain *, size_t most);
void domain_refresh(struct queue *, struct moment, struct queue_domain *); /* if its answer is out of date */
void domain_free(struct queue *, struct queue_domain *);
/* Its next lookup after trouble, or the next probe of its dead lane, is now. */
void domain_hurry(struct queue *, struct moment, struct queue_domain *);
/* The same, and what waits is tried as soon as queue_tick() comes to it. */
void domain_start(struct queue *, struct moment, struct queue_domain *);
struct queue_lane *pending_lane(const struct pending *);
void queue_reroute(struct queue *, struct moment); /* the configuration changed */

/* ---- job.c ---- */

void flight_free(struct queue *, struct flight *);
struct recipient_status *statuses_new(struct arena *, size_t count, struct spool_settle *out, struct message_id);
/* ---- operator.c ---- */

/* Whatever is not in flight stays where it is. */
void live_hold(struct queue *, struct moment, struct live *);

/* ---- report.c ---- */

/* A notice of this kind about (at least) this recipient is owed. */
void notice_ask(struct queue *, struct moment, const struct pending *, enum notice_kind);
/* The message has waited so long that those who asked are told; done for each recipient once. */
bool notice_delay_is_due(const struct queue *, const struct pending *, struct moment);
int64_t notice_delay_at(const struct queue *, const struct pending *, struct moment); /* INT64_MAX: never */
bool notice_next(struct queue *, struct moment, unsigned can, struct queue_job *out);
bool notice_is_coming(const struct queue *, const struct pending *); /* for queue_audit() */
void notice_free(struct queue *, struct notice *);
/* If its message was removed and no notice of its failure is being composed, there will be none. */
void notice_drop_removed(struct queue *, struct pending *);
/* It failed: places or ends it, asks for the notice. */
enum recipient_state pending_fail(struct queue *, struct moment, struct pending *);

#endif
