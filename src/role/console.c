/*
 * console - the operators' door: a Unix socket that only the server's own user and group (and root) can open. What is
 * asked there is handed on: to the store what concerns mail, to the supervisor what concerns processes. Each connection
 * is a link.
 */
#include "base/check.h"
#include "role/border.h"
#include "role/control.h"
#include "role/role.h"
#include "runtime/log.h"

#include <string.h>

enum { CLIENTS_MAX = 100, ARENA_MAX = 8 << 20 };

#define GATE_NS (2 * SECOND)
#define ANSWER_NS (5 * MINUTE) /* a reload waits until every role of the new generation is there */

struct console {
    struct role *role;
    struct listener *listener;
    struct scope accepting, answering;
    size_t clients;
    uint64_t last_serial;
    struct list open;
};

struct client {
    struct list node;
    struct console *console;
    struct link *link;
    uint64_t serial;
};

struct request {
    struct console *console;
    uint64_t client;
    uint32_t call;
    uint16_t type;
    struct arena arena;
    size_t len;
    char body[64];
};

static struct client *
client_of(struct console *c, uint64_t serial)
{
    list_each (node, &c->open) {
        struct client *client = container_of(node, struct client, node);
        if (client->serial == serial)
            return client;
    }
    return NULL;
}

/* ---- answering ---- */

static struct err
ask_store(struct request *r, uint16_t type, struct str *out)
{
    return role_call(r->console->role, ROLE_STORE, type, str_new(r->body, type == r->type ? r->len : 0), &r->arena,
                     within(r->console->role->rt, ANSWER_NS), out);
}

static struct err
ask_supervisor(struct request *r, uint16_t type, struct str *out)
{
    return link_call(r->console->role->control, type, S(""), &r->arena, within(r->console->role->rt, ANSWER_NS), out);
}

/* Who is shut out just now; a gate that does not answer keeps nobody from seeing the rest. */
static struct str
ask_gate(struct request *r)
{
    struct role *role = r->console->role;
    struct str bans;

    struct err e = role_call(role, ROLE_GATE, BORDER_BANS, S(""), &r->arena, within(role->rt, GATE_NS), &bans);
    return err_is(e) ? S("\0\0\0\0") : bans;
}

/* All answers as one: roles as JSON with its length in front, then the store's counters, then the gate's bans. */
static struct err
answer_status(struct request *r, struct str *out)
{
    struct str roles, counters;

    TRY(ask_supervisor(r, CONTROL_STATUS, &roles));
    TRY(ask_store(r, BORDER_COUNTERS, &counters));
    struct str json = str_from(roles, 1); /* behind the byte that says it went well */
    struct str bans = ask_gate(r);
    size_t size = json.len + counters.len + bans.len + 16;
    struct put p = put_init(arena_alloc(&r->arena, size), size);
    put_bytes(&p, json);
    put_raw(&p, counters);
    put_raw(&p, bans);
    *out = put_str_so_far(&p);
    return OK;
}

static void
run_request(void *arg)
{
    struct request *r = arg;
    struct console *c = r->console;
    struct str answer = S("");
    struct err e;

    switch (r->type) {
    case BORDER_STATUS:
        e = answer_status(r, &answer);
        break;
    case BORDER_RELOAD:
        e = ask_supervisor(r, CONTROL_RELOAD, &answer);
        break;
    case BORDER_STOP:
        e = ask_supervisor(r, CONTROL_STOP_ALL, &answer);
        break;
    default:
        e = ask_store(r, r->type, &answer);
    }
    struct client *client = client_of(c, r->client);
    if (client && err_is(e))
        link_close(client->link, e);
    else if (client)
        link_reply(client->link, r->call, r->type, answer);
    arena_done(&r->arena);
    mem_free(rt_mem(c->role->rt), r, sizeof *r);
}

/* Only what makes sense goes on: our own links would be closed for what a client sent. */
static bool
makes_sense(const struct link_message *m)
{
    struct take t = take_init(m->body);

    switch (m->type) {
    case BORDER_STATUS:
    case BORDER_RELOAD:
    case BORDER_STOP:
    case BORDER_COUNTERS:
        break;
    case BORDER_LIST:
        take_u64(&t);
        take_count(&t, BORDER_LIST_MAX);
        break;
    case BORDER_SHOW:
        border_take_id(&t);
        break;
    case BORDER_ACT:
        take_enum(&t, ACT_LAST);
        border_take_id(&t);
        break;
    default:
        return false;
    }
    return take_end(&t) && m->call != 0;
}

static bool
handle(void *ctx, struct link *link, struct link_message *m)
{
    struct client *client = ctx;
    struct console *c = client->console;
    struct request *r;

    (void)link;
    if (!makes_sense(m))
        return false;
    CHECK(m->body.len <= sizeof r->body);
    r = mem_new(rt_mem(c->role->rt), struct request);
    *r = (struct request){ .console = c, .client = client->serial, .call = m->call, .type = m->type,
                           .len = m->body.len };
    memcpy(r->body, m->body.ptr, m->body.len);
    arena_init(&r->arena, rt_mem(c->role->rt), 4096, ARENA_MAX);
    scope_start(&c->answering, "request", run_request, r);
    return true;
}

static void
closed(void *ctx, struct link *link, struct err why)
{
    struct client *client = ctx;

    (void)why;
    list_remove(&client->node);
    client->console->clients--;
    link_free_later(link);
    mem_free(rt_mem(client->console->role->rt), client, sizeof *client);
}

/* ---- accepting ---- */

static void
run_accept(void *arg)
{
    struct console *c = arg;
    struct rt *rt = c->role->rt;
    struct stream *stream;
    struct address peer;

    for (;;) {
        struct err e = listener_accept(c->listener, FOREVER, &stream, &peer);
        if (e.kind == ERR_CANCELLED)
            break;
        if (err_is(e)) {
            if (err_is(rt_sleep(rt, within(rt, 100 * MILLISECOND))))
                break;
            continue;
        }
        if (c->clients >= CLIENTS_MAX) {
            stream_close(stream);
            continue;
        }
        struct client *client = mem_new(rt_mem(rt), struct client);
        *client = (struct client){ .console = c, .serial = ++c->last_serial };
        struct link_settings settings = { .name = S("command line"), .ctx = client, .handle = handle, .closed = closed,
                                          .calls_max = 16 };
        client->link = link_on_stream(stream, &settings);
        list_push_back(&c->open, &client->node);
        c->clients++;
    }
    listener_close(c->listener);
}

/* ---- the role ---- */

static void
prepare(struct role *role)
{
    struct console *c = mem_new(rt_mem(role->rt), struct console);

    role->ctx = c;
    c->role = role;
    list_init(&c->open);
    scope_init(&c->accepting, role->rt);
    scope_init(&c->answering, role->rt);
}

static bool
unsent(const struct console *c)
{
    list_each (node, &c->open) {
        const struct client *client = container_of(node, struct client, node);
        if (link_is_open(client->link) && link_unsent(client->link) > 0)
            return true;
    }
    return false;
}

static void
run(struct role *role)
{
    struct console *c = role->ctx;

    struct err e = role->listener_count == 1 ? listener_from_handle(role->rt, role->listeners[0].handle, &c->listener)
                                             : ERR(ERR_NOT_FOUND, "no socket was given");
    if (err_is(e)) { /* it would be there and deaf: it ends, to be started again */
        struct log_line line;
        log_begin(&line, role->rt, LOG_ERROR, "cannot-listen");
        log_err(&line, e);
        log_end(&line);
        return;
    }
    scope_start(&c->accepting, "accept", run_accept, c);
    role_wait_for_end(role);
    scope_end(&c->accepting);
    /* The answer to `stop` or `reload` is on its way. */
    scope_wait(&c->answering, within(role->rt, SECOND));
    scope_end(&c->answering);
    for (int64_t until = within(role->rt, SECOND); unsent(c) && rt_now(role->rt) < until;)
        if (err_is(rt_sleep(role->rt, within(role->rt, MILLISECOND))))
            break;
    while (!list_is_empty(&c->open)) { /* `closed` looks at the role, which ends with this function */
        struct client *client = container_of(c->open.next, struct client, node);
        list_remove(&client->node);
        link_free(client->link);
        mem_free(rt_mem(role->rt), client, sizeof *client);
    }
}

static bool
message(struct role *role, struct peer *peer, struct link_message *m)
{
    (void)role;
    (void)peer;
    (void)m;
    return false; /* nobody asks the console but by its socket */
}

static void
sandbox(struct role *role, struct sandbox_rules *rules)
{
    (void)role;
    rules->calls = SANDBOX_ACCEPT;
}

const struct role_ops console_ops = {
    .kind = ROLE_CONSOLE, .prepare = prepare, .sandbox = sandbox, .run = run, .message = message
};
