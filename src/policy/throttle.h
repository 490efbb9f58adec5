/*
 * throttle - how many wrong passwords are too many, for each account and for each network.
 *
 * A failure counts against the account, whatever network it came from, and against the network (IPv4 /24, IPv6 /56),
 * whatever account it was for. Too many within some time, and the account is closed to all networks, or the network to
 * all accounts, until the ban ends. But a network from which the user logged in within THROTTLE_HOME_NS is a home of his:
 * there he is judged by what is wrong there with his own account alone, so that nobody can lock him out from elsewhere.
 *
 * An attempt that is under way counts as a failure until its end is known, so many at once are no way around it: who would
 * be one too many waits until one of them has ended. So an attempt is to be short: from where a secret is there to be
 * compared until it was. Bounded: what was not touched for longest is forgotten first. Nobody that does not exist is
 * treated otherwise than who does.
 *
 * Pure but for memory. now: monotonic ns; wall: ns since 1970, for homes, which outlive the process.
 */
#ifndef POLICY_THROTTLE_H
#define POLICY_THROTTLE_H

#include "base/address.h"
#include "base/codec.h"
#include "base/limits.h"
#include "base/mem.h"

#define THROTTLE_HOME_NS (30 * DAY)
enum { THROTTLE_RECORDS_MAX = 200000, THROTTLE_HOMES_MAX = 100000, THROTTLE_NETWORK = 8 };

struct throttle_settings {
    uint32_t account_failures, network_failures; /* this many, and it is closed */
    int64_t within, ban;                         /* ns */
};

/* An attempt under way. Zeroed is none. */
struct throttle_attempt {
    bool open, home;
    unsigned char network[THROTTLE_NETWORK];
    size_t account_len;
    char account[LIMIT_USER_NAME];
};

struct throttle;
struct throttle *throttle_new(struct mem *, uint64_t seed, struct throttle_settings, uint32_t records_max);
void throttle_free(struct throttle *);

/* THROTTLE_OPEN: the attempt ends with exactly one of the three below. THROTTLE_FULL: ask again when another has ended. */
enum throttle_answer { THROTTLE_OPEN, THROTTLE_FULL, THROTTLE_CLOSED };
enum throttle_answer throttle_begin(struct throttle *, struct str account, const struct address *client, int64_t now,
                                    int64_t wall, struct throttle_attempt *out);
void throttle_right(struct throttle *, struct throttle_attempt *, int64_t wall);
/* What is closed by it: THROTTLE_ACCOUNT, THROTTLE_NETWORK_TOO, or 0. */
enum { THROTTLE_ACCOUNT = 1, THROTTLE_NETWORK_TOO = 2 };
unsigned throttle_wrong(struct throttle *, struct throttle_attempt *, int64_t now);
void throttle_undecided(struct throttle *, struct throttle_attempt *);
/* The network that a client belongs to, as an address whose other bits are zero. */
struct address throttle_network(const struct address *client);

/* What is closed. Calls tell for each, until it is false. account: empty for a network; network: empty for an account in
 * all of them. */
void throttle_each_ban(const struct throttle *, int64_t now,
                       bool (*tell)(void *ctx, struct str account, struct str network, int64_t until), void *ctx);

/* Homes, to be kept: count, then account, network and time. */
size_t throttle_homes_size(const struct throttle *);
void throttle_put_homes(struct put *, const struct throttle *);
bool throttle_take_homes(struct take *, struct throttle *, int64_t wall);
/* Counts changes of homes: whether there is something new to keep. */
uint64_t throttle_homes_version(const struct throttle *);

#endif
