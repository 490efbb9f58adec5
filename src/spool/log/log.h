/*
 * log - the inside of the log spool: what its files share. spool.md says what it promises; record.c draws the bytes.
 *
 *     spool_log.c  open, close, drafts, commit, settle: what spool_ops names
 *     commit.c     one fiber that writes batches: everything that is appended goes through it
 *     message.c    what is known in memory of each live message, and which bytes of which segment it still needs
 *     read.c       messages and content back from the segments
 *     segment.c    files, headers, walking over records
 *     recover.c    what lies in the directory, and which messages live
 *     clean.c      moving what is needed out of old segments; free segments, space, quarantine
 *
 * Order in memory follows the log: an append is *prepared* (recipient states change, in the order of the batch) when
 * its batch is made, and *finished* (places change) when the batch is written, also in that order.
 */
#ifndef SPOOL_LOG_LOG_H
#define SPOOL_LOG_LOG_H

#include "base/check.h"
#include "base/slab.h"
#include "message/ids.h"
#include "spool/log/record.h"

enum {
    RESERVE_SEGMENTS = 2,      /* free ones that mail leaves alone: enum need */
    SPARE_SEGMENTS = 1,        /* pre-written beyond the reserve */
    LIMIT_OPEN_SEGMENTS = 48,
    LIMIT_ENDED = 1 << 16,     /* ids that has() still knows */
    LIMIT_BATCH = 4 << 20,     /* bytes */
    LIMIT_BATCH_RECORDS = 1000, /* answered in one go */
    LIMIT_QUEUED = 4 * LIMIT_BATCH_RECORDS, /* beyond it lazy settles wait as well */
    LIMIT_DRAFT_MEMORY = 64 << 20, /* of all drafts; beyond it they go to disk in smaller pieces */
    LIMIT_STEP = 1 << 20,      /* of background work */
    AHEAD_BATCH = 64 << 10,    /* a batch that is larger pays for its own blocks */
    AHEAD_BYTES = 256 << 10,
    REFS_MAX = 8, REFS_MAX_MANY = 32, MANY_RECIPIENTS = 64,
    CACHE_WINDOW = 64 << 10, CACHE_WINDOWS = 32,
    CONTENT_SLOTS = 8,
};
#define LAZY_NS (5 * MILLISECOND)
#define IDLE_NS (200 * MILLISECOND)
#define FRESH_NS (2 * SECOND) /* whoever waits longer for the first attempt waits for his destination */

/* ---- segments ---- */

struct segment {
    struct list link;         /* among free ones */
    struct list open_link;    /* among those with a file, by last use */
    uint32_t number;          /* names the file */
    uint8_t state;            /* enum segment_state */
    bool damaged;             /* found so by recovery: cleaned first, never appended to */
    bool written;             /* free: every block was written once, so that a commit into it changes no metadata */
    uint32_t pins;            /* fibers that read from it */
    struct file *own_file;    /* or NULL */
    uint64_t sequence, secret, first_lsn, last_lsn;
    uint64_t used;            /* end of the last batch */
    uint64_t ahead;           /* blocks up to here were written once; only of the current one */
    uint64_t live_bytes;      /* of records and content that live messages and drafts need */
    uint64_t done_bytes;      /* of DONE records */
    int64_t free_since;
    int64_t clean_after;      /* it could not be cleaned: not before this time again */
    struct segment_header header;
    struct index_entry *own_index; /* of the current one, and of unsealed ones that recovery walked over */
    uint32_t index_count, index_cap;
};

/* ---- messages ---- */

struct place { /* a record, or content, that a message needs */
    struct segment *segment;
    uint32_t offset, size;
};

struct elsewhere { /* content that is not in the message's own record: which segments hold how much of it */
    struct list link;
    struct message *message;
    uint32_t count;
    struct {
        struct segment *segment;
        uint64_t bytes;
    } at[];
};

struct fresh { /* head and content of a message that nobody tried to deliver yet */
    struct list link;
    struct message *message;
    int64_t until;
    unsigned char *own_head;
    uint32_t head_size;
    char *own_data;
    size_t data_size, data_cap;
};

struct message { /* as little as can be, because there may be a million */
    struct message_id id;        /* first, for sp->messages */
    struct list link;            /* in order of acceptance; in recovery, where it waits for its turn */
    uint64_t order, base_first;
    struct place base;
    union {                      /* settles after the base, oldest first: message_refs() */
        struct place one;
        struct place *own_many;  /* ref_cap of them, if that is not 0 */
    } refs;
    union {
        uint8_t few[8];
        uint8_t *own_many;
    } states;                    /* four bits for each recipient */
    struct fresh *own_fresh;
    struct elsewhere *own_elsewhere;
    uint32_t head_size;          /* of the base */
    uint32_t version;            /* changes with everything that a reader may have read half of */
    uint16_t recipients, open;   /* open: those that are pending or owed a notice, of success too */
    uint16_t unended;            /* those that are pending or owed a notice of failure */
    uint16_t queued;             /* settles */
    uint16_t unwritten;          /* settles and states in a batch that is not written yet */
    uint16_t ref_count, ref_cap;
    uint8_t deaths;
    bool held : 1;
    bool loaded : 1;             /* the states are known */
    bool ending : 1;             /* its DONE is in a batch */
    bool covered : 1;            /* recovery: older settles say nothing any more */
    bool moving : 1;             /* a STATE is in a batch */
    bool restating : 1;          /* somebody reads it to write one */
};
static_assert(LIMIT_ENVELOPE_RECIPIENTS <= UINT16_MAX, "recipients fit");
static_assert(offsetof(struct message, id) == 0 && sizeof(struct message) <= 128, "a million messages fit");
static_assert(sizeof(struct message) + sizeof(struct place) * REFS_MAX + 4 * sizeof(void *) <= 400,
              "spool.md: at most 400 bytes for each live message");

struct draft {
    struct list link;
    struct spool *spool;
    struct message_id id;
    uint64_t expected, size;
    uint8_t need;                /* enum need */
    bool committing;             /* its ACCEPT is in a batch, and says where its extents are */
    char *own_data;              /* what is not in a chunk yet */
    size_t data_size, data_cap;
    struct extent *own_extents;
    uint32_t extent_count, extent_cap;
};

/* ---- appending ---- */

/*
 * How many free segments must be left beside the one that it is written into, so that the queue can always drain:
 * spool.md "Space". That holds for what is left of the current one, too: if cleaning has taken the last one, it is
 * cleaning's until there is another.
 */
enum need {
    NEED_CLEAN = 0,                /* cleaning, folding, CHECKPOINTs: to free more than they take */
    NEED_DRAIN = 1,                /* settles and notices leave one for cleaning, and wait for it */
    NEED_MAIL = RESERVE_SEGMENTS,
};

struct append {
    struct list link;
    uint8_t type, flags;
    uint8_t need;                /* enum need */
    bool lazy, sync;
    bool done;
    struct message_id id;
    unsigned char *own_head;     /* RECORD_HEADER, body, room for the check */
    uint32_t head_size;
    struct str data;
    uint64_t data_hash;
    size_t settle_at;            /* of own_head: a settle; 0: none. In an ACCEPT it is of another message: */
    struct message_id settles_id;
    bool ends, covers;           /* what it does to its message */
    /* When its batch is made: fills in what depends on the order. Not OK: it is withdrawn and finished so. */
    struct err (*prepare)(struct spool *, struct append *);
    /* Always, once, from the commit fiber. May free the append. */
    void (*finish)(struct spool *, struct append *);
    void *arg;
    /* For finish(): */
    struct err err;
    struct place place;
    uint64_t lsn;
    struct event finished;
};

struct damage { /* bytes for the quarantine */
    struct list link;
    struct segment *segment; /* pinned */
    uint64_t offset, len;
};

struct window {
    uint64_t sequence, index;    /* sequence 0: empty */
    uint64_t used_at;
    size_t len;
    unsigned char *own_bytes;
};

struct content_slot {
    uint64_t sequence;
    uint32_t offset;
    uint64_t used_at;
    size_t len, cap;
    char *own_bytes;
};

struct recovery;

struct spool {
    struct rt *rt;
    struct mem *mem;
    struct dir *dir;
    struct file *own_lock;
    struct spool_settings settings;
    size_t inline_max;               /* of content in a record */
    struct scope fibers;             /* commit */
    struct scope helpers;            /* recovery, keeper, and what the keeper starts */

    struct segment **own_segments;   /* in use, by sequence */
    uint32_t segment_count, segment_cap;
    struct list free;
    uint32_t free_count, next_number;
    uint32_t making;                 /* free ones that are being written, in nobody's list */
    struct segment *current;         /* the last of own_segments, or NULL */
    struct list open_files;
    size_t open_count;
    uint64_t next_sequence;

    uint64_t next_lsn, synced_lsn, proof_lsn; /* synced_lsn: of records that are not PROOF */
    int64_t spool_time, opened_at;   /* spool time when it was opened */
    struct tally tally;

    struct list queue;               /* of appends */
    size_t queued;                   /* in it */
    size_t urgent;                   /* of them, that somebody waits for */
    int64_t lazy_until;
    struct event work;               /* for the commit fiber */
    bool stopping;                   /* the helpers are to end */
    bool ending;                     /* they have: nothing is queued any more, so that the last batch is the PROOF */
    bool commit_ended, broken, recovering, read_only;
    bool starved;                    /* what is queued waits for the keeper to free a segment */
    bool hopeless;                   /* and it has found nothing to free */
    bool began;                      /* a CHECKPOINT of ours is on disk, with what unsealed segments count */
    struct str *own_parts;
    size_t part_cap;
    unsigned char proof_head[RECORD_HEADER + PROOF_BODY + RECORD_CHECK];
    unsigned char *own_block;        /* BLOCK bytes, for headers */

    struct ids messages;
    struct slab message_slab;
    struct list by_order, unsorted;  /* of messages: order.c */
    struct message *last_listed;     /* or NULL */
    bool ordered;                    /* unsorted is empty, and stays so: recovery has shown all that lives */
    struct list elsewhere;           /* struct elsewhere */
    struct list drafts;
    struct list fresh;               /* oldest first */
    size_t fresh_bytes;
    uint64_t draft_bytes;            /* promised to drafts */
    size_t draft_memory;
    uint64_t live_bytes, open_recipients;
    uint64_t came_bytes;             /* written since start, but for what cleaning moved */
    uint64_t cleaned_live_bytes, cleaned_came_bytes; /* when cleaning last won a segment */
    uint32_t cleaned_segments;       /* that were left then */
    uint32_t cleaned_in_vain;        /* segments since */
    struct message_id *own_ended;    /* a ring */
    struct ids ended;
    size_t ended_count;

    struct event written;            /* a batch was, or the index is known */
    struct recovery *own_recovery;
    bool index_known;                /* every id that lives is in messages */
    bool keeping;                    /* the keeper has been started */
    void (*found)(void *arg, const struct spool_message *);
    void (*found_all)(void *arg, struct err);
    void *found_arg;

    struct event keep;               /* for the keeper */
    bool keep_wanted;
    bool keeper_looks;               /* at fresh content, within a minute */
    struct list damages;
    uint64_t fs_free;
    int64_t fs_free_at;

    struct window own_windows[CACHE_WINDOWS];
    struct content_slot own_slots[CONTENT_SLOTS];
    uint64_t cache_clock;

    struct spool_counters counters;  /* those that only grow */
};

int64_t spool_now(const struct spool *); /* spool time */
void spool_report(struct spool *, struct spool_report);

/* ---- segment.c ---- */

struct segment *segment_new(struct spool *, uint32_t number);
void segment_free(struct spool *, struct segment *);
void segment_name(uint32_t number, struct text *);
bool segment_name_parse(struct str, uint32_t *out_number);
void segment_enter(struct spool *, struct segment *); /* into own_segments: its sequence is the highest */
void segment_leave(struct spool *, struct segment *);
struct segment *segment_by_sequence(const struct spool *, uint64_t sequence); /* NULL: none in use */
struct err segment_pin(struct spool *, struct segment *, int64_t until); /* opens its file */
void segment_unpin(struct spool *, struct segment *);
/* All of it, or an error. Pins it meanwhile. */
struct err segment_read(struct spool *, struct segment *, uint64_t offset, void *memory, size_t len, int64_t until);
/* The same through the cache: for heads. */
struct err segment_read_cached(struct spool *, struct segment *, uint64_t offset, void *memory, size_t len, int64_t until);
void segment_drop_cache(struct spool *, struct segment *);
void segment_index_add(struct spool *, struct segment *, const struct index_entry *);
void segment_index_drop(struct spool *, struct segment *);
uint64_t segment_room_end(const struct spool *, const struct segment *, uint32_t more_entries);

/* What a walk over a segment meets, in order. */
#define WALK_TORN "a batch that was not proved to be on disk is not whole: cut by a crash before anybody was told of it, or damaged since"
struct walk {
    void *arg;
    /* A record whose check and data hash hold; bytes: all of it. data_ok false: only its data fails. False ends the
     * walk. */
    bool (*record)(void *arg, const struct record *, uint64_t offset, struct str head, struct str data, bool data_ok);
    /* Bytes that are no record but should be; torn: above the last proof (WALK_TORN). */
    bool (*damage)(void *arg, uint64_t offset, uint64_t len, bool torn);
};
struct walked {
    uint64_t end;          /* where a next batch may begin */
    uint64_t last_lsn, proven;
    int64_t spool_time;
    uint64_t lost;         /* records that must have been there */
    bool clean;            /* nothing was damaged */
    bool newer;            /* there is a record of a type that we do not know and may not skip */
};
struct err segment_walk(struct spool *, struct segment *, const struct walk *, int64_t until, struct walked *out);
/* Calls each(arg, entry) for the entries of a record: none for CHUNK and PROOF, two for an ACCEPT that settles. */
void record_index(const struct record *, uint64_t offset, void (*each)(void *arg, const struct index_entry *), void *arg);

/* ---- commit.c ---- */

void commit_run(void *spool); /* the fiber */
/* Queues; finish() will be called. */
void append_queue(struct spool *, struct append *);
void append_queue_first(struct spool *, struct append *);
/* Queues and waits for the end, however long: memory and order demand it. */
struct err append_wait(struct spool *, struct append *);
void append_done(struct spool *, struct append *); /* a finish() for append_wait() */
void append_drop(struct spool *, struct append *); /* a finish() for one that nobody waits for: frees it and its head */
/* finish is append_done(), sync is set. */
void append_init(struct append *, struct spool *, uint8_t type, struct message_id, size_t body_size);
size_t append_size(const struct append *); /* of its record */
size_t record_size_max(const struct spool *);
unsigned char *append_body(const struct append *);
struct put append_put(const struct append *);
void spool_break(struct spool *, struct err);
bool commit_is_stuck(const struct spool *);

void checkpoint_queue(struct spool *); /* before what waits already; rides with the next batch */
struct err checkpoint_first(struct spool *); /* once it was written it is OK at once; OK too while there is no room for it */
/* What a record changes in the counters, from its body alone: also used by recovery. */
void tally_settle(struct tally *, struct take *);
void tally_accept(struct tally *, struct str body);

/* ---- message.c ---- */

struct message *message_find(const struct spool *, struct message_id);
struct message *message_new(struct spool *, struct message_id);
void message_release(struct spool *, struct message *); /* all that it owns, and itself; it stays in sp->messages */
void message_free(struct spool *, struct message *);    /* the same, and takes it out of there */
void message_end(struct spool *, struct message *);  /* the same, and has() remembers it */
void message_retire(struct spool *, struct message *); /* queues a DONE; when it is written, the same */
/* What a base that was read says: recipients, order, content elsewhere. */
struct loaded;
void message_adopt(struct spool *, struct message *, const struct loaded *);
void message_set_recipients(struct spool *, struct message *, uint32_t count);
uint8_t message_state(const struct message *, uint32_t i);
void message_set_state(struct spool *, struct message *, uint32_t i, uint8_t state, uint8_t notices);
void message_set_base(struct spool *, struct message *, struct place, uint32_t head_size);
const struct place *message_refs(const struct message *); /* ref_count of them */
void message_add_ref(struct spool *, struct message *, struct place);
void message_add_older_ref(struct spool *, struct message *, struct place); /* before those that are there */
void message_clear_refs(struct spool *, struct message *);
void message_set_elsewhere(struct spool *, struct message *, const struct extent *, uint32_t count);
/* The oldest segment where a base of it may lie: any, while recovery has not read all indexes. */
uint64_t message_base_first(const struct spool *, const struct message *);
bool message_needs(const struct message *, const struct segment *);
void message_make_fresh(struct spool *, struct message *, struct fresh *);
void message_age_fresh(struct spool *); /* what is too much or too old goes */
void message_forget_fresh(struct spool *, struct message *);
void segment_count_live(struct spool *, struct segment *, int64_t bytes);
void ended_add(struct spool *, struct message_id);
bool ended_has(const struct spool *, struct message_id);

/* ---- order.c ---- */

void order_add(struct spool *, struct message *);       /* the newest of all */
void order_add_found(struct spool *, struct message *); /* by recovery */
void order_sort(struct spool *);                        /* yields */
void order_remove(struct spool *, struct message *);
size_t log_scan(struct spool *, uint64_t after, struct spool_place *out, size_t cap);

/* ---- read.c ---- */

/*
 * A base read back: the head's bytes in the arena, its parts, and all of the message with its settles applied.
 * ERR_NOT_FOUND: no such message; ERR_CORRUPT: its bytes are damaged (and queued for the quarantine).
 */
struct loaded {
    struct record record;
    struct base base;
    uint32_t version;
    struct place place;
    struct spool_message message;
};
struct err message_load(struct spool *, struct message_id, struct arena *, int64_t until, struct loaded *out);
/* Finds it with its states known; waits while recovery does not know. */
struct err message_await(struct spool *, struct message_id, int64_t until, struct message **out);
/* The data of the record at an extent, into memory of extent.len bytes, checked. */
struct err extent_read(struct spool *, struct extent, void *memory, int64_t until);
struct err log_get(struct spool *, struct message_id, struct arena *, int64_t until, struct spool_message *out);
struct err log_get_written(struct spool *, struct message_id, struct arena *, int64_t until, struct spool_message *out);
struct err log_read(struct spool *, struct message_id, uint64_t offset, void *memory, size_t len, int64_t until,
                    size_t *out_len);
/* The head of a record whose size the index knows, into the arena. */
struct err head_read(struct spool *, struct place, uint32_t head_size, struct arena *, int64_t until, struct record *out);
void damage_add(struct spool *, struct segment *, uint64_t offset, uint64_t len, struct message_id, struct str what);

/* ---- recover.c ---- */

struct err recover_open(struct spool *, int64_t until); /* looks at all segments, walks over the unsealed ones */
void recover_run(void *spool);                          /* the fiber */
void recover_note_end(struct spool *, struct message_id);
void recover_drop(struct spool *);
/* The entries of a sealed segment, from its index or, where that is damaged, from a walk. The caller frees with
 * mem_free. */
struct err index_read(struct spool *, struct segment *, int64_t until, struct index_entry **out, uint32_t *out_count);

/* ---- clean.c ---- */

void keeper_run(void *spool); /* the fiber */
void keeper_wake(struct spool *);
void keeper_drop(struct spool *);
bool keeper_is_needed(const struct spool *);
struct segment *free_take(struct spool *);  /* there must be one */
struct err segment_make(struct spool *, enum lane); /* a free one more, a new file; ERR_NO_SPACE: too little is left */
uint64_t space_for_mail(const struct spool *);      /* bytes that new mail may still use */
struct err space_look(struct spool *, int64_t until);
/* Writes all of the message as one STATE; content that lies in `from` moves along, other content is referred to. OK too when
 * somebody else has just tried, for whatever `from`: look again. */
struct err message_restate(struct spool *, struct message_id, struct segment *from, int64_t until);

#endif
