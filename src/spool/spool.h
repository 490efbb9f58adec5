/*
 * spool - durable storage of messages. Implemented by spool/log.
 *
 * commit() that returns OK means: the message survives power loss. What became of its recipients is recorded by
 * settle(). The spool knows nothing of routes, retries or SMTP. One fiber-safe handle per store role: many fibers
 * call concurrently; commits that arrive together share one sync (group commit, spool.md "Commit").
 */
#ifndef SPOOL_SPOOL_H
#define SPOOL_SPOOL_H

#include "message/envelope.h"
#include "runtime/rt.h"

struct spool;
struct draft; /* a message that is not committed yet; belongs to whoever began it */

/* A recipient's changing part. index counts in the committed envelope. */
struct recipient_status {
    uint32_t index;
    uint8_t state;          /* enum recipient_state */
    uint8_t notices;        /* enum spool_notice bits already given */
    uint16_t attempts;
    int64_t next_wall;      /* pending: when to try next, ns since 1970; 0: now */
    struct str last_reply;  /* the remote's words or our own reason, at most LIMIT_REPLY_TEXT; empty in a settle: these two
                             * stay as they were */
    struct str last_remote; /* "mx.example.org [192.0.2.1]:25"; may be empty */
};
enum spool_notice { NOTICE_DELAYED = 1, NOTICE_SUCCESS_OWED = 2 };

/* All of one live message but its content. Strings live in the arena that was passed. */
struct spool_message {
    struct message_id id;
    struct envelope envelope;          /* envelope.recipients as committed */
    struct recipient_status *statuses; /* one for each recipient, by index */
    int64_t age;                       /* ns of accumulated running time since acceptance: spool.md, standards 5.7 */
    bool held;                         /* by an operator or as poison */
    uint8_t deaths;                    /* of senders that had it in flight */
    struct str held_why;
};

/* What is in the spool and what it did, for status and for checks. */
struct spool_counters {
    uint64_t accepted, delivered, failed, relayed, expanded, suppressed, removed; /* recipients, since the spool was made */
    uint64_t pending;                                                             /* recipients now */
    uint64_t messages;                                                            /* live now */
    uint64_t syncs, batches, bytes_written;                                       /* since start */
    uint64_t quarantined;                                                         /* stretches of damaged bytes, since start */
    uint64_t lost;                                                                /* records that must have been there */
    uint64_t free_bytes, segments, live_bytes, space_bytes;
    bool stuck;                                                                   /* settles wait for space */
    bool recovering;
};

/* What the spool found wrong, for the log. Never called from inside a suspending call of the same fiber. */
struct spool_report {
    bool damage;                /* stored bytes failed their check; else a remark ("segment 7 is free again after a crash") */
    struct str what;            /* a sentence */
    struct str file;            /* the segment's name, or empty */
    uint64_t offset, len;       /* of the bytes that it is about, 0: the whole file */
    struct message_id id;       /* zero: not known */
};

struct spool_settings {
    uint64_t segment_bytes;     /* multiple of 4096, at least 64 KiB; 0: as it is, and in a new spool 64 MiB or, where the
                                 * disk is small, a part of what is free */
    uint64_t fresh_bytes_max;   /* content kept in memory until its first attempt; 0: none */
    uint64_t space_max;         /* 0: what the file system gives */
    bool read_only;             /* verify, dump: nothing is written, no lock is taken */
    void (*report)(void *arg, const struct spool_report *); /* NULL: nobody listens */
    void *report_arg;
};
#define SPOOL_SETTINGS_DEFAULT ((struct spool_settings){ .fresh_bytes_max = 64 << 20 })

struct spool_settle;

/* A place in the order of acceptance, for listings. */
struct spool_place {
    struct message_id id;
    uint64_t order; /* grows with acceptance, never used twice */
};

struct spool_ops {
    /*
     * Opens (or makes) the spool below dir, which stays the caller's, and open. When this returns the spool takes new
     * messages; those of before are not known yet. Where there is a spool the disk has taken a record, if it has room:
     * what could not be written down is not delivered. ERR_BUSY: another process has it.
     * ERR_READ_ONLY: it was written by a newer version; only read_only opens it.
     */
    struct err (*open)(struct rt *, struct dir *, const struct spool_settings *, struct spool **out, int64_t until);
    /*
     * Starts recovery beside the caller, once after open: calls found(arg, ...) for every live message of before,
     * newest first, from a fiber of its own, then done(arg). found may suspend; what it is given lives until it
     * returns.
     */
    struct err (*recover)(struct spool *, void (*found)(void *arg, const struct spool_message *),
                          void (*done)(void *arg, struct err), void *arg, int64_t until);
    /* Waits for commits under way, ends recovery early. All drafts have ended before. */
    void (*close)(struct spool *, int64_t until);

    /* ERR_EXISTS: the id is in use. ERR_NO_SPACE: expected_size does not fit beside the reserve. All of it is not kept from others:
     * put and commit may give ERR_NO_SPACE yet. */
    struct err (*begin)(struct spool *, struct message_id, uint64_t expected_size, int64_t until, struct draft **out);
    /* The same for a notice of ours, which may use the reserve: its commit ends what it reports. */
    struct err (*begin_notice)(struct spool *, struct message_id, uint64_t expected_size, int64_t until, struct draft **out);
    struct err (*put)(struct draft *, struct str content, int64_t until);
    uint64_t (*draft_size)(const struct draft *);
    struct err (*draft_read)(struct draft *, uint64_t offset, void *memory, size_t len, int64_t until, size_t *out_len);
    /*
     * OK: survives power loss, and the draft is no more. An error: it will never be delivered, and the draft is no
     * more; after a write or sync error the process must end (spool.md "Commit"): is_broken(). Waits for the
     * moment in which recovery learns all ids. ERR_EXISTS: the id turned out to be in use. ERR_LIMIT: such an
     * envelope does not fit a segment, whatever else there is. statuses: NULL (all pending) or one for each
     * recipient (expanded ones are ended at acceptance). settles: a notice and the end of what it reports are one record; NULL
     * for ordinary mail.
     */
    struct err (*commit)(struct draft *, const struct envelope *, const struct recipient_status *statuses,
                         const struct spool_settle *settles, int64_t until);
    void (*abort)(struct draft *);

    /*
     * New states of some recipients of one message; when all are ended and no notice is owed, the message is no more.
     * lazy: does not wait to be written, only for others while there are too many; seen by get() and written with the
     * next commit or within 5 ms, or when there is space again; else durable when it returns. Those of one message are written in the order of the calls. ERR_NOT_FOUND:
     * there is no such live message.
     */
    struct err (*settle)(struct spool *, const struct spool_settle *, bool lazy, int64_t until);

    /*
     * Committed and alive, or ended while this spool was open (of those, at least the last 65,536). Right at any time:
     * while recovery does not know yet, it waits.
     */
    struct err (*has)(struct spool *, struct message_id, int64_t until, bool *out);
    struct err (*get)(struct spool *, struct message_id, struct arena *, int64_t until, struct spool_message *out);
    /* The same without lazy settles that are not written yet, which on a full disk may be long. */
    struct err (*get_written)(struct spool *, struct message_id, struct arena *, int64_t until, struct spool_message *out);
    /* Content without the trace fields. *out_len 0: the end. */
    struct err (*read)(struct spool *, struct message_id, uint64_t offset, void *memory, size_t len, int64_t until,
                       size_t *out_len);
    /* The live messages known now, in order of acceptance, from the first whose order is above `after` (0: of all). */
    size_t (*scan)(struct spool *, uint64_t after, struct spool_place *out, size_t cap);
    void (*forget_fresh)(struct spool *, struct message_id); /* its content need not stay in memory */
    void (*counters)(const struct spool *, struct spool_counters *out);
    bool (*is_broken)(const struct spool *);
};

struct spool_settle {
    struct message_id id;
    const struct recipient_status *statuses;
    size_t count;
    bool set_held, held;       /* set_held: `held` and held_why replace what was */
    struct str held_why;
    bool set_deaths;
    uint8_t deaths;
};

extern const struct spool_ops spool_log_ops;

#endif
