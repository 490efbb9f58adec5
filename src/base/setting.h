/*
 * setting - what a configuration may say, as tables. A module declares the table of its settings beside the code that
 * uses them: name, kind, range, default, one line of help, and where in its struct the value goes. One function reads a
 * block by its table, another prints the table for people; so checks, `postrider config reference` and the manual page
 * agree.
 */
#ifndef BASE_SETTING_H
#define BASE_SETTING_H

#include "base/conf.h"

enum setting_kind {
    SETTING_FLAG,     /* on|off: bool */
    SETTING_COUNT,    /* number: uint32_t */
    SETTING_SIZE,     /* "50MiB": uint64_t bytes */
    SETTING_TIME,     /* "5m": int64_t ns */
    SETTING_CHOICE,   /* one of `choices`: uint8_t, its index */
    SETTING_WORD,     /* struct str */
    SETTING_HOST,     /* a host or domain name: struct str in lower case, without a trailing dot */
    SETTING_PATH,     /* a file's path, relative to the file that says it: struct str */
    SETTING_PREFIXES, /* addresses and networks: struct setting_prefixes */
    SETTING_CUSTOM,   /* `read` does it */
};

struct setting_prefixes {
    struct prefix *list;
    size_t count;
};

bool setting_prefixes_have(const struct setting_prefixes *, const struct address *);

struct setting_reader {
    struct conf_bundle *bundle;
    struct conf_problems *problems;
    struct arena *arena; /* values live here */
    void *ctx;           /* whatever the tables' `read` functions share */
};

struct setting_table;
struct setting {
    struct str name;
    struct str form;      /* what stands behind the name, for people and for errors: "SIZE" */
    uint8_t kind;         /* enum setting_kind */
    bool repeats;         /* may be given more than once */
    size_t offset;        /* of the value in the struct that its table fills */
    uint64_t min, max;    /* COUNT, SIZE, TIME (ns); PATH: at most `max` bytes; max 0: no range */
    const struct str *choices;           /* CHOICE: ends with an absent one */
    struct str fallback;                 /* the default as it would be written; absent: none */
    void (*read)(struct setting_reader *, const struct conf_node *, void *target); /* CUSTOM */
    const struct setting_table *block;   /* what its block may hold; NULL: it has none */
    struct str help;
};
struct setting_table {
    const struct setting *settings;
    size_t count;
};
#define SETTING_TABLE(array) { (array), sizeof(array) / sizeof *(array) }
enum { LIMIT_SETTINGS = 32 }; /* in one table */

/* Gives every setting its default, then what the statements say. Problems: look at reader->problems->errors. */
void setting_read(struct setting_reader *, const struct setting_table *, const struct conf_node *first, void *target);

/* Helpers for `read` functions. Each says the problem and returns false. */
bool setting_expect_words(struct setting_reader *, const struct setting *, const struct conf_node *, size_t min,
                          size_t max);
bool setting_read_host(struct setting_reader *, struct conf_word, struct str *out);
bool setting_read_prefixes(struct setting_reader *, const struct conf_word *, size_t count,
                           struct setting_prefixes *out);
bool setting_read_hop(struct setting_reader *, struct conf_word, struct conf_hop *out); /* kept in the arena */
/* "this is not one of a, b, c; did you mean ...?"; the index, or choices' count. */
size_t setting_choice(struct setting_reader *, struct conf_word, const char *what, const struct str *choices);
/* Without the trailing dot, ASCII letters in lower case. */
struct str setting_fold(struct arena *, struct str);

/* The table for people, and as mdoc for the manual page. */
void setting_put_reference(struct text *, const struct setting_table *);
void setting_put_mdoc(struct text *, const struct setting_table *);

#endif
