/*
 * eai - does this message need SMTPUTF8 at the next hop? RFC 6531 section 3.6 lets nobody conclude it from the flag:
 * what decides is the envelope and the header fields, those of MIME parts too (struct mime_needs says header_8bit).
 */
#ifndef MESSAGE_EAI_H
#define MESSAGE_EAI_H

#include "base/arena.h"

enum eai_need {
    EAI_NOT_NEEDED,  /* send it without; eai_to_ascii() says how the addresses are written then */
    EAI_FOR_ADDRESS, /* without SMTPUTF8 there: 5.6.7 */
    EAI_FOR_HEADER,  /* 5.6.9 */
};
enum eai_need eai_need(struct str reverse_path, struct str forward_path, bool header_8bit);
/* "a@b" as an ASCII-only hop takes it: the domain in A-labels. Absent: the local part, which is never changed, is not
 * ASCII, or the domain has no A-labels. The null reverse-path stays empty. */
struct str eai_to_ascii(struct str address, struct arena *);

#endif
