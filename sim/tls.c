/*
 * tls - the functions of net/crypto.h, net/key.h and net/tls.h, without secrets: what is "encrypted" goes in clear, a
 * handshake is nothing but its end, and a key is its name. So bytes, sizes and times depend on nothing but the seed.
 */
#include "base/check.h"
#include "net/tls.h"
#include "net/wire_fake.h"

#include <string.h>

struct crypto {
    struct rt *rt;
};

struct key {
    struct crypto *crypto;
    struct key_name name;
};

struct tls_server {
    struct crypto *crypto;
    size_t certificates;
};

struct tls {
    char none; /* nothing is known of it */
};

/* ---- crypto ------------------------------------------------------------------------------------------------------ */

struct err
crypto_open(struct rt *rt, struct crypto **out)
{
    *out = mem_new(rt_mem(rt), struct crypto);
    (*out)->rt = rt;
    return OK;
}

void
crypto_close(struct crypto *c)
{
    mem_free(rt_mem(c->rt), c, sizeof *c);
}

struct rt *
crypto_rt(const struct crypto *c)
{
    return c->rt;
}

void
crypto_random(struct crypto *c, void *memory, size_t len)
{
    for (size_t i = 0; i < len; i++)
        ((unsigned char *)memory)[i] = (unsigned char)rt_random(c->rt);
}

size_t
crypto_memory(void)
{
    return 0;
}

/* ---- keys -------------------------------------------------------------------------------------------------------- */

/* "certificate of NAME\n" and "key of NAME\n", each in a block as of a PEM file. */
static bool
named(struct str pem, struct str before, struct key_name *out)
{
    size_t at = str_find(pem, before);

    memset(out, 0, sizeof *out);
    if (at == pem.len)
        return false;
    struct str name = str_from(pem, at + before.len);
    name = str_slice(name, 0, str_find_byte(name, '\n'));
    name = str_slice(name, 0, sizeof out->bytes);
    memcpy(out->bytes, name.ptr, name.len);
    return name.len > 0;
}

struct err
key_parse(struct crypto *crypto, struct str pem, struct key **out)
{
    struct key_name name;

    if (!named(pem, S("key of "), &name))
        return ERR(ERR_SYNTAX, "read a private key");
    *out = mem_new(rt_mem(crypto->rt), struct key);
    **out = (struct key){ crypto, name };
    return OK;
}

void
key_free(struct key *k)
{
    mem_free(rt_mem(k->crypto->rt), k, sizeof *k);
}

struct key_name
key_name(const struct key *k)
{
    return k->name;
}

bool
key_table_sign(void *table, const struct key_name *name, enum key_scheme scheme, struct str covers,
               unsigned char *signature, size_t cap, size_t *out_len)
{
    (void)table;
    (void)name;
    (void)scheme;
    (void)covers;
    (void)signature;
    (void)cap;
    (void)out_len;
    return false;
}

struct err
key_look_at_certificate(struct crypto *crypto, struct str pem, struct key_certificate *out)
{
    *out = (struct key_certificate){ .until = rt_wall(crypto->rt) + 100 * DAY, .self_signed = true };
    return named(pem, S("certificate of "), &out->key) ? OK : ERR(ERR_SYNTAX, "read a certificate");
}

bool
key_certificate_is_for(struct crypto *crypto, struct str pem, struct str hostname)
{
    struct key_name name;

    (void)crypto;
    return named(pem, S("certificate of "), &name) && str_starts(str_new(name.bytes, sizeof name.bytes), hostname);
}

struct err
key_make_self_signed(struct crypto *crypto, struct str hostname, struct arena *arena, struct str *out_certificate,
                     struct str *out_key)
{
    (void)crypto;
    static const char block[] = "-----BEGIN %s-----\n%s of %.*s\n-----END %s-----\n";

    *out_certificate = arena_printf(arena, block, "CERTIFICATE", "certificate", STR_ARG(hostname), "CERTIFICATE");
    *out_key = arena_printf(arena, block, "PRIVATE KEY", "key", STR_ARG(hostname), "PRIVATE KEY");
    return OK;
}

/* ---- a server ---------------------------------------------------------------------------------------------------- */

struct tls_server *
tls_server_new(struct crypto *crypto, struct str pool, const struct key_signer *signer)
{
    struct tls_server *s = mem_new(rt_mem(crypto->rt), struct tls_server);

    (void)pool;
    (void)signer;
    s->crypto = crypto;
    return s;
}

void
tls_server_forget(struct tls_server *s)
{
    (void)s;
}

void
tls_server_free(struct tls_server *s)
{
    mem_free(rt_mem(s->crypto->rt), s, sizeof *s);
}

struct err
tls_server_set_certificates(struct tls_server *s, const struct str *pems, size_t count, size_t *out_bad)
{
    struct key_name name;

    for (size_t i = 0; i < count; i++)
        if (!named(pems[i], S("certificate of "), &name)) {
            *out_bad = i;
            return ERR(ERR_SYNTAX, "read a certificate");
        }
    s->certificates = count;
    return OK;
}

bool
tls_certificate_can_be_shown(struct crypto *crypto, struct str pem)
{
    struct key_name name;

    (void)crypto;
    return named(pem, S("certificate of "), &name);
}

bool
tls_server_has_certificate(const struct tls_server *s)
{
    return s->certificates > 0;
}

void
tls_server_set_tickets(struct tls_server *s, const struct tls_ticket_key *keys, size_t count)
{
    (void)s;
    (void)keys;
    CHECK(count <= TLS_TICKET_KEYS);
}

struct err
tls_server_ask_clients(struct tls_server *s, enum tls_ask ask, struct str authorities)
{
    (void)s;
    (void)ask;
    (void)authorities;
    return OK;
}

/* ---- a connection ------------------------------------------------------------------------------------------------ */

static struct err
cover(struct rt *rt, struct wire *wire, const struct tls **out)
{
    static const struct tls tls = { 0 };

    TRY(fiber_turn(rt));
    wire_fake_cover(wire);
    *out = &tls;
    return OK;
}

struct err
tls_accept(struct tls_server *server, struct wire *wire, int64_t until, const struct tls **out, struct text *reason)
{
    (void)until;
    (void)reason;
    if (!tls_server_has_certificate(server))
        return ERR(ERR_PROTOCOL, "shake hands without a certificate");
    return cover(server->crypto->rt, wire, out);
}

/* ---- the client's side ------------------------------------------------------------------------------------------- */

struct tls_trust {
    struct rt *rt;
};

struct tls_trust *
tls_trust_new(struct crypto *crypto, struct str pem, size_t *out_count)
{
    struct tls_trust *trust = mem_new(rt_mem(crypto->rt), struct tls_trust);

    *trust = (struct tls_trust){ crypto->rt };
    *out_count = pem.len > 0;
    return trust;
}

void
tls_trust_free(struct tls_trust *trust)
{
    mem_free(rt_mem(trust->rt), trust, sizeof *trust);
}

struct tls_client {
    struct crypto *crypto;
};

struct tls_client *
tls_client_new(struct crypto *crypto)
{
    struct tls_client *c = mem_new(rt_mem(crypto->rt), struct tls_client);

    c->crypto = crypto;
    return c;
}

void
tls_client_free(struct tls_client *c)
{
    mem_free(rt_mem(c->crypto->rt), c, sizeof *c);
}

struct err
tls_connect(struct tls_client *client, struct wire *wire, const struct tls_expected *expected, int64_t until,
            const struct tls **out, enum tls_result *out_result, struct text *reason)
{
    (void)expected;
    (void)until;
    (void)reason;
    *out_result = TLS_RESULT_OK;
    return cover(client->crypto->rt, wire, out);
}

struct tls_facts
tls_facts(const struct tls *t)
{
    (void)t;
    return (struct tls_facts){ .protocol = S("none"), .cipher = S("none") };
}

/* Nothing here to bind to. */
bool
tls_exporter(const struct tls *t, unsigned char out[TLS_EXPORTER])
{
    (void)t, (void)out;
    return false;
}

bool
tls_server_end_point(const struct tls *t, unsigned char out[TLS_END_POINT_MAX], size_t *out_len)
{
    (void)t, (void)out, (void)out_len;
    return false;
}

bool
tls_certificate(const struct tls *t, struct arena *arena, struct tls_certificate *out)
{
    (void)t, (void)arena, (void)out;
    return false;
}
