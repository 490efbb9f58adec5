/* domain - see domain.h. */
#include "message/domain.h"

#include "base/limits.h"
#include "message/utf8.h"

#include <idn2.h>

enum { LABEL_MAX = 63 };

static bool
label_is_valid(struct str label)
{
    size_t max = str_is_ascii(label) ? LABEL_MAX : 4 * LABEL_MAX;

    if (label.len == 0 || label.len > max || label.ptr[0] == '-' || label.ptr[label.len - 1] == '-')
        return false;
    for (size_t i = 0; i < label.len; i++) {
        char c = label.ptr[i];
        if (!byte_is_alnum(c) && c != '-' && c != '_' && !(c & 0x80))
            return false;
    }
    return true;
}

bool
domain_is_name(struct str s)
{
    if (s.len == 0 || s.len > LIMIT_DOMAIN || !utf8_is_clean(s))
        return false;
    while (!str_is_absent(s))
        if (!label_is_valid(str_cut(&s, '.')))
            return false;
    return true;
}

bool
domain_is_hostname(struct str s)
{
    bool numeric = true;

    for (size_t i = 0; i < s.len; i++)
        numeric = numeric && (byte_is_digit(s.ptr[i]) || s.ptr[i] == '.');
    return !numeric && str_is_ascii(s) && domain_is_name(s);
}

bool
domain_parse_literal(struct str s, struct address *out)
{
    struct address address;

    if (!str_take_byte(&s, '[') || !str_ends(s, S("]")))
        return false;
    s.len--;
    bool tagged = str_take_nocase(&s, S("IPv6:"));
    if (!address_from_ip(s, &address) || tagged != (address.family == ADDRESS_IPV6))
        return false;
    *out = address;
    return true;
}

bool
domain_is_valid(struct str s)
{
    struct address ignored;

    return domain_is_name(s) || domain_parse_literal(s, &ignored);
}

struct str
domain_without_dot(struct str s)
{
    return str_ends(s, S(".")) ? str_slice(s, 0, s.len - 1) : s;
}

static struct str
lowered(struct str s, struct arena *arena)
{
    struct text t = text_init(arena_alloc(arena, s.len + 1), s.len + 1);

    text_put_lower(&t, s);
    return text_str(&t);
}

struct str
domain_to_ascii(struct str domain, struct arena *arena)
{
    uint8_t *ascii = NULL;
    struct str result = { 0 };

    if (str_is_ascii(domain))
        return lowered(domain, arena);
    if (!domain_is_name(domain))
        return result;
    const char *cstr = arena_cstr(arena, domain);
    if (idn2_lookup_u8((const uint8_t *)cstr, &ascii, IDN2_NFC_INPUT | IDN2_NONTRANSITIONAL) == IDN2_OK)
        result = lowered(str_from_cstr((const char *)ascii), arena);
    idn2_free(ascii);
    return domain_is_name(result) ? result : (struct str){ 0 };
}

bool
domain_eq(struct str a, struct str b)
{
    return str_eq_nocase(domain_without_dot(a), domain_without_dot(b));
}
