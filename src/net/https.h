/*
 * https - one GET of a short text by HTTPS, as MTA-STS wants it (RFC 8461 section 3.3): the certificate is verified for
 * the host's name, no redirect is followed, nothing but 200 with text/plain counts, and both time and length are bounded.
 *
 * By libcurl, which is loaded when https_open() is called and not linked: it brings thirty libraries along, and one role of
 * a dozen needs it. It works on a helper thread, so a cancelled fiber gets its end only when that has ended; https_stop()
 * makes all of them end soon. Addresses come from the caller: nothing is looked up here.
 *
 * In the simulator sim/https.c stands in for this.
 */
#ifndef NET_HTTPS_H
#define NET_HTTPS_H

#include "base/address.h"
#include "base/arena.h"
#include "runtime/rt.h"

struct https;

/* Before the sandbox, which would not let it load anything. authorities: PEM, whom we trust; they must outlive it.
 * *out_why: a sentence, for an error. */
struct err https_open(struct rt *, struct str authorities, struct https **out, struct text *out_why);
void https_close(struct https *);
void https_stop(struct https *); /* what is under way ends as unreachable, and what comes too */

enum https_status {
    HTTPS_OK,
    HTTPS_UNREACHABLE, /* no connection, or it broke off, or it took too long */
    HTTPS_UNTRUSTED,   /* the certificate is not for this host, expired, or of nobody whom we trust */
    HTTPS_REFUSED,     /* the host said no: not found, a redirect */
    HTTPS_UNFIT,       /* what came is too long, or no text/plain */
};
struct https_answer {
    uint8_t status;  /* enum https_status */
    struct str body; /* HTTPS_OK: in the arena */
    struct str why;  /* else: a sentence, in the arena */
};
enum { HTTPS_WHY_MAX = 400 };

struct https_request {
    struct str host, path;            /* "mta-sts.example.org", "/.well-known/mta-sts.txt" */
    const struct address *addresses;  /* tried in this order; port 0: 443 */
    size_t address_count;             /* at least one; no more than HTTPS_ADDRESSES_MAX are tried */
    size_t body_max;
    int64_t time_max;                 /* ns for all of it */
};
enum { HTTPS_ADDRESSES_MAX = 8 };

/* `until` bounds the wait for a free thread. An error: that, or a fiber that is cancelled before it began. The arena has
 * room for body_max + HTTPS_WHY_MAX bytes. */
struct err https_get(struct https *, const struct https_request *, int64_t until, struct arena *, struct https_answer *out);

#endif
