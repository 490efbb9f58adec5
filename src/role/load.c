/* load - see load.h. */
#include "role/load.h"

#include "base/check.h"
#include "message/domain.h"
#include "runtime/host.h"

enum { ARENA_MAX = 1 << 30, GLOB_MAX = 10000 };

/* ---- the world ---- */

static struct err
world_load(void *ctx, struct str path, struct arena *arena, struct str *out_bytes)
{
    return host_read_file(ctx, path, LIMIT_CONFIG_BYTES, arena, FOREVER, out_bytes);
}

/* "*" stands for any run of bytes, "?" for one; neither matches a dot in front. */
static bool
matches(struct str pattern, struct str name)
{
    size_t p = 0, n = 0, star = SIZE_MAX, star_n = 0;

    if (str_starts(name, S(".")) && !str_starts(pattern, S(".")))
        return false;
    while (n < name.len) {
        if (p < pattern.len && (pattern.ptr[p] == '?' || (pattern.ptr[p] == name.ptr[n] && pattern.ptr[p] != '*'))) {
            p++;
            n++;
        } else if (p < pattern.len && pattern.ptr[p] == '*') {
            star = p++;
            star_n = n;
        } else if (star != SIZE_MAX) {
            p = star + 1;
            n = ++star_n;
        } else {
            return false;
        }
    }
    while (p < pattern.len && pattern.ptr[p] == '*')
        p++;
    return p == pattern.len;
}

/* A pattern in the last part of the path only: "/etc/postrider/conf.d/" followed by "*.conf". */
static struct err
world_glob(void *ctx, struct str pattern, struct arena *arena, struct str **out_paths, size_t *out_count)
{
    struct rt *rt = ctx;
    size_t slash = str_find_last_byte(pattern, '/');
    struct str parent = slash < pattern.len ? str_slice(pattern, 0, slash + 1) : S("./");
    struct str last = slash < pattern.len ? str_from(pattern, slash + 1) : pattern;
    struct str *names;
    size_t count, kept = 0;
    struct host_file file;
    struct dir *dir;

    *out_count = 0;
    if (str_find_byte(last, '*') == last.len && str_find_byte(last, '?') == last.len) {
        *out_paths = arena_new(arena, struct str);
        (*out_paths)[0] = arena_keep(arena, pattern);
        *out_count = !err_is(host_stat(rt, pattern, FOREVER, &file));
        return OK;
    }
    struct err e = dir_open(rt, parent, LANE_POOL, FOREVER, &dir);
    if (e.kind == ERR_NOT_FOUND)
        return OK;
    TRY(e);
    e = dir_list(dir, arena, LANE_POOL, FOREVER, &names, &count);
    dir_close(dir);
    TRY(e);
    for (size_t i = 0; i < count && kept < GLOB_MAX; i++)
        if (matches(last, names[i]))
            names[kept++] = slash < pattern.len ? arena_join(arena, parent, names[i]) : names[i];
    *out_paths = names;
    *out_count = kept;
    return OK;
}

static struct str
world_env(void *ctx, struct str name)
{
    return host_env(ctx, name);
}

struct conf_world
load_world(struct rt *rt)
{
    return (struct conf_world){ rt, world_load, world_glob, world_env };
}

/* ---- sites ---- */

static void
begin(struct rt *rt, struct loaded *l)
{
    *l = (struct loaded){ .mem = rt_mem(rt) };
    arena_init(&l->arena, l->mem, 64 << 10, ARENA_MAX);
}

bool
load_file(struct rt *rt, struct str path, struct loaded *out, struct text *out_problems)
{
    struct conf_world world = load_world(rt);
    struct arena scratch;

    arena_init(&scratch, rt_mem(rt), 16 << 10, ARENA_MAX);
    struct conf_problems *problems = arena_new(&scratch, struct conf_problems);
    begin(rt, out);
    conf_problems_init(problems, &scratch);
    conf_bundle_init(&out->bundle, &out->arena, &world, arena_keep(&out->arena, path));
    out->site = site_load(rt_mem(rt), &out->bundle, rt_random(rt), problems);
    for (size_t i = 0; i < problems->count; i++) {
        conf_problem_put(out_problems, &problems->items[i]);
        text_put_byte(out_problems, '\n');
    }
    arena_done(&scratch);
    out->bundle.world = NULL;
    if (!out->site) {
        load_free(out);
        return false;
    }
    size_t size = conf_bundle_size(&out->bundle);
    struct put p = put_init(arena_alloc(&out->arena, size), size);
    conf_bundle_put(&p, &out->bundle);
    out->encoded = put_str_so_far(&p);
    return true;
}

bool
load_bundle(struct rt *rt, void *bytes, size_t len, size_t own_size, struct loaded *out)
{
    struct take t = take_init(str_new(bytes, len));
    struct arena scratch;

    begin(rt, out);
    out->own_bytes = bytes;
    out->own_size = own_size;
    if (!conf_bundle_take(&t, &out->arena, &out->bundle)) {
        out->bundle.arena = NULL;
        load_free(out);
        return false;
    }
    arena_init(&scratch, rt_mem(rt), 16 << 10, ARENA_MAX);
    struct conf_problems *problems = arena_new(&scratch, struct conf_problems);
    conf_problems_init(problems, &scratch);
    out->site = site_load(rt_mem(rt), &out->bundle, rt_random(rt), problems);
    arena_done(&scratch);
    if (out->site)
        return true;
    load_free(out);
    return false;
}

struct err
load_basics(struct rt *rt, struct str path, struct arena *arena, struct str *out_state, struct str *out_hostname)
{
    const struct conf_world world = load_world(rt);
    struct conf_problems *problems = arena_new(arena, struct conf_problems);
    struct conf_bundle bundle;
    struct str bytes;

    *out_state = *out_hostname = (struct str){ NULL, 0 };
    TRY(host_whole_path(rt, path, arena, &path));
    conf_problems_init(problems, arena);
    conf_bundle_init(&bundle, arena, &world, path);
    struct err e = conf_bundle_load(&bundle, path, &bytes);
    for (struct conf_node *node = err_is(e) ? NULL : conf_parse(&bundle, arena, problems); node; node = node->next) {
        struct conf_word word = node->words[node->count - 1];
        if (node->count == 2 && str_eq(node->words[0].text, S("state")) && str_is_absent(*out_state))
            *out_state = conf_resolve(arena, word.where.file, word.text);
        if (node->count == 2 && str_eq(node->words[0].text, S("hostname")))
            *out_hostname = domain_to_ascii(word.text, arena);
    }
    conf_bundle_done(&bundle);
    return e;
}

void
load_free(struct loaded *l)
{
    if (!l->mem)
        return;
    if (l->site)
        site_free(l->site);
    if (l->bundle.arena)
        conf_bundle_done(&l->bundle);
    arena_done(&l->arena);
    mem_free(l->mem, l->own_bytes, l->own_size);
    *l = (struct loaded){ 0 };
}

struct str
load_mail_base(struct str template)
{
    struct str fixed = str_slice(template, 0, str_find_byte(template, '{'));
    size_t slash = str_find_last_byte(fixed, '/');

    return slash == 0 ? S("/") : str_slice(fixed, 0, slash);
}

size_t
load_mail_users(const struct site *site, struct str out[SITE_MAIL_DIRS_MAX])
{
    struct directory_domain_info info;
    size_t count = 0;

    for (const struct domain *at = NULL; directory_next(site->directory, &at, &info);) {
        struct str user = str_is_absent(info.route->user) ? S("") : info.route->user;
        size_t i = 0;
        if (info.route->kind != DIRECTORY_ROUTE_MAILDIR)
            continue;
        while (i < count && !str_eq(out[i], user))
            i++;
        if (i < count)
            continue;
        CHECK(count < SITE_MAIL_DIRS_MAX); /* the configuration has no more directories */
        out[count++] = user;
    }
    return count;
}
