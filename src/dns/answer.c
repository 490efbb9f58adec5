/*
 * answer - see answer.h.
 *
 * Two walks over the answer section. The first notes where each record that could matter lies (no bytes are copied);
 * the CNAME chain is then followed among those, and the records at its end are decoded. So a packet full of records
 * for other names costs a walk and no memory.
 */
#include "dns/answer.h"

#include "base/check.h"

#include <string.h>

enum {
    HEADER_BYTES = 12,
    FLAG_ANSWER = 0x80,    /* QR, in byte 2 */
    FLAG_TRUNCATED = 0x02, /* TC, in byte 2 */
    CLASS_IN = 1,
    WALK_MAX = 512, /* records looked at in a section */
};

/* A place in the packet that cannot leave it: a read over the end gives zeros and sets bad. */
struct reader {
    struct str packet;
    size_t at;
    bool bad;
};

static uint16_t
read_u16(struct reader *r)
{
    if (r->packet.len - r->at < 2) {
        r->bad = true;
        r->at = r->packet.len;
        return 0;
    }
    const unsigned char *p = (const unsigned char *)r->packet.ptr + r->at;
    r->at += 2;
    return (uint16_t)(p[0] << 8 | p[1]);
}

static uint32_t
read_u32(struct reader *r)
{
    uint32_t high = read_u16(r);

    return high << 16 | read_u16(r);
}

static void
skip(struct reader *r, size_t len)
{
    if (len > r->packet.len - r->at) {
        r->bad = true;
        len = r->packet.len - r->at;
    }
    r->at += len;
}

struct place {
    size_t owner;     /* offsets in the packet */
    size_t data;
    uint16_t type, data_len;
    uint32_t ttl;
};

/* Moves behind one record. A TTL with its high bit set is 0: RFC 2181 section 8. */
static bool
read_record(struct reader *r, struct place *out)
{
    struct name_wire owner;

    out->owner = r->at;
    if (!name_take(r->packet, &r->at, &owner))
        return false;
    out->type = read_u16(r);
    uint16_t class = read_u16(r);
    out->ttl = read_u32(r);
    if (out->ttl > INT32_MAX)
        out->ttl = 0;
    out->data_len = read_u16(r);
    out->data = r->at;
    skip(r, out->data_len);
    if (class != CLASS_IN)
        out->type = 0;
    return !r->bad;
}

static bool
owner_is(struct str packet, const struct place *p, const struct name_wire *name)
{
    struct name_wire owner;
    size_t at = p->owner;

    return name_take(packet, &at, &owner) && name_wire_eq(&owner, name);
}

/* The name in a record's data, which must end where the data ends. */
static bool
read_target(struct str packet, const struct place *p, size_t skipped, struct name_wire *out)
{
    size_t at = p->data + skipped;

    return p->data_len > skipped && name_take(packet, &at, out) && at == p->data + p->data_len;
}

static struct str
keep_name(const struct name_wire *name, struct arena *arena)
{
    char memory[NAME_WIRE_MAX];
    struct text t = text_init(memory, sizeof memory);

    if (!name_put_text(&t, name))
        return (struct str){ NULL, 0 };
    return arena_keep(arena, text_str(&t));
}

/* character-strings joined without anything between them: RFC 7208 section 3.3 and its kin. */
static bool
read_txt(struct str data, struct arena *arena, struct str *out)
{
    struct text joined = text_init(arena_alloc(arena, data.len + 1), data.len);

    while (data.len > 0) {
        size_t len = (unsigned char)data.ptr[0];
        if (len > data.len - 1)
            return false;
        text_put(&joined, str_slice(data, 1, 1 + len));
        data = str_from(data, 1 + len);
    }
    *out = text_str(&joined);
    return true;
}

static bool
read_data(struct str packet, const struct place *p, struct arena *arena, struct dns_record *out)
{
    struct str data = str_slice(packet, p->data, p->data + p->data_len);
    const unsigned char *bytes = (const unsigned char *)data.ptr;
    struct name_wire target;

    *out = (struct dns_record){ .ttl = p->ttl < DNS_TTL_MAX ? p->ttl : DNS_TTL_MAX };
    switch (p->type) {
    case DNS_A:
    case DNS_AAAA:
        out->ip.family = p->type == DNS_A ? ADDRESS_IPV4 : ADDRESS_IPV6;
        if (data.len != (p->type == DNS_A ? 4u : 16u))
            return false;
        memcpy(out->ip.ip, bytes, data.len);
        return true;
    case DNS_MX:
        if (!read_target(packet, p, 2, &target))
            return false;
        out->preference = (uint16_t)(bytes[0] << 8 | bytes[1]);
        out->name = keep_name(&target, arena);
        return true;
    case DNS_PTR:
    case DNS_CNAME:
        if (!read_target(packet, p, 0, &target))
            return false;
        out->name = keep_name(&target, arena);
        return true;
    case DNS_TXT:
        return read_txt(data, arena, &out->data);
    case DNS_TLSA:
        if (data.len < 4) { /* unusable as others are, and the answer no worse for it: RFC 7672 section 2.1.1 */
            out->usage = DNS_TLSA_PRIVATE;
            out->data = S("");
            return true;
        }
        out->usage = bytes[0];
        out->selector = bytes[1];
        out->matching = bytes[2];
        out->data = arena_keep(arena, str_from(data, 3));
        return true;
    default:
        return false;
    }
}

/* How long "no" may be believed: RFC 2308 section 5, the smaller of the SOA's own TTL and its last field. */
static uint32_t
negative_ttl(struct reader *r, size_t authority_count)
{
    struct place p;

    for (size_t i = 0; i < authority_count && i < WALK_MAX && read_record(r, &p); i++) {
        if (p.type != DNS_SOA || p.data_len < 22)
            continue;
        struct reader last = { r->packet, p.data + p.data_len - 4, false };
        uint32_t minimum = read_u32(&last);
        uint32_t ttl = minimum < p.ttl ? minimum : p.ttl;
        return ttl < DNS_TTL_NEGATIVE_MAX ? ttl : DNS_TTL_NEGATIVE_MAX;
    }
    return 0;
}

struct dns_answer
dns_answer_temporary(enum dns_type type, struct str why)
{
    return (struct dns_answer){ .status = DNS_TEMPORARY, .type = (uint16_t)type, .rcode = DNS_SERVFAIL, .why = why };
}

/* What is at hand while one packet is decoded. */
struct decoding {
    struct str packet;
    struct place places[DNS_RECORDS_MAX]; /* of the asked type, and CNAMEs */
    size_t count;
    struct name_wire name; /* at the end of the chain so far */
    struct dns_answer *answer;
    struct arena *arena;
};

static void
lower_ttl(struct dns_answer *a, uint32_t ttl)
{
    if (ttl < a->ttl)
        a->ttl = ttl;
}

/* False: the chain is too long, or a loop. */
static bool
follow_chain(struct decoding *d)
{
    if (d->answer->type == DNS_CNAME)
        return true;
    for (size_t steps = 0; steps <= DNS_CHAIN_MAX; steps++) {
        const struct place *alias = NULL;
        for (size_t i = 0; i < d->count && !alias; i++)
            if (d->places[i].type == DNS_CNAME && owner_is(d->packet, &d->places[i], &d->name))
                alias = &d->places[i];
        if (!alias)
            return true;
        if (!read_target(d->packet, alias, 0, &d->name))
            return false;
        d->answer->aliased = true;
        lower_ttl(d->answer, alias->ttl);
    }
    return false;
}

static bool
collect_records(struct decoding *d)
{
    struct dns_answer *a = d->answer;
    size_t bytes = 0;

    for (size_t i = 0; i < d->count; i++) {
        const struct place *p = &d->places[i];
        if (p->type != a->type || !owner_is(d->packet, p, &d->name))
            continue;
        bytes += p->type == DNS_A || p->type == DNS_AAAA ? 0
                 : p->type == DNS_TXT || p->type == DNS_TLSA ? p->data_len + 16u
                                                             : NAME_WIRE_MAX;
        if (bytes > DNS_BYTES_MAX) {
            a->cut = true;
            return true;
        }
        if (!a->records)
            a->records = arena_alloc(d->arena, d->count * sizeof *a->records);
        if (!read_data(d->packet, p, d->arena, &a->records[a->count]))
            return false;
        lower_ttl(a, a->records[a->count++].ttl);
    }
    return true;
}

/* NULL: decoded; else what is wrong with the packet. */
static const char *
decode(struct decoding *d)
{
    struct dns_answer *a = d->answer;
    struct reader r = { d->packet, 4, false };
    const unsigned char *head = (const unsigned char *)d->packet.ptr;
    struct place p;

    if (d->packet.len < HEADER_BYTES || !(head[2] & FLAG_ANSWER))
        return "not a DNS answer";
    if (head[2] & FLAG_TRUNCATED)
        return "the DNS answer was truncated";
    a->rcode = head[3] & 15;
    size_t questions = read_u16(&r), answers = read_u16(&r), authorities = read_u16(&r);
    r.at = HEADER_BYTES;
    if (questions > 1)
        return "a DNS answer to several questions";
    if (questions == 1) {
        struct name_wire asked;
        if (!name_take(r.packet, &r.at, &asked) || !name_wire_eq(&asked, &d->name) || read_u16(&r) != a->type ||
            read_u16(&r) != CLASS_IN)
            return "a DNS answer to another question";
    }
    for (size_t i = 0; i < answers; i++) {
        if (i >= WALK_MAX || !read_record(&r, &p))
            return i >= WALK_MAX ? "a DNS answer of too many records" : "a malformed DNS answer";
        if (p.type != a->type && p.type != DNS_CNAME)
            continue;
        if (d->count < DNS_RECORDS_MAX)
            d->places[d->count++] = p;
        else
            a->cut = true;
    }
    a->ttl = DNS_TTL_MAX;
    if (!follow_chain(d))
        return "a chain of CNAMEs that does not end";
    a->canonical = keep_name(&d->name, d->arena);
    if (a->rcode == DNS_RCODE_NXDOMAIN) {
        a->status = DNS_NXDOMAIN;
    } else if (a->rcode != DNS_NOERROR) {
        return "the name server failed";
    } else {
        if (!collect_records(d))
            return "a malformed record in a DNS answer";
        if (a->count == 0 && a->cut) /* there are some: that is not none */
            return "a DNS answer of records that are too large";
        a->status = a->count > 0 ? DNS_FOUND : DNS_NODATA;
    }
    if (a->status != DNS_FOUND)
        lower_ttl(a, negative_ttl(&r, authorities));
    return NULL;
}

struct dns_answer
dns_answer_decode(struct str packet, struct str name, enum dns_type type, enum dns_security security, struct str why,
                  struct arena *arena)
{
    struct dns_answer a = { .type = (uint16_t)type, .security = (uint8_t)security };
    struct decoding d = { .packet = packet, .answer = &a, .arena = arena };
    const char *wrong;

    why = arena_keep(arena, str_slice(why, 0, DNS_WHY_MAX));
    if (security == DNS_BOGUS) {
        /* It comes with rcode 0 and the forged records: nobody may see them. */
        a = dns_answer_temporary(type, why.len ? why : S("DNSSEC validation failed"));
        a.security = DNS_BOGUS;
        return a;
    }
    if (!name_to_wire(name, &d.name))
        return dns_answer_temporary(type, S("not a domain name"));
    wrong = decode(&d);
    if (wrong) {
        uint8_t rcode = a.rcode;
        a = dns_answer_temporary(type, why.len ? why : str_from_cstr(wrong));
        a.rcode = rcode;
    }
    return a;
}

/* ---- between roles ---------------------------------------------------------------------------------------------- */

enum { ANSWER_FIXED_BYTES = 5 + 2 + 4 + 4 + 4 + 4, RECORD_FIXED_BYTES = 4 + 2 + 4 + 1 + 16 + 4 + 3 };
static_assert(ANSWER_FIXED_BYTES + NAME_TEXT_MAX + DNS_WHY_MAX + DNS_RECORDS_MAX * RECORD_FIXED_BYTES + DNS_BYTES_MAX <=
                  DNS_ANSWER_ENCODED_MAX, "the largest answer fits");

size_t
dns_answer_size(const struct dns_answer *a)
{
    size_t size = ANSWER_FIXED_BYTES + a->canonical.len + str_slice(a->why, 0, DNS_WHY_MAX).len;

    for (size_t i = 0; i < a->count; i++)
        size += RECORD_FIXED_BYTES + a->records[i].name.len + a->records[i].data.len;
    return size;
}

void
dns_answer_put(struct put *put, const struct dns_answer *a)
{
    put_u8(put, a->status);
    put_u8(put, a->security);
    put_u8(put, a->rcode);
    put_u8(put, a->aliased);
    put_u8(put, a->cut);
    put_u16(put, a->type);
    put_u32(put, a->ttl);
    put_bytes(put, a->canonical);
    put_bytes(put, str_slice(a->why, 0, DNS_WHY_MAX));
    put_u32(put, (uint32_t)a->count);
    for (size_t i = 0; i < a->count; i++) {
        const struct dns_record *r = &a->records[i];
        put_u32(put, r->ttl);
        put_u16(put, r->preference);
        put_bytes(put, r->name);
        put_u8(put, r->ip.family);
        put_raw(put, str_new(r->ip.ip, sizeof r->ip.ip));
        put_bytes(put, r->data);
        put_u8(put, r->usage);
        put_u8(put, r->selector);
        put_u8(put, r->matching);
    }
}

/* A name as dns_answer_decode() gives them: whoever sends us an answer may have been taken over. */
static bool
is_our_name(struct str s)
{
    return str_is_absent(s) || str_eq(s, S(".")) || name_is_valid(s);
}

static enum address_family
family_of(uint16_t type)
{
    return type == DNS_A ? ADDRESS_IPV4 : type == DNS_AAAA ? ADDRESS_IPV6 : ADDRESS_NONE;
}

bool
dns_answer_take(struct take *take, struct arena *arena, struct dns_answer *out)
{
    struct dns_answer a = { 0 };
    size_t bytes = 0;

    a.status = (uint8_t)take_enum(take, DNS_TEMPORARY);
    a.security = (uint8_t)take_enum(take, DNS_BOGUS);
    a.rcode = take_u8(take);
    a.aliased = take_bool(take);
    a.cut = take_bool(take);
    a.type = take_u16(take);
    a.ttl = take_u32(take);
    a.canonical = arena_keep(arena, take_bytes(take, NAME_TEXT_MAX));
    a.why = arena_keep(arena, take_bytes(take, DNS_WHY_MAX));
    a.count = take_count(take, DNS_RECORDS_MAX);
    if (take->bad)
        return false;
    a.records = a.count ? arena_alloc(arena, a.count * sizeof *a.records) : NULL;
    for (size_t i = 0; i < a.count && !take->bad; i++) {
        struct dns_record *r = &a.records[i];
        r->ttl = take_u32(take);
        r->preference = take_u16(take);
        r->name = take_bytes(take, NAME_TEXT_MAX);
        r->ip.family = (uint8_t)take_enum(take, ADDRESS_IPV6);
        struct str ip = take_raw(take, sizeof r->ip.ip);
        r->data = take_bytes(take, DNS_BYTES_MAX);
        bytes += r->name.len + r->data.len;
        if (take->bad || bytes > DNS_BYTES_MAX || !is_our_name(r->name) || r->ip.family != family_of(a.type))
            return false;
        memcpy(r->ip.ip, ip.ptr, sizeof r->ip.ip);
        r->name = arena_keep(arena, r->name);
        r->data = arena_keep(arena, r->data);
        r->usage = take_u8(take);
        r->selector = take_u8(take);
        r->matching = take_u8(take);
    }
    if (take->bad || (a.status == DNS_FOUND) != (a.count > 0) || !is_our_name(a.canonical))
        return false;
    if (a.security == DNS_BOGUS && a.status != DNS_TEMPORARY)
        return false;
    *out = a;
    return true;
}
