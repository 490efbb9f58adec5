/*
 * mem - where memory comes from. Code above runtime/ never calls malloc: it is handed a struct mem (a role's heap), so
 * that what a role holds is counted, and so that the simulator can drop a killed role's heap whole.
 *
 * Memory comes zeroed, but for mem_buffer(). Allocation never returns NULL: a role that truly has no memory left ends (and loses no mail);
 * budgets are kept by looking at mem_in_use() *before* taking on work.
 */
#ifndef BASE_MEM_H
#define BASE_MEM_H

#include <stddef.h>

struct mem {
    void *(*resize)(struct mem *, void *ptr, size_t old_size, size_t new_size); /* new_size 0 frees; grown part is zero */
    size_t in_use;                                                             /* bytes, without malloc's own */
    void *(*buffer)(struct mem *, size_t size);                                /* NULL: as resize does it */
};

void *mem_alloc(struct mem *, size_t size);
/* For bytes that are written before they are read: what is in it is anything. Freed and resized like the others. */
void *mem_buffer(struct mem *, size_t size);
void *mem_resize(struct mem *, void *ptr, size_t old_size, size_t new_size);
void  mem_free(struct mem *, void *ptr, size_t size); /* ptr NULL is fine */
#define mem_new(mem, type) ((type *)mem_alloc((mem), sizeof(type)))
static inline size_t
mem_in_use(const struct mem *mem)
{
    return mem->in_use;
}

/* A mem on top of the C library's malloc. */
struct mem mem_libc(void);

#endif
