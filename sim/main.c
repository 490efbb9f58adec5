/* main - postrider-sim: runs seeds. */
#include "sim/run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void
show(uint64_t seed, const struct run_result *r)
{
    printf("seed %llu: %s; hash %016llx; %.3f s for %.1f virtual s, %llu turns; %llu attempts, %llu accepted, %llu delivered, "
           "%llu duplicates, %llu bounced, %llu deaths\n",
           (unsigned long long)seed, r->failed ? "FAILED" : "ok", (unsigned long long)r->hash, r->seconds,
           (double)r->virtual_ns / (double)SECOND, (unsigned long long)r->turns, (unsigned long long)r->mails,
           (unsigned long long)r->accepted, (unsigned long long)r->delivered, (unsigned long long)r->duplicates,
           (unsigned long long)r->bounced, (unsigned long long)r->deaths);
    if (r->failed)
        printf("    %s\n", r->failure);
}

int
main(int argc, char **argv)
{
    struct run_options options = { 0 };
    struct run_result result;
    uint64_t seed = 1, to = 0;

    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc)
            seed = to = strtoull(argv[++i], NULL, 10);
        else if (strcmp(argv[i], "--seeds") == 0 && i + 1 < argc) {
            char *end;
            seed = strtoull(argv[++i], &end, 10);
            to = strtoull(end + strspn(end, "."), NULL, 10);
        } else if (strcmp(argv[i], "--trace") == 0)
            options.sim.trace = options.sim.logs = true;
        else if (strcmp(argv[i], "--logs") == 0)
            options.sim.logs = true;
        else if (strcmp(argv[i], "--calm") == 0)
            options.calm = true;
    }
    int failed = 0;
    for (; seed <= to; seed++) {
        run_seed(seed, &options, &result);
        show(seed, &result);
        failed += result.failed;
    }
    return failed ? 1 : 0;
}
