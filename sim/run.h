/*
 * run - one seed: a world is drawn (plan.h), the daemon and its peers live in it, faults come and go, and when all is quiet
 * the promises are checked.
 *
 *     0 s        the daemon starts
 *     ...        clients hand in mail, servers take it or do not; faults
 *     calm_at    no more faults, everybody behaves
 *     ...        until the fate of everything accepted is known, then a while longer
 *     the end    the daemon is told to stop, and every process, handle and message must be accounted for
 */
#ifndef SIM_RUN_H
#define SIM_RUN_H

#include "role/border.h"
#include "sim/ledger.h"
#include "sim/users.h"

enum { CLIENTS_MAX = 12, SERVERS_MAX = 8 };

struct run;
struct workload;
struct server;
struct client;

#define STATE_DIR "/var/lib/postrider"
#define SUBMISSION_SOCKET STATE_DIR "/submission.sock"

enum content_way { CONTENT_DRAWN, CONTENT_DATA, CONTENT_CHUNKS };
enum { SCRIPT_RCPTS_MAX = 4 };
struct script_letter { /* what a client hands in, where it is not drawn */
    const char *rcpt[SCRIPT_RCPTS_MAX]; /* as in places[] of peers_client.c; the rest NULL */
    size_t size;
    uint8_t way;             /* enum content_way */
    bool null_sender;
};

struct client_plan {
    char name[24], ip[24];
    const struct script_letter *script; /* `mails` of them; NULL: drawn */
    int64_t starts;          /* with a script: when it comes */
    bool later;              /* not started with the others */
    struct user_of_site *user; /* as whom it logs in, over TLS; NULL: it does not */
    bool local;              /* by the Unix socket, as a program of the daemon's machine */
    bool trusted;
    uint32_t mails;
    uint32_t messages_each;  /* in one session, about */
};

struct plan {
    struct client_plan clients[CLIENTS_MAX];
    size_t client_count;
    uint32_t hostility;      /* of 1000: how often a peer misbehaves */
    bool never;              /* some recipients are deferred until they expire */
    uint32_t big;            /* of 1000 messages are large */
    int64_t active;          /* how long mail comes and faults happen */
    int64_t lifetime, first_wait; /* between tries */
    uint64_t segment_bytes;  /* of the spool, made beforehand; 0: as the daemon chooses */
    char config[4096];
};

/* A run in which it is not the seed that says what happens. */
struct run_script {
    void (*plan)(struct run *, void *arg);
    void (*begin)(struct run *, void *arg); /* the daemon and its peers have been started */
    void (*heal)(struct run *, void *arg);  /* faults have ended */
    void (*quiet)(struct run *, void *arg); /* all is told, and the daemon still runs */
    void *arg;
};

struct run_options {
    const struct run_script *script; /* NULL: all is drawn */
    struct sim_options sim;
    uint64_t faults_off;     /* bit i: the ith fault is left out */
    uint64_t clients_off;
    bool calm;               /* no faults and no hostility at all */
};

/* What else was done, to be told. */
struct run_counts {
    uint64_t logins, logins_refused;
    uint64_t recoveries;     /* series of crashes whose end state was compared */
};

struct run_result {
    bool failed;
    char failure[512];
    uint64_t hash, turns;
    int64_t virtual_ns;
    uint64_t mails, accepted, delivered, duplicates, bounced, converted, deaths;
    struct run_counts counts;
    uint64_t injected[FAULT_KINDS], planted;
    size_t fault_count, client_count;
    double seconds;
};

struct run {
    struct sim *sim;
    struct plan plan;
    struct ledger ledger;
    struct prng draws;       /* of the plan: not disturbed by what happens */
    size_t clients_busy;
    bool calm;               /* everybody behaves from now on */
    int64_t healed_at;       /* since then all is well */
    bool has_users;
    struct user_of_site users[USERS];
    struct prng user_draws;
    struct run_counts counts;
    bool unattended;         /* operators ask no more */
    uint8_t act;             /* enum border_act: what operator_act() is about */
    bool acted;              /* and that it is done */
    int64_t empty_at;        /* when an operator asked last, if the queue was empty then; else 0 */
    int64_t unbalanced_since; /* answers whose sums did not agree; 0: they do */
    int64_t busy_until;      /* when the last client was done */
    char counters[8192];     /* what `postrider status` said last, and when it was asked */
    size_t counters_len;
    int64_t counters_at;
    struct disk *crashed;    /* a copy, as the first series of crashes in recovery began; or NULL */
    struct server *servers[SERVERS_MAX];
    size_t server_count;
    const struct workload *workload; /* of sim/nth.h; else NULL */
    struct client *clients;  /* CLIENTS_MAX */
};

static inline struct run *
run_of(const struct sim *sim)
{
    return sim->ctx;
}

double seconds_now(void); /* of the real clock */
void run_seed(uint64_t seed, const struct run_options *, struct run_result *out);

/* check_rest.c: P9, when all is quiet. What still waits has so long to give up: the longest deadline of a client or server. */
void check_rest(struct sim *, int64_t patience);
/* check_recovery.c: P7, of the disk that was copied. Not while anything runs. */
void check_recovery(struct run *);
/* P9, at any time: the most that a role may ever hold. 0: it is none. */
size_t memory_of_role(const char *name);
/* Of one role now, which serves nobody: what it holds; it may be that of a generation that drains. */
void check_memory_rests(struct sim *, const char *role);

/* A disk with an empty spool of small segments. */
void run_prepare_disk(struct run *);
/* A file of the machine, as an operator writes it: beside the old one, synced, and renamed. False: the disk is full. */
bool run_put_file(struct sim *, const char *path, struct str bytes);

/* plan.c */
void plan_draw(struct run *);
void plan_faults(struct run *);
/* Peers; each is a process of its own. */
void operator_start(struct run *);
/* Does it to all that waits; run->acted says when. */
void operator_act(struct run *, enum border_act);
uint64_t counters_figure(struct str counters, struct str name); /* UINT64_MAX: there is none of that name */
bool run_nobody_left(struct sim *, void *arg); /* for sim_run(): no process of the daemon is there any more */
void server_start(struct run *, const char *name, const char *ip, uint16_t port, bool lmtp); /* port 0: at /run/NAME.sock */
void servers_free(struct run *);
struct host *server_host(const struct run *, size_t index);
struct client *client_table_new(struct sim *);
void client_table_free(struct run *);
void client_start(struct run *, size_t index);
/* Final recipients of an address of the plan's site, put into the message: aliases led on. */
void plan_targets(struct mail *, struct str address, bool silent);

#endif
