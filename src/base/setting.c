/* setting - see setting.h. */
#include "base/setting.h"

#include "base/check.h"
#include "base/limits.h"

#include <string.h>

static const struct setting *
find(const struct setting_table *table, struct str name, struct str *out_guess)
{
    struct conf_guess guess = { .word = name };

    for (size_t i = 0; i < table->count; i++)
        if (str_eq(table->settings[i].name, name))
            return &table->settings[i];
    for (size_t i = 0; i < table->count; i++)
        conf_guess_offer(&guess, table->settings[i].name);
    *out_guess = conf_guess_best(&guess);
    return NULL;
}

bool
setting_expect_words(struct setting_reader *r, const struct setting *s, const struct conf_node *node, size_t min,
                     size_t max)
{
    size_t given = node->count - 1;
    struct conf_where where = given > max ? node->words[max + 1].where : node->words[0].where;

    if (given >= min && given <= max)
        return true;
    conf_error(r->problems, where, CONF_NO_SUGGESTION, "%s: write \"%.*s %.*s\"",
               given > max ? "this is a word too many" : "something is missing here", STR_ARG(s->name),
               STR_ARG(s->form));
    return false;
}

struct str
setting_fold(struct arena *arena, struct str s)
{
    if (s.len > 1 && s.ptr[s.len - 1] == '.')
        s.len--;
    struct text text = text_init(arena_alloc(arena, s.len), s.len);
    text_put_lower(&text, s);
    return text_str(&text);
}

bool
setting_read_host(struct setting_reader *r, struct conf_word word, struct str *out)
{
    struct str folded = setting_fold(r->arena, word.text);
    struct address ip;

    if (!conf_is_domain(folded) || address_from_ip(folded, &ip)) {
        conf_error(r->problems, word.where, CONF_NO_SUGGESTION, "\"%.*s\" is not a host or domain name",
                   STR_ARG(word.text));
        return false;
    }
    *out = folded;
    return true;
}

bool
setting_read_prefixes(struct setting_reader *r, const struct conf_word *words, size_t count,
                      struct setting_prefixes *out)
{
    struct prefix *list = arena_alloc(r->arena, count * sizeof *list);

    for (size_t i = 0; i < count; i++) {
        struct str network = words[i].text, bits = network;
        struct address ip;
        if (prefix_parse(network, &list[i]))
            continue;
        bool masked = address_from_ip(str_cut(&bits, '/'), &ip);
        conf_error(r->problems, words[i].where, CONF_NO_SUGGESTION,
                   masked ? "\"%.*s\" is not a network: the bits behind its length must be zero, as in 192.0.2.0/24"
                          : "\"%.*s\" is neither an address nor a network such as 192.0.2.0/24",
                   STR_ARG(network));
        return false;
    }
    *out = (struct setting_prefixes){ list, count };
    return true;
}

bool
setting_prefixes_have(const struct setting_prefixes *prefixes, const struct address *address)
{
    for (size_t i = 0; i < prefixes->count; i++)
        if (prefix_has(&prefixes->list[i], address))
            return true;
    return false;
}

bool
setting_read_hop(struct setting_reader *r, struct conf_word word, struct conf_hop *out)
{
    static const struct str schemes[] = { STR("smtp"), STR("smtps"), STR("lmtp") };
    struct conf_guess guess = { .word = str_slice(word.text, 0, str_find_byte(word.text, ':')) };

    if (conf_take_hop(word.text, out)) {
        out->host = str_is_absent(out->host) ? out->host : setting_fold(r->arena, out->host);
        out->path = arena_keep(r->arena, out->path);
        if (out->kind == CONF_HOP_SMTP && out->port == 465)
            conf_warn(r->problems, word.where, "port 465 is TLS from the first byte (RFC 8314): write smtps://HOST");
        return true;
    }
    for (size_t i = 0; i < sizeof schemes / sizeof *schemes; i++)
        conf_guess_offer(&guess, schemes[i]);
    bool has_scheme = str_find(word.text, S(":/")) < word.text.len;
    struct str best = has_scheme && guess.distance > 0 ? conf_guess_best(&guess) : CONF_NO_SUGGESTION;
    conf_error(r->problems, word.where, best,
               "\"%.*s\" is not a next hop: write smtp://HOST:PORT, smtps://HOST, lmtp://HOST:PORT or lmtp:/SOCKET",
               STR_ARG(word.text));
    return false;
}

size_t
setting_choice(struct setting_reader *r, struct conf_word word, const char *what, const struct str *choices)
{
    struct conf_guess guess = { .word = word.text };
    char memory[200];
    struct text all = text_init(memory, sizeof memory);
    size_t i = 0;

    for (; !str_is_absent(choices[i]); i++) {
        if (str_eq(choices[i], word.text))
            return i;
        conf_guess_offer(&guess, choices[i]);
        text_put(&all, i ? S(", ") : S(""));
        text_put(&all, choices[i]);
    }
    conf_error(r->problems, word.where, conf_guess_best(&guess), "\"%.*s\" is not %s: it is one of %.*s",
               STR_ARG(word.text), what, STR_ARG(text_str(&all)));
    return i;
}

/* ---- values ---------------------------------------------------------------------------------------------------- */

static void
put_number(struct text *t, const struct setting *s, uint64_t value)
{
    static const struct { uint8_t kind; uint64_t unit; const char *name;
    } units[] = {
        {SETTING_SIZE, UINT64_C(1) << 40, "TiB"},
        {SETTING_SIZE, 1 << 30, "GiB"},
        {SETTING_SIZE, 1 << 20, "MiB"},
        {SETTING_SIZE, 1 << 10, "KiB"},
        {SETTING_TIME, DAY, "d"},
        {SETTING_TIME, HOUR, "h"},
        {SETTING_TIME, MINUTE, "m"},
        {SETTING_TIME, SECOND, "s"},
        {SETTING_TIME, MILLISECOND, "ms"},
    };

    for (size_t i = 0; i < sizeof units / sizeof *units && value > 0; i++)
        if (units[i].kind == s->kind && value % units[i].unit == 0) {
            text_putf(t, "%llu%s", (unsigned long long)(value / units[i].unit), units[i].name);
            return;
        }
    text_put_u64(t, value);
}

static uint64_t
largest(const struct setting *s)
{
    return s->max > 0 ? s->max : s->kind == SETTING_COUNT ? UINT32_MAX : UINT64_MAX;
}

static void
put_range(struct text *t, const struct setting *s)
{
    put_number(t, s, s->min);
    text_put(t, S(" to "));
    put_number(t, s, largest(s));
}

static void
read_number(struct setting_reader *r, const struct setting *s, struct conf_word word, void *value)
{
    static const char *const forms[] = {
        [SETTING_COUNT] = "a number",
        [SETTING_SIZE] = "a size such as 64KiB or 50MiB",
        [SETTING_TIME] = "a time such as 30s, 5m or 1h",
    };
    uint64_t number = 0;
    int64_t ns = 0;
    bool good = s->kind == SETTING_TIME   ? conf_take_time(word.text, &ns)
                : s->kind == SETTING_SIZE ? conf_take_size(word.text, &number)
                                          : str_to_u64(word.text, &number);

    if (s->kind == SETTING_TIME)
        number = (uint64_t)ns;
    if (!good) {
        conf_error(r->problems, word.where, CONF_NO_SUGGESTION, "\"%.*s\" is not %s", STR_ARG(word.text),
                   forms[s->kind]);
        return;
    }
    if ((s->max > 0 && number < s->min) || number > largest(s)) {
        char memory[80];
        struct text range = text_init(memory, sizeof memory);
        put_range(&range, s);
        conf_error(r->problems, word.where, CONF_NO_SUGGESTION, "\"%.*s\" is out of range: %.*s may be %.*s",
                   STR_ARG(word.text), STR_ARG(s->name), STR_ARG(text_str(&range)));
        return;
    }
    if (s->kind == SETTING_COUNT)
        *(uint32_t *)value = (uint32_t)number;
    else if (s->kind == SETTING_SIZE)
        *(uint64_t *)value = number;
    else
        *(int64_t *)value = (int64_t)number;
}

static void
read_word(struct setting_reader *r, const struct setting *s, struct conf_word word, void *value)
{
    static const struct str flags[] = { STR("off"), STR("on"), { NULL, 0 } };
    struct str text;
    size_t choice, longest;

    switch ((enum setting_kind)s->kind) {
    case SETTING_COUNT:
    case SETTING_SIZE:
    case SETTING_TIME:
        read_number(r, s, word, value);
        return;
    case SETTING_FLAG:
        choice = setting_choice(r, word, "a value here", flags);
        *(bool *)value = choice == 1;
        return;
    case SETTING_CHOICE:
        choice = setting_choice(r, word, "a value here", s->choices);
        if (!str_is_absent(s->choices[choice]))
            *(uint8_t *)value = (uint8_t)choice;
        return;
    case SETTING_WORD:
        *(struct str *)value = arena_keep(r->arena, word.text);
        return;
    case SETTING_HOST:
        if (setting_read_host(r, word, &text))
            *(struct str *)value = text;
        return;
    case SETTING_PATH:
        text = conf_resolve(r->arena, word.where.file, word.text);
        longest = s->max ? s->max : LIMIT_CONF_PATH;
        if (word.text.len == 0)
            conf_error(r->problems, word.where, CONF_NO_SUGGESTION, "this is not the path of a file");
        else if (text.len > longest)
            conf_error(r->problems, word.where, CONF_NO_SUGGESTION, "this path is too long: %.*s may have %zu bytes",
                       STR_ARG(s->name), longest);
        else
            *(struct str *)value = arena_keep(r->arena, text);
        return;
    case SETTING_PREFIXES:
    case SETTING_CUSTOM:
        break;
    }
    UNREACHABLE();
}

static void
read_statement(struct setting_reader *r, const struct setting *s, const struct conf_node *node, void *target)
{
    void *value = (char *)target + s->offset;

    if (node->has_block && !s->block) {
        conf_error(r->problems, node->words[0].where, CONF_NO_SUGGESTION, "\"%.*s\" has no block: write \"%.*s %.*s\"",
                   STR_ARG(s->name), STR_ARG(s->name), STR_ARG(s->form));
        return;
    }
    if (s->kind == SETTING_CUSTOM) {
        s->read(r, node, target);
    } else if (s->kind == SETTING_PREFIXES) {
        if (setting_expect_words(r, s, node, 1, SIZE_MAX - 1))
            setting_read_prefixes(r, node->words + 1, node->count - 1, value);
    } else if (setting_expect_words(r, s, node, 1, 1)) {
        read_word(r, s, node->words[1], value);
    }
}

void
setting_read(struct setting_reader *r, const struct setting_table *table, const struct conf_node *first, void *target)
{
    const struct conf_node *seen[LIMIT_SETTINGS] = { NULL };

    CHECK(table->count <= LIMIT_SETTINGS);
    for (size_t i = 0; i < table->count; i++) {
        const struct setting *s = &table->settings[i];
        if (!str_is_absent(s->fallback) && s->kind != SETTING_CUSTOM)
            read_word(r, s, (struct conf_word){ .text = s->fallback }, (char *)target + s->offset);
    }
    for (const struct conf_node *node = first; node; node = node->next) {
        struct conf_word name = node->words[0];
        struct str guess;
        const struct setting *s = find(table, name.text, &guess);
        if (!s) {
            conf_error(r->problems, name.where, guess, "\"%.*s\" is not known %s", STR_ARG(name.text),
                       node->parent ? "in this block" : "at the top of a configuration");
            continue;
        }
        const struct conf_node **before = &seen[s - table->settings];
        if (*before && !s->repeats) {
            char memory[300];
            struct text where = text_init(memory, sizeof memory);
            conf_where_put(&where, (*before)->words[0].where);
            conf_error(r->problems, name.where, CONF_NO_SUGGESTION, "\"%.*s\" was given before, at %.*s",
                       STR_ARG(name.text), STR_ARG(text_str(&where)));
            continue;
        }
        *before = node;
        read_statement(r, s, node, target);
    }
}

/* ---- for people ------------------------------------------------------------------------------------------------ */

/* " (default 50MiB; 1KiB to 1TiB; may be repeated)", or nothing. */
static void
put_facts(struct text *t, const struct setting *s)
{
    size_t before = t->len;

    if (!str_is_absent(s->fallback))
        text_putf(t, " (default %.*s", STR_ARG(s->fallback));
    if (s->max > 0 && s->kind != SETTING_PATH) {
        text_put(t, t->len > before ? S("; ") : S(" ("));
        put_range(t, s);
    }
    if (s->repeats) {
        text_put(t, t->len > before ? S("; ") : S(" ("));
        text_put(t, S("may be repeated"));
    }
    text_put(t, t->len > before ? S(")") : S(""));
}

enum { INDENT = 4, LINE = 100, MDOC_LINE = 78 };

/* Words in lines, each after so many spaces. With `sentences`, each begins on a line of its own: mdoc wants that. */
static void
put_filled(struct text *t, struct str words, size_t indent, size_t line, bool sentences)
{
    size_t column = 0;

    while (words.len > 0) {
        struct str word = str_cut_word(&words);
        bool ends = t->len > 0 && sentences && t->ptr[t->len - 1] == '.';
        if (column == 0 || column + 1 + word.len > line || ends) {
            text_putf(t, "%s%*s", column == 0 ? "" : "\n", (int)indent, "");
            column = indent;
        } else {
            text_put_byte(t, ' ');
            column++;
        }
        text_put(t, word);
        column += word.len;
    }
    text_put_byte(t, '\n');
}

static void
put_plain(struct text *t, const struct setting_table *table, size_t indent)
{
    for (size_t i = 0; i < table->count; i++) {
        const struct setting *s = &table->settings[i];
        char memory[400];
        struct text help = text_init(memory, sizeof memory);
        text_putf(t, "%*s%.*s%s%.*s%s\n", (int)indent, "", STR_ARG(s->name), s->form.len ? " " : "", STR_ARG(s->form),
                  s->block ? " { ... }" : "");
        text_put(&help, s->help);
        put_facts(&help, s);
        put_filled(t, text_str(&help), indent + 2 * INDENT, LINE, false);
        if (s->block)
            put_plain(t, s->block, indent + INDENT);
    }
}

void
setting_put_reference(struct text *t, const struct setting_table *table)
{
    put_plain(t, table, 0);
}

/* Escaped for mdoc, where a word with a dot in front would be a request. */
static void
put_mdoc(struct text *t, struct str s)
{
    char before = ' ';

    for (; s.len > 0; s = str_from(s, 1)) {
        if (before == ' ' && (s.ptr[0] == '.' || s.ptr[0] == '\''))
            text_put(t, S("\\&"));
        if (s.ptr[0] == '\\')
            text_put(t, S("\\e"));
        else if (s.ptr[0] == '-')
            text_put(t, S("\\-"));
        else
            text_put_byte(t, s.ptr[0]);
        before = s.ptr[0];
    }
}

void
setting_put_mdoc(struct text *t, const struct setting_table *table)
{
    text_put(t, S(".Bl -tag -width Ds\n"));
    for (size_t i = 0; i < table->count; i++) {
        const struct setting *s = &table->settings[i];
        char memory[400];
        struct text help = text_init(memory, sizeof memory);
        text_put(t, S(".It Ic "));
        put_mdoc(t, s->name);
        if (s->form.len) {
            text_put(t, S(" No "));
            put_mdoc(t, s->form);
        }
        text_put(t, s->block ? S(" No { ... }\n") : S("\n"));
        put_mdoc(&help, s->help);
        put_facts(&help, s);
        text_put(&help, S("."));
        put_filled(t, text_str(&help), 0, MDOC_LINE, true);
        if (s->block)
            setting_put_mdoc(t, s->block);
    }
    text_put(t, S(".El\n"));
}
