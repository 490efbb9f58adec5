/*
 * fuzz_command - command lines: options and addresses of send, sendmail, mailq, queue, status, check, config, spool, reload and
 * stop, with anything on standard input.
 *
 * Aims at: cli/cli.c cli/sendmail.c cli/send.c cli/queue.c cli/operate.c cli/check.c cli/spool.c message/compose.c
 * Seeds:   cli/cli_test.c cli/check_test.c message/compose_test.c address-isemail/
 * Longest: 2000
 * Test:    320 runs
 * Choices: 3 bytes in front
 *
 * The first byte chooses the verb; then come its words, a byte 0xff, a file that words may name ("f", and a segment of a spool,
 * "d"), a byte 0xff, standard input, a byte 0xff, and what servers say that it may connect to, each up to a byte 0xff. A console
 * answers each call with as many bytes as the next two say. It ends with a code that scripts know.
 */
#include "fuzz.h"

#include "command.h"
#include "hostile.h"
#include "link/link.h"
#include "world.h"

enum { CONNECTIONS = 8 };

struct commanding {
    struct command command;
    struct str scripts;
    uint8_t how;
    struct hostile connection[CONNECTIONS];
    size_t connections;
};

/* Our own daemon, but for what it says. */
static bool
answer_as_console(void *arg, struct link *link, struct link_message *m)
{
    struct commanding *c = arg;

    if (c->scripts.len == 0)
        return false;
    size_t len = fuzz_choice(&c->scripts);
    len |= (size_t)fuzz_choice(&c->scripts) << 8;
    CHECK(m->call != 0);
    link_reply(link, m->call, m->type, str_slice(c->scripts, 0, len));
    c->scripts = str_from(c->scripts, len);
    return true;
}

static void
closed(void *arg, struct link *link, struct err why)
{
    (void)arg;
    (void)why;
    link_free_later(link);
}

static bool
is_operators(const struct verb *verb)
{
    return verb == &verb_queue || verb == &verb_mailq || verb == &verb_status || verb == &verb_reload || verb == &verb_stop;
}

static struct err
connected(void *arg, struct rt *rt, const struct address *to, struct stream *far_end)
{
    struct commanding *c = arg;

    if (to->family == ADDRESS_UNIX && is_operators(c->command.verb)) {
        struct link_settings settings = { .name = S("console"), .ctx = c, .handle = answer_as_console, .closed = closed };
        link_on_stream(far_end, &settings);
        return OK;
    }
    if (c->connections == CONNECTIONS || (c->how & 64))
        return ERR(ERR_REFUSED, "connect");
    struct hostile *h = &c->connection[c->connections++];
    *h = (struct hostile){ .rt = rt, .stream = far_end, .script = fuzz_field(&c->scripts), .pace = c->how & 3,
                           .end = (c->how >> 2) % 3, .step = 7 };
    fiber_start(rt, "hostile", hostile_run, h);
    return OK;
}

static void
remove_files(void)
{
    world_files_remove(S("f"));
    world_files_remove(S("d"));
    world_files_remove(S("/etc"));
}

void
fuzz_one(struct str input, struct arena *arena)
{
    static const struct verb *const verbs[] = { &verb_sendmail, &verb_send, &verb_queue, &verb_mailq, &verb_status,
                                                &verb_check, &verb_config, &verb_spool, &verb_reload, &verb_stop };
    struct commanding *c = arena_new(arena, struct commanding);
    struct str rest = input;

    c->command = (struct command){ .verb = verbs[fuzz_choice(&rest) % (sizeof verbs / sizeof *verbs)] };
    c->how = fuzz_choice(&rest);
    uint8_t step = fuzz_choice(&rest);
    command_add(&c->command, fuzz_field(&rest), arena);
    struct str file = fuzz_field(&rest), in = fuzz_field(&rest);
    c->scripts = rest;
    remove_files();
    world_file_put(S("f"), file);
    world_file_put(S("d/00000001.segment"), file);
    world_file_put(S("/etc/postrider/postrider.conf"), file);
    world_rules = (struct world_rules){ .seed = 1, .connected = connected, .arg = c, .drops_heap = true, .input = in,
                                        .read_max = c->how & 128 ? 1u + step : 0 };
    command_run(&c->command);
    remove_files();
}
