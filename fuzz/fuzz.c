/* fuzz - see fuzz.h. */
#include "fuzz.h"

#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct mem mem;
struct mem *own_mem = &mem;

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena arena;

    mem = mem_libc();
    arena_init(&arena, &mem, 4096, 256 << 20);
    fuzz_one(str_new(size ? (const char *)data : "", size), &arena);
    arena_done(&arena);
    CHECK(mem_in_use(&mem) == 0);
    return 0;
}

void
fuzz_show(const char *who, struct str s)
{
    if (!getenv("FUZZ_SHOW"))
        return;
    fprintf(stderr, "---- %s\n", who);
    fwrite(s.ptr, 1, s.len, stderr);
}

struct text
fuzz_text(struct arena *arena, size_t cap)
{
    return text_init(arena_alloc(arena, cap + 1), cap);
}

struct str
fuzz_field(struct str *rest)
{
    struct str field = str_cut(rest, '\xff');

    if (str_is_absent(*rest))
        *rest = S("");
    return str_is_absent(field) ? S("") : field;
}

uint8_t
fuzz_choice(struct str *rest)
{
    if (rest->len == 0)
        return 0;
    uint8_t byte = (uint8_t)rest->ptr[0];
    *rest = str_from(*rest, 1);
    return byte;
}
