/* eai - see eai.h. */
#include "message/eai.h"

#include "message/domain.h"

struct str
eai_to_ascii(struct str address, struct arena *arena)
{
    size_t at = str_find_last_byte(address, '@'); /* behind it is a domain, which has no "@" */

    if (str_is_ascii(address))
        return address;
    if (at == address.len || !str_is_ascii(str_slice(address, 0, at)))
        return (struct str){ 0 };
    struct str domain = domain_to_ascii(str_from(address, at + 1), arena);
    return str_is_absent(domain) ? domain : arena_join(arena, str_slice(address, 0, at + 1), domain);
}

static bool
has_ascii_local_part(struct str address)
{
    return str_is_ascii(str_slice(address, 0, str_find_last_byte(address, '@')));
}

enum eai_need
eai_need(struct str reverse_path, struct str forward_path, bool header_8bit)
{
    if (!has_ascii_local_part(reverse_path) || !has_ascii_local_part(forward_path))
        return EAI_FOR_ADDRESS;
    return header_8bit ? EAI_FOR_HEADER : EAI_NOT_NEEDED;
}
