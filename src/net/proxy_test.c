/* PROXY headers: our own cases, each cut at every octet, and the shared table. */
#include "net/proxy.h"

#include "base/test.h"

#include <stdio.h>
#include <string.h>

#define V2(command, family, len) "\r\n\r\n\0\r\nQUIT\n" command family len
#define ENDS4 "\xc0\0\2\1\xc6\x33\x64\2\xdc\4\0\x19"
#define IP6(last) "\x20\1\xd\xb8\0\0\0\0\0\0\0\0\0\0\0" last
#define MAPPED(a) "\0\0\0\0\0\0\0\0\0\0\xff\xff" a
#define ZEROS(x) x x x x x x x x

/* What is left of a case: "192.0.2.1:56324 198.51.100.2:25", "nobody", or why it is refused. */
static const struct { const char *why; struct str in, told; } cases[] = {
    { "IPv4", STR("PROXY TCP4 192.0.2.1 198.51.100.2 56324 25\r\n"), STR("192.0.2.1:56324 198.51.100.2:25") },
    { "the shortest of IPv4", STR("PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n"), STR("1.1.1.1:1 2.2.2.2:2") },
    { "IPv6", STR("PROXY TCP6 2001:db8::1 2001:db8::2 0 65535\r\n"), STR("[2001:db8::1]:0 [2001:db8::2]:65535") },
    { "the shortest of IPv6", STR("PROXY TCP6 :: :: 0 0\r\n"), STR("[::]:0 [::]:0") },
    { "mapped IPv4", STR("PROXY TCP6 ::ffff:192.0.2.1 ::ffff:198.51.100.2 1 2\r\n"), STR("192.0.2.1:1 198.51.100.2:2") },
    { "the longest of IPv6",
      STR("PROXY TCP6 2001:1db8:1111:1111:1111:1111:1111:1111 2001:1db8:1111:1111:1111:1111:1111:1112 65535 65535\r\n"),
      STR("[2001:1db8:1111:1111:1111:1111:1111:1111]:65535 [2001:1db8:1111:1111:1111:1111:1111:1112]:65535") },
    { "unknown", STR("PROXY UNKNOWN\r\n"), STR("nobody") },
    { "unknown with words", STR("PROXY UNKNOWN ffff::1 1.2.3.4 65535 65535\r\n"), STR("nobody") },
    { "unknown and more letters", STR("PROXY UNKNOWNS\r\n"), STR("the PROXY line is wrong") },
    { "another transport", STR("PROXY UDP4 192.0.2.1 198.51.100.2 1 2\r\n"), STR("the PROXY line is wrong") },
    { "lower case", STR("PROXY tcp4 192.0.2.1 198.51.100.2 1 2\r\n"), STR("the PROXY line is wrong") },
    { "families crossed", STR("PROXY TCP4 2001:db8::1 198.51.100.2 1 2\r\n"), STR("the PROXY line is wrong") },
    { "and the other way", STR("PROXY TCP6 192.0.2.1 2001:db8::2 1 2\r\n"), STR("the PROXY line is wrong") },
    { "a scope", STR("PROXY TCP6 fe80::1%lo 2001:db8::2 1 2\r\n"), STR("the PROXY line is wrong") },
    { "leading zero in an address", STR("PROXY TCP4 192.0.2.01 198.51.100.2 1 2\r\n"), STR("the PROXY line is wrong") },
    { "leading zero in a port", STR("PROXY TCP4 192.0.2.1 198.51.100.2 01 2\r\n"), STR("the PROXY line is wrong") },
    { "a port too large", STR("PROXY TCP4 192.0.2.1 198.51.100.2 65536 2\r\n"), STR("the PROXY line is wrong") },
    { "a signed port", STR("PROXY TCP4 192.0.2.1 198.51.100.2 +1 2\r\n"), STR("the PROXY line is wrong") },
    { "a port is missing", STR("PROXY TCP4 192.0.2.1 198.51.100.2 56324\r\n"), STR("the PROXY line is wrong") },
    { "one word more", STR("PROXY TCP4 192.0.2.1 198.51.100.2 1 2 3\r\n"), STR("the PROXY line is wrong") },
    { "two spaces", STR("PROXY TCP4  192.0.2.1 198.51.100.2 1 2\r\n"), STR("the PROXY line is wrong") },
    { "a space at the end", STR("PROXY TCP4 192.0.2.1 198.51.100.2 1 2 \r\n"), STR("the PROXY line is wrong") },
    { "a tab", STR("PROXY TCP4 192.0.2.1\t198.51.100.2 1 2\r\n"), STR("the PROXY line is wrong") },
    { "LF alone", STR("PROXY TCP4 192.0.2.1 198.51.100.2 56324 25\n"), STR("an LF alone ends the PROXY line") },
    { "CR alone", STR("PROXY TCP4 192.0.2.1 198.51.100.2 56324 25\rX"), STR("a CR alone in the PROXY line") },
    { "CR twice", STR("PROXY UNKNOWN 192.0.2.1\r\r\n"), STR("a CR alone in the PROXY line") },
    { "107 octets", STR("PROXY UNKNOWN 4567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234\r\n"),
      STR("nobody") },
    { "108 octets", STR("PROXY UNKNOWN 45678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345\r\n"),
      STR("the PROXY line is too long") },
    { "SMTP", STR("EHLO client.test\r\n"), STR("no PROXY header") },
    { "a handshake of TLS", STR("\x16\3\1"), STR("no PROXY header") },
    { "another word", STR("PROXYS TCP4"), STR("no PROXY header") },

    { "version 2, IPv4", STR(V2("\x21", "\x11", "\0\xc") ENDS4), STR("192.0.2.1:56324 198.51.100.2:25") },
    { "version 2, IPv6", STR(V2("\x21", "\x21", "\0\x24") IP6("\1") IP6("\2") "\xdc\4\0\x19"),
      STR("[2001:db8::1]:56324 [2001:db8::2]:25") },
    { "version 2, mapped", STR(V2("\x21", "\x21", "\0\x24") MAPPED("\xc0\0\2\1") MAPPED("\xc6\x33\x64\2") "\xdc\4\0\x19"),
      STR("192.0.2.1:56324 198.51.100.2:25") },
    { "LOCAL", STR(V2("\x20", "\0", "\0\0")), STR("nobody") },
    { "LOCAL, whatever follows", STR(V2("\x20", "\x77", "\0\xf") ENDS4 "\3\0\xff"), STR("nobody") },
    { "no family", STR(V2("\x21", "\0", "\0\0")), STR("nobody") },
    { "a datagram over a stream", STR(V2("\x21", "\x12", "\0\xc") ENDS4), STR("nobody") },
    { "a Unix socket", STR(V2("\x21", "\x31", "\0\xd8") ZEROS("/run/a/socket/that/is/long/")), STR("nobody") },
    { "a Unix socket cut short", STR(V2("\x21", "\x31", "\0\xc") ENDS4), STR("the PROXY header is too short for its addresses") },
    { "an unknown family", STR(V2("\x21", "\x41", "\0\xc") ENDS4), STR("the PROXY header has an unknown family") },
    { "an unknown transport", STR(V2("\x21", "\x13", "\0\xc") ENDS4), STR("the PROXY header has an unknown family") },
    { "version 1 in binary", STR(V2("\x11", "\x11", "\0\xc") ENDS4), STR("the PROXY header has another version or command") },
    { "an unknown command", STR(V2("\x22", "\x11", "\0\xc") ENDS4), STR("the PROXY header has another version or command") },
    { "too short", STR(V2("\x21", "\x11", "\0\xb") "\xc0\0\2\1\xc6\x33\x64\2\xdc\4\0"),
      STR("the PROXY header is too short for its addresses") },
    { "too long for us", STR(V2("\x21", "\x11", "\xf\xf1")), STR("the PROXY header is too long") },
    { "NOOP", STR(V2("\x21", "\x11", "\0\x12") ENDS4 "\4\0\3pad"), STR("192.0.2.1:56324 198.51.100.2:25") },
    { "an empty field", STR(V2("\x21", "\x11", "\0\xf") ENDS4 "\4\0\0"), STR("192.0.2.1:56324 198.51.100.2:25") },
    { "a field of nobody's", STR(V2("\x21", "\x11", "\0\x10") ENDS4 "\xea\0\1x"), STR("192.0.2.1:56324 198.51.100.2:25") },
    { "a field too long", STR(V2("\x21", "\x11", "\0\x12") ENDS4 "\4\0\4pad"),
      STR("a field reaches beyond the PROXY header") },
    { "half a field", STR(V2("\x21", "\x11", "\0\xe") ENDS4 "\4\0"), STR("a field reaches beyond the PROXY header") },
    { "a checksum", STR(V2("\x21", "\x11", "\0\x1b") ENDS4 "\3\0\4\xf5\x43\xf5\x8a" "\2\0\5mx.ex"),
      STR("192.0.2.1:56324 198.51.100.2:25 name=mx.ex") },
    { "a wrong checksum", STR(V2("\x21", "\x11", "\0\x1b") ENDS4 "\3\0\4\x00\x11\x22\x33" "\2\0\5mx.ex"),
      STR("the PROXY header's checksum is wrong") },
    { "a short checksum", STR(V2("\x21", "\x11", "\0\x12") ENDS4 "\3\0\3\x00\x11\x22"),
      STR("the PROXY header's checksum is wrong") },
    { "TLS with the proxy", STR(V2("\x21", "\x11", "\0\x26") ENDS4 "\x20\0\x17\1\0\0\0\0" "\x21\0\7TLSv1.3" "\x22\0\5anna1"),
      STR("192.0.2.1:56324 198.51.100.2:25 tls=TLSv1.3") },
    { "TLS cut short", STR(V2("\x21", "\x11", "\0\x13") ENDS4 "\x20\0\4\1\0\0\0"),
      STR("the PROXY header's field about TLS is wrong") },
    { "a field within TLS too long", STR(V2("\x21", "\x11", "\0\x18") ENDS4 "\x20\0\x9\1\0\0\0\0" "\x21\0\2T"),
      STR("the PROXY header's field about TLS is wrong") },
};
enum { CASES = sizeof cases / sizeof *cases };

static struct str
told(const struct proxy_header *h, struct text *t)
{
    if (!h->told)
        return S("nobody");
    address_put(t, &h->client);
    text_put_byte(t, ' ');
    address_put(t, &h->local);
    if (h->server_name_len)
        text_putf(t, " name=%.*s", h->server_name_len, h->server_name);
    if (h->tls_len)
        text_putf(t, " tls=%.*s", h->tls_len, h->tls);
    return text_str(t);
}

static struct str
parsed(struct str in, struct text *t, size_t *out_len)
{
    struct proxy_header h;
    struct str why = { 0 };

    switch (proxy_parse(in, out_len, &h, &why)) {
    case PROXY_WHOLE:
        return told(&h, t);
    case PROXY_MORE:
        return S("more");
    default:
        return why;
    }
}

static void
parses(struct test *t)
{
    for (size_t i = 0; i < CASES; i++) {
        char memory[200];
        struct text text = text_init(memory, sizeof memory);
        size_t len = 0;
        struct str edge = test_edge(cases[i].in);

        test_case(t, cases[i].why);
        EXPECT_STR(t, parsed(edge, &text, &len), cases[i].told);
        test_edge_free(edge);
    }
}

/* As the reader does it: never an octet more than the header has, whatever comes behind; and cut anywhere, it is not
 * whole yet, or refused for the same reason. */
static void
asks_for_what_it_needs(struct test *t)
{
    for (size_t i = 0; i < CASES; i++) {
        char memory[200];
        struct str in = cases[i].in;
        size_t have = 0, wanted = 0, reads = 0;
        bool beyond = false;
        struct str got;

        test_case(t, cases[i].why);
        for (;; reads++) {
            struct text text = text_init(memory, sizeof memory);
            struct str edge = test_edge(str_slice(in, 0, have));
            got = parsed(edge, &text, &wanted);
            test_edge_free(edge);
            if (!str_eq(got, S("more")) || have == in.len)
                break;
            EXPECT(t, wanted > have && wanted <= PROXY_HEADER_MAX);
            beyond = beyond || wanted > in.len;
            have = wanted < in.len ? wanted : in.len;
        }
        EXPECT(t, !beyond || !(byte_is_digit(got.ptr[0]) || got.ptr[0] == '[' || str_eq(got, S("nobody"))));
        EXPECT_STR(t, got, cases[i].told);
        EXPECT(t, reads <= 20 || str_starts(in, S("PROXY UNKNOWN")));
        for (size_t cut = 0; cut < in.len; cut++) {
            struct text text = text_init(memory, sizeof memory);
            struct str edge = test_edge(str_slice(in, 0, cut));
            got = parsed(edge, &text, &wanted);
            EXPECT(t, str_eq(got, S("more")) ? wanted > cut : str_eq(got, cases[i].told));
            test_edge_free(edge);
        }
    }
}

/* What stands behind a header is not looked at. */
static void
leaves_what_follows(struct test *t)
{
    static const struct str headers[] = {
        STR("PROXY TCP4 192.0.2.1 198.51.100.2 56324 25\r\n"), STR(V2("\x21", "\x11", "\0\xc") ENDS4),
        STR(V2("\x20", "\0", "\0\0")), STR("PROXY UNKNOWN\r\n"),
    };
    static const struct str behind[] = { STR("EHLO a\r\n"), STR("\n"), STR("\r\n\r\n\0\r\nQUIT\n"), STR("\3\0\4") };

    for (size_t i = 0; i < sizeof headers / sizeof *headers; i++)
        for (size_t j = 0; j < sizeof behind / sizeof *behind; j++) {
            char memory[200], joined[200];
            struct text text = text_init(memory, sizeof memory), both = text_init(joined, sizeof joined);
            size_t len = 0;

            text_put(&both, headers[i]);
            text_put(&both, behind[j]);
            EXPECT(t, !str_eq(parsed(text_str(&both), &text, &len), S("more")));
            EXPECT_INT(t, len, headers[i].len);
        }
}

/* ---- ../shared/conformance/proxy-protocol/vectors.json ---- */

/* The value behind "key": " in this case, or empty. */
static struct str
value_of(struct str object, struct str key)
{
    size_t at = str_find(object, key);
    struct str rest = str_from(object, at + key.len);

    return at < object.len && str_take(&rest, S(": \"")) ? str_cut(&rest, '"') : S("");
}

static void
agrees_with_the_shared_table(struct test *t)
{
    struct str file = test_shared_file(t, "conformance/proxy-protocol/vectors.json"), rest = file;
    size_t count = 0;

    if (str_is_absent(file))
        return;
    for (size_t at; (at = str_find(rest, S("\"id\""))) < rest.len; rest = str_from(rest, 1)) {
        rest = str_from(rest, at);
        struct str object = str_slice(rest, 0, str_find_byte(rest, '}'));
        struct str hex = value_of(object, S("\"hex\"")), expect = value_of(object, S("\"expect\""));
        char id[64], memory[200], wanted_memory[200], bytes[512];
        struct text name = text_init(id, sizeof id), text = text_init(memory, sizeof memory);
        struct text in = text_init(bytes, sizeof bytes), wanted = text_init(wanted_memory, sizeof wanted_memory);
        struct proxy_header header;
        struct str why = { 0 };
        size_t len;

        text_put(&name, value_of(object, S("\"id\"")));
        test_case(t, text_cstr(&name));
        for (size_t i = 0; i + 1 < hex.len; i += 2)
            text_put_byte(&in, (char)(byte_hex(hex.ptr[i]) << 4 | byte_hex(hex.ptr[i + 1])));
        enum proxy_state state = proxy_parse(text_str(&in), &len, &header, &why);
        EXPECT_INT(t, state, str_eq(expect, S("abort")) ? PROXY_BAD : PROXY_WHOLE);
        if (str_eq(expect, S("accept"))) {
            text_put(&wanted, value_of(object, S("\"source\"")));
            text_put_byte(&wanted, ' ');
            text_put(&wanted, value_of(object, S("\"destination\"")));
            EXPECT_STR(t, told(&header, &text), text_str(&wanted));
        } else if (state == PROXY_WHOLE) {
            EXPECT(t, !header.told);
        }
        count++;
    }
    test_case(t, NULL);
    EXPECT_INT(t, count, 14);
    printf("# %zu cases of the shared table\n", count);
    test_file_free(file);
}

TEST_MAIN({ "parses", parses }, { "asks for what it needs, and no more", asks_for_what_it_needs },
          { "leaves what follows", leaves_what_follows }, { "agrees with the shared table", agrees_with_the_shared_table })
