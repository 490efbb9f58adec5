/*
 * fuzz_content - the message on its way in: where it ends, and what of it is stored.
 *
 * Aims at: smtp/content.c message/received.c
 * Seeds:   smtp/content_test.c message/lines_test.c smtp-smuggling/
 * Longest: 4096
 * Test:    39000 runs
 * Choices: 2 bytes in front
 *
 * The same however it is cut. DATA ends where a search for CR LF . CR LF finds it, and what is stored is what another
 * implementation (message/lines.h, the sink's) makes of it. Refusing stores nothing with a bare CR or LF; repairing leaves
 * none.
 */
#include "fuzz.h"

#include "message/lines.h"
#include "smtp/content.h"

static struct str
scan(struct content *c, struct str in, size_t step, struct arena *arena, bool *out_ended, size_t *out_taken)
{
    struct text out = fuzz_text(arena, 2 * in.len + 4);
    struct content_parts parts;

    *out_ended = false;
    *out_taken = 0;
    for (size_t at = 0; at < in.len && !*out_ended; at += step)
        for (struct str part = str_slice(in, at, at + step); part.len > 0 && !*out_ended;) {
            parts = (struct content_parts){ 0 };
            size_t taken = content_scan(c, part, &parts);
            CHECK(taken > 0 && taken <= part.len && parts.count <= CONTENT_PARTS);
            part = str_from(part, taken);
            *out_taken += taken;
            for (size_t i = 0; i < parts.count; i++) {
                CHECK(parts.part[i].len > 0 && c->fault == CONTENT_FINE);
                text_put(&out, parts.part[i]);
            }
            *out_ended = parts.ended;
        }
    CHECK(!out.full);
    return text_str(&out);
}

static struct str
whole(struct content *c, struct str in, size_t step, struct arena *arena, bool *out_ended, size_t *out_taken)
{
    struct content_parts parts = { 0 };
    struct str out = scan(c, in, step, arena, out_ended, out_taken);

    if (!c->dots) {
        content_end(c, &parts);
        for (size_t i = 0; i < parts.count; i++)
            out = arena_join(arena, out, parts.part[i]);
    }
    return out;
}

static void
check(struct str in, bool dots, bool repair, uint64_t size_max, size_t step, struct arena *arena)
{
    struct content a, b;
    size_t taken, taken_whole;
    bool ended, ended_whole;

    content_init(&a, dots, repair, size_max);
    content_init(&b, dots, repair, size_max);
    struct str out = whole(&a, in, step, arena, &ended, &taken);
    struct str once = whole(&b, in, in.len + 1, arena, &ended_whole, &taken_whole);
    CHECK(ended == ended_whole && taken == taken_whole && a.fault == b.fault);
    if (a.fault)
        return;
    CHECK(a.size == b.size && a.repaired == b.repaired && a.eight_bit == b.eight_bit && a.line == b.line);
    CHECK(str_eq(out, once) && a.size == out.len && (!size_max || out.len <= size_max));
    if (dots) {
        struct str with_line = arena_join(arena, S("\r\n"), str_slice(in, 0, taken));
        size_t end = str_find(with_line, S("\r\n.\r\n"));
        CHECK(ended ? end + 5 == with_line.len : end == with_line.len);
    }
    struct fuzz_lines s = fuzz_lines(out);
    CHECK(!s.bare_cr && !s.bare_lf);
}

/* Where nothing had to be repaired, the sink's reader says the same. */
static void
compare(struct str in, struct arena *arena)
{
    struct content c;
    struct lines_unstuff u = { 0 };
    struct text other = fuzz_text(arena, in.len + 8);
    struct str rest = in, pieces[64];
    size_t taken;
    bool ended;

    content_init(&c, true, true, 0);
    struct str out = scan(&c, in, in.len + 1, arena, &ended, &taken);
    while (rest.len > 0 && !u.ended) {
        size_t count = lines_unstuff(&u, &rest, pieces, 64);
        for (size_t i = 0; i < count; i++)
            text_put(&other, pieces[i]);
    }
    CHECK(ended == u.ended && (!ended || taken == in.len - rest.len));
    if (ended && !c.fault && c.repaired == 0)
        CHECK(str_eq(out, text_str(&other)));
}

void
fuzz_one(struct str input, struct arena *arena)
{
    struct str in = input;
    uint8_t choice = fuzz_choice(&in);
    size_t step = 1 + fuzz_choice(&in);

    check(in, choice & 1, choice & 2, choice & 4 ? choice * 4u : 0, step, arena);
    compare(in, arena);
}
