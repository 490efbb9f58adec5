/* Retry times, ages, routes, and who gets which notice: the queue's pure decisions. */
#include "queue/notice.h"
#include "queue/retry.h"
#include "queue/route.h"

#include "base/test.h"
#include "message/envelope.h"

static void
steps_follow_the_schedule(struct test *t)
{
    static const struct {
        const char *why;
        uint32_t attempts;
        int64_t step;
    } cases[] = {
        { "first", 1, 5 * MINUTE }, { "second", 2, 15 * MINUTE }, { "third", 3, 30 * MINUTE },
        { "fourth", 4, HOUR },      { "fifth", 5, 2 * HOUR },     { "sixth", 6, 4 * HOUR },
        { "repeats", 7, 4 * HOUR }, { "long after", 60000, 4 * HOUR },
    };
    struct retry retry = retry_default();
    struct prng prng;

    prng_seed(&prng, 1);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int64_t least = INT64_MAX, most = 0;
        test_case(t, cases[i].why);
        for (int n = 0; n < 1000; n++) {
            int64_t delay = retry_delay(&retry, cases[i].attempts, &prng);
            least = delay < least ? delay : least;
            most = delay > most ? delay : most;
        }
        EXPECT(t, least >= cases[i].step / 10 * 9);
        EXPECT(t, most <= cases[i].step / 10 * 11);
        EXPECT(t, most - least > cases[i].step / 10); /* jitter */
    }
}

static void
age_is_the_smaller_of_both_clocks(struct test *t)
{
    static const struct {
        const char *why;
        int64_t born, accepted, now, wall, age;
    } cases[] = {
        { "both alike", 100, 5000, 160, 5060, 60 },
        { "machine was off: running time", 100, 5000, 160, 9000, 60 },
        { "born before this process", -500, 5000, 100, 5600, 600 },
        { "wall jumped ahead", 0, 5000, 10, 999999, 10 },
        { "wall jumped back", 0, 5000, 1000, 5003, 3 },
        { "wall before acceptance is wrong", 0, 5000, 1000, 10, 1000 },
        { "begins later", 500, 5500, 100, 5100, -400 },
        { "begins later, and the wall jumped ahead", 500, 5500, 100, 9000, -400 },
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        test_case(t, cases[i].why);
        struct moment m = { cases[i].now, cases[i].wall };
        EXPECT_INT(t, retry_age(cases[i].born, cases[i].accepted, m), cases[i].age);
    }
}

static void
notices_go_to_whom_they_should(struct test *t)
{
    enum { FAILURE = NOTICE_OF_FAILURE, DOUBLE = NOTICE_OF_DOUBLE_BOUNCE, NONE = NOTICE_NONE };
    static const struct {
        const char *why;
        struct notice_facts facts;
        uint8_t failure;
        bool delay, success, relay;
    } cases[] = {
        { "nothing asked, stranger", { .notify = 0 }, FAILURE, false, false, true },
        { "nothing but by when, stranger", { .by = true }, FAILURE, true, false, true },
        { "by when, and never", { .by = true, .notify = NOTIFY_NEVER }, NONE, false, false, false },
        { "by when, and failure only", { .by = true, .notify = NOTIFY_FAILURE }, FAILURE, false, false, true },
        { "by when, null sender", { .by = true, .null_reverse_path = true }, NONE, false, false, false },
        { "nothing asked, our user", { .trusted = true }, FAILURE, true, false, true },
        { "never", { .notify = NOTIFY_NEVER, .trusted = true }, NONE, false, false },
        { "success only", { .notify = NOTIFY_SUCCESS, .trusted = true }, NONE, false, true, true },
        { "failure only", { .notify = NOTIFY_FAILURE, .trusted = true }, FAILURE, false, false, true },
        { "delay asked by a stranger", { .notify = NOTIFY_DELAY }, NONE, true, false, true },
        { "all three", { .notify = NOTIFY_SUCCESS | NOTIFY_FAILURE | NOTIFY_DELAY }, FAILURE, true, true, true },
        { "null sender asks",
         { .notify = NOTIFY_SUCCESS | NOTIFY_FAILURE | NOTIFY_DELAY, .null_reverse_path = true },
         NONE,
         false,
         false },
        { "null sender, trusted",
         { .null_reverse_path = true, .trusted = true, .has_postmaster = true },
         NONE,
         false,
         false },
        { "our notice", { .null_reverse_path = true, .own_notice = true, .has_postmaster = true }, DOUBLE, false,
          false },
        { "our notice, no postmaster", { .null_reverse_path = true, .own_notice = true }, NONE, false, false },
        { "our notice to postmaster",
         { .null_reverse_path = true, .own_notice = true, .has_postmaster = true, .is_postmaster = true },
         NONE,
         false,
         false },
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        test_case(t, cases[i].why);
        EXPECT_INT(t, notice_for_failure(cases[i].facts), cases[i].failure);
        EXPECT(t, notice_for_delay(cases[i].facts) == cases[i].delay);
        EXPECT(t, notice_for_success(cases[i].facts) == cases[i].success);
        EXPECT(t, notice_for_relay(cases[i].facts) == cases[i].relay);
    }
}

static void
keys_tell_routes_apart(struct test *t)
{
    static const struct {
        const char *why;
        struct route route;
        struct str hosts, key;
    } cases[] = {
        { "mx", { .kind = ROUTE_MX, .port = 25 }, STR("a.ex,b.ex"), STR("a.ex,b.ex") },
        { "mx on another port", { .kind = ROUTE_MX, .port = 2525 }, STR("a.ex"), STR("a.ex port 2525") },
        { "smarthost",
         { .kind = ROUTE_SMTP, .host = STR("10.0.0.9"), .port = 25, .tls = ROUTE_TLS_REQUIRE },
         STR(""),
         STR("smtp://10.0.0.9:25 tls require") },
        { "verified by an own authority",
         { .kind = ROUTE_SMTP, .host = STR("h.ex"), .port = 25, .tls = ROUTE_TLS_VERIFY, .tls_ca = STR("/ca.pem") },
         STR(""),
         STR("smtp://h.ex:25 tls require verify tls-ca /ca.pem") },
        { "what DNSSEC vouches for",
         { .kind = ROUTE_MX, .port = 25, .mx_secure = true },
         STR("a.ex"),
         STR("a.ex dnssec") },
        { "smtps",
         { .kind = ROUTE_SMTP, .host = STR("h.ex"), .port = 465, .implicit_tls = true },
         STR(""),
         STR("smtps://h.ex:465") },
        { "lmtp socket", { .kind = ROUTE_LMTP, .path = STR("/run/lmtp") }, STR(""), STR("lmtp:/run/lmtp") },
        { "source and helo",
         { .kind = ROUTE_MX,
          .port = 25,
          .source_ipv4 = { .family = ADDRESS_IPV4, .ip = { 192, 0, 2, 25 } },
          .helo = STR("mx.ex"),
          .family = ROUTE_FAMILY_IPV4 },
         STR("a.ex"),
         STR("a.ex source 192.0.2.25 helo mx.ex ipv4") },
        { "maildir",
         { .kind = ROUTE_MAILDIR, .path = STR("/m/{local}"), .user = STR("vmail") },
         STR(""),
         STR("maildir:/m/{local} user vmail") },
        { "with a quota", { .kind = ROUTE_MAILDIR, .path = STR("/m/{local}"), .quota = 1024 }, STR(""),
          STR("maildir:/m/{local} quota 1024") },
    };
    struct mem mem = mem_libc();

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char memory[200];
        struct text text = text_init(memory, sizeof memory);
        struct route *copy = route_copy(&cases[i].route, &mem);

        test_case(t, cases[i].why);
        route_put_key(&text, copy, cases[i].hosts);
        EXPECT_STR(t, text_str(&text), cases[i].key);
        route_free(copy, &mem);
        EXPECT_INT(t, mem_in_use(&mem), 0);
    }
}

TEST_MAIN({ "steps follow the schedule", steps_follow_the_schedule },
          { "age is the smaller of both clocks", age_is_the_smaller_of_both_clocks },
          { "notices go to whom they should", notices_go_to_whom_they_should },
          { "keys tell routes apart", keys_tell_routes_apart })
