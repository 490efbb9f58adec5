/* The addresses in a To: field, as people write them. */
#include "cli/recipients.h"

#include "base/test.h"

static void
finds_every_address(struct test *t)
{
    static const struct {
        const char *why;
        struct str in, want; /* joined by "|" */
    } cases[] = {
        { "plain", STR("a@b.example"), STR("a@b.example") },
        { "two", STR("a@b.example, c@d.example"), STR("a@b.example|c@d.example") },
        { "with a name", STR("Ann B <a@b.example>"), STR("a@b.example") },
        { "a comma in a quoted name", STR("\"B, Ann\" <a@b.example>, c@d"), STR("a@b.example|c@d") },
        { "a bracket in a quoted name", STR("\"<x@y>\" <a@b.example>"), STR("a@b.example") },
        { "comments", STR("a@b.example (Ann (of B, the one)), (x) c@d"), STR("a@b.example|c@d") },
        { "a backslash in a comment", STR("a@b (\\), x@y), c@d"), STR("a@b|c@d") },
        { "folded", STR("a@b.example,\r\n c@d.example"), STR("a@b.example|c@d.example") },
        { "group", STR("friends: a@b, Cy <c@d>;, e@f"), STR("a@b|c@d|e@f") },
        { "empty group", STR("undisclosed-recipients:;"), STR("") },
        { "route", STR("<@x.example,@y.example:a@b>"), STR("a@b") },
        { "quoted local part", STR("\"a, b\"@c.example"), STR("\"a, b\"@c.example") },
        { "a quoted quote", STR("\"a\\\",b\"@c.example, d@e"), STR("\"a\\\",b\"@c.example|d@e") },
        { "address literal", STR("a@[IPv6:2001:db8::1], b@c"), STR("a@[IPv6:2001:db8::1]|b@c") },
        { "spaces around dots and at", STR("a . b @ c . example"), STR("a.b@c.example") },
        { "no domain", STR("root, postmaster"), STR("root|postmaster") },
        { "a name without brackets is no address, and stays wrong", STR("Ann B a@b"), STR("Ann B a@b") },
        { "empty entries", STR(" , ,a@b,, "), STR("a@b") },
        { "bracket that never ends", STR("Ann <a@b.example"), STR("a@b.example") },
        { "quote that never ends", STR("\"a@b, c@d"), STR("\"a@b, c@d") },
        { "comment that never ends", STR("a@b (x, c@d"), STR("a@b") },
        { "nothing", STR(""), STR("") },
    };
    struct mem mem = mem_libc();
    struct arena arena;

    arena_init(&arena, &mem, 1024, SIZE_MAX);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct str in = test_edge(cases[i].in), rest = in, one, all = S("");
        test_case(t, cases[i].why);
        while (recipients_take(&rest, &arena, &one))
            all = all.len ? arena_printf(&arena, "%.*s|%.*s", STR_ARG(all), STR_ARG(one)) : one;
        EXPECT_STR(t, all, cases[i].want);
        test_edge_free(in);
    }
    arena_done(&arena);
}

static void
ends_wherever_it_is_cut(struct test *t)
{
    struct str whole = S("friends: \"B, Ann\" <@x:a.b@c.example> (of \\( d), \"q\\\"\"@[192.0.2.1]; e @ f");
    struct mem mem = mem_libc();
    struct arena arena;

    arena_init(&arena, &mem, 1024, SIZE_MAX);
    for (size_t len = 0; len <= whole.len; len++) {
        struct str in = test_edge(str_slice(whole, 0, len)), rest = in, one;
        size_t count = 0;
        while (recipients_take(&rest, &arena, &one))
            count += EXPECT(t, one.len > 0);
        EXPECT(t, count <= 3 && rest.len == 0);
        test_edge_free(in);
    }
    arena_done(&arena);
}

TEST_MAIN({ "finds every address", finds_every_address }, { "ends wherever it is cut", ends_wherever_it_is_cut })
