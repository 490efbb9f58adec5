/*
 * terminal - what a command has around it: standard input and output, files and hosts as its user names them. For the
 * command line alone; roles have none of it. (What the supervisor needs too is in runtime/host.h.)
 */
#ifndef RUNTIME_TERMINAL_H
#define RUNTIME_TERMINAL_H

#include "runtime/rt.h"

enum terminal_output { TERMINAL_OUT = 1, TERMINAL_ERROR = 2 };

/* Standard input, whatever kind of file it is: at least one byte, *out_len 0 is its end. */
struct err terminal_read(struct rt *, void *memory, size_t cap, int64_t until, size_t *out_len);
/*
 * One line of standard input, without its end. Where that is a terminal, `prompt` is shown, what is typed is not, and ^C
 * gives up (ERR_CANCELLED). ERR_LIMIT: it is longer than cap; ERR_CLOSED: there is none. Waits, with the whole reactor.
 */
struct err terminal_secret(struct rt *, struct str prompt, void *memory, size_t cap, size_t *out_len);
/* All of it. Waits, with the whole reactor, for whoever reads. */
struct err terminal_write(enum terminal_output, struct str);
bool terminal_is_one(enum terminal_output);
bool terminal_input_is_one(void);

/* A file by a path from the command line: follows links to wherever they lead. flags: FILE_READ and so on; mode
 * 0666. */
struct err terminal_open(struct rt *, struct str path, unsigned flags, struct file **out);

/* The addresses of a host by the system's own means (/etc/hosts, DNS), port 0. ERR_NOT_FOUND: there are none. */
struct err terminal_addresses(struct rt *, struct str host, int64_t until, struct address *out, size_t cap,
                              size_t *out_count);

#endif
