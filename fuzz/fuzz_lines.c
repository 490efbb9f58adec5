/*
 * fuzz_lines - line ends of content: repairing, and the dots of RFC 5321 section 4.5.2.
 *
 * Aims at: message/lines.c
 * Seeds:   message/lines_test.c smtp-smuggling/
 * Longest: 2048
 * Test:    36000 runs
 * Choices: 1 bytes in front
 *
 * However the input is cut, the result is the same. What was repaired has no bare CR or LF and repairs to itself. What goes
 * behind 354 holds the end of data once, at its end, for the laxest of readers too (no bare CR or LF at all); taken apart
 * again it is the repaired content, its last line ended.
 */
#include "fuzz.h"

#include "message/lines.h"

static struct str
repair(struct str in, size_t step, struct arena *arena)
{
    struct lines_repair r = { 0 };
    struct text out = fuzz_text(arena, 2 * in.len + 2);
    struct text memory = fuzz_text(arena, 2 * step + 2);

    for (size_t at = 0; at < in.len; at += step)
        text_put(&out, lines_repair(&r, str_slice(in, at, at + step), memory.ptr));
    text_put(&out, lines_repair_end(&r));
    CHECK(!out.full && (r.repaired > 0) == !str_eq(text_str(&out), in));
    return text_str(&out);
}

static struct str
stuff(struct str in, size_t step, size_t max, struct arena *arena)
{
    struct lines_stuff s = { 0 };
    struct text out = fuzz_text(arena, 3 * in.len + 8);
    struct str pieces[64];

    for (size_t at = 0; at < in.len; at += step)
        for (struct str part = str_slice(in, at, at + step); part.len > 0;) {
            size_t count = lines_stuff(&s, &part, pieces, max);
            CHECK(count <= max);
            for (size_t i = 0; i < count; i++)
                text_put(&out, pieces[i]);
        }
    text_put(&out, lines_stuff_end(&s));
    CHECK(!out.full);
    return text_str(&out);
}

static struct str
unstuff(struct str in, size_t step, struct arena *arena, bool *out_ended, size_t *out_taken)
{
    struct lines_unstuff u = { 0 };
    struct text out = fuzz_text(arena, in.len + 8);
    struct str pieces[LINES_PIECES_MIN];

    *out_taken = 0;
    for (size_t at = 0; at < in.len && !u.ended; at += step)
        for (struct str part = str_slice(in, at, at + step); part.len > 0 && !u.ended;) {
            size_t before = part.len, count = lines_unstuff(&u, &part, pieces, LINES_PIECES_MIN);
            *out_taken += before - part.len;
            for (size_t i = 0; i < count; i++)
                text_put(&out, pieces[i]);
        }
    CHECK(!out.full);
    *out_ended = u.ended;
    return text_str(&out);
}

static void
check_wire(struct str wire, struct str content, size_t step, struct arena *arena)
{
    struct fuzz_lines s = fuzz_lines(wire);
    struct str with_line = arena_join(arena, S("\r\n"), wire);
    size_t taken;
    bool ended;

    CHECK(!s.bare_cr && !s.bare_lf);
    CHECK(str_find(with_line, S("\r\n.\r\n")) + 5 == with_line.len);
    struct str back = unstuff(wire, step, arena, &ended, &taken);
    CHECK(ended && taken == wire.len);
    CHECK(str_starts(back, content));
    if (content.len > 0)
        CHECK(back.len == content.len || (!str_ends(content, S("\r\n")) && str_eq(str_from(back, content.len), S("\r\n"))));
}

void
fuzz_one(struct str input, struct arena *arena)
{
    struct str in = input;
    size_t step = 1 + fuzz_choice(&in), max = LINES_PIECES_MIN + step % 60, taken, taken_whole;
    bool ended, ended_whole;

    struct str repaired = repair(in, step, arena);
    CHECK(str_eq(repaired, repair(in, in.len + 1, arena)) && str_eq(repaired, repair(repaired, step, arena)));
    struct fuzz_lines s = fuzz_lines(repaired);
    CHECK(!s.bare_cr && !s.bare_lf);

    struct str wire = stuff(in, step, max, arena);
    CHECK(str_eq(wire, stuff(in, in.len + 1, 64, arena)));
    check_wire(wire, repaired, step, arena);

    struct str a = unstuff(in, step, arena, &ended, &taken), b = unstuff(in, in.len + 1, arena, &ended_whole, &taken_whole);
    CHECK(str_eq(a, b) && ended == ended_whole && taken == taken_whole);
}
