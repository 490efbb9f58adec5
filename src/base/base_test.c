/* The small modules of base/ that every other one stands on. */
#include "base/address.h"
#include "base/arena.h"
#include "base/codec.h"
#include "base/heap.h"
#include "base/json.h"
#include "base/list.h"
#include "base/map.h"
#include "base/prng.h"
#include "base/slab.h"
#include "base/test.h"

#include <string.h>

static void
str_cuts(struct test *t)
{
    struct str s = S("SIZE=10=2"), rest = s;

    EXPECT_STR(t, str_cut(&rest, '='), S("SIZE"));
    EXPECT_STR(t, rest, S("10=2"));
    EXPECT_STR(t, str_cut(&rest, '#'), S("10=2"));
    EXPECT(t, str_is_absent(rest));
    EXPECT_STR(t, str_trim(S(" \t a b\r\n")), S("a b"));
    struct str words = S("  RCPT  TO:<a> ");
    EXPECT_STR(t, str_cut_word(&words), S("RCPT"));
    EXPECT_STR(t, str_cut_word(&words), S("TO:<a>"));
    EXPECT_INT(t, str_cut_word(&words).len, 0);
    EXPECT(t, !str_has_control(S(" ~\x80\xff")));
    EXPECT(t, str_has_control(S("a\x1f")) && str_has_control(S("\x7f" "b")) && str_has_control(S("\0")));
}

static void
str_numbers(struct test *t)
{
    static const struct {
        const char *why;
        struct str in;
        bool ok;
        uint64_t value;
    } cases[] = {
        { "zero", STR("0"), true, 0 },
        { "largest", STR("18446744073709551615"), true, UINT64_MAX },
        { "one more", STR("18446744073709551616"), false, 0 },
        { "ten times more", STR("184467440737095516150"), false, 0 },
        { "nothing", STR(""), false, 0 },
        { "sign", STR("+1"), false, 0 },
        { "letter behind", STR("1k"), false, 0 },
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint64_t value = 0;
        test_case(t, cases[i].why);
        EXPECT(t, str_to_u64(cases[i].in, &value) == cases[i].ok);
        EXPECT(t, value == cases[i].value);
    }
}

static void
text_remembers_what_did_not_fit(struct test *t)
{
    char memory[8];
    struct text text = text_init(memory, sizeof memory);

    text_put(&text, S("1234"));
    text_put_u64(&text, 567);
    EXPECT(t, !text.full);
    text_putf(&text, "%d", 12);
    EXPECT(t, text.full);
    EXPECT_STR(t, text_str(&text), S("1234567"));
}

static void
codec_bounds_every_field(struct test *t)
{
    unsigned char memory[64];
    struct put p = put_init(memory, sizeof memory);

    put_u16(&p, 0x1234);
    put_bytes(&p, S("hello"));
    put_bytes(&p, (struct str){ NULL, 0 });
    put_i64(&p, -5);
    struct take all = take_init(put_str_so_far(&p));
    EXPECT_INT(t, take_u16(&all), 0x1234);
    EXPECT_STR(t, take_bytes(&all, 5), S("hello"));
    EXPECT(t, str_is_absent(take_bytes(&all, 5)));
    EXPECT_INT(t, take_i64(&all), -5);
    EXPECT(t, take_end(&all));

    for (size_t cut = 0; cut < p.len; cut++) {
        struct str edge = test_edge(str_new(memory, cut));
        struct take part = take_init(edge);
        take_u16(&part);
        take_bytes(&part, 5);
        take_bytes(&part, 5);
        take_i64(&part);
        EXPECT(t, part.bad);
        test_edge_free(edge);
    }
    struct take tight = take_init(str_from(put_str_so_far(&p), 2));
    take_bytes(&tight, 4);
    EXPECT(t, tight.bad);
}

struct timer {
    struct heap_node node;
    int number;
};

static void
heap_gives_the_earliest_then_the_first_inserted(struct test *t)
{
    struct mem mem = mem_libc();
    struct heap heap;
    struct timer timers[200];
    struct prng prng;
    int64_t last = -1;

    prng_seed(&prng, 1);
    heap_init(&heap, &mem);
    memset(timers, 0, sizeof timers);
    for (int i = 0; i < 200; i++) {
        timers[i].number = i;
        heap_insert(&heap, &timers[i].node, (int64_t)prng_below(&prng, 20));
    }
    for (int i = 0; i < 200; i += 3)
        heap_remove(&heap, &timers[i].node);
    int last_number = -1, seen = 0;
    for (struct heap_node *node; (node = heap_first(&heap)); seen++) {
        struct timer *timer = container_of(node, struct timer, node);
        EXPECT(t, node->due > last || (node->due == last && timer->number > last_number));
        last = node->due;
        last_number = timer->number;
        heap_remove(&heap, node);
    }
    EXPECT_INT(t, seen, 133);
    heap_done(&heap);
    EXPECT_INT(t, mem.in_use, 0);
}

struct thing {
    uint64_t zero, number;
};

/* By random taking and giving back: each thing is zeroed and nobody else's, and what is used no more goes back. */
static void
slab_keeps_things_apart(struct test *t)
{
    enum { THINGS = 200, STEPS = 5000, PER_BLOCK = 8 };
    struct mem mem = mem_libc();
    struct thing *things[THINGS] = { 0 };
    struct slab slab;
    struct prng prng;
    size_t used = 0, most = 0;

    prng_seed(&prng, 2);
    slab_init(&slab, &mem, sizeof(struct thing), PER_BLOCK);
    for (uint64_t step = 1; step <= STEPS; step++) {
        size_t i = (size_t)prng_below(&prng, THINGS);
        if (!things[i]) {
            things[i] = slab_take(&slab);
            EXPECT(t, things[i]->zero == 0 && things[i]->number == 0);
            things[i]->number = i + 1;
            used++;
        } else {
            EXPECT(t, things[i]->zero == 0 && things[i]->number == i + 1);
            things[i]->number = things[i]->zero = UINT64_MAX;
            slab_give(&slab, things[i]);
            things[i] = NULL;
            used--;
        }
        EXPECT_INT(t, slab.used, used);
        most = mem.in_use > most ? mem.in_use : most;
    }
    EXPECT(t, most >= used * sizeof(struct thing) && most <= THINGS * (sizeof(struct thing) + 8) * 3 / 2);
    for (size_t i = 0; i < THINGS; i++)
        if (things[i])
            slab_give(&slab, things[i]);
    EXPECT_INT(t, mem.in_use, 0);
    slab_done(&slab);
}

static void
arena_goes_back_to_a_mark(struct test *t)
{
    static const size_t sizes[] = { 0, 100, 600, 5000 }; /* before the mark: no block, part of one, and more than one */
    struct mem mem = mem_libc();

    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct arena arena;
        arena_init(&arena, &mem, 512, 8000);
        struct str kept = sizes[i] ? arena_printf(&arena, "%0*d", (int)sizes[i] - 1, 7) : S("7");
        struct arena_mark mark = arena_mark(&arena);
        size_t used = arena.used, in_use = mem.in_use;
        for (int n = 0; n < 20; n++) {
            arena_rewind(&arena, mark);
            EXPECT_INT(t, arena.used, used);
            EXPECT_INT(t, mem.in_use, in_use);
            memset(arena_alloc(&arena, 300), 1, 300);
            memset(arena_alloc(&arena, 2000), 1, 2000);
        }
        EXPECT(t, str_ends(kept, S("7")) && kept.ptr[0] == (sizes[i] ? '0' : '7'));
        arena_done(&arena);
        EXPECT_INT(t, mem.in_use, 0);
    }
}

static void
map_finds_what_was_put_after_many_removals(struct test *t)
{
    struct mem mem = mem_libc();
    struct map map;
    struct arena arena;
    struct str keys[500];

    map_init(&map, &mem, 7);
    arena_init(&arena, &mem, 4096, 1 << 20);
    for (size_t i = 0; i < 500; i++) {
        keys[i] = arena_printf(&arena, "key %zu", i);
        EXPECT(t, map_put(&map, keys[i], &keys[i]) == NULL);
    }
    for (size_t i = 0; i < 500; i += 2)
        EXPECT(t, map_remove(&map, keys[i]) == &keys[i]);
    for (size_t i = 0; i < 500; i++)
        EXPECT(t, map_get(&map, keys[i]) == (i % 2 ? &keys[i] : NULL));
    EXPECT_INT(t, map.count, 250);
    size_t seen = 0;
    for (size_t at = 0; map_next(&map, &at);)
        seen++;
    EXPECT_INT(t, seen, 250);
    map_done(&map);
    arena_done(&arena);
    EXPECT_INT(t, mem.in_use, 0);
}

static void
addresses(struct test *t)
{
    static const struct {
        const char *why;
        struct str in, out; /* out empty: refused */
    } cases[] = {
        { "v4", STR("192.0.2.1:25"), STR("192.0.2.1:25") },
        { "v6", STR("[2001:DB8::1]:25"), STR("[2001:db8::1]:25") },
        { "path", STR("/run/lmtp"), STR("/run/lmtp") },
        { "v6 needs brackets", STR("2001:db8::1:25"), STR("") },
        { "v4 has none", STR("[192.0.2.1]:25"), STR("") },
        { "no port", STR("192.0.2.1"), STR("") },
        { "port too large", STR("192.0.2.1:65536"), STR("") },
        { "octal is no address", STR("192.0.02.1:25"), STR("") },
    };
    struct prefix prefix;
    struct address a;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char memory[128];
        struct text text = text_init(memory, sizeof memory);
        test_case(t, cases[i].why);
        EXPECT(t, address_parse(cases[i].in, &a) == (cases[i].out.len > 0));
        if (cases[i].out.len) {
            address_put(&text, &a);
            EXPECT_STR(t, text_str(&text), cases[i].out);
        }
    }
    test_case(t, "prefix");
    EXPECT(t, prefix_parse(S("192.0.2.128/25"), &prefix));
    EXPECT(t, address_from_ip(S("192.0.2.129"), &a) && prefix_has(&prefix, &a));
    EXPECT(t, address_from_ip(S("::ffff:192.0.2.129"), &a) && prefix_has(&prefix, &a));
    EXPECT(t, address_from_ip(S("192.0.2.127"), &a) && !prefix_has(&prefix, &a));
    EXPECT(t, !prefix_parse(S("192.0.2.129/25"), &prefix));
    EXPECT(t, !prefix_parse(S("192.0.2.0/33"), &prefix));
    test_case(t, "prefix that is mapped IPv4");
    EXPECT(t, prefix_parse(S("::ffff:192.0.2.0/120"), &prefix) && prefix.base.family == ADDRESS_IPV4 && prefix.bits == 24);
    EXPECT(t, prefix_has(&prefix, &a) && address_from_ip(S("192.0.3.1"), &a) && !prefix_has(&prefix, &a));
    EXPECT(t, prefix_parse(S("::/0"), &prefix) && address_from_ip(S("2001:db8::1"), &a) && prefix_has(&prefix, &a));
}

static void
json_escapes(struct test *t)
{
    char memory[100];
    struct text out = text_init(memory, sizeof memory);

    json_put_str(&out, S("a\"\\\x1b\x7f\xc2\x9b\xc2\xa0\xc3\xa4\x9b"));
    EXPECT_STR(t, text_str(&out), S("\"a\\\"\\\\\\u001b\\u007f\\u009b\xc2\xa0\xc3\xa4\xef\xbf\xbd\""));
}

TEST_MAIN({ "str: cuts", str_cuts }, { "json: escapes", json_escapes }, { "str: numbers", str_numbers },
          { "text: remembers what did not fit", text_remembers_what_did_not_fit },
          { "codec: bounds every field", codec_bounds_every_field },
          { "heap: gives the earliest, then the first inserted", heap_gives_the_earliest_then_the_first_inserted },
          { "slab: keeps things apart", slab_keeps_things_apart },
          { "arena: goes back to a mark", arena_goes_back_to_a_mark },
          { "map: finds what was put after many removals", map_finds_what_was_put_after_many_removals },
          { "address: parses, prints, matches", addresses })
