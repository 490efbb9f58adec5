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

/* What is open by O_PATH, without following a link: owner and mode. */
static struct err
own(int fd, const struct work *w)
{
    if ((w->uid >= 0 || w->gid >= 0) && fchownat(fd, "", (uid_t)w->uid, (gid_t)w->gid, AT_EMPTY_PATH) != 0)
        return err_from_os(errno, "change the owner");
    return change_mode(fd, w->mode) != 0 ? err_from_os(errno, "change the mode") : OK;
}

/* Whoever owns the directory may have put a link where root made something a moment ago: links are not followed. */
static void
job_own(void *arg)
{
    struct work *w = arg;
    struct stat st;
    int fd = open(w->path, O_PATH | O_NOFOLLOW | O_CLOEXEC);

    if (fd < 0 || fstat(fd, &st) != 0)
        w->err = err_from_os(errno, "open");
    else if (S_ISLNK(st.st_mode))
        w->err = err_from_os(ELOOP, "open");
    else
        w->err = own(fd, w);
    if (fd >= 0)
        close(fd);
}

/* ---- directories ---- */

enum { LINKS_MAX = 40 }; /* as the kernel */

/*
 * A path on its way down: the kernel's own way, but that we know whose the links were. `dir` is where we are, by O_PATH;
 * `rest` what is still to go, with the targets of links put in front.
 */
struct walk {
    struct work *w;
    int dir;
    char rest[2 * PATH_MAX];
    size_t links;
    bool foreign; /* behind a link that somebody else than root could turn elsewhere */
};

static struct err
walk_to(struct walk *walk, int fd)
{
    if (fd < 0)
        return err_from_os(errno, "open a directory");
    if (walk->dir >= 0)
        close(walk->dir);
    walk->dir = fd;
    return OK;
}

/* The directory itself (an owner it was given) and its name in the one above. What we may not read we did not make. */
static struct err
sync_made(int dir)
{
    static const char *const which[] = { ".", ".." };

    for (size_t i = 0; i < 2; i++) {
        int synced = openat(dir, which[i], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (synced < 0 && errno != EACCES)
            return err_from_os(errno, "open");
        if (synced < 0)
            continue;
        int failure = fsync(synced) != 0 && errno != EINVAL && errno != EROFS ? errno : 0;
        close(synced);
        if (failure)
            return err_from_os(failure, "sync a directory");
    }
    return OK;
}

/* `link` is open by O_PATH: it is the very one whose owner was looked at. */
static struct err
follow(struct walk *walk, int link)
{
    char target[PATH_MAX];
    size_t rest = strlen(walk->rest);
    ssize_t len = readlinkat(link, "", target, sizeof target);

    if (len < 0)
        return err_from_os(errno, "read a link");
    if (++walk->links > LINKS_MAX)
        return err_from_os(ELOOP, "make a directory");
    if ((size_t)len + 1 + rest + 1 > sizeof walk->rest)
        return err_from_os(ENAMETOOLONG, "make a directory");
    memmove(walk->rest + len + 1, walk->rest, rest + 1);
    memcpy(walk->rest, target, (size_t)len);
    walk->rest[len] = '/';
    return target[0] == '/' ? walk_to(walk, open("/", O_PATH | O_DIRECTORY | O_CLOEXEC)) : OK;
}

/* One that is there may be so in the page cache only, since who made it was killed before it was synced: so it is now. */
static struct err
make_one(struct walk *walk, const char *name, bool last)
{
    struct work *w = walk->w;
    struct stat st;
    int fd = openat(walk->dir, name, O_PATH | O_NOFOLLOW | O_DIRECTORY | O_CLOEXEC); /* mounts what is mounted on demand */
    bool made = false;

    if (fd < 0 && errno == ENOTDIR) /* a link, or a file */
        fd = openat(walk->dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT) {
        if (walk->foreign)
            return ERR(ERR_DENIED, "make a directory behind a link that is not root's");
        made = mkdirat(walk->dir, name, last ? w->mode : 0755) == 0;
        if (!made && errno != EEXIST)
            return err_from_os(errno, "make a directory");
        fd = openat(walk->dir, name, O_PATH | O_NOFOLLOW | O_DIRECTORY | O_CLOEXEC); /* no link that took its place */
    }
    if (fd < 0)
        return err_from_os(errno, "open a directory");
    struct err e = fstat(fd, &st) != 0 ? err_from_os(errno, "look at") : OK;
    if (!err_is(e) && S_ISLNK(st.st_mode)) {
        walk->foreign |= geteuid() == 0 && st.st_uid != 0;
        e = follow(walk, fd);
        close(fd);
        return e;
    }
    if (!err_is(e) && !S_ISDIR(st.st_mode))
        e = err_from_os(ENOTDIR, "open a directory");
    if (!err_is(e) && made && last)
        e = own(fd, w);
    else if (!err_is(e) && made && change_mode(fd, 0755) != 0) /* whatever our umask */
        e = err_from_os(errno, "change the mode");
    if (!err_is(e))
        e = sync_made(fd);
    if (err_is(e)) {
        close(fd);
        return e;
    }
    return walk_to(walk, fd);
}

static struct err
make_all(struct walk *walk)
{
    char name[NAME_MAX + 1];
    size_t len;

    TRY(walk_to(walk, open(walk->rest[0] == '/' ? "/" : ".", O_PATH | O_DIRECTORY | O_CLOEXEC)));
    for (;;) {
        size_t slashes = strspn(walk->rest, "/");
        memmove(walk->rest, walk->rest + slashes, strlen(walk->rest + slashes) + 1);
        len = strcspn(walk->rest, "/");
        if (len == 0)
            return OK;
        if (len >= sizeof name)
            return err_from_os(ENAMETOOLONG, "make a directory");
        memcpy(name, walk->rest, len);
        name[len] = '\0';
        memmove(walk->rest, walk->rest + len, strlen(walk->rest + len) + 1);
        TRY(make_one(walk, name, walk->rest[strspn(walk->rest, "/")] == '\0'));
    }
}

static void
job_make_dir(void *arg)
{
    struct work *w = arg;
    struct walk *walk = malloc(sizeof *walk); /* too large for some threads' stacks */

    if (!walk) {
        w->err = ERR(ERR_NO_MEMORY, "make a directory");
        return;
    }
    *walk = (struct walk){ .w = w, .dir = -1 };
    memcpy(walk->rest, w->path, strlen(w->path) + 1);
    w->err = make_all(walk);
    if (walk->dir >= 0)
        close(walk->dir);
    free(walk);
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
    if (!user && (failure == 0 || failure == ENOENT || failure == ESRCH)) /* as getpwnam(3) says */
        w->err = ERR(ERR_NOT_FOUND, "look a user up");
    else if (!user)
        w->err = err_from_os(failure, "look a user up");
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
