/*
 * transaction - the transactions of one connection: who is in one, what the next hop can take, and what each reply
 * means.
 */
#include "deliver/attempt.h"

#include "base/check.h"
#include "message/convert.h"
#include "message/xtext.h"

enum {
    RAW_BYTES = 16 << 10, /* of content, on its way through a conversion or a scan */
};

/* ---- content -------------------------------------------------------------------------------------------------- */

/* The message as a transaction sends it: trace fields, then the content, converted if the next hop needs that. */
struct source {
    struct attempt *a;
    size_t trace_at;
    uint64_t offset;
    struct convert *convert; /* NULL: the content goes as it is; else the rest is in use */
    bool feeding; /* raw has bytes that the conversion still needs */
    bool raw_ended, ended;
    struct str rest; /* of raw: not converted yet */
    size_t converted_at; /* of converted: taken already */
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
        if (!source->feeding && !source->raw_ended) {
            size_t len;

            TRY(content_read(source->a, &source->offset, source->raw, RAW_BYTES, until, &len));
            source->rest = str_new(source->raw, len);
            source->raw_ended = len == 0;
            source->feeding = len > 0;
        }
        if (source->feeding)
            source->feeding = !convert_feed(source->convert, &source->rest, &source->converted);
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

struct batch { /* the recipients of one transaction */
    const struct recipient *rcpt[LIMIT_RCPT_PER_JOB];
    size_t index[LIMIT_RCPT_PER_JOB]; /* in job->recipients */
    size_t count;
    bool by_helo; /* nobody asked what the next hop takes */
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

        if (!one->pending || one->waits || (batch->count > 0 && !str_eq(one->reverse_path, batch->t.reverse_path))
            || !batch_has_room(batch, features, domain_of(one->recipient.address)))
            continue;
        batch->t.reverse_path = one->reverse_path;
        batch->rcpt[batch->count] = &one->recipient;
        batch->index[batch->count++] = i;
    }
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
            attempt_settle(a, batch->index[i], outcome);
}

/* No host could send that; and what is damaged will not be better tomorrow. */
static void
stop_unreadable(struct attempt *a, struct err e)
{
    struct str reason = attempt_reason(a, "cannot read the message", e);

    a->stop = true;
    if (e.kind == ERR_CORRUPT)
        for (size_t i = 0; i < a->job->recipient_count; i++) {
            if (a->addressees[i].pending)
                attempt_settle(a, i, attempt_outcome(a, NULL, OUTCOME_FAILED, OUTCOME_ABOUT_MESSAGE, S("5.3.0"), reason));
        }
    else if (!attempt_is_cancelled(a, e))
        attempt_trouble(a, NULL, OUTCOME_ABOUT_MESSAGE, S("4.3.0"), reason);
}

/* What is not offered after HELO may be after EHLO, another time: the next host, and if there is none the mail waits. */
static bool
batch_wait(struct attempt *a, const struct target *to, struct str enhanced, struct str reason)
{
    enhanced = arena_printf(&a->own_scratch, "4%.*s", STR_ARG(str_from(enhanced, 1)));
    attempt_trouble(a, to, OUTCOME_ABOUT_MESSAGE, enhanced, reason);
    return false;
}

static bool
batch_fail(struct attempt *a, const struct target *to, const struct batch *batch, struct str enhanced,
           struct str reason)
{
    batch_settle(a, batch, attempt_outcome(a, to, OUTCOME_FAILED, OUTCOME_ABOUT_MESSAGE, enhanced, reason));
    return false;
}

/* The next hop lacks an extension that the message needs. */
static bool
batch_unfit(struct attempt *a, const struct target *to, const struct batch *batch, struct str enhanced, struct str reason)
{
    if (!batch->by_helo)
        return batch_fail(a, to, batch, enhanced, reason);
    for (size_t i = 0; i < batch->count; i++)
        a->addressees[batch->index[i]].waits = true;
    return batch_wait(a, to, enhanced, reason);
}

/* The other form would be the need itself: RFC 6533 section 3. What no longer fits is left out. */
static struct str
orcpt_in_ascii(struct attempt *a, struct str orcpt)
{
    if (str_is_absent(orcpt) || str_is_ascii(orcpt))
        return orcpt;
    struct text t = text_init(arena_alloc(&a->own_job, LIMIT_ORCPT), LIMIT_ORCPT);
    orcpt_put_decoded(&t, orcpt, false);
    return t.full ? (struct str){ NULL, 0 } : text_str(&t);
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
        return batch_unfit(a, to, batch, S("5.6.9"), S("the next hop takes no internationalized header fields"));
    if (sender && !takes_utf8)
        return batch_unfit(a, to, batch, S("5.6.7"), S("the next hop takes no internationalized sender address"));
    t->smtputf8 = header || sender;
    for (size_t i = batch->count; i-- > 0;) {
        if (!a->addressees[batch->index[i]].needs_utf8)
            continue;
        if (takes_utf8) {
            t->smtputf8 = true;
            continue;
        }
        static const struct str why = STR("the next hop takes no internationalized addresses");
        a->addressees[batch->index[i]].waits = batch->by_helo;
        if (batch->by_helo)
            batch_wait(a, to, S("5.6.7"), why);
        else
            attempt_settle(a, batch->index[i],
                           attempt_outcome(a, to, OUTCOME_FAILED, OUTCOME_ABOUT_RECIPIENT, S("5.6.7"), why));
        batch_drop(batch, i);
    }
    for (size_t i = 0; i < batch->count && !t->smtputf8; i++) {
        struct recipient *one = &a->addressees[batch->index[i]].recipient;
        one->orcpt = orcpt_in_ascii(a, one->orcpt);
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
        return batch_unfit(a, to, batch, S("5.6.3"),
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

/*
 * "Too many recipients": for the rest, another transaction. RFC 5321 section 4.5.3.1.10 on 552. Without an enhanced code it
 * may be about that one (no room), which will be said again where nobody comes before it.
 */
static bool
is_too_many(const struct remote_reply *r, size_t accepted_before)
{
    if (r->code != 452 && r->code != 552)
        return false;
    if (r->enhanced.len > 0)
        return str_eq(str_from(r->enhanced, 1), S(".5.3"));
    return accepted_before > 0;
}

/*
 * RFC 2852: whoever traces a message is told of each hop that passes the time on; whoever is to be told when it is late, of the hop
 * behind which nobody looks at the time.
 */
static bool
tells_of_relay(const struct attempt *a, const struct batch *batch, size_t at)
{
    const struct envelope *e = a->job->envelope;
    bool passes_on = batch->t.deliver_within > 0;

    if (e->deliver_within == 0 || (batch->rcpt[at]->notify & NOTIFY_NEVER))
        return false;
    return passes_on ? e->deliver_trace : !e->deliver_or_return;
}

static struct outcome
outcome_of_success(struct attempt *a, const struct target *to, const struct batch *batch, size_t at,
                   const struct remote_reply *reply)
{
    const struct delivery_settings *settings = a->settings;
    struct outcome outcome = attempt_outcome_of_reply(a, to, reply, OUTCOME_DELIVERED, OUTCOME_ABOUT_RECIPIENT);

    outcome.dsn_passed_on = batch->t.dsn_passed_on;
    /* LMTP is the end of the way, so success there is delivery; RFC 3461 section 5.2.2 (e) is about other MTAs. */
    if (!settings->lmtp && ((!outcome.dsn_passed_on && (batch->rcpt[at]->notify & NOTIFY_SUCCESS)) || tells_of_relay(a, batch, at)))
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
    return attempt_outcome_of_reply(a, to, reply, remote_reply_is_permanent(reply) ? OUTCOME_FAILED : OUTCOME_DEFERRED,
                                    about);
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

        if (remote_reply_is_positive(r)) {
            accepted_before++;
            if (batch->t.probe)
                attempt_settle(a, batch->index[i], outcome_of_success(a, to, batch, i, r));
            continue;
        }
        if (r->code == 0 || r->code == 421 || (too_many && batch->t.accepted > 0))
            continue;
        attempt_settle(a, batch->index[i],
                       attempt_outcome_of_reply(
                           a, to, r, remote_reply_is_permanent(r) && !too_many ? OUTCOME_FAILED : OUTCOME_DEFERRED,
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
            attempt_settle(a, batch->index[i], outcome_of_final(a, to, batch, i, reply));
        else
            attempt_settle(a, batch->index[i],
                           attempt_outcome(a, to, OUTCOME_DEFERRED, OUTCOME_ABOUT_MESSAGE, S("4.4.2"), unknown));
    }
}

/* 421: the server closes. Defer the rest, fail nothing: standards 5.2. */
static void
settle_closing(struct attempt *a, const struct target *to, const struct remote_reply *reply)
{
    attempt_trouble_reply(a, to, reply, OUTCOME_ABOUT_DESTINATION);
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
        batch_settle(a, batch, attempt_outcome_of_reply(a, to, &t->mail, OUTCOME_FAILED, OUTCOME_ABOUT_MESSAGE));
        return NEXT_CONNECTION;
    }
    if (remote_reply_is_transient(&t->mail)) {
        attempt_trouble_reply(a, to, &t->mail, OUTCOME_ABOUT_MESSAGE);
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
        settle_content(a, to, batch, attempt_reason(a, while_at[t->stage], lost));
    } else if (err_is(lost) && t->stage < CLIENT_AT_FINAL) {
        if (!attempt_is_cancelled(a, lost))
            attempt_trouble(a, to, t->stage < CLIENT_AT_CONTENT ? OUTCOME_ABOUT_DESTINATION : OUTCOME_ABOUT_MESSAGE,
                            S("4.4.2"), attempt_reason(a, while_at[t->stage], lost));
        return NEXT_HOST;
    } else if (past_data) {
        settle_content(a, to, batch, attempt_reason(a, while_at[t->stage], lost));
        if (attempt_is_cancelled(a, lost))
            return NEXT_HOST;
    } else if (remote_reply_is_transient(&t->data) && t->accepted > 0) {
        attempt_trouble_reply(a, to, &t->data, OUTCOME_ABOUT_MESSAGE);
        return NEXT_HOST;
    } else if (remote_reply_is_permanent(&t->data) && t->accepted > 0) {
        struct outcome refused = attempt_outcome_of_reply(a, to, &t->data, OUTCOME_FAILED, OUTCOME_ABOUT_MESSAGE);

        for (size_t i = 0; i < batch->count; i++)
            if (remote_reply_is_positive(&batch->rcpt_reply[i]))
                attempt_settle(a, batch->index[i], refused);
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

/* A Unix socket or loopback leads to nobody else: what is there is where the mail ends, or its own filter. */
static bool
stays_here(const struct target *to)
{
    return to->to.family == ADDRESS_UNIX || address_is_loopback(&to->to);
}

/* RFC 2852: what is left of the time, in whole seconds; 0: none. */
static int64_t
seconds_left(const struct attempt *a)
{
    const struct envelope *e = a->job->envelope;
    int64_t began = e->hold_until > e->accepted_wall ? e->hold_until : e->accepted_wall;
    int64_t left = e->deliver_within - (rt_wall(a->rt) - began);

    return e->deliver_within == 0 || left < SECOND ? 0 : left < e->deliver_within ? left / SECOND : e->deliver_within / SECOND;
}

enum next
attempt_use_connection(struct attempt *a, const struct target *to, struct client *client)
{
    const struct client_features *features = client_features(client);
    bool passes_on = client_has(features, CLIENT_REQUIRETLS) && client_is_encrypted(client);
    bool by_helo = client_by_helo(client);
    enum next next = NEXT_CONNECTION;

    if (attempt_requires_tls(a) && !passes_on && !(a->settings->lmtp && stays_here(to))) {
        attempt_note_tls(a, to, client, a->tls_result);
        static const struct str why =
            STR("the message requires TLS on all of its way (REQUIRETLS), and the next hop does not offer that");
        if (by_helo)
            batch_wait(a, to, S("4.7.30"), why);
        else
            attempt_unfit(a, to, S("4.7.30"), why);
        return NEXT_HOST;
    }
    bool by = client_has(features, CLIENT_DELIVERBY);
    if (a->job->envelope->deliver_or_return && !a->settings->lmtp && (!by || seconds_left(a) == 0)) {
        struct str why = by || seconds_left(a) == 0
                             ? S("the time in which the message was to be delivered is over")
                             : S("the message is to be delivered in time or returned (DELIVERBY), and the next hop does not offer that");
        if (by_helo && seconds_left(a) > 0)
            batch_wait(a, to, S("4.4.7"), why);
        else
            attempt_unfit(a, to, S("4.4.7"), why);
        return NEXT_HOST;
    }
    for (size_t i = 0; i < a->job->recipient_count; i++)
        a->addressees[i].waits = false;
    while (next == NEXT_CONNECTION && a->pending > 0 && !a->stop && client_is_usable(client)) {
        struct batch *batch = batch_new(a);
        bool reused = client_transactions(client) > 0;

        batch->by_helo = by_helo;
        batch_gather(a, batch, features);
        if (batch->count == 0) {
            next = NEXT_HOST;
            break;
        }
        if (!batch_fit(a, to, batch, features))
            continue;
        batch->t.rcpt_count = batch->count;
        batch->t.require_tls = a->job->envelope->require_tls && passes_on;
        batch->t.deliver_within = by ? seconds_left(a) : 0;
        batch->t.deliver_or_return = a->job->envelope->deliver_or_return;
        batch->t.deliver_trace = a->job->envelope->deliver_trace;
        int64_t start = rt_now(a->rt);
        struct err lost = client_send(client, &batch->t, &a->own_scratch);
        a->figures->transfer += rt_now(a->rt) - start;
        a->figures->transactions++;
        attempt_note_tls(a, to, client, a->tls_result);
        next = settle(a, to, batch, lost, reused);
        if (err_is(lost) || !client_is_quiet(client)) /* what it says to nothing of ours would be the next command's reply */
            break;
    }
    return next;
}
