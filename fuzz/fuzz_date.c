/*
 * fuzz_date - the date-time of RFC 5322, with comments, folding and the obsolete forms.
 *
 * Aims at: message/date.c
 * Seeds:   message/date_test.c
 * Longest: 300
 * Test:    110000 runs
 *
 * A date that was understood is printed as one that is understood to the same second. Any number of nanoseconds can be
 * printed.
 */
#include "fuzz.h"

#include "base/limits.h"
#include "message/date.h"

static struct str
printed(int64_t wall, struct arena *arena)
{
    struct text t = fuzz_text(arena, 64);

    date_put(&t, wall);
    CHECK(t.len == DATE_TEXT);
    return text_str(&t);
}

void
fuzz_one(struct str input, struct arena *arena)
{
    struct take take = take_init(input);
    struct text t = fuzz_text(arena, 64);
    int64_t any = take_i64(&take), wall, again;

    CHECK(date_parse(printed(any, arena), &again));
    date_put_rfc3339(&t, any);
    CHECK(t.len == 20);
    if (date_parse(input, &wall)) {
        CHECK(date_parse(printed(wall, arena), &again));
        CHECK(again == wall);
    }
}
