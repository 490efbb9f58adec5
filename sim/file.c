/*
 * file - directories and files of rt.h over disk.h.
 *
 * An operation takes time: the fiber waits, and what it does happens when that time is over. A process that is killed
 * meanwhile leaves work that its threads may or may not have done, a write also in part: each job that had begun is drawn.
 * Jobs of one lane come one after the other, those of LANE_POOL and LANE_DELIVERY as they like.
 */
#include "sim/sim.h"

#include "base/arena.h"
#include "base/check.h"
#include "runtime/host.h"

#include <errno.h>
#include <string.h>

enum { UNSYNCED_MAX = 200, NAME_BYTES = 1536 };

struct open_file { /* what a descriptor of a file or directory refers to */
    struct object object;
    disk_inode inode;
    bool locked;
    struct list in_locks; /* unused while not locked */
};

struct dir {
    struct list node;
    struct process *process;
    struct open_file *file;
};

struct file {
    struct list node;
    struct process *process;
    struct open_file *file;
};

/* On the stack of the fiber that waits for it. */
struct file_job {
    struct list node;        /* process->jobs */
    struct sim_event event;
    struct process *process;
    struct fiber *fiber;
    struct err (*work)(struct file_job *);
    void (*in_part)(struct file_job *); /* of a process that was killed; NULL: it is done whole or not at all */
    enum seam_call call;
    int64_t begins;
    struct err err;
    disk_inode inode, inode2;
    struct str name, name2;
    unsigned flags;
    bool is_dir, sync, done;
    const struct str *parts;
    size_t part_count;
    void *memory;
    size_t len;
    uint64_t offset, number, number2;
    struct open_file *opened;
    void (*offloaded)(void *argument); /* rt_offload() */
    void *argument;
};

static struct disk *
disk_of(const struct file_job *j)
{
    return j->process->sim->disk;
}

/* ---- time and errors --------------------------------------------------------------------------------------------- */

static struct err
do_work(struct file_job *j)
{
    int error = j->call ? faults_disk_error(j->process->sim, j->process, j->call) : 0; /* a sync asks for itself */

    return error ? err_from_os(error, "use the disk") : j->work(j);
}

static void
job_is_done(struct sim *sim, struct sim_event *event)
{
    struct file_job *j = container_of(event, struct file_job, event);

    j->done = true;
    j->err = do_work(j);
    sim_note(sim, j->process, "disk", (uint64_t)j->call << 32 | (uint32_t)j->err.os, j->offset);
    sched_wake(j->fiber, ERR_NONE);
}

static void
wait_for(struct file_job *j, struct process *p, int64_t begins, int64_t done)
{
    j->process = p;
    j->begins = begins;
    j->fiber = p->rt.running;
    j->event = (struct sim_event){ .due = job_is_done };
    list_push_back(&p->jobs, &j->node);
    sim_at(p->sim, &j->event, done);
    sched_park_firmly(&p->rt);
    list_remove(&j->node);
}

static struct err
run(struct file_job *j, struct process *p, enum lane lane, int64_t until)
{
    struct sim *sim = p->sim;
    struct sim_lane *l = &p->lanes[lane];
    bool in_order = lane < LANE_POOL;

    TRY(sched_enter(&p->rt));
    process_step(p);
    j->begins = in_order && l->free_at > sim->now ? l->free_at : sim->now;
    if (until != FOREVER && j->begins - p->boot > until) {
        TRY(rt_sleep(&p->rt, until));
        return ERR(ERR_TIMEOUT, "wait for the disk");
    }
    int64_t done = j->begins + dice_between(sim, sim->disk_speed.min, sim->disk_speed.max);
    if (done < sim->disk_speed.stall_until)
        done = sim->disk_speed.stall_until + (int64_t)dice_below(sim, 1000000);
    if (in_order)
        l->free_at = done;
    wait_for(j, p, j->begins, done);
    return j->err;
}

/* ---- descriptors ------------------------------------------------------------------------------------------------- */

static struct open_file *
open_inode(struct sim *sim, disk_inode inode)
{
    struct open_file *f = mem_new(&sim->mem, struct open_file);

    f->object = (struct object){ OBJECT_FILE, 1, sim };
    f->inode = inode;
    disk_hold(sim->disk, inode);
    return f;
}

void
file_object_end(struct object *o)
{
    struct open_file *f = container_of(o, struct open_file, object);

    if (f->locked)
        list_remove(&f->in_locks);
    disk_release(o->sim->disk, f->inode);
    mem_free(&o->sim->mem, f, sizeof *f);
}

static struct dir *
dir_of(struct process *p, struct open_file *f)
{
    struct dir *d = process_alloc_new(p, struct dir);

    *d = (struct dir){ .process = p, .file = f };
    list_push_back(&p->dirs, &d->node);
    return d;
}

static struct file *
file_of(struct process *p, struct open_file *f)
{
    struct file *file = process_alloc_new(p, struct file);

    *file = (struct file){ .process = p, .file = f };
    list_push_back(&p->files, &file->node);
    return file;
}

/* A job of a process that is killed: its thread had begun or not, and the kernel ends what it has begun. */
static void
drop_job(struct file_job *j, bool killed)
{
    struct sim *sim = j->process->sim;

    sim_stop_event(sim, &j->event);
    list_remove(&j->node);
    if (!j->done && killed && j->begins <= sim->now && dice_chance(sim, 600)) {
        if (j->in_part && dice_chance(sim, 500))
            j->in_part(j);
        else
            (void)do_work(j);
    }
    if (j->opened)
        object_release(&j->opened->object);
}

void
file_close_all(struct process *p, bool killed)
{
    list_each_safe(node, &p->jobs)
        drop_job(container_of(node, struct file_job, node), killed);
    while (!list_is_empty(&p->files)) {
        struct file *f = container_of(p->files.next, struct file, node);
        list_remove(&f->node);
        object_release(&f->file->object);
    }
    while (!list_is_empty(&p->dirs)) {
        struct dir *d = container_of(p->dirs.next, struct dir, node);
        list_remove(&d->node);
        object_release(&d->file->object);
    }
}

/* ---- names ------------------------------------------------------------------------------------------------------- */

static struct err
check_name(struct str name)
{
    struct str rest = name;

    if (name.len == 0 || name.len >= NAME_BYTES || str_has_byte(name, '\0') || name.ptr[0] == '/')
        return ERR(ERR_SYNTAX, "use a file name");
    while (!str_is_absent(rest))
        if (str_eq(str_cut(&rest, '/'), S("..")))
            return ERR(ERR_SYNTAX, "use a file name");
    return OK;
}

/* The directory that holds the last part of a path. */
static bool
last_part(const struct disk *d, disk_inode *dir, struct str *name)
{
    size_t slash = str_find_last_byte(*name, '/');

    if (slash == name->len)
        return true;
    struct str before = str_slice(*name, 0, slash);
    *name = str_from(*name, slash + 1);
    return disk_walk(d, *dir, before, dir) && disk_is_dir(d, *dir);
}

static struct err
work_open(struct file_job *j)
{
    struct disk *d = disk_of(j);
    disk_inode dir = j->inode, found;
    struct str name = j->name;

    if (!disk_is_dir(d, dir) || !last_part(d, &dir, &name))
        return err_from_os(ENOENT, "open");
    bool there = disk_walk(d, dir, name, &found);
    if (!there && !(j->flags & FILE_CREATE))
        return err_from_os(ENOENT, "open");
    if (there && j->flags & FILE_NEW)
        return err_from_os(EEXIST, "open");
    if (there && disk_is_dir(d, found) != j->is_dir)
        return err_from_os(j->is_dir ? ENOTDIR : EISDIR, "open");
    if (!there) {
        if (disk_free_space(d) < DISK_BLOCK)
            return err_from_os(ENOSPC, "open");
        TRY(disk_create(d, dir, name, false, &found));
    }
    if (there && j->flags & FILE_TRUNCATE)
        TRY(disk_set_size(d, found, 0));
    j->opened = open_inode(j->process->sim, found);
    return OK;
}

struct err
dir_open(struct rt *rt, struct str path, enum lane lane, int64_t until, struct dir **out)
{
    struct file_job j = { .work = work_open, .call = CALL_OPEN, .inode = DISK_ROOT, .name = path, .is_dir = true };
    struct process *p = process_of(rt);

    TRY(run(&j, p, lane, until));
    *out = dir_of(p, j.opened);
    return OK;
}

/* Of host.h; it stands here for what it opens. */
struct err
host_open(struct rt *rt, struct str path, int64_t until, struct handle *out)
{
    struct file_job j = { .work = work_open, .call = CALL_OPEN, .inode = DISK_ROOT, .name = path };
    struct process *p = process_of(rt);

    TRY(run(&j, p, LANE_POOL, until));
    *out = object_give(p, &j.opened->object);
    return OK;
}

struct err
dir_from_handle(struct rt *rt, struct handle handle, struct dir **out)
{
    struct process *p = process_of(rt);
    struct object *o = object_take(p, handle);

    CHECK(o->kind == OBJECT_FILE);
    *out = dir_of(p, container_of(o, struct open_file, object));
    return OK;
}

struct err
dir_open_at(struct dir *dir, struct str name, enum lane lane, int64_t until, struct dir **out)
{
    struct file_job j = { .work = work_open, .call = CALL_OPEN, .inode = dir->file->inode, .name = name, .is_dir = true };
    struct process *p = dir->process;

    TRY(check_name(name));
    TRY(run(&j, p, lane, until));
    *out = dir_of(p, j.opened);
    return OK;
}

struct handle
dir_handle(struct rt *rt, struct dir *dir)
{
    if (faults_call(process_of(rt), CALL_DUPLICATE))
        return HANDLE_NONE;
    dir->file->object.refs++;
    return object_give(process_of(rt), &dir->file->object);
}

static struct err
work_make(struct file_job *j)
{
    disk_inode dir = j->inode, made;
    struct str name = j->name;

    if (!last_part(disk_of(j), &dir, &name))
        return err_from_os(ENOENT, "make a directory");
    return disk_create(disk_of(j), dir, name, true, &made);
}

struct err
dir_make(struct dir *dir, struct str name, unsigned mode, enum lane lane, int64_t until)
{
    struct file_job j = { .work = work_make, .call = CALL_DIR, .inode = dir->file->inode, .name = name };

    (void)mode;
    TRY(check_name(name));
    return run(&j, dir->process, lane, until);
}

static struct err
work_rename(struct file_job *j)
{
    disk_inode from = j->inode, to = j->inode2;
    struct str name = j->name, new_name = j->name2;

    if (!last_part(disk_of(j), &from, &name) || !last_part(disk_of(j), &to, &new_name))
        return err_from_os(ENOENT, "rename");
    return disk_rename(disk_of(j), from, name, to, new_name);
}

struct err
dir_rename(struct dir *from, struct str name, struct dir *to, struct str new_name, enum lane lane, int64_t until)
{
    struct file_job j = { .work = work_rename, .call = CALL_DIR, .inode = from->file->inode, .name = name,
                          .inode2 = to->file->inode, .name2 = new_name };

    TRY(check_name(name));
    TRY(check_name(new_name));
    return run(&j, from->process, lane, until);
}

static struct err
work_unlink(struct file_job *j)
{
    disk_inode dir = j->inode;
    struct str name = j->name;

    if (!last_part(disk_of(j), &dir, &name))
        return err_from_os(ENOENT, "unlink");
    return disk_unlink(disk_of(j), dir, name);
}

struct err
dir_unlink(struct dir *dir, struct str name, enum lane lane, int64_t until)
{
    struct file_job j = { .work = work_unlink, .call = CALL_DIR, .inode = dir->file->inode, .name = name };

    TRY(check_name(name));
    return run(&j, dir->process, lane, until);
}

/* ---- sync -------------------------------------------------------------------------------------------------------- */

static enum disk_fate
draw_fate(void *arg, const struct disk_op *op)
{
    (void)op;
    return (enum disk_fate)dice_below(arg, 3);
}

static bool
draw_sector(void *arg, const struct disk_op *op, uint64_t sector)
{
    (void)op;
    (void)sector;
    return dice_below(arg, 2);
}

struct disk_choice
file_draws(struct sim *sim)
{
    return (struct disk_choice){ draw_fate, draw_sector, sim };
}

/* An error of a sync is not only an error: what it covered is lost, and the next one says nothing of it. */
static struct err
sync_inode(struct file_job *j, disk_inode inode, enum seam_call call, const char *what)
{
    struct sim *sim = j->process->sim;
    int error = faults_disk_error(sim, j->process, call);

    if (!error) {
        disk_sync(sim->disk, inode);
        return OK;
    }
    struct disk_choice choice = sim->call_watch ? sim->call_watch->failed_sync : file_draws(sim);
    disk_fail_sync(sim->disk, inode, &choice, sim->call_watch ? sim->call_watch->drops_cache : dice_chance(sim, 300));
    return err_from_os(error, what);
}

static struct err
work_sync_dir(struct file_job *j)
{
    return sync_inode(j, j->inode, CALL_SYNC_DIR, "sync a directory");
}

struct err
dir_sync(struct dir *dir, enum lane lane, int64_t until)
{
    struct file_job j = { .work = work_sync_dir, .inode = dir->file->inode };

    return run(&j, dir->process, lane, until);
}

static struct err
work_sync(struct file_job *j)
{
    return sync_inode(j, j->inode, CALL_SYNC, "sync a file");
}

static struct err
work_rename_sync(struct file_job *j)
{
    disk_inode to = j->inode2;
    struct str new_name = j->name2;

    TRY(work_rename(j));
    CHECK(last_part(disk_of(j), &to, &new_name));
    return sync_inode(j, to, CALL_SYNC_DIR, "sync a directory");
}

static void
rename_only(struct file_job *j)
{
    (void)work_rename(j);
}

struct err
dir_rename_sync(struct dir *from, struct str name, struct dir *to, struct str new_name, enum lane lane, int64_t until)
{
    struct file_job j = { .work = work_rename_sync, .in_part = rename_only, .call = CALL_DIR, .inode = from->file->inode,
                          .name = name, .inode2 = to->file->inode, .name2 = new_name };

    TRY(check_name(name));
    TRY(check_name(new_name));
    return run(&j, from->process, lane, until);
}

struct err
file_sync(struct file *file, enum lane lane, int64_t until)
{
    struct file_job j = { .work = work_sync, .inode = file->file->inode };

    return run(&j, file->process, lane, until);
}

static struct err
work_forget(struct file_job *j)
{
    disk_forget_cache(disk_of(j), j->inode);
    return OK;
}

struct err
file_forget_cache(struct file *file, enum lane lane, int64_t until)
{
    struct file_job j = { .work = work_forget, .call = CALL_OPEN, .inode = file->file->inode };

    return run(&j, file->process, lane, until);
}

/* ---- directories as a whole -------------------------------------------------------------------------------------- */

static struct err
work_free_space(struct file_job *j)
{
    j->number = disk_free_space(disk_of(j));
    j->number2 = 1 << 20;
    return OK;
}

struct err
dir_free_space(struct dir *dir, enum lane lane, int64_t until, uint64_t *out_bytes, uint64_t *out_inodes)
{
    struct file_job j = { .work = work_free_space, .call = CALL_OPEN, .inode = dir->file->inode };

    TRY(run(&j, dir->process, lane, until));
    *out_bytes = j.number;
    *out_inodes = j.number2;
    return OK;
}

static struct err
work_nothing(struct file_job *j)
{
    (void)j;
    return OK;
}

struct err
dir_list(struct dir *dir, struct arena *arena, enum lane lane, int64_t until, struct str **out_names, size_t *out_count)
{
    struct file_job j = { .work = work_nothing, .call = CALL_OPEN };
    struct disk *d = dir->process->sim->disk;
    size_t count = 0, bytes = 0;

    TRY(run(&j, dir->process, lane, until));
    while (!str_is_absent(disk_name(d, dir->file->inode, count)))
        bytes += disk_name(d, dir->file->inode, count++).len + 1;
    if ((count + 1) * sizeof **out_names + bytes > arena->max - arena->used)
        return ERR(ERR_LIMIT, "read a directory of so many names");
    *out_names = arena_alloc(arena, (count + 1) * sizeof **out_names);
    for (size_t i = 0; i < count; i++)
        (*out_names)[i] = arena_keep(arena, disk_name(d, dir->file->inode, i));
    *out_count = count;
    return OK;
}

static struct err
work_lock(struct file_job *j)
{
    struct sim *sim = j->process->sim;

    TRY(work_open(j));
    list_each(node, &sim->locks) {
        if (container_of(node, struct open_file, in_locks)->inode != j->opened->inode)
            continue;
        object_release(&j->opened->object);
        j->opened = NULL;
        return err_from_os(EWOULDBLOCK, "lock");
    }
    j->opened->locked = true;
    list_push_back(&sim->locks, &j->opened->in_locks);
    return OK;
}

struct err
dir_lock(struct dir *dir, struct str name, int64_t until, struct file **out)
{
    struct file_job j = { .work = work_lock, .call = CALL_OPEN, .inode = dir->file->inode, .name = name,
                          .flags = FILE_READ | FILE_WRITE | FILE_CREATE };
    struct process *p = dir->process;

    TRY(check_name(name));
    TRY(run(&j, p, LANE_BACKGROUND, until));
    *out = file_of(p, j.opened);
    return OK;
}

void
dir_close(struct dir *dir)
{
    struct process *p = dir->process;
    struct open_file *f = dir->file;

    list_remove(&dir->node);
    mem_free(&p->mem, dir, sizeof *dir);
    object_release(&f->object);
}

/* ---- files ------------------------------------------------------------------------------------------------------- */

struct err
file_open(struct dir *dir, struct str name, unsigned flags, unsigned mode, enum lane lane, int64_t until,
          struct file **out)
{
    struct file_job j = { .work = work_open, .call = CALL_OPEN, .inode = dir->file->inode, .name = name, .flags = flags };
    struct process *p = dir->process;

    (void)mode;
    TRY(check_name(name));
    TRY(run(&j, p, lane, until));
    *out = file_of(p, j.opened);
    return OK;
}

struct err
file_from_handle(struct rt *rt, struct handle handle, struct file **out)
{
    struct process *p = process_of(rt);
    struct object *o = object_take(p, handle);

    CHECK(o->kind == OBJECT_FILE);
    *out = file_of(p, container_of(o, struct open_file, object));
    return OK;
}

static struct err
work_read(struct file_job *j)
{
    j->number = disk_read(disk_of(j), j->inode, j->memory, j->len, j->offset);
    return OK;
}

struct err
file_read(struct file *file, void *memory, size_t len, uint64_t offset, enum lane lane, int64_t until, size_t *out_len)
{
    struct file_job j = { .work = work_read, .call = CALL_READ, .inode = file->file->inode, .memory = memory, .len = len,
                          .offset = offset };

    TRY(run(&j, file->process, lane, until));
    *out_len = j.number;
    return OK;
}

/* One operation of the disk, as pwritev() makes it. */
static struct err
write_up_to(struct file_job *j, size_t most)
{
    struct sim *sim = j->process->sim;
    size_t len = 0;

    for (size_t i = 0; i < j->part_count; i++)
        len += j->parts[i].len;
    char *bytes = mem_alloc(&sim->mem, len);
    size_t at = 0;
    for (size_t i = 0; i < j->part_count; i++) {
        if (j->parts[i].len)
            memcpy(bytes + at, j->parts[i].ptr, j->parts[i].len);
        at += j->parts[i].len;
    }
    struct err e = disk_write(sim->disk, j->inode, str_slice(str_new(bytes, len), 0, most), j->offset);
    mem_free(&sim->mem, bytes, len);
    return e;
}

static struct err
work_write(struct file_job *j)
{
    TRY(write_up_to(j, SIZE_MAX));
    disk_write_back(disk_of(j), UNSYNCED_MAX);
    return j->sync ? sync_inode(j, j->inode, CALL_SYNC, "sync a file") : OK;
}

/* Some of the pages are in the cache. */
static void
write_in_part(struct file_job *j)
{
    size_t len = 0;

    for (size_t i = 0; i < j->part_count; i++)
        len += j->parts[i].len;
    (void)write_up_to(j, dice_below(j->process->sim, len / DISK_BLOCK + 1) * DISK_BLOCK);
}

static struct err
write_parts(struct file *file, const struct str *parts, size_t count, uint64_t offset, enum lane lane, int64_t until,
            bool sync)
{
    struct file_job j = { .work = work_write, .in_part = write_in_part, .call = CALL_WRITE, .inode = file->file->inode,
                          .parts = parts, .part_count = count, .offset = offset, .sync = sync };

    return run(&j, file->process, lane, until);
}

struct err
file_write(struct file *file, const struct str *parts, size_t count, uint64_t offset, enum lane lane, int64_t until)
{
    return write_parts(file, parts, count, offset, lane, until, false);
}

struct err
file_write_sync(struct file *file, const struct str *parts, size_t count, uint64_t offset, enum lane lane,
                int64_t until)
{
    return write_parts(file, parts, count, offset, lane, until, true);
}

static struct err
work_size(struct file_job *j)
{
    j->number = disk_size(disk_of(j), j->inode);
    return OK;
}

struct err
file_size(struct file *file, enum lane lane, int64_t until, uint64_t *out_bytes)
{
    struct file_job j = { .work = work_size, .call = CALL_OPEN, .inode = file->file->inode };

    TRY(run(&j, file->process, lane, until));
    *out_bytes = j.number;
    return OK;
}

static struct err
work_set_size(struct file_job *j)
{
    return disk_set_size(disk_of(j), j->inode, j->offset);
}

struct err
file_set_size(struct file *file, uint64_t bytes, enum lane lane, int64_t until)
{
    struct file_job j = { .work = work_set_size, .call = CALL_WRITE, .inode = file->file->inode, .offset = bytes };

    return run(&j, file->process, lane, until);
}

static struct err
work_claim(struct file_job *j)
{
    return disk_claim(disk_of(j), j->inode, j->offset);
}

struct err
file_claim(struct file *file, uint64_t bytes, enum lane lane, int64_t until)
{
    struct file_job j = { .work = work_claim, .call = CALL_WRITE, .inode = file->file->inode, .offset = bytes };

    return run(&j, file->process, lane, until);
}

void
file_close(struct file *file)
{
    struct process *p = file->process;
    struct open_file *f = file->file;

    list_remove(&file->node);
    mem_free(&p->mem, file, sizeof *file);
    object_release(&f->object);
}

/* ---- helper work ------------------------------------------------------------------------------------------------- */

static struct err
work_offloaded(struct file_job *j)
{
    j->offloaded(j->argument);
    return OK;
}

/* On a thread of its own, which takes as long as a hash of a password does. */
struct err
rt_offload(struct rt *rt, void (*work)(void *arg), void *arg, int64_t until)
{
    struct process *p = process_of(rt);
    struct file_job j = { .work = work_offloaded, .offloaded = work, .argument = arg };

    (void)until; /* there are threads enough */
    TRY(sched_enter(rt));
    process_step(p);
    wait_for(&j, p, p->sim->now, p->sim->now + dice_between(p->sim, MILLISECOND, 60 * MILLISECOND));
    return j.err;
}
