/*
 * fuzz_domain - domains: names, address literals, internationalised names (IDNA), and what DNS takes for a name.
 *
 * Aims at: message/domain.c dns/name.c base/address.c
 * Seeds:   message/path_test.c dns/name_test.c base/base_test.c address-isemail/ psl/
 * Longest: 1100
 * Test:    57000 runs
 *
 * The A-labels of a name are a lower case ASCII name, and their own A-labels. What the wire has of a name is the name. A
 * literal, printed, is the same address.
 */
#include "fuzz.h"

#include "dns/name.h"
#include "message/domain.h"

static void
check_literal(const struct address *address, struct arena *arena)
{
    struct text t = fuzz_text(arena, 200);
    struct address again;

    address_put_literal(&t, address);
    CHECK(!t.full && domain_parse_literal(text_str(&t), &again) && address_same_ip(&again, address));
    CHECK(domain_is_valid(text_str(&t)) && !domain_is_name(text_str(&t)));
    t.len = 0;
    address_put_ip(&t, address);
    CHECK(address_from_ip(text_str(&t), &again) && address_same_ip(&again, address));
    t.len = 0;
    name_put_reverse(&t, address);
    CHECK(t.len <= NAME_REVERSE_MAX && name_is_valid(text_str(&t)));
    struct address key = address_client_key(address), twice = address_client_key(&key);
    CHECK(address_eq(&key, &twice));
}

static void
check_ascii(struct str domain, struct arena *arena)
{
    struct str ascii = domain_to_ascii(domain, arena);

    if (str_is_absent(ascii) || !domain_is_name(domain)) /* what is ASCII already is only lowered, name or not */
        return;
    CHECK(str_is_ascii(ascii) && ascii.len <= 255);
    for (size_t i = 0; i < ascii.len; i++)
        CHECK(byte_lower(ascii.ptr[i]) == ascii.ptr[i]);
    CHECK(str_eq(domain_to_ascii(ascii, arena), ascii));
}

static void
check_wire(struct str name, struct arena *arena)
{
    struct name_wire wire, again;
    struct text t = fuzz_text(arena, NAME_TEXT_MAX + 2);
    size_t at = 0;

    if (!name_to_wire(name, &wire))
        return;
    CHECK(wire.len > 0 && wire.len <= NAME_WIRE_MAX);
    CHECK(name_take(str_new(wire.bytes, wire.len), &at, &again) && at == wire.len && name_wire_eq(&wire, &again));
    CHECK(name_put_text(&t, &wire) && !t.full);
    CHECK(name_eq(text_str(&t), name));
}

void
fuzz_one(struct str input, struct arena *arena)
{
    struct address address;
    struct prefix prefix;

    (void)domain_is_hostname(input);
    if (domain_parse_literal(input, &address))
        check_literal(&address, arena);
    if (address_from_ip(input, &address))
        check_literal(&address, arena);
    if (address_parse(input, &address)) {
        struct text t = fuzz_text(arena, 200);
        struct address again;
        address_put(&t, &address);
        CHECK(!t.full && address_parse(text_str(&t), &again) && address_eq(&again, &address));
    }
    if (prefix_parse(input, &prefix))
        CHECK(prefix_has(&prefix, &prefix.base));
    if (domain_is_name(input))
        CHECK(domain_is_valid(input) && input.len <= 255 * 4);
    check_ascii(input, arena);
    check_wire(input, arena);
}
