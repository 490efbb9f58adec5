/*
 * arena - memory that is given back all at once. It grows in blocks from a struct mem up to a maximum; a full arena is
 * a bug of the limits that it was sized by, and aborts.
 *
 * Allocations are aligned to 16 bytes (arena_alloc) or not at all (arena_keep) and are not zeroed by arena_keep.
 */
#ifndef BASE_ARENA_H
#define BASE_ARENA_H

#include "base/mem.h"
#include "base/str.h"

struct arena_block;
struct arena {
    struct mem *mem;
    struct arena_block *newest;
    size_t block_size; /* of the next block */
    size_t used, max;  /* bytes given out; most that may be given out */
};

/* No memory is taken before the first allocation. block_size: 512 to 64 KiB is sensible. */
void  arena_init(struct arena *, struct mem *, size_t block_size, size_t max);
void  arena_done(struct arena *);
void  arena_reset(struct arena *);     /* keeps the newest block, so a reused arena does not touch malloc */
void  arena_release(struct arena *);   /* gives every block back; the arena stays usable */
/* Gives back what was allocated since the mark, for a try that begins anew. Not beyond a reset or release. */
struct arena_mark {
    struct arena_block *newest;
    size_t newest_used, used;
};
struct arena_mark arena_mark(const struct arena *);
void  arena_rewind(struct arena *, struct arena_mark);
void *arena_alloc(struct arena *, size_t size);             /* zeroed */
#define arena_new(arena, type) ((type *)arena_alloc((arena), sizeof(type)))
struct str arena_keep(struct arena *, struct str);           /* a copy; absent stays absent */
char *arena_cstr(struct arena *, struct str);                /* a NUL-terminated copy */
struct str arena_join(struct arena *, struct str, struct str);
struct str arena_printf(struct arena *, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
