/*
 * attempt - outcomes from replies and from our own reasons.
 */
#include "deliver/attempt.h"

#include "base/check.h"

void
attempt_settle(struct attempt *a, size_t index, struct outcome outcome)
{
    CHECK(a->addressees[index].pending);
    CHECK(outcome.enhanced.len > 0);
    a->addressees[index].pending = false;
    a->pending--;
    a->outcomes[index] = outcome;
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
        { 421, STR(".3.2") }, { 450, STR(".2.0") }, { 451, STR(".3.0") }, { 452, STR(".3.1") },
        { 454, STR(".7.0") }, { 521, STR(".3.2") }, { 530, STR(".7.0") }, { 551, STR(".1.6") },
        { 552, STR(".3.4") }, { 553, STR(".1.3") }, { 555, STR(".5.4") }, { 556, STR(".1.10") },
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

struct outcome
attempt_outcome_of_reply(struct attempt *a, const struct target *to, const struct remote_reply *reply,
                         enum outcome_kind kind, enum outcome_about about)
{
    return (struct outcome){
        .kind = (uint8_t)kind,
        .about = (uint8_t)about,
        .enhanced = enhanced_of(reply, kind, a->arena),
        .reply = arena_keep(a->arena, reply->text),
        .remote = arena_keep(a->arena, to->text),
    };
}

struct outcome
attempt_outcome(struct attempt *a, const struct target *to, enum outcome_kind kind, enum outcome_about about,
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

void
attempt_remember(struct attempt *a, struct outcome outcome)
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

void
attempt_trouble_reply(struct attempt *a, const struct target *to, const struct remote_reply *reply,
                      enum outcome_about about)
{
    attempt_remember(a, (struct outcome){
                            .kind = OUTCOME_DEFERRED,
                            .about = (uint8_t)about,
                            .enhanced = enhanced_of(reply, OUTCOME_DEFERRED, &a->own_scratch),
                            .reply = reply->text,
                            .remote = to->text,
                        });
    if (reply->code != 521)
        a->only_521 = false;
    a->only_absent = a->only_unfit = false;
}

void
attempt_trouble(struct attempt *a, const struct target *to, enum outcome_about about, struct str enhanced,
                struct str reason)
{
    attempt_remember(a, (struct outcome){
                            .kind = OUTCOME_DEFERRED,
                            .about = (uint8_t)about,
                            .enhanced = enhanced,
                            .reply = reason,
                            .remote = to ? to->text : S(""),
                        });
    a->only_521 = a->only_absent = a->only_unfit = false;
}

bool
attempt_requires_tls(const struct attempt *a)
{
    return a->job->envelope->require_tls && a->job->envelope->reverse_path.len > 0;
}

void
attempt_unfit(struct attempt *a, const struct target *to, struct str enhanced, struct str reason)
{
    bool only_unfit = a->only_unfit;

    attempt_trouble(a, to, OUTCOME_ABOUT_MESSAGE, enhanced, reason);
    a->only_unfit = only_unfit;
}

static void
keep_words(char *memory, size_t cap, struct str s)
{
    struct text t = text_init(memory, cap);

    text_put(&t, str_slice(s, 0, cap - 1));
    CHECK(text_cstr(&t));
}

void
attempt_note_tls(struct attempt *a, const struct target *to, const struct client *client, enum tls_result result)
{
    struct delivery_tls *tls = &a->figures->tls;
    struct client_encryption e = client ? client_encryption(client) : (struct client_encryption){ 0 };

    tls->known = true;
    tls->encrypted = client && client_is_encrypted(client);
    tls->verified = tls->encrypted && tls_policy_has_checks(to->policy) && result == TLS_RESULT_OK;
    tls->resumed = e.resumed;
    tls->level = to->policy->level;
    tls->source = to->policy->source;
    tls->result = result == TLS_RESULT_OK ? to->policy->result : (uint8_t)result;
    keep_words(tls->protocol, sizeof tls->protocol, e.protocol);
    keep_words(tls->cipher, sizeof tls->cipher, e.cipher);
    keep_words(tls->domain, sizeof tls->domain, to->policy->domain);
}

struct str
attempt_reason(struct attempt *a, const char *doing, struct err e)
{
    struct text t = text_init(arena_alloc(&a->own_scratch, REASON_BYTES), REASON_BYTES);

    text_put(&t, str_from_cstr(doing));
    text_put(&t, S(": "));
    err_text(e, &t);
    return text_str(&t);
}

bool
attempt_is_cancelled(struct attempt *a, struct err e)
{
    if (e.kind != ERR_CANCELLED)
        return false;
    a->stop = true;
    attempt_trouble(a, NULL, OUTCOME_ABOUT_MESSAGE, S("4.3.2"), S("delivery was interrupted: we are shutting down"));
    return true;
}
