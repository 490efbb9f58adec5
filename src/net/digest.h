/*
 * digest - hashes, HMAC (RFC 2104) and PBKDF2 (RFC 8018 section 5.2): functions of their input and nothing else. No
 * memory is taken and no library state kept, so helper threads call them too, and the simulator has the same.
 */
#ifndef NET_DIGEST_H
#define NET_DIGEST_H

#include "base/str.h"

enum digest { DIGEST_SHA256, DIGEST_SHA1, DIGEST_MD5 };
enum { DIGEST_MAX = 32 };
size_t digest_size(enum digest); /* bytes of `out` below */

/* Of all parts, one behind the other. */
void digest_of(enum digest, const struct str *parts, size_t count, unsigned char *out);
void digest_hmac(enum digest, struct str key, const struct str *parts, size_t count, unsigned char *out);
/* One block: as many bytes as the hash has. Takes its time: that is what it is for. */
void digest_pbkdf2(enum digest, struct str password, struct str salt, uint32_t iterations, unsigned char *out);

/* Compares secrets: how long it takes says only their lengths. */
bool digest_same(struct str a, struct str b);

#endif
