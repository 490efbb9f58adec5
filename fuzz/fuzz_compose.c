/*
 * fuzz_compose - a whole message made of what a command line says (`postrider send`).
 *
 * Aims at: message/compose.c message/header.c
 * Seeds:   message/compose_test.c mime-mikel-mail/plain_emails
 * Longest: 2048
 * Test:    18000 runs
 * Choices: 1 bytes in front
 *
 * Fields of the input: To, Cc, a field, subject, name, attachment's name, its content, the text. What comes out fits what
 * was promised, has lines of at most 998 bytes that end with CRLF, is ASCII unless it may be more, and no value makes a
 * header field of its own: only the names that we write are there.
 */
#include "fuzz.h"

#include "message/compose.h"
#include "message/header.h"
#include "message/lines.h"

static void
check_fields(struct str header, struct str own_name)
{
    static const struct str known[] = { STR("From"), STR("To"), STR("Cc"), STR("Subject"), STR("Date"),
                                        STR("Message-ID"), STR("MIME-Version"), STR("Content-Type"),
                                        STR("Content-Transfer-Encoding"), STR("User-Agent") };
    struct header_field field;

    while (header_take(&header, &field)) {
        bool ours = str_eq_nocase(field.name, own_name);
        for (size_t i = 0; i < sizeof known / sizeof *known; i++)
            ours |= str_eq(field.name, known[i]);
        CHECK(ours);
    }
    CHECK(str_starts(header, S("\r\n")));
}

void
fuzz_one(struct str input, struct arena *arena)
{
    struct str rest = input;
    bool utf8 = fuzz_choice(&rest) & 1;
    struct str to = fuzz_field(&rest), cc = fuzz_field(&rest), value = fuzz_field(&rest);
    struct str subject = fuzz_field(&rest), name = fuzz_field(&rest);
    struct compose_attachment attachment = { .name = fuzz_field(&rest), .content = fuzz_field(&rest) };
    struct str field = arena_join(arena, S("X-Own: "), value);
    struct compose c = {
        .origin = { .address = S("user@host.example"), .name = name, .hostname = S("host.example"), .id = { 3, 4 } },
        .to = &to, .to_count = to.len > 0, .cc = &cc, .cc_count = cc.len > 0,
        .fields = &field, .field_count = value.len > 0,
        .subject = subject, .text = rest,
        .attachments = &attachment, .attachment_count = attachment.name.len > 0 || attachment.content.len > 0,
        .utf8 = utf8,
    };
    c.utf8 |= !str_is_ascii(to) || !str_is_ascii(cc); /* as the caller must */
    struct text t = fuzz_text(arena, compose_size(&c));
    struct fuzz_lines scan;

    compose_put(&t, &c);
    CHECK(!t.full);
    scan = fuzz_lines(text_str(&t));
    CHECK(!scan.bare_cr && !scan.bare_lf);
    CHECK(c.utf8 || !scan.eight_bit_header);
    check_fields(text_str(&t), S("X-Own"));
}
