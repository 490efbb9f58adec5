/*
 * main - postrider-sim: replays one seed, runs many on all cores, shrinks what fails.
 *
 * Workers are processes of this machine, each with a share of the seeds; each tells its results by a pipe, one struct a
 * seed, so that a worker that crashes names the seed it died on.
 */
#include "sim/damage.h"
#include "sim/nth.h"
#include "sim/scenario.h"

#include <errno.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <sys/wait.h>
#include <unistd.h>

enum { WORKERS_MAX = 64, FAILURES_SHOWN = 10 };

struct told { /* by a worker */
    uint64_t seed;
    struct run_result result;
};

struct totals {
    uint64_t seeds, failed, mails, accepted, delivered, duplicates, bounced, converted, deaths, faults, turns;
    struct run_counts counts;
    uint64_t injected[FAULT_KINDS];
    double virtual_s;
    struct told failures[FAILURES_SHOWN];
    size_t failure_count;
};

static const char help[] =
    "usage: postrider-sim [--seed N [--trace | --logs] [--no-shrink] | --seeds A..B | --minutes M | --nth [POINT]]\n"
    "\n"
    "  --seed N          one run; a failing one is shrunk: faults and clients are left out while it still fails\n"
    "  --seeds A..B      that many runs, on all cores\n"
    "  --minutes M       as many as go, from --from N (1) on\n"
    "  --trace           everything that happens; --logs: the daemon's log lines alone\n"
    "  --faults-off HEX  leave out the faults whose bits are set; --clients-off HEX: clients; --calm: all faults\n"
    "  --twice           run each seed twice and compare\n"
    "  --workers N       processes; otherwise one for each core\n"
    "  --report FILE     the totals as a table, for RELIABILITY.md\n"
    "\n"
    "  --nth             each call of the whole daemon fails, with each error that it can give (sim/nth.h); --every K: of K\n"
    "                    of these points one; --only WORKLOAD\n"
    "  --nth POINT       this one, WORKLOAD:ROLE:CALL:N:ERROR:HOW (once, lasts, power), with --trace or --logs\n"
    "  --nth --pairs N   two points in one run, N times, drawn from --from SEED; one alone: --nth POINT+POINT\n"
    "  --nth-list        how many calls there are\n"
    "\n"
    "  --damage          beside --seed or --seeds: bytes of the spool are damaged while mail waits (sim/damage.h)\n"
    "  --scenario FILE... stories of one failure each, told in sim/scenarios; the language: sim/scenario.h\n";

struct command {
    uint64_t from, to;
    bool many, shrink, twice, nth;
    struct nth_options nth_options;
    const char *const *scenarios;
    size_t scenario_count;
    int64_t minutes;
    long workers;
    const char *report;
    struct run_options options;
};

/* ---- one ---------------------------------------------------------------------------------------------------------- */

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

static bool
still_fails(uint64_t seed, const struct run_options *options)
{
    struct run_result r;

    run_seed(seed, options, &r);
    return r.failed;
}

/* Leaves out one thing after the other for as long as it fails without. */
static void
shrink(uint64_t seed, struct run_options *options, const struct run_result *first)
{
    struct run_options quiet = *options;

    quiet.sim = (struct sim_options){ false, false };
    for (size_t i = 0; i < first->fault_count; i++) {
        quiet.faults_off |= UINT64_C(1) << i;
        if (!still_fails(seed, &quiet))
            quiet.faults_off &= ~(UINT64_C(1) << i);
    }
    for (size_t i = 0; i < first->client_count; i++) {
        quiet.clients_off |= UINT64_C(1) << i;
        if (!still_fails(seed, &quiet))
            quiet.clients_off &= ~(UINT64_C(1) << i);
    }
    options->faults_off = quiet.faults_off;
    options->clients_off = quiet.clients_off;
    printf("    smallest: postrider-sim --seed %llu --faults-off %llx --clients-off %llx --trace\n", (unsigned long long)seed,
           (unsigned long long)quiet.faults_off, (unsigned long long)quiet.clients_off);
}

static int
run_one(struct command *c)
{
    struct run_result r;

    run_seed(c->from, &c->options, &r);
    show(c->from, &r);
    if (r.failed && c->shrink)
        shrink(c->from, &c->options, &r);
    return r.failed;
}

/* ---- many --------------------------------------------------------------------------------------------------------- */

static void
work(const struct command *c, uint64_t first, uint64_t step, int fd)
{
    double end = seconds_now() + (double)c->minutes * 60;

    for (uint64_t seed = first; c->minutes ? seconds_now() < end : seed <= c->to; seed += step) {
        struct told told = { .seed = seed };
        uint64_t begin[2] = { seed, 0 };
        if (write(fd, begin, sizeof begin) != (ssize_t)sizeof begin)
            _exit(2);
        run_seed(seed, &c->options, &told.result);
        if (c->twice && !told.result.failed) {
            struct run_result again;
            run_seed(seed, &c->options, &again);
            if (again.hash != told.result.hash) {
                told.result.failed = true;
                (void)snprintf(told.result.failure, sizeof told.result.failure, "two runs of this seed differ");
            }
        }
        if (write(fd, &told, sizeof told) != (ssize_t)sizeof told)
            _exit(2);
    }
    _exit(0);
}

static void
add(struct totals *t, const struct told *told)
{
    const struct run_result *r = &told->result;

    t->seeds++;
    t->failed += r->failed;
    t->mails += r->mails;
    t->accepted += r->accepted;
    t->delivered += r->delivered;
    t->duplicates += r->duplicates;
    t->bounced += r->bounced;
    t->converted += r->converted;
    t->counts.logins += r->counts.logins;
    t->counts.logins_refused += r->counts.logins_refused;
    t->counts.recoveries += r->counts.recoveries;
    t->deaths += r->deaths;
    t->turns += r->turns;
    t->virtual_s += (double)r->virtual_ns / (double)SECOND;
    for (int i = 0; i < FAULT_KINDS; i++) {
        t->injected[i] += r->injected[i];
        t->faults += r->injected[i];
    }
    if (!r->failed)
        return;
    show(told->seed, r);
    if (t->failure_count < FAILURES_SHOWN)
        t->failures[t->failure_count++] = *told;
}

static bool
read_all(int fd, void *memory, size_t len)
{
    for (size_t done = 0; done < len;) {
        ssize_t n = read(fd, (char *)memory + done, len - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        done += (size_t)n;
    }
    return true;
}

struct worker {
    pid_t pid;
    int fd;
    uint64_t seed; /* that it runs */
};

/* A worker's end of the pipe is read to its end before the next one's: they run meanwhile, and what they write is small. */
static void
gather(struct worker *w, size_t count, struct totals *t)
{
    for (size_t left = count; left > 0;) {
        fd_set set;
        int top = 0;
        FD_ZERO(&set);
        for (size_t i = 0; i < count; i++)
            if (w[i].fd >= 0) {
                FD_SET(w[i].fd, &set);
                top = w[i].fd > top ? w[i].fd : top;
            }
        if (select(top + 1, &set, NULL, NULL, NULL) < 0)
            continue;
        for (size_t i = 0; i < count; i++) {
            struct told told;
            uint64_t begin[2];
            if (w[i].fd < 0 || !FD_ISSET(w[i].fd, &set))
                continue;
            if (read_all(w[i].fd, begin, sizeof begin) && (w[i].seed = begin[0], read_all(w[i].fd, &told, sizeof told))) {
                w[i].seed = 0;
                add(t, &told);
                continue;
            }
            int status = 0;
            waitpid(w[i].pid, &status, 0);
            if (w[i].seed) {
                told = (struct told){ .seed = w[i].seed, .result = { .failed = true } };
                (void)snprintf(told.result.failure, sizeof told.result.failure, "the simulator crashed, status %d", status);
                add(t, &told);
            }
            close(w[i].fd);
            w[i].fd = -1;
            left--;
        }
        fflush(stdout);
    }
}

static void
put_totals(FILE *out, const struct totals *t, double took, bool as_table)
{
    const char *line = as_table ? "| %s | %s |\n" : "%-24s %s\n";
    char value[64];
    const struct {
        const char *name;
        uint64_t value;
    } figures[] = {
        { "schedules", t->seeds }, { "failed", t->failed }, { "messages handed in", t->mails }, { "accepted", t->accepted },
        { "recipients delivered", t->delivered }, { "duplicates", t->duplicates }, { "bounced", t->bounced },
        { "converted", t->converted }, { "logins", t->counts.logins }, { "logins refused", t->counts.logins_refused },
        { "end states compared", t->counts.recoveries },
        { "faults", t->faults }, { "process deaths", t->deaths },
    };

    for (size_t i = 0; i < sizeof figures / sizeof *figures; i++) {
        (void)snprintf(value, sizeof value, "%llu", (unsigned long long)figures[i].value);
        fprintf(out, line, figures[i].name, value);
    }
    for (int i = 0; i < FAULT_KINDS; i++) {
        char name[64];
        (void)snprintf(name, sizeof name, "  %s", fault_name((enum fault_kind)i));
        (void)snprintf(value, sizeof value, "%llu", (unsigned long long)t->injected[i]);
        fprintf(out, line, name, value);
    }
    (void)snprintf(value, sizeof value, "%.1f days", t->virtual_s / 86400);
    fprintf(out, line, "virtual time", value);
    (void)snprintf(value, sizeof value, "%.0f s", took);
    fprintf(out, line, "real time", value);
    (void)snprintf(value, sizeof value, "%.1f", (double)t->seeds / took);
    fprintf(out, line, "schedules a second", value);
    (void)snprintf(value, sizeof value, "%.1f messages, %.1f faults", (double)t->mails / (double)t->seeds,
                   (double)t->faults / (double)t->seeds);
    fprintf(out, line, "each on average", value);
}

static int
run_many(struct command *c)
{
    struct worker workers[WORKERS_MAX];
    struct totals *t = calloc(1, sizeof *t);
    size_t count = c->workers > 0 && c->workers <= WORKERS_MAX ? (size_t)c->workers : 1;
    double began = seconds_now();

    for (size_t i = 0; i < count; i++) {
        int fds[2];
        if (!t || pipe(fds) != 0)
            return 2;
        fflush(stdout);
        pid_t pid = fork();
        if (pid < 0)
            return 2;
        if (pid == 0) {
            close(fds[0]);
            work(c, c->from + i, count, fds[1]);
        }
        close(fds[1]);
        workers[i] = (struct worker){ pid, fds[0], 0 };
    }
    gather(workers, count, t);
    double took = seconds_now() - began;
    put_totals(stdout, t, took, false);
    FILE *report = c->report ? fopen(c->report, "w") : NULL;
    if (report) {
        fprintf(report, "| what | how many |\n|---|---|\n");
        put_totals(report, t, took, true);
        fclose(report);
    }
    if (t->failure_count) {
        const struct told *first = &t->failures[0];
        for (size_t i = 1; i < t->failure_count; i++)
            first = t->failures[i].seed < first->seed ? &t->failures[i] : first;
        struct run_options options = c->options;
        if (first->result.fault_count)
            shrink(first->seed, &options, &first->result);
    }
    int failed = t->failed > 0;
    free(t);
    return failed;
}

/* ---- the command --------------------------------------------------------------------------------------------------- */

int
main(int argc, char **argv)
{
    struct command c = { .from = 1, .to = 1, .shrink = true, .workers = sysconf(_SC_NPROCESSORS_ONLN) };
    char *end;

    (void)mallopt(M_MMAP_THRESHOLD, 1 << 30); /* no page faults anew for each large block, and nothing given back */
    (void)mallopt(M_TRIM_THRESHOLD, 1 << 30);
    for (int i = 1; i < argc; i++) {
        const char *word = argv[i], *value = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(word, "--seed") == 0) {
            c.from = c.to = strtoull(value, NULL, 10);
            i++;
        } else if (strcmp(word, "--seeds") == 0) {
            c.from = strtoull(value, &end, 10);
            c.to = strtoull(end + strspn(end, "."), NULL, 10);
            c.many = true;
            i++;
        } else if (strcmp(word, "--minutes") == 0) {
            c.minutes = strtoll(value, NULL, 10);
            c.many = true;
            i++;
        } else if (strcmp(word, "--from") == 0) {
            c.from = strtoull(value, NULL, 10);
            i++;
        } else if (strcmp(word, "--workers") == 0) {
            c.workers = strtol(value, NULL, 10);
            i++;
        } else if (strcmp(word, "--faults-off") == 0) {
            c.options.faults_off = strtoull(value, NULL, 16);
            i++;
        } else if (strcmp(word, "--clients-off") == 0) {
            c.options.clients_off = strtoull(value, NULL, 16);
            i++;
        } else if (strcmp(word, "--report") == 0) {
            c.report = value;
            i++;
        } else if (strcmp(word, "--nth") == 0 || strcmp(word, "--nth-list") == 0) {
            c.nth = true;
            c.nth_options.list = word[5] != '\0';
            if (value[0] && value[0] != '-')
                c.nth_options.point = argv[++i];
        } else if (strcmp(word, "--every") == 0) {
            c.nth_options.every = strtoull(value, NULL, 10);
            i++;
        } else if (strcmp(word, "--pairs") == 0) {
            c.nth_options.pairs = strtoull(value, NULL, 10);
            i++;
        } else if (strcmp(word, "--only") == 0) {
            c.nth_options.only = value;
            i++;
        } else if (strcmp(word, "--damage") == 0) {
            c.options.script = &damage_script;
        } else if (strcmp(word, "--scenario") == 0) {
            c.scenarios = (const char *const *)argv + i + 1;
            while (i + 1 < argc && argv[i + 1][0] != '-') {
                c.scenario_count++;
                i++;
            }
        } else if (strcmp(word, "--trace") == 0) {
            c.options.sim = (struct sim_options){ true, true };
        } else if (strcmp(word, "--logs") == 0) {
            c.options.sim.logs = true;
        } else if (strcmp(word, "--calm") == 0) {
            c.options.calm = true;
        } else if (strcmp(word, "--twice") == 0) {
            c.twice = true;
        } else if (strcmp(word, "--no-shrink") == 0) {
            c.shrink = false;
        } else {
            fputs(help, strcmp(word, "--help") == 0 ? stdout : stderr);
            return strcmp(word, "--help") == 0 ? 0 : 64;
        }
    }
    c.nth_options.workers = c.workers;
    c.nth_options.report = c.report;
    c.nth_options.from = c.from;
    c.nth_options.sim = c.options.sim;
    int failed = c.scenarios ? scenario_main(c.scenarios, c.scenario_count, c.options.sim) :
                 c.nth ? nth_main(&c.nth_options) : c.many ? run_many(&c) : run_one(&c);
    sim_forget_processes();
    return failed;
}
