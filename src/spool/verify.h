/*
 * verify - reads a spool directory without changing it, and says what is in it and what is wrong with it: what
 * `postrider spool verify` and `postrider spool dump` print. Works beside a running daemon too; what is written
 * meanwhile may then show as a torn batch at the end.
 *
 * One line a thing: with json an object a line (its first name says what it is: "segment", "record", "message",
 * "recipient", "problem", "remark", "summary"; its last one is "version", 1), else text for people.
 */
#ifndef SPOOL_VERIFY_H
#define SPOOL_VERIFY_H

#include "spool/spool.h"

struct spool_verify {
    bool dump; /* every record, every live message and its recipients; else segments, problems and a summary */
    bool json;
    void (*line)(void *arg, struct str line); /* without a line end */
    void *arg;
};

struct spool_verified {
    uint64_t segments, records, messages, recipients;
    uint64_t problems; /* 0: sound */
    uint64_t remarks;  /* for instance a batch at the end that is not whole, as a crash leaves it before anybody was told of it */
};

/* ERR_READ_ONLY: a newer version wrote it. */
struct err spool_verify(struct rt *, struct dir *, const struct spool_verify *, int64_t until, struct spool_verified *out);

#endif
