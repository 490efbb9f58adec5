/* mechanism - see mechanism.h. */
#include "sasl/mechanism.h"

static const struct {
    struct str name;
    bool binds, certificate; /* needed */
} mechanisms[SASL_MECHANISMS] = {
    [SASL_EXTERNAL] = { STR("EXTERNAL"), false, true },
    [SASL_SCRAM_SHA_256_PLUS] = { STR("SCRAM-SHA-256-PLUS"), true, false },
    [SASL_SCRAM_SHA_256] = { STR("SCRAM-SHA-256"), false, false },
    [SASL_SCRAM_SHA_1_PLUS] = { STR("SCRAM-SHA-1-PLUS"), true, false },
    [SASL_SCRAM_SHA_1] = { STR("SCRAM-SHA-1"), false, false },
    [SASL_CRAM_MD5] = { STR("CRAM-MD5"), false, false },
    [SASL_PLAIN] = { STR("PLAIN"), false, false },
    [SASL_LOGIN] = { STR("LOGIN"), false, false },
};

struct str
sasl_mechanism_name(enum sasl_mechanism m)
{
    return mechanisms[m].name;
}

enum sasl_mechanism
sasl_mechanism_by_name(struct str name)
{
    int m = 0;

    while (m < SASL_MECHANISMS && !str_eq_nocase(mechanisms[m].name, name))
        m++;
    return (enum sasl_mechanism)m;
}

unsigned
sasl_offered(unsigned site, struct sasl_situation s)
{
    unsigned offered = 0;

    for (int m = 0; m < SASL_MECHANISMS && s.tls; m++)
        if ((!mechanisms[m].binds || s.binds) && (!mechanisms[m].certificate || s.certificate))
            offered |= site & SASL_BIT(m);
    return offered;
}
