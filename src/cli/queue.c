/* queue - "postrider queue list|show|retry|hold|release|bounce|rm", and mailq, which is the list. */
#include "cli/operate.h"

#include "base/json.h"
#include "link/link.h"
#include "message/date.h"
#include "message/utf8.h"

#include <stddef.h>

enum { PAGE = BORDER_LIST_MAX, LINE_BYTES = 16 << 10, REASON_SHOWN = 160 };

struct settings {
    struct operate_settings operate;
    uint64_t limit;
    bool all;
};
static const struct option options[] = {
    OPERATE_OPTIONS(settings, operate),
    { "--limit", "N", OPTION_NUMBER, offsetof(struct settings, limit), "list: at most so many messages (100; 0: all)" },
    { "--all", NULL, OPTION_FLAG, offsetof(struct settings, all), "retry: every message that waits" },
    { "--json", NULL, OPTION_FLAG, offsetof(struct settings, operate.json), "as JSON, a line a message" },
    { 0 },
};

static const struct option mailq_options[] = {
    OPERATE_OPTIONS(settings, operate),
    { "--limit", "N", OPTION_NUMBER, offsetof(struct settings, limit), "at most so many messages" },
    { "--json", NULL, OPTION_FLAG, offsetof(struct settings, operate.json), "as JSON, a line a message" },
    { 0 },
};

struct command {
    struct rt *rt;
    struct operate *o;
    struct settings set;
    struct words operands; /* behind the word */
    const struct verb *verb;
};

/* ---- printing ---- */

/* "2026-01-31T12:00:00Z" */
static void
put_time(struct text *out, int64_t wall_ns)
{
    if (wall_ns > 0)
        date_put_rfc3339(out, wall_ns);
    else
        text_put(out, S("-"));
}

static void
json_time(struct text *out, const char *name, int64_t wall_ns)
{
    if (wall_ns <= 0)
        return;
    json_put_name(out, name);
    text_put_byte(out, '"');
    date_put_rfc3339(out, wall_ns);
    text_put_byte(out, '"');
}

/* ", next try in 4 min" */
static void
put_next(struct command *c, struct text *out, int64_t next_wall)
{
    int64_t wait = next_wall - rt_wall(c->rt);

    if (next_wall > 0 && wait > 0)
        text_putf(out, ", next try in %.*s", STR_ARG(cli_span(wait, operate_arena(c->o))));
    else if (next_wall > 0)
        text_put(out, S(", to be tried now"));
}

static void
print_listed_json(const struct border_listed *l)
{
    char line[LINE_BYTES], id[MESSAGE_ID_TEXT];
    struct text t = text_init(line, sizeof line);

    text_put(&t, S("{\"version\":1"));
    json_put_field(&t, "id", message_id_text(l->id, id));
    json_put_number(&t, "size", (int64_t)l->size);
    json_time(&t, "accepted", l->accepted_wall);
    json_put_field(&t, "from", l->reverse_path);
    json_put_field(&t, "to", l->recipient);
    json_put_number(&t, "pending", l->pending);
    json_put_bool(&t, "held", l->held);
    json_put_field(&t, "place", l->place);
    json_put_number(&t, "attempts", l->attempts);
    json_time(&t, "next", l->next_wall);
    json_put_field(&t, "reason", l->reason);
    text_put(&t, S("}\n"));
    terminal_write(TERMINAL_OUT, text_str(&t));
}

/*
 * 23e5y4s20jjm0mzp27f6dt14tj  1.2 KiB, 14 min ago, from <ann@a.example>
 *     to bob@b.example and 1 more: waiting, next try in 4 min
 *     (450 4.2.0 greylisted)
 */
static void
print_listed(struct command *c, const struct border_listed *l)
{
    char line[LINE_BYTES], id[MESSAGE_ID_TEXT];
    struct text t = text_init(line, sizeof line);
    struct arena *arena = operate_arena(c->o);

    text_putf(&t, "%.*s  %.*s, %.*s ago, from <", STR_ARG(message_id_text(l->id, id)), STR_ARG(cli_size(l->size, arena)),
              STR_ARG(cli_span(rt_wall(c->rt) - l->accepted_wall, arena)));
    utf8_put_visible(&t, l->reverse_path);
    text_put(&t, S(">\n    to "));
    utf8_put_visible(&t, l->recipient);
    if (l->pending > 1)
        text_putf(&t, " and %u more", l->pending - 1);
    text_put(&t, S(": "));
    text_put(&t, l->held ? S("held") : l->place);
    put_next(c, &t, l->next_wall);
    if (l->reason.len) {
        text_put(&t, S("\n    ("));
        utf8_put_visible(&t, utf8_cut(l->reason, REASON_SHOWN));
        text_put(&t, S(")"));
    }
    text_put(&t, S("\n"));
    terminal_write(TERMINAL_OUT, text_str(&t));
}

static int
bad_answer(struct command *c)
{
    return cli_fail(c->verb, EXIT_PROTOCOL, "the server's answer makes no sense");
}

/* ---- list ---- */

static int
list(struct command *c)
{
    uint64_t after = 0, left = c->set.limit ? c->set.limit : UINT64_MAX, total = 0, shown = 0;

    do {
        unsigned char memory[16];
        struct put p = put_init(memory, sizeof memory);
        struct str reply;
        uint32_t want = left < PAGE ? (uint32_t)left : PAGE;
        put_u64(&p, after);
        put_u32(&p, want);
        if (!operate_call(c->o, BORDER_LIST, put_str_so_far(&p), &reply))
            return EXIT_UNAVAILABLE;
        struct take t = take_init(reply);
        total = take_u64(&t);
        after = take_u64(&t);
        uint32_t count = take_count(&t, BORDER_LIST_MAX);
        for (uint32_t i = 0; i < count && !t.bad; i++) {
            struct border_listed l;
            border_take_listed(&t, &l);
            if (t.bad)
                break;
            if (c->set.operate.json)
                print_listed_json(&l);
            else
                print_listed(c, &l);
            shown++;
        }
        if (!take_end(&t))
            return bad_answer(c);
        left -= count < left ? count : left;
        arena_reset(operate_arena(c->o));
    } while (after > 0 && left > 0);
    if (!c->set.operate.json) {
        if (total == 0)
            cli_print("The queue is empty.\n");
        else
            cli_print("-- %llu of %llu messages%s\n", (unsigned long long)shown, (unsigned long long)total,
                      shown < total ? "; --limit 0 lists all" : "");
    }
    return EXIT_WELL;
}

/* ---- show ---- */

static void
print_shown_json(const struct border_shown *s)
{
    char line[LINE_BYTES], id[MESSAGE_ID_TEXT];
    struct text t = text_init(line, sizeof line);

    text_put(&t, S("{\"version\":1"));
    json_put_field(&t, "id", message_id_text(s->id, id));
    json_put_number(&t, "size", (int64_t)s->size);
    json_time(&t, "accepted", s->accepted_wall);
    json_time(&t, "expires", s->expires_wall);
    json_put_field(&t, "from", s->reverse_path);
    json_put_field(&t, "client", s->client);
    json_put_field(&t, "helo", s->helo);
    json_put_field(&t, "session", s->session);
    json_put_field(&t, "envid", s->envid);
    json_put_bool(&t, "held", s->held);
    json_put_field(&t, "held-why", s->held_why);
    json_put_number(&t, "deaths", s->deaths);
    json_put_number(&t, "recipient-count", s->recipient_count);
    text_put(&t, S(",\"recipients\":["));
    terminal_write(TERMINAL_OUT, text_str(&t));
    for (size_t i = 0; i < s->shown; i++) {
        const struct border_shown_recipient *r = &s->recipients[i];
        t = text_init(line, sizeof line);
        text_put(&t, i ? S(",{") : S("{"));
        json_put_field(&t, "to", r->address);
        if (!str_is_absent(r->given))
            json_put_field(&t, "given", r->given);
        json_put_field(&t, "state", recipient_state_name(r->state));
        json_put_field(&t, "place", r->place);
        json_put_number(&t, "attempts", r->attempts);
        json_time(&t, "next", r->next_wall);
        json_put_field(&t, "reason", r->reason);
        json_put_field(&t, "reply", r->last_reply);
        json_put_field(&t, "remote", r->last_remote);
        text_put(&t, S("}"));
        terminal_write(TERMINAL_OUT, text_str(&t));
    }
    cli_print("]}\n");
}

static void
put_line(struct text *t, const char *name, struct str value)
{
    if (value.len == 0)
        return;
    text_putf(t, "%-10s ", name);
    utf8_put_visible(t, value);
    text_put(t, S("\n"));
}

/* A reply begins with its code; anything else is what we ourselves found. */
static bool
is_reply(struct str s)
{
    return s.len > 3 && byte_is_digit(s.ptr[0]) && byte_is_digit(s.ptr[1]) && byte_is_digit(s.ptr[2]);
}

static void
print_shown(struct command *c, const struct border_shown *s)
{
    char line[LINE_BYTES], id[MESSAGE_ID_TEXT];
    struct text t = text_init(line, sizeof line);

    put_line(&t, "id", message_id_text(s->id, id));
    text_put(&t, S("from       <"));
    utf8_put_visible(&t, s->reverse_path);
    text_putf(&t, ">\nsize       %llu bytes\naccepted   ", (unsigned long long)s->size);
    put_time(&t, s->accepted_wall);
    text_put(&t, S("\nexpires    "));
    put_time(&t, s->expires_wall);
    text_put(&t, S("\n"));
    put_line(&t, "client", s->client);
    put_line(&t, "helo", s->helo);
    put_line(&t, "session", s->session);
    if (s->held)
        put_line(&t, "held", s->held_why.len ? s->held_why : S("yes"));
    if (s->deaths)
        text_putf(&t, "deaths     %u processes died with it\n", s->deaths);
    text_putf(&t, "recipients %u\n", s->recipient_count);
    terminal_write(TERMINAL_OUT, text_str(&t));
    for (size_t i = 0; i < s->shown; i++) {
        const struct border_shown_recipient *r = &s->recipients[i];
        t = text_init(line, sizeof line);
        text_put(&t, S("  "));
        utf8_put_visible(&t, r->address);
        if (r->given.len) {
            text_put(&t, S(" (given as "));
            utf8_put_visible(&t, r->given);
            text_put(&t, S(")"));
        }
        text_putf(&t, ": %.*s, %u attempt%s", STR_ARG(r->place), r->attempts, r->attempts == 1 ? "" : "s");
        put_next(c, &t, r->next_wall);
        text_put(&t, S("\n"));
        if (r->reason.len) {
            text_put(&t, S("    waits: "));
            utf8_put_visible(&t, r->reason);
            text_put(&t, S("\n"));
        }
        if (r->last_reply.len) {
            text_put(&t, S("    "));
            utf8_put_visible(&t, r->last_remote.len ? r->last_remote : S("we"));
            text_put(&t, is_reply(r->last_reply) ? S(" said: ") : S(": "));
            utf8_put_visible(&t, r->last_reply);
            text_put(&t, S("\n"));
        }
        terminal_write(TERMINAL_OUT, text_str(&t));
    }
}

static bool
parse_id(struct command *c, struct str word, struct message_id *out)
{
    if (message_id_parse(word, out))
        return true;
    cli_fail(c->verb, EXIT_USAGE, "\"%.*s\" is no queue id (26 letters and digits, as in the log and `queue list`)",
             STR_ARG(word));
    return false;
}

static int
show(struct command *c)
{
    for (size_t i = 0; i < c->operands.count; i++) {
        unsigned char memory[16];
        struct put p = put_init(memory, sizeof memory);
        struct border_shown shown;
        struct message_id id;
        struct str reply;

        arena_reset(operate_arena(c->o));
        if (!parse_id(c, c->operands.word[i], &id))
            return EXIT_USAGE;
        border_put_id(&p, id);
        if (!operate_call(c->o, BORDER_SHOW, put_str_so_far(&p), &reply))
            return EXIT_UNAVAILABLE;
        struct take t = take_init(reply);
        if (!take_bool(&t))
            return cli_fail(c->verb, EXIT_FALSE, "%.*s: no such message in the queue", STR_ARG(c->operands.word[i]));
        if (!border_take_shown(&t, operate_arena(c->o), &shown))
            return bad_answer(c);
        if (c->set.operate.json)
            print_shown_json(&shown);
        else
            print_shown(c, &shown);
    }
    return EXIT_WELL;
}

/* ---- acts ---- */

static int
act_once(struct command *c, enum border_act what, struct message_id id, struct str name)
{
    unsigned char memory[32];
    struct put p = put_init(memory, sizeof memory);
    struct str reply;

    put_u8(&p, (uint8_t)what);
    border_put_id(&p, id);
    if (!operate_call(c->o, BORDER_ACT, put_str_so_far(&p), &reply))
        return EXIT_UNAVAILABLE;
    struct take t = take_init(reply);
    if (take_bool(&t))
        return EXIT_WELL;
    return cli_fail(c->verb, EXIT_FALSE, "%.*s: %.*s", STR_ARG(name), STR_ARG(t.rest));
}

static int
act(struct command *c, enum border_act what)
{
    int worst = EXIT_WELL;

    if (c->set.all && what == ACT_RETRY)
        return act_once(c, ACT_RETRY_ALL, (struct message_id){ 0, 0 }, S("--all"));
    for (size_t i = 0; i < c->operands.count; i++) {
        struct message_id id;
        if (!parse_id(c, c->operands.word[i], &id))
            return EXIT_USAGE;
        int exit = act_once(c, what, id, c->operands.word[i]);
        worst = exit > worst ? exit : worst;
    }
    return worst;
}

static const struct {
    struct str word;
    int (*run)(struct command *); /* NULL: an act */
    enum border_act act;
    bool wants_ids;
} words[] = {
    { STR("list"), list, 0, false },
    { STR("show"), show, 0, true },
    { STR("retry"), NULL, ACT_RETRY, true },
    { STR("hold"), NULL, ACT_HOLD, true },
    { STR("release"), NULL, ACT_RELEASE, true },
    { STR("bounce"), NULL, ACT_BOUNCE, true },
    { STR("rm"), NULL, ACT_REMOVE, true },
};

static int
run_word(struct rt *rt, struct command *c, struct str word)
{
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        int exit;
        if (!str_eq(words[i].word, word))
            continue;
        if (c->set.all && (words[i].run || words[i].act != ACT_RETRY))
            return cli_fail(c->verb, EXIT_USAGE, "--all goes with retry only (try --help)");
        if (words[i].wants_ids && c->operands.count == 0 && !c->set.all)
            return cli_fail(c->verb, EXIT_USAGE, "%.*s wants queue ids", STR_ARG(word));
        if (c->set.all && c->operands.count > 0)
            return cli_fail(c->verb, EXIT_USAGE, "either --all or queue ids, not both");
        if (!words[i].wants_ids && !cli_no_operands(c->verb, &c->operands, &exit))
            return exit;
        c->o = operate_open(rt, c->verb, &c->set.operate, &exit);
        if (!c->o)
            return exit;
        exit = words[i].run ? words[i].run(c) : act(c, words[i].act);
        operate_close(c->o);
        return exit;
    }
    return cli_fail(c->verb, EXIT_USAGE, "\"%.*s\" is none of list, show, retry, hold, release, bounce, rm",
                    STR_ARG(word));
}

static int
run_as(struct rt *rt, const struct verb *verb, bool mailq, int argc, char **argv)
{
    struct command c = { .rt = rt, .verb = verb, .set = { .limit = mailq ? 0 : 100 } };
    struct arena arena;
    int exit;

    arena_init(&arena, rt_mem(rt), 4096, SIZE_MAX / 2); /* bounded by the command line */
    if (cli_parse(verb, argc, argv, &arena, &c.set, &c.operands, &exit)) {
        struct str word = mailq || c.operands.count == 0 ? S("list") : c.operands.word[0];
        if (!mailq && c.operands.count > 0) {
            c.operands.word++;
            c.operands.count--;
        }
        exit = run_word(rt, &c, word);
    }
    arena_done(&arena);
    return exit;
}

static int
run_queue(struct rt *rt, int argc, char **argv)
{
    return run_as(rt, &verb_queue, false, argc, argv);
}

static int
run_mailq(struct rt *rt, int argc, char **argv)
{
    return run_as(rt, &verb_mailq, true, argc, argv);
}

const struct verb verb_queue = {
    "queue", "List, show and steer what waits to be delivered", "list|show|retry|hold|release|bounce|rm [ID...]",
    "  list           what waits, in the order it was accepted\n"
    "  show ID        one message: each recipient, what was last said, when it is tried next\n"
    "  retry ID       try now (--all: everything that waits, but for what its sender had held)\n"
    "  hold ID        try no more until released\n"
    "  release ID     undo hold\n"
    "  bounce ID      give up: the sender is told\n"
    "  rm ID          remove: nobody is told, but of a delivery whose sender asked for word\n\n"
    "Example: postrider queue list --json --limit 0\n",
    options, run_queue,
};
const struct verb verb_mailq = {
    "mailq", "List what waits to be delivered (as `queue list --limit 0`)", "", "Example: mailq\n", mailq_options,
    run_mailq,
};
