/*
 * conf_fake - for tests: a struct conf_world of a few files in memory, and what reading them takes. Of patterns it
 * knows "*" at the end; of the environment, HOST.
 */
#ifndef BASE_CONF_FAKE_H
#define BASE_CONF_FAKE_H

#include "base/conf.h"

struct conf_fake_file {
    struct str path, text;
};
struct conf_fake {
    const struct conf_fake_file *files;
    size_t count, loads;
};

static inline struct err
conf_fake_load(void *ctx, struct str path, struct arena *arena, struct str *out_bytes)
{
    struct conf_fake *fake = ctx;

    fake->loads++;
    for (size_t i = 0; i < fake->count; i++)
        if (str_eq(fake->files[i].path, path)) {
            *out_bytes = arena_keep(arena, fake->files[i].text);
            return OK;
        }
    return ERR(ERR_NOT_FOUND, NULL);
}

static inline struct err
conf_fake_glob(void *ctx, struct str pattern, struct arena *arena, struct str **out_paths, size_t *out_count)
{
    struct conf_fake *fake = ctx;
    struct str prefix = str_slice(pattern, 0, str_find_byte(pattern, '*'));

    *out_paths = arena_alloc(arena, fake->count * sizeof **out_paths);
    *out_count = 0;
    for (size_t i = 0; i < fake->count; i++)
        if (str_starts(fake->files[i].path, prefix) && str_find_last_byte(fake->files[i].path, '/') < prefix.len)
            (*out_paths)[(*out_count)++] = fake->files[i].path;
    return OK;
}

static inline struct str
conf_fake_env(void *ctx, struct str name)
{
    (void)ctx;
    return str_eq(name, S("HOST")) ? S("mx; } \"x") : CONF_NO_SUGGESTION;
}

static inline struct conf_world
conf_fake_world(struct conf_fake *fake)
{
    return (struct conf_world){ fake, conf_fake_load, conf_fake_glob, conf_fake_env };
}

struct conf_fixture {
    struct mem mem;
    struct arena arena;
    struct conf_fake fake;
    struct conf_world world;
    struct conf_bundle bundle; /* of the first file */
    struct conf_problems problems;
};

static inline void
conf_fixture_init(struct conf_fixture *f, const struct conf_fake_file *files, size_t count)
{
    f->mem = mem_libc();
    arena_init(&f->arena, &f->mem, 4096, 1 << 30);
    f->fake = (struct conf_fake){ files, count, 0 };
    f->world = conf_fake_world(&f->fake);
    conf_bundle_init(&f->bundle, &f->arena, &f->world, files[0].path);
    conf_problems_init(&f->problems, &f->arena);
}

static inline void
conf_fixture_done(struct conf_fixture *f)
{
    conf_bundle_done(&f->bundle);
    arena_done(&f->arena);
}

/* A problem, as people see it; nothing if there are not so many. Into the arena. */
static inline struct str
conf_fixture_problem(struct conf_fixture *f, size_t at)
{
    struct text t = text_init(arena_alloc(&f->arena, 1000), 1000);

    if (at < f->problems.count)
        conf_problem_put(&t, &f->problems.items[at]);
    return text_str(&t);
}

#endif
