/* tlsrpt_test - reports as they come, whole, packed, in mails, and broken; those of ../shared/conformance/tlsrpt-mail-auth. */
#include "policy/tlsrpt.h"

#include "base/base64.h"
#include "base/test.h"
#include "runtime/library.h"

#include <stdio.h>
#include <zlib.h>

#define RANGE "\"date-range\":{\"start-datetime\":\"2026-11-27T00:00:00Z\",\"end-datetime\":\"2026-11-27T23:59:59Z\"}"
#define POLICY "{\"policy\":{\"policy-type\":\"sts\",\"policy-domain\":\"a.example\"},\"summary\":{\"total-successful-session-count\":5," \
               "\"total-failure-session-count\":2}}"
#define WITH(policies) "{\"organization-name\":\"B\"," RANGE ",\"policies\":[" policies "]}"
#define FAILS(details) WITH("{\"policy\":{\"policy-type\":\"tlsa\"},\"summary\":{},\"failure-details\":" details "}")
#define REPORT WITH(POLICY)
#define DEEP "[[[[[[[["

static const struct {
    const char *why;
    struct str in;
    const char *wrong; /* NULL: it is read */
    size_t policies, failures;
    uint64_t succeeded, failed; /* of the first policy */
} cases[] = {
    { "the least", STR(WITH("")), NULL, 0, 0, 0, 0 },
    { "a policy", STR(REPORT), NULL, 1, 0, 5, 2 },
    { "a byte order mark, and spaces", STR("\xef\xbb\xbf \r\n" REPORT "\n"), NULL, 1, 0, 5, 2 },
    { "two policies", STR(WITH(POLICY "," POLICY)), NULL, 2, 0, 5, 2 },
    { "details", STR(FAILS("[{\"result-type\":\"x\"},{\"result-type\":\"y\",\"failed-session-count\":7}]")), NULL, 1, 2, 0, 0 },
    { "details that are null", STR(FAILS("null")), NULL, 1, 0, 0, 0 },
    { "a count in quotes", STR(WITH("{\"policy\":{\"policy-type\":\"sts\"},\"summary\":{\"total-failure-session-count\":\"3\"}}")), NULL,
      1, 0, 0, 3 },
    { "everything that there is",
      STR("{\"organization-name\":\"B\",\"contact-info\":\"b@b.example\",\"report-id\":\"1\",\"date-range\":{\"start-datetime\":"
          "\"2026-11-27T00:00:00Z\",\"end-datetime\":\"2026-11-27T23:59:59Z\"},\"policies\":[{\"policy\":{\"policy-type\":\"sts\","
          "\"policy-domain\":\"a.example\",\"policy-string\":[\"mode: enforce\"],\"mx-host\":[\"*.a.example\"]},\"summary\":{"
          "\"total-successful-session-count\":1,\"total-failure-session-count\":2},\"failure-details\":[{\"result-type\":"
          "\"validation-failure\",\"sending-mta-ip\":\"192.0.2.1\",\"receiving-mx-hostname\":\"mx.a.example\",\"receiving-mx-helo\":"
          "\"a\",\"receiving-ip\":\"2001:db8::1\",\"failed-session-count\":2,\"additional-information\":\"c\",\"failure-reason-code\":"
          "\"d\"}]}]}"),
      NULL, 1, 1, 1, 2 },
    { "words of other types are not said",
      STR(WITH("{\"policy\":{\"policy-type\":\"sts\",\"policy-domain\":3,\"mx-host\":{},\"policy-string\":[1,\"a\",null]},\"summary\":{}}")),
      NULL, 1, 0, 0, 0 },
    { "nothing", STR(""), "there is no TLS report in it", 0, 0, 0, 0 },
    { "some text", STR("hello\n"), "there is no TLS report in it", 0, 0, 0, 0 },
    { "a mail of something else", STR("Content-Type: text/plain\n\n" REPORT), "there is no TLS report in it", 0, 0, 0, 0 },
    { "an array", STR("[]"), "its JSON is an array", 0, 0, 0, 0 },
    { "broken off", STR("{\"policies\":["), "its JSON is broken at line 1, column 13", 0, 0, 0, 0 },
    { "something behind it", STR(REPORT "x"), "its JSON is broken", 0, 0, 0, 0 },
    { "a name twice", STR("{\"policies\":[],\"policies\":[]}"), "its JSON is broken", 0, 0, 0, 0 },
    { "a NUL", STR("{\"a\":\"\\u0000\"}"), "its JSON is broken", 0, 0, 0, 0 },
    { "no UTF-8", STR("{\"a\":\"\xff\"}"), "its JSON is broken", 0, 0, 0, 0 },
    { "no policies", STR("{\"a\":1}"), "policies is missing", 0, 0, 0, 0 },
    { "policies that are none", STR("{\"policies\":{}}"), "policies is not an array", 0, 0, 0, 0 },
    { "no range", STR("{\"policies\":[]}"), "date-range is missing", 0, 0, 0, 0 },
    { "a policy that is none", STR(WITH(POLICY ",3")), "policies[1] is not an object", 0, 0, 0, 0 },
    { "no summary", STR(WITH("{\"policy\":{\"policy-type\":\"sts\"}}")), "policies[0].summary is missing", 0, 0, 0, 0 },
    { "no type", STR(WITH("{\"policy\":{},\"summary\":{}}")), "policies[0].policy.policy-type is missing", 0, 0, 0, 0 },
    { "fewer than none", STR(WITH("{\"policy\":{\"policy-type\":\"sts\"},\"summary\":{\"total-failure-session-count\":-1}}")),
      "policies[0].summary.total-failure-session-count is not a number of sessions", 0, 0, 0, 0 },
    { "more than can be", STR(FAILS("[{\"result-type\":\"x\",\"failed-session-count\":99999999999999999999}]")), "its JSON is broken", 0, 0,
      0, 0 },
    { "details that are none", STR(FAILS("{}")), "policies[0].failure-details is not an array", 0, 0, 0, 0 },
    { "a detail that is none", STR(FAILS("[{\"result-type\":\"x\"},[]]")), "policies[0].failure-details[1] is not an object", 0, 0, 0, 0 },
    { "a detail without a result", STR(FAILS("[{}]")), "policies[0].failure-details[0].result-type is missing", 0, 0, 0, 0 },
    { "deep", STR("{\"a\":" DEEP DEEP), "its JSON nests deeper than 16", 0, 0, 0, 0 },
    { "brackets in a string are no depth", STR("{\"a\":\"" DEEP DEEP DEEP "\\\"" DEEP "\"}"), "policies is missing", 0, 0, 0, 0 },
};

struct reading {
    struct mem mem;
    struct arena arena;
    struct tlsrpt_reader *reader;
    struct tlsrpt report;
    char memory[TLSRPT_WHY_MAX];
    struct text why;
};

static void
begin(struct test *t, struct reading *r)
{
    r->mem = mem_libc();
    r->why = text_init(r->memory, sizeof r->memory);
    arena_init(&r->arena, &r->mem, 64 << 10, SIZE_MAX / 2);
    EXPECT(t, !err_is(tlsrpt_open(&r->mem, &r->reader, &r->why)));
}

static void
end(struct reading *r)
{
    tlsrpt_close(r->reader);
    arena_done(&r->arena);
}

static bool
read_it(struct reading *r, struct str in)
{
    struct str edge = test_edge(in);

    r->why.len = 0;
    arena_release(&r->arena);
    bool ok = tlsrpt_read(r->reader, edge, &r->arena, &r->report, &r->why);
    test_edge_free(edge);
    return ok;
}

static void
reads_json(struct test *t)
{
    struct reading r;

    begin(t, &r);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        test_case(t, cases[i].why);
        EXPECT(t, read_it(&r, cases[i].in) == !cases[i].wrong);
        EXPECT_STR(t, str_slice(text_str(&r.why), 0, str_from_cstr(cases[i].wrong ? cases[i].wrong : "").len),
                   str_from_cstr(cases[i].wrong ? cases[i].wrong : ""));
        if (cases[i].wrong || !EXPECT_INT(t, r.report.count, 1))
            continue;
        const struct tlsrpt_report *report = &r.report.reports[0];
        EXPECT_STR(t, report->organization, S("B"));
        EXPECT_STR(t, report->begin, S("2026-11-27T00:00:00Z"));
        if (!EXPECT_INT(t, report->policy_count, cases[i].policies) || cases[i].policies == 0)
            continue;
        EXPECT_INT(t, report->policies[0].failure_count, cases[i].failures);
        EXPECT_INT(t, report->policies[0].succeeded, cases[i].succeeded);
        EXPECT_INT(t, report->policies[0].failed, cases[i].failed);
    }
    end(&r);
}

static void
survives_cuts(struct test *t)
{
    struct reading r;
    struct str whole = S(FAILS("[{\"result-type\":\"x\",\"failed-session-count\":7}]"));

    begin(t, &r);
    for (size_t len = 0; len < whole.len; len++)
        EXPECT(t, !read_it(&r, str_slice(whole, 0, len)) && r.why.len > 0);
    end(&r);
}

/* ---- gzip, and mails ---------------------------------------------------------------------------------------------- */

struct packer {
    __typeof__(deflateInit2_) *init;
    __typeof__(deflate) *run;
    __typeof__(deflateEnd) *end;
};
static const struct library_function packing[] = {
    { "deflateInit2_", offsetof(struct packer, init) },
    { "deflate", offsetof(struct packer, run) },
    { "deflateEnd", offsetof(struct packer, end) },
};

/* In an arena of its own: reading empties the reader's. */
static struct str
pack(struct test *t, struct arena *arena, struct str in)
{
    struct packer p;
    char memory[200];
    struct text why = text_init(memory, sizeof memory);
    size_t cap = in.len + 1000;
    z_stream z = { .next_in = (unsigned char *)(uintptr_t)in.ptr, .avail_in = (unsigned)in.len,
                   .next_out = arena_alloc(arena, cap), .avail_out = (unsigned)cap };
    void *packed = z.next_out;

    EXPECT(t, !err_is(library_load("libz.so.1", packing, sizeof packing / sizeof *packing, &p, &why)));
    EXPECT(t, p.init(&z, 9, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY, ZLIB_VERSION, (int)sizeof z) == Z_OK);
    EXPECT(t, p.run(&z, Z_FINISH) == Z_STREAM_END);
    p.end(&z);
    return str_new(packed, z.total_out);
}

static struct str
mail_with(struct arena *arena, const char *type, const char *encoding, struct str body)
{
    return arena_printf(arena,
                        "From: b@b.example\r\nContent-Type: multipart/report; report-type=tlsrpt; boundary=x\r\n\r\n"
                        "--x\r\n\r\nFor people.\r\n--x\r\nContent-Type: %s; name=\"a\"\r\nContent-Transfer-Encoding: %s\r\n\r\n%.*s\r\n--x--\r\n",
                        type, encoding, STR_ARG(body));
}

static struct str
as_base64(struct arena *arena, struct str in)
{
    struct text t = text_init(arena_alloc(arena, 2 * in.len + 4), 2 * in.len + 4);

    base64_put(&t, in);
    return text_str(&t);
}

static void
unpacks(struct test *t)
{
    struct reading r;
    struct arena own;

    begin(t, &r);
    arena_init(&own, &r.mem, 64 << 10, SIZE_MAX / 2);
    struct str packed = pack(t, &own, S(REPORT)), large = { arena_alloc(&own, TLSRPT_BYTES_MAX + 1), TLSRPT_BYTES_MAX + 1 };
    EXPECT(t, read_it(&r, packed) && r.report.count == 1);
    for (size_t len = 0; len < packed.len; len++)
        EXPECT(t, !read_it(&r, str_slice(packed, 0, len)) && r.why.len > 0);
    test_case(t, "a bit that flipped");
    char *flipped = arena_cstr(&own, packed);
    flipped[packed.len - 8] ^= 1; /* in its check sum */
    EXPECT(t, !read_it(&r, str_new(flipped, packed.len)));
    EXPECT_STR(t, text_str(&r.why), S("its gzip data are damaged"));
    test_case(t, "a bomb");
    EXPECT(t, !read_it(&r, pack(t, &own, large)));
    EXPECT_STR(t, text_str(&r.why), S("it unpacks to more than 32 MiB"));
    test_case(t, "a large file");
    EXPECT(t, !read_it(&r, large));
    EXPECT_STR(t, text_str(&r.why), S("it is longer than 32 MiB"));
    test_case(t, "many values");
    char *many = arena_alloc(&own, 2 * TLSRPT_VALUES_MAX + 2);
    for (size_t i = 0; i < 2 * TLSRPT_VALUES_MAX; i++)
        many[i] = i % 2 ? ',' : i ? '1' : '[';
    EXPECT(t, !read_it(&r, str_new(many, 2 * TLSRPT_VALUES_MAX)));
    EXPECT_STR(t, text_str(&r.why), S("its JSON has more than 500000 values"));
    arena_done(&own);
    end(&r);
}

static void
finds_them_in_mails(struct test *t)
{
    static const struct {
        const char *why, *type, *encoding;
        struct str body; /* absent: the report packed, in base64 */
        bool ok;
    } mails[] = {
        { "gzip", "application/tlsrpt+gzip", "base64", { NULL, 0 }, true },
        { "case, and gzip by another name", "Application/GZIP", "BASE64", { NULL, 0 }, true },
        { "packed, though it says not", "application/tlsrpt+json", "base64", { NULL, 0 }, true },
        { "as it is", "application/tlsrpt+json", "8bit", STR(REPORT), true },
        { "quoted-printable", "application/tlsrpt+json", "quoted-printable", STR("=7B\"policies\":[],=\r\n\"date-range\":{=7D}=  \r\n"), true },
        { "not quoted-printable", "application/tlsrpt+json", "quoted-printable", STR("{\"a\":\"=zz\"}"), false },
        { "not base64", "application/tlsrpt+json", "base64", STR("{}"), false },
        { "an encoding that nobody knows", "application/tlsrpt+json", "x-uuencode", STR(REPORT), false },
        { "something else", "application/pdf", "base64", { NULL, 0 }, false },
        { "damaged", "application/tlsrpt+json", "7bit", STR("{"), false },
        { "nothing", "application/tlsrpt+json", "7bit", STR(""), false },
    };
    struct reading r;
    struct arena own;

    begin(t, &r);
    arena_init(&own, &r.mem, 64 << 10, SIZE_MAX / 2);
    struct str packed = as_base64(&own, pack(t, &own, S(REPORT)));
    for (size_t i = 0; i < sizeof mails / sizeof *mails; i++) {
        struct str body = str_is_absent(mails[i].body) ? packed : mails[i].body;
        test_case(t, mails[i].why);
        bool ok = read_it(&r, mail_with(&own, mails[i].type, mails[i].encoding, body));
        EXPECT(t, ok == mails[i].ok && (r.report.count == 1) == ok && (r.why.len == 0) == ok);
    }
    test_case(t, "two in one mail, the second broken");
    struct str two = arena_join(&own, S("Content-Type: multipart/mixed; boundary=y\r\n\r\n--y\r\n"),
                                mail_with(&own, "application/tlsrpt+json", "7bit", S(REPORT)));
    two = arena_join(&own, two, S("\r\n--y\r\nContent-Type: application/tlsrpt+json\r\n\r\n{\r\n--y--\r\n"));
    EXPECT(t, !read_it(&r, two));
    EXPECT_INT(t, r.report.count, 1);
    arena_done(&own);
    end(&r);
}

static void
reads_the_suite(struct test *t)
{
    static const struct {
        const char *path;
        size_t policies, failures;
        uint64_t succeeded, failed;
    } files[] = {
        { "conformance/tlsrpt-mail-auth/rpt01.eml", 1, 3, 5326, 303 },
        { "conformance/tlsrpt-mail-auth/rpt01.json", 1, 3, 5326, 303 },
        { "conformance/tlsrpt-mail-auth/rpt03.json", 2, 0, 2, 0 },
    };
    size_t count = sizeof files / sizeof *files, policies = 0, failures = 0;
    struct reading r;

    begin(t, &r);
    for (size_t i = 0; i < count; i++) {
        struct str file = test_shared_file(t, files[i].path);
        uint64_t succeeded = 0, failed = 0;
        size_t details = 0;
        if (str_is_absent(file))
            break;
        test_case(t, files[i].path);
        EXPECT(t, read_it(&r, file) && r.report.count == 1);
        const struct tlsrpt_report *report = &r.report.reports[0];
        for (size_t k = 0; k < report->policy_count; k++) {
            succeeded += report->policies[k].succeeded;
            failed += report->policies[k].failed;
            for (size_t n = 0; n < report->policies[k].failure_count; n++)
                EXPECT(t, !str_is_absent(tlsrpt_result_words(report->policies[k].failures[n].result)));
            details += report->policies[k].failure_count;
        }
        EXPECT_INT(t, report->policy_count, files[i].policies);
        EXPECT_INT(t, details, files[i].failures);
        EXPECT_INT(t, succeeded, files[i].succeeded);
        EXPECT_INT(t, failed, files[i].failed);
        policies += report->policy_count;
        failures += details;
        test_file_free(file);
    }
    printf("# tlsrpt-mail-auth: %zu files with %zu policies and %zu failure details\n", count, policies, failures);
    end(&r);
}

TEST_MAIN({ "reads reports, and says what is wrong with others", reads_json }, { "survives being cut anywhere", survives_cuts },
          { "unpacks, within bounds", unpacks }, { "finds them in mails", finds_them_in_mails },
          { "reads the public suite", reads_the_suite })
