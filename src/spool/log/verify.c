/* verify - see spool/verify.h. Every record of every segment is checked, then every live message is read to its end. */
#include "spool/verify.h"

#include "base/json.h"
#include "spool/log/log.h"

#include <inttypes.h>

enum { LINE_MAX_BYTES = 32 << 10 };

struct verify {
    struct rt *rt;
    struct spool *sp;
    const struct spool_verify *how;
    struct spool_verified *out;
    struct text line;
    struct segment *segment;     /* at hand */
    uint64_t records;            /* in it */
    struct index_entry *own_entries;
    uint32_t entry_count, entry_cap;
    struct event recovered_event;
    bool recovered;
    struct err err;
};

static const char *const type_names[] = { "?", "CHUNK", "ACCEPT", "SETTLE", "STATE", "DONE", "PROOF", "CHECKPOINT" };
static const char *const state_names[] = { "?", "free", "open", "sealed" };

/* ---- lines ------------------------------------------------------------------------------------------------------- */

static struct text *
line_begin(struct verify *v)
{
    v->line.len = 0;
    v->line.full = false;
    if (v->how->json)
        text_put_byte(&v->line, '{');
    return &v->line;
}

static void
line_end(struct verify *v)
{
    if (v->how->json)
        text_put(&v->line, S(",\"version\":1}"));
    v->how->line(v->how->arg, text_str(&v->line));
}

static void
put_word(struct verify *v, const char *name, struct str value)
{
    if (v->how->json)
        json_put_field(&v->line, name, value);
    else
        text_putf(&v->line, "%s%s %.*s", v->line.len ? ", " : "", name, STR_ARG(value));
}

static void
put_number(struct verify *v, const char *name, uint64_t value)
{
    if (v->how->json)
        json_put_number(&v->line, name, (int64_t)value);
    else
        text_putf(&v->line, "%s%s %" PRIu64, v->line.len ? ", " : "", name, value);
}

static void
put_id(struct verify *v, const char *name, struct message_id id)
{
    char memory[MESSAGE_ID_TEXT];

    put_word(v, name, message_id_text(id, memory));
}

static void
put_segment_name(struct verify *v, const char *name, const struct segment *seg)
{
    char memory[32];
    struct text text = text_init(memory, sizeof memory);

    segment_name(seg->number, &text);
    put_word(v, name, text_str(&text));
}

static void
say(struct verify *v, bool problem, struct str what, struct str file, uint64_t offset, uint64_t len)
{
    v->out->problems += problem;
    v->out->remarks += !problem;
    line_begin(v);
    put_word(v, problem ? "problem" : "remark", what);
    if (file.len > 0)
        put_word(v, "in", file);
    if (len > 0) {
        put_number(v, "offset", offset);
        put_number(v, "length", len);
    }
    line_end(v);
}

static void
say_here(struct verify *v, bool problem, struct str what, uint64_t offset, uint64_t len)
{
    char memory[32];
    struct text name = text_init(memory, sizeof memory);

    segment_name(v->segment->number, &name);
    say(v, problem, what, text_str(&name), offset, len);
}

/* Whole files only: what is wrong inside of them the walk says better. */
static void
hear(void *arg, const struct spool_report *r)
{
    struct verify *v = arg;

    if (r->len == 0)
        say(v, r->damage, r->what, r->file, 0, 0);
}

/* ---- records ----------------------------------------------------------------------------------------------------- */

static void
dump_statuses(struct verify *v, struct take *t, struct message_id id)
{
    struct settle_reader settle;
    struct recipient_status status;
    uint8_t was;

    if (!settle_take(t, &settle))
        return;
    while (settle_next(&settle, &status, &was)) {
        line_begin(v);
        put_id(v, "settled", id);
        put_number(v, "recipient", status.index);
        put_word(v, "was", recipient_state_name(was));
        put_word(v, "is", recipient_state_name(status.state));
        put_number(v, "attempts", status.attempts);
        put_word(v, "remote", str_is_absent(status.last_remote) ? S("") : status.last_remote);
        put_word(v, "reply", str_is_absent(status.last_reply) ? S("") : status.last_reply);
        line_end(v);
    }
}

static void
dump_record(struct verify *v, const struct record *r, uint64_t offset)
{
    struct take t = take_init(r->body);
    struct base base;

    line_begin(v);
    put_word(v, "record", str_from_cstr(type_names[r->type]));
    put_segment_name(v, "segment", v->segment);
    put_number(v, "offset", offset);
    put_number(v, "lsn", r->lsn);
    put_number(v, "size", record_size(r));
    if (r->type != RECORD_PROOF && r->type != RECORD_CHECKPOINT)
        put_id(v, "id", r->id);
    if (r->data_size > 0)
        put_number(v, "data", r->data_size);
    line_end(v);
    if (r->type == RECORD_SETTLE || r->type == RECORD_DONE) {
        dump_statuses(v, &t, r->id);
    } else if ((r->type == RECORD_ACCEPT || r->type == RECORD_STATE) && base_take(r->body, &base)) {
        struct take state = take_init(base.state);
        dump_statuses(v, &state, r->id);
        if (base.settles.len > 0) {
            struct message_id id;
            struct take settles = take_init(base.settles);
            id.hi = take_u64(&settles);
            id.lo = take_u64(&settles);
            dump_statuses(v, &settles, id);
        }
    }
}

static void
keep_entry(void *arg, const struct index_entry *e)
{
    struct verify *v = arg;

    if (v->entry_count == v->entry_cap) {
        uint32_t cap = v->entry_cap ? 2 * v->entry_cap : 256;
        v->own_entries = mem_resize(rt_mem(v->rt), v->own_entries, v->entry_cap * sizeof *v->own_entries,
                                    cap * sizeof *v->own_entries);
        v->entry_cap = cap;
    }
    v->own_entries[v->entry_count++] = *e;
}

static bool
meet_record(void *arg, const struct record *r, uint64_t offset, struct str head, struct str data, bool data_ok)
{
    struct verify *v = arg;

    (void)head;
    (void)data;
    (void)data_ok; /* comes as damage too */
    v->records++;
    if (v->how->dump)
        dump_record(v, r, offset);
    record_index(r, offset, keep_entry, v);
    return true;
}

static bool
meet_damage(void *arg, uint64_t offset, uint64_t len, bool torn)
{
    say_here(arg, !torn, torn ? S(WALK_TORN) : S("damaged records"), offset, len);
    return true;
}

static bool
entry_eq(const struct index_entry *a, const struct index_entry *b)
{
    return a->type == b->type && a->flags == b->flags && a->offset == b->offset && a->lsn == b->lsn &&
           message_id_eq(a->id, b->id) && a->head_size == b->head_size && a->size == b->size;
}

static struct err
compare_index(struct verify *v, int64_t until)
{
    struct index_entry *entries;
    uint32_t count;
    uint64_t problems = v->out->problems;

    TRY(index_read(v->sp, v->segment, until, &entries, &count));
    bool same = count == v->entry_count;
    for (uint32_t i = 0; same && i < count; i++)
        same = entry_eq(&entries[i], &v->own_entries[i]);
    mem_free(rt_mem(v->rt), entries, count * sizeof *entries);
    if (!same && v->out->problems == problems)
        say_here(v, true, S("the index differs from the records"), v->segment->header.index_offset, 0);
    return OK;
}

static struct err
verify_segment(struct verify *v, struct segment *seg, int64_t until)
{
    struct walk walk = { v, meet_record, meet_damage };
    struct walked walked;

    v->segment = seg;
    v->records = v->entry_count = 0;
    TRY(segment_walk(v->sp, seg, &walk, until, &walked));
    if (seg->state == SEGMENT_SEALED && walked.clean)
        TRY(compare_index(v, until));
    if (walked.newer)
        say_here(v, false, S("there are records of a newer version"), 0, 0);
    if (seg->state == SEGMENT_SEALED && walked.last_lsn != seg->header.last_lsn && walked.clean)
        say_here(v, true, S("records are missing at its end"), 0, 0);
    v->out->segments++;
    v->out->records += v->records;
    line_begin(v);
    put_segment_name(v, "segment", seg);
    put_word(v, "state", str_from_cstr(state_names[seg->state]));
    put_number(v, "sequence", seg->sequence);
    put_number(v, "bytes", seg->header.bytes);
    put_number(v, "used", walked.end);
    put_number(v, "first_lsn", seg->first_lsn);
    put_number(v, "last_lsn", walked.last_lsn);
    put_number(v, "proven_lsn", walked.proven);
    put_number(v, "records", v->records);
    line_end(v);
    return OK;
}

/* ---- messages ---------------------------------------------------------------------------------------------------- */

static struct err
read_content(struct verify *v, struct message_id id, uint64_t *out_size)
{
    char *memory = mem_alloc(rt_mem(v->rt), CACHE_WINDOW);
    size_t got;
    struct err e;

    *out_size = 0;
    do {
        e = log_read(v->sp, id, *out_size, memory, CACHE_WINDOW, FOREVER, &got);
        *out_size += err_is(e) ? 0 : got;
    } while (!err_is(e) && got > 0);
    mem_free(rt_mem(v->rt), memory, CACHE_WINDOW);
    return e;
}

static void
dump_message(struct verify *v, const struct spool_message *m, uint64_t size)
{
    line_begin(v);
    put_id(v, "message", m->id);
    put_word(v, "reverse_path", m->envelope.reverse_path);
    put_number(v, "size", size);
    put_number(v, "recipients", m->envelope.recipient_count);
    put_number(v, "age_s", (uint64_t)(m->age / SECOND));
    put_word(v, "held", m->held ? S("yes") : S("no"));
    line_end(v);
    for (size_t i = 0; i < m->envelope.recipient_count; i++) {
        const struct recipient_status *s = &m->statuses[i];
        line_begin(v);
        put_word(v, "recipient", m->envelope.recipients[i].address);
        put_id(v, "of", m->id);
        put_word(v, "state", recipient_state_name(s->state));
        put_number(v, "attempts", s->attempts);
        put_word(v, "remote", str_is_absent(s->last_remote) ? S("") : s->last_remote);
        put_word(v, "reply", str_is_absent(s->last_reply) ? S("") : s->last_reply);
        line_end(v);
    }
}

static void
meet_message(void *arg, const struct spool_message *m)
{
    struct verify *v = arg;
    uint64_t size;
    struct err e = read_content(v, m->id, &size);

    v->out->messages++;
    v->out->recipients += m->envelope.recipient_count;
    if (v->how->dump)
        dump_message(v, m, size);
    if (!err_is(e))
        return;
    line_begin(v);
    v->out->problems++;
    put_word(v, "problem", S("the content of a message cannot be read"));
    put_id(v, "id", m->id);
    line_end(v);
}

static void
meet_end(void *arg, struct err e)
{
    struct verify *v = arg;

    v->recovered = true;
    v->err = e;
    event_wake(v->rt, &v->recovered_event);
}

static struct err
verify_open(struct verify *v, int64_t until)
{
    for (uint32_t i = 0; i < v->sp->segment_count; i++)
        TRY(verify_segment(v, v->sp->own_segments[i], until));
    TRY(spool_log_ops.recover(v->sp, meet_message, meet_end, v, until));
    while (!v->recovered)
        TRY(event_wait(v->rt, &v->recovered_event, until));
    TRY(v->err);
    line_begin(v);
    put_number(v, "summary", v->out->messages);
    put_number(v, "recipients", v->out->recipients);
    put_number(v, "segments", v->out->segments);
    put_number(v, "records", v->out->records);
    put_number(v, "problems", v->out->problems);
    put_number(v, "remarks", v->out->remarks);
    put_word(v, "sound", v->out->problems == 0 ? S("yes") : S("no"));
    line_end(v);
    return OK;
}

struct err
spool_verify(struct rt *rt, struct dir *dir, const struct spool_verify *how, int64_t until, struct spool_verified *out)
{
    char *memory = mem_alloc(rt_mem(rt), LINE_MAX_BYTES);
    struct verify v = { .rt = rt, .how = how, .out = out, .line = text_init(memory, LINE_MAX_BYTES) };
    struct spool_settings settings = { .read_only = true, .report = hear, .report_arg = &v };

    *out = (struct spool_verified){ 0 };
    event_init(&v.recovered_event);
    struct err e = spool_log_ops.open(rt, dir, &settings, &v.sp, until);
    if (!err_is(e)) {
        e = verify_open(&v, until);
        spool_log_ops.close(v.sp, until);
    }
    mem_free(rt_mem(rt), v.own_entries, v.entry_cap * sizeof *v.own_entries);
    mem_free(rt_mem(rt), memory, LINE_MAX_BYTES);
    return e;
}
