/* border_test - every message between roles comes back as it was put; cut anywhere or with any byte changed it harms
 * nobody. */
#include "role/border.h"

#include "base/test.h"

enum { ARENA_MAX = 64 << 20 };

/* ---- one sample of each message ---- */

static struct recipient recipients[] = {
    { .address = STR("anna@example.org"), .orcpt = STR("rfc822;anna@example.org"), .given = STR("a@example.org"),
      .reverse_path = STR("owner-list@example.org"), .notify = NOTIFY_SUCCESS | NOTIFY_DELAY, .origin = RECIPIENT_MEMBER },
    { .address = STR("list@example.org"), .notify = NOTIFY_SUCCESS, .origin = RECIPIENT_EXPANDED },
    { .address = STR("\"b b\"@example.net"), .origin = RECIPIENT_GIVEN },
};
static const struct envelope envelope = {
    .reverse_path = STR("sender@client.test"), .envid = STR("QQ314159"), .helo = STR("client.test"),
    .client = STR("192.0.2.1"), .session = STR("0123456789ab"), .size = 12345, .accepted_wall = 1700000000000000000,
    .hold_until = 0, .ret = RET_HDRS, .body = BODY_8BITMIME, .smtputf8 = true, .trusted = true,
    .trace = STR("Received: from client.test\r\n"), .recipients = recipients, .recipient_count = 3,
};
static const struct message_id id = { 0x0123456789abcdef, 0xfedcba9876543210 };

static bool
same_envelope(const struct envelope *a, const struct envelope *b)
{
    if (!str_eq(a->reverse_path, b->reverse_path) || !str_eq(a->envid, b->envid) || !str_eq(a->trace, b->trace) ||
        a->size != b->size || a->ret != b->ret || a->body != b->body || a->recipient_count != b->recipient_count)
        return false;
    for (size_t i = 0; i < a->recipient_count; i++)
        if (!str_eq(a->recipients[i].address, b->recipients[i].address) ||
            a->recipients[i].origin != b->recipients[i].origin || a->recipients[i].notify != b->recipients[i].notify ||
            str_is_absent(a->recipients[i].orcpt) != str_is_absent(b->recipients[i].orcpt))
            return false;
    return true;
}

static size_t
put_submit(void *memory, size_t cap)
{
    struct recipient_status statuses[3] = { { 0 }, { .state = STATE_EXPANDED, .notices = NOTICE_SUCCESS_OWED }, { 0 } };
    struct border_submit submit = { id, envelope, statuses, S("Subject: x\r\n\r\nx\r\n") };
    struct put p = put_init(memory, cap);

    border_put_submit(&p, &submit);
    return p.full || p.len > border_submit_size(&submit) ? 0 : p.len;
}

static bool
take_submit(struct str in, struct arena *arena, bool *out_same)
{
    struct take t = take_init(in);
    struct border_submit s;

    if (!border_take_submit(&t, arena, &s))
        return false;
    *out_same = message_id_eq(s.id, id) && same_envelope(&s.envelope, &envelope) && s.statuses &&
                s.statuses[1].state == STATE_EXPANDED && s.statuses[1].notices == NOTICE_SUCCESS_OWED &&
                s.statuses[0].state == STATE_PENDING && str_eq(s.content, S("Subject: x\r\n\r\nx\r\n"));
    for (size_t i = 0; s.statuses && i < s.envelope.recipient_count; i++)
        if (s.statuses[i].state != STATE_PENDING && s.statuses[i].state != STATE_EXPANDED &&
            s.statuses[i].state != STATE_SUPPRESSED)
            *out_same = false;
    return true;
}

static const struct sts_answer policy = {
    .found = true, .id = STR("20160831085700Z"), .fetched_wall = 5 * SECOND, .expires_wall = 9 * SECOND,
    .result = TLS_RESULT_STS_FETCH_ERROR, .why = STR("no route"),
    .policy = { .mode = STS_ENFORCE, .max_age = 4, .mx_count = 2, .mx = (struct str[]){ STR("a.example"), STR("*.b.example") } },
};

static size_t
put_policy(void *memory, size_t cap)
{
    struct put p = put_init(memory, cap);

    border_put_policy(&p, &policy);
    return p.full || p.len > BORDER_POLICY_FIXED + border_policy_size(&policy) ? 0 : p.len;
}

static bool
take_policy(struct str in, struct arena *arena, bool *out_same)
{
    struct take t = take_init(in);
    struct sts_answer a = { 0 };
    bool known;

    if (!border_take_policy(&t, arena, &known, &a))
        return false;
    *out_same = known && a.found && str_eq(a.id, policy.id) && a.fetched_wall == policy.fetched_wall &&
                a.expires_wall == policy.expires_wall && a.result == policy.result && str_eq(a.why, policy.why) &&
                a.policy.mode == STS_ENFORCE && a.policy.max_age == 4 && a.policy.mx_count == 2 &&
                str_eq(a.policy.mx[1], S("*.b.example"));
    return true;
}

static size_t
put_job_to(size_t host_count, void *memory, size_t cap)
{
    struct prefix prefixes[] = { { .bits = 8 } };
    struct delivery_host hosts[LIMIT_MX_HOSTS + 1] = { { .name = STR("mx1.example.org"), .preference = 10 },
                                                       { .name = STR("192.0.2.7"), .preference = 20, .turn = 1 } };
    struct str mailboxes[] = { S("example.org/anna"), S("example.org/list"), S("example.net/b") };
    uint32_t indices[] = { 3, 5, 70000 };
    struct border_job job = {
        .id = id, .kind = DELIVERY_MAILDIR, .alone = true, .port = 25, .families = HOST_IPV4, .configured = true,
        .domain = S("example.org"), .helo = S("mx.local.test"), .messages_per_connection = 7,
        .tls = ROUTE_TLS_VERIFY, .smtps = true, .hosts_secure = true, .tls_ca = S("/ca.pem"), .login_user = S("u"),
        .login_file = S("/p"), .login_token = true, .allow_private = prefixes, .allow_private_count = 1,
        .hosts = hosts, .host_count = host_count, .envelope = envelope, .indices = indices, .mailboxes = mailboxes,
        .base = S("anna /var/mail"), .quota = 1 << 20, .content = S("Subject: x\r\n\r\nx\r\n"),
    };
    struct put p = put_init(memory, cap);

    address_from_ip(S("127.0.0.0"), &prefixes[0].base);
    address_from_ip(S("192.0.2.7"), &hosts[1].fixed);
    address_from_ip(S("192.0.2.25"), &job.source_ipv4);
    border_put_job(&p, &job);
    return p.full || p.len > border_job_size(&job) ? 0 : p.len;
}

static size_t
put_job(void *memory, size_t cap)
{
    return put_job_to(2, memory, cap);
}

static bool
take_job(struct str in, struct arena *arena, bool *out_same)
{
    struct take t = take_init(in);
    struct border_job j;

    if (!border_take_job(&t, arena, &j))
        return false;
    *out_same = message_id_eq(j.id, id) && j.kind == DELIVERY_MAILDIR && j.alone && j.port == 25 && j.host_count == 2 &&
                j.hosts[0].preference == 10 && j.hosts[0].turn == 0 && j.hosts[1].preference == 20 && j.hosts[1].turn == 1 &&
                str_eq(j.hosts[1].name, S("192.0.2.7")) && j.hosts[1].fixed.family == ADDRESS_IPV4 &&
                j.hosts[0].fixed.family == ADDRESS_NONE && same_envelope(&j.envelope, &envelope) && j.indices[2] == 70000 &&
                j.mailboxes && str_eq(j.mailboxes[1], S("example.org/list")) && str_eq(j.base, S("anna /var/mail")) &&
                j.quota == 1 << 20 && j.tls == ROUTE_TLS_VERIFY && j.smtps && j.hosts_secure && str_eq(j.tls_ca, S("/ca.pem")) &&
                str_eq(j.login_user, S("u")) && str_eq(j.login_file, S("/p")) && j.login_token && j.messages_per_connection == 7 && j.allow_private_count == 1 && j.allow_private[0].bits == 8 &&
                j.source_ipv4.family == ADDRESS_IPV4 && str_eq(j.content, S("Subject: x\r\n\r\nx\r\n"));
    return true;
}

static size_t
put_outcomes(void *memory, size_t cap)
{
    struct outcome outcomes[] = {
        { .kind = OUTCOME_DELIVERED, .enhanced = STR("2.0.0"), .reply = STR("250 ok"), .remote = STR("mx [192.0.2.1]:25"),
          .dsn_passed_on = true },
        { .kind = OUTCOME_FAILED, .about = OUTCOME_ABOUT_RECIPIENT, .enhanced = STR("5.1.1"), .reply = STR("550 no") },
    };
    struct delivery_figures figures = { .connect = 1, .transfer = 2, .connections = 3, .transactions = 4,
                                        .tls = { .known = true, .verified = true, .level = TLS_DANE, .result = TLS_RESULT_EXPIRED,
                                                 .protocol = "TLSv1.3", .domain = "b.example" },
                                        .hosts_up = 5, .hosts_down = 1u << 31 };
    struct put p = put_init(memory, cap);

    border_put_figures(&p, &figures);
    border_put_outcomes(&p, outcomes, 2);
    return p.full || p.len > border_outcomes_size(outcomes, 2) ? 0 : p.len;
}

static bool
take_outcomes(struct str in, struct arena *arena, bool *out_same)
{
    struct take t = take_init(in);
    struct delivery_figures figures;
    struct outcome outcomes[2];

    border_take_figures(&t, &figures);
    if (!border_take_outcomes(&t, arena, outcomes, 2))
        return false;
    *out_same = figures.connect == 1 && figures.transactions == 4 && figures.hosts_up == 5 && figures.tls.verified &&
                figures.tls.level == TLS_DANE && figures.tls.result == TLS_RESULT_EXPIRED &&
                str_eq(str_from_cstr(figures.tls.protocol), S("TLSv1.3")) &&
                str_eq(str_from_cstr(figures.tls.domain), S("b.example")) &&
                figures.hosts_down == 1u << 31 && outcomes[0].kind == OUTCOME_DELIVERED &&
                outcomes[0].dsn_passed_on && str_eq(outcomes[1].reply, S("550 no")) && outcomes[1].kind == OUTCOME_FAILED;
    return true;
}

static size_t
put_compose(void *memory, size_t cap)
{
    struct dsn_recipient reported[] = {
        { .action = DSN_FAILED, .address = STR("anna@example.org"), .given = STR("a@example.org"),
          .orcpt = STR("rfc822;a@example.org"), .status = STR("5.1.1"), .reply = STR("550 no such user"),
          .remote = STR("mx [192.0.2.1]:25"), .retry_until_wall = 6 },
        { .action = DSN_FAILED, .address = STR("b@example.org"), .status = STR("5.0.0") },
    };
    struct border_compose c = { .trace = STR("Received: from x\r\n"), .bare = true,
                                .dsn = { .id = id, .original = { 1, 2 }, .hostname = STR("mx.local.test"),
                                         .to = STR("sender@client.test"), .envid = STR("QQ"), .arrival_wall = 3,
                                         .now_wall = 4, .original_size = 99, .ret = RET_FULL, .original_body = BODY_8BITMIME,
                                         .original_utf8 = true, .recipients = reported, .recipient_count = 2 } };
    struct put p = put_init(memory, cap);

    border_put_compose(&p, &c);
    return p.full || p.len > border_compose_size(&c) ? 0 : p.len;
}

static bool
take_compose(struct str in, struct arena *arena, struct border_compose *out)
{
    struct take t = take_init(in);

    return border_take_compose(&t, arena, out);
}

static bool
take_compose_whole(struct str in, struct arena *arena, bool *out_same)
{
    struct border_compose c;

    if (!take_compose(in, arena, &c))
        return false;
    *out_same = c.bare && c.dsn.recipient_count == 2 && message_id_eq(c.dsn.id, id) && c.dsn.original_size == 99 &&
                str_eq(c.dsn.recipients[0].reply, S("550 no such user")) && c.dsn.recipients[0].retry_until_wall == 6 &&
                str_eq(c.dsn.to, S("sender@client.test"));
    return true;
}

static size_t
put_listed(void *memory, size_t cap)
{
    struct border_listed l = { .id = id, .size = 8, .accepted_wall = 9, .held = true, .deaths = 1, .pending = 3,
                               .reverse_path = STR("a@client.test"), .recipient = STR("b@example.org"), .place = STR("held"),
                               .reason = STR("why"), .next_wall = 10, .attempts = 11 };
    struct put p = put_init(memory, cap);

    border_put_listed(&p, &l);
    return p.full || p.len > BORDER_LISTED_BYTES ? 0 : p.len;
}

static bool
take_listed(struct str in, struct arena *arena, bool *out_same)
{
    struct take t = take_init(in);
    struct border_listed l;

    (void)arena;
    border_take_listed(&t, &l);
    *out_same = l.held && l.pending == 3 && str_eq(l.recipient, S("b@example.org")) && l.attempts == 11;
    return take_end(&t);
}

static size_t
put_shown(void *memory, size_t cap)
{
    struct border_shown_recipient rows[] = {
        { .address = STR("b@example.org"), .given = STR("c@example.org"), .place = STR("waiting"), .reason = STR("why"),
          .last_reply = STR("450 4.2.0 later"), .last_remote = STR("mx [192.0.2.1]:25"), .state = STATE_PENDING,
          .attempts = 2, .next_wall = 3 },
        { .address = STR("d@example.org"), .place = STR("delivered"), .state = STATE_DELIVERED },
    };
    struct border_shown s = { .id = id, .size = 1, .accepted_wall = 2, .expires_wall = 3, .held = true, .deaths = 2,
                              .held_why = STR("why"), .reverse_path = STR("a@client.test"), .client = STR("192.0.2.1"),
                              .helo = STR("client.test"), .session = STR("s"), .envid = STR("e"), .recipient_count = 2,
                              .recipients = rows, .shown = 2 };
    struct put p = put_init(memory, cap);

    border_put_shown(&p, &s);
    return p.full || p.len > border_shown_size(&s) ? 0 : p.len;
}

static bool
take_shown(struct str in, struct arena *arena, bool *out_same)
{
    struct take t = take_init(in);
    struct border_shown s;

    if (!border_take_shown(&t, arena, &s))
        return false;
    *out_same = s.shown == 2 && s.deaths == 2 && str_eq(s.recipients[0].last_reply, S("450 4.2.0 later")) &&
                s.recipients[1].state == STATE_DELIVERED && str_eq(s.envid, S("e"));
    return true;
}

static size_t
put_address(void *memory, size_t cap)
{
    struct put p = put_init(memory, cap);
    struct address a;

    address_parse(S("[2001:db8::1]:25"), &a);
    border_put_address(&p, &a);
    return p.full ? 0 : p.len;
}

static bool
take_address(struct str in, struct arena *arena, bool *out_same)
{
    struct take t = take_init(in);
    struct address a = border_take_address(&t), wanted;

    (void)arena;
    address_parse(S("[2001:db8::1]:25"), &wanted);
    *out_same = address_eq(&a, &wanted);
    return take_end(&t);
}

static size_t
put_auth(void *memory, size_t cap)
{
    struct border_auth a = { .exchange = 7, .mechanism = S("plain"), .initial = S(""), .tls = true, .exporter = S("0123"),
                             .certificate = S("anna@example.org") };
    struct put p = put_init(memory, cap);

    address_from_ip(S("192.0.2.1"), &a.client);
    border_put_auth(&p, &a);
    return p.full || p.len > BORDER_AUTH_BYTES ? 0 : p.len;
}

static bool
take_auth(struct str in, struct arena *arena, bool *out_same)
{
    struct take t = take_init(in);
    struct border_auth a;

    (void)arena;
    bool fine = border_take_auth(&t, &a);
    *out_same = fine && a.exchange == 7 && str_eq(a.mechanism, S("plain")) && !str_is_absent(a.initial) && a.initial.len == 0 &&
                a.client.family == ADDRESS_IPV4 && a.tls && str_eq(a.exporter, S("0123")) && str_is_absent(a.end_point) &&
                str_eq(a.certificate, S("anna@example.org"));
    return fine;
}

static size_t
put_auth_step(void *memory, size_t cap)
{
    struct put p = put_init(memory, cap);

    border_put_auth_step(&p, &(struct border_auth_step){ .exchange = 7, .response = S("c=biws") });
    return p.full ? 0 : p.len;
}

static bool
take_auth_step(struct str in, struct arena *arena, bool *out_same)
{
    struct take t = take_init(in);
    struct border_auth_step s;

    (void)arena;
    bool fine = border_take_auth_step(&t, &s);
    *out_same = fine && s.exchange == 7 && !s.cancelled && str_eq(s.response, S("c=biws"));
    return fine;
}

static size_t
put_verdict(void *memory, size_t cap)
{
    struct str senders[] = { S("sales@example.org"), S("@example.net") };
    struct border_verdict v = { .status = SASL_OK, .user = S("anna"), .senders = senders, .sender_count = 2 };
    struct put p = put_init(memory, cap);

    border_put_verdict(&p, &v);
    return p.full || p.len > BORDER_VERDICT_BYTES ? 0 : p.len;
}

static bool
take_verdict(struct str in, struct arena *arena, bool *out_same)
{
    struct take t = take_init(in);
    struct border_verdict v;

    bool fine = border_take_verdict(&t, arena, &v);
    *out_same = fine && v.status == SASL_OK && str_eq(v.user, S("anna")) && v.sender_count == 2 &&
                str_eq(v.senders[1], S("@example.net"));
    return fine;
}

static size_t
put_challenge(void *memory, size_t cap)
{
    struct put p = put_init(memory, cap);

    border_put_verdict(&p, &(struct border_verdict){ .status = SASL_CHALLENGE, .bytes = S("Username:") });
    return p.full ? 0 : p.len;
}

static bool
take_challenge(struct str in, struct arena *arena, bool *out_same)
{
    struct take t = take_init(in);
    struct border_verdict v;

    bool fine = border_take_verdict(&t, arena, &v);
    *out_same = fine && v.status == SASL_CHALLENGE && str_eq(v.bytes, S("Username:"));
    return fine;
}

static size_t
put_spend(void *memory, size_t cap)
{
    struct put p = put_init(memory, cap);

    border_put_spend(&p, &(struct border_spend){ S("anna"), 1, 25 });
    return p.full ? 0 : p.len;
}

static bool
take_spend(struct str in, struct arena *arena, bool *out_same)
{
    struct take t = take_init(in);
    struct border_spend s;

    (void)arena;
    bool fine = border_take_spend(&t, &s);
    *out_same = fine && str_eq(s.user, S("anna")) && s.messages == 1 && s.recipients == 25;
    return fine;
}

static size_t
put_spent(void *memory, size_t cap)
{
    struct put p = put_init(memory, cap);

    border_put_spent(&p, &(struct border_spent){ SPEND_RECIPIENTS, 500, 99 });
    return p.full ? 0 : p.len;
}

static bool
take_spent(struct str in, struct arena *arena, bool *out_same)
{
    struct take t = take_init(in);
    struct border_spent s;

    (void)arena;
    bool fine = border_take_spent(&t, &s);
    *out_same = fine && s.answer == SPEND_RECIPIENTS && s.limit == 500 && s.again_wall == 99;
    return fine;
}

static const struct {
    const char *why;
    size_t (*put)(void *memory, size_t cap); /* 0: it did not fit into the size it says */
    bool (*take)(struct str in, struct arena *, bool *out_same);
    bool open_end; /* content follows to the end: a cut there is another message, not a broken one */
} cases[] = {
    { "SUBMIT", put_submit, take_submit, true },
    { "DELIVER", put_job, take_job, true },
    { "POLICY", put_policy, take_policy, false },
    { "outcomes", put_outcomes, take_outcomes, false },
    { "COMPOSE", put_compose, take_compose_whole, false },
    { "a line of LIST", put_listed, take_listed, false },
    { "SHOW", put_shown, take_shown, false },
    { "AUTH", put_auth, take_auth, false },
    { "AUTH_STEP", put_auth_step, take_auth_step, false },
    { "a user", put_verdict, take_verdict, false },
    { "a challenge", put_challenge, take_challenge, false },
    { "SPEND", put_spend, take_spend, false },
    { "what was spent", put_spent, take_spent, false },
    { "an address", put_address, take_address, false },
};
enum { CASES = sizeof cases / sizeof *cases, OPEN_TAIL = 17 };

/* ---- the tests ---- */

static bool
try_take(struct mem *mem, size_t i, struct str in, bool *out_same)
{
    struct str edge = test_edge(in);
    struct arena arena;

    *out_same = false;
    arena_init(&arena, mem, 4096, ARENA_MAX);
    bool taken = cases[i].take(edge, &arena, out_same);
    arena_done(&arena);
    test_edge_free(edge);
    return taken;
}

static void
each_message_comes_back(struct test *t)
{
    struct mem mem = mem_libc();
    unsigned char memory[8192];
    bool same;

    for (size_t i = 0; i < CASES; i++) {
        test_case(t, cases[i].why);
        size_t len = cases[i].put(memory, sizeof memory);
        EXPECT(t, len > 0);
        EXPECT(t, try_take(&mem, i, str_new(memory, len), &same));
        EXPECT(t, same);
    }
}

static void
cut_anywhere_it_is_refused(struct test *t)
{
    struct mem mem = mem_libc();
    unsigned char memory[8192];
    bool same;

    for (size_t i = 0; i < CASES; i++) {
        test_case(t, cases[i].why);
        size_t len = cases[i].put(memory, sizeof memory);
        for (size_t cut = 0; cut < len; cut++) {
            bool taken = try_take(&mem, i, str_new(memory, cut), &same);
            EXPECT(t, !same);
            EXPECT(t, !taken || (cases[i].open_end && cut >= len - OPEN_TAIL));
        }
        memory[len] = 0;
        bool taken = try_take(&mem, i, str_new(memory, len + 1), &same);
        EXPECT(t, taken == cases[i].open_end);
    }
}

/* Whatever it then says, it is within bounds: the sanitizers and the unmapped page look. A length or count must not
 * lead to more memory than the message's own limits allow: the arena would abort. */
static void
flipped_bytes_do_no_harm(struct test *t)
{
    static const unsigned char values[] = { 0x00, 0x01, 0x7f, 0x80, 0xff };
    struct mem mem = mem_libc();
    unsigned char memory[8192];
    size_t refused = 0;
    bool same;

    for (size_t i = 0; i < CASES; i++) {
        test_case(t, cases[i].why);
        size_t len = cases[i].put(memory, sizeof memory);
        for (size_t at = 0; at < len; at++) {
            unsigned char was = memory[at];
            for (size_t v = 0; v < sizeof values + 8; v++) {
                unsigned value = v < sizeof values ? values[v] : was ^ 1u << (v - sizeof values);
                memory[at] = (unsigned char)value;
                refused += !try_take(&mem, i, str_new(memory, len), &same);
            }
            memory[at] = was;
        }
        EXPECT(t, try_take(&mem, i, str_new(memory, len), &same) && same);
    }
    EXPECT(t, refused > 1000);
}

static void
responses_are_bounded(struct test *t)
{
    static char response[LIMIT_AUTH_MESSAGE + 1], memory[LIMIT_AUTH_MESSAGE + 64];

    for (size_t len = LIMIT_AUTH_MESSAGE; len <= LIMIT_AUTH_MESSAGE + 1; len++) {
        struct put p = put_init(memory, sizeof memory);
        struct border_auth_step step;
        border_put_auth_step(&p, &(struct border_auth_step){ .exchange = 7, .response = str_new(response, len) });
        struct take in = take_init(put_str_so_far(&p));
        EXPECT(t, !p.full && border_take_auth_step(&in, &step) == (len == LIMIT_AUTH_MESSAGE));
    }
}

/* The sender has a bit for each. */
static void
a_job_has_no_more_hosts_than_are_tried(struct test *t)
{
    struct mem mem = mem_libc();
    char memory[16384];

    for (size_t count = LIMIT_MX_HOSTS; count <= LIMIT_MX_HOSTS + 1; count++) {
        struct arena arena;
        struct border_job job;
        struct take take = take_init(str_new(memory, put_job_to(count, memory, sizeof memory)));

        arena_init(&arena, &mem, 4096, ARENA_MAX);
        EXPECT(t, border_take_job(&take, &arena, &job) == (count == LIMIT_MX_HOSTS));
        arena_done(&arena);
    }
}

/* A spool may hold longer addresses than a client may say today. */
static void
addresses_are_as_long_as_in_an_envelope(struct test *t)
{
    static char address[LIMIT_COMMAND_LINE + 1], memory[6 * LIMIT_COMMAND_LINE];
    struct mem mem = mem_libc();

    for (size_t len = LIMIT_COMMAND_LINE; len <= LIMIT_COMMAND_LINE + 1; len++) {
        struct str a = str_new(address, len);
        struct arena arena;
        struct border_shown shown;
        struct border_compose compose;
        struct put p = put_init(memory, sizeof memory);

        arena_init(&arena, &mem, 4096, ARENA_MAX);
        border_put_shown(&p, &(struct border_shown){ .reverse_path = a, .shown = 1,
                                                     .recipients = &(struct border_shown_recipient){ .address = a, .given = a } });
        struct take in = take_init(put_str_so_far(&p));
        EXPECT(t, !p.full && border_take_shown(&in, &arena, &shown) == (len == LIMIT_COMMAND_LINE));
        p = put_init(memory, sizeof memory);
        border_put_compose(&p, &(struct border_compose){ .dsn = { .to = a, .recipient_count = 1,
                                                                  .recipients = &(struct dsn_recipient){ .address = a, .given = a } } });
        in = take_init(put_str_so_far(&p));
        EXPECT(t, !p.full && border_take_compose(&in, &arena, &compose) == (len == LIMIT_COMMAND_LINE));
        arena_done(&arena);
    }
}

TEST_MAIN({ "a job has no more hosts than are tried", a_job_has_no_more_hosts_than_are_tried },
          { "addresses are as long as in an envelope", addresses_are_as_long_as_in_an_envelope },
          { "responses are bounded", responses_are_bounded },
          { "each message comes back", each_message_comes_back }, { "cut anywhere it is refused", cut_anywhere_it_is_refused },
          { "flipped bytes do no harm", flipped_bytes_do_no_harm })
