/*
 * model - what a receiver may answer to any sequence of commands: RFC 5321 with PIPELINING (2920), SIZE (1870), CHUNKING
 * (3030), ETRN (1985), STARTTLS (3207), AUTH (4954, 6409), Postfix's XCLIENT_README and HAProxy's proxy-protocol.txt (as
 * standards 1.2 and 1.6 tell them), and what standards 4.1 and 4.3 decide where those leave a choice. Written from these texts
 * alone: it includes nothing of the server's, and shares no line with it.
 *
 * The RFCs leave some states open ("the state resulting from this error is indeterminate"), so the model is a belief:
 * the situations that the server may be in. Each reply that is seen drops those it does not fit; when none is left, the
 * server has done what no reading of the RFCs lets it do.
 *
 * Commands are numbered by their place in the session. What a transaction consists of is told by these numbers: each
 * MAIL, RCPT and piece of content at another place has words of its own, so a recipient that is kept where it should
 * have been forgotten shows.
 */
#ifndef WALK_MODEL_H
#define WALK_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum verb {
    EHLO,
    HELO,
    MAIL,
    MAIL_BAD,           /* without the closing bracket */
    RCPT,
    RCPT_UNKNOWN,       /* nobody's address, in a domain of the server's */
    DATA,               /* and where 354 is the answer, a message */
    BDAT,               /* a chunk */
    BDAT_LAST,
    RSET,
    NOOP,
    VRFY,
    EXPN,
    HELP,
    QUIT,
    ETRN,               /* for a domain that the server lets ask */
    TURN,
    UNKNOWN,
    VERBS_CORE,

    EHLO_NAMELESS = VERBS_CORE,
    MAIL_EXTENDED,      /* with parameters that EHLO lists */
    MAIL_HUGE,          /* SIZE= beyond the limit */
    MAIL_PARAMETER,     /* one that nobody knows */
    RCPT_SECOND_DOMAIN, /* a domain that is not the server's: relaying */
    RCPT_BAD,
    RCPT_BUSY,          /* 450 */
    DATA_BARE_LF,       /* a message with a line that LF ends */
    DATA_CUT,           /* a message that never ends, because the connection does */
    DATA_ARGUMENT,
    BDAT_BARE_LF,
    BDAT_NONE,          /* of no byte, and LAST */
    BDAT_CUT,
    BDAT_SIZELESS,
    STARTTLS,
    AUTH,               /* with a wrong password */
    AUTH_RIGHT,
    XCLIENT,            /* for a client with another address, told by the place */
    XCLIENT_LOGIN,      /* for a user */
    XCLIENT_BAD,
    PROXY_LINE,         /* what comes before a greeting, or never */
    EMPTY,
    VERBS_ALL,
};

enum { PLACES = 12 }; /* commands in a session */

/* A transaction that was completed: what must now be in the queue. */
struct commit {
    uint8_t sender;          /* the place of its MAIL */
    uint16_t recipients;     /* the places of its RCPTs, a bit each */
    uint8_t pieces[PLACES];  /* the places that its content came from */
    uint8_t piece_count;
    bool extended;           /* under EHLO: "with ESMTP" */
    bool encrypted;          /* and behind STARTTLS: "with ESMTPS" */
    bool authenticated;      /* and behind AUTH: "with ESMTPSA"; by XCLIENT perhaps without TLS: "with ESMTPA" */
    uint8_t client;          /* enum client, or the place of the XCLIENT that told its address */
};
enum client { CLIENT_CONNECTED = PLACES, CLIENT_PROXIED }; /* who connected; who did at the proxy */

enum hello { HELLO_NONE, HELLO_HELO, HELLO_EHLO };
enum step { IDLE, SENDER, RECIPIENTS, CHUNKS, UNSURE, CLOSED };
struct situation {
    uint8_t hello, step;
    bool submission;         /* a port of users: RFC 6409 */
    bool xclient;            /* who connected may speak for others */
    bool encrypted, authenticated;
    uint8_t client;          /* as in struct commit */
    struct commit open;      /* the transaction at hand, if there is one */
    uint8_t committed;       /* transactions so far */
};

struct belief {
    struct situation situations[16];
    size_t count;
};
/* Behind the greeting. client: whom the proxy told of, if there is one. */
void belief_begin(struct belief *, bool submission, bool xclient, enum client client);

/* What was seen of one command. */
struct seen {
    enum verb verb;
    uint8_t place;
    bool talked_ahead; /* more bytes were there already when the server read this command */
    uint16_t code;     /* 0: none came */
    uint16_t final;    /* behind 354: the reply to the end of data; 0: none came */
    const struct commit *commits; /* that the session has made, this command's among them */
    size_t commit_count;
};
/* False: no situation explains it. The belief is then empty. */
bool belief_learn(struct belief *, const struct seen *);
/* All commands that were sent are answered, so many transactions committed, and the server has closed or not: what does
 * not fit is not believed any more. False: nothing fits. */
bool belief_settle(struct belief *, size_t committed, bool closed);
/* The outcomes that it allows, in words, for who has to understand a difference. */
void belief_explain(const struct belief *, const struct seen *, char *out, size_t cap);

/* What is wrong with the form of a reply, its lines with their CRLF: RFC 5321 section 4.2, RFC 2034 section 4, and for
 * EHLO and HELO 4.1.1.1. NULL: nothing. */
const char *reply_fault(enum verb, const char *text, size_t len);

/* Whether a client may send more behind it without waiting for the reply: RFC 2920 section 3.1, RFC 3030 section 4.2. */
bool verb_may_be_followed(enum verb);

#endif
