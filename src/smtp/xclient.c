/* xclient - see xclient.h. */
#include "smtp/xclient.h"

#include "base/limits.h"
#include "message/domain.h"
#include "message/xtext.h"

const struct str xclient_attributes = STR("NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT");

struct value {
    uint8_t state;   /* enum xclient_state */
    struct str text; /* decoded */
};

static bool
take_name(const struct value *v, struct xclient *x)
{
    x->name = v->state;
    x->name_value = v->text;
    return v->state != XCLIENT_SAID || domain_is_name(v->text);
}

static bool
take_ip(const struct value *v, uint8_t *out_state, struct address *out)
{
    struct str text = v->text;
    bool tagged = v->state == XCLIENT_SAID && str_take_nocase(&text, S("IPV6:"));

    *out_state = v->state;
    if (v->state != XCLIENT_SAID)
        return true;
    if (str_has_byte(text, '%') || !address_from_ip(text, out) || (tagged && out->family != ADDRESS_IPV6))
        return false;
    *out = address_unmap(*out);
    return true;
}

static bool
take_addr(const struct value *v, struct xclient *x)
{
    return take_ip(v, &x->addr, &x->addr_value);
}

static bool
take_dest_addr(const struct value *v, struct xclient *x)
{
    return take_ip(v, &x->dest_addr, &x->dest_addr_value);
}

static bool
take_number(const struct value *v, uint8_t *out_state, uint16_t *out)
{
    uint64_t port;

    *out_state = v->state == XCLIENT_SAID ? XCLIENT_SAID : XCLIENT_UNAVAILABLE;
    if (v->state != XCLIENT_SAID)
        return true;
    if (!str_to_u64(v->text, &port) || port > UINT16_MAX)
        return false;
    *out = (uint16_t)port;
    return true;
}

static bool
take_port(const struct value *v, struct xclient *x)
{
    return take_number(v, &x->port, &x->port_value);
}

static bool
take_dest_port(const struct value *v, struct xclient *x)
{
    return take_number(v, &x->dest_port, &x->dest_port_value);
}

/* What it speaks now is what counts: EHLO or HELO comes next. */
static bool
take_proto(const struct value *v, struct xclient *x)
{
    (void)x;
    return v->state != XCLIENT_SAID || str_eq_nocase(v->text, S("SMTP")) || str_eq_nocase(v->text, S("ESMTP"));
}

static bool
is_printable(struct str s)
{
    for (size_t i = 0; i < s.len; i++)
        if ((unsigned char)s.ptr[i] <= ' ' || s.ptr[i] == 0x7F)
            return false;
    return s.len > 0;
}

static bool
take_helo(const struct value *v, struct xclient *x)
{
    x->helo = v->state;
    x->helo_value = v->text;
    return v->state != XCLIENT_SAID || (is_printable(v->text) && v->text.len <= LIMIT_HELO);
}

static bool
take_login(const struct value *v, struct xclient *x)
{
    x->login = v->state;
    x->login_value = v->text;
    return v->state != XCLIENT_SAID || (is_printable(v->text) && v->text.len <= LIMIT_USER_NAME);
}

static const struct attribute {
    struct str name;
    bool (*take)(const struct value *, struct xclient *);
} attributes[] = {
    { STR("NAME"), take_name },   { STR("ADDR"), take_addr },   { STR("PORT"), take_port },
    { STR("PROTO"), take_proto }, { STR("HELO"), take_helo },   { STR("LOGIN"), take_login },
    { STR("DESTADDR"), take_dest_addr }, { STR("DESTPORT"), take_dest_port },
};
enum { ATTRIBUTES = sizeof attributes / sizeof *attributes };

static bool
take_value(struct str xtext, struct arena *arena, struct value *out)
{
    struct text decoded = text_init(arena_alloc(arena, xtext.len + 1), xtext.len + 1);

    if (xtext.len == 0 || !xtext_decode(xtext, &decoded))
        return false;
    struct str text = text_str(&decoded);
    out->state = str_eq_nocase(text, S("[UNAVAILABLE]"))   ? XCLIENT_UNAVAILABLE
                 : str_eq_nocase(text, S("[TEMPUNAVAIL]")) ? XCLIENT_LATER
                                                           : XCLIENT_SAID;
    out->text = out->state == XCLIENT_SAID ? text : (struct str){ NULL, 0 };
    return true;
}

bool
xclient_parse(struct str args, struct arena *arena, struct xclient *out)
{
    bool seen[ATTRIBUTES] = { false };
    struct value value;
    size_t count = 0, i;

    *out = (struct xclient){ .name = XCLIENT_KEPT };
    for (struct str word; (word = str_cut_word(&args)).len > 0; count++) {
        struct str name = str_cut(&word, '=');
        for (i = 0; i < ATTRIBUTES && !str_eq_nocase(name, attributes[i].name); i++)
            ;
        if (i == ATTRIBUTES || seen[i] || str_is_absent(word) || !take_value(word, arena, &value) ||
            !attributes[i].take(&value, out))
            return false;
        seen[i] = true;
    }
    return count > 0;
}
