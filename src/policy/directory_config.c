/*
 * directory_config - `domain NAME ... { }`: the table of its settings, what they mean, and the checks that need the
 * whole: whether every alias leads to somebody, and every mailbox somewhere.
 */
#include "base/check.h"
#include "base/limits.h"
#include "message/domain.h"
#include "policy/directory_data.h"

#include <string.h>

struct building { /* the reader's ctx while a domain block is read */
    struct directory *d;
    struct rules *rules;
    struct domain *domains; /* the first of this statement; the others follow it */
};

static struct building *
building(struct setting_reader *r)
{
    return r->ctx;
}

/* ---- names ----------------------------------------------------------------------------------------------------- */

static struct entry *
get_entry(struct building *b, struct str name)
{
    struct arena *arena = &b->d->arena;
    struct str key = directory_fold(arena, name);
    struct entry *entry = map_get(&b->rules->names, key);

    if (entry)
        return entry;
    entry = arena_new(arena, struct entry);
    entry->name = arena_keep(arena, name);
    map_put(&b->rules->names, key, entry);
    *b->rules->tail = entry;
    b->rules->tail = &entry->next;
    return entry;
}

static void
say_given_before(struct setting_reader *r, struct conf_word word, const char *what, struct conf_where before)
{
    char memory[300];
    struct text where = text_init(memory, sizeof memory);

    conf_where_put(&where, before);
    conf_error(r->problems, word.where, CONF_NO_SUGGESTION, "%s \"%.*s\" was given before, at %.*s", what,
               STR_ARG(word.text), STR_ARG(text_str(&where)));
}

/* What may become part of a path, and of an address: never "/", never a way out of the Maildir's tree. */
static const char *
wrong_with_mailbox(struct str name)
{
    if (name.len == 0)
        return "is empty";
    if (name.len > LIMIT_MAILBOX_NAME)
        return "is longer than 64 bytes";
    if (str_find_byte(name, '/') < name.len || str_starts(name, S(".")))
        return "cannot be a mailbox: no \"/\", and no dot in front";
    if (str_has_control(name))
        return "has a control character";
    return NULL;
}

/* "name", or "name@domain" with a domain of this statement: the name. False: it is somebody else's, or no address. */
static bool
take_own_name(struct setting_reader *r, struct conf_word word, struct str *out_local, bool *out_other_domain)
{
    struct building *b = building(r);
    struct path path;

    *out_other_domain = false;
    if (str_find_byte(word.text, '@') == word.text.len) {
        *out_local = word.text;
        return true;
    }
    if (!path_parse(word.text, &b->d->arena, &path) || path.domain.len == 0)
        return false;
    struct str name = domain_to_ascii(path.domain, &b->d->arena);
    for (const struct domain *at = b->domains; at; at = at->next)
        if (str_eq(at->name, name)) {
            *out_local = path.local;
            return true;
        }
    *out_other_domain = true;
    return false;
}

static void
add_mailbox(struct setting_reader *r, struct conf_word word, bool from_passwd)
{
    struct building *b = building(r);
    struct str local;
    bool other_domain;

    if (!take_own_name(r, word, &local, &other_domain)) {
        if (!from_passwd || !other_domain) /* a passwd-file may serve several domains */
            conf_error(r->problems, word.where, CONF_NO_SUGGESTION,
                       other_domain ? "\"%.*s\" is not in this domain" : "\"%.*s\" is not a mailbox name",
                       STR_ARG(word.text));
        return;
    }
    const char *wrong = wrong_with_mailbox(local);
    if (wrong) {
        conf_error(r->problems, word.where, CONF_NO_SUGGESTION, "\"%.*s\" %s", STR_ARG(local), wrong);
        return;
    }
    struct entry *entry = get_entry(b, local);
    if (entry->mailbox) {
        say_given_before(r, word, "mailbox", entry->mailbox_where);
        return;
    }
    entry->mailbox = true;
    entry->name = arena_keep(&b->d->arena, local); /* an alias of the same name may have written it otherwise */
    entry->mailbox_where = word.where;
    b->rules->has_mailboxes = true;
}

/* ---- files of names: one on a line, "#" comments --------------------------------------------------------------- */

struct lines {
    struct conf_file *file;
    struct str rest;
    uint32_t line;
};

static bool
lines_open(struct setting_reader *r, struct conf_word named, struct str path, bool names_only, struct lines *out)
{
    struct conf_file *file = arena_new(r->bundle->arena, struct conf_file);
    char memory[200];
    struct text why = text_init(memory, sizeof memory);
    struct str resolved = conf_resolve(r->bundle->arena, named.where.file, path);

    *file = (struct conf_file){ .path = arena_keep(r->bundle->arena, resolved), .includer = named.where.file };
    struct err e = names_only ? conf_bundle_load_names(r->bundle, file->path, &file->text)
                              : conf_bundle_load(r->bundle, file->path, &file->text);
    if (err_is(e)) {
        err_text(e, &why);
        conf_error(r->problems, named.where, CONF_NO_SUGGESTION, "\"%.*s\" cannot be read: %.*s", STR_ARG(file->path),
                   STR_ARG(text_str(&why)));
        return false;
    }
    *out = (struct lines){ file, file->text, 0 };
    return true;
}

static bool
lines_next(struct lines *lines, struct conf_word *out)
{
    while (lines->rest.len > 0) {
        struct str line = str_slice(lines->rest, 0, str_find_byte(lines->rest, '\n'));
        lines->rest = str_from(lines->rest, line.len + 1);
        lines->line++;
        struct str trimmed = str_trim(line);
        if (trimmed.len == 0 || trimmed.ptr[0] == '#')
            continue;
        for (size_t i = 1; i < trimmed.len; i++) /* "anna  # since May" */
            if (trimmed.ptr[i] == '#' && byte_is_space(trimmed.ptr[i - 1])) {
                trimmed = str_trim(str_slice(trimmed, 0, i));
                break;
            }
        out->text = trimmed;
        out->where = (struct conf_where){ lines->file, lines->line, (uint32_t)(trimmed.ptr - line.ptr) + 1 };
        return true;
    }
    return false;
}

/* ---- addresses that aliases lead to ---------------------------------------------------------------------------- */

struct targets { /* grows in the directory's arena */
    struct target *list;
    size_t count, cap;
};

static void
add_target(struct setting_reader *r, struct targets *targets, struct conf_word word, bool from_file)
{
    struct arena *arena = &building(r)->d->arena;
    struct path path;
    struct target target = { .where = word.where, .from_file = from_file };

    if (str_starts(word.text, S("|")) || str_starts(word.text, S("/"))) {
        conf_error(
            r->problems, word.where, CONF_NO_SUGGESTION,
            "\"%.*s\" is not an address: an alias leads to addresses or to include:FILE, not to programs or files",
            STR_ARG(word.text));
        return;
    }
    if (word.text.len > LIMIT_PATH || !path_parse(word.text, arena, &path) || path.local.len == 0) {
        conf_error(r->problems, word.where, CONF_NO_SUGGESTION, "\"%.*s\" is not an address", STR_ARG(word.text));
        return;
    }
    path = path_keep(path, arena);
    target.local = path.local;
    if (path.domain.len > 0) {
        target.domain = domain_to_ascii(path.domain, arena);
        if (str_is_absent(target.domain)) {
            conf_error(r->problems, word.where, CONF_NO_SUGGESTION, "\"%.*s\" has no domain that could be",
                       STR_ARG(word.text));
            return;
        }
    }
    if (targets->count == targets->cap) {
        size_t cap = targets->cap ? 2 * targets->cap : 2;
        struct target *more = arena_alloc(arena, cap * sizeof *more);
        if (targets->count > 0)
            memcpy(more, targets->list, targets->count * sizeof *more);
        targets->list = more;
        targets->cap = cap;
    }
    targets->list[targets->count++] = target;
}

/* The words behind "->". *out_list: some come from a file. */
static struct targets
read_targets(struct setting_reader *r, const struct conf_word *words, size_t count, bool *out_list)
{
    struct targets targets = { 0 };

    *out_list = false;
    for (size_t i = 0; i < count; i++) {
        struct str path = words[i].text;
        struct conf_word member;
        struct lines lines;
        if (!str_take(&path, S("include:"))) {
            add_target(r, &targets, words[i], false);
            continue;
        }
        *out_list = true;
        if (lines_open(r, words[i], path, false, &lines))
            while (lines_next(&lines, &member))
                add_target(r, &targets, member, true);
    }
    if (targets.count > LIMIT_RCPT_EXPANDED)
        conf_error(r->problems, words[0].where, CONF_NO_SUGGESTION, "an alias may lead to %d addresses, not to %zu",
                   LIMIT_RCPT_EXPANDED, targets.count);
    return targets;
}

/* Index of "->", or 0 with the error said. */
static size_t
find_arrow(struct setting_reader *r, const struct conf_node *node, const char *form)
{
    for (size_t i = 1; i < node->count; i++)
        if (str_eq(node->words[i].text, S("->"))) {
            if (i + 1 < node->count)
                return i;
            break;
        }
    for (size_t i = 1; i < node->count; i++)
        if (str_find(node->words[i].text, S("->")) < node->words[i].text.len && node->words[i].text.len > 2) {
            conf_error(r->problems, node->words[i].where, CONF_NO_SUGGESTION,
                       "\"->\" stands between spaces: write \"%s\"", form);
            return 0;
        }
    conf_error(r->problems, node->words[0].where, CONF_NO_SUGGESTION, "something is missing here: write \"%s\"", form);
    return 0;
}

/* ---- the settings of a domain ---------------------------------------------------------------------------------- */

static void
read_mailbox(struct setting_reader *r, const struct conf_node *node, void *target)
{
    bool passwd = node->count > 1 && str_eq(node->words[1].text, S("passwd-file"));
    bool file = node->count > 1 && str_eq(node->words[1].text, S("file"));
    struct lines lines;
    struct conf_word name;

    (void)target;
    if (node->count < 2 || ((passwd || file) && node->count != 3)) {
        conf_error(r->problems, node->words[0].where, CONF_NO_SUGGESTION,
                   "write \"mailbox NAME ...\", \"mailbox file FILE\" or \"mailbox passwd-file FILE\"");
        return;
    }
    if (!passwd && !file) {
        for (size_t i = 1; i < node->count; i++)
            add_mailbox(r, node->words[i], false);
        return;
    }
    building(r)->rules->has_mailboxes = true;
    if (lines_open(r, node->words[2], node->words[2].text, passwd, &lines))
        while (lines_next(&lines, &name))
            add_mailbox(r, name, passwd);
}

static bool
take_alias_name(struct setting_reader *r, struct conf_word word, struct entry **out_entry)
{
    bool other_domain;
    struct str local;

    if (word.text.len == 0 || word.text.len > LIMIT_PATH || !take_own_name(r, word, &local, &other_domain)) {
        conf_error(r->problems, word.where, CONF_NO_SUGGESTION,
                   "\"%.*s\" is not a name in this domain", STR_ARG(word.text));
        return false;
    }
    *out_entry = get_entry(building(r), local);
    if ((*out_entry)->target_count > 0) {
        say_given_before(r, word, (*out_entry)->forward ? "forward" : "alias", (*out_entry)->alias_where);
        return false;
    }
    return true;
}

static void
read_alias(struct setting_reader *r, const struct conf_node *node, void *target)
{
    size_t arrow = find_arrow(r, node, "alias NAME ... -> ADDRESS ...");
    struct entry *entry;
    bool list;

    (void)target;
    if (arrow == 0)
        return;
    if (arrow == 1) {
        conf_error(r->problems, node->words[1].where, CONF_NO_SUGGESTION, "a name is missing before \"->\"");
        return;
    }
    struct targets targets = read_targets(r, node->words + arrow + 1, node->count - arrow - 1, &list);
    for (size_t i = 1; i < arrow; i++) {
        if (!take_alias_name(r, node->words[i], &entry))
            continue;
        entry->targets = targets.list;
        entry->target_count = targets.count;
        entry->list = list;
        entry->alias_where = node->words[i].where;
        if (list && targets.count == 0)
            conf_warn(r->problems, node->words[i].where, "the list \"%.*s\" has no members",
                      STR_ARG(node->words[i].text));
    }
}

static void
read_forward(struct setting_reader *r, const struct conf_node *node, void *unused)
{
    static const struct str replies[] = { STR("silent"), STR("251"), STR("551"), { NULL, 0 } };
    static const char form[] = "forward NAME -> ADDRESS [reply silent|251|551]";
    size_t arrow = find_arrow(r, node, form);
    size_t reply = 0;
    struct targets targets = { 0 };
    struct entry *entry;

    (void)unused;
    if (arrow == 0)
        return;
    bool has_reply = node->count == 6 && str_eq(node->words[4].text, S("reply"));
    if (arrow != 2 || (node->count != 4 && !has_reply)) {
        conf_error(r->problems, node->words[node->count > 4 ? 4 : 0].where, CONF_NO_SUGGESTION, "write \"%s\"", form);
        return;
    }
    if (has_reply) {
        reply = setting_choice(r, node->words[5], "a reply", replies);
        if (str_is_absent(replies[reply]))
            return;
    }
    add_target(r, &targets, node->words[3], false);
    if (targets.count == 0 || !take_alias_name(r, node->words[1], &entry))
        return;
    entry->targets = targets.list;
    entry->target_count = targets.count;
    entry->forward = (uint8_t)(FORWARD_SILENT + reply);
    entry->alias_where = node->words[1].where;
}

static void
read_catch_all(struct setting_reader *r, const struct conf_node *node, void *target)
{
    struct building *b = building(r);
    size_t arrow = find_arrow(r, node, "catch-all -> ADDRESS ...");
    bool list;

    (void)target;
    if (arrow == 0)
        return;
    if (arrow > 1) {
        conf_error(r->problems, node->words[1].where, CONF_NO_SUGGESTION, "write \"catch-all -> ADDRESS ...\"");
        return;
    }
    struct targets targets = read_targets(r, node->words + 2, node->count - 2, &list);
    struct entry *entry = arena_new(&b->d->arena, struct entry);
    *entry = (struct entry){ .name = S(""), .list = list, .alias_where = node->words[0].where };
    entry->targets = targets.list;
    entry->target_count = targets.count;
    if (targets.count > 0)
        b->rules->catch_all = entry;
}

static void
read_subaddress(struct setting_reader *r, const struct conf_node *node, void *target)
{
    struct building *b = building(r);
    bool good = node->count == 2 && node->words[1].text.len > 0 && node->words[1].text.len <= 4;

    (void)target;
    for (size_t i = 0; good && i < node->words[1].text.len; i++) {
        char c = node->words[1].text.ptr[i];
        good = c > ' ' && c < 0x7f && !byte_is_alnum(c) && c != '@' && c != '"' && c != '/';
    }
    if (good)
        b->rules->subaddress = arena_keep(&b->d->arena, node->words[1].text);
    else
        conf_error(r->problems, node->words[node->count > 1].where, CONF_NO_SUGGESTION,
                   "write the characters that begin a subaddress, such as \"subaddress +\"");
}

static void
read_recipients(struct setting_reader *r, const struct conf_node *node, void *target)
{
    static const struct str kinds[] = { STR("any"), STR("file"), STR("verify"), { NULL, 0 } };
    struct building *b = building(r);
    struct lines lines;
    struct conf_word word;
    bool other_domain;
    struct str local;

    (void)target;
    if (node->count < 2) {
        conf_error(r->problems, node->words[0].where, CONF_NO_SUGGESTION,
                   "write \"recipients verify\", \"recipients file FILE\" or \"recipients any\"");
        return;
    }
    size_t kind = setting_choice(r, node->words[1], "a way to know recipients", kinds);
    if (str_is_absent(kinds[kind]))
        return;
    b->rules->recipients = (uint8_t)(RECIPIENTS_ANY + kind);
    b->rules->recipients_where = node->words[0].where;
    size_t wanted = b->rules->recipients == RECIPIENTS_FILE ? 3 : 2;
    if (node->count != wanted) {
        conf_error(r->problems, node->words[node->count > wanted ? wanted : 1].where, CONF_NO_SUGGESTION,
                   wanted == 3 ? "write \"recipients file FILE\"" : "nothing may follow here");
        return;
    }
    if (wanted == 2 || !lines_open(r, node->words[2], node->words[2].text, false, &lines))
        return;
    while (lines_next(&lines, &word)) {
        if (take_own_name(r, word, &local, &other_domain))
            get_entry(b, local)->listed = true;
        else if (!other_domain)
            conf_error(r->problems, word.where, CONF_NO_SUGGESTION, "\"%.*s\" is not an address", STR_ARG(word.text));
    }
}

static void
say_other_way(struct setting_reader *r, const struct conf_node *node, const struct directory_route *route)
{
    char memory[300];
    struct text where = text_init(memory, sizeof memory);

    conf_where_put(&where, route->where);
    conf_error(r->problems, node->words[0].where, CONF_NO_SUGGESTION,
               "a domain has one way for its mail, and another was given at %.*s", STR_ARG(text_str(&where)));
}

bool
directory_read_hop(struct setting_reader *r, struct conf_word word, struct conf_hop *out)
{
    struct conf_hop hop;

    if (!setting_read_hop(r, word, &hop))
        return false;
    if (!str_is_absent(hop.host)) {
        struct str name = domain_to_ascii(hop.host, r->arena);
        if (str_is_absent(name)) {
            conf_error(r->problems, word.where, CONF_NO_SUGGESTION, "\"%.*s\" is not a name that IDNA allows", STR_ARG(hop.host));
            return false;
        }
        hop.host = name;
    }
    *out = hop;
    return true;
}

static void
read_relay(struct setting_reader *r, const struct conf_node *node, void *target)
{
    static const struct str kinds[] = { STR("via"), STR("mx"), { NULL, 0 } };
    struct directory_route *route = &building(r)->rules->route;

    (void)target;
    if (node->count < 2 || (str_eq(node->words[1].text, S("via")) && node->count != 3)) {
        conf_error(r->problems, node->words[0].where, CONF_NO_SUGGESTION,
                   "write \"relay via smtp://HOST\" or \"relay mx\"");
        return;
    }
    size_t kind = setting_choice(r, node->words[1], "a way to relay", kinds);
    if (str_is_absent(kinds[kind]))
        return;
    if (kind == 1 && node->count > 2) {
        conf_error(r->problems, node->words[2].where, CONF_NO_SUGGESTION, "nothing may follow \"relay mx\"");
        return;
    }
    if (route->kind != DIRECTORY_ROUTE_NONE) {
        say_other_way(r, node, route);
        return;
    }
    if (kind == 0 && !directory_read_hop(r, node->words[2], &route->hop))
        return;
    route->kind = kind == 0 ? DIRECTORY_ROUTE_VIA : DIRECTORY_ROUTE_MX;
    route->where = node->words[0].where;
}

/* {domain} and {local} are all there is. */
static bool
placeholders_are_known(struct setting_reader *r, struct conf_word word)
{
    struct str rest = word.text;
    size_t at;

    while ((at = str_find_byte(rest, '{')) < rest.len) {
        rest = str_from(rest, at + 1);
        struct str name = str_slice(rest, 0, str_find_byte(rest, '}'));
        struct conf_guess guess = { .word = name };
        if (str_eq(name, S("domain")) || str_eq(name, S("local")))
            continue;
        conf_guess_offer(&guess, S("domain"));
        conf_guess_offer(&guess, S("local"));
        conf_error(r->problems, word.where, conf_guess_best(&guess),
                   "\"{%.*s}\" is not known in a Maildir's path: there are {domain} and {local}", STR_ARG(name));
        return false;
    }
    return true;
}

static void
read_maildir(struct setting_reader *r, const struct conf_node *node, struct directory_route *route)
{
    struct building *b = building(r);
    struct conf_word path = node->words[2];
    bool has_local = str_find(path.text, S("{local}")) < path.text.len;
    bool has_domain = str_find(path.text, S("{domain}")) < path.text.len;

    if (!placeholders_are_known(r, path))
        return;
    if (!has_local)
        conf_warn(r->problems, path.where, "without {local} all mailboxes of this domain share one Maildir");
    else if (!has_domain && b->domains->next)
        conf_warn(r->problems, path.where,
                  "without {domain} mailboxes of the same name in these domains share one Maildir");
    for (size_t i = 3; i < node->count; i += 2) {
        static const struct str options[] = { STR("user"), STR("quota"), { NULL, 0 } };
        size_t option = setting_choice(r, node->words[i], "an option of a Maildir", options);
        if (str_is_absent(options[option]))
            return;
        if (option == 0 ? !str_is_absent(route->user) : route->quota > 0) {
            conf_error(r->problems, node->words[i].where, CONF_NO_SUGGESTION, "\"%.*s\" was given before",
                       STR_ARG(options[option]));
            return;
        }
        if (i + 1 == node->count) {
            conf_error(r->problems, node->words[i].where, CONF_NO_SUGGESTION, "something is missing behind this");
            return;
        }
        if (option == 0) {
            route->user = arena_keep(r->arena, node->words[i + 1].text);
        } else if (!conf_take_size(node->words[i + 1].text, &route->quota) || route->quota == 0) {
            conf_error(r->problems, node->words[i + 1].where, CONF_NO_SUGGESTION,
                       "\"%.*s\" is not a size such as 64KiB or 50MiB", STR_ARG(node->words[i + 1].text));
            return;
        }
    }
    route->maildir = arena_keep(r->arena, conf_resolve(r->arena, path.where.file, path.text));
    route->kind = DIRECTORY_ROUTE_MAILDIR;
}

static void
read_deliver(struct setting_reader *r, const struct conf_node *node, void *target)
{
    static const char form[] = "write \"deliver maildir PATH [user NAME] [quota SIZE]\" or \"deliver lmtp:/SOCKET\"";
    struct directory_route *route = &building(r)->rules->route;

    (void)target;
    if (route->kind != DIRECTORY_ROUTE_NONE) {
        say_other_way(r, node, route);
        return;
    }
    route->where = node->words[0].where;
    if (node->count > 2 && str_eq(node->words[1].text, S("maildir"))) {
        read_maildir(r, node, route);
    } else if (node->count == 2 && str_starts(node->words[1].text, S("lmtp:"))) {
        if (directory_read_hop(r, node->words[1], &route->hop))
            route->kind = DIRECTORY_ROUTE_LMTP;
    } else {
        struct conf_guess guess = { .word = node->count > 1 ? node->words[1].text : S("") };
        conf_guess_offer(&guess, S("maildir"));
        bool is_maildir = node->count > 1 && str_eq(node->words[1].text, S("maildir"));
        conf_error(r->problems, node->words[node->count > 1].where,
                   is_maildir ? CONF_NO_SUGGESTION : conf_guess_best(&guess), "%s", form);
    }
}

static void
read_same_as(struct setting_reader *r, const struct conf_node *node, void *target)
{
    struct building *b = building(r);
    struct str host;

    (void)target;
    if (node->count != 2) {
        conf_error(r->problems, node->words[0].where, CONF_NO_SUGGESTION, "write \"same-as DOMAIN\"");
        return;
    }
    if (node->next || node->parent->children != node)
        conf_error(r->problems, node->words[0].where, CONF_NO_SUGGESTION,
                   "nothing else may stand in a block with same-as");
    if (!setting_read_host(r, node->words[1], &host))
        return;
    b->rules->other_name = true;
    for (struct domain *at = b->domains; at; at = at->next) {
        at->rules = NULL;
        at->same_as_word = node->words[1];
        at->same_as_word.text = domain_to_ascii(host, &b->d->arena);
    }
}

static const struct setting domain_settings[] = {
    {STR("mailbox"), STR("NAME ... | file FILE | passwd-file FILE"), SETTING_CUSTOM, .repeats = true,
     .read = read_mailbox,
     .help = STR("Who has a mailbox here: by name, one name a line in a file, or the names of a passwd-file")},
    {STR("alias"), STR("NAME ... -> ADDRESS|include:FILE ..."), SETTING_CUSTOM, .repeats = true, .read = read_alias,
     .help = STR("Other names, for one or several; a list's members stand one a line in a file, and owner-NAME, if it "
                 "exists, becomes its envelope sender")},
    {STR("forward"), STR("NAME -> ADDRESS [reply silent|251|551]"), SETTING_CUSTOM, .repeats = true,
     .read = read_forward,
     .help = STR("Who has moved: forward silently, forward and say so (251), or only say so (551)")},
    {STR("catch-all"), STR("-> ADDRESS ..."), SETTING_CUSTOM, .read = read_catch_all,
     .help = STR("Who gets mail for names that nobody here has; not beside recipients verify or any, where the next hop knows who "
                 "there is")},
    {STR("subaddress"), STR("CHARACTERS"), SETTING_CUSTOM, .read = read_subaddress,
     .help = STR("With +, anna+x is anna unless anna+x itself is known")},
    {STR("deliver"), STR("maildir PATH [user NAME] [quota SIZE] | lmtp:/SOCKET | lmtp://HOST:PORT"), SETTING_CUSTOM,
     .read = read_deliver,
     .help = STR("Where mailboxes are; {domain} and {local} in the path are the configured names. A quota counts all messages in "
                 "new and cur of a Maildir: what would go over it waits, and comes back when it has waited too long")},
    {STR("recipients"), STR("verify | file FILE | any"), SETTING_CUSTOM, .read = read_recipients,
     .help = STR("Who exists behind a gateway, a backup or an LMTP server: ask it and remember, one name a line in a "
                 "file, or take all and bounce what it refuses. It is asked in clear: for mail with REQUIRETLS, and where its "
                 "route says \"tls require\", or the destination asks for TLS by DANE or enforces MTA-STS, all are taken and "
                 "nobody is asked, but by LMTP")},
    {STR("relay"), STR("via smtp://HOST:PORT | mx"), SETTING_CUSTOM, .read = read_relay,
     .help = STR("A gateway hands mail to a host, a backup to the better MX hosts of the domain")},
    {STR("same-as"), STR("DOMAIN"), SETTING_CUSTOM, .read = read_same_as,
     .help = STR("Another name for that domain: the same mailboxes and aliases")},
};
const struct setting_table directory_settings = SETTING_TABLE(domain_settings);

/* ---- building -------------------------------------------------------------------------------------------------- */

struct directory *
directory_new(struct mem *mem, uint64_t seed)
{
    struct directory *d = mem_new(mem, struct directory);

    d->mem = mem;
    d->seed = seed;
    arena_init(&d->arena, mem, 64 << 10, SIZE_MAX / 2); /* bounded by the bundle that it is made from */
    map_init(&d->domains, mem, seed);
    d->tail = &d->first;
    d->rules_tail = &d->rules;
    d->hostname = S("");
    return d;
}

void
directory_free(struct directory *d)
{
    struct mem *mem = d->mem;

    for (struct rules *rules = d->rules; rules; rules = rules->next)
        map_done(&rules->names);
    map_done(&d->domains);
    arena_done(&d->arena);
    mem_free(mem, d, sizeof *d);
}

/* A domain's name as it is known by: lower case A-labels; or the error is said. */
static bool
read_domain_name(struct setting_reader *r, struct directory *d, struct conf_word word, struct str *out)
{
    struct str name = domain_to_ascii(domain_without_dot(word.text), &d->arena);

    if (str_is_absent(name) || !domain_is_name(name)) {
        conf_error(r->problems, word.where, CONF_NO_SUGGESTION, "\"%.*s\" is not a domain name", STR_ARG(word.text));
        return false;
    }
    const struct domain *before = map_get(&d->domains, name);
    if (before) {
        say_given_before(r, word, "the domain", before->where);
        return false;
    }
    *out = name;
    return true;
}

void
directory_read_domain(struct setting_reader *r, struct directory *d, const struct conf_node *node)
{
    struct rules *rules = arena_new(&d->arena, struct rules);
    struct building b = { .d = d, .rules = rules };
    void *outer = r->ctx;
    struct str name;

    map_init(&rules->names, d->mem, d->seed);
    rules->tail = &rules->first;
    rules->where = node->words[0].where;
    *d->rules_tail = rules;
    d->rules_tail = &rules->next;
    if (node->count < 2 || !node->has_block) {
        conf_error(r->problems, node->words[0].where, CONF_NO_SUGGESTION, "write \"domain NAME ... { ... }\"");
        return;
    }
    for (size_t i = 1; i < node->count; i++) {
        if (!read_domain_name(r, d, node->words[i], &name))
            continue;
        struct domain *domain = arena_new(&d->arena, struct domain);
        *domain = (struct domain){ .name = name, .rules = rules, .where = node->words[i].where };
        map_put(&d->domains, name, domain);
        *d->tail = domain;
        d->tail = &domain->next;
        if (!b.domains)
            b.domains = domain;
    }
    if (!b.domains)
        return;
    r->ctx = &b;
    size_t errors = r->problems->errors;
    setting_read(r, &directory_settings, node->children, rules);
    rules->broken = r->problems->errors > errors;
    r->ctx = outer;
}

/* ---- what only the whole can tell ------------------------------------------------------------------------------ */

static void
resolve_same_as(struct setting_reader *r, struct directory *d, struct domain *domain)
{
    struct conf_word word = domain->same_as_word;
    struct conf_guess guess = { .word = word.text };
    struct domain *other = map_get(&d->domains, word.text);

    if (!other) {
        for (const struct domain *at = d->first; at; at = at->next)
            if (at != domain)
                conf_guess_offer(&guess, at->name);
        conf_error(r->problems, word.where, conf_guess_best(&guess), "the domain \"%.*s\" is not configured",
                   STR_ARG(word.text));
    } else if (!other->rules) {
        conf_error(r->problems, word.where, CONF_NO_SUGGESTION,
                   "\"%.*s\" is itself the same as another domain: name that one", STR_ARG(word.text));
    } else {
        domain->same_as = other;
    }
}

static bool
is_gateway(const struct rules *rules)
{
    return rules->route.kind == DIRECTORY_ROUTE_VIA || rules->route.kind == DIRECTORY_ROUTE_MX;
}

static void
check_rules(struct setting_reader *r, struct rules *rules)
{
    struct directory_route *route = &rules->route;
    bool relays = is_gateway(rules);
    bool local = route->kind == DIRECTORY_ROUTE_MAILDIR || route->kind == DIRECTORY_ROUTE_LMTP;
    bool empty = !rules->first && !rules->catch_all && rules->recipients == RECIPIENTS_UNSAID;

    if (rules->other_name || rules->broken)
        return;
    if (relays && rules->has_mailboxes)
        conf_error(r->problems, rules->where, CONF_NO_SUGGESTION,
                   "a domain that is relayed has no mailboxes of its own: name them in \"recipients file\"");
    else if (rules->has_mailboxes && route->kind == DIRECTORY_ROUTE_NONE)
        conf_error(r->problems, rules->where, CONF_NO_SUGGESTION,
                   "this domain has mailboxes but no way to deliver: add \"deliver maildir PATH\" or \"deliver "
                   "lmtp:/SOCKET\"");
    else if (rules->recipients != RECIPIENTS_UNSAID && !relays && route->kind != DIRECTORY_ROUTE_LMTP)
        conf_error(r->problems, rules->recipients_where, CONF_NO_SUGGESTION,
                   "\"recipients\" is for domains with \"relay\" or \"deliver lmtp\": local ones have mailboxes");
    else if (route->kind == DIRECTORY_ROUTE_NONE && empty)
        conf_error(r->problems, rules->where, CONF_NO_SUGGESTION,
                   "this domain has no way to deliver: it needs mailboxes, aliases, \"relay\" or \"same-as\"");
    else if (local && empty)
        conf_error(r->problems, rules->where, CONF_NO_SUGGESTION, "nobody lives in this domain: it needs a mailbox");
    if (relays && rules->recipients == RECIPIENTS_UNSAID)
        rules->recipients = RECIPIENTS_VERIFY;
    if (rules->recipients == RECIPIENTS_VERIFY && route->hop.kind == CONF_HOP_SMTPS && route->kind == DIRECTORY_ROUTE_VIA)
        conf_error(r->problems, rules->where, CONF_NO_SUGGESTION,
                   "who is asked for recipients must speak SMTP in clear or by STARTTLS, not smtps://: name them in \"recipients "
                   "file\"");
    if (rules->catch_all && (rules->recipients == RECIPIENTS_VERIFY || rules->recipients == RECIPIENTS_ANY))
        conf_error(r->problems, rules->catch_all->alias_where, CONF_NO_SUGGESTION,
                   "nobody is left for catch-all: what is not named here goes to the next hop, unless \"recipients file\" says who is there");
    if (rules->recipients == RECIPIENTS_ANY)
        conf_warn(r->problems, rules->recipients_where,
                  "\"recipients any\" makes backscatter: what the next hop refuses is bounced to senders who are often "
                  "forged");
}

/* The alias of one's own name means the mailbox: "alias anna -> anna, bob@elsewhere.example". */
static void
mark_own_mailboxes(const struct domain *domain, struct entry *entry)
{
    for (size_t i = 0; i < entry->target_count && entry->mailbox; i++) {
        struct target *target = &entry->targets[i];
        if (str_eq_nocase(target->local, entry->name) &&
            (str_is_absent(target->domain) || str_eq(target->domain, domain->name)))
            target->own_mailbox = true;
    }
}

static struct str
guess_name(const struct rules *rules, struct str local)
{
    struct conf_guess guess = { .word = local };

    for (const struct entry *at = rules->first; at; at = at->next)
        conf_guess_offer(&guess, at->name);
    return conf_guess_best(&guess);
}

static void
check_targets(struct setting_reader *r, struct directory *d, const struct domain *domain, const struct entry *entry,
              struct arena *scratch)
{
    for (size_t i = 0; i < entry->target_count && r->problems->errors < LIMIT_CONF_PROBLEMS; i++) {
        const struct target *target = &entry->targets[i];
        const struct domain *to = str_is_absent(target->domain) ? domain : directory_find_domain(d, target->domain);
        if (!to || target->own_mailbox || directory_find(d, to, target->local, scratch).kind != FOUND_NOBODY)
            continue;
        if (target->from_file)
            conf_warn(r->problems, target->where, "nobody in %.*s is called \"%.*s\"", STR_ARG(to->name),
                      STR_ARG(target->local));
        else
            conf_error(r->problems, target->where, guess_name(to->rules, target->local),
                       "nobody in %.*s is called \"%.*s\"", STR_ARG(to->name), STR_ARG(target->local));
    }
}

static void
check_alias(struct setting_reader *r, struct directory *d, const struct domain *domain, const struct entry *entry,
            struct arena *scratch)
{
    struct found found = { FOUND_ENTRY, domain, entry };
    struct recipient *recipients;
    size_t count;

    arena_reset(scratch);
    check_targets(r, d, domain, entry, scratch);
    enum expansion expansion = directory_expand(d, &found, scratch, &recipients, &count);
    if (expansion == EXPANSION_TOO_MANY)
        conf_error(r->problems, entry->alias_where, CONF_NO_SUGGESTION, "\"%.*s\" leads to more than %d addresses",
                   STR_ARG(entry->name), LIMIT_RCPT_EXPANDED);
    else if (expansion == EXPANSION_TOO_DEEP)
        conf_error(r->problems, entry->alias_where, CONF_NO_SUGGESTION,
                   "\"%.*s\" leads over more than %d aliases in a row", STR_ARG(entry->name), LIMIT_ALIAS_DEPTH);
    else if (count == 0)
        conf_error(r->problems, entry->alias_where, CONF_NO_SUGGESTION, "\"%.*s\" leads to nobody but itself",
                   STR_ARG(entry->name));
    size_t used = scratch->used + (count + 1) * sizeof *recipients;
    if (used > DIRECTORY_ANSWER_MAX)
        conf_error(r->problems, entry->alias_where, CONF_NO_SUGGESTION,
                   "\"%.*s\" leads over too many other aliases: name its members more directly", STR_ARG(entry->name));
    if (used > d->answer_bytes)
        d->answer_bytes = used;
}

/* The first local domain where postmaster is somebody, else the first gateway; without any, the first domain at all. */
static void
choose_home(struct directory *d, struct arena *scratch)
{
    for (int gateways = 0; gateways < 2; gateways++)
        for (const struct domain *at = d->first; at; at = at->next) {
            if (!at->rules || is_gateway(at->rules) != (bool)gateways)
                continue;
            if (directory_find(d, at, S("postmaster"), scratch).kind !=
                FOUND_NOBODY) { /* with no home to look in yet */
                d->home = at;
                d->has_postmaster = true;
                return;
            }
        }
    d->home = d->first && d->first->same_as ? d->first->same_as : d->first;
}

void
directory_finish(struct setting_reader *r, struct directory *d, struct str hostname, const struct address *ours,
                 size_t ours_count)
{
    struct arena scratch;

    d->hostname = domain_to_ascii(hostname, &d->arena);
    d->ours = ours;
    d->ours_count = ours_count;
    for (struct domain *at = d->first; at; at = at->next)
        if (!at->rules)
            resolve_same_as(r, d, at);
    for (struct domain *at = d->first; at; at = at->next)
        for (struct entry *entry = at->rules ? at->rules->first : NULL; entry; entry = entry->next)
            mark_own_mailboxes(at, entry);
    for (struct rules *rules = d->rules; rules; rules = rules->next)
        check_rules(r, rules);
    if (r->problems->errors > 0)
        return; /* what follows would only say the same again */
    arena_init(&scratch, d->mem, 64 << 10, SIZE_MAX / 2);
    choose_home(d, &scratch);
    for (const struct domain *at = d->first; at; at = at->next) {
        if (!at->rules)
            continue;
        for (const struct entry *entry = at->rules->first; entry; entry = entry->next)
            if (entry->target_count > 0)
                check_alias(r, d, at, entry, &scratch);
        if (at->rules->catch_all)
            check_alias(r, d, at, at->rules->catch_all, &scratch);
    }
    d->answer_bytes += 16 * LIMIT_COMMAND_LINE; /* what the client wrote, folded, split and joined */
    arena_done(&scratch);
}
