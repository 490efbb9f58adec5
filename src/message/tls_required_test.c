/* tls_required_test - every case whole, byte by byte, and cut in two everywhere. */
#include "base/test.h"
#include "message/tls_required.h"

static const struct {
    const char *why;
    struct str header;
    bool no;
} cases[] = {
    { "as in the RFC", STR("From: a@b\r\nTLS-Required: No\r\nSubject: x\r\n\r\n"), true },
    { "the first field, in other case", STR("tls-required: nO\r\n\r\n"), true },
    { "no space", STR("TLS-Required:No\r\n\r\n"), true },
    { "folded", STR("TLS-Required:\r\n No\r\n\r\n"), true },
    { "a space before the colon, as RFC 822 had it", STR("TLS-Required : No\r\n\r\n"), true },
    { "the last field", STR("Subject: x\r\nTLS-Required: No\r\n\r\nbody"), true },
    { "another value", STR("TLS-Required: Yes\r\n\r\n"), false },
    { "more than that value", STR("TLS-Required: No, really\r\n\r\n"), false },
    { "more on the next line", STR("TLS-Required: No\r\n way\r\n\r\n"), false },
    { "too long", STR("TLS-Required:                                  No\r\n\r\n"), false },
    { "another field", STR("X-TLS-Required: No\r\n\r\n"), false },
    { "within another field", STR("Subject: x\r\n TLS-Required: No\r\n\r\n"), false },
    { "in the body", STR("Subject: x\r\n\r\nTLS-Required: No\r\n\r\n"), false },
    { "no header", STR("\r\nTLS-Required: No\r\n\r\n"), false },
    { "nothing", STR(""), false },
};

static void
finds_it(struct test *t)
{
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (size_t cut = 0; cut <= cases[i].header.len; cut++) {
            struct str front = test_edge(str_slice(cases[i].header, 0, cut)), back = test_edge(str_from(cases[i].header, cut));
            struct tls_required r = { 0 }, bytewise = { 0 };

            test_case(t, cases[i].why);
            tls_required_scan(&r, front);
            tls_required_scan(&r, back);
            EXPECT(t, r.no == cases[i].no);
            for (size_t k = 0; k < cases[i].header.len; k++)
                tls_required_scan(&bytewise, str_slice(cases[i].header, k, k + 1));
            EXPECT(t, bytewise.no == cases[i].no);
            test_edge_free(front);
            test_edge_free(back);
        }
}

TEST_MAIN({ "finds it", finds_it })
