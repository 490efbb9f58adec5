/* The cache of answers: what it keeps, for how long, and what goes first. */
#include "dns/cache.h"

#include "base/test.h"
#include "runtime/rt.h"

struct behind {
    size_t asked;
    struct dns_answer answer;
    struct err error;
};

static struct err
behind_query(void *arg, struct str name, enum dns_type type, int64_t until, struct arena *arena, struct dns_answer *out)
{
    struct behind *b = arg;

    (void)until;
    b->asked++;
    *out = b->answer;
    out->type = (uint16_t)type;
    out->canonical = name;
    if (out->status == DNS_FOUND) {
        out->count = 1;
        out->records = arena_new(arena, struct dns_record);
        out->records[0].data = S("v=spf1 -all");
    }
    return b->error;
}

struct world {
    struct test *t;
    void (*run)(struct test *, struct rt *);
};

static void
main_fiber(struct rt *rt, void *arg)
{
    struct world *w = arg;

    w->run(w->t, rt);
}

static void
in_world(struct test *t, void (*run)(struct test *, struct rt *))
{
    struct world w = { t, run };

    EXPECT(t, !err_is(rt_run(main_fiber, &w)));
}

static void
asks_once(struct test *t, struct rt *rt)
{
    struct behind b = { .answer = { .status = DNS_FOUND, .security = DNS_SECURE, .ttl = 300 } };
    struct dns behind = { behind_query, &b };
    struct dns_cache *cache = dns_cache_new(rt, &behind, 1 << 20);
    struct dns dns = dns_cache_dns(cache);
    struct dns_answer a = { 0 };
    struct arena arena;

    arena_init(&arena, rt_mem(rt), 1024, 4 * DNS_ARENA_BYTES);
    EXPECT(t, !err_is(dns_query(&dns, S("Example.Org"), DNS_TXT, FOREVER, &arena, &a)));
    EXPECT(t, !err_is(dns_query(&dns, S("example.org."), DNS_TXT, FOREVER, &arena, &a)));
    EXPECT_INT(t, b.asked, 1);
    EXPECT_INT(t, a.status, DNS_FOUND);
    EXPECT_INT(t, a.security, DNS_SECURE);
    EXPECT(t, a.ttl > 0 && a.ttl <= 300);
    if (EXPECT_INT(t, a.count, 1))
        EXPECT_STR(t, a.records[0].data, S("v=spf1 -all"));
    EXPECT(t, !err_is(dns_query(&dns, S("example.org"), DNS_MX, FOREVER, &arena, &a)));
    EXPECT_INT(t, b.asked, 2);
    EXPECT_INT(t, dns_cache_counts(cache).entries, 2);
    EXPECT_INT(t, dns_cache_counts(cache).hits, 1);
    dns_cache_clear(cache);
    EXPECT_INT(t, dns_cache_counts(cache).bytes, 0);
    EXPECT(t, !err_is(dns_query(&dns, S("example.org"), DNS_MX, FOREVER, &arena, &a)));
    EXPECT_INT(t, b.asked, 3);
    arena_done(&arena);
    dns_cache_free(cache);
}

static void
keeps_what_may_be_believed(struct test *t, struct rt *rt)
{
    static const struct {
        const char *why;
        enum dns_status status;
        uint32_t ttl;
        bool fails, kept;
    } cases[] = {
        { "found", DNS_FOUND, 60, false, true },
        { "no such name", DNS_NXDOMAIN, 60, false, true },
        { "no such record", DNS_NODATA, 60, false, true },
        { "a TTL of zero", DNS_FOUND, 0, false, false },
        { "temporary", DNS_TEMPORARY, 60, false, false },
        { "a broken link", DNS_FOUND, 60, true, false },
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct behind b = { .answer = { .status = (uint8_t)cases[i].status, .ttl = cases[i].ttl },
                            .error = cases[i].fails ? ERR(ERR_CLOSED, "ask") : OK };
        struct dns behind = { behind_query, &b };
        struct dns_cache *cache = dns_cache_new(rt, &behind, 1 << 20);
        struct dns dns = dns_cache_dns(cache);
        struct dns_answer a = { 0 };
        struct arena arena;

        test_case(t, cases[i].why);
        arena_init(&arena, rt_mem(rt), 1024, 2 * DNS_ARENA_BYTES);
        for (int twice = 0; twice < 2; twice++)
            EXPECT(t, err_is(dns_query(&dns, S("example.org"), DNS_TXT, FOREVER, &arena, &a)) == cases[i].fails);
        EXPECT_INT(t, b.asked, cases[i].kept ? 1 : 2);
        if (!cases[i].fails)
            EXPECT_INT(t, a.status, cases[i].status);
        arena_done(&arena);
        dns_cache_free(cache);
    }
}

static void
ends_with_its_ttl(struct test *t, struct rt *rt)
{
    struct behind b = { .answer = { .status = DNS_NXDOMAIN, .ttl = 1 } };
    struct dns behind = { behind_query, &b };
    struct dns_cache *cache = dns_cache_new(rt, &behind, 1 << 20);
    struct dns dns = dns_cache_dns(cache);
    struct dns_answer a;
    struct arena arena;
    int64_t began = rt_now(rt);

    arena_init(&arena, rt_mem(rt), 1024, 4 * DNS_ARENA_BYTES);
    EXPECT(t, !err_is(dns_query(&dns, S("example.org"), DNS_MX, FOREVER, &arena, &a)));
    EXPECT(t, !err_is(rt_sleep(rt, began + SECOND + 50 * MILLISECOND)));
    EXPECT(t, !err_is(dns_query(&dns, S("example.org"), DNS_MX, FOREVER, &arena, &a)));
    EXPECT_INT(t, b.asked, 2);
    EXPECT_INT(t, dns_cache_counts(cache).entries, 1);
    arena_done(&arena);
    dns_cache_free(cache);
}

static void
drops_what_was_used_longest_ago(struct test *t, struct rt *rt)
{
    enum { BYTES = 2000 };
    struct behind b = { .answer = { .status = DNS_NXDOMAIN, .ttl = 60 } };
    struct dns behind = { behind_query, &b };
    struct dns_cache *cache = dns_cache_new(rt, &behind, BYTES);
    struct dns dns = dns_cache_dns(cache);
    struct dns_answer a;
    struct arena arena;

    arena_init(&arena, rt_mem(rt), 1024, 1 << 20);
    for (int i = 0; i < 100; i++) {
        EXPECT(t, !err_is(dns_query(&dns, S("often.example"), DNS_MX, FOREVER, &arena, &a)));
        EXPECT(t, !err_is(dns_query(&dns, arena_printf(&arena, "n%d.example", i), DNS_MX, FOREVER, &arena, &a)));
        EXPECT(t, dns_cache_counts(cache).bytes <= BYTES);
    }
    EXPECT_INT(t, b.asked, 101);
    EXPECT(t, dns_cache_counts(cache).entries > 5);
    arena_done(&arena);
    dns_cache_free(cache);
}

static void
test_asks_once(struct test *t)
{
    in_world(t, asks_once);
}
static void
test_keeps(struct test *t)
{
    in_world(t, keeps_what_may_be_believed);
}
static void
test_ends(struct test *t)
{
    in_world(t, ends_with_its_ttl);
}
static void
test_drops(struct test *t)
{
    in_world(t, drops_what_was_used_longest_ago);
}

TEST_MAIN({ "asks once", test_asks_once }, { "keeps what may be believed", test_keeps },
          { "ends with its TTL", test_ends }, { "drops what was used longest ago", test_drops })
