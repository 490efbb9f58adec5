/*
 * dovecot - users that Dovecot knows: one SASL exchange over its authentication socket, which speaks lines of fields
 * separated by tabs (Dovecot's "Authentication Protocol", version 1). The exchange is Dovecot's; we pass it on.
 *
 * Each exchange has a connection of its own: it ends with it, whatever happens to either side.
 */
#ifndef SASL_DOVECOT_H
#define SASL_DOVECOT_H

#include "base/limits.h"
#include "runtime/rt.h"
#include "sasl/mechanism.h"

enum { DOVECOT_LINE_MAX = 16384 };

struct dovecot;
/* Connects, and sees that it is Dovecot. An error: it is not there, or speaks otherwise. Suspends. */
struct err dovecot_open(struct rt *, const struct address *socket, int64_t until, struct dovecot **out);
void dovecot_close(struct dovecot *);
bool dovecot_knows(const struct dovecot *, enum sasl_mechanism);

/*
 * The first step, and each that follows. SASL_CHALLENGE: *out has it, out of base64. SASL_OK: dovecot_user() is who it is.
 * SASL_LATER also if the connection broke. Suspends.
 */
enum sasl_status dovecot_begin(struct dovecot *, enum sasl_mechanism, const struct address *client, struct str initial,
                               int64_t until, struct text *out);
enum sasl_status dovecot_step(struct dovecot *, struct str response, int64_t until, struct text *out);
struct str dovecot_user(const struct dovecot *);

#endif
