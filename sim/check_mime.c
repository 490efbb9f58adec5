/* check_mime - see check_mime.h: both are written out decoded, and compared. */
#include "sim/check_mime.h"

#include "base/check.h"

enum encoding { ENCODING_NONE, ENCODING_QUOTED, ENCODING_BASE64, ENCODING_UNKNOWN };

static struct str
take_line(struct str *rest)
{
    struct str line = str_slice(*rest, 0, str_find_byte(*rest, '\n') + 1);

    *rest = str_from(*rest, line.len);
    return line;
}

static enum encoding
encoding_of(struct str name)
{
    name = str_trim(name);
    if (str_eq_nocase(name, S("quoted-printable")))
        return ENCODING_QUOTED;
    if (str_eq_nocase(name, S("base64")))
        return ENCODING_BASE64;
    return str_eq_nocase(name, S("8bit")) || str_eq_nocase(name, S("7bit")) ? ENCODING_NONE : ENCODING_UNKNOWN;
}

/* RFC 2045, section 6.7. */
static void
put_quoted(struct text *out, struct str body)
{
    for (size_t i = 0; i < body.len; i++) {
        if (body.ptr[i] != '=') {
            text_put_byte(out, body.ptr[i]);
        } else if (str_starts(str_from(body, i), S("=\r\n"))) {
            i += 2;
        } else if (i + 2 < body.len && byte_hex(body.ptr[i + 1]) >= 0 && byte_hex(body.ptr[i + 2]) >= 0) {
            text_put_byte(out, (char)(byte_hex(body.ptr[i + 1]) << 4 | byte_hex(body.ptr[i + 2])));
            i += 2;
        } else {
            text_put(out, S("(not quoted-printable)"));
        }
    }
}

/* RFC 2045, section 6.8. */
static void
put_base64(struct text *out, struct str body)
{
    static const struct str alphabet = STR("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/");
    unsigned bits = 0, count = 0;

    for (size_t i = 0; i < body.len; i++) {
        size_t value = str_find_byte(alphabet, body.ptr[i]);
        if (value == alphabet.len)
            continue; /* an end of a line, or the padding */
        bits = bits << 6 | (unsigned)value;
        count += 6;
        if (count >= 8) {
            count -= 8;
            text_put_byte(out, (char)(bits >> count & 255));
        }
    }
}

static void put_part(struct text *out, struct str part);

static void
put_multipart(struct text *out, struct str body, struct str boundary)
{
    struct str part = str_slice(body, 0, 0);
    bool inside = false;

    while (body.len) {
        struct str line = take_line(&body), rest = line;
        bool is_boundary = str_take(&rest, S("--")) && str_take(&rest, boundary);
        if (is_boundary && inside)
            put_part(out, str_slice(part, 0, part.len > 2 ? part.len - 2 : 0)); /* the CRLF before it is the boundary's */
        if (is_boundary) {
            text_put(out, line);
            inside = !str_starts(rest, S("--"));
            part = str_slice(body, 0, 0);
        } else {
            part.len += line.len;
        }
    }
}

static void
put_part(struct text *out, struct str part)
{
    enum encoding encoding = ENCODING_NONE;
    struct str line, boundary = { NULL, 0 };

    while (part.len && (line = take_line(&part), str_trim(line).len)) {
        struct str value = line;
        if (str_take_nocase(&value, S("Content-Transfer-Encoding:"))) {
            encoding = encoding_of(value);
            continue;
        }
        text_put(out, line);
        if (str_take_nocase(&value, S("Content-Type: multipart/mixed; boundary=\""))) {
            boundary = str_cut(&value, '"');
        }
    }
    text_put(out, S("\r\n"));
    if (!str_is_absent(boundary))
        put_multipart(out, part, boundary);
    else if (encoding == ENCODING_QUOTED)
        put_quoted(out, part);
    else if (encoding == ENCODING_BASE64)
        put_base64(out, part);
    else
        text_put(out, encoding == ENCODING_NONE ? part : S("(an unknown encoding)"));
}

bool
mime_is_same(struct mem *mem, struct str sent, struct str came)
{
    size_t cap = sent.len + came.len + 4096;
    char *memory = mem_buffer(mem, 2 * cap);
    struct text a = text_init(memory, cap), b = text_init(memory + cap, cap);

    put_part(&a, sent);
    put_part(&b, came);
    bool same = !a.full && !b.full && str_eq(text_str(&a), text_str(&b));
    mem_free(mem, memory, 2 * cap);
    return same;
}
