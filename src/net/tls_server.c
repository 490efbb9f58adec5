/* tls_server - see tls.h. Whom we show what: certificates by name, tickets; and who a client is. */
#include "net/tls_own.h"

#include "base/check.h"
#include "net/openssl.h"
#include "net/remote_key.h"

#include <limits.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <string.h>

enum {
    KINDS = 2,           /* of keys: EC, RSA */
    SESSIONS_NAME = 32,
};
/* What speaks TLS 1.2 and mail: some of it old. Static RSA is left out (see tls.h), finite fields cost us too much. */
#define SERVER_CIPHERS "ECDHE+AESGCM:ECDHE+CHACHA20:ECDHE+AES"
/* Of 1.3. Its key schedule is some thirty hashes: SHA-256 is in the processor, SHA-384 is not. */
#define SERVER_SUITES "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
#define TICKET_SECONDS (12 * 3600L)

struct certificate {
    X509 *own_leaf;
    STACK_OF(X509) *own_chain;
    EVP_PKEY *own_key;
    int kind;
};

struct tls_server {
    struct side side;
    const struct key_signer *signer;
    struct certificate *own_certificates;
    size_t certificate_count;
    EVP_CIPHER *own_ticket_cipher;
    struct tls_ticket_key tickets[TLS_TICKET_KEYS];
    size_t ticket_count;
    unsigned char sessions[SESSIONS_NAME]; /* whose sessions we resume: those with the same here */
};

/* ---- who the client is ------------------------------------------------------------------------------------------- */

/* Something that can stand in a log and in a comparison: no name has controls in it, least of all a NUL that would hide the
 * rest from those who read until one. */
static bool
take_name(struct tls *t, const ASN1_STRING *from)
{
    unsigned char *utf8 = NULL;
    int len = from ? ASN1_STRING_to_UTF8(&utf8, from) : -1;
    bool fine = len > 0 && len <= TLS_CLIENT_NAME_MAX;

    for (int i = 0; i < len && fine; i++)
        fine = utf8[i] >= ' ' && utf8[i] != 0x7F;
    if (fine) {
        memcpy(t->client_name, utf8, (size_t)len);
        t->client_name_len = (size_t)len;
    }
    OPENSSL_free(utf8);
    return fine;
}

static bool
take_mail_address(struct tls *t, X509 *x)
{
    GENERAL_NAMES *names = X509_get_ext_d2i(x, NID_subject_alt_name, NULL, NULL);
    bool taken = false;

    for (int i = 0; i < sk_GENERAL_NAME_num(names) && !taken; i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
        taken = name->type == GEN_EMAIL && take_name(t, name->d.rfc822Name);
    }
    GENERAL_NAMES_free(names);
    return taken;
}

void
tls_name_client(struct tls *t)
{
    X509 *x = SSL_get0_peer_certificate(t->own_ssl);

    if (x && SSL_get_verify_result(t->own_ssl) == X509_V_OK && !take_mail_address(t, x)) {
        const X509_NAME *subject = X509_get_subject_name(x);
        int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
        (void)(at >= 0 && take_name(t, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at))));
    }
    ERR_clear_error();
}

struct err
tls_accept(struct tls_server *server, struct wire *wire, int64_t until, const struct tls **out, struct text *reason)
{
    enum tls_result result;
    struct tls *t;

    TRY(tls_begin(&server->side, wire, &t));
    t->server = server;
    if (server->ticket_count == 0) {
        SSL_set_options(t->own_ssl, SSL_OP_NO_TICKET);
        SSL_set_num_tickets(t->own_ssl, 0);
    }
    SSL_set_accept_state(t->own_ssl);
    return tls_complete(t, wire, until, out, &result, reason);
}

/* ---- certificates ------------------------------------------------------------------------------------------------ */

static void
certificate_done(struct certificate *c)
{
    X509_free(c->own_leaf);
    sk_X509_pop_free(c->own_chain, X509_free);
    EVP_PKEY_free(c->own_key);
}

static struct err
certificate_init(const struct tls_server *s, struct str pem, struct certificate *out)
{
    struct certificate c = { .own_chain = sk_X509_new_null() };
    BIO *bio = pem.len <= KEY_FILE_MAX ? BIO_new_mem_buf(pem.ptr, (int)pem.len) : NULL;
    X509 *next;

    if (bio && c.own_chain)
        c.own_leaf = openssl_read_certificate(s->side.crypto, bio);
    while (c.own_leaf && sk_X509_num(c.own_chain) < TLS_CHAIN_MAX && (next = openssl_read_certificate(s->side.crypto, bio)) != NULL)
        if (sk_X509_push(c.own_chain, next) == 0)
            X509_free(next);
    BIO_free(bio);
    EVP_PKEY *key = c.own_leaf ? X509_get0_pubkey(c.own_leaf) : NULL;
    if (key)
        c.own_key = remote_key_new(crypto_library(s->side.crypto), key, s->signer);
    ERR_clear_error();
    if (!c.own_key) {
        certificate_done(&c);
        return key ? ERR(ERR_DENIED, "use a certificate of this kind") : ERR(ERR_SYNTAX, "read a certificate");
    }
    c.kind = EVP_PKEY_is_a(key, "RSA");
    *out = c;
    return OK;
}

static void
drop_certificates(struct tls_server *s)
{
    for (size_t i = 0; i < s->certificate_count; i++)
        certificate_done(&s->own_certificates[i]);
    mem_free(rt_mem(s->side.rt), s->own_certificates, s->certificate_count * sizeof *s->own_certificates);
    s->own_certificates = NULL;
    s->certificate_count = 0;
}

/* Whether libssl would show it: a key that is too short only shows here. */
static bool
can_be_shown(const struct tls_server *s, const struct certificate *c)
{
    SSL *ssl = SSL_new(s->side.own_ctx);
    bool fine = ssl && SSL_use_cert_and_key(ssl, c->own_leaf, c->own_key, c->own_chain, 1) == 1;

    SSL_free(ssl);
    ERR_clear_error();
    return fine;
}

struct err
tls_server_set_certificates(struct tls_server *s, const struct str *pems, size_t count, size_t *out_bad)
{
    struct mem *mem = rt_mem(s->side.rt);
    struct tls_server fresh = { .side = s->side, .signer = s->signer };
    struct err e = OK;

    if (count > 0)
        fresh.own_certificates = mem_alloc(mem, count * sizeof *fresh.own_certificates);
    for (fresh.certificate_count = 0; fresh.certificate_count < count; fresh.certificate_count++) {
        struct certificate *c = &fresh.own_certificates[fresh.certificate_count];
        e = certificate_init(s, pems[fresh.certificate_count], c);
        if (!err_is(e) && !can_be_shown(s, c)) {
            certificate_done(c);
            e = ERR(ERR_DENIED, "use a certificate of this kind");
        }
        if (!err_is(e))
            continue;
        *out_bad = fresh.certificate_count;
        for (size_t i = 0; i < fresh.certificate_count; i++)
            certificate_done(&fresh.own_certificates[i]);
        mem_free(mem, fresh.own_certificates, count * sizeof *fresh.own_certificates);
        return e;
    }
    drop_certificates(s);
    s->own_certificates = fresh.own_certificates;
    s->certificate_count = fresh.certificate_count;
    return OK;
}

bool
tls_certificate_can_be_shown(struct crypto *crypto, struct str pem)
{
    struct tls_server *s = tls_server_new(crypto, S(""), NULL); /* nothing is signed */
    size_t bad;

    bool can = !err_is(tls_server_set_certificates(s, &pem, 1, &bad));
    tls_server_free(s);
    return can;
}

bool
tls_server_has_certificate(const struct tls_server *s)
{
    return s->certificate_count > 0;
}

/* Any: so it is told to the client, and kept in its ticket. */
static int
take_server_name(SSL *ssl, int *alert, void *arg)
{
    (void)ssl;
    (void)alert;
    (void)arg;
    return SSL_TLSEXT_ERR_OK;
}

/* When the ClientHello is read and no cipher chosen yet: what this client may be shown. */
static int
show_certificates(SSL *ssl, void *arg)
{
    const struct tls_server *s = arg;
    const struct certificate *chosen[KINDS] = { NULL };
    struct str name = tls_str_or_absent(SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name));

    for (int named = name.len > 0; named >= 0; named--) {
        bool any = false;
        for (size_t i = 0; i < s->certificate_count; i++) {
            const struct certificate *c = &s->own_certificates[i];
            if (chosen[c->kind] || (named && X509_check_host(c->own_leaf, name.ptr, name.len, 0, NULL) != 1))
                continue;
            chosen[c->kind] = c;
            any = true;
        }
        if (any) /* whoever asked for a name gets one of that name, also if it is of one kind only */
            break;
    }
    int shown = 0;
    for (int kind = 0; kind < KINDS; kind++)
        if (chosen[kind])
            shown += SSL_use_cert_and_key(ssl, chosen[kind]->own_leaf, chosen[kind]->own_key, chosen[kind]->own_chain,
                                          1) == 1;
    return shown > 0;
}

/* ---- certificates of clients ------------------------------------------------------------------------------------- */

/* A session that began where less was asked of clients would say more of its client than was looked at. */
static void
resume_sessions_of(struct tls_server *s, struct str more)
{
    unsigned char all[SESSIONS_NAME + SESSIONS_NAME];
    OSSL_LIB_CTX *library = crypto_library(s->side.crypto);

    memcpy(all, s->sessions, SESSIONS_NAME);
    CHECK(EVP_Q_digest(library, "SHA256", NULL, more.ptr, more.len, all + SESSIONS_NAME, NULL) == 1);
    CHECK(EVP_Q_digest(library, "SHA256", NULL, all, sizeof all, s->sessions, NULL) == 1);
    CHECK(SSL_CTX_set_session_id_context(s->side.own_ctx, s->sessions, SESSIONS_NAME) == 1);
}

/* Whoever fails has no name, and goes on. */
static int
go_on(int fine, X509_STORE_CTX *store)
{
    (void)fine;
    (void)store;
    return 1;
}

struct err
tls_server_ask_clients(struct tls_server *s, enum tls_ask ask, struct str authorities)
{
    SSL_CTX *c = s->side.own_ctx;
    BIO *bio = authorities.len <= INT_MAX ? BIO_new_mem_buf(authorities.ptr, (int)authorities.len) : NULL;
    X509_STORE *store = X509_STORE_new();
    size_t count = 0;
    X509 *x;

    CHECK(store); /* as in tls_side_init() */
    while (bio && (x = openssl_read_certificate(s->side.crypto, bio)) != NULL) {
        /* The names are for clients that have several certificates. */
        if (X509_STORE_add_cert(store, x) == 1 && SSL_CTX_add_client_CA(c, x) == 1)
            count++;
        X509_free(x);
    }
    BIO_free(bio);
    CHECK(SSL_CTX_set1_verify_cert_store(c, store) == 1);
    X509_STORE_free(store);
    SSL_CTX_set_verify(c, SSL_VERIFY_PEER | (ask == TLS_ASK_REQUIRE ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0),
                       ask == TLS_ASK_REQUIRE ? NULL : go_on);
    resume_sessions_of(s, authorities);
    resume_sessions_of(s, ask == TLS_ASK_REQUIRE ? S("require") : S("ask"));
    ERR_clear_error();
    return count > 0 ? OK : ERR(ERR_SYNTAX, "read a certificate of an authority");
}

/* ---- tickets ----------------------------------------------------------------------------------------------------- */

void
tls_server_set_tickets(struct tls_server *s, const struct tls_ticket_key *keys, size_t count)
{
    CHECK(count <= TLS_TICKET_KEYS);
    OPENSSL_cleanse(s->tickets, sizeof s->tickets);
    if (count > 0)
        memcpy(s->tickets, keys, count * sizeof *keys);
    s->ticket_count = count;
}

static bool
ticket_begin(const struct tls_server *s, const struct tls_ticket_key *key, unsigned char *iv, EVP_CIPHER_CTX *cipher,
             EVP_MAC_CTX *mac, int seal)
{
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, (void *)(uintptr_t)key->mac, sizeof key->mac),
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, (char *)(uintptr_t)"SHA256", 0),
        OSSL_PARAM_END,
    };

    return EVP_CipherInit_ex2(cipher, s->own_ticket_cipher, key->cipher, iv, seal, NULL) == 1 &&
           EVP_MAC_CTX_set_params(mac, params) == 1;
}

/* 1: done; 2: done, and the client should have a new ticket; 0: no resumption; -1: the handshake fails. */
static int
ticket(SSL *ssl, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac, int seal)
{
    const struct tls_server *s = ((const struct tls *)SSL_get_app_data(ssl))->server;

    if (seal) {
        if (s->ticket_count == 0 || RAND_bytes_ex(crypto_library(s->side.crypto), iv, 16, 0) != 1)
            return 0;
        memcpy(name, s->tickets[0].name, sizeof s->tickets[0].name);
        return ticket_begin(s, &s->tickets[0], iv, cipher, mac, 1) ? 1 : -1;
    }
    for (size_t i = 0; i < s->ticket_count; i++) {
        if (memcmp(name, s->tickets[i].name, sizeof s->tickets[i].name) != 0)
            continue;
        /* In 1.3 a client uses each ticket once: RFC 8446 appendix C.4. */
        bool renew = i > 0 || SSL_version(ssl) >= TLS1_3_VERSION;
        return !ticket_begin(s, &s->tickets[i], iv, cipher, mac, 0) ? -1 : renew ? 2 : 1;
    }
    return 0;
}

/*
 * A session of a client that has shown a certificate is not resumed: the ticket holds that certificate and what came of looking at
 * it, but not those between it and the authority, and whether all of them are still good must be looked at again. Each such client
 * shakes hands in full.
 */
static SSL_TICKET_RETURN
ticket_opened(SSL *ssl, SSL_SESSION *session, const unsigned char *name, size_t name_len, SSL_TICKET_STATUS status, void *arg)
{
    (void)ssl, (void)name, (void)name_len, (void)arg;
    if ((status != SSL_TICKET_SUCCESS && status != SSL_TICKET_SUCCESS_RENEW) || SSL_SESSION_get0_peer(session))
        return SSL_TICKET_RETURN_IGNORE_RENEW;
    return status == SSL_TICKET_SUCCESS ? SSL_TICKET_RETURN_USE : SSL_TICKET_RETURN_USE_RENEW;
}

/* ---- a server's life ---------------------------------------------------------------------------------------------- */

struct tls_server *
tls_server_new(struct crypto *crypto, struct str pool, const struct key_signer *signer)
{
    struct tls_server *s = mem_new(rt_mem(crypto_rt(crypto)), struct tls_server);

    tls_side_init(&s->side, crypto, TLS_server_method());
    s->signer = signer;
    s->own_ticket_cipher = EVP_CIPHER_fetch(crypto_library(crypto), "AES-256-CBC", NULL);
    CHECK(s->own_ticket_cipher); /* as in tls_side_init() */
    SSL_CTX *c = s->side.own_ctx;
    CHECK(SSL_CTX_set_cipher_list(c, SERVER_CIPHERS) == 1 && SSL_CTX_set_ciphersuites(c, SERVER_SUITES) == 1);
    resume_sessions_of(s, pool);
    CHECK(SSL_CTX_set_tlsext_ticket_key_evp_cb(c, ticket) == 1);
    CHECK(SSL_CTX_set_session_ticket_cb(c, NULL, ticket_opened, NULL) == 1);
    SSL_CTX_set_options(c, SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
    SSL_CTX_set_num_tickets(c, 1);
    SSL_CTX_set_timeout(c, TICKET_SECONDS);
    SSL_CTX_set_cert_cb(c, show_certificates, s);
    SSL_CTX_set_tlsext_servername_callback(c, take_server_name);
    return s;
}

void
tls_server_forget(struct tls_server *s)
{
    SSL_CTX_set_options(s->side.own_ctx, SSL_OP_CLEANSE_PLAINTEXT);
}

void
tls_server_free(struct tls_server *s)
{
    struct mem *mem = rt_mem(s->side.rt);

    drop_certificates(s);
    tls_server_set_tickets(s, NULL, 0);
    EVP_CIPHER_free(s->own_ticket_cipher);
    tls_side_done(&s->side);
    mem_free(mem, s, sizeof *s);
}
