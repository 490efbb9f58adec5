/*
 * role - see role.h. The handler of the control link only notes what came; role_main() waits for GO, enters the sandbox
 * and runs. A control link that is lost means that the supervisor died: the role drains as if told to stop.
 */
#include "role/role.h"

#include "base/check.h"
#include "role/control.h"
#include "runtime/log.h"

#include <signal.h>
#include <string.h>

enum { CONTROL_DESCRIPTOR = 3 };

#define LAST_WORDS_NS (5 * SECOND)

static const struct str kind_names[ROLE_KINDS] = {
    STR("supervisor"), STR("receiver"), STR("submission"), STR("gate"),    STR("store"),
    STR("sender"),     STR("mailbox"),  STR("resolver"),   STR("checker"), STR("console"), STR("keys"),
    STR("fetch"),
};

struct str
role_kind_name(enum role_kind kind)
{
    CHECK((unsigned)kind < ROLE_KINDS);
    return kind_names[kind];
}

enum role_kind
role_of_listener(enum listener_kind kind)
{
    return kind == LISTENER_MX ? ROLE_RECEIVER : ROLE_SUBMISSION;
}

/* ---- peers ---- */

static bool
peer_message(void *ctx, struct link *link, struct link_message *m)
{
    struct peer *peer = ctx;

    (void)link;
    return peer->role->ops->message && peer->role->ops->message(peer->role, peer, m);
}

/* If both still live, the supervisor links them anew. */
static void
tell_unlinked(struct role *role, uint32_t tie)
{
    unsigned char body[4];
    struct put p = put_init(body, sizeof body);

    put_u32(&p, tie);
    link_post(role->control, CONTROL_UNLINKED, put_str_so_far(&p));
}

static void
peer_closed(void *ctx, struct link *link, struct err why)
{
    struct peer *peer = ctx;
    struct role *role = peer->role;

    if (why.kind != ERR_CLOSED && why.kind != ERR_RESET) {
        struct log_line line;
        log_begin(&line, role->rt, LOG_WARNING, "link-violated");
        log_str(&line, "peer", role_kind_name(peer->kind));
        log_err(&line, why);
        log_end(&line);
    }
    tell_unlinked(role, peer->tie);
    list_remove(&peer->node);
    if (peer->up && role->ops->peer_down)
        role->ops->peer_down(role, peer);
    handle_close(role->rt, peer->second);
    link_free_later(link);
    mem_free(rt_mem(role->rt), peer, sizeof *peer);
    event_wake(role->rt, &role->changed);
}

static void
peer_opened(void *ctx, struct link *link)
{
    struct peer *peer = ctx;
    struct role *role = peer->role;

    (void)link;
    peer->up = true;
    if (role->ops->peer_up)
        role->ops->peer_up(role, peer);
    handle_close(role->rt, peer->second);
    peer->second = HANDLE_NONE;
    event_wake(role->rt, &role->changed);
}

/* Passwords go to the gate, keys of tickets come from `keys`. */
static bool
carries_secrets(enum role_kind kind)
{
    return kind == ROLE_GATE || kind == ROLE_KEYS;
}

static void
add_peer(struct role *role, const struct role_pending *pending)
{
    struct peer *peer = mem_new(rt_mem(role->rt), struct peer);

    *peer = (struct peer){ .role = role, .kind = pending->kind, .index = pending->index,
                           .generation = pending->generation, .tie = pending->tie, .second = pending->second };
    struct link_settings settings = {
        .name = role_kind_name(peer->kind), .ctx = peer, .handle = peer_message, .opened = peer_opened, .closed = peer_closed,
        .forgets = carries_secrets(role->ops->kind) || carries_secrets(peer->kind)
    };
    if (err_is(link_open(role->rt, pending->handle, &settings, &peer->link))) {
        handle_close(role->rt, pending->second);
        mem_free(rt_mem(role->rt), peer, sizeof *peer);
        tell_unlinked(role, pending->tie);
        return;
    }
    peer->serial = ++role->last_serial;
    list_push_back(&role->peers, &peer->node);
}

/* Until the role has prepared itself, nobody may speak to it. */
static bool
take_peer(struct role *role, struct link_message *m)
{
    struct take t = take_init(m->body);
    struct role_pending pending = { .kind = (enum role_kind)take_enum(&t, ROLE_KINDS - 1) };

    pending.index = take_u32(&t);
    pending.generation = take_u32(&t);
    pending.tie = take_u32(&t);
    if (!take_end(&t) || m->handle_count < 1 || m->handle_count > 2)
        return false;
    pending.handle = m->handles[0];
    pending.second = m->handle_count == 2 ? m->handles[1] : HANDLE_NONE;
    m->handle_count = 0;
    if (role->running) {
        add_peer(role, &pending);
        return true;
    }
    if (role->pending_count == ROLE_PENDING_MAX) { /* former roles of many reloads: they are linked when this one runs */
        handle_close(role->rt, pending.handle);
        handle_close(role->rt, pending.second);
        tell_unlinked(role, pending.tie);
        return true;
    }
    role->pending[role->pending_count++] = pending;
    return true;
}

static bool
serves(const struct role *role, const struct peer *peer, enum role_kind kind, bool of_any_generation)
{
    return peer->kind == kind && peer->up && link_is_open(peer->link) &&
           (of_any_generation || peer->generation == role->generation);
}

struct peer *
role_peer(struct role *role, enum role_kind kind)
{
    for (int any = 0; any < 2; any++) {
        size_t count = 0;
        list_each (node, &role->peers)
            count += serves(role, container_of(node, struct peer, node), kind, any);
        size_t turn = count ? role->next_peer++ % count : 0;
        list_each (node, &role->peers) {
            struct peer *peer = container_of(node, struct peer, node);
            if (serves(role, peer, kind, any) && turn-- == 0)
                return peer;
        }
    }
    return NULL;
}

struct peer *
role_peer_by_serial(struct role *role, uint64_t serial)
{
    list_each (node, &role->peers) {
        struct peer *peer = container_of(node, struct peer, node);
        if (peer->serial == serial)
            return peer;
    }
    return NULL;
}

void
role_reply(struct role *role, uint64_t serial, uint32_t call, uint16_t type, struct str body)
{
    struct peer *peer = role_peer_by_serial(role, serial);

    if (peer)
        link_reply(peer->link, call, type, body);
}

struct err
role_call(struct role *role, enum role_kind kind, uint16_t type, struct str body, struct arena *arena, int64_t until,
          struct str *out_reply)
{
    struct peer *peer;

    while (!(peer = role_peer(role, kind)))
        TRY(event_wait(role->rt, &role->changed, until));
    return link_call(peer->link, type, body, arena, until, out_reply);
}

/* ---- what the supervisor says ---- */

static bool
add_listener(struct role *role, struct link_message *m)
{
    struct take t = take_init(m->body);
    struct role_listener *l = &role->listeners[role->listener_count];

    if (m->handle_count != 1 || role->listener_count == ROLE_LISTENERS_MAX)
        return false;
    l->name = arena_keep(&role->arena, take_bytes(&t, LIMIT_LISTENER_NAME));
    if (!address_parse(take_bytes(&t, 128), &l->address) || !take_end(&t))
        return false;
    l->handle = m->handles[0];
    m->handle_count = 0;
    role->listener_count++;
    return true;
}

static bool
add_dir(struct role *role, struct link_message *m)
{
    struct take t = take_init(m->body);
    struct role_dir *d = &role->dirs[role->dir_count];

    if (m->handle_count != 1 || role->dir_count == ROLE_DIRS_MAX)
        return false;
    d->purpose = arena_keep(&role->arena, take_bytes(&t, 64));
    d->path = arena_keep(&role->arena, take_bytes(&t, 4096));
    if (!take_end(&t))
        return false;
    d->handle = m->handles[0];
    m->handle_count = 0;
    role->dir_count++;
    return true;
}

/* The files of one certificate; without handles: that was the last one. */
static bool
try_certificate(struct role *role, struct link_message *m)
{
    if (m->body.len > 0 || !role->running || !role->ops->try_certificate)
        return false;
    if (m->handle_count == 0 && m->call != 0) {
        role->ops->try_certificate(role, m->call);
        return true;
    }
    if (m->handle_count != 2 || m->call != 0)
        return false;
    handle_close(role->rt, role->tried.certificate); /* of a call that did not come */
    handle_close(role->rt, role->tried.key);
    role->tried = (struct role_certificate){ .certificate = m->handles[0], .key = m->handles[1] };
    m->handle_count = 0;
    return true;
}

static bool
take_tickets(struct role *role, struct link_message *m)
{
    if (m->call != 0 && role->running && role->ops->tell_tickets) {
        role->ops->tell_tickets(role, m->call);
        return true;
    }
    if (m->call != 0 || role->running || m->body.len > sizeof role->tickets)
        return false;
    memcpy(role->tickets, m->body.ptr, m->body.len);
    role->tickets_len = m->body.len;
    return true;
}

static bool
add_certificate(struct role *role, struct link_message *m)
{
    struct take t = take_init(m->body);
    uint32_t index = take_u32(&t);

    if (!take_end(&t) || (m->handle_count != 0 && m->handle_count != 2))
        return false;
    if (m->handle_count == 0) {
        if (role->running && role->ops->certificates)
            role->ops->certificates(role);
        return true;
    }
    if (!role_add_certificate(role, (struct role_certificate){ index, m->handles[0], m->handles[1] }))
        return false;
    m->handle_count = 0;
    return true;
}

static bool
add_secret(struct role *role, struct link_message *m)
{
    struct take t = take_init(m->body);
    struct str path = take_bytes(&t, LIMIT_CONF_PATH), secret = take_bytes(&t, SASL_SECRET_MAX);

    if (!take_end(&t) || role->running || role->secret_count == SITE_SECRETS_MAX)
        return false;
    if (!role->secrets)
        role->secrets = arena_alloc(&role->arena, SITE_SECRETS_MAX * sizeof *role->secrets);
    role->secrets[role->secret_count++] =
        (struct role_secret){ arena_keep(&role->arena, path), arena_keep(&role->arena, secret) };
    return true;
}

/* A later one takes the place of one that was not taken. */
static bool
add_users(struct role *role, struct link_message *m)
{
    if (m->body.len != 0 || m->handle_count > 1)
        return false;
    if (role->users_said)
        handle_close(role->rt, role->users);
    role->users = m->handle_count == 1 ? m->handles[0] : HANDLE_NONE;
    role->users_said = true;
    m->handle_count = 0;
    if (role->running && role->ops->users_file)
        role->ops->users_file(role);
    return true;
}

bool
role_add_certificate(struct role *role, struct role_certificate c)
{
    size_t i = 0;

    if (c.index >= SITE_CERTIFICATES_MAX)
        return false;
    while (i < role->certificate_count && role->certificates[i].index != c.index)
        i++;
    if (i < role->certificate_count) {
        handle_close(role->rt, role->certificates[i].certificate);
        handle_close(role->rt, role->certificates[i].key);
    } else {
        role->certificate_count++; /* no more than there are indices */
    }
    role->certificates[i] = c;
    return true;
}

size_t
role_take_certificates(struct role *role, struct role_certificate out[SITE_CERTIFICATES_MAX])
{
    size_t count = role->certificate_count;

    for (size_t i = 0; i < count; i++)
        out[i] = role->certificates[i];
    role->certificate_count = 0;
    return count;
}

struct role_dir *
role_dir_of(struct role *role, struct str purpose)
{
    for (size_t i = 0; i < role->dir_count; i++)
        if (str_eq(role->dirs[i].purpose, purpose))
            return &role->dirs[i];
    return NULL;
}

/* Parts are joined; with the last one the site is built anew. */
static bool
add_bundle(struct role *role, struct link_message *m)
{
    struct take t = take_init(m->body);
    bool last = take_bool(&t);

    if (t.bad || role->bundle_len + t.rest.len > LIMIT_CONFIG_BYTES)
        return false;
    if (role->bundle_len + t.rest.len > role->bundle_cap) {
        size_t cap = role->bundle_cap ? role->bundle_cap : 64 << 10;
        while (cap < role->bundle_len + t.rest.len)
            cap *= 2;
        role->bundle = mem_resize(rt_mem(role->rt), role->bundle, role->bundle_cap, cap);
        role->bundle_cap = cap;
    }
    if (t.rest.len)
        memcpy(role->bundle + role->bundle_len, t.rest.ptr, t.rest.len);
    role->bundle_len += t.rest.len;
    if (!last)
        return true;
    struct loaded fresh;
    void *bytes = role->bundle;
    size_t len = role->bundle_len, size = role->bundle_cap;
    role->bundle = NULL;
    role->bundle_len = role->bundle_cap = 0;
    if (!load_bundle(role->rt, bytes, len, size, &fresh)) /* the supervisor had checked it */
        return false;
    load_free(&role->former); /* the one before stays: what runs may still hold its strings */
    role->former = role->loaded;
    role->loaded = fresh;
    role->site = fresh.site;
    if (role->prepared && role->ops->configured)
        role->ops->configured(role);
    return true;
}

static bool
handle_control(void *ctx, struct link *link, struct link_message *m)
{
    struct role *role = ctx;
    struct take t = take_init(m->body);
    struct control_setup setup;

    (void)link;
    switch (m->type) {
    case CONTROL_SETUP:
        if (!control_take_setup(&t, &setup) || setup.kind != role->ops->kind)
            return false;
        /* The store hears it again with each reload: it goes on as one of the new generation. */
        role->kind = setup.kind;
        role->index = setup.index;
        role->generation = setup.generation;
        role->user_id = setup.user_id;
        return true;
    case CONTROL_BUNDLE:
        return add_bundle(role, m);
    case CONTROL_LISTENER:
        return add_listener(role, m);
    case CONTROL_DIR:
        return add_dir(role, m);
    case CONTROL_CERTIFICATE:
        return add_certificate(role, m);
    case CONTROL_TICKETS:
        return take_tickets(role, m);
    case CONTROL_TRY:
        return try_certificate(role, m);
    case CONTROL_SECRET:
        return add_secret(role, m);
    case CONTROL_USERS:
        return add_users(role, m);
    case CONTROL_PEER:
        return take_peer(role, m);
    case CONTROL_GO:
        role->go = true;
        break;
    case CONTROL_STOP:
        role->stopping = true;
        role->draining = true;
        break;
    case CONTROL_DRAIN:
        role->draining = true;
        break;
    case CONTROL_LOST:
        return role->ops->lost && (!role->prepared || role->ops->lost(role, m));
    default:
        return false;
    }
    event_wake(role->rt, &role->changed);
    return true;
}

static void
control_closed(void *ctx, struct link *link, struct err why)
{
    struct role *role = ctx;

    (void)link;
    role->control_error = why;
    role->control_lost = role->stopping = role->draining = true;
    event_wake(role->rt, &role->changed);
}

bool
role_is_ending(const struct role *role)
{
    return role->draining;
}

void
role_wait_for_end(struct role *role)
{
    while (!role->draining && !err_is(event_wait(role->rt, &role->changed, FOREVER)))
        ;
}

/* ---- the process ---- */

/* Too little is an error only where the configuration says `sandbox require`. */
static struct err
enter_sandbox(struct role *role, struct text *out_report)
{
    struct sandbox_rules rules = { 0 };
    struct sandbox_report report = { 0 };

    if (role->ops->sandbox)
        role->ops->sandbox(role, &rules);
    struct err e = role->site->sandbox == SITE_SANDBOX_OFF ? OK : sandbox_enter(role->rt, &rules, &report);
    sandbox_report_text(&report, out_report);
    if (role->site->sandbox != SITE_SANDBOX_OFF && (err_is(e) || !report.calls || !report.files)) {
        bool require = role->site->sandbox == SITE_SANDBOX_REQUIRE;
        struct log_line line;
        log_begin(&line, role->rt, require ? LOG_ERROR : LOG_WARNING, "sandbox-weak");
        log_str(&line, "enforced", text_str(out_report));
        if (err_is(e))
            log_err(&line, e);
        log_end(&line);
        if (require)
            return err_is(e) ? e : ERR(ERR_DENIED, "this kernel cannot enforce the whole sandbox");
    }
    return OK;
}

/*
 * What was said last must arrive: an outcome that is lost here is a message delivered twice. Then no link may outlive
 * the role that its handlers look at.
 */
static void
end_links(struct role *role)
{
    int64_t until = within(role->rt, LAST_WORDS_NS);
    bool said = false;

    while (!said) {
        said = true;
        list_each (node, &role->peers) {
            struct link *link = container_of(node, struct peer, node)->link;
            if (!link_is_open(link) || link_unsent(link) == 0)
                continue;
            said = link_flush(link, until).kind == ERR_TIMEOUT;
            break; /* peers may have gone meanwhile */
        }
    }
    while (!list_is_empty(&role->peers)) {
        struct peer *peer = container_of(role->peers.next, struct peer, node);
        list_remove(&peer->node);
        link_free(peer->link);
        handle_close(role->rt, peer->second);
        mem_free(rt_mem(role->rt), peer, sizeof *peer);
    }
    if (role->control)
        link_free(role->control);
}

static int
run_role(struct role *role)
{
    static const int ignored[] = { SIGINT, SIGTERM, SIGHUP };
    const struct role_ops *ops = role->ops;
    struct rt *rt = role->rt;
    char memory[400];
    struct text report = text_init(memory, sizeof memory);
    struct link_settings settings = {
        .name = S("supervisor"), .ctx = role, .handle = handle_control, .closed = control_closed, .takes_handles = true,
        .forgets = true
    };

    /* A terminal's ^C reaches every process; only the supervisor acts on it, and tells us. */
    if (err_is(rt_catch_signals(rt, ignored, sizeof ignored / sizeof *ignored)) ||
        err_is(link_open(rt, (struct handle){ CONTROL_DESCRIPTOR }, &settings, &role->control)))
        return 71; /* EX_OSERR */
    log_set_role(rt, role_kind_name(ops->kind));
    while (!role->go && !role->control_lost)
        if (err_is(event_wait(rt, &role->changed, FOREVER)))
            break;
    if (!role->go || !role->site) {
        struct log_line line;
        log_begin(&line, rt, LOG_ERROR, "supervisor-gave-no-word");
        log_err(&line, role->control_error);
        log_end(&line);
        return 78; /* EX_CONFIG */
    }
    if (ops->prepare)
        ops->prepare(role);
    role->prepared = true;
    if (err_is(enter_sandbox(role, &report)))
        return 78;
    if (ops->start && !ops->start(role))
        return 75; /* EX_TEMPFAIL: the supervisor tries again */
    link_post(role->control, CONTROL_READY, text_str(&report));
    role->running = true;
    for (size_t i = 0; i < role->pending_count; i++)
        add_peer(role, &role->pending[i]);
    ops->run(role);
    return 0;
}

int
role_main(struct rt *rt, const struct role_ops *ops)
{
    struct role role = { .rt = rt, .ops = ops,
                         .tried = { .certificate = HANDLE_NONE, .key = HANDLE_NONE } };

    list_init(&role.peers);
    event_init(&role.changed);
    arena_init(&role.arena, rt_mem(rt), 4096,
               (1 << 20) + SITE_SECRETS_MAX * (sizeof(struct role_secret) + LIMIT_CONF_PATH + SASL_SECRET_MAX + 16));
    int exit = run_role(&role);
    end_links(&role);
    return exit;
}
