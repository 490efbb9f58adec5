/*
 * fuzz_mx - where mail goes, when the DNS says anything at all.
 *
 * Aims at: dns/mx.c dns/answer.c
 * Seeds:   dns/answer_test.c
 * Longest: 1500
 * Test:    40000 runs
 * Choices: 1 bytes in front
 *
 * Every question is answered with the next packet of the input (its length in one byte before it). What is decided keeps
 * within the arena that was promised to be enough: MX_OK has hosts, by preference, with valid names; addresses that DNS must
 * not send us to never come out; a failed lookup is temporary and never falls back.
 */
#include "fuzz.h"

#include "dns/mx.h"

struct asked {
    struct str rest;
    bool failed; /* an MX question was not answered */
    unsigned questions;
};

static struct err
query(void *arg, struct str name, enum dns_type type, int64_t until, struct arena *arena, struct dns_answer *out)
{
    struct asked *a = arg;
    size_t len = fuzz_choice(&a->rest) * 2u;
    enum dns_security security = (enum dns_security)(len / 2 % 4);
    struct str packet = str_slice(a->rest, 0, len);

    (void)until;
    CHECK(++a->questions < 100 && name_is_valid(name));
    a->rest = str_from(a->rest, len);
    *out = dns_answer_decode(packet, name, type, security, S("why"), arena);
    if (type == DNS_MX && out->status == DNS_TEMPORARY)
        a->failed = true;
    return OK;
}

static void
look_up(struct str input)
{
    struct asked asked = { .rest = input };
    const struct dns dns = { query, &asked };
    struct arena own;
    struct mx_result mx;

    arena_init(&own, own_mem, 4096, MX_ARENA_BYTES);
    CHECK(!err_is(mx_lookup(&dns, S("a.example"), 0, &own, &mx)));
    CHECK(!asked.failed || mx.status == MX_TEMPORARY);
    CHECK((mx.status == MX_OK) == (mx.host_count > 0) && (mx.status == MX_OK || mx.why.len > 0));
    for (size_t i = 0; i < mx.host_count; i++) {
        CHECK(mx.hosts[i].name.len > 0);
        CHECK(i == 0 || mx.hosts[i - 1].preference <= mx.hosts[i].preference);
    }
    arena_done(&own);
}

static void
resolve(struct str input, unsigned families)
{
    struct asked asked = { .rest = input };
    const struct dns dns = { query, &asked };
    struct arena own;
    struct host_result host;

    arena_init(&own, own_mem, 4096, HOST_ARENA_BYTES);
    CHECK(!err_is(host_addresses(&dns, S("mx.a.example"), families, 0, &own, &host)));
    CHECK((host.status == HOST_OK) == (host.address_count > 0) && (host.status == HOST_OK || host.why.len > 0));
    for (size_t i = 0; i < host.address_count; i++) {
        CHECK(host.addresses[i].port == 0);
        CHECK((families & HOST_ANY) || !address_is_forbidden_target(&host.addresses[i]));
    }
    arena_done(&own);
}

static void
name_of_address(struct str input)
{
    struct asked asked = { .rest = input };
    const struct dns dns = { query, &asked };
    struct address address;
    struct arena own;
    struct iprev iprev;

    arena_init(&own, own_mem, 4096, IPREV_ARENA_BYTES);
    CHECK(address_from_ip(S("192.0.2.1"), &address));
    CHECK(!err_is(iprev_lookup(&dns, &address, 0, &own, &iprev)));
    CHECK(iprev.status != IPREV_PASS || name_is_valid(iprev.name));
    arena_done(&own);
}

void
fuzz_one(struct str input, struct arena *arena)
{
    struct str rest = input;
    uint8_t choice = fuzz_choice(&rest);

    (void)arena;
    look_up(rest);
    resolve(rest, (choice % 3 + 1u) | (choice & HOST_ANY));
    name_of_address(rest);
}
