#include "smtp/client.h"

#include "base/test.h"
#include "smtp/test_peer.h"

#include <string.h>

enum { RCPT_MAX = 1000, CONTENT_MAX = 512 << 10 };

/* What a case wants of the transaction, in one line: "mail rcpt,rcpt data final stage" with codes; 0: none came. */
struct dialog {
    const char *why;
    struct str script;
    struct str wanted; /* "250 250,550 354 250 end", and " lost" behind it */
    struct str content;
    struct str on_wire;   /* absent: not looked at */
    size_t rcpt_count;    /* 0: 2 */
    uint8_t body, ret, notify;
    bool lmtp, tiny, smtputf8, source_fails, probe;
    size_t source_step;   /* bytes of a read; 0: as many as fit */
    size_t transactions;  /* of the same message on the connection; 0: 1 */
    unsigned refuse;
    uint64_t repeat;      /* the content is said so often; 0: once */
    size_t memory;        /* for replies, and what they are to; 0: as an attempt has */
    struct str asks;      /* absent: no client_probe() of that address, but the message */
    int64_t seconds;      /* not 0: by a clock that leaps, with the limits as they are, it takes so long */
};

struct source {
    const struct dialog *d;
    uint64_t offset;
};

static struct err
source_read(void *arg, void *memory, size_t cap, int64_t until, size_t *out_len)
{
    struct source *s = arg;
    struct str content = s->d->content;
    uint64_t total = content.len * (s->d->repeat ? s->d->repeat : 1);
    char *bytes = memory;

    (void)until;
    if (s->d->source_step && cap > s->d->source_step)
        cap = s->d->source_step;
    if (s->d->source_fails && s->offset > 0)
        return ERR(ERR_IO, "read content");
    for (*out_len = 0; *out_len < cap && s->offset < total; s->offset++)
        bytes[(*out_len)++] = content.ptr[s->offset % content.len];
    return OK;
}

static void
put_codes(struct text *t, const struct client_transaction *ct, bool lmtp)
{
    static const char *const stages[] = { "mail", "rcpt", "data", "content", "final", "end" };

    text_put_u64(t, ct->mail.code);
    for (size_t i = 0; i < ct->rcpt_count && i < 4; i++)
        text_putf(t, "%c%u", i ? ',' : ' ', ct->rcpt_reply[i].code);
    text_putf(t, " %u", ct->data.code);
    if (lmtp)
        for (size_t i = 0; i < ct->rcpt_count && i < 4; i++)
            text_putf(t, "%c%u", i ? ',' : ' ', ct->final_reply[i].code);
    else
        text_putf(t, " %u", ct->final.code);
    text_putf(t, " %s", stages[ct->stage]);
}

struct world {
    struct test *t;
    const struct dialog *d;
};

static void
run_dialog(struct rt *rt, void *arg)
{
    struct world *world = arg;
    struct test *t = world->t;
    const struct dialog *d = world->d;
    struct mem *mem = rt_mem(rt);
    struct handle ends[2];
    struct stream *ours, *theirs;
    struct scope scope;
    struct arena arena;
    struct remote_reply reply = { 0 };
    size_t count = d->rcpt_count ? d->rcpt_count : 2;
    char got_memory[256], *content_memory = mem_alloc(mem, CONTENT_MAX);
    struct text got = text_init(got_memory, sizeof got_memory);

    if (!EXPECT(t, !err_is(stream_pair(rt, ends))) || !EXPECT(t, !err_is(stream_from_handle(rt, ends[0], &ours)))
        || !EXPECT(t, !err_is(stream_from_handle(rt, ends[1], &theirs))))
        return;
    if (d->tiny) {
        stream_set_buffers(ours, 4096, 4096);
        stream_set_buffers(theirs, 4096, 4096);
    }
    struct test_peer *peer = mem_new(mem, struct test_peer);
    test_peer_init(peer, theirs, d->script);
    if (d->seconds)
        peer->patience = DAY;
    peer->content = text_init(content_memory, CONTENT_MAX);
    scope_init(&scope, rt);
    scope_start(&scope, "peer", test_peer_run, peer);

    arena_init(&arena, mem, 4096, d->memory ? d->memory : (size_t)4 << 20);
    struct recipient *rcpt = arena_alloc(&arena, count * sizeof *rcpt);
    const struct recipient **pointers = arena_alloc(&arena, count * sizeof(struct recipient *));
    for (size_t i = 0; i < count; i++) {
        rcpt[i].address = arena_printf(&arena, "u%zu@b.example", i);
        rcpt[i].notify = d->notify;
        if (d->notify)
            rcpt[i].orcpt = arena_printf(&arena, "rfc822;o%zu@b.example", i);
        pointers[i] = &rcpt[i];
    }
    struct source source = { .d = d };
    struct client_transaction ct = {
        .reverse_path = S("a@a.example"),
        .ret = d->ret,
        .envid = d->ret ? S("QQ1") : (struct str){ 0 },
        .body = d->body,
        .smtputf8 = d->smtputf8,
        .probe = d->probe,
        .size = d->content.len,
        .rcpt = pointers,
        .rcpt_count = count,
        .content = { source_read, &source },
        .rcpt_reply = arena_alloc(&arena, count * sizeof(struct remote_reply)),
        .final_reply = arena_alloc(&arena, count * sizeof(struct remote_reply)),
    };
    struct client_times shortened = { .greeting = SECOND, .hello = SECOND, .mail = 5 * SECOND, .rcpt = 5 * SECOND,
                                      .data = SECOND, .block = SECOND, .final = SECOND, .quit = SECOND };
    struct client_settings settings = {
        .lmtp = d->lmtp,
        .helo = S("me.example"),
        .refuse = d->refuse,
        .times = d->seconds ? client_times_default() : shortened,
    };
    struct client *client = client_new(ours, &settings);
    int64_t began = rt_now(rt);
    struct err e = client_greeting(client, &arena, &reply);
    if (!err_is(e) && remote_reply_is_positive(&reply))
        e = client_hello(client, &arena, &reply);
    if (err_is(e) || !remote_reply_is_positive(&reply)) {
        text_putf(&got, "hello %u", reply.code);
    } else if (!str_is_absent(d->asks)) {
        bool asked;
        e = client_probe(client, d->asks, &arena, &asked, &reply);
        text_putf(&got, "%s %u", asked ? "asked" : "not asked", reply.code);
    } else {
        for (size_t i = 0; i < (d->transactions ? d->transactions : 1) && !err_is(e) && client_is_usable(client); i++) {
            if (i > 0)
                text_put(&got, S("; "));
            source.offset = 0;
            e = client_send(client, &ct, &arena);
            put_codes(&got, &ct, d->lmtp);
        }
    }
    if (err_is(e)) {
        text_put(&got, S(" lost "));
        text_put(&got, e.kind == ERR_TIMEOUT ? S("timeout") : e.kind == ERR_PROTOCOL ? S("protocol") : e.kind == ERR_IO
          ? S("source")
                       : e.kind == ERR_CLOSED || e.kind == ERR_RESET ? S("gone") : err_kind_name(e.kind));
        client_close(client);
    } else {
        client_quit(client);
    }
    if (d->seconds)
        EXPECT_INT(t, (rt_now(rt) - began) / SECOND, d->seconds);
    EXPECT_STR(t, text_str(&got), d->wanted);
    EXPECT(t, !err_is(scope_wait(&scope, within(rt, peer->patience))));
    scope_end(&scope);
    EXPECT(t, peer->ended);
    EXPECT_STR(t, str_from_cstr(peer->failure), S(""));
    if (!str_is_absent(d->on_wire))
        EXPECT_STR(t, text_str(&peer->content), d->on_wire);
    if (d->repeat && str_ends(d->wanted, S(" end")))
        EXPECT(t, peer->content_bytes >= d->content.len * d->repeat);
    arena_done(&arena);
    mem_free(mem, peer, sizeof *peer);
    mem_free(mem, content_memory, CONTENT_MAX);
}

static void
run_dialogs(struct test *t, const struct dialog *dialogs, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct world world = { t, &dialogs[i] };

        test_case(t, dialogs[i].why);
        EXPECT(t, !err_is((dialogs[i].seconds ? rt_run_leaping : rt_run)(run_dialog, &world)));
    }
}

#define PLAIN "S: 220 hi\nC: EHLO me.example\nS: 250 hi\n"
#define PIPED "S: 220 hi\nC: EHLO me.example\nS: 250-hi\nS: 250 PIPELINING\n"
#define CHUNK "S: 220 hi\nC: EHLO me.example\nS: 250-hi\nS: 250-PIPELINING\nS: 250 CHUNKING\n"
#define LMTP  "S: 220 hi\nC: LHLO me.example\nS: 250-hi\nS: 250 PIPELINING\n"
#define MAIL  "C: MAIL FROM:<a@a.example>\n"
#define RCPT0 "C: RCPT TO:<u0@b.example>\n"
#define RCPT1 "C: RCPT TO:<u1@b.example>\n"
#define QUIT  "C: QUIT\nS: 221 bye\n"
#define IN_TURN MAIL "S: 250 ok\n" RCPT0 "S: 250 ok\n" RCPT1 "S: 250 ok\nC: DATA\nS: 354 go\n"
#define GROUP MAIL RCPT0 RCPT1 "C: DATA\n"
#define ACCEPT "S: 250 ok\nS: 250 ok\nS: 250 ok\nS: 354 go\n"

static void
speaks_the_dialog(struct test *t)
{
    static const struct dialog dialogs[] = {
        { "one at a time", STR(PLAIN IN_TURN "D\nS: 250 ok\n" QUIT), STR("250 250,250 354 250 end"), STR("a\r\n"),
          STR("a\r\n.\r\n") },
        { "pipelined", STR(PIPED GROUP ACCEPT "D\nS: 250 ok\n" QUIT), STR("250 250,250 354 250 end"), STR("a\r\n"),
          STR("a\r\n.\r\n") },
        { "pipelining refused by us", STR(PIPED IN_TURN "D\nS: 250 ok\n" QUIT), STR("250 250,250 354 250 end"),
          STR("a\r\n"),
          .refuse = CLIENT_PIPELINING },
        { "HELO where EHLO is unknown",
          STR("S: 220 hi\nC: EHLO me.example\nS: 502 what\nC: HELO me.example\nS: 250 hi\n"
          IN_TURN "D\nS: 250 ok\n" QUIT), STR("250 250,250 354 250 end"), STR("a\r\n") },
        { "bare LF in replies", STR("S: 220 hi\nC: EHLO me.example\nS: 250-hi\nS: 250 PIPELINING \n" GROUP ACCEPT
          "D\nS: 250 ok\n" QUIT), STR("250 250,250 354 250 end"), STR("a\r\n") },
        { "codes alone", STR("S: 220\nC: EHLO me.example\nS: 250\n" MAIL "S: 250\n" RCPT0 "S: 250\n" RCPT1
          "S: 250\nC: DATA\nS: 354\nD\nS: 250\n" QUIT), STR("250 250,250 354 250 end"), STR("a\r\n") },
        { "unexpected 2xx", STR("S: 299 hi\nC: EHLO me.example\nS: 251 hi\n" MAIL "S: 200 ok\n" RCPT0 "S: 251 ok\n"
          RCPT1
          "S: 252 ok\nC: DATA\nS: 354\nD\nS: 222 ok\n" QUIT), STR("200 251,252 354 222 end"), STR("a\r\n") },
        { "parameters",
          STR("S: 220 hi\nC: EHLO me.example\nS: 250-hi\nS: 250-SIZE 1000\nS: 250-8BITMIME\nS: 250-smtputf8\n"
          "S: 250 DSN\nC: MAIL FROM:<a@a.example> SIZE=3 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=QQ1\nS: 250 ok\n"
          "C: RCPT TO:<u0@b.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;o0@b.example\nS: 250 ok\n"
          "C: RCPT TO:<u1@b.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;o1@b.example\nS: 250 ok\n"
          "C: DATA\nS: 354 go\nD\nS: 250 ok\n" QUIT), STR("250 250,250 354 250 end"), STR("a\r\n"), .body =
            BODY_8BITMIME,
          .ret = RET_HDRS, .notify = NOTIFY_SUCCESS | NOTIFY_DELAY, .smtputf8 = true },
        { "no parameters where none are offered", STR(PLAIN IN_TURN "D\nS: 250 ok\n" QUIT),
          STR("250 250,250 354 250 end"),
          STR("a\r\n"), .body = BODY_8BITMIME, .ret = RET_FULL, .notify = NOTIFY_NEVER },
        { "two transactions, no RSET between", STR(PIPED GROUP ACCEPT "D\nS: 250 ok\n" GROUP ACCEPT "D\nS: 250 ok\n"
          QUIT),
          STR("250 250,250 354 250 end; 250 250,250 354 250 end"), STR("a\r\n"), .transactions = 2 },
        { "MAILMAX",
          STR("S: 220 hi\nC: EHLO me.example\nS: 250-hi\nS: 250-LIMITS X=1 MAILMAX=1 RCPTMAX=01\nS: 250 PIPELINING\n"
          GROUP ACCEPT "D\nS: 250 ok\n" QUIT), STR("250 250,250 354 250 end"), STR("a\r\n"), .transactions = 2 },
        { "a probe, and RSET behind it", STR(PIPED MAIL RCPT0 RCPT1 "S: 250 ok\nS: 250 ok\nS: 550 no\nC: RSET\n"
          MAIL RCPT0 RCPT1 "S: 250 ok\nS: 250 ok\nS: 250 ok\nS: 250 ok\n" QUIT),
          STR("250 250,550 0 0 rcpt; 250 250,250 0 0 rcpt"), .probe = true, .transactions = 2 },
        { "greeting refused", STR("S: 554 no\n" QUIT), STR("hello 554"), STR("a\r\n") },
        { "greeting 421: no QUIT to who goes", STR("S: 421 busy\nW\n"), STR("hello 421"), STR("a\r\n") },
        { "EHLO 4xx", STR("S: 220 hi\nC: EHLO me.example\nS: 450 later\n" QUIT), STR("hello 450"), STR("a\r\n") },
        { "HELO refused too", STR("S: 220 hi\nC: EHLO me.example\nS: 550 no\nC: HELO me.example\nS: 550 no\n" QUIT),
          STR("hello 550"), STR("a\r\n") },
    };

    run_dialogs(t, dialogs, sizeof dialogs / sizeof *dialogs);
}

static void
hears_refusals(struct test *t)
{
    static const struct dialog dialogs[] = {
        { "MAIL refused, in turn", STR(PLAIN MAIL "S: 550 no\n" QUIT), STR("550 0,0 0 0 mail"), STR("a\r\n") },
        { "MAIL refused, pipelined", STR(PIPED GROUP "S: 550 no\nS: 503 no\nS: 503 no\nS: 503 no\n" QUIT),
          STR("550 503,503 503 0 data"), STR("a\r\n") },
        { "one RCPT refused", STR(PIPED GROUP "S: 250 ok\nS: 550 no\nS: 250 ok\nS: 354 go\nD\nS: 250 ok\n" QUIT),
          STR("250 550,250 354 250 end"), STR("a\r\n") },
        { "every RCPT refused, in turn: no DATA, and RSET before the next", STR(PLAIN MAIL "S: 250 ok\n" RCPT0
          "S: 550 no\n" RCPT1 "S: 450 no\nC: RSET\nS: 250 ok\n" MAIL "S: 250 ok\n" RCPT0 "S: 550 no\n" RCPT1
            "S: 550 no\n" QUIT),
          STR("250 550,450 0 0 rcpt; 250 550,550 0 0 rcpt"), STR("a\r\n"), .transactions = 2 },
        { "every RCPT refused, pipelined, and RSET leads the next group", STR(PIPED GROUP
          "S: 250 ok\nS: 550 no\nS: 550 no\nS: 554 none\nC: RSET\n" GROUP "S: 250 ok\n" ACCEPT "D\nS: 250 ok\n" QUIT),
          STR("250 550,550 554 0 data; 250 250,250 354 250 end"), STR("a\r\n"), .transactions = 2 },
        { "354 though nobody was accepted: a lone dot", STR(PIPED GROUP
          "S: 250 ok\nS: 550 no\nS: 550 no\nS: 354 go\nC: .\n"
          "S: 250 fine\n" QUIT), STR("250 550,550 354 0 end"), STR("secret\r\n") },
        { "354 though MAIL was refused: a lone dot", STR(PIPED GROUP
          "S: 550 no\nS: 503 no\nS: 503 no\nS: 354 go\nC: .\n"
          "S: 554 none\n" QUIT), STR("550 503,503 354 0 end"), STR("secret\r\n") },
        { "LMTP: 354 though nobody was accepted, no reply follows", STR(LMTP GROUP
          "S: 250 ok\nS: 550 no\nS: 550 no\nS: 354 go\nC: .\nW\n"), STR("250 550,550 354 0,0 end"), STR("secret\r\n"),
          .lmtp = true },
        { "DATA refused", STR(PIPED GROUP "S: 250 ok\nS: 250 ok\nS: 250 ok\nS: 451 no\n" QUIT),
          STR("250 250,250 451 0 data"),
          STR("a\r\n") },
        { "content refused", STR(PIPED GROUP ACCEPT "D\nS: 554 no\n" QUIT), STR("250 250,250 354 554 end"),
          STR("a\r\n") },
        { "421 at RCPT ends it", STR(PIPED GROUP "S: 250 ok\nS: 550 no\nS: 421 bye\nW\n"), STR("250 550,421 0 0 rcpt"),
          STR("a\r\n") },
        { "421 at RCPT in turn", STR(PLAIN MAIL "S: 250 ok\n" RCPT0 "S: 421 bye\nW\n"), STR("250 421,0 0 0 rcpt"),
          STR("a\r\n") },
        { "421 at the end", STR(PIPED GROUP ACCEPT "D\nS: 421 bye\nW\n"), STR("250 250,250 354 421 end"), STR("a\r\n")
          },
        { "LMTP: each its own reply", STR(LMTP MAIL RCPT0 RCPT1 "C: RCPT TO:<u2@b.example>\nC: DATA\n"
          "S: 250 ok\nS: 250 ok\nS: 550 no\nS: 250 ok\nS: 354 go\nD\nS: 250 ok\nS: 452 full\n" QUIT),
          STR("250 250,550,250 354 250,0,452 end"), STR("a\r\n"), .lmtp = true, .rcpt_count = 3 },
        { "LMTP: 421 between replies", STR(LMTP GROUP ACCEPT "D\nS: 250 ok\nS: 421 bye\nW\n"),
          STR("250 250,250 354 250,421 end"), STR("a\r\n"), .lmtp = true },
    };

    run_dialogs(t, dialogs, sizeof dialogs / sizeof *dialogs);
}

/* One server that goes away, one that is silent, one that talks nonsense: after each of its lines. */
static void
survives_an_end_anywhere(struct test *t)
{
    static const char *const replies[] = { "S: 220 hi\n", "S: 250-hi\nS: 250 PIPELINING\n", "S: 250 ok\n",
        "S: 250 ok\n",
                                           "S: 250 ok\n", "S: 354 go\n", "S: 250 ok\n" };
    static const char *const hears[] = { "", "C: EHLO me.example\n", GROUP, "", "", "", "D\n" };
    static const char *const stages[] = { "hello 0", "hello 0", "0 0,0 0 0 mail", "250 0,0 0 0 rcpt",
        "250 250,0 0 0 rcpt",
                                          "250 250,250 0 0 data", "250 250,250 354 0 final" };
    static const struct {
        const char *why, *line, *kind;
    } ends[] = {
        { "closes", "H\n", "gone" },
        { "resets", "R\n", "gone" },
        { "is silent", "Z\n", "timeout" },
        { "malformed", "S: hello\nZ\n", "protocol" },
        { "1yz", "S: 100 hm\nZ\n", "protocol" },
        { "3yz out of place", "S: 355 hm\nZ\n", "protocol" },
        { "two codes", "S: 250-a\nS: 450 b\nZ\n", "protocol" },
        { "endless lines", "S# 250-a 101\nZ\n", "protocol" },
    };
    static char script[1024], wanted[128], why[128];

    for (size_t stop = 0; stop < sizeof replies / sizeof *replies; stop++)
        for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
            struct text s = text_init(script, sizeof script), w = text_init(wanted, sizeof wanted),
                        name = text_init(why, sizeof why);
            bool slow = str_eq(str_from_cstr(ends[i].kind), S("timeout"));

            if (slow && stop >= 2 && stop <= 4)
                continue; /* RCPT and MAIL wait longer here; the other waits are the same code */
            text_putf(&name, "%s before reply %zu", ends[i].why, stop);
            text_cstr(&name);
            for (size_t at = 0; at < stop; at++)
                text_putf(&s, "%s%s", hears[at], replies[at]);
            text_putf(&s, "%s%s", hears[stop], ends[i].line);
            text_putf(&w, "%s lost %s", stages[stop], ends[i].kind);
            if (stop == 5 && str_eq(str_from_cstr(ends[i].why), S("3yz out of place"))) {
                w.len = 0; /* a 3yz that is not 354 is a reply to DATA; it is lost all the same */
                text_put(&w, S("250 250,250 355 0 data lost protocol"));
            }
            struct dialog d = { why, text_str(&s), text_str(&w), STR("a\r\n") };
            run_dialogs(t, &d, 1);
        }

    static const struct dialog gone[] = {
        { "gone before EHLO: what it said earlier is no answer", STR("S: 220 a\nS: 250 b\nH\n"), STR("hello 0 lost protocol") },
        { "but it may have said why", STR("S: 220 a\nS: 554 b\nH\n"), STR("hello 554") },
    };
    run_dialogs(t, gone, sizeof gone / sizeof *gone);

    static const struct dialog unasked[] = {
        { "a second greeting", STR("S: 220 a\nS: 220 b\nW\n"), STR("hello 0 lost protocol") },
        { "a reply too many to EHLO", STR(CHUNK "S: 250 more\nW\n"), STR("0 0,0 0 0 mail lost protocol"), STR("a\r\n") },
        { "and without PIPELINING", STR(PLAIN "S: 250 more\nW\n"), STR("0 0,0 0 0 mail lost protocol"), STR("a\r\n") },
        { "but 421 may come by itself", STR(PIPED "S: 421 bye\nW\n"), STR("421 0,0 0 0 mail"), STR("a\r\n") },
    };
    run_dialogs(t, unasked, sizeof unasked / sizeof *unasked);
}

/* Whether somebody is known. */
static void
asks(struct test *t)
{
#define HI_UTF8 "S: 220 hi\nC: EHLO me.example\nS: 250-hi\nS: 250-8BITMIME\nS: 250 SMTPUTF8\n"
    static const struct dialog dialogs[] = {
        { "ASCII", STR(HI_UTF8 "C: MAIL FROM:<>\nS: 250 ok\nC: RCPT TO:<x@b.example>\nS: 250 ok\n" QUIT), STR("asked 250"),
          .asks = STR("x@b.example") },
        { "nobody of that name", STR(PLAIN "C: MAIL FROM:<>\nS: 250 ok\nC: RCPT TO:<x@b.example>\nS: 550 no\n" QUIT),
          STR("asked 550"), .asks = STR("x@b.example") },
        { "no sender is liked", STR(PLAIN "C: MAIL FROM:<>\nS: 550 no\n" QUIT), STR("not asked 550"), .asks = STR("x@b.example") },
        { "beyond ASCII", STR(HI_UTF8 "C: MAIL FROM:<> SMTPUTF8\nS: 250 ok\nC: RCPT TO:<\xc3\xbc@b.example>\nS: 250 ok\n" QUIT),
          STR("asked 250"), .asks = STR("\xc3\xbc@b.example") },
        { "beyond what it speaks", STR(PLAIN QUIT), STR("not asked 0"), .asks = STR("\xc3\xbc@b.example") },
    };

    run_dialogs(t, dialogs, sizeof dialogs / sizeof *dialogs);
}

static void
sends_content(struct test *t)
{
#define TEN(x) x x x x x x x x x x
#define CHATTER "B\nS# 250-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx 90\nS: 250 ok\n"
    static const struct dialog dialogs[] = {
        { "empty", STR(PIPED GROUP ACCEPT "D\nS: 250 ok\n" QUIT), STR("250 250,250 354 250 end"), STR(""), STR(".\r\n")
          },
        { "dots", STR(PIPED GROUP ACCEPT "D\nS: 250 ok\n" QUIT), STR("250 250,250 354 250 end"),
          STR(".\r\n..\r\na.\r\n.b\r\n"), STR("..\r\n...\r\na.\r\n..b\r\n.\r\n") },
        { "no last line end", STR(PIPED GROUP ACCEPT "D\nS: 250 ok\n" QUIT), STR("250 250,250 354 250 end"),
          STR("a\r\nb"),
          STR("a\r\nb\r\n.\r\n") },
        { "smuggling: LF . LF", STR(PIPED GROUP ACCEPT "D\nS: 250 ok\n" QUIT), STR("250 250,250 354 250 end"),
          STR("a\n.\nMAIL FROM:<x@y>\r\n"), STR("a\r\n..\r\nMAIL FROM:<x@y>\r\n.\r\n"), .source_step = 1 },
        { "smuggling: CR . CR", STR(PIPED GROUP ACCEPT "D\nS: 250 ok\n" QUIT), STR("250 250,250 354 250 end"),
          STR("a\r.\rb\r\n"), STR("a\r\n..\r\nb\r\n.\r\n") },
        { "smuggling: CRLF . LF", STR(PIPED GROUP ACCEPT "D\nS: 250 ok\n" QUIT), STR("250 250,250 354 250 end"),
          STR("a\r\n.\nb\r\n"), STR("a\r\n..\r\nb\r\n.\r\n"), .source_step = 1 },
        { "smuggling: CR CRLF . CR CRLF", STR(PIPED GROUP ACCEPT "D\nS: 250 ok\n" QUIT), STR("250 250,250 354 250 end"),
          STR("a\r\r\n.\r\r\nb\r\n"), STR("a\r\n\r\n..\r\n\r\nb\r\n.\r\n"), .source_step = 1 },
        { "many blocks", STR(PIPED GROUP ACCEPT "D\nS: 250 ok\n" QUIT), STR("250 250,250 354 250 end"),
          STR("0123456789\r\n.\r\n"), .repeat = 20000 },
        { "many blocks, tiny buffers", STR(PIPED GROUP ACCEPT "D\nS: 250 ok\n" QUIT), STR("250 250,250 354 250 end"),
          STR("0123456789\r\n"), .repeat = 20000, .tiny = true },
        { "chunk", STR(CHUNK MAIL RCPT0 RCPT1 "S: 250 ok\nS: 250 ok\nS: 250 ok\nB\nS: 250 ok\n" QUIT),
          STR("250 250,250 0 250 end"), STR(".a\r\nb"), STR(".a\r\nb") },
        { "empty chunk", STR(CHUNK MAIL RCPT0 RCPT1 "S: 250 ok\nS: 250 ok\nS: 250 ok\nC: BDAT 0 LAST\nS: 250 ok\n"
          QUIT),
          STR("250 250,250 0 250 end"), STR("") },
        { "chunk, in turn", STR("S: 220 hi\nC: EHLO me.example\nS: 250-hi\nS: 250 CHUNKING\n" MAIL "S: 250 ok\n" RCPT0
          "S: 250 ok\n" RCPT1 "S: 250 ok\nB\nS: 250 ok\nB\nS: 250 ok\n" QUIT), STR("250 250,250 0 250 end"),
          STR("0123456789abcdef"), .repeat = 3000 },
        { "chunk, however much is said of each", STR("S: 220 hi\nC: EHLO me.example\nS: 250-hi\nS: 250 CHUNKING\n" MAIL
          "S: 250 ok\n" RCPT0 "S: 250 ok\n" RCPT1 "S: 250 ok\n" TEN(CHATTER) TEN(CHATTER) "B\nS: 250 ok\n" QUIT), STR("250 250,250 0 250 end"),
          STR("0123456789abcdef"), .repeat = 20 * 2048 + 1000, .memory = 16 << 10 },
        { "chunk: bare line ends are repaired", STR(CHUNK MAIL RCPT0 RCPT1
          "S: 250 ok\nS: 250 ok\nS: 250 ok\nB\nS: 250 ok\n"
          QUIT), STR("250 250,250 0 250 end"), STR("a\n.\rb\r"), STR("a\r\n.\r\nb\r\n") },
        { "chunk: binary stays", STR("S: 220 hi\nC: EHLO me.example\nS: 250-hi\nS: 250-CHUNKING\nS: 250 BINARYMIME\n"
          "C: MAIL FROM:<a@a.example> BODY=BINARYMIME\nS: 250 ok\n" RCPT0 "S: 250 ok\n" RCPT1
            "S: 250 ok\nB\nS: 250 ok\n" QUIT),
          STR("250 250,250 0 250 end"), STR("a\n\r\0b\r"), STR("a\n\r\0b\r"), .body = BODY_BINARYMIME },
        { "chunk: nobody accepted", STR(CHUNK MAIL RCPT0 RCPT1 "S: 250 ok\nS: 550 no\nS: 550 no\n" QUIT),
          STR("250 550,550 0 0 rcpt"), STR("a\r\n") },
        { "chunk refused, others on their way, then RSET", STR(CHUNK MAIL RCPT0 RCPT1
          "S: 250 ok\nS: 250 ok\nS: 250 ok\n"
          "B\nS: 552 too big\nB\nS: 503 no\nB\nS: 503 no\nB\nS: 503 no\nC: QUIT\nS: 221 bye\n"),
          STR("250 250,250 0 552 content"), STR("0123456789abcdef"), .repeat = 7000, .refuse = 0 },
        { "chunk: LMTP", STR("S: 220 hi\nC: LHLO me.example\nS: 250-hi\nS: 250-PIPELINING\nS: 250 CHUNKING\n" MAIL
          RCPT0 RCPT1
          "S: 250 ok\nS: 250 ok\nS: 250 ok\nB\nS: 250 ok\nS: 552 full\n" QUIT), STR("250 250,250 0 250,552 end"),
            STR("a\r\n"),
          .lmtp = true },
        { "an answer before the end", STR(PIPED GROUP ACCEPT "S: 552 too big\nZ\n"), STR("250 250,250 354 552 content"),
          STR("0123456789\r\n"), .repeat = 400000, .tiny = true },
        { "an answer before the end, and gone", STR(PIPED GROUP ACCEPT "S: 452 no room\nR\n"),
          STR("250 250,250 354 452 content"), STR("0123456789\r\n"), .repeat = 400000, .tiny = true },
        { "a 2xx before the end is nonsense", STR(PIPED GROUP ACCEPT "S: 250 done\nZ\n"),
          STR("250 250,250 354 0 content lost protocol"), STR("0123456789\r\n"), .repeat = 400000, .tiny = true },
        { "chunk: nor is one before the first that is sent", STR(CHUNK MAIL RCPT0 RCPT1
          "S: 250 ok\nS: 250 ok\nS: 250 ok\nS: 250 one too many\nZ\n"), STR("250 250,250 0 0 content lost protocol"), STR("a\r\n") },
        { "chunk: a refusal before the first is an answer", STR(CHUNK MAIL RCPT0 RCPT1
          "S: 250 ok\nS: 250 ok\nS: 250 ok\nS: 452 no room\nZ\n"), STR("250 250,250 0 452 content"), STR("a\r\n") },
        { "the server stops reading", STR(PIPED GROUP ACCEPT "N\n"), STR("250 250,250 354 0 content lost timeout"),
          STR("0123456789\r\n"), .repeat = 400000, .tiny = true },
        { "the source fails: the message must not end", STR(PIPED GROUP ACCEPT "Z\n"),
          STR("250 250,250 354 0 content lost source"), STR("0123456789\r\n"), .repeat = 400000, .source_fails = true },
    };

    run_dialogs(t, dialogs, sizeof dialogs / sizeof *dialogs);
}

/*
 * A server that answers each command at length before it reads the next, with small buffers on all sides: who writes
 * all before reading any would wait for ever. And the other way round: one that reads all, then answers.
 */
static void
pipelines_without_deadlock(struct test *t)
{
    static const struct dialog dialogs[] = {
        { "1000 recipients, answered one by one", STR(PIPED MAIL
          "S# 250-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx 90\nS: 250 ok\n"
          "P 1000\nC: DATA\nS: 354 go\nD\nS: 250 ok\n" QUIT), STR("250 250,250,250,250 354 250 end"), STR("a\r\n"),
          .rcpt_count = 1000, .tiny = true },
        { "1000 recipients, answers first", STR(PIPED
          MAIL "S: 250 ok\nS# 250-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx 90\nS: 250 ok\n"
          "P 999\nC: RCPT TO:<u999@b.example>\nC: DATA\nS: 354 go\nD\nS: 250 ok\n" QUIT),
          STR("250 250,250,250,250 354 250 end"), STR("a\r\n"), .rcpt_count = 1000, .tiny = true },
        { "1000 recipients by LMTP, answered one by one", STR("S: 220 hi\nC: LHLO me.example\nS: 250-hi\n"
          "S: 250 PIPELINING\n" MAIL "S# 250-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx 90\nS: 250 ok\n"
          "P 1000\nC: DATA\nS: 354 go\nD\nS# 250 ok 1000\n" QUIT),
          STR("250 250,250,250,250 354 250,250,250,250 end"), STR("a\r\n"), .rcpt_count = 1000, .tiny = true,
          .lmtp = true },
        { "1000 recipients in turn", STR(PLAIN MAIL "S: 250 ok\nP 1000\nC: DATA\nS: 354 go\nD\nS: 250 ok\n" QUIT),
          STR("250 250,250,250,250 354 250 end"), STR("a\r\n"), .rcpt_count = 1000, .tiny = true },
    };

    run_dialogs(t, dialogs, sizeof dialogs / sizeof *dialogs);
}

/*
 * Replies minutes apart, by a clock that leaps: each comes when the time for it is all but over, and nothing is given
 * up. RFC 5321 section 4.5.3.2 has each wait begin anew.
 */
static void
waits_for_the_slow(struct test *t)
{
#define SLOW_HELLO(verb) "T 295\nS: 220 hi\nC: " verb " me.example\nT 295\nS: 250-hi\n"
#define SLOW_ENVELOPE "T 295\nS: 250 ok\nT 295\nS: 250 ok\nT 295\nS: 250 ok\n"
#define SLOW_QUIT "C: QUIT\nT 9\nS: 221 bye\n"
    enum { HELLO = 2 * 295, ENVELOPE = 3 * 295, DATA = 115, BLOCK = 175, FINAL = 595, BYE = 9 };
    static const struct dialog dialogs[] = {
        { "SMTP, one at a time",
          STR(SLOW_HELLO("EHLO") "S: 250 x\n" MAIL "T 295\nS: 250 ok\n" RCPT0 "T 295\nS: 250 ok\n" RCPT1
          "T 295\nS: 250 ok\nC: DATA\nT 115\nS: 354 go\nD\nT 595\nS: 250 ok\n" SLOW_QUIT),
          STR("250 250,250 354 250 end"), STR("a\r\n"), .seconds = HELLO + ENVELOPE + DATA + FINAL + BYE },
        { "SMTP, pipelined", STR(SLOW_HELLO("EHLO") "S: 250 PIPELINING\n" GROUP SLOW_ENVELOPE
          "T 115\nS: 354 go\nD\nT 595\nS: 250 ok\n" SLOW_QUIT),
          STR("250 250,250 354 250 end"), STR("a\r\n"), .seconds = HELLO + ENVELOPE + DATA + FINAL + BYE },
        { "SMTP, the lines of a reply a minute apart", STR("S: 220 hi\nC: EHLO me.example\nS: 250-hi\nT 70\nS: 250-X\n"
          "T 70\nS: 250-Y\nT 70\nS: 250-HELP\nT 70\nS: 250 PIPELINING\n" GROUP ACCEPT "D\nS: 250-x\nT 290\nS: 250-y\n"
          "T 290\nS: 250 z\n" QUIT),
          STR("250 250,250 354 250 end"), STR("a\r\n"), .seconds = 280 + 580 },
        { "SMTP, a server that reads with long breaks", STR(PIPED GROUP ACCEPT "T 175\nD\nT 595\nS: 250 ok\n" QUIT),
          STR("250 250,250 354 250 end"), STR("0123456789\r\n"), .repeat = 400000, .tiny = true,
          .seconds = BLOCK + FINAL },
        { "SMTP, chunks", STR(SLOW_HELLO("EHLO") "S: 250 CHUNKING\n" MAIL "T 295\nS: 250 ok\n" RCPT0
          "T 295\nS: 250 ok\n" RCPT1 "T 295\nS: 250 ok\nB\nT 175\nS: 250 ok\nB\nT 595\nS: 250 ok\n" SLOW_QUIT),
          STR("250 250,250 0 250 end"), STR("0123456789abcdef"), .repeat = 3000,
          .seconds = HELLO + ENVELOPE + BLOCK + FINAL + BYE },
        { "SMTP, everything refused slowly", STR(SLOW_HELLO("EHLO") "S: 250 PIPELINING\n" GROUP
          "T 295\nS: 450 no\nT 295\nS: 503 no\nT 295\nS: 503 no\nT 115\nS: 503 no\n" SLOW_QUIT),
          STR("450 503,503 503 0 data"), STR("a\r\n"), .seconds = HELLO + ENVELOPE + DATA + BYE },
        { "LMTP, one at a time",
          STR(SLOW_HELLO("LHLO") "S: 250 x\n" MAIL "T 295\nS: 250 ok\n" RCPT0 "T 295\nS: 250 ok\n" RCPT1
          "T 295\nS: 250 ok\nC: DATA\nT 115\nS: 354 go\nD\nT 595\nS: 250 ok\nT 595\nS: 452 full\n" SLOW_QUIT),
          STR("250 250,250 354 250,452 end"), STR("a\r\n"), .lmtp = true,
          .seconds = HELLO + ENVELOPE + DATA + 2 * FINAL + BYE },
        { "LMTP, pipelined, a reply for each recipient", STR(SLOW_HELLO("LHLO") "S: 250 PIPELINING\n" GROUP
          SLOW_ENVELOPE "T 115\nS: 354 go\nD\nT 595\nS: 250 ok\nT 595\nS: 250 ok\n" SLOW_QUIT),
          STR("250 250,250 354 250,250 end"), STR("a\r\n"), .lmtp = true,
          .seconds = HELLO + ENVELOPE + DATA + 2 * FINAL + BYE },
        { "LMTP, chunks", STR(SLOW_HELLO("LHLO") "S: 250-PIPELINING\nS: 250 CHUNKING\n" MAIL RCPT0 RCPT1 SLOW_ENVELOPE
          "B\nT 595\nS: 250 ok\nT 595\nS: 250 ok\n" SLOW_QUIT),
          STR("250 250,250 0 250,250 end"), STR("a\r\n"), .lmtp = true, .seconds = HELLO + ENVELOPE + 2 * FINAL + BYE },
    };

    run_dialogs(t, dialogs, sizeof dialogs / sizeof *dialogs);
}

/* And the reply that does not come is waited for as long as it is its due, wherever it is missing; not longer. */
static void
gives_up_on_time(struct test *t)
{
    static const struct dialog dialogs[] = {
        { "no greeting", STR("Z\n"), STR("hello 0 lost timeout"), .seconds = 300 },
        { "no answer to EHLO", STR("S: 220 hi\nC: EHLO me.example\nZ\n"), STR("hello 0 lost timeout"), .seconds = 300 },
        { "half an answer to EHLO", STR("S: 220 hi\nC: EHLO me.example\nT 200\nS: 250-hi\nZ\n"),
          STR("hello 0 lost timeout"), .seconds = 300 },
        { "an answer to EHLO that drips", STR("S: 220 hi\nC: EHLO me.example\nS: 250-hi\nT 80\nS: 250-a\nT 80\n"
          "S: 250-b\nT 80\nS: 250-c\nZ\n"), STR("hello 0 lost timeout"), .seconds = 300 },
        { "MAIL, in turn", STR(PLAIN MAIL "Z\n"), STR("0 0,0 0 0 mail lost timeout"), STR("a\r\n"), .seconds = 300 },
        { "MAIL, pipelined", STR(PIPED GROUP "Z\n"), STR("0 0,0 0 0 mail lost timeout"), STR("a\r\n"), .seconds = 300 },
        { "RCPT, in turn", STR(PLAIN MAIL "T 100\nS: 250 ok\n" RCPT0 "T 100\nS: 250 ok\n" RCPT1 "Z\n"),
          STR("250 250,0 0 0 rcpt lost timeout"), STR("a\r\n"), .seconds = 500 },
        { "RCPT, pipelined", STR(PIPED GROUP "T 100\nS: 250 ok\nT 100\nS: 250 ok\nZ\n"),
          STR("250 250,0 0 0 rcpt lost timeout"), STR("a\r\n"), .seconds = 500 },
        { "DATA, in turn", STR(PLAIN MAIL "S: 250 ok\n" RCPT0 "S: 250 ok\n" RCPT1 "S: 250 ok\nC: DATA\nZ\n"),
          STR("250 250,250 0 0 data lost timeout"), STR("a\r\n"), .seconds = 120 },
        { "DATA, pipelined", STR(PIPED GROUP "S: 250 ok\nS: 250 ok\nS: 250 ok\nZ\n"),
          STR("250 250,250 0 0 data lost timeout"), STR("a\r\n"), .seconds = 120 },
        { "content is not read", STR(PIPED GROUP ACCEPT "T 200\n"), STR("250 250,250 354 0 content lost timeout"),
          STR("0123456789\r\n"), .repeat = 400000, .tiny = true, .seconds = 180 + 10 }, /* did it say why? */
        { "the end", STR(PIPED GROUP ACCEPT "D\nZ\n"), STR("250 250,250 354 0 final lost timeout"), STR("a\r\n"),
          .seconds = 600 },
        { "a chunk", STR("S: 220 hi\nC: EHLO me.example\nS: 250-hi\nS: 250 CHUNKING\n" MAIL "S: 250 ok\n" RCPT0
          "S: 250 ok\n" RCPT1 "S: 250 ok\nB\nZ\n"), STR("250 250,250 0 0 content lost timeout"),
          STR("0123456789abcdef"), .repeat = 3000, .seconds = 180 },
        { "the last chunk", STR(CHUNK MAIL RCPT0 RCPT1 "S: 250 ok\nS: 250 ok\nS: 250 ok\nB\nZ\n"),
          STR("250 250,250 0 0 final lost timeout"), STR("a\r\n"), .seconds = 600 },
        { "LMTP: LHLO", STR("S: 220 hi\nC: LHLO me.example\nZ\n"), STR("hello 0 lost timeout"), .lmtp = true,
          .seconds = 300 },
        { "LMTP: MAIL", STR(LMTP GROUP "Z\n"), STR("0 0,0 0 0,0 mail lost timeout"), STR("a\r\n"), .lmtp = true,
          .seconds = 300 },
        { "LMTP: RCPT", STR(LMTP GROUP "S: 250 ok\nZ\n"), STR("250 0,0 0 0,0 rcpt lost timeout"), STR("a\r\n"),
          .lmtp = true, .seconds = 300 },
        { "LMTP: DATA", STR(LMTP GROUP "S: 250 ok\nS: 250 ok\nS: 250 ok\nZ\n"),
          STR("250 250,250 0 0,0 data lost timeout"), STR("a\r\n"), .lmtp = true, .seconds = 120 },
        { "LMTP: the second recipient's reply", STR(LMTP GROUP ACCEPT "D\nT 500\nS: 250 ok\nZ\n"),
          STR("250 250,250 354 250,0 final lost timeout"), STR("a\r\n"), .lmtp = true, .seconds = 500 + 600 },
        { "QUIT, which is not worth much", STR(PIPED GROUP ACCEPT "D\nS: 250 ok\nC: QUIT\nZ\n"),
          STR("250 250,250 354 250 end"), STR("a\r\n"), .seconds = 10 },
    };

    run_dialogs(t, dialogs, sizeof dialogs / sizeof *dialogs);
}

TEST_MAIN({ "speaks the dialog", speaks_the_dialog }, { "hears refusals", hears_refusals },
          { "survives an end anywhere", survives_an_end_anywhere }, { "asks", asks }, { "sends content", sends_content },
          { "pipelines without deadlock", pipelines_without_deadlock }, { "waits for the slow", waits_for_the_slow },
          { "gives up on time", gives_up_on_time })
