/*
 * password - hashes of passwords by libcrypt: ours are yescrypt; whatever else the system's crypt(3) knows is taken as
 * well, so that accounts can be moved here. Each takes 20 ms and 16 MiB and more: call it on a helper thread.
 */
#ifndef SASL_PASSWORD_H
#define SASL_PASSWORD_H

#include "base/str.h"

enum { PASSWORD_MAX = 511, PASSWORD_HASH_MAX = 383, PASSWORD_RANDOM = 16 }; /* bytes */

/* memory: password_memory() bytes, which need no care; nothing of the password stays there. */
size_t password_memory(void);
/* Whether it is this password's hash. As long in the end as the hash takes, whatever comes out. */
bool password_is(struct str password, struct str hash, void *memory);
/* False: libcrypt cannot, or the password is too long or has a NUL. Appends to *out. */
bool password_hash(struct str password, const unsigned char random[PASSWORD_RANDOM], void *memory, struct text *out);
/* Whether crypt(3) knows how the hash was made. */
bool password_is_hash(struct str);

#endif
