/* world - see world.h. */
#include "world.h"

#include "base/arena.h"
#include "base/check.h"
#include "dns/resolver.h"
#include "net/https.h"
#include "runtime/host.h"
#include "runtime/log_sink.h"
#include "runtime/notify.h"
#include "runtime/sandbox.h"
#include "runtime/sched.h"
#include "runtime/terminal.h"

#include <stdlib.h>
#include <string.h>

#define WALL_AT_START (INT64_C(1750000000) * SECOND)

struct listener {
    struct rt *rt;
    struct address address;
    struct list waiting; /* far ends that were not accepted yet */
    struct event came;
};

static struct world {
    struct rt rt;
    struct mem mem;        /* the role's heap */
    struct mem own_mem;    /* the scheduler's: kept from one input to the next */
    int64_t now;
    struct prng prng;
    struct log_sink log;
    struct listener *listener; /* the only one */
    bool made;
} world;
struct world_rules world_rules;

/* ---- clock, randomness, log -------------------------------------------------------------------------------------- */

static int64_t
clock_now(struct rt *rt)
{
    (void)rt;
    return world.now;
}

int64_t
rt_wall(struct rt *rt)
{
    (void)rt;
    return WALL_AT_START + world.now;
}

uint64_t
rt_random(struct rt *rt)
{
    (void)rt;
    return prng_u64(&world.prng);
}

/* The role's heap knows its blocks, so that it can be dropped whole. */
struct block {
    _Alignas(16) struct list in_heap;
    size_t size;
};
static struct list heap = { &heap, &heap };

static void *
heap_resize(struct mem *mem, void *ptr, size_t old_size, size_t new_size)
{
    struct block *b = ptr ? (struct block *)ptr - 1 : NULL;

    if (b) {
        CHECK(b->size == old_size);
        list_remove(&b->in_heap);
    }
    mem->in_use += new_size - old_size;
    if (new_size == 0) {
        free(b);
        return NULL;
    }
    b = realloc(b, sizeof *b + new_size);
    CHECK(b);
    if (new_size > old_size)
        memset((char *)(b + 1) + old_size, 0, new_size - old_size);
    b->size = new_size;
    list_push_back(&heap, &b->in_heap);
    return b + 1;
}

static void
heap_drop(void)
{
    list_each_safe(node, &heap)
        free(container_of(node, struct block, in_heap));
    list_init(&heap);
    world.mem.in_use = 0;
}

static bool
log_put(struct log_sink *sink, struct str line)
{
    (void)sink;
    CHECK(line.len > 1 && line.ptr[line.len - 1] == '\n');
    for (size_t i = 0; i + 1 < line.len; i++) /* a stranger cannot forge a line, or steer a terminal */
        CHECK((unsigned char)line.ptr[i] >= ' ' && line.ptr[i] != 0x7f);
    return true;
}

/* ---- a world ----------------------------------------------------------------------------------------------------- */

struct start {
    void (*main_fiber)(struct rt *, void *arg);
    void *arg;
    bool ended;
};

static void
run_main(void *arg)
{
    struct start *s = arg;

    s->main_fiber(&world.rt, s->arg);
    s->ended = true;
}

static void
turn(void)
{
    sched_run(&world.rt, SIZE_MAX);
    if (sched_has_ready(&world.rt) || world.rt.fiber_count == 0)
        return;
    int64_t next = sched_next_alarm(&world.rt);
    CHECK(next != FOREVER); /* somebody waits for what never comes */
    if (next > world.now)
        world.now = next;
    sched_call_alarms(&world.rt);
}

static void
make_world(void)
{
    if (world.made)
        return;
    world.made = true;
    world.own_mem = mem_libc();
    world.mem = (struct mem){ .resize = heap_resize };
    world.rt.mem = &world.own_mem;
    world.rt.clock = clock_now;
    stacks_init(&world.rt.stacks, &world.own_mem, 65530, false);
    sched_init(&world.rt);
    world.rt.mem = &world.mem;
    log_sink_init(&world.log, &world.rt, log_put);
}

void
world_run(void (*main_fiber)(struct rt *, void *arg), void *arg)
{
    struct start start = { main_fiber, arg, false };

    make_world();
    world.now = 0;
    world.rt.ending = false;
    prng_seed(&world.prng, world_rules.seed);
    fiber_start(&world.rt, "main", run_main, &start);
    while (!start.ended)
        turn();
    sched_cancel_all(&world.rt);
    int64_t deadline = world.now + RT_CANCEL_GRACE_NS + SECOND;
    while (world.rt.fiber_count > 0) {
        turn();
        CHECK(world.now <= deadline); /* a fiber that was cancelled ends within the grace time */
    }
    CHECK(!world.listener);
    if (world_rules.drops_heap)
        heap_drop();
    CHECK(mem_in_use(&world.mem) == 0);
}

struct err
rt_run(void (*main_fiber)(struct rt *, void *arg), void *arg)
{
    world_run(main_fiber, arg);
    return OK;
}

/* ---- streams ----------------------------------------------------------------------------------------------------- */

struct stream {
    struct rt *rt;
    struct stream *peer;   /* NULL: it is closed */
    struct address address;
    char *bytes;           /* [from, to) came and was not read */
    size_t from, to, cap;
    bool ended;            /* nothing more comes */
    bool reset;
    bool shut;             /* we said that we write no more */
    struct fiber *reader, *writer;
    struct list node;      /* a listener's */
};

static size_t
room(const struct stream *s)
{
    size_t most = world_rules.room ? world_rules.room : 64 << 10;
    size_t used = s->to - s->from;

    return used < most ? most - used : 0;
}

static void
wake(struct fiber *f)
{
    if (f)
        sched_wake(f, ERR_NONE);
}

void
world_pair(struct rt *rt, struct stream **out_a, struct stream **out_b)
{
    struct stream *a = calloc(1, sizeof *a), *b = calloc(1, sizeof *b);

    CHECK(a && b);
    *a = (struct stream){ .rt = rt, .peer = b };
    *b = (struct stream){ .rt = rt, .peer = a };
    CHECK(address_parse(S("192.0.2.9:1025"), &a->address) && address_parse(S("192.0.2.25:25"), &b->address));
    *out_a = a;
    *out_b = b;
}

void
stream_close(struct stream *s)
{
    if (s->reader)
        sched_wake(s->reader, ERR_CLOSED);
    if (s->writer)
        sched_wake(s->writer, ERR_CLOSED);
    if (s->peer) {
        s->peer->peer = NULL;
        s->peer->ended = true;
        wake(s->peer->reader);
        wake(s->peer->writer);
    }
    free(s->bytes);
    free(s);
}

void
stream_reset(struct stream *s)
{
    if (s->peer) {
        s->peer->reset = true;
        s->peer->from = s->peer->to = 0;
    }
    stream_close(s);
}

void
stream_shut_down(struct stream *s)
{
    s->shut = true;
    if (s->peer) {
        s->peer->ended = true;
        wake(s->peer->reader);
    }
}

static struct err
wait_for(struct stream *s, struct fiber **waiter, int64_t until, const char *what)
{
    CHECK(!*waiter); /* one fiber reads, one writes */
    *waiter = s->rt->running;
    struct err e = sched_park(s->rt, until, what);
    if (e.kind != ERR_CLOSED)
        *waiter = NULL;
    return e;
}

static struct err
try_read(struct stream *s, void *memory, size_t cap, size_t *out_len)
{
    size_t len = s->to - s->from;

    *out_len = 0;
    if (s->reset)
        return ERR(ERR_RESET, "read");
    if (len == 0)
        return s->ended ? OK : ERR(ERR_BUSY, "read");
    len = len < cap ? len : cap;
    if (world_rules.read_max && len > world_rules.read_max)
        len = world_rules.read_max;
    memcpy(memory, s->bytes + s->from, len);
    s->from += len;
    if (s->peer)
        wake(s->peer->writer);
    *out_len = len;
    return OK;
}

struct err
stream_read(struct stream *s, void *memory, size_t cap, int64_t until, size_t *out_len)
{
    struct rt *rt = s->rt;
    struct err e;

    CHECK(cap > 0);
    TRY(sched_enter(rt));
    while ((e = try_read(s, memory, cap, out_len)).kind == ERR_BUSY)
        TRY(wait_for(s, &s->reader, until, "read"));
    sched_spend(rt);
    return e;
}

struct err
stream_read_handles(struct stream *s, void *memory, size_t cap, struct handle *handles, size_t *out_count,
                    int64_t until, size_t *out_len)
{
    (void)handles;
    *out_count = 0;
    return stream_read(s, memory, cap, until, out_len);
}

struct err
stream_read_now(struct stream *s, void *memory, size_t cap, size_t *out_len)
{
    struct err e = try_read(s, memory, cap, out_len);

    if (e.kind == ERR_BUSY)
        return OK;
    return !err_is(e) && *out_len == 0 ? ERR(ERR_CLOSED, "read") : e;
}

struct err
stream_wait_readable(struct stream *s, int64_t until)
{
    TRY(sched_enter(s->rt));
    while (!s->reset && !s->ended && s->from == s->to)
        TRY(wait_for(s, &s->reader, until, "read"));
    return OK;
}

/* Nobody answers while the role is held up: keys are elsewhere, and not here. */
struct err
stream_hold_readable(struct stream *s, int64_t ns)
{
    (void)s;
    (void)ns;
    return ERR(ERR_TIMEOUT, "wait for an answer");
}

static struct err
try_write(struct stream *s, struct str bytes, size_t *out_len)
{
    struct stream *to = s->peer;

    *out_len = 0;
    if (s->reset || s->shut || !to)
        return ERR(ERR_RESET, "write");
    size_t len = room(to) < bytes.len ? room(to) : bytes.len;
    if (len == 0)
        return bytes.len ? ERR(ERR_BUSY, "write") : OK;
    if (to->from > 0) {
        memmove(to->bytes, to->bytes + to->from, to->to - to->from);
        to->to -= to->from;
        to->from = 0;
    }
    if (to->cap - to->to < len) {
        to->cap = 2 * (to->to + len);
        to->bytes = realloc(to->bytes, to->cap);
        CHECK(to->bytes);
    }
    memcpy(to->bytes + to->to, bytes.ptr, len);
    to->to += len;
    wake(to->reader);
    *out_len = len;
    return OK;
}

struct err
stream_write_parts(struct stream *s, const struct str *parts, size_t count, int64_t until)
{
    struct rt *rt = s->rt;

    TRY(sched_enter(rt));
    for (size_t i = 0; i < count; i++) {
        struct str rest = parts[i];
        while (rest.len > 0) {
            size_t len;
            struct err e = try_write(s, rest, &len);
            if (e.kind == ERR_BUSY)
                e = wait_for(s, &s->writer, until, "write");
            TRY(e);
            rest = str_from(rest, len);
        }
    }
    sched_spend(rt);
    return OK;
}

struct err
stream_write(struct stream *s, struct str bytes, int64_t until)
{
    return stream_write_parts(s, &bytes, 1, until);
}

struct err
stream_write_handles(struct stream *s, struct str bytes, const struct handle *handles, size_t count, int64_t until)
{
    (void)handles;
    CHECK(count == 0); /* no target passes any */
    return stream_write(s, bytes, until);
}

struct err
stream_write_now(struct stream *s, struct str bytes, size_t *out_len)
{
    struct err e = try_write(s, bytes, out_len);

    return e.kind == ERR_BUSY ? OK : e;
}

struct address
stream_peer(const struct stream *s)
{
    return s->address;
}

struct address
stream_local(const struct stream *s)
{
    struct address local = { .family = ADDRESS_NONE };

    return s->peer ? s->peer->address : local;
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
    return s->rt;
}

bool
stream_peer_credentials(const struct stream *s, struct peer_credentials *out)
{
    (void)s;
    *out = (struct peer_credentials){ 1, 1000, 1000 };
    return true;
}

struct err
stream_connect(struct rt *rt, const struct address *to, const struct address *from, int64_t until, struct stream **out)
{
    struct stream *near_end, *far_end;

    (void)from;
    (void)until;
    TRY(sched_enter(rt));
    fiber_yield(rt);
    if (!world_rules.connected)
        return ERR(ERR_REFUSED, "connect");
    world_pair(rt, &near_end, &far_end);
    near_end->address = *to;
    struct err e = world_rules.connected(world_rules.arg, rt, to, far_end);
    if (err_is(e)) {
        stream_close(far_end);
        stream_close(near_end);
        return e;
    }
    *out = near_end;
    return OK;
}

/* ---- listeners: one at a time ------------------------------------------------------------------------------------ */

enum { LISTENER_HANDLE = 1 };

struct err
listener_open(struct rt *rt, const struct address *at, struct listener **out)
{
    struct listener *l = calloc(1, sizeof *l);

    CHECK(l && !world.listener);
    *l = (struct listener){ .rt = rt, .address = *at };
    list_init(&l->waiting);
    event_init(&l->came);
    *out = world.listener = l;
    return OK;
}

struct handle
world_listener(struct rt *rt)
{
    (void)rt;
    return (struct handle){ LISTENER_HANDLE };
}

struct err
listener_from_handle(struct rt *rt, struct handle handle, struct listener **out)
{
    struct address any = { .family = ADDRESS_UNIX };

    CHECK(handle.number == LISTENER_HANDLE);
    return listener_open(rt, &any, out);
}

struct handle
listener_handle(struct rt *rt, struct listener *l)
{
    (void)l;
    return world_listener(rt);
}

struct address
listener_address(const struct listener *l)
{
    return l->address;
}

struct stream *
world_connect(struct rt *rt)
{
    struct stream *near_end, *far_end;

    if (!world.listener)
        return NULL;
    world_pair(rt, &near_end, &far_end);
    list_push_back(&world.listener->waiting, &far_end->node);
    event_wake(rt, &world.listener->came);
    return near_end;
}

struct err
listener_accept(struct listener *l, int64_t until, struct stream **out, struct address *out_peer)
{
    struct list *node;

    while (!(node = list_pop_front(&l->waiting)))
        TRY(event_wait(l->rt, &l->came, until));
    *out = container_of(node, struct stream, node);
    *out_peer = stream_peer(*out);
    return OK;
}

void
listener_close(struct listener *l)
{
    struct list *node;

    while ((node = list_pop_front(&l->waiting)))
        stream_close(container_of(node, struct stream, node));
    world.listener = NULL;
    free(l);
}

/* ---- handles: no target passes any ------------------------------------------------------------------------------- */

void
handle_close(struct rt *rt, struct handle h)
{
    (void)rt;
    (void)h;
}

struct err
stream_from_handle(struct rt *rt, struct handle handle, struct stream **out)
{
    (void)rt;
    (void)handle;
    (void)out;
    UNREACHABLE();
}

struct err
stream_pair(struct rt *rt, struct handle out[2])
{
    (void)rt;
    (void)out;
    UNREACHABLE();
}

/* ---- files: a flat list of paths --------------------------------------------------------------------------------- */

struct node {
    struct list in_files;
    char *path; /* NUL-terminated */
    bool is_dir;
    char *bytes;
    size_t size;
};
struct dir {
    struct rt *rt;
    char *path;
};
struct file {
    struct rt *rt;
    struct node *node;
};
enum { PATH_BYTES = 1024 };

static struct list files = { &files, &files };

static struct node *
find_node(struct str path)
{
    list_each(node, &files) {
        struct node *n = container_of(node, struct node, in_files);
        if (str_eq(str_from_cstr(n->path), path))
            return n;
    }
    return NULL;
}

static char *
copy_path(struct str path)
{
    char *copy = calloc(1, path.len + 1);

    CHECK(copy);
    if (path.len)
        memcpy(copy, path.ptr, path.len);
    return copy;
}

static struct node *
make_node(struct str path, bool is_dir)
{
    struct node *n = calloc(1, sizeof *n);

    CHECK(n);
    n->path = copy_path(path);
    n->is_dir = is_dir;
    list_push_back(&files, &n->in_files);
    return n;
}

static void
free_node(struct node *n)
{
    list_remove(&n->in_files);
    free(n->path);
    free(n->bytes);
    free(n);
}

static void
set_size(struct node *n, size_t size)
{
    char *bytes = realloc(n->bytes, size + 1);

    CHECK(bytes);
    if (size > n->size)
        memset(bytes + n->size, 0, size - n->size);
    n->bytes = bytes;
    n->size = size;
}

void
world_file_put(struct str path, struct str bytes)
{
    struct node *n = find_node(path);

    n = n ? n : make_node(path, false);
    set_size(n, bytes.len);
    if (bytes.len)
        memcpy(n->bytes, bytes.ptr, bytes.len);
}

bool
world_file_get(struct str path, struct str *out_bytes)
{
    struct node *n = find_node(path);

    if (n)
        *out_bytes = str_new(n->bytes ? n->bytes : "", n->size);
    return n != NULL;
}

void
world_files_remove(struct str path)
{
    list_each_safe(node, &files) {
        struct node *n = container_of(node, struct node, in_files);
        struct str rest = str_from_cstr(n->path);
        if (str_take(&rest, path) && (rest.len == 0 || rest.ptr[0] == '/'))
            free_node(n);
    }
}

void
world_files_each(void (*each)(void *arg, struct str path, struct str bytes), void *arg)
{
    list_each_safe(node, &files) {
        struct node *n = container_of(node, struct node, in_files);
        if (!n->is_dir)
            each(arg, str_from_cstr(n->path), str_new(n->bytes ? n->bytes : "", n->size));
    }
}

/* The path of a name in a directory. A name leads nowhere else: RESOLVE_BENEATH. */
static struct err
join(const struct dir *d, struct str name, char *memory, struct str *out)
{
    struct text t = text_init(memory, PATH_BYTES);

    if (name.len == 0 || name.len > 4095 || str_has_byte(name, '\0'))
        return ERR(ERR_SYNTAX, "use a path");
    struct str parts = name;
    while (parts.len > 0)
        CHECK(!str_eq(str_cut(&parts, '/'), S("..")));
    CHECK(name.ptr[0] != '/');
    text_putf(&t, "%s/", d->path);
    text_put(&t, name);
    *out = text_str(&t);
    return t.full ? ERR(ERR_SYNTAX, "use a path") : OK;
}

/* As a disk thread would: others run meanwhile. */
static struct err
disk(struct rt *rt)
{
    TRY(sched_enter(rt));
    fiber_yield(rt);
    return OK;
}

static struct dir *
make_dir_handle(struct rt *rt, struct str path)
{
    struct dir *d = calloc(1, sizeof *d);

    CHECK(d);
    *d = (struct dir){ rt, copy_path(path) };
    return d;
}

struct err
dir_open(struct rt *rt, struct str path, enum lane lane, int64_t until, struct dir **out)
{
    (void)lane;
    (void)until;
    TRY(disk(rt));
    *out = make_dir_handle(rt, path);
    return OK;
}

struct err
dir_from_handle(struct rt *rt, struct handle handle, struct dir **out)
{
    (void)rt;
    (void)handle;
    (void)out;
    UNREACHABLE();
}

struct handle
dir_handle(struct rt *rt, struct dir *d)
{
    (void)rt;
    (void)d;
    UNREACHABLE();
}

struct err
dir_open_at(struct dir *d, struct str name, enum lane lane, int64_t until, struct dir **out)
{
    char memory[PATH_BYTES];
    struct str path;

    (void)lane;
    (void)until;
    TRY(disk(d->rt));
    TRY(join(d, name, memory, &path));
    struct node *n = find_node(path);
    if (!n || !n->is_dir)
        return ERR(ERR_NOT_FOUND, "open a directory");
    *out = make_dir_handle(d->rt, path);
    return OK;
}

struct err
dir_make(struct dir *d, struct str name, unsigned mode, enum lane lane, int64_t until)
{
    char memory[PATH_BYTES];
    struct str path;

    (void)mode;
    (void)lane;
    (void)until;
    TRY(disk(d->rt));
    TRY(join(d, name, memory, &path));
    if (find_node(path))
        return ERR(ERR_EXISTS, "make a directory");
    make_node(path, true);
    return OK;
}

struct err
dir_rename(struct dir *from, struct str name, struct dir *to, struct str new_name, enum lane lane, int64_t until)
{
    char memory[PATH_BYTES], new_memory[PATH_BYTES];
    struct str path, new_path;

    (void)lane;
    (void)until;
    TRY(disk(from->rt));
    TRY(join(from, name, memory, &path));
    TRY(join(to, new_name, new_memory, &new_path));
    struct node *n = find_node(path), *over = find_node(new_path);
    if (!n)
        return ERR(ERR_NOT_FOUND, "rename");
    if (over && over != n)
        free_node(over);
    free(n->path);
    n->path = copy_path(new_path);
    return OK;
}

struct err
dir_rename_sync(struct dir *from, struct str name, struct dir *to, struct str new_name, enum lane lane, int64_t until)
{
    return dir_rename(from, name, to, new_name, lane, until);
}

struct err
dir_unlink(struct dir *d, struct str name, enum lane lane, int64_t until)
{
    char memory[PATH_BYTES];
    struct str path;

    (void)lane;
    (void)until;
    TRY(disk(d->rt));
    TRY(join(d, name, memory, &path));
    struct node *n = find_node(path);
    if (!n)
        return ERR(ERR_NOT_FOUND, "remove");
    free_node(n);
    return OK;
}

struct err
dir_sync(struct dir *d, enum lane lane, int64_t until)
{
    (void)lane;
    (void)until;
    return disk(d->rt);
}

struct err
dir_free_space(struct dir *d, enum lane lane, int64_t until, uint64_t *out_bytes, uint64_t *out_inodes)
{
    (void)lane;
    (void)until;
    TRY(disk(d->rt));
    *out_bytes = 1 << 20; /* no target needs much */
    *out_inodes = 1 << 20;
    return OK;
}

static int
by_bytes(const void *a, const void *b)
{
    return str_cmp(*(const struct str *)a, *(const struct str *)b);
}

struct err
dir_list(struct dir *d, struct arena *arena, enum lane lane, int64_t until, struct str **out_names, size_t *out_count)
{
    size_t count = 0, cap = 0;

    (void)lane;
    (void)until;
    TRY(disk(d->rt));
    list_each(node, &files)
        cap++;
    struct str *names = arena_alloc(arena, (cap + 1) * sizeof *names);
    list_each(node, &files) {
        struct str rest = str_from_cstr(container_of(node, struct node, in_files)->path);
        if (str_take(&rest, str_from_cstr(d->path)) && str_take_byte(&rest, '/') && !str_has_byte(rest, '/'))
            names[count++] = arena_keep(arena, rest);
    }
    qsort(names, count, sizeof *names, by_bytes);
    *out_names = names;
    *out_count = count;
    return OK;
}

void
dir_close(struct dir *d)
{
    free(d->path);
    free(d);
}

struct err
file_open(struct dir *d, struct str name, unsigned flags, unsigned mode, enum lane lane, int64_t until,
          struct file **out)
{
    char memory[PATH_BYTES];
    struct str path;

    (void)mode;
    (void)lane;
    (void)until;
    TRY(disk(d->rt));
    TRY(join(d, name, memory, &path));
    struct node *n = find_node(path);
    if (n && (n->is_dir || (flags & FILE_NEW)))
        return n->is_dir ? ERR(ERR_IO, "open") : ERR(ERR_EXISTS, "open");
    if (!n && !(flags & FILE_CREATE))
        return ERR(ERR_NOT_FOUND, "open");
    n = n ? n : make_node(path, false);
    if (flags & FILE_TRUNCATE)
        set_size(n, 0);
    struct file *f = calloc(1, sizeof *f);
    CHECK(f);
    *f = (struct file){ d->rt, n };
    *out = f;
    return OK;
}

struct err
dir_lock(struct dir *d, struct str name, int64_t until, struct file **out)
{
    return file_open(d, name, FILE_WRITE | FILE_CREATE, 0600, LANE_BACKGROUND, until, out);
}

struct err
file_from_handle(struct rt *rt, struct handle handle, struct file **out)
{
    (void)rt;
    (void)handle;
    (void)out;
    UNREACHABLE();
}

struct err
file_read(struct file *f, void *memory, size_t len, uint64_t offset, enum lane lane, int64_t until, size_t *out_len)
{
    (void)lane;
    (void)until;
    TRY(disk(f->rt));
    struct str part = offset < f->node->size ? str_slice(str_new(f->node->bytes, f->node->size), offset, offset + len)
                                             : S("");
    if (part.len)
        memcpy(memory, part.ptr, part.len);
    *out_len = part.len;
    return OK;
}

struct err
file_write(struct file *f, const struct str *parts, size_t count, uint64_t offset, enum lane lane, int64_t until)
{
    (void)lane;
    (void)until;
    TRY(disk(f->rt));
    for (size_t i = 0; i < count; i++) {
        if (offset + parts[i].len > f->node->size)
            set_size(f->node, offset + parts[i].len);
        if (parts[i].len)
            memcpy(f->node->bytes + offset, parts[i].ptr, parts[i].len);
        offset += parts[i].len;
    }
    return OK;
}

struct err
file_sync(struct file *f, enum lane lane, int64_t until)
{
    (void)lane;
    (void)until;
    return disk(f->rt);
}

struct err
file_forget_cache(struct file *f, enum lane lane, int64_t until)
{
    (void)lane;
    (void)until;
    return disk(f->rt);
}

struct err
file_write_sync(struct file *f, const struct str *parts, size_t count, uint64_t offset, enum lane lane, int64_t until)
{
    return file_write(f, parts, count, offset, lane, until);
}

struct err
file_size(struct file *f, enum lane lane, int64_t until, uint64_t *out_bytes)
{
    (void)lane;
    (void)until;
    TRY(disk(f->rt));
    *out_bytes = f->node->size;
    return OK;
}

struct err
file_set_size(struct file *f, uint64_t bytes, enum lane lane, int64_t until)
{
    (void)lane;
    (void)until;
    TRY(disk(f->rt));
    set_size(f->node, bytes);
    return OK;
}

struct err
file_claim(struct file *f, uint64_t bytes, enum lane lane, int64_t until)
{
    return bytes > f->node->size ? file_set_size(f, bytes, lane, until) : OK;
}

void
file_close(struct file *f)
{
    free(f);
}

struct err
rt_offload(struct rt *rt, void (*work)(void *arg), void *arg, int64_t until)
{
    (void)until;
    TRY(disk(rt));
    work(arg);
    return OK;
}

/* ---- the host and the terminal ----------------------------------------------------------------------------------- */

static struct err
read_input(void *memory, size_t cap, size_t *out_len)
{
    struct str part = str_slice(world_rules.input, 0, world_rules.read_max && world_rules.read_max < cap
                                                          ? world_rules.read_max : cap);

    if (part.len)
        memcpy(memory, part.ptr, part.len);
    world_rules.input = str_from(world_rules.input, part.len);
    *out_len = part.len;
    return OK;
}

struct err
host_read_file(struct rt *rt, struct str path, size_t max, struct arena *arena, int64_t until, struct str *out)
{
    struct str bytes;

    (void)until;
    TRY(disk(rt));
    if (str_eq(path, S("-"))) {
        bytes = world_rules.input;
        world_rules.input = S("");
    } else if (!world_file_get(path, &bytes)) {
        return ERR(ERR_NOT_FOUND, "open");
    }
    if (bytes.len > max)
        return ERR(ERR_LIMIT, "read: the file is too long");
    *out = arena_keep(arena, bytes);
    return OK;
}

/* Directories are not to be had. */
struct err
host_open(struct rt *rt, struct str path, int64_t until, struct handle *out)
{
    (void)path;
    (void)until;
    (void)out;
    TRY(disk(rt));
    return ERR(ERR_NOT_FOUND, "open");
}

struct err
host_open_plain(struct rt *rt, struct str path, int64_t until, struct handle *out, struct host_file *out_file)
{
    (void)out_file;
    return host_open(rt, path, until, out);
}

struct err
host_write_file(struct rt *rt, struct str path, struct str bytes, unsigned mode, int64_t until)
{
    struct str there;

    (void)mode;
    (void)until;
    TRY(disk(rt));
    if (world_file_get(path, &there))
        return ERR(ERR_EXISTS, "create");
    world_file_put(path, bytes);
    return OK;
}

struct err
host_make_dir(struct rt *rt, struct str path, unsigned mode, int64_t uid, int64_t gid, int64_t until)
{
    (void)path;
    (void)mode;
    (void)uid;
    (void)gid;
    (void)until;
    return disk(rt);
}

struct err
host_own(struct rt *rt, struct str path, unsigned mode, int64_t uid, int64_t gid, int64_t until)
{
    return host_make_dir(rt, path, mode, uid, gid, until);
}

struct err
host_whole_path(struct rt *rt, struct str path, struct arena *arena, struct str *out)
{
    (void)rt;
    *out = arena_keep(arena, path);
    return OK;
}

struct err
host_stat(struct rt *rt, struct str path, int64_t until, struct host_file *out)
{
    struct str bytes;

    (void)until;
    TRY(disk(rt));
    if (!world_file_get(path, &bytes))
        return ERR(ERR_NOT_FOUND, "look at");
    *out = (struct host_file){ bytes.len, 0, 0, 0600, false };
    return OK;
}

struct err
host_user(struct rt *rt, struct str name, int64_t until, uint32_t *out_uid, uint32_t *out_gid)
{
    (void)until;
    TRY(disk(rt));
    if (!str_eq(name, S("user")))
        return ERR(ERR_NOT_FOUND, "look a user up");
    *out_uid = *out_gid = 1000;
    return OK;
}

struct err
host_user_by_id(struct rt *rt, uint32_t uid, int64_t until, struct arena *arena, struct str *out_name,
                uint32_t *out_gid)
{
    (void)until;
    TRY(disk(rt));
    *out_name = arena_keep(arena, S("user"));
    *out_gid = uid;
    return OK;
}

uint32_t
host_my_uid(struct rt *rt)
{
    (void)rt;
    return 1000;
}

uint32_t
host_my_gid(struct rt *rt)
{
    (void)rt;
    return 1000;
}

uint32_t
host_processors(struct rt *rt)
{
    (void)rt;
    return 2;
}

struct str
host_env(struct rt *rt, struct str name)
{
    (void)rt;
    (void)name;
    return (struct str){ NULL, 0 };
}

struct err
host_name(struct rt *rt, struct arena *arena, struct str *out)
{
    (void)rt;
    *out = arena_keep(arena, S("host.example"));
    return OK;
}

struct err
terminal_read(struct rt *rt, void *memory, size_t cap, int64_t until, size_t *out_len)
{
    (void)until;
    TRY(disk(rt));
    return read_input(memory, cap, out_len);
}

struct err
terminal_secret(struct rt *rt, struct str prompt, void *memory, size_t cap, size_t *out_len)
{
    struct str *input = &world_rules.input;

    (void)prompt;
    TRY(disk(rt));
    if (input->len == 0)
        return ERR(ERR_CLOSED, "read a line");
    struct str line = str_cut(input, '\n');
    if (line.len > cap)
        return ERR(ERR_LIMIT, "read a line");
    memcpy(memory, line.ptr, line.len);
    *out_len = line.len;
    return OK;
}

struct err
terminal_write(enum terminal_output where, struct str bytes)
{
    (void)where;
    world_rules.output_bytes += bytes.len;
    return OK;
}

bool
terminal_is_one(enum terminal_output where)
{
    (void)where;
    return false;
}

bool
terminal_input_is_one(void)
{
    return false;
}

struct err
terminal_open(struct rt *rt, struct str path, unsigned flags, struct file **out)
{
    struct dir root = { rt, (char[]){ "" } };

    while (str_take(&path, S("/")))
        ;
    return file_open(&root, path, flags, 0666, LANE_POOL, FOREVER, out);
}

struct err
terminal_addresses(struct rt *rt, struct str host, int64_t until, struct address *out, size_t cap, size_t *out_count)
{
    (void)until;
    TRY(disk(rt));
    CHECK(cap > 0);
    if (!address_from_ip(host, &out[0]))
        CHECK(address_from_ip(S("192.0.2.25"), &out[0]));
    *out_count = 1;
    return OK;
}

/* ---- what no target has: processes, signals, sandbox, foreign libraries' descriptors ------------------------------ */

struct err
rt_catch_signals(struct rt *rt, const int *signals, size_t count)
{
    (void)rt;
    (void)signals;
    (void)count;
    return OK;
}

struct err
rt_wait_signal(struct rt *rt, int64_t until, int *out_signal)
{
    struct event never;

    (void)out_signal;
    event_init(&never);
    return event_wait(rt, &never, until);
}

struct err
child_start(struct rt *rt, const struct spawn *spawn, struct child **out)
{
    (void)rt;
    (void)spawn;
    (void)out;
    UNREACHABLE();
}

struct err
child_wait(struct child *child, int64_t until, int *out_status)
{
    (void)child;
    (void)until;
    (void)out_status;
    UNREACHABLE();
}

void
child_signal(struct child *child, int signal)
{
    (void)child;
    (void)signal;
    UNREACHABLE();
}

uint32_t
child_pid(const struct child *child)
{
    (void)child;
    UNREACHABLE();
}

void
child_release(struct child *child)
{
    (void)child;
    UNREACHABLE();
}

struct watch *
watch_start(struct rt *rt, int fd, bool readable, bool writable,
            void (*ready)(void *arg, bool readable, bool writable), void *arg)
{
    (void)rt;
    (void)fd;
    (void)readable;
    (void)writable;
    (void)ready;
    (void)arg;
    UNREACHABLE();
}

void
watch_stop(struct watch *watch)
{
    (void)watch;
    UNREACHABLE();
}

/* The resolver that is a library: here nobody has one. */
struct err
resolver_open(struct rt *rt, const struct resolver_settings *settings, int64_t until, struct resolver **out,
              struct str *out_why)
{
    (void)settings;
    (void)until;
    (void)out;
    TRY(disk(rt));
    *out_why = S("there is none");
    return ERR(ERR_UNREACHABLE, "open the resolver");
}

void
resolver_close(struct resolver *resolver)
{
    (void)resolver;
    UNREACHABLE();
}

struct err
resolver_query(struct resolver *resolver, struct str name, enum dns_type type, int64_t until, struct arena *arena,
               struct dns_answer *out)
{
    (void)resolver;
    (void)name;
    (void)type;
    (void)until;
    (void)arena;
    (void)out;
    UNREACHABLE();
}

struct dns
resolver_dns(struct resolver *resolver)
{
    (void)resolver;
    UNREACHABLE();
}

bool
rt_notify(struct rt *rt, struct str state)
{
    (void)rt;
    (void)state;
    return false;
}

bool
rt_notify_ready(struct rt *rt, struct str status)
{
    return rt_notify(rt, status);
}

bool
rt_notify_reloading(struct rt *rt)
{
    return rt_notify(rt, S(""));
}

bool
rt_notify_stopping(struct rt *rt)
{
    return rt_notify(rt, S(""));
}

struct err
sandbox_enter(struct rt *rt, const struct sandbox_rules *rules, struct sandbox_report *out_report)
{
    (void)rt;
    (void)rules;
    *out_report = (struct sandbox_report){ 0 };
    return OK;
}

void
sandbox_report_text(const struct sandbox_report *report, struct text *out)
{
    (void)report;
    (void)out;
}

/* ---- the Web: there is none -------------------------------------------------------------------------------------- */

struct err
https_open(struct rt *rt, struct str authorities, struct https **out, struct text *out_why)
{
    (void)rt;
    (void)authorities;
    (void)out;
    text_put(out_why, S("there is no library for it"));
    return ERR(ERR_NOT_FOUND, "load a library");
}

void
https_close(struct https *h)
{
    CHECK(!h);
}

void
https_stop(struct https *h)
{
    CHECK(!h);
}

struct err
https_get(struct https *h, const struct https_request *request, int64_t until, struct arena *arena, struct https_answer *out)
{
    (void)h;
    (void)request;
    (void)until;
    (void)arena;
    (void)out;
    UNREACHABLE();
}
