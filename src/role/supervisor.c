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
#include "role/supervisor.h"

#include "base/check.h"
#include "base/json.h"
#include "role/control.h"
#include "runtime/host.h"
#include "runtime/log.h"
#include "runtime/notify.h"

#include <signal.h>
#include <string.h>

enum { EXIT_CONFIG = 78, EXIT_OSERR = 71, BUNDLE_PART = 60 << 10, MAIL_BASES_MAX = ROLE_DIRS_MAX };

#define RESTART_DELAY_MAX (1 * SECOND) /* never longer: a crash must not be a way to close port 25 */
#define RESTART_CALM (10 * SECOND)     /* a process that lived so long starts anew without delay */
#define DRAIN_NS (10 * MINUTE)         /* then an old generation is told to stop */
#define STOP_NS (20 * SECOND)          /* then it is killed */
#define RELINK_NS (1 * SECOND)
#define WATCH_NS (2 * SECOND)          /* files of certificates that changed are seen */
#define WATCH_NOTHING_NS (1 * MINUTE)  /* a reload may name some */
#define RELOAD_NS (1 * MINUTE)         /* for a new generation to be ready; then the old one goes all the same */

/* Who is linked to whom: the callers' side first. No cycles: design, section 4. */
static const struct {
    enum role_kind caller, callee;
} borders[] = {
    { ROLE_RECEIVER, ROLE_STORE },   { ROLE_RECEIVER, ROLE_GATE },   { ROLE_RECEIVER, ROLE_CHECKER },
    { ROLE_SUBMISSION, ROLE_STORE }, { ROLE_SUBMISSION, ROLE_GATE }, { ROLE_SUBMISSION, ROLE_CHECKER },
    { ROLE_GATE, ROLE_RESOLVER },    { ROLE_STORE, ROLE_RESOLVER },  { ROLE_STORE, ROLE_SENDER },
    { ROLE_STORE, ROLE_MAILBOX },    { ROLE_SENDER, ROLE_RESOLVER }, { ROLE_CONSOLE, ROLE_STORE },
    { ROLE_CONSOLE, ROLE_GATE },     { ROLE_RECEIVER, ROLE_KEYS },
    { ROLE_SUBMISSION, ROLE_KEYS },
    { ROLE_SENDER, ROLE_FETCH },     { ROLE_FETCH, ROLE_RESOLVER },
};

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

struct supervisor;

/* A link between two processes, in this life of both. It is gone when one of them says so, or with one of them. */
struct tie {
    struct list node;
    struct supervisor *s;
    struct process *a, *b;
    uint32_t pid_a, pid_b, number;
};

struct process {
    struct list node;
    struct supervisor *s;
    enum role_kind kind;
    uint32_t index, generation, user_id;
    struct child *child;  /* NULL: it has ended */
    uint32_t pid;
    struct link *control;
    bool linked;    /* its control link takes peers */
    bool ready;     /* it said so */
    bool draining, stopping;
    bool ended;     /* this life: `status` says how */
    int status;
    struct event event;
    int64_t started, stop_at;
    uint32_t restarts;
    char report[512];
    size_t report_len;
};

struct mail_base { /* a directory with Maildirs below, and whose they are */
    struct str user; /* as configured; empty: ours */
    struct str path;
    uint32_t user_id, group_id;
};

struct socket { /* a listening socket, kept over generations */
    struct list node;
    struct str name;      /* of its listen block, or "local", "control"; absent: opened for a site not ours yet */
    struct str next_name; /* in the site that is being looked at; absent: not wanted there */
    struct address address;
    struct handle handle;
    enum role_kind taker;
};

struct supervisor {
    struct rt *rt;
    struct str config_path;
    struct loaded loaded;
    const struct site *site;
    struct arena arena;          /* for the supervisor's whole life: names of sockets and roles */
    bool root;
    uint32_t user_id, group_id;  /* of the roles */
    struct mail_base bases[MAIL_BASES_MAX];
    size_t base_count;
    struct scope fibers;
    struct list processes, sockets, ties;
    uint32_t generation, last_tie;
    bool users_unopened; /* the users file could not be, though it is there: again soon */
    bool starting, reloading, stopping, stop_asked;
    struct event changed;
};

static void
log_plain(struct supervisor *s, enum log_level level, const char *what)
{
    struct log_line line;

    log_begin(&line, s->rt, level, what);
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

static void
log_file(struct supervisor *s, const char *what, struct str path, struct err e)
{
    struct log_line line;

    log_begin(&line, s->rt, LOG_ERROR, what);
    log_str(&line, "path", path);
    log_err(&line, e);
    log_end(&line);
}

/* For host_own(): only root can give things away. */
static int64_t
owner(const struct supervisor *s, uint32_t id)
{
    return s->root ? (int64_t)id : -1;
}

/* ---- sockets ---- */

static struct socket *
find_socket(struct supervisor *s, const struct address *address)
{
    list_each (node, &s->sockets) {
        struct socket *socket = container_of(node, struct socket, node);
        if (address_eq(&socket->address, address))
            return socket;
    }
    return NULL;
}

static struct err
cannot_listen(struct supervisor *s, const struct address *address, struct err e, struct text *out_text)
{
    struct log_line line;

    log_begin(&line, s->rt, LOG_ERROR, "cannot-listen");
    log_address(&line, "address", address);
    log_err(&line, e);
    log_end(&line);
    address_put(out_text, address);
    text_put(out_text, S(": cannot listen there: "));
    err_text(e, out_text);
    text_put(out_text, S("\n"));
    return e;
}

static struct err
want_socket(struct supervisor *s, enum role_kind taker, struct str name, const struct address *address,
            struct text *out_text)
{
    struct socket *socket = find_socket(s, address);
    struct listener *listener;

    if (!socket) {
        struct err e = listener_open(s->rt, address, &listener);
        if (err_is(e))
            return cannot_listen(s, address, e, out_text);
        struct handle handle = listener_handle(s->rt, listener);
        struct address bound = listener_address(listener);
        listener_close(listener);
        if (handle_is_none(handle))
            return cannot_listen(s, address, ERR(ERR_NO_FILES, "duplicate a listener"), out_text);
        socket = mem_new(rt_mem(s->rt), struct socket);
        socket->name = (struct str){ NULL, 0 };
        socket->handle = handle;
        socket->address = *address;
        list_push_back(&s->sockets, &socket->node);
        struct log_line line;
        log_begin(&line, s->rt, LOG_INFO, "listening");
        log_str(&line, "listener", name);
        log_address(&line, "address", &bound);
        log_end(&line);
    }
    socket->next_name = str_eq(socket->name, name) ? socket->name : arena_keep(&s->arena, name);
    socket->taker = taker;
    return OK;
}

static struct err
want_unix_socket(struct supervisor *s, enum role_kind taker, struct str name, struct str state, const char *file,
                 unsigned mode, struct text *out_text)
{
    struct address address = { .family = ADDRESS_UNIX };
    struct text path = text_init(address.path, sizeof address.path - 1);

    text_putf(&path, "%.*s/%s", STR_ARG(state), file);
    CHECK(!path.full); /* the configuration's `state` is not longer than that */
    TRY(want_socket(s, taker, name, &address, out_text));
    struct err e = host_own(s->rt, text_str(&path), mode, owner(s, s->user_id), owner(s, s->group_id), FOREVER);
    return err_is(e) ? cannot_listen(s, &address, e, out_text) : OK;
}

static void
close_socket(struct supervisor *s, struct socket *socket)
{
    handle_close(s->rt, socket->handle);
    list_remove(&socket->node);
    mem_free(rt_mem(s->rt), socket, sizeof *socket);
}

/* Opens what the site wants and is not open. Then comes keep_sockets(), or drop_sockets(), which undoes it. */
static struct err
open_sockets(struct supervisor *s, const struct site *site, struct text *out_text)
{
    list_each (node, &s->sockets)
        container_of(node, struct socket, node)->next_name = (struct str){ NULL, 0 };
    /* Anybody on this machine may hand in mail; only our own user and group may operate the server. */
    TRY(want_unix_socket(s, ROLE_SUBMISSION, S("local"), site->state, "submission.sock", 0666, out_text));
    TRY(want_unix_socket(s, ROLE_CONSOLE, S("control"), site->state, "control.sock", 0660, out_text));
    for (size_t i = 0; i < site->listener_count; i++)
        for (size_t k = 0; k < site->listeners[i].address_count; k++)
            TRY(want_socket(s, role_of_listener(site->listeners[i].kind), site->listeners[i].name,
                            &site->listeners[i].addresses[k], out_text));
    return OK;
}

static void
keep_sockets(struct supervisor *s)
{
    list_each_safe (node, &s->sockets) {
        struct socket *socket = container_of(node, struct socket, node);
        socket->name = socket->next_name;
        if (str_is_absent(socket->name))
            close_socket(s, socket);
    }
}

static void
drop_sockets(struct supervisor *s)
{
    list_each_safe (node, &s->sockets) {
        struct socket *socket = container_of(node, struct socket, node);
        if (str_is_absent(socket->name))
            close_socket(s, socket);
    }
}

/* ---- links between processes ---- */

static bool
are_peers(const struct process *a, const struct process *b)
{
    if (a->generation != b->generation && a->kind != ROLE_STORE && b->kind != ROLE_STORE)
        return false;
    for (size_t i = 0; i < sizeof borders / sizeof *borders; i++)
        if ((borders[i].caller == a->kind && borders[i].callee == b->kind) ||
            (borders[i].caller == b->kind && borders[i].callee == a->kind))
            return true;
    return false;
}

static struct err
send_peer(struct process *to, const struct process *peer, uint32_t tie, const struct handle *handles, size_t count)
{
    unsigned char body[16];
    struct put p = put_init(body, sizeof body);

    if (!to->control) /* it died while the other half was sent */
        return ERR(ERR_CLOSED, "link two processes");
    put_u8(&p, (uint8_t)peer->kind);
    put_u32(&p, peer->index);
    put_u32(&p, peer->generation);
    put_u32(&p, tie);
    return link_send_handles(to->control, CONTROL_PEER, put_str_so_far(&p), handles, count,
                             within(to->s->rt, 5 * SECOND));
}

static struct err begin_starting(struct supervisor *);
static void end_starting(struct supervisor *);

static struct tie *
find_tie(struct supervisor *s, uint32_t number)
{
    list_each (node, &s->ties) {
        struct tie *tie = container_of(node, struct tie, node);
        if (tie->number == number)
            return tie;
    }
    return NULL;
}

static void run_relink(void *arg);

/* Both may live, so that nothing else would link them again. */
static void
relink_later(struct supervisor *s, struct tie *tie)
{
    list_remove(&tie->node);
    scope_start(&s->fibers, "relink", run_relink, tie);
}

/* While one starts (`starting`). What fails is tried again later, unless one of them is dying: it will be linked when it
 * starts again. */
static void
link_processes(struct process *a, struct process *b)
{
    struct supervisor *s = a->s;
    struct tie *tie = mem_new(rt_mem(s->rt), struct tie);
    struct handle pair[2] = { HANDLE_NONE, HANDLE_NONE }, second[2] = { HANDLE_NONE, HANDLE_NONE };
    bool signs = a->kind == ROLE_KEYS || b->kind == ROLE_KEYS;
    uint32_t number = ++s->last_tie;

    *tie = (struct tie){ .s = s, .a = a, .b = b, .pid_a = a->pid, .pid_b = b->pid, .number = number };
    list_push_back(&s->ties, &tie->node); /* already: whoever gets one half may lose it before the other is sent */
    struct err e = stream_pair(s->rt, pair);
    if (!err_is(e) && signs)
        e = stream_pair(s->rt, second);
    if (!err_is(e))
        e = send_peer(a, b, number, (struct handle[]){ pair[0], second[0] }, signs ? 2 : 1);
    if (!err_is(e))
        e = send_peer(b, a, number, (struct handle[]){ pair[1], second[1] }, signs ? 2 : 1);
    for (int i = 0; i < 2; i++) {
        handle_close(s->rt, pair[i]);
        handle_close(s->rt, second[i]);
    }
    tie = find_tie(s, number);
    if (err_is(e) && tie)
        relink_later(s, tie);
}

static void
link_to_all(struct process *p)
{
    list_each (node, &p->s->processes) {
        struct process *other = container_of(node, struct process, node);
        if (other != p && other->linked && !other->draining && are_peers(p, other))
            link_processes(p, other);
    }
}

static bool
is_there(const struct supervisor *s, const struct process *p, uint32_t pid)
{
    list_each (node, &s->processes)
        if (container_of(node, struct process, node) == p)
            return p->pid == pid && p->linked && !p->draining;
    return false;
}

static void
run_relink(void *arg)
{
    struct tie *tie = arg;
    struct supervisor *s = tie->s;

    /* Not at once: a process that sends nonsense must not keep us busy. */
    if (!err_is(rt_sleep(s->rt, within(s->rt, RELINK_NS))) && !err_is(begin_starting(s))) {
        if (is_there(s, tie->a, tie->pid_a) && is_there(s, tie->b, tie->pid_b))
            link_processes(tie->a, tie->b);
        end_starting(s);
    }
    mem_free(rt_mem(s->rt), tie, sizeof *tie);
}

static bool
hear_unlinked(struct process *p, struct link_message *m)
{
    struct take t = take_init(m->body);
    struct tie *tie = find_tie(p->s, take_u32(&t));

    if (m->call != 0 || !take_end(&t))
        return false;
    if (tie && (tie->a == p || tie->b == p)) /* else the other one said so first */
        relink_later(p->s, tie);
    return true;
}

static void
drop_ties(struct process *p)
{
    list_each_safe (node, &p->s->ties) {
        struct tie *tie = container_of(node, struct tie, node);
        if (tie->a != p && tie->b != p)
            continue;
        list_remove(node);
        mem_free(rt_mem(p->s->rt), tie, sizeof *tie);
    }
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
    int64_t uid = owner(s, base->user_id), gid = owner(s, base->group_id);
    char memory[LIMIT_CONF_PATH];
    struct directory_domain_info info;

    TRY(host_make_dir(s->rt, base->path, 0750, uid, gid, FOREVER));
    for (size_t at = 0; s->root && directory_next(site->directory, &at, &info);) {
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

/* ---- certificates: opened here, with our rights, and read by the role `keys` alone ---- */

static struct err
send_certificate(struct process *p, uint32_t index, const struct handle *handles, size_t count)
{
    unsigned char body[4];
    struct put put = put_init(body, sizeof body);
    int64_t until = within(p->s->rt, 5 * SECOND);

    put_u32(&put, index);
    if (!p->control)
        return ERR(ERR_CLOSED, "pass a certificate on");
    return count ? link_send_handles(p->control, CONTROL_CERTIFICATE, put_str_so_far(&put), handles, count, until)
                 : link_send(p->control, CONTROL_CERTIFICATE, put_str_so_far(&put), until);
}

/* One that cannot be opened is left out, and said. */
static struct err
send_certificates(struct process *p)
{
    struct supervisor *s = p->s;
    struct err failed = OK;

    for (size_t i = 0; i < s->site->certificate_count && !err_is(failed); i++) {
        const struct site_certificate *c = &s->site->certificates[i];
        struct handle handles[2] = { HANDLE_NONE, HANDLE_NONE };
        struct str paths[2] = { c->certificate, c->key };
        struct err e = OK;
        for (int k = 0; k < 2 && !err_is(e); k++) {
            e = host_open(s->rt, paths[k], FOREVER, &handles[k]);
            if (!err_is(e))
                continue;
            log_file(s, "certificate-not-opened", paths[k], e);
        }
        if (!err_is(e))
            failed = send_certificate(p, (uint32_t)i, handles, 2);
        handle_close(s->rt, handles[0]);
        handle_close(s->rt, handles[1]);
    }
    return err_is(failed) ? failed : send_certificate(p, 0, NULL, 0);
}

static struct link *
control_of_keys(struct supervisor *s)
{
    list_each (node, &s->processes) {
        struct process *p = container_of(node, struct process, node);
        if (p->kind == ROLE_KEYS && p->generation == s->generation && p->linked && p->ready)
            return p->control;
    }
    return NULL;
}

/* Of the generation that is there already, so that clients whose sessions it began resume them with this one. That nobody
 * can be asked is no fault: clients begin anew. */
static struct err
send_tickets(struct process *p)
{
    struct supervisor *s = p->s;
    struct link *control = NULL;
    struct arena scratch;
    struct str tickets;

    list_each (node, &s->processes) {
        const struct process *other = container_of(node, struct process, node);
        if (other->kind == ROLE_KEYS && other != p && other->linked && other->ready && !other->stopping)
            control = other->control; /* the last one is of the latest generation */
    }
    if (!control)
        return OK;
    arena_init(&scratch, rt_mem(s->rt), 1024, 4096);
    struct err e = OK, asked = link_call(control, CONTROL_TICKETS, S(""), &scratch, within(s->rt, SECOND), &tickets);
    if (!err_is(asked)) {
        e = p->control ? link_send(p->control, CONTROL_TICKETS, tickets, within(s->rt, 5 * SECOND))
                       : ERR(ERR_CLOSED, "pass keys of tickets on");
        explicit_bzero((char *)(uintptr_t)tickets.ptr, tickets.len);
    }
    arena_done(&scratch);
    return e;
}

/* What the role `keys` thinks of a certificate of another site; that it cannot be asked is no fault. */
static enum certificate_fault
try_certificate(struct supervisor *s, const struct site_certificate *c, struct arena *scratch)
{
    struct handle handles[2] = { HANDLE_NONE, HANDLE_NONE };
    struct str answer;

    struct err e = host_open(s->rt, c->certificate, FOREVER, &handles[0]);
    if (!err_is(e))
        e = host_open(s->rt, c->key, FOREVER, &handles[1]);
    bool opened = !err_is(e);
    struct link *control = control_of_keys(s);
    if (opened && control)
        e = link_send_handles(control, CONTROL_TRY, S(""), handles, 2, within(s->rt, 5 * SECOND));
    handle_close(s->rt, handles[0]);
    handle_close(s->rt, handles[1]);
    if (!opened)
        return CERTIFICATE_NOT_READ;
    if (!control || err_is(e) || control_of_keys(s) != control)
        return CERTIFICATE_GOOD;
    e = link_call(control, CONTROL_TRY, S(""), scratch, within(s->rt, 10 * SECOND), &answer);
    if (err_is(e) || answer.len != 1 || (unsigned char)answer.ptr[0] >= CERTIFICATE_FAULTS)
        return CERTIFICATE_GOOD;
    return (enum certificate_fault)answer.ptr[0];
}

/* Before a reload: what runs now shows certificates that are good, and should not make way for what is not. */
static bool
certificates_are_good(struct supervisor *s, const struct site *site, struct text *out_text)
{
    static const char *const faults[CERTIFICATE_FAULTS] = {
        [CERTIFICATE_NOT_READ] = "cannot be read, or its key",
        [CERTIFICATE_UNUSABLE] = "cannot be used, or its key",
        [CERTIFICATE_OF_ANOTHER_KEY] = "is not for its key",
    };
    struct arena scratch;
    bool fine = true;

    arena_init(&scratch, rt_mem(s->rt), 1024, 64 << 10);
    for (size_t i = 0; i < site->certificate_count; i++) {
        const struct site_certificate *c = &site->certificates[i];
        enum certificate_fault fault = try_certificate(s, c, &scratch);
        if (fault == CERTIFICATE_GOOD)
            continue;
        fine = false;
        conf_where_put(out_text, c->where);
        text_putf(out_text, ": the certificate \"%.*s\" %s: see \"postrider check\"\n", STR_ARG(c->certificate), faults[fault]);
    }
    arena_done(&scratch);
    return fine;
}

/* When each file changed last, as far as we know, all in one number. */
static uint64_t
certificates_version(struct supervisor *s)
{
    uint32_t generation = s->generation;
    uint64_t version = generation;

    for (size_t i = 0; i < s->site->certificate_count; i++)
        for (int key = 0; key < 2; key++) {
            const struct site_certificate *c = &s->site->certificates[i];
            struct host_file file = { .changed = 0 };
            (void)host_stat(s->rt, key ? c->key : c->certificate, FOREVER, &file); /* one that is not there may come */
            if (s->generation != generation) /* a reload came between, and with it another site */
                return 0;
            version = (version ^ (uint64_t)file.changed) * 0x9E3779B97F4A7C15u + file.size;
        }
    return version;
}

/* To all of a kind that live; draining: also to those of former generations. *out_told: they have it. An error: the
 * supervisor ends. */
static struct err
send_anew(struct supervisor *s, enum role_kind kind, bool draining, struct err (*send)(struct process *), bool *out_told)
{
    *out_told = true;
    TRY(begin_starting(s));
    list_each (node, &s->processes) {
        struct process *p = container_of(node, struct process, node);
        if (p->kind == kind && (draining || p->generation == s->generation) && p->linked && err_is(send(p)))
            *out_told = false;
    }
    end_starting(s);
    return OK;
}

/* Whoever renews certificates only replaces files. */
static void
run_watch(void *arg)
{
    struct supervisor *s = arg;
    uint64_t seen = certificates_version(s);

    while (!err_is(rt_sleep(s->rt, within(s->rt, s->site->certificate_count ? WATCH_NS : WATCH_NOTHING_NS)))) {
        uint64_t now = certificates_version(s);
        if (now == seen || s->stopping)
            continue;
        bool told;
        if (err_is(send_anew(s, ROLE_KEYS, false, send_certificates, &told)))
            return;
        seen = told ? now : 0; /* again the next time */
    }
}

/* ---- the users file: likewise, for the gate ---- */

/*
 * One that others can read is as good as published: it is not used. Its folder may belong to somebody else, so a link is
 * not followed with our rights: it could lead to the passwords of the machine.
 */
static struct err
open_users(struct supervisor *s, struct handle *out)
{
    struct host_file file;

    TRY(host_open_plain(s->rt, s->site->users.path, FOREVER, out, &file));
    if (!(file.mode & 07))
        return OK;
    handle_close(s->rt, *out);
    *out = HANDLE_NONE;
    return ERR(ERR_DENIED, "use a users file that others can read: chmod o-rwx");
}

static struct err
send_users(struct process *p)
{
    struct supervisor *s = p->s;
    struct handle handle = HANDLE_NONE;

    if (s->site->users.kind != USERS_FILE)
        return OK;
    bool again = s->users_unopened;
    struct err e = open_users(s, &handle);
    s->users_unopened = err_is(e) && e.kind != ERR_NOT_FOUND && e.kind != ERR_DENIED; /* it is gone, or not for use */
    if (err_is(e) && !(again && s->users_unopened)) /* each time would be every other second */
        log_file(s, "users-not-opened", s->site->users.path, e);
    if (s->users_unopened)
        return OK; /* what the gate has, it keeps */
    int64_t until = within(s->rt, 5 * SECOND);
    if (!p->control)
        e = ERR(ERR_CLOSED, "pass the users file on");
    else if (handle_is_none(handle))
        e = link_send(p->control, CONTROL_USERS, S(""), until);
    else
        e = link_send_handles(p->control, CONTROL_USERS, S(""), &handle, 1, until);
    handle_close(s->rt, handle);
    return e;
}

static uint64_t
users_version(struct supervisor *s)
{
    uint32_t generation = s->generation;
    struct host_file file = { .changed = 0 };

    if (s->site->users.kind == USERS_FILE)
        (void)host_stat(s->rt, s->site->users.path, FOREVER, &file);
    return s->generation != generation ? 0
                                       : ((uint64_t)file.changed ^ generation) * 0x9E3779B97F4A7C15u + file.size * 512 + file.mode;
}

static void
run_watch_users(void *arg)
{
    struct supervisor *s = arg;
    uint64_t seen = users_version(s);

    while (!err_is(rt_sleep(s->rt, within(s->rt, s->site->users.kind == USERS_FILE ? WATCH_NS : WATCH_NOTHING_NS)))) {
        uint64_t now = users_version(s);
        if ((now == seen && !s->users_unopened) || s->stopping)
            continue;
        bool told;
        /* To those that drain too: who was taken out may not log in over an old session, who has a new password may. */
        if (err_is(send_anew(s, ROLE_GATE, true, send_users, &told)))
            return;
        seen = told ? now : 0; /* again the next time */
    }
}

/* ---- secrets of routes: read here, with our rights, and told to senders alone ---- */

/* Of a file without one mail waits, which senders say each time. */
static struct err
send_secret(struct process *p, struct str path, struct arena *scratch)
{
    struct supervisor *s = p->s;
    struct str bytes;

    if (str_is_absent(path))
        return OK;
    struct err e = host_read_file(s->rt, path, SASL_SECRET_MAX, scratch, FOREVER, &bytes);
    if (err_is(e)) {
        log_file(s, "secret-not-read", path, e);
        return OK;
    }
    size_t size = path.len + bytes.len + 16;
    unsigned char *memory = arena_alloc(scratch, size);
    struct put put = put_init(memory, size);
    put_bytes(&put, path);
    put_bytes(&put, str_trim_end(bytes)); /* editors end lines */
    if (!p->control)
        return ERR(ERR_CLOSED, "pass a secret on");
    e = link_send(p->control, CONTROL_SECRET, put_str_so_far(&put), within(s->rt, 5 * SECOND));
    explicit_bzero(memory, size);
    explicit_bzero((char *)(uintptr_t)bytes.ptr, bytes.len);
    return e;
}

static struct err
send_secrets(struct process *p)
{
    const struct site *site = p->s->site;
    struct arena scratch;
    struct err e = OK;

    for (size_t i = 0; i < site->route_count && !err_is(e); i++) {
        arena_init(&scratch, rt_mem(p->s->rt), 4096, 64 << 10);
        e = send_secret(p, site->routes[i].password_file, &scratch);
        if (!err_is(e))
            e = send_secret(p, site->routes[i].token_file, &scratch);
        arena_done(&scratch);
    }
    return e;
}

static struct err
send_dirs(struct process *p, struct arena *scratch)
{
    struct supervisor *s = p->s;

    if (p->kind == ROLE_SENDER)
        return send_secrets(p);
    if (p->kind == ROLE_STORE) {
        struct str path = arena_join(scratch, s->site->state, S("/spool"));
        TRY(host_make_dir(s->rt, path, 0700, owner(s, s->user_id), owner(s, s->group_id), FOREVER));
        return send_dir(p, S("spool"), path);
    }
    if (p->kind == ROLE_KEYS) {
        struct str path = arena_join(scratch, s->site->state, S("/tls"));
        TRY(host_make_dir(s->rt, path, 0700, owner(s, s->user_id), owner(s, s->group_id), FOREVER));
        TRY(send_dir(p, S("tls"), path));
        TRY(send_tickets(p));
        return send_certificates(p);
    }
    if (p->kind == ROLE_FETCH) {
        struct str path = arena_join(scratch, s->site->state, S("/mta-sts"));
        TRY(host_make_dir(s->rt, path, 0700, owner(s, s->user_id), owner(s, s->group_id), FOREVER));
        return send_dir(p, S("mta-sts"), path);
    }
    if (p->kind == ROLE_GATE) {
        struct str path = arena_join(scratch, s->site->state, S("/gate"));
        TRY(host_make_dir(s->rt, path, 0700, owner(s, s->user_id), owner(s, s->group_id), FOREVER));
        TRY(send_dir(p, S("gate"), path));
        return send_users(p);
    }
    if (p->kind != ROLE_MAILBOX)
        return OK;
    for (size_t i = 0; i < s->base_count; i++) {
        const struct mail_base *base = &s->bases[i];
        if (base->user_id != p->user_id)
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
    link_to_all(p);
    return link_send(p->control, CONTROL_GO, S(""), within(s->rt, 5 * SECOND));
}

static uint32_t
group_of(const struct supervisor *s, uint32_t user_id)
{
    for (size_t i = 0; i < s->base_count; i++)
        if (s->bases[i].user_id == user_id)
            return s->bases[i].group_id;
    return s->group_id;
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
        .uid = p->kind == ROLE_MAILBOX ? p->user_id : s->user_id,
        .gid = p->kind == ROLE_MAILBOX ? group_of(s, p->user_id) : s->group_id,
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

static struct err
begin_starting(struct supervisor *s)
{
    while (s->starting)
        TRY(event_wait(s->rt, &s->changed, FOREVER));
    s->starting = true;
    return OK;
}

static void
end_starting(struct supervisor *s)
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
    p->linked = p->ready = false;
    drop_ties(p);
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

    if (err_is(begin_starting(s)))
        return;
    p->ended = false;
    struct err e = p->stopping || p->draining ? ERR(ERR_CANCELLED, "ending") : start_process(p);
    bool started = p->child != NULL;
    if (started)
        scope_start(&s->fibers, "reaper", run_reaper, p);
    end_starting(s);
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
    mem_free(rt_mem(s->rt), p, sizeof *p);
    event_wake(s->rt, &s->changed);
}

static void
add_process(struct supervisor *s, enum role_kind kind, uint32_t index, uint32_t user_id)
{
    struct process *p = mem_new(rt_mem(s->rt), struct process);

    p->s = s;
    p->kind = kind;
    p->index = index;
    p->generation = s->generation;
    p->user_id = user_id;
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
    for (size_t i = 0; i < sizeof always / sizeof *always; i++)
        for (uint32_t index = 0; index < process_count(s, always[i].for_processors); index++)
            if ((always[i].kind != ROLE_STORE || s->generation == 1) && (always[i].kind != ROLE_FETCH || s->site->mta_sts))
                add_process(s, always[i].kind, index, 0);
    for (size_t i = 0; i < s->base_count; i++) {
        bool seen = false;
        for (size_t k = 0; k < i; k++)
            seen |= s->bases[k].user_id == s->bases[i].user_id;
        if (!seen)
            add_process(s, ROLE_MAILBOX, (uint32_t)i, s->bases[i].user_id);
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
any_left(const struct supervisor *s, uint32_t up_to_generation, bool servants)
{
    list_each (node, &s->processes) {
        struct process *p = container_of(node, struct process, node);
        if (p->kind != ROLE_STORE && p->generation <= up_to_generation && serves_others(p->kind) == servants)
            return true;
    }
    return false;
}

static void
tell_end(struct process *p, bool stop)
{
    struct supervisor *s = p->s;

    if (p->stopping && !stop)
        return;
    p->draining = true;
    p->stopping |= stop;
    p->stop_at = within(s->rt, stop ? STOP_NS : DRAIN_NS);
    if (p->control) /* even before GO: it will look */
        link_post(p->control, stop ? CONTROL_STOP : CONTROL_DRAIN, S(""));
    event_wake(s->rt, &p->event);
}

static void
tell_all(struct supervisor *s, uint32_t up_to_generation, bool servants, bool stop)
{
    list_each (node, &s->processes) {
        struct process *p = container_of(node, struct process, node);
        if (p->kind != ROLE_STORE && p->generation <= up_to_generation && serves_others(p->kind) == servants)
            tell_end(p, stop);
    }
}

struct drain {
    struct supervisor *s;
    uint32_t generation;
};

static void
run_drain(void *arg)
{
    struct drain *drain = arg;
    struct supervisor *s = drain->s;
    uint32_t generation = drain->generation;

    mem_free(rt_mem(s->rt), drain, sizeof *drain);
    tell_all(s, generation, false, false);
    while (any_left(s, generation, false))
        if (err_is(event_wait(s->rt, &s->changed, FOREVER)))
            return;
    tell_all(s, generation, true, true);
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
        tell_all(s, s->generation, servants, true);
        while (any_left(s, s->generation, servants))
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

    for (size_t at = 0; directory_next(site->directory, &at, &info);) {
        const struct directory_route *route = info.route;
        struct mail_base base = { str_is_absent(route->user) ? S("") : route->user, load_mail_base(route->maildir),
                                  s->user_id, s->group_id };
        if (route->kind != DIRECTORY_ROUTE_MAILDIR)
            continue;
        if (!str_is_absent(route->user) &&
            err_is(host_user(s->rt, route->user, FOREVER, &base.user_id, &base.group_id))) {
            conf_where_put(out_text, route->where);
            text_putf(out_text, ": there is no user \"%.*s\" on this machine\n", STR_ARG(route->user));
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
        if (count == MAIL_BASES_MAX) {
            text_put(out_text, S("there are too many Maildir directories\n"));
            return false;
        }
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
    if (find_bases(s, out->site, bases, out_count, out_text))
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
    else if (certificates_are_good(s, fresh->site, out_text) && make_bases(s, fresh->site, bases, *out_count, out_text)) {
        bool fine = !err_is(open_sockets(s, fresh->site, out_text));
        while (fine && s->starting) /* it walks over sockets and processes */
            fine = !err_is(event_wait(s->rt, &s->changed, FOREVER));
        if (fine && !s->stopping)
            return true;
        while (s->starting)
            event_wait_firmly(s->rt, &s->changed);
        drop_sockets(s);
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
        end_starting(s);
        return;
    }
}

static bool
reload(struct supervisor *s, struct text *out_text)
{
    struct loaded fresh;
    size_t count = 0, size = MAIL_BASES_MAX * sizeof(struct mail_base);

    if (s->reloading || s->stopping) {
        text_put(out_text, S("another reload is under way: try again when it has ended\n"));
        return false;
    }
    s->reloading = true;
    struct mail_base *bases = mem_alloc(rt_mem(s->rt), size);
    bool fine = prepare_reload(s, &fresh, bases, &count, out_text);
    if (fine) {
        struct drain *drain = mem_new(rt_mem(s->rt), struct drain);
        *drain = (struct drain){ s, s->generation++ };
        keep_sockets(s);
        take_site(s, &fresh, bases, count);
        tell_store(s);
        if (!s->stopping)
            add_generation(s);
        int64_t until = within(s->rt, RELOAD_NS);
        while (!all_ready(s, s->generation) && !s->stopping)
            if (err_is(event_wait(s->rt, &s->changed, until)))
                break;
        if (!all_ready(s, s->generation))
            text_put(out_text, S("not every role of the new configuration has started: see the log and `status`\n"));
        scope_start(&s->fibers, "drain", run_drain, drain);
        log_plain(s, LOG_INFO, "configuration-reloaded");
    }
    mem_free(rt_mem(s->rt), bases, size);
    s->reloading = false;
    return fine;
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

    text_put_byte(&text, 1);
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
    if (m->type == CONTROL_UNLINKED)
        return hear_unlinked(p, m);
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

    if (reload(s, &text))
        return;
    struct log_line line;
    log_begin(&line, s->rt, LOG_ERROR, "configuration-kept");
    log_str(&line, "why", text_str(&text));
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

/* Roles run as the user `postrider` if we are root and there is one; else as whoever started us. */
static void
find_user(struct supervisor *s)
{
    s->user_id = host_my_uid(s->rt);
    s->group_id = host_my_gid(s->rt);
    s->root = s->user_id == 0;
    if (s->root && err_is(host_user(s->rt, S("postrider"), FOREVER, &s->user_id, &s->group_id)))
        log_plain(s, LOG_WARNING, "no-user-postrider-so-roles-run-as-root");
}

int
supervisor_main(struct rt *rt, struct str config_path)
{
    static const int signals[] = { SIGTERM, SIGINT, SIGHUP };
    struct supervisor s = { .rt = rt, .config_path = config_path, .generation = 1 };
    char memory[8192];
    struct text text = text_init(memory, sizeof memory);

    list_init(&s.processes);
    list_init(&s.sockets);
    list_init(&s.ties);
    event_init(&s.changed);
    arena_init(&s.arena, rt_mem(rt), 4096, 1 << 24);
    find_user(&s);
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
    struct err e = host_make_dir(rt, s.site->state, 0755, owner(&s, s.user_id), owner(&s, s.group_id), FOREVER);
    if (err_is(e)) {
        struct log_line line;
        log_begin(&line, rt, LOG_ERROR, "state-directory-unusable");
        log_str(&line, "path", s.site->state);
        log_err(&line, e);
        log_end(&line);
        return EXIT_OSERR;
    }
    if (err_is(rt_catch_signals(rt, signals, sizeof signals / sizeof *signals)) ||
        err_is(open_sockets(&s, s.site, &text)))
        return EXIT_OSERR;
    keep_sockets(&s);
    scope_init(&s.fibers, rt);
    struct scope listening;
    scope_init(&listening, rt);
    scope_start(&listening, "signals", run_signals, &s);
    scope_start(&listening, "watch", run_watch, &s);
    scope_start(&listening, "watch users", run_watch_users, &s);
    add_generation(&s);
    while (!s.stop_asked && !all_ready(&s, 1))
        event_wait(rt, &s.changed, FOREVER);
    if (!s.stop_asked) {
        log_plain(&s, LOG_INFO, "ready");
        rt_notify_ready(rt, S("mail flows"));
    }
    while (!s.stop_asked)
        event_wait(rt, &s.changed, FOREVER);
    rt_notify_stopping(rt);
    stop_everything(&s);
    scope_end(&listening);
    scope_end(&s.fibers);
    log_plain(&s, LOG_INFO, "stopped");
    return 0;
}
