/* check - see check.h. */
#include "cli/check.h"

#include "base/json.h"
#include "cli/cli.h"
#include "dns/answer.h"
#include "dns/name.h"
#include "dns/resolver.h"
#include "role/load.h"
#include "runtime/host.h"

#include <string.h>

/* ---- the report ------------------------------------------------------------------------------------------------ */

static void
put_count(struct text *t, size_t count, const char *one, const char *several)
{
    text_putf(t, "%zu %s", count, count == 1 ? one : several);
}

static void
put_summary(struct text *t, const struct site *site)
{
    struct directory_domain_info info;
    const struct domain *at = NULL;
    size_t names = 0, domains = 0;

    for (; directory_next(site->directory, &at, &info); domains++)
        names += str_is_absent(info.same_as) ? info.names : 0;
    text_put(t, S("good: "));
    put_count(t, site->listener_count, "listener", "listeners");
    text_put(t, S(", "));
    put_count(t, domains, "domain", "domains");
    text_put(t, S(" with "));
    put_count(t, names, "name", "names");
    text_put(t, S(", "));
    put_count(t, site->route_count, "route", "routes");
}

void
check_put_text(struct text *t, struct str file, const struct conf_problems *problems, const struct site *site)
{
    size_t errors = 0;

    for (size_t i = 0; i < problems->count; i++) {
        conf_problem_put(t, &problems->items[i]);
        text_put(t, S("\n"));
        errors += !problems->items[i].warning;
    }
    if (problems->errors > errors)
        text_putf(t, "... and %zu more errors\n", problems->errors - errors);
    text_put(t, file);
    text_put(t, S(": "));
    if (problems->errors > 0 || !site)
        put_count(t, problems->errors, "error", "errors");
    else
        put_summary(t, site);
    if (problems->warnings > 0) {
        text_put(t, S(", "));
        put_count(t, problems->warnings, "warning", "warnings");
    }
    text_put(t, S("\n"));
}

void
check_put_json(struct text *t, struct str file, const struct conf_problems *problems)
{
    text_put(t, S("{\"version\":1,\"file\":"));
    json_put_str(t, file);
    text_putf(t, ",\"ok\":%s,\"errors\":%zu,\"warnings\":%zu,\"problems\":[", problems->errors ? "false" : "true",
              problems->errors, problems->warnings);
    for (size_t i = 0; i < problems->count; i++) {
        const struct conf_problem *p = &problems->items[i];
        text_putf(t, "%s{\"kind\":\"%s\",", i ? "," : "", p->warning ? "warning" : "error");
        if (p->where.file) {
            text_put(t, S("\"file\":"));
            json_put_str(t, p->where.file->path);
            if (p->where.line > 0)
                text_putf(t, ",\"line\":%u,\"column\":%u", p->where.line, p->where.column);
            text_put(t, S(","));
        }
        text_put(t, S("\"what\":"));
        json_put_str(t, p->what);
        if (!str_is_absent(p->suggestion)) {
            text_put(t, S(",\"suggestion\":"));
            json_put_str(t, p->suggestion);
        }
        text_put(t, S("}"));
    }
    text_put(t, S("]}\n"));
}

/* ---- the world ------------------------------------------------------------------------------------------------- */

/* Hexadecimal digits into bytes; false: others, or another count. */
static bool
unhex(struct str digits, uint8_t *out, size_t count)
{
    if (digits.len != 2 * count)
        return false;
    for (size_t i = 0; i < count; i++) {
        int high = byte_hex(digits.ptr[2 * i]), low = byte_hex(digits.ptr[2 * i + 1]);
        if (high < 0 || low < 0)
            return false;
        out[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

/*
 * /proc/net/route: interface, destination, gateway, ..., each address as the eight digits of a 32-bit number in the
 * machine's byte order. /proc/net/ipv6_route: destination, prefix length, source, prefix length, next hop, ..., as
 * bytes.
 */
struct address
check_find_gateway(struct str table, uint8_t family)
{
    static const uint8_t zero[16];
    size_t bytes = family == ADDRESS_IPV4 ? 4 : 16;

    while (!str_is_absent(table)) {
        struct str line = str_cut(&table, '\n'), words[5];
        struct address gateway = { .family = family }, destination = { .family = family };
        for (size_t i = 0; i < 5; i++)
            words[i] = str_cut_word(&line);
        bool v4 = family == ADDRESS_IPV4;
        if (!unhex(words[v4 ? 1 : 0], destination.ip, bytes) || !unhex(words[v4 ? 2 : 4], gateway.ip, bytes))
            continue;
        if (v4) { /* little-endian, on every machine that we run on */
            uint8_t *ip = gateway.ip;
            uint8_t swapped[4] = { ip[3], ip[2], ip[1], ip[0] };
            for (size_t i = 0; i < 4; i++)
                ip[i] = swapped[i];
        }
        bool is_default = address_same_ip(&destination, &(struct address){ .family = family }) &&
                          (v4 || str_eq(words[1], S("00")));
        if (is_default && !str_eq(str_new(gateway.ip, bytes), str_new(zero, bytes)))
            return gateway;
    }
    return (struct address){ .family = ADDRESS_NONE };
}

struct machine { /* ctx of the world's hooks */
    struct rt *rt;
    struct crypto *crypto;
    struct arena *arena;
    const struct site *site;
    struct str network;         /* a mail host elsewhere */
    struct resolver *resolver;  /* NULL: not asked, or not to be had */
};

static struct address
default_gateway(void *ctx, uint8_t family)
{
    struct machine *m = ctx;
    struct str path = family == ADDRESS_IPV4 ? S("/proc/net/route") : S("/proc/net/ipv6_route"), table;

    if (err_is(host_read_file(m->rt, path, 1 << 20, m->arena, within(m->rt, SECOND), &table)))
        return (struct address){ .family = ADDRESS_NONE };
    return check_find_gateway(table, family);
}

/* As far as its permission bits say: what the file system itself thinks is seen when the daemon starts. We may be in more groups than
 * that; whom root becomes is in his own alone. */
static struct err
writable_by(struct machine *m, struct str path, uint32_t uid, uint32_t gid)
{
    struct host_file file;

    TRY(host_stat(m->rt, path, within(m->rt, 10 * SECOND), &file));
    uint32_t others = uid == host_my_uid(m->rt) ? 0022 : 0002;
    uint32_t bit = uid == file.uid ? 0200 : gid == file.gid ? 0020 : others;
    return file.is_dir && (uid == 0 || (file.mode & bit)) ? OK : ERR(ERR_DENIED, NULL);
}

static struct err
directory_writable(void *ctx, struct str path)
{
    struct machine *m = ctx;

    return writable_by(m, path, host_my_uid(m->rt), host_my_gid(m->rt));
}

static struct err
look_at_file(void *ctx, struct str path, bool plain, uint32_t *out_mode)
{
    struct machine *m = ctx;
    struct handle handle = HANDLE_NONE;
    struct host_file file = { 0 };
    int64_t until = within(m->rt, 10 * SECOND);

    struct err e = plain ? host_open_plain(m->rt, path, until, &handle, &file) : host_stat(m->rt, path, until, &file);
    handle_close(m->rt, handle);
    *out_mode = file.mode;
    if (e.kind == ERR_DENIED && e.os != 0) /* to us */
        return OK;
    return !err_is(e) && file.is_dir ? ERR(ERR_DENIED, "read a directory") : e;
}

/* As the role `keys` will see it: whatever is wrong is in *out. */
static void
look_at_certificate(void *ctx, const struct site_certificate *c, struct site_certificate_look *out)
{
    struct machine *m = ctx;
    int64_t until = within(m->rt, 10 * SECOND);
    struct key_certificate found;
    struct str pem;
    struct key *key;

    out->now = rt_wall(m->rt);
    out->certificate_read = host_read_file(m->rt, c->certificate, KEY_FILE_MAX, m->arena, until, &out->pem);
    if (!err_is(out->certificate_read))
        out->certificate_use = key_look_at_certificate(m->crypto, out->pem, &found);
    bool found_one = !err_is(out->certificate_read) && !err_is(out->certificate_use);
    if (found_one) {
        out->from = found.from;
        out->until = found.until;
        out->self_signed = found.self_signed;
    }
    out->key_read = host_read_file(m->rt, c->key, KEY_FILE_MAX, m->arena, until, &pem);
    if (err_is(out->key_read))
        return;
    out->key_use = key_parse(m->crypto, pem, &key);
    explicit_bzero((void *)(uintptr_t)pem.ptr, pem.len);
    if (err_is(out->key_use))
        return;
    struct key_name name = key_name(key);
    out->fits = found_one && memcmp(&name, &found.key, sizeof name) == 0;
    key_free(key);
    if (out->fits && !tls_certificate_can_be_shown(m->crypto, out->pem))
        out->certificate_use = ERR(ERR_DENIED, "show a certificate");
}

static bool
is_certificate(void *ctx, struct str pem)
{
    struct machine *m = ctx;
    struct key_certificate found;

    return !err_is(key_look_at_certificate(m->crypto, pem, &found));
}

static bool
is_for_host(void *ctx, struct str pem, struct str hostname)
{
    struct machine *m = ctx;

    return key_certificate_is_for(m->crypto, pem, hostname);
}

static bool
has_user(void *ctx, struct str name)
{
    struct machine *m = ctx;
    uint32_t uid, gid;

    return host_user(m->rt, name, within(m->rt, 10 * SECOND), &uid, &gid).kind != ERR_NOT_FOUND;
}

static bool
may_be_user(void *ctx, struct str name)
{
    struct machine *m = ctx;
    uint32_t uid, gid, mine = host_my_uid(m->rt);

    return mine == 0 || err_is(host_user(m->rt, name, within(m->rt, 10 * SECOND), &uid, &gid)) || uid == mine;
}

/* Who is not root delivers as himself, or not at all (may_be_user); root without a user postrider, as root. What is not known is no
 * reason to warn. */
static bool
makes_in(void *ctx, struct str user, struct str path)
{
    struct machine *m = ctx;
    uint32_t uid = host_my_uid(m->rt), gid = host_my_gid(m->rt);

    if (uid != 0 && user.len > 0 && !may_be_user(m, user))
        return true;
    if (uid == 0 && err_is(host_user(m->rt, user.len > 0 ? user : S("postrider"), within(m->rt, 10 * SECOND), &uid, &gid)))
        return true;
    return writable_by(m, path, uid, gid).kind != ERR_DENIED;
}

static bool
has_reverse_name(void *ctx, const struct address *address)
{
    struct machine *m = ctx;
    struct dns_answer answer;
    char memory[NAME_REVERSE_MAX];
    struct text name = text_init(memory, sizeof memory);

    name_put_reverse(&name, address);
    struct err e = resolver_query(m->resolver, text_str(&name), DNS_PTR, within(m->rt, 10 * SECOND), m->arena, &answer);
    return err_is(e) || answer.status == DNS_FOUND ||
           answer.status == DNS_TEMPORARY; /* not known is no reason to warn */
}

static struct err
reaches_port_25(void *ctx)
{
    struct machine *m = ctx;
    struct address addresses[4];
    size_t count = 0;
    struct stream *stream;
    struct err e = terminal_addresses(m->rt, m->network, within(m->rt, 10 * SECOND), addresses, 4, &count);

    if (err_is(e) || count == 0)
        return ERR(ERR_NOT_FOUND, "find a host to try");
    for (size_t i = 0; i < count; i++) {
        addresses[i].port = 25;
        e = stream_connect(m->rt, &addresses[i], NULL, within(m->rt, 10 * SECOND), &stream);
        if (err_is(e))
            continue;
        stream_close(stream);
        return OK;
    }
    return e.kind == ERR_NOT_FOUND ? ERR(ERR_UNREACHABLE, "reach port 25") : e;
}

static void
check_machine(struct machine *m, struct conf_problems *problems)
{
    struct site_world world = { .ctx = m,
                                .default_gateway = default_gateway,
                                .directory_writable = directory_writable,
                                .has_user = has_user,
                                .may_be_user = may_be_user,
                                .makes_in = makes_in,
                                .look_at_file = look_at_file };

    /* Without it nobody can encrypt, the daemon neither, and says so. */
    if (!err_is(crypto_open(m->rt, &m->crypto))) {
        world.look_at_certificate = look_at_certificate;
        world.is_certificate = is_certificate;
        world.is_for_host = is_for_host;
    }

    if (!str_is_absent(m->network)) {
        struct resolver_settings settings = { .forwarders = m->site->forwarders,
                                              .forwarder_count = m->site->forwarder_count };
        struct str why;
        if (err_is(host_read_file(m->rt, S("/etc/resolv.conf"), 1 << 20, m->arena, within(m->rt, SECOND),
                                  &settings.resolv_conf)))
            settings.resolv_conf = S("");
        world.reaches_port_25 = reaches_port_25;
        if (!err_is(resolver_open(m->rt, &settings, within(m->rt, 10 * SECOND), &m->resolver, &why)))
            world.has_reverse_name = has_reverse_name;
    }
    site_check_world(m->site, &world, problems);
    if (m->resolver)
        resolver_close(m->resolver);
    if (m->crypto)
        crypto_close(m->crypto);
}

/* ---- postrider check ------------------------------------------------------------------------------------------- */

struct check_options {
    struct str config, network;
    bool json;
};
static const struct option check_table[] = {
    {"--config", "FILE", OPTION_WORD, offsetof(struct check_options, config), "instead of " CLI_CONFIG},
    {"--network", "HOST", OPTION_WORD, offsetof(struct check_options, network),
     "ask the network too: have the addresses that listeners name\nnames, and does HOST, a mail host elsewhere, answer at port 25"},
    {"--json", NULL, OPTION_FLAG, offsetof(struct check_options, json), "the same for programs"},
    {0},
};

static int
check(struct rt *rt, const struct check_options *options, struct arena *arena)
{
    struct conf_world world = load_world(rt);
    struct conf_bundle bundle;
    struct conf_problems problems;
    struct text report = text_init(arena_alloc(arena, CHECK_REPORT_MAX), CHECK_REPORT_MAX);

    conf_problems_init(&problems, arena);
    conf_bundle_init(&bundle, arena, &world, options->config);
    struct site *site = site_load(rt_mem(rt), &bundle, rt_random(rt), &problems);
    struct machine machine = { .rt = rt, .arena = arena, .site = site, .network = options->network };
    if (site)
        check_machine(&machine, &problems);
    if (options->json)
        check_put_json(&report, options->config, &problems);
    else
        check_put_text(&report, options->config, &problems, site);
    struct err e = terminal_write(TERMINAL_OUT, text_str(&report));
    if (site)
        site_free(site);
    conf_bundle_done(&bundle);
    return err_is(e) ? EXIT_IO : problems.errors > 0 ? EXIT_CONFIG : EXIT_WELL;
}

static int
run_check(struct rt *rt, int argc, char **argv)
{
    struct check_options options = { .config = STR(CLI_CONFIG) };
    struct words operands = { 0 };
    struct arena arena;
    int exit;

    arena_init(&arena, rt_mem(rt), 64 << 10, SIZE_MAX / 2); /* bounded by LIMIT_CONFIG_BYTES */
    if (cli_parse(&verb_check, argc, argv, &arena, &options, &operands, &exit))
        exit = operands.count > 0 ? cli_fail(&verb_check, EXIT_USAGE,
                                             "\"%.*s\" is not expected here: a file is named by "
                                             "--config (try --help)",
                                             STR_ARG(operands.word[0]))
                                  : check(rt, &options, &arena);
    arena_done(&arena);
    return exit;
}

const struct verb verb_check = {
    .name = "check",
    .summary = "say what is wrong with a configuration",
    .arguments = "",
    .about = "Errors (the daemon would not start, would leave out what the file asks for or use what others can read, or postmaster "
             "would get no mail) end with exit code 78; warnings do not.\n\n"
             "  postrider check --config postrider.conf\n"
             "  postrider check --network mail.example.net\n",
    .options = check_table,
    .run = run_check,
};

/* ---- postrider config ------------------------------------------------------------------------------------------ */

struct config_options {
    bool mdoc;
};
static const struct option config_table[] = {
    { "--mdoc", NULL, OPTION_FLAG, offsetof(struct config_options, mdoc), "as the list of the manual page" },
    { 0 },
};

static int
run_config(struct rt *rt, int argc, char **argv)
{
    struct config_options options = { 0 };
    struct words operands = { 0 };
    struct arena arena;
    int exit;

    arena_init(&arena, rt_mem(rt), 16 << 10, SIZE_MAX / 2);
    if (cli_parse(&verb_config, argc, argv, &arena, &options, &operands, &exit)) {
        struct text text = text_init(arena_alloc(&arena, CHECK_REPORT_MAX), CHECK_REPORT_MAX);
        if (operands.count != 1 || !str_eq(operands.word[0], S("reference"))) {
            exit = cli_fail(&verb_config, EXIT_USAGE, "write \"postrider config reference\" (try --help)");
        } else {
            (options.mdoc ? setting_put_mdoc : setting_put_reference)(&text, &site_settings);
            exit = err_is(terminal_write(TERMINAL_OUT, text_str(&text))) ? EXIT_IO : EXIT_WELL;
        }
    }
    arena_done(&arena);
    return exit;
}

const struct verb verb_config = {
    .name = "config",
    .summary = "print everything that a configuration may say",
    .arguments = "reference",
    .about = "  postrider config reference\n",
    .options = config_table,
    .run = run_config,
};
