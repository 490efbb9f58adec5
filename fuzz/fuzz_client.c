/*
 * fuzz_client - a whole SMTP session, two transactions, with a hostile server.
 *
 * Aims at: smtp/client.c smtp/remote_reply.c
 * Seeds:   smtp/client_test.c deliver/smtp_test.c smtp/remote_reply_test.c smtp-smuggling/
 * Longest: 3000
 * Test:    7000 runs
 * Choices: 3 bytes in front
 *
 * The input is the content, a byte 0xff, and what the server says; the first bytes choose how. What the client said is read by
 * hostile.h: no command of unsound form, content only where it may be, as it was given, with one end of data. No reply is taken
 * for an acceptance of a message that was not said to its end; codes and words of replies keep their bounds.
 */
#include "fuzz.h"

#include "sender.h"

void
fuzz_one(struct str input, struct arena *arena)
{
    sender_fuzz(input, false, arena);
}
