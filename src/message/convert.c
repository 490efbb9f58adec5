/*
 * convert - see convert.h.
 *
 * The pieces that mime.h gives:
 *
 *     MIME_FIELD       field_piece()       kept until the field is whole, then end_field(); one too long: copy_field()
 *     MIME_HEADER_END  header_end_piece()  the fields that we give, before the empty line
 *     MIME_BODY        body_piece()        copied, or line by line, or by add_byte[]; end_body() when another place comes
 *     MIME_OUTER       copy_piece()
 *
 * False from any of them: again with what is left of the piece, when `pending` went out or `out` has room.
 *
 * What is put out never makes a boundary where there was none: no line that we encode begins with "--", and base64 has no such
 * character.
 */
#include "message/convert.h"

#include "base/base64.h"
#include "base/check.h"
#include "message/to_ascii.h"

#include <string.h>

enum {
    FIELD_MAX = 4 << 10,          /* a longer header field has its 8-bit bytes replaced, like an address */
    FIELD_OUT_MAX = 16 * FIELD_MAX,
    QP_WIDTH = 75,                /* and the "=" of a soft line break: RFC 2045 section 6.7 (5) */
    BASE64_LINE = 57,             /* bytes that make 76 characters */
    LINE_MAX = 900,               /* where lines that were encoded already are broken, if they are too long */
};

/* What becomes of an entity. */
enum action {
    ACTION_PASS,
    ACTION_LABEL,      /* only its label is wrong where it goes */
    ACTION_QP,
    ACTION_BASE64,
    ACTION_FIELDS,      /* each line like a header field; RFC 3464 section 2.1.1 has encoded words in comments */
    ACTION_MEND_QP,    /* said to be quoted-printable, with bytes that are not */
    ACTION_MEND_BASE64,
};

struct convert {
    struct mime *mime;
    struct arena *arena;
    const struct mime_needs *needs;
    enum convert_to to;
    struct mime_piece piece;   /* what is left of it */
    bool in_piece;
    struct str pending;        /* goes out before anything else */
    struct text made;          /* where pending lies when it was made here */

    char *field;               /* the header field at hand, as it may come in pieces; then room to unquote */
    size_t field_len;
    bool field_spilled;        /* longer than FIELD_MAX: it goes on as it comes */
    bool field_dropped;        /* such a one, in whose place there is another */
    bool field_cr;             /* such a one: a CR is held back, an LF may follow */
    char field_substitute;     /* such a one: for its 8-bit bytes */
    struct mime *types[2];     /* to see whether a converted field says the same; made when they are needed */
    bool mid_line;             /* of the header, what went out last ends no line: the message may end so */

    bool in_body;              /* of an entity with this action */
    enum action body_action;
    size_t column;             /* of the line that we write; base64: not 0 if there was one before */
    char space;                /* a space or tab held back: encoded if the line ends behind it */
    uint8_t escape;            /* digits of an escape that must still come */
    bool dash;                 /* the line that we write began with "-" */
    unsigned char group[BASE64_LINE];
    size_t group_len;
};

static unsigned
needs_of(const struct mime_needs *n, uint32_t entity)
{
    return n->entities[entity < n->count ? entity : n->count - 1];
}

static enum mime_class
class_of(unsigned needs)
{
    return (enum mime_class)(needs >> MIME_CLASS_SHIFT & 7);
}

static enum mime_encoding
encoding_of(unsigned needs)
{
    return (enum mime_encoding)(needs >> MIME_ENCODING_SHIFT & 7);
}

static bool
must_encode(unsigned needs, enum convert_to to)
{
    return needs & (to == CONVERT_TO_7BIT ? MIME_NEED_8BIT | MIME_NEED_BARE | MIME_NEED_LONG
                                          : MIME_NEED_BARE | MIME_NEED_LONG);
}

static enum action
action_for(unsigned needs, enum convert_to to)
{
    static const enum action by_class[MIME_CLASS_COUNT] = {
        [MIME_TEXT] = ACTION_QP, [MIME_OTHER] = ACTION_BASE64, [MIME_FIELDS] = ACTION_FIELDS
    };
    enum mime_encoding encoding = encoding_of(needs);
    bool encode = must_encode(needs, to);
    bool mislabelled = encoding == MIME_BINARY || (to == CONVERT_TO_7BIT && encoding == MIME_8BIT);

    switch (class_of(needs)) {
    case MIME_MULTIPART:
    case MIME_MESSAGE:
    case MIME_FIXED:
        return mislabelled ? ACTION_LABEL : ACTION_PASS;
    case MIME_TEXT:
    case MIME_OTHER:
    case MIME_FIELDS:
        if (encode && encoding == MIME_QUOTED_PRINTABLE)
            return ACTION_MEND_QP;
        if (encode && encoding == MIME_BASE64)
            return ACTION_MEND_BASE64;
        if (encode)
            return by_class[class_of(needs)];
        return mislabelled ? ACTION_LABEL : ACTION_PASS;
    case MIME_CLASS_COUNT:
        break;
    }
    UNREACHABLE();
}

/* What the entity says of its encoding stays. */
static bool
keeps_label(enum action action)
{
    return action == ACTION_PASS || action == ACTION_MEND_QP || action == ACTION_MEND_BASE64;
}

enum convert_verdict
convert_check(const struct mime_needs *n, enum convert_to to)
{
    /* A line over 998 alone is no reason: those are passed on unchanged everywhere. */
    bool needed = n->bare || (to == CONVERT_TO_7BIT && (n->header_8bit || n->body_8bit));

    if (!needed)
        return CONVERT_NOT_NEEDED;
    if (n->odd)
        return CONVERT_IMPOSSIBLE;
    for (uint32_t i = 0; i < n->count; i++)
        if (class_of(n->entities[i]) == MIME_FIXED && must_encode(n->entities[i], to))
            return CONVERT_IMPOSSIBLE;
    return CONVERT_NEEDED;
}

struct convert *
convert_new(struct arena *arena, const struct mime_needs *needs, enum convert_to to)
{
    struct convert *c = arena_new(arena, struct convert);

    CHECK(needs->count > 0);
    c->mime = mime_new(arena);
    c->arena = arena;
    c->needs = needs;
    c->to = to;
    c->field = arena_alloc(arena, 2 * FIELD_MAX);
    return c;
}

static enum action
action_of(const struct convert *c, uint32_t entity)
{
    return action_for(needs_of(c->needs, entity), c->to);
}

/* Somewhere to write more than `out` may have room for; goes out as `pending`. */
static struct text *
pending_begin(struct convert *c)
{
    if (!c->made.ptr)
        c->made = text_init(arena_alloc(c->arena, FIELD_OUT_MAX), FIELD_OUT_MAX);
    c->made.len = 0;
    c->made.full = false;
    return &c->made;
}

static bool
is_ascii_wanted(const struct convert *c)
{
    return c->to == CONVERT_TO_7BIT;
}

/* What may stand in no line: NUL, and CR without LF, which would become a line end of its own on the way. */
static void
mend_line(char *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (bytes[i] == '\0')
            bytes[i] = '?';
        else if (bytes[i] == '\r' && (i + 1 == len || bytes[i + 1] != '\n'))
            bytes[i] = ' ';
    }
}

/* ---- header fields ---- */

static bool
is_same_type(struct convert *c, struct str field, struct str other)
{
    for (int i = 0; i < 2; i++)
        if (!c->types[i])
            c->types[i] = mime_new(c->arena);
    return mime_is_same_type(c->types[0], c->types[1], field, other);
}

static struct str
field_name(const struct convert *c)
{
    struct str field = str_new(c->field, c->field_len);

    return str_trim_end(str_slice(field, 0, str_find_byte(field, ':')));
}

/* The field at hand is a label that put_new_fields() gives anew. */
static bool
is_replaced(const struct convert *c, uint32_t entity)
{
    return !keeps_label(action_of(c, entity)) && str_eq_nocase(field_name(c), S("Content-Transfer-Encoding"));
}

/* The field at hand is whole: it goes out, as it is or converted, or not at all. */
static void
end_field(struct convert *c, uint32_t entity)
{
    struct str field = str_new(c->field, c->field_len), name = field_name(c);

    mend_line(c->field, c->field_len);
    c->pending = field;
    if (is_replaced(c, entity)) {
        c->pending = S("");
    } else if (is_ascii_wanted(c) && !str_is_ascii(field)) {
        struct text *out = pending_begin(c);
        to_ascii_field(out, field, c->field + FIELD_MAX);
        if (str_eq_nocase(name, S("Content-Type")) && !is_same_type(c, field, text_str(out))) {
            out->len = 0; /* garbage, or words in an order that nobody writes: each byte stays where it is */
            to_ascii_bytes(out, field, to_ascii_substitute(field));
        }
        c->pending = text_str(out);
    }
    c->field_len = 0;
    c->mid_line = c->pending.len > 0 && !str_ends(c->pending, S("\n"));
}

static void
put_new_fields(struct convert *c, uint32_t entity, struct str empty_line, struct text *out)
{
    static const struct str labels[] = {
        [ACTION_QP] = STR("quoted-printable"),
        [ACTION_BASE64] = STR("base64"),
    };
    unsigned needs = needs_of(c->needs, entity);
    enum action action = action_for(needs, c->to);

    if (c->mid_line)
        text_put(out, S("\r\n"));
    c->mid_line = false;
    if (keeps_label(action)) {
        /* Without an empty line the fields that we give the message within would be this header's, and so would a line that
         * was no field before its 8-bit bytes were gone. */
        bool stays = action == ACTION_PASS && class_of(needs) != MIME_MESSAGE && class_of(needs) != MIME_MULTIPART;
        text_put(out, empty_line.len || stays ? empty_line : S("\r\n"));
        return;
    }
    if (needs & MIME_IS_ROOT && !(needs & MIME_HAS_VERSION))
        text_put(out, S("MIME-Version: 1.0\r\n"));
    if (needs & MIME_IS_ROOT && !(needs & MIME_HAS_TYPE) && needs & MIME_NEED_8BIT) /* RFC 1428 section 2 */
        text_put(out, needs & MIME_NOT_UTF8 ? S("Content-Type: text/plain; charset=unknown-8bit\r\n")
                                            : S("Content-Type: text/plain; charset=utf-8\r\n"));
    text_put(out, S("Content-Transfer-Encoding: "));
    if (action == ACTION_LABEL || action == ACTION_FIELDS)
        text_put(out, c->to == CONVERT_TO_8BIT ? S("8bit") : S("7bit"));
    else
        text_put(out, labels[action]);
    text_put(out, S("\r\n"));
    text_put(out, empty_line.len ? empty_line : S("\r\n")); /* a body may not follow without one */
}

/* ---- bodies ---- */

/* A line of a report: what stands before its first 8-bit word stays as it is. */
static void
convert_line(struct convert *c)
{
    struct str line = str_new(c->field, c->field_len);
    size_t start = 0, colon = str_find_byte(line, ':');
    struct text *out = pending_begin(c);
    bool like_boundary = str_starts(line, S("--")); /* see to_ascii_field() */

    while (start < line.len && byte_is_space(line.ptr[start]))
        start++;
    if (start == 0 && colon < line.len && str_is_ascii(str_slice(line, 0, colon)))
        start = colon + 1;
    if (is_ascii_wanted(c) && like_boundary) {
        to_ascii_bytes(out, line, '?');
    } else if (is_ascii_wanted(c) && !str_is_ascii(line)) {
        text_put(out, str_slice(line, 0, start));
        to_ascii_text(out, str_from(line, start), start);
    } else {
        text_put(out, line);
    }
    mend_line(out->ptr, out->len);
    CHECK(!out->full);
    c->pending = text_str(out);
    c->field_len = 0;
}

static void
put_hex(struct text *out, char byte)
{
    static const struct str digits = STR("0123456789ABCDEF");
    unsigned char c = (unsigned char)byte;

    text_put_byte(out, '=');
    text_put_byte(out, digits.ptr[c >> 4]);
    text_put_byte(out, digits.ptr[c & 15]);
}

static void
soft_break(struct convert *c, struct text *out)
{
    text_put(out, S("=\r\n"));
    c->column = 0;
}

/* A line that begins with "--" could become a boundary, by our line break in front of it or by what we put for other bytes. */
static void
put_plain_or_hex(struct convert *c, struct text *out, char byte, bool plain)
{
    if (c->column == 1 && c->dash && byte == '-')
        plain = false;
    if (c->column == 0)
        c->dash = byte == '-';
    if (plain)
        text_put_byte(out, byte);
    else
        put_hex(out, byte);
    c->column += plain ? 1 : 3;
}

/* RFC 2045 section 6.7. */
static void
qp_put(struct convert *c, struct text *out, char byte, bool plain)
{
    if (c->column + (plain ? 1 : 3) > QP_WIDTH)
        soft_break(c, out);
    put_plain_or_hex(c, out, byte, plain);
}

static void
qp_give_space(struct convert *c, struct text *out, bool plain)
{
    if (c->space)
        qp_put(c, out, c->space, plain);
    c->space = '\0';
}

static void
qp_add(struct convert *c, struct text *out, char byte)
{
    qp_give_space(c, out, true);
    if (byte_is_space(byte))
        c->space = byte;
    else
        qp_put(c, out, byte, byte > ' ' && byte <= '~' && byte != '=');
}

static void
end_line(struct convert *c, struct text *out)
{
    text_put(out, S("\r\n"));
    c->column = 0;
    c->escape = 0;
}

/* Said to be quoted-printable: escapes stay, what may not be there is escaped, lines that are too long are broken. */
static void
mend_qp_add(struct convert *c, struct text *out, char byte)
{
    if (c->column >= LINE_MAX && c->escape == 0)
        soft_break(c, out);
    c->escape = byte == '=' ? 2 : c->escape > 0 ? (uint8_t)(c->escape - 1) : 0;
    put_plain_or_hex(c, out, byte, (byte >= ' ' && byte <= '~') || byte == '\t');
}

/* Said to be base64: what is no digit means nothing to whoever decodes it. Without "-" no boundary comes of what is left. */
static void
mend_base64_add(struct convert *c, struct text *out, char byte)
{
    if (byte & 0x80 || byte == '\0' || byte == '\r' || byte == '-')
        return;
    text_put_byte(out, byte);
    if (++c->column >= LINE_MAX)
        end_line(c, out);
}

static void
base64_flush(struct convert *c, struct text *out)
{
    if (c->group_len == 0)
        return;
    if (c->column > 0)
        text_put(out, S("\r\n"));
    base64_put(out, str_new(c->group, c->group_len));
    c->column = 1;
    c->group_len = 0;
}

static void
base64_add(struct convert *c, struct text *out, char byte)
{
    c->group[c->group_len++] = (unsigned char)byte;
    if (c->group_len == BASE64_LINE)
        base64_flush(c, out);
}

static void
end_body(struct convert *c, struct text *out)
{
    if (c->body_action == ACTION_QP)
        qp_give_space(c, out, false); /* the line ends here: a boundary's line end follows */
    else if (c->body_action == ACTION_BASE64)
        base64_flush(c, out);
    else if (c->body_action == ACTION_FIELDS)
        convert_line(c);
    c->in_body = false;
}

static void (*const add_byte[])(struct convert *, struct text *, char) = {
    [ACTION_QP] = qp_add,
    [ACTION_BASE64] = base64_add,
    [ACTION_MEND_QP] = mend_qp_add,
    [ACTION_MEND_BASE64] = mend_base64_add,
};

/* One line end of a text is a line end (in what is encoded already a bare LF reads as one too); of anything else it is
 * two bytes like others. */
static void
add_line_end(struct convert *c, struct text *out)
{
    bool crlf = str_eq(c->piece.bytes, S("\r\n"));

    if (c->body_action == ACTION_QP && crlf)
        qp_give_space(c, out, false);
    if ((c->body_action == ACTION_QP && crlf) || c->body_action == ACTION_MEND_QP || c->body_action == ACTION_MEND_BASE64)
        end_line(c, out);
    else
        for (size_t i = 0; i < c->piece.bytes.len; i++)
            add_byte[c->body_action](c, out, c->piece.bytes.ptr[i]);
    c->piece.bytes = S("");
}

static size_t
room_of(const struct text *out)
{
    return out->cap - out->len;
}

/* As much of the piece as there is room for, as it is but for 8-bit bytes where none may be. True: all of it. */
static bool
copy_piece(struct convert *c, struct text *out)
{
    struct str part = str_slice(c->piece.bytes, 0, room_of(out));
    size_t before = out->len;

    if (part.len < c->piece.bytes.len && str_ends(part, S("\r"))) /* its LF may come next */
        part.len--;
    if (is_ascii_wanted(c))
        to_ascii_bytes(out, part, '?');
    else
        text_put(out, part);
    if (c->piece.place == MIME_OUTER)
        mend_line(out->ptr + before, part.len);
    c->piece.bytes = str_from(c->piece.bytes, part.len);
    return c->piece.bytes.len == 0;
}

/* The same for what is left of a long field. */
static bool
copy_field(struct convert *c, struct text *out)
{
    if (c->field_dropped)
        c->piece.bytes = S("");
    while (c->piece.bytes.len > 0 && room_of(out) >= 2) {
        char byte = c->piece.bytes.ptr[0];
        if (c->field_cr)
            text_put_byte(out, byte == '\n' ? '\r' : ' ');
        c->field_cr = byte == '\r';
        if (byte == '\0')
            byte = '?';
        else if (is_ascii_wanted(c) && byte & 0x80)
            byte = c->field_substitute;
        if (!c->field_cr)
            text_put_byte(out, byte);
        c->mid_line = byte != '\n';
        c->piece.bytes = str_from(c->piece.bytes, 1);
    }
    return c->piece.bytes.len == 0;
}

/* Lines are kept until they are whole, or too long for that. */
static bool
fields_piece(struct convert *c, struct text *out)
{
    size_t room = FIELD_MAX - c->field_len;

    if (c->field_len > 0 && (c->piece.line_end || room == 0)) {
        convert_line(c);
        return false;
    }
    if (c->piece.line_end) {
        if (room_of(out) < CONVERT_ROOM)
            return false;
        text_put(out, S("\r\n"));
        return true;
    }
    struct str part = str_slice(c->piece.bytes, 0, room);
    memcpy(c->field + c->field_len, part.ptr, part.len);
    c->field_len += part.len;
    c->piece.bytes = str_from(c->piece.bytes, part.len);
    return c->piece.bytes.len == 0;
}

static bool
body_piece(struct convert *c, struct text *out)
{
    if (!c->in_body) {
        c->in_body = true;
        c->body_action = action_of(c, c->piece.entity);
        c->column = 0;
        c->escape = 0;
    }
    if (c->body_action == ACTION_PASS || c->body_action == ACTION_LABEL)
        return copy_piece(c, out);
    if (c->body_action == ACTION_FIELDS)
        return fields_piece(c, out);
    while (c->piece.bytes.len) {
        if (room_of(out) < CONVERT_ROOM / 2)
            return false;
        if (c->piece.line_end) {
            add_line_end(c, out);
        } else {
            add_byte[c->body_action](c, out, c->piece.bytes.ptr[0]);
            c->piece.bytes = str_from(c->piece.bytes, 1);
        }
    }
    return true;
}

/* The field at hand is too long to be kept: its first FIELD_MAX bytes go out, the rest as it comes. */
static void
spill_field(struct convert *c)
{
    c->field_spilled = true;
    c->piece.starts = false;
    c->field_dropped = is_replaced(c, c->piece.entity);
    if (c->field_dropped) {
        c->field_len = 0;
        return;
    }
    c->field_substitute = to_ascii_substitute(str_new(c->field, c->field_len));
    for (size_t i = 0; i < c->field_len && is_ascii_wanted(c); i++)
        c->field[i] = c->field[i] & 0x80 ? c->field_substitute : c->field[i];
    c->field_cr = c->field[c->field_len - 1] == '\r';
    c->field_len -= c->field_cr;
    mend_line(c->field, c->field_len);
    c->pending = str_new(c->field, c->field_len);
    c->field_len = 0;
    c->mid_line = true;
}

/* A field is kept until it is whole, or too long for that. */
static bool
field_piece(struct convert *c, struct text *out)
{
    if (c->piece.starts && c->field_len > 0) {
        end_field(c, c->piece.entity);
        return false;
    }
    c->field_spilled &= !c->piece.starts;
    if (c->field_spilled)
        return copy_field(c, out);
    struct str part = str_slice(c->piece.bytes, 0, FIELD_MAX - c->field_len);
    memcpy(c->field + c->field_len, part.ptr, part.len);
    c->field_len += part.len;
    c->piece.bytes = str_from(c->piece.bytes, part.len);
    if (c->piece.bytes.len == 0)
        return true;
    spill_field(c);
    return false;
}

static bool
header_end_piece(struct convert *c, struct text *out)
{
    if (c->field_len > 0) {
        end_field(c, c->piece.entity);
        return false;
    }
    if (room_of(out) < CONVERT_ROOM)
        return false;
    put_new_fields(c, c->piece.entity, c->piece.bytes, out);
    return true;
}

/* False: come again, after what is pending went out or with more room. */
static bool
put_piece(struct convert *c, struct text *out)
{
    if (c->in_body && c->piece.place != MIME_BODY) {
        if (room_of(out) < CONVERT_ROOM)
            return false;
        end_body(c, out);
        if (c->pending.len > 0)
            return false;
    }
    switch (c->piece.place) {
    case MIME_FIELD:
        return field_piece(c, out);
    case MIME_HEADER_END:
        return header_end_piece(c, out);
    case MIME_BODY:
        return body_piece(c, out);
    case MIME_OUTER:
        return copy_piece(c, out);
    }
    UNREACHABLE();
}

/* Does what can be done without another piece. False: `out` is full. */
static bool
put_what_waits(struct convert *c, struct text *out)
{
    for (;;) {
        struct str part = str_slice(c->pending, 0, room_of(out));
        text_put(out, part);
        c->pending = str_from(c->pending, part.len);
        if (c->pending.len > 0)
            return false;
        if (!c->in_piece)
            return true;
        c->in_piece = !put_piece(c, out);
        if (c->in_piece && c->pending.len == 0 && room_of(out) < CONVERT_ROOM)
            return false;
    }
}

bool
convert_feed(struct convert *c, struct str *bytes, struct text *out)
{
    CHECK(room_of(out) >= CONVERT_ROOM);
    while (put_what_waits(c, out)) {
        c->in_piece = mime_next(c->mime, bytes, &c->piece);
        if (!c->in_piece)
            return true;
    }
    return false;
}

bool
convert_end(struct convert *c, struct text *out)
{
    CHECK(room_of(out) >= CONVERT_ROOM);
    while (put_what_waits(c, out)) {
        c->in_piece = mime_end(c->mime, &c->piece);
        if (c->in_piece)
            continue;
        if (room_of(out) < CONVERT_ROOM)
            return false;
        if (c->in_body) {
            end_body(c, out);
            if (c->body_action == ACTION_BASE64)
                text_put(out, S("\r\n"));
        }
        if (c->pending.len == 0)
            return true;
    }
    return false;
}
