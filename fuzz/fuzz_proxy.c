/*
 * fuzz_proxy - PROXY headers as proxy_read() takes them off a connection, in pieces of any size.
 *
 * Aims at: net/proxy.c
 * Seeds:   net/proxy_test.c
 * Choices: 1
 * Longest: 4200
 * Test:    20000 runs
 *
 * What is read is the same however it comes, and no octet more than the header has; a header that is cut anywhere is not
 * whole; and who is told of has an IP address, which a version 1 line made of it tells of again.
 */
#include "fuzz.h"

#include "net/proxy.h"
#include "world.h"

struct reading {
    struct str input;
    struct proxy_header header;
    struct err e;
    struct str why;
    size_t left; /* octets that were not read */
};

static void
read_one(struct rt *rt, void *arg)
{
    struct reading *r = arg;
    struct stream *proxy, *ours;
    char rest[512];
    size_t got = 1;

    world_pair(rt, &proxy, &ours);
    CHECK(!err_is(stream_write(proxy, r->input, FOREVER)));
    stream_shut_down(proxy);
    r->e = proxy_read(ours, within(rt, LIMIT_PROXY_NS), &r->header, &r->why);
    while (got > 0 && !err_is(stream_read(ours, rest, sizeof rest, FOREVER, &got)))
        r->left += got;
    stream_close(proxy);
    stream_close(ours);
}

static void
check_told_again(const struct proxy_header *h, struct arena *arena)
{
    struct text line = fuzz_text(arena, PROXY_LINE_MAX);
    struct proxy_header again;
    struct str why;
    size_t len;

    /* A line tells of both ends in one family. */
    if (!h->told || h->client.family != h->local.family)
        return;
    CHECK(h->client.family == ADDRESS_IPV4 || h->client.family == ADDRESS_IPV6);
    text_put(&line, h->client.family == ADDRESS_IPV4 ? S("PROXY TCP4 ") : S("PROXY TCP6 "));
    address_put_ip(&line, &h->client);
    text_put_byte(&line, ' ');
    address_put_ip(&line, &h->local);
    text_putf(&line, " %u %u\r\n", h->client.port, h->local.port);
    CHECK(!line.full);
    CHECK(proxy_parse(text_str(&line), &len, &again, &why) == PROXY_WHOLE && len == line.len);
    CHECK(again.told && address_eq(&again.client, &h->client) && address_eq(&again.local, &h->local));
}

void
fuzz_one(struct str input, struct arena *arena)
{
    uint8_t step = fuzz_choice(&input);
    struct proxy_header header;
    struct str why = { 0 };
    size_t len = 0, more;
    struct reading reading = { .input = input };

    enum proxy_state state = proxy_parse(input, &len, &header, &why);
    world_rules = (struct world_rules){ .read_max = step };
    world_run(read_one, &reading);
    if (state == PROXY_WHOLE) {
        CHECK(len <= input.len && len <= PROXY_HEADER_MAX);
        CHECK(!err_is(reading.e) && reading.left == input.len - len);
        CHECK(reading.header.told == header.told && address_eq(&reading.header.client, &header.client));
        check_told_again(&header, arena);
        struct str cut = str_slice(input, 0, len - 1 - step % len);
        CHECK(proxy_parse(cut, &more, &header, &why) == PROXY_MORE && more > cut.len && more <= len);
    } else if (state == PROXY_BAD) {
        CHECK(why.len > 0 && reading.e.kind == ERR_PROTOCOL && reading.why.len > 0);
    } else {
        CHECK(len > input.len && len <= PROXY_HEADER_MAX);
        CHECK(reading.e.kind == ERR_CLOSED && reading.left == 0);
    }
}
