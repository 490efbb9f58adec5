/* test_words - see test_words.h. */
#include "message/test_words.h"

#include "base/base64.h"
#include "message/utf8.h"

enum { ENCODED_WORD_MAX = 75 }; /* RFC 2047 section 2 */

/* One encoded word off the front: "=?charset*lang?Q?text?=". */
static bool
take_encoded_word(struct str *s, struct text *out)
{
    struct str rest = *s;
    char memory[ENCODED_WORD_MAX * 4];
    struct text bytes = text_init(memory, sizeof memory);

    if (!str_take(&rest, S("=?")))
        return false;
    struct str charset = str_cut(&rest, '?'), encoding = str_cut(&rest, '?');
    size_t end = str_find(rest, S("?="));
    if (str_is_absent(rest) || end == rest.len || end > sizeof memory)
        return false;
    struct str text = str_slice(rest, 0, end);
    charset = str_cut(&charset, '*');
    if (str_eq_nocase(encoding, S("B"))) {
        base64_decode(text, &bytes);
    } else if (str_eq_nocase(encoding, S("Q"))) {
        for (size_t i = 0; i < text.len; i++) {
            bool escape = text.ptr[i] == '=' && i + 2 < text.len && byte_hex(text.ptr[i + 1]) >= 0 &&
                          byte_hex(text.ptr[i + 2]) >= 0;
            if (escape)
                text_put_byte(&bytes, (char)(byte_hex(text.ptr[i + 1]) << 4 | byte_hex(text.ptr[i + 2])));
            else
                text_put_byte(&bytes, text.ptr[i] == '_' ? ' ' : text.ptr[i]);
            i += escape ? 2 : 0;
        }
    } else {
        return false;
    }
    struct str decoded = text_str(&bytes);
    bool latin1 = str_eq_nocase(charset, S("iso-8859-1"));
    bool utf8 = str_eq_nocase(charset, S("utf-8")) || str_eq_nocase(charset, S("us-ascii"));
    if (!latin1 && !(utf8 && utf8_is_valid(decoded)))
        return false;
    for (size_t i = 0; i < decoded.len; i++) {
        char c = decoded.ptr[i];
        if (byte_is_control(c))
            text_put_byte(out, ' ');
        else if (latin1)
            utf8_put(out, (unsigned char)c);
        else
            text_put_byte(out, c);
    }
    *s = str_from(rest, end + 2);
    return true;
}

struct str
test_words_decode(struct str s, struct arena *arena)
{
    struct text out = text_init(arena_alloc(arena, 2 * s.len + 1), 2 * s.len + 1);
    bool after_word = false;

    while (s.len) {
        if (after_word) { /* spaces between two encoded words are not shown: RFC 2047 section 6.2 */
            struct str ahead = s;
            while (ahead.len && byte_is_white(ahead.ptr[0]))
                ahead = str_from(ahead, 1);
            if (ahead.len < s.len && take_encoded_word(&ahead, &out)) {
                s = ahead;
                continue;
            }
        }
        after_word = take_encoded_word(&s, &out);
        if (after_word)
            continue;
        text_put_byte(&out, s.ptr[0]);
        s = str_from(s, 1);
    }
    return text_str(&out);
}
