/*
 * users - who may submit in a simulated run, and how they say who they are: the users file, which is changed while the daemon
 * runs; clients that log in by each mechanism; and somebody who guesses, cancels, is cut off, and tries to send without a
 * login or as another. What the daemon answers is judged at once:
 *
 *     nobody sends without a login, and nothing secret is taken in clear
 *     a user sends as himself, and as nobody else
 *     the right password is never wrong, a wrong one never right; a new one counts soon after the file says it
 */
#ifndef SIM_USERS_H
#define SIM_USERS_H

#include "sim/peer.h"

enum { USERS = 2, PASSWORDS = 2 };

struct user_of_site {
    const char *name, *domain;  /* sends as whom he likes at that domain */
    const char *other_domain;   /* that of somebody else */
    unsigned password;          /* of PASSWORDS; the others are wrong */
    int64_t changed_at;         /* 0: never */
};

struct run;

/* Users, by the seed; some runs have none. Appends to the configuration. */
void users_draw(struct run *, struct text *config);
/* The same users always, as workloads want them. */
void users_make(struct run *, struct text *config);
/* The file, as an operator wrote it before the daemon's start. */
void users_write_first(struct run *);
/* More deaths of those that logins go through. */
void users_add_faults(struct run *);
/* Who changes passwords, and who guesses them. */
void users_start(struct run *);

/* How a session of a user begins, behind the greeting: EHLO (with STARTTLS, if tls_first is not set) and a login. False: he is
 * not in; the session may still live. extensions: told each line of the last EHLO's reply. */
struct user_session {
    struct run *run;
    struct conn *conn;
    struct user_of_site *user;
    bool tls_first;             /* port 465 */
    bool plain;                 /* nothing is drawn: AUTH PLAIN at once */
    bool sound;                 /* the client says nothing out of turn: each reply is to its last command */
    void (*extension)(void *ctx, struct str word);
    void *ctx;
};
bool user_enters(const struct user_session *);
/* Between two of his messages: tries to send as another. False: the connection is over. */
bool user_tries_another(const struct user_session *);

#endif
