/* json - see json.h. */
#include "base/json.h"

/* Length of the well-formed UTF-8 sequence at s.ptr[at], or 0 (RFC 3629 section 4). */
static size_t
utf8_at(struct str s, size_t at)
{
    const unsigned char *p = (const unsigned char *)s.ptr + at;
    size_t left = s.len - at, len = p[0] < 0x80 ? 1 : p[0] >= 0xc2 && p[0] < 0xe0 ? 2 : (p[0] & 0xf0) == 0xe0 ? 3
                                    : p[0] >= 0xf0 && p[0] < 0xf5 ? 4 : 0;

    if (len == 0 || len > left)
        return 0;
    for (size_t i = 1; i < len; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) || (p[0] == 0xf0 && p[1] < 0x90) ||
        (p[0] == 0xf4 && p[1] > 0x8f))
        return 0;
    return len;
}

void
json_put_inside(struct text *out, struct str s)
{
    for (size_t at = 0; at < s.len;) {
        unsigned char c = (unsigned char)s.ptr[at];
        size_t len = utf8_at(s, at);
        if (c == '"' || c == '\\')
            text_putf(out, "\\%c", c);
        else if (c < 0x20 || c == 0x7f)
            text_putf(out, "\\u%04x", c);
        else if (len == 2 && c == 0xc2 && (unsigned char)s.ptr[at + 1] < 0xa0) /* U+009B steers a terminal as ESC does */
            text_putf(out, "\\u%04x", (unsigned char)s.ptr[at + 1]);
        else if (len == 0)
            text_put(out, S("\xef\xbf\xbd"));
        else
            text_put(out, str_slice(s, at, at + len));
        at += len ? len : 1;
    }
}

void
json_put_str(struct text *out, struct str s)
{
    if (str_is_absent(s)) {
        text_put(out, S("null"));
        return;
    }
    text_put_byte(out, '"');
    json_put_inside(out, s);
    text_put_byte(out, '"');
}

void
json_put_name(struct text *out, const char *name)
{
    char last = out->len ? out->ptr[out->len - 1] : '{';

    if (last != '{' && last != '[')
        text_put_byte(out, ',');
    json_put_str(out, str_from_cstr(name));
    text_put_byte(out, ':');
}

void
json_put_field(struct text *out, const char *name, struct str value)
{
    json_put_name(out, name);
    json_put_str(out, value);
}

void
json_put_number(struct text *out, const char *name, int64_t value)
{
    json_put_name(out, name);
    text_put_i64(out, value);
}

void
json_put_bool(struct text *out, const char *name, bool value)
{
    json_put_name(out, name);
    text_put(out, value ? S("true") : S("false"));
}
