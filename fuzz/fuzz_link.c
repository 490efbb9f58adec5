/*
 * fuzz_link - frames of a link from a peer that was taken over.
 *
 * Aims at: link/link.c
 * Seeds:   zeros
 * Longest: 4096
 * Test:    4000 runs
 * Choices: 2 bytes in front
 *
 * The peer says a right hello, or not, then the input. Meanwhile we call it. Messages that reach the handler keep the bounds;
 * `closed` is called once at most; each of our calls ends; what we said is whole frames, with a reply for each call that was
 * taken, and no more.
 */
#include "fuzz.h"

#include "wire.h"
#include "world.h"

struct linked {
    struct rt *rt;
    struct str input;
    uint8_t how, step;
    struct far_link far_end;
    struct link *link;
    struct scope scope;
    size_t calls, closed, later;
    uint32_t kept[64];
};

static void
answer_later(void *arg)
{
    struct linked *l = arg;

    rt_sleep(l->rt, within(l->rt, MILLISECOND));
    if (l->later > 0)
        link_reply(l->link, l->kept[--l->later], 7, S("later"));
}

static bool
handle(void *ctx, struct link *link, struct link_message *m)
{
    struct linked *l = ctx;

    CHECK(link == l->link && m->body.len <= LINK_MESSAGE_MAX && m->handle_count == 0);
    if (m->type == 99)
        return false;
    if (m->call == 0)
        return true;
    l->calls++;
    if ((l->how & 2) && l->later < 64) {
        l->kept[l->later++] = m->call;
        scope_start(&l->scope, "answer", answer_later, l);
    } else {
        link_reply(link, m->call, m->type, m->body);
    }
    return true;
}

static void
closed(void *ctx, struct link *link, struct err why)
{
    struct linked *l = ctx;

    CHECK(err_is(why) && !link_is_open(link));
    CHECK(++l->closed == 1);
}

static void
call_it(void *arg)
{
    struct linked *l = arg;
    struct arena arena;
    struct str reply;

    arena_init(&arena, rt_mem(l->rt), 4096, LINK_MESSAGE_MAX + 4096);
    struct err e = link_call(l->link, 5, S("question"), &arena, within(l->rt, MINUTE), &reply);
    CHECK(err_is(e) || reply.len <= LINK_MESSAGE_MAX);
    e = link_send(l->link, 6, S("one way"), within(l->rt, MINUTE));
    CHECK(!err_is(e) || !link_is_open(l->link) || e.kind == ERR_TIMEOUT || e.kind == ERR_CANCELLED);
    arena_done(&arena);
}

static void
run_link(struct rt *rt, void *arg)
{
    struct linked *l = arg;
    struct stream *near_end;
    struct link_settings settings = { .name = S("fuzz"), .ctx = l, .handle = handle, .closed = closed,
                                      .calls_max = l->how & 4 ? 2 : 0, .forgets = l->how & 16 };
    size_t replies;

    l->rt = l->far_end.rt = rt;
    scope_init(&l->scope, rt);
    world_pair(rt, &near_end, &l->far_end.stream);
    l->link = link_on_stream(near_end, &settings);
    scope_start(&l->scope, "far end", wire_listen, &l->far_end);
    if (l->how & 1)
        wire_say_hello(&l->far_end);
    scope_start(&l->scope, "call", call_it, l);
    wire_say(&l->far_end, l->input, 1u + l->step);
    rt_sleep(rt, within(rt, SECOND));
    if (link_is_open(l->link))
        link_flush(l->link, within(rt, SECOND));
    stream_shut_down(l->far_end.stream);
    rt_sleep(rt, within(rt, SECOND));
    scope_cancel(&l->scope);
    link_free(l->link);
    CHECK(!err_is(scope_wait(&l->scope, within(rt, HOUR))));
    stream_close(l->far_end.stream);
    wire_check(&l->far_end, &replies);
    CHECK(replies <= l->calls);
    CHECK(l->closed == 1 || !(l->how & 1) || l->closed <= 1);
}

void
fuzz_one(struct str input, struct arena *arena)
{
    struct linked *l = arena_new(arena, struct linked);
    struct str rest = input;

    l->how = (uint8_t)(fuzz_choice(&rest) ^ 1); /* a right hello, mostly */
    l->step = fuzz_choice(&rest);
    l->input = rest;
    world_rules = (struct world_rules){ .seed = 1, .read_max = l->how & 8 ? 1u + l->step : 0 };
    world_run(run_link, l);
}
