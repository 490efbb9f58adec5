/*
 * Tests of tls.c, key.c and remote_key.c: our server and our client against OpenSSL itself (a peer over memory, whose
 * bytes we cut and hold back as we like), and against each other.
 */
#include "net/tls.h"

#include "base/check.h"
#include "base/test.h"
#include "net/openssl.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/ui.h>
#include <openssl/x509v3.h>
#include <string.h>
#include <sys/socket.h>

enum { KIND_EC, KIND_RSA, TEXT_MAX = 32 << 10 };

struct world {
    struct test *t;
    struct rt *rt;
    struct crypto *crypto;
    struct key *keys[4];
    struct key_table table;
    struct key_signer signer;
    bool refuse_to_sign;
    size_t signatures;
    struct tls_server *server;
    struct tls_client *client;
};

/* ---- keys and certificates --------------------------------------------------------------------------------------- */

struct pair { /* as PEM */
    char certificate[TEXT_MAX], key[TEXT_MAX];
    struct str certificate_pem, key_pem;
};

static struct str
take_pem(BIO *bio, char *memory)
{
    int len = BIO_read(bio, memory, TEXT_MAX);

    CHECK(len > 0 && len < TEXT_MAX);
    BIO_free(bio);
    return str_new(memory, (size_t)len);
}

/* names: "DNS:a.example,DNS:b.example" */
static void
make_pair(int kind, const char *names, struct pair *out)
{
    EVP_PKEY *pkey = kind == KIND_EC ? EVP_EC_gen("P-256") : EVP_RSA_gen(2048);
    X509 *x = X509_new();
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, names);

    CHECK(pkey && x && extension);
    CHECK(X509_set_version(x, X509_VERSION_3) == 1 && ASN1_INTEGER_set(X509_get_serialNumber(x), 7) == 1);
    CHECK(X509_gmtime_adj(X509_getm_notBefore(x), -3600) && X509_gmtime_adj(X509_getm_notAfter(x), 3600));
    CHECK(X509_set_pubkey(x, pkey) == 1 && X509_add_ext(x, extension, -1) == 1 && X509_sign(x, pkey, EVP_sha256()) > 0);
    BIO *certificate = BIO_new(BIO_s_mem()), *key = BIO_new(BIO_s_mem());
    CHECK(PEM_write_bio_X509(certificate, x) == 1 &&
          PEM_write_bio_PrivateKey(key, pkey, NULL, NULL, 0, NULL, NULL) == 1);
    out->certificate_pem = take_pem(certificate, out->certificate);
    out->key_pem = take_pem(key, out->key);
    X509_EXTENSION_free(extension);
    X509_free(x);
    EVP_PKEY_free(pkey);
}

/* Made once: RSA keys take their time. */
static struct pair ec, rsa, ec_other;

static bool
sign(void *ctx, const struct key_name *name, enum key_scheme scheme, struct str covers, unsigned char *signature,
     size_t cap, size_t *out_len)
{
    struct world *w = ctx;

    w->signatures++;
    return !w->refuse_to_sign && key_table_sign(&w->table, name, scheme, covers, signature, cap, out_len);
}

static void
hold_key(struct world *w, const struct pair *pair)
{
    CHECK(!err_is(key_parse(w->crypto, pair->key_pem, &w->keys[w->table.count])));
    w->table.count++;
}

struct run {
    struct test *t;
    void (*body)(struct world *);
};

static void
run_body(struct rt *rt, void *arg)
{
    struct run *run = arg;
    struct world w = { .t = run->t, .rt = rt };
    size_t bad;

    CHECK(!err_is(crypto_open(rt, &w.crypto)));
    w.table.keys = w.keys;
    w.signer = (struct key_signer){ sign, &w };
    if (str_is_absent(ec.key_pem)) {
        make_pair(KIND_EC, "DNS:mx.example", &ec);
        make_pair(KIND_RSA, "DNS:mx.example", &rsa);
        make_pair(KIND_EC, "DNS:*.other.example", &ec_other);
    }
    hold_key(&w, &ec);
    hold_key(&w, &rsa);
    hold_key(&w, &ec_other);
    w.server = tls_server_new(w.crypto, S("mx"), &w.signer);
    w.client = tls_client_new(w.crypto);
    EXPECT(run->t, !tls_server_has_certificate(w.server));
    struct str pems[] = { ec.certificate_pem, rsa.certificate_pem, ec_other.certificate_pem };
    CHECK(!err_is(tls_server_set_certificates(w.server, pems, 3, &bad)));
    EXPECT(run->t, tls_server_has_certificate(w.server));
    run->body(&w);
    tls_client_free(w.client);
    tls_server_free(w.server);
    for (size_t i = 0; i < w.table.count; i++)
        key_free(w.keys[i]);
    crypto_close(w.crypto);
}

#define WORLD_TEST(name)                                                                                               \
    static void name##_body(struct world *);                                                                           \
    static void name(struct test *t)                                                                                   \
    {                                                                                                                  \
        struct run run = { t, name##_body };                                                                           \
        EXPECT(t, !err_is(rt_run_leaping(run_body, &run)));                                                            \
    }                                                                                                                  \
    static void name##_body(struct world *w)

static int64_t
soon(struct world *w)
{
    return within(w->rt, 10 * SECOND);
}

/* ---- a server's fiber -------------------------------------------------------------------------------------------- */

/* Accepts, and gives back what it reads until the end. */
struct echo {
    struct world *w;
    struct tls_server *server;
    struct wire wire;
    const struct tls *tls;
    struct scope scope;
    int64_t until;
    struct err accepted, ended;
    char reason[TLS_REASON];
    struct str why;
    struct tls_facts facts;
    char strings[3][80];
    unsigned char exporter[TLS_EXPORTER], end_point[TLS_END_POINT_MAX];
    size_t end_point_len, bytes;
    bool has_exporter, done;
    struct fiber *fiber;
    bool mute; /* only reads; and the kernel keeps little of what it has to answer */
};

static struct str
keep(char *memory, struct str s)
{
    struct text t = text_init(memory, 80);

    text_put(&t, s);
    return str_is_absent(s) ? s : text_str(&t);
}

static void
run_echo(void *arg)
{
    struct echo *e = arg;
    struct text reason = text_init(e->reason, sizeof e->reason);
    char bytes[4096];
    size_t len;

    e->fiber = fiber_current(e->w->rt);
    e->accepted = tls_accept(e->server, &e->wire, e->until, &e->tls, &reason);
    e->why = text_str(&reason);
    if (!err_is(e->accepted)) {
        e->facts = tls_facts(e->tls);
        e->facts.protocol = keep(e->strings[0], e->facts.protocol);
        e->facts.cipher = keep(e->strings[1], e->facts.cipher);
        e->facts.server_name = keep(e->strings[2], e->facts.server_name);
        e->has_exporter = tls_exporter(e->tls, e->exporter);
        if (!tls_server_end_point(e->tls, e->end_point, &e->end_point_len))
            e->end_point_len = 0;
        while (!err_is(e->ended = wire_read(&e->wire, bytes, sizeof bytes, FOREVER, &len)) && len > 0) {
            e->bytes += len;
            if (!e->mute && err_is(wire_write(&e->wire, str_new(bytes, len), FOREVER)))
                break;
        }
        wire_shut_down(&e->wire);
    }
    wire_close(&e->wire);
    e->done = true;
}

/* The other end of its stream. */
static struct stream *
start_echo(struct world *w, struct echo *e)
{
    struct handle ends[2];
    struct stream *near, *far;
    struct tls_server *server = e->server ? e->server : w->server;
    int64_t until = e->until ? e->until : soon(w);

    *e = (struct echo){ .w = w, .server = server, .until = until, .mute = e->mute };
    CHECK(!err_is(stream_pair(w->rt, ends)));
    CHECK(!e->mute || setsockopt(ends[1].number, SOL_SOCKET, SO_SNDBUF, &(int){ 4096 }, sizeof(int)) == 0);
    CHECK(!err_is(stream_from_handle(w->rt, ends[0], &near)) && !err_is(stream_from_handle(w->rt, ends[1], &far)));
    e->wire = wire_in_clear(far);
    scope_init(&e->scope, w->rt);
    scope_start(&e->scope, "echo", run_echo, e);
    return near;
}

static void
end_echo(struct echo *e)
{
    EXPECT(e->w->t, !err_is(scope_wait(&e->scope, within(e->w->rt, 100 * SECOND))));
    scope_end(&e->scope);
    e->server = NULL;
    e->until = 0;
}

/* Whatever certificate is shown. */
static struct err
connect_to(struct world *w, struct wire *wire, struct str name, const struct tls **out, struct text *reason)
{
    enum tls_result result;

    return tls_connect(w->client, wire, &(struct tls_expected){ .server_name = name }, soon(w), out, &result, reason);
}

/* ---- OpenSSL as the peer ----------------------------------------------------------------------------------------- */

struct peer {
    struct world *w;
    SSL_CTX *ctx;
    SSL *ssl;
    struct stream *stream;
    size_t piece; /* bytes a write; 0: all there are */
    bool silent;  /* what it would say is kept back */
};

static SSL_SESSION *session;

static int
keep_session(SSL *ssl, SSL_SESSION *fresh)
{
    (void)ssl;
    SSL_SESSION_free(session);
    session = fresh;
    return 1;
}

static void
peer_init(struct peer *p, struct world *w, struct stream *stream, int version)
{
    *p = (struct peer){ .w = w, .ctx = SSL_CTX_new(TLS_client_method()), .stream = stream };
    SSL_CTX_set_max_proto_version(p->ctx, version);
    SSL_CTX_set_session_cache_mode(p->ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(p->ctx, keep_session);
    p->ssl = SSL_new(p->ctx);
    SSL_set_bio(p->ssl, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
    SSL_set_connect_state(p->ssl);
}

static void
peer_done(struct peer *p)
{
    if (p->stream)
        stream_close(p->stream);
    SSL_free(p->ssl);
    SSL_CTX_free(p->ctx);
}

static bool
peer_push(struct peer *p)
{
    char bytes[4096];
    int len;

    while (!p->silent && (len = BIO_read(SSL_get_wbio(p->ssl), bytes, p->piece ? (int)p->piece : (int)sizeof bytes)) > 0) {
        if (err_is(stream_write(p->stream, str_new(bytes, (size_t)len), soon(p->w))))
            return false;
        if (p->piece)
            fiber_yield(p->w->rt); /* so that it arrives as a piece */
    }
    return true;
}

static bool
peer_pull(struct peer *p)
{
    char bytes[4096];
    size_t len;

    if (err_is(stream_read(p->stream, bytes, p->piece ? p->piece : sizeof bytes, soon(p->w), &len)) || len == 0)
        return false;
    BIO_write(SSL_get_rbio(p->ssl), bytes, (int)len);
    return true;
}

enum peer_call { HANDSHAKE, READ, WRITE };

/* What the call returned in the end; at most 0: the connection is over. */
static int
peer_do(struct peer *p, enum peer_call call, void *memory, size_t len)
{
    for (;;) {
        ERR_clear_error();
        int n = call == HANDSHAKE ? SSL_do_handshake(p->ssl) : call == READ ? SSL_read(p->ssl, memory, (int)len)
                                                                            : SSL_write(p->ssl, memory, (int)len);
        int error = SSL_get_error(p->ssl, n);
        peer_push(p);
        if (error != SSL_ERROR_WANT_READ)
            return n;
        if (!peer_pull(p))
            return -1;
    }
}

static bool
peer_echoes(struct peer *p)
{
    char text[] = "hello", back[6] = "";

    return peer_do(p, WRITE, text, 5) == 5 && peer_do(p, READ, back, 5) == 5 && strcmp(back, text) == 0;
}

static void
peer_says_goodbye(struct peer *p)
{
    char byte;

    SSL_shutdown(p->ssl);
    peer_push(p);
    EXPECT_INT(p->w->t, peer_do(p, READ, &byte, 1), 0);
    EXPECT_INT(p->w->t, SSL_get_shutdown(p->ssl), SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
}

/* ---- handshakes -------------------------------------------------------------------------------------------------- */

WORLD_TEST(both_versions_and_kinds_of_keys)
{
    static const struct {
        const char *why, *ciphers, *signatures;
        int version;
        size_t piece;
        const char *protocol;
        int kind;
        const char *cipher; /* NULL: any */
    } cases[] = {
        { "1.3 with EC", NULL, "ECDSA+SHA256", TLS1_3_VERSION, 0, "TLSv1.3", EVP_PKEY_EC },
        { "1.3 with RSA", NULL, "RSA-PSS+SHA256", TLS1_3_VERSION, 0, "TLSv1.3", EVP_PKEY_RSA },
        { "1.3 with RSA and a longer hash", NULL, "RSA-PSS+SHA512", TLS1_3_VERSION, 0, "TLSv1.3", EVP_PKEY_RSA },
        { "1.2 with EC", "ECDHE-ECDSA-AES128-GCM-SHA256", NULL, TLS1_2_VERSION, 0, "TLSv1.2", EVP_PKEY_EC },
        { "1.2 with RSA", "ECDHE-RSA-AES128-GCM-SHA256", "RSA+SHA256", TLS1_2_VERSION, 0, "TLSv1.2", EVP_PKEY_RSA },
        { "1.2 with RSA-PSS", "ECDHE-RSA-AES128-SHA", "RSA-PSS+SHA384", TLS1_2_VERSION, 0, "TLSv1.2", EVP_PKEY_RSA },
        { "whatever it likes", NULL, NULL, TLS1_3_VERSION, 0, "TLSv1.3", EVP_PKEY_EC, "TLS_AES_128_GCM_SHA256" },
        { "1.3 with the longer key only", "TLS_AES_256_GCM_SHA384", NULL, TLS1_3_VERSION, 0, "TLSv1.3", EVP_PKEY_EC,
          "TLS_AES_256_GCM_SHA384" },
        { "1.3 without AES in the processor", "TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256", NULL, TLS1_3_VERSION, 0,
          "TLSv1.3", EVP_PKEY_EC, "TLS_CHACHA20_POLY1305_SHA256" },
        { "1.3 byte by byte", NULL, NULL, TLS1_3_VERSION, 1, "TLSv1.3", EVP_PKEY_EC },
        { "1.2 byte by byte", NULL, NULL, TLS1_2_VERSION, 1, "TLSv1.2", EVP_PKEY_EC },
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct echo e = { 0 };
        struct peer p;
        unsigned char ours[TLS_EXPORTER];
        test_case(w->t, cases[i].why);
        peer_init(&p, w, start_echo(w, &e), cases[i].version);
        p.piece = cases[i].piece;
        if (cases[i].ciphers)
            CHECK((cases[i].version == TLS1_3_VERSION ? SSL_set_ciphersuites : SSL_set_cipher_list)(p.ssl, cases[i].ciphers) == 1);
        CHECK(!cases[i].signatures || SSL_set1_sigalgs_list(p.ssl, cases[i].signatures) == 1);
        SSL_set_tlsext_host_name(p.ssl, "mx.example");
        EXPECT_INT(w->t, peer_do(&p, HANDSHAKE, NULL, 0), 1);
        EXPECT(w->t, peer_echoes(&p));
        X509 *x = SSL_get0_peer_certificate(p.ssl);
        EXPECT_INT(w->t, x ? EVP_PKEY_get_base_id(X509_get0_pubkey(x)) : 0, cases[i].kind);
        EXPECT_INT(w->t, SSL_export_keying_material(p.ssl, ours, sizeof ours, "EXPORTER-Channel-Binding", 24,
                                                    (const unsigned char *)"", 0, 1), 1);
        peer_says_goodbye(&p);
        end_echo(&e);
        EXPECT(w->t, !err_is(e.accepted) && !err_is(e.ended));
        EXPECT_STR(w->t, e.facts.protocol, str_from_cstr(cases[i].protocol));
        EXPECT_STR(w->t, e.facts.cipher, str_from_cstr(cases[i].cipher ? cases[i].cipher : SSL_get_cipher_name(p.ssl)));
        EXPECT_STR(w->t, e.facts.server_name, S("mx.example"));
        EXPECT(w->t, !e.facts.resumed);
        EXPECT(w->t, e.has_exporter && memcmp(e.exporter, ours, sizeof ours) == 0);
        unsigned char digest[64];
        unsigned len = 0;
        EXPECT(w->t, x && X509_digest(x, EVP_sha256(), digest, &len) == 1);
        EXPECT(w->t, e.end_point_len == len && memcmp(digest, e.end_point, len) == 0);
        peer_done(&p);
    }
    EXPECT_INT(w->t, w->signatures, sizeof cases / sizeof *cases);
}

WORLD_TEST(no_extended_master_secret_no_exporter)
{
    struct echo e = { 0 };
    struct peer p;

    peer_init(&p, w, start_echo(w, &e), TLS1_2_VERSION);
    SSL_set_options(p.ssl, SSL_OP_NO_EXTENDED_MASTER_SECRET);
    EXPECT_INT(w->t, peer_do(&p, HANDSHAKE, NULL, 0), 1);
    peer_says_goodbye(&p);
    end_echo(&e);
    EXPECT(w->t, !err_is(e.accepted) && !e.has_exporter);
    EXPECT_INT(w->t, e.end_point_len, 32);
    peer_done(&p);
}

WORLD_TEST(older_versions_and_plain_ciphers_are_refused)
{
    static const struct {
        const char *why, *ciphers;
        int version;
    } cases[] = {
        { "TLS 1.1", "ALL:@SECLEVEL=0", TLS1_1_VERSION },
        { "TLS 1.0", "ALL:@SECLEVEL=0", TLS1_VERSION },
        { "no forward secrecy", "AES128-GCM-SHA256", TLS1_2_VERSION },
        { "no authentication", "AECDH-AES128-SHA:@SECLEVEL=0", TLS1_2_VERSION },
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct echo e = { 0 };
        struct peer p;
        test_case(w->t, cases[i].why);
        peer_init(&p, w, start_echo(w, &e), cases[i].version);
        SSL_set_min_proto_version(p.ssl, 0);
        CHECK(SSL_set_cipher_list(p.ssl, cases[i].ciphers) == 1);
        EXPECT(w->t, peer_do(&p, HANDSHAKE, NULL, 0) <= 0);
        EXPECT(w->t, ERR_GET_REASON(ERR_peek_error()) >= SSL_AD_REASON_OFFSET); /* an alert told it so */
        end_echo(&e);
        EXPECT_INT(w->t, e.accepted.kind, ERR_PROTOCOL);
        EXPECT(w->t, e.why.len > 0 && !str_eq(e.why, S("no reason given")));
        peer_done(&p);
    }
}

WORLD_TEST(names_choose_certificates)
{
    static const struct {
        const char *why, *name, *signatures, *shown;
    } cases[] = {
        { "its own", "mx.example", NULL, "mx.example" },
        { "its own, RSA", "mx.example", "RSA-PSS+SHA256", "mx.example" },
        { "a wildcard", "a.other.example", NULL, "a.other.example" },
        { "case does not matter", "A.OTHER.Example", NULL, "a.other.example" },
        { "nobody's: the first", "nobody.example", NULL, "mx.example" },
        { "none said: the first", NULL, NULL, "mx.example" },
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct echo e = { 0 };
        struct peer p;
        test_case(w->t, cases[i].why);
        peer_init(&p, w, start_echo(w, &e), TLS1_3_VERSION);
        CHECK(!cases[i].signatures || SSL_set1_sigalgs_list(p.ssl, cases[i].signatures) == 1);
        if (cases[i].name)
            SSL_set_tlsext_host_name(p.ssl, cases[i].name);
        EXPECT_INT(w->t, peer_do(&p, HANDSHAKE, NULL, 0), 1);
        X509 *x = SSL_get0_peer_certificate(p.ssl);
        EXPECT_INT(w->t, x ? X509_check_host(x, cases[i].shown, 0, 0, NULL) : -1, 1);
        peer_says_goodbye(&p);
        end_echo(&e);
        EXPECT(w->t, str_is_absent(e.facts.server_name) == !cases[i].name);
        peer_done(&p);
    }
}

WORLD_TEST(certificates_are_replaced_whole)
{
    struct str mixed[] = { rsa.certificate_pem, S("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n") };
    struct echo e = { 0 };
    struct peer p;
    size_t bad = 9;

    EXPECT_INT(w->t, tls_server_set_certificates(w->server, mixed, 2, &bad).kind, ERR_SYNTAX);
    EXPECT_INT(w->t, bad, 1);
    for (int i = 0; i < 2; i++) { /* the old ones; then RSA alone, while a connection of before goes on */
        struct echo before = { 0 };
        struct peer old;
        peer_init(&old, w, start_echo(w, &before), TLS1_3_VERSION);
        EXPECT_INT(w->t, peer_do(&old, HANDSHAKE, NULL, 0), 1);
        if (i == 1)
            EXPECT(w->t, !err_is(tls_server_set_certificates(w->server, mixed, 1, &bad)));
        peer_init(&p, w, start_echo(w, &e), TLS1_3_VERSION);
        EXPECT_INT(w->t, peer_do(&p, HANDSHAKE, NULL, 0), 1);
        EXPECT_INT(w->t, EVP_PKEY_get_base_id(X509_get0_pubkey(SSL_get0_peer_certificate(p.ssl))),
                   i ? EVP_PKEY_RSA : EVP_PKEY_EC);
        EXPECT(w->t, peer_echoes(&old));
        peer_says_goodbye(&old);
        peer_says_goodbye(&p);
        end_echo(&before);
        end_echo(&e);
        peer_done(&old);
        peer_done(&p);
    }
    EXPECT(w->t, !err_is(tls_server_set_certificates(w->server, NULL, 0, &bad)));
    EXPECT(w->t, !tls_server_has_certificate(w->server));
    peer_init(&p, w, start_echo(w, &e), TLS1_3_VERSION);
    EXPECT(w->t, peer_do(&p, HANDSHAKE, NULL, 0) <= 0);
    end_echo(&e);
    EXPECT_INT(w->t, e.accepted.kind, ERR_PROTOCOL);
    peer_done(&p);
}

WORLD_TEST(without_a_signature_only_that_handshake_fails)
{
    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++)
        for (int refuse = 1; refuse >= 0; refuse--) {
            struct echo e = { 0 };
            struct peer p;
            w->refuse_to_sign = refuse;
            peer_init(&p, w, start_echo(w, &e), version);
            EXPECT_INT(w->t, peer_do(&p, HANDSHAKE, NULL, 0) == 1, !refuse);
            if (!refuse)
                peer_says_goodbye(&p);
            end_echo(&e);
            EXPECT_INT(w->t, e.accepted.kind, refuse ? ERR_PROTOCOL : ERR_NONE);
            peer_done(&p);
        }
}

/* ---- tickets ----------------------------------------------------------------------------------------------------- */

static bool
resumes(struct world *w, struct tls_server *server, int version)
{
    struct echo e = { .server = server };
    struct peer p;

    peer_init(&p, w, start_echo(w, &e), version);
    CHECK(SSL_set_session(p.ssl, session) == 1);
    EXPECT_INT(w->t, peer_do(&p, HANDSHAKE, NULL, 0), 1);
    EXPECT(w->t, peer_echoes(&p));
    peer_says_goodbye(&p);
    end_echo(&e);
    EXPECT_INT(w->t, e.facts.resumed, SSL_session_reused(p.ssl));
    EXPECT_INT(w->t, e.end_point_len > 0, !e.facts.resumed);
    if (version == TLS1_2_VERSION) /* the callback hears of new sessions only, not of new tickets */
        keep_session(p.ssl, SSL_get1_session(p.ssl));
    peer_done(&p);
    return e.facts.resumed;
}

WORLD_TEST(tickets_resume)
{
    struct tls_ticket_key keys[2] = { { { 1 }, { 2 }, { 3 } }, { { 4 }, { 5 }, { 6 } } };
    struct str pems[] = { ec.certificate_pem };
    struct tls_server *sister = tls_server_new(w->crypto, S("mx"), &w->signer);
    struct tls_server *stranger = tls_server_new(w->crypto, S("submission"), &w->signer);
    size_t bad;

    CHECK(!err_is(tls_server_set_certificates(sister, pems, 1, &bad)));
    CHECK(!err_is(tls_server_set_certificates(stranger, pems, 1, &bad)));
    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
        struct echo e = { 0 };
        struct peer p;
        test_case(w->t, version == TLS1_2_VERSION ? "1.2" : "1.3");
        tls_server_set_tickets(w->server, NULL, 0);
        peer_init(&p, w, start_echo(w, &e), version);
        EXPECT(w->t, peer_do(&p, HANDSHAKE, NULL, 0) == 1 && peer_echoes(&p));
        EXPECT(w->t, !session || !SSL_SESSION_has_ticket(session)); /* without keys there is none */
        peer_says_goodbye(&p);
        end_echo(&e);
        peer_done(&p);
        tls_server_set_tickets(w->server, keys, 1);
        tls_server_set_tickets(sister, keys, 1);
        tls_server_set_tickets(stranger, keys, 1);
        peer_init(&p, w, start_echo(w, &e), version);
        EXPECT(w->t, peer_do(&p, HANDSHAKE, NULL, 0) == 1 && peer_echoes(&p));
        CHECK(session && SSL_SESSION_has_ticket(session));
        peer_says_goodbye(&p);
        end_echo(&e);
        peer_done(&p);

        EXPECT(w->t, resumes(w, w->server, version));
        EXPECT(w->t, resumes(w, sister, version));
        SSL_SESSION *first = session;
        CHECK(SSL_SESSION_up_ref(first) == 1);
        EXPECT(w->t, !resumes(w, stranger, version)); /* its tickets are of another pool, also with the same keys */
        SSL_SESSION_free(session);
        session = first;
        tls_server_set_tickets(w->server, (struct tls_ticket_key[]){ keys[1], keys[0] }, 2);
        EXPECT(w->t, resumes(w, w->server, version)); /* of the key before, and replaced */
        tls_server_set_tickets(w->server, &keys[1], 1);
        EXPECT(w->t, resumes(w, w->server, version));
        EXPECT(w->t, !resumes(w, sister, version)); /* who has not heard of the new key yet */
        SSL_SESSION_free(session);
        session = NULL;
    }
    tls_server_free(sister);
    tls_server_free(stranger);
}

/* ---- peers that misbehave ---------------------------------------------------------------------------------------- */

WORLD_TEST(garbage_is_no_hello)
{
    static const struct {
        const char *why;
        struct str begins;
        bool is_long;
    } cases[] = {
        { "mail", STR("EHLO mx.example\r\n"), false },
        { "zeros", STR("\0\0\0\0\0\0\0\0"), true },
        { "a record of no known kind", STR("\x99\x03\x01\x00\x10"), true },
        { "a record longer than any", STR("\x16\x03\x01\xff\xff"), true },
        { "a hello of nonsense", STR("\x16\x03\x01\x00\x20\x01\x00\x00\x1c\x03\x03"), true },
        { "an alert", STR("\x15\x03\x01\x00\x02\x02\x28"), false },
        { "data before the handshake", STR("\x17\x03\x03\x00\x05hello"), true },
    };
    static char rest[64 << 10];

    memset(rest, 'x', sizeof rest);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct echo e = { 0 };
        char bytes[256];
        size_t len = 1;
        test_case(w->t, cases[i].why);
        struct stream *stream = start_echo(w, &e);
        struct str parts[] = { cases[i].begins, str_new(rest, cases[i].is_long ? sizeof rest : 0) };
        (void)stream_write_parts(stream, parts, 2, soon(w)); /* it may hang up before the end */
        while (len > 0 && !err_is(stream_read(stream, bytes, sizeof bytes, soon(w), &len)))
            ;
        end_echo(&e);
        EXPECT_INT(w->t, e.accepted.kind, ERR_PROTOCOL);
        EXPECT(w->t, e.why.len > 0);
        stream_close(stream);
    }
}

WORLD_TEST(a_handshake_may_break_off_anywhere)
{
    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++)
        for (int round = 0; round < 3; round++) { /* in the hello, behind it, and before the last word */
            struct echo e = { 0 };
            struct peer p;
            char bytes[16384];
            peer_init(&p, w, start_echo(w, &e), version);
            SSL_do_handshake(p.ssl);
            int len = BIO_read(SSL_get_wbio(p.ssl), bytes, sizeof bytes);
            CHECK(len > 100);
            EXPECT(w->t, !err_is(stream_write(p.stream, str_new(bytes, round == 0 ? 100 : (size_t)len), soon(w))));
            if (round == 2) {
                CHECK(peer_pull(&p));
                SSL_do_handshake(p.ssl);
                len = BIO_read(SSL_get_wbio(p.ssl), bytes, sizeof bytes);
                CHECK(len > 20);
                EXPECT(w->t, !err_is(stream_write(p.stream, str_new(bytes, 20), soon(w))));
            }
            stream_close(p.stream);
            p.stream = NULL;
            end_echo(&e);
            EXPECT(w->t, e.accepted.kind == ERR_RESET);
            peer_done(&p);
        }
}

WORLD_TEST(a_handshake_has_its_time)
{
    struct echo e = { .until = within(w->rt, 30 * SECOND) };
    int64_t began = rt_now(w->rt);
    struct stream *stream = start_echo(w, &e);

    EXPECT(w->t, !err_is(stream_write(stream, S("\x16\x03\x01\x02\x00"), soon(w))));
    end_echo(&e);
    EXPECT_INT(w->t, e.accepted.kind, ERR_TIMEOUT);
    EXPECT(w->t, rt_now(w->rt) >= began + 30 * SECOND);
    stream_close(stream);

    stream = start_echo(w, &e);
    while (!e.fiber)
        fiber_yield(w->rt);
    fiber_yield(w->rt);
    fiber_cancel(e.fiber);
    end_echo(&e);
    EXPECT_INT(w->t, e.accepted.kind, ERR_CANCELLED);
    stream_close(stream);
}

WORLD_TEST(only_a_goodbye_is_an_end)
{
    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++)
        for (int cut = 0; cut < 3; cut++) {
            struct echo e = { 0 };
            struct peer p;
            char bytes[256] = "some mail";
            test_case(w->t, cut == 0 ? "between records" : cut == 1 ? "inside one" : "one byte in clear");
            peer_init(&p, w, start_echo(w, &e), version);
            EXPECT(w->t, peer_do(&p, HANDSHAKE, NULL, 0) == 1 && peer_echoes(&p));
            if (cut == 1) {
                CHECK(SSL_write(p.ssl, bytes, 9) == 9);
                CHECK(BIO_read(SSL_get_wbio(p.ssl), bytes, 12) == 12);
                EXPECT(w->t, !err_is(stream_write(p.stream, str_new(bytes, 12), soon(w))));
            } else if (cut == 2) {
                EXPECT(w->t, !err_is(stream_write(p.stream, S("QUIT\r\n"), soon(w))));
            }
            stream_shut_down(p.stream);
            end_echo(&e);
            EXPECT_INT(w->t, e.ended.kind, cut == 2 ? ERR_PROTOCOL : ERR_RESET);
            EXPECT_INT(w->t, e.bytes, 5);
            peer_done(&p);
        }
}

WORLD_TEST(nobody_renegotiates)
{
    struct echo e = { 0 };
    struct peer p;

    peer_init(&p, w, start_echo(w, &e), TLS1_2_VERSION);
    EXPECT(w->t, peer_do(&p, HANDSHAKE, NULL, 0) == 1 && peer_echoes(&p));
    size_t signatures = w->signatures;
    EXPECT_INT(w->t, SSL_renegotiate(p.ssl), 1);
    EXPECT(w->t, peer_do(&p, HANDSHAKE, NULL, 0) <= 0);
    EXPECT_INT(w->t, w->signatures, signatures);
    peer_done(&p);
    end_echo(&e);
}

static void
update_key(struct peer *p, int type)
{
    CHECK(SSL_key_update(p->ssl, type) == 1);
    SSL_do_handshake(p->ssl);
}

/* A peer that asks for new keys again and again and does not listen to the answers. */
WORLD_TEST(key_updates_are_answered_within_bounds)
{
    for (int many = 0; many < 2; many++) {
        struct echo e = { .mute = many };
        struct peer p;
        char byte = 'x';
        test_case(w->t, many ? "too many" : "more than the kernel takes");
        peer_init(&p, w, start_echo(w, &e), TLS1_3_VERSION);
        EXPECT(w->t, peer_do(&p, HANDSHAKE, NULL, 0) == 1);
        for (int i = 0; i < (many ? 20000 : 2000); i++) {
            update_key(&p, SSL_KEY_UPDATE_REQUESTED);
            if (many && i % 1000 == 0)
                CHECK(SSL_write(p.ssl, &byte, 1) == 1);
            EXPECT(w->t, peer_push(&p));
            fiber_yield(w->rt);
        }
        EXPECT_INT(w->t, wire_has_unsent(&e.wire), !many);
        if (many) {
            stream_shut_down(p.stream);
        } else {
            EXPECT(w->t, peer_echoes(&p));
            peer_says_goodbye(&p);
        }
        end_echo(&e);
        EXPECT_INT(w->t, e.bytes, many ? 20 : 5);
        peer_done(&p);
    }
}

/* While OpenSSL reads what is no data nobody else has a turn. */
WORLD_TEST(what_is_no_data_has_a_bound)
{
    struct echo e = { 0 };
    struct peer p;

    test_case(w->t, "data between: as many as it likes");
    peer_init(&p, w, start_echo(w, &e), TLS1_3_VERSION);
    EXPECT(w->t, peer_do(&p, HANDSHAKE, NULL, 0) == 1);
    for (int i = 0; i < 12000; i++) {
        update_key(&p, SSL_KEY_UPDATE_NOT_REQUESTED);
        if (i % 4000 == 0)
            EXPECT(w->t, peer_push(&p) && peer_echoes(&p));
    }
    test_case(w->t, "none: it is over");
    for (int i = 0; i < 8000; i++)
        update_key(&p, SSL_KEY_UPDATE_NOT_REQUESTED);
    EXPECT(w->t, !peer_push(&p) || !peer_echoes(&p));
    end_echo(&e);
    EXPECT_INT(w->t, e.bytes, 3 * 5);
    EXPECT_INT(w->t, e.ended.kind, ERR_LIMIT);
    peer_done(&p);
}

/* A peer that listens, but late: what it has taken is not kept. */
WORLD_TEST(what_waits_for_a_slow_peer_has_a_bound)
{
    struct echo e = { .mute = true };
    struct peer p;
    char byte = 'x', answers[27];
    size_t len, before, most = 0;

    peer_init(&p, w, start_echo(w, &e), TLS1_3_VERSION);
    EXPECT(w->t, peer_do(&p, HANDSHAKE, NULL, 0) == 1);
    before = mem_in_use(rt_mem(w->rt));
    for (int i = 0; i < 15000; i++) {
        update_key(&p, SSL_KEY_UPDATE_REQUESTED);
        if (i % 1000 == 0)
            CHECK(SSL_write(p.ssl, &byte, 1) == 1);
        EXPECT(w->t, peer_push(&p));
        fiber_yield(w->rt);
        if (i >= 2000)
            EXPECT(w->t, !err_is(stream_read(p.stream, answers, sizeof answers, soon(w), &len)));
        most = mem_in_use(rt_mem(w->rt)) > most ? mem_in_use(rt_mem(w->rt)) : most;
    }
    EXPECT(w->t, wire_has_unsent(&e.wire));
    EXPECT(w->t, most - before < 300 << 10);
    stream_shut_down(p.stream);
    end_echo(&e);
    EXPECT_INT(w->t, e.bytes, 15);
    peer_done(&p);
}

/* ---- our own client ---------------------------------------------------------------------------------------------- */

enum { MUCH = 3 << 20 };

struct pour { /* writes much beside a fiber that reads */
    struct world *w;
    struct wire *wire;
    struct err err;
};

static char
byte_at(size_t i)
{
    return (char)(i * 7 + (i >> 9));
}

static void
run_pour(void *arg)
{
    struct pour *p = arg;
    char bytes[1010];
    size_t at = 0;

    for (size_t size = 1; at < MUCH && !err_is(p->err); size = size % 997 + 13) {
        struct str parts[3];
        size_t count = 0;
        if (size > MUCH - at)
            size = MUCH - at;
        for (size_t i = 0; i < size; i++)
            bytes[i] = byte_at(at + i);
        for (struct str rest = str_new(bytes, size); count < 3; count++) {
            parts[count] = count == 2 ? rest : str_slice(rest, 0, size / 5);
            rest = str_from(rest, parts[count].len);
        }
        p->err = wire_write_parts(p->wire, parts, count, soon(p->w));
        at += size;
    }
}

WORLD_TEST(our_two_sides_talk_both_ways_at_once)
{
    struct echo e = { 0 };
    struct wire wire = wire_in_clear(start_echo(w, &e));
    char memory[TLS_REASON];
    static char bytes[40000];
    struct text reason = text_init(memory, sizeof memory);
    struct pour pour = { .w = w, .wire = &wire };
    struct scope scope;
    const struct tls *tls;
    size_t at = 0, len = 1, wrong = 0;

    EXPECT(w->t, !err_is(connect_to(w, &wire, S("a.other.example"), &tls, &reason)));
    EXPECT_STR(w->t, tls_facts(tls).protocol, S("TLSv1.3"));
    unsigned char exporter[TLS_EXPORTER], end_point[TLS_END_POINT_MAX];
    size_t end_point_len;
    EXPECT(w->t, tls_exporter(tls, exporter) && tls_server_end_point(tls, end_point, &end_point_len));
    scope_init(&scope, w->rt);
    scope_start(&scope, "pour", run_pour, &pour);
    while (at < MUCH && !err_is(wire_read(&wire, bytes, sizeof bytes, soon(w), &len)) && len > 0)
        for (size_t i = 0; i < len; i++)
            wrong += bytes[i] != byte_at(at++);
    EXPECT_INT(w->t, at, MUCH);
    EXPECT_INT(w->t, wrong, 0);
    scope_end(&scope);
    EXPECT(w->t, !err_is(pour.err));
    EXPECT(w->t, !err_is(wire_read_now(&wire, bytes, 1, &len)) && len == 0);
    wire_shut_down(&wire);
    EXPECT(w->t, !err_is(wire_wait_readable(&wire, soon(w))));
    EXPECT_INT(w->t, wire_read_now(&wire, bytes, 1, &len).kind, ERR_CLOSED);
    EXPECT(w->t, !err_is(wire_read(&wire, bytes, 1, soon(w), &len)) && len == 0);
    end_echo(&e);
    EXPECT_STR(w->t, e.facts.server_name, S("a.other.example"));
    EXPECT_INT(w->t, e.bytes, MUCH);
    EXPECT(w->t, e.has_exporter && memcmp(e.exporter, exporter, sizeof exporter) == 0);
    EXPECT(w->t, e.end_point_len == end_point_len && memcmp(e.end_point, end_point, end_point_len) == 0);
    wire_close(&wire);
}

/* A server that reads nothing: what does not fit is kept and leaves in the end, cancelled or not. */
WORLD_TEST(what_was_taken_leaves)
{
    struct echo e = { 0 };
    struct wire wire = wire_in_clear(start_echo(w, &e));
    char memory[TLS_REASON], chunk[5000];
    static char bytes[20000];
    struct text reason = text_init(memory, sizeof memory);
    const struct tls *tls;
    size_t taken = 0, len, back = 0;

    memset(chunk, 'y', sizeof chunk);
    EXPECT(w->t, !err_is(connect_to(w, &wire, (struct str){ 0 }, &tls, &reason)));
    do { /* without a yield: nobody reads meanwhile */
        EXPECT(w->t, !err_is(wire_write_now(&wire, str_new(chunk, sizeof chunk), &len)));
        taken += len;
    } while (len > 0);
    EXPECT(w->t, wire_has_unsent(&wire));
    EXPECT(w->t, taken > sizeof chunk);
    fiber_cancel(fiber_current(w->rt));
    EXPECT_INT(w->t, wire_write(&wire, S("z"), soon(w)).kind, ERR_CANCELLED);
    while (back < taken) { /* the echo goes round: read what comes while the rest leaves */
        EXPECT(w->t, !err_is(wire_write_now(&wire, S(""), &len)));
        if (err_is(wire_read(&wire, bytes, sizeof bytes, within(w->rt, SECOND), &len)) || len == 0)
            break;
        back += len;
    }
    EXPECT_INT(w->t, back, taken);
    EXPECT(w->t, !wire_has_unsent(&wire));
    EXPECT(w->t, !err_is(wire_write(&wire, S("z"), soon(w))));
    EXPECT(w->t, !err_is(wire_read(&wire, bytes, sizeof bytes, soon(w), &len)) && len == 1 && bytes[0] == 'z');
    wire_close(&wire); /* without a word */
    end_echo(&e);
    EXPECT_INT(w->t, e.ended.kind, ERR_RESET);
}

WORLD_TEST(an_idle_connection_holds_little)
{
    enum { MANY = 40 };
    static struct echo echoes[MANY];
    struct wire wires[MANY];
    const struct tls *tls;
    char memory[TLS_REASON], byte;
    struct text reason = text_init(memory, sizeof memory);
    size_t len, before = crypto_memory(), ours = mem_in_use(rt_mem(w->rt));

    for (size_t i = 0; i < MANY; i++) {
        echoes[i] = (struct echo){ 0 };
        wires[i] = wire_in_clear(start_echo(w, &echoes[i]));
        EXPECT(w->t, !err_is(connect_to(w, &wires[i], S("mx.example"), &tls, &reason)));
        EXPECT(w->t, !err_is(wire_write(&wires[i], S("a"), soon(w))));
        EXPECT(w->t, !err_is(wire_read(&wires[i], &byte, 1, soon(w), &len)) && len == 1);
    }
    while (!err_is(rt_sleep(w->rt, within(w->rt, SECOND))) && echoes[MANY - 1].bytes == 0)
        ;
    size_t each = (crypto_memory() - before) / MANY / 2, own = (mem_in_use(rt_mem(w->rt)) - ours) / MANY / 2;
    EXPECT(w->t, each > 1000 && each < 16 << 10);
    EXPECT(w->t, own < 1 << 10);
    for (size_t i = 0; i < MANY; i++) {
        wire_close(&wires[i]);
        end_echo(&echoes[i]);
    }
    EXPECT(w->t, crypto_memory() < before + 64 * 1024);
}

/* ---- keys -------------------------------------------------------------------------------------------------------- */

WORLD_TEST(keys_are_read)
{
    static const struct {
        const char *why;
        struct str pem;
        enum err_kind kind;
    } cases[] = {
        { "nothing", STR(""), ERR_SYNTAX },
        { "a certificate's frame", STR("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"), ERR_SYNTAX },
        { "a curve of no use",
          STR("-----BEGIN PRIVATE KEY-----\n"
              "MC4CAQAwBQYDK2VwBCIEIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f\n"
              "-----END PRIVATE KEY-----\n"), ERR_DENIED },
    };
    struct key_certificate c;
    struct key *key;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        test_case(w->t, cases[i].why);
        EXPECT_INT(w->t, key_parse(w->crypto, cases[i].pem, &key).kind, cases[i].kind);
    }
    EXPECT_INT(w->t, key_look_at_certificate(w->crypto, S("hello"), &c).kind, ERR_SYNTAX);
    EXPECT(w->t, !err_is(key_look_at_certificate(w->crypto, rsa.certificate_pem, &c)));
    struct key_name name = key_name(w->keys[KIND_RSA]);
    EXPECT(w->t, memcmp(&name, &c.key, sizeof name) == 0);
    EXPECT(w->t, c.until > rt_wall(w->rt) && c.until < rt_wall(w->rt) + HOUR + MINUTE);
}

static size_t questions;

static int
ask_at_the_terminal(UI *ui)
{
    (void)ui;
    questions++;
    return 0;
}

WORLD_TEST(nobody_is_asked_for_a_passphrase)
{
    static const struct str encrypted =
        STR("-----BEGIN CERTIFICATE-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,000102030405060708090A0B0C0D0E0F\n\n"
            "AAECAwQFBgcICQoLDA0ODwABAgMEBQYHCAkKCwwNDg8=\n-----END CERTIFICATE-----\n");
    static const struct str encrypted_key =
        STR("-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,000102030405060708090A0B0C0D0E0F\n\n"
            "AAECAwQFBgcICQoLDA0ODwABAgMEBQYHCAkKCwwNDg8=\n-----END EC PRIVATE KEY-----\n");
    UI_METHOD *terminal = UI_create_method("a terminal");
    struct key_certificate c;
    struct key *key;
    size_t count;

    CHECK(terminal && UI_method_set_opener(terminal, ask_at_the_terminal) == 0);
    UI_set_default_method(terminal);
    BIO *bio = BIO_new_mem_buf(encrypted.ptr, (int)encrypted.len);
    test_case(w->t, "whoever does not care is asked");
    EXPECT(w->t, !PEM_read_bio_X509(bio, NULL, NULL, NULL));
    EXPECT_INT(w->t, questions, 1);
    BIO_free(bio);
    ERR_clear_error();
    test_case(w->t, "a key");
    EXPECT_INT(w->t, key_parse(w->crypto, encrypted_key, &key).kind, ERR_SYNTAX);
    test_case(w->t, "a certificate");
    EXPECT_INT(w->t, key_look_at_certificate(w->crypto, encrypted, &c).kind, ERR_SYNTAX);
    EXPECT(w->t, !key_certificate_is_for(w->crypto, encrypted, S("mx.example")));
    test_case(w->t, "a server's certificate");
    EXPECT_INT(w->t, tls_server_set_certificates(w->server, &encrypted, 1, &count).kind, ERR_SYNTAX);
    test_case(w->t, "an authority");
    EXPECT_INT(w->t, tls_server_ask_clients(w->server, TLS_ASK, encrypted).kind, ERR_SYNTAX);
    tls_trust_free(tls_trust_new(w->crypto, encrypted, &count));
    EXPECT_INT(w->t, count, 0);
    EXPECT_INT(w->t, questions, 1);
    UI_set_default_method(UI_OpenSSL());
    UI_destroy_method(terminal);
}

WORLD_TEST(keys_sign_what_is_theirs)
{
    unsigned char signature[KEY_SIGNATURE_MAX], few[10];
    static char covers[KEY_COVERS_MAX + 1];
    size_t len;

    EXPECT(w->t, key_sign(w->keys[KIND_EC], KEY_ECDSA_SHA384, S("x"), signature, sizeof signature, &len));
    EXPECT(w->t, key_sign(w->keys[KIND_RSA], KEY_RSA_PSS_SHA256, S("x"), signature, sizeof signature, &len));
    EXPECT(w->t, key_sign(w->keys[KIND_RSA], KEY_RSA_PKCS1_SHA256, S("x"), signature, sizeof signature, &len));
    EXPECT(w->t, !key_sign(w->keys[KIND_RSA], KEY_ECDSA_SHA256, S("x"), signature, sizeof signature, &len));
    EXPECT(w->t, !key_sign(w->keys[KIND_EC], KEY_RSA_PSS_SHA256, S("x"), signature, sizeof signature, &len));
    EXPECT(w->t, !key_sign(w->keys[KIND_EC], (enum key_scheme)0x0201, S("x"), signature, sizeof signature, &len));
    EXPECT(w->t, !key_sign(w->keys[KIND_EC], KEY_ECDSA_SHA256, S("x"), few, sizeof few, &len));
    EXPECT(w->t, !key_sign(w->keys[KIND_EC], KEY_ECDSA_SHA256, str_new(covers, sizeof covers), signature, sizeof signature,
                           &len));
    struct key_name nobody = { { 0 } };
    EXPECT(w->t, !key_table_sign(&w->table, &nobody, KEY_ECDSA_SHA256, S("x"), signature, sizeof signature, &len));
}

WORLD_TEST(a_server_makes_its_first_certificate)
{
    static const struct str names[] = {
        STR("mx.local.test"),
        STR("a-name-that-is-longer-than-the-64-bytes-of-a-common-name.and-has-more-labels.example.org"),
    };

    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct arena arena;
        struct str certificate, pem;
        struct key_certificate c;
        struct echo e = { 0 };
        struct peer p;
        size_t bad;
        arena_init(&arena, rt_mem(w->rt), 4096, 64 << 10);
        EXPECT(w->t, !err_is(key_make_self_signed(w->crypto, names[i], &arena, &certificate, &pem)));
        CHECK(!err_is(key_parse(w->crypto, pem, &w->keys[w->table.count])));
        CHECK(!err_is(key_look_at_certificate(w->crypto, certificate, &c)));
        struct key_name name = key_name(w->keys[w->table.count++]);
        EXPECT(w->t, memcmp(&name, &c.key, sizeof name) == 0);
        EXPECT(w->t, c.self_signed && c.from < rt_wall(w->rt) && c.until > rt_wall(w->rt) + 3000 * DAY);
        EXPECT(w->t, !err_is(tls_server_set_certificates(w->server, &certificate, 1, &bad)));
        peer_init(&p, w, start_echo(w, &e), TLS1_3_VERSION);
        EXPECT(w->t, peer_do(&p, HANDSHAKE, NULL, 0) == 1 && peer_echoes(&p));
        EXPECT_INT(w->t, X509_check_host(SSL_get0_peer_certificate(p.ssl), names[i].ptr, names[i].len, 0, NULL), 1);
        peer_says_goodbye(&p);
        end_echo(&e);
        peer_done(&p);
        key_free(w->keys[--w->table.count]);
        arena_done(&arena);
    }
}

/* A stranger's certificate may have as many as its size allows. */
WORLD_TEST(a_certificates_names_are_bounded)
{
    enum { MANY = 600 };
    static char list[MANY * 24];
    static struct pair many;
    struct text names = text_init(list, sizeof list);
    struct tls_certificate certificate;
    struct arena arena;
    struct echo e = { .server = tls_server_new(w->crypto, S("many"), &w->signer) };
    struct tls_server *server = e.server;
    char memory[TLS_REASON];
    struct text reason = text_init(memory, sizeof memory);
    const struct tls *tls;
    size_t bad;

    for (int i = 0; i < MANY; i++)
        text_putf(&names, "%sDNS:host-%03d.example", i ? "," : "", i);
    make_pair(KIND_EC, text_cstr(&names), &many);
    hold_key(w, &many);
    CHECK(!err_is(tls_server_set_certificates(server, &many.certificate_pem, 1, &bad)));
    struct wire wire = wire_in_clear(start_echo(w, &e));
    EXPECT(w->t, !err_is(connect_to(w, &wire, S("host-001.example"), &tls, &reason)));
    arena_init(&arena, rt_mem(w->rt), 4096, 64 << 10);
    EXPECT(w->t, tls_certificate(tls, &arena, &certificate));
    EXPECT(w->t, str_starts(certificate.names, S("host-000.example, host-001.example, ")));
    EXPECT(w->t, str_ends(certificate.names, S(".example, ...")) && certificate.names.len <= TLS_CERTIFICATE_NAMES);
    EXPECT(w->t, certificate.names.len > TLS_CERTIFICATE_NAMES - 30);
    arena_done(&arena);
    wire_shut_down(&wire);
    end_echo(&e);
    wire_close(&wire);
    tls_server_free(server);
    key_free(w->keys[--w->table.count]);
}

TEST_MAIN({ "both versions and kinds of keys", both_versions_and_kinds_of_keys },
          { "no extended master secret, no exporter", no_extended_master_secret_no_exporter },
          { "older versions and plain ciphers are refused", older_versions_and_plain_ciphers_are_refused },
          { "names choose certificates", names_choose_certificates },
          { "certificates are replaced whole", certificates_are_replaced_whole },
          { "without a signature only that handshake fails", without_a_signature_only_that_handshake_fails },
          { "tickets resume", tickets_resume },
          { "garbage is no hello", garbage_is_no_hello },
          { "a handshake may break off anywhere", a_handshake_may_break_off_anywhere },
          { "a handshake has its time", a_handshake_has_its_time },
          { "only a goodbye is an end", only_a_goodbye_is_an_end },
          { "nobody renegotiates", nobody_renegotiates },
          { "key updates are answered within bounds", key_updates_are_answered_within_bounds },
          { "what is no data has a bound", what_is_no_data_has_a_bound },
          { "what waits for a slow peer has a bound", what_waits_for_a_slow_peer_has_a_bound },
          { "our two sides talk both ways at once", our_two_sides_talk_both_ways_at_once },
          { "what was taken leaves", what_was_taken_leaves },
          { "an idle connection holds little", an_idle_connection_holds_little },
          { "keys are read", keys_are_read },
          { "nobody is asked for a passphrase", nobody_is_asked_for_a_passphrase },
          { "keys sign what is theirs", keys_sign_what_is_theirs },
          { "a server makes its first certificate", a_server_makes_its_first_certificate },
          { "a certificate's names are bounded", a_certificates_names_are_bounded })
