/* crypto - see crypto.h. */
#include "net/crypto.h"

#include "base/check.h"
#include "net/openssl.h"
#include "net/remote_key.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/provider.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

struct crypto {
    struct rt *rt;
    OSSL_LIB_CTX *own_library;
    OSSL_PROVIDER *own_default, *own_remote;
};

/* ---- memory ------------------------------------------------------------------------------------------------------ */

/*
 * OpenSSL takes its memory hooks for the whole process and before its first allocation, and frees without a size: so a
 * count for the process, and each piece remembers its size in front.
 */
static atomic_size_t held;

union front {
    size_t size;
    max_align_t align;
};

static void *
take(size_t size, const char *file, int line)
{
    union front *f = size > SIZE_MAX - sizeof *f ? NULL : malloc(sizeof *f + size);

    (void)file;
    (void)line;
    if (!f)
        return NULL;
    f->size = size;
    atomic_fetch_add_explicit(&held, size, memory_order_relaxed);
    return f + 1;
}

static void
give(void *p, const char *file, int line)
{
    union front *f = p;

    (void)file;
    (void)line;
    if (!f)
        return;
    f--;
    atomic_fetch_sub_explicit(&held, f->size, memory_order_relaxed);
    free(f);
}

static void *
resize(void *p, size_t size, const char *file, int line)
{
    union front *f = p;

    if (!p)
        return take(size, file, line);
    if (size == 0) {
        give(p, file, line);
        return NULL;
    }
    size_t before = f[-1].size;
    f = size > SIZE_MAX - sizeof *f ? NULL : realloc(f - 1, sizeof *f + size);
    if (!f)
        return NULL;
    f->size = size;
    atomic_fetch_add_explicit(&held, size - before, memory_order_relaxed);
    return f + 1;
}

size_t
crypto_memory(void)
{
    return atomic_load_explicit(&held, memory_order_relaxed);
}

/* ---- the library ------------------------------------------------------------------------------------------------- */

struct err
crypto_open(struct rt *rt, struct crypto **out)
{
    struct crypto c = { .rt = rt };

    /* Refused once OpenSSL has memory: when this process opens it a second time. Then the hooks are ours already. */
    (void)CRYPTO_set_mem_functions(take, resize, give);
    if (OPENSSL_init_ssl(OPENSSL_INIT_NO_LOAD_CONFIG | OPENSSL_INIT_LOAD_SSL_STRINGS | OPENSSL_INIT_LOAD_CRYPTO_STRINGS,
                         NULL) != 1)
        return ERR(ERR_IO, "begin with OpenSSL");
    c.own_library = OSSL_LIB_CTX_new();
    if (!c.own_library)
        return ERR(ERR_NO_MEMORY, "begin with OpenSSL");
    c.own_default = OSSL_PROVIDER_load(c.own_library, "default");
    c.own_remote = remote_key_load(c.own_library);
    /* Ours names its algorithms as the default one does; it is meant only where it is named. */
    bool fine = c.own_default && c.own_remote && EVP_set_default_properties(c.own_library, "?provider=default") == 1;
    struct crypto *own = mem_new(rt_mem(rt), struct crypto);
    *own = c;
    if (!fine) {
        crypto_close(own);
        ERR_clear_error();
        return ERR(ERR_IO, "load OpenSSL's algorithms");
    }
    *out = own;
    return OK;
}

void
crypto_close(struct crypto *c)
{
    if (c->own_remote)
        OSSL_PROVIDER_unload(c->own_remote);
    if (c->own_default)
        OSSL_PROVIDER_unload(c->own_default);
    OSSL_LIB_CTX_free(c->own_library);
    mem_free(rt_mem(c->rt), c, sizeof *c);
}

struct rt *
crypto_rt(const struct crypto *c)
{
    return c->rt;
}

void
crypto_random(struct crypto *c, void *memory, size_t len)
{
    CHECK(RAND_priv_bytes_ex(c->own_library, memory, len, 0) == 1);
}

OSSL_LIB_CTX *
crypto_library(const struct crypto *c)
{
    return c->own_library;
}

void
openssl_reason(struct text *out)
{
    unsigned long e = ERR_get_error();
    const char *reason = e ? ERR_reason_error_string(e) : NULL;

    text_put(out, reason ? str_from_cstr(reason) : S("no reason given"));
    ERR_clear_error();
}

int
openssl_no_passphrase(char *memory, int size, int write, void *arg)
{
    (void)memory;
    (void)size;
    (void)write;
    (void)arg;
    return -1;
}

X509 *
openssl_read_certificate(const struct crypto *c, BIO *bio)
{
    X509 *x = X509_new_ex(c->own_library, NULL);

    if (x && PEM_read_bio_X509(bio, &x, openssl_no_passphrase, NULL))
        return x;
    X509_free(x); /* NULL by now, if it was the certificate that was wrong and not its frame */
    return NULL;
}
