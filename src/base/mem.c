/* mem - see mem.h. */
#include "base/mem.h"

#include "base/check.h"

#include <stdlib.h>
#include <string.h>

static void *
libc_resize(struct mem *mem, void *ptr, size_t old_size, size_t new_size)
{
    if (new_size == 0) {
        free(ptr);
        mem->in_use -= old_size;
        return NULL;
    }
    void *grown = ptr ? realloc(ptr, new_size) : calloc(1, new_size);
    if (!grown)
        check_failed(__FILE__, __LINE__, "out of memory");
    if (ptr && new_size > old_size)
        memset((char *)grown + old_size, 0, new_size - old_size);
    mem->in_use += new_size - old_size;
    return grown;
}

static void *
libc_buffer(struct mem *mem, size_t size)
{
    void *memory = malloc(size);

    if (!memory)
        check_failed(__FILE__, __LINE__, "out of memory");
    mem->in_use += size;
    return memory;
}

struct mem
mem_libc(void)
{
    return (struct mem){ libc_resize, 0, libc_buffer };
}

void *
mem_alloc(struct mem *mem, size_t size)
{
    return mem->resize(mem, NULL, 0, size ? size : 1);
}

void *
mem_buffer(struct mem *mem, size_t size)
{
    return mem->buffer ? mem->buffer(mem, size ? size : 1) : mem_alloc(mem, size);
}

void *
mem_resize(struct mem *mem, void *ptr, size_t old_size, size_t new_size)
{
    CHECK(new_size > 0);
    return mem->resize(mem, ptr, ptr && old_size == 0 ? 1 : old_size, new_size);
}

void
mem_free(struct mem *mem, void *ptr, size_t size)
{
    if (ptr)
        mem->resize(mem, ptr, size ? size : 1, 0);
}
