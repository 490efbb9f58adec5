/*
 * store - the process that owns spool and queue. Its parts: store.c (the role, and the pump that does what the queue
 * says), store_intake.c (drafts of receivers), store_jobs.c (delivery and notices), store_operator.c (questions of the
 * console).
 */
#ifndef ROLE_STORE_H
#define ROLE_STORE_H

#include "queue/queue.h"
#include "role/ask.h"
#include "role/border.h"
#include "role/role.h"

enum {
    STORE_HANDS_SENDER = 100,  /* jobs at a time in one sender */
    STORE_HANDS_MAILBOX = LIMIT_DELIVERIES,
    STORE_DRAFTS_MAX = 20000,
};

/* What the store keeps for a sender or mailbox: peer->own_ctx. */
struct hand {
    size_t in_flight;
    bool reserved;       /* for a suspect: nothing else is given to it */
    struct list jobs;    /* struct work of store_jobs.c: what it has, and may read the messages of */
};

struct death { /* how a process ended, as the supervisor says */
    enum role_kind kind;
    uint32_t index, generation, status;
};
enum { STORE_DEATHS = 16 };

struct store_draft;

struct store {
    struct role *role;
    struct rt *rt;
    const struct spool_ops *ops;
    struct spool *spool;
    struct dir *dir;
    struct queue *queue;
    struct asker resolver;
    struct scope work;
    struct event kick;             /* something changed: the pump looks again */
    bool kicked, recovered, failed, ending;
    bool runs_out;                 /* recovery failed: nothing more is begun, and then the store starts again */
    struct map drafts;             /* by id */
    struct list draft_list;
    struct death deaths[STORE_DEATHS];
    size_t death_count;            /* ever */
    struct event died;
    size_t sender_jobs, mailbox_jobs; /* begun and not ended */
    size_t reloads;                   /* how often the queue's routes changed */
    struct str mail_users[SITE_MAIL_DIRS_MAX]; /* load_mail_users() */
    size_t mail_user_count;
    bool space_accepting;
    bool stuck;                    /* settles wait for space: nothing is delivered meanwhile */
    uint64_t space_free;
};

struct moment store_moment(struct store *);
/* The queue may have something new to do. */
void store_kick(struct store *);
/* To the spool; an error ends the role, which is how a broken disk is met: recovery at the next start takes over. */
void store_settle(struct store *, const struct spool_settle *);
void store_check_broken(struct store *);
/* Whoever <Postmaster> is here; empty: nobody. */
struct str store_postmaster(struct store *, struct arena *);

/* ---- store_intake.c ---- */
bool store_intake_message(struct store *, struct peer *, struct link_message *); /* of a receiver */
void store_intake_peer_down(struct store *, struct peer *);                     /* its drafts go */
void store_intake_end(struct store *);                                          /* all drafts go: the work has ended */
void store_put_space(struct store *, struct peer *);                            /* tells one receiver */
/* Commits a message of our own making and gives it to the queue. */
struct err store_commit(struct store *, struct draft *, struct message_id, struct envelope *, const struct spool_settle *);

/* ---- store_jobs.c ---- */
void store_start_job(struct store *, const struct queue_job *);
bool store_read_message(struct store *, struct peer *, struct link_message *); /* READ of a sender or mailbox */

/* ---- store_operator.c ---- */
bool store_operator_message(struct store *, struct peer *, struct link_message *);

#endif
