/* resolver - dns/resolver.h in the simulator: answers from a table, late, and now and then not at all. */
#include "dns/resolver.h"

#include "base/check.h"
#include "sim/sim.h"

#include <string.h>

enum { RECORDS_MAX = 64 };
#define TTL 300

struct sim_record {
    enum dns_type type;
    char name[80], target[80];
    uint16_t preference;
    struct address ip;
};

struct sim_dns {
    struct sim_record records[RECORDS_MAX];
    size_t count;
};

struct resolver {
    struct rt *rt;
    size_t outstanding;
};

static struct sim_record *
add(struct sim *sim, enum dns_type type, const char *name)
{
    if (!sim->dns)
        sim->dns = mem_new(&sim->mem, struct sim_dns);
    CHECK(sim->dns->count < RECORDS_MAX);
    struct sim_record *r = &sim->dns->records[sim->dns->count++];
    r->type = type;
    CHECK(strlen(name) < sizeof r->name);
    memcpy(r->name, name, strlen(name) + 1);
    return r;
}

void
sim_dns_add_mx(struct sim *sim, const char *domain, unsigned preference, const char *host)
{
    struct sim_record *r = add(sim, DNS_MX, domain);

    r->preference = (uint16_t)preference;
    CHECK(strlen(host) < sizeof r->target);
    memcpy(r->target, host, strlen(host) + 1);
}

void
sim_dns_add_address(struct sim *sim, const char *host, const char *ip)
{
    struct sim_record *r = add(sim, DNS_A, host);

    CHECK(address_from_ip(str_from_cstr(ip), &r->ip));
    if (r->ip.family == ADDRESS_IPV6)
        r->type = DNS_AAAA;
}

void
sim_dns_add_txt(struct sim *sim, const char *name, const char *text)
{
    struct sim_record *r = add(sim, DNS_TXT, name);

    CHECK(strlen(text) < sizeof r->target);
    memcpy(r->target, text, strlen(text) + 1);
}

void
sim_dns_free(struct sim *sim)
{
    mem_free(&sim->mem, sim->dns, sizeof *sim->dns);
    sim->dns = NULL;
}

struct err
resolver_open(struct rt *rt, const struct resolver_settings *settings, int64_t until, struct resolver **out,
              struct str *out_why)
{
    (void)settings;
    (void)until;
    TRY(sched_enter(rt));
    TRY(rt_sleep(rt, within(rt, MILLISECOND))); /* the library takes a while, too, and others run meanwhile */
    int error = faults_call(process_of(rt), CALL_RESOLVER);
    if (error) {
        *out_why = S("so it was planned");
        return err_from_os(error, "start the resolver");
    }
    *out = mem_new(rt_mem(rt), struct resolver);
    (*out)->rt = rt;
    return OK;
}

void
resolver_close(struct resolver *r)
{
    if (!r)
        return;
    CHECK(r->outstanding == 0);
    mem_free(rt_mem(r->rt), r, sizeof *r);
}

static void
answer_from_table(const struct sim *sim, struct str name, enum dns_type type, struct arena *arena, struct dns_answer *out)
{
    bool exists = false;

    *out = (struct dns_answer){ .type = (uint16_t)type, .security = DNS_INDETERMINATE, .ttl = TTL,
                                .canonical = arena_keep(arena, name), .why = S("") };
    out->records = arena_alloc(arena, RECORDS_MAX * sizeof *out->records);
    for (size_t i = 0; sim->dns && i < sim->dns->count; i++) {
        const struct sim_record *r = &sim->dns->records[i];
        if (!str_eq_nocase(str_from_cstr(r->name), name))
            continue;
        exists = true;
        if (r->type != type)
            continue;
        struct dns_record *record = &out->records[out->count++];
        *record = (struct dns_record){ .ttl = TTL, .preference = r->preference, .ip = r->ip,
                                       .name = { NULL, 0 } };
        if (type == DNS_TXT)
            record->data = arena_keep(arena, str_from_cstr(r->target));
        else if (r->target[0])
            record->name = arena_keep(arena, str_from_cstr(r->target));
    }
    out->status = out->count ? DNS_FOUND : exists ? DNS_NODATA : DNS_NXDOMAIN;
    out->rcode = exists ? DNS_NOERROR : DNS_RCODE_NXDOMAIN;
}

struct err
resolver_query(struct resolver *r, struct str name, enum dns_type type, int64_t until, struct arena *arena,
               struct dns_answer *out)
{
    struct sim *sim = process_of(r->rt)->sim;
    int64_t answer_at = r->rt->now + dice_between(sim, 100000, 80 * MILLISECOND);

    process_step(process_of(r->rt));
    if (sim->now < sim->faults.dns_out_until)
        answer_at = until + 1;
    r->outstanding++;
    struct err e = rt_sleep(r->rt, answer_at < until ? answer_at : until);
    r->outstanding--;
    if (err_is(e))
        return e;
    if (answer_at > until)
        *out = dns_answer_temporary(type, S("the name servers did not answer in time"));
    else if (faults_call(process_of(r->rt), CALL_QUERY) || dice_chance(sim, sim->dns_fails))
        *out = dns_answer_temporary(type, S("server failure"));
    else
        answer_from_table(sim, name, type, arena, out);
    return OK;
}

static struct err
hook(void *arg, struct str name, enum dns_type type, int64_t until, struct arena *arena, struct dns_answer *out)
{
    return resolver_query(arg, name, type, until, arena, out);
}

struct dns
resolver_dns(struct resolver *r)
{
    return (struct dns){ hook, r };
}

size_t
resolver_outstanding(const struct resolver *r)
{
    return r->outstanding;
}
