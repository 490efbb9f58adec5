/*
 * attempt - what the files behind deliver/smtp.h share: the state of one delivery attempt, and its outcomes. Nobody
 * else includes this.
 *
 *     smtp.c         smtp_deliver()               prepares the recipients, walks the preferences, defers who is left
 *                      try_preference()           resolves all hosts of one preference, then tries their addresses
 *                        try_target()             one address: as many connections as make progress
 *     transaction.c        attempt_use_connection()  transactions, until nobody is pending or the connection is done
 *                            settle()             the reply table of standards 5.2
 *     attempt.c      attempt_*()                  outcomes and troubles
 *
 * A recipient is pending until it has its outcome. `trouble` is what we will say of those that are still pending at the
 * end: the last thing that went wrong, but a server's words are not replaced by our own.
 *
 * Memory: outcomes go to the caller's arena, once for each recipient at most (and once for a reply that is for many).
 * All else lives in two arenas of our own: own_job for the whole attempt, own_scratch for what one transaction or
 * lookup needs.
 */
#ifndef DELIVER_ATTEMPT_H
#define DELIVER_ATTEMPT_H

#include "deliver/smtp.h"
#include "message/mime.h"

enum {
    REASON_BYTES = LIMIT_REPLY_TEXT,
    REMOTE_BYTES = 2 * LIMIT_DOMAIN,
};

struct addressee { /* a recipient, prepared for the wire */
    struct recipient recipient;    /* address: with A-labels where that makes it ASCII */
    struct str reverse_path;       /* the same for the sender */
    bool needs_utf8;               /* no way to say it in ASCII */
    bool pending;
    bool waits;                    /* for another connection than the one at hand, whose server was not asked what it takes */
};

struct target {
    const struct delivery_host *host;
    struct address to;
    struct str text;               /* "mx.example.org [192.0.2.1]:25" */
    const struct tls_policy *policy;
};

struct trouble {
    struct outcome outcome;        /* strings point into the memory below */
    bool set;
    char reply[REASON_BYTES], remote[REMOTE_BYTES], enhanced[16];
};

struct attempt {
    struct rt *rt;
    const struct delivery_job *job;
    const struct delivery_settings *settings;
    const struct delivery_hooks *hooks;
    struct connections *connections;
    struct arena *arena;           /* the caller's */
    struct outcome *outcomes;
    struct delivery_figures *figures;
    struct arena own_job, own_scratch;
    const struct mime_needs *needs; /* NULL: the content was not looked at; in own_job */
    struct addressee *addressees;
    size_t pending;
    bool stop;                     /* no other host, whoever is pending */
    uint8_t tls_result;            /* enum tls_result of the connection at hand, or of TLS that was not to be had before it */
    bool only_521;                 /* every host so far said that it takes no mail: RFC 7504 */
    bool only_unfit;               /* no host so far, and none ever, has what the message needs: REQUIRETLS, RFC 8689 */
    bool only_absent;              /* every host so far authoritatively has no address */
    uint32_t own_preference;       /* our best in the MX list, NOBODY: we are not in it. Only better ones are tried */
    bool met_ourselves;            /* one that was tried calls itself as we do */
    struct trouble trouble;
};

/* A pending recipient gets its outcome. */
void attempt_settle(struct attempt *, size_t index, struct outcome);

/* Outcomes that live in the caller's arena: from a server's reply, or for a reason of ours (which never begins with a
 * digit). to: NULL where no host was tried. */
struct outcome attempt_outcome_of_reply(struct attempt *, const struct target *to, const struct remote_reply *,
                                        enum outcome_kind, enum outcome_about);
struct outcome attempt_outcome(struct attempt *, const struct target *to, enum outcome_kind, enum outcome_about,
                               struct str enhanced, struct str reason);

/* Something went wrong, and the next host may do better; if none does, this is what we say. */
void attempt_trouble_reply(struct attempt *, const struct target *to, const struct remote_reply *, enum outcome_about);
void attempt_trouble(struct attempt *, const struct target *to, enum outcome_about, struct str enhanced,
                     struct str reason);
/* The message says REQUIRETLS: this host has not what that takes, and never will. A bounce is rather sent without. */
bool attempt_requires_tls(const struct attempt *);
void attempt_unfit(struct attempt *, const struct target *to, struct str enhanced, struct str reason);
/* The same, without a word on what kind of hosts these are: only_521, only_absent stay. */
void attempt_remember(struct attempt *, struct outcome);

/* What the figures say of TLS. client NULL: there is no connection, for this reason. */
void attempt_note_tls(struct attempt *, const struct target *to, const struct client *, enum tls_result);

/* "cannot connect: connection refused", in own_scratch. */
struct str attempt_reason(struct attempt *, const char *doing, struct err);
/* A fiber that is asked to end starts nothing new: true, and a->stop is set. */
bool attempt_is_cancelled(struct attempt *, struct err);

enum next {
    NEXT_HOST,            /* nothing more here */
    NEXT_CONNECTION,      /* this one is spent, a new one to the same address may do */
    NEXT_CONNECTION_HELO, /* the same, without EHLO */
    NEXT_CONNECTION_CLEAR, /* the same, without TLS */
};
/* Transactions on one connection, while there is somebody to send to and it lasts. */
enum next attempt_use_connection(struct attempt *, const struct target *to, struct client *);

#endif
