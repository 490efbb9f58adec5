/*
 * wire - a connection that is in clear, or encrypted from some moment on: what protocols read and write. There is no way
 * back to clear.
 *
 * The calls are those of streams (runtime/rt.h), and promise the same.
 */
#ifndef NET_WIRE_H
#define NET_WIRE_H

#include "net/tls.h"

struct wire {
    struct stream *stream;
    struct tls *tls; /* NULL: in clear */
};

static inline struct wire
wire_in_clear(struct stream *stream)
{
    return (struct wire){ stream, NULL };
}
/* After an error the wire is only to be closed. reason: see tls_accept(). */
struct err wire_accept_tls(struct wire *, struct tls_server *, int64_t until, struct text *reason);
struct err wire_connect_tls(struct wire *, struct tls_client *, struct str server_name, int64_t until,
                            struct text *reason);
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
