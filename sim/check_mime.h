/*
 * check_mime - whether two messages are the same once decoded: P8 where a next hop without 8BITMIME made the daemon convert.
 *
 * A reader of its own, which knows only what sim/peers_client.c writes: header fields as they stand, text and octets in 8bit,
 * quoted-printable or base64, and a multipart of such. Nothing of src/message/ is used.
 */
#ifndef SIM_CHECK_MIME_H
#define SIM_CHECK_MIME_H

#include "base/mem.h"
#include "base/str.h"

/* All but Content-Transfer-Encoding, which must fit what follows. */
bool mime_is_same(struct mem *, struct str sent, struct str came);

#endif
