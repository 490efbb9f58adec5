/*
 * Tests of the role `keys` over real links: who gets which certificates, what is signed for whom, and what becomes of both
 * when files change.
 */
#include "base/check.h"
#include "base/conf_fake.h"
#include "base/test.h"
#include "net/signing.h"
#include "role/border.h"
#include "role/control.h"
#include "role/role.h"
#include "runtime/host.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MX, SUBMISSION, POOLS, FILES = 4 };

static const struct conf_fake_file config[] = {
    { STR("/m"), STR("hostname mx.example.org\n"
                     "listen mx { address :25; tls-wait 1s }\n"
                     "listen mx inner { address :26; tls-wait 1s; tls { certificate 1; key 1 } }\n"
                     "listen submission { address :587; tls-wait 1s; tls { certificate 2; key 2 } }\n"
                     "listen submissions { address :465; tls-wait 1s; tls { certificate 3; key 3 } }\n"
                     "tls-tickets 1h\n"
                     "tls { certificate 0; key 0 }\n"
                     "users file /u\n"
                     "domain example.org { mailbox a; alias postmaster -> a; deliver maildir /m/{local} }\n") },
};
/* The order of the site's certificates is that of the file: what is at each index. */
static const int file_of_index[FILES] = { 1, 2, 3, 0 };

struct pool { /* a receiver's ends of the links to `keys`, and what it heard */
    struct world *w;
    struct peer peer;
    struct link *link, *signatures;
    char shown[200]; /* "inner:1 :0 " */
    size_t told, bytes; /* times, and how much the last time */
    unsigned char tickets[ROLE_TICKETS_MAX]; /* as they were told last */
    size_t tickets_len;
};

struct world {
    struct test *t;
    struct rt *rt;
    struct role role;
    struct crypto *crypto;
    struct pool pools[POOLS];
    struct link *supervisor; /* its end of the control link */
    bool ends;               /* the role, when it is asked about a certificate */
    struct event heard;
    char folder[64];
    struct arena arena;
    struct str certificates[FILES + 1], keys[FILES + 1]; /* the last one comes in place of another */
    struct key_name names[FILES + 1];
};

/* ---- the receivers' side ----------------------------------------------------------------------------------------- */

static int
number_of(const struct world *w, struct str certificate)
{
    for (int i = 0; i <= FILES; i++)
        if (str_eq(w->certificates[i], certificate))
            return i;
    return -1;
}

static bool
hear(void *ctx, struct link *link, struct link_message *m)
{
    struct pool *p = ctx;
    struct take t = take_init(m->body);
    struct text shown = text_init(p->shown, sizeof p->shown - 1);

    (void)link;
    EXPECT_INT(p->w->t, str_find(m->body, S("PRIVATE KEY")), m->body.len);
    if (m->type == BORDER_TICKETS) {
        p->tickets_len = m->body.len;
        memcpy(p->tickets, m->body.ptr, m->body.len);
        return true;
    }
    CHECK(m->type == BORDER_CERTIFICATES);
    for (size_t count = take_u16(&t); count > 0 && !t.bad; count--) {
        struct str listener = take_bytes(&t, 100);
        text_putf(&shown, "%.*s:%d ", STR_ARG(listener), number_of(p->w, take_bytes(&t, KEY_FILE_MAX)));
    }
    CHECK(take_end(&t) && text_cstr(&shown));
    p->told++;
    p->bytes = m->body.len;
    event_wake(p->w->rt, &p->w->heard);
    return true;
}

static void
closed(void *ctx, struct link *link, struct err why)
{
    (void)ctx, (void)link, (void)why;
}

static struct link *
link_to(struct world *w, struct handle *out_other, struct pool *p)
{
    struct link_settings settings = { .name = S("test"), .ctx = p, .handle = hear, .closed = closed };
    struct handle ends[2];
    struct link *link;

    CHECK(!err_is(stream_pair(w->rt, ends)) && !err_is(link_open(w->rt, ends[0], &settings, &link)));
    *out_other = ends[1];
    return link;
}

static bool
nothing_is_asked(void *ctx, struct link *link, struct link_message *m)
{
    (void)ctx, (void)link, (void)m;
    return false;
}

static void
connect_pool(struct world *w, int which, enum role_kind kind)
{
    struct pool *p = &w->pools[which];
    struct link_settings settings = { .name = S("receiver"), .ctx = p, .handle = nothing_is_asked, .closed = closed };
    struct handle theirs;

    *p = (struct pool){ .w = w, .peer = { .role = &w->role, .kind = kind, .serial = (uint64_t)which + 1, .up = true } };
    p->link = link_to(w, &theirs, p);
    p->signatures = link_to(w, &p->peer.second, p);
    CHECK(!err_is(link_open(w->rt, theirs, &settings, &p->peer.link)));
    list_push_back(&w->role.peers, &p->peer.node);
    w->role.ops->peer_up(&w->role, &p->peer);
}

static void
wait_until_told(struct world *w, size_t times)
{
    for (int i = 0; i < POOLS; i++)
        while (w->pools[i].told < times)
            CHECK(!err_is(event_wait(w->rt, &w->heard, within(w->rt, 100 * SECOND))));
}

/* Whether a receiver of that pool is given a signature with that key. */
static bool
is_signed(struct world *w, int pool, int key)
{
    unsigned char memory[SIGNING_QUESTION_MAX];
    struct put p = put_init(memory, sizeof memory);
    struct str answer;

    put_raw(&p, str_new(w->names[key].bytes, KEY_NAME));
    put_u16(&p, KEY_ECDSA_SHA256);
    put_bytes(&p, S("what a handshake has signed"));
    CHECK(!err_is(link_call(w->pools[pool].signatures, SIGNING_CALL, put_str_so_far(&p), &w->arena,
                            within(w->rt, 100 * SECOND), &answer)));
    struct take t = take_init(answer);
    struct str signature = take_bytes(&t, KEY_SIGNATURE_MAX);
    CHECK(take_end(&t));
    return signature.len > 0;
}

/* ---- files, and the role ----------------------------------------------------------------------------------------- */

static void
write_file(const char *path, struct str bytes)
{
    FILE *file = fopen(path, "w");

    CHECK(file && fwrite(bytes.ptr, 1, bytes.len, file) == bytes.len && fclose(file) == 0);
}

static struct role_certificate
open_both(struct world *w, struct str certificate, struct str key)
{
    struct role_certificate c = { 0 };
    char path[2][80];

    for (int k = 0; k < 2; k++) {
        snprintf(path[k], sizeof path[k], "%s/%d", w->folder, k);
        write_file(path[k], k ? key : certificate);
        CHECK(!err_is(host_open(w->rt, str_from_cstr(path[k]), FOREVER, k ? &c.key : &c.certificate)));
        CHECK(unlink(path[k]) == 0);
    }
    return c;
}

/* As the supervisor passes them on: what is to be the site's certificate `index`. */
static void
pass(struct world *w, uint32_t index, struct str certificate, struct str key)
{
    struct role_certificate c = open_both(w, certificate, key);

    c.index = index;
    CHECK(role_add_certificate(&w->role, c));
}

static void
run_keys(void *arg)
{
    struct world *w = arg;

    w->role.ops->run(&w->role);
}

/* The supervisor asks, over the control link, and is answered. */
static size_t
tickets_told(struct world *w)
{
    struct str tickets;

    CHECK(!err_is(link_call(w->supervisor, CONTROL_TICKETS, S(""), &w->arena, within(w->rt, 100 * SECOND), &tickets)));
    return tickets.len;
}

static bool
hear_supervisor(void *ctx, struct link *link, struct link_message *m)
{
    struct world *w = ctx;

    (void)link;
    if (m->type == CONTROL_TICKETS) {
        w->role.ops->tell_tickets(&w->role, m->call);
        return true;
    }
    CHECK(m->type == CONTROL_TRY);
    w->role.ops->try_certificate(&w->role, m->call);
    if (w->ends) {
        w->role.draining = true;
        event_wake(w->rt, &w->role.changed);
    }
    return true;
}

/* What the supervisor hears of a certificate and key: enum certificate_fault, or -1 where nothing is said. */
static int
tried(struct world *w, struct str certificate, struct str key)
{
    struct str answer;

    w->role.tried = open_both(w, certificate, key);
    CHECK(!err_is(link_call(w->supervisor, CONTROL_TRY, S(""), &w->arena, within(w->rt, 9 * SECOND), &answer)));
    CHECK(answer.len <= 1 && handle_is_none(w->role.tried.certificate) && handle_is_none(w->role.tried.key));
    return answer.len ? (unsigned char)answer.ptr[0] : -1;
}

static void
connect_supervisor(struct world *w)
{
    struct link_settings settings = { .name = S("supervisor"), .ctx = w, .handle = hear_supervisor, .closed = closed };
    struct handle theirs;

    w->supervisor = link_to(w, &theirs, NULL);
    CHECK(!err_is(link_open(w->rt, theirs, &settings, &w->role.control)));
}

static void
world_make(struct world *w, struct conf_fixture *conf, const struct conf_fake_file *file)
{
    w->ends = false;
    w->role = (struct role){ .rt = w->rt, .ops = &keys_ops, .kind = ROLE_KEYS };
    list_init(&w->role.peers);
    event_init(&w->role.changed);
    event_init(&w->heard);
    arena_init(&w->arena, rt_mem(w->rt), 4096, 1 << 20);
    conf_fixture_init(conf, file, 1);
    struct site *site = site_load(rt_mem(w->rt), &conf->bundle, 7, &conf->problems);
    CHECK(site);
    w->role.site = site;
    snprintf(w->folder, sizeof w->folder, "/tmp/postrider-keys-XXXXXX");
    CHECK(mkdtemp(w->folder) && !err_is(crypto_open(w->rt, &w->crypto)));
    for (int i = 0; i <= FILES; i++) {
        struct key_certificate c;
        CHECK(!err_is(key_make_self_signed(w->crypto, S("mx.example.org"), &w->arena, &w->certificates[i], &w->keys[i])));
        CHECK(!err_is(key_look_at_certificate(w->crypto, w->certificates[i], &c)));
        w->names[i] = c.key;
    }
    connect_supervisor(w);
    w->role.ops->prepare(&w->role);
}

static void
pass_all(struct world *w)
{
    for (uint32_t i = 0; i < FILES; i++)
        pass(w, i, w->certificates[file_of_index[i]], w->keys[file_of_index[i]]);
}

static void
world_begin(struct world *w, struct conf_fixture *conf)
{
    world_make(w, conf, config);
    CHECK(w->role.site->certificate_count == FILES && w->role.site->listener_count == 4);
    pass_all(w);
    CHECK(w->role.ops->start(&w->role));
}

static void
world_end(struct world *w, struct conf_fixture *conf, struct scope *scope)
{
    test_case(w->t, "a role that begins to end says nothing of a certificate that it has not read");
    w->ends = true;
    EXPECT_INT(w->t, tried(w, w->certificates[0], w->keys[0]), -1);
    CHECK(!err_is(scope_wait(scope, within(w->rt, 100 * SECOND))));
    scope_end(scope);
    test_case(w->t, "a role that is ending has no keys of tickets, and says so");
    EXPECT_INT(w->t, tickets_told(w), 0);
    test_case(w->t, "and at once nothing of any certificate");
    EXPECT_INT(w->t, tried(w, w->certificates[0], w->keys[0]), -1);
    link_free(w->supervisor);
    link_free(w->role.control);
    for (int i = 0; i < POOLS; i++) {
        link_free(w->pools[i].link);
        link_free(w->pools[i].signatures);
        link_free(w->pools[i].peer.link);
    }
    crypto_close(w->crypto);
    site_free((struct site *)(uintptr_t)w->role.site);
    conf_fixture_done(conf);
    arena_done(&w->arena);
    CHECK(rmdir(w->folder) == 0);
}

/* ---- tests ------------------------------------------------------------------------------------------------------- */

static void
in_world(struct test *t, void (*run)(struct rt *, void *))
{
    struct world w = { .t = t };

    EXPECT(t, !err_is(rt_run(run, &w)));
}

/* The role runs, and both pools are linked to it. */
static void
begin(struct world *w, struct scope *scope)
{
    scope_init(scope, w->rt);
    scope_start(scope, "keys", run_keys, w);
    connect_pool(w, MX, ROLE_RECEIVER);
    connect_pool(w, SUBMISSION, ROLE_SUBMISSION);
}

static void
expect_signed(struct world *w, int pool, const bool want[FILES + 1])
{
    for (int key = 0; key <= FILES; key++)
        EXPECT_INT(w->t, is_signed(w, pool, key), want[key]);
}

static void
run_rights(struct rt *rt, void *arg)
{
    struct world *w = arg;
    struct conf_fixture conf;
    struct scope scope;

    w->rt = rt;
    world_begin(w, &conf);
    begin(w, &scope);
    wait_until_told(w, 1);

    EXPECT(w->t, tickets_told(w) > 0);

    test_case(w->t, "each pool knows its own");
    EXPECT_STR(w->t, str_from_cstr(w->pools[MX].shown), S(":0 inner:1 "));
    EXPECT_STR(w->t, str_from_cstr(w->pools[SUBMISSION].shown), S("submission:2 submissions:3 "));
    expect_signed(w, MX, (bool[]){ true, true, false, false, false });
    expect_signed(w, SUBMISSION, (bool[]){ false, false, true, true, false });

    test_case(w->t, "what a reload would bring is looked at");
    EXPECT_INT(w->t, tried(w, w->certificates[FILES], w->keys[FILES]), CERTIFICATE_GOOD);
    EXPECT_INT(w->t, tried(w, w->certificates[FILES], w->keys[2]), CERTIFICATE_OF_ANOTHER_KEY);
    EXPECT_INT(w->t, tried(w, S("-----BEGIN CERTIFICATE-----\nAAAA\n"), w->keys[2]), CERTIFICATE_UNUSABLE);

    test_case(w->t, "a key that does not fit leaves the one before");
    pass(w, 1, w->certificates[FILES], w->keys[2]);
    w->role.ops->certificates(&w->role);
    wait_until_told(w, 2);
    EXPECT_STR(w->t, str_from_cstr(w->pools[SUBMISSION].shown), S("submission:2 submissions:3 "));
    expect_signed(w, SUBMISSION, (bool[]){ false, false, true, true, false });

    test_case(w->t, "so does a file that is broken");
    pass(w, 1, S("-----BEGIN CERTIFICATE-----\nAAAA\n"), w->keys[2]);
    pass(w, 2, w->certificates[3], S(""));
    w->role.ops->certificates(&w->role);
    wait_until_told(w, 3);
    EXPECT_STR(w->t, str_from_cstr(w->pools[SUBMISSION].shown), S("submission:2 submissions:3 "));

    test_case(w->t, "a new one takes its place, and the key before goes on to sign for handshakes that began with it");
    pass(w, 1, w->certificates[FILES], w->keys[FILES]);
    w->role.ops->certificates(&w->role);
    wait_until_told(w, 4);
    EXPECT_STR(w->t, str_from_cstr(w->pools[SUBMISSION].shown), S("submission:4 submissions:3 "));
    EXPECT_STR(w->t, str_from_cstr(w->pools[MX].shown), S(":0 inner:1 "));
    expect_signed(w, MX, (bool[]){ true, true, false, false, false });
    expect_signed(w, SUBMISSION, (bool[]){ false, false, true, true, true });

    test_case(w->t, "also if another certificate is renewed meanwhile: all files are passed on then");
    pass(w, 0, w->certificates[1], w->keys[1]);
    pass(w, 1, w->certificates[FILES], w->keys[FILES]);
    w->role.ops->certificates(&w->role);
    wait_until_told(w, 5);
    expect_signed(w, SUBMISSION, (bool[]){ false, false, true, true, true });

    test_case(w->t, "nor does one that is renewed once more close the way to those before");
    pass(w, 1, w->certificates[0], w->keys[0]);
    w->role.ops->certificates(&w->role);
    wait_until_told(w, 6);
    expect_signed(w, SUBMISSION, (bool[]){ true, false, true, true, true });
    pass(w, 1, w->certificates[FILES], w->keys[FILES]);
    w->role.ops->certificates(&w->role);
    wait_until_told(w, 7);
    expect_signed(w, SUBMISSION, (bool[]){ true, false, true, true, true });

    test_case(w->t, "of a file with all authorities behind the certificate as many are told as are shown");
    struct text bundle = text_init(arena_alloc(&w->arena, KEY_FILE_MAX), KEY_FILE_MAX);
    text_put(&bundle, w->certificates[FILES]);
    while (bundle.len + w->certificates[0].len < bundle.cap)
        text_put(&bundle, w->certificates[0]);
    pass(w, 1, text_str(&bundle), w->keys[FILES]);
    w->role.ops->certificates(&w->role);
    wait_until_told(w, 8);
    EXPECT(w->t, w->pools[SUBMISSION].bytes > 17 * w->certificates[0].len && w->pools[SUBMISSION].bytes < 19 * w->certificates[0].len);

    test_case(w->t, "until none of those can be under way");
    while (is_signed(w, SUBMISSION, 2) || is_signed(w, SUBMISSION, 0)) /* by the real clock: other threads read files for this role */
        CHECK(!err_is(rt_sleep(rt, within(rt, 50 * MILLISECOND))));
    expect_signed(w, MX, (bool[]){ true, true, false, false, false });
    expect_signed(w, SUBMISSION, (bool[]){ false, false, false, true, true });

    world_end(w, &conf, &scope);
}

static void
run_early(struct rt *rt, void *arg)
{
    struct world *w = arg;
    struct conf_fixture conf;
    struct scope scope;

    w->rt = rt;
    world_make(w, &conf, config);
    CHECK(w->role.ops->start(&w->role));
    for (int i = 0; i < SITE_CERTIFICATES_MAX; i++) /* while the first ones are read files change again and again */
        pass_all(w);
    EXPECT_INT(w->t, w->role.certificate_count, FILES);
    EXPECT(w->t, !role_add_certificate(&w->role, (struct role_certificate){ SITE_CERTIFICATES_MAX, HANDLE_NONE, HANDLE_NONE }));
    begin(w, &scope);
    while (!str_eq(str_from_cstr(w->pools[MX].shown), S(":0 inner:1 ")))
        CHECK(!err_is(event_wait(rt, &w->heard, within(rt, 100 * SECOND))));
    world_end(w, &conf, &scope);
}

static void
what_came_before_it_ran_is_read(struct test *t)
{
    in_world(t, run_early);
}

/* The role's state directory is the world's folder. */
static void
give_state(struct world *w)
{
    struct dir *dir;

    CHECK(!err_is(dir_open(w->rt, str_from_cstr(w->folder), LANE_POOL, FOREVER, &dir)));
    w->role.dirs[w->role.dir_count++] = (struct role_dir){ S("tls"), S(""), dir_handle(w->rt, dir) };
    dir_close(dir);
}

static void
run_stood_in(struct rt *rt, void *arg)
{
    static const struct conf_fake_file one[] = {
        { STR("/m"), STR("hostname mx.example.org\nlisten mx { address :25; tls-wait 1s }\n"
                         "listen submission { address :587; tls-wait 1s; tls { certificate 1; key 1 } }\n"
                         "tls { certificate 0; key 0 }\nusers file /u\n"
                         "domain example.org { mailbox a; alias postmaster -> a; deliver maildir /m/{local} }\n") },
    };
    struct world *w = arg;
    struct conf_fixture conf;
    struct scope scope;
    char path[100];

    w->rt = rt;
    world_make(w, &conf, one);
    snprintf(path, sizeof path, "%s/self-signed.pem", w->folder);
    write_file(path, arena_join(&w->arena, w->certificates[FILES], w->keys[FILES]));
    give_state(w);
    test_case(w->t, "what we signed ourselves stands in for a certificate that cannot be opened now");
    pass(w, 0, w->certificates[2], w->keys[2]); /* of the listener */
    CHECK(w->role.ops->start(&w->role));
    begin(w, &scope);
    wait_until_told(w, 1);
    EXPECT_STR(w->t, str_from_cstr(w->pools[MX].shown), S(":4 "));
    expect_signed(w, MX, (bool[]){ false, false, false, false, true });
    expect_signed(w, SUBMISSION, (bool[]){ false, false, true, false, false });

    test_case(w->t, "once that is there, ours goes on to sign for handshakes that began with it");
    pass(w, 1, w->certificates[0], w->keys[0]);
    w->role.ops->certificates(&w->role);
    wait_until_told(w, 2);
    EXPECT_STR(w->t, str_from_cstr(w->pools[MX].shown), S(":0 "));
    expect_signed(w, MX, (bool[]){ true, false, false, false, true });
    expect_signed(w, SUBMISSION, (bool[]){ false, false, true, false, false });

    test_case(w->t, "until none of those can be under way");
    while (is_signed(w, MX, FILES))
        CHECK(!err_is(rt_sleep(rt, within(rt, 50 * MILLISECOND))));
    expect_signed(w, MX, (bool[]){ true, false, false, false, false });
    CHECK(unlink(path) == 0);
    world_end(w, &conf, &scope);
}

static void
what_stood_in_signs_on(struct test *t)
{
    in_world(t, run_stood_in);
}

/* Its state directory holds a file that it signed itself, or what is there instead. */
static void
run_own(struct rt *rt, void *arg)
{
    static const struct conf_fake_file none[] = {
        { STR("/m"), STR("hostname mx.example.org\nlisten mx { address :25 }\n"
                         "domain example.org { mailbox a; alias postmaster -> a; deliver maildir /m/{local} }\n") },
    };
    static const struct { const char *why; bool kept; const char *shown; } cases[] = {
        { "there is none yet", false, ":-1 " }, /* one that we have not made */
        { "what is there is no certificate", false, ":-1 " },
        { "what is there cannot be read just now: others may know its key", true, ":-1 " },
        { "what is there is used, and its key told to nobody", false, ":0 " },
    };
    struct world *w = arg;
    struct conf_fixture conf;
    struct scope scope;
    struct stat st;
    char path[100];

    w->rt = rt;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        test_case(w->t, cases[i].why);
        world_make(w, &conf, none);
        snprintf(path, sizeof path, "%s/self-signed.pem", w->folder);
        if (i == 1)
            write_file(path, S("-----BEGIN CERTIFICATE-----\nAAAA\n"));
        if (i == 2)
            CHECK(symlink("self-signed.pem", path) == 0);
        if (i == 3)
            write_file(path, arena_join(&w->arena, w->certificates[0], w->keys[0]));
        give_state(w);
        CHECK(w->role.ops->start(&w->role));
        begin(w, &scope);
        wait_until_told(w, 1);
        EXPECT_STR(w->t, str_from_cstr(w->pools[MX].shown), str_from_cstr(cases[i].shown));
        CHECK(lstat(path, &st) == 0);
        EXPECT_INT(w->t, S_ISLNK(st.st_mode), cases[i].kept);
        EXPECT_INT(w->t, st.st_size > 300, !cases[i].kept);
        CHECK(unlink(path) == 0);
        world_end(w, &conf, &scope);
    }
}

static void
its_own_key_is_kept(struct test *t)
{
    in_world(t, run_own);
}

static void
rights_end_at_the_pool(struct test *t)
{
    in_world(t, run_rights);
}

TEST_MAIN({ "rights end at the pool", rights_end_at_the_pool },
          { "what came before it ran is read", what_came_before_it_ran_is_read },
          { "what stood in signs on", what_stood_in_signs_on },
          { "its own key is kept", its_own_key_is_kept })
