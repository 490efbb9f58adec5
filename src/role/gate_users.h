/*
 * gate_users - the gate's work for users: who they are (AUTH), how often somebody may be wrong about it, and how much
 * they may send in a day (SPEND). Secrets are here and nowhere else.
 *
 * The users file comes from the supervisor, again when it has changed. Passwords are compared on helper threads, a few at a
 * time; who finds too many waiting is told to come later. A network has a bounded number of exchanges under way, and Dovecot
 * of connections: there the exchange goes whose client has been silent for longest. What must outlive the process is kept in STATE/gate/users: from
 * which networks users log in, what they sent today, and the secret by which people who do not exist look the same each
 * time.
 */
#ifndef ROLE_GATE_USERS_H
#define ROLE_GATE_USERS_H

#include "link/link.h"
#include "role/config.h"

struct gate_users;
struct gate_users_settings {
    struct rt *rt;
    const struct site *site;
    uint32_t threads;       /* that compare passwords at once */
    int64_t patience;       /* ns that a login waits for others of its account or network; and that a step waits for Dovecot */
    struct handle state;    /* directory; none: nothing is kept. Taken */
    /* Answers a call of that peer (a link's serial), which may be gone. */
    void (*reply)(void *ctx, uint64_t peer, uint32_t call, uint16_t type, struct str body);
    void *ctx;
};
struct gate_users *gate_users_new(const struct gate_users_settings *);
/* Reads what was kept. Suspends; before the first message. */
void gate_users_start(struct gate_users *);
/* Writes it down, and ends all that is under way. Suspends. */
void gate_users_end(struct gate_users *);
/* The users file as it is now; none: there is no such file. Takes the handle. */
void gate_users_take_file(struct gate_users *, struct handle);
/* Until what was taken is read, or reading it has failed (which is tried again). */
void gate_users_wait_for_file(struct gate_users *, int64_t until);
/* AUTH, AUTH_STEP, SPEND and BANS. False: it breaks the border's rules. */
bool gate_users_message(struct gate_users *, uint64_t peer, struct link_message *);
void gate_users_peer_down(struct gate_users *, uint64_t peer);

#endif
