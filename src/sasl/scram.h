/*
 * scram - SCRAM of RFC 5802 and 7677: keys made of a password, and the server's side of the exchange. Pure.
 *
 * The server keeps what the password was made into (struct scram_keys), never the password: whoever steals it can
 * neither log in with it nor, without guessing passwords one by one, learn it. Channel binding (the -PLUS mechanisms)
 * proves that nobody sits between client and server with a TLS connection to each.
 */
#ifndef SASL_SCRAM_H
#define SASL_SCRAM_H

#include "net/digest.h"

enum {
    /* Of ours. RFC 7677 section 4 asks for what takes a modern machine 0.1 s, and wrote of 15000 in 2015; more than this many
     * Cyrus SASL's client refuses, and so programs that use it. Keys that were made with fewer stay good. */
    SCRAM_ITERATIONS = 65536,
    SCRAM_ITERATIONS_MIN = 4096,  /* fewer are not taken, from nobody */
    SCRAM_ITERATIONS_MAX = 10000000,
    SCRAM_SALT = 16,              /* bytes, of ours */
    SCRAM_SALT_MAX = 64,
    SCRAM_NONCE = 24,             /* characters, of ours */
    SCRAM_MESSAGE_MAX = 1600,     /* bytes of any one message */
};

struct scram_keys {
    uint32_t iterations; /* 0: there are none */
    size_t salt_len;
    unsigned char salt[SCRAM_SALT_MAX], stored[DIGEST_MAX], server[DIGEST_MAX];
};
/* The password must be prepared already. Takes some milliseconds: call it on a helper thread. */
void scram_make_keys(enum digest, struct str password, struct str salt, uint32_t iterations, struct scram_keys *out);
/* What of it only the client knows: from it follows the proof. ClientKey and ServerKey of RFC 5802 section 3. */
void scram_client_keys(enum digest, struct str password, struct str salt, uint32_t iterations, unsigned char *client_key,
                       unsigned char *server_key);
/* The client's proof, and what the server must then sign (digest_size() bytes each). auth_message: section 3. */
void scram_client_proof(enum digest, const unsigned char *client_key, const unsigned char *server_key, struct str auth_message,
                        unsigned char *out_proof, unsigned char *out_signature);

/* A name inside a message: "," and "=" as =2C and =3D. */
void scram_put_name(struct text *, struct str name);
bool scram_take_name(struct str, struct text *out);

/* How the channel may be bound: bytes of RFC 9266 and RFC 5929; absent: that one cannot be had. */
struct scram_binding {
    struct str exporter, end_point;
};

/* One exchange. Borrows the binding's bytes; the rest it keeps. */
struct scram_server {
    enum digest digest;
    bool plus;         /* the mechanism's name ends so */
    bool offers_plus;  /* the server's list had it */
    struct scram_binding binding;
    char first[SCRAM_MESSAGE_MAX], challenge[SCRAM_MESSAGE_MAX];
    size_t gs2_len, first_len, challenge_len; /* gs2_len: of `first`, with the last comma */
    struct str data;   /* to which the client binds; absent: it does not */
};

enum scram_answer { SCRAM_FINE, SCRAM_MALFORMED, SCRAM_WRONG };

/* client-first-message. SCRAM_WRONG: it asks for a binding that we do not have, or somebody took -PLUS out of our list.
 * Appends to *out_user and *out_identity (empty: none asked for) the names, as they were sent. */
enum scram_answer scram_server_begin(struct scram_server *, struct str message, struct text *out_user,
                                     struct text *out_identity);
/* server-first-message. The nonce is SCRAM_NONCE bytes that nobody can guess, printable and without a comma. */
void scram_server_challenge(struct scram_server *, const struct scram_keys *, struct str nonce, struct text *out);
/* client-final-message; on SCRAM_FINE *out is the server-final-message. */
enum scram_answer scram_server_end(struct scram_server *, const struct scram_keys *, struct str message, struct text *out);

#endif
