/*
 * fuzz_lmtp - a whole LMTP session with a hostile server: a reply to the content for each accepted recipient.
 *
 * Aims at: smtp/client.c smtp/remote_reply.c
 * Seeds:   smtp/client_test.c deliver/smtp_test.c
 * Longest: 3000
 * Test:    6500 runs
 * Choices: 3 bytes in front
 *
 * As fuzz_client, and: each accepted recipient has a reply of its own when the transaction came to its end, nobody else has.
 */
#include "fuzz.h"

#include "sender.h"

void
fuzz_one(struct str input, struct arena *arena)
{
    sender_fuzz(input, true, arena);
}
