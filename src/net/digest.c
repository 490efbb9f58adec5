/*
 * digest - see digest.h.
 *
 * By OpenSSL's older functions: the newer ones fetch algorithms from a library context, which takes memory and must be
 * opened before the sandbox, on one thread.
 */
#define OPENSSL_SUPPRESS_DEPRECATED
#include "net/digest.h"

#include "base/check.h"

#include <openssl/crypto.h>
#include <openssl/md5.h>
#include <openssl/sha.h>
#include <string.h>

enum { BLOCK = 64 }; /* of all three */

struct state {
    enum digest kind;
    union {
        SHA256_CTX sha256;
        SHA_CTX sha1;
        MD5_CTX md5;
    } of;
};

size_t
digest_size(enum digest kind)
{
    static const size_t sizes[] = { SHA256_DIGEST_LENGTH, SHA_DIGEST_LENGTH, MD5_DIGEST_LENGTH };

    return sizes[kind];
}

static void
begin(struct state *s, enum digest kind)
{
    s->kind = kind;
    if (kind == DIGEST_SHA256)
        CHECK(SHA256_Init(&s->of.sha256) == 1);
    else if (kind == DIGEST_SHA1)
        CHECK(SHA1_Init(&s->of.sha1) == 1);
    else
        CHECK(MD5_Init(&s->of.md5) == 1);
}

static void
add(struct state *s, struct str bytes)
{
    if (bytes.len == 0)
        return;
    if (s->kind == DIGEST_SHA256)
        CHECK(SHA256_Update(&s->of.sha256, bytes.ptr, bytes.len) == 1);
    else if (s->kind == DIGEST_SHA1)
        CHECK(SHA1_Update(&s->of.sha1, bytes.ptr, bytes.len) == 1);
    else
        CHECK(MD5_Update(&s->of.md5, bytes.ptr, bytes.len) == 1);
}

static void
end(struct state *s, unsigned char *out)
{
    if (s->kind == DIGEST_SHA256)
        CHECK(SHA256_Final(out, &s->of.sha256) == 1);
    else if (s->kind == DIGEST_SHA1)
        CHECK(SHA1_Final(out, &s->of.sha1) == 1);
    else
        CHECK(MD5_Final(out, &s->of.md5) == 1);
}

void
digest_of(enum digest kind, const struct str *parts, size_t count, unsigned char *out)
{
    struct state s;

    begin(&s, kind);
    for (size_t i = 0; i < count; i++)
        add(&s, parts[i]);
    end(&s, out);
    OPENSSL_cleanse(&s, sizeof s);
}

/* A key that has been taken in: each HMAC with it begins from here. */
struct keyed {
    struct state inner, outer;
};

static void
begin_keyed(struct keyed *k, enum digest kind, struct str key)
{
    unsigned char block[BLOCK] = { 0 };

    if (key.len > BLOCK)
        digest_of(kind, &key, 1, block);
    else if (key.len > 0)
        memcpy(block, key.ptr, key.len);
    for (size_t i = 0; i < BLOCK; i++)
        block[i] ^= 0x36;
    begin(&k->inner, kind);
    add(&k->inner, str_new(block, BLOCK));
    for (size_t i = 0; i < BLOCK; i++)
        block[i] ^= 0x36 ^ 0x5c;
    begin(&k->outer, kind);
    add(&k->outer, str_new(block, BLOCK));
    OPENSSL_cleanse(block, sizeof block);
}

static void
hmac(const struct keyed *k, const struct str *parts, size_t count, unsigned char *out)
{
    struct state s = k->inner;

    for (size_t i = 0; i < count; i++)
        add(&s, parts[i]);
    end(&s, out);
    s = k->outer;
    add(&s, str_new(out, digest_size(s.kind)));
    end(&s, out);
}

void
digest_hmac(enum digest kind, struct str key, const struct str *parts, size_t count, unsigned char *out)
{
    struct keyed k;

    begin_keyed(&k, kind, key);
    hmac(&k, parts, count, out);
    OPENSSL_cleanse(&k, sizeof k);
}

void
digest_pbkdf2(enum digest kind, struct str password, struct str salt, uint32_t iterations, unsigned char *out)
{
    struct keyed k;
    size_t size = digest_size(kind);
    unsigned char u[DIGEST_MAX];
    struct str first[] = { salt, S("\0\0\0\1") }, before = str_new(u, size);

    CHECK(iterations > 0);
    begin_keyed(&k, kind, password);
    hmac(&k, first, 2, u);
    memcpy(out, u, size);
    for (uint32_t i = 1; i < iterations; i++) {
        hmac(&k, &before, 1, u);
        for (size_t j = 0; j < size; j++)
            out[j] ^= u[j];
    }
    OPENSSL_cleanse(&k, sizeof k);
    OPENSSL_cleanse(u, sizeof u);
}

bool
digest_same(struct str a, struct str b)
{
    return a.len == b.len && CRYPTO_memcmp(a.ptr, b.ptr, a.len) == 0;
}
