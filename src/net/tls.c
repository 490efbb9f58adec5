/*
 * tls - see tls.h.
 *
 * OpenSSL reads and writes through a BIO that only tries. What the kernel has not got yet it says (read), or it is kept
 * in `own_out` (write): so OpenSSL never waits for room, a record is never left half made, and all waiting is done here,
 * outside of OpenSSL. Who reads does not wait for room: what a read has to answer (a key update) leaves with the next
 * write, or else two peers that both only write would wait for each other.
 */
#include "net/tls.h"

#include "base/check.h"
#include "base/list.h"
#include "net/openssl.h"
#include "net/remote_key.h"

#include <limits.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <limits.h>
#include <string.h>

enum {
    RECORD = SSL3_RT_MAX_PLAIN_LENGTH,
    OUT_FIRST = 4096,
    OUT_MAX = 128 << 10, /* a record and what reads have to answer: more is a peer that asks and does not listen */
    CHAIN_MAX = 16,      /* certificates in one PEM text */
    KINDS = 2,           /* of keys: EC, RSA */
    SESSIONS_NAME = 32,
};
/* What speaks TLS 1.2 and mail: some of it old. Static RSA is left out (see tls.h), finite fields cost us too much. */
#define SERVER_CIPHERS "ECDHE+AESGCM:ECDHE+CHACHA20:ECDHE+AES"
/* Of 1.3. Its key schedule is some thirty hashes: SHA-256 is in the processor, SHA-384 is not. */
#define SERVER_SUITES "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
/* Whatever the server can: less is sent in clear. */
#define CLIENT_CIPHERS "HIGH:!aNULL:!eNULL:!PSK:!SRP:@SECLEVEL=0"
#define GROUPS "X25519:P-256:P-384:P-521"
#define TICKET_SECONDS (12 * 3600L)

struct side {
    struct crypto *crypto;
    struct rt *rt;
    SSL_CTX *own_ctx;
    BIO_METHOD *own_bio;
};

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

struct tls {
    struct rt *rt;
    struct stream *stream;
    struct crypto *crypto;
    struct tls_server *server; /* NULL: we are the client */
    struct tls_client *client;
    SSL *own_ssl;
    char client_name[TLS_CLIENT_NAME_MAX];
    size_t client_name_len;    /* 0: none */
    char *own_resume;          /* a client's: the name under which sessions are kept */
    size_t resume_len;
    bool no_records;           /* of those that were expected none could be used */
    bool testing;              /* whatever is wrong with the certificate, the handshake goes on */
    int wrong;                 /* X509_V_ERR_...: what was wrong first, or X509_V_OK */
    char *own_out;             /* encrypted, and not with the kernel */
    size_t out_begin, out_end, out_cap;
    struct err read_lost;      /* the stream's; reads say so when all that came before is read */
    struct err write_lost;
    struct err dead;           /* nothing can be read or written any more */
    bool drained;              /* the last read of the stream took all that was there */
    bool ended;                /* close_notify came */
    bool shut_down;
};

/* ---- beneath: the stream as a BIO -------------------------------------------------------------------------------- */

static int
bio_read(BIO *bio, char *memory, size_t cap, size_t *out_len)
{
    struct tls *t = BIO_get_data(bio);
    size_t len = 0;

    BIO_clear_retry_flags(bio);
    *out_len = 0;
    t->drained = false;
    if (err_is(t->read_lost))
        return 0;
    struct err e = stream_read_now(t->stream, memory, cap, &len);
    if (err_is(e)) {
        t->read_lost = e;
        return 0;
    }
    if (len == 0)
        BIO_set_retry_read(bio);
    t->drained = len < cap;
    *out_len = len;
    return len > 0;
}

static void
keep_out(struct tls *t, struct str bytes)
{
    struct mem *mem = rt_mem(t->rt);

    if (t->out_begin == t->out_end)
        t->out_begin = t->out_end = 0;
    if (t->out_end - t->out_begin + bytes.len > OUT_MAX) {
        t->write_lost = ERR(ERR_LIMIT, "answer a TLS peer that does not read");
        return;
    }
    if (t->out_end + bytes.len > t->out_cap) {
        size_t cap = t->out_cap ? t->out_cap : OUT_FIRST;
        while (cap < t->out_end + bytes.len)
            cap *= 2;
        t->own_out = mem_resize(mem, t->own_out, t->out_cap, cap);
        t->out_cap = cap;
    }
    memcpy(t->own_out + t->out_end, bytes.ptr, bytes.len);
    t->out_end += bytes.len;
}

/* Always takes all of it. Where the stream is broken it goes nowhere: reads may still give what the peer had sent. */
static int
bio_write(BIO *bio, const char *memory, size_t len, size_t *out_len)
{
    struct tls *t = BIO_get_data(bio);
    size_t sent = 0;

    BIO_clear_retry_flags(bio);
    *out_len = len;
    if (!err_is(t->write_lost) && t->out_begin == t->out_end)
        t->write_lost = stream_write_now(t->stream, str_new(memory, len), &sent);
    if (!err_is(t->write_lost) && sent < len)
        keep_out(t, str_new(memory + sent, len - sent));
    return 1;
}

static long
bio_control(BIO *bio, int command, long number, void *ptr)
{
    struct tls *t = BIO_get_data(bio);

    (void)number;
    (void)ptr;
    if (command == BIO_CTRL_EOF)
        return err_is(t->read_lost);
    return command == BIO_CTRL_FLUSH; /* what is kept leaves at the next occasion */
}

static int
bio_create(BIO *bio)
{
    BIO_set_init(bio, 1);
    return 1;
}

static BIO_METHOD *
bio_method(void)
{
    BIO_METHOD *m = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "stream");

    CHECK(m);
    BIO_meth_set_read_ex(m, bio_read);
    BIO_meth_set_write_ex(m, bio_write);
    BIO_meth_set_ctrl(m, bio_control);
    BIO_meth_set_create(m, bio_create);
    return m;
}

/* ---- sending what is kept ---------------------------------------------------------------------------------------- */

static void
out_rest(struct tls *t)
{
    if (t->out_begin < t->out_end && !err_is(t->write_lost))
        return;
    mem_free(rt_mem(t->rt), t->own_out, t->out_cap);
    t->own_out = NULL;
    t->out_cap = t->out_begin = t->out_end = 0;
}

/* What goes without waiting. */
static void
push_out(struct tls *t)
{
    size_t sent = 1;

    while (t->out_begin < t->out_end && sent > 0 && !err_is(t->write_lost)) {
        t->write_lost =
            stream_write_now(t->stream, str_new(t->own_out + t->out_begin, t->out_end - t->out_begin), &sent);
        if (!err_is(t->write_lost))
            t->out_begin += sent;
    }
    out_rest(t);
}

static struct err
flush_out(struct tls *t, int64_t until)
{
    for (;;) {
        push_out(t);
        if (err_is(t->write_lost))
            return t->write_lost;
        if (t->out_begin == t->out_end)
            return OK;
        TRY(stream_wait_writable(t->stream, until)); /* closed meanwhile: t is no more */
    }
}

static bool
tls_has_unsent(const void *cover)
{
    const struct tls *t = cover;

    return t->out_begin < t->out_end;
}

/* ---- what every call of OpenSSL ends with ------------------------------------------------------------------------ */

/* ERR_clear_error() walks through its queue also where nothing is in it. */
static void
forget_errors(void)
{
    if (ERR_peek_error() != 0)
        ERR_clear_error();
}

enum step { DONE, WAIT, OVER }; /* WAIT: for the peer. OVER: t->ended, or t->dead */

/* After a call that returned `result`. What it wrote is on its way. */
static enum step
step(struct tls *t, int result, struct text *reason)
{
    int error = result > 0 ? SSL_ERROR_NONE : SSL_get_error(t->own_ssl, result);

    push_out(t);
    switch (error) {
    case SSL_ERROR_NONE:
        return DONE;
    case SSL_ERROR_WANT_READ:
        return WAIT;
    case SSL_ERROR_ZERO_RETURN:
        t->ended = true;
        return OVER;
    default: /* never WANT_WRITE: our BIO takes all */
        if (!err_is(t->read_lost))
            t->dead = ERR(ERR_PROTOCOL, "speak TLS");
        else if (t->read_lost.kind == ERR_CLOSED)
            t->dead = ERR(ERR_RESET, "read, where TLS was cut off");
        else
            t->dead = t->read_lost;
        if (reason && !err_is(t->read_lost))
            openssl_reason(reason);
        ERR_clear_error();
        return OVER;
    }
}

/* ---- the handshake ----------------------------------------------------------------------------------------------- */

static struct err
shake_hands(struct tls *t, int64_t until, struct text *reason)
{
    for (;;) {
        forget_errors();
        enum step now = step(t, SSL_do_handshake(t->own_ssl), reason);
        if (now == OVER)
            return err_is(t->dead) ? t->dead : ERR(ERR_PROTOCOL, "speak TLS");
        TRY(flush_out(t, until));
        if (now == DONE) {
            t->drained = false; /* from 3.2 on SSL_has_pending() does not see what came in one read with its Finished */
            return OK;
        }
        TRY(stream_wait_readable(t->stream, until));
    }
}

static void
tls_free(void *cover)
{
    struct tls *t = cover;

    mem_free(rt_mem(t->rt), t->own_out, t->out_cap);
    mem_free(rt_mem(t->rt), t->own_resume, t->resume_len);
    /* Or OpenSSL would forbid to resume a session whose end it did not see: TLS 1.0 wanted that, RFC 4346 not any more. */
    if (t->client && !err_is(t->dead))
        SSL_set_shutdown(t->own_ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    SSL_free(t->own_ssl);
    mem_free(rt_mem(t->rt), t, sizeof *t);
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

/* An attempt that is known to give nothing would only make OpenSSL take its buffers and give them back. */
static struct err
wait_if_drained(struct tls *t, int64_t until)
{
    if (!t->drained || err_is(t->dead) || t->ended || SSL_has_pending(t->own_ssl))
        return OK;
    push_out(t);
    return stream_wait_readable(t->stream, until);
}

/* DONE with at least one byte, or OVER, or WAIT. */
static enum step
try_read(struct tls *t, void *memory, size_t cap, bool peek, size_t *out_len)
{
    if (err_is(t->dead) || t->ended)
        return OVER;
    forget_errors();
    int result = peek ? SSL_peek_ex(t->own_ssl, memory, cap, out_len) : SSL_read_ex(t->own_ssl, memory, cap, out_len);
    return step(t, result, NULL);
}

static struct err
tls_read(void *cover, void *memory, size_t cap, int64_t until, size_t *out_len)
{
    struct tls *t = cover;
    enum step now;

    CHECK(cap > 0);
    TRY(fiber_turn(t->rt));
    TRY(wait_if_drained(t, until));
    while ((now = try_read(t, memory, cap, false, out_len)) == WAIT)
        TRY(stream_wait_readable(t->stream, until));
    if (now == OVER && !t->ended)
        return t->dead;
    if (now == OVER)
        *out_len = 0;
    return OK;
}

static struct err
tls_read_now(void *cover, void *memory, size_t cap, size_t *out_len)
{
    struct tls *t = cover;

    CHECK(cap > 0);
    switch (try_read(t, memory, cap, false, out_len)) {
    case DONE:
        return OK;
    case WAIT:
        *out_len = 0;
        return OK;
    default:
        return t->ended ? ERR(ERR_CLOSED, "read") : t->dead;
    }
}

static struct err
tls_wait_readable(void *cover, int64_t until)
{
    struct tls *t = cover;
    size_t len;
    char byte;

    TRY(fiber_turn(t->rt));
    TRY(wait_if_drained(t, until));
    while (try_read(t, &byte, 1, true, &len) == WAIT)
        TRY(stream_wait_readable(t->stream, until));
    return OK;
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

static struct err
encrypt(struct tls *t, struct str bytes, size_t *out_len)
{
    if (err_is(t->dead))
        return t->dead;
    if (err_is(t->write_lost))
        return t->write_lost;
    CHECK(!t->shut_down);
    forget_errors();
    if (step(t, SSL_write_ex(t->own_ssl, bytes.ptr, bytes.len < RECORD ? bytes.len : RECORD, out_len), NULL) == DONE)
        return OK;
    if (!err_is(t->dead)) /* nothing of ours makes a write wait for the peer */
        t->dead = ERR(ERR_PROTOCOL, "write over TLS");
    return t->dead;
}

static struct err
write_all(struct tls *t, struct str bytes, int64_t until)
{
    while (bytes.len > 0) {
        size_t len;
        TRY(flush_out(t, until));
        TRY(encrypt(t, bytes, &len));
        bytes = str_from(bytes, len);
    }
    return OK;
}

/* Small parts share records: each costs the peer as much as a large one. */
static struct err
write_gathered(struct tls *t, const struct str *parts, size_t count, int64_t until)
{
    struct mem *mem = rt_mem(t->rt);
    char *record = mem_buffer(mem, RECORD);
    struct text gathered = text_init(record, RECORD);
    struct err e = OK;

    for (size_t i = 0; i < count && !err_is(e); i++)
        for (struct str rest = parts[i]; rest.len > 0 && !err_is(e);) {
            struct str some = str_slice(rest, 0, gathered.cap - gathered.len);
            rest = str_from(rest, some.len);
            text_put(&gathered, some);
            if (gathered.len < gathered.cap)
                continue;
            e = write_all(t, text_str(&gathered), until);
            gathered.len = 0;
        }
    if (!err_is(e))
        e = write_all(t, text_str(&gathered), until);
    mem_free(mem, record, RECORD);
    return e;
}

static struct err
tls_write(void *cover, const struct str *parts, size_t count, int64_t until)
{
    struct tls *t = cover;

    TRY(fiber_turn(t->rt));
    TRY(count == 1 ? write_all(t, *parts, until) : write_gathered(t, parts, count, until));
    return flush_out(t, until);
}

static struct err
tls_write_now(void *cover, struct str bytes, size_t *out_len)
{
    struct tls *t = cover;

    *out_len = 0;
    push_out(t);
    return bytes.len == 0 || tls_has_unsent(t) ? t->write_lost : encrypt(t, bytes, out_len);
}

static void
tls_shut_down(void *cover)
{
    struct tls *t = cover;

    if (t->shut_down || err_is(t->dead))
        return;
    t->shut_down = true;
    ERR_clear_error();
    (void)SSL_shutdown(t->own_ssl);
    push_out(t);
    ERR_clear_error();
}

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

static void
name_client(struct tls *t)
{
    X509 *x = SSL_get0_peer_certificate(t->own_ssl);

    if (x && SSL_get_verify_result(t->own_ssl) == X509_V_OK && !take_mail_address(t, x)) {
        const X509_NAME *subject = X509_get_subject_name(x);
        int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
        (void)(at >= 0 && take_name(t, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at))));
    }
    ERR_clear_error();
}

/* ---- a connection's life ---------------------------------------------------------------------------------------------- */

static struct err
begin(const struct side *side, struct wire *wire, struct tls **out)
{
    struct rt *rt = side->rt;

    TRY(fiber_turn(rt));
    SSL *ssl = SSL_new(side->own_ctx);
    BIO *bio = BIO_new(side->own_bio);
    if (!ssl || !bio) {
        SSL_free(ssl);
        BIO_free(bio);
        return ERR(ERR_NO_MEMORY, "begin TLS");
    }
    struct tls *t = mem_new(rt_mem(rt), struct tls);
    *t = (struct tls){ .rt = rt, .stream = wire->stream, .crypto = side->crypto, .own_ssl = ssl };
    BIO_set_data(bio, t);
    SSL_set_bio(ssl, bio, bio);
    SSL_set_app_data(ssl, t);
    *out = t;
    return OK;
}

static enum tls_result
result_of(int wrong)
{
    switch (wrong) {
    case X509_V_OK:
        return TLS_RESULT_OK;
    case X509_V_ERR_HOSTNAME_MISMATCH:
        return TLS_RESULT_HOST_MISMATCH;
    case X509_V_ERR_CERT_HAS_EXPIRED:
        return TLS_RESULT_EXPIRED;
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    case X509_V_ERR_CERT_UNTRUSTED:
    case X509_V_ERR_CERT_REJECTED:
    case X509_V_ERR_CERT_CHAIN_TOO_LONG:
        return TLS_RESULT_NOT_TRUSTED;
    default:
        return TLS_RESULT_VALIDATION_FAILURE;
    }
}

/* Takes t: it is the wire's, or no more. */
static struct err
complete(struct tls *t, struct wire *wire, int64_t until, const struct tls **out, enum tls_result *out_result,
         struct text *reason)
{
    static const struct wire_cover ops = {
        .read = tls_read, .read_now = tls_read_now, .wait_readable = tls_wait_readable, .write = tls_write,
        .write_now = tls_write_now, .has_unsent = tls_has_unsent, .shut_down = tls_shut_down, .free = tls_free,
    };
    struct err e = shake_hands(t, until, reason);

    if (t->wrong != X509_V_OK) {
        *out_result = result_of(t->wrong);
        reason->len = 0;
        text_put(reason, S("certificate: "));
        text_put(reason, str_from_cstr(X509_verify_cert_error_string(t->wrong)));
    } else if (err_is(e)) {
        *out_result = TLS_RESULT_VALIDATION_FAILURE;
    } else if (t->no_records) {
        *out_result = TLS_RESULT_TLSA_INVALID;
        text_put(reason, S("none of the TLSA records can be used"));
    }
    if (err_is(e)) {
        tls_free(t);
        return e;
    }
    if (t->server)
        name_client(t);
    wire_cover(wire, &ops, t);
    *out = t;
    return OK;
}

struct err
tls_accept(struct tls_server *server, struct wire *wire, int64_t until, const struct tls **out, struct text *reason)
{
    enum tls_result result;
    struct tls *t;

    TRY(begin(&server->side, wire, &t));
    t->server = server;
    if (server->ticket_count == 0) {
        SSL_set_options(t->own_ssl, SSL_OP_NO_TICKET);
        SSL_set_num_tickets(t->own_ssl, 0);
    }
    SSL_set_accept_state(t->own_ssl);
    return complete(t, wire, until, out, &result, reason);
}

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
    TRY(begin(&client->side, wire, &t));
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
    return complete(t, wire, until, out, out_result, reason);
}

/* ---- facts ------------------------------------------------------------------------------------------------------- */

static struct str
str_or_absent(const char *text)
{
    return text ? str_from_cstr(text) : (struct str){ 0 };
}

struct tls_facts
tls_facts(const struct tls *t)
{
    return (struct tls_facts){
        .protocol = str_or_absent(SSL_get_version(t->own_ssl)),
        .cipher = str_or_absent(SSL_get_cipher_name(t->own_ssl)),
        .server_name = str_or_absent(SSL_get_servername(t->own_ssl, TLSEXT_NAMETYPE_host_name)),
        .client_name = t->client_name_len ? str_new(t->client_name, t->client_name_len) : (struct str){ 0 },
        .resumed = SSL_session_reused(t->own_ssl) == 1,
    };
}

static struct str
common_name(const X509_NAME *name, struct arena *arena)
{
    int at = X509_NAME_get_index_by_NID(name, NID_commonName, -1);
    if (at < 0)
        at = X509_NAME_get_index_by_NID(name, NID_organizationName, -1);
    unsigned char *utf8 = NULL;
    int len = at < 0 ? -1 : ASN1_STRING_to_UTF8(&utf8, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(name, at)));
    struct str text = len > 0 ? arena_keep(arena, str_new((const char *)utf8, (size_t)len)) : S("");

    OPENSSL_free(utf8);
    return text;
}

/* Its DNS names; without any its subject, which no client looks at. */
static struct str
names_of(const X509 *x, struct arena *arena)
{
    GENERAL_NAMES *names = X509_get_ext_d2i(x, NID_subject_alt_name, NULL, NULL);
    struct str all = S("");

    for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
        int type;
        const ASN1_IA5STRING *dns = GENERAL_NAME_get0_value(sk_GENERAL_NAME_value(names, i), &type);
        if (type == GEN_DNS)
            all = arena_printf(arena, "%.*s%s%.*s", STR_ARG(all), all.len ? ", " : "", ASN1_STRING_length(dns),
                               (const char *)ASN1_STRING_get0_data(dns));
    }
    GENERAL_NAMES_free(names);
    return all.len > 0 ? all : common_name(X509_get_subject_name(x), arena);
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

bool
tls_exporter(const struct tls *t, unsigned char out[TLS_EXPORTER])
{
    static const char label[] = "EXPORTER-Channel-Binding";

    if (SSL_version(t->own_ssl) < TLS1_3_VERSION && SSL_get_extms_support(t->own_ssl) != 1)
        return false;
    bool fine = SSL_export_keying_material(t->own_ssl, out, TLS_EXPORTER, label, sizeof label - 1,
                                           (const unsigned char *)"", 0, 1) == 1;
    ERR_clear_error();
    return fine;
}

bool
tls_server_end_point(const struct tls *t, unsigned char out[TLS_END_POINT_MAX], size_t *out_len)
{
    /* Which of our certificates an earlier session had shown the ticket does not say. */
    X509 *x = !t->server ? SSL_get0_peer_certificate(t->own_ssl)
                         : SSL_session_reused(t->own_ssl) ? NULL : SSL_get_certificate(t->own_ssl);
    int hash = NID_undef;
    unsigned len = 0;

    if (!x || X509_get_signature_info(x, &hash, NULL, NULL, NULL) != 1)
        return false;
    if (hash == NID_md5 || hash == NID_sha1)
        hash = NID_sha256;
    EVP_MD *md = hash == NID_undef ? NULL : EVP_MD_fetch(crypto_library(t->crypto), OBJ_nid2sn(hash), NULL);
    bool fine = md && EVP_MD_get_size(md) <= TLS_END_POINT_MAX && X509_digest(x, md, out, &len) == 1;
    EVP_MD_free(md);
    ERR_clear_error();
    *out_len = len;
    return fine;
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
    while (c.own_leaf && sk_X509_num(c.own_chain) < CHAIN_MAX && (next = openssl_read_certificate(s->side.crypto, bio)) != NULL)
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
    struct str name = str_or_absent(SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name));

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

    CHECK(store); /* as in side_init() */
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

/* ---- both sides -------------------------------------------------------------------------------------------------- */

static void
side_init(struct side *side, struct crypto *crypto, const SSL_METHOD *method)
{
    SSL_CTX *c = SSL_CTX_new_ex(crypto_library(crypto), NULL, method);

    CHECK(c); /* or there is no memory for a role's first steps */
    *side = (struct side){ .crypto = crypto, .rt = crypto_rt(crypto), .own_ctx = c, .own_bio = bio_method() };
    CHECK(SSL_CTX_set_min_proto_version(c, TLS1_2_VERSION) == 1);
    CHECK(SSL_CTX_set1_groups_list(c, GROUPS) == 1);
    SSL_CTX_set_options(c, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION);
    /* Idle connections hold no buffers; and one read of the stream may give more than a record. */
    SSL_CTX_set_mode(c, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_read_ahead(c, 1);
    SSL_CTX_set_session_cache_mode(c, SSL_SESS_CACHE_OFF);
}

static void
side_done(struct side *side)
{
    SSL_CTX_free(side->own_ctx);
    BIO_meth_free(side->own_bio);
}

struct tls_server *
tls_server_new(struct crypto *crypto, struct str pool, const struct key_signer *signer)
{
    struct tls_server *s = mem_new(rt_mem(crypto_rt(crypto)), struct tls_server);

    side_init(&s->side, crypto, TLS_server_method());
    s->signer = signer;
    s->own_ticket_cipher = EVP_CIPHER_fetch(crypto_library(crypto), "AES-256-CBC", NULL);
    CHECK(s->own_ticket_cipher); /* as in side_init() */
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
    side_done(&s->side);
    mem_free(mem, s, sizeof *s);
}

struct tls_trust *
tls_trust_new(struct crypto *crypto, struct str pem, size_t *out_count)
{
    struct tls_trust *trust = mem_new(rt_mem(crypto_rt(crypto)), struct tls_trust);
    BIO *bio = pem.len <= INT_MAX ? BIO_new_mem_buf(pem.ptr, (int)pem.len) : NULL;
    X509 *x;

    *trust = (struct tls_trust){ .rt = crypto_rt(crypto), .own_store = X509_STORE_new() };
    CHECK(trust->own_store); /* as in side_init() */
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

    side_init(&c->side, crypto, TLS_client_method());
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
    side_done(&c->side);
    mem_free(rt_mem(c->side.rt), c, sizeof *c);
}
