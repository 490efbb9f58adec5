/* Tests of params.c and recipients.c. */
#include "smtp/params.h"

#include "base/limits.h"
#include "base/mem.h"
#include "base/test.h"
#include "smtp/recipients.h"

#include <string.h>

static const struct mail_offers offers = { .size_max = 1000, .auth = true };

static void
reads_mail(struct test *t)
{
    static const struct {
        const char *why;
        struct str args;
        const struct reply *refusal; /* NULL: fine */
        struct str address;
        uint64_t size;
        struct str envid;
        uint8_t ret, body;
        bool smtputf8;
    } cases[] = {
        {"plain", STR("FROM:<a@b.test>"), NULL, STR("a@b.test"), 0, {0}, 0, 0, false},
        {"null sender", STR("from:<>"), NULL, STR(""), 0, {0}, 0, 0, false},
        {"space behind the colon", STR("FROM: <a@b.test>"), NULL, STR("a@b.test"), 0, {0}, 0, 0, false},
        {"all parameters", STR("FROM:<a@b.test> size=1000 BODY=8bitmime SMTPUTF8 RET=hdrs ENVID=x+2By"), NULL,
         STR("a@b.test"), 1000, STR("x+2By"), RET_HDRS, BODY_8BITMIME, true},
        {"7BIT, FULL", STR("FROM:<> BODY=7BIT RET=FULL"), NULL, STR(""), 0, {0}, RET_FULL, BODY_7BIT, false},
        {"UTF-8 with SMTPUTF8",
         STR("FROM:<\xc3\xa4@b.test> SMTPUTF8"),
         NULL,
         STR("\xc3\xa4@b.test"),
         0,
         {0},
         0,
         0,
         true},
        {"UTF-8 without", STR("FROM:<\xc3\xa4@b.test>"), &reply_sender_needs_smtputf8, STR(""), 0, {0}, 0, 0, false},
        {"no colon", STR("FROM <a@b.test>"), &reply_mail_syntax, STR(""), 0, {0}, 0, 0, false},
        {"nothing", STR(""), &reply_mail_syntax, STR(""), 0, {0}, 0, 0, false},
        {"no path", STR("FROM:"), &reply_bad_sender, STR(""), 0, {0}, 0, 0, false},
        {"no domain", STR("FROM:<postmaster>"), &reply_bad_sender, STR(""), 0, {0}, 0, 0, false},
        {"two at signs", STR("FROM:<a@b@c.test>"), &reply_bad_sender, STR(""), 0, {0}, 0, 0, false},
        {"size over by one", STR("FROM:<> SIZE=1001"), &reply_too_big, STR(""), 0, {0}, 0, 0, false},
        {"size over 64 bits", STR("FROM:<> SIZE=99999999999999999999"), &reply_too_big, STR(""), 0, {0}, 0, 0, false},
        {"size not a number", STR("FROM:<> SIZE=abc"), &reply_size_syntax, STR(""), 0, {0}, 0, 0, false},
        {"size negative", STR("FROM:<> SIZE=-1"), &reply_size_syntax, STR(""), 0, {0}, 0, 0, false},
        {"size empty", STR("FROM:<> SIZE="), &reply_size_syntax, STR(""), 0, {0}, 0, 0, false},
        {"size alone", STR("FROM:<> SIZE"), &reply_size_syntax, STR(""), 0, {0}, 0, 0, false},
        {"size twice", STR("FROM:<> SIZE=1 size=1"), &reply_parameter_twice, STR(""), 0, {0}, 0, 0, false},
        {"body unknown", STR("FROM:<> BODY=9BIT"), &reply_body_syntax, STR(""), 0, {0}, 0, 0, false},
        {"body binary", STR("FROM:<> BODY=BINARYMIME"), &reply_body_binary, STR(""), 0, {0}, 0, 0, false},
        {"smtputf8 with a value", STR("FROM:<> SMTPUTF8=1"), &reply_smtputf8_value, STR(""), 0, {0}, 0, 0, false},
        {"ret unknown", STR("FROM:<> RET=ALL"), &reply_ret_syntax, STR(""), 0, {0}, 0, 0, false},
        {"envid not xtext", STR("FROM:<> ENVID=a+zz"), &reply_envid_syntax, STR(""), 0, {0}, 0, 0, false},
        {"auth", STR("FROM:<> AUTH=e+3Dmc2@example.com"), NULL, STR(""), 0, {0}, 0, 0, false},
        {"auth of nobody", STR("FROM:<> AUTH=<>"), NULL, STR(""), 0, {0}, 0, 0, false},
        {"auth not xtext", STR("FROM:<> AUTH=a=b"), &reply_auth_param_syntax, STR(""), 0, {0}, 0, 0, false},
        {"auth empty", STR("FROM:<> AUTH="), &reply_auth_param_syntax, STR(""), 0, {0}, 0, 0, false},
        {"envid alone", STR("FROM:<> ENVID"), &reply_envid_syntax, STR(""), 0, {0}, 0, 0, false},
    };
    struct mem mem = mem_libc();
    struct arena arena;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct mail_request got;
        struct str args = test_edge(cases[i].args);
        test_case(t, cases[i].why);
        arena_init(&arena, &mem, 512, 64 << 10);
        const struct reply *refusal = mail_request_parse(args, true, &offers, &arena, &got);
        EXPECT(t, refusal == cases[i].refusal);
        if (!refusal) {
            EXPECT_STR(t, got.address, cases[i].address);
            EXPECT_INT(t, got.size, cases[i].size);
            EXPECT_STR(t, got.envid, cases[i].envid);
            EXPECT_INT(t, got.ret, cases[i].ret);
            EXPECT_INT(t, got.body, cases[i].body);
            EXPECT_INT(t, got.smtputf8, cases[i].smtputf8);
        }
        arena_done(&arena);
        test_edge_free(args);
    }
}

static void
reads_rcpt(struct test *t)
{
    static const struct {
        const char *why;
        struct str args;
        bool smtputf8;
        const struct reply *refusal;
        struct str address, orcpt;
        uint8_t notify;
    } cases[] = {
        {"plain", STR("TO:<a@B.test>"), false, NULL, STR("a@b.test"), {0}, 0},
        {"source route drops", STR("TO:<@x.test,@y.test:a@b.test>"), false, NULL, STR("a@b.test"), {0}, 0},
        {"postmaster alone", STR("TO:<PostMaster>"), false, NULL, STR("PostMaster"), {0}, 0},
        {"never", STR("TO:<a@b.test> NOTIFY=never"), false, NULL, STR("a@b.test"), {0}, NOTIFY_NEVER},
        {"a list", STR("TO:<a@b.test> NOTIFY=SUCCESS,Delay ORCPT=rfc822;x@y"), false, NULL, STR("a@b.test"),
         STR("rfc822;x@y"), NOTIFY_SUCCESS | NOTIFY_DELAY},
        {"UTF-8 with SMTPUTF8", STR("TO:<\xc3\xa4@b.test>"), true, NULL, STR("\xc3\xa4@b.test"), {0}, 0},
        {"UTF-8 without", STR("TO:<\xc3\xa4@b.test>"), false, &reply_recipient_needs_smtputf8, STR(""), {0}, 0},
        {"null", STR("TO:<>"), false, &reply_null_recipient, STR(""), {0}, 0},
        {"no domain", STR("TO:<a>"), false, &reply_bad_recipient, STR(""), {0}, 0},
        {"at sign alone", STR("TO:<@>"), false, &reply_bad_recipient, STR(""), {0}, 0},
        {"no keyword", STR("<a@b.test>"), false, &reply_rcpt_syntax, STR(""), {0}, 0},
        {"never and more", STR("TO:<a@b.test> NOTIFY=NEVER,DELAY"), false, &reply_notify_syntax, STR(""), {0}, 0},
        {"list with a hole", STR("TO:<a@b.test> NOTIFY=DELAY,,"), false, &reply_notify_syntax, STR(""), {0}, 0},
        {"notify empty", STR("TO:<a@b.test> NOTIFY="), false, &reply_notify_syntax, STR(""), {0}, 0},
        {"orcpt without type", STR("TO:<a@b.test> ORCPT=x@y"), false, &reply_orcpt_syntax, STR(""), {0}, 0},
        {"twice", STR("TO:<a@b.test> NOTIFY=DELAY NOTIFY=DELAY"), false, &reply_parameter_twice, STR(""), {0}, 0},
    };
    struct mem mem = mem_libc();
    struct arena arena;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct mail_request mail = {.smtputf8 = cases[i].smtputf8};
        struct rcpt_request got;
        test_case(t, cases[i].why);
        arena_init(&arena, &mem, 512, 64 << 10);
        const struct reply *refusal = rcpt_request_parse(cases[i].args, true, &mail, (struct str){ 0 }, &arena, &got);
        EXPECT(t, refusal == cases[i].refusal);
        if (!refusal) {
            EXPECT_STR(t, got.address, cases[i].address);
            EXPECT_STR(t, got.orcpt, cases[i].orcpt);
            EXPECT_INT(t, got.notify, cases[i].notify);
        }
        arena_done(&arena);
    }
}

static void
without_ehlo(struct test *t)
{
    struct mem mem = mem_libc();
    struct arena arena;
    struct mail_request mail;
    struct rcpt_request rcpt;

    arena_init(&arena, &mem, 512, 64 << 10);
    EXPECT(t, mail_request_parse(S("FROM:<a@b.test>"), false, &offers, &arena, &mail) == NULL);
    EXPECT(t, mail_request_parse(S("FROM:<> SIZE=1"), false, &offers, &arena, &mail) == &reply_parameter_after_helo);
    EXPECT(t, rcpt_request_parse(S("TO:<a@b.test> NOTIFY=NEVER"), false, &mail, (struct str){ 0 }, &arena, &rcpt) ==
                  &reply_parameter_after_helo);
    test_case(t, "unknown parameters are named");
    const struct reply *r = mail_request_parse(S("FROM:<> FOO=BAR"), true, &offers, &arena, &mail);
    EXPECT_INT(t, r->code, 555);
    EXPECT(t, str_find(r->text, S("FOO")) < r->text.len);
    test_case(t, "delivery by a time");
    static const struct {
        struct str args;
        const struct reply *refusal;
        int64_t seconds;
        bool or_return, trace;
    } by[] = {
        { STR("FROM:<> BY=60;R"), NULL, 60, true, false },         { STR("FROM:<> by=60;rt"), NULL, 60, true, true },
        { STR("FROM:<> BY=3600;N"), NULL, 3600, false, false },    { STR("FROM:<> BY=999999999;NT"), NULL, 999999999, false, true },
        { STR("FROM:<> BY=+120;N"), NULL, 120, false, false },     { STR("FROM:<> BY=+-1;N"), &reply_by_syntax, 0, 0, 0 },
        { STR("FROM:<> BY=-10;NT"), NULL, 0, false, false },       { STR("FROM:<> BY=0;N"), NULL, 0, false, false },
        { STR("FROM:<> BY=0;R"), &reply_by_syntax, 0, 0, 0 },      { STR("FROM:<> BY=-1;R"), &reply_by_syntax, 0, 0, 0 },
        { STR("FROM:<> BY=1234567890;N"), &reply_by_syntax, 0, 0, 0 }, { STR("FROM:<> BY=1"), &reply_by_syntax, 0, 0, 0 },
        { STR("FROM:<> BY=1;"), &reply_by_syntax, 0, 0, 0 },       { STR("FROM:<> BY=1;X"), &reply_by_syntax, 0, 0, 0 },
        { STR("FROM:<> BY=1;NTT"), &reply_by_syntax, 0, 0, 0 },    { STR("FROM:<> BY="), &reply_by_syntax, 0, 0, 0 },
        { STR("FROM:<> BY"), &reply_by_syntax, 0, 0, 0 },          { STR("FROM:<> BY=;N"), &reply_by_syntax, 0, 0, 0 },
    };
    for (size_t i = 0; i < sizeof by / sizeof *by; i++) {
        EXPECT(t, mail_request_parse(by[i].args, true, &offers, &arena, &mail) == by[i].refusal);
        if (!by[i].refusal)
            EXPECT(t, mail.deliver_within == by[i].seconds * SECOND && mail.deliver_or_return == by[i].or_return &&
                          mail.deliver_trace == by[i].trace);
    }
    test_case(t, "a later release");
    const struct mail_offers later = { .wall = 1795255200 * SECOND, .hold_max = 100 * SECOND };
    EXPECT(t, mail_request_parse(S("FROM:<> HOLDFOR=100"), true, &later, &arena, &mail) == NULL);
    EXPECT_INT(t, mail.hold_until / SECOND, 1795255300);
    EXPECT(t, mail_request_parse(S("FROM:<> HOLDFOR=101"), true, &later, &arena, &mail) == &reply_hold_too_long);
    EXPECT(t, mail_request_parse(S("FROM:<> HOLDFOR=0"), true, &later, &arena, &mail) == &reply_holdfor_syntax);
    EXPECT(t, mail_request_parse(S("FROM:<> HOLDFOR=1x"), true, &later, &arena, &mail) == &reply_holdfor_syntax);
    EXPECT(t, mail_request_parse(S("FROM:<> HOLDUNTIL=2026-11-21T10:01:00Z"), true, &later, &arena, &mail) == NULL);
    EXPECT_INT(t, mail.hold_until / SECOND, 1795255260);
    EXPECT(t, mail_request_parse(S("FROM:<> HOLDUNTIL=2026-11-21T09:00:00Z"), true, &later, &arena, &mail) == NULL);
    EXPECT(t, mail_request_parse(S("FROM:<> HOLDUNTIL=2026-11-21T10:01:41Z"), true, &later, &arena, &mail) == &reply_hold_too_long);
    EXPECT(t, mail_request_parse(S("FROM:<> HOLDUNTIL=tomorrow"), true, &later, &arena, &mail) == &reply_holduntil_syntax);
    EXPECT(t, mail_request_parse(S("FROM:<> HOLDFOR=1 HOLDUNTIL=2026-11-21T10:01:00Z"), true, &later, &arena, &mail) == &reply_hold_twice);
    EXPECT_INT(t, mail_request_parse(S("FROM:<> HOLDFOR=1"), true, &(struct mail_offers){ 0 }, &arena, &mail)->code, 555);
    test_case(t, "where a domain is given for those without");
    const struct mail_offers here = { .domain = S("home.test") };
    EXPECT(t, mail_request_parse(S("FROM:<anna> RET=FULL"), true, &here, &arena, &mail) == NULL);
    EXPECT_STR(t, mail.address, S("anna@home.test"));
    EXPECT(t, mail.ret == RET_FULL);
    EXPECT(t, mail_request_parse(S("FROM:<>"), true, &here, &arena, &mail) == NULL && mail.address.len == 0);
    EXPECT(t, mail_request_parse(S("FROM:<a@b@c>"), true, &here, &arena, &mail) == &reply_bad_sender);
    EXPECT(t, rcpt_request_parse(S("TO:bob"), true, &mail, here.domain, &arena, &rcpt) == NULL);
    EXPECT_STR(t, rcpt.address, S("bob@home.test"));
    EXPECT(t, rcpt_request_parse(S("TO:<Postmaster>"), true, &mail, here.domain, &arena, &rcpt) == NULL);
    EXPECT(t, rcpt.forward_path.domain.len == 0);
    EXPECT(t, rcpt_request_parse(S("TO:<b c>"), true, &mail, here.domain, &arena, &rcpt) == &reply_bad_recipient);
    test_case(t, "so are those that are not offered");
    EXPECT_INT(t, mail_request_parse(S("FROM:<> AUTH=<>"), true, &(struct mail_offers){ 0 }, &arena, &mail)->code, 555);
    arena_done(&arena);
}

/* ---- recipients -------------------------------------------------------------------------------------------------- */

static void
spreads_dsn_parameters(struct test *t)
{
    struct mem mem = mem_libc();
    struct arena arena;
    struct recipients r;
    struct rcpt_request alias = {
        .address = STR("sales@here.test"), .orcpt = STR("rfc822;x@y"), .notify = NOTIFY_SUCCESS | NOTIFY_DELAY};
    struct recipient several[] = {
        {.address = STR("sales@here.test"), .origin = RECIPIENT_EXPANDED},
        {.address = STR("anna@here.test"), .origin = RECIPIENT_MEMBER},
        {.address = STR("list@here.test"), .origin = RECIPIENT_MEMBER, .reverse_path = STR("owner@here.test")},
    };
    struct recipient one = {.address = STR("bob@here.test"), .origin = RECIPIENT_ALIAS};

    arena_init(&arena, &mem, 512, 64 << 10);
    recipients_init(&r, &arena, 7);
    recipients_add(&r, &alias, several, 3);
    recipients_add(&r, &alias, &one, 1);
    alias.notify = NOTIFY_SUCCESS;
    one.address = S("carl@here.test");
    one.origin = RECIPIENT_MEMBER;
    recipients_add(&r, &alias, &one, 1);
    EXPECT_INT(t, r.count, 5);
    test_case(t, "the alias itself: as asked");
    EXPECT_INT(t, r.list[0].notify, NOTIFY_SUCCESS | NOTIFY_DELAY);
    EXPECT_STR(t, r.list[0].given, ((struct str){0}));
    test_case(t, "a member of an alias: without SUCCESS");
    EXPECT_INT(t, r.list[1].notify, NOTIFY_DELAY);
    EXPECT_STR(t, r.list[1].orcpt, S("rfc822;x@y"));
    EXPECT_STR(t, r.list[1].given, S("sales@here.test"));
    test_case(t, "a member of a list: nothing");
    EXPECT_INT(t, r.list[2].notify, 0);
    EXPECT_STR(t, r.list[2].orcpt, ((struct str){0}));
    EXPECT_STR(t, r.list[2].reverse_path, S("owner@here.test"));
    test_case(t, "an alias to one: as asked");
    EXPECT_INT(t, r.list[3].notify, NOTIFY_SUCCESS | NOTIFY_DELAY);
    test_case(t, "a member where only SUCCESS was asked: no failure notice either");
    EXPECT_INT(t, r.list[4].notify, NOTIFY_NEVER);
    arena_done(&arena);
}

static void
keeps_each_once(struct test *t)
{
    struct mem mem = mem_libc();
    struct arena arena;
    struct recipients r;
    char memory[32];

    arena_init(&arena, &mem, 1024, 4 << 20);
    recipients_init(&r, &arena, 7);
    for (int round = 0; round < 2; round++)
        for (int i = 0; i < 5000; i++) {
            struct text address = text_init(memory, sizeof memory);
            text_putf(&address, "user%d@here.test", i);
            recipients_add(&r, &(struct rcpt_request){.address = text_str(&address)},
                           &(struct recipient){.address = text_str(&address)}, 1);
        }
    EXPECT_INT(t, r.count, 5000);
    EXPECT_STR(t, r.list[4999].address, S("user4999@here.test"));

    test_case(t, "named by the client counts more than reached by a list");
    struct recipient member = {
        .address = STR("anna@here.test"), .origin = RECIPIENT_MEMBER, .reverse_path = STR("owner@here.test")};
    struct recipient named = {.address = STR("anna@here.test"), .origin = RECIPIENT_GIVEN};
    recipients_add(&r, &(struct rcpt_request){.address = STR("list@here.test")}, &member, 1);
    recipients_add(&r, &(struct rcpt_request){.address = STR("anna@here.test"), .notify = NOTIFY_DELAY}, &named, 1);
    recipients_add(&r, &(struct rcpt_request){.address = STR("list@here.test")}, &member, 1);
    EXPECT_INT(t, r.count, 5001);
    EXPECT_INT(t, r.list[5000].origin, RECIPIENT_GIVEN);
    EXPECT_INT(t, r.list[5000].notify, NOTIFY_DELAY);
    EXPECT_STR(t, r.list[5000].reverse_path, ((struct str){0}));

    test_case(t, "their bytes are those of the envelope");
    struct envelope none = {0}, all = {.recipients = r.list, .recipient_count = r.count};
    EXPECT_INT(t, r.bytes, envelope_size(&all) - envelope_size(&none));
    arena_done(&arena);
}

TEST_MAIN({"reads MAIL", reads_mail}, {"reads RCPT", reads_rcpt}, {"without EHLO", without_ehlo},
          {"spreads DSN parameters", spreads_dsn_parameters}, {"keeps each once", keeps_each_once})
