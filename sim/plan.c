/* plan - what a seed draws before anything runs: the site, the peers, the faults. */
#include "sim/run.h"

#include "base/check.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static uint64_t
below(struct run *run, uint64_t bound)
{
    return prng_below(&run->draws, bound);
}

static int64_t
between(struct run *run, int64_t least, int64_t most)
{
    return least + (int64_t)below(run, (uint64_t)(most - least + 1));
}

/* Mostly usual, now and then extreme: rare paths are taken on purpose. */
static uint64_t
one_of(struct run *run, const uint64_t *values, size_t count)
{
    return values[below(run, count)];
}
#define ONE_OF(run, ...)                                                                                               \
    one_of((run), (const uint64_t[]){ __VA_ARGS__ }, sizeof((uint64_t[]){ __VA_ARGS__ }) / sizeof(uint64_t))

/* ---- the site ---------------------------------------------------------------------------------------------------- */

static void
write_config(struct run *run, struct text *t)
{
    unsigned step = (unsigned)ONE_OF(run, 5, 10, 30, 60), more = (unsigned)ONE_OF(run, 60, 120, 300);

    run->plan.first_wait = step * SECOND;
    text_putf(t, "hostname mx.sim.test\nstate %s\nlisten mx { address 192.0.2.1:25; relay from 198.51.100.0/24\n"
                  "    connections %u per-client }\n", STATE_DIR, (unsigned)ONE_OF(run, 2, 20));
    text_putf(t, "domain local.test { mailbox user0 user1 user2; alias postmaster -> user0; alias one -> user2\n"
                  "    alias all -> user0, user1, ok-0-9@good.test\n    deliver maildir /var/mail/{domain}/{local} }\n");
    text_putf(t, "domain lmtp.test { mailbox m0 m1 no; alias postmaster -> m0; deliver lmtp://192.0.2.50:24 }\n");
    text_putf(t, "domain box.test { mailbox b0 b1 no; alias postmaster -> b0; deliver lmtp:/run/box.sock }\n");
    text_putf(t, "route smart.test { via smtp://192.0.2.60:25; tls off }\n");
    text_putf(t, "route default { direct; tls off; connections %u }\n", (unsigned)ONE_OF(run, 1, 2, 20));
    text_putf(t, "retry %us %us %us for %us { delay-notice %us }\n", step, step * 2, more,
              (unsigned)(run->plan.lifetime / SECOND),
              (unsigned)ONE_OF(run, 20, 60, (uint64_t)(run->plan.lifetime / SECOND) / 4));
}

static void
draw_world(struct run *run)
{
    struct sim *sim = run->sim;
    int64_t slow = (int64_t)ONE_OF(run, 1, 1, 1, 4, 20);

    sim->net = (struct sim_net){
        .delay_min = 200000, .delay_max = slow * (int64_t)ONE_OF(run, 1, 10, 50) * MILLISECOND,
        .loss = (uint32_t)ONE_OF(run, 0, 0, 5, 50), .window = (uint32_t)ONE_OF(run, 1000, 4000, 65536),
        .unix_window = (uint32_t)ONE_OF(run, 4096, 20000, 212992), .piece_max = (uint32_t)ONE_OF(run, 0, 0, 1460, 500, 50),
    };
    sim->disk_speed = (struct sim_disk_speed){ 10000, slow * (int64_t)ONE_OF(run, 100, 1000, 10000) * 1000, 0 };
    sim->dns_fails = (uint32_t)ONE_OF(run, 0, 0, 30);
    sim->disk_capacity = ONE_OF(run, 16, 64) << 20;
    disk_set_capacity(sim->disk, sim->disk_capacity);
    run->plan.segment_bytes = ONE_OF(run, 64, 64, 64, 128, 256, 512) << 10;
    run->plan.hostility = (uint32_t)ONE_OF(run, 0, 100, 250, 500);
    run->plan.never = below(run, 4) == 0;
    run->plan.big = (uint32_t)ONE_OF(run, 0, 20, 200);
    run->plan.active = (int64_t)ONE_OF(run, 10, 30, 60, 120, 300) * SECOND;
    run->plan.lifetime = (int64_t)ONE_OF(run, 15, 20, 30) * MINUTE;
}

static void
draw_clients(struct run *run)
{
    size_t count = 2 + below(run, 4);

    for (size_t i = 0; i < count; i++) {
        struct client_plan *c = &run->plan.clients[i];
        c->local = below(run, 5) == 0;
        c->trusted = c->local || below(run, 3) > 0;
        (void)snprintf(c->name, sizeof c->name, "client%zu", i);
        (void)snprintf(c->ip, sizeof c->ip, "%s.%zu", c->trusted ? "198.51.100" : "203.0.113", 100 + i);
        c->mails = (uint32_t)between(run, 3, 10);
        c->messages_each = (uint32_t)between(run, 1, 5);
        run->plan.client_count++;
    }
}

static void
draw_dns(struct run *run)
{
    struct sim *sim = run->sim;

    sim_dns_add_mx(sim, "good.test", 10, "mx1.good.test");
    sim_dns_add_mx(sim, "good.test", 20, "mx2.good.test");
    sim_dns_add_address(sim, "mx1.good.test", "203.0.113.10");
    sim_dns_add_address(sim, "mx2.good.test", "203.0.113.11");
    sim_dns_add_mx(sim, "back.test", 10, "mx1.good.test");
    sim_dns_add_mx(sim, "other.test", 10, "mx1.good.test");
    sim_dns_add_mx(sim, "backup.test", 10, "gone.good.test");
    sim_dns_add_mx(sim, "backup.test", 20, "mx2.good.test");
    sim_dns_add_address(sim, "gone.good.test", "203.0.113.99");
}

void
plan_draw(struct run *run)
{
    struct text config = text_init(run->plan.config, sizeof run->plan.config - 1);

    prng_seed(&run->draws, run->sim->seed * 2);
    draw_world(run);
    write_config(run, &config);
    draw_clients(run);
    draw_dns(run);
    users_draw(run, &config);
    CHECK(!config.full);
}

void
plan_targets(struct mail *m, struct str address, bool silent)
{
    static const struct {
        struct str alias;
        struct str to[3];
    } aliases[] = {
        { STR("one@local.test"), { STR("user2@local.test") } },
        { STR("all@local.test"), { STR("user0@local.test"), STR("user1@local.test"), STR("ok-0-9@good.test") } },
    };

    for (size_t i = 0; i < sizeof aliases / sizeof *aliases; i++) {
        if (!str_eq(aliases[i].alias, address))
            continue;
        for (size_t k = 0; k < 3 && aliases[i].to[k].len; k++)
            ledger_add_target(m, aliases[i].to[k])->silent |= silent;
        return;
    }
    ledger_add_target(m, address)->silent |= silent;
}

/* ---- faults ------------------------------------------------------------------------------------------------------ */

static void
draw_fault(struct run *run, struct fault *f)
{
    static const char *const roles[] = { "", "store", "store", "sender", "mailbox", "receiver", "submission", "gate",
                                         "resolver", "checker", "console", "keys", "fetch",
                                         "supervisor" };
    static const uint8_t kinds[] = {
        FAULT_KILL_ROLE, FAULT_KILL_ROLE, FAULT_KILL_ROLE, FAULT_KILL_ROLE, FAULT_KILL_ALL, FAULT_KILL_ALL, FAULT_POWER_LOSS,
        FAULT_POWER_LOSS, FAULT_POWER_LOSS, FAULT_DISK_ERROR, FAULT_DISK_ERROR, FAULT_DISK_FULL, FAULT_DISK_STALL,
        FAULT_CLOCK_JUMP, FAULT_DNS_OUTAGE, FAULT_PARTITION, FAULT_RESET, FAULT_RESET, FAULT_HALF_OPEN, FAULT_NO_FILES,
        FAULT_RELOAD, FAULT_RESTART, FAULT_CRASHES,
    };
    int64_t minute = MINUTE;

    *f = (struct fault){ .kind = kinds[below(run, sizeof kinds)], .which = (uint32_t)below(run, 1 << 20) };
    f->at = (int64_t)below(run, (uint64_t)run->plan.active) + SECOND;
    switch ((enum fault_kind)f->kind) {
    case FAULT_KILL_ROLE:
        (void)snprintf(f->role, sizeof f->role, "%s", roles[below(run, sizeof roles / sizeof *roles)]);
        f->by_step = below(run, 4) > 0;
        break;
    case FAULT_KILL_ALL:
    case FAULT_POWER_LOSS:
        f->by_step = below(run, 4) > 0;
        if (f->by_step)
            (void)snprintf(f->role, sizeof f->role, "%s", roles[below(run, sizeof roles / sizeof *roles)]);
        f->lasts = between(run, SECOND, minute);
        break;
    case FAULT_CRASHES:
        (void)snprintf(f->role, sizeof f->role, "%s", below(run, 4) ? "store" : roles[below(run, sizeof roles / sizeof *roles)]);
        f->by_step = true;
        f->again = (uint32_t)between(run, 3, 40);
        break;
    case FAULT_DISK_ERROR:
        f->error = (int)ONE_OF(run, EIO, EIO, ENOSPC, EROFS, ENOMEM);
        f->which = (uint32_t)ONE_OF(run, CALL_WRITE, CALL_SYNC, CALL_SYNC | CALL_WRITE, CALL_OPEN, CALL_DIR, CALL_SYNC_DIR,
                                    CALL_READ, 63);
        f->lasts = below(run, 2) ? between(run, SECOND, minute) : 0;
        break;
    case FAULT_DISK_FULL:
        f->amount = (int64_t)below(run, 300 << 10);
        f->lasts = between(run, SECOND, 3 * minute);
        break;
    case FAULT_CLOCK_JUMP:
        f->amount = (below(run, 2) ? 1 : -1) * (int64_t)ONE_OF(run, (uint64_t)SECOND, (uint64_t)HOUR, (uint64_t)(10 * 365 * DAY));
        break;
    case FAULT_DISK_STALL:
    case FAULT_DNS_OUTAGE:
    case FAULT_PARTITION:
    case FAULT_NO_FILES:
    case FAULT_RESTART:
        f->lasts = between(run, SECOND, below(run, 4) ? minute : 5 * minute);
        break;
    default:
        break;
    }
    f->step = 1 + below(run, ONE_OF(run, 10, 100, 1000, 5000));
}

void
plan_faults(struct run *run)
{
    struct faults *all = &run->sim->faults;

    all->count = 2 + below(run, 6);
    for (size_t i = 0; i < all->count; i++) {
        draw_fault(run, &all->list[i]);
        if (i > 0 && below(run, 4) == 0) /* what comes while the one before lasts finds other paths */
            all->list[i].at = all->list[i - 1].at + between(run, 0, 3 * SECOND);
    }
    if (run->has_users)
        users_add_faults(run);
}
