/* Dates, put and parsed. */
#include "message/date.h"

#include "base/limits.h"
#include "base/test.h"

static void
puts_dates(struct test *t)
{
    static const struct { const char *why; int64_t second; struct str text; } cases[] = {
        { "the epoch",        0,           STR("Thu, 01 Jan 1970 00:00:00 +0000") },
        { "second before it", -1,          STR("Wed, 31 Dec 1969 23:59:59 +0000") },
        { "leap day",         1709208000,  STR("Thu, 29 Feb 2024 12:00:00 +0000") },
        { "century",          951868800,   STR("Wed, 01 Mar 2000 00:00:00 +0000") },
        { "today",            1795255200,  STR("Sat, 21 Nov 2026 10:00:00 +0000") },
        { "after 32 bits",    4294967296,  STR("Sun, 07 Feb 2106 06:28:16 +0000") },
    };
    char memory[64];

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct text text = text_init(memory, sizeof memory);
        int64_t back;
        test_case(t, cases[i].why);
        date_put(&text, cases[i].second * SECOND);
        EXPECT_STR(t, text_str(&text), cases[i].text);
        EXPECT_INT(t, text.len, DATE_TEXT);
        EXPECT(t, date_parse(cases[i].text, &back) && back == cases[i].second * SECOND);
    }
    test_case(t, "from 1900 to 2243");
    for (int64_t day = -25567; day < 100000; day += 13) {
        struct text text = text_init(memory, sizeof memory);
        int64_t back;
        date_put(&text, day * DAY);
        EXPECT(t, date_parse(text_str(&text), &back) && back == day * DAY);
    }
}

static void
parses_dates(struct test *t)
{
    static const struct { const char *why; struct str in; bool ok; int64_t second; } cases[] = {
        { "zone",             STR("Fri, 21 Nov 1997 09:55:06 -0600"), true, 880127706 },
        { "no weekday",       STR("21 Nov 1997 09:55:06 -0600"), true, 880127706 },
        { "no seconds",       STR("21 Nov 97 09:55 GMT"), true, 880106100 },
        { "RFC 5322 A.5",
          STR("Thu,\r\n      13\r\n        Feb\r\n          1969\r\n      23:32\r\n"
              "               -0330 (Newfoundland Time)"), true, -27723480 },
        { "obsolete A.6.2",   STR("21 Nov 97 09:55:06 GMT"), true, 880106106 },
        { "obsolete spaces",  STR("Fri, 21 Nov 1997 09(comment):   55  :  06 -0600"), true, 880127706 },
        { "three digits",     STR("21 Nov 126 10:00 +0000"), true, 1795255200 },
        { "named zone",       STR("21 Nov 1997 09:55:06 CST"), true, 880127706 },
        { "nested comment",   STR("(a(b)\\))21 Nov 1997 09:55:06 -0600"), true, 880127706 },
        { "leap second",      STR("31 Dec 2016 23:59:60 +0000"), true, 1483228800 },
        { "no such day",      STR("29 Feb 2023 00:00 +0000"), false, 0 },
        { "no zone",          STR("21 Nov 1997 09:55:06"), false, 0 },
        { "hour 24",          STR("21 Nov 1997 24:00:00 +0000"), false, 0 },
        { "text behind",      STR("21 Nov 1997 09:55:06 +0000 x"), false, 0 },
        { "five digits",      STR("21 Nov 19970 09:55:06 +0000"), false, 0 },
        { "too late for us",  STR("21 Nov 9997 09:55:06 +0000"), false, 0 },
        { "empty",            STR(""), false, 0 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int64_t got = 0;
        test_case(t, cases[i].why);
        EXPECT(t, date_parse(cases[i].in, &got) == cases[i].ok);
        EXPECT_INT(t, got / SECOND, cases[i].second);
        for (size_t cut = 0; cut <= cases[i].in.len; cut++) {
            struct str piece = test_edge(str_slice(cases[i].in, 0, cut));
            date_parse(piece, &got);
            test_edge_free(piece);
        }
    }
}

static void
parses_rfc3339(struct test *t)
{
    static const struct { const char *why; struct str in; bool ok; int64_t second; } cases[] = {
        { "UTC",            STR("2026-11-21T10:00:00Z"), true, 1795255200 },
        { "small letters",  STR("2026-11-21t10:00:00z"), true, 1795255200 },
        { "a zone",         STR("2026-11-21T11:30:00+01:30"), true, 1795255200 },
        { "west of it",     STR("2026-11-21T02:00:00-08:00"), true, 1795255200 },
        { "parts",          STR("2026-11-21T10:00:00.123Z"), true, 1795255200 },
        { "no zone",        STR("2026-11-21T10:00:00"), false, 0 },
        { "no time",        STR("2026-11-21"), false, 0 },
        { "no such month",  STR("2026-13-01T10:00:00Z"), false, 0 },
        { "no such day",    STR("2026-02-29T10:00:00Z"), false, 0 },
        { "hour 24",        STR("2026-11-21T24:00:00Z"), false, 0 },
        { "too late for us", STR("9999-11-21T10:00:00Z"), false, 0 },
        { "a point alone",  STR("2026-11-21T10:00:00.Z"), false, 0 },
        { "text behind",    STR("2026-11-21T10:00:00Zx"), false, 0 },
        { "a zone too far", STR("2026-11-21T10:00:00+24:00"), false, 0 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int64_t got = 0;
        test_case(t, cases[i].why);
        EXPECT(t, date_parse_rfc3339(cases[i].in, &got) == cases[i].ok);
        EXPECT_INT(t, got / SECOND, cases[i].second);
        for (size_t cut = 0; cut < cases[i].in.len; cut++) {
            struct str piece = test_edge(str_slice(cases[i].in, 0, cut));
            EXPECT(t, !cases[i].ok || !date_parse_rfc3339(piece, &got));
            test_edge_free(piece);
        }
    }
}

TEST_MAIN({ "puts dates", puts_dates }, { "parses dates", parses_dates }, { "parses RFC 3339", parses_rfc3339 })
