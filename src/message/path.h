/*
 * path - the reverse-path and forward-path of RFC 5321 section 4.1.2, with the UTF-8 of RFC 6531 section 3.3.
 *
 * The null reverse-path "<>" has both parts empty; <postmaster> has an empty domain. A source route
 * ("<@a,@b:user@c>") is accepted and dropped, as that section says it should be.
 *
 * Wider than the RFC, because such mail is real: a local part may be as long as the command line lets it, and may begin
 * or end with a dot or have two in a row (mobile carriers gave such addresses out); it is quoted when we send it.
 * Brackets may be missing altogether. A domain may have underscores, and a trailing dot, which is dropped. Nothing else
 * is guessed: two "@", spaces, comments and control characters are refused, so what we check is what the next hop will
 * read.
 *
 * Ownership: a struct path borrows the bytes it was parsed from, or for a local part with backslashes the arena's.
 */
#ifndef MESSAGE_PATH_H
#define MESSAGE_PATH_H

#include "base/address.h"
#include "base/arena.h"

struct path {
    struct str local;  /* without quotes and backslashes; as long as the command line allows */
    struct str domain; /* as received, without a trailing dot; "[...]" is an address literal */
};

/* Takes one path off the front of *rest, after spaces. False: none is there, and *rest is unchanged. After a path comes
 * the end or a space. */
bool path_take(struct str *rest, struct arena *, struct path *out_path);
/* The whole of s is "local@domain", or a local part alone (the domain is empty): the argument of VRFY and EXPN, or of a
 * program. Brackets are allowed. */
bool path_parse(struct str s, struct arena *, struct path *out_path);
struct path path_keep(struct path, struct arena *);

/* "local@domain" as the wire has it: quotes where they are needed and only there, the domain in lower case. Nothing for
 * the null path. Never more than 2 bytes longer than what was parsed. */
void path_put(struct text *, struct path);
struct str path_text(struct path, struct arena *);
/* The local part alone, with quotes where it needs them. */
void path_put_local(struct text *, struct str local);

static inline bool
path_is_null(struct path p)
{
    return p.local.len == 0 && p.domain.len == 0;
}
bool path_is_postmaster(struct path); /* the local part, in any case, whatever the domain */
bool path_is_ascii(struct path);
bool path_eq(struct path, struct path); /* For tests: local part as it is; domain without case. */

/*
 * "user+detail" at the first of the bytes in `delimiters` that neither begins nor ends the local part: gives user and
 * detail (without the delimiter). False: there is no detail; the outputs are unchanged.
 */
bool path_split_detail(struct str local, struct str delimiters, struct str *out_user, struct str *out_detail);

#endif
