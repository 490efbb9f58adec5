/* spool - "postrider spool verify|dump DIRECTORY": reads a spool without changing it, and says what is in it. */
#include "cli/cli.h"

#include "spool/verify.h"

#include <stddef.h>

struct settings {
    bool json;
};
static const struct option options[] = {
    { "--json", NULL, OPTION_FLAG, offsetof(struct settings, json), "a JSON object a line" },
    { 0 },
};

static void
print_line(void *arg, struct str line)
{
    (void)arg;
    terminal_write(TERMINAL_OUT, line);
    terminal_write(TERMINAL_OUT, S("\n"));
}

static int
verify(struct rt *rt, struct str path, bool dump, bool json, struct arena *arena)
{
    struct spool_verify how = { .dump = dump, .json = json, .line = print_line };
    struct spool_verified found = { 0 };
    struct dir *dir;

    struct err e = dir_open(rt, path, LANE_BACKGROUND, FOREVER, &dir);
    if (err_is(e))
        return cli_fail(&verb_spool, EXIT_NO_INPUT, "%.*s: %.*s", STR_ARG(path), STR_ARG(cli_error(e, arena)));
    e = spool_verify(rt, dir, &how, FOREVER, &found);
    dir_close(dir);
    if (e.kind == ERR_READ_ONLY)
        return cli_fail(&verb_spool, EXIT_DATA, "%.*s: written by a newer version", STR_ARG(path));
    if (err_is(e))
        return cli_fail(&verb_spool, EXIT_IO, "%.*s: %.*s", STR_ARG(path), STR_ARG(cli_error(e, arena)));
    return found.problems ? EXIT_FALSE : EXIT_WELL;
}

static int
run(struct rt *rt, int argc, char **argv)
{
    struct settings set = { false };
    struct words operands = { 0 };
    struct arena arena;
    int exit;

    arena_init(&arena, rt_mem(rt), 4096, SIZE_MAX / 2); /* bounded by the command line */
    if (!cli_parse(&verb_spool, argc, argv, &arena, &set, &operands, &exit))
        return exit;
    struct str word = operands.count ? operands.word[0] : S("");
    bool dump = str_eq(word, S("dump"));
    if (operands.count != 2 || (!dump && !str_eq(word, S("verify"))))
        exit = cli_fail(&verb_spool, EXIT_USAGE, "say \"verify DIRECTORY\" or \"dump DIRECTORY\" (try --help)");
    else
        exit = verify(rt, operands.word[1], dump, set.json, &arena);
    arena_done(&arena);
    return exit;
}

const struct verb verb_spool = {
    "spool", "Read a spool without changing it: verify or dump it", "verify|dump DIRECTORY",
    "  verify   reports each segment and everything that is wrong; exit code 1 if anything is\n"
    "  dump     each record, message and recipient too\n\n"
    "Works beside a running server: a batch that is being written may then show as a remark.\n\n"
    "Example: postrider spool verify /var/lib/postrider/spool\n",
    options, run,
};
