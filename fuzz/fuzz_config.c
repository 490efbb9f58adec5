/*
 * fuzz_config - whole sites, and what their directory says of addresses.
 *
 * Aims at: role/config.c base/setting.c policy/directory.c policy/directory_config.c
 * Seeds:   role/config_test.c policy/directory_test.c base/setting_test.c
 * Longest: 4000
 * Test:    4500 runs
 *
 * Fields of the input: the main file, an alias file, and an address. Either there are errors and no site, or a site, which the
 * encoded bundle gives again. Every domain has a route; no answer about an address takes more memory than was foretold; a
 * stranger is never relayed for; what is accepted names recipients that have addresses.
 */
#include "fuzz.h"

#include "base/conf_fake.h"
#include "role/config.h"

static void
check_verdict(const struct site *site, const struct directory_verdict *v)
{
    (void)site;
    bool accepted = v->answer == DIRECTORY_ACCEPT || v->answer == DIRECTORY_FORWARD || v->answer == DIRECTORY_RELAY ||
                    v->answer == DIRECTORY_VERIFY;
    CHECK(accepted == (v->count > 0));
    for (size_t i = 0; i < v->count; i++)
        CHECK(v->recipients[i].address.len > 0);
}

static void
ask(const struct site *site, struct str address, struct arena *arena)
{
    struct arena own;
    struct directory_verdict v;
    struct directory_query query = { 0 };
    struct text maildir = fuzz_text(arena, 4096);

    CHECK(site_route(site, address) != NULL);
    (void)directory_maildir(site->directory, address, &maildir);
    arena_init(&own, own_mem, 4096, directory_answer_bytes(site->directory));
    if (path_parse(address, arena, &query.path)) {
        CHECK(site_route(site, query.path.domain) != NULL && directory_route(site->directory, query.path.domain) != NULL);
        for (int trusted = 0; trusted < 2; trusted++) {
            query.trusted = trusted;
            directory_lookup(site->directory, &query, &own, &v);
            CHECK(trusted || v.answer != DIRECTORY_RELAY);
            check_verdict(site, &v);
            arena_reset(&own);
        }
    }
    directory_vrfy(site->directory, address, &own, &v);
    arena_reset(&own);
    directory_expn(site->directory, address, &own, &v);
    arena_done(&own);
}

static void
load_again(const struct conf_bundle *bundle, struct arena *arena)
{
    struct conf_problems *problems = arena_new(arena, struct conf_problems);
    size_t size = conf_bundle_size(bundle);
    struct put put = put_init(arena_alloc(arena, size), size);
    struct conf_bundle copy;

    conf_bundle_put(&put, bundle);
    CHECK(!put.full);
    struct take take = take_init(put_str_so_far(&put));
    CHECK(conf_bundle_take(&take, arena, &copy) && take_end(&take));
    conf_problems_init(problems, arena);
    struct site *site = site_load(own_mem, &copy, 8, problems);
    CHECK(site && problems->errors == 0);
    site_free(site);
    conf_bundle_done(&copy);
}

void
fuzz_one(struct str input, struct arena *arena)
{
    struct str rest = input, main_text = fuzz_field(&rest), aliases = fuzz_field(&rest);
    const struct conf_fake_file files[] = { { STR("/etc/postrider/postrider.conf"), main_text },
                                            { STR("/etc/postrider/aliases"), aliases } };
    struct conf_fake fake = { files, 2, 0 };
    struct conf_world world = conf_fake_world(&fake);
    struct conf_bundle bundle;
    struct conf_problems *problems = arena_new(arena, struct conf_problems);
    struct directory_domain_info info;
    const struct domain *at = NULL;

    conf_problems_init(problems, arena);
    conf_bundle_init(&bundle, arena, &world, files[0].path);
    struct site *site = site_load(own_mem, &bundle, 7, problems);
    CHECK((site != NULL) == (problems->errors == 0));
    if (site) {
        CHECK(site->hostname.len > 0 && site->route_count > 0);
        ask(site, rest, arena);
        ask(site, S("root@localhost"), arena);
        while (directory_next(site->directory, &at, &info)) {
            ask(site, arena_join(arena, S("postmaster@"), info.name), arena);
            ask(site, arena_join(arena, S("a+b%c!d@"), info.name), arena);
        }
        load_again(&bundle, arena);
        site_free(site);
    }
    conf_bundle_done(&bundle);
}
