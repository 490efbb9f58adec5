/*
 * directory - who lives here: domains, mailboxes, aliases, lists, forwards; which domains we relay for; and so what
 * becomes of each RCPT, VRFY and EXPN. Pure, read-only once it is built, lookups by map: 100,000 aliases cost memory,
 * not time.
 *
 * Names match without case (ASCII), domains in A-label and U-label form are the same. An alias to addresses at home is
 * followed (LIMIT_ALIAS_DEPTH deep; what was seen is not followed again, so loops end), an address elsewhere is a final
 * recipient. Duplicates are removed. The final address of a mailbox is always the configured name: what a client wrote
 * (subaddress, case, catch-all) never becomes part of a path.
 *
 * Never an open relay: a domain that is not ours is refused unless the client is trusted. "%" and "!" in a local part
 * mean nothing here, and since they may mean something to the host behind us, a gateway or backup domain takes such a
 * local part from a stranger only where its recipients file lists it. Source routes were dropped by path_take().
 *
 * Ownership: answers live in the arena that is passed or in the directory itself.
 */
#ifndef POLICY_DIRECTORY_H
#define POLICY_DIRECTORY_H

#include "base/conf.h"
#include "base/setting.h"
#include "message/envelope.h"
#include "message/path.h"

struct directory;

/* ---- asking ---------------------------------------------------------------------------------------------------- */

enum directory_answer {
    DIRECTORY_ACCEPT,      /* 250 2.1.5: recipients say who */
    DIRECTORY_FORWARD,     /* 251 2.1.5: the same, and `elsewhere` is said to the client */
    DIRECTORY_RELAY,       /* 250 2.1.5: not ours; the client is trusted */
    DIRECTORY_VERIFY,      /* ours, but only the next hop knows: ask the gate; if it says yes, as DIRECTORY_ACCEPT */
    DIRECTORY_REFUSED,     /* from here on nothing is accepted and there are no recipients */
    DIRECTORY_UNKNOWN = DIRECTORY_REFUSED, /* 550 5.1.1: no such mailbox here */
    DIRECTORY_MOVED,       /* 551 5.1.6: write to `elsewhere` */
    DIRECTORY_NOT_RELAYED, /* 550 5.7.1: not ours, and the client is a stranger */
    DIRECTORY_UNQUALIFIED, /* 553 5.1.3: no domain, or none that could be */
    DIRECTORY_LOOP,        /* 550 5.4.6: an alias that leads to nobody but itself, or too far */
    DIRECTORY_TOO_MANY,    /* 452 4.5.3: expands to more than LIMIT_RCPT_EXPANDED */
    DIRECTORY_AMBIGUOUS,   /* 553 5.1.4: VRFY of a name that several domains have */
};

struct directory_query {
    struct path path;            /* as path_take() gives it */
    bool trusted;                /* `relay from`, or authenticated */
    const struct address *local; /* our end of the session: its address literal is ours too. NULL: not known */
};

/*
 * An alias to several, and every list, gives first a recipient of origin RECIPIENT_EXPANDED (the alias itself), then
 * the members; reverse_path of members is owner-NAME@DOMAIN where that exists. The receiver sets given, notify and
 * orcpt.
 */
struct directory_verdict {
    uint8_t answer;                /* enum directory_answer */
    struct recipient *recipients;  /* only address, origin and reverse_path are set */
    size_t count;
    struct str elsewhere;          /* FORWARD, MOVED: an address */
};
void directory_lookup(const struct directory *, const struct directory_query *, struct arena *,
                      struct directory_verdict *out);
/* What one answer may take of an arena, at most: every alias was expanded once when the directory was built, and what
 * would take more was refused. */
enum { DIRECTORY_ANSWER_MAX = 48 << 20 };
size_t directory_answer_bytes(const struct directory *); /* For tests: what it is with this directory. */

/* The argument of VRFY: the recipient is the mailbox meant, never expanded. */
void directory_vrfy(const struct directory *, struct str what, struct arena *, struct directory_verdict *out);
/* The argument of EXPN: the recipients are the members of an alias or list, one level down; a mailbox is its own
 * member. */
void directory_expn(const struct directory *, struct str what, struct arena *, struct directory_verdict *out);

/* ---- where mail for a domain goes ------------------------------------------------------------------------------ */

enum directory_route_kind {
    DIRECTORY_ROUTE_NONE,    /* not ours (or ours, but all its addresses lead elsewhere): the site's routes decide */
    DIRECTORY_ROUTE_MAILDIR, /* directory_maildir() says where */
    DIRECTORY_ROUTE_LMTP,    /* hop; recipients refused there are unknown */
    DIRECTORY_ROUTE_VIA,     /* a gateway: hop */
    DIRECTORY_ROUTE_MX,      /* a backup: to MX hosts better than us */
};
struct directory_route {
    uint8_t kind;          /* enum directory_route_kind */
    struct conf_hop hop;
    struct str maildir;    /* with {domain} and {local} */
    struct str user;       /* who delivers into the Maildirs; absent: whoever we are */
    uint64_t quota;        /* bytes for each Maildir; 0: none */
    struct conf_where where;
};
/* Never NULL. domain: of a final address. */
const struct directory_route *directory_route(const struct directory *, struct str domain);
/* The Maildir of a final address. False: no such mailbox (any more), or not in a Maildir: fail it with 5.1.1. */
bool directory_maildir(const struct directory *, struct str address, struct text *out_path);

/* Domains in the order of the configuration, for supervisors (which users deliver), ETRN and status. *at is NULL at
 * first, and moves on. */
struct directory_domain_info {
    struct str name;
    struct str same_as; /* absent: stands for itself */
    const struct directory_route *route;
    size_t names;       /* mailboxes, aliases and lists */
};
struct domain;
bool directory_next(const struct directory *, const struct domain **at, struct directory_domain_info *out);
/* Whether a postmaster can be reached, and the first domain that could have one (absent: there is no local domain). */
bool directory_has_postmaster(const struct directory *, struct conf_where *out_where);

/* ---- building -------------------------------------------------------------------------------------------------- */

/* seed: for its maps; from the runtime's randomness. */
struct directory *directory_new(struct mem *, uint64_t seed);
void directory_free(struct directory *);
/* What may stand in `domain NAME ... { }`. */
extern const struct setting_table directory_settings;
/* One such statement; files that it names come from the reader's bundle. */
void directory_read_domain(struct setting_reader *, struct directory *, const struct conf_node *);
/* setting_read_hop(), the host's name as DNS wants it: in A-labels. For routes too. */
bool directory_read_hop(struct setting_reader *, struct conf_word, struct conf_hop *out);
/* After the last: follows every alias once and says what leads nowhere. ours: the listeners' addresses. */
void directory_finish(struct setting_reader *, struct directory *, struct str hostname, const struct address *ours,
                      size_t ours_count);

#endif
