/*
 * dialog - shows what client and server say to each other, a line each: in colour on a terminal.
 *
 *     > MAIL FROM:<a@example.org>        what we say
 *     < 250 2.1.0 Sender ok              what the server says: green, yellow or red by its first digit
 *     * 1234 bytes of content            what happens between the lines
 */
#ifndef CLI_DIALOG_H
#define CLI_DIALOG_H

#include "cli/cli.h"
#include "smtp/client.h"

struct dialog {
    enum terminal_output output;
    bool coloured;
};

/* Colour as the terminal and NO_COLOR say. */
struct dialog dialog_on(struct rt *, enum terminal_output);
/* For client_settings.dialog; arg is a struct dialog. */
void dialog_line(void *arg, enum client_dialog, struct str line);
/* A line of our own. */
void dialog_note(const struct dialog *, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
