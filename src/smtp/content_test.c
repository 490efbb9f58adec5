/* Tests of content.c: every case whole, cut at every byte, and byte by byte. */
#include "smtp/content.h"

#include "base/limits.h"
#include "base/test.h"

#include <stdlib.h>
#include <string.h>

/* Adds what the parts say to what was stored before. */
static void
store(struct text *stored, const struct content_parts *parts)
{
    for (size_t i = 0; i < parts->count; i++)
        text_put(stored, parts->part[i]);
}

/* Feeds one piece; returns how much of it was taken (all, but behind the end). */
static size_t
feed(struct content *c, struct str piece, struct text *stored, bool *ended)
{
    struct content_parts parts = { .ended = false };
    size_t taken = 0;

    while (taken < piece.len && !parts.ended) {
        taken += content_scan(c, str_from(piece, taken), &parts);
        store(stored, &parts);
    }
    *ended = parts.ended;
    return taken;
}

struct expected {
    const char *why;
    struct str in;     /* for DATA with its end; what stands behind must not be taken */
    struct str stored;
    size_t left;       /* bytes behind the end */
    enum content_fault fault;
    uint64_t fault_line;
};

static void
check(struct test *t, const struct expected *e, bool dots, bool repair, size_t cut1, size_t cut2)
{
    char memory[512];
    struct text stored = text_init(memory, sizeof memory);
    struct str edge = test_edge(e->in);
    struct content c;
    size_t at = 0;
    bool ended = false;

    content_init(&c, dots, repair, 0);
    for (int piece = 0; piece < 3 && !ended; piece++) {
        size_t end = piece == 0 ? cut1 : piece == 1 ? cut2 : e->in.len;
        at += feed(&c, str_slice(edge, at, end), &stored, &ended);
    }
    if (!dots) {
        struct content_parts parts;
        content_end(&c, &parts);
        store(&stored, &parts);
        ended = true;
    }
    EXPECT(t, ended);
    EXPECT_INT(t, e->in.len - at, e->left);
    EXPECT_INT(t, c.fault, e->fault);
    if (e->fault == CONTENT_FINE) {
        EXPECT_STR(t, text_str(&stored), e->stored);
        EXPECT_INT(t, c.size, e->stored.len);
    } else {
        EXPECT_INT(t, c.fault_line, e->fault_line);
    }
    test_edge_free(edge);
}

static void
check_all_cuts(struct test *t, const struct expected *e, bool dots, bool repair)
{
    test_case(t, e->why);
    for (size_t cut1 = 0; cut1 <= e->in.len; cut1++)
        for (size_t cut2 = cut1; cut2 <= e->in.len; cut2++)
            check(t, e, dots, repair, cut1, cut2);
}

#define END "\r\n.\r\n"
#define BEHIND "MAIL FROM:<x@y>\r\n"

static void
data_refusing(struct test *t)
{
    static const struct expected cases[] = {
        { "plain", STR("a\r\nb" END), STR("a\r\nb\r\n"), 0, 0, 0 },
        { "nothing behind the end is taken", STR("a" END BEHIND), STR("a\r\n"), sizeof BEHIND - 1, 0, 0 },
        { "empty: the first line is the dot", STR(".\r\n" BEHIND), STR(""), sizeof BEHIND - 1, 0, 0 },
        { "dot-dot is a dot", STR("a\r\n..\r\nb" END), STR("a\r\n.\r\nb\r\n"), 0, 0, 0 },
        { "dot-dot first", STR("..a" END), STR(".a\r\n"), 0, 0, 0 },
        { "dot-text loses the dot", STR("a\r\n.x\r\nb" END), STR("a\r\nx\r\nb\r\n"), 0, 0, 0 },
        { "dots within lines stay", STR("a.\r\n b. .c." END), STR("a.\r\n b. .c.\r\n"), 0, 0, 0 },
        { "NUL is kept", STR("a\0b" END), STR("a\0b\r\n"), 0, 0, 0 },
        { "dot-dot-end is content", STR("a\r\n..\r\n.\r\n"), STR("a\r\n.\r\n"), 0, 0, 0 },
        { "lf-dot-lf", STR("a\n.\nb" END), STR(""), 0, CONTENT_BARE_LF, 1 },
        { "lf-dot-crlf", STR("a\n.\r\nb" END), STR(""), 0, CONTENT_BARE_LF, 1 },
        { "crlf-dot-lf", STR("a\r\n.\nb" END), STR(""), 0, CONTENT_BARE_LF, 2 },
        { "cr-dot-cr", STR("a\r.\rb" END), STR(""), 0, CONTENT_BARE_CR, 1 },
        { "crlf-dot-cr", STR("a\r\n.\rb" END), STR(""), 0, CONTENT_BARE_CR, 2 },
        { "cr-dot-crlf", STR("a\r.\r\nb" END), STR(""), 0, CONTENT_BARE_CR, 1 },
        { "cr-cr-lf", STR("a\r\r\nb" END), STR(""), 0, CONTENT_BARE_CR, 1 },
        { "crlf-dot-cr-crlf", STR("a\r\n.\r\r\nb" END), STR(""), 0, CONTENT_BARE_CR, 2 },
        { "lf-crlf-dot-crlf ends", STR("a\n\r\n.\r\n" BEHIND), STR(""), sizeof BEHIND - 1, CONTENT_BARE_LF, 1 },
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check_all_cuts(t, &cases[i], true, false);
}

static void
data_repairing(struct test *t)
{
    static const struct expected cases[] = {
        { "lf-dot-lf", STR("a\n.\nb" END), STR("a\r\n.\r\nb\r\n"), 0, 0, 0 },
        { "lf-dot-crlf", STR("a\n.\r\nb" END), STR("a\r\n.\r\nb\r\n"), 0, 0, 0 },
        { "crlf-dot-lf", STR("a\r\n.\nb" END), STR("a\r\n\r\nb\r\n"), 0, 0, 0 },
        { "cr-dot-cr", STR("a\r.\rb" END), STR("a\r\n.\r\nb\r\n"), 0, 0, 0 },
        { "crlf-dot-cr", STR("a\r\n.\rb" END), STR("a\r\n\r\nb\r\n"), 0, 0, 0 },
        { "cr-dot-crlf", STR("a\r.\r\nb" END), STR("a\r\n.\r\nb\r\n"), 0, 0, 0 },
        { "cr-cr-lf", STR("a\r\r\nb" END), STR("a\r\n\r\nb\r\n"), 0, 0, 0 },
        { "lf-lf", STR("\n\nb" END), STR("\r\n\r\nb\r\n"), 0, 0, 0 },
        { "lf-cr", STR("a\n\rb" END), STR("a\r\n\r\nb\r\n"), 0, 0, 0 },
        { "many", STR("a\rb\nc\rd\ne\rf\ng\rh" END), STR("a\r\nb\r\nc\r\nd\r\ne\r\nf\r\ng\r\nh\r\n"), 0, 0, 0 },
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check_all_cuts(t, &cases[i], true, true);
}

static void
bdat(struct test *t)
{
    static const struct expected refusing[] = {
        { "dots are bytes", STR("a\r\n.\r\n..b\r\n"), STR("a\r\n.\r\n..b\r\n"), 0, 0, 0 },
        { "without a last line end", STR("a\r\nb"), STR("a\r\nb"), 0, 0, 0 },
        { "nothing", STR(""), STR(""), 0, 0, 0 },
        { "CR as the last byte", STR("a\r\nb\r"), STR(""), 0, CONTENT_BARE_CR, 2 },
        { "bare LF", STR("a\r\nb\n.\r\n"), STR(""), 0, CONTENT_BARE_LF, 2 },
    };
    static const struct expected repairing[] = {
        { "CR as the last byte", STR("a\r\nb\r"), STR("a\r\nb\r\n"), 0, 0, 0 },
        { "bare LF", STR("b\n.\n"), STR("b\r\n.\r\n"), 0, 0, 0 },
    };

    for (size_t i = 0; i < sizeof refusing / sizeof *refusing; i++)
        check_all_cuts(t, &refusing[i], false, false);
    for (size_t i = 0; i < sizeof repairing / sizeof *repairing; i++)
        check_all_cuts(t, &repairing[i], false, true);
}

static void
limits(struct test *t)
{
    char memory[16];
    struct text none = text_init(memory, 0);
    struct content c;
    bool ended;
    size_t len = LIMIT_TEXT_LINE + 1;
    char *big = malloc(len + 8);

    memset(big, 'x', len);
    test_case(t, "a line of just the limit");
    content_init(&c, true, false, 0);
    c.received.ended = true;
    feed(&c, str_new(big, len - 1), &none, &ended);
    EXPECT_INT(t, c.fault, CONTENT_FINE);
    test_case(t, "a line longer by one");
    feed(&c, str_new(big, 1), &none, &ended);
    EXPECT_INT(t, c.fault, CONTENT_LONG_LINE);
    test_case(t, "its end is found all the same");
    feed(&c, S("\r\n.\r\nQUIT"), &none, &ended);
    EXPECT(t, ended);

    test_case(t, "a size of just the limit, dots not counted");
    content_init(&c, true, false, 10);
    feed(&c, S("..234567\r\n"), &none, &ended);
    feed(&c, S("9"), &none, &ended);
    EXPECT_INT(t, c.fault, CONTENT_FINE);
    test_case(t, "a size larger by one");
    feed(&c, S("\r\n.\r\n"), &none, &ended);
    EXPECT(t, ended);
    EXPECT_INT(t, c.fault, CONTENT_TOO_BIG);

    test_case(t, "100 Received fields are no loop, 101 are; in the body they are text");
    content_init(&c, true, false, 0);
    for (int i = 0; i < 100; i++)
        feed(&c, S("Received: x\r\n"), &none, &ended);
    EXPECT_INT(t, c.fault, CONTENT_FINE);
    feed(&c, S("\r\nReceived: x\r\n"), &none, &ended);
    EXPECT_INT(t, c.fault, CONTENT_FINE);
    content_init(&c, true, false, 0);
    for (int i = 0; i < 101; i++)
        feed(&c, S("received : x\r\n"), &none, &ended);
    EXPECT_INT(t, c.received.count, 101);
    EXPECT_INT(t, c.fault, CONTENT_LOOP);

    test_case(t, "a header without end");
    content_init(&c, true, false, 0);
    for (int i = 0; i < 2000; i++)
        feed(&c, str_slice(str_new(big, len), 0, 600), &none, &ended), feed(&c, S("\r\n"), &none, &ended);
    EXPECT_INT(t, c.fault, CONTENT_BIG_HEADER);

    test_case(t, "a header of just the limit with its empty line, and longer by one, however it is cut");
    for (size_t over = 0; over < 2; over++)
        for (size_t cut = 1; cut < 4; cut++) {
            size_t header = LIMIT_HEADER_BYTES + over;
            memset(big, 'x', header);
            for (size_t at = 998; at < header; at += 1000)
                memcpy(big + at, "\r\n", 2);
            memcpy(big + header - 4, "\r\n\r\n", 4);
            content_init(&c, true, false, 0);
            feed(&c, str_slice(str_new(big, header), 0, header / cut), &none, &ended);
            feed(&c, str_from(str_new(big, header), header / cut), &none, &ended);
            feed(&c, S("body\r\n.\r\n"), &none, &ended);
            EXPECT_INT(t, c.received.bytes, header);
            EXPECT_INT(t, c.fault, over ? CONTENT_BIG_HEADER : CONTENT_FINE);
        }

    test_case(t, "8-bit");
    content_init(&c, true, false, 0);
    feed(&c, S("abcdefghijklmnopq\r\n"), &none, &ended);
    EXPECT(t, !c.eight_bit);
    feed(&c, S("abcdefgh\xe4ijklmnopq\r\n"), &none, &ended);
    EXPECT(t, c.eight_bit);
    free(big);
}

/* Many CRs and no LF: looking for the LF again and again would take minutes. */
static void
stays_linear(struct test *t)
{
    size_t len = 4 << 20;
    char *crs = malloc(len);
    char memory[16];
    struct text none = text_init(memory, 0);
    struct content c;
    bool ended;

    memset(crs, '\r', len);
    content_init(&c, true, true, 0);
    EXPECT_INT(t, feed(&c, str_new(crs, len), &none, &ended), len);
    EXPECT_INT(t, c.repaired, len - 1);
    free(crs);
}

TEST_MAIN({ "DATA, refusing", data_refusing }, { "DATA, repairing", data_repairing }, { "BDAT", bdat },
          { "limits", limits }, { "stays linear", stays_linear })
