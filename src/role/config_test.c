/* Whole sites: the examples of the manual, what is refused and where, what is only warned of, and mangled files. */
#include "base/conf_fake.h"
#include "base/limits.h"
#include "base/prng.h"
#include "base/test.h"
#include "role/config.h"

#include <string.h>

struct fixture {
    struct conf_fixture conf;
    struct site *site;
};

static void
fixture_init(struct fixture *f, const struct conf_fake_file *files, size_t count)
{
    conf_fixture_init(&f->conf, files, count);
    f->site = site_load(&f->conf.mem, &f->conf.bundle, 7, &f->conf.problems);
}

static void
fixture_done(struct test *t, struct fixture *f)
{
    if (f->site)
        site_free(f->site);
    conf_fixture_done(&f->conf);
    EXPECT_INT(t, mem_in_use(&f->conf.mem), 0);
}

static void
expect_problem(struct test *t, struct fixture *f, size_t at, struct str want)
{
    EXPECT_STR(t, conf_fixture_problem(&f->conf, at), want);
}

static const struct conf_fake_file small[] = {
    { STR("/etc/postrider/postrider.conf"),
      STR("hostname mx.example.org\n"
          "\n"
          "listen mx          { address :25 }\n"
          "listen submission  { address :587 }           # STARTTLS, then AUTH\n"
          "listen submissions { address :465 }           # TLS from the first byte, then AUTH\n"
          "\n"
          "tls { certificate mx.pem; key mx.key }\n"
          "\n"
          "domain example.org {\n"
          "    mailbox anna bob\n"
          "    alias   postmaster abuse -> anna\n"
          "    alias   sales -> anna, bob, carol@elsewhere.example\n"
          "    deliver maildir /var/mail/{domain}/{local}\n"
          "}\n"
          "\n"
          "users file users                              # who may submit, hashed\n") },
};

static const struct conf_fake_file large[] = {
    { STR("/etc/postrider/postrider.conf"),
      STR("hostname mx.example.org\n"
          "listen mx outside { address 192.0.2.25:25 [2001:db8::25]:25; hostname mx.example.org; max-size 50MiB\n"
          "                    line-ends refuse; vrfy off; expn off; connections 50 per-client }\n"
          "listen mx inside  { address 10.0.0.1:25; relay from 10.0.0.0/24; line-ends repair }   # KIND, then a name\n"
          "\n"
          "domain example.org example.net {              # several domains, one description\n"
          "    mailbox file mailboxes                    # or: passwd-file\n"
          "    subaddress +                              # anna+x is anna, if anna+x itself is unknown\n"
          "    alias   list-dev -> include:dev.list      # owner-list-dev becomes the envelope sender if it exists\n"
          "    forward old -> new@partner.example reply 251      # silent | 251 | 551\n"
          "    catch-all -> anna\n"
          "    deliver lmtp:/run/dovecot/lmtp\n"
          "}\n"
          "domain old.example    { same-as example.org }\n"
          "domain inside.example { recipients verify; relay via smtp://10.0.0.5 }    # a gateway\n"
          "domain backup.example { recipients file backup.list; relay mx }           # a backup MX\n"
          "\n"
          "route partner.example .corp.example { via smtp://10.0.0.9:25; tls require }\n"
          "route default { direct; source 192.0.2.25 helo mx.example.org; family any }\n"
          "#     or      { via smtps://smtp.isp.example { user u; password-file p } }\n"
          "\n"
          "retry 5m 15m 30m 1h 2h 4h for 5d { delay-notice 6h }\n"
          "resolver { forward 127.0.0.1:5300 }           # else the system's resolvers\n"
          "state /var/lib/postrider                      # spool, sockets\n"
          "sandbox try                                   # require: refuse to run without\n") },
    { STR("/etc/postrider/mailboxes"), STR("anna\nbob\n") },
    { STR("/etc/postrider/dev.list"), STR("anna\ndeveloper@elsewhere.example\n") },
    { STR("/etc/postrider/backup.list"), STR("someone\n") },
};

static const struct conf_fake_file tests_own[] = {
    { STR("/some/test.conf"),
      STR("hostname mx.local.test\n"
          "state    /some/dir\n"
          "listen mx { address 127.0.0.1:2525; relay from 127.0.0.1 }\n"
          "domain local.test { mailbox ok; alias postmaster -> ok; deliver maildir /some/dir/mail/{domain}/{local} }\n"
          "route default { via 127.0.0.1:2600; tls off }\n") },
};

static void
small_site(struct test *t)
{
    struct fixture f;

    fixture_init(&f, small, 1);
    EXPECT_INT(t, f.conf.problems.errors, 0);
    EXPECT_INT(t, f.conf.problems.warnings, 0);
    if (f.site) {
        const struct site *site = f.site;
        EXPECT_STR(t, site->hostname, S("mx.example.org"));
        EXPECT_STR(t, site->state, S("/var/lib/postrider"));
        EXPECT_INT(t, site->certificate_count, 1);
        EXPECT_STR(t, site->certificates[0].certificate, S("/etc/postrider/mx.pem"));
        EXPECT_STR(t, site->certificates[0].key, S("/etc/postrider/mx.key"));
        EXPECT_STR(t, site->users.path, S("/etc/postrider/users"));
        EXPECT_INT(t, site->listener_count, 3);
        EXPECT_INT(t, site->listeners[0].address_count, 2);
        const struct listener_settings *mx = &site->listeners[0].settings, *start = &site->listeners[1].settings,
                                       *at_once = &site->listeners[2].settings;
        EXPECT(t, !mx->login && !mx->complete && !mx->tls_at_once);
        EXPECT(t, start->login && start->complete && !start->tls_at_once);
        EXPECT(t, at_once->login && at_once->complete && at_once->tls_at_once);
        struct listener_settings user = site_listener_settings(&site->listeners[1], &(struct address){ .family = ADDRESS_IPV4 });
        EXPECT(t, user.line_ends == LINE_ENDS_REPAIR && !user.refuse_early_talk && !user.trusted && !user.hide_client);
        EXPECT_STR(t, site->listeners[0].name, S("mx"));
        EXPECT_STR(t, site->listeners[0].settings.hostname, S("mx.example.org"));
        EXPECT_INT(t, site->listeners[0].settings.size_max, LIMIT_MESSAGE_SIZE);
        EXPECT_INT(t, site->listeners[0].settings.rcpt_max, LIMIT_RCPT_PER_TRANSACTION);
        EXPECT_INT(t, site->route_count, 1);
        const struct route *route = site_route(site, S("elsewhere.example"));
        EXPECT_INT(t, route->kind, ROUTE_MX);
        EXPECT_INT(t, route->port, 25);
        EXPECT_STR(t, route->helo, S("mx.example.org"));
        EXPECT_INT(t, site->retry.step_count, 6);
    }
    fixture_done(t, &f);
}

static void
large_site(struct test *t)
{
    static const struct {
        const char *why;
        struct str domain;
        enum route_kind kind;
        struct str host, path;
        uint16_t port;
    } routes[] = {
        { "ours", STR("example.net"), ROUTE_LMTP, STR(""), STR("/run/dovecot/lmtp"), 0 },
        { "the same as ours", STR("old.example"), ROUTE_LMTP, STR(""), STR("/run/dovecot/lmtp"), 0 },
        { "a gateway", STR("Inside.Example"), ROUTE_SMTP, STR("10.0.0.5"), STR(""), 25 },
        { "a backup", STR("backup.example"), ROUTE_MX, STR(""), STR(""), 25 },
        { "a route's own name", STR("partner.example"), ROUTE_SMTP, STR("10.0.0.9"), STR(""), 25 },
        { "below a name is another", STR("sub.partner.example"), ROUTE_MX, STR(""), STR(""), 25 },
        { "below a suffix", STR("a.b.corp.example."), ROUTE_SMTP, STR("10.0.0.9"), STR(""), 25 },
        { "the suffix itself is not below it", STR("corp.example"), ROUTE_MX, STR(""), STR(""), 25 },
        { "everything else", STR("elsewhere.example"), ROUTE_MX, STR(""), STR(""), 25 },
        { "a literal", STR("[192.0.2.77]"), ROUTE_MX, STR(""), STR(""), 25 },
        { "not a name at all", STR("\xff"), ROUTE_MX, STR(""), STR(""), 25 },
    };
    struct address client;
    struct fixture f;

    fixture_init(&f, large, sizeof large / sizeof *large);
    EXPECT_INT(t, f.conf.problems.errors, 0);
    EXPECT_INT(t, f.conf.problems.count, 0);
    for (size_t i = 0; f.site && i < sizeof routes / sizeof *routes; i++) {
        const struct route *route = site_route(f.site, routes[i].domain);
        test_case(t, routes[i].why);
        EXPECT_INT(t, route->kind, routes[i].kind);
        EXPECT_STR(t, route->host, routes[i].host);
        EXPECT_STR(t, route->path, routes[i].path);
        EXPECT_INT(t, route->port, routes[i].port);
        EXPECT(t, route->helo.len > 0);
    }
    if (f.site) {
        const struct site_listener *inside = &f.site->listeners[1];
        test_case(t, "a client of inside");
        EXPECT_STR(t, inside->name, S("inside"));
        address_from_ip(S("10.0.0.77"), &client);
        EXPECT(t, site_listener_settings(inside, &client).trusted);
        EXPECT(t, !site_listener_settings(inside, &client).refuse_early_talk);
        address_from_ip(S("::ffff:10.0.0.77"), &client);
        EXPECT(t, site_listener_settings(inside, &client).trusted);
        test_case(t, "a stranger inside");
        address_from_ip(S("10.0.1.77"), &client);
        EXPECT(t, !site_listener_settings(inside, &client).trusted);
        EXPECT_INT(t, site_listener_settings(inside, &client).line_ends, LINE_ENDS_REPAIR);
        test_case(t, "outside");
        EXPECT_INT(t, site_listener_settings(&f.site->listeners[0], &client).line_ends, LINE_ENDS_REFUSE);
        EXPECT(t, site_listener_settings(&f.site->listeners[0], &client).refuse_early_talk);
        EXPECT_INT(t, f.site->forwarder_count, 1);
        EXPECT_INT(t, f.site->retry.delay_notice, 6 * HOUR);
        EXPECT_INT(t, f.site->forwarders[0].port, 5300);
        EXPECT_INT(t, site_route(f.site, S("x.example"))->source_ipv4.family, ADDRESS_IPV4);
    }
    fixture_done(t, &f);
}

static void
test_site(struct test *t)
{
    struct address client;
    char memory[100];
    struct text path = text_init(memory, sizeof memory);
    struct fixture f;

    fixture_init(&f, tests_own, 1);
    EXPECT_INT(t, f.conf.problems.count, 0);
    if (f.site) {
        const struct route *route = site_route(f.site, S("remote.test"));
        EXPECT_INT(t, route->kind, ROUTE_SMTP);
        EXPECT_STR(t, route->host, S("127.0.0.1"));
        EXPECT_INT(t, route->port, 2600);
        EXPECT_INT(t, route->tls, ROUTE_TLS_OFF);
        EXPECT(t, directory_maildir(f.site->directory, S("ok@local.test"), &path));
        EXPECT_STR(t, text_str(&path), S("/some/dir/mail/local.test/ok"));
        EXPECT_INT(t, site_route(f.site, S("local.test"))->kind, ROUTE_MAILDIR);
        address_from_ip(S("127.0.0.1"), &client);
        struct listener_settings settings = site_listener_settings(&f.site->listeners[0], &client);
        EXPECT(t, settings.trusted);
        EXPECT_INT(t, settings.line_ends, LINE_ENDS_REPAIR);
    }
    fixture_done(t, &f);
}

/* What the default route says of the host that it leads to is not said of our own domains' hosts. */
static void
own_domains_site(struct test *t)
{
    static const struct {
        const char *why;
        struct str fallback, domain;
        enum route_tls tls;
        bool limited;
        int port; /* 0: a socket's */
    } cases[] = {
        { "LMTP beside a smarthost with a login", STR("via smtps://smtp.isp.example { user u; password-file p }"), STR("lmtp.example"),
          ROUTE_TLS_TRY, false, 0 },
        { "a gateway", STR("via smtp://smtp.isp.example { user u; token-file p }"), STR("inside.example"), ROUTE_TLS_TRY, false, 25 },
        { "a Maildir", STR("via smtp://smtp.isp.example { user u; password-file p }"), STR("here.example"), ROUTE_TLS_TRY, false, 25 },
        { "a backup MX", STR("via smtp://smtp.isp.example:587 { user u; password-file p }"), STR("backup.example"), ROUTE_TLS_TRY,
          false, 25 },
        { "encrypted there only", STR("via smtp://smtp.isp.example; tls require verify; tls-ca ca.pem"), STR("lmtp.example"),
          ROUTE_TLS_TRY, false, 0 },
        { "a backup MX goes to MX hosts as the default does", STR("direct; port 2600; tls require verify; tls-ca ca.pem"),
          STR("backup.example"), ROUTE_TLS_VERIFY, true, 2600 },
        { "a gateway is one of all the servers that must", STR("direct; port 2600; tls require verify; tls-ca ca.pem"),
          STR("inside.example"), ROUTE_TLS_VERIFY, true, 25 },
        { "so is an LMTP server", STR("direct; port 2600; tls require verify; tls-ca ca.pem"), STR("far.example"), ROUTE_TLS_VERIFY, true,
          24 },
        { "one of this machine is not", STR("direct; tls require"), STR("lmtp.example"), ROUTE_TLS_TRY, false, 0 },
        { "nor is one at an address of it", STR("direct; tls require"), STR("near.example"), ROUTE_TLS_TRY, false, 24 },
        { "or at IPv6", STR("direct; tls require"), STR("near6.example"), ROUTE_TLS_TRY, false, 24 },
        { "or at its name", STR("direct; tls require"), STR("named.example"), ROUTE_TLS_TRY, false, 24 },
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char memory[1500];
        struct text text = text_init(memory, sizeof memory);
        struct fixture f;
        test_case(t, cases[i].why);
        text_putf(&text,
                  "hostname mx.example.org\n"
                  "listen mx { address :25 }\n"
                  "domain lmtp.example { mailbox ok; alias postmaster -> ok; deliver lmtp:/run/lmtp }\n"
                  "domain far.example { mailbox ok; deliver lmtp://10.0.0.6:24 }\n"
                  "domain near.example { mailbox ok; deliver lmtp://127.0.0.1:24 }\n"
                  "domain near6.example { mailbox ok; deliver lmtp://[::1]:24 }\n"
                  "domain named.example { mailbox ok; deliver lmtp://localhost }\n"
                  "domain here.example { mailbox ok; deliver maildir /mail/{domain}/{local} }\n"
                  "domain inside.example { recipients any; relay via smtp://10.0.0.5 }\n"
                  "domain backup.example { recipients any; relay mx }\n"
                  "route default { %.*s; rate 100/h; source 192.0.2.25 helo out.example.org; connections 7 }\n",
                  STR_ARG(cases[i].fallback));
        const struct conf_fake_file files[] = { { STR("/m"), text_str(&text) }, { STR("/ca.pem"), STR("authorities") } };
        fixture_init(&f, files, 2);
        EXPECT_INT(t, f.conf.problems.errors, 0);
        if (f.site) {
            const struct route *route = site_route(f.site, cases[i].domain);
            EXPECT_INT(t, route->login_user.len + route->login_file.len + route->login_token, 0);
            EXPECT_INT(t, route->port, cases[i].port);
            EXPECT_INT(t, route->tls, cases[i].tls);
            EXPECT_INT(t, route->tls_ca.len > 0, cases[i].limited);
            EXPECT_INT(t, route->rate.count, cases[i].limited ? 100 : 0);
            EXPECT(t, !route->implicit_tls);
            EXPECT_STR(t, route->helo, S("out.example.org")); /* these are ours, wherever it goes */
            EXPECT_INT(t, route->source_ipv4.family, ADDRESS_IPV4);
            EXPECT_INT(t, route->connections, 7);
        }
        fixture_done(t, &f);
    }
}

/* DNS knows hosts by their A-labels, whoever names them. */
static void
hops_in_u_labels(struct test *t)
{
    static const struct conf_fake_file file = {
        STR("/m"), STR("hostname mx.example.org\nlisten mx { address :25 }\n"
                       "domain inside.example { recipients any; relay via smtp://B\xc3\xbc" "cher.example }\n"
                       "domain lmtp.example { mailbox postmaster; deliver lmtp://b\xc3\xbc" "cher.example:24 }\n"
                       "route default { via smtp://b\xc3\xbc" "cher.example }\n"),
    };
    static const struct str domains[] = { STR("inside.example"), STR("lmtp.example"), STR("elsewhere.example") };
    struct fixture f;

    fixture_init(&f, &file, 1);
    EXPECT_INT(t, f.conf.problems.errors, 0);
    for (size_t i = 0; f.site && i < sizeof domains / sizeof *domains; i++)
        EXPECT_STR(t, site_route(f.site, domains[i])->host, S("xn--bcher-kva.example"));
    fixture_done(t, &f);
}

/* Behind a proxy it is never the proxy's own address that may relay or ask. */
static void
proxied_site(struct test *t)
{
    struct address client;
    struct fixture f;

    static const struct conf_fake_file file = {
        STR("/m"), STR("hostname mx.local.test\nlisten mx { address :25; proxy from 10.0.0.1 10.1.0.0/16; relay from 10.0.0.0/8\n"
                       "vrfy local; expn on }\ndomain a.test { mailbox postmaster; deliver maildir /m/{local} }\n"),
    };

    fixture_init(&f, &file, 1);
    EXPECT_INT(t, f.conf.problems.errors, 0);
    if (f.site) {
        const struct site_listener *mx = &f.site->listeners[0];
        EXPECT_INT(t, mx->proxy_from.count, 2);
        address_from_ip(S("10.0.0.77"), &client);
        EXPECT(t, site_listener_settings(mx, &client).trusted);
        EXPECT_INT(t, site_listener_settings(mx, &client).vrfy, OFFER_LOCAL);
        EXPECT(t, !site_listener_settings(mx, &client).refuse_early_talk);
        EXPECT(t, !site_listener_settings(mx, NULL).trusted);
        EXPECT_INT(t, site_listener_settings(mx, NULL).vrfy, OFFER_OFF);
        EXPECT_INT(t, site_listener_settings(mx, NULL).expn, OFFER_ON);
        address_from_ip(S("192.0.2.1"), &client);
        EXPECT(t, !site_listener_settings(mx, &client).trusted);
        EXPECT(t, !site_listener_settings(mx, &client).refuse_early_talk);
    }
    fixture_done(t, &f);
}

/* What a role gets over its link describes the same site, and nothing of the world is asked again. */
static void
bundle_is_all_a_role_needs(struct test *t)
{
    unsigned char blob[16 << 10];
    struct put p = put_init(blob, sizeof blob);
    struct conf_bundle copy;
    struct fixture f;

    fixture_init(&f, large, sizeof large / sizeof *large);
    conf_bundle_put(&p, &f.conf.bundle);
    EXPECT(t, !p.full);
    size_t loads = f.conf.fake.loads;
    struct take all = take_init(put_str_so_far(&p));
    EXPECT(t, conf_bundle_take(&all, &f.conf.arena, &copy) && take_end(&all));
    struct site *site = site_load(&f.conf.mem, &copy, 8, &f.conf.problems);
    EXPECT(t, site != NULL);
    if (site) {
        EXPECT_INT(t, site->route_count, f.site->route_count);
        EXPECT_STR(t, site_route(site, S("inside.example"))->host, S("10.0.0.5"));
        site_free(site);
    }
    EXPECT_INT(t, f.conf.fake.loads, loads);
    conf_bundle_done(&copy);
    fixture_done(t, &f);
}

/* Each is added to a good site, at its line 2. */
#define GOOD "hostname mx.example.org\n"
static const struct {
    const char *why;
    struct str in, out;
} broken[] = {
    {"a misspelt word at the top", STR("listne mx { address :25 }"),
     STR("/m:2:1: \"listne\" is not known at the top of a configuration; did you mean \"listen\"?")},
    {"a word from another world", STR("smtpd_banner x"),
     STR("/m:2:1: \"smtpd_banner\" is not known at the top of a configuration")},
    {"a second hostname", STR("hostname mx2.example.org"), STR("/m:2:1: \"hostname\" was given before, at /m:1:1")},
    {"a second state", STR("state /a\nstate /b"), STR("/m:3:1: \"state\" was given before, at /m:2:1")},
    {"state of nothing", STR("state"), STR("/m:2:1: something is missing here: write \"state DIRECTORY\"")},
    {"sandbox of a mind", STR("sandbox requir"),
     STR("/m:2:9: \"requir\" is not a value here: it is one of try, require, off; did you mean \"require\"?")},
    {"a Maildir with two quotas", STR("domain a.example { mailbox x; deliver maildir /{local} quota 1MiB user u quota 2MiB }"),
     STR("/m:2:74: \"quota\" was given before")},
    {"a Maildir of two users", STR("domain a.example { mailbox x; deliver maildir /{local} user u user u }"),
     STR("/m:2:63: \"user\" was given before")},
    {"nobody for catch-all", STR("domain a.example { relay mx; catch-all -> x@b.example }"),
     STR("/m:2:30: nobody is left for catch-all: what is not named here goes to the next hop, unless \"recipients file\" says who is "
         "there")},
    {"listen without a kind", STR("listen { address :25 }"),
     STR("/m:2:1: write \"listen mx|submission|submissions [NAME] { ... }\"")},
    {"listen without a block", STR("listen mx"),
     STR("/m:2:1: write \"listen mx|submission|submissions [NAME] { ... }\"")},
    {"an unknown kind", STR("listen mxx { address :25 }"),
     STR("/m:2:8: \"mxx\" is not a kind of listener: it is one of mx, submission, submissions; did you mean \"mx\"?")},
    {"no address", STR("listen mx { vrfy off }"), STR("/m:2:1: this listener has no address: add \"address :25\"")},
    {"an address without a port", STR("listen mx { address 192.0.2.1 }"),
     STR("/m:2:21: \"192.0.2.1\" is not an address to listen on: write :25, 192.0.2.1:25 or [2001:db8::1]:25")},
    {"IPv6 without brackets", STR("listen mx { address 2001:db8::1:25 }"),
     STR("/m:2:21: \"2001:db8::1:25\" is not an address to listen on: write :25, 192.0.2.1:25 or [2001:db8::1]:25")},
    {"two with one address", STR("listen mx a { address :25 }\nlisten mx b { address 0.0.0.0:25 }"),
     STR("/m:3:1: two listeners have the address 0.0.0.0:25")},
    {"one is everywhere already", STR("listen mx a { address :25 }\nlisten mx b { address 192.0.2.1:25 }"),
     STR("/m:3:1: two listeners have the address 192.0.2.1:25")},
    {"a name without end", STR("listen mx x123456789x123456789x123456789x123456789x123456789x123456789x123 { address :25 }"),
     STR("/m:2:11: a listener's name may have 63 bytes")},
    {"a state too deep for its sockets",
     STR("state /x123456789x123456789x123456789x123456789x123456789x123456789x123456789x123456789x123456789x12"),
     STR("/m:2:7: this path is too long: state may have 91 bytes")},
    {"two with one name", STR("listen mx { address :25 }\nlisten mx { address :26 }"),
     STR("/m:3:8: another listener is called \"mx\": give each a name of its own, \"listen mx NAME { ... }\"")},
    {"a misspelt word in a listener", STR("listen mx { address :25\n  maxsize 5MiB }"),
     STR("/m:3:3: \"maxsize\" is not known in this block; did you mean \"max-size\"?")},
    {"a tiny size", STR("listen mx { address :25; max-size 1KiB }"),
     STR("/m:2:35: \"1KiB\" is out of range: max-size may be 64KiB to 1TiB")},
    {"a size in a wrong unit", STR("listen mx { address :25; max-size 50MB }"),
     STR("/m:2:35: \"50MB\" is not a size such as 64KiB or 50MiB")},
    {"too few recipients", STR("listen mx { address :25; max-recipients 10 }"),
     STR("/m:2:41: \"10\" is out of range: max-recipients may be 100 to 10000")},
    {"a listener without a name", STR("listen mx \"\" { address :25 }"), STR("/m:2:11: a listener's name is not empty")},
    {"a listener's name that is none", STR("listen mx { address :25; hostname \"\xc2\xad.example\" }"),
     STR("/m:2:35: \"\xc2\xad.example\" is not a name that IDNA allows")},
    {"a source's name that is none", STR("route default { direct; source 192.0.2.1 helo \"\xc2\xad.example\" }"),
     STR("/m:2:47: \"\xc2\xad.example\" is not a name that IDNA allows")},
    {"a next hop whose name is none", STR("route default { via \"smtp://\xc2\xad.example\" }"),
     STR("/m:2:21: \"\xc2\xad.example\" is not a name that IDNA allows")},
    {"more than a counter counts", STR("users file u { messages-per-day 4294967296 }"),
     STR("/m:2:33: \"4294967296\" is out of range: messages-per-day may be 0 to 4294967295")},
    {"no wrong command at all", STR("listen mx { address :25; wrong-commands 0 }"),
     STR("/m:2:41: \"0\" is out of range: wrong-commands may be 1 to 10000")},
    {"a rate that nobody has", STR("listen mx { address :25; content-rate 2MiB }"),
     STR("/m:2:39: \"2MiB\" is out of range: content-rate may be 0 to 1MiB")},
    {"line ends of no kind", STR("listen mx { address :25; line-ends fix }"),
     STR("/m:2:36: \"fix\" is not a value here: it is one of refuse, repair")},
    {"vrfy of no kind", STR("listen mx { address :25; vrfy yes }"),
     STR("/m:2:31: \"yes\" is not a value here: it is one of off, local, on")},
    {"connections of whom", STR("listen mx { address :25; connections 50 }"),
     STR("/m:2:26: write \"connections NUMBER per-client\"")},
    {"no connections", STR("listen mx { address :25; connections 0 per-client }"),
     STR("/m:2:38: \"0\" is out of range: connections per client may be 1 to 10000")},
    {"proxy to, not from", STR("listen mx { address :25; proxy 10.0.0.1 }"),
     STR("/m:2:26: write \"proxy from NETWORK ...\"")},
    {"a proxy that is no address", STR("listen mx { address :25; proxy from haproxy }"),
     STR("/m:2:37: \"haproxy\" is neither an address nor a network such as 192.0.2.0/24")},
    {"relay to, not from", STR("listen mx { address :25; relay 10.0.0.0/8 }"),
     STR("/m:2:26: write \"relay from NETWORK ...\"")},
    {"relay from the world", STR("listen mx { address :25; relay from 0.0.0.0/0 }"),
     STR("/m:2:37: \"relay from 0.0.0.0/0\" is an open relay")},
    {"relay from the other world", STR("listen mx { address :25; relay from ::/0 }"),
     STR("/m:2:37: \"relay from ::/0\" is an open relay")},
    {"relay from a network that is none", STR("listen mx { address :25; relay from 10.0.0.1/8 }"),
     STR("/m:2:37: \"10.0.0.1/8\" is not a network: the bits behind its length must be zero, as in 192.0.2.0/24")},
    {"a listener's certificate without a key", STR("listen mx x { address :26; tls { certificate a.pem } }"),
     STR("/m:2:28: certificate and key go together: key is missing")},
    {"client certificates without a file", STR("listen mx x { address :26; client-certificates ask }"),
     STR("/m:2:28: write \"client-certificates ask|require FILE\"")},
    {"client certificates, perhaps", STR("listen mx x { address :26; client-certificates maybe /ca }"), STR("/m:2:48: \"maybe\" is not a value here: it is one of ask, require")},
    {"authorities that are not there", STR("listen mx x { address :26; client-certificates ask /ca }"), STR("/m:2:52: \"/ca\" cannot be read: not found")},
    {"a certificate without a key", STR("tls { certificate a.pem }"),
     STR("/m:2:1: certificate and key go together: key is missing")},
    {"tls without a block", STR("tls mx.pem"), STR("/m:2:1: write \"tls { certificate FILE; key FILE }\"")},
    {"users of nothing", STR("users anna"), STR("/m:2:1: write \"users file FILE\"")},
    {"a mechanism that is none", STR("users file u { mechanisms plain scram-sha-265 }"),
     STR("/m:2:33: \"scram-sha-265\" is no mechanism that we know; did you mean \"scram-sha-256\"?")},
    {"Dovecot and certificates", STR("users dovecot /run/d { mechanisms plain external }"),
     STR("/m:2:1: Dovecot's socket takes no certificate and no channel binding: leave external and -plus out of mechanisms")},
    {"a domain twice", STR("domain a.example { alias x -> y@z.example }\ndomain a.example { alias x -> y@z.example }"),
     STR("/m:3:8: the domain \"a.example\" was given before, at /m:2:8")},
    {"a mailbox with no way", STR("domain a.example { mailbox x }"),
     STR("/m:2:1: this domain has mailboxes but no way to deliver: add \"deliver maildir PATH\" or \"deliver "
         "lmtp:/SOCKET\"")},
    {"an alias to nobody", STR("domain a.example { mailbox anna; deliver lmtp:/x\n  alias sales -> ann }"),
     STR("/m:3:18: nobody in a.example is called \"ann\"; did you mean \"anna\"?")},
    {"a route without a name", STR("route { direct }"), STR("/m:2:1: write \"route default|DOMAIN ... { ... }\"")},
    {"a route without a way", STR("route default { family any }"),
     STR("/m:2:1: a route has either \"via smtp://HOST\" or \"direct\"")},
    {"a route with two ways", STR("route default { direct; via smtp://a.example }"),
     STR("/m:2:17: a route has either \"via smtp://HOST\" or \"direct\"")},
    {"a route twice", STR("route x.example default.example { direct }\nroute x.example { direct }"),
     STR("/m:3:7: a route for \"x.example\" was given before, at /m:2:1")},
    {"two defaults", STR("route default { direct }\nroute default { direct }"),
     STR("/m:3:7: a route for \"default\" was given before, at /m:2:1")},
    {"a route for no domain", STR("route *.example { direct }"),
     STR("/m:2:7: \"*.example\" is not a domain, nor \".domain\" for all below one, nor \"default\"")},
    {"a next hop by a wrong scheme", STR("route default { via smpts://a.example }"),
     STR("/m:2:21: \"smpts://a.example\" is not a next hop: write smtp://HOST:PORT, smtps://HOST, lmtp://HOST:PORT or "
         "lmtp:/SOCKET; did you mean \"smtps\"?")},
    {"a user without a password", STR("route default { via smtp://a.example { user u } }"),
     STR("/m:2:17: user and password-file go together: password-file is missing")},
    { "default among others", STR("route a.example default { direct }"),
      STR("/m:2:17: \"default\" is all domains without a route of their own: it stands alone") },
    { "an address for a name", STR("listen mx x { address :26; hostname 192.0.2.25 }"),
      STR("/m:2:37: \"192.0.2.25\" is not a host or domain name") },
    { "a password in clear", STR("route default { via smtp://a.example { user u; password-file p }; tls off }"),
      STR("/m:2:1: \"user\" with \"tls off\" would send the password in clear") },
    {"a password in the text", STR("route default { via smtp://a.example { password secret } }"),
     STR("/m:2:40: \"password\" is not known in this block")},
    {"a port for a host", STR("route default { via smtp://a.example; port 26 }"),
     STR("/m:2:39: \"port\" goes with \"direct\" only")},
    {"port zero", STR("route default { direct; port 0 }"), STR("/m:2:30: write \"port NUMBER\"")},
    {"a source that is a name", STR("route default { direct; source mx.example.org }"),
     STR("/m:2:32: \"mx.example.org\" is not an IP address")},
    {"two sources of one family", STR("route default { direct; source 192.0.2.1 192.0.2.2 }"),
     STR("/m:2:42: \"192.0.2.2\" is a second address of its family")},
    {"a helo of nothing", STR("route default { direct; source 192.0.2.1 helo }"),
     STR("/m:2:25: write \"source IP [IP] [helo NAME]\"")},
    {"a family of five", STR("route default { direct; family ipv5 }"),
     STR("/m:2:32: \"ipv5\" is not a value here: it is one of any, ipv4, ipv6; did you mean \"ipv4\"?")},
    {"tls of no kind", STR("route default { direct; tls required }"),
     STR("/m:2:29: \"required\" is not a value here: it is one of try, off, require, insecure-override; did you mean "
         "\"require\"?")},
    {"tls of too many words", STR("route default { direct; tls try verify }"),
     STR("/m:2:25: write \"tls try|off|require [verify]|insecure-override\"")},
    {"TLS over a socket", STR("route default { via lmtp:/run/lmtp; tls require }"),
     STR("/m:2:1: over a socket of this machine there is no TLS")},
    {"smtps without TLS", STR("route default { via smtps://a.example; tls off }"),
     STR("/m:2:1: smtps:// is TLS from the first byte: it is not without")},
    {"authorities that are not there", STR("route default { direct; tls require verify; tls-ca none.pem }"),
     STR("/m:2:52: \"/none.pem\" cannot be read: not found")},
    {"a rate without a unit", STR("route default { direct; rate 100 }"),
     STR("/m:2:30: write a rate such as \"rate 100/h\": messages a s, m, h or d")},
    {"a retry without an end", STR("retry 5m 15m"), STR("/m:2:1: write \"retry 5m 15m 30m 1h 2h 4h for 5d\"")},
    {"a retry of numbers", STR("retry 5 15 for 5d"), STR("/m:2:7: \"5\" is not a time such as 30s, 5m or 1h")},
    {"a retry at once", STR("retry 0 for 5d"), STR("/m:2:7: \"0\" is out of range: a wait may be 1s to 7d")},
    {"a retry for ever", STR("retry 5m for 99d"), STR("/m:2:14: \"99d\" is not a time that mail may wait: 1m to 60d")},
    {"a notice after the end", STR("retry 5m for 5d { delay-notice 5d }"),
     STR("/m:2:32: mail fails before its delay would be told: \"5d\" is not shorter than its lifetime")},
    {"a notice never", STR("retry 5m for 5d { delay-notice never }"),
     STR("/m:2:32: \"never\" is neither \"off\" nor a time after which people are told: 1s to 60d")},
    {"a wait of nothing", STR("route default { direct; reply-wait 0 }"),
     STR("/m:2:36: \"0\" is out of range: reply-wait may be 1s to 10m")},
    {"a resolver's name", STR("resolver { forward dns.example }"),
     STR("/m:2:20: \"dns.example\" is not a resolver's address: write 192.0.2.53 or 127.0.0.1:5300")},
    {"a resolver without a block", STR("resolver 127.0.0.1"),
     STR("/m:2:1: write \"resolver { forward IP:PORT ... }\"")},
    {"an include of nothing", STR("include none.conf"), STR("/m:2:9: \"/none.conf\" cannot be read: not found")},
    {"an include with a block", STR("include none.conf { }"),
     STR("/m:2:1: \"include\" has no block: write \"include FILE|PATTERN ...\"")},
    {"an open block", STR("domain a.example {\n  mailbox x\n"),
     STR("/m:2:1: the block of \"domain\" is not closed: \"}\" is missing")},
    {"a block too many", STR("}"), STR("/m:2:1: this \"}\" closes nothing")},
    {"an unset variable", STR("state ${NOWHERE}"), STR("/m:2:7: the environment variable \"NOWHERE\" is not set")},
};

static void
refuses_broken_sites(struct test *t)
{
    EXPECT(t, sizeof broken / sizeof *broken >= 40);
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        char text[400];
        struct text conf = text_init(text, sizeof text);
        struct fixture f;
        test_case(t, broken[i].why);
        text_put(&conf, S(GOOD));
        text_put(&conf, broken[i].in);
        struct conf_fake_file file = { STR("/m"), text_str(&conf) };
        fixture_init(&f, &file, 1);
        EXPECT(t, f.site == NULL);
        EXPECT(t, f.conf.problems.errors > 0);
        size_t first = 0;
        while (first + 1 < f.conf.problems.count && f.conf.problems.items[first].warning)
            first++;
        expect_problem(t, &f, first, broken[i].out);
        fixture_done(t, &f);
    }
}

static void
refuses_more_addresses_than_a_receiver_takes(struct test *t)
{
    char memory[4096];
    struct text conf = text_init(memory, sizeof memory);
    struct fixture f;

    text_put(&conf, S(GOOD "listen mx {\naddress"));
    for (int port = 1; port <= LIMIT_LISTEN_ADDRESSES + 1; port++)
        text_putf(&conf, " 127.0.0.1:%d", port);
    text_put(&conf, S("\n}\n"));
    struct conf_fake_file file = { STR("/m"), text_str(&conf) };
    fixture_init(&f, &file, 1);
    EXPECT(t, f.site == NULL);
    expect_problem(t, &f, 0, S("/m:2:1: all listeners together may have 64 addresses; \":25\" is two"));
    fixture_done(t, &f);
}

/* So many of one statement that no role could be told of one more; `last`: what is said then, absent: nothing. */
static void
expect_most(struct test *t, const char *why, const char *statement, int count, struct str last)
{
    enum { MOST = 128 << 10 };
    struct mem mem = mem_libc();
    struct fixture f;

    for (int more = 0; more < 2; more++) {
        struct text conf = text_init(mem_alloc(&mem, MOST), MOST);
        test_case(t, why);
        text_put(&conf, S(GOOD "listen mx { address :25 }\n"));
        for (int i = 1; i <= count + more; i++)
            for (struct str rest = str_from_cstr(statement); rest.len > 0;) { /* "#" is the number */
                struct str part = str_cut(&rest, '#');
                text_put(&conf, part);
                if (!str_is_absent(rest))
                    text_putf(&conf, "%d", i);
            }
        struct conf_fake_file file = { STR("/m"), text_str(&conf) };
        fixture_init(&f, &file, 1);
        EXPECT_INT(t, f.site != NULL, !more);
        if (more)
            expect_problem(t, &f, 0, last);
        fixture_done(t, &f);
        mem_free(&mem, conf.ptr, MOST);
    }
}

static void
refuses_more_than_its_roles_take(struct test *t)
{
    expect_most(t, "routes with a password", "route a#.example { via smtp://h.example { user u; password-file p } }\n", SITE_SECRETS_MAX,
                S("/m:259:22: there may be 256 routes with a password or token"));
    expect_most(t, "directories for mail",
                "domain a#.example { mailbox x; alias postmaster -> x; deliver maildir /mail/#/{local} }\n", SITE_MAIL_DIRS_MAX,
                S("/m:259:57: there may be 256 directories for mail: what stands before the first {...}, for each user"));
}

static void
calls_itself_by_a_labels(struct test *t)
{
    struct conf_fake_file file = {
        STR("/m"), STR("hostname mx.b\xc3\xbc""cher.example\nlisten mx { address :25 }\n"
                       "listen mx other { address :26; hostname B\xc3\x9c""CHER.example }\n"
                       "route default { direct; source 192.0.2.1 helo out.b\xc3\xbc""cher.example }\n") };
    struct fixture f;

    fixture_init(&f, &file, 1);
    EXPECT(t, f.site != NULL);
    if (f.site) {
        EXPECT_STR(t, f.site->hostname, S("mx.xn--bcher-kva.example"));
        EXPECT_STR(t, f.site->listeners[0].settings.hostname, S("mx.xn--bcher-kva.example"));
        EXPECT_STR(t, f.site->listeners[1].settings.hostname, S("xn--bcher-kva.example"));
        EXPECT_STR(t, site_route(f.site, S("x.example"))->helo, S("out.xn--bcher-kva.example"));
    }
    fixture_done(t, &f);
}

static void
needs_a_name_and_a_file(struct test *t)
{
    struct conf_fake_file file = { STR("/m"), STR("listen mx { address :25 }") };
    struct fixture f;

    fixture_init(&f, &file, 1);
    EXPECT(t, f.site == NULL);
    expect_problem(t, &f, 0, S("the host has no name: write \"hostname mx.example.org\""));
    fixture_done(t, &f);
    file.path = S("/elsewhere");
    f.conf.mem = mem_libc();
    arena_init(&f.conf.arena, &f.conf.mem, 4096, 1 << 20);
    f.conf.fake = (struct conf_fake){ &file, 1, 0 };
    f.conf.world = conf_fake_world(&f.conf.fake);
    conf_bundle_init(&f.conf.bundle, &f.conf.arena, &f.conf.world, S("/m"));
    conf_problems_init(&f.conf.problems, &f.conf.arena);
    f.site = site_load(&f.conf.mem, &f.conf.bundle, 7, &f.conf.problems);
    EXPECT_INT(t, f.conf.problems.errors, 1);
    expect_problem(t, &f, 0, S("/m: the configuration cannot be read: not found"));
    fixture_done(t, &f);
}

static void
warns(struct test *t)
{
    static const struct {
        const char *why;
        struct str in, out;
    } unwise[] = {
        {"nothing listens", STR("hostname mx.example.org"),
         STR("warning: there is no \"listen\": mail comes in by sendmail only")},
        {"a short name", STR("hostname mx\nlisten mx { address :25 }"),
         STR("/m:1:10: warning: \"mx\" is not fully qualified: others want a name such as mx.example.org")},
        {"a wide network", STR(GOOD "listen mx { address :25; relay from 10.0.0.0/8 }"),
         STR("/m:2:37: warning: \"relay from 10.0.0.0/8\" is wider than /16: everybody there may relay")},
        {"backscatter", STR(GOOD "listen mx { address :25 }\ndomain a.example { recipients any; relay mx }"),
         STR("/m:3:20: warning: \"recipients any\" makes backscatter: what the next hop refuses is bounced to senders "
             "who are often forged")},
        {"TLS from the first byte, in clear", STR(GOOD "listen mx { address :25 }\nroute default { via h.example:465; tls require }"),
         STR("/m:3:21: warning: port 465 is TLS from the first byte (RFC 8314): write smtps://HOST")},
        {"private targets", STR(GOOD "listen mx { address :25 }\nroute default { direct; allow-private 127.0.0.0/8 }"),
         STR("/m:3:25: warning: \"allow-private\" is for tests: whoever owns a domain can name addresses there")},
        {"a shared Maildir",
         STR(GOOD "listen mx { address :25 }\ndomain a.example { mailbox x; deliver maildir /all }"),
         STR("/m:3:47: warning: without {local} all mailboxes of this domain share one Maildir")},
        {"a route for nothing",
         STR(GOOD "listen mx { address :25 }\nroute a.example { direct }\ndomain a.example { relay via 10.0.0.5 }"),
         STR("/m:3:1: warning: a route for \"a.example\" is never used: the domain is ours")},
    };

    for (size_t i = 0; i < sizeof unwise / sizeof *unwise; i++) {
        struct conf_fake_file file = { STR("/m"), unwise[i].in };
        struct fixture f;
        test_case(t, unwise[i].why);
        fixture_init(&f, &file, 1);
        EXPECT(t, f.site != NULL);
        EXPECT_INT(t, f.conf.problems.warnings, 1);
        expect_problem(t, &f, 0, unwise[i].out);
        fixture_done(t, &f);
    }
}

/* Every line deleted, doubled, cut and given junk: an error with its place, or a site. Never a crash. */
static void
survives_mangled_lines(struct test *t)
{
    static const struct str junk[] = {STR("}"),  STR("{"),    STR("\""),       STR(","),
                                      STR(" x"), STR("${X}"), STR("\xff\x01"), STR("->")};
    enum { DELETE, DOUBLE, CUT, JUNK, WAYS = JUNK + sizeof junk / sizeof *junk };
    const struct str *const wholes[] = { &small[0].text, &large[0].text };
    size_t sites = 0, refused = 0;

    for (size_t w = 0; w < sizeof wholes / sizeof *wholes; w++) {
        struct str whole = *wholes[w];
        for (size_t start = 0; start < whole.len;) {
            size_t end = start + str_find_byte(str_from(whole, start), '\n');
            struct str line = str_slice(whole, start, end);
            for (size_t way = 0; way < WAYS; way++) {
                char memory[4000];
                struct text conf = text_init(memory, sizeof memory);
                struct conf_fake_file files[sizeof large / sizeof *large];
                struct fixture f;
                text_put(&conf, str_slice(whole, 0, start));
                if (way != DELETE)
                    text_put(&conf, way == CUT ? str_slice(line, 0, line.len / 2) : line);
                if (way == DOUBLE) {
                    text_put(&conf, S("\n"));
                    text_put(&conf, line);
                }
                if (way >= JUNK)
                    text_put(&conf, junk[way - JUNK]);
                text_put(&conf, str_from(whole, end));
                memcpy(files, large, sizeof files);
                files[0].text = text_str(&conf);
                fixture_init(&f, files, sizeof files / sizeof *files);
                EXPECT(t, (f.site == NULL) == (f.conf.problems.errors > 0));
                if (f.conf.problems.errors > 0)
                    EXPECT(t, f.conf.problems.items[0].what.len > 0 &&
                                  (f.conf.problems.items[0].where.line > 0 || f.conf.problems.count > 0));
                sites += f.site != NULL;
                refused += f.site == NULL;
                fixture_done(t, &f);
            }
            start = end + 1;
        }
    }
    EXPECT(t, sites > 50 && refused > 200);
}

static void
survives_every_cut(struct test *t)
{
    for (size_t len = 0; len <= large[0].text.len; len++) {
        struct conf_fake_file files[sizeof large / sizeof *large];
        struct fixture f;
        memcpy(files, large, sizeof files);
        files[0].text = str_slice(large[0].text, 0, len);
        fixture_init(&f, files, sizeof files / sizeof *files);
        EXPECT(t, (f.site == NULL) == (f.conf.problems.errors > 0));
        fixture_done(t, &f);
    }
}

/* ---- the world ------------------------------------------------------------------------------------------------- */

static bool
no_name(void *ctx, const struct address *a)
{
    (void)ctx, (void)a;
    return false;
}

static struct err
no_network(void *ctx)
{
    (void)ctx;
    return ERR(ERR_UNREACHABLE, NULL);
}

static struct err
no_host(void *ctx)
{
    (void)ctx;
    return ERR(ERR_NOT_FOUND, NULL);
}

static struct address
gateway(void *ctx, uint8_t family)
{
    struct address a = { 0 };

    (void)ctx;
    if (family == ADDRESS_IPV4)
        address_from_ip(S("10.0.0.254"), &a);
    return a;
}

static struct err
no_directory(void *ctx, struct str path)
{
    (void)ctx, (void)path;
    return ERR(ERR_NOT_FOUND, NULL);
}

static bool
no_user(void *ctx, struct str name)
{
    (void)ctx, (void)name;
    return false;
}

static bool
any_user(void *ctx, struct str name)
{
    (void)ctx, (void)name;
    return true;
}

static struct err
open_to_all(void *ctx, struct str path, bool plain, uint32_t *out_mode)
{
    (void)ctx, (void)path, (void)plain;
    *out_mode = 0644;
    return OK;
}

/* Nothing is there, and the users file is a link. */
static struct err
no_file(void *ctx, struct str path, bool plain, uint32_t *out_mode)
{
    (void)ctx, (void)path, (void)out_mode;
    return plain && str_eq(path, S("/link")) ? ERR(ERR_DENIED, "open a link: this must be the file itself") : ERR(ERR_NOT_FOUND, "look at");
}

static void
checks_the_world(struct test *t)
{
    static const struct conf_fake_file file = {
        STR("/m"), STR(GOOD "listen mx { address 192.0.2.25:25 127.0.0.1:25; relay from 10.0.0.0/24 }\n"
                            "domain a.example { mailbox x; deliver maildir /x/{local} user u }\n"
                            "route default { via smtp://h.example { user u; password-file /p } }\n"),
    };
    static const struct site_world bad = { NULL, no_name, no_network, gateway, no_directory, no_user, open_to_all };
    static const struct str wanted[] = {
        STR("/m:2:1: warning: 192.0.2.25 has no reverse name: many hosts refuse mail from such an address"),
        STR("/m:2:1: warning: \"relay from\" contains the default gateway 10.0.0.254: behind address translation the "
            "whole "
            "world comes from there"),
        STR("/m:3:8: postmaster leads nowhere: add \"alias postmaster -> SOMEBODY\" (RFC 5321 section 4.5.1)"),
        STR("/m:3:31: there is no user \"u\" on this machine"),
        STR("warning: the state directory \"/var/lib/postrider\" does not exist yet: \"postrider run\" makes it"),
        STR("warning: port 25 of other hosts cannot be reached: a provider may block it; \"route default { via "
            "smtp://HOST:587 }\" goes another way"),
        STR("/m:4:1: others can read the secret file \"/p\": chmod o-rwx"),
    };
    static const struct site_world silent = { 0 };
    struct conf_problems problems;
    struct fixture f;

    fixture_init(&f, &file, 1);
    EXPECT(t, f.site != NULL);
    conf_problems_init(&problems, &f.conf.arena);
    f.conf.problems = problems;
    if (f.site) {
        EXPECT_INT(t, site_route(f.site, S("x.example"))->tls, ROUTE_TLS_VERIFY); /* a password goes to nobody else */
        site_check_world(f.site, &bad, &f.conf.problems);
    }
    EXPECT_INT(t, f.conf.problems.count, sizeof wanted / sizeof *wanted);
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
        expect_problem(t, &f, i, wanted[i]);
    f.conf.problems = problems;
    if (f.site)
        site_check_world(f.site, &silent, &f.conf.problems);
    EXPECT_INT(t, f.conf.problems.count, 1); /* postmaster, which needs no world */
    static const struct site_world lost = { .reaches_port_25 = no_host };
    f.conf.problems = problems;
    if (f.site)
        site_check_world(f.site, &lost, &f.conf.problems);
    expect_problem(t, &f, 1,
                   S("warning: the host that --network names has no address that can be found: nothing is known of port 25"));
    static const struct site_world not_root = { .has_user = any_user, .may_be_user = no_user };
    f.conf.problems = problems;
    if (f.site)
        site_check_world(f.site, &not_root, &f.conf.problems);
    EXPECT_INT(t, f.conf.problems.errors, 1);
    expect_problem(t, &f, 1, S("/m:3:31: warning: only root can deliver as user \"u\": who checks this could not start the server"));
    fixture_done(t, &f);
}

/* Only then do roles need to make Unix sockets. */
static void
knows_whether_mail_goes_to_unix_sockets(struct test *t)
{
    static const struct { const char *why; struct conf_fake_file file; bool has; } cases[] = {
        { "Maildirs, hosts",
          { STR("/m"), STR(GOOD "domain a.test { mailbox postmaster; deliver maildir /m/{local} }\n"
                                "domain b.test { relay via smtp://10.0.0.1 }\nroute default { direct }\n") }, false },
        { "LMTP by TCP", { STR("/m"), STR(GOOD "domain a.test { mailbox postmaster; deliver lmtp://127.0.0.1:24 }\n") }, false },
        { "a domain's", { STR("/m"), STR(GOOD "domain a.test { mailbox postmaster; deliver lmtp:/run/lmtp }\n") }, true },
        { "a route's", { STR("/m"), STR(GOOD "route a.test { via lmtp:/run/lmtp }\n") }, true },
    };
    struct fixture f;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        test_case(t, cases[i].why);
        fixture_init(&f, &cases[i].file, 1);
        EXPECT_INT(t, f.conf.problems.errors, 0);
        EXPECT(t, f.site && site_has_unix_hop(f.site) == cases[i].has);
        fixture_done(t, &f);
    }
}

static bool
makes_nothing_in_var_mail(void *ctx, struct str user, struct str path)
{
    (void)ctx, (void)user;
    return !str_eq(path, S("/var/mail"));
}

static void
says_who_cannot_make_maildirs(struct test *t)
{
    static const struct site_world world = { .makes_in = makes_nothing_in_var_mail };
    static const struct { const char *why; struct conf_fake_file file; struct str wanted; } cases[] = {
        { "root makes the domain's",
          { STR("/m"), STR(GOOD "domain a.example { mailbox x; deliver maildir /var/mail/{domain}/{local} }\n") }, STR("") },
        { "their own", { STR("/m"), STR(GOOD "domain a.example { mailbox x; deliver maildir /srv/mail/{local} }\n") }, STR("") },
        { "no Maildirs", { STR("/m"), STR(GOOD "domain a.example { mailbox x; deliver lmtp:/var/mail/lmtp }\n") }, STR("") },
        { "in the base", { STR("/m"), STR(GOOD "domain a.example { mailbox x; deliver maildir /var/mail/{local} }\n"
                                               "domain b.example { same-as a.example }\n") },
          STR("/m:2:31: warning: the user who delivers can make no Maildirs in \"/var/mail\", so mail for who has none there would "
              "wait: let them begin with \"/var/mail/{domain}/\", where the server makes what is missing, or make them for that "
              "user") },
        { "not all of a name",
          { STR("/m"), STR(GOOD "domain a.example { mailbox x; deliver maildir /var/mail/{domain}-{local} user u }\n") },
          STR("/m:2:31: warning: the user who delivers, \"u\", can make no Maildirs in \"/var/mail\", so mail for who has none there "
              "would wait: let them begin with \"/var/mail/{domain}/\", where the server makes what is missing, or make them for "
              "that user") },
        { "two names", { STR("/m"), STR(GOOD "domain a.example b.example { mailbox x; deliver maildir /var/mail/{local} }\n") },
          STR("/m:2:41: warning: the user who delivers can make no Maildirs in \"/var/mail\", so mail for who has none there would "
              "wait: let them begin with \"/var/mail/{domain}/\", where the server makes what is missing, or make them for that "
              "user") },
    };
    struct fixture f;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bool told = cases[i].wanted.len > 0;
        test_case(t, cases[i].why);
        fixture_init(&f, &cases[i].file, 1);
        EXPECT(t, f.site != NULL);
        conf_problems_init(&f.conf.problems, &f.conf.arena);
        if (f.site)
            site_check_world(f.site, &world, &f.conf.problems);
        EXPECT_INT(t, f.conf.problems.count, 1 + told); /* behind what postmaster wants */
        if (told)
            expect_problem(t, &f, 1, cases[i].wanted);
        fixture_done(t, &f);
    }
}

static struct err
for_its_owner(void *ctx, struct str path, bool plain, uint32_t *out_mode)
{
    (void)ctx, (void)path, (void)plain;
    *out_mode = 0600;
    return OK;
}

static void
looks_for_its_files(struct test *t)
{
    static const struct conf_fake_file files[] = {
        { STR("/m"), STR(GOOD "resolver { trust-anchor /t }\nmta-sts-ca /c\nusers file /u\n"
                              "route default { via smtp://h.example { user u; password-file /p } }\n") },
        { STR("/m"), STR(GOOD "mta-sts-ca /c\nmta-sts off\nusers file /link\n") },
    };
    static const struct str wanted[][4] = {
        { STR("/m:4:1: warning: there is no users file \"/u\": nobody can log in until \"postrider user add\" makes it"),
          STR("the trust-anchor \"/t\" cannot be read, so nothing is validated: look at: not found"),
          STR("the mta-sts-ca \"/c\" cannot be read, so no policy is believed: look at: not found"),
          STR("/m:5:1: the secret file \"/p\" cannot be read: look at: not found") },
        { STR("/m:4:1: the users file \"/link\" cannot be used: open a link: this must be the file itself: permission denied") },
    };
    static const struct site_world empty = { .look_at_file = no_file };
    struct fixture f;

    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        size_t count = 0;
        fixture_init(&f, &files[i], 1);
        EXPECT(t, f.site != NULL);
        conf_problems_init(&f.conf.problems, &f.conf.arena);
        if (f.site)
            site_check_world(f.site, &empty, &f.conf.problems);
        for (; count < 4 && wanted[i][count].len; count++)
            expect_problem(t, &f, 1 + count, wanted[i][count]); /* behind what postmaster wants */
        EXPECT_INT(t, f.conf.problems.count, 1 + count);
        fixture_done(t, &f);
    }
    static const struct site_world closed = { .look_at_file = for_its_owner };
    fixture_init(&f, &files[0], 1);
    conf_problems_init(&f.conf.problems, &f.conf.arena);
    if (f.site)
        site_check_world(f.site, &closed, &f.conf.problems);
    EXPECT_INT(t, f.conf.problems.count, 3);
    expect_problem(t, &f, 1, S("warning: only its owner can read \"/t\", and the server's roles are not root: chmod a+r"));
    expect_problem(t, &f, 2, S("warning: only its owner can read \"/c\", and the server's roles are not root: chmod a+r"));
    fixture_done(t, &f);
}

/* The list in the manual page is the one that these tables print. */
static void
manual_page_agrees(struct test *t)
{
    enum { LIST_MAX = 64 << 10 };
    struct mem mem = mem_libc();
    struct str page = test_source_file(t, "man/postrider.conf.5");
    struct text list = text_init(mem_alloc(&mem, LIST_MAX), LIST_MAX);

    setting_put_mdoc(&list, &site_settings);
    EXPECT(t, !list.full);
    if (!str_is_absent(page)) {
        struct str begin = S("\"postrider config reference --mdoc\".\n"), end = S(".\\\" End of the list.\n");
        size_t from = str_find(page, begin);
        EXPECT(t, from < page.len);
        struct str printed = str_from(page, from + begin.len);
        printed = str_slice(printed, 0, str_find(printed, end));
        /* If not: put what `postrider config reference --mdoc` prints in its place. */
        EXPECT(t, str_eq(printed, text_str(&list)));
        test_file_free(page);
    }
    mem_free(&mem, list.ptr, LIST_MAX);
}

TEST_MAIN({"small site", small_site}, {"large site", large_site}, {"test site", test_site}, {"own domains", own_domains_site}, {"a proxied site", proxied_site},
          {"says who cannot make Maildirs", says_who_cannot_make_maildirs},
          {"knows whether mail goes to Unix sockets", knows_whether_mail_goes_to_unix_sockets},
          {"bundle is all a role needs", bundle_is_all_a_role_needs}, {"refuses broken sites", refuses_broken_sites},
          {"refuses more addresses than a receiver takes", refuses_more_addresses_than_a_receiver_takes},
          {"refuses more than its roles take", refuses_more_than_its_roles_take},
          {"calls itself by A-labels", calls_itself_by_a_labels}, {"next hops in U-labels", hops_in_u_labels},
          {"needs a name and a file", needs_a_name_and_a_file}, {"warns", warns},
          {"survives mangled lines", survives_mangled_lines}, {"survives every cut", survives_every_cut},
          {"checks the world", checks_the_world }, { "looks for its files", looks_for_its_files },
          {"manual page agrees", manual_page_agrees})
