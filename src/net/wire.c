/* wire - see wire.h. */
#include "net/wire.h"

#include "base/check.h"

void
wire_cover(struct wire *w, const struct wire_cover *ops, void *cover)
{
    CHECK(!w->ops);
    w->ops = ops;
    w->cover = cover;
}

void
wire_close(struct wire *w)
{
    stream_close(w->stream); /* first: it sends away who waits inside the cover */
    if (w->ops)
        w->ops->free(w->cover);
    *w = wire_in_clear(NULL);
}

void
wire_shut_down(struct wire *w)
{
    if (w->ops)
        w->ops->shut_down(w->cover);
    stream_shut_down(w->stream);
}

struct err
wire_read(struct wire *w, void *memory, size_t cap, int64_t until, size_t *out_len)
{
    return w->ops ? w->ops->read(w->cover, memory, cap, until, out_len)
                  : stream_read(w->stream, memory, cap, until, out_len);
}

struct err
wire_read_now(struct wire *w, void *memory, size_t cap, size_t *out_len)
{
    return w->ops ? w->ops->read_now(w->cover, memory, cap, out_len) : stream_read_now(w->stream, memory, cap, out_len);
}

struct err
wire_wait_readable(struct wire *w, int64_t until)
{
    return w->ops ? w->ops->wait_readable(w->cover, until) : stream_wait_readable(w->stream, until);
}

struct err
wire_write(struct wire *w, struct str bytes, int64_t until)
{
    return w->ops ? w->ops->write(w->cover, &bytes, 1, until) : stream_write(w->stream, bytes, until);
}

struct err
wire_write_parts(struct wire *w, const struct str *parts, size_t count, int64_t until)
{
    return w->ops ? w->ops->write(w->cover, parts, count, until) : stream_write_parts(w->stream, parts, count, until);
}

struct err
wire_write_now(struct wire *w, struct str bytes, size_t *out_len)
{
    return w->ops ? w->ops->write_now(w->cover, bytes, out_len) : stream_write_now(w->stream, bytes, out_len);
}

bool
wire_has_unsent(const struct wire *w)
{
    return w->ops && w->ops->has_unsent(w->cover);
}
