/*
 * ask - questions of a role to its peers, each as one function: DNS to a resolver, drafts and content to the store.
 */
#ifndef ROLE_ASK_H
#define ROLE_ASK_H

#include "dns/answer.h"
#include "message/envelope.h"
#include "policy/sts_policies.h"
#include "role/role.h"
#include "spool/spool.h"

/* A struct dns whose questions go to a peer of that kind (ROLE_RESOLVER or ROLE_CHECKER). */
struct asker {
    struct role *role;
    enum role_kind kind;
};
struct dns ask_dns(struct asker *);

/* The MTA-STS policy of a domain (A-labels), if it has one. Not OK: that cannot be known now, and there may be one. */
struct err ask_policy(struct role *, struct str domain, int64_t until, struct arena *, struct sts_answer *out);

/*
 * A draft on the way to the store. It begins in memory: a message whose content stays below ASK_INLINE_MAX is handed
 * over with one call, a longer one is begun and sent in pieces.
 */
enum { ASK_INLINE_MAX = 56 << 10 };
struct ask_draft;
struct ask_draft *ask_draft_new(struct role *, struct message_id, uint64_t expected_size);
struct err ask_draft_put(struct ask_draft *, const struct str *parts, size_t count, int64_t until);
/* OK: it is on disk. In any case the draft is no more. statuses: as spool commit(). */
struct err ask_draft_commit(struct ask_draft *, const struct envelope *, const struct recipient_status *statuses,
                            int64_t until);
void ask_draft_abort(struct ask_draft *);

/* Content of a message that a job is about, from the store it came from (a link's serial). *out_len 0: the end. */
struct err ask_content(struct role *, uint64_t store, struct message_id, uint64_t offset, void *memory, size_t len,
                       int64_t until, size_t *out_len);
struct border_job;
/* Content of a job: what came with it, else as ask_content(). */
struct err ask_job_content(struct role *, uint64_t store, const struct border_job *, uint64_t offset, void *memory,
                           size_t len, int64_t until, size_t *out_len);

#endif
