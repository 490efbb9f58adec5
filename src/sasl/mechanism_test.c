/* mechanism_test - what is offered to whom, and whom one may send as. */
#include "sasl/mechanism.h"

#include "base/test.h"
#include "sasl/sender.h"

static void
names_go_both_ways(struct test *t)
{
    for (int m = 0; m < SASL_MECHANISMS; m++)
        EXPECT_INT(t, sasl_mechanism_by_name(sasl_mechanism_name((enum sasl_mechanism)m)), m);
    EXPECT_INT(t, sasl_mechanism_by_name(S("scram-sha-256-plus")), SASL_SCRAM_SHA_256_PLUS);
    EXPECT_INT(t, sasl_mechanism_by_name(S("GSSAPI")), SASL_MECHANISMS);
    EXPECT_INT(t, sasl_mechanism_by_name(S("")), SASL_MECHANISMS);
}

static void
offers_what_is_safe(struct test *t)
{
    static const struct {
        const char *why;
        struct sasl_situation situation;
        unsigned wanted;
    } cases[] = {
        { "in clear nothing, whatever else is claimed", { false, true, true }, 0 },
        { "TLS alone", { true, false, false }, SASL_BIT(SASL_SCRAM_SHA_256) | SASL_BIT(SASL_PLAIN) },
        { "TLS that can be bound to", { true, true, false },
          SASL_BIT(SASL_SCRAM_SHA_256_PLUS) | SASL_BIT(SASL_SCRAM_SHA_256) | SASL_BIT(SASL_PLAIN) },
        { "a certificate", { true, false, true },
          SASL_BIT(SASL_EXTERNAL) | SASL_BIT(SASL_SCRAM_SHA_256) | SASL_BIT(SASL_PLAIN) },
    };
    unsigned site = SASL_BIT(SASL_EXTERNAL) | SASL_BIT(SASL_SCRAM_SHA_256_PLUS) | SASL_BIT(SASL_SCRAM_SHA_256) |
                    SASL_BIT(SASL_PLAIN);

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        test_case(t, cases[i].why);
        EXPECT_INT(t, sasl_offered(site, cases[i].situation), cases[i].wanted);
        EXPECT_INT(t, sasl_offered(0, cases[i].situation), 0);
    }
}

static void
knows_senders(struct test *t)
{
    static const struct {
        const char *why;
        struct str sender, address;
        bool covers;
    } cases[] = {
        { "the address", STR("sales@example.org"), STR("Sales@EXAMPLE.org"), true },
        { "another", STR("sales@example.org"), STR("sale@example.org"), false },
        { "a domain", STR("@example.org"), STR("x@Example.org"), true },
        { "not what is below it", STR("@example.org"), STR("x@sub.example.org"), false },
        { "not what ends so", STR("@example.org"), STR("x@badexample.org"), false },
        { "not a quoted one's inside", STR("@example.org"), STR("\"x@example.org\"@evil.test"), false },
        { "not the domain itself", STR("@example.org"), STR("example.org"), false },
        { "all", STR("*"), STR("x@anything.test"), true },
        { "nothing is nothing", STR("@"), STR("x"), false },
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        test_case(t, cases[i].why);
        EXPECT_INT(t, sasl_may_send_as(&cases[i].sender, 1, cases[i].address), cases[i].covers);
    }
    EXPECT(t, sasl_is_sender(S("@example.org")) && sasl_is_sender(S("a@b")) && sasl_is_sender(S("*")));
    EXPECT(t, !sasl_is_sender(S("@")) && !sasl_is_sender(S("a")) && !sasl_is_sender(S("")) && !sasl_is_sender(S("a b@c")));
}

TEST_MAIN({ "knows senders", knows_senders }, { "names go both ways", names_go_both_ways }, { "offers what is safe", offers_what_is_safe })
