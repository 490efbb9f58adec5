/*
 * openssl - what the files of net/ share about OpenSSL.
 *
 * OpenSSL keeps its errors in a queue for each thread, and fibers share one. So no fiber is switched inside a callback of
 * OpenSSL, the queue is emptied before each call whose result is looked at, and read right behind it.
 */
#ifndef NET_OPENSSL_H
#define NET_OPENSSL_H

#include "base/str.h"

#include <openssl/types.h>

struct crypto;

OSSL_LIB_CTX *crypto_library(const struct crypto *);
/* What the queue says first, in OpenSSL's words ("no shared cipher"), and empties it. */
void openssl_reason(struct text *out);

/* The next certificate of a PEM text; NULL: none. Nobody is asked for a passphrase. */
X509 *openssl_read_certificate(const struct crypto *, BIO *);
/* For what else reads PEM. Without it OpenSSL asks at the terminal, and waits. */
int openssl_no_passphrase(char *memory, int size, int write, void *arg);

#endif
