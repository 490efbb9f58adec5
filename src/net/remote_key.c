/*
 * remote_key - see remote_key.h.
 *
 * Two algorithms, RSA and EC, each a key management and a signature. What a key is asked about itself (size, curve,
 * whether it belongs to a certificate) its public half answers, which the default provider knows. libssl signs in one
 * call (EVP_DigestSign), so there is neither a signature in pieces nor one of a hash.
 *
 * There is no export: the default provider's signature, which libssl would take first, must not believe that it can
 * use the key; libssl then turns to the provider that the key is of.
 */
#include "net/remote_key.h"

#include "base/check.h"

#include <openssl/core_dispatch.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/obj_mac.h>
#include <openssl/param_build.h>
#include <openssl/provider.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <string.h>

#define NAME "postrider"
#define PROPERTIES "provider=" NAME
#define PARAM_SIGNER "postrider-signer"

struct remote_key {
    OSSL_LIB_CTX *library;
    EVP_PKEY *own_public;
    const struct key_signer *signer; /* NULL: only to be compared with */
    struct key_name name;
    bool is_rsa;
};

/* ---- key management ---------------------------------------------------------------------------------------------- */

static void *
key_new(void *provider, bool is_rsa)
{
    struct remote_key *k = OPENSSL_zalloc(sizeof *k);

    if (k) {
        k->library = provider;
        k->is_rsa = is_rsa;
    }
    return k;
}

static void *
rsa_new(void *provider)
{
    return key_new(provider, true);
}

static void *
ec_new(void *provider)
{
    return key_new(provider, false);
}

static void
key_end(void *key)
{
    struct remote_key *k = key;

    if (k)
        EVP_PKEY_free(k->own_public);
    OPENSSL_free(k);
}

static int
key_has(const void *key, int selection)
{
    const struct remote_key *k = key;

    return k->own_public && (!(selection & OSSL_KEYMGMT_SELECT_PRIVATE_KEY) || k->signer);
}

static int
key_match(const void *key, const void *other, int selection)
{
    const struct remote_key *a = key, *b = other;

    (void)selection; /* there are no parameters without a public key */
    return a->own_public && b->own_public && EVP_PKEY_eq(a->own_public, b->own_public) == 1;
}

static int
key_import(void *key, int selection, const OSSL_PARAM params[])
{
    struct remote_key *k = key;
    const OSSL_PARAM *signer = OSSL_PARAM_locate_const(params, PARAM_SIGNER);
    const void *ptr;
    size_t size;

    (void)selection;
    EVP_PKEY_CTX *c = EVP_PKEY_CTX_new_from_name(k->library, k->is_rsa ? "RSA" : "EC", "provider=default");
    bool fine = c && EVP_PKEY_fromdata_init(c) == 1 &&
                EVP_PKEY_fromdata(c, &k->own_public, EVP_PKEY_PUBLIC_KEY, (OSSL_PARAM *)(uintptr_t)params) == 1;
    EVP_PKEY_CTX_free(c);
    if (fine && signer && OSSL_PARAM_get_octet_ptr(signer, &ptr, &size) == 1) {
        k->signer = ptr;
        fine = remote_key_name(k->library, k->own_public, &k->name);
    }
    return fine;
}

static const OSSL_PARAM *
key_import_types(int selection)
{
    static const OSSL_PARAM types[] = {
        OSSL_PARAM_BN(OSSL_PKEY_PARAM_RSA_N, NULL, 0),
        OSSL_PARAM_BN(OSSL_PKEY_PARAM_RSA_E, NULL, 0),
        OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, NULL, 0),
        OSSL_PARAM_octet_string(OSSL_PKEY_PARAM_PUB_KEY, NULL, 0),
        OSSL_PARAM_octet_ptr(PARAM_SIGNER, NULL, 0),
        OSSL_PARAM_END,
    };

    return selection & OSSL_KEYMGMT_SELECT_PUBLIC_KEY ? types : NULL;
}

static int
key_get_params(void *key, OSSL_PARAM params[])
{
    const struct remote_key *k = key;

    return k->own_public && EVP_PKEY_get_params(k->own_public, params);
}

static const OSSL_PARAM *
key_gettable_params(void *provider)
{
    static const OSSL_PARAM types[] = {
        OSSL_PARAM_int(OSSL_PKEY_PARAM_BITS, NULL),
        OSSL_PARAM_int(OSSL_PKEY_PARAM_SECURITY_BITS, NULL),
        OSSL_PARAM_int(OSSL_PKEY_PARAM_MAX_SIZE, NULL),
        OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, NULL, 0),
        OSSL_PARAM_END,
    };

    (void)provider;
    return types;
}

static const char *
ec_operation(int operation)
{
    return operation == OSSL_OP_SIGNATURE ? "ECDSA" : "EC";
}

#define FUNCTION(id, f) { (id), (void (*)(void))(f) }
#define KEY_FUNCTIONS                                                                                                  \
    FUNCTION(OSSL_FUNC_KEYMGMT_FREE, key_end), FUNCTION(OSSL_FUNC_KEYMGMT_HAS, key_has),                               \
        FUNCTION(OSSL_FUNC_KEYMGMT_MATCH, key_match), FUNCTION(OSSL_FUNC_KEYMGMT_IMPORT, key_import),                  \
        FUNCTION(OSSL_FUNC_KEYMGMT_IMPORT_TYPES, key_import_types),                                                    \
        FUNCTION(OSSL_FUNC_KEYMGMT_GET_PARAMS, key_get_params),                                                        \
        FUNCTION(OSSL_FUNC_KEYMGMT_GETTABLE_PARAMS, key_gettable_params)

static const OSSL_DISPATCH rsa_keys[] = { FUNCTION(OSSL_FUNC_KEYMGMT_NEW, rsa_new), KEY_FUNCTIONS, { 0, NULL } };
static const OSSL_DISPATCH ec_keys[] = {
    FUNCTION(OSSL_FUNC_KEYMGMT_NEW, ec_new), KEY_FUNCTIONS,
    FUNCTION(OSSL_FUNC_KEYMGMT_QUERY_OPERATION_NAME, ec_operation), { 0, NULL },
};

/* ---- signatures -------------------------------------------------------------------------------------------------- */

struct signing {
    const struct remote_key *key;
    int bits;     /* of the hash */
    bool is_pss;
};

static void *
signing_new(void *provider, const char *properties)
{
    (void)provider;
    (void)properties;
    return OPENSSL_zalloc(sizeof(struct signing));
}

static void
signing_end(void *signing)
{
    OPENSSL_free(signing);
}

static int
hash_bits(const char *name)
{
    static const struct {
        const char *name;
        int bits;
    } hashes[] = {
        { "SHA256", 256 }, { "SHA2-256", 256 }, { "SHA384", 384 }, { "SHA2-384", 384 },
        { "SHA512", 512 }, { "SHA2-512", 512 },
    };

    for (size_t i = 0; name && i < sizeof hashes / sizeof *hashes; i++)
        if (OPENSSL_strcasecmp(name, hashes[i].name) == 0)
            return hashes[i].bits;
    return 0;
}

/* The same choice comes as a number or as a word, as OpenSSL's version has it. */
static bool
says(const OSSL_PARAM *p, int number, const char *word)
{
    const char *text;
    int n;

    if (!p)
        return false;
    if (p->data_type == OSSL_PARAM_UTF8_STRING)
        return OSSL_PARAM_get_utf8_string_ptr(p, &text) == 1 && strcmp(text, word) == 0;
    return OSSL_PARAM_get_int(p, &n) == 1 && n == number;
}

static int
signing_set_params(void *signing, const OSSL_PARAM params[])
{
    struct signing *s = signing;
    const OSSL_PARAM *pad = params ? OSSL_PARAM_locate_const(params, OSSL_SIGNATURE_PARAM_PAD_MODE) : NULL;
    const OSSL_PARAM *salt = params ? OSSL_PARAM_locate_const(params, OSSL_SIGNATURE_PARAM_PSS_SALTLEN) : NULL;

    s->is_pss |= says(pad, RSA_PKCS1_PSS_PADDING, OSSL_PKEY_RSA_PAD_MODE_PSS);
    return (!pad || s->is_pss || says(pad, RSA_PKCS1_PADDING, OSSL_PKEY_RSA_PAD_MODE_PKCSV15)) &&
           (!salt || says(salt, RSA_PSS_SALTLEN_DIGEST, OSSL_PKEY_RSA_PSS_SALT_LEN_DIGEST));
}

static const OSSL_PARAM *
signing_settable_params(void *signing, void *provider)
{
    static const OSSL_PARAM types[] = {
        OSSL_PARAM_int(OSSL_SIGNATURE_PARAM_PAD_MODE, NULL),
        OSSL_PARAM_int(OSSL_SIGNATURE_PARAM_PSS_SALTLEN, NULL),
        OSSL_PARAM_END,
    };

    (void)signing;
    (void)provider;
    return types;
}

static int
signing_begin(void *signing, const char *hash, void *key, const OSSL_PARAM params[])
{
    struct signing *s = signing;

    if (key)
        s->key = key;
    if (hash)
        s->bits = hash_bits(hash);
    return s->key && s->key->signer && s->bits && signing_set_params(s, params);
}

static enum key_scheme
scheme_of(const struct signing *s)
{
    static const enum key_scheme schemes[3][3] = {
        { KEY_ECDSA_SHA256, KEY_ECDSA_SHA384, KEY_ECDSA_SHA512 },
        { KEY_RSA_PKCS1_SHA256, KEY_RSA_PKCS1_SHA384, KEY_RSA_PKCS1_SHA512 },
        { KEY_RSA_PSS_SHA256, KEY_RSA_PSS_SHA384, KEY_RSA_PSS_SHA512 },
    };

    return schemes[s->key->is_rsa ? 1 + s->is_pss : 0][s->bits / 128 - 2];
}

static int
signing_sign(void *signing, unsigned char *signature, size_t *len, size_t cap, const unsigned char *covers,
             size_t covers_len)
{
    const struct signing *s = signing;
    const struct remote_key *k = s->key;

    if (!signature) {
        *len = (size_t)EVP_PKEY_get_size(k->own_public);
        return 1;
    }
    return k->signer->sign(k->signer->ctx, &k->name, scheme_of(s), str_new(covers, covers_len), signature, cap, len);
}

static const OSSL_DISPATCH signatures[] = {
    FUNCTION(OSSL_FUNC_SIGNATURE_NEWCTX, signing_new),
    FUNCTION(OSSL_FUNC_SIGNATURE_FREECTX, signing_end),
    FUNCTION(OSSL_FUNC_SIGNATURE_DIGEST_SIGN_INIT, signing_begin),
    FUNCTION(OSSL_FUNC_SIGNATURE_DIGEST_SIGN, signing_sign),
    FUNCTION(OSSL_FUNC_SIGNATURE_SET_CTX_PARAMS, signing_set_params),
    FUNCTION(OSSL_FUNC_SIGNATURE_SETTABLE_CTX_PARAMS, signing_settable_params),
    { 0, NULL },
};

/* ---- the provider ------------------------------------------------------------------------------------------------ */

static const OSSL_ALGORITHM *
query(void *provider, int operation, int *no_store)
{
    static const OSSL_ALGORITHM keys[] = {
        { "RSA:rsaEncryption", PROPERTIES, rsa_keys, NULL },
        { "EC:id-ecPublicKey", PROPERTIES, ec_keys, NULL },
        { NULL, NULL, NULL, NULL },
    };
    static const OSSL_ALGORITHM signing[] = {
        { "RSA:rsaEncryption", PROPERTIES, signatures, NULL },
        { "ECDSA", PROPERTIES, signatures, NULL },
        { NULL, NULL, NULL, NULL },
    };

    (void)provider;
    *no_store = 0;
    return operation == OSSL_OP_KEYMGMT ? keys : operation == OSSL_OP_SIGNATURE ? signing : NULL;
}

static int
begin(const OSSL_CORE_HANDLE *core, const OSSL_DISPATCH *in, const OSSL_DISPATCH **out, void **provider)
{
    static const OSSL_DISPATCH functions[] = {
        FUNCTION(OSSL_FUNC_PROVIDER_QUERY_OPERATION, query),
        { 0, NULL },
    };

    for (; in->function_id; in++) /* a provider inside the program may use the library context that it is loaded in */
        if (in->function_id == OSSL_FUNC_CORE_GET_LIBCTX)
            *provider = OSSL_FUNC_core_get_libctx(in)(core);
    *out = functions;
    return *provider != NULL;
}

OSSL_PROVIDER *
remote_key_load(OSSL_LIB_CTX *library)
{
    return OSSL_PROVIDER_add_builtin(library, NAME, begin) == 1 ? OSSL_PROVIDER_load(library, NAME) : NULL;
}

EVP_PKEY *
remote_key_new(OSSL_LIB_CTX *library, EVP_PKEY *public_key, const struct key_signer *signer)
{
    const char *kind = EVP_PKEY_is_a(public_key, "RSA") ? "RSA" : EVP_PKEY_is_a(public_key, "EC") ? "EC" : NULL;
    void *ptr = (void *)(uintptr_t)signer;
    OSSL_PARAM ours[] = { OSSL_PARAM_construct_octet_ptr(PARAM_SIGNER, &ptr, sizeof *signer), OSSL_PARAM_END };
    OSSL_PARAM *its = NULL, *all = NULL;
    EVP_PKEY *key = NULL;

    if (!kind || EVP_PKEY_todata(public_key, EVP_PKEY_PUBLIC_KEY, &its) != 1)
        return NULL;
    all = OSSL_PARAM_merge(its, ours);
    EVP_PKEY_CTX *c = EVP_PKEY_CTX_new_from_name(library, kind, PROPERTIES);
    if (!all || !c || EVP_PKEY_fromdata_init(c) != 1 || EVP_PKEY_fromdata(c, &key, EVP_PKEY_KEYPAIR, all) != 1)
        key = NULL;
    EVP_PKEY_CTX_free(c);
    OPENSSL_free(all);
    OSSL_PARAM_free(its);
    return key;
}

bool
remote_key_name(OSSL_LIB_CTX *library, EVP_PKEY *key, struct key_name *out)
{
    unsigned char *der = NULL;
    int len = i2d_PUBKEY(key, &der);
    size_t size;
    bool fine = len > 0 && EVP_Q_digest(library, "SHA256", NULL, der, (size_t)len, out->bytes, &size) == 1;

    OPENSSL_free(der);
    CHECK(!fine || size == sizeof out->bytes);
    return fine;
}
