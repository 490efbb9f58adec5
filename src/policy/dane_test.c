/* Tests of dane.c: where TLSA records are looked for, what is made of them, and what keeps us from a host. */
#include "policy/dane.h"

#include "base/test.h"

#define SHA256 "0123456789abcdef0123456789abcdef"
#define SHA512 SHA256 SHA256

struct line { /* of a zone: what is asked, and the answer; records as "usage selector matching data" */
    const char *name;
    enum dns_type type;
    enum dns_status status;
    enum dns_security security;
    const char *records[3];
};

struct zone {
    const struct line *lines;
    size_t questions;
};

static struct err
zone_query(void *arg, struct str name, enum dns_type type, int64_t until, struct arena *arena, struct dns_answer *out)
{
    struct zone *zone = arg;

    (void)until;
    zone->questions++;
    *out = (struct dns_answer){ .status = DNS_NXDOMAIN, .security = DNS_SECURE, .type = (uint16_t)type };
    for (const struct line *l = zone->lines; l->name; l++) {
        if (l->type != type || !str_eq(str_from_cstr(l->name), name))
            continue;
        out->status = (uint8_t)l->status;
        out->security = (uint8_t)l->security;
        out->why = S("SERVFAIL");
        out->records = arena_alloc(arena, 3 * sizeof *out->records);
        for (; out->count < 3 && l->records[out->count]; out->count++) {
            struct str words = str_from_cstr(l->records[out->count]);
            uint64_t number[3] = { 0 };
            for (int i = 0; i < 3; i++)
                (void)str_to_u64(str_cut_word(&words), &number[i]);
            out->records[out->count] = (struct dns_record){ .usage = (uint8_t)number[0], .selector = (uint8_t)number[1],
                                                            .matching = (uint8_t)number[2], .data = str_trim(words) };
        }
    }
    return OK;
}

#define TLSA(name, security, ...) { name, DNS_TLSA, DNS_FOUND, security, { __VA_ARGS__ } }
static const struct line zone[] = {
    TLSA("_25._tcp.ee.example", DNS_SECURE, "3 1 1 " SHA256),
    TLSA("_26._tcp.ee.example", DNS_SECURE, "3 1 2 " SHA512),
    TLSA("_25._tcp.ta.example", DNS_SECURE, "2 0 1 " SHA256, "3 1 1 " SHA256),
    TLSA("_25._tcp.some.example", DNS_SECURE, "1 1 1 " SHA256, "3 1 1 " SHA256, "3 1 1 short"),
    TLSA("_25._tcp.pkix.example", DNS_SECURE, "1 1 1 " SHA256, "0 0 1 " SHA256),
    TLSA("_25._tcp.odd.example", DNS_SECURE, "3 2 1 " SHA256, "3 1 3 " SHA256, "4 1 1 " SHA256),
    TLSA("_25._tcp.short.example", DNS_SECURE, "3 1 1 short", "3 1 2 " SHA256),
    TLSA("_25._tcp.whole.example", DNS_SECURE, "3 1 0 anything"),
    TLSA("_25._tcp.unsigned.example", DNS_INSECURE, "3 1 1 " SHA256),
    { "_25._tcp.nodata.example", DNS_TLSA, DNS_NODATA, DNS_SECURE, { NULL } },
    { "_25._tcp.servfail.example", DNS_TLSA, DNS_TEMPORARY, DNS_INDETERMINATE, { NULL } },
    { "_25._tcp.bogus.example", DNS_TLSA, DNS_TEMPORARY, DNS_BOGUS, { NULL } },
    { "signed-alias.example", DNS_CNAME, DNS_FOUND, DNS_SECURE, { NULL } },
    TLSA("_25._tcp.signed-alias.example", DNS_SECURE, "3 1 1 " SHA256),
    { "unsigned-alias.example", DNS_CNAME, DNS_FOUND, DNS_INSECURE, { NULL } },
    { "lost-alias.example", DNS_CNAME, DNS_TEMPORARY, DNS_INDETERMINATE, { NULL } },
    { NULL, 0, 0, 0, { NULL } },
};

static struct str
show(const struct tls_policy *p, bool found, struct arena *arena)
{
    struct str names = S("");

    if (!found)
        return S("nothing");
    for (size_t i = 0; i < p->name_count; i++)
        names = arena_printf(arena, "%.*s %.*s", STR_ARG(names), STR_ARG(p->names[i]));
    return arena_printf(arena, "%.*s %zu%.*s %.*s", STR_ARG(tls_level_name(p->level)), p->record_count, STR_ARG(names),
                        STR_ARG(tls_result_name(p->result)));
}

static void
records_decide(struct test *t)
{
    static const struct {
        const char *why, *host, *canonical, *domain;
        bool secure, aliased;
        uint16_t port;
        size_t questions;
        struct str wanted;
    } cases[] = {
        { "usage 3", "ee.example", "ee.example", "d.example", true, false, 25, 1, STR("dane 1 ee.example d.example ok") },
        { "of this port", "ee.example", "ee.example", NULL, true, false, 26, 1, STR("dane 1 ee.example ok") },
        { "of another port", "ee.example", "ee.example", NULL, true, false, 27, 1, STR("nothing") },
        { "usages 2 and 3", "ta.example", "ta.example", "ta.example", true, false, 25, 1, STR("dane 2 ta.example ok") },
        { "those that can be used", "some.example", "some.example", NULL, true, false, 25, 1, STR("dane 1 some.example ok") },
        { "only usages 0 and 1", "pkix.example", "pkix.example", NULL, true, false, 25, 1, STR("encrypt 0 ok") },
        { "no such selector, matching, usage", "odd.example", "odd.example", NULL, true, false, 25, 1, STR("encrypt 0 ok") },
        { "hashes of the wrong length", "short.example", "short.example", NULL, true, false, 25, 1, STR("encrypt 0 ok") },
        { "not hashed", "whole.example", "whole.example", NULL, true, false, 25, 1, STR("dane 1 whole.example ok") },
        { "not signed", "unsigned.example", "unsigned.example", NULL, true, false, 25, 1, STR("nothing") },
        { "none", "nodata.example", "nodata.example", NULL, true, false, 25, 1, STR("nothing") },
        { "no such name", "nx.example", "nx.example", NULL, true, false, 25, 1, STR("nothing") },
        { "not known now", "servfail.example", "servfail.example", NULL, true, false, 25, 1, STR("refused 0 dnssec-invalid") },
        { "bogus", "bogus.example", "bogus.example", NULL, true, false, 25, 1, STR("refused 0 dnssec-invalid") },
        { "addresses that nobody vouches for: not asked", "ee.example", "ee.example", NULL, false, false, 25, 0, STR("nothing") },
        { "behind a CNAME", "alias.example", "ee.example", "d.example", true, true, 25, 1,
          STR("dane 1 ee.example alias.example d.example ok") },
        { "before a CNAME, if there are none behind it", "signed-alias.example", "nx.example", NULL, true, true, 25, 2,
          STR("dane 1 signed-alias.example ok") },
        { "not known behind it: not before it", "signed-alias.example", "servfail.example", NULL, true, true, 25, 1,
          STR("refused 0 dnssec-invalid") },
        { "only the alias is signed", "signed-alias.example", "ee.example", NULL, false, true, 25, 2,
          STR("dane 1 signed-alias.example ok") },
        { "nor is that", "unsigned-alias.example", "ee.example", NULL, false, true, 25, 1, STR("nothing") },
        { "which is not known", "lost-alias.example", "ee.example", NULL, false, true, 25, 1, STR("refused 0 dnssec-invalid") },
        { "a name too long for records",
          "a23456789.a23456789.a23456789.a23456789.a23456789.a23456789.a23456789.a23456789.a23456789.a23456789.a23456789."
          "a23456789.a23456789.a23456789.a23456789.a23456789.a23456789.a23456789.a23456789.a23456789.a23456789.a23456789."
          "a23456789.a23456789.a23.example", NULL, NULL, true, false, 25, 0, STR("nothing") },
    };
    struct mem mem = mem_libc();

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct arena arena, scratch;
        struct zone asked = { zone, 0 };
        struct dns dns = { zone_query, &asked };
        struct dane_hop hop = { str_from_cstr(cases[i].host),
                                str_from_cstr(cases[i].canonical ? cases[i].canonical : cases[i].host), cases[i].secure,
                                cases[i].aliased, cases[i].port, { NULL, 0 } };
        struct tls_policy p = { .level = TLS_MAY };
        bool found;
        if (cases[i].domain)
            hop.domain = str_from_cstr(cases[i].domain);
        test_case(t, cases[i].why);
        arena_init(&arena, &mem, 1024, 64 << 10);
        arena_init(&scratch, &mem, 1024, DANE_SCRATCH_BYTES);
        EXPECT(t, !err_is(dane_lookup(&dns, &hop, 0, &scratch, &arena, &p, &found)));
        arena_done(&scratch); /* nothing in the answer is from there */
        EXPECT_STR(t, show(&p, found, &arena), cases[i].wanted);
        EXPECT_INT(t, asked.questions, cases[i].questions);
        EXPECT_INT(t, p.source, found ? TLS_BY_DANE : TLS_BY_DEFAULT);
        EXPECT_STR(t, found ? p.domain : S(""), !found ? S("") : cases[i].domain ? hop.domain : hop.host);
        EXPECT(t, p.level != TLS_REFUSED || p.why.len > 0);
        arena_done(&arena);
    }
}

/* What may be used again must not be mistaken: every policy has a text of its own. */
static void
keys_tell_policies_apart(struct test *t)
{
    static const struct tls_record a[] = { { 3, 1, 1, STR(SHA256) } }, b[] = { { 3, 0, 1, STR(SHA256) } },
                                   c[] = { { 3, 1, 1, STR("x") } };
    static const struct tls_policy policies[] = {
        { .level = TLS_NEVER }, { .level = TLS_MAY }, { .level = TLS_ENCRYPT },
        { .level = TLS_VERIFY, .names = { STR("a") }, .name_count = 1 },
        { .level = TLS_VERIFY, .names = { STR("b") }, .name_count = 1 },
        { .level = TLS_VERIFY, .names = { STR("b") }, .name_count = 1, .testing = true },
        { .level = TLS_DANE, .names = { STR("a") }, .name_count = 1, .records = a, .record_count = 1 },
        { .level = TLS_DANE, .names = { STR("a") }, .name_count = 1, .records = b, .record_count = 1 },
        { .level = TLS_DANE, .names = { STR("a") }, .name_count = 1, .records = c, .record_count = 1 },
    };
    enum { COUNT = sizeof policies / sizeof *policies };
    char memory[COUNT][TLS_POLICY_KEY_MAX];
    struct text texts[COUNT];

    for (size_t i = 0; i < COUNT; i++) {
        texts[i] = text_init(memory[i], TLS_POLICY_KEY_MAX);
        tls_policy_put_key(&texts[i], &policies[i]);
        EXPECT(t, !texts[i].full);
        for (size_t k = 0; k < i; k++)
            EXPECT(t, !str_eq(text_str(&texts[i]), text_str(&texts[k])));
    }
}

TEST_MAIN({ "records decide", records_decide }, { "keys tell policies apart", keys_tell_policies_apart })
