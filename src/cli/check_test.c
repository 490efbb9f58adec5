/* What `postrider check` prints, and the kernel's tables of routes. */
#include "base/conf_fake.h"
#include "base/test.h"
#include "cli/check.h"

static void
report(struct test *t, struct str conf, struct str want_text, struct str want_json)
{
    struct conf_fake_file file = { STR("/m"), conf };
    struct conf_fake fake = { &file, 1, 0 };
    struct conf_world world = conf_fake_world(&fake);
    struct mem mem = mem_libc();
    struct conf_bundle bundle;
    struct conf_problems problems;
    struct arena arena;

    arena_init(&arena, &mem, 4096, 1 << 24);
    struct text out = text_init(arena_alloc(&arena, CHECK_REPORT_MAX), CHECK_REPORT_MAX);
    conf_bundle_init(&bundle, &arena, &world, S("/m"));
    conf_problems_init(&problems, &arena);
    struct site *site = site_load(&mem, &bundle, 1, &problems);
    check_put_text(&out, S("/m"), &problems, site);
    EXPECT_STR(t, text_str(&out), want_text);
    out.len = 0;
    check_put_json(&out, S("/m"), &problems);
    EXPECT_STR(t, text_str(&out), want_json);
    if (site)
        site_free(site);
    conf_bundle_done(&bundle);
    arena_done(&arena);
}

static void
good_site(struct test *t)
{
    report(t,
           S("hostname mx.example.org\nlisten mx { address :25 }\n"
             "domain a.example { mailbox x postmaster; deliver lmtp:/x }\ndomain b.example { same-as a.example }\n"),
           S("/m: good: 1 listener, 2 domains with 2 names, 1 route\n"),
           S("{\"version\":1,\"file\":\"/m\",\"ok\":true,\"errors\":0,\"warnings\":0,\"problems\":[]}\n"));
}

static void
warned_site(struct test *t)
{
    report(
        t, S("hostname mx.example.org\n"),
        S("warning: there is no \"listen\": mail comes in by sendmail only\n"
          "/m: good: 0 listeners, 0 domains with 0 names, 1 route, 1 warning\n"),
        S("{\"version\":1,\"file\":\"/m\",\"ok\":true,\"errors\":0,\"warnings\":1,\"problems\":[{\"kind\":\"warning\","
          "\"what\":\"there is no \\\"listen\\\": mail comes in by sendmail only\"}]}\n"));
}

static void
broken_site(struct test *t)
{
    report(
        t, S("hostname mx.example.org\nlistne mx { address :25 }\nlisten submission { address :587 }\n"),
        S("/m:2:1: \"listne\" is not known at the top of a configuration; did you mean \"listen\"?\n"
          "/m:3:1: nobody could log in here: add \"users file FILE\", and people by \"postrider user add\"\n"
          "/m: 2 errors\n"),
        S("{\"version\":1,\"file\":\"/m\",\"ok\":false,\"errors\":2,\"warnings\":0,\"problems\":[{\"kind\":\"error\","
          "\"file\":\"/m\",\"line\":2,\"column\":1,\"what\":\"\\\"listne\\\" is not known at the top of a "
          "configuration\",\"suggestion\":\"listen\"},{\"kind\":\"error\",\"file\":\"/m\",\"line\":3,\"column\":1,"
          "\"what\":\"nobody could log in here: add \\\"users file FILE\\\", and people by \\\"postrider user add\\\"\"}]}\n"));
}

static void
gateways(struct test *t)
{
    static const struct {
        const char *why;
        struct str table;
        uint8_t family;
        struct str gateway;
    } cases[] = {
        {"the usual",
         STR("Iface\tDestination\tGateway \tFlags\n"
             "eth0\t0000A8C0\t00000000\t0001\t0\n"
             "eth0\t00000000\t0101A8C0\t0003\t0\n"),
         ADDRESS_IPV4, STR("192.168.1.1")},
        {"a default route without a gateway", STR("ppp0\t00000000\t00000000\t0001\n"), ADDRESS_IPV4, STR("")},
        {"no default route", STR("eth0\t0000A8C0\t0101A8C0\t0001\t0\n"), ADDRESS_IPV4, STR("")},
        {"nothing", STR(""), ADDRESS_IPV4, STR("")},
        {"IPv6",
         STR("20010db8000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 "
             "1\n"
             "00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe800000000000000000000000000001 "
             "00000400\n"),
         ADDRESS_IPV6, STR("fe80::1")},
        {"IPv6 to a half of the world",
         STR("00000000000000000000000000000000 01 00000000000000000000000000000000 00 fe800000000000000000000000000001 "
             "1"),
         ADDRESS_IPV6, STR("")},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char memory[64];
        struct text shown = text_init(memory, sizeof memory);
        test_case(t, cases[i].why);
        struct address gateway = check_find_gateway(cases[i].table, cases[i].family);
        if (gateway.family != ADDRESS_NONE)
            address_put_ip(&shown, &gateway);
        EXPECT(t, str_eq(text_str(&shown), cases[i].gateway));
    }
}

TEST_MAIN({ "good site", good_site }, { "warned site", warned_site }, { "broken site", broken_site },
          { "gateways", gateways })
