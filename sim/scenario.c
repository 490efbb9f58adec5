/*
 * scenario - see scenario.h. A file is read line by line and done as it is read; a statement that cannot be understood fails
 * like one that is not true.
 */
#include "sim/scenario.h"

#include "base/base64.h"
#include "base/check.h"
#include "base/conf.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HOPS_MAX = 8, SPEAKERS_MAX = 8, ARRIVALS_MAX = 256, EXPECTED_MAX = 64, RECIPIENTS_MAX = 8, FILE_MAX = 64 << 10 };

#define PATIENCE (15 * MINUTE) /* for one thing that a client does */
#define CLIENT_IP "198.51.100.5"

static const char usual_configuration[] =
    "hostname mx.sim.test\n"
    "state " STATE_DIR "\n"
    "listen mx { address 192.0.2.1:25; relay from 198.51.100.0/24 }\n"
    "domain local.test { mailbox user0 user1; alias postmaster -> user0; deliver maildir /var/mail/{domain}/{local} }\n"
    "route default { direct; tls off }\n"
    "retry 5m 15m 1h for 5d { delay-notice 4h }\n";

struct expected { /* so often a message came to somebody, as the story says */
    char message[NAME_BYTES], address[ADDRESS_BYTES];
    size_t count;
};

struct scenario {
    struct run run;          /* first: what the operator knows */
    const char *path;
    unsigned line;           /* of the statement at hand */
    bool started;
    struct str file;         /* what is left of it */
    struct hop hops[HOPS_MAX];
    size_t hop_count;
    struct speaker speakers[SPEAKERS_MAX];
    size_t speaker_count;
    struct arrival arrivals[ARRIVALS_MAX];
    size_t arrival_count, from_servers; /* those behind from_servers were read from Maildirs just now */
    struct expected expected[EXPECTED_MAX];
    size_t expected_count;
    char configuration[4096];
    char users[1024];        /* /etc/users */
    size_t users_len;
    char *own_log;
    size_t log_len, log_cap, log_mark;
};

static struct sim *
sim_of(const struct scenario *sc)
{
    return sc->run.sim;
}

static void fail(struct scenario *, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void
fail(struct scenario *sc, const char *format, ...)
{
    char text[400];
    va_list args;

    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    sim_fail(sim_of(sc), "%s:%u: %s", sc->path, sc->line, text);
}

/* ---- words ------------------------------------------------------------------------------------------------------- */

static bool
take_word(struct str *rest, const char *word)
{
    struct str copy = *rest;

    if (!str_eq(str_cut_word(&copy), str_from_cstr(word)))
        return false;
    *rest = copy;
    return true;
}

static bool
copy_word(char *out, size_t size, struct str word)
{
    if (word.len == 0 || word.len >= size)
        return false;
    memcpy(out, word.ptr, word.len);
    out[word.len] = '\0';
    return true;
}

static struct hop *
find_hop(struct scenario *sc, struct str name)
{
    for (size_t i = 0; i < sc->hop_count; i++)
        if (str_eq(str_from_cstr(sc->hops[i].name), name))
            return &sc->hops[i];
    return NULL;
}

static bool
is_message(struct str word)
{
    uint64_t number;

    return str_take(&word, S("M")) && str_to_u64(word, &number);
}

/* ---- what came --------------------------------------------------------------------------------------------------- */

static void
add_arrival(struct scenario *sc, enum arrival_kind kind, struct str message, struct str address)
{
    if (sc->arrival_count == ARRIVALS_MAX) {
        fail(sc, "more arrives than a scenario may see");
        return;
    }
    struct arrival *a = &sc->arrivals[sc->arrival_count++];
    *a = (struct arrival){ .kind = (uint8_t)kind };
    (void)copy_word(a->message, sizeof a->message, message);
    (void)copy_word(a->address, sizeof a->address, address);
}

void
scenario_arrived(struct scenario *sc, struct str address, struct str content)
{
    bool notice = str_find(content, S("multipart/report")) < content.len;
    struct str rest = str_from(content, str_find(content, S("X-Sim-Message: "))), recipient = S("");

    (void)str_take(&rest, S("X-Sim-Message: "));
    struct str message = str_slice(rest, 0, 1);
    while (message.len < rest.len && byte_is_digit(rest.ptr[message.len]))
        message = str_slice(rest, 0, message.len + 1);
    if (!notice) {
        add_arrival(sc, ARRIVED_CONTENT, message, address);
        return;
    }
    while (content.len) {
        struct str line = str_trim(str_cut(&content, '\n'));
        if (str_take_nocase(&line, S("Final-Recipient:"))) {
            (void)str_cut(&line, ';');
            recipient = str_trim(line);
        } else if (str_take_nocase(&line, S("Action:")) && recipient.len) {
            struct str action = str_trim(line);
            if (str_eq_nocase(action, S("failed")) || str_eq_nocase(action, S("delayed")))
                add_arrival(sc, str_eq_nocase(action, S("failed")) ? ARRIVED_FAILED : ARRIVED_DELAYED, message, recipient);
            recipient = S("");
        }
    }
}

static void
read_mail_file(void *arg, disk_inode inode, struct str path)
{
    struct scenario *sc = arg;
    struct str content = disk_bytes(sim_of(sc)->disk, inode), rest = content, line;

    if (str_find(path, S("/new/")) == path.len)
        return;
    do
        line = str_cut(&rest, '\n');
    while (rest.len && !str_starts_nocase(line, S("Delivered-To:")));
    (void)str_cut(&line, ':');
    scenario_arrived(sc, str_trim(line), content);
}

static void
read_maildirs(struct scenario *sc)
{
    disk_inode mail;
    size_t before = sc->arrival_count;

    if (disk_walk(sim_of(sc)->disk, DISK_ROOT, S("/var/mail"), &mail))
        disk_each_file(sim_of(sc)->disk, mail, read_mail_file, sc);
    sc->from_servers = before;
}

static void
forget_maildirs(struct scenario *sc)
{
    sc->arrival_count = sc->from_servers;
}

static size_t
count_arrivals(const struct scenario *sc, enum arrival_kind kind, struct str message, struct str address)
{
    size_t count = 0;

    for (size_t i = 0; i < sc->arrival_count; i++) {
        const struct arrival *a = &sc->arrivals[i];
        count += a->kind == kind && str_eq(str_from_cstr(a->message), message) &&
                 (str_is_absent(address) || str_eq_nocase(str_from_cstr(a->address), address));
    }
    return count;
}

/* ---- what must be true ------------------------------------------------------------------------------------------- */

struct wanted {
    struct scenario *sc;
    struct str text;
    int64_t since;
    char why[300];   /* it does not hold */
};

static bool
message_holds(struct wanted *w, struct str message, struct str rest)
{
    struct scenario *sc = w->sc;
    static const struct str none = { NULL, 0 };
    bool never = false;

    if (take_word(&rest, "is") && ((never = take_word(&rest, "not")) || true) && take_word(&rest, "delivered") &&
        take_word(&rest, "to")) {
        struct str address = str_cut_word(&rest);
        uint64_t want = never ? 0 : 1;
        struct str number = str_cut_word(&rest);
        if (number.len && (!str_to_u64(number, &want) || !take_word(&rest, "times")))
            return false;
        size_t have = count_arrivals(sc, ARRIVED_CONTENT, message, address);
        (void)snprintf(w->why, sizeof w->why, "it came %zu times to %.*s", have, STR_ARG(address));
        if (have == want && want > 1 && sc->expected_count < EXPECTED_MAX) {
            struct expected *e = &sc->expected[sc->expected_count++];
            (void)copy_word(e->message, sizeof e->message, message);
            (void)copy_word(e->address, sizeof e->address, address);
            e->count = want;
        }
        return have == want;
    }
    if (take_word(&rest, "bounced") && take_word(&rest, "for")) {
        size_t all = count_arrivals(sc, ARRIVED_FAILED, message, none), named = 0;
        struct str address;
        while ((address = str_cut_word(&rest)).len) {
            size_t have = count_arrivals(sc, ARRIVED_FAILED, message, address);
            (void)snprintf(w->why, sizeof w->why, "%zu notices name %.*s", have, STR_ARG(address));
            if (have != 1)
                return false;
            named++;
        }
        (void)snprintf(w->why, sizeof w->why, "%zu failures were told", all);
        return named > 0 && all == named;
    }
    if (take_word(&rest, "did") && take_word(&rest, "not") && take_word(&rest, "bounce")) {
        size_t all = count_arrivals(sc, ARRIVED_FAILED, message, none);
        (void)snprintf(w->why, sizeof w->why, "%zu failures were told", all);
        return all == 0;
    }
    if (take_word(&rest, "was") && take_word(&rest, "delayed") && take_word(&rest, "for")) {
        struct str address = str_cut_word(&rest);
        size_t have = count_arrivals(sc, ARRIVED_DELAYED, message, address);
        (void)snprintf(w->why, sizeof w->why, "%zu notices of delay name %.*s", have, STR_ARG(address));
        return have == 1;
    }
    (void)snprintf(w->why, sizeof w->why, "this is not understood");
    return false;
}

static bool
counter_holds(struct wanted *w, struct str name, uint64_t want)
{
    struct run *run = &w->sc->run;

    if (run->counters_at <= w->since) {
        (void)snprintf(w->why, sizeof w->why, "the console did not answer");
        return false;
    }
    uint64_t have = counters_figure(str_new(run->counters, run->counters_len), name);
    (void)snprintf(w->why, sizeof w->why, "%.*s is %lld", STR_ARG(name), (long long)have);
    return have == want;
}

static bool
log_holds(struct wanted *w, struct str text)
{
    struct scenario *sc = w->sc;
    struct str log = str_new(sc->own_log ? sc->own_log : "", sc->log_len), fresh = str_from(log, sc->log_mark);
    size_t at = str_find(fresh, text);

    (void)snprintf(w->why, sizeof w->why, "no line of the log holds it");
    if (at == fresh.len)
        return false;
    sc->log_mark += at + text.len;
    return true;
}

/* Whether what may be asked about is true now. *out_known: it can be asked about. */
static bool
holds(struct wanted *w, bool *out_known)
{
    struct str rest = w->text, word = str_cut_word(&rest);
    uint64_t number = 0;

    *out_known = true;
    if (is_message(word)) {
        read_maildirs(w->sc);
        bool is = message_holds(w, word, rest);
        forget_maildirs(w->sc);
        return is;
    }
    if (str_eq(word, S("queue")) && take_word(&rest, "is") && take_word(&rest, "empty"))
        return counter_holds(w, S("messages"), 0);
    if (str_eq(word, S("queue")) && take_word(&rest, "has") && str_to_u64(str_cut_word(&rest), &number))
        return counter_holds(w, S("messages"), number);
    if (str_eq(word, S("counter"))) {
        struct str name = str_cut_word(&rest);
        if (take_word(&rest, "is") && str_to_u64(str_cut_word(&rest), &number))
            return counter_holds(w, name, number);
    }
    const struct hop *hop = find_hop(w->sc, word);
    if (hop && take_word(&rest, "was") && take_word(&rest, "told")) {
        (void)snprintf(w->why, sizeof w->why, "it heard \"%.200s\"", hop->told);
        return str_find(str_from_cstr(hop->told), str_trim(rest)) < strlen(hop->told);
    }
    if (str_eq(word, S("log")) && take_word(&rest, "says"))
        return log_holds(w, str_trim(rest));
    *out_known = false;
    return false;
}

static bool
holds_now(struct sim *sim, void *arg)
{
    bool known;

    (void)sim;
    return holds(arg, &known);
}

/* Waits for it. False: it is no such statement. */
static bool
want(struct scenario *sc, struct str text, int64_t within_ns)
{
    struct sim *sim = sim_of(sc);
    struct wanted w = { .sc = sc, .text = text, .since = sim->now };
    bool asks_console = str_starts(text, S("queue ")) || str_starts(text, S("counter ")), known;

    if (asks_console && within_ns < MINUTE)
        within_ns = MINUTE; /* for the operator to ask */
    bool is = holds(&w, &known);
    if (!known)
        return false;
    if (!is && within_ns)
        is = sim_run(sim, sim->now + within_ns, holds_now, &w) || holds(&w, &known);
    if (!is)
        fail(sc, "\"%.*s\" is not so: %s", STR_ARG(text), w.why);
    return true;
}

/* ---- the world --------------------------------------------------------------------------------------------------- */

static void
keep_log(struct sim *sim, struct process *p, struct str line)
{
    struct scenario *sc = sim->ctx;

    (void)p;
    if (sc->log_len + line.len > sc->log_cap) {
        sc->log_cap = 2 * (sc->log_len + line.len) + 4096;
        sc->own_log = realloc(sc->own_log, sc->log_cap);
        CHECK(sc->own_log);
    }
    memcpy(sc->own_log + sc->log_len, line.ptr, line.len);
    sc->log_len += line.len;
}

static bool
add_server(struct scenario *sc, struct str rest)
{
    struct str name = str_cut_word(&rest), ip = str_cut_word(&rest);
    struct hop *hop = &sc->hops[sc->hop_count];
    struct address address;
    char text[64];

    if (sc->hop_count == HOPS_MAX || !copy_word(hop->name, sizeof hop->name, name) || !address_from_ip(ip, &address) ||
        !copy_word(text, sizeof text, ip))
        return false;
    hop->scenario = sc;
    hop->lmtp = take_word(&rest, "lmtp");
    hop->host = host_new(sim_of(sc), hop->name, text);
    hop->address = address;
    hop->address.port = hop->lmtp ? 24 : 25;
    sc->hop_count++;
    char host_name[64];
    (void)snprintf(host_name, sizeof host_name, "%s.hops.test", hop->name);
    sim_dns_add_address(sim_of(sc), host_name, text);
    hop_start(sim_of(sc), hop);
    return rest.len == 0;
}

static bool
add_mx(struct scenario *sc, struct str rest)
{
    char domain[64], host_name[64];
    unsigned preference = 0;
    struct str name;

    if (!copy_word(domain, sizeof domain, str_cut_word(&rest)))
        return false;
    while ((name = str_cut_word(&rest)).len) {
        struct hop *hop = find_hop(sc, name);
        if (!hop)
            return false;
        (void)snprintf(host_name, sizeof host_name, "%s.hops.test", hop->name);
        sim_dns_add_mx(sim_of(sc), domain, preference += 10, host_name);
    }
    return preference > 0;
}

/* The indented lines that follow. */
static bool
read_configuration(struct scenario *sc)
{
    struct text t = text_init(sc->configuration, sizeof sc->configuration);

    while (str_starts(sc->file, S("    "))) {
        text_put(&t, str_cut(&sc->file, '\n'));
        text_put_byte(&t, '\n');
        sc->line++;
    }
    sim_of(sc)->config = text_str(&t);
    return t.len > 0 && !t.full;
}

/* "good.test enforce mx1 mx2" */
static bool
add_mta_sts(struct scenario *sc, struct str rest)
{
    struct sim *sim = sim_of(sc);
    char domain[64], mode[16], name[80], policy[300];
    struct text t = text_init(policy, sizeof policy);
    struct str hop;

    if (!copy_word(domain, sizeof domain, str_cut_word(&rest)) || !copy_word(mode, sizeof mode, str_cut_word(&rest)))
        return false;
    text_putf(&t, "version: STSv1\nmode: %s\nmax_age: 604800\n", mode);
    while ((hop = str_cut_word(&rest)).len)
        text_putf(&t, "mx: %.*s.hops.test\n", STR_ARG(hop));
    (void)snprintf(name, sizeof name, "_mta-sts.%s", domain);
    sim_dns_add_txt(sim, name, "v=STSv1; id=1;");
    (void)snprintf(name, sizeof name, "mta-sts.%s", domain);
    sim_dns_add_address(sim, name, "203.0.113.250"); /* https.c asks for its name alone */
    sim_web_put(sim, name, text_cstr(&t));
    return !t.full && run_put_file(sim, "/etc/ssl/certs/ca-certificates.crt", S("authorities\n"));
}

/* "anna sends as @back.test" */
static bool
add_user(struct scenario *sc, struct str rest)
{
    struct text t = text_init(sc->users, sizeof sc->users);
    struct str name = str_cut_word(&rest);

    if (!take_word(&rest, "sends") || !take_word(&rest, "as") || name.len == 0)
        return false;
    t.len = sc->users_len;
    text_putf(&t, "%.*s:$sim$%.*s:send-as=%.*s\n", STR_ARG(name), STR_ARG(name), STR_ARG(str_trim(rest)));
    sc->users_len = t.len;
    return !t.full && run_put_file(sim_of(sc), "/etc/users", text_str(&t));
}

static bool
is_ready(struct sim *sim, void *arg)
{
    (void)arg;
    return sim->daemon_ready;
}

static void
start_daemon(struct scenario *sc)
{
    struct sim *sim = sim_of(sc);

    if (sc->started)
        return;
    sc->started = true;
    run_prepare_disk(&sc->run);
    sim_start_daemon(sim);
    operator_start(&sc->run);
    if (!sim_run(sim, sim->now + MINUTE, is_ready, NULL))
        fail(sc, "the daemon does not become ready");
}

/* ---- clients ----------------------------------------------------------------------------------------------------- */

static struct speaker *
find_speaker(struct scenario *sc, struct str name, struct str rest)
{
    char ip[64] = CLIENT_IP;

    for (size_t i = 0; i < sc->speaker_count; i++)
        if (str_eq(str_from_cstr(sc->speakers[i].name), name))
            return &sc->speakers[i];
    if (sc->speaker_count == SPEAKERS_MAX)
        return NULL;
    struct speaker *s = &sc->speakers[sc->speaker_count];
    if (take_word(&rest, "from"))
        (void)copy_word(ip, sizeof ip, str_cut_word(&rest));
    else
        (void)snprintf(ip, sizeof ip, "198.51.100.%zu", 5 + sc->speaker_count);
    if (!copy_word(s->name, sizeof s->name, name))
        return NULL;
    sc->speaker_count++;
    speaker_start(sim_of(sc), s, ip);
    return s;
}

static bool
has_worked(struct sim *sim, void *arg)
{
    (void)sim;
    return ((struct speaker *)arg)->wish == WISH_NONE;
}

static bool
ask_of(struct scenario *sc, struct speaker *s, enum wish wish, struct str text)
{
    struct sim *sim = sim_of(sc);

    s->wish = wish;
    s->text = text;
    event_wake(&s->process->rt, &s->kick);
    if (!sim_run(sim, sim->now + PATIENCE, has_worked, s) && !sim->failed && s->wish != WISH_NONE)
        fail(sc, "%s waited in vain", s->name);
    return s->worked && !sim->failed;
}

static bool
dialog(struct scenario *sc, struct speaker *s, struct text *t, unsigned *out_code)
{
    text_put(t, S("\r\n"));
    CHECK(!t->full);
    bool went = ask_of(sc, s, WISH_SAY, text_str(t)) && ask_of(sc, s, WISH_HEAR, S(""));
    t->len = 0;
    *out_code = went ? s->code : 0;
    return went;
}

/* By PLAIN. */
static bool
log_in(struct scenario *sc, struct speaker *s, struct text *t, unsigned *out_code)
{
    char memory[2 * NAME_BYTES + 2];
    struct text secret = text_init(memory, sizeof memory);

    text_put_byte(&secret, '\0');
    text_put(&secret, str_from_cstr(s->name));
    text_put_byte(&secret, '\0');
    text_put(&secret, str_from_cstr(s->name));
    text_put(t, S("AUTH PLAIN "));
    base64_put(t, text_str(&secret));
    return dialog(sc, s, t, out_code);
}

struct letter {
    struct str message, from, parameters, to[RECIPIENTS_MAX];
    size_t count;
    bool logged_in;
};

/* The code of the first reply that refused, or of the end of data. 0: the connection broke. */
static unsigned
hand_in(struct scenario *sc, struct speaker *s, const struct letter *letter)
{
    char memory[2048];
    struct text t = text_init(memory, sizeof memory);
    struct str message = letter->message, from = letter->from;
    unsigned code;

    s->port = letter->logged_in ? 465 : 25;
    if (!ask_of(sc, s, WISH_CONNECT, S("")) || !ask_of(sc, s, WISH_HEAR, S("")) || s->code != 220)
        return s->connected ? s->code : 0;
    text_put(&t, S("EHLO client.test"));
    if (!dialog(sc, s, &t, &code) || code != 250)
        return code;
    if (letter->logged_in && (!log_in(sc, s, &t, &code) || code != 235))
        return code;
    text_putf(&t, "MAIL FROM:<%.*s>%s%.*s", STR_ARG(from), letter->parameters.len ? " " : "", STR_ARG(letter->parameters));
    if (!dialog(sc, s, &t, &code) || code != 250)
        return code;
    for (size_t i = 0; i < letter->count; i++) {
        text_putf(&t, "RCPT TO:<%.*s>", STR_ARG(letter->to[i]));
        if (!dialog(sc, s, &t, &code) || code / 100 != 2)
            return code;
    }
    text_put(&t, S("DATA"));
    if (!dialog(sc, s, &t, &code) || code != 354)
        return code;
    text_putf(&t, "From: <%.*s>\r\nDate: Thu, 1 Jan 2026 00:00:00 +0000\r\nMessage-ID: <%.*s@sim.test>\r\n"
                  "X-Sim-Message: %.*s\r\nSubject: a scenario\r\n\r\nHello.\r\n..twice\r\n.", STR_ARG(from), STR_ARG(message),
              STR_ARG(message));
    (void)dialog(sc, s, &t, &code);
    return code;
}

static bool
run_hand_in(struct scenario *sc, struct speaker *s, struct str rest)
{
    struct letter letter = { .message = str_cut_word(&rest) };
    struct str word;
    uint64_t wanted = 250;

    letter.logged_in = take_word(&rest, "logged") && take_word(&rest, "in");
    if (!is_message(letter.message) || !take_word(&rest, "from") || !(letter.from = str_cut_word(&rest)).len ||
        !take_word(&rest, "to"))
        return false;
    if (str_eq(letter.from, S("<>")))
        letter.from = S("");
    while ((word = str_cut_word(&rest)).len && !str_eq(word, S("hears")) && !str_eq(word, S("with")) &&
           letter.count < RECIPIENTS_MAX)
        letter.to[letter.count++] = word;
    if (str_eq(word, S("with"))) { /* until "hears", if that comes */
        letter.parameters = str_trim(str_slice(rest, 0, str_find(rest, S(" hears "))));
        rest = str_from(rest, str_find(rest, S(" hears ")));
        word = str_cut_word(&rest);
    }
    if (letter.count == 0 || (word.len && !str_to_u64(str_cut_word(&rest), &wanted)))
        return false;
    unsigned code = hand_in(sc, s, &letter);
    if (code != wanted)
        fail(sc, "%s heard \"%s\" and not %llu", s->name, code ? s->heard : "nothing more", (unsigned long long)wanted);
    /* Without QUIT: what happens next must find the daemon as it was when it said 250. */
    (void)ask_of(sc, s, WISH_HANG_UP, S(""));
    return true;
}

static bool
run_client(struct scenario *sc, struct str name, struct str rest)
{
    struct str verb = str_cut_word(&rest);
    char line[1024];
    uint64_t code;

    if (!str_eq(verb, S("connects")) && !str_eq(verb, S("says")) && !str_eq(verb, S("hears")) && !str_eq(verb, S("hangs")) &&
        !str_eq(verb, S("hands")))
        return false;
    start_daemon(sc);
    struct speaker *s = find_speaker(sc, name, rest);
    if (!s)
        return false;
    if (str_eq(verb, S("connects"))) {
        if (!ask_of(sc, s, WISH_CONNECT, S("")))
            fail(sc, "%s cannot connect", s->name);
        return true;
    }
    if (str_eq(verb, S("hangs")))
        return take_word(&rest, "up") && ask_of(sc, s, WISH_HANG_UP, S(""));
    if (str_eq(verb, S("hands")))
        return take_word(&rest, "in") && run_hand_in(sc, s, rest);
    rest = str_trim(rest);
    if (str_eq(verb, S("says"))) {
        struct text t = text_init(line, sizeof line);
        text_put(&t, rest);
        text_put(&t, S("\r\n"));
        if (t.full || !ask_of(sc, s, WISH_SAY, text_str(&t)))
            fail(sc, "%s cannot say it", s->name);
        return true;
    }
    bool heard = ask_of(sc, s, WISH_HEAR, S(""));
    if (str_eq(rest, S("cut"))) {
        if (heard)
            fail(sc, "%s heard \"%s\" and not the end of the connection", s->name, s->heard);
        return true;
    }
    if (!str_to_u64(rest, &code))
        return false;
    if (!heard || s->code != code)
        fail(sc, "%s heard \"%s\" and not %llu", s->name, heard ? s->heard : "nothing more", (unsigned long long)code);
    return true;
}

/* ---- servers and faults ------------------------------------------------------------------------------------------ */

static bool
take_stage(struct str word, uint8_t *out)
{
    static const struct str stages[STAGES] = { STR("greeting"), STR("EHLO"), STR("MAIL"), STR("RCPT"), STR("DATA"), STR("end") };

    for (uint8_t i = 0; i < STAGES; i++)
        if (str_eq(word, stages[i])) {
            *out = i;
            return true;
        }
    return false;
}

static bool
run_server(struct hop *hop, struct sim *sim, struct str rest)
{
    struct order *o = &hop->orders[hop->order_count];
    struct str word = str_cut_word(&rest);

    if (str_eq(word, S("is"))) {
        word = str_cut_word(&rest);
        if (str_eq(word, S("well")))
            hop->order_count = 0;
        else if (str_eq(word, S("down")))
            hop->host->down_until = FOREVER;
        else if (str_eq(word, S("up")))
            hop->host->down_until = sim->now;
        else
            return false;
        return true;
    }
    if (str_eq(word, S("offers"))) {
        (void)snprintf(hop->offers, sizeof hop->offers, " %.*s", STR_ARG(str_trim(rest)));
        return rest.len > 0;
    }
    if (hop->order_count == ORDERS_MAX)
        return false;
    *o = (struct order){ 0 };
    if (str_eq(word, S("never"))) {
        if (!take_word(&rest, "answers") || !take_stage(str_cut_word(&rest), &o->stage))
            return false;
    } else {
        size_t at = rest.len;
        for (size_t i = 0; i + 4 <= rest.len; i++)
            if (str_eq(str_slice(rest, i, i + 4), S(" to ")))
                at = i;
        struct str stage = str_from(rest, at + 4);
        if (!str_eq(word, S("says")) || at == rest.len || !copy_word(o->reply, sizeof o->reply, str_trim(str_slice(rest, 0, at))) ||
            !take_stage(str_cut_word(&stage), &o->stage))
            return false;
        (void)copy_word(o->address, sizeof o->address, str_cut_word(&stage));
    }
    hop->order_count++;
    return true;
}

static bool
inject(struct scenario *sc, struct fault fault)
{
    struct sim *sim = sim_of(sc);

    start_daemon(sc);
    fault.at = sim->now;
    sim->faults.list[0] = fault;
    sim->faults.count = 1;
    faults_arm(sim);
    (void)sim_run(sim, sim->now + 1, NULL, NULL);
    return true;
}

static bool
run_fault(struct scenario *sc, struct str word, struct str rest)
{
    struct sim *sim = sim_of(sc);

    if (str_eq(word, S("kill"))) {
        struct fault f = { .kind = FAULT_KILL_ROLE };
        if (take_word(&rest, "everything"))
            return inject(sc, (struct fault){ .kind = FAULT_KILL_ALL, .lasts = 5 * SECOND });
        return copy_word(f.role, sizeof f.role, str_cut_word(&rest)) && inject(sc, f);
    }
    if (str_eq(word, S("lose")))
        return take_word(&rest, "power") && inject(sc, (struct fault){ .kind = FAULT_POWER_LOSS });
    if (str_eq(word, S("reload")))
        return inject(sc, (struct fault){ .kind = FAULT_RELOAD });
    if (str_eq(word, S("restart")))
        return inject(sc, (struct fault){ .kind = FAULT_RESTART });
    if (str_eq(word, S("dns"))) {
        bool out = take_word(&rest, "is") && take_word(&rest, "out");
        sim->faults.dns_out_until = out ? FOREVER : 0;
        return out || take_word(&rest, "back");
    }
    if (str_eq(word, S("disk"))) {
        if (take_word(&rest, "is") && take_word(&rest, "full")) {
            start_daemon(sc);
            disk_set_capacity(sim->disk, disk_used(sim->disk));
            return true;
        }
        if (take_word(&rest, "stalls")) {
            int64_t time;
            return conf_take_time(str_cut_word(&rest), &time) &&
                   inject(sc, (struct fault){ .kind = FAULT_DISK_STALL, .lasts = time });
        }
        if (take_word(&rest, "refuses") && take_word(&rest, "writes")) { /* and can be read */
            int64_t time;
            return conf_take_time(str_cut_word(&rest), &time) &&
                   inject(sc, (struct fault){ .kind = FAULT_DISK_ERROR, .error = EIO, .which = CALL_WRITE, .lasts = time });
        }
        disk_set_capacity(sim->disk, sim->disk_capacity);
        return take_word(&rest, "has") && take_word(&rest, "room");
    }
    if (str_eq(word, S("clock")) && take_word(&rest, "leaps")) {
        bool back = take_word(&rest, "back");
        int64_t leap;
        return conf_take_time(str_cut_word(&rest), &leap) &&
               inject(sc, (struct fault){ .kind = FAULT_CLOCK_JUMP, .amount = back ? -leap : leap });
    }
    return false;
}

/* A file stands in its place meanwhile, so that nobody makes it anew. */
static bool
run_folder(struct scenario *sc, struct str path, struct str rest)
{
    struct disk *disk = sim_of(sc)->disk;
    size_t slash = str_find_last_byte(path, '/');
    struct str name = str_from(path, slash + 1);
    disk_inode dir, file;

    if (!take_word(&rest, "is") || slash == path.len || !disk_walk(disk, DISK_ROOT, str_slice(path, 0, slash), &dir))
        return false;
    if (take_word(&rest, "away"))
        return !err_is(disk_rename(disk, dir, name, DISK_ROOT, S("away"))) && !err_is(disk_create(disk, dir, name, false, &file));
    return take_word(&rest, "back") && !err_is(disk_unlink(disk, dir, name)) &&
           !err_is(disk_rename(disk, DISK_ROOT, S("away"), dir, name));
}

static bool
has_acted(struct sim *sim, void *arg)
{
    (void)sim;
    return ((const struct run *)arg)->acted;
}

static bool
run_operator(struct scenario *sc, struct str verb, struct str what)
{
    static const struct str verbs[] = { [ACT_RETRY] = STR("retries"), [ACT_HOLD] = STR("holds"), [ACT_RELEASE] = STR("releases"),
                                        [ACT_BOUNCE] = STR("bounces"), [ACT_REMOVE] = STR("removes") };
    struct sim *sim = sim_of(sc);
    size_t act = 0;

    while (act < sizeof verbs / sizeof *verbs && !str_eq(verbs[act], verb))
        act++;
    if (act == sizeof verbs / sizeof *verbs || !take_word(&what, "everything"))
        return false;
    operator_act(&sc->run, (enum border_act)act);
    if (!sim_run(sim, sim->now + MINUTE, has_acted, &sc->run))
        fail(sc, "the operator is not answered");
    return true;
}

/* ---- a file ------------------------------------------------------------------------------------------------------ */

static bool
run_statement(struct scenario *sc, struct str statement)
{
    struct sim *sim = sim_of(sc);
    struct str rest = statement, word = str_cut_word(&rest);
    struct hop *hop = find_hop(sc, word);
    int64_t time;

    if (str_eq(word, S("server")))
        return add_server(sc, rest);
    if (str_eq(word, S("mx")))
        return add_mx(sc, rest);
    if (str_eq(word, S("configuration")))
        return read_configuration(sc);
    if (str_eq(word, S("mta-sts")))
        return add_mta_sts(sc, rest);
    if (str_eq(word, S("user")))
        return add_user(sc, rest);
    if (str_eq(word, S("as")) && !sc->started)
        return sim->as_root = take_word(&rest, "root");
    if (hop && !str_starts(str_trim(rest), S("was told")))
        return run_server(hop, sim, rest);
    start_daemon(sc);
    if (str_eq(word, S("start")))
        return true;
    if (str_eq(word, S("pass"))) {
        if (!conf_take_time(str_cut_word(&rest), &time))
            return false;
        (void)sim_run(sim, sim->now + time, NULL, NULL);
        return true;
    }
    if (str_eq(word, S("folder")))
        return run_folder(sc, str_cut_word(&rest), rest);
    if (str_eq(word, S("operator"))) {
        word = str_cut_word(&rest);
        return run_operator(sc, word, rest);
    }
    if (str_eq(word, S("within")))
        return conf_take_time(str_cut_word(&rest), &time) && want(sc, str_trim(rest), time);
    return run_fault(sc, word, rest) || want(sc, statement, 0) || run_client(sc, word, rest);
}

static bool
is_allowed(const struct scenario *sc, const struct arrival *a, size_t count)
{
    for (size_t i = 0; i < sc->expected_count; i++)
        if (strcmp(sc->expected[i].message, a->message) == 0 && strcmp(sc->expected[i].address, a->address) == 0)
            return count <= sc->expected[i].count;
    return count <= 1;
}

static void
end(struct scenario *sc)
{
    struct sim *sim = sim_of(sc);

    read_maildirs(sc);
    for (size_t i = 0; i < sc->arrival_count; i++) {
        const struct arrival *a = &sc->arrivals[i];
        size_t count = count_arrivals(sc, (enum arrival_kind)a->kind, str_from_cstr(a->message), str_from_cstr(a->address));
        if (!is_allowed(sc, a, count))
            fail(sc, "in the end %s had come %zu times to %s", a->message, count, a->address);
    }
    forget_maildirs(sc);
    struct process *daemon = sim_daemon(sim);
    sim->daemon_is_over = true;
    sim_stop_event(sim, &sim->start_again);
    if (!daemon)
        fail(sc, "in the end the daemon is not there");
    else
        process_signal(daemon, SIGTERM);
    if (!sim_run(sim, sim->now + 3 * MINUTE, run_nobody_left, NULL))
        fail(sc, "in the end the daemon does not stop");
}

static void
tell(struct scenario *sc)
{
    struct sim *sim = sim_of(sc);

    while (sc->file.len && !sim->failed) {
        struct str line = str_cut(&sc->file, '\n');
        sc->line++;
        line = str_trim(str_slice(line, 0, str_find(line, S("#"))));
        if (line.len && !run_statement(sc, line))
            fail(sc, "this is not understood: %.*s", STR_ARG(line));
    }
    if (!sim->failed)
        end(sc);
}

static bool
run_file(const char *path, struct str text, uint64_t seed, struct sim_options options)
{
    struct sim *sim = sim_new(seed, options);
    struct scenario *sc = mem_new(&sim->mem, struct scenario);

    sc->run.sim = sim;
    sc->run.calm = true;
    sc->run.plan.segment_bytes = 256 << 10;
    sc->path = path;
    sc->file = text;
    sim->ctx = sc;
    sim->log_line = keep_log;
    sim->home = host_new(sim, "home", "192.0.2.1");
    sim->config = str_from_cstr(usual_configuration);
    tell(sc);
    bool ok = !sim->failed;
    if (!ok)
        printf("not ok - %s\n", sim->failure);
    free(sc->own_log);
    mem_free(&sim->mem, sc, sizeof *sc);
    sim_free(sim);
    return ok;
}

int
scenario_main(const char *const *paths, size_t count, struct sim_options options)
{
    static char text[FILE_MAX];
    int failed = 0;

    for (size_t i = 0; i < count; i++) {
        FILE *file = fopen(paths[i], "r");
        size_t len = file ? fread(text, 1, sizeof text, file) : 0;
        if (file)
            fclose(file);
        struct str title = str_slice(str_new(text, len), 0, str_find_byte(str_new(text, len), '\n'));
        if (len == 0 || len == sizeof text || !str_take(&title, S("# "))) {
            printf("not ok - %s: cannot be read, or has no title\n", paths[i]);
            failed++;
            continue;
        }
        bool ok = true;
        for (uint64_t seed = 1; seed <= 3 && ok; seed++) /* in other orders of what happens at once */
            ok = run_file(paths[i], str_new(text, len), seed, options);
        failed += !ok;
        if (ok)
            printf("ok - %.*s\n", STR_ARG(title));
    }
    printf("scenarios: %zu passed, %d failed\n", count - (size_t)failed, failed);
    return failed;
}
