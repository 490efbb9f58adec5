/* utf8 - see utf8.h. */
#include "message/utf8.h"

#include "base/check.h"

bool
utf8_take(struct str *s, uint32_t *out_point)
{
    if (s->len == 0)
        return false;
    unsigned char first = (unsigned char)s->ptr[0];
    size_t more = first < 0x80 ? 0 : first < 0xe0 ? 1 : first < 0xf0 ? 2 : 3;
    static const uint32_t lowest[] = { 0, 0x80, 0x800, 0x10000 };

    if ((first >= 0x80 && first < 0xc2) || first > 0xf4 || s->len <= more)
        return false;
    uint32_t point = more == 0 ? first : (uint32_t)(first & (0x3f >> more));
    for (size_t i = 1; i <= more; i++) {
        unsigned char c = (unsigned char)s->ptr[i];
        if ((c & 0xc0) != 0x80)
            return false;
        point = point << 6 | (c & 0x3f);
    }
    if (point < lowest[more] || point > 0x10ffff || (point >= 0xd800 && point < 0xe000))
        return false;
    *s = str_from(*s, more + 1);
    *out_point = point;
    return true;
}

bool
utf8_is_valid(struct str s)
{
    uint32_t point;

    while (utf8_take(&s, &point))
        ;
    return s.len == 0;
}

void
utf8_put(struct text *t, uint32_t point)
{
    CHECK(point <= 0x10ffff);
    CHECK(point < 0xd800 || point > 0xdfff);
    if (point < 0x80) {
        text_put_byte(t, (char)point);
        return;
    }
    static const unsigned char lead[] = { 0, 0xc0, 0xe0, 0xf0 };
    int more = point < 0x800 ? 1 : point < 0x10000 ? 2 : 3;
    text_put_byte(t, (char)(lead[more] | point >> (6 * more)));
    for (int i = more; i-- > 0;)
        text_put_byte(t, (char)(0x80 | ((point >> (6 * i)) & 0x3f)));
}

bool
utf8_is_clean(struct str s)
{
    uint32_t point;

    while (utf8_take(&s, &point))
        if (utf8_is_control(point))
            return false;
    return s.len == 0;
}

void
utf8_put_visible(struct text *t, struct str s)
{
    uint32_t point;

    while (s.len) {
        if (!utf8_take(&s, &point)) {
            s = str_from(s, 1);
            point = '?';
        }
        utf8_put(t, utf8_is_control(point) ? '?' : point);
    }
}

struct str
utf8_cut(struct str s, size_t max)
{
    if (s.len <= max)
        return s;
    while (max > 0 && ((unsigned char)s.ptr[max] & 0xc0) == 0x80)
        max--;
    return str_slice(s, 0, max);
}
