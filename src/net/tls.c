/*
 * tls - see tls.h. A connection: its life and its bytes.
 *
 * OpenSSL reads and writes through a BIO that only tries. What the kernel has not got yet it says (read), or it is kept
 * in `own_out` (write): so OpenSSL never waits for room, a record is never left half made, and all waiting is done here,
 * outside of OpenSSL. Who reads does not wait for room: what a read has to answer (a key update) leaves with the next
 * write, or else two peers that both only write would wait for each other.
 */
#include "net/tls_own.h"

#include "base/check.h"
#include "net/openssl.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <string.h>

enum {
    RECORD = SSL3_RT_MAX_PLAIN_LENGTH,
    OUT_FIRST = 4096,
    OUT_MAX = 128 << 10, /* a record and what reads have to answer: more is a peer that asks and does not listen */
    /* OpenSSL goes on reading while what comes is no data, and nobody else has a turn meanwhile: key updates by the hundred
     * thousand, say. A handshake with the longest chain that OpenSSL takes fits in. */
    WITHOUT_DATA_MAX = 192 << 10,
};
#define GROUPS "X25519:P-256:P-384:P-521"

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
    t->without_data += len;
    if (t->without_data > WITHOUT_DATA_MAX) {
        t->read_lost = ERR(ERR_LIMIT, "read from a TLS peer that sends no data");
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
    if (t->out_end + bytes.len > t->out_cap && t->out_begin > 0) {
        t->out_end -= t->out_begin;
        memmove(t->own_out, t->own_out + t->out_begin, t->out_end);
        t->out_begin = 0;
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

void
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
    if (result > 0)
        t->without_data = 0;
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

/* ---- a connection's life ---------------------------------------------------------------------------------------------- */

struct err
tls_begin(const struct side *side, struct wire *wire, struct tls **out)
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

struct err
tls_complete(struct tls *t, struct wire *wire, int64_t until, const struct tls **out, enum tls_result *out_result,
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
        tls_name_client(t);
    wire_cover(wire, &ops, t);
    *out = t;
    return OK;
}

/* ---- facts ------------------------------------------------------------------------------------------------------- */

struct str
tls_str_or_absent(const char *text)
{
    return text ? str_from_cstr(text) : (struct str){ 0 };
}

struct tls_facts
tls_facts(const struct tls *t)
{
    return (struct tls_facts){
        .protocol = tls_str_or_absent(SSL_get_version(t->own_ssl)),
        .cipher = tls_str_or_absent(SSL_get_cipher_name(t->own_ssl)),
        .server_name = tls_str_or_absent(SSL_get_servername(t->own_ssl, TLSEXT_NAMETYPE_host_name)),
        .client_name = t->client_name_len ? str_new(t->client_name, t->client_name_len) : (struct str){ 0 },
        .resumed = SSL_session_reused(t->own_ssl) == 1,
    };
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

/* ---- both sides -------------------------------------------------------------------------------------------------- */

void
tls_side_init(struct side *side, struct crypto *crypto, const SSL_METHOD *method)
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

void
tls_side_done(struct side *side)
{
    SSL_CTX_free(side->own_ctx);
    BIO_meth_free(side->own_bio);
}
