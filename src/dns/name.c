/* name - see name.h. */
#include "dns/name.h"

#include <string.h>

enum { JUMPS_MAX = 32 }; /* pointers in one name: more is somebody who wants to keep us busy */

static bool
is_name_byte(char c)
{
    return byte_is_alnum(c) || c == '-' || c == '_';
}

struct str
name_without_dot(struct str s)
{
    if (s.len > 0 && s.ptr[s.len - 1] == '.')
        s.len--;
    return s;
}

bool
name_is_valid(struct str s)
{
    size_t label = 0;

    s = name_without_dot(s);
    if (s.len == 0 || s.len > NAME_TEXT_MAX)
        return false;
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] == '.') {
            if (label == 0)
                return false;
            label = 0;
        } else if (!is_name_byte(s.ptr[i]) || ++label > NAME_LABEL_MAX) {
            return false;
        }
    }
    return label > 0;
}

bool
name_eq(struct str a, struct str b)
{
    return str_eq_nocase(name_without_dot(a), name_without_dot(b));
}

bool
name_to_wire(struct str s, struct name_wire *out)
{
    bool is_root = str_eq(s, S("."));

    if (!is_root && !name_is_valid(s))
        return false;
    s = name_without_dot(s);
    out->len = 0;
    while (s.len > 0) {
        struct str label = str_cut(&s, '.');
        out->bytes[out->len++] = (unsigned char)label.len;
        for (size_t i = 0; i < label.len; i++)
            out->bytes[out->len++] = (unsigned char)byte_lower(label.ptr[i]);
    }
    out->bytes[out->len++] = 0;
    return true;
}

bool
name_put_text(struct text *t, const struct name_wire *name)
{
    if (name->len == 1)
        text_put_byte(t, '.');
    for (size_t at = 0; name->bytes[at] != 0;) {
        size_t len = name->bytes[at++];
        for (size_t end = at + len; at < end; at++) {
            if (!is_name_byte((char)name->bytes[at]))
                return false;
            text_put_byte(t, (char)name->bytes[at]);
        }
        if (name->bytes[at] != 0)
            text_put_byte(t, '.');
    }
    return true;
}

bool
name_take(struct str packet, size_t *at, struct name_wire *out)
{
    size_t pos = *at, behind = 0, lowest = *at, jumps = 0;

    out->len = 0;
    for (;;) {
        if (pos >= packet.len)
            return false;
        unsigned char c = (unsigned char)packet.ptr[pos];
        if (c >= 0xc0) {
            if (pos + 1 >= packet.len)
                return false;
            size_t target = (size_t)(c & 0x3f) << 8 | (unsigned char)packet.ptr[pos + 1];
            if (target >= lowest || ++jumps > JUMPS_MAX)
                return false;
            if (behind == 0)
                behind = pos + 2;
            pos = lowest = target;
            continue;
        }
        /* 0x40 and 0x80 are the label types that RFC 6891 section 5 gave up. */
        if (c > NAME_LABEL_MAX || (size_t)c + 1 > packet.len - pos || out->len + c + 1 > NAME_WIRE_MAX)
            return false;
        out->bytes[out->len++] = c;
        for (size_t i = 1; i <= c; i++)
            out->bytes[out->len++] = (unsigned char)byte_lower(packet.ptr[pos + i]);
        pos += (size_t)c + 1;
        if (c == 0)
            break;
    }
    *at = behind ? behind : pos;
    return true;
}

void
name_put_reverse(struct text *t, const struct address *address)
{
    struct address a = address_unmap(*address);

    if (a.family == ADDRESS_IPV4) {
        for (size_t i = 4; i-- > 0;) {
            text_put_u64(t, a.ip[i]);
            text_put_byte(t, '.');
        }
        text_put(t, S("in-addr.arpa"));
    } else if (a.family == ADDRESS_IPV6) {
        for (size_t i = 16; i-- > 0;)
            text_putf(t, "%x.%x.", a.ip[i] & 15u, (unsigned)a.ip[i] >> 4);
        text_put(t, S("ip6.arpa"));
    }
}
