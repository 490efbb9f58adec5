/*
 * mechanism - the SASL mechanisms (RFC 4422) that we know, and which of them may be offered to whom.
 *
 * Passwords and SCRAM both need TLS: without it nothing is offered. The receiver's EHLO and the gate go by the same
 * function, so what is not offered is not taken either.
 */
#ifndef SASL_MECHANISM_H
#define SASL_MECHANISM_H

#include "base/str.h"

enum sasl_mechanism {          /* strongest first: the order of EHLO */
    SASL_EXTERNAL,             /* RFC 4422 appendix A: the client certificate */
    SASL_SCRAM_SHA_256_PLUS,   /* RFC 7677; bound to the TLS connection */
    SASL_SCRAM_SHA_256,
    SASL_SCRAM_SHA_1_PLUS,     /* RFC 5802 */
    SASL_SCRAM_SHA_1,
    SASL_CRAM_MD5,             /* RFC 2195 */
    SASL_PLAIN,                /* RFC 4616 */
    SASL_LOGIN,
    SASL_MECHANISMS,
};
#define SASL_BIT(mechanism) (1u << (mechanism))

struct str sasl_mechanism_name(enum sasl_mechanism);
/* In any case of letters. SASL_MECHANISMS: not one of ours. */
enum sasl_mechanism sasl_mechanism_by_name(struct str);

/* What a client has said and shown so far, as far as it matters here. */
struct sasl_situation {
    bool tls;
    bool binds;       /* tls-exporter or tls-server-end-point are known: channel binding is possible */
    bool certificate; /* a client certificate was verified */
};
/* Of those that the site has (SASL_BITs), which may be offered now. */
unsigned sasl_offered(unsigned site, struct sasl_situation);

/* What a step of an exchange came to, and the reply of RFC 4954 to it. */
enum sasl_status {
    SASL_CHALLENGE,         /* 334 and the bytes, in base64 */
    SASL_OK,                /* 235. What a mechanism says with success (SCRAM) went before, as a challenge */
    SASL_REFUSED,           /* 535 5.7.8 */
    SASL_MALFORMED,         /* 501 5.5.2: what the client sent is not what the mechanism says */
    SASL_UNKNOWN_MECHANISM, /* 504 5.5.4 */
    SASL_WEAK,              /* 538 5.7.11: under TLS it would be taken */
    SASL_LATER,             /* 454 4.7.0: the user cannot be looked up now */
    SASL_THROTTLED,         /* 454 4.7.0: too many failures */
    SASL_STATUS_LAST = SASL_THROTTLED,
};

#endif
