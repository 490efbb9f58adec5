/*
 * fuzz_server - a whole session with a hostile client.
 *
 * Aims at: smtp/server.c smtp/input.c smtp/recipients.c smtp/params.c smtp/xclient.c
 * Seeds:   smtp/server_test.c smtp/params_test.c smtp/xclient_test.c fuzz-profuzzbench/ smtp-smuggling/ smtp-commands/
 * Longest: 6000
 * Test:    1100 runs
 * Choices: 4 bytes in front
 *
 * The first bytes choose settings, what goes wrong at the site, and how the bytes come. What holds after every session is in
 * receiver.h. Beside that: where no timeout and no early talk plays a part, the same bytes sent at once or cut anywhere store
 * the same messages; and a session of a fault is no worse than refusing.
 */
#include "fuzz.h"

#include "receiver.h"

static void
choose(struct str *rest, struct receiver_case *c, struct fake_site *site)
{
    /* A client that never waits gets no further than EHLO: most wait. */
    static const enum pace paces[8] = { PACE_LINES, PACE_AT_ONCE, PACE_PIECES, PACE_SLOW, PACE_LINES, PACE_LINES, PACE_LINES,
                                         PACE_LINES };
    uint8_t how = fuzz_choice(rest), faults = fuzz_choice(rest), pace = fuzz_choice(rest), step = fuzz_choice(rest);

    *c = (struct receiver_case){ .settings = listener_settings_default(S("mx.local.test")) };
    c->settings.line_ends = how & 1 ? LINE_ENDS_REPAIR : LINE_ENDS_REFUSE;
    c->settings.trusted = how & 2;
    c->settings.vrfy = c->settings.expn = how & 4 ? OFFER_ON : OFFER_OFF;
    c->settings.refuse_early_talk = how & 8;
    c->settings.size_max = how & 16 ? 500 : 0;
    c->settings.rcpt_max = how & 32 ? 2 : 1000;
    c->settings.greeting_delay = how & 64 ? 2 * SECOND : 0;
    c->settings.xclient = pace & 64;
    c->pace = paces[pace % 8];
    c->step = 1 + step;
    c->pause = 1 + pace / 8;
    c->stays = how & 128;
    c->resets = faults & 128;
    c->read_max = faults & 64 ? 1 + step / 4 : 0;
    c->room = faults & 32 ? 16 : 0;

    fake_site_init(site);
    site->begin_error = (faults & 7) == 1 ? ERR(ERR_NO_SPACE, "begin") : OK;
    site->put_error = (faults & 7) == 2 ? ERR(ERR_IO, "put") : OK;
    site->commit_error = (faults & 7) == 3 ? ERR(ERR_IO, "commit") : OK;
    site->over_budget = (faults & 7) == 4;
    site->draining = (faults & 7) == 5;
    static const struct reply refused = { 554, STR("5.7.1"), STR("Not you") }, busy = { 421, STR("4.7.0"), STR("Later") };
    site->admission = (faults & 7) != 6 ? NULL : faults & 16 ? &refused : &busy;
    site->reverse_name = faults & 8 ? S("client.example") : (struct str){ 0 };
}

static bool
may_depend_on_time(const struct receiver_case *c, struct str said)
{
    return c->settings.refuse_early_talk || c->pace == PACE_SLOW || c->resets || str_find(said, S("wait")) < said.len ||
           str_find(said, S("554 5.5.0")) < said.len || str_find(said, S("421 ")) < said.len;
}

static void
compare(const struct fake_site *a, const struct fake_site *b)
{
    CHECK(a->committed == b->committed);
    for (size_t i = 0; i < a->committed && i < FAKE_MESSAGES; i++) {
        const struct fake_message *m = &a->messages[i], *n = &b->messages[i];
        CHECK(str_eq(str_new(m->content, m->len), str_new(n->content, n->len)));
        CHECK(str_eq(str_from_cstr(m->recipients), str_from_cstr(n->recipients)));
        CHECK(str_eq(str_from_cstr(m->reverse_path), str_from_cstr(n->reverse_path)));
    }
}

void
fuzz_one(struct str input, struct arena *arena)
{
    static struct fake_site site, again_site;
    struct receiver_case c;
    struct str rest = input, again_rest = input;

    choose(&rest, &c, &site);
    struct str said = receiver_run(&c, &site, rest, arena);
    receiver_check(&c, &site, said);
    if (!may_depend_on_time(&c, said)) {
        choose(&again_rest, &c, &again_site);
        if (c.pace == PACE_LINES)
            c.read_max = c.read_max == 0;
        else
            c.pace = c.pace == PACE_AT_ONCE ? PACE_PIECES : PACE_AT_ONCE;
        c.room = 0;
        struct str again_said = receiver_run(&c, &again_site, rest, arena);
        receiver_check(&c, &again_site, again_said);
        if (!may_depend_on_time(&c, again_said))
            compare(&site, &again_site);
        fake_site_done(&again_site);
    }
    fake_site_done(&site);
}
