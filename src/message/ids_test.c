#include "message/ids.h"

#include "base/list.h"
#include "base/prng.h"
#include "base/test.h"

enum { MANY = 200000 };

/* Memory that remembers the largest piece. */
struct counting {
    struct mem mem, under;
    size_t largest;
};

static void *
counting_resize(struct mem *mem, void *ptr, size_t old_size, size_t new_size)
{
    struct counting *c = container_of(mem, struct counting, mem);

    if (new_size > c->largest)
        c->largest = new_size;
    return c->under.resize(&c->under, ptr, old_size, new_size);
}

static const struct {
    const char *why;
    uint64_t hi_mask, lo_mask; /* of what is random in them; their number is added to hi */
} cases[] = {
    { "random", UINT64_MAX, UINT64_MAX },
    { "alike but for the first half", 0, 0 },
    { "alike in the bits that would be looked at", 0, UINT64_MAX << 48 },
};

static void
finds_what_is_there(struct test *t)
{
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        struct counting c = { .mem.resize = counting_resize, .under = mem_libc() };
        struct message_id *things = mem_alloc(&c.under, MANY * sizeof *things);
        struct ids ids;
        struct prng p;
        size_t seen = 0;

        test_case(t, cases[k].why);
        prng_seed(&p, 7);
        ids_init(&ids, &c.mem, 11);
        for (size_t i = 0; i < MANY; i++) {
            things[i] = (struct message_id){ (prng_u64(&p) & cases[k].hi_mask) + i, prng_u64(&p) & cases[k].lo_mask };
            ids_put(&ids, &things[i]);
        }
        EXPECT_INT(t, ids.count, MANY);
        EXPECT(t, c.largest <= MANY / IDS_TABLES * 8 * sizeof(void *)); /* so much is moved at once, at most */
        for (size_t at = 0; ids_next(&ids, &at);)
            seen++;
        EXPECT_INT(t, seen, MANY);
        for (size_t i = 0; i < MANY; i++)
            if (i % 100)
                ids_remove(&ids, &things[i]);
        EXPECT_INT(t, ids.count, MANY / 100);
        size_t wrong = 0;
        for (size_t i = 0; i < MANY; i++)
            wrong += ids_get(&ids, things[i]) != (i % 100 ? NULL : (void *)&things[i]);
        EXPECT_INT(t, wrong, 0);
        EXPECT(t, c.under.in_use <= MANY * sizeof *things + MANY / 100 * 16 * sizeof(void *)); /* the rest went back */
        ids_done(&ids);
        mem_free(&c.under, things, MANY * sizeof *things);
        EXPECT_INT(t, c.under.in_use, 0);
    }
}

static void
empty(struct test *t)
{
    struct mem mem = mem_libc();
    struct message_id id = { 1, 2 };
    struct ids ids;
    size_t at = 0;

    ids_init(&ids, &mem, 1);
    EXPECT(t, !ids_get(&ids, id));
    EXPECT(t, !ids_next(&ids, &at));
    ids_put(&ids, &id);
    EXPECT(t, ids_get(&ids, id) == &id);
    ids_remove(&ids, &id);
    EXPECT(t, !ids_get(&ids, id));
    ids_done(&ids);
}

TEST_MAIN({ "finds what is there", finds_what_is_there }, { "empty", empty })
