/* input - see input.h. */
#include "smtp/input.h"

#include "base/check.h"

#include <string.h>

void
input_init(struct input *in, struct wire *wire, struct mem *mem)
{
    *in = (struct input){ .wire = wire, .mem = mem };
}

static void
give_back(struct input *in)
{
    mem_free(in->mem, in->own_buffer, in->cap);
    in->own_buffer = NULL;
    in->cap = in->begin = in->end = 0;
}

void
input_done(struct input *in)
{
    give_back(in);
}

void
input_take(struct input *in, size_t len)
{
    CHECK(len <= in->end - in->begin);
    in->begin += len;
    in->searched = 0;
    if (in->begin == in->end)
        in->begin = in->end = 0;
}

static void
make_room(struct input *in)
{
    if (!in->own_buffer) {
        in->cap = INPUT_LINES;
        in->own_buffer = mem_buffer(in->mem, in->cap);
    }
    if (in->end == in->cap && in->begin > 0) {
        memmove(in->own_buffer, in->own_buffer + in->begin, in->end - in->begin);
        in->end -= in->begin;
        in->begin = 0;
    }
    CHECK(in->end < in->cap);
}

struct err
input_fill(struct input *in, int64_t until)
{
    size_t got;

    make_room(in);
    TRY(wire_read(in->wire, in->own_buffer + in->end, in->cap - in->end, until, &got));
    if (got == 0)
        return ERR(ERR_CLOSED, "read from the client");
    in->end += got;
    in->bytes += got;
    return OK;
}

struct err
input_fill_now(struct input *in, bool *out_any)
{
    size_t got = 0;

    if (in->begin == in->end) {
        make_room(in);
        TRY(wire_read_now(in->wire, in->own_buffer + in->end, in->cap - in->end, &got));
        in->end += got;
        in->bytes += got;
    }
    *out_any = in->end > in->begin;
    return OK;
}

struct err
input_rest(struct input *in, int64_t until)
{
    if (in->begin == in->end)
        give_back(in);
    return wire_wait_readable(in->wire, until);
}

void
input_want_blocks(struct input *in)
{
    if (in->cap >= INPUT_BLOCKS)
        return;
    struct str here = input_here(in);
    char *larger = mem_buffer(in->mem, INPUT_BLOCKS);
    memcpy(larger, here.ptr, here.len);
    if (in->own_buffer)
        explicit_bzero(in->own_buffer, in->end); /* it may be a password; and is short */
    mem_free(in->mem, in->own_buffer, in->cap);
    in->own_buffer = larger;
    in->cap = INPUT_BLOCKS;
    in->begin = 0;
    in->end = here.len;
}

void
input_wipe(struct input *in)
{
    if (!in->own_buffer)
        return;
    if (in->begin == in->end)
        in->begin = in->end = 0;
    explicit_bzero(in->own_buffer, in->begin);
    explicit_bzero(in->own_buffer + in->end, in->cap - in->end);
}

/* The rest of a line that was too long. A CRLF may be cut anywhere; an LF that stands alone is one here too. */
static enum input_line
skip_line(struct input *in, struct str here)
{
    size_t lf = str_find_byte(here, '\n');

    if (lf == here.len) {
        if (here.len > 0)
            in->after_cr = here.ptr[here.len - 1] == '\r';
        input_take(in, here.len);
        return INPUT_LINE_MORE;
    }
    bool crlf = lf > 0 ? here.ptr[lf - 1] == '\r' : in->after_cr;
    in->skipping = false;
    input_take(in, lf + 1);
    return crlf ? INPUT_LINE_TOO_LONG : INPUT_LINE_BARE_LF;
}

enum input_line
input_line(struct input *in, size_t max, struct str *out_line)
{
    struct str here = input_here(in);

    CHECK(max < (in->cap ? in->cap : INPUT_LINES));
    if (in->skipping)
        return skip_line(in, here);
    size_t lf = in->searched + str_find_byte(str_from(here, in->searched), '\n');
    if (lf == here.len && here.len < max) {
        in->searched = here.len;
        return INPUT_LINE_MORE;
    }
    if (lf + 1 > max) {
        in->skipping = true;
        in->after_cr = false;
        return skip_line(in, here);
    }
    if (lf == 0 || here.ptr[lf - 1] != '\r')
        return INPUT_LINE_BARE_LF;
    /* The line stays readable: taking moves no bytes. */
    *out_line = str_slice(here, 0, lf - 1);
    input_take(in, lf + 1);
    return INPUT_LINE;
}
