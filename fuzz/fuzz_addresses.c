/*
 * fuzz_addresses - the address lists of From, To and Cc, and the recipients that `sendmail -t` finds in a header.
 *
 * Aims at: message/addresses.c message/compose.c
 * Seeds:   message/compose_test.c address-isemail/ mime-mikel-mail/rfc2822 mime-mikel-mail/rfc6532
 * Longest: 2048
 * Test:    28000 runs
 *
 * The walk ends, takes something each time, and gives parts of the input. An address that was taken can be printed and taken
 * again. A header made complete has everything that it must have, once, and no Bcc.
 */
#include "fuzz.h"

#include "message/compose.h"
#include "message/header.h"

static void
check_mailbox(const struct mailbox *m, struct arena *arena)
{
    struct path again;
    struct text printed = fuzz_text(arena, 2 * (m->path.local.len + m->path.domain.len) + 100);

    path_put(&printed, m->path);
    CHECK(!printed.full);
    if (printed.len > 0 && printed.len < 1000 && path_parse(text_str(&printed), arena, &again))
        CHECK(path_eq(again, m->path));
}

static void
walk(struct str input, struct arena *arena)
{
    struct mailbox mailbox;

    for (struct str rest = input;;) {
        struct str before = rest;
        enum addresses what = addresses_next(&rest, arena, &mailbox);
        if (what == ADDRESSES_END)
            break;
        CHECK(rest.len < before.len && rest.ptr + rest.len == before.ptr + before.len);
        CHECK(mailbox.text.ptr >= before.ptr && mailbox.text.ptr + mailbox.text.len <= before.ptr + before.len);
        if (what == ADDRESSES_ONE)
            check_mailbox(&mailbox, arena);
    }
}

static size_t
count(struct str header, struct str name)
{
    struct header_field field;
    size_t n = 0;

    while (header_take(&header, &field))
        n += str_eq_nocase(field.name, name);
    return n;
}

static void
complete(struct str input, struct arena *arena)
{
    const struct compose_origin origin = { .address = S("user@host.example"), .name = S("A User"),
                                           .hostname = S("host.example"), .domain = S("host.example"),
                                           .id = { 1, 2 }, .wall = 1 };
    struct compose_recipients recipients = { .header = input };
    struct mailbox mailbox;
    size_t found = 0;

    while (compose_next_recipient(&recipients, arena, &mailbox) != ADDRESSES_END)
        CHECK(++found <= input.len);
    struct str body = input;
    struct text t = fuzz_text(arena, compose_header_size(input, &origin));
    compose_header(&t, &body, &origin, arena->mem);
    CHECK(!t.full);
    struct str header = text_str(&t);
    CHECK(str_ends(header, S("\r\n")) && body.len <= input.len);
    CHECK(count(header, S("Bcc")) == 0 && count(header, S("Resent-Bcc")) == 0);
    CHECK(count(header, S("From")) >= 1 && count(header, S("Date")) >= 1 && count(header, S("Message-ID")) >= 1);
    for (size_t i = 0; i < header.len; i++)
        CHECK(header.ptr[i] != '\n' || header.ptr[i - 1] == '\r');
}

void
fuzz_one(struct str input, struct arena *arena)
{
    walk(input, arena);
    complete(input, arena);
}
