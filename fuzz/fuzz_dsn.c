/*
 * fuzz_dsn - composing notices: whatever addresses, replies and originals are.
 *
 * Aims at: message/dsn.c
 * Seeds:   message/dsn_test.c bounces-sisimai/ mime-mikel-mail/multipart_report_emails
 * Longest: 4096
 * Test:    3000 runs
 * Choices: 3 bytes in front
 *
 * Fields of the input: ENVID, then for up to eight recipients address, given, ORCPT, status, reply, remote; the rest is the
 * original. What comes out is one message with three parts, without bare line ends (where the original has none), with lines
 * of at most 998 bytes (of ours), ASCII unless it says otherwise, the same however the original is cut; and every part of
 * the report has just the fields that we write.
 */
#include "fuzz.h"

#include "decode.h"
#include "message/dsn.h"
#include "message/lines.h"

enum { RECIPIENTS = 8 };

static struct str
write_notice(const struct dsn *dsn, struct str original, size_t step)
{
    struct dsn_writer w = { .dsn = dsn };
    static char piece_memory[DSN_PIECE], out_memory[2][(RECIPIENTS + 4) * DSN_PIECE];
    static unsigned turn; /* two notices can be compared */
    struct text out = text_init(out_memory[turn++ % 2], sizeof *out_memory);
    struct text piece = text_init(piece_memory, sizeof piece_memory);

    while (dsn_next(&w, &piece)) {
        CHECK(!piece.full);
        text_put(&out, text_str(&piece));
        piece.len = 0;
    }
    text_put(&out, text_str(&piece));
    for (size_t at = 0; at < original.len; at += step)
        text_put(&out, dsn_original(&w, str_slice(original, at, at + step)));
    piece.len = 0;
    dsn_end(&w, &piece);
    CHECK(!piece.full);
    text_put(&out, text_str(&piece));
    CHECK(!out.full);
    return text_str(&out);
}

static struct str
own_word(struct str *rest, size_t max, bool utf8)
{
    struct str s = str_slice(fuzz_field(rest), 0, max);

    return utf8 || str_is_ascii(s) ? s : S("a@b.example");
}

void
fuzz_one(struct str input, struct arena *arena)
{
    struct str rest = input;
    uint8_t choice = fuzz_choice(&rest), more = fuzz_choice(&rest);
    size_t step = 1 + fuzz_choice(&rest);
    bool utf8 = choice & 1;
    struct dsn_recipient recipients[RECIPIENTS];
    struct dsn dsn = { .id = { 5, 6 }, .original = { 7, 8 }, .hostname = S("mx.example.org"), .to = S("a@b.example"),
                       .arrival_wall = 1000000000, .now_wall = 2000000000, .ret = (choice >> 1) % 3,
                       .original_body = (choice >> 3) % 3, .original_utf8 = utf8, .recipients = recipients };
    struct decoded_body bodies[8];

    dsn.envid = choice & 32 ? own_word(&rest, 300, false) : (struct str){ 0 };
    dsn.recipient_count = 1 + more % RECIPIENTS;
    for (size_t i = 0; i < dsn.recipient_count; i++) {
        struct dsn_recipient *r = &recipients[i];
        *r = (struct dsn_recipient){ .action = (uint8_t)((more >> 3) + i) % (DSN_ACTION_LAST + 1) };
        r->address = own_word(&rest, 1024, true);
        if (r->address.len == 0)
            r->address = S("u@c.example");
        r->given = choice & 64 ? own_word(&rest, 1024, true) : (struct str){ 0 };
        r->orcpt = choice & 128 ? own_word(&rest, 500, utf8) : (struct str){ 0 };
        r->status = own_word(&rest, 20, true);
        r->reply = own_word(&rest, 1024, true);
        r->remote = own_word(&rest, 300, true);
        r->retry_until_wall = more & 128 ? 1700000000 : 0;
    }
    dsn.original_size = rest.len;
    struct str out = write_notice(&dsn, rest, step);
    CHECK(str_eq(out, write_notice(&dsn, rest, rest.len + 1)));

    struct str ours = write_notice(&dsn, S(""), 1);
    struct fuzz_lines lines;
    lines = fuzz_lines(ours);
    CHECK(!lines.bare_cr && !lines.bare_lf && !lines.nul && lines.longest <= 998);
    CHECK(dsn_is_utf8(&dsn) || !lines.eight_bit_header);
    size_t count = decode_message(arena, ours, bodies, 8);
    CHECK(count == 4 || count == 5); /* the report, its three parts, and an encapsulated message's own header */
    CHECK(bodies[0].entity.class == MIME_MULTIPART);
}
