/*
 * sendmail - "postrider sendmail", and what answers to the name sendmail: takes a message from a program and hands it
 * over to the daemon, by SMTP over its submission socket. Called as newaliases it is sendmail -bi.
 *
 * Until the daemon has said 250 the message is only ours, so nothing here gives up easily: no daemon, a lost
 * connection and every 4xx are tried again for a minute. Then, and when a recipient was refused for good, the
 * message is put into a file of the user's and the file is named; the exit code is 75 or 67. Each recipient is
 * counted for itself: what was accepted for one is not sent to that one again.
 */
#include "cli/dialog.h"

#include "base/check.h"
#include "base/map.h"
#include "message/compose.h"
#include "message/header.h"
#include "message/lines.h"
#include "message/path.h"
#include "message/utf8.h"
#include "message/xtext.h"
#include "role/load.h"
#include "runtime/host.h"

#include <string.h>

enum {
    READ_STEP = 64 << 10,
    UNSENT_TRIES = 100,
    UNSENT_LINE = 32,         /* of its header, without the address */
};
#define PATIENCE_NS (60 * SECOND)
#define PAUSE_FIRST_NS (50 * MILLISECOND)
#define PAUSE_MAX_NS (2 * SECOND)
#define MESSAGE_MAX (SIZE_MAX / 8)

static const char default_state[] = "/var/lib/postrider";

enum fate { PENDING, TAKEN, REFUSED };
struct target {
    struct recipient recipient;
    enum fate fate;
    struct str reply; /* the latest refusal */
};

struct mail {
    struct rt *rt;
    struct arena arena;
    /* what was asked for */
    bool from_header, keep_dots, verbose, talk, show_queue, nothing_to_do;
    bool has_sender;
    struct path from;        /* its domain may be empty */
    struct str full_name, socket, config, envid;
    uint8_t notify, ret;
    struct words words;      /* recipients on the command line */
    int64_t patience;        /* ns */
    /* where */
    struct address daemon;
    struct str state, host, sender;
    struct dialog dialog;
    /* the message */
    struct str input, content;
    struct target *targets;
    size_t target_count, target_cap;
    struct map known;        /* their addresses */
    struct str trouble;      /* what stood in the way the last time */
};

/* ---- options: as they grew since 1983 --------------------------------------------------------------------------- */

enum takes { NOTHING, A_VALUE, ATTACHED }; /* ATTACHED: only in the same word */
static const struct {
    char letter;
    enum takes takes;
} letters[] = {
    { 't', NOTHING },  { 'i', NOTHING },  { 'v', NOTHING }, { 'f', A_VALUE }, { 'r', A_VALUE },  { 'F', A_VALUE },
    { 'o', A_VALUE },  { 'b', A_VALUE },  { 'N', A_VALUE }, { 'R', A_VALUE }, { 'V', A_VALUE },  { 'B', A_VALUE },
    { 'C', A_VALUE },  { 'O', A_VALUE },  { 'h', A_VALUE }, { 'L', A_VALUE }, { 'p', A_VALUE },  { 'X', A_VALUE },
    { 'D', A_VALUE },  { 'm', NOTHING },  { 'n', NOTHING }, { 's', NOTHING }, { 'U', NOTHING },  { 'G', NOTHING },
    { 'I', NOTHING },  { 'E', NOTHING },  { 'e', ATTACHED }, { 'q', ATTACHED }, { 'Q', ATTACHED }, { 'd', ATTACHED },
    { 'A', ATTACHED }, { 'x', ATTACHED }, { 'M', A_VALUE }, { 'T', ATTACHED },
};

static const char help[] =
    "Usage: sendmail [OPTION...] [RECIPIENT...]\n"
    "\n"
    "Takes a message from standard input and hands it over to Postrider.\n"
    "\n"
    "  -t            recipients from To, Cc and Bcc too; Bcc never leaves\n"
    "  -i, -oi       a line with a dot alone does not end the message\n"
    "  -f ADDRESS    envelope sender; \"<>\" is the null sender (also -r)\n"
    "  -F NAME       full name for a From field that is missing\n"
    "  -N WORDS      notices: never, or of success,failure,delay\n"
    "  -R full|hdrs  how much of the message a notice returns\n"
    "  -V ENVID      envelope id for notices\n"
    "  -B 7bit|8bitmime\n"
    "  -bs           speak SMTP on standard input and output\n"
    "  -bp           show the queue (mailq)\n"
    "  -v            show the dialog\n"
    "  -C FILE       configuration; --socket PATH: the daemon's socket; --wait TIME: for the daemon (60)\n"
    "\n"
    "  sendmail -t -i <message.eml\n"
    "\n"
    "Exit codes: 75 the daemon is not there, or cannot take it now; 67 a recipient was refused for good, or is\n"
    "no address (then nothing is sent); 64 there is no recipient, or the sender's address is too long.\n"
    "In these cases the message lies in the file that is named, with those who did not get it.\n";

static int
set_mode(struct mail *m, struct str mode)
{
    if (str_eq(mode, S("m")))
        return EXIT_WELL;
    if (str_eq(mode, S("s")))
        m->talk = true;
    else if (str_eq(mode, S("p")))
        m->show_queue = true;
    else if (str_eq(mode, S("i")) || str_eq(mode, S("h")) || str_eq(mode, S("H")))
        m->nothing_to_do = true; /* aliases need no rebuilding, and there is no host status to show or purge */
    else
        return cli_fail(&verb_sendmail, EXIT_USAGE, "-b%.*s is not for this program (\"postrider run\" is the daemon)",
                        STR_ARG(mode));
    return EXIT_WELL;
}

static int
set_sender(struct mail *m, struct str word)
{
    word = str_trim(word);
    m->has_sender = true;
    if (!path_parse(word.len > 0 ? word : S("<>"), &m->arena, &m->from))
        return cli_fail(&verb_sendmail, EXIT_USAGE, "-f: \"%.*s\" is not an address", STR_ARG(word));
    return EXIT_WELL;
}

static int
set_letter(struct mail *m, char letter, struct str value)
{
    switch (letter) {
    case 't':
        m->from_header = true;
        break;
    case 'i':
        m->keep_dots = true;
        break;
    case 'v':
        m->verbose = true;
        break;
    case 'f':
    case 'r':
        return set_sender(m, value);
    case 'F':
        m->full_name = value;
        break;
    case 'o': /* -oi; -oem, -odb and the others say how the old program should behave */
        m->keep_dots = m->keep_dots || str_eq(value, S("i"));
        m->from_header = m->from_header || str_eq(value, S("t"));
        break;
    case 'b':
        return set_mode(m, value);
    case 'N':
        if (!notify_parse(value, &m->notify))
            return cli_fail(&verb_sendmail, EXIT_USAGE, "-N wants never, or a list of success,failure,delay");
        break;
    case 'R':
        m->ret = str_eq_nocase(value, S("full")) ? RET_FULL : str_eq_nocase(value, S("hdrs")) ? RET_HDRS : RET_NONE;
        if (m->ret == RET_NONE)
            return cli_fail(&verb_sendmail, EXIT_USAGE, "-R wants full or hdrs");
        break;
    case 'V': {
        struct text t = text_init(arena_alloc(&m->arena, 3 * value.len + 1), 3 * value.len + 1);
        xtext_put(&t, value);
        m->envid = text_str(&t);
        if (!envid_is_valid(m->envid))
            return cli_fail(&verb_sendmail, EXIT_USAGE, "-V: that cannot be an envelope id");
        break;
    }
    case 'C':
        m->config = value;
        break;
    case 'I':
        m->nothing_to_do = true;
        break;
    case 'q': /* the queue needs no pushing */
        m->nothing_to_do = true;
        break;
    default: /* known, and without meaning here: what the body is (-B), we see */
        break;
    }
    return EXIT_WELL;
}

/* A word such as "-ti", "-fa@b" or "-f"; *at moves on if the next word is its value. */
static int
set_word(struct mail *m, struct str word, int argc, char **argv, int *at)
{
    for (size_t i = 1; i < word.len; i++) {
        struct str rest = str_from(word, i + 1);
        size_t known = 0;
        while (known < sizeof letters / sizeof *letters && letters[known].letter != word.ptr[i])
            known++;
        if (known == sizeof letters / sizeof *letters)
            return cli_fail(&verb_sendmail, EXIT_USAGE, "no such option: -%c (try --help)", word.ptr[i]);
        if (letters[known].takes == NOTHING) {
            int exit = set_letter(m, word.ptr[i], (struct str){ NULL, 0 });
            if (exit != EXIT_WELL)
                return exit;
            continue;
        }
        if (letters[known].takes == A_VALUE && rest.len == 0) {
            if (*at + 1 >= argc)
                return cli_fail(&verb_sendmail, EXIT_USAGE, "-%c wants a value", word.ptr[i]);
            rest = str_from_cstr(argv[++*at]);
        }
        return set_letter(m, word.ptr[i], rest);
    }
    return EXIT_WELL;
}

/* "--socket PATH" or "--socket=PATH": the few that are ours. */
static int
set_long(struct mail *m, struct str word, int argc, char **argv, int *at)
{
    struct str value = word;
    struct str name = str_cut(&value, '=');

    if (str_is_absent(value)) {
        if (*at + 1 >= argc)
            return cli_fail(&verb_sendmail, EXIT_USAGE, "%.*s wants a value", STR_ARG(name));
        value = str_from_cstr(argv[++*at]);
    }
    if (str_eq(name, S("--socket")))
        m->socket = value;
    else if (str_eq(name, S("--config")))
        m->config = value;
    else if (!str_eq(name, S("--wait")) || !cli_seconds(value, &m->patience))
        return cli_fail(&verb_sendmail, EXIT_USAGE, "no such option: %.*s (try --help)", STR_ARG(word));
    return EXIT_WELL;
}

static int
read_arguments(struct mail *m, int argc, char **argv, bool *out_helped)
{
    bool only_recipients = false;

    m->words.word = arena_alloc(&m->arena, (size_t)argc * sizeof *m->words.word);
    for (int i = 1; i < argc; i++) {
        struct str word = str_from_cstr(argv[i]);
        int exit = EXIT_WELL;
        if (only_recipients || word.len < 2 || word.ptr[0] != '-') {
            m->words.word[m->words.count++] = word;
        } else if (str_eq(word, S("--"))) {
            only_recipients = true;
        } else if (str_eq(word, S("--help"))) {
            terminal_write(TERMINAL_OUT, S(help));
            *out_helped = true;
            return EXIT_WELL;
        } else if (str_starts(word, S("--"))) {
            exit = set_long(m, word, argc, argv, &i);
        } else {
            exit = set_word(m, word, argc, argv, &i);
        }
        if (exit != EXIT_WELL)
            return exit;
    }
    return EXIT_WELL;
}

/* ---- where the daemon is ---------------------------------------------------------------------------------------- */

/* The state directory and the host's name as the site has them. A configuration that cannot be read changes nothing:
 * the usual places are tried. */
static void
read_config(struct mail *m)
{
    struct str path = m->config, state;

    if (path.len == 0)
        path = host_env(m->rt, S("POSTRIDER_CONFIG"));
    if (path.len == 0)
        path = S(CLI_CONFIG);
    if (!err_is(load_basics(m->rt, path, &m->arena, &state, &m->host)) && !str_is_absent(state))
        m->state = state;
}

static int
find_daemon(struct mail *m)
{
    m->state = str_from_cstr(default_state);
    read_config(m);
    if (str_is_absent(m->host) && err_is(host_name(m->rt, &m->arena, &m->host)))
        m->host = S("localhost");
    if (m->socket.len == 0)
        m->socket = host_env(m->rt, S("POSTRIDER_SUBMISSION"));
    if (m->socket.len == 0)
        m->socket = arena_printf(&m->arena, "%.*s/submission.sock", STR_ARG(m->state));
    if (!address_parse(m->socket, &m->daemon))
        return cli_fail(&verb_sendmail, EXIT_USAGE, "\"%.*s\" is not a socket's path", STR_ARG(m->socket));
    return EXIT_WELL;
}

/* ---- the message ------------------------------------------------------------------------------------------------ */

/* Where a line with a dot alone begins, at or behind `from`, a line's beginning; len: there is none, yet. */
static size_t
find_lone_dot(struct str s, size_t from)
{
    for (size_t at = from; at < s.len;) {
        struct str line = str_from(s, at);
        size_t end = str_find_byte(line, '\n');
        struct str text = str_slice(line, 0, end);
        if (end < line.len && (str_eq(text, S(".")) || str_eq(text, S(".\r"))))
            return at;
        at += end + 1;
    }
    return s.len;
}

static struct err
read_input(struct mail *m)
{
    size_t cap = READ_STEP, len = 0, line = 0, got;
    char *memory = arena_alloc(&m->arena, cap);

    for (;;) {
        if (len == cap) {
            char *larger = arena_alloc(&m->arena, 2 * cap);
            memcpy(larger, memory, len);
            memory = larger;
            cap *= 2;
        }
        TRY(terminal_read(m->rt, memory + len, cap - len, FOREVER, &got));
        len += got;
        struct str all = str_new(memory, len);
        size_t dot = m->keep_dots ? len : find_lone_dot(all, line);
        m->input = str_slice(all, 0, dot);
        if (got == 0 || dot < len)
            break;
        size_t newest = str_find_last_byte(all, '\n');
        line = newest < len ? newest + 1 : 0;
        if (len > MESSAGE_MAX)
            return ERR(ERR_LIMIT, "read the message");
    }
    /* At the end of the input a last line ".", without its line end, ends it as well. */
    if (!m->keep_dots && (str_eq(m->input, S(".")) || str_ends(m->input, S("\n."))))
        m->input.len--;
    return OK;
}

static void
add_target(struct mail *m, struct str address)
{
    if (map_get(&m->known, address))
        return;
    map_put(&m->known, address, m);
    if (m->target_count == m->target_cap) {
        size_t larger = m->target_cap ? 2 * m->target_cap : 16;
        struct target *targets = arena_alloc(&m->arena, larger * sizeof *targets);
        if (m->target_cap)
            memcpy(targets, m->targets, m->target_count * sizeof *targets);
        m->targets = targets;
        m->target_cap = larger;
    }
    m->targets[m->target_count++] = (struct target){ .recipient = { .address = address, .notify = m->notify } };
}

static struct str
visible(struct mail *m, struct str s)
{
    struct text t = text_init(arena_alloc(&m->arena, s.len), s.len);

    utf8_put_visible(&t, s);
    return text_str(&t);
}

/* "root" is somebody of this host. What is no address is a target too: nothing is sent then, and it is saved. */
static int
add_address(struct mail *m, enum addresses found, const struct mailbox *mailbox)
{
    struct path path = mailbox->path;

    if (found == ADDRESSES_BAD || path_is_null(path)) {
        struct str text = visible(m, mailbox->text);
        add_target(m, text);
        return cli_fail(&verb_sendmail, EXIT_NO_USER, "\"%.*s\" is not an address", STR_ARG(text));
    }
    if (path.domain.len == 0)
        path.domain = m->host;
    struct str address = path_text(path, &m->arena);
    add_target(m, address);
    return client_can_say(address) ? EXIT_WELL : cli_fail(&verb_sendmail, EXIT_NO_USER, "a recipient's address is too long");
}

/* All of them, also behind a bad one: whoever gets no mail is to be named where it is saved. */
static int
collect_recipients(struct mail *m)
{
    struct compose_recipients named = { .header = m->input };
    struct mailbox mailbox;
    enum addresses found;
    int exit = EXIT_WELL;

    for (size_t i = 0; i < m->words.count; i++)
        for (struct str list = m->words.word[i]; (found = addresses_next(&list, &m->arena, &mailbox)) != ADDRESSES_END;)
            exit = add_address(m, found, &mailbox) == EXIT_WELL ? exit : EXIT_NO_USER;
    while (m->from_header && (found = compose_next_recipient(&named, &m->arena, &mailbox)) != ADDRESSES_END)
        exit = add_address(m, found, &mailbox) == EXIT_WELL ? exit : EXIT_NO_USER;
    if (m->target_count == 0)
        return cli_fail(&verb_sendmail, EXIT_USAGE, "no recipients%s", m->from_header ? " in the header" : " (-t?)");
    return exit;
}

/* The header gets what it lacks and loses Bcc, unless it is to be kept; everything else stays as it came. */
static void
make_content(struct mail *m, bool keeps_bcc)
{
    struct compose_origin origin = {
        .address = m->sender.len ? m->sender : arena_printf(&m->arena, "postmaster@%.*s", STR_ARG(m->host)),
        .name = m->full_name,
        .hostname = m->host,
        .domain = m->host,
        .keeps_bcc = keeps_bcc,
        .id = { rt_random(m->rt), rt_random(m->rt) },
        .wall = rt_wall(m->rt),
    };
    struct str rest = m->input;
    size_t cap = compose_header_size(rest, &origin) + rest.len;
    struct text t = text_init(arena_alloc(&m->arena, cap), cap);

    compose_header(&t, &rest, &origin, rt_mem(m->rt));
    text_put(&t, rest);
    CHECK(!t.full);
    m->content = text_str(&t);
}

/* ---- handing it over -------------------------------------------------------------------------------------------- */

/* What one reply means for one recipient. True: it was taken so far. */
static bool
judge(struct mail *m, struct target *target, const struct remote_reply *reply)
{
    if (remote_reply_is_positive(reply))
        return true;
    if (reply->code)
        target->reply = m->trouble = arena_keep(&m->arena, reply->text);
    if (remote_reply_is_permanent(reply))
        target->fate = REFUSED;
    return false;
}

static bool
needs_utf8(const struct mail *m)
{
    for (size_t i = 0; i < m->target_count; i++)
        if (!str_is_ascii(m->targets[i].recipient.address))
            return true;
    return !str_is_ascii(m->sender) || !header_is_ascii(m->content);
}

/* One transaction for those who are pending, as many as the server takes at a time. */
static void
send_once(struct mail *m, struct client *client)
{
    const struct client_features *features = client_features(client);
    size_t most = features->rcpt_max ? features->rcpt_max : LIMIT_RCPT_PER_TRANSACTION;
    size_t room = most < m->target_count ? most : m->target_count;
    struct arena *arena = &m->arena;
    struct str rest = m->content;
    const struct recipient **rcpt = arena_alloc(arena, room * sizeof *rcpt);
    struct target **pending = arena_alloc(arena, room * sizeof *pending);
    struct client_transaction t = {
        .reverse_path = m->sender,
        .envid = m->envid.len ? m->envid : (struct str){ NULL, 0 },
        .ret = m->ret,
        .body = str_is_ascii(m->content) ? BODY_7BIT : BODY_8BITMIME,
        .smtputf8 = needs_utf8(m) && client_has(features, CLIENT_SMTPUTF8),
        .size = m->content.len,
        .rcpt = rcpt,
        .content = { client_read_str, &rest },
        .rcpt_reply = arena_alloc(arena, room * sizeof *t.rcpt_reply),
        .final_reply = arena_alloc(arena, room * sizeof *t.final_reply),
    };

    for (size_t i = 0; i < m->target_count && t.rcpt_count < room; i++) {
        if (m->targets[i].fate != PENDING)
            continue;
        pending[t.rcpt_count] = &m->targets[i];
        rcpt[t.rcpt_count++] = &m->targets[i].recipient;
    }
    struct err e = client_send(client, &t, arena);
    if (err_is(e))
        m->trouble = cli_error(e, arena);
    bool mail_taken = t.mail.code == 0 || remote_reply_is_positive(&t.mail);
    bool data_taken = t.data.code == 0 || t.data.code == 354;
    for (size_t i = 0; i < t.rcpt_count; i++) {
        if (!mail_taken)
            judge(m, pending[i], &t.mail);
        else if (judge(m, pending[i], &t.rcpt_reply[i]) && (data_taken || judge(m, pending[i], &t.data)) &&
                 judge(m, pending[i], &t.final))
            pending[i]->fate = TAKEN;
    }
}

static size_t
count_fate(const struct mail *m, enum fate fate)
{
    size_t count = 0;

    for (size_t i = 0; i < m->target_count; i++)
        count += m->targets[i].fate == fate;
    return count;
}

static struct err
try_once(struct mail *m, int64_t until)
{
    struct client_settings settings = { .helo = m->host, .dialog = m->verbose ? dialog_line : NULL,
                                        .dialog_arg = &m->dialog };
    struct remote_reply reply = { 0 };
    struct stream *stream;

    TRY(stream_connect(m->rt, &m->daemon, NULL, until, &stream));
    struct client *client = client_new(stream, &settings);
    struct err e = client_greeting(client, &m->arena, &reply);
    if (!err_is(e) && reply.code == 220)
        e = client_hello(client, &m->arena, &reply);
    if (!err_is(e) && remote_reply_is_positive(&reply))
        send_once(m, client);
    else if (!err_is(e))
        m->trouble = reply.text;
    if (err_is(e))
        client_close(client);
    else
        client_quit(client);
    return e;
}

/* Until nobody is pending, or patience ends. It begins anew whenever some were settled: there may be many. */
static void
hand_over(struct mail *m)
{
    int64_t until = within(m->rt, m->patience), pause = PAUSE_FIRST_NS;

    for (size_t pending = m->target_count, before; ; ) {
        struct err e = try_once(m, until);
        before = pending;
        pending = count_fate(m, PENDING);
        if (e.kind == ERR_CANCELLED || pending == 0)
            return;
        if (pending < before) {
            until = within(m->rt, m->patience);
            pause = PAUSE_FIRST_NS;
            continue;
        }
        if (err_is(e))
            m->trouble = cli_error(e, &m->arena);
        if (rt_now(m->rt) + pause >= until || err_is(rt_sleep(m->rt, within(m->rt, pause))))
            return;
        pause = 2 * pause < PAUSE_MAX_NS ? 2 * pause : PAUSE_MAX_NS;
    }
}

/* Into the first place that takes it: what was not accepted, with its envelope on top, for the user to send again. */
static struct str
save_unsent(struct mail *m)
{
    const struct str places[] = {
        arena_printf(&m->arena, "%.*s/unsent", STR_ARG(m->state)), host_env(m->rt, S("HOME")),
        host_env(m->rt, S("TMPDIR")), S("/var/tmp"), S("/tmp"), S("."),
    };
    size_t size = UNSENT_LINE + m->sender.len + m->content.len;

    for (size_t i = 0; i < m->target_count; i++)
        size += UNSENT_LINE + m->targets[i].recipient.address.len;
    struct text t = text_init(arena_alloc(&m->arena, size), size);
    text_putf(&t, "X-Postrider-Unsent-From: <%.*s>\r\n", STR_ARG(m->sender));
    for (size_t i = 0; i < m->target_count; i++)
        if (m->targets[i].fate != TAKEN)
            text_putf(&t, "X-Postrider-Unsent-To: <%.*s>\r\n", STR_ARG(m->targets[i].recipient.address));
    text_put(&t, m->content);
    CHECK(!t.full);
    struct str whole = text_str(&t);
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        for (int tries = 0; places[i].len > 0 && tries < UNSENT_TRIES; tries++) {
            struct str path = arena_printf(&m->arena, "%.*s/postrider-unsent-%08llx", STR_ARG(places[i]),
                                           (unsigned long long)(rt_random(m->rt) & 0xffffffff));
            struct err e = host_write_file(m->rt, path, whole, 0600, FOREVER);
            if (!err_is(e))
                return path;
            if (e.kind != ERR_EXISTS)
                break;
        }
    }
    return S("");
}

/* Says where the message lies now. */
static void
leave_message(struct mail *m, const char *prefix)
{
    struct str path = save_unsent(m);

    if (path.len > 0)
        cli_fail(&verb_sendmail, 0, "%sthe message lies in %.*s", prefix, STR_ARG(path));
    else
        cli_fail(&verb_sendmail, 0, "%sthe message could not be saved either", prefix);
}

static int
report(struct mail *m)
{
    size_t pending = count_fate(m, PENDING), refused = count_fate(m, REFUSED);

    if (pending + refused == 0)
        return EXIT_WELL;
    for (size_t i = 0; i < m->target_count; i++)
        if (m->targets[i].fate == REFUSED)
            cli_fail(&verb_sendmail, 0, "<%.*s> was refused: %.*s", STR_ARG(m->targets[i].recipient.address),
                     STR_ARG(m->targets[i].reply));
    if (pending > 0)
        cli_fail(&verb_sendmail, 0, "cannot hand the message over at %.*s for %zu of %zu recipients: %.*s",
                 STR_ARG(m->socket), pending, m->target_count, STR_ARG(m->trouble));
    leave_message(m, "");
    return pending > 0 ? EXIT_AGAIN : EXIT_NO_USER;
}

/* ---- -bs: a pipe between the program and the daemon ------------------------------------------------------------- */

struct pipe {
    struct rt *rt;
    struct stream *stream;
};

/* Who types, and many a script, ends lines with LF alone: the first one tells. Then all get their CR. */
static void
pass_input(void *arg)
{
    struct pipe *p = arg;
    struct lines_repair repair = { 0 };
    char bytes[4096], room[2 * sizeof bytes + 2];
    bool told = false, repairs = false, after_cr = false; /* after_cr: the last byte was one */
    size_t len;

    while (!err_is(terminal_read(p->rt, bytes, sizeof bytes, FOREVER, &len)) && len > 0) {
        struct str some = str_new(bytes, len);
        size_t lf = str_find_byte(some, '\n');
        if (!told && lf < len) {
            told = true;
            repairs = lf == 0 ? !after_cr : bytes[lf - 1] != '\r';
        }
        after_cr = bytes[len - 1] == '\r';
        if (err_is(stream_write(p->stream, repairs ? lines_repair(&repair, some, room) : some, FOREVER)))
            return;
    }
    stream_shut_down(p->stream);
}

static int
talk(struct mail *m)
{
    int64_t until = within(m->rt, m->patience), pause = PAUSE_FIRST_NS;
    struct pipe p = { .rt = m->rt };
    struct scope scope;
    char bytes[8192];
    size_t len;
    struct err e;

    while (err_is(e = stream_connect(m->rt, &m->daemon, NULL, until, &p.stream))) {
        if (rt_now(m->rt) + pause >= until || err_is(rt_sleep(m->rt, within(m->rt, pause)))) {
            terminal_write(TERMINAL_OUT, S("421 4.3.2 The mail daemon is not running\r\n"));
            return cli_fail(&verb_sendmail, EXIT_AGAIN, "nobody answers at %.*s: %.*s", STR_ARG(m->socket),
                            STR_ARG(cli_error(e, &m->arena)));
        }
        pause = 2 * pause < PAUSE_MAX_NS ? 2 * pause : PAUSE_MAX_NS;
    }
    scope_init(&scope, m->rt);
    scope_start(&scope, "sendmail input", pass_input, &p);
    while (!err_is(stream_read(p.stream, bytes, sizeof bytes, FOREVER, &len)) && len > 0)
        if (err_is(terminal_write(TERMINAL_OUT, str_new(bytes, len))))
            break;
    scope_end(&scope);
    stream_close(p.stream);
    return EXIT_WELL;
}

/* ---- the whole -------------------------------------------------------------------------------------------------- */

static int
send_message(struct mail *m)
{
    struct err e = read_input(m);

    if (err_is(e))
        return cli_fail(&verb_sendmail, EXIT_NO_INPUT, "%.*s", STR_ARG(cli_error(e, &m->arena)));
    if (!m->has_sender) {
        struct str name = S("");
        uint32_t gid;
        if (err_is(host_user_by_id(m->rt, host_my_uid(m->rt), FOREVER, &m->arena, &name, &gid)) || name.len == 0)
            name = arena_printf(&m->arena, "uid%u", host_my_uid(m->rt));
        m->from.local = name; /* may want quotes: EXAMPLE\anna */
    }
    if (m->from.local.len > 0 && m->from.domain.len == 0)
        m->from.domain = m->host;
    m->sender = path_text(m->from, &m->arena);
    int exit = collect_recipients(m);
    if (!client_can_say(m->sender) || !client_can_say(m->host))
        exit = cli_fail(&verb_sendmail, EXIT_USAGE, "the sender's address is too long");
    make_content(m, exit != EXIT_WELL);
    if (exit != EXIT_WELL) {
        leave_message(m, "nothing was sent; ");
        return exit;
    }
    hand_over(m);
    return report(m);
}

static int
run(struct rt *rt, int argc, char **argv)
{
    struct mail *m = mem_new(rt_mem(rt), struct mail);
    bool helped = false;

    m->rt = rt;
    m->patience = PATIENCE_NS;
    m->dialog = dialog_on(rt, TERMINAL_ERROR);
    arena_init(&m->arena, rt_mem(rt), 16 << 10, SIZE_MAX);
    map_init(&m->known, rt_mem(rt), rt_random(rt));
    bool aliases = argc > 0 && str_eq(cli_base_name(str_from_cstr(argv[0])), S("newaliases"));
    int exit = read_arguments(m, argc, argv, &helped);
    const struct verb *mailq = m->show_queue ? cli_find_verb(S("mailq")) : NULL;
    if (exit == EXIT_WELL && mailq) {
        char name[] = "mailq", option[] = "--config";
        char *words[] = { name, option, arena_cstr(&m->arena, m->config), NULL };
        exit = mailq->run(rt, m->config.len ? 3 : 1, words);
    } else if (exit == EXIT_WELL && m->show_queue) {
        exit = cli_fail(&verb_sendmail, EXIT_UNAVAILABLE, "the queue cannot be shown by this build");
    } else if (exit == EXIT_WELL && !helped && !aliases && !(m->nothing_to_do && m->words.count == 0)) {
        exit = find_daemon(m);
        if (exit == EXIT_WELL)
            exit = m->talk ? talk(m) : send_message(m);
    }
    map_done(&m->known);
    arena_done(&m->arena);
    mem_free(rt_mem(rt), m, sizeof *m);
    return exit;
}

const struct verb verb_sendmail = {
    .name = "sendmail",
    .summary = "take a message from a program, as /usr/sbin/sendmail does",
    .arguments = "[RECIPIENT...]",
    .run = run,
};
