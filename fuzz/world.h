/*
 * world - the runtime of rt.h in memory, for targets that are whole dialogs: streams, files and a clock of its own, no
 * system calls, everything repeatable. The clock stands while any fiber can run and then jumps to the next alarm, so a
 * timeout of ten minutes takes no time. A world in which nothing can happen any more, while its main fiber waits, aborts:
 * every wait must end.
 *
 * One world lasts as long as the process; world_run() may be called for every input. When it returns all fibers have
 * ended and all memory that they took was given back, or it aborts.
 */
#ifndef FUZZ_WORLD_H
#define FUZZ_WORLD_H

#include "runtime/rt.h"

/* What the next world_run() finds; zeroed: peers that are slow in nothing, and nobody to connect to. */
struct world_rules {
    uint64_t seed;          /* of rt_random() */
    size_t read_max;        /* bytes that one read gives at most; 0: all that are there */
    size_t room;            /* unread bytes at which a writer waits; 0: 64 KiB */
    /* Somebody connects: the far end is the hook's, which starts a fiber for it. An error is what stream_connect() says.
     * NULL: refused. */
    struct err (*connected)(void *arg, struct rt *, const struct address *to, struct stream *far_end);
    void *arg;
    bool drops_heap;        /* a role or command that leaves memory behind because its process ends */
    struct str input;       /* standard input */
    size_t output_bytes;    /* what came out on standard output and error is counted here */
};
extern struct world_rules world_rules;

void world_run(void (*main_fiber)(struct rt *, void *arg), void *arg);

/* A connected pair; both ends are to be closed. */
void world_pair(struct rt *, struct stream **out_a, struct stream **out_b);
/* Connects to whoever listens. NULL: nobody does. */
struct stream *world_connect(struct rt *);
/* A listener that a role is given. */
struct handle world_listener(struct rt *);

/* Files live until they are removed: all of those below a path, or whose path it is. */
void world_file_put(struct str path, struct str bytes);
bool world_file_get(struct str path, struct str *out_bytes); /* borrowed, until the file is written to */
void world_files_remove(struct str path);
/* Calls each(arg, path, bytes) for all files. */
void world_files_each(void (*each)(void *arg, struct str path, struct str bytes), void *arg);

#endif
