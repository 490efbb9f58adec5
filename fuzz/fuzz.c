/* fuzz - see fuzz.h. */
#include "fuzz.h"

#include "message/lines.h"

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

struct str
fuzz_unfold(struct str value, struct arena *arena)
{
    struct text t = fuzz_text(arena, value.len);

    for (size_t i = 0; i < value.len; i++)
        if (value.ptr[i] != '\r' && value.ptr[i] != '\n')
            text_put_byte(&t, value.ptr[i]);
    return str_trim(text_str(&t));
}

struct str
fuzz_repaired(struct str content, struct arena *arena)
{
    struct lines_repair r = { 0 };
    struct text room = fuzz_text(arena, 2 * content.len + 2), out = fuzz_text(arena, 2 * content.len + 2);

    text_put(&out, lines_repair(&r, content, room.ptr));
    text_put(&out, lines_repair_end(&r));
    return text_str(&out);
}

struct fuzz_lines
fuzz_lines(struct str s)
{
    struct fuzz_lines found = { .nul = str_has_byte(s, '\0') };
    bool body = false;

    for (size_t at = 0; at < s.len;) {
        size_t end = str_find(str_from(s, at), S("\r\n"));
        struct str line = str_slice(s, at, at + end);
        body = body || line.len == 0;
        found.bare_cr |= str_has_byte(line, '\r');
        found.bare_lf |= str_has_byte(line, '\n');
        found.eight_bit_header |= !body && !str_is_ascii(line);
        found.longest = line.len > found.longest ? line.len : found.longest;
        at += end + 2;
    }
    return found;
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
