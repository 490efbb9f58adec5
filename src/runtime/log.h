/*
 * log - one line for one thing that happened: JSON on standard error, readable text when that is a terminal.
 *
 *     struct log_line line;
 *     log_begin(&line, rt, LOG_INFO, "session");
 *     log_str(&line, "id", id);
 *     log_int(&line, "bytes", n);
 *     log_end(&line);
 *
 * {"time":"2026-01-31T12:00:00.123Z","level":"info","role":"receiver","pid":17,"event":"session","id":"...","bytes":5}
 *
 * Names (event, key) are literals of a-z, 0-9 and "-"; values may be anything: quotes, controls, line ends, direction
 * marks and bytes that are no UTF-8 ("\xNN") are escaped, so a stranger cannot forge a line or steer a terminal. A
 * line is at most 4 KiB, which reaches a pipe in one piece; a longer value is cut and the line then says "cut":true.
 *
 * Nothing here waits: lines gather in a bounded ring and leave when the reactor turns. Lines that find it full are
 * counted, and the next that fits is preceded by one that says how many are missing. Nothing may suspend between begin
 * and end.
 */
#ifndef RUNTIME_LOG_H
#define RUNTIME_LOG_H

#include "runtime/rt.h"

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARNING, LOG_ERROR };

struct log_line {
    struct log_sink *sink; /* NULL: below the level that is asked for, nothing is written */
};

void log_begin(struct log_line *, struct rt *, enum log_level, const char *event);
void log_str(struct log_line *, const char *key, struct str value);       /* absent: the field is left out */
void log_int(struct log_line *, const char *key, int64_t value);
void log_bool(struct log_line *, const char *key, bool value);
void log_seconds(struct log_line *, const char *key, int64_t ns);         /* 1.250 */
void log_time(struct log_line *, const char *key, int64_t wall_ns);       /* RFC 3339, UTC */
void log_address(struct log_line *, const char *key, const struct address *); /* "[2001:db8::1]:25" */
void log_err(struct log_line *, struct err);                              /* "error": what, why, errno's name */
void log_end(struct log_line *);

/* Who speaks: the role, as in "receiver". Kept as a copy, at most 31 bytes. */
void log_set_role(struct rt *, struct str role);
void log_set_level(struct rt *, enum log_level least); /* LOG_INFO at first */
uint64_t log_dropped(struct rt *);                     /* For tests: lines that found the ring full, ever. */

#endif
