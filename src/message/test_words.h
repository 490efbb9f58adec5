/*
 * test_words - for tests: encoded words (RFC 2047) as a reader shows them. We write such words and never read any.
 */
#ifndef MESSAGE_TEST_WORDS_H
#define MESSAGE_TEST_WORDS_H

#include "base/arena.h"

/* Encoded words of UTF-8, US-ASCII and ISO-8859-1 become UTF-8; all else stays as it is. */
struct str test_words_decode(struct str, struct arena *);

#endif
