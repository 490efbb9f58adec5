/*
 * load - a site from its file on this machine, or from the bundle that the supervisor sent; and what follows from it
 * for processes: whose they are, and which directories hold Maildirs.
 */
#ifndef ROLE_LOAD_H
#define ROLE_LOAD_H

#include "role/config.h"
#include "runtime/rt.h"

/* A site and the bytes it was made of; they live and go together. Zeroed is none. */
struct loaded {
    struct mem *mem;
    struct arena arena;
    struct conf_bundle bundle;
    struct str encoded; /* the bundle, for roles; in the arena (load_file) or own_bytes (load_bundle) */
    void *own_bytes;
    size_t own_size;
    struct site *site;
};

/* The files of this machine, for conf_bundle_init(). ctx is rt. */
struct conf_world load_world(struct rt *);
/* False: what is wrong is in *out_problems, a line each; warnings are there too when true. */
bool load_file(struct rt *, struct str path, struct loaded *out, struct text *out_problems);
/* Takes bytes (own_size of them allocated from rt's heap), also when false. */
bool load_bundle(struct rt *, void *bytes, size_t len, size_t own_size, struct loaded *out);
void load_free(struct loaded *);

/*
 * What the file says of `state` and `hostname` at its top, though all else in it may be wrong: enough to find the
 * server that runs. Absent: not said. An error: the file cannot be read.
 */
struct err load_basics(struct rt *, struct str path, struct arena *, struct str *out_state, struct str *out_hostname);

/* The directory that holds all Maildirs of a template: "/var/mail" of "/var/mail/{domain}/{local}". */
struct str load_mail_base(struct str template);
/* Whose the Maildirs are: each user once, in an order that is the same for every process of one configuration, and so a mailbox
 * role's index. The empty name: the server's own. The strings are the site's. Returns how many there are. */
size_t load_mail_users(const struct site *, struct str out[SITE_MAIL_DIRS_MAX]);

#endif
