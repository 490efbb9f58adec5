/*
 * tls_measure - what a handshake costs the server, and how long a signature by another process holds it up.
 *
 *     tls_measure [HANDSHAKES]
 *
 * Three processes: one with the keys, a server, and a client that makes one full handshake after the other. Each line is
 * one kind of key and version; "here" has the keys in the server itself, for comparison.
 */
#include "base/check.h"
#include "net/signing.h"
#include "net/tls.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MANY_MAX = 100000 };

struct measured {
    struct str certificate, key;
    struct handle server, client, asker, answerer;
    size_t many;
    bool here;
    const char *what;
    int64_t held[MANY_MAX];
    size_t held_count;
    struct key_signer signer;
};

static int64_t
clock_ns(clockid_t id)
{
    struct timespec t;

    clock_gettime(id, &t);
    return t.tv_sec * SECOND + t.tv_nsec;
}

static bool
timed_sign(void *ctx, const struct key_name *name, enum key_scheme scheme, struct str covers, unsigned char *signature,
           size_t cap, size_t *out_len)
{
    struct measured *m = ctx;
    int64_t began = clock_ns(CLOCK_MONOTONIC);
    bool fine = m->signer.sign(m->signer.ctx, name, scheme, covers, signature, cap, out_len);

    m->held[m->held_count++ % MANY_MAX] = clock_ns(CLOCK_MONOTONIC) - began;
    return fine;
}

/* ---- the keys' process ------------------------------------------------------------------------------------------- */

struct answerer {
    struct key_table table;
    struct event over;
    struct rt *rt;
    bool closed;
};

static bool
answer(void *ctx, struct link *link, struct link_message *m)
{
    struct answerer *a = ctx;
    unsigned char memory[HOLD_BODY_MAX];
    struct str said;

    if (!signing_answer(&a->table, m->body, memory, sizeof memory, &said))
        return false;
    link_reply(link, m->call, m->type, said);
    return true;
}

static void
closed(void *ctx, struct link *link, struct err why)
{
    struct answerer *a = ctx;

    (void)link;
    (void)why;
    a->closed = true;
    event_wake(a->rt, &a->over);
}

static void
run_keys(struct rt *rt, void *arg)
{
    struct measured *m = arg;
    struct crypto *crypto;
    struct key *key;
    struct answerer a = { .rt = rt };
    struct link *link;
    struct link_settings settings = { .name = S("keys"), .ctx = &a, .handle = answer, .closed = closed };

    CHECK(!err_is(crypto_open(rt, &crypto)) && !err_is(key_parse(crypto, m->key, &key)));
    a.table = (struct key_table){ &key, 1 };
    event_init(&a.over);
    CHECK(!err_is(link_open(rt, m->answerer, &settings, &link)));
    while (!a.closed)
        CHECK(!err_is(event_wait(rt, &a.over, FOREVER)));
    link_free(link);
    key_free(key);
    crypto_close(crypto);
}

/* ---- client and server ------------------------------------------------------------------------------------------- */

/* One after the other over one stream: after each goodbye the next handshake begins, over what is in clear again only
 * here. */
static void
run_client(struct rt *rt, void *arg)
{
    struct measured *m = arg;
    struct crypto *crypto;
    struct stream *stream;
    struct tls_expected expected = { .server_name = S("mx.example") };
    const struct tls *tls;
    enum tls_result result;
    char memory[TLS_REASON], byte;
    struct text reason = text_init(memory, sizeof memory);
    size_t len;

    CHECK(!err_is(crypto_open(rt, &crypto)) && !err_is(stream_from_handle(rt, m->client, &stream)));
    struct tls_client *client = tls_client_new(crypto);
    for (size_t i = 0; i < m->many; i++) {
        struct wire wire = wire_in_clear(stream);
        CHECK(!err_is(tls_connect(client, &wire, &expected, FOREVER, &tls, &result, &reason)));
        wire.ops->shut_down(wire.cover);
        CHECK(!err_is(wire_read(&wire, &byte, 1, FOREVER, &len)) && len == 0);
        wire.ops->free(wire.cover);
    }
    stream_close(stream);
    tls_client_free(client);
    crypto_close(crypto);
}

static int
by_size(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return x < y ? -1 : x > y;
}

static void
run_server(struct rt *rt, void *arg)
{
    struct measured *m = arg;
    struct crypto *crypto;
    struct stream *stream;
    const struct tls *tls;
    struct key *key = NULL;
    struct signing_asker asker = { 0 };
    char memory[TLS_REASON], byte;
    struct text reason = text_init(memory, sizeof memory);
    size_t len, bad;

    CHECK(!err_is(crypto_open(rt, &crypto)) && !err_is(stream_from_handle(rt, m->server, &stream)));
    if (m->here)
        CHECK(!err_is(key_parse(crypto, m->key, &key)));
    else
        CHECK(!err_is(hold_open(rt, m->asker, &asker.hold)));
    struct key_table table = { &key, 1 };
    m->signer = m->here ? (struct key_signer){ key_table_sign, &table } : (struct key_signer){ signing_ask, &asker };
    struct key_signer timed = { timed_sign, m };
    struct tls_server *server = tls_server_new(crypto, S("mx"), &timed);
    CHECK(!err_is(tls_server_set_certificates(server, &m->certificate, 1, &bad)));
    int64_t began = clock_ns(CLOCK_MONOTONIC), cpu = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
    for (size_t i = 0; i < m->many; i++) {
        struct wire wire = wire_in_clear(stream);
        struct err e = tls_accept(server, &wire, FOREVER, &tls, &reason);
        if (err_is(e))
            fprintf(stderr, "%.*s\n", STR_ARG(text_str(&reason)));
        CHECK(!err_is(e));
        CHECK(!err_is(wire_read(&wire, &byte, 1, FOREVER, &len)) && len == 0);
        wire.ops->shut_down(wire.cover);
        wire.ops->free(wire.cover);
    }
    began = clock_ns(CLOCK_MONOTONIC) - began;
    cpu = clock_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    qsort(m->held, m->held_count, sizeof *m->held, by_size);
    printf("%-22s %-6s %6.0f/s one at a time, server CPU %4.0f us each; held up by the signature: median %4.0f us, "
           "99%% %4.0f us, longest %5.0f us\n",
           m->what, m->here ? "here" : "remote", (double)m->many * 1e9 / (double)began,
           (double)cpu / 1e3 / (double)m->many, (double)m->held[m->held_count / 2] / 1e3,
           (double)m->held[m->held_count * 99 / 100] / 1e3, (double)m->held[m->held_count - 1] / 1e3);
    fflush(stdout);
    tls_server_free(server);
    if (key)
        key_free(key);
    if (asker.hold)
        hold_free(asker.hold);
    stream_close(stream);
    crypto_close(crypto);
}

static void
make_sockets(struct rt *rt, void *arg)
{
    struct measured *m = arg;
    struct handle ends[2];

    CHECK(!err_is(stream_pair(rt, ends)));
    m->server = ends[0], m->client = ends[1];
    CHECK(!err_is(stream_pair(rt, ends)));
    m->asker = ends[0], m->answerer = ends[1];
}

static pid_t
start(struct measured *m, void (*run)(struct rt *, void *), struct handle a, struct handle b)
{
    int all[] = { m->server.number, m->client.number, m->asker.number, m->answerer.number };
    pid_t child = fork();

    CHECK(child >= 0);
    if (child > 0)
        return child;
    for (size_t i = 0; i < 4; i++)
        if (all[i] != a.number && all[i] != b.number)
            close(all[i]);
    _exit(err_is(rt_run(run, m)));
}

static void
measure(struct measured *m)
{
    CHECK(!err_is(rt_run(make_sockets, m)));
    pid_t children[] = { start(m, run_keys, m->answerer, m->answerer), start(m, run_client, m->client, m->client),
                         start(m, run_server, m->server, m->asker) };
    close(m->server.number);
    close(m->client.number);
    close(m->asker.number);
    close(m->answerer.number);
    for (int i = 0; i < 3; i++) {
        int status;
        CHECK(waitpid(children[i], &status, 0) > 0 && status == 0);
    }
}

static char *
read_output(const char *command)
{
    static char memory[4][16384];
    static int next;
    char *to = memory[next++];
    FILE *f = popen(command, "r");

    CHECK(f);
    to[fread(to, 1, sizeof memory[0] - 1, f)] = '\0';
    CHECK(pclose(f) == 0);
    return to;
}

int
main(int argc, char **argv)
{
    static struct measured m;
    const char *ec = read_output("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=mx.example "
                                 "-days 30 -keyout - -out - 2>/dev/null");
    const char *rsa = read_output("openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=mx.example -days 30 -keyout - -out - "
                                  "2>/dev/null");

    for (int kind = 0; kind < 2; kind++)
        for (int here = 1; here >= 0; here--) {
            memset(&m, 0, sizeof m);
            m.certificate = m.key = str_from_cstr(kind ? rsa : ec);
            m.many = argc > 1 ? (size_t)atol(argv[1]) : 2000;
            CHECK(m.many <= MANY_MAX);
            m.here = here;
            m.what = kind ? "RSA of 2048 bits" : "EC on P-256";
            measure(&m);
        }
    return 0;
}
