/*
 * sink - "postrider sink": a server that takes mail and forgets it, refuses, delays, resets and stalls as it is told,
 * and keeps what it got if that is wanted. For tests and benchmarks, so it is a small loop of its own and not
 * smtp/server: it must be fast, and it must misbehave.
 */
#include "cli/cli.h"

#include "base/check.h"
#include "base/json.h"
#include "base/map.h"
#include "cli/latency.h"
#include "message/lines.h"
#include "runtime/host.h"
#include "smtp/client.h"

#include <signal.h>
#include <stddef.h>
#include <string.h>

enum {
    IN_BYTES = 32 << 10,
    OUT_BYTES = 4 << 10,
    LINE_MAX = 8 << 10,
    FAULTS_MAX = 64,
    LISTEN_MAX = 64,
    HEAD_BYTES = 2 << 10, /* of a message: in them the field of `load` is looked for */
    PIECES = 64,
    SEEN_MAX = 1000000, /* recipients that --greylist remembers */
    RCPT_MAX = 100000,
};
#define DRAIN_NS (5 * SECOND)

/* ---- what it is told -------------------------------------------------------------------------------------------- */

/* The places of a dialog where something can be made to happen. */
enum point { AT_GREETING, AT_HELLO, AT_MAIL, AT_RCPT, AT_DATA, AT_CONTENT, AT_DOT, AT_RSET, AT_QUIT, POINTS };
static const struct str point_names[POINTS] = {
    STR("greeting"), STR("ehlo"), STR("mail"), STR("rcpt"), STR("data"),
    STR("content"),  STR("dot"),  STR("rset"), STR("quit"),
};

enum action { REFUSE, DELAY, STALL, RESET, CLOSE };
struct fault {
    enum point at;
    enum action action;
    unsigned code;     /* REFUSE */
    struct str words;  /* REFUSE: what follows the code; empty: our own */
    int64_t delay;     /* DELAY */
    unsigned share;    /* of a thousand; 1000: always */
    unsigned due;      /* adds up to a thousand, then it is this one's turn: no chance, so that runs are alike */
};

struct settings {
    struct str keep, maildir, greeting, host;
    struct words listen, refuse, defer, delay, stall, reset, close, without;
    bool lmtp, obey, greylist, limits, json, quiet;
    uint64_t count, rcpt_max, size_max, buffers;
    int64_t seconds;
};

static const struct option options[] = {
    { "--listen", "ADDR:PORT", OPTION_WORDS, offsetof(struct settings, listen),
      "where to listen (127.0.0.1:0); a path is a Unix socket;\nmay be repeated" },
    { "--lmtp", NULL, OPTION_FLAG, offsetof(struct settings, lmtp), "speak LMTP" },
    { "--keep", "DIR", OPTION_WORD, offsetof(struct settings, keep),
      "keep each message as N.eml, its envelope as N.json" },
    { "--maildir", "DIR", OPTION_WORD, offsetof(struct settings, maildir),
      "keep each message in this Maildir, with LF" },
    { "--count", "N", OPTION_NUMBER, offsetof(struct settings, count), "end after N messages" },
    { "--seconds", "S", OPTION_SECONDS, offsetof(struct settings, seconds), "end after this time" },
    { "--refuse", "WHERE=CODE", OPTION_WORDS, offsetof(struct settings, refuse),
      "answer so; \"rcpt=550/20%\" one in five, \"dot=451 4.3.0 Busy\"" },
    { "--defer", "SHARE", OPTION_WORDS, offsetof(struct settings, defer),
      "\"10%\": as --refuse rcpt=451/10%; or \"WHERE=10%\"" },
    { "--delay", "WHERE=TIME", OPTION_WORDS, offsetof(struct settings, delay), "wait before answering; \"dot=2/10%\"" },
    { "--stall", "WHERE[/SHARE]", OPTION_WORDS, offsetof(struct settings, stall), "never answer" },
    { "--reset", "WHERE[/SHARE]", OPTION_WORDS, offsetof(struct settings, reset), "reset the connection" },
    { "--close", "WHERE[/SHARE]", OPTION_WORDS, offsetof(struct settings, close), "close the connection" },
    { "--obey", NULL, OPTION_FLAG, offsetof(struct settings, obey),
      "an address that begins with a code gets it: <550-x@...>" },
    { "--greylist", NULL, OPTION_FLAG, offsetof(struct settings, greylist), "450 to each recipient the first time" },
    { "--rcpt-max", "N", OPTION_NUMBER, offsetof(struct settings, rcpt_max), "452 to more recipients a transaction" },
    { "--limits", NULL, OPTION_FLAG, offsetof(struct settings, limits), "offer LIMITS RCPTMAX=N" },
    { "--size", "BYTES", OPTION_NUMBER, offsetof(struct settings, size_max),
      "552 to a larger message; offered as SIZE" },
    { "--without", "EXT[,EXT]", OPTION_WORDS, offsetof(struct settings, without),
      "do not offer PIPELINING, CHUNKING, ...; EHLO: only HELO" },
    { "--host", "NAME", OPTION_WORD, offsetof(struct settings, host), "our name (sink.invalid)" },
    { "--buffers", "BYTES", OPTION_NUMBER, offsetof(struct settings, buffers), "of the sockets, both ways" },
    { "--json", NULL, OPTION_FLAG, offsetof(struct settings, json), "the counts as JSON" },
    { "--quiet", NULL, OPTION_FLAG, offsetof(struct settings, quiet), "no counts while it runs" },
    { 0 },
};

/* ---- state ------------------------------------------------------------------------------------------------------ */

struct counts {
    uint64_t sessions, messages, recipients, refused_recipients, refused_messages, bytes, faults;
    int64_t first, last;    /* when a message was taken, by the monotonic clock of this machine; 0: none was */
    struct latency way;     /* from MAIL at "postrider load" of this machine until it was taken */
};

/* An address that it listens on. */
struct door {
    struct sink *sink;
    struct listener *listener;
};

struct sink {
    struct rt *rt;
    struct settings set;
    struct arena arena;
    struct fault faults[FAULTS_MAX];
    size_t fault_count;
    unsigned offers;           /* bits of extensions[] */
    bool only_helo;
    struct counts counts;
    struct map greylisted;     /* recipient -> itself */
    struct door doors[LISTEN_MAX];
    size_t door_count;
    struct scope sessions, helpers;
    struct event over;         /* wakes the main fiber */
    bool stop;
    struct dir *own_keep, *own_tmp, *own_new;
    uint64_t next_message;
};

static const struct str extensions[] = {
    STR("PIPELINING"), STR("8BITMIME"), STR("SMTPUTF8"), STR("DSN"), STR("ENHANCEDSTATUSCODES"), STR("CHUNKING"),
    STR("BINARYMIME"), STR("SIZE"),
};
enum { EXTENSION_COUNT = sizeof extensions / sizeof *extensions, EXTENSION_SIZE = EXTENSION_COUNT - 1 };

struct session {
    struct sink *sink;
    struct stream *own_stream;
    uint64_t number;
    size_t start, end;         /* of what was read and not used, in in[] */
    struct text out;           /* replies not written yet */
    struct arena arena;        /* of the transaction */
    bool over;
    bool greeted, has_mail, skips_line;
    struct text helo;
    struct str mail;           /* "FROM:<a@b> SIZE=1" */
    struct words rcpt;         /* accepted ones, "TO:<a@b>" */
    uint64_t rcpt_refused;
    /* The content under way. */
    struct lines_unstuff unstuff;
    char *own_content;         /* kept bytes, if they are kept */
    size_t content_len, content_cap;
    uint64_t content_bytes;
    struct text head;          /* its first bytes */
    bool in_bdat;
    char in[IN_BYTES];
    char out_memory[OUT_BYTES];
    char helo_memory[256];
    char head_memory[HEAD_BYTES];
};

/* ---- reading and writing ---------------------------------------------------------------------------------------- */

static bool
flush(struct session *s)
{
    struct str out = text_str(&s->out);

    s->out.len = 0;
    if (out.len > 0 && !s->over && err_is(stream_write(s->own_stream, out, FOREVER)))
        s->over = true;
    return !s->over;
}

static void
say(struct session *s, unsigned code, struct str words)
{
    if (OUT_BYTES - s->out.len < words.len + 6)
        flush(s);
    text_putf(&s->out, "%u ", code);
    text_put(&s->out, words);
    text_put(&s->out, S("\r\n"));
}

/* More bytes behind those that are there. Replies leave before we wait. */
static bool
fill(struct session *s)
{
    size_t got;

    if (s->start > 0) {
        memmove(s->in, s->in + s->start, s->end - s->start);
        s->end -= s->start;
        s->start = 0;
    }
    CHECK(s->end < IN_BYTES);
    if (!flush(s))
        return false;
    if (err_is(stream_read(s->own_stream, s->in + s->end, IN_BYTES - s->end, FOREVER, &got)) || got == 0)
        s->over = true;
    else
        s->end += got;
    return !s->over;
}

static struct str
unread(const struct session *s)
{
    return str_new(s->in + s->start, s->end - s->start);
}

/* The next command, without its line end. A line over LINE_MAX is refused and skipped. */
static bool
take_line(struct session *s, struct str *out)
{
    for (;;) {
        struct str rest = unread(s);
        size_t end = str_find_byte(rest, '\n');
        if (end < rest.len) {
            s->start += end + 1;
            if (s->skips_line) {
                s->skips_line = false;
                continue;
            }
            *out = str_trim_end(str_slice(rest, 0, end));
            return true;
        }
        if (rest.len > LINE_MAX) {
            if (!s->skips_line)
                say(s, 500, S("5.5.2 Line too long"));
            s->skips_line = true;
            s->start = s->end = 0;
        }
        if (!fill(s))
            return false;
    }
}

/* ---- faults ----------------------------------------------------------------------------------------------------- */

/* Until the peer gives up. */
static void
stall(struct session *s)
{
    s->start = s->end = 0;
    while (fill(s))
        s->start = s->end = 0;
}

static void
refuse(struct session *s, unsigned code, struct str words)
{
    char memory[80];
    struct text t = text_init(memory, sizeof memory);

    if (words.len == 0) {
        text_putf(&t, "%u.0.0 Refused, as the sink was told", code / 100);
        words = text_str(&t);
    }
    say(s, code, words);
    if (code == 421) {
        flush(s);
        s->over = true;
    }
}

/* True: go on. False: it was refused, and answered; or the session is over. */
static bool
pass(struct session *s, enum point at)
{
    struct sink *sink = s->sink;

    for (size_t i = 0; i < sink->fault_count && !s->over; i++) {
        struct fault *f = &sink->faults[i];
        if (f->at != at || (f->due += f->share) < 1000)
            continue;
        f->due -= 1000;
        sink->counts.faults++;
        switch (f->action) {
        case REFUSE:
            refuse(s, f->code, f->words);
            return false;
        case DELAY:
            if (flush(s) && err_is(rt_sleep(sink->rt, within(sink->rt, f->delay))))
                s->over = true;
            break;
        case STALL:
            stall(s);
            break;
        case RESET:
            flush(s);
            stream_reset(s->own_stream);
            s->own_stream = NULL;
            s->over = true;
            break;
        case CLOSE:
            flush(s);
            s->over = true;
            break;
        }
    }
    return !s->over;
}

/* --obey: "FROM:<550-x@...>" asks for 550. */
static bool
pass_address(struct session *s, struct str args)
{
    uint64_t code;

    str_cut(&args, '<');
    if (!s->sink->set.obey || args.len < 4 || !str_to_u64(str_slice(args, 0, 3), &code) || code < 400 || code > 599)
        return true;
    refuse(s, (unsigned)code, (struct str){ NULL, 0 });
    return false;
}

static bool
pass_greylist(struct session *s, struct str args)
{
    struct sink *sink = s->sink;
    struct str address = args;

    if (!sink->set.greylist)
        return true;
    str_cut(&address, '<');
    if (str_is_absent(address)) /* anything is taken for a recipient */
        address = args;
    address = str_cut(&address, '>');
    if (map_get(&sink->greylisted, address) || sink->greylisted.count >= SEEN_MAX)
        return true;
    struct str kept = arena_keep(&sink->arena, address);
    map_put(&sink->greylisted, kept, sink);
    refuse(s, 450, S("4.7.1 Greylisted, come again"));
    return false;
}

/* ---- keeping what came ------------------------------------------------------------------------------------------ */

static bool
keeps(const struct sink *sink)
{
    return sink->own_keep || sink->own_new;
}

static void
keep_bytes(struct session *s, struct str bytes)
{
    s->content_bytes += bytes.len;
    if (s->head.len < HEAD_BYTES)
        text_put(&s->head, str_slice(bytes, 0, HEAD_BYTES - s->head.len));
    if (!keeps(s->sink))
        return;
    if (s->content_cap - s->content_len < bytes.len) {
        size_t larger = s->content_cap ? 2 * s->content_cap : IN_BYTES;
        while (larger - s->content_len < bytes.len)
            larger *= 2;
        s->own_content = mem_resize(rt_mem(s->sink->rt), s->own_content, s->content_cap, larger);
        s->content_cap = larger;
    }
    memcpy(s->own_content + s->content_len, bytes.ptr, bytes.len);
    s->content_len += bytes.len;
}

static struct err
write_file(struct dir *dir, struct str name, struct str bytes)
{
    struct file *file;

    TRY(file_open(dir, name, FILE_WRITE | FILE_CREATE | FILE_TRUNCATE, 0644, LANE_POOL, FOREVER, &file));
    struct err e = file_write(file, &bytes, 1, 0, LANE_POOL, FOREVER);
    file_close(file);
    return e;
}

static struct str
envelope_json(struct session *s)
{
    size_t cap = 1000 + 6 * (s->mail.len + s->helo.len);

    for (size_t i = 0; i < s->rcpt.count; i++)
        cap += 4 + 6 * s->rcpt.word[i].len;
    struct text t = text_init(arena_alloc(&s->arena, cap), cap);
    char memory[100];
    struct text peer = text_init(memory, sizeof memory);
    struct address address = stream_peer(s->own_stream);
    address_put(&peer, &address);
    text_putf(&t, "{\"session\":%llu,\"peer\":", (unsigned long long)s->number);
    json_put_str(&t, text_str(&peer));
    text_put(&t, S(",\"helo\":"));
    json_put_str(&t, text_str(&s->helo));
    text_put(&t, S(",\"mail\":"));
    json_put_str(&t, s->mail);
    text_put(&t, S(",\"rcpt\":["));
    for (size_t i = 0; i < s->rcpt.count; i++) {
        if (i)
            text_put_byte(&t, ',');
        json_put_str(&t, s->rcpt.word[i]);
    }
    text_putf(&t, "],\"refused\":%llu,\"bdat\":%s,\"bytes\":%llu}\n", (unsigned long long)s->rcpt_refused,
              s->in_bdat ? "true" : "false", (unsigned long long)s->content_bytes);
    return text_str(&t);
}

/* CRLF becomes LF, in place. */
static struct str
with_lf(struct str content, char *memory)
{
    size_t len = 0;

    for (size_t i = 0; i < content.len; i++)
        if (content.ptr[i] != '\r' || i + 1 == content.len || content.ptr[i + 1] != '\n')
            memory[len++] = content.ptr[i];
    return str_new(memory, len);
}

static struct err
keep_message(struct session *s, uint64_t number)
{
    struct sink *sink = s->sink;
    struct str content = str_new(s->own_content, s->content_len);

    if (sink->own_keep) {
        /* In this order: whoever finds the envelope finds the whole content. */
        TRY(write_file(sink->own_keep, arena_printf(&s->arena, "%06llu.eml", (unsigned long long)number), content));
        TRY(write_file(sink->own_keep, arena_printf(&s->arena, "%06llu.json", (unsigned long long)number),
                       envelope_json(s)));
    }
    if (sink->own_new) {
        struct str name = arena_printf(&s->arena, "%lld.S%lluM%llu.sink", (long long)(rt_wall(sink->rt) / SECOND),
                                       (unsigned long long)s->number, (unsigned long long)number);
        TRY(write_file(sink->own_tmp, name, with_lf(content, s->own_content)));
        TRY(dir_rename(sink->own_tmp, name, sink->own_new, name, LANE_POOL, FOREVER));
    }
    return OK;
}

/* ---- commands --------------------------------------------------------------------------------------------------- */

static void
end_transaction(struct session *s)
{
    s->has_mail = s->in_bdat = false;
    s->rcpt = (struct words){ 0 };
    s->rcpt_refused = 0;
    s->mail = S("");
    s->content_len = 0;
    s->content_bytes = 0;
    s->head = text_init(s->head_memory, HEAD_BYTES);
    arena_reset(&s->arena);
}

static void
run_hello(struct session *s, struct str verb, struct str args)
{
    struct sink *sink = s->sink;
    bool extended = !str_eq_nocase(verb, S("HELO"));
    char memory[600];
    struct text t = text_init(memory, sizeof memory);

    if (str_eq_nocase(verb, S("LHLO")) != sink->set.lmtp || (extended && sink->only_helo)) {
        say(s, 500, S("5.5.1 Not this greeting here"));
        return;
    }
    if (!pass(s, AT_HELLO))
        return;
    end_transaction(s);
    s->helo = text_init(s->helo_memory, sizeof s->helo_memory);
    text_put(&s->helo, args);
    s->greeted = true;
    if (!extended) {
        say(s, 250, sink->set.host);
        return;
    }
    text_putf(&t, "250-%.*s", STR_ARG(str_slice(sink->set.host, 0, 255)));
    for (size_t i = 0; i < EXTENSION_COUNT; i++) {
        if (!(sink->offers & 1u << i))
            continue;
        text_putf(&t, "\r\n250-%.*s", STR_ARG(extensions[i]));
        if (i == EXTENSION_SIZE && sink->set.size_max)
            text_putf(&t, " %llu", (unsigned long long)sink->set.size_max);
    }
    if (sink->set.limits && sink->set.rcpt_max)
        text_putf(&t, "\r\n250-LIMITS RCPTMAX=%llu", (unsigned long long)sink->set.rcpt_max);
    text_put(&t, S("\r\n250 HELP\r\n"));
    flush(s);
    text_put(&s->out, text_str(&t));
}

static void
run_mail(struct session *s, struct str args)
{
    if (!s->greeted || s->has_mail || !str_starts_nocase(args, S("FROM:"))) {
        say(s, 503, S("5.5.1 Not now, or not so"));
        return;
    }
    if (!pass(s, AT_MAIL) || !pass_address(s, args))
        return;
    s->mail = arena_keep(&s->arena, args);
    s->has_mail = true;
    say(s, 250, S("2.1.0 Sender ok"));
}

static void
add_rcpt(struct session *s, struct str args)
{
    if ((s->rcpt.count & (s->rcpt.count - 1)) == 0) {
        struct str *larger = arena_alloc(&s->arena, (s->rcpt.count ? 2 * s->rcpt.count : 1) * sizeof *larger);
        if (s->rcpt.count)
            memcpy(larger, s->rcpt.word, s->rcpt.count * sizeof *larger);
        s->rcpt.word = larger;
    }
    s->rcpt.word[s->rcpt.count++] = arena_keep(&s->arena, args);
}

static void
run_rcpt(struct session *s, struct str args)
{
    const struct settings *set = &s->sink->set;

    if (!s->has_mail || !str_starts_nocase(args, S("TO:"))) {
        say(s, 503, S("5.5.1 Not now, or not so"));
        return;
    }
    if ((set->rcpt_max && s->rcpt.count >= set->rcpt_max) || s->rcpt.count >= RCPT_MAX)
        say(s, 452, S("4.5.3 Too many recipients"));
    else if (pass(s, AT_RCPT) && pass_address(s, args) && pass_greylist(s, args)) {
        add_rcpt(s, args);
        say(s, 250, S("2.1.5 Recipient ok"));
        return;
    }
    s->rcpt_refused++;
    s->sink->counts.refused_recipients++;
}

/* When, and if "postrider load" of this machine sent it, how long that took. */
static void
note_time(struct session *s)
{
    struct counts *c = &s->sink->counts;
    struct str head = text_str(&s->head), field = S("\r\nX-Load-Sent: ");
    uint64_t sent;

    c->last = rt_now(s->sink->rt);
    if (!c->first)
        c->first = c->last;
    struct str value = str_from(head, str_find(head, field));
    if (str_take(&value, field) && str_take_u64(&value, &sent) && sent <= (uint64_t)c->last)
        latency_add(&c->way, c->last - (int64_t)sent);
}

/* The reply to the content, or with LMTP one for each recipient. */
static void
end_content(struct session *s)
{
    struct sink *sink = s->sink;
    size_t replies = sink->set.lmtp ? s->rcpt.count : 1, accepted = 0;
    uint64_t number = ++sink->next_message;
    bool too_big = sink->set.size_max && s->content_bytes > sink->set.size_max;
    char memory[100];
    struct text t = text_init(memory, sizeof memory);

    if (!too_big && keeps(sink) && err_is(keep_message(s, number))) {
        say(s, 452, S("4.3.1 The sink cannot write its file"));
        sink->counts.refused_messages++;
        end_transaction(s);
        return;
    }
    text_putf(&t, "2.0.0 Taken as %llu-%llu", (unsigned long long)s->number, (unsigned long long)number);
    for (size_t i = 0; i < replies && !s->over; i++) {
        if (too_big) {
            say(s, 552, S("5.3.4 Message too big"));
        } else if (pass(s, AT_DOT)) {
            say(s, 250, text_str(&t));
            accepted++;
        }
    }
    if (accepted > 0) {
        sink->counts.messages++;
        sink->counts.recipients += sink->set.lmtp ? accepted : s->rcpt.count;
        sink->counts.bytes += s->content_bytes;
        note_time(s);
        if (sink->set.count && sink->counts.messages >= sink->set.count) {
            sink->stop = true;
            event_wake(sink->rt, &sink->over);
        }
    } else {
        sink->counts.refused_messages++;
    }
    end_transaction(s);
}

static void
run_data(struct session *s)
{
    if (!s->has_mail || s->rcpt.count == 0 || s->in_bdat) {
        say(s, s->has_mail && !s->in_bdat ? 554 : 503, S("5.5.1 No valid recipients, or not now"));
        return;
    }
    if (!pass(s, AT_DATA))
        return;
    say(s, 354, S("Go ahead, end with a dot alone"));
    s->unstuff = (struct lines_unstuff){ 0 };
    for (bool first = true; !s->unstuff.ended; first = false) {
        struct str pieces[PIECES];
        if (s->start == s->end && !fill(s))
            return;
        if (first) {
            pass(s, AT_CONTENT);
            if (s->over)
                return;
        }
        struct str rest = unread(s);
        size_t count = lines_unstuff(&s->unstuff, &rest, pieces, PIECES);
        for (size_t i = 0; i < count; i++)
            keep_bytes(s, pieces[i]);
        s->start = s->end - rest.len;
    }
    end_content(s);
}

/* BDAT: RFC 3030. The bytes of a chunk that is refused are read all the same. */
static void
run_bdat(struct session *s, struct str args)
{
    struct str size_word = str_cut_word(&args);
    struct str last_word = str_cut_word(&args);
    bool last = str_eq_nocase(last_word, S("LAST"));
    bool wanted = s->has_mail && s->rcpt.count > 0;
    uint64_t left;

    if (!str_to_u64(size_word, &left) || (last_word.len > 0 && !last)) {
        say(s, 501, S("5.5.4 BDAT size [LAST]")); /* where the chunk ends is anybody's guess now */
        flush(s);
        s->over = true;
        return;
    }
    if (wanted && !s->in_bdat && !pass(s, AT_DATA)) {
        if (s->over)
            return;
        wanted = false;
    } else if (!wanted) {
        say(s, 503, S("5.5.1 No valid recipients, or not now"));
    }
    s->in_bdat = wanted;
    for (bool first = true; left > 0; first = false) {
        if (s->start == s->end && !fill(s))
            return;
        if (first && wanted) {
            pass(s, AT_CONTENT);
            if (s->over)
                return;
        }
        struct str chunk = str_slice(unread(s), 0, left);
        if (wanted)
            keep_bytes(s, chunk);
        s->start += chunk.len;
        left -= chunk.len;
    }
    if (wanted && last)
        end_content(s);
    else if (wanted)
        say(s, 250, S("2.0.0 Chunk ok"));
}

/* Also the answer to HELP, for whoever waits until all has come. */
static struct str
counts_json(const struct sink *sink, struct arena *arena)
{
    const struct counts *c = &sink->counts;
    size_t cap = 512 + LATENCY_TEXT;
    struct text t = text_init(arena_alloc(arena, cap), cap);

    text_putf(&t,
              "{\"version\":1,\"messages\":%llu,\"recipients\":%llu,\"bytes\":%llu,\"sessions\":%llu,"
              "\"refused_messages\":%llu,\"refused_recipients\":%llu,\"faults\":%llu,"
              "\"first_ns\":%lld,\"last_ns\":%lld,\"way_ms\":",
              (unsigned long long)c->messages, (unsigned long long)c->recipients, (unsigned long long)c->bytes,
              (unsigned long long)c->sessions, (unsigned long long)c->refused_messages,
              (unsigned long long)c->refused_recipients, (unsigned long long)c->faults, (long long)c->first,
              (long long)c->last);
    latency_put_json(&t, &c->way);
    text_put_byte(&t, '}');
    return text_str(&t);
}

static void
run_command(struct session *s, struct str line)
{
    struct str args = line;
    struct str verb = str_cut_word(&args);

    args = str_trim(args);
    if (str_eq_nocase(verb, S("RCPT"))) {
        run_rcpt(s, args);
    } else if (str_eq_nocase(verb, S("MAIL"))) {
        run_mail(s, args);
    } else if (str_eq_nocase(verb, S("DATA"))) {
        run_data(s);
    } else if (str_eq_nocase(verb, S("BDAT"))) {
        run_bdat(s, args);
    } else if (str_eq_nocase(verb, S("EHLO")) || str_eq_nocase(verb, S("HELO")) || str_eq_nocase(verb, S("LHLO"))) {
        run_hello(s, verb, args);
    } else if (str_eq_nocase(verb, S("RSET"))) {
        if (pass(s, AT_RSET)) {
            end_transaction(s);
            say(s, 250, S("2.0.0 Ok"));
        }
    } else if (str_eq_nocase(verb, S("NOOP"))) {
        say(s, 250, S("2.0.0 Ok"));
    } else if (str_eq_nocase(verb, S("QUIT"))) {
        if (pass(s, AT_QUIT)) {
            say(s, 221, S("2.0.0 Bye"));
            flush(s);
        }
        s->over = true;
    } else if (str_eq_nocase(verb, S("VRFY"))) {
        say(s, 252, S("2.5.2 The sink takes everything"));
    } else if (str_eq_nocase(verb, S("HELP"))) {
        say(s, 214, counts_json(s->sink, &s->arena));
    } else {
        say(s, 500, S("5.5.1 What?"));
    }
}

static void
run_session(void *arg)
{
    struct session *s = arg;
    struct sink *sink = s->sink;
    struct str line;

    if (pass(s, AT_GREETING)) {
        say(s, 220, sink->set.greeting);
        while (!s->over && take_line(s, &line))
            run_command(s, line);
    }
    flush(s);
    if (s->own_stream)
        stream_close(s->own_stream);
    mem_free(rt_mem(sink->rt), s->own_content, s->content_cap);
    arena_done(&s->arena);
    mem_free(rt_mem(sink->rt), s, sizeof *s);
}

/* ---- the whole -------------------------------------------------------------------------------------------------- */

static void
accept_sessions(void *arg)
{
    struct door *door = arg;
    struct sink *sink = door->sink;

    while (!sink->stop) {
        struct address peer;
        struct stream *stream;
        struct err e = listener_accept(door->listener, FOREVER, &stream, &peer);
        if (e.kind == ERR_CANCELLED)
            return;
        if (err_is(e)) { /* out of descriptors: some will end */
            if (rt_sleep(sink->rt, within(sink->rt, 10 * MILLISECOND)).kind == ERR_CANCELLED)
                return;
            continue;
        }
        if (sink->set.buffers)
            stream_set_buffers(stream, sink->set.buffers, sink->set.buffers);
        struct session *s = mem_new(rt_mem(sink->rt), struct session);
        s->sink = sink;
        s->own_stream = stream;
        s->number = ++sink->counts.sessions;
        s->out = text_init(s->out_memory, sizeof s->out_memory);
        s->head = text_init(s->head_memory, HEAD_BYTES);
        arena_init(&s->arena, rt_mem(sink->rt), 2048, SIZE_MAX);
        scope_start(&sink->sessions, "sink session", run_session, s);
    }
}

static void
stop_sink(struct sink *sink)
{
    sink->stop = true;
    event_wake(sink->rt, &sink->over);
}

static void
wait_for_signal(void *arg)
{
    struct sink *sink = arg;
    int signal;

    if (!err_is(rt_wait_signal(sink->rt, FOREVER, &signal)))
        stop_sink(sink);
}

static void
wait_for_time(void *arg)
{
    struct sink *sink = arg;

    if (!err_is(rt_sleep(sink->rt, within(sink->rt, sink->set.seconds))))
        stop_sink(sink);
}

/* A line that changes, for whoever watches. */
static void
show_progress(void *arg)
{
    struct sink *sink = arg;
    char memory[200];

    while (!err_is(rt_sleep(sink->rt, within(sink->rt, SECOND)))) {
        struct text t = text_init(memory, sizeof memory);
        text_putf(&t, "\r%llu messages, %llu recipients, %zu sessions now \r",
                  (unsigned long long)sink->counts.messages, (unsigned long long)sink->counts.recipients,
                  sink->sessions.count);
        terminal_write(TERMINAL_ERROR, text_str(&t));
    }
}

static void
print_counts(struct sink *sink)
{
    const struct counts *c = &sink->counts;
    char memory[LATENCY_TEXT];
    struct text way = text_init(memory, sizeof memory);

    if (sink->set.json) {
        cli_print("%.*s\n", STR_ARG(counts_json(sink, &sink->arena)));
        return;
    }
    cli_print("%llu messages, %llu recipients, %llu bytes in %llu sessions; refused: %llu messages, %llu recipients; "
              "%llu faults\n",
              (unsigned long long)c->messages, (unsigned long long)c->recipients, (unsigned long long)c->bytes,
              (unsigned long long)c->sessions, (unsigned long long)c->refused_messages,
              (unsigned long long)c->refused_recipients, (unsigned long long)c->faults);
    if (c->way.count > 0) {
        latency_put_words(&way, &c->way);
        cli_print("on the way from load, in ms:%.*s\n", STR_ARG(text_str(&way)));
    }
}

/* ---- reading what it is told ------------------------------------------------------------------------------------ */

static bool
parse_point(struct str s, enum point *out)
{
    for (unsigned i = 0; i < POINTS; i++) {
        if (str_eq_nocase(s, point_names[i])) {
            *out = (enum point)i;
            return true;
        }
    }
    return str_eq_nocase(s, S("helo")) ? (*out = AT_HELLO, true) : false;
}

/* "20%", "0.5%": of a thousand. */
static bool
parse_share(struct str s, unsigned *out)
{
    uint64_t percent, tenth = 0;

    if (!str_ends(s, S("%")))
        return false;
    s.len--;
    struct str fraction = s;
    struct str whole = str_cut(&fraction, '.');
    if (!str_to_u64(whole, &percent) || percent > 100)
        return false;
    if (!str_is_absent(fraction) && (fraction.len != 1 || !str_to_u64(fraction, &tenth)))
        return false;
    *out = (unsigned)(percent * 10 + tenth);
    return *out > 0 && *out <= 1000;
}

/* "WHERE[=VALUE][/SHARE]" */
static bool
parse_fault(struct str s, enum action action, struct fault *out)
{
    struct fault f = { .action = action, .share = 1000 };
    size_t slash = str_find_last_byte(s, '/');
    uint64_t code;

    if (slash < s.len && parse_share(str_from(s, slash + 1), &f.share))
        s = str_slice(s, 0, slash);
    struct str value = s;
    struct str where = str_cut(&value, '=');
    if (!parse_point(where, &f.at))
        return false;
    switch (action) {
    case REFUSE: {
        f.words = value;
        if (!str_to_u64(str_cut_word(&f.words), &code) || code < 200 || code > 599)
            return false;
        f.code = (unsigned)code;
        f.words = str_slice(str_trim(f.words), 0, 200);
        break;
    }
    case DELAY:
        if (!cli_seconds(value, &f.delay))
            return false;
        break;
    default:
        if (!str_is_absent(value))
            return false;
        break;
    }
    *out = f;
    return true;
}

/* "10%" or "WHERE=10%" */
static bool
parse_defer(struct str s, struct fault *out)
{
    struct str share = s;
    struct str where = str_cut(&share, '=');

    *out = (struct fault){ .at = AT_RCPT, .action = REFUSE, .code = 451 };
    if (str_is_absent(share))
        return parse_share(where, &out->share);
    return parse_point(where, &out->at) && parse_share(share, &out->share);
}

static bool
add_faults(struct sink *sink, const struct words *words, const char *option, enum action action, bool defer,
           int *out_exit)
{
    for (size_t i = 0; i < words->count; i++) {
        struct fault f;
        if (sink->fault_count == FAULTS_MAX ||
            !(defer ? parse_defer(words->word[i], &f) : parse_fault(words->word[i], action, &f))) {
            *out_exit = cli_fail(&verb_sink, EXIT_USAGE, "%s: cannot do \"%.*s\" (try --help)", option,
                                 STR_ARG(words->word[i]));
            return false;
        }
        sink->faults[sink->fault_count++] = f;
    }
    return true;
}

static bool
take_offers(struct sink *sink, int *out_exit)
{
    sink->offers = (1u << EXTENSION_COUNT) - 1;
    for (size_t i = 0; i < sink->set.without.count; i++) {
        for (struct str rest = sink->set.without.word[i]; rest.len > 0;) {
            struct str name = str_cut(&rest, ',');
            bool known = str_eq_nocase(name, S("EHLO"));
            sink->only_helo = sink->only_helo || known;
            for (size_t e = 0; e < EXTENSION_COUNT; e++) {
                if (str_eq_nocase(name, extensions[e])) {
                    sink->offers &= ~(1u << e);
                    known = true;
                }
            }
            if (!known) {
                *out_exit = cli_fail(&verb_sink, EXIT_USAGE, "--without: no such extension: %.*s", STR_ARG(name));
                return false;
            }
        }
    }
    return true;
}

static struct err
open_directory(struct rt *rt, struct str path, struct dir **out)
{
    TRY(host_make_dir(rt, path, 0755, -1, -1, FOREVER));
    return dir_open(rt, path, LANE_POOL, FOREVER, out);
}

static struct err
open_maildir(struct sink *sink)
{
    static const struct str parts[] = { STR("tmp"), STR("new"), STR("cur") };
    struct dir *dir;

    TRY(open_directory(sink->rt, sink->set.maildir, &dir));
    for (size_t i = 0; i < 3; i++)
        dir_make(dir, parts[i], 0755, LANE_POOL, FOREVER); /* it may be there */
    struct err e = dir_open_at(dir, S("tmp"), LANE_POOL, FOREVER, &sink->own_tmp);
    if (!err_is(e))
        e = dir_open_at(dir, S("new"), LANE_POOL, FOREVER, &sink->own_new);
    dir_close(dir);
    return e;
}

static int
open_door(struct sink *sink, struct str at)
{
    struct door *door = &sink->doors[sink->door_count];
    struct address address;
    char memory[150];
    struct text t = text_init(memory, sizeof memory);

    if (!address_parse(at, &address))
        return cli_fail(&verb_sink, EXIT_USAGE, "--listen wants ADDR:PORT or a path, not \"%.*s\"", STR_ARG(at));
    struct err e = listener_open(sink->rt, &address, &door->listener);
    if (err_is(e))
        return cli_fail(&verb_sink, EXIT_UNAVAILABLE, "cannot listen on %.*s: %.*s", STR_ARG(at),
                        STR_ARG(cli_error(e, &sink->arena)));
    door->sink = sink;
    sink->door_count++;
    address = listener_address(door->listener);
    address_put(&t, &address);
    cli_print("listening on %.*s\n", STR_ARG(text_str(&t)));
    return EXIT_WELL;
}

static int
open_doors(struct sink *sink)
{
    struct words at = sink->set.listen;
    int exit = EXIT_WELL;

    if (at.count > LISTEN_MAX)
        return cli_fail(&verb_sink, EXIT_USAGE, "--listen: at most %d times", LISTEN_MAX);
    if (at.count == 0)
        return open_door(sink, S("127.0.0.1:0"));
    for (size_t i = 0; i < at.count && exit == EXIT_WELL; i++)
        exit = open_door(sink, at.word[i]);
    return exit;
}

static void
close_doors(struct sink *sink)
{
    for (size_t i = 0; i < sink->door_count; i++)
        listener_close(sink->doors[i].listener);
}

static int
serve(struct sink *sink)
{
    static const int signals[] = { SIGINT, SIGTERM };
    struct err e = rt_catch_signals(sink->rt, signals, 2);

    if (err_is(e))
        return cli_fail(&verb_sink, EXIT_OS, "cannot catch signals: %.*s", STR_ARG(cli_error(e, &sink->arena)));
    int exit = open_doors(sink);
    if (exit != EXIT_WELL) {
        close_doors(sink);
        return exit;
    }
    scope_init(&sink->sessions, sink->rt);
    scope_init(&sink->helpers, sink->rt);
    for (size_t i = 0; i < sink->door_count; i++)
        scope_start(&sink->helpers, "sink accept", accept_sessions, &sink->doors[i]);
    scope_start(&sink->helpers, "sink signal", wait_for_signal, sink);
    if (sink->set.seconds)
        scope_start(&sink->helpers, "sink time", wait_for_time, sink);
    if (!sink->set.quiet && terminal_is_one(TERMINAL_ERROR))
        scope_start(&sink->helpers, "sink progress", show_progress, sink);
    while (!sink->stop && !err_is(event_wait(sink->rt, &sink->over, FOREVER)))
        ;
    bool counted = sink->set.count && sink->counts.messages >= sink->set.count;
    scope_end(&sink->helpers);
    close_doors(sink);
    if (counted) /* the last client still wants its answer, and may say QUIT */
        scope_wait(&sink->sessions, within(sink->rt, DRAIN_NS));
    scope_end(&sink->sessions);
    print_counts(sink);
    return EXIT_WELL;
}

static int
run(struct rt *rt, int argc, char **argv)
{
    struct sink *sink = mem_new(rt_mem(rt), struct sink);
    struct words operands = { 0 };
    int exit = EXIT_WELL;
    struct err e = OK;

    sink->rt = rt;
    arena_init(&sink->arena, rt_mem(rt), 4096, SIZE_MAX);
    map_init(&sink->greylisted, rt_mem(rt), rt_random(rt));
    event_init(&sink->over);
    sink->set.host = S("sink.invalid");
    if (cli_parse(&verb_sink, argc, argv, &sink->arena, &sink->set, &operands, &exit) &&
        add_faults(sink, &sink->set.delay, "--delay", DELAY, false, &exit) &&
        add_faults(sink, &sink->set.stall, "--stall", STALL, false, &exit) &&
        add_faults(sink, &sink->set.reset, "--reset", RESET, false, &exit) &&
        add_faults(sink, &sink->set.close, "--close", CLOSE, false, &exit) &&
        add_faults(sink, &sink->set.refuse, "--refuse", REFUSE, false, &exit) &&
        add_faults(sink, &sink->set.defer, "--defer", REFUSE, true, &exit) && take_offers(sink, &exit)) {
        sink->set.greeting = arena_printf(&sink->arena, "%.*s %s sink", STR_ARG(sink->set.host),
                                          sink->set.lmtp ? "LMTP" : "ESMTP");
        if (sink->set.keep.len > 0)
            e = open_directory(rt, sink->set.keep, &sink->own_keep);
        if (!err_is(e) && sink->set.maildir.len > 0)
            e = open_maildir(sink);
        if (operands.count > 0)
            exit = cli_fail(&verb_sink, EXIT_USAGE, "takes options only, not \"%.*s\"", STR_ARG(operands.word[0]));
        else if (!client_can_say(sink->set.host))
            exit = cli_fail(&verb_sink, EXIT_USAGE, "--host cannot be said in SMTP");
        else if (err_is(e))
            exit = cli_fail(&verb_sink, EXIT_CANNOT_CREATE, "cannot keep messages: %.*s",
                            STR_ARG(cli_error(e, &sink->arena)));
        else
            exit = serve(sink);
    }
    struct dir *const dirs[] = { sink->own_keep, sink->own_tmp, sink->own_new };
    for (size_t i = 0; i < sizeof dirs / sizeof *dirs; i++)
        if (dirs[i])
            dir_close(dirs[i]);
    map_done(&sink->greylisted);
    arena_done(&sink->arena);
    mem_free(rt_mem(rt), sink, sizeof *sink);
    return exit;
}

const struct verb verb_sink = {
    .name = "sink",
    .summary = "take mail and forget it, or refuse, delay and reset it: for tests",
    .arguments = "",
    .about = "WHERE is greeting, ehlo, mail, rcpt, data, content, dot, rset or quit; SHARE is \"20%\".\n"
             "HELP is answered with the counts so far, as JSON.\n"
             "\n"
             "  postrider sink --listen 127.0.0.1:2526 --keep got\n"
             "  postrider sink --defer 10% --delay dot=2 --reset content/1%\n",
    .options = options,
    .run = run,
};
