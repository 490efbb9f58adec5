/*
 * fuzz - what every target includes. A target is one file, fuzz_NAME.c, that defines fuzz_one(); libFuzzer calls it with
 * millions of inputs. What must hold is a CHECK: it aborts, and the input is kept.
 *
 * The head comment of a target has lines for fuzz/run:
 *     Aims at: files below src/ whose coverage the report shows
 *     Seeds:   unit tests below src/ whose string literals are seeds, and folders below ../shared/conformance; "zeros" is a few
 *              of those
 *     Choices: bytes of the input's front that choose something: seeds get some in front
 *     Longest: bytes of the longest input
 *     Test:    inputs that ./test tries, what takes about two seconds
 */
#ifndef FUZZ_FUZZ_H
#define FUZZ_FUZZ_H

#include "base/arena.h"
#include "base/check.h"
#include "base/codec.h"
#include "base/str.h"

/* One input. The arena is emptied afterwards. What was taken by other ways (own_mem) must have been given back then. */
void fuzz_one(struct str input, struct arena *);
extern struct mem *own_mem;

/* An empty text for cap bytes. */
struct text fuzz_text(struct arena *, size_t cap);
/* As one field of several in an input: up to a byte 0xff, or the end. Takes it and the byte. */
struct str fuzz_field(struct str *rest);
/* A byte of the input's front that chooses something; 0 when nothing is left. */
uint8_t fuzz_choice(struct str *rest);

/* A header field's value on one line: without line ends, and without the spaces at both ends. */
struct str fuzz_unfold(struct str, struct arena *);

/* Content with its line ends repaired, as message/lines.h does it. */
struct str fuzz_repaired(struct str content, struct arena *);

/* What a plain look at bytes finds in them; a line ends with CRLF. */
struct fuzz_lines {
    bool bare_cr, bare_lf, nul; /* CR and LF that are not of a CRLF */
    bool eight_bit_header;      /* before the first empty line */
    size_t longest;             /* line, without its end */
};
struct fuzz_lines fuzz_lines(struct str);

/* Prints it if the environment has FUZZ_SHOW: for people who look at one input. */
void fuzz_show(const char *who, struct str);

#endif
