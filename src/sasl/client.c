/* client - see client.h. */
#include "sasl/client.h"

#include "base/base64.h"
#include "base/check.h"

#include <string.h>

static const struct str names[SASL_CLIENT_MECHANISMS] = { STR("SCRAM-SHA-256"), STR("PLAIN"), STR("LOGIN"), STR("XOAUTH2") };
#define GS2 "n,,"          /* we bind to no channel: the certificate was looked at */
#define GS2_BASE64 "biws"

struct str
sasl_client_name(enum sasl_client_mechanism mechanism)
{
    return names[mechanism];
}

unsigned
sasl_client_offered(struct str words)
{
    unsigned offered = 0;

    for (struct str word; (word = str_cut_word(&words)).len > 0;)
        for (unsigned m = 0; m < SASL_CLIENT_MECHANISMS; m++)
            if (str_eq_nocase(word, names[m]))
                offered |= 1u << m;
    return offered;
}

bool
sasl_client_choose(unsigned offered, const struct sasl_login *login, enum sasl_client_mechanism *out)
{
    for (enum sasl_client_mechanism m = 0; m < SASL_CLIENT_MECHANISMS; m++)
        if (offered & 1u << m && login->token == (m == SASL_CLIENT_XOAUTH2)) {
            *out = m;
            return true;
        }
    return false;
}

void
sasl_client_begin(struct sasl_client *c, enum sasl_client_mechanism mechanism, const struct sasl_login *login, struct str nonce)
{
    CHECK(nonce.len == SCRAM_NONCE);
    CHECK(login->user.len <= LIMIT_USER_NAME && login->secret.len <= SASL_SECRET_MAX);
    *c = (struct sasl_client){ .mechanism = mechanism, .login = *login };
    memcpy(c->nonce, nonce.ptr, nonce.len);
}

void
sasl_client_done(struct sasl_client *c)
{
    explicit_bzero(c, sizeof *c);
}

/* client-first-message-bare: RFC 5802 section 7. */
static void
put_first_bare(struct sasl_client *c, struct text *out)
{
    text_put(out, S("n="));
    scram_put_name(out, c->login.user);
    text_put(out, S(",r="));
    text_put(out, str_new(c->nonce, sizeof c->nonce));
}

bool
sasl_client_initial(struct sasl_client *c, struct text *out)
{
    switch (c->mechanism) {
    case SASL_CLIENT_SCRAM_SHA_256:
        text_put(out, S(GS2));
        put_first_bare(c, out);
        break;
    case SASL_CLIENT_PLAIN:
        text_put_byte(out, '\0');
        text_put(out, c->login.user);
        text_put_byte(out, '\0');
        text_put(out, c->login.secret);
        break;
    case SASL_CLIENT_XOAUTH2:
        text_put(out, S("user="));
        text_put(out, c->login.user);
        text_put(out, S("\1auth=Bearer "));
        text_put(out, c->login.secret);
        text_put(out, S("\1\1"));
        break;
    case SASL_CLIENT_LOGIN:
    case SASL_CLIENT_MECHANISMS:
        return false;
    }
    CHECK(!out->full);
    return true;
}

/* ---- SCRAM ------------------------------------------------------------------------------------------------------- */

static bool
take_attribute(struct str *rest, struct str name, struct str *out)
{
    if (!str_take(rest, name))
        return false;
    *out = str_cut(rest, ',');
    return true;
}

/* server-first-message: "r=NONCE,s=SALT,i=COUNT". */
static bool
take_server_first(struct sasl_client *c, struct str message, struct str *out_why)
{
    struct str rest = message, nonce, salt, count;
    struct text decoded = text_init(c->salt_memory, sizeof c->salt_memory);
    uint64_t iterations;

    *out_why = S("the server's first message of SCRAM is wrong");
    if (message.len > sizeof c->challenge || !take_attribute(&rest, S("r="), &nonce) || !take_attribute(&rest, S("s="), &salt) ||
        !take_attribute(&rest, S("i="), &count) || !base64_decode_strictly(salt, &decoded) || decoded.len == 0 ||
        !str_to_u64(count, &iterations))
        return false;
    if (nonce.len <= sizeof c->nonce || !str_starts(nonce, str_new(c->nonce, sizeof c->nonce))) {
        *out_why = S("the server's nonce of SCRAM does not begin with ours: the answer may be an old one");
        return false;
    }
    if (iterations < SCRAM_ITERATIONS_MIN || iterations > SASL_CLIENT_ITERATIONS_MAX) {
        *out_why = S("the server's iteration count of SCRAM is out of bounds");
        return false;
    }
    c->salt = text_str(&decoded);
    c->iterations = (uint32_t)iterations;
    memcpy(c->challenge, message.ptr, message.len);
    c->challenge_len = message.len;
    c->needs_keys = true;
    return true;
}

void
sasl_client_make_keys(void *client)
{
    struct sasl_client *c = client;

    scram_client_keys(DIGEST_SHA256, c->login.secret, c->salt, c->iterations, c->client_key, c->server_key);
    c->needs_keys = false;
}

/* client-final-message, and what the server must say to it. */
static void
put_client_final(struct sasl_client *c, struct text *out)
{
    char memory[SASL_CLIENT_MAX];
    struct text signed_text = text_init(memory, sizeof memory);
    unsigned char proof[DIGEST_MAX];
    struct str challenge = str_new(c->challenge, c->challenge_len), nonce = str_from(challenge, 2);

    CHECK(!c->needs_keys);
    nonce = str_slice(nonce, 0, str_find_byte(nonce, ','));
    put_first_bare(c, &signed_text);
    text_put_byte(&signed_text, ',');
    text_put(&signed_text, challenge);
    text_put(&signed_text, S(",c=" GS2_BASE64 ",r="));
    text_put(&signed_text, nonce);
    CHECK(!signed_text.full);
    scram_client_proof(DIGEST_SHA256, c->client_key, c->server_key, text_str(&signed_text), proof, c->signature);
    text_put(out, S("c=" GS2_BASE64 ",r="));
    text_put(out, nonce);
    text_put(out, S(",p="));
    base64_put(out, str_new(proof, digest_size(DIGEST_SHA256)));
    CHECK(!out->full);
}

/* server-final-message: "v=SIGNATURE", or "e=why". */
static bool
take_server_final(struct sasl_client *c, struct str message, struct str *out_why)
{
    unsigned char memory[DIGEST_MAX + 1];
    struct text decoded = text_init(memory, sizeof memory);
    struct str rest = message, signature;
    struct str mine = str_new(c->signature, digest_size(DIGEST_SHA256));

    *out_why = S("the server has not shown that it knows the password");
    if (!take_attribute(&rest, S("v="), &signature) || !base64_decode_strictly(signature, &decoded) ||
        !digest_same(text_str(&decoded), mine))
        return false;
    c->proven = true;
    return true;
}

/* ---- challenges -------------------------------------------------------------------------------------------------- */

bool
sasl_client_take(struct sasl_client *c, struct str challenge, struct str *out_why)
{
    unsigned step = c->step++;

    *out_why = S("the server asks for more than this mechanism has");
    switch (c->mechanism) {
    case SASL_CLIENT_SCRAM_SHA_256:
        return step == 0 ? take_server_first(c, challenge, out_why) : step == 1 && take_server_final(c, challenge, out_why);
    case SASL_CLIENT_LOGIN: /* "Username:" and "Password:", whatever their words */
        return step < 2;
    case SASL_CLIENT_XOAUTH2: /* it says in JSON what is wrong, and wants an empty answer before it says 535 */
        return step == 0;
    case SASL_CLIENT_PLAIN:
    case SASL_CLIENT_MECHANISMS:
        break;
    }
    return false;
}

void
sasl_client_answer(struct sasl_client *c, struct text *out)
{
    if (c->mechanism == SASL_CLIENT_SCRAM_SHA_256 && c->step == 1)
        put_client_final(c, out);
    else if (c->mechanism == SASL_CLIENT_LOGIN)
        text_put(out, c->step == 1 ? c->login.user : c->login.secret);
    CHECK(!out->full);
}

bool
sasl_client_may_succeed(const struct sasl_client *c)
{
    return c->mechanism != SASL_CLIENT_SCRAM_SHA_256 || c->proven;
}
