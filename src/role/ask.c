/* ask - see ask.h. */
#include "role/ask.h"

#include "base/check.h"
#include "role/border.h"

#include <string.h>

enum { ANSWER_SMALL = 4096, DRAFT_FIRST = 16 << 10 };
static_assert(BORDER_SUBMIT_FIXED + LIMIT_ENVELOPE_FIXED + LIMIT_ENVELOPE_RCPT_BYTES +
                      BORDER_SUBMIT_RECIPIENT * LIMIT_RCPT_EXPANDED <= LINK_MESSAGE_MAX - ASK_INLINE_MAX,
              "what a session may commit fits a link's message");

/* ---- DNS ---- */

static struct err
query(void *arg, struct str name, enum dns_type type, int64_t until, struct arena *arena, struct dns_answer *out)
{
    struct asker *asker = arg;
    unsigned char memory[512];
    struct put p = put_init(memory, sizeof memory);
    struct arena scratch;
    struct str reply;

    put_u16(&p, (uint16_t)type);
    put_bytes(&p, name);
    if (p.full) {
        *out = dns_answer_temporary(type, S("the name is too long"));
        return OK;
    }
    arena_init(&scratch, rt_mem(asker->role->rt), 1024, LINK_MESSAGE_MAX);
    struct err e = role_call(asker->role, asker->kind, BORDER_QUERY, put_str_so_far(&p), &scratch, until, &reply);
    /* It is gone: the next one is asked, and that is all, for it may have died of this name. */
    if (e.kind == ERR_UNKNOWN || e.kind == ERR_CLOSED)
        e = role_call(asker->role, asker->kind, BORDER_QUERY, put_str_so_far(&p), &scratch, until, &reply);
    if (!err_is(e)) {
        struct take t = take_init(reply);
        if (!dns_answer_take(&t, arena, out) || !take_end(&t))
            *out = dns_answer_temporary(type, S("the resolver's answer made no sense"));
    } else if (e.kind != ERR_CANCELLED) {
        *out = dns_answer_temporary(type, e.kind == ERR_TIMEOUT ? S("the resolver did not answer in time")
                                                                : S("the resolver is being restarted"));
        e = OK;
    }
    arena_done(&scratch);
    return e;
}

struct dns
ask_dns(struct asker *asker)
{
    return (struct dns){ query, asker };
}

/* ---- policies ---- */

struct err
ask_policy(struct role *role, struct str domain, int64_t until, struct arena *arena, struct sts_answer *out)
{
    unsigned char memory[LIMIT_DOMAIN + 4];
    struct put p = put_init(memory, sizeof memory);
    struct arena scratch;
    struct str reply;
    bool known = false;

    put_bytes(&p, domain);
    if (p.full)
        return ERR(ERR_LIMIT, "ask for a policy");
    arena_init(&scratch, rt_mem(role->rt), 1024, LINK_MESSAGE_MAX);
    struct err e = role_call(role, ROLE_FETCH, BORDER_POLICY, put_str_so_far(&p), &scratch, until, &reply);
    if (!err_is(e)) {
        struct take t = take_init(reply);
        if (!border_take_policy(&t, arena, &known, out) || !known)
            e = ERR(ERR_UNKNOWN, "ask for a policy");
    }
    arena_done(&scratch);
    return e;
}

/* ---- drafts ---- */

struct ask_draft {
    struct role *role;
    uint64_t store;        /* serial of the link to the store that has it, once it was begun: a draft belongs to one link */
    struct message_id id;
    uint64_t expected_size;
    char *bytes;           /* not sent yet */
    size_t len, cap;
    bool asked, begun;     /* BEGIN was sent; it was answered well */
};

struct ask_draft *
ask_draft_new(struct role *role, struct message_id id, uint64_t expected_size)
{
    struct ask_draft *d = mem_new(rt_mem(role->rt), struct ask_draft);

    d->role = role;
    d->id = id;
    d->expected_size = expected_size;
    return d;
}

static void
draft_free(struct ask_draft *d)
{
    struct mem *mem = rt_mem(d->role->rt);

    mem_free(mem, d->bytes, d->cap);
    mem_free(mem, d, sizeof *d);
}

/* A call whose answer is an error byte. Before the draft is begun any store will do. */
static struct err
call_store(struct ask_draft *d, uint16_t type, const struct str *parts, size_t count, int64_t until)
{
    struct role *role = d->role;
    struct peer *store = d->begun ? role_peer_by_serial(role, d->store) : role_peer(role, ROLE_STORE);
    struct arena scratch;
    struct str reply;

    if (d->begun && !store)
        return ERR(ERR_UNKNOWN, "the store was restarted");
    for (; !store; store = role_peer(role, ROLE_STORE))
        TRY(event_wait(role->rt, &role->changed, until));
    d->store = store->serial;
    arena_init(&scratch, rt_mem(role->rt), 256, ANSWER_SMALL);
    struct err e = link_call_parts(store->link, type, parts, count, &scratch, until, &reply);
    if (!err_is(e)) {
        struct take t = take_init(reply);
        e = border_take_err(&t, "store");
    }
    arena_done(&scratch);
    return e;
}

/* What the store may have of it goes. A call that was given up here may still be answered there. */
static void
forget_there(struct ask_draft *d)
{
    unsigned char memory[16];
    struct put p = put_init(memory, sizeof memory);
    struct peer *store = d->asked ? role_peer_by_serial(d->role, d->store) : NULL;

    border_put_id(&p, d->id);
    if (store)
        link_post(store->link, BORDER_ABORT, put_str_so_far(&p));
}

static struct err
draft_flush(struct ask_draft *d, int64_t until)
{
    unsigned char head[32];
    struct put p = put_init(head, sizeof head);

    border_put_id(&p, d->id);
    if (!d->begun) {
        put_u64(&p, d->expected_size);
        struct str begin = put_str_so_far(&p);
        d->asked = true;
        TRY(call_store(d, BORDER_BEGIN, &begin, 1, until));
        d->begun = true;
        p = put_init(head, sizeof head);
        border_put_id(&p, d->id);
    }
    struct str parts[] = { put_str_so_far(&p), str_new(d->bytes, d->len) };
    if (d->len)
        TRY(call_store(d, BORDER_PUT, parts, 2, until));
    d->len = 0;
    return OK;
}

static void
draft_reserve(struct ask_draft *d, size_t len)
{
    struct mem *mem = rt_mem(d->role->rt);
    size_t cap = d->cap ? d->cap : DRAFT_FIRST;

    while (cap < len)
        cap *= 2;
    if (cap == d->cap)
        return;
    char *larger = mem_buffer(mem, cap);
    if (d->len)
        memcpy(larger, d->bytes, d->len);
    mem_free(mem, d->bytes, d->cap);
    d->bytes = larger;
    d->cap = cap;
}

struct err
ask_draft_put(struct ask_draft *d, const struct str *parts, size_t count, int64_t until)
{
    for (size_t i = 0; i < count; i++)
        for (struct str rest = parts[i]; rest.len;) {
            if (d->len == ASK_INLINE_MAX)
                TRY(draft_flush(d, until));
            struct str some = str_slice(rest, 0, ASK_INLINE_MAX - d->len);
            draft_reserve(d, d->len + some.len);
            memcpy(d->bytes + d->len, some.ptr, some.len);
            d->len += some.len;
            rest = str_from(rest, some.len);
        }
    return OK;
}

struct err
ask_draft_commit(struct ask_draft *d, const struct envelope *envelope, const struct recipient_status *statuses,
                 int64_t until)
{
    struct mem *mem = rt_mem(d->role->rt);
    struct border_submit submit = { d->id, *envelope, (struct recipient_status *)(uintptr_t)statuses, S("") };
    struct err e = d->begun ? draft_flush(d, until) : OK;
    size_t size = border_submit_size(&submit);

    CHECK(size <= LINK_MESSAGE_MAX - ASK_INLINE_MAX);
    if (!err_is(e)) {
        unsigned char *memory = mem_buffer(mem, size);
        struct put p = put_init(memory, size);
        border_put_submit(&p, &submit);
        CHECK(!p.full);
        struct str parts[] = { put_str_so_far(&p), str_new(d->bytes, d->len) };
        e = call_store(d, d->begun ? BORDER_COMMIT : BORDER_SUBMIT, parts, d->begun ? 1 : 2, until);
        mem_free(mem, memory, size);
    } else {
        forget_there(d);
    }
    draft_free(d);
    return e;
}

void
ask_draft_abort(struct ask_draft *d)
{
    forget_there(d);
    draft_free(d);
}

/* ---- content ---- */

struct err
ask_content(struct role *role, uint64_t store, struct message_id id, uint64_t offset, void *memory, size_t len,
            int64_t until, size_t *out_len)
{
    struct peer *peer = role_peer_by_serial(role, store);
    unsigned char request[32];
    struct put p = put_init(request, sizeof request);
    struct arena scratch;
    struct str reply;

    if (!peer)
        return ERR(ERR_CLOSED, "the store is gone");
    border_put_id(&p, id);
    put_u64(&p, offset);
    put_u32(&p, (uint32_t)(len < ASK_INLINE_MAX ? len : ASK_INLINE_MAX));
    arena_init(&scratch, rt_mem(role->rt), ASK_INLINE_MAX + 64, LINK_MESSAGE_MAX);
    struct err e = link_call(peer->link, BORDER_READ, put_str_so_far(&p), &scratch, until, &reply);
    if (!err_is(e)) {
        struct take take = take_init(reply);
        e = border_take_err(&take, "read from the spool");
        if (!err_is(e) && take.rest.len > len)
            e = ERR(ERR_PROTOCOL, "read from the spool");
        if (!err_is(e) && take.rest.len)
            memcpy(memory, take.rest.ptr, take.rest.len);
        if (!err_is(e))
            *out_len = take.rest.len;
    }
    arena_done(&scratch);
    return e;
}

struct err
ask_job_content(struct role *role, uint64_t store, const struct border_job *job, uint64_t offset, void *memory, size_t len,
                int64_t until, size_t *out_len)
{
    if (str_is_absent(job->content))
        return ask_content(role, store, job->id, offset, memory, len, until, out_len);
    struct str part = str_slice(job->content, (size_t)offset, (size_t)offset + len);
    memcpy(memory, part.ptr, part.len);
    *out_len = part.len;
    return OK;
}
