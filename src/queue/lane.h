/*
 * lane - which recipients go next, to where, and how many at once: lanes, the destinations and hosts that they share,
 * and the turns that submitters take. For queue/ alone.
 *
 * A *lane* is a destination, a source address and what connections must have in common (route_put_key()). Its *window*
 * is how many jobs may be under way; it grows with success, and shrinks with failure and slowness. A *destination* (the
 * set of MX hosts, or the next hop) and a *host* bound the jobs of all lanes that lead there, so that limits hold for a
 * provider, however many domains point to it and whatever odd host a set contains.
 *
 * A lane that could not be reached several times in a row is *dead*: one state, not one record for each message. Its
 * mail waits where it is; from time to time one job goes as a probe; one success and everything flows.
 *
 * Submitters take turns in a lane (surplus round robin, by size), so that a newsletter does not stand before a letter.
 *
 * A lane with work is in one of: a runnable list; lanes->timers (dead, or over its rate); the waiting list of the
 * destination or host that is full; or nowhere, when its own window is full (then a job's end puts it back).
 */
#ifndef QUEUE_LANE_H
#define QUEUE_LANE_H

#include "base/map.h"
#include "dns/mx.h"
#include "queue/pending.h"
#include "queue/retry.h"
#include "queue/route.h"

enum lane_class { /* who can do the job */
    LANE_NETWORK,
    LANE_MAILBOX,
    LANE_ALONE,   /* suspects: a process that is thrown away afterwards */
    LANE_CLASSES,
};
enum {
    LANE_CONNECTIONS = 20,      /* standards 3.1: to one destination, and to one host */
    LANE_WINDOW_START = 5,
    LANE_FAILURES_TO_DIE = 3,
    LANE_REASON = 200,          /* bytes of the last trouble that are kept */
    LANE_QUANTUM = 32 << 10,    /* bytes of a turn */
    LANE_COST_MAX = 1 << 20,    /* a message counts as no more than this, so that a turn comes round soon */
    LANE_COST_RECIPIENT = 1 << 10,
};
#define LANE_PROBE_MAX (30 * MINUTE)
/* A job that takes longer than this and a second for each 64 KiB is slow: more at once would not help. */
#define LANE_SLOW_NS (20 * SECOND)

/* A destination or a host: something that only so many jobs may use at once. */
struct lane_limit {
    size_t refs;
    uint32_t in_flight;
    int64_t down_until;   /* hosts: not to be tried before others */
    uint32_t failures;    /* hosts: in a row */
    struct list waiting;  /* lanes */
    struct str name;
    char bytes[];
};

struct lane_host {
    struct lane_limit *limit;
    uint16_t rank; /* 0 first */
};

struct queue_lane {
    struct list link;            /* runnable, or waiting at a limit */
    struct heap_node timer;      /* dead, or over its rate */
    struct lanes *lanes;
    uint32_t number;
    uint8_t class;               /* enum lane_class */
    size_t refs;                 /* domains, flights, and the lane whose `alone` it is */
    struct route *own_route;
    struct lane_limit *destination;
    struct lane_host *hosts;     /* MX; by rank, then name */
    size_t host_count;
    struct queue_lane *alone;    /* the same for suspects; NULL: not needed yet */

    struct list turns;           /* whose turn it is, in order */
    size_t ready;
    uint32_t in_flight;
    uint32_t window, successes;  /* successes: since the window last changed */
    bool fast_start;             /* nothing has failed yet: grow with every success */
    bool dead;
    bool left;                   /* domains that have mail here left it: a sweep is due */
    bool runnable, runnable_busy; /* in lanes->runnable; in its list [1] */
    uint32_t failures;           /* in a row */
    uint32_t probes;             /* since it died, that failed */
    int64_t dead_since, probe_at;
    struct bucket bucket;
    struct str key;
    size_t reason_len;
    char reason[LANE_REASON];    /* of the last failure */
    char bytes[];
};

struct lanes {
    struct mem *mem;
    struct prng *prng;
    const struct retry *retry;
    struct map by_key, by_number, destinations, hosts, turns;
    struct list runnable[LANE_CLASSES][2]; /* [1]: has a job under way already */
    size_t runnable_count;
    struct heap timers;
    uint32_t next_number;
};

void lanes_init(struct lanes *, struct mem *, struct prng *, const struct retry *, uint64_t seed);
void lanes_done(struct lanes *); /* every lane has been given back */

/* hosts: for ROUTE_MX. The reference is the caller's, to give back by lane_unref(). */
struct queue_lane *lane_get(struct lanes *, const struct route *, const struct mx_host *hosts, size_t host_count);
struct queue_lane *lane_for_suspects(struct queue_lane *); /* borrowed */
void lane_ref(struct queue_lane *);
void lane_unref(struct queue_lane *);

void lane_push(struct queue_lane *, struct pending *, int64_t now);
void lane_remove(struct queue_lane *, struct pending *, int64_t now);
/* Takes out every recipient whose domain has left the lane (queue_domain's `left`), into `out`. */
void lane_remove_left(struct queue_lane *, struct list *out, int64_t now);

/* A lane of one of these classes (bits) that may begin a job: one with nothing under way first, so that no lane starves
 * for another's connections; else `prefer` (0: none), whose connection is there already; else the one that waited
 * longest. */
struct queue_lane *lanes_pick(struct lanes *, unsigned classes, uint32_t prefer, int64_t now);
/* Recipients of one message that go together, at most max, into `out`: whose turn it is. */
size_t lane_take(struct queue_lane *, size_t max, struct list *out);
/* A job begins. Returns the host that it counts at, to be tried first; NULL for a lane without hosts. */
struct lane_limit *lane_begin(struct queue_lane *, int64_t now);
/* In the order to try them: those thought down last, then by preference, `first` before its equals, else by chance.
 * Their preferences are their ranks, 0, 1, 2, ... by the MX records: where we are one of them, it is these that count. */
size_t lane_order_hosts(struct queue_lane *, const struct lane_limit *first, int64_t now, struct mx_host *out,
                        size_t cap);

enum lane_result {
    LANE_RESULT_GOOD,
    LANE_RESULT_REACHED,     /* somebody answered, but no mail was taken */
    LANE_RESULT_BUSY,        /* "not now" to the message as such: less at once */
    LANE_RESULT_UNREACHABLE,
    LANE_RESULT_UNKNOWN,     /* says nothing about the lane */
};
void lane_end(struct queue_lane *, struct lane_limit *host, enum lane_result, int64_t started, uint64_t bytes,
              int64_t now);
void lane_set_reason(struct queue_lane *, struct str);
/* A dead lane may be probed at once. */
void lane_probe_now(struct queue_lane *, int64_t now);

void lanes_host_down(struct lanes *, struct str name, int64_t now);
void lanes_host_up(struct lanes *, struct str name);

void lanes_tick(struct lanes *, int64_t now);
int64_t lanes_due(const struct lanes *); /* INT64_MAX: nothing waits for a time */
/* As they stand: a lane without work, or with a full window, is nowhere. For tests: CHECKs that each is where it should
 * be. */
void lanes_check(const struct lanes *);

#endif
