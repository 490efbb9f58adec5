/*
 * client - the client's side of the dialog, top to bottom as RFC 5321 tells it.
 *
 * Commands are put into out[] by one generator, struct group: RSET if it is owed, MAIL, every RCPT, DATA. Where the
 * server offers PIPELINING the whole group is written ahead; what the socket does not take at once is written by a
 * fiber of its own while we read replies, so that neither side can fill up waiting for the other (RFC 2920 section
 * 3.1). Without it, the same generator gives one command at a time.
 *
 * Content is read until a buffer is full before it is written, so that a small message and its final dot leave
 * together. t->stage becomes CLIENT_AT_FINAL before the write that holds the end begins: from there on the server may
 * have it.
 */
#include "smtp/client.h"

#include "base/base64.h"
#include "base/check.h"
#include "message/lines.h"

#include <string.h>

enum {
    COMMAND_BYTES = 2 * LIMIT_PATH + 256, /* a path and an ENVID or ORCPT, each as client_can_say() allows */
    OUT_BYTES = 2 * COMMAND_BYTES,        /* commands of a group that are written together */
    RAW_BYTES = 32 << 10,                 /* of content, at a time; what a BDAT chunk is made of */
    ROOM_BYTES = 2 * RAW_BYTES + 2,       /* for lines_repair() */
    PARTS = 64,                           /* of a gathered write */
    CHUNKS_AHEAD = 8,                     /* BDAT chunks without their replies */
};
static_assert((int)PARTS > (int)LINES_PIECES_MIN, "and the end");

struct client {
    struct rt *rt;
    struct wire own_wire;
    struct client_settings settings;
    char helo[LIMIT_HELO];
    char server[LIMIT_DOMAIN]; /* what it calls itself */
    size_t server_len;
    struct client_features features;
    struct client_encryption encryption;
    size_t transactions;
    bool lost;       /* no more can be said */
    bool by_helo;    /* the latest hello was a HELO */
    bool closing;    /* 421 came, or an early answer: no more transactions */
    bool owes_reset; /* the latest transaction failed after MAIL: RFC 5321 section 4.1.1.5 */
    size_t in_from, in_to;
    struct reply_reader reader;
    struct text line; /* the command at hand, in out[] */
    char in[LIMIT_REPLY_LINE_READ];
    char out[OUT_BYTES];
};

struct client_times
client_times_default(void)
{
    return (struct client_times){
        .greeting = LIMIT_GREETING_NS,
        .hello = LIMIT_MAIL_NS,
        .mail = LIMIT_MAIL_NS,
        .rcpt = LIMIT_RCPT_NS,
        .data = LIMIT_DATA_NS,
        .block = LIMIT_BLOCK_NS,
        .final = LIMIT_FINAL_NS,
        .quit = LIMIT_QUIT_NS,
    };
}

struct client *
client_new(struct stream *stream, const struct client_settings *settings)
{
    struct rt *rt = stream_rt(stream);
    struct client *c = mem_new(rt_mem(rt), struct client);
    struct text helo = text_init(c->helo, sizeof c->helo);

    CHECK(client_can_say(settings->helo));
    c->rt = rt;
    c->own_wire = wire_in_clear(stream);
    c->settings = *settings;
    text_put(&helo, settings->helo);
    c->settings.helo = text_str(&helo);
    client_set_times(c, &settings->times);
    return c;
}

void
client_set_times(struct client *c, const struct client_times *times)
{
    c->settings.times = times->greeting == 0 ? client_times_default() : *times;
}

void
client_close(struct client *c)
{
    wire_close(&c->own_wire);
    mem_free(rt_mem(c->rt), c, sizeof *c);
}

const struct client_features *
client_features(const struct client *c)
{
    return &c->features;
}

bool
client_by_helo(const struct client *c)
{
    return c->by_helo;
}

struct str
client_server_name(const struct client *c)
{
    return str_new(c->server, c->server_len);
}

size_t
client_transactions(const struct client *c)
{
    return c->transactions;
}

struct address
client_peer(const struct client *c)
{
    return stream_peer(c->own_wire.stream);
}

bool
client_is_usable(const struct client *c)
{
    return !c->lost && !c->closing && (c->features.mail_max == 0 || c->transactions < c->features.mail_max);
}

bool
client_can_say(struct str s)
{
    return s.len <= LIMIT_PATH && !str_has_control(s);
}

static void
tell(struct client *c, enum client_dialog kind, struct str line)
{
    if (c->settings.dialog)
        c->settings.dialog(c->settings.dialog_arg, kind, line);
}

/* ---- reading replies ------------------------------------------------------------------------------------------ */

static struct err
lose(struct client *c, struct err e)
{
    c->lost = true;
    return e;
}

/* A bare LF ends a line too: nothing can be smuggled into a reply, and old servers do it. */
static struct err
read_line(struct client *c, int64_t until, struct str *out_line)
{
    for (;;) {
        struct str seen = str_new(c->in + c->in_from, c->in_to - c->in_from);
        size_t end = str_find_byte(seen, '\n'), len;

        if (end < seen.len) {
            c->in_from += end + 1;
            *out_line = str_slice(seen, 0, end > 0 && seen.ptr[end - 1] == '\r' ? end - 1 : end);
            return OK;
        }
        for (size_t i = 0; i < seen.len && c->in_from > 0; i++)
            c->in[i] = seen.ptr[i];
        c->in_from = 0;
        c->in_to = seen.len;
        if (c->in_to == sizeof c->in)
            return ERR(ERR_PROTOCOL, "read a reply: line too long");
        TRY(wire_read(&c->own_wire, c->in + c->in_to, sizeof c->in - c->in_to, until, &len));
        if (len == 0)
            return ERR(ERR_CLOSED, "read a reply");
        c->in_to += len;
    }
}

/* One reply, whole. each: what to do with the words of each line (EHLO), or NULL. */
static struct err
read_reply_lines(struct client *c, int64_t timeout, struct arena *arena,
                 void (*each)(struct client *, struct str words), struct remote_reply *out)
{
    int64_t until = within(c->rt, timeout);
    enum reply_progress progress;
    struct str line, words;

    reply_reader_start(&c->reader);
    do {
        struct err e = read_line(c, until, &line);
        if (err_is(e))
            return lose(c, e);
        tell(c, DIALOG_RECEIVED, line);
        progress = reply_reader_take(&c->reader, line, &words);
        if (progress == REPLY_MALFORMED)
            return lose(c, ERR(ERR_PROTOCOL, "read a reply: malformed"));
        if (each)
            each(c, words);
    } while (progress == REPLY_MORE);
    *out = reply_reader_keep(&c->reader, arena);
    if (out->code == 421)
        c->closing = true;
    return OK;
}

static struct err
read_reply(struct client *c, int64_t timeout, struct arena *arena, struct remote_reply *out)
{
    return read_reply_lines(c, timeout, arena, NULL, out);
}

/* Any 2xx is success, any 4xx or 5xx a refusal; a 3xx has no meaning here, so nobody knows where the server is. */
static struct err
expect_answer(struct client *c, struct remote_reply *reply)
{
    if (reply->code / 100 != 3)
        return OK;
    *reply = (struct remote_reply){ 0 };
    return lose(c, ERR(ERR_PROTOCOL, "read a reply: 3xx out of place"));
}

static struct err
read_answer(struct client *c, int64_t timeout, struct arena *arena, struct remote_reply *out)
{
    TRY(read_reply(c, timeout, arena, out));
    return expect_answer(c, out);
}

/* Has the server said something that we did not wait for? Does not suspend. *out_gone: it closed or broke. */
static bool
has_spoken(struct client *c, bool *out_gone)
{
    size_t len = 0;

    *out_gone = false;
    if (c->in_from == c->in_to) {
        c->in_from = c->in_to = 0;
        *out_gone = err_is(wire_read_now(&c->own_wire, c->in, sizeof c->in, &len));
        c->in_to = *out_gone ? 0 : len;
    }
    return c->in_to > c->in_from;
}

bool
client_is_quiet(struct client *c)
{
    bool gone;

    return !has_spoken(c, &gone) && !gone;
}

/*
 * Words that wait before we speak answer nothing of ours: taken for a reply, they would shift all that follow, and MAIL's
 * 250 would be that of a recipient. A refusal says why the server goes (RFC 5321 section 3.8): it is in *out, and the
 * connection is done with. Code 0: nothing was said.
 */
static struct err
hear_unasked(struct client *c, struct arena *arena, struct remote_reply *out)
{
    bool gone;

    *out = (struct remote_reply){ 0 };
    if (!has_spoken(c, &gone)) /* and who is gone is met by the next write or read */
        return OK;
    TRY(read_reply(c, c->settings.times.quit, arena, out));
    c->closing = true;
    if (out->code >= 400)
        return OK;
    *out = (struct remote_reply){ 0 };
    return lose(c, ERR(ERR_PROTOCOL, "a reply to nothing"));
}

/* ---- greeting and hello --------------------------------------------------------------------------------------- */

struct err
client_greeting(struct client *c, struct arena *arena, struct remote_reply *out)
{
    return read_answer(c, c->settings.times.greeting, arena, out);
}

static void
take_size(struct client_features *f, struct str arguments)
{
    f->size_max = 0; /* none, 0, or not a number: no fixed limit; RFC 1870 section 4 */
    (void)str_to_u64(str_cut_word(&arguments), &f->size_max);
}

static void
take_limits(struct client_features *f, struct str arguments)
{
    struct {
        struct str name;
        uint32_t *limit;
    } const known[] = {
        { STR("RCPTMAX"), &f->rcpt_max },
        { STR("MAILMAX"), &f->mail_max },
        { STR("RCPTDOMAINMAX"), &f->rcpt_domain_max },
    };
    struct str word;

    while ((word = str_cut_word(&arguments)).len > 0) {
        struct str name = str_cut(&word, '=');
        uint64_t n;

        for (size_t i = 0; i < sizeof known / sizeof *known; i++) /* 1 to 999999, no leading zero: RFC 9422 section 4 */
            if (str_eq_nocase(name, known[i].name) && word.len >= 1 && word.len <= 6 && word.ptr[0] != '0'
                && str_to_u64(word, &n))
                *known[i].limit = (uint32_t)n;
    }
}

static void
take_auth(struct client_features *f, struct str arguments)
{
    f->mechanisms |= sasl_client_offered(arguments);
}

static const struct {
    struct str keyword;
    enum client_extension extension;
    void (*take)(struct client_features *, struct str arguments);
} extensions[] = {
    { STR("PIPELINING"), CLIENT_PIPELINING, NULL },
    { STR("SIZE"), CLIENT_SIZE, take_size },
    { STR("8BITMIME"), CLIENT_8BITMIME, NULL },
    { STR("CHUNKING"), CLIENT_CHUNKING, NULL },
    { STR("BINARYMIME"), CLIENT_BINARYMIME, NULL },
    { STR("SMTPUTF8"), CLIENT_SMTPUTF8, NULL },
    { STR("DSN"), CLIENT_DSN, NULL },
    { STR("ENHANCEDSTATUSCODES"), CLIENT_ENHANCEDSTATUSCODES, NULL },
    { STR("LIMITS"), CLIENT_LIMITS, take_limits },
    { STR("STARTTLS"), CLIENT_STARTTLS, NULL },
    { STR("REQUIRETLS"), CLIENT_REQUIRETLS, NULL },
    { STR("DELIVERBY"), CLIENT_DELIVERBY, NULL },
    { STR("AUTH"), CLIENT_AUTH, take_auth },
};

static void
take_extension(struct client *c, struct str words)
{
    struct str keyword = str_cut_word(&words);

    if (c->reader.lines == 1) { /* the first line is the server's name */
        struct text name = text_init(c->server, sizeof c->server);
        text_put(&name, str_slice(keyword, 0, sizeof c->server));
        c->server_len = name.len;
        return;
    }
    for (size_t i = 0; i < sizeof extensions / sizeof *extensions; i++)
        if (str_eq_nocase(keyword, extensions[i].keyword) && !(extensions[i].extension & c->settings.refuse)) {
            c->features.extensions |= extensions[i].extension;
            if (extensions[i].take)
                extensions[i].take(&c->features, words);
        }
}

static struct err
say(struct client *c, struct str verb, struct str argument, int64_t timeout)
{
    c->line = text_init(c->out, sizeof c->out - 2);
    text_put(&c->line, verb);
    text_put(&c->line, argument);
    CHECK(!c->line.full);
    tell(c, DIALOG_SENT, text_str(&c->line));
    c->line.cap += 2;
    text_put(&c->line, S("\r\n"));
    struct err e = wire_write(&c->own_wire, text_str(&c->line), within(c->rt, timeout));
    return err_is(e) ? lose(c, e) : OK;
}

/*
 * A write that fails need not be the end of the story: the server may have said why it goes, and closed. Then its words
 * are the answer, if they refuse. RFC 5321 section 3.8.
 */
static struct err
say_and_read(struct client *c, struct str verb, struct str argument, int64_t timeout, struct arena *arena,
             void (*each)(struct client *, struct str words), struct remote_reply *out)
{
    TRY(hear_unasked(c, arena, out));
    if (out->code != 0)
        return OK;
    struct err written = say(c, verb, argument, timeout);
    if (written.kind == ERR_CANCELLED)
        return written;
    TRY(read_reply_lines(c, err_is(written) ? c->settings.times.quit : timeout, arena, each, out));
    if (!err_is(written) || out->code >= 400)
        return expect_answer(c, out);
    *out = (struct remote_reply){ 0 }; /* of a command that it cannot have got whole */
    return written;
}

struct err
client_hello(struct client *c, struct arena *arena, struct remote_reply *out)
{
    int64_t timeout = c->settings.times.hello;
    struct str name = c->settings.helo;

    *out = (struct remote_reply){ 0 };
    c->features = (struct client_features){ 0 };
    c->server_len = 0;
    c->by_helo = false;
    if (c->settings.lmtp)
        TRY(say_and_read(c, S("LHLO "), name, timeout, arena, take_extension, out));
    else if (!c->settings.helo_only)
        TRY(say_and_read(c, S("EHLO "), name, timeout, arena, take_extension, out));
    if (!remote_reply_is_positive(out)) {
        c->features = (struct client_features){ 0 };
        c->server_len = 0;
    }
    /* Servers before RFC 1869 refuse EHLO: section 4.5 there. LMTP has no HELO. */
    c->by_helo = c->settings.helo_only || (!c->settings.lmtp && remote_reply_is_permanent(out) && !c->lost && !c->closing);
    if (c->by_helo)
        TRY(say_and_read(c, S("HELO "), name, timeout, arena, NULL, out));
    return OK;
}

/* ---- STARTTLS: RFC 3207 ------------------------------------------------------------------------------------------ */

struct err
client_start_tls(struct client *c, const struct client_tls *tls, struct arena *arena, struct remote_reply *out,
                 struct text *reason)
{
    CHECK(client_has(&c->features, CLIENT_STARTTLS));
    TRY(say_and_read(c, S("STARTTLS"), S(""), c->settings.times.hello, arena, NULL, out));
    if (!remote_reply_is_positive(out))
        return OK;
    /* What lies behind the 220 somebody put there who wants it to be believed later: CVE-2011-0411's other side. */
    if (c->in_from < c->in_to)
        return lose(c, ERR(ERR_PROTOCOL, "start TLS: words in clear behind the reply"));
    c->features = (struct client_features){ 0 }; /* section 4.2: all that was said is forgotten */
    return client_begin_tls(c, tls, reason);
}

struct err
client_begin_tls(struct client *c, const struct client_tls *tls, struct text *reason)
{
    struct err e =
        tls->start(tls->arg, &c->own_wire, within(c->rt, c->settings.times.hello), &c->encryption, reason);

    if (err_is(e))
        return lose(c, e);
    CHECK(!wire_is_in_clear(&c->own_wire));
    tell(c, DIALOG_NOTE, S("(encrypted from here on)"));
    return OK;
}

bool
client_is_encrypted(const struct client *c)
{
    return !wire_is_in_clear(&c->own_wire);
}

struct client_encryption
client_encryption(const struct client *c)
{
    return c->encryption;
}

/* ---- AUTH: RFC 4954 ---------------------------------------------------------------------------------------------- */

struct login { /* secrets: erased when it is over */
    struct sasl_client sasl;
    char message[SASL_CLIENT_MAX];          /* of ours, or the server's, decoded */
    char line[2 * SASL_CLIENT_MAX];
};
enum { AUTH_LINE = 12288 }; /* RFC 4954 section 4: with CRLF */
static_assert(sizeof "AUTH SCRAM-SHA-256 \r\n" + 4 * ((SASL_SECRET_MAX + 2 * LIMIT_USER_NAME + 64) / 3 + 1) < AUTH_LINE,
              "the longest secret can be said");

/* A line of an exchange: nobody is told what it holds. */
static struct err
say_secret(struct client *c, struct login *l, struct str words, bool has_message, struct str message)
{
    struct text line = text_init(l->line, sizeof l->line);

    text_put(&line, words);
    if (has_message && words.len > 0)
        text_put_byte(&line, ' ');
    tell(c, DIALOG_SENT, has_message ? S("(what an exchange of AUTH says)") : words);
    if (has_message && message.len == 0 && words.len > 0)
        text_put_byte(&line, '='); /* empty, not absent */
    if (has_message)
        base64_put(&line, message);
    text_put(&line, S("\r\n"));
    CHECK(!line.full && line.len <= AUTH_LINE);
    struct err e = wire_write(&c->own_wire, text_str(&line), within(c->rt, c->settings.times.mail));
    explicit_bzero(l->line, line.len);
    return err_is(e) ? lose(c, e) : OK;
}

/* The answer to a challenge. *out_going: there is one; else `reason` says why we will not go on. */
static struct err
answer_challenge(struct client *c, struct login *l, const struct remote_reply *reply, struct text *out_answer, bool *out_going,
                 struct text *reason)
{
    char decoded_memory[SCRAM_MESSAGE_MAX];
    struct text decoded = text_init(decoded_memory, sizeof decoded_memory);
    struct str why = S("the server's challenge is not base64"), challenge = reply->text;

    str_take(&challenge, S("334 ")); /* a reply's text has its code */
    bool readable = base64_decode_strictly(str_trim(challenge), &decoded);
    /* What LOGIN and XOAUTH2 say there is for people: some servers write it as they like. */
    bool matters = l->sasl.mechanism == SASL_CLIENT_SCRAM_SHA_256;
    *out_going = (readable || !matters) && sasl_client_take(&l->sasl, readable ? text_str(&decoded) : S(""), &why);
    if (!*out_going) {
        text_put(reason, why);
        return OK;
    }
    if (l->sasl.needs_keys)
        TRY(rt_offload(c->rt, sasl_client_make_keys, &l->sasl, within(c->rt, c->settings.times.mail)));
    sasl_client_answer(&l->sasl, out_answer);
    return OK;
}

static struct err
login_dialog(struct client *c, struct login *l, struct arena *arena, struct remote_reply *out, struct text *reason)
{
    char words_memory[32];
    struct text words = text_init(words_memory, sizeof words_memory), message = text_init(l->message, sizeof l->message);
    bool going;

    text_putf(&words, "AUTH %.*s", STR_ARG(sasl_client_name(l->sasl.mechanism)));
    bool initial = sasl_client_initial(&l->sasl, &message);
    TRY(say_secret(c, l, text_str(&words), initial, text_str(&message)));
    for (;;) {
        TRY(read_reply(c, c->settings.times.mail, arena, out));
        if (out->code / 100 != 3)
            break;
        message.len = 0;
        TRY(answer_challenge(c, l, out, &message, &going, reason));
        if (!going) {
            TRY(say_secret(c, l, S("*"), false, S(""))); /* RFC 4954 section 4: 501 comes, whatever it says */
            TRY(read_reply(c, c->settings.times.quit, arena, out));
            *out = (struct remote_reply){ 0 };
            return OK;
        }
        TRY(say_secret(c, l, S(""), true, text_str(&message)));
    }
    if (remote_reply_is_positive(out) && !sasl_client_may_succeed(&l->sasl)) {
        *out = (struct remote_reply){ 0 };
        text_put(reason, S("the server has not shown that it knows the password"));
    }
    return OK;
}

struct err
client_login(struct client *c, const struct sasl_login *login, struct arena *arena, struct remote_reply *out,
             struct str *out_mechanism, struct text *reason)
{
    static const char digits[] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_";
    enum sasl_client_mechanism mechanism;
    char nonce[SCRAM_NONCE];

    CHECK(client_is_encrypted(c));
    *out = (struct remote_reply){ 0 };
    *out_mechanism = (struct str){ NULL, 0 };
    if (!sasl_client_choose(c->features.mechanisms, login, &mechanism)) {
        text_put(reason, client_has(&c->features, CLIENT_AUTH) ? S("the host offers no way to log in that we know")
                                                               : S("the host does not offer AUTH"));
        return OK;
    }
    *out_mechanism = sasl_client_name(mechanism);
    TRY(hear_unasked(c, arena, out));
    if (out->code != 0)
        return OK;
    for (size_t i = 0; i < sizeof nonce; i++)
        nonce[i] = digits[rt_random(c->rt) % (sizeof digits - 1)];
    struct login *l = mem_new(rt_mem(c->rt), struct login);
    sasl_client_begin(&l->sasl, mechanism, login, str_new(nonce, sizeof nonce));
    struct err e = login_dialog(c, l, arena, out, reason);
    sasl_client_done(&l->sasl);
    explicit_bzero(l, sizeof *l);
    mem_free(rt_mem(c->rt), l, sizeof *l);
    return e;
}

/* ---- asking ------------------------------------------------------------------------------------------------------ */

struct err
client_probe(struct client *c, struct str forward_path, struct arena *arena, bool *out_asked, struct remote_reply *out)
{
    char memory[COMMAND_BYTES];
    struct text argument = text_init(memory, sizeof memory);

    bool utf8 = !str_is_ascii(forward_path);

    CHECK(client_can_say(forward_path));
    *out_asked = false;
    *out = (struct remote_reply){ 0 };
    if (utf8 && !client_has(&c->features, CLIENT_SMTPUTF8)) /* RFC 6531 section 3.4: nothing of that may be said then */
        return OK;
    c->transactions++;
    c->owes_reset = true;
    TRY(say_and_read(c, S("MAIL FROM:"), utf8 ? S("<> SMTPUTF8") : S("<>"), c->settings.times.mail, arena, NULL, out));
    if (!remote_reply_is_positive(out))
        return OK;
    text_put_byte(&argument, '<');
    text_put(&argument, forward_path);
    text_put_byte(&argument, '>');
    struct err e = say_and_read(c, S("RCPT TO:"), text_str(&argument), c->settings.times.rcpt, arena, NULL, out);
    *out_asked = client_is_usable(c); /* or it says why it goes, and nothing of that mailbox */
    return e;
}

/* ---- the envelope --------------------------------------------------------------------------------------------- */

enum { STEP_RESET, STEP_MAIL, STEP_RCPT };

struct group {
    struct client *client;
    const struct client_transaction *t;
    size_t next;         /* STEP_RESET, STEP_MAIL, STEP_RCPT + index; then DATA */
    size_t last;         /* one past the end */
    size_t sent;         /* of client->line */
    bool dsn;
    bool written;        /* all of it */
    struct err err;
};

static void
put_mail(struct text *line, const struct client *c, const struct client_transaction *t)
{
    const struct client_features *f = &c->features;

    text_put(line, S("MAIL FROM:<"));
    text_put(line, t->reverse_path);
    text_put_byte(line, '>');
    if (client_has(f, CLIENT_SIZE)) {
        text_put(line, S(" SIZE="));
        text_put_u64(line, t->size);
    }
    if (t->body == BODY_BINARYMIME && client_has(f, CLIENT_BINARYMIME))
        text_put(line, S(" BODY=BINARYMIME"));
    else if (t->body != BODY_7BIT && client_has(f, CLIENT_8BITMIME))
        text_put(line, S(" BODY=8BITMIME"));
    if (t->smtputf8)
        text_put(line, S(" SMTPUTF8"));
    if (t->require_tls)
        text_put(line, S(" REQUIRETLS"));
    if (t->deliver_within > 0)
        text_putf(line, " BY=%lld;%s%s", (long long)t->deliver_within, t->deliver_or_return ? "R" : "N",
                  t->deliver_trace ? "T" : "");
    if (!client_has(f, CLIENT_DSN))
        return;
    if (t->ret != RET_NONE)
        text_put(line, t->ret == RET_FULL ? S(" RET=FULL") : S(" RET=HDRS"));
    if (!str_is_absent(t->envid)) {
        text_put(line, S(" ENVID="));
        text_put(line, t->envid);
    }
}

static void
put_notify(struct text *line, uint8_t notify)
{
    static const struct {
        uint8_t bit;
        struct str word;
    } words[] = {
        { NOTIFY_NEVER, STR("NEVER") },
        { NOTIFY_SUCCESS, STR("SUCCESS") },
        { NOTIFY_FAILURE, STR("FAILURE") },
        { NOTIFY_DELAY, STR("DELAY") },
    };
    char before = '=';

    text_put(line, S(" NOTIFY"));
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (notify & words[i].bit) {
            text_put_byte(line, before);
            text_put(line, words[i].word);
            before = ',';
        }
}

static void
put_rcpt(struct text *line, const struct client *c, const struct recipient *r)
{
    text_put(line, S("RCPT TO:<"));
    text_put(line, r->address);
    text_put_byte(line, '>');
    if (!client_has(&c->features, CLIENT_DSN))
        return;
    if (r->notify)
        put_notify(line, r->notify);
    if (!str_is_absent(r->orcpt)) {
        text_put(line, S(" ORCPT="));
        text_put(line, r->orcpt);
    }
}

static bool
uses_bdat(const struct client *c)
{
    return client_has(&c->features, CLIENT_CHUNKING);
}

static bool
says_data(const struct client *c, const struct client_transaction *t)
{
    return !t->probe && !uses_bdat(c);
}

static struct group
group_new(struct client *c, const struct client_transaction *t)
{
    c->line = text_init(c->out, sizeof c->out);
    return (struct group){
        .client = c,
        .t = t,
        .next = c->owes_reset ? STEP_RESET : STEP_MAIL,
        .last = STEP_RCPT + t->rcpt_count + says_data(c, t),
    };
}

/* Puts the group's next command into the client's line, behind what stands there; there is room for it. */
static void
group_put_next(struct group *g)
{
    struct client *c = g->client;
    size_t start = c->line.len;

    if (g->next == STEP_RESET)
        text_put(&c->line, S("RSET"));
    else if (g->next == STEP_MAIL)
        put_mail(&c->line, c, g->t);
    else if (g->next < STEP_RCPT + g->t->rcpt_count)
        put_rcpt(&c->line, c, g->t->rcpt[g->next - STEP_RCPT]);
    else
        text_put(&c->line, S("DATA"));
    g->next++;
    tell(c, DIALOG_SENT, str_from(text_str(&c->line), start));
    text_put(&c->line, S("\r\n"));
    CHECK(!c->line.full);
}

static void
group_fill(struct group *g)
{
    struct client *c = g->client;

    c->line = text_init(c->out, sizeof c->out);
    g->sent = 0;
    while (g->next < g->last && c->line.cap - c->line.len >= COMMAND_BYTES)
        group_put_next(g);
}

/* What the socket takes at once: for most messages, all. */
static void
group_write_now(struct group *g)
{
    do {
        size_t len = 0;

        if (g->sent == g->client->line.len)
            group_fill(g);
        g->err = wire_write_now(&g->client->own_wire, str_from(text_str(&g->client->line), g->sent), &len);
        g->sent += len;
        if (err_is(g->err) || g->sent < g->client->line.len)
            return;
    } while (g->next < g->last);
    g->written = !wire_has_unsent(&g->client->own_wire);
}

/* The rest, from a fiber. No deadline of its own: it waits for the server to read, and the reader beside it has one. */
static void
group_write_rest(void *arg)
{
    struct group *g = arg;

    while (!g->written) {
        g->err = wire_write(&g->client->own_wire, str_from(text_str(&g->client->line), g->sent), FOREVER);
        if (err_is(g->err))
            return;
        group_fill(g);
        g->written = g->client->line.len == 0;
    }
}

static bool
is_accepted(const struct remote_reply *r)
{
    return remote_reply_is_positive(r);
}

/* Reads the replies to RSET (if it was said), MAIL, every RCPT and DATA, in this order. */
static struct err
read_group_replies(struct client *c, struct client_transaction *t, bool reset, struct arena *arena)
{
    const struct client_times *times = &c->settings.times;
    struct remote_reply ignored;

    if (reset) {
        TRY(read_answer(c, times->mail, arena, &ignored));
        c->owes_reset = false;
        if (c->closing) {
            t->mail = ignored;
            return OK;
        }
    }
    TRY(read_answer(c, times->mail, arena, &t->mail));
    c->owes_reset = is_accepted(&t->mail);
    t->stage = CLIENT_AT_RCPT;
    for (size_t i = 0; i < t->rcpt_count && !c->closing; i++) {
        TRY(read_answer(c, times->rcpt, arena, &t->rcpt_reply[i]));
        t->accepted += is_accepted(&t->rcpt_reply[i]);
    }
    if (c->closing || !says_data(c, t))
        return OK;
    t->stage = CLIENT_AT_DATA;
    return read_reply(c, times->data, arena, &t->data);
}

static struct err
envelope_pipelined(struct client *c, struct client_transaction *t, struct arena *arena)
{
    struct group g = group_new(c, t);
    bool reset = g.next == STEP_RESET;
    struct scope writers;

    scope_init(&writers, c->rt);
    group_write_now(&g);
    if (!g.written && !err_is(g.err))
        scope_start(&writers, "smtp client writer", group_write_rest, &g);
    struct err e = read_group_replies(c, t, reset, arena);
    if (!err_is(e) && !c->closing) /* a writer that has written all may not have run since */
        e = scope_wait(&writers, within(c->rt, c->settings.times.block));
    scope_end(&writers);
    if (!err_is(e) && !c->closing && !g.written)
        e = ERR(ERR_PROTOCOL, "replies to commands that were not sent");
    return err_is(e) ? lose(c, e) : OK;
}

/* One at a time. A reply of 421 ends it, and so does a refused MAIL; DATA only with somebody to get it. */
static struct err
envelope_in_turn(struct client *c, struct client_transaction *t, struct arena *arena)
{
    const struct client_times *times = &c->settings.times;
    struct group g = group_new(c, t);

    for (; g.next < g.last && !c->closing; ) {
        size_t step = g.next;
        struct remote_reply reset, *reply = &t->data;
        int64_t timeout = times->data;

        if (step == STEP_RESET || step == STEP_MAIL) {
            reply = step == STEP_MAIL ? &t->mail : &reset;
            timeout = times->mail;
        } else if (step < STEP_RCPT + t->rcpt_count) {
            reply = &t->rcpt_reply[step - STEP_RCPT];
            timeout = times->rcpt;
            t->stage = CLIENT_AT_RCPT;
        } else if (t->accepted == 0) {
            return OK;
        } else {
            t->stage = CLIENT_AT_DATA;
        }
        c->line = text_init(c->out, sizeof c->out);
        group_put_next(&g);
        struct err written = wire_write(&c->own_wire, text_str(&c->line), within(c->rt, timeout));
        if (written.kind == ERR_CANCELLED)
            return lose(c, written);
        TRY(read_reply(c, err_is(written) ? times->quit : timeout, arena, reply)); /* it may have said why it goes */
        if (reply != &t->data)
            TRY(expect_answer(c, reply));
        if (err_is(written)) {
            (void)lose(c, written);
            if (reply->code < 400)
                *reply = (struct remote_reply){ 0 }; /* of a command that it cannot have got whole */
            if (!c->closing && (reply != &t->mail || reply->code == 0))
                return written;
        }
        if (reply == &reset) {
            c->owes_reset = false;
            if (c->closing)
                t->mail = reset;
        } else if (reply == &t->mail) {
            c->owes_reset = is_accepted(reply);
            if (!is_accepted(reply))
                return OK;
        } else if (reply != &t->data) {
            t->accepted += is_accepted(reply);
        }
    }
    return OK;
}

/* ---- content -------------------------------------------------------------------------------------------------- */

struct err
client_read_str(void *arg, void *memory, size_t cap, int64_t until, size_t *out_len)
{
    struct str *rest = arg, piece = str_slice(*rest, 0, cap);

    (void)until;
    if (piece.len)
        memcpy(memory, piece.ptr, piece.len);
    *rest = str_from(*rest, piece.len);
    *out_len = piece.len;
    return OK;
}

/*
 * Content on its way, one buffer at a time. Every line leaves with CRLF, and with DATA its leading dot is doubled (RFC
 * 5321 section 4.5.2). A CR or LF that stands alone becomes CRLF, with BDAT too: sent raw, it could end the message
 * early for a server that takes it for a line end, there or further on (CVE-2023-51764 and its kin).
 */
struct outgoing {
    struct client *client;
    struct client_transaction *t;
    bool ended;          /* the source has no more */
    uint64_t total;
    size_t len;          /* of raw */
    char raw[RAW_BYTES];
};

/* Fills raw[] to its end, or to the source's. */
static struct err
outgoing_fill(struct outgoing *w)
{
    const struct client_content *source = &w->t->content;
    int64_t until = within(w->client->rt, w->client->settings.times.block);

    for (w->len = 0; w->len < sizeof w->raw && !w->ended;) {
        size_t len = 0;
        struct err e = source->read(source->arg, w->raw + w->len, sizeof w->raw - w->len, until, &len);

        if (err_is(e)) { /* the connection must break: nothing else makes the server discard what it has */
            w->t->source_failed = true;
            return lose(w->client, e);
        }
        w->ended = len == 0;
        w->len += len;
    }
    w->total += w->len;
    return OK;
}

static void
tell_total(struct client *c, uint64_t bytes)
{
    char memory[64];
    struct text note = text_init(memory, sizeof memory);

    text_putf(&note, "(%llu bytes of content)", (unsigned long long)bytes);
    tell(c, DIALOG_NOTE, text_str(&note));
}

/*
 * The server spoke before we sent the end, or our write failed and it may have said why. A refusal is its answer to the
 * message; the connection is done with then, as the server does not know where the content ends. `why` otherwise.
 */
static struct err
read_early_answer(struct client *c, struct client_transaction *t, struct arena *arena, struct err why)
{
    struct remote_reply reply;

    if (why.kind == ERR_CANCELLED)
        return lose(c, why);
    struct err e = read_reply(c, c->settings.times.quit, arena, &reply);
    c->closing = true;
    if (err_is(e) || reply.code < 400)
        return lose(c, err_is(why) ? why : err_is(e) ? e : ERR(ERR_PROTOCOL, "a reply before the end of the message"));
    t->final = reply;
    return OK;
}

/* Replies to the whole message: one, or with LMTP one for each accepted recipient, in order (RFC 2033 section 4.2). */
static struct err
read_final(struct client *c, struct client_transaction *t, struct arena *arena)
{
    int64_t timeout = c->settings.times.final;

    if (!c->settings.lmtp)
        TRY(read_answer(c, timeout, arena, &t->final));
    else
        for (size_t i = 0; i < t->rcpt_count && !c->closing; i++)
            if (is_accepted(&t->rcpt_reply[i])) {
                TRY(read_answer(c, timeout, arena, &t->final_reply[i]));
                if (c->closing)
                    t->final = t->final_reply[i];
            }
    t->stage = CLIENT_AT_END;
    c->owes_reset = false;
    return OK;
}

static struct err
send_data(struct client *c, struct client_transaction *t, struct outgoing *w, struct arena *arena)
{
    struct lines_stuff stuff = { 0 };
    struct str parts[PARTS];
    bool ended = false, gone;

    while (!ended) {
        TRY(outgoing_fill(w));
        for (struct str rest = str_new(w->raw, w->len); rest.len > 0 || (w->ended && !ended);) {
            size_t count = lines_stuff(&stuff, &rest, parts, PARTS - 1);

            if (rest.len == 0 && w->ended) {
                parts[count++] = lines_stuff_end(&stuff);
                ended = true;
            }
            if (count == 0)
                continue;
            if (has_spoken(c, &gone))
                return read_early_answer(c, t, arena, OK);
            if (ended) {
                t->stage = CLIENT_AT_FINAL;
                tell_total(c, w->total);
                tell(c, DIALOG_SENT, S("."));
            }
            struct err e = wire_write_parts(&c->own_wire, parts, count, within(c->rt, c->settings.times.block));
            if (err_is(e))
                return read_early_answer(c, t, arena, e);
        }
    }
    return read_final(c, t, arena);
}

/* Replies to chunks that are not the last: until at most `ahead` are owed. The first refusal goes into t->final. */
static struct err
read_chunk_replies(struct client *c, struct client_transaction *t, struct arena *arena, size_t *owed, size_t ahead)
{
    bool gone;

    while (*owed > ahead || (*owed > 0 && has_spoken(c, &gone))) {
        struct arena_mark before = arena_mark(arena);
        struct remote_reply reply;

        TRY(read_answer(c, c->settings.times.block, arena, &reply));
        --*owed;
        if (!is_accepted(&reply) && t->final.code == 0)
            t->final = reply;
        else
            arena_rewind(arena, before); /* there are as many as the message is long */
        if (c->closing)
            return OK;
    }
    return OK;
}

/*
 * BDAT, RFC 3030 section 2. A chunk that is refused ends the transaction: no more are sent, the replies to those that
 * are on their way are read and dropped, and RSET is owed.
 */
static struct err
send_chunks(struct client *c, struct client_transaction *t, struct outgoing *w, char *room, struct arena *arena)
{
    bool binary = t->body == BODY_BINARYMIME && client_has(&c->features, CLIENT_BINARYMIME);
    size_t ahead = client_has(&c->features, CLIENT_PIPELINING) ? CHUNKS_AHEAD : 0;
    struct lines_repair repair = { 0 };
    size_t owed = 0;
    bool gone;

    while (!w->ended && t->final.code == 0) {
        TRY(outgoing_fill(w));
        TRY(read_chunk_replies(c, t, arena, &owed, ahead));
        if (t->final.code != 0)
            break;
        if (owed == 0 && has_spoken(c, &gone)) /* to nothing of ours: it would be taken for the reply to the next chunk */
            return read_early_answer(c, t, arena, OK);
        struct str parts[3] = { S(""), str_new(w->raw, w->len), S("") };
        if (!binary) {
            parts[1] = lines_repair(&repair, parts[1], room);
            parts[2] = w->ended ? lines_repair_end(&repair) : S("");
        }
        c->line = text_init(c->out, sizeof c->out);
        text_putf(&c->line, "BDAT %zu%s", parts[1].len + parts[2].len, w->ended ? " LAST" : "");
        tell(c, DIALOG_SENT, text_str(&c->line));
        text_put(&c->line, S("\r\n"));
        parts[0] = text_str(&c->line);
        if (w->ended)
            t->stage = CLIENT_AT_FINAL;
        struct err e = wire_write_parts(&c->own_wire, parts, 3, within(c->rt, c->settings.times.block));
        if (err_is(e))
            return read_early_answer(c, t, arena, e);
        owed += !w->ended;
    }
    tell_total(c, w->total);
    TRY(read_chunk_replies(c, t, arena, &owed, 0));
    if (t->final.code == 0)
        return read_final(c, t, arena);
    if (c->closing || t->stage != CLIENT_AT_FINAL)
        return OK;
    /* A chunk was refused, so LAST was too, whatever we are told now: the server dropped part of the message. */
    struct remote_reply ignored;
    t->stage = CLIENT_AT_CONTENT;
    if (!c->settings.lmtp)
        return read_answer(c, c->settings.times.final, arena, &ignored);
    c->closing = true; /* one reply or several? RFC 2033 does not say */
    return OK;
}

/* Nobody accepted, yet 354: we owe an empty message, never the real one. RFC 2920 section 3.1. */
static struct err
send_nothing(struct client *c, struct client_transaction *t, struct arena *arena)
{
    struct remote_reply ignored;

    TRY(say(c, S("."), S(""), c->settings.times.block));
    t->stage = CLIENT_AT_END;
    if (c->settings.lmtp) { /* no recipient, no reply: RFC 2033 section 4.2. Who gives 354 here may think otherwise */
        c->closing = true;
        return OK;
    }
    c->owes_reset = false;
    return read_answer(c, c->settings.times.final, arena, &ignored);
}

struct err
client_send(struct client *c, struct client_transaction *t, struct arena *arena)
{
    CHECK(client_is_usable(c));
    CHECK(t->rcpt_count > 0);
    CHECK(!t->smtputf8 || client_has(&c->features, CLIENT_SMTPUTF8));
    CHECK(!t->require_tls || (client_has(&c->features, CLIENT_REQUIRETLS) && client_is_encrypted(c)));
    CHECK(t->deliver_within == 0 || client_has(&c->features, CLIENT_DELIVERBY));
    CHECK(t->final_reply || !c->settings.lmtp);
    t->mail = t->data = t->final = (struct remote_reply){ 0 };
    for (size_t i = 0; i < t->rcpt_count; i++) {
        t->rcpt_reply[i] = (struct remote_reply){ 0 };
        if (t->final_reply)
            t->final_reply[i] = (struct remote_reply){ 0 };
    }
    t->accepted = 0;
    t->stage = CLIENT_AT_MAIL;
    t->source_failed = false;
    t->dsn_passed_on = client_has(&c->features, CLIENT_DSN);
    c->transactions++;

    TRY(hear_unasked(c, arena, &t->mail));
    if (t->mail.code != 0)
        return OK;
    if (client_has(&c->features, CLIENT_PIPELINING))
        TRY(envelope_pipelined(c, t, arena));
    else
        TRY(envelope_in_turn(c, t, arena));
    if (c->closing)
        return OK;
    if (t->data.code / 100 == 2 || (t->data.code / 100 == 3 && t->data.code != 354))
        return lose(c, ERR(ERR_PROTOCOL, "neither 354 nor a refusal after DATA"));
    if (t->probe)
        return OK;
    if (t->accepted == 0 || !is_accepted(&t->mail))
        return t->data.code == 354 ? send_nothing(c, t, arena) : OK;
    if (!uses_bdat(c) && t->data.code != 354)
        return OK;

    t->stage = CLIENT_AT_CONTENT;
    struct mem *mem = rt_mem(c->rt);
    struct outgoing *w = mem_buffer(mem, sizeof *w); /* raw[] is filled before it is read */
    struct err e;
    w->client = c;
    w->t = t;
    w->ended = false;
    w->total = 0;
    w->len = 0;
    if (uses_bdat(c)) {
        char *room = mem_buffer(mem, ROOM_BYTES);
        e = send_chunks(c, t, w, room, arena);
        mem_free(mem, room, ROOM_BYTES);
    } else {
        e = send_data(c, t, w, arena);
    }
    mem_free(mem, w, sizeof *w);
    return e;
}

void
client_quit(struct client *c)
{
    struct arena scratch;
    struct remote_reply ignored;

    if (!c->lost && !c->closing) {
        arena_init(&scratch, rt_mem(c->rt), 2 * LIMIT_REPLY_TEXT, 4 * LIMIT_REPLY_TEXT);
        if (!err_is(say(c, S("QUIT"), S(""), c->settings.times.quit)))
            (void)read_reply(c, c->settings.times.quit, &scratch, &ignored);
        arena_done(&scratch);
    }
    client_close(c);
}
