/*
 * fuzz_date - the date-time of RFC 3339, as HOLDUNTIL gives it, and that of RFC 5322, which we write.
 *
 * Aims at: message/date.c
 * Seeds:   message/date_test.c
 * Longest: 300
 * Test:    110000 runs
 *
 * A date that was understood is printed as one that is understood to the same second, unless its year is before 1900: that is
 * printed as 1900. Any number of nanoseconds can be printed.
 */
#include "fuzz.h"

#include "base/limits.h"
#include "message/date.h"

static void
check_printed(int64_t wall, struct arena *arena)
{
    struct text t = fuzz_text(arena, 64);
    int64_t second = wall / SECOND - (wall % SECOND < 0), first = INT64_C(-2208988800) /* of 1900 */, again;

    date_put(&t, wall);
    CHECK(t.len == DATE_TEXT);
    t.len = 0;
    date_put_rfc3339(&t, wall);
    CHECK(t.len == 20 && date_parse_rfc3339(text_str(&t), &again));
    CHECK(again == (second < first ? first : second) * SECOND);
}

void
fuzz_one(struct str input, struct arena *arena)
{
    struct take take = take_init(input);
    int64_t wall;

    check_printed(take_i64(&take), arena);
    if (date_parse_rfc3339(input, &wall))
        check_printed(wall, arena);
}
