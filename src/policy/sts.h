/*
 * sts - MTA-STS, RFC 8461: the record that says that a domain has a policy, the policy itself, and which MX hosts it
 * allows. Pure; what is fetched when, and kept how long, is the role `fetch`'s.
 *
 * Names are ASCII (A-labels). Strings borrow from what was parsed.
 */
#ifndef POLICY_STS_H
#define POLICY_STS_H

#include "dns/answer.h"

enum {
    STS_ID_MAX = 32,
    STS_BODY_MAX = 64 << 10,      /* section 3.3 suggests so many bytes */
    STS_MAX_AGE_MAX = 31557600,   /* seconds: a year */
    STS_ARENA_BYTES = STS_BODY_MAX * 5, /* a policy's patterns, in an arena: the shortest takes five bytes of the body */
};

/* ---- the TXT record of _mta-sts.DOMAIN, section 3.1 ---- */

/* One record. False: not a valid one. */
bool sts_record_parse(struct str record, struct str *out_id);
/* All of the answer: exactly one must begin as such a record does, and it must be valid. */
bool sts_records_parse(const struct dns_record *, size_t count, struct str *out_id);

/* ---- the policy, section 3.2 ---- */

enum sts_mode { STS_NONE, STS_TESTING, STS_ENFORCE, STS_MODES };
struct str sts_mode_name(enum sts_mode);

struct sts_policy {
    uint8_t mode;     /* enum sts_mode */
    uint32_t max_age; /* seconds from when it was fetched */
    struct str *mx;   /* "mail.example.com", "*.example.net"; none only with STS_NONE */
    size_t mx_count;
};
/* False: not valid, and *out_why says why. Fields that we do not know are ignored, and of a repeated one all but the first. */
bool sts_policy_parse(struct str body, struct arena *, struct sts_policy *out, struct str *out_why);
/* Some pattern allows this MX host (section 4.1). */
bool sts_policy_allows(const struct sts_policy *, struct str host);

#endif
