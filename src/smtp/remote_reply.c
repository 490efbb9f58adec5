/*
 * remote_reply - reading a server's replies line by line. Nothing here waits or allocates but reply_reader_keep().
 */
#include "smtp/remote_reply.h"

#include "base/check.h"

void
reply_reader_start(struct reply_reader *r)
{
    r->code = 0;
    r->lines = 0;
    r->enhanced = S("");
    r->words = text_init(r->memory, sizeof r->memory);
}

static bool
code_take(struct str *line, uint16_t *out_code)
{
    if (line->len < 3)
        return false;
    for (size_t i = 0; i < 3; i++)
        if (!byte_is_digit(line->ptr[i]))
            return false;
    if (line->ptr[0] < '2' || line->ptr[0] > '5') /* 1yz is not for SMTP: RFC 5321 section 4.2.1 */
        return false;
    *out_code = (uint16_t)((line->ptr[0] - '0') * 100 + (line->ptr[1] - '0') * 10 + (line->ptr[2] - '0'));
    *line = str_from(*line, 3);
    return true;
}

bool
enhanced_take(struct str *s, struct str *out_enhanced)
{
    struct str rest = *s;
    uint64_t number;

    if (rest.len < 5 || (rest.ptr[0] != '2' && rest.ptr[0] != '4' && rest.ptr[0] != '5'))
        return false;
    rest = str_from(rest, 1);
    for (int part = 0; part < 2; part++) {
        size_t before = rest.len;

        if (!str_take_byte(&rest, '.') || !str_take_u64(&rest, &number) || before - rest.len > 4)
            return false;
    }
    if (rest.len > 0 && rest.ptr[0] != ' ')
        return false;
    *out_enhanced = str_slice(*s, 0, s->len - rest.len);
    *s = str_from(rest, 1);
    return true;
}

static void
put_words(struct text *t, struct str words)
{
    for (size_t i = 0; i < words.len; i++) {
        unsigned char c = (unsigned char)words.ptr[i];

        text_put_byte(t, c == '\t' ? ' ' : c < 0x20 || c > 0x7e ? '?' : (char)c);
    }
}

enum reply_progress
reply_reader_take(struct reply_reader *r, struct str line, struct str *out_words)
{
    uint16_t code;
    bool last = true;

    CHECK(r->words.ptr == r->memory); /* reply_reader_start() came before */
    if (!code_take(&line, &code) || (r->lines > 0 && code != r->code) || r->lines == LIMIT_REPLY_LINES)
        return REPLY_MALFORMED;
    if (str_take_byte(&line, '-'))
        last = false;
    else if (line.len > 0 && !str_take_byte(&line, ' '))
        return REPLY_MALFORMED;
    *out_words = line;

    struct str words = line, enhanced;
    bool has_enhanced = enhanced_take(&words, &enhanced) && enhanced.ptr[0] == (char)('0' + code / 100);
    if (r->lines++ == 0) {
        r->code = code;
        text_put_u64(&r->words, code);
        text_put_byte(&r->words, ' ');
        if (has_enhanced) {
            r->enhanced = str_new(r->memory + r->words.len, enhanced.len);
            text_put(&r->words, enhanced);
            if (words.len > 0)
                text_put_byte(&r->words, ' ');
        }
    } else if (words.len > 0 || line.len > 0) {
        text_put_byte(&r->words, ' ');
    }
    put_words(&r->words,
              has_enhanced ? words : line); /* RFC 2034 repeats the enhanced code on every line: once will do */
    return last ? REPLY_WHOLE : REPLY_MORE;
}

struct remote_reply
reply_reader_keep(const struct reply_reader *r, struct arena *arena)
{
    struct str text = arena_keep(arena, str_trim_end(text_str(&r->words)));
    struct remote_reply reply = { .code = r->code, .text = text };

    if (r->enhanced.len > 0)
        reply.enhanced = str_slice(text, 4, 4 + r->enhanced.len);
    else
        reply.enhanced = S("");
    return reply;
}
