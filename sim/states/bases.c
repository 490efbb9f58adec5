/* bases - see states.h: spools with a past, each made once by the spool itself. */
#include "sim/states/states.h"

#include "spool/log/log.h"

static const char *const names[BASE_KINDS] = {
    [BASE_NEW] = "new",
    [BASE_LIVED_IN] = "lived in",
    [BASE_FULL] = "full",
    [BASE_FULL_OF_ENDS] = "full of ends",
};

const char *
base_name(enum base_kind kind)
{
    CHECK((unsigned)kind < BASE_KINDS);
    return names[kind];
}

struct making {
    struct rt *rt;
    struct spool *spool;
    struct view *view;
    uint32_t last_number;
};

static void
do_act(struct making *m, struct act *act)
{
    CHECK(!err_is(script_act(m->rt, m->spool, act)));
    view_apply(m->view, act);
}

static uint32_t
make(struct making *m, enum act_kind kind)
{
    struct act act = { .kind = (uint8_t)kind, .number = ++m->last_number };
    struct model model = model_of(m->view);

    CHECK(act_choose(&model, &act));
    do_act(m, &act);
    return act.number;
}

static void
deliver(struct making *m, uint32_t number)
{
    struct act act = { .kind = ACT_DELIVER, .number = ++m->last_number };

    act_aim(&act, view_find(m->view, number));
    do_act(m, &act);
}

/* The keeper has done what there was to do. */
static void
rest(struct making *m)
{
    (void)rt_sleep(m->rt, within(m->rt, SECOND));
}

static bool
next_record_rolls(const struct spool *sp)
{
    return sp->current && sp->current->used + 2 * BLOCK > segment_room_end(sp, sp->current, 2);
}

static bool
then_it_cleans(const struct spool *sp)
{
    return (sp->segment_count + 1) * (uint64_t)SEGMENT_BYTES > 2 * sp->live_bytes + 3 * SEGMENT_BYTES;
}

static bool
is_recycled(const struct segment *seg, const struct spool *sp)
{
    return seg->sequence >
           sp->next_number; /* files are made with numbers that only grow, and each is used once at first */
}

static void
some_traffic(struct making *m)
{
    deliver(m, make(m, ACT_ACCEPT));
}

/* Until the current segment was another one before, and there is room in it. */
static void
live_in(struct making *m)
{
    struct spool *sp = m->spool;

    do {
        uint32_t large = make(m, ACT_ACCEPT_CHUNKS);
        some_traffic(m);
        deliver(m, large);
        rest(m);
        CHECK(m->last_number < 10000);
    } while (!is_recycled(sp->current, sp) || sp->current->used > SEGMENT_BYTES / 4);
    (void)make(m, ACT_ACCEPT_TWO);
    (void)make(m, ACT_DEFER);
    (void)make(m, ACT_ACCEPT_CHUNKS);
    (void)make(m, ACT_ACCEPT);
}

static void
fill(struct making *m)
{
    struct spool *sp = m->spool;

    (void)make(m, ACT_ACCEPT_TWO);
    (void)make(m, ACT_DEFER);
    (void)make(m, ACT_ACCEPT_CHUNKS);
    do {
        some_traffic(m);
        rest(m);
        CHECK(m->last_number < 10000);
    } while (!next_record_rolls(sp) || !then_it_cleans(sp) || sp->own_segments[0]->live_bytes == 0 ||
             !is_recycled(sp->current, sp));
}

struct large { /* they share batches, so that they fill a segment */
    struct making *m;
    struct act act;
};

static void
accept_large(void *arg)
{
    struct large *l = arg;

    CHECK(!err_is(script_act(l->m->rt, l->m->spool, &l->act)));
}

/* Most of the oldest segment lives, so it stays; in those after it are the ends of messages that began there. */
static void
fill_with_ends(struct making *m)
{
    struct spool *sp = m->spool;
    struct large large[4];
    uint32_t begun[3];
    struct scope scope;

    scope_init(&scope, m->rt);
    for (size_t i = 0; i < 4; i++) {
        large[i] = (struct large){ m, { .kind = ACT_ACCEPT_CHUNKS, .number = ++m->last_number } };
        scope_start(&scope, "accept", accept_large, &large[i]);
    }
    CHECK(!err_is(scope_wait(&scope, FOREVER)));
    scope_end(&scope);
    for (size_t i = 0; i < 4; i++)
        view_apply(m->view, &large[i].act);
    for (size_t i = 0; i < 3; i++)
        begun[i] = make(m, ACT_ACCEPT);
    for (size_t i = 0; !next_record_rolls(sp) || !then_it_cleans(sp);) {
        if (i < 3 && sp->segment_count == i + 2)
            deliver(m, begun[i++]);
        some_traffic(m);
        rest(m);
        CHECK(m->last_number < 10000);
    }
    CHECK(sp->own_segments[0]->live_bytes > SEGMENT_BYTES / 2);
}

struct base_script {
    struct script script; /* first */
    enum base_kind kind;
};

static void
make_base(struct rt *rt, struct spool *spool, struct script *s)
{
    struct making m = { .rt = rt, .spool = spool, .view = &s->model->base };

    switch (((struct base_script *)s)->kind) {
    case BASE_LIVED_IN:
        live_in(&m);
        break;
    case BASE_FULL:
        fill(&m);
        break;
    case BASE_FULL_OF_ENDS:
        fill_with_ends(&m);
        break;
    default:
        UNREACHABLE();
    }
}

void
bases_make(struct bench *b)
{
    for (enum base_kind kind = 0; kind < BASE_KINDS; kind++) {
        struct disk *disk = disk_new(&b->sim->mem, UINT64_C(64) << 20);
        struct model model = { .count = 0 };
        struct base_script s = { { .model = &model, .in_between = make_base }, kind };
        disk_inode dir;

        CHECK(!err_is(disk_create(disk, DISK_ROOT, S("spool"), true, &dir)));
        disk_sync_all(disk);
        if (kind != BASE_NEW && !run_over(b->sim, disk, script_main, &s, &s.script.finished))
            bench_fail(b, "making the base: %s", b->sim->failure);
        disk_sync_all(disk);
        b->bases[kind] = (struct base_spool){ disk, model.base };
    }
}
