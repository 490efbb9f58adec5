/*
 * server - the server that a command names: "HOST", "HOST:PORT", "192.0.2.1:25", "[2001:db8::1]:25", "/run/socket".
 */
#ifndef CLI_SERVER_H
#define CLI_SERVER_H

#include "cli/cli.h"

enum { SERVER_ADDRESSES_MAX = 8 };
struct server {
    struct str word;
    struct address address[SERVER_ADDRESSES_MAX];
    size_t count;
};

/* Looks the name up (by the system's means). Not EXIT_WELL: that is the code to end with, and the reason has been
 * said. */
int server_find(struct rt *, const struct verb *, struct str word, uint16_t default_port, struct server *out);
/* Tries the addresses in turn. */
struct err server_connect(struct rt *, const struct server *, int64_t until, struct stream **out);

#endif
