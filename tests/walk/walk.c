/*
 * walk - every sequence of commands up to some length, spoken to the receiver's side of SMTP and compared with model.h.
 *
 *     protocol-walk          on all processors: about a minute on two
 *     protocol-walk quick    shorter sequences: for builds with sanitizers
 *
 * The server is src/smtp/server.c, with the site of server_fake.h, in this process and without fibers: the functions of
 * runtime/rt.h that it calls are here. When the server wants to read, all that it has said is compared, and the next
 * commands of the sequence are put before it; so a session takes microseconds, and millions need no shared prefixes.
 */
#include "model.h"

#include "base/check.h"
#include "net/proxy.h"
#include "net/wire_fake.h"
#include "runtime/sched.h"
#include "smtp/server_fake.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- what is sent ------------------------------------------------------------------------------------------------ */

/* %u: the command's place. What a message holds would do harm as commands. */
#define CONNECTED "192.0.2.7"
#define PROXIED "203.0.113.9"
#define V2 "\x0D\x0A\x0D\x0A\x00\x0D\x0A\x51\x55\x49\x54\x0A"
#define EVIL "QUIT\r\nRSET\r\nMAIL FROM:<evil@remote.test>\r\nRCPT TO:<user999@local.test>\r\n"
static const struct {
    const char *name, *command, *content;
} words[VERBS_ALL] = {
    [EHLO] = { "EHLO", "EHLO client%u.test\r\n" },
    [HELO] = { "HELO", "HELO client%u.test\r\n" },
    [MAIL] = { "MAIL", "MAIL FROM:<s%u@remote.test>\r\n" },
    [MAIL_BAD] = { "MAIL-bad", "MAIL FROM:<s%u@remote.test\r\n" },
    [RCPT] = { "RCPT", "RCPT TO:<user%u@local.test>\r\n" },
    [RCPT_UNKNOWN] = { "RCPT-unknown", "RCPT TO:<nobody%u@local.test>\r\n" },
    [DATA] = { "DATA", "DATA\r\n", "X-Data: %u\r\n\r\n" EVIL "..\r\n..RSET\r\n.\r\n" },
    [BDAT] = { "BDAT", "BDAT ", "X-Chunk: %u\r\n" EVIL ".\r\n" },
    [BDAT_LAST] = { "BDAT-LAST", "BDAT ", "X-Last: %u\r\n" EVIL ".\r\n" },
    [RSET] = { "RSET", "RSET\r\n" },
    [NOOP] = { "NOOP", "NOOP %u\r\n" },
    [VRFY] = { "VRFY", "VRFY user%u@local.test\r\n" },
    [EXPN] = { "EXPN", "EXPN list%u\r\n" },
    [HELP] = { "HELP", "HELP NOOP\r\n" },
    [QUIT] = { "QUIT", "QUIT\r\n" },
    [ETRN] = { "ETRN", "ETRN backup.test\r\n" },
    [TURN] = { "TURN", "TURN\r\n" },
    [UNKNOWN] = { "unknown", "XYZZY %u\r\n" },
    [EHLO_NAMELESS] = { "EHLO-nameless", "EHLO\r\n" },
    [MAIL_EXTENDED] = { "MAIL-extended", "MAIL FROM:<s%u@remote.test> SIZE=100 BODY=8BITMIME\r\n" },
    [MAIL_HUGE] = { "MAIL-huge", "MAIL FROM:<s%u@remote.test> SIZE=99999999999\r\n" },
    [MAIL_PARAMETER] = { "MAIL-parameter", "MAIL FROM:<s%u@remote.test> X-NOBODY=1\r\n" },
    [RCPT_SECOND_DOMAIN] = { "RCPT-relay", "RCPT TO:<user%u@elsewhere.test>\r\n" },
    [RCPT_BAD] = { "RCPT-bad", "RCPT TO:<user%u@local.test\r\n" },
    [RCPT_BUSY] = { "RCPT-busy", "RCPT TO:<busy@local.test>\r\n" },
    [DATA_BARE_LF] = { "DATA-bare-LF", "DATA\r\n", "X-Bare: %u\n\n.\n" EVIL ".\r\n" },
    [DATA_CUT] = { "DATA-cut", "DATA\r\n", "X-Cut: %u\r\n" EVIL ".\r" },
    [DATA_ARGUMENT] = { "DATA-argument", "DATA %u\r\n" },
    [BDAT_BARE_LF] = { "BDAT-bare-LF", "BDAT ", "X-Bare: %u\n" EVIL },
    [BDAT_NONE] = { "BDAT-0-LAST", "BDAT 0 LAST\r\n" },
    [BDAT_CUT] = { "BDAT-cut", "BDAT 1000 LAST\r\nX-Cut: %u\r\n" },
    [BDAT_SIZELESS] = { "BDAT-sizeless", "BDAT %u-LAST\r\n" },
    [STARTTLS] = { "STARTTLS", "STARTTLS\r\n" },
    [AUTH] = { "AUTH", "AUTH PLAIN AAAA\r\n" },
    [AUTH_RIGHT] = { "AUTH-right", "AUTH PLAIN cmlnaHQ=\r\n" },
    [XCLIENT] = { "XCLIENT", "XCLIENT ADDR=198.51.100.%u NAME=[UNAVAILABLE]\r\n" },
    [XCLIENT_LOGIN] = { "XCLIENT-login", "XCLIENT LOGIN=user NAME=[UNAVAILABLE]\r\n" },
    [XCLIENT_BAD] = { "XCLIENT-bad", "XCLIENT ADDR=198.51.100\r\n" },
    [PROXY_LINE] = { "PROXY", "PROXY TCP4 198.51.100.%u 192.0.2.1 40000 25\r\n" },
    [EMPTY] = { "empty", "\r\n" },
};

/* The same for each place, made once. */
struct line {
    char command[320], content[320]; /* content: behind 354, with its dots */
    size_t command_len, content_len;
    char piece[320];                 /* what of it is kept; it begins like no other */
    size_t piece_len;
};
static struct line lines[VERBS_ALL][PLACES];

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
#pragma GCC diagnostic ignored "-Wformat-extra-args"
#pragma GCC diagnostic ignored "-Wformat-security"
static size_t
print_at(char *memory, size_t cap, const char *format, unsigned place)
{
    int n = snprintf(memory, cap, format, place);

    CHECK(n >= 0 && (size_t)n < cap);
    return (size_t)n;
}
#pragma GCC diagnostic pop

static bool
is_chunk(enum verb v)
{
    return v == BDAT || v == BDAT_LAST || v == BDAT_BARE_LF;
}

/* RFC 5321 section 4.5.2: the dot that hides a dot goes, and so does the end. */
static size_t
without_dots(const char *wire, size_t len, char *out)
{
    size_t n = 0;

    CHECK(len >= 3 && memcmp(wire + len - 3, ".\r\n", 3) == 0);
    for (size_t i = 0; i < len - 3; i++)
        if (!(wire[i] == '.' && i > 0 && wire[i - 1] == '\n'))
            out[n++] = wire[i];
        else if (wire[i + 1] != '\r')
            out[n++] = wire[++i];
    return n;
}

static void
line_make(struct line *l, enum verb v, unsigned place)
{
    char body[320];
    size_t len = words[v].content ? print_at(body, sizeof body, words[v].content, place) : 0;

    if (is_chunk(v)) {
        int n = snprintf(l->command, sizeof l->command, "BDAT %zu%s\r\n%s", len, v == BDAT_LAST ? " LAST" : "", body);
        CHECK(n > 0 && (size_t)n < sizeof l->command);
        l->command_len = (size_t)n;
        l->piece_len = len;
        memcpy(l->piece, body, len);
        return;
    }
    l->command_len = print_at(l->command, sizeof l->command, words[v].command, place);
    l->content_len = len;
    memcpy(l->content, body, len);
    if (v == DATA)
        l->piece_len = without_dots(body, len, l->piece);
}

/* ---- one session ------------------------------------------------------------------------------------------------- */

enum delivery {
    ONE_BY_ONE, /* a command, its reply, the next */
    GROUPED,    /* as much in one write as a client may: RFC 2920 section 3.1 */
    AT_ONCE,    /* all of it in one write, as a client may not */
    BYTES,      /* one by one, and each read gets a single byte */
};

struct walk {
    struct rt rt;
    struct mem mem;
    struct fake_site site;
    struct listener_settings settings;
    uint64_t random;

    /* The sequence. */
    enum verb verbs[PLACES];
    size_t count, alone; /* the first so many are always sent one by one */
    const struct str *header; /* of a proxy, before the greeting; NULL: there is none */
    enum client client;       /* whom it tells of */
    enum delivery delivery;

    /* This session. */
    struct belief belief;
    struct commit commits[PLACES];
    size_t commit_count;
    size_t sent, answered;
    uint16_t codes[PLACES];
    bool greeted, content_due, ended, closed, failed;

    uint64_t sequences, replies, differ;
};

/* The connection: the functions of runtime/rt.h. */
struct stream {
    struct walk *walk;
    char in[4096], out[8192];
    size_t in_len, in_at, out_len;
    bool shut;
};

static void walk_go_on(struct walk *, struct stream *);

struct err
stream_read(struct stream *s, void *memory, size_t cap, int64_t until, size_t *out_len)
{
    (void)until;
    if (s->in_at == s->in_len)
        walk_go_on(s->walk, s);
    size_t len = s->in_len - s->in_at;
    if (len > cap)
        len = cap;
    if (len > 1 && s->walk->delivery == BYTES)
        len = 1;
    memcpy(memory, s->in + s->in_at, len);
    s->in_at += len;
    *out_len = len;
    return OK;
}

struct err
stream_read_now(struct stream *s, void *memory, size_t cap, size_t *out_len)
{
    (void)s;
    (void)memory;
    (void)cap;
    *out_len = 0;
    return OK;
}

struct err
stream_wait_readable(struct stream *s, int64_t until)
{
    (void)s;
    (void)until;
    return OK;
}

struct err
stream_write(struct stream *s, struct str bytes, int64_t until)
{
    (void)until;
    CHECK(s->out_len + bytes.len <= sizeof s->out);
    memcpy(s->out + s->out_len, bytes.ptr, bytes.len);
    s->out_len += bytes.len;
    return OK;
}

/* The session writes whole replies only, and leaves the rest to others. */
struct err
stream_write_parts(struct stream *s, const struct str *parts, size_t count, int64_t until)
{
    (void)s;
    (void)parts;
    (void)count;
    (void)until;
    UNREACHABLE();
}

struct err
stream_write_now(struct stream *s, struct str bytes, size_t *out_len)
{
    (void)s;
    (void)bytes;
    (void)out_len;
    UNREACHABLE();
}

void
stream_close(struct stream *s)
{
    (void)s;
    UNREACHABLE();
}

void
stream_shut_down(struct stream *s)
{
    s->shut = true;
}

struct rt *
stream_rt(const struct stream *s)
{
    return &s->walk->rt;
}

int64_t
rt_wall(struct rt *rt)
{
    (void)rt;
    return 1700000000 * SECOND;
}

uint64_t
rt_random(struct rt *rt)
{
    return ++container_of(rt, struct walk, rt)->random * 0x9E3779B97F4A7C15u;
}

/* ---- what was seen ----------------------------------------------------------------------------------------------- */

static void
differ(struct walk *w, const char *what, const char *detail)
{
    char line[2048];
    size_t len = 0;

    if (w->failed)
        return;
    w->failed = true;
    if (++w->differ > 5)
        return;
    for (size_t i = 0; i < w->count; i++)
        len += (size_t)snprintf(line + len, sizeof line - len, " %s:%u", words[w->verbs[i]].name, w->codes[i]);
    printf("# differs:%s (delivery %d, command %zu): %s: %s\n", line, w->delivery, w->answered, what, detail);
}

static bool
number_behind(struct str *rest, struct str prefix, struct str suffix, uint64_t *out)
{
    return str_take(rest, prefix) && str_take_u64(rest, out) && str_take(rest, suffix);
}

/* Of whom a Received field tells; PLACES + 2: nobody who can be. */
static uint8_t
client_read(struct str trace)
{
    struct str rest = str_from(trace, str_find(trace, S("[")));
    uint64_t place;

    if (str_starts(rest, S("[" CONNECTED "]")))
        return CLIENT_CONNECTED;
    if (str_starts(rest, S("[" PROXIED "]")))
        return CLIENT_PROXIED;
    return number_behind(&rest, S("[198.51.100."), S("]"), &place) && place < PLACES ? (uint8_t)place : CLIENT_PROXIED + 1;
}

/* A message that the site was given, told by places. What cannot be told becomes the place PLACES, where nothing is. */
static struct commit
commit_read(const struct fake_message *m)
{
    struct commit c = { .sender = PLACES };
    struct str rest = str_from_cstr(m->reverse_path), trace = str_from_cstr(m->trace);
    uint64_t place;
    size_t at = 0;

    if (number_behind(&rest, S("s"), S("@remote.test"), &place) && rest.len == 0)
        c.sender = (uint8_t)place;
    rest = str_from_cstr(m->recipients);
    for (size_t i = 0; i < m->recipient_count; i++) {
        bool is_known = number_behind(&rest, S("user"), S("@local.test/0/0 "), &place) && place < PLACES;
        c.recipients = (uint16_t)(c.recipients | 1u << (is_known ? place : PLACES));
    }
    while (at < m->len && c.piece_count < PLACES) {
        size_t piece = PLACES, len = 0;
        for (size_t p = 0; p < PLACES && piece == PLACES; p++)
            for (int v = 0; v < VERBS_ALL && piece == PLACES; v++) {
                const struct line *l = &lines[v][p];
                if (l->piece_len > 0 && l->piece_len <= m->len - at &&
                    memcmp(m->content + at, l->piece, l->piece_len) == 0) {
                    piece = p;
                    len = l->piece_len;
                }
            }
        c.pieces[c.piece_count++] = (uint8_t)piece;
        at += piece == PLACES ? m->len - at : len;
    }
    bool both = str_find(trace, S(" with ESMTPSA\r\n")) < trace.len;
    c.authenticated = both || str_find(trace, S(" with ESMTPA\r\n")) < trace.len;
    c.encrypted = both || str_find(trace, S(" with ESMTPS\r\n")) < trace.len;
    c.extended = c.encrypted || c.authenticated || str_find(trace, S(" with ESMTP\r\n")) < trace.len;
    c.client = client_read(trace);
    if (!c.extended && str_find(trace, S(" with SMTP\r\n")) == trace.len)
        c.sender = PLACES; /* no such keyword: RFC 5321 section 4.4 */
    return c;
}

static void
learn(struct walk *w, uint16_t code, uint16_t final)
{
    struct seen seen = {
        .verb = w->verbs[w->answered],
        .place = (uint8_t)w->answered,
        .talked_ahead = w->delivery == AT_ONCE && w->answered >= w->alone && w->answered + 1 < w->sent,
        .code = code,
        .final = final,
        .commits = w->commits,
        .commit_count = w->commit_count,
    };
    struct belief before = w->belief;

    if (!belief_learn(&w->belief, &seen)) {
        char allowed[1024], what[64];
        belief_explain(&before, &seen, allowed, sizeof allowed);
        snprintf(what, sizeof what, "%u %u after %zu messages, allowed", code, final, w->commit_count);
        differ(w, what, allowed);
    }
    w->answered++;
}

/* The first whole reply in the output; 0: none. */
static size_t
reply_len(const char *text, size_t len)
{
    for (size_t begin = 0; begin < len;) {
        const char *end = memchr(text + begin, '\n', len - begin);
        if (!end)
            return 0;
        size_t next = (size_t)(end - text) + 1;
        if (next - begin < 4 || text[begin + 3] != '-')
            return next;
        begin = next;
    }
    return 0;
}

static void
take_reply(struct walk *w, const char *text, size_t len)
{
    const char *fault;
    uint64_t code;

    w->replies++;
    if (!str_to_u64(str_new(text, 3), &code))
        code = 0;
    if (!w->greeted) {
        w->greeted = true;
        if (code != 220)
            differ(w, "greeting", "not 220");
        return;
    }
    if (w->answered == w->sent) {
        differ(w, "a reply that nobody asked for", "");
        return;
    }
    fault = reply_fault(w->verbs[w->answered], text, len);
    if (fault)
        differ(w, "form of the reply", fault);
    if (w->codes[w->answered] == 354) {
        learn(w, 354, (uint16_t)code);
        return;
    }
    w->codes[w->answered] = (uint16_t)code;
    if (code == 354)
        w->content_due = true;
    else
        learn(w, (uint16_t)code, 0);
}

/* Everything that the server said since it was last asked, and everything that it gave to the site. */
static void
look(struct walk *w, struct stream *s)
{
    size_t at = 0, len;

    while (w->commit_count < w->site.committed && w->commit_count < PLACES) {
        w->commits[w->commit_count] = commit_read(&w->site.messages[w->commit_count]);
        w->commit_count++;
    }
    while ((len = reply_len(s->out + at, s->out_len - at)) > 0) {
        if (w->content_due)
            differ(w, "354", "and a further reply, without any content");
        take_reply(w, s->out + at, len);
        at += len;
    }
    if (at < s->out_len)
        differ(w, "output", "half a reply");
    s->out_len = 0;
}

/* Whether the server may leave commands unanswered: after the last reply that we saw it closes. */
static bool
is_closed(const struct walk *w)
{
    for (size_t i = 0; i < w->belief.count; i++)
        if (w->belief.situations[i].step == CLOSED)
            return true;
    return false;
}

static void
send_bytes(struct stream *s, const char *bytes, size_t len)
{
    CHECK(s->in_len + len <= sizeof s->in);
    memcpy(s->in + s->in_len, bytes, len);
    s->in_len += len;
}

/* The server waits for input: it must have answered all that it got. Then comes the next write; none: we hang up. */
static void
walk_go_on(struct walk *w, struct stream *s)
{
    look(w, s);
    s->in_len = s->in_at = 0;
    if (w->failed || w->ended)
        return;
    if (w->answered < w->sent && !w->content_due && !s->shut) {
        enum verb v = w->verbs[w->answered];
        if (v == BDAT_CUT || v == DATA_CUT) {
            learn(w, w->codes[w->answered], 0);
            w->ended = true;
        } else
            differ(w, "no reply", words[v].name);
        return;
    }
    if (!w->content_due && !belief_settle(&w->belief, w->site.committed, s->shut))
        differ(w, "now", s->shut ? "the server has closed" : "the server has not closed, or other messages were stored");
    if (s->shut || w->failed) {
        w->ended = w->closed = true;
        return;
    }
    if (w->content_due) {
        const struct line *l = &lines[w->verbs[w->answered]][w->answered];
        send_bytes(s, l->content, l->content_len);
        w->content_due = false;
        if (w->verbs[w->answered] == DATA_CUT)
            return;
        if (w->delivery != GROUPED || w->sent < w->alone)
            return;
    }
    while (w->sent < w->count) {
        enum verb v = w->verbs[w->sent];
        const struct line *l = &lines[v][w->sent];
        send_bytes(s, l->command, l->command_len);
        w->sent++;
        if (w->sent <= w->alone || w->delivery == ONE_BY_ONE || w->delivery == BYTES)
            break;
        if (w->delivery == GROUPED && !verb_may_be_followed(v))
            break;
    }
    if (s->in_len == 0)
        w->ended = true;
}

/* As the receiver does before it says anything. */
static void
meet_proxy(struct walk *w, struct stream *s, struct server_client *client)
{
    struct proxy_header header;
    struct str why;

    send_bytes(s, w->header->ptr, w->header->len);
    if (err_is(proxy_read(s, FOREVER, &header, &why)) || s->in_at != s->in_len)
        differ(w, "the proxy's header", "is not taken, or not all of it");
    if (header.told)
        client->address = header.client;
}

/* The sequence that is in w->verbs, from greeting to end. */
static void
walk_session(struct walk *w)
{
    static struct stream s;
    struct server_client client = { .name = STR(CONNECTED) };

    s.walk = w;
    s.in_len = s.in_at = s.out_len = 0;
    s.shut = false;
    CHECK(address_from_ip(S(CONNECTED), &client.address));
    belief_begin(&w->belief, w->settings.login, w->settings.xclient, w->client);
    w->commit_count = w->sent = w->answered = 0;
    w->greeted = w->content_due = w->ended = w->closed = w->failed = false;
    memset(w->codes, 0, sizeof w->codes);
    w->site.committed = w->site.begun = w->site.aborted = w->site.admitted = w->site.left = 0;
    size_t in_use = mem_in_use(&w->mem);
    w->rt.now = SECOND;
    if (w->header)
        meet_proxy(w, &s, &client);
    struct wire wire = wire_in_clear(&s);
    server_run(&wire, &w->settings, &w->site.hooks, &client);
    if (w->site.committed != w->commit_count)
        differ(w, "the end", "a message was stored when all was said");
    look(w, &s);
    w->sequences++;
    if (!w->ended || (w->answered < w->count && !is_closed(w)))
        differ(w, "the end", "the server closed before the client did");
    if (w->site.begun != w->site.committed + w->site.aborted)
        differ(w, "the end", "a draft was neither committed nor dropped");
    if (w->site.admitted != w->site.left || mem_in_use(&w->mem) != in_use)
        differ(w, "the end", "something was not given back");
}

/* ---- all sequences ----------------------------------------------------------------------------------------------- */

struct plan {
    const char *name;
    enum delivery delivery;
    int verbs;
    size_t depth, quick; /* how many commands */
    unsigned modes;
    bool probes;
};
static const struct {
    const char *name;
    size_t count;
    enum verb verbs[4];
    bool submission, xclient;
    struct str header;       /* of a proxy: HAProxy's proxy-protocol.txt, sections 2.1 and 2.2 */
    bool tells;              /* who is there */
} modes[] = {
    { "plain", 0, { EHLO } },
    { "after EHLO", 1, { EHLO } },
    { "after HELO", 1, { HELO } },
    { "after STARTTLS", 2, { EHLO, STARTTLS } },
    { "encrypted", 3, { EHLO, STARTTLS, EHLO } },
    { "submission", 1, { EHLO }, true },
    { "submission, encrypted", 3, { EHLO, STARTTLS, EHLO }, true },
    { "submission, authenticated", 4, { EHLO, STARTTLS, EHLO, AUTH_RIGHT }, true },
    { "XCLIENT", 1, { EHLO }, .xclient = true },
    { "behind XCLIENT", 3, { EHLO, XCLIENT, EHLO }, .xclient = true },
    { "submission, XCLIENT", 3, { EHLO, XCLIENT_LOGIN, EHLO }, true, .xclient = true },
    { "PROXY, version 1", 0, { EHLO }, .header = STR("PROXY TCP4 " PROXIED " 192.0.2.1 40000 25\r\n"), .tells = true },
    { "PROXY, version 1, unknown", 0, { EHLO }, .header = STR("PROXY UNKNOWN\r\n") },
    { "PROXY, version 2", 1, { EHLO }, .tells = true,
      .header = STR(V2 "\x21\x11\x00\x0c\xcb\x00\x71\x09\xc0\x00\x02\x01\x9c\x40\x00\x19") },
    { "PROXY, version 2, local, and XCLIENT", 1, { EHLO }, .xclient = true, .header = STR(V2 "\x20\x00\x00\x00") },
};
enum { AFTER_EHLO = 2, OF_MX = 31, EACH_MODE = 0x7FFF };

static const struct plan plans[] = {
    { "one by one", ONE_BY_ONE, VERBS_CORE, 5, 4, OF_MX, true },
    { "grouped", GROUPED, VERBS_CORE, 5, 4, AFTER_EHLO, false }, /* only these are offered PIPELINING */
    { "all in one write", AT_ONCE, VERBS_CORE, 4, 3, OF_MX, true },
    { "one by one, rarer commands too", ONE_BY_ONE, VERBS_ALL, 3, 2, EACH_MODE, true },
    { "grouped, rarer commands too", GROUPED, VERBS_ALL, 3, 2, EACH_MODE, true },
    { "all in one write, rarer commands too", AT_ONCE, VERBS_ALL, 3, 2, EACH_MODE, true },
    { "byte by byte, rarer commands too", BYTES, VERBS_ALL, 3, 2, EACH_MODE, true },
};
enum { PLAN_COUNT = sizeof plans / sizeof *plans, MODE_COUNT = sizeof modes / sizeof *modes };

/* What shows in which state a sequence has left the server. */
static const enum verb probe[] = { MAIL, RCPT, DATA };

static bool
has_group(const struct walk *w)
{
    for (size_t i = w->alone; i + 1 < w->count; i++)
        if (verb_may_be_followed(w->verbs[i]) || w->verbs[i] == DATA)
            return true;
    return false;
}

static void
walk_below(struct walk *w, const struct plan *p, size_t depth, int first, int last)
{
    size_t before = w->count;

    for (int v = first; v < last; v++) {
        w->count = before;
        w->verbs[w->count++] = (enum verb)v;
        bool is_cut = v == DATA_CUT || v == BDAT_CUT;
        if (depth == 1 && p->probes && !is_cut) {
            memcpy(w->verbs + w->count, probe, sizeof probe);
            w->count += sizeof probe / sizeof *probe;
        }
        if (p->delivery == GROUPED && depth == 1 && !has_group(w))
            continue;
        walk_session(w);
        if (depth > 1 && !is_cut && (!w->closed || p->delivery == AT_ONCE))
            walk_below(w, p, depth - 1, 0, p->verbs);
    }
    w->count = before;
}

/* Shared by the processes that walk. */
struct tally {
    uint64_t sequences, replies, differ;
};

/* ---- TLS: a handshake that is nothing but its end, and hides nothing ---- */

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
    (void)ctx;
    (void)until;
    (void)reason;
    *out = (struct server_tls){ .protocol = S("none"), .cipher = S("none") };
    wire_fake_cover(wire);
    return OK;
}

static struct str
mechanisms(void *ctx, const struct server_client *client, struct arena *arena)
{
    (void)ctx, (void)client, (void)arena;
    return S("PLAIN");
}

static void
auth_start(void *ctx, const struct server_client *client, struct str mechanism, struct str initial, struct arena *arena,
           int64_t until, struct auth_answer *out)
{
    (void)ctx, (void)client, (void)mechanism, (void)arena, (void)until;
    *out = (struct auth_answer){ .status = str_eq(initial, S("right")) ? SASL_OK : SASL_REFUSED, .user = S("user") };
}

static void
walk_make(struct walk *w)
{
    *w = (struct walk){ .mem = mem_libc() };
    w->rt.mem = &w->mem;
    fake_site_init(&w->site);
    w->site.rt = &w->rt;
    w->site.hooks.reverse_name = NULL; /* beside the dialog, in a fiber: nothing of it shows in replies */
    w->site.hooks.tls_ready = tls_ready;
    w->site.hooks.start_tls = start_tls;
    w->site.hooks.mechanisms = mechanisms;
    w->site.hooks.auth_start = auth_start;
    w->settings = listener_settings_default(S("mx.local.test"));
    w->settings.slow_down = 0;
    for (int v = 0; v < VERBS_ALL; v++)
        for (unsigned place = 0; place < PLACES; place++)
            line_make(&lines[v][place], (enum verb)v, place);
}

/* The share of process `me` of `all`: each takes other first commands. */
static void
walk_share(struct tally tallies[PLAN_COUNT][MODE_COUNT], size_t me, size_t all, bool quick)
{
    static struct walk w;
    size_t job = 0;

    walk_make(&w);
    for (size_t p = 0; p < PLAN_COUNT; p++)
        for (size_t m = 0; m < MODE_COUNT; m++)
            for (int first = 0; first < plans[p].verbs; first++) {
                struct tally *t = &tallies[p][m];
                if (!(plans[p].modes & 1u << m) || job++ % all != me)
                    continue;
                w.sequences = w.replies = w.differ = 0;
                w.delivery = plans[p].delivery;
                w.count = w.alone = 0;
                for (size_t i = 0; i < modes[m].count; i++)
                    w.verbs[w.count++] = modes[m].verbs[i];
                w.alone = w.count;
                w.settings.login = modes[m].submission;
                w.settings.xclient = modes[m].xclient;
                w.header = modes[m].header.len > 0 ? &modes[m].header : NULL;
                w.client = modes[m].tells ? CLIENT_PROXIED : CLIENT_CONNECTED;
                walk_below(&w, &plans[p], quick ? plans[p].quick : plans[p].depth, first, first + 1);
                __atomic_fetch_add(&t->sequences, w.sequences, __ATOMIC_RELAXED);
                __atomic_fetch_add(&t->replies, w.replies, __ATOMIC_RELAXED);
                __atomic_fetch_add(&t->differ, w.differ, __ATOMIC_RELAXED);
                fflush(stdout);
            }
    w.site.committed = FAKE_MESSAGES;
    fake_site_done(&w.site);
}

int
main(int argc, char **argv)
{
    bool quick = argc > 1 && strcmp(argv[1], "quick") == 0;
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    size_t all = processors > 1 ? (size_t)processors : 1, died = 0, tests = 0;
    struct tally (*tallies)[MODE_COUNT] = mmap(NULL, PLAN_COUNT * MODE_COUNT * sizeof(struct tally),
                                              PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct tally sum = { 0 };

    CHECK(tallies != MAP_FAILED);
    for (size_t me = 0; me < all; me++)
        if (fork() == 0) {
            walk_share(tallies, me, all, quick);
            exit(0);
        }
    for (int status; wait(&status) > 0;)
        died += status != 0;
    for (size_t p = 0; p < PLAN_COUNT; p++)
        for (size_t m = 0; m < MODE_COUNT; m++) {
            struct tally *t = &tallies[p][m];
            if (!(plans[p].modes & 1u << m))
                continue;
            printf("%s %zu - %s, %s: %llu sequences, %llu replies, %llu differ\n", t->differ || died ? "not ok" : "ok",
                   ++tests, modes[m].name, plans[p].name, (unsigned long long)t->sequences, (unsigned long long)t->replies,
                   (unsigned long long)t->differ);
            sum.sequences += t->sequences;
            sum.replies += t->replies;
            sum.differ += t->differ;
        }
    printf("1..%zu\n", tests);
    printf("# protocol walk: %llu sequences, %llu replies, %llu differ\n", (unsigned long long)sum.sequences,
           (unsigned long long)sum.replies, (unsigned long long)sum.differ);
    return sum.differ > 0 || died > 0;
}
