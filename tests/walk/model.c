/* model - see model.h. In the order of RFC 5321 section 4.1.1; each rule says where it is from. */
#include "model.h"

#include <stdio.h>
#include <string.h>

/* What a situation lets a command do: any of these. */
struct outcome {
    uint16_t code, final;
    bool commits;
    struct situation next;
};
struct outcomes {
    const struct situation *now;
    struct outcome list[8];
    size_t count;
};

static struct outcome *
may(struct outcomes *o, uint16_t code, struct situation next)
{
    struct outcome *one = &o->list[o->count++];

    *one = (struct outcome){ .code = code, .next = next };
    return one;
}

static void
may_refuse(struct outcomes *o, uint16_t code) /* section 4.1.4: and stays where it is */
{
    may(o, code, *o->now);
}

static struct situation
at(const struct situation *s, enum step step)
{
    struct situation next = *s;

    next.step = (uint8_t)step;
    if (step == IDLE || step == CLOSED || step == UNSURE)
        next.open = (struct commit){ 0 };
    return next;
}

static bool
in_transaction(const struct situation *s)
{
    return s->step == SENDER || s->step == RECIPIENTS || s->step == CHUNKS;
}

/* Sections 4.1.1.1 and 4.1.4: "MUST clear all buffers and reset the state exactly as if a RSET had been issued". Bytes
 * that are already behind it: standards 4.3, 4. */
static void
hello(struct outcomes *o, enum hello kind, bool talked_ahead)
{
    struct situation next = at(o->now, IDLE);

    next.hello = (uint8_t)kind;
    if (talked_ahead)
        may(o, 554, at(o->now, CLOSED));
    else
        may(o, 250, next);
}

/* RFC 3207 section 4: once only; 4.2: "discard any knowledge obtained from the client". Where: standards 4.1. Bytes that
 * are already behind it: standards 4.4. */
static void
starttls(struct outcomes *o, bool talked_ahead)
{
    const struct situation *s = o->now;
    struct situation next = at(s, IDLE);

    next.hello = HELLO_NONE;
    next.encrypted = true;
    next.authenticated = false;
    if (s->encrypted || s->hello == HELLO_NONE || in_transaction(s) || s->step == UNSURE)
        may_refuse(o, 503);
    else if (talked_ahead)
        may(o, 554, at(s, CLOSED));
    else
        may(o, 220, next);
}

/* RFC 6409 section 4.3, RFC 4954 section 6: 530 to what wants to know first who asks. */
static bool
login_first(struct outcomes *o)
{
    if (!o->now->submission || o->now->authenticated)
        return false;
    may_refuse(o, 530);
    return true;
}

/*
 * RFC 4954 section 4: not before EHLO, which HELO is not; not in a transaction; once only. Section 6: 538 in clear, whatever
 * the password, and 535 for a wrong one. Where it is not offered: RFC 5321 section 4.2.4.
 */
static void
auth(struct outcomes *o, bool right)
{
    const struct situation *s = o->now;
    struct situation next = *s;

    next.authenticated = true;
    if (!s->submission)
        may_refuse(o, 502);
    else if (s->authenticated || s->hello != HELLO_EHLO || in_transaction(s) || s->step == UNSURE)
        may_refuse(o, 503);
    else if (!s->encrypted)
        may_refuse(o, 538);
    else if (right)
        may(o, 235, next);
    else
        may_refuse(o, 535);
}

/*
 * XCLIENT_README: 550 to who may not, 503 in a transaction, 501 to what is no attribute; else 220, and the session begins anew
 * with what is told of the client: what it said and who it was are forgotten, TLS is not. Users are there only where they log
 * in (standards 1.2). Bytes that are already behind it: standards 4.4.
 */
static void
xclient(struct outcomes *o, enum verb verb, uint8_t place, bool talked_ahead)
{
    const struct situation *s = o->now;
    struct situation next = at(s, IDLE);
    bool busy = in_transaction(s) || s->step == UNSURE;

    next.hello = HELLO_NONE;
    next.authenticated = verb == XCLIENT_LOGIN;
    if (verb == XCLIENT)
        next.client = place;
    if (busy)
        may_refuse(o, 503);
    if (!s->xclient || (verb == XCLIENT_LOGIN && !s->submission)) {
        may_refuse(o, 550);
        return;
    }
    if (verb == XCLIENT_BAD) {
        may_refuse(o, 501);
        return;
    }
    if (!busy && talked_ahead)
        may(o, 554, at(s, CLOSED));
    else if (!busy)
        may(o, 220, next);
}

/* Section 4.1.4: not without EHLO or HELO, and not in a transaction. 4.1.1.11 and RFC 1870 section 6.1 for parameters. */
static void
mail(struct outcomes *o, enum verb verb, uint8_t place)
{
    const struct situation *s = o->now;
    struct situation next = at(s, SENDER);
    bool has_parameters = verb == MAIL_EXTENDED || verb == MAIL_HUGE || verb == MAIL_PARAMETER;

    next.open = (struct commit){ .sender = place, .extended = s->hello == HELLO_EHLO,
                                  .encrypted = s->encrypted && s->hello == HELLO_EHLO,
                                  .authenticated = s->authenticated && s->hello == HELLO_EHLO, .client = s->client };
    if (s->hello == HELLO_NONE || in_transaction(s) || s->step == UNSURE) {
        may_refuse(o, 503);
        if (verb != MAIL)
            may_refuse(o, 501);
        if (s->step != UNSURE)
            return;
    }
    if (login_first(o))
        return;
    if (verb == MAIL_BAD)
        may_refuse(o, 501);
    else if (has_parameters && s->hello == HELLO_HELO) { /* standards 2.1: 501 or 555 */
        may_refuse(o, 501);
        may_refuse(o, 555);
    } else if (verb == MAIL_PARAMETER)
        may_refuse(o, 555);
    else if (verb == MAIL_HUGE)
        may_refuse(o, 552);
    else
        may(o, 250, next);
}

/* Section 3.3: "If a RCPT command appears without a previous MAIL command, the server MUST return a 503". */
static void
rcpt(struct outcomes *o, enum verb verb, uint8_t place)
{
    const struct situation *s = o->now;
    struct situation next = at(s, RECIPIENTS);

    next.open.recipients = (uint16_t)(next.open.recipients | 1u << place);
    if (s->step != SENDER && s->step != RECIPIENTS) {
        may_refuse(o, 503);
        if (verb == RCPT_BAD)
            may_refuse(o, 501);
    } else if (verb == RCPT_BAD)
        may_refuse(o, 501);
    else if (verb == RCPT_BUSY)
        may_refuse(o, 450);
    else if (verb == RCPT_UNKNOWN || verb == RCPT_SECOND_DOMAIN)
        may_refuse(o, 550);
    else
        may(o, 250, next);
}

static struct situation
with_piece(struct situation s, uint8_t place)
{
    s.open.pieces[s.open.piece_count++] = place;
    return s;
}

/* "Receipt of the end of mail data indication requires the server to process the stored mail transaction information":
 * section 4.1.1.4. It then has none of it any more, whatever the reply was. */
static void
commits(struct outcomes *o, uint16_t code, struct situation whole)
{
    whole.step = IDLE;
    whole.committed++;
    struct outcome *done = may(o, code == 354 ? 354 : 250, whole);
    done->final = code == 354 ? 250 : 0;
    done->commits = true;
}

/* Section 3.3: 503 or 554 where there is no recipient, 354 where there is one. RFC 3030 section 2: 503 behind BDAT. */
static void
data(struct outcomes *o, enum verb verb, uint8_t place, bool talked_ahead)
{
    const struct situation *s = o->now;

    if (verb == DATA_ARGUMENT)
        may_refuse(o, 501); /* section 4.3.2 */
    if (s->step != RECIPIENTS) {
        may_refuse(o, 503);
        if (s->step != CHUNKS)
            may_refuse(o, 554);
    } else if (verb == DATA_ARGUMENT) {
        return;
    } else if (talked_ahead) {
        may(o, 554, at(s, CLOSED)); /* standards 4.3, 4 */
    } else if (verb == DATA_CUT) {
        may(o, 354, at(s, CLOSED)); /* standards 4.1: lost before the final dot: discard */
    } else if (verb == DATA_BARE_LF) {
        may(o, 354, at(s, IDLE))->final = 550; /* standards 4.3, 2 */
    } else {
        commits(o, 354, with_piece(*s, place));
    }
}

/*
 * RFC 3030 section 2. Without a recipient it is out of order like DATA. A chunk that fails inside a transaction leaves
 * an "indeterminate" state behind: RSET must come, or the server has ended the transaction of itself; nothing of it
 * may be committed. Behind BDAT LAST the transaction is over, so BDAT is then only out of order.
 */
static void
bdat(struct outcomes *o, enum verb verb, uint8_t place)
{
    const struct situation *s = o->now;
    bool last = verb == BDAT_LAST || verb == BDAT_NONE;

    if (verb == BDAT_CUT) {
        may(o, 0, at(s, CLOSED)); /* the end of the connection comes before the end of the chunk */
    } else if (verb == BDAT_SIZELESS) { /* where its chunk ends nobody knows */
        may(o, 501, at(s, CLOSED));
        may(o, 501, at(s, in_transaction(s) ? UNSURE : IDLE));
    } else if (s->step == UNSURE) {
        may_refuse(o, 503);
        may_refuse(o, 554);
        may(o, 503, at(s, IDLE));
    } else if (s->step != RECIPIENTS && s->step != CHUNKS) {
        may_refuse(o, 503);
        if (s->step == SENDER)
            may_refuse(o, 554);
    } else if (verb == BDAT_BARE_LF) {
        may(o, 550, at(s, UNSURE));
    } else {
        struct situation more = verb == BDAT_NONE ? *s : with_piece(*s, place);
        more.step = CHUNKS;
        if (last)
            commits(o, 250, more);
        else
            may(o, 250, more);
    }
}

/* RFC 1985 section 5: "may be issued at any time once a session is established, as long as there is not a transaction".
 * Without EHLO nobody has offered it. */
static void
etrn(struct outcomes *o)
{
    const struct situation *s = o->now;

    if (s->hello == HELLO_NONE || in_transaction(s) || s->step == UNSURE)
        may_refuse(o, 503);
    if (s->hello != HELLO_NONE && !in_transaction(s) && !login_first(o)) {
        may_refuse(o, 250);
        may_refuse(o, 251);
        may_refuse(o, 252);
        may_refuse(o, 253);
    }
}

static void
outcomes_of(struct outcomes *o, const struct situation *s, const struct seen *c)
{
    *o = (struct outcomes){ .now = s };
    switch (c->verb) {
    case EHLO:
        hello(o, HELLO_EHLO, c->talked_ahead);
        break;
    case HELO:
        hello(o, HELLO_HELO, c->talked_ahead);
        break;
    case EHLO_NAMELESS:
        may_refuse(o, 501);
        break;
    case MAIL:
    case MAIL_BAD:
    case MAIL_EXTENDED:
    case MAIL_HUGE:
    case MAIL_PARAMETER:
        mail(o, c->verb, c->place);
        break;
    case RCPT:
    case RCPT_UNKNOWN:
    case RCPT_SECOND_DOMAIN:
    case RCPT_BAD:
    case RCPT_BUSY:
        rcpt(o, c->verb, c->place);
        break;
    case DATA:
    case DATA_BARE_LF:
    case DATA_CUT:
    case DATA_ARGUMENT:
        data(o, c->verb, c->place, c->talked_ahead);
        break;
    case BDAT:
    case BDAT_LAST:
    case BDAT_BARE_LF:
    case BDAT_NONE:
    case BDAT_CUT:
    case BDAT_SIZELESS:
        bdat(o, c->verb, c->place);
        break;
    case RSET: /* 4.1.1.5 */
        may(o, 250, at(s, IDLE));
        break;
    case NOOP: /* 4.1.1.6 to 9: no effect, at any time */
        may_refuse(o, 250);
        break;
    case VRFY: /* standards 3.1: off */
        if (!login_first(o))
            may_refuse(o, 252);
        break;
    case EXPN:
        if (!login_first(o))
            may_refuse(o, 502);
        break;
    case HELP:
        may_refuse(o, 211);
        may_refuse(o, 214);
        break;
    case QUIT: /* 4.1.1.10: at any time, and a transaction at hand is dropped */
        may(o, 221, at(s, CLOSED));
        break;
    case ETRN:
        etrn(o);
        break;
    case STARTTLS:
        starttls(o, c->talked_ahead);
        break;
    case AUTH:
    case AUTH_RIGHT:
        auth(o, c->verb == AUTH_RIGHT);
        break;
    case XCLIENT:
    case XCLIENT_LOGIN:
    case XCLIENT_BAD:
        xclient(o, c->verb, c->place, c->talked_ahead);
        break;
    case TURN: /* 4.2.4: known, and not implemented */
        may_refuse(o, 502);
        break;
    case PROXY_LINE: /* standards 1.6: before the greeting, where it is expected; never guessed */
    case UNKNOWN:
    case EMPTY:
        may_refuse(o, 500);
        break;
    case VERBS_ALL:
        break;
    }
}

bool
verb_may_be_followed(enum verb v)
{
    switch (v) {
    case MAIL:
    case MAIL_BAD:
    case MAIL_EXTENDED:
    case MAIL_HUGE:
    case MAIL_PARAMETER:
    case RCPT:
    case RCPT_UNKNOWN:
    case RCPT_SECOND_DOMAIN:
    case RCPT_BAD:
    case RCPT_BUSY:
    case RSET:
    case BDAT:
    case BDAT_LAST:
    case BDAT_BARE_LF:
    case BDAT_NONE:
        return true;
    default:
        return false;
    }
}

/* ---- the form of replies ----------------------------------------------------------------------------------------- */

static bool
is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* RFC 3463 section 2: class "." subject "." detail, and behind it the text. */
static bool
begins_with_status(const char *text, size_t len, char class)
{
    size_t i = 2;

    if (len < 6 || text[0] != class || text[1] != '.')
        return false;
    for (int part = 0; part < 2; part++) {
        size_t digits = 0;
        while (i < len && is_digit(text[i])) {
            i++;
            digits++;
        }
        if (digits < 1 || digits > 3 || i >= len || text[i] != (part == 0 ? '.' : ' '))
            return false;
        i++;
    }
    return true;
}

static const char *
line_fault(enum verb verb, const char *line, size_t len, const char *first)
{
    bool is_greeting = verb == XCLIENT || verb == XCLIENT_LOGIN; /* which may have no enhanced code */
    bool is_hello = (verb == EHLO || verb == HELO || is_greeting) && line[0] == '2';

    if (len > 510)
        return "a line over 512 bytes"; /* section 4.5.3.1.5 */
    for (size_t i = 0; i < 3; i++)
        if (line[i] != first[i])
            return "another code on a further line";
    for (size_t i = 3; i < len; i++)
        if ((unsigned char)line[i] < ' ' || (unsigned char)line[i] > '~')
            return "a byte that is not printable ASCII";
    if (!is_hello && line[0] != '3' && (len < 4 || !begins_with_status(line + 4, len - 4, line[0])))
        return "no enhanced code of the reply's class"; /* RFC 2034 section 4 */
    return NULL;
}

/* What standards 1 says that we offer, as EHLO must list it. */
static const char *
offer_fault(const char *text, size_t len)
{
    static const char *const offers[] = { "PIPELINING", "SIZE", "8BITMIME", "ENHANCEDSTATUSCODES", "CHUNKING", "DSN",
                                          "SMTPUTF8", "ETRN", "HELP", "LIMITS" };

    for (size_t i = 0; i < sizeof offers / sizeof *offers; i++) {
        size_t word = strlen(offers[i]), at = 0;
        while (at + word < len && !(text[at] == '\n' && at + 5 + word < len &&
                                    memcmp(text + at + 5, offers[i], word) == 0 &&
                                    (text[at + 5 + word] == ' ' || text[at + 5 + word] == '\r')))
            at++;
        if (at + word >= len)
            return offers[i];
    }
    return NULL;
}

const char *
reply_fault(enum verb verb, const char *text, size_t len)
{
    size_t begin = 0, lines = 0;

    if (len < 5 || text[0] < '2' || text[0] > '5' || text[1] < '0' || text[1] > '5' || !is_digit(text[2]))
        return "no reply code";
    while (begin < len) {
        const char *end = memchr(text + begin, '\n', len - begin);
        size_t line = end ? (size_t)(end - text) - begin : 0;
        if (!end || line < 5 || end[-1] != '\r')
            return "a line without its CRLF";
        bool is_last = begin + line + 1 == len;
        if (text[begin + 3] != (is_last ? ' ' : '-'))
            return "neither space nor hyphen behind the code";
        const char *fault = line_fault(verb, text + begin, line - 1, text);
        if (fault)
            return fault;
        begin += line + 1;
        lines++;
    }
    if (verb == HELO && text[0] == '2' && lines != 1)
        return "several lines to HELO";
    return verb == EHLO && text[0] == '2' ? offer_fault(text, len) : NULL;
}

/* ---- belief ------------------------------------------------------------------------------------------------------ */

void
belief_begin(struct belief *b, bool submission, bool xclient, enum client client)
{
    *b = (struct belief){ .count = 1 };
    b->situations[0] = (struct situation){ .submission = submission, .xclient = xclient, .client = (uint8_t)client };
}

static bool
same_commit(const struct commit *a, const struct commit *b)
{
    return a->sender == b->sender && a->recipients == b->recipients && a->extended == b->extended &&
           a->encrypted == b->encrypted && a->authenticated == b->authenticated && a->client == b->client &&
           a->piece_count == b->piece_count && memcmp(a->pieces, b->pieces, a->piece_count) == 0;
}

/* The transaction that the outcome completes is the one that was seen to be. */
static bool
is_what_was_committed(const struct outcome *o, const struct seen *c)
{
    size_t which = (size_t)o->next.committed - 1;

    return which < c->commit_count && same_commit(&o->next.open, &c->commits[which]);
}

static void
believe(struct belief *b, const struct situation *s)
{
    for (size_t i = 0; i < b->count; i++) {
        const struct situation *is = &b->situations[i];
        if (is->hello == s->hello && is->step == s->step && is->encrypted == s->encrypted && is->client == s->client &&
            is->authenticated == s->authenticated && is->committed == s->committed && same_commit(&is->open, &s->open))
            return;
    }
    if (b->count < sizeof b->situations / sizeof *b->situations)
        b->situations[b->count++] = *s;
}

bool
belief_learn(struct belief *b, const struct seen *c)
{
    struct belief before = *b;
    struct outcomes o;

    b->count = 0;
    for (size_t i = 0; i < before.count; i++) {
        outcomes_of(&o, &before.situations[i], c);
        for (size_t k = 0; k < o.count; k++) {
            struct outcome *one = &o.list[k];
            if (one->code != c->code || one->final != c->final)
                continue;
            if (one->commits && !is_what_was_committed(one, c))
                continue;
            if (one->commits)
                one->next.open = (struct commit){ 0 };
            believe(b, &one->next);
        }
    }
    return b->count > 0;
}

bool
belief_settle(struct belief *b, size_t committed, bool closed)
{
    size_t kept = 0;

    for (size_t i = 0; i < b->count; i++)
        if (b->situations[i].committed == committed && (b->situations[i].step == CLOSED) == closed)
            b->situations[kept++] = b->situations[i];
    b->count = kept;
    return kept > 0;
}

static void
explain_commit(const struct commit *c, char *out, size_t cap)
{
    int n = snprintf(out, cap, " and a message (client %u, sender %u, recipients 0x%x, %s%s%s, content", c->client, c->sender,
                     c->recipients, c->extended ? "ESMTP" : "SMTP", c->encrypted ? "S" : "", c->authenticated ? "A" : "");

    for (size_t i = 0; i < c->piece_count && n > 0 && (size_t)n < cap; i++)
        n += snprintf(out + n, cap - (size_t)n, " %u", c->pieces[i]);
    if (n > 0 && (size_t)n < cap)
        snprintf(out + n, cap - (size_t)n, ")");
}

void
belief_explain(const struct belief *b, const struct seen *c, char *out, size_t cap)
{
    static const char *const steps[] = { "idle", "sender", "recipients", "chunks", "unsure", "closed" };
    size_t len = 0;
    struct outcomes o;

    out[0] = '\0';
    for (size_t i = 0; i < b->count; i++) {
        outcomes_of(&o, &b->situations[i], c);
        for (size_t k = 0; k < o.count && len < cap; k++) {
            char message[160] = "";
            if (o.list[k].commits)
                explain_commit(&o.list[k].next.open, message, sizeof message);
            int n = snprintf(out + len, cap - len, "%s%s: %u %u%s", len ? " | " : "", steps[b->situations[i].step],
                             o.list[k].code, o.list[k].final, message);
            len += n > 0 ? (size_t)n : 0;
        }
    }
}
