/*
 * recipients - the final recipients of one transaction, each once, as they go into the envelope. Everything lives in
 * the transaction's arena.
 */
#ifndef SMTP_RECIPIENTS_H
#define SMTP_RECIPIENTS_H

#include "message/envelope.h"
#include "smtp/params.h"

struct recipients {
    struct arena *arena;
    uint64_t seed;            /* of the hash: unpredictable */
    struct recipient *list;
    size_t count, cap;
    size_t bytes;             /* of all of them in the envelope */
    uint32_t *slots;          /* index plus one, by hash of the address; 2 * cap of them */
};

void recipients_init(struct recipients *, struct arena *, uint64_t seed);
/* The envelope has room for what one RCPT led to: LIMIT_RCPT_EXPANDED of them, and LIMIT_ENVELOPE_RCPT_BYTES. */
bool recipients_fit(const struct recipients *, const struct rcpt_request *, const struct recipient *, size_t count);
/*
 * Adds what one RCPT led to. The DSN parameters are spread by RFC 3461 section 5.2.7: kept for the recipient given
 * and for an alias to one; without SUCCESS for the members of an alias to several; none for the members of a list;
 * for the alias or list itself (RECIPIENT_EXPANDED) as given. Someone who is there already stays once; named by the
 * client counts more than reached by an alias or list.
 */
void recipients_add(struct recipients *, const struct rcpt_request *, const struct recipient *, size_t count);

#endif
