/*
 * signing - signatures asked of another process, who holds the keys: both ends of that conversation.
 *
 *     SIGNING_CALL   key's name (32 bytes), u16 scheme, bytes that are covered   ->   bytes of the signature; none: no
 *
 * The asker is a key_signer (net/key.h), called from inside a TLS handshake. It holds up its role until the answer is
 * there: 0.1 ms longer than the signature itself would (median; src/net/tls_measure.c measures it).
 */
#ifndef NET_SIGNING_H
#define NET_SIGNING_H

#include "link/hold.h"
#include "net/key.h"

enum { SIGNING_CALL = 1, SIGNING_QUESTION_MAX = KEY_NAME + 2 + 4 + KEY_COVERS_MAX };
/* Then the handshake fails, and the conversation is over. A busy machine lets a process wait for its turn for 100 ms and more. */
#define SIGNING_NS (500 * MILLISECOND)

struct signing_asker {
    struct hold *hold; /* NULL: nobody to ask */
    uint64_t asked, refused;
};
bool signing_ask(void *asker, const struct key_name *, enum key_scheme, struct str covers, unsigned char *signature,
                 size_t cap, size_t *out_len);

/* What to answer, with the keys that this asker may use. False: that was no question. */
bool signing_answer(const struct key_table *, struct str question, unsigned char *memory, size_t cap,
                    struct str *out_answer);

#endif
