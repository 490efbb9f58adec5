/*
 * exchange - the server's side of a SASL exchange (RFC 4422), from AUTH to its end, for users whose secrets we have.
 *
 * Where users come from, whether one may try now, and who compares a password, it asks of a struct sasl_store. It gives
 * nothing away about who exists: the store makes somebody up where there is nobody, and that one fails at the end, as a
 * wrong password does.
 */
#ifndef SASL_EXCHANGE_H
#define SASL_EXCHANGE_H

#include "runtime/rt.h"
#include "sasl/mechanism.h"
#include "sasl/users.h"

struct sasl_store {
    void *ctx;
    /* Right before something is compared, and not earlier: who says only a name has tried nothing. The end of the step is
     * the end of the attempt: failed or not, and a challenge behind it says that all was right. May suspend. SASL_OK: go
     * on; SASL_THROTTLED, SASL_LATER. */
    enum sasl_status (*attempt)(void *ctx, struct str name, int64_t until);
    /* False: there is no such user, or he is off. Borrowed until the next suspension. */
    bool (*find)(void *ctx, struct str name, struct user *out);
    /* Somebody made up, with all SCRAM keys; for one name always the same, and like our users in what can be seen. */
    void (*pretend)(void *ctx, struct str name, struct user *out);
    /* A prepared password against the hash of that user, and whether both are right. May suspend. SASL_OK,
     * SASL_REFUSED, SASL_LATER. */
    enum sasl_status (*check)(void *ctx, struct str name, struct str password, int64_t until);
    void (*random)(void *ctx, unsigned char *out, size_t len);
};

struct sasl_facts { /* of the session; strings are kept */
    unsigned offered;           /* SASL_BITs: sasl_offered() */
    struct str exporter, end_point, certificate; /* as in struct border_auth */
    struct str hostname;        /* ours, for CRAM-MD5 */
};

struct sasl_exchange;
struct sasl_exchange *sasl_exchange_new(struct mem *, enum sasl_mechanism, const struct sasl_facts *);
void sasl_exchange_free(struct sasl_exchange *);
/*
 * One step. The first has the initial response, or an absent one. SASL_CHALLENGE: *out has it; any other status is the
 * end. May suspend. Not called again while it runs.
 */
enum sasl_status sasl_exchange_step(struct sasl_exchange *, const struct sasl_store *, struct str response, int64_t until,
                                    struct text *out);
/* Who logs in: with SASL_OK, and before as far as it is known (else empty); a prepared name. */
struct str sasl_exchange_name(const struct sasl_exchange *);
/* The name in what a client says of himself first, for who passes an exchange on; absent or empty: none that we can find.
 * Appends to *memory. */
struct str sasl_said_name(enum sasl_mechanism, struct str response, struct text *memory);
/* Something secret was compared, and was wrong: the attempt counts as a failure. */
bool sasl_exchange_failed(const struct sasl_exchange *);

#endif
