/* scenario_peers - the people of a scenario: clients who do one thing at a time, servers who do as they are ordered. */
#include "sim/peer.h"
#include "sim/scenario.h"

#include "base/check.h"

#include <stdio.h>
#include <string.h>

enum { RCPTS_MAX = 16, CONTENT_MAX = 64 << 10 };

/* ---- clients ----------------------------------------------------------------------------------------------------- */

static bool
fulfil(struct speaker *s, struct conn *c, struct rt *rt)
{
    struct address to = process_of(rt)->sim->home->address;
    struct stream *stream;
    struct str last;

    switch (s->wish) {
    case WISH_CONNECT:
        to.port = s->port;
        if (err_is(stream_connect(rt, &to, NULL, within(rt, 2 * MINUTE), &stream)))
            return false;
        conn_init(c, rt, stream);
        return s->connected = true;
    case WISH_SAY:
        return s->connected && conn_put(c, s->text);
    case WISH_HEAR:
        s->heard[0] = '\0';
        if (!s->connected || !conn_reply(c, &s->code, &last))
            return false;
        (void)snprintf(s->heard, sizeof s->heard, "%.*s", STR_ARG(last));
        return true;
    case WISH_HANG_UP:
        if (s->connected)
            conn_close(c);
        s->connected = false;
        return true;
    default:
        UNREACHABLE();
    }
}

static int
speaker_main(struct rt *rt, void *arg)
{
    struct speaker *s = arg;
    struct conn *c = mem_new(rt_mem(rt), struct conn);

    while (s->wish != WISH_NONE || !err_is(event_wait(rt, &s->kick, FOREVER))) {
        if (s->wish == WISH_NONE)
            continue;
        s->worked = fulfil(s, c, rt);
        s->wish = WISH_NONE;
    }
    return 0;
}

void
speaker_start(struct sim *sim, struct speaker *s, const char *ip)
{
    event_init(&s->kick);
    s->port = 25;
    s->process = process_start(sim, s->name, host_new(sim, s->name, ip), speaker_main, s);
}

/* ---- servers ----------------------------------------------------------------------------------------------------- */

struct visit { /* of the daemon, at a server */
    struct hop *hop;
    struct conn conn;
    char rcpt[RCPTS_MAX][ADDRESS_BYTES];
    size_t rcpt_count;
    char content[CONTENT_MAX];
    size_t len;
};

static const struct order *
find_order(const struct hop *hop, enum stage stage, struct str address)
{
    for (size_t i = 0; i < hop->order_count; i++) {
        const struct order *o = &hop->orders[i];
        if (o->stage == stage && (o->address[0] == '\0' || str_eq(str_from_cstr(o->address), address)))
            return o;
    }
    return NULL;
}

/* False: the visit is over. *out_refused: what was asked for is not done. */
static bool
answer(struct visit *v, enum stage stage, struct str address, const char *usual, bool *out_refused)
{
    const struct order *o = find_order(v->hop, stage, address);
    struct rt *rt = v->conn.rt;

    *out_refused = o && o->reply[0] && o->reply[0] != '2' && o->reply[0] != '3';
    if (o && o->reply[0] == '\0') {
        (void)rt_sleep(rt, within(rt, 12 * HOUR));
        return false;
    }
    return conn_putf(&v->conn, "%s\r\n", o ? o->reply : usual) && strncmp(o ? o->reply : usual, "421", 3) != 0;
}

static struct str
address_in(struct str line)
{
    (void)str_cut(&line, '<');
    return str_is_absent(line) ? S("") : str_slice(line, 0, str_find_byte(line, '>'));
}

static bool
take_recipient(struct visit *v, struct str address)
{
    bool refused;

    if (v->rcpt_count == RCPTS_MAX || address.len >= ADDRESS_BYTES)
        return conn_put(&v->conn, S("452 4.5.3 too many\r\n"));
    if (!answer(v, STAGE_RCPT, address, "250 2.1.5 recipient fine", &refused))
        return false;
    if (!refused)
        (void)snprintf(v->rcpt[v->rcpt_count++], ADDRESS_BYTES, "%.*s", STR_ARG(address));
    return true;
}

static bool
take_content(struct visit *v)
{
    struct str line;
    bool refused;

    if (!answer(v, STAGE_DATA, S(""), "354 go on", &refused))
        return false;
    if (refused)
        return true;
    for (v->len = 0;;) {
        if (!conn_raw_line(&v->conn, &line))
            return false;
        if (str_eq(line, S(".\r\n")))
            break;
        (void)str_take(&line, S("."));
        CHECK(v->len + line.len < CONTENT_MAX);
        memcpy(v->content + v->len, line.ptr, line.len);
        v->len += line.len;
    }
    for (size_t i = 0; i < (v->hop->lmtp ? v->rcpt_count : 1); i++) {
        const struct order *o = find_order(v->hop, STAGE_END, str_from_cstr(v->rcpt[i]));
        bool taken = !o || o->reply[0] == '\0' || o->reply[0] == '2';
        for (size_t k = i; taken && k < (v->hop->lmtp ? i + 1 : v->rcpt_count); k++)
            scenario_arrived(v->hop->scenario, str_from_cstr(v->rcpt[k]), str_new(v->content, v->len));
        if (!answer(v, STAGE_END, str_from_cstr(v->rcpt[i]), "250 2.0.0 taken", &refused))
            return false;
    }
    return true;
}

static bool
take_command(struct visit *v, struct str line)
{
    bool refused;

    if (str_starts_nocase(line, S("EHLO")) || str_starts_nocase(line, S("LHLO"))) {
        char memory[512];
        struct text reply = text_init(memory, sizeof memory);
        text_put(&reply, S("250-hop.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-DSN\r\n"));
        for (struct str rest = str_from_cstr(v->hop->offers), word; (word = str_cut_word(&rest)).len;)
            text_putf(&reply, "250-%.*s\r\n", STR_ARG(word));
        text_put(&reply, S("250 ENHANCEDSTATUSCODES"));
        return answer(v, STAGE_EHLO, S(""), text_cstr(&reply), &refused);
    }
    if (str_eq_nocase(line, S("STARTTLS")) && str_find(str_from_cstr(v->hop->offers), S(" STARTTLS")) < strlen(v->hop->offers))
        return conn_put(&v->conn, S("220 2.0.0 go on\r\n")); /* which is nothing here: sim/tls.c */
    if (str_starts_nocase(line, S("MAIL"))) {
        v->rcpt_count = 0;
        (void)snprintf(v->hop->told, sizeof v->hop->told, "%.*s", STR_ARG(line));
        return answer(v, STAGE_MAIL, S(""), "250 2.1.0 sender fine", &refused);
    }
    if (str_starts_nocase(line, S("RCPT")))
        return take_recipient(v, address_in(line));
    if (str_starts_nocase(line, S("DATA")))
        return v->rcpt_count ? take_content(v) : conn_put(&v->conn, S("503 5.5.1 no recipients\r\n"));
    if (str_starts_nocase(line, S("QUIT"))) {
        (void)conn_put(&v->conn, S("221 2.0.0 bye\r\n"));
        return false;
    }
    return conn_put(&v->conn, S("250 2.0.0 done\r\n"));
}

static void
run_visit(void *arg)
{
    struct visit *v = arg;
    struct rt *rt = v->conn.rt;
    struct str line;
    bool refused;

    bool going = answer(v, STAGE_GREETING, S(""), v->hop->lmtp ? "220 hop.test LMTP" : "220 hop.test ESMTP", &refused);
    while (going && conn_line(&v->conn, &line))
        going = take_command(v, line);
    conn_close(&v->conn);
    mem_free(rt_mem(rt), v, sizeof *v);
}

static int
hop_main(struct rt *rt, void *arg)
{
    struct hop *hop = arg;
    struct listener *listener;
    struct stream *stream;

    CHECK(!err_is(listener_open(rt, &hop->address, &listener)));
    while (!err_is(listener_accept(listener, FOREVER, &stream, NULL))) {
        struct visit *v = mem_new(rt_mem(rt), struct visit);
        v->hop = hop;
        conn_init(&v->conn, rt, stream);
        fiber_start(rt, "visit", run_visit, v);
    }
    return 0;
}

void
hop_start(struct sim *sim, struct hop *hop)
{
    process_start(sim, hop->name, hop->host, hop_main, hop);
}
