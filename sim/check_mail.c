/* check_mail - ledger.h: what the outside world saw, and whether the promises were kept. */
#include "sim/ledger.h"

#include "sim/check_mime.h"

#include "base/check.h"
#include "base/map.h"

#include <stdio.h>
#include <string.h>

void
ledger_init(struct ledger *l, struct sim *sim)
{
    *l = (struct ledger){ .sim = sim };
}

void
ledger_done(struct ledger *l)
{
    for (size_t i = 0; i < l->count; i++) {
        mem_free(&l->sim->mem, (void *)(uintptr_t)l->mails[i]->own_content.ptr, l->mails[i]->own_content.len);
        mem_free(&l->sim->mem, l->mails[i], sizeof(struct mail));
    }
    mem_free(&l->sim->mem, l->mails, l->cap * sizeof(struct mail *));
}

struct mail *
ledger_new(struct ledger *l, uint32_t original)
{
    if (l->count == l->cap) {
        size_t cap = l->cap ? l->cap * 2 : 64;
        l->mails = mem_resize(&l->sim->mem, l->mails, l->cap * sizeof(struct mail *), cap * sizeof(struct mail *));
        l->cap = cap;
    }
    struct mail *m = mem_new(&l->sim->mem, struct mail);
    m->token = (uint32_t)++l->count;
    m->original = original ? original : m->token;
    l->mails[l->count - 1] = m;
    return m;
}

struct mail *
ledger_find(const struct ledger *l, uint32_t token)
{
    return token >= 1 && token <= l->count ? l->mails[token - 1] : NULL;
}

uint32_t
ledger_token(struct str address)
{
    uint64_t token = 0;

    (void)str_cut(&address, '-');
    if (!str_is_absent(address))
        (void)str_take_u64(&address, &token);
    return (uint32_t)token;
}

struct target *
ledger_target(struct mail *m, struct str address)
{
    for (size_t i = 0; i < m->target_count; i++)
        if (str_eq_nocase(str_from_cstr(m->targets[i].address), address))
            return &m->targets[i];
    return NULL;
}

struct target *
ledger_add_target(struct mail *m, struct str address)
{
    struct target *t = ledger_target(m, address);

    if (t)
        return t;
    CHECK(m->target_count < TARGETS_MAX && address.len < sizeof t->address);
    t = &m->targets[m->target_count++];
    memcpy(t->address, address.ptr, address.len);
    return t;
}

/* ---- what was seen ----------------------------------------------------------------------------------------------- */

#define TOKEN_FIELD "X-Sim-Token: "

uint32_t
ledger_token_in(struct str content)
{
    uint64_t token = 0;
    struct str rest = str_from(content, str_find(content, S(TOKEN_FIELD)));

    if (str_take(&rest, S(TOKEN_FIELD)))
        (void)str_take_u64(&rest, &token);
    return (uint32_t)token;
}

/* Takes the next line, its end as LF: without the CR before it. */
static struct str
take_line(struct str *crlf, bool *out_ends)
{
    struct str line = str_slice(*crlf, 0, str_find_byte(*crlf, '\n') + 1);

    *crlf = str_from(*crlf, line.len);
    *out_ends = str_ends(line, S("\r\n"));
    return *out_ends ? str_slice(line, 0, line.len - 2) : line;
}

static bool
same_text(struct str lf, struct str crlf)
{
    bool ends;

    while (crlf.len) {
        struct str line = take_line(&crlf, &ends);
        if (!str_take(&lf, line) || (ends && !str_take(&lf, S("\n"))))
            return false;
    }
    return lf.len == 0;
}

static size_t
count_cr(struct str s)
{
    size_t count = 0;
    bool ends;

    while (s.len) {
        (void)take_line(&s, &ends);
        count += ends;
    }
    return count;
}

/* One field of trace, whole, off the front. */
static bool
take_trace(struct str *content)
{
    static const struct str trace[] = { STR("Received: "), STR("Return-Path: "), STR("Delivered-To: ") };

    for (size_t i = 0; i < sizeof trace / sizeof *trace; i++) {
        if (!str_starts_nocase(*content, trace[i]))
            continue;
        do
            (void)str_cut(content, '\n');
        while (content->len && byte_is_space(content->ptr[0]));
        return true;
    }
    return false;
}

static bool
is_converted(struct ledger *l, const struct mail *m, struct str content)
{
    while (take_trace(&content))
        continue;
    l->converted++;
    return mime_is_same(&l->sim->mem, m->own_content, content);
}

/* P8: what we prepend is trace, and everything behind it is what was sent. */
static bool
is_unchanged(struct ledger *l, const struct mail *m, struct str content, bool lf_only)
{
    size_t want = m->own_content.len - (lf_only ? count_cr(m->own_content) : 0);

    if (content.len < want)
        return m->mime && is_converted(l, m, content);
    struct str head = str_slice(content, 0, content.len - want), body = str_from(content, content.len - want);
    if (lf_only ? !same_text(body, m->own_content) : !str_eq(body, m->own_content))
        return m->mime && !lf_only && is_converted(l, m, content);
    while (head.len)
        if (!take_trace(&head))
            return false;
    return true;
}

void
ledger_delivered(struct ledger *l, struct str address, struct str content, bool lf_only)
{
    struct sim *sim = l->sim;
    uint32_t token = ledger_token_in(content);
    struct mail *m = ledger_find(l, token);

    sim_trace(sim, NULL, "delivered: message %u to %.*s, %zu bytes", token, STR_ARG(address), content.len);
    if (!m) {
        sim_fail(sim, "P8: %.*s got a message that nobody sent", STR_ARG(address));
        return;
    }
    struct target *t = ledger_target(m, address);
    if (!t) {
        sim_fail(sim, "P8: message %u reached %.*s, to whom it was not sent", token, STR_ARG(address));
        return;
    }
    if (m->state == MAIL_CUT || m->state == MAIL_REFUSED || m->state == MAIL_PLANNED)
        sim_fail(sim, "message %u reached %.*s though %s", token, STR_ARG(address),
                 m->state == MAIL_REFUSED ? "it was refused" : "its end was never sent");
    if (!is_unchanged(l, m, content, lf_only))
        sim_fail(sim, "P8: message %u was changed on its way to %.*s", token, STR_ARG(address));
    t->deliveries++;
}

static struct str
field_value(struct str content, struct str name)
{
    while (content.len) {
        struct str line = str_cut(&content, '\n');
        if (str_starts_nocase(line, name))
            return str_trim(str_from(line, name.len));
        if (str_trim(line).len == 0)
            break;
    }
    return S("");
}

/* One line of a per-recipient group of RFC 3464; the groups say the recipient before the action. */
static void
read_action(struct ledger *l, struct mail *m, struct str recipient, struct str action)
{
    struct target *t = ledger_target(m, recipient);

    if (!t) {
        sim_fail(l->sim, "P4: a notice about message %u names %.*s, to whom it was not sent", m->token, STR_ARG(recipient));
        return;
    }
    if (str_eq_nocase(action, S("failed")))
        t->failed_notices++;
    else if (str_eq_nocase(action, S("delayed")))
        t->delay_notices++;
}

void
ledger_notice(struct ledger *l, struct str to, struct str content)
{
    struct sim *sim = l->sim;
    struct mail *m = ledger_find(l, ledger_token(to));
    uint64_t id = hash_bytes(field_value(content, S("Message-ID:")), 3);
    struct str recipient = S("");

    sim_trace(sim, NULL, "notice to %.*s, %zu bytes", STR_ARG(to), content.len);
    if (!m) {
        sim_fail(sim, "P4: a notice to %.*s, who sent nothing", STR_ARG(to));
        return;
    }
    if (m->state == MAIL_CUT || m->state == MAIL_REFUSED)
        sim_fail(sim, "P4: a notice about message %u, which was not accepted", m->token);
    for (size_t i = 0; i < m->notice_count; i++)
        if (m->notices[i] == id)
            return; /* the same one again: a duplicate of a delivery, not a second notice */
    if (m->notice_count < NOTICES_MAX)
        m->notices[m->notice_count++] = id;
    while (content.len) {
        struct str line = str_trim(str_cut(&content, '\n'));
        if (str_take_nocase(&line, S("Final-Recipient:"))) {
            (void)str_cut(&line, ';');
            recipient = str_trim(line);
        } else if (str_take_nocase(&line, S("Action:")) && recipient.len) {
            read_action(l, m, recipient, str_trim(line));
            recipient = S("");
        }
    }
}

void
ledger_doubt(struct ledger *l, uint32_t token, struct str address, bool known)
{
    struct mail *m = ledger_find(l, token);
    struct target *t = m ? ledger_target(m, address) : NULL;

    if (t && known)
        t->doubts--;
    else if (t)
        t->doubts++;
}

void
ledger_deferred(struct ledger *l, struct target *t)
{
    int64_t now = l->sim->now;

    t->hurries += t->deferred > 0 && now - t->deferred_at < l->soonest;
    t->deferred++;
    t->deferred_at = now;
}

void
ledger_refused(struct ledger *l, uint32_t token, struct str address)
{
    struct mail *m = ledger_find(l, token);
    struct target *t = m ? ledger_target(m, address) : NULL;

    if (t)
        t->refusals++;
}

static struct str
domain_of(struct str address)
{
    return str_from(address, str_find_byte(address, '@'));
}

void
ledger_waited(struct ledger *l, struct str address)
{
    for (size_t i = 0; i < l->count; i++)
        for (size_t k = 0; k < l->mails[i]->target_count; k++) {
            struct target *t = &l->mails[i]->targets[k];
            t->waited |= t->deliveries == 0 && str_eq(domain_of(str_from_cstr(t->address)), domain_of(address));
        }
}

/* ---- Maildirs ---------------------------------------------------------------------------------------------------- */

static void
read_mail_file(void *arg, disk_inode inode, struct str path)
{
    struct ledger *l = arg;
    struct str content = disk_bytes(l->sim->disk, inode);

    if (str_find(path, S("/new/")) == path.len)
        return; /* tmp/: nobody looks there */
    if (str_find(content, S("Content-Type: multipart/report")) < content.len) { /* a notice that could not be delivered */
        struct mail *m = ledger_find(l, ledger_token_in(content));
        if (m && m->null_sender)
            sim_fail(l->sim, "P4: a notice about message %u, which is from nobody", m->token);
        if (m)
            m->notice_returned = true;
        l->double_bounces++;
        return;
    }
    ledger_delivered(l, field_value(str_from(content, str_find_byte(content, '\n') + 1), S("Delivered-To:")), content, true);
}

void
ledger_read_maildirs(struct ledger *l)
{
    disk_inode mail;

    if (disk_walk(l->sim->disk, DISK_ROOT, S("/var/mail"), &mail))
        disk_each_file(l->sim->disk, mail, read_mail_file, l);
}

/* ---- the promises ------------------------------------------------------------------------------------------------ */

static bool
is_never(const struct target *t)
{
    return str_starts(str_from_cstr(t->address), S("never"));
}

/* It was old, and there was a reason to wait so long: once faults are over each next hop takes what comes, but of those that
 * never do or not at first, and those whose server was waited for until then; or until a large message before it was through a thin line. */
static bool
may_have_expired(const struct ledger *l, const struct mail *m, const struct target *t)
{
    return l->sim->now - m->begun_at >= l->lifetime - l->slack &&
           (is_never(t) || t->deferred > 0 || t->doubts > 0 || t->waited || l->thin);
}

static bool
is_nowhere(const struct target *t)
{
    return str_ends(str_from_cstr(t->address), S("@nowhere.test"));
}

/* Whether a failure for good would be right. */
static bool
may_have_failed(const struct ledger *l, const struct mail *m, const struct target *t)
{
    return t->refusals > 0 || is_nowhere(t) || may_have_expired(l, m, t);
}

enum { HURRIES_MAX = 3 };

static void
check_target(struct ledger *l, const struct mail *m, const struct target *t)
{
    struct sim *sim = l->sim;
    bool must = m->state == MAIL_ACCEPTED && !m->removed;
    uint64_t deaths = sim->faults.process_deaths;

    if (m->spoiled && t->deliveries == 0 && t->failed_notices == 0) {
        if (must && !l->damage_told && !(t->silent && may_have_failed(l, m, t)))
            sim_fail(sim, "P3: message %u was damaged, and nobody says that %s will not get it", m->token, t->address);
        return;
    }
    /* A notice too may wait for its whole lifetime, behind others for the only connection to a server that is slow to answer. */
    bool told = t->failed_notices > 0 || (m->notice_returned && l->sim->now - m->begun_at >= l->lifetime - l->slack);
    if (must && t->deliveries == 0 && !told && !t->silent)
        sim_fail(sim, "P1/P4: message %u was accepted, and %s neither got it nor was its sender told", m->token, t->address);
    if (must && t->silent && t->deliveries == 0 && !may_have_failed(l, m, t))
        sim_fail(sim, "P1/P4: message %u was accepted and never came to %s", m->token, t->address);
    if (t->silent && t->failed_notices)
        sim_fail(sim, "P4: a notice about %s of message %u, which owes none", t->address, m->token);
    if (t->failed_notices > 1)
        sim_fail(sim, "P4: %u notices say that message %u failed for %s", t->failed_notices, m->token, t->address);
    /* What was not accepted and is salvaged all the same may lack its content: that is bounced (RELIABILITY.md, open). */
    if (t->failed_notices && must && !m->spoiled && !may_have_failed(l, m, t))
        sim_fail(sim, "P6: message %u bounced for %s though nobody refused it and it was not old", m->token, t->address);
    if (t->failed_notices && t->deliveries > t->doubts + deaths)
        sim_fail(sim, "P4: message %u ended twice for %s: delivered and bounced", m->token, t->address);
    if (t->deliveries > 1 + t->doubts + deaths)
        sim_fail(sim, "P5: message %u came %u times to %s, with %u doubtful replies and %llu deaths", m->token,
                 t->deliveries, t->address, t->doubts, (unsigned long long)deaths);
    /* When its delay is told, and at its end, it is tried once more; a death may have taken what was to be waited for. */
    if (t->hurries > HURRIES_MAX + deaths)
        sim_fail(sim, "P6: %u of %u tries of message %u for %s came at once after a 4xx", t->hurries, t->deferred, m->token,
                 t->address);
    if (t->delay_notices > 1)
        sim_fail(sim, "P4: %u delay notices about message %u for %s", t->delay_notices, m->token, t->address);
    l->delivered += t->deliveries > 0;
    l->duplicates += t->deliveries > 1 ? t->deliveries - 1 : 0;
    l->bounced += t->failed_notices;
}

void
ledger_check(struct ledger *l)
{
    for (size_t i = 0; i < l->count && !l->sim->failed; i++) {
        l->accepted += l->mails[i]->state == MAIL_ACCEPTED;
        for (size_t k = 0; k < l->mails[i]->target_count; k++)
            check_target(l, l->mails[i], &l->mails[i]->targets[k]);
    }
}
