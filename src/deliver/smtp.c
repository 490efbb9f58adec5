/*
 * smtp - one delivery attempt, from the list of hosts down to the single reply.
 *
 * smtp_deliver()          prepares the recipients, walks the preferences, and defers what is left at the end
 *   try_preference()      resolves all hosts of one preference, then tries their addresses
 *     try_target()        one address: as many connections as make progress
 *       use_connection()  transactions, until nobody is pending or the connection is done
 *         settle()        the reply table of standards 5.2
 *
 * A recipient is pending until it has its outcome. `trouble` is what we will say of those that are still pending at the
 * end: the last thing that went wrong, but a server's words are not replaced by our own.
 *
 * Memory: outcomes go to the caller's arena, once for each recipient at most (and once for a reply that is for many).
 * All else lives in two arenas of our own: `job` for the whole attempt, `scratch` for what one transaction or lookup
 * needs.
 */
#include "deliver/smtp.h"

#include "base/check.h"
#include "message/convert.h"
#include "message/domain.h"

enum {
    TOO_MANY_AT = 100,             /* a 552 or 452 that says no more counts as "too many" from here on: standards 5.2 */
    RESOLVE_S = 60,
    RAW_BYTES = 16 << 10,          /* of content, on its way through a conversion or a scan */
    REASON_BYTES = LIMIT_REPLY_TEXT,
    REMOTE_BYTES = 2 * LIMIT_DOMAIN,
};

struct addressee { /* a recipient, prepared for the wire */
    struct recipient recipient;    /* address: with A-labels where that makes it ASCII */
    struct str reverse_path;       /* the same for the sender */
    bool needs_utf8;               /* no way to say it in ASCII */
    bool pending;
};

struct target {
    const struct delivery_host *host;
    struct address to;
    struct str text;               /* "mx.example.org [192.0.2.1]:25" */
};

struct trouble {
    struct outcome outcome;        /* strings point into the memory below */
    bool set;
    char reply[REASON_BYTES], remote[REMOTE_BYTES], enhanced[16];
};

struct attempt {
    struct rt *rt;
    const struct delivery_job *job;
    const struct delivery_settings *settings;
    const struct delivery_hooks *hooks;
    struct connections *connections;
    struct arena *arena;           /* the caller's */
    struct outcome *outcomes;
    struct delivery_figures *figures;
    struct arena own_job, own_scratch;
    const struct mime_needs *needs; /* NULL: the content was not looked at; in own_job */
    struct addressee *addressees;
    size_t pending;
    bool stop;                     /* no other host, whoever is pending */
    bool only_521;                 /* every host so far said that it takes no mail: RFC 7504 */
    bool only_absent;              /* every host so far authoritatively has no address */
    bool tried;                    /* some host's turn came */
    struct trouble trouble;
};

/* ---- outcomes ------------------------------------------------------------------------------------------------- */

static void
settle_one(struct attempt *a, size_t index, struct outcome outcome)
{
    CHECK(a->addressees[index].pending);
    CHECK(outcome.enhanced.len > 0);
    a->addressees[index].pending = false;
    a->pending--;
    a->outcomes[index] = outcome;
}

static void
settle_all_pending(struct attempt *a, struct outcome outcome)
{
    for (size_t i = 0; i < a->job->recipient_count; i++)
        if (a->addressees[i].pending)
            settle_one(a, i, outcome);
}

static char
class_of(enum outcome_kind kind)
{
    return kind == OUTCOME_FAILED ? '5' : kind == OUTCOME_DEFERRED ? '4' : '2';
}

/* For servers that give no enhanced code of their own: RFC 3463 as RFC 5248 lists it, behind the class. */
static struct str
enhanced_default(uint16_t code)
{
    static const struct {
        uint16_t code;
        struct str rest;
    } known[] = {
        { 421, STR(".3.2") }, { 450, STR(".2.0") }, { 451, STR(".3.0") }, { 452, STR(".3.1") }, { 454, STR(".7.0") },
        { 521, STR(".3.2") }, { 530, STR(".7.0") }, { 551, STR(".1.6") }, { 552, STR(".3.4") }, { 553, STR(".1.3") },
        { 555, STR(".5.4") }, { 556, STR(".1.10") },
    };

    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (known[i].code == code)
            return known[i].rest;
    return S(".0.0");
}

/* The remote's enhanced code, its class as what we make of the reply: a 5.7.1 in a greeting still defers, as 4.7.1. */
static struct str
enhanced_of(const struct remote_reply *reply, enum outcome_kind kind, struct arena *arena)
{
    struct str rest = reply->enhanced.len > 0 ? str_from(reply->enhanced, 1) : enhanced_default(reply->code);

    return arena_printf(arena, "%c%.*s", class_of(kind), STR_ARG(rest));
}

static struct outcome
outcome_of_reply(struct attempt *a, const struct target *to, const struct remote_reply *reply, enum outcome_kind kind,
                 enum outcome_about about)
{
    return (struct outcome){
        .kind = (uint8_t)kind,
        .about = (uint8_t)about,
        .enhanced = enhanced_of(reply, kind, a->arena),
        .reply = arena_keep(a->arena, reply->text),
        .remote = arena_keep(a->arena, to->text),
    };
}

/* reason: must not begin with a digit. */
static struct outcome
outcome_of_reason(struct attempt *a, const struct target *to, enum outcome_kind kind, enum outcome_about about,
                  struct str enhanced, struct str reason)
{
    CHECK(enhanced.ptr[0] == class_of(kind));
    return (struct outcome){
        .kind = (uint8_t)kind,
        .about = (uint8_t)about,
        .enhanced = enhanced,
        .reply = arena_keep(a->arena, reason),
        .remote = to ? arena_keep(a->arena, to->text) : S(""),
    };
}

static struct str
kept_in(char *memory, size_t cap, struct str s)
{
    struct text t = text_init(memory, cap);

    text_put(&t, str_slice(s, 0, cap));
    return text_str(&t);
}

static void
remember(struct attempt *a, struct outcome outcome)
{
    struct trouble *trouble = &a->trouble;

    if (trouble->set && outcome_is_remote(&trouble->outcome) && !outcome_is_remote(&outcome))
        return;
    trouble->set = true;
    trouble->outcome = outcome;
    trouble->outcome.reply = kept_in(trouble->reply, sizeof trouble->reply, outcome.reply);
    trouble->outcome.remote = kept_in(trouble->remote, sizeof trouble->remote, outcome.remote);
    trouble->outcome.enhanced = kept_in(trouble->enhanced, sizeof trouble->enhanced, outcome.enhanced);
}

/* The next host may do better. */
static void
trouble_reply(struct attempt *a, const struct target *to, const struct remote_reply *reply, enum outcome_about about)
{
    remember(a, (struct outcome){
                    .kind = OUTCOME_DEFERRED,
                    .about = (uint8_t)about,
                    .enhanced = enhanced_of(reply, OUTCOME_DEFERRED, &a->own_scratch),
                    .reply = reply->text,
                    .remote = to->text,
                });
    if (reply->code != 521)
        a->only_521 = false;
    a->only_absent = false;
}

static void
trouble_reason(struct attempt *a, const struct target *to, enum outcome_about about, struct str enhanced,
               struct str reason)
{
    remember(a, (struct outcome){
                    .kind = OUTCOME_DEFERRED,
                    .about = (uint8_t)about,
                    .enhanced = enhanced,
                    .reply = reason,
                    .remote = to ? to->text : S(""),
                });
    a->only_521 = a->only_absent = false;
}

static struct str
reason_of_err(struct attempt *a, const char *doing, struct err e)
{
    struct text t = text_init(arena_alloc(&a->own_scratch, REASON_BYTES), REASON_BYTES);

    text_put(&t, str_from_cstr(doing));
    text_put(&t, S(": "));
    err_text(e, &t);
    return text_str(&t);
}

/* A fiber that is asked to end starts nothing new. */
static bool
is_cancelled(struct attempt *a, struct err e)
{
    if (e.kind != ERR_CANCELLED)
        return false;
    a->stop = true;
    trouble_reason(a, NULL, OUTCOME_ABOUT_MESSAGE, S("4.3.2"), S("delivery was interrupted: we are shutting down"));
    return true;
}

/* ---- content -------------------------------------------------------------------------------------------------- */

/* The message as a transaction sends it: trace fields, then the content, converted if the next hop needs that. */
struct source {
    struct attempt *a;
    size_t trace_at;
    uint64_t offset;
    struct convert *convert;       /* NULL: the content goes as it is; else the rest is in use */
    bool raw_ended, ended;
    struct str rest;               /* of raw: not converted yet */
    size_t converted_at;           /* of converted: taken already */
    struct text converted;
    char *raw;
};

static size_t
copy(void *memory, size_t cap, struct str from)
{
    struct text t = text_init(memory, cap);

    text_put(&t, str_slice(from, 0, cap));
    return t.len;
}

/* The hook's content; its length must be what the envelope says: half a message must never look like a whole one. */
static struct err
content_read(struct attempt *a, uint64_t *offset, void *memory, size_t cap, int64_t until, size_t *out_len)
{
    uint64_t size = a->job->envelope->size;

    TRY(a->hooks->read(a->hooks->arg, *offset, memory, cap, until, out_len));
    *offset += *out_len;
    if (*offset > size || (*out_len == 0 && *offset < size))
        return ERR(ERR_CORRUPT, "read the message: not as long as its envelope says");
    return OK;
}

/* Converts until there is something to give, or nothing more. */
static struct err
source_convert(struct source *source, int64_t until)
{
    source->converted.len = source->converted_at = 0;
    while (source->converted.len == 0 && !source->ended) {
        if (source->rest.len == 0 && !source->raw_ended) {
            size_t len;

            TRY(content_read(source->a, &source->offset, source->raw, RAW_BYTES, until, &len));
            source->rest = str_new(source->raw, len);
            source->raw_ended = len == 0;
        }
        if (source->rest.len > 0)
            convert_feed(source->convert, &source->rest, &source->converted);
        else if (source->raw_ended)
            source->ended = convert_end(source->convert, &source->converted);
    }
    return OK;
}

static struct err
source_read(void *arg, void *memory, size_t cap, int64_t until, size_t *out_len)
{
    struct source *source = arg;
    struct str trace = str_from(source->a->job->envelope->trace, source->trace_at);

    if (trace.len > 0) {
        *out_len = copy(memory, cap, trace);
        source->trace_at += *out_len;
        return OK;
    }
    if (!source->convert)
        return content_read(source->a, &source->offset, memory, cap, until, out_len);
    if (source->converted_at == source->converted.len)
        TRY(source_convert(source, until));
    *out_len = copy(memory, cap, str_from(text_str(&source->converted), source->converted_at));
    source->converted_at += *out_len;
    return OK;
}

/* What the content needs, part by part: read once for an attempt, and only where a next hop makes us ask. */
static struct err
scan_content(struct attempt *a)
{
    int64_t block = a->settings->times.block > 0 ? a->settings->times.block : LIMIT_BLOCK_NS;
    char *raw = arena_alloc(&a->own_job, RAW_BYTES);
    struct mime_scan *scan = mime_scan_new(&a->own_job);
    uint64_t offset = 0;
    size_t len;

    do {
        TRY(content_read(a, &offset, raw, RAW_BYTES, within(a->rt, block), &len));
        mime_scan_feed(scan, str_new(raw, len));
    } while (len > 0);
    a->needs = mime_scan_end(scan);
    return OK;
}

/* ---- transactions --------------------------------------------------------------------------------------------- */

enum next {
    NEXT_HOST,            /* nothing more here */
    NEXT_CONNECTION,      /* this one is spent, a new one to the same address may do */
    NEXT_CONNECTION_HELO, /* the same, without EHLO */
};

struct batch { /* the recipients of one transaction */
    const struct recipient *rcpt[LIMIT_RCPT_PER_JOB];
    size_t index[LIMIT_RCPT_PER_JOB]; /* in job->recipients */
    size_t count;
    struct client_transaction t;
    struct source source;
    struct remote_reply rcpt_reply[LIMIT_RCPT_PER_JOB], final_reply[LIMIT_RCPT_PER_JOB];
};

static struct str
domain_of(struct str address)
{
    return str_from(address, str_find_last_byte(address, '@') + 1);
}

/* May this one join? RCPTDOMAINMAX counts different domains: RFC 9422 section 5.3. */
static bool
batch_has_room(const struct batch *batch, const struct client_features *features, struct str domain)
{
    size_t domains = 1;

    if (batch->count == LIMIT_RCPT_PER_JOB || (features->rcpt_max > 0 && batch->count >= features->rcpt_max))
        return false;
    if (features->rcpt_domain_max == 0)
        return true;
    for (size_t i = 0; i < batch->count; i++) {
        struct str one = domain_of(batch->rcpt[i]->address);
        bool seen = str_eq_nocase(one, domain);

        for (size_t j = 0; j < i && !seen; j++)
            seen = str_eq_nocase(one, domain_of(batch->rcpt[j]->address));
        domains += !seen;
    }
    return domains <= features->rcpt_domain_max;
}

/* Pending recipients that share a reverse-path, as many as one transaction takes. */
static void
batch_gather(struct attempt *a, struct batch *batch, const struct client_features *features)
{
    for (size_t i = 0; i < a->job->recipient_count; i++) {
        struct addressee *one = &a->addressees[i];

        if (!one->pending || (batch->count > 0 && !str_eq(one->reverse_path, batch->t.reverse_path))
            || !batch_has_room(batch, features, domain_of(one->recipient.address)))
            continue;
        batch->t.reverse_path = one->reverse_path;
        batch->rcpt[batch->count] = &one->recipient;
        batch->index[batch->count++] = i;
    }
    CHECK(batch->count > 0);
}

static void
batch_drop(struct batch *batch, size_t at)
{
    batch->count--;
    for (size_t i = at; i < batch->count; i++) {
        batch->rcpt[i] = batch->rcpt[i + 1];
        batch->index[i] = batch->index[i + 1];
    }
}

static void
batch_settle(struct attempt *a, const struct batch *batch, struct outcome outcome)
{
    for (size_t i = 0; i < batch->count; i++)
        if (a->addressees[batch->index[i]].pending)
            settle_one(a, batch->index[i], outcome);
}

/* No host could send that. */
static void
stop_unreadable(struct attempt *a, struct err e)
{
    a->stop = true;
    if (!is_cancelled(a, e))
        trouble_reason(a, NULL, OUTCOME_ABOUT_MESSAGE, S("4.3.0"), reason_of_err(a, "cannot read the message", e));
}

static bool
batch_fail(struct attempt *a, const struct target *to, const struct batch *batch, struct str enhanced,
           struct str reason)
{
    batch_settle(a, batch, outcome_of_reason(a, to, OUTCOME_FAILED, OUTCOME_ABOUT_MESSAGE, enhanced, reason));
    return false;
}

/*
 * SMTPUTF8 by need: the flag of the message alone does not prove it (RFC 6531 section 3.6), what is not ASCII in
 * addresses and header fields does.
 */
static bool
batch_fit_addresses(struct attempt *a, const struct target *to, struct batch *batch,
                    const struct client_features *features)
{
    struct client_transaction *t = &batch->t;
    bool takes_utf8 = client_has(features, CLIENT_SMTPUTF8) && client_has(features, CLIENT_8BITMIME);
    bool header = a->job->envelope->smtputf8 && a->needs && a->needs->header_8bit;
    bool sender = !str_is_ascii(t->reverse_path);

    if (header && !takes_utf8)
        return batch_fail(a, to, batch, S("5.6.9"), S("the next hop takes no internationalized header fields"));
    if (sender && !takes_utf8)
        return batch_fail(a, to, batch, S("5.6.7"), S("the next hop takes no internationalized sender address"));
    t->smtputf8 = header || sender;
    for (size_t i = batch->count; i-- > 0; ) {
        if (!a->addressees[batch->index[i]].needs_utf8)
            continue;
        if (takes_utf8) {
            t->smtputf8 = true;
            continue;
        }
        settle_one(a, batch->index[i],
                   outcome_of_reason(a, to, OUTCOME_FAILED, OUTCOME_ABOUT_RECIPIENT, S("5.6.7"),
                                     S("the next hop takes no internationalized addresses")));
        batch_drop(batch, i);
    }
    return batch->count > 0;
}

static bool
takes_body(const struct client_features *features, uint8_t body)
{
    if (body == BODY_BINARYMIME)
        return client_has(features, CLIENT_BINARYMIME) && client_has(features, CLIENT_CHUNKING);
    return body == BODY_7BIT || client_has(features, CLIENT_8BITMIME);
}

/* Converted where the next hop takes less than the content needs: RFC 6152 section 3. */
static bool
batch_fit_body(struct attempt *a, const struct target *to, struct batch *batch, const struct client_features *features)
{
    struct client_transaction *t = &batch->t;
    bool takes_8bit = client_has(features, CLIENT_8BITMIME);
    enum convert_to form = takes_8bit ? CONVERT_TO_8BIT : CONVERT_TO_7BIT;

    if (takes_body(features, t->body))
        return true;
    t->body = takes_8bit ? BODY_8BITMIME : BODY_7BIT;
    switch (convert_check(a->needs, form)) {
    case CONVERT_NOT_NEEDED:
        return true;
    case CONVERT_IMPOSSIBLE:
        return batch_fail(a, to, batch, S("5.6.3"),
                          S("the next hop takes no 8-bit content, and this cannot be converted"));
    case CONVERT_NEEDED:
        break;
    }
    batch->source.convert = convert_new(&a->own_scratch, a->needs, form);
    batch->source.raw = arena_alloc(&a->own_scratch, RAW_BYTES);
    batch->source.converted = text_init(arena_alloc(&a->own_scratch, RAW_BYTES), RAW_BYTES);
    return true;
}

/* What this server cannot take ends here, before it is asked. True: there is somebody to send to. */
static bool
batch_fit(struct attempt *a, const struct target *to, struct batch *batch, const struct client_features *features)
{
    struct client_transaction *t = &batch->t;
    bool look = !t->probe && t->body != BODY_7BIT && (a->job->envelope->smtputf8 || !takes_body(features, t->body));
    struct err e = look && !a->needs ? scan_content(a) : OK;

    if (err_is(e)) {
        stop_unreadable(a, e);
        return false;
    }
    if (features->size_max > 0 && t->size > features->size_max)
        return batch_fail(a, to, batch, S("5.3.4"),
                          arena_printf(&a->own_scratch, "the message has %llu bytes, the next hop takes %llu",
                                       (unsigned long long)t->size, (unsigned long long)features->size_max));
    if (!batch_fit_addresses(a, to, batch, features))
        return false;
    return t->probe || batch_fit_body(a, to, batch, features);
}

/* "Too many recipients": for the rest, another transaction. RFC 5321 section 4.5.3.1.10 on 552. */
static bool
is_too_many(const struct remote_reply *r, size_t accepted_before)
{
    if (r->code != 452 && r->code != 552)
        return false;
    if (r->enhanced.len > 0)
        return str_eq(str_from(r->enhanced, 1), S(".5.3"));
    return accepted_before >= TOO_MANY_AT;
}

static struct outcome
outcome_of_success(struct attempt *a, const struct target *to, const struct batch *batch, size_t at,
                   const struct remote_reply *reply)
{
    const struct delivery_settings *settings = a->settings;
    struct outcome outcome = outcome_of_reply(a, to, reply, OUTCOME_DELIVERED, OUTCOME_ABOUT_RECIPIENT);

    outcome.dsn_passed_on = batch->t.dsn_passed_on;
    /* LMTP is the end of the way, so success there is delivery; RFC 3461 section 5.2.2 (e) is about other MTAs. */
    if (!outcome.dsn_passed_on && !settings->lmtp && (batch->rcpt[at]->notify & NOTIFY_SUCCESS))
        outcome.kind = OUTCOME_RELAYED;
    return outcome;
}

static struct outcome
outcome_of_final(struct attempt *a, const struct target *to, const struct batch *batch, size_t at,
                 const struct remote_reply *reply)
{
    enum outcome_about about = a->settings->lmtp ? OUTCOME_ABOUT_RECIPIENT : OUTCOME_ABOUT_MESSAGE;

    if (remote_reply_is_positive(reply))
        return outcome_of_success(a, to, batch, at, reply);
    return outcome_of_reply(a, to, reply, remote_reply_is_permanent(reply) ? OUTCOME_FAILED : OUTCOME_DEFERRED, about);
}

/*
 * Those that RCPT refused, each alone; in a probe, the others too. Too many for one transaction stay pending, if this
 * one had room for some.
 */
static void
settle_rcpt(struct attempt *a, const struct target *to, const struct batch *batch)
{
    size_t accepted_before = 0;

    for (size_t i = 0; i < batch->count; i++) {
        const struct remote_reply *r = &batch->rcpt_reply[i];
        bool too_many = is_too_many(r, accepted_before);

        if (remote_reply_is_positive(r) && batch->t.probe)
            settle_one(a, batch->index[i], outcome_of_success(a, to, batch, i, r));
        else if (remote_reply_is_positive(r))
            accepted_before++;
        else if (r->code == 0 || r->code == 421 || (too_many && batch->t.accepted > 0))
            continue;
        else
            settle_one(a, batch->index[i],
                       outcome_of_reply(a, to, r,
                                        remote_reply_is_permanent(r) && !too_many ? OUTCOME_FAILED : OUTCOME_DEFERRED,
                                        OUTCOME_ABOUT_RECIPIENT));
    }
}

/* All replies to the content, or as many as came. `unknown`: for an accepted recipient that got none. */
static void
settle_content(struct attempt *a, const struct target *to, const struct batch *batch, struct str unknown)
{
    const struct client_transaction *t = &batch->t;

    for (size_t i = 0; i < batch->count; i++) {
        const struct remote_reply *reply = &t->final;

        if (!remote_reply_is_positive(&batch->rcpt_reply[i]))
            continue;
        if (a->settings->lmtp && batch->final_reply[i].code != 0)
            reply = &batch->final_reply[i];
        if (reply->code != 0)
            settle_one(a, batch->index[i], outcome_of_final(a, to, batch, i, reply));
        else
            settle_one(a, batch->index[i],
                       outcome_of_reason(a, to, OUTCOME_DEFERRED, OUTCOME_ABOUT_MESSAGE, S("4.4.2"), unknown));
    }
}

/* 421: the server closes. Defer the rest, fail nothing: standards 5.2. */
static void
settle_closing(struct attempt *a, const struct target *to, const struct remote_reply *reply)
{
    trouble_reply(a, to, reply, OUTCOME_ABOUT_DESTINATION);
    a->stop = true;
}

static const struct remote_reply *
find_421(const struct batch *batch)
{
    for (size_t i = 0; i < batch->count; i++)
        if (batch->rcpt_reply[i].code == 421)
            return &batch->rcpt_reply[i];
    return batch->t.final.code == 421 ? &batch->t.final : NULL;
}

/* The decided reply table, standards 5.2. lost: how client_send() ended. */
static enum next
settle(struct attempt *a, const struct target *to, const struct batch *batch, struct err lost, bool reused)
{
    const struct client_transaction *t = &batch->t;
    static const char *const while_at[] = {
        [CLIENT_AT_MAIL] = "lost the connection after MAIL",
        [CLIENT_AT_RCPT] = "lost the connection after RCPT",
        [CLIENT_AT_DATA] = "lost the connection after DATA",
        [CLIENT_AT_CONTENT] = "lost the connection while sending the message",
        [CLIENT_AT_FINAL] = "lost the connection after the end of the message, so it may have been taken",
        [CLIENT_AT_END] = "lost the connection after the end of the message",
    };

    /* A server may close an idle connection at any time, and we learn it here. */
    bool lost_at_mail = err_is(lost) && t->stage == CLIENT_AT_MAIL && lost.kind != ERR_CANCELLED;
    if (reused && (lost_at_mail || t->mail.code == 421))
        return NEXT_CONNECTION;
    if (remote_reply_is_permanent(&t->mail)) {
        batch_settle(a, batch, outcome_of_reply(a, to, &t->mail, OUTCOME_FAILED, OUTCOME_ABOUT_MESSAGE));
        return NEXT_CONNECTION;
    }
    if (remote_reply_is_transient(&t->mail)) {
        trouble_reply(a, to, &t->mail, OUTCOME_ABOUT_MESSAGE);
        return NEXT_HOST;
    }
    if (remote_reply_is_positive(&t->mail))
        settle_rcpt(a, to, batch);
    if (t->source_failed) {
        stop_unreadable(a, lost);
        return NEXT_HOST;
    }

    bool past_data = t->stage >= CLIENT_AT_CONTENT && t->accepted > 0;
    if (past_data && t->final.code != 0) {
        settle_content(a, to, batch, reason_of_err(a, while_at[t->stage], lost));
    } else if (err_is(lost) && t->stage < CLIENT_AT_FINAL) {
        if (!is_cancelled(a, lost))
            trouble_reason(a, to, t->stage < CLIENT_AT_CONTENT ? OUTCOME_ABOUT_DESTINATION : OUTCOME_ABOUT_MESSAGE,
                           S("4.4.2"), reason_of_err(a, while_at[t->stage], lost));
        return NEXT_HOST;
    } else if (past_data) {
        settle_content(a, to, batch, reason_of_err(a, while_at[t->stage], lost));
        if (is_cancelled(a, lost))
            return NEXT_HOST;
    } else if (remote_reply_is_transient(&t->data) && t->accepted > 0) {
        trouble_reply(a, to, &t->data, OUTCOME_ABOUT_MESSAGE);
        return NEXT_HOST;
    } else if (remote_reply_is_permanent(&t->data) && t->accepted > 0) {
        struct outcome refused = outcome_of_reply(a, to, &t->data, OUTCOME_FAILED, OUTCOME_ABOUT_MESSAGE);

        for (size_t i = 0; i < batch->count; i++)
            if (remote_reply_is_positive(&batch->rcpt_reply[i]))
                settle_one(a, batch->index[i], refused);
    }
    const struct remote_reply *closing = find_421(batch);
    if (closing) {
        settle_closing(a, to, closing);
        return NEXT_HOST;
    }
    return NEXT_CONNECTION;
}

static struct batch *
batch_new(struct attempt *a)
{
    const struct envelope *envelope = a->job->envelope;

    arena_reset(&a->own_scratch);
    struct batch *batch = arena_new(&a->own_scratch, struct batch);
    batch->t = (struct client_transaction){
        .envid = envelope->envid,
        .ret = envelope->ret,
        .probe = a->job->probe,
        .body = envelope->body,
        .size = envelope->trace.len + envelope->size,
        .content = { source_read, &batch->source },
        .rcpt = batch->rcpt,
        .rcpt_reply = batch->rcpt_reply,
        .final_reply = batch->final_reply,
    };
    batch->source.a = a;
    return batch;
}

/* Transactions on one connection, while there is somebody to send to and it lasts. */
static enum next
use_connection(struct attempt *a, const struct target *to, struct client *client)
{
    const struct client_features *features = client_features(client);
    enum next next = NEXT_CONNECTION;

    while (next == NEXT_CONNECTION && a->pending > 0 && !a->stop && client_is_usable(client)) {
        struct batch *batch = batch_new(a);
        bool reused = client_transactions(client) > 0;

        batch_gather(a, batch, features);
        if (!batch_fit(a, to, batch, features))
            continue;
        batch->t.rcpt_count = batch->count;
        int64_t start = rt_now(a->rt);
        struct err lost = client_send(client, &batch->t, &a->own_scratch);
        a->figures->transfer += rt_now(a->rt) - start;
        a->figures->transactions++;
        next = settle(a, to, batch, lost, reused);
        if (err_is(lost))
            break;
    }
    return next;
}

/* ---- hosts and addresses -------------------------------------------------------------------------------------- */

static const struct address *
source_for(const struct attempt *a, const struct address *to)
{
    if (to->family == ADDRESS_IPV4 && a->settings->source_ipv4.family == ADDRESS_IPV4)
        return &a->settings->source_ipv4;
    if (to->family == ADDRESS_IPV6 && a->settings->source_ipv6.family == ADDRESS_IPV6)
        return &a->settings->source_ipv6;
    return NULL;
}

static void
say_goodbye(struct attempt *a, struct client *client)
{
    if (a->connections)
        connections_end(a->connections, client);
    else
        client_quit(client);
}

/* Connects, and goes through greeting and hello. NULL: *out_next says how to go on. */
static struct client *
open_connection(struct attempt *a, const struct target *to, bool helo_only, enum next *out_next)
{
    const struct delivery_settings *settings = a->settings;
    struct stream *stream;
    struct remote_reply reply;
    int64_t start = rt_now(a->rt);
    struct err e = stream_connect(a->rt, &to->to, source_for(a, &to->to),
                                  within(a->rt, settings->connect > 0 ? settings->connect : LIMIT_CONNECT_NS), &stream);

    *out_next = NEXT_HOST;
    if (err_is(e)) {
        bool ours = e.kind == ERR_NO_FILES || e.kind == ERR_NO_MEMORY || e.kind == ERR_DENIED;
        if (!is_cancelled(a, e))
            trouble_reason(a, to, ours ? OUTCOME_ABOUT_MESSAGE : OUTCOME_ABOUT_DESTINATION, S("4.4.1"),
                           reason_of_err(a, "cannot connect", e));
        return NULL;
    }
    a->figures->connections++;
    struct client *client = client_new(stream, &(struct client_settings){
                                                   .lmtp = settings->lmtp,
                                                   .helo_only = helo_only,
                                                   .refuse = settings->refuse,
                                                   .helo = settings->helo,
                                                   .times = settings->times,
                                                   .dialog = settings->dialog,
                                                   .dialog_arg = settings->dialog_arg,
                                               });
    const char *doing = "lost the connection before the greeting";
    e = client_greeting(client, &a->own_scratch, &reply);
    if (!err_is(e) && remote_reply_is_positive(&reply)) {
        doing = helo_only ? "lost the connection after HELO" : settings->lmtp ? "lost the connection after LHLO"
                                                                               : "lost the connection after EHLO";
        e = client_hello(client, &a->own_scratch, &reply);
        if (!err_is(e) && remote_reply_is_positive(&reply)) {
            a->figures->connect = rt_now(a->rt) - start;
            return client;
        }
        if (err_is(e) && !settings->lmtp && !helo_only) /* some servers hang up at EHLO: one more time, with HELO */
            *out_next = NEXT_CONNECTION_HELO;
    }
    if (err_is(e)) {
        if (!is_cancelled(a, e))
            trouble_reason(a, to, OUTCOME_ABOUT_DESTINATION, S("4.4.2"), reason_of_err(a, doing, e));
        client_close(client);
    } else {
        trouble_reply(a, to, &reply, OUTCOME_ABOUT_DESTINATION);
        say_goodbye(a, client);
    }
    return NULL;
}

/* One address. A connection that is spent after progress is followed by another; after none, the next address comes. */
static void
try_target(struct attempt *a, const struct target *to)
{
    const struct address *source = source_for(a, &to->to);
    const struct connection_key key = {
        .to = to->to,
        .source = source ? *source : (struct address){ 0 },
        .host = to->host->name,
        .helo = a->settings->helo,
        .lmtp = a->settings->lmtp,
    };
    bool helo_only = false;

    for (enum next next = NEXT_CONNECTION; next != NEXT_HOST && a->pending > 0 && !a->stop; ) {
        struct client *client = NULL;
        size_t pending = a->pending;

        arena_reset(&a->own_scratch);
        if (a->connections && !helo_only)
            client = connections_take(a->connections, &key);
        bool reused = client != NULL;
        if (!client)
            client = open_connection(a, to, helo_only, &next);
        if (!client) {
            helo_only = next == NEXT_CONNECTION_HELO;
            continue;
        }
        next = use_connection(a, to, client);
        if (next == NEXT_CONNECTION && a->pending == pending && !reused)
            next = NEXT_HOST;
        if (!client_is_usable(client))
            say_goodbye(a, client);
        else if (a->connections && !a->settings->dialog)
            connections_put(a->connections, &key, client);
        else
            client_quit(client);
    }
}

static bool
is_own_address(const struct attempt *a, const struct address *to)
{
    for (size_t i = 0; i < a->settings->own_address_count; i++) {
        const struct address *own = &a->settings->own_addresses[i];

        if (address_same_ip(own, to) && (own->port == 0 || own->port == to->port))
            return true;
    }
    return false;
}

static bool
is_own_name(const struct attempt *a, struct str name)
{
    for (size_t i = 0; i < a->settings->own_name_count; i++)
        if (name_eq(a->settings->own_names[i], name))
            return true;
    return false;
}

static bool
is_allowed_private(const struct attempt *a, const struct address *to)
{
    for (size_t i = 0; i < a->settings->allow_private_count; i++)
        if (prefix_has(&a->settings->allow_private[i], to))
            return true;
    return false;
}

static struct str
target_text(struct attempt *a, struct str name, const struct address *to)
{
    struct text t = text_init(arena_alloc(&a->own_job, REMOTE_BYTES), REMOTE_BYTES);
    bool is_unix = to->family == ADDRESS_UNIX;

    text_put(&t, str_slice(name, 0, LIMIT_DOMAIN));
    text_put(&t, S(" ["));
    if (is_unix)
        address_put(&t, to);
    else
        address_put_ip(&t, to);
    text_put_byte(&t, ']');
    if (!is_unix) {
        text_put_byte(&t, ':');
        text_put_u64(&t, to->port);
    }
    return text_str(&t);
}

struct targets {
    struct target list[LIMIT_MX_HOSTS * LIMIT_MX_ADDRESSES];
    size_t count;
    bool own; /* one of the hosts is ourselves */
};

static void
targets_add(struct attempt *a, struct targets *targets, const struct delivery_host *host, struct address to)
{
    struct target *target = &targets->list[targets->count];

    *target = (struct target){ .host = host, .to = to, .text = target_text(a, host->name, &to) };
    if (a->settings->lmtp && to.family != ADDRESS_UNIX && to.port == 25) {
        trouble_reason(a, target, OUTCOME_ABOUT_DESTINATION, S("4.3.5"), S("LMTP must not use port 25"));
        return;
    }
    if (!a->job->configured && is_own_address(a, &to)) {
        targets->own = true;
        return;
    }
    if (!a->job->configured && address_is_forbidden_target(&to) && !is_allowed_private(a, &to)) {
        trouble_reason(a, target, OUTCOME_ABOUT_DESTINATION, S("4.4.4"), S("no mail goes to such an address"));
        return;
    }
    targets->count++;
}

static void
targets_add_resolved(struct attempt *a, struct targets *targets, const struct delivery_host *host)
{
    const struct delivery_settings *settings = a->settings;
    unsigned families = settings->families ? settings->families : HOST_IPV4 | HOST_IPV6;
    struct host_result found = { 0 };

    arena_reset(&a->own_scratch);
    /* Forbidden addresses are ours to judge where some of them are allowed. */
    unsigned any = a->job->configured || settings->allow_private_count > 0 ? HOST_ANY : 0;
    struct err e = a->hooks->addresses(a->hooks->arg, host->name, families | any, within(a->rt, RESOLVE_S * SECOND),
                                       &a->own_scratch, &found);

    if (is_cancelled(a, e))
        return;
    if (err_is(e)) {
        trouble_reason(a, NULL, OUTCOME_ABOUT_DESTINATION, S("4.4.3"), reason_of_err(a, "cannot look up the host", e));
        return;
    }
    switch ((enum host_status)found.status) {
    case HOST_OK:
        for (size_t i = 0; i < found.address_count && i < LIMIT_MX_ADDRESSES; i++) {
            struct address to = found.addresses[i];

            to.port = settings->port ? settings->port : 25;
            targets_add(a, targets, host, to);
        }
        return;
    case HOST_NO_ADDRESS:
        if (families == (HOST_IPV4 | HOST_IPV6))
            break;
        trouble_reason(a, NULL, OUTCOME_ABOUT_DESTINATION, S("4.4.4"),
                       arena_printf(&a->own_scratch, "the host %.*s has no address in the family that we use",
                                    STR_ARG(host->name)));
        return;
    case HOST_TEMPORARY:
        trouble_reason(a, NULL, OUTCOME_ABOUT_DESTINATION, S("4.4.3"),
                       arena_printf(&a->own_scratch, "cannot look up the host %.*s: %.*s", STR_ARG(host->name),
                                    STR_ARG(found.why)));
        return;
    case HOST_NXDOMAIN:
        break;
    }
    remember(a, (struct outcome){
                    .kind = OUTCOME_DEFERRED,
                    .about = OUTCOME_ABOUT_DESTINATION,
                    .enhanced = S("4.4.4"),
                    .reply = arena_printf(&a->own_scratch, "the host %.*s has no address", STR_ARG(host->name)),
                    .remote = S(""),
                });
    a->only_521 = false;
}

/* All hosts of one preference. False: one of them is ourselves, so there is nothing to be had here or further on. */
static bool
try_preference(struct attempt *a, const struct delivery_host *const *hosts, size_t count)
{
    struct targets *targets = arena_new(&a->own_job, struct targets);

    for (size_t i = 0; i < count && !a->stop; i++) {
        if (!a->job->configured && is_own_name(a, hosts[i]->name))
            targets->own = true;
        else if (hosts[i]->fixed.family != ADDRESS_NONE)
            targets_add(a, targets, hosts[i], hosts[i]->fixed);
        else
            targets_add_resolved(a, targets, hosts[i]);
    }
    if (targets->own)
        return false;
    a->tried = true;
    for (size_t i = 0; i < targets->count && a->pending > 0 && !a->stop; i++)
        try_target(a, &targets->list[i]);
    return true;
}

/* By preference, equal ones in random order, every time: RFC 5321 section 5.1. */
static const struct delivery_host **
order_hosts(struct attempt *a)
{
    const struct delivery_job *job = a->job;
    const struct delivery_host **hosts = arena_alloc(&a->own_job, job->host_count * sizeof(struct delivery_host *));
    struct prng prng;

    prng_seed(&prng, rt_random(a->rt));
    for (size_t i = 0; i < job->host_count; i++) {
        size_t at = (size_t)prng_below(&prng, i + 1);

        hosts[i] = hosts[at];
        hosts[at] = &job->hosts[i];
    }
    for (size_t i = 1; i < job->host_count; i++) {
        const struct delivery_host *host = hosts[i];
        size_t at = i;

        for (; at > 0 && hosts[at - 1]->preference > host->preference; at--)
            hosts[at] = hosts[at - 1];
        hosts[at] = host;
    }
    return hosts;
}

/* A domain in U-labels behind an ASCII local part goes as A-labels: standards 1.2, SMTPUTF8. */
static struct str
address_for_wire(struct attempt *a, struct str address)
{
    size_t at = str_find_last_byte(address, '@');

    if (str_is_ascii(address) || at == address.len || !str_is_ascii(str_slice(address, 0, at)))
        return address;
    struct str domain = domain_to_ascii(str_from(address, at + 1), &a->own_job);
    return str_is_absent(domain) ? address : arena_join(&a->own_job, str_slice(address, 0, at + 1), domain);
}

static void
prepare_addressees(struct attempt *a)
{
    const struct delivery_job *job = a->job;

    a->addressees = arena_alloc(&a->own_job, job->recipient_count * sizeof *a->addressees);
    a->pending = job->recipient_count;
    for (size_t i = 0; i < job->recipient_count; i++) {
        struct addressee *one = &a->addressees[i];
        struct str reverse_path = job->recipients[i].reverse_path;

        one->recipient = job->recipients[i];
        one->recipient.address = address_for_wire(a, one->recipient.address);
        one->reverse_path =
            address_for_wire(a, str_is_absent(reverse_path) ? job->envelope->reverse_path : reverse_path);
        one->needs_utf8 = !str_is_ascii(one->recipient.address);
        one->pending = true;
        if (!client_can_say(one->recipient.address) || one->recipient.address.len == 0
            || !client_can_say(one->recipient.orcpt))
            settle_one(a, i, outcome_of_reason(a, NULL, OUTCOME_FAILED, OUTCOME_ABOUT_RECIPIENT, S("5.1.3"),
                                               S("such an address cannot be said in SMTP")));
        else if (!client_can_say(one->reverse_path) || !client_can_say(job->envelope->envid))
            settle_one(a, i, outcome_of_reason(a, NULL, OUTCOME_FAILED, OUTCOME_ABOUT_MESSAGE, S("5.1.7"),
                                               S("such a sender address cannot be said in SMTP")));
    }
}

static void
settle_rest(struct attempt *a, bool loop)
{
    struct outcome *o = &a->trouble.outcome;

    if (a->pending == 0)
        return;
    if (loop && !a->tried) {
        settle_all_pending(a, outcome_of_reason(a, NULL, OUTCOME_FAILED, OUTCOME_ABOUT_DESTINATION, S("5.4.6"),
                                                S("mail for this domain would come back to us: its MX list names us")));
        return;
    }
    if (!a->trouble.set)
        trouble_reason(a, NULL, OUTCOME_ABOUT_DESTINATION, S("4.4.4"), S("there is no host to go to"));
    if (a->only_521 || a->only_absent) {
        o->kind = OUTCOME_FAILED;
        a->trouble.enhanced[0] = '5';
    }
    o->enhanced = arena_keep(a->arena, o->enhanced);
    o->reply = arena_keep(a->arena, o->reply);
    o->remote = arena_keep(a->arena, o->remote);
    settle_all_pending(a, *o);
}

void
smtp_deliver(struct rt *rt, const struct delivery_job *job, const struct delivery_settings *settings,
             const struct delivery_hooks *hooks, struct connections *connections, struct arena *arena,
             struct outcome *out_outcomes, struct delivery_figures *out_figures)
{
    struct attempt *a = mem_new(rt_mem(rt), struct attempt);
    bool loop = false;

    CHECK(job->recipient_count > 0);
    CHECK(job->recipient_count <= LIMIT_RCPT_PER_JOB);
    *a = (struct attempt){
        .rt = rt,
        .job = job,
        .settings = settings,
        .hooks = hooks,
        .connections = connections,
        .arena = arena,
        .outcomes = out_outcomes,
        .figures = out_figures,
        .only_521 = true,
        .only_absent = true,
    };
    *out_figures = (struct delivery_figures){ 0 };
    arena_init(&a->own_job, rt_mem(rt), 4096, (size_t)1 << 20);
    arena_init(&a->own_scratch, rt_mem(rt), 4096, (size_t)4 << 20);
    prepare_addressees(a);

    const struct delivery_host **hosts = order_hosts(a);
    size_t host_count = job->host_count < LIMIT_MX_HOSTS ? job->host_count : LIMIT_MX_HOSTS;
    for (size_t from = 0, to; from < host_count && a->pending > 0 && !a->stop && !loop; from = to) {
        to = from + 1;
        while (to < host_count && hosts[to]->preference == hosts[from]->preference)
            to++;
        loop = !try_preference(a, hosts + from, to - from);
    }
    settle_rest(a, loop);
    CHECK(a->pending == 0);
    arena_done(&a->own_scratch);
    arena_done(&a->own_job);
    mem_free(rt_mem(rt), a, sizeof *a);
}
