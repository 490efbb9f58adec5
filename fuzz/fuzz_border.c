/*
 * fuzz_border - the messages between roles, as a process that was taken over would send them.
 *
 * Aims at: role/border.c role/control.c message/envelope.c base/codec.c
 * Seeds:   zeros
 * Longest: 3000
 *
 * The first byte chooses the message. What is taken can be put in the size foretold, taken again, and put again the same; and
 * what is in it keeps the rules of its border.
 */
#include "fuzz.h"

#include "role/border.h"
#include "role/control.h"

static struct put
room(struct arena *arena, size_t size)
{
    return put_init(arena_alloc(arena, size), size);
}

static void
check_same(const struct put *once, const struct put *twice)
{
    CHECK(!once->full && !twice->full && str_eq(put_str_so_far(once), put_str_so_far(twice)));
}

static void
check_statuses(const struct border_submit *s)
{
    for (size_t i = 0; s->statuses && i < s->envelope.recipient_count; i++) {
        uint8_t state = s->statuses[i].state;
        CHECK(state == STATE_PENDING || state == STATE_EXPANDED || state == STATE_SUPPRESSED);
        CHECK(s->statuses[i].index == i);
    }
}

static void
submit(struct str in, struct arena *arena)
{
    struct take t = take_init(in);
    struct border_submit s, again;

    if (!border_take_submit(&t, arena, &s))
        return;
    check_statuses(&s);
    struct put once = room(arena, border_submit_size(&s));
    border_put_submit(&once, &s);
    CHECK(!once.full);
    t = take_init(put_str_so_far(&once));
    CHECK(border_take_submit(&t, arena, &again) && str_eq(again.content, s.content));
    struct put twice = room(arena, border_submit_size(&again));
    border_put_submit(&twice, &again);
    check_same(&once, &twice);
}

static void
job(struct str in, struct arena *arena)
{
    struct take t = take_init(in);
    struct border_job j, again;

    if (!border_take_job(&t, arena, &j))
        return;
    CHECK(j.envelope.recipient_count <= LIMIT_RCPT_PER_JOB && j.kind <= DELIVERY_MAILDIR);
    CHECK(j.connect_wait >= 0 && j.connect_wait <= HOUR && j.reply_wait >= 0 && j.reply_wait <= HOUR);
    struct put once = room(arena, border_job_size(&j));
    border_put_job(&once, &j);
    CHECK(!once.full);
    t = take_init(put_str_so_far(&once));
    CHECK(border_take_job(&t, arena, &again) && str_eq(again.content, j.content));
    CHECK(str_is_absent(again.content) == str_is_absent(j.content));
    struct put twice = room(arena, border_job_size(&again));
    border_put_job(&twice, &again);
    check_same(&once, &twice);
}

static void
outcomes(struct str in, struct arena *arena)
{
    struct str rest = in;
    size_t count = fuzz_choice(&rest) % (LIMIT_RCPT_PER_JOB + 1);
    struct outcome *out = arena_alloc(arena, (count + 1) * sizeof *out), *again = arena_alloc(arena, (count + 1) * sizeof *out);
    struct take t = take_init(rest);

    if (!border_take_outcomes(&t, arena, out, count))
        return;
    size_t size = border_outcomes_size(out, count);
    struct put once = room(arena, size), twice = room(arena, size);
    border_put_outcomes(&once, out, count);
    t = take_init(put_str_so_far(&once));
    CHECK(border_take_outcomes(&t, arena, again, count));
    border_put_outcomes(&twice, again, count);
    check_same(&once, &twice);
}

static void
compose(struct str in, struct arena *arena)
{
    struct take t = take_init(in);
    struct border_compose c, again;

    if (!border_take_compose(&t, arena, &c))
        return;
    CHECK(c.dsn.recipient_count > 0);
    size_t size = border_compose_size(&c);
    struct put once = room(arena, size), twice = room(arena, size);
    border_put_compose(&once, &c);
    CHECK(!once.full);
    t = take_init(put_str_so_far(&once));
    CHECK(border_take_compose(&t, arena, &again));
    border_put_compose(&twice, &again);
    check_same(&once, &twice);
}

static void
listed(struct str in, struct arena *arena)
{
    struct take t = take_init(in);
    struct border_listed l, again;

    border_take_listed(&t, &l);
    if (t.bad)
        return;
    struct put once = room(arena, BORDER_LISTED_BYTES), twice = room(arena, BORDER_LISTED_BYTES);
    border_put_listed(&once, &l);
    t = take_init(put_str_so_far(&once));
    border_take_listed(&t, &again);
    CHECK(take_end(&t));
    border_put_listed(&twice, &again);
    check_same(&once, &twice);
}

static void
shown(struct str in, struct arena *arena)
{
    struct take t = take_init(in);
    struct border_shown s, again;

    if (!border_take_shown(&t, arena, &s))
        return;
    size_t size = border_shown_size(&s);
    struct put once = room(arena, size), twice = room(arena, size);
    border_put_shown(&once, &s);
    CHECK(!once.full);
    t = take_init(put_str_so_far(&once));
    CHECK(border_take_shown(&t, arena, &again));
    border_put_shown(&twice, &again);
    check_same(&once, &twice);
}

static void
small(struct str in, struct arena *arena)
{
    struct take t = take_init(in);
    struct put once = room(arena, 400), twice = room(arena, 400);
    struct delivery_figures figures, again;

    border_take_figures(&t, &figures);
    struct address address = border_take_address(&t);
    struct err e = border_take_err(&t, "ask");
    struct message_id id = border_take_id(&t);
    if (t.bad)
        return;
    border_put_figures(&once, &figures);
    border_put_address(&once, &address);
    border_put_err(&once, e);
    border_put_id(&once, id);
    t = take_init(put_str_so_far(&once));
    border_take_figures(&t, &again);
    struct address address_again = border_take_address(&t);
    struct err e_again = border_take_err(&t, "ask");
    struct message_id id_again = border_take_id(&t);
    CHECK(take_end(&t));
    CHECK(address_eq(&address, &address_again) && e.kind == e_again.kind && message_id_eq(id, id_again));
    border_put_figures(&twice, &again);
    border_put_address(&twice, &address_again);
    border_put_err(&twice, e_again);
    border_put_id(&twice, id_again);
    check_same(&once, &twice);
}

static void
control(struct str in, struct arena *arena)
{
    struct take t = take_init(in);
    struct put once = room(arena, 64);
    struct control_setup setup;

    if (!control_take_setup(&t, &setup))
        return;
    control_put_setup(&once, &setup);
    CHECK(setup.kind < ROLE_KINDS && str_eq(put_str_so_far(&once), in));
}

void
fuzz_one(struct str input, struct arena *arena)
{
    static void (*const messages[])(struct str, struct arena *) = { submit, job, outcomes, compose, listed, shown, small,
                                                                    control };
    struct str rest = input;

    messages[fuzz_choice(&rest) % (sizeof messages / sizeof *messages)](rest, arena);
}
