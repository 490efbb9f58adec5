/*
 * address - where a socket is: IPv4, IPv6 (with scope) or a Unix path. Parsing and printing are pure.
 */
#ifndef BASE_ADDRESS_H
#define BASE_ADDRESS_H

#include "base/str.h"

enum address_family { ADDRESS_NONE, ADDRESS_IPV4, ADDRESS_IPV6, ADDRESS_UNIX };

struct address {
    uint8_t family;     /* enum address_family */
    uint16_t port;      /* host order */
    uint32_t scope;     /* IPv6 interface index, or 0 */
    uint8_t ip[16];     /* network order; IPv4 uses the first four */
    char path[108];     /* Unix, NUL-terminated */
};

struct prefix {         /* 192.0.2.0/24, 2001:db8::/32 */
    struct address base;
    uint8_t bits;
};

/* "192.0.2.1", "2001:db8::1" (no brackets, no port). False: it is neither. The port becomes 0. */
bool address_from_ip(struct str, struct address *out);
/* "192.0.2.1:25", "[2001:db8::1]:25", "/run/socket". */
bool address_parse(struct str, struct address *out);
bool address_eq(const struct address *, const struct address *); /* port too */
bool address_same_ip(const struct address *, const struct address *);
/* An IPv4-mapped IPv6 address becomes the IPv4 one. */
struct address address_unmap(struct address);
bool address_is_loopback(const struct address *);
/* 0/8, 127/8, ::, ::1, multicast, 240/4: never a target that DNS may name. */
bool address_is_forbidden_target(const struct address *);

void address_put_ip(struct text *, const struct address *);       /* "2001:db8::1" */
void address_put(struct text *, const struct address *);          /* "[2001:db8::1]:25" */
void address_put_literal(struct text *, const struct address *);  /* "[IPv6:2001:db8::1]", RFC 5321 section 4.1.3 */

/* An address alone is all of its bits; host bits must be zero. Mapped IPv4 becomes IPv4. */
bool prefix_parse(struct str, struct prefix *out);
bool prefix_has(const struct prefix *, const struct address *);
/* What limits count by: the IPv4 address, or the IPv6 /64. Port and scope are zero. */
struct address address_client_key(const struct address *);

#endif
