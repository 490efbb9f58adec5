/*
 * tlsrpt - what other operators say of TLS on its way to us: aggregate reports of SMTP TLS Reporting (RFC 8460), as they are
 * published by whoever sends mail to a domain with a record at _smtp._tls.
 *
 * A report is JSON (section 4), gzipped JSON, or a mail that carries such parts (section 3, multipart/report). Which of them is seen
 * by the first bytes. Who sent it is not verified: that wants the mail's DKIM signature.
 *
 * Nothing of it can be believed to be small: what is unpacked, how deep it nests and how many values it has are bounded, and
 * what is read takes no more than a few times that. Words that are absent were not said; those that are longer than TLSRPT_WORD_MAX
 * are cut. libjansson and zlib are loaded by tlsrpt_open() (runtime/library.h).
 */
#ifndef POLICY_TLSRPT_H
#define POLICY_TLSRPT_H

#include "base/arena.h"
#include "base/err.h"

enum {
    TLSRPT_BYTES_MAX = 32 << 20, /* of a file, and of all that is unpacked from it: RFC 8460 has reports of 10 MB in mind */
    TLSRPT_DEPTH_MAX = 16,       /* of arrays and objects within each other; a report has six */
    TLSRPT_VALUES_MAX = 500000,  /* in a file: 60,000 failure details */
    TLSRPT_REPORTS_MAX = 64,     /* in a mail */
    TLSRPT_WORD_MAX = 1000,
    TLSRPT_WHY_MAX = 400,
};

struct tlsrpt_failure { /* section 4.4, an entry of failure-details */
    struct str result;  /* result-type: "certificate-expired" */
    struct str sending_address, receiving_host, receiving_helo, receiving_address, reason, information;
    uint64_t sessions;
};
struct tlsrpt_policy {
    struct str type, domain; /* "tlsa", "sts", "no-policy-found" */
    struct str *lines;       /* policy-string: of an MTA-STS policy; TLSA records */
    struct str *hosts;       /* mx-host: patterns */
    struct tlsrpt_failure *failures;
    size_t line_count, host_count, failure_count;
    uint64_t succeeded, failed; /* sessions */
};
struct tlsrpt_report {
    struct str organization, contact, id, begin, end; /* times: RFC 3339, as they were written */
    struct tlsrpt_policy *policies;
    size_t policy_count;
};
struct tlsrpt {
    struct tlsrpt_report reports[TLSRPT_REPORTS_MAX];
    size_t count;
};

struct tlsrpt_reader;
/* ERR_NOT_FOUND: *out_why says which library is not to be had. */
struct err tlsrpt_open(struct mem *, struct tlsrpt_reader **out, struct text *out_why);
void tlsrpt_close(struct tlsrpt_reader *);
/* False: *out_why (TLSRPT_WHY_MAX bytes) says what is wrong with it; bytes of it may be quoted there, be they what they may.
 * What is read lives in the arena. */
bool tlsrpt_read(struct tlsrpt_reader *, struct str bytes, struct arena *, struct tlsrpt *out, struct text *out_why);

/* What a result type or a policy type means, in words. Absent: RFC 8460 knows no such type. */
struct str tlsrpt_result_words(struct str type);
struct str tlsrpt_policy_words(struct str type);

/* ---- tlsrpt_json.c ---- */

/* What may still be taken, of one file. */
struct tlsrpt_budget {
    size_t bytes, values;
};
struct tlsrpt_json;
struct err tlsrpt_json_open(struct mem *, struct tlsrpt_json **out, struct text *out_why);
void tlsrpt_json_close(struct tlsrpt_json *);
bool tlsrpt_json_read(struct tlsrpt_json *, struct str text, struct arena *, struct tlsrpt_budget *, struct tlsrpt_report *out,
                      struct text *out_why);

#endif
