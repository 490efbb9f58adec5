/*
 * str - a view of bytes that live elsewhere: pointer and length, passed by value. NUL bytes are bytes.
 *
 * A str never owns and is never NUL-terminated (but see text_cstr()). ptr NULL means *absent*, which differs from
 * empty: str_is_absent(). Comparisons "nocase" fold ASCII only.
 */
#ifndef BASE_STR_H
#define BASE_STR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct str {
    const char *ptr;
    size_t len;
};

#define STR(literal) { (literal), sizeof(literal) - 1 }            /* in tables */
#define S(literal) ((struct str){ (literal), sizeof(literal) - 1 }) /* in expressions */
#define STR_ARG(s) (int)(s).len, (s).ptr                            /* for "%.*s" */

struct str str_from_cstr(const char *cstr); /* for argv, getenv and the like only */
static inline struct str
str_new(const void *ptr, size_t len)
{
    return (struct str){ ptr, len };
}
static inline bool
str_is_absent(struct str s)
{
    return s.ptr == NULL;
}

bool str_eq(struct str a, struct str b);
bool str_eq_nocase(struct str a, struct str b);
int  str_cmp(struct str a, struct str b); /* byte order, as memcmp */
bool str_starts(struct str s, struct str prefix);
bool str_starts_nocase(struct str s, struct str prefix);
bool str_ends(struct str s, struct str suffix);
bool str_ends_nocase(struct str s, struct str suffix);
bool str_is_ascii(struct str s);
bool str_has_control(struct str s); /* a byte below the space, or DEL */

/* Index of the first (last) byte c, or s.len if there is none. */
size_t str_find_byte(struct str s, char c);
size_t str_find_last_byte(struct str s, char c);
static inline bool
str_has_byte(struct str s, char c)
{
    return str_find_byte(s, c) < s.len;
}
/* Index of the first place where what begins, or s.len if there is none. */
size_t str_find(struct str s, struct str what);

/* The part from byte `from` up to, not including, byte `to`; both are cut down to s.len. */
struct str str_slice(struct str s, size_t from, size_t to);
struct str str_from(struct str s, size_t from);
struct str str_trim(struct str s);      /* without spaces, tabs, CR and LF at both ends */
struct str str_trim_end(struct str s);

/* Take what stands in front of *s. On false *s is unchanged. */
bool str_take(struct str *s, struct str prefix);
bool str_take_nocase(struct str *s, struct str prefix);
bool str_take_byte(struct str *s, char c);
bool str_take_u64(struct str *s, uint64_t *out); /* decimal digits; false: none, or over 2^64-1 */
/* Cuts at the first c: returns what stands before it, *s keeps what follows; with no c, all of *s, and *s becomes
 * absent. */
struct str str_cut(struct str *s, char c);
/* Skips spaces and tabs, returns the word up to the next one; empty at the end. *s keeps the rest. */
struct str str_cut_word(struct str *s);

/* The whole of s as a decimal number; false unless all of it is digits and it fits. */
bool str_to_u64(struct str s, uint64_t *out);

static inline bool
byte_is_digit(char c)
{
    return c >= '0' && c <= '9';
}
static inline bool
byte_is_alpha(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}
static inline bool
byte_is_alnum(char c)
{
    return byte_is_alpha(c) || byte_is_digit(c);
}
static inline bool
byte_is_space(char c)
{
    return c == ' ' || c == '\t';
}
static inline bool
byte_is_white(char c) /* CR and LF too */
{
    return byte_is_space(c) || c == '\r' || c == '\n';
}
static inline bool
byte_is_control(char c)
{
    return (unsigned char)c < ' ' || c == 0x7f;
}
static inline char
byte_lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
}
int byte_hex(char c); /* value of a hexadecimal digit of either case, or -1 */

/*
 * text - a writer into memory of a fixed size that the caller provides. What does not fit is dropped and remembered:
 * check `full` once at the end.
 */
struct text {
    char *ptr;
    size_t len, cap;
    bool full;
};

static inline struct text
text_init(void *memory, size_t cap)
{
    return (struct text){ memory, 0, cap, false };
}
void text_put(struct text *, struct str);
static inline void
text_put_byte(struct text *t, char c)
{
    if (t->len < t->cap)
        t->ptr[t->len++] = c;
    else
        t->full = true;
}
void text_put_u64(struct text *, uint64_t value);
void text_put_i64(struct text *, int64_t value);
void text_put_lower(struct text *, struct str);
void text_putf(struct text *, const char *format, ...) __attribute__((format(printf, 2, 3)));
static inline struct str
text_str(const struct text *t)
{
    return (struct str){ t->ptr, t->len };
}
/* NUL-terminates for a library that wants that; sets full if the NUL has no room (the last byte then gives way). */
const char *text_cstr(struct text *);

#endif
