/*
 * params - what MAIL and RCPT say: the path and the parameters of SIZE (RFC 1870), BODY (6152), SMTPUTF8 (6531), DSN
 * (3461), REQUIRETLS (8689), AUTH (4954) FUTURERELEASE (4865) and
 * DELIVERBY (2852). Pure: a table of keywords and what each may hold.
 *
 * Strings borrow from the command line or live in the arena. NULL is success; else the reply says what was wrong.
 */
#ifndef SMTP_PARAMS_H
#define SMTP_PARAMS_H

#include "message/envelope.h"
#include "message/path.h"
#include "smtp/reply.h"

struct mail_request {
    struct path reverse_path;
    struct str address;      /* the same as it goes into the envelope; empty: null sender */
    uint64_t size;           /* as declared; 0: not */
    struct str envid;        /* xtext; absent: none */
    int64_t hold_until;      /* wall ns; 0: none */
    int64_t deliver_within;  /* ns; 0: not said */
    bool deliver_or_return, deliver_trace;
    uint8_t ret, body;       /* enum ret, enum body */
    bool smtputf8;
    bool require_tls;        /* RFC 8689 */
};
/* What this server's EHLO offers beyond what it always does: without it, its parameters are unknown ones. */
struct mail_offers {
    uint64_t size_max;       /* 0: no limit */
    struct str domain;       /* for an address without one; absent: that is refused */
    bool require_tls;        /* REQUIRETLS: only under TLS */
    int64_t wall, hold_max;  /* now; how long mail may be held (RFC 4865), 0: there is no FUTURERELEASE */
    bool auth;               /* AUTH= (RFC 4954 section 5): checked, and not believed */
};
struct rcpt_request {
    const struct mail_request *mail;
    struct path forward_path; /* domain empty: <Postmaster> */
    struct str address;       /* as the client wrote it, without source route, domain in lower case */
    struct str orcpt;         /* xtext; absent: none */
    uint8_t notify;           /* enum notify bits; 0: not given */
};

/* args: what follows the verb. extended: EHLO was said, without which there are no parameters. */
const struct reply *mail_request_parse(struct str args, bool extended, const struct mail_offers *, struct arena *,
                                       struct mail_request *out);
/* domain: for an address without one, other than <Postmaster>, who is known; absent: that is refused. */
const struct reply *rcpt_request_parse(struct str args, bool extended, const struct mail_request *, struct str domain,
                                       struct arena *, struct rcpt_request *out);
/* The same in an arena that lives longer. */
struct mail_request mail_request_keep(const struct mail_request *, struct arena *);

#endif
