/* receiver - see receiver.h. */
#include "receiver.h"

#include "fuzz.h"
#include "message/lines.h"
#include "world.h"

enum { OUTPUT_MAX = 4 << 20 };

struct run {
    const struct receiver_case *c;
    struct fake_site *site;
    struct str input;
    struct text output;
    struct rt *rt;
    struct stream *client, *server;
    bool served, closed; /* closed: the server's end was read */
};

static void
serve(void *arg)
{
    struct run *r = arg;
    struct server_client client = { .name = S("192.0.2.9") };
    struct wire wire = wire_in_clear(r->server);

    client.address = stream_peer(r->server);
    server_run(&wire, &r->c->settings, &r->site->hooks, &client);
    wire_close(&wire);
    r->served = true;
}

static void
listen_to(void *arg)
{
    struct run *r = arg;
    char memory[2048];
    size_t len;

    while (r->client && !err_is(stream_read(r->client, memory, sizeof memory, FOREVER, &len)) && len > 0) {
        text_put(&r->output, str_new(memory, len));
        CHECK(!r->output.full);
    }
    r->closed = true;
}

static size_t
next_piece(const struct run *r, struct str rest)
{
    switch (r->c->pace) {
    case PACE_AT_ONCE:
        return rest.len;
    case PACE_LINES: {
        size_t lf = str_find_byte(rest, '\n');
        return lf < rest.len ? lf + 1 : rest.len;
    }
    case PACE_PIECES:
    case PACE_SLOW:
        break;
    }
    return r->c->step < rest.len ? r->c->step : rest.len;
}

/* How far the next place is at which the client waits. */
static size_t
until_wait(const struct run *r, struct str rest)
{
    size_t at = r->input.len - rest.len;

    for (size_t i = 0; i < sizeof r->c->waits / sizeof *r->c->waits; i++)
        if (r->c->waits[i] > at)
            return r->c->waits[i] - at;
    return rest.len + 1;
}

static void
talk(struct run *r)
{
    /* A greeting that waits gets its time, unless the client talks early. */
    if (r->c->pace == PACE_LINES)
        rt_sleep(r->rt, within(r->rt, MINUTE));
    for (struct str rest = r->input; rest.len > 0 && !r->closed;) {
        size_t len = next_piece(r, rest), wait = until_wait(r, rest);
        if (len > wait)
            len = wait;
        if (err_is(stream_write(r->client, str_slice(rest, 0, len), FOREVER)))
            return;
        rest = str_from(rest, len);
        if (r->c->pace == PACE_LINES || len == wait)
            rt_sleep(r->rt, within(r->rt, 10 * SECOND));
        else if (r->c->pace == PACE_SLOW)
            rt_sleep(r->rt, within(r->rt, (int64_t)r->c->pause * SECOND));
        else
            fiber_yield(r->rt);
    }
}

static void
run_session(struct rt *rt, void *arg)
{
    struct run *r = arg;
    struct scope scope;

    r->rt = r->site->rt = rt;
    world_pair(rt, &r->client, &r->server);
    scope_init(&scope, rt);
    scope_start(&scope, "server", serve, r);
    scope_start(&scope, "listen", listen_to, r);
    talk(r);
    if (!r->c->resets && !r->c->stays)
        stream_shut_down(r->client);
    if (!r->c->resets)
        CHECK(!err_is(scope_wait(&scope, within(rt, 3 * HOUR)))); /* every wait of the server ends */
    struct stream *client = r->client;
    r->client = NULL; /* whoever listens may not have begun */
    stream_reset(client);
    CHECK(!err_is(scope_wait(&scope, within(rt, 3 * HOUR))));
    scope_end(&scope);
    CHECK(r->served);
}

struct str
receiver_run(const struct receiver_case *c, struct fake_site *site, struct str said_by_client, struct arena *arena)
{
    struct run r = { .c = c, .site = site, .input = said_by_client };

    /* The longest reply is EXPN's and HELP's; commands have at least two bytes. */
    size_t cap = 8192 + 600 * said_by_client.len;
    cap = cap < OUTPUT_MAX ? cap : OUTPUT_MAX;
    r.output = text_init(mem_alloc(own_mem, cap), cap);
    world_rules = (struct world_rules){ .seed = 1, .read_max = c->read_max, .room = c->room };
    world_run(run_session, &r);
    struct str output = arena_keep(arena, text_str(&r.output));
    mem_free(own_mem, r.output.ptr, cap);
    fuzz_show("client", said_by_client);
    fuzz_show("server", output);
    return output;
}

unsigned
receiver_take_reply(struct str *said, struct str *out_reply)
{
    struct str whole = *said;
    unsigned code = 0;

    while (said->len > 0) {
        size_t end = str_find(*said, S("\r\n"));
        struct str line = str_slice(*said, 0, end);
        uint64_t number;
        CHECK(end < said->len && end + 2 <= LIMIT_REPLY_LINE && line.len >= 3);
        CHECK(str_to_u64(str_slice(line, 0, 3), &number) && number >= 200 && number <= 599);
        CHECK(code == 0 || number == code);
        for (size_t i = 0; i < line.len; i++)
            CHECK((unsigned char)line.ptr[i] >= ' ' && (unsigned char)line.ptr[i] < 0x7f);
        code = (unsigned)number;
        *said = str_from(*said, end + 2);
        CHECK(line.len == 3 || line.ptr[3] == ' ' || line.ptr[3] == '-');
        if (line.len == 3 || line.ptr[3] == ' ') {
            *out_reply = str_slice(whole, 0, whole.len - said->len);
            return code;
        }
        CHECK(said->len > 0); /* a reply goes on behind "-" */
    }
    return 0;
}

static void
check_message(const struct fake_message *m)
{
    struct fuzz_lines lines;
    struct str recipients = str_from_cstr(m->recipients);

    CHECK(m->recipient_count > 0 && recipients.len > 0);
    for (struct str one = str_cut_word(&recipients); one.len > 0; one = str_cut_word(&recipients)) {
        struct str address = str_slice(one, 0, str_find_byte(one, '/'));
        bool known = str_ends(address, S("@local.test")) || str_eq(address, S("fwd@partner.test"));
        CHECK(known || m->recipient_count > 1); /* the fake cuts a long list in the middle of a word */
    }
    lines = fuzz_lines(str_new(m->content ? m->content : "", m->len));
    CHECK(!lines.bare_cr && !lines.bare_lf);
    CHECK(str_starts(str_from_cstr(m->trace), S("Received: ")));
}

void
receiver_check(const struct receiver_case *c, const struct fake_site *site, struct str said)
{
    size_t stored = 0;
    struct str reply;
    unsigned code;

    CHECK(site->begun == site->committed + site->aborted);
    CHECK(site->admitted == site->left && site->sessions_logged == 1);
    for (size_t i = 0; i < site->committed && i < FAKE_MESSAGES; i++)
        check_message(&site->messages[i]);
    if (c->resets) /* the last reply may be lost */
        return;
    for (struct str rest = said; (code = receiver_take_reply(&rest, &reply));) {
        size_t at = str_find(reply, S("Stored as "));
        if (at == reply.len || code != 250)
            continue;
        struct message_id id;
        CHECK(message_id_parse(str_slice(reply, at + 10, at + 10 + MESSAGE_ID_TEXT), &id));
        CHECK(stored < site->committed);
        if (stored < FAKE_MESSAGES)
            CHECK(message_id_eq(site->messages[stored].id, id));
        stored++;
    }
    CHECK(stored == site->committed);
    CHECK(said.len == 0 || str_starts(said, S("220")) || str_starts(said, S("421")) || str_starts(said, S("5")));
}
