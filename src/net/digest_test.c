/* digest_test - hashes and what is built of them, against the vectors of their RFCs. */
#include "net/digest.h"

#include "base/test.h"

static struct str
hex(struct str bytes, char *memory, size_t cap)
{
    struct text text = text_init(memory, cap);

    for (size_t i = 0; i < bytes.len; i++)
        text_putf(&text, "%02x", (unsigned char)bytes.ptr[i]);
    return text_str(&text);
}

static void
hashes(struct test *t)
{
    static const struct {
        const char *why;
        enum digest kind;
        struct str want;
    } cases[] = {
        { "FIPS 180 SHA-256", DIGEST_SHA256, STR("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad") },
        { "RFC 3174", DIGEST_SHA1, STR("a9993e364706816aba3e25717850c26c9cd0d89d") },
        { "RFC 1321", DIGEST_MD5, STR("900150983cd24fb0d6963f7d28e17f72") },
    };
    unsigned char out[DIGEST_MAX];
    char memory[2 * DIGEST_MAX + 1];

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        test_case(t, cases[i].why);
        digest_of(cases[i].kind, (struct str[]){ S("a"), S(""), S("bc") }, 3, out);
        EXPECT_STR(t, hex(str_new(out, digest_size(cases[i].kind)), memory, sizeof memory), cases[i].want);
    }
}

static void
keyed_hashes(struct test *t)
{
    static char long_key[131];
    struct str what = S("what do ya want for nothing?"), longer = S("Test Using Larger Than Block-Size Key - Hash Key First");
    unsigned char out[DIGEST_MAX];
    char memory[2 * DIGEST_MAX + 1];

    for (size_t i = 0; i < sizeof long_key; i++)
        long_key[i] = (char)0xaa;
    test_case(t, "RFC 4231 case 2");
    digest_hmac(DIGEST_SHA256, S("Jefe"), &what, 1, out);
    EXPECT_STR(t, hex(str_new(out, 32), memory, sizeof memory),
               S("5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"));
    test_case(t, "RFC 4231 case 6: a key longer than a block");
    digest_hmac(DIGEST_SHA256, str_new(long_key, sizeof long_key), &longer, 1, out);
    EXPECT_STR(t, hex(str_new(out, 32), memory, sizeof memory),
               S("60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"));
    test_case(t, "RFC 2202 case 2 of MD5");
    digest_hmac(DIGEST_MD5, S("Jefe"), &what, 1, out);
    EXPECT_STR(t, hex(str_new(out, 16), memory, sizeof memory), S("750c783e6ab0b503eaa86e310a5db738"));
    test_case(t, "RFC 2202 case 2 of SHA-1");
    digest_hmac(DIGEST_SHA1, S("Jefe"), &what, 1, out);
    EXPECT_STR(t, hex(str_new(out, 20), memory, sizeof memory), S("effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"));
}

static void
passwords(struct test *t)
{
    unsigned char out[DIGEST_MAX];
    char memory[2 * DIGEST_MAX + 1];

    test_case(t, "RFC 6070: once");
    digest_pbkdf2(DIGEST_SHA1, S("password"), S("salt"), 1, out);
    EXPECT_STR(t, hex(str_new(out, 20), memory, sizeof memory), S("0c60c80f961f0e71f3a9b524af6012062fe037a6"));
    test_case(t, "RFC 6070: 4096 times");
    digest_pbkdf2(DIGEST_SHA1, S("password"), S("salt"), 4096, out);
    EXPECT_STR(t, hex(str_new(out, 20), memory, sizeof memory), S("4b007901b765489abead49d926f721d065a429c1"));
    test_case(t, "RFC 7914 section 11, its first block");
    digest_pbkdf2(DIGEST_SHA256, S("passwd"), S("salt"), 1, out);
    EXPECT_STR(t, hex(str_new(out, 32), memory, sizeof memory),
               S("55ac046e56e3089fec1691c22544b605f94185216dde0465e68b9d57c20dacbc"));
}

static void
compares(struct test *t)
{
    EXPECT(t, digest_same(S("secret"), S("secret")));
    EXPECT(t, !digest_same(S("secret"), S("secreT")));
    EXPECT(t, !digest_same(S("secret"), S("secre")));
    EXPECT(t, digest_same(S(""), S("")));
}

TEST_MAIN({ "hashes", hashes }, { "keyed hashes", keyed_hashes }, { "passwords", passwords }, { "compares", compares })
