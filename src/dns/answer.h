/*
 * answer - what the DNS said to one question, decoded from a packet that may come from an enemy.
 *
 * An answer holds the records of the asked type at the end of the CNAME chain, in the packet's order, and nothing else:
 * signatures, the chain itself and strangers' records are left out. Its status is the only thing most callers look at:
 * DNS_TEMPORARY is every way not to know, bogus included (whose records are never shown).
 *
 * Names are text in lower case without a trailing dot; the root is ".". Bounds: DNS_RECORDS_MAX records and
 * DNS_BYTES_MAX bytes of names and data; what is over is left out and `cut` says so. An arena that takes an answer
 * needs room for DNS_ARENA_BYTES.
 */
#ifndef DNS_ANSWER_H
#define DNS_ANSWER_H

#include "base/arena.h"
#include "base/codec.h"
#include "base/err.h"
#include "dns/name.h"

enum dns_type {
    DNS_A = 1,
    DNS_CNAME = 5,
    DNS_SOA = 6,
    DNS_PTR = 12,
    DNS_MX = 15,
    DNS_TXT = 16,
    DNS_AAAA = 28,
    DNS_TLSA = 52,
};
struct str dns_type_name(enum dns_type);              /* "AAAA"; "unknown" */
bool dns_type_parse(struct str, enum dns_type *out); /* those that can be asked for */

enum dns_rcode { DNS_NOERROR = 0, DNS_SERVFAIL = 2, DNS_RCODE_NXDOMAIN = 3 };

enum dns_status {
    DNS_FOUND,     /* there are records */
    DNS_NODATA,    /* the name is there, such records are not */
    DNS_NXDOMAIN,  /* the name is not there */
    DNS_TEMPORARY, /* not known now: server failure, timeout, bogus, nonsense */
};
enum dns_security {
    DNS_INDETERMINATE, /* nobody validated */
    DNS_INSECURE,      /* provably unsigned */
    DNS_SECURE,
    DNS_BOGUS,         /* signed, and wrong */
};

enum { DNS_TLSA_PRIVATE = 255 }; /* a usage that nobody acts on: RFC 6698 section 7.2 */
struct dns_record {
    uint32_t ttl;          /* seconds */
    uint16_t preference;   /* MX */
    struct str name;       /* MX, PTR, CNAME: the target; absent: it is not a name that a host can have */
    struct address ip;     /* A, AAAA: port 0 */
    struct str data;       /* TXT: its strings joined; TLSA: certificate association data */
    uint8_t usage, selector, matching; /* TLSA; of one that is too short DNS_TLSA_PRIVATE, without data */
};

struct dns_answer {
    uint8_t status;        /* enum dns_status */
    uint8_t security;      /* enum dns_security */
    uint8_t rcode;
    bool aliased;          /* a CNAME was followed */
    bool cut;              /* there were more records than our bounds take */
    uint16_t type;         /* enum dns_type */
    uint32_t ttl;          /* seconds that this may be believed, also for a negative answer; 0: do not keep */
    struct str canonical;  /* the name at the end of the chain; absent: not a name that a host can have */
    struct str why;        /* for people, where status is DNS_TEMPORARY; may be empty */
    struct dns_record *records;
    size_t count;
};

enum {
    DNS_RECORDS_MAX = 128,
    DNS_BYTES_MAX = 32 << 10,
    DNS_CHAIN_MAX = 16,        /* CNAMEs in a row */
    DNS_WHY_MAX = 256,
    DNS_TTL_MAX = 86400,       /* RFC 8767 section 4 would take a week */
    DNS_TTL_NEGATIVE_MAX = 3600, /* RFC 2308 section 5: one to three hours */
    DNS_ARENA_BYTES = DNS_BYTES_MAX + DNS_RECORDS_MAX * (int)sizeof(struct dns_record) + 4096,
    DNS_ANSWER_ENCODED_MAX = DNS_BYTES_MAX + DNS_RECORDS_MAX * 40 + 1024, /* fits one link frame */
};

/*
 * The answer to (name, type) in this packet. Cannot fail: a packet that makes no sense is DNS_TEMPORARY. security and
 * why are what the validator said.
 */
struct dns_answer dns_answer_decode(struct str packet, struct str name, enum dns_type type, enum dns_security security,
                                    struct str why, struct arena *);
/* DNS_TEMPORARY without a packet. why: a literal, or bytes that outlive the answer. */
struct dns_answer dns_answer_temporary(enum dns_type, struct str why);

/* Between roles, and in the cache. */
size_t dns_answer_size(const struct dns_answer *); /* bytes that dns_answer_put() needs */
void dns_answer_put(struct put *, const struct dns_answer *);
bool dns_answer_take(struct take *, struct arena *, struct dns_answer *out);

/*
 * dns - whom a module asks: the resolver in its own role, one behind a link, a cache in front of either, or a table
 * in a test. An error is a broken link or a cancelled fiber; what the DNS could not say is DNS_TEMPORARY, and so is
 * `until`.
 */
struct dns {
    struct err (*query)(void *arg, struct str name, enum dns_type, int64_t until, struct arena *,
                        struct dns_answer *out);
    void *arg;
};
static inline struct err
dns_query(const struct dns *dns, struct str name, enum dns_type type, int64_t until, struct arena *arena,
          struct dns_answer *out)
{
    return dns->query(dns->arg, name, type, until, arena, out);
}

#endif
