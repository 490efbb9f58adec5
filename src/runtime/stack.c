/*
 * stack - see stack.h.
 *
 * Stacks are cut from slabs:   | guard | stack | guard | stack | ...
 * A stack that was used and is free carries its link at its top, where the page is touched already. Those that keep their
 * pages are in front, so that a few which come and go are the same few, and none of them gives pages back in between.
 */
#include "runtime/stack.h"

#include "base/check.h"

#include <stdint.h>
#include <sys/mman.h>

#if defined(CONTEXT_ASAN)
#include <sanitizer/asan_interface.h>
#include <sanitizer/lsan_interface.h>
#endif

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102 /* Linux 6.13 */
#endif

enum {
    PAGE = 4096,
    STACK_SPAN = PAGE + STACK_BYTES,
    SLAB_STACKS = 16,
    SLAB_BYTES = SLAB_STACKS * STACK_SPAN,
    KEEP_WARM = 64,      /* free stacks that keep their pages */
    MAPS_FOR_REST = 2048, /* mappings for libraries, malloc and threads */
    MOST_STACKS = 1 << 20,
};

struct slab {
    struct list in_slabs;
    char *map;
    size_t cut; /* stacks cut from it so far */
};

void
stacks_init(struct stacks *s, struct mem *mem, size_t map_count_max, bool guard_advice)
{
    *s = (struct stacks){ .mem = mem, .guard_by_advice = guard_advice, .keep_warm = KEEP_WARM };
    list_init(&s->slabs);
    list_init(&s->free);
    if (guard_advice) { /* asked of the kernel itself: version numbers lie */
        void *probe = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        CHECK(probe != MAP_FAILED);
        s->guard_by_advice = madvise(probe, PAGE, MADV_GUARD_INSTALL) == 0;
        munmap(probe, PAGE);
    }
    s->most = MOST_STACKS;
    if (!s->guard_by_advice)
        s->most = map_count_max > 2 * MAPS_FOR_REST ? (map_count_max - MAPS_FOR_REST) / 2 : MAPS_FOR_REST / 2;
}

void
stacks_done(struct stacks *s)
{
    list_each_safe(node, &s->slabs) {
        struct slab *slab = container_of(node, struct slab, in_slabs);
#if defined(CONTEXT_ASAN)
        /* The shadow outlives the mapping: whoever is mapped here next would inherit the red zones. */
        __asan_unpoison_memory_region(slab->map, SLAB_BYTES);
        __lsan_unregister_root_region(slab->map, SLAB_BYTES);
#endif
        munmap(slab->map, SLAB_BYTES);
        mem_free(s->mem, slab, sizeof *slab);
    }
    list_init(&s->slabs);
    list_init(&s->free);
    s->warm = s->given = 0;
}

bool
stacks_room(const struct stacks *s)
{
    return s->given < s->most;
}

static struct list *
free_link(void *bottom)
{
    return (struct list *)(void *)((char *)bottom + STACK_BYTES - sizeof(struct list));
}

static struct slab *
slab_new(struct stacks *s)
{
    char *map = mmap(NULL, SLAB_BYTES, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);

    if (map == MAP_FAILED)
        return NULL;
    /* Neighbours merge into one mapping, and a huge page would make 2 MiB of stacks resident at the first touch. */
    (void)madvise(map, SLAB_BYTES, MADV_NOHUGEPAGE);
#if defined(CONTEXT_ASAN)
    __lsan_register_root_region(map, SLAB_BYTES);
#endif
    struct slab *slab = mem_new(s->mem, struct slab);
    slab->map = map;
    list_push_front(&s->slabs, &slab->in_slabs);
    return slab;
}

void *
stack_take(struct stacks *s)
{
    struct list *reused = list_pop_front(&s->free);

    if (reused) {
        s->warm -= s->warm > 0;
        s->given++;
        return (char *)reused + sizeof(struct list) - STACK_BYTES;
    }
    struct slab *slab = list_is_empty(&s->slabs) ? NULL : container_of(s->slabs.next, struct slab, in_slabs);
    if ((!slab || slab->cut == SLAB_STACKS) && !(slab = slab_new(s)))
        return NULL;
    char *guard = slab->map + slab->cut * STACK_SPAN;
    int failed = s->guard_by_advice ? madvise(guard, PAGE, MADV_GUARD_INSTALL) : mprotect(guard, PAGE, PROT_NONE);
    if (failed)
        return NULL;
    slab->cut++;
    s->given++;
    return guard + PAGE;
}

void
stack_put(struct stacks *s, void *bottom)
{
    CHECK(s->given > 0);
    s->given--;
#if defined(CONTEXT_ASAN)
    __asan_unpoison_memory_region(bottom, STACK_BYTES);
#endif
    if (s->warm < s->keep_warm) {
        list_push_front(&s->free, free_link(bottom));
        s->warm++;
    } else {
        stack_trim(bottom, (char *)bottom + STACK_BYTES);
        list_push_back(&s->free, free_link(bottom));
    }
}

bool
stack_guards(const void *bottom, const void *address)
{
    return (uintptr_t)bottom - (uintptr_t)address - 1 < PAGE;
}

void
stack_trim(void *bottom, void *sp)
{
    uintptr_t low = (uintptr_t)bottom, high = ((uintptr_t)sp - PAGE / 8) & ~(uintptr_t)(PAGE - 1);

    /* The red zone below sp (128 bytes in the x86-64 ABI) is still in use: hence the margin. */
    if (high > low)
        (void)madvise(bottom, high - low, MADV_DONTNEED);
}
