/* command - see command.h. */
#include "command.h"

#include "fuzz.h"
#include "world.h"

void
command_add(struct command *c, struct str line, struct arena *arena)
{
    if (c->argc == 0)
        c->argv[c->argc++] = arena_cstr(arena, str_from_cstr(c->verb->name));
    while (line.len > 0 && c->argc < COMMAND_WORDS) {
        struct str word = str_cut(&line, ' ');
        word = str_slice(word, 0, str_find_byte(word, '\0'));
        if (word.len > 0)
            c->argv[c->argc++] = arena_cstr(arena, word);
    }
}

static void
run(struct rt *rt, void *arg)
{
    struct command *c = arg;
    struct scope beside;

    c->rt = rt;
    scope_init(&beside, rt);
    if (c->beside)
        scope_start(&beside, "beside", c->beside, c->arg);
    c->exit = c->verb->run(rt, c->argc, c->argv);
    scope_end(&beside);
}

void
command_run(struct command *c)
{
    world_run(run, c);
    CHECK(c->exit == EXIT_WELL || c->exit == EXIT_FALSE || (c->exit >= EXIT_USAGE && c->exit <= EXIT_CONFIG));
}
