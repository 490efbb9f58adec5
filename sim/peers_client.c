/*
 * peers_client - who hands in mail: other MTAs, people of the house (relay from), programs of the machine (Unix socket).
 *
 * A client keeps its messages until they were accepted or refused for good, as an MTA does: whatever else happens, it comes
 * again later with a new attempt, under a new token. What it was told goes into the ledger at that moment.
 */
#include "sim/peer.h"
#include "sim/run.h"

#include "base/check.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { RCPTS_MAX = 5, CONTENT_SMALL = 1500, CONTENT_BIG = 300 << 10, TRIES = 40 };

/* What a session's client is like. */
#define DRAINS (9 * MINUTE) /* after a reload a session may go on for ten, and then is cut: so old it must have been */

enum manner { FINE, CUTS_LINE, HALF_CLOSES, STALLS, TALKS_NONSENSE, TYPES_SLOWLY, ABORTS, FLOODS, MANNERS };

struct letter { /* to be handed in, again and again */
    uint32_t original;
    char rcpt[RCPTS_MAX][32];   /* "ok-%u-0@good.test": with the token's place */
    size_t rcpt_count;
    bool null_sender, never;
    size_t size;
    uint64_t seed;              /* of its text */
    uint8_t way;                /* enum content_way */
    bool done;
};

struct client {
    struct run *run;
    struct client_plan *plan;
    struct host *host;
    struct prng draws;
    struct rt *rt;
    struct conn conn;
    enum manner manner;
    uint16_t port;
    bool esmtp, dsn, chunking, pipelining;
};

/* ---- what is sent ------------------------------------------------------------------------------------------------ */

static const char *const places[] = {
    "user0@local.test", "user1@local.test", "user2@local.test", "all@local.test",     "one@local.test",
    "m0@lmtp.test",     "m1@lmtp.test",     "b0@box.test",      "b1@box.test", /* so far those that are ours */
    "ok-%u-0@good.test", "ok-%u-1@good.test", "ok-%u-2@smart.test",
    "later-%u@good.test", "later-%u@smart.test", "no-%u@good.test", "no-%u@smart.test", "dot-%u@good.test",
    "x-%u@nowhere.test", "never-%u@good.test", "ok-%u-3@backup.test",
};
enum { PLACES = sizeof places / sizeof *places, PLACES_LOCAL = 9 };

static void
draw_letter(struct client *c, struct letter *letter)
{
    struct prng *p = &c->draws;

    *letter = (struct letter){ .seed = prng_u64(p), .null_sender = prng_below(p, 20) == 0, .never = prng_below(p, 20) == 0 };
    letter->size = prng_below(p, 1000) < c->run->plan.big ? prng_below(p, CONTENT_BIG) : prng_below(p, CONTENT_SMALL);
    if (!letter->null_sender && prng_below(p, 15) == 0) { /* one transaction, in which the first is refused */
        static const char *const all[] = { "no@lmtp.test", "m0@lmtp.test", "m1@lmtp.test" };
        for (size_t i = 0; i < sizeof all / sizeof *all; i++)
            (void)snprintf(letter->rcpt[letter->rcpt_count++], sizeof letter->rcpt[0], "%s", all[i]);
        return;
    }
    size_t count = 1 + (prng_below(p, 3) == 0 ? prng_below(p, RCPTS_MAX) : 0);
    for (size_t i = 0; i < count; i++) {
        const char *place = places[prng_below(p, c->plan->trusted ? PLACES : PLACES_LOCAL)];
        if (strncmp(place, "never", 5) == 0 && !c->run->plan.never)
            place = "ok-%u-4@good.test";
        (void)snprintf(letter->rcpt[letter->rcpt_count++], sizeof letter->rcpt[0], "%s", place);
    }
}

static void
take_letter(const struct script_letter *from, struct letter *letter)
{
    *letter = (struct letter){ .seed = from->size, .null_sender = from->null_sender, .size = from->size, .way = from->way };
    for (size_t i = 0; i < SCRIPT_RCPTS_MAX && from->rcpt[i]; i++)
        (void)snprintf(letter->rcpt[letter->rcpt_count++], sizeof letter->rcpt[0], "%s", from->rcpt[i]);
}

static void
put_text(struct text *t, struct prng *p, size_t size, bool eight_bit)
{
    enum { WORDS = 10 };
    static const struct str ascii[WORDS] = { STR("lorem"), STR("ipsum"), STR("."), STR(".."), STR("From "), STR("dolor"), STR("="),
                                             STR("sit amet,"), STR("\tconsectetur"), STR("-") };
    static const struct str utf8[WORDS] = { STR("gr\xc3\xbc\xc3\x9f"), STR("ipsum"), STR("."), STR("..\xe2\x82\xac"), STR("From "),
                                            STR("\xe6\x97\xa5\xe6\x9c\xac"), STR("=3D"), STR("sit amet, "), STR("\tna\xc3\xafve"), STR("-") };
    const struct str *words = eight_bit ? utf8 : ascii;
    size_t end = t->len + size;

    while (t->len < end && !t->full) {
        uint64_t draws = prng_u64(p); /* enough for a line: much of a client's time goes here */
        for (size_t left = draws % 9; left > 0; left--) {
            draws /= WORDS;
            text_put(t, words[draws % WORDS]);
            if (left > 1)
                text_put_byte(t, ' ');
        }
        text_put(t, S("\r\n"));
    }
}

/* 8-bit text, or a multipart of that and of octets that are no text. */
static void
put_mime(struct text *t, struct prng *p, size_t size)
{
    static const struct str plain = STR("Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n");

    text_put(t, S("MIME-Version: 1.0\r\n"));
    if (prng_below(p, 2)) {
        text_put(t, plain);
        put_text(t, p, size, true);
        return;
    }
    text_put(t, S("Content-Type: multipart/mixed; boundary=\"=_b\"\r\nContent-Transfer-Encoding: 8bit\r\n\r\n--=_b\r\n"));
    text_put(t, plain);
    put_text(t, p, size / 2, true);
    text_put(t, S("\r\n--=_b\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"));
    put_text(t, p, size / 2, prng_below(p, 2));
    text_put(t, S("\r\n--=_b--\r\n"));
}

static const char *
own_domain(const struct client *c)
{
    return c->plan->user ? c->plan->user->domain : "back.test";
}

static struct str
write_content(struct client *c, const struct letter *letter, const struct mail *m)
{
    struct mem *mem = &c->run->sim->mem;
    struct prng p;
    size_t cap = letter->size + 2000;
    char *scratch = mem_alloc(mem, cap);
    struct text t = text_init(scratch, cap);

    char nobody[40];

    prng_seed(&p, letter->seed);
    (void)snprintf(nobody, sizeof nobody, "nobody@%s", own_domain(c));
    text_putf(&t, "From: %s <%s>\r\nDate: Thu, 1 Jan 2026 00:00:00 +0000\r\nMessage-ID: <m%u@sim.test>\r\n"
                  "X-Sim-Token: %u\r\nSubject: letter %u\r\n",
              c->plan->name, m->sender[0] ? m->sender : nobody, m->token, m->token, m->original);
    if (m->mime) {
        put_mime(&t, &p, letter->size);
    } else {
        text_put(&t, S("\r\n"));
        put_text(&t, &p, letter->size, false);
    }
    CHECK(!t.full);
    char *own = mem_alloc(mem, t.len);
    memcpy(own, t.ptr, t.len);
    struct str content = str_new(own, t.len);
    mem_free(mem, scratch, cap);
    return content;
}

/* ---- the dialog -------------------------------------------------------------------------------------------------- */

static bool
ask(struct client *c, unsigned *out_code, const char *format, ...) __attribute__((format(printf, 3, 4)));

static bool
ask(struct client *c, unsigned *out_code, const char *format, ...)
{
    char text[512];
    va_list args;

    va_start(args, format);
    int n = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return conn_put(&c->conn, str_new(text, (size_t)n)) && conn_reply(&c->conn, out_code, NULL);
}

static bool
put_stuffed(struct client *c, struct str content)
{
    char block[4096];
    struct text t = text_init(block, sizeof block);
    bool line_start = true;

    while (content.len > 0) {
        if (line_start && content.ptr[0] == '.')
            text_put_byte(&t, '.');
        size_t room = sizeof block - t.len > 3 ? sizeof block - 2 - t.len : 1;
        struct str part = str_slice(content, 0, str_find_byte(content, '\n') + 1);
        part = str_slice(part, 0, room);
        text_put(&t, part);
        content = str_from(content, part.len);
        line_start = part.ptr[part.len - 1] == '\n';
        if (t.len + 2 >= sizeof block || content.len == 0) {
            if (!conn_put(&c->conn, text_str(&t)))
                return false;
            t.len = 0;
        }
    }
    return true;
}

/* The code of the final reply; 0: none came. */
static unsigned
send_data(struct client *c, struct mail *m)
{
    unsigned code = 0;

    if (!ask(c, &code, "DATA\r\n") || code != 354) {
        m->state = MAIL_CUT;
        return code == 354 ? 0 : code;
    }
    m->state = MAIL_CUT;
    if (c->manner == ABORTS) {
        struct str half = str_slice(m->own_content, 0, m->own_content.len / 2);
        if (put_stuffed(c, half))
            conn_reset(&c->conn);
        return 0;
    }
    if (!put_stuffed(c, m->own_content))
        return 0;
    if (c->conn.budget < 5 && c->conn.budget > 0) /* cut within the end: whether it was one is for the other side to say */
        c->conn.budget = 0;
    if (c->conn.budget < 3) {
        (void)conn_put(&c->conn, S(".\r\n"));
        return 0;
    }
    m->state = MAIL_DOUBTFUL;
    if (!conn_put(&c->conn, S(".\r\n")))
        return 0;
    return conn_reply(&c->conn, &code, NULL) ? code : 0;
}

static unsigned
send_chunks(struct client *c, struct mail *m)
{
    struct sim *sim = c->run->sim;
    struct str rest = m->own_content;
    unsigned code = 0;

    m->state = MAIL_CUT;
    while (rest.len > 0 || m->own_content.len == 0) {
        struct str part = str_slice(rest, 0, dice_chance(sim, 500) ? rest.len : 1 + (size_t)dice_below(sim, rest.len));
        rest = str_from(rest, part.len);
        if (c->manner == ABORTS && rest.len == 0) {
            conn_reset(&c->conn);
            return 0;
        }
        if (rest.len == 0) {
            char head[64];
            int n = snprintf(head, sizeof head, "BDAT %zu LAST\r\n", part.len);
            if (c->conn.budget >= (size_t)n + part.len)
                m->state = MAIL_DOUBTFUL;
        }
        if (!conn_putf(&c->conn, "BDAT %zu%s\r\n", part.len, rest.len ? "" : " LAST") || !conn_put(&c->conn, part) ||
            !conn_reply(&c->conn, &code, NULL))
            return 0;
        if (code != 250 && rest.len > 0)
            return code;
        if (rest.len == 0)
            break;
    }
    return code;
}

/* What the code of the final reply means, for the ledger. */
static void
conclude(struct client *c, struct letter *letter, struct mail *m, unsigned code)
{
    struct sim *sim = c->run->sim;

    if (code / 100 == 2 && m->state == MAIL_DOUBTFUL) {
        m->state = MAIL_ACCEPTED;
        m->accepted_at = sim->now;
        letter->done = true;
    } else if (code / 100 == 4 && m->state == MAIL_DOUBTFUL) {
        m->state = MAIL_DEFERRED;
    } else if (code / 100 == 5) {
        m->state = MAIL_REFUSED;
        letter->done = true;
        if (!c->conn.broken && c->manner == FINE)
            sim_fail(sim, "message %u was refused with %u though nothing is wrong with it", m->token, code);
    }
    sim_trace(sim, process_of(c->rt), "message %u (letter %u) to %zu: state %u, code %u", m->token, m->original,
              m->target_count, m->state, code);
}

static unsigned
run_transaction(struct client *c, struct letter *letter, struct mail *m)
{
    struct sim *sim = c->run->sim;
    unsigned code = 0;
    size_t accepted = 0;

    if (letter->null_sender)
        m->null_sender = true;
    else
        (void)snprintf(m->sender, sizeof m->sender, "s-%u@%s", m->token, own_domain(c));
    m->state = MAIL_CUT;
    m->begun_at = sim->now;
    m->mime = letter->seed % 4 == 1;
    m->own_content = write_content(c, letter, m);
    if (!ask(c, &code, "MAIL FROM:<%s>%s%s\r\n", m->sender, c->dsn && dice_chance(sim, 300) ? " RET=HDRS" : "",
             m->mime ? " BODY=8BITMIME" : "") || code != 250)
        return code;
    for (size_t i = 0; i < letter->rcpt_count; i++) {
        char address[64];
        struct text t = text_init(address, sizeof address - 1);
        struct str place = str_from_cstr(letter->rcpt[i]), rest = place;
        struct str before = str_cut(&rest, '%');
        text_put(&t, before);
        if (!str_is_absent(rest)) {
            text_put_u64(&t, m->token);
            text_put(&t, str_from(rest, 1));
        }
        if (!ask(c, &code, "RCPT TO:<%s>%s\r\n", text_cstr(&t), letter->never && c->dsn ? " NOTIFY=NEVER" : ""))
            return 0;
        if (code / 100 == 2) {
            plan_targets(m, text_str(&t), m->null_sender || (letter->never && c->dsn));
            accepted++;
        } else if (code / 100 == 5 && c->manner == FINE && !str_starts(place, S("nobody@"))) {
            sim_fail(sim, "%s was refused with %u though it is there", text_cstr(&t), code);
        }
    }
    if (accepted == 0)
        return code;
    bool chunks = c->chunking && (letter->way == CONTENT_DRAWN ? dice_chance(sim, 400) : letter->way == CONTENT_CHUNKS);
    return chunks ? send_chunks(c, m) : send_data(c, m);
}

static void
take_extension(void *ctx, struct str word)
{
    struct client *c = ctx;

    c->dsn |= str_starts_nocase(word, S("DSN"));
    c->chunking |= str_starts_nocase(word, S("CHUNKING"));
    c->pipelining |= str_starts_nocase(word, S("PIPELINING"));
}

static struct user_session
user_session(struct client *c)
{
    return (struct user_session){ .run = c->run, .conn = &c->conn, .user = c->plan->user, .tls_first = c->port == 465,
                                  .plain = c->plan->script != NULL, .extension = take_extension, .ctx = c,
                                  .sound = c->manner != TALKS_NONSENSE && c->manner != FLOODS };
}

static bool
greet(struct client *c)
{
    struct str line;
    unsigned code = 0;

    if (c->manner == TALKS_NONSENSE)
        (void)conn_put(&c->conn, S("GET / HTTP/1.1\r\nHost: mail\r\n\r\n\xff\xfe\r\n"));
    if (c->manner == FLOODS)
        for (int i = 0; i < 50; i++)
            (void)conn_put(&c->conn, S("NOOP\r\nRSET\r\nVRFY x\r\nHELP\r\nFOO\r\n"));
    if (!conn_reply(&c->conn, &code, NULL) || code != 220)
        return false;
    if (c->plan->user) {
        struct user_session s = user_session(c);
        return user_enters(&s);
    }
    if (!conn_put(&c->conn, S("EHLO client.test\r\n")))
        return false;
    do {
        if (!conn_line(&c->conn, &line) || line.len < 4)
            return false;
        code = (unsigned)(line.ptr[0] - '0');
        take_extension(c, str_from(line, 4));
    } while (line.ptr[3] == '-');
    return code == 2;
}

static void
choose_manner(struct client *c)
{
    struct sim *sim = c->run->sim;

    c->manner = FINE;
    if (!c->run->calm && dice_chance(sim, c->run->plan.hostility))
        c->manner = (enum manner)dice_below(sim, MANNERS);
    if (c->manner == CUTS_LINE)
        c->conn.budget = dice_below(sim, c->plan->user && dice_chance(sim, 500) ? 300 : 3000); /* a login is short */
    c->conn.budget_resets = dice_chance(sim, 500);
    c->conn.slow = c->manner == TYPES_SLOWLY;
}

/* As many of the letters as go. */
static void
run_session(struct client *c, struct letter *letters, size_t count)
{
    struct sim *sim = c->run->sim;
    struct address to = sim->home->address;
    struct stream *stream;
    unsigned code;

    c->port = to.port = !c->plan->user ? 25 : c->plan->script || dice_chance(sim, 500) ? 465 : 587;
    if (c->plan->local) {
        to = (struct address){ .family = ADDRESS_UNIX };
        memcpy(to.path, SUBMISSION_SOCKET, sizeof SUBMISSION_SOCKET);
    }
    if (err_is(stream_connect(c->rt, &to, NULL, within(c->rt, 2 * MINUTE), &stream)))
        return;
    conn_init(&c->conn, c->rt, stream);
    c->dsn = c->chunking = c->pipelining = false;
    choose_manner(c);
    int64_t began = sim->now;
    bool going = greet(c);
    if (c->manner == STALLS)
        (void)rt_sleep(c->rt, within(c->rt, dice_between(sim, SECOND, 7 * MINUTE)));
    for (size_t i = 0; i < count && going; i++) {
        if (letters[i].done)
            continue;
        if (c->plan->user && !c->plan->script) {
            struct user_session s = user_session(c);
            going = user_tries_another(&s);
            if (!going)
                break;
        }
        struct mail *m = ledger_new(&c->run->ledger, letters[i].original);
        letters[i].original = m->original;
        code = run_transaction(c, &letters[i], m);
        conclude(c, &letters[i], m, code);
        bool outlived = sim->faults.injected[FAULT_RELOAD] > 0 && sim->now - began >= DRAINS;
        if ((code == 0 || code == 421) && c->manner == FINE && faults_were_gentle(sim) && !outlived)
            sim_fail(sim, "%s was cut off in the middle of message %u, and nothing had broken", c->plan->name, m->token);
        going = !c->conn.broken && code != 0 && code != 421;
        if (going && code / 100 != 2)
            going = ask(c, &code, "RSET\r\n");
        if (going && c->manner == HALF_CLOSES) {
            stream_shut_down(c->conn.stream);
            going = false;
        }
    }
    if (going)
        (void)ask(c, &code, "QUIT\r\n");
    conn_close(&c->conn);
}

static bool
all_done(const struct letter *letters, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (!letters[i].done)
            return false;
    return true;
}

static int
client_main(struct rt *rt, void *arg)
{
    struct client *c = arg;
    struct run *run = c->run;
    size_t count = c->plan->mails, each = c->plan->messages_each;
    struct letter *letters = mem_alloc(rt_mem(rt), (count + 1) * sizeof *letters);

    c->rt = rt;
    for (size_t i = 0; i < count; i++)
        if (c->plan->script)
            take_letter(&c->plan->script[i], &letters[i]);
        else
            draw_letter(c, &letters[i]);
    run->clients_busy++;
    for (size_t from = 0; from < count; from += each) {
        size_t n = count - from < each ? count - from : each;
        uint64_t share = (uint64_t)(run->plan.active * (int64_t)each / (int64_t)count);
        int64_t wait = c->plan->script ? c->plan->starts : (int64_t)prng_below(&c->draws, share + 1);
        (void)rt_sleep(rt, within(rt, wait));
        for (int tries = 0; tries < TRIES && !all_done(letters + from, n); tries++) {
            if (tries)
                (void)rt_sleep(rt, within(rt, dice_between(run->sim, 2 * SECOND, run->calm ? 20 * SECOND : MINUTE)));
            run_session(c, letters + from, n);
        }
        if (!all_done(letters + from, n) && run->calm)
            sim_fail(run->sim, "%s could not hand in its mail in %d tries", c->plan->name, TRIES);
    }
    run->clients_busy--;
    run->busy_until = run->sim->now;
    return 0;
}

void
client_start(struct run *run, size_t index)
{
    struct client *c = &run->clients[index];
    struct client_plan *plan = &run->plan.clients[index];

    *c = (struct client){ .run = run, .plan = plan, .host = host_new(run->sim, plan->name, plan->ip) };
    prng_seed(&c->draws, prng_u64(&run->draws));
    process_start(run->sim, plan->name, c->host, client_main, c);
}

struct client *
client_table_new(struct sim *sim)
{
    return mem_alloc(&sim->mem, CLIENTS_MAX * sizeof(struct client));
}

void
client_table_free(struct run *run)
{
    mem_free(&run->sim->mem, run->clients, CLIENTS_MAX * sizeof(struct client));
}
