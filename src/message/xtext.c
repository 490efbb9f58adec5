/* xtext - see xtext.h. */
#include "message/xtext.h"

#include "base/limits.h"
#include "message/utf8.h"

static bool
is_xchar(char c)
{
    return c > ' ' && c <= '~' && c != '+' && c != '=';
}

void
xtext_put(struct text *t, struct str raw)
{
    for (size_t i = 0; i < raw.len; i++) {
        if (is_xchar(raw.ptr[i]))
            text_put_byte(t, raw.ptr[i]);
        else
            text_putf(t, "+%02X", (unsigned char)raw.ptr[i]);
    }
}

/* One character; RFC 3461 wants upper case digits, clients send either. -1: it is none. */
static int
take_xtext(struct str *s)
{
    int c = s->len ? (unsigned char)s->ptr[0] : -1;

    if (c == '+' && s->len >= 3) {
        int high = byte_hex(s->ptr[1]), low = byte_hex(s->ptr[2]);
        *s = str_from(*s, 3);
        return high < 0 || low < 0 ? -1 : high << 4 | low;
    }
    *s = str_from(*s, 1);
    return c >= 0 && is_xchar((char)c) ? c : -1;
}

bool
xtext_decode(struct str xtext, struct text *out)
{
    while (xtext.len) {
        int c = take_xtext(&xtext);
        if (c < 0)
            return false;
        text_put_byte(out, (char)c);
    }
    return !out->full;
}

static bool
stands_for_printable(struct str xtext, size_t max)
{
    size_t count = 0;

    for (; xtext.len; count++) {
        int c = take_xtext(&xtext);
        if (c < ' ' || c > '~')
            return false;
    }
    return count > 0 && count <= max;
}

bool
envid_is_valid(struct str s)
{
    return stands_for_printable(s, LIMIT_ENVID);
}

/* EmbeddedUnicodeChar of RFC 6533 section 3: "\x{HEX}", without leading zeros, and never what could stand as itself but
 * for the backslash. */
static bool
take_embedded(struct str *s, uint32_t *out_point)
{
    struct str rest = *s;
    uint32_t point = 0;
    size_t digits = 0;

    if (!str_take(&rest, S("\\x{")))
        return false;
    for (; rest.len && byte_hex(rest.ptr[0]) >= 0 && digits < 6; digits++) {
        point = point << 4 | (uint32_t)byte_hex(rest.ptr[0]);
        rest = str_from(rest, 1);
    }
    if (digits < 2 || !str_take_byte(&rest, '}') || point > 0x10ffff || (point >= 0xd800 && point < 0xe000))
        return false;
    *s = rest;
    *out_point = point;
    return true;
}

static bool
is_plain(uint32_t point)
{
    return point < 0x80 && is_xchar((char)point) && point != '\\';
}

/* utf-8-addr-xtext and, where `unitext` says so, utf-8-addr-unitext. */
static bool
take_utf8_address(struct str *s, bool unitext, uint32_t *out_point)
{
    struct str rest = *s;

    if (take_embedded(s, out_point))
        return true;
    if (!utf8_take(&rest, out_point) || (*out_point > 0x7f ? !unitext : !is_plain(*out_point)))
        return false;
    *s = rest;
    return true;
}

static bool
is_atom(struct str s)
{
    for (size_t i = 0; i < s.len; i++)
        if (!byte_is_alnum(s.ptr[i]) && !str_has_byte(S("!#$%&'*+-/=?^_`{|}~"), s.ptr[i]))
            return false;
    return s.len > 0;
}

bool
orcpt_is_valid(struct str s, bool utf8)
{
    uint32_t point;

    if (s.len > LIMIT_ORCPT)
        return false;
    struct str type = str_cut(&s, ';');
    if (!is_atom(type) || s.len == 0)
        return false;
    if (!str_eq_nocase(type, S("utf-8")))
        return stands_for_printable(s, LIMIT_ORCPT);
    while (s.len)
        if (!take_utf8_address(&s, utf8, &point) || utf8_is_control(point))
            return false;
    return true;
}

static void
put_printable(struct text *t, uint32_t point)
{
    utf8_put(t, utf8_is_control(point) ? '?' : point);
}

void
orcpt_put_decoded(struct text *t, struct str orcpt, bool utf8)
{
    uint32_t point;
    struct str type = str_cut(&orcpt, ';');

    text_put(t, is_atom(type) ? type : S("unknown"));
    text_put_byte(t, ';');
    if (!str_eq_nocase(type, S("utf-8"))) {
        while (orcpt.len) {
            int c = take_xtext(&orcpt);
            put_printable(t, c > 0 && c < 0x80 ? (uint32_t)c : '?');
        }
        return;
    }
    while (orcpt.len) {
        if (!take_utf8_address(&orcpt, true, &point)) {
            orcpt = str_from(orcpt, 1);
            text_put_byte(t, '?');
        } else if (utf8) {
            put_printable(t, point);
        } else if (is_plain(point)) {
            text_put_byte(t, (char)point);
        } else {
            text_putf(t, "\\x{%02X}", (unsigned)point);
        }
    }
}
