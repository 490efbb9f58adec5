/*
 * nth - a fault at the nth call, for all n: small fixed workloads of the whole daemon, each first run as it should be, so
 * that every call of the seam of every role is counted; then once more for each call and each error that it can give.
 *
 * A *point* is one such run: workload, role, kind of call, n, error, and how: the error comes *once*; or it *lasts*: then
 * it comes again at each later call that can give it, of this role or, where the error is one of the machine (a full
 * disk), of all roles; or it comes once to the disk and soon after it the *power* fails. An allocation that fails ends its
 * process, by design (base/mem.h). Two more befall any call: SIGKILL ends the process there, POWER the whole machine.
 *
 * A *pair* is two points of one workload in one run, drawn at random: what fails while the first failure is still being met.
 *
 *     0 s        the daemon starts
 *     10 s       calls count from here (a workload of the start: from 0 s)
 *     ...        the workload: clients, operator
 *     60 s       nothing fails any more; probes are handed in: mail flows again by every way
 *     ...        all checks of a seed's run (run.h); besides, each role holds as many fibers and handles as if nothing
 *                had failed
 */
#ifndef SIM_NTH_H
#define SIM_NTH_H

#include "sim/run.h"

enum { WORKLOAD_CLIENTS = 3, WORKLOAD_LETTERS = 3 };

/* What befalls the daemon in the midst of it. */
enum workload_event { NOTHING_MORE, RELOADED, RECONFIGURED, RESTARTED };

struct workload {
    const char *name;
    bool from_start;
    struct {
        struct script_letter letters[WORKLOAD_LETTERS];
        size_t count;
        bool local;              /* by the submission socket */
        bool logs_in;            /* as the first user */
        int64_t starts;
    } clients[WORKLOAD_CLIENTS];
    uint8_t then;                /* enum workload_event */
    bool operated;               /* somebody holds, releases and removes (workloads.c) */
};

#define WORKLOAD_OPENS (10 * SECOND) /* the daemon has long been ready */

extern const struct workload workloads[];
extern const size_t workload_count;

/* The plan of a run, and who works besides clients and servers. */
void workload_plan(struct run *, const struct workload *);
void workload_begin(struct run *);
/* Clients that come when all is well again, and an operator who releases what is held. */
void workload_probe(struct run *);

struct nth_options {
    const char *point;           /* "maildir:store:sync:3:EIO:once", or two with a "+": this alone; NULL: all */
    const char *only;            /* this workload alone; NULL: all */
    uint64_t every;              /* of so many points one */
    uint64_t pairs, from;        /* so many pairs in place of all points, drawn from that seed; 0: none */
    bool list;                   /* tells how many calls there are, and does no more */
    long workers;
    const char *report;          /* a file for the totals as a table, or NULL */
    struct sim_options sim;
};
/* The exit code. */
int nth_main(const struct nth_options *);

#endif
