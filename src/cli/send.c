/*
 * send - "postrider send": one message to one server, with the dialog on the screen. It has no queue and looks up no
 * MX: it shows what a server says, and its exit code tells a script how it went.
 */
#include "cli/dialog.h"
#include "cli/server.h"

#include "base/check.h"
#include "message/compose.h"
#include "message/header.h"
#include "message/path.h"
#include "message/xtext.h"
#include "runtime/host.h"

#include <stddef.h>

enum { FILE_MAX = 1 << 30 };

struct settings {
    struct str server, from, subject, helo, notify, ret, envid;
    struct words to, cc, bcc, attach, header;
    int64_t timeout;
    bool lmtp, text, quiet, no_pipelining, no_bdat;
};

static const struct option options[] = {
    { "--server", "HOST:PORT", OPTION_WORD, offsetof(struct settings, server),
      "where to (127.0.0.1:25); a path is a Unix socket" },
    { "--from", "ADDRESS", OPTION_WORD, offsetof(struct settings, from),
      "reverse-path and From (you, at this host); \"\" is <>" },
    { "--to", "ADDRESS", OPTION_WORDS, offsetof(struct settings, to), "a recipient; may be given again" },
    { "--cc", "ADDRESS", OPTION_WORDS, offsetof(struct settings, cc), "another one, shown as Cc" },
    { "--bcc", "ADDRESS", OPTION_WORDS, offsetof(struct settings, bcc), "another one, not shown" },
    { "--subject", "TEXT", OPTION_WORD, offsetof(struct settings, subject), "(a test message)" },
    { "--header", "\"NAME: VALUE\"", OPTION_WORDS, offsetof(struct settings, header), "one more header field" },
    { "--attach", "FILE", OPTION_WORDS, offsetof(struct settings, attach), "an attachment; may be given again" },
    { "--text", NULL, OPTION_FLAG, offsetof(struct settings, text),
      "the file is text, though it begins like a header" },
    { "--notify", "WORDS", OPTION_WORD, offsetof(struct settings, notify), "never, or of success,failure,delay (DSN)" },
    { "--ret", "full|hdrs", OPTION_WORD, offsetof(struct settings, ret), "how much a notice returns (DSN)" },
    { "--envid", "TEXT", OPTION_WORD, offsetof(struct settings, envid), "envelope id (DSN)" },
    { "--lmtp", NULL, OPTION_FLAG, offsetof(struct settings, lmtp), "speak LMTP" },
    { "--helo", "NAME", OPTION_WORD, offsetof(struct settings, helo), "our name (this host's)" },
    { "--no-pipelining", NULL, OPTION_FLAG, offsetof(struct settings, no_pipelining), "one command at a time" },
    { "--no-bdat", NULL, OPTION_FLAG, offsetof(struct settings, no_bdat), "DATA, though BDAT is offered" },
    { "--timeout", "TIME", OPTION_SECONDS, offsetof(struct settings, timeout),
      "for each reply (as RFC 5321 has them)" },
    { "--quiet", NULL, OPTION_FLAG, offsetof(struct settings, quiet), "no dialog" },
    { 0 },
};

struct send {
    struct rt *rt;
    struct arena arena;
    struct settings set;
    struct server server;
    struct dialog dialog;
    struct str host;          /* ours */
    struct str sender;        /* reverse-path */
    struct recipient *recipients;
    size_t count;
    uint8_t notify, ret;
    struct str envid;
    struct str content;
};

/* ---- the message ------------------------------------------------------------------------------------------------ */

static int
compose(struct send *s, struct str body)
{
    size_t files = s->set.attach.count;
    struct compose_attachment *attachments = arena_alloc(&s->arena, (files + 1) * sizeof *attachments);
    struct compose c = {
        .origin = {
            .address = s->sender.len ? s->sender : arena_printf(&s->arena, "postmaster@%.*s", STR_ARG(s->host)),
            .hostname = s->host,
            .id = { rt_random(s->rt), rt_random(s->rt) },
            .wall = rt_wall(s->rt),
        },
        .to = s->set.to.word,
        .to_count = s->set.to.count,
        .cc = s->set.cc.word,
        .cc_count = s->set.cc.count,
        .fields = s->set.header.word,
        .field_count = s->set.header.count,
        .subject = s->set.subject.len ? s->set.subject : S("a test message"),
        .text = body,
        .attachments = attachments,
        .attachment_count = files,
    };

    for (size_t i = 0; i < c.field_count; i++) {
        struct str field = c.fields[i];
        struct header_field taken;
        if (!header_take(&field, &taken))
            return cli_fail(&verb_send, EXIT_USAGE, "--header \"%.*s\": a header field is NAME: VALUE", STR_ARG(field));
    }
    for (size_t i = 0; i < files; i++) {
        struct str path = s->set.attach.word[i];
        struct err e = host_read_file(s->rt, path, FILE_MAX, &s->arena, FOREVER, &attachments[i].content);
        if (err_is(e))
            return cli_fail(&verb_send, EXIT_NO_INPUT, "%.*s: %.*s", STR_ARG(path), STR_ARG(cli_error(e, &s->arena)));
        attachments[i].name = cli_base_name(path);
    }
    for (size_t i = 0; i < c.to_count; i++)
        c.utf8 = c.utf8 || !str_is_ascii(c.to[i]);
    for (size_t i = 0; i < c.cc_count; i++)
        c.utf8 = c.utf8 || !str_is_ascii(c.cc[i]);
    size_t size = compose_size(&c);
    struct text t = text_init(arena_alloc(&s->arena, size), size);
    compose_put(&t, &c);
    CHECK(!t.full);
    s->content = text_str(&t);
    return EXIT_WELL;
}

/* A file that begins with a header is a message, and goes as it is. */
static bool
is_message(const struct send *s, struct str input)
{
    struct header_field field;

    return !s->set.text && s->set.subject.len == 0 && s->set.attach.count == 0 && s->set.header.count == 0 &&
           header_take(&input, &field);
}

static int
make_content(struct send *s, const struct words *operands)
{
    struct str input = S("This is a test message, made by \"postrider send\".\r\n");

    if (operands->count > 1)
        return cli_fail(&verb_send, EXIT_USAGE, "one file only, not \"%.*s\" too (more by --attach)",
                        STR_ARG(operands->word[1]));
    if (operands->count == 1) {
        struct err e = host_read_file(s->rt, operands->word[0], FILE_MAX, &s->arena, FOREVER, &input);
        if (err_is(e))
            return cli_fail(&verb_send, EXIT_NO_INPUT, "%.*s: %.*s", STR_ARG(operands->word[0]),
                            STR_ARG(cli_error(e, &s->arena)));
        if (is_message(s, input)) {
            s->content = input;
            return EXIT_WELL;
        }
    }
    return compose(s, input);
}

/* ---- the envelope ----------------------------------------------------------------------------------------------- */

static int
parse_address(struct send *s, struct str word, struct str *out)
{
    struct path path;

    if (!path_parse(word, &s->arena, &path) || path_is_null(path) || !client_can_say(word))
        return cli_fail(&verb_send, EXIT_USAGE, "\"%.*s\" is not an address", STR_ARG(word));
    *out = path_text(path, &s->arena);
    return EXIT_WELL;
}

static int
parse_notify(struct send *s)
{
    if (s->set.notify.len > 0 && !notify_parse(s->set.notify, &s->notify))
        return cli_fail(&verb_send, EXIT_USAGE, "--notify wants never, or a list of success,failure,delay");
    if (s->set.ret.len > 0) {
        s->ret = str_eq_nocase(s->set.ret, S("full"))   ? RET_FULL
                 : str_eq_nocase(s->set.ret, S("hdrs")) ? RET_HDRS
                                                        : RET_NONE;
        if (s->ret == RET_NONE)
            return cli_fail(&verb_send, EXIT_USAGE, "--ret wants full or hdrs");
    }
    if (s->set.envid.len > 0) {
        struct text t = text_init(arena_alloc(&s->arena, 3 * s->set.envid.len), 3 * s->set.envid.len);
        xtext_put(&t, s->set.envid);
        s->envid = text_str(&t);
        if (!envid_is_valid(s->envid))
            return cli_fail(&verb_send, EXIT_USAGE, "--envid: that cannot be an envelope id");
    }
    return EXIT_WELL;
}

static int
make_envelope(struct send *s)
{
    const struct words *lists[] = { &s->set.to, &s->set.cc, &s->set.bcc };
    size_t total = s->set.to.count + s->set.cc.count + s->set.bcc.count;
    int exit = parse_notify(s);

    if (exit == EXIT_WELL && total == 0)
        exit = cli_fail(&verb_send, EXIT_USAGE, "to whom? (--to ADDRESS)");
    if (exit != EXIT_WELL)
        return exit;
    if (err_is(host_name(s->rt, &s->arena, &s->host)))
        s->host = S("localhost");
    if (s->set.helo.len == 0)
        s->set.helo = s->host;
    if (str_is_absent(s->set.from)) {
        struct str name = S("postmaster");
        uint32_t gid;
        host_user_by_id(s->rt, host_my_uid(s->rt), FOREVER, &s->arena, &name, &gid);
        s->sender = path_text((struct path){ name, s->host }, &s->arena); /* it may want quotes: EXAMPLE\anna */
    } else if (s->set.from.len > 0 && !str_eq(s->set.from, S("<>"))) {
        exit = parse_address(s, s->set.from, &s->sender);
    }
    s->recipients = arena_alloc(&s->arena, total * sizeof *s->recipients);
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        for (size_t j = 0; j < lists[i]->count && exit == EXIT_WELL; j++) {
            struct recipient *r = &s->recipients[s->count++];
            r->notify = s->notify;
            exit = parse_address(s, lists[i]->word[j], &r->address);
            lists[i]->word[j] = r->address;
        }
    }
    if (exit == EXIT_WELL && (!client_can_say(s->sender) || !client_can_say(s->set.helo)))
        exit = cli_fail(&verb_send, EXIT_USAGE, "--from or --helo cannot be said in SMTP");
    return exit;
}

/* ---- the dialog ------------------------------------------------------------------------------------------------- */

static bool
needs_utf8(const struct send *s)
{
    for (size_t i = 0; i < s->count; i++)
        if (!str_is_ascii(s->recipients[i].address))
            return true;
    return !str_is_ascii(s->sender) || !header_is_ascii(s->content);
}

static int
lost(struct send *s, const char *when, struct err e)
{
    return cli_fail(&verb_send, e.kind == ERR_PROTOCOL ? EXIT_PROTOCOL : EXIT_AGAIN, "%s: %.*s", when,
                    STR_ARG(cli_error(e, &s->arena)));
}

static int
exit_of_refusal(const struct remote_reply *r)
{
    return remote_reply_is_permanent(r) ? EXIT_UNAVAILABLE : EXIT_AGAIN;
}

/* How each recipient fared: the last reply that was about it. */
static int
conclude(struct send *s, const struct client_transaction *t)
{
    size_t taken = 0, refused = 0;

    for (size_t i = 0; i < t->rcpt_count; i++) {
        const struct remote_reply *r = &t->rcpt_reply[i];
        if (!remote_reply_is_positive(&t->mail) && t->mail.code)
            r = &t->mail;
        else if (remote_reply_is_positive(r))
            r = t->data.code && t->data.code != 354 ? &t->data : t->final_reply[i].code ? &t->final_reply[i] : &t->final;
        taken += remote_reply_is_positive(r);
        refused += remote_reply_is_permanent(r);
        if (!remote_reply_is_positive(r))
            cli_fail(&verb_send, 0, "<%.*s> was not accepted: %.*s", STR_ARG(t->rcpt[i]->address),
                     STR_ARG(r->code ? r->text : S("no answer")));
    }
    if (!s->set.quiet)
        dialog_note(&s->dialog, "accepted for %zu of %zu recipients", taken, t->rcpt_count);
    return taken == t->rcpt_count ? EXIT_WELL : refused > 0 ? EXIT_UNAVAILABLE : EXIT_AGAIN;
}

static int
transact(struct send *s, struct client *client)
{
    const struct recipient **rcpt = arena_alloc(&s->arena, s->count * sizeof *rcpt);
    bool utf8 = needs_utf8(s);
    struct str rest = s->content;
    struct client_transaction t = {
        .reverse_path = s->sender,
        .envid = s->envid.len ? s->envid : (struct str){ NULL, 0 },
        .ret = s->ret,
        .body = str_is_ascii(s->content) ? BODY_7BIT : BODY_8BITMIME,
        .smtputf8 = utf8 && client_has(client_features(client), CLIENT_SMTPUTF8),
        .size = s->content.len,
        .rcpt = rcpt,
        .rcpt_count = s->count,
        .content = { client_read_str, &rest },
        .rcpt_reply = arena_alloc(&s->arena, s->count * sizeof *t.rcpt_reply),
        .final_reply = arena_alloc(&s->arena, s->count * sizeof *t.final_reply),
    };

    for (size_t i = 0; i < s->count; i++)
        rcpt[i] = &s->recipients[i];
    if (utf8 && !t.smtputf8 && !s->set.quiet)
        dialog_note(&s->dialog, "not ASCII, but the server does not offer SMTPUTF8: sent as it is");
    struct err e = client_send(client, &t, &s->arena);
    if (err_is(e))
        return lost(s, t.stage == CLIENT_AT_FINAL ? "lost behind the end: it may have been taken" : "lost", e);
    return conclude(s, &t);
}

static int
talk(struct send *s)
{
    struct client_settings settings = {
        .lmtp = s->set.lmtp,
        .refuse = (s->set.no_pipelining ? CLIENT_PIPELINING : 0u) |
                  (s->set.no_bdat ? CLIENT_CHUNKING | CLIENT_BINARYMIME : 0u),
        .helo = s->set.helo,
        .dialog = s->set.quiet ? NULL : dialog_line,
        .dialog_arg = &s->dialog,
    };
    struct remote_reply reply;
    struct stream *stream;
    char memory[150];
    struct text peer = text_init(memory, sizeof memory);
    int64_t ns = s->set.timeout;
    int exit;

    if (ns)
        settings.times = (struct client_times){ ns, ns, ns, ns, ns, ns, ns, ns };
    struct err e = server_connect(s->rt, &s->server, within(s->rt, ns ? ns : LIMIT_CONNECT_NS), &stream);
    if (err_is(e))
        return lost(s, "cannot connect", e);
    struct client *client = client_new(stream, &settings);
    struct address address = client_peer(client);
    address_put(&peer, &address);
    if (!s->set.quiet)
        dialog_note(&s->dialog, "connected to %.*s", STR_ARG(peer.len ? text_str(&peer) : s->server.word));
    e = client_greeting(client, &s->arena, &reply);
    if (!err_is(e) && reply.code == 220)
        e = client_hello(client, &s->arena, &reply);
    if (err_is(e)) {
        client_close(client);
        return lost(s, "lost before the message", e);
    }
    exit = remote_reply_is_positive(&reply) ? transact(s, client) : exit_of_refusal(&reply);
    client_quit(client);
    return exit;
}

static int
run(struct rt *rt, int argc, char **argv)
{
    struct send *s = mem_new(rt_mem(rt), struct send);
    struct words operands = { 0 };
    int exit;

    s->rt = rt;
    s->dialog = dialog_on(rt, TERMINAL_OUT);
    s->set.server = S("127.0.0.1:25");
    s->sender = S("");
    arena_init(&s->arena, rt_mem(rt), 16 << 10, SIZE_MAX);
    if (cli_parse(&verb_send, argc, argv, &s->arena, &s->set, &operands, &exit)) {
        exit = make_envelope(s);
        if (exit == EXIT_WELL)
            exit = make_content(s, &operands);
        if (exit == EXIT_WELL)
            exit = server_find(rt, &verb_send, s->set.server, s->set.lmtp ? 24 : 25, &s->server);
        if (exit == EXIT_WELL)
            exit = talk(s);
    }
    arena_done(&s->arena);
    mem_free(rt_mem(rt), s, sizeof *s);
    return exit;
}

const struct verb verb_send = {
    .name = "send",
    .summary = "send a message to a server, and show the dialog",
    .arguments = "[FILE|-]",
    .about = "FILE is a whole message if it begins with a header (then it goes as it is), else the text of one.\n"
             "Without FILE, a test message is made up.\n"
             "\n"
             "  postrider send --server 127.0.0.1:2525 --to ann@local.test --subject Hello --attach photo.jpg -\n"
             "\n"
             "Exit codes: 0 accepted for all; 69 refused for somebody, for good; 75 not now, or nobody there;\n"
             "68 no such host; 76 the server does not speak SMTP.\n",
    .options = options,
    .run = run,
};
