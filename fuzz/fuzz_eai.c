/*
 * fuzz_eai - addresses with SMTPUTF8 (RFC 6531): whether they need it, and how they are written without it.
 *
 * Aims at: message/eai.c message/domain.c message/path.c
 * Seeds:   message/path_test.c smtp/params_test.c mime-mikel-mail/rfc6532
 * Longest: 600
 *
 * Two addresses, a byte 0xff between them. What needs no SMTPUTF8 can be written in ASCII, what needs it for the address
 * cannot; written so, it is an address with the same local part, and writing it again changes nothing.
 */
#include "fuzz.h"

#include "message/domain.h"
#include "message/eai.h"
#include "message/path.h"

static struct str
check_ascii(struct str address, struct arena *arena)
{
    struct str ascii = eai_to_ascii(address, arena);
    struct path was, is;

    if (str_is_absent(ascii))
        return ascii;
    CHECK(str_is_ascii(ascii) && str_eq(eai_to_ascii(ascii, arena), ascii));
    if (address.len > 0) {
        CHECK(path_parse(address, arena, &was) && path_parse(ascii, arena, &is));
        CHECK(str_eq(was.local, is.local));
    }
    return ascii;
}

static bool
has_a_labels(struct str address, struct arena *arena)
{
    return !str_is_absent(domain_to_ascii(str_from(address, str_find_last_byte(address, '@') + 1), arena));
}

static struct str
take_address(struct str *rest, struct arena *arena)
{
    struct path path;

    return path_parse(fuzz_field(rest), arena, &path) && path.domain.len > 0 ? path_text(path, arena) : S("");
}

void
fuzz_one(struct str input, struct arena *arena)
{
    struct str rest = input, reverse_path = take_address(&rest, arena), forward_path = take_address(&rest, arena);
    struct str from = check_ascii(reverse_path, arena), to = check_ascii(forward_path, arena);
    enum eai_need need = eai_need(reverse_path, forward_path, false);

    CHECK(need == EAI_NOT_NEEDED || need == EAI_FOR_ADDRESS);
    if (need == EAI_NOT_NEEDED)
        CHECK((!str_is_absent(from) || !has_a_labels(reverse_path, arena)) &&
              (!str_is_absent(to) || !has_a_labels(forward_path, arena)));
    else
        CHECK(str_is_absent(from) || str_is_absent(to));
    CHECK(eai_need(reverse_path, forward_path, true) != EAI_NOT_NEEDED);
}
