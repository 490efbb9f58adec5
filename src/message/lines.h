/*
 * lines - the line ends of content: repairing what is no CRLF, and the dots of RFC 5321 section 4.5.2. All are fed
 * pieces of any size, start zeroed, and copy nothing where the content is already right.
 *
 * A line ends with CR LF and nothing else (standards 4.3). A bare CR or LF is one that is not part of such a pair.
 */
#ifndef MESSAGE_LINES_H
#define MESSAGE_LINES_H

#include "base/str.h"

/* Each bare CR and bare LF becomes CRLF; nothing else changes. */
struct lines_repair {
    uint64_t repaired; /* how many were */
    bool after_cr;     /* the last byte was a CR, held back until its LF comes or not */
};
/* The repaired bytes: a part of `bytes` itself if nothing had to be done, else they are in `room`, which has 2 *
 * bytes.len + 2 bytes. */
struct str lines_repair(struct lines_repair *, struct str bytes, char *room);
struct str lines_repair_end(struct lines_repair *); /* what was held back */

/*
 * Content to what goes behind 354: leading dots doubled, every line ended by CRLF (bare ones are repaired), so that
 * nothing in it can be read as the end by anybody.
 */
struct lines_stuff {
    enum lines_stuff_at { LINES_AT_START, LINES_WITHIN, LINES_AFTER_CR } at;
};
enum { LINES_PIECES_MIN = 4 };
/*
 * Gives up to `max` (at least LINES_PIECES_MIN) pieces for a gathered write, which borrow from *bytes, and takes what
 * they stand for off *bytes: call again until it is empty. Returns their count, which may be 0.
 */
size_t lines_stuff(struct lines_stuff *, struct str *bytes, struct str *pieces, size_t max);
/* What is missing for the last line to end, and ".\r\n". */
struct str lines_stuff_end(struct lines_stuff *);

/*
 * The way back: what came behind 354 to content. Only CR LF . CR LF ends it (the CRLF of the DATA command counts for
 * the first); everything like it is content.
 */
struct lines_unstuff {
    enum lines_unstuff_at {
        UNSTUFF_AT_START, UNSTUFF_WITHIN, UNSTUFF_AFTER_CR, UNSTUFF_AFTER_DOT, UNSTUFF_AFTER_DOT_CR
    } at;
    bool ended; /* *bytes begins with what came behind the end */
};
size_t lines_unstuff(struct lines_unstuff *, struct str *bytes, struct str *pieces, size_t max);

#endif
