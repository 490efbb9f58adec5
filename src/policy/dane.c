/* dane - see dane.h. */
#include "policy/dane.h"

#include "base/check.h"

enum { USAGE_TA = 2, USAGE_EE = 3, SHA256_BYTES = 32, SHA512_BYTES = 64 };

/* RFC 7672 section 3.1.3: usages 0 and 1 are of no use between mail servers. RFC 6698 section 2.1 for the rest. */
static bool
is_usable(const struct dns_record *r)
{
    static const size_t lengths[] = { 0, SHA256_BYTES, SHA512_BYTES };

    return (r->usage == USAGE_TA || r->usage == USAGE_EE) && r->selector <= 1 && r->matching <= 2 && r->data.len > 0 &&
           (r->matching == 0 || r->data.len == lengths[r->matching]);
}

static void
add_name(struct tls_policy *p, struct str name, struct arena *arena)
{
    for (size_t i = 0; i < p->name_count; i++)
        if (str_eq_nocase(p->names[i], name))
            return;
    CHECK(p->name_count < TLS_NAMES_MAX);
    if (name.len > 0)
        p->names[p->name_count++] = arena_keep(arena, name);
}

struct tls_policy
dane_policy_of(const struct dns_answer *a, const struct dane_hop *hop, struct str base, struct arena *arena)
{
    struct tls_record *records = arena_alloc(arena, (a->count + 1) * sizeof *records);
    struct tls_policy p = { .level = TLS_ENCRYPT, .source = TLS_BY_DANE, .records = records };

    CHECK(base.len > 0);
    p.domain = arena_keep(arena, hop->domain.len > 0 ? hop->domain : hop->host);
    for (size_t i = 0; i < a->count; i++) {
        const struct dns_record *r = &a->records[i];
        if (is_usable(r))
            records[p.record_count++] = (struct tls_record){ r->usage, r->selector, r->matching, arena_keep(arena, r->data) };
    }
    if (p.record_count == 0) {
        p.why = S("there are TLSA records, and none that can be used: any certificate will do");
        return p;
    }
    p.level = TLS_DANE;
    add_name(&p, base, arena); /* section 3.2.2: these, if a record is of usage 2 */
    add_name(&p, hop->host, arena);
    add_name(&p, hop->domain, arena);
    return p;
}

static struct tls_policy
refused(const struct dns_answer *a, const struct dane_hop *hop, struct arena *arena)
{
    return (struct tls_policy){
        .level = TLS_REFUSED, .source = TLS_BY_DANE, .result = TLS_RESULT_DNSSEC_INVALID,
        .domain = arena_keep(arena, hop->domain.len > 0 ? hop->domain : hop->host),
        .why = arena_printf(arena, "whether %.*s has TLSA records could not be looked up in the DNS: %.*s", STR_ARG(hop->host),
                            STR_ARG(str_slice(a->why, 0, DNS_WHY_MAX))),
    };
}

struct err
dane_lookup(const struct dns *dns, const struct dane_hop *hop, int64_t until, struct arena *scratch, struct arena *arena,
            struct tls_policy *out, bool *out_found)
{
    struct str bases[2];
    size_t count = 0;
    struct dns_answer a;

    *out_found = false;
    if (hop->secure) {
        if (hop->canonical.len > 0)
            bases[count++] = hop->canonical;
        if (!str_eq_nocase(hop->canonical, hop->host))
            bases[count++] = hop->host;
    } else if (hop->aliased) { /* section 2.2.2: perhaps only where the alias leads to is unsigned */
        TRY(dns_query(dns, hop->host, DNS_CNAME, until, scratch, &a));
        if (a.status == DNS_TEMPORARY) {
            *out = refused(&a, hop, arena);
            *out_found = true;
            return OK;
        }
        if (a.security == DNS_SECURE)
            bases[count++] = hop->host;
    }
    for (size_t i = 0; i < count && !*out_found; i++) {
        struct str name = arena_printf(scratch, "_%u._tcp.%.*s", hop->port, STR_ARG(bases[i]));
        if (!name_is_valid(name)) /* too long: then there can be no records */
            continue;
        TRY(dns_query(dns, name, DNS_TLSA, until, scratch, &a));
        if (a.status == DNS_TEMPORARY) {
            *out = refused(&a, hop, arena);
            *out_found = true;
        } else if (a.status == DNS_FOUND && a.security == DNS_SECURE) {
            *out = dane_policy_of(&a, hop, bases[i], arena);
            *out_found = true;
        }
    }
    return OK;
}
