/*
 * ids - message id to whatever is known of that message: a table of pointers to things that begin with their id, since
 * a map's keys would cost more than the things have.
 *
 * It is many small open tables, each of which grows by itself: to move a million entries at once would hold up the store,
 * and all who wait for its 250, for a tenth of a second. Which of them an id is in, and where, its bits say, mixed
 * with a seed from the runtime's randomness: whoever sees ids does not see which of them meet.
 */
#ifndef MESSAGE_IDS_H
#define MESSAGE_IDS_H

#include "base/mem.h"
#include "message/envelope.h"

enum { IDS_TABLES = 256 }; /* with 1,000,000 entries one takes 64 KiB */

struct ids {
    struct mem *mem;
    uint64_t seed;
    size_t count;
    struct ids_table {
        struct message_id **slots; /* each the first member of its thing */
        uint32_t count, cap;       /* cap: 0 or a power of two */
    } tables[IDS_TABLES];
};

void ids_init(struct ids *, struct mem *, uint64_t seed);
void ids_done(struct ids *);
void *ids_get(const struct ids *, struct message_id);   /* NULL: none */
void ids_put(struct ids *, struct message_id *thing);    /* that is not there yet */
void ids_remove(struct ids *, struct message_id *thing); /* that is there */
/* for (size_t at = 0; (thing = ids_next(ids, &at));) */
void *ids_next(const struct ids *, size_t *at);

#endif
