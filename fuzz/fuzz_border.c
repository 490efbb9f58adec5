/*
 * fuzz_border - the messages between roles, as a process that was taken over would send them.
 *
 * Aims at: role/border.c role/control.c message/envelope.c base/codec.c
 * Seeds:   zeros
 * Longest: 3000
 * Test:    40000 runs
 *
 * The first byte chooses the message, and whether it is the input itself or one of ours with some bytes changed. What is taken
 * can be put in the size foretold, taken again, and put again the same; and what is in it keeps the rules of its border.
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
policy(struct str in, struct arena *arena)
{
    struct take t = take_init(in);
    struct sts_answer a, again;
    bool known;

    if (!border_take_policy(&t, arena, &known, &a) || !known)
        return;
    struct put once = room(arena, BORDER_POLICY_FIXED + border_policy_size(&a));
    border_put_policy(&once, &a);
    CHECK(!once.full);
    t = take_init(put_str_so_far(&once));
    CHECK(border_take_policy(&t, arena, &known, &again) && known && again.policy.mx_count == a.policy.mx_count);
    struct put twice = room(arena, BORDER_POLICY_FIXED + border_policy_size(&again));
    border_put_policy(&twice, &again);
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

/* ---- messages of our own, with some bytes changed: further inside than chance alone would come ---- */

static struct str
word(struct str *rest, struct arena *arena)
{
    struct str field = str_slice(fuzz_field(rest), 0, 60);
    struct text t = fuzz_text(arena, field.len + 1);

    for (size_t i = 0; i < field.len; i++)
        text_put_byte(&t, (unsigned char)field.ptr[i] < ' ' || field.ptr[i] == 0x7f ? 'x' : field.ptr[i]);
    return text_str(&t);
}

static struct envelope
make_envelope(struct str *rest, struct arena *arena)
{
    struct recipient *recipients = arena_alloc(arena, 2 * sizeof *recipients);

    recipients[0] = (struct recipient){ .address = S("u@e.example"), .orcpt = word(rest, arena), .notify = NOTIFY_DELAY };
    recipients[1] = (struct recipient){ .address = S("v@e.example"), .given = word(rest, arena), .origin = RECIPIENT_MEMBER,
                                        .reverse_path = word(rest, arena) };
    return (struct envelope){ .reverse_path = word(rest, arena), .helo = word(rest, arena), .client = S("192.0.2.1"),
                              .session = S("s"), .size = rest->len, .trace = S("Received: x\r\n"),
                              .recipients = recipients, .recipient_count = 2 };
}

static struct put
make_submit(struct str *rest, struct arena *arena)
{
    struct recipient_status statuses[2] = { { .index = 0, .state = STATE_EXPANDED }, { .index = 1 } };
    struct border_submit s = { .id = { 1, 2 }, .envelope = make_envelope(rest, arena), .statuses = statuses,
                               .content = word(rest, arena) };
    struct put p = room(arena, border_submit_size(&s));

    border_put_submit(&p, &s);
    return p;
}

static struct put
make_job(struct str *rest, struct arena *arena)
{
    uint32_t indices[2] = { 0, 7 };
    struct str mailboxes[2] = { word(rest, arena), S("e.example/v") };
    struct delivery_host hosts[2] = { { .name = word(rest, arena), .preference = 10 }, { .name = S("mx.example") } };
    struct prefix prefixes[1] = { { .bits = 8 } };
    struct border_job j = { .id = { 3, 4 }, .kind = DELIVERY_SMTP, .port = 25, .domain = word(rest, arena), .helo = S("h"),
                            .hosts = hosts, .host_count = 2, .envelope = make_envelope(rest, arena), .indices = indices,
                            .mailboxes = mailboxes, .base = S("b /mail"), .allow_private = prefixes,
                            .allow_private_count = 1, .content = word(rest, arena) };

    CHECK(address_from_ip(S("10.0.0.0"), &prefixes[0].base) && address_parse(S("192.0.2.1:25"), &hosts[1].fixed));
    struct put p = room(arena, border_job_size(&j));
    border_put_job(&p, &j);
    return p;
}

static struct put
make_policy(struct str *rest, struct arena *arena)
{
    struct str mx[2] = { word(rest, arena), S("*.e.example") };
    struct sts_answer a = { .found = true, .id = S("1"), .why = word(rest, arena),
                            .policy = { .mode = STS_ENFORCE, .max_age = 60, .mx = mx, .mx_count = 2 } };

    mx[0] = str_slice(mx[0], 0, LIMIT_DOMAIN);
    a.why = str_slice(a.why, 0, HTTPS_WHY_MAX);
    struct put p = room(arena, BORDER_POLICY_FIXED + border_policy_size(&a));
    border_put_policy(&p, &a);
    return p;
}

static struct put
make_outcomes(struct str *rest, struct arena *arena)
{
    struct outcome o[2] = { { .kind = OUTCOME_FAILED, .enhanced = S("5.1.1"), .reply = word(rest, arena) },
                            { .remote = word(rest, arena), .enhanced = S("2.0.0") } };
    struct put p = room(arena, 1 + border_outcomes_size(o, 2));

    put_u8(&p, 2); /* how many are expected */
    border_put_outcomes(&p, o, 2);
    return p;
}

static struct put
make_compose(struct str *rest, struct arena *arena)
{
    struct dsn_recipient r = { .address = S("u@e.example"), .reply = word(rest, arena), .status = S("5.1.1"),
                               .remote = word(rest, arena), .orcpt = word(rest, arena) };
    struct border_compose c = { .dsn = { .id = { 5, 6 }, .hostname = S("mx.example"), .to = word(rest, arena),
                                         .recipients = &r, .recipient_count = 1 }, .trace = S("Received: x\r\n") };
    struct put p = room(arena, border_compose_size(&c));

    border_put_compose(&p, &c);
    return p;
}

static struct put
make_listed(struct str *rest, struct arena *arena)
{
    struct border_listed l = { .id = { 7, 8 }, .reverse_path = word(rest, arena), .recipient = word(rest, arena),
                               .place = S("e.example"), .reason = word(rest, arena) };
    struct put p = room(arena, BORDER_LISTED_BYTES);

    border_put_listed(&p, &l);
    return p;
}

static struct put
make_shown(struct str *rest, struct arena *arena)
{
    struct border_shown_recipient r = { .address = word(rest, arena), .last_reply = word(rest, arena) };
    struct border_shown s = { .id = { 9, 1 }, .held_why = word(rest, arena), .reverse_path = word(rest, arena),
                              .recipient_count = 1, .recipients = &r, .shown = 1 };
    struct put p = room(arena, border_shown_size(&s));

    border_put_shown(&p, &s);
    return p;
}

static struct str
change(struct put p, struct str how)
{
    struct take t = take_init(how);

    CHECK(!p.full && p.len > 0);
    for (int i = 0; i < 3 && t.rest.len >= 3; i++) {
        size_t at = take_u16(&t);
        p.ptr[at % p.len] ^= take_u8(&t);
    }
    return put_str_so_far(&p);
}

void
fuzz_one(struct str input, struct arena *arena)
{
    static void (*const messages[])(struct str, struct arena *) = { submit, job, outcomes, compose, listed, shown, policy, small,
                                                                    control };
    static struct put (*const makers[])(struct str *, struct arena *) = { make_submit, make_job, make_outcomes, make_compose,
                                                                         make_listed, make_shown, make_policy };
    enum { MESSAGES = sizeof messages / sizeof *messages, MAKERS = sizeof makers / sizeof *makers };
    struct str rest = input;
    size_t which = fuzz_choice(&rest) % (MESSAGES + MAKERS);

    if (which < MESSAGES) {
        messages[which](rest, arena);
    } else {
        struct put made = makers[which - MESSAGES](&rest, arena);
        messages[which - MESSAGES](change(made, rest), arena);
    }
}
