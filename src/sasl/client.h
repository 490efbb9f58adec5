/*
 * client - our side of a SASL exchange (RFC 4422): which mechanism we take of those that a server offers, and what we say
 * in it, step by step. Pure, but for the time that SCRAM takes to make a key of the password (sasl_client_make_keys()).
 *
 * With a password: SCRAM-SHA-256 (RFC 7677), PLAIN (RFC 4616), LOGIN, the strongest first. With a token: XOAUTH2. Only
 * ever under TLS: who calls sees to that.
 */
#ifndef SASL_CLIENT_H
#define SASL_CLIENT_H

#include "base/limits.h"
#include "sasl/scram.h"

enum sasl_client_mechanism { SASL_CLIENT_SCRAM_SHA_256, SASL_CLIENT_PLAIN, SASL_CLIENT_LOGIN, SASL_CLIENT_XOAUTH2, SASL_CLIENT_MECHANISMS };
struct str sasl_client_name(enum sasl_client_mechanism);
/* Bits (1 << enum) of the words behind a server's AUTH; others are not ours. */
unsigned sasl_client_offered(struct str words);

enum {
    SASL_SECRET_MAX = 4096,  /* bytes of a password or token */
    SASL_CLIENT_MAX = 8192,  /* of any message of ours */
    SASL_CLIENT_ITERATIONS_MAX = 1000000, /* more is not a price but an attack: 0.3 s of a processor */
};

struct sasl_login { /* borrowed */
    struct str user, secret;
    bool token;              /* the secret is one, not a password */
};

/* False: nothing that we could use is offered. */
bool sasl_client_choose(unsigned offered, const struct sasl_login *, enum sasl_client_mechanism *out);

/* One exchange. Holds secrets: sasl_client_done(). */
struct sasl_client {
    enum sasl_client_mechanism mechanism;
    struct sasl_login login;
    unsigned step;           /* how many challenges were answered */
    bool proven;             /* SCRAM: the server knows the password too */
    bool needs_keys;         /* before the next answer: sasl_client_make_keys() */
    char nonce[SCRAM_NONCE], challenge[SCRAM_MESSAGE_MAX];
    size_t challenge_len;
    struct str salt;         /* decoded, in salt_memory */
    char salt_memory[SCRAM_SALT_MAX];
    uint32_t iterations;
    unsigned char client_key[DIGEST_MAX], server_key[DIGEST_MAX], signature[DIGEST_MAX];
};
/* nonce: as scram_server_challenge() wants it. */
void sasl_client_begin(struct sasl_client *, enum sasl_client_mechanism, const struct sasl_login *, struct str nonce);
/* What goes with AUTH itself (RFC 4954 section 4). False: nothing does, the server speaks first. */
bool sasl_client_initial(struct sasl_client *, struct text *out);
/* Takes the server's challenge, decoded. False: we will not go on; *out_why says why, and the exchange is to be cancelled.
 * After it, if needs_keys, sasl_client_make_keys() on a helper thread; then sasl_client_answer(). */
bool sasl_client_take(struct sasl_client *, struct str challenge, struct str *out_why);
void sasl_client_make_keys(void *client);
void sasl_client_answer(struct sasl_client *, struct text *out);
/* The server said 235. False: it has not shown that it knows the password, so it is not who it should be. */
bool sasl_client_may_succeed(const struct sasl_client *);
void sasl_client_done(struct sasl_client *);

#endif
