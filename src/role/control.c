/* control - see control.h. */
#include "role/control.h"

void
control_put_setup(struct put *p, const struct control_setup *s)
{
    put_u8(p, (uint8_t)s->kind);
    put_u32(p, s->index);
    put_u32(p, s->generation);
    put_u32(p, s->user_id);
}

bool
control_take_setup(struct take *t, struct control_setup *out)
{
    struct control_setup s = { .kind = take_enum(t, ROLE_KINDS - 1) };

    s.index = take_u32(t);
    s.generation = take_u32(t);
    s.user_id = take_u32(t);
    if (!take_end(t))
        return false;
    *out = s;
    return true;
}
