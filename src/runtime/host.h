/*
 * host - the machine as its operator sees it: files by whole path (through links, with our own rights), users,
 * environment. For the supervisor and the command line; roles behind a sandbox use the directories that they were
 * given.
 */
#ifndef RUNTIME_HOST_H
#define RUNTIME_HOST_H

#include "base/arena.h"
#include "runtime/rt.h"

/* A whole file of at most max bytes (ERR_LIMIT), into the arena. path "-" is standard input. */
struct err host_read_file(struct rt *, struct str path, size_t max, struct arena *, int64_t until, struct str *out);
/* Writes a new file; ERR_EXISTS. */
struct err host_write_file(struct rt *, struct str path, struct str bytes, unsigned mode, int64_t until);
/*
 * Makes a directory and those above it, and syncs them: their names survive a power failure. One that is there already is OK.
 * The owner is set where we may: uid, gid or -1; those above it that were not there are 0755, whatever the umask. Root makes
 * nothing behind a link that somebody else could turn elsewhere (ERR_DENIED).
 */
struct err host_make_dir(struct rt *, struct str path, unsigned mode, int64_t uid, int64_t gid, int64_t until);
/* Owner and mode of something that is there, but not of what a link leads to: uid, gid or -1. */
struct err host_own(struct rt *, struct str path, unsigned mode, int64_t uid, int64_t gid, int64_t until);

/* A file to read, for a role that may not open it itself. */
struct err host_open(struct rt *, struct str path, int64_t until, struct handle *out);

struct host_file {
    uint64_t size;
    int64_t changed;         /* ns since 1970: its bytes, its owner, or that it took the place of another one */
    uint32_t uid, gid, mode; /* permission bits */
    bool is_dir;
};
struct err host_stat(struct rt *, struct str path, int64_t until, struct host_file *out);
/*
 * As host_open(), with what is told of the very file that was opened, in a folder where others may write: a link at the
 * end of the path is not followed, and what is no plain file is not opened (ERR_DENIED).
 */
struct err host_open_plain(struct rt *, struct str path, int64_t until, struct handle *out, struct host_file *out_file);

/* ERR_NOT_FOUND: no such user. */
struct err host_user(struct rt *, struct str name, int64_t until, uint32_t *out_uid, uint32_t *out_gid);
struct err host_user_by_id(struct rt *, uint32_t uid, int64_t until, struct arena *, struct str *out_name, uint32_t *out_gid);
uint32_t host_my_uid(struct rt *);
uint32_t host_my_gid(struct rt *);
uint32_t host_processors(struct rt *); /* that we may use; at least 1 */
struct str host_env(struct rt *, struct str name); /* absent: not set */
/* From the root, if it is not so already: relative to the directory that we were started in. "-" stays. */
struct err host_whole_path(struct rt *, struct str path, struct arena *, struct str *out);
/* The machine's name, fully qualified if it knows; at most 255 bytes. */
struct err host_name(struct rt *, struct arena *, struct str *out);

#endif
