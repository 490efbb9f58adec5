/*
 * fuzz_starttls - a session around the beginning of TLS: what is said in clear, what comes instead of a handshake, and what is
 * said behind it.
 *
 * Aims at: smtp/server.c smtp/input.c net/wire.c
 * Seeds:   smtp/server_tls_test.c smtp/server_test.c smtp-smuggling/
 * Longest: 4000
 * Test:    8000 runs
 * Choices: 3 bytes in front
 *
 * Two fields: behind the handshake, and before it in clear; a third one may come instead of the handshake. A stand-in for TLS turns every
 * byte's highest bit over, but that of line feeds, so that each byte that the server says shows which side of the border it is
 * from. What holds, beside receiver.h: behind the first encrypted byte none is in clear; of a handshake that failed nothing
 * comes any more; and what is said behind TLS has the same outcome whatever was said before it.
 */
#include "fuzz.h"

#include "receiver.h"

enum { HELLO = 4 };

struct meeting {
    struct fake_site site;
    bool asked, up;
    size_t committed_in_clear;
};

/* ---- the stand-in ------------------------------------------------------------------------------------------------ */

/* Its own inverse. */
static void
turn(char *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if ((bytes[i] & 0x7f) != '\n')
            bytes[i] = (char)(bytes[i] ^ 0x80);
}

static struct err
turned_read(void *cover, void *memory, size_t cap, int64_t until, size_t *out_len)
{
    TRY(stream_read(cover, memory, cap, until, out_len));
    turn(memory, *out_len);
    return OK;
}

static struct err
turned_read_now(void *cover, void *memory, size_t cap, size_t *out_len)
{
    TRY(stream_read_now(cover, memory, cap, out_len));
    turn(memory, *out_len);
    return OK;
}

static struct err
turned_wait_readable(void *cover, int64_t until)
{
    return stream_wait_readable(cover, until);
}

static struct err
turned_write(void *cover, const struct str *parts, size_t count, int64_t until)
{
    char memory[1024];

    for (size_t i = 0; i < count; i++)
        for (struct str rest = parts[i]; rest.len > 0;) {
            struct text some = text_init(memory, sizeof memory);
            text_put(&some, str_slice(rest, 0, sizeof memory));
            turn(memory, some.len);
            TRY(stream_write(cover, text_str(&some), until));
            rest = str_from(rest, some.len);
        }
    return OK;
}

static struct err
turned_write_now(void *cover, struct str bytes, size_t *out_len)
{
    char memory[1024];
    struct text some = text_init(memory, sizeof memory);

    text_put(&some, str_slice(bytes, 0, sizeof memory));
    turn(memory, some.len);
    return stream_write_now(cover, text_str(&some), out_len);
}

static bool
turned_has_unsent(const void *cover)
{
    (void)cover;
    return false;
}

static void
turned_nothing(void *cover)
{
    (void)cover;
}

static bool
tls_ready(void *ctx, int64_t until)
{
    (void)until;
    (void)ctx;
    return true;
}

static struct err
start_tls(void *ctx, struct wire *wire, int64_t until, struct server_tls *out, struct text *reason)
{
    static const struct wire_cover ops = {
        .read = turned_read, .read_now = turned_read_now, .wait_readable = turned_wait_readable, .write = turned_write,
        .write_now = turned_write_now, .has_unsent = turned_has_unsent, .shut_down = turned_nothing, .free = turned_nothing,
    };
    struct meeting *m = container_of((struct fake_site *)ctx, struct meeting, site);
    char hello[HELLO];
    size_t len;

    CHECK(!m->asked && wire_is_in_clear(wire)); /* once */
    m->asked = true;
    m->committed_in_clear = m->site.committed;
    for (size_t i = 0; i < HELLO; i++) {
        TRY(stream_read(wire->stream, &hello[i], 1, until, &len));
        if (len == 0)
            return ERR(ERR_RESET, "read a hello");
    }
    if (!str_eq(str_new(hello, HELLO), S("TLS!"))) {
        text_put(reason, S("no hello"));
        return ERR(ERR_PROTOCOL, "read a hello");
    }
    m->up = true;
    wire_cover(wire, &ops, wire->stream);
    *out = (struct server_tls){ .protocol = S("TLSv1.3"), .cipher = S("turned") };
    return OK;
}

/* ---- sessions ---------------------------------------------------------------------------------------------------- */

static void
meet(struct meeting *m)
{
    *m = (struct meeting){ .asked = false };
    fake_site_init(&m->site);
    m->site.hooks.tls_ready = tls_ready;
    m->site.hooks.start_tls = start_tls;
}

/* What is said: in clear, then the hello or what comes in its place, then the rest, encrypted. */
static struct str
speech(struct receiver_case *c, struct str clear, struct str hello, struct str behind, struct arena *arena)
{
    char *turned = arena_alloc(arena, behind.len + 1);
    struct text text = text_init(turned, behind.len + 1);

    text_put(&text, behind);
    turn(turned, behind.len);
    c->waits[0] = clear.len;
    c->waits[1] = clear.len + hello.len;
    return arena_join(arena, clear, arena_join(arena, hello, text_str(&text)));
}

/* The server's words as if all were in clear. */
static struct str
check_border(const struct meeting *m, struct str said, size_t *out_clear, struct arena *arena)
{
    char *bytes = arena_alloc(arena, said.len + 1);
    struct text all = text_init(bytes, said.len + 1);
    size_t border = said.len;

    for (size_t i = 0; i < said.len; i++) {
        bool encrypted = said.ptr[i] & 0x80;
        if (encrypted && border == said.len)
            border = i;
        CHECK(encrypted == (i >= border) || said.ptr[i] == '\n');
    }
    CHECK(border == said.len || m->up);
    text_put(&all, said);
    turn(bytes + border, said.len - border);
    *out_clear = border;
    return text_str(&all);
}

/* The reply to STARTTLS, and then nothing. */
static void
check_failure(const struct meeting *m, const struct receiver_case *c, struct str said)
{
    struct str reply;
    unsigned last = 0;

    if (!m->asked || m->up || c->resets)
        return;
    for (unsigned code; (code = receiver_take_reply(&said, &reply));)
        last = code;
    CHECK(c->settings.tls_at_once ? last == 0 : last == 220);
    CHECK(m->site.committed == m->committed_in_clear);
}

static struct str
first_line(const char *text)
{
    struct str all = str_from_cstr(text);

    return str_slice(all, 0, str_find_byte(all, '\n'));
}

/* Of what was stored behind TLS: nothing depends on what was said before. */
static void
compare(const struct meeting *a, const struct meeting *b)
{
    size_t count = a->site.committed - a->committed_in_clear;

    CHECK(b->up && b->committed_in_clear == 0 && b->site.committed == count);
    for (size_t i = 0; i < count && a->committed_in_clear + i < FAKE_MESSAGES; i++) {
        const struct fake_message *m = &a->site.messages[a->committed_in_clear + i], *n = &b->site.messages[i];
        CHECK(str_eq(str_new(m->content, m->len), str_new(n->content, n->len)));
        CHECK(str_eq(str_from_cstr(m->recipients), str_from_cstr(n->recipients)));
        CHECK(str_eq(str_from_cstr(m->reverse_path), str_from_cstr(n->reverse_path)));
        CHECK(str_eq(first_line(m->trace), first_line(n->trace))); /* "Received: from NAME" */
    }
}

/* Time, and what counts for a whole session. */
static bool
is_of_its_own(const struct receiver_case *c, struct str said)
{
    return c->pace == PACE_LINES && !c->resets && str_find(said, S("wait")) == said.len && str_find(said, S("421 ")) == said.len;
}

static struct str
run(struct meeting *m, const struct receiver_case *c, struct str said_by_client, struct arena *arena)
{
    size_t clear;

    struct str said = check_border(m, receiver_run(c, &m->site, said_by_client, arena), &clear, arena);
    receiver_check(c, &m->site, said);
    check_failure(m, c, said);
    return said;
}

void
fuzz_one(struct str input, struct arena *arena)
{
    static struct meeting first, second;
    struct str rest = input;
    uint8_t how = fuzz_choice(&rest), pace = fuzz_choice(&rest), step = fuzz_choice(&rest);
    struct receiver_case c = { .settings = listener_settings_default(S("mx.local.test")), .step = 1u + step, .pause = 1 };

    c.settings.trusted = how & 1;
    c.settings.tls_at_once = how & 2;
    c.resets = how & 4;
    c.stays = how & 8;
    c.read_max = how & 16 ? 1u + step / 4 : 0;
    c.room = how & 32 ? 16 : 0;
    c.pace = pace & 8 ? (enum pace)(pace & 3) : PACE_LINES;
    struct str behind = fuzz_field(&rest), clear = fuzz_field(&rest);
    struct str hello = how & 64 ? fuzz_field(&rest) : S("TLS!");
    if (c.settings.tls_at_once)
        clear = S("");
    else if (!(how & 128)) /* most begin well */
        clear = arena_join(arena, clear, S("RSET\r\nEHLO clear.example\r\nSTARTTLS\r\n"));

    meet(&first);
    struct str said = run(&first, &c, speech(&c, clear, hello, behind, arena), arena);
    if (first.up && is_of_its_own(&c, said)) {
        meet(&second);
        clear = c.settings.tls_at_once ? S("") : S("EHLO other.example\r\nSTARTTLS\r\n");
        struct str again = run(&second, &c, speech(&c, clear, S("TLS!"), behind, arena), arena);
        if (is_of_its_own(&c, again))
            compare(&first, &second);
        fake_site_done(&second.site);
    }
    fake_site_done(&first.site);
}
