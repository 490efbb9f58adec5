/* recipients - see recipients.h. */
#include "cli/recipients.h"

struct scan {
    struct text words;  /* what stands outside of brackets */
    struct text angle;  /* what stands in them */
    bool in_angle, has_angle;
    bool space;         /* one came, and it is not known yet whether it separates */
};

static bool
is_blank(char c)
{
    return byte_is_space(c) || c == '\r' || c == '\n';
}

/* Behind a comment, which may hold others; or the end. */
static size_t
skip_comment(struct str s, size_t at)
{
    size_t depth = 0;

    for (; at < s.len; at++) {
        if (s.ptr[at] == '\\')
            at++;
        else if (s.ptr[at] == '(')
            depth++;
        else if (s.ptr[at] == ')' && --depth == 0)
            return at + 1;
    }
    return s.len;
}

static void
put(struct scan *scan, char c)
{
    struct text *t = scan->in_angle ? &scan->angle : &scan->words;
    char last = t->len > 0 ? t->ptr[t->len - 1] : '.';

    /* "a @ b . c" is one word (RFC 5322 section 4.4), "a b" is two, and no address: the space stays, to be found
     * wrong. */
    if (scan->space && last != '.' && last != '@' && c != '.' && c != '@')
        text_put_byte(t, ' ');
    scan->space = false;
    text_put_byte(t, c);
}

/* "..." or "[...]" with what it holds. Behind it; or the end. */
static size_t
put_quoted(struct scan *scan, struct str s, size_t at, char end)
{
    put(scan, s.ptr[at++]);
    for (; at < s.len; at++) {
        text_put_byte(scan->in_angle ? &scan->angle : &scan->words, s.ptr[at]);
        if (s.ptr[at] == '\\' && at + 1 < s.len)
            text_put_byte(scan->in_angle ? &scan->angle : &scan->words, s.ptr[++at]);
        else if (s.ptr[at] == end)
            return at + 1;
    }
    return at;
}

/* One entry of the list; *at moves behind the comma or semicolon that ends it. */
static struct str
take_entry(struct str s, size_t *at, struct arena *arena)
{
    size_t left = 2 * (s.len - *at) + 1; /* a space may be put before a byte */
    struct scan scan = { .words = text_init(arena_alloc(arena, left), left),
                         .angle = text_init(arena_alloc(arena, left), left) };

    while (*at < s.len) {
        char c = s.ptr[*at];
        if (is_blank(c)) {
            scan.space = true;
            ++*at;
        } else if (c == '(') {
            scan.space = true;
            *at = skip_comment(s, *at);
        } else if (c == '"' || c == '[') {
            *at = put_quoted(&scan, s, *at, c == '"' ? '"' : ']');
        } else if ((c == ',' && !scan.in_angle) || c == ';') { /* a comma in brackets is a route's */
            ++*at;
            break;
        } else if (c == '<' && !scan.in_angle) {
            scan.in_angle = scan.has_angle = true;
            scan.angle.len = 0;
            scan.space = false;
            ++*at;
        } else if (c == '>') {
            scan.in_angle = scan.space = false;
            ++*at;
        } else if (c == ':') { /* what came was a group's name, or a route */
            if (scan.in_angle)
                scan.angle.len = 0;
            else
                scan.words.len = 0;
            scan.space = false;
            ++*at;
        } else {
            put(&scan, c);
            ++*at;
        }
    }
    return scan.has_angle ? text_str(&scan.angle) : text_str(&scan.words);
}

bool
recipients_take(struct str *rest, struct arena *arena, struct str *out)
{
    size_t at = 0;

    while (at < rest->len) {
        struct str entry = take_entry(*rest, &at, arena);
        if (entry.len == 0)
            continue;
        *out = entry;
        *rest = str_from(*rest, at);
        return true;
    }
    *rest = str_from(*rest, at);
    return false;
}
