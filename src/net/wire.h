/*
 * wire - a connection that is in clear, or from some moment on encrypted: what protocols read and write. There is no way
 * back to clear.
 *
 * The calls are those of streams (runtime/rt.h), and promise the same. What encrypts puts itself over the stream
 * (wire_cover(); net/tls.h does), so that protocols know nothing of it.
 */
#ifndef NET_WIRE_H
#define NET_WIRE_H

#include "runtime/rt.h"

struct wire_cover { /* the calls below, of what lies over the stream */
    struct err (*read)(void *cover, void *memory, size_t cap, int64_t until, size_t *out_len);
    struct err (*read_now)(void *cover, void *memory, size_t cap, size_t *out_len);
    struct err (*wait_readable)(void *cover, int64_t until);
    struct err (*write)(void *cover, const struct str *parts, size_t count, int64_t until);
    struct err (*write_now)(void *cover, struct str, size_t *out_len);
    bool (*has_unsent)(const void *cover);
    void (*shut_down)(void *cover);
    void (*free)(void *cover); /* the stream is closed already */
};

struct wire {
    struct stream *stream;
    const struct wire_cover *ops; /* NULL: in clear */
    void *cover;
};

static inline struct wire
wire_in_clear(struct stream *stream)
{
    return (struct wire){ stream, NULL, NULL };
}
static inline bool
wire_is_in_clear(const struct wire *w)
{
    return !w->ops;
}
/* Once. The wire takes the cover. */
void wire_cover(struct wire *, const struct wire_cover *, void *cover);
void wire_close(struct wire *);
void wire_shut_down(struct wire *); /* says that no more will come; still reads */

struct err wire_read(struct wire *, void *memory, size_t cap, int64_t until, size_t *out_len);
struct err wire_read_now(struct wire *, void *memory, size_t cap, size_t *out_len);
struct err wire_wait_readable(struct wire *, int64_t until);
struct err wire_write(struct wire *, struct str, int64_t until);
struct err wire_write_parts(struct wire *, const struct str *parts, size_t count, int64_t until);
/* After it, wire_has_unsent() may be true: then only a wire_write(), if need be of nothing, makes sure that it leaves. */
struct err wire_write_now(struct wire *, struct str, size_t *out_len);
bool wire_has_unsent(const struct wire *);

#endif
