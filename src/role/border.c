/* border - see border.h. */
#include "role/border.h"

#include "base/check.h"

enum { JOB_FIXED = 4096, PREFIXES_MAX = 64, ENHANCED_MAX = 16, REMOTE_MAX = 400, PATH_MAX_BYTES = 4096 };

/* ---- small pieces ---- */

void
border_put_id(struct put *p, struct message_id id)
{
    put_u64(p, id.hi);
    put_u64(p, id.lo);
}

struct message_id
border_take_id(struct take *t)
{
    struct message_id id;

    id.hi = take_u64(t);
    id.lo = take_u64(t);
    return id;
}

void
border_put_err(struct put *p, struct err e)
{
    put_u8(p, (uint8_t)e.kind);
}

struct err
border_take_err(struct take *t, const char *what)
{
    int32_t kind = (int32_t)take_enum(t, ERR_IO);

    if (t->bad)
        return ERR(ERR_PROTOCOL, what);
    return kind == ERR_NONE ? OK : ERR(kind, what);
}

void
border_put_address(struct put *p, const struct address *a)
{
    char memory[160];
    struct text text = text_init(memory, sizeof memory);

    if (a->family != ADDRESS_NONE)
        address_put(&text, a);
    put_bytes(p, text_str(&text));
}

struct address
border_take_address(struct take *t)
{
    struct address a = { 0 };
    struct str text = take_bytes(t, 160);

    if (text.len && !address_parse(text, &a))
        t->bad = true;
    return a;
}

/* ---- receiver to store ---- */

size_t
border_submit_size(const struct border_submit *s)
{
    return BORDER_SUBMIT_FIXED + envelope_size(&s->envelope) + BORDER_SUBMIT_RECIPIENT * s->envelope.recipient_count +
           s->content.len;
}

void
border_put_submit(struct put *p, const struct border_submit *s)
{
    uint32_t ended = 0;

    border_put_id(p, s->id);
    envelope_put(p, &s->envelope);
    for (size_t i = 0; s->statuses && i < s->envelope.recipient_count; i++)
        ended += s->statuses[i].state != STATE_PENDING;
    put_u32(p, ended);
    for (size_t i = 0; ended && i < s->envelope.recipient_count; i++) {
        if (s->statuses[i].state == STATE_PENDING)
            continue;
        put_u32(p, (uint32_t)i);
        put_u8(p, s->statuses[i].state);
        put_u8(p, s->statuses[i].notices);
    }
    put_raw(p, s->content);
}

bool
border_take_submit(struct take *t, struct arena *arena, struct border_submit *out)
{
    *out = (struct border_submit){ .id = border_take_id(t) };
    if (t->bad || !envelope_take(t, arena, &out->envelope))
        return false;
    size_t count = out->envelope.recipient_count;
    uint32_t ended = take_count(t, (uint32_t)count);
    if (ended) {
        out->statuses = arena_alloc(arena, count * sizeof *out->statuses);
        for (size_t i = 0; i < count; i++)
            out->statuses[i].index = (uint32_t)i;
    }
    for (uint32_t i = 0; i < ended && !t->bad; i++) {
        uint32_t index = take_u32(t);
        uint8_t state = (uint8_t)take_enum(t, STATE_LAST), notices = take_u8(t);
        /* A receiver may end only what it expanded or left out as a duplicate. */
        if (index >= count || (state != STATE_EXPANDED && state != STATE_SUPPRESSED)) {
            t->bad = true;
            break;
        }
        out->statuses[index].state = state;
        out->statuses[index].notices = notices;
    }
    out->content = t->rest;
    return !t->bad;
}

/* ---- receiver to gate: users ---- */

enum { MECHANISM_MAX = 64 };

void
border_put_auth(struct put *p, const struct border_auth *a)
{
    put_u64(p, a->exchange);
    put_bytes(p, str_slice(a->mechanism, 0, MECHANISM_MAX));
    put_bytes(p, a->initial);
    border_put_address(p, &a->client);
    put_u8(p, a->tls);
    put_bytes(p, a->exporter);
    put_bytes(p, a->end_point);
    put_bytes(p, a->certificate);
}

bool
border_take_auth(struct take *t, struct border_auth *out)
{
    *out = (struct border_auth){ .exchange = take_u64(t) };
    out->mechanism = take_bytes(t, MECHANISM_MAX);
    out->initial = take_bytes(t, LIMIT_AUTH_MESSAGE);
    out->client = border_take_address(t);
    out->tls = take_bool(t);
    out->exporter = take_bytes(t, BORDER_BINDING_MAX);
    out->end_point = take_bytes(t, BORDER_BINDING_MAX);
    out->certificate = take_bytes(t, BORDER_CERTIFICATE_NAME_MAX);
    return take_end(t);
}

void
border_put_auth_step(struct put *p, const struct border_auth_step *s)
{
    put_u64(p, s->exchange);
    put_u8(p, s->cancelled);
    put_bytes(p, s->cancelled ? (struct str){ NULL, 0 } : s->response);
}

bool
border_take_auth_step(struct take *t, struct border_auth_step *out)
{
    *out = (struct border_auth_step){ .exchange = take_u64(t), .cancelled = take_bool(t) };
    out->response = take_bytes(t, LIMIT_AUTH_MESSAGE);
    return take_end(t) && str_is_absent(out->response) == out->cancelled;
}

void
border_put_verdict(struct put *p, const struct border_verdict *v)
{
    put_u8(p, v->status);
    if (v->status == SASL_CHALLENGE)
        put_bytes(p, v->bytes);
    if (v->status != SASL_OK)
        return;
    put_bytes(p, v->user);
    put_u32(p, (uint32_t)v->sender_count);
    for (size_t i = 0; i < v->sender_count; i++)
        put_bytes(p, v->senders[i]);
}

bool
border_take_verdict(struct take *t, struct arena *arena, struct border_verdict *out)
{
    *out = (struct border_verdict){ .status = (uint8_t)take_enum(t, SASL_STATUS_LAST) };
    if (out->status == SASL_CHALLENGE)
        out->bytes = arena_keep(arena, take_bytes(t, LIMIT_AUTH_MESSAGE));
    if (t->bad || out->status != SASL_OK)
        return take_end(t) && (out->status != SASL_CHALLENGE || !str_is_absent(out->bytes));
    out->user = arena_keep(arena, take_bytes(t, LIMIT_USER_NAME));
    out->sender_count = take_count(t, LIMIT_USER_SENDERS);
    out->senders = arena_alloc(arena, (out->sender_count + 1) * sizeof *out->senders);
    for (size_t i = 0; i < out->sender_count && !t->bad; i++)
        out->senders[i] = arena_keep(arena, take_bytes(t, LIMIT_PATH));
    return take_end(t) && out->user.len > 0;
}

void
border_put_spend(struct put *p, const struct border_spend *s)
{
    put_bytes(p, s->user);
    put_u32(p, s->messages);
    put_u32(p, s->recipients);
}

bool
border_take_spend(struct take *t, struct border_spend *out)
{
    *out = (struct border_spend){ .user = take_bytes(t, LIMIT_USER_NAME) };
    out->messages = take_u32(t);
    out->recipients = take_u32(t);
    return take_end(t) && out->user.len > 0;
}

void
border_put_spent(struct put *p, const struct border_spent *s)
{
    put_u8(p, s->answer);
    put_u32(p, s->limit);
    put_i64(p, s->again_wall);
}

bool
border_take_spent(struct take *t, struct border_spent *out)
{
    *out = (struct border_spent){ .answer = (uint8_t)take_enum(t, SPEND_LAST) };
    out->limit = take_u32(t);
    out->again_wall = take_i64(t);
    return take_end(t);
}

/* ---- store to sender or mailbox ---- */

static size_t
envelope_head_size(const struct envelope *e)
{
    struct envelope head = *e;

    head.recipient_count = 0;
    return envelope_size(&head);
}

size_t
border_job_size(const struct border_job *j)
{
    size_t size = JOB_FIXED + 200 * j->allow_private_count + envelope_size(&j->envelope) +
                  envelope_head_size(&j->envelope) + j->base.len + j->content.len + j->domain.len + j->helo.len + j->tls_ca.len +
                  j->login_user.len + j->login_file.len;

    for (size_t i = 0; i < j->host_count; i++)
        size += 200 + j->hosts[i].name.len;
    for (size_t i = 0; i < j->envelope.recipient_count; i++)
        size += 8 + (j->mailboxes ? j->mailboxes[i].len : 0);
    return size;
}

void
border_put_job(struct put *p, const struct border_job *j)
{
    border_put_id(p, j->id);
    put_u8(p, j->kind);
    put_u8(p, j->alone);
    put_u16(p, j->port);
    put_u8(p, j->families);
    put_u8(p, j->configured);
    put_bytes(p, j->domain);
    border_put_address(p, &j->source_ipv4);
    border_put_address(p, &j->source_ipv6);
    put_bytes(p, j->helo);
    put_u64(p, (uint64_t)j->connect_wait);
    put_u64(p, (uint64_t)j->reply_wait);
    put_u32(p, j->messages_per_connection);
    put_u8(p, j->tls);
    put_u8(p, j->smtps);
    put_u8(p, j->hosts_secure);
    put_bytes(p, j->tls_ca);
    put_bytes(p, j->login_user);
    put_bytes(p, j->login_file);
    put_u8(p, j->login_token);
    put_u32(p, (uint32_t)j->allow_private_count);
    for (size_t i = 0; i < j->allow_private_count; i++) {
        border_put_address(p, &j->allow_private[i].base);
        put_u8(p, j->allow_private[i].bits);
    }
    put_u32(p, (uint32_t)j->host_count);
    for (size_t i = 0; i < j->host_count; i++) {
        put_bytes(p, j->hosts[i].name);
        put_u16(p, j->hosts[i].preference);
        put_u16(p, j->hosts[i].turn);
        border_put_address(p, &j->hosts[i].fixed);
    }
    envelope_put(p, &j->envelope);
    for (size_t i = 0; i < j->envelope.recipient_count; i++)
        put_u32(p, j->indices[i]);
    put_u8(p, j->mailboxes != NULL);
    for (size_t i = 0; j->mailboxes && i < j->envelope.recipient_count; i++)
        put_bytes(p, j->mailboxes[i]);
    put_bytes(p, j->base);
    put_u64(p, j->quota);
    put_u8(p, !str_is_absent(j->content));
    put_raw(p, str_is_absent(j->content) ? S("") : j->content);
}

static void
take_hosts(struct take *t, struct arena *arena, struct border_job *out)
{
    out->host_count = take_count(t, LIMIT_MX_HOSTS);
    out->hosts = arena_alloc(arena, (out->host_count + 1) * sizeof *out->hosts);
    for (size_t i = 0; i < out->host_count && !t->bad; i++) {
        out->hosts[i].name = arena_keep(arena, take_bytes(t, LIMIT_DOMAIN));
        out->hosts[i].preference = take_u16(t);
        out->hosts[i].turn = take_u16(t);
        out->hosts[i].fixed = border_take_address(t);
    }
}

static void
take_prefixes(struct take *t, struct arena *arena, struct border_job *out)
{
    out->allow_private_count = take_count(t, PREFIXES_MAX);
    out->allow_private = arena_alloc(arena, (out->allow_private_count + 1) * sizeof *out->allow_private);
    for (size_t i = 0; i < out->allow_private_count && !t->bad; i++) {
        out->allow_private[i].base = border_take_address(t);
        out->allow_private[i].bits = take_u8(t);
        size_t most = out->allow_private[i].base.family == ADDRESS_IPV6 ? 128 : 32;
        t->bad |= out->allow_private[i].bits > most;
    }
}

static int64_t
take_wait(struct take *t)
{
    uint64_t ns = take_u64(t);

    t->bad |= ns > (uint64_t)HOUR;
    return t->bad ? 0 : (int64_t)ns;
}

bool
border_take_job(struct take *t, struct arena *arena, struct border_job *out)
{
    *out = (struct border_job){ .id = border_take_id(t) };
    out->kind = (uint8_t)take_enum(t, DELIVERY_MAILDIR);
    out->alone = take_bool(t);
    out->port = take_u16(t);
    out->families = (uint8_t)take_enum(t, HOST_IPV4 | HOST_IPV6);
    out->configured = take_bool(t);
    out->domain = arena_keep(arena, take_bytes(t, LIMIT_PATH));
    out->source_ipv4 = border_take_address(t);
    out->source_ipv6 = border_take_address(t);
    out->helo = arena_keep(arena, take_bytes(t, LIMIT_DOMAIN));
    out->connect_wait = take_wait(t);
    out->reply_wait = take_wait(t);
    out->messages_per_connection = take_u32(t);
    out->tls = (uint8_t)take_enum(t, ROUTE_TLS_OVERRIDE);
    out->smtps = take_bool(t);
    out->hosts_secure = take_bool(t);
    out->tls_ca = arena_keep(arena, take_bytes(t, PATH_MAX_BYTES));
    out->login_user = arena_keep(arena, take_bytes(t, LIMIT_USER_NAME));
    out->login_file = arena_keep(arena, take_bytes(t, PATH_MAX_BYTES));
    out->login_token = take_bool(t);
    take_prefixes(t, arena, out);
    take_hosts(t, arena, out);
    if (t->bad || !envelope_take(t, arena, &out->envelope) || out->envelope.recipient_count > LIMIT_RCPT_PER_JOB)
        return false;
    size_t count = out->envelope.recipient_count;
    out->indices = arena_alloc(arena, (count + 1) * sizeof *out->indices);
    for (size_t i = 0; i < count; i++)
        out->indices[i] = take_u32(t);
    if (take_bool(t)) {
        out->mailboxes = arena_alloc(arena, (count + 1) * sizeof *out->mailboxes);
        for (size_t i = 0; i < count; i++)
            out->mailboxes[i] = arena_keep(arena, take_bytes(t, PATH_MAX_BYTES));
    }
    out->base = arena_keep(arena, take_bytes(t, PATH_MAX_BYTES));
    out->quota = take_u64(t);
    bool inline_content = take_bool(t);
    if (t->bad)
        return false;
    if (inline_content)
        out->content = arena_keep(arena, t->rest);
    return inline_content || t->rest.len == 0;
}

void
border_put_figures(struct put *p, const struct delivery_figures *f)
{
    put_i64(p, f->connect);
    put_i64(p, f->transfer);
    put_u32(p, f->connections);
    put_u32(p, f->transactions);
    put_u32(p, f->hosts_up);
    put_u32(p, f->hosts_down);
    put_u8(p, f->tls.known);
    put_u8(p, f->tls.encrypted);
    put_u8(p, f->tls.verified);
    put_u8(p, f->tls.resumed);
    put_u8(p, f->tls.level);
    put_u8(p, f->tls.source);
    put_u8(p, f->tls.result);
    put_bytes(p, str_from_cstr(f->tls.protocol));
    put_bytes(p, str_from_cstr(f->tls.cipher));
    put_bytes(p, str_from_cstr(f->tls.domain));
}

static void
take_words(struct take *t, char *memory, size_t cap)
{
    struct text text = text_init(memory, cap);

    text_put(&text, take_bytes(t, cap - 1));
    CHECK(text_cstr(&text));
}

void
border_take_figures(struct take *t, struct delivery_figures *out)
{
    out->connect = take_i64(t);
    out->transfer = take_i64(t);
    out->connections = take_u32(t);
    out->transactions = take_u32(t);
    out->hosts_up = take_u32(t);
    out->hosts_down = take_u32(t);
    out->tls.known = take_bool(t);
    out->tls.encrypted = take_bool(t);
    out->tls.verified = take_bool(t);
    out->tls.resumed = take_bool(t);
    out->tls.level = (uint8_t)take_enum(t, TLS_REFUSED);
    out->tls.source = (uint8_t)take_enum(t, TLS_BY_MESSAGE);
    out->tls.result = (uint8_t)take_enum(t, TLS_RESULT_LAST);
    take_words(t, out->tls.protocol, sizeof out->tls.protocol);
    take_words(t, out->tls.cipher, sizeof out->tls.cipher);
    take_words(t, out->tls.domain, sizeof out->tls.domain);
}

size_t
border_outcomes_size(const struct outcome *outcomes, size_t count)
{
    size_t size = 64 + sizeof(struct delivery_figures);

    for (size_t i = 0; i < count; i++)
        size += 16 + outcomes[i].enhanced.len + outcomes[i].reply.len + outcomes[i].remote.len;
    return size;
}

void
border_put_outcomes(struct put *p, const struct outcome *outcomes, size_t count)
{
    put_u32(p, (uint32_t)count);
    for (size_t i = 0; i < count; i++) {
        put_u8(p, outcomes[i].kind);
        put_u8(p, outcomes[i].about);
        put_u8(p, outcomes[i].dsn_passed_on);
        put_u8(p, outcomes[i].attempt);
        put_bytes(p, str_slice(outcomes[i].enhanced, 0, ENHANCED_MAX));
        put_bytes(p, str_slice(outcomes[i].reply, 0, LIMIT_REPLY_TEXT));
        put_bytes(p, str_slice(outcomes[i].remote, 0, REMOTE_MAX));
    }
}

bool
border_take_outcomes(struct take *t, struct arena *arena, struct outcome *out, size_t count)
{
    if (take_count(t, LIMIT_RCPT_PER_JOB) != count)
        return false;
    for (size_t i = 0; i < count && !t->bad; i++) {
        out[i].kind = (uint8_t)take_enum(t, OUTCOME_FAILED);
        out[i].about = (uint8_t)take_enum(t, OUTCOME_ABOUT_DESTINATION);
        out[i].dsn_passed_on = take_bool(t);
        out[i].attempt = (uint8_t)take_enum(t, LIMIT_RCPT_PER_JOB - 1);
        out[i].enhanced = arena_keep(arena, take_bytes(t, ENHANCED_MAX));
        out[i].reply = arena_keep(arena, take_bytes(t, LIMIT_REPLY_TEXT));
        out[i].remote = arena_keep(arena, take_bytes(t, REMOTE_MAX));
    }
    return take_end(t);
}

/* ---- notices ---- */

enum { NOTICE_RECIPIENT_FIXED = 64, NOTICE_FIXED = 512 };

size_t
border_compose_size(const struct border_compose *c)
{
    size_t size = NOTICE_FIXED + c->dsn.hostname.len + c->dsn.to.len + c->dsn.envid.len + c->trace.len;

    for (size_t i = 0; i < c->dsn.recipient_count; i++) {
        const struct dsn_recipient *r = &c->dsn.recipients[i];
        size += NOTICE_RECIPIENT_FIXED + r->address.len + r->given.len + r->orcpt.len + r->status.len + r->reply.len +
                r->remote.len;
    }
    return size;
}

void
border_put_compose(struct put *p, const struct border_compose *c)
{
    const struct dsn *d = &c->dsn;

    border_put_id(p, d->id);
    border_put_id(p, d->original);
    put_bytes(p, d->hostname);
    put_bytes(p, d->to);
    put_bytes(p, d->envid);
    put_i64(p, d->arrival_wall);
    put_i64(p, d->now_wall);
    put_u64(p, d->original_size);
    put_u8(p, d->ret);
    put_u8(p, d->original_body);
    put_u8(p, d->original_utf8);
    put_u8(p, c->bare);
    put_bytes(p, c->trace);
    put_u32(p, (uint32_t)d->recipient_count);
    for (size_t i = 0; i < d->recipient_count; i++) {
        const struct dsn_recipient *r = &d->recipients[i];
        put_u8(p, r->action);
        put_bytes(p, r->address);
        put_bytes(p, r->given);
        put_bytes(p, r->orcpt);
        put_bytes(p, r->status);
        put_bytes(p, r->reply);
        put_bytes(p, r->remote);
        put_i64(p, r->retry_until_wall);
    }
}

bool
border_take_compose(struct take *t, struct arena *arena, struct border_compose *out)
{
    struct dsn *d = &out->dsn;

    *d = (struct dsn){ .id = border_take_id(t) };
    d->original = border_take_id(t);
    d->hostname = arena_keep(arena, take_bytes(t, LIMIT_DOMAIN));
    d->to = arena_keep(arena, take_bytes(t, LIMIT_COMMAND_LINE));
    d->envid = arena_keep(arena, take_bytes(t, LIMIT_COMMAND_LINE));
    d->arrival_wall = take_i64(t);
    d->now_wall = take_i64(t);
    d->original_size = take_u64(t);
    d->ret = (uint8_t)take_enum(t, RET_HDRS);
    d->original_body = (uint8_t)take_enum(t, BODY_BINARYMIME);
    d->original_utf8 = take_bool(t);
    out->bare = take_bool(t);
    out->trace = arena_keep(arena, take_bytes(t, LIMIT_ENVELOPE_FIXED));
    d->recipient_count = take_count(t, LIMIT_RCPT_EXPANDED);
    struct dsn_recipient *recipients = arena_alloc(arena, (d->recipient_count + 1) * sizeof *recipients);
    for (size_t i = 0; i < d->recipient_count && !t->bad; i++) {
        struct dsn_recipient *r = &recipients[i];
        r->action = (uint8_t)take_enum(t, DSN_ACTION_LAST);
        r->address = arena_keep(arena, take_bytes(t, LIMIT_COMMAND_LINE));
        r->given = arena_keep(arena, take_bytes(t, LIMIT_COMMAND_LINE));
        r->orcpt = arena_keep(arena, take_bytes(t, LIMIT_COMMAND_LINE));
        r->status = arena_keep(arena, take_bytes(t, ENHANCED_MAX));
        r->reply = arena_keep(arena, take_bytes(t, 2 * LIMIT_REPLY_TEXT));
        r->remote = arena_keep(arena, take_bytes(t, REMOTE_MAX));
        r->retry_until_wall = take_i64(t);
    }
    d->recipients = recipients;
    return take_end(t) && d->recipient_count > 0;
}

/* ---- sender to fetch ---- */

size_t
border_policy_size(const struct sts_answer *a)
{
    size_t size = a->why.len;

    for (size_t i = 0; i < a->policy.mx_count; i++)
        size += 4 + a->policy.mx[i].len;
    return size;
}

void
border_put_policy(struct put *p, const struct sts_answer *a)
{
    put_u8(p, a != NULL);
    if (!a)
        return;
    put_u8(p, a->found);
    put_u8(p, a->result);
    put_bytes(p, a->why);
    put_bytes(p, a->id);
    put_i64(p, a->fetched_wall);
    put_i64(p, a->expires_wall);
    put_u8(p, a->policy.mode);
    put_u32(p, a->policy.max_age);
    put_u32(p, (uint32_t)a->policy.mx_count);
    for (size_t i = 0; i < a->policy.mx_count; i++)
        put_bytes(p, a->policy.mx[i]);
}

bool
border_take_policy(struct take *t, struct arena *arena, bool *out_known, struct sts_answer *out)
{
    struct sts_answer a = { .why = S("") };
    size_t bytes = 0;

    *out_known = take_bool(t);
    if (!*out_known)
        return take_end(t);
    a.found = take_bool(t);
    a.result = (uint8_t)take_enum(t, TLS_RESULT_LAST);
    a.why = arena_keep(arena, take_bytes(t, HTTPS_WHY_MAX));
    a.id = arena_keep(arena, take_bytes(t, STS_ID_MAX));
    a.fetched_wall = take_i64(t);
    a.expires_wall = take_i64(t);
    a.policy.mode = (uint8_t)take_enum(t, STS_MODES - 1);
    a.policy.max_age = take_u32(t);
    a.policy.mx_count = take_count(t, STS_BODY_MAX / 5);
    if (t->bad || a.policy.mx_count > t->rest.len / 4)
        return false;
    a.policy.mx = arena_alloc(arena, a.policy.mx_count * sizeof *a.policy.mx);
    for (size_t i = 0; i < a.policy.mx_count; i++) {
        struct str pattern = take_bytes(t, LIMIT_DOMAIN + 2);
        bytes += pattern.len;
        if (bytes > STS_BODY_MAX)
            return false;
        a.policy.mx[i] = arena_keep(arena, pattern);
    }
    *out = a;
    return take_end(t);
}

/* ---- operators ---- */

enum { PLACE_MAX = 64 };

void
border_put_listed(struct put *p, const struct border_listed *l)
{
    border_put_id(p, l->id);
    put_u64(p, l->size);
    put_i64(p, l->accepted_wall);
    put_u8(p, l->held);
    put_u8(p, l->deaths);
    put_u32(p, l->pending);
    put_bytes(p, str_slice(l->reverse_path, 0, LIMIT_PATH));
    put_bytes(p, str_slice(l->recipient, 0, LIMIT_PATH));
    put_bytes(p, str_slice(l->place, 0, PLACE_MAX));
    put_bytes(p, str_slice(l->reason, 0, LIMIT_REPLY_TEXT));
    put_i64(p, l->next_wall);
    put_u16(p, l->attempts);
}

void
border_take_listed(struct take *t, struct border_listed *out)
{
    *out = (struct border_listed){ .id = border_take_id(t) };
    out->size = take_u64(t);
    out->accepted_wall = take_i64(t);
    out->held = take_bool(t);
    out->deaths = take_u8(t);
    out->pending = take_u32(t);
    out->reverse_path = take_bytes(t, LIMIT_PATH);
    out->recipient = take_bytes(t, LIMIT_PATH);
    out->place = take_bytes(t, PLACE_MAX);
    out->reason = take_bytes(t, LIMIT_REPLY_TEXT);
    out->next_wall = take_i64(t);
    out->attempts = take_u16(t);
}

enum { SHOWN_FIXED = 512, SHOWN_RECIPIENT_FIXED = 128, REPLY_MAX = 2 * LIMIT_REPLY_TEXT };

size_t
border_shown_size(const struct border_shown *s)
{
    size_t size = SHOWN_FIXED + s->held_why.len + s->reverse_path.len + s->client.len + s->helo.len + s->session.len +
                  s->envid.len;

    for (size_t i = 0; i < s->shown; i++) {
        const struct border_shown_recipient *r = &s->recipients[i];
        size += SHOWN_RECIPIENT_FIXED + r->address.len + r->given.len + r->place.len + r->reason.len + r->last_reply.len +
                r->last_remote.len;
    }
    return size;
}

void
border_put_shown(struct put *p, const struct border_shown *s)
{
    border_put_id(p, s->id);
    put_u64(p, s->size);
    put_i64(p, s->accepted_wall);
    put_i64(p, s->expires_wall);
    put_u8(p, s->held);
    put_u8(p, s->deaths);
    put_bytes(p, s->held_why);
    put_bytes(p, s->reverse_path);
    put_bytes(p, s->client);
    put_bytes(p, s->helo);
    put_bytes(p, s->session);
    put_bytes(p, s->envid);
    put_u32(p, s->recipient_count);
    put_u32(p, (uint32_t)s->shown);
    for (size_t i = 0; i < s->shown; i++) {
        const struct border_shown_recipient *r = &s->recipients[i];
        put_bytes(p, r->address);
        put_bytes(p, r->given);
        put_bytes(p, r->place);
        put_bytes(p, r->reason);
        put_bytes(p, r->last_reply);
        put_bytes(p, r->last_remote);
        put_u8(p, r->state);
        put_u16(p, r->attempts);
        put_i64(p, r->next_wall);
    }
}

bool
border_take_shown(struct take *t, struct arena *arena, struct border_shown *out)
{
    *out = (struct border_shown){ .id = border_take_id(t) };
    out->size = take_u64(t);
    out->accepted_wall = take_i64(t);
    out->expires_wall = take_i64(t);
    out->held = take_bool(t);
    out->deaths = take_u8(t);
    out->held_why = take_bytes(t, REPLY_MAX);
    out->reverse_path = take_bytes(t, LIMIT_COMMAND_LINE);
    out->client = take_bytes(t, LIMIT_PATH);
    out->helo = take_bytes(t, LIMIT_PATH);
    out->session = take_bytes(t, LIMIT_PATH);
    out->envid = take_bytes(t, LIMIT_COMMAND_LINE);
    out->recipient_count = take_u32(t);
    out->shown = take_count(t, BORDER_SHOW_RECIPIENTS);
    out->recipients = arena_alloc(arena, (out->shown + 1) * sizeof *out->recipients);
    for (size_t i = 0; i < out->shown && !t->bad; i++) {
        struct border_shown_recipient *r = &out->recipients[i];
        r->address = take_bytes(t, LIMIT_COMMAND_LINE);
        r->given = take_bytes(t, LIMIT_COMMAND_LINE);
        r->place = take_bytes(t, PLACE_MAX);
        r->reason = take_bytes(t, REPLY_MAX);
        r->last_reply = take_bytes(t, REPLY_MAX);
        r->last_remote = take_bytes(t, REMOTE_MAX);
        r->state = (uint8_t)take_enum(t, STATE_LAST);
        r->attempts = take_u16(t);
        r->next_wall = take_i64(t);
    }
    return take_end(t);
}
