/* wire_fake - see wire_fake.h. */
#include "net/wire_fake.h"

static struct err
fake_read(void *stream, void *memory, size_t cap, int64_t until, size_t *out_len)
{
    return stream_read(stream, memory, cap, until, out_len);
}

static struct err
fake_read_now(void *stream, void *memory, size_t cap, size_t *out_len)
{
    return stream_read_now(stream, memory, cap, out_len);
}

static struct err
fake_wait_readable(void *stream, int64_t until)
{
    return stream_wait_readable(stream, until);
}

/* As wire_write() and wire_write_parts() go on in clear: a world may have only the first (tests/walk). */
static struct err
fake_write(void *stream, const struct str *parts, size_t count, int64_t until)
{
    return count == 1 ? stream_write(stream, *parts, until) : stream_write_parts(stream, parts, count, until);
}

static struct err
fake_write_now(void *stream, struct str bytes, size_t *out_len)
{
    return stream_write_now(stream, bytes, out_len);
}

static struct err
fake_write_byte_now(void *stream, struct str bytes, size_t *out_len)
{
    return stream_write_now(stream, str_slice(bytes, 0, 1), out_len);
}

static bool
fake_has_unsent(const void *stream)
{
    (void)stream;
    return false;
}

static void
fake_nothing(void *stream)
{
    (void)stream;
}

void
wire_fake_cover(struct wire *w)
{
    static const struct wire_cover ops = {
        .read = fake_read, .read_now = fake_read_now, .wait_readable = fake_wait_readable, .write = fake_write,
        .write_now = fake_write_now, .has_unsent = fake_has_unsent, .shut_down = fake_nothing, .free = fake_nothing,
    };

    wire_cover(w, &ops, w->stream);
}

void
wire_fake_cover_tight(struct wire *w)
{
    static const struct wire_cover ops = {
        .read = fake_read, .read_now = fake_read_now, .wait_readable = fake_wait_readable, .write = fake_write,
        .write_now = fake_write_byte_now, .has_unsent = fake_has_unsent, .shut_down = fake_nothing, .free = fake_nothing,
    };

    wire_cover(w, &ops, w->stream);
}
