/*
 * fuzz_sasl_client - our side of a SASL exchange with a server that says anything.
 *
 * Aims at: sasl/client.c
 * Seeds:   sasl/client_test.c
 * Choices: 2
 * Longest: 2000
 * Test:    20000 runs
 *
 * "@" in a challenge stands for our nonce, or nothing would come past it. An exchange ends; a server without the password is
 * never believed to have it; iterations stay within bounds; and the password is said by those mechanisms alone that are
 * made of saying it.
 */
#include "fuzz.h"

#include "sasl/client.h"

enum { STEPS_MAX = 4 };

static void
check_says_no_password(enum sasl_client_mechanism m, struct str said, const struct sasl_login *login)
{
    if (m == SASL_CLIENT_SCRAM_SHA_256)
        CHECK(str_find(said, login->secret) == said.len);
}

void
fuzz_one(struct str input, struct arena *arena)
{
    static const struct sasl_login logins[] = { { STR("u,=r"), STR("secret word"), false }, { STR("u"), STR("ya29.secret"), true } };
    static const struct str nonce = STR("abcdefghijklmnopqrstuvwx");
    enum sasl_client_mechanism m = fuzz_choice(&input) % SASL_CLIENT_MECHANISMS, chosen;
    uint8_t offered = fuzz_choice(&input);
    const struct sasl_login *login = &logins[m == SASL_CLIENT_XOAUTH2];
    struct text out = fuzz_text(arena, SASL_CLIENT_MAX);
    struct sasl_client *c = arena_new(arena, struct sasl_client);
    struct str why = { NULL, 0 };
    size_t steps = 0;

    if (sasl_client_choose(offered, login, &chosen))
        CHECK(chosen < SASL_CLIENT_MECHANISMS && (offered & 1u << chosen) && (chosen == SASL_CLIENT_XOAUTH2) == login->token);
    CHECK(sasl_client_offered(input) < 1u << SASL_CLIENT_MECHANISMS);
    sasl_client_begin(c, m, login, nonce);
    sasl_client_initial(c, &out);
    check_says_no_password(m, text_str(&out), login);
    while (steps++ < STEPS_MAX) {
        struct str field = fuzz_field(&input);
        struct text challenge = fuzz_text(arena, field.len * nonce.len + 1);
        for (size_t i = 0; i < field.len; i++)
            text_put(&challenge, field.ptr[i] == '@' ? nonce : str_slice(field, i, i + 1));
        if (!sasl_client_take(c, text_str(&challenge), &why)) {
            CHECK(why.len > 0);
            break;
        }
        if (c->needs_keys) {
            CHECK(m == SASL_CLIENT_SCRAM_SHA_256 && c->salt.len > 0 && c->iterations >= SCRAM_ITERATIONS_MIN &&
                  c->iterations <= SASL_CLIENT_ITERATIONS_MAX);
            c->iterations = SCRAM_ITERATIONS_MIN / 1024; /* what it costs is not what is looked at */
            sasl_client_make_keys(c);
        }
        out.len = 0;
        sasl_client_answer(c, &out);
        CHECK(!out.full);
        check_says_no_password(m, text_str(&out), login);
    }
    CHECK(steps < STEPS_MAX);
    CHECK(sasl_client_may_succeed(c) == (m != SASL_CLIENT_SCRAM_SHA_256)); /* nobody guesses a signature */
    sasl_client_done(c);
}
