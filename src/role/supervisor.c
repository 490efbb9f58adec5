/*
 * supervisor - see supervisor.h.
 *
 * One fiber for each process that should be there: it starts the process, waits for its end, and starts it again.
 * Starts are one at a time (`starting`), so that of two processes the later one always finds the earlier and links
 * itself to it.
 *
 * Reload makes a new generation of every role but the store beside the old one, hands it the listeners, and lets the
 * old one drain. A generation's resolvers and gate go last, when nobody of it is left to ask them.
 */
#include "role/supervisor_own.h"

#include "base/check.h"
#include "base/json.h"
#include "role/border.h"
#include "runtime/host.h"
#include "runtime/log.h"
#include "runtime/notify.h"

#include <signal.h>
#include <string.h>

enum { EXIT_CONFIG = 78, EXIT_OSERR = 71, BUNDLE_PART = 60 << 10 };

#define RESTART_DELAY_MAX (1 * SECOND) /* never longer: a crash must not be a way to close port 25 */
#define RESTART_CALM (10 * SECOND)     /* a process that lived so long starts anew without delay */
#define DRAIN_NS (10 * MINUTE)         /* then an old generation is told to stop */
#define STOP_NS (20 * SECOND)          /* then it is killed */
#define CLOSING_NS (10 * SECOND)       /* for former receivers to say that they accept no more */
#define RELOAD_NS (1 * MINUTE)         /* for a new generation to be ready; then whoever reloads hears that it is not */
enum { RELOAD_TRIES = 4 };             /* or when those of its roles that are not have ended so often */

/* In the order of starting. Of those whose work is parsing and converting, as many as the machine has processors for;
 * at least two, so that there is another one while a suspect has one for itself, or while one starts again. */
enum { WORKERS_MIN = 2, WORKERS_MAX = 8 };
static const struct {
    enum role_kind kind;
    uint32_t for_processors; /* one process for so many; 0: just one */
} always[] = {
    { ROLE_STORE, 0 },  { ROLE_RESOLVER, 0 }, { ROLE_CHECKER, 0 },    { ROLE_GATE, 0 },  { ROLE_KEYS, 0 },
    { ROLE_FETCH, 0 },
    { ROLE_SENDER, 2 }, { ROLE_CONSOLE, 0 },  { ROLE_SUBMISSION, 0 }, { ROLE_RECEIVER, 1 },
};

static void
log_plain(struct supervisor *s, enum log_level level, const char *what)
{
    struct log_line line;

    log_begin(&line, s->rt, level, what);
    log_end(&line);
}

static void
log_unusable(struct supervisor *s, const char *what, const char *field, struct str name, struct err e)
{
    struct log_line line;

    log_begin(&line, s->rt, LOG_ERROR, what);
    log_str(&line, field, name);
    log_err(&line, e);
    log_end(&line);
}

static void
log_process(struct process *p, enum log_level level, const char *what, struct err e)
{
    struct log_line line;

    log_begin(&line, p->s->rt, level, what);
    log_str(&line, "role", role_kind_name(p->kind));
    log_int(&line, "index", p->index);
    log_int(&line, "generation", p->generation);
    if (err_is(e))
        log_err(&line, e);
    log_end(&line);
}

/* ---- one process ---- */

static struct err
send_bundle(struct process *p)
{
    struct supervisor *s = p->s;
    unsigned char *part = mem_alloc(rt_mem(s->rt), BUNDLE_PART + 1);
    struct str rest = s->loaded.encoded;
    struct err e;

    do {
        struct put put = put_init(part, BUNDLE_PART + 1);
        struct str now = str_slice(rest, 0, BUNDLE_PART);
        rest = str_from(rest, now.len);
        put_u8(&put, rest.len == 0);
        put_raw(&put, now);
        e = p->control ? link_send(p->control, CONTROL_BUNDLE, put_str_so_far(&put), within(s->rt, 10 * SECOND))
                       : ERR(ERR_CLOSED, "send the configuration"); /* it died between two parts */
    } while (!err_is(e) && rest.len);
    mem_free(rt_mem(s->rt), part, BUNDLE_PART + 1);
    return e;
}

static struct err
send_listeners(struct process *p)
{
    struct supervisor *s = p->s;

    list_each (node, &s->sockets) {
        struct socket *socket = container_of(node, struct socket, node);
        if (p->kind != socket->taker || str_is_absent(socket->name))
            continue;
        unsigned char body[256];
        char memory[128];
        struct put put = put_init(body, sizeof body);
        struct text text = text_init(memory, sizeof memory);
        address_put(&text, &socket->address);
        put_bytes(&put, socket->name);
        put_bytes(&put, text_str(&text));
        CHECK(!put.full);
        TRY(link_send_handles(p->control, CONTROL_LISTENER, put_str_so_far(&put), &socket->handle, 1,
                              within(s->rt, 5 * SECOND)));
    }
    return OK;
}

static struct err
send_dir(struct process *p, struct str purpose, struct str path)
{
    struct supervisor *s = p->s;
    unsigned char body[4500];
    struct put put = put_init(body, sizeof body);
    struct dir *dir;

    TRY(dir_open(s->rt, path, LANE_POOL, FOREVER, &dir));
    struct handle handle = dir_handle(s->rt, dir);
    dir_close(dir);
    if (handle_is_none(handle))
        return ERR(ERR_NO_FILES, "duplicate a directory");
    put_bytes(&put, purpose);
    put_bytes(&put, path);
    struct err e = put.full ? ERR(ERR_LIMIT, "path too long")
                            : link_send_handles(p->control, CONTROL_DIR, put_str_so_far(&put), &handle, 1,
                                                within(s->rt, 5 * SECOND));
    handle_close(s->rt, handle);
    return e;
}

/*
 * What the roles need is made on the first run, with the right owner; what is there already is left as it is. In a
 * directory like /var/mail only root can make something: so each domain's own directory is made too, where paths begin
 * with one.
 */
static struct err
make_base(struct supervisor *s, const struct site *site, const struct mail_base *base)
{
    int64_t uid = supervisor_owner(s, base->user_id), gid = supervisor_owner(s, base->group_id);
    char memory[LIMIT_CONF_PATH];
    struct directory_domain_info info;

    TRY(host_make_dir(s->rt, base->path, 0750, uid, gid, FOREVER));
    for (const struct domain *at = NULL; s->root && directory_next(site->directory, &at, &info);) {
        const struct directory_route *route = info.route;
        struct text path = text_init(memory, sizeof memory);
        if (route->kind != DIRECTORY_ROUTE_MAILDIR || !str_eq(load_mail_base(route->maildir), base->path) ||
            !str_eq(str_is_absent(route->user) ? S("") : route->user, base->user) ||
            !str_starts(str_from(route->maildir, base->path.len), S("/{domain}/")))
            continue;
        text_put(&path, base->path);
        text_put_byte(&path, '/');
        text_put(&path, info.name);
        TRY(host_make_dir(s->rt, text_str(&path), 0750, uid, gid, FOREVER));
    }
    return OK;
}

static struct err
send_dirs(struct process *p, struct arena *scratch)
{
    struct supervisor *s = p->s;

    if (p->kind == ROLE_SENDER)
        return supervisor_send_secrets(p);
    if (p->kind == ROLE_STORE) {
        struct str path = arena_join(scratch, s->site->state, S("/spool"));
        TRY(host_make_dir(s->rt, path, 0700, supervisor_owner(s, s->user_id), supervisor_owner(s, s->group_id), FOREVER));
        return send_dir(p, S("spool"), path);
    }
    if (p->kind == ROLE_KEYS) {
        struct str path = arena_join(scratch, s->site->state, S("/tls"));
        TRY(host_make_dir(s->rt, path, 0700, supervisor_owner(s, s->user_id), supervisor_owner(s, s->group_id), FOREVER));
        TRY(send_dir(p, S("tls"), path));
        TRY(supervisor_send_tickets(p));
        return supervisor_send_certificates(p);
    }
    if (p->kind == ROLE_FETCH) {
        struct str path = arena_join(scratch, s->site->state, S("/mta-sts"));
        TRY(host_make_dir(s->rt, path, 0700, supervisor_owner(s, s->user_id), supervisor_owner(s, s->group_id), FOREVER));
        return send_dir(p, S("mta-sts"), path);
    }
    if (p->kind == ROLE_GATE) {
        struct str path = arena_join(scratch, s->site->state, S("/gate"));
        TRY(host_make_dir(s->rt, path, 0700, supervisor_owner(s, s->user_id), supervisor_owner(s, s->group_id), FOREVER));
        TRY(send_dir(p, S("gate"), path));
        return supervisor_send_users(p);
    }
    if (p->kind != ROLE_MAILBOX)
        return OK;
    for (size_t i = 0; i < s->base_count; i++) {
        const struct mail_base *base = &s->bases[i];
        if (!str_eq(base->user, p->user))
            continue;
        TRY(make_base(s, s->site, base));
        TRY(send_dir(p, arena_join(scratch, S("mail "), base->user), base->path));
    }
    return OK;
}

static bool handle_from_role(void *ctx, struct link *link, struct link_message *m);

static struct err
send_setup(struct process *p)
{
    unsigned char body[32];
    struct put put = put_init(body, sizeof body);

    control_put_setup(&put, &(struct control_setup){ p->kind, p->index, p->generation, p->user_id });
    return link_send(p->control, CONTROL_SETUP, put_str_so_far(&put), within(p->s->rt, 5 * SECOND));
}

static struct err
introduce(struct process *p)
{
    struct supervisor *s = p->s;
    struct arena scratch;

    TRY(send_setup(p));
    TRY(send_bundle(p));
    TRY(send_listeners(p));
    arena_init(&scratch, rt_mem(s->rt), 1024, 1 << 20);
    struct err e = send_dirs(p, &scratch);
    arena_done(&scratch);
    TRY(e);
    p->linked = true;
    supervisor_link_to_all(p);
    return link_send(p->control, CONTROL_GO, S(""), within(s->rt, 5 * SECOND));
}

/* A role that breaks the rules here could not be told anything any more, not even to stop: it starts anew. */
static void
control_closed(void *ctx, struct link *link, struct err why)
{
    struct process *p = ctx;

    (void)link;
    if (why.kind == ERR_CLOSED || why.kind == ERR_RESET || !p->child)
        return; /* it has ended, or is about to */
    log_process(p, LOG_ERROR, "role-violated-control", why);
    child_signal(p->child, SIGKILL);
}

static struct err
start_process(struct process *p)
{
    struct supervisor *s = p->s;
    struct handle pair[2];
    char name_memory[32];
    struct text name = text_init(name_memory, sizeof name_memory);
    text_put(&name, role_kind_name(p->kind));
    const char *argv[] = { "postrider", "--role", text_cstr(&name), NULL };
    struct link_settings settings = {
        .name = role_kind_name(p->kind), .ctx = p, .handle = handle_from_role, .closed = control_closed,
        .takes_handles = true, .forgets = true,
    };

    p->started = rt_now(s->rt);
    TRY(stream_pair(s->rt, pair));
    struct spawn spawn = {
        .argv = argv, .handles = &pair[1], .handle_count = 1, .set_ids = s->root,
        .uid = p->user_id,
        .gid = p->group_id,
    };
    struct err e = child_start(s->rt, &spawn, &p->child);
    handle_close(s->rt, pair[1]);
    if (err_is(e)) {
        handle_close(s->rt, pair[0]);
        return e;
    }
    p->pid = child_pid(p->child);
    p->ready = false;
    e = link_open(s->rt, pair[0], &settings, &p->control);
    if (!err_is(e))
        e = introduce(p);
    return e;
}

struct err
supervisor_begin_starting(struct supervisor *s)
{
    while (s->starting)
        TRY(event_wait(s->rt, &s->changed, FOREVER));
    s->starting = true;
    return OK;
}

void
supervisor_end_starting(struct supervisor *s)
{
    s->starting = false;
    event_wake(s->rt, &s->changed);
}

/* The store keeps the count of deaths of messages that were in flight: it must know how its peers ended. */
static void
tell_store_of_death(struct process *p)
{
    unsigned char body[16];
    struct put put = put_init(body, sizeof body);

    if (p->kind != ROLE_SENDER && p->kind != ROLE_MAILBOX)
        return;
    put_u8(&put, (uint8_t)p->kind);
    put_u32(&put, p->index);
    put_u32(&put, p->generation);
    put_u32(&put, (uint32_t)p->status);
    list_each (node, &p->s->processes) {
        struct process *other = container_of(node, struct process, node);
        if (other->kind == ROLE_STORE && other->linked)
            link_post(other->control, CONTROL_LOST, put_str_so_far(&put));
    }
}

static void
log_end_of(struct process *p, int status, bool expected)
{
    struct log_line line;

    log_begin(&line, p->s->rt, expected ? LOG_INFO : LOG_ERROR, "role-ended");
    log_str(&line, "role", role_kind_name(p->kind));
    log_int(&line, "index", p->index);
    log_int(&line, "generation", p->generation);
    log_int(&line, "pid", p->pid);
    if (status >= 256)
        log_int(&line, "signal", status - 256);
    else
        log_int(&line, "exit", status);
    log_end(&line);
}

static void
run_reaper(void *arg)
{
    struct process *p = arg;

    if (err_is(child_wait(p->child, FOREVER, &p->status)))
        p->status = 0; /* only when the supervisor itself ends: nobody looks at it any more */
    else
        p->child = NULL; /* child_wait() ended it */
    p->ended = true;
    event_wake(p->s->rt, &p->event);
}

/* Waits for the end; at p->stop_at the process is told to stop, and a while later killed. */
static void
wait_for_end(struct process *p)
{
    struct supervisor *s = p->s;

    while (!p->ended) {
        struct err e = event_wait(s->rt, &p->event, p->draining || p->stopping ? p->stop_at : FOREVER);
        if (e.kind != ERR_TIMEOUT)
            continue;
        if (p->stopping) {
            log_process(p, LOG_WARNING, "role-killed", OK);
            if (p->child)
                child_signal(p->child, SIGKILL);
            p->stop_at = FOREVER;
        } else {
            p->stopping = true;
            p->stop_at = within(s->rt, STOP_NS);
            link_post(p->control, CONTROL_STOP, S(""));
        }
    }
}

static void
forget_life(struct process *p)
{
    p->linked = p->ready = p->closed = p->users_denied = false;
    p->users_unopened = OK;
    supervisor_drop_ties(p);
    if (p->control)
        link_free(p->control);
    p->control = NULL;
    if (p->child)
        child_release(p->child);
    p->child = NULL;
}

/* One life: from start to end. */
static void
live(struct process *p)
{
    struct supervisor *s = p->s;

    if (err_is(supervisor_begin_starting(s)))
        return;
    p->ended = false;
    struct err e = p->stopping || p->draining ? ERR(ERR_CANCELLED, "ending") : start_process(p);
    bool started = p->child != NULL;
    if (started)
        scope_start(&s->fibers, "reaper", run_reaper, p);
    supervisor_end_starting(s);
    if (err_is(e) && !p->stopping && !p->draining) {
        log_process(p, LOG_ERROR, "role-not-started", e);
    }
    if (err_is(e) && p->child)
        child_signal(p->child, SIGKILL);
    if (started) {
        wait_for_end(p);
        bool expected = p->stopping || p->draining;
        if (!expected || p->status != 0)
            log_end_of(p, p->status, expected && p->status == 0);
        if (!expected || p->status != 0)
            tell_store_of_death(p);
    }
    forget_life(p);
}

static void
run_process(void *arg)
{
    struct process *p = arg;
    struct supervisor *s = p->s;
    int64_t delay = 0;

    while (!p->stopping && !p->draining) {
        live(p);
        if (p->stopping || p->draining)
            break;
        p->restarts++;
        delay = rt_now(s->rt) - p->started > RESTART_CALM ? 0 : delay ? delay * 2 : 50 * MILLISECOND;
        if (delay > RESTART_DELAY_MAX)
            delay = RESTART_DELAY_MAX;
        if (err_is(rt_sleep(s->rt, within(s->rt, delay))))
            break;
    }
    while (s->starting) /* whoever starts walks over the processes, and waits between them */
        event_wait_firmly(s->rt, &s->changed);
    list_remove(&p->node);
    mem_free(rt_mem(s->rt), p, sizeof *p + p->user.len);
    event_wake(s->rt, &s->changed);
}

static void
add_process(struct supervisor *s, enum role_kind kind, uint32_t index, struct str user, uint32_t user_id, uint32_t group_id)
{
    struct process *p = mem_alloc(rt_mem(s->rt), sizeof *p + user.len);

    *p = (struct process){ .s = s, .kind = kind, .index = index, .generation = s->generation, .user_id = user_id,
                           .group_id = group_id };
    memcpy(p->user_name, user.ptr, user.len);
    p->user = str_new(p->user_name, user.len);
    event_init(&p->event);
    list_push_back(&s->processes, &p->node);
    scope_start(&s->fibers, "process", run_process, p);
}

static uint32_t
process_count(struct supervisor *s, uint32_t for_processors)
{
    if (for_processors == 0)
        return 1;
    uint32_t count = host_processors(s->rt) / for_processors;
    return count < WORKERS_MIN ? WORKERS_MIN : count > WORKERS_MAX ? WORKERS_MAX : count;
}

/* Everything that the site asks for, in this generation; the store only once in a life. */
static void
add_generation(struct supervisor *s)
{
    struct str users[SITE_MAIL_DIRS_MAX];
    size_t user_count = load_mail_users(s->site, users);

    for (size_t i = 0; i < sizeof always / sizeof *always; i++)
        for (uint32_t index = 0; index < process_count(s, always[i].for_processors); index++)
            if ((always[i].kind != ROLE_STORE || s->generation == 1) && (always[i].kind != ROLE_FETCH || s->site->mta_sts))
                add_process(s, always[i].kind, index, S(""), s->user_id, s->group_id);
    for (size_t i = 0; i < user_count; i++) {
        const struct mail_base *base = s->bases;
        while (!str_eq(base->user, users[i])) /* find_bases() went through the same site */
            base++;
        add_process(s, ROLE_MAILBOX, (uint32_t)i, base->user, base->user_id, base->group_id);
    }
}

static bool
all_ready(const struct supervisor *s, uint32_t generation)
{
    list_each (node, &s->processes) {
        struct process *p = container_of(node, struct process, node);
        if (p->generation == generation && !p->ready)
            return false;
    }
    return true;
}

/* ---- ending ---- */

/* Gate, keys, fetch and resolvers answer the others of their generation: they go when those are gone. */
static bool
serves_others(enum role_kind kind)
{
    return kind == ROLE_GATE || kind == ROLE_RESOLVER || kind == ROLE_CHECKER || kind == ROLE_KEYS ||
           kind == ROLE_FETCH;
}

static bool
any_left(const struct supervisor *s, uint32_t from_generation, uint32_t up_to_generation, bool servants)
{
    list_each (node, &s->processes) {
        struct process *p = container_of(node, struct process, node);
        if (p->kind != ROLE_STORE && p->generation >= from_generation && p->generation <= up_to_generation &&
            serves_others(p->kind) == servants)
            return true;
    }
    return false;
}

static void
tell_end(struct process *p, bool stop)
{
    struct supervisor *s = p->s;

    if ((p->stopping || p->draining) && !stop) /* its time runs already */
        return;
    p->draining = true;
    p->stopping |= stop;
    p->stop_at = within(s->rt, stop ? STOP_NS : DRAIN_NS);
    if (p->control) /* even before GO: it will look */
        link_post(p->control, stop ? CONTROL_STOP : CONTROL_DRAIN, S(""));
    event_wake(s->rt, &p->event);
}

static void
tell_all(struct supervisor *s, uint32_t from_generation, uint32_t up_to_generation, bool servants, bool stop)
{
    list_each (node, &s->processes) {
        struct process *p = container_of(node, struct process, node);
        if (p->kind != ROLE_STORE && p->generation >= from_generation && p->generation <= up_to_generation &&
            serves_others(p->kind) == servants)
            tell_end(p, stop);
    }
}

struct drain {
    struct supervisor *s;
    uint32_t generation;
};

/*
 * Not before there is another generation that has come up whole, be it of a later reload: one whose roles cannot start takes the
 * place of nobody. It gives its own to the next one at once, or there would be more and more of them.
 */
static void
run_drain(void *arg)
{
    struct drain *drain = arg;
    struct supervisor *s = drain->s;
    uint32_t generation = drain->generation, first = 0;

    mem_free(rt_mem(s->rt), drain, sizeof *drain);
    if (generation > s->whole)
        first = s->whole + 1;
    while (first == 0 && (s->reloading || !all_ready(s, s->generation)) && !s->stopping)
        if (err_is(event_wait(s->rt, &s->changed, FOREVER)))
            return;
    if (s->stopping) /* all are told */
        return;
    if (first == 0)
        s->whole = s->generation;
    tell_all(s, first, generation, false, false);
    while (any_left(s, first, generation, false))
        if (err_is(event_wait(s->rt, &s->changed, FOREVER)))
            return;
    tell_all(s, first, generation, true, true);
}

/* Receivers and senders first, then those they ask, the store last: what was accepted is on disk by then. */
static void
stop_everything(struct supervisor *s)
{
    s->stopping = true;
    list_each (node, &s->processes) { /* nothing new is begun, so that senders come to an end */
        struct process *p = container_of(node, struct process, node);
        if (p->kind == ROLE_STORE && p->control)
            link_post(p->control, CONTROL_DRAIN, S(""));
    }
    for (int servants = 0; servants < 2; servants++) {
        tell_all(s, 0, s->generation, servants, true);
        while (any_left(s, 0, s->generation, servants))
            if (err_is(event_wait(s->rt, &s->changed, FOREVER)))
                return;
    }
    list_each (node, &s->processes)
        tell_end(container_of(node, struct process, node), true);
    scope_wait(&s->fibers, within(s->rt, 2 * STOP_NS));
}

/* ---- configuration ---- */

/* Whose the Maildirs are, and below which directories. A user that does not exist is an error with its line. */
static bool
find_bases(struct supervisor *s, const struct site *site, struct mail_base *bases, size_t *out_count,
           struct text *out_text)
{
    struct directory_domain_info info;
    size_t count = 0;

    for (const struct domain *at = NULL; directory_next(site->directory, &at, &info);) {
        const struct directory_route *route = info.route;
        struct mail_base base = { str_is_absent(route->user) ? S("") : route->user, load_mail_base(route->maildir),
                                  s->user_id, s->group_id };
        if (route->kind != DIRECTORY_ROUTE_MAILDIR)
            continue;
        struct err e = str_is_absent(route->user) ? OK : host_user(s->rt, route->user, FOREVER, &base.user_id, &base.group_id);
        if (err_is(e)) {
            conf_where_put(out_text, route->where);
            text_putf(out_text, e.kind == ERR_NOT_FOUND ? ": there is no user \"%.*s\" on this machine\n"
                                                        : ": the user \"%.*s\" cannot be looked up\n", STR_ARG(route->user));
            return false;
        }
        if (!s->root && base.user_id != s->user_id) {
            conf_where_put(out_text, route->where);
            text_putf(out_text, ": only root can deliver as user \"%.*s\"\n", STR_ARG(route->user));
            return false;
        }
        bool seen = false;
        for (size_t i = 0; i < count; i++)
            seen |= str_eq(bases[i].path, base.path) && str_eq(bases[i].user, base.user);
        if (seen)
            continue;
        CHECK(count < MAIL_BASES_MAX); /* the configuration has no more */
        bases[count++] = base;
    }
    *out_count = count;
    return true;
}

/* Reads and checks the file and what it asks of this machine; on failure the reasons are in *out_text. */
static bool
load_site(struct supervisor *s, struct loaded *out, struct mail_base *bases, size_t *out_count, struct text *out_text)
{
    if (!load_file(s->rt, s->config_path, out, out_text))
        return false;
    bool whole = str_starts(out->site->state, S("/")); /* else roles could not be told of the sockets there */
    if (!whole)
        text_put(out_text, S("what comes from standard input is relative to nothing: write \"state /DIRECTORY\"\n"));
    if (whole && find_bases(s, out->site, bases, out_count, out_text))
        return true;
    load_free(out);
    return false;
}

static void
take_site(struct supervisor *s, const struct loaded *fresh, const struct mail_base *bases, size_t count)
{
    load_free(&s->loaded);
    s->loaded = *fresh;
    s->site = fresh->site;
    for (size_t i = 0; i < count; i++)
        s->bases[i] = bases[i];
    s->base_count = count;
    for (size_t i = 0; i < SITE_CERTIFICATES_MAX; i++)
        s->certificates_unopened[i] = OK;
    event_wake(s->rt, &s->site_taken);
}

/* What cannot be made now would keep the new mailbox role from starting. */
static bool
make_bases(struct supervisor *s, const struct site *site, const struct mail_base *bases, size_t count,
           struct text *out_text)
{
    for (size_t i = 0; i < count; i++) {
        struct err e = make_base(s, site, &bases[i]);
        if (!err_is(e))
            continue;
        text_putf(out_text, "%.*s: cannot make this mail directory: ", STR_ARG(bases[i].path));
        err_text(e, out_text);
        text_put(out_text, S("\n"));
        return false;
    }
    return true;
}

/* All that can fail. False: nothing has changed, and *out_text says why. */
static bool
prepare_reload(struct supervisor *s, struct loaded *fresh, struct mail_base *bases, size_t *out_count,
               struct text *out_text)
{
    if (!load_site(s, fresh, bases, out_count, out_text))
        return false;
    if (!str_eq(fresh->site->state, s->site->state))
        text_put(out_text, S("the state directory cannot change in a reload: stop and start\n"));
    else if (supervisor_certificates_are_good(s, fresh->site, out_text) && make_bases(s, fresh->site, bases, *out_count, out_text)) {
        bool fine = !err_is(supervisor_open_sockets(s, fresh->site, out_text));
        while (fine && s->starting) /* it walks over sockets and processes */
            fine = !err_is(event_wait(s->rt, &s->changed, FOREVER));
        if (fine && !s->stopping)
            return true;
        while (s->starting)
            event_wait_firmly(s->rt, &s->changed);
        supervisor_drop_sockets(s);
        if (s->stopping)
            text_put(out_text, S("the server is stopping\n"));
    }
    load_free(fresh);
    return false;
}

/* The store stays, as one of the new generation: so from now on it gives work to that one's senders. */
static void
tell_store(struct supervisor *s)
{
    list_each (node, &s->processes) {
        struct process *p = container_of(node, struct process, node);
        if (p->kind != ROLE_STORE)
            continue;
        p->generation = s->generation;
        s->starting = true; /* so that it is not forgotten meanwhile */
        if (p->linked && !err_is(send_setup(p)))
            send_bundle(p);
        supervisor_end_starting(s);
        return;
    }
}

/* Each is ready, or has ended again and again. What the store did was in another generation. */
static bool
all_have_tried(const struct supervisor *s)
{
    list_each (node, &s->processes) {
        struct process *p = container_of(node, struct process, node);
        if (p->generation == s->generation && !p->ready && (p->kind == ROLE_STORE || p->restarts < RELOAD_TRIES))
            return false;
    }
    return true;
}

/* "fetch 0, mailbox 1" */
static void
put_missing_roles(const struct supervisor *s, struct text *out)
{
    const char *before = "";

    list_each (node, &s->processes) {
        struct process *p = container_of(node, struct process, node);
        if (p->generation != s->generation || p->ready)
            continue;
        text_putf(out, "%s%.*s %u", before, STR_ARG(role_kind_name(p->kind)), p->index);
        before = ", ";
    }
}

static void
put_what_has_not_started(const struct supervisor *s, struct text *out)
{
    text_put(out, S("these roles of the new configuration have not started: "));
    put_missing_roles(s, out);
    text_put(out, S("\nSee the log and \"postrider status\". Those of the former configuration stay until all have; mail that needs one "
                    "which has not waits. Another reload takes the place of this one.\n"));
}

/* Who hears that the new configuration is in force may connect at once, and is to find it so: the former receivers go first. */
static void
close_former_doors(struct supervisor *s, struct text *out_text)
{
    int64_t until = within(s->rt, CLOSING_NS);
    bool open, late = false;

    do {
        open = false;
        list_each (node, &s->processes) {
            struct process *p = container_of(node, struct process, node);
            bool receives = p->kind == ROLE_RECEIVER || p->kind == ROLE_SUBMISSION;
            if (!receives || p->generation == s->generation)
                continue;
            tell_end(p, false);
            open |= p->child && !p->closed;
        }
        late = open && !s->stopping && err_is(event_wait(s->rt, &s->changed, until));
    } while (open && !s->stopping && !late);
    if (late)
        text_put(out_text, S("a receiver of the former configuration still accepts: until it ends, a new session may meet either\n"));
}

static enum reload_answer
reload(struct supervisor *s, struct text *out_text)
{
    struct loaded fresh;
    size_t count = 0, size = MAIL_BASES_MAX * sizeof(struct mail_base);
    enum reload_answer answer = RELOAD_REFUSED;

    if (s->reloading || s->stopping) {
        text_put(out_text, s->stopping ? S("the server is stopping\n")
                                       : S("another reload is under way: try again when it has ended\n"));
        return RELOAD_LATER;
    }
    s->reloading = true;
    struct mail_base *bases = mem_alloc(rt_mem(s->rt), size);
    if (prepare_reload(s, &fresh, bases, &count, out_text)) {
        struct drain *drain = mem_new(rt_mem(s->rt), struct drain);
        *drain = (struct drain){ s, s->generation++ };
        supervisor_keep_sockets(s);
        take_site(s, &fresh, bases, count);
        tell_store(s);
        if (!s->stopping)
            add_generation(s);
        int64_t until = within(s->rt, RELOAD_NS);
        while (!all_have_tried(s) && !s->stopping)
            if (err_is(event_wait(s->rt, &s->changed, until)))
                break;
        answer = all_ready(s, s->generation) ? RELOAD_DONE : s->stopping ? RELOAD_LATER : RELOAD_INCOMPLETE;
        if (answer == RELOAD_LATER)
            text_put(out_text, S("the server is stopping\n"));
        if (answer == RELOAD_INCOMPLETE)
            put_what_has_not_started(s, out_text);
        if (answer == RELOAD_DONE)
            close_former_doors(s, out_text);
        scope_start(&s->fibers, "drain", run_drain, drain);
        if (answer == RELOAD_INCOMPLETE)
            log_plain(s, LOG_ERROR, "configuration-reloaded-in-part");
        else
            log_plain(s, LOG_INFO, "configuration-reloaded");
    }
    mem_free(rt_mem(s->rt), bases, size);
    s->reloading = false;
    event_wake(s->rt, &s->changed); /* a drain may wait for this */
    return answer;
}

/* ---- what roles ask ---- */

struct question { /* a call of the console, answered by a fiber of its own */
    struct supervisor *s;
    struct process *asker;
    uint32_t asker_pid;
    uint16_t type;
    uint32_t call;
};

static void
put_status(struct supervisor *s, struct text *out)
{
    text_put(out, S("["));
    list_each (node, &s->processes) {
        struct process *p = container_of(node, struct process, node);
        text_putf(out, "%s{\"role\":\"%.*s\",\"index\":%u,\"generation\":%u,\"pid\":%u,\"state\":\"%s\","
                       "\"restarts\":%u,\"sandbox\":\"",
                  node == s->processes.next ? "" : ",", STR_ARG(role_kind_name(p->kind)), p->index, p->generation,
                  p->child ? p->pid : 0, p->draining ? "draining" : p->ready ? "running" : "starting",
                  p->restarts);
        json_put_inside(out, str_new(p->report, p->report_len));
        text_put(out, S("\"}"));
    }
    text_put(out, S("]"));
}

enum { ANSWER_MAX = 256 << 10 };

static void
run_question(void *arg)
{
    struct question *q = arg;
    struct supervisor *s = q->s;
    char *memory = mem_alloc(rt_mem(s->rt), ANSWER_MAX);
    struct text text = text_init(memory, ANSWER_MAX);

    text_put_byte(&text, RELOAD_DONE);
    if (q->type == CONTROL_STATUS)
        put_status(s, &text);
    else if (q->type == CONTROL_RELOAD)
        memory[0] = (char)reload(s, &text);
    /* The console that asked may have been replaced by the reload, or died. */
    list_each (node, &s->processes) {
        struct process *p = container_of(node, struct process, node);
        if (p == q->asker && p->control && p->linked && p->pid == q->asker_pid)
            link_reply(p->control, q->call, q->type, text_str(&text));
    }
    if (q->type == CONTROL_STOP_ALL) {
        s->stop_asked = true;
        event_wake(s->rt, &s->changed);
    }
    mem_free(rt_mem(s->rt), memory, ANSWER_MAX);
    mem_free(rt_mem(s->rt), q, sizeof *q);
}

static bool
handle_from_role(void *ctx, struct link *link, struct link_message *m)
{
    struct process *p = ctx;
    struct supervisor *s = p->s;

    (void)link;
    if (m->type == CONTROL_READY) {
        p->report_len = m->body.len < sizeof p->report ? m->body.len : sizeof p->report;
        for (size_t i = 0; i < p->report_len; i++)
            p->report[i] = m->body.ptr[i];
        p->ready = true;
        event_wake(s->rt, &s->changed);
        return true;
    }
    if (m->type == CONTROL_CLOSED) {
        p->closed = true;
        event_wake(s->rt, &s->changed);
        return true;
    }
    if (m->type == CONTROL_UNLINKED)
        return supervisor_hear_unlinked(p, m);
    if (p->kind != ROLE_CONSOLE || m->call == 0 ||
        (m->type != CONTROL_STATUS && m->type != CONTROL_RELOAD && m->type != CONTROL_STOP_ALL))
        return false;
    struct question *q = mem_new(rt_mem(s->rt), struct question);
    *q = (struct question){ s, p, p->pid, m->type, m->call };
    scope_start(&s->fibers, "question", run_question, q);
    return true;
}

/* ---- signals, and the whole ---- */

/* In a fiber of its own: a stop that comes meanwhile must be heard. */
static void
run_reload(void *arg)
{
    struct supervisor *s = arg;
    char memory[4096];
    struct text text = text_init(memory, sizeof memory);

    enum reload_answer answer = reload(s, &text);
    bool taken = answer == RELOAD_DONE || answer == RELOAD_INCOMPLETE;
    if (text.len == 0)
        return;
    struct log_line line;
    log_begin(&line, s->rt, answer == RELOAD_DONE ? LOG_WARNING : LOG_ERROR,
              taken ? "configuration-taken-up" : "configuration-kept");
    log_str(&line, taken ? "but" : "why", text_str(&text));
    log_end(&line);
}

static void
run_signals(void *arg)
{
    struct supervisor *s = arg;
    int signal;

    while (!err_is(rt_wait_signal(s->rt, FOREVER, &signal))) {
        if (signal == SIGHUP) {
            scope_start(&s->fibers, "reload", run_reload, s);
            continue;
        }
        s->stop_asked = true;
        event_wake(s->rt, &s->changed);
    }
}

/*
 * Roles run as the user `postrider` if we are root and there is one; else as whoever started us. An error: it is not known whether
 * there is one.
 */
static struct err
find_user(struct supervisor *s)
{
    s->user_id = host_my_uid(s->rt);
    s->group_id = host_my_gid(s->rt);
    s->root = s->user_id == 0;
    struct err e = s->root ? host_user(s->rt, S("postrider"), FOREVER, &s->user_id, &s->group_id) : OK;
    if (err_is(e) && e.kind != ERR_NOT_FOUND)
        return e;
    if (err_is(e))
        log_plain(s, LOG_WARNING, "no-user-postrider-so-roles-run-as-root");
    return OK;
}

static void
tell_ready_in_part(struct supervisor *s)
{
    char memory[400];
    struct text text = text_init(memory, sizeof memory);
    struct log_line line;

    text_put(&text, S("these roles have not started: "));
    put_missing_roles(s, &text);
    log_begin(&line, s->rt, LOG_ERROR, "ready-in-part");
    log_str(&line, "but", text_str(&text));
    log_end(&line);
    rt_notify_ready(s->rt, text_str(&text));
}

/* Each is ready, or has ended again and again and is one without which mail comes in and waits. */
static bool
can_do_without(const struct supervisor *s)
{
    list_each (node, &s->processes) {
        struct process *p = container_of(node, struct process, node);
        bool needed = p->kind != ROLE_MAILBOX && p->kind != ROLE_FETCH && p->kind != ROLE_RESOLVER && p->kind != ROLE_CHECKER;
        if (p->generation == s->generation && !p->ready && (needed || p->restarts < RELOAD_TRIES))
            return false;
    }
    return true;
}

/* Whose one Maildir cannot be made is not to be stopped by a service manager, time and again, for want of being ready. */
static void
become_ready(struct supervisor *s)
{
    while (!s->stop_asked && (s->reloading || !can_do_without(s)))
        event_wait(s->rt, &s->changed, FOREVER);
    if (!s->stop_asked && !all_ready(s, s->generation))
        tell_ready_in_part(s);
    while (!s->stop_asked && (s->reloading || !all_ready(s, s->generation)))
        event_wait(s->rt, &s->changed, FOREVER);
    if (s->stop_asked)
        return;
    log_plain(s, LOG_INFO, "ready");
    rt_notify_ready(s->rt, S("mail flows"));
}

int
supervisor_main(struct rt *rt, struct str config_path)
{
    static const int signals[] = { SIGTERM, SIGINT, SIGHUP };
    struct supervisor s = { .rt = rt, .generation = 1, .whole = 1 };
    char memory[8192];
    struct text text = text_init(memory, sizeof memory);

    list_init(&s.processes);
    list_init(&s.sockets);
    list_init(&s.ties);
    event_init(&s.changed);
    event_init(&s.site_taken);
    arena_init(&s.arena, rt_mem(rt), 4096, 1 << 24);
    struct err e = host_whole_path(rt, config_path, &s.arena, &s.config_path); /* and with it all that is relative to it */
    if (err_is(e)) {
        log_unusable(&s, "configuration-not-found", "path", config_path, e);
        return EXIT_OSERR;
    }
    e = find_user(&s);
    if (err_is(e)) {
        log_unusable(&s, "user-not-looked-up", "user", S("postrider"), e);
        return EXIT_OSERR;
    }
    size_t count = 0, size = MAIL_BASES_MAX * sizeof(struct mail_base);
    struct mail_base *bases = mem_alloc(rt_mem(rt), size);
    struct loaded loaded;
    if (!load_site(&s, &loaded, bases, &count, &text)) {
        for (struct str rest = text_str(&text); rest.len;) {
            struct log_line line;
            log_begin(&line, rt, LOG_ERROR, "configuration");
            log_str(&line, "problem", str_cut(&rest, '\n'));
            log_end(&line);
        }
        return EXIT_CONFIG;
    }
    take_site(&s, &loaded, bases, count);
    mem_free(rt_mem(rt), bases, size);
    e = host_make_dir(rt, s.site->state, 0755, supervisor_owner(&s, s.user_id), supervisor_owner(&s, s.group_id), FOREVER);
    if (err_is(e)) {
        log_unusable(&s, "state-directory-unusable", "path", s.site->state, e);
        return EXIT_OSERR;
    }
    if (err_is(rt_catch_signals(rt, signals, sizeof signals / sizeof *signals)) ||
        err_is(supervisor_open_sockets(&s, s.site, &text)))
        return EXIT_OSERR;
    supervisor_keep_sockets(&s);
    scope_init(&s.fibers, rt);
    struct scope listening;
    scope_init(&listening, rt);
    scope_start(&listening, "signals", run_signals, &s);
    scope_start(&listening, "watch", supervisor_watch_certificates, &s);
    scope_start(&listening, "watch users", supervisor_watch_users, &s);
    add_generation(&s);
    become_ready(&s);
    while (!s.stop_asked)
        event_wait(rt, &s.changed, FOREVER);
    rt_notify_stopping(rt);
    stop_everything(&s);
    scope_end(&listening);
    scope_end(&s.fibers);
    log_plain(&s, LOG_INFO, "stopped");
    return 0;
}
