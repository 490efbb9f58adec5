/*
 * smtp - one attempt to deliver a message to some recipients by SMTP or LMTP: which hosts and addresses in which order,
 * as many transactions as it takes, and what each reply means for each recipient. RFC 5321 sections 5.1 and 4.2, RFC
 * 2033, RFC 3461 section 5.2, RFC 6531 section 3; the decided tables of standards 5.1 to 5.6 are the contract.
 *
 * Nothing here fails: every recipient gets exactly one outcome. The content is read as often as hosts are tried, from
 * the start each time. A message that was accepted by a final dot is accepted, whatever happens then.
 */
#ifndef DELIVER_SMTP_H
#define DELIVER_SMTP_H

#include "deliver/connections.h"
#include "deliver/outcome.h"
#include "dns/mx.h"
#include "message/envelope.h"
#include "net/tls_policy.h"
#include "smtp/client.h"

struct delivery_host {
    struct str name;       /* A-labels; for a fixed address what people should read ("localhost", "[192.0.2.1]") */
    uint16_t preference;
    struct address fixed;  /* ADDRESS_NONE: resolve the name and use settings.port. Else it has its port, or a path */
    uint16_t turn;         /* lower ones first, whatever their preference: the queue's order. All 0: by preference */
};

struct delivery_job {
    const struct envelope *envelope;    /* its recipients are not looked at */
    const struct recipient *recipients; /* 1 to LIMIT_RCPT_PER_JOB */
    size_t recipient_count;
    const struct delivery_host *hosts;  /* in any order */
    size_t host_count;
    bool probe;      /* only ask whether the recipients would be accepted: MAIL and RCPT, no content */
    bool configured; /* the configuration names the hosts: they may be anywhere, ourselves included */
};

struct delivery_settings { /* zeroed but for helo: direct delivery to port 25 */
    bool lmtp;                          /* never to port 25: RFC 2033 section 5 */
    uint16_t port;                      /* 0: 25 */
    uint8_t families;                   /* HOST_IPV4 | HOST_IPV6; 0: both */
    struct address source_ipv4, source_ipv6; /* to bind to; ADDRESS_NONE: any */
    struct str helo;
    const struct prefix *allow_private; /* where DNS may send us although it is forbidden (tests, closed networks) */
    size_t allow_private_count;
    const struct str *own_names;        /* an MX of such a name or address is ourselves: RFC 5321 section 5.1. So is, met
                                         * behind any other, one that calls itself so: it gets nothing, nor do those after it */
    size_t own_name_count;
    const struct address *own_addresses; /* port 0: any port */
    size_t own_address_count;
    int64_t connect;                    /* ns for each address; 0: LIMIT_CONNECT_NS */
    uint32_t messages_per_connection;   /* 0: as the connections say */
    struct client_times times;          /* zeroed: the default */
    bool smtps;                         /* TLS from the first byte */
    const struct sasl_login *login;     /* AUTH comes before MAIL, and only under TLS; NULL: nobody logs in */
    struct str login_name;              /* which login it is, for connections that are used again; no secret */
};

struct delivery_addresses { /* how a host's name led to its addresses */
    bool secure, aliased; /* as in struct host_result; a fixed address is neither */
    struct str canonical;
    uint16_t port;
};

struct delivery_hooks {
    void *arg;
    /* As host_addresses(), which is what answers in the end. */
    struct err (*addresses)(void *arg, struct str host, unsigned families, int64_t until, struct arena *,
                            struct host_result *out);
    /* The content, without envelope.trace. *out_len 0: the end, which must be at envelope.size. */
    struct err (*read)(void *arg, uint64_t offset, void *memory, size_t len, int64_t until, size_t *out_len);
    /* What connections to this host must be, and what *out borrows lives in the arena. secure: DNSSEC vouches for its
     * addresses, and `canonical` is its name behind CNAMEs. NULL: TLS_NEVER. Not OK: the host is not used now. */
    struct err (*tls_policy)(void *arg, const struct delivery_host *, const struct delivery_addresses *, int64_t until,
                             struct arena *, struct tls_policy *out);
    /* As in struct client_tls, with the host's name and policy. Where *out_result is not TLS_RESULT_OK, `reason` says why. */
    struct err (*start_tls)(void *arg, struct str host, const struct tls_policy *, struct wire *, int64_t until,
                            struct client_encryption *out, enum tls_result *out_result, struct text *reason);
    /* Nobody could be logged in, and the mail waits or goes to the next host. `mechanism` absent: it was not tried. */
    void (*login_trouble)(void *arg, struct str host, struct str mechanism, struct str why);
    /* What the policy asks for is not to be had; `so` says what is done instead. NULL: not told. */
    void (*tls_trouble)(void *arg, struct str host, const struct tls_policy *, enum tls_result, struct str why,
                        struct str so);
};

struct delivery_tls { /* of the latest connection, or of the latest host that was refused for its sake */
    bool known;           /* some policy was decided on, and told */
    bool encrypted, verified, resumed;
    uint8_t level, source, result; /* enum tls_level, tls_source, tls_result */
    char protocol[16], cipher[64], domain[LIMIT_DOMAIN + 1]; /* cut off, if need be; empty: none */
};

struct delivery_figures { /* for the log */
    int64_t connect;      /* ns until a server was ready to take mail (the latest one) */
    int64_t transfer;     /* ns in transactions */
    uint32_t connections; /* opened */
    uint32_t transactions;
    struct delivery_tls tls;
    uint32_t hosts_up, hosts_down; /* bits by place in job->hosts: took up a session; was tried, and no address did */
};
static_assert(LIMIT_MX_HOSTS <= 32, "a bit for each host");

/*
 * out_outcomes: one for each recipient, in order; strings in the arena, at most DELIVERY_ARENA_BYTES for each
 * recipient. connections: NULL, or where connections are taken from and given back to. A cancelled fiber defers what is
 * not final.
 */
enum { DELIVERY_ARENA_BYTES = LIMIT_REPLY_TEXT + 1024 };
void smtp_deliver(struct rt *, const struct delivery_job *, const struct delivery_settings *,
                  const struct delivery_hooks *, struct connections *, struct arena *, struct outcome *out_outcomes,
                  struct delivery_figures *out_figures);

#endif
