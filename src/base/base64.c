/* base64 - see base64.h. */
#include "base/base64.h"

static const struct str digits = STR("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/");

void
base64_put(struct text *t, struct str bytes)
{
    for (size_t i = 0; i < bytes.len; i += 3) {
        size_t n = bytes.len - i < 3 ? bytes.len - i : 3;
        uint32_t bits = 0;
        char out[4] = "====";
        for (size_t j = 0; j < 3; j++)
            bits = bits << 8 | (j < n ? (unsigned char)bytes.ptr[i + j] : 0);
        for (size_t j = 0; j <= n; j++)
            out[j] = digits.ptr[(bits >> (18 - 6 * j)) & 63];
        text_put(t, str_new(out, 4));
    }
}

bool
base64_decode(struct str s, struct text *out)
{
    uint32_t bits = 0;
    size_t count = 0;
    bool sound = true;

    for (size_t i = 0; i < s.len; i++) {
        size_t value = str_find_byte(digits, s.ptr[i]);
        if (s.ptr[i] == '=')
            break;
        if (value == digits.len) {
            sound = sound && byte_is_white(s.ptr[i]);
            continue;
        }
        bits = bits << 6 | (uint32_t)value;
        if (++count % 4 != 1)
            text_put_byte(out, (char)(bits >> (6 - 2 * ((count - 1) % 4)) & 0xff));
    }
    return sound && count % 4 != 1;
}

bool
base64_decode_strictly(struct str s, struct text *out)
{
    size_t padding = str_ends(s, S("==")) ? 2 : str_ends(s, S("=")) ? 1 : 0, last = 63;

    if (s.len % 4 != 0)
        return false;
    s.len -= padding;
    for (size_t i = 0; i < s.len; i++) {
        last = str_find_byte(digits, s.ptr[i]);
        if (last == digits.len)
            return false;
    }
    /* Bits of the last digit that are of no byte. */
    if ((padding == 1 && (last & 3) != 0) || (padding == 2 && (last & 15) != 0))
        return false;
    return base64_decode(s, out) && !out->full;
}
