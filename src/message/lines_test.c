/* Line ends and dots, fed cut at every byte and byte by byte. */
#include "message/lines.h"

#include "base/prng.h"
#include "base/test.h"

#include <stdio.h>
#include <string.h>

static void
feed_cut(struct test *t, struct str in, size_t cut, void (*feed)(struct test *, void *, struct str), void *closure)
{
    struct str head = test_edge(str_slice(in, 0, cut)), tail = test_edge(str_from(in, cut));

    feed(t, closure, head);
    feed(t, closure, tail);
    test_edge_free(head);
    test_edge_free(tail);
}

struct repairing {
    struct lines_repair repair;
    struct text out;
    bool copied;
};

static void
feed_repair(struct test *t, void *closure, struct str piece)
{
    struct repairing *r = closure;
    char room[512];

    (void)t;
    struct str repaired = lines_repair(&r->repair, piece, room);
    r->copied |= repaired.ptr == room;
    text_put(&r->out, repaired);
}

static void
repairs(struct test *t)
{
    static const struct { const char *why; struct str in, out; uint64_t repaired; } cases[] = {
        { "good",              STR("a\r\n\r\nb\r\n"),  STR("a\r\n\r\nb\r\n"), 0 },
        { "LF",                STR("a\n.\nb\n"),       STR("a\r\n.\r\nb\r\n"), 3 },
        { "CR",                STR("a\rb\r"),          STR("a\r\nb\r\n"), 2 },
        { "CR CR LF",          STR("a\r\r\nb"),        STR("a\r\n\r\nb"), 1 },
        { "LF CR",             STR("a\n\rb"),          STR("a\r\n\r\nb"), 2 },
        { "CR CR",             STR("\r\r"),            STR("\r\n\r\n"), 2 },
        { "NUL stays",         STR("\0\n"),            STR("\0\r\n"), 1 },
        { "no final line end", STR("a"),               STR("a"), 0 },
        { "empty",             STR(""),                STR(""), 0 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (size_t cut = 0; cut <= cases[i].in.len; cut++) {
            char memory[64];
            struct repairing r = { .out = text_init(memory, sizeof memory) };
            test_case(t, cases[i].why);
            feed_cut(t, cases[i].in, cut, feed_repair, &r);
            text_put(&r.out, lines_repair_end(&r.repair));
            EXPECT_STR(t, text_str(&r.out), cases[i].out);
            EXPECT_INT(t, r.repair.repaired, cases[i].repaired);
            if (cut == 0)
                EXPECT(t, r.copied == (cases[i].repaired > 0 && cases[i].in.len > 1));
        }
}

struct stuffing {
    struct lines_stuff stuff;
    struct lines_unstuff unstuff;
    struct text out;
    size_t max;
};

static void
feed_stuff(struct test *t, void *closure, struct str piece)
{
    struct stuffing *s = closure;
    struct str pieces[16];

    while (piece.len) {
        size_t before = piece.len;
        size_t count = lines_stuff(&s->stuff, &piece, pieces, s->max);
        EXPECT(t, count <= s->max && (count > 0 || piece.len < before));
        for (size_t i = 0; i < count; i++)
            text_put(&s->out, pieces[i]);
    }
}

static void
feed_unstuff(struct test *t, void *closure, struct str piece)
{
    struct stuffing *s = closure;
    struct str pieces[16];

    while (piece.len && !s->unstuff.ended) {
        size_t before = piece.len;
        enum lines_unstuff_at at = s->unstuff.at;
        size_t count = lines_unstuff(&s->unstuff, &piece, pieces, s->max);
        EXPECT(t, count <= s->max && (count > 0 || piece.len < before || at != s->unstuff.at));
        for (size_t i = 0; i < count; i++)
            text_put(&s->out, pieces[i]);
    }
}

static void
stuffs_dots(struct test *t)
{
    static const struct { const char *why; struct str in, out; } cases[] = {
        { "nothing",             STR(""),                  STR(".\r\n") },
        { "a line",              STR("a\r\n"),             STR("a\r\n.\r\n") },
        { "no final line end",   STR("a"),                 STR("a\r\n.\r\n") },
        { "a dot",               STR("."),                 STR("..\r\n.\r\n") },
        { "dots",                STR(".\r\n..\r\n.a\r\n"), STR("..\r\n...\r\n..a\r\n.\r\n") },
        { "a dot within",        STR("a.\r\n b.c\r\n"),    STR("a.\r\n b.c\r\n.\r\n") },
        { "bare LF before dot",  STR("a\n.\nb\r\n"),       STR("a\r\n..\r\nb\r\n.\r\n") },
        { "bare CR before dot",  STR("a\r.\rb\r\n"),       STR("a\r\n..\r\nb\r\n.\r\n") },
        { "LF.CRLF",             STR("a\n.\r\nb"),         STR("a\r\n..\r\nb\r\n.\r\n") },
        { "CR CRLF.CR CRLF",     STR("a\r\r\n.\r\r\nb"),   STR("a\r\n\r\n..\r\n\r\nb\r\n.\r\n") },
        { "last a bare CR",      STR("a\r"),               STR("a\r\n.\r\n") },
        { "last a bare LF",      STR("a\n"),               STR("a\r\n.\r\n") },
        { "NUL",                 STR("\r\n\0.\r\n"),       STR("\r\n\0.\r\n.\r\n") },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (size_t cut = 0; cut <= cases[i].in.len; cut++)
            for (size_t max = LINES_PIECES_MIN; max <= 16; max += 12) {
                char memory[64], back[64];
                struct stuffing s = { .out = text_init(memory, sizeof memory), .max = max };
                test_case(t, cases[i].why);
                feed_cut(t, cases[i].in, cut, feed_stuff, &s);
                text_put(&s.out, lines_stuff_end(&s.stuff));
                EXPECT_STR(t, text_str(&s.out), cases[i].out);

                struct str wire = text_str(&s.out);
                struct stuffing u = { .out = text_init(back, sizeof back), .max = max };
                feed_cut(t, wire, cut, feed_unstuff, &u);
                EXPECT(t, u.unstuff.ended);
                struct repairing r = { .out = text_init(memory, sizeof memory) };
                feed_repair(t, &r, cases[i].in);
                text_put(&r.out, lines_repair_end(&r.repair));
                if (r.out.len && !str_ends(text_str(&r.out), S("\r\n")))
                    text_put(&r.out, S("\r\n"));
                EXPECT_STR(t, text_str(&u.out), text_str(&r.out));
            }
}

static void
finds_the_only_end(struct test *t)
{
    static const struct { const char *why; struct str in; bool ended; struct str out; size_t left; } cases[] = {
        { "empty message",        STR(".\r\nQUIT"),              true,  STR(""), 4 },
        { "text behind",          STR("a\r\n.\r\nQUIT\r\n"),     true,  STR("a\r\n"), 6 },
        { "dot doubled",          STR("..\r\n.\r\n"),            true,  STR(".\r\n"), 0 },
        { "single leading dot",   STR(".a\r\n.\r\n"),            true,  STR("a\r\n"), 0 },
        { "LF.LF",                STR("a\n.\nb"),                false, STR("a\n.\nb"), 0 },
        { "LF.CRLF",              STR("a\n.\r\nb"),              false, STR("a\n.\r\nb"), 0 },
        { "CRLF.LF",              STR("a\r\n.\nb"),              false, STR("a\r\n\nb"), 0 },
        { "CR.CR",                STR("a\r.\rb"),                false, STR("a\r.\rb"), 0 },
        { "CRLF.CR",              STR("a\r\n.\rb"),              false, STR("a\r\n\rb"), 0 },
        { "CRLF.CR CRLF",         STR("a\r\n.\r\r\nb"),          false, STR("a\r\n\r\r\nb"), 0 },
        { "CRLF.CR CRLF.CRLF",    STR("a\r\n.\r\r\n.\r\nx"),     true,  STR("a\r\n\r\r\n"), 1 },
        { "CR CRLF.CRLF",         STR("a\r\r\n.\r\n"),           true,  STR("a\r\r\n"), 0 },
        { "CRLF NUL.CRLF",        STR("a\r\n\0.\r\n"),           false, STR("a\r\n\0.\r\n"), 0 },
        { "CR at the end",        STR("a\r"),                    false, STR("a\r"), 0 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (size_t cut = 0; cut <= cases[i].in.len; cut++) {
            char memory[64];
            struct stuffing s = { .out = text_init(memory, sizeof memory), .max = LINES_PIECES_MIN };
            test_case(t, cases[i].why);
            feed_cut(t, cases[i].in, cut, feed_unstuff, &s);
            EXPECT(t, s.unstuff.ended == cases[i].ended);
            EXPECT_STR(t, text_str(&s.out), cases[i].out);
        }
    struct stuffing s = { .max = 16 };
    struct str rest = S("a\r\n.\r\nQUIT\r\n"), pieces[16];
    lines_unstuff(&s.unstuff, &rest, pieces, 16);
    EXPECT_STR(t, rest, S("QUIT\r\n"));
}

/* Whatever the content and however it is cut: what leaves us has one end of data, and it is the last. */
static void
random_content_has_one_end(struct test *t)
{
    static const char alphabet[] = "\r\n.a\r\n.";
    struct prng prng;

    prng_seed(&prng, 42);
    for (int round = 0; round < 20000; round++) {
        char in[24], memory[128];
        size_t len = prng_below(&prng, sizeof in + 1);
        struct stuffing s = { .out = text_init(memory, sizeof memory), .max = LINES_PIECES_MIN };
        for (size_t i = 0; i < len; i++)
            in[i] = alphabet[prng_below(&prng, sizeof alphabet - 1)];
        for (size_t from = 0; from < len;) {
            size_t to = from + 1 + prng_below(&prng, len - from);
            feed_stuff(t, &s, str_slice(str_new(in, len), from, to));
            from = to;
        }
        text_put(&s.out, lines_stuff_end(&s.stuff));
        struct str out = text_str(&s.out), body = str_slice(out, 0, out.len - 3);
        EXPECT(t, str_ends(out, S(".\r\n")) && (body.len == 0 || str_ends(body, S("\r\n"))));
        EXPECT(t, !str_starts(body, S(".\r")) && !str_starts(body, S(".\n")));
        EXPECT(t, str_find(body, S("\n.\r")) == body.len && str_find(body, S("\n.\n")) == body.len);
        struct lines_repair repair = { 0 };
        char room[2 * sizeof memory + 2];
        lines_repair(&repair, out, room);
        if (!EXPECT_INT(t, repair.repaired, 0)) /* nothing bare is in it */
            return;
    }
}

TEST_MAIN({ "repairs", repairs }, { "stuffs dots", stuffs_dots },
          { "finds the only end", finds_the_only_end }, { "random content has one end", random_content_has_one_end })
