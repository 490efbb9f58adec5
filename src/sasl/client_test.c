/* Our side of SASL: against the examples of the RFCs, and against our own server's side. */
#include "sasl/client.h"

#include "base/base64.h"
#include "base/test.h"

#include <string.h>

static const struct sasl_login password = { STR("user"), STR("pencil"), false }, token = { STR("u@a.test"), STR("ya29.x"), true };

static void
chooses(struct test *t)
{
    static const struct { const char *why; struct str offered; bool token; int want; } cases[] = {
        { "the strongest", STR("LOGIN PLAIN SCRAM-SHA-256 XOAUTH2"), false, SASL_CLIENT_SCRAM_SHA_256 },
        { "case", STR("login plain"), false, SASL_CLIENT_PLAIN },
        { "the last one", STR("LOGIN CRAM-MD5"), false, SASL_CLIENT_LOGIN },
        { "none", STR("CRAM-MD5 GSSAPI SCRAM-SHA-1 SCRAM-SHA-256-PLUS"), false, -1 },
        { "nothing", STR(""), false, -1 },
        { "a password is no token", STR("XOAUTH2"), false, -1 },
        { "a token is no password", STR("PLAIN LOGIN SCRAM-SHA-256"), true, -1 },
        { "a token", STR("PLAIN XOAUTH2"), true, SASL_CLIENT_XOAUTH2 },
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        enum sasl_client_mechanism m = SASL_CLIENT_MECHANISMS;
        test_case(t, cases[i].why);
        bool found = sasl_client_choose(sasl_client_offered(cases[i].offered), cases[i].token ? &token : &password, &m);
        EXPECT_INT(t, found ? (int)m : -1, cases[i].want);
    }
}

static void
says(struct test *t)
{
    char memory[200];
    struct text out = text_init(memory, sizeof memory);
    struct sasl_client c;
    struct str why, nonce = S("123456789012345678901234");

    sasl_client_begin(&c, SASL_CLIENT_PLAIN, &password, nonce);
    EXPECT(t, sasl_client_initial(&c, &out));
    EXPECT_STR(t, text_str(&out), S("\0user\0pencil"));
    EXPECT(t, !sasl_client_take(&c, S(""), &why));
    EXPECT(t, sasl_client_may_succeed(&c));

    sasl_client_begin(&c, SASL_CLIENT_LOGIN, &password, nonce);
    out.len = 0;
    EXPECT(t, !sasl_client_initial(&c, &out));
    EXPECT(t, sasl_client_take(&c, S("Username:"), &why));
    sasl_client_answer(&c, &out);
    EXPECT_STR(t, text_str(&out), S("user"));
    EXPECT(t, sasl_client_take(&c, S("Password:"), &why));
    out.len = 0;
    sasl_client_answer(&c, &out);
    EXPECT_STR(t, text_str(&out), S("pencil"));
    EXPECT(t, !sasl_client_take(&c, S("More:"), &why));

    sasl_client_begin(&c, SASL_CLIENT_XOAUTH2, &token, nonce);
    out.len = 0;
    EXPECT(t, sasl_client_initial(&c, &out));
    EXPECT_STR(t, text_str(&out), S("user=u@a.test\1auth=Bearer ya29.x\1\1"));
    EXPECT(t, sasl_client_take(&c, S("{\"status\":\"401\"}"), &why));
    out.len = 0;
    sasl_client_answer(&c, &out);
    EXPECT_STR(t, text_str(&out), S(""));
    EXPECT(t, !sasl_client_take(&c, S("{}"), &why));
    sasl_client_done(&c);
}

/* Against scram_server_*(), which the RFC's example proves. What may be said instead of each message, and what comes of it. */
static void
scram(struct test *t)
{
    static const struct { const char *why; struct str first, final; bool takes_first, proven; } cases[] = {
        { "as it should be", { NULL, 0 }, { NULL, 0 }, true, true },
        { "not our nonce", STR("r=xyz,s=QSXCR+Q6sek8bf92,i=4096"), { NULL, 0 }, false, false },
        { "our nonce alone", STR("r=@,s=QSXCR+Q6sek8bf92,i=4096"), { NULL, 0 }, false, false },
        { "too few iterations", STR("r=@x,s=QSXCR+Q6sek8bf92,i=4095"), { NULL, 0 }, false, false },
        { "too many", STR("r=@x,s=QSXCR+Q6sek8bf92,i=1000001"), { NULL, 0 }, false, false },
        { "no number", STR("r=@x,s=QSXCR+Q6sek8bf92,i=x"), { NULL, 0 }, false, false },
        { "no salt", STR("r=@x,s=,i=4096"), { NULL, 0 }, false, false },
        { "no base64", STR("r=@x,s=%,i=4096"), { NULL, 0 }, false, false },
        { "an extension that must be understood", STR("m=x,r=@x,s=QSXCR+Q6sek8bf92,i=4096"), { NULL, 0 }, false, false },
        { "empty", STR(""), { NULL, 0 }, false, false },
        { "an impostor", STR("r=@x,s=QSXCR+Q6sek8bf92,i=4096"), STR("v=rmF9pqV8S7suAoZWja4dJRkFsKQ="), true, false },
        { "an empty proof", STR("r=@x,s=QSXCR+Q6sek8bf92,i=4096"), STR("v="), true, false },
        { "an error", { NULL, 0 }, STR("e=invalid-proof"), true, false },
        { "nothing", { NULL, 0 }, STR(""), true, false },
    };
    struct str nonce = S("abcdefghijklmnopqrstuvwx");
    struct scram_keys keys;

    scram_make_keys(DIGEST_SHA256, password.secret, S("saltsaltsaltsalt"), 4096, &keys);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char first[200], user[64], identity[64], challenge[300], answer[400], final[200];
        struct text first_text = text_init(first, sizeof first), user_text = text_init(user, sizeof user);
        struct text identity_text = text_init(identity, sizeof identity), challenge_text = text_init(challenge, sizeof challenge);
        struct text answer_text = text_init(answer, sizeof answer), final_text = text_init(final, sizeof final);
        struct scram_server server = { .digest = DIGEST_SHA256 };
        struct sasl_client c;
        struct str why = { 0 };

        test_case(t, cases[i].why);
        sasl_client_begin(&c, SASL_CLIENT_SCRAM_SHA_256, &password, nonce);
        EXPECT(t, sasl_client_initial(&c, &first_text));
        EXPECT_INT(t, scram_server_begin(&server, text_str(&first_text), &user_text, &identity_text), SCRAM_FINE);
        EXPECT_STR(t, text_str(&user_text), S("user"));
        if (str_is_absent(cases[i].first))
            scram_server_challenge(&server, &keys, S("ABCDEFGHIJKLMNOPQRSTUVWX"), &challenge_text);
        for (size_t k = 0; k < cases[i].first.len; k++)
            if (cases[i].first.ptr[k] == '@')
                text_put(&challenge_text, nonce);
            else
                text_put_byte(&challenge_text, cases[i].first.ptr[k]);
        struct str edge = test_edge(text_str(&challenge_text));
        bool taken = sasl_client_take(&c, edge, &why);
        test_edge_free(edge);
        EXPECT_INT(t, taken, cases[i].takes_first);
        EXPECT(t, !sasl_client_may_succeed(&c));
        if (!taken) {
            EXPECT(t, why.len > 0);
            continue;
        }
        EXPECT(t, c.needs_keys);
        sasl_client_make_keys(&c);
        sasl_client_answer(&c, &answer_text);
        if (str_is_absent(cases[i].first))
            EXPECT_INT(t, scram_server_end(&server, &keys, text_str(&answer_text), &final_text), SCRAM_FINE);
        edge = test_edge(str_is_absent(cases[i].final) ? text_str(&final_text) : cases[i].final);
        EXPECT_INT(t, sasl_client_take(&c, edge, &why), cases[i].proven);
        test_edge_free(edge);
        EXPECT_INT(t, sasl_client_may_succeed(&c), cases[i].proven);
        answer_text.len = 0;
        sasl_client_answer(&c, &answer_text);
        EXPECT_STR(t, text_str(&answer_text), S(""));
        EXPECT(t, !sasl_client_take(&c, S("again"), &why));
        sasl_client_done(&c);
    }
}

TEST_MAIN({ "chooses", chooses }, { "says", says }, { "SCRAM", scram })
