/*
 * login - what a receiver does about users: AUTH, which it passes on to the gate and knows no mechanism of; whom a user may
 * send as; and what he may still send today (border.h: AUTH, AUTH_STEP, SPEND).
 *
 * Whom a user may send as (RFC 6409 section 6.1): his own address, which is his name, or for a name without a domain that
 * name in each domain of ours; what leads to him here, be it an alias among several, a list, a catch-all, or his address
 * with a detail; and what was granted to him.
 */
#ifndef ROLE_LOGIN_H
#define ROLE_LOGIN_H

#include "net/tls.h"
#include "role/role.h"
#include "smtp/server.h"

struct login {          /* of one session */
    struct role *role;
    const struct tls *tls; /* NULL: in clear */
    uint64_t exchange;
    struct arena arena; /* the grants */
    struct str *senders;
    size_t sender_count;
    bool counted;       /* the message at hand is */
    size_t looked_up;   /* whom its senders and authors stand for, also those that came twice */
};
void login_init(struct login *, struct role *);
void login_done(struct login *);

/* Hooks of server.h. */
struct str login_mechanisms(struct login *, const struct server_client *, struct arena *);
void login_start(struct login *, const struct server_client *, struct str mechanism, struct str initial, struct arena *,
                 int64_t until, struct auth_answer *out);
void login_step(struct login *, const struct server_client *, struct str response, struct arena *, int64_t until,
                struct auth_answer *out);

/* At MAIL. */
void login_begin_message(struct login *);
/* NULL: he may. Suspends for a moment where the address stands for many. */
const struct reply *login_may_send(struct login *, const struct server_client *, struct path, struct arena *);
/* NULL: the address has a domain that means something beyond the sender's own network, or here: RFC 6409 section 6.2. */
const struct reply *login_check_domain(const struct login *, struct path, struct arena *);
/* Counts a recipient, and with the first one the message. NULL: he may. */
const struct reply *login_spend(struct login *, const struct server_client *, struct arena *, int64_t until);

#endif
