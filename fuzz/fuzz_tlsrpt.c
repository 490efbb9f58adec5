/*
 * fuzz_tlsrpt - what others report of TLS: JSON, gzip, or a mail around either.
 *
 * Aims at: policy/tlsrpt.c policy/tlsrpt_json.c
 * Seeds:   policy/tlsrpt_test.c tlsrpt-mail-auth/
 * Longest: 3000
 * Test:    20000 runs
 *
 * What is read is text of bounded length, and what is not is said why. A report says the same when a mail brings it.
 */
#include "fuzz.h"

#include "base/base64.h"
#include "message/utf8.h"
#include "policy/tlsrpt.h"

static void
check_word(struct str word)
{
    CHECK(word.len <= TLSRPT_WORD_MAX && utf8_is_valid(word));
}

static void
check_policy(const struct tlsrpt_policy *p)
{
    CHECK(!str_is_absent(p->type));
    check_word(p->type);
    check_word(p->domain);
    for (size_t i = 0; i < p->line_count; i++)
        check_word(p->lines[i]);
    for (size_t i = 0; i < p->host_count; i++)
        check_word(p->hosts[i]);
    for (size_t i = 0; i < p->failure_count; i++) {
        const struct tlsrpt_failure *f = &p->failures[i];
        CHECK(!str_is_absent(f->result));
        check_word(f->result);
        check_word(f->sending_address);
        check_word(f->receiving_host);
        check_word(f->receiving_helo);
        check_word(f->receiving_address);
        check_word(f->reason);
        check_word(f->information);
    }
}

static bool
is_same_policy(const struct tlsrpt_policy *a, const struct tlsrpt_policy *b)
{
    return str_eq(a->type, b->type) && str_eq(a->domain, b->domain) && a->failure_count == b->failure_count &&
           a->line_count == b->line_count && a->host_count == b->host_count && a->succeeded == b->succeeded && a->failed == b->failed;
}

static void
check_mailed(struct tlsrpt_reader *reader, struct str input, const struct tlsrpt_report *report, struct arena *arena)
{
    struct tlsrpt *mailed = arena_new(arena, struct tlsrpt);
    struct text mail = fuzz_text(arena, 2 * input.len + 200), why = fuzz_text(arena, TLSRPT_WHY_MAX);

    text_put(&mail, S("Content-Type: application/tlsrpt+gzip\r\nContent-Transfer-Encoding: base64\r\n\r\n"));
    base64_put(&mail, input);
    CHECK(tlsrpt_read(reader, text_str(&mail), arena, mailed, &why) && mailed->count == 1);
    const struct tlsrpt_report *again = &mailed->reports[0];
    CHECK(str_eq(again->organization, report->organization) && again->policy_count == report->policy_count);
    for (size_t i = 0; i < report->policy_count; i++)
        CHECK(is_same_policy(&again->policies[i], &report->policies[i]));
}

void
fuzz_one(struct str input, struct arena *arena)
{
    struct tlsrpt *read = arena_new(arena, struct tlsrpt);
    struct text why = fuzz_text(arena, TLSRPT_WHY_MAX);
    struct tlsrpt_reader *reader;

    CHECK(!err_is(tlsrpt_open(own_mem, &reader, &why)));
    bool ok = tlsrpt_read(reader, input, arena, read, &why);
    CHECK(ok == (why.len == 0) && (!ok || read->count > 0) && read->count <= TLSRPT_REPORTS_MAX);
    for (size_t i = 0; i < read->count; i++)
        for (size_t k = 0; k < read->reports[i].policy_count; k++)
            check_policy(&read->reports[i].policies[k]);
    bool is_mail = !str_starts(input, S("\x1f\x8b")) && !str_starts(input, S("{"));
    if (ok && !is_mail)
        check_mailed(reader, input, &read->reports[0], arena);
    tlsrpt_close(reader);
}
