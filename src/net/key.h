/*
 * key - private keys for TLS, as the role `keys` holds them: read, named, asked to sign. And certificates: read for a
 * look at them, and made for a server that has none yet.
 *
 * A key's name is the SHA-256 of its public half (SubjectPublicKeyInfo): whoever has the certificate knows it.
 *
 * A signature is asked for with all the bytes that it covers, not with their hash, and the key's holder hashes them: so
 * nobody can have something signed that looks like what he cannot show. What TLS 1.3 signs begins with words of its own
 * (RFC 8446 section 4.4.3), what TLS 1.2 signs with both sides' random numbers.
 */
#ifndef NET_KEY_H
#define NET_KEY_H

#include "base/arena.h"
#include "net/crypto.h"

enum {
    KEY_NAME = 32,
    KEY_SIGNATURE_MAX = 1024, /* RSA of 8192 bits */
    KEY_COVERS_MAX = 512,     /* TLS 1.3: 130 to 162 bytes; TLS 1.2: both random numbers and a curve's point */
    KEY_FILE_MAX = 256 << 10,
};

struct key_name {
    unsigned char bytes[KEY_NAME];
};

/* TLS's SignatureScheme, RFC 8446 section 4.2.3: all that we sign with. */
enum key_scheme {
    KEY_RSA_PKCS1_SHA256 = 0x0401,
    KEY_RSA_PKCS1_SHA384 = 0x0501,
    KEY_RSA_PKCS1_SHA512 = 0x0601,
    KEY_RSA_PSS_SHA256 = 0x0804,
    KEY_RSA_PSS_SHA384 = 0x0805,
    KEY_RSA_PSS_SHA512 = 0x0806,
    KEY_ECDSA_SHA256 = 0x0403,
    KEY_ECDSA_SHA384 = 0x0503,
    KEY_ECDSA_SHA512 = 0x0603,
};

/* Who signs where no key is: asked from inside OpenSSL, so it must not suspend. False: no signature. */
struct key_signer {
    bool (*sign)(void *ctx, const struct key_name *, enum key_scheme, struct str covers, unsigned char *signature,
                 size_t cap, size_t *out_len);
    void *ctx;
};

struct key;

/* The first private key of a PEM text. ERR_SYNTAX: none, or encrypted; ERR_DENIED: a kind or size that TLS servers cannot
 * use (RSA of 2048 to 8192 bits, EC on P-256, P-384 and P-521 are used). */
struct err key_parse(struct crypto *, struct str pem, struct key **out);
void key_free(struct key *);
struct key_name key_name(const struct key *);
bool key_sign(const struct key *, enum key_scheme, struct str covers, unsigned char *signature, size_t cap,
              size_t *out_len);
/* A key_signer's sign() for the keys in a table. */
struct key_table {
    struct key *const *keys;
    size_t count;
};
bool key_table_sign(void *table, const struct key_name *, enum key_scheme, struct str covers, unsigned char *signature,
                    size_t cap, size_t *out_len);

/* The key of a chain's first certificate, and until when (ns since 1970) it is valid. */
struct key_certificate {
    struct key_name key;
    int64_t from, until;
    bool self_signed;
};
struct err key_look_at_certificate(struct crypto *, struct str pem, struct key_certificate *out);

/* Whether clients who ask for this host take the chain's first certificate to be its own: RFC 6125. */
bool key_certificate_is_for(struct crypto *, struct str pem, struct str hostname);

/* A new P-256 key and a certificate that it signs itself, for ten years, as PEM. */
struct err key_make_self_signed(struct crypto *, struct str hostname, struct arena *, struct str *out_certificate,
                                struct str *out_key);

#endif
