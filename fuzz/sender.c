/* sender - see sender.h. */
#include "sender.h"

#include "fuzz.h"
#include "hostile.h"
#include "world.h"

enum { TRANSACTIONS = 2, RCPTS = 6, HEARD_MAX = 1 << 20, CLIENT_ARENA = 1 << 20 };

struct source {
    struct str content;
    size_t at, step;
    bool fails;
};

struct sending {
    struct arena *arena;
    struct client_settings settings;
    struct hostile server;
    struct source source[TRANSACTIONS];
    struct client_transaction t[TRANSACTIONS];
    struct remote_reply rcpt_reply[TRANSACTIONS][RCPTS], final_reply[TRANSACTIONS][RCPTS];
    struct recipient recipients[RCPTS];
    const struct recipient *rcpt[RCPTS];
    size_t rcpt_count, begun;
    bool binary[TRANSACTIONS];
    unsigned extensions;
};

static struct err
read_source(void *arg, void *memory, size_t cap, int64_t until, size_t *out_len)
{
    struct source *s = arg;
    struct text t = text_init(memory, cap);

    (void)until;
    if (s->fails && s->at * 2 >= s->content.len)
        return ERR(ERR_IO, "read content");
    text_put(&t, str_slice(s->content, s->at, s->at + (s->step < cap ? s->step : cap)));
    s->at += t.len;
    *out_len = t.len;
    return OK;
}

static void
check_reply(const struct remote_reply *r)
{
    CHECK(r->code == 0 || (r->code >= 200 && r->code <= 599));
    CHECK(r->text.len <= LIMIT_REPLY_TEXT);
    for (size_t i = 0; i < r->text.len; i++)
        CHECK((unsigned char)r->text.ptr[i] >= ' ' && (unsigned char)r->text.ptr[i] < 0x7f);
}

static void
check_transaction(const struct sending *s, size_t k, struct err e)
{
    const struct client_transaction *t = &s->t[k];
    size_t accepted = 0;

    check_reply(&t->mail);
    check_reply(&t->data);
    check_reply(&t->final);
    for (size_t i = 0; i < t->rcpt_count; i++) {
        check_reply(&t->rcpt_reply[i]);
        check_reply(&t->final_reply[i]);
        accepted += remote_reply_is_positive(&t->rcpt_reply[i]);
        /* LMTP: a reply for each accepted recipient, and for no other. */
        CHECK(remote_reply_is_positive(&t->rcpt_reply[i]) || t->final_reply[i].code == 0);
        if (s->settings.lmtp && !err_is(e) && t->stage == CLIENT_AT_END && t->accepted > 0 && t->final.code == 0 &&
            remote_reply_is_positive(&t->mail))
            CHECK(!remote_reply_is_positive(&t->rcpt_reply[i]) || t->final_reply[i].code != 0);
        if (!s->settings.lmtp)
            CHECK(t->final_reply[i].code == 0);
    }
    CHECK(t->accepted == accepted);
    /* Nobody is told that the message was taken before all of it was said. */
    if (remote_reply_is_positive(&t->final))
        CHECK(t->stage == CLIENT_AT_END && t->accepted > 0 && s->source[k].at == s->source[k].content.len);
    CHECK(!t->source_failed || err_is(e));
}

static void
run_client(struct rt *rt, void *arg)
{
    struct sending *s = arg;
    struct scope scope;
    struct stream *near_end;
    struct arena arena;
    struct remote_reply reply = { 0 };

    scope_init(&scope, rt);
    world_pair(rt, &near_end, &s->server.stream);
    s->server.rt = rt;
    s->server.scope = &scope;
    scope_start(&scope, "hostile", hostile_run, &s->server);
    arena_init(&arena, own_mem, 4096, CLIENT_ARENA);
    struct client *c = client_new(near_end, &s->settings);
    struct err e = client_greeting(c, &arena, &reply);
    check_reply(&reply);
    if (!err_is(e) && reply.code == 220) {
        e = client_hello(c, &arena, &reply);
        check_reply(&reply);
    }
    s->extensions = client_features(c)->extensions;
    bool ready = !err_is(e) && remote_reply_is_positive(&reply);
    for (size_t k = 0; k < TRANSACTIONS && ready && client_is_usable(c); k++) {
        struct client_transaction *t = &s->t[k];
        *t = (struct client_transaction){
            .reverse_path = k ? S("") : S("a@b.example"), .envid = S("e+20x"), .ret = RET_HDRS,
            .body = k ? BODY_BINARYMIME : BODY_8BITMIME,
            .smtputf8 = client_has(client_features(c), CLIENT_SMTPUTF8),
            .size = s->source[k].content.len, .rcpt = s->rcpt, .rcpt_count = s->rcpt_count,
            .content = { read_source, &s->source[k] },
            .rcpt_reply = s->rcpt_reply[k], .final_reply = s->final_reply[k],
        };
        s->binary[k] = t->body == BODY_BINARYMIME && client_has(client_features(c), CLIENT_BINARYMIME) &&
                       client_has(client_features(c), CLIENT_CHUNKING);
        s->begun = k + 1;
        e = client_send(c, t, &arena);
        check_transaction(s, k, e);
        if (err_is(e)) {
            CHECK(!client_is_usable(c));
            break;
        }
        (void)client_is_quiet(c);
    }
    client_quit(c);
    scope_wait(&scope, FOREVER);
    scope_end(&scope);
    struct hostile_sent sent[TRANSACTIONS];
    for (size_t k = 0; k < s->begun; k++)
        sent[k] = (struct hostile_sent){ &s->t[k], s->source[k].content, s->binary[k], false };
    fuzz_show("client", text_str(&s->server.heard));
    if (!s->server.heard.full)
        hostile_check(text_str(&s->server.heard), sent, s->begun, s->arena);
    arena_done(&arena);
}

void
sender_fuzz(struct str input, bool lmtp, struct arena *arena)
{
    static char heard[HEARD_MAX];
    struct sending *s = arena_new(arena, struct sending);
    struct str rest = input;
    uint8_t how = fuzz_choice(&rest), more = fuzz_choice(&rest), step = fuzz_choice(&rest);

    s->arena = arena;
    s->settings = (struct client_settings){ .lmtp = lmtp, .helo = S("client.example"), .helo_only = (how & 7) == 7 && !lmtp,
                                            .refuse = more & 8 ? CLIENT_CHUNKING : more & 16 ? CLIENT_PIPELINING : 0 };
    s->server.pace = how >> 3 & 3;
    s->server.end = (how >> 5) % 3;
    s->server.step = 1 + step;
    s->server.deaf = more & 4;
    s->server.heard = text_init(heard, sizeof heard);
    s->rcpt_count = 1 + (lmtp ? more >> 5 : more >> 6) % RCPTS;
    for (size_t i = 0; i < s->rcpt_count; i++) {
        s->recipients[i] = (struct recipient){ .address = arena_printf(arena, "u%zu@c.example", i), .notify = NOTIFY_NEVER };
        s->rcpt[i] = &s->recipients[i];
    }
    struct str content = fuzz_field(&rest);
    for (size_t k = 0; k < TRANSACTIONS; k++)
        s->source[k] = (struct source){ content, 0, 1 + (more & 32 ? step : 100000), k && more & 2 };
    s->server.script = rest;
    fuzz_show("server", rest);
    world_rules = (struct world_rules){ .seed = 1, .read_max = more & 1 ? 1 + step / 2 : 0,
                                        .room = s->server.deaf ? 256 : 0 };
    world_run(run_client, s);
}
