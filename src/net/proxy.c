/* proxy - see proxy.h. */
#include "net/proxy.h"

#include "base/check.h"

#include <string.h>

enum {
    SHORTEST_LINE = sizeof "PROXY UNKNOWN\r\n" - 1,
    FIXED = 16,  /* version 2: signature, version and command, family and transport, length of the rest */
    IPV4_BYTES = 12, IPV6_BYTES = 36, UNIX_BYTES = 216,
    TLV_SERVER_NAME = 0x02, TLV_CRC32C = 0x03, TLV_SSL = 0x20, TLV_SSL_VERSION = 0x21,
};
static const struct str signature = STR("\r\n\r\n\0\r\nQUIT\n");

static_assert(PROXY_HEADER_MAX >= FIXED + 536 && PROXY_HEADER_MAX > PROXY_LINE_MAX, "what any sender may send");

static enum proxy_state parse_line(struct str came, size_t *out_len, struct proxy_header *out, struct str *out_why);
static enum proxy_state parse_binary(struct str came, size_t *out_len, struct proxy_header *out, struct str *out_why);

static enum proxy_state
more(size_t *out_len, size_t least)
{
    *out_len = least;
    return PROXY_MORE;
}

static enum proxy_state
bad(struct str *out_why, struct str why)
{
    *out_why = why;
    return PROXY_BAD;
}

enum proxy_state
proxy_parse(struct str came, size_t *out_len, struct proxy_header *out, struct str *out_why)
{
    static const struct str word = STR("PROXY ");

    *out = (struct proxy_header){ .told = false };
    if (str_starts(came, signature))
        return parse_binary(came, out_len, out, out_why);
    if (str_starts(came, word))
        return parse_line(came, out_len, out, out_why);
    if (str_starts(signature, came) || str_starts(word, came))
        return more(out_len, SHORTEST_LINE);
    return bad(out_why, S("no PROXY header"));
}

/* ---- version 1 --------------------------------------------------------------------------------------------------- */

/* How long a line is at least that has not ended yet: a field is a space and an octet. Never more than there is, but so
 * that few reads are needed. */
static size_t
least_line(struct str line)
{
    size_t spaces = 0;

    if (line.len < SHORTEST_LINE)
        return SHORTEST_LINE;
    if (line.ptr[line.len - 1] == '\r')
        return line.len + 1;
    for (size_t i = 0; i < line.len; i++)
        spaces += line.ptr[i] == ' ';
    return line.len + 2 + (str_starts(line, S("PROXY TCP")) && spaces < 5 ? 2 * (5 - spaces) : 0);
}

static bool
take_port(struct str word, uint16_t *out)
{
    uint64_t port;

    if (!str_to_u64(word, &port) || port > UINT16_MAX || (word.len > 1 && word.ptr[0] == '0'))
        return false;
    *out = (uint16_t)port;
    return true;
}

static bool
take_ip(struct str word, enum address_family family, struct address *out)
{
    return !str_has_byte(word, '%') && address_from_ip(word, out) && out->family == family;
}

/* "TCP4 192.0.2.1 198.51.100.2 56324 25": one space between words, and nothing else. */
static bool
take_fields(struct str fields, struct proxy_header *out)
{
    struct str kind = str_cut(&fields, ' ');
    uint16_t client_port, local_port;

    if (str_eq(kind, S("UNKNOWN")))
        return true; /* whatever follows */
    enum address_family family = str_eq(kind, S("TCP4")) ? ADDRESS_IPV4 : str_eq(kind, S("TCP6")) ? ADDRESS_IPV6 : ADDRESS_NONE;
    if (family == ADDRESS_NONE || !take_ip(str_cut(&fields, ' '), family, &out->client) ||
        !take_ip(str_cut(&fields, ' '), family, &out->local) || !take_port(str_cut(&fields, ' '), &client_port) ||
        !take_port(fields, &local_port))
        return false;
    out->client.port = client_port;
    out->local.port = local_port;
    out->client = address_unmap(out->client);
    out->local = address_unmap(out->local);
    out->told = true;
    return true;
}

static enum proxy_state
parse_line(struct str came, size_t *out_len, struct proxy_header *out, struct str *out_why)
{
    struct str line = str_slice(came, 0, PROXY_LINE_MAX);
    size_t end = str_find_byte(line, '\n'), cr = str_find_byte(line, '\r');

    if (cr + 1 < end && cr + 1 < line.len)
        return bad(out_why, S("a CR alone in the PROXY line"));
    if (end < line.len && cr + 1 != end)
        return bad(out_why, S("an LF alone ends the PROXY line"));
    if (end == line.len && line.len == PROXY_LINE_MAX)
        return bad(out_why, S("the PROXY line is too long"));
    if (end == line.len) {
        size_t least = least_line(line);
        return more(out_len, least < PROXY_LINE_MAX ? least : PROXY_LINE_MAX);
    }
    *out_len = end + 1;
    return take_fields(str_slice(line, sizeof "PROXY " - 1, cr), out) ? PROXY_WHOLE
                                                                     : bad(out_why, S("the PROXY line is wrong"));
}

/* ---- version 2 --------------------------------------------------------------------------------------------------- */

static uint8_t
byte_at(struct str s, size_t i)
{
    return (uint8_t)s.ptr[i];
}

static uint16_t
big_endian(struct str s, size_t at)
{
    return (uint16_t)(byte_at(s, at) << 8 | byte_at(s, at + 1));
}

/* Castagnoli's polynomial. A bit at a time: it is once a connection, and seldom there. */
static uint32_t
crc32c(uint32_t crc, struct str bytes)
{
    for (size_t i = 0; i < bytes.len; i++) {
        crc ^= byte_at(bytes, i);
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0x82F63B78u : 0);
    }
    return crc;
}

/* The sum is made of the whole header, with zeros in its own place. */
static bool
sum_is_right(struct str header, struct str sum)
{
    size_t at = (size_t)(sum.ptr - header.ptr);
    uint32_t crc = crc32c(UINT32_MAX, str_slice(header, 0, at));

    crc = crc32c(crc, S("\0\0\0\0"));
    crc = ~crc32c(crc, str_from(header, at + sum.len));
    return (uint32_t)big_endian(sum, 0) << 16 == (crc & 0xFFFF0000u) && big_endian(sum, 2) == (crc & 0xFFFFu);
}

/* Takes a type, a length and a value off the front of what is left. */
static bool
take_tlv(struct str *rest, uint8_t *out_type, struct str *out_value)
{
    if (rest->len < 3 || rest->len - 3 < big_endian(*rest, 1))
        return false;
    *out_type = byte_at(*rest, 0);
    *out_value = str_slice(*rest, 3, 3 + (size_t)big_endian(*rest, 1));
    *rest = str_from(*rest, 3 + out_value->len);
    return true;
}

/* For the log: what is too long is cut. */
static uint8_t
keep(char *memory, size_t cap, struct str value)
{
    value = str_slice(value, 0, cap);
    memcpy(memory, value.ptr, value.len);
    return (uint8_t)value.len;
}

static bool
take_ssl(struct str rest, struct proxy_header *out)
{
    enum { CLIENT_AND_VERIFY = 5 };
    struct str value;
    uint8_t type;

    if (rest.len < CLIENT_AND_VERIFY)
        return false;
    rest = str_from(rest, CLIENT_AND_VERIFY);
    while (rest.len > 0) {
        if (!take_tlv(&rest, &type, &value))
            return false;
        if (type == TLV_SSL_VERSION)
            out->tls_len = keep(out->tls, sizeof out->tls, value);
    }
    return true;
}

/* NULL pointer: all is well. */
static struct str
take_tlvs(struct str header, struct str rest, struct proxy_header *out)
{
    struct str value;
    uint8_t type;

    while (rest.len > 0) {
        if (!take_tlv(&rest, &type, &value))
            return S("a field reaches beyond the PROXY header");
        if (type == TLV_SERVER_NAME)
            out->server_name_len = keep(out->server_name, sizeof out->server_name, value);
        else if (type == TLV_SSL && !take_ssl(value, out))
            return S("the PROXY header's field about TLS is wrong");
        else if (type == TLV_CRC32C && (value.len != 4 || !sum_is_right(header, value)))
            return S("the PROXY header's checksum is wrong");
    }
    return (struct str){ NULL, 0 };
}

static void
take_addresses(struct str bytes, size_t size, struct proxy_header *out)
{
    out->client.family = out->local.family = size == 4 ? ADDRESS_IPV4 : ADDRESS_IPV6;
    memcpy(out->client.ip, bytes.ptr, size);
    memcpy(out->local.ip, bytes.ptr + size, size);
    out->client.port = big_endian(bytes, 2 * size);
    out->local.port = big_endian(bytes, 2 * size + 2);
    out->client = address_unmap(out->client);
    out->local = address_unmap(out->local);
    out->told = true;
}

static enum proxy_state
parse_binary(struct str came, size_t *out_len, struct proxy_header *out, struct str *out_why)
{
    enum { LOCAL = 0x20, PROXY = 0x21, UNSPECIFIED = 0x00, TCP4 = 0x11, UDP4, TCP6 = 0x21, UDP6, UNIX_STREAM = 0x31, UNIX_DGRAM };

    if (came.len < FIXED)
        return more(out_len, FIXED);
    uint8_t command = byte_at(came, 12), family = byte_at(came, 13);
    size_t len = FIXED + (size_t)big_endian(came, 14), addresses;
    if (command != LOCAL && command != PROXY)
        return bad(out_why, S("the PROXY header has another version or command"));
    if (len > PROXY_HEADER_MAX)
        return bad(out_why, S("the PROXY header is too long"));
    if (came.len < len)
        return more(out_len, len);
    *out_len = len;
    if (command == LOCAL) /* the proxy itself, looking whether we are there */
        return PROXY_WHOLE;
    switch (family) {
    case UNSPECIFIED:
        return PROXY_WHOLE;
    case TCP4:
    case UDP4:
        addresses = IPV4_BYTES;
        break;
    case TCP6:
    case UDP6:
        addresses = IPV6_BYTES;
        break;
    case UNIX_STREAM:
    case UNIX_DGRAM:
        addresses = UNIX_BYTES;
        break;
    default:
        return bad(out_why, S("the PROXY header has an unknown family"));
    }
    struct str header = str_slice(came, 0, len), body = str_from(header, FIXED);
    if (body.len < addresses)
        return bad(out_why, S("the PROXY header is too short for its addresses"));
    struct str why = take_tlvs(header, str_from(body, addresses), out);
    if (!str_is_absent(why))
        return bad(out_why, why);
    if (family == TCP4 || family == TCP6)
        take_addresses(body, family == TCP4 ? 4 : 16, out);
    return PROXY_WHOLE;
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

struct err
proxy_read(struct stream *stream, int64_t until, struct proxy_header *out, struct str *out_why)
{
    struct mem *mem = rt_mem(stream_rt(stream));
    char *own_memory = mem_buffer(mem, PROXY_HEADER_MAX);
    size_t have = 0, wanted, got;
    enum proxy_state state;
    struct err e = OK;

    while ((state = proxy_parse(str_new(own_memory, have), &wanted, out, out_why)) == PROXY_MORE && !err_is(e)) {
        CHECK(wanted > have && wanted <= PROXY_HEADER_MAX);
        e = stream_read(stream, own_memory + have, wanted - have, until, &got);
        if (!err_is(e) && got == 0)
            e = ERR(ERR_CLOSED, "read a PROXY header");
        have += err_is(e) ? 0 : got;
    }
    if (state == PROXY_BAD)
        e = ERR(ERR_PROTOCOL, "read a PROXY header");
    CHECK(state != PROXY_WHOLE || wanted == have);
    mem_free(mem, own_memory, PROXY_HEADER_MAX);
    return e;
}
