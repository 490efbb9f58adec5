/*
 * https - net/https.h in the simulator: pages from a table, late, and now and then not at all.
 */
#include "net/https.h"

#include "base/check.h"
#include "sim/sim.h"

#include <string.h>

enum { PAGES_MAX = 8, PAGE_BYTES = 400 };

struct sim_page {
    char host[80], body[PAGE_BYTES];
};
struct sim_web {
    struct sim_page pages[PAGES_MAX];
    size_t count;
};

struct https {
    struct rt *rt;
    bool stop;
};

void
sim_web_put(struct sim *sim, const char *host, const char *body)
{
    struct sim_page *page = NULL;

    if (!sim->web)
        sim->web = mem_new(&sim->mem, struct sim_web);
    for (size_t i = 0; i < sim->web->count && !page; i++)
        if (strcmp(sim->web->pages[i].host, host) == 0)
            page = &sim->web->pages[i];
    if (!page) {
        CHECK(sim->web->count < PAGES_MAX);
        page = &sim->web->pages[sim->web->count++];
    }
    CHECK(strlen(host) < sizeof page->host && strlen(body) < sizeof page->body);
    memcpy(page->host, host, strlen(host) + 1);
    memcpy(page->body, body, strlen(body) + 1);
}

void
sim_web_free(struct sim *sim)
{
    mem_free(&sim->mem, sim->web, sizeof *sim->web);
    sim->web = NULL;
}

struct err
https_open(struct rt *rt, struct str authorities, struct https **out, struct text *out_why)
{
    (void)authorities;
    (void)out_why;
    *out = mem_new(rt_mem(rt), struct https);
    (*out)->rt = rt;
    return OK;
}

void
https_close(struct https *h)
{
    mem_free(rt_mem(h->rt), h, sizeof *h);
}

void
https_stop(struct https *h)
{
    h->stop = true;
}

struct err
https_get(struct https *h, const struct https_request *request, int64_t until, struct arena *arena,
          struct https_answer *out)
{
    struct sim *sim = process_of(h->rt)->sim;
    int64_t wait = dice_between(sim, MILLISECOND, 300 * MILLISECOND);
    const char *body = NULL;

    (void)until;
    process_step(process_of(h->rt));
    if (sim->now < sim->faults.dns_out_until || dice_chance(sim, sim->dns_fails)) /* the network's bad days are the Web's too */
        wait = request->time_max;
    TRY(rt_sleep(h->rt, within(h->rt, wait)));
    for (size_t i = 0; sim->web && i < sim->web->count; i++)
        if (str_eq(str_from_cstr(sim->web->pages[i].host), request->host))
            body = sim->web->pages[i].body;
    if (h->stop || wait == request->time_max)
        *out = (struct https_answer){ .status = HTTPS_UNREACHABLE, .body = S(""), .why = S("it took too long") };
    else if (!body)
        *out = (struct https_answer){ .status = HTTPS_REFUSED, .body = S(""), .why = S("the host answered 404") };
    else
        *out = (struct https_answer){ .status = HTTPS_OK, .body = arena_keep(arena, str_from_cstr(body)), .why = S("") };
    return OK;
}
