/*
 * Tests of what a client expects of a server (tls.c): names, dates, who vouches, TLSA records; and of what may be resumed.
 * Our own server shows certificates that are made here.
 */
#include "net/tls.h"

#include "base/check.h"
#include "base/test.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <string.h>

enum { TEXT = 4096, DAY_S = 86400 };

/* ---- certificates ------------------------------------------------------------------------------------------------ */

struct made {
    X509 *x;
    EVP_PKEY *key;
    char pem[2 * TEXT], key_pem[TEXT];
    struct str pem_text, key_text;
};

static void
put_pem(struct made *out, const struct made *issuer)
{
    BIO *pem = BIO_new(BIO_s_mem()), *key_pem = BIO_new(BIO_s_mem());

    CHECK(PEM_write_bio_X509(pem, out->x) == 1 && (!issuer || PEM_write_bio_X509(pem, issuer->x) == 1));
    CHECK(PEM_write_bio_PrivateKey(key_pem, out->key, NULL, NULL, 0, NULL, NULL) == 1);
    out->pem_text = str_new(out->pem, (size_t)BIO_read(pem, out->pem, sizeof out->pem));
    out->key_text = str_new(out->key_pem, (size_t)BIO_read(key_pem, out->key_pem, sizeof out->key_pem));
    BIO_free(pem);
    BIO_free(key_pem);
}

/* issuer NULL: signs itself. days: until it is over, from now on. */
static void
make(struct made *out, const char *common_name, const char *names, bool is_ca, int days, const struct made *issuer)
{
    X509 *x = X509_new();
    X509_NAME *name = X509_NAME_new();
    X509V3_CTX context;
    static long serial;

    out->x = x;
    out->key = EVP_EC_gen("P-256");
    CHECK(x && name && out->key && X509_set_version(x, X509_VERSION_3) == 1);
    CHECK(ASN1_INTEGER_set(X509_get_serialNumber(x), ++serial) == 1);
    CHECK(X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)common_name, -1, -1, 0) == 1);
    CHECK(X509_set_subject_name(x, name) == 1);
    CHECK(X509_set_issuer_name(x, issuer ? X509_get_subject_name(issuer->x) : name) == 1);
    CHECK(X509_gmtime_adj(X509_getm_notBefore(x), -100L * DAY_S) && X509_gmtime_adj(X509_getm_notAfter(x), (long)days * DAY_S));
    CHECK(X509_set_pubkey(x, out->key) == 1);
    X509V3_set_ctx(&context, issuer ? issuer->x : x, x, NULL, NULL, 0);
    const struct { int nid; const char *value; } extensions[] = {
        { NID_basic_constraints, is_ca ? "critical,CA:TRUE" : "CA:FALSE" },
        { NID_subject_key_identifier, "hash" },
        { NID_subject_alt_name, names },
    };
    for (size_t i = 0; i < sizeof extensions / sizeof *extensions; i++) {
        if (!extensions[i].value)
            continue;
        X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, &context, extensions[i].nid, extensions[i].value);
        CHECK(e && X509_add_ext(x, e, -1) == 1);
        X509_EXTENSION_free(e);
    }
    CHECK(X509_sign(x, issuer ? issuer->key : out->key, EVP_sha256()) > 0);
    X509_NAME_free(name);
    put_pem(out, issuer);
}

static void
drop(struct made *m)
{
    X509_free(m->x);
    EVP_PKEY_free(m->key);
}

/* The data of a TLSA record for it. */
static struct str
association(const struct made *m, int selector, int matching, unsigned char memory[2048])
{
    unsigned char der[2048], *at = der;
    int len = selector == 0 ? i2d_X509(m->x, &at) : i2d_X509_PUBKEY(X509_get_X509_PUBKEY(m->x), &at);
    unsigned digest_len;

    CHECK(len > 0 && (size_t)len <= sizeof der);
    if (matching == 0) {
        memcpy(memory, der, (size_t)len);
        return str_new((char *)memory, (size_t)len);
    }
    CHECK(EVP_Digest(der, (size_t)len, memory, &digest_len, matching == 1 ? EVP_sha256() : EVP_sha512(), NULL) == 1);
    return str_new((char *)memory, digest_len);
}

/* ---- a server's fiber -------------------------------------------------------------------------------------------- */

enum which { GOOD, EXPIRED, OTHER_NAME, PARTIAL, WILDCARD, NO_NAMES, LONELY, WHICH };

struct world {
    struct test *t;
    struct rt *rt;
    struct crypto *crypto;
    struct made ca, other_ca, certificates[WHICH];
    struct key *keys[WHICH];
    struct key_table table;
    struct key_signer signer;
    struct tls_server *server;
    struct tls_client *client;
    struct tls_trust *trust, *other_trust;
    struct scope scope;
    struct wire far;
    char asked[64]; /* the name that the client asked for */
    struct str asked_for;
};

static void
serve(void *arg)
{
    struct world *w = arg;
    char memory[TLS_REASON], byte;
    struct text reason = text_init(memory, sizeof memory);
    struct text asked = text_init(w->asked, sizeof w->asked);
    const struct tls *tls;
    size_t len;

    struct err e = tls_accept(w->server, &w->far, within(w->rt, 10 * SECOND), &tls, &reason);
    text_put(&asked, err_is(e) ? S("") : tls_facts(tls).server_name);
    w->asked_for = text_str(&asked);
    if (!err_is(e) && !err_is(wire_write(&w->far, S("x"), within(w->rt, 10 * SECOND))))
        while (!err_is(wire_read(&w->far, &byte, 1, within(w->rt, 10 * SECOND), &len)) && len > 0)
            ;
    wire_close(&w->far);
}

static struct err
meet(struct world *w, enum which which, const struct tls_expected *expected, enum tls_result *out_result,
     struct text *reason, bool *out_resumed)
{
    struct handle ends[2];
    struct stream *near, *far;
    const struct tls *tls;
    size_t bad, len;
    char byte;

    CHECK(!err_is(tls_server_set_certificates(w->server, &w->certificates[which].pem_text, 1, &bad)));
    CHECK(!err_is(stream_pair(w->rt, ends)));
    CHECK(!err_is(stream_from_handle(w->rt, ends[0], &near)) && !err_is(stream_from_handle(w->rt, ends[1], &far)));
    struct wire wire = wire_in_clear(near);
    w->far = wire_in_clear(far);
    scope_init(&w->scope, w->rt);
    scope_start(&w->scope, "server", serve, w);
    reason->len = 0;
    struct err e = tls_connect(w->client, &wire, expected, within(w->rt, 10 * SECOND), &tls, out_result, reason);
    *out_resumed = !err_is(e) && tls_facts(tls).resumed;
    if (!err_is(e)) /* a ticket stands before what the server says first */
        EXPECT(w->t, !err_is(wire_read(&wire, &byte, 1, within(w->rt, 10 * SECOND), &len)) && len == 1);
    wire_close(&wire);
    EXPECT(w->t, !err_is(scope_wait(&w->scope, within(w->rt, 100 * SECOND))));
    scope_end(&w->scope);
    return e;
}

/* ---- what is expected -------------------------------------------------------------------------------------------- */

static void
certificates_are_checked(struct world *w)
{
    static const struct {
        const char *why;
        enum which shown;
        const char *name;
        bool other_trust, testing;
        enum tls_result result;
        bool fine;
    } cases[] = {
        { "all is well", GOOD, "mx.example", false, false, TLS_RESULT_OK, true },
        { "case does not matter", GOOD, "MX.Example", false, false, TLS_RESULT_OK, true },
        { "another name", GOOD, "mx2.example", false, false, TLS_RESULT_HOST_MISMATCH, false },
        { "another name, while testing", GOOD, "mx2.example", false, true, TLS_RESULT_HOST_MISMATCH, true },
        { "the common name does not count", OTHER_NAME, "mx.example", false, false, TLS_RESULT_HOST_MISMATCH, false },
        { "nor where there is nothing else", NO_NAMES, "mx.example", false, false, TLS_RESULT_HOST_MISMATCH, false },
        { "expired", EXPIRED, "mx.example", false, false, TLS_RESULT_EXPIRED, false },
        { "expired, while testing", EXPIRED, "mx.example", false, true, TLS_RESULT_EXPIRED, true },
        { "nobody vouches", LONELY, "mx.example", false, false, TLS_RESULT_NOT_TRUSTED, false },
        { "somebody else vouches", GOOD, "mx.example", true, false, TLS_RESULT_NOT_TRUSTED, false },
        { "a wildcard", WILDCARD, "a.mx.example", false, false, TLS_RESULT_OK, true },
        { "a wildcard is one label", WILDCARD, "b.a.mx.example", false, false, TLS_RESULT_HOST_MISMATCH, false },
        { "a part of a label", PARTIAL, "mx.example", false, false, TLS_RESULT_HOST_MISMATCH, false },
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct tls_policy policy = {
            .level = TLS_VERIFY, .testing = cases[i].testing, .names = { str_from_cstr(cases[i].name) }, .name_count = 1,
            .trust = cases[i].other_trust ? w->other_trust : w->trust,
        };
        struct tls_expected expected = { .server_name = S("mx.example"), .policy = &policy };
        enum tls_result result;
        char memory[TLS_REASON];
        struct text reason = text_init(memory, sizeof memory);
        bool resumed;
        test_case(w->t, cases[i].why);
        EXPECT(w->t, err_is(meet(w, cases[i].shown, &expected, &result, &reason, &resumed)) == !cases[i].fine);
        EXPECT_STR(w->t, tls_result_name(result), tls_result_name(cases[i].result));
        EXPECT(w->t, str_starts(text_str(&reason), S("certificate: ")) == (cases[i].result != TLS_RESULT_OK));
    }
}

/* RFC 7672 sections 3.1 and 3.2. */
static void
records_are_matched(struct world *w)
{
    enum of { LEAF, CA, NOBODY };
    static const struct {
        const char *why;
        enum which shown;
        int usage, selector, matching;
        enum of of;
        const char *name, *second;
        enum tls_result result;
    } cases[] = {
        { "3 1 1", GOOD, 3, 1, 1, LEAF, "mx.example", NULL, TLS_RESULT_OK },
        { "3 0 1", GOOD, 3, 0, 1, LEAF, "mx.example", NULL, TLS_RESULT_OK },
        { "3 1 2", GOOD, 3, 1, 2, LEAF, "mx.example", NULL, TLS_RESULT_OK },
        { "3 1 0", GOOD, 3, 1, 0, LEAF, "mx.example", NULL, TLS_RESULT_OK },
        { "3 0 0", GOOD, 3, 0, 0, LEAF, "mx.example", NULL, TLS_RESULT_OK },
        { "3: the name does not matter", GOOD, 3, 1, 1, LEAF, "elsewhere.example", NULL, TLS_RESULT_OK },
        { "3: the date does not matter", EXPIRED, 3, 1, 1, LEAF, "mx.example", NULL, TLS_RESULT_OK },
        { "3: nobody need vouch", LONELY, 3, 1, 1, LEAF, "mx.example", NULL, TLS_RESULT_OK },
        { "3: another's", GOOD, 3, 1, 1, NOBODY, "mx.example", NULL, TLS_RESULT_VALIDATION_FAILURE },
        { "3: it is the issuer's", GOOD, 3, 1, 1, CA, "mx.example", NULL, TLS_RESULT_VALIDATION_FAILURE },
        { "2 0 1", GOOD, 2, 0, 1, CA, "mx.example", NULL, TLS_RESULT_OK },
        { "2 1 1", GOOD, 2, 1, 1, CA, "mx.example", NULL, TLS_RESULT_OK },
        { "2: the name matters", GOOD, 2, 0, 1, CA, "elsewhere.example", NULL, TLS_RESULT_HOST_MISMATCH },
        { "2: the domain's name will do", GOOD, 2, 0, 1, CA, "elsewhere.example", "mx.example", TLS_RESULT_OK },
        { "2: a common name will do", NO_NAMES, 2, 0, 1, CA, "mx.example", NULL, TLS_RESULT_OK },
        { "2: the date matters", EXPIRED, 2, 0, 1, CA, "mx.example", NULL, TLS_RESULT_EXPIRED },
        { "2: another's", GOOD, 2, 0, 1, NOBODY, "mx.example", NULL, TLS_RESULT_VALIDATION_FAILURE },
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        unsigned char memory[2048];
        const struct made *of = cases[i].of == LEAF ? &w->certificates[cases[i].shown] : cases[i].of == CA ? &w->ca : &w->other_ca;
        struct tls_record records[] = {
            { 3, 1, 1, STR("too short to be a hash") }, /* of no use, and no harm */
            { (uint8_t)cases[i].usage, (uint8_t)cases[i].selector, (uint8_t)cases[i].matching,
              association(of, cases[i].selector, cases[i].matching, memory) },
        };
        struct tls_policy policy = {
            .level = TLS_DANE, .source = TLS_BY_DANE, .records = records, .record_count = 2,
            .names = { str_from_cstr(cases[i].name), cases[i].second ? str_from_cstr(cases[i].second) : S("") },
            .name_count = cases[i].second ? 2 : 1,
        };
        struct tls_expected expected = { .server_name = S("mx.example"), .policy = &policy };
        enum tls_result result;
        char words[TLS_REASON];
        struct text reason = text_init(words, sizeof words);
        bool resumed;
        test_case(w->t, cases[i].why);
        struct err e = meet(w, cases[i].shown, &expected, &result, &reason, &resumed);
        EXPECT_STR(w->t, tls_result_name(result), tls_result_name(cases[i].result));
        EXPECT(w->t, err_is(e) == (cases[i].result != TLS_RESULT_OK));
        policy.record_count = 1; /* only what is of no use: RFC 7672 section 2.2 takes any certificate then */
        EXPECT(w->t, !err_is(meet(w, cases[i].shown, &expected, &result, &reason, &resumed)));
        EXPECT_STR(w->t, tls_result_name(result), S("tlsa-invalid"));
        EXPECT_STR(w->t, w->asked_for, policy.names[0]); /* the name that the records are for */
    }
}

/* Only under the same name, each ticket once, and never what was not as it should be. */
static void
sessions_are_resumed(struct world *w)
{
    struct tls_ticket_key ticket = { .name = "name", .cipher = "cipher", .mac = "mac" };
    struct tls_policy good = { .level = TLS_VERIFY, .names = { S("mx.example") }, .name_count = 1, .trust = w->trust };
    struct tls_policy testing = { .level = TLS_VERIFY, .testing = true, .names = { S("mx2.example") }, .name_count = 1,
                                  .trust = w->trust };
    struct tls_policy *any = NULL;
    const struct {
        const char *why;
        struct str resume;
        struct tls_policy *policy;
        bool resumed;
    } cases[] = {
        { "the first", S("a verified"), &good, false },
        { "again", S("a verified"), &good, true },
        { "and again, with the ticket of that time", S("a verified"), &good, true },
        { "by another name", S("a"), any, false },
        { "and again", S("a"), any, true },
        { "not asked for", S(""), any, false },
        { "while testing", S("a testing"), &testing, false },
        { "what was wrong is looked at again", S("a testing"), &testing, false },
    };

    tls_server_set_tickets(w->server, &ticket, 1);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct tls_expected expected = { .server_name = S("mx.example"), .policy = cases[i].policy, .resume = cases[i].resume };
        enum tls_result result;
        char words[TLS_REASON];
        struct text reason = text_init(words, sizeof words);
        bool resumed;
        test_case(w->t, cases[i].why);
        EXPECT(w->t, !err_is(meet(w, GOOD, &expected, &result, &reason, &resumed)));
        EXPECT(w->t, resumed == cases[i].resumed);
        EXPECT(w->t, (result == TLS_RESULT_OK) == (cases[i].policy != &testing));
    }
    for (int i = 0; i < TLS_SESSIONS_KEPT + 20; i++) { /* bounded: the first are gone, the last is there */
        char name[20], words[TLS_REASON];
        struct text text = text_init(name, sizeof name), reason = text_init(words, sizeof words);
        struct tls_expected expected = { .server_name = S("mx.example"), .resume = S("") };
        enum tls_result result;
        bool resumed;
        text_putf(&text, "%d", i);
        expected.resume = text_str(&text);
        EXPECT(w->t, !err_is(meet(w, GOOD, &expected, &result, &reason, &resumed)) && !resumed);
        if (i != TLS_SESSIONS_KEPT + 19)
            continue;
        EXPECT(w->t, !err_is(meet(w, GOOD, &expected, &result, &reason, &resumed)) && resumed);
        expected.resume = S("a verified");
        EXPECT(w->t, !err_is(meet(w, GOOD, &expected, &result, &reason, &resumed)) && !resumed);
    }
}

static void
run_all(struct rt *rt, void *arg)
{
    struct world w = { .t = arg, .rt = rt };
    struct made *c = w.certificates;
    size_t count;

    CHECK(!err_is(crypto_open(rt, &w.crypto)));
    make(&w.ca, "An authority", NULL, true, 100, NULL);
    make(&w.other_ca, "Another authority", NULL, true, 100, NULL);
    make(&c[GOOD], "mx.example", "DNS:mx.example", false, 10, &w.ca);
    make(&c[EXPIRED], "mx.example", "DNS:mx.example", false, -1, &w.ca);
    make(&c[OTHER_NAME], "mx.example", "DNS:other.example", false, 10, &w.ca);
    make(&c[PARTIAL], "mx.example", "DNS:m*.example", false, 10, &w.ca);
    make(&c[WILDCARD], "mx.example", "DNS:*.mx.example", false, 10, &w.ca);
    make(&c[NO_NAMES], "mx.example", NULL, false, 10, &w.ca);
    make(&c[LONELY], "mx.example", "DNS:mx.example", false, 10, NULL);
    for (int i = 0; i < WHICH; i++)
        CHECK(!err_is(key_parse(w.crypto, c[i].key_text, &w.keys[i])));
    w.table = (struct key_table){ w.keys, WHICH };
    w.signer = (struct key_signer){ key_table_sign, &w.table };
    w.server = tls_server_new(w.crypto, S("mx"), &w.signer);
    w.client = tls_client_new(w.crypto);
    char both[2 * sizeof w.ca.pem];
    struct text text = text_init(both, sizeof both);
    text_put(&text, S("what others write between\n"));
    text_put(&text, w.other_ca.pem_text);
    w.other_trust = tls_trust_new(w.crypto, text_str(&text), &count);
    EXPECT_INT(w.t, count, 1);
    text_put(&text, w.ca.pem_text);
    w.trust = tls_trust_new(w.crypto, text_str(&text), &count);
    EXPECT_INT(w.t, count, 2);
    certificates_are_checked(&w);
    records_are_matched(&w);
    sessions_are_resumed(&w);
    tls_client_free(w.client);
    tls_server_free(w.server);
    tls_trust_free(w.trust);
    tls_trust_free(w.other_trust);
    for (int i = 0; i < WHICH; i++) {
        key_free(w.keys[i]);
        drop(&c[i]);
    }
    drop(&w.ca);
    drop(&w.other_ca);
    crypto_close(w.crypto);
}

static void
what_a_client_expects(struct test *t)
{
    EXPECT(t, !err_is(rt_run_leaping(run_all, t)));
}

TEST_MAIN({ "what a client expects", what_a_client_expects })
