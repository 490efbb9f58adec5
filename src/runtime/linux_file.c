/*
 * linux_file - directories and files, by jobs on a lane's thread. Names are resolved by the kernel below their
 * directory, through no link: RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS (openat2, Linux 5.6).
 */
#include "base/arena.h"
#include "runtime/linux.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum {
    NAME_BYTES = 1536,           /* of a name below a dir */
    PARTS_AT_ONCE = 64,          /* of a gathered write: an iovec on the thread's stack */
    BACKGROUND_STEP = 1 << 20,   /* LANE_BACKGROUND gives way after this much */
};

struct dir {
    struct rt *rt;
    int fd;
};

struct file {
    struct rt *rt;
    int fd;
};

/* What all jobs here share; each adds what it needs. errno never leaves the thread but in `err`. */
struct file_job {
    struct job job;
    struct err err;
    int fd, fd2;
    char name[NAME_BYTES], name2[NAME_BYTES];
    int flags;
    unsigned mode;
    bool sync;            /* a rename: and sync the directory */
    const struct str *parts;
    size_t part_count;
    char *memory;
    size_t len;
    uint64_t offset, number, number2;
    struct str *names;    /* malloc'ed by the thread: rt's heap is the role's alone */
    char *name_bytes;
};

static struct err
run(struct rt *rt, enum lane lane, struct file_job *j, void (*work)(struct job *), int64_t until)
{
    TRY(lane_run(rt, lane, &j->job, work, until, "wait for the disk"));
    return j->err;
}

/* ---- names ------------------------------------------------------------------------------------------------------- */

/* NUL-terminates. The kernel would refuse most of this; a name that is wrong should not depend on it. */
static struct err
put_name(char out[NAME_BYTES], struct str name)
{
    struct str rest = name;

    if (name.len == 0 || name.len >= NAME_BYTES || str_find_byte(name, '\0') < name.len || name.ptr[0] == '/')
        return ERR(ERR_SYNTAX, "use a file name");
    while (!str_is_absent(rest))
        if (str_eq(str_cut(&rest, '/'), S("..")))
            return ERR(ERR_SYNTAX, "use a file name");
    memcpy(out, name.ptr, name.len);
    out[name.len] = '\0';
    return OK;
}

static int
open_below(int dir, const char *name, int flags, unsigned mode)
{
    struct open_how how = {
        .flags = (unsigned)flags | O_CLOEXEC,
        .mode = flags & O_CREAT ? mode : 0,
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS,
    };
    int fd;

    do /* EAGAIN: something was renamed while the kernel looked */
        fd = (int)syscall(SYS_openat2, dir, name, &how, sizeof how);
    while (fd < 0 && (errno == EINTR || errno == EAGAIN));
    return fd;
}

/*
 * mkdirat(), renameat() and unlinkat() know no RESOLVE_BENEATH: with a slash in the name, the directory that holds the
 * last part is opened first. *out_dir is closed by the caller if it is not `dir`.
 */
static const char *
last_part(int dir, char *name, int access, int *out_dir)
{
    char *slash = strrchr(name, '/');

    *out_dir = dir;
    if (!slash)
        return name;
    *slash = '\0';
    *out_dir = open_below(dir, name, access | O_DIRECTORY, 0);
    return slash + 1;
}

static void
close_other(int fd, int than)
{
    if (fd >= 0 && fd != than)
        close(fd);
}

/* ---- directories ------------------------------------------------------------------------------------------------- */

static struct err
dir_new(struct rt *rt, int fd, struct dir **out)
{
    *out = mem_new(rt->mem, struct dir);
    **out = (struct dir){ rt, fd };
    return OK;
}

static void
work_open(struct job *job)
{
    struct file_job *j = container_of(job, struct file_job, job);

    if (j->fd == AT_FDCWD)
        j->fd2 = open(j->name, j->flags | O_CLOEXEC);
    else
        j->fd2 = open_below(j->fd, j->name, j->flags, j->mode);
    j->err = j->fd2 < 0 ? err_here("open") : OK;
}

struct err
dir_open(struct rt *rt, struct str path, enum lane lane, int64_t until, struct dir **out)
{
    struct file_job j = { .fd = AT_FDCWD, .flags = O_RDONLY | O_DIRECTORY };

    if (path.len == 0 || path.len >= sizeof j.name || str_find_byte(path, '\0') < path.len)
        return ERR(ERR_SYNTAX, "open a directory");
    memcpy(j.name, path.ptr, path.len);
    TRY(run(rt, lane, &j, work_open, until));
    return dir_new(rt, j.fd2, out);
}

struct err
dir_from_handle(struct rt *rt, struct handle handle, struct dir **out)
{
    struct stat st;

    if (fstat(handle.number, &st) < 0 || !S_ISDIR(st.st_mode)) {
        close(handle.number);
        return ERR(ERR_NOT_FOUND, "take over a directory");
    }
    return dir_new(rt, handle.number, out);
}

struct err
dir_open_at(struct dir *dir, struct str name, enum lane lane, int64_t until, struct dir **out)
{
    struct file_job j = { .fd = dir->fd, .flags = O_RDONLY | O_DIRECTORY };
    struct rt *rt = dir->rt;

    TRY(put_name(j.name, name));
    TRY(run(rt, lane, &j, work_open, until));
    return dir_new(rt, j.fd2, out);
}

struct handle
dir_handle(struct rt *rt, struct dir *dir)
{
    (void)rt;
    return (struct handle){ fcntl(dir->fd, F_DUPFD_CLOEXEC, 3) };
}

static void
work_make(struct job *job)
{
    struct file_job *j = container_of(job, struct file_job, job);
    int in;
    const char *last = last_part(j->fd, j->name, O_PATH, &in);

    j->err = in < 0 || mkdirat(in, last, j->mode) < 0 ? err_here("make a directory") : OK;
    close_other(in, j->fd);
}

struct err
dir_make(struct dir *dir, struct str name, unsigned mode, enum lane lane, int64_t until)
{
    struct file_job j = { .fd = dir->fd, .mode = mode };

    TRY(put_name(j.name, name));
    return run(dir->rt, lane, &j, work_make, until);
}

static void
work_rename(struct job *job)
{
    struct file_job *j = container_of(job, struct file_job, job);
    int from, to = -1;
    const char *last = last_part(j->fd, j->name, O_PATH, &from), *new_last = NULL;

    if (from >= 0)
        new_last = last_part(j->fd2, j->name2, j->sync ? O_RDONLY : O_PATH, &to);
    j->err = from < 0 || to < 0 || renameat(from, last, to, new_last) < 0 ? err_here("rename") : OK;
    if (j->sync && !err_is(j->err) && fsync(to) < 0)
        j->err = err_here("sync a directory");
    close_other(from, j->fd);
    close_other(to, j->fd2);
}

static struct err
rename_in(struct dir *from, struct str name, struct dir *to, struct str new_name, bool sync, enum lane lane, int64_t until)
{
    struct file_job j = { .fd = from->fd, .fd2 = to->fd, .sync = sync };

    TRY(put_name(j.name, name));
    TRY(put_name(j.name2, new_name));
    return run(from->rt, lane, &j, work_rename, until);
}

struct err
dir_rename(struct dir *from, struct str name, struct dir *to, struct str new_name, enum lane lane, int64_t until)
{
    return rename_in(from, name, to, new_name, false, lane, until);
}

struct err
dir_rename_sync(struct dir *from, struct str name, struct dir *to, struct str new_name, enum lane lane, int64_t until)
{
    return rename_in(from, name, to, new_name, true, lane, until);
}

static void
work_unlink(struct job *job)
{
    struct file_job *j = container_of(job, struct file_job, job);
    int in;
    const char *last = last_part(j->fd, j->name, O_PATH, &in);

    j->err = in < 0 || unlinkat(in, last, 0) < 0 ? err_here("unlink") : OK;
    close_other(in, j->fd);
}

struct err
dir_unlink(struct dir *dir, struct str name, enum lane lane, int64_t until)
{
    struct file_job j = { .fd = dir->fd };

    TRY(put_name(j.name, name));
    return run(dir->rt, lane, &j, work_unlink, until);
}

static void
work_sync_dir(struct job *job)
{
    struct file_job *j = container_of(job, struct file_job, job);

    j->err = fsync(j->fd) < 0 ? err_here("sync a directory") : OK;
}

struct err
dir_sync(struct dir *dir, enum lane lane, int64_t until)
{
    struct file_job j = { .fd = dir->fd };

    return run(dir->rt, lane, &j, work_sync_dir, until);
}

static void
work_free_space(struct job *job)
{
    struct file_job *j = container_of(job, struct file_job, job);
    struct statvfs st;

    if (fstatvfs(j->fd, &st) < 0) {
        j->err = err_here("ask for free space");
        return;
    }
    j->number = (uint64_t)st.f_bavail * st.f_frsize;
    j->number2 = st.f_files == 0 ? UINT64_MAX : st.f_favail; /* btrfs and the like have no fixed number of inodes */
    j->err = OK;
}

struct err
dir_free_space(struct dir *dir, enum lane lane, int64_t until, uint64_t *out_bytes, uint64_t *out_inodes)
{
    struct file_job j = { .fd = dir->fd };

    TRY(run(dir->rt, lane, &j, work_free_space, until));
    *out_bytes = j.number;
    *out_inodes = j.number2;
    return OK;
}

static int
compare_names(const void *a, const void *b)
{
    return str_cmp(*(const struct str *)a, *(const struct str *)b);
}

/* All names into one block of bytes, each ended by a NUL. */
static struct err
read_names(DIR *d, char **out_bytes, size_t *out_len, size_t *out_count)
{
    char *bytes = NULL;
    size_t len = 0, cap = 0, count = 0;
    struct dirent *entry;

    while (errno = 0, (entry = readdir(d))) {
        size_t size = strlen(entry->d_name) + 1;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (cap - len < size) {
            cap = cap ? cap * 2 : 4096;
            char *grown = realloc(bytes, cap);
            CHECK(grown);
            bytes = grown;
        }
        memcpy(bytes + len, entry->d_name, size);
        len += size;
        count++;
    }
    struct err e = errno ? err_here("read a directory") : OK;
    *out_bytes = bytes;
    *out_len = len;
    *out_count = count;
    return e;
}

static void
work_list(struct job *job)
{
    struct file_job *j = container_of(job, struct file_job, job);
    int fd = open_below(j->fd, ".", O_RDONLY | O_DIRECTORY, 0); /* an own position in it */
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    size_t count;

    if (!d) {
        j->err = err_here("read a directory");
        close_other(fd, -1);
        return;
    }
    j->err = read_names(d, &j->name_bytes, &j->len, &count);
    closedir(d);
    j->names = calloc(count + 1, sizeof *j->names);
    CHECK(j->names);
    size_t at = 0;
    for (size_t i = 0; i < count; i++) {
        j->names[i] = str_from_cstr(j->name_bytes + at);
        at += j->names[i].len + 1;
    }
    qsort(j->names, count, sizeof *j->names, compare_names);
    j->number = count;
}

struct err
dir_list(struct dir *dir, struct arena *arena, enum lane lane, int64_t until, struct str **out_names, size_t *out_count)
{
    struct file_job j = { .fd = dir->fd };
    struct err e = run(dir->rt, lane, &j, work_list, until);

    if (!err_is(e) && (j.number + 1) * sizeof **out_names + j.len > arena->max - arena->used)
        e = ERR(ERR_LIMIT, "read a directory of so many names");
    if (!err_is(e)) {
        *out_names = arena_alloc(arena, (j.number + 1) * sizeof **out_names);
        for (size_t i = 0; i < j.number; i++)
            (*out_names)[i] = arena_keep(arena, j.names[i]);
        *out_count = j.number;
    }
    free(j.names);
    free(j.name_bytes);
    return e;
}

void
dir_close(struct dir *dir)
{
    close(dir->fd);
    mem_free(dir->rt->mem, dir, sizeof *dir);
}

/* ---- files ------------------------------------------------------------------------------------------------------- */

static struct err
file_new(struct rt *rt, int fd, struct file **out)
{
    *out = mem_new(rt->mem, struct file);
    **out = (struct file){ rt, fd };
    return OK;
}

static int
open_flags(unsigned flags)
{
    int access = flags & FILE_WRITE ? (flags & FILE_READ ? O_RDWR : O_WRONLY) : O_RDONLY;

    return access | (flags & FILE_CREATE ? O_CREAT : 0) | (flags & FILE_NEW ? O_EXCL : 0)
           | (flags & FILE_TRUNCATE ? O_TRUNC : 0);
}

struct err
file_open(struct dir *dir, struct str name, unsigned flags, unsigned mode, enum lane lane, int64_t until,
          struct file **out)
{
    struct file_job j = { .fd = dir->fd, .flags = open_flags(flags), .mode = mode };
    struct rt *rt = dir->rt;

    TRY(put_name(j.name, name));
    TRY(run(rt, lane, &j, work_open, until));
    return file_new(rt, j.fd2, out);
}

static void
work_lock(struct job *job)
{
    struct file_job *j = container_of(job, struct file_job, job);

    work_open(job);
    if (!err_is(j->err) && flock(j->fd2, LOCK_EX | LOCK_NB) < 0) {
        j->err = err_here("lock");
        close(j->fd2);
    }
}

struct err
dir_lock(struct dir *dir, struct str name, int64_t until, struct file **out)
{
    struct file_job j = { .fd = dir->fd, .flags = O_RDWR | O_CREAT, .mode = 0600 };
    struct rt *rt = dir->rt;

    TRY(put_name(j.name, name));
    TRY(run(rt, LANE_BACKGROUND, &j, work_lock, until));
    return file_new(rt, j.fd2, out);
}

struct err
file_from_handle(struct rt *rt, struct handle handle, struct file **out)
{
    struct stat st;

    if (fstat(handle.number, &st) < 0) {
        struct err e = err_here("take over a file");
        close(handle.number);
        return e;
    }
    return file_new(rt, handle.number, out);
}

static void
work_read(struct job *job)
{
    struct file_job *j = container_of(job, struct file_job, job);
    size_t done = 0;

    j->err = OK;
    while (done < j->len) {
        ssize_t n = pread(j->fd, j->memory + done, j->len - done, (off_t)(j->offset + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            j->err = err_here("read a file");
        if (n <= 0)
            break;
        done += (size_t)n;
    }
    j->number = done;
}

struct err
file_read(struct file *file, void *memory, size_t len, uint64_t offset, enum lane lane, int64_t until, size_t *out_len)
{
    size_t done = 0, step;

    do {
        step = len - done;
        if (lane == LANE_BACKGROUND && step > BACKGROUND_STEP)
            step = BACKGROUND_STEP;
        struct file_job j = {
            .fd = file->fd, .memory = (char *)memory + done, .len = step, .offset = offset + done
        };
        TRY(run(file->rt, lane, &j, work_read, until));
        done += j.number;
        if (j.number < step)
            break;
    } while (done < len);
    *out_len = done;
    return OK;
}

static struct err
write_parts(const struct file_job *j)
{
    struct iovec iov[PARTS_AT_ONCE];
    uint64_t offset = j->offset;
    size_t at = 0, sent = 0; /* bytes of part `at` */

    while (at < j->part_count) {
        int used = 0;
        for (size_t i = at; i < j->part_count && used < PARTS_AT_ONCE; i++) {
            size_t skip = i == at ? sent : 0;
            iov[used++] = (struct iovec){ (char *)(uintptr_t)j->parts[i].ptr + skip, j->parts[i].len - skip };
        }
        ssize_t n = pwritev(j->fd, iov, used, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_here("write a file");
        size_t left = (size_t)n;
        offset += left;
        while (at < j->part_count && left >= j->parts[at].len - sent) {
            left -= j->parts[at++].len - sent;
            sent = 0;
        }
        sent += left;
    }
    return OK;
}

static void
work_write(struct job *job)
{
    struct file_job *j = container_of(job, struct file_job, job);

    j->err = write_parts(j);
}

static void
work_sync(struct job *job)
{
    struct file_job *j = container_of(job, struct file_job, job);

    j->err = fdatasync(j->fd) < 0 ? err_here("sync a file") : OK;
}

static void
work_write_sync(struct job *job)
{
    struct file_job *j = container_of(job, struct file_job, job);

    work_write(job);
    if (!err_is(j->err))
        work_sync(job);
}

struct err
file_write(struct file *file, const struct str *parts, size_t count, uint64_t offset, enum lane lane, int64_t until)
{
    struct file_job j = { .fd = file->fd, .parts = parts, .part_count = count, .offset = offset };

    return run(file->rt, lane, &j, work_write, until);
}

struct err
file_sync(struct file *file, enum lane lane, int64_t until)
{
    struct file_job j = { .fd = file->fd };

    return run(file->rt, lane, &j, work_sync, until);
}

/* The kernel keeps what is not written back yet, and on some file systems all of it: then that is where the truth is. */
static void
work_forget(struct job *job)
{
    struct file_job *j = container_of(job, struct file_job, job);
    int error = posix_fadvise(j->fd, 0, 0, POSIX_FADV_DONTNEED);

    j->err = error ? err_from_os(error, "forget a file's cache") : OK;
}

struct err
file_forget_cache(struct file *file, enum lane lane, int64_t until)
{
    struct file_job j = { .fd = file->fd };

    return run(file->rt, lane, &j, work_forget, until);
}

struct err
file_write_sync(struct file *file, const struct str *parts, size_t count, uint64_t offset, enum lane lane,
                int64_t until)
{
    struct file_job j = { .fd = file->fd, .parts = parts, .part_count = count, .offset = offset };

    return run(file->rt, lane, &j, work_write_sync, until);
}

static void
work_size(struct job *job)
{
    struct file_job *j = container_of(job, struct file_job, job);
    struct stat st;

    j->err = fstat(j->fd, &st) < 0 ? err_here("ask for a file's size") : OK;
    j->number = err_is(j->err) ? 0 : (uint64_t)st.st_size;
}

struct err
file_size(struct file *file, enum lane lane, int64_t until, uint64_t *out_bytes)
{
    struct file_job j = { .fd = file->fd };

    TRY(run(file->rt, lane, &j, work_size, until));
    *out_bytes = j.number;
    return OK;
}

static void
work_set_size(struct job *job)
{
    struct file_job *j = container_of(job, struct file_job, job);

    j->err = ftruncate(j->fd, (off_t)j->offset) < 0 ? err_here("set a file's size") : OK;
}

struct err
file_set_size(struct file *file, uint64_t bytes, enum lane lane, int64_t until)
{
    struct file_job j = { .fd = file->fd, .offset = bytes };

    return run(file->rt, lane, &j, work_set_size, until);
}

static void
work_claim(struct job *job)
{
    struct file_job *j = container_of(job, struct file_job, job);

    j->err = OK;
    if (fallocate(j->fd, 0, 0, (off_t)j->offset) == 0)
        return;
    if (errno == EOPNOTSUPP)
        work_set_size(job);
    else
        j->err = err_here("take space for a file");
}

struct err
file_claim(struct file *file, uint64_t bytes, enum lane lane, int64_t until)
{
    struct file_job j = { .fd = file->fd, .offset = bytes };

    return run(file->rt, lane, &j, work_claim, until);
}

void
file_close(struct file *file)
{
    close(file->fd);
    mem_free(file->rt->mem, file, sizeof *file);
}
