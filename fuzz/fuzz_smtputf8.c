/*
 * fuzz_smtputf8 - addresses beyond ASCII on their way to servers with SMTPUTF8 and without.
 *
 * Aims at: deliver/smtp.c deliver/transaction.c message/domain.c message/path.c
 * Seeds:   message/path_test.c smtp/params_test.c mime-mikel-mail/rfc6532
 * Longest: 1500
 * Test:    2600 runs
 * Choices: 1 bytes in front
 *
 * The input is a reverse-path, a forward-path and the content, a byte 0xff between them. A server that does not offer SMTPUTF8
 * never hears a byte beyond ASCII before the content; where that cannot be, or the header is not ASCII, the message fails and is
 * not sent; the local part that goes out is the one that came. Everything else is delivered.
 */
#include "fuzz.h"

#include "deliver/smtp.h"
#include "hostile.h"
#include "message/path.h"
#include "world.h"

enum { HEARD_MAX = 64 << 10 };

struct sending {
    struct arena *arena;
    struct hostile server;
    struct str content;
    uint8_t how;
    struct delivery_job job;
    struct outcome outcome;
    size_t connections;
};

static struct err
connected(void *arg, struct rt *rt, const struct address *to, struct stream *far_end)
{
    struct sending *s = arg;

    (void)to;
    if (s->connections++ > 0)
        return ERR(ERR_REFUSED, "connect");
    s->server.rt = rt;
    s->server.stream = far_end;
    fiber_start(rt, "server", hostile_run, &s->server);
    return OK;
}

static struct err
read_content(void *arg, uint64_t offset, void *memory, size_t len, int64_t until, size_t *out_len)
{
    struct sending *s = arg;
    struct text t = text_init(memory, len);

    (void)until;
    text_put(&t, str_slice(s->content, offset, offset + len));
    *out_len = t.len;
    return OK;
}

static struct err
no_addresses(void *arg, struct str host, unsigned families, int64_t until, struct arena *arena, struct host_result *out)
{
    (void)arg;
    (void)host;
    (void)families;
    (void)until;
    (void)arena;
    (void)out;
    UNREACHABLE(); /* the host has a fixed address */
}

/* What follows the path of a command that begins so; an address may hold any word of SMTP itself. */
static struct str
take_command(struct str commands, struct str begin, struct path *out_path, struct arena *arena)
{
    struct str line = str_from(commands, str_find(commands, begin) + begin.len);

    line = str_slice(line, 0, str_find(line, S("\r\n")));
    *out_path = (struct path){ { NULL, 0 }, { NULL, 0 } };
    (void)path_take(&line, arena, out_path);
    return line;
}

static void
check_wire(const struct sending *s)
{
    struct str heard = text_str(&s->server.heard), commands = str_slice(heard, 0, str_find(heard, S("DATA\r\n")));
    struct str forward_path = s->job.recipients[0].address;
    bool offered = s->how & 1;
    struct path was, is;

    CHECK(offered || str_is_ascii(commands));
    struct str parameters = take_command(commands, S("\r\nMAIL FROM:"), &is, s->arena);
    CHECK(offered || str_find(parameters, S(" SMTPUTF8")) == parameters.len);
    if (!outcome_is_good(&s->outcome)) {
        CHECK(str_find(heard, S("\r\n.\r\n")) == heard.len);
        return;
    }
    take_command(commands, S("\r\nRCPT TO:"), &is, s->arena);
    CHECK(!str_is_absent(is.local)); /* but a quoted one may be empty */
    if (path_parse(forward_path, s->arena, &was)) {
        CHECK(str_eq(is.local, was.local));
        CHECK(offered || str_is_ascii(is.domain));
    }
}

static void
run_delivery(struct rt *rt, void *arg)
{
    struct sending *s = arg;
    const struct delivery_settings settings = { .helo = S("mx.example.org"), .port = 25 };
    const struct delivery_hooks hooks = { s, no_addresses, read_content };
    struct delivery_figures figures;

    smtp_deliver(rt, &s->job, &settings, &hooks, NULL, s->arena, &s->outcome, &figures);
    check_wire(s);
}

static struct str
take_address(struct str *rest, struct arena *arena)
{
    struct path path;

    return path_parse(fuzz_field(rest), arena, &path) && path.domain.len > 0 ? path_text(path, arena) : S("");
}

void
fuzz_one(struct str input, struct arena *arena)
{
    static char heard[HEARD_MAX];
    struct sending *s = arena_new(arena, struct sending);
    struct envelope *envelope = arena_new(arena, struct envelope);
    struct recipient *recipient = arena_new(arena, struct recipient);
    struct delivery_host *host = arena_new(arena, struct delivery_host);
    struct str rest = input;

    s->arena = arena;
    s->how = fuzz_choice(&rest);
    envelope->reverse_path = take_address(&rest, arena);
    recipient->address = take_address(&rest, arena);
    if (recipient->address.len == 0)
        recipient->address = S("\xc3\xa4@b\xc3\xbc.example");
    s->content = rest;
    envelope->size = rest.len;
    envelope->smtputf8 = true;
    envelope->body = s->how & 2 ? BODY_7BIT : BODY_8BITMIME;
    *host = (struct delivery_host){ .name = S("mx.example.net") };
    CHECK(address_parse(S("203.0.113.1:25"), &host->fixed));
    s->job = (struct delivery_job){ .envelope = envelope, .recipients = recipient, .recipient_count = 1, .hosts = host,
                                    .host_count = 1 };
    s->server = (struct hostile){
        .script = s->how & 1 ? S("220 a\r\n250-a\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n250 a\r\n250 a\r\n354 a\r\n250 a\r\n221 a\r\n")
                             : S("220 a\r\n250-a\r\n250 8BITMIME\r\n250 a\r\n250 a\r\n354 a\r\n250 a\r\n221 a\r\n"),
        .pace = HOSTILE_LINES, .end = HOSTILE_STAYS, .heard = text_init(heard, sizeof heard) };
    world_rules = (struct world_rules){ .seed = 1, .connected = connected, .arg = s };
    world_run(run_delivery, s);
}
