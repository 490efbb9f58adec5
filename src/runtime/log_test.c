/* log_test - lines as they are written, by a sink that keeps them, and by a pipe that nobody reads. */
#include "base/check.h"
#include "base/test.h"
#include "runtime/log_sink.h"
#include "runtime/sched.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

struct kept {
    struct log_sink sink;
    char bytes[LOG_LINE_BYTES];
    size_t len, lines;
    bool full;
};

static bool
keep(struct log_sink *sink, struct str line)
{
    struct kept *k = container_of(sink, struct kept, sink);

    if (k->full)
        return false;
    memcpy(k->bytes, line.ptr, line.len);
    k->len = line.len;
    k->lines++;
    return true;
}

struct run_in_world {
    struct test *t;
    void (*body)(struct test *, struct rt *, struct kept *);
};

static void
body_main(struct rt *rt, void *arg)
{
    struct run_in_world *r = arg;
    struct kept *k = mem_new(rt_mem(rt), struct kept);
    struct log_sink *before = rt->log;

    log_sink_init(&k->sink, rt, keep);
    k->sink.pid = 42;
    r->body(r->t, rt, k);
    rt->log = before;
    mem_free(rt_mem(rt), k, sizeof *k);
}

#define KEPT_TEST(name)                                                                                                \
    static void name##_body(struct test *, struct rt *, struct kept *);                                                \
    static void name(struct test *t)                                                                                   \
    {                                                                                                                  \
        struct run_in_world r = { t, name##_body };                                                                    \
        EXPECT(t, !err_is(rt_run(body_main, &r)));                                                                     \
    }                                                                                                                  \
    static void name##_body(struct test *t, struct rt *rt, struct kept *k)

/* Without its first field, the time. */
static struct str
line_of(const struct kept *k)
{
    struct str line = str_new(k->bytes, k->len);

    return str_from(line, str_find(line, S("Z\",")) + 3);
}

KEPT_TEST(a_line_is_an_object)
{
    struct log_line l;
    struct address at;

    CHECK(address_parse(S("[2001:db8::1]:25"), &at));
    log_set_role(rt, S("receiver"));
    log_begin(&l, rt, LOG_INFO, "session");
    log_str(&l, "id", S("abc"));
    log_str(&l, "none", (struct str){ 0 });
    log_str(&l, "empty", S(""));
    log_int(&l, "bytes", -5);
    log_bool(&l, "tls", true);
    log_seconds(&l, "delay", 1250 * MILLISECOND);
    log_time(&l, "next", 0);
    log_address(&l, "peer", &at);
    log_err(&l, ERR(ERR_NO_SPACE, "write the spool"));
    log_end(&l);
    EXPECT_STR(t, line_of(k),
               S("\"level\":\"info\",\"role\":\"receiver\",\"pid\":42,\"event\":\"session\",\"id\":\"abc\","
                 "\"empty\":\"\",\"bytes\":-5,\"tls\":true,\"delay\":1.250,"
                 "\"next\":\"1970-01-01T00:00:00.000Z\",\"peer\":\"[2001:db8::1]:25\","
                 "\"error\":\"write the spool: no space left\"}\n"));
}

static const struct {
    const char *why;
    int64_t seconds;
    struct str want;
} times[] = {
    { "leap day", 951782400, STR("2000-02-29T00:00:00.000Z") },
    { "day after", 951868800, STR("2000-03-01T00:00:00.000Z") },
    { "end of a year", 1767225599, STR("2025-12-31T23:59:59.000Z") },
    { "no leap day in 2100", 4107542400, STR("2100-03-01T00:00:00.000Z") },
};

KEPT_TEST(times_are_rfc_3339)
{
    struct log_line l;

    for (size_t i = 0; i < sizeof times / sizeof *times; i++) {
        test_case(t, times[i].why);
        log_begin(&l, rt, LOG_INFO, "x");
        log_time(&l, "t", times[i].seconds * SECOND);
        log_end(&l);
        struct str line = str_new(k->bytes, k->len);
        EXPECT(t, str_find(line, times[i].want) < line.len);
    }
}

static const struct {
    const char *why;
    struct str value, json, text;
} escapes[] = {
    { "plain", STR("a.b@c"), STR("\"a.b@c\""), STR("a.b@c") },
    { "space", STR("a b"), STR("\"a b\""), STR("\"a b\"") },
    { "quote and backslash", STR("\"\\"), STR("\"\\\"\\\\\""), STR("\"\\\"\\\\\"") },
    { "a forged line", STR("x\r\n{\"level\":"), STR("\"x\\r\\n{\\\"level\\\":\""), STR("\"x\\r\\n{\\\"level\\\":\"") },
    { "controls", STR("\x01\x1b[2J\x7f"), STR("\"\\u0001\\u001b[2J\\u007f\""), STR("\"\\u0001\\u001b[2J\\u007f\"") },
    { "NUL", STR("a\0b"), STR("\"a\\u0000b\""), STR("\"a\\u0000b\"") },
    { "UTF-8", STR("gr\xc3\xbc\xc3\x9f\xe2\x82\xac\xf0\x9f\x93\xa7"),
      STR("\"gr\xc3\xbc\xc3\x9f\xe2\x82\xac\xf0\x9f\x93\xa7\""),
      STR("gr\xc3\xbc\xc3\x9f\xe2\x82\xac\xf0\x9f\x93\xa7") },
    { "second set of controls", STR("\xc2\x9b"), STR("\"\\u009b\""), STR("\\u009b") },
    { "turned direction", STR("\xe2\x80\xae"), STR("\"\\u202e\""), STR("\\u202e") },
    { "Latin-1", STR("gr\xfc\xdf"), STR("\"gr\\\\xfc\\\\xdf\""), STR("gr\\\\xfc\\\\xdf") },
    { "cut character", STR("\xe2\x82"), STR("\"\\\\xe2\\\\x82\""), STR("\\\\xe2\\\\x82") },
    { "overlong", STR("\xc0\xaf"), STR("\"\\\\xc0\\\\xaf\""), STR("\\\\xc0\\\\xaf") },
    { "surrogate", STR("\xed\xa0\x80"), STR("\"\\\\xed\\\\xa0\\\\x80\""), STR("\\\\xed\\\\xa0\\\\x80") },
    { "beyond Unicode", STR("\xf4\x90\x80\x80"), STR("\"\\\\xf4\\\\x90\\\\x80\\\\x80\""),
      STR("\\\\xf4\\\\x90\\\\x80\\\\x80") },
};

KEPT_TEST(values_cannot_escape)
{
    struct log_line l;

    for (size_t i = 0; i < 2 * (sizeof escapes / sizeof *escapes); i++) {
        struct str value = test_edge(escapes[i / 2].value), want = i % 2 ? escapes[i / 2].text : escapes[i / 2].json;
        test_case(t, escapes[i / 2].why);
        k->sink.readable = i % 2;
        log_begin(&l, rt, LOG_INFO, "x");
        log_str(&l, "v", value);
        log_end(&l);
        struct str line = str_new(k->bytes, k->len);
        struct str key = k->sink.readable ? S(" v=") : S(",\"v\":");
        struct str got = str_from(line, str_find(line, key) + key.len);
        EXPECT_STR(t, str_slice(got, 0, got.len - (k->sink.readable ? 1 : 2)), want);
        test_edge_free(value);
    }
}

KEPT_TEST(people_get_text)
{
    struct log_line l;

    k->sink.readable = true;
    log_set_role(rt, S("store"));
    log_begin(&l, rt, LOG_WARNING, "disk-slow");
    log_seconds(&l, "seconds", 2 * SECOND);
    log_str(&l, "what", S("two words"));
    log_end(&l);
    struct str line = str_new(k->bytes, k->len);
    EXPECT_STR(t, str_from(line, 24), S("warning store[42]: disk-slow seconds=2.000 what=\"two words\"\n"));
}

KEPT_TEST(long_values_are_cut_and_say_so)
{
    char value[8000];
    struct log_line l;

    for (int byte = 0; byte < 2; byte++) {
        test_case(t, byte ? "every byte grows sixfold" : "plain");
        memset(value, byte ? '\x01' : 'a', sizeof value);
        log_begin(&l, rt, LOG_INFO, "x");
        log_str(&l, "first", str_new(value, sizeof value));
        log_int(&l, "between", 1);
        log_str(&l, "second", str_new(value, sizeof value));
        log_str(&l, "third", str_new(value, sizeof value));
        log_end(&l);
        struct str line = str_new(k->bytes, k->len);
        EXPECT(t, line.len <= LOG_LINE_BYTES);
        EXPECT(t, str_find(line, S("\"between\":1,\"second\":\"")) < line.len);
        EXPECT(t, str_ends(line, S("\",\"cut\":true}\n")));
    }
}

KEPT_TEST(dropped_lines_are_counted_and_told)
{
    struct log_line l;

    k->full = true;
    for (int i = 0; i < 3; i++) {
        log_begin(&l, rt, LOG_INFO, "lost");
        log_str(&l, "v", S("x"));
        log_end(&l);
    }
    EXPECT_INT(t, log_dropped(rt), 3);
    EXPECT_INT(t, k->lines, 0);
    k->full = false;
    log_begin(&l, rt, LOG_INFO, "after");
    EXPECT(t, str_ends(str_new(k->bytes, k->len), S("\"event\":\"log-lines-dropped\",\"count\":3}\n")));
    log_end(&l);
    EXPECT_INT(t, k->lines, 2);
    EXPECT(t, str_ends(str_new(k->bytes, k->len), S("\"event\":\"after\"}\n")));
    EXPECT_INT(t, log_dropped(rt), 3);
}

KEPT_TEST(levels_below_the_least_are_silent)
{
    struct log_line l;

    log_begin(&l, rt, LOG_DEBUG, "quiet");
    log_str(&l, "v", S("x"));
    log_end(&l);
    EXPECT_INT(t, k->lines, 0);
    log_set_level(rt, LOG_DEBUG);
    log_begin(&l, rt, LOG_DEBUG, "loud");
    log_end(&l);
    EXPECT_INT(t, k->lines, 1);
}

/* ---- standard error that nobody reads ---------------------------------------------------------------------------- */

struct slow_reader {
    struct test *t;
    int read_end;
    uint64_t dropped;
};

enum { FLOOD = 20000 };

static void
flood(struct rt *rt, void *arg)
{
    struct slow_reader *r = arg;
    struct log_line l;

    for (int i = 0; i < FLOOD; i++) {
        log_begin(&l, rt, LOG_INFO, "flood");
        log_int(&l, "number", i);
        log_end(&l);
        if (i % 100 == 0)
            fiber_yield(rt);
    }
    r->dropped = log_dropped(rt);
    EXPECT(r->t, r->dropped > 0);
}

/* Counts the lines, and checks that each is whole. */
static size_t
count_lines(struct test *t, int fd)
{
    char bytes[8192];
    size_t lines = 0, broken = 0;
    char last = '\n';
    ssize_t n;

    while ((n = read(fd, bytes, sizeof bytes)) > 0)
        for (ssize_t i = 0; i < n; i++) {
            broken += last == '\n' && bytes[i] != '{';
            lines += bytes[i] == '\n';
            last = bytes[i];
        }
    EXPECT_INT(t, broken, 0);
    EXPECT_INT(t, last, '\n');
    return lines;
}

static void
a_slow_reader_stops_nobody(struct test *t)
{
    struct slow_reader r = { .t = t };
    int fds[2], before = dup(STDERR_FILENO);

    CHECK(before >= 0 && pipe(fds) == 0);
    CHECK(dup2(fds[1], STDERR_FILENO) == STDERR_FILENO);
    close(fds[1]);
    r.read_end = fds[0];
    EXPECT(t, !err_is(rt_run(flood, &r)));
    CHECK(dup2(before, STDERR_FILENO) == STDERR_FILENO);
    close(before);
    size_t lines = count_lines(t, fds[0]);
    /* What the pipe holds arrives; what was still in the ring at the end is given up. */
    EXPECT(t, lines > 100 && lines < FLOOD - r.dropped);
    close(fds[0]);
}

static void
log_once(struct rt *rt, void *arg)
{
    struct log_line l;

    (void)arg;
    log_begin(&l, rt, LOG_INFO, "only");
    log_end(&l);
}

static void
the_last_words_arrive(struct test *t)
{
    int fds[2], before = dup(STDERR_FILENO);

    CHECK(before >= 0 && pipe(fds) == 0);
    CHECK(dup2(fds[1], STDERR_FILENO) == STDERR_FILENO);
    close(fds[1]);
    EXPECT(t, !err_is(rt_run(log_once, NULL)));
    int flags = fcntl(STDERR_FILENO, F_GETFL);
    EXPECT(t, !(flags & O_NONBLOCK)); /* it is not ours alone */
    CHECK(dup2(before, STDERR_FILENO) == STDERR_FILENO);
    close(before);
    EXPECT_INT(t, count_lines(t, fds[0]), 1);
    close(fds[0]);
}

TEST_MAIN({ "a line is an object", a_line_is_an_object }, { "times are RFC 3339", times_are_rfc_3339 },
          { "values cannot escape", values_cannot_escape }, { "people get text", people_get_text },
          { "long values are cut and say so", long_values_are_cut_and_say_so },
          { "dropped lines are counted and told", dropped_lines_are_counted_and_told },
          { "levels below the least are silent", levels_below_the_least_are_silent },
          { "a slow reader stops nobody", a_slow_reader_stops_nobody },
          { "the last words arrive", the_last_words_arrive })
