/*
 * fuzz_users - the users file, and names and passwords as they are prepared.
 *
 * Aims at: sasl/users.c sasl/prepare.c sasl/sender.c
 * Seeds:   sasl/users_test.c sasl/prepare_test.c
 * Longest: 2000
 * Test:    60000 runs
 *
 * A user who is found is written down and read again as the same; a name or password that was prepared stays as it is. What
 * is taken of a file does not depend on how many lines at a time.
 */
#include "fuzz.h"

#include "sasl/prepare.h"
#include "sasl/sender.h"
#include "sasl/users.h"

#include <string.h>

static void
check_same(const struct scram_keys *a, const struct scram_keys *b)
{
    CHECK(a->iterations == b->iterations && a->salt_len == b->salt_len);
    CHECK(memcmp(a->salt, b->salt, sizeof a->salt) == 0 && memcmp(a->stored, b->stored, sizeof a->stored) == 0 &&
          memcmp(a->server, b->server, sizeof a->server) == 0);
}

static void
check_user(const struct user *u, size_t len, struct arena *arena)
{
    struct text line = fuzz_text(arena, len + 100);
    struct user again;

    user_put(&line, u);
    CHECK(!line.full && user_parse(str_slice(text_str(&line), 0, line.len - 1), &again) == NULL);
    CHECK(str_eq(again.name, u->name) && str_eq(again.hash, u->hash) && again.off == u->off);
    CHECK(str_is_absent(again.plain) == str_is_absent(u->plain) && again.sender_count == u->sender_count);
    for (size_t i = 0; i < u->sender_count; i++)
        CHECK(str_eq(again.senders[i], u->senders[i]) && sasl_is_sender(u->senders[i]));
    check_same(&again.sha256, &u->sha256);
    check_same(&again.sha1, &u->sha1);
}

static void
note(void *ctx, size_t line, const char *what)
{
    CHECK(line > 0 && what != NULL);
    *(size_t *)ctx += 1;
}

static struct users *
take_file(struct str input, size_t at_once, size_t *out_problems)
{
    char *bytes = mem_alloc(own_mem, input.len + 1);

    if (input.len > 0)
        memcpy(bytes, input.ptr, input.len);
    struct users *users = users_new(own_mem, 1, bytes, input.len, input.len + 1);
    while (users_take(users, at_once, (struct users_problem){ note, out_problems }))
        continue;
    return users;
}

static void
check_prepared(bool (*prepare)(struct str, struct text *), struct str input, struct arena *arena)
{
    struct text once = fuzz_text(arena, PREPARED_MAX), twice = fuzz_text(arena, PREPARED_MAX);

    if (!prepare(input, &once))
        return;
    CHECK(once.len > 0);
    if (str_is_ascii(input))
        CHECK(once.len == input.len && str_eq_nocase(text_str(&once), input));
    /* Composing may not make it longer a second time. */
    CHECK(prepare(text_str(&once), &twice) && str_eq(text_str(&once), text_str(&twice)));
}

void
fuzz_one(struct str input, struct arena *arena)
{
    size_t problems = 0, more_problems = 0;
    struct users *users = take_file(input, 1, &problems), *others = take_file(input, 1000, &more_problems);
    struct user user, found;

    CHECK(problems == more_problems && users_count(users) == users_count(others));
    for (size_t i = 0; i < users_count(users); i++) {
        CHECK(users_any(users, i, &user) && users_find(others, user.name, &found) && str_eq(found.hash, user.hash));
        check_user(&user, input.len, arena);
    }
    users_free(users);
    users_free(others);
    check_prepared(prepare_password, input, arena);
    check_prepared(prepare_name, input, arena);
}
