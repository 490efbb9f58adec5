/* test - see test.h. */
#include "base/test.h"

#include "base/check.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

void
test_case(struct test *t, const char *why)
{
    t->why = why;
}

void
test_skip(struct test *t, const char *why)
{
    t->skipped = why;
}

static void
say_where(struct test *t, const char *what, const char *file, int line)
{
    printf("# %s:%d: %s%s%s: %s\n", file, line, t->name, t->why ? ": " : "", t->why ? t->why : "", what);
}

bool
test_expect(struct test *t, bool ok, const char *what, const char *file, int line)
{
    t->expectations++;
    if (ok)
        return true;
    t->failures++;
    say_where(t, what, file, line);
    return false;
}

static void
print_escaped(const char *label, struct str s)
{
    printf("#   %s %zu \"", label, s.len);
    for (size_t i = 0; i < s.len && i < 2000; i++) {
        unsigned char c = (unsigned char)s.ptr[i];
        if (c >= ' ' && c < 0x7f)
            putchar(c);
        else
            printf("\\x%02x", c);
    }
    printf("\"\n");
}

bool
test_expect_str(struct test *t, struct str got, struct str want, const char *what, const char *file, int line)
{
    bool ok = str_eq(got, want) && str_is_absent(got) == str_is_absent(want);

    if (!test_expect(t, ok, what, file, line)) {
        print_escaped("got ", got);
        print_escaped("want", want);
    }
    return ok;
}

bool
test_expect_int(struct test *t, int64_t got, int64_t want, const char *what, const char *file, int line)
{
    bool ok = got == want;

    if (!test_expect(t, ok, what, file, line))
        printf("#   got %" PRId64 ", want %" PRId64 "\n", got, want);
    return ok;
}

static bool
wanted(const char *name, int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], name) == 0)
            return true;
    return argc < 2;
}

int
test_run(const struct test_entry *entries, size_t count, int argc, char **argv)
{
    size_t failed = 0;

    setvbuf(stdout, NULL, _IOLBF, 0);
    printf("1..%zu\n", count);
    for (size_t i = 0; i < count; i++) {
        struct test t = { .name = entries[i].name };
        if (wanted(t.name, argc, argv))
            entries[i].run(&t);
        else
            t.skipped = "not asked for";
        if (!t.skipped && t.expectations == 0 && test_expect(&t, false, "the test expects nothing", __FILE__, __LINE__))
            UNREACHABLE();
        failed += t.failures > 0;
        printf("%s %zu - %s%s%s\n", t.failures ? "not ok" : "ok", i + 1, t.name, t.skipped ? " # SKIP " : "",
               t.skipped ? t.skipped : "");
    }
    return failed > 0;
}

enum { PAGE = 4096 };

static size_t
edge_pages(size_t len)
{
    return (len + PAGE - 1) / PAGE + 1;
}

struct str
test_edge(struct str s)
{
    size_t pages = edge_pages(s.len);
    char *map = mmap(NULL, (pages + 1) * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    CHECK(map != MAP_FAILED);
    CHECK(mprotect(map + pages * PAGE, PAGE, PROT_NONE) == 0);
    char *at = map + pages * PAGE - s.len;
    if (s.len)
        memcpy(at, s.ptr, s.len);
    return str_new(at, s.len);
}

void
test_edge_free(struct str s)
{
    size_t pages = edge_pages(s.len);
    char *end = (char *)(uintptr_t)(s.ptr + s.len);

    CHECK(munmap(end - pages * PAGE, (pages + 1) * PAGE) == 0);
}

/* Tests run in the build directory or in the source tree: the shared data is beside one of the parents. */
static FILE *
open_shared(const char *path)
{
    static const char *const ups[] = { "..", "../..", "../../..", "../../../..", "../../../../.." };
    const char *shared = getenv("POSTRIDER_SHARED");
    char name[1024];
    FILE *f = NULL;

    if (shared) {
        snprintf(name, sizeof name, "%s/%s", shared, path);
        return fopen(name, "rb");
    }
    for (size_t i = 0; !f && i < sizeof ups / sizeof *ups; i++) {
        snprintf(name, sizeof name, "%s/shared/%s", ups[i], path);
        f = fopen(name, "rb");
    }
    return f;
}

static struct str
read_all(FILE *f)
{
    CHECK(fseek(f, 0, SEEK_END) == 0);
    long size = ftell(f);
    rewind(f);
    CHECK(size >= 0);
    char *bytes = malloc((size_t)size + 1);
    CHECK(bytes != NULL);
    CHECK(fread(bytes, 1, (size_t)size, f) == (size_t)size);
    CHECK(fclose(f) == 0);
    return str_new(bytes, (size_t)size);
}

struct str
test_shared_file(struct test *t, const char *path)
{
    FILE *f = open_shared(path);

    if (f)
        return read_all(f);
    test_skip(t, "no shared conformance data");
    return (struct str){ 0 };
}

struct str
test_source_file(struct test *t, const char *path)
{
    static const char *const ups[] = { ".", "..", "../.." };
    char name[1024];
    FILE *f = NULL;

    for (size_t i = 0; !f && i < sizeof ups / sizeof *ups; i++) {
        snprintf(name, sizeof name, "%s/%s", ups[i], path);
        f = fopen(name, "rb");
    }
    if (f)
        return read_all(f);
    test_skip(t, "the source tree is elsewhere");
    return (struct str){ 0 };
}

void
test_file_free(struct str file)
{
    free((void *)(uintptr_t)file.ptr);
}
