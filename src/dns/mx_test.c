/* The decisions about MX, hosts and reverse names, over a table that plays the DNS. */
#include "dns/mx.h"

#include "base/test.h"

#include <string.h>

/* What the table's DNS says: one line a question, records of one word each ("10 mx1.example", "192.0.2.1"). */
struct line {
    const char *name;
    enum dns_type type;
    enum dns_status status;
    enum dns_security security;
    const char *canonical; /* NULL: the name itself */
    const char *records[4];
};
static const struct line zone[] = {
    { "two.example", DNS_MX, DNS_FOUND, DNS_SECURE, NULL, { "20 b.example", "10 a.example", "20 c.example" } },
    { "twice.example", DNS_MX, DNS_FOUND, DNS_INSECURE, NULL, { "20 a.example", "10 A.example" } },
    { "alias.example", DNS_MX, DNS_FOUND, DNS_INSECURE, "two.example", { "10 a.example" } },
    { "implicit.example", DNS_MX, DNS_NODATA, DNS_INSECURE, NULL, { 0 } },
    { "implicit-alias.example", DNS_MX, DNS_NODATA, DNS_INSECURE, "web.example", { 0 } },
    { "gone.example", DNS_MX, DNS_NXDOMAIN, DNS_SECURE, NULL, { 0 } },
    { "broken.example", DNS_MX, DNS_TEMPORARY, DNS_INDETERMINATE, NULL, { 0 } },
    { "bogus.example", DNS_MX, DNS_TEMPORARY, DNS_BOGUS, NULL, { 0 } },
    { "null.example", DNS_MX, DNS_FOUND, DNS_INSECURE, NULL, { "0 ." } },
    { "null-ten.example", DNS_MX, DNS_FOUND, DNS_INSECURE, NULL, { "10 ." } },
    { "null-and-more.example", DNS_MX, DNS_FOUND, DNS_INSECURE, NULL, { "0 .", "10 a.example" } },
    { "odd.example", DNS_MX, DNS_FOUND, DNS_INSECURE, NULL, { "10 ?" } },
    { "a.example", DNS_A, DNS_FOUND, DNS_SECURE, NULL, { "192.0.2.1", "192.0.2.2", "192.0.2.3" } },
    { "a.example", DNS_AAAA, DNS_FOUND, DNS_SECURE, NULL, { "2001:db8::1" } },
    { "v4.example", DNS_A, DNS_FOUND, DNS_SECURE, NULL, { "192.0.2.9" } },
    { "v4.example", DNS_AAAA, DNS_NODATA, DNS_SECURE, NULL, { 0 } },
    { "half.example", DNS_A, DNS_FOUND, DNS_INSECURE, NULL, { "192.0.2.9" } },
    { "half.example", DNS_AAAA, DNS_TEMPORARY, DNS_INDETERMINATE, NULL, { 0 } },
    { "broken.example", DNS_A, DNS_FOUND, DNS_SECURE, NULL, { "192.0.2.9" } },
    { "broken.example", DNS_AAAA, DNS_TEMPORARY, DNS_BOGUS, NULL, { 0 } },
    { "lame.example", DNS_A, DNS_NODATA, DNS_INSECURE, NULL, { 0 } },
    { "lame.example", DNS_AAAA, DNS_TEMPORARY, DNS_INDETERMINATE, NULL, { 0 } },
    { "none.example", DNS_A, DNS_NODATA, DNS_INSECURE, NULL, { 0 } },
    { "none.example", DNS_AAAA, DNS_NODATA, DNS_INSECURE, NULL, { 0 } },
    { "inside.example", DNS_A, DNS_FOUND, DNS_INSECURE, NULL, { "127.0.0.1", "192.0.2.7", "0.0.0.0" } },
    { "inside.example", DNS_AAAA, DNS_FOUND, DNS_INSECURE, NULL, { "::1", "::ffff:127.0.0.1" } },
    { "trap.example", DNS_A, DNS_FOUND, DNS_INSECURE, NULL, { "127.0.0.1" } },
    { "cname.example", DNS_A, DNS_FOUND, DNS_INSECURE, "v4.example", { "192.0.2.9" } },
    { "1.2.0.192.in-addr.arpa", DNS_PTR, DNS_FOUND, DNS_INSECURE, NULL, { "?", "other.example", "a.example" } },
    { "2.2.0.192.in-addr.arpa", DNS_PTR, DNS_FOUND, DNS_INSECURE, NULL, { "v4.example" } },
    { "3.2.0.192.in-addr.arpa", DNS_PTR, DNS_FOUND, DNS_INSECURE, NULL, { "v4.example", "slow.example" } },
    { "slow.example", DNS_A, DNS_TEMPORARY, DNS_INDETERMINATE, NULL, { 0 } },
    { "4.2.0.192.in-addr.arpa", DNS_PTR, DNS_TEMPORARY, DNS_INDETERMINATE, NULL, { 0 } },
};

static struct err
table_query(void *arg, struct str name, enum dns_type type, int64_t until, struct arena *arena, struct dns_answer *out)
{
    (void)until;
    ++*(size_t *)arg;
    *out = (struct dns_answer){ .status = DNS_NXDOMAIN, .type = (uint16_t)type, .ttl = 60, .canonical = name };
    for (size_t i = 0; i < sizeof zone / sizeof *zone; i++) {
        const struct line *l = &zone[i];
        if (l->type != type || !name_eq(str_from_cstr(l->name), name))
            continue;
        out->status = (uint8_t)l->status;
        out->security = (uint8_t)l->security;
        out->aliased = l->canonical != NULL;
        if (l->canonical)
            out->canonical = str_from_cstr(l->canonical);
        if (l->status == DNS_TEMPORARY)
            out->why = S("SERVFAIL");
        out->records = arena_alloc(arena, 4 * sizeof *out->records);
        for (; out->count < 4 && l->records[out->count]; out->count++) {
            struct dns_record *r = &out->records[out->count];
            struct str words = str_from_cstr(l->records[out->count]);
            uint64_t preference = 0;
            if (type == DNS_MX && str_to_u64(str_cut_word(&words), &preference))
                r->preference = (uint16_t)preference;
            words = str_trim(words);
            if (type == DNS_A || type == DNS_AAAA)
                address_from_ip(words, &r->ip);
            else if (!str_eq(words, S("?")))
                r->name = words;
        }
    }
    return OK;
}

static struct str
show_hosts(const struct mx_result *r, struct arena *arena)
{
    struct str s = S("");

    for (size_t i = 0; i < r->host_count; i++)
        s = arena_printf(arena, "%.*s%s%u %.*s", STR_ARG(s), i ? ", " : "", r->hosts[i].preference,
                         STR_ARG(r->hosts[i].name));
    return s;
}

static void
decides_where_mail_goes(struct test *t)
{
    static const struct {
        const char *why;
        struct str domain;
        enum mx_status status;
        bool implicit, secure;
        struct str hosts;
    } cases[] = {
        { "by preference, equals as they came", STR("two.example"), MX_OK, false, true,
          STR("10 a.example, 20 b.example, 20 c.example") },
        { "one host named twice counts once, where it is preferred most", STR("twice.example"), MX_OK, false, false, STR("10 A.example") },
        { "behind a CNAME", STR("alias.example"), MX_OK, false, false, STR("10 a.example") },
        { "no MX: the domain itself", STR("implicit.example"), MX_OK, true, false, STR("0 implicit.example") },
        { "no MX behind a CNAME: its target", STR("implicit-alias.example"), MX_OK, true, false,
          STR("0 web.example") },
        { "no such domain", STR("gone.example"), MX_NXDOMAIN, false, true, STR("") },
        { "a failed lookup never falls back", STR("broken.example"), MX_TEMPORARY, false, false, STR("") },
        { "bogus defers", STR("bogus.example"), MX_TEMPORARY, false, false, STR("") },
        { "null MX", STR("null.example"), MX_NULL, false, false, STR("") },
        { "the root with another preference is no null MX", STR("null-ten.example"), MX_NO_ADDRESS, false, false,
          STR("") },
        { "null MX beside another is none", STR("null-and-more.example"), MX_OK, false, false, STR("10 a.example") },
        { "only a target that is no name", STR("odd.example"), MX_NO_ADDRESS, false, false, STR("") },
        { "not a domain", STR("a b"), MX_NXDOMAIN, false, false, STR("") },
        { "empty", STR(""), MX_NXDOMAIN, false, false, STR("") },
    };
    struct mem mem = mem_libc();
    size_t questions = 0;
    struct dns dns = { table_query, &questions };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct arena arena;
        struct mx_result r;
        test_case(t, cases[i].why);
        arena_init(&arena, &mem, 1024, MX_ARENA_BYTES);
        EXPECT(t, !err_is(mx_lookup(&dns, cases[i].domain, 0, &arena, &r)));
        EXPECT_INT(t, r.status, cases[i].status);
        EXPECT(t, r.implicit == cases[i].implicit);
        EXPECT(t, r.secure == cases[i].secure);
        EXPECT_STR(t, show_hosts(&r, &arena), cases[i].hosts);
        EXPECT(t, (r.why.len > 0) == (r.status != MX_OK));
        arena_done(&arena);
    }
    EXPECT_INT(t, questions, sizeof cases / sizeof *cases - 2);
}

static struct str
show_addresses(const struct host_result *r, struct arena *arena)
{
    struct text text = text_init(arena_alloc(arena, 1000), 1000);

    for (size_t i = 0; i < r->address_count; i++) {
        if (i)
            text_put_byte(&text, ' ');
        address_put_ip(&text, &r->addresses[i]);
    }
    return text_str(&text);
}

static void
finds_the_addresses_of_a_host(struct test *t)
{
    enum { BOTH = HOST_IPV4 | HOST_IPV6 };
    static const struct {
        const char *why;
        struct str name;
        unsigned families;
        enum host_status status;
        bool secure;
        struct str addresses;
    } cases[] = {
        { "families by turns", STR("a.example"), BOTH, HOST_OK, true,
          STR("2001:db8::1 192.0.2.1 192.0.2.2 192.0.2.3") },
        { "IPv4 only", STR("a.example"), HOST_IPV4, HOST_OK, true, STR("192.0.2.1 192.0.2.2 192.0.2.3") },
        { "IPv6 only", STR("a.example"), HOST_IPV6, HOST_OK, true, STR("2001:db8::1") },
        { "one family empty", STR("v4.example"), BOTH, HOST_OK, true, STR("192.0.2.9") },
        { "one family unknown", STR("half.example"), BOTH, HOST_OK, false, STR("192.0.2.9") },
        { "one family broken: the other is as it was", STR("broken.example"), BOTH, HOST_OK, true, STR("192.0.2.9") },
        { "one empty, one unknown", STR("lame.example"), BOTH, HOST_TEMPORARY, false, STR("") },
        { "no address", STR("none.example"), BOTH, HOST_NO_ADDRESS, false, STR("") },
        { "no such host", STR("gone.example"), BOTH, HOST_NXDOMAIN, false, STR("") },
        { "loopback is left out", STR("inside.example"), BOTH, HOST_OK, false, STR("192.0.2.7") },
        { "loopback is taken if allowed", STR("inside.example"), HOST_IPV4 | HOST_ANY, HOST_OK, false,
          STR("127.0.0.1 192.0.2.7 0.0.0.0") },
        { "nothing but loopback", STR("trap.example"), HOST_IPV4, HOST_NO_ADDRESS, false, STR("") },
        { "CNAME", STR("cname.example"), HOST_IPV4, HOST_OK, false, STR("192.0.2.9") },
        { "an address as a name", STR("192.0.2.5"), BOTH, HOST_OK, false, STR("192.0.2.5") },
        { "loopback as a name", STR("127.0.0.1"), BOTH, HOST_NO_ADDRESS, false, STR("") },
        { "not a name", STR("a b"), BOTH, HOST_NXDOMAIN, false, STR("") },
    };
    struct mem mem = mem_libc();
    size_t questions = 0;
    struct dns dns = { table_query, &questions };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct arena arena;
        struct host_result r;
        test_case(t, cases[i].why);
        arena_init(&arena, &mem, 1024, HOST_ARENA_BYTES);
        EXPECT(t, !err_is(host_addresses(&dns, cases[i].name, cases[i].families, 0, &arena, &r)));
        EXPECT_INT(t, r.status, cases[i].status);
        EXPECT(t, r.secure == cases[i].secure);
        EXPECT(t, r.aliased == str_eq(cases[i].name, S("cname.example")));
        EXPECT_STR(t, show_addresses(&r, &arena), cases[i].addresses);
        EXPECT(t, (r.why.len > 0) == (r.status != HOST_OK));
        arena_done(&arena);
    }
}

static void
believes_a_reverse_name_only_both_ways(struct test *t)
{
    static const struct {
        const char *why;
        struct str ip;
        enum iprev_status status;
        struct str name;
    } cases[] = {
        { "one of several leads back", STR("192.0.2.1"), IPREV_PASS, STR("a.example") },
        { "leads elsewhere", STR("192.0.2.2"), IPREV_FAIL, STR("v4.example") },
        { "one not known now", STR("192.0.2.3"), IPREV_TEMPORARY, { NULL, 0 } },
        { "PTR not known now", STR("192.0.2.4"), IPREV_TEMPORARY, { NULL, 0 } },
        { "no name", STR("192.0.2.5"), IPREV_NONE, { NULL, 0 } },
        { "IPv4-mapped", STR("::ffff:192.0.2.1"), IPREV_PASS, STR("a.example") },
        { "IPv6 without a name", STR("2001:db8::7"), IPREV_NONE, { NULL, 0 } },
    };
    struct mem mem = mem_libc();
    size_t questions = 0;
    struct dns dns = { table_query, &questions };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct arena arena;
        struct address address;
        struct iprev r;
        test_case(t, cases[i].why);
        arena_init(&arena, &mem, 1024, IPREV_ARENA_BYTES);
        EXPECT(t, address_from_ip(cases[i].ip, &address));
        address.port = 4321;
        EXPECT(t, !err_is(iprev_lookup(&dns, &address, 0, &arena, &r)));
        EXPECT_INT(t, r.status, cases[i].status);
        EXPECT_STR(t, r.name, cases[i].name);
        arena_done(&arena);
    }
}

TEST_MAIN({ "decides where mail goes", decides_where_mail_goes },
          { "finds the addresses of a host", finds_the_addresses_of_a_host },
          { "believes a reverse name only both ways", believes_a_reverse_name_only_both_ways })
