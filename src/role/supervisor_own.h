/*
 * supervisor_own - what the files of the supervisor share: the processes that should be there, the sockets that are kept over
 * generations, the links between two processes. supervisor.c starts, ends and reloads; supervisor_sockets.c listens;
 * supervisor_links.c ties processes together; supervisor_files.c opens what roles may not open themselves.
 */
#ifndef ROLE_SUPERVISOR_OWN_H
#define ROLE_SUPERVISOR_OWN_H

#include "role/control.h"
#include "role/supervisor.h"

enum { MAIL_BASES_MAX = ROLE_DIRS_MAX };

struct supervisor;

/* A link between two processes, in this life of both. It is gone when one of them says so, or with one of them. */
struct tie {
    struct list node;
    struct supervisor *s;
    struct process *a, *b;
    uint32_t pid_a, pid_b, number;
};

struct process {
    struct list node;
    struct supervisor *s;
    enum role_kind kind;
    uint32_t index, generation;
    uint32_t user_id, group_id; /* it runs as */
    struct str user;      /* mailbox: whose its directories are, as configured; lies behind */
    struct child *child;  /* NULL: it has ended */
    uint32_t pid;
    struct link *control;
    bool linked;    /* its control link takes peers */
    bool ready;     /* it said so */
    bool draining, stopping;
    bool closed;    /* it said that it accepts no more connections */
    struct err users_unopened; /* for this gate the users file could not be, so: if it is there, again soon */
    bool users_denied;         /* and it is not for use: the gate has none */
    bool ended;     /* this life: `status` says how */
    int status;
    struct event event;
    int64_t started, stop_at;
    uint32_t restarts;
    char report[512];
    size_t report_len;
    char user_name[];
};

struct mail_base { /* a directory with Maildirs below, and whose they are */
    struct str user; /* as configured; empty: ours */
    struct str path;
    uint32_t user_id, group_id;
};

struct socket { /* a listening socket, kept over generations */
    struct list node;
    struct str name;      /* of its listen block, or "local", "control"; absent: opened for a site not ours yet */
    struct str next_name; /* in the site that is being looked at; absent: not wanted there */
    struct address address;
    struct handle handle;
    enum role_kind taker, next_taker; /* whose it is; and in the site that is being looked at */
};

struct supervisor {
    struct rt *rt;
    struct str config_path;
    struct loaded loaded;
    const struct site *site;
    struct arena arena;          /* for the supervisor's whole life: names of sockets and roles */
    bool root;
    uint32_t user_id, group_id;  /* of the roles */
    struct mail_base bases[MAIL_BASES_MAX];
    size_t base_count;
    struct scope fibers;
    struct list processes, sockets, ties;
    struct err certificates_unopened[SITE_CERTIFICATES_MAX]; /* of the site's, when they were passed on last */
    uint32_t generation, last_tie;
    uint32_t whole;         /* the latest generation that has come up whole; until then the first */
    bool starting, reloading, stopping, stop_asked;
    struct event changed, site_taken;
};

/* For host_own(): only root can give things away. */
static inline int64_t
supervisor_owner(const struct supervisor *s, uint32_t id)
{
    return s->root ? (int64_t)id : -1;
}

/* Starts are one at a time. An error: the supervisor ends. */
struct err supervisor_begin_starting(struct supervisor *);
void supervisor_end_starting(struct supervisor *);

/* Opens what the site wants and is not open; on an error out_text says what. Then one of the two others, the last of which
 * undoes it. */
struct err supervisor_open_sockets(struct supervisor *, const struct site *, struct text *out_text);
void supervisor_keep_sockets(struct supervisor *);
void supervisor_drop_sockets(struct supervisor *);

/* While one starts. */
void supervisor_link_to_all(struct process *);
/* One of them says that a link is gone: later there is another. False: it may not say so. */
bool supervisor_hear_unlinked(struct process *, struct link_message *);
void supervisor_drop_ties(struct process *); /* it has ended */

/* What is passed to a role that starts, or anew. */
struct err supervisor_send_certificates(struct process *);
struct err supervisor_send_tickets(struct process *);
struct err supervisor_send_users(struct process *);
struct err supervisor_send_secrets(struct process *);
/* Before a reload: what runs now shows certificates that are good, and should not make way for what is not. */
bool supervisor_certificates_are_good(struct supervisor *, const struct site *, struct text *out_text);
/* Fibers: they see files that changed. arg: the supervisor. */
void supervisor_watch_certificates(void *arg);
void supervisor_watch_users(void *arg);

#endif
