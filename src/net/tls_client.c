/* tls_client - see tls.h. Whom we meet: what a server's certificate must have, sessions to be resumed, and what was seen. */
#include "net/tls_own.h"

#include "base/check.h"
#include "base/list.h"
#include "net/openssl.h"

#include <limits.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <string.h>

/* Whatever the server can: less is sent in clear. */
#define CLIENT_CIPHERS "HIGH:!aNULL:!eNULL:!PSK:!SRP:@SECLEVEL=0"

struct tls_trust {
    struct rt *rt;
    X509_STORE *own_store;
};

struct tls_client {
    struct side side;
    struct list sessions; /* struct kept_session: what may be resumed, the latest first */
    size_t session_count;
};

struct kept_session {
    struct list node;
    SSL_SESSION *own_session;
    size_t name_len;
    char name[];
};

/* ---- whom we meet ------------------------------------------------------------------------------------------------ */

/* Called by OpenSSL for each certificate of the chain that it built, and for whatever is wrong. */
static int
look_at(int fine, X509_STORE_CTX *context)
{
    SSL *ssl = X509_STORE_CTX_get_ex_data(context, SSL_get_ex_data_X509_STORE_CTX_idx());
    struct tls *t = SSL_get_app_data(ssl);

    if (!fine && t->wrong == X509_V_OK)
        t->wrong = X509_STORE_CTX_get_error(context);
    return fine || t->testing;
}

/* RFC 7672 section 3.1. *out_usable 0: none of the records is of use, and any certificate will do. False: nothing can be said. */
static bool
expect_records(struct tls *t, const struct tls_policy *policy, const char *host, int *out_usable)
{
    *out_usable = 0;
    if (SSL_dane_enable(t->own_ssl, host) != 1)
        return false;
    SSL_dane_set_flags(t->own_ssl, DANE_FLAG_NO_DANE_EE_NAMECHECKS);
    for (size_t i = 0; i < policy->record_count; i++) {
        const struct tls_record *r = &policy->records[i];
        int added = SSL_dane_tlsa_add(t->own_ssl, r->usage, r->selector, r->matching, (const unsigned char *)r->data.ptr,
                                      r->data.len); /* 0: it is not usable; below: OpenSSL failed */
        if (added < 0)
            return false;
        *out_usable += added;
    }
    return true;
}

/* What the certificate must have. */
static bool
expect_certificate(struct tls *t, const struct tls_policy *policy)
{
    char memory[256];
    SSL *ssl = t->own_ssl;
    X509_VERIFY_PARAM *param = SSL_get0_param(ssl);

    for (size_t i = 0; i < policy->name_count; i++) {
        struct text name = text_init(memory, sizeof memory);
        text_put(&name, policy->names[i]);
        if (!text_cstr(&name) || name.full)
            return false;
        if (i == 0 && policy->level == TLS_DANE) {
            int usable;
            if (!expect_records(t, policy, memory, &usable))
                return false;
            t->no_records = usable == 0;
            if (t->no_records)
                return true;
        }
        if ((i > 0 || policy->level != TLS_DANE) && SSL_add1_host(ssl, memory) != 1)
            return false;
    }
    if (policy->name_count == 0) /* or any name would do */
        return false;
    if (policy->level == TLS_VERIFY && (!policy->trust || SSL_set1_verify_cert_store(ssl, policy->trust->own_store) != 1))
        return false;
    /* RFC 9525 section 6.3 knows no common names; RFC 7672 section 3.2.3 still takes them where there is nothing else. */
    X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS |
                                               (policy->level == TLS_VERIFY ? X509_CHECK_FLAG_NEVER_CHECK_SUBJECT : 0));
    /* Of signatures and keys in the chain, as of all else: 112 bits, or 80 where their owner vouches for them by himself. */
    SSL_set_security_level(ssl, policy->level == TLS_VERIFY ? 2 : 1);
    X509_VERIFY_PARAM_set_time(param, (time_t)(rt_wall(t->rt) / SECOND));
    SSL_set_verify(ssl, SSL_VERIFY_PEER, look_at);
    t->testing = policy->testing;
    return true;
}

static void
say_server_name(SSL *ssl, struct str name)
{
    char memory[256];
    struct text text = text_init(memory, sizeof memory);
    struct address literal; /* which is no name: RFC 6066 section 3 */

    text_put(&text, name);
    if (name.len > 0 && !address_from_ip(name, &literal) && text_cstr(&text) && !text.full)
        SSL_set_tlsext_host_name(ssl, memory);
}

/* ---- sessions to be resumed -------------------------------------------------------------------------------------- */

static void
session_drop(struct tls_client *c, struct kept_session *s)
{
    list_remove(&s->node);
    c->session_count--;
    SSL_SESSION_free(s->own_session);
    mem_free(rt_mem(c->side.rt), s, sizeof *s + s->name_len);
}

static struct kept_session *
session_find(struct tls_client *c, struct str name)
{
    list_each (node, &c->sessions) {
        struct kept_session *s = container_of(node, struct kept_session, node);
        if (str_eq(str_new(s->name, s->name_len), name))
            return s;
    }
    return NULL;
}

/* Given to us by OpenSSL, with TLS 1.3 some time after the handshake. 1: it is ours now. */
static int
session_keep(SSL *ssl, SSL_SESSION *session)
{
    const struct tls *t = SSL_get_app_data(ssl);
    struct tls_client *c = t->client;

    if (t->resume_len == 0 || t->wrong != X509_V_OK || !SSL_SESSION_is_resumable(session))
        return 0;
    struct kept_session *s = session_find(c, str_new(t->own_resume, t->resume_len));
    if (s)
        session_drop(c, s);
    s = mem_alloc(rt_mem(c->side.rt), sizeof *s + t->resume_len);
    s->own_session = session;
    s->name_len = t->resume_len;
    memcpy(s->name, t->own_resume, t->resume_len);
    list_push_front(&c->sessions, &s->node);
    if (++c->session_count > TLS_SESSIONS_KEPT)
        session_drop(c, container_of(c->sessions.prev, struct kept_session, node));
    return 1;
}

/* Once: who sees a ticket twice knows that it is us again, RFC 8446 appendix C.4. */
static void
session_offer(struct tls *t, struct str name)
{
    if (name.len == 0 || name.len > TLS_RESUME_MAX)
        return;
    t->own_resume = mem_alloc(rt_mem(t->rt), name.len);
    t->resume_len = name.len;
    memcpy(t->own_resume, name.ptr, name.len);
    struct kept_session *s = session_find(t->client, name);
    if (!s)
        return;
    (void)SSL_set_session(t->own_ssl, s->own_session);
    session_drop(t->client, s);
    ERR_clear_error();
}

struct err
tls_connect(struct tls_client *client, struct wire *wire, const struct tls_expected *expected, int64_t until,
            const struct tls **out, enum tls_result *out_result, struct text *reason)
{
    const struct tls_policy *policy = expected->policy;
    struct tls *t;

    *out_result = TLS_RESULT_OK;
    TRY(tls_begin(&client->side, wire, &t));
    t->client = client;
    /* A server that has several certificates chooses by it: to RFC 7672 it is the name that the records are for. */
    bool by_records = policy && policy->level == TLS_DANE && policy->name_count > 0;
    say_server_name(t->own_ssl, by_records ? policy->names[0] : expected->server_name);
    if (policy && tls_policy_has_checks(policy) && !expect_certificate(t, policy)) {
        tls_free(t);
        ERR_clear_error();
        *out_result = TLS_RESULT_VALIDATION_FAILURE;
        text_put(reason, S("nothing is known by which a certificate could be checked"));
        return ERR(ERR_DENIED, "check a certificate");
    }
    session_offer(t, expected->resume);
    SSL_set_connect_state(t->own_ssl);
    return tls_complete(t, wire, until, out, out_result, reason);
}

/* ---- what was seen ------------------------------------------------------------------------------------------------ */

static struct str
common_name(const X509_NAME *name, struct arena *arena)
{
    int at = X509_NAME_get_index_by_NID(name, NID_commonName, -1);
    if (at < 0)
        at = X509_NAME_get_index_by_NID(name, NID_organizationName, -1);
    unsigned char *utf8 = NULL;
    int len = at < 0 ? -1 : ASN1_STRING_to_UTF8(&utf8, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(name, at)));
    struct str text = len > 0 ? arena_keep(arena, str_slice(str_new((const char *)utf8, (size_t)len), 0, TLS_COMMON_NAME)) : S("");

    OPENSSL_free(utf8);
    return text;
}

/* Its DNS names; without any its subject, which no client looks at. */
static struct str
names_of(const X509 *x, struct arena *arena)
{
    GENERAL_NAMES *names = X509_get_ext_d2i(x, NID_subject_alt_name, NULL, NULL);
    const struct str more = S("..."), comma = S(", ");
    struct text all = text_init(arena_alloc(arena, TLS_CERTIFICATE_NAMES), TLS_CERTIFICATE_NAMES);

    for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
        int type;
        const ASN1_IA5STRING *dns = GENERAL_NAME_get0_value(sk_GENERAL_NAME_value(names, i), &type);
        if (type != GEN_DNS || ASN1_STRING_length(dns) == 0)
            continue;
        struct str name = str_new((const char *)ASN1_STRING_get0_data(dns), (size_t)ASN1_STRING_length(dns));
        text_put(&all, all.len > 0 ? comma : S(""));
        if (name.len > TLS_CERTIFICATE_NAMES - all.len - comma.len - more.len) { /* room for what may come behind it */
            text_put(&all, more);
            break;
        }
        text_put(&all, name);
    }
    GENERAL_NAMES_free(names);
    return all.len > 0 ? text_str(&all) : common_name(X509_get_subject_name(x), arena);
}

bool
tls_certificate(const struct tls *t, struct arena *arena, struct tls_certificate *out)
{
    X509 *x = SSL_get0_peer_certificate(t->own_ssl);
    BIO *bio = x ? BIO_new(BIO_s_mem()) : NULL;
    char *pem;
    bool fine = bio && PEM_write_bio_X509(bio, x) == 1;
    long len = fine ? BIO_get_mem_data(bio, &pem) : 0;

    if (fine)
        *out = (struct tls_certificate){ arena_keep(arena, str_new(pem, (size_t)len)), names_of(x, arena),
                                         common_name(X509_get_issuer_name(x), arena) };
    BIO_free(bio);
    ERR_clear_error();
    return fine;
}

/* ---- a client's life, and whom it trusts -------------------------------------------------------------------------- */

struct tls_trust *
tls_trust_new(struct crypto *crypto, struct str pem, size_t *out_count)
{
    struct tls_trust *trust = mem_new(rt_mem(crypto_rt(crypto)), struct tls_trust);
    BIO *bio = pem.len <= INT_MAX ? BIO_new_mem_buf(pem.ptr, (int)pem.len) : NULL;
    X509 *x;

    *trust = (struct tls_trust){ .rt = crypto_rt(crypto), .own_store = X509_STORE_new() };
    CHECK(trust->own_store); /* as in tls_side_init() */
    for (*out_count = 0; bio && (x = openssl_read_certificate(crypto, bio)) != NULL; X509_free(x))
        *out_count += X509_STORE_add_cert(trust->own_store, x) == 1;
    BIO_free(bio);
    ERR_clear_error();
    return trust;
}

void
tls_trust_free(struct tls_trust *trust)
{
    X509_STORE_free(trust->own_store);
    mem_free(rt_mem(trust->rt), trust, sizeof *trust);
}

struct tls_client *
tls_client_new(struct crypto *crypto)
{
    struct tls_client *c = mem_new(rt_mem(crypto_rt(crypto)), struct tls_client);

    tls_side_init(&c->side, crypto, TLS_client_method());
    list_init(&c->sessions);
    SSL_CTX *ctx = c->side.own_ctx;
    CHECK(SSL_CTX_set_cipher_list(ctx, CLIENT_CIPHERS) == 1 && SSL_CTX_dane_enable(ctx) == 1);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(ctx, session_keep);
    return c;
}

void
tls_client_free(struct tls_client *c)
{
    while (!list_is_empty(&c->sessions))
        session_drop(c, container_of(c->sessions.next, struct kept_session, node));
    tls_side_done(&c->side);
    mem_free(rt_mem(c->side.rt), c, sizeof *c);
}
