/* tls_required - see tls_required.h. */
#include "message/tls_required.h"

static void
judge(struct tls_required *r)
{
    struct str value = str_new(r->field, r->len), name = str_cut(&value, ':');

    if (r->len < sizeof r->field && !str_is_absent(value) && str_eq_nocase(str_trim_end(name), S("TLS-Required")) &&
        str_eq_nocase(str_trim(value), S("No")))
        r->no = true;
    r->len = 0;
}

void
tls_required_scan(struct tls_required *r, struct str bytes)
{
    for (size_t i = 0; i < bytes.len && !r->ended; i++) {
        char byte = bytes.ptr[i];
        if (byte == '\r')
            continue;
        if (!r->in_line && !byte_is_space(byte)) /* else the field goes on: RFC 5322 section 2.2.3 */
            judge(r);
        r->ended = byte == '\n' && !r->in_line;
        r->in_line = byte != '\n';
        if (byte != '\n' && r->len < sizeof r->field)
            r->field[r->len++] = byte;
    }
}
