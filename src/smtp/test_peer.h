/*
 * test_peer - for unit tests: a server that follows a script, line by line.
 *
 *     S: 250 ok          say this line                     C: RCPT TO:<a@b.example>   expect this line
 *     C: MAIL *          expect what begins so             S# 250 x 40                say the line 40 times
 *     D                  read content up to the final dot  B         read a BDAT command and its chunk
 *     R                  reset the connection              H         close it in good order
 *     W                  the client closes now             Z         be silent, until the client closes
 *     N                  do not even read for two seconds
 *     T 290              nor for so many
 *     P 40               forty times: expect RCPT TO:<uN@b.example>, and answer 250
 *
 * What does not fit the script is told in `failure`, and the connection is closed. A script that ends closes in good
 * order.
 */
#ifndef SMTP_TEST_PEER_H
#define SMTP_TEST_PEER_H

#include "runtime/rt.h"

struct test_peer {
    struct rt *rt;
    struct stream *own_stream;
    struct str script;
    bool ended;               /* the script was followed to its end */
    char failure[512];        /* NUL-terminated; empty: none */
    struct text content;      /* of all D and B, still dot-stuffed; memory by the caller, or none */
    uint64_t content_bytes;
    int64_t patience;         /* of each wait; 20 s */
    size_t in_from, in_to;
    char in[8192];
};

void test_peer_init(struct test_peer *, struct stream *, struct str script);
void test_peer_run(void *peer); /* a fiber's body */

#endif
