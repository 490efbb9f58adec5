/*
 * net - handles, streams and listeners.
 *
 * A connection has two ends; what one writes lies in the other's pipe: bytes in order, of which those up to `arrived` can
 * be read. Pieces under way arrive by an event each, never out of order within a connection, at any time relative to
 * other connections. An end of the stream and a reset travel behind the bytes.
 *
 *     written                 arrived                  read
 *        |.......pieces under way|.........unread........|
 *
 * Links between roles (Unix sockets) lose nothing and are fast, but may be cut by the death of a process.
 */
#include "sim/sim.h"

#include "base/check.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { BACKLOG = 128, FIRST_HANDLE = 3 };
#define TCP_GIVES_UP (15 * MINUTE)    /* of data that nobody acknowledges: Linux's tcp_retries2 */
#define CONNECT_GIVES_UP (127 * SECOND)

struct piece { /* under way */
    struct list node;
    int64_t due;
    uint64_t upto;           /* counted from the beginning of the stream */
    bool end, reset;
};

struct gift { /* handles beside a byte */
    struct list node;
    uint64_t at, upto;       /* of the bytes that were written with them */
    struct object *objects[RT_HANDLES_MAX];
    size_t count;
};

struct pipe {
    char *bytes;
    size_t cap;              /* a power of two */
    uint64_t written, arrived, read;
    struct list pieces, gifts;
    struct sim_event arrival;
    int64_t last_due, blocked_since;
    bool end_sent, ended;    /* no more bytes will come; and that has arrived */
    bool broken;             /* a reset has arrived */
};

struct end {
    struct object object;
    struct connection *connection;
    struct pipe in;
    struct address address;
    struct host *host;
    struct stream *user;
    struct peer_credentials credentials; /* of whoever made it */
    bool closed;             /* no handle any more */
    bool gone;               /* its machine lost power: it knows of nothing, and says so only when asked */
    int error;               /* errno that the next call gives */
};

struct connection {
    struct list node;        /* sim->connections */
    struct sim *sim;
    struct end ends[2];
    bool is_unix;
    bool dead;               /* packets go nowhere: half-open */
};

struct stream {
    struct list node;        /* process->streams */
    struct process *process;
    struct end *end;
    struct fiber *reader, *writer;
};

struct door { /* a listening socket */
    struct object object;
    struct list node;        /* sim->listeners */
    struct address address;
    struct host *host;
    struct end *waiting[BACKLOG];
    size_t count;
    struct list users;       /* struct listener */
};

struct listener {
    struct list node, in_door;
    struct process *process;
    struct door *door;
    struct fiber *acceptor;
};

/* ---- hosts ------------------------------------------------------------------------------------------------------- */

struct host *
host_new(struct sim *sim, const char *name, const char *ip)
{
    struct host *h = mem_new(&sim->mem, struct host);

    CHECK(address_from_ip(str_from_cstr(ip), &h->address));
    (void)snprintf(h->name, sizeof h->name, "%s", name);
    list_push_back(&sim->hosts, &h->node);
    return h;
}

struct host *
host_find(struct sim *sim, const struct address *address)
{
    list_each(node, &sim->hosts) {
        struct host *h = container_of(node, struct host, node);
        if (address_same_ip(&h->address, address))
            return h;
    }
    return NULL;
}

/* Until when no packet passes between them; 0: it does. */
static int64_t
cut_until(const struct sim *sim, const struct host *a, const struct host *b)
{
    int64_t until = a->down_until > b->down_until ? a->down_until : b->down_until;

    return until > sim->now ? until : 0;
}

/* ---- handles ----------------------------------------------------------------------------------------------------- */

struct handle
object_give(struct process *p, struct object *o)
{
    int32_t number = FIRST_HANDLE;

    while (number < p->handles_top && p->handles[number])
        number++;
    CHECK(number < HANDLES_MAX);
    p->handles[number] = o;
    if (number >= p->handles_top) {
        for (int32_t i = p->handles_top; i < number; i++)
            p->handles[i] = NULL;
        p->handles_top = number + 1;
    }
    return (struct handle){ number };
}

struct object *
object_of(struct process *p, struct handle h)
{
    CHECK(h.number >= 0 && h.number < p->handles_top && p->handles[h.number]); /* else EBADF: ours */
    return p->handles[h.number];
}

struct object *
object_take(struct process *p, struct handle h)
{
    struct object *o = object_of(p, h);

    p->handles[h.number] = NULL;
    return o;
}

void
object_release(struct object *o)
{
    CHECK(o->refs > 0);
    if (--o->refs > 0)
        return;
    switch ((enum object_kind)o->kind) {
    case OBJECT_STREAM:
        stream_object_end(o);
        break;
    case OBJECT_LISTENER:
        listener_object_end(o);
        break;
    case OBJECT_FILE:
        file_object_end(o);
        break;
    }
}

void
handle_close(struct rt *rt, struct handle h)
{
    if (!handle_is_none(h))
        object_release(object_take(process_of(rt), h));
}

/* ---- bytes under way --------------------------------------------------------------------------------------------- */

static struct end *
other(struct end *e)
{
    return &e->connection->ends[e == &e->connection->ends[0]];
}

static struct end *
end_of_pipe(struct pipe *p)
{
    return container_of(p, struct end, in);
}

static void
wake_reader(struct end *e)
{
    if (e->user && e->user->reader)
        sched_wake(e->user->reader, ERR_NONE);
}

static void
wake_writer(struct end *e)
{
    if (e->user && e->user->writer)
        sched_wake(e->user->writer, ERR_NONE);
}

static void
break_end(struct end *e, int error)
{
    e->in.broken = true;
    if (!e->error)
        e->error = error;
    wake_reader(e);
    wake_writer(e);
}

static void
free_pieces(struct sim *sim, struct pipe *p)
{
    while (!list_is_empty(&p->pieces)) {
        struct piece *piece = container_of(p->pieces.next, struct piece, node);
        list_remove(&piece->node);
        mem_free(&sim->mem, piece, sizeof *piece);
    }
    sim_stop_event(sim, &p->arrival);
}

static void
free_gifts(struct sim *sim, struct pipe *p)
{
    while (!list_is_empty(&p->gifts)) {
        struct gift *g = container_of(p->gifts.next, struct gift, node);
        list_remove(&g->node);
        for (size_t i = 0; i < g->count; i++)
            object_release(g->objects[i]);
        mem_free(&sim->mem, g, sizeof *g);
    }
}

/* Both ends are closed: nobody can see it any more. */
static void
connection_free(struct connection *c)
{
    struct sim *sim = c->sim;

    list_remove(&c->node);
    for (int i = 0; i < 2; i++) {
        free_pieces(sim, &c->ends[i].in);
        free_gifts(sim, &c->ends[i].in);
        mem_free(&sim->mem, c->ends[i].in.bytes, c->ends[i].in.cap);
    }
    mem_free(&sim->mem, c, sizeof *c);
}

static void
schedule(struct sim *sim, struct pipe *p)
{
    struct piece *first = list_is_empty(&p->pieces) ? NULL : container_of(p->pieces.next, struct piece, node);

    if (first && !heap_has(&p->arrival.node))
        sim_at(sim, &p->arrival, first->due);
}

static void send_piece(struct end *to, uint64_t upto, bool end, bool reset);

static void
piece_arrives(struct sim *sim, struct end *e, struct piece *piece)
{
    struct pipe *p = &e->in;

    sim_note(sim, NULL, "arrives", piece->upto, (uint64_t)(piece->end | piece->reset << 1));
    p->arrived = piece->upto;
    if (piece->reset) {
        break_end(e, ECONNRESET);
        return;
    }
    p->ended |= piece->end;
    if (e->closed && !piece->end && !e->connection->is_unix) /* for a socket that is not there any more */
        send_piece(other(e), other(e)->in.written, false, true);
    wake_reader(e);
}

/* Packets that cannot pass are sent again and again, for a while. */
static void
pieces_arrive(struct sim *sim, struct sim_event *event)
{
    struct pipe *p = container_of(event, struct pipe, arrival);
    struct end *to = end_of_pipe(p), *from = other(to);
    int64_t blocked = to->connection->is_unix ? 0 : to->connection->dead ? FOREVER : cut_until(sim, to->host, from->host);

    if (from->gone) {
        free_pieces(sim, p);
        return;
    }
    if (to->gone && !blocked) { /* the machine is back and has never heard of this */
        free_pieces(sim, p);
        if (!from->gone)
            break_end(from, ECONNRESET);
        return;
    }
    if (blocked) {
        if (p->blocked_since == 0)
            p->blocked_since = sim->now;
        if (sim->now - p->blocked_since >= TCP_GIVES_UP) {
            free_pieces(sim, p);
            break_end(from, ETIMEDOUT);
            return;
        }
        int64_t end = p->blocked_since + TCP_GIVES_UP;
        sim_at(sim, &p->arrival, blocked < end ? blocked + dice_between(sim, 0, 30 * SECOND) : end);
        return;
    }
    p->blocked_since = 0;
    while (!list_is_empty(&p->pieces)) {
        struct piece *piece = container_of(p->pieces.next, struct piece, node);
        if (piece->due > sim->now)
            break;
        list_remove(&piece->node);
        piece_arrives(sim, to, piece);
        mem_free(&sim->mem, piece, sizeof *piece);
    }
    schedule(sim, p);
}

static int64_t
delay_of(struct sim *sim, const struct end *to)
{
    if (to->connection->is_unix)
        return (int64_t)dice_below(sim, 40000);
    int64_t delay = dice_between(sim, sim->net.delay_min, sim->net.delay_max);
    if (dice_chance(sim, sim->net.loss))
        delay += 200 * MILLISECOND << dice_below(sim, 5);
    if (to->host->slow)
        delay += dice_between(sim, 0, 2 * SECOND);
    return delay;
}

static void
send_piece(struct end *to, uint64_t upto, bool end, bool reset)
{
    struct sim *sim = to->connection->sim;
    struct pipe *p = &to->in;
    struct piece *piece = mem_new(&sim->mem, struct piece);

    *piece = (struct piece){ .due = sim->now + delay_of(sim, to), .upto = upto, .end = end, .reset = reset };
    if (piece->due < p->last_due)
        piece->due = p->last_due;
    p->last_due = piece->due;
    list_push_back(&p->pieces, &piece->node);
    schedule(sim, p);
}

static size_t
window_of(const struct end *e)
{
    const struct sim *sim = e->connection->sim;

    return e->connection->is_unix ? sim->net.unix_window : sim->net.window;
}

static void
pipe_reserve(struct sim *sim, struct pipe *p, size_t need)
{
    size_t cap = p->cap ? p->cap : 1024, unread = (size_t)(p->written - p->read);

    while (cap < need)
        cap *= 2;
    if (cap == p->cap)
        return;
    char *bytes = mem_alloc(&sim->mem, cap);
    for (size_t i = 0; i < unread;) { /* the ring's parts, each to its place in the larger one */
        uint64_t at = p->read + i;
        size_t old = (size_t)at & (p->cap - 1), new = (size_t)at & (cap - 1), run = p->cap - old;
        if (run > cap - new)
            run = cap - new;
        if (run > unread - i)
            run = unread - i;
        memcpy(bytes + new, p->bytes + old, run);
        i += run;
    }
    mem_free(&sim->mem, p->bytes, p->cap);
    p->bytes = bytes;
    p->cap = cap;
}

/* As much of it as the window takes. */
static size_t
push(struct end *from, struct str bytes)
{
    struct end *to = other(from);
    struct sim *sim = to->connection->sim;
    struct pipe *p = &to->in;
    size_t under_way = (size_t)(p->written - p->read), window = window_of(to);
    size_t len = under_way >= window ? 0 : window - under_way < bytes.len ? window - under_way : bytes.len;

    if (len == 0)
        return 0;
    pipe_reserve(sim, p, under_way + len);
    for (size_t i = 0; i < len;) {
        size_t at = (size_t)(p->written + i) & (p->cap - 1), run = p->cap - at < len - i ? p->cap - at : len - i;
        memcpy(p->bytes + at, bytes.ptr + i, run);
        i += run;
    }
    uint32_t most = to->connection->is_unix ? 0 : to->host->slow || from->host->slow ? 7 : sim->net.piece_max;
    for (size_t left = len; left > 0;) {
        size_t piece = most && left > most ? 1 + (size_t)dice_below(sim, most) : left;
        p->written += piece;
        left -= piece;
        send_piece(to, p->written, false, false);
    }
    return len;
}

/* ---- streams ----------------------------------------------------------------------------------------------------- */

static struct connection *
connection_new(struct sim *sim, bool is_unix)
{
    struct connection *c = mem_new(&sim->mem, struct connection);

    c->sim = sim;
    c->is_unix = is_unix;
    list_push_back(&sim->connections, &c->node);
    for (int i = 0; i < 2; i++) {
        struct end *e = &c->ends[i];
        e->object = (struct object){ OBJECT_STREAM, 1, sim };
        e->connection = c;
        list_init(&e->in.pieces);
        list_init(&e->in.gifts);
        e->in.arrival.due = pieces_arrive;
    }
    return c;
}

static struct stream *
stream_of(struct process *p, struct end *e)
{
    struct stream *s = process_alloc_new(p, struct stream);

    *s = (struct stream){ .process = p, .end = e };
    CHECK(!e->user);
    e->user = s;
    list_push_back(&p->streams, &s->node);
    return s;
}

/* The last handle is closed, by its owner or by the owner's death. */
void
stream_object_end(struct object *o)
{
    struct end *e = container_of(o, struct end, object), *peer = other(e);
    struct sim *sim = o->sim;

    e->closed = true;
    free_gifts(sim, &e->in);
    if (!peer->closed && !e->gone) {
        bool unread = e->in.arrived > e->in.read;
        if (!peer->in.end_sent)
            send_piece(peer, peer->in.written, !unread || e->connection->is_unix, unread && !e->connection->is_unix);
        peer->in.end_sent = true;
        wake_writer(peer);
        return;
    }
    if (peer->closed)
        connection_free(e->connection);
}

void
stream_close(struct stream *s)
{
    struct process *p = s->process;
    struct end *e = s->end;

    process_step(p);
    if (s->reader)
        sched_wake(s->reader, ERR_CLOSED);
    if (s->writer)
        sched_wake(s->writer, ERR_CLOSED);
    list_remove(&s->node);
    e->user = NULL;
    mem_free(&p->mem, s, sizeof *s);
    object_release(&e->object);
}

void
stream_reset(struct stream *s)
{
    struct end *peer = other(s->end);

    if (!peer->closed && !peer->in.end_sent) {
        send_piece(peer, peer->in.written, false, true);
        peer->in.end_sent = true;
    }
    stream_close(s);
}

void
stream_shut_down(struct stream *s)
{
    struct end *peer = other(s->end);

    process_step(s->process);
    if (peer->in.end_sent)
        return;
    peer->in.end_sent = true;
    send_piece(peer, peer->in.written, true, false);
}

struct err
stream_from_handle(struct rt *rt, struct handle handle, struct stream **out)
{
    struct process *p = process_of(rt);
    int error = faults_call(p, CALL_TAKE);
    struct object *o = object_take(p, handle);

    CHECK(o->kind == OBJECT_STREAM);
    if (error) {
        object_release(o);
        return err_from_os(error, "take over a socket");
    }
    *out = stream_of(p, container_of(o, struct end, object));
    return OK;
}

struct err
stream_pair(struct rt *rt, struct handle out[2])
{
    struct process *p = process_of(rt);

    process_step(p);
    if (faults_no_files(p->sim))
        return err_from_os(EMFILE, "make a socket pair");
    int error = faults_call(p, CALL_PAIR);
    if (error)
        return err_from_os(error, "make a socket pair");
    struct connection *c = connection_new(p->sim, true);
    for (int i = 0; i < 2; i++) {
        c->ends[i].address.family = ADDRESS_UNIX;
        c->ends[i].host = p->host;
        c->ends[i].credentials = (struct peer_credentials){ p->pid, p->uid, p->gid };
        out[i] = object_give(p, &c->ends[i].object);
    }
    return OK;
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

static struct err
wait_for(struct stream *s, struct fiber **waiter, int64_t until, const char *what)
{
    CHECK(!*waiter);
    *waiter = s->process->rt.running;
    struct err e = sched_park(&s->process->rt, until, what);
    if (e.kind != ERR_CLOSED)
        *waiter = NULL;
    return e;
}

static bool
is_readable(const struct end *e)
{
    return e->in.arrived > e->in.read || e->in.ended || e->in.broken || e->error;
}

/* Bytes up to the next handles, or those that came with them. */
static size_t
readable_now(struct end *e, struct gift **out_gift)
{
    struct pipe *p = &e->in;
    uint64_t stop = p->arrived;

    *out_gift = NULL;
    if (!list_is_empty(&p->gifts)) {
        struct gift *g = container_of(p->gifts.next, struct gift, node);
        if (g->at > p->read)
            stop = g->at < stop ? g->at : stop;
        else {
            *out_gift = g;
            stop = g->upto < stop ? g->upto : stop;
        }
    }
    return (size_t)(stop - p->read);
}

static struct err
try_read(struct stream *s, void *memory, size_t cap, struct handle *handles, size_t *out_count, size_t *out_len)
{
    struct end *e = s->end;
    struct sim *sim = s->process->sim;
    struct pipe *p = &e->in;
    struct gift *gift;
    size_t len = readable_now(e, &gift);

    if (len == 0) {
        if (e->error) {
            int error = e->error;
            return err_from_os(error, "read");
        }
        *out_len = 0;
        return p->ended ? OK : ERR(ERR_BUSY, "read");
    }
    if (len > cap)
        len = cap;
    if (len > 1 && dice_chance(sim, 20)) /* a signal, a memory limit: reads may always be short */
        len = 1 + (size_t)dice_below(sim, len);
    for (size_t i = 0; i < len;) {
        size_t at = (size_t)(p->read + i) & (p->cap - 1), run = p->cap - at < len - i ? p->cap - at : len - i;
        memcpy((char *)memory + i, p->bytes + at, run);
        i += run;
    }
    bool was_full = p->written - p->read >= window_of(e);
    p->read += len;
    if (was_full)
        wake_writer(other(e));
    if (gift) { /* whoever does not ask for handles, or has no room for them, loses them */
        bool no_room = handles && faults_call(s->process, CALL_HANDLES);
        list_remove(&gift->node);
        for (size_t i = 0; i < gift->count; i++) {
            if (handles && !no_room)
                handles[(*out_count)++] = object_give(s->process, gift->objects[i]);
            else
                object_release(gift->objects[i]);
        }
        mem_free(&sim->mem, gift, sizeof *gift);
    }
    *out_len = len;
    sim_note(sim, s->process, "read", len, p->read);
    return OK;
}

/* An error that the watch wants. One of the connection is its end, for both sides. */
static struct err
planted_error(struct stream *s, enum seam_call tcp, enum seam_call unix_socket, const char *what)
{
    struct end *e = s->end, *peer = other(e);
    int error = faults_call(s->process, e->connection->is_unix ? unix_socket : tcp);

    if (!error)
        return OK;
    if (error == ECONNRESET || error == EPIPE || error == ETIMEDOUT) {
        if (!peer->closed && !peer->in.end_sent)
            send_piece(peer, peer->in.written, false, true);
        peer->in.end_sent = true;
        break_end(e, error);
    }
    return err_from_os(error, what);
}

static struct err
read_some(struct stream *s, void *memory, size_t cap, struct handle *handles, size_t *out_count, int64_t until,
          size_t *out_len)
{
    struct rt *rt = &s->process->rt;
    struct err e;

    CHECK(cap > 0);
    TRY(sched_enter(rt));
    process_step(s->process);
    TRY(planted_error(s, CALL_RECEIVE, CALL_LINK_RECEIVE, "read"));
    while ((e = try_read(s, memory, cap, handles, out_count, out_len)).kind == ERR_BUSY)
        TRY(wait_for(s, &s->reader, until, "read"));
    sched_spend(rt);
    return e;
}

struct err
stream_read(struct stream *s, void *memory, size_t cap, int64_t until, size_t *out_len)
{
    return read_some(s, memory, cap, NULL, NULL, until, out_len);
}

struct err
stream_read_handles(struct stream *s, void *memory, size_t cap, struct handle *handles, size_t *out_count,
                    int64_t until, size_t *out_len)
{
    *out_count = 0;
    return read_some(s, memory, cap, handles, out_count, until, out_len);
}

struct err
stream_read_now(struct stream *s, void *memory, size_t cap, size_t *out_len)
{
    size_t len = 0;

    CHECK(cap > 0);
    TRY(planted_error(s, CALL_RECEIVE, CALL_LINK_RECEIVE, "read"));
    struct err e = try_read(s, memory, cap, NULL, NULL, &len);
    if (e.kind == ERR_BUSY) {
        *out_len = 0;
        return OK;
    }
    if (!err_is(e) && len == 0)
        return ERR(ERR_CLOSED, "read");
    TRY(e);
    *out_len = len;
    return OK;
}

struct err
stream_wait_readable(struct stream *s, int64_t until)
{
    TRY(sched_enter(&s->process->rt));
    while (!is_readable(s->end))
        TRY(wait_for(s, &s->reader, until, "read"));
    return OK;
}

/* In one thread nobody could answer meanwhile. */
struct err
stream_hold_readable(struct stream *s, int64_t ns)
{
    (void)ns;
    return is_readable(s->end) ? OK : ERR(ERR_TIMEOUT, "wait for an answer");
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

static struct err
try_write(struct stream *s, struct str bytes, const struct handle *handles, size_t handle_count, size_t *out_len)
{
    struct end *e = s->end, *to = other(e);
    struct sim *sim = s->process->sim;

    if (e->error)
        return err_from_os(e->error, "write");
    if (to->in.end_sent)
        return err_from_os(EPIPE, "write");
    if (to->closed && e->connection->is_unix)
        return err_from_os(EPIPE, "write");
    if (e->in.broken)
        return err_from_os(EPIPE, "write");
    uint64_t at = to->in.written;
    struct gift *gift = NULL;
    if (handle_count) {
        gift = mem_new(&sim->mem, struct gift);
        for (size_t i = 0; i < handle_count; i++) {
            struct object *o = object_of(s->process, handles[i]);
            o->refs++;
            gift->objects[gift->count++] = o;
        }
        gift->at = at;
        list_push_back(&to->in.gifts, &gift->node);
    }
    size_t len = push(e, bytes);
    if (gift) {
        gift->upto = to->in.written;
        if (len == 0) {
            list_remove(&gift->node);
            for (size_t i = 0; i < gift->count; i++)
                object_release(gift->objects[i]);
            mem_free(&sim->mem, gift, sizeof *gift);
        }
    }
    *out_len = len;
    sim_note(sim, s->process, "write", len, to->in.written);
    return len == 0 && bytes.len > 0 ? ERR(ERR_BUSY, "write") : OK;
}

static struct err
write_all(struct stream *s, struct str bytes, const struct handle *handles, size_t handle_count, int64_t until)
{
    while (bytes.len > 0) {
        size_t len = 0;
        process_step(s->process);
        struct err e = try_write(s, bytes, handles, handle_count, &len);
        if (e.kind == ERR_BUSY) {
            TRY(wait_for(s, &s->writer, until, "write"));
            continue;
        }
        TRY(e);
        handle_count = 0;
        bytes = str_from(bytes, len);
    }
    return OK;
}

struct err
stream_write(struct stream *s, struct str bytes, int64_t until)
{
    struct rt *rt = &s->process->rt;

    TRY(sched_enter(rt));
    TRY(planted_error(s, CALL_SEND, CALL_LINK_SEND, "write"));
    TRY(write_all(s, bytes, NULL, 0, until));
    sched_spend(rt);
    return OK;
}

struct err
stream_write_parts(struct stream *s, const struct str *parts, size_t count, int64_t until)
{
    struct rt *rt = &s->process->rt;

    TRY(sched_enter(rt));
    TRY(planted_error(s, CALL_SEND, CALL_LINK_SEND, "write"));
    for (size_t i = 0; i < count; i++)
        TRY(write_all(s, parts[i], NULL, 0, until));
    sched_spend(rt);
    return OK;
}

struct err
stream_write_handles(struct stream *s, struct str bytes, const struct handle *handles, size_t count, int64_t until)
{
    struct rt *rt = &s->process->rt;

    CHECK(bytes.len > 0);
    CHECK(count <= RT_HANDLES_MAX);
    TRY(sched_enter(rt));
    TRY(planted_error(s, CALL_SEND, CALL_LINK_SEND, "write"));
    TRY(write_all(s, bytes, handles, count, until));
    sched_spend(rt);
    return OK;
}

struct err
stream_write_now(struct stream *s, struct str bytes, size_t *out_len)
{
    size_t len = 0;

    process_step(s->process);
    TRY(planted_error(s, CALL_SEND, CALL_LINK_SEND, "write"));
    struct err e = try_write(s, bytes, NULL, 0, &len);
    if (err_is(e) && e.kind != ERR_BUSY)
        return e;
    *out_len = len;
    return OK;
}

struct err
stream_wait_writable(struct stream *s, int64_t until)
{
    TRY(sched_enter(&s->process->rt));
    return wait_for(s, &s->writer, until, "write");
}

/* ---- what a stream knows ----------------------------------------------------------------------------------------- */

struct address
stream_peer(const struct stream *s)
{
    return other(s->end)->address;
}

struct address
stream_local(const struct stream *s)
{
    return s->end->address;
}

void
stream_set_buffers(struct stream *s, size_t send_bytes, size_t receive_bytes)
{
    (void)s;
    (void)send_bytes;
    (void)receive_bytes;
}

struct rt *
stream_rt(const struct stream *s)
{
    return &s->process->rt;
}

bool
stream_peer_credentials(const struct stream *s, struct peer_credentials *out)
{
    if (!s->end->connection->is_unix)
        return false;
    *out = other(s->end)->credentials;
    return true;
}

/* ---- listeners --------------------------------------------------------------------------------------------------- */

static struct door *
find_door(struct sim *sim, const struct address *a)
{
    list_each(node, &sim->listeners) {
        struct door *d = container_of(node, struct door, node);
        if (address_eq(&d->address, a))
            return d;
    }
    return NULL;
}

static struct err
listener_of(struct process *p, struct door *d, struct listener **out)
{
    struct listener *l = process_alloc_new(p, struct listener);

    *l = (struct listener){ .process = p, .door = d };
    list_push_back(&p->listeners, &l->node);
    list_push_back(&d->users, &l->in_door);
    *out = l;
    return OK;
}

struct err
listener_open(struct rt *rt, const struct address *at, struct listener **out)
{
    struct process *p = process_of(rt);
    struct sim *sim = p->sim;
    struct door *there = find_door(sim, at);

    process_step(p);
    if (faults_no_files(sim) && !p->is_peer)
        return err_from_os(EMFILE, "make a socket");
    int error = faults_call(p, CALL_LISTEN);
    if (error)
        return err_from_os(error, "listen");
    if (at->family == ADDRESS_IPV6) /* as with ipv6.disable=1 */
        return err_from_os(EAFNOSUPPORT, "make a socket");
    if (there && at->family != ADDRESS_UNIX)
        return err_from_os(EADDRINUSE, "bind");
    if (there) /* its name is taken away; whoever has it open keeps it */
        there->address.family = ADDRESS_NONE;
    struct door *d = mem_new(&sim->mem, struct door);
    d->object = (struct object){ OBJECT_LISTENER, 1, sim };
    d->address = *at;
    d->host = p->host;
    list_init(&d->users);
    list_push_back(&sim->listeners, &d->node);
    return listener_of(p, d, out);
}

struct err
listener_from_handle(struct rt *rt, struct handle handle, struct listener **out)
{
    int error = faults_call(process_of(rt), CALL_TAKE);
    struct object *o = object_take(process_of(rt), handle);

    CHECK(o->kind == OBJECT_LISTENER);
    if (error) {
        object_release(o);
        return err_from_os(error, "take over a listener");
    }
    return listener_of(process_of(rt), container_of(o, struct door, object), out);
}

struct handle
listener_handle(struct rt *rt, struct listener *l)
{
    if (faults_call(process_of(rt), CALL_DUPLICATE))
        return HANDLE_NONE;
    l->door->object.refs++;
    return object_give(process_of(rt), &l->door->object);
}

struct address
listener_address(const struct listener *l)
{
    return l->door->address;
}

void
listener_object_end(struct object *o)
{
    struct door *d = container_of(o, struct door, object);

    for (size_t i = 0; i < d->count; i++) /* never accepted: reset */
        object_release(&d->waiting[i]->object);
    list_remove(&d->node);
    mem_free(&o->sim->mem, d, sizeof *d);
}

void
listener_close(struct listener *l)
{
    struct door *d = l->door;

    process_step(l->process);
    if (l->acceptor)
        sched_wake(l->acceptor, ERR_CLOSED);
    list_remove(&l->node);
    list_remove(&l->in_door);
    mem_free(&l->process->mem, l, sizeof *l);
    object_release(&d->object);
}

struct err
listener_accept(struct listener *l, int64_t until, struct stream **out, struct address *out_peer)
{
    struct process *p = l->process;
    struct rt *rt = &p->rt;

    TRY(sched_enter(rt));
    process_step(p);
    while (l->door->count == 0) {
        CHECK(!l->acceptor);
        l->acceptor = rt->running;
        struct err e = sched_park(rt, until, "accept");
        if (e.kind == ERR_CLOSED)
            return e;
        l->acceptor = NULL;
        TRY(e);
    }
    if (faults_no_files(p->sim) && !p->is_peer)
        return err_from_os(EMFILE, "accept");
    int error = faults_call(p, CALL_ACCEPT);
    if (error)
        return err_from_os(error, "accept");
    struct door *d = l->door;
    struct end *e = d->waiting[0];
    memmove(d->waiting, d->waiting + 1, --d->count * sizeof d->waiting[0]);
    *out = stream_of(p, e);
    if (out_peer)
        *out_peer = other(e)->address;
    sim_note(p->sim, p, "accept", other(e)->address.port, 0);
    sched_spend(rt);
    return OK;
}

/* Of those that wait, one is woken. */
static void
wake_acceptor(struct sim *sim, struct door *d)
{
    struct listener *waiting[32];
    size_t count = 0;

    list_each(node, &d->users) {
        struct listener *l = container_of(node, struct listener, in_door);
        if (l->acceptor && count < sizeof waiting / sizeof *waiting)
            waiting[count++] = l;
    }
    if (count)
        sched_wake(waiting[dice_below(sim, count)]->acceptor, ERR_NONE);
}

/* ---- connecting -------------------------------------------------------------------------------------------------- */

/* Where the SYN would arrive; NULL and an errno. */
static struct door *
knock(struct sim *sim, const struct address *to, int *out_errno)
{
    struct door *d = find_door(sim, to);

    *out_errno = d ? 0 : to->family == ADDRESS_UNIX ? ENOENT : ECONNREFUSED;
    if (d && d->count == BACKLOG)
        *out_errno = EAGAIN;
    return d;
}

static struct err
connect_there(struct process *p, const struct address *to, const struct address *from, struct host *there,
              struct stream **out)
{
    struct sim *sim = p->sim;
    int error;
    struct door *d = knock(sim, to, &error);

    if (error)
        return err_from_os(error, "connect");
    struct connection *c = connection_new(sim, to->family == ADDRESS_UNIX);
    c->ends[0].address = from ? *from : p->host->address;
    c->ends[0].host = p->host;
    c->ends[1].address = *to;
    c->ends[1].host = there;
    c->ends[0].credentials = (struct peer_credentials){ p->pid, p->uid, p->gid };
    if (to->family == ADDRESS_UNIX)
        c->ends[0].address = (struct address){ .family = ADDRESS_UNIX };
    else
        c->ends[0].address.port = (uint16_t)(sim->next_port = sim->next_port >= 60000 ? 40000 : sim->next_port + 1);
    d->waiting[d->count++] = &c->ends[1];
    wake_acceptor(sim, d);
    *out = stream_of(p, &c->ends[0]);
    sim_note(sim, p, "connect", to->port, c->ends[0].address.port);
    return OK;
}

struct err
stream_connect(struct rt *rt, const struct address *to, const struct address *from, int64_t until, struct stream **out)
{
    struct process *p = process_of(rt);
    struct sim *sim = p->sim;
    int64_t give_up = rt->now + CONNECT_GIVES_UP;

    TRY(sched_enter(rt));
    process_step(p);
    if (faults_no_files(sim) && !p->is_peer)
        return err_from_os(EMFILE, "make a socket");
    int error = faults_call(p, CALL_CONNECT);
    if (error)
        return err_from_os(error, "connect");
    if (to->family == ADDRESS_UNIX)
        return connect_there(p, to, NULL, p->host, out);
    struct host *there = host_find(sim, to);
    for (int64_t wait = SECOND;; wait *= 2) {
        int64_t trip = dice_between(sim, 2 * sim->net.delay_min, 2 * sim->net.delay_max);
        bool passes = there && !cut_until(sim, p->host, there) && !dice_chance(sim, sim->net.loss);
        int64_t next = rt->now + (passes ? trip : wait);
        if (next > give_up)
            next = give_up;
        if (next > until) {
            TRY(rt_sleep(rt, until));
            return ERR(ERR_TIMEOUT, "connect");
        }
        TRY(rt_sleep(rt, next));
        if (passes && !cut_until(sim, p->host, there))
            return connect_there(p, to, from, there, out);
        if (rt->now >= give_up)
            return err_from_os(ETIMEDOUT, "connect");
    }
}

/* ---- faults ------------------------------------------------------------------------------------------------------ */

static bool
is_open(const struct connection *c)
{
    return !c->is_unix && !c->dead && !c->ends[0].closed && !c->ends[1].closed && !c->ends[0].gone && !c->ends[1].gone;
}

size_t
net_connections(const struct sim *sim)
{
    size_t count = 0;

    list_each(node, &sim->connections)
        count += is_open(container_of(node, struct connection, node));
    return count;
}

size_t
net_outside(const struct process *p)
{
    size_t count = 0;

    list_each(node, &p->streams)
        count += !container_of(node, struct stream, node)->end->connection->is_unix;
    return count;
}

void
net_break(struct sim *sim, size_t nth, bool silently)
{
    list_each(node, &sim->connections) {
        struct connection *c = container_of(node, struct connection, node);
        if (!is_open(c) || nth-- > 0)
            continue;
        if (silently) {
            c->dead = true;
            return;
        }
        for (int i = 0; i < 2; i++) {
            free_pieces(sim, &c->ends[i].in);
            if (dice_chance(sim, 500)) { /* what had not been read is gone as well */
                c->ends[i].in.arrived = c->ends[i].in.read;
            }
            break_end(&c->ends[i], ECONNRESET);
        }
        return;
    }
}

void
net_lose_home(struct sim *sim)
{
    list_each(node, &sim->connections) {
        struct connection *c = container_of(node, struct connection, node);
        for (int i = 0; i < 2; i++)
            if (!c->is_unix && c->ends[i].host == sim->home) {
                c->ends[i].gone = true;
                free_pieces(sim, &c->ends[!i].in); /* what was still under way from there: perhaps it had left, perhaps not */
            }
    }
}

void
net_close_all(struct process *p)
{
    while (!list_is_empty(&p->streams)) {
        struct stream *s = container_of(p->streams.next, struct stream, node);
        list_remove(&s->node);
        s->end->user = NULL;
        object_release(&s->end->object);
    }
    while (!list_is_empty(&p->listeners)) {
        struct listener *l = container_of(p->listeners.next, struct listener, node);
        list_remove(&l->node);
        list_remove(&l->in_door);
        object_release(&l->door->object);
        /* What was accepted by nobody waits for whoever still listens. */
    }
}

void
net_free(struct sim *sim)
{
    while (!list_is_empty(&sim->connections))
        connection_free(container_of(sim->connections.next, struct connection, node));
    CHECK(list_is_empty(&sim->listeners));
}
