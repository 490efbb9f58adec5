/*
 * ids - message id to live message: an open table of pointers, since a map's keys would cost more than the messages
 * have.
 */
#ifndef QUEUE_IDS_H
#define QUEUE_IDS_H

#include "queue/pending.h"

struct ids {
    struct mem *mem;
    struct live **slots;
    size_t count, cap; /* cap: 0 or a power of two */
};

void ids_init(struct ids *, struct mem *);
void ids_done(struct ids *);
struct live *ids_get(const struct ids *, struct message_id);
void ids_put(struct ids *, struct live *); /* that is not there yet */
void ids_remove(struct ids *, struct live *);
/* for (size_t at = 0; (m = ids_next(ids, &at));) */
struct live *ids_next(const struct ids *, size_t *at);

#endif
