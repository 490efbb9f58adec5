/* wire - see wire.h. */
#include "wire.h"

#include "base/check.h"

#include <string.h>

enum { FRAME_HEADER = 12, REPLY = 1, MORE = 2, CALLS = 1 << 12 };

void
wire_listen(void *arg)
{
    struct far_link *w = arg;
    char memory[4096];
    size_t len;

    while (!err_is(stream_read(w->stream, memory, sizeof memory, FOREVER, &len)) && len > 0) {
        size_t room = sizeof w->bytes - w->len;
        w->full |= len > room;
        memcpy(w->bytes + w->len, memory, len < room ? len : room);
        w->len += len < room ? len : room;
    }
    w->ended = true;
}

void
wire_say_hello(struct far_link *w)
{
    for (int i = 0; i < 100 && w->len < FRAME_HEADER && !w->ended; i++)
        rt_sleep(w->rt, within(w->rt, MILLISECOND));
    stream_write(w->stream, str_new(w->bytes, w->len), within(w->rt, SECOND));
}

void
wire_say(struct far_link *w, struct str bytes, size_t step)
{
    while (bytes.len > 0 && !w->ended) {
        if (err_is(stream_write(w->stream, str_slice(bytes, 0, step), within(w->rt, MINUTE))))
            return;
        bytes = str_from(bytes, step);
        fiber_yield(w->rt);
    }
}

size_t
wire_check(const struct far_link *w, size_t *out_replies)
{
    struct take t = take_init(str_new(w->bytes, w->len));
    static unsigned char answered[CALLS];
    size_t frames = 0;

    memset(answered, 0, sizeof answered);
    *out_replies = 0;
    while (t.rest.len >= FRAME_HEADER) {
        uint32_t len = take_u32(&t);
        uint16_t flags = (take_u16(&t), take_u16(&t));
        uint32_t call = take_u32(&t);
        CHECK(len <= LIMIT_FRAME_BODY);
        if (len > t.rest.len)
            break;
        take_raw(&t, len);
        frames++;
        if ((flags & REPLY) && !(flags & MORE)) {
            ++*out_replies;
            if (call < CALLS)
                CHECK(answered[call] < 255 && ++answered[call]);
        }
    }
    CHECK(!t.bad);
    return frames;
}
