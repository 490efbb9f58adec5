/*
 * sts_policies - the MTA-STS policies of other domains: found, fetched, kept and renewed. RFC 8461 sections 3.3, 5.1, 10.2.
 *
 * A policy is kept until its max_age has passed since it was fetched, whatever becomes of later attempts. Each question
 * looks at the domain's TXT record: a new id fetches anew, so a domain's change is seen as soon as its TTL has passed, and
 * nothing is ever bounced by a policy that is out of date. A fetch that failed is not repeated for STS_RETRY_NS, one that
 * failed again for twice as long, at most STS_RETRY_MOST_NS. Once a day what is kept and in use is fetched again, the id may be the
 * same.
 *
 * Each policy is a file of text in the directory, named by its domain:
 *
 *     postrider mta-sts 1
 *     check 9c4f70cb3b8b2f41          SipHash-1-3, key 0, of all that follows
 *     id 20160831085700Z
 *     fetched 1790000000              seconds since 1970
 *                                     an empty line
 *     version: STSv1 ...              the policy as it came
 *
 * One that is damaged is said, removed and fetched anew.
 *
 * Bounded: at most `bytes_max` are held in memory. What gives way first was asked about on one day only, then what is large, then what
 * was asked about longest ago.
 *
 * A record that cannot be looked up now is not the same as none: what is kept stays, and where nothing is the answer's result says so.
 */
#ifndef POLICY_STS_POLICIES_H
#define POLICY_STS_POLICIES_H

#include "net/https.h"
#include "net/tls_policy.h"
#include "policy/sts.h"

#define STS_RETRY_NS (5 * MINUTE)
#define STS_RETRY_MOST_NS (16 * STS_RETRY_NS)
#define STS_REFRESH_NS (24 * HOUR)
#define STS_UNUSED_NS (30 * DAY) /* one that nobody asked about for so long is not renewed any more */

struct sts_policies;

struct sts_policies_hooks {
    void *arg;
    /* As https_get(). */
    struct err (*get)(void *arg, const struct https_request *, int64_t until, struct arena *, struct https_answer *out);
};

/* The dns outlives it. */
struct sts_policies *sts_policies_new(struct rt *, const struct dns *, const struct sts_policies_hooks *, size_t bytes_max);
void sts_policies_free(struct sts_policies *);
/* Takes up what the directory has, and keeps there what comes. The directory is the caller's, and stays open. */
struct err sts_policies_load(struct sts_policies *, struct dir *, int64_t until);

struct sts_answer {
    bool found;               /* there is a policy */
    struct sts_policy policy; /* in the arena */
    struct str id;
    int64_t fetched_wall, expires_wall; /* ns */
    uint8_t result;           /* enum tls_result: why the newest policy could not be had, or TLS_RESULT_OK */
    struct str why;           /* a sentence for that; else empty */
};
enum { STS_ANSWER_ARENA_BYTES = STS_BODY_MAX + STS_ARENA_BYTES + 4096 };
/* domain: A-labels. May take STS_ANSWER_NS: it fetches. An error: `until`, or a cancelled fiber. */
#define STS_ANSWER_NS (2 * MINUTE)
struct err sts_policies_find(struct sts_policies *, struct str domain, int64_t until, struct arena *, struct sts_answer *out);

/* Renews what has its time, until the fiber is cancelled: a fiber of its own. */
void sts_policies_refresh(struct sts_policies *);
size_t sts_policies_count(const struct sts_policies *); /* For tests: domains known, with a policy or without. */

/* ---- the file ---- */

struct sts_file {
    struct str id, body;
    int64_t fetched_wall; /* ns, whole seconds */
};
enum { STS_FILE_MAX = STS_BODY_MAX + 256 };
void sts_file_put(struct text *, const struct sts_file *);
/* Borrows. False: damaged. */
bool sts_file_parse(struct str bytes, struct sts_file *out);

#endif
