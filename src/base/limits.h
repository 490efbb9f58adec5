/*
 * limits - every limit has a name, here, and they prove each other. Those that an operator may set are the *defaults*
 * or the *maximum* of a setting; the setting's table says which.
 */
#ifndef BASE_LIMITS_H
#define BASE_LIMITS_H

#include <assert.h>
#include <stdint.h>

#define SECOND INT64_C(1000000000) /* times are int64_t nanoseconds */
#define MINUTE (60 * SECOND)
#define HOUR   (60 * MINUTE)
#define DAY    (24 * HOUR)
#define MILLISECOND INT64_C(1000000)

enum {
    LIMIT_MAILBOX_NAME         = 64,    /* our own mailboxes only: RFC 5321 section 4.5.3.1.1 */
    LIMIT_DOMAIN               = 255,   /* 4.5.3.1.2 */
    LIMIT_PATH                 = 1024,  /* 4.5.3.1.3 asks for 256; VERP and SRS need more */
    LIMIT_COMMAND_LINE         = 2048,  /* 4.5.3.1.4 asks for 512; extensions add to it */
    LIMIT_AUTH_LINE            = 12288, /* RFC 4954 section 4: of AUTH, and of each response */
    LIMIT_AUTH_MESSAGE         = 9216,  /* what fits there in base64 */
    LIMIT_AUTHORS              = 100,   /* of a user's message: From, Sender and their like, together */
    LIMIT_USER_NAME            = 255,
    LIMIT_USER_SENDERS         = 48,    /* granted to one user */
    LIMIT_REPLY_LINE           = 512,   /* 4.5.3.1.5: what we send */
    LIMIT_REPLY_LINE_READ      = 4096,  /* what we take */
    LIMIT_REPLY_LINES          = 100,   /* in one reply that we take */
    LIMIT_REPLY_TEXT           = 1024,  /* of a remote's reply that we keep, for logs and notices */
    LIMIT_TEXT_LINE            = 1 << 20, /* content lines are passed unchanged up to this */
    LIMIT_RCPT_PER_TRANSACTION = 1000,  /* 4.5.3.1.8 asks for 100 or more; then 452 4.5.3 each */
    LIMIT_RCPT_COMMANDS        = 10000, /* in one transaction; then 421 */
    LIMIT_RCPT_EXPANDED        = 10000, /* final recipients of one message after aliases and lists */
    LIMIT_RCPT_PER_JOB         = 100,
    LIMIT_ENVID                = 100,   /* RFC 3461 section 4.4, decoded */
    LIMIT_ORCPT                = 500,   /* RFC 3461 section 4.2 */
    LIMIT_HELO                 = 255,
    LIMIT_RECEIVED_HOPS        = 100,   /* RFC 5321 section 6.3 */
    LIMIT_WRONG_COMMANDS       = 20,    /* then 421 */
    LIMIT_IDLE_COMMANDS        = 100,   /* commands without mail; then 421 */
    LIMIT_AUTH_FAILURES        = 5,     /* in a session; then 421 */
    LIMIT_RCPT_REFUSED         = 20,    /* with none accepted; then 421 */
    LIMIT_SESSIONS             = 10000, /* of a receiver */
    LIMIT_SESSIONS_LOCAL       = 1000,  /* of these, by programs of this machine */
    LIMIT_SESSIONS_PER_CLIENT  = 50,    /* IPv4 address or IPv6 /64; then 421 4.7.0 */
    LIMIT_LISTEN_ADDRESSES     = 64,    /* of all listeners together */
    LIMIT_LISTENER_NAME        = 63,
    LIMIT_ALIAS_DEPTH          = 20,    /* an alias that leads to an alias that leads to ... */
    LIMIT_HEADER_BYTES         = 1 << 20,
    LIMIT_MIME_DEPTH           = 100,
    LIMIT_MX_HOSTS             = 10,    /* tried for one attempt */
    LIMIT_MX_ADDRESSES         = 5,     /* of each */
    LIMIT_FRAME_BODY           = 64 << 10, /* of a link frame */
    LIMIT_CONTENT_INLINE       = 64 << 10, /* in an ACCEPT record */
    LIMIT_DELIVERIES           = 128,   /* into Maildirs at a time, as one user and into one domain */
    LIMIT_BDAT_CHUNKS          = 20000,
    LIMIT_CONFIG_BYTES         = 64 << 20, /* all configuration files together */
};
#define LIMIT_MESSAGE_SIZE (INT64_C(50) << 20) /* the default */

static_assert(LIMIT_COMMAND_LINE > LIMIT_PATH + sizeof "RCPT TO:\r\n", "the longest path must fit");
static_assert(LIMIT_COMMAND_LINE > LIMIT_PATH + LIMIT_ORCPT + 100, "and its ORCPT");
static_assert(LIMIT_AUTH_MESSAGE >= LIMIT_AUTH_LINE / 4 * 3, "base64 takes four for three");
static_assert(LIMIT_FRAME_BODY > LIMIT_AUTH_MESSAGE + LIMIT_USER_SENDERS * (LIMIT_PATH + 4) + 1024,
              "what the gate says of a user fits one frame");
static_assert(LIMIT_FRAME_BODY > 8 * LIMIT_COMMAND_LINE, "what one command says fits one frame");

/* RFC 5321 section 4.5.3.2; the client's are minimums, the server's 5 minutes too. */
#define LIMIT_GREETING_NS (5 * MINUTE)
#define LIMIT_MAIL_NS     (5 * MINUTE)
#define LIMIT_RCPT_NS     (5 * MINUTE)
#define LIMIT_DATA_NS     (2 * MINUTE)
#define LIMIT_BLOCK_NS    (3 * MINUTE)
#define LIMIT_FINAL_NS    (10 * MINUTE)
#define LIMIT_QUIT_NS     (10 * SECOND)
#define LIMIT_CONNECT_NS  (60 * SECOND)
#define LIMIT_COMMAND_NS  (5 * MINUTE) /* the server's wait for a command */
#define LIMIT_TLS_NS     (1 * MINUTE) /* for a handshake */
#define LIMIT_PROXY_NS    (10 * SECOND) /* for a proxy's header, which it sends at once */
#define LIMIT_ANSWER_NS   (2 * MINUTE) /* the server's own work for a reply: clients wait 5 minutes and more */
#define LIMIT_COMMIT_NS   (5 * MINUTE) /* and for the one to the end of data, where they wait 10 */
#define LIMIT_REVERSE_NS  (5 * SECOND) /* for a client's reverse name */
#define LIMIT_RATE_NS     (5 * MINUTE) /* over each such time of content ... */
enum { LIMIT_RATE_BYTES = 100 };       /* ... this much a second at least */

#endif
