/* path - see path.h. */
#include "message/path.h"

#include "message/domain.h"
#include "message/utf8.h"

/* RFC 5322 atext, and the dot. */
static bool
is_dot_atext(char c)
{
    return byte_is_alnum(c) || str_has_byte(S("!#$%&'*+-/=?^_`{|}~."), c);
}

/* Dot-string, without minding where the dots are. */
static bool
take_dot_string(struct str *rest, struct str *out_local)
{
    struct str s = *rest;
    uint32_t point;

    while (s.len && (is_dot_atext(s.ptr[0]) || (s.ptr[0] & 0x80))) {
        if (!utf8_take(&s, &point) || utf8_is_control(point))
            return false;
    }
    *out_local = str_slice(*rest, 0, rest->len - s.len);
    *rest = s;
    return out_local->len > 0;
}

/* Quoted-string: qtextSMTP is 32 to 126 without quote and backslash, quoted pairs are 32 to 126, RFC 6531 adds UTF-8.
 * */
static bool
take_quoted_string(struct str *rest, struct arena *arena, struct str *out_local)
{
    struct str s = *rest;
    size_t pairs = 0;
    uint32_t point;

    if (!str_take_byte(&s, '"'))
        return false;
    struct str inside = s;
    while (!str_starts(s, S("\""))) {
        bool pair = str_take_byte(&s, '\\');
        if (!utf8_take(&s, &point) || utf8_is_control(point) || (pair && point > 0x7f))
            return false;
        pairs += pair;
    }
    inside.len -= s.len;
    if (pairs > 0) {
        struct text t = text_init(arena_alloc(arena, inside.len), inside.len);
        while (inside.len) {
            str_take_byte(&inside, '\\');
            text_put_byte(&t, inside.ptr[0]);
            inside = str_from(inside, 1);
        }
        inside = text_str(&t);
    }
    *out_local = inside;
    *rest = str_from(s, 1);
    return true;
}

static bool
take_domain(struct str *rest, struct str *out_domain)
{
    struct str s = *rest;
    size_t len = 0;

    if (s.len && s.ptr[0] == '[') {
        size_t close = str_find_byte(s, ']');
        len = close < s.len ? close + 1 : 0;
    } else {
        while (len < s.len && (byte_is_alnum(s.ptr[len]) || s.ptr[len] == '-' || s.ptr[len] == '_' ||
                               s.ptr[len] == '.' || (s.ptr[len] & 0x80)))
            len++;
    }
    struct str domain = domain_without_dot(str_slice(s, 0, len));
    if (!domain_is_valid(domain))
        return false;
    *out_domain = domain;
    *rest = str_from(s, len);
    return true;
}

/* A-d-l ":", RFC 5321 section 4.1.2 and appendix C: "@a,@b:". */
static bool
skip_source_route(struct str *rest)
{
    struct str ignored;

    if (!str_starts(*rest, S("@")))
        return true;
    do {
        if (!str_take_byte(rest, '@') || !take_domain(rest, &ignored))
            return false;
    } while (str_take_byte(rest, ','));
    return str_take_byte(rest, ':');
}

/* Mailbox; without a domain only where `bare` says so, or for postmaster. */
static bool
take_mailbox(struct str *rest, struct arena *arena, bool bare, struct path *out)
{
    struct path path = { .domain = S("") };
    bool quoted = str_starts(*rest, S("\""));

    if (quoted ? !take_quoted_string(rest, arena, &path.local) : !take_dot_string(rest, &path.local))
        return false;
    if (!str_take_byte(rest, '@')) {
        if (!bare && !path_is_postmaster(path))
            return false;
    } else if (!take_domain(rest, &path.domain)) {
        return false;
    }
    *out = path;
    return true;
}

static bool
take_any(struct str *rest, struct arena *arena, bool bare, struct path *out)
{
    struct str s = *rest;
    struct path path = { S(""), S("") };

    while (s.len && byte_is_space(s.ptr[0]))
        s = str_from(s, 1);
    if (str_take_byte(&s, '<')) {
        if (!str_take_byte(&s, '>')) {
            if (!skip_source_route(&s) || !take_mailbox(&s, arena, bare, &path) || !str_take_byte(&s, '>'))
                return false;
        }
    } else if (!take_mailbox(&s, arena, bare, &path)) {
        return false;
    }
    if (s.len && !byte_is_space(s.ptr[0]))
        return false;
    *rest = s;
    *out = path;
    return true;
}

bool
path_take(struct str *rest, struct arena *arena, struct path *out_path)
{
    return take_any(rest, arena, false, out_path);
}

bool
path_parse(struct str s, struct arena *arena, struct path *out_path)
{
    struct path path;

    if (!take_any(&s, arena, true, &path) || str_trim(s).len > 0)
        return false;
    *out_path = path;
    return true;
}

struct path
path_keep(struct path p, struct arena *arena)
{
    return (struct path){ arena_keep(arena, p.local), arena_keep(arena, p.domain) };
}

static bool
needs_quotes(struct str local)
{
    if (local.len == 0 || local.ptr[0] == '.' || local.ptr[local.len - 1] == '.' ||
        str_find(local, S("..")) < local.len)
        return true;
    for (size_t i = 0; i < local.len; i++)
        if (!is_dot_atext(local.ptr[i]) && !(local.ptr[i] & 0x80))
            return true;
    return false;
}

void
path_put_local(struct text *t, struct str local)
{
    if (!needs_quotes(local)) {
        text_put(t, local);
        return;
    }
    text_put_byte(t, '"');
    for (size_t i = 0; i < local.len; i++) {
        if (local.ptr[i] == '"' || local.ptr[i] == '\\')
            text_put_byte(t, '\\');
        text_put_byte(t, local.ptr[i]);
    }
    text_put_byte(t, '"');
}

void
path_put(struct text *t, struct path p)
{
    if (path_is_null(p))
        return;
    path_put_local(t, p.local);
    if (p.domain.len == 0)
        return;
    text_put_byte(t, '@');
    text_put_lower(t, p.domain);
}

struct str
path_text(struct path p, struct arena *arena)
{
    size_t cap = 2 * p.local.len + p.domain.len + 4;
    struct text t = text_init(arena_alloc(arena, cap), cap);

    path_put(&t, p);
    return text_str(&t);
}

bool
path_is_postmaster(struct path p)
{
    return str_eq_nocase(p.local, S("postmaster"));
}

bool
path_is_ascii(struct path p)
{
    return str_is_ascii(p.local) && str_is_ascii(p.domain);
}

bool
path_eq(struct path a, struct path b)
{
    return str_eq(a.local, b.local) && domain_eq(a.domain, b.domain);
}

bool
path_split_detail(struct str local, struct str delimiters, struct str *out_user, struct str *out_detail)
{
    for (size_t i = 1; i + 1 < local.len; i++) {
        if (!str_has_byte(delimiters, local.ptr[i]))
            continue;
        *out_user = str_slice(local, 0, i);
        *out_detail = str_from(local, i + 1);
        return true;
    }
    return false;
}
