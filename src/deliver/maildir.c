/*
 * maildir - https://cr.yp.to/proto/maildir.html, with a sync wherever a power failure could take the message:
 *
 *     base/ example.org/ anna/ tmp/1732147200.R0123456789abcdef.mx.example.org                write, fdatasync
 *                              new/1732147198.Q7raywdgayq5mdp5wq1q1j6k8fh_0.postrider,S=2048  rename, then sync new/
 *                              cur/
 *
 * The first delivery into each Maildir is preceded by a sync of all directories that lead there.
 *
 * A delivery waits for two commits of the file system's journal, and for little else. Many wait at once, so that each
 * commit ends the waiting of all of them: that is what makes it fast, not one sync less.
 */
#include "deliver/maildir.h"

#include "base/arena.h"
#include "base/check.h"
#include "base/map.h"
#include "smtp/client.h"

#include <string.h>

enum {
    BLOCK_BYTES = 64 << 10,       /* of one write */
    RAW_BYTES = 16 << 10,         /* of one read */
    PATH_BYTES = 1024,
    COMPONENT_BYTES = 255,
    NAME_BYTES = 400,             /* a unique name: the host may quadruple by its escapes, and is cut */
    NAME_TRIES = 3,
    HELD_BYTES = 32,              /* more than any field name that we look for, with spaces before its colon */
    TMP_AGE_S = 36 * 3600,
    CLEAN_ONE_IN = 64,
    DIR_MODE = 0700,
    FILE_MODE = 0600,
};

/* ---- the path -------------------------------------------------------------------------------------------------- */

static bool
is_name(struct str s)
{
    return s.len > 0 && s.len <= COMPONENT_BYTES && !str_eq(s, S(".")) && !str_eq(s, S(".."))
        && str_find_byte(s, '/') == s.len && str_find_byte(s, '\0') == s.len;
}

bool
maildir_path(struct text *path, struct str pattern, struct str domain, struct str mailbox)
{
    size_t start = path->len;

    if (!is_name(domain) || !is_name(mailbox))
        return false;
    while (pattern.len > 0) {
        if (str_take(&pattern, S("{domain}")))
            text_put(path, domain);
        else if (str_take(&pattern, S("{local}")))
            text_put(path, mailbox);
        else {
            text_put_byte(path, pattern.ptr[0]);
            pattern = str_from(pattern, 1);
        }
    }
    if (path->full || path->len == start)
        return false;
    for (struct str rest = str_from(text_str(path), start); !str_is_absent(rest); )
        if (!is_name(str_cut(&rest, '/')))
            return false;
    return true;
}

/* ---- what is written ------------------------------------------------------------------------------------------- */

/* Content on its way to disk. In the header it is looked at byte by byte, field by field. */
struct pen {
    struct file *file;
    uint64_t offset;          /* of the file: what has been written */
    int64_t until;
    struct str address;       /* the loop: a Delivered-To like this */
    bool loop;
    bool in_header, line_start, after_cr;
    enum { FIELD_OTHER, FIELD_HELD, FIELD_RETURN_PATH, FIELD_DELIVERED_TO } field;
    size_t held_len;          /* a line whose field name is not known yet */
    struct text value;        /* of a Delivered-To, unfolded */
    size_t len;               /* of block */
    char held[HELD_BYTES], value_memory[LIMIT_PATH + 64];
    char *raw, *block;        /* RAW_BYTES, BLOCK_BYTES */
};

static struct err
pen_flush(struct pen *pen)
{
    const struct str block = str_new(pen->block, pen->len);

    if (pen->len == 0)
        return OK;
    TRY(file_write(pen->file, &block, 1, pen->offset, LANE_DELIVERY, pen->until));
    pen->offset += pen->len;
    pen->len = 0;
    return OK;
}

/* What is left, and then all of it is on disk. */
static struct err
pen_sync(struct pen *pen)
{
    const struct str block = str_new(pen->block, pen->len);

    TRY(file_write_sync(pen->file, &block, 1, pen->offset, LANE_DELIVERY, pen->until));
    pen->offset += pen->len;
    return OK;
}

static void
pen_put(struct pen *pen, struct str s)
{
    CHECK(s.len <= BLOCK_BYTES - pen->len);
    if (s.len)
        memcpy(pen->block + pen->len, s.ptr, s.len);
    pen->len += s.len;
}

static void
pen_end_field(struct pen *pen)
{
    struct str value = str_trim(text_str(&pen->value));

    if (pen->field == FIELD_DELIVERED_TO && !pen->value.full && str_eq(value, pen->address))
        pen->loop = true;
    pen->field = FIELD_OTHER;
    pen->value = text_init(pen->value_memory, sizeof pen->value_memory);
}

/* The held bytes end in ':', in LF, or are more than any name of interest. */
static void
pen_judge_held(struct pen *pen)
{
    struct str held = str_new(pen->held, pen->held_len), name = held;
    bool colon = str_ends(name, S(":"));

    name = colon ? str_trim_end(str_slice(name, 0, name.len - 1)) : S("");
    pen->field = str_eq_nocase(name, S("Return-Path"))    ? FIELD_RETURN_PATH
                 : str_eq_nocase(name, S("Delivered-To")) ? FIELD_DELIVERED_TO
                                                          : FIELD_OTHER;
    if (pen->field != FIELD_RETURN_PATH)
        pen_put(pen, held);
    pen->held_len = 0;
}

static void
pen_put_header_byte(struct pen *pen, char c)
{
    if (pen->line_start && !byte_is_space(c)) {
        pen_end_field(pen);
        if (c == '\n')
            pen->in_header = false;
        else
            pen->field = FIELD_HELD;
    }
    pen->line_start = c == '\n';
    if (pen->field == FIELD_HELD) {
        pen->held[pen->held_len++] = c;
        if (c == ':' || c == '\n' || pen->held_len == sizeof pen->held)
            pen_judge_held(pen);
        return;
    }
    if (pen->field == FIELD_DELIVERED_TO && c != '\n')
        text_put_byte(&pen->value, c);
    if (pen->field != FIELD_RETURN_PATH)
        pen->block[pen->len++] = c;
}

static void
pen_put_byte(struct pen *pen, char c)
{
    if (pen->in_header)
        pen_put_header_byte(pen, c);
    else
        pen->block[pen->len++] = c;
}

/* LF for CRLF; a CR elsewhere stays what it is. */
static struct err
pen_put_content(struct pen *pen, struct str raw)
{
    if (BLOCK_BYTES - pen->len < raw.len + sizeof pen->held + 1)
        TRY(pen_flush(pen));
    while (raw.len > 0) {
        size_t plain = pen->in_header || pen->after_cr ? 0 : str_find_byte(raw, '\r');
        pen_put(pen, str_slice(raw, 0, plain));
        if (plain == raw.len)
            break;
        char c = raw.ptr[plain];
        raw = str_from(raw, plain + 1);

        if (pen->after_cr && c != '\n')
            pen_put_byte(pen, '\r');
        pen->after_cr = c == '\r';
        if (!pen->after_cr)
            pen_put_byte(pen, c);
    }
    return OK;
}

static void
pen_end(struct pen *pen)
{
    if (pen->after_cr)
        pen_put_byte(pen, '\r');
    if (pen->in_header) { /* a message without a body */
        if (pen->field == FIELD_HELD)
            pen_judge_held(pen);
        pen_end_field(pen);
    }
}

/* All but what pen_sync() writes. */
static struct err
pen_write_message(struct pen *pen, const struct maildir_message *message)
{
    const struct envelope *envelope = message->envelope;
    struct str reverse_path = message->recipient->reverse_path;
    uint64_t offset = 0;

    if (str_is_absent(reverse_path))
        reverse_path = envelope->reverse_path;
    pen_put(pen, S("Return-Path: <"));
    pen_put(pen, reverse_path);
    pen_put(pen, S(">\nDelivered-To: "));
    pen_put(pen, pen->address);
    pen_put(pen, S("\n"));

    pen->in_header = pen->line_start = true;
    pen->value = text_init(pen->value_memory, sizeof pen->value_memory);
    for (struct str trace = envelope->trace; trace.len > 0; trace = str_from(trace, RAW_BYTES))
        TRY(pen_put_content(pen, str_slice(trace, 0, RAW_BYTES)));
    for (size_t len;;) {
        TRY(message->read(message->arg, offset, pen->raw, RAW_BYTES, pen->until, &len));
        if (len == 0)
            break;
        offset += len;
        TRY(pen_put_content(pen, str_new(pen->raw, len)));
        if (pen->loop)
            return OK;
    }
    if (offset != envelope->size)
        return ERR(ERR_CORRUPT, "read the message: not as long as its envelope says");
    pen_end(pen);
    return OK;
}

/* ---- directories and names --------------------------------------------------------------------------------------- */

struct box {
    struct rt *rt;
    const struct maildir_place *place;
    const struct maildir_message *message;
    int64_t until;
    struct str path;     /* below place->base->dir */
    struct list in_base; /* running */
};

void
maildir_base_init(struct maildir_base *base, struct dir *dir)
{
    memset(base, 0, sizeof *base);
    base->dir = dir;
    list_init(&base->running);
    event_init(&base->ended);
}

static void
box_put_part(struct text *name, const struct box *box, struct str part)
{
    text_put(name, box->path);
    text_put_byte(name, '/');
    text_put(name, part);
}

static struct err
box_open_part(struct box *box, struct str part, struct dir **out)
{
    char memory[PATH_BYTES + 8];
    struct text name = text_init(memory, sizeof memory);

    box_put_part(&name, box, part);
    return dir_open_at(box->place->base->dir, text_str(&name), LANE_DELIVERY, box->until, out);
}

/* Opens it, and makes it if it is not there. Two deliveries may do so at once. */
static struct err
open_or_make(struct dir *parent, struct str name, int64_t until, struct dir **out)
{
    struct err e = dir_open_at(parent, name, LANE_DELIVERY, until, out);

    if (e.kind != ERR_NOT_FOUND)
        return e;
    e = dir_make(parent, name, DIR_MODE, LANE_DELIVERY, until);
    if (e.kind != ERR_EXISTS)
        TRY(e);
    return dir_open_at(parent, name, LANE_DELIVERY, until, out);
}

static struct err
open_or_make_path(struct box *box, struct dir **out)
{
    struct dir *parent = box->place->base->dir;
    struct str path = box->path;

    while (!str_is_absent(path)) {
        struct dir *next;

        struct err e = open_or_make(parent, str_cut(&path, '/'), box->until, &next);
        if (!err_is(e)) {
            e = dir_sync(parent, LANE_DELIVERY, box->until);
            if (err_is(e))
                dir_close(next);
        }
        if (parent != box->place->base->dir)
            dir_close(parent);
        TRY(e);
        parent = next;
    }
    *out = parent;
    return OK;
}

static uint64_t *
box_known(struct box *box, uint64_t *hash)
{
    *hash = hash_bytes(box->path, 1);
    return &box->place->base->known[*hash % MAILDIR_KNOWN];
}

/* All that is not there, and all of it on disk: until then, it is not known to be there to others either. */
static struct err
box_make(struct box *box)
{
    static const struct str parts[] = { STR("tmp"), STR("new"), STR("cur") };
    uint64_t hash, *known = box_known(box, &hash);
    struct dir *home, *part;

    *known = 0;
    TRY(open_or_make_path(box, &home));
    struct err e = OK;
    for (size_t i = 0; i < sizeof parts / sizeof *parts && !err_is(e); i++) {
        e = open_or_make(home, parts[i], box->until, &part);
        if (!err_is(e))
            dir_close(part);
    }
    if (!err_is(e))
        e = dir_sync(home, LANE_DELIVERY, box->until);
    dir_close(home);
    if (!err_is(e))
        *known = hash;
    return e;
}

/* What a process finds may be there in the page cache only, since one before it was killed: it is synced once. */
static struct err
box_prepare(struct box *box)
{
    uint64_t hash;

    return *box_known(box, &hash) == hash ? OK : box_make(box);
}

/* '/' and ':' must not be in it. */
static void
put_host(struct text *name, const struct box *box)
{
    struct str host = str_slice(box->place->host, 0, 60);

    for (size_t i = 0; i < host.len; i++)
        if (host.ptr[i] == '/' || host.ptr[i] == ':' || (unsigned char)host.ptr[i] <= ' ')
            text_putf(name, "\\%03o", (unsigned)(unsigned char)host.ptr[i]);
        else
            text_put_byte(name, host.ptr[i]);
}

/* In tmp/, where an attempt that died may have left another: time.Rrandom.host. */
static void
put_name_of_attempt(struct text *name, const struct box *box)
{
    text_putf(name, "%lld.R%016llx.", (long long)(rt_wall(box->rt) / SECOND), (unsigned long long)rt_random(box->rt));
    put_host(name, box);
}

/*
 * In new/, time.Qqueue-id_recipient.postrider,S=size: the same in each attempt, whatever was configured anew between them.
 * A copy of a former one, of which nobody knows that it was delivered (a process died, or the sync failed and a power failure
 * undid its removal), is replaced, not doubled. No other machine makes such a name: the id is random, of 128 bits.
 */
static void
put_name_of_message(struct text *name, const struct maildir_message *message, uint64_t size)
{
    text_putf(name, "%lld.Q", (long long)(message->envelope->accepted_wall / SECOND));
    message_id_put(name, message->id);
    text_putf(name, "_%u.postrider,S=%llu", (unsigned)message->index, (unsigned long long)size);
}

/* Every Maildir file's name begins with its time; what is not such a name is not ours to remove. */
static void
box_clean_tmp(struct box *box)
{
    struct dir *tmp;
    uint64_t now = (uint64_t)(rt_wall(box->rt) / SECOND), born;
    struct arena names;
    struct str *name;
    size_t count;

    if (err_is(box_open_part(box, S("tmp"), &tmp)))
        return;
    arena_init(&names, rt_mem(box->rt), 4096, (size_t)16 << 20);
    if (!err_is(dir_list(tmp, &names, LANE_DELIVERY, box->until, &name, &count)))
        for (size_t i = 0; i < count; i++) {
            struct str rest = name[i];

            if (str_take_u64(&rest, &born) && str_starts(rest, S(".")) && born > 0 && now > born &&
                now - born > TMP_AGE_S)
                (void)dir_unlink(tmp, name[i], LANE_DELIVERY, box->until);
        }
    arena_done(&names);
    dir_close(tmp);
}

/* All but what is called `except`. ",S=1234" in a name saves opening the file. */
static struct err
box_add_sizes(struct box *box, struct str part, struct str except, uint64_t *sum)
{
    struct arena names;
    struct str *name;
    struct dir *dir;
    size_t count;

    TRY(box_open_part(box, part, &dir));
    arena_init(&names, rt_mem(box->rt), 64 << 10, (size_t)256 << 20);
    struct err e = dir_list(dir, &names, LANE_DELIVERY, box->until, &name, &count);
    for (size_t i = 0; !err_is(e) && i < count; i++) {
        struct str rest = str_from(name[i], str_find(name[i], S(",S=")));
        struct file *file;
        uint64_t bytes = 0;

        if (str_eq(name[i], except))
            continue;
        if (str_take(&rest, S(",S=")) && str_take_u64(&rest, &bytes)) {
            *sum += bytes;
            continue;
        }
        if (err_is(file_open(dir, name[i], FILE_READ, 0, LANE_DELIVERY, box->until, &file)))
            continue; /* its owner moved it meanwhile */
        e = file_size(file, LANE_DELIVERY, box->until, &bytes);
        file_close(file);
        *sum += bytes;
    }
    arena_done(&names);
    dir_close(dir);
    return e;
}

/* ---- delivery ---------------------------------------------------------------------------------------------------- */

static struct outcome
outcome_own(enum outcome_kind kind, struct str enhanced, struct str reply)
{
    return (struct outcome){
        .kind = (uint8_t)kind,
        .about = OUTCOME_ABOUT_RECIPIENT,
        .enhanced = enhanced,
        .reply = reply,
        .remote = S(""),
    };
}

static struct outcome
outcome_of_err(struct err e, struct arena *arena)
{
    char memory[512];
    struct text reason = text_init(memory, sizeof memory);

    if (e.kind == ERR_CORRUPT) { /* the message, not the Maildir */
        err_text(e, &reason);
        return outcome_own(OUTCOME_FAILED, S("5.3.0"), arena_keep(arena, text_str(&reason)));
    }
    text_put(&reason, S("cannot write into the Maildir: "));
    err_text(e, &reason);
    bool full = e.kind == ERR_NO_SPACE,
         ours = e.kind == ERR_DENIED || e.kind == ERR_READ_ONLY || e.kind == ERR_NOT_FOUND;
    return outcome_own(OUTCOME_DEFERRED, full ? S("4.3.1") : ours ? S("4.3.5") : S("4.3.0"),
                       arena_keep(arena, text_str(&reason)));
}

/* Opens a new file in tmp/, its name below the base in *name. */
static struct err
open_unique(struct box *box, struct text *name, struct file **out)
{
    struct err e = OK;

    for (int i = 0; i < NAME_TRIES; i++) {
        name->len = 0;
        box_put_part(name, box, S("tmp/"));
        put_name_of_attempt(name, box);
        e = file_open(box->place->base->dir, text_str(name), FILE_WRITE | FILE_CREATE | FILE_NEW, FILE_MODE, LANE_DELIVERY,
                      box->until, out);
        if (e.kind == ERR_NOT_FOUND) /* somebody removed it */
            TRY(box_make(box));
        else if (e.kind != ERR_EXISTS)
            break;
    }
    return e;
}

/* An error: it may be in new/ all the same. */
static struct err
move_into_new(struct box *box, struct str name, struct str new_name)
{
    struct dir *base = box->place->base->dir;
    struct err e = dir_rename_sync(base, name, base, new_name, LANE_DELIVERY, box->until);

    if (e.kind != ERR_NOT_FOUND)
        return e;
    TRY(box_make(box)); /* somebody removed new/ */
    return dir_rename_sync(base, name, base, new_name, LANE_DELIVERY, box->until);
}

/* Without what this delivery replaces. */
static struct err
box_used(struct box *box, struct str new_name, uint64_t *used)
{
    *used = 0;
    TRY(box_add_sizes(box, S("new"), new_name, used));
    return box_add_sizes(box, S("cur"), S(""), used);
}

/* Writes the message below tmp/, and moves it into new/ unless it has been here. */
static struct outcome
deliver(struct box *box, struct pen *pen, const struct maildir_message *message, struct arena *arena)
{
    char name_memory[PATH_BYTES + NAME_BYTES], new_memory[PATH_BYTES + NAME_BYTES];
    struct text name = text_init(name_memory, sizeof name_memory), new_name = text_init(new_memory, sizeof new_memory);
    uint64_t used = 0, quota = box->place->quota;
    struct outcome outcome;
    bool moved = false; /* perhaps */

    struct err e = open_unique(box, &name, &pen->file);
    if (err_is(e))
        return outcome_of_err(e, arena);
    e = pen_write_message(pen, message);
    if (!err_is(e) && !pen->loop)
        e = pen_sync(pen);
    file_close(pen->file);
    box_put_part(&new_name, box, S("new/"));
    size_t folder = new_name.len;
    put_name_of_message(&new_name, message, pen->offset);
    if (!err_is(e) && !pen->loop && quota > 0) {
        struct str last = str_from(text_str(&new_name), folder);
        e = box_used(box, last, &used);
        if (e.kind == ERR_NOT_FOUND) { /* somebody removed one of them */
            e = box_make(box);
            if (!err_is(e))
                e = box_used(box, last, &used);
        }
    }

    if (pen->loop) {
        outcome = outcome_own(OUTCOME_FAILED, S("5.4.6"),
                              S("the message has been delivered to this address before: it loops"));
    } else if (!err_is(e) && quota > 0 && used + pen->offset > quota) {
        outcome = outcome_own(OUTCOME_DEFERRED, S("4.2.2"), S("the mailbox is over its quota"));
    } else {
        if (!err_is(e)) {
            moved = true;
            e = move_into_new(box, text_str(&name), text_str(&new_name));
            if (!err_is(e)) /* if another one makes it anew meanwhile, this is in what is not on disk yet */
                e = box_prepare(box);
            if (!err_is(e))
                return outcome_own(OUTCOME_DELIVERED, S("2.0.0"),
                                   arena_printf(arena, "delivered as %.*s",
                                                STR_ARG(str_from(text_str(&new_name), box->path.len + 1))));
        }
        outcome = outcome_of_err(e, arena);
    }
    /* If it is not in tmp/ it was moved: perhaps that would last, perhaps not. It comes again, so it must not be seen twice.
     * If it is, what bears its name in new/ is another attempt's; so it may be when nobody waits for this one. */
    if (dir_unlink(box->place->base->dir, text_str(&name), LANE_DELIVERY, box->until).kind == ERR_NOT_FOUND &&
        moved && message->is_awaited(message->arg))
        (void)dir_unlink(box->place->base->dir, text_str(&new_name), LANE_DELIVERY, box->until);
    return outcome;
}

static bool
box_is_running(const struct box *box)
{
    list_each (node, &box->place->base->running) {
        const struct maildir_message *other = container_of(node, struct box, in_base)->message;
        if (message_id_eq(other->id, box->message->id) && other->index == box->message->index)
            return true;
    }
    return false;
}

/* Its turn among the attempts for this recipient of this message, until box_leave(). */
static struct err
box_enter(struct box *box)
{
    while (box_is_running(box))
        TRY(event_wait(box->rt, &box->place->base->ended, box->until));
    list_push_back(&box->place->base->running, &box->in_base);
    return OK;
}

static void
box_leave(struct box *box)
{
    list_remove(&box->in_base);
    event_wake(box->rt, &box->place->base->ended);
}

struct outcome
maildir_deliver(struct rt *rt, const struct maildir_place *place, const struct maildir_message *message,
                struct arena *arena, int64_t until)
{
    char memory[PATH_BYTES];
    struct text path = text_init(memory, sizeof memory);
    struct box box = { .rt = rt, .place = place, .message = message, .until = until };
    struct str reverse_path = message->recipient->reverse_path;
    struct outcome outcome;

    if (!maildir_path(&path, place->pattern, place->domain, place->mailbox))
        return outcome_own(OUTCOME_DEFERRED, S("4.3.5"),
                           S("the mailbox or its domain has a name that no directory can have"));
    if (!client_can_say(str_is_absent(reverse_path) ? message->envelope->reverse_path : reverse_path)
        || !client_can_say(message->recipient->address))
        return outcome_own(OUTCOME_FAILED, S("5.1.3"), S("the envelope has an address with control characters"));
    box.path = text_str(&path);
    if (err_is(box_enter(&box)))
        return outcome_own(OUTCOME_DEFERRED, S("4.3.0"), S("a former attempt has not ended"));
    struct err e = box_prepare(&box);
    if (err_is(e)) {
        outcome = outcome_of_err(e, arena);
    } else {
        struct pen *pen = mem_new(rt_mem(rt), struct pen);

        pen->raw = mem_buffer(rt_mem(rt), RAW_BYTES);
        pen->block = mem_buffer(rt_mem(rt), BLOCK_BYTES);
        pen->until = until;
        pen->address = message->recipient->address;
        if (rt_random(rt) % CLEAN_ONE_IN == 0)
            box_clean_tmp(&box);
        outcome = deliver(&box, pen, message, arena);
        mem_free(rt_mem(rt), pen->block, BLOCK_BYTES);
        mem_free(rt_mem(rt), pen->raw, RAW_BYTES);
        mem_free(rt_mem(rt), pen, sizeof *pen);
    }
    box_leave(&box);
    return outcome;
}
