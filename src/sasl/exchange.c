/* exchange - see exchange.h. One function for each mechanism: `step` says where it is. */
#include "sasl/exchange.h"

#include "base/base64.h"
#include "base/check.h"
#include "sasl/password.h"
#include "sasl/prepare.h"

#include <string.h>

enum { KEPT_MAX = 1024 };

struct sasl_exchange {
    struct mem *mem;
    enum sasl_mechanism mechanism;
    unsigned step;
    bool failed, real;    /* real: there is such a user */
    bool proved;          /* SCRAM: all but the client's last word, which says nothing */
    char kept[KEPT_MAX];  /* what the facts point to */
    struct sasl_facts facts;
    char name[LIMIT_USER_NAME];
    size_t name_len;
    char challenge[LIMIT_DOMAIN + 64]; /* CRAM-MD5 */
    size_t challenge_len;
    struct scram_server scram;
    struct scram_keys keys;
};

struct sasl_exchange *
sasl_exchange_new(struct mem *mem, enum sasl_mechanism mechanism, const struct sasl_facts *facts)
{
    struct sasl_exchange *x = mem_new(mem, struct sasl_exchange);
    struct text kept = text_init(x->kept, sizeof x->kept);
    struct str *strings[] = { &x->facts.exporter, &x->facts.end_point, &x->facts.certificate, &x->facts.hostname };

    x->mem = mem;
    x->mechanism = mechanism;
    x->facts = *facts;
    for (size_t i = 0; i < sizeof strings / sizeof *strings; i++) {
        struct str s = *strings[i];
        *strings[i] = str_is_absent(s) ? s : str_new(kept.ptr + kept.len, s.len);
        text_put(&kept, s);
    }
    CHECK(!kept.full); /* border.h bounds them */
    return x;
}

void
sasl_exchange_free(struct sasl_exchange *x)
{
    struct mem *mem = x->mem;

    explicit_bzero(x, sizeof *x);
    mem_free(mem, x, sizeof *x);
}

struct str
sasl_exchange_name(const struct sasl_exchange *x)
{
    return str_new(x->name, x->name_len);
}

bool
sasl_exchange_failed(const struct sasl_exchange *x)
{
    return x->failed;
}

/* ---- what mechanisms share --------------------------------------------------------------------------------------- */

static enum sasl_status
refuse(struct sasl_exchange *x)
{
    x->failed = true;
    return SASL_REFUSED;
}

static enum sasl_status
challenge(struct sasl_exchange *x, struct text *out, struct str bytes)
{
    x->step++;
    text_put(out, bytes);
    return SASL_CHALLENGE;
}

/* A name that cannot be one is nobody's, and is told apart by nothing. */
static void
take_name(struct sasl_exchange *x, struct str said)
{
    struct text name = text_init(x->name, sizeof x->name);

    if (!prepare_name(said, &name)) {
        name.len = 0;
        name.full = false;
        text_put(&name, S(" ")); /* which is nobody's either */
    }
    x->name_len = name.len;
}

/* Whether this one may try now. */
static enum sasl_status
attempt(const struct sasl_exchange *x, const struct sasl_store *store, int64_t until)
{
    return store->attempt(store->ctx, sasl_exchange_name(x), until);
}

/* To act as somebody else is not for anybody here. */
static bool
is_other(const struct sasl_exchange *x, struct str identity)
{
    char memory[LIMIT_USER_NAME];
    struct text name = text_init(memory, sizeof memory);

    return identity.len > 0 && (!prepare_name(identity, &name) || !str_eq(text_str(&name), sasl_exchange_name(x)));
}

static enum sasl_status
check(struct sasl_exchange *x, const struct sasl_store *store, struct str said, int64_t until)
{
    char memory[PREPARED_MAX];
    struct text password = text_init(memory, sizeof memory);

    /* One that cannot be a password is compared all the same: it takes its time. */
    bool sound = prepare_password(said, &password) && password.len <= PASSWORD_MAX;
    enum sasl_status status =
        store->check(store->ctx, sasl_exchange_name(x), sound ? text_str(&password) : S(" "), until);
    explicit_bzero(memory, sizeof memory);
    if (status == SASL_REFUSED || (status == SASL_OK && !sound))
        return refuse(x);
    return status;
}

/* ---- PLAIN, LOGIN, EXTERNAL -------------------------------------------------------------------------------------- */

/* [authzid] NUL authcid NUL password */
static enum sasl_status
step_plain(struct sasl_exchange *x, const struct sasl_store *store, struct str response, int64_t until, struct text *out)
{
    if (str_is_absent(response))
        return challenge(x, out, S(""));
    struct str identity = str_cut(&response, '\0');
    if (str_is_absent(response))
        return SASL_MALFORMED;
    struct str name = str_cut(&response, '\0');
    if (str_is_absent(response) || str_has_byte(response, '\0'))
        return SASL_MALFORMED;
    take_name(x, name);
    enum sasl_status status = attempt(x, store, until);
    if (status == SASL_OK)
        status = check(x, store, response, until);
    return status == SASL_OK && is_other(x, identity) ? refuse(x) : status;
}

/* Clients look for these two words. */
static enum sasl_status
step_login(struct sasl_exchange *x, const struct sasl_store *store, struct str response, int64_t until, struct text *out)
{
    if (str_is_absent(response))
        return challenge(x, out, S("Username:"));
    if (x->name_len == 0) {
        take_name(x, response);
        return challenge(x, out, S("Password:"));
    }
    enum sasl_status status = attempt(x, store, until);
    return status == SASL_OK ? check(x, store, response, until) : status;
}

/* TLS has shown who it is: the response is empty, or says the same. */
static enum sasl_status
step_external(struct sasl_exchange *x, const struct sasl_store *store, struct str response, int64_t until, struct text *out)
{
    struct user user;

    if (str_is_absent(response))
        return challenge(x, out, S(""));
    take_name(x, x->facts.certificate);
    enum sasl_status status = attempt(x, store, until);
    if (status != SASL_OK)
        return status;
    bool real = store->find(store->ctx, sasl_exchange_name(x), &user);
    return !real || is_other(x, response) ? refuse(x) : SASL_OK;
}

/* ---- CRAM-MD5 ---------------------------------------------------------------------------------------------------- */

static enum sasl_status
challenge_cram(struct sasl_exchange *x, const struct sasl_store *store, struct text *out)
{
    struct text text = text_init(x->challenge, sizeof x->challenge);
    unsigned char random[16];

    store->random(store->ctx, random, sizeof random);
    text_put_byte(&text, '<');
    for (size_t i = 0; i < sizeof random; i++)
        text_putf(&text, "%02x", random[i]);
    text_put_byte(&text, '@');
    text_put(&text, x->facts.hostname);
    text_put_byte(&text, '>');
    x->challenge_len = text.len;
    return challenge(x, out, text_str(&text));
}

/* name SP HMAC-MD5(password, challenge) in hex */
static enum sasl_status
step_cram(struct sasl_exchange *x, const struct sasl_store *store, struct str response, int64_t until, struct text *out)
{
    char memory[PASSWORD_MAX], hex[33];
    unsigned char digest[DIGEST_MAX];
    struct text password = text_init(memory, sizeof memory), text = text_init(hex, sizeof hex);
    struct str asked = str_new(x->challenge, x->challenge_len);
    struct user user;

    if (x->step == 0)
        return str_is_absent(response) ? challenge_cram(x, store, out) : SASL_MALFORMED;
    size_t space = str_find_last_byte(response, ' ');
    if (space >= response.len)
        return SASL_MALFORMED;
    take_name(x, str_slice(response, 0, space));
    enum sasl_status status = attempt(x, store, until);
    if (status != SASL_OK)
        return status;
    bool real = store->find(store->ctx, sasl_exchange_name(x), &user) && !str_is_absent(user.plain);
    if (real)
        CHECK(base64_decode_strictly(user.plain, &password)); /* user_parse() saw it */
    digest_hmac(DIGEST_MD5, text_str(&password), &asked, 1, digest);
    explicit_bzero(memory, sizeof memory);
    for (size_t i = 0; i < digest_size(DIGEST_MD5); i++)
        text_putf(&text, "%02x", digest[i]);
    bool same = digest_same(text_str(&text), str_from(response, space + 1));
    return same && real ? SASL_OK : refuse(x);
}

/* ---- SCRAM ------------------------------------------------------------------------------------------------------- */

static enum sasl_status
begin_scram(struct sasl_exchange *x, const struct sasl_store *store, struct str response, int64_t until, struct text *out)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    bool sha1 = x->mechanism == SASL_SCRAM_SHA_1 || x->mechanism == SASL_SCRAM_SHA_1_PLUS;
    char user_memory[LIMIT_USER_NAME], identity_memory[LIMIT_USER_NAME];
    struct text name = text_init(user_memory, sizeof user_memory);
    struct text identity = text_init(identity_memory, sizeof identity_memory);
    unsigned char nonce[SCRAM_NONCE];
    struct user user;

    x->scram.digest = sha1 ? DIGEST_SHA1 : DIGEST_SHA256;
    x->scram.plus = x->mechanism == SASL_SCRAM_SHA_256_PLUS || x->mechanism == SASL_SCRAM_SHA_1_PLUS;
    x->scram.offers_plus = x->facts.offered & SASL_BIT(sha1 ? SASL_SCRAM_SHA_1_PLUS : SASL_SCRAM_SHA_256_PLUS);
    x->scram.binding = (struct scram_binding){ x->facts.exporter, x->facts.end_point };
    enum scram_answer answer = scram_server_begin(&x->scram, response, &name, &identity);
    if (answer == SCRAM_MALFORMED)
        return SASL_MALFORMED;
    take_name(x, text_str(&name));
    if (answer == SCRAM_WRONG || is_other(x, text_str(&identity))) {
        enum sasl_status status = attempt(x, store, until);
        return status == SASL_OK ? refuse(x) : status;
    }
    x->real = store->find(store->ctx, sasl_exchange_name(x), &user) && (sha1 ? user.sha1 : user.sha256).iterations > 0;
    if (!x->real)
        store->pretend(store->ctx, sasl_exchange_name(x), &user);
    x->keys = sha1 ? user.sha1 : user.sha256;
    store->random(store->ctx, nonce, sizeof nonce);
    for (size_t i = 0; i < sizeof nonce; i++)
        nonce[i] = (unsigned char)letters[nonce[i] & 63];
    x->step++;
    scram_server_challenge(&x->scram, &x->keys, str_new(nonce, sizeof nonce), out);
    return SASL_CHALLENGE;
}

static enum sasl_status
step_scram(struct sasl_exchange *x, const struct sasl_store *store, struct str response, int64_t until, struct text *out)
{
    if (str_is_absent(response))
        return challenge(x, out, S(""));
    if (x->name_len == 0)
        return begin_scram(x, store, response, until, out);
    if (x->proved)
        return response.len == 0 ? SASL_OK : SASL_MALFORMED;
    enum sasl_status status = attempt(x, store, until);
    if (status != SASL_OK)
        return status;
    enum scram_answer answer = scram_server_end(&x->scram, &x->keys, response, out);
    if (answer == SCRAM_MALFORMED)
        return SASL_MALFORMED;
    if (answer == SCRAM_WRONG || !x->real)
        return refuse(x);
    x->proved = true;
    return SASL_CHALLENGE;
}

enum sasl_status
sasl_exchange_step(struct sasl_exchange *x, const struct sasl_store *store, struct str response, int64_t until, struct text *out)
{
    /* Only the first step may come without a response. */
    if (x->step > 0 && str_is_absent(response))
        return SASL_MALFORMED;
    switch (x->mechanism) {
    case SASL_PLAIN:
        return step_plain(x, store, response, until, out);
    case SASL_LOGIN:
        return step_login(x, store, response, until, out);
    case SASL_EXTERNAL:
        return step_external(x, store, response, until, out);
    case SASL_CRAM_MD5:
        return step_cram(x, store, response, until, out);
    default:
        return step_scram(x, store, response, until, out);
    }
}

struct str
sasl_said_name(enum sasl_mechanism m, struct str response, struct text *memory)
{
    struct scram_server scram = { .plus = false };
    char identity_memory[LIMIT_USER_NAME];
    struct text identity = text_init(identity_memory, sizeof identity_memory);
    struct str none = { NULL, 0 };

    switch (m) {
    case SASL_PLAIN:
        str_cut(&response, '\0');
        return str_is_absent(response) ? none : str_cut(&response, '\0');
    case SASL_LOGIN:
        return response;
    case SASL_CRAM_MD5:
        return str_slice(response, 0, str_find_last_byte(response, ' '));
    case SASL_SCRAM_SHA_1:
    case SASL_SCRAM_SHA_256:
        return scram_server_begin(&scram, response, memory, &identity) == SCRAM_MALFORMED ? none : text_str(memory);
    default:
        return none;
    }
}
