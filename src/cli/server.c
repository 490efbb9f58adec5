/* server - see server.h. */
#include "cli/server.h"

#define LOOK_UP_NS (20 * SECOND)

int
server_find(struct rt *rt, const struct verb *verb, struct str word, uint16_t default_port, struct server *out)
{
    struct server s = { .word = word, .count = 1 };
    uint64_t port = default_port;
    struct str host = word;

    *out = s;
    if (address_parse(word, &out->address[0]))
        return EXIT_WELL;
    if (address_from_ip(word, &out->address[0])) {
        out->address[0].port = default_port;
        return EXIT_WELL;
    }
    size_t colon = str_find_last_byte(word, ':');
    if (colon < word.len) {
        host = str_slice(word, 0, colon);
        if (!str_to_u64(str_from(word, colon + 1), &port) || port == 0 || port > UINT16_MAX)
            return cli_fail(verb, EXIT_USAGE, "\"%.*s\" is not HOST:PORT", STR_ARG(word));
    }
    struct err e = terminal_addresses(rt, host, within(rt, LOOK_UP_NS), out->address, SERVER_ADDRESSES_MAX,
                                      &out->count);
    if (err_is(e))
        return cli_fail(verb, e.kind == ERR_TIMEOUT ? EXIT_AGAIN : EXIT_NO_HOST, "no address for \"%.*s\"",
                        STR_ARG(host));
    for (size_t i = 0; i < out->count; i++)
        out->address[i].port = (uint16_t)port;
    return EXIT_WELL;
}

struct err
server_connect(struct rt *rt, const struct server *s, int64_t until, struct stream **out)
{
    struct err e = ERR(ERR_NOT_FOUND, "connect");

    for (size_t i = 0; i < s->count; i++) {
        e = stream_connect(rt, &s->address[i], NULL, until, out);
        if (!err_is(e) || e.kind == ERR_CANCELLED)
            break;
    }
    return e;
}
