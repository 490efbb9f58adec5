/* str - see str.h. */
#include "base/str.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct str
str_from_cstr(const char *cstr)
{
    return (struct str){ cstr, cstr ? strlen(cstr) : 0 };
}

bool
str_eq(struct str a, struct str b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

bool
str_eq_nocase(struct str a, struct str b)
{
    return a.len == b.len && str_starts_nocase(a, b);
}

int
str_cmp(struct str a, struct str b)
{
    size_t shorter = a.len < b.len ? a.len : b.len;
    int order = shorter ? memcmp(a.ptr, b.ptr, shorter) : 0;

    return order ? order : (a.len > b.len) - (a.len < b.len);
}

bool
str_starts(struct str s, struct str prefix)
{
    return s.len >= prefix.len && str_eq(str_slice(s, 0, prefix.len), prefix);
}

bool
str_starts_nocase(struct str s, struct str prefix)
{
    if (s.len < prefix.len)
        return false;
    for (size_t i = 0; i < prefix.len; i++)
        if (byte_lower(s.ptr[i]) != byte_lower(prefix.ptr[i]))
            return false;
    return true;
}

bool
str_ends(struct str s, struct str suffix)
{
    return s.len >= suffix.len && str_eq(str_from(s, s.len - suffix.len), suffix);
}

bool
str_ends_nocase(struct str s, struct str suffix)
{
    return s.len >= suffix.len && str_eq_nocase(str_from(s, s.len - suffix.len), suffix);
}

bool
str_is_ascii(struct str s)
{
    uint64_t word, high = 0;
    size_t i = 0;

    for (; s.len - i >= sizeof word; i += sizeof word) { /* content is looked at whole: a word at a time */
        memcpy(&word, s.ptr + i, sizeof word);
        high |= word;
    }
    for (; i < s.len; i++)
        high |= (unsigned char)s.ptr[i];
    return (high & UINT64_C(0x8080808080808080)) == 0;
}

bool
str_has_control(struct str s)
{
    for (size_t i = 0; i < s.len; i++)
        if (byte_is_control(s.ptr[i]))
            return true;
    return false;
}

size_t
str_find_byte(struct str s, char c)
{
    const char *at = s.len ? memchr(s.ptr, c, s.len) : NULL;

    return at ? (size_t)(at - s.ptr) : s.len;
}

size_t
str_find_last_byte(struct str s, char c)
{
    const char *at = s.len ? memrchr(s.ptr, c, s.len) : NULL;

    return at ? (size_t)(at - s.ptr) : s.len;
}

size_t
str_find(struct str s, struct str what)
{
    const char *at;

    if (what.len == 0)
        return 0;
    at = s.len >= what.len ? memmem(s.ptr, s.len, what.ptr, what.len) : NULL;
    return at ? (size_t)(at - s.ptr) : s.len;
}

struct str
str_slice(struct str s, size_t from, size_t to)
{
    if (to > s.len)
        to = s.len;
    if (from > to)
        from = to;
    return s.ptr ? (struct str){ s.ptr + from, to - from } : s;
}

struct str
str_from(struct str s, size_t from)
{
    return str_slice(s, from, s.len);
}

struct str
str_trim_end(struct str s)
{
    while (s.len > 0 && byte_is_white(s.ptr[s.len - 1]))
        s.len--;
    return s;
}

struct str
str_trim(struct str s)
{
    while (s.len > 0 && byte_is_white(s.ptr[0]))
        s = str_from(s, 1);
    return str_trim_end(s);
}

bool
str_take(struct str *s, struct str prefix)
{
    if (!str_starts(*s, prefix))
        return false;
    *s = str_from(*s, prefix.len);
    return true;
}

bool
str_take_nocase(struct str *s, struct str prefix)
{
    if (!str_starts_nocase(*s, prefix))
        return false;
    *s = str_from(*s, prefix.len);
    return true;
}

bool
str_take_byte(struct str *s, char c)
{
    if (s->len == 0 || s->ptr[0] != c)
        return false;
    *s = str_from(*s, 1);
    return true;
}

bool
str_take_u64(struct str *s, uint64_t *out)
{
    uint64_t value = 0;
    size_t i = 0;

    for (; i < s->len && byte_is_digit(s->ptr[i]); i++) {
        uint64_t digit = (uint64_t)(s->ptr[i] - '0');
        if (value > (UINT64_MAX - digit) / 10)
            return false;
        value = value * 10 + digit;
    }
    if (i == 0)
        return false;
    *s = str_from(*s, i);
    *out = value;
    return true;
}

struct str
str_cut(struct str *s, char c)
{
    size_t at = str_find_byte(*s, c);
    struct str before = str_slice(*s, 0, at);

    *s = at < s->len ? str_from(*s, at + 1) : (struct str){ NULL, 0 };
    return before;
}

struct str
str_cut_word(struct str *s)
{
    size_t from = 0, to;

    while (from < s->len && byte_is_space(s->ptr[from]))
        from++;
    for (to = from; to < s->len && !byte_is_space(s->ptr[to]);)
        to++;
    struct str word = str_slice(*s, from, to);
    *s = str_from(*s, to);
    return word;
}

bool
str_to_u64(struct str s, uint64_t *out)
{
    uint64_t value;

    if (!str_take_u64(&s, &value) || s.len > 0)
        return false;
    *out = value;
    return true;
}

int
byte_hex(char c)
{
    if (byte_is_digit(c))
        return c - '0';
    c = byte_lower(c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

void
text_put(struct text *t, struct str s)
{
    size_t room = t->cap - t->len;
    size_t n = s.len <= room ? s.len : room;

    if (n)
        memcpy(t->ptr + t->len, s.ptr, n);
    t->len += n;
    t->full |= n < s.len;
}

void
text_put_u64(struct text *t, uint64_t value)
{
    char digits[20];
    size_t at = sizeof digits;

    do
        digits[--at] = (char)('0' + value % 10);
    while (value /= 10);
    text_put(t, (struct str){ digits + at, sizeof digits - at });
}

void
text_put_i64(struct text *t, int64_t value)
{
    if (value < 0)
        text_put_byte(t, '-');
    text_put_u64(t, value < 0 ? 0 - (uint64_t)value : (uint64_t)value);
}

void
text_put_lower(struct text *t, struct str s)
{
    for (size_t i = 0; i < s.len; i++)
        text_put_byte(t, byte_lower(s.ptr[i]));
}

void
text_putf(struct text *t, const char *format, ...)
{
    size_t room = t->cap - t->len;
    va_list args;

    if (room == 0) {
        t->full = true;
        return;
    }
    va_start(args, format);
    int n = vsnprintf(t->ptr + t->len, room, format, args);
    va_end(args);
    if (n < 0 || (size_t)n >= room) { /* the last byte went to vsnprintf's NUL */
        t->full = true;
        t->len = n < 0 ? t->len : t->cap - 1;
    } else {
        t->len += (size_t)n;
    }
}

const char *
text_cstr(struct text *t)
{
    if (t->len == t->cap) {
        t->full = true;
        if (t->cap == 0)
            return "";
        t->len--;
    }
    t->ptr[t->len] = '\0';
    return t->ptr;
}
