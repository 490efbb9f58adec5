/* damage - see damage.h. */
#include "sim/damage.h"

#include "base/check.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

/* Of a record before and behind the content that a client sent: header, envelope, our Received field; the padding. A notice about a
 * message says much before it comes to the original's header. */
enum { FILES_MAX = 64, PIECES_MAX = 4096, BEFORE = 2048, BEHIND = 1024, NOTICE_BEFORE = 6144 };

struct piece { /* a message that waits, or a notice about one, where it lies */
    disk_inode file;
    uint64_t from, to;       /* of the record, generously */
    struct mail *mail;
};

struct survey {
    struct run *run;
    disk_inode files[FILES_MAX];
    uint64_t used[FILES_MAX]; /* up to the last byte that is not zero */
    size_t file_count;
    struct piece pieces[PIECES_MAX];
    size_t piece_count;
};

/* ---- what lies where --------------------------------------------------------------------------------------------- */

/* It may be stored, and its 250 on the way. */
static bool
waits(const struct mail *m)
{
    for (size_t i = 0; m->state != MAIL_REFUSED && i < m->target_count; i++)
        if (m->targets[i].deliveries == 0)
            return true;
    return false;
}

/* What cleaning moved has an envelope of its own, without content: "s-17@back.test", or as users may send. */
static void
add_heads(struct survey *s, disk_inode inode, struct str bytes, struct str domain)
{
    for (size_t at = 0; (at += str_find(str_from(bytes, at), domain)) < bytes.len && s->piece_count < PIECES_MAX; at += domain.len) {
        size_t from = at;
        while (from > 2 && byte_is_digit(bytes.ptr[from - 1]))
            from--;
        struct mail *m = from < 2 ? NULL : ledger_find(&s->run->ledger, ledger_token(str_slice(bytes, from - 2, at)));
        if (m && waits(m))
            s->pieces[s->piece_count++] = (struct piece){ inode, from > BEHIND ? from - BEHIND : 0, at + BEFORE, m };
    }
}

static void
look_at_file(void *arg, disk_inode inode, struct str path)
{
    static const struct str field = STR("X-Sim-Token: ");
    struct survey *s = arg;
    struct str bytes = disk_bytes(s->run->sim->disk, inode);
    size_t at = 0;

    while (bytes.len && bytes.ptr[bytes.len - 1] == '\0')
        bytes.len--;
    if (s->file_count == FILES_MAX || bytes.len == 0 || str_find(path, S("quarantine")) < path.len)
        return;
    s->files[s->file_count] = inode;
    s->used[s->file_count++] = bytes.len;
    while ((at += str_find(str_from(bytes, at), field)) < bytes.len && s->piece_count < PIECES_MAX) {
        struct mail *m = ledger_find(&s->run->ledger, ledger_token_in(str_from(bytes, at)));
        size_t inside = m ? str_find(m->own_content, field) : 0, before = NOTICE_BEFORE;
        if (m && at >= inside && str_starts(str_from(bytes, at - inside), m->own_content))
            before = inside + BEFORE;
        if (m && waits(m))
            s->pieces[s->piece_count++] = (struct piece){ inode, at > before ? at - before : 0, at + m->own_content.len + BEHIND, m };
        at += field.len;
    }
    add_heads(s, inode, bytes, S("@back.test"));
    add_heads(s, inode, bytes, S("@other.test"));
}

/* ---- the damage -------------------------------------------------------------------------------------------------- */

static void
spoil(struct survey *s, disk_inode file, uint64_t from, uint64_t to)
{
    for (size_t i = 0; i < s->piece_count; i++) {
        const struct piece *p = &s->pieces[i];
        if (p->file == file && from < p->to && to > p->from)
            p->mail->spoiled = true;
    }
    for (size_t i = 0; i < s->run->ledger.count; i++) /* whose moved envelope says nothing of the token */
        s->run->ledger.mails[i]->spoiled |= s->run->ledger.mails[i]->null_sender;
}

static void
damage(struct run *run)
{
    struct sim *sim = run->sim;
    struct survey s = { .run = run };
    disk_inode spool;

    CHECK(disk_walk(sim->disk, DISK_ROOT, S(STATE_DIR "/spool"), &spool));
    disk_each_file(sim->disk, spool, look_at_file, &s);
    if (s.file_count == 0)
        return;
    size_t nth = (size_t)dice_below(sim, s.file_count);
    disk_inode file = s.files[nth];
    uint64_t at = dice_below(sim, s.used[nth]);
    if (s.piece_count && dice_chance(sim, 700)) {
        const struct piece *p = &s.pieces[dice_below(sim, s.piece_count)];
        file = p->file;
        at = p->from + dice_below(sim, p->to - p->from);
    }
    if (dice_chance(sim, 500)) {
        disk_flip(sim->disk, file, at, (uint8_t)(1u << dice_below(sim, 8)));
        spoil(&s, file, at, at + 1);
        sim_trace(sim, NULL, "DAMAGE a bit of file %u at %llu", file, (unsigned long long)at);
    } else {
        at = at / DISK_BLOCK * DISK_BLOCK;
        disk_blank(sim->disk, file, at, DISK_BLOCK);
        spoil(&s, file, at, at + DISK_BLOCK);
        sim_trace(sim, NULL, "DAMAGE a block of file %u at %llu", file, (unsigned long long)at);
    }
    run->ledger.damaged = true;
    faults_death(sim); /* an end that was written down may be what is lost: then something comes twice */
}

/* ---- the script -------------------------------------------------------------------------------------------------- */

static void
plan(struct run *run, void *arg)
{
    (void)arg;
    plan_draw(run);
    run->plan.hostility = 0;
    run->plan.never = false;
    run->plan.big = 0; /* what lies in pieces is not found again */
    run->plan.active = 20 * SECOND;
}

static void
begin(struct run *run, void *arg)
{
    struct sim *sim = run->sim;

    (void)arg;
    for (size_t i = 0; i < run->server_count; i++)
        if (server_host(run, i))
            server_host(run, i)->down_until = FOREVER; /* until faults_end() */
    sim->faults.count = 0;
}

static void
heal(struct run *run, void *arg)
{
    struct sim *sim = run->sim;

    (void)arg;
    if (dice_chance(sim, 500)) {
        sim->faults.planted++; /* sessions may be cut */
        sim_daemon_comes_back(sim, 5 * SECOND);
        sim_kill_home(sim, 256 + SIGKILL);
    }
    damage(run);
}

static void
quiet(struct run *run, void *arg)
{
    (void)run;
    (void)arg;
}

const struct run_script damage_script = { plan, begin, heal, quiet, NULL };
