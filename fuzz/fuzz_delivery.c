/*
 * fuzz_delivery - one attempt to deliver: hosts, addresses, connections, transactions, outcomes, with hostile servers.
 *
 * Aims at: deliver/smtp.c deliver/transaction.c deliver/attempt.c deliver/connections.c smtp/client.c
 * Seeds:   deliver/smtp_test.c smtp/client_test.c
 * Longest: 4000
 * Test:    900 runs
 * Choices: 6 bytes in front
 *
 * The first bytes choose hosts, what the resolver says, and how servers behave; then the content, and for each connection,
 * whichever comes next, what its server says, a byte 0xff between them. Every recipient gets exactly one outcome, of a known
 * kind, with words that are safe; "delivered" only if some server heard all of the message and said 2xx; the content is read
 * within its bounds.
 */
#include "fuzz.h"

#include "deliver/smtp.h"
#include "hostile.h"
#include "world.h"

enum { HOSTS = 3, RCPTS = 5, CONNECTIONS = 40, HEARD_MAX = 64 << 10 };

struct delivering {
    struct rt *rt;
    struct arena *arena;
    struct scope servers;
    struct str scripts, content;
    uint8_t dns, how, step;
    struct hostile connection[CONNECTIONS];
    size_t connections;
    bool delivered; /* somebody got a good outcome */
    struct delivery_job job;
    struct delivery_settings settings;
};

static struct err
connected(void *arg, struct rt *rt, const struct address *to, struct stream *far_end)
{
    struct delivering *d = arg;

    if ((to->ip[3] + d->dns) % 5 == 4)
        return ERR(ERR_REFUSED, "connect");
    if (d->connections == CONNECTIONS)
        return ERR(ERR_UNREACHABLE, "connect");
    struct hostile *h = &d->connection[d->connections++];
    *h = (struct hostile){ .rt = rt, .stream = far_end, .script = fuzz_field(&d->scripts), .scope = &d->servers,
                           .pace = d->how & 3, .end = (d->how >> 2) % 3, .step = 1u + d->step,
                           .heard = text_init(mem_alloc(own_mem, HEARD_MAX), HEARD_MAX) };
    scope_start(&d->servers, "hostile", hostile_run, h);
    return OK;
}

static struct err
addresses(void *arg, struct str host, unsigned families, int64_t until, struct arena *arena, struct host_result *out)
{
    struct delivering *d = arg;
    unsigned which = (unsigned)(host.ptr[1] - '0') * 3 + d->dns;

    (void)families;
    (void)until;
    *out = (struct host_result){ .status = which % 4 == 3 ? HOST_NXDOMAIN + which / 4 % 3 : HOST_OK, .why = S("why") };
    if (out->status == HOST_OK) {
        out->address_count = 1 + which % 3;
        out->addresses = arena_alloc(arena, out->address_count * sizeof *out->addresses);
        for (size_t i = 0; i < out->address_count; i++) {
            CHECK(address_from_ip(S("203.0.113.0"), &out->addresses[i]));
            out->addresses[i].ip[3] = (uint8_t)(which * 4 + i);
        }
    }
    return OK;
}

static struct err
read_content(void *arg, uint64_t offset, void *memory, size_t len, int64_t until, size_t *out_len)
{
    struct delivering *d = arg;
    struct text t = text_init(memory, len);

    (void)until;
    CHECK(offset <= d->content.len && len > 0);
    if (d->how & 128 && offset > 100)
        return ERR(ERR_IO, "read content");
    text_put(&t, str_slice(d->content, offset, offset + len));
    *out_len = t.len;
    return OK;
}

static void
check_words(struct str s)
{
    for (size_t i = 0; i < s.len; i++)
        CHECK((unsigned char)s.ptr[i] >= ' ' && s.ptr[i] != 0x7f);
}

/* Some server may have taken the message: it heard an end of data, and had a 2xx to say. */
static bool
somebody_took_it(const struct delivering *d)
{
    for (size_t i = 0; i < d->connections; i++) {
        struct str heard = text_str(&d->connection[i].heard);
        bool all = str_find(heard, S("\r\n.\r\n")) < heard.len || str_find(heard, S(" LAST\r\n")) < heard.len ||
                   d->connection[i].heard.full;
        if (all && str_has_byte(d->connection[i].script, '2'))
            return true;
    }
    return false;
}

static void
check_outcomes(struct delivering *d, const struct outcome *outcomes)
{
    for (size_t i = 0; i < d->job.recipient_count; i++) {
        const struct outcome *o = &outcomes[i];
        CHECK(o->kind <= OUTCOME_FAILED && o->about <= OUTCOME_ABOUT_DESTINATION && o->enhanced.len >= 5);
        CHECK(o->reply.len > 0 && o->reply.len <= LIMIT_REPLY_TEXT);
        check_words(o->reply);
        check_words(o->remote);
        check_words(o->enhanced);
        CHECK(!outcome_is_good(o) || o->enhanced.ptr[0] == '2');
        CHECK(o->kind != OUTCOME_DEFERRED || o->enhanced.ptr[0] == '4');
        CHECK(o->kind != OUTCOME_FAILED || o->enhanced.ptr[0] == '5');
        d->delivered |= outcome_is_good(o) && !d->job.probe;
    }
}

static void
run_delivery(struct rt *rt, void *arg)
{
    struct delivering *d = arg;
    struct outcome outcomes[RCPTS] = { 0 };
    struct delivery_figures figures;
    const struct delivery_hooks hooks = { d, addresses, read_content };
    struct connections_settings pool = connections_settings_default();
    struct arena arena;

    d->rt = rt;
    scope_init(&d->servers, rt);
    struct connections *connections = d->how & 64 ? connections_new(rt, &pool) : NULL;
    for (int again = 0; again < 2; again++) { /* the second time over connections that were kept */
        arena_init(&arena, own_mem, 4096, d->job.recipient_count * DELIVERY_ARENA_BYTES);
        for (size_t i = 0; i < RCPTS; i++)
            outcomes[i] = (struct outcome){ .kind = 99 };
        smtp_deliver(rt, &d->job, &d->settings, &hooks, connections, &arena, outcomes, &figures);
        check_outcomes(d, outcomes);
        arena_done(&arena);
    }
    if (connections)
        connections_free(connections);
    scope_wait(&d->servers, FOREVER);
    scope_end(&d->servers);
    CHECK(!d->delivered || somebody_took_it(d)); /* now that they have heard all */
    for (size_t i = 0; i < d->connections; i++) {
        fuzz_show("a server heard", text_str(&d->connection[i].heard));
        mem_free(own_mem, d->connection[i].heard.ptr, HEARD_MAX);
    }
}

void
fuzz_one(struct str input, struct arena *arena)
{
    struct delivering *d = arena_new(arena, struct delivering);
    struct str rest = input;
    uint8_t how = fuzz_choice(&rest), more = fuzz_choice(&rest), body = fuzz_choice(&rest);
    struct envelope *envelope = arena_new(arena, struct envelope);
    struct recipient *recipients = arena_alloc(arena, RCPTS * sizeof *recipients);
    struct delivery_host *hosts = arena_alloc(arena, HOSTS * sizeof *hosts);

    d->arena = arena;
    d->how = how;
    d->dns = fuzz_choice(&rest);
    d->step = fuzz_choice(&rest);
    uint8_t last = fuzz_choice(&rest);
    d->content = fuzz_field(&rest);
    d->scripts = rest;
    *envelope = (struct envelope){ .reverse_path = last & 1 ? S("") : last & 2 ? S("\xc3\xa4@b.example") : S("a@b.example"),
                                   .size = d->content.len, .body = body % 3, .smtputf8 = body & 4,
                                   .ret = (body >> 3) % 3, .envid = body & 32 ? S("id") : (struct str){ 0 } };
    size_t count = 1 + more % RCPTS;
    for (size_t i = 0; i < count; i++) {
        recipients[i] = (struct recipient){ .address = arena_printf(arena, "u%zu@c%zu.example", i, i % 2),
                                            .notify = i % 2 ? NOTIFY_SUCCESS : 0 };
        if (last & 4 && i == 0)
            recipients[i].address = S("u\xc3\xb6@c.example");
        if (last & 8 && i == 1)
            recipients[i].reverse_path = S("owner@l.example");
        if (last & 16)
            recipients[i].orcpt = S("rfc822;x@y");
    }
    for (size_t i = 0; i < HOSTS; i++)
        hosts[i] = (struct delivery_host){ .name = arena_printf(arena, "h%zu.example", i),
                                           .preference = (uint16_t)(last & 32 ? 10 : 10 * i) };
    d->job = (struct delivery_job){ .envelope = envelope, .recipients = recipients, .recipient_count = count,
                                    .hosts = hosts, .host_count = 1 + (more >> 3) % HOSTS, .probe = more & 64 };
    d->settings = (struct delivery_settings){ .helo = S("mx.example.org"), .lmtp = more & 128,
                                              .port = more & 128 ? 24 : 25 };
    world_rules = (struct world_rules){ .seed = 1, .connected = connected, .arg = d,
                                        .read_max = last & 64 ? 3 : 0, .room = last & 128 ? 300 : 0 };
    world_run(run_delivery, d);
}
