/* frame - see frame.h. */
#include "link/frame.h"

void
frame_put(struct put *p, uint16_t type, uint16_t flags, uint32_t call, struct str body)
{
    put_u32(p, (uint32_t)body.len);
    put_u16(p, type);
    put_u16(p, flags);
    put_u32(p, call);
    put_raw(p, body);
}

struct err
frame_take(struct str *bytes, struct frame *out, bool *out_whole)
{
    struct take t = take_init(*bytes);

    *out_whole = false;
    if (bytes->len < LINK_HEADER)
        return OK;
    out->len = take_u32(&t);
    out->type = take_u16(&t);
    out->flags = take_u8(&t);
    out->handles = take_u8(&t);
    out->call = take_u32(&t);
    if (out->len > LIMIT_FRAME_BODY)
        return ERR(ERR_PROTOCOL, "link: a frame is too long");
    if (t.rest.len < out->len)
        return OK;
    out->body = take_raw(&t, out->len);
    *bytes = t.rest;
    *out_whole = true;
    return OK;
}

void
frame_put_hello(struct put *p)
{
    unsigned char body[80];
    struct put hello = put_init(body, sizeof body);

    put_u32(&hello, LINK_VERSION);
    put_bytes(&hello, S(POSTRIDER_VERSION));
    frame_put(p, LINK_TYPE_HELLO, 0, 0, put_str_so_far(&hello));
}

struct err
frame_check_hello(const struct frame *f)
{
    struct take t = take_init(f->body);
    uint32_t version = take_u32(&t);
    struct str build = take_bytes(&t, 64);

    if (f->type != LINK_TYPE_HELLO || !take_end(&t))
        return ERR(ERR_PROTOCOL, "link: the first message is not a hello");
    if (version != LINK_VERSION || !str_eq(build, S(POSTRIDER_VERSION)))
        return ERR(ERR_PROTOCOL, "link: the other side is of another build");
    return OK;
}
