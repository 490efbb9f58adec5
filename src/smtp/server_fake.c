/* server_fake - see server_fake.h. */
#include "smtp/server_fake.h"

#include "base/check.h"

#include <stdlib.h>
#include <string.h>

struct fake_draft {
    struct message_id id;
    char *content;
    size_t len, cap;
};

static const struct reply *
admit(void *ctx, struct server_client *client, struct arena *arena, int64_t until)
{
    struct fake_site *f = ctx;

    (void)client;
    (void)arena;
    (void)until;
    if (!f->admission)
        f->admitted++;
    return f->admission;
}

static void
leave(void *ctx, struct server_client *client)
{
    struct fake_site *f = ctx;

    (void)client;
    f->left++;
}

static void
told(void *ctx, struct server_client *client, bool known)
{
    struct fake_site *f = ctx;

    (void)client;
    f->told++;
    f->told_unknown += !known;
}

static struct err
reverse_name(void *ctx, const struct address *address, struct arena *arena, int64_t until, struct str *out_name)
{
    struct fake_site *f = ctx;

    (void)address;
    (void)until;
    *out_name = arena_keep(arena, f->reverse_name);
    return str_is_absent(f->reverse_name) ? ERR(ERR_TIMEOUT, "look up") : OK;
}

static bool
is_user(struct str local)
{
    static const struct str known[] = { STR("ok"), STR("v"), STR("postmaster"), STR("slow") };

    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (str_eq_nocase(local, known[i]))
            return true;
    return str_starts(local, S("user"));
}

static void
rcpt(void *ctx, const struct server_client *client, const struct rcpt_request *request, struct arena *arena,
     int64_t until, struct rcpt_verdict *out)
{
    static const struct reply unknown = { 550, STR("5.1.1"), STR("No such mailbox here") };
    static const struct reply elsewhere = { 550, STR("5.7.1"), STR("We do not relay for you") };
    static const struct reply busy = { 450, STR("4.2.1"), STR("Mailbox busy; try again later") };
    static const struct reply bye = { 421, STR("4.7.0"), STR("Go away") };
    static const struct reply forwarded = { 251, STR("2.1.5"), STR("User not local; will forward") };
    static const struct reply moved = { 551, STR("5.1.6"), STR("Write to <moved@partner.test>") };
    static const struct recipient members[] = {
        { .address = STR("list@local.test"), .origin = RECIPIENT_EXPANDED },
        { .address = STR("ok@local.test"), .origin = RECIPIENT_MEMBER, .reverse_path = STR("owner-list@local.test") },
        { .address = STR("v@local.test"), .origin = RECIPIENT_MEMBER, .reverse_path = STR("owner-list@local.test") },
    };
    static const struct recipient sellers[] = {
        { .address = STR("sales@local.test"), .origin = RECIPIENT_EXPANDED },
        { .address = STR("ok@local.test"), .origin = RECIPIENT_MEMBER },
        { .address = STR("v@local.test"), .origin = RECIPIENT_MEMBER },
    };
    static const struct recipient forward = { .address = STR("fwd@partner.test"), .origin = RECIPIENT_ALIAS };
    struct str local = request->forward_path.local, domain = request->forward_path.domain;
    struct fake_site *f = ctx;

    (void)client;
    if (str_eq(local, S("slow"))) {
        f->slow_asked++;
        if (err_is(event_wait(f->rt, &f->slow, until))) {
            out->reply = &busy;
            return;
        }
    }
    if (domain.len > 0 && !str_eq_nocase(domain, S("local.test"))) {
        out->reply = &elsewhere;
    } else if (str_eq(local, S("list"))) {
        *out = (struct rcpt_verdict){ NULL, members, 3 };
    } else if (str_eq(local, S("sales"))) {
        *out = (struct rcpt_verdict){ NULL, sellers, 3 };
    } else if (str_eq(local, S("crowd"))) {
        struct recipient *crowd = arena_alloc(arena, FAKE_CROWD * sizeof *crowd);
        for (int i = 0; i < FAKE_CROWD; i++)
            crowd[i] = (struct recipient){ .address = arena_printf(arena, "c%d@local.test", i), .origin = RECIPIENT_MEMBER };
        f->crowd_asked++;
        *out = (struct rcpt_verdict){ NULL, crowd, FAKE_CROWD };
    } else if (str_eq(local, S("fwd"))) {
        *out = (struct rcpt_verdict){ &forwarded, &forward, 1 };
    } else if (str_eq(local, S("moved"))) {
        out->reply = &moved;
    } else if (str_eq(local, S("busy"))) {
        out->reply = &busy;
    } else if (str_eq(local, S("bye"))) {
        out->reply = &bye;
    } else if (is_user(local)) {
        struct recipient *one = arena_new(arena, struct recipient);
        struct text address = text_init(arena_alloc(arena, local.len + 16), local.len + 16);
        text_put_lower(&address, local);
        text_put(&address, S("@local.test"));
        one->address = text_str(&address);
        *out = (struct rcpt_verdict){ NULL, one, 1 };
    } else {
        out->reply = &unknown;
    }
}

static const struct reply *
vrfy(void *ctx, const struct server_client *client, struct str what, struct arena *arena, int64_t until)
{
    (void)ctx;
    (void)client;
    (void)until;
    return str_starts_nocase(what, S("ok")) ? reply_make(arena, 250, "2.1.5", "<ok@local.test>")
                                            : reply_make(arena, 550, "5.1.1", "%.*s is not here", STR_ARG(what));
}

static const struct reply *
expn(void *ctx, const struct server_client *client, struct str what, struct arena *arena, int64_t until)
{
    (void)ctx;
    (void)client;
    (void)until;
    return str_starts_nocase(what, S("list"))
               ? reply_make(arena, 250, "2.1.5", "<ok@local.test>\n<v@local.test>")
               : reply_make(arena, 550, "5.1.1", "%.*s is not here", STR_ARG(what));
}

static const struct reply *
etrn(void *ctx, const struct server_client *client, struct str node, struct arena *arena, int64_t until)
{
    (void)ctx;
    (void)client;
    (void)until;
    return str_eq_nocase(node, S("backup.test")) ? reply_make(arena, 250, "2.0.0", "Queue started")
                                                 : reply_make(arena, 459, "4.7.1", "Not a domain of ours");
}

static struct err
draft_begin(void *ctx, struct message_id id, uint64_t expected_size, int64_t until, void **out_draft)
{
    struct fake_site *f = ctx;
    struct fake_draft *d;

    (void)expected_size;
    (void)until;
    if (err_is(f->begin_error))
        return f->begin_error;
    f->begun++;
    d = calloc(1, sizeof *d);
    CHECK(d != NULL);
    d->id = id;
    *out_draft = d;
    return OK;
}

static struct err
draft_put(void *ctx, void *draft, const struct str *parts, size_t count, int64_t until)
{
    struct fake_site *f = ctx;
    struct fake_draft *d = draft;

    (void)until;
    if (err_is(f->put_error))
        return f->put_error;
    f->puts++;
    for (size_t i = 0; i < count; i++) {
        CHECK(parts[i].len > 0);
        f->put_bytes += parts[i].len;
        if (f->committed >= FAKE_MESSAGES) /* only counted: the fake must not be what limits a test */
            continue;
        if (d->len + parts[i].len > d->cap) {
            d->cap = 2 * (d->len + parts[i].len);
            d->content = realloc(d->content, d->cap);
            CHECK(d->content != NULL);
        }
        memcpy(d->content + d->len, parts[i].ptr, parts[i].len);
        d->len += parts[i].len;
    }
    return OK;
}

static void
draft_abort(void *ctx, void *draft)
{
    struct fake_site *f = ctx;
    struct fake_draft *d = draft;

    f->aborted++;
    free(d->content);
    free(d);
}

static void
keep(char *memory, size_t cap, struct str s)
{
    struct text t = text_init(memory, cap);

    text_put(&t, str_slice(s, 0, cap - 1));
    text_cstr(&t);
}

static struct err
draft_commit(void *ctx, void *draft, const struct envelope *envelope, int64_t until)
{
    struct fake_site *f = ctx;
    struct fake_draft *d = draft;

    CHECK(envelope->recipient_count > 0);
    CHECK(envelope_size(envelope) <= LIMIT_ENVELOPE_FIXED + LIMIT_ENVELOPE_RCPT_BYTES);
    int64_t done = within(f->rt, f->commit_takes);
    struct err e = f->commit_error;
    if (f->commit_takes > 0 && !err_is(rt_sleep(f->rt, done < until ? done : until)) && done > until)
        e = ERR(ERR_TIMEOUT, "commit");
    if (err_is(e)) {
        free(d->content);
        free(d);
        f->aborted++;
        return e;
    }
    if (f->committed < FAKE_MESSAGES) {
        struct fake_message *m = &f->messages[f->committed];
        struct text recipients = text_init(m->recipients, sizeof m->recipients - 1);
        CHECK(envelope->size == d->len);
        free(m->content);
        m->id = d->id;
        m->content = d->content;
        m->len = d->len;
        keep(m->trace, sizeof m->trace, envelope->trace);
        keep(m->reverse_path, sizeof m->reverse_path, envelope->reverse_path);
        for (size_t i = 0; i < envelope->recipient_count && !recipients.full; i++)
            text_putf(&recipients, "%.*s/%u/%u ", STR_ARG(envelope->recipients[i].address),
                      envelope->recipients[i].notify, envelope->recipients[i].origin);
        m->recipient_count = envelope->recipient_count;
        m->body = envelope->body;
        m->smtputf8 = envelope->smtputf8;
        m->trusted = envelope->trusted;
        keep(m->client, sizeof m->client, envelope->client);
        if (f->committed_hook)
            f->committed_hook(m);
        d->content = NULL;
    }
    f->committed++;
    free(d->content);
    free(d);
    return OK;
}

static bool
over_budget(void *ctx)
{
    return ((struct fake_site *)ctx)->over_budget;
}

static bool
draining(void *ctx)
{
    return ((struct fake_site *)ctx)->draining;
}

static void
log_message(void *ctx, const struct server_client *client, const struct server_message *message)
{
    struct fake_site *f = ctx;

    (void)client;
    f->repaired += message->repaired;
}

static void
log_refusal(void *ctx, const struct server_client *client, struct str reverse_path, struct str command,
            const struct reply *reply)
{
    struct fake_site *f = ctx;

    (void)client;
    (void)reverse_path;
    (void)command;
    CHECK(reply->code >= 400);
    f->refusals_logged++;
}

static void
log_session(void *ctx, const struct server_client *client, const struct server_report *report)
{
    struct fake_site *f = ctx;

    (void)client;
    f->report = *report;
    f->sessions_logged++;
    keep(f->ended, sizeof f->ended, report->ended);
    keep(f->last_refusal, sizeof f->last_refusal, report->last_refusal);
    keep(f->last_refused, sizeof f->last_refused, report->last_refused);
}

void
fake_site_init(struct fake_site *f)
{
    *f = (struct fake_site){ 0 };
    event_init(&f->slow);
    f->hooks = (struct server_hooks){
        .ctx = f,
        .admit = admit,
        .leave = leave,
        .told = told,
        .reverse_name = reverse_name,
        .rcpt = rcpt,
        .vrfy = vrfy,
        .expn = expn,
        .etrn = etrn,
        .draft_begin = draft_begin,
        .draft_put = draft_put,
        .draft_commit = draft_commit,
        .draft_abort = draft_abort,
        .over_budget = over_budget,
        .draining = draining,
        .log_message = log_message,
        .log_refusal = log_refusal,
        .log_session = log_session,
    };
}

void
fake_site_done(struct fake_site *f)
{
    for (size_t i = 0; i < f->committed && i < FAKE_MESSAGES; i++)
        free(f->messages[i].content);
}
