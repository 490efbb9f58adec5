/* sender - see sender.h. */
#include "sasl/sender.h"

bool
sasl_may_send_as(const struct str *senders, size_t count, struct str address)
{
    struct str domain = str_from(address, str_find_last_byte(address, '@'));

    for (size_t i = 0; i < count; i++)
        if (str_eq(senders[i], S("*")) || str_eq_nocase(senders[i], address) ||
            (domain.len > 0 && str_eq_nocase(senders[i], domain)))
            return true;
    return false;
}

bool
sasl_is_sender(struct str s)
{
    size_t at = str_find_last_byte(s, '@');

    if (str_eq(s, S("*")))
        return true;
    for (size_t i = 0; i < s.len; i++)
        if ((unsigned char)s.ptr[i] <= ' ' || s.ptr[i] == 0x7f || s.ptr[i] == ':' || s.ptr[i] == ',')
            return false;
    return at + 1 < s.len;
}
