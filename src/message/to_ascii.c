/* to_ascii - see to_ascii.h. */
#include "message/to_ascii.h"

#include "message/header.h"
#include "message/utf8.h"

enum { FIELD_LINE = 76 };

void
to_ascii_bytes(struct text *out, struct str bytes, char substitute)
{
    for (size_t i = 0; i < bytes.len; i++)
        text_put_byte(out, bytes.ptr[i] & 0x80 ? substitute : bytes.ptr[i]);
}

/* What stands for an 8-bit byte in a field. A "?" would end a word of those that say what a part is: "message/rfc822" with such a
 * byte behind it would become a message, with parts that nobody saw before. */
char
to_ascii_substitute(struct str field)
{
    return str_starts_nocase(field, S("Content-")) ? '_' : '?';
}

/* Writes a field's value word by word, folding as needed. */
struct folder {
    struct text *out;
    size_t column;
    bool space;   /* one is due before the next word */
    bool encoded; /* the word before is an encoded one: white space between two of these is not shown (RFC 2047 section 6.2) */
    char substitute;
};

static bool
is_encoded_word(struct str word)
{
    return word.len > 4 && str_starts(word, S("=?")) && str_ends(word, S("?="));
}

static void
fold_put(struct folder *f, struct str word)
{
    f->encoded = is_encoded_word(word);
    if (f->space) {
        bool fits = f->column + 1 + word.len <= FIELD_LINE;
        text_put(f->out, fits ? S(" ") : S("\r\n "));
        f->column = fits ? f->column + 1 : 1;
        f->space = false;
    }
    to_ascii_bytes(f->out, word, f->substitute);
    f->column += word.len;
}

/* Encoded words stand apart from what is beside them: RFC 2047 section 5. */
static void
fold_put_encoded(struct folder *f, struct str bytes)
{
    if (f->space) {
        text_put_byte(f->out, ' ');
        f->column++;
    }
    encoded_words_put(f->out, bytes, f->column);
    f->column = FIELD_LINE; /* not known: the next word begins a line */
    f->space = true;
    f->encoded = true;
}

/* Text that has no structure: runs of words with 8-bit bytes become encoded words, with the white space between these and the
 * encoded words that were there. */
static void
convert_text(struct folder *f, struct str value)
{
    struct str run = S(""); /* words that wait for being encoded together */

    while (value.len) {
        size_t len = 0;
        while (len < value.len && byte_is_white(value.ptr[len]))
            len++;
        struct str white = str_slice(value, 0, len);
        bool space = len > 0;
        value = str_from(value, len);
        for (len = 0; len < value.len && !byte_is_white(value.ptr[len]);)
            len++;
        struct str word = str_slice(value, 0, len);
        value = str_from(value, len);
        if (str_is_ascii(word)) {
            if (run.len && is_encoded_word(word))
                run.len = (size_t)(word.ptr - run.ptr);
            if (run.len)
                fold_put_encoded(f, run);
            run = S("");
            f->space |= space;
            if (word.len)
                fold_put(f, word);
        } else if (run.len) {
            run.len = (size_t)(word.ptr + word.len - run.ptr);
        } else {
            f->space |= space;
            run = f->encoded ? str_new(white.ptr, white.len + word.len) : word;
        }
    }
    if (run.len)
        fold_put_encoded(f, run);
}

void
to_ascii_text(struct text *out, struct str text, size_t column)
{
    struct folder f = { .out = out, .column = column, .substitute = '?' };

    convert_text(&f, text);
}

/* A quoted string or comment at the front of *s, without its delimiters; an open end is taken for closed. */
static struct str
take_delimited(struct str *s)
{
    size_t end = header_skip_enclosed(*s, 0);
    struct str inside = str_slice(*s, 1, end - 1);

    *s = str_from(*s, end);
    return inside;
}

/* Between a space before and one behind, if it is to have them: there is room where the quotation marks were. */
static struct str
without_quoted_pairs(struct str s, bool before, bool behind, char *room)
{
    size_t len = 0;

    if (before)
        room[len++] = ' ';
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] == '\\' && i + 1 < s.len)
            i++;
        if (s.ptr[i] != '\r' && s.ptr[i] != '\n')
            room[len++] = byte_is_white(s.ptr[i]) ? ' ' : s.ptr[i];
    }
    if (behind)
        room[len++] = ' ';
    return str_new(room, len);
}

/* How much white space is behind a word of a name and before an encoded one: it goes into what is made of that word. */
static size_t
white_before_encoded(struct str behind)
{
    size_t white = 0;

    while (white < behind.len && byte_is_white(behind.ptr[white]))
        white++;
    return str_starts(str_from(behind, white), S("=?")) ? white : 0;
}

/* From, To and their kind: names and comments are encoded, addresses are not (RFC 2047 section 5). */
static void
convert_addresses(struct folder *f, struct str value, char *room)
{
    while (value.len) {
        char first = value.ptr[0];
        struct str before = value;
        bool apart = f->encoded && byte_is_white(before.ptr[-1]); /* from the encoded word before it */
        if (byte_is_white(first)) {
            value = str_from(value, 1);
            f->space = true;
        } else if (first == '"') {
            struct str inside = take_delimited(&value);
            if (str_is_ascii(inside))
                fold_put(f, str_slice(before, 0, before.len - value.len));
            else
                fold_put_encoded(f, without_quoted_pairs(inside, apart, white_before_encoded(value) > 0, room));
        } else if (first == '(') {
            struct str inside = take_delimited(&value);
            f->space = true;
            if (str_is_ascii(inside)) {
                fold_put(f, str_slice(before, 0, before.len - value.len));
            } else {
                fold_put(f, S("("));
                fold_put_encoded(f, without_quoted_pairs(inside, false, false, room));
                f->space = false;
                fold_put(f, S(")"));
            }
        } else if (first == '<') {
            size_t end = str_find_byte(value, '>');
            fold_put(f, str_slice(value, 0, end + 1));
            value = str_from(value, end + 1);
        } else if (str_has_byte(S(",;:"), first)) {
            f->space = false;
            fold_put(f, str_slice(value, 0, 1));
            value = str_from(value, 1);
        } else {
            size_t len = 1;
            while (len < value.len && !byte_is_white(value.ptr[len]) && !str_has_byte(S("\"(<,;:"), value.ptr[len]))
                len++;
            struct str word = str_slice(value, 0, len);
            value = str_from(value, len);
            if (str_is_ascii(word) || str_has_byte(word, '@'))
                fold_put(f, word);
            else
                fold_put_encoded(f, str_new(word.ptr - apart, apart + word.len + white_before_encoded(value)));
        }
    }
}

/* name*0*=utf-8''%C3%A4; RFC 2231 sections 3 and 4. */
static void
convert_parameter(struct folder *f, struct str name, struct str value)
{
    bool utf8 = utf8_is_valid(value);

    for (size_t part = 0; part == 0 || value.len; part++) {
        char memory[160];
        struct text t = text_init(memory, sizeof memory);
        text_put(&t, str_slice(name, 0, 40));
        text_putf(&t, "*%zu*=%s", part, part ? "" : utf8 ? "utf-8''" : "unknown-8bit''");
        while (value.len && t.len < FIELD_LINE - 4) {
            char byte = value.ptr[0];
            if (byte == '\r' || byte == '\n') /* where the field was folded */
                ;
            else if (byte_is_alnum(byte) || str_has_byte(S("._-"), byte))
                text_put_byte(&t, byte);
            else
                text_putf(&t, "%%%02X", (unsigned char)byte);
            value = str_from(value, 1);
        }
        if (value.len)
            text_put_byte(&t, ';');
        f->space = true;
        fold_put(f, text_str(&t));
    }
}

static bool
is_parameter_name(struct str s)
{
    bool is_token = s.len > 0;

    for (size_t i = 0; i < s.len; i++)
        is_token &= s.ptr[i] > ' ' && s.ptr[i] <= '~' && !str_has_byte(S("()<>@,;:\\\"/[]?=*"), s.ptr[i]);
    return is_token;
}

/* Content-Type and Content-Disposition: parameters whose value has 8-bit bytes. All else keeps its form, so that nobody finds
 * another type or boundary than before. */
static void
convert_parameters(struct folder *f, struct str value, char *room)
{
    while (value.len) {
        size_t len = value.len;
        struct str item = header_take_parameter(&value);
        bool more = item.len < len;
        item = str_trim(item);
        struct str rest = item, name = str_trim(str_cut(&rest, '=')), content = str_trim(rest);
        rest = S("");
        if (content.len && content.ptr[0] == '"') {
            struct str inside = take_delimited(&content);
            rest = str_trim(content); /* a comment, or nothing that belongs here */
            content = str_is_ascii(inside) ? inside : without_quoted_pairs(inside, false, false, room);
        }
        f->space = true;
        if (str_is_ascii(content) || !is_parameter_name(name)) {
            fold_put(f, item);
        } else {
            convert_parameter(f, name, content);
            f->space = true;
            if (rest.len)
                fold_put(f, rest);
        }
        if (more)
            text_put_byte(f->out, ';');
    }
}

void
to_ascii_field(struct text *out, struct str bytes, char *room)
{
    static const struct str address_fields[] = {
        STR("From"), STR("Sender"), STR("Reply-To"), STR("To"), STR("Cc"), STR("Bcc"), STR("Return-Path"),
        STR("Resent-From"), STR("Resent-Sender"), STR("Resent-To"), STR("Resent-Cc"), STR("Resent-Bcc"),
        STR("Disposition-Notification-To"), STR("Errors-To"), STR("Received"),
    };
    struct str rest = bytes;
    struct header_field field;

    /* What begins like a boundary may become one only as mime.h foresees: byte by byte. */
    if (!header_take(&rest, &field) || rest.len > 0 || str_starts(bytes, S("--"))) {
        to_ascii_bytes(out, bytes, to_ascii_substitute(bytes));
        return;
    }
    struct folder f = { .out = out, .column = field.name.len + 1, .space = true, .substitute = to_ascii_substitute(bytes) };
    struct str value = str_trim(field.value);
    bool addresses = false;
    for (size_t i = 0; i < sizeof address_fields / sizeof *address_fields; i++)
        addresses |= str_eq_nocase(field.name, address_fields[i]);
    text_put(out, field.name);
    text_put_byte(out, ':');
    if (addresses)
        convert_addresses(&f, value, room);
    else if (str_eq_nocase(field.name, S("Content-Type")) || str_eq_nocase(field.name, S("Content-Disposition")))
        convert_parameters(&f, value, room);
    else if (str_eq_nocase(field.name, S("Content-Transfer-Encoding"))) /* one that nobody knows, and it stays so */
        fold_put(&f, value);
    else
        convert_text(&f, value);
    text_put(out, S("\r\n"));
    if (out->full) { /* hostile beyond use */
        out->len = 0;
        out->full = false;
        to_ascii_bytes(out, bytes, to_ascii_substitute(bytes));
    }
}
