/*
 * scram - see scram.h. Names as in RFC 5802 section 3:
 *
 *     SaltedPassword  = PBKDF2(password, salt, i)       ClientKey = HMAC(SaltedPassword, "Client Key")
 *     StoredKey       = H(ClientKey)                    ServerKey = HMAC(SaltedPassword, "Server Key")
 *     AuthMessage     = client-first-message-bare , server-first-message , client-final-message-without-proof
 *     ClientProof     = ClientKey XOR HMAC(StoredKey, AuthMessage)
 *     ServerSignature = HMAC(ServerKey, AuthMessage)
 */
#include "sasl/scram.h"

#include "base/base64.h"
#include "base/check.h"

#include <string.h>

enum { CLIENT_NONCE_MAX = 256, AUTH_PARTS = 5 };

/* ---- keys -------------------------------------------------------------------------------------------------------- */

void
scram_client_keys(enum digest digest, struct str password, struct str salt, uint32_t iterations, unsigned char *client_key,
                  unsigned char *server_key)
{
    unsigned char salted[DIGEST_MAX];
    struct str key = str_new(salted, digest_size(digest)), client = S("Client Key"), server = S("Server Key");

    digest_pbkdf2(digest, password, salt, iterations, salted);
    digest_hmac(digest, key, &client, 1, client_key);
    digest_hmac(digest, key, &server, 1, server_key);
    explicit_bzero(salted, sizeof salted);
}

void
scram_make_keys(enum digest digest, struct str password, struct str salt, uint32_t iterations, struct scram_keys *out)
{
    unsigned char client_key[DIGEST_MAX];
    struct str key = str_new(client_key, digest_size(digest));

    CHECK(salt.len <= SCRAM_SALT_MAX && iterations >= SCRAM_ITERATIONS_MIN);
    *out = (struct scram_keys){ .iterations = iterations, .salt_len = salt.len };
    memcpy(out->salt, salt.ptr, salt.len);
    scram_client_keys(digest, password, salt, iterations, client_key, out->server);
    digest_of(digest, &key, 1, out->stored);
    explicit_bzero(client_key, sizeof client_key);
}

void
scram_client_proof(enum digest digest, const unsigned char *client_key, const unsigned char *server_key, struct str auth_message,
                   unsigned char *out_proof, unsigned char *out_signature)
{
    unsigned char stored[DIGEST_MAX];
    size_t size = digest_size(digest);
    struct str key = str_new(client_key, size);

    digest_of(digest, &key, 1, stored);
    digest_hmac(digest, str_new(stored, size), &auth_message, 1, out_proof);
    for (size_t i = 0; i < size; i++)
        out_proof[i] ^= client_key[i];
    digest_hmac(digest, str_new(server_key, size), &auth_message, 1, out_signature);
}

/* ---- what messages are made of ----------------------------------------------------------------------------------- */

void
scram_put_name(struct text *out, struct str name)
{
    for (size_t i = 0; i < name.len; i++)
        if (name.ptr[i] == ',')
            text_put(out, S("=2C"));
        else if (name.ptr[i] == '=')
            text_put(out, S("=3D"));
        else
            text_put_byte(out, name.ptr[i]);
}

bool
scram_take_name(struct str s, struct text *out)
{
    while (s.len > 0)
        if (str_take(&s, S("=2C"))) {
            text_put_byte(out, ',');
        } else if (str_take(&s, S("=3D"))) {
            text_put_byte(out, '=');
        } else {
            if (s.ptr[0] == '=' || s.ptr[0] == '\0')
                return false;
            text_put_byte(out, s.ptr[0]);
            s = str_from(s, 1);
        }
    return !out->full;
}

/* "x=value" up to the next comma. */
static bool
take_attribute(struct str *s, char name, struct str *out)
{
    if (s->len < 2 || s->ptr[0] != name || s->ptr[1] != '=')
        return false;
    *s = str_from(*s, 2);
    *out = str_cut(s, ',');
    return true;
}

static bool
is_nonce(struct str s)
{
    for (size_t i = 0; i < s.len; i++)
        if (s.ptr[i] <= ' ' || s.ptr[i] > '~' || s.ptr[i] == ',')
            return false;
    return s.len > 0 && s.len <= CLIENT_NONCE_MAX + SCRAM_NONCE;
}

/* ---- the server's side ------------------------------------------------------------------------------------------- */

/* gs2-cbind-flag, RFC 5802 section 6. */
static enum scram_answer
take_binding(struct scram_server *s, struct str flag)
{
    if (str_take(&flag, S("p="))) {
        if (!s->plus)
            return SCRAM_MALFORMED;
        s->data = str_eq(flag, S("tls-exporter"))           ? s->binding.exporter
                  : str_eq(flag, S("tls-server-end-point")) ? s->binding.end_point
                                                            : (struct str){ NULL, 0 };
        return str_is_absent(s->data) ? SCRAM_WRONG : SCRAM_FINE;
    }
    if (s->plus || (!str_eq(flag, S("n")) && !str_eq(flag, S("y"))))
        return SCRAM_MALFORMED;
    /* "I could have bound, had you offered it": we did, and somebody took it out. */
    return str_eq(flag, S("y")) && s->offers_plus ? SCRAM_WRONG : SCRAM_FINE;
}

enum scram_answer
scram_server_begin(struct scram_server *s, struct str message, struct text *out_user, struct text *out_identity)
{
    struct str rest = message, user, nonce, identity;

    if (message.len > SCRAM_MESSAGE_MAX)
        return SCRAM_MALFORMED;
    struct str flag = str_cut(&rest, ',');
    if (str_is_absent(rest))
        return SCRAM_MALFORMED;
    enum scram_answer answer = take_binding(s, flag);
    if (answer == SCRAM_MALFORMED)
        return answer;
    if (!take_attribute(&rest, 'a', &identity) && !str_take(&rest, S(",")))
        return SCRAM_MALFORMED;
    if (str_is_absent(rest))
        return SCRAM_MALFORMED;
    s->gs2_len = (size_t)(rest.ptr - message.ptr);
    if (s->gs2_len > flag.len + 2) {
        if (identity.len == 0 || !scram_take_name(identity, out_identity))
            return SCRAM_MALFORMED;
    }
    /* "m=" would come first: an extension that must be understood, and none is. */
    if (!take_attribute(&rest, 'n', &user) || str_is_absent(rest) || !scram_take_name(user, out_user) ||
        !take_attribute(&rest, 'r', &nonce) || !is_nonce(nonce) || nonce.len > CLIENT_NONCE_MAX)
        return SCRAM_MALFORMED;
    memcpy(s->first, message.ptr, message.len);
    s->first_len = message.len;
    return answer;
}

static struct str
first_bare(const struct scram_server *s)
{
    return str_new(s->first + s->gs2_len, s->first_len - s->gs2_len);
}

static struct str
client_nonce(const struct scram_server *s)
{
    struct str rest = first_bare(s), nonce = { NULL, 0 };

    str_cut(&rest, ',');
    CHECK(take_attribute(&rest, 'r', &nonce)); /* scram_server_begin() saw it */
    return nonce;
}

void
scram_server_challenge(struct scram_server *s, const struct scram_keys *keys, struct str nonce, struct text *out)
{
    struct text text = text_init(s->challenge, sizeof s->challenge);

    text_put(&text, S("r="));
    text_put(&text, client_nonce(s));
    text_put(&text, nonce);
    text_put(&text, S(",s="));
    base64_put(&text, str_new(keys->salt, keys->salt_len));
    text_put(&text, S(",i="));
    text_put_u64(&text, keys->iterations);
    CHECK(!text.full);
    s->challenge_len = text.len;
    text_put(out, text_str(&text));
}

/* cbind-input: the header as it was sent, and what it binds to. */
static bool
binds_right(const struct scram_server *s, struct str said)
{
    char memory[SCRAM_MESSAGE_MAX], wanted[SCRAM_MESSAGE_MAX + 64];
    struct text decoded = text_init(memory, sizeof memory), text = text_init(wanted, sizeof wanted);

    text_put(&text, str_new(s->first, s->gs2_len));
    if (!str_is_absent(s->data))
        text_put(&text, s->data);
    CHECK(!text.full);
    return base64_decode_strictly(said, &decoded) && digest_same(text_str(&decoded), text_str(&text));
}

enum scram_answer
scram_server_end(struct scram_server *s, const struct scram_keys *keys, struct str message, struct text *out)
{
    struct str rest = message, binding, nonce, challenge = str_new(s->challenge, s->challenge_len), expected, proof;
    unsigned char memory[DIGEST_MAX + 4], signature[DIGEST_MAX], client_key[DIGEST_MAX], stored[DIGEST_MAX];
    struct text decoded = text_init(memory, sizeof memory);
    size_t size = digest_size(s->digest), before = str_find(message, S(",p="));

    if (message.len > SCRAM_MESSAGE_MAX || !take_attribute(&rest, 'c', &binding) || str_is_absent(rest) ||
        !take_attribute(&rest, 'r', &nonce) || str_is_absent(rest))
        return SCRAM_MALFORMED;
    /* Extensions may stand between; the proof is last. */
    proof = str_from(message, before + 3);
    if (before >= message.len || str_has_byte(proof, ',') || !base64_decode_strictly(proof, &decoded) || decoded.len != size)
        return SCRAM_MALFORMED;
    expected = str_slice(challenge, 2, str_find_byte(challenge, ','));
    if (!str_eq(nonce, expected) || !binds_right(s, binding))
        return SCRAM_WRONG;

    struct str parts[AUTH_PARTS] = { first_bare(s), S(","), challenge, S(","), str_slice(message, 0, before) };
    digest_hmac(s->digest, str_new(keys->stored, size), parts, AUTH_PARTS, signature);
    for (size_t i = 0; i < size; i++)
        client_key[i] = signature[i] ^ memory[i];
    struct str key = str_new(client_key, size);
    digest_of(s->digest, &key, 1, stored);
    explicit_bzero(client_key, sizeof client_key);
    if (!digest_same(str_new(stored, size), str_new(keys->stored, size)))
        return SCRAM_WRONG;
    digest_hmac(s->digest, str_new(keys->server, size), parts, AUTH_PARTS, signature);
    text_put(out, S("v="));
    base64_put(out, str_new(signature, size));
    return SCRAM_FINE;
}
