/* linux_host - see host.h. Everything that may block runs on a pool thread. */
#include "runtime/host.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sched.h>
#include <unistd.h>

struct work {
    char path[PATH_MAX];
    struct err err;
    /* in */
    size_t max;
    unsigned mode;
    int64_t uid, gid;
    struct str bytes;
    /* out */
    char *read;
    size_t read_len;
    int fd;
    struct host_file file;
    struct passwd user;
    char user_memory[4096];
};

/* struct work is too large for a fiber's stack. */
static struct err
run(struct rt *rt, struct str path, void (*job)(void *), struct work *w, int64_t until)
{
    if (path.len >= sizeof w->path || str_find_byte(path, '\0') < path.len)
        return ERR(ERR_SYNTAX, "use a path");
    if (path.len)
        memcpy(w->path, path.ptr, path.len);
    w->path[path.len] = '\0';
    TRY(rt_offload(rt, job, w, until));
    return w->err;
}

static struct work *
work_new(struct rt *rt)
{
    return mem_new(rt_mem(rt), struct work);
}

static void
work_free(struct rt *rt, struct work *w)
{
    mem_free(rt_mem(rt), w, sizeof *w);
}

/* ---- files ---- */

static void
job_read(void *arg)
{
    struct work *w = arg;
    int fd = strcmp(w->path, "-") == 0 ? STDIN_FILENO : open(w->path, O_RDONLY | O_CLOEXEC);
    size_t cap = 0;

    if (fd < 0) {
        w->err = err_from_os(errno, "open");
        return;
    }
    for (;;) {
        if (w->read_len == cap) {
            cap = cap ? cap * 2 : 16384;
            char *grown = realloc(w->read, cap);
            if (!grown) {
                w->err = ERR(ERR_NO_MEMORY, "read");
                break;
            }
            w->read = grown;
        }
        ssize_t n = read(fd, w->read + w->read_len, cap - w->read_len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            w->err = err_from_os(errno, "read");
        if (n <= 0)
            break;
        w->read_len += (size_t)n;
        if (w->read_len > w->max) {
            w->err = ERR(ERR_LIMIT, "read: the file is too long");
            break;
        }
    }
    if (fd != STDIN_FILENO)
        close(fd);
}

struct err
host_read_file(struct rt *rt, struct str path, size_t max, struct arena *arena, int64_t until, struct str *out)
{
    struct work *w = work_new(rt);

    w->max = max;
    struct err e = run(rt, path, job_read, w, until);
    if (!err_is(e))
        *out = arena_keep(arena, str_new(w->read ? w->read : "", w->read_len));
    if (w->read)
        explicit_bzero(w->read, w->read_len); /* it may be a password's file */
    free(w->read);
    work_free(rt, w);
    return e;
}

static void
job_write(void *arg)
{
    struct work *w = arg;
    int fd = open(w->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, w->mode);
    size_t done = 0;

    if (fd < 0) {
        w->err = err_from_os(errno, "create");
        return;
    }
    while (done < w->bytes.len && !err_is(w->err)) {
        ssize_t n = write(fd, w->bytes.ptr + done, w->bytes.len - done);
        if (n >= 0)
            done += (size_t)n;
        else if (errno != EINTR)
            w->err = err_from_os(errno, "write");
    }
    if (!err_is(w->err) && fsync(fd) != 0 && errno != EINVAL && errno != EROFS) /* EINVAL: a pipe or device */
        w->err = err_from_os(errno, "sync");
    close(fd);
}

struct err
host_write_file(struct rt *rt, struct str path, struct str bytes, unsigned mode, int64_t until)
{
    struct work *w = work_new(rt);

    w->bytes = bytes;
    w->mode = mode;
    struct err e = run(rt, path, job_write, w, until);
    work_free(rt, w);
    return e;
}

/* fchmod() does not take an O_PATH, and a socket opens no other way. */
static int
change_mode(int fd, unsigned mode)
{
    char same[40];
    struct text t = text_init(same, sizeof same);

    text_putf(&t, "/proc/self/fd/%d", fd);
    return chmod(text_cstr(&t), mode);
}

/* Whoever owns the directory may have put a link where root made something a moment ago: links are not followed. */
static void
own(struct work *w)
{
    struct stat st;
    int fd = open(w->path, O_PATH | O_NOFOLLOW | O_CLOEXEC);

    if (fd < 0 || fstat(fd, &st) != 0)
        w->err = err_from_os(errno, "open");
    else if (S_ISLNK(st.st_mode))
        w->err = err_from_os(ELOOP, "open");
    else if ((w->uid >= 0 || w->gid >= 0) && fchownat(fd, "", (uid_t)w->uid, (gid_t)w->gid, AT_EMPTY_PATH) != 0)
        w->err = err_from_os(errno, "change the owner");
    else if (change_mode(fd, w->mode) != 0)
        w->err = err_from_os(errno, "change the mode");
    if (fd >= 0)
        close(fd);
}

static void
job_own(void *arg)
{
    own(arg);
}

/* The directory itself (an owner it was given) and its name in the one above. What we may not read we did not make. */
static void
sync_made(struct work *w)
{
    static const char *const which[] = { ".", ".." };
    int fd = open(w->path, O_PATH | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        w->err = err_from_os(errno, "open");
    for (size_t i = 0; i < 2 && !err_is(w->err); i++) {
        int synced = openat(fd, which[i], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (synced < 0 && errno != EACCES)
            w->err = err_from_os(errno, "open");
        else if (synced >= 0 && fsync(synced) != 0 && errno != EINVAL && errno != EROFS)
            w->err = err_from_os(errno, "sync a directory");
        if (synced >= 0)
            close(synced);
    }
    if (fd >= 0)
        close(fd);
}

/* One that is there may be so in the page cache only, since who made it was killed before it was synced: so it is now. */
static bool
make_one(struct work *w, bool last)
{
    if (mkdir(w->path, last ? w->mode : 0755) == 0) {
        if (last)
            own(w); /* a directory that was there is the operator's */
    } else if (errno != EEXIST) {
        w->err = err_from_os(errno, "make a directory");
    }
    if (!err_is(w->err))
        sync_made(w);
    return !err_is(w->err);
}

static void
job_make_dir(void *arg)
{
    struct work *w = arg;

    for (char *slash = w->path + 1; (slash = strchr(slash, '/')); *slash++ = '/') {
        *slash = '\0';
        if (!make_one(w, false))
            return;
    }
    make_one(w, true);
}

static struct err
change(struct rt *rt, struct str path, void (*job)(void *), unsigned mode, int64_t uid, int64_t gid, int64_t until)
{
    struct work *w = work_new(rt);

    w->mode = mode;
    w->uid = uid;
    w->gid = gid;
    struct err e = run(rt, path, job, w, until);
    work_free(rt, w);
    return e;
}

struct err
host_make_dir(struct rt *rt, struct str path, unsigned mode, int64_t uid, int64_t gid, int64_t until)
{
    return change(rt, path, job_make_dir, mode, uid, gid, until);
}

struct err
host_own(struct rt *rt, struct str path, unsigned mode, int64_t uid, int64_t gid, int64_t until)
{
    return change(rt, path, job_own, mode, uid, gid, until);
}

static void
job_open(void *arg)
{
    struct work *w = arg;

    w->fd = open(w->path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (w->fd < 0)
        w->err = err_from_os(errno, "open");
}

struct err
host_open(struct rt *rt, struct str path, int64_t until, struct handle *out)
{
    struct work *w = work_new(rt);
    struct err e = run(rt, path, job_open, w, until);

    if (!err_is(e))
        *out = (struct handle){ w->fd };
    work_free(rt, w);
    return e;
}

static struct host_file
file_of(const struct stat *st)
{
    return (struct host_file){
        .size = (uint64_t)st->st_size,
        .changed = st->st_ctim.tv_sec * SECOND + st->st_ctim.tv_nsec,
        .uid = st->st_uid,
        .gid = st->st_gid,
        .mode = st->st_mode & 07777,
        .is_dir = S_ISDIR(st->st_mode),
    };
}

static void
job_stat(void *arg)
{
    struct work *w = arg;
    struct stat st;

    if (stat(w->path, &st) != 0)
        w->err = err_from_os(errno, "look at");
    else
        w->file = file_of(&st);
}

struct err
host_stat(struct rt *rt, struct str path, int64_t until, struct host_file *out)
{
    struct work *w = work_new(rt);
    struct err e = run(rt, path, job_stat, w, until);

    if (!err_is(e))
        *out = w->file;
    work_free(rt, w);
    return e;
}

static void
job_open_plain(void *arg)
{
    struct work *w = arg;
    struct stat st;

    w->fd = open(w->path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NOFOLLOW | O_NONBLOCK); /* a pipe would wait for a writer */
    if (w->fd < 0 && errno == ELOOP)
        w->err = ERR(ERR_DENIED, "open a link: this must be the file itself");
    else if (w->fd < 0 && errno == ENXIO) /* a socket */
        w->err = ERR(ERR_DENIED, "open what is no plain file");
    else if (w->fd < 0)
        w->err = err_from_os(errno, "open");
    else if (fstat(w->fd, &st) != 0)
        w->err = err_from_os(errno, "look at");
    else if (!S_ISREG(st.st_mode))
        w->err = ERR(ERR_DENIED, "open what is no plain file");
    else
        w->file = file_of(&st);
    if (err_is(w->err) && w->fd >= 0)
        close(w->fd);
}

struct err
host_open_plain(struct rt *rt, struct str path, int64_t until, struct handle *out, struct host_file *out_file)
{
    struct work *w = work_new(rt);
    struct err e = run(rt, path, job_open_plain, w, until);

    if (!err_is(e)) {
        *out = (struct handle){ w->fd };
        *out_file = w->file;
    }
    work_free(rt, w);
    return e;
}

/* ---- users ---- */

static void
found(struct work *w, int failure, const struct passwd *user)
{
    if (!user)
        w->err = failure ? err_from_os(failure, "look a user up") : ERR(ERR_NOT_FOUND, "look a user up");
}

static void
job_user(void *arg)
{
    struct work *w = arg;
    struct passwd *user = NULL;

    int failure = getpwnam_r(w->path, &w->user, w->user_memory, sizeof w->user_memory, &user);
    found(w, failure, user);
}

static void
job_user_by_id(void *arg)
{
    struct work *w = arg;
    struct passwd *user = NULL;

    int failure = getpwuid_r((uid_t)w->uid, &w->user, w->user_memory, sizeof w->user_memory, &user);
    found(w, failure, user);
}

struct err
host_user(struct rt *rt, struct str name, int64_t until, uint32_t *out_uid, uint32_t *out_gid)
{
    struct work *w = work_new(rt);
    struct err e = run(rt, name, job_user, w, until);

    if (!err_is(e)) {
        *out_uid = w->user.pw_uid;
        *out_gid = w->user.pw_gid;
    }
    work_free(rt, w);
    return e;
}

struct err
host_user_by_id(struct rt *rt, uint32_t uid, int64_t until, struct arena *arena, struct str *out_name,
                uint32_t *out_gid)
{
    struct work *w = work_new(rt);

    w->uid = uid;
    struct err e = run(rt, S(""), job_user_by_id, w, until);
    if (!err_is(e)) {
        *out_name = arena_keep(arena, str_from_cstr(w->user.pw_name));
        *out_gid = w->user.pw_gid;
    }
    work_free(rt, w);
    return e;
}

uint32_t
host_my_uid(struct rt *rt)
{
    (void)rt;
    return getuid();
}

uint32_t
host_my_gid(struct rt *rt)
{
    (void)rt;
    return getgid();
}

uint32_t
host_processors(struct rt *rt)
{
    cpu_set_t set;

    (void)rt;
    int count = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 0;
    return count > 0 ? (uint32_t)count : 1;
}

struct str
host_env(struct rt *rt, struct str name)
{
    char cstr[256];

    (void)rt;
    if (name.len >= sizeof cstr || name.len == 0)
        return (struct str){ NULL, 0 };
    memcpy(cstr, name.ptr, name.len);
    cstr[name.len] = '\0';
    return str_from_cstr(getenv(cstr));
}

struct err
host_whole_path(struct rt *rt, struct str path, struct arena *arena, struct str *out)
{
    (void)rt;
    if (str_starts(path, S("/")) || str_eq(path, S("-"))) {
        *out = arena_keep(arena, path);
        return OK;
    }
    char *here = getcwd(NULL, 0);
    if (!here)
        return err_from_os(errno, "ask for the working directory");
    while (str_take(&path, S("./")))
        ;
    struct str base = str_from_cstr(here);
    *out = arena_join(arena, arena_join(arena, base, str_ends(base, S("/")) ? S("") : S("/")), path);
    free(here);
    return OK;
}

struct err
host_name(struct rt *rt, struct arena *arena, struct str *out)
{
    char name[256];

    (void)rt;
    if (gethostname(name, sizeof name) != 0)
        return err_from_os(errno, "ask for the host's name");
    name[sizeof name - 1] = '\0';
    *out = arena_keep(arena, str_from_cstr(name));
    return OK;
}
