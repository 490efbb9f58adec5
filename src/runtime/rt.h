/*
 * rt - the world as a role sees it: clock, randomness, memory, fibers, sockets, files, processes. The only way to the
 * operating system.
 *
 * The seam is drawn at link time: runtime/linux_*.c in the daemon, sim/ in the simulator implement the functions of
 * this header (runtime/fiber.c, the scheduler, serves both). Above it there is no time(), rand(), errno, malloc or
 * getaddrinfo.
 *
 * Fibers. A role is one thread, one reactor, many fibers; a fiber is straight-line code on a small stack (64 KiB): no
 * large arrays, no recursion on input. A function with a parameter `int64_t until` may suspend the calling fiber; it
 * gives up with ERR_TIMEOUT at that monotonic time (absolute ns; FOREVER for never). No other function suspends.
 *
 * Cancellation. fiber_cancel() makes the *next* suspending call (or the one it waits in) return ERR_CANCELLED, once;
 * later calls work normally so that the fiber can say goodbye, but none of them waits longer than the grace time
 * (RT_CANCEL_GRACE_NS) counted from the cancel. File operations are not cut short: they end when the disk does.
 *
 * Everything that is opened here belongs to the caller, who closes it exactly once.
 */
#ifndef RUNTIME_RT_H
#define RUNTIME_RT_H

#include "base/address.h"
#include "base/err.h"
#include "base/limits.h"
#include "base/list.h"
#include "base/mem.h"
#include "base/prng.h"
#include "base/str.h"

struct rt;
struct fiber;

#define FOREVER INT64_MAX
#define RT_CANCEL_GRACE_NS (5 * SECOND)

/* ---- clock, randomness, memory ----------------------------------------------------------------------------------- */

int64_t rt_now(struct rt *);       /* monotonic ns; at most one reactor turn old */
int64_t rt_wall(struct rt *);      /* ns since 1970-01-01 UTC; may jump */
uint64_t rt_random(struct rt *);   /* unpredictable outside the simulator */
struct mem *rt_mem(struct rt *);   /* this role's heap */

static inline int64_t
within(struct rt *rt, int64_t ns)
{
    return rt_now(rt) + ns;
}

/* ---- fibers ------------------------------------------------------------------------------------------------------ */

/* Starts run(arg) as a fiber; it begins at the next turn. name: a literal, for the watchdog and for status. */
struct fiber *fiber_start(struct rt *, const char *name, void (*run)(void *arg), void *arg);
/* Whether one more can be started. Old kernels bound the number (vm.max_map_count), and fiber_start() aborts beyond it:
 * whoever starts fibers for strangers asks first. */
bool fiber_room(struct rt *);
struct fiber *fiber_current(struct rt *);
void fiber_cancel(struct fiber *);           /* of a fiber that has not ended; twice is once */
void fiber_yield(struct rt *);               /* lets every ready fiber run once; never fails */
/* For suspending functions above the runtime, before work that may not have to wait: ERR_CANCELLED is passed on as a
 * stream's read would, and now and then the others run first. */
struct err fiber_turn(struct rt *);
size_t fiber_count(struct rt *);             /* that have not ended */
struct err rt_sleep(struct rt *, int64_t until); /* OK when until has come; ERR_CANCELLED */

/*
 * event - what fibers wait for. A wake-up is not a promise: look at the condition again (while (!ready)
 * TRY(event_wait())). Zeroed is not ready for use: event_init().
 */
struct event {
    struct list waiters;
};
void event_init(struct event *);
struct err event_wait(struct rt *, struct event *, int64_t until);
/*
 * Neither deadline nor cancellation ends this wait: for what ends of itself soon and uses the waiter's memory until
 * then (a record that is being written).
 */
void event_wait_firmly(struct rt *, struct event *);
void event_wake(struct rt *, struct event *);     /* all that wait now */
void event_wake_one(struct rt *, struct event *); /* the one that waits longest */

/* scope - ends its child fibers: none of them outlives scope_end(). */
struct scope {
    struct rt *rt;
    struct list children;
    size_t count;
    struct event ended;
};
void scope_init(struct scope *, struct rt *);
void scope_start(struct scope *, const char *name, void (*run)(void *arg), void *arg);
void scope_cancel(struct scope *);                       /* asks every child to end */
struct err scope_wait(struct scope *, int64_t until);    /* until all have ended of themselves */
void scope_end(struct scope *);                          /* cancels and waits, however long it takes; cannot fail */

/* ---- handles: what can be passed to another role ----------------------------------------------------------------- */

/* A descriptor that nobody wraps yet. Opaque: a file descriptor in the daemon, a number of its own in the simulator. */
struct handle {
    int32_t number; /* -1: none */
};
#define HANDLE_NONE ((struct handle){ -1 })
static inline bool
handle_is_none(struct handle h)
{
    return h.number < 0;
}
void handle_close(struct rt *, struct handle);

/* ---- streams: TCP and Unix stream sockets ------------------------------------------------------------------------ */

/*
 * One fiber may read while another writes. A call that would not have to wait is done at once (now and then it yields,
 * so that one busy peer does not starve the others). After ERR_RESET or ERR_CLOSED from a write, reads may still give
 * what the peer had sent. No delay algorithm (TCP_NODELAY): callers gather their writes.
 */
struct stream;

/* from: local address to bind to, or NULL. */
struct err stream_connect(struct rt *, const struct address *to, const struct address *from, int64_t until,
                          struct stream **out);
struct err stream_from_handle(struct rt *, struct handle, struct stream **out); /* takes the handle, also on error */
struct err stream_pair(struct rt *, struct handle out[2]);                      /* connected Unix sockets */
/* Another fiber that waits on the stream is woken with ERR_CLOSED, and must not touch it again. */
void stream_close(struct stream *);
void stream_reset(struct stream *);          /* closes with RST: for tests and abusive peers */
void stream_shut_down(struct stream *);      /* no more writes; the peer reads an end */
/* At least one byte, at most cap; *out_len 0 is the end of the stream. */
struct err stream_read(struct stream *, void *memory, size_t cap, int64_t until, size_t *out_len);
/* What is there now, without suspending: *out_len 0 and OK: nothing yet; ERR_CLOSED: end of the stream. */
struct err stream_read_now(struct stream *, void *memory, size_t cap, size_t *out_len);
/* Suspends until a read would give something (bytes, end or error): for fibers that give memory back while idle. (The
 * stack they do not use is given back without being asked, after a second of any wait.) */
struct err stream_wait_readable(struct stream *, int64_t until);
/* After stream_write_now() took nothing: suspends until it is worth another try. */
struct err stream_wait_writable(struct stream *, int64_t until);
/* Holds up this whole role until a read would give something, at most ns: for a library that wants an answer inside its
 * callback, from another role that gives it at once. ERR_TIMEOUT. Not a suspension: no other fiber runs. */
struct err stream_hold_readable(struct stream *, int64_t ns);
struct err stream_write(struct stream *, struct str, int64_t until); /* all of it */
struct err stream_write_parts(struct stream *, const struct str *parts, size_t count, int64_t until);
/* As much as goes without suspending; *out_len says how much. */
struct err stream_write_now(struct stream *, struct str, size_t *out_len);
struct address stream_peer(const struct stream *);
struct address stream_local(const struct stream *);
void stream_set_buffers(struct stream *, size_t send_bytes, size_t receive_bytes); /* 0 leaves one as it is */
struct rt *stream_rt(const struct stream *);
/* Unix only: who is at the other end. False: not known. */
struct peer_credentials {
    uint32_t pid, uid, gid;
};
bool stream_peer_credentials(const struct stream *, struct peer_credentials *out);

/* With handles beside the bytes (control links). Sent handles stay the caller's to close. */
enum { RT_HANDLES_MAX = 16 };
struct err stream_write_handles(struct stream *, struct str, const struct handle *handles, size_t count, int64_t until);
/* Handles that came with the bytes are put into handles[] (RT_HANDLES_MAX of them); they are the caller's to close. */
struct err stream_read_handles(struct stream *, void *memory, size_t cap, struct handle *handles, size_t *out_count,
                               int64_t until, size_t *out_len);

struct listener;
/* SO_REUSEADDR. Unix: replaces a socket at which nobody listens any more; else ERR_BUSY. */
struct err listener_open(struct rt *, const struct address *, struct listener **out);
struct err listener_from_handle(struct rt *, struct handle, struct listener **out);   /* takes the handle */
struct handle listener_handle(struct rt *, struct listener *); /* a duplicate, to pass on */
struct address listener_address(const struct listener *);  /* with the port that was chosen for port 0 */
/* Several processes may accept from one socket (EPOLLEXCLUSIVE). Descriptor exhaustion is ERR_NO_FILES, not an end. */
struct err listener_accept(struct listener *, int64_t until, struct stream **out, struct address *out_peer);
void listener_close(struct listener *);

/* ---- files ------------------------------------------------------------------------------------------------------- */

/*
 * Disk work happens on threads of the runtime's own; the fiber waits for its end (a file operation that was begun is
 * always ended, whatever `until` says: it only bounds the wait for its turn). Each *lane* does its work in order.
 */
enum lane {
    LANE_COMMIT,     /* one thread: the spool's commits and nothing else */
    LANE_BACKGROUND, /* one thread: cold reads, recovery, cleaning, pre-writing: in steps of at most 1 MiB */
    LANE_POOL,       /* several threads, no order between jobs: helper work */
    LANE_DELIVERY,   /* a thread for each Maildir delivery, up to LIMIT_DELIVERIES, no order: they wait for syncs, and one
                      * commit of the file system's journal ends the syncs of all who wait at that moment */
    LANES,
};

struct dir;
struct file;
enum {
    FILE_READ = 1,
    FILE_WRITE = 2,
    FILE_CREATE = 4,    /* if it is not there */
    FILE_NEW = 8,       /* with FILE_CREATE: it must not be there (ERR_EXISTS) */
    FILE_TRUNCATE = 16,
};

/* Paths below a dir are names without ".." and never leave it through a link (openat2, RESOLVE_BENEATH). */
struct err dir_open(struct rt *, struct str path, enum lane, int64_t until, struct dir **out);
struct err dir_from_handle(struct rt *, struct handle, struct dir **out);
struct err dir_open_at(struct dir *, struct str name, enum lane, int64_t until, struct dir **out);
struct handle dir_handle(struct rt *, struct dir *);                  /* a duplicate, to pass on */
struct err dir_make(struct dir *, struct str name, unsigned mode, enum lane, int64_t until); /* ERR_EXISTS */
struct err dir_rename(struct dir *from, struct str name, struct dir *to, struct str new_name, enum lane, int64_t until);
/* dir_rename, and dir_sync of the directory that holds it then, as one job. An error: perhaps it was moved, perhaps not. */
struct err dir_rename_sync(struct dir *from, struct str name, struct dir *to, struct str new_name, enum lane,
                           int64_t until);
struct err dir_unlink(struct dir *, struct str name, enum lane, int64_t until);
struct err dir_sync(struct dir *, enum lane, int64_t until);
struct err dir_free_space(struct dir *, enum lane, int64_t until, uint64_t *out_bytes, uint64_t *out_inodes);
/* The names of all entries but "." and "..", in byte order. They live in the arena; ERR_LIMIT: it has no room for them. */
struct arena;
struct err dir_list(struct dir *, struct arena *, enum lane, int64_t until, struct str **out_names, size_t *out_count);
struct err dir_lock(struct dir *, struct str name, int64_t until, struct file **out); /* creates; ERR_BUSY: held */
void dir_close(struct dir *);

struct err file_open(struct dir *, struct str name, unsigned flags, unsigned mode, enum lane, int64_t until,
                     struct file **out);
struct err file_from_handle(struct rt *, struct handle, struct file **out);
struct err file_read(struct file *, void *memory, size_t len, uint64_t offset, enum lane, int64_t until,
                     size_t *out_len);
/* All of it, or an error. memory must stay until the call returns. */
struct err file_write(struct file *, const struct str *parts, size_t count, uint64_t offset, enum lane, int64_t until);
struct err file_sync(struct file *, enum lane, int64_t until);      /* fdatasync */
/*
 * What is read next comes from the disk, as far as it is synced. After a sync that failed the page cache may hold what
 * the disk never got, and the next sync, in another process too, says nothing of it.
 */
struct err file_forget_cache(struct file *, enum lane, int64_t until);
/* file_write and fdatasync as one job: one hand-over to the disk thread instead of two. */
struct err file_write_sync(struct file *, const struct str *parts, size_t count, uint64_t offset, enum lane,
                           int64_t until);
struct err file_size(struct file *, enum lane, int64_t until, uint64_t *out_bytes);
struct err file_set_size(struct file *, uint64_t bytes, enum lane, int64_t until);
/* Takes blocks for the file up to this size, so that writing there cannot fail for space; where a file system cannot
 * do that, sets the size. */
struct err file_claim(struct file *, uint64_t bytes, enum lane, int64_t until);
void file_close(struct file *);

/* ---- helper work ------------------------------------------------------------------------------------------------- */

/* Runs work(arg) on a pool thread with a large stack; the fiber waits. work may not touch rt. */
struct err rt_offload(struct rt *, void (*work)(void *arg), void *arg, int64_t until);

/* ---- processes and signals (supervisor, command line) ------------------------------------------------------------ */

struct child;
struct spawn {
    const char *const *argv;      /* NULL-terminated; argv[0] is what ps shows */
    const struct handle *handles; /* become descriptors 3, 4, ... of the child; all others but 0 to 2 are closed */
    size_t handle_count;
    bool set_ids;                 /* become uid, gid (and no other groups) before the image starts */
    uint32_t uid, gid;
    bool keep_net_bind;           /* keep CAP_NET_BIND_SERVICE */
    const char *program;          /* NULL: the image that this process was started from (execveat) */
};
struct err child_start(struct rt *, const struct spawn *, struct child **out);
/* *out_status: exit code 0..255, or 256 + signal number. Ends the child handle. */
struct err child_wait(struct child *, int64_t until, int *out_status);
void child_signal(struct child *, int signal);
uint32_t child_pid(const struct child *);
void child_release(struct child *); /* stop caring; it is reaped when it ends */

/* The signals named here no longer interrupt; rt_wait_signal() gives the next one that came. */
struct err rt_catch_signals(struct rt *, const int *signals, size_t count);
struct err rt_wait_signal(struct rt *, int64_t until, int *out_signal);

/* ---- foreign libraries' descriptors and timers (libunbound) ------------------------------------------------------ */

/* Level-triggered; called on the reactor's own stack, never on a fiber's; must not suspend. */
struct watch;
struct watch *watch_start(struct rt *, int fd, bool readable, bool writable,
                          void (*ready)(void *arg, bool readable, bool writable), void *arg);
void watch_stop(struct watch *); /* also from inside a callback */
struct timer;
struct timer *timer_start(struct rt *, int64_t at, void (*due)(void *arg), void *arg);
void timer_stop(struct timer *); /* before or inside its callback; afterwards it is gone of itself */

/* ---- a world ----------------------------------------------------------------------------------------------------- */

/* Makes the world, runs main_fiber(rt, arg) and all it starts until main_fiber returns; the others are then cancelled
 * and waited for (grace time), and the world ends. The daemon's main(), and unit tests, are this call. */
struct err rt_run(void (*main_fiber)(struct rt *, void *arg), void *arg);
/* For unit tests, the same with a monotonic clock that stands still while any fiber can go on and leaps to the next
 * deadline when none can: minutes pass at once, and to the nanosecond. For fibers that talk to each other only: other
 * threads and processes come too late, unless the test waits for them by rt_wall(). */
struct err rt_run_leaping(void (*main_fiber)(struct rt *, void *arg), void *arg);

#endif
