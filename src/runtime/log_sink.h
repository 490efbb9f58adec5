/* log_sink - where log.c puts its lines; the world (linux_log.c, sim/) says how they leave. For runtime/ and sim/
 * only. */
#ifndef RUNTIME_LOG_SINK_H
#define RUNTIME_LOG_SINK_H

#include "runtime/log.h"

enum { LOG_LINE_BYTES = 4096 }; /* PIPE_BUF: lines of several processes do not mix */

struct log_sink {
    /* Takes a whole line with its LF. False: no room, it is dropped. Never waits. */
    bool (*put)(struct log_sink *, struct str line);
    struct rt *rt;
    bool readable;     /* text for people, not JSON */
    uint8_t least;     /* enum log_level */
    bool open;         /* between begin and end */
    bool cut;
    uint32_t pid;
    char role[32];
    size_t role_len;
    uint64_t dropped, dropped_untold;
    struct text line;
    char memory[LOG_LINE_BYTES];
};

void log_sink_init(struct log_sink *, struct rt *, bool (*put)(struct log_sink *, struct str line));

#endif
