/*
 * fuzz_console - the operators' socket, with a client that says anything.
 *
 * Aims at: role/console.c link/link.c
 * Seeds:   zeros
 * Longest: 2000
 * Test:    1200 runs
 * Choices: 2 bytes in front
 *
 * The console role runs between a store and a supervisor that answer; the client says a right hello and then the input. Only
 * requests of sound form reach the store; and whatever that client did, the next one gets its answer.
 */
#include "fuzz.h"

#include "role/border.h"
#include "role/control.h"
#include "role/role.h"
#include "wire.h"
#include "world.h"

struct post {
    struct rt *rt;
    struct str input;
    uint8_t how, step;
    struct role role;
    struct far_link hostile;
    struct link *store, *supervisor;
    bool ran;
};

static bool
answer_as_store(void *ctx, struct link *link, struct link_message *m)
{
    struct take t = take_init(m->body);

    (void)ctx;
    CHECK(m->call != 0);
    switch (m->type) {
    case BORDER_COUNTERS:
        break;
    case BORDER_LIST:
        take_u64(&t);
        take_count(&t, BORDER_LIST_MAX);
        break;
    case BORDER_SHOW:
        border_take_id(&t);
        break;
    case BORDER_ACT:
        take_enum(&t, ACT_LAST);
        border_take_id(&t);
        break;
    default:
        UNREACHABLE();
    }
    CHECK(take_end(&t));
    link_reply(link, m->call, m->type, S("the store's answer"));
    return true;
}

static bool
answer_as_supervisor(void *ctx, struct link *link, struct link_message *m)
{
    (void)ctx;
    CHECK(m->call != 0 && m->body.len == 0);
    CHECK(m->type == CONTROL_STATUS || m->type == CONTROL_RELOAD || m->type == CONTROL_STOP_ALL);
    link_reply(link, m->call, m->type, S("\1{}"));
    return true;
}

static bool
take_nothing(void *ctx, struct link *link, struct link_message *m)
{
    (void)ctx;
    (void)link;
    (void)m;
    return false;
}

/* A link of the console's, and whoever is at its other end. */
static struct link *
join(struct post *s, struct link **out_other, bool (*answer)(void *, struct link *, struct link_message *))
{
    struct stream *near_end, *far_end;
    struct link_settings ours = { .name = S("ours"), .ctx = s, .handle = take_nothing };
    struct link_settings theirs = { .name = S("theirs"), .ctx = s, .handle = answer };

    world_pair(s->rt, &near_end, &far_end);
    *out_other = link_on_stream(far_end, &theirs);
    return link_on_stream(near_end, &ours);
}

static void
run_console(void *arg)
{
    struct post *s = arg;

    console_ops.run(&s->role);
    s->ran = true;
}

static void
ask(struct post *s)
{
    struct arena arena;
    struct str reply;
    struct link_settings settings = { .name = S("next"), .ctx = s, .handle = take_nothing };
    struct stream *stream = world_connect(s->rt);

    CHECK(stream);
    arena_init(&arena, own_mem, 4096, LINK_MESSAGE_MAX + 4096);
    struct link *link = link_on_stream(stream, &settings);
    CHECK(!err_is(link_call(link, BORDER_COUNTERS, S(""), &arena, within(s->rt, MINUTE), &reply)));
    CHECK(str_eq(reply, S("the store's answer")));
    CHECK(!err_is(link_call(link, BORDER_STATUS, S(""), &arena, within(s->rt, MINUTE), &reply)));
    link_free(link);
    arena_done(&arena);
}

static void
run_post(struct rt *rt, void *arg)
{
    struct post *s = arg;
    struct scope scope;
    struct peer store = { .kind = ROLE_STORE, .role = &s->role, .up = true };

    s->rt = s->hostile.rt = rt;
    s->role = (struct role){ .rt = rt, .ops = &console_ops, .kind = ROLE_CONSOLE, .listener_count = 1 };
    s->role.listeners[0].handle = world_listener(rt);
    list_init(&s->role.peers);
    event_init(&s->role.changed);
    s->role.control = join(s, &s->supervisor, answer_as_supervisor);
    store.link = join(s, &s->store, answer_as_store);
    list_push_back(&s->role.peers, &store.node);
    console_ops.prepare(&s->role);
    scope_init(&scope, rt);
    scope_start(&scope, "console", run_console, s);
    rt_sleep(rt, within(rt, MILLISECOND));

    s->hostile.stream = world_connect(rt);
    CHECK(s->hostile.stream);
    scope_start(&scope, "far end", wire_listen, &s->hostile);
    if (s->how & 1)
        wire_say_hello(&s->hostile);
    wire_say(&s->hostile, s->input, 1u + s->step);
    if (s->how & 2) {
        rt_sleep(rt, within(rt, SECOND));
        stream_shut_down(s->hostile.stream);
    }
    ask(s);
    s->role.draining = true;
    event_wake(rt, &s->role.changed);
    for (int i = 0; i < 100 && !s->ran; i++)
        rt_sleep(rt, within(rt, SECOND));
    CHECK(s->ran);
    stream_reset(s->hostile.stream);
    CHECK(!err_is(scope_wait(&scope, within(rt, HOUR))));
    scope_end(&scope);
    rt_sleep(rt, within(rt, SECOND));
    list_remove(&store.node);
    link_free(store.link);
    link_free(s->role.control);
    link_free(s->store);
    link_free(s->supervisor);
}

void
fuzz_one(struct str input, struct arena *arena)
{
    struct post *s = arena_new(arena, struct post);
    struct str rest = input;

    s->how = (uint8_t)(fuzz_choice(&rest) ^ 1);
    s->step = fuzz_choice(&rest);
    s->input = rest;
    world_rules = (struct world_rules){ .seed = 1, .drops_heap = true };
    world_run(run_post, s);
}
