/*
 * mime - see mime.h.
 *
 * Input is taken line by line, but a line is never kept whole: only its start is, as long as it may still turn out to
 * be a boundary or the name of a field (HELD_MAX bytes). The end of a body line is held back until the next line is
 * known, as it belongs to the boundary if that is one (RFC 2046 section 5.1.1).
 */
#include "message/mime.h"

#include "base/base64.h"
#include "base/check.h"
#include "message/header.h"
#include "message/utf8.h"

#include <string.h>

enum {
    BOUNDARY_MAX = 250, /* RFC 2046 allows 70 */
    HELD_MAX = 512,
    FIELD_MAX = 4096,   /* of the three fields that matter; longer ones are cut */
    QUEUE_MAX = 6,
};

enum where { WHERE_HEADER, WHERE_BODY, WHERE_OUTER };
enum line { LINE_NONE, LINE_FIELD, LINE_CONTENT }; /* LINE_NONE: at the start of a line, nothing known */
enum field { FIELD_OTHER, FIELD_TYPE, FIELD_ENCODING, FIELD_VERSION };

struct level { /* a multipart that is open */
    char *boundary; /* BOUNDARY_MAX bytes, used again */
    size_t len;
    uint32_t nesting;
    bool is_digest, has_parts;
};

struct mime {
    struct arena *arena;
    enum where where;
    enum line line;
    bool first_line;       /* of this header */
    bool after_cr;         /* a CR was held back: the line end's, or not */
    struct str eol;        /* a line end held back; empty: none */
    uint32_t entity_count;
    uint32_t nesting;
    bool is_too_deep, has_odd_boundary, has_partless;
    size_t depth;
    struct level levels[LIMIT_MIME_DEPTH];

    struct mime_entity entity, ended;
    bool in_digest;        /* the default type is message/rfc822 */
    enum field field;
    size_t field_len;
    bool field_cr; /* behind it came one */
    char field_value[FIELD_MAX];
    struct str boundary;   /* of the Content-Type at hand; borrows from boundary_value */
    char boundary_value[BOUNDARY_MAX];
    bool is_digest, is_multipart, is_message;

    size_t held_len;       /* of the line's start, while line is LINE_NONE */
    char held[HELD_MAX];
    size_t queue_len, queue_at;
    struct mime_piece queue[QUEUE_MAX];
};

static void
queue_piece(struct mime *m, enum mime_place place, struct str bytes, bool line_end)
{
    CHECK(m->queue_len < QUEUE_MAX);
    m->queue[m->queue_len++] =
        (struct mime_piece){ .place = place, .entity = m->entity_count - 1, .bytes = bytes, .line_end = line_end };
}

static void
begin_entity(struct mime *m, bool is_root, bool in_digest)
{
    m->where = WHERE_HEADER;
    m->first_line = true;
    m->entity = (struct mime_entity){ .class = MIME_TEXT, .is_root = is_root };
    m->in_digest = in_digest;
    m->field = FIELD_OTHER;
    m->is_multipart = m->is_message = m->is_digest = false;
    m->boundary = S("");
    m->entity_count++;
}

struct mime *
mime_new(struct arena *arena)
{
    struct mime *m = arena_new(arena, struct mime);

    m->arena = arena;
    begin_entity(m, true, false);
    return m;
}

const struct mime_entity *
mime_entity(const struct mime *m)
{
    return &m->ended;
}

bool
mime_is_too_deep(const struct mime *m)
{
    return m->is_too_deep;
}

bool
mime_has_partless(const struct mime *m)
{
    return m->has_partless;
}

bool
mime_has_odd_boundary(const struct mime *m)
{
    return m->has_odd_boundary;
}

/* What stands behind a parameter's "=". Boundaries with characters that want quotes come without: then it is all of it. */
static void
put_value(struct text *out, struct str s)
{
    header_skip_cfws(&s);
    if (!str_take_byte(&s, '"')) {
        text_put(out, str_trim(s));
        return;
    }
    while (s.len && s.ptr[0] != '"') {
        if (s.ptr[0] == '\\' && s.len > 1)
            s = str_from(s, 1);
        text_put_byte(out, s.ptr[0]);
        s = str_from(s, 1);
    }
}

static void
parse_boundary(struct mime *m, struct str params)
{
    str_cut(&params, ';');
    while (params.len) {
        struct str param = header_take_parameter(&params), name = header_take_token(&param);
        header_skip_cfws(&param);
        bool wanted = str_eq_nocase(name, S("boundary")) || str_eq_nocase(name, S("boundary*0"));
        if (!wanted || !str_take_byte(&param, '='))
            continue;
        struct text value = text_init(m->boundary_value, sizeof m->boundary_value);
        put_value(&value, param);
        if (!value.full && value.len > 0) {
            m->boundary = str_trim_end(text_str(&value)); /* a boundary cannot end with a space: RFC 2046 5.1.1 */
            return;
        }
    }
}

static void
parse_type(struct mime *m, struct str value)
{
    static const struct {
        struct str subtype;
        enum mime_class class;
    } message_types[] = {
        { STR("partial"), MIME_FIXED },           { STR("external-body"), MIME_FIXED },
        { STR("delivery-status"), MIME_FIELDS },  { STR("disposition-notification"), MIME_FIELDS },
        { STR("tracking-status"), MIME_FIELDS },  { STR("feedback-report"), MIME_FIELDS },
    };
    struct str type = header_take_token(&value);

    header_skip_cfws(&value);
    if (m->entity.has_type)
        return;
    m->entity.has_type = true;
    if (!str_take_byte(&value, '/'))
        return; /* no such type: as good as text/plain, RFC 2045 section 5.2 */
    struct str subtype = header_take_token(&value);
    m->entity.class = str_eq_nocase(type, S("text")) ? MIME_TEXT : MIME_OTHER;
    if (str_eq_nocase(type, S("multipart"))) {
        m->is_multipart = true;
        m->is_digest = str_eq_nocase(subtype, S("digest"));
        parse_boundary(m, value);
    } else if (str_eq_nocase(type, S("message"))) {
        m->is_message = str_eq_nocase(subtype, S("rfc822"));
        for (size_t i = 0; i < sizeof message_types / sizeof *message_types; i++)
            if (str_eq_nocase(subtype, message_types[i].subtype))
                m->entity.class = message_types[i].class;
    }
}

static void
parse_encoding(struct mime *m, struct str value)
{
    static const struct {
        struct str name;
        enum mime_encoding encoding;
    } names[] = {
        { STR("7bit"), MIME_7BIT },     { STR("8bit"), MIME_8BIT },
        { STR("binary"), MIME_BINARY }, { STR("quoted-printable"), MIME_QUOTED_PRINTABLE },
        { STR("base64"), MIME_BASE64 },
    };
    struct str name = header_take_token(&value);

    if (m->entity.encoding != MIME_UNSAID)
        return;
    m->entity.encoding = MIME_UNKNOWN;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (str_eq_nocase(name, names[i].name))
            m->entity.encoding = names[i].encoding;
}

static void
end_field(struct mime *m)
{
    struct str value = str_new(m->field_value, m->field_len);

    if (m->field == FIELD_TYPE)
        parse_type(m, value);
    else if (m->field == FIELD_ENCODING)
        parse_encoding(m, value);
    else if (m->field == FIELD_VERSION)
        m->entity.has_version = true;
    m->field = FIELD_OTHER;
    m->field_len = 0;
    m->field_cr = false;
}

static bool
is_encoded(enum mime_encoding e)
{
    return e == MIME_QUOTED_PRINTABLE || e == MIME_BASE64 || e == MIME_UNKNOWN;
}

/* The header is over: what follows is a body, parts, or another header. */
static void
end_header(struct mime *m, struct str empty_line)
{
    end_field(m);
    if (!m->entity.has_type && m->in_digest)
        m->is_message = true;
    bool has_room = m->nesting < LIMIT_MIME_DEPTH;
    bool opens_parts = m->is_multipart && m->boundary.len > 0 && has_room;
    bool opens_message = m->is_message && !is_encoded(m->entity.encoding) && has_room;
    m->is_too_deep |= (m->is_multipart || m->is_message) && !has_room;
    if (opens_parts)
        m->entity.class = MIME_MULTIPART;
    else if (m->is_multipart)
        m->entity.class = MIME_FIXED; /* no parts that we could tell apart, and RFC 2045 section 6.4 lets us encode none as a whole */
    else if (m->is_message)
        m->entity.class = opens_message ? MIME_MESSAGE : has_room ? MIME_OTHER : MIME_FIXED;
    m->ended = m->entity;
    queue_piece(m, MIME_HEADER_END, empty_line, false);
    m->where = WHERE_BODY;
    if (opens_parts) {
        struct level *level = &m->levels[m->depth++];
        if (!level->boundary)
            level->boundary = arena_alloc(m->arena, BOUNDARY_MAX);
        memcpy(level->boundary, m->boundary.ptr, m->boundary.len);
        level->len = m->boundary.len;
        level->nesting = m->nesting;
        level->is_digest = m->is_digest;
        level->has_parts = false;
        m->nesting++;
        m->has_odd_boundary |= !str_is_ascii(m->boundary);
        m->where = WHERE_OUTER;
    }
}

/* A message/rfc822 body begins with a header, be it an empty one: as soon as the piece that ended the outer one is on its way. */
static void
begin_encapsulated(struct mime *m)
{
    if (m->where != WHERE_BODY || m->entity.class != MIME_MESSAGE)
        return;
    m->nesting++;
    begin_entity(m, true, false);
}

/* Is this line (with its end, if it came) a boundary? Gives the level that it belongs to, or -1. */
static int
find_boundary(const struct mime *m, struct str line, bool *out_closes)
{
    line = str_trim_end(line);
    if (!str_take(&line, S("--")))
        return -1;
    for (size_t i = m->depth; i-- > 0;) {
        struct str boundary = str_new(m->levels[i].boundary, m->levels[i].len), rest = line;
        if (!str_take(&rest, boundary))
            continue;
        if (rest.len == 0 || str_eq(rest, S("--"))) {
            *out_closes = rest.len > 0;
            return (int)i;
        }
    }
    return -1;
}

/* Would it be one with what a conversion puts for bytes that may not stand there? Then who converts makes a part of a text. */
static bool
would_be_boundary(const struct mime *m, struct str line)
{
    char mended[HELD_MAX];
    bool closes;

    for (size_t i = 0; i < line.len; i++) {
        bool bare = line.ptr[i] == '\r' && i + 1 < line.len && line.ptr[i + 1] != '\n';
        mended[i] = bare ? ' ' : line.ptr[i] & 0x80 || line.ptr[i] == '\0' ? '?' : line.ptr[i];
    }
    return find_boundary(m, str_new(mended, line.len), &closes) >= 0;
}

static void
close_levels(struct mime *m, size_t depth)
{
    while (m->depth > depth)
        m->has_partless |= !m->levels[--m->depth].has_parts;
}

static void
take_boundary(struct mime *m, struct str line, int level, bool closes)
{
    if (m->eol.len)
        queue_piece(m, MIME_OUTER, m->eol, true);
    m->eol = S("");
    queue_piece(m, MIME_OUTER, line, false);
    m->levels[level].has_parts = true;
    close_levels(m, (size_t)level + (closes ? 0 : 1));
    m->nesting = m->levels[level].nesting + (closes ? 0 : 1);
    m->where = WHERE_OUTER;
    if (!closes)
        begin_entity(m, false, m->levels[level].is_digest);
}

/* A field's first line: a name of printable characters, spaces perhaps, and a colon. */
static bool
begins_field(struct mime *m, struct str start)
{
    static const struct {
        struct str name;
        enum field field;
    } fields[] = {
        { STR("content-type"), FIELD_TYPE },
        { STR("content-transfer-encoding"), FIELD_ENCODING },
        { STR("mime-version"), FIELD_VERSION },
    };
    size_t len = 0;

    /* What mbox puts before a message is not worth losing its header over. */
    if (m->first_line && m->entity.is_root && (str_starts(start, S("From ")) || str_starts(start, S(">From "))))
        return true;
    while (len < start.len && start.ptr[len] > ' ' && start.ptr[len] <= '~' && start.ptr[len] != ':')
        len++;
    struct str rest = str_from(start, len);
    while (rest.len && byte_is_space(rest.ptr[0]))
        rest = str_from(rest, 1);
    if (len == 0 || !str_starts(rest, S(":")))
        return false;
    end_field(m);
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        if (str_eq_nocase(str_slice(start, 0, len), fields[i].name))
            m->field = fields[i].field;
    return true;
}

/* May what has come of this line still become something else than plain content? */
static bool
may_still_matter(const struct mime *m, struct str start)
{
    if (m->where == WHERE_HEADER)
        return start.len == 0 || !byte_is_space(start.ptr[0]);
    return m->depth > 0 && str_starts(S("--"), str_slice(start, 0, 2));
}

/*
 * Decides what the line that begins with `start` is. Boundaries and empty lines that end a header are whole in it, and
 * are used up: returns how many bytes of it were. None, and the line still not known: a header ended before it.
 */
static size_t
begin_line(struct mime *m, struct str start)
{
    bool closes;
    int level = m->depth > 0 ? find_boundary(m, start, &closes) : -1;

    if (level >= 0 && start.len < HELD_MAX) {
        if (m->where == WHERE_HEADER) { /* one that had no empty line */
            end_header(m, S(""));
            begin_encapsulated(m);
            return 0;
        }
        take_boundary(m, start, level, closes);
        return start.len;
    }
    m->has_odd_boundary |= str_starts(start, S("--")) && would_be_boundary(m, start);
    if (m->where != WHERE_HEADER) {
        m->line = LINE_CONTENT;
        return 0;
    }
    if (str_eq(start, S("\n")) || str_eq(start, S("\r\n"))) {
        end_header(m, start);
        begin_encapsulated(m);
        return start.len;
    }
    bool continues = !m->first_line && byte_is_space(start.ptr[0]);
    if (continues || begins_field(m, start)) {
        m->line = LINE_FIELD;
        m->first_line = false;
        return 0;
    }
    end_header(m, S(""));
    begin_encapsulated(m);
    return 0;
}

static void
keep_byte(struct mime *m, char c)
{
    if (m->field_len < FIELD_MAX)
        m->field_value[m->field_len++] = c;
}

/* A CR that does not end a line is a space, as conversion makes it one. Whether it does may be known with the next piece only. */
static void
keep_value(struct mime *m, struct str text, bool starts, bool ends)
{
    if (m->field == FIELD_OTHER)
        return;
    if (starts)
        str_cut(&text, ':');
    for (size_t i = 0; i < text.len; i++) {
        if (m->field_cr)
            keep_byte(m, ' ');
        m->field_cr = text.ptr[i] == '\r';
        if (!m->field_cr)
            keep_byte(m, text.ptr[i]);
    }
    m->field_cr &= !ends;
}

static void
read_type(struct mime *m, struct str field)
{
    begin_entity(m, true, false);
    m->field = FIELD_TYPE;
    for (bool starts = true; field.len > 0; starts = false)
        keep_value(m, str_cut(&field, '\n'), starts, true);
    end_field(m);
}

bool
mime_is_same_type(struct mime *a, struct mime *b, struct str field, struct str other)
{
    read_type(a, field);
    read_type(b, other);
    return a->entity.class == b->entity.class && a->is_multipart == b->is_multipart && a->is_message == b->is_message &&
           a->is_digest == b->is_digest && str_eq(a->boundary, b->boundary);
}

/* Gives the next bytes of a line that is known, up to its end. `starts`: of the line. */
static void
give_line(struct mime *m, struct str *s, bool starts)
{
    size_t lf = str_find_byte(*s, '\n');
    bool ends = lf < s->len;
    struct str text = str_slice(*s, 0, lf);
    struct str eol = ends ? S("\n") : S("");

    if (m->line == LINE_FIELD) {
        struct str bytes = str_slice(*s, 0, lf + ends);
        bool begins = starts && !byte_is_space(bytes.ptr[0]);
        keep_value(m, text, begins, ends);
        queue_piece(m, MIME_FIELD, bytes, false);
        m->queue[m->queue_len - 1].starts = begins;
        *s = str_from(*s, bytes.len);
        m->line = ends ? LINE_NONE : LINE_FIELD;
        return;
    }
    enum mime_place place = m->where == WHERE_BODY ? MIME_BODY : MIME_OUTER;
    if (starts && m->eol.len) {
        queue_piece(m, place, m->eol, true);
        m->eol = S("");
    }
    if (m->after_cr) {
        m->after_cr = false;
        if (ends && text.len == 0)
            eol = S("\r\n");
        else
            queue_piece(m, place, S("\r"), false);
    }
    if (str_ends(text, S("\r"))) {
        text.len--;
        if (ends)
            eol = S("\r\n");
        else
            m->after_cr = true;
    }
    if (text.len)
        queue_piece(m, place, text, false);
    *s = str_from(*s, lf + ends);
    if (ends) {
        m->eol = eol;
        m->line = LINE_NONE;
    }
}

static void
hold(struct mime *m, struct str bytes)
{
    CHECK(bytes.len <= HELD_MAX - m->held_len);
    if (bytes.len)
        memcpy(m->held + m->held_len, bytes.ptr, bytes.len);
    m->held_len += bytes.len;
}

/* Goes on with *bytes; `final`: nothing comes behind them. True: something was done. */
static bool
step(struct mime *m, struct str *bytes, bool final)
{
    if (m->line != LINE_NONE) {
        if (bytes->len == 0)
            return false;
        give_line(m, bytes, false);
        return true;
    }
    size_t lf = str_find_byte(*bytes, '\n');
    struct str start = str_slice(*bytes, 0, lf + (lf < bytes->len));
    if (m->held_len > 0) { /* a part of this line came before, or all of it */
        bool is_whole = m->held[m->held_len - 1] == '\n';
        start = str_slice(start, 0, is_whole ? 0 : HELD_MAX - m->held_len);
        hold(m, start);
        *bytes = str_from(*bytes, start.len);
        start = str_new(m->held, m->held_len);
    }
    start = str_slice(start, 0, HELD_MAX);
    if (start.len == 0)
        return false;
    bool whole = final || str_ends(start, S("\n")) || start.len == HELD_MAX;
    if (!whole && may_still_matter(m, start)) {
        if (m->held_len == 0) {
            hold(m, start);
            *bytes = str_from(*bytes, start.len);
        }
        return false;
    }
    size_t used = begin_line(m, start);
    bool again = used == 0 && m->line == LINE_NONE; /* the same line, now behind the header */
    if (m->held_len > 0 && !again) {
        m->held_len = 0;
        if (used == 0)
            give_line(m, &start, true);
    } else if (!again) {
        *bytes = str_from(*bytes, used);
        if (used == 0)
            give_line(m, bytes, true);
    }
    return true;
}

static bool
pop(struct mime *m, struct mime_piece *out)
{
    if (m->queue_at == m->queue_len) {
        m->queue_at = m->queue_len = 0;
        return false;
    }
    *out = m->queue[m->queue_at++];
    return true;
}

bool
mime_next(struct mime *m, struct str *bytes, struct mime_piece *out)
{
    while (!pop(m, out))
        if (!step(m, bytes, false))
            return false;
    return true;
}

bool
mime_end(struct mime *m, struct mime_piece *out)
{
    struct str none = S("");

    while (!pop(m, out)) {
        if (step(m, &none, true))
            continue;
        enum mime_place place = m->where == WHERE_BODY ? MIME_BODY : MIME_OUTER;
        if (m->where == WHERE_HEADER) {
            end_header(m, S(""));
            begin_encapsulated(m);
        } else if (m->after_cr) {
            queue_piece(m, place, S("\r"), false);
            m->after_cr = false;
        } else if (m->eol.len) {
            queue_piece(m, place, m->eol, true);
            m->eol = S("");
        } else {
            close_levels(m, 0);
            return false;
        }
    }
    return true;
}

/* RFC 2045 section 6.7. Spaces before a line's end came on the way: rule 3. */
static bool
decode_quoted_printable(struct str body, struct text *out)
{
    while (body.len > 0) {
        size_t lf = str_find_byte(body, '\n');
        struct str line = str_slice(body, 0, lf), text = str_trim_end(line);
        struct str eol = lf == body.len ? S("") : str_ends(line, S("\r")) ? S("\r\n") : S("\n");
        bool soft = str_ends(text, S("="));
        for (text.len -= soft; text.len > 0;) {
            int high = text.len > 2 ? byte_hex(text.ptr[1]) : -1, low = text.len > 2 ? byte_hex(text.ptr[2]) : -1;
            bool escape = text.ptr[0] == '=';
            if (escape && (high < 0 || low < 0))
                return false;
            text_put_byte(out, escape ? (char)(high * 16 + low) : text.ptr[0]);
            text = str_from(text, escape ? 3 : 1);
        }
        if (!soft)
            text_put(out, eol);
        body = str_from(body, lf + 1);
    }
    return true;
}

bool
mime_decode(enum mime_encoding encoding, struct str body, struct text *out)
{
    switch (encoding) {
    case MIME_BASE64:
        return base64_decode(body, out);
    case MIME_QUOTED_PRINTABLE:
        return decode_quoted_printable(body, out);
    case MIME_UNSAID:
    case MIME_7BIT:
    case MIME_8BIT:
    case MIME_BINARY:
        text_put(out, body);
        return true;
    default:
        return false;
    }
}

struct mime_scan {
    struct mime *mime;
    struct arena *arena;
    struct mime_needs needs;
    uint32_t capacity;
    uint64_t line;          /* bytes of the line at hand */
    uint8_t utf8_more;      /* continuation bytes that must come */
    uint8_t utf8_min, utf8_max; /* what the next one may be */
    uint32_t utf8_entity;
    bool outer_8bit;
    bool outer_cr;          /* the last byte was one, outside of a body */
};

struct mime_scan *
mime_scan_new(struct arena *arena)
{
    struct mime_scan *s = arena_new(arena, struct mime_scan);

    s->mime = mime_new(arena);
    s->arena = arena;
    s->capacity = 16;
    s->needs.entities = arena_alloc(arena, s->capacity * sizeof *s->needs.entities);
    return s;
}

static uint16_t *
entity_needs(struct mime_scan *s, uint32_t entity)
{
    struct mime_needs *n = &s->needs;

    if (entity >= LIMIT_MIME_ENTITIES) {
        n->odd = true;
        entity = LIMIT_MIME_ENTITIES - 1;
    }
    if (entity >= s->capacity) {
        uint16_t *more = arena_alloc(s->arena, 2 * s->capacity * sizeof *more);
        memcpy(more, n->entities, s->capacity * sizeof *more);
        n->entities = more;
        s->capacity *= 2;
    }
    if (entity >= n->count)
        n->count = entity + 1;
    return &n->entities[entity];
}

/* RFC 3629 section 4, one byte at a time, as the bytes may be cut anywhere. */
static bool
utf8_goes_on(struct mime_scan *s, unsigned char c)
{
    if (s->utf8_more > 0) {
        bool fits = c >= s->utf8_min && c <= s->utf8_max;
        s->utf8_more--;
        s->utf8_min = 0x80;
        s->utf8_max = 0xbf;
        return fits;
    }
    if (c < 0x80)
        return true;
    s->utf8_more = c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : 1;
    s->utf8_min = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : 0x80;
    s->utf8_max = c == 0xed ? 0x9f : c == 0xf4 ? 0x8f : 0xbf;
    return c >= 0xc2 && c <= 0xf4;
}

static unsigned
body_needs(struct mime_scan *s, const struct mime_piece *p)
{
    unsigned needs = 0;

    s->utf8_entity = p->entity;
    if (p->line_end)
        return str_eq(p->bytes, S("\n")) ? MIME_NEED_BARE : 0;
    if (str_has_byte(p->bytes, '\r') || str_has_byte(p->bytes, '\0'))
        needs |= MIME_NEED_BARE;
    if (s->line > 998)
        needs |= MIME_NEED_LONG;
    if (str_is_ascii(p->bytes) && s->utf8_more == 0)
        return needs;
    for (size_t i = 0; i < p->bytes.len; i++)
        if (!utf8_goes_on(s, (unsigned char)p->bytes.ptr[i]))
            needs |= MIME_NOT_UTF8;
    return needs | (str_is_ascii(p->bytes) ? 0 : MIME_NEED_8BIT);
}

/* NUL and bare CR, outside of bodies. A bare LF ends a line of a header for every reader. */
static bool
is_bare_outside(struct mime_scan *s, const struct mime_piece *p)
{
    bool bare = str_has_byte(p->bytes, '\0');

    for (size_t i = 0; i < p->bytes.len; i++) {
        bare |= s->outer_cr && p->bytes.ptr[i] != '\n';
        s->outer_cr = p->bytes.ptr[i] == '\r';
    }
    return bare;
}

static void
scan_piece(struct mime_scan *s, const struct mime_piece *p)
{
    struct mime_needs *n = &s->needs;
    uint16_t *entity = entity_needs(s, p->entity);
    bool eight_bit = !str_is_ascii(p->bytes);
    bool ends = p->line_end || str_ends(p->bytes, S("\n"));

    if (s->utf8_more > 0 && (p->line_end || p->place != MIME_BODY)) { /* a character that was not finished */
        *entity_needs(s, s->utf8_entity) |= MIME_NOT_UTF8;
        s->utf8_more = 0;
    }
    if (p->place != MIME_BODY) {
        n->bare |= is_bare_outside(s, p);
    } else {
        n->bare |= s->outer_cr;
        s->outer_cr = false;
    }
    s->line += p->line_end ? 0 : p->bytes.len - (ends ? 1 : 0);
    n->longest = s->line > n->longest ? s->line : n->longest;
    if (p->place == MIME_FIELD) {
        n->header_8bit |= eight_bit;
    } else if (p->place == MIME_HEADER_END) {
        const struct mime_entity *e = mime_entity(s->mime);
        *entity |= (uint16_t)((e->is_root ? MIME_IS_ROOT : 0) | (e->has_type ? MIME_HAS_TYPE : 0) |
                              (e->has_version ? MIME_HAS_VERSION : 0) | (unsigned)e->class << MIME_CLASS_SHIFT |
                              (unsigned)e->encoding << MIME_ENCODING_SHIFT);
    } else {
        n->body_8bit |= eight_bit;
        s->outer_8bit |= eight_bit && p->place == MIME_OUTER;
        unsigned needs = p->place == MIME_BODY ? body_needs(s, p) : 0;
        n->bare |= needs & MIME_NEED_BARE;
        *entity |= (uint16_t)needs;
    }
    if (ends)
        s->line = 0;
}

void
mime_scan_feed(struct mime_scan *s, struct str bytes)
{
    struct mime_piece piece;

    while (mime_next(s->mime, &bytes, &piece))
        scan_piece(s, &piece);
}

const struct mime_needs *
mime_scan_end(struct mime_scan *s)
{
    struct mime_piece piece;

    while (mime_end(s->mime, &piece))
        scan_piece(s, &piece);
    if (s->utf8_more > 0)
        *entity_needs(s, s->utf8_entity) |= MIME_NOT_UTF8;
    s->needs.bare |= s->outer_cr;
    s->needs.odd |= mime_is_too_deep(s->mime) || mime_has_odd_boundary(s->mime);
    /* What no boundary ever followed is no preamble to be ignored but somebody's text. */
    s->needs.odd |= s->outer_8bit && mime_has_partless(s->mime);
    return &s->needs;
}
