/*
 * mailbox - delivers into Maildirs as one user of this machine, below the directories that the supervisor opened.
 * As many at a time as the store gives it (LIMIT_DELIVERIES), each on a disk thread of the runtime's.
 */
#include "base/check.h"
#include "deliver/maildir.h"
#include "role/ask.h"
#include "role/border.h"
#include "role/role.h"

#include <string.h>

enum { ARENA_MAX = 64 << 20 };

#define DELIVER_NS (10 * MINUTE)

struct base {
    struct str name; /* "anna /var/mail" */
    struct maildir_base *own_maildirs;
};

struct mailbox {
    struct role *role;
    struct base bases[ROLE_DIRS_MAX];
    size_t base_count, running;
    bool ended; /* takes no more: the store finds its call unanswered, and does it elsewhere */
    struct scope jobs;
};

struct task {
    struct mailbox *mailbox;
    uint64_t store;
    uint32_t call;
    struct arena arena;
    struct border_job job;
    size_t len;
    char body[];
};

static struct err
read_content(void *arg, uint64_t offset, void *memory, size_t len, int64_t until, size_t *out_len)
{
    struct task *t = arg;

    return ask_job_content(t->mailbox->role, t->store, &t->job, offset, memory, len, until, out_len);
}

/* The store that gave this job; another one gives it anew. */
static bool
is_awaited(void *arg)
{
    struct task *t = arg;

    return role_peer_by_serial(t->mailbox->role, t->store) != NULL;
}

static struct maildir_base *
base_named(const struct mailbox *b, struct str name)
{
    for (size_t i = 0; i < b->base_count; i++)
        if (str_eq(b->bases[i].name, name))
            return b->bases[i].own_maildirs;
    return NULL;
}

/* False: its store is gone. What is left of the job is the next store's to give. */
static bool
deliver(struct task *t, struct outcome *outcomes)
{
    struct mailbox *b = t->mailbox;
    struct rt *rt = b->role->rt;
    struct maildir_base *base = base_named(b, t->job.base);

    for (size_t i = 0; i < t->job.envelope.recipient_count; i++) {
        if (!is_awaited(t))
            return false;
        struct maildir_place place = { .base = base, .pattern = t->job.mailboxes[i], .domain = S("-"), .mailbox = S("-"),
                                       .host = t->job.helo, .quota = t->job.quota };
        struct maildir_message message = { &t->job.envelope, &t->job.envelope.recipients[i], t->job.id, t->job.indices[i],
                                           read_content, is_awaited, t };
        if (base)
            outcomes[i] = maildir_deliver(rt, &place, &message, &t->arena, within(rt, DELIVER_NS));
        else
            outcomes[i] = (struct outcome){ .kind = OUTCOME_DEFERRED, .about = OUTCOME_ABOUT_DESTINATION,
                                            .enhanced = S("4.3.5"), .remote = S(""),
                                            .reply = S("the configuration changed; the mailbox's directory is not open yet") };
    }
    return true;
}

static bool
do_task(struct task *t)
{
    struct take take = take_init(str_new(t->body, t->len));
    struct role *role = t->mailbox->role;
    struct delivery_figures figures = { 0 };
    int64_t began = rt_now(role->rt);

    if (!border_take_job(&take, &t->arena, &t->job) || t->job.kind != DELIVERY_MAILDIR || !t->job.mailboxes ||
        t->job.envelope.recipient_count == 0)
        return false;
    size_t count = t->job.envelope.recipient_count;
    struct outcome *outcomes = arena_alloc(&t->arena, count * sizeof *outcomes);
    if (!deliver(t, outcomes))
        return true;
    figures.transfer = rt_now(role->rt) - began;
    size_t size = border_outcomes_size(outcomes, count);
    struct put p = put_init(arena_alloc(&t->arena, size), size);
    put_u8(&p, 1);
    border_put_figures(&p, &figures);
    border_put_outcomes(&p, outcomes, count);
    CHECK(!p.full);
    role_reply(role, t->store, t->call, BORDER_DELIVER, put_str_so_far(&p));
    return true;
}

static void
run_task(void *arg)
{
    struct task *t = arg;
    struct role *role = t->mailbox->role;
    bool fine = do_task(t);
    struct peer *store = role_peer_by_serial(role, t->store);

    if (!fine && store)
        link_close(store->link, ERR(ERR_PROTOCOL, "a job makes no sense"));
    t->mailbox->running--;
    event_wake(role->rt, &role->changed);
    arena_done(&t->arena);
    mem_free(rt_mem(role->rt), t, sizeof *t + t->len);
}

static bool
message(struct role *role, struct peer *peer, struct link_message *m)
{
    struct mailbox *b = role->ctx;

    if (peer->kind != ROLE_STORE || m->call == 0 || m->type != BORDER_DELIVER)
        return false;
    if (b->ended)
        return true;
    struct task *t = mem_alloc(rt_mem(role->rt), sizeof *t + m->body.len);
    t->mailbox = b;
    t->store = peer->serial;
    t->call = m->call;
    t->len = m->body.len;
    memcpy(t->body, m->body.ptr, m->body.len);
    arena_init(&t->arena, rt_mem(role->rt), 8192, ARENA_MAX);
    b->running++;
    scope_start(&b->jobs, "delivery", run_task, t);
    return true;
}

/* "mail anna" and "/var/mail" make "anna /var/mail". */
static void
prepare(struct role *role)
{
    struct mailbox *b = mem_new(rt_mem(role->rt), struct mailbox);

    role->ctx = b;
    b->role = role;
    scope_init(&b->jobs, role->rt);
    for (size_t i = 0; i < role->dir_count; i++) {
        struct str user = role->dirs[i].purpose;
        struct base *base = &b->bases[b->base_count];
        struct dir *dir;
        if (!str_take(&user, S("mail ")) || err_is(dir_from_handle(role->rt, role->dirs[i].handle, &dir)))
            continue;
        base->own_maildirs = mem_new(rt_mem(role->rt), struct maildir_base);
        maildir_base_init(base->own_maildirs, dir);
        base->name = arena_printf(&role->arena, "%.*s %.*s", STR_ARG(user), STR_ARG(role->dirs[i].path));
        b->base_count++;
    }
}

static void
run(struct role *role)
{
    struct mailbox *b = role->ctx;

    role_wait_for_end(role);
    while (b->running > 0 && !role->control_lost)
        if (err_is(event_wait(role->rt, &role->changed, FOREVER)))
            break;
    b->ended = true;
    scope_end(&b->jobs);
}

static void
sandbox(struct role *role, struct sandbox_rules *rules)
{
    rules->calls = SANDBOX_FILES;
    for (size_t i = 0; i < role->dir_count; i++)
        role->paths[rules->path_count++] =
            (struct sandbox_path){ .handle = role->dirs[i].handle, .access = SANDBOX_READ | SANDBOX_WRITE };
    rules->paths = role->paths;
    rules->renames_between_dirs = true;
}

const struct role_ops mailbox_ops = {
    .kind = ROLE_MAILBOX, .prepare = prepare, .sandbox = sandbox, .run = run, .message = message
};
