/*
 * proxy - what a proxy in front of us says of each connection that it passes on: the PROXY protocol, versions 1 and 2
 * (HAProxy's document).
 *
 * The header comes before everything else, before a greeting and before TLS, and only where the configuration expects
 * it: it is never guessed. Not an octet behind it is read, for those belong to the session. Version 1 is a line of at
 * most 107 octets that ends with CRLF alone; version 2 is binary, and ours to refuse beyond PROXY_HEADER_MAX octets.
 * A CRC32c is checked where there is one. Of what else it may carry, server name and TLS version are kept, for the log.
 */
#ifndef NET_PROXY_H
#define NET_PROXY_H

#include "base/address.h"
#include "runtime/rt.h"

enum {
    PROXY_HEADER_MAX = 4096, /* the document asks for 536 at least */
    PROXY_LINE_MAX = 107,    /* version 1, with its CRLF */
    PROXY_NAME_MAX = 255,
};

struct proxy_header {
    bool told;               /* who is there. False (LOCAL, UNKNOWN, no IP addresses): only the proxy is known */
    struct address client, local; /* the two ends as the proxy has them; mapped IPv4 is IPv4 */
    char server_name[PROXY_NAME_MAX], tls[32]; /* of the client's TLS with the proxy */
    uint8_t server_name_len, tls_len;          /* 0: not said */
};

enum proxy_state { PROXY_WHOLE, PROXY_MORE, PROXY_BAD };

/*
 * Looks at the octets that came so far. WHOLE: *out_len of them are the header. MORE: it has at least *out_len octets,
 * which are more than came and no more than PROXY_HEADER_MAX. BAD: *out_why says why; absent is never.
 */
enum proxy_state proxy_parse(struct str came, size_t *out_len, struct proxy_header *out, struct str *out_why);

/* Reads one header off the stream. ERR_PROTOCOL: it is none, and *out_why says why; ERR_CLOSED: the stream ended. */
struct err proxy_read(struct stream *, int64_t until, struct proxy_header *out, struct str *out_why);

#endif
