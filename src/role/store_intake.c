/*
 * store_intake - messages on their way in. A receiver hands over a small one whole (SUBMIT), a longer one in pieces:
 * BEGIN, PUT and so on, COMMIT. Each call is answered by an error byte; after COMMIT or SUBMIT that byte is the 250.
 *
 * A draft belongs to the link it was begun on and dies with it. One call at a time for each draft.
 */
#include "role/store.h"

#include "base/check.h"

#include <string.h>

struct store_draft {
    struct list link;
    struct message_id id;
    struct draft *draft;
    uint64_t peer;
    bool busy;   /* a call for it is being answered */
    bool doomed; /* ABORT came meanwhile */
};

/* One call, in a fiber of its own; body is a copy, since the link's buffer goes on. */
struct intake {
    struct store *s;
    uint64_t peer;
    uint32_t call;
    uint16_t type;
    size_t len;
    char body[];
};

static struct str
key_of(const struct message_id *id)
{
    return str_new(id, sizeof *id);
}

static void
answer(struct intake *in, struct err e)
{
    unsigned char memory[1];
    struct put p = put_init(memory, sizeof memory);

    border_put_err(&p, e);
    role_reply(in->s->role, in->peer, in->call, in->type, put_str_so_far(&p));
}

static struct store_draft *
draft_of(struct intake *in, struct message_id id)
{
    struct store_draft *d = map_get(&in->s->drafts, key_of(&id));

    return d && d->peer == in->peer ? d : NULL;
}

static void
forget(struct store *s, struct store_draft *d)
{
    map_remove(&s->drafts, key_of(&d->id));
    list_remove(&d->link);
    mem_free(rt_mem(s->rt), d, sizeof *d);
}

static struct err
begin(struct intake *in, struct message_id id, uint64_t expected_size, struct store_draft **out)
{
    struct store *s = in->s;
    struct store_draft *d;

    if (s->drafts.count >= STORE_DRAFTS_MAX)
        return ERR(ERR_BUSY, "too many drafts");
    if (map_get(&s->drafts, key_of(&id)))
        return ERR(ERR_EXISTS, "draft");
    d = mem_new(rt_mem(s->rt), struct store_draft);
    *d = (struct store_draft){ .id = id, .peer = in->peer, .busy = true };
    map_put(&s->drafts, key_of(&d->id), d);
    list_push_back(&s->draft_list, &d->link);
    struct err e = s->ops->begin(s->spool, id, expected_size, FOREVER, &d->draft);
    d->busy = false;
    if (err_is(e)) {
        forget(s, d);
        return e;
    }
    *out = d;
    return OK;
}

static void
add_to_queue(struct store *s, struct message_id id, const struct envelope *envelope, struct recipient_status *statuses)
{
    struct spool_message m = { .id = id, .envelope = *envelope, .statuses = statuses };

    queue_add(s->queue, store_moment(s), &m);
    store_kick(s);
}

struct err
store_commit(struct store *s, struct draft *draft, struct message_id id, struct envelope *envelope,
             const struct spool_settle *settles)
{
    envelope->accepted_wall = rt_wall(s->rt);
    envelope->size = s->ops->draft_size(draft);
    struct err e = s->ops->commit(draft, envelope, NULL, settles, FOREVER);
    store_check_broken(s);
    if (!err_is(e))
        add_to_queue(s, id, envelope, NULL);
    return e;
}

/* The rest of SUBMIT and COMMIT: the draft has all its content. */
static void
commit(struct intake *in, struct store_draft *d, struct border_submit *submit)
{
    struct store *s = in->s;

    d->busy = true;
    submit->envelope.accepted_wall = rt_wall(s->rt);
    submit->envelope.size = s->ops->draft_size(d->draft);
    struct err e = s->ops->commit(d->draft, &submit->envelope, submit->statuses, NULL, FOREVER);
    store_check_broken(s);
    answer(in, e);
    fiber_yield(s->rt); /* the client need not wait until the queue has been thought about */
    if (!err_is(e))
        add_to_queue(s, d->id, &submit->envelope, submit->statuses);
    forget(s, d);
}

/* A spool that is being closed has dropped its drafts: who still calls for one sees the link close. */
static void
violation(struct intake *in)
{
    struct peer *peer = role_peer_by_serial(in->s->role, in->peer);

    if (peer && !in->s->ending)
        link_close(peer->link, ERR(ERR_PROTOCOL, "a draft's call makes no sense"));
}

static void
run_submit(struct intake *in, struct take *t)
{
    struct border_submit submit;
    struct store_draft *d = NULL;
    struct arena arena;

    arena_init(&arena, rt_mem(in->s->rt), 2048, 64 << 20);
    if (!border_take_submit(t, &arena, &submit) || submit.envelope.recipient_count == 0) {
        violation(in);
    } else if (in->type == BORDER_SUBMIT) {
        struct err e = begin(in, submit.id, submit.content.len, &d);
        if (!err_is(e) && submit.content.len) {
            d->busy = true;
            e = in->s->ops->put(d->draft, submit.content, FOREVER);
            if (err_is(e)) {
                in->s->ops->abort(d->draft);
                forget(in->s, d);
            }
        }
        if (err_is(e))
            answer(in, e);
        else
            commit(in, d, &submit);
    } else {
        d = draft_of(in, submit.id);
        if (!d || d->busy || submit.content.len)
            violation(in);
        else
            commit(in, d, &submit);
    }
    arena_done(&arena);
}

/* The link may have gone while the draft was busy, or the receiver given up; then nobody else ends it. */
static void
end_orphan(struct intake *in, struct store_draft *d)
{
    if (!d->doomed && role_peer_by_serial(in->s->role, in->peer))
        return;
    in->s->ops->abort(d->draft);
    forget(in->s, d);
}

static void
run_put(struct intake *in, struct take *t)
{
    struct store_draft *d = draft_of(in, border_take_id(t));

    if (t->bad || !d || d->busy) {
        violation(in);
        return;
    }
    d->busy = true;
    struct err e = in->s->ops->put(d->draft, t->rest, FOREVER);
    d->busy = false;
    answer(in, e);
    end_orphan(in, d);
}

static void
run_begin(struct intake *in, struct take *t)
{
    struct message_id id = border_take_id(t);
    uint64_t expected_size = take_u64(t);
    struct store_draft *d;

    if (!take_end(t)) {
        violation(in);
        return;
    }
    struct err e = begin(in, id, expected_size, &d);
    answer(in, e);
    if (!err_is(e))
        end_orphan(in, d);
}

static void
run_has(struct intake *in, struct take *t)
{
    struct message_id id = border_take_id(t);
    bool has = false;
    unsigned char byte;

    if (!take_end(t)) {
        violation(in);
        return;
    }
    in->s->ops->has(in->s->spool, id, FOREVER, &has);
    byte = has;
    role_reply(in->s->role, in->peer, in->call, in->type, str_new(&byte, 1));
}

static void
run_etrn(struct intake *in, struct take *t)
{
    struct str domain = take_bytes(t, LIMIT_DOMAIN);
    unsigned char memory[8];
    struct put p = put_init(memory, sizeof memory);

    if (!take_end(t)) {
        violation(in);
        return;
    }
    put_u64(&p, queue_start_domain(in->s->queue, store_moment(in->s), domain));
    role_reply(in->s->role, in->peer, in->call, in->type, put_str_so_far(&p));
    store_kick(in->s);
}

static const struct {
    uint16_t type;
    void (*run)(struct intake *, struct take *);
} calls[] = {
    { BORDER_SUBMIT, run_submit }, { BORDER_BEGIN, run_begin }, { BORDER_PUT, run_put },
    { BORDER_COMMIT, run_submit }, { BORDER_HAS, run_has },     { BORDER_ETRN, run_etrn },
};

static void
run_intake(void *arg)
{
    struct intake *in = arg;
    struct take t = take_init(str_new(in->body, in->len));

    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
        if (calls[i].type == in->type)
            calls[i].run(in, &t);
    mem_free(rt_mem(in->s->rt), in, sizeof *in + in->len);
}

static bool
drop_draft(struct store *s, struct peer *peer, struct str body)
{
    struct take t = take_init(body);
    struct message_id id = border_take_id(&t);
    struct store_draft *d = map_get(&s->drafts, key_of(&id));

    if (!take_end(&t))
        return false;
    if (!d || d->peer != peer->serial)
        return true;
    if (d->busy) {
        d->doomed = true;
        return true;
    }
    s->ops->abort(d->draft);
    forget(s, d);
    return true;
}

bool
store_intake_message(struct store *s, struct peer *peer, struct link_message *m)
{
    bool known = false;

    if (m->type == BORDER_ABORT)
        return m->call == 0 && drop_draft(s, peer, m->body);
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
        known |= calls[i].type == m->type;
    if (!known || m->call == 0)
        return false;
    struct intake *in = mem_buffer(rt_mem(s->rt), sizeof *in + m->body.len);
    *in = (struct intake){ .s = s, .peer = peer->serial, .call = m->call, .type = m->type, .len = m->body.len };
    memcpy(in->body, m->body.ptr, m->body.len);
    if (s->ending || s->failed) {
        answer(in, ERR(ERR_BUSY, "the store is ending"));
        mem_free(rt_mem(s->rt), in, sizeof *in + in->len);
        return true;
    }
    scope_start(&s->work, "intake", run_intake, in);
    return true;
}

/* Drafts of one peer, or all. A busy one is ended by its own fiber. */
static void
drop_drafts(struct store *s, const struct peer *peer)
{
    list_each_safe (node, &s->draft_list) {
        struct store_draft *d = container_of(node, struct store_draft, link);
        if ((peer && d->peer != peer->serial) || d->busy)
            continue;
        s->ops->abort(d->draft);
        forget(s, d);
    }
}

void
store_intake_peer_down(struct store *s, struct peer *peer)
{
    drop_drafts(s, peer);
}

void
store_intake_end(struct store *s)
{
    drop_drafts(s, NULL);
    CHECK(s->drafts.count == 0);
}

void
store_put_space(struct store *s, struct peer *peer)
{
    unsigned char memory[9];
    struct put p = put_init(memory, sizeof memory);

    if (peer->kind != ROLE_RECEIVER && peer->kind != ROLE_SUBMISSION)
        return;
    put_u8(&p, s->space_accepting);
    put_u64(&p, s->space_free);
    link_post(peer->link, BORDER_SPACE, put_str_so_far(&p));
}
