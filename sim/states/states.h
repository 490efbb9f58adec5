/*
 * states - the spool's small cases, all of them: `postrider-states`.
 *
 * The real spool (src/spool/log) runs as one process of the simulator over a simulated disk. A *workload* is a *base*
 * (a spool with a past) and up to three *acts* on it: see enum act_kind. Three kinds of proof:
 *
 *     crash.c    power fails, or everything is killed, at every call to the disk; recovery, crashed in its turn
 *     faults.c   the Nth call to the disk fails, the Nth allocation ends the process; for all N
 *     damage.c   every block zeroed, every byte flipped
 *
 *     model.c    what must be there: acts, and the state that follows from them
 *     script.c   the processes: one does a workload, one recovers and looks, one verifies
 *     bases.c    the spools to begin with
 *     tears.c    which combinations survive of the operations that were not synced, and which are not tried
 *
 * What must hold is in the model: acts that were acknowledged are there; of those under way any, each whole or not at
 * all (a notice and the end of what it reports are one); of those refused none; nothing else. Not only messages: each
 * recipient's state, attempts and reply, the content's bytes, and the counters.
 */
#ifndef SIM_STATES_STATES_H
#define SIM_STATES_STATES_H

#include "sim/sim.h"
#include "spool/spool.h"

/* ---- model.c ----------------------------------------------------------------------------------------------------- */

enum act_kind {
    ACT_ACCEPT,         /* a small message to one recipient: its record fills two sectors */
    ACT_ACCEPT_TWO,     /* one of 1.5 KiB to two recipients */
    ACT_ACCEPT_CHUNKS,  /* one of 10 KiB, in two chunks: more than a record may hold here */
    ACT_ABORT,          /* a draft with a chunk on disk is given up */
    ACT_DELIVER,        /* the oldest pending recipient */
    ACT_DELIVER_LAZY,   /* the newest, by a settle that nobody waits for */
    ACT_DEFER,          /* the first pending recipient of the newest message */
    ACT_FAIL,           /* the last pending recipient of the oldest message, with its notice in the same record */
    ACT_HOLD,           /* by an operator; or, of a held message, its release */
    ACT_REMOVE,         /* by an operator: the newest message */
    ACT_KINDS,
};
enum { RECIPIENTS_MAX = 2, MESSAGES_MAX = 24, ACTS_MAX = 8 };

struct one { /* message */
    uint32_t number, size;
    uint8_t recipients;
    bool held;
    struct {
        uint8_t state;       /* enum recipient_state */
        uint16_t attempts;
        uint32_t reply;      /* number in the text; 0: none yet */
    } at[RECIPIENTS_MAX];
};

struct view { /* what a spool holds */
    struct one messages[MESSAGES_MAX];
    size_t count;
    uint64_t accepted, delivered, failed, removed; /* recipients, ever */
};

enum progress { ACT_NOT_BEGUN, ACT_UNDER_WAY, ACT_DONE, ACT_REFUSED };

struct act {
    uint8_t kind, progress;
    bool holds;              /* hold: else release */
    uint32_t number;         /* of this act; and of the message that it makes */
    uint32_t target;         /* the message that it settles; 0: none */
    uint8_t recipients;      /* of it, one bit each */
    uint16_t attempts[RECIPIENTS_MAX]; /* what it says of each */
};

struct model {
    struct view base;
    struct act acts[ACTS_MAX];
    size_t count;
    bool at_once;            /* the acts run beside each other */
};

const char *act_name(uint8_t kind);
bool act_accepts(uint8_t kind);
struct one one_of_act(const struct act *);           /* the message that it makes */
struct one *view_find(struct view *, uint32_t number); /* NULL: not there */
void view_apply(struct view *, const struct act *);
/* Makes that message what the act is about. */
void act_aim(struct act *, const struct one *);
/* Chooses what the next act is about. False: nothing is there for it. */
bool act_choose(const struct model *, struct act *);
/* Is what was found one of the views that the model allows? *out: which. */
bool model_allows(const struct model *, const struct view *found, struct view *out);
bool view_eq(const struct view *, const struct view *);
void view_put(struct text *, const struct view *);
void model_put(struct text *, const struct model *);
/* The model in which that view is certain, and nothing else happens. */
struct model model_of(const struct view *);

struct message_id id_of(uint32_t number);
uint32_t number_of(struct message_id);               /* 0: none of ours */
void content_fill(uint32_t number, char *memory, size_t size);

/* ---- script.c ---------------------------------------------------------------------------------------------------- */

enum { SEGMENT_BYTES = 64 << 10 };
extern const struct spool_settings states_settings;

/*
 * Runs main as the only process over that disk, until it has ended or *finished; then it is killed, as the cache
 * survives. False:  * it failed, and sim->failure says how.
 */
bool run_over(struct sim *, struct disk *, int (*main)(struct rt *, void *arg), void *arg, const bool *finished);

struct script {
    struct model *model;     /* its acts are begun and acknowledged here */
    void (*before_act)(void *arg, size_t nth); /* nth == count: the end; may be NULL */
    void *arg;
    void (*in_between)(struct rt *, struct spool *, struct script *); /* instead of the model's acts */
    bool calm;               /* nothing fails: what was written lazily is there when the spool is closed */
    uint64_t ends_at;        /* the process ends at this allocation; 0: never */
    bool opened, broken;     /* out */
    uint64_t allocations;    /* out: of the process, to the end */
    bool finished;
};
int script_main(struct rt *, void *script);
/* For in_between: does one act, which must be done. */
struct err script_act(struct rt *, struct spool *, struct act *);

struct look { /* out of a recovery */
    struct view view;
    bool done, finished, whole; /* whole: each message's envelope and content are as they were */
    struct err err;
    size_t damages;          /* reports */
    uint64_t pending, quarantined;
    bool read_only;          /* in: open it so */
    struct act *then;        /* in: after that, this one is done; NULL: nothing */
    char problem[256];       /* the first */
    uint32_t number;         /* of the message that it is about; 0: none */
};
int look_main(struct rt *, void *look);

struct verified {
    bool finished;
    struct err err;
    uint64_t messages, problems;
    char problem[256];       /* the first */
};
int verify_main(struct rt *, void *verified);

/* ---- bases.c ----------------------------------------------------------------------------------------------------- */

enum base_kind {
    BASE_NEW,      /* an empty directory */
    BASE_LIVED_IN, /* recycled segments; the next acts fit the current one */
    BASE_FULL,     /* the next record needs the next segment, and then the oldest, where something lives, is cleaned */
    BASE_FULL_OF_ENDS, /* the same, but in the oldest are ends of messages that began elsewhere */
    BASE_KINDS,
};
struct base_spool {
    struct disk *disk;
    struct view view;
};
const char *base_name(enum base_kind);

/* ---- tears.c ----------------------------------------------------------------------------------------------------- */

enum effort { EFFORT_BRIEF, EFFORT_USUAL, EFFORT_DEEP };
/* Calls each(arg, choice) for every combination: the head comment of tears.c says which there are. */
void tears_each(const struct disk *, enum effort, void (*each)(void *arg, const struct disk_choice *), void *arg);
/* What it chooses, for people. */
void tears_put(struct text *, const struct disk_choice *, const struct disk *);
extern const struct disk_choice nothing_kept, all_kept;

/* ---- the bench --------------------------------------------------------------------------------------------------- */

struct counts {
    uint64_t workloads, points, states, same, kills, again, calls, allocations, blocks, bytes, failures;
};

struct bench { /* one of those that share the work */
    struct sim *sim;
    uint32_t part, parts;
    uint64_t turn;
    bool deep;
    bool quick;              /* recoveries are not crashed in their turn */
    struct base_spool bases[BASE_KINDS];
    struct counts counts;
    char what[512];          /* is being tried */
    char how[2000];          /* the power failed */
    uint64_t failures_max;
    const char *only;        /* workloads in whose description this stands; NULL: all */
};

bool bench_is_wanted(const struct bench *); /* what is described in `what`: see `only` */
/* Is the next piece of work ours? */
bool bench_turn(struct bench *);
void bench_fail(struct bench *, const char *format, ...) __attribute__((format(printf, 2, 3)));
bool bench_is_over(const struct bench *); /* enough has failed */
void bases_make(struct bench *);

/*
 * crash.c: all that must hold of a disk after the workload. The disk is used up. powered: nothing is unsynced.
 * crash_again: the  * recovery is crashed in its turn.
 */
void check_state(struct bench *, struct disk *, const struct model *, bool powered, bool crash_again);

void crash_all(struct bench *);
void faults_all(struct bench *);
void damage_all(struct bench *);

#endif
