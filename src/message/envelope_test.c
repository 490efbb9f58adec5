/* The envelope's code: what was put comes back, and no bytes that somebody else chose get through. */
#include "message/envelope.h"

#include "base/prng.h"
#include "base/test.h"

static void
id_text_and_back(struct test *t)
{
    static const struct { const char *why; struct message_id id; struct str text; } cases[] = {
        { "zero",          { 0, 0 },                      STR("00000000000000000000000000") },
        { "one",           { 0, 1 },                      STR("00000000000000000000000001") },
        { "all bits",      { UINT64_MAX, UINT64_MAX },    STR("7zzzzzzzzzzzzzzzzzzzzzzzzz") },
        { "high bit",      { UINT64_C(1) << 63, 0 },      STR("40000000000000000000000000") },
        { "across words",  { 1, UINT64_C(1) << 63 },      STR("0000000000000r000000000000") },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char memory[MESSAGE_ID_TEXT];
        struct message_id back;
        test_case(t, cases[i].why);
        EXPECT_STR(t, message_id_text(cases[i].id, memory), cases[i].text);
        EXPECT(t, message_id_parse(cases[i].text, &back) && message_id_eq(back, cases[i].id));
    }
    static const struct { const char *why; struct str in; bool ok; } parse[] = {
        { "upper case as read over the telephone", STR("7ZZZZZZZZZZZZZZZZZZZZZZZZZ"), true },
        { "letters taken for digits",              STR("0oOiIlL0000000000000000000"), true },
        { "more than 128 bits",                    STR("80000000000000000000000000"), false },
        { "short",                                 STR("0000000000000000000000000"),  false },
        { "long",                                  STR("000000000000000000000000000"), false },
        { "u is no digit",                         STR("0000000000000000000000000u"), false },
        { "empty",                                 STR(""), false },
    };
    for (size_t i = 0; i < sizeof parse / sizeof *parse; i++) {
        struct message_id back;
        struct str in = test_edge(parse[i].in);
        test_case(t, parse[i].why);
        EXPECT(t, message_id_parse(in, &back) == parse[i].ok);
        test_edge_free(in);
    }
}

static struct envelope
example(struct recipient *rcpt)
{
    rcpt[0] = (struct recipient){ .address = S("a@example.org"), .orcpt = S("rfc822;a@example.org"),
                                  .notify = NOTIFY_SUCCESS | NOTIFY_DELAY };
    rcpt[1] = (struct recipient){ .address = S("\"b c\"@example.net"), .given = S("list@example.org"),
                                  .reverse_path = S(""), .origin = RECIPIENT_MEMBER };
    return (struct envelope){
        .reverse_path = S("sender@example.com"), .envid = S("QQ+3D1"), .helo = S("mx.example.com"),
        .client = S("192.0.2.1"), .session = S("s1"), .size = 12345, .accepted_wall = INT64_C(1795230000000000000),
        .ret = RET_HDRS, .body = BODY_8BITMIME, .smtputf8 = true, .trusted = true,
        .trace = S("Received: from x\r\n\tby y; z\r\n"), .recipients = rcpt, .recipient_count = 2,
    };
}

static void
comes_back(struct test *t)
{
    struct mem mem = mem_libc();
    struct arena arena;
    struct recipient rcpt[2];
    struct envelope e = example(rcpt), back;
    char memory[1024];
    struct put p = put_init(memory, sizeof memory);

    arena_init(&arena, &mem, 4096, 1 << 20);
    envelope_put(&p, &e);
    EXPECT(t, !p.full);
    EXPECT_INT(t, p.len, envelope_size(&e));
    struct take take = take_init(put_str_so_far(&p));
    if (EXPECT(t, envelope_take(&take, &arena, &back))) {
        EXPECT(t, take_end(&take));
        EXPECT_STR(t, back.reverse_path, e.reverse_path);
        EXPECT_STR(t, back.envid, e.envid);
        EXPECT_STR(t, back.trace, e.trace);
        EXPECT(t, back.smtputf8 && back.trusted && !back.notice);
        EXPECT_INT(t, back.ret, RET_HDRS);
        EXPECT_INT(t, back.size, 12345);
        EXPECT_INT(t, back.recipient_count, 2);
        for (size_t i = 0; i < 2; i++) {
            EXPECT_STR(t, back.recipients[i].address, rcpt[i].address);
            EXPECT_STR(t, back.recipients[i].orcpt, rcpt[i].orcpt);
            EXPECT_STR(t, back.recipients[i].given, rcpt[i].given);
            EXPECT_STR(t, back.recipients[i].reverse_path, rcpt[i].reverse_path);
            EXPECT_INT(t, back.recipients[i].notify, rcpt[i].notify);
            EXPECT_INT(t, back.recipients[i].origin, rcpt[i].origin);
        }
    }
    test_case(t, "with a time to be delivered in");
    struct put by = put_init(memory, sizeof memory);
    e.deliver_within = 3600 * SECOND;
    e.deliver_or_return = true;
    envelope_put(&by, &e);
    EXPECT_INT(t, by.len, envelope_size(&e));
    take = take_init(put_str_so_far(&by));
    EXPECT(t, envelope_take(&take, &arena, &back) && take_end(&take));
    EXPECT(t, back.deliver_within == e.deliver_within && back.deliver_or_return && !back.deliver_trace);
    EXPECT_STR(t, back.trace, e.trace);
    memory[3] = 64; /* or to be returned, without a time */
    take = take_init(put_str_so_far(&by));
    EXPECT(t, !envelope_take(&take, &arena, &back));
    e.deliver_within = 0;
    e.deliver_or_return = false;
    p = put_init(memory, sizeof memory);
    envelope_put(&p, &e);
    struct take head = take_init(put_str_so_far(&p));
    EXPECT(t, envelope_take_head(&head, &arena, &back) && back.recipient_count == 2 && back.recipients == NULL);
    struct recipient first;
    EXPECT(t, recipient_take(&head, &arena, &first));
    EXPECT_STR(t, first.address, S("a@example.org"));
    arena_done(&arena);
}

/* Whoever is handed an envelope, the queue above all, relies on that. */
static void
as_many_recipients_as_a_message_may_have(struct test *t)
{
    enum { ROOM = 20 * (LIMIT_RCPT_EXPANDED + 2) };
    struct mem mem = mem_libc();
    struct arena arena;
    struct recipient rcpt[2];
    struct envelope e = example(rcpt), back;
    char *memory = mem_alloc(&mem, ROOM);
    struct put p = put_init(memory, ROOM);

    arena_init(&arena, &mem, 4096, 1 << 20);
    envelope_put(&p, &e);
    size_t at = p.len - recipient_size(&rcpt[0]) - recipient_size(&rcpt[1]) - sizeof(uint32_t);
    for (uint32_t count = LIMIT_RCPT_EXPANDED; count <= LIMIT_RCPT_EXPANDED + 1; count++) {
        struct put over = put_init(memory + at, sizeof(uint32_t));
        put_u32(&over, count);
        struct take take = take_init(str_new(memory, ROOM));
        EXPECT(t, envelope_take_head(&take, &arena, &back) == (count <= LIMIT_RCPT_EXPANDED));
    }
    arena_done(&arena);
    mem_free(&mem, memory, ROOM);
}

/* Cut short it is refused; with a byte changed it is refused, or something that we could have put ourselves. */
static void
hostile_bytes(struct test *t)
{
    struct mem mem = mem_libc();
    struct arena arena;
    struct recipient rcpt[2];
    struct envelope e = example(rcpt), back;
    char memory[1024], again[2048];
    struct put p = put_init(memory, sizeof memory);
    struct prng prng;

    prng_seed(&prng, 1);
    arena_init(&arena, &mem, 4096, 1 << 20);
    envelope_put(&p, &e);
    for (size_t cut = 0; cut < p.len; cut++) {
        struct str in = test_edge(str_new(memory, cut));
        struct take take = take_init(in);
        EXPECT(t, !envelope_take(&take, &arena, &back));
        test_edge_free(in);
        arena_reset(&arena);
    }
    for (size_t at = 0; at < p.len; at++)
        for (int round = 0; round < 16; round++) {
            char old = memory[at];
            memory[at] = (char)prng_u64(&prng);
            struct str in = test_edge(str_new(memory, p.len));
            struct take take = take_init(in);
            if (envelope_take(&take, &arena, &back)) {
                struct put second = put_init(again, sizeof again);
                envelope_put(&second, &back);
                EXPECT(t, !second.full && second.len <= p.len);
            }
            test_edge_free(in);
            arena_reset(&arena);
            memory[at] = old;
        }
    static const struct { const char *why; struct str path, trace; } bad[] = {
        { "a line end in an address", STR("a@b\r\nRCPT TO:<x@y>"), STR("") },
        { "a NUL in an address",      STR("a\0@b"),                STR("") },
        { "half a line of trace",     STR("a@b"),                  STR("Received: x") },
        { "trace with an empty line", STR("a@b"),                  STR("A: b\r\n\r\nc: d\r\n") },
        { "trace that ends a header", STR("a@b"),                  STR("\r\n") },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct put by_hand = put_init(again, sizeof again);
        test_case(t, bad[i].why);
        put_u8(&by_hand, 1);
        put_u8(&by_hand, 0);
        put_u8(&by_hand, 0);
        put_u8(&by_hand, 0);
        put_u64(&by_hand, 0);
        put_i64(&by_hand, 0);
        put_i64(&by_hand, 0);
        put_bytes(&by_hand, bad[i].path);
        for (int j = 0; j < 4; j++)
            put_bytes(&by_hand, S(""));
        put_bytes(&by_hand, bad[i].trace);
        put_u32(&by_hand, 0);
        struct take take = take_init(put_str_so_far(&by_hand));
        EXPECT(t, !envelope_take(&take, &arena, &back));
    }
    arena_done(&arena);
}

static void
states_have_names(struct test *t)
{
    for (int s = 0; s <= STATE_LAST; s++)
        EXPECT(t, recipient_state_name((enum recipient_state)s).len > 0);
    EXPECT(t, !recipient_state_is_ended(STATE_FAILED_OWED));
    EXPECT(t, recipient_state_is_ended(STATE_RELAYED));
}

TEST_MAIN({ "message ids as text and back", id_text_and_back }, { "an envelope comes back", comes_back },
          { "as many recipients as a message may have", as_many_recipients_as_a_message_may_have },
          { "hostile bytes", hostile_bytes }, { "states have names", states_have_names })
