/*
 * to_ascii - header fields with 8-bit bytes, said in ASCII: encoded words (RFC 2047) in text, names and comments, encoded
 * parameters (RFC 2231) in Content-Type and Content-Disposition, a substitute for each byte elsewhere. Folded anew.
 */
#ifndef MESSAGE_TO_ASCII_H
#define MESSAGE_TO_ASCII_H

#include "base/str.h"

/* A field with its line end, into an empty `out` that has at least as many bytes: one that would become longer than `out` has
 * its 8-bit bytes replaced. `room` too is as long as the field. */
void to_ascii_field(struct text *out, struct str field, char *room);
/* Text without structure, where `column` bytes of the line are used already. */
void to_ascii_text(struct text *out, struct str text, size_t column);
/* Each 8-bit byte replaced. */
void to_ascii_bytes(struct text *out, struct str bytes, char substitute);
/* What stands for an 8-bit byte in a field that begins so; its name is in it. */
char to_ascii_substitute(struct str field);

#endif
