/*
 * conf - configuration text as a tree in which every node knows its file, line and column.
 *
 *     file      = { statement } ;
 *     statement = word { word } [ "{" { statement } "}" ] end ;     commas and spaces alike separate words;
 *     end       = newline | ";" | before "}" ;                      a line may end after a comma
 *     word      = bare | '"' quoted '"' ;                           \" \\ \n \t in quotes
 *
 * A bare word runs to white space, ";" or ","; braces inside it are placeholders ("/var/mail/{local}"), a brace after
 * white space is a block's. "#" where a word could begin opens a comment. "${NAME}" inside a word is that environment
 * variable, which can thus never add words of its own. `include PATTERN ...` is replaced by the statements of the files
 * it names, in sorted order, wherever a statement may stand; relative patterns are relative to the file that says them.
 *
 * Nothing here reads a file: contents, patterns and environment come from a struct conf_bundle, which asks a struct
 * conf_world for what it does not hold yet and keeps the answers. So the supervisor reads a whole site once, and every
 * role parses the very same bytes from the encoded bundle. Secrets are never asked for through a bundle.
 */
#ifndef BASE_CONF_H
#define BASE_CONF_H

#include "base/address.h"
#include "base/arena.h"
#include "base/codec.h"
#include "base/err.h"
#include "base/map.h"

enum {
    LIMIT_CONF_INCLUDES = 10,   /* files that include files that include ... */
    LIMIT_CONF_BLOCKS = 8,      /* blocks in blocks in ... */
    LIMIT_CONF_PROBLEMS = 20,   /* errors, and as many warnings, that are kept */
    LIMIT_CONF_ENTRIES = 10000, /* files, patterns and variables in a bundle */
    LIMIT_CONF_PATH = 4096,
};

/* ---- where something stands, and what is wrong with it --------------------------------------------------------- */

struct conf_file {
    struct str path;
    struct str text;
    const struct conf_file *includer; /* NULL: the main file */
};
struct conf_where {
    const struct conf_file *file; /* NULL: nowhere in particular */
    uint32_t line, column;        /* from 1; columns count characters, not bytes. 0: the file as a whole */
};

struct conf_problem {
    struct conf_where where;
    struct str what;
    struct str suggestion; /* absent: none */
    bool warning;
};
/* Collects what is wrong. Texts live in the arena, positions in that of the bundle. */
struct conf_problems {
    struct arena *arena;
    struct conf_problem items[2 * LIMIT_CONF_PROBLEMS]; /* in the order they were found */
    size_t count;
    size_t errors, warnings; /* all of them, also those not kept */
};
void conf_problems_init(struct conf_problems *, struct arena *);
void conf_error(struct conf_problems *, struct conf_where, struct str suggestion, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
void conf_warn(struct conf_problems *, struct conf_where, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
#define CONF_NO_SUGGESTION ((struct str){ NULL, 0 })
/* "postrider.conf:3:5: unknown setting "mailbx"; did you mean "mailbox"?" and, without the problem,
 * "postrider.conf:3:5". */
void conf_problem_put(struct text *, const struct conf_problem *);
void conf_where_put(struct text *, struct conf_where);

/* Looks for the nearest of several names: zeroed but for `word`, then offer each, then conf_guess_best(). */
struct conf_guess {
    struct str word, best;
    size_t distance;
};
void conf_guess_offer(struct conf_guess *, struct str candidate);
struct str conf_guess_best(const struct conf_guess *); /* absent: none is near */

/* ---- the bundle ------------------------------------------------------------------------------------------------ */

/* The answers live in the arena that is passed. A hook may suspend its fiber. */
struct conf_world {
    void *ctx;
    struct err (*load)(void *ctx, struct str path, struct arena *, struct str *out_bytes);
    /* Sorted paths that match; none is OK. */
    struct err (*glob)(void *ctx, struct str pattern, struct arena *, struct str **out_paths, size_t *out_count);
    struct str (*env)(void *ctx, struct str name); /* absent: not set */
};

struct conf_entry;
struct conf_bundle {
    struct arena *arena;
    const struct conf_world *world; /* NULL: what the bundle does not hold does not exist */
    struct map entries;
    struct conf_entry *first, **tail;
    size_t count, bytes;
    struct str main; /* path of the main file */
};
void conf_bundle_init(struct conf_bundle *, struct arena *, const struct conf_world *, struct str main_path);
void conf_bundle_done(struct conf_bundle *);
/* ERR_LIMIT: more than LIMIT_CONFIG_BYTES altogether. Each answers from what it holds, the same each time. */
struct err conf_bundle_load(struct conf_bundle *, struct str path, struct str *out_bytes);
struct err conf_bundle_glob(struct conf_bundle *, struct str pattern, struct str **out_paths, size_t *out_count);
struct str conf_bundle_env(struct conf_bundle *, struct str name);
/* Of a file like passwd(5) only what stands before the first ":" of each line: hashes never reach a role. */
struct err conf_bundle_load_names(struct conf_bundle *, struct str path, struct str *out_bytes);

size_t conf_bundle_size(const struct conf_bundle *); /* bytes that conf_bundle_put() needs */
void conf_bundle_put(struct put *, const struct conf_bundle *);
/* Borrows from the input. False: not a bundle; then *out needs no conf_bundle_done(). */
bool conf_bundle_take(struct take *, struct arena *, struct conf_bundle *out);

/* ---- the tree -------------------------------------------------------------------------------------------------- */

struct conf_word {
    struct str text;
    struct conf_where where;
};
struct conf_node {
    struct conf_word *words; /* words[0] says what is set; there is at least this one */
    size_t count;
    bool has_block;
    struct conf_node *children, *next, *parent;
};

/*
 * Parses the bundle's main file and all it includes. Returns the first statement (NULL: none); look at
 * problems->errors. The tree lives in `arena` and borrows from the bundle.
 */
struct conf_node *conf_parse(struct conf_bundle *, struct arena *, struct conf_problems *);
/* A path as that file means it: a relative one stands beside the file. */
struct str conf_resolve(struct arena *, const struct conf_file *, struct str path);

/* ---- values: the whole word, or false -------------------------------------------------------------------------- */

bool conf_take_size(struct str, uint64_t *out_bytes);   /* "1000", "64KiB", "50MiB", "2GiB", "1TiB" */
bool conf_take_time(struct str, int64_t *out_ns);       /* "500ms", "5m", "1h30m", "5d"; 0 needs no unit */
struct conf_rate {
    uint64_t count;
    int64_t per_ns;
};
bool conf_take_rate(struct str, struct conf_rate *out); /* "100/h"; per s, m, h or d */
/* "192.0.2.1:25", "[2001:db8::1]:25"; ":25" is every address and gives two, 0.0.0.0 and :: . */
bool conf_take_addresses(struct str, struct address out[2], size_t *out_count);

enum conf_hop_kind { CONF_HOP_SMTP, CONF_HOP_SMTPS, CONF_HOP_LMTP };
struct conf_hop {
    uint8_t kind;    /* enum conf_hop_kind */
    uint16_t port;   /* 25, 465, 24 where none was said */
    struct str host; /* a name, or an IP address without brackets; absent where path is given */
    struct str path; /* of a Unix socket; absent: none */
};
/* "smtp://host:port", "smtps://host", "lmtp://[2001:db8::1]:24", "lmtp:/run/socket", "host:port". Borrows. */
bool conf_take_hop(struct str, struct conf_hop *out);
/* Letters, digits, hyphens and underscores in labels of at most 63, at most 255 in all; UTF-8 labels too. */
bool conf_is_domain(struct str);

#endif
