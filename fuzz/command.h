/* command - a verb of the command line, run with the words of an input as its arguments. */
#ifndef FUZZ_COMMAND_H
#define FUZZ_COMMAND_H

#include "cli/cli.h"

enum { COMMAND_WORDS = 64 };
struct command {
    const struct verb *verb;
    char *argv[COMMAND_WORDS + 2];
    int argc;
    void (*beside)(void *arg); /* a fiber that runs meanwhile; NULL: none */
    void *arg;
    struct rt *rt;
    int exit;
};
/* Adds the words of a line, with spaces between. */
void command_add(struct command *, struct str line, struct arena *);
/* Runs it in a world of world_rules; the exit code is a known one. */
void command_run(struct command *);

#endif
