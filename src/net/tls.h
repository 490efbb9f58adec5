/*
 * tls - TLS 1.2 and 1.3 over a wire (net/wire.h), for fibers, both sides: after the handshake the wire reads, writes and
 * ends as before, encrypted.
 *
 * Private keys are not here: signatures are asked of a key_signer (net/key.h), who is called from inside a handshake.
 * No renegotiation, no compression, no early data, no static RSA (it would need the key for more than signatures); what a
 * session was is sealed into the client's ticket with keys that are given from outside, none is kept here.
 *
 * The end: only a close_notify is the end of the stream (*out_len 0). A connection that ends without one was cut, by the
 * peer or by somebody between: ERR_RESET.
 *
 * In the simulator sim/tls.c stands in for this: the same calls and nothing hidden.
 */
#ifndef NET_TLS_H
#define NET_TLS_H

#include "net/key.h"
#include "net/tls_policy.h"
#include "net/wire.h"

struct tls;
struct tls_server; /* what we show to clients: shared by all connections of a listener */
struct tls_client; /* how we meet servers */

enum { TLS_REASON = 160, TLS_EXPORTER = 32, TLS_END_POINT_MAX = 64, TLS_TICKET_KEYS = 4, TLS_CLIENT_NAME_MAX = 255 };

/* ---- the server's side ---- */

/* pool: resumption works between servers of one name, which share ticket keys and ask clients for the same. The signer
 * must outlive the server. */
struct tls_server *tls_server_new(struct crypto *, struct str pool, const struct key_signer *);
void tls_server_free(struct tls_server *); /* after its connections */
/* Clients may say passwords: what they said is not left in OpenSSL's buffers once it was read. Before the first connection. */
void tls_server_forget(struct tls_server *);
/*
 * PEM texts: a certificate and behind it those that lead to its issuer. They replace the ones before; connections go on
 * with what they have. A client gets those that are for the name it asks for (SNI), else the first of each kind (EC, RSA);
 * which kind is the client's choice. On an error nothing changes, and *out_bad says which one it was.
 */
struct err tls_server_set_certificates(struct tls_server *, const struct str *pems, size_t count, size_t *out_bad);
enum { TLS_CHAIN_MAX = 16 }; /* of those behind it as many are read and shown */
/* Whether a server could show it: what can be read may be weaker than OpenSSL allows, or its chain (SHA-1, RSA of 1024 bits). */
bool tls_certificate_can_be_shown(struct crypto *, struct str pem);
bool tls_server_has_certificate(const struct tls_server *);
/* Seals with the first and opens with all of them. None: no resumption. */
struct tls_ticket_key {
    unsigned char name[16], cipher[32], mac[32];
};
void tls_server_set_tickets(struct tls_server *, const struct tls_ticket_key *, size_t count);
/*
 * Clients are asked for a certificate, which one of the authorities (a PEM text) must vouch for; to be said before the first
 * connection. ASK: whoever shows none, or one that is not good, has no name (struct tls_facts); REQUIRE: no handshake
 * either. An error: no authority could be read; then none vouches for anybody.
 */
enum tls_ask { TLS_ASK_NOT, TLS_ASK, TLS_ASK_REQUIRE };
struct err tls_server_ask_clients(struct tls_server *, enum tls_ask, struct str authorities);

/* ---- the client's side ---- */

/* Whom others may be vouched for by: PEM texts of certificates, one behind the other. *out_count: how many were read. */
struct tls_trust *tls_trust_new(struct crypto *, struct str pem, size_t *out_count);
void tls_trust_free(struct tls_trust *); /* after the clients' connections that use it */

struct tls_client *tls_client_new(struct crypto *);
void tls_client_free(struct tls_client *); /* after its connections */

struct tls_expected {
    struct str server_name;          /* SNI, unless TLS_DANE says another; absent, or an address: none */
    const struct tls_policy *policy; /* NULL: any certificate will do, against whoever only listens (RFC 7435) */
    /* What was agreed on under this name may be taken up again, without a certificate; absent: neither that nor kept. So
     * the policy belongs into it. Bounded: TLS_SESSIONS_KEPT in all. */
    struct str resume;
};
enum { TLS_SESSIONS_KEPT = 200, TLS_RESUME_MAX = 400 };

/* ---- a connection ---- */

/*
 * The handshake. Not OK: the wire is only to be closed, and `reason` says why in OpenSSL's words, for the log. *out is the
 * wire's, and good until it is closed.
 */
struct err tls_accept(struct tls_server *, struct wire *, int64_t until, const struct tls **out, struct text *reason);
/* *out_result: what the policy's checks came to. Where they do not hold the handshake fails, or goes on with `reason` set all
 * the same: if the policy is only being tested, or if none of its TLSA records can be used (TLS_RESULT_TLSA_INVALID). */
struct err tls_connect(struct tls_client *, struct wire *, const struct tls_expected *, int64_t until,
                       const struct tls **out, enum tls_result *out_result, struct text *reason);

/* What the handshake came to. Strings live as long as the tls. */
struct tls_facts {
    struct str protocol;    /* "TLSv1.3" */
    struct str cipher;      /* "TLS_AES_256_GCM_SHA384" */
    struct str server_name; /* that the client asked for; absent: none */
    struct str client_name; /* whom the client's certificate is for: its first mail address, else its common name; absent:
                               it has shown none, or nobody whom we trust vouches for it */
    bool resumed;
};
struct tls_facts tls_facts(const struct tls *);
/* The certificate that a server showed, for people; not of a resumed session in every case. False: there is none. */
struct tls_certificate {
    struct str pem;
    struct str names;  /* "mx.example.org, *.example.net": what it is for; "..." stands for what is too much */
    struct str issuer; /* "Some Authority" */
};
enum { TLS_CERTIFICATE_NAMES = 4096, TLS_COMMON_NAME = 256 }; /* bytes of names, and of issuer: anybody makes them, of any bytes */
bool tls_certificate(const struct tls *, struct arena *, struct tls_certificate *out);
/* Channel bindings for SASL: tls-exporter (RFC 9266), only where it is safe: TLS 1.3, or 1.2 with the extended master
 * secret; and tls-server-end-point (RFC 5929 section 4). False: not to be had. */
bool tls_exporter(const struct tls *, unsigned char out[TLS_EXPORTER]);
bool tls_server_end_point(const struct tls *, unsigned char out[TLS_END_POINT_MAX], size_t *out_len);

#endif
