/* users_test - lines of the users file, and passwords in them. */
#include "sasl/users.h"

#include "base/base64.h"
#include "base/test.h"
#include "sasl/password.h"

#include <string.h>

#define HASH "$6$saltsalt$qFmFH.bQmmtXzyBY0s9v7Oicd2z4XSIecDzlB5KiA2/jctKu9YterLp8wwnSq.qc.eoxqOmSuNp2xS0ktL3nh/"
#define K32 "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
#define K20 "AAAAAAAAAAAAAAAAAAAAAAAAAAA="

static const struct {
    const char *why;
    struct str line;
    bool fine;
} lines[] = {
    { "a hash and nothing else", STR("anna:" HASH), true },
    { "no password will do", STR("anna:*"), true },
    { "everything", STR("anna@example.org:" HASH ":scram-sha-256=15000,c2FsdA==," K32 "," K32 ":scram-sha-1=4096,c2FsdA==," K20
                        "," K20 ":plain=c2VjcmV0:send-as=sales@example.org,@example.net:off"), true },
    { "may send as anybody", STR("anna:*:send-as=*"), true },
    { "a name outside of ASCII", STR("j\xc3\xb6rg:*"), true },
    { "no name", STR(":*"), false },
    { "nothing behind the name", STR("anna"), false },
    { "no hash", STR("anna:"), false },
    { "a password in clear", STR("anna:swordfish"), false },
    { "upper case", STR("Anna:*"), false },
    { "not composed", STR("jo\xcc\x88rg:*"), false },
    { "too few iterations", STR("anna:*:scram-sha-256=4095,c2FsdA==," K32 "," K32), false },
    { "too many", STR("anna:*:scram-sha-256=99999999999,c2FsdA==," K32 "," K32), false },
    { "a key too short", STR("anna:*:scram-sha-256=4096,c2FsdA==," K32 "," K20), false },
    { "no salt", STR("anna:*:scram-sha-256=4096,," K32 "," K32), false },
    { "a key is missing", STR("anna:*:scram-sha-256=4096,c2FsdA==," K32), false },
    { "a fifth part", STR("anna:*:scram-sha-256=4096,c2FsdA==," K32 "," K32 ",x"), false },
    { "keys twice", STR("anna:*:scram-sha-1=4096,c2FsdA==," K20 "," K20 ":scram-sha-1=4096,c2FsdA==," K20 "," K20), false },
    { "plain that is none", STR("anna:*:plain=a*"), false },
    { "send-as of nothing", STR("anna:*:send-as="), false },
    { "send-as of no address", STR("anna:*:send-as=sales"), false },
    { "send-as twice", STR("anna:*:send-as=*:send-as=*"), false },
    { "a word that is not known", STR("anna:*:admin"), false },
    { "an empty field", STR("anna:*:"), false },
};

static void
lines_are_checked(struct test *t)
{
    char memory[1024];
    struct user user, again;

    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        test_case(t, lines[i].why);
        struct str line = test_edge(lines[i].line);
        const char *wrong = user_parse(line, &user);
        EXPECT(t, (wrong == NULL) == lines[i].fine);
        struct text out = text_init(memory, sizeof memory);
        if (!wrong) {
            user_put(&out, &user);
            EXPECT(t, !out.full && str_ends(text_str(&out), S("\n")));
            EXPECT_STR(t, str_slice(text_str(&out), 0, out.len - 1), line);
            EXPECT(t, user_parse(str_slice(text_str(&out), 0, out.len - 1), &again) == NULL);
        }
        for (size_t cut = 0; cut < line.len; cut++) {
            struct str part = test_edge(str_slice(line, 0, cut));
            (void)user_parse(part, &user);
            test_edge_free(part);
        }
        test_edge_free(line);
    }
}

static void
senders_are_counted(struct test *t)
{
    char memory[64 + 4 * LIMIT_USER_SENDERS];
    struct text line = text_init(memory, sizeof memory);
    struct user user;

    text_put(&line, S("anna:*:send-as=@x"));
    for (int i = 1; i < LIMIT_USER_SENDERS; i++)
        text_put(&line, S(",@x"));
    EXPECT(t, user_parse(text_str(&line), &user) == NULL && user.sender_count == LIMIT_USER_SENDERS);
    text_put(&line, S(",@x"));
    EXPECT(t, !line.full && user_parse(text_str(&line), &user) != NULL);
}

static void
note_line(void *ctx, size_t line, const char *what)
{
    (void)what;
    *(size_t *)ctx = *(size_t *)ctx * 10 + line;
}

static void
a_file_is_taken_up(struct test *t)
{
    struct mem mem = mem_libc();
    struct str text = S("# users\n\nanna:*\nbob:*:off\r\nBob:*\nanna:*:send-as=*\ncarol:*");
    char *bytes = mem_alloc(&mem, text.len + 7);
    size_t problems = 0, rounds = 0;
    struct user user;

    memcpy(bytes, text.ptr, text.len);
    struct users *users = users_new(&mem, 1, bytes, text.len, text.len + 7);
    while (users_take(users, 2, (struct users_problem){ note_line, &problems }))
        rounds++;
    EXPECT_INT(t, rounds, 3);
    EXPECT_INT(t, problems, 56); /* line 5 and line 6 */
    EXPECT_INT(t, users_count(users), 3);
    EXPECT(t, users_find(users, S("anna"), &user) && user.sender_count == 0);
    EXPECT(t, users_find(users, S("bob"), &user) && user.off);
    EXPECT(t, users_find(users, S("carol"), &user) && str_eq(user.hash, S("*")));
    EXPECT(t, !users_find(users, S("dave"), &user));
    EXPECT(t, users_any(users, 4, &user) && str_eq(user.name, S("bob")));
    users_free(users);
    users = users_new(&mem, 1, NULL, 0, 0);
    EXPECT(t, !users_take(users, 1, (struct users_problem){ note_line, &problems }) && !users_any(users, 4, &user));
    users_free(users);
}

static void
passwords_are_hashed(struct test *t)
{
    struct mem mem = mem_libc();
    void *memory = mem_alloc(&mem, password_memory());
    char line[4096];
    struct text text = text_init(line, sizeof line);
    struct user user = { .name = S("anna") }, again;
    struct user_secret secret = { .password = S("correct horse"), .legacy = true, .random = { "0123456789abcde" }, .memory = memory };

    EXPECT(t, password_is(S("Hello world!"), S("$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1"),
                          memory));
    EXPECT(t, !password_is(S("Hello world"), S("$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1"),
                           memory));
    EXPECT(t, !password_is(S("x"), S("*"), memory));
    EXPECT(t, !password_is(S("x"), S(""), memory));
    EXPECT(t, !password_is(S("x"), S("*0"), memory));
    EXPECT(t, user_set_password(&user, &secret, &text));
    EXPECT(t, str_starts(user.hash, S("$y$")));
    EXPECT(t, password_is(S("correct horse"), user.hash, memory));
    EXPECT(t, !password_is(S("correct horse\0x"), user.hash, memory));
    EXPECT(t, !password_is(S("correct hors"), user.hash, memory));
    EXPECT_INT(t, user.sha256.iterations, SCRAM_ITERATIONS);
    struct text out = text_init(line + 2048, 2048);
    user_put(&out, &user);
    EXPECT(t, !out.full && user_parse(str_slice(text_str(&out), 0, out.len - 1), &again) == NULL);
    EXPECT(t, memcmp(&again.sha256, &user.sha256, sizeof user.sha256) == 0);
    EXPECT_STR(t, again.plain, S("Y29ycmVjdCBob3JzZQ=="));
    secret.password = S("a\0b");
    EXPECT(t, !user_set_password(&user, &secret, &text));
    mem_free(&mem, memory, password_memory());
}

TEST_MAIN({ "lines are checked", lines_are_checked }, { "senders are counted", senders_are_counted },
          { "a file is taken up", a_file_is_taken_up },
          { "passwords are hashed", passwords_are_hashed })
