/*
 * server - the receiver's side of one SMTP session: RFC 5321, with PIPELINING (2920), SIZE (1870), 8BITMIME (6152),
 * ENHANCEDSTATUSCODES (2034), STARTTLS (3207), AUTH (4954), CHUNKING (3030), SMTPUTF8 (6531), DSN (3461), REQUIRETLS
 * (8689), LIMITS (9422), FUTURERELEASE (4865), DELIVERBY (2852) and ETRN (1985); and, for proxies, XCLIENT.
 *
 * server_run() holds the whole dialog on one wire, from the greeting to the last reply, in the fiber that calls it.
 * What it cannot know (who may enter, which recipients exist, where content goes) it asks by hooks. So it runs in
 * tests alone, and knows of no links, queues or files.
 *
 * What it promises, whatever a client sends: no recipient is committed whose verdict was not an acceptance; no 250 to
 * the end of data before draft_commit() returned OK; each draft that was begun is committed or aborted exactly once;
 * one reply to each command, in order; memory bounded by the limits below; nothing that was said in clear counts once TLS
 * is on; where logins are wanted, no mail without one, and none is taken in clear.
 *
 * Times are nanoseconds, sizes bytes. Strings in settings and in struct server_client belong to the caller and must
 * outlive the session; what a hook makes in the arena it is given lives until the command has been answered.
 */
#ifndef SMTP_SERVER_H
#define SMTP_SERVER_H

#include "message/envelope.h"
#include "net/wire.h"
#include "runtime/rt.h"
#include "sasl/mechanism.h"
#include "smtp/params.h"

/* ---- settings ---------------------------------------------------------------------------------------------------- */

enum line_ends {
    LINE_ENDS_REFUSE, /* a bare CR or LF in content: 550 5.6.0 when the message has been read to its end */
    LINE_ENDS_REPAIR, /* becomes CRLF: what printers, scripts and our own users send */
};
enum offer { OFFER_OFF, OFFER_LOCAL, OFFER_ON }; /* LOCAL: to loopback and to trusted clients only */

struct listener_settings {
    struct str hostname;         /* ours: greeting, EHLO, Received */
    uint64_t size_max;           /* of a message; 0: no limit of ours */
    uint8_t line_ends;           /* enum line_ends */
    uint8_t vrfy, expn;          /* enum offer */
    bool trusted;                /* this client may relay; its mail may get delay notices unasked */
    bool tls_at_once;            /* before the greeting: RFC 8314 */
    bool login;                  /* submission, RFC 6409: AUTH, under TLS, comes before MAIL */
    int64_t hold_max;            /* FUTURERELEASE (RFC 4865), for who has logged in; 0: none */
    bool hide_client;            /* Received does not say where our users are */
    bool xclient;                /* this client may say for whom it speaks */
    bool complete;               /* headers and addresses that lack something get it: RFC 6409 section 8 */
    bool refuse_early_talk;      /* 554 to bytes before the greeting: plain mx, never TLS, PROXY or `relay from` */
    uint32_t rcpt_max;           /* recipients accepted in a transaction, then 452 (and RCPTMAX) */
    uint32_t wrong_commands_max; /* then 421 */
    uint32_t idle_commands_max;  /* commands between messages, then 421 */
    uint32_t auth_failures_max;  /* then 421 */
    uint32_t rcpt_refused_max;   /* 5xx with none accepted, then 421; with one: each further 5xx comes slower */
    int64_t greeting_delay;
    int64_t command_wait;        /* for a whole command line */
    int64_t tls_wait;            /* for the handshake */
    int64_t block_wait;          /* for the next block of content */
    int64_t rate_window;         /* over each such time of waiting for content ... */
    uint64_t rate_bytes;         /* ... at least this much must have come, per second */
    int64_t answer_wait;         /* what a hook may take */
    int64_t commit_wait;         /* what draft_commit may take: the client waits 10 minutes at least */
    int64_t reverse_wait;        /* for the reverse name */
    int64_t slow_down;           /* before each refusal past rcpt_refused_max */
};
/* The defaults of base/limits.h, for a plain mx listener. */
struct listener_settings listener_settings_default(struct str hostname);

/* ---- who is there ------------------------------------------------------------------------------------------------ */

/* What a TLS handshake came to. */
struct server_tls {
    struct str protocol;         /* "TLSv1.3"; absent: the connection is in clear */
    struct str cipher;
    struct str server_name;      /* that the client asked for; absent: none */
    bool resumed;
    struct str client_name;      /* of the client's certificate, which was verified; absent: none. SASL EXTERNAL goes by it */
};

/* One session, as hooks and logs see it. The caller fills the first part; the session fills the second. */
struct server_client {
    struct address address, local; /* the two ends */
    struct str name;               /* "192.0.2.1", "local:1000": for turns between submitters, and for logs */

    struct str session;            /* id */
    struct str helo;               /* last given; absent: none yet */
    bool extended;                 /* it was EHLO */
    struct str reverse_name;       /* absent: not known (yet); empty: there is none */
    struct server_tls tls;
    struct str user;               /* who has logged in; absent: nobody */
    bool busy;                     /* a transaction is open: a role that drains lets it finish */
};

/* ---- hooks ------------------------------------------------------------------------------------------------------- */

/*
 * Accepted: reply is NULL (250 2.1.5) or positive (251), and there is at least one recipient. Of each the hook sets
 * address, origin, and reverse_path for members of a list; the session sets the rest by RFC 3461 section 5.2.7.
 * Refused: reply is negative.
 */
struct rcpt_verdict {
    const struct reply *reply;
    const struct recipient *recipients;
    size_t count;
};

/* What AUTH comes to (RFC 4954), step by step. */
struct auth_answer {
    uint8_t status;         /* enum sasl_status */
    struct str bytes, user; /* of SASL_CHALLENGE, of SASL_OK; they live until the next step */
};

/* Of a message that was accepted. */
struct server_message {
    struct message_id id;
    const struct envelope *envelope;
    uint64_t repaired;       /* line ends */
    int64_t took;            /* from MAIL to the end of data's reply */
};
/* Of a session that ended. */
struct server_report {
    uint64_t bytes_in;
    uint32_t commands, wrong, messages, recipients, refused; /* refused: recipients */
    int64_t took;
    struct str ended;        /* "quit", "closed by the client", "timeout", ... */
    struct str last_refusal; /* the last negative reply, one line; absent: none */
    struct str last_refused; /* the command it answered, shortened */
    struct str tls_failure;  /* why the handshake failed; absent: it did not */
};

/*
 * What the session asks of its surroundings. A hook that returns a reply may return 421: the session ends with it.
 * Those that may be NULL say so: the session then does without.
 */
struct server_hooks {
    void *ctx;

    /* At connect. NULL: welcome. 421: it is said and the connection closed; 554 or 521: RFC 5321 section 3.1, 7504.
     * May be NULL. leave is called once at the end for every client that admit let in. */
    const struct reply *(*admit)(void *ctx, struct server_client *, struct arena *, int64_t until);
    void (*leave)(void *ctx, struct server_client *);
    /* XCLIENT has put another client in the place of the one that is connected (known: its address is not said to be
     * unavailable, now or by an XCLIENT before), who is to be admitted next. The hook may change the settings that
     * server_run() was given. NULL: no XCLIENT here. */
    void (*told)(void *ctx, struct server_client *, bool known);
    /* OK and an empty name: there is none. Runs beside the dialog, in a fiber of its own. May be NULL. */
    struct err (*reverse_name)(void *ctx, const struct address *, struct arena *, int64_t until, struct str *out_name);

    /* Whether STARTTLS can be offered; waits while that may change soon. May be NULL: then there is no TLS here. */
    bool (*tls_ready)(void *ctx, int64_t until);
    /* The handshake, after which the wire is encrypted; what is in *out lives as long as the wire. `reason`: why not. */
    struct err (*start_tls)(void *ctx, struct wire *, int64_t until, struct server_tls *out, struct text *reason);

    /*
     * AUTH, asked where the settings say login and only under TLS. mechanisms: the words for EHLO; empty: none at the
     * moment. initial: the client's first word, decoded; absent: it sent none. An exchange that began with a challenge
     * goes on by auth_step until another answer comes; response absent: the client gave up, or is gone, and there is no
     * answer. All three, or none: then there are no users here.
     */
    struct str (*mechanisms)(void *ctx, const struct server_client *, struct arena *);
    void (*auth_start)(void *ctx, const struct server_client *, struct str mechanism, struct str initial, struct arena *,
                       int64_t until, struct auth_answer *out);
    void (*auth_step)(void *ctx, const struct server_client *, struct str response, struct arena *, int64_t until,
                      struct auth_answer *out);

    /* NULL: go on. May be NULL. */
    const struct reply *(*mail)(void *ctx, const struct server_client *, const struct mail_request *, struct arena *,
                                int64_t until);
    /* An author, or with several the sender, whom the header of a user's message names. NULL: it may say so. May be NULL. */
    const struct reply *(*author)(void *ctx, const struct server_client *, struct path, struct arena *, int64_t until);
    void (*rcpt)(void *ctx, const struct server_client *, const struct rcpt_request *, struct arena *, int64_t until,
                 struct rcpt_verdict *out);
    /* What follows the verb, trimmed. Asked only where settings offer them. May be NULL, and are then not offered. */
    const struct reply *(*vrfy)(void *ctx, const struct server_client *, struct str what, struct arena *,
                                int64_t until);
    const struct reply *(*expn)(void *ctx, const struct server_client *, struct str what, struct arena *,
                                int64_t until);
    const struct reply *(*etrn)(void *ctx, const struct server_client *, struct str node, struct arena *,
                                int64_t until);

    /* expected_size: as the client declared, or 0. ERR_NO_SPACE becomes 452, everything else 451. */
    struct err (*draft_begin)(void *ctx, struct message_id, uint64_t expected_size, int64_t until, void **out_draft);
    struct err (*draft_put)(void *ctx, void *draft, const struct str *parts, size_t count, int64_t until);
    /* OK: it is on disk. In any case the draft is no more. ERR_LIMIT: it could never be kept with such recipients (552). */
    struct err (*draft_commit)(void *ctx, void *draft, const struct envelope *, int64_t until);
    void (*draft_abort)(void *ctx, void *draft);

    bool (*over_budget)(void *ctx); /* memory: MAIL, RCPT, DATA, BDAT and long headers get 452 4.3.1. May be NULL */
    bool (*draining)(void *ctx);    /* 421 instead of the next command outside a transaction. May be NULL */

    void (*log_message)(void *ctx, const struct server_client *, const struct server_message *); /* may be NULL */
    /* What somebody will ask about: MAIL, a recipient or a message that was refused, with the command that asked for
     * it, shortened. The reverse-path is absent if it was MAIL. May be NULL. */
    void (*log_refusal)(void *ctx, const struct server_client *, struct str reverse_path, struct str command,
                        const struct reply *);
    void (*log_session)(void *ctx, const struct server_client *, const struct server_report *);  /* may be NULL */
};

/*
 * The dialog. Returns when it is over; the wire stays the caller's to close. To end it from outside, cancel the
 * fiber: a 421 is said, a message that was not committed is dropped.
 */
void server_run(struct wire *, const struct listener_settings *, const struct server_hooks *, struct server_client *);

#endif
