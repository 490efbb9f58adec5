/*
 * load - "postrider load": many sessions send many messages to one server, and the figures are told exactly.
 *
 * Every message bears its own name, "X-Load-Id: RUN-N" (also its Message-ID), so that what arrived can be compared
 * with what was accepted: --log-accepted writes a line for each, before the next message of that session begins. A
 * message is tried once; what happened to it is one of the counts, and they add up to the messages tried.
 *
 * It also bears "X-Load-Sent: NS", the monotonic clock of this machine when MAIL was said: a sink on the same machine
 * tells by it how long the way was.
 */
#include "cli/server.h"

#include "base/check.h"
#include "cli/latency.h"
#include "net/tls.h"
#include "runtime/log.h"
#include "smtp/client.h"

#include <signal.h>
#include <stddef.h>
#include <string.h>

enum {
    LINE_BYTES = 72,          /* of the filler */
    FILLER_BYTES = 64 << 10,
    HEADER_MAX = 1 << 10,
    RCPT_MAX = 10000,
};
#define RETRY_FIRST_NS (50 * MILLISECOND)
#define RETRY_MAX_NS SECOND
#define CONNECT_TRIES 5

struct settings {
    struct str server, from, to, helo, log_accepted;
    uint64_t sessions, messages, size, per_connection, rcpt, rate, domains;
    int64_t seconds, timeout, hold;
    bool lmtp, no_pipelining, bdat, tls, smtps, resume, visit, keep_going, json, quiet;
};

static const struct option options[] = {
    { "--server", "HOST:PORT", OPTION_WORD, offsetof(struct settings, server),
      "where to (127.0.0.1:25); a path is a Unix socket" },
    { "--lmtp", NULL, OPTION_FLAG, offsetof(struct settings, lmtp), "speak LMTP" },
    { "--sessions", "N", OPTION_NUMBER, offsetof(struct settings, sessions), "at a time (10)" },
    { "--messages", "N", OPTION_NUMBER, offsetof(struct settings, messages),
      "in all (1000; with --seconds: no bound)" },
    { "--seconds", "TIME", OPTION_SECONDS, offsetof(struct settings, seconds), "begin no message after this time" },
    { "--size", "BYTES", OPTION_NUMBER, offsetof(struct settings, size), "of a message, its header included (10k)" },
    { "--rcpt", "N", OPTION_NUMBER, offsetof(struct settings, rcpt), "recipients of each message (1)" },
    { "--per-connection", "N", OPTION_NUMBER, offsetof(struct settings, per_connection),
      "messages, then a new one (0: all)" },
    { "--rate", "N", OPTION_NUMBER, offsetof(struct settings, rate),
      "messages a second at most, all sessions together" },
    { "--from", "ADDRESS", OPTION_WORD, offsetof(struct settings, from),
      "reverse-path (load@load.invalid); \"\" is <>" },
    { "--to", "ADDRESS", OPTION_WORD, offsetof(struct settings, to),
      "forward-path (load@local.test); {n} becomes the message's\nnumber, {r} the recipient's, from 0; {d}: --domains" },
    { "--domains", "N", OPTION_NUMBER, offsetof(struct settings, domains),
      "{d} becomes the message's number modulo N (200):\nuser@d{d}.test is in as many domains" },
    { "--helo", "NAME", OPTION_WORD, offsetof(struct settings, helo), "our name (load.invalid)" },
    { "--no-pipelining", NULL, OPTION_FLAG, offsetof(struct settings, no_pipelining), "one command at a time" },
    { "--bdat", NULL, OPTION_FLAG, offsetof(struct settings, bdat), "BDAT where it is offered" },
    { "--tls", NULL, OPTION_FLAG, offsetof(struct settings, tls), "STARTTLS, and any certificate will do" },
    { "--smtps", NULL, OPTION_FLAG, offsetof(struct settings, smtps), "TLS from the first byte" },
    { "--resume", NULL, OPTION_FLAG, offsetof(struct settings, resume), "with TLS: take up the session before, if the server can" },
    { "--visit", NULL, OPTION_FLAG, offsetof(struct settings, visit),
      "no messages: each session is a connection, EHLO (with TLS), QUIT;\nthey are counted, and their latency is all but QUIT" },
    { "--hold", "TIME", OPTION_SECONDS, offsetof(struct settings, hold), "with --visit: wait so long before QUIT" },
    { "--timeout", "TIME", OPTION_SECONDS, offsetof(struct settings, timeout),
      "for each reply (as RFC 5321 has them)" },
    { "--keep-going", NULL, OPTION_FLAG, offsetof(struct settings, keep_going),
      "try to connect for ever, and count accepted messages only:\nfor servers that are killed meanwhile" },
    { "--log-accepted", "FILE", OPTION_WORD, offsetof(struct settings, log_accepted),
      "a line for each: X-Load-Id, queue id, recipients taken, reply" },
    { "--json", NULL, OPTION_FLAG, offsetof(struct settings, json), "the figures as JSON" },
    { "--quiet", NULL, OPTION_FLAG, offsetof(struct settings, quiet), "no figures while it runs" },
    { 0 },
};

/* ---- state ------------------------------------------------------------------------------------------------------ */

/* What became of a message. */
enum fate { ACCEPTED, DEFERRED, REFUSED, LOST, UNKNOWN, FATES };
static const char *const fate_names[FATES] = { "accepted", "deferred", "refused", "lost", "unknown" };

struct load {
    struct rt *rt;
    struct settings set;
    struct arena arena;
    struct server server;
    struct str run_id, filler;
    uint64_t next_message;
    uint64_t fates[FATES];
    uint64_t rcpt_accepted, rcpt_refused, bytes, connections, connect_failures;
    struct latency latency; /* from MAIL to the last reply; of a visit all but QUIT */
    struct latency dot;     /* from the end of the content to the last reply */
    int64_t began, ended, next_slot;
    struct file *own_log;
    uint64_t log_offset;
    struct scope sessions, helpers;
    struct crypto *own_crypto; /* NULL: no TLS */
    struct tls_client *own_tls;
    uint64_t handshakes, resumed, session_count;
    struct err log_error;
    bool stop;
};

struct session {
    struct load *load;
    struct client *own_client;
    struct str name;        /* for what TLS may resume */
    uint64_t on_connection; /* messages */
    struct arena arena;     /* of one message */
    struct recipient *recipients;
    const struct recipient **rcpt;
    struct remote_reply *rcpt_reply, *final_reply;
    size_t at;              /* of the message under way, in bytes */
    int64_t content_ended;  /* when the last of them was asked for */
    struct text header;     /* then `filled` bytes of filler, then the tail */
    size_t filled;
    struct str tail;
    char header_memory[HEADER_MAX];
};

/* ---- one message ------------------------------------------------------------------------------------------------ */

/* "{n}", "{r}" and "{d}" filled in. */
static struct str
address_for(struct session *s, uint64_t message, size_t rcpt)
{
    struct str pattern = s->load->set.to;
    size_t cap = pattern.len * 7; /* three bytes become at most twenty digits */
    struct text t = text_init(arena_alloc(&s->arena, cap), cap);

    while (pattern.len > 0) {
        if (str_take(&pattern, S("{n}"))) {
            text_put_u64(&t, message);
        } else if (str_take(&pattern, S("{r}"))) {
            text_put_u64(&t, rcpt);
        } else if (str_take(&pattern, S("{d}"))) {
            text_put_u64(&t, message % s->load->set.domains);
        } else {
            text_put_byte(&t, pattern.ptr[0]);
            pattern = str_from(pattern, 1);
        }
    }
    return text_str(&t);
}

/* So that the message has exactly the size asked for and ends with CRLF, though the filler be cut within one. */
static void
size_body(struct session *s)
{
    static const struct str tail = STR("x\r\n");
    struct str filler = s->load->filler;
    size_t body = s->load->set.size > s->header.len ? s->load->set.size - s->header.len : 0;

    s->filled = body > tail.len ? body - tail.len : 0;
    s->tail = body > tail.len ? tail : S("");
    if (s->filled > 0 && filler.ptr[(s->filled - 1) % FILLER_BYTES] == '\r')
        s->tail = S("\n\r\n");
}

static struct err
read_content(void *arg, void *memory, size_t cap, int64_t until, size_t *out_len)
{
    struct session *s = arg;
    size_t end = s->header.len + s->filled; /* where the tail begins */
    struct str piece;

    (void)until;
    if (s->at < s->header.len)
        piece = str_from(text_str(&s->header), s->at);
    else if (s->at < end)
        piece = str_slice(str_from(s->load->filler, (s->at - s->header.len) % FILLER_BYTES), 0, end - s->at);
    else
        piece = str_from(s->tail, s->at - end);
    piece = str_slice(piece, 0, cap);
    memcpy(memory, piece.ptr, piece.len);
    s->at += piece.len;
    if (s->at == end + s->tail.len)
        s->content_ended = rt_now(s->load->rt);
    *out_len = piece.len;
    return OK;
}

/* Our server says "... as QUEUEID"; others say it in words of their own: the last word, then. */
static struct str
queue_id(struct str reply)
{
    struct str last = S("-");

    for (struct str word = str_cut_word(&reply); word.len > 0; word = str_cut_word(&reply)) {
        if (str_eq_nocase(word, S("as"))) {
            struct str id = str_cut_word(&reply);
            return id.len > 0 ? id : last;
        }
        last = word;
    }
    return last;
}

static void
log_accepted(struct session *s, uint64_t number, size_t recipients, struct str reply)
{
    struct load *l = s->load;
    struct str id = queue_id(reply);
    struct str line = arena_printf(&s->arena, "%.*s-%llu %.*s %zu %.*s\n", STR_ARG(l->run_id),
                                   (unsigned long long)number, STR_ARG(id), recipients, STR_ARG(reply));
    uint64_t offset = l->log_offset;

    l->log_offset += line.len; /* a place of its own: sessions write beside each other */
    struct err e = file_write(l->own_log, &line, 1, offset, LANE_POOL, FOREVER);
    if (err_is(e) && !err_is(l->log_error)) {
        l->log_error = e;
        l->stop = true;
    }
}

static enum fate
fate_of(struct session *s, const struct client_transaction *t, struct err e, struct str *out_reply, size_t *out_taken)
{
    size_t refused = 0, taken = 0;

    if (err_is(e))
        return t->stage == CLIENT_AT_FINAL ? UNKNOWN : LOST;
    if (t->mail.code && !remote_reply_is_positive(&t->mail)) { /* what came behind it was answered 503 */
        s->load->rcpt_refused += t->rcpt_count;
        return remote_reply_is_permanent(&t->mail) ? REFUSED : DEFERRED;
    }
    for (size_t i = 0; i < t->rcpt_count; i++) {
        const struct remote_reply *r = &t->rcpt_reply[i];
        if (remote_reply_is_positive(r))
            r = s->load->set.lmtp && t->stage == CLIENT_AT_END ? &t->final_reply[i] : &t->final;
        taken += remote_reply_is_positive(r);
        refused += remote_reply_is_permanent(r);
        if (remote_reply_is_positive(r))
            *out_reply = r->text;
    }
    s->load->rcpt_accepted += taken;
    s->load->rcpt_refused += t->rcpt_count - taken;
    *out_taken = taken;
    if (taken > 0)
        return ACCEPTED;
    return refused > 0 || remote_reply_is_permanent(&t->data) ? REFUSED : DEFERRED;
}

static void
count_accepted(struct load *l, int64_t took)
{
    l->fates[ACCEPTED]++;
    latency_add(&l->latency, took);
    l->ended = rt_now(l->rt);
}

static void
send_one(struct session *s, uint64_t number)
{
    struct load *l = s->load;
    size_t count = l->set.rcpt, taken = 0;
    struct str reply = S("");
    struct client_transaction t = {
        .reverse_path = l->set.from,
        .size = l->set.size,
        .rcpt = s->rcpt,
        .rcpt_count = count,
        .content = { read_content, s },
        .rcpt_reply = s->rcpt_reply,
        .final_reply = s->final_reply,
    };

    arena_reset(&s->arena);
    s->at = 0;
    s->header = text_init(s->header_memory, sizeof s->header_memory);
    for (size_t i = 0; i < count; i++) {
        s->recipients[i] = (struct recipient){ .address = address_for(s, number, i) };
        s->rcpt[i] = &s->recipients[i];
        s->rcpt_reply[i] = s->final_reply[i] = (struct remote_reply){ 0 };
    }
    int64_t began = rt_now(l->rt);
    text_putf(&s->header,
              "Subject: load %llu\r\nFrom: <%.*s>\r\nTo: undisclosed-recipients:;\r\n"
              "Message-ID: <%.*s-%llu@load.invalid>\r\nX-Load-Id: %.*s-%llu\r\nX-Load-Sent: %lld\r\n\r\n",
              (unsigned long long)number, STR_ARG(str_slice(l->set.from, 0, 300)), STR_ARG(l->run_id),
              (unsigned long long)number, STR_ARG(l->run_id), (unsigned long long)number, (long long)began);
    size_body(s);
    enum fate fate = fate_of(s, &t, client_send(s->own_client, &t, &s->arena), &reply, &taken);
    int64_t ended = rt_now(l->rt);
    s->on_connection++;
    if (fate != ACCEPTED) {
        l->fates[fate]++;
        return;
    }
    l->bytes += s->at;
    count_accepted(l, ended - began);
    latency_add(&l->dot, ended - s->content_ended);
    if (l->own_log)
        log_accepted(s, number, taken, reply);
}

/* ---- one session ------------------------------------------------------------------------------------------------ */

static struct err
start_tls(void *arg, struct wire *wire, int64_t until, struct client_encryption *out, struct text *reason)
{
    struct session *s = arg;
    struct load *l = s->load;
    struct tls_expected expected = { .resume = l->set.resume ? s->name : S("") };
    enum tls_result result;
    const struct tls *tls;

    TRY(tls_connect(l->own_tls, wire, &expected, until, &tls, &result, reason));
    struct tls_facts facts = tls_facts(tls);
    *out = (struct client_encryption){ facts.protocol, facts.cipher, facts.resumed };
    l->handshakes++;
    l->resumed += facts.resumed;
    return OK;
}

/* Greeting and EHLO, and TLS where it is wanted. */
static struct err
greet(struct session *s, struct remote_reply *reply)
{
    const struct client_tls tls = { start_tls, s };
    char memory[TLS_REASON];
    struct text reason = text_init(memory, sizeof memory);

    if (s->load->set.smtps)
        TRY(client_begin_tls(s->own_client, &tls, &reason));
    TRY(client_greeting(s->own_client, &s->arena, reply));
    if (reply->code != 220)
        return OK;
    TRY(client_hello(s->own_client, &s->arena, reply));
    if (!s->load->set.tls || !remote_reply_is_positive(reply))
        return OK;
    if (!client_has(client_features(s->own_client), CLIENT_STARTTLS))
        return ERR(ERR_REFUSED, "start TLS, which the server does not offer");
    TRY(client_start_tls(s->own_client, &tls, &s->arena, reply, &reason));
    return remote_reply_is_positive(reply) ? client_hello(s->own_client, &s->arena, reply) : OK;
}

static struct err
connect_session(struct session *s)
{
    struct load *l = s->load;
    struct client_settings settings = {
        .lmtp = l->set.lmtp,
        .helo = l->set.helo,
        .refuse = (l->set.no_pipelining ? CLIENT_PIPELINING : 0u) |
                  (l->set.bdat ? 0u : CLIENT_CHUNKING | CLIENT_BINARYMIME),
    };
    struct remote_reply reply;
    struct stream *stream;

    settings.times = client_times_default();
    if (l->set.timeout) {
        int64_t ns = l->set.timeout;
        settings.times = (struct client_times){ ns, ns, ns, ns, ns, ns, ns, ns };
    }
    TRY(server_connect(l->rt, &l->server, within(l->rt, l->set.timeout ? l->set.timeout : LIMIT_CONNECT_NS), &stream));
    s->own_client = client_new(stream, &settings);
    s->on_connection = 0;
    l->connections++;
    struct err e = greet(s, &reply);
    if (!err_is(e) && remote_reply_is_positive(&reply))
        return OK;
    if (err_is(e))
        client_close(s->own_client);
    else
        client_quit(s->own_client);
    s->own_client = NULL;
    return err_is(e) ? e : ERR(ERR_REFUSED, "greet");
}

static bool
is_over(const struct load *l)
{
    uint64_t counted = l->set.keep_going ? l->fates[ACCEPTED] : l->next_message;

    return l->stop || (l->set.messages && counted >= l->set.messages) ||
           (l->set.seconds && rt_now(l->rt) >= l->began + l->set.seconds);
}

/* Waits longer and longer. False: this session gives up. */
static bool
connect_firmly(struct session *s)
{
    struct load *l = s->load;
    int64_t pause = RETRY_FIRST_NS;

    for (unsigned tries = 1; !is_over(l); tries++) {
        struct err e = connect_session(s);
        if (!err_is(e))
            return true;
        l->connect_failures++;
        if (e.kind == ERR_CANCELLED || (!l->set.keep_going && tries >= CONNECT_TRIES) ||
            err_is(rt_sleep(l->rt, within(l->rt, pause))))
            return false;
        pause = 2 * pause < RETRY_MAX_NS ? 2 * pause : RETRY_MAX_NS;
        arena_reset(&s->arena);
    }
    return false;
}

static bool
wait_for_slot(struct load *l)
{
    if (!l->set.rate)
        return true;
    int64_t now = rt_now(l->rt), slot = l->next_slot > now ? l->next_slot : now;
    l->next_slot = slot + SECOND / (int64_t)l->set.rate;
    return !err_is(rt_sleep(l->rt, slot)) && !is_over(l);
}

/* --visit: a session is all there is. */
static void
visit(struct session *s)
{
    struct load *l = s->load;

    l->next_message++;
    arena_reset(&s->arena);
    int64_t began = rt_now(l->rt);
    if (err_is(connect_session(s))) {
        l->connect_failures++;
        l->fates[LOST]++;
        return;
    }
    count_accepted(l, rt_now(l->rt) - began);
    if (l->set.hold)
        (void)rt_sleep(l->rt, within(l->rt, l->set.hold));
    client_quit(s->own_client);
    s->own_client = NULL;
}

static void
run_session(void *arg)
{
    struct session *s = arg;
    struct load *l = s->load;

    while (l->set.visit && !is_over(l) && wait_for_slot(l))
        visit(s);
    while (!l->set.visit && !is_over(l)) {
        if (!s->own_client && !connect_firmly(s))
            break;
        if (!wait_for_slot(l) || is_over(l))
            break;
        send_one(s, ++l->next_message);
        if (!client_is_usable(s->own_client)) {
            client_close(s->own_client);
            s->own_client = NULL;
        } else if (l->set.per_connection && s->on_connection >= l->set.per_connection) {
            client_quit(s->own_client);
            s->own_client = NULL;
        }
    }
    if (s->own_client)
        client_quit(s->own_client);
    arena_done(&s->arena);
}

/* ---- the whole -------------------------------------------------------------------------------------------------- */

static void
print_figures(const struct load *l)
{
    char memory[2 * LATENCY_TEXT];
    struct text t = text_init(memory, sizeof memory);
    double seconds = (double)(l->ended - l->began) / 1e9;
    double rate = seconds > 0 ? (double)l->fates[ACCEPTED] / seconds : 0;
    uint64_t tried = 0;

    for (size_t i = 0; i < FATES; i++)
        tried += l->fates[i];
    if (l->set.json) {
        cli_print("{\"version\":1,\"run\":\"%.*s\",\"tried\":%llu", STR_ARG(l->run_id), (unsigned long long)tried);
        for (size_t i = 0; i < FATES; i++)
            cli_print(",\"%s\":%llu", fate_names[i], (unsigned long long)l->fates[i]);
        cli_print(",\"recipients_accepted\":%llu,\"recipients_not\":%llu,\"bytes\":%llu,\"connections\":%llu,"
                  "\"connect_failures\":%llu,\"tls_handshakes\":%llu,\"tls_resumed\":%llu,\"seconds\":%.6f,\"rate\":%.3f,"
                  "\"latency_ms\":",
                  (unsigned long long)l->rcpt_accepted, (unsigned long long)l->rcpt_refused,
                  (unsigned long long)l->bytes, (unsigned long long)l->connections,
                  (unsigned long long)l->connect_failures, (unsigned long long)l->handshakes,
                  (unsigned long long)l->resumed, seconds, rate);
        latency_put_json(&t, &l->latency);
        text_put(&t, S(",\"dot_ms\":"));
        latency_put_json(&t, &l->dot);
        cli_print("%.*s}\n", STR_ARG(text_str(&t)));
        return;
    }
    if (l->set.visit)
        cli_print("%llu of %llu sessions in %.3f s: %.0f sessions/s\n", (unsigned long long)l->fates[ACCEPTED],
                  (unsigned long long)tried, seconds, rate);
    else
        cli_print("%llu of %llu messages accepted in %.3f s: %.0f messages/s, %.2f MB/s; %llu connections\n",
                  (unsigned long long)l->fates[ACCEPTED], (unsigned long long)tried, seconds, rate,
                  seconds > 0 ? (double)l->bytes / seconds / 1e6 : 0, (unsigned long long)l->connections);
    if (l->own_tls)
        cli_print("%llu TLS handshakes, %llu of them resumed\n", (unsigned long long)l->handshakes,
                  (unsigned long long)l->resumed);
    cli_print("deferred %llu, refused %llu, lost %llu, unknown %llu; recipients: %llu accepted, %llu not; "
              "%llu failures to connect\n",
              (unsigned long long)l->fates[DEFERRED], (unsigned long long)l->fates[REFUSED],
              (unsigned long long)l->fates[LOST], (unsigned long long)l->fates[UNKNOWN],
              (unsigned long long)l->rcpt_accepted, (unsigned long long)l->rcpt_refused,
              (unsigned long long)l->connect_failures);
    latency_put_words(&t, &l->latency);
    cli_print("latency in ms, %s:%.*s\n", l->set.visit ? "connection to last EHLO" : "MAIL to last reply",
              STR_ARG(text_str(&t)));
    if (l->set.visit)
        return;
    t.len = 0;
    latency_put_words(&t, &l->dot);
    cli_print("end of content to last reply:%.*s\n", STR_ARG(text_str(&t)));
}

static void
wait_for_signal(void *arg)
{
    struct load *l = arg;
    int signal;

    if (!err_is(rt_wait_signal(l->rt, FOREVER, &signal))) {
        l->stop = true;
        scope_cancel(&l->sessions);
    }
}

static void
show_progress(void *arg)
{
    struct load *l = arg;
    char memory[120];

    while (!err_is(rt_sleep(l->rt, within(l->rt, SECOND)))) {
        struct text t = text_init(memory, sizeof memory);
        text_putf(&t, "\r%llu accepted, %llu tried \r", (unsigned long long)l->fates[ACCEPTED],
                  (unsigned long long)l->next_message);
        terminal_write(TERMINAL_ERROR, text_str(&t));
    }
}

static struct str
make_filler(struct arena *arena)
{
    char *bytes = arena_alloc(arena, FILLER_BYTES);

    for (size_t i = 0; i < FILLER_BYTES; i++) {
        size_t column = i % LINE_BYTES;
        bytes[i] = column == LINE_BYTES - 2   ? '\r'
                   : column == LINE_BYTES - 1 ? '\n'
                                              : (char)('a' + (i / LINE_BYTES + column) % 26);
    }
    /* It is repeated: its last line, cut short, must end too. */
    memcpy(bytes + FILLER_BYTES - 2, "\r\n", 2);
    return str_new(bytes, FILLER_BYTES);
}

static struct session *
new_session(struct load *l)
{
    struct session *s = arena_new(&l->arena, struct session);

    s->load = l;
    s->name = arena_printf(&l->arena, "%llu", (unsigned long long)l->session_count++);
    s->recipients = arena_alloc(&l->arena, l->set.rcpt * sizeof *s->recipients);
    s->rcpt = arena_alloc(&l->arena, l->set.rcpt * sizeof *s->rcpt);
    s->rcpt_reply = arena_alloc(&l->arena, l->set.rcpt * sizeof *s->rcpt_reply);
    s->final_reply = arena_alloc(&l->arena, l->set.rcpt * sizeof *s->final_reply);
    arena_init(&s->arena, rt_mem(l->rt), 4096, SIZE_MAX);
    return s;
}

static int
drive(struct load *l)
{
    static const int signals[] = { SIGINT, SIGTERM };
    struct err e = rt_catch_signals(l->rt, signals, 2);

    if (!err_is(e) && l->set.log_accepted.len > 0)
        e = terminal_open(l->rt, l->set.log_accepted, FILE_WRITE | FILE_CREATE | FILE_TRUNCATE, &l->own_log);
    if (err_is(e))
        return cli_fail(&verb_load, EXIT_CANNOT_CREATE, "%.*s: %.*s", STR_ARG(l->set.log_accepted),
                        STR_ARG(cli_error(e, &l->arena)));
    scope_init(&l->sessions, l->rt);
    scope_init(&l->helpers, l->rt);
    l->began = l->ended = l->next_slot = rt_now(l->rt);
    for (uint64_t i = 0; i < l->set.sessions; i++)
        scope_start(&l->sessions, "load session", run_session, new_session(l));
    scope_start(&l->helpers, "load signal", wait_for_signal, l);
    if (!l->set.quiet && terminal_is_one(TERMINAL_ERROR))
        scope_start(&l->helpers, "load progress", show_progress, l);
    scope_wait(&l->sessions, FOREVER);
    scope_end(&l->helpers);
    scope_end(&l->sessions);
    if (l->own_log)
        file_close(l->own_log);
    print_figures(l);
    if (err_is(l->log_error))
        return cli_fail(&verb_load, EXIT_IO, "%.*s: %.*s", STR_ARG(l->set.log_accepted),
                        STR_ARG(cli_error(l->log_error, &l->arena)));
    if (l->fates[REFUSED] > 0)
        return EXIT_UNAVAILABLE;
    bool enough = !l->set.messages || l->fates[ACCEPTED] >= l->set.messages;
    return enough && (l->set.keep_going || l->fates[ACCEPTED] == l->next_message) && l->fates[ACCEPTED] > 0 ? EXIT_WELL
                                                                                                           : EXIT_AGAIN;
}

static int
check_settings(struct load *l, const struct words *operands)
{
    if (operands->count > 0)
        return cli_fail(&verb_load, EXIT_USAGE, "takes options only, not \"%.*s\"", STR_ARG(operands->word[0]));
    if (l->set.rcpt == 0 || l->set.rcpt > RCPT_MAX || l->set.sessions == 0 || l->set.sessions > 100000 ||
        l->set.rate > 1000000 || l->set.domains == 0)
        return cli_fail(&verb_load, EXIT_USAGE, "--rcpt, --sessions, --rate or --domains is out of bounds");
    if ((l->set.tls && l->set.smtps) || (l->set.resume && !l->set.tls && !l->set.smtps) || (l->set.hold && !l->set.visit))
        return cli_fail(&verb_load, EXIT_USAGE, "either --tls or --smtps; --resume with one of them; --hold with --visit");
    if (!client_can_say(l->set.from) || !client_can_say(l->set.to) || !client_can_say(l->set.helo))
        return cli_fail(&verb_load, EXIT_USAGE, "--from, --to or --helo cannot be said in SMTP");
    return server_find(l->rt, &verb_load, l->set.server, 25, &l->server);
}

static int
run(struct rt *rt, int argc, char **argv)
{
    struct load *l = mem_new(rt_mem(rt), struct load);
    struct words operands = { 0 };
    int exit;

    l->rt = rt;
    arena_init(&l->arena, rt_mem(rt), 16 << 10, SIZE_MAX);
    l->set = (struct settings){
        .server = STR("127.0.0.1:25"),
        .from = STR("load@load.invalid"),
        .to = STR("load@local.test"),
        .helo = STR("load.invalid"),
        .sessions = 10,
        .size = 10 << 10,
        .rcpt = 1,
        .messages = UINT64_MAX,
        .domains = 200,
    };
    l->filler = make_filler(&l->arena);
    l->run_id = arena_printf(&l->arena, "%016llx", (unsigned long long)rt_random(rt));
    if (cli_parse(&verb_load, argc, argv, &l->arena, &l->set, &operands, &exit)) {
        if (l->set.messages == UINT64_MAX)
            l->set.messages = l->set.seconds ? 0 : 1000;
        exit = check_settings(l, &operands);
        if (exit == EXIT_WELL && (l->set.tls || l->set.smtps)) {
            if (err_is(crypto_open(rt, &l->own_crypto)))
                exit = cli_fail(&verb_load, EXIT_OS, "OpenSSL cannot start");
            else
                l->own_tls = tls_client_new(l->own_crypto);
        }
        if (exit == EXIT_WELL)
            exit = drive(l);
    }
    if (l->own_tls)
        tls_client_free(l->own_tls);
    if (l->own_crypto)
        crypto_close(l->own_crypto);
    arena_done(&l->arena);
    mem_free(rt_mem(rt), l, sizeof *l);
    return exit;
}

const struct verb verb_load = {
    .name = "load",
    .summary = "send many messages in many sessions, and tell rate and latency",
    .arguments = "",
    .about = "  postrider load --server 127.0.0.1:2525 --sessions 100 --messages 50000 --size 10k\n"
             "  postrider load --seconds 60 --rate 200 --rcpt 5 --to user{r}@local.test --json\n"
             "  postrider load --tls --visit --sessions 50 --seconds 10\n",
    .options = options,
    .run = run,
};
