/*
 * main - postrider-states: see states.h.
 *
 *     postrider-states crash|faults|damage [--deep | --quick] [--jobs N] [--failures N] [--only WORDS]
 *
 * The work is shared by N processes, which take turns; the parent adds up what they counted. Exit code 1: something did
 * not hold; what, and after which acts, stands on standard output. It stops after the first failure of each process, or
 * after the number that is given. --quick: recoveries are not crashed in their turn. --only: of crash and faults, the
 * workloads in whose description these words stand, as "full; acts: hold" does.
 */
#include "sim/states/states.h"

#include "base/check.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { JOBS_MAX = 64 };

bool
bench_turn(struct bench *b)
{
    return b->turn++ % b->parts == b->part;
}

bool
bench_is_wanted(const struct bench *b)
{
    return !b->only || strstr(b->what, b->only);
}

bool
bench_is_over(const struct bench *b)
{
    return b->counts.failures >= b->failures_max;
}

void
bench_fail(struct bench *b, const char *format, ...)
{
    char text[4000];
    va_list args;

    b->counts.failures++;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    printf("FAILED: %s\n  %s\n  %s\n", b->what, b->how, text);
    fflush(stdout);
}

struct kind_of_proof {
    const char *name;
    void (*run)(struct bench *);
    void (*show)(const struct counts *);
};

static void
show_crash(const struct counts *c)
{
    printf("%llu workloads, %llu crash points; %llu states of the disk after them (and %llu that were the same as "
           "another), "
           "%llu of them kills; %llu crashed recoveries\n",
           (unsigned long long)c->workloads, (unsigned long long)c->points, (unsigned long long)c->states,
           (unsigned long long)c->same, (unsigned long long)c->kills, (unsigned long long)c->again);
}

static void
show_faults(const struct counts *c)
{
    printf(
        "%llu workloads, %llu calls of the disk made to fail, %llu allocations; %llu states of the disk after them\n",
        (unsigned long long)c->workloads, (unsigned long long)c->calls, (unsigned long long)c->allocations,
        (unsigned long long)c->states);
}

static void
show_damage(const struct counts *c)
{
    printf("%llu blocks zeroed, %llu bytes with a flipped bit\n", (unsigned long long)c->blocks,
           (unsigned long long)c->bytes);
}

static const struct kind_of_proof kinds[] = {
    { "crash", crash_all, show_crash },
    { "faults", faults_all, show_faults },
    { "damage", damage_all, show_damage },
};

static struct counts
do_part(const struct kind_of_proof *kind, struct bench *b)
{
    b->sim = sim_new(1, (struct sim_options){ false, getenv("STATES_TRACE") != NULL });
    b->sim->options.trace = b->sim->options.logs;
    b->sim->home = host_new(b->sim, "home", "192.0.2.1");
    b->sim->disk_speed = (struct sim_disk_speed){ 20000, 20000, 0 };
    disk_free(b->sim->disk);
    b->sim->disk = NULL;
    bases_make(b);
    kind->run(b);
    return b->counts;
}

static void
add(struct counts *sum, const struct counts *more)
{
    uint64_t *to = (uint64_t *)sum;
    const uint64_t *from = (const uint64_t *)more;

    for (size_t i = 0; i < sizeof *sum / sizeof *to; i++)
        to[i] += from[i];
}

int
main(int argc, char **argv)
{
    const struct kind_of_proof *kind = NULL;
    struct bench bench = { .parts = (uint32_t)sysconf(_SC_NPROCESSORS_ONLN), .failures_max = 1 };
    int pipes[JOBS_MAX], good = 1;

    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--deep") == 0)
            bench.deep = true;
        else if (strcmp(argv[i], "--quick") == 0)
            bench.quick = true;
        else if (strcmp(argv[i], "--jobs") == 0 && i + 1 < argc)
            bench.parts = (uint32_t)strtoul(argv[++i], NULL, 10);
        else if (strcmp(argv[i], "--failures") == 0 && i + 1 < argc)
            bench.failures_max = strtoul(argv[++i], NULL, 10);
        else if (strcmp(argv[i], "--only") == 0 && i + 1 < argc)
            bench.only = argv[++i];
        for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++)
            if (strcmp(argv[i], kinds[k].name) == 0)
                kind = &kinds[k];
    }
    if (!kind || bench.parts == 0 || bench.parts > JOBS_MAX || bench.failures_max == 0) {
        fprintf(stderr, "usage: postrider-states crash|faults|damage [--deep | --quick] [--jobs N] [--failures N] [--only WORDS]\n");
        return 2;
    }
    for (bench.part = 0; bench.part < bench.parts; bench.part++) {
        int ends[2];
        CHECK(pipe(ends) == 0);
        pid_t pid = fork();
        CHECK(pid >= 0);
        if (pid == 0) {
            struct counts counts = do_part(kind, &bench);
            CHECK(write(ends[1], &counts, sizeof counts) == sizeof counts);
            _exit(0);
        }
        close(ends[1]);
        pipes[bench.part] = ends[0];
    }
    struct counts sum = { 0 }, part;
    for (uint32_t i = 0; i < bench.parts; i++) {
        int status;
        bool whole = read(pipes[i], &part, sizeof part) == sizeof part;
        if (whole)
            add(&sum, &part);
        good &= wait(&status) > 0 && whole && status == 0;
    }
    kind->show(&sum);
    if (!good)
        printf("FAILED: a part of the work did not come to its end\n");
    return good && sum.failures == 0 ? 0 : 1;
}
