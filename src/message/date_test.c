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
        test_case(t, cases[i].why);
        date_put(&text, cases[i].second * SECOND);
        EXPECT_STR(t, text_str(&text), cases[i].text);
        EXPECT_INT(t, text.len, DATE_TEXT);
    }
    test_case(t, "from 1900 to 2243");
    for (int64_t day = -25567; day < 100000; day += 13) {
        static const struct str weekdays = STR("ThuFriSatSunMonTueWed");
        char plain_memory[64];
        struct text text = text_init(memory, sizeof memory), plain = text_init(plain_memory, sizeof plain_memory);
        size_t weekday = (size_t)((day % 7 + 7) % 7);
        int64_t back;
        date_put(&text, day * DAY);
        date_put_rfc3339(&plain, day * DAY);
        EXPECT(t, date_parse_rfc3339(text_str(&plain), &back) && back == day * DAY);
        EXPECT_STR(t, str_slice(text_str(&text), 0, 3), str_slice(weekdays, 3 * weekday, 3 * weekday + 3));
        EXPECT_STR(t, str_slice(text_str(&text), 5, 7), str_slice(text_str(&plain), 8, 10));
        EXPECT_STR(t, str_slice(text_str(&text), 12, 16), str_slice(text_str(&plain), 0, 4));
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
        { "leap day",       STR("2024-02-29T12:00:00Z"), true, 1709208000 },
        { "leap second",    STR("2016-12-31T23:59:60Z"), true, 1483228800 },
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

TEST_MAIN({ "puts dates", puts_dates }, { "parses RFC 3339", parses_rfc3339 })
