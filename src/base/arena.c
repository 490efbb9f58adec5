/* arena - see arena.h. */
#include "base/arena.h"

#include "base/check.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct arena_block {
    struct arena_block *older;
    size_t size, used; /* of bytes[] */
    _Alignas(16) char bytes[];
};

void
arena_init(struct arena *a, struct mem *mem, size_t block_size, size_t max)
{
    *a = (struct arena){ .mem = mem, .block_size = block_size, .max = max };
}

static void
block_free(struct arena *a, struct arena_block *block)
{
    mem_free(a->mem, block, sizeof *block + block->size);
}

void
arena_release(struct arena *a)
{
    while (a->newest) {
        struct arena_block *block = a->newest;
        a->newest = block->older;
        block_free(a, block);
    }
    a->used = 0;
}

void
arena_done(struct arena *a)
{
    arena_release(a);
    a->mem = NULL;
}

void
arena_reset(struct arena *a)
{
    struct arena_block *keep = a->newest;

    a->used = 0;
    if (!keep)
        return;
    a->newest = keep->older;
    keep->older = NULL;
    arena_release(a);
    if (keep->size > a->block_size) { /* one huge allocation must not stay for the life of a session */
        block_free(a, keep);
        return;
    }
    keep->used = 0;
    a->newest = keep;
}

struct arena_mark
arena_mark(const struct arena *a)
{
    return (struct arena_mark){ a->newest, a->newest ? a->newest->used : 0, a->used };
}

void
arena_rewind(struct arena *a, struct arena_mark mark)
{
    while (a->newest != mark.newest) {
        struct arena_block *block = a->newest;
        CHECK(block);
        a->newest = block->older;
        block_free(a, block);
    }
    if (a->newest)
        a->newest->used = mark.newest_used;
    a->used = mark.used;
}

static void *
take(struct arena *a, size_t size, size_t align)
{
    struct arena_block *block = a->newest;
    size_t at = block ? (block->used + align - 1) & ~(align - 1) : 0;

    CHECK(size <= a->max && a->used <= a->max - size);
    if (!block || at > block->size || size > block->size - at) {
        size_t bytes = size > a->block_size ? size : a->block_size;
        block = mem_buffer(a->mem, sizeof *block + bytes);
        block->size = bytes;
        block->older = a->newest;
        a->newest = block;
        at = 0;
    }
    block->used = at + size;
    a->used += size;
    return block->bytes + at;
}

void *
arena_alloc(struct arena *a, size_t size)
{
    void *memory = take(a, size, 16);

    memset(memory, 0, size);
    return memory;
}

struct str
arena_keep(struct arena *a, struct str s)
{
    return arena_join(a, s, (struct str){ "", 0 });
}

struct str
arena_join(struct arena *a, struct str first, struct str second)
{
    if (str_is_absent(first))
        return first;
    char *memory = take(a, first.len + second.len, 1);
    if (first.len)
        memcpy(memory, first.ptr, first.len);
    if (second.len)
        memcpy(memory + first.len, second.ptr, second.len);
    return (struct str){ memory, first.len + second.len };
}

char *
arena_cstr(struct arena *a, struct str s)
{
    char *memory = take(a, s.len + 1, 1);

    if (s.len)
        memcpy(memory, s.ptr, s.len);
    memory[s.len] = '\0';
    return memory;
}

struct str
arena_printf(struct arena *a, const char *format, ...)
{
    va_list args, again;

    va_start(args, format);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    CHECK(n >= 0);
    char *memory = take(a, (size_t)n + 1, 1);
    vsnprintf(memory, (size_t)n + 1, format, again);
    va_end(again);
    return (struct str){ memory, (size_t)n };
}
