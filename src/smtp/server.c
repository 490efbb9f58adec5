/*
 * server - see server.h.
 *
 * From top to bottom: the commands as a table; the dialog; each command in the order of RFC 5321 section 4.1.1; the
 * content; and last the plumbing that reads, writes and counts. A handler returns its reply and writes nothing
 * itself. Replies are gathered, and go out before anybody waits for input, and behind a command that took its time.
 *
 * Memory: `session` lives as long as the connection, `transaction` from MAIL to the reply that ends it, `scratch` for
 * one command. While the client is silent, buffers and scratch are given back.
 */
#include "smtp/server.h"

#include "base/base64.h"
#include "base/check.h"
#include "message/addresses.h"
#include "message/compose.h"
#include "message/date.h"
#include "message/domain.h"
#include "message/header.h"
#include "message/received.h"
#include "smtp/content.h"
#include "smtp/input.h"
#include "smtp/recipients.h"
#include "smtp/xclient.h"

#include <inttypes.h>
#include <string.h>

enum {
    SESSION_ARENA_MAX = 32 << 10,      /* id, and of each client: reverse name, user, why it is refused */
    XCLIENTS_MAX = 10,                 /* in one session: what one line cannot say */
    SCRATCH_ARENA_MAX = 64 << 20,      /* the members of the largest list; hooks take it, no client */
    TRANSACTION_ARENA_MAX = 4 * LIMIT_RCPT_EXPANDED * (int)(sizeof(struct recipient) + LIMIT_COMMAND_LINE),
    HEADER_ARENA_MAX = 32 << 20,       /* to complete one of LIMIT_HEADER_BYTES */
    HEADER_UNASKED = 64 << 10,         /* kept to be completed, whatever others hold; twice that is only asked for within the budget */
    OUTPUT_FIRST = 2048,               /* replies gathered in one write; more only for one that is longer */
    LINGER_BYTES = 256 << 10,
};
#define LINGER_NS (2 * SECOND)
#define GATHER_NS SECOND /* a command that took longer: the replies before it have waited enough */

/* Where the dialog is. */
enum phase {
    START = 1,           /* no HELO yet */
    GREETED = 2,
    MAIL_GIVEN = 4,
    RCPT_GIVEN = 8,      /* at least one was accepted */
    CHUNKS = 16,         /* BDAT has begun */
    CHUNK_REFUSED = 32,  /* and failed: RFC 3030 section 2 wants RSET, and what is in flight dropped */
    ANY = 63,
};

struct transaction {
    struct arena arena;
    struct mail_request mail;
    struct recipients recipients;
    struct message_id id;
    struct str trace;
    int64_t began;
    uint32_t rcpt_commands, accepted, refused, rejected, chunks; /* refused: 4xx and 5xx; rejected: 5xx */
    uint32_t looked_up;          /* whom all RCPTs stand for, also those that came twice */
    bool has_draft;              /* begun, and neither committed nor aborted */
    void *draft;
    const struct reply *failed;  /* the content could not be stored: said when the client has sent it */
    struct content content;
    bool completing;             /* the header is not whole yet: it is kept here, to be completed */
    struct header_end header_end;
    char *own_header;
    size_t header_len, header_cap;
    uint64_t header_gone, header_came; /* bytes of the client's, and what became of them */
    int64_t waited;              /* for content, in this window of the rate */
    int64_t between;             /* waited for commands among chunks: judged when the next chunk is there */
    uint64_t window_bytes;
};

struct session {
    struct rt *rt;
    struct wire *wire;
    const struct listener_settings *settings;
    const struct server_hooks *hooks;
    struct server_client *client;
    struct arena arena, scratch;
    struct scope scope;          /* the fiber that looks up the reverse name */
    struct input in;
    char *own_out;               /* replies that are not written yet; NULL: none */
    size_t out_len, out_cap;

    enum phase phase;
    struct transaction transaction;
    bool admitted;
    const struct reply *refuses_all; /* the greeting was 554 or 521 */
    bool over;                   /* no further command is read */
    bool broken;                 /* nothing can be said any more */
    uint32_t idle_commands, auth_failures, xclients;
    bool helo_told;              /* by XCLIENT: what EHLO says is the proxy's name */
    bool unknown;                /* by XCLIENT: it has no address; the one we have is the proxy's */
    bool mail_refused;           /* the last MAIL; what follows it may have been sent along */
    bool auth_tried;             /* what follows may be of that */
    uint32_t in_flight;          /* refused since the last MAIL that was taken, and not held against the client */
    int64_t began;
    struct server_report report;
    char helo[LIMIT_HELO];
    struct str command;          /* this one, for the log */
    char command_memory[80], refused_memory[80], refusal_memory[160], tls_failure_memory[160];
};

/* ---- the protocol ------------------------------------------------------------------------------------------------ */

enum command_flags {
    ENDS_GROUP = 1, /* nothing may be pipelined behind it: RFC 2920 section 3.1, and what standards 4.3 keeps of that */
    CARRIES = 2,    /* part of sending a message: not an idle command */
};

struct command {
    struct str verb;
    unsigned phases; /* where RFC 5321 section 4.1.4 lets it come */
    unsigned flags;
    const struct reply *(*run)(struct session *, struct str args, int64_t until);
    const char *help;
};

static const struct reply *run_ehlo(struct session *, struct str args, int64_t until);
static const struct reply *run_helo(struct session *, struct str args, int64_t until);
static const struct reply *run_starttls(struct session *, struct str args, int64_t until);
static const struct reply *run_xclient(struct session *, struct str args, int64_t until);
static const struct reply *run_auth(struct session *, struct str args, int64_t until);
static const struct reply *run_mail(struct session *, struct str args, int64_t until);
static const struct reply *run_rcpt(struct session *, struct str args, int64_t until);
static const struct reply *run_data(struct session *, struct str args, int64_t until);
static const struct reply *run_bdat(struct session *, struct str args, int64_t until);
static const struct reply *run_rset(struct session *, struct str args, int64_t until);
static const struct reply *run_noop(struct session *, struct str args, int64_t until);
static const struct reply *run_vrfy(struct session *, struct str args, int64_t until);
static const struct reply *run_expn(struct session *, struct str args, int64_t until);
static const struct reply *run_help(struct session *, struct str args, int64_t until);
static const struct reply *run_etrn(struct session *, struct str args, int64_t until);
static const struct reply *run_quit(struct session *, struct str args, int64_t until);
static const struct reply *run_off(struct session *, struct str args, int64_t until);

static const struct command commands[] = {
    { STR("EHLO"), ANY, ENDS_GROUP, run_ehlo, "EHLO your.host.name: begins; the answer lists the extensions" },
    { STR("HELO"), ANY, ENDS_GROUP, run_helo, "HELO your.host.name: begins, without extensions" },
    { STR("STARTTLS"), ANY, ENDS_GROUP, run_starttls, "STARTTLS: encrypts from here on; begin again with EHLO" },
    { STR("XCLIENT"), START | GREETED, ENDS_GROUP, run_xclient, "XCLIENT ADDR=192.0.2.1 NAME=host.name: says whom you speak for" },
    { STR("AUTH"), ANY, 0, run_auth, "AUTH mechanism [base64]: logs in" },
    { STR("MAIL"), GREETED, CARRIES, run_mail,
      "MAIL FROM:<you@example.org>: begins a message; <> for a notice\n"
      "Parameters: SIZE=bytes BODY=7BIT|8BITMIME SMTPUTF8 RET=FULL|HDRS ENVID=id" },
    { STR("RCPT"), MAIL_GIVEN | RCPT_GIVEN, CARRIES, run_rcpt,
      "RCPT TO:<someone@example.org>: names a recipient; as often as you like\n"
      "Parameters: NOTIFY=NEVER|SUCCESS,FAILURE,DELAY ORCPT=rfc822;address" },
    { STR("DATA"), RCPT_GIVEN, ENDS_GROUP | CARRIES, run_data,
      "DATA: the message follows after the 354, and ends with a line that holds a single dot" },
    { STR("BDAT"), ANY, CARRIES, run_bdat,
      "BDAT bytes [LAST]: that many bytes of the message follow at once, without dots or a 354" },
    { STR("RSET"), ANY, 0, run_rset, "RSET: forgets the message begun" },
    { STR("NOOP"), ANY, 0, run_noop, "NOOP: does nothing" },
    { STR("VRFY"), ANY, 0, run_vrfy, "VRFY someone@example.org: asks whether an address exists" },
    { STR("EXPN"), ANY, 0, run_expn, "EXPN list@example.org: asks who is on a list" },
    { STR("ETRN"), GREETED, 0, run_etrn, "ETRN example.org: asks to try the mail that waits for that domain" },
    { STR("HELP"), ANY, 0, run_help, "HELP [command]: this" },
    { STR("QUIT"), ANY, 0, run_quit, "QUIT: ends the session" },
    /* Known, and not offered: RFC 5321 section 4.2.4 asks for 502, not 500. */
    { STR("TURN"), ANY, 0, run_off, NULL },
    { STR("SEND"), ANY, 0, run_off, NULL },
    { STR("SOML"), ANY, 0, run_off, NULL },
    { STR("SAML"), ANY, 0, run_off, NULL },
};

/* A browser or a bot that was told to speak HTTP at us: the rest would be somebody's request, read as commands. */
static const struct str foreign_verbs[] = {
    STR("GET"), STR("POST"), STR("PUT"), STR("HEAD"), STR("CONNECT"), STR("OPTIONS"), STR("DELETE"), STR("TRACE"),
    STR("PATCH"), STR("PRI"),
};

/* Whether a command that not every listener has would work here: what EHLO and HELP list, and nothing else. */
static bool
is_offered(const struct session *s, const struct command *c, int64_t until)
{
    const struct listener_settings *set = s->settings;
    bool local = set->trusted || address_is_loopback(&s->client->address) || s->client->address.family == ADDRESS_UNIX;

    if (c->run == run_vrfy)
        return s->hooks->vrfy && (set->vrfy == OFFER_ON || (set->vrfy == OFFER_LOCAL && local));
    if (c->run == run_expn)
        return s->hooks->expn && (set->expn == OFFER_ON || (set->expn == OFFER_LOCAL && local));
    if (c->run == run_etrn)
        return s->hooks->etrn != NULL;
    if (c->run == run_starttls)
        return wire_is_in_clear(s->wire) && s->hooks->tls_ready && s->hooks->tls_ready(s->hooks->ctx, until);
    if (c->run == run_xclient)
        return s->settings->xclient && s->hooks->told;
    if (c->run == run_auth)
        return s->settings->login && s->hooks->mechanisms && !wire_is_in_clear(s->wire);
    return c->run != run_off;
}

static const struct command *
command_find(struct str verb)
{
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        if (str_eq_nocase(verb, commands[i].verb))
            return &commands[i];
    return NULL;
}

/* A known command in the wrong place: say which one is expected. */
static const struct reply *
wrong_order(const struct session *s, const struct command *c)
{
    switch (s->phase) {
    case START:
        return &reply_hello_first;
    case GREETED:
        return &reply_mail_first;
    case MAIL_GIVEN:
        if (c->run == run_data || c->run == run_bdat)
            return s->transaction.refused > 0 ? &reply_no_valid_recipients : &reply_rcpt_first;
        break;
    case CHUNKS:
        return &reply_chunks_begun;
    case CHUNK_REFUSED:
        return &reply_chunk_refused_before;
    case RCPT_GIVEN:
    case ANY:
        break;
    }
    return c->run == run_mail ? &reply_mail_again : &reply_in_transaction;
}

/* ---- the dialog -------------------------------------------------------------------------------------------------- */

static void welcome(struct session *);
static bool read_command(struct session *, struct str *out_line);
static const struct reply *answer(struct session *, struct str line);
static const struct reply *receive_content(struct session *);
static void start_tls(struct session *);
static void say(struct session *, const struct reply *);
static void flush(struct session *);
static void linger(struct session *);
static void end(struct session *, struct str why);
static const struct reply *lost(struct session *, struct err, const struct reply *on_timeout);
static void remember_command(struct session *, struct str line);
static struct str what_to_log(const struct session *, struct str line);
static const struct reply *count_wrong(struct session *, const struct reply *);
static void log_refusal(struct session *, const struct reply *);
static void transaction_end(struct session *);
static void session_begin(struct session *, struct wire *, const struct listener_settings *,
                          const struct server_hooks *, struct server_client *);
static void session_end(struct session *);

void
server_run(struct wire *wire, const struct listener_settings *settings, const struct server_hooks *hooks,
           struct server_client *client)
{
    struct session s;
    struct str line;

    session_begin(&s, wire, settings, hooks, client);
    welcome(&s);
    while (read_command(&s, &line)) {
        int64_t came = rt_now(s.rt);
        const struct reply *reply = answer(&s, line);
        say(&s, reply);
        if (rt_now(s.rt) - came > GATHER_NS)
            flush(&s);
        if (reply == &reply_start_content && !s.over)
            say(&s, receive_content(&s));
        if (reply == &reply_start_tls && !s.over)
            start_tls(&s);
    }
    flush(&s);
    linger(&s);
    if (s.admitted && hooks->leave)
        hooks->leave(hooks->ctx, client);
    session_end(&s);
}

static void
look_up_reverse_name(void *arg)
{
    struct session *s = arg;
    struct arena arena; /* scratch is the dialog's, which goes on */
    struct str name = { 0 };

    arena_init(&arena, rt_mem(s->rt), 512, SCRATCH_ARENA_MAX);
    struct err e = s->hooks->reverse_name(s->hooks->ctx, &s->client->address, &arena,
                                          within(s->rt, s->settings->reverse_wait), &name);
    if (!err_is(e) && name.len <= LIMIT_DOMAIN)
        s->client->reverse_name = name.len > 0 ? arena_keep(&s->arena, name) : S("");
    arena_done(&arena);
}

/* Who speaks before the greeting does not listen: a spam engine, or another protocol. */
static bool
is_early_talker(struct session *s)
{
    bool any = false;
    struct err e = OK;

    if (s->settings->greeting_delay > 0)
        e = wire_wait_readable(s->wire, within(s->rt, s->settings->greeting_delay));
    if (err_is(e) && e.kind != ERR_TIMEOUT)
        say(s, lost(s, e, &reply_timeout));
    if (s->over || !s->settings->refuse_early_talk)
        return false;
    return !err_is(input_fill_now(&s->in, &any)) && any;
}

/* NULL: welcome. */
static const struct reply *
admit(struct session *s)
{
    const struct server_hooks *h = s->hooks;
    const struct reply *refusal = NULL;

    if (h->admit)
        refusal = h->admit(h->ctx, s->client, &s->scratch, within(s->rt, s->settings->answer_wait));
    if (refusal && refusal->code != 421) /* 554 or 521: the client may stay to say QUIT, and hears it again */
        s->refuses_all = reply_make(&s->arena, refusal->code, "", "%.*s",
                                    STR_ARG(str_slice(refusal->text, 0, LIMIT_REPLY_LINE)));
    s->admitted = !refusal;
    return refusal;
}

static const struct reply *
greeting(struct session *s)
{
    return reply_join(&s->scratch, 220, "", s->settings->hostname, S(" ESMTP Postrider"));
}

/* The greeting: RFC 5321 section 3.1. */
static void
welcome(struct session *s)
{
    const struct server_hooks *h = s->hooks;
    const struct listener_settings *set = s->settings;
    const struct reply *refusal = admit(s);

    if (refusal && set->tls_at_once) { /* a handshake only to say so would be dear */
        end(s, S("refused"));
        s->broken = true;
        return;
    }
    if (refusal) {
        say(s, refusal);
        return;
    }
    if (set->tls_at_once)
        start_tls(s);
    if (s->over)
        return;
    if (is_early_talker(s)) {
        say(s, &reply_talked_early);
        end(s, S("spoke before the greeting"));
    } else if (!s->over) {
        say(s, greeting(s));
        if (h->reverse_name)
            scope_start(&s->scope, "reverse name", look_up_reverse_name, s);
    }
}

/* A line is a verb, a space, and what it is about. */
static const struct reply *
parse_command(struct str line, struct str *out_verb, struct str *out_args)
{
    struct str rest = str_trim_end(line), verb = str_slice(rest, 0, 0);

    if (str_find_byte(line, '\0') < line.len)
        return &reply_nul;
    for (size_t i = 0; i < line.len; i++)
        if (byte_is_control(line.ptr[i]) && line.ptr[i] != '\t')
            return &reply_control_character;
    while (verb.len < rest.len && !byte_is_space(rest.ptr[verb.len]))
        verb.len++;
    *out_verb = verb;
    *out_args = str_trim(str_from(rest, verb.len));
    return verb.len > 0 ? NULL : &reply_empty_command;
}

/* A verb that is not ours. */
static const struct reply *
unknown(struct session *s, struct str verb)
{
    for (size_t i = 0; i < sizeof foreign_verbs / sizeof *foreign_verbs; i++)
        if (str_eq(verb, foreign_verbs[i])) {
            end(s, S("spoke HTTP"));
            s->broken = true; /* not a word: an answer could be taken for one of theirs */
        }
    return &reply_unknown_command;
}

/* One command to one reply, whatever it costs the client's account. */
static const struct reply *
run_command(struct session *s, const struct command *c, struct str args)
{
    int64_t until = within(s->rt, s->settings->answer_wait);

    if (!(c->phases & s->phase))
        return wrong_order(s, c);
    const struct reply *reply = c->run(s, args, until);
    CHECK(reply != NULL);
    /* What came along with this line was sent by somebody who could not know the answer: the way in for smuggled
     * commands. */
    if ((c->flags & ENDS_GROUP) && reply_is_positive(reply) && input_here(&s->in).len > 0) {
        end(s, S("pipelined where that is not allowed"));
        return &reply_talked_ahead;
    }
    return reply;
}

/* A BDAT that says no size: the chunk behind it, somebody's message, would be read as commands. */
static const struct reply *
chunk_unknown(struct session *s)
{
    end(s, S("BDAT without a size"));
    return &reply_bdat_syntax;
}

static bool
is_wrong(const struct reply *r)
{
    return (r->code >= 500 && r->code <= 504) || r->code == 555;
}

static const struct reply *
count_wrong(struct session *s, const struct reply *reply)
{
    return ++s->report.wrong > s->settings->wrong_commands_max ? &reply_too_many_wrong : reply;
}

/*
 * A client that pipelines could not know that the MAIL or the chunk before was refused; and refused recipients have a
 * limit of their own.
 */
static bool
is_excused(struct session *s, const struct command *c, enum phase phase)
{
    bool in_flight = s->mail_refused || (c->run == run_rcpt && (phase & (MAIL_GIVEN | RCPT_GIVEN))) ||
                     (c->run == run_bdat && phase == CHUNK_REFUSED);

    return in_flight && (c->flags & CARRIES) && c->run != run_mail && ++s->in_flight <= LIMIT_BDAT_CHUNKS;
}

/* Everything that a client may do without end has a limit: wrong commands here, others in their handlers. */
static const struct reply *
answer(struct session *s, struct str line)
{
    struct str verb, args;
    enum phase phase = s->phase;

    s->report.commands++;
    remember_command(s, what_to_log(s, line));
    const struct reply *reply = parse_command(line, &verb, &args);
    if (reply && str_starts_nocase(line, S("BDAT")))
        return chunk_unknown(s);
    if (reply)
        return count_wrong(s, reply);
    const struct command *c = command_find(verb);
    if (s->refuses_all && (!c || c->run != run_quit))
        return count_wrong(s, s->refuses_all->code == 521 ? s->refuses_all : &reply_not_a_mail_host);
    if (!c)
        return count_wrong(s, unknown(s, verb));
    reply = run_command(s, c, args);

    if (is_wrong(reply) && !is_excused(s, c, phase))
        return count_wrong(s, reply);
    if (c->run == run_mail || !(c->flags & CARRIES))
        s->mail_refused = c->run == run_mail && !reply_is_positive(reply);
    if (!(c->flags & CARRIES) || s->mail_refused || reply == &reply_no_valid_recipients)
        s->idle_commands += c->run != run_quit;
    return s->idle_commands > s->settings->idle_commands_max ? &reply_too_many_idle : reply;
}

/* RFC 4865 section 3: for submission alone. */
static int64_t
hold_max(const struct session *s)
{
    return s->settings->login ? s->settings->hold_max : 0;
}

/* ---- EHLO, HELO: section 4.1.1.1 --------------------------------------------------------------------------------- */

static void
keep_helo(struct session *s, struct str name)
{
    struct text kept = text_init(s->helo, sizeof s->helo);

    for (size_t i = 0; i < name.len; i++)
        text_put_byte(&kept, (unsigned char)name.ptr[i] < 0x7F ? name.ptr[i] : '?');
    s->client->helo = text_str(&kept);
}

/* Any printable token will do: whoever checks names refuses mail that people want (standards 3.1). */
static const struct reply *
take_hello(struct session *s, struct str args, bool extended)
{
    struct str name = str_cut_word(&args);

    if (name.len == 0)
        return &reply_helo_needs_name;
    if (name.len > sizeof s->helo)
        return &reply_helo_name_too_long;
    transaction_end(s);
    if (!s->helo_told)
        keep_helo(s, name);
    s->client->extended = extended;
    s->phase = GREETED;
    return NULL;
}

static const struct reply *
run_helo(struct session *s, struct str args, int64_t until)
{
    const struct reply *refusal = take_hello(s, args, false);

    (void)until;
    return refusal ? refusal : reply_join(&s->scratch, 250, "", s->settings->hostname, S(""));
}

static const struct reply *
run_ehlo(struct session *s, struct str args, int64_t until)
{
    const struct listener_settings *set = s->settings;
    char memory[1024];
    struct text t = text_init(memory, sizeof memory);
    const struct reply *refusal = take_hello(s, args, true);

    if (refusal)
        return refusal;
    struct str mechanisms = is_offered(s, command_find(S("AUTH")), until)
                                ? s->hooks->mechanisms(s->hooks->ctx, s->client, &s->scratch)
                                : S("");
    text_put(&t, set->hostname);
    text_put(&t, S(" greets you\nPIPELINING\nSIZE"));
    if (set->size_max > 0) {
        text_put_byte(&t, ' ');
        text_put_u64(&t, set->size_max);
    }
    text_put(&t, S("\n8BITMIME\nENHANCEDSTATUSCODES\nCHUNKING\nSMTPUTF8\nDSN\nDELIVERBY"));
    if (!wire_is_in_clear(s->wire))
        text_put(&t, S("\nREQUIRETLS"));
    text_put(&t, S("\nLIMITS RCPTMAX="));
    text_put_u64(&t, set->rcpt_max);
    if (hold_max(s) > 0) {
        text_putf(&t, "\nFUTURERELEASE %" PRId64 " ", hold_max(s) / SECOND);
        date_put_rfc3339(&t, rt_wall(s->rt) + hold_max(s));
    }
    if (mechanisms.len > 0)
        text_putf(&t, "\nAUTH %.*s", STR_ARG(mechanisms));
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        const struct command *c = &commands[i];
        bool extra = c->run == run_starttls || c->run == run_xclient || c->run == run_vrfy || c->run == run_expn || c->run == run_etrn || c->run == run_help;
        if (extra && is_offered(s, c, until)) {
            text_put_byte(&t, '\n');
            text_put(&t, c->verb);
            if (c->run == run_xclient)
                text_putf(&t, " %.*s", STR_ARG(xclient_attributes));
        }
    }
    CHECK(!t.full);
    return reply_join(&s->scratch, 250, "", text_str(&t), S(""));
}

/* ---- STARTTLS: RFC 3207 ------------------------------------------------------------------------------------------ */

static const struct reply *
run_starttls(struct session *s, struct str args, int64_t until)
{
    if (!s->hooks->tls_ready)
        return &reply_known_but_off;
    if (!wire_is_in_clear(s->wire))
        return &reply_tls_already;
    if (s->phase != GREETED)
        return wrong_order(s, command_find(S("STARTTLS")));
    if (args.len > 0)
        return &reply_no_argument_wanted;
    return is_offered(s, command_find(S("STARTTLS")), until) ? &reply_start_tls : &reply_tls_not_now;
}

/* All that a client said is forgotten, but for the connection. */
static void
begin_anew(struct session *s)
{
    transaction_end(s);
    s->phase = START;
    s->client->helo = (struct str){ 0 };
    s->client->extended = false;
    s->client->user = (struct str){ 0 };
    s->helo_told = false;
    s->mail_refused = false;
    s->in_flight = 0;
}

/*
 * Section 4.2: what was said before is forgotten, for anybody may have said it. Nothing that came in clear is left to be
 * read, either: run_command() ends the session of whoever sent more, and what has not been read is no handshake.
 */
static void
start_tls(struct session *s)
{
    const struct server_hooks *h = s->hooks;
    struct text reason = text_init(s->tls_failure_memory, sizeof s->tls_failure_memory);
    struct server_tls tls;

    flush(s);
    if (s->broken)
        return;
    CHECK(input_here(&s->in).len == 0);
    struct err e = h->start_tls(h->ctx, s->wire, within(s->rt, s->settings->tls_wait), &tls, &reason);
    if (err_is(e)) { /* and never goes on in clear */
        if (reason.len == 0)
            err_text(e, &reason);
        s->report.tls_failure = text_str(&reason);
        end(s, S("TLS handshake failed"));
        s->broken = true;
        return;
    }
    CHECK(!wire_is_in_clear(s->wire));
    begin_anew(s);
    s->client->tls = tls;
}

/* ---- XCLIENT: Postfix's XCLIENT_README --------------------------------------------------------------------------- */

/* What a proxy told goes over what we know: it is asked about a client that it has, not about itself. */
static void
take_told(struct session *s, const struct xclient *x)
{
    struct server_client *c = s->client;
    uint16_t port = c->address.port, local_port = c->local.port;

    if (x->addr == XCLIENT_SAID) {
        c->address = x->addr_value;
        c->address.port = 0;
        port = 0;
    }
    c->address.port = x->port == XCLIENT_SAID ? x->port_value : port;
    if (x->dest_addr == XCLIENT_SAID)
        c->local = x->dest_addr_value;
    c->local.port = x->dest_port == XCLIENT_SAID ? x->dest_port_value : local_port;
    if (x->name != XCLIENT_KEPT || x->addr != XCLIENT_KEPT) /* a name belongs to its address */
        c->reverse_name = (struct str){ 0 };
    if (x->name == XCLIENT_SAID)
        c->reverse_name = arena_keep(&s->arena, x->name_value);
    if (x->name == XCLIENT_UNAVAILABLE)
        c->reverse_name = S("");
    if (x->login == XCLIENT_SAID)
        c->user = arena_keep(&s->arena, x->login_value);
    s->helo_told = x->helo == XCLIENT_SAID;
    if (s->helo_told)
        keep_helo(s, x->helo_value);
}

/*
 * XCLIENT attribute=value ...: what follows is another client's session, which begins with the greeting, or with what a
 * client is told that is not let in. Permission is that of the connection, whoever it speaks for.
 */
static const struct reply *
run_xclient(struct session *s, struct str args, int64_t until)
{
    const struct server_hooks *h = s->hooks;
    struct xclient x;

    if (!is_offered(s, command_find(S("XCLIENT")), until))
        return &reply_xclient_denied;
    if (!xclient_parse(args, &s->scratch, &x))
        return &reply_xclient_syntax;
    if (x.login == XCLIENT_SAID && !s->settings->login)
        return &reply_xclient_login;
    if (++s->xclients > XCLIENTS_MAX)
        return &reply_too_many_idle;
    scope_end(&s->scope); /* the name that is looked up is somebody else's */
    scope_init(&s->scope, s->rt);
    if (s->admitted && h->leave)
        h->leave(h->ctx, s->client);
    begin_anew(s);
    s->client->tls.client_name = (struct str){ 0 }; /* the certificate is the proxy's */
    s->auth_failures = 0;
    take_told(s, &x);
    if (x.addr != XCLIENT_KEPT)
        s->unknown = x.addr != XCLIENT_SAID;
    h->told(h->ctx, s->client, !s->unknown);
    const struct reply *refusal = admit(s);
    if (refusal)
        return refusal;
    if (h->reverse_name && str_is_absent(s->client->reverse_name) && x.name == XCLIENT_KEPT)
        scope_start(&s->scope, "reverse name", look_up_reverse_name, s);
    return greeting(s);
}

/* ---- AUTH: RFC 4954 ---------------------------------------------------------------------------------------------- */

static const struct reply *read_response(struct session *, struct str *out_line);
static void say_challenge(struct session *, struct str bytes);

/* RFC 4422 section 3.1: letters, digits, "-" and "_", at most 20. */
static bool
is_mechanism(struct str name)
{
    for (size_t i = 0; i < name.len; i++)
        if (!byte_is_alnum(name.ptr[i]) && name.ptr[i] != '-' && name.ptr[i] != '_')
            return false;
    return name.len > 0 && name.len <= 20;
}

static void
auth_forget(struct session *s, struct str response)
{
    if (response.len > 0)
        explicit_bzero((char *)response.ptr, response.len);
    input_wipe(&s->in);
}

/* What a client sent within an exchange. Decoded, it lies in scratch, where auth_forget() finds it. */
static const struct reply *
decode_response(struct session *s, struct str line, struct str *out)
{
    struct text bytes = text_init(arena_alloc(&s->scratch, line.len + 1), line.len + 1);

    if (!base64_decode_strictly(line, &bytes)) {
        auth_forget(s, text_str(&bytes));
        return &reply_auth_base64;
    }
    *out = text_str(&bytes);
    return NULL;
}

/* Or believes that he may. */
static bool
may_log_in(const struct session *s)
{
    return s->settings->login || s->auth_tried;
}

/* Lines that were answered may have been passwords, also refused ones, and such as came when the login was over. */
static void
forget_lines(struct session *s)
{
    if (may_log_in(s))
        input_wipe(&s->in);
}

/* The client's next word, which may be "*": section 4. */
static const struct reply *
ask_response(struct session *s, struct str challenge, struct str *out)
{
    struct str line;

    say_challenge(s, challenge);
    const struct reply *refusal = read_response(s, &line);
    if (!refusal && str_eq(line, S("*")))
        refusal = &reply_auth_cancelled;
    return refusal ? refusal : decode_response(s, line, out);
}

/* The exchange, from the first answer on. NULL: *answer says what came of it. */
static const struct reply *
auth_dialog(struct session *s, struct auth_answer *answer)
{
    const struct server_hooks *h = s->hooks;
    struct str response;

    while (answer->status == SASL_CHALLENGE) {
        const struct reply *refusal = ask_response(s, answer->bytes, &response);
        int64_t until = within(s->rt, s->settings->answer_wait);
        if (refusal) {
            h->auth_step(h->ctx, s->client, (struct str){ 0 }, &s->scratch, until, answer);
            return refusal;
        }
        h->auth_step(h->ctx, s->client, response, &s->scratch, until, answer);
        auth_forget(s, response);
    }
    return NULL;
}

static const struct reply *
auth_reply(struct session *s, const struct auth_answer *answer)
{
    switch ((enum sasl_status)answer->status) {
    case SASL_OK:
        CHECK(answer->user.len > 0);
        s->client->user = arena_keep(&s->arena, str_slice(answer->user, 0, LIMIT_USER_NAME));
        return &reply_auth_done;
    case SASL_REFUSED:
        return &reply_auth_refused;
    case SASL_UNKNOWN_MECHANISM:
        return &reply_auth_mechanism;
    case SASL_WEAK:
        return &reply_auth_weak;
    case SASL_MALFORMED:
        return &reply_auth_malformed;
    case SASL_LATER:
        return &reply_auth_later;
    case SASL_THROTTLED:
        return &reply_auth_throttled;
    case SASL_CHALLENGE:
        break;
    }
    UNREACHABLE();
}

/* NULL: an exchange may begin. */
static const struct reply *
auth_refusal(struct session *s)
{
    if (!s->settings->login || !s->hooks->mechanisms)
        return &reply_known_but_off;
    if (!str_is_absent(s->client->user))
        return &reply_auth_already;
    if (s->phase != GREETED)
        return wrong_order(s, command_find(S("AUTH")));
    if (!s->client->extended)
        return &reply_auth_needs_ehlo;
    return wire_is_in_clear(s->wire) ? &reply_auth_in_clear : NULL;
}

/*
 * AUTH mechanism [initial-response]. What a client has sent ahead is taken in order, as behind NOOP (standards 4.3): it is
 * under TLS, so nobody else can have put it there.
 */
static const struct reply *
run_auth(struct session *s, struct str args, int64_t until)
{
    const struct server_hooks *h = s->hooks;
    struct str mechanism = str_cut_word(&args), given = str_cut_word(&args), initial = { 0 };
    struct auth_answer answer = { .status = SASL_LATER };

    s->auth_tried = true;
    const struct reply *reply = auth_refusal(s);
    if (!reply && (!is_mechanism(mechanism) || str_trim(args).len > 0))
        reply = &reply_auth_syntax;
    if (!reply && str_eq(given, S("=")))
        initial = S("");
    else if (!reply && given.len > 0)
        reply = decode_response(s, given, &initial);
    if (!reply && s->auth_failures >= s->settings->auth_failures_max)
        reply = &reply_auth_failures;
    if (reply) {
        auth_forget(s, initial);
        return reply;
    }
    h->auth_start(h->ctx, s->client, mechanism, initial, &s->scratch, until, &answer);
    auth_forget(s, initial);
    reply = auth_dialog(s, &answer);
    if (!reply)
        reply = auth_reply(s, &answer);
    s->auth_failures += !reply_is_positive(reply) && reply != &reply_auth_later;
    if (!reply_is_positive(reply))
        log_refusal(s, reply);
    return reply;
}

/* RFC 4954 section 6, RFC 6409 section 4.3: on a submission port, whoever has not said who he is. NULL: he has. */
static const struct reply *
login_first(const struct session *s)
{
    if (!s->settings->login || !str_is_absent(s->client->user))
        return NULL;
    return wire_is_in_clear(s->wire) ? &reply_tls_needed : &reply_auth_needed;
}

/* ---- MAIL: section 4.1.1.2 --------------------------------------------------------------------------------------- */

/*
 * What an address means that says no domain: the user's own, or this host. RFC 6409 section 8.1 lets us say it. In A-labels:
 * what we add makes no mail internationalized that came without SMTPUTF8.
 */
static struct str
home_domain(struct session *s)
{
    struct str user = s->client->user;
    size_t at = str_find_last_byte(user, '@');
    struct str domain = at < user.len ? domain_to_ascii(str_from(user, at + 1), &s->scratch) : S("");

    return domain.len > 0 ? domain : s->settings->hostname;
}

static bool
is_over_budget(const struct session *s)
{
    return s->hooks->over_budget && s->hooks->over_budget(s->hooks->ctx);
}

static const struct reply *
run_mail(struct session *s, struct str args, int64_t until)
{
    const struct server_hooks *h = s->hooks;
    struct transaction *t = &s->transaction;
    struct mail_request mail;

    CHECK(s->phase == GREETED);
    struct mail_offers offers = { .size_max = s->settings->size_max, .require_tls = !wire_is_in_clear(s->wire),
                                  .auth = s->settings->login,
                                  .wall = rt_wall(s->rt), .hold_max = hold_max(s) };
    if (s->settings->complete)
        offers.domain = home_domain(s);
    const struct reply *refusal = login_first(s);
    if (!refusal)
        refusal = is_over_budget(s) ? &reply_no_memory_now
                                    : mail_request_parse(args, s->client->extended, &offers, &s->scratch, &mail);
    if (!refusal && h->mail)
        refusal = h->mail(h->ctx, s->client, &mail, &s->scratch, until);
    CHECK(!refusal || refusal->code >= 400);
    if (refusal) {
        log_refusal(s, refusal);
        return refusal;
    }
    CHECK(s->transaction.accepted == 0 && !s->transaction.has_draft);
    s->in_flight = 0;
    t->mail = mail_request_keep(&mail, &t->arena);
    t->id = (struct message_id){ rt_random(s->rt), rt_random(s->rt) };
    t->began = rt_now(s->rt);
    recipients_init(&t->recipients, &t->arena, rt_random(s->rt));
    s->client->busy = true;
    s->phase = MAIL_GIVEN;
    return &reply_sender_ok;
}

/* ---- RCPT: section 4.1.1.3 --------------------------------------------------------------------------------------- */

enum { MANY = 256 }; /* recipients behind one RCPT: then others have a turn */

static const struct reply *
take_recipient(struct session *s, struct str args, int64_t until)
{
    struct transaction *t = &s->transaction;
    struct rcpt_request request;
    struct rcpt_verdict verdict = { 0 };

    struct str domain = s->settings->complete ? home_domain(s) : (struct str){ 0 };
    const struct reply *refusal = rcpt_request_parse(args, s->client->extended, &t->mail, domain, &s->scratch, &request);
    if (refusal)
        return refusal;
    if (t->accepted >= s->settings->rcpt_max)
        return &reply_too_many_recipients;
    if (is_over_budget(s))
        return &reply_no_memory_now;
    /* A list stands for thousands, each time anew: who names it again and again would have the time of all others. */
    if (t->looked_up > 2 * LIMIT_RCPT_EXPANDED)
        return &reply_too_many_recipients;
    s->hooks->rcpt(s->hooks->ctx, s->client, &request, &s->scratch, until, &verdict);
    t->looked_up += (uint32_t)verdict.count;
    if (verdict.count > MANY)
        fiber_yield(s->rt);
    if (verdict.reply && !reply_is_positive(verdict.reply))
        return verdict.reply;
    CHECK(!verdict.reply || verdict.reply->code / 10 == 25);
    CHECK(verdict.count > 0);
    if (!recipients_fit(&(struct recipients){ 0 }, &request, verdict.recipients, verdict.count))
        return &reply_list_too_large;
    if (!recipients_fit(&t->recipients, &request, verdict.recipients, verdict.count))
        return &reply_too_many_recipients;
    recipients_add(&t->recipients, &request, verdict.recipients, verdict.count);
    t->accepted++;
    s->phase = RCPT_GIVEN;
    return verdict.reply ? verdict.reply : &reply_recipient_ok;
}

/* Whoever guesses names is shown out, but never somebody with a recipient that we took: a list server with 25 dead
 * addresses and 5 good ones would come again for days, and the five never got their mail (standards 4.5). */
static const struct reply *
run_rcpt(struct session *s, struct str args, int64_t until)
{
    struct transaction *t = &s->transaction;

    CHECK(s->phase == MAIL_GIVEN || s->phase == RCPT_GIVEN);
    if (++t->rcpt_commands > LIMIT_RCPT_COMMANDS)
        return &reply_too_many_rcpt;
    const struct reply *reply = take_recipient(s, args, until);
    if (reply->code < 400)
        return reply;
    if (reply != &reply_too_many_recipients) /* they come in another transaction */
        log_refusal(s, reply);
    t->refused++;
    s->report.refused++;
    t->rejected += reply->code >= 500;
    if (reply->code >= 500 && t->rejected > s->settings->rcpt_refused_max) {
        if (t->accepted == 0)
            return &reply_too_many_refused;
        if (s->settings->slow_down > 0)
            (void)rt_sleep(s->rt, within(s->rt, s->settings->slow_down));
    }
    return reply;
}

/* ---- DATA: section 4.1.1.4 --------------------------------------------------------------------------------------- */

static struct str
trace(const struct session *s, struct arena *scratch)
{
    const struct transaction *t = &s->transaction;
    const struct server_client *c = s->client;
    struct text text = text_init(arena_alloc(scratch, LIMIT_RECEIVED), LIMIT_RECEIVED);
    struct received received = {
        .helo = c->helo,
        .rdns = c->reverse_name,
        .client = c->address,
        .local = c->name,
        .by = s->settings->hostname,
        .smtp_extended = c->extended,
        .utf8 = t->mail.smtputf8,
        .id = t->id,
        .wall = rt_wall(s->rt),
        .tls = !str_is_absent(c->tls.protocol),
        .authenticated = !str_is_absent(c->user),
    };
    if (received.authenticated && s->settings->hide_client) {
        received.helo = s->settings->hostname;
        received.client = (struct address){ .family = ADDRESS_NONE };
        received.local = S("a user of ours");
    }
    char memory[128];
    struct text tls = text_init(memory, sizeof memory);

    text_putf(&tls, "%.*s with cipher %.*s", STR_ARG(c->tls.protocol), STR_ARG(c->tls.cipher));
    received.tls_version = text_str(&tls);
    if (t->recipients.count == 1) /* an alias's own name, not where it leads */
        received.recipient = str_is_absent(t->recipients.list[0].given) ? t->recipients.list[0].address
                                                                        : t->recipients.list[0].given;
    received_put(&text, &received);
    CHECK(!text.full);
    return text_str(&text);
}

/* NULL: the message may come. */
static const struct reply *
content_begin(struct session *s, bool dots, int64_t until)
{
    struct transaction *t = &s->transaction;

    CHECK(t->accepted > 0 && t->recipients.count > 0);
    CHECK(!t->has_draft);
    if (is_over_budget(s))
        return &reply_no_memory_now;
    struct err e = s->hooks->draft_begin(s->hooks->ctx, t->id, t->mail.size, until, &t->draft);
    if (err_is(e))
        return e.kind == ERR_NO_SPACE ? &reply_no_space : &reply_try_again;
    t->has_draft = true;
    t->failed = NULL;
    t->trace = arena_keep(&t->arena, trace(s, &s->scratch));
    t->completing = s->settings->complete;
    content_init(&t->content, dots, s->settings->line_ends == LINE_ENDS_REPAIR, s->settings->size_max);
    input_want_blocks(&s->in);
    return NULL;
}

static const struct reply *
run_data(struct session *s, struct str args, int64_t until)
{
    CHECK(s->phase == RCPT_GIVEN);
    if (args.len > 0)
        return &reply_no_argument_wanted;
    const struct reply *refusal = content_begin(s, true, until);
    if (!refusal)
        return &reply_start_content;
    log_refusal(s, refusal);
    return refusal;
}

/* ---- BDAT: RFC 3030 section 2 ------------------------------------------------------------------------------------ */

static const struct reply *receive_chunk(struct session *, uint64_t size, bool store);
static const struct reply *rate_refusal(struct session *);
static void content_store(struct session *, const struct content_parts *);
static const struct reply *content_refusal(struct session *);
static void header_keep(struct session *, struct str part);
static void header_complete(struct session *);
static const struct reply *message_end(struct session *, const struct reply *refusal);

/* NULL: the chunk may be stored. Otherwise it is read and dropped all the same, and then this is said. */
static const struct reply *
chunk_refusal(struct session *s, int64_t until)
{
    struct transaction *t = &s->transaction;

    if (!(s->phase & (RCPT_GIVEN | CHUNKS)))
        return wrong_order(s, command_find(S("BDAT")));
    CHECK(t->accepted > 0);
    if (++t->chunks > LIMIT_BDAT_CHUNKS)
        return &reply_too_many_chunks;
    return s->phase == RCPT_GIVEN ? content_begin(s, false, until) : NULL;
}

static const struct reply *
run_bdat(struct session *s, struct str args, int64_t until)
{
    struct transaction *t = &s->transaction;
    const struct reply *refusal;
    uint64_t size;

    if (!str_take_u64(&args, &size) || (args.len > 0 && !byte_is_space(args.ptr[0])))
        return chunk_unknown(s);
    if (s->settings->size_max > 0 && size / 2 > s->settings->size_max) {
        end(s, S("BDAT with a huge size"));
        return &reply_bdat_too_big;
    }
    args = str_trim(args);
    bool last = str_eq_nocase(args, S("LAST"));
    refusal = args.len > 0 && !last ? &reply_bdat_word : chunk_refusal(s, until);

    const struct reply *gone = receive_chunk(s, size, !refusal);
    if (!gone && !last) {
        t->waited += t->between;
        t->between = 0;
        gone = rate_refusal(s);
    }
    if (gone)
        return gone;
    if (!refusal && last) {
        struct content_parts parts;
        content_end(&t->content, &parts);
        content_store(s, &parts);
    }
    if (!refusal)
        refusal = content_refusal(s);
    if (last && (s->phase & (RCPT_GIVEN | CHUNKS | CHUNK_REFUSED)))
        return message_end(s, refusal);
    if (refusal && (s->phase & (RCPT_GIVEN | CHUNKS))) {
        log_refusal(s, refusal);
        s->phase = CHUNK_REFUSED;
    }
    if (refusal)
        return refusal;
    s->phase = CHUNKS;
    return reply_make(&s->scratch, 250, "2.0.0", "%" PRIu64 " bytes received", size);
}

/* ---- RSET, VRFY, EXPN, HELP, NOOP, QUIT: sections 4.1.1.5 to 10; ETRN: RFC 1985 ---------------------------------- */

static const struct reply *
run_rset(struct session *s, struct str args, int64_t until)
{
    (void)args;
    (void)until;
    transaction_end(s);
    return &reply_ok;
}

static const struct reply *
run_noop(struct session *s, struct str args, int64_t until)
{
    (void)s;
    (void)args;
    (void)until;
    return &reply_ok;
}

/* RFC 6531 section 3.7.4.2: the parameter only says that the client can read the answer. Ours are ASCII all the same. */
static struct str
without_smtputf8(struct str args)
{
    return str_ends_nocase(args, S(" SMTPUTF8")) ? str_trim_end(str_slice(args, 0, args.len - sizeof " SMTPUTF8" + 1))
                                                 : args;
}

static const struct reply *
in_ascii(const struct reply *r)
{
    return reply_is_positive(r) && !str_is_ascii(r->text) ? &reply_needs_utf8 : r;
}

static const struct reply *
run_vrfy(struct session *s, struct str args, int64_t until)
{
    if (login_first(s))
        return login_first(s);
    if (args.len == 0)
        return &reply_needs_address;
    if (!is_offered(s, command_find(S("VRFY")), until))
        return &reply_vrfy_off; /* section 3.5.3: 252 where there is no verdict, never a false 250 */
    return in_ascii(s->hooks->vrfy(s->hooks->ctx, s->client, without_smtputf8(args), &s->scratch, until));
}

static const struct reply *
run_expn(struct session *s, struct str args, int64_t until)
{
    if (login_first(s))
        return login_first(s);
    if (!is_offered(s, command_find(S("EXPN")), until))
        return &reply_known_but_off;
    if (args.len == 0)
        return &reply_needs_address;
    return in_ascii(s->hooks->expn(s->hooks->ctx, s->client, without_smtputf8(args), &s->scratch, until));
}

static const struct reply *
run_etrn(struct session *s, struct str args, int64_t until)
{
    if (login_first(s))
        return login_first(s);
    if (!is_offered(s, command_find(S("ETRN")), until))
        return &reply_known_but_off;
    if (args.len == 0)
        return &reply_etrn_syntax;
    return s->hooks->etrn(s->hooks->ctx, s->client, args, &s->scratch, until);
}

static const struct reply *
run_help(struct session *s, struct str args, int64_t until)
{
    bool asked = args.len > 0;
    const struct command *about = command_find(str_cut_word(&args)); /* "HELP MAIL FROM:" too */
    char memory[2048];
    struct text t = text_init(memory, sizeof memory);

    if (asked && (!about || !is_offered(s, about, until)))
        return &reply_no_such_help;
    if (about)
        return reply_make(&s->scratch, 214, "2.0.0", "%s", about->help);
    text_put(&t, S("In this order: EHLO, MAIL, RCPT, DATA, and then the message; QUIT ends"));
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        if (is_offered(s, &commands[i], until))
            text_putf(&t, "\n%.*s", STR_ARG(str_slice(str_from_cstr(commands[i].help), 0,
                                                      str_find_byte(str_from_cstr(commands[i].help), '\n'))));
    text_put(&t, S("\nA person reads what is sent to <postmaster>"));
    CHECK(!t.full);
    return reply_make(&s->scratch, 214, "2.0.0", "%.*s", STR_ARG(text_str(&t)));
}

static const struct reply *
run_quit(struct session *s, struct str args, int64_t until)
{
    (void)args;
    (void)until;
    end(s, S("quit"));
    return &reply_closing;
}

static const struct reply *
run_off(struct session *s, struct str args, int64_t until)
{
    (void)s;
    (void)args;
    (void)until;
    return &reply_known_but_off;
}

/* ---- the content ------------------------------------------------------------------------------------------------- */

static void
header_free(struct session *s)
{
    struct transaction *t = &s->transaction;

    mem_free(rt_mem(s->rt), t->own_header, t->header_cap);
    t->own_header = NULL;
    t->header_len = t->header_cap = 0;
    t->completing = false;
}

/* And what was kept of its header. */
static void
draft_drop(struct session *s)
{
    struct transaction *t = &s->transaction;

    header_free(s);
    if (t->has_draft)
        s->hooks->draft_abort(s->hooks->ctx, t->draft);
    t->has_draft = false;
    t->draft = NULL;
}

static void
draft_put(struct session *s, const struct str *parts, size_t count)
{
    struct transaction *t = &s->transaction;

    if (!t->has_draft || count == 0)
        return;
    struct err e = s->hooks->draft_put(s->hooks->ctx, t->draft, parts, count, within(s->rt, s->settings->answer_wait));
    if (!err_is(e))
        return;
    t->failed = e.kind == ERR_NO_SPACE ? &reply_no_space : &reply_try_again;
    draft_drop(s);
}

/* A message that fails is dropped at once, and read to its end all the same: the client hears why when it has sent
 * it. */
static void
content_store(struct session *s, const struct content_parts *parts)
{
    struct transaction *t = &s->transaction;
    size_t i = 0, len;

    if (t->content.fault != CONTENT_FINE)
        draft_drop(s);
    if (!t->has_draft)
        return;
    for (; t->completing && i < parts->count; i++) {
        bool found = header_end_feed(&t->header_end, parts->part[i], &len);
        header_keep(s, found ? str_slice(parts->part[i], 0, len) : parts->part[i]);
        if (!found || !t->completing)
            continue;
        struct str body = str_from(parts->part[i], len);
        header_complete(s);
        draft_put(s, &body, body.len > 0);
    }
    draft_put(s, parts->part + i, parts->count - i);
}

/* ---- submission: RFC 6409 ---------------------------------------------------------------------------------------- */

static void
header_keep(struct session *s, struct str part)
{
    struct transaction *t = &s->transaction;

    if (part.len > t->header_cap - t->header_len) {
        size_t cap = 2 * (t->header_len + part.len);
        if (cap > 2 * HEADER_UNASKED && is_over_budget(s)) {
            t->failed = &reply_no_memory_now;
            draft_drop(s);
            return;
        }
        t->own_header = mem_resize(rt_mem(s->rt), t->own_header, t->header_cap, cap);
        t->header_cap = cap;
    }
    memcpy(t->own_header + t->header_len, part.ptr, part.len);
    t->header_len += part.len;
}

/* NULL: this one may stand there. */
static const struct reply *
check_author(struct session *s, struct path path, struct arena *arena)
{
    struct arena *mine = &s->scratch; /* the transaction is over before this is said */

    if (path.domain.len == 0) /* under a signature, where nothing was completed */
        path.domain = home_domain(s);
    const struct reply *refusal =
        s->hooks->author(s->hooks->ctx, s->client, path, arena, within(s->rt, s->settings->answer_wait));
    return refusal ? reply_make(mine, refusal->code, arena_cstr(mine, refusal->enhanced), "%.*s", STR_ARG(refusal->text))
                   : NULL;
}

/* NULL: all whom the field holds may stand there. */
static const struct reply *
check_authors(struct session *s, struct str value, struct arena *work, size_t *count)
{
    const struct reply *refusal = NULL;
    struct mailbox m;

    for (enum addresses found; !refusal && (found = addresses_next(&value, work, &m)) != ADDRESSES_END; arena_reset(work))
        refusal = found == ADDRESSES_BAD || m.path.local.len + m.path.domain.len >= LIMIT_PATH ? &reply_author_unreadable
                  : ++*count > LIMIT_AUTHORS ? &reply_too_many_authors
                                              : check_author(s, m.path, work);
    return refusal;
}

/* Of a Resent-Sender behind the newest Resent-From, by what follows it: that block has none, and it begins the one below. */
static bool
begins_older_block(struct str rest)
{
    struct header_field field;

    while (header_take(&rest, &field)) {
        if (str_eq_nocase(field.name, S("Resent-From")))
            return true;
        if (str_eq_nocase(field.name, S("Resent-Sender")) || str_eq_nocase(field.name, S("Received")))
            return false;
    }
    return false;
}

/*
 * RFC 6409 section 6.1, and RFC 5322 section 3.6.2: who wrote it, and if it says so, who sent it: mail programs show "Sender
 * for From" whether or not the authors are several. Likewise who sent it again, section 3.6.6: the newest such block stands
 * first; those below it, or below a trace of its way, are of others who did so before. Fields of a block may stand in any order.
 */
static const struct reply *
header_refusal(struct session *s, struct str header)
{
    const struct reply *refusal = NULL;
    struct header_field field;
    struct arena work;
    size_t count = 0, blocks = 0;

    if (!s->hooks->author || str_is_absent(s->client->user))
        return NULL;
    arena_init(&work, rt_mem(s->rt), 1024, HEADER_ARENA_MAX);
    while (!refusal && header_take(&header, &field)) {
        struct str name = field.name;
        bool resent = str_take_nocase(&name, S("Resent-"));
        bool from = str_eq_nocase(name, S("From")), sender = str_eq_nocase(name, S("Sender"));
        size_t before = count;
        blocks += (resent && from) || (!resent && blocks > 0 && str_eq_nocase(name, S("Received")));
        bool older = resent && (blocks > 1 || (sender && blocks == 1 && begins_older_block(header)));
        if ((from || sender) && !older)
            refusal = check_authors(s, field.value, &work, &count);
        if (resent && from && !older && !refusal && count == before)
            refusal = &reply_author_unreadable; /* it names nobody */
    }
    arena_done(&work);
    return refusal;
}

/* The header is whole: it goes on as it should have come. Its body stays as it is. */
static void
header_complete(struct session *s)
{
    struct transaction *t = &s->transaction;
    struct str body = str_new(t->own_header, t->header_len);
    struct compose_origin origin = {
        .address = t->mail.address, .hostname = s->settings->hostname, .domain = home_domain(s), .id = t->id, .wall = rt_wall(s->rt),
    };
    struct arena arena;

    arena_init(&arena, rt_mem(s->rt), 4096, HEADER_ARENA_MAX);
    if (origin.address.len == 0) {
        struct str user = str_slice(s->client->user, 0, str_find_last_byte(s->client->user, '@'));
        origin.address = arena_printf(&arena, "%.*s@%.*s", STR_ARG(user.len > 0 ? user : S("postmaster")), STR_ARG(origin.domain));
    }
    size_t cap = compose_header_size(body, &origin);
    struct text header = text_init(arena_alloc(&arena, cap), cap);
    compose_header(&header, &body, &origin, rt_mem(s->rt));
    CHECK(!header.full);
    t->failed = header_refusal(s, text_str(&header));
    t->header_gone = t->header_len - body.len;
    t->header_came = header.len;
    if (t->failed)
        draft_drop(s);
    draft_put(s, (struct str[]){ text_str(&header), body }, body.len > 0 ? 2 : 1);
    header_free(s);
    arena_done(&arena);
}

/*
 * Whoever drips is not waited for: over each rate_window of waiting, be it for content or for the next chunk (what we take
 * ourselves does not count), rate_bytes a second must have come. NULL: they have.
 */
static const struct reply *
rate_refusal(struct session *s)
{
    const struct listener_settings *set = s->settings;
    struct transaction *t = &s->transaction;

    if (t->waited < set->rate_window)
        return NULL;
    bool too_slow = t->window_bytes < set->rate_bytes * (uint64_t)(t->waited / MILLISECOND) / 1000;
    t->waited = 0;
    t->window_bytes = 0;
    if (!too_slow)
        return NULL;
    end(s, S("content came too slowly"));
    return &reply_content_too_slow;
}

/* Waits for the next bytes of content. NULL: they are there. */
static const struct reply *
content_wait(struct session *s)
{
    int64_t began = rt_now(s->rt);
    const struct reply *refusal = rate_refusal(s);

    if (refusal)
        return refusal;
    flush(s);
    struct err e = input_fill(&s->in, began + s->settings->block_wait);
    if (err_is(e))
        return lost(s, e, &reply_content_timeout);
    s->transaction.waited += rt_now(s->rt) - began;
    return NULL;
}

/* All of a DATA message: returns the reply to its end. */
static const struct reply *
receive_content(struct session *s)
{
    struct transaction *t = &s->transaction;
    struct content_parts parts = { .ended = false };
    const struct reply *reply;

    while (!parts.ended) {
        if (input_here(&s->in).len == 0 && (reply = content_wait(s)) != NULL)
            return reply;
        size_t taken = content_scan(&t->content, input_here(&s->in), &parts);
        content_store(s, &parts);
        input_take(&s->in, taken);
        t->window_bytes += taken;
    }
    return message_end(s, content_refusal(s));
}

/* `size` bytes of a BDAT chunk. NULL: they are taken; otherwise the session is lost. */
static const struct reply *
receive_chunk(struct session *s, uint64_t size, bool store)
{
    struct transaction *t = &s->transaction;
    struct content_parts parts;
    const struct reply *reply;

    while (size > 0) {
        if (input_here(&s->in).len == 0 && (reply = content_wait(s)) != NULL)
            return reply;
        struct str here = input_here(&s->in);
        if (here.len > size)
            here.len = (size_t)size;
        if (store) {
            here.len = content_scan(&t->content, here, &parts);
            content_store(s, &parts);
        }
        input_take(&s->in, here.len);
        t->window_bytes += here.len;
        size -= here.len;
    }
    return NULL;
}

/* Why the content that came is not taken; NULL: it is. */
static const struct reply *
content_refusal(struct session *s)
{
    struct transaction *t = &s->transaction;
    const struct content *c = &t->content;

    if (t->failed)
        return t->failed;
    switch ((enum content_fault)c->fault) {
    case CONTENT_FINE:
        return NULL;
    case CONTENT_BARE_CR:
    case CONTENT_BARE_LF:
        return reply_make(&s->scratch, 550, "5.6.0",
                          "Line %" PRIu64 " holds a %s alone; every line must end with CR LF", c->fault_line,
                          c->fault == CONTENT_BARE_CR ? "CR" : "LF");
    case CONTENT_LONG_LINE:
        return reply_make(&s->scratch, 554, "5.6.0", "Line %" PRIu64 " is longer than %d bytes; encode the message",
                          c->fault_line, LIMIT_TEXT_LINE);
    case CONTENT_TOO_BIG:
        return &reply_too_big;
    case CONTENT_LOOP:
        return &reply_mail_loop;
    case CONTENT_BIG_HEADER:
        return &reply_header_too_big;
    }
    UNREACHABLE();
}

static const struct reply *
content_commit(struct session *s)
{
    const struct server_hooks *h = s->hooks;
    struct transaction *t = &s->transaction;
    char id[MESSAGE_ID_TEXT];
    struct envelope envelope = {
        .reverse_path = t->mail.address,
        .envid = t->mail.envid,
        .helo = s->client->helo,
        .client = str_is_absent(s->client->user) ? s->client->name : arena_join(&s->scratch, S("user:"), s->client->user),
        .session = s->client->session,
        .size = t->content.size - t->header_gone + t->header_came,
        .accepted_wall = rt_wall(s->rt),
        .hold_until = t->mail.hold_until,
        .deliver_within = t->mail.deliver_within,
        .deliver_or_return = t->mail.deliver_or_return,
        .deliver_trace = t->mail.deliver_trace,
        .ret = t->mail.ret,
        .body = t->content.eight_bit ? BODY_8BITMIME : BODY_7BIT,
        .smtputf8 = t->mail.smtputf8,
        .require_tls = t->mail.require_tls,
        .tls_optional = t->content.tls_required.no && !t->mail.require_tls,
        .trusted = s->settings->trusted || !str_is_absent(s->client->user),
        .trace = t->trace,
        .recipients = t->recipients.list,
        .recipient_count = t->recipients.count,
    };

    CHECK(t->has_draft && t->accepted > 0);
    t->has_draft = false; /* in any case: draft_commit ends it */
    struct err e = h->draft_commit(h->ctx, t->draft, &envelope, within(s->rt, s->settings->commit_wait));
    if (err_is(e)) /* UNKNOWN too: it may be stored, and a duplicate is better than a loss */
        return e.kind == ERR_NO_SPACE ? &reply_no_space : e.kind == ERR_LIMIT ? &reply_envelope_too_big : &reply_try_again;
    s->report.messages++;
    s->report.recipients += t->accepted;
    s->idle_commands = 0;
    if (h->log_message)
        h->log_message(h->ctx, s->client,
                       &(struct server_message){ t->id, &envelope, t->content.repaired, rt_now(s->rt) - t->began });
    return reply_join(&s->scratch, 250, "2.0.0", S("Stored as "), message_id_text(t->id, id));
}

/* Whatever the reply is, the transaction is over: section 4.1.1.4. */
static const struct reply *
message_end(struct session *s, const struct reply *refusal)
{
    if (!refusal && s->transaction.completing) /* a message that is all header, or has none */
        header_complete(s);
    if (!refusal)
        refusal = s->transaction.failed;
    const struct reply *reply = refusal ? refusal : content_commit(s);

    if (!reply_is_positive(reply) && s->phase != CHUNK_REFUSED) /* which was logged */
        log_refusal(s, reply);
    s->idle_commands += !reply_is_positive(reply);
    transaction_end(s);
    return reply;
}

/* ---- plumbing ---------------------------------------------------------------------------------------------------- */

struct listener_settings
listener_settings_default(struct str hostname)
{
    return (struct listener_settings){
        .hostname = hostname,
        .size_max = (uint64_t)LIMIT_MESSAGE_SIZE,
        .line_ends = LINE_ENDS_REFUSE,
        .vrfy = OFFER_OFF,
        .expn = OFFER_OFF,
        .refuse_early_talk = true,
        .rcpt_max = LIMIT_RCPT_PER_TRANSACTION,
        .wrong_commands_max = LIMIT_WRONG_COMMANDS,
        .idle_commands_max = LIMIT_IDLE_COMMANDS,
        .auth_failures_max = LIMIT_AUTH_FAILURES,
        .rcpt_refused_max = LIMIT_RCPT_REFUSED,
        .command_wait = LIMIT_COMMAND_NS,
        .tls_wait = LIMIT_TLS_NS,
        .block_wait = LIMIT_BLOCK_NS,
        .rate_window = LIMIT_RATE_NS,
        .rate_bytes = LIMIT_RATE_BYTES,
        .answer_wait = LIMIT_ANSWER_NS,
        .commit_wait = LIMIT_COMMIT_NS,
        .reverse_wait = LIMIT_REVERSE_NS,
        .slow_down = 20 * MILLISECOND,
    };
}

static void
session_begin(struct session *s, struct wire *wire, const struct listener_settings *settings,
              const struct server_hooks *hooks, struct server_client *client)
{
    struct rt *rt = stream_rt(wire->stream);
    struct mem *mem = rt_mem(rt);

    *s = (struct session){ .rt = rt, .wire = wire, .settings = settings, .hooks = hooks, .client = client };
    arena_init(&s->arena, mem, 256, SESSION_ARENA_MAX);
    arena_init(&s->scratch, mem, 1024, SCRATCH_ARENA_MAX);
    arena_init(&s->transaction.arena, mem, 1024, TRANSACTION_ARENA_MAX);
    input_init(&s->in, wire, mem);
    scope_init(&s->scope, rt);
    s->phase = START;
    s->began = rt_now(rt);
    client->session = arena_printf(&s->arena, "%016" PRIx64, rt_random(rt));
    client->helo = client->reverse_name = (struct str){ 0 };
    client->extended = client->busy = false;
    client->tls = (struct server_tls){ .resumed = false };
    client->user = (struct str){ 0 };
}

static void
session_end(struct session *s)
{
    const struct server_hooks *h = s->hooks;

    scope_end(&s->scope);
    transaction_end(s);
    s->report.bytes_in = s->in.bytes;
    s->report.took = rt_now(s->rt) - s->began;
    if (h->log_session)
        h->log_session(h->ctx, s->client, &s->report);
    mem_free(rt_mem(s->rt), s->own_out, s->out_cap);
    forget_lines(s);
    input_done(&s->in);
    arena_done(&s->transaction.arena);
    arena_done(&s->scratch);
    arena_done(&s->arena);
    s->client->session = s->client->helo = s->client->reverse_name = s->client->user = (struct str){ 0 };
}

/* Forgets the transaction: after its end, RSET, EHLO, or a lost connection. Its memory goes back: most sessions carry
 * one. */
static void
transaction_end(struct session *s)
{
    struct arena arena = s->transaction.arena;

    draft_drop(s);
    arena_release(&arena);
    s->transaction = (struct transaction){ .arena = arena };
    s->client->busy = false;
    if (s->phase != START)
        s->phase = GREETED;
}

/* No further command. The first reason stays. */
static void
end(struct session *s, struct str why)
{
    s->over = true;
    if (s->report.ended.len == 0)
        s->report.ended = why;
}

/* Nothing more comes from this client. What to tell it, if it can still hear. */
static const struct reply *
lost(struct session *s, struct err e, const struct reply *on_timeout)
{
    if (e.kind == ERR_TIMEOUT) {
        end(s, S("timeout"));
        return on_timeout;
    }
    if (e.kind == ERR_CANCELLED) {
        end(s, S("shutting down"));
        return &reply_shutting_down;
    }
    end(s, S("closed by the client"));
    s->broken = true;
    return &reply_closing;
}

static struct str
copy_short(char *memory, size_t cap, struct str s)
{
    struct text t = text_init(memory, cap);

    text_put(&t, str_slice(s, 0, cap));
    return text_str(&t);
}

/* What follows AUTH is nobody's business; and where people log in what is no command may be a password, sent ahead or typed at the
 * wrong moment. */
static struct str
what_to_log(const struct session *s, struct str line)
{
    struct str rest = str_trim(line);

    if (str_starts_nocase(rest, S("AUTH")))
        return S("AUTH");
    return may_log_in(s) && !command_find(str_cut_word(&rest)) ? S("(no command)") : line;
}

/* For the log. */
static void
remember_command(struct session *s, struct str line)
{
    s->command = copy_short(s->command_memory, sizeof s->command_memory, line);
}

static void
remember_refusal(struct session *s, const struct reply *r)
{
    struct text t = text_init(s->refusal_memory, sizeof s->refusal_memory);

    text_putf(&t, "%u ", r->code);
    text_put(&t, r->enhanced);
    text_put_byte(&t, ' ');
    text_put(&t, str_slice(r->text, 0, str_find_byte(r->text, '\n')));
    s->report.last_refusal = text_str(&t);
    s->report.last_refused = copy_short(s->refused_memory, sizeof s->refused_memory, s->command);
}

static void
log_refusal(struct session *s, const struct reply *r)
{
    const struct server_hooks *h = s->hooks;

    if (h->log_refusal)
        h->log_refusal(h->ctx, s->client, s->transaction.mail.address, s->command, r);
}

static void
out_room(struct session *s, size_t size)
{
    if (s->out_len + size > s->out_cap)
        flush(s);
    if (size <= s->out_cap || s->broken)
        return;
    size_t cap = size > OUTPUT_FIRST ? size : OUTPUT_FIRST;
    s->own_out = mem_resize(rt_mem(s->rt), s->own_out, s->out_cap, cap);
    s->out_cap = cap;
}

/* Every reply goes through here but challenges, and 421 is always the last: section 3.8. */
static void
say(struct session *s, const struct reply *r)
{
    size_t size = reply_size(r);

    if (r->code == 421)
        end(s, S("refused"));
    if (r->code >= 400 && !s->broken)
        remember_refusal(s, r);
    out_room(s, size);
    if (s->broken)
        return;
    struct text t = text_init(s->own_out + s->out_len, s->out_cap - s->out_len);
    reply_put(&t, r);
    CHECK(!t.full);
    s->out_len += t.len;
}

/* 334, of one line however long: RFC 4954 section 4. */
static void
say_challenge(struct session *s, struct str bytes)
{
    out_room(s, 8 + 4 * (bytes.len / 3 + 1));
    if (s->broken)
        return;
    struct text t = text_init(s->own_out + s->out_len, s->out_cap - s->out_len);
    text_put(&t, S("334 "));
    base64_put(&t, bytes);
    text_put(&t, S("\r\n"));
    CHECK(!t.full);
    s->out_len += t.len;
}

static void
flush(struct session *s)
{
    if (s->out_len > 0 && !s->broken) {
        struct err e =
            wire_write(s->wire, str_new(s->own_out, s->out_len), within(s->rt, s->settings->command_wait));
        if (err_is(e))
            (void)lost(s, e.kind == ERR_CANCELLED ? e : ERR(ERR_CLOSED, "write to the client"), &reply_closing);
    }
    s->out_len = 0;
}

/* Between commands the client may be silent for long: everything that can go back goes back. */
static struct err
command_wait(struct session *s, int64_t until)
{
    int64_t began = rt_now(s->rt);

    flush(s);
    if (s->broken)
        return ERR(ERR_CLOSED, "write to the client");
    if (input_here(&s->in).len == 0) {
        arena_release(&s->scratch);
        mem_free(rt_mem(s->rt), s->own_out, s->out_cap);
        s->own_out = NULL;
        s->out_cap = 0;
        TRY(input_rest(&s->in, until));
    }
    TRY(input_fill(&s->in, until));
    if (s->phase & (CHUNKS | CHUNK_REFUSED))
        s->transaction.between += rt_now(s->rt) - began;
    return OK;
}

static bool
is_tls_hello(const struct session *s, struct str here)
{
    return wire_is_in_clear(s->wire) && here.len > 0 && here.ptr[0] == 0x16; /* a handshake; no command begins so */
}

/* A line of AUTH may be long: it carries credentials. */
static bool
is_auth_line(const struct session *s)
{
    return s->settings->login && str_starts_nocase(input_here(&s->in), S("AUTH "));
}

/* The next line of an exchange. NULL: it is there; else what to say. */
static const struct reply *
read_response(struct session *s, struct str *out_line)
{
    int64_t until = within(s->rt, s->settings->command_wait);

    for (;;) {
        input_want_blocks(&s->in);
        switch (input_line(&s->in, LIMIT_AUTH_LINE, out_line)) {
        case INPUT_LINE:
            return NULL;
        case INPUT_LINE_MORE:
            flush(s);
            struct err e = s->broken ? ERR(ERR_CLOSED, "write to the client") : input_fill(&s->in, until);
            if (err_is(e))
                return lost(s, e, &reply_timeout);
            break;
        case INPUT_LINE_TOO_LONG:
            return &reply_auth_line_too_long;
        case INPUT_LINE_BARE_LF:
            end(s, S("bare LF"));
            return &reply_bare_lf;
        }
    }
}

/* The next command line. What is wrong with lines themselves is answered here. */
static bool
read_command(struct session *s, struct str *out_line)
{
    const struct server_hooks *h = s->hooks;
    int64_t until = within(s->rt, s->settings->command_wait);
    bool auth = false;

    arena_reset(&s->scratch);
    while (!s->over) {
        forget_lines(s);
        if (s->phase <= GREETED && h->draining && h->draining(h->ctx)) {
            say(s, &reply_shutting_down);
            return false;
        }
        if (is_tls_hello(s, input_here(&s->in))) {
            end(s, S("spoke TLS"));
            s->broken = true;
            return false;
        }
        struct err e;
        auth = auth || is_auth_line(s);
        if (auth)
            input_want_blocks(&s->in);
        switch (input_line(&s->in, auth ? LIMIT_AUTH_LINE : LIMIT_COMMAND_LINE, out_line)) {
        case INPUT_LINE:
            return true;
        case INPUT_LINE_MORE:
            e = command_wait(s, until);
            if (err_is(e))
                say(s, lost(s, e, &reply_timeout));
            break;
        case INPUT_LINE_TOO_LONG:
            s->report.commands++;
            remember_command(s, S("(too long)"));
            say(s, count_wrong(s, auth ? &reply_auth_line_too_long : &reply_line_too_long));
            auth = false;
            if (s->phase == CHUNKS) { /* it may have been a BDAT: what follows would be a message with a hole */
                log_refusal(s, &reply_line_too_long);
                s->phase = CHUNK_REFUSED;
            }
            until = within(s->rt, s->settings->command_wait);
            break;
        case INPUT_LINE_BARE_LF:
            remember_command(s, S("(bare LF)"));
            say(s, &reply_bare_lf);
            end(s, S("bare LF"));
            break;
        }
    }
    return false;
}

/* We hang up first. Bytes that the client still sends would make the system answer with a reset, and our last reply
 * might never be read: wait for its end, for a moment. */
static void
linger(struct session *s)
{
    int64_t until = within(s->rt, LINGER_NS);
    uint64_t most = s->in.bytes + LINGER_BYTES;

    if (s->broken)
        return;
    wire_shut_down(s->wire);
    do
        input_take(&s->in, input_here(&s->in).len);
    while (s->in.bytes < most && !err_is(input_fill(&s->in, until)));
}
