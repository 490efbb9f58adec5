/*
 * crypto - OpenSSL as one role has it: a library context of its own with the default provider and net/remote_key.h's,
 * and the count of the memory that it holds. No type of OpenSSL leaves net/.
 *
 * Open it before the sandbox: afterwards nothing is read from files any more (no openssl.cnf: what we use is said in
 * code, so that two machines do the same). On the reactor's thread only.
 */
#ifndef NET_CRYPTO_H
#define NET_CRYPTO_H

#include "runtime/rt.h"

struct crypto;

struct err crypto_open(struct rt *, struct crypto **out);
void crypto_close(struct crypto *); /* after all that was made with it */
struct rt *crypto_rt(const struct crypto *);

/* Secrets: bytes that nobody can guess. */
void crypto_random(struct crypto *, void *memory, size_t len);

/* Bytes that OpenSSL holds in this process, of all that use it: beside mem_in_use(), which cannot know them. */
size_t crypto_memory(void);

#endif
