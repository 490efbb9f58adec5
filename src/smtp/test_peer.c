#include "smtp/test_peer.h"

#include "base/check.h"

void
test_peer_init(struct test_peer *p, struct stream *stream, struct str script)
{
    p->rt = stream_rt(stream);
    p->own_stream = stream;
    p->script = script;
    p->ended = false;
    p->failure[0] = '\0';
    p->in_from = p->in_to = 0;
    p->patience = 20 * SECOND;
}

static bool
fail(struct test_peer *p, const char *what, struct str wanted, struct str got)
{
    struct text t = text_init(p->failure, sizeof p->failure);

    text_putf(&t, "%s: wanted '%.*s', got '%.*s'", what, STR_ARG(wanted), STR_ARG(got));
    (void)text_cstr(&t);
    return false;
}

static bool
fill(struct test_peer *p)
{
    size_t len;

    for (size_t i = p->in_from; i < p->in_to; i++)
        p->in[i - p->in_from] = p->in[i];
    p->in_to -= p->in_from;
    p->in_from = 0;
    if (p->in_to == sizeof p->in ||
        err_is(stream_read(p->own_stream, p->in + p->in_to, sizeof p->in - p->in_to, within(p->rt, p->patience), &len)))
        return false;
    p->in_to += len;
    return len > 0;
}

/* Without its CRLF; a line that ends otherwise is a failure. */
static bool
read_line(struct test_peer *p, struct str *out)
{
    for (;;) {
        struct str seen = str_new(p->in + p->in_from, p->in_to - p->in_from);
        size_t end = str_find(seen, S("\r\n"));

        if (end < seen.len) {
            *out = str_slice(seen, 0, end);
            p->in_from += end + 2;
            return str_find_byte(*out, '\n') == out->len && str_find_byte(*out, '\r') == out->len;
        }
        if (!fill(p))
            return false;
    }
}

static void
keep(struct test_peer *p, struct str bytes)
{
    p->content_bytes += bytes.len;
    if (p->content.ptr)
        text_put(&p->content, bytes);
}

static bool
say(struct test_peer *p, struct str line)
{
    const struct str parts[] = { line, S("\r\n") };

    return !err_is(stream_write_parts(p->own_stream, parts, 2, within(p->rt, p->patience)));
}

static bool
expect(struct test_peer *p, struct str wanted)
{
    struct str line;

    if (!read_line(p, &line))
        return fail(p, "the client left", wanted, S(""));
    if (str_ends(wanted, S("*")) ? str_starts(line, str_slice(wanted, 0, wanted.len - 1)) : str_eq(line, wanted))
        return true;
    return fail(p, "another line", wanted, line);
}

/* Bytes up to CRLF . CRLF, whatever the line ends between: the strictest reader, and never long lines in memory. */
static bool
read_content(struct test_peer *p)
{
    static const char end[] = "\r\n.\r\n";
    size_t matched = 2; /* the CRLF of DATA counts */

    for (;;) {
        if (p->in_from == p->in_to && !fill(p))
            return fail(p, "the client left", S("content"), S(""));
        char c = p->in[p->in_from++];
        keep(p, str_new(&c, 1));
        if (c == end[matched])
            matched++;
        else
            matched = c == '\r' ? 1 : 0;
        if (matched == 5)
            return true;
    }
}

static bool
read_chunk(struct test_peer *p)
{
    struct str line, command;
    uint64_t left;

    if (!read_line(p, &line))
        return fail(p, "the client left", S("BDAT"), S(""));
    command = line;
    if (!str_take(&line, S("BDAT ")) || !str_take_u64(&line, &left) || (line.len > 0 && !str_eq(line, S(" LAST"))))
        return fail(p, "no BDAT", S("BDAT"), command);
    while (left > 0) {
        if (p->in_from == p->in_to && !fill(p))
            return fail(p, "the client left", S("a chunk"), S(""));
        size_t len = p->in_to - p->in_from < left ? p->in_to - p->in_from : (size_t)left;
        keep(p, str_new(p->in + p->in_from, len));
        p->in_from += len;
        left -= len;
    }
    return true;
}

static bool
expect_recipients(struct test_peer *p, uint64_t count)
{
    char memory[64];

    for (uint64_t i = 0; i < count; i++) {
        struct text wanted = text_init(memory, sizeof memory);

        text_putf(&wanted, "RCPT TO:<u%llu@b.example>*", (unsigned long long)i);
        if (!expect(p, text_str(&wanted)) || !say(p, S("250 2.1.5 ok")))
            return false;
    }
    return true;
}

static bool
wait_seconds(struct test_peer *p, int64_t seconds)
{
    return !err_is(rt_sleep(p->rt, within(p->rt, seconds * SECOND)));
}

static bool
step(struct test_peer *p, struct str line)
{
    uint64_t times;

    if (str_take(&line, S("S: ")))
        return say(p, line);
    if (str_take(&line, S("C: ")))
        return expect(p, line);
    if (str_take(&line, S("S# "))) {
        struct str count = str_from(line, str_find_last_byte(line, ' ') + 1);

        CHECK(str_to_u64(count, &times));
        line = str_slice(line, 0, line.len - count.len - 1);
        while (times-- > 0)
            if (!say(p, line))
                return false;
        return true;
    }
    if (str_take(&line, S("P "))) {
        CHECK(str_to_u64(line, &times));
        return expect_recipients(p, times);
    }
    if (str_eq(line, S("D")))
        return read_content(p);
    if (str_eq(line, S("B")))
        return read_chunk(p);
    if (str_eq(line, S("N")))
        return wait_seconds(p, 2);
    if (str_take(&line, S("T "))) {
        CHECK(str_to_u64(line, &times));
        return wait_seconds(p, (int64_t)times);
    }
    if (str_eq(line, S("W")) || str_eq(line, S("Z"))) {
        p->in_from = p->in_to;
        if (!fill(p))
            return true;
        return str_eq(line, S("Z")) ? step(p, line) : fail(p, "words", S("the end"), str_new(p->in, p->in_to));
    }
    CHECK(str_eq(line, S("R")) || str_eq(line, S("H")));
    if (str_eq(line, S("R")))
        stream_reset(p->own_stream);
    else
        stream_close(p->own_stream);
    p->own_stream = NULL;
    return true;
}

void
test_peer_run(void *arg)
{
    struct test_peer *p = arg;
    bool fine = true;

    while (fine && p->script.len > 0 && p->own_stream)
        fine = step(p, str_cut(&p->script, '\n'));
    p->ended = fine;
    if (p->own_stream)
        stream_close(p->own_stream);
    p->own_stream = NULL;
}
