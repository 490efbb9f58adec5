/*
 * pool - the memory of simulated processes. A run takes and gives back some ten thousand blocks, and each process that dies
 * leaves all of its own: here that is a push onto a list. Memory is kept from run to run, and invisible in it.
 *
 * With AddressSanitizer every block is malloc's own, so that it finds what is used too long.
 */
#ifndef SIM_POOL_H
#define SIM_POOL_H

#include "base/mem.h"

/* What is in it is anything. */
void *pool_take(size_t size);
void *pool_resize(void *, size_t old_size, size_t new_size); /* what is new in it is zero */
void pool_give(void *, size_t size); /* as it was taken */

/* For the simulator's own. */
struct mem pool_mem(void);

#endif
