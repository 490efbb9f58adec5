/* hostile - see hostile.h. */
#include "hostile.h"

#include "fuzz.h"
#include "message/lines.h"

static size_t
next_piece(const struct hostile *h, struct str rest)
{
    size_t len = h->step;

    if (h->pace == HOSTILE_AT_ONCE)
        len = rest.len;
    else if (h->pace == HOSTILE_LINES)
        len = str_find_byte(rest, '\n') + 1;
    return len < rest.len ? len : rest.len;
}

static void
talk(void *arg)
{
    struct hostile *h = arg;

    for (struct str rest = h->script; rest.len > 0 && !h->gone;) {
        size_t len = next_piece(h, rest), heard = h->heard_bytes;
        if (err_is(stream_write(h->stream, str_slice(rest, 0, len), FOREVER)))
            return;
        rest = str_from(rest, len);
        if (h->pace == HOSTILE_LINES)
            for (int i = 0; i < 100 && h->heard_bytes == heard && !h->gone; i++)
                rt_sleep(h->rt, within(h->rt, 10 * MILLISECOND));
        else if (h->pace == HOSTILE_SLOW)
            rt_sleep(h->rt, within(h->rt, MINUTE));
        else
            fiber_yield(h->rt);
    }
    if (h->end == HOSTILE_CLOSES)
        stream_shut_down(h->stream);
}

static void
hear(struct hostile *h)
{
    char memory[4096];
    size_t len;

    while (!err_is(stream_read(h->stream, memory, sizeof memory, FOREVER, &len)) && len > 0) {
        h->heard_bytes += len;
        text_put(&h->heard, str_new(memory, len));
    }
    h->gone = true;
}

void
hostile_run(void *arg)
{
    struct hostile *h = arg;
    struct scope talking;

    scope_init(&talking, h->rt);
    scope_start(&talking, "hostile talks", talk, h);
    if (h->deaf || h->end == HOSTILE_RESETS)
        scope_wait(&talking, within(h->rt, HOUR));
    if (h->end == HOSTILE_RESETS) {
        char memory[4096];
        size_t len;
        while (!err_is(stream_read_now(h->stream, memory, sizeof memory, &len)) && len > 0)
            text_put(&h->heard, str_new(memory, len));
        scope_end(&talking);
        stream_reset(h->stream);
        return;
    }
    hear(h);
    scope_end(&talking);
    stream_close(h->stream);
}

/* ---- reading what the client said -------------------------------------------------------------------------------- */

static void
check_form(struct str content, bool binary)
{
    struct fuzz_lines s = fuzz_lines(str_slice(content, 0, content.len - str_ends(content, S("\r")))); /* its LF may be cut off */

    CHECK(binary || (!s.bare_lf && !s.bare_cr));
}

/* Behind DATA and 354. */
static void
take_data(struct str *heard, const struct hostile_sent *sent, struct arena *arena)
{
    struct lines_unstuff u = { 0 };
    struct text content = fuzz_text(arena, heard->len + 8);
    struct str pieces[64], before = *heard;

    while (heard->len > 0 && !u.ended)
        for (size_t i = 0, count = lines_unstuff(&u, heard, pieces, 64); i < count; i++)
            text_put(&content, pieces[i]);
    check_form(str_slice(before, 0, before.len - heard->len), false);
    struct str came = text_str(&content);
    if (sent->t->accepted == 0 || !remote_reply_is_positive(&sent->t->mail)) { /* never the real message */
        CHECK(came.len == 0);
        return;
    }
    CHECK(u.ended || sent->t->stage <= CLIENT_AT_FINAL);
    if (sent->convertible)
        return;
    struct str wanted = fuzz_repaired(sent->content, arena);
    if (!u.ended)
        CHECK(str_starts(wanted, str_slice(came, 0, came.len < wanted.len ? came.len : wanted.len)));
    else
        CHECK(str_starts(came, wanted) && (came.len == wanted.len || str_eq(str_from(came, wanted.len), S("\r\n"))));
}

/* "BDAT n [LAST]" was taken; true: it was the last chunk, and all of it is there. */
static bool
take_chunk(struct str *heard, struct str args, struct text *content)
{
    struct str number = str_cut_word(&args), last = str_cut_word(&args);
    uint64_t len;

    CHECK(str_to_u64(number, &len) && (last.len == 0 || str_eq(last, S("LAST"))));
    bool whole = len <= heard->len;
    text_put(content, str_slice(*heard, 0, len));
    *heard = str_from(*heard, len);
    return whole && last.len > 0;
}

static void
check_chunks(struct str came, bool ended, const struct hostile_sent *sent, struct arena *arena)
{
    CHECK(sent->t->accepted > 0);
    check_form(came, sent->binary);
    if (sent->convertible)
        return;
    struct str wanted = sent->binary ? sent->content : fuzz_repaired(sent->content, arena);
    CHECK(ended ? str_eq(came, wanted) : str_starts(wanted, came));
}

static void
check_command(struct str line)
{
    static const struct str verbs[] = { STR("EHLO "), STR("HELO "), STR("LHLO "), STR("MAIL FROM:<"), STR("RCPT TO:<"),
                                        STR("DATA"), STR("BDAT "), STR("RSET"), STR("QUIT") };
    bool known = false;

    CHECK(line.len + 2 <= LIMIT_COMMAND_LINE);
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++)
        known |= str_starts(line, verbs[i]);
    CHECK(known);
    for (size_t i = 0; i < line.len; i++)
        CHECK((unsigned char)line.ptr[i] >= ' ' && line.ptr[i] != 0x7f);
}

void
hostile_check(struct str heard, const struct hostile_sent *sent, size_t count, struct arena *arena)
{
    struct text chunks = fuzz_text(arena, heard.len);
    size_t mails = 0, ended = 0; /* transactions begun; those whose content was seen */

    while (heard.len > 0) {
        size_t end = str_find(heard, S("\r\n"));
        if (end == heard.len) /* the connection broke here */
            return;
        struct str line = str_slice(heard, 0, end);
        heard = str_from(heard, end + 2);
        check_command(line);
        mails += str_starts(line, S("MAIL "));
        const struct hostile_sent *now = mails > 0 ? &sent[mails - 1] : NULL;
        CHECK(mails <= count);
        if (str_starts(line, S("MAIL ")))
            chunks.len = 0;
        if (str_eq(line, S("DATA"))) {
            CHECK(now);
            if (now->t->data.code == 354) {
                CHECK(++ended <= mails);
                take_data(&heard, now, arena);
            }
        } else if (str_starts(line, S("BDAT "))) {
            CHECK(now);
            bool last = take_chunk(&heard, str_from(line, 5), &chunks);
            check_chunks(text_str(&chunks), last, now, arena);
            ended += last;
            CHECK(ended <= mails);
        }
    }
}
