/* users - see users.h. */
#include "sasl/users.h"

#include "base/base64.h"
#include "base/check.h"
#include "sasl/password.h"
#include "sasl/prepare.h"
#include "sasl/sender.h"

#include <string.h>

/* ---- a line ------------------------------------------------------------------------------------------------------ */

static bool
take_key(struct str word, unsigned char *out, size_t size)
{
    struct text text = text_init(out, size);

    return base64_decode_strictly(word, &text) && text.len == size;
}

static const char *
take_scram(struct str value, enum digest digest, struct scram_keys *out)
{
    uint64_t iterations;
    struct text salt = text_init(out->salt, sizeof out->salt);

    if (out->iterations > 0)
        return "a field is there twice";
    struct str count = str_cut(&value, ','), salted = str_cut(&value, ','), stored = str_cut(&value, ',');
    if (!str_to_u64(count, &iterations) || iterations < SCRAM_ITERATIONS_MIN || iterations > SCRAM_ITERATIONS_MAX)
        return "SCRAM wants 4096 to 10000000 iterations";
    if (!base64_decode_strictly(salted, &salt) || salt.len == 0 || !take_key(stored, out->stored, digest_size(digest)) ||
        !take_key(value, out->server, digest_size(digest)))
        return "these are no SCRAM keys";
    out->salt_len = salt.len;
    out->iterations = (uint32_t)iterations;
    return NULL;
}

static const char *
take_senders(struct str value, struct user *out)
{
    if (out->sender_count > 0)
        return "a field is there twice";
    while (!str_is_absent(value)) {
        struct str sender = str_cut(&value, ',');
        if (!sasl_is_sender(sender) || sender.len > LIMIT_PATH)
            return "send-as wants ADDRESS, @DOMAIN or *";
        if (out->sender_count == LIMIT_USER_SENDERS)
            return "too many addresses in send-as";
        out->senders[out->sender_count++] = sender;
    }
    return NULL;
}

static const char *
take_plain(struct str value, struct user *out)
{
    char memory[PASSWORD_MAX];
    struct text text = text_init(memory, sizeof memory);
    bool fine = str_is_absent(out->plain) && base64_decode_strictly(value, &text);

    explicit_bzero(memory, sizeof memory);
    out->plain = value;
    return fine ? NULL : "this is no password in base64";
}

static const char *
take_field(struct str field, struct user *out)
{
    if (str_take(&field, S("scram-sha-256=")))
        return take_scram(field, DIGEST_SHA256, &out->sha256);
    if (str_take(&field, S("scram-sha-1=")))
        return take_scram(field, DIGEST_SHA1, &out->sha1);
    if (str_take(&field, S("plain=")))
        return take_plain(field, out);
    if (str_take(&field, S("send-as=")))
        return take_senders(field, out);
    if (!str_eq(field, S("off")))
        return "a field is not known";
    out->off = true;
    return NULL;
}

const char *
user_parse(struct str line, struct user *out)
{
    char memory[LIMIT_USER_NAME];
    struct text prepared = text_init(memory, sizeof memory);
    struct str rest = line;

    *out = (struct user){ .name = str_cut(&rest, ':') };
    if (line.len > USERS_LINE_MAX)
        return "the line is too long";
    if (!prepare_name(out->name, &prepared))
        return "this can be nobody's name";
    if (!str_eq(text_str(&prepared), out->name))
        return "the name is not written as it is compared: in lower case, composed";
    out->hash = str_cut(&rest, ':');
    if (!str_eq(out->hash, S("*")) && !password_is_hash(out->hash))
        return "behind the name stands no hash that crypt(3) knows";
    while (!str_is_absent(rest)) {
        const char *wrong = take_field(str_cut(&rest, ':'), out);
        if (wrong)
            return wrong;
    }
    return NULL;
}

static void
put_scram(struct text *t, struct str name, enum digest digest, const struct scram_keys *k)
{
    if (k->iterations == 0)
        return;
    text_put(t, name);
    text_put_u64(t, k->iterations);
    text_put_byte(t, ',');
    base64_put(t, str_new(k->salt, k->salt_len));
    text_put_byte(t, ',');
    base64_put(t, str_new(k->stored, digest_size(digest)));
    text_put_byte(t, ',');
    base64_put(t, str_new(k->server, digest_size(digest)));
}

void
user_put(struct text *t, const struct user *u)
{
    text_put(t, u->name);
    text_put_byte(t, ':');
    text_put(t, u->hash.len > 0 ? u->hash : S("*"));
    put_scram(t, S(":scram-sha-256="), DIGEST_SHA256, &u->sha256);
    put_scram(t, S(":scram-sha-1="), DIGEST_SHA1, &u->sha1);
    if (!str_is_absent(u->plain)) {
        text_put(t, S(":plain="));
        text_put(t, u->plain);
    }
    for (size_t i = 0; i < u->sender_count; i++) {
        text_put(t, i == 0 ? S(":send-as=") : S(","));
        text_put(t, u->senders[i]);
    }
    if (u->off)
        text_put(t, S(":off"));
    text_put_byte(t, '\n');
}

bool
user_set_password(struct user *u, const struct user_secret *s, struct text *text)
{
    size_t from = text->len;

    if (!password_hash(s->password, s->random[0], s->memory, text))
        return false;
    u->hash = str_from(text_str(text), from);
    scram_make_keys(DIGEST_SHA256, s->password, str_new(s->random[1], SCRAM_SALT), SCRAM_ITERATIONS, &u->sha256);
    u->sha1 = (struct scram_keys){ .iterations = 0 };
    u->plain = (struct str){ NULL, 0 };
    if (!s->legacy)
        return true;
    scram_make_keys(DIGEST_SHA1, s->password, str_new(s->random[2], SCRAM_SALT), SCRAM_ITERATIONS, &u->sha1);
    from = text->len;
    base64_put(text, s->password);
    u->plain = str_from(text_str(text), from);
    return !text->full;
}

/* ---- the file ---------------------------------------------------------------------------------------------------- */

struct users {
    struct mem *mem;
    void *own_bytes;
    size_t len, size, number; /* number: lines taken */
    struct str rest;
    struct map by_name;
    struct str *lines;
    size_t count, cap;
};

struct users *
users_new(struct mem *mem, uint64_t seed, void *own_bytes, size_t len, size_t size)
{
    struct users *u = mem_new(mem, struct users);

    *u = (struct users){ .mem = mem, .own_bytes = own_bytes, .len = len, .size = size };
    u->rest = len > 0 ? str_new(own_bytes, len) : (struct str){ NULL, 0 };
    map_init(&u->by_name, mem, seed);
    return u;
}

void
users_free(struct users *u)
{
    map_done(&u->by_name);
    mem_free(u->mem, u->lines, u->cap * sizeof *u->lines);
    if (u->own_bytes)
        explicit_bzero(u->own_bytes, u->size);
    mem_free(u->mem, u->own_bytes, u->size);
    mem_free(u->mem, u, sizeof *u);
}

static const char *
add(struct users *u, struct str line)
{
    struct user user;
    const char *wrong = user_parse(line, &user);

    if (wrong)
        return wrong;
    if (map_get(&u->by_name, user.name))
        return "there is a user of that name already";
    if (u->count == u->cap) {
        size_t cap = u->cap ? 2 * u->cap : 16;
        u->lines = mem_resize(u->mem, u->lines, u->cap * sizeof *u->lines, cap * sizeof *u->lines);
        u->cap = cap;
    }
    u->lines[u->count++] = line;
    map_put(&u->by_name, user.name, (void *)(uintptr_t)line.ptr);
    return NULL;
}

bool
users_take(struct users *u, size_t lines, struct users_problem problem)
{
    for (; lines > 0 && !str_is_absent(u->rest); lines--) {
        struct str line = str_cut(&u->rest, '\n');
        u->number++;
        if (str_ends(line, S("\r")))
            line.len--;
        if (line.len == 0 || line.ptr[0] == '#')
            continue;
        const char *wrong = add(u, line);
        if (wrong)
            problem.tell(problem.ctx, u->number, wrong);
    }
    return !str_is_absent(u->rest);
}

static struct str
line_at(const struct users *u, const char *at)
{
    struct str rest = str_new(at, u->len - (size_t)(at - (const char *)u->own_bytes)), line = str_cut(&rest, '\n');

    if (str_ends(line, S("\r")))
        line.len--;
    return line;
}

bool
users_find(const struct users *u, struct str name, struct user *out)
{
    const char *at = map_get(&u->by_name, name);

    if (!at)
        return false;
    CHECK(user_parse(line_at(u, at), out) == NULL);
    return true;
}

bool
users_any(const struct users *u, uint64_t number, struct user *out)
{
    if (u->count == 0)
        return false;
    CHECK(user_parse(u->lines[number % u->count], out) == NULL);
    return true;
}

size_t
users_count(const struct users *u)
{
    return u->count;
}
