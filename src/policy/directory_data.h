/*
 * directory_data - what a directory is made of; for directory.c, which answers, and directory_config.c, which builds.
 */
#ifndef POLICY_DIRECTORY_DATA_H
#define POLICY_DIRECTORY_DATA_H

#include "policy/directory.h"

#include "base/map.h"

struct target { /* where an alias leads */
    struct str local;
    struct str domain;    /* a lower case A-label name or a literal; absent: the domain that the alias was found in */
    bool own_mailbox;     /* "alias anna -> anna, bob": the mailbox of the same name, not the alias again */
    bool from_file;
    struct conf_where where;
};

enum forward_reply { FORWARD_NONE, FORWARD_SILENT, FORWARD_251, FORWARD_551 };

struct entry { /* a name in a domain: a mailbox, an alias, both, or a recipient that the next hop is known to have */
    struct entry *next;
    struct str name;      /* as configured */
    bool mailbox, listed;
    bool list;            /* has members from a file */
    uint8_t forward;      /* enum forward_reply */
    struct target *targets;
    size_t target_count;
    struct conf_where mailbox_where, alias_where;
};

enum recipients { RECIPIENTS_UNSAID, RECIPIENTS_ANY, RECIPIENTS_FILE, RECIPIENTS_VERIFY };

struct rules { /* one `domain` statement */
    struct rules *next;
    struct map names;     /* in lower case, to struct entry */
    struct entry *first, **tail;
    struct entry *catch_all;  /* NULL: none */
    struct str subaddress;    /* delimiters; absent: none */
    uint8_t recipients;       /* enum recipients */
    bool has_mailboxes;
    bool other_name;          /* of a same-as: nothing else is in it */
    bool broken;              /* errors were said while it was read */
    struct directory_route route;
    struct conf_where where, recipients_where;
};

struct domain {
    struct domain *next;
    struct str name;          /* lower case A-labels */
    struct rules *rules;      /* NULL: same_as */
    struct domain *same_as;
    struct conf_word same_as_word;
    struct conf_where where;
};

struct directory {
    struct mem *mem;
    struct arena arena;
    uint64_t seed;
    struct map domains;       /* name to struct domain */
    struct domain *first, **tail;
    struct rules *rules, **rules_tail;
    struct str hostname;
    const struct address *ours;
    size_t ours_count;
    const struct domain *home; /* of <Postmaster> and of our address literals; NULL: no domain is local */
    bool has_postmaster;
    size_t answer_bytes;
};

/* Lower case; the whole of it is new memory. */
struct str directory_fold(struct arena *, struct str);
/* The domain, or what it is the same as; NULL: not ours. name: lower case A-labels. */
const struct domain *directory_find_domain(const struct directory *, struct str name);

enum found_kind { FOUND_NOBODY, FOUND_ENTRY, FOUND_RELAYED, FOUND_VERIFY, FOUND_SUSPICIOUS };
struct found {
    enum found_kind kind;
    const struct domain *domain; /* where the entry was found: postmaster may be found at home */
    const struct entry *entry;
};
struct found directory_find(const struct directory *, const struct domain *, struct str local, struct arena *);
enum expansion { EXPANSION_WHOLE, EXPANSION_TOO_MANY, EXPANSION_TOO_DEEP };
/* Every final recipient that the entry leads to; more than LIMIT_RCPT_EXPANDED, or over more than LIMIT_ALIAS_DEPTH
 * aliases in a row: only some of them. */
enum expansion directory_expand(const struct directory *, const struct found *, struct arena *,
                                struct recipient **out_recipients, size_t *out_count);

#endif
