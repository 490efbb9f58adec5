/*
 * segment - the files of the log: names, open descriptors, reading with and without the cache, and the walk over all
 * records of one, which never stops at what is damaged.
 */
#include "spool/log/log.h"

#include <inttypes.h>
#include <string.h>

static const struct str suffix = STR(".segment");

void
segment_name(uint32_t number, struct text *t)
{
    text_putf(t, "%08" PRIx32, number);
    text_put(t, suffix);
}

bool
segment_name_parse(struct str name, uint32_t *out_number)
{
    uint32_t number = 0;

    if (name.len != 8 + suffix.len || !str_ends(name, suffix))
        return false;
    for (size_t i = 0; i < 8; i++) {
        int digit = byte_hex(name.ptr[i]);
        if (digit < 0 || (name.ptr[i] >= 'A' && name.ptr[i] <= 'F'))
            return false;
        number = number << 4 | (uint32_t)digit;
    }
    *out_number = number;
    return true;
}

struct segment *
segment_new(struct spool *sp, uint32_t number)
{
    struct segment *seg = mem_new(sp->mem, struct segment);

    seg->number = number;
    list_init(&seg->link);
    list_init(&seg->open_link);
    if (number >= sp->next_number)
        sp->next_number = number + 1;
    return seg;
}

static void
close_file(struct spool *sp, struct segment *seg)
{
    if (!seg->own_file)
        return;
    file_close(seg->own_file);
    seg->own_file = NULL;
    list_remove(&seg->open_link);
    sp->open_count--;
}

void
segment_free(struct spool *sp, struct segment *seg)
{
    CHECK(seg->pins == 0);
    close_file(sp, seg);
    segment_index_drop(sp, seg);
    list_remove(&seg->link);
    mem_free(sp->mem, seg, sizeof *seg);
}

/* ---- those in use, by sequence ----------------------------------------------------------------------------------- */

void
segment_enter(struct spool *sp, struct segment *seg)
{
    CHECK(sp->segment_count == 0 || sp->own_segments[sp->segment_count - 1]->sequence < seg->sequence);
    if (sp->segment_count == sp->segment_cap) {
        uint32_t cap = sp->segment_cap ? 2 * sp->segment_cap : 16;
        sp->own_segments = mem_resize(sp->mem, sp->own_segments, sp->segment_cap * sizeof *sp->own_segments,
                                      cap * sizeof *sp->own_segments);
        sp->segment_cap = cap;
    }
    sp->own_segments[sp->segment_count++] = seg;
}

/* Index of the first with at least this sequence. */
static uint32_t
find_sequence(const struct spool *sp, uint64_t sequence)
{
    uint32_t low = 0, high = sp->segment_count;

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (sp->own_segments[middle]->sequence < sequence)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

void
segment_leave(struct spool *sp, struct segment *seg)
{
    uint32_t at = find_sequence(sp, seg->sequence);

    CHECK(at < sp->segment_count && sp->own_segments[at] == seg);
    memmove(&sp->own_segments[at], &sp->own_segments[at + 1],
            (sp->segment_count - at - 1) * sizeof *sp->own_segments);
    sp->segment_count--;
}

struct segment *
segment_by_sequence(const struct spool *sp, uint64_t sequence)
{
    uint32_t at = find_sequence(sp, sequence);

    return at < sp->segment_count && sp->own_segments[at]->sequence == sequence ? sp->own_segments[at] : NULL;
}

/* ---- files ------------------------------------------------------------------------------------------------------- */

/* Keeps descriptors few: the one that was not used for longest gives way. */
static void
close_oldest(struct spool *sp)
{
    list_each_safe(node, &sp->open_files) {
        struct segment *seg = container_of(node, struct segment, open_link);
        if (sp->open_count < LIMIT_OPEN_SEGMENTS)
            return;
        if (seg->pins == 0)
            close_file(sp, seg);
    }
}

struct err
segment_pin(struct spool *sp, struct segment *seg, int64_t until)
{
    char memory[32];
    struct text name = text_init(memory, sizeof memory);
    struct file *file;

    seg->pins++;
    if (seg->own_file) {
        list_remove(&seg->open_link);
        list_push_back(&sp->open_files, &seg->open_link);
        return OK;
    }
    close_oldest(sp);
    segment_name(seg->number, &name);
    struct err e = file_open(sp->dir, text_str(&name), FILE_READ | (sp->settings.read_only ? 0 : FILE_WRITE), 0600,
                             LANE_BACKGROUND, until, &file);
    if (err_is(e)) {
        seg->pins--;
        return e;
    }
    if (seg->own_file) { /* another fiber was faster */
        file_close(file);
        return OK;
    }
    seg->own_file = file;
    list_push_back(&sp->open_files, &seg->open_link);
    sp->open_count++;
    return OK;
}

void
segment_unpin(struct spool *sp, struct segment *seg)
{
    (void)sp;
    CHECK(seg->pins > 0);
    seg->pins--;
}

static struct err
read_pinned(struct segment *seg, uint64_t offset, unsigned char *memory, size_t len, int64_t until)
{
    while (len > 0) {
        size_t step = len < LIMIT_STEP ? len : LIMIT_STEP, got;
        TRY(file_read(seg->own_file, memory, step, offset, LANE_BACKGROUND, until, &got));
        if (got == 0)
            return ERR(ERR_CORRUPT, "read spool segment: it is cut short");
        memory += got;
        offset += got;
        len -= got;
    }
    return OK;
}

struct err
segment_read(struct spool *sp, struct segment *seg, uint64_t offset, void *memory, size_t len, int64_t until)
{
    TRY(segment_pin(sp, seg, until));
    struct err e = read_pinned(seg, offset, memory, len, until);
    segment_unpin(sp, seg);
    return e;
}

/* ---- the cache of heads: windows of what has been written -------------------------------------------------------- */

static struct window *
window_find(struct spool *sp, uint64_t sequence, uint64_t index)
{
    for (size_t i = 0; i < CACHE_WINDOWS; i++)
        if (sp->own_windows[i].sequence == sequence && sp->own_windows[i].index == index)
            return &sp->own_windows[i];
    return NULL;
}

static struct window *
window_oldest(struct spool *sp)
{
    struct window *oldest = &sp->own_windows[0];

    for (size_t i = 0; i < CACHE_WINDOWS; i++)
        if (sp->own_windows[i].used_at < oldest->used_at)
            oldest = &sp->own_windows[i];
    return oldest;
}

static void
window_put(struct spool *sp, uint64_t sequence, uint64_t index, unsigned char *own_bytes, size_t len)
{
    struct window *w = window_find(sp, sequence, index);

    if (!w)
        w = window_oldest(sp);
    mem_free(sp->mem, w->own_bytes, CACHE_WINDOW);
    *w = (struct window){ sequence, index, ++sp->cache_clock, len, own_bytes };
}

struct err
segment_read_cached(struct spool *sp, struct segment *seg, uint64_t offset, void *memory, size_t len, int64_t until)
{
    unsigned char *out = memory;

    if (offset + len > seg->used)
        return ERR(ERR_CORRUPT, "read spool segment: a place beyond its end");
    if (len > CACHE_WINDOW) /* one of many recipients: it would only drive the others out */
        return segment_read(sp, seg, offset, memory, len, until);
    while (len > 0) {
        uint64_t index = offset / CACHE_WINDOW;
        size_t at = offset % CACHE_WINDOW, step = CACHE_WINDOW - at < len ? CACHE_WINDOW - at : len;
        struct window *w = window_find(sp, seg->sequence, index);
        if (w && w->len >= at + step) {
            w->used_at = ++sp->cache_clock;
            memcpy(out, w->own_bytes + at, step);
        } else {
            uint64_t start = index * CACHE_WINDOW, sequence = seg->sequence;
            size_t valid = seg->used - start < CACHE_WINDOW ? (size_t)(seg->used - start) : CACHE_WINDOW;
            unsigned char *own_bytes = mem_buffer(sp->mem, CACHE_WINDOW);
            struct err e = segment_read(sp, seg, start, own_bytes, valid, until);
            if (err_is(e)) {
                mem_free(sp->mem, own_bytes, CACHE_WINDOW);
                return e;
            }
            memcpy(out, own_bytes + at, step);
            window_put(sp, sequence, index, own_bytes, valid);
        }
        out += step;
        offset += step;
        len -= step;
    }
    return OK;
}

void
segment_drop_cache(struct spool *sp, struct segment *seg)
{
    for (size_t i = 0; i < CACHE_WINDOWS; i++)
        if (sp->own_windows[i].sequence == seg->sequence)
            sp->own_windows[i].sequence = sp->own_windows[i].used_at = 0;
}

/* ---- the index of an unsealed one -------------------------------------------------------------------------------- */

void
segment_index_add(struct spool *sp, struct segment *seg, const struct index_entry *e)
{
    if (seg->index_count == seg->index_cap) {
        uint32_t cap = seg->index_cap ? 2 * seg->index_cap : 64;
        seg->own_index = mem_resize(sp->mem, seg->own_index, seg->index_cap * sizeof *seg->own_index,
                                    cap * sizeof *seg->own_index);
        seg->index_cap = cap;
    }
    seg->own_index[seg->index_count++] = *e;
}

void
segment_index_drop(struct spool *sp, struct segment *seg)
{
    mem_free(sp->mem, seg->own_index, seg->index_cap * sizeof *seg->own_index);
    seg->own_index = NULL;
    seg->index_count = seg->index_cap = 0;
}

/* Where batches must end so that the index of all that is there, and more_entries, finds room behind them. */
uint64_t
segment_room_end(const struct spool *sp, const struct segment *seg, uint32_t more_entries)
{
    uint64_t index = ((uint64_t)seg->index_count + more_entries) * INDEX_ENTRY;

    (void)sp;
    return seg->header.bytes - BLOCK - (index + BLOCK - 1) / BLOCK * BLOCK;
}

void
record_index(const struct record *r, uint64_t offset, void (*each)(void *arg, const struct index_entry *), void *arg)
{
    struct index_entry e = {
        .type = r->type,
        .flags = (uint8_t)(r->flags & RECORD_FLAGS),
        .offset = (uint32_t)offset,
        .lsn = r->lsn,
        .id = r->id,
        .head_size = (uint32_t)record_head_size(r),
        .size = (uint32_t)record_size(r),
    };
    struct base base;

    if (r->type == RECORD_CHUNK || r->type == RECORD_PROOF || r->type > RECORD_LAST)
        return;
    each(arg, &e);
    if (r->type != RECORD_ACCEPT || !base_take(r->body, &base) || base.settles.len == 0)
        return;
    struct take t = take_init(base.settles);
    struct settle_reader settle;
    e.id.hi = take_u64(&t);
    e.id.lo = take_u64(&t);
    if (!settle_take(&t, &settle))
        return;
    e.type = settle.head.ends ? RECORD_DONE : RECORD_SETTLE;
    e.flags = RECORD_WITHIN;
    each(arg, &e);
}

/* ---- the walk ---------------------------------------------------------------------------------------------------- */

struct gap {
    uint64_t offset, len, first_lsn; /* LSN of the first record that is missing there */
};

struct walker {
    struct spool *sp;
    struct segment *seg;
    const struct walk *walk;
    int64_t until;
    uint64_t limit; /* no record reaches beyond it */

    unsigned char *own_buffer;
    size_t cap, len;
    uint64_t at; /* offset of the buffer's first byte */

    struct gap *own_gaps;
    size_t gap_count, gap_cap;
    struct walked *out;
};

/* Makes [pos, pos + need) readable, as far as the limit lets; *out_bytes is what is there (perhaps more). */
static struct err
fill(struct walker *w, uint64_t pos, size_t need, struct str *out_bytes)
{
    CHECK(pos >= w->at && pos <= w->limit);
    if (need > w->limit - pos)
        need = (size_t)(w->limit - pos);
    if (pos + need > w->at + w->len) {
        size_t kept = pos < w->at + w->len ? (size_t)(w->at + w->len - pos) : 0;
        size_t cap = need + LIMIT_STEP < w->limit ? need + LIMIT_STEP : (size_t)w->limit;
        if (cap > w->cap) {
            w->own_buffer = mem_resize(w->sp->mem, w->own_buffer, w->cap, cap);
            w->cap = cap;
        }
        memmove(w->own_buffer, w->own_buffer + w->len - kept, kept);
        w->at = pos;
        w->len = kept;
        while (w->len < need) {
            uint64_t from = w->at + w->len;
            size_t step = w->limit - from < LIMIT_STEP ? (size_t)(w->limit - from) : LIMIT_STEP;
            TRY(segment_read(w->sp, w->seg, from, w->own_buffer + w->len, step, w->until));
            w->len += step;
        }
    }
    *out_bytes = str_new(w->own_buffer + (pos - w->at), w->at + w->len - pos);
    return OK;
}

/* Is there a record at pos that comes after what we had? since: where the last good one ended. */
static struct err
try_record(struct walker *w, uint64_t pos, uint64_t since, struct record *out, struct str *out_bytes, bool *out_ok)
{
    struct str bytes;
    struct proof proof;

    *out_ok = false;
    if (pos + RECORD_HEADER + RECORD_CHECK > w->limit)
        return OK;
    TRY(fill(w, pos, RECORD_HEADER + RECORD_CHECK, &bytes));
    if (!record_peek(bytes, out) || out->lsn <= w->out->last_lsn || record_size(out) > w->limit - pos ||
        out->lsn - w->out->last_lsn > 1 + (pos - since) / (RECORD_HEADER + RECORD_CHECK))
        return OK;
    TRY(fill(w, pos, record_size(out), &bytes));
    out->body.ptr = bytes.ptr + RECORD_HEADER;
    if (!record_verify(bytes, out, w->seg->secret))
        return OK;
    if (out->type == RECORD_PROOF) {
        struct take t = take_init(out->body);
        if (pos % BLOCK != 0 || !proof_take(&t, &proof) || proof.sequence != w->seg->sequence ||
            proof.batch_bytes > w->limit - pos)
            return OK;
    }
    *out_bytes = str_slice(bytes, 0, record_size(out));
    *out_ok = true;
    return OK;
}

/* From *pos to the next place where a record may stand: most of a segment's free tail has none, and is skipped fast. */
static struct err
skip_to_record(struct walker *w, uint64_t *pos)
{
    struct str bytes;
    size_t skipped = 1;

    while (skipped > 0 && *pos + RECORD_HEADER + RECORD_CHECK <= w->limit) {
        TRY(fill(w, *pos, RECORD_HEADER + RECORD_CHECK, &bytes));
        skipped = record_find(bytes);
        *pos += skipped;
    }
    return OK;
}

static void
add_gap(struct walker *w, uint64_t offset, uint64_t end, uint64_t first_lsn)
{
    w->out->clean = false;
    if (end == offset)
        return;
    if (w->gap_count == w->gap_cap) {
        size_t cap = w->gap_cap ? 2 * w->gap_cap : 8;
        w->own_gaps = mem_resize(w->sp->mem, w->own_gaps, w->gap_cap * sizeof *w->own_gaps, cap * sizeof *w->own_gaps);
        w->gap_cap = cap;
    }
    w->own_gaps[w->gap_count++] = (struct gap){ offset, end - offset, first_lsn };
}

static bool
is_zero(struct str s)
{
    for (size_t i = 0; i < s.len; i++)
        if (s.ptr[i] != 0)
            return false;
    return true;
}

/* Are there only zeros from pos to the end of its block? Then a batch whose header is lost ended there. */
static struct err
padding_follows(struct walker *w, uint64_t pos, bool *out)
{
    uint64_t len = (BLOCK - pos % BLOCK) % BLOCK;
    struct str bytes;

    TRY(fill(w, pos, (size_t)len, &bytes));
    *out = is_zero(str_slice(bytes, 0, (size_t)len));
    return OK;
}

static bool
meet_record(struct walker *w, const struct record *r, uint64_t pos, struct str bytes)
{
    struct str head = str_slice(bytes, 0, record_head_size(r));
    struct str data = str_slice(bytes, head.len, head.len + r->data_size);
    bool data_ok = record_hash_data(data) == r->data_hash;

    if (!data_ok)
        add_gap(w, pos, pos + record_size(r), r->lsn);
    if (r->type > RECORD_LAST) {
        w->out->newer |= !(r->flags & RECORD_SKIPPABLE);
        return true;
    }
    return w->walk->record(w->walk->arg, r, pos, head, data, data_ok);
}

/*
 * Batch after batch, record after record. What does not verify begins a gap, and from there each multiple of 8 is tried
 * until something does: so damage costs only the records that it touches. In an unsealed segment what follows the last
 * batch is what a former life left there; it is searched too, and never verifies.
 */
static struct err
walk_records(struct walker *w, bool sealed)
{
    struct walked *out = w->out;
    uint64_t pos = BLOCK, since = BLOCK;
    uint64_t batch_end = 0; /* 0: not known, its PROOF is lost */
    uint32_t left = 0;      /* records of this batch */
    bool between = true;    /* at the start of a batch, so there may be none */
    struct record r;
    struct str bytes;
    bool ok;

    for (;;) {
        TRY(try_record(w, pos, since, &r, &bytes, &ok));
        uint64_t found = pos;
        if (!ok && !between && batch_end == 0) { /* behind a record of a batch whose PROOF is lost */
            TRY(padding_follows(w, pos, &between));
            if (between) {
                pos += (BLOCK - pos % BLOCK) % BLOCK;
                continue;
            }
        }
        while (!ok && found + RECORD_HEADER + RECORD_CHECK <= w->limit) {
            found += RECORD_ALIGN;
            TRY(skip_to_record(w, &found));
            TRY(try_record(w, found, since, &r, &bytes, &ok));
        }
        if (!ok)
            break;
        if (found > pos) {
            add_gap(w, pos, found, out->last_lsn + 1);
            if (r.type == RECORD_PROOF || found >= batch_end)
                batch_end = 0;
        }
        out->lost += r.lsn - out->last_lsn - 1;
        left -= left < r.lsn - out->last_lsn ? left : (uint32_t)(r.lsn - out->last_lsn);
        out->last_lsn = r.lsn;
        pos = since = found + record_size(&r);
        between = false;
        if (r.type == RECORD_PROOF) {
            struct take t = take_init(r.body);
            struct proof proof;
            (void)proof_take(&t, &proof);
            out->proven = proof.proven > out->proven ? proof.proven : out->proven;
            out->spool_time = proof.spool_time;
            batch_end = found + proof.batch_bytes;
            left = proof.records;
        }
        if (r.type == RECORD_PROOF && w->walk->record) {
            if (!w->walk->record(w->walk->arg, &r, found, str_slice(bytes, 0, record_head_size(&r)), S(""), true))
                break;
        } else if (r.type != RECORD_PROOF && !meet_record(w, &r, found, bytes)) {
            break;
        }
        if (batch_end != 0 && left == 0) {
            pos = batch_end;
            between = true;
            batch_end = 0;
        }
    }
    out->end = (pos + BLOCK - 1) / BLOCK * BLOCK;
    if (!between) { /* the last batch is not whole */
        out->end = batch_end ? batch_end : out->end;
        add_gap(w, pos, out->end < w->limit ? out->end : w->limit, out->last_lsn + 1);
        out->lost += sealed ? 0 : left;
    } else if (sealed && out->end < w->limit) {
        add_gap(w, pos, w->limit, out->last_lsn + 1);
        out->end = w->limit;
    }
    if (out->end > w->limit) /* the file was cut */
        out->end = w->limit;
    return OK;
}

struct err
segment_walk(struct spool *sp, struct segment *seg, const struct walk *walk, int64_t until, struct walked *out)
{
    bool sealed = seg->state == SEGMENT_SEALED;
    struct walker w = { .sp = sp, .seg = seg, .walk = walk, .until = until, .out = out, .at = BLOCK };

    *out = (struct walked){ .last_lsn = seg->first_lsn - 1, .clean = true };
    w.limit = sealed ? seg->header.end : seg->header.bytes - BLOCK;
    struct err e = segment_pin(sp, seg, until);
    if (err_is(e))
        return e;
    uint64_t size;
    e = file_size(seg->own_file, LANE_BACKGROUND, until, &size); /* a growing file, or one that somebody cut */
    if (!err_is(e)) {
        if (size < w.limit)
            w.limit = size / RECORD_ALIGN * RECORD_ALIGN;
        if (w.limit < BLOCK)
            w.limit = BLOCK;
        e = walk_records(&w, sealed);
    }
    segment_unpin(sp, seg);
    if (!err_is(e)) {
        if (sealed) { /* synced before it was sealed */
            out->proven = seg->header.last_lsn;
            if (out->last_lsn < out->proven)
                out->lost += out->proven - out->last_lsn;
        } else if (out->last_lsn < out->proven) { /* cannot be: a PROOF proves what stands before it */
            out->clean = false;
        }
        for (size_t i = 0; i < w.gap_count && walk->damage; i++)
            if (!walk->damage(walk->arg, w.own_gaps[i].offset, w.own_gaps[i].len,
                              w.own_gaps[i].first_lsn > out->proven))
                break;
    }
    mem_free(sp->mem, w.own_buffer, w.cap);
    mem_free(sp->mem, w.own_gaps, w.gap_cap * sizeof *w.own_gaps);
    return e;
}
