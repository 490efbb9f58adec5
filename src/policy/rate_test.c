/* Token buckets and client counters. */
#include "policy/rate.h"

#include "base/limits.h"
#include "base/test.h"

static void
buckets_refill(struct test *t)
{
    static const struct {
        const char *why;
        struct rate rate;
        int64_t gap;   /* between tries */
        int tries, taken;
    } cases[] = {
        { "no limit", { 0, 0, 0 }, 0, 1000, 1000 },
        { "one at once", { 60, 0, MINUTE }, 0, 5, 1 },
        { "a burst at once", { 60, 3, MINUTE }, 0, 5, 3 },
        { "steady at the rate", { 60, 1, MINUTE }, SECOND, 50, 50 },
        { "twice too fast", { 60, 1, MINUTE }, SECOND / 2, 50, 25 },
        { "a refusal costs nothing", { 1, 1, MINUTE }, 20 * SECOND, 7, 3 },
        { "a burst, then the rate", { 60, 10, MINUTE }, SECOND / 2, 20, 19 },
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct bucket b = { 0 };
        int taken = 0;

        test_case(t, cases[i].why);
        for (int n = 0; n < cases[i].tries; n++) {
            int64_t now = 1000 * HOUR + n * cases[i].gap;
            bool ready = now >= bucket_ready_at(&b, cases[i].rate);
            bool ok = bucket_take(&b, cases[i].rate, now);
            EXPECT(t, ok == ready);
            taken += ok;
        }
        EXPECT_INT(t, taken, cases[i].taken);
    }
}

static struct address
ip(const char *text)
{
    struct address a = { 0 };

    address_from_ip(str_from_cstr(text), &a);
    return a;
}

static void
sessions_are_counted_by_client(struct test *t)
{
    struct mem mem = mem_libc();
    struct clients *c = clients_new(&mem, 1, 100);
    struct address a = ip("192.0.2.1"), b = ip("192.0.2.2"), six = ip("2001:db8::1"), near = ip("2001:db8::2:1"),
                   far = ip("2001:db8:0:1::1");

    a.port = 1111;
    EXPECT(t, clients_enter(c, &a, 2));
    a.port = 2222;
    EXPECT(t, clients_enter(c, &a, 2));
    EXPECT(t, !clients_enter(c, &a, 2));
    EXPECT(t, clients_enter(c, &b, 2));
    clients_leave(c, &a);
    EXPECT(t, clients_enter(c, &a, 2));
    EXPECT_INT(t, clients_sessions(c, &a), 2);
    EXPECT(t, clients_enter(c, &six, 1));
    EXPECT(t, !clients_enter(c, &near, 1)); /* the same /64 */
    EXPECT(t, clients_enter(c, &far, 1));
    EXPECT_INT(t, clients_known(c), 4);
    clients_leave(c, &a);
    clients_leave(c, &a);
    clients_leave(c, &b);
    clients_leave(c, &near);
    clients_leave(c, &far);
    EXPECT_INT(t, clients_known(c), 0);
    EXPECT(t, !clients_enter(c, &a, 0));
    EXPECT_INT(t, clients_known(c), 0);
    clients_free(c);
    EXPECT_INT(t, mem_in_use(&mem), 0);
}

static void
memory_is_bounded(struct test *t)
{
    struct mem mem = mem_libc();
    struct clients *c = clients_new(&mem, 1, 10);
    struct address stranger = ip("10.9.9.9");

    for (uint8_t i = 0; i < 10; i++) {
        struct address busy = ip("10.0.0.0");
        busy.ip[3] = i;
        EXPECT(t, clients_enter(c, &busy, 2));
    }
    EXPECT(t, !clients_enter(c, &stranger, 2)); /* ten have sessions */
    EXPECT_INT(t, clients_known(c), 10);
    struct address first = ip("10.0.0.0");
    EXPECT(t, clients_enter(c, &first, 2)); /* no stranger */
    clients_leave(c, &first);
    EXPECT(t, !clients_enter(c, &stranger, 2));
    clients_leave(c, &first);
    EXPECT(t, clients_enter(c, &stranger, 2));
    EXPECT_INT(t, clients_sessions(c, &stranger), 1);
    EXPECT_INT(t, clients_known(c), 10);
    clients_free(c);
    EXPECT_INT(t, mem_in_use(&mem), 0);
}

TEST_MAIN({ "buckets refill", buckets_refill },
          { "sessions are counted by client", sessions_are_counted_by_client },
          { "memory is bounded", memory_is_bounded })
