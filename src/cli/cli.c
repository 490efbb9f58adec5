/* cli - see cli.h. */
#include "cli/cli.h"

#include "base/check.h"
#include "base/conf.h"
#include "runtime/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum {
    PRINT_MAX = 4000,
    HELP_COLUMN = 28,
};

static const struct verb *const verbs[] = {
    &verb_run,
    &verb_check,
    &verb_user,
    &verb_status,
    &verb_queue,
    &verb_spool,
    &verb_reload,
    &verb_stop,
    &verb_mailq,
    &verb_load,
    &verb_send,
    &verb_sendmail,
    &verb_sink,
    &verb_tls,
    &verb_tlsrpt,
    &verb_config,
    &verb_role,
};

/* What other programs know us by. */
static const struct {
    struct str program, verb;
} other_names[] = {
    { STR("sendmail"), STR("sendmail") },
    { STR("send-mail"), STR("sendmail") }, /* BSD's mailwrapper(8) says so */
    { STR("newaliases"), STR("sendmail") },
    { STR("mailq"), STR("mailq") },
};

/* ---- output ----------------------------------------------------------------------------------------------------- */

static void
print(enum terminal_output output, const char *prefix, const char *format, va_list args)
{
    char memory[PRINT_MAX + 1];
    struct text t = text_init(memory, sizeof memory);
    char line[PRINT_MAX];

    vsnprintf(line, sizeof line, format, args);
    text_put(&t, str_from_cstr(prefix));
    text_put(&t, str_from_cstr(line));
    terminal_write(output, text_str(&t)); /* nobody reads it any more: nothing to be done */
}

int
cli_fail(const struct verb *verb, int exit, const char *format, ...)
{
    char memory[100];
    struct text prefix = text_init(memory, sizeof memory);
    va_list args;

    text_putf(&prefix, "postrider %s: ", verb->name);
    va_start(args, format);
    print(TERMINAL_ERROR, text_cstr(&prefix), format, args);
    va_end(args);
    terminal_write(TERMINAL_ERROR, S("\n"));
    return exit;
}

void
cli_print(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    print(TERMINAL_OUT, "", format, args);
    va_end(args);
}

struct str
cli_error(struct err e, struct arena *arena)
{
    struct text t = text_init(arena_alloc(arena, 200), 200);

    err_text(e, &t);
    return text_str(&t);
}

struct str
cli_size(uint64_t bytes, struct arena *arena)
{
    static const char *const units[] = { "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
    size_t unit = 0;

    if (bytes < 1024)
        return arena_printf(arena, "%llu B", (unsigned long long)bytes);
    for (; bytes >= UINT64_C(1) << 20; unit++)
        bytes >>= 10;
    return arena_printf(arena, "%llu.%llu %s", (unsigned long long)(bytes >> 10),
                        (unsigned long long)((bytes & 1023) * 10 >> 10), units[unit]);
}

struct str
cli_span(int64_t ns, struct arena *arena)
{
    int64_t seconds = ns > 0 ? ns / SECOND : 0;

    if (seconds < 120)
        return arena_printf(arena, "%d s", (int)seconds);
    if (seconds < 7200)
        return arena_printf(arena, "%d min", (int)(seconds / 60));
    return seconds < 48 * 3600 ? arena_printf(arena, "%d h", (int)(seconds / 3600))
                               : arena_printf(arena, "%lld d", (long long)(seconds / 86400));
}

/* ---- options ---------------------------------------------------------------------------------------------------- */

static void
print_option(const char *name, const char *argument, const char *help)
{
    struct str rest = str_from_cstr(help);
    char memory[80];
    struct text left = text_init(memory, sizeof memory);

    text_putf(&left, "  %s%s%s", name, argument ? " " : "", argument ? argument : "");
    if (left.len + 2 > HELP_COLUMN) {
        cli_print("%.*s\n", STR_ARG(text_str(&left)));
        left.len = 0;
    }
    while (rest.len > 0 || left.len > 0) {
        struct str line = str_cut(&rest, '\n');
        cli_print("%-*.*s%.*s\n", HELP_COLUMN, STR_ARG(text_str(&left)), STR_ARG(line));
        left.len = 0;
    }
}

static void
print_help(const struct verb *verb)
{
    cli_print("Usage: postrider %s%s%s%s\n\n%s\n", verb->name, verb->options ? " [OPTION...]" : "",
              verb->arguments[0] ? " " : "", verb->arguments, verb->summary);
    if (verb->options) {
        cli_print("\n");
        for (const struct option *o = verb->options; o->name; o++)
            print_option(o->name, o->argument, o->help);
        print_option("--help", NULL, "this text");
    }
    if (verb->about)
        cli_print("\n%s", verb->about);
}

bool
cli_number(struct str s, uint64_t *out)
{
    static const struct {
        char letter;
        unsigned shift;
    } units[] = { { 'k', 10 }, { 'm', 20 }, { 'g', 30 } };
    unsigned shift = 0;

    for (size_t i = 0; i < sizeof units / sizeof *units && s.len > 1 && shift == 0; i++)
        if (byte_lower(s.ptr[s.len - 1]) == units[i].letter)
            shift = units[i].shift;
    if (shift)
        s.len--;
    if (!str_to_u64(s, out) || *out > UINT64_MAX >> shift)
        return false;
    *out <<= shift;
    return true;
}

bool
cli_seconds(struct str s, int64_t *out_ns)
{
    static const struct {
        struct str name;
        int64_t ns;
    } units[] = { { STR("ms"), MILLISECOND }, { STR("s"), SECOND }, { STR("m"), MINUTE }, { STR("h"), HOUR } };
    enum { WHOLE_MAX = 1000000000 };
    int64_t unit = SECOND;
    uint64_t whole, part = 0, scale = 1;

    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        if (s.len > units[i].name.len && str_ends(s, units[i].name)) {
            s.len -= units[i].name.len;
            unit = units[i].ns;
            break;
        }
    }
    struct str fraction = s;
    struct str digits = str_cut(&fraction, '.');
    if (!str_to_u64(digits, &whole) || whole > WHOLE_MAX)
        return false;
    if (!str_is_absent(fraction)) {
        if (fraction.len > 6 || !str_to_u64(fraction, &part))
            return false;
        for (size_t i = 0; i < fraction.len; i++)
            scale *= 10;
    }
    if (unit > SECOND && whole > WHOLE_MAX / (uint64_t)(unit / SECOND))
        return false;
    *out_ns = (int64_t)whole * unit + (int64_t)part * (unit / (int64_t)scale);
    return true;
}

static void
add_word(struct words *words, struct str word, struct arena *arena)
{
    /* Grows by doubling at each power of two. */
    if ((words->count & (words->count - 1)) == 0) {
        struct str *larger = arena_alloc(arena, (words->count ? 2 * words->count : 1) * sizeof *larger);
        if (words->count)
            memcpy(larger, words->word, words->count * sizeof *larger);
        words->word = larger;
    }
    words->word[words->count++] = word;
}

static bool
set_option(const struct option *o, struct str value, struct arena *arena, void *settings)
{
    void *field = (char *)settings + o->offset;

    switch (o->kind) {
    case OPTION_FLAG:
        *(bool *)field = true;
        return true;
    case OPTION_WORD:
        *(struct str *)field = value;
        return true;
    case OPTION_WORDS:
        add_word(field, value, arena);
        return true;
    case OPTION_NUMBER:
        return cli_number(value, field);
    case OPTION_SECONDS:
        return cli_seconds(value, field);
    }
    UNREACHABLE();
}

/* "; did you mean "x"?", or nothing. */
static void
put_guess(struct text *t, const struct conf_guess *guess)
{
    struct str best = conf_guess_best(guess);

    if (!str_is_absent(best))
        text_putf(t, "; did you mean \"%.*s\"?", STR_ARG(best));
}

static const struct option *
find_option(const struct verb *verb, struct str name)
{
    struct conf_guess guess = { .word = name };
    char memory[80];
    struct text hint = text_init(memory, sizeof memory);

    for (const struct option *o = verb->options; o->name; o++) {
        if (str_eq(name, str_from_cstr(o->name)))
            return o;
        conf_guess_offer(&guess, str_from_cstr(o->name));
    }
    put_guess(&hint, &guess);
    cli_fail(verb, EXIT_USAGE, "no such option: %.*s%.*s (try --help)", STR_ARG(name), STR_ARG(text_str(&hint)));
    return NULL;
}

bool
cli_parse(const struct verb *verb, int argc, char **argv, struct arena *arena, void *settings,
          struct words *out_operands, int *out_exit)
{
    bool only_operands = false;

    *out_exit = EXIT_USAGE;
    for (int i = 1; i < argc; i++) {
        struct str word = str_from_cstr(argv[i]), value = word;
        if (only_operands || !str_starts(word, S("-")) || str_eq(word, S("-"))) {
            add_word(out_operands, word, arena);
            continue;
        }
        if (str_eq(word, S("--"))) {
            only_operands = true;
            continue;
        }
        struct str name = str_cut(&value, '=');
        if (str_eq(name, S("--help")) || str_eq(name, S("-h"))) {
            print_help(verb);
            *out_exit = EXIT_WELL;
            return false;
        }
        const struct option *o = find_option(verb, name);
        if (!o)
            return false;
        if (o->kind == OPTION_FLAG && !str_is_absent(value)) {
            cli_fail(verb, EXIT_USAGE, "%s takes no value", o->name);
            return false;
        }
        if (o->kind != OPTION_FLAG && str_is_absent(value)) {
            if (i + 1 >= argc) {
                cli_fail(verb, EXIT_USAGE, "%s wants a value: %s", o->name, o->argument);
                return false;
            }
            value = str_from_cstr(argv[++i]);
        }
        if (!set_option(o, value, arena, settings)) {
            cli_fail(verb, EXIT_USAGE, "%s wants %s, not \"%.*s\"", o->name, o->argument, STR_ARG(value));
            return false;
        }
    }
    return true;
}

bool
cli_no_operands(const struct verb *verb, const struct words *operands, int *out_exit)
{
    if (operands->count > 0)
        *out_exit = cli_fail(verb, EXIT_USAGE, "\"%.*s\" is not expected here (try --help)",
                             STR_ARG(operands->word[0]));
    return operands->count == 0;
}

/* ---- which verb ------------------------------------------------------------------------------------------------- */

struct str
cli_base_name(struct str path)
{
    size_t slash = str_find_last_byte(path, '/');

    return slash < path.len ? str_from(path, slash + 1) : path;
}

const struct verb *
cli_find_verb(struct str name)
{
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++)
        if (str_eq(str_from_cstr(verbs[i]->name), name))
            return verbs[i];
    return NULL;
}

static void
print_verbs(void)
{
    cli_print("Usage: postrider VERB [OPTION...]\n\nA mail transfer agent.\n\n");
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++)
        if (verbs[i] != &verb_role)
            print_option(verbs[i]->name, NULL, verbs[i]->summary);
    cli_print("\n\"postrider VERB --help\" says more. \"postrider --version\" says which one this is.\n");
}

struct call {
    const struct verb *verb;
    int argc, exit;
    char **argv;
};

static void
run_verb(struct rt *rt, void *arg)
{
    struct call *c = arg;

    if (c->verb != &verb_run && c->verb != &verb_role)
        log_set_level(rt, LOG_ERROR); /* the watchdog is right, and nobody wants to know */
    c->exit = c->verb->run(rt, c->argc, c->argv);
}

static int
call_verb(const struct verb *verb, int argc, char **argv)
{
    struct call c = { verb, argc, EXIT_SOFTWARE, argv };
    struct err e = rt_run(run_verb, &c);
    char memory[200];
    struct text t = text_init(memory, sizeof memory);

    if (!err_is(e))
        return c.exit;
    err_text(e, &t);
    return cli_fail(verb, EXIT_OS, "%.*s", STR_ARG(text_str(&t)));
}

int
cli_main(int argc, char **argv)
{
    struct str program = argc > 0 ? cli_base_name(str_from_cstr(argv[0])) : S("postrider");
    struct str word = argc > 1 ? str_from_cstr(argv[1]) : S("");

    for (size_t i = 0; i < sizeof other_names / sizeof *other_names; i++) {
        const struct verb *verb = str_eq(program, other_names[i].program) ? cli_find_verb(other_names[i].verb) : NULL;
        if (verb)
            return call_verb(verb, argc, argv);
    }
    if (str_eq(word, S("--version")) || str_eq(word, S("-V"))) {
        cli_print("postrider %s\n", POSTRIDER_VERSION);
        return EXIT_WELL;
    }
    if (str_eq(word, S("--help")) || str_eq(word, S("-h")) || str_eq(word, S("help"))) {
        print_verbs();
        return EXIT_WELL;
    }
    const struct verb *verb = argc > 1 ? cli_find_verb(word) : NULL;
    if (verb)
        return call_verb(verb, argc - 1, argv + 1);
    if (argc > 1) {
        char line[300];
        struct text t = text_init(line, sizeof line);
        struct conf_guess guess = { .word = word };
        for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++)
            conf_guess_offer(&guess, str_from_cstr(verbs[i]->name));
        text_putf(&t, "postrider: there is no verb \"%.60s\"", argv[1]);
        put_guess(&t, &guess);
        text_put(&t, S(" (\"postrider --help\" lists them)\n"));
        terminal_write(TERMINAL_ERROR, text_str(&t));
        return EXIT_USAGE;
    }
    print_verbs();
    return EXIT_USAGE;
}
