/* run - "postrider run": the supervisor; and "--role NAME", as which it starts its roles. */
#include "cli/cli.h"

#include "role/role.h"
#include "role/supervisor.h"

#include <stddef.h>

struct settings {
    struct str config;
};

static const struct option options[] = {
    { "--config", "FILE", OPTION_WORD, offsetof(struct settings, config), "the configuration (" CLI_CONFIG ")" },
    { 0 },
};

static int
run(struct rt *rt, int argc, char **argv)
{
    struct settings set = { S(CLI_CONFIG) };
    struct words operands = { 0 };
    struct arena arena;
    int exit;

    arena_init(&arena, rt_mem(rt), 4096, 1 << 20);
    if (!cli_parse(&verb_run, argc, argv, &arena, &set, &operands, &exit))
        return exit;
    if (!cli_no_operands(&verb_run, &operands, &exit))
        return exit;
    exit = supervisor_main(rt, set.config);
    arena_done(&arena);
    return exit;
}

const struct verb verb_run = {
    "run", "Run the mail server in the foreground", "",
    "Stops on SIGTERM or SIGINT, reads its configuration again on SIGHUP. Logs go to standard error: JSON lines, or\n"
    "readable text if that is a terminal.\n\n"
    "Example: postrider run --config ./postrider.conf\n",
    options, run,
};

static const struct role_ops *const roles[] = { &receiver_ops, &submission_ops, &gate_ops,    &store_ops,  &sender_ops,
                                                &mailbox_ops,  &resolver_ops,   &checker_ops, &console_ops,
                                                &keys_ops,     &fetch_ops };

static int
run_role(struct rt *rt, int argc, char **argv)
{
    for (size_t i = 0; i < sizeof roles / sizeof *roles && argc == 2; i++)
        if (str_eq(str_from_cstr(argv[1]), role_kind_name(roles[i]->kind)))
            return role_main(rt, roles[i]);
    return cli_fail(&verb_role, EXIT_USAGE, "only the supervisor starts roles");
}

const struct verb verb_role = { "--role", "Be a role; the supervisor's word", "NAME", NULL, NULL, run_role };
