/*
 * The resolver against real name servers on loopback: NSD with signed, wrongly signed and unsigned zones (skipped where
 * nsd or ldns is not installed), and a forwarder that never answers.
 */
#include "dns/mx.h"
#include "dns/resolver.h"

#include "base/check.h"
#include "base/test.h"
#include "runtime/rt.h"

#include <arpa/inet.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* $1: an empty directory, $2: the port. Leaves the anchors in "anchor" and becomes the name server. */
static const char nsd_script[] =
    "set -e; cd \"$1\"\n"
    "zone() { printf '%s. 300 IN SOA ns.%s. h.%s. 1 900 900 900 60\\n%s. 300 IN NS ns.%s.\\n"
    "ns.%s. 300 IN A 127.0.0.1\\n' "
    "\"$1\" \"$1\" \"$1\" \"$1\" \"$1\" \"$1\" >\"$1.zone\"; cat >>\"$1.zone\"; }\n"
    "zone plain <<END\n"
    "plain. 300 IN MX 10 mx1.plain.\nplain. 300 IN MX 5 mx2.plain.\nmx1.plain. 300 IN A 192.0.2.1\n"
    "alias.plain. 300 IN CNAME plain.\n"
    "END\n"
    "zone good <<END\n"
    "good. 300 IN MX 10 mx1.good.\nmx1.good. 300 IN A 192.0.2.1\nmx1.good. 300 IN AAAA 2001:db8::1\n"
    "_25._tcp.mx1.good. 300 IN TLSA 3 1 1 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\n"
    "host.good. 300 IN CNAME mx1.good.\n*.wild.good. 300 IN A 192.0.2.8\n"
    "END\n"
    "zone bogus <<END\n"
    "bogus. 300 IN MX 10 mx1.bogus.\nmx1.bogus. 300 IN A 192.0.2.1\n"
    "END\n"
    "zone test <<END\n"
    "mx.local.test. 300 IN A 192.0.2.6\n"
    "END\n"
    "zone home.arpa <<END\n"
    "mail.home.arpa. 300 IN A 192.168.0.1\n"
    "END\n"
    "zone 168.192.in-addr.arpa <<END\n"
    "1.0.168.192.in-addr.arpa. 300 IN PTR mail.home.arpa.\n"
    "END\n"
    "for z in good bogus; do k=$(ldns-keygen -k -a ECDSAP256SHA256 $z); ldns-signzone -f $z.signed $z.zone $k; "
    "mv $z.signed $z.zone; cat $k.key >$z.anchor; done\n"
    /* An anchor that fits no key of the zone. */
    "k=$(ldns-keygen -k -a ECDSAP256SHA256 bogus); cat $k.key >bogus.anchor\n"
    "cat good.anchor bogus.anchor >anchor.new; mv anchor.new anchor\n"
    "cat >nsd.conf <<END\n"
    "server:\n ip-address: 127.0.0.1@$2\n username: \"\"\n zonesdir: \"$1\"\n database: \"\"\n pidfile: \"\"\n"
    " logfile: \"$1/nsd.log\"\n zonelistfile: \"$1/zone.list\"\n xfrdfile: \"\"\n xfrdir: \"$1\"\n server-count: 1\n"
    "remote-control:\n control-enable: no\n"
    "END\n"
    "for z in plain good bogus test home.arpa 168.192.in-addr.arpa; do\n"
    "printf 'zone:\\n name: %s\\n zonefile: %s.zone\\n' $z $z >>nsd.conf; done\n"
    "exec \"$(command -v nsd || echo /usr/sbin/nsd)\" -d -c nsd.conf\n";

struct world {
    struct test *t;
    void (*run)(struct test *, struct rt *, uint16_t port, struct str anchor);
    char dir[64];
    uint16_t port;
};

/* A UDP socket on loopback, which answers nothing. */
static int
udp_socket(uint16_t *out_port)
{
    struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
    socklen_t len = sizeof in;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    CHECK(fd >= 0 && bind(fd, (struct sockaddr *)&in, sizeof in) == 0);
    CHECK(getsockname(fd, (struct sockaddr *)&in, &len) == 0);
    *out_port = ntohs(in.sin_port);
    return fd;
}

/* Below those that the system gives to whoever asks for any: none of the tests that run beside this one gets it meanwhile. */
static uint16_t
free_port(void)
{
    struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };

    for (int i = 0; i < 1000; i++) {
        in.sin_port = htons((uint16_t)(10000 + (getpid() + i) % 20000));
        int udp = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), tcp = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        CHECK(udp >= 0 && tcp >= 0);
        bool is_free = bind(udp, (struct sockaddr *)&in, sizeof in) == 0 && bind(tcp, (struct sockaddr *)&in, sizeof in) == 0;
        close(udp);
        close(tcp);
        if (is_free)
            return ntohs(in.sin_port);
    }
    return 0;
}

static struct address
loopback(uint16_t port)
{
    struct address a;

    CHECK(address_from_ip(S("127.0.0.1"), &a));
    a.port = port;
    return a;
}

static bool
wait_until_it_serves(struct rt *rt, uint16_t port)
{
    struct address a = loopback(port);
    int64_t until = within(rt, 20 * SECOND);
    struct stream *stream;

    while (rt_now(rt) < until) {
        if (!err_is(stream_connect(rt, &a, NULL, until, &stream))) {
            stream_close(stream);
            return true;
        }
        rt_sleep(rt, within(rt, 10 * MILLISECOND));
    }
    return false;
}

static struct str
read_anchor(struct rt *rt, const char *path, char *memory, size_t cap)
{
    struct dir *dir;
    struct file *file;
    size_t len = 0;

    if (err_is(dir_open(rt, str_from_cstr(path), LANE_POOL, FOREVER, &dir)))
        return S("");
    if (!err_is(file_open(dir, S("anchor"), FILE_READ, 0, LANE_POOL, FOREVER, &file))) {
        file_read(file, memory, cap, 0, LANE_POOL, FOREVER, &len);
        file_close(file);
    }
    dir_close(dir);
    return str_new(memory, len);
}

static void
with_name_server(struct rt *rt, void *arg)
{
    struct world *w = arg;
    char port[8], anchor[4096];
    const char *argv[] = { "sh", "-c", nsd_script, "sh", w->dir, port, NULL };
    struct spawn spawn = { .argv = argv, .program = "/bin/sh" };
    struct child *child;
    int status;

    snprintf(port, sizeof port, "%u", w->port);
    if (!EXPECT(w->t, !err_is(child_start(rt, &spawn, &child))))
        return;
    if (EXPECT(w->t, wait_until_it_serves(rt, w->port)))
        w->run(w->t, rt, w->port, read_anchor(rt, w->dir, anchor, sizeof anchor));
    child_signal(child, SIGTERM);
    EXPECT(w->t, !err_is(child_wait(child, within(rt, 20 * SECOND), &status)));
}

static int
remove_entry(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
    (void)st;
    (void)kind;
    (void)ftw;
    return remove(path);
}

static bool
is_installed(const char *program)
{
    static const char *const places[] = { "/usr/sbin/", "/usr/bin/", "/usr/local/sbin/", "/usr/local/bin/" };
    char path[100];

    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        snprintf(path, sizeof path, "%s%s", places[i], program);
        if (access(path, X_OK) == 0)
            return true;
    }
    return false;
}

static void
in_world(struct test *t, void (*run)(struct test *, struct rt *, uint16_t, struct str))
{
    struct world w = { .t = t, .run = run, .dir = "/tmp/resolver-test-XXXXXX" };

    if (!is_installed("nsd") || !is_installed("ldns-signzone")) {
        test_skip(t, "nsd or ldnsutils is not installed");
        return;
    }
    if (!EXPECT(t, mkdtemp(w.dir) != NULL))
        return;
    w.port = free_port();
    EXPECT(t, w.port != 0);
    EXPECT(t, !err_is(rt_run(with_name_server, &w)));
    nftw(w.dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

/* ---- with name servers ------------------------------------------------------------------------------------------ */

static void
answers_and_validates(struct test *t, struct rt *rt, uint16_t port, struct str anchor)
{
    static const struct {
        const char *why;
        struct str name;
        enum dns_type type;
        enum dns_status status;
        enum dns_security security;
        size_t count;
    } cases[] = {
        { "unsigned", STR("plain"), DNS_MX, DNS_FOUND, DNS_INSECURE, 2 },
        { "unsigned CNAME", STR("alias.plain"), DNS_MX, DNS_FOUND, DNS_INSECURE, 2 },
        { "unsigned, none", STR("mx1.plain"), DNS_MX, DNS_NODATA, DNS_INSECURE, 0 },
        { "unsigned, no name", STR("nope.plain"), DNS_A, DNS_NXDOMAIN, DNS_INSECURE, 0 },
        { "signed", STR("good"), DNS_MX, DNS_FOUND, DNS_SECURE, 1 },
        { "signed IPv6", STR("mx1.good"), DNS_AAAA, DNS_FOUND, DNS_SECURE, 1 },
        { "signed TLSA", STR("_25._tcp.mx1.good"), DNS_TLSA, DNS_FOUND, DNS_SECURE, 1 },
        { "signed CNAME", STR("host.good"), DNS_A, DNS_FOUND, DNS_SECURE, 1 },
        { "signed wildcard", STR("x.wild.good"), DNS_A, DNS_FOUND, DNS_SECURE, 1 },
        { "signed, none", STR("mx1.good"), DNS_TXT, DNS_NODATA, DNS_SECURE, 0 },
        { "signed, no name", STR("nope.good"), DNS_A, DNS_NXDOMAIN, DNS_SECURE, 0 },
        { "wrong key", STR("bogus"), DNS_MX, DNS_TEMPORARY, DNS_BOGUS, 0 },
        { "refused: nobody serves it", STR("elsewhere"), DNS_MX, DNS_TEMPORARY, DNS_INDETERMINATE, 0 },
        { "a name for tests is asked for too", STR("mx.local.test"), DNS_A, DNS_FOUND, DNS_INSECURE, 1 },
        { "so is one of a home network", STR("mail.home.arpa"), DNS_A, DNS_FOUND, DNS_INSECURE, 1 },
        { "and the name of a private address", STR("1.0.168.192.in-addr.arpa"), DNS_PTR, DNS_FOUND, DNS_INSECURE, 1 },
        { "not a name", STR("a b"), DNS_A, DNS_TEMPORARY, DNS_INDETERMINATE, 0 },
    };
    struct address forwarder = loopback(port);
    struct resolver_settings settings = { .forwarders = &forwarder, .forwarder_count = 1, .trust_anchor = anchor };
    struct resolver *resolver;
    struct str why = S("");
    struct arena arena;

    EXPECT(t, anchor.len > 0);
    if (!EXPECT(t, !err_is(resolver_open(rt, &settings, FOREVER, &resolver, &why))))
        return;
    arena_init(&arena, rt_mem(rt), 4096, MX_ARENA_BYTES + HOST_ARENA_BYTES);
    /* Twice: the second time from the library's cache, where the callback comes from inside the call. */
    for (size_t i = 0; i < 2 * (sizeof cases / sizeof *cases); i++) {
        size_t at = i % (sizeof cases / sizeof *cases);
        struct dns_answer a;
        test_case(t, cases[at].why);
        if (EXPECT(t, !err_is(resolver_query(resolver, cases[at].name, cases[at].type, within(rt, 20 * SECOND), &arena,
                                             &a)))) {
            EXPECT_INT(t, a.status, cases[at].status);
            EXPECT_INT(t, a.count, cases[at].count);
            if (a.status != DNS_TEMPORARY || cases[at].security == DNS_BOGUS)
                EXPECT_INT(t, a.security, cases[at].security);
            EXPECT(t, (a.ttl > 0) == (a.status != DNS_TEMPORARY));
            EXPECT(t, (a.why.len > 0) == (a.status == DNS_TEMPORARY));
        }
        arena_reset(&arena);
    }
    test_case(t, "through mx_lookup");
    struct dns dns = resolver_dns(resolver);
    struct mx_result mx;
    struct host_result host;
    EXPECT(t, !err_is(mx_lookup(&dns, S("good"), within(rt, 20 * SECOND), &arena, &mx)));
    EXPECT_INT(t, mx.status, MX_OK);
    EXPECT(t, mx.secure);
    if (EXPECT_INT(t, mx.host_count, 1)) {
        EXPECT(t, !err_is(host_addresses(&dns, mx.hosts[0].name, HOST_IPV4 | HOST_IPV6, within(rt, 20 * SECOND), &arena,
                                         &host)));
        EXPECT_INT(t, host.address_count, 2);
        EXPECT(t, host.secure);
    }
    EXPECT_INT(t, resolver_outstanding(resolver), 0);
    arena_done(&arena);
    resolver_close(resolver);
}

static void
without_an_anchor_nothing_is_validated(struct test *t, struct rt *rt, uint16_t port, struct str anchor)
{
    char conf[] = "# made by hand\nsearch example\nnameserver fe80::1%lo\nnameserver\t127.0.0.1 # local\n";
    struct resolver_settings settings = { .resolv_conf = str_from_cstr(conf) };
    struct address forwarder = loopback(port);
    struct resolver *resolver;
    struct str why = S("");
    struct arena arena;
    struct dns_answer a;

    (void)anchor;
    EXPECT(t, !err_is(resolver_open(rt, &settings, FOREVER, &resolver, &why)));
    resolver_close(resolver); /* resolv.conf is understood; its port 53 is nobody's in a test */

    settings = (struct resolver_settings){ .forwarders = &forwarder, .forwarder_count = 1 };
    if (!EXPECT(t, !err_is(resolver_open(rt, &settings, FOREVER, &resolver, &why))))
        return;
    arena_init(&arena, rt_mem(rt), 4096, 2 * DNS_ARENA_BYTES);
    EXPECT(t, !err_is(resolver_query(resolver, S("bogus"), DNS_MX, within(rt, 20 * SECOND), &arena, &a)));
    EXPECT_INT(t, a.status, DNS_FOUND);
    EXPECT_INT(t, a.security, DNS_INDETERMINATE);
    arena_done(&arena);
    resolver_close(resolver);
}

/* ---- with a forwarder that never answers ------------------------------------------------------------------------ */

struct asker {
    struct rt *rt;
    struct resolver *resolver;
    struct str name;
    int64_t until;
    struct err error;
    struct dns_answer answer;
    bool ended;
};

static void
ask(void *arg)
{
    struct asker *k = arg;
    struct arena arena;

    arena_init(&arena, rt_mem(k->rt), 4096, DNS_ARENA_BYTES);
    k->error = resolver_query(k->resolver, k->name, DNS_MX, k->until, &arena, &k->answer);
    k->ended = true;
    arena_done(&arena);
}

static void
silence(struct rt *rt, void *arg)
{
    struct test *t = arg;
    uint16_t port;
    int fd = udp_socket(&port);
    struct address forwarder = loopback(port);
    struct resolver_settings settings = { .forwarders = &forwarder, .forwarder_count = 1, .outstanding_max = 2 };
    struct resolver *resolver;
    struct str why = S("");

    if (!EXPECT(t, !err_is(resolver_open(rt, &settings, FOREVER, &resolver, &why))))
        return;
    struct asker brief = { rt, resolver, S("a.example"), within(rt, 50 * MILLISECOND), OK, { 0 }, false };
    ask(&brief);
    EXPECT(t, !err_is(brief.error));
    EXPECT_INT(t, brief.answer.status, DNS_TEMPORARY);

    struct asker k[4];
    struct scope scope;
    scope_init(&scope, rt);
    for (size_t i = 0; i < 4; i++) {
        k[i] = (struct asker){ rt, resolver, S("b.example"), i == 3 ? within(rt, 50 * MILLISECOND) : FOREVER,
                               OK, { 0 }, false };
        scope_start(&scope, "ask", ask, &k[i]);
    }
    while (!k[3].ended) /* it waits for a slot until its time is over */
        rt_sleep(rt, within(rt, MILLISECOND));
    EXPECT_INT(t, k[3].answer.status, DNS_TEMPORARY);
    EXPECT_INT(t, resolver_outstanding(resolver), 2);
    scope_end(&scope);
    for (size_t i = 0; i < 3; i++)
        EXPECT_INT(t, k[i].error.kind, ERR_CANCELLED);
    EXPECT_INT(t, resolver_outstanding(resolver), 0);
    resolver_close(resolver);
    close(fd);
}

static void
bad_settings(struct rt *rt, void *arg)
{
    static const struct {
        const char *why;
        struct resolver_settings settings;
    } cases[] = {
        { "anchor is no record", { .trust_anchor = STR("hello\n") } },
        { "anchor of another type", { .trust_anchor = STR(". IN A 192.0.2.1\n") } },
    };
    struct test *t = arg;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct resolver *resolver;
        struct str why = S("");
        test_case(t, cases[i].why);
        EXPECT(t, err_is(resolver_open(rt, &cases[i].settings, FOREVER, &resolver, &why)));
        EXPECT(t, why.len > 0);
    }
}

static void
test_answers(struct test *t)
{
    in_world(t, answers_and_validates);
}
static void
test_no_anchor(struct test *t)
{
    in_world(t, without_an_anchor_nothing_is_validated);
}
static void
test_silence(struct test *t)
{
    EXPECT(t, !err_is(rt_run(silence, t)));
}
static void
test_bad_settings(struct test *t)
{
    EXPECT(t, !err_is(rt_run(bad_settings, t)));
}

TEST_MAIN({ "answers and validates", test_answers },
          { "without an anchor nothing is validated", test_no_anchor },
          { "a silent forwarder: timeout, cancel, bound", test_silence }, { "bad settings", test_bad_settings })
