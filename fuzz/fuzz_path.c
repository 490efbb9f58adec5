/*
 * fuzz_path - the reverse-path and forward-path of MAIL and RCPT, and the addresses that programs are given.
 *
 * Aims at: message/path.c message/domain.c message/utf8.c
 * Seeds:   message/path_test.c smtp/params_test.c address-isemail/ smtp-commands/
 * Longest: 2100
 * Test:    80000 runs
 *
 * What was taken is printed and taken again: both parts are the same bytes, and printing again gives the same text. What
 * is printed can go onto the wire: no control character, at most two bytes longer than what came. What is refused leaves
 * the input as it was.
 */
#include "fuzz.h"

#include "message/path.h"

static void
check_printed(struct path path, size_t came, struct arena *arena)
{
    struct text once = fuzz_text(arena, 2 * came + 100);
    struct path again;

    path_put(&once, path);
    struct str printed = text_str(&once);
    CHECK(!once.full && printed.len <= came + 2);
    for (size_t i = 0; i < printed.len; i++)
        CHECK((unsigned char)printed.ptr[i] >= ' ' && printed.ptr[i] != 0x7f);
    if (path_is_null(path)) {
        CHECK(printed.len == 0);
        return;
    }
    CHECK(path_parse(printed, arena, &again));
    CHECK(str_eq(again.local, path.local) && str_eq_nocase(again.domain, path.domain) && path_eq(again, path));
    CHECK(str_eq(path_text(again, arena), printed));

    if (path.domain.len == 0 && !path_is_postmaster(path)) /* for programs only, not for the wire */
        return;
    struct text wire = fuzz_text(arena, printed.len + 3);
    text_putf(&wire, "<%.*s>", STR_ARG(printed));
    struct str rest = text_str(&wire);
    CHECK(path_take(&rest, arena, &again) && rest.len == 0 && path_eq(again, path));
}

void
fuzz_one(struct str input, struct arena *arena)
{
    struct str rest = input, user, detail;
    struct path path;

    if (path_take(&rest, arena, &path)) {
        CHECK(rest.len < input.len && (rest.len == 0 || byte_is_space(rest.ptr[0])));
        check_printed(path, input.len - rest.len, arena);
        if (path_split_detail(path.local, S("+-"), &user, &detail))
            CHECK(user.len > 0 && detail.len > 0 && user.len + 1 + detail.len == path.local.len);
        (void)path_is_postmaster(path);
    } else {
        CHECK(rest.ptr == input.ptr && rest.len == input.len);
    }
    if (path_parse(input, arena, &path))
        check_printed(path, input.len, arena);
}
