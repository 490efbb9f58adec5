/*
 * sim - the other side of runtime's seam: many processes in one thread, with virtual time, a simulated network and disk.
 *
 * The daemon runs unchanged: supervisor and roles are processes with a struct rt each, started by child_start(). The
 * world outside (clients, other people's servers) is made of *peers*: processes too, written as straight-line fibers
 * over the same rt.h, but never killed by a fault.
 *
 *     world.c     time, dice, events, the turn, the trace
 *     process.c   processes, their heaps, signals, how they end
 *     net.c       handles, streams, listeners; delay, loss, partition, reset
 *     file.c      files and directories over disk.h; lanes, latency, errors
 *     host.c      host.h, sandbox.h, notify.h, the log's sink
 *     resolver.c  dns/resolver.h, answered from a table
 *     https.c     net/https.h, the same
 *     fault.c     what goes wrong, and when
 *
 * Everything that could be otherwise is drawn from sim->dice, so that a seed is a run. The trace hash takes in every
 * event that a process can see; two runs of one seed have the same.
 */
#ifndef SIM_SIM_H
#define SIM_SIM_H

#include "base/heap.h"
#include "runtime/log_sink.h"
#include "runtime/sched.h"
#include "sim/disk.h"
#include "sim/fault.h"

struct sim;
struct process;

/* Something that the world does at a time. Embedded in what it is about. */
struct sim_event {
    struct heap_node node;
    void (*due)(struct sim *, struct sim_event *);
};

/* A machine on the network. The daemon's is sim->home. */
struct host {
    struct list node;
    struct address address;   /* port 0 */
    int64_t down_until;       /* no packet goes in or out: powered off, or partitioned from everybody */
    bool slow;                /* its packets are small and late */
    char name[48];
};

/* ---- handles ----------------------------------------------------------------------------------------------------- */

enum object_kind { OBJECT_STREAM, OBJECT_LISTENER, OBJECT_FILE };
/* What a descriptor refers to; several handles may, also in several processes or on their way in a message. */
struct object {
    uint8_t kind;
    uint32_t refs;
    struct sim *sim;
};
enum { HANDLES_MAX = 4096 };

/* ---- a process --------------------------------------------------------------------------------------------------- */

struct sim_lane {
    int64_t free_at;         /* when the work that was given to it is done */
};

struct process {
    struct rt rt;            /* first: process_of() */
    struct list node;        /* sim->processes */
    int64_t next_alarm;      /* in virtual time, as its last turn left it */
    bool ended, dying, main_ended, cancelled;
    struct sim *sim;
    struct mem mem;
    struct list blocks;      /* its heap, to drop it whole */
    uint64_t allocations;    /* so far */
    size_t memory_max;       /* bytes that it may ever have; 0: any number */
    uint64_t ends_at;        /* at which of them there is no memory left; 0: never */
    bool in_seam;            /* the simulator allocates for it, in the midst of what it does: that does not fail */
    struct host *host;
    uint32_t pid, parent, uid, gid;
    char name[32];           /* "sender", "client 3" */
    bool is_peer;
    int status;              /* as child_wait() gives it */
    int64_t boot;            /* virtual time at which this machine's monotonic clock began */
    int exit_code;           /* what main returned */
    int64_t give_up_at;
    struct alarm last_look;
    int (*main)(struct rt *, void *arg);
    void *main_arg;
    struct object *handles[HANDLES_MAX];
    int32_t handles_top;     /* above it all are free */
    struct list streams, listeners, files, dirs, jobs; /* open here */
    struct sim_lane lanes[LANES];
    uint64_t signals_caught, signals_pending;
    struct event signal_came;
    struct list children;
    struct log_sink log;
    uint64_t steps;          /* calls of the seam that others can see */
    uint64_t steps_then;     /* before its last turn */
    int64_t turn_ended;
    uint32_t idle_turns;     /* in a row and without a pause, each without a step */
    struct process *next_free;
};

static inline struct process *
process_of(const struct rt *rt)
{
    return (struct process *)(uintptr_t)rt;
}

/* ---- the world --------------------------------------------------------------------------------------------------- */

struct sim_dns;
struct sim_web;

struct sim_options {
    bool trace;              /* tell everything on standard output */
    bool logs;               /* the daemon's log lines too */
};

/* What a network is like; drawn by the seed. */
struct sim_net {
    int64_t delay_min, delay_max; /* one way */
    uint32_t loss;           /* of 1000 pieces come late, as if sent again */
    uint32_t window;         /* bytes under way or unread, each direction */
    uint32_t unix_window;
    uint32_t piece_max;      /* bytes that arrive at once; 0: any number */
};
struct sim_disk_speed {
    int64_t min, max;        /* of one operation */
    int64_t stall_until;     /* nothing ends before */
};

/* Somebody who sees every call to the disk of every process, and decides in place of the faults which of them fail: the
 * small cases of sim/states. With sees_all also the other calls, of the daemon's processes: sim/nth.c. */
struct call_watch {
    int (*call)(struct call_watch *, struct process *, enum seam_call); /* before it: errno, or 0 */
    bool sees_all;
    struct disk_choice failed_sync;      /* what a sync that fails leaves */
    bool drops_cache;
};

struct sim {
    struct mem mem;
    struct sim_options options;
    uint64_t seed;
    int64_t now;             /* virtual ns since the beginning */
    int64_t wall;            /* offset: wall clock = wall + now */
    struct prng dice;
    struct heap events;
    struct list processes, hosts, listeners, connections, locks;
    struct host *home;
    struct disk *disk;
    struct call_watch *call_watch; /* or NULL */
    struct sim_net net;
    struct sim_disk_speed disk_speed;
    struct sim_dns *dns;
    struct sim_web *web;
    uint32_t dns_fails;      /* of 1000 questions */
    bool daemon_is_over;     /* told to stop, and not to come back */
    bool daemon_ready;       /* since it was started last */
    struct faults faults;
    struct sim_event fault_events[FAULTS_MAX], start_again, disk_is_well;
    bool faults_over;
    struct fault *fault_at_step;
    uint64_t disk_capacity;
    uint32_t last_pid;
    struct process *running; /* whose code runs now */
    int32_t next_port;
    struct str config;       /* what host_read_file() gives for SIM_CONFIG_PATH */
    uint64_t hash;
    uint64_t turns;
    bool any_ended;          /* and is not buried */
    bool failed;
    char failure[512];       /* the first thing that went wrong, for people */
    void *ctx;               /* of whoever runs it */
    void (*log_line)(struct sim *, struct process *, struct str line); /* may be NULL */
    size_t (*memory_of_role)(const char *name); /* for memory_max; may be NULL */
    void (*crashes_begin)(struct sim *); /* FAULT_CRASHES: before the first; may be NULL */
    struct sim *outer;       /* the world in which this one was made */
    struct process *free_processes; /* with their stacks: see sim_new() */
    bool as_root;
    int64_t booted;          /* of the daemon's machine: its monotonic clock begins there */
    uint32_t daemon_pid;
};
enum { SIM_USER = 1000 };
#define SIM_CONFIG_PATH "/etc/postrider.conf"
#define SIM_WALL_START (INT64_C(1767225600) * SECOND) /* 2026-01-01 */

/* Processes' memory is kept from run to run: fiber stacks are dear. A world may be made while another stands still. */
struct sim *sim_new(uint64_t seed, struct sim_options);
void sim_free(struct sim *);
void sim_forget_processes(void); /* what was kept */

/* Turns until the time has come, the condition holds (NULL: never) or something failed. False: nothing can ever happen
 * any more, or the time has come. */
bool sim_run(struct sim *, int64_t until, bool (*enough)(struct sim *, void *arg), void *arg);
/* The first failure counts. */
void sim_fail(struct sim *, const char *format, ...) __attribute__((format(printf, 2, 3)));

void sim_at(struct sim *, struct sim_event *, int64_t time);
void sim_stop_event(struct sim *, struct sim_event *);

uint64_t dice_below(struct sim *, uint64_t bound);
bool dice_chance(struct sim *, uint32_t of_1000);
int64_t dice_between(struct sim *, int64_t least, int64_t most);

/* Into the hash, and as a line if asked for: "12.003456 sender.7: ...". kind: a literal. */
void sim_trace(struct sim *, const struct process *, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* Only numbers: cheap. */
uint64_t hash_line(struct str);
void sim_note(struct sim *, const struct process *, const char *kind, uint64_t a, uint64_t b);

/* ---- processes --------------------------------------------------------------------------------------------------- */

/* main runs as the first fiber; what it returns is the exit code. The name is copied. */
struct process *process_start(struct sim *, const char *name, struct host *, int (*main)(struct rt *, void *arg), void *arg);
/* One turn of it. */
void process_turn(struct sim *, struct process *);
/* Not of one that has ended. */
static inline bool
process_has_ready(const struct process *p)
{
    return !p->ended && (!list_is_empty(&p->rt.ready) || (p->main_ended && !p->cancelled));
}
/* Ends it where it stands. status: 256 + signal. Its memory is dropped, its handles closed; if it is the running one, this
 * does not return. */
void process_kill(struct process *, int status);
void process_signal(struct process *, int signal);
/* Forgets those that have ended and that nobody waits for. */
void process_bury(struct sim *);
/* Everything of the daemon's machine, at once. */
void sim_kill_home(struct sim *, int status);
/* Memory of that process for what the simulator keeps for it. */
void *process_alloc(struct process *, size_t size);
#define process_alloc_new(process, type) ((type *)process_alloc((process), sizeof(type)))
/* A call of the seam is about to have an effect: where a process may be killed. May not return. */
void process_step(struct process *);
/* Tells whoever waits for it. */
void child_ended(struct process *);
/* Whose code runs in this thread; NULL: the simulator's own. For CHECK alone. */
struct process *sim_running_process(void);

/* ---- net --------------------------------------------------------------------------------------------------------- */

struct host *host_new(struct sim *, const char *name, const char *ip);
struct host *host_find(struct sim *, const struct address *);
struct handle object_give(struct process *, struct object *); /* takes a reference */
struct object *object_of(struct process *, struct handle);
struct object *object_take(struct process *, struct handle);  /* out of the table, with its reference */
void object_release(struct object *);
/* How they end depends on their kind: each file has its part. */
void stream_object_end(struct object *);
void listener_object_end(struct object *);
void file_object_end(struct object *);
/* What the process still has open: called when it has ended. */
void net_close_all(struct process *);
void file_close_all(struct process *, bool killed);
/* What becomes of unsynced operations, by the dice. */
struct disk_choice file_draws(struct sim *);
/* The machine has lost power: its connections are gone and nobody was told. */
void net_lose_home(struct sim *);
/* A TCP connection that is open now breaks: the nth of those there are. */
size_t net_connections(const struct sim *);
/* Of this process, with other machines. */
size_t net_outside(const struct process *);
void net_break(struct sim *, size_t nth, bool silently);
void net_free(struct sim *);

/* ---- dns --------------------------------------------------------------------------------------------------------- */

/* Every domain name that is not in the table does not exist. */
void sim_dns_add_mx(struct sim *, const char *domain, unsigned preference, const char *host);
void sim_dns_add_address(struct sim *, const char *host, const char *ip);
void sim_dns_add_txt(struct sim *, const char *name, const char *text);
void sim_dns_free(struct sim *);
/* The page that a web server has; another text replaces it. */
void sim_web_put(struct sim *, const char *host, const char *body);
void sim_web_free(struct sim *);

/* ---- setting up -------------------------------------------------------------------------------------------------- */

/* The daemon: `postrider run`. */
struct process *sim_start_daemon(struct sim *);
struct process *sim_daemon(struct sim *); /* NULL: not there now */
/* Its supervisor is started after that time, or when the machine is back and the last of its roles has ended. */
void sim_daemon_comes_back(struct sim *, int64_t after);

#endif
