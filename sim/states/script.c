/* script - see states.h: the processes that use the spool. */
#include "sim/states/states.h"

#include "base/check.h"
#include "spool/verify.h"

#include <stdio.h>
#include <string.h>

enum { TEXT = 64, PIECE = 4000 };
#define QUIET_NS SECOND /* in it the last batch is proved, and the keeper does what is to be done */

const struct spool_settings states_settings = { .segment_bytes = SEGMENT_BYTES, .fresh_bytes_max = 1 << 20 };

static const struct str why_held = STR("somebody asked for it");

static bool
is_finished(struct sim *sim, void *arg)
{
    (void)sim;
    return *(const bool *)arg;
}

bool
run_over(struct sim *sim, struct disk *disk, int (*main)(struct rt *, void *), void *arg, const bool *finished)
{
    sim->disk = disk;
    sim->failed = false;
    process_start(sim, "spool", sim->home, main, arg);
    (void)sim_run(sim, FOREVER, is_finished, (void *)(uintptr_t)finished);
    list_each(node, &sim->processes) {
        struct process *p = container_of(node, struct process, node);
        if (!p->ended)
            process_kill(p, 256 + 9);
    }
    process_bury(sim);
    sim->disk = NULL;
    return !sim->failed;
}

/* ---- messages ---------------------------------------------------------------------------------------------------- */

struct letter { /* an envelope and its strings */
    struct envelope envelope;
    struct recipient recipients[RECIPIENTS_MAX];
    char from[TEXT], to[RECIPIENTS_MAX][TEXT];
};

static void
letter_write(struct letter *l, uint32_t number, uint32_t size, size_t recipients, bool notice)
{
    memset(l, 0, sizeof *l);
    (void)snprintf(l->from, sizeof l->from, "s%u.%u.%zu@a.example", number, size, recipients);
    l->envelope = (struct envelope){.reverse_path = notice ? S("") : str_from_cstr(l->from),
                                    .helo = S("client.example"),
                                    .envid = str_from_cstr(l->from),
                                    .client = S("192.0.2.1"),
                                    .session = S("s1"),
                                    .size = size,
                                    .accepted_wall = number,
                                    .notice = notice,
                                    .trace = S("Received: from client.example\r\n"),
                                    .recipients = l->recipients,
                                    .recipient_count = recipients};
    for (size_t i = 0; i < recipients; i++) {
        (void)snprintf(l->to[i], sizeof l->to[i], "r%u.%zu@b.example", number, i);
        l->recipients[i].address = str_from_cstr(l->to[i]);
    }
}

static struct err
put_content(struct rt *rt, struct draft *d, uint32_t number, uint32_t size)
{
    char *content = mem_alloc(rt_mem(rt), size);
    struct err e = OK;

    content_fill(number, content, size);
    for (size_t at = 0; at < size && !err_is(e); at += PIECE)
        e = spool_log_ops.put(d, str_slice(str_new(content, size), at, at + PIECE), FOREVER);
    mem_free(rt_mem(rt), content, size);
    return e;
}

struct settling { /* a settle and its strings */
    struct spool_settle settle;
    struct recipient_status statuses[RECIPIENTS_MAX];
    char reply[TEXT];
};

static void
settle_write(struct settling *s, const struct act *act)
{
    static const uint8_t states[ACT_KINDS] = { [ACT_DELIVER] = STATE_DELIVERED, [ACT_DELIVER_LAZY] = STATE_DELIVERED,
                                               [ACT_FAIL] = STATE_FAILED_SENT, [ACT_REMOVE] = STATE_REMOVED };

    *s = (struct settling){ .settle = { .id = id_of(act->target), .statuses = s->statuses } };
    if (act->kind == ACT_HOLD) {
        s->settle.set_held = true;
        s->settle.held = act->holds;
        s->settle.held_why = act->holds ? why_held : S("");
    }
    (void)snprintf(s->reply, sizeof s->reply, "%u", act->number);
    for (uint32_t i = 0; i < RECIPIENTS_MAX; i++)
        if (act->recipients >> i & 1)
            s->statuses[s->settle.count++] = (struct recipient_status){ .index = i, .state = states[act->kind],
                .attempts = act->attempts[i], .next_wall = act->kind == ACT_DEFER ? act->number : 0,
                .last_reply = str_from_cstr(s->reply), .last_remote = S("mx.example [192.0.2.2]:25") };
}

static struct err
accept(struct rt *rt, struct spool *spool, const struct act *act)
{
    const struct spool_ops *ops = &spool_log_ops;
    struct one m = one_of_act(act);
    struct letter *l = mem_new(rt_mem(rt), struct letter);
    struct settling s;
    struct draft *d;
    bool notice = act->kind == ACT_FAIL;

    if (act->kind == ACT_ABORT)
        m.size = 10000;
    letter_write(l, m.number, m.size, m.recipients, notice);
    if (notice)
        settle_write(&s, act);
    struct err e = notice ? ops->begin_notice(spool, id_of(m.number), m.size, FOREVER, &d)
                          : ops->begin(spool, id_of(m.number), m.size, FOREVER, &d);
    if (!err_is(e)) {
        e = put_content(rt, d, m.number, m.size);
        if (err_is(e) || act->kind == ACT_ABORT)
            ops->abort(d);
        else
            e = ops->commit(d, &l->envelope, NULL, notice ? &s.settle : NULL, FOREVER);
    }
    mem_free(rt_mem(rt), l, sizeof *l);
    return e;
}

struct err
script_act(struct rt *rt, struct spool *spool, struct act *act)
{
    struct settling s;
    struct err e;

    act->progress = ACT_UNDER_WAY;
    if (act_accepts(act->kind) || act->kind == ACT_ABORT) {
        e = accept(rt, spool, act);
    } else {
        settle_write(&s, act);
        e = spool_log_ops.settle(spool, &s.settle, act->kind == ACT_DELIVER_LAZY, FOREVER);
    }
    if (err_is(e) && !spool_log_ops.is_broken(spool))
        act->progress = ACT_REFUSED;
    else if (!err_is(e) && act->kind != ACT_DELIVER_LAZY)
        act->progress = ACT_DONE;
    return e;
}

/* ---- a workload -------------------------------------------------------------------------------------------------- */

struct recovering {
    struct rt *rt;
    bool ended;
    struct err err;
    struct event event;
    struct look *look; /* or NULL */
};

static void look_at_found(void *arg, const struct spool_message *);

static void
recovered(void *arg, struct err e)
{
    struct recovering *r = arg;

    r->ended = true;
    r->err = e;
    event_wake(r->rt, &r->event);
}

static struct err
open_and_recover(struct rt *rt, const struct spool_settings *settings, struct look *look, struct dir **dir,
                 struct spool **out)
{
    struct recovering r = { .rt = rt, .look = look };

    event_init(&r.event);
    TRY(dir_open(rt, S("/spool"), LANE_BACKGROUND, FOREVER, dir));
    TRY(spool_log_ops.open(rt, *dir, settings, out, FOREVER));
    TRY(spool_log_ops.recover(*out, look_at_found, recovered, &r, FOREVER));
    while (!r.ended)
        TRY(event_wait(rt, &r.event, FOREVER));
    return r.err;
}

static void
before_act(struct script *s, size_t nth)
{
    if (s->before_act)
        s->before_act(s->arg, nth);
}

struct beside {
    struct rt *rt;
    struct spool *spool;
    struct act *act;
};

static void
act_beside(void *arg)
{
    struct beside *b = arg;

    (void)script_act(b->rt, b->spool, b->act);
}

static void
do_at_once(struct rt *rt, struct spool *spool, struct script *s)
{
    struct beside beside[ACTS_MAX];
    struct scope scope;

    scope_init(&scope, rt);
    before_act(s, 0);
    for (size_t i = 0; i < s->model->count; i++) {
        s->model->acts[i].progress = act_choose(s->model, &s->model->acts[i]) ? ACT_UNDER_WAY : ACT_REFUSED;
        if (s->model->acts[i].progress == ACT_REFUSED)
            continue;
        beside[i] = (struct beside){ rt, spool, &s->model->acts[i] };
        scope_start(&scope, "act", act_beside, &beside[i]);
    }
    (void)scope_wait(&scope, FOREVER);
    scope_end(&scope);
}

static void
do_one_by_one(struct rt *rt, struct spool *spool, struct script *s)
{
    for (size_t i = 0; i < s->model->count && !spool_log_ops.is_broken(spool); i++) {
        before_act(s, i);
        if (act_choose(s->model, &s->model->acts[i]))
            (void)script_act(rt, spool, &s->model->acts[i]);
        else
            s->model->acts[i].progress = ACT_REFUSED;
    }
}

int
script_main(struct rt *rt, void *arg)
{
    struct script *s = arg;
    struct spool *spool;
    struct dir *dir;

    process_of(rt)->ends_at = s->ends_at;
    if (s->model->count == 0)
        before_act(s, 0);
    s->opened = !err_is(open_and_recover(rt, &states_settings, NULL, &dir, &spool));
    if (s->opened) {
        if (s->in_between)
            s->in_between(rt, spool, s);
        else if (s->model->at_once)
            do_at_once(rt, spool, s);
        else
            do_one_by_one(rt, spool, s);
        (void)rt_sleep(rt, within(rt, QUIET_NS));
        s->broken = spool_log_ops.is_broken(spool);
        if (!s->broken)
            spool_log_ops.close(spool, FOREVER);
        for (size_t i = 0; i < s->model->count && s->calm && !s->broken; i++)
            if (s->model->acts[i].kind == ACT_DELIVER_LAZY && s->model->acts[i].progress == ACT_UNDER_WAY)
                s->model->acts[i].progress = ACT_DONE;
    }
    s->allocations = process_of(rt)->allocations;
    s->finished = true;
    (void)rt_sleep(rt, FOREVER); /* killed here */
    return 0;
}

/* ---- a look ------------------------------------------------------------------------------------------------------ */

static void
complain(struct look *l, const char *what, uint32_t number)
{
    l->whole = false;
    if (l->problem[0])
        return;
    (void)snprintf(l->problem, sizeof l->problem, "%s (message %u)", what, number);
    l->number = number;
}

/* Is the envelope the one that was given? The envid says what the rest must be. */
static bool
same_letter(const struct spool_message *m, const struct one *one, struct letter *l)
{
    const struct envelope *is = &m->envelope, *was = &l->envelope;

    letter_write(l, one->number, one->size, one->recipients, is->notice);
    bool same = str_eq(is->envid, was->envid) && str_eq(is->reverse_path, was->reverse_path) && is->size == was->size &&
                str_eq(is->trace, was->trace) && is->recipient_count == was->recipient_count &&
                is->accepted_wall == was->accepted_wall;
    for (size_t i = 0; same && i < was->recipient_count; i++)
        same = str_eq(is->recipients[i].address, was->recipients[i].address) && m->statuses[i].index == i;
    return same;
}

static void
look_at_found(void *arg, const struct spool_message *m)
{
    struct recovering *r = arg;
    struct look *look = r->look;
    uint32_t number = number_of(m->id);
    uint64_t reply;

    if (!look)
        return;
    struct one one = { .number = number, .size = (uint32_t)m->envelope.size,
                       .recipients = (uint8_t)m->envelope.recipient_count, .held = m->held };
    struct letter *l = mem_new(rt_mem(r->rt), struct letter);
    if (!number || m->envelope.recipient_count > RECIPIENTS_MAX || !same_letter(m, &one, l))
        complain(look, "an envelope is not what it was", number);
    mem_free(rt_mem(r->rt), l, sizeof *l);
    if (m->held != str_eq(m->held_why, why_held))
        complain(look, "why it is held is not what it was", number);
    for (size_t i = 0; i < one.recipients && i < RECIPIENTS_MAX; i++) {
        const struct recipient_status *s = &m->statuses[i];
        if (s->last_reply.len > 0 && !str_to_u64(s->last_reply, &reply))
            complain(look, "a reply is not what it was", number);
        one.at[i].state = s->state;
        one.at[i].attempts = s->attempts;
        one.at[i].reply = s->last_reply.len > 0 ? (uint32_t)reply : 0;
    }
    if (view_find(&look->view, number))
        complain(look, "found twice", number);
    else if (look->view.count == MESSAGES_MAX)
        complain(look, "too many messages", number);
    else
        look->view.messages[look->view.count++] = one;
}

static void
read_content(struct rt *rt, struct spool *spool, struct look *look, const struct one *m)
{
    char *is = mem_alloc(rt_mem(rt), m->size + 1u), *was = mem_alloc(rt_mem(rt), m->size + 1u);
    size_t got = 0, part = 1;
    struct err e = OK;

    while (part > 0 && !err_is(e) && got <= m->size) {
        e = spool_log_ops.read(spool, id_of(m->number), got, is + got, m->size + 1 - got, FOREVER, &part);
        got += err_is(e) ? 0 : part;
    }
    content_fill(m->number, was, m->size);
    if (err_is(e))
        complain(look, "its content cannot be read", m->number);
    else if (got != m->size || memcmp(is, was, got) != 0)
        complain(look, "its content is not what it was", m->number);
    mem_free(rt_mem(rt), is, m->size + 1u);
    mem_free(rt_mem(rt), was, m->size + 1u);
}

static void
count_all(struct spool *spool, struct look *look)
{
    struct spool_counters c;
    struct spool_place places[MESSAGES_MAX + 1];
    uint64_t pending = 0;

    spool_log_ops.counters(spool, &c);
    look->view.accepted = c.accepted;
    look->view.delivered = c.delivered;
    look->view.failed = c.failed;
    look->view.removed = c.removed;
    look->quarantined = c.quarantined;
    for (size_t i = 0; i < look->view.count; i++)
        for (size_t k = 0; k < look->view.messages[i].recipients; k++)
            pending += look->view.messages[i].at[k].state == STATE_PENDING;
    if (c.pending != pending)
        complain(look, "the counters do not know who is pending", 0);
    if (spool_log_ops.scan(spool, 0, places, MESSAGES_MAX + 1) != look->view.count)
        complain(look, "a listing does not show what is there", 0);
    look->pending = pending;
}

/* When all is quiet: one that has ended, and whose DONE a crash took, is counted until it has another. */
static void
count_messages(struct spool *spool, struct look *look)
{
    struct spool_counters c;

    spool_log_ops.counters(spool, &c);
    if (c.messages != look->view.count + (look->then && look->then->progress == ACT_DONE))
        complain(look, "the counters do not know how many messages there are", 0);
}

static void
hear(void *arg, const struct spool_report *report)
{
    struct look *look = arg;

    look->damages += report->damage;
}

int
look_main(struct rt *rt, void *arg)
{
    struct look *look = arg;
    struct spool_settings settings = states_settings;
    struct spool *spool;
    struct dir *dir;

    settings.read_only = look->read_only;
    settings.segment_bytes = look->read_only ? 0 : settings.segment_bytes;
    settings.report = hear;
    settings.report_arg = look;
    look->whole = true;
    look->err = open_and_recover(rt, &settings, look, &dir, &spool);
    if (!err_is(look->err)) {
        for (size_t i = 0; i < look->view.count; i++)
            read_content(rt, spool, look, &look->view.messages[i]);
        count_all(spool, look);
        look->done = true;
        if (look->then)
            (void)script_act(rt, spool, look->then);
        if (!look->read_only)
            (void)rt_sleep(rt, within(rt, QUIET_NS));
        if (!look->read_only && !spool_log_ops.is_broken(spool))
            count_messages(spool, look);
    }
    look->finished = true;
    (void)rt_sleep(rt, FOREVER);
    return 0;
}

static void
keep_problem(void *arg, struct str line)
{
    struct verified *v = arg;

    if (!v->problem[0] && str_starts(line, S("problem")))
        (void)snprintf(v->problem, sizeof v->problem, "%.*s", STR_ARG(line));
}

int
verify_main(struct rt *rt, void *arg)
{
    struct verified *v = arg;
    struct spool_verify how = { .line = keep_problem, .arg = v };
    struct spool_verified out = { 0 };
    struct dir *dir;

    v->err = dir_open(rt, S("/spool"), LANE_BACKGROUND, FOREVER, &dir);
    if (!err_is(v->err))
        v->err = spool_verify(rt, dir, &how, FOREVER, &out);
    v->messages = out.messages;
    v->problems = out.problems;
    v->finished = true;
    (void)rt_sleep(rt, FOREVER);
    return 0;
}
