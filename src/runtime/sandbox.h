/*
 * sandbox - what a role gives up before it reads the first byte from outside: new privileges, files and ports that are
 * not in its rules (Landlock), system calls that are not in its groups (seccomp; the process is killed). Never widened
 * again.
 *
 * What the kernel cannot do is left out and reported: Landlock needs Linux 5.13, renames between directories 5.19 (ABI
 * 2), rules for TCP ports 6.7 (ABI 4). Whether that is good enough is the caller's to decide ("sandbox try" or
 * "require").
 *
 * For tests the environment variable POSTRIDER_PRETEND makes the kernel look older: a comma-separated list of
 * "landlock=N" (that ABI at most; 0: none) and "no-guard-advice" (stacks guarded by mprotect). It can only weaken.
 */
#ifndef RUNTIME_SANDBOX_H
#define RUNTIME_SANDBOX_H

#include "runtime/rt.h"

/* Every role may use what it has open: read, write, receive, send, wait, get memory and time, start threads, end. */
enum sandbox_calls {
    SANDBOX_ACCEPT = 1,  /* accept on listeners it was given */
    SANDBOX_CONNECT = 2, /* make sockets, bind and connect them: TCP, UDP. A Unix socket is refused: libraries look for services */
    SANDBOX_FILES = 4,   /* open, make, rename, remove, sync, lock, list: where the paths say */
    SANDBOX_CONNECT_UNIX = 8, /* with SANDBOX_CONNECT: Unix sockets too, of anybody: no rule has their paths */
};

enum sandbox_access {
    SANDBOX_READ = 1,
    SANDBOX_WRITE = 2, /* make, change and remove, too */
};

struct sandbox_path {
    const char *path;     /* NULL: the handle */
    struct handle handle; /* of a directory or file; stays the caller's */
    unsigned access;      /* enum sandbox_access; of what lies below a directory, too */
};

/* Ports by Landlock's rule; all: any port may be used. */
struct sandbox_ports {
    const uint16_t *ports;
    size_t count;
    bool all;
};

struct sandbox_rules {
    unsigned calls; /* enum sandbox_calls */
    const struct sandbox_path *paths;
    size_t path_count;
    bool renames_between_dirs; /* Maildir: ABI 1 would forbid it always, so there Landlock is left out */
    struct sandbox_ports connect, bind;
};

/* What is in force now. */
struct sandbox_report {
    int landlock_abi;      /* that this kernel has; 0: none */
    bool no_new_privileges;
    bool files;            /* Landlock: only the paths of the rules */
    bool ports;            /* Landlock: only the ports of the rules */
    bool scopes;           /* Landlock: no signals and no abstract sockets to outside (ABI 6) */
    bool calls;            /* seccomp */
    bool guard_advice;     /* stacks are guarded without costing mappings */
};

/* Threads of the lanes are ended first (they start again inside). An error: nothing more than the report says is in
 * force. */
struct err sandbox_enter(struct rt *, const struct sandbox_rules *, struct sandbox_report *out_report);
/* "landlock 7 (files, ports, scopes), seccomp, no new privileges, guard pages by advice" */
void sandbox_report_text(const struct sandbox_report *, struct text *out);

#endif
