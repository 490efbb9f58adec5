/*
 * cli - the command line: "postrider VERB ...", one file a verb. Also answers to the names of
 * other_names (cli.c), such as sendmail.
 *
 * A verb is a struct verb in its file, and a line in cli.c. Its run() is a fiber in a world of its own and gives the
 * exit code: one of enum exit_code, which are those of sysexits.h because scripts and mail programs know them.
 *
 * Options are a table too: cli_parse() fills a struct from argv and answers --help from the same table, so that help
 * and behaviour cannot differ.
 */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include "base/arena.h"
#include "runtime/rt.h"
#include "runtime/terminal.h"

#define CLI_CONFIG "/etc/postrider/postrider.conf" /* where no --config says another */

enum exit_code {
    EXIT_WELL = 0,
    EXIT_FALSE = 1,         /* it worked, and the answer is no */
    EXIT_USAGE = 64,
    EXIT_DATA = 65,         /* the input is wrong */
    EXIT_NO_INPUT = 66,     /* a file cannot be read */
    EXIT_NO_USER = 67,
    EXIT_NO_HOST = 68,
    EXIT_UNAVAILABLE = 69,  /* refused for good */
    EXIT_SOFTWARE = 70,
    EXIT_OS = 71,
    EXIT_CANNOT_CREATE = 73,
    EXIT_IO = 74,
    EXIT_AGAIN = 75,        /* temporary: try later */
    EXIT_PROTOCOL = 76,
    EXIT_NO_PERMISSION = 77,
    EXIT_CONFIG = 78,
};

enum option_kind {
    OPTION_FLAG,    /* bool */
    OPTION_WORD,    /* struct str; given twice, the last one counts */
    OPTION_WORDS,   /* struct words: may be given again and again */
    OPTION_NUMBER,  /* uint64_t; "10", "64k", "5m" (1024 each) */
    OPTION_SECONDS, /* int64_t ns; "2", "0.5", "5m", "1h" */
};
struct option {
    const char *name;     /* "--server"; NULL ends the table */
    const char *argument; /* "HOST:PORT"; NULL for a flag */
    enum option_kind kind;
    size_t offset;        /* of the field in the verb's settings */
    const char *help;     /* one line; "\n" begins another */
};
struct words {
    struct str *word;
    size_t count;
};

struct verb {
    const char *name;
    const char *summary;   /* half a line, for the list */
    const char *arguments; /* "[FILE]", for the first line of its help */
    const char *about;     /* what else its help says, examples above all; may be NULL */
    const struct option *options; /* NULL: run() reads argv itself, --help too */
    int (*run)(struct rt *, int argc, char **argv); /* argv[0] is the verb */
};

extern const struct verb verb_send, verb_sink, verb_load, verb_sendmail, verb_run, verb_role, verb_status, verb_reload,
    verb_stop, verb_queue, verb_mailq, verb_spool, verb_check, verb_config, verb_tls, verb_tlsrpt, verb_user;

/* What main() calls. */
int cli_main(int argc, char **argv);
const struct verb *cli_find_verb(struct str name); /* NULL: there is none */

/*
 * Fills *settings by verb->options; what is no option goes to *out_operands (behind "--", all of it). False:
 * *out_exit is the code to end with, and everything has been said (a mistake, or --help).
 */
bool cli_parse(const struct verb *, int argc, char **argv, struct arena *, void *settings, struct words *out_operands,
               int *out_exit);

/* For verbs that take none. False: there is one, *out_exit is the code, and it was said. */
bool cli_no_operands(const struct verb *, const struct words *, int *out_exit);

/* Parsers of option values, for those that are words of more than one part. */
bool cli_seconds(struct str, int64_t *out_ns);
bool cli_number(struct str, uint64_t *out);

/* A line to standard error: "postrider send: ...". Returns exit, so that "return cli_fail(...)" reads well. */
int cli_fail(const struct verb *, int exit, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* Formatted, to standard output; at most 4000 bytes at a time. */
void cli_print(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The words for an error: "connection refused". Lives in the arena. */
struct str cli_error(struct err, struct arena *);

/* For people, in the arena: "242 B", "1.2 KiB"; "12 s", "4 min", "3 h", "2 d". */
struct str cli_size(uint64_t bytes, struct arena *);
struct str cli_span(int64_t ns, struct arena *);

struct str cli_base_name(struct str path);

#endif
