#include "deliver/smtp.h"

#include "base/check.h"
#include "base/test.h"
#include "net/wire_fake.h"
#include "smtp/test_peer.h"

enum { HOSTS = 3, CONNECTIONS = 6, CONTENT_BYTES = 1024 };

/*
 * A case: hosts of preference 10, 20, 30, each a script; "==" on a line of its own separates the scripts of
 * connections. "-": nobody listens there. wanted: for each recipient D (delivered), R (relayed), L (deferred: later) or
 * F (failed), its enhanced code, '+' if DSN was passed on, and the host that spoke.
 */
struct attempt_case {
    const char *why;
    struct str hosts[HOSTS];
    struct str wanted;
    size_t rcpt_count; /* 0: 2 */
    struct str content; /* absent: "a\r\n" */
    struct str on_wire; /* what the last connection of the first host got behind DATA; absent: not looked at */
    struct str rcpt, reverse_path; /* of the first recipient; absent: the usual */
    struct str seen; /* of each host: u (up), d (down) or - (not tried); absent: not looked at */
    uint32_t messages_per_connection;
    bool lmtp, pool, smtputf8, probe, damaged, require_tls;
    bool by_dns; /* and not the configuration names the hosts */
    uint8_t tls; /* enum tls */
    uint8_t tls_result; /* what is said of the last transaction; TLS_RESULT_OK: not looked at */
    size_t jobs;       /* of the same kind, one after another; 0: 1 */
    bool patient_first; /* the first job gives each reply minutes, where the others give it a second */
    uint8_t body, notify;
    const char *by;    /* "N", "RT": to be delivered within ten minutes, or of old: "oN" (RFC 2852) */
};

enum tls { TLS_OFF, TLS_WORKS, TLS_FAILS, TLS_STRICT, TLS_STRICT_FAILS, TLS_AT_ONCE, TLS_NOT_HERE, TLS_TESTED };

struct host {
    struct rt *rt;
    struct scope *scope;
    struct listener *own_listener;
    struct str scripts;
    struct test_peer *own_peers[CONNECTIONS];
    size_t count;
    bool too_many;
};

static void
serve(void *arg)
{
    struct host *host = arg;
    struct stream *stream;
    struct address peer;

    while (!err_is(listener_accept(host->own_listener, FOREVER, &stream, &peer))) {
        struct str script = str_slice(host->scripts, 0, str_find(host->scripts, S("==\n")));

        if (host->scripts.len == 0 || host->count == CONNECTIONS) {
            host->too_many = true;
            stream_close(stream);
            continue;
        }
        host->scripts = str_from(host->scripts, script.len + 3);
        struct test_peer *p = mem_new(rt_mem(host->rt), struct test_peer);
        test_peer_init(p, stream, script);
        p->content = text_init(mem_alloc(rt_mem(host->rt), CONTENT_BYTES), CONTENT_BYTES);
        host->own_peers[host->count++] = p;
        scope_start(host->scope, "peer", test_peer_run, p);
    }
}

struct source {
    struct str content;
    bool damaged; /* its second half */
    uint8_t tls;
    size_t in_clear;
};

/* ---- a handshake that is nothing but its end, and hides nothing ---- */

static struct err
start_tls(void *arg, struct str host, const struct tls_policy *policy, struct wire *wire, int64_t until,
          struct client_encryption *out, enum tls_result *out_result, struct text *reason)
{
    const struct source *source = arg;

    (void)until;
    (void)policy;
    if (source->tls == TLS_TESTED)
        text_put(reason, S("expired"));
    *out_result = source->tls == TLS_STRICT_FAILS || source->tls == TLS_TESTED ? TLS_RESULT_EXPIRED : TLS_RESULT_OK;
    if (host.len == 0 || source->tls == TLS_FAILS || source->tls == TLS_STRICT_FAILS) {
        text_put(reason, S("no shared cipher"));
        return ERR(ERR_PROTOCOL, "speak TLS");
    }
    *out = (struct client_encryption){ .protocol = S("TLSv1.3"), .cipher = S("c") };
    wire_fake_cover_tight(wire);
    return OK;
}

static struct err
tls_policy(void *arg, const struct delivery_host *host, const struct delivery_addresses *addresses, int64_t until,
           struct arena *arena, struct tls_policy *out)
{
    const struct source *source = arg;

    (void)until;
    (void)arena;
    CHECK(host->name.len > 0 && addresses->port > 0);
    *out = (struct tls_policy){ .level = TLS_MAY };
    if (source->tls == TLS_OFF)
        out->level = TLS_NEVER;
    else if (source->tls >= TLS_STRICT)
        *out = (struct tls_policy){ .level = TLS_VERIFY, .source = TLS_BY_RULE, .testing = source->tls == TLS_TESTED };
    if (source->tls == TLS_NOT_HERE && host->preference == 10)
        *out = (struct tls_policy){ .level = TLS_REFUSED, .source = TLS_BY_STS, .why = S("it is not in the policy") };
    return OK;
}

static void
note_trouble(void *arg, struct str host, const struct tls_policy *policy, enum tls_result result, struct str why, struct str so)
{
    struct source *source = arg;

    CHECK(host.len > 0 && why.len > 0 && so.len > 0 && policy->level <= TLS_REFUSED);
    CHECK(!str_starts(why, S("454 454"))); /* a reply's text has its code */
    CHECK((result == TLS_RESULT_OK) == (policy->level == TLS_REFUSED)); /* which says so by itself, or else there is one */
    source->in_clear += str_ends(so, S("in clear"));
}

static struct err
content_read(void *arg, uint64_t offset, void *memory, size_t len, int64_t until, size_t *out_len)
{
    const struct source *source = arg;
    struct text t = text_init(memory, len);

    (void)until;
    if (source->damaged && offset >= source->content.len / 2)
        return ERR(ERR_CORRUPT, "read");
    if (source->damaged)
        len = source->content.len / 2;
    text_put(&t, str_slice(source->content, (size_t)offset, (size_t)offset + len));
    *out_len = t.len;
    return OK;
}

static struct err
no_addresses(void *arg, struct str host, unsigned families, int64_t until, struct arena *arena, struct host_result *out)
{
    (void)arg, (void)host, (void)families, (void)until, (void)arena;
    *out = (struct host_result){ .status = HOST_NXDOMAIN };
    return OK;
}

static void
put_outcome(struct text *t, const struct outcome *o)
{
    text_putf(t, "%c%.*s%s", "DRLF"[o->kind], STR_ARG(o->enhanced), o->dsn_passed_on ? "+" : "");
    if (outcome_is_remote(o) && o->remote.len > 0)
        text_putf(t, " %.*s", STR_ARG(str_slice(o->remote, 0, str_find_byte(o->remote, '.'))));
}

struct world {
    struct test *t;
    const struct attempt_case *c;
};

static void
run_case(struct rt *rt, void *arg)
{
    struct world *world = arg;
    struct test *t = world->t;
    const struct attempt_case *c = world->c;
    struct scope servers, peers;
    struct host hosts[HOSTS] = { 0 };
    struct delivery_host mx[HOSTS] = { 0 };
    size_t host_count = 0, count = c->rcpt_count ? c->rcpt_count : 2;
    struct arena arena;
    struct address loopback;
    struct prefix nearby;
    struct text got = text_init(mem_alloc(rt_mem(rt), 8192), 8192);

    arena_init(&arena, rt_mem(rt), 4096, (size_t)1 << 20);
    scope_init(&servers, rt);
    scope_init(&peers, rt);
    EXPECT(t, address_parse(S("127.0.0.1:0"), &loopback) && prefix_parse(S("127.0.0.0/8"), &nearby));
    for (; host_count < HOSTS && !str_is_absent(c->hosts[host_count]); host_count++) {
        struct host *host = &hosts[host_count];

        *host = (struct host){ .rt = rt, .scope = &peers, .scripts = c->hosts[host_count] };
        EXPECT(t, !err_is(listener_open(rt, &loopback, &host->own_listener)));
        mx[host_count] = (struct delivery_host){
            .name = arena_printf(&arena, "h%zu.example", host_count + 1),
            .preference = (uint16_t)(10 * (host_count + 1)),
            .fixed = listener_address(host->own_listener),
        };
        if (str_eq(host->scripts, S("-"))) {
            listener_close(host->own_listener);
            host->own_listener = NULL;
            host->scripts = S("");
        } else {
            scope_start(&servers, "server", serve, host);
        }
    }

    struct recipient *rcpt = arena_alloc(&arena, count * sizeof *rcpt);
    struct outcome *outcomes = arena_alloc(&arena, count * sizeof *outcomes);
    for (size_t i = 0; i < count; i++) {
        rcpt[i].address = arena_printf(&arena, "u%zu@b.example", i);
        rcpt[i].notify = c->notify;
    }
    if (!str_is_absent(c->rcpt))
        rcpt[0].address = c->rcpt;
    struct source source = { str_is_absent(c->content) ? S("a\r\n") : c->content, c->damaged, c->tls, 0 };
    struct envelope envelope = {
        .reverse_path = str_is_absent(c->reverse_path) ? S("a@a.example") : c->reverse_path,
        .trace = S("Received: x\r\n"),
        .size = source.content.len,
        .body = c->body,
        .smtputf8 = c->smtputf8,
        .require_tls = c->require_tls,
        .accepted_wall = rt_wall(rt),
    };
    struct str by = str_from_cstr(c->by ? c->by : "");
    envelope.deliver_within = by.len > 0 ? 10 * MINUTE : 0;
    envelope.accepted_wall -= str_has_byte(by, 'o') ? HOUR : 0;
    envelope.deliver_or_return = str_has_byte(by, 'R');
    envelope.deliver_trace = str_has_byte(by, 'T');
    struct delivery_job job = { &envelope, rcpt, count, mx, host_count, .probe = c->probe, .configured = !c->by_dns };
    struct delivery_settings settings = {
        .lmtp = c->lmtp,
        .helo = S("me.example"),
        .allow_private = &nearby,
        .allow_private_count = 1,
        .own_names = &S("me.example"),
        .own_name_count = 1,
        .connect = 2 * SECOND,
        .messages_per_connection = c->messages_per_connection,
        .smtps = c->tls == TLS_AT_ONCE,
    };
    const struct client_times times = { .greeting = SECOND, .hello = SECOND, .mail = SECOND, .rcpt = SECOND, .data = SECOND,
                                        .block = SECOND, .final = SECOND, .quit = SECOND };
    struct delivery_hooks hooks = {
        .arg = &source, .addresses = no_addresses, .read = content_read, .tls_policy = tls_policy, .start_tls = start_tls, .tls_trouble = note_trouble,
    };
    struct connections_settings keep = connections_settings_default();
    struct connections *pool = c->pool ? connections_new(rt, &keep) : NULL;
    struct delivery_figures figures;

    for (size_t i = 0; i < (c->jobs ? c->jobs : 1); i++) {
        if (i > 0)
            text_put(&got, S("; "));
        settings.times = c->patient_first && i == 0 ? client_times_default() : times;
        smtp_deliver(rt, &job, &settings, &hooks, pool, &arena, outcomes, &figures);
        for (; source.in_clear > 0; source.in_clear--)
            text_put(&got, S("clear "));
        for (size_t at = 0; at < count && at < 4; at++) {
            if (at > 0)
                text_put(&got, S(", "));
            put_outcome(&got, &outcomes[at]);
        }
        if (count > 4)
            for (size_t at = 4, same = 0; at < count; at++) {
                same = at > 4 && outcomes[at].kind == outcomes[at - 1].kind ? same + 1 : 1;
                if (at + 1 == count || outcomes[at].kind != outcomes[at + 1].kind)
                    text_putf(&got, ", %c*%zu", "DRLF"[outcomes[at].kind], same);
            }
    }
    if (pool)
        connections_free(pool);
    EXPECT_STR(t, text_str(&got), c->wanted);
    if (c->tls_result != TLS_RESULT_OK)
        EXPECT_INT(t, figures.tls.result, c->tls_result);
    for (size_t i = 0; i < host_count && !str_is_absent(c->seen); i++) {
        bool up = figures.hosts_up >> i & 1, down = figures.hosts_down >> i & 1;
        EXPECT_INT(t, up ? 'u' : down ? 'd' : '-', c->seen.ptr[i]);
    }
    EXPECT(t, !err_is(scope_wait(&peers, within(rt, 5 * SECOND))));
    scope_end(&servers);
    scope_end(&peers);
    for (size_t i = 0; i < host_count; i++) {
        EXPECT(t, !hosts[i].too_many);
        EXPECT_INT(t, hosts[i].scripts.len, 0); /* as many connections as there are scripts */
        for (size_t at = 0; at < hosts[i].count; at++) {
            EXPECT(t, hosts[i].own_peers[at]->ended);
            EXPECT_STR(t, str_from_cstr(hosts[i].own_peers[at]->failure), S(""));
            if (i == 0 && at + 1 == hosts[i].count && !str_is_absent(c->on_wire))
                EXPECT_STR(t, text_str(&hosts[i].own_peers[at]->content), c->on_wire);
            mem_free(rt_mem(rt), hosts[i].own_peers[at]->content.ptr, CONTENT_BYTES);
            mem_free(rt_mem(rt), hosts[i].own_peers[at], sizeof(struct test_peer));
        }
        if (hosts[i].own_listener)
            listener_close(hosts[i].own_listener);
    }
    arena_done(&arena);
    mem_free(rt_mem(rt), got.ptr, 8192);
}

static void
run_cases(struct test *t, const struct attempt_case *cases, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct world world = { t, &cases[i] };

        test_case(t, cases[i].why);
        EXPECT(t, !err_is(rt_run(run_case, &world)));
    }
}

#define HI    "S: 220 hi\nC: EHLO me.example\nS: 250-hi\nS: 250-DSN\nS: 250 PIPELINING\n"
#define MAIL  "C: MAIL FROM:<a@a.example>\n"
#define RCPT0 "C: RCPT TO:<u0@b.example>\n"
#define RCPT1 "C: RCPT TO:<u1@b.example>\n"
#define QUIT  "C: QUIT\nS: 221 bye\n"
#define GROUP MAIL RCPT0 RCPT1 "C: DATA\n"
#define OK3   "S: 250 ok\nS: 250 ok\nS: 250 ok\n"
#define TAKE  GROUP OK3 "S: 354 go\nD\nS: 250 2.6.0 taken\n"
#define GOOD  STR(HI TAKE QUIT)
#define MIME(type, encoding)                                                                                           \
    "MIME-Version: 1.0\r\nContent-Type: " type "\r\nContent-Transfer-Encoding: " encoding "\r\n\r\n"
#define TRACE "Received: x\r\n"
#define MESSAGE "C: MAIL *\nS: 250 ok\nC: RCPT *\nS: 250 ok\nC: DATA\nS: 354 go\nD\nS: 250 ok\n"
#define NOT_REACHED STR("")

/* Each row of the decided table, standards 5.2, for a host alone and for one with a better behind it. */
static void
follows_the_reply_table(struct test *t)
{
    static const struct attempt_case cases[] = {
        { "all is well", { GOOD }, STR("D2.6.0+ h1, D2.6.0+ h1") },
        { "no connection: next host", { STR("-"), GOOD }, STR("D2.6.0+ h2, D2.6.0+ h2") },
        { "no connection: defer", { STR("-") }, STR("L4.4.1, L4.4.1") },
        { "greeting 4xx: next host", { STR("S: 450 no\n" QUIT), GOOD }, STR("D2.6.0+ h2, D2.6.0+ h2") },
        { "greeting 4xx: defer", { STR("S: 450 no\n" QUIT) }, STR("L4.2.0 h1, L4.2.0 h1") },
        { "greeting 421: next host", { STR("S: 421 no\nW\n"), GOOD }, STR("D2.6.0+ h2, D2.6.0+ h2") },
        { "greeting 5xx: next host", { STR("S: 554 5.7.1 no\n" QUIT), GOOD }, STR("D2.6.0+ h2, D2.6.0+ h2") },
        { "greeting 5xx: defer", { STR("S: 554 5.7.1 no\n" QUIT) }, STR("L4.7.1 h1, L4.7.1 h1") },
        { "greeting 521 by all: fail", { STR("S: 521 no\n" QUIT), STR("S: 521 no\n" QUIT) },
          STR("F5.3.2 h2, F5.3.2 h2") },
        { "greeting 521 by one, the other is down: defer", { STR("S: 521 no\n" QUIT), STR("-") },
          STR("L4.3.2 h1, L4.3.2 h1") },
        { "greeting lost: next host", { STR("R\n"), GOOD }, STR("D2.6.0+ h2, D2.6.0+ h2") },
        { "greeting times out: next host", { STR("Z\n"), GOOD }, STR("D2.6.0+ h2, D2.6.0+ h2") },
        { "greeting lost: defer", { STR("H\n") }, STR("L4.4.2, L4.4.2") },
        { "EHLO 4xx: next host", { STR("S: 220 hi\nC: EHLO *\nS: 450 no\n" QUIT), GOOD }, STR("D2.6.0+ h2, D2.6.0+ h2")
          },
        { "EHLO 5xx: HELO", { STR("S: 220 hi\nC: EHLO *\nS: 500 what\nC: HELO me.example\nS: 250 hi\n" MAIL
          "S: 250 ok\n"
          RCPT0 "S: 250 ok\n" RCPT1 "S: 250 ok\nC: DATA\nS: 354 go\nD\nS: 250 ok\n" QUIT) },
            STR("D2.0.0 h1, D2.0.0 h1") },
        { "EHLO lost: one new connection with HELO", {
          STR("S: 220 hi\nC: EHLO *\nH\n==\nS: 220 hi\nC: HELO me.example\nS: 250 hi\n"
          MAIL "S: 250 ok\n" RCPT0 "S: 250 ok\n" RCPT1 "S: 250 ok\nC: DATA\nS: 354 go\nD\nS: 250 ok\n" QUIT) },
          STR("D2.0.0 h1, D2.0.0 h1") },
        { "EHLO and HELO lost: next host", { STR("S: 220 hi\nC: EHLO *\nH\n==\nS: 220 hi\nC: HELO *\nH\n"), GOOD },
          STR("D2.6.0+ h2, D2.6.0+ h2") },
        { "EHLO and HELO refused: next host", { STR("S: 220 hi\nC: EHLO *\nS: 550 no\nC: HELO *\nS: 550 no\n" QUIT),
          GOOD },
          STR("D2.6.0+ h2, D2.6.0+ h2") },
        { "MAIL 4xx: next host", { STR(HI GROUP "S: 451 4.7.0 later\nS: 503 no\nS: 503 no\nS: 503 no\n" QUIT), GOOD },
          STR("D2.6.0+ h2, D2.6.0+ h2") },
        { "MAIL 4xx: defer all", { STR(HI GROUP "S: 451 4.7.0 later\nS: 503 no\nS: 503 no\nS: 503 no\n" QUIT) },
          STR("L4.7.0 h1, L4.7.0 h1") },
        { "MAIL 5xx: fail all", { STR(HI GROUP "S: 550 5.7.1 no\nS: 503 no\nS: 503 no\nS: 503 no\n" QUIT), NOT_REACHED
          },
          STR("F5.7.1 h1, F5.7.1 h1") },
        { "MAIL lost: next host", { STR(HI GROUP "R\n"), GOOD }, STR("D2.6.0+ h2, D2.6.0+ h2") },
        { "RCPT 4xx: that one", { STR(HI GROUP "S: 250 ok\nS: 450 4.2.1 later\nS: 250 ok\nS: 354 go\nD\nS: 250 ok\n"
          QUIT),
          NOT_REACHED }, STR("L4.2.1 h1, D2.0.0+ h1") },
        { "RCPT 5xx: that one", { STR(HI GROUP "S: 250 ok\nS: 250 ok\nS: 550 5.1.1 no\nS: 354 go\nD\nS: 250 ok\n" QUIT),
          NOT_REACHED }, STR("D2.0.0+ h1, F5.1.1 h1") },
        { "RCPT lost: next host for those without an answer", { STR(HI GROUP "S: 250 ok\nS: 550 5.1.1 no\nR\n"),
          STR(HI MAIL RCPT1 "C: DATA\nS: 250 ok\nS: 250 ok\nS: 354 go\nD\nS: 250 ok\n" QUIT) },
            STR("F5.1.1 h1, D2.0.0+ h2") },
        { "RCPT 421: defer the rest, no other host", { STR(HI GROUP
          "S: 250 ok\nS: 550 5.1.1 no\nS: 421 4.3.2 bye\nW\n"),
          NOT_REACHED }, STR("F5.1.1 h1, L4.3.2 h1") },
        { "RCPT 552 with 5.5.3 counts as 452", { STR(HI GROUP
          "S: 250 ok\nS: 552 5.5.3 many\nS: 552 5.5.3 many\nS: 503 no\n" QUIT) },
          STR("L4.5.3 h1, L4.5.3 h1") },
        { "RCPT 552 without a code: fail", { STR(HI GROUP
          "S: 250 ok\nS: 552 full\nS: 250 ok\nS: 354 go\nD\nS: 250 ok\n" QUIT) }, STR("F5.3.4 h1, D2.0.0+ h1") },
        { "RCPT 552 without a code behind one that was taken: once more", { STR(HI GROUP
          "S: 250 ok\nS: 250 ok\nS: 552 many\nS: 354 go\nD\nS: 250 ok\n" MAIL RCPT1 "C: DATA\n"
          "S: 250 ok\nS: 250 ok\nS: 354 go\nD\nS: 250 ok\n" QUIT) }, STR("D2.0.0+ h1, D2.0.0+ h1") },
        { "RCPT 552 without a code, and again: fail", { STR(HI GROUP
          "S: 250 ok\nS: 250 ok\nS: 552 full\nS: 354 go\nD\nS: 250 ok\n" MAIL RCPT1 "C: DATA\n"
          "S: 250 ok\nS: 552 full\nS: 503 none\n" QUIT) }, STR("D2.0.0+ h1, F5.3.4 h1") },
        { "RCPT 452 without a code, and again: defer", { STR(HI GROUP
          "S: 250 ok\nS: 250 ok\nS: 452 full\nS: 354 go\nD\nS: 250 ok\n" MAIL RCPT1 "C: DATA\n"
          "S: 250 ok\nS: 452 full\nS: 503 none\n" QUIT) }, STR("D2.0.0+ h1, L4.3.1 h1") },
        { "every RCPT refused", { STR(HI GROUP "S: 250 ok\nS: 550 5.1.1 no\nS: 450 4.2.1 no\nS: 554 none\n" QUIT),
          NOT_REACHED },
          STR("F5.1.1 h1, L4.2.1 h1") },
        { "nobody accepted, and 354", { STR(HI GROUP
          "S: 250 ok\nS: 550 5.1.1 no\nS: 450 4.2.1 no\nS: 354 go\nC: .\nS: 250 fine\n"
          QUIT), NOT_REACHED }, STR("F5.1.1 h1, L4.2.1 h1") },
        { "DATA 4xx: next host", { STR(HI GROUP OK3 "S: 451 later\n" QUIT), GOOD }, STR("D2.6.0+ h2, D2.6.0+ h2") },
        { "DATA 4xx: defer the accepted", { STR(HI GROUP "S: 250 ok\nS: 550 5.1.1 no\nS: 250 ok\nS: 451 later\n" QUIT)
          },
          STR("F5.1.1 h1, L4.3.0 h1") },
        { "DATA 5xx: fail the accepted", { STR(HI GROUP "S: 250 ok\nS: 450 4.2.1 no\nS: 250 ok\nS: 554 5.7.1 no\n"
          QUIT),
          NOT_REACHED }, STR("L4.2.1 h1, F5.7.1 h1") },
        { "DATA lost: next host", { STR(HI GROUP OK3 "R\n"), GOOD }, STR("D2.6.0+ h2, D2.6.0+ h2") },
        { "DATA 250 is nonsense: next host", { STR(HI GROUP OK3 "S: 250 fine\nZ\n"), GOOD },
          STR("D2.6.0+ h2, D2.6.0+ h2") },
        { "final 4xx: defer, no other host", { STR(HI GROUP OK3 "S: 354 go\nD\nS: 451 4.3.0 later\n" QUIT), NOT_REACHED
          },
          STR("L4.3.0 h1, L4.3.0 h1") },
        { "final 5xx: fail the accepted", { STR(HI GROUP OK3 "S: 354 go\nD\nS: 554 5.6.0 no\n" QUIT), NOT_REACHED },
          STR("F5.6.0 h1, F5.6.0 h1") },
        { "final lost: unknown, defer, no other host", { STR(HI GROUP OK3 "S: 354 go\nD\nR\n"), NOT_REACHED },
          STR("L4.4.2, L4.4.2") },
        { "final times out: unknown, defer", { STR(HI GROUP OK3 "S: 354 go\nD\nZ\n"), NOT_REACHED },
          STR("L4.4.2, L4.4.2") },
        { "final 421: defer", { STR(HI GROUP OK3 "S: 354 go\nD\nS: 421 4.3.2 bye\nW\n"), NOT_REACHED },
          STR("L4.3.2 h1, L4.3.2 h1") },
        { "final is final, whatever QUIT says", { STR(HI TAKE "C: QUIT\nS: 554 oh no\n"), NOT_REACHED },
          STR("D2.6.0+ h1, D2.6.0+ h1") },
        { "malformed reply: next host", { STR(HI GROUP "S: 25 ok\nZ\n"), GOOD }, STR("D2.6.0+ h2, D2.6.0+ h2") },
        { "words of a server outlast a refused connection", { STR("S: 450 4.7.0 no\n" QUIT), STR("-") },
          STR("L4.7.0 h1, L4.7.0 h1") },
    };

    run_cases(t, cases, sizeof cases / sizeof *cases);
}

#define LOST_AT_EHLO "S: 220 hi\nC: EHLO *\nH\n==\nS: 220 hi\nC: HELO me.example\nS: 250 hi\n"
#define REFUSES_EHLO "S: 220 hi\nC: EHLO *\nS: 550 no\nC: HELO me.example\nS: 250 hi\n"
#define BY_HI "S: 220 hi\nC: EHLO *\nS: 250-hi\nS: 250-DSN\nS: 250-DELIVERBY\nS: 250 PIPELINING\n"
#define BY_REST RCPT0 RCPT1 "C: DATA\n" OK3 "S: 354 go\nD\nS: 250 ok\n" QUIT

static void
keeps_to_what_is_offered(struct test *t)
{
    static const struct attempt_case cases[] = {
        { "relayed where DSN is not offered", { STR("S: 220 hi\nC: EHLO *\nS: 250-hi\nS: 250 PIPELINING\n" TAKE QUIT) },
          STR("R2.6.0 h1, R2.6.0 h1"), .notify = NOTIFY_SUCCESS | NOTIFY_FAILURE },
        { "not relayed where no success is asked for", { STR("S: 220 hi\nC: EHLO *\nS: 250-hi\nS: 250 PIPELINING\n"
          TAKE QUIT) },
          STR("D2.6.0 h1, D2.6.0 h1"), .notify = NOTIFY_FAILURE },
        { "by: passed on, nobody is told", { STR(BY_HI "C: MAIL FROM:<a@a.example> BY=*\n" BY_REST) },
          STR("D2.0.0+ h1, D2.0.0+ h1"), .by = "N" },
        { "by, traced", { STR(BY_HI "C: MAIL FROM:<a@a.example> BY=*\n" BY_REST) }, STR("R2.0.0+ h1, R2.0.0+ h1"), .by = "RT" },
        { "by, traced, and who wants nothing",
          { STR(BY_HI "C: MAIL FROM:<a@a.example> BY=*\nC: RCPT TO:<u0@b.example> NOTIFY=NEVER\nC: RCPT TO:<u1@b.example> NOTIFY=NEVER\n"
                "C: DATA\n" OK3 "S: 354 go\nD\nS: 250 ok\n" QUIT) },
          STR("D2.0.0+ h1, D2.0.0+ h1"), .by = "NT", .notify = NOTIFY_NEVER },
        { "by, and the next hop does not know it", { STR(HI TAKE QUIT) }, STR("R2.6.0+ h1, R2.6.0+ h1"), .by = "N" },
        { "by, traced, and the next hop does not know it", { STR(HI TAKE QUIT) }, STR("R2.6.0+ h1, R2.6.0+ h1"), .by = "NT" },
        { "by, and the time is over", { STR(BY_HI "C: MAIL FROM:<a@a.example>\n" BY_REST) }, STR("R2.0.0+ h1, R2.0.0+ h1"), .by = "oN" },
        { "by or not at all, and the next hop does not know it", { STR(HI QUIT) }, STR("F5.4.7, F5.4.7"), .by = "R" },
        { "nor was it asked", { STR(LOST_AT_EHLO QUIT), STR(REFUSES_EHLO QUIT) }, STR("L4.4.7, L4.4.7"), .by = "R" },
        { "by or not at all, and the time is over", { STR(BY_HI QUIT) }, STR("F5.4.7, F5.4.7"), .by = "oR" },
        { "a probe: no content", { STR(HI MAIL RCPT0 RCPT1 "S: 250 ok\nS: 250 2.1.5 yes\nS: 550 5.1.1 no\n" QUIT) },
          STR("D2.1.5+ h1, F5.1.1 h1"), .probe = true },
        { "a probe: too many, and the rest in another",
          { STR(HI MAIL RCPT0 RCPT1 "S: 250 ok\nS: 250 2.1.5 yes\nS: 552 many\nC: RSET\n" MAIL RCPT1 "S: 250 ok\nS: 250 ok\n"
                "S: 250 2.1.5 yes\n" QUIT) }, STR("D2.1.5+ h1, D2.1.5+ h1"), .probe = true },
        { "a probe: greylisted",
          { STR(HI MAIL RCPT0 RCPT1 "S: 250 ok\nS: 451 4.7.1 later\nS: 451 4.7.1 later\n" QUIT) },
          STR("L4.7.1 h1, L4.7.1 h1"), .probe = true },
        { "SIZE: not even asked", { STR("S: 220 hi\nC: EHLO *\nS: 250-hi\nS: 250-SIZE 15\nS: 250 PIPELINING\n" QUIT) },
          STR("F5.3.4, F5.3.4") },
        { "SIZE: fits with its trace", { STR("S: 220 hi\nC: EHLO *\nS: 250-hi\nS: 250-SIZE 16\nS: 250 PIPELINING\n"
          "C: MAIL FROM:<a@a.example> SIZE=16\n" RCPT0 RCPT1 "C: DATA\n" OK3 "S: 354 go\nD\nS: 250 ok\n" QUIT) },
          STR("D2.0.0 h1, D2.0.0 h1") },
        { "RCPTMAX: two transactions", {
          STR("S: 220 hi\nC: EHLO *\nS: 250-hi\nS: 250-LIMITS RCPTMAX=1\nS: 250 PIPELINING\n"
          MAIL RCPT0 "C: DATA\nS: 250 ok\nS: 250 ok\nS: 354 go\nD\nS: 250 ok\n"
          MAIL RCPT1 "C: DATA\nS: 250 ok\nS: 250 ok\nS: 354 go\nD\nS: 451 later\n" QUIT) }, STR("D2.0.0 h1, L4.3.0 h1")
            },
        { "RCPTMAX and MAILMAX: two connections", {
          STR("S: 220 hi\nC: EHLO *\nS: 250-hi\nS: 250-LIMITS RCPTMAX=1 MAILMAX=1\n"
          "S: 250 PIPELINING\n" MAIL RCPT0 "C: DATA\nS: 250 ok\nS: 250 ok\nS: 354 go\nD\nS: 250 ok\n" QUIT "==\n"
          HI MAIL RCPT1 "C: DATA\nS: 250 ok\nS: 250 ok\nS: 354 go\nD\nS: 250 ok\n" QUIT) },
            STR("D2.0.0 h1, D2.0.0+ h1") },
        { "RCPTDOMAINMAX", { STR("S: 220 hi\nC: EHLO *\nS: 250-hi\nS: 250-LIMITS RCPTDOMAINMAX=1\nS: 250 PIPELINING\n"
          MAIL "C: RCPT TO:<x@c.example>\nC: DATA\nS: 250 ok\nS: 250 ok\nS: 354 go\nD\nS: 250 ok\n"
          MAIL RCPT1 "C: RCPT TO:<u2@b.example>\nC: DATA\nS: 250 ok\nS: 250 ok\nS: 250 ok\nS: 354 go\nD\nS: 250 ok\n"
            QUIT) },
          STR("D2.0.0 h1, D2.0.0 h1, D2.0.0 h1"), .rcpt_count = 3, .rcpt = STR("x@c.example") },
        { "452 4.5.3 at the third: the rest on the same connection", { STR(HI MAIL
          "C: RCPT *\nC: RCPT *\nC: RCPT *\nC: RCPT *\n"
          "C: DATA\nS: 250 ok\nS: 250 ok\nS: 250 ok\nS: 452 4.5.3 many\nS: 452 4.5.3 many\nS: 354 go\nD\nS: 250 ok\n"
            MAIL
          "C: RCPT TO:<u2@b.example>\nC: RCPT TO:<u3@b.example>\nC: DATA\n" OK3 "S: 354 go\nD\nS: 250 ok\n" QUIT) },
          STR("D2.0.0+ h1, D2.0.0+ h1, D2.0.0+ h1, D2.0.0+ h1"), .rcpt_count = 4 },
        { "452 that is about something else", { STR(HI GROUP
          "S: 250 ok\nS: 250 ok\nS: 452 4.2.2 full\nS: 354 go\nD\nS: 250 ok\n"
          QUIT) }, STR("D2.0.0+ h1, L4.2.2 h1") },
        { "100 recipients at once", { STR(HI MAIL "P 100\nC: DATA\nS: 250 ok\nS: 354 go\nD\nS: 250 ok\n" QUIT) },
          STR(""), .rcpt_count = 0 },
        { "closed between transactions: a new connection", {
          STR("S: 220 hi\nC: EHLO *\nS: 250-hi\nS: 250-LIMITS RCPTMAX=1\n"
          "S: 250 PIPELINING\n" MAIL RCPT0 "C: DATA\nS: 250 ok\nS: 250 ok\nS: 354 go\nD\nS: 250 ok\nH\n==\n"
          HI MAIL RCPT1 "C: DATA\nS: 250 ok\nS: 250 ok\nS: 354 go\nD\nS: 250 ok\n" QUIT) },
            STR("D2.0.0 h1, D2.0.0+ h1") },
        { "LMTP: each its own fate", { STR("S: 220 hi\nC: LHLO me.example\nS: 250-hi\nS: 250 PIPELINING\n" GROUP OK3
          "S: 354 go\nD\nS: 250 2.1.5 ok\nS: 452 4.2.2 full\n" QUIT), NOT_REACHED }, STR("D2.1.5 h1, L4.2.2 h1"), .lmtp
            = true },
        { "LMTP: success notices are ours", { STR("S: 220 hi\nC: LHLO me.example\nS: 250-hi\nS: 250 PIPELINING\n" GROUP
          OK3
          "S: 354 go\nD\nS: 250 2.1.5 ok\nS: 550 5.2.1 no\n" QUIT), NOT_REACHED }, STR("D2.1.5 h1, F5.2.1 h1"), .lmtp =
            true,
          .notify = NOTIFY_SUCCESS },
        { "LMTP: lost between replies", { STR("S: 220 hi\nC: LHLO me.example\nS: 250-hi\nS: 250 PIPELINING\n" GROUP OK3
          "S: 354 go\nD\nS: 250 2.1.5 ok\nR\n"), NOT_REACHED }, STR("D2.1.5 h1, L4.4.2"), .lmtp = true },
        { "LMTP: 421 between replies", { STR("S: 220 hi\nC: LHLO me.example\nS: 250-hi\nS: 250 PIPELINING\n" GROUP OK3
          "S: 354 go\nD\nS: 250 2.1.5 ok\nS: 421 bye\nW\n"), NOT_REACHED }, STR("D2.1.5 h1, L4.3.2 h1"), .lmtp = true },
        { "LMTP knows no HELO", { STR("S: 220 hi\nC: LHLO me.example\nS: 500 what\n" QUIT) },
          STR("L4.0.0 h1, L4.0.0 h1"),
          .lmtp = true },
        { "U-label domain goes as A-label", { STR(HI MAIL "C: RCPT TO:<x@xn--bcher-kva.example>\n" RCPT1 "C: DATA\n" OK3
          "S: 354 go\nD\nS: 250 ok\n" QUIT) }, STR("D2.0.0+ h1, D2.0.0+ h1"), .rcpt = STR("x@b\xc3\xbc" "cher.example")
            },
        { "local part in UTF-8: fails alone", { STR(HI MAIL RCPT1
          "C: DATA\nS: 250 ok\nS: 250 ok\nS: 354 go\nD\nS: 250 ok\n" QUIT) },
          STR("F5.6.7, D2.0.0+ h1"), .rcpt = STR("b\xc3\xbc@b.example"), .smtputf8 = true },
        { "local part in UTF-8, offered", { STR("S: 220 hi\nC: EHLO *\nS: 250-hi\nS: 250-8BITMIME\nS: 250 SMTPUTF8\n"
          "C: MAIL FROM:<a@a.example> SMTPUTF8\nS: 250 ok\nC: RCPT TO:<b\xc3\xbc@b.example>\nS: 250 ok\n" RCPT1
          "S: 250 ok\nC: DATA\nS: 354 go\nD\nS: 250 ok\n" QUIT) }, STR("D2.0.0 h1, D2.0.0 h1"), .rcpt =
            STR("b\xc3\xbc@b.example"),
          .smtputf8 = true },
        { "local part in UTF-8, EHLO lost: that one waits", { STR(LOST_AT_EHLO MAIL "S: 250 ok\n" RCPT1 "S: 250 ok\nC: DATA\nS: 354 go\nD\n"
          "S: 250 ok\n" QUIT) }, STR("L4.6.7, D2.0.0 h1"), .rcpt = STR("b\xc3\xbc@b.example"), .smtputf8 = true },
        { "the same goes to the next host", { STR(REFUSES_EHLO QUIT), STR("S: 220 hi\nC: EHLO *\nS: 250-hi\nS: 250-8BITMIME\n"
          "S: 250 SMTPUTF8\nC: MAIL FROM:<a@a.example> SMTPUTF8\nS: 250 ok\nC: RCPT TO:<b\xc3\xbc@b.example>\nS: 250 ok\n"
          "C: DATA\nS: 354 go\nD\nS: 250 ok\n" QUIT) }, STR("D2.0.0 h2"), .rcpt = STR("b\xc3\xbc@b.example"), .smtputf8 = true,
          .rcpt_count = 1 },
        { "sender in UTF-8, EHLO refused: all wait", { STR(REFUSES_EHLO QUIT) }, STR("L4.6.7, L4.6.7"),
          .reverse_path = STR("\xc3\xbc@a.example") },
        { "8-bit content that may not be encoded, EHLO lost", { STR(LOST_AT_EHLO QUIT) }, STR("L4.6.3, L4.6.3"), .body = BODY_8BITMIME,
          .content = STR("MIME-Version: 1.0\r\nContent-Type: message/partial; id=x; number=1\r\n\r\n\xe4\r\n") },
        { "sender in UTF-8: nobody", { STR(HI QUIT) }, STR("F5.6.7, F5.6.7"), .reverse_path = STR("\xc3\xbc@a.example")
          },
        { "no SMTPUTF8 without need", {
          STR("S: 220 hi\nC: EHLO *\nS: 250-hi\nS: 250-PIPELINING\nS: 250-8BITMIME\nS: 250 SMTPUTF8\n"
          TAKE QUIT) }, STR("D2.6.0 h1, D2.6.0 h1"), .smtputf8 = true },
        { "8-bit content where 8BITMIME is offered", {
          STR("S: 220 hi\nC: EHLO *\nS: 250-hi\nS: 250-PIPELINING\nS: 250 8BITMIME\n"
          "C: MAIL FROM:<a@a.example> BODY=8BITMIME\n" RCPT0 RCPT1 "C: DATA\n" OK3 "S: 354 go\nD\nS: 250 ok\n" QUIT) },
          STR("D2.0.0 h1, D2.0.0 h1"), .body = BODY_8BITMIME, .content = STR("A: 1\r\n\r\n\xe4\r\n"),
          .on_wire = STR(TRACE "A: 1\r\n\r\n\xe4\r\n.\r\n") },
        { "8-bit content where it is not: quoted-printable", { GOOD }, STR("D2.6.0+ h1, D2.6.0+ h1"), .body =
          BODY_8BITMIME,
          .content = STR(MIME("text/plain; charset=utf-8", "8bit") ".\xc3\xa4\r\n"),
          .on_wire = STR(TRACE MIME("text/plain; charset=utf-8", "quoted-printable") "..=C3=A4\r\n.\r\n") },
        { "converted anew for each transaction", { STR("S: 220 hi\nC: EHLO *\nS: 250-hi\nS: 250-LIMITS RCPTMAX=1\n"
          "S: 250 PIPELINING\n" MAIL RCPT0 "C: DATA\nS: 250 ok\nS: 250 ok\nS: 354 go\nD\nS: 250 ok\n"
          MAIL RCPT1 "C: DATA\nS: 250 ok\nS: 250 ok\nS: 354 go\nD\nS: 250 ok\n" QUIT) }, STR("D2.0.0 h1, D2.0.0 h1"),
          .body = BODY_8BITMIME,
          .content = STR(MIME("text/plain", "8bit") "\xc3\xa4\r\n"),
          .on_wire = STR(TRACE MIME("text/plain", "quoted-printable") "=C3=A4\r\n.\r\n"
                         TRACE MIME("text/plain", "quoted-printable") "=C3=A4\r\n.\r\n") },
        { "said to be 8-bit, and is not", { GOOD }, STR("D2.6.0+ h1, D2.6.0+ h1"), .body = BODY_8BITMIME,
          .content = STR("A: 1\r\n\r\na\r\n"), .on_wire = STR(TRACE "A: 1\r\n\r\na\r\n.\r\n") },
        { "binary where only 8BITMIME is offered", {
          STR("S: 220 hi\nC: EHLO *\nS: 250-hi\nS: 250-PIPELINING\nS: 250 8BITMIME\n"
          "C: MAIL FROM:<a@a.example> BODY=8BITMIME\n" RCPT0 RCPT1 "C: DATA\n" OK3 "S: 354 go\nD\nS: 250 ok\n" QUIT) },
          STR("D2.0.0 h1, D2.0.0 h1"), .body = BODY_BINARYMIME,
          .content = STR(MIME("application/x-y", "binary") "\0\n\r"),
          .on_wire = STR(TRACE MIME("application/x-y", "base64") "AAoN\r\n.\r\n") },
        { "8-bit content that may not be encoded", { STR(HI QUIT) }, STR("F5.6.3, F5.6.3"), .body = BODY_8BITMIME,
          .content = STR("MIME-Version: 1.0\r\nContent-Type: message/partial; id=x; number=1\r\n\r\n\xe4\r\n") },
        { "header in UTF-8: by need", { STR("S: 220 hi\nC: EHLO *\nS: 250-hi\nS: 250-PIPELINING\nS: 250-8BITMIME\n"
          "S: 250 SMTPUTF8\nC: MAIL FROM:<a@a.example> BODY=8BITMIME SMTPUTF8\n" RCPT0 RCPT1 "C: DATA\n" OK3
          "S: 354 go\nD\nS: 250 ok\n" QUIT) }, STR("D2.0.0 h1, D2.0.0 h1"), .body = BODY_8BITMIME, .smtputf8 = true,
          .content = STR("Subject: \xc3\xa4\r\n\r\na\r\n") },
        { "body in UTF-8 only: no need", { STR("S: 220 hi\nC: EHLO *\nS: 250-hi\nS: 250-PIPELINING\nS: 250-8BITMIME\n"
          "S: 250 SMTPUTF8\nC: MAIL FROM:<a@a.example> BODY=8BITMIME\n" RCPT0 RCPT1 "C: DATA\n" OK3
          "S: 354 go\nD\nS: 250 ok\n" QUIT) }, STR("D2.0.0 h1, D2.0.0 h1"), .body = BODY_8BITMIME, .smtputf8 = true,
          .content = STR("Subject: a\r\n\r\n\xc3\xa4\r\n") },
        { "header in UTF-8, not offered", { STR("S: 220 hi\nC: EHLO *\nS: 250-hi\nS: 250 8BITMIME\n" QUIT) },
          STR("F5.6.9, F5.6.9"), .body = BODY_8BITMIME, .smtputf8 = true, .content =
            STR("Subject: \xc3\xa4\r\n\r\na\r\n") },
        { "an address with a line end is never said", { STR(HI MAIL RCPT1
          "C: DATA\nS: 250 ok\nS: 250 ok\nS: 354 go\nD\nS: 250 ok\n"
          QUIT) }, STR("F5.1.3, D2.0.0+ h1"), .rcpt = STR("a@b.example>\r\nRCPT TO:<x@y") },
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct attempt_case one = cases[i];

        if (one.wanted.len == 0) {
            one.rcpt_count = 100;
            one.wanted = S("D2.0.0+ h1, D2.0.0+ h1, D2.0.0+ h1, D2.0.0+ h1, D*96");
        }
        run_cases(t, &one, 1);
    }
}

#define ONE_EACH "S: 220 hi\nC: EHLO *\nS: 250-hi\nS: 250-LIMITS RCPTMAX=1\nS: 250 PIPELINING\n" MAIL
#define ONE_TAKEN "C: DATA\nS: 250 ok\nS: 250 ok\nS: 354 go\nD\nS: 250 ok\n"

static void
uses_connections_again(struct test *t)
{
    static const struct attempt_case cases[] = {
        { "two jobs, one connection", { STR(HI TAKE TAKE QUIT) }, STR("D2.6.0+ h1, D2.6.0+ h1; D2.6.0+ h1, D2.6.0+ h1"),
          .pool = true, .jobs = 2 },
        { "closed while idle: a new one, not the next host", { STR(HI TAKE "H\n==\n" HI TAKE QUIT), NOT_REACHED },
          STR("D2.6.0+ h1, D2.6.0+ h1; D2.6.0+ h1, D2.6.0+ h1"), .pool = true, .jobs = 2 },
        { "421 at the second MAIL: a new one", { STR(HI TAKE GROUP "S: 421 bye\nH\n==\n" HI TAKE QUIT), NOT_REACHED },
          STR("D2.6.0+ h1, D2.6.0+ h1; D2.6.0+ h1, D2.6.0+ h1"), .pool = true, .jobs = 2 },
        { "RSET after a failed one", { STR(HI GROUP "S: 250 ok\nS: 550 no\nS: 550 no\nS: 503 no\nC: RSET\n" GROUP
          "S: 250 ok\n" OK3 "S: 354 go\nD\nS: 250 ok\n" QUIT) }, STR("F5.0.0 h1, F5.0.0 h1; D2.0.0+ h1, D2.0.0+ h1"),
          .pool = true, .jobs = 2 },
        { "who has it next waits as long as its own route says", { STR(HI TAKE GROUP "S: 250 ok\nZ\n") },
          STR("D2.6.0+ h1, D2.6.0+ h1; L4.4.2, L4.4.2"), .pool = true, .jobs = 2, .patient_first = true },
        { "a reply too many: no other message there", { STR(ONE_EACH RCPT0 ONE_TAKEN "S: 250 what\nC: QUIT\nW\n==\n"
          ONE_EACH RCPT1 ONE_TAKEN "S: 550 what\nC: QUIT\nW\n==\n" ONE_EACH RCPT0 ONE_TAKEN MAIL RCPT1 ONE_TAKEN QUIT) },
          STR("D2.0.0 h1, D2.0.0 h1; D2.0.0 h1, D2.0.0 h1"), .pool = true, .jobs = 2 },
        { "as many messages as the route allows", { STR(HI TAKE TAKE QUIT "==\n" HI TAKE QUIT) },
          STR("D2.6.0+ h1, D2.6.0+ h1; D2.6.0+ h1, D2.6.0+ h1; D2.6.0+ h1, D2.6.0+ h1"),
          .pool = true, .jobs = 3, .messages_per_connection = 2 },
        { "greeted by HELO: the next asks by EHLO", { STR(LOST_AT_EHLO MESSAGE QUIT "==\n" HI MAIL RCPT0 ONE_TAKEN QUIT) },
          STR("D2.0.0 h1; D2.0.0+ h1"), .rcpt_count = 1, .pool = true, .jobs = 2 },
        { "EHLO refused: the next goes there as well", { STR(REFUSES_EHLO MESSAGE MESSAGE QUIT) }, STR("D2.0.0 h1; D2.0.0 h1"),
          .rcpt_count = 1, .pool = true, .jobs = 2 },
    };

    run_cases(t, cases, sizeof cases / sizeof *cases);
}

/* So that others try first what serves. */
static void
says_which_hosts_serve(struct test *t)
{
    static const struct attempt_case cases[] = {
        { "the first one serves", { GOOD, NOT_REACHED }, STR("D2.6.0+ h1, D2.6.0+ h1"), .seen = STR("u-") },
        { "nobody there, the second serves", { STR("-"), GOOD, NOT_REACHED }, STR("D2.6.0+ h2, D2.6.0+ h2"),
          .seen = STR("du-") },
        { "a greeting that refuses", { STR("S: 554 no\n" QUIT), GOOD }, STR("D2.6.0+ h2, D2.6.0+ h2"), .seen = STR("du") },
        { "a greeting that never comes", { STR("Z\n"), GOOD }, STR("D2.6.0+ h2, D2.6.0+ h2"), .seen = STR("du") },
        { "who refuses the mail serves", { STR(HI GROUP "S: 550 5.7.1 no\nS: 503 no\nS: 503 no\nS: 503 no\n" QUIT) },
          STR("F5.7.1 h1, F5.7.1 h1"), .seen = STR("u") },
        { "HELO makes up for EHLO", {
          STR("S: 220 hi\nC: EHLO *\nH\n==\nS: 220 hi\nC: HELO me.example\nS: 250 hi\n"
          MAIL "S: 250 ok\n" RCPT0 "S: 250 ok\n" RCPT1 "S: 250 ok\nC: DATA\nS: 354 go\nD\nS: 250 ok\n" QUIT) },
          STR("D2.0.0 h1, D2.0.0 h1"), .seen = STR("u") },
    };

    run_cases(t, cases, sizeof cases / sizeof *cases);
}

/* What is damaged on our disk will not be better tomorrow, nor elsewhere; and half of it is never passed for the
 * whole. */
#define OFFERS_TLS "S: 220 h\nC: EHLO me.example\nS: 250-h\nS: 250-PIPELINING\nS: 250 STARTTLS\nC: STARTTLS\n"
#define IN_CLEAR "S: 220 h\nC: EHLO me.example\nS: 250-h\nS: 250 STARTTLS\n"
#define BYE "C: QUIT\nS: 221 bye\n"

static void
encrypts_where_it_can(struct test *t)
{
    static const struct attempt_case cases[] = {
        { "hello is said again", { STR(OFFERS_TLS "S: 220 go\nC: EHLO me.example\nS: 250 h\n" MESSAGE BYE) },
          STR("D2.0.0 h1"), .rcpt_count = 1, .tls = TLS_WORKS },
        { "what was offered in clear counts no more",
          { STR(OFFERS_TLS "S: 220 go\nC: EHLO me.example\nS: 250 SIZE\nC: MAIL FROM:<a@a.example>\nS: 250 ok\nC: RCPT *\n"
                           "S: 250 ok\nC: DATA\nS: 354 go\nD\nS: 250 ok\n" BYE) },
          STR("D2.0.0 h1"), .rcpt_count = 1, .tls = TLS_WORKS },
        { "pipelined, however the wire takes it",
          { STR(OFFERS_TLS "S: 220 go\nC: EHLO me.example\nS: 250-h\nS: 250 PIPELINING\nC: MAIL *\nC: RCPT *\nC: RCPT *\n"
                           "C: DATA\nS: 250 ok\nS: 250 ok\nS: 250 ok\nS: 354 go\nD\nS: 250 ok\n" BYE) },
          STR("D2.0.0 h1, D2.0.0 h1"), .tls = TLS_WORKS },
        { "the next message goes the same way",
          { STR(OFFERS_TLS "S: 220 go\nC: EHLO me.example\nS: 250 h\n" MESSAGE MESSAGE BYE) },
          STR("D2.0.0 h1; D2.0.0 h1"), .rcpt_count = 1, .tls = TLS_WORKS, .pool = true, .jobs = 2 },
        { "not offered", { STR("S: 220 h\nC: EHLO me.example\nS: 250 h\n" MESSAGE BYE) }, STR("D2.0.0 h1"),
          .rcpt_count = 1, .tls = TLS_WORKS },
        { "offered, and off", { STR(IN_CLEAR MESSAGE BYE) }, STR("D2.0.0 h1"), .rcpt_count = 1 },
        { "refused: once more in clear", { STR(OFFERS_TLS "S: 454 not now\nW\n==\n" IN_CLEAR MESSAGE BYE) },
          STR("clear D2.0.0 h1"), .rcpt_count = 1, .tls = TLS_WORKS },
        { "the handshake fails: once more in clear", { STR(OFFERS_TLS "S: 220 go\nW\n==\n" IN_CLEAR MESSAGE BYE) },
          STR("clear D2.0.0 h1"), .rcpt_count = 1, .tls = TLS_FAILS },
        { "hello is refused behind it: once more in clear",
          { STR(OFFERS_TLS "S: 220 go\nC: EHLO me.example\nS: 421 no\nW\n==\n" IN_CLEAR MESSAGE BYE) },
          STR("clear D2.0.0 h1"), .rcpt_count = 1, .tls = TLS_WORKS },
        { "it hangs up: once more in clear", { STR(OFFERS_TLS "H\n==\n" IN_CLEAR MESSAGE BYE) },
          STR("clear D2.0.0 h1"), .rcpt_count = 1, .tls = TLS_WORKS },
        { "which is for one message: the next may have better luck",
          { STR(OFFERS_TLS "S: 220 go\nW\n==\n" IN_CLEAR MESSAGE BYE "==\n" OFFERS_TLS "S: 220 go\nW\n==\n" IN_CLEAR MESSAGE BYE) },
          STR("clear D2.0.0 h1; clear D2.0.0 h1"), .rcpt_count = 1, .tls = TLS_FAILS, .tls_result = TLS_RESULT_VALIDATION_FAILURE,
          .pool = true, .jobs = 2 },
        { "and in clear it may fail for good", { STR(OFFERS_TLS "S: 220 go\nW\n==\nS: 450 busy\n" BYE) },
          STR("clear L4.2.0 h1"), .rcpt_count = 1, .tls = TLS_FAILS },
    };

    run_cases(t, cases, sizeof cases / sizeof *cases);
}

/* A policy that asks for TLS. */
static void
never_goes_in_clear_where_it_must_not(struct test *t)
{
#define NO_TLS "S: 220 h\nC: EHLO me.example\nS: 250 h\n" BYE
#define GOES_ON "S: 220 go\nC: EHLO me.example\nS: 250 h\n" MESSAGE BYE
    static const struct attempt_case cases[] = {
        { "as it should be", { STR(OFFERS_TLS GOES_ON) }, STR("D2.0.0 h1"), .rcpt_count = 1, .tls = TLS_STRICT },
        { "not offered", { STR(NO_TLS) }, STR("L4.7.10"), .rcpt_count = 1, .tls = TLS_STRICT },
        { "not offered: the next host", { STR(NO_TLS), STR(OFFERS_TLS GOES_ON) }, STR("D2.0.0 h2"), .rcpt_count = 1,
          .tls = TLS_STRICT },
        { "refused", { STR(OFFERS_TLS "S: 454 not now\nW\n") }, STR("L4.7.10"), .rcpt_count = 1, .tls = TLS_STRICT },
        { "the handshake fails", { STR(OFFERS_TLS "S: 220 go\nW\n"), STR(OFFERS_TLS "S: 220 go\nW\n") },
          STR("L4.7.5"), .rcpt_count = 1, .tls = TLS_STRICT_FAILS },
        { "EHLO is refused: HELO has no TLS", { STR("S: 220 h\nC: EHLO me.example\nS: 500 what\nC: HELO me.example\nS: 250 h\n" BYE) },
          STR("L4.7.10"), .rcpt_count = 1, .tls = TLS_STRICT },
        { "EHLO is not liked: no other connection", { STR("S: 220 h\nC: EHLO me.example\nH\n") }, STR("L4.4.2"),
          .rcpt_count = 1, .tls = TLS_STRICT },
        { "at once", { STR("S: 220 h\nC: EHLO me.example\nS: 250-h\nS: 250 STARTTLS\n" MESSAGE BYE) }, STR("D2.0.0 h1"),
          .rcpt_count = 1, .tls = TLS_AT_ONCE },
        { "a host that is not to be used", { NOT_REACHED, STR(OFFERS_TLS GOES_ON) }, STR("D2.0.0 h2"),
          .rcpt_count = 1, .tls = TLS_NOT_HERE },
        { "and if there is no other", { NOT_REACHED }, STR("L4.7.5"), .rcpt_count = 1, .tls = TLS_NOT_HERE },
        { "while testing whatever there is", { STR(OFFERS_TLS GOES_ON) }, STR("D2.0.0 h1"), .rcpt_count = 1, .tls = TLS_TESTED },
        { "while testing in clear", { STR("S: 220 h\nC: EHLO me.example\nS: 250 h\n" MESSAGE BYE) },
          STR("clear D2.0.0 h1"), .rcpt_count = 1, .tls = TLS_TESTED },
        { "what was not as it should be is not used again",
          { STR(OFFERS_TLS GOES_ON "==\n" OFFERS_TLS GOES_ON) }, STR("D2.0.0 h1; D2.0.0 h1"), .rcpt_count = 1,
          .tls = TLS_TESTED, .pool = true, .jobs = 2 },
        { "REQUIRETLS, and not offered: that stays so", { STR(NO_TLS) }, STR("F5.7.10"), .rcpt_count = 1, .tls = TLS_STRICT,
          .require_tls = true },
        { "but not where HELO leaves it open", { STR("S: 220 h\nC: EHLO *\nS: 550 no\nC: HELO *\nS: 250 h\n" BYE) }, STR("L4.7.10"),
          .rcpt_count = 1, .tls = TLS_STRICT, .require_tls = true },
        { "refused for good", { STR(OFFERS_TLS "S: 554 never\nW\n") }, STR("F5.7.10"), .rcpt_count = 1, .tls = TLS_STRICT,
          .require_tls = true },
        { "refused for now: it waits", { STR(OFFERS_TLS "S: 454 not now\nW\n") }, STR("L4.7.10"), .rcpt_count = 1,
          .tls = TLS_STRICT, .require_tls = true },
        { "and so behind the handshake", { STR(OFFERS_TLS "S: 220 go\nC: EHLO me.example\nS: 421 no\nW\n") }, STR("L4.7.10"),
          .rcpt_count = 1, .tls = TLS_STRICT, .require_tls = true },
    };

    run_cases(t, cases, sizeof cases / sizeof *cases);
}

static void
fails_what_is_damaged(struct test *t)
{
    static const struct attempt_case cases[] = {
        { "damaged content", { STR(HI GROUP OK3 "S: 354 go\nZ\n"), NOT_REACHED }, STR("F5.3.0, F5.3.0"),
          .content = STR("aaaaaaaa\r\nbbbbbbbb\r\n"), .damaged = true },
    };

    run_cases(t, cases, sizeof cases / sizeof *cases);
}

/* ---- which hosts, in which order --------------------------------------------------------------------------------- */

struct lookup_case {
    const char *why;
    struct str hosts;  /* "10 a=192.0.2.1; 20 b=none": none (NXDOMAIN), fail, or addresses */
    struct str wanted; /* kind, enhanced code */
    bool allow, lmtp, port_25;
    bool as_listed; /* in the order of this list, as the queue may want it */
    bool configured; /* and not listed by DNS */
};

struct lookup {
    const struct lookup_case *c;
    struct address answers[8];
    struct text *asked;
};

static struct str
find_host(struct str hosts, struct str name)
{
    while (!str_is_absent(hosts)) {
        struct str one = str_trim(str_cut(&hosts, ';'));

        (void)str_cut_word(&one);
        struct str key = str_cut(&one, '=');
        if (str_eq(str_trim(key), name))
            return one;
    }
    return S("none");
}

static struct err
scripted_addresses(void *arg, struct str host, unsigned families, int64_t until, struct arena *arena, struct
    host_result *out)
{
    struct lookup *lookup = arg;
    struct str answer = find_host(lookup->c->hosts, host);

    (void)families, (void)until, (void)arena;
    text_put(lookup->asked, host);
    *out = (struct host_result){ .addresses = lookup->answers, .why = S("server failure") };
    if (str_eq(answer, S("none")))
        out->status = HOST_NXDOMAIN;
    else if (str_eq(answer, S("fail")))
        out->status = HOST_TEMPORARY;
    else
        while (!str_is_absent(answer))
            if (!address_from_ip(str_cut(&answer, ','), &lookup->answers[out->address_count++]))
                return ERR(ERR_SYNTAX, "a case's address");
    return OK;
}

struct lookup_world {
    struct test *t;
    const struct lookup_case *c;
};

static void
run_lookup(struct rt *rt, void *arg)
{
    struct lookup_world *world = arg;
    struct test *t = world->t;
    char asked_memory[64], got_memory[64];
    struct text asked = text_init(asked_memory, sizeof asked_memory), got = text_init(got_memory, sizeof got_memory);
    struct lookup lookup = { .c = world->c, .asked = &asked };
    struct delivery_host hosts[LIMIT_MX_HOSTS];
    size_t count = 0;
    struct arena arena;
    struct address own;
    struct prefix loopback;
    uint64_t preference;

    EXPECT(t, address_from_ip(S("192.0.2.25"), &own) && prefix_parse(S("127.0.0.0/8"), &loopback));
    for (struct str rest = world->c->hosts; !str_is_absent(rest) && count < LIMIT_MX_HOSTS; count++) {
        struct str one = str_trim(str_cut(&rest, ';'));

        EXPECT(t, str_to_u64(str_cut_word(&one), &preference));
        hosts[count] = (struct delivery_host){ .name = str_trim(str_cut(&one, '=')), .preference = (uint16_t)preference,
                                                 .turn = world->c->as_listed ? (uint16_t)count : 0 };
    }
    arena_init(&arena, rt_mem(rt), 4096, (size_t)1 << 20);
    struct envelope envelope = { .reverse_path = S("a@a.example") };
    struct recipient rcpt = { .address = S("b@b.example") };
    struct delivery_job job = { &envelope, &rcpt, 1, hosts, count, .configured = world->c->configured };
    struct delivery_settings settings = {
        .lmtp = world->c->lmtp,
        .port = world->c->port_25 ? 25 : 1, /* nobody listens there */
        .helo = S("me.example"),
        .own_names = &S("me.example"),
        .own_name_count = 1,
        .own_addresses = &own,
        .own_address_count = 1,
        .allow_private = &loopback,
        .allow_private_count = world->c->allow,
        .connect = SECOND,
    };
    struct delivery_hooks hooks = { .arg = &lookup, .addresses = scripted_addresses, .read = content_read };
    struct outcome outcome;
    struct delivery_figures figures;
    smtp_deliver(rt, &job, &settings, &hooks, NULL, &arena, &outcome, &figures);
    text_putf(&got, "%.*s ", STR_ARG(text_str(&asked)));
    put_outcome(&got, &outcome);
    EXPECT_STR(t, text_str(&got), world->c->wanted);
    arena_done(&arena);
}

static void
chooses_hosts(struct test *t)
{
    static_assert(LIMIT_MX_ADDRESSES == 5 && LIMIT_MX_HOSTS == 10, "some of the cases count so far");
#define NINE_ABSENT "10 a=none; 11 b=none; 12 c=none; 13 d=none; 14 e=none; 15 f=none; 16 g=none; 17 h=none; 18 i=none"
    static const struct lookup_case cases[] = {
        { "by preference", STR("20 b=fail; 10 a=fail; 30 c=fail"), STR("abc L4.4.3") },
        { "nobody exists: fail", STR("10 a=none; 20 b=none"), STR("ab F5.4.4") },
        { "nor does a smarthost, just now: defer", STR("10 a=none"), STR("a L4.4.4"), .configured = true },
        { "one may exist: defer", STR("10 a=none; 20 b=fail"), STR("ab L4.4.3") },
        { "nor any of nine: fail", STR(NINE_ABSENT), STR("abcdefghi F5.4.4") },
        { "nor any of ten, of which there may be more: defer", STR(NINE_ABSENT "; 19 j=none"), STR("abcdefghij L4.4.4") },
        { "refused connection: defer", STR("10 a=127.0.0.1"), STR("a L4.4.1"), .allow = true },
        { "loopback from DNS: never", STR("10 a=127.0.0.1"), STR("a L4.4.4") },
        { "zero network, IPv6 loopback, multicast: never", STR("10 a=0.1.2.3,::1,224.0.0.1"), STR("a L4.4.4") },
        { "we are the best: a loop", STR("10 me.example=fail; 20 b=fail"), STR(" F5.4.6") },
        { "we are the best by address: a loop", STR("10 a=192.0.2.25; 20 b=fail"), STR("a F5.4.6") },
        { "the fifth address is looked at", STR("10 a=127.0.0.1,127.0.0.1,127.0.0.1,127.0.0.1,192.0.2.25"),
          STR("a F5.4.6"), .allow = true },
        { "the sixth is not", STR("10 a=127.0.0.1,127.0.0.1,127.0.0.1,127.0.0.1,127.0.0.1,192.0.2.25"),
          STR("a L4.4.1"), .allow = true },
        { "we are among equals: a loop", STR("10 a=192.0.2.25; 10 ME.example.=none"), STR(" F5.4.6") },
        { "we are the second: only the better one", STR("10 a=fail; 20 me.example=fail; 30 c=fail"), STR("a L4.4.3") },
        { "own address further on", STR("10 a=fail; 20 b=192.0.2.25; 30 c=fail"), STR("ab L4.4.3") },
        { "LMTP keeps off port 25",
          STR("10 a=127.0.0.1"), STR("a L4.3.5"), .allow = true, .lmtp = true, .port_25 = true },
        { "we are a backup, and the better one's turn is later", STR("20 me.example=fail; 10 a=fail"), STR("a L4.4.3"), .as_listed = true },
        { "the same by address", STR("20 b=192.0.2.25; 10 a=fail; 30 c=fail"), STR("ba L4.4.3"), .as_listed = true },
        { "nor its equals, and not what is behind us", STR("20 c=fail; 30 d=fail; 20 me.example=fail; 10 a=fail"), STR("a L4.4.3"),
          .as_listed = true },
        { "we are the best, though others come first", STR("20 b=fail; 10 me.example=fail"), STR(" F5.4.6"), .as_listed = true },
        { "the same by address: the better one has no more to say", STR("20 b=none; 10 a=192.0.2.25"), STR("ba F5.4.6"),
          .as_listed = true },
        { "one address of several is ours", STR("10 a=127.0.0.1,192.0.2.25"), STR("a F5.4.6"), .allow = true },
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct lookup_world world = { t, &cases[i] };

        test_case(t, cases[i].why);
        EXPECT(t, !err_is(rt_run(run_lookup, &world)));
    }
}

#define CALLS_ITSELF(name) "S: 220 h\nC: EHLO me.example\nS: 250-" name "\nS: 250-PIPELINING\nS: 250 STARTTLS\n"

static void
knows_itself(struct test *t)
{
    static const struct attempt_case cases[] = {
        { "the best calls itself as we do: it waits", { STR(CALLS_ITSELF("Me.Example greets you") BYE), NOT_REACHED },
          STR("L4.4.6"), .rcpt_count = 1, .by_dns = true },
        { "so does one behind a better one", { STR("-"), STR(CALLS_ITSELF("me.example.") BYE), NOT_REACHED }, STR("L4.4.1"),
          .rcpt_count = 1, .by_dns = true },
        { "also where all others take no mail", { STR("S: 521 no\n" QUIT), STR(CALLS_ITSELF("me.example") BYE), NOT_REACHED },
          STR("L4.3.2 h1"), .rcpt_count = 1, .by_dns = true },
        { "who refuses EHLO says no name by that",
          { STR("S: 220 h\nC: EHLO *\nS: 550 me.example\nC: HELO *\nS: 250 h\n" MESSAGE BYE) }, STR("D2.0.0 h1"),
          .rcpt_count = 1, .by_dns = true },
        { "a part of a name is another", { STR(CALLS_ITSELF("me.example.net") MESSAGE BYE) }, STR("D2.0.0 h1"), .rcpt_count = 1,
          .by_dns = true },
        { "the configuration may say so", { STR(CALLS_ITSELF("me.example") MESSAGE BYE) }, STR("D2.0.0 h1"), .rcpt_count = 1 },
        { "what counts is said under TLS", { STR(CALLS_ITSELF("me.example") "C: STARTTLS\n" GOES_ON) }, STR("D2.0.0 h1"),
          .rcpt_count = 1, .by_dns = true, .tls = TLS_WORKS },
    };

    run_cases(t, cases, sizeof cases / sizeof *cases);
}

static void
run_shuffle(struct rt *rt, void *arg)
{
    static const struct lookup_case c = { "equal preference", STR("10 a=fail; 10 b=fail; 5 z=fail"), STR("") };
    struct test *t = arg;
    struct delivery_host hosts[] = { { STR("a"), 10, { 0 } }, { STR("b"), 10, { 0 } }, { STR("z"), 5, { 0 } } };
    struct envelope envelope = { .reverse_path = S("a@a.example") };
    struct recipient rcpt = { .address = S("b@b.example") };
    struct delivery_job job = { &envelope, &rcpt, 1, hosts, 3 };
    struct delivery_settings settings = { .helo = S("me.example") };
    size_t seen_ab = 0, seen_ba = 0;

    for (int i = 0; i < 64; i++) {
        char memory[16];
        struct text asked = text_init(memory, sizeof memory);
        struct lookup lookup = { .c = &c, .asked = &asked };
        struct delivery_hooks hooks = { .arg = &lookup, .addresses = scripted_addresses, .read = content_read };
        struct arena arena;
        struct outcome outcome;
        struct delivery_figures figures;

        arena_init(&arena, rt_mem(rt), 4096, (size_t)1 << 20);
        smtp_deliver(rt, &job, &settings, &hooks, NULL, &arena, &outcome, &figures);
        seen_ab += str_eq(text_str(&asked), S("zab"));
        seen_ba += str_eq(text_str(&asked), S("zba"));
        arena_done(&arena);
    }
    EXPECT_INT(t, seen_ab + seen_ba, 64);
    EXPECT(t, seen_ab > 0); /* one chance in 2^63 to fail by luck */
    EXPECT(t, seen_ba > 0);
}

/* ---- cancelling -------------------------------------------------------------------------------------------------- */

struct cancelled {
    struct rt *rt;
    struct test *t;
    struct arena *arena;
    struct address to;
    struct outcome outcome;
    bool done;
};

static void
deliver_one(void *arg)
{
    struct cancelled *c = arg;
    struct delivery_host hosts[] = { { STR("a"), 10, c->to }, { STR("b"), 20, c->to } };
    struct source source = { S("a\r\n") };
    struct envelope envelope = { .reverse_path = S("a@a.example"), .size = 3 };
    struct recipient rcpt = { .address = S("b@b.example") };
    struct delivery_job job = { &envelope, &rcpt, 1, hosts, 2, .configured = true };
    struct delivery_settings settings = { .helo = S("me.example") };
    struct delivery_hooks hooks = { .arg = &source, .addresses = no_addresses, .read = content_read };
    struct delivery_figures figures;

    smtp_deliver(c->rt, &job, &settings, &hooks, NULL, c->arena, &c->outcome, &figures);
    EXPECT_INT(c->t, figures.connections, 1);
    c->done = true;
}

static void
run_cancelled(struct rt *rt, void *arg)
{
    struct test *t = arg;
    struct listener *listener;
    struct stream *stream;
    struct scope scope;
    struct arena arena;
    struct address loopback, peer;

    arena_init(&arena, rt_mem(rt), 4096, (size_t)1 << 20);
    EXPECT(t, address_parse(S("127.0.0.1:0"), &loopback));
    EXPECT(t, !err_is(listener_open(rt, &loopback, &listener)));
    struct cancelled c = { .rt = rt, .t = t, .arena = &arena, .to = listener_address(listener) };
    scope_init(&scope, rt);
    scope_start(&scope, "delivery", deliver_one, &c);
    EXPECT(t, !err_is(listener_accept(listener, within(rt, SECOND), &stream, &peer)));
    int64_t start = rt_now(rt);
    scope_end(&scope); /* while it waits for a greeting that never comes */
    EXPECT(t, rt_now(rt) - start < SECOND);
    EXPECT(t, c.done);
    EXPECT_INT(t, c.outcome.kind, OUTCOME_DEFERRED);
    EXPECT_STR(t, c.outcome.enhanced, S("4.3.2"));
    stream_close(stream);
    listener_close(listener);
    arena_done(&arena);
}

static void
defers_when_cancelled(struct test *t)
{
    EXPECT(t, !err_is(rt_run(run_cancelled, t)));
}

static void
shuffles_equals(struct test *t)
{
    EXPECT(t, !err_is(rt_run(run_shuffle, t)));
}

TEST_MAIN({ "follows the reply table", follows_the_reply_table }, { "keeps to what is offered",
    keeps_to_what_is_offered },
          { "uses connections again", uses_connections_again }, { "says which hosts serve", says_which_hosts_serve },
          { "encrypts where it can", encrypts_where_it_can },
          { "never goes in clear where it must not", never_goes_in_clear_where_it_must_not },
          { "fails what is damaged", fails_what_is_damaged }, { "chooses hosts", chooses_hosts },
          { "knows itself", knows_itself },
          { "shuffles equals", shuffles_equals }, { "defers when cancelled", defers_when_cancelled })
