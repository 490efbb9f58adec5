/* params - see params.h. */
#include "smtp/params.h"

#include "base/limits.h"
#include "message/date.h"
#include "message/xtext.h"

struct parse {
    struct mail_request *mail;
    struct rcpt_request *rcpt; /* NULL: this is MAIL */
    const struct mail_offers *offers; /* of MAIL */
};
struct param {
    struct str key;
    const struct reply *(*take)(struct parse *, struct str value); /* value absent: there was no "=" */
    bool (*is_offered)(const struct mail_offers *);                /* NULL: always */
};

/* SIZE=digits, 20 of them at most: RFC 1870 section 3. More than we can count is also more than we take. */
static const struct reply *
take_size(struct parse *p, struct str value)
{
    if (value.len == 0 || value.len > 20)
        return &reply_size_syntax;
    for (size_t i = 0; i < value.len; i++)
        if (!byte_is_digit(value.ptr[i]))
            return &reply_size_syntax;
    if (!str_to_u64(value, &p->mail->size))
        return &reply_too_big;
    return p->offers->size_max > 0 && p->mail->size > p->offers->size_max ? &reply_too_big : NULL;
}

static const struct reply *
take_body(struct parse *p, struct str value)
{
    if (str_eq_nocase(value, S("7BIT")))
        p->mail->body = BODY_7BIT;
    else if (str_eq_nocase(value, S("8BITMIME")))
        p->mail->body = BODY_8BITMIME;
    else
        return str_eq_nocase(value, S("BINARYMIME")) ? &reply_body_binary : &reply_body_syntax;
    return NULL;
}

static const struct reply *
take_smtputf8(struct parse *p, struct str value)
{
    p->mail->smtputf8 = true;
    return str_is_absent(value) ? NULL : &reply_smtputf8_value;
}

static const struct reply *
take_ret(struct parse *p, struct str value)
{
    p->mail->ret = str_eq_nocase(value, S("FULL")) ? RET_FULL : RET_HDRS;
    return p->mail->ret == RET_FULL || str_eq_nocase(value, S("HDRS")) ? NULL : &reply_ret_syntax;
}

static const struct reply *
take_envid(struct parse *p, struct str value)
{
    p->mail->envid = value;
    return envid_is_valid(value) ? NULL : &reply_envid_syntax;
}

/* Who submitted this elsewhere first. A client that we do not know says nothing by it, and one of our users has said who
 * he is: RFC 4954 section 5 lets both be "<>". */
static const struct reply *
take_auth(struct parse *p, struct str value)
{
    char memory[LIMIT_PATH];
    struct text decoded = text_init(memory, sizeof memory);

    (void)p;
    bool good = str_eq(value, S("<>")) || (value.len > 0 && xtext_decode(value, &decoded) && !decoded.full);
    return good ? NULL : &reply_auth_param_syntax;
}

static const struct reply *
take_require_tls(struct parse *p, struct str value)
{
    p->mail->require_tls = true;
    return str_is_absent(value) ? NULL : &reply_require_tls_value;
}

static bool
offers_require_tls(const struct mail_offers *offers)
{
    return offers->require_tls;
}

static bool
offers_auth(const struct mail_offers *offers)
{
    return offers->auth;
}

/* BY=[+-]seconds;mode[T]: RFC 2852 section 4. What is late already and is to come all the same (N) asks for nothing of us: its
 * sender was told by who held it up. */
static const struct reply *
take_by(struct parse *p, struct str value)
{
    struct mail_request *m = p->mail;
    uint64_t seconds;
    bool minus = str_take_byte(&value, '-');

    if (!minus)
        str_take_byte(&value, '+');
    if (value.len == 0)
        return &reply_by_syntax;
    struct str digits = str_cut(&value, ';');
    if (digits.len > 9 || !str_to_u64(digits, &seconds))
        return &reply_by_syntax;
    m->deliver_or_return = str_take_nocase(&value, S("R"));
    if (!m->deliver_or_return && !str_take_nocase(&value, S("N")))
        return &reply_by_syntax;
    m->deliver_trace = str_take_nocase(&value, S("T"));
    bool late = minus || seconds == 0;
    if (value.len > 0 || (late && m->deliver_or_return))
        return &reply_by_syntax;
    m->deliver_within = late ? 0 : (int64_t)seconds * SECOND;
    m->deliver_trace = m->deliver_trace && !late;
    return NULL;
}

/* RFC 4865 section 4. One of the two says when, and a time that is past means at once: clocks differ. */
static const struct reply *
hold(struct parse *p, int64_t until)
{
    if (p->mail->hold_until != 0)
        return &reply_hold_twice;
    if (until - p->offers->wall > p->offers->hold_max)
        return &reply_hold_too_long;
    p->mail->hold_until = until;
    return NULL;
}

static const struct reply *
take_holdfor(struct parse *p, struct str value)
{
    uint64_t seconds;

    if (value.len == 0 || value.len > 9 || !str_to_u64(value, &seconds) || seconds == 0)
        return &reply_holdfor_syntax;
    return hold(p, p->offers->wall + (int64_t)seconds * SECOND);
}

static const struct reply *
take_holduntil(struct parse *p, struct str value)
{
    int64_t until;

    if (!date_parse_rfc3339(value, &until) || until <= 0)
        return &reply_holduntil_syntax;
    return hold(p, until);
}

static bool
offers_hold(const struct mail_offers *offers)
{
    return offers->hold_max > 0;
}

static const struct reply *
take_notify(struct parse *p, struct str value)
{
    return notify_parse(value, &p->rcpt->notify) ? NULL : &reply_notify_syntax;
}

static const struct reply *
take_orcpt(struct parse *p, struct str value)
{
    p->rcpt->orcpt = value;
    return orcpt_is_valid(value, p->mail->smtputf8) ? NULL : &reply_orcpt_syntax;
}

static const struct param mail_params[] = {
    { STR("SIZE"), take_size },   { STR("BODY"), take_body },   { STR("SMTPUTF8"), take_smtputf8 },
    { STR("RET"), take_ret },     { STR("ENVID"), take_envid }, { STR("AUTH"), take_auth, offers_auth },
    { STR("BY"), take_by }, { STR("HOLDFOR"), take_holdfor, offers_hold }, { STR("HOLDUNTIL"), take_holduntil, offers_hold },
    { STR("REQUIRETLS"), take_require_tls, offers_require_tls },
};
static const struct param rcpt_params[] = {
    { STR("NOTIFY"), take_notify },
    { STR("ORCPT"), take_orcpt },
};

/* Every parameter at most once: RFC 3461 section 4 says so of its own, and it can mean nothing for the others. */
static const struct reply *
take_params(struct parse *p, const struct param *table, size_t count, struct str args, bool extended,
            struct arena *arena)
{
    unsigned seen = 0;

    for (struct str word = str_cut_word(&args); word.len > 0; word = str_cut_word(&args)) {
        size_t i = 0;
        struct str value = word;
        struct str key = str_cut(&value, '=');
        if (!extended)
            return &reply_parameter_after_helo;
        while (i < count && !str_eq_nocase(key, table[i].key))
            i++;
        if (i == count || (table[i].is_offered && !table[i].is_offered(p->offers)))
            return reply_make(arena, 555, "5.5.4", "The parameter %.*s is not known here; EHLO lists what is",
                              STR_ARG(str_slice(key, 0, 40)));
        if (seen & 1u << i)
            return &reply_parameter_twice;
        seen |= 1u << i;
        const struct reply *refusal = table[i].take(p, value);
        if (refusal)
            return refusal;
    }
    return NULL;
}

/* One that is a local part alone gets the domain, unless that is absent. */
static bool
take_path(struct str *args, struct str domain, struct arena *arena, struct path *out)
{
    struct str rest = *args;

    if (path_take(args, arena, out))
        return true;
    if (str_is_absent(domain) || !path_parse(str_cut_word(&rest), arena, out) || out->domain.len > 0)
        return false;
    out->domain = domain;
    *args = rest;
    return true;
}

/* MAIL FROM:<reverse-path> [SP Mail-parameters]     RFC 5321 section 4.1.1.2 */
const struct reply *
mail_request_parse(struct str args, bool extended, const struct mail_offers *offers, struct arena *arena,
                   struct mail_request *out)
{
    struct parse p = { .mail = out, .offers = offers };

    *out = (struct mail_request){ 0 };
    if (!str_take_nocase(&args, S("FROM:")))
        return &reply_mail_syntax;
    if (!take_path(&args, offers->domain, arena, &out->reverse_path))
        return &reply_bad_sender;
    /* <postmaster> is somebody only in RCPT. */
    if (!path_is_null(out->reverse_path) && out->reverse_path.domain.len == 0)
        return &reply_bad_sender;
    const struct reply *refusal =
        take_params(&p, mail_params, sizeof mail_params / sizeof *mail_params, args, extended, arena);
    if (refusal)
        return refusal;
    if (!out->smtputf8 && !path_is_ascii(out->reverse_path))
        return &reply_sender_needs_smtputf8;
    out->address = path_text(out->reverse_path, arena);
    return out->address.len > LIMIT_PATH ? &reply_sender_too_long : NULL;
}

/* RCPT TO:<forward-path> [SP Rcpt-parameters]     RFC 5321 section 4.1.1.3 */
const struct reply *
rcpt_request_parse(struct str args, bool extended, const struct mail_request *mail, struct str domain,
                   struct arena *arena, struct rcpt_request *out)
{
    struct mail_request of_mail = *mail;
    struct parse p = { .mail = &of_mail, .rcpt = out };

    *out = (struct rcpt_request){ .mail = mail };
    if (!str_take_nocase(&args, S("TO:")))
        return &reply_rcpt_syntax;
    if (!take_path(&args, domain, arena, &out->forward_path))
        return &reply_bad_recipient;
    if (path_is_null(out->forward_path))
        return &reply_null_recipient;
    const struct reply *refusal =
        take_params(&p, rcpt_params, sizeof rcpt_params / sizeof *rcpt_params, args, extended, arena);
    if (refusal)
        return refusal;
    if (!mail->smtputf8 && !path_is_ascii(out->forward_path))
        return &reply_recipient_needs_smtputf8;
    out->address = path_text(out->forward_path, arena);
    return out->address.len > LIMIT_PATH ? &reply_recipient_too_long : NULL;
}

struct mail_request
mail_request_keep(const struct mail_request *m, struct arena *arena)
{
    struct mail_request kept = *m;

    kept.reverse_path = path_keep(m->reverse_path, arena);
    kept.address = arena_keep(arena, m->address);
    kept.envid = arena_keep(arena, m->envid);
    return kept;
}
