/*
 * connections - idle connections to next hops, kept for the next message that goes the same way (RFC 5321 section
 * 4.5.4.1 asks for it; standards 5.5). One pool a role.
 *
 * A connection is only used again for the same place by the same way: everything in struct connection_key. It is kept
 * for settings.idle, then ended with QUIT by the pool's own fiber; so is what the pool will not keep. Connections
 * greeted by HELO as EHLO was lost are never kept: what comes next may need what only EHLO offers.
 */
#ifndef DELIVER_CONNECTIONS_H
#define DELIVER_CONNECTIONS_H

#include "smtp/client.h"

struct connections;

struct connection_key { /* borrowed; the pool copies what it keeps */
    struct address to;
    struct address source; /* ADDRESS_NONE: any */
    struct str host;       /* the name that led there, which TLS was checked against */
    struct str helo;
    bool lmtp;
    bool smtps;            /* TLS from the first byte */
    struct str login;      /* who has logged in, and by which secret; empty: nobody */
    struct str policy;     /* tls_policy_put_key(): what let this connection through; at most TLS_POLICY_KEY_MAX */
    uint32_t messages_max; /* of one connection, where it is put back; 0: as the settings say. Finds all the same */
};

struct connections_settings {
    int64_t idle;          /* ns */
    size_t messages_max;   /* of one connection */
    size_t count_max;      /* idle ones; the oldest gives way */
};
struct connections_settings connections_settings_default(void); /* 5 s, 100 messages, 200 connections */

struct connections *connections_new(struct rt *, const struct connections_settings *);
/* Ends all of them, with QUIT where the server is quick. Suspends. */
void connections_free(struct connections *);
/* NULL: none is there. The client is the caller's. */
struct client *connections_take(struct connections *, const struct connection_key *);
/* Takes the client: keeps it if it is usable, else says goodbye in the background. */
void connections_put(struct connections *, const struct connection_key *, struct client *);
/* Takes the client and says goodbye in the background. */
void connections_end(struct connections *, struct client *);
size_t connections_count(const struct connections *); /* For tests: idle ones. */

#endif
