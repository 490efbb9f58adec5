/* wire - see wire.h. */
#include "net/wire.h"

#include "base/check.h"

struct err
wire_accept_tls(struct wire *w, struct tls_server *server, int64_t until, struct text *reason)
{
    CHECK(!w->tls);
    return tls_accept(server, w->stream, until, &w->tls, reason);
}

struct err
wire_connect_tls(struct wire *w, struct tls_client *client, struct str server_name, int64_t until, struct text *reason)
{
    CHECK(!w->tls);
    return tls_connect(client, w->stream, server_name, until, &w->tls, reason);
}

void
wire_close(struct wire *w)
{
    stream_close(w->stream); /* first: it sends away who waits inside the tls */
    if (w->tls)
        tls_free(w->tls);
    *w = (struct wire){ NULL, NULL };
}

void
wire_shut_down(struct wire *w)
{
    if (w->tls)
        tls_shut_down(w->tls);
    stream_shut_down(w->stream);
}

struct err
wire_read(struct wire *w, void *memory, size_t cap, int64_t until, size_t *out_len)
{
    return w->tls ? tls_read(w->tls, memory, cap, until, out_len)
                  : stream_read(w->stream, memory, cap, until, out_len);
}

struct err
wire_read_now(struct wire *w, void *memory, size_t cap, size_t *out_len)
{
    return w->tls ? tls_read_now(w->tls, memory, cap, out_len) : stream_read_now(w->stream, memory, cap, out_len);
}

struct err
wire_wait_readable(struct wire *w, int64_t until)
{
    return w->tls ? tls_wait_readable(w->tls, until) : stream_wait_readable(w->stream, until);
}

struct err
wire_write(struct wire *w, struct str bytes, int64_t until)
{
    return w->tls ? tls_write(w->tls, &bytes, 1, until) : stream_write(w->stream, bytes, until);
}

struct err
wire_write_parts(struct wire *w, const struct str *parts, size_t count, int64_t until)
{
    return w->tls ? tls_write(w->tls, parts, count, until) : stream_write_parts(w->stream, parts, count, until);
}

struct err
wire_write_now(struct wire *w, struct str bytes, size_t *out_len)
{
    return w->tls ? tls_write_now(w->tls, bytes, out_len) : stream_write_now(w->stream, bytes, out_len);
}

bool
wire_has_unsent(const struct wire *w)
{
    return w->tls && tls_has_unsent(w->tls);
}
