/*
 * peers_operator - somebody who asks `postrider status` now and then, by the console's socket and a link, as the command line
 * does: P4 is looked at while things happen, and an empty queue is how the end of a run is known.
 */
#include "sim/run.h"

#include "base/check.h"
#include "link/link.h"
#include "role/border.h"

#include <stdio.h>
#include <string.h>

#define ASK_NS (20 * SECOND)       /* between two questions, while much happens */
#define ASK_CALM_NS (10 * SECOND)

#define UNBALANCED_NS (10 * MINUTE) /* longer than any disk stalls */

uint64_t
counters_figure(struct str counters, struct str name)
{
    struct take t = take_init(counters);

    for (uint32_t count = take_u32(&t); count > 0 && !t.bad; count--) {
        struct str key = take_bytes(&t, 64);
        uint64_t value = take_u64(&t);
        if (str_eq(key, name))
            return value;
    }
    return UINT64_MAX;
}

static void
look(struct run *run, struct str counters, int64_t asked_at)
{
    static const struct str ends[] = { STR("delivered"), STR("relayed"), STR("failed"), STR("expanded"), STR("suppressed"),
                                       STR("removed"), STR("recipients-pending") };
    uint64_t sum = 0, accepted = counters_figure(counters, S("accepted"));

    CHECK(counters.len <= sizeof run->counters);
    memcpy(run->counters, counters.ptr, counters.len);
    run->counters_len = counters.len;
    run->counters_at = asked_at;
    if (counters_figure(counters, S("recovering")) != 0)
        return;
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        sum += counters_figure(counters, ends[i]);
    /* What is settled but not written yet has left the pending ones already: until then the sums differ. */
    if (sum == accepted || run->unbalanced_since == 0)
        run->unbalanced_since = sum == accepted ? 0 : asked_at;
    if (sum != accepted && asked_at - run->unbalanced_since > UNBALANCED_NS)
        sim_fail(run->sim, "P4: accepted %llu, but ended and pending together %llu", (unsigned long long)accepted,
                 (unsigned long long)sum);
    if (counters_figure(counters, S("balanced")) != 1)
        sim_fail(run->sim, "P4: the queue says itself that it does not balance");
    run->empty_at = counters_figure(counters, S("messages")) == 0 ? asked_at : 0;
}

/* NULL: nobody is there. */
static struct link *
link_to_console(struct rt *rt)
{
    struct address at = { .family = ADDRESS_UNIX, .path = STATE_DIR "/control.sock" };
    static const struct link_settings settings = { .name = STR("console") };
    struct stream *stream;

    return err_is(stream_connect(rt, &at, NULL, within(rt, MINUTE), &stream)) ? NULL : link_on_stream(stream, &settings);
}

static void
ask_once(struct run *run, struct rt *rt)
{
    int64_t asked_at = run->sim->now;
    struct str reply;
    struct arena arena;
    struct link *link = link_to_console(rt);

    if (!link)
        return;
    arena_init(&arena, rt_mem(rt), 4096, 1 << 20);
    if (!err_is(link_call(link, BORDER_COUNTERS, S(""), &arena, within(rt, MINUTE), &reply)))
        look(run, reply, asked_at);
    arena_done(&arena);
    link_free(link);
}

static int
operator_main(struct rt *rt, void *arg)
{
    struct run *run = arg;

    while (!err_is(rt_sleep(rt, within(rt, run->calm ? ASK_CALM_NS : ASK_NS))))
        if (!run->unattended)
            ask_once(run, rt);
    return 0;
}

/* All that waits, as `postrider queue` does it. */
static int
act_main(struct rt *rt, void *arg)
{
    struct run *run = arg;
    struct link *link = link_to_console(rt);
    struct border_listed listed;
    unsigned char memory[32];
    struct str reply, done;
    struct arena arena;
    struct put p = put_init(memory, sizeof memory);

    if (!link)
        return 1;
    arena_init(&arena, rt_mem(rt), 4096, 4 << 20);
    put_u64(&p, 0);
    put_u32(&p, BORDER_LIST_MAX);
    if (!err_is(link_call(link, BORDER_LIST, put_str_so_far(&p), &arena, within(rt, MINUTE), &reply))) {
        struct take t = take_init(str_from(reply, 2 * sizeof(uint64_t)));
        run->acted = true;
        for (uint32_t count = take_u32(&t); count > 0; count--) {
            border_take_listed(&t, &listed);
            p = put_init(memory, sizeof memory);
            put_u8(&p, run->act);
            border_put_id(&p, listed.id);
            run->acted &= !err_is(link_call(link, BORDER_ACT, put_str_so_far(&p), &arena, within(rt, MINUTE), &done));
        }
    }
    arena_done(&arena);
    link_free(link);
    return 0;
}

void
operator_act(struct run *run, enum border_act act)
{
    run->act = (uint8_t)act;
    run->acted = false;
    process_start(run->sim, "operator who acts", host_new(run->sim, "operator who acts", "127.0.0.10"), act_main, run);
}

void
operator_start(struct run *run)
{
    process_start(run->sim, "operator", host_new(run->sim, "operator", "127.0.0.9"), operator_main, run);
}
