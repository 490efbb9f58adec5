/* operate - see operate.h; and the verbs status, reload and stop. */
#include "cli/operate.h"

#include "base/json.h"
#include "link/link.h"
#include "message/utf8.h"
#include "role/load.h"

#include <stddef.h>

enum { ARENA_MAX = 256 << 20 };

#define CALL_NS (10 * MINUTE)   /* a reload or stop waits for other processes */
#define ANSWER_NS (20 * SECOND) /* everything else: nobody may be there behind the socket */

struct operate {
    struct rt *rt;
    const struct verb *verb;
    struct link *link;
    struct arena arena;
    struct err why; /* the link ended */
};

static bool
handle(void *ctx, struct link *link, struct link_message *m)
{
    (void)ctx;
    (void)link;
    (void)m;
    return false; /* the console only answers */
}

static void
closed(void *ctx, struct link *link, struct err why)
{
    struct operate *o = ctx;

    (void)link;
    o->why = why;
}

/* The socket that the configuration means. False: it was said why. */
static bool
socket_path(struct operate *o, const struct operate_settings *set, struct str *out)
{
    struct str state, hostname;

    if (!str_is_absent(set->socket)) {
        *out = set->socket;
        return true;
    }
    struct str config = str_is_absent(set->config) ? S(CLI_CONFIG) : set->config;
    struct err e = load_basics(o->rt, config, &o->arena, &state, &hostname);
    if (err_is(e)) {
        cli_fail(o->verb, EXIT_CONFIG, "\"%.*s\" says where the server is, and cannot be read (or use --socket): %.*s",
                 STR_ARG(config), STR_ARG(cli_error(e, &o->arena)));
        return false;
    }
    *out = arena_join(&o->arena, str_is_absent(state) ? S("/var/lib/postrider") : state, S("/control.sock"));
    return true;
}

struct operate *
operate_open(struct rt *rt, const struct verb *verb, const struct operate_settings *set, int *out_exit)
{
    struct operate *o = mem_new(rt_mem(rt), struct operate);
    struct link_settings settings = { .name = S("console"), .ctx = o, .handle = handle, .closed = closed };
    struct address address;
    struct stream *stream;
    struct str path;

    o->rt = rt;
    o->verb = verb;
    arena_init(&o->arena, rt_mem(rt), 16 << 10, ARENA_MAX);
    if (!socket_path(o, set, &path)) {
        *out_exit = EXIT_CONFIG;
        operate_close(o);
        return NULL;
    }
    struct err e = address_parse(path, &address) && address.family == ADDRESS_UNIX
                       ? stream_connect(rt, &address, NULL, within(rt, 10 * SECOND), &stream)
                       : ERR(ERR_SYNTAX, "the socket's path must begin with / and be short");
    if (err_is(e)) {
        bool denied = e.kind == ERR_DENIED;
        *out_exit = cli_fail(verb, denied ? EXIT_NO_PERMISSION : EXIT_UNAVAILABLE, "%s %.*s: %.*s",
                             denied ? "only the server's user and root may use" : "no server answers at", STR_ARG(path),
                             STR_ARG(cli_error(e, &o->arena)));
        operate_close(o);
        return NULL;
    }
    o->link = link_on_stream(stream, &settings);
    return o;
}

void
operate_close(struct operate *o)
{
    struct mem *mem = rt_mem(o->rt);

    if (o->link)
        link_free(o->link);
    arena_done(&o->arena);
    mem_free(mem, o, sizeof *o);
}

struct arena *
operate_arena(struct operate *o)
{
    return &o->arena;
}

bool
operate_call(struct operate *o, uint16_t type, struct str body, struct str *out_reply)
{
    int64_t wait = type == BORDER_RELOAD || type == BORDER_STOP ? CALL_NS : ANSWER_NS;
    struct err e = link_call(o->link, type, body, &o->arena, within(o->rt, wait), out_reply);

    if (!err_is(e))
        return true;
    if (e.kind == ERR_UNKNOWN && o->why.kind == ERR_PROTOCOL)
        e = o->why; /* another build's server, most likely */
    cli_fail(o->verb, EXIT_UNAVAILABLE, "the server gave no answer: %.*s", STR_ARG(cli_error(e, &o->arena)));
    return false;
}

/* ---- reload, stop ---- */

struct plain_settings {
    struct operate_settings operate;
};
static const struct option plain_options[] = { OPERATE_OPTIONS(plain_settings, operate), { 0 } };

static int
call_plainly(struct rt *rt, const struct verb *verb, uint16_t type, int argc, char **argv)
{
    struct plain_settings set = { { { NULL, 0 }, { NULL, 0 }, false } };
    struct words operands = { 0 };
    static const struct { int exit; const char *what; } answers[RELOAD_ANSWERS] = {
        [RELOAD_REFUSED] = { EXIT_CONFIG, "nothing was changed:" },
        [RELOAD_DONE] = { EXIT_WELL, NULL },
        [RELOAD_INCOMPLETE] = { EXIT_UNAVAILABLE, "the new configuration has not come up whole:" },
        [RELOAD_LATER] = { EXIT_AGAIN, "nothing was changed:" },
    };
    struct arena arena;
    struct str reply;
    int exit;

    arena_init(&arena, rt_mem(rt), 4096, SIZE_MAX / 2); /* bounded by the command line */
    if (!cli_parse(verb, argc, argv, &arena, &set, &operands, &exit) || !cli_no_operands(verb, &operands, &exit))
        return exit;
    struct operate *o = operate_open(rt, verb, &set.operate, &exit);
    if (!o)
        return exit;
    if (!operate_call(o, type, S(""), &reply)) {
        exit = EXIT_UNAVAILABLE;
    } else {
        struct take t = take_init(reply);
        uint32_t answer = take_enum(&t, RELOAD_ANSWERS - 1);
        exit = answers[answer].exit;
        if (exit != EXIT_WELL)
            cli_fail(verb, exit, "%s", answers[answer].what);
        terminal_write(exit == EXIT_WELL ? TERMINAL_OUT : TERMINAL_ERROR, t.rest); /* may be long */
    }
    operate_close(o);
    arena_done(&arena);
    return exit;
}

static int
run_reload(struct rt *rt, int argc, char **argv)
{
    return call_plainly(rt, &verb_reload, BORDER_RELOAD, argc, argv);
}

static int
run_stop(struct rt *rt, int argc, char **argv)
{
    return call_plainly(rt, &verb_stop, BORDER_STOP, argc, argv);
}

const struct verb verb_reload = {
    "reload", "Take up a changed configuration", "",
    "Checks the configuration whole first; if it is wrong, says where, and the old one stays. Sessions go on. If not\n"
    "every process of the new one starts, those of the old one stay, and the exit code is 69.\n\n"
    "Example: postrider reload\n",
    plain_options, run_reload,
};
const struct verb verb_stop = {
    "stop", "Stop the server", "",
    "Deliveries under way end, open sessions hear 421; what was accepted stays in the spool.\n\n"
    "Example: postrider stop\n",
    plain_options, run_stop,
};

/* ---- status ---- */

struct status_settings {
    struct operate_settings operate;
};
static const struct option status_options[] = {
    OPERATE_OPTIONS(status_settings, operate),
    { "--json", NULL, OPTION_FLAG, offsetof(struct status_settings, operate.json), "as JSON" },
    { 0 },
};

enum { FIELDS = 7 };

/* The supervisor's JSON has one flat object a role: the next one's fields, in this order. */
static bool
next_role(struct str *json, struct str values[FIELDS])
{
    static const char *const fields[FIELDS] = { "role", "index", "generation", "pid", "state", "restarts", "sandbox" };
    size_t at = str_find_byte(*json, '{');
    struct str object = str_slice(str_from(*json, at), 0, str_find_byte(str_from(*json, at), '}'));

    for (size_t i = 0; i < FIELDS; i++) {
        char name[32];
        struct text key = text_init(name, sizeof name);
        text_putf(&key, "\"%s\":", fields[i]);
        struct str value = str_from(object, str_find(object, text_str(&key)) + key.len);
        bool quoted = str_take_byte(&value, '"');
        values[i] = str_slice(value, 0, str_find_byte(value, quoted ? '"' : ','));
    }
    *json = str_from(*json, at + object.len);
    return object.len > 0;
}

/* What is enforced is mostly the same for all: then it is said once. */
static void
print_roles(struct str json)
{
    struct str v[FIELDS], sandbox = { NULL, 0 };
    bool same = true;

    for (struct str rest = json; next_role(&rest, v); sandbox = v[6])
        same = same && (str_is_absent(sandbox) || str_eq(sandbox, v[6]));
    cli_print("%-11s %5s %3s %8s %-9s %8s%s\n", "ROLE", "INDEX", "GEN", "PID", "STATE", "RESTARTS",
              same ? "" : "  SANDBOX");
    for (struct str rest = json; next_role(&rest, v);)
        cli_print("%-11.*s %5.*s %3.*s %8.*s %-9.*s %8.*s%s%.*s\n", STR_ARG(v[0]), STR_ARG(v[1]), STR_ARG(v[2]),
                  STR_ARG(v[3]), STR_ARG(v[4]), STR_ARG(v[5]), same ? "" : "  ", STR_ARG(same ? S("") : v[6]));
    if (same)
        cli_print("\nsandbox of each: %.*s\n", STR_ARG(sandbox));
}

/* Whom the gate lets not log in for now, because of wrong passwords. */
static void
print_bans(struct operate *o, struct take *t, bool json)
{
    uint32_t count = take_count(t, BORDER_BANS_MAX);

    if (json)
        cli_print(",\"bans\":[");
    else if (count > 0)
        cli_print("\n%-32s %-24s %s\n", "NO LOGIN FOR", "FROM", "FOR ANOTHER");
    for (uint32_t i = 0; i < count && !t->bad; i++) {
        struct str account = take_bytes(t, LIMIT_USER_NAME), network = take_bytes(t, 100);
        int64_t until = take_i64(t), left = until - rt_wall(o->rt);
        char memory[2048];
        struct text text = text_init(memory, sizeof memory);
        if (json) {
            text_put(&text, i ? S(",{") : S("{"));
            json_put_field(&text, "account", account.len > 0 ? account : (struct str){ NULL, 0 });
            json_put_field(&text, "network", network.len > 0 ? network : (struct str){ NULL, 0 });
            json_put_number(&text, "seconds", left > 0 ? left / SECOND : 0);
            cli_print("%.*s}", STR_ARG(text_str(&text)));
        } else {
            utf8_put_visible(&text, account.len > 0 ? account : S("anybody"));
            cli_print("%-32.*s %-24.*s %.*s\n", STR_ARG(text_str(&text)), STR_ARG(network.len > 0 ? network : S("anywhere")),
                      STR_ARG(cli_span(left, &o->arena)));
        }
    }
    if (json)
        cli_print("]");
}

static bool
print_status(struct operate *o, struct str reply, bool json)
{
    struct take t = take_init(reply);
    struct str roles = take_bytes(&t, LINK_MESSAGE_MAX);
    uint32_t count = take_count(&t, 200);

    if (json) {
        cli_print("{\"version\":1,\"roles\":");
        terminal_write(TERMINAL_OUT, roles); /* many, where there are many processors */
        cli_print(",\"figures\":{");
    } else {
        print_roles(roles);
    }
    for (uint32_t i = 0; i < count && !t.bad; i++) {
        struct str name = take_bytes(&t, 64);
        uint64_t value = take_u64(&t);
        bool bytes = str_find(name, S("bytes")) < name.len || str_eq(name, S("spool-free"));
        if (json)
            cli_print("%s\"%.*s\":%llu", i ? "," : "", STR_ARG(name), (unsigned long long)value);
        else if (bytes)
            cli_print("%-24.*s %.*s\n", STR_ARG(name), STR_ARG(cli_size(value, &o->arena)));
        else
            cli_print("%s%-24.*s %llu\n", i ? "" : "\n", STR_ARG(name), (unsigned long long)value);
    }
    if (json)
        cli_print("}");
    print_bans(o, &t, json);
    if (json)
        cli_print("}\n");
    return take_end(&t);
}

static int
run_status(struct rt *rt, int argc, char **argv)
{
    struct status_settings set = { { { NULL, 0 }, { NULL, 0 }, false } };
    struct words operands = { 0 };
    struct arena arena;
    struct str reply;
    int exit;

    arena_init(&arena, rt_mem(rt), 4096, SIZE_MAX / 2); /* bounded by the command line */
    if (!cli_parse(&verb_status, argc, argv, &arena, &set, &operands, &exit) ||
        !cli_no_operands(&verb_status, &operands, &exit))
        return exit;
    struct operate *o = operate_open(rt, &verb_status, &set.operate, &exit);
    if (!o)
        return exit;
    exit = EXIT_UNAVAILABLE;
    if (operate_call(o, BORDER_STATUS, S(""), &reply))
        exit = print_status(o, reply, set.operate.json) ? EXIT_WELL : EXIT_PROTOCOL;
    operate_close(o);
    arena_done(&arena);
    return exit;
}

const struct verb verb_status = {
    "status", "Show the roles, what each kernel sandbox enforces, and the queue's figures", "",
    "Example: postrider status --json\n", status_options, run_status,
};
