/*
 * fuzz_command - command lines: options and addresses of send, sendmail, mailq, queue, status, check, config and spool, with
 * anything on standard input.
 *
 * Aims at: cli/cli.c cli/sendmail.c cli/send.c cli/queue.c cli/check.c cli/spool.c message/compose.c
 * Seeds:   cli/cli_test.c cli/check_test.c message/compose_test.c address-isemail/
 * Longest: 2000
 * Test:    330 runs
 * Choices: 3 bytes in front
 *
 * The first byte chooses the verb; then come its words, a byte 0xff, a file that words may name ("f"), a byte 0xff, standard
 * input, a byte 0xff, and what a server says that it may connect to. It ends with a code that scripts know.
 */
#include "fuzz.h"

#include "command.h"
#include "hostile.h"
#include "world.h"

enum { CONNECTIONS = 8 };

struct commanding {
    struct command command;
    struct str scripts;
    uint8_t how;
    struct hostile connection[CONNECTIONS];
    size_t connections;
};

static struct err
connected(void *arg, struct rt *rt, const struct address *to, struct stream *far_end)
{
    struct commanding *c = arg;

    (void)to;
    if (c->connections == CONNECTIONS || (c->how & 64))
        return ERR(ERR_REFUSED, "connect");
    struct hostile *h = &c->connection[c->connections++];
    *h = (struct hostile){ .rt = rt, .stream = far_end, .script = fuzz_field(&c->scripts), .pace = c->how & 3,
                           .end = (c->how >> 2) % 3, .step = 7 };
    fiber_start(rt, "hostile", hostile_run, h);
    return OK;
}

void
fuzz_one(struct str input, struct arena *arena)
{
    static const struct verb *const verbs[] = { &verb_sendmail, &verb_send, &verb_queue, &verb_mailq, &verb_status,
                                                &verb_check, &verb_config, &verb_spool };
    struct commanding *c = arena_new(arena, struct commanding);
    struct str rest = input;

    c->command = (struct command){ .verb = verbs[fuzz_choice(&rest) % (sizeof verbs / sizeof *verbs)] };
    c->how = fuzz_choice(&rest);
    uint8_t step = fuzz_choice(&rest);
    command_add(&c->command, fuzz_field(&rest), arena);
    struct str file = fuzz_field(&rest), in = fuzz_field(&rest);
    c->scripts = rest;
    world_files_remove(S("f"));
    world_files_remove(S("/etc"));
    world_file_put(S("f"), file);
    world_file_put(S("/etc/postrider/postrider.conf"), file);
    world_rules = (struct world_rules){ .seed = 1, .connected = connected, .arg = c, .drops_heap = true, .input = in,
                                        .read_max = c->how & 128 ? 1u + step : 0 };
    command_run(&c->command);
    world_files_remove(S("f"));
    world_files_remove(S("/etc"));
}
