/*
 * link - see link.h.
 *
 * Two fibers a link: one reads and dispatches, one writes what is queued. `out` is a byte queue: frames are appended
 * whole, the writer takes all that is there at once. Invariant: a link is freed only when both fibers have ended and no
 * user's fiber is inside one of its functions.
 */
#include "link/link.h"

#include "base/check.h"
#include "link/frame.h"

#include <string.h>

enum { HEADER = LINK_HEADER, LINK_FLAGS = LINK_REPLY | LINK_MORE };
enum { HANDLES_SHIFT = 8 }; /* the upper byte of flags counts the descriptors that belong to the frame */
enum { READ_BUFFER = 2 * (LIMIT_FRAME_BODY + HEADER), HANDLES_HELD = 4 * RT_HANDLES_MAX };

struct waiter { /* a call that waits for its reply; lives on the caller's stack */
    struct list node;
    uint32_t call;
    struct arena *arena;
    struct str reply;
    struct err err;
    bool done;
    struct event answered;
};

struct link {
    struct rt *rt;
    struct stream *own_stream;
    struct link_settings settings;
    struct scope fibers;
    struct list waiters;
    uint32_t last_call;
    uint32_t asked;      /* calls of ours without a reply, also those whose caller gave up */
    uint32_t unanswered; /* calls of the other side that link_reply() has not answered */
    struct event fewer_asked;
    size_t users; /* fibers inside link_call() and the like: the link stays until they are out */
    bool open, hello_seen, freeing;
    struct err why;

    unsigned char *out; /* frames that the writer has not taken */
    size_t out_len, out_cap;
    unsigned char *writing; /* what it has taken */
    size_t writing_len, writing_cap;
    struct event to_write, written;

    unsigned char *in;
    size_t in_len;
    unsigned char *joined; /* a message that came in several frames */
    size_t joined_len;
    size_t joined_cap;
    struct handle handles[HANDLES_HELD];
    size_t handle_count;
};

/* ---- queueing ---- */

static void
forget(const struct link *l, unsigned char *bytes, size_t len)
{
    if (l->settings.forgets && len > 0)
        explicit_bzero(bytes, len);
}

static unsigned char *
grow(struct link *l, unsigned char *bytes, size_t old_cap, size_t cap)
{
    unsigned char *larger = mem_buffer(rt_mem(l->rt), cap); /* mem_resize() would zero it, and could leave a copy behind */

    if (old_cap > 0)
        memcpy(larger, bytes, old_cap);
    forget(l, bytes, old_cap);
    mem_free(rt_mem(l->rt), bytes, old_cap);
    return larger;
}

static void
out_reserve(struct link *l, size_t more)
{
    if (l->out_len + more <= l->out_cap)
        return;
    size_t cap = l->out_cap ? l->out_cap : 4096;
    while (cap < l->out_len + more)
        cap *= 2;
    l->out = grow(l, l->out, l->out_cap, cap);
    l->out_cap = cap;
}

static size_t
parts_len(const struct str *parts, size_t count)
{
    size_t len = 0;

    for (size_t i = 0; i < count; i++)
        len += parts[i].len;
    return len;
}

/* Appends the message as whole frames; a frame may take from several parts, and a part go on in the next frame. */
static void
queue_parts(struct link *l, uint16_t type, uint16_t flags, uint32_t call, const struct str *parts, size_t count)
{
    size_t left = parts_len(parts, count), part_at = 0;

    CHECK(left <= LINK_MESSAGE_MAX);
    do {
        size_t len = left < LIMIT_FRAME_BODY ? left : LIMIT_FRAME_BODY;
        left -= len;
        out_reserve(l, HEADER + len);
        struct put p = put_init(l->out + l->out_len, HEADER + len);
        put_u32(&p, (uint32_t)len);
        put_u16(&p, type);
        put_u16(&p, (uint16_t)(flags | (left ? LINK_MORE : 0)));
        put_u32(&p, call);
        while (len > 0) {
            struct str some = str_slice(*parts, part_at, part_at + len);
            put_raw(&p, some);
            len -= some.len;
            part_at += some.len;
            if (part_at == parts->len) {
                parts++;
                part_at = 0;
            }
        }
        CHECK(!p.full);
        l->out_len += p.len;
    } while (left);
    event_wake_one(l->rt, &l->to_write);
}

static void
queue_message(struct link *l, uint16_t type, uint16_t flags, uint32_t call, struct str body)
{
    queue_parts(l, type, flags, call, &body, 1);
}

size_t
link_unsent(const struct link *l)
{
    return l->out_len + l->writing_len;
}

/* ---- ending ---- */

static void
end_calls(struct link *l)
{
    list_each_safe (node, &l->waiters) {
        struct waiter *w = container_of(node, struct waiter, node);
        list_remove(node);
        w->done = true;
        w->err = ERR(ERR_UNKNOWN, "link closed in the middle of a call");
        event_wake(l->rt, &w->answered);
    }
}

void
link_close(struct link *l, struct err why)
{
    if (!l->open)
        return;
    l->open = false;
    l->why = why;
    end_calls(l);
    event_wake(l->rt, &l->fewer_asked);
    event_wake(l->rt, &l->to_write);
    event_wake(l->rt, &l->written);
    scope_cancel(&l->fibers);
}

/* ---- writing ---- */

static void
run_writer(void *arg)
{
    struct link *l = arg;

    while (l->open) {
        if (l->out_len == 0 || l->writing_len > 0) { /* the second: link_send_handles() is writing */
            if (err_is(event_wait(l->rt, &l->to_write, FOREVER)))
                break;
            continue;
        }
        unsigned char *empty = l->writing;
        size_t empty_cap = l->writing_cap;
        l->writing = l->out, l->writing_len = l->out_len, l->writing_cap = l->out_cap;
        l->out = empty, l->out_len = 0, l->out_cap = empty_cap;
        struct err e = stream_write(l->own_stream, str_new(l->writing, l->writing_len), FOREVER);
        forget(l, l->writing, l->writing_len);
        l->writing_len = 0;
        if (err_is(e)) {
            link_close(l, e);
            break;
        }
        if (l->writing_cap > 4 * LIMIT_FRAME_BODY) { /* a burst's buffer is not kept */
            mem_free(rt_mem(l->rt), l->writing, l->writing_cap);
            l->writing = NULL;
            l->writing_cap = 0;
        }
        event_wake(l->rt, &l->written);
    }
}

/* ---- reading ---- */

static void
call_ended(struct link *l)
{
    CHECK(l->asked > 0);
    l->asked--;
    event_wake_one(l->rt, &l->fewer_asked);
}

static struct err
take_reply(struct link *l, const struct frame *f, struct str body)
{
    if (l->asked == 0 || (int32_t)(l->last_call - f->call) < 0) /* call numbers wrap */
        return ERR(ERR_PROTOCOL, "link: a reply to a call that was not made");
    call_ended(l);
    list_each (node, &l->waiters) {
        struct waiter *w = container_of(node, struct waiter, node);
        if (w->call != f->call)
            continue;
        if (body.len > w->arena->max - w->arena->used)
            return ERR(ERR_LIMIT, "link: a reply is longer than this border allows");
        list_remove(node);
        w->done = true;
        w->reply = arena_keep(w->arena, body);
        event_wake(l->rt, &w->answered);
        break;
    } /* if nobody waits: the caller gave up */
    return OK;
}

/* Joins the frames of one message. *out_whole is set when f was its last. */
static struct err
join(struct link *l, const struct frame *f, struct str *out_whole)
{
    if (l->joined_len + f->body.len > LINK_MESSAGE_MAX)
        return ERR(ERR_LIMIT, "link: a message is too long");
    if (!(f->flags & LINK_MORE) && l->joined_len == 0) {
        *out_whole = f->body;
        return OK;
    }
    if (l->joined_len + f->body.len > l->joined_cap) {
        size_t cap = l->joined_cap ? l->joined_cap : 2 * LIMIT_FRAME_BODY;
        while (cap < l->joined_len + f->body.len)
            cap *= 2;
        l->joined = grow(l, l->joined, l->joined_cap, cap);
        l->joined_cap = cap;
    }
    memcpy(l->joined + l->joined_len, f->body.ptr, f->body.len);
    l->joined_len += f->body.len;
    if (!(f->flags & LINK_MORE)) {
        *out_whole = str_new(l->joined, l->joined_len);
        l->joined_len = 0;
    }
    return OK;
}

static void
drop_handles(struct link *l)
{
    while (l->handle_count > 0)
        handle_close(l->rt, l->handles[--l->handle_count]);
}

static struct err
take_message(struct link *l, const struct frame *f, struct str body)
{
    uint32_t calls_max = l->settings.calls_max ? l->settings.calls_max : LINK_CALLS_MAX;

    if (f->call && ++l->unanswered > calls_max)
        return ERR(ERR_LIMIT, "link: too many calls at once");
    struct handle mine[UINT8_MAX];
    struct link_message m = { f->type, f->call, body, mine, f->handles };
    for (size_t i = 0; i < f->handles; i++)
        mine[i] = l->handles[i];
    l->handle_count -= f->handles;
    for (size_t i = 0; i < l->handle_count; i++)
        l->handles[i] = l->handles[i + f->handles];
    bool fine = l->settings.handle(l->settings.ctx, l, &m);
    for (size_t i = 0; i < m.handle_count; i++) /* a handler that takes them sets the count to 0 */
        handle_close(l->rt, mine[i]);
    return fine ? OK : ERR(ERR_PROTOCOL, "link: a message breaks the rules of this border");
}

/* What join() made whole was taken. */
static void
drop_joined(struct link *l, size_t len)
{
    forget(l, l->joined, len);
    if (l->joined_cap > 4 * LIMIT_FRAME_BODY) { /* one long message's buffer is not kept */
        mem_free(rt_mem(l->rt), l->joined, l->joined_cap);
        l->joined = NULL;
        l->joined_cap = 0;
    }
}

static struct err
take_frame(struct link *l, const struct frame *f)
{
    struct str body = { NULL, 0 };

    if (f->flags & ~LINK_FLAGS || ((f->flags & LINK_REPLY) && f->call == 0))
        return ERR(ERR_PROTOCOL, "link: bad flags");
    if ((f->flags & LINK_MORE) && f->body.len == 0)
        return ERR(ERR_PROTOCOL, "link: an empty part of a message");
    if (f->handles > l->handle_count || (f->handles > 0 && f->flags))
        return ERR(ERR_PROTOCOL, "link: descriptors are missing");
    if (!l->hello_seen) {
        TRY(frame_check_hello(f));
        l->hello_seen = true;
        if (l->settings.opened)
            l->settings.opened(l->settings.ctx, l);
        return OK;
    }
    TRY(join(l, f, &body));
    if (str_is_absent(body))
        return OK;
    struct err e = f->flags & LINK_REPLY ? take_reply(l, f, body) : take_message(l, f, body);
    if (body.ptr != f->body.ptr)
        drop_joined(l, body.len);
    return e;
}

/* Dispatches all whole frames of l->in and moves the rest to the front. */
static struct err
take_frames(struct link *l)
{
    struct str rest = str_new(l->in, l->in_len);
    struct frame f;
    bool whole = true;

    while (l->open && whole) {
        TRY(frame_take(&rest, &f, &whole));
        if (whole)
            TRY(take_frame(l, &f));
    }
    memmove(l->in, rest.ptr, rest.len);
    forget(l, l->in + rest.len, l->in_len - rest.len);
    l->in_len = rest.len;
    return OK;
}

static struct err
read_more(struct link *l)
{
    size_t room = READ_BUFFER - l->in_len, got, handles = 0;

    if (!l->settings.takes_handles) {
        TRY(stream_read(l->own_stream, l->in + l->in_len, room, FOREVER, &got));
    } else {
        if (l->handle_count + RT_HANDLES_MAX > HANDLES_HELD)
            return ERR(ERR_LIMIT, "link: too many descriptors at once");
        TRY(stream_read_handles(l->own_stream, l->in + l->in_len, room, l->handles + l->handle_count, &handles, FOREVER,
                                &got));
        l->handle_count += handles;
    }
    if (got == 0)
        return ERR(ERR_CLOSED, "link");
    l->in_len += got;
    return OK;
}

static void
run_reader(void *arg)
{
    struct link *l = arg;

    while (l->open) {
        struct err e = read_more(l);
        if (!err_is(e))
            e = take_frames(l);
        if (err_is(e))
            link_close(l, e);
    }
    if (!l->freeing && l->settings.closed)
        l->settings.closed(l->settings.ctx, l, l->why);
}

/* ---- the border's side ---- */

struct link *
link_on_stream(struct stream *stream, const struct link_settings *settings)
{
    struct rt *rt = stream_rt(stream);
    struct link *l = mem_new(rt_mem(rt), struct link);
    l->rt = rt;
    l->own_stream = stream;
    l->settings = *settings;
    l->open = true;
    list_init(&l->waiters);
    event_init(&l->to_write);
    event_init(&l->written);
    event_init(&l->fewer_asked);
    l->in = mem_buffer(rt_mem(rt), READ_BUFFER);
    out_reserve(l, HEADER + 80);
    struct put hello = put_init(l->out, l->out_cap);
    frame_put_hello(&hello);
    l->out_len = hello.len;
    scope_init(&l->fibers, rt);
    scope_start(&l->fibers, "link reader", run_reader, l);
    scope_start(&l->fibers, "link writer", run_writer, l);
    return l;
}

struct err
link_open(struct rt *rt, struct handle handle, const struct link_settings *settings, struct link **out)
{
    struct stream *stream;

    TRY(stream_from_handle(rt, handle, &stream));
    *out = link_on_stream(stream, settings);
    return OK;
}

void
link_free(struct link *l)
{
    struct mem *mem = rt_mem(l->rt);

    l->freeing = true;
    link_close(l, ERR(ERR_CLOSED, "link: closed by us"));
    scope_end(&l->fibers);
    while (l->users > 0)
        fiber_yield(l->rt);
    drop_handles(l);
    stream_close(l->own_stream);
    forget(l, l->in, l->in_len);
    mem_free(mem, l->in, READ_BUFFER);
    forget(l, l->out, l->out_len);
    mem_free(mem, l->out, l->out_cap);
    mem_free(mem, l->writing, l->writing_cap);
    forget(l, l->joined, l->joined_len);
    mem_free(mem, l->joined, l->joined_cap);
    mem_free(mem, l, sizeof *l);
}

static void
run_free(void *arg)
{
    link_free(arg);
}

void
link_free_later(struct link *l)
{
    l->freeing = true;
    link_close(l, ERR(ERR_CLOSED, "link: closed by us"));
    fiber_start(l->rt, "link free", run_free, l);
}

bool
link_is_open(const struct link *l)
{
    return l->open;
}

static struct err
wait_for_room(struct link *l, size_t most, int64_t until)
{
    struct err e = OK;

    l->users++;
    while (l->open && link_unsent(l) > most && !err_is(e))
        e = event_wait(l->rt, &l->written, until);
    l->users--;
    return err_is(e) ? e : l->open ? OK : ERR(ERR_CLOSED, "link");
}

/* The other side takes one call too many for a violation, and its end would be that of all others. */
static struct err
call_begin(struct link *l, int64_t until)
{
    uint32_t most = l->settings.asked_max ? l->settings.asked_max : LINK_CALLS_MAX;
    struct err e = OK;

    l->users++;
    while (l->open && l->asked >= most && !err_is(e))
        e = event_wait(l->rt, &l->fewer_asked, until);
    l->users--;
    if (!err_is(e) && !l->open)
        e = ERR(ERR_CLOSED, "link");
    l->asked += !err_is(e);
    return e;
}

struct err
link_call(struct link *l, uint16_t type, struct str body, struct arena *arena, int64_t until, struct str *out_reply)
{
    return link_call_parts(l, type, &body, 1, arena, until, out_reply);
}

struct err
link_call_parts(struct link *l, uint16_t type, const struct str *parts, size_t count, struct arena *arena,
                int64_t until, struct str *out_reply)
{
    struct waiter w = { .arena = arena };

    TRY(call_begin(l, until));
    struct err room = wait_for_room(l, LINK_UNSENT_MAX, until);
    if (err_is(room)) {
        if (l->asked > 0) /* replies to what was answered long ago may have taken it away */
            call_ended(l);
        return room;
    }
    event_init(&w.answered);
    if (++l->last_call == 0)
        l->last_call = 1;
    w.call = l->last_call;
    list_push_back(&l->waiters, &w.node);
    queue_parts(l, type, 0, w.call, parts, count);
    while (!w.done) {
        struct err e = event_wait(l->rt, &w.answered, until);
        if (err_is(e) && !w.done) {
            list_remove(&w.node);
            return e;
        }
    }
    if (err_is(w.err))
        return w.err;
    *out_reply = w.reply;
    return OK;
}

struct err
link_send(struct link *l, uint16_t type, struct str body, int64_t until)
{
    TRY(wait_for_room(l, LINK_UNSENT_MAX, until));
    queue_message(l, type, 0, 0, body);
    return OK;
}

void
link_post(struct link *l, uint16_t type, struct str body)
{
    if (l->open)
        queue_message(l, type, 0, 0, body);
}

struct err
link_flush(struct link *l, int64_t until)
{
    return wait_for_room(l, 0, until);
}

/*
 * Descriptors travel with the bytes they are sent with, so all that is queued must be written before, and nothing may
 * be queued behind our back meanwhile: the writer is idle while out is empty, and this fiber writes in its place.
 */
struct err
link_send_handles(struct link *l, uint16_t type, struct str body, const struct handle *handles, size_t count,
                  int64_t until)
{
    unsigned char frame[HEADER + 5000];
    struct put p = put_init(frame, sizeof frame);

    CHECK(body.len <= sizeof frame - HEADER && count > 0 && count <= RT_HANDLES_MAX);
    TRY(wait_for_room(l, 0, until));
    frame_put(&p, type, (uint16_t)(count << HANDLES_SHIFT), 0, body);
    /* writing_len marks the stream as busy for other senders of handles; the writer's own frames would follow whole. */
    l->writing_len = p.len;
    l->users++;
    struct err e = stream_write_handles(l->own_stream, put_str_so_far(&p), handles, count, until);
    l->users--;
    l->writing_len = 0;
    if (err_is(e)) /* perhaps half a frame: nothing behind it could be read */
        link_close(l, e);
    event_wake(l->rt, &l->written);
    event_wake_one(l->rt, &l->to_write);
    return e;
}

void
link_reply(struct link *l, uint32_t call, uint16_t type, struct str body)
{
    CHECK(call != 0);
    if (!l->open)
        return;
    CHECK(l->unanswered > 0);
    l->unanswered--;
    if (link_unsent(l) > LINK_REPLIES_MAX) { /* not to read from it either could be what it waits for */
        link_close(l, ERR(ERR_LIMIT, "the peer does not read its replies"));
        return;
    }
    queue_message(l, type, LINK_REPLY, call, body);
}
