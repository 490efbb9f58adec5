/*
 * client - one connection to an SMTP or LMTP server: RFC 5321 sections 3 and 4.5.3.2, RFC 2033, with PIPELINING, SIZE,
 * 8BITMIME, CHUNKING, BINARYMIME, SMTPUTF8, DSN, LIMITS, STARTTLS and AUTH.
 *
 * The client speaks and listens; what a reply means for a recipient is decided above (deliver/). A refusal is an
 * outcome, in a struct remote_reply; an error says that the dialog is lost (closed, timed out, malformed) or cancelled,
 * and then only client_close() remains. Strings in replies live in the arena that was passed: each takes at most
 * LIMIT_REPLY_TEXT.
 *
 * A connection's life: client_new(), client_greeting(), client_hello(), any number of client_send(), and at the end
 * client_quit(). Between two client_hello() there may be a client_start_tls(), or before the greeting a
 * client_begin_tls(). One fiber at a time.
 */
#ifndef SMTP_CLIENT_H
#define SMTP_CLIENT_H

#include "message/envelope.h"
#include "net/wire.h"
#include "runtime/rt.h"
#include "sasl/client.h"
#include "smtp/remote_reply.h"

struct client;

enum client_extension {
    CLIENT_PIPELINING = 1,
    CLIENT_SIZE = 2,
    CLIENT_8BITMIME = 4,
    CLIENT_CHUNKING = 8,
    CLIENT_BINARYMIME = 16,
    CLIENT_SMTPUTF8 = 32,
    CLIENT_DSN = 64,
    CLIENT_ENHANCEDSTATUSCODES = 128,
    CLIENT_LIMITS = 256,
    CLIENT_STARTTLS = 512,
    CLIENT_REQUIRETLS = 1024,
    CLIENT_DELIVERBY = 2048,
    CLIENT_AUTH = 1 << 12,
};

/* What the server offered in its latest answer to EHLO or LHLO. */
struct client_features {
    unsigned extensions;      /* enum client_extension bits */
    uint64_t size_max;        /* SIZE n; 0: no fixed limit */
    uint32_t rcpt_max;        /* LIMITS, RFC 9422: recipients a transaction; 0: not said, as the other two */
    uint32_t mail_max;        /* transactions a connection */
    uint32_t rcpt_domain_max; /* recipient domains a transaction */
    unsigned mechanisms;      /* AUTH: as sasl_client_offered() */
};

/* Each wait has its own deadline, RFC 5321 section 4.5.3.2; ns. */
struct client_times {
    int64_t greeting, hello, mail, rcpt, data, block, final, quit;
};
struct client_times client_times_default(void);

enum client_dialog {
    DIALOG_SENT,     /* a line that we say */
    DIALOG_RECEIVED, /* a line that the server says */
    DIALOG_NOTE,     /* what happens between the lines: "(1234 bytes of content)" */
};

struct client_settings {
    bool lmtp;             /* LHLO, and a reply for each accepted recipient after the content */
    bool helo_only;        /* HELO at once: for servers that hang up at EHLO */
    unsigned refuse;       /* enum client_extension bits that are not used although offered */
    struct str helo;       /* our name; copied */
    struct client_times times; /* zeroed: the default */
    void (*dialog)(void *arg, enum client_dialog, struct str line); /* NULL: none; must not suspend */
    void *dialog_arg;
};

/* Takes the stream. Says nothing yet. */
struct client *client_new(struct stream *, const struct client_settings *);
/* The server's first words. 220 is welcome; after anything else: client_quit(). */
struct err client_greeting(struct client *, struct arena *, struct remote_reply *out);
/* EHLO, and HELO where that is refused by 5xx; LHLO for LMTP. */
struct err client_hello(struct client *, struct arena *, struct remote_reply *out);
struct client_encryption { /* as struct tls_facts; strings live as long as the connection */
    struct str protocol, cipher; /* "TLSv1.3", "TLS_AES_256_GCM_SHA384" */
    bool resumed;
};
/* Makes a handshake, after which the wire is encrypted. `reason`: why not. */
struct client_tls {
    struct err (*start)(void *arg, struct wire *, int64_t until, struct client_encryption *out, struct text *reason);
    void *arg;
};
/* Before the greeting: TLS from the first byte (RFC 8314 section 3.3). An error: the connection is lost. */
struct err client_begin_tls(struct client *, const struct client_tls *, struct text *reason);
/* STARTTLS, which the server must have offered, and the handshake; then comes client_hello() again. A refusal is in *out,
 * and the dialog may go on. An error: the connection is lost, and `reason` says why if it was the handshake. */
struct err client_start_tls(struct client *, const struct client_tls *, struct arena *, struct remote_reply *out,
                            struct text *reason);
/*
 * AUTH (RFC 4954), only under TLS: by the strongest mechanism that the server offers and the login serves. A refusal is in
 * *out; code 0: it did not come to one, and `reason` says why (nothing fitting is offered, or the server does not know the
 * password either). `mechanism` is the one that was tried; absent: none.
 */
struct err client_login(struct client *, const struct sasl_login *, struct arena *, struct remote_reply *out,
                        struct str *out_mechanism, struct text *reason);
bool client_is_encrypted(const struct client *);
struct client_encryption client_encryption(const struct client *); /* absent strings: in clear */
const struct client_features *client_features(const struct client *);
void client_set_times(struct client *, const struct client_times *); /* of those who go on with it; zeroed: the default */
bool client_by_helo(const struct client *); /* it was greeted by HELO, so nobody asked what it offers */
struct str client_server_name(const struct client *); /* as its 250 to EHLO has it; empty: it gave none */
static inline bool
client_has(const struct client_features *f, enum client_extension e)
{
    return (f->extensions & e) != 0;
}

/* Where content comes from. read() gives the next bytes (CRLF lines, not dot-stuffed); *out_len 0 is the end. */
struct client_content {
    struct err (*read)(void *arg, void *memory, size_t cap, int64_t until, size_t *out_len);
    void *arg;
};
/* A read() for content in memory; arg: a struct str *, which is used up. */
struct err client_read_str(void *arg, void *memory, size_t cap, int64_t until, size_t *out_len);

enum client_stage { /* what was under way when client_send() ended */
    CLIENT_AT_MAIL,
    CLIENT_AT_RCPT,
    CLIENT_AT_DATA,
    CLIENT_AT_CONTENT, /* the server cannot have taken the message: its end was not sent */
    CLIENT_AT_FINAL,   /* the end was sent: without a reply nobody knows */
    CLIENT_AT_END,     /* every reply came */
};

/* One mail transaction. The first part is the caller's, the second is what client_send() says. */
struct client_transaction {
    struct str reverse_path;
    struct str envid;      /* xtext; absent: none */
    uint8_t ret;           /* enum ret */
    uint8_t body;          /* enum body: declared where the server offers it */
    bool probe;            /* MAIL and RCPT only: would they be accepted? No content is sent */
    bool smtputf8;         /* the parameter SMTPUTF8; only with a server that offers it */
    bool require_tls;      /* REQUIRETLS; the same, and under TLS */
    int64_t deliver_within; /* BY= with a server that offers DELIVERBY, in seconds; 0: none */
    bool deliver_or_return, deliver_trace; /* its mode and T */
    uint64_t size;         /* for SIZE=; an estimate will do */
    const struct recipient *const *rcpt;
    size_t rcpt_count;
    struct client_content content;

    struct remote_reply mail;
    struct remote_reply *rcpt_reply;  /* rcpt_count, by the caller; code 0: not asked, or no answer */
    struct remote_reply data;         /* code 0: not sent (CHUNKING, or nobody accepted) */
    struct remote_reply final;        /* to the content */
    struct remote_reply *final_reply; /* LMTP: rcpt_count, by the caller; code 0: not accepted, or no answer */
    size_t accepted;                  /* recipients */
    enum client_stage stage;
    bool dsn_passed_on;
    bool source_failed;               /* the error is content.read's, not the connection's */
};

/* Envelope values that may go onto the wire: no control bytes, no longer than a command line takes. */
bool client_can_say(struct str);

/*
 * Sends one message to rcpt[]; reverse_path, envid, addresses and orcpt have passed client_can_say(). OK: the dialog
 * came to an end in good order, whatever the replies say; it may be a refusal at any stage. An error: lost at t->stage.
 * Line ends that are not CRLF are repaired on the way (never sent raw), unless BINARYMIME is declared.
 */
struct err client_send(struct client *, struct client_transaction *, struct arena *);

/*
 * Asks whether the server would take mail for this address: MAIL FROM:<>, RCPT TO, and no message. *out is the answer
 * to RCPT, or to MAIL where that was refused already: then out_asked is false, and it says nothing about the address.
 * Nor is it asked for an address beyond ASCII where SMTPUTF8 is not offered: the code is 0.
 */
struct err client_probe(struct client *, struct str forward_path, struct arena *, bool *out_asked, struct remote_reply *out);

/* One more transaction may be tried: in good order, not closing (421), MAILMAX not reached. */
bool   client_is_usable(const struct client *);
/* For an idle connection: the server has not closed or said anything meanwhile. Does not suspend. */
bool   client_is_quiet(struct client *);
size_t client_transactions(const struct client *); /* begun on this connection */
struct address client_peer(const struct client *);

/* Says QUIT if that is possible, waits shortly for 221, and closes. Errors change nothing any more. */
void client_quit(struct client *);
void client_close(struct client *);

#endif
