/*
 * commit - everything that is appended to the log goes through one fiber: it takes all that waits, writes it as one
 * batch, syncs once, and answers all; what arrives meanwhile is the next batch. So the more there is to do, the cheaper
 * each commit is, without a timer and without a setting.
 *
 * A commit into blocks that were never written has to wait for the file system's journal as well. So a small batch takes
 * zeros along for what will come behind it, and those that follow need the data alone to be on disk. Under load batches
 * are large, and the journal does not matter.
 *
 * Settles that nobody waits for ride along, or go alone after LAZY_NS. When the log goes idle, one PROOF more is
 * written, so that the last batch too is known to have been synced. After an error of write or sync nothing is tried
 * again on that file: all who wait get the error, the spool is broken, and the process ends (spool.md "Commit").
 */
#include "spool/log/log.h"

#include <string.h>

static const char zeros[4 * BLOCK];

struct batch {
    struct segment *segment;
    size_t parts;
    uint64_t bytes, ahead; /* of zeros behind it */
    uint64_t news;         /* of bytes: no cleaning */
    uint32_t records, entries;
    uint64_t first_lsn;
    bool sync;
    struct list appends;
};

/* ---- appends ----------------------------------------------------------------------------------------------------- */

void
append_init(struct append *a, struct spool *sp, uint8_t type, struct message_id id, size_t body_size)
{
    *a = (struct append){ .type = type, .id = id, .sync = true, .finish = append_done };
    a->head_size = (uint32_t)(RECORD_HEADER + body_size + RECORD_CHECK);
    a->own_head = mem_alloc(sp->mem, a->head_size);
    list_init(&a->link);
    event_init(&a->finished);
}

/* Where an append that nobody waits for ends. */
void
append_drop(struct spool *sp, struct append *a)
{
    mem_free(sp->mem, a->own_head, a->head_size);
    mem_free(sp->mem, a, sizeof *a);
}

unsigned char *
append_body(const struct append *a)
{
    return a->own_head + RECORD_HEADER;
}

struct put
append_put(const struct append *a)
{
    return put_init(append_body(a), a->head_size - RECORD_HEADER - RECORD_CHECK);
}

static struct record
append_record(const struct append *a, uint64_t lsn)
{
    return (struct record){
        .type = a->type,
        .flags = a->flags,
        .lsn = lsn,
        .id = a->id,
        .body = { (const char *)append_body(a), a->head_size - RECORD_HEADER - RECORD_CHECK },
        .data_size = (uint32_t)a->data.len,
        .data_hash = a->data_hash,
    };
}

size_t
append_size(const struct append *a)
{
    struct record r = append_record(a, 0);

    return record_size(&r);
}

static void
append_end(struct spool *sp, struct append *a, struct err e)
{
    list_remove(&a->link);
    a->err = e;
    a->done = true;
    a->finish(sp, a);
    event_wake(sp->rt, &sp->written);
}

static void
queue_put(struct spool *sp, struct append *a, bool first)
{
    CHECK(!sp->read_only);
    CHECK(append_size(a) <= record_size_max(sp));
    if (sp->broken || sp->ending) {
        append_end(sp, a, ERR(ERR_IO, "spool is closed"));
        return;
    }
    if (a->lazy && list_is_empty(&sp->queue))
        sp->lazy_until = within(sp->rt, LAZY_NS);
    if (first)
        list_push_front(&sp->queue, &a->link);
    else
        list_push_back(&sp->queue, &a->link);
    sp->queued++;
    sp->urgent += !a->lazy;
    if (a->need != NEED_DRAIN) /* cleaning goes first; and mail is refused at once, whatever waits */
        sp->starved = false;
    event_wake(sp->rt, &sp->work);
}

void
append_queue(struct spool *sp, struct append *a)
{
    queue_put(sp, a, false);
}

void
append_queue_first(struct spool *sp, struct append *a)
{
    list_push_front(&sp->queue, &a->link);
    sp->queued++;
    sp->urgent += !a->lazy;
}

/* So that each record fits an empty segment beside the CHECKPOINT. */
size_t
record_size_max(const struct spool *sp)
{
    return sp->settings.segment_bytes / 2;
}

void
append_done(struct spool *sp, struct append *a)
{
    event_wake(sp->rt, &a->finished);
}

struct err
append_wait(struct spool *sp, struct append *a)
{
    append_queue(sp, a);
    while (!a->done)
        event_wait_firmly(sp->rt, &a->finished);
    return a->err;
}

static struct append *
queue_first(const struct spool *sp)
{
    return list_is_empty(&sp->queue) ? NULL : container_of(sp->queue.next, struct append, link);
}

static void
queue_take(struct spool *sp, struct append *a)
{
    list_remove(&a->link);
    sp->queued--;
    sp->urgent -= !a->lazy;
}

/* ---- one batch --------------------------------------------------------------------------------------------------- */

static void
add_part(struct spool *sp, struct batch *b, struct str part)
{
    if (part.len == 0)
        return;
    if (b->parts == sp->part_cap) {
        size_t cap = sp->part_cap ? 2 * sp->part_cap : 64;
        sp->own_parts = mem_resize(sp->mem, sp->own_parts, sp->part_cap * sizeof *sp->own_parts, cap * sizeof *sp->own_parts);
        sp->part_cap = cap;
    }
    sp->own_parts[b->parts++] = part;
    b->bytes += part.len;
}

static void
add_padding(struct spool *sp, struct batch *b, uint64_t multiple)
{
    add_part(sp, b, str_new(zeros, (size_t)((multiple - b->bytes % multiple) % multiple)));
}

static void
batch_begin(struct spool *sp, struct batch *b, struct segment *seg)
{
    *b = (struct batch){ .segment = seg, .first_lsn = sp->next_lsn };
    list_init(&b->appends);
    sp->next_lsn++; /* for the PROOF */
    add_part(sp, b, str_new(sp->proof_head, sizeof sp->proof_head));
    add_padding(sp, b, RECORD_ALIGN);
}

static bool
batch_fits(const struct spool *sp, const struct batch *b, const struct append *a)
{
    uint64_t end = b->segment->used + (b->bytes + append_size(a) + BLOCK - 1) / BLOCK * BLOCK;

    /* One block is left for the PROOF of the last batch. */
    return end + BLOCK <= segment_room_end(sp, b->segment, b->entries + 2) &&
           (b->records == 0 || (b->bytes + append_size(a) <= LIMIT_BATCH && b->records < LIMIT_BATCH_RECORDS));
}

/* Takes the append from the queue into the batch; or, when it withdraws, ends it. */
static void
batch_add(struct spool *sp, struct batch *b, struct append *a)
{
    struct err e = a->prepare ? a->prepare(sp, a) : OK;

    if (err_is(e)) {
        append_end(sp, a, e);
        return;
    }
    a->lsn = sp->next_lsn++;
    if (a->type == RECORD_ACCEPT)
        base_patch_order(append_body(a), a->lsn);
    struct record r = append_record(a, a->lsn);
    record_seal(a->own_head, &r, b->segment->secret);
    a->place = (struct place){ b->segment, (uint32_t)(b->segment->used + b->bytes), (uint32_t)record_size(&r) };
    add_part(sp, b, str_new(a->own_head, a->head_size));
    add_part(sp, b, a->data);
    add_padding(sp, b, RECORD_ALIGN);
    b->records++;
    b->entries += a->type == RECORD_ACCEPT ? 2 : 1;
    b->sync |= a->sync;
    b->news += a->need == NEED_CLEAN ? 0 : append_size(a);
    list_push_back(&b->appends, &a->link);
}

static void
batch_seal(struct spool *sp, struct batch *b)
{
    struct proof proof = { sp->synced_lsn, spool_now(sp), b->segment->sequence, 0, b->records };
    struct put p = put_init(sp->proof_head + RECORD_HEADER, PROOF_BODY);

    add_padding(sp, b, BLOCK);
    proof.batch_bytes = (uint32_t)b->bytes;
    proof_put(&p, &proof);
    struct record r = { .type = RECORD_PROOF, .lsn = b->first_lsn, .body = put_str_so_far(&p) };
    record_seal(sp->proof_head, &r, b->segment->secret);
    sp->proof_lsn = proof.proven;
}

static void
batch_write_ahead(struct spool *sp, struct batch *b)
{
    uint64_t own = b->bytes, end = b->segment->used + own, last = b->segment->header.bytes - BLOCK;
    uint64_t ahead = b->segment->header.bytes / 8 < AHEAD_BYTES ? b->segment->header.bytes / 8 : AHEAD_BYTES;

    if (end <= b->segment->ahead || own > AHEAD_BATCH || !b->sync)
        return;
    b->ahead = ahead < last - end ? ahead : last - end;
    while (b->bytes < own + b->ahead) {
        uint64_t left = own + b->ahead - b->bytes;
        add_part(sp, b, str_new(zeros, left < sizeof zeros ? (size_t)left : sizeof zeros));
    }
    b->bytes = own;
}

struct index_target {
    struct spool *sp;
    struct segment *segment;
};

static void
add_entry(void *arg, const struct index_entry *e)
{
    struct index_target *target = arg;

    segment_index_add(target->sp, target->segment, e);
    if (e->type == RECORD_DONE && !(e->flags & RECORD_WITHIN))
        target->segment->done_bytes += e->size;
}

void
tally_settle(struct tally *tally, struct take *t)
{
    struct settle_reader settle;
    struct recipient_status status;
    uint8_t was;

    if (settle_take(t, &settle))
        while (settle_next(&settle, &status, &was))
            tally_move(tally, was, status.state);
}

void
tally_accept(struct tally *tally, struct str body)
{
    struct base base;
    struct take t;

    if (!base_take(body, &base))
        return;
    tally->accepted += base.head.recipients;
    t = take_init(base.state);
    tally_settle(tally, &t);
    if (base.settles.len == 0)
        return;
    t = take_init(str_from(base.settles, MESSAGE_ID_BYTES));
    tally_settle(tally, &t);
}

static void
count_tally(struct spool *sp, const struct append *a)
{
    struct take t;

    if (a->type == RECORD_SETTLE || a->type == RECORD_DONE) {
        t = take_init(str_new(append_body(a), a->head_size - RECORD_HEADER - RECORD_CHECK));
        tally_settle(&sp->tally, &t);
    } else if (a->type == RECORD_ACCEPT) {
        tally_accept(&sp->tally, append_record(a, a->lsn).body);
    }
}

/* Writes it, and answers all of it. The segment's headers go along with its first batch. */
static struct err
batch_write(struct spool *sp, struct batch *b)
{
    struct segment *seg = b->segment;
    uint64_t last_lsn = sp->next_lsn - 1;
    struct list *node;

    batch_seal(sp, b);
    batch_write_ahead(sp, b);
    struct err e = b->sync ? file_write_sync(seg->own_file, sp->own_parts, b->parts, seg->used, LANE_COMMIT, FOREVER)
                           : file_write(seg->own_file, sp->own_parts, b->parts, seg->used, LANE_COMMIT, FOREVER);
    if (err_is(e)) {
        spool_break(sp, e);
    } else {
        seg->used += b->bytes;
        if (b->ahead)
            seg->ahead = seg->used + b->ahead;
        seg->last_lsn = last_lsn;
        sp->counters.batches++;
        sp->counters.bytes_written += b->bytes + b->ahead;
        sp->came_bytes += (b->news + BLOCK - 1) / BLOCK * BLOCK;
        sp->counters.syncs += b->sync;
        if (b->sync)
            sp->synced_lsn = last_lsn;
    }
    struct index_target target = { sp, seg };
    while ((node = list_pop_front(&b->appends)) != NULL) {
        struct append *a = container_of(node, struct append, link);
        if (!err_is(e)) {
            struct record r = append_record(a, a->lsn);
            record_index(&r, a->place.offset, add_entry, &target);
            count_tally(sp, a);
        }
        append_end(sp, a, e);
    }
    event_wake(sp->rt, &sp->written);
    return e;
}

/* ---- segment after segment --------------------------------------------------------------------------------------- */

/*
 * Index and last header, each synced: so everything in k is on disk before the first record of k+1 is written. The last header
 * says that all before it is on disk, so the index, and chunks that nobody waited for, are synced before it is written.
 */
static struct err
seal(struct spool *sp, struct segment *seg)
{
    uint64_t index_bytes = (uint64_t)seg->index_count * INDEX_ENTRY;
    unsigned char *index = mem_alloc(sp->mem, (size_t)index_bytes + BLOCK);

    for (uint32_t i = 0; i < seg->index_count; i++)
        index_entry_put(index + (size_t)i * INDEX_ENTRY, &seg->own_index[i]);
    seg->header.state = SEGMENT_SEALED;
    seg->header.last_lsn = seg->last_lsn;
    seg->header.end = seg->used;
    seg->header.index_offset = seg->used;
    seg->header.index_count = seg->index_count;
    seg->header.index_hash = record_hash_data(str_new(index, (size_t)index_bytes));
    seg->header.tally = sp->tally;
    seg->header.spool_time = spool_now(sp);
    segment_header_put(sp->own_block, &seg->header);
    struct str part = str_new(index, (size_t)index_bytes);
    struct err e = file_write_sync(seg->own_file, &part, 1, seg->used, LANE_COMMIT, FOREVER);
    mem_free(sp->mem, index, (size_t)index_bytes + BLOCK);
    TRY(e);
    sp->counters.syncs++;
    part = str_new(sp->own_block, BLOCK);
    CHECK(seg->used + index_bytes <= seg->header.bytes - BLOCK);
    TRY(file_write_sync(seg->own_file, &part, 1, seg->header.bytes - BLOCK, LANE_COMMIT, FOREVER));
    sp->counters.syncs++;
    sp->synced_lsn = seg->last_lsn;
    seg->state = SEGMENT_SEALED;
    segment_index_drop(sp, seg);
    segment_unpin(sp, seg);
    sp->current = NULL;
    return OK;
}

/* A new life for a free segment: number, secret, headers at both ends. */
static struct err
begin_segment(struct spool *sp, struct segment *seg)
{
    struct str part = { (const char *)sp->own_block, BLOCK };

    TRY(segment_pin(sp, seg, FOREVER));
    seg->header = (struct segment_header){
        .version = SEGMENT_VERSION,
        .state = SEGMENT_OPEN,
        .bytes = sp->settings.segment_bytes,
        .sequence = sp->next_sequence++,
        .secret = rt_random(sp->rt),
        .created_spool = spool_now(sp),
        .created_wall = rt_wall(sp->rt),
        .first_lsn = sp->next_lsn,
    };
    seg->state = SEGMENT_OPEN;
    seg->sequence = seg->header.sequence;
    seg->secret = seg->header.secret;
    seg->first_lsn = seg->header.first_lsn;
    seg->last_lsn = seg->first_lsn - 1;
    seg->used = BLOCK;
    seg->ahead = seg->written ? seg->header.bytes : 0;
    seg->live_bytes = seg->done_bytes = 0;
    segment_header_put(sp->own_block, &seg->header);
    /* Not synced by themselves: the sync of the first batch covers them, and before that nobody was told anything. */
    struct err e = file_write(seg->own_file, &part, 1, seg->header.bytes - BLOCK, LANE_COMMIT, FOREVER);
    if (!err_is(e))
        e = file_write(seg->own_file, &part, 1, 0, LANE_COMMIT, FOREVER);
    if (err_is(e)) {
        segment_unpin(sp, seg);
        return e;
    }
    segment_enter(sp, seg);
    sp->current = seg;
    sp->counters.bytes_written += 2 * BLOCK;
    keeper_wake(sp);
    return OK;
}

/* It counts what batches before its own have done, and begins its own: what follows it is counted beside it. */
static struct err
prepare_checkpoint(struct spool *sp, struct append *a)
{
    struct put p = append_put(a);

    tally_put(&p, &sp->tally);
    return OK;
}

static struct append *
make_checkpoint(struct spool *sp)
{
    struct append *a = mem_new(sp->mem, struct append);

    append_init(a, sp, RECORD_CHECKPOINT, (struct message_id){ 0, 0 },
                CHECKPOINT_FIXED + (size_t)sp->segment_count * CHECKPOINT_SEGMENT);
    a->prepare = prepare_checkpoint;
    a->finish = append_drop;
    a->need = NEED_CLEAN; /* it is the first in its segment, whatever waits */
    struct put p = append_put(a);
    checkpoint_put(&p, &sp->tally, spool_now(sp), sp->segment_count);
    for (uint32_t i = 0; i < sp->segment_count; i++)
        checkpoint_put_segment(&p, sp->own_segments[i]->sequence, sp->own_segments[i]->number);
    CHECK(!p.full);
    return a;
}

void
checkpoint_queue(struct spool *sp)
{
    queue_put(sp, make_checkpoint(sp), true);
}

static struct err
checkpoint_wait(struct spool *sp)
{
    struct append *a = make_checkpoint(sp);

    a->finish = append_done;
    queue_put(sp, a, true);
    while (!a->done)
        event_wait_firmly(sp->rt, &a->finished);
    struct err e = a->err;
    append_drop(sp, a);
    return e;
}

/*
 * What is delivered from a disk that can only be read could not be written down, and would be delivered again by each
 * process that starts meanwhile: nothing is known to anybody before this was written. And what was counted in a segment
 * that was never sealed stands in no last header: it would go with that segment. Where a full disk leaves no room it is
 * asked for again before such a segment is freed; whether there is hope, the keeper has yet to find out.
 */
struct err
checkpoint_first(struct spool *sp)
{
    if (sp->began)
        return OK;
    struct err e = checkpoint_wait(sp);
    sp->began = !err_is(e);
    if (e.kind != ERR_NO_SPACE || sp->broken)
        return e;
    sp->hopeless = false;
    return OK;
}

/* What must be left is made first, if the keeper is late with it. ERR_NO_SPACE: it cannot be. */
static struct err
keep_left(struct spool *sp, uint32_t count, enum need need)
{
    while (sp->free_count < count) {
        struct err e = segment_make(sp, LANE_COMMIT);
        if (e.kind == ERR_NO_SPACE && sp->making > 0 && need != NEED_CLEAN)
            event_wait_firmly(sp->rt, &sp->work); /* the keeper has one in hand */
        else
            TRY(e);
    }
    return OK;
}

/* The current segment has no room for what comes: a free one takes over. ERR_NO_SPACE: there is none. */
static struct err
roll(struct spool *sp, enum need need)
{
    TRY(keep_left(sp, need + 1, need));
    struct segment *next = free_take(sp);
    struct err e = sp->current ? seal(sp, sp->current) : OK;
    if (!err_is(e))
        e = begin_segment(sp, next);
    if (err_is(e)) {
        spool_break(sp, e);
        if (sp->current != next)
            segment_free(sp, next);
        return e;
    }
    append_queue_first(sp, make_checkpoint(sp));
    return OK;
}

/* ---- the fiber --------------------------------------------------------------------------------------------------- */

void
spool_break(struct spool *sp, struct err e)
{
    char memory[200];
    struct text text = text_init(memory, sizeof memory);

    if (sp->broken)
        return;
    sp->broken = true;
    text_put(&text, S("the spool can write no more: "));
    err_text(e, &text);
    spool_report(sp, (struct spool_report){ .damage = false, .what = text_str(&text) });
    event_wake(sp->rt, &sp->work);
}

static void
fail_all(struct spool *sp, struct err e)
{
    struct append *a;

    while ((a = queue_first(sp)) != NULL) {
        queue_take(sp, a);
        append_end(sp, a, e);
    }
}

/*
 * No space to go on in. Mail is refused. What drains the queue waits for cleaning, which goes first; when cleaning
 * finds nothing to free, or cannot go on either, what is left of the current segment is for all that drains, and then
 * whoever waits gets the error. Lazy settles have been promised: they wait until somebody makes space.
 */
static void
run_short(struct spool *sp, enum need need, struct err e)
{
    bool hopeless = sp->hopeless || sp->stopping;
    struct list cleaning;

    list_init(&cleaning);
    list_each_safe(node, &sp->queue) {
        struct append *a = container_of(node, struct append, link);
        if (a->need == NEED_MAIL || (a->need == NEED_CLEAN && need == NEED_CLEAN) ||
            (a->need == NEED_DRAIN && hopeless && (!a->lazy || sp->stopping))) {
            queue_take(sp, a);
            append_end(sp, a, e);
        } else if (a->need == NEED_CLEAN) {
            list_remove(&a->link);
            list_push_front(&cleaning, &a->link);
        }
    }
    sp->hopeless |= need == NEED_CLEAN;
    sp->starved = !sp->hopeless && list_is_empty(&cleaning) && !list_is_empty(&sp->queue);
    list_each_safe(node, &cleaning) {
        list_remove(node);
        list_push_front(&sp->queue, node);
    }
    if (sp->starved)
        keeper_wake(sp);
}

static bool
fits_in_current(const struct spool *sp, const struct append *a)
{
    struct batch empty = { .segment = sp->current, .bytes = sizeof sp->proof_head };

    return sp->current && batch_fits(sp, &empty, a);
}

static bool
enough_is_left(const struct spool *sp, const struct append *a)
{
    return sp->free_count >= a->need || (a->need != NEED_MAIL && (sp->hopeless || sp->stopping));
}

/* What waits cannot be written before somebody makes space. What is small may, when something larger had to be refused. */
bool
commit_is_stuck(const struct spool *sp)
{
    const struct append *first = queue_first(sp);

    return first && (sp->starved || (sp->hopeless && !fits_in_current(sp, first)));
}

static struct err
make_room(struct spool *sp, const struct append *a)
{
    if (!fits_in_current(sp, a))
        return roll(sp, a->need);
    return enough_is_left(sp, a) ? OK : keep_left(sp, a->need, a->need);
}

static void
write_batch(struct spool *sp)
{
    struct append *a = queue_first(sp);
    struct batch b;

    if (a) {
        enum need need = a->need;
        struct err e = make_room(sp, a);
        if (err_is(e)) {
            if (!sp->broken)
                run_short(sp, need, e);
            return;
        }
    }
    if (!sp->current)
        return;
    batch_begin(sp, &b, sp->current);
    while ((a = queue_first(sp)) != NULL && batch_fits(sp, &b, a) && enough_is_left(sp, a)) {
        queue_take(sp, a);
        batch_add(sp, &b, a);
    }
    if (b.records == 0 && (sp->synced_lsn == sp->proof_lsn || b.segment->used + BLOCK > segment_room_end(sp, b.segment, 0))) {
        sp->proof_lsn = sp->synced_lsn; /* all withdrew, or the segment is full to the brim: sealing it is proof enough */
        sp->next_lsn = b.first_lsn;
        return;
    }
    if (b.records == 0)
        b.sync = true;
    (void)batch_write(sp, &b);
    if (b.records == 0)
        sp->proof_lsn = sp->synced_lsn; /* a PROOF needs no proof */
}

/* Until there is something to write; false: the log has been idle for long enough to prove its last batch. */
static bool
wait_for_work(struct spool *sp)
{
    for (;;) {
        bool unproven = sp->synced_lsn != sp->proof_lsn && sp->current && !sp->recovering;
        int64_t until = FOREVER;

        if (sp->ending || sp->broken || (sp->urgent > 0 && (!sp->starved || sp->stopping))) /* nobody will free one then */
            return true;
        if (commit_is_stuck(sp)) {
            until = FOREVER; /* a free segment wakes us */
        } else if (!list_is_empty(&sp->queue)) {
            until = sp->lazy_until;
            if (rt_now(sp->rt) >= until)
                return true;
        } else if (unproven) {
            until = within(sp->rt, IDLE_NS);
        }
        struct err e = event_wait(sp->rt, &sp->work, until);
        if (e.kind == ERR_CANCELLED)
            sp->stopping = sp->ending = true;
        else if (err_is(e) && list_is_empty(&sp->queue))
            return false;
    }
}

void
commit_run(void *arg)
{
    struct spool *sp = arg;

    while (!sp->broken) {
        (void)wait_for_work(sp);
        if (sp->broken || (sp->ending && list_is_empty(&sp->queue)))
            break;
        write_batch(sp);
    }
    bool good = !sp->broken && sp->current && !sp->read_only;
    if (good) { /* recovery then knows the counters and lost blocks */
        append_queue_first(sp, make_checkpoint(sp));
        write_batch(sp);
    }
    sp->ending = true;
    fail_all(sp, ERR(ERR_IO, "spool is closed"));
    if (good && !sp->broken)
        write_batch(sp); /* the PROOF, also where there was no room for the CHECKPOINT */
    sp->commit_ended = true;
    event_wake(sp->rt, &sp->written);
}
