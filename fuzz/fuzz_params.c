/*
 * fuzz_params - what follows MAIL and RCPT: paths and the parameters SIZE, BODY, SMTPUTF8, RET, ENVID, NOTIFY, ORCPT.
 *
 * Aims at: smtp/params.c message/xtext.c
 * Seeds:   smtp/params_test.c smtp/server_test.c smtp-commands/ unit-postfix/
 * Longest: 4200
 * Test:    88000 runs
 *
 * The input is one MAIL and one RCPT, a byte 0xff between them. What is accepted is fit for an envelope: short enough, no
 * control character, encodes and comes back the same. What is refused has a 5xx, or 4xx, that is made for it; and the
 * request kept in another arena is the same.
 */
#include "fuzz.h"

#include "base/limits.h"
#include "message/xtext.h"
#include "smtp/params.h"

static void
check_refusal(const struct reply *reply)
{
    CHECK(reply->code >= 450 && reply->code <= 559 && reply->enhanced.len >= 5 && reply->text.len > 0);
    CHECK((unsigned)(reply->enhanced.ptr[0] - '0') == reply->code / 100);
}

static void
check_text(struct str s, bool utf8)
{
    CHECK(s.len <= LIMIT_COMMAND_LINE);
    CHECK(utf8 || str_is_ascii(s));
    for (size_t i = 0; i < s.len; i++)
        CHECK((unsigned char)s.ptr[i] >= ' ' && s.ptr[i] != 0x7f);
}

static void
check_envelope(const struct mail_request *mail, const struct rcpt_request *rcpt, struct arena *arena)
{
    struct recipient recipient = { .address = rcpt->address, .orcpt = rcpt->orcpt, .notify = rcpt->notify };
    struct envelope envelope = { .reverse_path = mail->address, .envid = mail->envid, .ret = mail->ret,
                                 .body = mail->body, .smtputf8 = mail->smtputf8, .recipients = &recipient,
                                 .recipient_count = 1 }, back;
    size_t size = envelope_size(&envelope);
    struct put put = put_init(arena_alloc(arena, size), size);

    envelope_put(&put, &envelope);
    CHECK(!put.full);
    struct take take = take_init(put_str_so_far(&put));
    CHECK(envelope_take(&take, arena, &back) && take_end(&take));
    CHECK(str_eq(back.reverse_path, mail->address) && str_eq(back.recipients[0].address, rcpt->address));
    CHECK(str_eq(back.envid, mail->envid) && str_is_absent(back.envid) == str_is_absent(mail->envid));
}

static void
check_orcpt(struct str orcpt, bool utf8, struct arena *arena)
{
    CHECK(orcpt_is_valid(orcpt, utf8));
    for (int i = 0; i < 2; i++) {
        struct text shown = fuzz_text(arena, 8 * orcpt.len + 100);
        orcpt_put_decoded(&shown, orcpt, i);
        CHECK(!shown.full);
        check_text(str_slice(text_str(&shown), 0, LIMIT_COMMAND_LINE), i);
    }
}

static const struct mail_offers offers = { .size_max = 100000, .auth = true, .wall = 1, .hold_max = DAY };

void
fuzz_one(struct str input, struct arena *arena)
{
    struct str rest = input, mail_args = fuzz_field(&rest), rcpt_args = rest;
    struct arena longer;
    struct mail_request mail = { 0 };
    struct rcpt_request rcpt = { 0 };

    for (int extended = 0; extended < 2; extended++) {
        const struct reply *refusal = mail_request_parse(mail_args, extended, &offers, arena, &mail);
        if (refusal) {
            check_refusal(refusal);
            mail = (struct mail_request){ .smtputf8 = extended };
        } else {
            CHECK(extended || (str_is_absent(mail.envid) && !mail.ret && !mail.body && !mail.smtputf8 && !mail.size));
            check_text(mail.address, mail.smtputf8);
            if (!str_is_absent(mail.envid))
                CHECK(envid_is_valid(mail.envid));
            arena_init(&longer, own_mem, 512, 1 << 20);
            struct mail_request kept = mail_request_keep(&mail, &longer);
            CHECK(str_eq(kept.address, mail.address) && str_eq(kept.envid, mail.envid));
            CHECK(path_eq(kept.reverse_path, mail.reverse_path));
            arena_done(&longer);
        }
        refusal = rcpt_request_parse(rcpt_args, extended, &mail, (struct str){ 0 }, arena, &rcpt);
        if (refusal) {
            check_refusal(refusal);
            continue;
        }
        CHECK(rcpt.address.len > 0); /* of which, in quotes, the local part may be empty */
        check_text(rcpt.address, mail.smtputf8);
        if (!str_is_absent(rcpt.orcpt))
            check_orcpt(rcpt.orcpt, mail.smtputf8, arena);
        CHECK(!(rcpt.notify & NOTIFY_NEVER) || rcpt.notify == NOTIFY_NEVER);
        check_envelope(&mail, &rcpt, arena);
    }
}
