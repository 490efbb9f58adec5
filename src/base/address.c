/* address - see address.h. */
#include "base/address.h"

#include <arpa/inet.h>
#include <string.h>

bool
address_from_ip(struct str s, struct address *out)
{
    char cstr[INET6_ADDRSTRLEN];
    struct address a = { 0 };

    if (s.len >= sizeof cstr || str_find_byte(s, '\0') < s.len || s.len == 0)
        return false;
    memcpy(cstr, s.ptr, s.len);
    cstr[s.len] = '\0';
    if (inet_pton(AF_INET, cstr, a.ip) == 1)
        a.family = ADDRESS_IPV4;
    else if (inet_pton(AF_INET6, cstr, a.ip) == 1)
        a.family = ADDRESS_IPV6;
    else
        return false;
    *out = a;
    return true;
}

bool
address_parse(struct str s, struct address *out)
{
    struct address a = { 0 };
    uint64_t port;

    if (str_starts(s, S("/"))) {
        if (s.len >= sizeof a.path || str_find_byte(s, '\0') < s.len)
            return false;
        a.family = ADDRESS_UNIX;
        memcpy(a.path, s.ptr, s.len);
        *out = a;
        return true;
    }
    size_t colon = str_find_last_byte(s, ':');
    if (colon == s.len || !str_to_u64(str_from(s, colon + 1), &port) || port > UINT16_MAX)
        return false;
    struct str ip = str_slice(s, 0, colon);
    bool bracketed = str_take_byte(&ip, '[');
    if (bracketed) {
        if (!str_ends(ip, S("]")))
            return false;
        ip.len--;
    }
    if (!address_from_ip(ip, &a) || bracketed != (a.family == ADDRESS_IPV6))
        return false;
    a.port = (uint16_t)port;
    *out = a;
    return true;
}

static size_t
ip_bytes(const struct address *a)
{
    return a->family == ADDRESS_IPV4 ? 4 : a->family == ADDRESS_IPV6 ? 16 : 0;
}

bool
address_same_ip(const struct address *a, const struct address *b)
{
    return a->family == b->family && memcmp(a->ip, b->ip, ip_bytes(a)) == 0 && a->scope == b->scope;
}

bool
address_eq(const struct address *a, const struct address *b)
{
    if (a->family == ADDRESS_UNIX)
        return b->family == ADDRESS_UNIX && strncmp(a->path, b->path, sizeof a->path) == 0;
    return address_same_ip(a, b) && a->port == b->port;
}

static const uint8_t mapped_prefix[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff };

struct address
address_unmap(struct address a)
{
    if (a.family != ADDRESS_IPV6 || memcmp(a.ip, mapped_prefix, sizeof mapped_prefix) != 0)
        return a;
    struct address v4 = { .family = ADDRESS_IPV4, .port = a.port };
    memcpy(v4.ip, a.ip + 12, 4);
    return v4;
}

bool
address_is_loopback(const struct address *address)
{
    static const uint8_t v6_loopback[16] = { [15] = 1 };
    struct address a = address_unmap(*address);

    return a.family == ADDRESS_UNIX || (a.family == ADDRESS_IPV4 && a.ip[0] == 127) ||
           (a.family == ADDRESS_IPV6 && memcmp(a.ip, v6_loopback, 16) == 0);
}

bool
address_is_forbidden_target(const struct address *address)
{
    static const uint8_t unspecified[16];
    struct address a = address_unmap(*address);

    if (address_is_loopback(&a))
        return true;
    if (a.family == ADDRESS_IPV4)
        return a.ip[0] == 0 || a.ip[0] >= 224;
    return memcmp(a.ip, unspecified, 16) == 0 || a.ip[0] == 0xff;
}

void
address_put_ip(struct text *t, const struct address *a)
{
    char cstr[INET6_ADDRSTRLEN];

    if (a->family == ADDRESS_UNIX)
        text_put(t, str_new(a->path, strnlen(a->path, sizeof a->path)));
    else if (a->family == ADDRESS_NONE)
        text_put(t, S("unknown"));
    else if (inet_ntop(a->family == ADDRESS_IPV4 ? AF_INET : AF_INET6, a->ip, cstr, sizeof cstr))
        text_put(t, str_from_cstr(cstr));
}

void
address_put(struct text *t, const struct address *a)
{
    if (a->family == ADDRESS_IPV6)
        text_put_byte(t, '[');
    address_put_ip(t, a);
    if (a->family == ADDRESS_IPV6)
        text_put_byte(t, ']');
    if (a->family == ADDRESS_IPV4 || a->family == ADDRESS_IPV6) {
        text_put_byte(t, ':');
        text_put_u64(t, a->port);
    }
}

void
address_put_literal(struct text *t, const struct address *a)
{
    text_put(t, a->family == ADDRESS_IPV6 ? S("[IPv6:") : S("["));
    address_put_ip(t, a);
    text_put_byte(t, ']');
}

static bool
same_bits(const uint8_t *a, const uint8_t *b, size_t bits)
{
    if (memcmp(a, b, bits / 8) != 0)
        return false;
    return bits % 8 == 0 || ((a[bits / 8] ^ b[bits / 8]) >> (8 - bits % 8)) == 0;
}

bool
prefix_parse(struct str s, struct prefix *out)
{
    struct prefix p;
    struct str ip = str_cut(&s, '/');
    uint64_t bits;

    if (!address_from_ip(ip, &p.base))
        return false;
    size_t all = ip_bytes(&p.base) * 8;
    if (str_is_absent(s))
        bits = all;
    else if (!str_to_u64(s, &bits) || bits > all)
        return false;
    p.bits = (uint8_t)bits;
    for (size_t bit = bits; bit < all; bit++)
        if (p.base.ip[bit / 8] >> (7 - bit % 8) & 1)
            return false;
    if (bits >= 96 && address_unmap(p.base).family == ADDRESS_IPV4) { /* ::ffff:192.0.2.0/120 is 192.0.2.0/24 */
        p.base = address_unmap(p.base);
        p.bits -= 96;
    }
    *out = p;
    return true;
}

bool
prefix_has(const struct prefix *p, const struct address *address)
{
    struct address a = address_unmap(*address);

    return a.family == p->base.family && a.family != ADDRESS_UNIX && same_bits(a.ip, p->base.ip, p->bits);
}

struct address
address_client_key(const struct address *address)
{
    struct address a = address_unmap(*address);

    a.port = 0;
    a.scope = 0;
    if (a.family == ADDRESS_IPV6)
        memset(a.ip + 8, 0, 8);
    return a;
}
