/* hold - see hold.h. */
#include "link/hold.h"

#include "base/check.h"
#include "link/frame.h"

#include <string.h>

struct hold {
    struct rt *rt;
    struct stream *own_stream; /* NULL: it has ended */
    uint32_t last_call;
    bool hello_seen;
    size_t in_len, taken; /* taken: of the frames at the front, which were looked at */
    unsigned char in[2 * (LINK_HEADER + HOLD_BODY_MAX)];
};

static struct err
end(struct hold *h, struct err why)
{
    if (h->own_stream)
        stream_close(h->own_stream);
    h->own_stream = NULL;
    return why;
}

static struct err
write_now(struct hold *h, const struct put *frame)
{
    size_t sent;

    CHECK(!frame->full);
    TRY(stream_write_now(h->own_stream, put_str_so_far(frame), &sent));
    /* A question is short, and the one before was answered: a socket without room has nobody at the other end. */
    return sent == frame->len ? OK : ERR(ERR_TIMEOUT, "ask another role");
}

struct err
hold_open(struct rt *rt, struct handle handle, struct hold **out)
{
    unsigned char hello[LINK_HEADER + 80];
    struct put p = put_init(hello, sizeof hello);
    struct stream *stream;

    TRY(stream_from_handle(rt, handle, &stream));
    struct hold *h = mem_new(rt_mem(rt), struct hold);
    *h = (struct hold){ .rt = rt, .own_stream = stream };
    frame_put_hello(&p);
    struct err e = write_now(h, &p);
    if (err_is(e)) {
        hold_free(h);
        return e;
    }
    *out = h;
    return OK;
}

void
hold_free(struct hold *h)
{
    (void)end(h, OK);
    mem_free(rt_mem(h->rt), h, sizeof *h);
}

bool
hold_is_open(const struct hold *h)
{
    return h->own_stream != NULL;
}

/* In two halves: while the whole machine stands still the process that is to answer does too, and that counts once. */
static struct err
wait_readable(const struct hold *h, int64_t ns)
{
    struct err e = stream_hold_readable(h->own_stream, ns / 2);

    return e.kind == ERR_TIMEOUT ? stream_hold_readable(h->own_stream, ns / 2) : e;
}

/* The next frame, which stays readable until the next one is. */
static struct err
read_frame(struct hold *h, int64_t ns, struct frame *out)
{
    bool whole;

    for (;;) {
        size_t got;
        struct str here = str_new(h->in + h->taken, h->in_len - h->taken);
        TRY(frame_take(&here, out, &whole));
        if (whole) {
            h->taken = h->in_len - here.len;
            return OK;
        }
        memmove(h->in, h->in + h->taken, h->in_len - h->taken);
        h->in_len -= h->taken;
        h->taken = 0;
        if (h->in_len == sizeof h->in)
            return ERR(ERR_PROTOCOL, "link: an answer is too long");
        TRY(wait_readable(h, ns));
        TRY(stream_read_now(h->own_stream, h->in + h->in_len, sizeof h->in - h->in_len, &got));
        h->in_len += got;
    }
}

static struct err
read_answer(struct hold *h, uint16_t type, int64_t ns, struct str *out_answer)
{
    struct frame f;

    if (!h->hello_seen) {
        TRY(read_frame(h, ns, &f));
        TRY(frame_check_hello(&f));
        h->hello_seen = true;
    }
    TRY(read_frame(h, ns, &f));
    if (f.type != type || f.flags != LINK_REPLY || f.handles != 0 || f.call != h->last_call)
        return ERR(ERR_PROTOCOL, "link: not the answer to what was asked");
    *out_answer = f.body;
    return OK;
}

struct err
hold_call(struct hold *h, uint16_t type, struct str question, int64_t ns, struct str *out_answer)
{
    unsigned char memory[LINK_HEADER + HOLD_BODY_MAX];
    struct put p = put_init(memory, sizeof memory);

    CHECK(question.len <= HOLD_BODY_MAX);
    if (!h->own_stream)
        return ERR(ERR_CLOSED, "ask another role");
    if (++h->last_call == 0)
        h->last_call = 1;
    frame_put(&p, type, 0, h->last_call, question);
    struct err e = write_now(h, &p);
    if (!err_is(e))
        e = read_answer(h, type, ns, out_answer);
    return err_is(e) ? end(h, e) : OK;
}
