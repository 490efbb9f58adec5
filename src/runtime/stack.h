/*
 * stack - memory for fiber stacks: lazily touched, each above a guard page, reused, and given back to the system when
 * idle.
 *
 * The guard costs nothing where the kernel has MADV_GUARD_INSTALL (6.13); elsewhere it is an mprotect, which splits the
 * mapping, and vm.max_map_count bounds how many there can be: stacks_room().
 */
#ifndef RUNTIME_STACK_H
#define RUNTIME_STACK_H

#include "base/list.h"
#include "base/mem.h"
#include "runtime/context.h"

#include <stdbool.h>
#include <stddef.h>

#if defined(CONTEXT_ASAN) || defined(CONTEXT_TSAN)
enum { STACK_BYTES = 256 << 10 }; /* red zones make frames several times as large */
#else
enum { STACK_BYTES = 64 << 10 };
#endif

struct stacks {
    struct mem *mem;
    struct list slabs, free;
    size_t warm, given, most; /* warm: free ones that keep their pages; most: how many there can be */
    size_t keep_warm;         /* so many do; may be changed after stacks_init() */
    bool guard_by_advice;
};

/* map_count_max: of vm.max_map_count. guard_advice: may try MADV_GUARD_INSTALL. */
void stacks_init(struct stacks *, struct mem *, size_t map_count_max, bool guard_advice);
void stacks_done(struct stacks *); /* all of them, whoever still uses one */
bool stacks_room(const struct stacks *);
/* The lowest byte of STACK_BYTES bytes; NULL: the system has no more memory. */
void *stack_take(struct stacks *);
void stack_put(struct stacks *, void *bottom);
/* Whether the address lies in the guard page below: whoever touches that ran off the stack. */
bool stack_guards(const void *bottom, const void *address);
/* Gives the pages below `sp` back to the system; they read as zero afterwards. */
void stack_trim(void *bottom, void *sp);

#endif
