/*
 * link - typed messages between two roles over a Unix stream socket: calls with replies, and one-way messages.
 *
 * On the wire a message is one or more frames (all numbers little-endian):
 *
 *     0            4        6        8            12
 *     +------------+--------+--------+------------+----------------------+
 *     | body bytes | type   | flags  | call       | body, at most 64 KiB |
 *     +------------+--------+--------+------------+----------------------+
 *
 * flags: LINK_REPLY answers `call`; LINK_MORE says that the next frame goes on with this message; the upper byte counts
 * the descriptors that came with the frame (control links only). call 0 is one-way. A message is at most
 * LINK_MESSAGE_MAX bytes. The first frame each way is the hello: protocol version and build; another version is
 * refused. What a peer sends is hostile input: any violation closes the link.
 *
 * The fiber that reads a link never waits for anything else: a handler must not suspend; it answers at once, or starts
 * a fiber, or queues. Replies always find room, because a side takes at most `calls_max` unanswered calls from the
 * other, who waits with further ones, and one that does not read what it asked for is cut off. Writes are gathered: all
 * that was put in one turn leaves in one system call.
 *
 * Suspends: link_call, link_send (this only while too much is unsent), link_flush, link_free.
 */
#ifndef LINK_LINK_H
#define LINK_LINK_H

#include "base/arena.h"
#include "base/codec.h"
#include "runtime/rt.h"

enum {
    LINK_VERSION = 2,
    LINK_MESSAGE_MAX = 4 << 20,
    LINK_CALLS_MAX = 4096,       /* default of calls_max and asked_max */
    LINK_UNSENT_MAX = 1 << 20,   /* link_send() waits while more than this is unsent */
    LINK_REPLIES_MAX = 64 << 20, /* link_reply() closes the link when more is unsent: nobody honest lets it come so far */
};

struct link;

/* What came in. body and handles are good until the handler returns; handles not taken are closed by the link. */
struct link_message {
    uint16_t type;
    uint32_t call; /* 0: one-way, needs no reply */
    struct str body;
    struct handle *handles; /* control links only */
    size_t handle_count;
};

struct link_settings {
    struct str name; /* for logs: "receiver 1 to store"; kept by reference */
    void *ctx;
    /* False: the message breaks the border's rules; the link closes. Must not suspend. */
    bool (*handle)(void *ctx, struct link *, struct link_message *);
    /* The other side's hello has come: there is somebody, who reads what is said. Before any message. Must not suspend;
     * may be NULL. */
    void (*opened)(void *ctx, struct link *);
    void (*closed)(void *ctx, struct link *, struct err why); /* once, for an end that we did not ask for; may be NULL */
    uint32_t calls_max;  /* of the other side, unanswered: one more is a violation. 0: LINK_CALLS_MAX */
    uint32_t asked_max;  /* of ours, unanswered: one more waits. At most what the other side takes. 0: LINK_CALLS_MAX */
    bool takes_handles;  /* control links */
    bool forgets;        /* secrets pass here: what was read and written is overwritten */
};

/* Takes the handle. The hello is sent at once and checked when the peer's arrives: a mismatch closes the link. */
struct err link_open(struct rt *, struct handle, const struct link_settings *, struct link **out);
/* The same over a stream that is already there (the command line's socket). Takes the stream. */
struct link *link_on_stream(struct stream *, const struct link_settings *);
/* No more messages; calls that wait end with ERR_UNKNOWN; `closed` is not called. Frees the link. Suspends until its
 * two fibers have ended, so not from `handle` or `closed`: those use link_free_later(). */
void link_free(struct link *);
void link_free_later(struct link *);
/* Ends the link as a violation would: `closed` is called from the reading fiber. Fine inside `handle`. */
void link_close(struct link *, struct err why);
bool link_is_open(const struct link *);
size_t link_unsent(const struct link *);

/*
 * Sends and waits for the reply, whose body is copied into the arena (which has room for the longest that this border
 * allows, at most LINK_MESSAGE_MAX: a longer one is a violation). ERR_UNKNOWN: the link closed meanwhile, and whether
 * the call took effect cannot be known; ERR_CLOSED: it was closed before, nothing was sent. While `asked_max` calls
 * are unanswered, or too much is unsent, it waits before it sends. After ERR_TIMEOUT or ERR_CANCELLED a late reply is
 * dropped; until it comes, the call counts as unanswered.
 */
struct err link_call(struct link *, uint16_t type, struct str body, struct arena *, int64_t until, struct str *out_reply);
/* The same for a body that lies in several places. */
struct err link_call_parts(struct link *, uint16_t type, const struct str *parts, size_t count, struct arena *,
                           int64_t until, struct str *out_reply);
/* One-way. OK means queued. */
struct err link_send(struct link *, uint16_t type, struct str body, int64_t until);
/* One-way without waiting; for small messages whose number is bounded otherwise. */
void link_post(struct link *, uint16_t type, struct str body);
/* Waits until everything that was put is with the kernel. */
struct err link_flush(struct link *, int64_t until);
/* Handles are duplicated into the message; the caller keeps its own until it closes them. Waits until written. */
struct err link_send_handles(struct link *, uint16_t type, struct str body, const struct handle *, size_t count,
                             int64_t until);
/* Answers a call. Never suspends; on a link that has closed meanwhile it does nothing. */
void link_reply(struct link *, uint32_t call, uint16_t type, struct str body);

#endif
