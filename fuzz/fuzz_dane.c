/*
 * fuzz_dane - TLSA records as a zone gives them, and what they ask of a connection.
 *
 * Aims at: policy/dane.c net/tls_policy.c
 * Seeds:   policy/dane_test.c zeros
 * Choices: 4 bytes in front
 * Longest: 2000
 * Test:    100000 runs
 *
 * The first byte chooses how the host was found, the next ones each answer's status and security; the rest are records: usage,
 * selector, matching and data, a field each. What is not vouched for decides nothing; a host is refused only where an answer is
 * not known; records that are kept are usable ones of the answer, and there is a name for them.
 */
#include "fuzz.h"

#include "policy/dane.h"

struct zone {
    struct arena *arena;
    struct str rest;        /* records */
    uint8_t answers[3];
    size_t questions;
    bool unknown, decisive; /* some answer was not known; some was, was secure, and had records */
    struct dns_answer last;
};

static struct err
query(void *arg, struct str name, enum dns_type type, int64_t until, struct arena *arena, struct dns_answer *out)
{
    struct zone *z = arg;
    uint8_t how = z->answers[z->questions];

    (void)until;
    CHECK(z->questions < 3 && name_is_valid(name) && (type == DNS_TLSA || type == DNS_CNAME));
    CHECK(!z->unknown && !z->decisive); /* nobody asks on */
    z->questions++;
    *out = (struct dns_answer){ .status = how % 4, .security = how / 4 % 3, .type = (uint16_t)type, .why = S("why") };
    if (out->status == DNS_FOUND && type == DNS_TLSA) {
        out->records = arena_alloc(arena, DNS_RECORDS_MAX * sizeof *out->records);
        do {
            struct dns_record *r = &out->records[out->count++];
            r->usage = fuzz_choice(&z->rest) % 5;
            r->selector = fuzz_choice(&z->rest) % 3;
            r->matching = fuzz_choice(&z->rest) % 4;
            r->data = arena_keep(arena, fuzz_field(&z->rest));
        } while (out->count < DNS_RECORDS_MAX && z->rest.len > 0);
        z->decisive = out->security == DNS_SECURE;
    }
    z->unknown = out->status == DNS_TEMPORARY;
    z->last = *out;
    return OK;
}

static void
check_records(const struct tls_policy *p, const struct dns_answer *a)
{
    size_t at = 0;

    for (size_t i = 0; i < p->record_count; i++) {
        const struct tls_record *r = &p->records[i];
        CHECK((r->usage == 2 || r->usage == 3) && r->selector <= 1 && r->matching <= 2 && r->data.len > 0);
        CHECK(r->matching == 0 || r->data.len == 32u * r->matching);
        while (a->records[at].usage != r->usage || a->records[at].selector != r->selector ||
               a->records[at].matching != r->matching || !str_eq(a->records[at].data, r->data))
            CHECK(++at < a->count);
        at++;
    }
}

void
fuzz_one(struct str input, struct arena *arena)
{
    uint8_t how = fuzz_choice(&input);
    struct zone zone = { .arena = arena };
    struct dns dns = { query, &zone };
    struct dane_hop hop = { S("mx.example"), how & 1 ? S("a.example") : S("mx.example"), how & 2, how & 4, how & 8 ? 25 : 65535,
                            how & 16 ? S("example") : (struct str){ NULL, 0 } };
    const struct tls_policy before = { .level = TLS_MAY, .source = TLS_BY_DEFAULT };
    struct tls_policy p = before;
    struct arena scratch;
    char memory[TLS_POLICY_KEY_MAX];
    struct text key = text_init(memory, sizeof memory);
    bool found;

    for (size_t i = 0; i < 3; i++)
        zone.answers[i] = fuzz_choice(&input);
    zone.rest = input;
    arena_init(&scratch, own_mem, 4096, DANE_SCRATCH_BYTES);
    CHECK(!err_is(dane_lookup(&dns, &hop, 0, &scratch, arena, &p, &found)));
    CHECK(found == (zone.unknown || zone.decisive));
    CHECK(zone.questions == 0 || hop.secure || hop.aliased);
    if (!found)
        CHECK(p.level == before.level && p.source == before.source && p.record_count == 0);
    else if (zone.unknown)
        CHECK(p.level == TLS_REFUSED && p.why.len > 0 && p.result != TLS_RESULT_OK && !p.testing);
    else
        CHECK((p.level == TLS_DANE) == (p.record_count > 0) && (p.level == TLS_DANE || p.level == TLS_ENCRYPT));
    CHECK(!found || (p.source == TLS_BY_DANE && p.domain.len > 0 && tls_policy_is_strict(&p)));
    CHECK(p.level != TLS_DANE || (p.name_count > 0 && p.name_count <= TLS_NAMES_MAX && p.names[0].len > 0));
    if (zone.decisive)
        check_records(&p, &zone.last);
    arena_done(&scratch);
    tls_policy_put_key(&key, &p);
    CHECK(!key.full && key.len > 0);
}
