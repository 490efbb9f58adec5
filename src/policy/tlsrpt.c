/* tlsrpt - see tlsrpt.h: what a file holds, and what the types mean. zlib is spoken to here alone. */
#include "policy/tlsrpt.h"

#include "message/header.h"
#include "message/mime.h"
#include "runtime/library.h"

#include <string.h>
#include <zlib.h>

enum { GZIP_WINDOW = 15 + 16, PART_HEADER_MAX = 16 << 10, PIECE = 64 << 10, RATIO_FIRST = 8 };

struct zlib { /* what we use of it */
    __typeof__(inflateInit2_) *init;
    __typeof__(inflate) *run;
    __typeof__(inflateEnd) *end;
};
static const struct library_function functions[] = {
    { "inflateInit2_", offsetof(struct zlib, init) },
    { "inflate", offsetof(struct zlib, run) },
    { "inflateEnd", offsetof(struct zlib, end) },
};

struct tlsrpt_reader {
    struct mem *mem;
    struct zlib zlib;
    struct tlsrpt_json *json;
};

struct err
tlsrpt_open(struct mem *mem, struct tlsrpt_reader **out, struct text *out_why)
{
    struct tlsrpt_reader r = { .mem = mem };

    TRY(library_load("libz.so.1", functions, sizeof functions / sizeof *functions, &r.zlib, out_why));
    TRY(tlsrpt_json_open(mem, &r.json, out_why));
    *out = mem_new(mem, struct tlsrpt_reader);
    **out = r;
    return OK;
}

void
tlsrpt_close(struct tlsrpt_reader *r)
{
    tlsrpt_json_close(r->json);
    mem_free(r->mem, r, sizeof *r);
}

/* ---- one file ---------------------------------------------------------------------------------------------------- */

struct file {
    struct tlsrpt_reader *reader;
    struct arena *arena;
    struct tlsrpt_budget budget;
    struct tlsrpt *out;
    struct text *why;
};

static bool read_mail(struct file *f, struct str bytes);

static bool
is_gzip(struct str bytes)
{
    return str_starts(bytes, S("\x1f\x8b"));
}

static bool
is_json(struct str bytes)
{
    str_take(&bytes, S("\xef\xbb\xbf"));
    bytes = str_trim(bytes);
    return str_starts(bytes, S("{")) || str_starts(bytes, S("["));
}

/* All of it, or what the budget has room for and one byte more. */
static bool
inflate_all(const struct zlib *zlib, z_stream *z, struct file *f, struct str *out)
{
    size_t cap = 0;
    int status = Z_OK;
    char *memory = NULL;

    while (status == Z_OK && z->total_out <= f->budget.bytes) {
        if (z->total_out == cap) {
            size_t more = cap ? 2 * cap : PIECE + (size_t)z->avail_in * RATIO_FIRST;
            more = more > f->budget.bytes ? f->budget.bytes + 1 : more;
            char *larger = arena_alloc(f->arena, more);
            if (cap)
                memcpy(larger, memory, cap);
            memory = larger;
            cap = more;
        }
        z->next_out = (unsigned char *)memory + z->total_out;
        z->avail_out = (unsigned)(cap - z->total_out);
        status = zlib->run(z, Z_NO_FLUSH);
    }
    *out = str_new(memory, z->total_out);
    if (z->total_out > f->budget.bytes)
        text_putf(f->why, "it unpacks to more than %d MiB", TLSRPT_BYTES_MAX >> 20);
    else if (status != Z_STREAM_END)
        text_putf(f->why, status == Z_BUF_ERROR ? "its gzip data end too early" : "its gzip data are damaged");
    return f->why->len == 0;
}

static bool
read_gzip(struct file *f, struct str bytes, struct str *out)
{
    const struct zlib *zlib = &f->reader->zlib;
    z_stream z = { .next_in = (unsigned char *)(uintptr_t)bytes.ptr, .avail_in = (unsigned)bytes.len };

    if (zlib->init(&z, GZIP_WINDOW, ZLIB_VERSION, (int)sizeof z) != Z_OK) {
        text_put(f->why, S("zlib does not start"));
        return false;
    }
    bool ok = inflate_all(zlib, &z, f, out);
    zlib->end(&z);
    return ok;
}

/* A report that is not in a mail, or no longer. */
static bool
read_report(struct file *f, struct str bytes)
{
    if (is_gzip(bytes) && !read_gzip(f, bytes, &bytes))
        return false;
    if (!is_json(bytes)) {
        text_put(f->why, S("there is no JSON in it"));
        return false;
    }
    if (bytes.len > f->budget.bytes || f->out->count >= TLSRPT_REPORTS_MAX) {
        text_putf(f->why, "it holds more than %d reports, or more than %d MiB of them", TLSRPT_REPORTS_MAX, TLSRPT_BYTES_MAX >> 20);
        return false;
    }
    f->budget.bytes -= bytes.len;
    if (!tlsrpt_json_read(f->reader->json, bytes, f->arena, &f->budget, &f->out->reports[f->out->count], f->why))
        return false;
    f->out->count++;
    return true;
}

bool
tlsrpt_read(struct tlsrpt_reader *reader, struct str bytes, struct arena *arena, struct tlsrpt *out, struct text *out_why)
{
    struct file f = { reader, arena, { TLSRPT_BYTES_MAX, TLSRPT_VALUES_MAX }, out, out_why };

    out->count = 0;
    if (bytes.len > TLSRPT_BYTES_MAX) {
        text_putf(out_why, "it is longer than %d MiB", TLSRPT_BYTES_MAX >> 20);
        return false;
    }
    return is_gzip(bytes) || is_json(bytes) ? read_report(&f, bytes) : read_mail(&f, bytes);
}

/* ---- a mail ------------------------------------------------------------------------------------------------------ */

/* Section 3 names two types. Gateways that know neither write what a file's name tells them. */
static bool
is_report_type(struct str header)
{
    static const struct str types[] = {
        STR("application/tlsrpt+gzip"), STR("application/tlsrpt+json"), STR("application/gzip"), STR("application/x-gzip"),
        STR("application/json"),
    };
    struct header_field field;

    while (header_take(&header, &field)) {
        if (!str_eq_nocase(field.name, S("Content-Type")))
            continue;
        struct str type = str_trim(str_cut(&field.value, ';'));
        for (size_t i = 0; i < sizeof types / sizeof *types; i++)
            if (str_eq_nocase(type, types[i]))
                return true;
        return false;
    }
    return false;
}

struct part {
    struct text header, body;
    bool is_report;
    enum mime_encoding encoding;
};

/* A part is over. */
static bool
end_part(struct file *f, struct part *p)
{
    struct text decoded;

    if (!p->is_report)
        return true;
    p->is_report = false;
    decoded = text_init(arena_alloc(f->arena, p->body.len), p->body.len);
    if (!mime_decode(p->encoding, text_str(&p->body), &decoded)) {
        text_put(f->why, S("the part with the report is not encoded as it says"));
        return false;
    }
    return read_report(f, text_str(&decoded));
}

static bool
take_piece(struct file *f, struct part *p, const struct mime *mime, const struct mime_piece *piece)
{
    if (piece->place == MIME_FIELD) {
        text_put(&p->header, piece->bytes);
    } else if (piece->place == MIME_HEADER_END) {
        if (!end_part(f, p))
            return false;
        p->is_report = is_report_type(text_str(&p->header));
        p->encoding = mime_entity(mime)->encoding;
        p->header.len = p->body.len = 0;
    } else if (piece->place == MIME_BODY && p->is_report) {
        text_put(&p->body, piece->bytes);
    }
    return true;
}

static bool
read_mail(struct file *f, struct str bytes)
{
    struct mime *mime = mime_new(f->arena);
    struct part part = {
        .header = text_init(arena_alloc(f->arena, PART_HEADER_MAX), PART_HEADER_MAX),
        .body = text_init(arena_alloc(f->arena, bytes.len), bytes.len),
    };
    struct mime_piece piece;

    while (mime_next(mime, &bytes, &piece))
        if (!take_piece(f, &part, mime, &piece))
            return false;
    while (mime_end(mime, &piece))
        if (!take_piece(f, &part, mime, &piece))
            return false;
    if (!end_part(f, &part))
        return false;
    if (f->out->count == 0)
        text_put(f->why, S("there is no TLS report in it: neither JSON, gzip, nor a mail with a part application/tlsrpt+gzip or +json"));
    return f->out->count > 0;
}

/* ---- the words of RFC 8460 --------------------------------------------------------------------------------------- */

struct word {
    struct str type, words;
};

static struct str
words_of(const struct word *table, size_t count, struct str type)
{
    for (size_t i = 0; i < count; i++)
        if (str_eq(table[i].type, type))
            return table[i].words;
    return (struct str){ NULL, 0 };
}

struct str
tlsrpt_result_words(struct str type) /* section 4.3 */
{
    static const struct word words[] = {
        { STR("starttls-not-supported"), STR("the host did not offer STARTTLS") },
        { STR("certificate-host-mismatch"), STR("the certificate is for another name") },
        { STR("certificate-expired"), STR("the certificate has expired") },
        { STR("certificate-not-trusted"), STR("the sender trusts nobody who signed the certificate") },
        { STR("validation-failure"), STR("TLS failed for another reason") },
        { STR("tlsa-invalid"), STR("the TLSA records are wrong, or none fits the certificate") },
        { STR("dnssec-invalid"), STR("the DNS answers do not pass DNSSEC") },
        { STR("dane-required"), STR("the sender wants DANE, and there are no TLSA records for it") },
        { STR("sts-policy-fetch-error"), STR("the MTA-STS policy could not be fetched") },
        { STR("sts-policy-invalid"), STR("the MTA-STS policy is written wrongly") },
        { STR("sts-webpki-invalid"), STR("the certificate of the MTA-STS policy's web server is not valid") },
    };

    return words_of(words, sizeof words / sizeof *words, type);
}

struct str
tlsrpt_policy_words(struct str type) /* section 4.2 */
{
    static const struct word words[] = {
        { STR("tlsa"), STR("DANE") },
        { STR("sts"), STR("MTA-STS") },
        { STR("no-policy-found"), STR("no policy") },
    };

    return words_of(words, sizeof words / sizeof *words, type);
}
