/* throttle_test - wrong passwords from one network, from a thousand, and from home. */
#include "policy/throttle.h"

#include "base/test.h"

static const struct throttle_settings settings = { 5, 12, HOUR, 15 * MINUTE };

struct world {
    struct mem mem;
    struct throttle *t;
    int64_t now, wall;
};

static void
world_init(struct world *w, uint32_t records_max)
{
    *w = (struct world){ .mem = mem_libc(), .now = DAY, .wall = 20000 * DAY };
    w->t = throttle_new(&w->mem, 1, settings, records_max);
}

static struct address
at(unsigned network, unsigned host)
{
    return (struct address){ .family = ADDRESS_IPV4, .ip = { 10, (uint8_t)(network >> 8), (uint8_t)network, (uint8_t)host } };
}

enum end { RIGHT, WRONG, UNDECIDED };

/* Whether the attempt was let through. */
static bool
tries(struct world *w, struct str account, struct address client, enum end end)
{
    struct throttle_attempt a;

    if (throttle_begin(w->t, account, &client, w->now, w->wall, &a) != THROTTLE_OPEN)
        return false;
    if (end == RIGHT)
        throttle_right(w->t, &a, w->wall);
    else if (end == WRONG)
        throttle_wrong(w->t, &a, w->now);
    else
        throttle_undecided(w->t, &a);
    return true;
}

static size_t
try_often(struct world *w, struct str account, unsigned networks, size_t times)
{
    size_t through = 0;

    for (size_t i = 0; i < times; i++)
        through += tries(w, account, at(1 + (unsigned)i % networks, (unsigned)i / networks % 256), WRONG);
    return through;
}

static void
one_network(struct test *t)
{
    struct world w;
    char name[16];
    size_t through = 0;

    world_init(&w, THROTTLE_RECORDS_MAX);
    for (unsigned i = 0; i < 10000; i++) {
        struct text text = text_init(name, sizeof name);
        text_putf(&text, "u%u", i);
        through += tries(&w, text_str(&text), at(7, i % 256), WRONG);
    }
    EXPECT_INT(t, through, settings.network_failures);
    EXPECT(t, !tries(&w, S("anna"), at(7, 200), RIGHT));
    EXPECT(t, tries(&w, S("anna"), at(8, 1), RIGHT));
    test_case(t, "the ban ends by itself");
    w.now += settings.ban - 1;
    EXPECT(t, !tries(&w, S("anna"), at(7, 1), RIGHT));
    w.now += 1;
    EXPECT(t, tries(&w, S("anna"), at(7, 1), RIGHT));
    throttle_free(w.t);
}

static void
a_thousand_networks(struct test *t)
{
    struct world w;

    world_init(&w, THROTTLE_RECORDS_MAX);
    EXPECT(t, tries(&w, S("anna"), at(2000, 1), RIGHT));
    w.wall += 7 * DAY;
    w.now += 7 * DAY;
    EXPECT_INT(t, try_often(&w, S("anna"), 1000, 10000), settings.account_failures);
    EXPECT(t, !tries(&w, S("anna"), at(3000, 1), RIGHT));
    test_case(t, "from home, and from next door");
    EXPECT(t, tries(&w, S("anna"), at(2000, 1), RIGHT));
    EXPECT(t, tries(&w, S("anna"), at(2000, 99), RIGHT));
    test_case(t, "others are not touched");
    EXPECT(t, tries(&w, S("bob"), at(3000, 1), RIGHT));
    test_case(t, "home is home for 30 days");
    EXPECT_INT(t, try_often(&w, S("bob"), 1000, 100), settings.account_failures);
    w.wall += THROTTLE_HOME_NS;
    EXPECT(t, !tries(&w, S("bob"), at(3000, 1), RIGHT));
    throttle_free(w.t);
}

static void
at_home(struct test *t)
{
    struct world w;
    size_t through = 0;

    world_init(&w, THROTTLE_RECORDS_MAX);
    EXPECT(t, tries(&w, S("anna"), at(1, 1), RIGHT));
    for (int i = 0; i < 100; i++)
        through += tries(&w, S("anna"), at(1, 2), WRONG);
    EXPECT_INT(t, through, settings.account_failures);
    EXPECT(t, !tries(&w, S("anna"), at(1, 1), RIGHT));
    test_case(t, "an old phone at home locks nobody out elsewhere");
    EXPECT(t, tries(&w, S("anna"), at(2, 1), RIGHT));
    test_case(t, "neighbours at home are judged by the network");
    for (int i = 0; i < 100; i++)
        (void)tries(&w, S("bob"), at(2, 3), WRONG);
    EXPECT(t, tries(&w, S("anna"), at(2, 1), RIGHT));
    throttle_free(w.t);
}

static void
many_at_once(struct test *t)
{
    struct world w;
    struct throttle_attempt open[100], more;
    struct address client = at(1, 1), elsewhere = at(2, 1);
    size_t count = 0;

    world_init(&w, THROTTLE_RECORDS_MAX);
    while (count < 100 && throttle_begin(w.t, S("anna"), &client, w.now, w.wall, &open[count]) == THROTTLE_OPEN)
        count++;
    EXPECT_INT(t, count, settings.account_failures);
    EXPECT_INT(t, throttle_begin(w.t, S("anna"), &elsewhere, w.now, w.wall, &more), THROTTLE_FULL);
    test_case(t, "one that has ended makes room for one that waits");
    throttle_undecided(w.t, &open[0]);
    EXPECT_INT(t, throttle_begin(w.t, S("anna"), &client, w.now, w.wall, &open[0]), THROTTLE_OPEN);
    test_case(t, "one that was wrong does not");
    unsigned closed = throttle_wrong(w.t, &open[0], w.now);
    EXPECT_INT(t, throttle_begin(w.t, S("anna"), &elsewhere, w.now, w.wall, &more), THROTTLE_FULL);
    for (size_t i = 1; i < count; i++)
        closed |= throttle_wrong(w.t, &open[i], w.now);
    EXPECT_INT(t, closed, THROTTLE_ACCOUNT);
    EXPECT_INT(t, throttle_begin(w.t, S("anna"), &elsewhere, w.now, w.wall, &more), THROTTLE_CLOSED);
    throttle_free(w.t);
}

/* What counts by network: hosts of one have one key, and are told from the next. */
static void
networks(struct test *t)
{
    static const struct { const char *client, *network; } cases[] = {
        { "192.0.2.77", "192.0.2.0" },
        { "2001:db8:1:2:3::4", "2001:db8:1::" },
        { "2001:db8:1:102::4", "2001:db8:1:100::" },
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct address client, network, got;
        test_case(t, cases[i].client);
        EXPECT(t, address_from_ip(str_from_cstr(cases[i].client), &client) &&
                      address_from_ip(str_from_cstr(cases[i].network), &network));
        client.port = 4711;
        got = throttle_network(&client);
        EXPECT(t, address_eq(&got, &network));
    }
}

static void
old_failures_are_forgotten(struct test *t)
{
    struct world w;

    world_init(&w, THROTTLE_RECORDS_MAX);
    for (int day = 0; day < 100; day++) {
        for (uint32_t i = 0; i + 1 < settings.account_failures; i++)
            EXPECT(t, tries(&w, S("anna"), at(1, 1), WRONG));
        w.now += settings.within;
    }
    EXPECT(t, tries(&w, S("anna"), at(1, 1), RIGHT));
    throttle_free(w.t);
}

static void
memory_is_bounded(struct test *t)
{
    struct world w;
    struct throttle_attempt open;
    struct address client = at(1, 1);
    char name[16];

    world_init(&w, 100);
    EXPECT_INT(t, throttle_begin(w.t, S("anna"), &client, w.now, w.wall, &open), THROTTLE_OPEN);
    size_t before = mem_in_use(&w.mem);
    for (unsigned i = 0; i < 5000; i++) {
        struct text text = text_init(name, sizeof name);
        text_putf(&text, "u%u", i);
        tries(&w, text_str(&text), at(i, 1), WRONG);
    }
    EXPECT(t, mem_in_use(&w.mem) < before + 100 * 200 + 65536);
    throttle_wrong(w.t, &open, w.now);
    throttle_free(w.t);
    EXPECT_INT(t, mem_in_use(&w.mem), 0);
}

static void
attempts_without_an_end_make_nothing_forgotten(struct test *t)
{
    static const enum end ends[] = { UNDECIDED, RIGHT };
    struct world w;
    char name[16];

    for (size_t how = 0; how < sizeof ends / sizeof *ends; how++) {
        world_init(&w, 100);
        EXPECT_INT(t, try_often(&w, S("anna"), 1000, 100), settings.account_failures);
        for (unsigned i = 0; i < 5000; i++) {
            struct text text = text_init(name, sizeof name);
            text_putf(&text, "u%u", i);
            EXPECT(t, tries(&w, text_str(&text), at(2000, 1), ends[how]));
        }
        EXPECT_INT(t, try_often(&w, S("anna"), 1000, 100), 0);
        throttle_free(w.t);
        EXPECT_INT(t, mem_in_use(&w.mem), 0);
    }
}

struct bans {
    size_t accounts, networks;
    char last[64];
    struct text text;
};

static bool
note_ban(void *ctx, struct str account, struct str network, int64_t until)
{
    struct bans *b = ctx;

    (void)until;
    b->accounts += account.len > 0;
    b->networks += network.len > 0;
    b->text = text_init(b->last, sizeof b->last);
    text_put(&b->text, account.len > 0 ? account : network);
    return true;
}

static void
bans_are_shown_and_homes_kept(struct test *t)
{
    struct world w, later;
    struct bans b = { 0 };
    static unsigned char memory[1 << 16];

    world_init(&w, THROTTLE_RECORDS_MAX);
    EXPECT(t, tries(&w, S("anna"), at(9, 1), RIGHT));
    EXPECT(t, tries(&w, S("bob"), at(10, 1), RIGHT));
    (void)try_often(&w, S("anna"), 1000, 100);
    throttle_each_ban(w.t, w.now, note_ban, &b);
    EXPECT(t, b.accounts == 1 && b.networks == 0);
    EXPECT_STR(t, text_str(&b.text), S("anna"));
    struct put p = put_init(memory, sizeof memory);
    throttle_put_homes(&p, w.t);
    EXPECT(t, !p.full && p.len == throttle_homes_size(w.t));
    world_init(&later, THROTTLE_RECORDS_MAX);
    struct take take = take_init(put_str_so_far(&p));
    EXPECT(t, throttle_take_homes(&take, later.t, later.wall + DAY) && take_end(&take));
    (void)try_often(&later, S("anna"), 1000, 100);
    EXPECT(t, tries(&later, S("anna"), at(9, 1), RIGHT));
    EXPECT(t, !tries(&later, S("anna"), at(10, 1), RIGHT));
    test_case(t, "cut anywhere");
    for (size_t cut = 0; cut < p.len; cut++) {
        struct str part = test_edge(str_new(memory, cut));
        take = take_init(part);
        EXPECT(t, !throttle_take_homes(&take, later.t, later.wall));
        test_edge_free(part);
    }
    throttle_free(w.t);
    throttle_free(later.t);
}

TEST_MAIN({ "one network", one_network }, { "a thousand networks", a_thousand_networks }, { "at home", at_home },
          { "many at once", many_at_once }, { "networks", networks }, { "old failures are forgotten", old_failures_are_forgotten },
          { "memory is bounded", memory_is_bounded },
          { "attempts without an end make nothing forgotten", attempts_without_an_end_make_nothing_forgotten },
          { "bans are shown and homes kept", bans_are_shown_and_homes_kept })
