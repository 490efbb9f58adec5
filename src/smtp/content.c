/*
 * content - see content.h.
 *
 * Text between line ends is found by memchr and passed on as it lies in the buffer. So a block without dots at line
 * starts and without repairs is one part. Bytes are held back only where a block ends in the middle of something:
 *
 *     AT_LINE     at the beginning, or behind CRLF
 *     AT_DOT      behind CRLF "."         the dot is dropped, whatever follows
 *     AT_DOT_CR   behind CRLF "." CR      LF: the end; else that CR is bare
 *     AT_TEXT     within a line
 *     AT_CR       behind a CR             LF: a line end; else that CR is bare
 */
#include "smtp/content.h"

#include "base/check.h"
#include "base/limits.h"

enum { AT_LINE, AT_DOT, AT_DOT_CR, AT_TEXT, AT_CR };

void
content_init(struct content *c, bool dots, bool repair, uint64_t size_max)
{
    *c = (struct content){ .dots = dots, .repair = repair, .size_max = size_max, .line = 1, .at = AT_LINE };
}

static void
fault(struct content *c, enum content_fault what)
{
    if (c->fault != CONTENT_FINE)
        return;
    c->fault = (uint8_t)what;
    c->fault_line = c->line;
}

static void
emit(struct content *c, struct content_parts *out, struct str part)
{
    if (part.len == 0 || c->fault != CONTENT_FINE)
        return;
    CHECK(out->count < CONTENT_PARTS);
    out->part[out->count++] = part;
    c->size += part.len;
    c->eight_bit = c->eight_bit || !str_is_ascii(part);
    if (c->size_max > 0 && c->size > c->size_max)
        fault(c, CONTENT_TOO_BIG);
    if (c->received.ended)
        return;
    received_count(&c->received, part);
    tls_required_scan(&c->tls_required, part);
    if (c->received.count > LIMIT_RECEIVED_HOPS)
        fault(c, CONTENT_LOOP);
    if (c->received.bytes > LIMIT_HEADER_BYTES)
        fault(c, CONTENT_BIG_HEADER);
}

static void
count_text(struct content *c, size_t len)
{
    c->line_len += len;
    if (c->line_len > LIMIT_TEXT_LINE)
        fault(c, CONTENT_LONG_LINE);
}

static void
count_line(struct content *c)
{
    c->line++;
    c->line_len = 0;
}

/* A CR or an LF that stands alone. The line goes on for whoever looks for its end: what follows is AT_TEXT. */
static void
bare(struct content *c, struct content_parts *out, enum content_fault what)
{
    if (!c->repair) {
        fault(c, what);
        return;
    }
    emit(c, out, S("\r\n"));
    c->repaired++;
    count_line(c);
}

/* The scan of one block. [from, at) is text that was seen and is not emitted yet. */
struct scan {
    struct content *content;
    struct content_parts *out;
    struct str raw;
    size_t from, at;
    size_t lf; /* the next LF at or behind `at`, or raw.len; looked for once, or many CRs would make this quadratic */
};

/* What was seen becomes a part; `drop` bytes behind it are held back or thrown away. */
static void
cut(struct scan *s, size_t drop)
{
    emit(s->content, s->out, str_slice(s->raw, s->from, s->at));
    s->at += drop;
    s->from = s->at;
}

static uint8_t
scan_text(struct scan *s)
{
    struct content *c = s->content;

    if (s->lf < s->at)
        s->lf = s->at + str_find_byte(str_from(s->raw, s->at), '\n');
    size_t text = str_find_byte(str_slice(s->raw, s->at, s->lf), '\r');
    count_text(c, text);
    s->at += text;
    if (s->at == s->raw.len)
        return AT_TEXT;
    if (s->at == s->lf) {
        cut(s, 1);
        bare(c, s->out, CONTENT_BARE_LF);
        return AT_TEXT;
    }
    if (s->at + 1 == s->lf && s->lf < s->raw.len) {
        s->at += 2; /* CRLF: the part goes on */
        count_line(c);
        return AT_LINE;
    }
    cut(s, 1);
    return AT_CR;
}

static uint8_t
scan_after_cr(struct scan *s)
{
    struct content *c = s->content;

    if (s->raw.ptr[s->at] != '\n') {
        bare(c, s->out, CONTENT_BARE_CR);
        return AT_TEXT;
    }
    cut(s, 1);
    emit(c, s->out, S("\r\n"));
    count_line(c);
    return AT_LINE;
}

/* One step; takes at least a byte, or changes what we are at. Makes at most two parts. */
static void
scan_step(struct scan *s)
{
    struct content *c = s->content;
    char byte = s->raw.ptr[s->at];

    switch (c->at) {
    case AT_LINE:
        if (c->dots && byte == '.') {
            cut(s, 1);
            c->at = AT_DOT;
        } else {
            c->at = AT_TEXT;
        }
        break;
    case AT_DOT:
        if (byte == '\r')
            cut(s, 1);
        c->at = byte == '\r' ? AT_DOT_CR : AT_TEXT;
        break;
    case AT_DOT_CR:
        if (byte == '\n')
            cut(s, 1);
        s->out->ended = byte == '\n';
        c->at = AT_CR;
        break;
    case AT_TEXT:
        c->at = scan_text(s);
        break;
    case AT_CR:
        c->at = scan_after_cr(s);
        break;
    default:
        UNREACHABLE();
    }
}

size_t
content_scan(struct content *c, struct str raw, struct content_parts *out)
{
    struct scan s = { c, out, raw, 0, 0, 0 };

    out->count = 0;
    out->ended = false;
    s.lf = str_find_byte(raw, '\n');
    while (s.at < raw.len && !out->ended && out->count + 3 <= CONTENT_PARTS)
        scan_step(&s);
    cut(&s, 0);
    if (c->fault != CONTENT_FINE)
        out->count = 0;
    return s.at;
}

void
content_end(struct content *c, struct content_parts *out)
{
    CHECK(!c->dots);
    out->count = 0;
    out->ended = true;
    if (c->at == AT_CR)
        bare(c, out, CONTENT_BARE_CR);
    c->at = AT_TEXT;
}
