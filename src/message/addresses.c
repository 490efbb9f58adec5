/*
 * addresses - see addresses.h.
 *
 * An element is found first, by its delimiters outside of quotes, comments and brackets; then it is read.
 */
#include "message/addresses.h"

#include "message/domain.h"
#include "message/header.h"
#include "message/utf8.h"

static bool
is_atom_byte(char c)
{
    return c > ' ' && c < 0x7f ? !str_has_byte(S("()<>[]:;@\\,.\""), c) : (c & 0x80) != 0;
}

/* Words, here those of a local part or a domain, with the dots between them; written without what stands between. */
static bool
take_dotted(struct str *s, struct text *out, bool quotes)
{
    for (;;) {
        size_t len = 0;
        header_skip_cfws(s);
        while (len < s->len && is_atom_byte(s->ptr[len]))
            len++;
        if (len > 0) {
            text_put(out, str_slice(*s, 0, len));
        } else if (quotes && str_starts(*s, S("\""))) {
            len = header_skip_enclosed(*s, 0);
            if (len > s->len)
                return false;
            for (size_t i = 1; i + 1 < len; i++) {
                i += s->ptr[i] == '\\';
                if (s->ptr[i] != '\r' && s->ptr[i] != '\n') /* folding */
                    text_put_byte(out, s->ptr[i]);
            }
        } else if (!str_starts(*s, S("."))) { /* dots anywhere in a local part: path.h says why */
            return false;
        }
        *s = str_from(*s, len);
        header_skip_cfws(s);
        if (!str_starts(*s, S(".")))
            return true;
        while (str_take_byte(s, '.')) {
            text_put_byte(out, '.');
            header_skip_cfws(s);
        }
        if (s->len == 0 || s->ptr[0] == '@')
            return true;
    }
}

/* addr-spec, with a route before it perhaps; a local part alone is taken too. */
static bool
parse_spec(struct str spec, struct arena *arena, struct path *out)
{
    struct text local = text_init(arena_alloc(arena, spec.len + 1), spec.len + 1);
    struct text domain = text_init(arena_alloc(arena, spec.len + 1), spec.len + 1);

    header_skip_cfws(&spec);
    if (str_starts(spec, S("@"))) { /* obs-route */
        str_cut(&spec, ':');
        header_skip_cfws(&spec);
    }
    if (!take_dotted(&spec, &local, true))
        return false;
    if (str_take_byte(&spec, '@')) {
        header_skip_cfws(&spec);
        if (str_starts(spec, S("["))) {
            size_t len = header_skip_enclosed(spec, 0);
            text_put(&domain, str_slice(spec, 0, len));
            spec = str_from(spec, len);
            header_skip_cfws(&spec);
        } else if (!take_dotted(&spec, &domain, false)) {
            return false;
        }
        if (!domain_is_valid(domain_without_dot(text_str(&domain))))
            return false;
    }
    if (spec.len > 0 || !utf8_is_clean(text_str(&local)) || (local.len == 0 && domain.len == 0))
        return false;
    *out = (struct path){ text_str(&local), domain_without_dot(text_str(&domain)) };
    return true;
}

/* Where the element that s begins with ends, and where in it "<" and ">" are. */
struct element {
    size_t end, open, close; /* open, close: SIZE_MAX if there is none */
};

static struct element
find_element(struct str s)
{
    struct element e = { s.len, SIZE_MAX, SIZE_MAX };

    for (size_t at = 0; at < s.len;) {
        char c = s.ptr[at];
        bool within = e.open != SIZE_MAX && e.close == SIZE_MAX;
        if (c == '"' || c == '(' || c == '[') {
            at = header_skip_enclosed(s, at);
            continue;
        }
        if (c == '<' && e.open == SIZE_MAX)
            e.open = at;
        else if (c == '>' && within)
            e.close = at;
        else if (!within && (c == ',' || c == ';' || c == ':')) {
            e.end = at;
            break;
        }
        at++;
    }
    return e;
}

enum addresses
addresses_next(struct str *rest, struct arena *arena, struct mailbox *out)
{
    for (;;) {
        header_skip_cfws(rest);
        if (rest->len == 0)
            return ADDRESSES_END;
        struct element e = find_element(*rest);
        struct str text = str_slice(*rest, 0, e.end);
        bool names_group = e.end < rest->len && rest->ptr[e.end] == ':' && e.open == SIZE_MAX;
        *rest = str_from(*rest, e.end + 1);
        struct str ahead = text;
        header_skip_cfws(&ahead);
        if (names_group || ahead.len == 0)
            continue;
        struct mailbox m = { .name = S(""), .text = str_trim(text) };
        struct str spec = text, behind = S("");
        if (e.open != SIZE_MAX) {
            m.name = str_trim(str_slice(text, 0, e.open));
            spec = str_slice(text, e.open + 1, e.close);
            behind = e.close == SIZE_MAX ? S("") : str_from(text, e.close + 1);
            header_skip_cfws(&behind);
        }
        m.spec = str_trim(spec);
        bool sound = (e.open == SIZE_MAX || e.close != SIZE_MAX) && behind.len == 0 && parse_spec(spec, arena, &m.path);
        *out = m;
        return sound ? ADDRESSES_ONE : ADDRESSES_BAD;
    }
}
