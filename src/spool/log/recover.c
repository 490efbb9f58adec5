/*
 * recover - from files to live messages. It writes nothing, so a crash in the middle of it changes nothing; but log_open()
 * proves, once the walk is over, that the disk can be written.
 *
 * When the spool is opened: the headers of all segments; a sync, then a walk over each unsealed one (one, but after
 * damage). Then new mail may come. Beside it: the indexes of all segments, newest record first, so that an end is seen
 * before what it ends. A message whose base is found is whole, for all that is newer has been seen: heads are read and
 * shown from the first index on, newest first; most of them when all indexes are read and every live id is known.
 */
#include "spool/log/log.h"

#include <string.h>

enum {
    SEGMENT_BYTES_DEFAULT = 64 << 20,
    SEGMENT_BYTES_SMALL = 4 << 20,
    SEGMENTS_OF_DISK = 32,
};
enum { /* flags of an index entry, while walking */
    SUSPECT = 128, /* its data is damaged */
    PIECED = 64,   /* its content lies in records of its own: whether they are whole is not known yet */
};
enum {
    YIELD_EVERY = 1000,
    SHOW_EARLY = 256, /* messages, so that the first deliveries need not wait for all indexes; commits do */
};

struct known_index { /* of an unsealed segment, as it was when we opened it */
    struct segment *segment;
    struct index_entry *own_entries;
    uint32_t count;
};

struct recovery {
    struct known_index *own_indexes;
    uint32_t index_count;
    uint64_t lsn;          /* records from here on are of our own time */
    struct list orphans;   /* messages of which only settles are known */
    struct list waiting;   /* with a base, newest first */
    struct list ended;     /* to be given a DONE when recovery has ended: until then it writes nothing */
    struct ids dead;
    struct arena dead_ids;
    char *own_listed;      /* the segments that the newest CHECKPOINT names */
    size_t listed_size;
};

/* ---- headers ----------------------------------------------------------------------------------------------------- */

struct headers {
    bool first_ok, last_ok;
    struct segment_header first, last;
    bool blank; /* nothing was ever written there */
};

static bool
is_blank(const unsigned char *block)
{
    for (size_t i = 0; i < BLOCK; i++)
        if (block[i] != 0)
            return false;
    return true;
}

static struct err
read_headers(struct spool *sp, struct segment *seg, int64_t until, struct headers *out)
{
    unsigned char *block = sp->own_block;
    size_t got = 0;
    uint64_t size;

    *out = (struct headers){ .blank = true };
    TRY(segment_pin(sp, seg, until));
    struct err e = file_size(seg->own_file, LANE_BACKGROUND, until, &size);
    if (!err_is(e) && size >= BLOCK)
        e = file_read(seg->own_file, block, BLOCK, 0, LANE_BACKGROUND, until, &got);
    if (!err_is(e) && got == BLOCK) {
        out->first_ok = segment_header_take(str_new(block, BLOCK), &out->first);
        out->blank &= is_blank(block);
    }
    got = 0;
    if (!err_is(e) && size >= 2 * BLOCK)
        e = file_read(seg->own_file, block, BLOCK, size / BLOCK * BLOCK - BLOCK, LANE_BACKGROUND, until, &got);
    if (!err_is(e) && got == BLOCK) {
        out->last_ok = segment_header_take(str_new(block, BLOCK), &out->last);
        out->blank &= is_blank(block);
    }
    segment_unpin(sp, seg);
    return e;
}

/* Which of the two counts, and what the segment is: record.c says when each of them is written. */
static bool
choose_header(const struct headers *h, struct segment_header *out)
{
    if (h->first_ok && h->first.state == SEGMENT_FREE) {
        *out = h->first;
        return true;
    }
    if (h->first_ok) {
        *out = h->first;
        if (h->last_ok && h->last.secret == h->first.secret && h->last.sequence == h->first.sequence &&
            h->last.state == SEGMENT_SEALED)
            *out = h->last;
        return true;
    }
    *out = h->last;
    return h->last_ok;
}

static void
report_file(struct spool *sp, const struct segment *seg, bool damage, struct str what)
{
    char memory[32];
    struct text name = text_init(memory, sizeof memory);

    segment_name(seg->number, &name);
    spool_report(sp, (struct spool_report){ .damage = damage, .what = what, .file = text_str(&name) });
}

/* A file that never became a segment, because a crash came before its first header; or a free one of another size. */
static struct err
drop_file(struct spool *sp, struct segment *seg, int64_t until)
{
    char memory[32];
    struct text name = text_init(memory, sizeof memory);

    segment_name(seg->number, &name);
    segment_free(sp, seg);
    return sp->read_only ? OK : dir_unlink(sp->dir, text_str(&name), LANE_BACKGROUND, until);
}

/*
 * Sync before belief: what the page cache holds, the disk may not have, and the segment that it calls free may come back. After
 * a sync that failed, that of a process before us, it may even be that the disk will never have it, and no sync says so any
 * more: then only the disk itself can tell.
 */
static struct err
sync_segment(struct spool *sp, struct segment *seg, int64_t until)
{
    TRY(segment_pin(sp, seg, until));
    struct err e = file_sync(seg->own_file, LANE_BACKGROUND, until);
    sp->counters.syncs += !err_is(e);
    if (!err_is(e))
        e = file_forget_cache(seg->own_file, LANE_BACKGROUND, until);
    segment_unpin(sp, seg);
    return e;
}

/* Of a sealed one all but the last header was synced before that says so; if it is lost, the segment is open. */
static struct err
read_true_headers(struct spool *sp, struct segment *seg, int64_t until, struct headers *out)
{
    struct segment_header h;

    TRY(read_headers(sp, seg, until, out));
    if (sp->read_only || (choose_header(out, &h) && h.state == SEGMENT_SEALED))
        return OK;
    TRY(sync_segment(sp, seg, until));
    return read_headers(sp, seg, until, out);
}

static struct err
look_at(struct spool *sp, uint32_t number, struct list *used, int64_t until)
{
    struct segment *seg = segment_new(sp, number);
    struct headers headers;
    struct segment_header h;
    struct err e = read_true_headers(sp, seg, until, &headers);

    if (err_is(e)) {
        segment_free(sp, seg);
        return e;
    }
    if (!choose_header(&headers, &h)) {
        if (headers.blank)
            return drop_file(sp, seg, until);
        report_file(sp, seg, true, S("a segment has lost both its headers: its records cannot be read"));
        segment_free(sp, seg); /* the file stays where it is */
        return OK;
    }
    if (h.version > SEGMENT_VERSION || h.incompat != 0 || (h.read_only_compat != 0 && !sp->read_only)) {
        report_file(sp, seg, false, S("a segment was written by a newer version of postrider"));
        segment_free(sp, seg);
        return ERR(ERR_READ_ONLY, "open spool: a newer version wrote it");
    }
    if (h.state != SEGMENT_FREE && (!headers.first_ok || !headers.last_ok))
        report_file(sp, seg, true, S("one of the two headers of a segment is damaged; the other one serves"));
    seg->header = h;
    seg->state = (uint8_t)h.state;
    seg->sequence = h.sequence;
    seg->secret = h.secret;
    seg->first_lsn = h.first_lsn;
    seg->last_lsn = h.last_lsn;
    seg->used = h.end;
    seg->written = h.end == h.bytes;
    seg->free_since = rt_now(sp->rt);
    if (h.sequence >= sp->next_sequence)
        sp->next_sequence = h.sequence + 1;
    if (h.state == SEGMENT_FREE) {
        list_push_back(&sp->free, &seg->link);
        sp->free_count++;
    } else {
        list_push_back(used, &seg->link);
    }
    return OK;
}

/* ---- unsealed segments ------------------------------------------------------------------------------------------- */

struct opening {
    struct spool *sp;
    struct segment *segment;
    bool count; /* newer than the newest sealed one, whose footer has the counters so far */
    uint8_t doubt;           /* of the record at hand: SUSPECT, PIECED */
    uint64_t checkpoint_lsn; /* what is older was counted by a CHECKPOINT */
    uint64_t torn_from;      /* where the first record of a torn batch is missing */
};

static void
add_index(void *arg, const struct index_entry *e)
{
    struct opening *o = arg;
    struct index_entry entry = *e;

    entry.flags |= o->doubt;
    segment_index_add(o->sp, o->segment, &entry);
    if (e->type == RECORD_DONE && !(e->flags & RECORD_WITHIN))
        o->segment->done_bytes += e->size;
}

static void
list_segments(struct spool *sp, struct str segments)
{
    struct recovery *r = sp->own_recovery;

    mem_free(sp->mem, r->own_listed, r->listed_size);
    r->own_listed = mem_alloc(sp->mem, segments.len);
    r->listed_size = segments.len;
    if (segments.len > 0)
        memcpy(r->own_listed, segments.ptr, segments.len);
}

static void
count_record(struct spool *sp, const struct record *r)
{
    struct take t = take_init(r->body);
    struct checkpoint c;

    if (r->type == RECORD_CHECKPOINT && checkpoint_take(&t, &c)) {
        sp->tally = c.tally;
        list_segments(sp, c.segments);
    } else if (r->type == RECORD_SETTLE || r->type == RECORD_DONE)
        tally_settle(&sp->tally, &t);
    else if (r->type == RECORD_ACCEPT)
        tally_accept(&sp->tally, r->body);
}

static bool
is_pieced(const struct record *r)
{
    struct base base;

    return (r->type == RECORD_ACCEPT || r->type == RECORD_STATE) && base_take(r->body, &base) && base.head.extent_count > 0;
}

static bool
meet_record(void *arg, const struct record *r, uint64_t offset, struct str head, struct str data, bool data_ok)
{
    struct opening *o = arg;

    (void)head;
    (void)data;
    o->doubt = (uint8_t)((data_ok ? 0 : SUSPECT) | (is_pieced(r) ? PIECED : 0));
    record_index(r, offset, add_index, o);
    if (o->count && !o->doubt)
        count_record(o->sp, r);
    if (r->type == RECORD_CHECKPOINT && !o->doubt)
        o->checkpoint_lsn = r->lsn;
    return true;
}

static bool
meet_damage(void *arg, uint64_t offset, uint64_t len, bool torn)
{
    struct opening *o = arg;

    if (torn && offset < o->torn_from)
        o->torn_from = offset;
    damage_add(o->sp, o->segment, offset, len, (struct message_id){ 0, 0 },
               torn ? S(WALK_TORN) : S("records that were on disk are damaged"));
    return true;
}

static struct err
pieces_are_whole(struct spool *sp, const struct record *r, int64_t until, bool *out)
{
    struct base base;

    *out = base_take(r->body, &base);
    for (uint32_t i = 0; i < base.head.extent_count && *out; i++) {
        struct extent extent = base_extent(&base, i);
        if (extent.segment == 0) /* was lost before, and is said to be */
            continue;
        char *memory = mem_alloc(sp->mem, extent.len);
        struct err e = extent_read(sp, extent, memory, until);
        mem_free(sp->mem, memory, extent.len);
        if (e.kind == ERR_CORRUPT)
            *out = false;
        else
            TRY(e);
    }
    return OK;
}

/* Could it be that nobody was told of it? And is what belongs to it not all there? */
static struct err
is_torn(struct spool *sp, const struct index_entry *e, uint64_t proven, const struct record *r, int64_t until, bool *out)
{
    bool whole = true;

    if (e->lsn > proven && e->flags & PIECED)
        TRY(pieces_are_whole(sp, r, until, &whole));
    *out = e->lsn > proven && (e->flags & SUSPECT || !whole);
    return OK;
}

/*
 * A record whose content is damaged counts if it was acknowledged: then its envelope at least is not lost. Else it was written
 * in one go with its content, or its pieces, and a crash came before the sync: it is dropped, lest half a message arrives.
 */
static struct err
drop_torn(struct opening *o, uint64_t proven, int64_t until)
{
    struct spool *sp = o->sp;
    struct segment *seg = o->segment;
    uint32_t kept = 0;
    bool torn = false;
    struct arena arena;
    struct err err = OK;

    arena_init(&arena, sp->mem, 4096, SIZE_MAX / 2);
    for (uint32_t i = 0; i < seg->index_count; i++) {
        struct index_entry e = seg->own_index[i];
        struct record r;
        bool doubted = e.flags & (SUSPECT | PIECED) && !err_is(err);
        bool looked_at = e.lsn > proven || o->count;
        if (doubted && looked_at && !(e.flags & RECORD_WITHIN)) { /* of one within, the record itself came just before */
            arena_reset(&arena);
            err = head_read(sp, (struct place){ seg, e.offset, e.size }, e.head_size, &arena, until, &r);
            if (!err_is(err))
                err = is_torn(sp, &e, proven, &r, until, &torn);
            if (!err_is(err) && !torn && o->count && e.lsn > o->checkpoint_lsn)
                count_record(sp, &r);
        }
        if (doubted && torn)
            continue;
        e.flags &= (uint8_t)~(SUSPECT | PIECED);
        seg->own_index[kept++] = e;
    }
    arena_done(&arena);
    seg->index_count = kept;
    return err;
}

/*
 * A batch is not whole: an end that stands in it, behind what is missing, may follow from a settle that is lost. As a
 * settle it says what it says, and if that is the end of its message, another DONE is written. (One that is said again
 * by cleaning says nothing as a settle, but then the one that it repeats is still there: nobody was told of this batch.)
 */
static void
doubt_ends(struct segment *seg, uint64_t torn_from)
{
    for (uint32_t i = 0; i < seg->index_count; i++)
        if (seg->own_index[i].type == RECORD_DONE && seg->own_index[i].offset > torn_from)
            seg->own_index[i].type = RECORD_SETTLE;
}

static struct err
walk_unsealed(struct spool *sp, struct segment *seg, bool count, int64_t until)
{
    struct opening o = { .sp = sp, .segment = seg, .count = count, .torn_from = UINT64_MAX };
    struct walk walk = { &o, meet_record, meet_damage };
    struct walked walked;

    TRY(segment_walk(sp, seg, &walk, until, &walked));
    if (walked.newer && !sp->read_only) {
        report_file(sp, seg, false, S("a segment has records of a newer version of postrider"));
        return ERR(ERR_READ_ONLY, "open spool: a newer version wrote it");
    }
    seg->used = walked.end;
    TRY(drop_torn(&o, walked.proven, until));
    doubt_ends(seg, o.torn_from);
    seg->last_lsn = walked.last_lsn > walked.proven ? walked.last_lsn : walked.proven;
    seg->damaged = !walked.clean;
    if (walked.spool_time > sp->spool_time)
        sp->spool_time = walked.spool_time;
    sp->proof_lsn = walked.proven;
    sp->counters.lost += walked.lost;
    return OK;
}

/* ---- open -------------------------------------------------------------------------------------------------------- */

static void
enter_sorted(struct spool *sp, struct list *used)
{
    while (!list_is_empty(used)) {
        struct segment *first = NULL;
        list_each(node, used) {
            struct segment *seg = container_of(node, struct segment, link);
            if (!first || seg->sequence < first->sequence)
                first = seg;
        }
        list_remove(&first->link);
        if (sp->segment_count > 0 && sp->own_segments[sp->segment_count - 1]->sequence == first->sequence) {
            report_file(sp, first, true, S("two segments have one number: this one is not used"));
            segment_free(sp, first);
        } else {
            segment_enter(sp, first);
        }
    }
}

static void
keep_index(struct spool *sp, struct recovery *r, struct segment *seg)
{
    struct known_index *known;

    r->own_indexes = mem_resize(sp->mem, r->own_indexes, r->index_count * sizeof *r->own_indexes,
                                (r->index_count + 1) * sizeof *r->own_indexes);
    known = &r->own_indexes[r->index_count++];
    *known = (struct known_index){ seg, mem_alloc(sp->mem, seg->index_count * sizeof *seg->own_index), seg->index_count };
    if (seg->index_count > 0)
        memcpy(known->own_entries, seg->own_index, seg->index_count * sizeof *seg->own_index);
}

/* A new spool on a small disk gets small segments: two are held in reserve, and one or two more are always in the
 * making. */
static struct err
choose_size(struct spool *sp, int64_t until)
{
    const struct segment *last = sp->segment_count ? sp->own_segments[sp->segment_count - 1] : NULL;
    uint64_t size = SEGMENT_BYTES_DEFAULT;

    if (!last && sp->free_count > 0)
        last = container_of(sp->free.next, struct segment, link);
    if (last) {
        size = last->header.bytes;
    } else {
        TRY(space_look(sp, until));
        while (size > SEGMENT_BYTES_SMALL && size > sp->fs_free / SEGMENTS_OF_DISK)
            size /= 2;
    }
    sp->settings.segment_bytes = size;
    return OK;
}

static struct err
drop_other_sizes(struct spool *sp, int64_t until)
{
    list_each_safe(node, &sp->free) {
        struct segment *seg = container_of(node, struct segment, link);
        if (seg->header.bytes == sp->settings.segment_bytes)
            continue;
        sp->free_count--;
        TRY(drop_file(sp, seg, until));
    }
    return OK;
}

static bool
is_file_of(const struct spool *sp, uint32_t number)
{
    for (uint32_t i = 0; i < sp->segment_count; i++)
        if (sp->own_segments[i]->number == number)
            return true;
    list_each(node, &sp->free)
        if (container_of(node, struct segment, link)->number == number)
            return true;
    return false;
}

/* The newest CHECKPOINT names the segments in use then; the file of one that is nowhere has been lost whole. */
static void
report_lost_files(struct spool *sp)
{
    struct recovery *r = sp->own_recovery;
    struct checkpoint c = { .count = (uint32_t)(r->listed_size / CHECKPOINT_SEGMENT),
                            .segments = { r->own_listed, r->listed_size } };

    for (uint32_t i = 0; i < c.count; i++) {
        uint64_t sequence;
        struct segment lost = { 0 };
        checkpoint_segment(&c, i, &sequence, &lost.number);
        if (!is_file_of(sp, lost.number))
            report_file(sp, &lost, true, S("the file of a segment is missing, and with it what lay there"));
    }
}

static struct err
open_segments(struct spool *sp, struct list *used, int64_t until)
{
    struct arena arena;
    struct str *names;
    size_t count;

    arena_init(&arena, sp->mem, 4096, SIZE_MAX / 2);
    struct err e = sp->read_only ? OK : dir_sync(sp->dir, LANE_BACKGROUND, until); /* names too */
    if (!err_is(e))
        e = dir_list(sp->dir, &arena, LANE_BACKGROUND, until, &names, &count);
    for (size_t i = 0; !err_is(e) && i < count; i++) {
        uint32_t number;
        if (segment_name_parse(names[i], &number))
            e = look_at(sp, number, used, until);
    }
    arena_done(&arena);
    return e;
}

static struct err
walk_all_unsealed(struct spool *sp, struct recovery *r, int64_t until)
{
    uint64_t newest_sealed = 0;

    for (uint32_t i = 0; i < sp->segment_count; i++) {
        struct segment *seg = sp->own_segments[i];
        if (seg->state != SEGMENT_SEALED)
            continue;
        newest_sealed = seg->sequence;
        sp->tally = seg->header.tally;
        sp->spool_time = seg->header.spool_time;
        if (seg->last_lsn >= sp->next_lsn)
            sp->next_lsn = seg->last_lsn + 1;
    }
    for (uint32_t i = 0; i < sp->segment_count; i++) {
        struct segment *seg = sp->own_segments[i];
        if (seg->state == SEGMENT_SEALED)
            continue;
        TRY(walk_unsealed(sp, seg, seg->sequence > newest_sealed, until));
        keep_index(sp, r, seg);
        if (seg->last_lsn >= sp->next_lsn)
            sp->next_lsn = seg->last_lsn + 1;
    }
    return OK;
}

struct err
recover_open(struct spool *sp, int64_t until)
{
    struct recovery *r = mem_new(sp->mem, struct recovery);
    struct list used;

    sp->own_recovery = r;
    list_init(&r->orphans);
    list_init(&r->waiting);
    list_init(&r->ended);
    ids_init(&r->dead, sp->mem, rt_random(sp->rt));
    arena_init(&r->dead_ids, sp->mem, 64 << 10, SIZE_MAX / 2);
    list_init(&used);
    sp->next_sequence = sp->next_lsn = 1;
    struct err e = open_segments(sp, &used, until);
    enter_sorted(sp, &used);
    TRY(e);
    if (sp->settings.segment_bytes == 0)
        TRY(choose_size(sp, until));
    TRY(drop_other_sizes(sp, until));
    TRY(walk_all_unsealed(sp, r, until));
    report_lost_files(sp);
    /* An older one that is damaged was the last when this one began, above all numbers that were lost there. */
    struct segment *last = sp->segment_count ? sp->own_segments[sp->segment_count - 1] : NULL;
    bool damaged = last && last->state == SEGMENT_OPEN && last->damaged;
    if (damaged) /* what was lost may have had numbers that we never saw */
        sp->next_lsn += 1 << 20;
    r->lsn = sp->next_lsn;
    sp->synced_lsn = last ? last->last_lsn : 0;
    if (!last || last->state != SEGMENT_OPEN || damaged || sp->read_only ||
        last->header.bytes != sp->settings.segment_bytes || last->used > segment_room_end(sp, last, 0)) {
        sp->proof_lsn = sp->synced_lsn;
        return OK;
    }
    TRY(segment_pin(sp, last, until));
    sp->current = last; /* its clean tail is used on */
    return OK;
}

void
recover_drop(struct spool *sp)
{
    struct recovery *r = sp->own_recovery;

    if (!r)
        return;
    for (uint32_t i = 0; i < r->index_count; i++)
        mem_free(sp->mem, r->own_indexes[i].own_entries, r->own_indexes[i].count * sizeof *r->own_indexes[i].own_entries);
    mem_free(sp->mem, r->own_indexes, r->index_count * sizeof *r->own_indexes);
    mem_free(sp->mem, r->own_listed, r->listed_size);
    ids_done(&r->dead);
    arena_done(&r->dead_ids);
    mem_free(sp->mem, r, sizeof *r);
    sp->own_recovery = NULL;
}

/* ---- indexes ----------------------------------------------------------------------------------------------------- */

static struct err
index_read_footer(struct spool *sp, struct segment *seg, int64_t until, struct index_entry **out)
{
    size_t size = (size_t)seg->header.index_count * INDEX_ENTRY;
    unsigned char *bytes = mem_alloc(sp->mem, size);
    struct err e = segment_read(sp, seg, seg->header.index_offset, bytes, size, until);

    if (!err_is(e) && record_hash_data(str_new(bytes, size)) != seg->header.index_hash)
        e = ERR(ERR_CORRUPT, "read spool index: its hash fails");
    if (!err_is(e)) {
        *out = mem_alloc(sp->mem, seg->header.index_count * sizeof **out);
        for (uint32_t i = 0; i < seg->header.index_count; i++)
            if (!index_entry_take(bytes + (size_t)i * INDEX_ENTRY, *out + i))
                e = ERR(ERR_CORRUPT, "read spool index: an entry makes no sense");
        if (err_is(e))
            mem_free(sp->mem, *out, seg->header.index_count * sizeof **out);
    }
    mem_free(sp->mem, bytes, size);
    return e;
}

struct err
index_read(struct spool *sp, struct segment *seg, int64_t until, struct index_entry **out, uint32_t *out_count)
{
    struct err e = index_read_footer(sp, seg, until, out);

    *out_count = seg->header.index_count;
    if (e.kind != ERR_CORRUPT)
        return e;
    report_file(sp, seg, true, S("the index of a segment is damaged: its records are read instead"));
    struct opening o = { .sp = sp, .segment = seg, .torn_from = UINT64_MAX };
    struct walk walk = { &o, meet_record, meet_damage };
    struct walked walked;
    segment_index_drop(sp, seg);
    TRY(segment_walk(sp, seg, &walk, until, &walked));
    TRY(drop_torn(&o, UINT64_MAX, until));
    *out_count = seg->index_count;
    *out = mem_alloc(sp->mem, seg->index_count * sizeof **out);
    if (seg->index_count > 0)
        memcpy(*out, seg->own_index, seg->index_count * sizeof **out);
    segment_index_drop(sp, seg);
    return OK;
}

/* ---- who lives --------------------------------------------------------------------------------------------------- */

static void
add_dead(struct recovery *r, struct message_id dead)
{
    struct message_id *id;

    if (ids_get(&r->dead, dead))
        return;
    id = arena_new(&r->dead_ids, struct message_id);
    *id = dead;
    ids_put(&r->dead, id);
}

/* It ended while older indexes are still to be read: what they say of it is over. */
void
recover_note_end(struct spool *sp, struct message_id id)
{
    if (sp->own_recovery && !sp->index_known)
        add_dead(sp->own_recovery, id);
}

static void
meet_done(struct spool *sp, struct recovery *r, const struct index_entry *e)
{
    struct message *m = message_find(sp, e->id);

    if (m && !m->base.segment)
        message_free(sp, m);
    add_dead(r, e->id);
    if (sp->ended_count < LIMIT_ENDED)
        ended_add(sp, e->id);
}

/* Newest first: what comes now stands before those that are there. */
static void
meet_settle(struct spool *sp, struct recovery *r, struct segment *seg, const struct index_entry *e)
{
    struct message *m = message_find(sp, e->id);
    bool within = e->flags & RECORD_WITHIN;
    struct place place = { seg, e->offset, within ? INDEX_ENTRY : e->size };

    if (m && (m->base.segment || m->covered)) /* the base is newer, or a settle that says all */
        return;
    if (!m) {
        m = message_new(sp, e->id);
        list_push_back(&r->orphans, &m->link);
    }
    message_add_older_ref(sp, m, place);
    m->covered = e->flags & RECORD_COVERS && !within;
}

static void
meet_base(struct spool *sp, struct recovery *r, struct segment *seg, const struct index_entry *e)
{
    struct message *m = message_find(sp, e->id);

    if (m && m->base.segment) { /* an older one of the same message: its DONE must know of it */
        if (seg->sequence < m->base_first)
            m->base_first = seg->sequence;
        return;
    }
    if (!m)
        m = message_new(sp, e->id);
    list_remove(&m->link);
    list_push_back(&r->waiting, &m->link);
    message_set_base(sp, m, (struct place){ seg, e->offset, e->size }, e->head_size);
}

static void
meet_entry(struct spool *sp, struct recovery *r, struct segment *seg, const struct index_entry *e)
{
    if (e->lsn >= r->lsn || (e->type != RECORD_DONE && ids_get(&r->dead, e->id)))
        return;
    if (e->type == RECORD_DONE)
        meet_done(sp, r, e);
    else if (e->type == RECORD_SETTLE)
        meet_settle(sp, r, seg, e);
    else if (e->type == RECORD_ACCEPT || e->type == RECORD_STATE)
        meet_base(sp, r, seg, e);
}

static void
meet_entries(struct spool *sp, struct segment *seg, const struct index_entry *entries, uint32_t count)
{
    for (uint32_t i = count; i > 0; i--) {
        meet_entry(sp, sp->own_recovery, seg, &entries[i - 1]);
        if (i % YIELD_EVERY == 0)
            fiber_yield(sp->rt);
    }
}

static const struct known_index *
known_index(const struct recovery *r, const struct segment *seg)
{
    for (uint32_t i = 0; i < r->index_count; i++)
        if (r->own_indexes[i].segment == seg)
            return &r->own_indexes[i];
    return NULL;
}

/* ---- one by one -------------------------------------------------------------------------------------------------- */

static struct err
show_one(struct spool *sp, struct message *m, struct arena *arena)
{
    struct loaded loaded;
    struct message_id id = m->id;
    struct err e = message_load(sp, id, arena, FOREVER, &loaded);

    m = message_find(sp, id);
    if (e.kind == ERR_NOT_FOUND || !m)
        return OK;
    if (e.kind != ERR_CORRUPT)
        TRY(e);
    if (!err_is(e) && !m->loaded)
        message_adopt(sp, m, &loaded);
    if (!err_is(e) && m->open > 0) {
        order_add_found(sp, m);
        sp->found(sp->found_arg, &loaded.message);
    } else { /* damaged, and an older base of it may lie elsewhere; or ended, yet without a DONE: that one is damaged */
        list_remove(&m->link);
        list_push_back(&sp->own_recovery->ended, &m->link);
    }
    return OK;
}

static struct err
show_some(struct spool *sp, size_t *count)
{
    struct recovery *r = sp->own_recovery;
    struct arena arena;
    struct err e = OK;

    arena_init(&arena, sp->mem, 16 << 10, SIZE_MAX / 2);
    for (; *count > 0 && !err_is(e) && !list_is_empty(&r->waiting); --*count) {
        arena_reset(&arena);
        e = show_one(sp, container_of(r->waiting.next, struct message, link), &arena);
        fiber_yield(sp->rt);
    }
    arena_done(&arena);
    return e;
}

/* ---- the whole --------------------------------------------------------------------------------------------------- */

static struct err
find_live(struct spool *sp)
{
    struct recovery *r = sp->own_recovery;
    size_t early = SHOW_EARLY;
    struct list *node;

    for (uint32_t i = sp->segment_count; i > 0; i--) { /* new ones join behind; none leaves before the keeper runs */
        struct segment *seg = sp->own_segments[i - 1];
        const struct known_index *known = known_index(r, seg);
        if (known) {
            meet_entries(sp, seg, known->own_entries, known->count);
        } else if (seg->first_lsn < r->lsn) {
            struct index_entry *entries;
            uint32_t count;
            TRY(index_read(sp, seg, FOREVER, &entries, &count));
            meet_entries(sp, seg, entries, count);
            for (uint32_t at = 0; at < count; at++)
                if (entries[at].type == RECORD_DONE && !(entries[at].flags & RECORD_WITHIN))
                    seg->done_bytes += entries[at].size;
            mem_free(sp->mem, entries, count * sizeof *entries);
        }
        TRY(show_some(sp, &early));
    }
    while ((node = list_pop_front(&r->orphans)) != NULL) /* ended long ago: the rest of them is already overwritten */
        message_free(sp, container_of(node, struct message, link));
    sp->index_known = true;
    event_wake(sp->rt, &sp->written);
    return OK;
}

void
recover_run(void *arg)
{
    struct spool *sp = arg;
    struct err e = find_live(sp);
    size_t all = SIZE_MAX;

    if (!err_is(e))
        e = show_some(sp, &all);
    if (!err_is(e))
        order_sort(sp);
    struct recovery *r = sp->own_recovery;
    sp->recovering = false;
    for (struct list *node; (node = list_pop_front(&r->ended));)
        if (!err_is(e) && !sp->read_only)
            message_retire(sp, container_of(node, struct message, link));
    while (list_pop_front(&r->waiting) || list_pop_front(&r->orphans)) /* ended early: none stays linked to what goes */
        ;
    recover_drop(sp);
    event_wake(sp->rt, &sp->written);
    event_wake(sp->rt, &sp->work);
    if (!err_is(e))
        keeper_wake(sp);
    sp->found_all(sp->found_arg, e);
}
