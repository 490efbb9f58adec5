/*
 * tls_own - what the files behind net/tls.h share: one connection, and what both sides begin with. Nobody else includes this.
 *
 * tls.c is the connection: its life and its bytes; tls_server.c is whom we show what; tls_client.c is whom we meet.
 */
#ifndef NET_TLS_OWN_H
#define NET_TLS_OWN_H

#include "net/tls.h"

#include <openssl/ssl.h>

struct side {
    struct crypto *crypto;
    struct rt *rt;
    SSL_CTX *own_ctx;
    BIO_METHOD *own_bio;
};

struct tls {
    struct rt *rt;
    struct stream *stream;
    struct crypto *crypto;
    struct tls_server *server; /* NULL: we are the client */
    struct tls_client *client;
    SSL *own_ssl;
    char client_name[TLS_CLIENT_NAME_MAX];
    size_t client_name_len;    /* 0: none */
    char *own_resume;          /* a client's: the name under which sessions are kept */
    size_t resume_len;
    bool no_records;           /* of those that were expected none could be used */
    bool testing;              /* whatever is wrong with the certificate, the handshake goes on */
    int wrong;                 /* X509_V_ERR_...: what was wrong first, or X509_V_OK */
    char *own_out;             /* encrypted, and not with the kernel */
    size_t out_begin, out_end, out_cap;
    size_t without_data;       /* bytes that came since the last that were data */
    struct err read_lost;      /* the stream's; reads say so when all that came before is read */
    struct err write_lost;
    struct err dead;           /* nothing can be read or written any more */
    bool drained;              /* the last read of the stream took all that was there */
    bool ended;                /* close_notify came */
    bool shut_down;
};

void tls_side_init(struct side *, struct crypto *, const SSL_METHOD *);
void tls_side_done(struct side *);

/* A connection before its handshake; then what the side says of it; then the handshake. */
struct err tls_begin(const struct side *, struct wire *, struct tls **out);
/* Takes t: it is the wire's, or no more. */
struct err tls_complete(struct tls *, struct wire *, int64_t until, const struct tls **out, enum tls_result *out_result,
                        struct text *reason);
void tls_free(void *cover);

void tls_name_client(struct tls *); /* whom its certificate is for */
struct str tls_str_or_absent(const char *);

#endif
