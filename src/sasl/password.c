/* password - see password.h. */
#include "sasl/password.h"

#include "base/check.h"
#include "net/digest.h"

#include <crypt.h>
#include <string.h>

struct memory {
    struct crypt_data data;
    char password[PASSWORD_MAX + 1], setting[PASSWORD_HASH_MAX + 1];
};

size_t
password_memory(void)
{
    return sizeof(struct memory);
}

static void
wipe(struct memory *m)
{
    CHECK(m != NULL); /* gcc's UBSan makes its own warning of the library's attributes wrong */
    explicit_bzero(m, sizeof *m);
}

static bool
put_cstr(char *out, size_t cap, struct str s)
{
    struct text text = text_init(out, cap);

    text_put(&text, s);
    (void)text_cstr(&text);
    return !text.full && !str_has_byte(s, '\0');
}

/* Absent: libcrypt did not like something. */
static struct str
hash(struct str password, struct memory *m)
{
    bool fits = put_cstr(m->password, sizeof m->password, password);
    char *made = crypt_rn(m->password, m->setting, &m->data, (int)sizeof m->data);

    return fits && made ? str_from_cstr(made) : (struct str){ NULL, 0 };
}

bool
password_is(struct str password, struct str wanted, void *memory)
{
    struct memory *m = memory;

    wipe(m);
    bool fits = put_cstr(m->setting, sizeof m->setting, wanted);
    struct str made = hash(password, m);
    bool same = fits && !str_is_absent(made) && wanted.len > 1 && digest_same(made, wanted);
    wipe(m);
    return same;
}

bool
password_hash(struct str password, const unsigned char random[PASSWORD_RANDOM], void *memory, struct text *out)
{
    struct memory *m = memory;

    wipe(m);
    bool fine = crypt_gensalt_rn("$y$", 0, (const char *)random, PASSWORD_RANDOM, m->setting, (int)sizeof m->setting);
    struct str made = fine ? hash(password, m) : (struct str){ NULL, 0 };
    if (!str_is_absent(made))
        text_put(out, made);
    wipe(m);
    return !str_is_absent(made) && !out->full;
}

bool
password_is_hash(struct str s)
{
    char setting[PASSWORD_HASH_MAX + 1];

    if (s.len < 13 || !put_cstr(setting, sizeof setting, s))
        return false;
    int known = crypt_checksalt(setting);
    return known == CRYPT_SALT_OK || known == CRYPT_SALT_METHOD_LEGACY || known == CRYPT_SALT_TOO_CHEAP;
}
