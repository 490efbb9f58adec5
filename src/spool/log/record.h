/*
 * record - what the log is made of, as bytes. Pure: no files, no clock. The drawings are in record.c and in
 * postrider-spool(5).
 *
 * A record is a *head* (header, body, check), which says what happened, and *data* (content), which may be empty. The
 * check covers the head and is seeded with the segment's secret, so that neither the remains of a recycled segment nor
 * a record that somebody mailed to us ever verifies; the head holds the hash of the data.
 */
#ifndef SPOOL_LOG_RECORD_H
#define SPOOL_LOG_RECORD_H

#include "spool/spool.h"

enum record_type {
    RECORD_CHUNK = 1,  /* content of a message that is not committed yet */
    RECORD_ACCEPT,     /* commits a message */
    RECORD_SETTLE,     /* new state of some recipients of one message */
    RECORD_STATE,      /* all of one message: replaces what was before */
    RECORD_DONE,       /* the message needs nothing any more; carries the last settle, if there was one */
    RECORD_PROOF,      /* begins every batch */
    RECORD_CHECKPOINT, /* begins every segment, and is written when the spool is closed */
    RECORD_LAST = RECORD_CHECKPOINT,
};
enum record_flag {
    RECORD_SKIPPABLE = 1, /* who does not know the type may pass over it */
    RECORD_COVERS = 2,    /* SETTLE: says all of what earlier ones said */
    RECORD_WITHIN = 4,    /* only in an index: this settle lies inside the ACCEPT at the same offset */
    RECORD_FLAGS = 7,
};
enum {
    RECORD_HEADER = 48,
    RECORD_CHECK = 8,
    RECORD_ALIGN = 8,
    BLOCK = 4096,              /* batches begin and end on one */
    LIMIT_HELD_WHY = 1024,
    LIMIT_REMOTE_NAME = 512,
    LIMIT_EXTENTS = 1 << 20,
};

struct record {
    uint8_t type, flags;
    uint64_t lsn; /* counts the records of the log, and never goes back */
    struct message_id id;
    struct str body;
    uint32_t data_size;
    uint64_t data_hash;
};

/* Bytes of head, and of the whole with its padding. */
size_t record_head_size(const struct record *);
size_t record_size(const struct record *);
/* Writes header and check around the body, which stands already at head + RECORD_HEADER and is record->body.len
 * long. */
void record_seal(unsigned char *head, const struct record *, uint64_t secret);
/*
 * Could a record stand here? False: surely not. Reads the header only (so body.ptr is meant, not looked at), and says
 * nothing of truth: record_verify() does.
 */
bool record_peek(struct str bytes, struct record *out);
/*
 * How many bytes, a multiple of RECORD_ALIGN, stand before the first place where record_peek() may say yes, or before
 * what is too short for it to say anything.
 */
size_t record_find(struct str bytes);
/* The check holds; bytes has all of the head. */
bool record_verify(struct str bytes, const struct record *, uint64_t secret);
uint64_t record_hash_data(struct str);

/* ---- bodies ---- */

struct proof { /* every record up to proven was synced before this was written */
    uint64_t proven;
    int64_t spool_time;  /* ns that this spool has been open, over all its lives */
    uint64_t sequence;   /* of the segment */
    uint32_t batch_bytes; /* of this batch, with its padding */
    uint32_t records;     /* that follow in this batch */
};
enum { PROOF_BODY = 32 };
void proof_put(struct put *, const struct proof *);
bool proof_take(struct take *, struct proof *out);

/* Recipients, counted since the spool was made: accepted = the sum of the others + pending. */
struct tally {
    uint64_t accepted, delivered, failed, relayed, expanded, suppressed, removed;
};
enum { TALLY_BODY = 56 };
void tally_put(struct put *, const struct tally *);
void tally_take(struct take *, struct tally *out);
/* One recipient goes from one state to another. */
void tally_move(struct tally *, uint8_t was, uint8_t is);
uint64_t tally_ended(const struct tally *);

/*
 * A settle: what SETTLE and DONE carry, what an ACCEPT says of the message that it reports on, and how ACCEPT and STATE
 * write down the whole state of their own. `was` is each recipient's state before, so that counters can be replayed
 * from it alone.
 */
struct settle_head {
    uint64_t base_first, base_last; /* DONE: the segments (sequence) where the message's ACCEPT and STATEs may lie */
    bool set_held, held, set_deaths, ends;
    uint8_t deaths;
    uint32_t count;
};
enum { SETTLE_FIXED = 24, SETTLE_STATUS = 24, SETTLE_ENDS = 8 };
size_t settle_size(const struct spool_settle *);
/* Of one that speaks of so many recipients, when their replies and remotes are left away. */
size_t settle_size_bare(size_t count);
void settle_put(struct put *, const struct spool_settle *);
/* Fields of a settle that stands encoded at `at`, filled in when its batch is made. */
void settle_patch(unsigned char *at, uint64_t base_first, uint64_t base_last, bool ends);
void settle_patch_all(unsigned char *at, bool held, uint8_t deaths); /* it says these two as well */
void settle_patch_was(unsigned char *at, uint32_t i, uint8_t was);
void settle_peek(const unsigned char *at, uint32_t i, uint32_t *out_index);

struct settle_reader {
    struct settle_head head;
    struct str held_why;
    struct str fixed;
    struct take *strings; /* the one that was passed: at its end when all statuses are read */
    uint32_t next;
};
/* Takes the head; then settle_next() for each status. False: not a settle that we could have put (or, next: no
 * more). */
bool settle_take(struct take *, struct settle_reader *out);
bool settle_next(struct settle_reader *, struct recipient_status *out, uint8_t *out_was);

/* Where a piece of content lies: the data of the record at offset of a segment. Segment 0: it is lost. */
struct extent {
    uint64_t segment; /* sequence */
    uint32_t offset, len;
};

/* ACCEPT and STATE. */
struct base_head {
    uint64_t order;         /* LSN of the ACCEPT: the message's place in the order of acceptance */
    int64_t accepted_spool; /* spool time of acceptance */
    uint64_t content_size;
    uint32_t extent_count;  /* 0: the content is this record's data */
    uint32_t state_size;    /* of the state, encoded */
    uint32_t settles_size;  /* of id and settle of another message; 0: none */
    uint32_t recipients;    /* of the envelope */
};
enum { BASE_FIXED = 40, EXTENT_SIZE = 16 };
void base_put(struct put *, const struct base_head *);
void base_patch_order(unsigned char *body, uint64_t order);
void extent_put_at(unsigned char *body, uint32_t i, struct extent);

struct base { /* the parts of a body, borrowed */
    struct base_head head;
    struct str extents, state, settles, envelope;
};
bool base_take(struct str body, struct base *out);
enum { MESSAGE_ID_BYTES = 16 }; /* before the settle in `settles` */
struct extent base_extent(const struct base *, uint32_t i);

/* CHECKPOINT */
struct checkpoint {
    struct tally tally;
    int64_t spool_time;
    uint32_t count;         /* of segments in use */
    struct str segments;    /* checkpoint_segment() */
};
enum { CHECKPOINT_FIXED = TALLY_BODY + 12, CHECKPOINT_SEGMENT = 12, LIMIT_SEGMENTS = 1 << 20 };
void checkpoint_put(struct put *, const struct tally *, int64_t spool_time, uint32_t count);
void checkpoint_put_segment(struct put *, uint64_t sequence, uint32_t number);
bool checkpoint_take(struct take *, struct checkpoint *out);
void checkpoint_segment(const struct checkpoint *, uint32_t i, uint64_t *out_sequence, uint32_t *out_number);

/* ---- segment header and index ---- */

enum segment_state { SEGMENT_FREE = 1, SEGMENT_OPEN, SEGMENT_SEALED };
enum { SEGMENT_VERSION = 1, SEGMENT_BYTES_MIN = 64 << 10, INDEX_ENTRY = 40 };

struct segment_header { /* first block of a segment, and its last */
    uint32_t version, compat, read_only_compat, incompat, state;
    uint64_t bytes, sequence, secret;
    int64_t created_spool, created_wall;
    uint64_t first_lsn;
    /* In the last block of a sealed segment only: */
    uint64_t last_lsn, end;       /* end of the last batch */
    uint64_t index_offset, index_hash;
    uint32_t index_count;
    struct tally tally;           /* at sealing */
    int64_t spool_time;           /* at sealing */
};
void segment_header_put(unsigned char block[BLOCK], const struct segment_header *);
bool segment_header_take(struct str block, struct segment_header *out);

struct index_entry {
    uint8_t type, flags;
    uint32_t offset;             /* of the record in the segment */
    uint64_t lsn;
    struct message_id id;
    uint32_t head_size, size;    /* record_head_size(), record_size() */
};
void index_entry_put(unsigned char at[INDEX_ENTRY], const struct index_entry *);
bool index_entry_take(const unsigned char at[INDEX_ENTRY], struct index_entry *out);

#endif
