/*
 * supervisor_files - files that roles may not open themselves: certificates and keys, the users file, secrets of routes. They
 * are opened here, with our rights; of the first two only handles are passed on, and nothing is read.
 */
#include "role/supervisor_own.h"

#include "runtime/host.h"
#include "runtime/log.h"

#include <string.h>

#define WATCH_NS (2 * SECOND) /* so soon a file that changed is seen */

static void
log_file(struct supervisor *s, const char *what, struct str path, struct err e)
{
    struct log_line line;

    log_begin(&line, s->rt, LOG_ERROR, what);
    log_str(&line, "path", path);
    log_err(&line, e);
    log_end(&line);
}

/* It is used all the same: mail goes on, and whoever could read it has done so. */
static void
warn_if_others_read(struct supervisor *s, struct str secret)
{
    struct host_file file;
    struct log_line line;

    if (err_is(host_stat(s->rt, secret, FOREVER, &file)) || !(file.mode & 07))
        return;
    log_begin(&line, s->rt, LOG_WARNING, "secret-open-to-others");
    log_str(&line, "path", secret);
    log_str(&line, "advice", S("chmod o-rwx, and replace it if others were here"));
    log_end(&line);
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

static bool
is_same(struct err a, struct err b)
{
    return a.kind == b.kind && a.os == b.os && a.what == b.what;
}

/* One that is not there, or not for us, is said, and not tried again: it shows when that changes. */
static bool
waits_for_certificate(const struct supervisor *s, size_t i)
{
    struct err e = s->certificates_unopened[i];

    return err_is(e) && e.kind != ERR_NOT_FOUND && e.kind != ERR_DENIED;
}

/* One that cannot be opened is left out, and said. missing: only those that were, and should be tried again. */
static struct err
send_certificates(struct process *p, bool missing)
{
    struct supervisor *s = p->s;
    struct err failed = OK;
    bool any = !missing;

    for (size_t i = 0; i < s->site->certificate_count && !err_is(failed); i++) {
        const struct site_certificate *c = &s->site->certificates[i];
        struct handle handles[2] = { HANDLE_NONE, HANDLE_NONE };
        struct str paths[2] = { c->certificate, c->key };
        struct err e = OK, former = s->certificates_unopened[i];
        if (missing && !waits_for_certificate(s, i))
            continue;
        for (int k = 0; k < 2 && !err_is(e); k++) {
            e = host_open(s->rt, paths[k], FOREVER, &handles[k]);
            if (err_is(e) && !(missing && is_same(e, former))) /* not every other second */
                log_file(s, "certificate-not-opened", paths[k], e);
        }
        s->certificates_unopened[i] = e;
        if (!err_is(e)) {
            warn_if_others_read(s, c->key);
            failed = send_certificate(p, (uint32_t)i, handles, 2);
            any = true;
        }
        handle_close(s->rt, handles[0]);
        handle_close(s->rt, handles[1]);
    }
    return err_is(failed) ? failed : any ? send_certificate(p, 0, NULL, 0) : OK;
}

struct err
supervisor_send_certificates(struct process *p)
{
    return send_certificates(p, false);
}

static struct err
send_missing_certificates(struct process *p)
{
    return send_certificates(p, true);
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
struct err
supervisor_send_tickets(struct process *p)
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
    struct err e = OK, asked = link_call(control, CONTROL_TICKETS, S(""), &scratch, within(s->rt, 2 * SECOND), &tickets);
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
bool
supervisor_certificates_are_good(struct supervisor *s, const struct site *site, struct text *out_text)
{
    static const char *const faults[CERTIFICATE_FAULTS] = {
        [CERTIFICATE_NOT_READ] = "cannot be read, or its key",
        [CERTIFICATE_UNUSABLE] = "cannot be used, or its key",
        [CERTIFICATE_OF_ANOTHER_KEY] = "is not for its key",
    };
    struct arena scratch;
    bool fine = true;

    /* For one that is being started. One that cannot start keeps nothing from being mended. */
    int64_t patience = within(s->rt, 5 * SECOND);
    while (site->certificate_count > 0 && !s->stopping && !control_of_keys(s))
        if (err_is(event_wait(s->rt, &s->changed, patience)))
            break;
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
    TRY(supervisor_begin_starting(s));
    list_each (node, &s->processes) {
        struct process *p = container_of(node, struct process, node);
        if (p->kind == kind && (draining || p->generation == s->generation) && p->linked && err_is(send(p)))
            *out_told = false;
    }
    supervisor_end_starting(s);
    return OK;
}

static bool
waits_for_some_certificate(const struct supervisor *s)
{
    for (size_t i = 0; i < s->site->certificate_count; i++)
        if (waits_for_certificate(s, i))
            return true;
    return false;
}

/* Until it is time to look again, at the latest when a reload has named other files. False: we end. Whoever looked when this fiber
 * was cancelled has heard of that, and here there is only no time left. */
static bool
pause_before_looking(struct supervisor *s, bool anything)
{
    struct err e = event_wait(s->rt, &s->site_taken, anything ? within(s->rt, WATCH_NS) : FOREVER);

    return !s->stopping && (!err_is(e) || e.kind == ERR_TIMEOUT);
}

/* Whoever renews certificates only replaces files. */
void
supervisor_watch_certificates(void *arg)
{
    struct supervisor *s = arg;
    uint64_t seen = certificates_version(s);

    while (pause_before_looking(s, s->site->certificate_count > 0)) {
        uint64_t now = certificates_version(s);
        if ((now == seen && !waits_for_some_certificate(s)) || s->stopping)
            continue;
        bool told;
        if (err_is(send_anew(s, ROLE_KEYS, false, now == seen ? send_missing_certificates : supervisor_send_certificates, &told)))
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

/* One that is gone is said, and not waited for: it shows when it comes. */
static bool
waits_for_users(const struct process *p)
{
    return err_is(p->users_unopened) && p->users_unopened.kind != ERR_NOT_FOUND;
}

struct err
supervisor_send_users(struct process *p)
{
    struct supervisor *s = p->s;
    struct handle handle = HANDLE_NONE;
    struct err former = p->users_unopened;

    p->users_unopened = OK;
    if (s->site->users.kind != USERS_FILE) /* any more, for a gate that drains */
        return OK;
    bool told = p->users_denied;
    struct err e = open_users(s, &handle);
    bool denied = err_is(e) && e.kind == ERR_DENIED;
    p->users_unopened = e;
    p->users_denied = denied && told;
    if (err_is(e) && (e.kind != former.kind || e.os != former.os || e.what != former.what)) /* not every other second */
        log_file(s, "users-not-opened", s->site->users.path, e);
    if (waits_for_users(p) && (told || !denied))
        return OK; /* what the gate has, it keeps; or it knows that there are none for use */
    int64_t until = within(s->rt, 5 * SECOND);
    if (!p->control)
        e = ERR(ERR_CLOSED, "pass the users file on");
    else if (handle_is_none(handle))
        e = link_send(p->control, CONTROL_USERS, S(""), until);
    else
        e = link_send_handles(p->control, CONTROL_USERS, S(""), &handle, 1, until);
    p->users_denied = denied && !err_is(e);
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

static bool
some_gate_waits(const struct supervisor *s)
{
    list_each (node, &s->processes)
        if (waits_for_users(container_of(node, struct process, node)))
            return true;
    return false;
}

void
supervisor_watch_users(void *arg)
{
    struct supervisor *s = arg;
    uint64_t seen = users_version(s);

    while (pause_before_looking(s, s->site->users.kind == USERS_FILE)) {
        uint64_t now = users_version(s);
        if ((now == seen && !some_gate_waits(s)) || s->stopping)
            continue;
        bool told;
        /* To those that drain too: who was taken out may not log in over an old session, who has a new password may. */
        if (err_is(send_anew(s, ROLE_GATE, true, supervisor_send_users, &told)))
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
    warn_if_others_read(s, path);
    size_t size = path.len + bytes.len + 16;
    unsigned char *memory = arena_alloc(scratch, size);
    struct put put = put_init(memory, size);
    put_bytes(&put, path);
    put_bytes(&put, str_trim_end(bytes)); /* editors end lines */
    e = p->control ? link_send(p->control, CONTROL_SECRET, put_str_so_far(&put), within(s->rt, 5 * SECOND))
                   : ERR(ERR_CLOSED, "pass a secret on");
    explicit_bzero(memory, size);
    explicit_bzero((char *)(uintptr_t)bytes.ptr, bytes.len);
    return e;
}

struct err
supervisor_send_secrets(struct process *p)
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
