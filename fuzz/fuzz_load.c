/*
 * fuzz_load - `postrider load`: its options, and servers that say anything.
 *
 * Aims at: cli/load.c smtp/client.c
 * Seeds:   smtp/client_test.c deliver/smtp_test.c
 * Longest: 3000
 * Test:    600 runs
 * Choices: 2 bytes in front
 *
 * The input is options, words with spaces between, a byte 0xff, and what the server of each connection says. It ends, with a
 * known code, whatever they do.
 */
#include "fuzz.h"

#include "command.h"
#include "hostile.h"
#include "world.h"

enum { CONNECTIONS = 30, HEARD_MAX = 4096 };

struct loading {
    struct command command;
    struct str scripts;
    uint8_t how, step;
    struct hostile connection[CONNECTIONS];
    size_t connections;
};

static struct err
connected(void *arg, struct rt *rt, const struct address *to, struct stream *far_end)
{
    struct loading *l = arg;

    (void)to;
    if (l->connections == CONNECTIONS || l->scripts.len == 0)
        return ERR(ERR_REFUSED, "connect");
    struct hostile *h = &l->connection[l->connections++];
    *h = (struct hostile){ .rt = rt, .stream = far_end, .script = fuzz_field(&l->scripts), .pace = l->how & 3,
                           .end = (l->how >> 2) % 3, .step = 1u + l->step };
    fiber_start(rt, "hostile", hostile_run, h);
    return OK;
}

void
fuzz_one(struct str input, struct arena *arena)
{
    struct loading *l = arena_new(arena, struct loading);
    struct str rest = input;

    l->how = fuzz_choice(&rest);
    l->step = fuzz_choice(&rest);
    l->command = (struct command){ .verb = &verb_load };
    command_add(&l->command, S("--quiet --messages 3 --sessions 2 --size 2k --timeout 5"), arena);
    struct str options = fuzz_field(&rest);
    if (l->how & 128) { /* else they would only be tried out against each other */
        command_add(&l->command, options, arena);
        command_add(&l->command, S("--messages 3 --sessions 2 --size 2k --timeout 5 --rcpt 2 --seconds 60"), arena);
    }
    l->scripts = rest;
    world_rules = (struct world_rules){ .seed = 1, .connected = connected, .arg = l, .drops_heap = true };
    command_run(&l->command);
}
