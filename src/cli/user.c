/*
 * user - "postrider user add|passwd|rm|list": who may submit, in our own users file. The file is written anew beside the
 * old one and takes its place: whoever reads it sees all of the old or all of the new one. The gate takes it up by itself.
 */
#include "cli/cli.h"

#include "base/json.h"
#include "message/utf8.h"
#include "role/load.h"
#include "runtime/host.h"
#include "sasl/password.h"
#include "sasl/prepare.h"
#include "sasl/sender.h"
#include "sasl/users.h"

#include <stddef.h>
#include <string.h>

enum { PROBLEMS_MAX = 16 << 10, ARENA_MAX = 4 * USERS_BYTES_MAX, LINE_BYTES = 4096 };

struct settings {
    struct str config, file;
    struct words send_as;
    bool legacy, json;
};
static const struct option options[] = {
    { "--config", "FILE", OPTION_WORD, offsetof(struct settings, config),
      "whose \"users file\" is meant\n(" CLI_CONFIG ")" },
    { "--file", "FILE", OPTION_WORD, offsetof(struct settings, file), "this users file, whatever is configured" },
    { "--send-as", "ADDRESS", OPTION_WORDS, offsetof(struct settings, send_as),
      "add: who it also may write as: an address, @DOMAIN for all\nof a domain, or *; may be given again" },
    { "--legacy", NULL, OPTION_FLAG, offsetof(struct settings, legacy),
      "add, passwd: for SCRAM-SHA-1 and CRAM-MD5 too; the file then\nholds the password itself" },
    { "--json", NULL, OPTION_FLAG, offsetof(struct settings, json), "list: a JSON object a line" },
    { 0 },
};

struct editing {
    struct rt *rt;
    struct arena *arena;
    const struct settings *set;
    struct str path, folder, name, fresh; /* fresh: name of the new file, in the folder */
    struct str text;                      /* of the file; empty if there is none */
    struct host_file old;
    bool exists;
    int exit;
};

static bool
fail(struct editing *e, int exit, const char *what, struct err why)
{
    e->exit = cli_fail(&verb_user, exit, "%.*s: %s: %.*s", STR_ARG(e->path), what, STR_ARG(cli_error(why, e->arena)));
    return false;
}

/* ---- which file -------------------------------------------------------------------------------------------------- */

static bool
configured_path(struct editing *e, struct str *out)
{
    struct str config = str_is_absent(e->set->config) ? S(CLI_CONFIG) : e->set->config;
    struct text problems = text_init(arena_alloc(e->arena, PROBLEMS_MAX), PROBLEMS_MAX);
    struct loaded loaded;

    if (!load_file(e->rt, config, &loaded, &problems)) {
        terminal_write(TERMINAL_ERROR, text_str(&problems));
        e->exit = cli_fail(&verb_user, EXIT_CONFIG, "\"%.*s\" says where the users are, and cannot be used (or use --file)",
                           STR_ARG(config));
        return false;
    }
    const struct site_users *users = &loaded.site->users;
    if (users->kind == USERS_FILE)
        *out = arena_keep(e->arena, users->path);
    else
        e->exit = cli_fail(&verb_user, EXIT_CONFIG, users->kind == USERS_DOVECOT
                               ? "%.*s: users are Dovecot's, and are made there" : "%.*s: add \"users file FILE\", or use --file",
                           STR_ARG(config));
    bool fine = users->kind == USERS_FILE;
    load_free(&loaded);
    return fine;
}

static struct err
read_whole(struct editing *e, struct file *file, uint64_t size, struct str *out)
{
    char *bytes = arena_alloc(e->arena, (size_t)size + 1);
    size_t len = 0, got = 1;

    while (got > 0 && len < size) {
        TRY(file_read(file, bytes + len, (size_t)size - len, len, LANE_POOL, FOREVER, &got));
        len += got;
    }
    *out = str_new(bytes, len);
    return OK;
}

/* Root may change users in a folder of somebody else: as the server, we read no other file there by a link of his. */
static struct err
read_text(struct editing *e, struct host_file *out_file, struct str *out)
{
    struct handle handle;
    struct file *file;

    TRY(host_open_plain(e->rt, e->path, FOREVER, &handle, out_file));
    if (out_file->size > USERS_BYTES_MAX) {
        handle_close(e->rt, handle);
        return ERR(ERR_LIMIT, "read a users file that is too long");
    }
    TRY(file_from_handle(e->rt, handle, &file));
    struct err why = read_whole(e, file, out_file->size, out);
    file_close(file);
    return why;
}

static bool
read_file(struct editing *e)
{
    if (str_is_absent(e->set->file) && !configured_path(e, &e->path))
        return false;
    if (!str_is_absent(e->set->file))
        e->path = e->set->file;
    size_t slash = str_find_last_byte(e->path, '/');
    e->folder = slash >= e->path.len ? S(".") : slash == 0 ? S("/") : str_slice(e->path, 0, slash);
    e->name = slash >= e->path.len ? e->path : str_from(e->path, slash + 1);
    e->fresh = arena_join(e->arena, e->name, S(".new"));
    e->text = S("");
    struct err why = read_text(e, &e->old, &e->text);
    e->exists = !err_is(why);
    return err_is(why) && why.kind != ERR_NOT_FOUND ? fail(e, EXIT_NO_INPUT, "cannot be read", why) : true;
}

/* ---- writing it -------------------------------------------------------------------------------------------------- */

/* As the old one; a new one is for its owner alone, who is the folder's. */
static struct err
take_over(struct editing *e)
{
    struct str path = arena_join(e->arena, e->path, S(".new"));
    struct host_file model = e->old;
    unsigned mode = e->exists ? e->old.mode & 0770 : 0600;

    if (!e->exists)
        TRY(host_stat(e->rt, e->folder, FOREVER, &model));
    bool mine = model.uid == host_my_uid(e->rt) && model.gid == host_my_gid(e->rt);
    bool other = host_my_uid(e->rt) == 0 && !mine;
    return host_own(e->rt, path, mode, other ? (int64_t)model.uid : -1, other ? (int64_t)model.gid : -1, FOREVER);
}

/* Since it was read: a password takes its time to be typed. Nobody changes it from now on: the new file is there. */
static bool
was_changed(struct editing *e)
{
    struct str text = S("");
    struct host_file now;
    struct err why = read_text(e, &now, &text);

    return (err_is(why) && why.kind != ERR_NOT_FOUND) || !str_eq(text, e->text);
}

static struct err
write_parts(struct editing *e, struct dir *dir, const struct str *parts, size_t count)
{
    struct file *file;

    TRY(file_open(dir, e->fresh, FILE_WRITE | FILE_CREATE | FILE_NEW, 0600, LANE_POOL, FOREVER, &file));
    struct err why = was_changed(e) ? ERR(ERR_BUSY, "write a file that somebody else has changed meanwhile")
                                    : file_write_sync(file, parts, count, 0, LANE_POOL, FOREVER);
    file_close(file);
    if (!err_is(why))
        why = take_over(e);
    if (!err_is(why))
        why = dir_rename(dir, e->fresh, dir, e->name, LANE_POOL, FOREVER);
    if (err_is(why)) {
        (void)dir_unlink(dir, e->fresh, LANE_POOL, FOREVER);
        return why;
    }
    return dir_sync(dir, LANE_POOL, FOREVER);
}

static bool
write_file(struct editing *e, struct str before, struct str line, struct str after)
{
    bool open_end = before.len > 0 && !str_ends(before, S("\n"));
    struct str parts[] = { before, open_end ? S("\n") : S(""), line, after };
    struct dir *dir;

    struct err why = dir_open(e->rt, e->folder, LANE_POOL, FOREVER, &dir);
    if (err_is(why))
        return fail(e, EXIT_CANNOT_CREATE, "cannot be written", why);
    why = write_parts(e, dir, parts, sizeof parts / sizeof *parts);
    dir_close(dir);
    if (why.kind == ERR_EXISTS) {
        e->exit = cli_fail(&verb_user, EXIT_AGAIN, "%.*s/%.*s is there: somebody else is changing users just now; if nobody is, "
                           "remove it", STR_ARG(e->folder), STR_ARG(e->fresh));
        return false;
    }
    if (why.kind == ERR_BUSY) {
        e->exit = cli_fail(&verb_user, EXIT_AGAIN, "%.*s: somebody else has changed users meanwhile; say it again", STR_ARG(e->path));
        return false;
    }
    return err_is(why) ? fail(e, EXIT_CANNOT_CREATE, "cannot be written", why) : true;
}

/* ---- a user in it ------------------------------------------------------------------------------------------------ */

/* The line of that user, with its end, and what stands before and behind it. False: there is none. */
static bool
find_line(const struct editing *e, struct str name, struct str *out_before, struct str *out_line, struct str *out_after)
{
    struct str rest = e->text;

    while (rest.len > 0) {
        struct str from = rest, line = str_cut(&rest, '\n'), word = line;
        if (str_is_absent(rest))
            rest = str_from(e->text, e->text.len);
        if (!str_starts(line, S("#")) && str_eq(str_cut(&word, ':'), name)) {
            *out_before = str_slice(e->text, 0, e->text.len - from.len);
            *out_line = str_ends(line, S("\r")) ? str_slice(line, 0, line.len - 1) : line;
            *out_after = rest;
            return true;
        }
    }
    return false;
}

/* The text without the lines of that user: of several the server takes the first, and must not find a second now. */
static struct str
without(const struct editing *e, struct str name)
{
    struct text out = text_init(arena_alloc(e->arena, e->text.len), e->text.len);
    struct editing rest = *e;
    struct str before, line, after;

    while (find_line(&rest, name, &before, &line, &after)) {
        text_put(&out, before);
        rest.text = after;
    }
    text_put(&out, rest.text);
    return text_str(&out);
}

static bool
take_name(struct editing *e, struct str said, struct str *out)
{
    struct text name = text_init(arena_alloc(e->arena, LIMIT_USER_NAME), LIMIT_USER_NAME);

    if (!prepare_name(said, &name) || text_str(&name).ptr[0] == '#') {
        e->exit = cli_fail(&verb_user, EXIT_USAGE, "\"%.*s\" can be nobody's name: no spaces, no colon, at most %d bytes of UTF-8",
                           STR_ARG(said), LIMIT_USER_NAME);
        return false;
    }
    *out = text_str(&name);
    return true;
}

/* ---- passwords --------------------------------------------------------------------------------------------------- */

static bool
ask(struct editing *e, const char *prompt, char *memory, size_t cap, struct str *out)
{
    size_t len;

    struct err why = terminal_secret(e->rt, str_from_cstr(prompt), memory, cap, &len);
    if (why.kind == ERR_CANCELLED)
        e->exit = cli_fail(&verb_user, EXIT_FALSE, "given up; nothing was changed");
    else if (err_is(why))
        e->exit = cli_fail(&verb_user, EXIT_IO, "the password cannot be read: %.*s", STR_ARG(cli_error(why, e->arena)));
    *out = str_new(memory, err_is(why) ? 0 : len);
    return !err_is(why);
}

/* The first line of standard input, or from the terminal, twice and unseen. */
static bool
read_password(struct editing *e, char *memory, size_t cap, struct str *out)
{
    char again_memory[PREPARED_MAX];
    struct str again;

    if (!ask(e, "Password: ", memory, cap, out))
        return false;
    if (!terminal_input_is_one())
        return true;
    bool fine = ask(e, "Once more: ", again_memory, sizeof again_memory, &again);
    if (fine && !str_eq(*out, again)) {
        e->exit = cli_fail(&verb_user, EXIT_DATA, "these were two different passwords; nothing was changed");
        fine = false;
    }
    explicit_bzero(again_memory, sizeof again_memory);
    return fine;
}

static bool
set_password(struct editing *e, struct user *user)
{
    char said_memory[PREPARED_MAX], memory[PREPARED_MAX];
    struct text prepared = text_init(memory, sizeof memory), made = text_init(arena_alloc(e->arena, LINE_BYTES), LINE_BYTES);
    struct user_secret secret = { .legacy = e->set->legacy, .memory = arena_alloc(e->arena, password_memory()) };
    struct str said;

    if (!read_password(e, said_memory, sizeof said_memory, &said))
        return false;
    bool fine = prepare_password(said, &prepared) && prepared.len <= PASSWORD_MAX;
    if (!fine)
        e->exit = cli_fail(&verb_user, EXIT_DATA, "this cannot be a password: it is empty, longer than %d bytes, no UTF-8, or has "
                           "a control character; nothing was changed", PASSWORD_MAX);
    for (size_t i = 0; i < sizeof secret.random; i++)
        ((unsigned char *)secret.random)[i] = (unsigned char)rt_random(e->rt);
    secret.password = text_str(&prepared);
    if (fine && !user_set_password(user, &secret, &made)) {
        e->exit = cli_fail(&verb_user, EXIT_OS, "libcrypt cannot hash it; nothing was changed");
        fine = false;
    }
    explicit_bzero(said_memory, sizeof said_memory);
    explicit_bzero(memory, sizeof memory);
    return fine;
}

static struct str
line_of(struct editing *e, const struct user *user)
{
    size_t cap = LINE_BYTES + LIMIT_USER_SENDERS * (LIMIT_PATH + 1);
    struct text line = text_init(arena_alloc(e->arena, cap), cap);

    user_put(&line, user);
    return text_str(&line);
}

/* ---- what can be done -------------------------------------------------------------------------------------------- */

static bool
add(struct editing *e, struct str name)
{
    struct user user = { .name = name };
    struct str before, line, after;

    if (find_line(e, name, &before, &line, &after)) {
        e->exit = cli_fail(&verb_user, EXIT_DATA, "there is a user \"%.*s\" already: try \"postrider user passwd %.*s\"",
                           STR_ARG(name), STR_ARG(name));
        return false;
    }
    for (size_t i = 0; i < e->set->send_as.count; i++) {
        struct str sender = e->set->send_as.word[i];
        if (!sasl_is_sender(sender) || sender.len > LIMIT_PATH || user.sender_count == LIMIT_USER_SENDERS) {
            e->exit = cli_fail(&verb_user, EXIT_USAGE, "--send-as wants an address, @DOMAIN or *, at most %d of them, not \"%.*s\"",
                               LIMIT_USER_SENDERS, STR_ARG(sender));
            return false;
        }
        user.senders[user.sender_count++] = sender;
    }
    return set_password(e, &user) && write_file(e, e->text, line_of(e, &user), S(""));
}

static bool
passwd(struct editing *e, struct str before, struct str line, struct str after)
{
    struct user user;
    const char *wrong = user_parse(line, &user);

    if (wrong) {
        e->exit = cli_fail(&verb_user, EXIT_DATA, "%.*s: the line of this user is wrong: %s", STR_ARG(e->path), wrong);
        return false;
    }
    return set_password(e, &user) && write_file(e, before, line_of(e, &user), after);
}

static void
put_ways(struct text *t, const struct user *u)
{
    if (u->off)
        text_put(t, S("off"));
    else if (str_eq(u->hash, S("*")) && u->sha256.iterations == 0)
        text_put(t, S("certificate"));
    else
        text_put(t, u->sha256.iterations == 0 ? S("password") : str_is_absent(u->plain) ? S("password, SCRAM")
                                                                                        : S("password, SCRAM, legacy"));
}

static bool
list_line(struct editing *e, struct str line, size_t number)
{
    char memory[40];
    struct text ways = text_init(memory, sizeof memory);
    struct user user;
    const char *wrong = user_parse(line, &user);

    if (wrong) {
        cli_fail(&verb_user, EXIT_DATA, "%.*s:%zu: %s", STR_ARG(e->path), number, wrong);
        return false;
    }
    put_ways(&ways, &user);
    size_t cap = 4 * USERS_LINE_MAX;
    struct text out = text_init(mem_alloc(rt_mem(e->rt), cap), cap);
    if (e->set->json) {
        text_put(&out, S("{"));
        json_put_number(&out, "version", 1);
        json_put_field(&out, "user", user.name);
        json_put_bool(&out, "off", user.off);
        json_put_bool(&out, "scram", user.sha256.iterations > 0);
        json_put_bool(&out, "legacy", !str_is_absent(user.plain));
        json_put_name(&out, "send-as");
    } else {
        utf8_put_visible(&out, user.name);
        for (size_t i = user.name.len; i < 32; i++)
            text_put_byte(&out, ' ');
        text_putf(&out, " %-24.*s", STR_ARG(text_str(&ways)));
    }
    text_put(&out, e->set->json ? S("[") : S(""));
    for (size_t i = 0; i < user.sender_count; i++) {
        text_put(&out, i > 0 && e->set->json ? S(",") : e->set->json ? S("") : S(" "));
        if (e->set->json)
            json_put_str(&out, user.senders[i]);
        else
            utf8_put_visible(&out, user.senders[i]);
    }
    text_put(&out, e->set->json ? S("]}\n") : S("\n"));
    terminal_write(TERMINAL_OUT, text_str(&out));
    mem_free(rt_mem(e->rt), out.ptr, cap);
    return true;
}

static bool
list(struct editing *e)
{
    struct str rest = e->text;

    for (size_t number = 1; rest.len > 0; number++) {
        struct str line = str_cut(&rest, '\n');
        if (str_ends(line, S("\r")))
            line.len--;
        if (line.len > 0 && line.ptr[0] != '#' && !list_line(e, line, number))
            e->exit = EXIT_DATA;
    }
    return e->exit == EXIT_WELL;
}

static int
edit(struct editing *e, struct str what, struct words operands)
{
    struct str name, before, line, after;

    if (str_eq(what, S("list")) && operands.count == 1)
        return read_file(e) && list(e) ? EXIT_WELL : e->exit;
    bool adds = str_eq(what, S("add")), changes = str_eq(what, S("passwd")), removes = str_eq(what, S("rm"));
    if ((!adds && !changes && !removes) || operands.count != 2)
        return cli_fail(&verb_user, EXIT_USAGE, "say \"add NAME\", \"passwd NAME\", \"rm NAME\" or \"list\" (try --help)");
    if (!take_name(e, operands.word[1], &name) || !read_file(e))
        return e->exit;
    if (adds)
        return add(e, name) ? EXIT_WELL : e->exit;
    if (!find_line(e, name, &before, &line, &after))
        return cli_fail(&verb_user, EXIT_NO_USER, "%.*s: there is no user \"%.*s\"", STR_ARG(e->path), STR_ARG(name));
    bool done = changes ? passwd(e, before, line, after) : write_file(e, without(e, name), S(""), S(""));
    return done ? EXIT_WELL : e->exit;
}

static int
run(struct rt *rt, int argc, char **argv)
{
    struct settings set = { .legacy = false };
    struct words operands = { 0 };
    struct arena arena;
    int exit;

    arena_init(&arena, rt_mem(rt), 4096, ARENA_MAX);
    if (!cli_parse(&verb_user, argc, argv, &arena, &set, &operands, &exit))
        return exit;
    struct editing e = { .rt = rt, .arena = &arena, .set = &set };
    exit = edit(&e, operands.count > 0 ? operands.word[0] : S(""), operands);
    arena_done(&arena);
    return exit;
}

const struct verb verb_user = {
    "user", "Make, change, remove and list the users who may submit mail", "add|passwd|rm NAME, list",
    "  add      asks for a password, without showing it; not from a terminal, the\n"
    "           first line of standard input is the password\n"
    "  passwd   likewise, for a user who is there\n"
    "  rm       removes the user\n"
    "  list     who there is, how each can log in, and as whom else each may write\n\n"
    "A name is what a mail program asks for as user name: anna@example.org, or anna.\n"
    "A server that runs takes the change up within seconds.\n\n"
    "Example: postrider user add anna@example.org --send-as sales@example.org\n",
    options, run,
};
