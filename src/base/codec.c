/* codec - see codec.h. */
#include "base/codec.h"

#include <string.h>

#define ABSENT UINT32_MAX

void
put_raw(struct put *p, struct str s)
{
    if (s.len > p->cap - p->len) {
        p->full = true;
        return;
    }
    if (s.len)
        memcpy(p->ptr + p->len, s.ptr, s.len);
    p->len += s.len;
}

static void
put_le(struct put *p, uint64_t value, size_t bytes)
{
    unsigned char le[8];

    for (size_t i = 0; i < bytes; i++)
        le[i] = (unsigned char)(value >> (8 * i));
    put_raw(p, str_new(le, bytes));
}

void
put_u8(struct put *p, uint8_t value)
{
    put_le(p, value, 1);
}

void
put_u16(struct put *p, uint16_t value)
{
    put_le(p, value, 2);
}

void
put_u32(struct put *p, uint32_t value)
{
    put_le(p, value, 4);
}

void
put_u64(struct put *p, uint64_t value)
{
    put_le(p, value, 8);
}

void
put_i64(struct put *p, int64_t value)
{
    put_le(p, (uint64_t)value, 8);
}

void
put_bytes(struct put *p, struct str s)
{
    put_u32(p, str_is_absent(s) ? ABSENT : (uint32_t)s.len);
    put_raw(p, str_is_absent(s) ? S("") : s);
}

struct str
take_raw(struct take *t, size_t len)
{
    if (t->bad || len > t->rest.len) {
        t->bad = true;
        return S("");
    }
    struct str taken = str_slice(t->rest, 0, len);
    t->rest = str_from(t->rest, len);
    return taken;
}

static uint64_t
take_le(struct take *t, size_t bytes)
{
    struct str le = take_raw(t, bytes);
    uint64_t value = 0;

    for (size_t i = le.len; i > 0; i--)
        value = value << 8 | (unsigned char)le.ptr[i - 1];
    return value;
}

uint8_t
take_u8(struct take *t)
{
    return (uint8_t)take_le(t, 1);
}

uint16_t
take_u16(struct take *t)
{
    return (uint16_t)take_le(t, 2);
}

uint32_t
take_u32(struct take *t)
{
    return (uint32_t)take_le(t, 4);
}

uint64_t
take_u64(struct take *t)
{
    return take_le(t, 8);
}

int64_t
take_i64(struct take *t)
{
    return (int64_t)take_le(t, 8);
}

static uint32_t
bounded(struct take *t, uint32_t value, uint32_t max)
{
    if (value <= max)
        return value;
    t->bad = true;
    return 0;
}

bool
take_bool(struct take *t)
{
    return bounded(t, take_u8(t), 1);
}

uint32_t
take_enum(struct take *t, uint32_t max)
{
    return bounded(t, take_u8(t), max);
}

uint32_t
take_count(struct take *t, uint32_t max)
{
    return bounded(t, take_u32(t), max);
}

struct str
take_bytes(struct take *t, size_t max)
{
    uint32_t len = take_u32(t);

    if (t->bad)
        return S("");
    if (len == ABSENT)
        return (struct str){ NULL, 0 };
    if (len > max) {
        t->bad = true;
        return S("");
    }
    return take_raw(t, len);
}

bool
take_end(const struct take *t)
{
    return !t->bad && t->rest.len == 0;
}
