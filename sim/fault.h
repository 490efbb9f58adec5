/*
 * fault - what goes wrong, and when: a list that is drawn by the seed before anything runs, so that a failing run can be
 * tried again with one fault less.
 *
 * A fault comes at a virtual time, or at the nth step (call of the seam) of a process of some kind after that time, so
 * that kills find the rare places too.
 */
#ifndef SIM_FAULT_H
#define SIM_FAULT_H

#include "base/str.h"

struct sim;
struct process;

enum fault_kind {
    FAULT_KILL_ROLE,      /* SIGKILL of one process of the daemon */
    FAULT_KILL_ALL,       /* of all of them; started again later */
    FAULT_POWER_LOSS,
    FAULT_DISK_ERROR,     /* a call fails: once, or until it is lifted */
    FAULT_DISK_FULL,
    FAULT_DISK_STALL,
    FAULT_CLOCK_JUMP,
    FAULT_DNS_OUTAGE,
    FAULT_PARTITION,      /* one host, or the daemon's own, is cut off */
    FAULT_RESET,          /* of a connection */
    FAULT_HALF_OPEN,      /* a connection dies and nobody is told */
    FAULT_NO_FILES,       /* EMFILE for a while */
    FAULT_RELOAD,
    FAULT_RESTART,        /* in good order */
    FAULT_CRASHES,        /* again and again while it recovers: of one role, or of the machine's power */
    FAULT_KINDS,
};
const char *fault_name(enum fault_kind);

enum { FAULTS_MAX = 64, FAULT_ROLE_NAME = 16 };

struct fault {
    uint8_t kind;         /* enum fault_kind */
    bool off;             /* left out: shrinking */
    bool begun, done;
    bool by_step;         /* at the `step`th step of a process of this role after `at` */
    char role[FAULT_ROLE_NAME]; /* kill: its name; empty: any */
    int64_t at, lasts;
    uint64_t step;
    uint32_t again;       /* crashes: so often after the first time */
    int error;            /* errno */
    int64_t amount;       /* clock jump: ns; disk full: bytes left */
    uint32_t which;       /* of hosts, connections, kinds of call: taken modulo their number */
};

struct faults {
    struct fault list[FAULTS_MAX];
    size_t count;
    uint64_t injected[FAULT_KINDS];
    uint64_t planted;         /* calls that a call_watch let fail */
    /* In force now. */
    int64_t disk_error_until, no_files_until, dns_out_until;
    int disk_error;
    bool disk_error_once;
    uint8_t disk_error_calls; /* bits of enum seam_call */
    /* What duplicates may come from: processes that ended otherwise than in good order. Those that died in one instant count
     * once, since one of them took the reply. */
    uint64_t process_deaths;
    int64_t last_death;
    bool armed;               /* a fault by step is waiting */
};

/* Calls of the seam that can fail, by what they can fail with. Those to the disk come first. */
enum seam_call {
    CALL_OPEN = 1,
    CALL_READ = 2,
    CALL_WRITE = 4,
    CALL_SYNC = 8,
    CALL_DIR = 16,            /* names: make, rename, unlink */
    CALL_SYNC_DIR = 32,
    CALL_CONNECT = 64,
    CALL_ACCEPT = 128,
    CALL_LISTEN = 256,
    CALL_PAIR = 512,
    CALL_TAKE = 1024,         /* a handle becomes a stream or a listener */
    CALL_DUPLICATE = 2048,    /* a stream's, listener's or directory's handle, to pass on */
    CALL_RECEIVE = 4096,      /* by TCP */
    CALL_SEND = 8192,
    CALL_LINK_RECEIVE = 1 << 14, /* by a Unix socket */
    CALL_LINK_SEND = 1 << 15,
    CALL_HANDLES = 1 << 16,   /* that came with bytes: there is no descriptor left for them */
    CALL_SPAWN = 1 << 17,
    CALL_SIGNALS = 1 << 18,
    CALL_HOST = 1 << 19,      /* host.h */
    CALL_SANDBOX = 1 << 20,
    CALL_RESOLVER = 1 << 21,  /* to open it */
    CALL_QUERY = 1 << 22,     /* a question to the DNS */
    CALL_MEMORY = 1 << 23,    /* an allocation: the process ends there */
    CALL_KINDS = 24,
};

/* Sets the alarms of all that are not off. */
void faults_arm(struct sim *);
void faults_death(struct sim *);
/* Nothing has happened yet that may break a connection or make the daemon end one. */
bool faults_were_gentle(const struct sim *);
/* A step of a process: may kill it (and not return). */
void faults_at_step(struct sim *, struct process *);
/* What a step began is ended: called between turns. */
void faults_after_turn(struct sim *);
/* errno for this call, or 0. */
int faults_disk_error(struct sim *, struct process *, enum seam_call);
/* errno for a call that is none to the disk, or 0: only a call_watch lets these fail. */
int faults_call(struct process *, enum seam_call);
bool faults_no_files(struct sim *);
/* Now; not while a process runs. */
void faults_lose_power(struct sim *);
/* Everything that lasts is over: from now on the world is well. */
void faults_end(struct sim *);
/* "12.5 s: power loss" */
void fault_describe(const struct fault *, struct text *);

#endif
