/*
 * scenario - a story that a mail administrator could write, told to the whole daemon: who connects, what is said, what time
 * passes, what fails, what must be true. One statement a line; "#" begins a comment, the first of which is the title. What
 * is not said goes well: a network that loses nothing, servers that take everything, a disk with room.
 *
 *     server mx1 203.0.113.10            a next hop: SMTP at port 25; with "lmtp" behind it LMTP at port 24
 *     mx good.test mx1 mx2               DNS: the domain's MX records, best first
 *     mta-sts good.test enforce mx1      the domain's policy by MTA-STS (or testing, none), and the hosts that it names
 *     user anna sends as @back.test      a line of /etc/users; her password is her name
 *     as root                            the daemon's user; without this it is one that may deliver for itself alone
 *     configuration                      postrider.conf, as indented lines; before the daemon starts, or for a later reload
 *     start                              the daemon; whatever is said before it is the world it finds
 *
 *     anna connects [from IP]            198.51.100.5, from which relaying is allowed by the configuration that is the default
 *     anna says TEXT                     a line
 *     anna hears CODE                    the next reply; ("cut": the connection's end)
 *     anna hangs up
 *     anna hands in M1 [logged in] from S@A to R@B [R@B ...] [with PARAMETER ...] [hears CODE]
 *                                        a whole session of its own; CODE (250) is the reply to what is not 2xx or to the end.
 *                                        logged in: at port 465, over TLS, as the user anna; parameters are those of MAIL
 *
 *     mx1 says 451 4.7.1 grey to RCPT [R@B]   or greeting, EHLO, MAIL, DATA, end; until "mx1 is well"
 *     mx1 offers STARTTLS DELIVERBY      further extensions in its answer to EHLO, of which it does what they promise
 *     mx1 was told TEXT                  stands in the MAIL command that it heard last
 *     mx1 never answers end              of data: it has taken the message
 *     mx1 is down, mx1 is up             no packet comes through
 *     kill store | everything            SIGKILL; everything comes back after 5 seconds
 *     lose power                         of what was not synced some is lost; back after 20 seconds
 *     dns is out, dns is back
 *     disk is full, disk has room, disk stalls TIME, disk refuses writes TIME
 *     clock leaps [back] TIME
 *     folder /PATH is away, is back      a file stands in its place
 *     operator holds everything          `postrider queue hold` of all that waits; or releases, bounces, removes, retries
 *     reload, restart                    SIGHUP; SIGTERM and a new start
 *     pass TIME                          30s, 10m, 2h, 3d
 *
 *     M1 is delivered to R@B [N times]   so often, at any next hop or Maildir; without N once
 *     M1 is not delivered to R@B
 *     M1 bounced for R@B [R@B ...]       notices of failure name each of these once, and nobody else
 *     M1 did not bounce
 *     M1 was delayed for R@B             exactly one notice of delay names it
 *     queue is empty, queue has N        messages, as `postrider status` tells
 *     counter NAME is N                  of `postrider status`
 *     log says TEXT                      a line of the daemon's log has held it since the start, or the last "log says"
 *     within TIME ...                    one of these becomes true so soon, and time goes on only until then
 *
 * In the end, whatever the story, no message came twice (unless it was said above that it came N times), and the daemon ends in
 * good order when it is told to. A failure names file and line.
 */
#ifndef SIM_SCENARIO_H
#define SIM_SCENARIO_H

#include "sim/run.h"

/* Runs each file; prints "ok" or why not, and "scenarios: 14 passed, 0 failed". Returns how many failed. */
int scenario_main(const char *const *paths, size_t count, struct sim_options);

/* ---- between scenario.c and scenario_peers.c --------------------------------------------------------------------- */

enum { NAME_BYTES = 16, ADDRESS_BYTES = 80, ORDERS_MAX = 8 };

enum stage { STAGE_GREETING, STAGE_EHLO, STAGE_MAIL, STAGE_RCPT, STAGE_DATA, STAGE_END, STAGES };

struct order {
    uint8_t stage;             /* enum stage */
    char reply[120];           /* empty: none ever comes */
    char address[ADDRESS_BYTES]; /* of RCPT; empty: any */
};

struct hop { /* a server of somebody else */
    struct scenario *scenario;
    char name[NAME_BYTES];
    struct host *host;
    struct address address;
    bool lmtp;
    struct order orders[ORDERS_MAX];
    size_t order_count;
    char offers[200];          /* words, one space before each */
    char told[400];            /* the last MAIL */
};

enum wish { WISH_NONE, WISH_CONNECT, WISH_SAY, WISH_HEAR, WISH_HANG_UP };

struct speaker { /* a client */
    char name[NAME_BYTES];
    struct process *process;
    struct event kick;
    enum wish wish;
    struct str text;           /* to say, as it is */
    uint16_t port;             /* to connect to */
    bool connected, worked;
    unsigned code;             /* heard */
    char heard[200];
};

/* What came to somebody: content, or one action of a notice. */
enum arrival_kind { ARRIVED_CONTENT, ARRIVED_FAILED, ARRIVED_DELAYED };
struct arrival {
    uint8_t kind;              /* enum arrival_kind */
    char message[NAME_BYTES];
    char address[ADDRESS_BYTES];
};

void speaker_start(struct sim *, struct speaker *, const char *ip);
void hop_start(struct sim *, struct hop *);
/* A server took it, or it lies in a Maildir. */
void scenario_arrived(struct scenario *, struct str address, struct str content);

#endif
