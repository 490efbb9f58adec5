/*
 * lossy - a file system (FUSE) that forgets, when the power fails, what was not synced.
 *
 *     lossy SEED TREE MOUNTPOINT [SECTOR]        TREE/now holds the files, TREE/lost what can still come back
 *
 * It passes everything on to TREE/now at once, so whoever looks sees what a page cache would show, and remembers how to take
 * back each change that no sync has covered: of a file until it is synced, of a name until its directory is. After SIGUSR1 the
 * power fails, some calls later: every call fails with EIO from then on, and after the unmount a subset of the remembered
 * changes is taken back, chosen by SEED (with seed 0 it fails at once, and all of them are):
 *   - of a file's writes, each sector (512 or 4096 bytes, chosen if not given) keeps the first few that touched it, none, or all; so
 *     writes are lost, reordered and torn;
 *   - its size is any that it had since the last sync;
 *   - creations, renames and removals happen or not, each by itself; a file that was synced loses its name all the same.
 * That is more than a journalled file system would lose, and what POSIX allows. Modes, owners and times count as kept.
 *
 * At the end it prints one line of JSON: what there was to lose, and what was lost. One thread, so calls have an order.
 */
#define FUSE_USE_VERSION 31
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { NAME_BYTES = 600 };

/* One change of a file's bytes or size. Bytes from `offset` on: `old` before it, `new` after it. */
struct change {
    struct change *next, *before;
    off_t offset, size_before, size_after;
    size_t old_len, new_len;
    char *old, *new;
};

struct file {
    struct file *next;
    ino_t ino;
    int fd; /* of its own, so that the inode stays */
    struct change *first, *last;
};

enum what { CREATE, REMOVE, REMOVE_DIR, RENAME };

/* One change of names. What it took away lies in lost/NUMBER, and so does what it made while that is taken back. */
struct name_change {
    struct name_change *next, *before;
    enum what what;
    unsigned number;
    bool replaced;
    mode_t mode;
    char from[NAME_BYTES], to[NAME_BYTES];
};

static int now, lost; /* the two directories */
static struct file *files;
static struct name_change *first_name, *last_name;
static unsigned name_count;
static volatile sig_atomic_t power_fails; /* soon: after calls_left more calls that change or sync something */
static bool power_failed;
static uint64_t calls_left;
static uint64_t state; /* of the random numbers: xorshift64* */
static struct {
    unsigned long writes, sectors, sectors_lost, names, names_lost, sizes_lost;
} counts;

static uint64_t
any_below(uint64_t n)
{
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return (state * 2685821657736338717u >> 11) % n;
}

static void
die(const char *what)
{
    perror(what);
    exit(1);
}

static void *
take_memory(size_t bytes)
{
    void *memory = calloc(1, bytes ? bytes : 1);

    if (!memory)
        die("lossy: memory");
    return memory;
}

/* "/a/b" is "a/b" in TREE/now; the root is ".". */
static const char *
below(const char *path)
{
    return path[1] ? path + 1 : ".";
}

/* For calls that only look. */
#define ALIVE()                                                                                                        \
    do {                                                                                                               \
        if (power_failed)                                                                                              \
            return -EIO;                                                                                               \
    } while (0)

/* For those that change or sync something: the power fails between two of them, which is seldom where nothing happens. */
#define ALIVE_TO_CHANGE()                                                                                              \
    do {                                                                                                               \
        if (power_fails && calls_left-- == 0)                                                                          \
            power_failed = true;                                                                                       \
        ALIVE();                                                                                                       \
    } while (0)

static int
result(int returned)
{
    return returned < 0 ? -errno : returned;
}

/* ---- changes of files --------------------------------------------------------------------------------------------------- */

static struct file *
file_of(int fd)
{
    struct stat st;
    char path[40];

    if (fstat(fd, &st) < 0)
        die("lossy: fstat");
    for (struct file *f = files; f; f = f->next)
        if (f->ino == st.st_ino)
            return f;
    struct file *f = take_memory(sizeof *f);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    f->ino = st.st_ino;
    f->fd = open(path, O_RDWR | O_CLOEXEC);
    if (f->fd < 0)
        die("lossy: open again");
    f->next = files;
    files = f;
    return f;
}

/* Its changes are safe, or nobody's any more. */
static void
forget_changes(int fd)
{
    struct stat st;

    if (fstat(fd, &st) < 0)
        die("lossy: fstat");
    for (struct file **at = &files; *at; at = &(*at)->next) {
        struct file *f = *at;
        if (f->ino != st.st_ino)
            continue;
        *at = f->next;
        for (struct change *c = f->first, *next; c; c = next) {
            next = c->next;
            free(c->old);
            free(c->new);
            free(c);
        }
        close(f->fd);
        free(f);
        return;
    }
}

/* Before bytes [offset, offset + len) change: a change that remembers what was there. */
static struct change *
remember(struct file *f, off_t offset, size_t len)
{
    struct change *c = take_memory(sizeof *c);
    struct stat st;

    if (fstat(f->fd, &st) < 0)
        die("lossy: fstat");
    c->offset = offset;
    c->size_before = c->size_after = st.st_size;
    c->old = take_memory(len);
    ssize_t got = len ? pread(f->fd, c->old, len, offset) : 0;
    if (got < 0)
        die("lossy: pread");
    c->old_len = (size_t)got;
    c->before = f->last;
    *(f->last ? &f->last->next : &f->first) = c;
    f->last = c;
    return c;
}

static void
note_size(struct file *f, struct change *c)
{
    struct stat st;

    if (fstat(f->fd, &st) < 0)
        die("lossy: fstat");
    c->size_after = st.st_size;
}

static int
lossy_write(const char *path, const char *bytes, size_t len, off_t offset, struct fuse_file_info *info)
{
    (void)path;
    ALIVE_TO_CHANGE();
    struct file *f = file_of((int)info->fh);
    struct change *c = remember(f, offset, len);
    ssize_t put = pwrite((int)info->fh, bytes, len, offset);
    int failed = errno;
    c->new_len = put < 0 ? 0 : (size_t)put;
    c->new = take_memory(c->new_len);
    memcpy(c->new, bytes, c->new_len);
    note_size(f, c);
    counts.writes++;
    return put < 0 ? -failed : (int)put;
}

static int
change_size(int fd, off_t size)
{
    struct stat st;

    if (fstat(fd, &st) < 0)
        return -errno;
    struct file *f = file_of(fd);
    struct change *c = remember(f, size, st.st_size > size ? (size_t)(st.st_size - size) : 0);
    int done = result(ftruncate(fd, size));
    note_size(f, c);
    return done;
}

static int
lossy_truncate(const char *path, off_t size, struct fuse_file_info *info)
{
    ALIVE_TO_CHANGE();
    if (info)
        return change_size((int)info->fh, size);
    int fd = openat(now, below(path), O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int done = change_size(fd, size);
    close(fd);
    return done;
}

static int
lossy_fallocate(const char *path, int mode, off_t offset, off_t len, struct fuse_file_info *info)
{
    (void)path;
    ALIVE_TO_CHANGE();
    if (mode != 0)
        return -EOPNOTSUPP;
    struct file *f = file_of((int)info->fh);
    struct change *c = remember(f, offset, 0);
    int done = -posix_fallocate((int)info->fh, offset, len);
    note_size(f, c);
    return done;
}

static int
lossy_fsync(const char *path, int data_only, struct fuse_file_info *info)
{
    (void)path;
    (void)data_only;
    ALIVE_TO_CHANGE();
    forget_changes((int)info->fh);
    return 0;
}

/* ---- changes of names --------------------------------------------------------------------------------------------------- */

static struct name_change *
name_change_new(enum what what, const char *from, const char *to)
{
    struct name_change *n = take_memory(sizeof *n);

    if (strlen(from) >= NAME_BYTES || strlen(to) >= NAME_BYTES)
        die("lossy: a path is too long");
    strcpy(n->from, from);
    strcpy(n->to, to);
    n->what = what;
    n->number = ++name_count;
    return n;
}

static int
name_change_add(struct name_change *n, int done)
{
    if (done < 0) {
        free(n);
        return done;
    }
    n->before = last_name;
    *(last_name ? &last_name->next : &first_name) = n;
    last_name = n;
    counts.names++;
    return done;
}

static void
name_change_drop(struct name_change *n)
{
    *(n->before ? &n->before->next : &first_name) = n->next;
    *(n->next ? &n->next->before : &last_name) = n->before;
    free(n);
}

static const char *
lost_name(const struct name_change *n)
{
    static char name[20];

    snprintf(name, sizeof name, "%u", n->number);
    return name;
}

static bool
is_in(const char *path, const char *directory)
{
    const char *slash = strrchr(path, '/');
    size_t len = slash ? (size_t)(slash - path) : 0;

    return slash ? strlen(directory) == len && memcmp(path, directory, len) == 0 : strcmp(directory, ".") == 0;
}

/* The names in this directory are safe. A rename between two directories is, once one of them was synced. */
static int
lossy_fsyncdir(const char *path, int data_only, struct fuse_file_info *info)
{
    (void)data_only;
    (void)info;
    ALIVE_TO_CHANGE();
    for (struct name_change *n = first_name, *next; n; n = next) {
        next = n->next;
        if (is_in(n->from, below(path)) || (n->what == RENAME && is_in(n->to, below(path)))) {
            if (n->what != CREATE)
                unlinkat(lost, lost_name(n), 0);
            name_change_drop(n);
        }
    }
    return 0;
}

static int
keep_and_unlink(struct name_change *n, const char *path)
{
    if (linkat(now, path, lost, lost_name(n), 0) < 0)
        return -errno;
    return result(unlinkat(now, path, 0));
}

static int
lossy_unlink(const char *path)
{
    ALIVE_TO_CHANGE();
    struct name_change *n = name_change_new(REMOVE, below(path), "");

    return name_change_add(n, keep_and_unlink(n, below(path)));
}

static int
lossy_rmdir(const char *path)
{
    struct stat st;

    ALIVE_TO_CHANGE();
    if (fstatat(now, below(path), &st, AT_SYMLINK_NOFOLLOW) < 0)
        return -errno;
    struct name_change *n = name_change_new(REMOVE_DIR, below(path), "");
    n->mode = st.st_mode;
    return name_change_add(n, result(unlinkat(now, below(path), AT_REMOVEDIR)));
}

static int
lossy_rename(const char *from, const char *to, unsigned flags)
{
    ALIVE_TO_CHANGE();
    if (flags & ~(unsigned)RENAME_NOREPLACE)
        return -EINVAL;
    struct name_change *n = name_change_new(RENAME, below(from), below(to));
    n->replaced = linkat(now, below(to), lost, lost_name(n), 0) == 0;
    if (n->replaced && flags)
        return free(n), -EEXIST;
    return name_change_add(n, result(renameat(now, below(from), now, below(to))));
}

static int
name_made(const char *path, int done)
{
    return name_change_add(name_change_new(CREATE, below(path), ""), done);
}

static int
lossy_mkdir(const char *path, mode_t mode)
{
    ALIVE_TO_CHANGE();
    return name_made(path, result(mkdirat(now, below(path), mode)));
}

static int
lossy_mknod(const char *path, mode_t mode, dev_t device)
{
    ALIVE_TO_CHANGE();
    return name_made(path, result(mknodat(now, below(path), mode, device)));
}

static int
lossy_symlink(const char *target, const char *path)
{
    ALIVE_TO_CHANGE();
    return name_made(path, result(symlinkat(target, now, below(path))));
}

static int
lossy_link(const char *from, const char *to)
{
    ALIVE_TO_CHANGE();
    return name_made(to, result(linkat(now, below(from), now, below(to), 0)));
}

static int
lossy_create(const char *path, mode_t mode, struct fuse_file_info *info)
{
    ALIVE_TO_CHANGE();
    /* The kernel asks for this only where it saw no such name. */
    int fd = openat(now, below(path), (info->flags & ~O_APPEND) | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    if (fd < 0)
        return -errno;
    info->fh = (uint64_t)fd;
    return name_made(path, 0);
}

/* ---- what changes nothing, or nothing that can be lost ------------------------------------------------------------------- */

static int
lossy_open(const char *path, struct fuse_file_info *info)
{
    ALIVE();
    int fd = openat(now, below(path), (info->flags & ~(O_APPEND | O_TRUNC)) | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    info->fh = (uint64_t)fd;
    return info->flags & O_TRUNC ? change_size(fd, 0) : 0;
}

static int
lossy_read(const char *path, char *bytes, size_t len, off_t offset, struct fuse_file_info *info)
{
    (void)path;
    ALIVE();
    return result((int)pread((int)info->fh, bytes, len, offset));
}

static int
lossy_release(const char *path, struct fuse_file_info *info)
{
    (void)path;
    return result(close((int)info->fh));
}

static int
lossy_getattr(const char *path, struct stat *out, struct fuse_file_info *info)
{
    ALIVE();
    if (info)
        return result(fstat((int)info->fh, out));
    return result(fstatat(now, below(path), out, AT_SYMLINK_NOFOLLOW));
}

static int
lossy_readdir(const char *path, void *buffer, fuse_fill_dir_t fill, off_t offset, struct fuse_file_info *info,
              enum fuse_readdir_flags flags)
{
    (void)offset;
    (void)info;
    (void)flags;
    ALIVE();
    int fd = openat(now, below(path), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    if (!dir)
        return -errno;
    for (struct dirent *entry; (entry = readdir(dir));) {
        struct stat st = {.st_ino = entry->d_ino, .st_mode = (mode_t)entry->d_type << 12};
        if (fill(buffer, entry->d_name, &st, 0, 0))
            break;
    }
    closedir(dir);
    return 0;
}

static int
lossy_readlink(const char *path, char *out, size_t size)
{
    ALIVE();
    ssize_t len = readlinkat(now, below(path), out, size - 1);
    if (len < 0)
        return -errno;
    out[len] = '\0';
    return 0;
}

static int
lossy_chmod(const char *path, mode_t mode, struct fuse_file_info *info)
{
    ALIVE();
    return result(info ? fchmod((int)info->fh, mode) : fchmodat(now, below(path), mode, 0));
}

static int
lossy_chown(const char *path, uid_t user, gid_t group, struct fuse_file_info *info)
{
    (void)info;
    ALIVE();
    return result(fchownat(now, below(path), user, group, AT_SYMLINK_NOFOLLOW));
}

static int
lossy_utimens(const char *path, const struct timespec times[2], struct fuse_file_info *info)
{
    (void)info;
    ALIVE();
    return result(utimensat(now, below(path), times, AT_SYMLINK_NOFOLLOW));
}

static int
lossy_statfs(const char *path, struct statvfs *out)
{
    (void)path;
    ALIVE();
    return result(fstatvfs(now, out));
}

static void *
lossy_init(struct fuse_conn_info *connection, struct fuse_config *config)
{
    (void)connection;
    config->use_ino = 1;
    config->hard_remove = 1;
    config->entry_timeout = config->attr_timeout = config->negative_timeout = 0;
    return NULL;
}

/* ---- the power fails ----------------------------------------------------------------------------------------------------- */

static void
put_at(int fd, const char *bytes, size_t len, off_t offset)
{
    if (len > 0 && pwrite(fd, bytes, len, offset) != (ssize_t)len)
        die("lossy: pwrite");
}

static void
set_size(int fd, off_t size)
{
    if (ftruncate(fd, size) < 0)
        die("lossy: ftruncate");
}

/* Does one write again, sector by sector; a sector that lost a write (`stopped`) gets none of those after it. */
static void
write_again(struct file *f, const struct change *c, unsigned char *stopped, size_t sector, unsigned lose_of_64)
{
    for (size_t done = 0, len; done < c->new_len; done += len) {
        off_t at = c->offset + (off_t)done;
        size_t number = (size_t)at / sector, left = sector - (size_t)at % sector;
        len = c->new_len - done < left ? c->new_len - done : left;
        counts.sectors++;
        if (!stopped[number] && any_below(64) < lose_of_64)
            stopped[number] = 1;
        if (stopped[number])
            counts.sectors_lost++;
        else
            put_at(f->fd, c->new + done, len, at);
    }
}

static void
lose_of_file(struct file *f, size_t sector, unsigned lose_of_64)
{
    off_t end = 0, size = f->first->size_before;
    uint64_t kept_sizes = 0, n = 0;

    for (struct change *c = f->last; c; c = c->before, n++) {
        put_at(f->fd, c->old, c->old_len, c->offset);
        set_size(f->fd, c->size_before);
        end = c->offset + (off_t)c->new_len > end ? c->offset + (off_t)c->new_len : end;
    }
    kept_sizes = lose_of_64 == 64 ? 0 : lose_of_64 == 0 ? n : any_below(n + 1);
    unsigned char *stopped = take_memory((size_t)end / sector + 1);
    for (struct change *c = f->first; c; c = c->next) {
        write_again(f, c, stopped, sector, lose_of_64);
        if (kept_sizes > 0) {
            kept_sizes--;
            size = c->size_after;
            if (c->size_after < c->size_before)
                set_size(f->fd, size); /* what it cut off is gone, even if it grows again */
        }
    }
    counts.sizes_lost += size != f->last->size_after;
    set_size(f->fd, size);
    free(stopped);
}

static void
take_back(const struct name_change *n)
{
    /* What is there by a change that is safe stays. */
    switch (n->what) {
    case CREATE:
        renameat2(now, n->from, lost, lost_name(n), RENAME_NOREPLACE);
        break;
    case REMOVE:
        renameat2(lost, lost_name(n), now, n->from, RENAME_NOREPLACE);
        break;
    case REMOVE_DIR:
        mkdirat(now, n->from, n->mode & 07777);
        break;
    case RENAME:
        renameat2(now, n->to, now, n->from, RENAME_NOREPLACE);
        if (n->replaced)
            renameat2(lost, lost_name(n), now, n->to, RENAME_NOREPLACE);
        break;
    }
}

/* Where an earlier change that it builds on was lost, it fails, and is lost too. */
static bool
do_again(const struct name_change *n)
{
    switch (n->what) {
    case CREATE:
        return renameat(lost, lost_name(n), now, n->from) == 0;
    case REMOVE:
        return renameat(now, n->from, lost, lost_name(n)) == 0;
    case REMOVE_DIR:
        return unlinkat(now, n->from, AT_REMOVEDIR) == 0;
    case RENAME:
        return renameat(now, n->from, now, n->to) == 0;
    }
    return false;
}

static void
lose(bool everything, size_t sector)
{
    static const unsigned share[] = {64, 0, 1, 8, 32}; /* everything, nothing, and between */
    unsigned of_bytes = share[everything ? 0 : any_below(5)], of_names = share[everything ? 0 : any_below(5)];

    for (struct file *f = files; f; f = f->next)
        if (f->first)
            lose_of_file(f, sector, of_bytes);
    for (struct name_change *n = last_name; n; n = n->before)
        take_back(n);
    for (struct name_change *n = first_name; n; n = n->next)
        if (any_below(64) < of_names || !do_again(n))
            counts.names_lost++;
    printf(
        "{\"writes\":%lu,\"sectors\":%lu,\"sectors_lost\":%lu,\"sizes_lost\":%lu,\"names\":%lu,\"names_lost\":%lu}\n",
        counts.writes, counts.sectors, counts.sectors_lost, counts.sizes_lost, counts.names, counts.names_lost);
}

static void
fail_power(int number)
{
    (void)number;
    power_fails = 1;
}

static int
open_tree(int tree, const char *name)
{
    mkdirat(tree, name, 0755);
    int fd = openat(tree, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        die(name);
    return fd;
}

int
main(int argc, char **argv)
{
    static const struct fuse_operations operations = {
        .getattr = lossy_getattr,
        .readlink = lossy_readlink,
        .mknod = lossy_mknod,
        .mkdir = lossy_mkdir,
        .unlink = lossy_unlink,
        .rmdir = lossy_rmdir,
        .symlink = lossy_symlink,
        .rename = lossy_rename,
        .link = lossy_link,
        .chmod = lossy_chmod,
        .chown = lossy_chown,
        .truncate = lossy_truncate,
        .open = lossy_open,
        .read = lossy_read,
        .write = lossy_write,
        .statfs = lossy_statfs,
        .release = lossy_release,
        .fsync = lossy_fsync,
        .readdir = lossy_readdir,
        .fsyncdir = lossy_fsyncdir,
        .init = lossy_init,
        .create = lossy_create,
        .utimens = lossy_utimens,
        .fallocate = lossy_fallocate,
    };
    char options[] = "default_permissions,allow_other,fsname=lossy";

    if (argc != 4 && argc != 5) {
        fputs("usage: lossy SEED TREE MOUNTPOINT [SECTOR]\n", stderr);
        return 2;
    }
    uint64_t seed = strtoull(argv[1], NULL, 10);
    size_t sector = argc == 5 ? strtoul(argv[4], NULL, 10) : 0;
    state = seed * 2862933555777941757u + 3037000493u;
    mkdir(argv[2], 0755);
    int tree = open(argv[2], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (tree < 0)
        die(argv[2]);
    calls_left = seed ? any_below(30) : 0;
    now = open_tree(tree, "now");
    lost = open_tree(tree, "lost");
    umask(0);
    signal(SIGUSR1, fail_power);
    char *words[] = {argv[0], "-f", "-s", "-o", options, argv[3], NULL};
    if (fuse_main(6, words, &operations, NULL) != 0)
        return 1;
    if (power_fails)
        lose(seed == 0, sector ? sector : any_below(2) ? 512 : 4096);
    return 0;
}
