/*
 * lines - see lines.h.
 *
 * The fast way over good content is memchr() from LF to LF: with lines of 76 bytes that is several GB/s. The states
 * exist for what a boundary between two pieces may cut apart.
 */
#include "message/lines.h"

#include "base/check.h"

#include <string.h>

static size_t
find_from(struct str s, size_t from, char c)
{
    return from + str_find_byte(str_from(s, from), c);
}

static bool
is_all_crlf(struct str s)
{
    for (size_t at = 0; at < s.len;) {
        size_t cr = find_from(s, at, '\r');
        if (find_from(str_slice(s, 0, cr), at, '\n') < cr)
            return false;
        if (cr < s.len && (cr + 1 == s.len || s.ptr[cr + 1] != '\n'))
            return false;
        at = cr + 2;
    }
    return true;
}

struct str
lines_repair(struct lines_repair *r, struct str bytes, char *room)
{
    struct text out = text_init(room, 2 * bytes.len + 2);

    if (!r->after_cr) {
        struct str sound = bytes;
        if (str_ends(sound, S("\r")))
            sound.len--;
        if (is_all_crlf(sound)) {
            r->after_cr = sound.len < bytes.len;
            return sound;
        }
    }
    for (size_t i = 0; i < bytes.len; i++) {
        char c = bytes.ptr[i];
        bool was_cr = r->after_cr;
        r->after_cr = c == '\r';
        if (c == '\n') {
            r->repaired += !was_cr;
            text_put(&out, S("\r\n"));
            continue;
        }
        if (was_cr) {
            r->repaired++;
            text_put(&out, S("\r\n"));
        }
        if (c != '\r')
            text_put_byte(&out, c);
    }
    CHECK(!out.full);
    return text_str(&out);
}

struct str
lines_repair_end(struct lines_repair *r)
{
    bool held = r->after_cr;

    r->repaired += held;
    r->after_cr = false;
    return held ? S("\r\n") : S("");
}

/* The length of the longest front of s that is lines as they should be: no bare CR or LF, no dot at a line's start (s
 * begins within a line). What follows is the end, a special case, or a CR that ends s. */
static size_t
run_of_good_lines(struct str s, enum lines_stuff_at *at)
{
    size_t from = 0;

    *at = LINES_WITHIN;
    while (from < s.len) {
        size_t lf = find_from(s, from, '\n');
        size_t cr = find_from(str_slice(s, 0, lf), from, '\r');
        if (cr + 1 != lf || lf == s.len)
            return cr; /* the bare CR; without one the bare LF, or the end */
        from = lf + 1;
        *at = LINES_AT_START;
        if (from == s.len || s.ptr[from] == '.')
            return from;
        *at = LINES_WITHIN;
    }
    return from;
}

size_t
lines_stuff(struct lines_stuff *l, struct str *bytes, struct str *pieces, size_t max)
{
    size_t count = 0;

    CHECK(max >= LINES_PIECES_MIN);
    while (bytes->len && count + 3 <= max) { /* a dot, good lines, CRLF */
        if (l->at == LINES_AFTER_CR) { /* that CR was not given yet: it becomes CRLF whatever follows */
            str_take_byte(bytes, '\n');
            l->at = LINES_AT_START;
            pieces[count++] = S("\r\n");
            continue;
        }
        if (l->at == LINES_AT_START && bytes->ptr[0] == '.')
            pieces[count++] = S(".");
        size_t good = run_of_good_lines(*bytes, &l->at);
        if (good > 0)
            pieces[count++] = str_slice(*bytes, 0, good);
        *bytes = str_from(*bytes, good);
        if (bytes->len && (l->at == LINES_WITHIN || bytes->ptr[0] != '.')) {
            if (str_take_byte(bytes, '\r')) {
                l->at = LINES_AFTER_CR;
            } else if (str_take_byte(bytes, '\n')) {
                pieces[count++] = S("\r\n");
                l->at = LINES_AT_START;
            }
        }
    }
    return count;
}

struct str
lines_stuff_end(struct lines_stuff *l)
{
    bool at_start = l->at == LINES_AT_START;

    l->at = LINES_AT_START;
    return at_start ? S(".\r\n") : S("\r\n.\r\n");
}

size_t
lines_unstuff(struct lines_unstuff *u, struct str *bytes, struct str *pieces, size_t max)
{
    size_t count = 0;

    CHECK(max >= LINES_PIECES_MIN);
    while (bytes->len && !u->ended && count < max) {
        char c = bytes->ptr[0];
        switch (u->at) {
        case UNSTUFF_AT_START:
            u->at = UNSTUFF_WITHIN;
            if (c == '.') { /* dropped, whatever follows */
                *bytes = str_from(*bytes, 1);
                u->at = UNSTUFF_AFTER_DOT;
            }
            break;
        case UNSTUFF_AFTER_DOT:
            u->at = UNSTUFF_WITHIN;
            if (c == '\r') { /* held back: it may be the end's */
                *bytes = str_from(*bytes, 1);
                u->at = UNSTUFF_AFTER_DOT_CR;
            }
            break;
        case UNSTUFF_AFTER_DOT_CR:
            if (c == '\n') {
                *bytes = str_from(*bytes, 1);
                u->ended = true;
            } else {
                pieces[count++] = S("\r");
                u->at = UNSTUFF_AFTER_CR;
            }
            break;
        case UNSTUFF_AFTER_CR:
            if (c == '\n') {
                pieces[count++] = str_slice(*bytes, 0, 1);
                *bytes = str_from(*bytes, 1);
                u->at = UNSTUFF_AT_START;
            } else {
                u->at = UNSTUFF_WITHIN;
            }
            break;
        case UNSTUFF_WITHIN: {
            /* Up to and with the next CRLF that a dot follows, or all of it. */
            size_t at = 0;
            do {
                at = find_from(*bytes, at, '\n');
                at += at < bytes->len;
            } while (at < bytes->len && !(bytes->ptr[at] == '.' && at >= 2 && bytes->ptr[at - 2] == '\r'));
            struct str piece = str_slice(*bytes, 0, at);
            pieces[count++] = piece;
            *bytes = str_from(*bytes, at);
            if (str_ends(piece, S("\r\n")))
                u->at = UNSTUFF_AT_START;
            else if (str_ends(piece, S("\r")))
                u->at = UNSTUFF_AFTER_CR;
            break;
        }
        }
    }
    return count;
}
