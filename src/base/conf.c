/*
 * conf - see conf.h. From the top: the parser (files, statements, words), the bundle, problems, values.
 *
 * The parser walks without recursion on blocks (a node knows its parent); only an include recurses, LIMIT_CONF_INCLUDES
 * deep. After an error it goes on behind the line, so that one run shows all errors.
 */
#include "base/conf.h"

#include "base/check.h"
#include "base/limits.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* ---- the parser ------------------------------------------------------------------------------------------------ */

enum token_kind {
    TOKEN_WORD,
    TOKEN_COMMA,
    TOKEN_OPEN,
    TOKEN_CLOSE,
    TOKEN_SEMICOLON,
    TOKEN_NEWLINE,
    TOKEN_END,
    TOKEN_BAD
};
struct token {
    enum token_kind kind;
    struct conf_word word; /* where: of every kind */
};

struct parser {
    struct conf_bundle *bundle;
    struct arena *arena;
    struct conf_problems *problems;
    struct conf_node *first, **tail; /* of the statements at the top */
};

struct reader {
    struct parser *parser;
    const struct conf_file *file;
    size_t at;
    uint32_t line;
    size_t counted_to; /* columns are counted once, on the way */
    uint32_t column;
};

static struct conf_where
where_now(struct reader *r)
{
    struct str text = r->file->text;

    for (; r->counted_to < r->at; r->counted_to++)
        r->column += ((unsigned char)text.ptr[r->counted_to] & 0xc0) != 0x80; /* not inside a UTF-8 character */
    return (struct conf_where){ r->file, r->line, r->column };
}

static bool
is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

static void
skip_space_and_comment(struct reader *r)
{
    struct str text = r->file->text;

    while (r->at < text.len && is_space(text.ptr[r->at]))
        r->at++;
    if (r->at < text.len && text.ptr[r->at] == '#')
        r->at += str_find_byte(str_from(text, r->at), '\n');
}

static void
skip_line(struct reader *r)
{
    r->at += str_find_byte(str_from(r->file->text, r->at), '\n');
}

/* The word with its "${NAME}" replaced. Few have one: the others borrow. */
static bool
expand_variables(struct reader *r, struct conf_word *word)
{
    struct arena *arena = r->parser->arena;
    struct str rest = word->text, done = S("");
    size_t at;

    while ((at = str_find(rest, S("${"))) < rest.len) {
        size_t end = str_find_byte(str_from(rest, at), '}');
        struct str name = str_slice(rest, at + 2, at + end);
        if (at + end == rest.len || name.len == 0) {
            conf_error(r->parser->problems, word->where, CONF_NO_SUGGESTION,
                       "\"${\" begins the name of an environment variable: write ${NAME}");
            return false;
        }
        struct str value = conf_bundle_env(r->parser->bundle, name);
        if (str_is_absent(value)) {
            conf_error(r->parser->problems, word->where, CONF_NO_SUGGESTION,
                       "the environment variable \"%.*s\" is not set", STR_ARG(name));
            return false;
        }
        done = arena_join(arena, arena_join(arena, done, str_slice(rest, 0, at)), value);
        rest = str_from(rest, at + end + 1);
    }
    if (done.len > 0 || rest.len != word->text.len)
        word->text = arena_join(arena, done, rest);
    return true;
}

/* '"' ... '"', the reader stands behind the first quote. */
static bool
read_quoted(struct reader *r, struct conf_word *word)
{
    struct str text = r->file->text;
    size_t start = r->at, escapes = 0;

    while (r->at < text.len && text.ptr[r->at] != '"' && text.ptr[r->at] != '\n') {
        if (text.ptr[r->at] == '\\' && r->at + 1 < text.len && text.ptr[r->at + 1] != '\n') {
            escapes++;
            r->at++;
        }
        r->at++;
    }
    if (r->at == text.len || text.ptr[r->at] == '\n') {
        conf_error(r->parser->problems, word->where, CONF_NO_SUGGESTION,
                   "the quote that opens here is not closed on its line");
        return false;
    }
    struct str raw = str_slice(text, start, r->at++);
    word->text = raw;
    if (escapes > 0) {
        static const char from[] = "\"\\nt", to[] = "\"\\\n\t";
        struct text plain = text_init(arena_alloc(r->parser->arena, raw.len), raw.len);
        for (size_t i = 0; i < raw.len; i++) {
            if (raw.ptr[i] != '\\') {
                text_put_byte(&plain, raw.ptr[i]);
                continue;
            }
            const char *known = memchr(from, raw.ptr[++i], sizeof from - 1);
            if (!known) {
                conf_error(r->parser->problems, word->where, CONF_NO_SUGGESTION,
                           "in quotes a backslash stands before \" \\ n or t only");
                return false;
            }
            text_put_byte(&plain, to[known - from]);
        }
        word->text = text_str(&plain);
    }
    if (r->at < text.len && !is_space(text.ptr[r->at]) && !memchr("\n;,}", text.ptr[r->at], 4)) {
        conf_error(r->parser->problems, where_now(r), CONF_NO_SUGGESTION,
                   "a space is missing behind the closing quote");
        return false;
    }
    return true;
}

/* A brace that has no partner in its word was meant as a block's: said once, then read as one. */
static void
split_off_brace(struct reader *r, size_t start, struct conf_word *word)
{
    size_t depth = 0;

    for (size_t i = 0; i < word->text.len; i++) {
        char c = word->text.ptr[i];
        bool last = i + 1 == word->text.len;
        if ((c == '}' && depth == 0) || (c == '{' && last)) {
            r->at = start + i;
            conf_error(r->parser->problems, where_now(r), CONF_NO_SUGGESTION,
                       "a space is missing before \"%c\" (a brace inside a word is part of the word)", c);
            word->text.len = i;
            return;
        }
        depth += c == '{';
        depth -= c == '}';
    }
    if (depth > 0)
        conf_error(r->parser->problems, word->where, CONF_NO_SUGGESTION,
                   "\"{\" in \"%.*s\" is not closed in the same word", STR_ARG(word->text));
}

static bool
read_bare(struct reader *r, struct conf_word *word)
{
    struct str text = r->file->text;
    size_t start = r->at;

    while (r->at < text.len && !is_space(text.ptr[r->at]) && !memchr("\n;,", text.ptr[r->at], 3))
        r->at++;
    word->text = str_slice(text, start, r->at);
    if (str_find_byte(word->text, '{') < word->text.len || str_find_byte(word->text, '}') < word->text.len)
        split_off_brace(r, start, word);
    return true;
}

static struct token
next_token(struct reader *r)
{
    static const struct { char byte; enum token_kind kind; } marks[] = {
        { '{', TOKEN_OPEN }, { '}', TOKEN_CLOSE }, { ';', TOKEN_SEMICOLON }, { ',', TOKEN_COMMA },
    };
    struct str text = r->file->text;

    skip_space_and_comment(r);
    struct token token = { TOKEN_END, { .where = where_now(r) } };
    if (r->at == text.len)
        return token;
    char c = text.ptr[r->at];
    if (c == '\n') {
        r->at++;
        r->line++;
        r->counted_to = r->at;
        r->column = 1;
        token.kind = TOKEN_NEWLINE;
        return token;
    }
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++)
        if (c == marks[i].byte) {
            r->at++;
            token.kind = marks[i].kind;
            return token;
        }
    bool quoted = c == '"';
    size_t start = r->at;
    r->at += quoted;
    bool good = quoted ? read_quoted(r, &token.word) : read_bare(r, &token.word);
    for (size_t i = start; good && i < r->at; i++)
        if ((unsigned char)text.ptr[i] < ' ' && text.ptr[i] != '\t') {
            conf_error(r->parser->problems, token.word.where, CONF_NO_SUGGESTION,
                       "the control character 0x%02x cannot be part of a word", (unsigned char)text.ptr[i]);
            good = false;
        }
    token.kind = good && expand_variables(r, &token.word) ? TOKEN_WORD : TOKEN_BAD;
    return token;
}

/* Words of the statement under way: an array that doubles in the arena. */
struct words {
    struct conf_word *list;
    size_t count, cap;
};

static void
words_add(struct arena *arena, struct words *words, struct conf_word word)
{
    if (words->count == words->cap) {
        size_t cap = words->cap ? 2 * words->cap : 4;
        struct conf_word *list = arena_alloc(arena, cap * sizeof *list);
        if (words->count)
            memcpy(list, words->list, words->count * sizeof *list);
        words->list = list;
        words->cap = cap;
    }
    words->list[words->count++] = word;
}

static void parse_include(struct parser *, const struct conf_node *include, struct conf_node *parent,
                          struct conf_node ***tail, unsigned depth);

/*
 * One statement's words, up to its end or the "{" of its block. False: it was no good, and its line is skipped.
 * *out_end is the token that ended it.
 */
static bool
parse_words(struct reader *r, struct conf_word first, struct words *words, struct token *out_end)
{
    struct token token;
    struct conf_where comma = { 0 };

    words_add(r->parser->arena, words, first);
    for (;;) {
        token = next_token(r);
        if (token.kind == TOKEN_WORD) {
            words_add(r->parser->arena, words, token.word);
            comma.file = NULL;
        } else if (token.kind == TOKEN_COMMA && words->count > 1 && !comma.file) {
            comma = token.word.where;
        } else if (token.kind == TOKEN_COMMA) {
            conf_error(r->parser->problems, token.word.where, CONF_NO_SUGGESTION,
                       "a word is missing before this comma");
            skip_line(r);
            return false;
        } else if (token.kind == TOKEN_NEWLINE && comma.file) {
            continue;
        } else if (token.kind == TOKEN_BAD) {
            skip_line(r);
            return false;
        } else {
            break;
        }
    }
    if (comma.file)
        conf_error(r->parser->problems, comma, CONF_NO_SUGGESTION, "a word is missing behind this comma");
    *out_end = token;
    return true;
}

/* Behind the "}" of a block: only an end may follow. False: something else does; its line is skipped. */
static bool
parse_end(struct reader *r)
{
    struct reader before = *r;
    struct token token = next_token(r);

    if (token.kind == TOKEN_CLOSE)
        *r = before;
    if (token.kind == TOKEN_CLOSE || token.kind == TOKEN_NEWLINE || token.kind == TOKEN_SEMICOLON ||
        token.kind == TOKEN_END)
        return true;
    conf_error(r->parser->problems, token.word.where, CONF_NO_SUGGESTION,
               "a new line or \";\" is missing behind the \"}\" before this");
    skip_line(r);
    return false;
}

static void
parse_file(struct parser *p, const struct conf_file *file, struct conf_node *outer, struct conf_node ***tail,
           unsigned depth)
{
    struct reader r = { .parser = p, .file = file, .line = 1, .column = 1 };
    struct conf_node *parent = outer;       /* of the statement to come */
    struct conf_node **tails[LIMIT_CONF_BLOCKS + 1]; /* where the next statement of each open block goes */
    size_t blocks = 0;

    tails[0] = *tail;
    if (str_starts(file->text, S("\xef\xbb\xbf"))) {
        r.at = 3;
        r.counted_to = 3;
    }
    for (;;) {
        struct token token = next_token(&r), end;
        struct words words = { 0 };
        switch (token.kind) {
        case TOKEN_NEWLINE:
        case TOKEN_SEMICOLON:
            continue;
        case TOKEN_END:
            for (; parent != outer; parent = parent->parent)
                conf_error(p->problems, parent->words[0].where, CONF_NO_SUGGESTION,
                           "the block of \"%.*s\" is not closed: \"}\" is missing", STR_ARG(parent->words[0].text));
            *tail = tails[0];
            return;
        case TOKEN_CLOSE:
            if (parent == outer) {
                conf_error(p->problems, token.word.where, CONF_NO_SUGGESTION, "this \"}\" closes nothing");
                continue;
            }
            parent = parent->parent;
            blocks--;
            parse_end(&r);
            continue;
        case TOKEN_OPEN:
            conf_error(p->problems, token.word.where, CONF_NO_SUGGESTION,
                       "\"{\" must stand on the line of the statement whose block it opens");
            skip_line(&r);
            continue;
        case TOKEN_COMMA:
            conf_error(p->problems, token.word.where, CONF_NO_SUGGESTION, "a statement cannot begin with a comma");
            skip_line(&r);
            continue;
        case TOKEN_BAD:
            skip_line(&r);
            continue;
        case TOKEN_WORD:
            break;
        }
        if (!parse_words(&r, token.word, &words, &end))
            continue;
        struct conf_node *node = arena_new(p->arena, struct conf_node);
        *node = (struct conf_node){ .words = words.list, .count = words.count, .parent = parent };
        if (end.kind == TOKEN_CLOSE)
            r.at--; /* it also ends the block: read it again */
        if (str_eq(token.word.text, S("include")) && end.kind != TOKEN_OPEN) {
            parse_include(p, node, parent, &tails[blocks], depth);
            continue;
        }
        *tails[blocks] = node;
        tails[blocks] = &node->next;
        if (end.kind != TOKEN_OPEN)
            continue;
        node->has_block = true;
        if (blocks == LIMIT_CONF_BLOCKS) {
            conf_error(p->problems, end.word.where, CONF_NO_SUGGESTION, "blocks are nested more than %d deep",
                       LIMIT_CONF_BLOCKS);
            *tail = tails[0];
            return;
        }
        tails[++blocks] = &node->children;
        parent = node;
    }
}

static void
include_file(struct parser *p, struct conf_word named, struct str path, struct conf_node *parent,
             struct conf_node ***tail, unsigned depth)
{
    struct conf_file *file = arena_new(p->bundle->arena, struct conf_file);
    char memory[200];
    struct text why = text_init(memory, sizeof memory);

    for (const struct conf_file *f = named.where.file; f; f = f->includer)
        if (str_eq(f->path, path)) {
            conf_error(p->problems, named.where, CONF_NO_SUGGESTION, "\"%.*s\" would include itself", STR_ARG(path));
            return;
        }
    if (depth == LIMIT_CONF_INCLUDES) {
        conf_error(p->problems, named.where, CONF_NO_SUGGESTION, "files are included more than %d deep",
                   LIMIT_CONF_INCLUDES);
        return;
    }
    *file = (struct conf_file){ .path = arena_keep(p->bundle->arena, path), .includer = named.where.file };
    struct err e = conf_bundle_load(p->bundle, path, &file->text);
    if (err_is(e)) {
        err_text(e, &why);
        conf_error(p->problems, named.where, CONF_NO_SUGGESTION, "\"%.*s\" cannot be read: %.*s", STR_ARG(path),
                   STR_ARG(text_str(&why)));
        return;
    }
    parse_file(p, file, parent, tail, depth + 1);
}

static bool
is_pattern(struct str path)
{
    return str_has_byte(path, '*') || str_has_byte(path, '?');
}

static void
parse_include(struct parser *p, const struct conf_node *include, struct conf_node *parent, struct conf_node ***tail,
              unsigned depth)
{
    if (include->count < 2)
        conf_error(p->problems, include->words[0].where, CONF_NO_SUGGESTION, "include needs a file or a pattern");
    for (size_t i = 1; i < include->count; i++) {
        struct conf_word named = include->words[i];
        struct str pattern = conf_resolve(p->arena, named.where.file, named.text);
        struct str *paths = &pattern;
        size_t count = 1;

        size_t slash = str_find_last_byte(pattern, '/');
        if (slash < pattern.len && is_pattern(str_slice(pattern, 0, slash))) {
            conf_error(p->problems, named.where, CONF_NO_SUGGESTION,
                       "\"*\" and \"?\" stand for names of files only, behind the last \"/\"");
            continue;
        }
        if (is_pattern(pattern) && err_is(conf_bundle_glob(p->bundle, pattern, &paths, &count))) {
            conf_error(p->problems, named.where, CONF_NO_SUGGESTION, "the pattern \"%.*s\" cannot be read",
                       STR_ARG(pattern));
            continue;
        }
        if (count == 0)
            conf_warn(p->problems, named.where, "there is no file like \"%.*s\"", STR_ARG(pattern));
        for (size_t at = 0; at < count; at++)
            include_file(p, named, paths[at], parent, tail, depth);
    }
}

struct conf_node *
conf_parse(struct conf_bundle *bundle, struct arena *arena, struct conf_problems *problems)
{
    struct parser p = { .bundle = bundle, .arena = arena, .problems = problems };
    struct conf_file *file = arena_new(bundle->arena, struct conf_file);
    char memory[200];
    struct text why = text_init(memory, sizeof memory);

    file->path = bundle->main;
    struct err e = conf_bundle_load(bundle, bundle->main, &file->text);
    if (err_is(e)) {
        err_text(e, &why);
        conf_error(problems, (struct conf_where){.file = file}, CONF_NO_SUGGESTION,
                   "the configuration cannot be read: %.*s", STR_ARG(text_str(&why)));
        return NULL;
    }
    struct conf_node **tail = &p.first;
    parse_file(&p, file, NULL, &tail, 0);
    return p.first;
}

struct str
conf_resolve(struct arena *arena, const struct conf_file *file, struct str path)
{
    if (str_starts(path, S("/")) || !file)
        return path;
    struct str base = file->path;
    size_t slash = str_find_last_byte(base, '/');
    if (slash == base.len)
        return path;
    while (str_take(&path, S("./")))
        ;
    return arena_join(arena, str_slice(base, 0, slash + 1), path);
}

/* ---- the bundle ------------------------------------------------------------------------------------------------ */

/*
 * Encoded: "PRC1", main path, count of entries, then each: kind, name, error kind, and its value: the bytes of a file,
 * the value of a variable, or a count and that many paths.
 */
enum entry_kind { ENTRY_FILE, ENTRY_GLOB, ENTRY_ENV, ENTRY_NAMES, ENTRY_LAST = ENTRY_NAMES };
#define BUNDLE_MAGIC UINT32_C(0x31435250)

struct conf_entry {
    struct conf_entry *next;
    uint8_t kind;
    struct str key; /* a letter for the kind, then the name: what the map knows it by */
    struct err err;
    struct str value;
    struct str *paths;
    size_t path_count;
};

void
conf_bundle_init(struct conf_bundle *b, struct arena *arena, const struct conf_world *world, struct str main_path)
{
    *b = (struct conf_bundle){ .arena = arena, .world = world, .main = arena_keep(arena, main_path) };
    map_init(&b->entries, arena->mem, 0); /* its keys are our own configuration's, no stranger's */
}

void
conf_bundle_done(struct conf_bundle *b)
{
    map_done(&b->entries);
}

static struct str
entry_key(struct arena *arena, enum entry_kind kind, struct str name)
{
    static const struct str letters[] = { [ENTRY_FILE] = STR("F"), [ENTRY_GLOB] = STR("G"), [ENTRY_ENV] = STR("E"),
                                          [ENTRY_NAMES] = STR("N") };

    return arena_join(arena, letters[kind], name);
}

static void
bundle_add(struct conf_bundle *b, struct conf_entry *entry)
{
    if (!b->tail)
        b->tail = &b->first;
    *b->tail = entry;
    b->tail = &entry->next;
    b->count++;
    b->bytes += entry->key.len + entry->value.len;
    for (size_t i = 0; i < entry->path_count; i++)
        b->bytes += entry->paths[i].len;
    map_put(&b->entries, entry->key, entry);
}

/* Each line up to its first ":"; empty lines stay, so that line numbers do. */
static struct str
names_only(struct arena *arena, struct str file)
{
    struct text names = text_init(arena_alloc(arena, file.len), file.len);

    while (file.len > 0) {
        struct str line = str_slice(file, 0, str_find_byte(file, '\n'));
        file = str_from(file, line.len);
        text_put(&names, str_cut(&line, ':'));
        if (str_take_byte(&file, '\n'))
            text_put_byte(&names, '\n');
    }
    return text_str(&names);
}

/* The entry, asked of the world if the bundle does not hold it yet. */
static const struct conf_entry *
bundle_get(struct conf_bundle *b, enum entry_kind kind, struct str name)
{
    struct str key = entry_key(b->arena, kind, name);
    struct conf_entry *entry = map_get(&b->entries, key);
    const struct conf_world *world = b->world;

    if (entry)
        return entry;
    entry = arena_new(b->arena, struct conf_entry);
    *entry = (struct conf_entry){ .kind = (uint8_t)kind, .key = key };
    if (!world)
        entry->err = ERR(ERR_NOT_FOUND, NULL);
    else if (key.len > LIMIT_CONF_PATH || b->count >= LIMIT_CONF_ENTRIES || b->bytes > LIMIT_CONFIG_BYTES)
        entry->err = ERR(ERR_LIMIT, NULL);
    else if (kind == ENTRY_FILE || kind == ENTRY_NAMES)
        entry->err = world->load(world->ctx, name, b->arena, &entry->value);
    else if (kind == ENTRY_GLOB)
        entry->err = world->glob(world->ctx, name, b->arena, &entry->paths, &entry->path_count);
    else if (str_is_absent(entry->value = arena_keep(b->arena, world->env(world->ctx, name))))
        entry->err = ERR(ERR_NOT_FOUND, NULL);
    if (entry->path_count > LIMIT_CONF_ENTRIES)
        entry->err = ERR(ERR_LIMIT, "files of one pattern");
    if (entry->value.len > LIMIT_CONFIG_BYTES || b->bytes + entry->value.len > LIMIT_CONFIG_BYTES)
        entry->err = ERR(ERR_LIMIT, "configuration files together");
    if (err_is(entry->err)) {
        entry->value = S("");
        entry->path_count = 0;
    }
    if (kind == ENTRY_NAMES)
        entry->value = names_only(b->arena, entry->value);
    bundle_add(b, entry);
    return entry;
}

struct err
conf_bundle_load(struct conf_bundle *b, struct str path, struct str *out_bytes)
{
    const struct conf_entry *entry = bundle_get(b, ENTRY_FILE, path);

    TRY(entry->err);
    *out_bytes = entry->value;
    return OK;
}

struct err
conf_bundle_load_names(struct conf_bundle *b, struct str path, struct str *out_bytes)
{
    const struct conf_entry *entry = bundle_get(b, ENTRY_NAMES, path);

    TRY(entry->err);
    *out_bytes = entry->value;
    return OK;
}

struct err
conf_bundle_glob(struct conf_bundle *b, struct str pattern, struct str **out_paths, size_t *out_count)
{
    const struct conf_entry *entry = bundle_get(b, ENTRY_GLOB, pattern);

    TRY(entry->err);
    *out_paths = entry->paths;
    *out_count = entry->path_count;
    return OK;
}

struct str
conf_bundle_env(struct conf_bundle *b, struct str name)
{
    const struct conf_entry *entry = bundle_get(b, ENTRY_ENV, name);

    return err_is(entry->err) ? (struct str){ NULL, 0 } : entry->value;
}

size_t
conf_bundle_size(const struct conf_bundle *b)
{
    size_t size = 4 + 4 + b->main.len + 4;

    for (const struct conf_entry *e = b->first; e; e = e->next) {
        size += 1 + 4 + e->key.len + 1 + 4 + 4 + e->value.len + 4;
        for (size_t i = 0; i < e->path_count; i++)
            size += 4 + e->paths[i].len;
    }
    return size;
}

void
conf_bundle_put(struct put *p, const struct conf_bundle *b)
{
    put_u32(p, BUNDLE_MAGIC);
    put_bytes(p, b->main);
    put_u32(p, (uint32_t)b->count);
    for (const struct conf_entry *e = b->first; e; e = e->next) {
        put_u8(p, e->kind);
        put_bytes(p, e->key);
        put_u8(p, (uint8_t)e->err.kind);
        put_u32(p, (uint32_t)e->err.os);
        put_bytes(p, e->value);
        put_u32(p, (uint32_t)e->path_count);
        for (size_t i = 0; i < e->path_count; i++)
            put_bytes(p, e->paths[i]);
    }
}

bool
conf_bundle_take(struct take *t, struct arena *arena, struct conf_bundle *out)
{
    struct conf_bundle b;
    uint32_t magic = take_u32(t);
    struct str main_path = take_bytes(t, LIMIT_CONF_PATH);
    uint32_t count = take_count(t, LIMIT_CONF_ENTRIES);

    if (t->bad || magic != BUNDLE_MAGIC)
        return false;
    conf_bundle_init(&b, arena, NULL, main_path);
    for (uint32_t i = 0; i < count && !t->bad; i++) {
        struct conf_entry *entry = arena_new(arena, struct conf_entry);
        entry->kind = (uint8_t)take_enum(t, ENTRY_LAST);
        entry->key = take_bytes(t, LIMIT_CONF_PATH);
        entry->err.kind = (int32_t)take_enum(t, ERR_IO);
        entry->err.os = (int32_t)take_u32(t);
        entry->value = take_bytes(t, LIMIT_CONFIG_BYTES);
        entry->path_count = take_count(t, LIMIT_CONF_ENTRIES);
        if (t->bad || str_is_absent(entry->key) || entry->path_count > t->rest.len / 4)
            break;
        entry->paths = arena_alloc(arena, entry->path_count * sizeof *entry->paths);
        for (size_t at = 0; at < entry->path_count; at++)
            entry->paths[at] = take_bytes(t, LIMIT_CONF_PATH);
        bundle_add(&b, entry);
    }
    if (t->bad || b.count != count) {
        t->bad = true;
        conf_bundle_done(&b);
        return false;
    }
    *out = b; /* its tail pointer never points into the struct itself */
    return true;
}

/* ---- problems -------------------------------------------------------------------------------------------------- */

void
conf_problems_init(struct conf_problems *problems, struct arena *arena)
{
    *problems = (struct conf_problems){ .arena = arena };
}

static void
problem_add(struct conf_problems *problems, bool warning, struct conf_where where, struct str suggestion,
            const char *format, va_list args)
{
    char memory[1024];
    size_t *all = warning ? &problems->warnings : &problems->errors;

    if ((*all)++ >= LIMIT_CONF_PROBLEMS)
        return;
    int len = vsnprintf(memory, sizeof memory, format, args);
    CHECK(len >= 0);
    size_t kept = (size_t)len < sizeof memory ? (size_t)len : sizeof memory - 1;
    for (size_t i = 0; i < kept; i++) /* what a file says must not command a terminal */
        if (byte_is_control(memory[i]))
            memory[i] = '?';
    problems->items[problems->count++] = (struct conf_problem){
        .where = where,
        .what = arena_keep(problems->arena, str_new(memory, kept)),
        .suggestion = arena_keep(problems->arena, suggestion),
        .warning = warning,
    };
}

void
conf_error(struct conf_problems *problems, struct conf_where where, struct str suggestion, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    problem_add(problems, false, where, suggestion, format, args);
    va_end(args);
}

void
conf_warn(struct conf_problems *problems, struct conf_where where, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    problem_add(problems, true, where, CONF_NO_SUGGESTION, format, args);
    va_end(args);
}

void
conf_where_put(struct text *t, struct conf_where where)
{
    if (!where.file)
        return;
    text_put(t, where.file->path);
    if (where.line == 0)
        return;
    text_put_byte(t, ':');
    text_put_u64(t, where.line);
    text_put_byte(t, ':');
    text_put_u64(t, where.column);
}

void
conf_problem_put(struct text *t, const struct conf_problem *problem)
{
    conf_where_put(t, problem->where);
    if (problem->where.file)
        text_put(t, S(": "));
    if (problem->warning)
        text_put(t, S("warning: "));
    text_put(t, problem->what);
    if (!str_is_absent(problem->suggestion)) {
        text_put(t, S("; did you mean \""));
        text_put(t, problem->suggestion);
        text_put(t, S("\"?"));
    }
}

/* Edits from one to the other: insert, delete, replace, swap neighbours. Over GUESS_MAX bytes: never near. */
enum { GUESS_MAX = 64, GUESS_NEAR = 3 };

static size_t
edit_distance(struct str a, struct str b)
{
    size_t rows[3][GUESS_MAX + 1];

    for (size_t j = 0; j <= b.len; j++)
        rows[0][j] = j;
    for (size_t i = 1; i <= a.len; i++) {
        size_t *row = rows[i % 3], *above = rows[(i + 2) % 3], *above2 = rows[(i + 1) % 3];
        row[0] = i;
        for (size_t j = 1; j <= b.len; j++) {
            char x = byte_lower(a.ptr[i - 1]), y = byte_lower(b.ptr[j - 1]);
            size_t best = above[j - 1] + (x != y);
            if (above[j] + 1 < best)
                best = above[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            if (i > 1 && j > 1 && x == byte_lower(b.ptr[j - 2]) && y == byte_lower(a.ptr[i - 2]) &&
                above2[j - 2] + 1 < best)
                best = above2[j - 2] + 1;
            row[j] = best;
        }
    }
    return rows[a.len % 3][b.len];
}

void
conf_guess_offer(struct conf_guess *guess, struct str candidate)
{
    if (guess->word.len > GUESS_MAX || candidate.len > GUESS_MAX || candidate.len == 0)
        return;
    size_t longer = guess->word.len > candidate.len ? guess->word.len : candidate.len;
    if (2 * longer - guess->word.len - candidate.len > GUESS_NEAR) /* each byte too many is one step */
        return;
    size_t distance = edit_distance(guess->word, candidate);
    if (!str_is_absent(guess->best) && distance >= guess->distance)
        return;
    guess->best = candidate;
    guess->distance = distance;
}

struct str
conf_guess_best(const struct conf_guess *guess)
{
    size_t near = guess->word.len < 4 ? 1 : guess->word.len < 8 ? 2 : GUESS_NEAR;

    return !str_is_absent(guess->best) && guess->distance <= near ? guess->best : CONF_NO_SUGGESTION;
}

/* ---- values ---------------------------------------------------------------------------------------------------- */

bool
conf_take_size(struct str s, uint64_t *out_bytes)
{
    static const struct { struct str unit; unsigned shift; } units[] = {
        { STR(""), 0 }, { STR("B"), 0 }, { STR("KiB"), 10 }, { STR("MiB"), 20 }, { STR("GiB"), 30 }, { STR("TiB"), 40 },
    };
    uint64_t number;

    if (!str_take_u64(&s, &number))
        return false;
    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        if (str_eq_nocase(s, units[i].unit)) {
            if (number > UINT64_MAX >> units[i].shift)
                return false;
            *out_bytes = number << units[i].shift;
            return true;
        }
    return false;
}

bool
conf_take_time(struct str s, int64_t *out_ns)
{
    static const struct { struct str unit; int64_t ns; } units[] = {
        { STR("ms"), MILLISECOND }, { STR("s"), SECOND }, { STR("m"), MINUTE }, { STR("h"), HOUR }, { STR("d"), DAY },
        { STR("w"), 7 * DAY },
    };
    int64_t sum = 0, before = INT64_MAX;
    uint64_t number;

    if (str_eq(s, S("0"))) {
        *out_ns = 0;
        return true;
    }
    if (s.len == 0)
        return false;
    while (s.len > 0) { /* "1h30m": each unit smaller than the one before */
        size_t i = 0;
        if (!str_take_u64(&s, &number))
            return false;
        while (i < sizeof units / sizeof *units && !str_take(&s, units[i].unit))
            i++;
        if (i == sizeof units / sizeof *units || units[i].ns >= before ||
            number > (uint64_t)((INT64_MAX - sum) / units[i].ns))
            return false;
        before = units[i].ns;
        sum += (int64_t)number * units[i].ns;
    }
    *out_ns = sum;
    return true;
}

bool
conf_take_rate(struct str s, struct conf_rate *out)
{
    static const struct { struct str unit; int64_t ns; } units[] = {
        { STR("s"), SECOND }, { STR("m"), MINUTE }, { STR("h"), HOUR }, { STR("d"), DAY },
    };
    uint64_t count;

    if (!str_take_u64(&s, &count) || count == 0 || !str_take_byte(&s, '/'))
        return false;
    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        if (str_eq(s, units[i].unit)) {
            *out = (struct conf_rate){ count, units[i].ns };
            return true;
        }
    return false;
}

bool
conf_take_addresses(struct str s, struct address out[2], size_t *out_count)
{
    uint64_t port;
    struct address parsed;
    struct str digits = s;

    if (str_take_byte(&digits, ':') && str_to_u64(digits, &port) && port <= UINT16_MAX) {
        out[0] = (struct address){ .family = ADDRESS_IPV4, .port = (uint16_t)port };
        out[1] = (struct address){ .family = ADDRESS_IPV6, .port = (uint16_t)port };
        *out_count = 2;
        return true;
    }
    if (!address_parse(s, &parsed) || parsed.family == ADDRESS_UNIX)
        return false;
    out[0] = parsed;
    *out_count = 1;
    return true;
}

bool
conf_is_domain(struct str s)
{
    if (s.len == 0 || s.len > LIMIT_DOMAIN)
        return false;
    while (!str_is_absent(s)) {
        struct str label = str_cut(&s, '.');
        if (label.len == 0 || label.len > 63 || label.ptr[0] == '-' || label.ptr[label.len - 1] == '-')
            return false;
        for (size_t i = 0; i < label.len; i++) {
            char c = label.ptr[i];
            if (!byte_is_alnum(c) && c != '-' && c != '_' && !((unsigned char)c & 0x80))
                return false;
        }
    }
    return true;
}

bool
conf_take_hop(struct str s, struct conf_hop *out)
{
    static const struct { struct str scheme; uint8_t kind; uint16_t port; } schemes[] = {
        { STR("smtp://"), CONF_HOP_SMTP, 25 },
        { STR("smtps://"), CONF_HOP_SMTPS, 465 },
        { STR("lmtp://"), CONF_HOP_LMTP, 24 },
    };
    struct conf_hop hop = { .kind = CONF_HOP_SMTP, .port = 25 };
    struct address ip;
    uint64_t port;

    if (str_starts(s, S("lmtp:/")) && !str_starts(s, S("lmtp://"))) {
        hop = (struct conf_hop){ .kind = CONF_HOP_LMTP, .path = str_from(s, sizeof "lmtp:" - 1) };
        if (!address_parse(hop.path, &ip))
            return false;
        *out = hop;
        return true;
    }
    for (size_t i = 0; i < sizeof schemes / sizeof *schemes; i++)
        if (str_take(&s, schemes[i].scheme)) {
            hop.kind = schemes[i].kind;
            hop.port = schemes[i].port;
            break;
        }
    if (str_take_byte(&s, '[')) {
        hop.host = str_cut(&s, ']');
        if (str_is_absent(s) || !address_from_ip(hop.host, &ip) || ip.family != ADDRESS_IPV6)
            return false;
        if (s.len == 0)
            s = (struct str){ NULL, 0 };
        else if (!str_take_byte(&s, ':'))
            return false;
    } else {
        hop.host = str_cut(&s, ':');
        bool numeric =
            byte_is_digit(hop.host.len ? hop.host.ptr[hop.host.len - 1] : 'x'); /* no top-level domain ends so */
        if (!conf_is_domain(hop.host) || (numeric && !address_from_ip(hop.host, &ip)))
            return false;
    }
    if (!str_is_absent(s)) {
        if (!str_to_u64(s, &port) || port == 0 || port > UINT16_MAX)
            return false;
        hop.port = (uint16_t)port;
    }
    *out = hop;
    return true;
}
