/* sts_test - records and policies, our own cases and those of ../shared/conformance/mta-sts. */
#include "base/test.h"
#include "policy/sts.h"

#include <stdio.h>
#include <string.h>

static const struct {
    const char *why;
    struct str record, id; /* absent: not valid */
} records[] = {
    { "as in the RFC", STR("v=STSv1; id=20160831085700Z;"), STR("20160831085700Z") },
    { "no semicolon at the end", STR("v=STSv1;id=1"), STR("1") },
    { "white space around semicolons", STR("v=STSv1;\t id=1 \t; "), STR("1") },
    { "an extension before it", STR("v=STSv1; x.y-z_1=!<>~; id=2"), STR("2") },
    { "the first of two", STR("v=STSv1; id=1; id=2"), STR("1") },
    { "32 characters", STR("v=STSv1; id=01234567890123456789012345678901"), STR("01234567890123456789012345678901") },
    { "33 characters", STR("v=STSv1; id=012345678901234567890123456789012"), { NULL, 0 } },
    { "no id", STR("v=STSv1;"), { NULL, 0 } },
    { "no id, but more", STR("v=STSv1; x=1;"), { NULL, 0 } },
    { "an empty id", STR("v=STSv1; id=;"), { NULL, 0 } },
    { "id is no word", STR("v=STSv1; id"), { NULL, 0 } },
    { "id with a sign", STR("v=STSv1; id=1-2"), { NULL, 0 } },
    { "another version", STR("v=STSv2; id=1"), { NULL, 0 } },
    { "case counts", STR("V=stsv1; id=1"), { NULL, 0 } },
    { "nothing between semicolons", STR("v=STSv1; ; id=1"), { NULL, 0 } },
    { "an extension without a value", STR("v=STSv1; id=1; x="), { NULL, 0 } },
    { "an equals sign in a value", STR("v=STSv1; id=1; x=a=b"), { NULL, 0 } },
    { "a control character", STR("v=STSv1; id=1; x=a\001"), { NULL, 0 } },
    { "nothing", STR(""), { NULL, 0 } },
};

static void
reads_records(struct test *t)
{
    for (size_t i = 0; i < sizeof records / sizeof *records; i++) {
        struct str in = test_edge(records[i].record), id = { NULL, 0 };
        test_case(t, records[i].why);
        EXPECT(t, sts_record_parse(in, &id) == !str_is_absent(records[i].id));
        EXPECT_STR(t, id, records[i].id);
        test_edge_free(in);
    }
}

#define HEAD "version: STSv1\nmode: enforce\nmax_age: 86400\n"

static const struct {
    const char *why;
    struct str body;
    bool ok;
    uint8_t mode;
    uint32_t max_age;
    size_t mx;
} policies[] = {
    { "CRLF, any order", STR("mx: a.example\r\nmax_age: 10\r\nmode: testing\r\nversion: STSv1\r\n"), true, STS_TESTING, 10, 1 },
    { "no end of the last line", STR(HEAD "mx: a.example"), true, STS_ENFORCE, 86400, 1 },
    { "no space, and tabs", STR("version:STSv1\nmode:\tnone \t\nmax_age:0"), true, STS_NONE, 0, 0 },
    { "an empty line at the end", STR(HEAD "mx: a.example\n\n"), true, STS_ENFORCE, 86400, 1 },
    { "only the first of each counts", STR(HEAD "mode: none\nversion: STSv2\nmax_age: x\nmx: a.example\n"), true,
      STS_ENFORCE, 86400, 1 },
    { "unknown fields, UTF-8 in them", STR("note: gr\303\274n\n" HEAD "mx: *.a.example\nx-y.z_1: a: b\n"), true, STS_ENFORCE,
      86400, 1 },
    { "a year is the most", STR("version: STSv1\nmode: none\nmax_age: 31557600\n"), true, STS_NONE, 31557600, 0 },
    { "a name that counts case", STR("Version: STSv1\nmode: none\nmax_age: 1\n"), false, 0, 0, 0 },
    { "a mode that counts case", STR("version: STSv1\nmode: Enforce\nmax_age: 1\nmx: a.example\n"), false, 0, 0, 0 },
    { "a negative age", STR("version: STSv1\nmode: none\nmax_age: -1\n"), false, 0, 0, 0 },
    { "eleven digits", STR("version: STSv1\nmode: none\nmax_age: 00000000001\n"), false, 0, 0, 0 },
    { "no age", STR("version: STSv1\nmode: none\n"), false, 0, 0, 0 },
    { "no mode", STR("version: STSv1\nmax_age: 1\nmx: a.example\n"), false, 0, 0, 0 },
    { "a line that is no field", STR(HEAD "mx: a.example\n<html>\n"), false, 0, 0, 0 },
    { "a field with a space before the colon", STR(HEAD "mx : a.example\n"), false, 0, 0, 0 },
    { "a line that begins with a space", STR(HEAD " mx: a.example\n"), false, 0, 0, 0 },
    { "a star inside", STR(HEAD "mx: a.*.example\n"), false, 0, 0, 0 },
    { "a star alone", STR(HEAD "mx: *\n"), false, 0, 0, 0 },
    { "part of a label", STR(HEAD "mx: *mail.example\n"), false, 0, 0, 0 },
    { "two names on a line", STR(HEAD "mx: a.example b.example\n"), false, 0, 0, 0 },
    { "a U-label", STR(HEAD "mx: b\303\274cher.example\n"), false, 0, 0, 0 },
    { "a NUL", STR(HEAD "mx: a.example\nx: a\0b\n"), false, 0, 0, 0 },
    { "a CR alone", STR(HEAD "mx: a.example\rx: y\n"), false, 0, 0, 0 },
    { "nothing", STR(""), false, 0, 0, 0 },
};

static void
reads_policies(struct test *t)
{
    struct mem mem = mem_libc();
    struct arena arena;

    arena_init(&arena, &mem, 4096, STS_ARENA_BYTES);
    for (size_t i = 0; i < sizeof policies / sizeof *policies; i++) {
        struct str in = test_edge(policies[i].body), why = S("");
        struct sts_policy policy = { 0 };

        test_case(t, policies[i].why);
        EXPECT(t, sts_policy_parse(in, &arena, &policy, &why) == policies[i].ok);
        EXPECT(t, (why.len == 0) == policies[i].ok);
        EXPECT_INT(t, policy.mode, policies[i].mode);
        EXPECT_INT(t, policy.max_age, policies[i].max_age);
        EXPECT_INT(t, policy.mx_count, policies[i].mx);
        test_edge_free(in);
        arena_reset(&arena);
    }
    arena_done(&arena);
}

static void
reads_policies_cut_at_every_byte(struct test *t)
{
    static const struct str whole = STR("version: STSv1\r\nmode: testing\r\nmx: *.a.example\r\nmax_age: 86400\r\n");
    struct mem mem = mem_libc();
    struct arena arena;
    size_t valid = 0;

    arena_init(&arena, &mem, 4096, STS_ARENA_BYTES);
    for (size_t len = 0; len <= whole.len; len++) {
        struct str in = test_edge(str_slice(whole, 0, len)), why;
        struct sts_policy policy;

        valid += sts_policy_parse(in, &arena, &policy, &why);
        test_edge_free(in);
        arena_reset(&arena);
    }
    EXPECT_INT(t, valid, 7); /* from the first digit of max_age on */
    arena_done(&arena);
}

static void
takes_64_kib_and_no_more(struct test *t)
{
    static char body[STS_BODY_MAX + 1];
    struct mem mem = mem_libc();
    struct arena arena;
    struct sts_policy policy;
    struct str why;
    struct text text = text_init(body, STS_BODY_MAX);

    arena_init(&arena, &mem, 4096, STS_ARENA_BYTES);
    text_put(&text, S(HEAD));
    while (text.cap - text.len >= 5)
        text_put(&text, S("mx:a\n"));
    while (text.len < text.cap)
        text_put_byte(&text, '\n');
    EXPECT(t, sts_policy_parse(text_str(&text), &arena, &policy, &why) && policy.mx_count > 13000);
    body[STS_BODY_MAX] = '\n';
    EXPECT(t, !sts_policy_parse(str_new(body, sizeof body), &arena, &policy, &why));
    EXPECT_STR(t, why, S("it is longer than 64 KiB"));
    arena_done(&arena);
}

static void
matches_hosts(struct test *t)
{
    struct str mx[] = { STR("mail.example.com"), STR("*.Example.net") };
    const struct sts_policy policy = { .mode = STS_ENFORCE, .mx = mx, .mx_count = 2 };

    EXPECT(t, sts_policy_allows(&policy, S("MAIL.example.com")));
    EXPECT(t, sts_policy_allows(&policy, S("mail.example.com.")));
    EXPECT(t, sts_policy_allows(&policy, S("a.example.NET")));
    EXPECT(t, !sts_policy_allows(&policy, S("a.b.example.net")));
    EXPECT(t, !sts_policy_allows(&policy, S("example.net")));
    EXPECT(t, !sts_policy_allows(&policy, S(".example.net")));
    EXPECT(t, !sts_policy_allows(&policy, S("aexample.net")));
    EXPECT(t, !sts_policy_allows(&policy, S("xmail.example.com")));
    EXPECT(t, !sts_policy_allows(&policy, S("")));
    EXPECT(t, !sts_policy_allows(&(struct sts_policy){ .mode = STS_ENFORCE }, S("mail.example.com")));
}

/* ---- the shared cases: just as much JSON as their file has ---- */

static void
skip_space(struct str *rest)
{
    while (rest->len > 0 && str_has_byte(S(" \n\r\t,:"), rest->ptr[0]))
        *rest = str_from(*rest, 1);
}

/* A string, its escapes taken back, into memory that `text` has. */
static bool
take_string(struct str *rest, struct text *text, struct str *out)
{
    size_t from = text->len;

    skip_space(rest);
    if (!str_take_byte(rest, '"'))
        return false;
    while (rest->len > 0 && rest->ptr[0] != '"') {
        char c = rest->ptr[0];
        if (c == '\\') {
            *rest = str_from(*rest, 1);
            c = rest->ptr[0] == 'n' ? '\n' : rest->ptr[0] == 'r' ? '\r' : rest->ptr[0];
        }
        text_put_byte(text, c);
        *rest = str_from(*rest, 1);
    }
    *rest = str_from(*rest, 1);
    *out = str_new(text->ptr + from, text->len - from);
    return true;
}

static bool
take_truth(struct str *rest)
{
    skip_space(rest);
    if (str_take(rest, S("true")))
        return true;
    str_take(rest, S("false"));
    return false;
}

static size_t
policy_case(struct test *t, struct str *rest, struct arena *arena)
{
    char memory[4096];
    struct text text = text_init(memory, sizeof memory);
    struct str key, id = S(""), body = S(""), host, why;
    struct sts_policy policy = { 0 };
    bool valid = false;
    size_t count = 0;

    for (skip_space(rest); !str_take_byte(rest, '}') && take_string(rest, &text, &key); skip_space(rest)) {
        if (str_eq(key, S("id"))) {
            take_string(rest, &text, &id);
        } else if (str_eq(key, S("text"))) {
            take_string(rest, &text, &body);
            valid = sts_policy_parse(body, arena, &policy, &why);
        } else if (str_eq(key, S("valid"))) {
            EXPECT(t, valid == take_truth(rest));
            count++;
        } else { /* match */
            skip_space(rest);
            EXPECT(t, str_take_byte(rest, '{'));
            for (skip_space(rest); !str_take_byte(rest, '}') && take_string(rest, &text, &host); skip_space(rest)) {
                EXPECT(t, sts_policy_allows(&policy, host) == take_truth(rest));
                count++;
            }
        }
    }
    EXPECT(t, !text.full);
    return count;
}

static void
record_case(struct test *t, struct str *rest)
{
    char memory[4096];
    struct text text = text_init(memory, sizeof memory);
    struct dns_record txt[8];
    size_t count = 0;
    struct str key, want = { NULL, 0 }, note, id = { NULL, 0 };

    for (skip_space(rest); !str_take_byte(rest, '}') && take_string(rest, &text, &key); skip_space(rest)) {
        skip_space(rest);
        if (str_eq(key, S("txt"))) {
            EXPECT(t, str_take_byte(rest, '['));
            for (skip_space(rest); count < 8 && take_string(rest, &text, &txt[count].data); skip_space(rest))
                count++;
            EXPECT(t, str_take_byte(rest, ']'));
        } else if (str_eq(key, S("note"))) {
            take_string(rest, &text, &note);
        } else if (!str_take(rest, S("null"))) {
            take_string(rest, &text, &want);
        }
    }
    EXPECT(t, count > 0);
    EXPECT(t, sts_records_parse(txt, count, &id) == !str_is_absent(want));
    EXPECT_STR(t, id, want);
}

static void
shared_cases(struct test *t)
{
    struct str file = test_shared_file(t, "conformance/mta-sts/cases.json"), rest = file;
    struct mem mem = mem_libc();
    struct arena arena;
    size_t policy_count = 0, checks = 0, record_count = 0;

    if (str_is_absent(file))
        return;
    arena_init(&arena, &mem, 4096, 1 << 20);
    size_t failures = t->failures;
    rest = str_from(rest, str_find(rest, S("\"policies\": [")) + 13);
    for (skip_space(&rest); str_take_byte(&rest, '{'); skip_space(&rest), policy_count++)
        checks += policy_case(t, &rest, &arena);
    rest = str_from(rest, str_find(rest, S("\"records\": [")) + 12);
    for (skip_space(&rest); str_take_byte(&rest, '{'); skip_space(&rest), record_count++)
        record_case(t, &rest);
    printf("# mta-sts: %zu policies (%zu expectations) and %zu sets of records, %zu failures\n", policy_count, checks,
           record_count, t->failures - failures);
    EXPECT_INT(t, policy_count, 7);
    EXPECT_INT(t, checks, 13);
    EXPECT_INT(t, record_count, 4);
    arena_done(&arena);
    test_file_free(file);
}

TEST_MAIN({ "reads records", reads_records },
          { "reads policies", reads_policies },
          { "reads policies cut at every byte", reads_policies_cut_at_every_byte },
          { "takes 64 KiB and no more", takes_64_kib_and_no_more },
          { "matches hosts", matches_hosts },
          { "the shared cases", shared_cases })
