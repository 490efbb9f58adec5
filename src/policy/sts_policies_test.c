/* sts_policies_test - what is fetched when, and kept how long; DNS and HTTPS are played here. */
#include "base/check.h"
#include "base/test.h"
#include "policy/sts_policies.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ENFORCE "version: STSv1\nmode: enforce\nmax_age: 864000\nmx: *.example\n"

struct world {
    struct test *t;
    struct rt *rt;
    struct dns dns;
    const char *txt;          /* NULL: there is no record */
    enum dns_status status;   /* of its lookup, if not DNS_FOUND */
    bool no_address, any_domain;
    struct https_answer page;
    int64_t takes;            /* ns that a fetch takes */
    struct err error;         /* what it ends with */
    size_t lookups, fetches, at_once, most_at_once;
    struct sts_policies *p;
    struct arena arena;
    struct sts_answer answer;
};

static struct err
play_dns(void *arg, struct str name, enum dns_type type, int64_t until, struct arena *arena, struct dns_answer *out)
{
    struct world *w = arg;

    (void)until;
    *out = (struct dns_answer){ .status = DNS_NODATA, .type = (uint16_t)type, .ttl = 60, .canonical = name, .why = S("") };
    out->records = arena_new(arena, struct dns_record);
    if (type == DNS_TXT) {
        EXPECT(w->t, w->any_domain || str_eq(name, S("_mta-sts.a.example")));
        w->lookups++;
        out->status = (uint8_t)w->status;
        if (w->status == DNS_FOUND && w->txt) {
            out->records[0].data = str_from_cstr(w->txt);
            out->count = 1;
        }
    } else if (type == DNS_A && !w->no_address) {
        EXPECT(w->t, w->any_domain || str_eq(name, S("mta-sts.a.example")));
        out->status = DNS_FOUND;
        out->count = 1;
        address_from_ip(S("198.51.100.7"), &out->records[0].ip);
    }
    return OK;
}

static struct err
play_https(void *arg, const struct https_request *r, int64_t until, struct arena *arena, struct https_answer *out)
{
    struct world *w = arg;

    (void)until;
    EXPECT(w->t, w->any_domain || str_eq(r->host, S("mta-sts.a.example")));
    EXPECT_STR(w->t, r->path, S("/.well-known/mta-sts.txt"));
    EXPECT_INT(w->t, r->body_max, STS_BODY_MAX);
    EXPECT_INT(w->t, r->address_count, 1);
    w->fetches++;
    w->at_once++;
    if (w->at_once > w->most_at_once)
        w->most_at_once = w->at_once;
    struct err e = w->takes ? rt_sleep(w->rt, within(w->rt, w->takes)) : OK;
    w->at_once--;
    *out = w->page;
    out->body = arena_keep(arena, w->page.body);
    return err_is(e) ? e : w->error;
}

static void
begin(struct world *w, size_t bytes_max)
{
    w->dns = (struct dns){ play_dns, w };
    w->status = DNS_FOUND;
    w->page = (struct https_answer){ .status = HTTPS_OK, .body = S(ENFORCE), .why = S("") };
    w->p = sts_policies_new(w->rt, &w->dns, &(struct sts_policies_hooks){ w, play_https }, bytes_max);
    arena_init(&w->arena, rt_mem(w->rt), 4096, 4 << 20);
}

static void
end(struct world *w)
{
    sts_policies_free(w->p);
    arena_done(&w->arena);
}

static bool
find(struct world *w)
{
    arena_reset(&w->arena);
    EXPECT(w->t, !err_is(sts_policies_find(w->p, S("a.example"), within(w->rt, STS_ANSWER_NS), &w->arena, &w->answer)));
    return w->answer.found;
}

/* ---- in simulated time ---- */

static void
keeps_and_renews_body(struct world *w)
{
    begin(w, 1 << 20);
    test_case(w->t, "a domain without a record is forgotten at once");
    EXPECT(w->t, !find(w) && w->answer.result == TLS_RESULT_OK && w->fetches == 0);
    EXPECT_INT(w->t, sts_policies_count(w->p), 0);

    test_case(w->t, "fetched once for an id");
    w->txt = "v=STSv1; id=1";
    EXPECT(w->t, find(w) && w->fetches == 1);
    EXPECT(w->t, w->answer.policy.mode == STS_ENFORCE && w->answer.policy.mx_count == 1);
    EXPECT_STR(w->t, w->answer.policy.mx[0], S("*.example"));
    EXPECT_STR(w->t, w->answer.id, S("1"));
    EXPECT_INT(w->t, w->answer.expires_wall - w->answer.fetched_wall, 864000 * SECOND);
    EXPECT(w->t, find(w) && w->fetches == 1 && w->lookups == 3);

    test_case(w->t, "and anew for another");
    w->txt = "v=STSv1; id=2";
    w->page.body = S("version: STSv1\nmode: testing\nmax_age: 864000\nmx: b.example\n");
    EXPECT(w->t, find(w) && w->fetches == 2 && w->answer.policy.mode == STS_TESTING);

    test_case(w->t, "no record, two of them, or no answer: what there is counts");
    w->txt = NULL;
    EXPECT(w->t, find(w) && w->fetches == 2);
    w->status = DNS_TEMPORARY;
    EXPECT(w->t, find(w) && w->fetches == 2);
    w->status = DNS_FOUND;

    test_case(w->t, "a fetch that fails keeps it, and is not repeated for some minutes");
    w->txt = "v=STSv1; id=3";
    w->page = (struct https_answer){ .status = HTTPS_UNREACHABLE, .body = S(""), .why = S("no route") };
    EXPECT(w->t, find(w) && w->fetches == 3 && w->answer.policy.mode == STS_TESTING);
    EXPECT_INT(w->t, w->answer.result, TLS_RESULT_STS_FETCH_ERROR);
    EXPECT_STR(w->t, w->answer.why, S("no route"));
    EXPECT_STR(w->t, w->answer.id, S("2"));
    EXPECT(w->t, find(w) && w->fetches == 3);
    EXPECT(w->t, !err_is(rt_sleep(w->rt, within(w->rt, STS_RETRY_NS))));
    EXPECT(w->t, find(w) && w->fetches == 4 && w->answer.policy.mode == STS_TESTING);

    test_case(w->t, "one that fails again is not repeated for twice as long");
    EXPECT(w->t, !err_is(rt_sleep(w->rt, within(w->rt, STS_RETRY_NS))));
    EXPECT(w->t, find(w) && w->fetches == 4);
    EXPECT(w->t, !err_is(rt_sleep(w->rt, within(w->rt, STS_RETRY_NS))));
    w->page = (struct https_answer){ .status = HTTPS_OK, .body = S(ENFORCE), .why = S("") };
    EXPECT(w->t, find(w) && w->fetches == 5 && w->answer.policy.mode == STS_ENFORCE && w->answer.result == TLS_RESULT_OK);
    EXPECT(w->t, w->answer.why.len == 0);
    end(w);
}

static const struct {
    const char *why;
    enum https_status status;
    struct str body;
    enum tls_result result;
} failures[] = {
    { "unreachable", HTTPS_UNREACHABLE, STR(""), TLS_RESULT_STS_FETCH_ERROR },
    { "404, a redirect", HTTPS_REFUSED, STR(""), TLS_RESULT_STS_FETCH_ERROR },
    { "a certificate of somebody else", HTTPS_UNTRUSTED, STR(""), TLS_RESULT_STS_WEBPKI_INVALID },
    { "too long, not text/plain", HTTPS_UNFIT, STR(""), TLS_RESULT_STS_INVALID },
    { "no policy", HTTPS_OK, STR("hello"), TLS_RESULT_STS_INVALID },
};

static void
fails_body(struct world *w)
{
    w->txt = "v=STSv1; id=1";
    for (size_t i = 0; i < sizeof failures / sizeof *failures; i++) {
        test_case(w->t, failures[i].why);
        begin(w, 1 << 20);
        w->page = (struct https_answer){ .status = (uint8_t)failures[i].status, .body = failures[i].body, .why = S("x") };
        EXPECT(w->t, !find(w));
        EXPECT_INT(w->t, w->answer.result, failures[i].result);
        EXPECT(w->t, w->answer.why.len > 0);
        end(w);
    }
    test_case(w->t, "no address");
    begin(w, 1 << 20);
    w->no_address = true;
    w->fetches = 0;
    EXPECT(w->t, !find(w) && w->answer.result == TLS_RESULT_STS_FETCH_ERROR && w->fetches == 0);
    end(w);
    w->no_address = false;

    test_case(w->t, "nobody is free to fetch it: not known, and not noted");
    begin(w, 1 << 20);
    w->error = ERR(ERR_TIMEOUT, "wait");
    EXPECT(w->t, sts_policies_find(w->p, S("a.example"), FOREVER, &w->arena, &w->answer).kind == ERR_TIMEOUT);
    w->error = OK;
    EXPECT(w->t, find(w));
    end(w);
}

static void
run_find(void *arg)
{
    struct world *w = arg;
    struct sts_answer a;
    struct arena arena;

    arena_init(&arena, rt_mem(w->rt), 4096, STS_ANSWER_ARENA_BYTES);
    EXPECT(w->t, !err_is(sts_policies_find(w->p, S("a.example"), FOREVER, &arena, &a)) && a.found);
    arena_done(&arena);
}

static void
one_at_a_time_body(struct world *w)
{
    struct scope scope;

    w->txt = "v=STSv1; id=1";
    begin(w, 1 << 20);
    w->takes = 30 * SECOND;
    scope_init(&scope, w->rt);
    for (int i = 0; i < 20; i++)
        scope_start(&scope, "find", run_find, w);
    EXPECT(w->t, !err_is(scope_wait(&scope, FOREVER)));
    scope_end(&scope);
    EXPECT_INT(w->t, w->fetches, 1);
    EXPECT_INT(w->t, w->most_at_once, 1);
    end(w);
}

static void
run_refresh(void *arg)
{
    struct world *w = arg;

    sts_policies_refresh(w->p);
}

static void
renews_daily_body(struct world *w)
{
    struct scope scope;

    w->txt = "v=STSv1; id=1";
    begin(w, 1 << 20);
    scope_init(&scope, w->rt);
    scope_start(&scope, "refresh", run_refresh, w);
    EXPECT(w->t, find(w) && w->fetches == 1);
    EXPECT(w->t, !err_is(rt_sleep(w->rt, within(w->rt, 23 * HOUR))));
    EXPECT_INT(w->t, w->fetches, 1);
    EXPECT(w->t, !err_is(rt_sleep(w->rt, within(w->rt, 2 * HOUR))));
    EXPECT_INT(w->t, w->fetches, 2);

    test_case(w->t, "one that fails is tried hourly, and without a record not at all");
    w->page.status = HTTPS_UNREACHABLE;
    EXPECT(w->t, !err_is(rt_sleep(w->rt, within(w->rt, 26 * HOUR))));
    EXPECT(w->t, w->fetches >= 4 && w->fetches <= 6);
    size_t then = w->fetches;
    w->txt = NULL;
    EXPECT(w->t, !err_is(rt_sleep(w->rt, within(w->rt, 5 * HOUR))));
    EXPECT(w->t, w->fetches == then && find(w));

    test_case(w->t, "one that nobody asked about for a month is left alone");
    w->txt = "v=STSv1; id=1";
    w->page.status = HTTPS_OK;
    EXPECT(w->t, !err_is(rt_sleep(w->rt, within(w->rt, 45 * DAY))));
    EXPECT(w->t, w->fetches > then + 20 && w->fetches < then + 35);
    then = w->fetches;
    EXPECT(w->t, !err_is(rt_sleep(w->rt, within(w->rt, 5 * DAY))));
    EXPECT_INT(w->t, w->fetches, then);
    scope_end(&scope);
    end(w);
}

/* A policy that cannot be had all day: whoever asks again within the hour mostly finds that known. */
static void
spares_who_comes_again_body(struct world *w)
{
    struct scope scope;
    size_t count;

    w->txt = "v=STSv1; id=1";
    for (int minutes = 10; minutes <= 60; minutes += 10) {
        begin(w, 1 << 20);
        scope_init(&scope, w->rt);
        scope_start(&scope, "refresh", run_refresh, w);
        w->page.status = HTTPS_UNREACHABLE;
        w->fetches = count = 0;
        for (; count * (size_t)minutes < 24 * 60; count++) {
            EXPECT(w->t, !find(w));
            EXPECT(w->t, !err_is(rt_sleep(w->rt, within(w->rt, minutes * MINUTE))));
        }
        EXPECT(w->t, w->fetches <= 5 + count / 2);
        EXPECT_INT(w->t, sts_policies_count(w->p), 1);
        EXPECT(w->t, !err_is(rt_sleep(w->rt, within(w->rt, 4 * HOUR))));
        EXPECT_INT(w->t, sts_policies_count(w->p), 0);
        scope_end(&scope);
        end(w);
    }
}

static void
gives_way_body(struct world *w)
{
    w->txt = "v=STSv1; id=1";
    begin(w, 1);
    EXPECT(w->t, find(w));
    EXPECT_INT(w->t, sts_policies_count(w->p), 0);
    EXPECT(w->t, find(w) && w->fetches == 2);
    end(w);
}

static bool
find_of(struct world *w, struct str domain)
{
    arena_reset(&w->arena);
    EXPECT(w->t, !err_is(sts_policies_find(w->p, domain, within(w->rt, STS_ANSWER_NS), &w->arena, &w->answer)));
    return w->answer.found;
}

/* What is asked about for one mail each, large, does not push out what is small, nor what was asked about before. */
static void
keeps_what_is_wanted_body(struct world *w)
{
    static char large[60000];
    struct text body = text_init(large, sizeof large);
    char memory[40];

    w->txt = "v=STSv1; id=1";
    w->any_domain = true;
    text_put(&body, S(ENFORCE));
    while (body.len + 100 < sizeof large)
        text_putf(&body, "note-%zu: %080d\n", body.len, 0);
    const struct https_answer small = { .status = HTTPS_OK, .body = S(ENFORCE), .why = S("") },
                              other = { .status = HTTPS_OK, .body = text_str(&body), .why = S("") };
    begin(w, 1 << 20);
    EXPECT(w->t, find_of(w, S("a.example")) && find_of(w, S("b.example")));
    w->page = other;
    EXPECT(w->t, find_of(w, S("c.example"))); /* large, but used again */
    EXPECT(w->t, !err_is(rt_sleep(w->rt, within(w->rt, DAY))));
    EXPECT(w->t, find_of(w, S("a.example")) && find_of(w, S("c.example")));
    for (int i = 0; i < 60; i++) {
        struct text name = text_init(memory, sizeof memory);
        text_putf(&name, "x%d.attacker.example", i);
        EXPECT(w->t, find_of(w, text_str(&name)));
    }
    w->page = small;
    w->fetches = 0;
    EXPECT(w->t, find_of(w, S("a.example")) && find_of(w, S("b.example")) && find_of(w, S("c.example")));
    EXPECT_INT(w->t, w->fetches, 0);
    end(w);
    w->any_domain = false;
}

static void
tells_none_from_unknown_body(struct world *w)
{
    w->txt = "v=STSv1; id=1";
    begin(w, 1 << 20);
    w->status = DNS_TEMPORARY;
    test_case(w->t, "nothing is known, and the record cannot be looked up");
    EXPECT(w->t, !find(w) && w->answer.result == TLS_RESULT_STS_FETCH_ERROR && w->answer.why.len > 0);
    EXPECT_INT(w->t, sts_policies_count(w->p), 0);
    w->status = DNS_FOUND;
    EXPECT(w->t, find(w));
    w->status = DNS_TEMPORARY;
    test_case(w->t, "what is kept counts");
    EXPECT(w->t, find(w) && w->answer.result == TLS_RESULT_OK);
    w->status = DNS_FOUND;
    end(w);
}

/* ---- with files ---- */

static struct str
read_back(struct world *w, struct dir *dir, struct str name)
{
    char *memory = arena_alloc(&w->arena, 4096);
    struct file *file;
    size_t len = 0;

    if (err_is(file_open(dir, name, FILE_READ, 0, LANE_POOL, FOREVER, &file)))
        return (struct str){ NULL, 0 };
    EXPECT(w->t, !err_is(file_read(file, memory, 4096, 0, LANE_POOL, FOREVER, &len)));
    file_close(file);
    return str_new(memory, len);
}

static void
write_back(struct world *w, struct dir *dir, struct str name, struct str bytes)
{
    struct file *file;

    EXPECT(w->t, !err_is(file_open(dir, name, FILE_WRITE | FILE_CREATE | FILE_TRUNCATE, 0600, LANE_POOL, FOREVER, &file)));
    EXPECT(w->t, !err_is(file_write(file, &bytes, 1, 0, LANE_POOL, FOREVER)));
    file_close(file);
}

static void
restart(struct world *w, struct dir *dir)
{
    end(w);
    begin(w, 1 << 20);
    w->fetches = 0;
    EXPECT(w->t, !err_is(sts_policies_load(w->p, dir, FOREVER)));
}

static void
survives_a_restart_body(struct world *w)
{
    char path[] = "/tmp/sts_policies_test.XXXXXX", old[400];
    struct dir *dir;

    CHECK(mkdtemp(path));
    struct err e = dir_open(w->rt, str_from_cstr(path), LANE_POOL, FOREVER, &dir);
    CHECK(!err_is(e));
    w->txt = "v=STSv1; id=1";
    begin(w, 1 << 20);
    EXPECT(w->t, !err_is(sts_policies_load(w->p, dir, FOREVER)));
    EXPECT(w->t, find(w) && w->fetches == 1);
    struct str bytes = read_back(w, dir, S("a.example"));
    EXPECT(w->t, str_starts(bytes, S("postrider mta-sts 1\ncheck ")) && str_ends(bytes, S("\n\n" ENFORCE)));
    struct text copy = text_init(old, sizeof old);
    text_put(&copy, bytes);

    restart(w, dir);
    EXPECT(w->t, find(w) && w->fetches == 0 && w->answer.policy.mode == STS_ENFORCE);
    test_case(w->t, "a file that was being written");
    write_back(w, dir, S("b.example~"), S("postr"));
    restart(w, dir);
    EXPECT(w->t, find(w) && w->fetches == 0);
    EXPECT(w->t, str_is_absent(read_back(w, dir, S("b.example~"))));

    test_case(w->t, "damaged: fetched anew");
    old[copy.len - 4] ^= 1;
    write_back(w, dir, S("a.example"), text_str(&copy));
    restart(w, dir);
    EXPECT_INT(w->t, sts_policies_count(w->p), 0);
    EXPECT(w->t, str_is_absent(read_back(w, dir, S("a.example"))));
    EXPECT(w->t, find(w) && w->fetches == 1);

    test_case(w->t, "expired: it counts no more");
    copy.len = 0;
    sts_file_put(&copy, &(struct sts_file){ S("1"), S(ENFORCE), rt_wall(w->rt) - 864001 * SECOND });
    write_back(w, dir, S("a.example"), text_str(&copy));
    restart(w, dir);
    w->page.status = HTTPS_UNREACHABLE;
    EXPECT(w->t, !find(w) && w->fetches == 1 && w->answer.result == TLS_RESULT_STS_FETCH_ERROR);
    end(w);
    EXPECT(w->t, !err_is(dir_unlink(dir, S("a.example"), LANE_POOL, FOREVER)));
    dir_close(dir);
    EXPECT(w->t, rmdir(path) == 0);
}

static void
reads_its_files(struct test *t)
{
    char memory[600];
    struct text text = text_init(memory, sizeof memory);
    struct sts_file f;

    sts_file_put(&text, &(struct sts_file){ S("abc"), S(ENFORCE), 1790000000 * SECOND });
    EXPECT(t, !text.full && sts_file_parse(text_str(&text), &f));
    EXPECT_STR(t, f.id, S("abc"));
    EXPECT_STR(t, f.body, S(ENFORCE));
    EXPECT_INT(t, f.fetched_wall, 1790000000 * SECOND);
    for (size_t len = 0; len < text.len; len++) {
        struct str cut = test_edge(str_slice(text_str(&text), 0, len));
        EXPECT(t, !sts_file_parse(cut, &f));
        test_edge_free(cut);
    }
    for (size_t bit = 0; bit < text.len * 8; bit++) {
        memory[bit / 8] = (char)(memory[bit / 8] ^ (1 << bit % 8));
        EXPECT(t, !sts_file_parse(text_str(&text), &f));
        memory[bit / 8] = (char)(memory[bit / 8] ^ (1 << bit % 8));
    }
}

/* ---- worlds ---- */

struct run {
    struct test *t;
    void (*body)(struct world *);
};

static void
main_fiber(struct rt *rt, void *arg)
{
    struct run *run = arg;
    struct world w = { .t = run->t, .rt = rt };

    run->body(&w);
}

#define WORLD_TEST(name, runs)                                                                                         \
    static void name(struct test *t)                                                                                   \
    {                                                                                                                  \
        EXPECT(t, !err_is(runs(main_fiber, &(struct run){ t, name##_body })));                                         \
    }
WORLD_TEST(keeps_and_renews, rt_run_leaping)
WORLD_TEST(fails, rt_run_leaping)
WORLD_TEST(one_at_a_time, rt_run_leaping)
WORLD_TEST(renews_daily, rt_run_leaping)
WORLD_TEST(spares_who_comes_again, rt_run_leaping)
WORLD_TEST(gives_way, rt_run_leaping)
WORLD_TEST(keeps_what_is_wanted, rt_run_leaping)
WORLD_TEST(tells_none_from_unknown, rt_run_leaping)
WORLD_TEST(survives_a_restart, rt_run)

TEST_MAIN({ "keeps and renews", keeps_and_renews },
          { "fails, and says how", fails },
          { "one fetch at a time for a domain", one_at_a_time },
          { "renews daily", renews_daily },
          { "spares who comes again", spares_who_comes_again },
          { "gives way", gives_way },
          { "keeps what is wanted", keeps_what_is_wanted },
          { "tells no record from an unknown one", tells_none_from_unknown },
          { "survives a restart", survives_a_restart },
          { "reads its files", reads_its_files })
