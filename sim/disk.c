/* disk - see disk.h. */
#include "sim/disk.h"

#include "base/check.h"
#include "base/list.h"

#include <errno.h>
#include <string.h>

enum { PATH_BYTES = 1024 };

struct buffer { /* shared by the views, and by disks that were cloned, until somebody writes */
    uint32_t refs;
    uint64_t cap;
    char ptr[];
};

struct bytes {
    struct buffer *buffer; /* or NULL; zero from `top` on */
    uint64_t len;
    uint64_t top;          /* what is written behind the length is there, unseen, until the length grows */
};

struct name {
    struct list node; /* in byte order */
    disk_inode inode;
    size_t len;
    char text[];
};

struct view {
    struct bytes bytes;  /* of a file; len is its size */
    struct list names;   /* of a directory */
};

struct inode {
    bool used, is_dir;
    uint32_t names;      /* entries in either view that lead here */
    uint32_t holds;
    uint32_t ops;        /* operations that concern it */
    struct view cache, durable;
};

struct op {
    struct list node;
    struct disk_op op;
    size_t size;         /* of this allocation */
    char bytes[];        /* of a write; or both names */
};

struct disk {
    struct mem *mem;
    uint64_t capacity, used, next_number;
    struct inode **inodes;   /* each in memory of its own: heads of lists do not move well */
    uint32_t count, cap;
    struct list ops;
    size_t op_count;
};

static struct inode *
inode_of(const struct disk *d, disk_inode i)
{
    CHECK(i < d->count && d->inodes[i]->used);
    return d->inodes[i];
}

/* ---- bytes ------------------------------------------------------------------------------------------------------- */

static void
bytes_free(struct disk *d, struct bytes *b)
{
    if (b->buffer && --b->buffer->refs == 0)
        mem_free(d->mem, b->buffer, sizeof *b->buffer + b->buffer->cap);
    *b = (struct bytes){ NULL, 0, 0 };
}

/* So that it can be written, up to there. */
static void
bytes_own(struct disk *d, struct bytes *b, uint64_t cap)
{
    struct buffer *old = b->buffer;
    uint64_t grown = old && old->cap ? old->cap : DISK_BLOCK;

    if (old && old->refs == 1 && cap <= old->cap)
        return;
    while (grown < cap)
        grown *= 2;
    b->buffer = mem_buffer(d->mem, sizeof *old + grown);
    memset(b->buffer->ptr + b->top, 0, grown - b->top);
    b->buffer->refs = 1;
    b->buffer->cap = grown;
    if (b->top)
        memcpy(b->buffer->ptr, old->ptr, b->top);
    if (old && --old->refs == 0)
        mem_free(d->mem, old, sizeof *old + old->cap);
}

static void
bytes_put(struct disk *d, struct bytes *b, const char *from, uint64_t len, uint64_t offset)
{
    if (len == 0)
        return;
    bytes_own(d, b, offset + len);
    memcpy(b->buffer->ptr + offset, from, len);
    if (b->top < offset + len)
        b->top = offset + len;
}

static void
bytes_cut(struct disk *d, struct bytes *b, uint64_t len)
{
    if (len >= b->top)
        return;
    bytes_own(d, b, b->top);
    memset(b->buffer->ptr + len, 0, b->top - len);
    b->top = len;
}

static void
bytes_set_len(struct disk *d, struct bytes *b, uint64_t len)
{
    bytes_own(d, b, len);
    if (len < b->len)
        bytes_cut(d, b, len);
    b->len = len;
}

/* What is behind the length comes along. */
static void
bytes_share(struct disk *d, struct bytes *to, const struct bytes *from)
{
    struct bytes before = *to;

    *to = *from;
    if (to->buffer)
        to->buffer->refs++;
    bytes_free(d, &before);
}

/* ---- names ------------------------------------------------------------------------------------------------------- */

static struct name *
name_find(const struct view *v, struct str text)
{
    list_each(node, &v->names) {
        struct name *n = container_of(node, struct name, node);
        int order = str_cmp(str_new(n->text, n->len), text);
        if (order == 0)
            return n;
        if (order > 0)
            break;
    }
    return NULL;
}

static void inode_unused(struct disk *, disk_inode);

static void
name_remove(struct disk *d, struct view *v, struct str text)
{
    struct name *n = name_find(v, text);

    if (!n)
        return;
    disk_inode inode = n->inode;
    list_remove(&n->node);
    mem_free(d->mem, n, sizeof *n + n->len);
    d->inodes[inode]->names--;
    inode_unused(d, inode);
}

static void
name_put(struct disk *d, struct view *v, struct str text, disk_inode inode)
{
    struct name *n = name_find(v, text);

    d->inodes[inode]->names++;
    if (n) {
        disk_inode before = n->inode;
        n->inode = inode;
        d->inodes[before]->names--;
        inode_unused(d, before);
        return;
    }
    n = mem_alloc(d->mem, sizeof *n + text.len);
    *n = (struct name){ .inode = inode, .len = text.len };
    memcpy(n->text, text.ptr, text.len);
    struct list *at = v->names.next;
    while (at != &v->names && str_cmp(str_new(container_of(at, struct name, node)->text,
                                              container_of(at, struct name, node)->len), text) < 0)
        at = at->next;
    list_put_before(at, &n->node);
}

static void
view_init(struct view *v)
{
    v->bytes = (struct bytes){ NULL, 0, 0 };
    list_init(&v->names);
}

static void
view_clear(struct disk *d, struct view *v)
{
    bytes_free(d, &v->bytes);
    while (!list_is_empty(&v->names)) {
        struct name *n = container_of(v->names.next, struct name, node);
        name_remove(d, v, str_new(n->text, n->len));
    }
}

/* ---- inodes ------------------------------------------------------------------------------------------------------ */

static uint64_t
blocks(uint64_t size)
{
    return (size + DISK_BLOCK - 1) / DISK_BLOCK * DISK_BLOCK;
}

static disk_inode
inode_new(struct disk *d, bool is_dir)
{
    if (d->count == d->cap) {
        uint32_t cap = d->cap ? d->cap * 2 : 64;
        d->inodes = mem_resize(d->mem, d->inodes, d->cap * sizeof *d->inodes, cap * sizeof *d->inodes);
        d->cap = cap;
    }
    struct inode *inode = d->inodes[d->count] = mem_new(d->mem, struct inode);
    *inode = (struct inode){ .used = true, .is_dir = is_dir };
    view_init(&inode->cache);
    view_init(&inode->durable);
    return d->count++;
}

/* Ends it if nothing needs it any more. Its number is not used again. */
static void
inode_unused(struct disk *d, disk_inode i)
{
    struct inode *inode = d->inodes[i];

    if (i == DISK_ROOT || !inode->used || inode->names || inode->holds || inode->ops)
        return;
    d->used -= blocks(inode->cache.bytes.len);
    inode->used = false;
    view_clear(d, &inode->cache);
    view_clear(d, &inode->durable);
}

/* ---- operations -------------------------------------------------------------------------------------------------- */

static void
refer(struct disk *d, const struct disk_op *op, bool more)
{
    disk_inode all[] = { op->inode, op->dir, op->to };

    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        d->inodes[all[i]]->ops += more ? 1u : -1u;
    for (size_t i = 0; !more && i < sizeof all / sizeof *all; i++)
        inode_unused(d, all[i]);
}

static struct op *
op_add(struct disk *d, struct disk_op op, struct str first, struct str second)
{
    struct op *o = mem_buffer(d->mem, sizeof *o + first.len + second.len);

    *o = (struct op){ .op = op, .size = sizeof *o + first.len + second.len };
    if (first.len)
        memcpy(o->bytes, first.ptr, first.len);
    if (second.len)
        memcpy(o->bytes + first.len, second.ptr, second.len);
    if (op.kind >= DISK_LINK) {
        o->op.name = str_new(o->bytes, first.len);
        o->op.to_name = str_new(o->bytes + first.len, second.len);
    }
    list_push_back(&d->ops, &o->node);
    d->op_count++;
    refer(d, &o->op, true);
    return o;
}

static void
op_free(struct disk *d, struct op *o)
{
    struct disk_op op = o->op;

    list_remove(&o->node);
    d->op_count--;
    mem_free(d->mem, o, o->size);
    refer(d, &op, false);
}

static void
apply_sectors(struct disk *d, const struct op *o, const struct disk_choice *choice)
{
    struct bytes *b = &d->inodes[o->op.inode]->durable.bytes;
    uint64_t end = o->op.offset + o->op.len, nth = 0;

    for (uint64_t at = o->op.offset; at < end; nth++) {
        uint64_t stop = (at / DISK_SECTOR + 1) * DISK_SECTOR;
        if (stop > end)
            stop = end;
        if (!choice || choice->keep_sector(choice->arg, &o->op, nth))
            bytes_put(d, b, o->bytes + (at - o->op.offset), stop - at, at);
        at = stop;
    }
}

/* To the durable view. choice: of a torn write; NULL: all of it. */
static void
apply(struct disk *d, const struct op *o, const struct disk_choice *choice)
{
    const struct disk_op *op = &o->op;
    struct inode *inode = d->inodes[op->inode];

    switch (op->kind) {
    case DISK_WRITE:
        if (choice)
            apply_sectors(d, o, choice);
        else
            bytes_put(d, &inode->durable.bytes, o->bytes, op->len, op->offset);
        break;
    case DISK_SIZE:
        bytes_set_len(d, &inode->durable.bytes, op->len);
        break;
    case DISK_LINK:
        name_put(d, &d->inodes[op->dir]->durable, op->name, op->inode);
        break;
    case DISK_UNLINK:
        name_remove(d, &d->inodes[op->dir]->durable, op->name);
        break;
    case DISK_RENAME:
        name_put(d, &d->inodes[op->to]->durable, op->to_name, op->inode);
        name_remove(d, &d->inodes[op->dir]->durable, op->name);
        break;
    default:
        UNREACHABLE();
    }
}

/* ---- a disk ------------------------------------------------------------------------------------------------------ */

struct disk *
disk_new(struct mem *mem, uint64_t capacity)
{
    struct disk *d = mem_new(mem, struct disk);

    d->mem = mem;
    d->capacity = capacity;
    d->next_number = 1;
    list_init(&d->ops);
    inode_new(d, true);
    return d;
}

void
disk_free(struct disk *d)
{
    list_each_safe(node, &d->ops) {
        struct op *o = container_of(node, struct op, node);
        mem_free(d->mem, o, o->size);
    }
    for (uint32_t i = 0; i < d->count; i++) {
        struct inode *inode = d->inodes[i];
        for (int k = 0; inode->used && k < 2; k++) {
            struct view *v = k ? &inode->cache : &inode->durable;
            bytes_free(d, &v->bytes);
            list_each_safe(node, &v->names) {
                struct name *n = container_of(node, struct name, node);
                mem_free(d->mem, n, sizeof *n + n->len);
            }
        }
        mem_free(d->mem, inode, sizeof *inode);
    }
    mem_free(d->mem, d->inodes, d->cap * sizeof *d->inodes);
    mem_free(d->mem, d, sizeof *d);
}

static void
view_copy(struct disk *d, struct view *to, const struct view *from)
{
    bytes_share(d, &to->bytes, &from->bytes);
    list_each(node, &from->names) {
        struct name *n = container_of(node, struct name, node);
        struct name *copy = mem_alloc(d->mem, sizeof *copy + n->len);
        *copy = (struct name){ .inode = n->inode, .len = n->len };
        memcpy(copy->text, n->text, n->len);
        list_push_back(&to->names, &copy->node);
    }
}

struct disk *
disk_clone(const struct disk *from)
{
    struct disk *d = mem_new(from->mem, struct disk);

    *d = *from;
    list_init(&d->ops);
    d->inodes = mem_alloc(d->mem, d->cap * sizeof *d->inodes);
    for (uint32_t i = 0; i < d->count; i++) {
        struct inode *inode = d->inodes[i];
        d->inodes[i] = inode = mem_new(d->mem, struct inode);
        *inode = *from->inodes[i];
        view_init(&inode->cache);
        view_init(&inode->durable);
        if (inode->used) {
            view_copy(d, &inode->cache, &from->inodes[i]->cache);
            view_copy(d, &inode->durable, &from->inodes[i]->durable);
        }
    }
    list_each(node, &from->ops) {
        const struct op *o = container_of(node, struct op, node);
        struct op *copy = mem_alloc(d->mem, o->size);
        memcpy(copy, o, o->size);
        if (copy->op.kind >= DISK_LINK) {
            copy->op.name.ptr = copy->bytes;
            copy->op.to_name.ptr = copy->bytes + copy->op.name.len;
        }
        list_push_back(&d->ops, &copy->node);
    }
    return d;
}

bool
disk_look_up(const struct disk *d, disk_inode dir, struct str name, disk_inode *out)
{
    const struct inode *inode = inode_of(d, dir);
    struct name *n = inode->is_dir ? name_find(&inode->cache, name) : NULL;

    if (!n)
        return false;
    *out = n->inode;
    return true;
}

bool
disk_walk(const struct disk *d, disk_inode dir, struct str path, disk_inode *out)
{
    while (!str_is_absent(path)) {
        struct str part = str_cut(&path, '/');
        if (part.len && !str_eq(part, S(".")) && !disk_look_up(d, dir, part, &dir))
            return false;
    }
    *out = dir;
    return true;
}

bool
disk_is_dir(const struct disk *d, disk_inode i)
{
    return inode_of(d, i)->is_dir;
}

struct err
disk_create(struct disk *d, disk_inode dir, struct str name, bool is_dir, disk_inode *out)
{
    if (!inode_of(d, dir)->is_dir)
        return err_from_os(ENOTDIR, "create");
    if (name_find(&d->inodes[dir]->cache, name))
        return err_from_os(EEXIST, "create");
    disk_inode inode = inode_new(d, is_dir);
    name_put(d, &d->inodes[dir]->cache, name, inode);
    op_add(d, (struct disk_op){ .number = d->next_number++, .kind = DISK_LINK, .inode = inode, .dir = dir, .to = dir }, name,
           S(""));
    *out = inode;
    return OK;
}

struct err
disk_rename(struct disk *d, disk_inode from, struct str name, disk_inode to, struct str new_name)
{
    struct name *n = name_find(&inode_of(d, from)->cache, name);

    if (!n || !inode_of(d, to)->is_dir)
        return err_from_os(ENOENT, "rename");
    disk_inode inode = n->inode;
    if (from == to && str_eq(name, new_name))
        return OK;
    op_add(d, (struct disk_op){ .number = d->next_number++, .kind = DISK_RENAME, .inode = inode, .dir = from, .to = to },
           name, new_name);
    name_put(d, &d->inodes[to]->cache, new_name, inode);
    name_remove(d, &d->inodes[from]->cache, name);
    return OK;
}

struct err
disk_unlink(struct disk *d, disk_inode dir, struct str name)
{
    struct name *n = name_find(&inode_of(d, dir)->cache, name);

    if (!n)
        return err_from_os(ENOENT, "unlink");
    if (inode_of(d, n->inode)->is_dir)
        return err_from_os(EISDIR, "unlink");
    op_add(d, (struct disk_op){ .number = d->next_number++, .kind = DISK_UNLINK, .inode = n->inode, .dir = dir, .to = dir },
           name, S(""));
    name_remove(d, &d->inodes[dir]->cache, name);
    return OK;
}

struct str
disk_name(const struct disk *d, disk_inode dir, size_t nth)
{
    list_each(node, &inode_of(d, dir)->cache.names)
        if (nth-- == 0) {
            struct name *n = container_of(node, struct name, node);
            return str_new(n->text, n->len);
        }
    return (struct str){ NULL, 0 };
}

void
disk_hold(struct disk *d, disk_inode i)
{
    inode_of(d, i)->holds++;
}

void
disk_release(struct disk *d, disk_inode i)
{
    CHECK(inode_of(d, i)->holds > 0);
    d->inodes[i]->holds--;
    inode_unused(d, i);
}

void
disk_release_all(struct disk *d)
{
    for (uint32_t i = 0; i < d->count; i++)
        if (d->inodes[i]->used && d->inodes[i]->holds) {
            d->inodes[i]->holds = 0;
            inode_unused(d, i);
        }
}

/* ---- reading and writing ----------------------------------------------------------------------------------------- */

uint64_t
disk_size(const struct disk *d, disk_inode i)
{
    return inode_of(d, i)->cache.bytes.len;
}

struct str
disk_bytes(const struct disk *d, disk_inode i)
{
    const struct bytes *b = &inode_of(d, i)->cache.bytes;

    return str_new(b->buffer ? b->buffer->ptr : "", b->len);
}

size_t
disk_read(const struct disk *d, disk_inode i, void *memory, size_t len, uint64_t offset)
{
    struct str all = str_from(disk_bytes(d, i), offset);

    if (len > all.len)
        len = all.len;
    if (len)
        memcpy(memory, all.ptr, len);
    return len;
}

/* Of files whose last name is gone, though not durably yet: a file system gives that up before it says ENOSPC. */
static uint64_t
given_up(const struct disk *d)
{
    uint64_t sum = 0, named = 0;

    for (uint32_t i = 0; i < d->count; i++) {
        const struct inode *inode = d->inodes[i];

        if (inode->used && !inode->is_dir && inode->holds == 0)
            sum += blocks(inode->cache.bytes.len);
        if (!inode->used || !inode->is_dir)
            continue;
        for (struct list *at = inode->cache.names.next; at != &inode->cache.names; at = at->next) {
            const struct inode *file = d->inodes[container_of(at, struct name, node)->inode];
            if (!file->is_dir && file->holds == 0)
                named += blocks(file->cache.bytes.len);
        }
    }
    return sum > named ? sum - named : 0; /* a file with two names counts twice in `named` */
}

static struct err
resize(struct disk *d, disk_inode i, uint64_t size, const char *what)
{
    struct bytes *b = &inode_of(d, i)->cache.bytes;
    uint64_t before = blocks(b->len), after = blocks(size);

    if (after > before && d->used + (after - before) > d->capacity && after - before > disk_free_space(d))
        return err_from_os(ENOSPC, what);
    d->used = d->used + after - before;
    bytes_set_len(d, b, size);
    op_add(d, (struct disk_op){ .number = d->next_number++, .kind = DISK_SIZE, .inode = i, .len = size }, S(""), S(""));
    return OK;
}

struct err
disk_write(struct disk *d, disk_inode i, struct str bytes, uint64_t offset)
{
    if (offset + bytes.len > inode_of(d, i)->cache.bytes.len)
        TRY(resize(d, i, offset + bytes.len, "write a file"));
    bytes_put(d, &d->inodes[i]->cache.bytes, bytes.ptr, bytes.len, offset);
    op_add(d, (struct disk_op){ .number = d->next_number++, .kind = DISK_WRITE, .inode = i, .offset = offset,
                                .len = bytes.len }, bytes, S(""));
    return OK;
}

struct err
disk_set_size(struct disk *d, disk_inode i, uint64_t size)
{
    return size == disk_size(d, i) ? OK : resize(d, i, size, "set a file's size");
}

struct err
disk_claim(struct disk *d, disk_inode i, uint64_t size)
{
    return size <= disk_size(d, i) ? OK : resize(d, i, size, "take space for a file");
}

uint64_t
disk_free_space(const struct disk *d)
{
    uint64_t used = d->used - given_up(d);

    return used < d->capacity ? d->capacity - used : 0;
}

uint64_t
disk_used(const struct disk *d)
{
    return d->used;
}

void
disk_set_capacity(struct disk *d, uint64_t capacity)
{
    d->capacity = capacity;
}

/* ---- what lasts -------------------------------------------------------------------------------------------------- */

static bool
concerns(const struct disk_op *op, disk_inode i, bool is_dir)
{
    return is_dir ? op->kind >= DISK_LINK && (op->dir == i || op->to == i) : op->kind < DISK_LINK && op->inode == i;
}

/* The new name is on disk; that the old one is gone need not be, if it stood in another directory. */
static void
keep_new_name(struct disk *d, struct op *o)
{
    name_put(d, &d->inodes[o->op.to]->durable, o->op.to_name, o->op.inode);
    refer(d, &o->op, false);
    o->op.kind = DISK_UNLINK;
    o->op.to = o->op.dir;
    refer(d, &o->op, true);
}

void
disk_sync(struct disk *d, disk_inode i)
{
    bool is_dir = inode_of(d, i)->is_dir;

    d->inodes[i]->ops++; /* it must not end meanwhile */
    list_each_safe(node, &d->ops) {
        struct op *o = container_of(node, struct op, node);
        if (!concerns(&o->op, i, is_dir))
            continue;
        if (o->op.kind == DISK_RENAME && o->op.dir != i) {
            keep_new_name(d, o);
            continue;
        }
        apply(d, o, NULL);
        op_free(d, o);
    }
    d->inodes[i]->ops--;
    inode_unused(d, i);
}

void
disk_write_back(struct disk *d, size_t most)
{
    while (d->op_count > most) {
        struct op *o = container_of(d->ops.next, struct op, node);
        apply(d, o, NULL);
        op_free(d, o);
    }
}

void
disk_sync_all(struct disk *d)
{
    while (!list_is_empty(&d->ops)) {
        struct op *o = container_of(d->ops.next, struct op, node);
        apply(d, o, NULL);
        op_free(d, o);
    }
}

static void
decide(struct disk *d, struct op *o, const struct disk_choice *choice)
{
    enum disk_fate fate = choice->fate(choice->arg, &o->op);

    if (fate == DISK_TORN && o->op.kind == DISK_RENAME && o->op.dir != o->op.to)
        name_put(d, &d->inodes[o->op.to]->durable, o->op.to_name, o->op.inode);
    else if (fate == DISK_TORN && o->op.kind == DISK_WRITE)
        apply(d, o, choice);
    else if (fate == DISK_KEPT)
        apply(d, o, NULL);
}

void
disk_fail_sync(struct disk *d, disk_inode i, const struct disk_choice *choice, bool drop_cache)
{
    bool is_dir = inode_of(d, i)->is_dir;

    d->inodes[i]->ops++;
    list_each_safe(node, &d->ops) {
        struct op *o = container_of(node, struct op, node);
        if (o->op.kind != DISK_WRITE || !concerns(&o->op, i, is_dir))
            continue;
        decide(d, o, choice);
        op_free(d, o);
    }
    d->inodes[i]->ops--;
    if (drop_cache && !is_dir)
        disk_forget_cache(d, i);
    inode_unused(d, i);
}

void
disk_forget_cache(struct disk *d, disk_inode i)
{
    struct inode *inode = d->inodes[i];
    uint64_t size = inode->cache.bytes.len;

    bytes_share(d, &inode->cache.bytes, &inode->durable.bytes);
    bytes_cut(d, &inode->cache.bytes, inode->cache.bytes.len);
    bytes_set_len(d, &inode->cache.bytes, size);
    list_each(node, &d->ops) {
        struct op *o = container_of(node, struct op, node);
        if (o->op.kind == DISK_WRITE && o->op.inode == i && o->op.offset < size)
            bytes_put(d, &inode->cache.bytes, o->bytes, o->op.len < size - o->op.offset ? o->op.len : size - o->op.offset,
                      o->op.offset);
    }
}

void
disk_lose_power(struct disk *d, const struct disk_choice *choice)
{
    while (!list_is_empty(&d->ops)) {
        struct op *o = container_of(d->ops.next, struct op, node);
        decide(d, o, choice);
        op_free(d, o);
    }
    /* The names first: they say which inodes there still are. */
    for (uint32_t i = 0; i < d->count; i++) {
        struct inode *inode = d->inodes[i];
        CHECK(!inode->used || inode->holds == 0);
        if (!inode->used || !inode->is_dir)
            continue;
        list_each(node, &inode->durable.names) {
            struct name *n = container_of(node, struct name, node);
            struct name *same = name_find(&inode->cache, str_new(n->text, n->len));
            if (!same || same->inode != n->inode)
                name_put(d, &inode->cache, str_new(n->text, n->len), n->inode);
        }
        list_each_safe(node, &inode->cache.names) {
            struct name *n = container_of(node, struct name, node);
            if (!name_find(&inode->durable, str_new(n->text, n->len)))
                name_remove(d, &inode->cache, str_new(n->text, n->len));
        }
    }
    d->used = 0;
    for (uint32_t i = 0; i < d->count; i++) {
        struct inode *inode = d->inodes[i];
        if (!inode->used || inode->is_dir)
            continue;
        struct bytes *b = &inode->durable.bytes;
        bytes_cut(d, b, b->len); /* blocks that no size ever covered are nobody's */
        bytes_share(d, &inode->cache.bytes, b);
        d->used += blocks(b->len);
    }
}

size_t
disk_op_count(const struct disk *d)
{
    return d->op_count;
}

const struct disk_op *
disk_op(const struct disk *d, size_t nth)
{
    list_each(node, &d->ops)
        if (nth-- == 0)
            return &container_of(node, struct op, node)->op;
    return NULL;
}

uint64_t
disk_next_number(const struct disk *d)
{
    return d->next_number;
}

/* ---- damage ------------------------------------------------------------------------------------------------------ */

static void
change(struct disk *d, struct bytes *b, uint64_t offset, uint64_t len, uint8_t keep, uint8_t flip)
{
    if (offset >= b->len)
        return;
    bytes_own(d, b, b->len);
    if (b->top < b->len)
        b->top = b->len;
    for (uint64_t i = offset; i < offset + len && i < b->len; i++)
        b->buffer->ptr[i] = (char)((b->buffer->ptr[i] & keep) ^ flip);
}

void
disk_flip(struct disk *d, disk_inode i, uint64_t offset, uint8_t bits)
{
    change(d, &inode_of(d, i)->cache.bytes, offset, 1, 0xff, bits);
    change(d, &inode_of(d, i)->durable.bytes, offset, 1, 0xff, bits);
}

void
disk_blank(struct disk *d, disk_inode i, uint64_t offset, uint64_t len)
{
    change(d, &inode_of(d, i)->cache.bytes, offset, len, 0, 0);
    change(d, &inode_of(d, i)->durable.bytes, offset, len, 0, 0);
}

static void
each_below(const struct disk *d, disk_inode dir, struct text *path, void (*each)(void *, disk_inode, struct str), void *arg)
{
    size_t before = path->len;

    list_each(node, &inode_of(d, dir)->cache.names) {
        const struct name *n = container_of(node, struct name, node);
        path->len = before;
        text_put_byte(path, '/');
        text_put(path, str_new(n->text, n->len));
        CHECK(!path->full);
        if (d->inodes[n->inode]->is_dir)
            each_below(d, n->inode, path, each, arg);
        else
            each(arg, n->inode, text_str(path));
    }
    path->len = before;
}

void
disk_each_file(const struct disk *d, disk_inode dir, void (*each)(void *, disk_inode, struct str), void *arg)
{
    char memory[PATH_BYTES];
    struct text path = text_init(memory, sizeof memory);

    each_below(d, dir, &path, each, arg);
}
