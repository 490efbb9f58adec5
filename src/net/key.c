/* key - see key.h. */
#include "net/key.h"

#include "base/check.h"
#include "net/openssl.h"
#include "net/remote_key.h"

#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509v3.h>
#include <string.h>

enum { RSA_BITS_MIN = 2048, RSA_BITS_MAX = 8192, SELF_SIGNED_DAYS = 3650, COMMON_NAME_MAX = 64 };

struct key {
    struct crypto *crypto;
    EVP_PKEY *own_pkey;
    struct key_name name;
    bool is_rsa;
};

/* ---- reading ----------------------------------------------------------------------------------------------------- */

static BIO *
reader_of(struct str pem)
{
    return pem.len <= KEY_FILE_MAX ? BIO_new_mem_buf(pem.ptr, (int)pem.len) : NULL;
}

static bool
is_usable(EVP_PKEY *pkey)
{
    int bits = EVP_PKEY_get_bits(pkey);
    char curve[32] = "";
    size_t len;

    if (EVP_PKEY_is_a(pkey, "RSA"))
        return bits >= RSA_BITS_MIN && bits <= RSA_BITS_MAX;
    return EVP_PKEY_is_a(pkey, "EC") && EVP_PKEY_get_group_name(pkey, curve, sizeof curve, &len) == 1 &&
           (strcmp(curve, "prime256v1") == 0 || strcmp(curve, "secp384r1") == 0 || strcmp(curve, "secp521r1") == 0);
}

struct err
key_parse(struct crypto *crypto, struct str pem, struct key **out)
{
    struct key k = { .crypto = crypto };
    BIO *bio = reader_of(pem);

    if (!bio)
        return ERR(ERR_LIMIT, "read a private key");
    k.own_pkey = PEM_read_bio_PrivateKey_ex(bio, NULL, openssl_no_passphrase, NULL, crypto_library(crypto), NULL);
    BIO_free(bio);
    ERR_clear_error();
    if (!k.own_pkey)
        return ERR(ERR_SYNTAX, "read a private key");
    k.is_rsa = EVP_PKEY_is_a(k.own_pkey, "RSA");
    bool named = remote_key_name(crypto_library(crypto), k.own_pkey, &k.name);
    if (!named || !is_usable(k.own_pkey)) {
        EVP_PKEY_free(k.own_pkey);
        return ERR(ERR_DENIED, "use a private key of this kind");
    }
    *out = mem_new(rt_mem(crypto_rt(crypto)), struct key);
    **out = k;
    return OK;
}

void
key_free(struct key *k)
{
    EVP_PKEY_free(k->own_pkey);
    mem_free(rt_mem(crypto_rt(k->crypto)), k, sizeof *k);
}

struct key_name
key_name(const struct key *k)
{
    return k->name;
}

/* ---- signing ----------------------------------------------------------------------------------------------------- */

static const struct scheme {
    enum key_scheme scheme;
    const char *hash;
    bool is_rsa, is_pss;
} schemes[] = {
    { KEY_RSA_PKCS1_SHA256, "SHA256", true, false }, { KEY_RSA_PKCS1_SHA384, "SHA384", true, false },
    { KEY_RSA_PKCS1_SHA512, "SHA512", true, false }, { KEY_RSA_PSS_SHA256, "SHA256", true, true },
    { KEY_RSA_PSS_SHA384, "SHA384", true, true },    { KEY_RSA_PSS_SHA512, "SHA512", true, true },
    { KEY_ECDSA_SHA256, "SHA256", false, false },    { KEY_ECDSA_SHA384, "SHA384", false, false },
    { KEY_ECDSA_SHA512, "SHA512", false, false },
};

static const struct scheme *
find_scheme(const struct key *k, enum key_scheme wanted)
{
    for (size_t i = 0; i < sizeof schemes / sizeof *schemes; i++)
        if (schemes[i].scheme == wanted && schemes[i].is_rsa == k->is_rsa)
            return &schemes[i];
    return NULL;
}

bool
key_sign(const struct key *k, enum key_scheme wanted, struct str covers, unsigned char *signature, size_t cap,
         size_t *out_len)
{
    const struct scheme *scheme = find_scheme(k, wanted);
    EVP_MD_CTX *c = scheme && covers.len <= KEY_COVERS_MAX ? EVP_MD_CTX_new() : NULL;
    EVP_PKEY_CTX *options;
    size_t len = cap;

    bool fine = c && EVP_DigestSignInit_ex(c, &options, scheme->hash, crypto_library(k->crypto), NULL, k->own_pkey,
                                           NULL) == 1;
    if (fine && scheme->is_pss)
        fine = EVP_PKEY_CTX_set_rsa_padding(options, RSA_PKCS1_PSS_PADDING) == 1 &&
               EVP_PKEY_CTX_set_rsa_pss_saltlen(options, RSA_PSS_SALTLEN_DIGEST) == 1;
    fine = fine && EVP_DigestSign(c, signature, &len, (const unsigned char *)covers.ptr, covers.len) == 1;
    EVP_MD_CTX_free(c);
    ERR_clear_error();
    if (fine)
        *out_len = len;
    return fine;
}

bool
key_table_sign(void *ctx, const struct key_name *name, enum key_scheme scheme, struct str covers,
               unsigned char *signature, size_t cap, size_t *out_len)
{
    const struct key_table *table = ctx;

    for (size_t i = 0; i < table->count; i++)
        if (memcmp(&table->keys[i]->name, name, sizeof *name) == 0)
            return key_sign(table->keys[i], scheme, covers, signature, cap, out_len);
    return false;
}

/* ---- certificates ------------------------------------------------------------------------------------------------ */

static int64_t
ns_of(const ASN1_TIME *time)
{
    ASN1_TIME *from = ASN1_TIME_set(NULL, 0);
    int days = 0, seconds = 0;

    if (from)
        (void)ASN1_TIME_diff(&days, &seconds, from, time);
    ASN1_TIME_free(from);
    return days * DAY + seconds * SECOND;
}

struct err
key_look_at_certificate(struct crypto *crypto, struct str pem, struct key_certificate *out)
{
    BIO *bio = reader_of(pem);
    X509 *x = bio ? openssl_read_certificate(crypto, bio) : NULL;
    struct key_certificate c = { .self_signed = false };

    bool fine = x && remote_key_name(crypto_library(crypto), X509_get0_pubkey(x), &c.key);
    if (fine) {
        c.from = ns_of(X509_get0_notBefore(x));
        c.until = ns_of(X509_get0_notAfter(x));
        c.self_signed = X509_self_signed(x, 0) == 1;
        *out = c;
    }
    X509_free(x);
    BIO_free(bio);
    ERR_clear_error();
    return fine ? OK : ERR(ERR_SYNTAX, "read a certificate");
}

bool
key_certificate_is_for(struct crypto *crypto, struct str pem, struct str hostname)
{
    BIO *bio = reader_of(pem);
    X509 *x = bio ? openssl_read_certificate(crypto, bio) : NULL;

    bool is = x && X509_check_host(x, hostname.ptr, hostname.len, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS, NULL) == 1;
    X509_free(x);
    BIO_free(bio);
    ERR_clear_error();
    return is;
}

static bool
add_alternative_name(X509 *x, struct str hostname)
{
    GENERAL_NAMES *names = sk_GENERAL_NAME_new_null();
    GENERAL_NAME *name = GENERAL_NAME_new();
    ASN1_IA5STRING *text = ASN1_IA5STRING_new();
    bool fine = names && name && text && ASN1_STRING_set(text, hostname.ptr, (int)hostname.len) == 1 &&
                sk_GENERAL_NAME_push(names, name) > 0;

    if (!fine) {
        sk_GENERAL_NAME_free(names);
        GENERAL_NAME_free(name);
        ASN1_IA5STRING_free(text);
        return false;
    }
    GENERAL_NAME_set0_value(name, GEN_DNS, text);
    fine = X509_add1_ext_i2d(x, NID_subject_alt_name, names, 0, X509V3_ADD_DEFAULT) == 1;
    GENERAL_NAMES_free(names);
    return fine;
}

static bool
fill_certificate(X509 *x, EVP_PKEY *pkey, struct str hostname, int64_t now, uint64_t serial)
{
    X509_NAME *subject = X509_get_subject_name(x);
    int64_t seconds = now / SECOND;

    return X509_set_version(x, X509_VERSION_3) == 1 &&
           ASN1_INTEGER_set_uint64(X509_get_serialNumber(x), serial >> 1) == 1 &&
           /* a client whose clock is behind should not mind */
           ASN1_TIME_set(X509_getm_notBefore(x), (time_t)(seconds - DAY / SECOND)) != NULL &&
           ASN1_TIME_set(X509_getm_notAfter(x), (time_t)(seconds + SELF_SIGNED_DAYS * (DAY / SECOND))) != NULL &&
           (hostname.len > COMMON_NAME_MAX ||
            X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const unsigned char *)hostname.ptr,
                                       (int)hostname.len, -1, 0) == 1) &&
           X509_set_issuer_name(x, subject) == 1 && X509_set_pubkey(x, pkey) == 1 && add_alternative_name(x, hostname) &&
           X509_sign(x, pkey, EVP_sha256()) > 0;
}

static struct str
written(BIO *bio, struct arena *arena)
{
    char *bytes;
    long len = BIO_get_mem_data(bio, &bytes);

    return arena_keep(arena, str_new(bytes, len > 0 ? (size_t)len : 0));
}

struct err
key_make_self_signed(struct crypto *crypto, struct str hostname, struct arena *arena, struct str *out_certificate,
                     struct str *out_key)
{
    struct rt *rt = crypto_rt(crypto);
    EVP_PKEY *pkey = EVP_PKEY_Q_keygen(crypto_library(crypto), NULL, "EC", "P-256");
    X509 *x = X509_new_ex(crypto_library(crypto), NULL);
    BIO *certificate = BIO_new(BIO_s_mem()), *key = BIO_new(BIO_s_mem());

    bool fine = pkey && x && certificate && key && fill_certificate(x, pkey, hostname, rt_wall(rt), rt_random(rt)) &&
                PEM_write_bio_X509(certificate, x) == 1 &&
                PEM_write_bio_PKCS8PrivateKey(key, pkey, NULL, NULL, 0, NULL, NULL) == 1;
    if (fine) {
        *out_certificate = written(certificate, arena);
        *out_key = written(key, arena);
    }
    BIO_free(key);
    BIO_free(certificate);
    X509_free(x);
    EVP_PKEY_free(pkey);
    ERR_clear_error();
    return fine ? OK : ERR(ERR_IO, "make a certificate");
}
