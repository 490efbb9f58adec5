/*
 * users - our own file of users: who may submit, by which password, and as whom. postrider-users(5) is its manual page.
 *
 *     anna@example.org:$y$j9T$...:scram-sha-256=65536,SALT,STORED,SERVER:send-as=sales@example.org,@example.net
 *
 * A name as prepare_name() gives it, a hash for crypt(3) ("*": no password will do), then fields in any order:
 *
 *     scram-sha-256=ITERATIONS,SALT,STOREDKEY,SERVERKEY      in base64; scram-sha-1 likewise
 *     plain=PASSWORD                                         in base64; for CRAM-MD5, which cannot do with less
 *     send-as=ADDRESS,...                                    sasl/sender.h
 *     off                                                    may not log in
 *
 * Empty lines and those that begin with "#" say nothing. A line that is wrong is left out; the others count.
 */
#ifndef SASL_USERS_H
#define SASL_USERS_H

#include "base/limits.h"
#include "base/map.h"
#include "sasl/scram.h"

enum { USERS_BYTES_MAX = 64 << 20, USERS_LINE_MAX = 60 << 10 };

struct user {
    struct str name, hash;
    struct scram_keys sha256, sha1;
    struct str plain;      /* in base64; absent: not kept */
    struct str senders[LIMIT_USER_SENDERS];
    size_t sender_count;
    bool off;
};
/* One line; what is in *out borrows from it. NULL: fine; else what is wrong with it, in a few words. */
const char *user_parse(struct str line, struct user *out);
/* The line, with its end. */
void user_put(struct text *, const struct user *);
/* Keys for SCRAM and the hash, of a prepared password. legacy: for SCRAM-SHA-1 and CRAM-MD5 too. Takes 50 ms: for a helper
 * thread. False: the password cannot be hashed. What is in *out borrows from *text. */
struct user_secret {
    struct str password;
    bool legacy;
    unsigned char random[3][16];
    void *memory;          /* password_memory() bytes */
};
bool user_set_password(struct user *, const struct user_secret *, struct text *);

/* The file, as bytes. Takes them (mem_alloc() of size bytes); then users_take() until it is false; then users_find(). */
struct users;
struct users *users_new(struct mem *, uint64_t seed, void *own_bytes, size_t len, size_t size);
void users_free(struct users *);
/* So many more lines. What is wrong is told, with the line's number from 1. False: there are no more. */
struct users_problem {
    void (*tell)(void *ctx, size_t line, const char *what);
    void *ctx;
};
bool users_take(struct users *, size_t lines, struct users_problem);
/* By a prepared name. Borrows from the file. */
bool users_find(const struct users *, struct str name, struct user *out);
/* Any of them, always the same for one number: like whom somebody who is not there shall look. False: there are none. */
bool users_any(const struct users *, uint64_t number, struct user *out);
size_t users_count(const struct users *);

#endif
