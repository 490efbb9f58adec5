/*
 * peers_server - other people's SMTP and LMTP servers. What they think of a recipient is in its name, so that everybody
 * knows what is right:
 *
 *     ok-17@...     taken                        no-17@...     550 to RCPT
 *     later-17@...  451 at first, then taken     dot-17@...    554 to the end of data, when alone there
 *     never-17@...  451 always                   s-17@...      a sender: takes notices
 *
 * Beside that each session may have a mood: it defers, cuts the line at any byte, stalls, talks nonsense.
 */
#include "sim/peer.h"
#include "sim/run.h"

#include "base/check.h"

#include <stdio.h>
#include <string.h>

enum { RCPTS_MAX = 32, CONTENT_MAX = 1 << 20 };

enum mood {
    WELL, DEFERS_GREETING, DEFERS_MAIL, DEFERS_RCPT, DEFERS_DATA, DEFERS_DOT, STALLS, CUTS, CUTS_AFTER_DOT, MUTE_AFTER_DOT,
    NONSENSE, LONG_REPLIES, SLOW, CLOSES_WITHOUT_WORD, REFUSES_MAIL, MOODS,
};

struct server {
    struct run *run;
    struct address address;
    bool lmtp;
};

struct session {
    struct server *server;
    struct conn conn;
    enum mood mood;
    bool in_mail, chunking, at_line_start;
    uint32_t token;          /* of the reverse-path */
    bool null_sender;
    char rcpt[RCPTS_MAX][80];
    size_t rcpt_count;
    size_t doubtful;         /* rcpt[] whose final reply may not have arrived */
    char *content;
    size_t len, cap;
};

static struct rt *
rt_of(const struct session *s)
{
    return s->conn.rt;
}

static bool
say(struct session *s, const char *reply)
{
    if (s->mood == LONG_REPLIES && reply[3] == ' ' && !run_of(process_of(rt_of(s))->sim)->calm) {
        for (int i = 0; i < 5; i++)
            if (!conn_putf(&s->conn, "%.3s-line %d of a long story\r\n", reply, i))
                return false;
    }
    return conn_putf(&s->conn, "%s\r\n", reply);
}

static enum mood
draw_mood(struct run *run)
{
    if (run->calm || !dice_chance(run->sim, run->plan.hostility))
        return WELL;
    return (enum mood)dice_below(run->sim, MOODS);
}

/* ---- recipients -------------------------------------------------------------------------------------------------- */

static void
keep_content(struct session *s, struct str bytes)
{
    struct mem *mem = rt_mem(rt_of(s));

    if (s->len + bytes.len > s->cap) {
        size_t cap = s->cap ? s->cap * 2 : 4096;
        while (cap < s->len + bytes.len)
            cap *= 2;
        s->content = mem_resize(mem, s->content, s->cap, cap);
        s->cap = cap;
    }
    if (bytes.len)
        memcpy(s->content + s->len, bytes.ptr, bytes.len);
    s->len += bytes.len;
}

static uint32_t
token_of(const struct session *s, struct str address)
{
    return s->token ? s->token : ledger_token(address);
}

static const char *
run_rcpt(struct session *s, struct str address)
{
    struct run *run = s->server->run;
    struct mail *m = ledger_find(&run->ledger, token_of(s, address));
    struct target *t = m && !s->null_sender ? ledger_target(m, address) : NULL;

    if (s->rcpt_count == RCPTS_MAX || address.len >= sizeof s->rcpt[0])
        return "452 4.5.3 too many";
    if (s->mood == DEFERS_RCPT && dice_chance(run->sim, 500))
        return "451 4.2.0 not in the mood for this one";
    if (str_starts(address, S("no"))) {
        ledger_refused(&run->ledger, token_of(s, address), address);
        return "550 5.1.1 no such user";
    }
    if (str_starts(address, S("never")) || (str_starts(address, S("later")) && t && t->deferred < 2)) {
        if (t)
            ledger_deferred(&run->ledger, t);
        return "451 4.2.1 come again later";
    }
    memcpy(s->rcpt[s->rcpt_count], address.ptr, address.len);
    s->rcpt[s->rcpt_count++][address.len] = '\0';
    return "250 2.1.5 recipient fine";
}

static struct str
address_in(struct str line)
{
    (void)str_cut(&line, '<');
    return str_is_absent(line) ? S("") : str_slice(line, 0, str_find_byte(line, '>'));
}

/* ---- the end of data --------------------------------------------------------------------------------------------- */

static void
take_message(struct session *s, size_t i)
{
    struct run *run = s->server->run;
    struct str content = str_new(s->content, s->len), address = str_from_cstr(s->rcpt[i]);

    if (s->null_sender && str_starts(address, S("s-")))
        ledger_notice(&run->ledger, address, content);
    else
        ledger_delivered(&run->ledger, address, content, false);
}

static void
note_doubts(struct session *s, size_t from, size_t to, bool known)
{
    for (size_t i = from; i < to; i++)
        ledger_doubt(&s->server->run->ledger, ledger_token_in(str_new(s->content, s->len)), str_from_cstr(s->rcpt[i]), known);
}

/* The first so many of rcpt[]: their final reply may never be read. At once, since this session may outlast the run. */
static void
doubt(struct session *s, size_t count)
{
    note_doubts(s, s->doubtful, count, false);
    s->doubtful = count;
}

/* Whoever says something more has had its replies. */
static void
forget_doubts(struct session *s)
{
    note_doubts(s, 0, s->doubtful, true);
    s->doubtful = 0;
}

static bool
final_reply(struct session *s, size_t i)
{
    struct run *run = s->server->run;
    struct str address = str_from_cstr(s->rcpt[i]);

    if (s->mood == DEFERS_DOT || s->mood == DEFERS_DATA)
        return say(s, "452 4.3.1 no room just now");
    if (str_starts(address, S("dot")) && (s->server->lmtp || s->rcpt_count == 1)) {
        ledger_refused(&run->ledger, token_of(s, address), address);
        return say(s, "554 5.6.0 not this content");
    }
    for (size_t k = i; k < (s->server->lmtp ? i + 1 : s->rcpt_count); k++)
        take_message(s, k);
    doubt(s, s->server->lmtp ? i + 1 : s->rcpt_count);
    if (s->mood == CUTS_AFTER_DOT) {
        conn_reset(&s->conn);
        return false;
    }
    if (s->mood == MUTE_AFTER_DOT) {
        ledger_waited(&run->ledger, address);
        (void)rt_sleep(rt_of(s), within(rt_of(s), 12 * MINUTE));
        return false;
    }
    return say(s, "250 2.0.0 taken");
}

static bool
end_of_data(struct session *s)
{
    for (size_t i = 0; i < (s->server->lmtp ? s->rcpt_count : 1); i++)
        if (!final_reply(s, i))
            return false;
    s->in_mail = false;
    return true;
}

static bool
read_data(struct session *s)
{
    struct str line;

    s->len = 0;
    for (;;) {
        /* Whole lines, also those that are longer than the buffer: their parts come without an end. */
        if (!conn_raw_line(&s->conn, &line))
            return false;
        if (str_eq(line, S(".\r\n")) && s->at_line_start)
            return true;
        struct str whole = line;
        if (s->at_line_start)
            (void)str_take(&line, S("."));
        s->at_line_start = str_ends(whole, S("\n"));
        if (s->len < CONTENT_MAX)
            keep_content(s, line);
    }
}

static bool
run_data(struct session *s)
{
    if (s->rcpt_count == 0)
        return say(s, "503 5.5.1 no valid recipients");
    if (s->mood == DEFERS_DATA && dice_chance(s->server->run->sim, 500))
        return say(s, "451 4.3.0 not now");
    if (!say(s, "354 go on"))
        return false;
    s->at_line_start = true;
    return read_data(s) && end_of_data(s);
}

static bool
run_bdat(struct session *s, struct str args)
{
    uint64_t left;
    bool last;
    char part[2048];

    if (!str_take_u64(&args, &left))
        return say(s, "501 5.5.4 BDAT needs a size");
    last = str_eq_nocase(str_trim(args), S("LAST"));
    while (left > 0) {
        size_t len;
        if (!conn_bytes(&s->conn, part, left < sizeof part ? (size_t)left : sizeof part, &len))
            return false;
        left -= len;
        keep_content(s, str_new(part, len));
    }
    if (s->rcpt_count == 0)
        return say(s, "503 5.5.1 no valid recipients");
    return last ? end_of_data(s) : say(s, "250 2.0.0 chunk taken");
}

/* ---- a session --------------------------------------------------------------------------------------------------- */

static bool
run_mail(struct session *s, struct str line)
{
    struct str from = address_in(line);

    s->rcpt_count = s->len = 0;
    s->token = ledger_token(from);
    s->null_sender = from.len == 0;
    if (s->mood == DEFERS_MAIL)
        return say(s, "451 4.3.2 not at this hour");
    if (s->mood == REFUSES_MAIL && s->token && dice_chance(s->server->run->sim, 300)) {
        struct mail *m = ledger_find(&s->server->run->ledger, s->token);
        for (size_t i = 0; m && i < m->target_count; i++)
            m->targets[i].refusals++;
        return say(s, "550 5.7.1 not from you");
    }
    s->in_mail = true;
    return say(s, "250 2.1.0 sender fine");
}

static bool
run_command(struct session *s, struct str line)
{
    forget_doubts(s);
    if (s->server->run->calm)
        s->mood = WELL;
    if (str_starts_nocase(line, S("EHLO")) || str_starts_nocase(line, S("LHLO"))) {
        if (dice_chance(s->server->run->sim, 150))
            return say(s, "250 plain.test"); /* knows no extensions */
        return conn_put(&s->conn, S("250-server.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SIZE 10000000\r\n250-DSN\r\n"
                                    "250-ENHANCEDSTATUSCODES\r\n")) &&
               (s->chunking ? say(s, "250 CHUNKING") : say(s, "250 HELP"));
    }
    if (str_starts_nocase(line, S("HELO")))
        return say(s, "250 server.test");
    if (str_starts_nocase(line, S("MAIL")))
        return run_mail(s, line);
    if (str_starts_nocase(line, S("RCPT")))
        return say(s, s->in_mail ? run_rcpt(s, address_in(line)) : "503 5.5.1 MAIL first");
    if (str_starts_nocase(line, S("DATA")))
        return run_data(s);
    if (str_take_nocase(&line, S("BDAT ")))
        return run_bdat(s, line);
    if (str_starts_nocase(line, S("RSET"))) {
        s->in_mail = false;
        s->rcpt_count = s->len = 0;
        return say(s, "250 2.0.0 reset");
    }
    if (str_starts_nocase(line, S("QUIT"))) {
        if (s->mood == STALLS)
            (void)rt_sleep(rt_of(s), within(rt_of(s), HOUR));
        (void)say(s, "221 2.0.0 bye");
        return false;
    }
    return say(s, "250 2.0.0 nothing done");
}

static void
misbehave(struct session *s)
{
    struct sim *sim = s->server->run->sim;
    struct conn *c = &s->conn;

    if (s->mood == CUTS)
        c->budget = dice_below(sim, 600);
    c->budget_resets = dice_chance(sim, 500);
    c->slow = s->mood == SLOW;
    if (s->mood == STALLS)
        (void)rt_sleep(rt_of(s), within(rt_of(s), dice_between(sim, SECOND, 8 * MINUTE)));
    if (s->mood == NONSENSE)
        (void)conn_put(c, dice_chance(sim, 500) ? S("SSH-2.0-Whatever\r\n") : S("\0\xff\r\n\n\n2\r2\r\n220"));
    if (s->mood == DEFERS_GREETING)
        (void)say(s, "421 4.3.2 closed for today");
    if (s->mood == CLOSES_WITHOUT_WORD || s->mood == DEFERS_GREETING)
        conn_close(c);
}

static void
serve(void *arg)
{
    struct session *s = arg;
    struct rt *rt = rt_of(s);
    struct str line;

    misbehave(s);
    bool going = !s->conn.broken && say(s, s->server->lmtp ? "220 lmtp.test LMTP" : "220 server.test ESMTP");
    while (going && conn_line(&s->conn, &line))
        going = run_command(s, line);
    conn_close(&s->conn);
    mem_free(rt_mem(rt), s->content, s->cap);
    mem_free(rt_mem(rt), s, sizeof *s);
}

static int
server_main(struct rt *rt, void *arg)
{
    struct server *server = arg;
    struct listener *listener;
    struct stream *stream;

    CHECK(!err_is(listener_open(rt, &server->address, &listener)));
    while (!err_is(listener_accept(listener, FOREVER, &stream, NULL))) {
        struct session *s = mem_new(rt_mem(rt), struct session);
        s->server = server;
        conn_init(&s->conn, rt, stream);
        s->mood = draw_mood(server->run);
        s->chunking = dice_chance(server->run->sim, 500);
        fiber_start(rt, "serve", serve, s);
    }
    return 0;
}

void
server_start(struct run *run, const char *name, const char *ip, uint16_t port, bool lmtp)
{
    struct server *server = mem_new(&run->sim->mem, struct server);
    struct host *host = host_new(run->sim, name, ip);

    *server = (struct server){ .run = run, .address = host->address, .lmtp = lmtp };
    server->address.port = port;
    if (port == 0) { /* beside the daemon, by a Unix socket; its machine is one that never fails */
        server->address = (struct address){ .family = ADDRESS_UNIX };
        (void)snprintf(server->address.path, sizeof server->address.path, "/run/%s.sock", name);
    }
    CHECK(run->server_count < SERVERS_MAX);
    run->servers[run->server_count++] = server;
    process_start(run->sim, name, host, server_main, server);
}

struct host *
server_host(const struct run *run, size_t index)
{
    return host_find(run->sim, &run->servers[index]->address);
}

void
servers_free(struct run *run)
{
    for (size_t i = 0; i < run->server_count; i++)
        mem_free(&run->sim->mem, run->servers[i], sizeof *run->servers[i]);
}
