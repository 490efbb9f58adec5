/*
 * tls_policy - what the connection to one candidate host must be. It is decided for each host by itself before it is
 * connected to, the first that has something to say from: the route's rule, where it raises; DANE (RFC 7672), if DNSSEC
 * vouches for the way there and for a TLSA record; MTA-STS (RFC 8461) of the recipient's domain; else RFC 7435: as good as
 * both sides can.
 *
 * What it came to is said in the words of RFC 8460, so that reports can be made of it.
 *
 * Ownership: a policy borrows; it lives as long as the arena that was passed to whoever decided.
 */
#ifndef NET_TLS_POLICY_H
#define NET_TLS_POLICY_H

#include "base/str.h"

enum tls_level {
    TLS_NEVER,   /* in clear, also where the host offers more */
    TLS_MAY,     /* where it is offered, with any certificate; if that fails once more in clear */
    TLS_ENCRYPT, /* required, with any certificate; as all that follow, never in clear */
    TLS_VERIFY,  /* with a certificate for one of `names`, which leads to somebody whom `trust` trusts */
    TLS_DANE,    /* with a certificate that matches one of `records`; if it is of usage 2 also one of `names` */
    TLS_REFUSED, /* this host is not used now; `why` */
};
enum tls_source { TLS_BY_DEFAULT, TLS_BY_RULE, TLS_BY_DANE, TLS_BY_STS, TLS_BY_MESSAGE /* REQUIRETLS: RFC 8689 */ };

enum tls_result { /* RFC 8460 section 4.3 */
    TLS_RESULT_OK,
    TLS_RESULT_NO_STARTTLS,
    TLS_RESULT_HOST_MISMATCH,
    TLS_RESULT_EXPIRED,
    TLS_RESULT_NOT_TRUSTED,
    TLS_RESULT_VALIDATION_FAILURE, /* everything else */
    TLS_RESULT_TLSA_INVALID,
    TLS_RESULT_DNSSEC_INVALID,
    TLS_RESULT_DANE_REQUIRED,
    TLS_RESULT_STS_FETCH_ERROR,
    TLS_RESULT_STS_INVALID,
    TLS_RESULT_STS_WEBPKI_INVALID,
    TLS_RESULT_LAST = TLS_RESULT_STS_WEBPKI_INVALID,
};

struct tls_record { /* TLSA: RFC 6698 section 2.1 */
    uint8_t usage, selector, matching;
    struct str data;
};

struct tls_trust; /* certificates of those who vouch for others: net/tls.h */

enum { TLS_NAMES_MAX = 4 };
struct tls_policy {
    uint8_t level;             /* enum tls_level */
    uint8_t source;            /* enum tls_source */
    bool testing;              /* what does not hold is said and nothing more: the mail goes as by TLS_MAY */
    bool lasting;              /* of TLS_REFUSED: waiting will not help */
    uint8_t result;            /* enum tls_result: what is wrong already, of TLS_REFUSED or while testing */
    struct str domain;         /* whose policy it is: RFC 8460's policy-domain. Absent: nobody's */
    struct str why;            /* for people; absent: nothing to say */
    struct str names[TLS_NAMES_MAX]; /* of hosts, without patterns; by TLS_DANE the records are the first's */
    size_t name_count;
    const struct tls_record *records; /* usages 2 and 3 only */
    size_t record_count;
    const struct tls_trust *trust;
};

/* Never in clear, whatever fails. */
static inline bool
tls_policy_is_strict(const struct tls_policy *p)
{
    return p->level >= TLS_ENCRYPT && !p->testing;
}
/* There is something to check in a certificate. */
static inline bool
tls_policy_has_checks(const struct tls_policy *p)
{
    return p->level == TLS_VERIFY || p->level == TLS_DANE;
}

/* As they stand in logs: "dane", "sts", "certificate-expired". */
struct str tls_level_name(enum tls_level);
struct str tls_source_name(enum tls_source);
struct str tls_result_name(enum tls_result);

/* Two policies of the same text let the same connections through: what may be used again, and for whom. */
void tls_policy_put_key(struct text *, const struct tls_policy *);
enum { TLS_POLICY_KEY_MAX = 20 };

#endif
