/* mx - see mx.h. */
#include "dns/mx.h"

#include "base/check.h"
#include "base/limits.h"

static struct str
sentence(struct arena *arena, struct str name, const char *says, struct str more)
{
    return arena_printf(arena, "%.*s %s%s%.*s", STR_ARG(name), says, more.len ? ": " : "", STR_ARG(more));
}

static bool
is_root(struct str name)
{
    return str_eq(name, S("."));
}

/* Stable insertion by preference; the list is as short as one packet. */
static void
add_host(struct mx_result *r, struct str name, uint16_t preference)
{
    size_t at = r->host_count++;

    for (; at > 0 && r->hosts[at - 1].preference > preference; at--)
        r->hosts[at] = r->hosts[at - 1];
    r->hosts[at] = (struct mx_host){ name, preference };
}

/* A host that is named twice is one host, where it is preferred most. */
static void
add_host_once(struct mx_result *r, struct str name, uint16_t preference)
{
    size_t at = 0;

    while (at < r->host_count && !name_eq(r->hosts[at].name, name))
        at++;
    if (at < r->host_count) {
        if (r->hosts[at].preference <= preference)
            return;
        r->host_count--;
        for (; at < r->host_count; at++)
            r->hosts[at] = r->hosts[at + 1];
    }
    add_host(r, name, preference);
}

static void
take_hosts(struct mx_result *r, const struct dns_answer *a, struct str domain, struct arena *arena)
{
    /* RFC 7505 section 3: one record, preference 0, and the root as its target. */
    if (a->count == 1 && is_root(a->records[0].name) && a->records[0].preference == 0) {
        r->status = MX_NULL;
        r->why = sentence(arena, domain, "takes no mail (null MX)", S(""));
        return;
    }
    r->hosts = arena_alloc(arena, a->count * sizeof *r->hosts);
    for (size_t i = 0; i < a->count; i++) {
        const struct dns_record *record = &a->records[i];
        if (!str_is_absent(record->name) && !is_root(record->name))
            add_host_once(r, record->name, record->preference);
    }
    r->status = r->host_count ? MX_OK : MX_NO_ADDRESS;
    if (r->host_count == 0)
        r->why = sentence(arena, domain, "has MX records, but none of them names a host", S(""));
}

struct err
mx_lookup(const struct dns *dns, struct str domain, int64_t until, struct arena *arena, struct mx_result *out)
{
    struct dns_answer a;
    struct mx_result r = { .status = MX_OK };

    if (!name_is_valid(domain)) {
        *out = (struct mx_result){ .status = MX_NXDOMAIN,
                                   .canonical = domain,
                                   .why = sentence(arena, domain, "is not a domain name", S("")) };
        return OK;
    }
    TRY(dns_query(dns, domain, DNS_MX, until, arena, &a));
    r.secure = a.security == DNS_SECURE;
    r.ttl = a.ttl;
    r.canonical = a.canonical;
    switch (a.status) {
    case DNS_FOUND:
        take_hosts(&r, &a, domain, arena);
        break;
    case DNS_NODATA:
        /* RFC 5321 section 5.1: "If an empty list of MXs is returned, the address is treated as if it was associated
         * with an implicit MX RR, with a preference of 0, pointing to that host." A CNAME's target, if there was
         * one. */
        r.implicit = true;
        r.hosts = arena_new(arena, struct mx_host);
        if (str_is_absent(a.canonical) || is_root(a.canonical)) {
            r.status = MX_NO_ADDRESS;
            r.why = sentence(arena, domain, "is an alias of something that is no host name", S(""));
            break;
        }
        add_host(&r, a.canonical, 0);
        break;
    case DNS_NXDOMAIN:
        r.status = MX_NXDOMAIN;
        r.why = sentence(arena, domain, "does not exist in the DNS", S(""));
        break;
    default:
        r.status = MX_TEMPORARY;
        r.why = sentence(arena, domain, "could not be looked up in the DNS (MX)", a.why);
        break;
    }
    *out = r;
    return OK;
}

size_t
mx_better_than(const struct mx_result *mx, struct str us, struct mx_host *out, size_t cap)
{
    uint32_t bound = UINT32_MAX;
    size_t count = 0;

    for (size_t i = 0; i < mx->host_count; i++)
        if (str_eq_nocase(mx->hosts[i].name, us) && mx->hosts[i].preference < bound)
            bound = mx->hosts[i].preference;
    for (size_t i = 0; i < mx->host_count && count < cap; i++)
        if (mx->hosts[i].preference < bound)
            out[count++] = mx->hosts[i];
    return count;
}

/* ---- the addresses of a host ------------------------------------------------------------------------------------ */

static bool
may_go_to(const struct address *a, unsigned families)
{
    return (families & HOST_ANY) || !address_is_forbidden_target(a);
}

/* "MX 10 192.0.2.1" is wrong and common enough: standards 5.1, point 7. */
static bool
is_written_address(struct str name, unsigned families, struct arena *arena, struct host_result *out)
{
    struct address address;

    if (!address_from_ip(name, &address))
        return false;
    bool wanted = address.family == ADDRESS_IPV4 ? families & HOST_IPV4 : families & HOST_IPV6;
    *out = (struct host_result){ .status = HOST_NO_ADDRESS, .canonical = name, .ttl = DNS_TTL_NEGATIVE_MAX };
    if (wanted && may_go_to(&address, families)) {
        out->status = HOST_OK;
        out->addresses = arena_new(arena, struct address);
        out->addresses[out->address_count++] = address;
    } else {
        out->why = sentence(arena, name, "is not an address that mail may go to", S(""));
    }
    return true;
}

static size_t
count_addresses(const struct dns_answer *a, unsigned families)
{
    size_t count = 0;

    for (size_t i = 0; i < a->count; i++)
        count += may_go_to(&a->records[i].ip, families);
    return count;
}

/* The next one at or behind *at that mail may go to; false: none is left. */
static bool
next_address(const struct dns_answer *a, size_t *at, unsigned families, struct address *out)
{
    while (*at < a->count) {
        *out = a->records[(*at)++].ip;
        if (may_go_to(out, families))
            return true;
    }
    return false;
}

static void
take_addresses(struct host_result *r, const struct dns_answer *v6, const struct dns_answer *v4, unsigned families,
               struct arena *arena)
{
    size_t total = count_addresses(v6, families) + count_addresses(v4, families), at6 = 0, at4 = 0;

    r->addresses = total ? arena_alloc(arena, total * sizeof *r->addresses) : NULL;
    while (r->address_count < total) {
        if (next_address(v6, &at6, families, &r->addresses[r->address_count]))
            r->address_count++;
        if (r->address_count < total && next_address(v4, &at4, families, &r->addresses[r->address_count]))
            r->address_count++;
    }
}

struct err
host_addresses(const struct dns *dns, struct str name, unsigned families, int64_t until, struct arena *arena,
               struct host_result *out)
{
    /* A family that nobody asks for has no address, as far as we are concerned. */
    struct dns_answer v4 = { .status = DNS_NODATA, .security = DNS_SECURE, .ttl = DNS_TTL_MAX };
    struct dns_answer v6 = v4;
    struct host_result r = { .status = HOST_OK };

    CHECK(families & (HOST_IPV4 | HOST_IPV6));
    if (is_written_address(name, families, arena, out))
        return OK;
    if (!name_is_valid(name)) {
        *out = (struct host_result){ .status = HOST_NXDOMAIN,
                                     .canonical = name,
                                     .why = sentence(arena, name, "is not a host name", S("")) };
        return OK;
    }
    if (families & HOST_IPV4)
        TRY(dns_query(dns, name, DNS_A, until, arena, &v4));
    if (families & HOST_IPV6)
        TRY(dns_query(dns, name, DNS_AAAA, until, arena, &v6));
    const struct dns_answer *asked = families & HOST_IPV4 ? &v4 : &v6;
    take_addresses(&r, &v6, &v4, families, arena);
    /* Of what is used: who can break one family's answer must not make the other's look as if nobody vouched for it. */
    r.secure = (v4.status != DNS_FOUND || v4.security == DNS_SECURE) && (v6.status != DNS_FOUND || v6.security == DNS_SECURE) &&
               r.address_count > 0;
    r.aliased = v4.aliased || v6.aliased;
    r.canonical = str_is_absent(v4.canonical) ? v6.canonical : v4.canonical;
    r.ttl = v4.ttl < v6.ttl ? v4.ttl : v6.ttl;
    if (r.address_count > 0) {
        *out = r;
        return OK;
    }
    if (v4.status == DNS_TEMPORARY || v6.status == DNS_TEMPORARY) {
        r.status = HOST_TEMPORARY;
        r.why = sentence(arena, name, "could not be looked up in the DNS (A, AAAA)",
                         v4.status == DNS_TEMPORARY ? v4.why : v6.why);
    } else if (asked->status == DNS_NXDOMAIN) {
        r.status = HOST_NXDOMAIN;
        r.why = sentence(arena, name, "does not exist in the DNS", S(""));
    } else {
        r.status = HOST_NO_ADDRESS;
        r.why = sentence(arena, name,
                         v4.count + v6.count ? "has only addresses that mail must not go to" : "has no address", S(""));
    }
    *out = r;
    return OK;
}

/* ---- reverse names ---------------------------------------------------------------------------------------------- */

static bool
has_address(const struct dns_answer *a, const struct address *address)
{
    for (size_t i = 0; i < a->count; i++)
        if (address_same_ip(&a->records[i].ip, address))
            return true;
    return false;
}

struct err
iprev_lookup(const struct dns *dns, const struct address *client, int64_t until, struct arena *arena, struct iprev *out)
{
    char memory[NAME_REVERSE_MAX];
    struct text reverse = text_init(memory, sizeof memory);
    struct address address = address_unmap(*client);
    struct dns_answer names, forward;
    struct iprev r = { .status = IPREV_NONE };
    size_t looked_at = 0;

    address.port = 0;
    address.scope = 0;
    name_put_reverse(&reverse, &address);
    if (reverse.len == 0) { /* a Unix socket */
        *out = r;
        return OK;
    }
    CHECK(!reverse.full);
    TRY(dns_query(dns, text_str(&reverse), DNS_PTR, until, arena, &names));
    if (names.status == DNS_TEMPORARY)
        r.status = IPREV_TEMPORARY;
    for (size_t i = 0; i < names.count && looked_at < IPREV_NAMES_MAX; i++) {
        struct str name = names.records[i].name;
        if (!name_is_valid(name))
            continue;
        looked_at++;
        TRY(dns_query(dns, name, address.family == ADDRESS_IPV4 ? DNS_A : DNS_AAAA, until, arena, &forward));
        if (has_address(&forward, &address)) {
            *out = (struct iprev){ IPREV_PASS, name };
            return OK;
        }
        /* One name that could not be checked makes the whole unknown: temperror is not fail. */
        if (forward.status == DNS_TEMPORARY)
            r.status = IPREV_TEMPORARY;
        else if (r.status == IPREV_NONE)
            r = (struct iprev){ IPREV_FAIL, name };
    }
    if (r.status == IPREV_TEMPORARY)
        r.name = (struct str){ NULL, 0 };
    *out = r;
    return OK;
}
