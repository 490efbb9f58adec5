/*
 * maildir - final delivery into a Maildir: unique name, write into tmp/, sync, rename into new/, sync the directory.
 * When it says delivered, the message survives power loss.
 *
 * What is written: Return-Path (fields of that name in the message go: RFC 5321 section 4.4) and Delivered-To (RFC
 * 9228), our trace fields, and the content with LF for each CRLF. A message that already bears a Delivered-To of
 * exactly this address has been here: 5.4.6.
 *
 * The Maildir is made at the first delivery, with the directories above it, but never the base: that is the operator's.
 * Paths never leave the base: see maildir_path(), and the runtime follows no link out of it. All disk work is done on
 * LANE_DELIVERY. Files that nobody finished are removed from tmp/ after 36 hours, at some of the deliveries.
 *
 * A second attempt for a recipient of a message waits until the first has ended: the file's name is the same, so that the
 * later replaces what the earlier left, and the earlier would take back what the later delivered.
 */
#ifndef DELIVER_MAILDIR_H
#define DELIVER_MAILDIR_H

#include "deliver/outcome.h"
#include "message/envelope.h"
#include "runtime/rt.h"

enum { MAILDIR_KNOWN = 1024 };

/* A directory that Maildirs are below, and what this process knows of it: one for all deliveries there. */
struct maildir_base {
    struct dir *dir;
    uint64_t known[MAILDIR_KNOWN]; /* hashes of Maildirs that are on disk, with all that leads there */
    struct list running;           /* deliveries */
    struct event ended;            /* one of them */
};
void maildir_base_init(struct maildir_base *, struct dir *);

struct maildir_place {
    struct maildir_base *base;
    struct str pattern;   /* below base: "{domain}/{local}" */
    struct str domain;    /* for {domain} and {local}: as configured, never what was received */
    struct str mailbox;
    struct str host;      /* our name, for unique file names in tmp/ */
    uint64_t quota;       /* bytes of all messages in new/ and cur/; 0: none */
};

struct maildir_message {
    const struct envelope *envelope; /* its recipients are not looked at */
    const struct recipient *recipient;
    struct message_id id;
    uint32_t index;                  /* the recipient's, among all of the message: with the id it makes the file's name */
    /* The content, without envelope.trace. *out_len 0: the end, which must be at envelope.size. */
    struct err (*read)(void *arg, uint64_t offset, void *memory, size_t len, int64_t until, size_t *out_len);
    /* False: who asked for this delivery is gone, and another process may have been asked for the same since. */
    bool (*is_awaited)(void *arg);
    void *arg;
};

/*
 * The path of a Maildir below its base. False: a part of it would be empty, ".", "..", or too long, or the domain or
 * the mailbox has a '/' or NUL: such a name is not a directory's, however it came into the configuration.
 */
bool maildir_path(struct text *, struct str pattern, struct str domain, struct str mailbox);

/* One message for one recipient. Strings of the outcome live in the arena, at most MAILDIR_ARENA_BYTES. */
enum { MAILDIR_ARENA_BYTES = 2048 };
struct outcome maildir_deliver(struct rt *, const struct maildir_place *, const struct maildir_message *,
                               struct arena *, int64_t until);

#endif
