/* Domain names: as text, on the wire, reversed. */
#include "dns/name.h"

#include "base/test.h"

#include <string.h>

#define L63 "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz01234567890"

static void
valid_names(struct test *t)
{
    static const struct {
        const char *why;
        struct str in;
        bool ok;
    } cases[] = {
        { "plain", STR("mx.example.org"), true },
        { "one label", STR("localhost"), true },
        { "trailing dot", STR("mx.example.org."), true },
        { "underscore", STR("_25._tcp.my_host.example"), true },
        { "digits only", STR("192.0.2.1"), true },
        { "A-label", STR("xn--bcher-kva.example"), true },
        { "longest label", STR(L63 ".example"), true },
        { "label one too long", STR("x" L63 ".example"), false },
        { "longest name", STR(L63 "." L63 "." L63 "." "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz012345678"),
          true },
        { "name one too long",
          STR(L63 "." L63 "." L63 "." "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz0123456789"), false },
        { "empty", STR(""), false },
        { "the root", STR("."), false },
        { "empty label", STR("a..example"), false },
        { "leading dot", STR(".example"), false },
        { "two trailing dots", STR("example.."), false },
        { "space", STR("a b.example"), false },
        { "NUL", STR("a\0b.example"), false },
        { "U-label", STR("b\xc3\xbc" "cher.example"), false },
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct name_wire wire;
        struct str in = test_edge(cases[i].in);
        test_case(t, cases[i].why);
        EXPECT(t, name_is_valid(in) == cases[i].ok);
        EXPECT(t, name_to_wire(in, &wire) == (cases[i].ok || str_eq(in, S("."))));
        test_edge_free(in);
    }
}

static void
compares(struct test *t)
{
    EXPECT(t, name_eq(S("MX.Example."), S("mx.example")));
    EXPECT(t, !name_eq(S("mx.example"), S("mx.examplf")));
}

static void
text_and_wire_and_back(struct test *t)
{
    struct name_wire wire, again;
    char memory[NAME_WIRE_MAX];
    struct text text = text_init(memory, sizeof memory);
    size_t at = 0;

    EXPECT(t, name_to_wire(S("Mx1.Example."), &wire));
    EXPECT_STR(t, str_new(wire.bytes, wire.len), S("\3mx1\7example\0"));
    EXPECT(t, name_take(str_new(wire.bytes, wire.len), &at, &again));
    EXPECT_INT(t, at, wire.len);
    EXPECT(t, name_wire_eq(&wire, &again));
    EXPECT(t, name_put_text(&text, &wire));
    EXPECT_STR(t, text_str(&text), S("mx1.example"));

    text.len = 0;
    EXPECT(t, name_to_wire(S("."), &wire));
    EXPECT(t, name_put_text(&text, &wire));
    EXPECT_STR(t, text_str(&text), S("."));

    text.len = 0;
    at = 0;
    EXPECT(t, name_take(S("\3a.b\0"), &at, &wire));
    EXPECT(t, !name_put_text(&text, &wire));
}

static void
takes_compressed_names(struct test *t)
{
    static const struct {
        const char *why;
        struct str packet;
        size_t at;
        bool ok;
        struct str name;
        size_t behind;
    } cases[] = {
        { "plain", STR("\1a\1b\0"), 0, true, STR("a.b"), 5 },
        { "pointer alone", STR("\1A\1b\0\xc0\0"), 5, true, STR("a.b"), 7 },
        { "pointer behind a label", STR("\1a\1b\0\1c\xc0\2"), 5, true, STR("c.b"), 9 },
        { "pointer to a pointer", STR("\1a\0\1b\xc0\0\1c\xc0\3"), 7, true, STR("c.b.a"), 11 },
        { "pointer to itself", STR("\1a\0\xc0\3"), 3, false, STR(""), 0 },
        { "pointer forwards", STR("\xc0\2\1a\0"), 0, false, STR(""), 0 },
        { "two that point at each other", STR("\xc0\2\xc0\0"), 2, false, STR(""), 0 },
        { "label that leads into its own pointer", STR("\1a\xc0\0"), 2, false, STR(""), 0 },
        { "cut pointer", STR("\1a\0\xc0"), 3, false, STR(""), 0 },
        { "cut label", STR("\3ab"), 0, false, STR(""), 0 },
        { "no end", STR("\1a"), 0, false, STR(""), 0 },
        { "label type 01", STR("\x41" "aaaaaaaa"), 0, false, STR(""), 0 },
        { "behind the packet", STR("\0"), 1, false, STR(""), 0 },
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct str packet = test_edge(cases[i].packet);
        struct name_wire name;
        size_t at = cases[i].at;
        test_case(t, cases[i].why);
        EXPECT(t, name_take(packet, &at, &name) == cases[i].ok);
        if (cases[i].ok) {
            char memory[NAME_WIRE_MAX];
            struct text text = text_init(memory, sizeof memory);
            EXPECT(t, name_put_text(&text, &name));
            EXPECT_STR(t, text_str(&text), cases[i].name);
            EXPECT_INT(t, at, cases[i].behind);
        } else {
            EXPECT_INT(t, at, cases[i].at);
        }
        test_edge_free(packet);
    }
}

static void
bounds_what_a_name_costs(struct test *t)
{
    unsigned char packet[2000] = { 0 };
    struct name_wire name;
    size_t at = 0;

    /* 255 bytes on the wire are a name, 257 are not. */
    for (size_t i = 0; i < 254; i += 2)
        memcpy(packet + i, "\1a", 2);
    EXPECT(t, name_take(str_new(packet, sizeof packet), &at, &name));
    EXPECT_INT(t, name.len, 255);
    memcpy(packet + 254, "\1a", 3);
    at = 0;
    EXPECT(t, !name_take(str_new(packet, sizeof packet), &at, &name));

    /* A ladder of pointers, each one allowed by itself. */
    memset(packet, 0, sizeof packet);
    for (size_t i = 2; i + 1 < sizeof packet; i += 2) {
        packet[i] = (unsigned char)(0xc0 | (i - 2) >> 8);
        packet[i + 1] = (unsigned char)(i - 2);
    }
    at = 40;
    EXPECT(t, name_take(str_new(packet, sizeof packet), &at, &name));
    at = 1998;
    EXPECT(t, !name_take(str_new(packet, sizeof packet), &at, &name));
}

static void
reverses(struct test *t)
{
    static const struct {
        const char *why;
        struct str ip, want;
    } cases[] = {
        { "IPv4", STR("192.0.2.1"), STR("1.2.0.192.in-addr.arpa") },
        { "longest IPv4", STR("255.254.253.252"), STR("252.253.254.255.in-addr.arpa") },
        { "IPv6", STR("2001:db8::567:89ab"),
          STR("b.a.9.8.7.6.5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa") },
        { "IPv4-mapped", STR("::ffff:192.0.2.1"), STR("1.2.0.192.in-addr.arpa") },
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char memory[NAME_REVERSE_MAX];
        struct text text = text_init(memory, sizeof memory);
        struct address address;
        test_case(t, cases[i].why);
        EXPECT(t, address_from_ip(cases[i].ip, &address));
        name_put_reverse(&text, &address);
        EXPECT(t, !text.full);
        EXPECT_STR(t, text_str(&text), cases[i].want);
    }
}

TEST_MAIN({ "valid names", valid_names }, { "compares", compares },
          { "text and wire and back", text_and_wire_and_back }, { "takes compressed names", takes_compressed_names },
          { "bounds what a name costs", bounds_what_a_name_costs }, { "reverses", reverses })
