/* dialog - see dialog.h. */
#include "cli/dialog.h"

#include "message/utf8.h"
#include "runtime/host.h"

#include <stdarg.h>
#include <stdio.h>

enum { SHOWN_MAX = 1000 }; /* of one line */

struct dialog
dialog_on(struct rt *rt, enum terminal_output output)
{
    return (struct dialog){ output, terminal_is_one(output) && str_is_absent(host_env(rt, S("NO_COLOR"))) };
}

static struct str
colour_of(enum client_dialog who, struct str line)
{
    if (who == DIALOG_SENT)
        return S("\33[36m");
    if (who == DIALOG_NOTE || line.len == 0)
        return S("\33[2m");
    return line.ptr[0] == '5' ? S("\33[31m") : line.ptr[0] == '4' ? S("\33[33m") : S("\33[32m");
}

void
dialog_line(void *arg, enum client_dialog who, struct str line)
{
    static const char *const marks[] = { [DIALOG_SENT] = "> ", [DIALOG_RECEIVED] = "< ", [DIALOG_NOTE] = "* " };
    const struct dialog *d = arg;
    char memory[SHOWN_MAX + 100];
    struct text t = text_init(memory, sizeof memory);

    if (d->coloured)
        text_put(&t, colour_of(who, line));
    text_put(&t, str_from_cstr(marks[who]));
    utf8_put_visible(&t, utf8_cut(line, SHOWN_MAX)); /* a server must not steer the terminal */
    if (line.len > SHOWN_MAX)
        text_put(&t, S("..."));
    if (d->coloured)
        text_put(&t, S("\33[0m"));
    text_put_byte(&t, '\n');
    terminal_write(d->output, text_str(&t));
}

void
dialog_note(const struct dialog *d, const char *format, ...)
{
    char line[SHOWN_MAX];
    va_list args;

    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    dialog_line((void *)(uintptr_t)d, DIALOG_NOTE, str_from_cstr(line));
}
