/*
 * supervisor_links - links between two processes: each that starts is linked to all that are there already, and a link that
 * breaks while both live is made anew.
 */
#include "role/supervisor_own.h"

#define RELINK_NS (1 * SECOND)

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
    { ROLE_SENDER, ROLE_FETCH },     { ROLE_FETCH, ROLE_RESOLVER },  { ROLE_GATE, ROLE_FETCH },
};

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

/* One that drains begins nothing new; but its sessions and deliveries may go on for long, and need the others. */
static bool
takes_links(const struct process *p)
{
    return p->linked && !p->stopping;
}

void
supervisor_link_to_all(struct process *p)
{
    list_each (node, &p->s->processes) {
        struct process *other = container_of(node, struct process, node);
        if (other != p && takes_links(other) && are_peers(p, other))
            link_processes(p, other);
    }
}

static bool
is_there(const struct supervisor *s, const struct process *p, uint32_t pid)
{
    list_each (node, &s->processes)
        if (container_of(node, struct process, node) == p)
            return p->pid == pid && takes_links(p);
    return false;
}

static void
run_relink(void *arg)
{
    struct tie *tie = arg;
    struct supervisor *s = tie->s;

    /* Not at once: a process that sends nonsense must not keep us busy. */
    if (!err_is(rt_sleep(s->rt, within(s->rt, RELINK_NS))) && !err_is(supervisor_begin_starting(s))) {
        if (is_there(s, tie->a, tie->pid_a) && is_there(s, tie->b, tie->pid_b))
            link_processes(tie->a, tie->b);
        supervisor_end_starting(s);
    }
    mem_free(rt_mem(s->rt), tie, sizeof *tie);
}

bool
supervisor_hear_unlinked(struct process *p, struct link_message *m)
{
    struct take t = take_init(m->body);
    struct tie *tie = find_tie(p->s, take_u32(&t));

    if (m->call != 0 || !take_end(&t))
        return false;
    if (tie && (tie->a == p || tie->b == p)) /* else the other one said so first */
        relink_later(p->s, tie);
    return true;
}

void
supervisor_drop_ties(struct process *p)
{
    list_each_safe (node, &p->s->ties) {
        struct tie *tie = container_of(node, struct tie, node);
        if (tie->a != p && tie->b != p)
            continue;
        list_remove(node);
        mem_free(rt_mem(p->s->rt), tie, sizeof *tie);
    }
}
