/*
 * header - the header of a message as its bytes stand (RFC 5322 section 2.2, and the obsolete forms of 4.5): walking
 * over the fields and between the words of one; writing fields; encoded words (RFC 2047).
 *
 * Reading is lenient: a line may end with LF alone, a name may be followed by spaces. Writing is strict: lines of at
 * most 78 bytes where there is a space to fold at, never a bare line end, ASCII unless the caller wants UTF-8.
 */
#ifndef MESSAGE_HEADER_H
#define MESSAGE_HEADER_H

#include "base/arena.h"

struct header_field { /* all three borrow from the header */
    struct str name;  /* without spaces and colon */
    struct str value; /* behind the colon, still folded, without the last line end */
    struct str whole; /* the field with its line end */
};

/* Takes the next field off *rest. False: the empty line comes next, or what is no field, or nothing; *rest is
 * unchanged. */
bool header_take(struct str *rest, struct header_field *out);

/* The index behind the quoted string, comment or domain literal that begins at `at`; s.len + 1: it does not end. */
size_t header_skip_enclosed(struct str s, size_t at);
/* Takes what means nothing between words off the front: spaces, line ends and comments (CFWS, RFC 5322 section 3.2.2). A
 * comment that does not end is all of the rest. */
void header_skip_cfws(struct str *);
/* Takes a token off the front (RFC 2045 section 5.1), and what header_skip_cfws() takes before it. Empty: there is none. */
struct str header_take_token(struct str *);
/* Takes a parameter off the front, with the ";" behind it, which is not in what it returns. Whoever reads a header so finds the same
 * parameters: a ";" ends one but in a value that begins with a quote, and in a comment before that or behind; other quotes mean nothing. */
struct str header_take_parameter(struct str *);

/* Where the header ends, for content that comes in pieces. Starts zeroed. */
struct header_end {
    uint64_t bytes; /* seen so far, or when `found`: of the header with its empty line */
    bool mid_line, after_cr, found;
};
/* True as soon as the end was seen: then *out_len bytes of this piece belong to the header. */
bool header_end_feed(struct header_end *, struct str piece, size_t *out_len);

/* No field of the header that the message begins with needs SMTPUTF8. */
bool header_is_ascii(struct str message);

/* "Name: value CRLF". The value is folded at its spaces; line ends and other control characters in it become spaces, so
 * that no value can begin a field of its own. What is not ASCII stays only if `utf8` and it is right; else "?". */
void header_put(struct text *, struct str name, struct str value, bool utf8);
/* The same for text that people read (Subject): what is not ASCII becomes encoded words unless `utf8`. */
void header_put_text(struct text *, struct str name, struct str value, bool utf8);

/* Writes words so that they fit where `column` bytes of the line are used already; folds with CRLF SP. Bytes that are
 * not UTF-8 are called "unknown-8bit" (RFC 1428). */
void encoded_words_put(struct text *, struct str bytes, size_t column);
/* A phrase before <address>: as it is, quoted, or as encoded words. */
void header_put_phrase(struct text *, struct str phrase, bool utf8);

#endif
