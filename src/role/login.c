/* login - see login.h. */
#include "role/login.h"

#include "base/check.h"
#include "message/date.h"
#include "message/domain.h"
#include "role/border.h"
#include "sasl/sender.h"

#include <string.h>

enum { GRANTS_MAX = LIMIT_USER_SENDERS * (2 * LIMIT_PATH + 4 * LIMIT_DOMAIN + 64) + 4096 }; /* each as it came, and with A-labels */

void
login_init(struct login *l, struct role *role)
{
    *l = (struct login){ .role = role };
    arena_init(&l->arena, rt_mem(role->rt), 512, GRANTS_MAX + BORDER_VERDICT_BYTES);
}

void
login_done(struct login *l)
{
    arena_done(&l->arena);
}

/* ---- AUTH ---- */

/* As addresses are compared: with A-labels. `*` of send-as stays. */
static struct str
with_ascii_domain(struct str address, struct arena *arena)
{
    size_t at = str_find_last_byte(address, '@');
    struct str domain = str_from(address, at + 1);

    if (str_is_ascii(domain) || str_is_absent(domain = domain_to_ascii(domain, arena)))
        return address;
    return arena_join(arena, str_slice(address, 0, at + 1), domain);
}

struct binding { /* RFC 9266, RFC 5929 */
    unsigned char exporter_bytes[TLS_EXPORTER], end_point_bytes[TLS_END_POINT_MAX];
    struct str exporter, end_point;
};

static void
find_binding(const struct login *l, struct binding *b)
{
    size_t len;

    b->exporter = b->end_point = (struct str){ NULL, 0 };
    if (l->tls && tls_exporter(l->tls, b->exporter_bytes))
        b->exporter = str_new(b->exporter_bytes, TLS_EXPORTER);
    if (l->tls && tls_server_end_point(l->tls, b->end_point_bytes, &len))
        b->end_point = str_new(b->end_point_bytes, len);
}

struct str
login_mechanisms(struct login *l, const struct server_client *client, struct arena *arena)
{
    struct binding b;
    char memory[256];
    struct text t = text_init(memory, sizeof memory);

    find_binding(l, &b);
    struct sasl_situation situation = { l->tls != NULL, !str_is_absent(b.exporter) || !str_is_absent(b.end_point),
                                        !str_is_absent(client->tls.client_name) };
    unsigned offered = sasl_offered(l->role->site->users.mechanisms, situation);
    for (int m = 0; m < SASL_MECHANISMS; m++)
        if (offered & SASL_BIT(m)) {
            text_put(&t, t.len > 0 ? S(" ") : S(""));
            text_put(&t, sasl_mechanism_name((enum sasl_mechanism)m));
        }
    CHECK(!t.full);
    return arena_keep(arena, text_str(&t));
}

static void
ask(struct login *l, uint16_t type, struct str body, struct arena *arena, int64_t until, struct auth_answer *out)
{
    struct border_verdict v;
    struct str reply;

    *out = (struct auth_answer){ .status = SASL_LATER };
    if (err_is(role_call(l->role, ROLE_GATE, type, body, arena, until, &reply)))
        return;
    struct take t = take_init(reply);
    arena_reset(&l->arena);
    l->sender_count = 0;
    if (!border_take_verdict(&t, &l->arena, &v))
        return;
    *out = (struct auth_answer){ .status = v.status, .bytes = v.bytes, .user = v.user };
    if (v.status != SASL_OK)
        return;
    for (size_t i = 0; i < v.sender_count; i++)
        v.senders[i] = with_ascii_domain(v.senders[i], &l->arena);
    l->senders = v.senders;
    l->sender_count = v.sender_count;
}

void
login_start(struct login *l, const struct server_client *client, struct str mechanism, struct str initial,
            struct arena *arena, int64_t until, struct auth_answer *out)
{
    struct put p = put_init(arena_alloc(arena, BORDER_AUTH_BYTES), BORDER_AUTH_BYTES);
    struct binding b;

    l->exchange = rt_random(l->role->rt);
    find_binding(l, &b);
    border_put_auth(&p, &(struct border_auth){ .exchange = l->exchange, .mechanism = mechanism, .initial = initial,
                                               .client = client->address, .tls = l->tls != NULL, .exporter = b.exporter,
                                               .end_point = b.end_point, .certificate = client->tls.client_name });
    CHECK(!p.full);
    ask(l, BORDER_AUTH, put_str_so_far(&p), arena, until, out);
    explicit_bzero(p.ptr, p.len);
}

void
login_step(struct login *l, const struct server_client *client, struct str response, struct arena *arena, int64_t until,
           struct auth_answer *out)
{
    struct put p = put_init(arena_alloc(arena, BORDER_AUTH_BYTES), BORDER_AUTH_BYTES);
    bool cancelled = str_is_absent(response);

    (void)client;
    border_put_auth_step(&p, &(struct border_auth_step){ .exchange = l->exchange, .cancelled = cancelled,
                                                         .response = cancelled ? S("") : response });
    CHECK(!p.full);
    ask(l, BORDER_AUTH_STEP, put_str_so_far(&p), arena, until, out);
    explicit_bzero(p.ptr, p.len);
}

/* ---- whom a user may send as ---- */

enum { MANY = 256 };

void
login_begin_message(struct login *l)
{
    l->counted = false;
    l->looked_up = 0;
}

/* Mail for this address comes to him. */
static bool
is_his(const struct login *l, struct str user, struct str address)
{
    size_t at = str_find_last_byte(address, '@');

    if (str_has_byte(user, '@'))
        return str_eq_nocase(address, user);
    return str_eq_nocase(str_slice(address, 0, at), user) &&
           directory_route(l->role->site->directory, str_from(address, at + 1))->kind != DIRECTORY_ROUTE_NONE;
}

/* Nobody else's address is asked of a gateway here: what leads to him, the directory knows. After a long list it is the turn of
 * others. */
static bool
leads_to(struct login *l, const struct server_client *client, struct str user, struct path path)
{
    struct directory_query query = { path, true, &client->local };
    struct directory_verdict v;
    struct arena work;
    bool found = false;

    arena_init(&work, rt_mem(l->role->rt), 1024, DIRECTORY_ANSWER_MAX + (64 << 10));
    directory_lookup(l->role->site->directory, &query, &work, &v);
    for (size_t i = 0; i < v.count && !found; i++)
        found = v.recipients[i].origin != RECIPIENT_EXPANDED && is_his(l, user, v.recipients[i].address);
    arena_done(&work);
    l->looked_up += v.count;
    if (v.count > MANY)
        fiber_yield(l->role->rt);
    return found;
}

const struct reply *
login_may_send(struct login *l, const struct server_client *client, struct path path, struct arena *arena)
{
    struct str address = path_text(path, arena), same = with_ascii_domain(address, arena);
    struct str user = with_ascii_domain(client->user, arena);

    if (is_his(l, user, same) || sasl_may_send_as(l->senders, l->sender_count, same))
        return NULL;
    if (l->looked_up > 2 * LIMIT_RCPT_EXPANDED) /* a From that names a list again and again would have the time of all others */
        return &reply_lists_of_authors;
    if (leads_to(l, client, user, path))
        return NULL;
    return reply_make(arena, 550, "5.7.1", "<%.*s>: that address is not yours; you are logged in as %.*s", STR_ARG(address),
                      STR_ARG(client->user));
}

const struct reply *
login_check_domain(const struct login *l, struct path path, struct arena *arena)
{
    const struct site *site = l->role->site;
    bool plain = !str_has_byte(path.domain, '.') && !str_starts(path.domain, S("["));

    if (path.domain.len == 0 || !plain || str_eq_nocase(path.domain, site->hostname) ||
        site_route(site, path.domain) != &site->routes[site->route_count - 1].route)
        return NULL;
    return reply_make(arena, 501, "5.1.8", "<%.*s>: %.*s is no domain that the world knows; write it in full",
                      STR_ARG(path_text(path, arena)), STR_ARG(path.domain));
}

/* ---- what he may send ---- */

/*
 * 450 4.7.1: RFC 5321 section 4.3.2 has 450 for RCPT, where it holds back this recipient and lets those before it go; 452
 * would say that there is no room, or make a client send the others in another transaction at once.
 */
const struct reply *
login_spend(struct login *l, const struct server_client *client, struct arena *arena, int64_t until)
{
    unsigned char memory[LIMIT_USER_NAME + 32];
    struct put p = put_init(memory, sizeof memory);
    char when_memory[64];
    struct text when = text_init(when_memory, sizeof when_memory);
    struct border_spent spent;
    struct str reply;

    border_put_spend(&p, &(struct border_spend){ .user = client->user, .messages = !l->counted, .recipients = 1 });
    CHECK(!p.full);
    /* A limit that cannot be asked for does not keep mail in: as at the door. */
    if (err_is(role_call(l->role, ROLE_GATE, BORDER_SPEND, put_str_so_far(&p), arena, until, &reply)))
        return NULL;
    struct take t = take_init(reply);
    if (!border_take_spent(&t, &spent) || spent.answer == SPEND_OK) {
        l->counted = true;
        return NULL;
    }
    date_put_rfc3339(&when, spent.again_wall);
    return reply_make(arena, 450, "4.7.1", "Within a day you may send %s %u %s; there is room again from %.*s on",
                      spent.answer == SPEND_MESSAGES ? "no more than" : "to no more than", spent.limit,
                      spent.answer == SPEND_MESSAGES ? "messages" : "recipients", STR_ARG(text_str(&when)));
}
