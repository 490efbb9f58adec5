/*
 * role - what every role process is: one world, a control link to the supervisor, and links to its peers.
 *
 * A role starts with its control link as descriptor 3 and learns everything else over it: who it is, the configuration,
 * its listeners and directories, its peers. When the supervisor says GO it enters its sandbox and runs. Peers come and
 * go (a role that died is started again and linked anew): role_call() finds one that is there.
 */
#ifndef ROLE_ROLE_H
#define ROLE_ROLE_H

#include "link/link.h"
#include "net/tls.h"
#include "sasl/client.h"
#include "role/load.h"
#include "runtime/sandbox.h"

enum role_kind {
    ROLE_SUPERVISOR,
    ROLE_RECEIVER,   /* pool mx */
    ROLE_SUBMISSION, /* a receiver too: the pool that local programs and users reach */
    ROLE_GATE,
    ROLE_STORE,
    ROLE_SENDER,
    ROLE_MAILBOX,
    ROLE_RESOLVER,   /* for routing: what store, gate and senders ask */
    ROLE_CHECKER,    /* a resolver too: for names that strangers chose */
    ROLE_CONSOLE,
    ROLE_KEYS,
    ROLE_FETCH,      /* policies of other domains, from the Web */
    ROLE_KINDS,
};
struct str role_kind_name(enum role_kind);
/* The pool of receivers that serves this kind of listeners. */
enum role_kind role_of_listener(enum listener_kind);

struct role;

/* The other end of a link. */
struct peer {
    struct list node;
    struct role *role;
    struct link *link;
    enum role_kind kind;
    uint32_t index, generation;
    uint32_t tie;    /* the supervisor's number of this link */
    uint64_t serial; /* of this link: never used twice. What outlives the link remembers this, not the pointer */
    void *own_ctx;   /* the role's own: what it keeps for this peer */
    struct handle second; /* of a peer that signs, or asks it: a socket beside the link. peer_up takes it */
    bool up;         /* it has said its hello, which it does once it runs; before, its process is only being started */
};

struct role_pending { /* a peer that came before the role was ready for it */
    enum role_kind kind;
    uint32_t index, generation, tie;
    struct handle handle, second;
};

struct role_listener {
    struct handle handle; /* the role takes it: HANDLE_NONE afterwards */
    struct str name;      /* of the `listen` block */
    struct address address;
};

struct role_dir {
    struct str purpose; /* "spool", "mail" */
    struct str path;
    struct handle handle;
};

struct role_certificate { /* files of the site's certificate of that index */
    uint32_t index;
    struct handle certificate, key;
};

struct role_secret { /* of a file that the configuration names */
    struct str path, secret;
};

/* What the store can take at the moment: it tells receivers whenever that changes. */
struct role_space {
    bool accepting;
    uint64_t free_bytes;
};

enum {
    ROLE_LISTENERS_MAX = LIMIT_LISTEN_ADDRESSES + 1, /* and the socket for programs of this machine */
    ROLE_TICKETS_MAX = 9 + TLS_TICKET_KEYS * sizeof(struct tls_ticket_key),
    ROLE_DIRS_MAX = SITE_MAIL_DIRS_MAX,   /* and so many mailbox roles at most */
    ROLE_PENDING_MAX = 64 + ROLE_DIRS_MAX, /* a store that starts again is linked to all of them before GO */
};

/* What one kind of role does; the hooks but prepare, start and run must not suspend. */
struct role_ops {
    enum role_kind kind;
    /* Before the sandbox, and before any peer speaks: its state, and files that it alone reads. May be NULL. */
    void (*prepare)(struct role *);
    void (*sandbox)(struct role *, struct sandbox_rules *); /* beyond what every role may */
    bool (*start)(struct role *); /* inside it, still before any peer. May suspend; may be NULL. False: end */
    void (*run)(struct role *);                             /* returns when it has drained or must end */
    /* A message from a peer; false: it breaks the border's rules. May be NULL. */
    bool (*message)(struct role *, struct peer *, struct link_message *);
    void (*peer_up)(struct role *, struct peer *);   /* it runs; before any message of its. May be NULL */
    void (*peer_down)(struct role *, struct peer *); /* of one that was up. May be NULL */
    void (*configured)(struct role *);               /* role->site was swapped (store only); may be NULL */
    bool (*lost)(struct role *, struct link_message *); /* CONTROL_LOST (store only); may be NULL */
    void (*users_file)(struct role *); /* role->users came anew while it runs (gate only); may be NULL */
    void (*try_certificate)(struct role *, uint32_t call); /* role->tried, whose handles it takes (keys only); may be NULL */
    void (*tell_tickets)(struct role *, uint32_t call); /* answers CONTROL_TICKETS (keys only); may be NULL */
    void (*certificates)(struct role *); /* role->certificates came anew while it runs (keys only); may be NULL */
};

struct role {
    struct rt *rt;
    const struct role_ops *ops;
    void *ctx;             /* of the role's own file */
    struct link *control;
    enum role_kind kind;
    uint32_t index, generation;
    uint32_t user_id;      /* mailbox: whose */
    const struct site *site;
    struct role_listener listeners[ROLE_LISTENERS_MAX];
    size_t listener_count;
    struct role_dir dirs[ROLE_DIRS_MAX];
    size_t dir_count;
    struct role_certificate certificates[SITE_CERTIFICATES_MAX]; /* the role takes the handles: role_take_certificates() */
    size_t certificate_count;
    struct role_certificate tried;
    unsigned char tickets[ROLE_TICKETS_MAX]; /* keys: what CONTROL_TICKETS had */
    size_t tickets_len;    /* 0: it did not come */
    struct handle users;   /* gate: the users file, or HANDLE_NONE: there is none. The role takes it */
    bool users_said;       /* and that it was said */
    struct role_secret *secrets; /* a sender's: SITE_SECRETS_MAX of them, in the arena; NULL: none came */
    size_t secret_count;
    struct list peers;
    struct role_pending pending[ROLE_PENDING_MAX];
    size_t pending_count;
    uint64_t last_serial;
    size_t next_peer;      /* calls go round between peers of a kind */
    struct event changed;  /* a peer came or went, or draining began */
    struct err control_error;
    bool go, running, draining, stopping, control_lost;
    bool prepared; /* ops->prepare has been; what comes behind GO in one piece may come before */
    struct arena arena;      /* lives as long as the role */
    struct loaded loaded, former; /* former: of before the last reload */
    struct sandbox_path paths[ROLE_DIRS_MAX]; /* what `sandbox` points its rules at */
    struct role_space space; /* receivers: what the store said last */
    unsigned char *bundle;
    size_t bundle_len, bundle_cap;
};

/* The process: argv[1] is "--role", argv[2] the kind's name. Returns the exit code. */
int role_main(struct rt *, const struct role_ops *);

/* A peer of that kind that is up and, if there is one, of this role's generation; NULL: none at the moment. */
struct peer *role_peer(struct role *, enum role_kind);
/* Calls any peer of that kind, waiting for one to be there. ERR_UNKNOWN as link_call(). */
struct err role_call(struct role *, enum role_kind, uint16_t type, struct str body, struct arena *, int64_t until,
                     struct str *out_reply);
/* The peer of that link, if the link is still there; else NULL. */
struct peer *role_peer_by_serial(struct role *, uint64_t serial);
/* Answers a call from a fiber that took its time: if the link is gone meanwhile, nothing happens. */
void role_reply(struct role *, uint64_t serial, uint32_t call, uint16_t type, struct str body);
/* Suspends until the supervisor asks for an end (drain or stop), or the control link is lost. */
void role_wait_for_end(struct role *);
bool role_is_ending(const struct role *);
struct role_dir *role_dir_of(struct role *, struct str purpose);
/* Takes the handles. One of the same index that was not taken makes way. False: there is no such index. */
bool role_add_certificate(struct role *, struct role_certificate);
/* How many there are; they are the caller's now. */
size_t role_take_certificates(struct role *, struct role_certificate out[SITE_CERTIFICATES_MAX]);

extern const struct role_ops receiver_ops, submission_ops, gate_ops, store_ops, sender_ops, mailbox_ops, resolver_ops,
    checker_ops, console_ops, keys_ops, fetch_ops;

#endif
