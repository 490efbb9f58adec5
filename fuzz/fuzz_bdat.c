/*
 * fuzz_bdat - content by BDAT in chunks of any sizes, and by DATA: what arrives is what was sent.
 *
 * Aims at: smtp/server.c smtp/content.c
 * Seeds:   smtp/content_test.c message/lines_test.c smtp-smuggling/ mime-haraka/
 * Longest: 4096
 * Test:    1500 runs
 * Choices: 3 bytes in front
 *
 * A well-behaved client sends the input as content, twice on one connection, by BDAT (chunk sizes follow from the choices) and
 * by DATA with its dots doubled. Both arrive byte by byte (repaired where they had bare line ends; refused where that is the
 * setting), nothing in them is ever taken for a command: each command got one reply, in order.
 */
#include "fuzz.h"

#include "message/lines.h"
#include "receiver.h"

static void
put_chunks(struct text *t, struct str content, size_t size, bool empty_last, size_t *out_chunks)
{
    *out_chunks = 0;
    for (bool last = false; !last; ++*out_chunks) {
        struct str chunk = str_slice(content, 0, size);
        content = str_from(content, chunk.len);
        last = content.len == 0 && (!empty_last || chunk.len == 0);
        text_putf(t, "BDAT %zu%s\r\n", chunk.len, last ? " LAST" : "");
        text_put(t, chunk);
        size = size * 3 / 2 + 1;
    }
}

static void
put_data(struct text *t, struct str content)
{
    struct lines_stuff stuff = { 0 };
    struct str pieces[64];

    while (content.len > 0)
        for (size_t i = 0, count = lines_stuff(&stuff, &content, pieces, 64); i < count; i++)
            text_put(t, pieces[i]);
    text_put(t, lines_stuff_end(&stuff));
}

static void
expect(struct str *said, unsigned code)
{
    struct str reply;

    CHECK(receiver_take_reply(said, &reply) == code);
}

void
fuzz_one(struct str input, struct arena *arena)
{
    static struct fake_site site;
    struct str content = input;
    uint8_t how = fuzz_choice(&content), chunk = fuzz_choice(&content), step = fuzz_choice(&content);
    struct receiver_case c = { .settings = listener_settings_default(S("mx.local.test")) };
    struct text t = fuzz_text(arena, 1024 + 60 * (content.len + 4));
    struct fuzz_lines scan;
    size_t chunks;

    c.settings.line_ends = how & 1 ? LINE_ENDS_REPAIR : LINE_ENDS_REFUSE;
    c.settings.refuse_early_talk = false; /* this client does not wait for the greeting */
    c.pace = how & 2 ? PACE_PIECES : PACE_AT_ONCE;
    c.step = 1 + step * 4u;
    c.read_max = how & 8 ? 1 + step / 2u : 0;
    scan = fuzz_lines(content);
    bool clean = !scan.bare_cr && !scan.bare_lf;
    text_put(&t, S("EHLO a.example\r\n"));
    c.waits[0] = t.len; /* EHLO and DATA end what may be sent at once: RFC 2920 section 3.1 */
    text_put(&t, S("MAIL FROM:<a@b.example> BODY=8BITMIME\r\nRCPT TO:<ok@local.test>\r\n"));
    put_chunks(&t, content, 1 + chunk, how & 16, &chunks);
    text_put(&t, S("NOOP\r\nRSET\r\nMAIL FROM:<>\r\nRCPT TO:<v@local.test>\r\n"));
    text_put(&t, S("DATA\r\n"));
    c.waits[1] = t.len;
    put_data(&t, content);
    text_put(&t, S("NOOP\r\nQUIT\r\n"));
    CHECK(!t.full);

    fake_site_init(&site);
    struct str said = receiver_run(&c, &site, text_str(&t), arena);
    receiver_check(&c, &site, said);
    bool taken = clean || c.settings.line_ends == LINE_ENDS_REPAIR;
    for (unsigned i = 0; i < 4; i++)
        expect(&said, i == 0 ? 220 : 250);
    for (size_t i = 0; i + 1 < chunks; i++) {
        struct str reply;
        unsigned code = receiver_take_reply(&said, &reply);
        CHECK(code == 250 || (!taken && code >= 500));
    }
    struct str reply;
    unsigned code = receiver_take_reply(&said, &reply);
    CHECK(taken ? code == 250 : code >= 500);
    expect(&said, 250); /* NOOP */
    expect(&said, 250); /* RSET */
    expect(&said, 250); /* MAIL */
    expect(&said, 250); /* RCPT */
    expect(&said, 354);
    expect(&said, 250); /* the content */
    expect(&said, 250); /* NOOP */
    expect(&said, 221);
    CHECK(said.len == 0);
    CHECK(site.committed == (taken ? 2 : 1));
    struct str sent = fuzz_repaired(content, arena);
    if (taken)
        CHECK(str_eq(str_new(site.messages[0].content, site.messages[0].len), sent));
    struct str came = str_new(site.messages[taken].content, site.messages[taken].len);
    CHECK(str_starts(came, sent) && (came.len == sent.len || str_eq(str_from(came, sent.len), S("\r\n"))));
    fake_site_done(&site);
}
