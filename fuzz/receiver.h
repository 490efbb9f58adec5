/*
 * receiver - for targets that are a client: whole sessions of smtp/server.c with smtp/server_fake.h as the site, and what
 * must hold after every one of them, whatever was said.
 */
#ifndef FUZZ_RECEIVER_H
#define FUZZ_RECEIVER_H

#include "smtp/server_fake.h"

enum pace {
    PACE_AT_ONCE,
    PACE_LINES,  /* the next line when the server has said all it has to say */
    PACE_PIECES, /* `step` bytes, then others run */
    PACE_SLOW,   /* `step` bytes, then `pause` seconds */
};
struct receiver_case {
    struct listener_settings settings;
    enum pace pace;
    size_t step;
    size_t waits[2]; /* offsets in what is said, ascending, at which the client waits for the server; 0: none */
    unsigned pause;
    bool stays;     /* the client waits for the server to close, which it must */
    bool resets;    /* and does not close in good order */
    size_t read_max, room; /* of struct world_rules */
};
/* Runs one session; the site was set up by the caller, who ends it. Returns what the server said. */
struct str receiver_run(const struct receiver_case *, struct fake_site *, struct str said_by_client, struct arena *);

/*
 * What holds for every session: replies are well-formed; every draft ended once; whoever was let in left; one line of log; no
 * message without recipients that were accepted; nothing stored has a bare CR or LF; and "250 Stored as" is said for stored
 * messages only, for each at most once.
 */
void receiver_check(const struct receiver_case *, const struct fake_site *, struct str said_by_server);
/* Takes a reply off the front: its code. 0: none is left. */
unsigned receiver_take_reply(struct str *said_by_server, struct str *out_reply);

#endif
