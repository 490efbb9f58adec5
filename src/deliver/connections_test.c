#include "deliver/connections.h"

#include "base/test.h"
#include "smtp/test_peer.h"

struct world {
    struct test *t;
    struct rt *rt;
    struct scope peers;
    struct arena arena;
    struct connections *pool;
    struct connections_settings settings;
    void (*body)(struct test *, struct world *);
};

static void
in_world(struct rt *rt, void *arg)
{
    struct world *w = arg;

    w->rt = rt;
    scope_init(&w->peers, rt);
    arena_init(&w->arena, rt_mem(rt), 4096, 1 << 20);
    w->pool = connections_new(rt, &w->settings);
    w->body(w->t, w);
    if (w->pool)
        connections_free(w->pool);
    EXPECT(w->t, !err_is(scope_wait(&w->peers, within(rt, 5 * SECOND))));
    scope_end(&w->peers);
    arena_done(&w->arena);
}

static void
with_pool(struct test *t, struct connections_settings settings, void (*body)(struct test *, struct world *))
{
    struct world w = { .t = t, .settings = settings, .body = body };

    EXPECT(t, !err_is(rt_run(in_world, &w)));
}

/* A client that has been greeted; its peer follows the rest of the script. */
static struct client *
new_client(struct world *w, const char *script, struct test_peer **out_peer)
{
    struct handle ends[2];
    struct stream *ours = NULL, *theirs = NULL;
    struct remote_reply reply;

    EXPECT(w->t, !err_is(stream_pair(w->rt, ends)) && !err_is(stream_from_handle(w->rt, ends[0], &ours))
                     && !err_is(stream_from_handle(w->rt, ends[1], &theirs)));
    *out_peer = arena_new(&w->arena, struct test_peer);
    test_peer_init(*out_peer, theirs, arena_join(&w->arena, S("S: 220 hi\nC: EHLO me.example\nS: 250 hi\n"),
                                                 str_from_cstr(script)));
    scope_start(&w->peers, "peer", test_peer_run, *out_peer);
    struct client *client = client_new(ours, &(struct client_settings){ .helo = S("me.example") });
    EXPECT(w->t, !err_is(client_greeting(client, &w->arena, &reply)) && !err_is(client_hello(client, &w->arena,
        &reply)));
    return client;
}

static struct connection_key
key_of(const char *address, struct str host)
{
    struct connection_key key = { .host = host, .helo = S("me.example") };

    (void)address_parse(str_from_cstr(address), &key.to);
    return key;
}

static void
wait_for(struct world *w, const struct test_peer *peer)
{
    int64_t until = within(w->rt, 5 * SECOND);

    while (!peer->ended && peer->failure[0] == '\0' && rt_now(w->rt) < until)
        (void)rt_sleep(w->rt, within(w->rt, MILLISECOND));
    EXPECT(w->t, peer->ended);
    EXPECT_STR(w->t, str_from_cstr(peer->failure), S(""));
}

static void
keys_body(struct test *t, struct world *w)
{
    struct connection_key key = key_of("192.0.2.1:25", S("a.example")), other = key;
    struct test_peer *peer;
    struct client *client = new_client(w, "C: QUIT\nS: 221 bye\n", &peer);

    connections_put(w->pool, &key, client);
    test_case(t, "another address");
    other = key_of("192.0.2.2:25", S("a.example"));
    EXPECT(t, connections_take(w->pool, &other) == NULL);
    test_case(t, "another port");
    other = key_of("192.0.2.1:26", S("a.example"));
    EXPECT(t, connections_take(w->pool, &other) == NULL);
    test_case(t, "another host behind the address");
    other = key_of("192.0.2.1:25", S("b.example"));
    EXPECT(t, connections_take(w->pool, &other) == NULL);
    test_case(t, "another name of ours");
    other = key;
    other.helo = S("other.example");
    EXPECT(t, connections_take(w->pool, &other) == NULL);
    test_case(t, "another source");
    other = key;
    (void)address_from_ip(S("192.0.2.9"), &other.source);
    EXPECT(t, connections_take(w->pool, &other) == NULL);
    test_case(t, "LMTP");
    other = key;
    other.lmtp = true;
    EXPECT(t, connections_take(w->pool, &other) == NULL);
    test_case(t, "TLS from the first byte");
    other = key;
    other.smtps = true;
    EXPECT(t, connections_take(w->pool, &other) == NULL);
    test_case(t, "another policy");
    other = key;
    other.policy = S("d0");
    EXPECT(t, connections_take(w->pool, &other) == NULL);
    test_case(t, "the same");
    EXPECT_INT(t, connections_count(w->pool), 1);
    EXPECT(t, connections_take(w->pool, &key) == client);
    EXPECT(t, connections_take(w->pool, &key) == NULL);
    connections_put(w->pool, &key, client);
    connections_free(w->pool);
    w->pool = NULL;
    test_case(t, "the end of the pool says QUIT");
    wait_for(w, peer);
}

static void
gives_back_only_to_the_same_place(struct test *t)
{
    with_pool(t, connections_settings_default(), keys_body);
}

static void
idle_body(struct test *t, struct world *w)
{
    struct connection_key key = key_of("192.0.2.1:25", S("a.example"));
    struct test_peer *peers[4];

    test_case(t, "after its time, QUIT");
    connections_put(w->pool, &key, new_client(w, "C: QUIT\nS: 221 bye\n", &peers[0]));
    wait_for(w, peers[0]);
    EXPECT_INT(t, connections_count(w->pool), 0);
    test_case(t, "the oldest gives way");
    for (size_t i = 1; i < 4; i++)
        connections_put(w->pool, &key, new_client(w, "C: QUIT\nS: 221 bye\n", &peers[i]));
    EXPECT_INT(t, connections_count(w->pool), 2);
    wait_for(w, peers[1]);
    wait_for(w, peers[2]);
    wait_for(w, peers[3]);
}

static void
ends_what_is_idle(struct test *t)
{
    with_pool(t, (struct connections_settings){ .idle = 50 * MILLISECOND, .messages_max = 100, .count_max = 2 },
        idle_body);
}

static void
gone_body(struct test *t, struct world *w)
{
    static const char *const ends[] = { "H\n", "S: 421 bye\nW\n", "S: 250 what\nW\n" };
    struct connection_key key = key_of("192.0.2.1:25", S("a.example"));

    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        struct test_peer *peer;

        test_case(t, ends[i]);
        struct client *client = new_client(w, ends[i], &peer);
        int64_t until = within(w->rt, 5 * SECOND);
        while (client_is_quiet(client) && rt_now(w->rt) < until)
            (void)rt_sleep(w->rt, within(w->rt, MILLISECOND));
        connections_put(w->pool, &key, client);
        EXPECT(t, connections_take(w->pool, &key) == NULL);
        wait_for(w, peer);
    }
}

static void
never_gives_what_the_server_left(struct test *t)
{
    with_pool(t, connections_settings_default(), gone_body);
}

TEST_MAIN({ "gives back only to the same place", gives_back_only_to_the_same_place },
          { "ends what is idle", ends_what_is_idle },
          { "never gives what the server left", never_gives_what_the_server_left })
