/*
 * remote_key - a private key that is elsewhere, for OpenSSL: a provider (provider-base(7)) whose signatures are asked of
 * a key_signer. libssl uses such a key as any other, and this process never holds it.
 */
#ifndef NET_REMOTE_KEY_H
#define NET_REMOTE_KEY_H

#include "net/key.h"

#include <openssl/types.h>

OSSL_PROVIDER *remote_key_load(OSSL_LIB_CTX *);
/* The private key to this public one. NULL: not RSA or EC, or no memory. The signer must outlive it. */
EVP_PKEY *remote_key_new(OSSL_LIB_CTX *, EVP_PKEY *public_key, const struct key_signer *);
/* SHA-256 of the SubjectPublicKeyInfo. */
bool remote_key_name(OSSL_LIB_CTX *, EVP_PKEY *, struct key_name *out);

#endif
