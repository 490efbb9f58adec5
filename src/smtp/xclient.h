/*
 * xclient - what follows XCLIENT (Postfix's document of that name): whom a proxy that speaks SMTP is talking for.
 *
 * Attributes are NAME=value, separated by spaces; values are xtext. Pure.
 */
#ifndef SMTP_XCLIENT_H
#define SMTP_XCLIENT_H

#include "base/address.h"
#include "base/arena.h"

enum xclient_state {
    XCLIENT_KEPT,        /* not said: as it was */
    XCLIENT_SAID,
    XCLIENT_UNAVAILABLE, /* there is none */
    XCLIENT_LATER,       /* it could not be found out just now */
};

struct xclient {
    uint8_t name, addr, port, helo, login, dest_addr, dest_port; /* enum xclient_state; ports are never LATER */
    struct str name_value, helo_value, login_value; /* in the arena */
    struct address addr_value, dest_addr_value;     /* without port */
    uint16_t port_value, dest_port_value;
};

/* "NAME ADDR ...", as EHLO lists them. */
extern const struct str xclient_attributes;

/* False: a word is no attribute of ours, is there twice, or its value is none. */
bool xclient_parse(struct str args, struct arena *, struct xclient *out);

#endif
