/*
 * test - our own harness, because tests must also run inside the simulator. TAP on standard output.
 *
 *     static void
 *     cuts_at_the_first_byte(struct test *t)
 *     {
 *         EXPECT(t, str_eq(...));
 *         EXPECT_STR(t, got, S("wanted"));
 *     }
 *     TEST_MAIN({ "cuts at the first byte", cuts_at_the_first_byte }, ...)
 *
 * In a table of cases, call test_case(t, why) first: a failure then names the case. An EXPECT that fails goes on.
 */
#ifndef BASE_TEST_H
#define BASE_TEST_H

#include "base/str.h"

struct test {
    const char *name;
    const char *why; /* the case at hand, or NULL */
    size_t failures, expectations;
    const char *skipped; /* why, or NULL */
};
struct test_entry {
    const char *name;
    void (*run)(struct test *);
};

void test_case(struct test *, const char *why);
void test_skip(struct test *, const char *why); /* then return */
bool test_expect(struct test *, bool ok, const char *what, const char *file, int line);
bool test_expect_str(struct test *, struct str got, struct str want, const char *what, const char *file, int line);
bool test_expect_int(struct test *, int64_t got, int64_t want, const char *what, const char *file, int line);
int  test_run(const struct test_entry *, size_t count, int argc, char **argv); /* argv: names to run alone */

#define EXPECT(t, condition) test_expect((t), (condition), #condition, __FILE__, __LINE__)
#define EXPECT_STR(t, got, want) test_expect_str((t), (got), (want), #got, __FILE__, __LINE__)
#define EXPECT_INT(t, got, want) test_expect_int((t), (int64_t)(got), (int64_t)(want), #got, __FILE__, __LINE__)
#define TEST_MAIN(...)                                                                                                 \
    int main(int argc, char **argv)                                                                                    \
    {                                                                                                                  \
        static const struct test_entry entries[] = { __VA_ARGS__ };                                                    \
        return test_run(entries, sizeof entries / sizeof *entries, argc, argv);                                        \
    }

/* A copy of s whose end lies against an unmapped page: a parser that reads past it dies. Free with test_edge_free(). */
struct str test_edge(struct str);
void test_edge_free(struct str);

/*
 * A file of the shared conformance data, by its path there; the directory is $POSTRIDER_SHARED, or a directory "shared"
 * beside the source tree. Absent if there is none: the test is then skipped and should return. Free with
 * test_file_free().
 */
struct str test_shared_file(struct test *, const char *path);
/* A file of our own source tree, which is the working directory or one of its parents; else as above. */
struct str test_source_file(struct test *, const char *path);
void test_file_free(struct str);

#endif
