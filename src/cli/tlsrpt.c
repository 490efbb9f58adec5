/*
 * tlsrpt - "postrider tlsrpt FILE...": the TLS reports (RFC 8460) that others sent us, in words. Everything in them is somebody
 * else's: nothing of it reaches a terminal unless it is plain text.
 */
#include "policy/tlsrpt.h"

#include "base/check.h"
#include "base/json.h"
#include "cli/cli.h"
#include "message/utf8.h"
#include "runtime/host.h"

#include <stddef.h>

enum {
    PAGE = 128 << 10,                           /* of output, written when it is half full */
    ENTRY_MAX = 8 * TLSRPT_WORD_MAX * 6 + 1000, /* a failure's words, all of them control characters, as JSON */
};
static_assert(PAGE / 2 >= ENTRY_MAX, "what is put between two looks at the page fits");

struct settings {
    bool json, failures;
};

static const struct option options[] = {
    { "--failures", NULL, OPTION_FLAG, offsetof(struct settings, failures), "only what sessions failed of" },
    { "--json", NULL, OPTION_FLAG, offsetof(struct settings, json), "as JSON, a line a report" },
    { 0 },
};

struct view {
    struct rt *rt;
    struct settings set;
    struct arena arena, words; /* of a file at a time; of the command line */
    struct tlsrpt_reader *reader;
    struct tlsrpt *report;
    struct text page;
    struct err output;
    size_t reports, shown;
    uint64_t succeeded, failed;
};

/* Sums of what others say do not wrap. */
static void
add(uint64_t *sum, uint64_t n)
{
    *sum = n > UINT64_MAX - *sum ? UINT64_MAX : *sum + n;
}

static void
flush(struct view *v, size_t above)
{
    if (v->page.len <= above)
        return;
    CHECK(!v->page.full);
    if (!err_is(v->output))
        v->output = terminal_write(TERMINAL_OUT, text_str(&v->page));
    v->page.len = 0;
}

static bool
is_shown(const struct view *v, const struct tlsrpt_policy *p)
{
    return !v->set.failures || p->failed > 0 || p->failure_count > 0;
}

static bool
is_report_shown(const struct view *v, const struct tlsrpt_report *r)
{
    bool shown = !v->set.failures;

    for (size_t i = 0; i < r->policy_count; i++)
        shown |= is_shown(v, &r->policies[i]);
    return shown;
}

/* ---- in words ---------------------------------------------------------------------------------------------------- */

static void
put_said(struct text *t, const char *before, struct str word)
{
    if (word.len == 0)
        return;
    text_put(t, str_from_cstr(before));
    utf8_put_visible(t, word);
}

static void
put_failure(struct text *t, const struct tlsrpt_failure *f)
{
    struct str words = tlsrpt_result_words(f->result);

    text_putf(t, "  %8llu  ", (unsigned long long)f->sessions);
    utf8_put_visible(t, f->result);
    put_said(t, ": ", words);
    text_put(t, S("\n            "));
    put_said(t, "from ", f->sending_address);
    put_said(t, f->sending_address.len ? " to " : "to ", f->receiving_host);
    put_said(t, " at ", f->receiving_address);
    put_said(t, ", which called itself ", f->receiving_helo);
    if (f->sending_address.len + f->receiving_host.len + f->receiving_address.len + f->receiving_helo.len == 0)
        text_put(t, S("it does not say where"));
    put_said(t, "\n            reason: ", f->reason);
    put_said(t, "\n            more: ", f->information);
    text_put_byte(t, '\n');
}

/* The mode that an MTA-STS policy had: whether mail was held back. */
static struct str
policy_mode(const struct tlsrpt_policy *p)
{
    for (size_t i = 0; i < p->line_count; i++) {
        struct str line = p->lines[i];
        if (str_take_nocase(&line, S("mode:")))
            return str_trim(line);
    }
    return S("");
}

static void
put_policy(struct text *t, const struct tlsrpt_policy *p)
{
    struct str words = tlsrpt_policy_words(p->type);

    text_put(t, S("  "));
    utf8_put_visible(t, p->domain.len ? p->domain : S("(no domain said)"));
    text_put(t, S(", "));
    if (str_is_absent(words))
        put_said(t, "policy of unknown type ", p->type);
    else
        text_put(t, words);
    put_said(t, " ", policy_mode(p));
    text_putf(t, "; sessions: %llu succeeded, %llu failed\n", (unsigned long long)p->succeeded, (unsigned long long)p->failed);
}

static void
put_report(struct view *v, struct str file, const struct tlsrpt_report *r)
{
    text_put(&v->page, v->shown > 0 ? S("\n") : S(""));
    utf8_put_visible(&v->page, r->organization.len ? r->organization : S("Somebody"));
    put_said(&v->page, " reports of ", r->begin);
    put_said(&v->page, " to ", r->end);
    put_said(&v->page, "\n  contact ", r->contact);
    put_said(&v->page, "\n  report ", r->id);
    put_said(&v->page, "\n  in ", file);
    text_put_byte(&v->page, '\n');
    flush(v, PAGE / 2);
    for (size_t i = 0; i < r->policy_count; i++) {
        const struct tlsrpt_policy *p = &r->policies[i];
        if (!is_shown(v, p))
            continue;
        put_policy(&v->page, p);
        flush(v, PAGE / 2);
        for (size_t k = 0; k < p->failure_count; k++) {
            put_failure(&v->page, &p->failures[k]);
            flush(v, PAGE / 2);
        }
    }
}

/* ---- as JSON ----------------------------------------------------------------------------------------------------- */

static void
json_put_count(struct text *t, const char *name, uint64_t n)
{
    json_put_number(t, name, n > INT64_MAX ? INT64_MAX : (int64_t)n);
}

static void
json_put_said(struct text *t, const char *name, struct str word)
{
    if (!str_is_absent(word))
        json_put_field(t, name, word);
}

static void
json_put_words(struct view *v, const char *name, const struct str *words, size_t count)
{
    json_put_name(&v->page, name);
    text_put_byte(&v->page, '[');
    for (size_t i = 0; i < count; i++) {
        text_put(&v->page, i ? S(",") : S(""));
        json_put_str(&v->page, words[i]);
        flush(v, PAGE / 2);
    }
    text_put_byte(&v->page, ']');
}

static void
json_put_failure(struct text *t, const struct tlsrpt_failure *f)
{
    text_put_byte(t, '{');
    json_put_field(t, "result", f->result);
    json_put_count(t, "sessions", f->sessions);
    json_put_said(t, "sending-address", f->sending_address);
    json_put_said(t, "receiving-host", f->receiving_host);
    json_put_said(t, "receiving-address", f->receiving_address);
    json_put_said(t, "receiving-helo", f->receiving_helo);
    json_put_said(t, "reason", f->reason);
    json_put_said(t, "information", f->information);
    text_put_byte(t, '}');
}

static void
json_put_policy(struct view *v, const struct tlsrpt_policy *p)
{
    text_put_byte(&v->page, '{');
    json_put_field(&v->page, "type", p->type);
    json_put_said(&v->page, "domain", p->domain);
    json_put_count(&v->page, "succeeded", p->succeeded);
    json_put_count(&v->page, "failed", p->failed);
    json_put_words(v, "policy", p->lines, p->line_count);
    json_put_words(v, "hosts", p->hosts, p->host_count);
    text_put(&v->page, S(",\"failures\":["));
    for (size_t k = 0; k < p->failure_count; k++) {
        text_put(&v->page, k ? S(",") : S(""));
        json_put_failure(&v->page, &p->failures[k]);
        flush(v, PAGE / 2);
    }
    text_put(&v->page, S("]}"));
}

static void
json_put_report(struct view *v, struct str file, const struct tlsrpt_report *r)
{
    bool first = true;

    text_put(&v->page, S("{\"version\":1"));
    json_put_field(&v->page, "file", file);
    json_put_said(&v->page, "organization", r->organization);
    json_put_said(&v->page, "contact", r->contact);
    json_put_said(&v->page, "id", r->id);
    json_put_said(&v->page, "begin", r->begin);
    json_put_said(&v->page, "end", r->end);
    text_put(&v->page, S(",\"policies\":["));
    flush(v, PAGE / 2);
    for (size_t i = 0; i < r->policy_count; i++) {
        if (!is_shown(v, &r->policies[i]))
            continue;
        text_put(&v->page, first ? S("") : S(","));
        first = false;
        json_put_policy(v, &r->policies[i]);
    }
    text_put(&v->page, S("]}\n"));
}

/* ---- postrider tlsrpt -------------------------------------------------------------------------------------------- */

static void
take_report(struct view *v, struct str file, const struct tlsrpt_report *r)
{
    if (is_report_shown(v, r)) {
        (v->set.json ? json_put_report : put_report)(v, file, r);
        v->shown++;
    }
    v->reports++;
    for (size_t i = 0; i < r->policy_count; i++) {
        const struct tlsrpt_policy *p = &r->policies[i];
        uint64_t detailed = 0;
        for (size_t k = 0; k < p->failure_count; k++)
            add(&detailed, p->failures[k].sessions);
        add(&v->succeeded, p->succeeded);
        add(&v->failed, p->failed > detailed ? p->failed : detailed); /* some count only where they say why */
    }
}

/* What went wrong with a file, if anything did; then the others are still read. */
static int
take_file(struct view *v, struct str file)
{
    char memory[TLSRPT_WHY_MAX], visible_memory[4 * TLSRPT_WHY_MAX];
    struct text why = text_init(memory, sizeof memory), visible = text_init(visible_memory, sizeof visible_memory);
    struct str name = str_eq(file, S("-")) ? S("standard input") : file, bytes;
    struct err e = host_read_file(v->rt, file, TLSRPT_BYTES_MAX, &v->arena, FOREVER, &bytes);

    if (err_is(e))
        return cli_fail(&verb_tlsrpt, e.kind == ERR_LIMIT ? EXIT_DATA : EXIT_NO_INPUT, "%.*s: %.*s", STR_ARG(name),
                        STR_ARG(cli_error(e, &v->arena)));
    bool ok = tlsrpt_read(v->reader, bytes, &v->arena, v->report, &why);
    for (size_t i = 0; i < v->report->count; i++)
        take_report(v, name, &v->report->reports[i]);
    flush(v, 0);
    if (ok)
        return EXIT_WELL;
    utf8_put_visible(&visible, text_str(&why));
    return cli_fail(&verb_tlsrpt, EXIT_DATA, "%.*s: %.*s", STR_ARG(name), STR_ARG(text_str(&visible)));
}

static int
take_files(struct view *v, const struct words *files)
{
    static const struct str standard_input = STR("-");
    size_t count = files->count ? files->count : 1;
    int exit = EXIT_WELL;

    for (size_t i = 0; i < count; i++) {
        int result = take_file(v, files->count ? files->word[i] : standard_input);
        exit = exit == EXIT_WELL ? result : exit;
        arena_release(&v->arena);
    }
    if (!v->set.json && v->reports > 1) {
        text_putf(&v->page, "\n%zu reports; sessions: %llu succeeded, %llu failed\n", v->reports, (unsigned long long)v->succeeded,
                  (unsigned long long)v->failed);
        flush(v, 0);
    }
    if (exit == EXIT_WELL && err_is(v->output))
        exit = EXIT_IO;
    return exit != EXIT_WELL ? exit : v->failed > 0 ? EXIT_FALSE : EXIT_WELL;
}

static int
run(struct rt *rt, int argc, char **argv)
{
    struct view *v = mem_new(rt_mem(rt), struct view);
    char memory[TLSRPT_WHY_MAX];
    struct text why = text_init(memory, sizeof memory);
    struct words files = { 0 };
    int exit;

    v->rt = rt;
    arena_init(&v->arena, rt_mem(rt), 64 << 10, SIZE_MAX / 2);
    arena_init(&v->words, rt_mem(rt), 4096, SIZE_MAX / 2);
    if (cli_parse(&verb_tlsrpt, argc, argv, &v->words, &v->set, &files, &exit)) {
        v->report = arena_new(&v->words, struct tlsrpt);
        v->page = text_init(arena_alloc(&v->words, PAGE), PAGE);
        if (err_is(tlsrpt_open(rt_mem(rt), &v->reader, &why)))
            exit = cli_fail(&verb_tlsrpt, EXIT_OS, "%.*s", STR_ARG(text_str(&why)));
        else
            exit = take_files(v, &files);
    }
    if (v->reader)
        tlsrpt_close(v->reader);
    arena_done(&v->arena);
    arena_done(&v->words);
    mem_free(rt_mem(rt), v, sizeof *v);
    return exit;
}

const struct verb verb_tlsrpt = {
    .name = "tlsrpt",
    .summary = "read what others report of TLS on its way to us",
    .arguments = "[FILE...]",
    .about = "Reads aggregate reports of SMTP TLS Reporting (RFC 8460): JSON, gzipped JSON, or the mails that brought them; of\n"
             "standard input if no FILE is named, or \"-\". A report says what its author saw; who that was is not verified.\n"
             "\n"
             "  postrider tlsrpt --failures /var/mail/tls-reports/new/*\n"
             "\n"
             "Reports come when the DNS asks for them, at _smtp._tls.DOMAIN:  TXT \"v=TLSRPTv1; rua=mailto:tls-reports@DOMAIN\"\n"
             "\n"
             "Exit codes: 0 no session failed; 1 some did; 65 a file is no report, or too large; 66 a file cannot be read.\n",
    .options = options,
    .run = run,
};
