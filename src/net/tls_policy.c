/* tls_policy - see tls_policy.h. */
#include "net/tls_policy.h"

#include "base/check.h"
#include "base/map.h"

struct str
tls_level_name(enum tls_level level)
{
    static const struct str names[] = { STR("never"), STR("may"), STR("encrypt"), STR("verify"), STR("dane"), STR("refused") };

    CHECK(level < sizeof names / sizeof *names);
    return names[level];
}

struct str
tls_source_name(enum tls_source source)
{
    static const struct str names[] = { STR("default"), STR("rule"), STR("dane"), STR("sts"),
                                        STR("message") };

    CHECK(source < sizeof names / sizeof *names);
    return names[source];
}

struct str
tls_result_name(enum tls_result result)
{
    static const struct str names[] = {
        [TLS_RESULT_OK] = STR("ok"),
        [TLS_RESULT_NO_STARTTLS] = STR("starttls-not-supported"),
        [TLS_RESULT_HOST_MISMATCH] = STR("certificate-host-mismatch"),
        [TLS_RESULT_EXPIRED] = STR("certificate-expired"),
        [TLS_RESULT_NOT_TRUSTED] = STR("certificate-not-trusted"),
        [TLS_RESULT_VALIDATION_FAILURE] = STR("validation-failure"),
        [TLS_RESULT_TLSA_INVALID] = STR("tlsa-invalid"),
        [TLS_RESULT_DNSSEC_INVALID] = STR("dnssec-invalid"),
        [TLS_RESULT_DANE_REQUIRED] = STR("dane-required"),
        [TLS_RESULT_STS_FETCH_ERROR] = STR("sts-policy-fetch-error"),
        [TLS_RESULT_STS_INVALID] = STR("sts-policy-invalid"),
        [TLS_RESULT_STS_WEBPKI_INVALID] = STR("sts-webpki-invalid"),
    };

    CHECK(result < sizeof names / sizeof *names);
    return names[result];
}

/* What a stranger may choose is in it: names and records of his own. A connection that his policy let through is to the
 * same host by the same name as another's, so that he would have to hit a hash of 64 bits to be mistaken for it. */
void
tls_policy_put_key(struct text *out, const struct tls_policy *p)
{
    uint64_t sum = (uint64_t)(uintptr_t)p->trust;

    for (size_t i = 0; i < p->name_count; i++)
        sum = hash_bytes(p->names[i], sum);
    for (size_t i = 0; i < p->record_count; i++) {
        const struct tls_record *r = &p->records[i];
        sum = hash_bytes(r->data, sum ^ ((uint64_t)r->usage << 16 | (uint64_t)r->selector << 8 | r->matching));
    }
    text_putf(out, "%c%016llx", "nmevdr"[p->level] - (p->testing ? 'a' - 'A' : 0), (unsigned long long)sum);
}
