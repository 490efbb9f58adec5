/*
 * prepare - see prepare.h.
 *
 * ASCII needs no tables. For the rest libunistring has Unicode's: libidn2, which we need anyway, brings it along.
 */
#include "sasl/prepare.h"

#include "base/limits.h"
#include "message/utf8.h"

#include <stdlib.h>
#include <string.h>
#include <unicase.h>
#include <unictype.h>
#include <uninorm.h>

enum { VIRAMA = UC_CCC_VR };

static bool
is_plain(struct str s)
{
    for (size_t i = 0; i < s.len; i++)
        if ((unsigned char)s.ptr[i] < ' ' || (unsigned char)s.ptr[i] >= 0x7f)
            return false;
    return true;
}

static bool
is_allowed(uint32_t point, uint32_t before)
{
    if (point == 0x200c || point == 0x200d) /* joiners */
        return uc_combining_class(before) == VIRAMA;
    if (uc_is_property_default_ignorable_code_point(point) || uc_is_property_not_a_character(point))
        return false;
    return uc_is_general_category_withtable(point, UC_CATEGORY_MASK_L | UC_CATEGORY_MASK_M | UC_CATEGORY_MASK_N |
                                                       UC_CATEGORY_MASK_S | UC_CATEGORY_MASK_P | UC_CATEGORY_MASK_Zs);
}

/* What keyboards for East Asian scripts write in another width is the letter itself: RFC 8265 section 3.3.1. */
static uint32_t
map_width(uint32_t point)
{
    ucs4_t parts[UC_DECOMPOSITION_MAX_LENGTH];
    int kind;

    return uc_decomposition(point, &kind, parts) == 1 && (kind == UC_DECOMP_WIDE || kind == UC_DECOMP_NARROW) ? parts[0] : point;
}

/* Spaces of every kind become ASCII's. False: it is not UTF-8. */
static bool
map(struct str s, bool is_name, struct text *out)
{
    uint32_t point;

    while (s.len > 0) {
        if (!utf8_take(&s, &point))
            return false;
        if (is_name)
            point = map_width(point);
        utf8_put(out, uc_is_general_category_withtable(point, UC_CATEGORY_MASK_Zs) ? ' ' : point);
    }
    return !out->full;
}

/* Of what came of it: composing may put marks in another order. */
static bool
are_allowed(struct str s)
{
    uint32_t point, before = 0;

    for (; utf8_take(&s, &point); before = point)
        if (!is_allowed(point, before))
            return false;
    return s.len == 0;
}

/* libunistring makes another buffer if the one that it was given is too small: then it is too long for us. */
static bool
is_ours(uint8_t *made, const uint8_t *given)
{
    if (made == given)
        return true;
    free(made);
    return false;
}

static bool
normalise(struct str s, bool lower, struct text *out)
{
    uint8_t cased[2 * PREPARED_MAX], composed[2 * PREPARED_MAX];
    size_t cased_len = sizeof cased, len = sizeof composed;
    const uint8_t *from = (const uint8_t *)s.ptr;

    if (lower) {
        if (!is_ours(u8_tolower(from, s.len, NULL, NULL, cased, &cased_len), cased))
            return false;
        from = cased;
    } else {
        cased_len = s.len;
    }
    if (!is_ours(u8_normalize(UNINORM_NFC, from, cased_len, composed, &len), composed))
        return false;
    bool fine = are_allowed(str_new(composed, len));
    text_put(out, str_new(composed, len));
    explicit_bzero(composed, sizeof composed);
    return fine && !out->full;
}

bool
prepare_password(struct str s, struct text *out)
{
    char memory[PREPARED_MAX];
    struct text mapped = text_init(memory, PREPARED_MAX / 4);

    if (s.len == 0 || s.len > PREPARED_MAX)
        return false;
    if (is_plain(s)) {
        text_put(out, s);
        return !out->full;
    }
    bool fine = map(s, false, &mapped) && normalise(text_str(&mapped), false, out);
    explicit_bzero(memory, sizeof memory);
    return fine;
}

bool
prepare_name(struct str s, struct text *out)
{
    char memory[LIMIT_USER_NAME];
    struct text mapped = text_init(memory, sizeof memory);
    size_t from = out->len;

    if (s.len == 0 || s.len > LIMIT_USER_NAME)
        return false;
    if (is_plain(s))
        text_put_lower(out, s);
    else if (!map(s, true, &mapped) || !normalise(text_str(&mapped), true, out))
        return false;
    struct str made = str_from(text_str(out), from);
    return !out->full && made.len <= LIMIT_USER_NAME && !str_has_byte(made, ':') && !str_has_byte(made, ' ');
}
