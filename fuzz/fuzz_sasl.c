/*
 * fuzz_sasl - the server's side of a SASL exchange: a mechanism, then what a client says, step by step.
 *
 * Aims at: sasl/exchange.c sasl/scram.c
 * Seeds:   sasl/exchange_test.c
 * Choices: 2
 * Longest: 2000
 * Test:    60000 runs
 *
 * Only who knows the password gets in: PLAIN and LOGIN have said it, and nobody guesses a proof. Nothing is compared before
 * the throttle was asked, and what failed has been compared or asked for too much.
 */
#include "fuzz.h"

#include "sasl/exchange.h"
#include "sasl/prepare.h"

#include <string.h>

enum { STEPS_MAX = 6 };

struct store {
    size_t attempts, checks, finds;
    bool scram, right; /* scram: it looks the keys up for its challenge, before anything is compared */
    uint8_t choice;
};

static enum sasl_status
attempt(void *ctx, struct str name, int64_t until)
{
    struct store *s = ctx;
    char memory[PREPARED_MAX];
    struct text again = text_init(memory, sizeof memory);

    (void)until;
    CHECK(s->attempts++ == 0 && s->checks == 0 && (s->finds == 0 || s->scram));
    CHECK(str_eq(name, S(" ")) || (prepare_name(name, &again) && str_eq(name, text_str(&again))));
    return s->choice & 128 ? SASL_THROTTLED : SASL_OK;
}

static void
pretend(void *ctx, struct str name, struct user *out)
{
    (void)ctx;
    *out = (struct user){ .name = name, .hash = S("*") };
    out->sha256 = (struct scram_keys){ .iterations = 4096, .salt_len = 16, .stored = "nobody knows what was hashed" };
    out->sha1 = out->sha256;
}

static bool
find(void *ctx, struct str name, struct user *out)
{
    struct store *s = ctx;

    CHECK(s->attempts == !s->scram);
    s->finds++;
    pretend(ctx, name, out);
    if (s->choice & 1)
        out->plain = S("c2VjcmV0");
    return str_eq(name, S("anna"));
}

static enum sasl_status
check(void *ctx, struct str name, struct str password, int64_t until)
{
    struct store *s = ctx;
    char memory[PREPARED_MAX];
    struct text again = text_init(memory, sizeof memory);

    (void)until;
    CHECK(s->attempts == 1 && s->checks++ == 0);
    CHECK(prepare_password(password, &again) && str_eq(password, text_str(&again)));
    s->right = str_eq(name, S("anna")) && str_eq(password, S("secret"));
    return s->right ? SASL_OK : SASL_REFUSED;
}

static void
give_random(void *ctx, unsigned char *out, size_t len)
{
    (void)ctx;
    memset(out, 1, len);
}

void
fuzz_one(struct str input, struct arena *arena)
{
    struct str rest = input;
    enum sasl_mechanism m = (enum sasl_mechanism)(fuzz_choice(&rest) % SASL_MECHANISMS);
    bool scram = m == SASL_SCRAM_SHA_256 || m == SASL_SCRAM_SHA_256_PLUS || m == SASL_SCRAM_SHA_1 || m == SASL_SCRAM_SHA_1_PLUS;
    struct store ctx = { .choice = fuzz_choice(&rest), .scram = scram };
    const struct sasl_store store = { &ctx, attempt, find, pretend, check, give_random };
    struct sasl_facts facts = { .offered = ctx.choice & 2 ? SASL_BIT(SASL_SCRAM_SHA_256_PLUS) : 0, .certificate = S("anna"),
                                .exporter = S("0123456789abcdef0123456789abcdef"), .hostname = S("mx.example.org") };
    enum sasl_status status = SASL_CHALLENGE;
    struct sasl_exchange *x = sasl_exchange_new(own_mem, m, &facts);

    for (int i = 0; i < STEPS_MAX && status == SASL_CHALLENGE; i++) {
        struct text out = fuzz_text(arena, SCRAM_MESSAGE_MAX);
        bool absent = i == 0 && (ctx.choice & 4);
        status = sasl_exchange_step(x, &store, absent ? (struct str){ NULL, 0 } : fuzz_field(&rest), 0, &out);
        CHECK(!out.full);
    }
    CHECK(status == SASL_CHALLENGE || status == SASL_OK || status == SASL_REFUSED || status == SASL_MALFORMED ||
          (status == SASL_THROTTLED && (ctx.choice & 128)));
    if (status == SASL_OK) {
        CHECK(ctx.attempts == 1 && str_eq(sasl_exchange_name(x), S("anna")) && !sasl_exchange_failed(x));
        CHECK((ctx.right && str_find(input, S("secret")) < input.len) || m == SASL_EXTERNAL || m == SASL_CRAM_MD5);
    }
    CHECK(sasl_exchange_failed(x) == (status == SASL_REFUSED));
    if (status == SASL_THROTTLED)
        CHECK(ctx.checks == 0 && (ctx.finds == 0 || scram));
    sasl_exchange_free(x);
}
