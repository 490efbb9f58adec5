/*
 * codec - little-endian fields put into bytes and taken out again: link frames and spool records. What is taken is
 * hostile: every field has a maximum, a short or over-long field sets `bad`, and all later takes give zeros. Look at
 * `bad` (or take_end()) once at the end.
 */
#ifndef BASE_CODEC_H
#define BASE_CODEC_H

#include "base/str.h"

struct put { /* memory is the caller's; full: something did not fit */
    unsigned char *ptr;
    size_t len, cap;
    bool full;
};
struct take {
    struct str rest;
    bool bad;
};

static inline struct put
put_init(void *memory, size_t cap)
{
    return (struct put){ memory, 0, cap, false };
}
static inline struct take
take_init(struct str bytes)
{
    return (struct take){ bytes, false };
}
static inline struct str
put_str_so_far(const struct put *p)
{
    return str_new(p->ptr, p->len);
}

void put_u8(struct put *, uint8_t);
void put_u16(struct put *, uint16_t);
void put_u32(struct put *, uint32_t);
void put_u64(struct put *, uint64_t);
void put_i64(struct put *, int64_t);
void put_raw(struct put *, struct str);  /* the bytes alone */
void put_bytes(struct put *, struct str); /* u32 length, bytes; an absent str is length 2^32-1 */

uint8_t  take_u8(struct take *);
uint16_t take_u16(struct take *);
uint32_t take_u32(struct take *);
uint64_t take_u64(struct take *);
int64_t  take_i64(struct take *);
bool     take_bool(struct take *);              /* 0 or 1; anything else is bad */
uint32_t take_enum(struct take *, uint32_t max); /* a u8 of at most max */
uint32_t take_count(struct take *, uint32_t max); /* a u32 of at most max */
struct str take_raw(struct take *, size_t len);
struct str take_bytes(struct take *, size_t max); /* borrows from the input */
bool     take_end(const struct take *);          /* nothing was bad and nothing is left */

#endif
