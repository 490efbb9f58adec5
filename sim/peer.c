/* peer - see peer.h. */
#include "sim/peer.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void
conn_init(struct conn *c, struct rt *rt, struct stream *stream)
{
    *c = (struct conn){ .rt = rt, .stream = stream, .patience = 10 * MINUTE, .budget = UINT64_MAX };
}

void
conn_close(struct conn *c)
{
    if (c->stream)
        stream_close(c->stream);
    c->stream = NULL;
    c->broken = true;
}

void
conn_reset(struct conn *c)
{
    if (c->stream)
        stream_reset(c->stream);
    c->stream = NULL;
    c->broken = true;
}

static bool
put_now(struct conn *c, struct str bytes)
{
    if (c->broken)
        return false;
    if (err_is(stream_write(c->stream, bytes, within(c->rt, c->patience))))
        c->broken = true;
    return !c->broken;
}

bool
conn_put(struct conn *c, struct str bytes)
{
    bool cut = bytes.len > c->budget;

    if (cut)
        bytes = str_slice(bytes, 0, (size_t)c->budget);
    c->budget -= bytes.len;
    if (c->slow && bytes.len < 2000) {
        for (size_t i = 0; i < bytes.len; i++)
            if (!put_now(c, str_slice(bytes, i, i + 1)) || err_is(rt_sleep(c->rt, within(c->rt, 20 * MILLISECOND))))
                return false;
    } else if (!put_now(c, bytes)) {
        return false;
    }
    if (cut && c->budget_resets)
        conn_reset(c);
    else if (cut)
        conn_close(c);
    return !cut;
}

bool
conn_putf(struct conn *c, const char *format, ...)
{
    char text[2048];
    va_list args;

    va_start(args, format);
    int n = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return conn_put(c, str_new(text, n < 0 ? 0 : (size_t)n < sizeof text ? (size_t)n : sizeof text - 1));
}

static bool
fill(struct conn *c)
{
    size_t len = 0;

    if (c->broken)
        return false;
    if (c->from > 0) {
        memmove(c->in, c->in + c->from, c->to - c->from);
        c->to -= c->from;
        c->from = 0;
    }
    if (c->to == sizeof c->in)
        return false;
    if (err_is(stream_read(c->stream, c->in + c->to, sizeof c->in - c->to, within(c->rt, c->patience), &len)) || len == 0) {
        c->broken = true;
        return false;
    }
    c->to += len;
    return true;
}

bool
conn_raw_line(struct conn *c, struct str *out)
{
    for (;;) {
        struct str have = str_new(c->in + c->from, c->to - c->from);
        size_t lf = str_find_byte(have, '\n');
        if (lf < have.len || have.len == sizeof c->in) {
            *out = str_slice(have, 0, lf + 1);
            c->from += out->len;
            return true;
        }
        if (!fill(c))
            return false;
    }
}

bool
conn_line(struct conn *c, struct str *out)
{
    if (!conn_raw_line(c, out))
        return false;
    *out = str_trim_end(*out);
    return true;
}

bool
conn_bytes(struct conn *c, char *memory, size_t cap, size_t *out_len)
{
    if (c->from == c->to && !fill(c))
        return false;
    size_t len = c->to - c->from < cap ? c->to - c->from : cap;
    memcpy(memory, c->in + c->from, len);
    c->from += len;
    *out_len = len;
    return true;
}

bool
conn_reply(struct conn *c, unsigned *out_code, struct str *out_last)
{
    struct str line;

    do {
        if (!conn_line(c, &line))
            return false;
        if (line.len < 3 || !byte_is_digit(line.ptr[0]) || !byte_is_digit(line.ptr[1]) || !byte_is_digit(line.ptr[2]))
            return false;
    } while (line.len > 3 && line.ptr[3] == '-');
    *out_code = (unsigned)(line.ptr[0] - '0') * 100 + (unsigned)(line.ptr[1] - '0') * 10 + (unsigned)(line.ptr[2] - '0');
    if (out_last)
        *out_last = line;
    return true;
}
