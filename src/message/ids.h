/*
 * ids - message id to whatever is known of that message: an open table of pointers to things that begin with their id,
 * since a map's keys would cost more than the things have.
 */
#ifndef MESSAGE_IDS_H
#define MESSAGE_IDS_H

#include "base/mem.h"
#include "message/envelope.h"

struct ids {
    struct mem *mem;
    struct message_id **slots; /* each the first member of its thing */
    size_t count, cap;         /* cap: 0 or a power of two */
};

void ids_init(struct ids *, struct mem *);
void ids_done(struct ids *);
void *ids_get(const struct ids *, struct message_id);   /* NULL: none */
void ids_put(struct ids *, struct message_id *thing);    /* that is not there yet */
void ids_remove(struct ids *, struct message_id *thing); /* that is there */
/* for (size_t at = 0; (thing = ids_next(ids, &at));) */
void *ids_next(const struct ids *, size_t *at);

#endif
