/* What follows XCLIENT. */
#include "smtp/xclient.h"

#include "base/test.h"

#include <string.h>

static void
put_state(struct text *t, const char *name, uint8_t state, struct str value)
{
    static const char states[] = { ' ', ' ', '-', '?' };

    if (state == XCLIENT_KEPT)
        return;
    if (t->len > 0)
        text_put_byte(t, ' ');
    text_put(t, str_from_cstr(name));
    if (state == XCLIENT_SAID)
        text_put_byte(t, '=');
    else
        text_put_byte(t, states[state]);
    text_put(t, value);
}

static void
put_ip(struct text *t, const char *name, uint8_t state, const struct address *a)
{
    char memory[64];
    struct text ip = text_init(memory, sizeof memory);

    if (state == XCLIENT_SAID)
        address_put_ip(&ip, a);
    put_state(t, name, state, text_str(&ip));
}

static void
put_port(struct text *t, const char *name, uint8_t state, uint16_t port)
{
    char memory[8];
    struct text number = text_init(memory, sizeof memory);

    if (state == XCLIENT_SAID)
        text_put_u64(&number, port);
    put_state(t, name, state, text_str(&number));
}

static void
parses(struct test *t)
{
    static const struct { const char *why; struct str in, want; } cases[] = {
        { "address and name", STR("NAME=spike.porcupine.org ADDR=168.100.189.2"), STR("name=spike.porcupine.org addr=168.100.189.2") },
        { "lower case", STR("name=a.test addr=192.0.2.1"), STR("name=a.test addr=192.0.2.1") },
        { "all of them", STR("NAME=a.test ADDR=192.0.2.1 PORT=1234 PROTO=ESMTP HELO=h LOGIN=u DESTADDR=198.51.100.1 DESTPORT=25"),
          STR("name=a.test addr=192.0.2.1 port=1234 helo=h login=u dest=198.51.100.1 dport=25") },
        { "IPv6", STR("ADDR=IPV6:2001:db8::1 DESTADDR=ipv6:::1"), STR("addr=2001:db8::1 dest=::1") },
        { "IPv6 without its tag", STR("ADDR=2001:db8::1"), STR("addr=2001:db8::1") },
        { "mapped", STR("ADDR=IPV6:::ffff:192.0.2.1"), STR("addr=192.0.2.1") },
        { "nothing known", STR("NAME=[UNAVAILABLE] ADDR=[UNAVAILABLE] PORT=[UNAVAILABLE] HELO=[UNAVAILABLE] LOGIN=[UNAVAILABLE] "
                               "PROTO=[UNAVAILABLE] DESTADDR=[UNAVAILABLE] DESTPORT=[UNAVAILABLE]"),
          STR("name- addr- port- helo- login- dest- dport-") },
        { "nothing for now", STR("NAME=[TEMPUNAVAIL] ADDR=[tempunavail] PORT=[TEMPUNAVAIL]"), STR("name? addr? port-") },
        { "the brackets as xtext", STR("NAME=+5BUNAVAILABLE+5D"), STR("name-") },
        { "xtext", STR("LOGIN=anna+2Bx+40example.org"), STR("login=anna+x@example.org") },
        { "several spaces", STR("NAME=a.test   ADDR=192.0.2.1  "), STR("name=a.test addr=192.0.2.1") },
        { "no attribute", STR(""), STR("wrong") },
        { "unknown", STR("IDENT=1"), STR("wrong") },
        { "twice", STR("ADDR=192.0.2.1 ADDR=192.0.2.2"), STR("wrong") },
        { "no value", STR("ADDR="), STR("wrong") },
        { "no equals", STR("ADDR"), STR("wrong") },
        { "no address", STR("ADDR=client.test"), STR("wrong") },
        { "IPv4 as IPv6", STR("ADDR=IPV6:192.0.2.1"), STR("wrong") },
        { "a scope", STR("ADDR=IPV6:fe80::1%lo"), STR("wrong") },
        { "a port too large", STR("PORT=65536"), STR("wrong") },
        { "a port of letters", STR("PORT=smtp"), STR("wrong") },
        { "another protocol", STR("PROTO=LMTP"), STR("wrong") },
        { "bad xtext", STR("NAME=a+zz"), STR("wrong") },
        { "a line end", STR("HELO=a+0D+0AX"), STR("wrong") },
        { "a space", STR("LOGIN=a+20b"), STR("wrong") },
        { "a name that is none", STR("NAME=a..b"), STR("wrong") },
        { "an address for a name", STR("NAME=(x)"), STR("wrong") },
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char memory[300];
        struct text text = text_init(memory, sizeof memory);
        struct mem mem = mem_libc();
        struct arena arena;
        struct xclient x;
        struct str edge = test_edge(cases[i].in);

        test_case(t, cases[i].why);
        arena_init(&arena, &mem, 512, 4096);
        if (!xclient_parse(edge, &arena, &x)) {
            text_put(&text, S("wrong"));
        } else {
            put_state(&text, "name", x.name, x.name_value);
            put_ip(&text, "addr", x.addr, &x.addr_value);
            put_port(&text, "port", x.port, x.port_value);
            put_state(&text, "helo", x.helo, x.helo_value);
            put_state(&text, "login", x.login, x.login_value);
            put_ip(&text, "dest", x.dest_addr, &x.dest_addr_value);
            put_port(&text, "dport", x.dest_port, x.dest_port_value);
        }
        EXPECT_STR(t, text_str(&text), cases[i].want);
        arena_done(&arena);
        test_edge_free(edge);
    }
}

TEST_MAIN({ "parses", parses })
