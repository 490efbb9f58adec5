/*
 * exchange_test - every mechanism from its first step to its last: the vectors of the RFCs, what is refused, and what is
 * not given away.
 */
#include "sasl/exchange.h"

#include "base/base64.h"
#include "base/test.h"
#include "sasl/prepare.h"

#include <stdio.h>
#include <string.h>

enum { FACT_BYTES = 32 };

/* ---- a store of three users -------------------------------------------------------------------------------------- */

struct fake {
    struct str nonce;      /* what random() gives, as SCRAM writes it */
    struct user anna;      /* "anna", password "secret" */
    size_t attempts, checks;
    bool throttled, later;
};

static enum sasl_status
attempt(void *ctx, struct str name, int64_t until)
{
    struct fake *f = ctx;

    (void)name;
    (void)until;
    f->attempts++;
    return f->throttled ? SASL_THROTTLED : SASL_OK;
}

static bool
find(void *ctx, struct str name, struct user *out)
{
    struct fake *f = ctx;

    *out = f->anna;
    return str_eq(name, S("anna"));
}

static bool
find_without_keys(void *ctx, struct str name, struct user *out)
{
    bool found = find(ctx, name, out);

    out->sha256.iterations = 0;
    return found;
}

static void
pretend(void *ctx, struct str name, struct user *out)
{
    struct fake *f = ctx;

    *out = f->anna;
    out->sha256.salt[0] = out->sha1.salt[0] = (unsigned char)name.ptr[0];
}

static enum sasl_status
check(void *ctx, struct str name, struct str password, int64_t until)
{
    struct fake *f = ctx;

    (void)until;
    f->checks++;
    if (f->later)
        return SASL_LATER;
    return str_eq(name, S("anna")) && str_eq(password, S("secret")) ? SASL_OK : SASL_REFUSED;
}

static void
give_random(void *ctx, unsigned char *out, size_t len)
{
    (void)ctx;
    memset(out, 7, len);
}

static void
fake_init(struct fake *f)
{
    *f = (struct fake){ .anna = { .name = S("anna"), .hash = S("*"), .plain = S("c2VjcmV0") } };
    scram_make_keys(DIGEST_SHA256, S("secret"), S("salt"), SCRAM_ITERATIONS_MIN, &f->anna.sha256);
    scram_make_keys(DIGEST_SHA1, S("secret"), S("salt"), SCRAM_ITERATIONS_MIN, &f->anna.sha1);
}

/* ---- a client ---------------------------------------------------------------------------------------------------- */

struct dialog {
    struct fake fake;
    struct sasl_store store;
    struct mem mem;
    struct sasl_exchange *x;
    char said[2048];
    struct text out;
};

static void
dialog_begin(struct dialog *d, enum sasl_mechanism m, struct sasl_facts facts)
{
    fake_init(&d->fake);
    d->store = (struct sasl_store){ &d->fake, attempt, find, pretend, check, give_random };
    d->mem = mem_libc();
    facts.hostname = S("mx.example.org");
    d->x = sasl_exchange_new(&d->mem, m, &facts);
}

static enum sasl_status
step(struct dialog *d, struct str response)
{
    struct str edge = str_is_absent(response) ? response : test_edge(response);

    d->out = text_init(d->said, sizeof d->said);
    enum sasl_status status = sasl_exchange_step(d->x, &d->store, edge, FOREVER, &d->out);
    if (!str_is_absent(edge))
        test_edge_free(edge);
    return status;
}

static void
dialog_end(struct dialog *d)
{
    sasl_exchange_free(d->x);
}

static const struct str none = { NULL, 0 };

/* ---- simple mechanisms ------------------------------------------------------------------------------------------- */

static void
plain(struct test *t)
{
    static const struct {
        const char *why;
        struct str response;
        enum sasl_status status;
    } cases[] = {
        { "as it should be", STR("\0anna\0secret"), SASL_OK },
        { "in another case", STR("\0Anna\0secret"), SASL_OK },
        { "as oneself", STR("anna\0anna\0secret"), SASL_OK },
        { "as another", STR("bob\0anna\0secret"), SASL_REFUSED },
        { "a wrong password", STR("\0anna\0Secret"), SASL_REFUSED },
        { "nobody", STR("\0bob\0secret"), SASL_REFUSED },
        { "a name that cannot be", STR("\0a b\0secret"), SASL_REFUSED },
        { "a password that cannot be", STR("\0anna\0sec\xff"), SASL_REFUSED },
        { "no password", STR("\0anna\0"), SASL_REFUSED },
        { "one NUL only", STR("anna\0secret"), SASL_MALFORMED },
        { "no NUL", STR("anna secret"), SASL_MALFORMED },
        { "three NULs", STR("\0anna\0secret\0"), SASL_MALFORMED },
        { "nothing", STR(""), SASL_MALFORMED },
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct dialog d;
        test_case(t, cases[i].why);
        dialog_begin(&d, SASL_PLAIN, (struct sasl_facts){ 0 });
        EXPECT_INT(t, step(&d, cases[i].response), cases[i].status);
        EXPECT_INT(t, d.fake.checks, cases[i].status != SASL_MALFORMED); /* one hash, whatever is wrong */
        EXPECT_INT(t, sasl_exchange_failed(d.x), cases[i].status == SASL_REFUSED);
        if (cases[i].status == SASL_OK)
            EXPECT_STR(t, sasl_exchange_name(d.x), S("anna"));
        dialog_end(&d);
        dialog_begin(&d, SASL_PLAIN, (struct sasl_facts){ 0 });
        EXPECT_INT(t, step(&d, none), SASL_CHALLENGE);
        EXPECT_STR(t, text_str(&d.out), S(""));
        EXPECT_INT(t, step(&d, cases[i].response), cases[i].status);
        dialog_end(&d);
    }
}

static void
login(struct test *t)
{
    struct dialog d;

    dialog_begin(&d, SASL_LOGIN, (struct sasl_facts){ 0 });
    EXPECT_INT(t, step(&d, none), SASL_CHALLENGE);
    EXPECT_STR(t, text_str(&d.out), S("Username:"));
    EXPECT_INT(t, step(&d, S("Anna")), SASL_CHALLENGE);
    EXPECT_STR(t, text_str(&d.out), S("Password:"));
    EXPECT_INT(t, step(&d, S("secret")), SASL_OK);
    EXPECT_STR(t, sasl_exchange_name(d.x), S("anna"));
    dialog_end(&d);
    test_case(t, "the name at once");
    dialog_begin(&d, SASL_LOGIN, (struct sasl_facts){ 0 });
    EXPECT_INT(t, step(&d, S("anna")), SASL_CHALLENGE);
    EXPECT_INT(t, step(&d, S("wrong")), SASL_REFUSED);
    dialog_end(&d);
    test_case(t, "nobody is asked for a password all the same");
    dialog_begin(&d, SASL_LOGIN, (struct sasl_facts){ 0 });
    EXPECT_INT(t, step(&d, S("")), SASL_CHALLENGE);
    EXPECT_STR(t, text_str(&d.out), S("Password:"));
    EXPECT_INT(t, step(&d, S("secret")), SASL_REFUSED);
    EXPECT_INT(t, d.fake.checks, 1);
    dialog_end(&d);
}

static void
external(struct test *t)
{
    static const struct {
        const char *why;
        struct str certificate, response;
        enum sasl_status status;
    } cases[] = {
        { "whom TLS has shown", STR("anna"), STR(""), SASL_OK },
        { "and says so", STR("Anna"), STR("anna"), SASL_OK },
        { "says another", STR("anna"), STR("bob"), SASL_REFUSED },
        { "a certificate of nobody here", STR("bob"), STR(""), SASL_REFUSED },
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct dialog d;
        test_case(t, cases[i].why);
        dialog_begin(&d, SASL_EXTERNAL, (struct sasl_facts){ .certificate = cases[i].certificate });
        EXPECT_INT(t, step(&d, none), SASL_CHALLENGE);
        EXPECT_INT(t, step(&d, cases[i].response), cases[i].status);
        dialog_end(&d);
    }
}

static struct str
hex_hmac(struct str key, struct str of, char *memory, size_t cap)
{
    unsigned char digest[DIGEST_MAX];
    struct text text = text_init(memory, cap);

    digest_hmac(DIGEST_MD5, key, &of, 1, digest);
    for (size_t i = 0; i < digest_size(DIGEST_MD5); i++)
        text_putf(&text, "%02x", digest[i]);
    return text_str(&text);
}

static void
cram_md5(struct test *t)
{
    static const struct {
        const char *why;
        struct str name, key;
        enum sasl_status status;
    } cases[] = {
        { "as it should be", STR("anna"), STR("secret"), SASL_OK },
        { "a wrong password", STR("anna"), STR("Secret"), SASL_REFUSED },
        { "nobody, with an empty password", STR("bob"), STR(""), SASL_REFUSED },
    };
    char memory[200], digits[33];

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct dialog d;
        test_case(t, cases[i].why);
        dialog_begin(&d, SASL_CRAM_MD5, (struct sasl_facts){ 0 });
        EXPECT_INT(t, step(&d, none), SASL_CHALLENGE);
        EXPECT(t, str_starts(text_str(&d.out), S("<07070707")) && str_ends(text_str(&d.out), S("@mx.example.org>")));
        struct text response = text_init(memory, sizeof memory);
        text_put(&response, cases[i].name);
        text_put_byte(&response, ' ');
        text_put(&response, hex_hmac(cases[i].key, text_str(&d.out), digits, sizeof digits));
        EXPECT_INT(t, step(&d, text_str(&response)), cases[i].status);
        dialog_end(&d);
    }
    struct dialog d;
    test_case(t, "an initial response, which it does not have");
    dialog_begin(&d, SASL_CRAM_MD5, (struct sasl_facts){ 0 });
    EXPECT_INT(t, step(&d, S("anna x")), SASL_MALFORMED);
    dialog_end(&d);
}

/* ---- SCRAM ------------------------------------------------------------------------------------------------------- */

struct scram_case {
    const char *why;
    enum sasl_mechanism mechanism;
    struct str gs2, name, password, data; /* data: what the client binds to */
    bool offers_plus;
    enum sasl_status first, last;
};

static const struct scram_case scram_cases[] = {
    { "as it should be", SASL_SCRAM_SHA_256, STR("n,,"), STR("anna"), STR("secret"), STR(""), true, SASL_CHALLENGE, SASL_CHALLENGE },
    { "SHA-1", SASL_SCRAM_SHA_1, STR("n,,"), STR("anna"), STR("secret"), STR(""), true, SASL_CHALLENGE, SASL_CHALLENGE },
    { "another case", SASL_SCRAM_SHA_256, STR("n,,"), STR("ANNA"), STR("secret"), STR(""), true, SASL_CHALLENGE, SASL_CHALLENGE },
    { "as oneself", SASL_SCRAM_SHA_256, STR("n,a=anna,"), STR("anna"), STR("secret"), STR(""), true, SASL_CHALLENGE, SASL_CHALLENGE },
    { "as another", SASL_SCRAM_SHA_256, STR("n,a=bob,"), STR("anna"), STR("secret"), STR(""), true, SASL_REFUSED, SASL_REFUSED },
    { "a wrong password", SASL_SCRAM_SHA_256, STR("n,,"), STR("anna"), STR("Secret"), STR(""), true, SASL_CHALLENGE, SASL_REFUSED },
    { "nobody", SASL_SCRAM_SHA_256, STR("n,,"), STR("bob"), STR("secret"), STR(""), true, SASL_CHALLENGE, SASL_REFUSED },
    { "nobody, who knows what we would make up", SASL_SCRAM_SHA_256, STR("n,,"), STR("s"), STR("secret"), STR(""), true,
      SASL_CHALLENGE, SASL_REFUSED },
    { "could bind, and was not offered it", SASL_SCRAM_SHA_256, STR("y,,"), STR("anna"), STR("secret"), STR(""), false,
      SASL_CHALLENGE, SASL_CHALLENGE },
    { "could bind, and the offer was taken out", SASL_SCRAM_SHA_256, STR("y,,"), STR("anna"), STR("secret"), STR(""), true,
      SASL_REFUSED, SASL_REFUSED },
    { "bound by tls-exporter", SASL_SCRAM_SHA_256_PLUS, STR("p=tls-exporter,,"), STR("anna"), STR("secret"),
      STR("0123456789abcdef0123456789abcdef"), true, SASL_CHALLENGE, SASL_CHALLENGE },
    { "bound by tls-server-end-point", SASL_SCRAM_SHA_256_PLUS, STR("p=tls-server-end-point,,"), STR("anna"), STR("secret"),
      STR("fedcba9876543210fedcba9876543210"), true, SASL_CHALLENGE, SASL_CHALLENGE },
    { "SHA-1, bound", SASL_SCRAM_SHA_1_PLUS, STR("p=tls-exporter,,"), STR("anna"), STR("secret"),
      STR("0123456789abcdef0123456789abcdef"), true, SASL_CHALLENGE, SASL_CHALLENGE },
    { "bound to another connection", SASL_SCRAM_SHA_256_PLUS, STR("p=tls-exporter,,"), STR("anna"), STR("secret"),
      STR("0123456789abcdef0123456789abcdeX"), true, SASL_CHALLENGE, SASL_REFUSED },
    { "bound by what we do not have", SASL_SCRAM_SHA_256_PLUS, STR("p=tls-unique,,"), STR("anna"), STR("secret"), STR("x"), true,
      SASL_REFUSED, SASL_REFUSED },
    { "-PLUS that does not bind", SASL_SCRAM_SHA_256_PLUS, STR("n,,"), STR("anna"), STR("secret"), STR(""), true, SASL_MALFORMED,
      SASL_MALFORMED },
    { "binds without -PLUS", SASL_SCRAM_SHA_256, STR("p=tls-exporter,,"), STR("anna"), STR("secret"), STR(""), true,
      SASL_MALFORMED, SASL_MALFORMED },
    { "a flag that is none", SASL_SCRAM_SHA_256, STR("x,,"), STR("anna"), STR("secret"), STR(""), true, SASL_MALFORMED,
      SASL_MALFORMED },
    { "an identity that is empty", SASL_SCRAM_SHA_256, STR("n,a=,"), STR("anna"), STR("secret"), STR(""), true, SASL_MALFORMED,
      SASL_MALFORMED },
};

/* The client's last message to the server's challenge. */
static void
answer_challenge(const struct scram_case *c, struct str bare, struct str challenge, struct text *final)
{
    enum digest digest = c->mechanism == SASL_SCRAM_SHA_1 || c->mechanism == SASL_SCRAM_SHA_1_PLUS ? DIGEST_SHA1 : DIGEST_SHA256;
    unsigned char client_key[DIGEST_MAX], server_key[DIGEST_MAX], proof[DIGEST_MAX], signature[DIGEST_MAX];
    char salt_memory[SCRAM_SALT_MAX], binding_memory[300], memory[2048];
    struct text salt = text_init(salt_memory, sizeof salt_memory), auth = text_init(memory, sizeof memory);
    struct text binding = text_init(binding_memory, sizeof binding_memory);
    struct str rest = challenge, nonce = str_cut(&rest, ','), salted = str_cut(&rest, ',');
    uint64_t iterations = 0;

    (void)base64_decode(str_from(salted, 2), &salt);
    (void)str_to_u64(str_from(rest, 2), &iterations);
    text_put(&binding, c->gs2);
    text_put(&binding, c->data);
    text_put(final, S("c="));
    base64_put(final, text_str(&binding));
    text_put_byte(final, ',');
    text_put(final, nonce);
    struct str parts[] = { bare, S(","), challenge, S(","), text_str(final) };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        text_put(&auth, parts[i]);
    scram_client_keys(digest, c->password, text_str(&salt), (uint32_t)iterations, client_key, server_key);
    scram_client_proof(digest, client_key, server_key, text_str(&auth), proof, signature);
    text_put(final, S(",p="));
    base64_put(final, str_new(proof, digest_size(digest)));
}

static void
scram(struct test *t)
{
    for (size_t i = 0; i < sizeof scram_cases / sizeof *scram_cases; i++) {
        const struct scram_case *c = &scram_cases[i];
        char first_memory[200], challenge_memory[400], final_memory[1000];
        struct text first = text_init(first_memory, sizeof first_memory), final = text_init(final_memory, sizeof final_memory);
        struct text challenge = text_init(challenge_memory, sizeof challenge_memory);
        struct sasl_facts facts = { .exporter = S("0123456789abcdef0123456789abcdef"),
                                    .end_point = S("fedcba9876543210fedcba9876543210") };
        struct dialog d;

        test_case(t, c->why);
        if (c->offers_plus)
            facts.offered = SASL_BIT(SASL_SCRAM_SHA_256_PLUS) | SASL_BIT(SASL_SCRAM_SHA_1_PLUS);
        text_put(&first, c->gs2);
        text_put(&first, S("n="));
        text_put(&first, c->name);
        text_put(&first, S(",r=rOprNGfwEbeRWgbNEkqO"));
        dialog_begin(&d, c->mechanism, facts);
        EXPECT_INT(t, step(&d, none), SASL_CHALLENGE);
        enum sasl_status status = step(&d, text_str(&first));
        EXPECT_INT(t, status, c->first);
        if (status == SASL_CHALLENGE) {
            text_put(&challenge, text_str(&d.out));
            EXPECT(t, str_starts(text_str(&challenge), S("r=rOprNGfwEbeRWgbNEkqOHHHH")));
            answer_challenge(c, str_from(text_str(&first), c->gs2.len), text_str(&challenge), &final);
            status = step(&d, text_str(&final));
            EXPECT_INT(t, status, c->last);
            EXPECT_INT(t, status == SASL_CHALLENGE && str_starts(text_str(&d.out), S("v=")), status == SASL_CHALLENGE);
            if (status == SASL_CHALLENGE)
                EXPECT_INT(t, step(&d, S("")), SASL_OK);
        }
        dialog_end(&d);
    }
}

static void
scram_that_is_broken(struct test *t)
{
    static const struct str firsts[] = {
        STR(""), STR("n"), STR("n,"), STR("n,,"), STR("n,,r=abc,n=anna"), STR("n,,n=anna"), STR("n,,n=anna,r="), STR("n,,n=an=na,r=abc"),
        STR("n,,n=an=2cna,r=abc"), STR("n,,m=x,n=anna,r=abc"), STR("n,,n=anna,r=a c"), STR("n,x,n=anna,r=abc"), STR("n,,n=anna,x=abc"),
        STR("p=,,n=anna,r=abc"),
    };
    static const struct str finals[] = {
        STR(""), STR("c=biws"), STR("c=biws,r=abc"), STR("c=biws,r=abc,p="), STR("c=biws,r=abc,p=AAAA"), STR("r=abc,c=biws,p=AAAA"),
        STR("c=biws,r=abc,p=" "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=,x=y"),
    };
    struct dialog d;

    for (size_t i = 0; i < sizeof firsts / sizeof *firsts; i++) {
        test_case(t, firsts[i].ptr);
        dialog_begin(&d, SASL_SCRAM_SHA_256, (struct sasl_facts){ 0 });
        EXPECT_INT(t, step(&d, firsts[i]), SASL_MALFORMED);
        EXPECT_INT(t, d.fake.attempts, 0);
        dialog_end(&d);
    }
    for (size_t i = 0; i < sizeof finals / sizeof *finals; i++) {
        test_case(t, finals[i].ptr);
        dialog_begin(&d, SASL_SCRAM_SHA_256, (struct sasl_facts){ 0 });
        EXPECT_INT(t, step(&d, S("n,,n=anna,r=abc")), SASL_CHALLENGE);
        EXPECT_INT(t, step(&d, finals[i]), SASL_MALFORMED);
        dialog_end(&d);
    }
    test_case(t, "a nonce that is not ours");
    dialog_begin(&d, SASL_SCRAM_SHA_256, (struct sasl_facts){ 0 });
    EXPECT_INT(t, step(&d, S("n,,n=anna,r=abc")), SASL_CHALLENGE);
    EXPECT_INT(t, step(&d, S("c=biws,r=abc,p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")), SASL_REFUSED);
    dialog_end(&d);
    test_case(t, "longer than any");
    char long_name[2000];
    memset(long_name, 'a', sizeof long_name);
    memcpy(long_name, "n,,n=anna,r=", 12);
    dialog_begin(&d, SASL_SCRAM_SHA_256, (struct sasl_facts){ 0 });
    EXPECT_INT(t, step(&d, str_new(long_name, sizeof long_name)), SASL_MALFORMED);
    dialog_end(&d);
}

/* ---- what is not given away, and when nobody is let in ----------------------------------------------------------- */

static void
nobody_looks_like_somebody(struct test *t)
{
    struct dialog d;
    char memory[3][400];
    struct str firsts[] = { S("n,,n=anna,r=abc"), S("n,,n=bob,r=abc"), S("n,,n=bob,r=abc") };
    struct text said[3];

    for (int i = 0; i < 3; i++) {
        dialog_begin(&d, SASL_SCRAM_SHA_256, (struct sasl_facts){ 0 });
        EXPECT_INT(t, step(&d, firsts[i]), SASL_CHALLENGE);
        said[i] = text_init(memory[i], sizeof memory[i]);
        text_put(&said[i], text_str(&d.out));
        dialog_end(&d);
    }
    EXPECT_INT(t, said[0].len, said[1].len);
    EXPECT_STR(t, text_str(&said[1]), text_str(&said[2]));
    test_case(t, "one without SCRAM keys looks so too, and cannot log in by them");
    dialog_begin(&d, SASL_SCRAM_SHA_256, (struct sasl_facts){ 0 });
    d.store.find = find_without_keys;
    EXPECT_INT(t, step(&d, S("n,,n=anna,r=abc")), SASL_CHALLENGE);
    EXPECT_INT(t, d.out.len, said[0].len);
    EXPECT(t, !str_eq(text_str(&d.out), text_str(&said[0])));
    dialog_end(&d);
}

static void
throttled_and_later(struct test *t)
{
    static const struct {
        enum sasl_mechanism mechanism;
        struct str first, second; /* second: absent where the first is compared at once */
    } cases[] = { { SASL_PLAIN, STR("\0anna\0secret"), { NULL, 0 } }, { SASL_LOGIN, STR("anna"), STR("secret") },
                  { SASL_EXTERNAL, STR(""), { NULL, 0 } },
                  { SASL_SCRAM_SHA_256, STR("n,,n=anna,r=abc"), STR("c=biws,r=abc,p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=") } };
    struct dialog d;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        dialog_begin(&d, cases[i].mechanism, (struct sasl_facts){ .certificate = S("anna") });
        d.fake.throttled = true;
        if (!str_is_absent(cases[i].second)) {
            EXPECT_INT(t, step(&d, cases[i].first), SASL_CHALLENGE);
            EXPECT_INT(t, d.fake.attempts, 0); /* who stops here has tried nothing */
        }
        EXPECT_INT(t, step(&d, str_is_absent(cases[i].second) ? cases[i].first : cases[i].second), SASL_THROTTLED);
        EXPECT_INT(t, d.fake.attempts, 1);
        EXPECT(t, !sasl_exchange_failed(d.x) && d.fake.checks == 0);
        dialog_end(&d);
    }
    dialog_begin(&d, SASL_PLAIN, (struct sasl_facts){ 0 });
    d.fake.later = true;
    EXPECT_INT(t, step(&d, S("\0anna\0secret")), SASL_LATER);
    EXPECT(t, !sasl_exchange_failed(d.x));
    dialog_end(&d);
}

/* ---- the shared vectors ------------------------------------------------------------------------------------------ */

/* The value of the next "name": "value" in *rest, which then stands behind it. None of the values has an escape. */
static struct str
next_value(struct str *rest, const char *name)
{
    char memory[40];
    struct text key = text_init(memory, sizeof memory);

    text_putf(&key, "\"%s\": \"", name);
    *rest = str_from(*rest, str_find(*rest, text_str(&key)) + key.len);
    return str_cut(rest, '"');
}

static void
scram_vector(struct test *t, struct str *rest)
{
    struct str id = next_value(rest, "id"), password = next_value(rest, "password"), first = next_value(rest, "client_first");
    struct str challenge = next_value(rest, "server_first"), final = next_value(rest, "client_final");
    struct str last = next_value(rest, "server_final"), stored = next_value(rest, "stored_key");
    struct str server = next_value(rest, "server_key"), parts = challenge;
    enum digest digest = str_starts(id, S("SCRAM-SHA-256")) ? DIGEST_SHA256 : DIGEST_SHA1;
    struct scram_server s = { .digest = digest };
    struct scram_keys keys;
    char salt_memory[64], memory[4][300];
    struct text salt = text_init(salt_memory, sizeof salt_memory), out[4];
    uint64_t iterations = 0;

    for (int i = 0; i < 4; i++)
        out[i] = text_init(memory[i], sizeof memory[i]);
    struct str nonce = str_from(str_cut(&parts, ','), 2), salted = str_from(str_cut(&parts, ','), 2);
    EXPECT(t, base64_decode_strictly(salted, &salt) && str_to_u64(str_from(parts, 2), &iterations));
    scram_make_keys(digest, password, text_str(&salt), (uint32_t)iterations, &keys);
    base64_put(&out[0], str_new(keys.stored, digest_size(digest)));
    EXPECT_STR(t, text_str(&out[0]), stored);
    base64_put(&out[1], str_new(keys.server, digest_size(digest)));
    EXPECT_STR(t, text_str(&out[1]), server);
    out[0].len = out[1].len = 0;
    EXPECT_INT(t, scram_server_begin(&s, first, &out[0], &out[1]), SCRAM_FINE);
    EXPECT_STR(t, text_str(&out[0]), S("user"));
    size_t theirs = first.len - str_find(first, S(",r=")) - 3;
    scram_server_challenge(&s, &keys, str_from(nonce, theirs), &out[2]);
    EXPECT_STR(t, text_str(&out[2]), challenge);
    EXPECT_INT(t, scram_server_end(&s, &keys, final, &out[3]), SCRAM_FINE);
    EXPECT_STR(t, text_str(&out[3]), last);
}

static void
plain_vector(struct test *t, struct str *rest)
{
    char memory[200];
    struct text bytes = text_init(memory, sizeof memory);
    struct str id = next_value(rest, "id"), message = next_value(rest, "message_base64"), expect = next_value(rest, "expect");
    struct dialog d;

    /* "=" is how an empty response is written on AUTH's line, "*" how an exchange is given up: neither is base64. */
    if (str_eq(message, S("*")) || str_eq(message, S("="))) {
        EXPECT(t, !base64_decode_strictly(message, &bytes) && (str_eq(id, S("cancel")) || str_eq(id, S("empty initial response"))));
        return;
    }
    EXPECT(t, base64_decode_strictly(message, &bytes));
    dialog_begin(&d, SASL_PLAIN, (struct sasl_facts){ 0 });
    enum sasl_status status = step(&d, text_str(&bytes));
    if (str_starts(expect, S("user ")) && !str_has_byte(str_from(expect, 5), ' ')) {
        EXPECT_STR(t, sasl_exchange_name(d.x), str_from(expect, 5));
    } else if (str_starts(expect, S("user Kurt"))) {
        EXPECT_STR(t, sasl_exchange_name(d.x), S("kurt"));
        EXPECT_INT(t, status, SASL_REFUSED);
    } else {
        EXPECT_STR(t, expect, S("501 5.5.2"));
        EXPECT_INT(t, status, SASL_MALFORMED);
    }
    dialog_end(&d);
}

static void
shared_vectors(struct test *t)
{
    struct str file = test_shared_file(t, "conformance/sasl/vectors.json"), rest = file;
    size_t scrams = 0, crams = 0, plains = 0, failures = t->failures;
    size_t cram = str_find(file, S("\"cram_md5\"")), plain_from = str_find(file, S("\"plain\""));
    char digits[33];

    if (str_is_absent(file))
        return;
    for (rest = str_slice(file, 0, cram); str_find(rest, S("\"id\"")) < rest.len; scrams++)
        scram_vector(t, &rest);
    for (rest = str_slice(file, cram, plain_from); str_find(rest, S("\"id\"")) < rest.len; crams++) {
        struct str secret = next_value(&rest, "secret"), challenge = next_value(&rest, "challenge");
        struct str response = next_value(&rest, "response");
        EXPECT_STR(t, hex_hmac(secret, challenge, digits, sizeof digits), str_from(response, str_find_byte(response, ' ') + 1));
    }
    for (rest = str_from(file, plain_from); str_find(rest, S("\"id\"")) < rest.len; plains++)
        plain_vector(t, &rest);
    printf("# sasl: %zu SCRAM, %zu CRAM-MD5 and %zu PLAIN vectors, %zu failures\n", scrams, crams, plains, t->failures - failures);
    EXPECT_INT(t, scrams, 2);
    EXPECT_INT(t, crams, 1);
    EXPECT_INT(t, plains, 5);
    test_file_free(file);
}

TEST_MAIN({ "plain", plain }, { "login", login }, { "external", external }, { "CRAM-MD5", cram_md5 }, { "SCRAM", scram },
          { "SCRAM that is broken", scram_that_is_broken }, { "nobody looks like somebody", nobody_looks_like_somebody },
          { "throttled, and later", throttled_and_later }, { "the shared vectors", shared_vectors })
