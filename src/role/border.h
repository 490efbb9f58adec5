/*
 * border - the typed messages between roles: what each call and its answer hold, and nothing else. Every _take is fed
 * by a process that may have been taken over: it checks all it reads, and what it gives back borrows from the message
 * or lives in the arena. (They stand in role/ and not in link/ because they speak of envelopes, outcomes and DNS
 * answers.)
 *
 * border                 calls                                                one-way
 * receiver  -> store     SUBMIT BEGIN PUT COMMIT HAS ETRN                     ABORT
 * store     -> receiver                                                       SPACE
 * receiver  -> gate      ADMIT VERIFY AUTH AUTH_STEP SPEND                    LEAVE
 * any       -> resolver  QUERY
 * sender, gate -> fetch  POLICY
 * store     -> sender    DELIVER COMPOSE
 * store     -> mailbox   DELIVER
 * sender, mailbox -> store     READ
 * console   -> store     LIST SHOW ACT COUNTERS
 * console   -> gate      BANS
 * keys      -> receiver                                                       CERTIFICATES TICKETS
 *
 * Signatures a receiver asks of `keys` by a socket of their own, and waits: net/signing.h.
 */
#ifndef ROLE_BORDER_H
#define ROLE_BORDER_H

#include "base/codec.h"
#include "deliver/smtp.h"
#include "message/dsn.h"
#include "message/envelope.h"
#include "policy/sts_policies.h"
#include "queue/route.h"
#include "sasl/mechanism.h"
#include "spool/spool.h"

enum border_type {
    BORDER_SUBMIT = 1,
    BORDER_BEGIN,
    BORDER_PUT,
    BORDER_COMMIT,
    BORDER_HAS,
    BORDER_ETRN,
    BORDER_ABORT,
    BORDER_SPACE,
    BORDER_ADMIT,
    BORDER_LEAVE,
    BORDER_VERIFY,
    BORDER_QUERY,
    BORDER_DELIVER,
    BORDER_COMPOSE,
    BORDER_READ,
    BORDER_LIST,
    BORDER_SHOW,
    BORDER_ACT,
    BORDER_COUNTERS,
    BORDER_POLICY,
    BORDER_CERTIFICATES, /* u16 count, and so many: name of the listener (empty: all that have none of their own), PEM text */
    BORDER_TICKETS,      /* u8 count, and so many struct tls_ticket_key: name, cipher, mac */
    BORDER_AUTH,
    BORDER_AUTH_STEP,
    BORDER_SPEND,
    BORDER_BANS,
    /* of the command line's socket, answered by the console itself or handed to the supervisor */
    BORDER_STATUS,
    BORDER_RELOAD,
    BORDER_STOP,
};

/* ---- small pieces ---- */

void border_put_id(struct put *, struct message_id);
struct message_id border_take_id(struct take *);
/* An error as an answer: its kind only. 1 byte. */
void border_put_err(struct put *, struct err);
struct err border_take_err(struct take *, const char *what);
void border_put_address(struct put *, const struct address *);
struct address border_take_address(struct take *);

/* ---- receiver to store ---- */

/*
 * SUBMIT  id, envelope, ended count, (index, state, notices)*, content   the whole of a small message in one call
 * COMMIT  the same without content, for a draft that was begun
 * BEGIN   id, expected size;  PUT  id, content;  ABORT  id;  HAS  id -> u8
 * answers: an error byte.  SPACE  u8 accepting, u64 free bytes
 */
struct border_submit {
    struct message_id id;
    struct envelope envelope;
    struct recipient_status *statuses; /* all of them, in the arena; NULL: all pending */
    struct str content;
};
enum { BORDER_SUBMIT_FIXED = 64, BORDER_SUBMIT_RECIPIENT = 6 }; /* bytes beside those of the envelope */
size_t border_submit_size(const struct border_submit *);
void border_put_submit(struct put *, const struct border_submit *);
bool border_take_submit(struct take *, struct arena *, struct border_submit *out);

/* ---- receiver to gate: users ---- */

/*
 * AUTH       struct border_auth       ->  struct border_verdict
 * AUTH_STEP  struct border_auth_step  ->  struct border_verdict
 * SPEND      struct border_spend      ->  struct border_spent
 *
 * The receiver passes on what the client said, out of base64, and says what the gate answers: it knows no mechanism. An
 * exchange begins with AUTH and ends with every answer but SASL_CHALLENGE, with a step that is cancelled, with its link,
 * or after BORDER_AUTH_NS without a step. The gate keeps no more than BORDER_EXCHANGES_MAX (then SASL_LATER).
 */
enum { BORDER_EXCHANGES_MAX = 10000, BORDER_BINDING_MAX = 64, BORDER_CERTIFICATE_NAME_MAX = 512 };
#define BORDER_AUTH_NS (2 * LIMIT_COMMAND_NS)

struct border_auth {
    uint64_t exchange;        /* chosen by the receiver; no two at once on one link */
    struct str mechanism;     /* as the client wrote it */
    struct str initial;       /* response; absent: none was given. "=" is one that is empty */
    struct address client;
    bool tls;
    struct str exporter;      /* RFC 9266 tls-exporter, 32 bytes; absent: not known (TLS 1.2 without it) */
    struct str end_point;     /* RFC 5929 tls-server-end-point: hash of our certificate; absent: not known */
    struct str certificate;   /* name in the client's certificate, which was verified; absent: none */
};
struct border_auth_step {
    uint64_t exchange;
    bool cancelled;           /* "*", or the session ended. Then there is no response */
    struct str response;
};
struct border_verdict {
    uint8_t status;           /* enum sasl_status */
    struct str bytes;         /* SASL_CHALLENGE; else absent */
    /* The rest with SASL_OK. */
    struct str user;          /* whom the client is; never empty */
    struct str *senders;      /* whom he may send as beside himself: sasl/sender.h */
    size_t sender_count;
};
enum { BORDER_AUTH_BYTES = LIMIT_AUTH_MESSAGE + 4 * BORDER_BINDING_MAX + BORDER_CERTIFICATE_NAME_MAX + 512 };
enum { BORDER_VERDICT_BYTES = LIMIT_AUTH_MESSAGE + LIMIT_USER_NAME + LIMIT_USER_SENDERS * (LIMIT_PATH + 4) + 64 };
void border_put_auth(struct put *, const struct border_auth *);
bool border_take_auth(struct take *, struct border_auth *out);           /* borrows */
void border_put_auth_step(struct put *, const struct border_auth_step *);
bool border_take_auth_step(struct take *, struct border_auth_step *out); /* borrows */
void border_put_verdict(struct put *, const struct border_verdict *);
bool border_take_verdict(struct take *, struct arena *, struct border_verdict *out);

/*
 * What a user sends is counted against what he may send within a day, which begins with the first message after the end
 * of the last one. All of it is counted, or, over a limit, nothing.
 */
enum border_spend_answer { SPEND_OK, SPEND_MESSAGES, SPEND_RECIPIENTS, SPEND_LAST = SPEND_RECIPIENTS };
struct border_spend {
    struct str user;
    uint32_t messages, recipients;
};
struct border_spent {
    uint8_t answer;           /* enum border_spend_answer: which limit is in the way */
    uint32_t limit;           /* that one; 0 with SPEND_OK */
    int64_t again_wall;       /* from then on there is room again */
};
void border_put_spend(struct put *, const struct border_spend *);
bool border_take_spend(struct take *, struct border_spend *out);         /* borrows */
void border_put_spent(struct put *, const struct border_spent *);
bool border_take_spent(struct take *, struct border_spent *out);

/* ---- store to sender or mailbox ---- */

enum delivery_kind { DELIVERY_SMTP, DELIVERY_LMTP, DELIVERY_MAILDIR };

/* One attempt: a message, up to LIMIT_RCPT_PER_JOB of its recipients, and where to. */
struct border_job {
    struct message_id id;
    uint8_t kind;             /* enum delivery_kind */
    bool alone;               /* a suspect: nothing else may share the process; it ends afterwards */
    uint16_t port;
    uint8_t families;         /* HOST_IPV4 | HOST_IPV6; 0: both */
    bool configured;          /* the configuration names the hosts: loopback and our own addresses are allowed */
    struct str domain;        /* where it goes, for logs */
    struct address source_ipv4, source_ipv6; /* to connect from; ADDRESS_NONE: any */
    struct str helo;
    int64_t connect_wait, reply_wait; /* as in struct route */
    uint32_t messages_per_connection;
    uint8_t tls;              /* enum route_tls */
    bool smtps;               /* TLS from the first byte */
    bool hosts_secure;        /* DNSSEC vouches for the hosts, or the configuration names them */
    struct str tls_ca;        /* as in struct route */
    struct str login_user, login_file; /* likewise: the secret itself is no matter of the store */
    bool login_token;
    struct prefix *allow_private;
    size_t allow_private_count;
    struct delivery_host *hosts;
    size_t host_count;
    struct envelope envelope; /* recipients: those of this job */
    uint32_t *indices;        /* of the recipients in the message */
    struct str *mailboxes;    /* DELIVERY_MAILDIR: path below the base, one for each recipient; else NULL */
    struct str base;          /* DELIVERY_MAILDIR: which base directory: user, space, path */
    uint64_t quota;           /* DELIVERY_MAILDIR: bytes, 0 none */
    struct str content;       /* all of the content if it is small, else absent: READ it */
};
size_t border_job_size(const struct border_job *);
void border_put_job(struct put *, const struct border_job *);
bool border_take_job(struct take *, struct arena *, struct border_job *out);

/* The answer: u8 count, figures of each attempt; then one outcome for each recipient of the job, in its order. Domains with
 * different MTA-STS policies take an attempt each. */
void border_put_figures(struct put *, const struct delivery_figures *);
void border_take_figures(struct take *, struct delivery_figures *out);
size_t border_outcomes_size(const struct outcome *, size_t count);
void border_put_outcomes(struct put *, const struct outcome *, size_t count);
bool border_take_outcomes(struct take *, struct arena *, struct outcome *out, size_t count);

/* ---- notices, store to sender ---- */

/*
 * COMPOSE: what a notice says, and where the original's content is READ. The answer is the whole content of the notice;
 * empty: the original could not be read.
 */
struct border_compose {
    struct dsn dsn;
    struct str trace;  /* of the original */
    bool bare;         /* without anything of the original's content: composing it has killed before */
};
size_t border_compose_size(const struct border_compose *);
void border_put_compose(struct put *, const struct border_compose *);
bool border_take_compose(struct take *, struct arena *, struct border_compose *out);

/* ---- sender and gate to fetch ---- */

/* POLICY  domain  ->  u8 known, then a struct sts_answer. answer NULL: not known now. */
enum { BORDER_POLICY_FIXED = 64 + STS_ID_MAX, BORDER_POLICY_MAX = BORDER_POLICY_FIXED + 2 * STS_BODY_MAX + HTTPS_WHY_MAX };
size_t border_policy_size(const struct sts_answer *); /* beyond BORDER_POLICY_FIXED */
void border_put_policy(struct put *, const struct sts_answer *);
/* *out_known false: the rest says nothing. */
bool border_take_policy(struct take *, struct arena *, bool *out_known, struct sts_answer *out);

/* ---- operators: command line to console, console to store ---- */

/*
 * COUNTERS  ->  count, (name, u64)*
 * LIST      u64 after which order, u32 how many  ->  u64 total, u64 after which order to go on (0: that is all), count, listed*;
 *           what cannot be read is looked at and not listed, so that a page may be empty and not the last
 * SHOW      id  ->  u8 found, then struct border_shown
 * ACT       u8 enum border_act, id  ->  u8 done, text
 * BANS      ->  (of the gate) count, (account, network, i64 until)*; one of both may be empty: it is for all
 * STATUS    ->  roles as JSON, then COUNTERS' answer, then BANS' answer
 * RELOAD    ->  u8 enum reload_answer, text (warnings, or why)
 * STOP      ->  u8 RELOAD_DONE
 */
enum reload_answer {
    RELOAD_REFUSED,    /* nothing has changed */
    RELOAD_DONE,
    RELOAD_INCOMPLETE, /* not all of its roles have started: those of before stay */
    RELOAD_LATER,      /* not now */
    RELOAD_ANSWERS
};
enum border_act { ACT_RETRY, ACT_HOLD, ACT_RELEASE, ACT_BOUNCE, ACT_REMOVE, ACT_RETRY_ALL, ACT_LAST = ACT_RETRY_ALL };
enum { BORDER_BANS_MAX = 200, BORDER_LIST_MAX = 200, BORDER_SHOW_RECIPIENTS = 500 };

struct border_listed { /* a message in a listing */
    struct message_id id;
    uint64_t size;
    int64_t accepted_wall;
    bool held;
    uint8_t deaths;
    uint32_t pending;          /* recipients */
    struct str reverse_path;
    struct str recipient;      /* the first that is pending */
    struct str place, reason;  /* of that one */
    int64_t next_wall;
    uint16_t attempts;
};
void border_put_listed(struct put *, const struct border_listed *);
void border_take_listed(struct take *, struct border_listed *out); /* borrows */
enum { BORDER_LISTED_BYTES = 128 + 2 * LIMIT_PATH + 64 + LIMIT_REPLY_TEXT };

struct border_shown_recipient {
    struct str address, given, place, reason, last_reply, last_remote;
    uint8_t state;
    uint16_t attempts;
    int64_t next_wall;
};
struct border_shown { /* one message, whole but for its content */
    struct message_id id;
    uint64_t size;
    int64_t accepted_wall, expires_wall;
    bool held;
    uint8_t deaths;
    struct str held_why, reverse_path, client, helo, session, envid;
    uint32_t recipient_count;  /* all */
    struct border_shown_recipient *recipients;
    size_t shown;              /* of them, at most BORDER_SHOW_RECIPIENTS */
};
size_t border_shown_size(const struct border_shown *);
void border_put_shown(struct put *, const struct border_shown *);
bool border_take_shown(struct take *, struct arena *, struct border_shown *out); /* borrows */

#endif
