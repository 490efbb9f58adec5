/*
 * dsn - see dsn.h.
 *
 *     Content-Type: multipart/report; report-type=delivery-status; boundary=...
 *
 *       text/plain                         section WORDS, one paragraph for each recipient
 *       message/delivery-status            section STATUS, one block for each recipient
 *       message/rfc822                     section ORIGINAL; or text/rfc822-headers, or one of the
 *                                          message/global ones
 */
#include "message/dsn.h"

#include "base/check.h"
#include "message/date.h"
#include "message/domain.h"
#include "message/path.h"
#include "message/utf8.h"
#include "message/xtext.h"

enum section { SECTION_HEAD, SECTION_WORDS, SECTION_STATUS_HEAD, SECTION_STATUS, SECTION_ORIGINAL, SECTION_DONE };

enum { WORDS_WIDTH = 76, WORD_MAX = 900 };

struct action {
    struct str name, subject, status;
    struct str words;      /* what happened, to one or more recipients */
};
static const struct action actions[] = {
    [DSN_FAILED] = { STR("failed"), STR("Undelivered mail: your message did not reach its recipient"), STR("5.0.0"),
                     STR("Your message could not be delivered, and we have stopped trying.") },
    [DSN_DELAYED] = { STR("delayed"), STR("Delayed mail: your message is still on its way"), STR("4.0.0"),
                      STR("Your message has not been delivered yet. It is safe with us, and we keep trying: you do not "
                          "need to send it again.") },
    [DSN_DELIVERED] = { STR("delivered"), STR("Delivered: your message arrived"), STR("2.0.0"),
                        STR("Your message was delivered.") },
    [DSN_RELAYED] = { STR("relayed"), STR("Passed on: your message is with the next mail system"), STR("2.1.9"),
                      STR("Your message was passed on to the next mail system, which may send no confirmations. Unless it "
                          "fails there, this may be the last that you hear of it.") },
    [DSN_EXPANDED] = { STR("expanded"), STR("Delivered: your message went to a mailing list"), STR("2.0.0"),
                       STR("Your message was delivered to a list, and goes to its members from there.") },
};

/* What somebody can do about it, by the enhanced status code: the first whose end fits. */
static const struct {
    struct str subject; /* subject and detail of "x.1.1" */
    struct str advice;
} advices[] = {
    { STR(".1.1"),  STR("There is no such mailbox. Please check the part before the @ for a typing error.") },
    { STR(".1.2"),  STR("There is no such domain. Please check the part behind the @ for a typing error.") },
    { STR(".1.3"),  STR("The address is not written as addresses are. Please check it for a typing error.") },
    { STR(".1.10"), STR("This domain takes no mail at all. Please check the address for a typing error.") },
    { STR(".2.1"),  STR("The mailbox is closed. Please ask the recipient for another address.") },
    { STR(".2.2"),  STR("The mailbox is full. Please write again in a few days, or reach the recipient another way.") },
    { STR(".2.3"),  STR("The message is too large for this mailbox. Please send a smaller one, or a link.") },
    { STR(".3.4"),  STR("The message is too large. Please send a smaller one, or a link to what was attached.") },
    { STR(".4.4"),  STR("No mail server for the domain could be found. Please check the address for a typing error.") },
    { STR(".4.6"),  STR("The message went round in circles. Please tell the postmaster of the recipient's domain.") },
    { STR(".4.7"),  STR("The other mail system could not be reached, or put us off, until the time was up. Please try "
                        "again later, or reach the recipient another way.") },
    { STR(".6.7"),  STR("The other mail system does not know addresses with such letters. Please ask the recipient for "
                        "another address.") },
    { STR(".7.1"),  STR("The other mail system refused the message. What it said above may tell why; the postmaster "
                        "there can tell more.") },
};

static bool
is_utf8_address(struct str address)
{
    return !str_is_ascii(address) && utf8_is_valid(address);
}

static bool
has_utf8_recipient(const struct dsn *d)
{
    for (size_t i = 0; i < d->recipient_count; i++)
        if (is_utf8_address(d->recipients[i].address) || is_utf8_address(d->recipients[i].given))
            return true;
    return false;
}

bool
dsn_is_utf8(const struct dsn *d)
{
    return d->original_utf8 || is_utf8_address(d->to) || has_utf8_recipient(d);
}

enum body
dsn_body(const struct dsn *d)
{
    return d->original_body != BODY_7BIT || dsn_is_utf8(d) ? BODY_8BITMIME : BODY_7BIT;
}

static bool
has_action(const struct dsn *d, enum dsn_action action)
{
    for (size_t i = 0; i < d->recipient_count; i++)
        if (d->recipients[i].action == action)
            return true;
    return false;
}

/* What no conversion made fit for one next hop would stop its own notice at another. */
static bool
cannot_be_converted(const struct dsn *d)
{
    for (size_t i = 0; i < d->recipient_count; i++)
        if (d->recipients[i].action == DSN_FAILED && str_ends(d->recipients[i].status, S(".6.3")))
            return true;
    return false;
}

/* RFC 3461 section 4.3: RET is about failures; the others get the header only. What only BDAT could carry does too. */
bool
dsn_returns_full(const struct dsn *d)
{
    return has_action(d, DSN_FAILED) && d->ret != RET_HDRS && d->original_size <= DSN_FULL_MAX &&
           d->original_body != BODY_BINARYMIME && !cannot_be_converted(d);
}

static void
put_boundary(struct text *t, const struct dsn *d)
{
    text_put(t, S("=_"));
    message_id_put(t, d->id);
}

static void
put_part(struct text *t, const struct dsn *d, struct str type, bool eight_bit)
{
    text_put(t, S("\r\n--"));
    put_boundary(t, d);
    text_put(t, S("\r\nContent-Type: "));
    text_put(t, type);
    text_put(t, eight_bit ? S("\r\nContent-Transfer-Encoding: 8bit\r\n\r\n") : S("\r\n\r\n"));
}

/* Words of others and ours, broken into lines behind an indent. */
static void
put_words(struct text *t, struct str words, struct str indent, bool utf8)
{
    size_t column = 0;
    bool keep = utf8 && utf8_is_valid(words);

    while ((words = str_trim(words)).len) {
        size_t len = 0;
        while (len < words.len && (unsigned char)words.ptr[len] > ' ')
            len++;
        len = len == 0 ? 1 : len > WORD_MAX ? utf8_cut(words, WORD_MAX).len : len;
        bool fits = column == 0 || column + 1 + len <= WORDS_WIDTH;
        if (!fits)
            text_put(t, S("\r\n"));
        text_put(t, column == 0 || !fits ? indent : S(" "));
        column = column == 0 || !fits ? indent.len + len : column + 1 + len;
        for (size_t i = 0; i < len; i++) {
            char c = words.ptr[i];
            text_put_byte(t, byte_is_control(c) || (c & 0x80 && !keep) ? '?' : c);
        }
        words = str_from(words, len);
    }
    text_put(t, S("\r\n"));
}

static void
put_date_field(struct text *t, struct str name, int64_t wall)
{
    text_put(t, name);
    text_put(t, S(": "));
    date_put(t, wall);
    text_put(t, S("\r\n"));
}

/* Header of the notice and first lines of its first part. */
static void
put_head(struct text *t, const struct dsn *d)
{
    enum dsn_action worst = DSN_FAILED;
    bool utf8 = dsn_is_utf8(d);

    while (!has_action(d, worst))
        worst++;
    put_date_field(t, S("Date"), d->now_wall);
    text_put(t, S("From: Mail Delivery System <MAILER-DAEMON@"));
    text_put(t, d->hostname);
    text_put(t, S(">\r\n"));
    header_put(t, S("To"), d->to, utf8);
    header_put(t, S("Subject"), actions[worst].subject, false);
    text_put(t, S("Message-ID: <"));
    message_id_put(t, d->id);
    text_put_byte(t, '@');
    text_put(t, d->hostname);
    text_put(t, S(">\r\nAuto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n"
                  "Content-Type: multipart/report; report-type="));
    text_put(t, has_utf8_recipient(d) ? S("global-delivery-status") : S("delivery-status"));
    text_put(t, S(";\r\n boundary=\""));
    put_boundary(t, d);
    text_put(t, dsn_body(d) == BODY_8BITMIME ? S("\"\r\nContent-Transfer-Encoding: 8bit\r\n") : S("\"\r\n"));
    text_put(t, S("\r\nThis is a delivery status notice in MIME format.\r\n"));
    put_part(t, d, utf8 ? S("text/plain; charset=utf-8") : S("text/plain; charset=us-ascii"), utf8);
    put_words(t, actions[worst].words, S(""), false);
    text_put(t, S("\r\nThis notice is from the mail system of "));
    text_put(t, d->hostname);
    text_put(t, S(", about the message\r\nthat it took on "));
    date_put(t, d->arrival_wall);
    text_put(t, S(" as "));
    message_id_put(t, d->original);
    text_put(t, S(".\r\n"));
}

/* RFC 3463 section 2: class, subject and detail. */
static bool
is_status(struct str s)
{
    struct str class = str_cut(&s, '.'), subject = str_cut(&s, '.');
    uint64_t number;

    return class.len == 1 && str_has_byte(S("245"), class.ptr[0]) && subject.len <= 3 && s.len <= 3 &&
           str_to_u64(subject, &number) && str_to_u64(s, &number);
}

static struct str
status_of(const struct dsn_recipient *r)
{
    return is_status(r->status) ? r->status : actions[r->action].status;
}

static struct str
advice_for(const struct dsn_recipient *r)
{
    struct str subject = str_from(status_of(r), 1);

    for (size_t i = 0; i < sizeof advices / sizeof *advices; i++)
        if (r->action == DSN_FAILED && str_eq(subject, advices[i].subject))
            return advices[i].advice;
    return S("");
}

/* Only a server's own words begin with a reply code: what we found wrong with it, or before we reached it, has none. */
static bool
is_remote_reply(const struct dsn_recipient *r)
{
    uint64_t code;

    return r->remote.len && str_to_u64(str_slice(r->reply, 0, 3), &code) && code >= 100;
}

/* The paragraph of one recipient, for people. */
static void
put_recipient_words(struct text *t, const struct dsn *d, const struct dsn_recipient *r)
{
    bool utf8 = dsn_is_utf8(d);

    text_put(t, S("\r\n"));
    put_words(t, r->address, S(""), utf8);
    if (r->given.len && !str_eq(r->given, r->address)) {
        text_put(t, S("    (you wrote to)\r\n"));
        put_words(t, r->given, S("    "), utf8);
    }
    if (r->reply.len) {
        if (r->remote.len) {
            put_words(t, r->remote, S("    "), false);
            text_put(t, is_remote_reply(r) ? S("    said:\r\n") : S("    was tried:\r\n"));
        }
        put_words(t, r->reply, S("        "), utf8);
    }
    struct str advice = advice_for(r);
    if (advice.len)
        put_words(t, advice, S("    "), false);
    if (r->action == DSN_DELAYED && r->retry_until_wall) {
        text_put(t, S("    We try until "));
        date_put(t, r->retry_until_wall);
        text_put(t, S(", and tell you if it is in vain.\r\n"));
    }
}

static void
put_status_head(struct text *t, const struct dsn *d)
{
    char memory[LIMIT_ENVID + 1];
    struct text envid = text_init(memory, sizeof memory);
    bool utf8 = has_utf8_recipient(d);

    put_part(t, d, utf8 ? S("message/global-delivery-status") : S("message/delivery-status"), utf8);
    text_put(t, S("Reporting-MTA: dns; "));
    text_put(t, d->hostname);
    text_put(t, S("\r\n"));
    if (d->envid.len && xtext_decode(d->envid, &envid))
        header_put(t, S("Original-Envelope-Id"), text_str(&envid), false);
    put_date_field(t, S("Arrival-Date"), d->arrival_wall);
    text_put(t, S("X-Postrider-Queue-Id: "));
    message_id_put(t, d->original);
    text_put(t, S("\r\n"));
}

static void
put_typed(struct text *t, struct str field, struct str type, struct str value, bool utf8)
{
    char memory[LIMIT_COMMAND_LINE + 64];
    struct text typed = text_init(memory, sizeof memory);

    text_put(&typed, type);
    text_put(&typed, S("; "));
    text_put(&typed, value);
    header_put(t, field, text_str(&typed), utf8);
}

static void
put_recipient_status(struct text *t, const struct dsn *d, const struct dsn_recipient *r)
{
    char memory[3 * LIMIT_ORCPT]; /* two bytes of a letter are six as \x{E4} */
    struct text orcpt = text_init(memory, sizeof memory);
    bool utf8 = has_utf8_recipient(d);

    text_put(t, S("\r\n"));
    if (r->orcpt.len) {
        orcpt_put_decoded(&orcpt, r->orcpt, utf8);
        struct str address = text_str(&orcpt), type = str_cut(&address, ';');
        if (!orcpt.full) /* the field is optional, and half an address is another one */
            put_typed(t, S("Original-Recipient"), type, address, utf8);
    }
    put_typed(t, S("Final-Recipient"), is_utf8_address(r->address) ? S("utf-8") : S("rfc822"), r->address, utf8);
    header_put(t, S("Action"), actions[r->action].name, false);
    header_put(t, S("Status"), status_of(r), false);
    if (r->remote.len) {
        struct str remote = r->remote;
        put_typed(t, S("Remote-MTA"), S("dns"), str_cut_word(&remote), false);
    }
    if (r->reply.len)
        put_typed(t, S("Diagnostic-Code"), is_remote_reply(r) ? S("smtp") : S("X-Postrider"), r->reply, utf8);
    if (r->action == DSN_DELAYED && r->retry_until_wall)
        put_date_field(t, S("Will-Retry-Until"), r->retry_until_wall);
}

static void
put_original_head(struct text *t, const struct dsn *d)
{
    bool eight_bit = d->original_body != BODY_7BIT || d->original_utf8;

    if (dsn_returns_full(d))
        put_part(t, d, d->original_utf8 ? S("message/global") : S("message/rfc822"), eight_bit);
    else
        put_part(t, d, d->original_utf8 ? S("message/global-headers") : S("text/rfc822-headers"), eight_bit);
}

bool
dsn_next(struct dsn_writer *w, struct text *t)
{
    const struct dsn *d = w->dsn;

    CHECK(d->recipient_count > 0);
    CHECK(t->cap - t->len >= DSN_PIECE);
    if (w->section == SECTION_DONE)
        return false;
    switch ((enum section)w->section) {
    case SECTION_HEAD:
        put_head(t, d);
        break;
    case SECTION_WORDS:
        put_recipient_words(t, d, &d->recipients[w->index]);
        break;
    case SECTION_STATUS_HEAD:
        put_status_head(t, d);
        break;
    case SECTION_STATUS:
        put_recipient_status(t, d, &d->recipients[w->index]);
        break;
    case SECTION_ORIGINAL:
        put_original_head(t, d);
        break;
    case SECTION_DONE:
        UNREACHABLE();
    }
    CHECK(!t->full);
    bool each = w->section == SECTION_WORDS || w->section == SECTION_STATUS;
    if (each && ++w->index < d->recipient_count)
        return true;
    w->index = 0;
    w->section++;
    return true;
}

bool
dsn_wants_original(const struct dsn_writer *w)
{
    return dsn_returns_full(w->dsn) || (!w->header.found && w->original_bytes < LIMIT_HEADER_BYTES);
}

struct str
dsn_original(struct dsn_writer *w, struct str piece)
{
    size_t len = piece.len;

    CHECK(w->section == SECTION_DONE);
    if (dsn_returns_full(w->dsn))
        return piece;
    if (!dsn_wants_original(w))
        return str_slice(piece, 0, 0);
    header_end_feed(&w->header, piece, &len);
    w->original_bytes += len;
    return str_slice(piece, 0, len);
}

void
dsn_end(struct dsn_writer *w, struct text *t)
{
    text_put(t, S("\r\n--"));
    put_boundary(t, w->dsn);
    text_put(t, S("--\r\n"));
}
