/*
 * fuzz_dns_answer - DNS packets from an enemy, and answers as they go between roles and into the cache.
 *
 * Aims at: dns/answer.c dns/name.c
 * Seeds:   dns/answer_test.c
 * Longest: 1500
 * Test:    30000 runs
 * Choices: 2 bytes in front
 *
 * The first byte chooses the type that was asked for, the second the question. Answers keep their bounds; found means records
 * of the type that was asked for, with names that a host can have; what was taken can be put and taken again the same.
 */
#include "fuzz.h"

#include "dns/answer.h"

static void
check_answer(const struct dns_answer *a, struct arena *arena)
{
    size_t bytes = 0;

    CHECK(a->status <= DNS_TEMPORARY && a->count <= DNS_RECORDS_MAX && (a->count > 0) == (a->status == DNS_FOUND));
    CHECK(a->security != DNS_BOGUS || a->status == DNS_TEMPORARY);
    for (size_t i = 0; i < a->count; i++) {
        const struct dns_record *r = &a->records[i];
        bytes += r->name.len + r->data.len;
        if (!str_is_absent(r->name))
            CHECK(name_is_valid(r->name) || str_eq(r->name, S(".")));
        CHECK(a->type != DNS_A || r->ip.family == ADDRESS_IPV4);
        CHECK(a->type != DNS_AAAA || r->ip.family == ADDRESS_IPV6);
    }
    CHECK(bytes <= DNS_BYTES_MAX);
    size_t size = dns_answer_size(a);
    CHECK(size <= DNS_ANSWER_ENCODED_MAX);
    struct put once = put_init(arena_alloc(arena, size), size), twice = put_init(arena_alloc(arena, size), size);
    dns_answer_put(&once, a);
    CHECK(!once.full);
    struct take take = take_init(put_str_so_far(&once));
    struct dns_answer again;
    CHECK(dns_answer_take(&take, arena, &again));
    dns_answer_put(&twice, &again);
    CHECK(str_eq(put_str_so_far(&once), put_str_so_far(&twice)));
}

void
fuzz_one(struct str input, struct arena *arena)
{
    static const enum dns_type types[] = { DNS_A, DNS_CNAME, DNS_PTR, DNS_MX, DNS_TXT, DNS_AAAA, DNS_TLSA };
    static const struct str names[] = { STR("a.example"), STR("example.org"), STR("b"), STR("mx.a.example") };
    struct str packet = input;
    enum dns_type type = types[fuzz_choice(&packet) % 7];
    struct str name = names[fuzz_choice(&packet) % 4];
    struct arena own;
    struct dns_answer answer;

    for (enum dns_security security = DNS_INDETERMINATE; security <= DNS_BOGUS; security++) {
        arena_init(&own, own_mem, 4096, DNS_ARENA_BYTES); /* promised to be enough */
        answer = dns_answer_decode(packet, name, type, security, S("why"), &own);
        check_answer(&answer, arena);
        arena_done(&own);
    }
    struct take take = take_init(packet);
    if (dns_answer_take(&take, arena, &answer))
        check_answer(&answer, arena);
}
