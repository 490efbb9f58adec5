/* header - see header.h. */
#include "message/header.h"

#include "message/utf8.h"

enum {
    LINE_WANTED = 78,      /* RFC 5322 section 2.1.1 */
    WORD_MAX = 900,        /* a longer one is broken, or the line would be over 998 */
    ENCODED_WORD_MAX = 75, /* RFC 2047 section 2 */
    ENCODED_LINE_MAX = 76, /* the same: of a line that has such words */
};

bool
header_take(struct str *rest, struct header_field *out)
{
    struct str s = *rest;
    size_t name_len = 0;

    while (name_len < s.len && s.ptr[name_len] > ' ' && s.ptr[name_len] <= '~' && s.ptr[name_len] != ':')
        name_len++;
    size_t colon = name_len;
    while (colon < s.len && byte_is_space(s.ptr[colon]))
        colon++;
    if (name_len == 0 || colon == s.len || s.ptr[colon] != ':')
        return false;
    size_t end = colon;
    do { /* a line that begins with a space goes on with the field */
        end += str_find_byte(str_from(s, end), '\n');
        end += end < s.len;
    } while (end < s.len && byte_is_space(s.ptr[end]));
    struct str value = str_slice(s, colon + 1, end);
    if (str_ends(value, S("\n")))
        value.len--;
    if (str_ends(value, S("\r")))
        value.len--;
    *out = (struct header_field){ str_slice(s, 0, name_len), value, str_slice(s, 0, end) };
    *rest = str_from(s, end);
    return true;
}

bool
header_is_ascii(struct str message)
{
    struct header_field field;

    while (header_take(&message, &field))
        if (!str_is_ascii(field.whole))
            return false;
    return true;
}

bool
header_end_feed(struct header_end *h, struct str piece, size_t *out_len)
{
    for (size_t i = 0; i < piece.len && !h->found; i++) {
        char c = piece.ptr[i];
        h->bytes++;
        if (c == '\n') {
            h->found = !h->mid_line;
            h->mid_line = false;
            if (h->found)
                *out_len = i + 1;
        } else {
            h->mid_line |= c != '\r' || h->after_cr; /* one CR is the line end's */
        }
        h->after_cr = c == '\r';
    }
    return h->found;
}

size_t
header_skip_enclosed(struct str s, size_t at)
{
    char open = s.ptr[at], close = open == '(' ? ')' : open == '[' ? ']' : open;
    size_t depth = 1;

    for (at++; at < s.len; at++) {
        if (s.ptr[at] == '\\')
            at++;
        else if (s.ptr[at] == close && --depth == 0)
            return at + 1;
        else if (open == '(' && s.ptr[at] == '(')
            depth++;
    }
    return s.len + 1;
}

void
header_skip_cfws(struct str *s)
{
    while (s->len) {
        if (s->ptr[0] == '(')
            *s = str_from(*s, header_skip_enclosed(*s, 0));
        else if (byte_is_white(s->ptr[0]))
            *s = str_from(*s, 1);
        else
            return;
    }
}

struct str
header_take_token(struct str *s)
{
    size_t len = 0;

    header_skip_cfws(s);
    while (len < s->len && !byte_is_space(s->ptr[len]) && !str_has_byte(S("()<>@,;:\\\"/[]?=\r\n\0"), s->ptr[len]))
        len++;
    struct str token = str_slice(*s, 0, len);
    *s = str_from(*s, len);
    return token;
}

struct str
header_take_parameter(struct str *s)
{
    struct str rest = *s;

    (void)header_take_token(&rest);
    header_skip_cfws(&rest);
    if (str_take_byte(&rest, '=')) {
        header_skip_cfws(&rest);
        if (str_starts(rest, S("\""))) {
            rest = str_from(rest, header_skip_enclosed(rest, 0));
            header_skip_cfws(&rest);
        }
    }
    size_t len = s->len - rest.len + str_find_byte(rest, ';');
    struct str parameter = str_slice(*s, 0, len);
    *s = str_from(*s, len + 1);
    return parameter;
}

static char
safe_byte(char c, bool utf8)
{
    if (byte_is_control(c))
        return ' ';
    return c & 0x80 && !utf8 ? '?' : c;
}

void
header_put(struct text *t, struct str name, struct str value, bool utf8)
{
    size_t column = name.len + 1;
    bool keep = utf8 && utf8_is_valid(value);

    text_put(t, name);
    text_put_byte(t, ':');
    value = str_trim(value);
    while (value.len) { /* word by word, each with the spaces before it */
        size_t len = 0;
        while (len < value.len && safe_byte(value.ptr[len], keep) == ' ')
            len++;
        size_t spaces = len;
        while (len < value.len && len < WORD_MAX && safe_byte(value.ptr[len], keep) != ' ')
            len++;
        if (column + (spaces ? len : len + 1) > LINE_WANTED && column > name.len + 1) {
            text_put(t, S("\r\n"));
            column = 0;
        }
        if (spaces == 0) /* the first word, or the rest of one that was broken */
            text_put_byte(t, ' ');
        for (size_t i = 0; i < len; i++)
            text_put_byte(t, safe_byte(value.ptr[i], keep));
        column += spaces ? len : len + 1;
        value = str_from(value, len);
    }
    text_put(t, S("\r\n"));
}

void
header_put_text(struct text *t, struct str name, struct str value, bool utf8)
{
    if (str_is_ascii(value) || (utf8 && utf8_is_valid(value))) {
        header_put(t, name, value, utf8);
        return;
    }
    text_put(t, name);
    text_put(t, S(": "));
    encoded_words_put(t, str_trim(value), name.len + 2);
    text_put(t, S("\r\n"));
}

/* RFC 2047 section 5 (3): what may stand as itself in an encoded word anywhere, also in a phrase. */
static bool
stands_in_word(char c)
{
    return byte_is_alnum(c) || str_has_byte(S("!*+-/"), c);
}

void
encoded_words_put(struct text *t, struct str bytes, size_t column)
{
    bool utf8 = utf8_is_valid(bytes);
    struct str open = utf8 ? S("=?utf-8?Q?") : S("=?unknown-8bit?Q?");

    do {
        size_t room = column + open.len + 20 < ENCODED_LINE_MAX ? ENCODED_LINE_MAX - column : 0;
        room = room > ENCODED_WORD_MAX ? ENCODED_WORD_MAX : room;
        if (room == 0) {
            text_put(t, S("\r\n "));
            column = 1;
            continue;
        }
        size_t used = open.len + 2;
        text_put(t, open);
        while (bytes.len) { /* a character is never cut apart: RFC 2047 section 5 */
            struct str rest = bytes;
            uint32_t point;
            if (bytes.ptr[0] == '\r' || bytes.ptr[0] == '\n') { /* folding is no part of the value: RFC 5322 section 2.2.3 */
                bytes = str_from(bytes, 1);
                continue;
            }
            if (!utf8 || !utf8_take(&rest, &point))
                rest = str_from(bytes, 1);
            size_t len = bytes.len - rest.len;
            bool plain = len == 1 && (stands_in_word(bytes.ptr[0]) || bytes.ptr[0] == ' ');
            if (used + (plain ? 1 : 3 * len) > room)
                break;
            used += plain ? 1 : 3 * len;
            for (size_t i = 0; i < len; i++) {
                if (!plain)
                    text_putf(t, "=%02X", (unsigned char)bytes.ptr[i]);
                else
                    text_put_byte(t, bytes.ptr[i] == ' ' ? '_' : bytes.ptr[i]);
            }
            bytes = rest;
        }
        text_put(t, S("?="));
        column = ENCODED_LINE_MAX; /* one word a line is enough */
    } while (bytes.len);
}

void
header_put_phrase(struct text *t, struct str phrase, bool utf8)
{
    bool plain = true;

    if (!str_is_ascii(phrase) && !(utf8 && utf8_is_valid(phrase))) {
        encoded_words_put(t, phrase, 12); /* "Reply-To: " and the like stand before it */
        return;
    }
    for (size_t i = 0; i < phrase.len; i++)
        plain = plain && (byte_is_alnum(phrase.ptr[i]) || str_has_byte(S("!#$%&'*+-/=?^_`{|}~ "), phrase.ptr[i]) ||
                          phrase.ptr[i] & 0x80);
    if (plain && phrase.len) {
        text_put(t, phrase);
        return;
    }
    text_put_byte(t, '"');
    for (size_t i = 0; i < phrase.len; i++) {
        if (phrase.ptr[i] == '"' || phrase.ptr[i] == '\\')
            text_put_byte(t, '\\');
        text_put_byte(t, safe_byte(phrase.ptr[i], true));
    }
    text_put_byte(t, '"');
}
