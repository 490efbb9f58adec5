/* signing - see signing.h. */
#include "net/signing.h"

#include "base/check.h"

#include <string.h>

static_assert((int)SIGNING_QUESTION_MAX <= (int)HOLD_BODY_MAX && (int)KEY_SIGNATURE_MAX + 4 <= (int)HOLD_BODY_MAX,
              "questions and answers fit");

bool
signing_ask(void *ctx, const struct key_name *name, enum key_scheme scheme, struct str covers, unsigned char *signature,
            size_t cap, size_t *out_len)
{
    struct signing_asker *asker = ctx;
    unsigned char memory[SIGNING_QUESTION_MAX];
    struct put p = put_init(memory, sizeof memory);
    struct str answer;

    asker->asked++;
    put_raw(&p, str_new(name->bytes, sizeof name->bytes));
    put_u16(&p, (uint16_t)scheme);
    put_bytes(&p, covers);
    if (!p.full && asker->hold &&
        !err_is(hold_call(asker->hold, SIGNING_CALL, put_str_so_far(&p), SIGNING_NS, &answer))) {
        struct take t = take_init(answer);
        struct str bytes = take_bytes(&t, cap);
        if (take_end(&t) && bytes.len > 0) {
            memcpy(signature, bytes.ptr, bytes.len);
            *out_len = bytes.len;
            return true;
        }
    }
    asker->refused++;
    return false;
}

bool
signing_answer(const struct key_table *keys, struct str question, unsigned char *memory, size_t cap,
               struct str *out_answer)
{
    struct take t = take_init(question);
    struct put p = put_init(memory, cap);
    unsigned char signature[KEY_SIGNATURE_MAX];
    struct key_name name;
    size_t len;

    struct str bytes = take_raw(&t, sizeof name.bytes);
    enum key_scheme scheme = (enum key_scheme)take_u16(&t);
    struct str covers = take_bytes(&t, KEY_COVERS_MAX);
    if (!take_end(&t))
        return false;
    memcpy(name.bytes, bytes.ptr, sizeof name.bytes);
    if (!key_table_sign((void *)(uintptr_t)keys, &name, scheme, covers, signature, sizeof signature, &len))
        len = 0;
    put_bytes(&p, str_new(signature, len));
    CHECK(!p.full);
    *out_answer = put_str_so_far(&p);
    return true;
}
