/*
 * reply - every sentence that the server can say, in one place; and how a reply is written down.
 *
 * A reply is a code, an enhanced status code (RFC 3463; empty in greetings, answers to HELO and EHLO, and 3xx: RFC
 * 2034 section 4) and a text that tells the person at the other end what was wrong and what to do. '\n' in the text
 * begins a new line of a multi-line reply; lines that would exceed LIMIT_REPLY_LINE are broken at a space.
 *
 * Fixed replies are constants, compared by address (`reply == &reply_start_content`). Those with words of the moment
 * in them are made in an arena and live as long as it does. Reading the replies of others is the client's business
 * (client.h).
 */
#ifndef SMTP_REPLY_H
#define SMTP_REPLY_H

#include "base/arena.h"

struct reply {
    unsigned code;       /* 200 .. 599 */
    struct str enhanced; /* "2.1.5", or empty */
    struct str text;
};

static inline bool
reply_is_positive(const struct reply *r)
{
    return r->code < 400;
}

/* format may take "%.*s" of anything: what is not printable ASCII becomes '?' when it is written (UTF-8 would need to
 * know that the client asked for it: RFC 6531 section 3.7.4.1). enhanced: a literal. */
const struct reply *reply_make(struct arena *, unsigned code, const char *enhanced, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* The same of two texts, for what each message or session is told: formatting costs more than all else about a reply. */
const struct reply *reply_join(struct arena *, unsigned code, const char *enhanced, struct str, struct str);

/* All its lines, with CRLF. */
void reply_put(struct text *, const struct reply *);
/* Most bytes that reply_put() can need. */
size_t reply_size(const struct reply *);

/* ---- session ---------------------------------------------------------------------------------------------------- */
extern const struct reply reply_closing;            /* 221 to QUIT */
extern const struct reply reply_ok;                 /* 250 to RSET, NOOP */
extern const struct reply reply_shutting_down;      /* 421 */
extern const struct reply reply_timeout;            /* 421: no command came */
extern const struct reply reply_content_timeout;    /* 421 */
extern const struct reply reply_content_too_slow;   /* 421 */
extern const struct reply reply_too_many_wrong;     /* 421 */
extern const struct reply reply_too_many_idle;      /* 421 */
extern const struct reply reply_talked_early;       /* 554: bytes before the greeting */
extern const struct reply reply_talked_ahead;       /* 554: bytes behind a command that ends a pipelined group */
extern const struct reply reply_start_tls;          /* 220: the handshake comes next */
extern const struct reply reply_tls_already;        /* 503 */
extern const struct reply reply_tls_not_now;        /* 454 */

extern const struct reply reply_xclient_denied;     /* 550 */
extern const struct reply reply_xclient_syntax;     /* 501 */
extern const struct reply reply_xclient_login;      /* 550: logins are for submission */

/* ---- AUTH ------------------------------------------------------------------------------------------------------- */
extern const struct reply reply_auth_done;          /* 235 */
extern const struct reply reply_auth_needed;        /* 530 to MAIL and its like */
extern const struct reply reply_tls_needed;         /* 530 likewise, in clear */
extern const struct reply reply_auth_refused;       /* 535: who or why is not said */
extern const struct reply reply_auth_mechanism;     /* 504 */
extern const struct reply reply_auth_weak;          /* 534 */
extern const struct reply reply_auth_in_clear;      /* 538 */
extern const struct reply reply_auth_malformed;     /* 501: against the mechanism's rules */
extern const struct reply reply_auth_later;         /* 454 */
extern const struct reply reply_auth_throttled;     /* 454: too many failures of late */
extern const struct reply reply_auth_cancelled;     /* 501 to "*" */
extern const struct reply reply_auth_syntax;        /* 501 */
extern const struct reply reply_auth_base64;        /* 501 */
extern const struct reply reply_auth_line_too_long; /* 500 */
extern const struct reply reply_auth_already;       /* 503 */
extern const struct reply reply_auth_needs_ehlo;    /* 503 */
extern const struct reply reply_auth_failures;      /* 421 */

/* ---- commands --------------------------------------------------------------------------------------------------- */
extern const struct reply reply_line_too_long;
extern const struct reply reply_bare_lf;            /* the session ends with it */
extern const struct reply reply_control_character;
extern const struct reply reply_nul;
extern const struct reply reply_empty_command;
extern const struct reply reply_unknown_command;
extern const struct reply reply_known_but_off;      /* TURN, SEND, SOML, SAML and what this listener does not offer */
extern const struct reply reply_no_argument_wanted; /* DATA now */
extern const struct reply reply_helo_needs_name;
extern const struct reply reply_helo_name_too_long;
extern const struct reply reply_not_a_mail_host;    /* 503 after a 554 greeting: only QUIT is taken */

/* 503: which command is expected next */
extern const struct reply reply_hello_first;
extern const struct reply reply_mail_first;
extern const struct reply reply_rcpt_first;
extern const struct reply reply_mail_again;
extern const struct reply reply_chunks_begun;       /* only BDAT or RSET now: RFC 3030 section 2 */
extern const struct reply reply_chunk_refused_before;
extern const struct reply reply_in_transaction;     /* ETRN and the like */

/* ---- MAIL and RCPT ---------------------------------------------------------------------------------------------- */
extern const struct reply reply_sender_ok;
extern const struct reply reply_mail_syntax;
extern const struct reply reply_bad_sender;
extern const struct reply reply_sender_needs_smtputf8;
extern const struct reply reply_no_memory_now;      /* 452 */
extern const struct reply reply_size_syntax;
extern const struct reply reply_body_syntax;
extern const struct reply reply_body_binary;
extern const struct reply reply_smtputf8_value;
extern const struct reply reply_require_tls_value;
extern const struct reply reply_ret_syntax;
extern const struct reply reply_envid_syntax;
extern const struct reply reply_auth_param_syntax;
extern const struct reply reply_by_syntax;
extern const struct reply reply_holdfor_syntax, reply_holduntil_syntax, reply_hold_twice, reply_hold_too_long;
extern const struct reply reply_parameter_twice;
extern const struct reply reply_parameter_after_helo;

extern const struct reply reply_recipient_ok;
extern const struct reply reply_rcpt_syntax;
extern const struct reply reply_bad_recipient, reply_sender_too_long, reply_recipient_too_long;
extern const struct reply reply_null_recipient;
extern const struct reply reply_recipient_needs_smtputf8;
extern const struct reply reply_notify_syntax;
extern const struct reply reply_orcpt_syntax;
extern const struct reply reply_cannot_verify;       /* 451 */
extern const struct reply reply_too_many_recipients; /* 452: the others in another transaction */
extern const struct reply reply_list_too_large;
extern const struct reply reply_too_many_rcpt;       /* 421 */
extern const struct reply reply_too_many_refused;    /* 421 */

/* ---- content ---------------------------------------------------------------------------------------------------- */
extern const struct reply reply_start_content;       /* 354 */
extern const struct reply reply_no_valid_recipients; /* 554 */
extern const struct reply reply_too_big;             /* 552 */
extern const struct reply reply_lists_of_authors;
extern const struct reply reply_envelope_too_big;    /* 552 */
extern const struct reply reply_no_space;            /* 452 */
extern const struct reply reply_try_again;           /* 451 */
extern const struct reply reply_mail_loop;           /* 554 5.4.6 */
extern const struct reply reply_header_too_big;
extern const struct reply reply_author_unreadable;   /* 550 */
extern const struct reply reply_too_many_authors;    /* 550 */
extern const struct reply reply_bdat_syntax;         /* the session ends with it: nobody knows where the chunk ends */
extern const struct reply reply_bdat_too_big;        /* likewise: it is not worth reading to its end */
extern const struct reply reply_bdat_word;
extern const struct reply reply_too_many_chunks;

/* ---- the others ------------------------------------------------------------------------------------------------- */
extern const struct reply reply_vrfy_off;
extern const struct reply reply_needs_utf8;          /* VRFY, EXPN: RFC 6531 section 3.7.4.2 */
extern const struct reply reply_needs_address;       /* VRFY, EXPN with nothing behind */
extern const struct reply reply_etrn_syntax;
extern const struct reply reply_no_such_help;

#endif
