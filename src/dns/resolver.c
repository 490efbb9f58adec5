/*
 * resolver - see resolver.h. Three layers:
 *
 *   the reactor for libunbound  a ub_event is at most one watch and one timer of the runtime
 *   questions                   fibers queue them; a timer that is due at once hands the queue to libunbound on the
 *                               reactor's stack (finalising the context alone takes 200 KiB); the answer's bytes are
 *                               copied out of the callback, and the fiber decodes them on its own time
 *   settings                    libunbound's options, and why
 */
#include "dns/resolver.h"

#include "base/check.h"
#include "runtime/rt.h"

#include <string.h>
#include <sys/time.h>
#include <unbound-event.h>
#include <unbound.h>

enum {
    OUTSTANDING_DEFAULT = 256,
    FORWARDERS_MAX = 16,
    PORT = 53,
    CLASS_IN = 1,
    ANCHOR_LINE_MAX = 2048,
    PACKET_MAX = 65535,
};
enum { UB_INSECURE = 0, UB_BOGUS = 1, UB_SECURE = 2 }; /* the callback's word for it; libunbound has no names */

struct resolver {
    struct ub_event_base base; /* first: libunbound's callbacks give us this address */
    struct ub_event_base_vmt base_methods;
    struct ub_event_vmt source_methods;
    struct rt *rt;
    struct ub_ctx *ctx;
    struct list queue;         /* struct question: not handed over yet */
    struct timer *hand_over;   /* set while the queue is about to be handed over */
    size_t outstanding, outstanding_max;
    struct event slot_free;
    bool validates;
};

/* ---- the reactor for libunbound --------------------------------------------------------------------------------- */

struct ub_source {
    struct ub_event event; /* first, likewise */
    struct resolver *resolver;
    struct watch *watch;
    struct timer *timer;
    int fd;
    short bits;
    int64_t delay; /* of the timer, ns */
    void (*callback)(int fd, short bits, void *arg);
    void *arg;
};

static void source_due(void *arg);
static void source_ready(void *arg, bool readable, bool writable);

static struct ub_source *
source_of(struct ub_event *event)
{
    return (struct ub_source *)(void *)event;
}

static void
source_stop_timer(struct ub_source *s)
{
    if (s->timer)
        timer_stop(s->timer);
    s->timer = NULL;
}

static void
source_stop(struct ub_source *s)
{
    source_stop_timer(s);
    if (s->watch)
        watch_stop(s->watch);
    s->watch = NULL;
}

static void
source_start_timer(struct ub_source *s)
{
    source_stop_timer(s);
    s->timer = timer_start(s->resolver->rt, rt_now(s->resolver->rt) + s->delay, source_due, s);
}

/* An event without PERSIST is over when it fires; one with a timeout starts it anew. */
static void
source_fire(struct ub_source *s, short bits)
{
    if (!(s->bits & UB_EV_PERSIST))
        source_stop(s);
    else if (s->timer)
        source_start_timer(s);
    s->callback(s->fd, bits, s->arg); /* which may free s */
}

static void
source_ready(void *arg, bool readable, bool writable)
{
    struct ub_source *s = arg;
    short bits = (short)((readable ? UB_EV_READ : 0) | (writable ? UB_EV_WRITE : 0));

    bits = (short)(bits & s->bits);
    if (bits)
        source_fire(s, bits);
}

static void
source_due(void *arg)
{
    struct ub_source *s = arg;

    s->timer = NULL;
    source_fire(s, UB_EV_TIMEOUT);
}

static int
source_add(struct ub_event *event, struct timeval *timeout)
{
    struct ub_source *s = source_of(event);

    source_stop(s);
    if (s->fd >= 0 && (s->bits & (UB_EV_READ | UB_EV_WRITE)))
        s->watch = watch_start(s->resolver->rt, s->fd, s->bits & UB_EV_READ, s->bits & UB_EV_WRITE, source_ready, s);
    if (timeout && (s->bits & UB_EV_TIMEOUT)) {
        s->delay = timeout->tv_sec * SECOND + timeout->tv_usec * 1000;
        source_start_timer(s);
    }
    return 0;
}

static int
source_del(struct ub_event *event)
{
    source_stop(source_of(event));
    return 0;
}

static void
source_add_bits(struct ub_event *event, short bits)
{
    source_of(event)->bits = (short)(source_of(event)->bits | bits);
}

static void
source_del_bits(struct ub_event *event, short bits)
{
    source_of(event)->bits = (short)(source_of(event)->bits & ~bits);
}

static void
source_set_fd(struct ub_event *event, int fd)
{
    source_stop(source_of(event));
    source_of(event)->fd = fd;
}

static void
source_free(struct ub_event *event)
{
    struct ub_source *s = source_of(event);

    source_stop(s);
    mem_free(rt_mem(s->resolver->rt), s, sizeof *s);
}

static int
source_add_timer(struct ub_event *event, struct ub_event_base *base, void (*callback)(int, short, void *), void *arg,
                 struct timeval *timeout)
{
    struct ub_source *s = source_of(event);

    (void)base;
    s->callback = callback;
    s->arg = arg;
    s->bits |= UB_EV_TIMEOUT;
    return source_add(event, timeout);
}

static int
source_add_signal(struct ub_event *event, struct timeval *timeout)
{
    (void)event;
    (void)timeout;
    return 0;
}

static int
source_del_signal(struct ub_event *event)
{
    (void)event;
    return 0;
}

/* libunbound wants these tables without const: each resolver has its copy. */
static const struct ub_event_vmt source_methods = {
    .add_bits = source_add_bits,
    .del_bits = source_del_bits,
    .set_fd = source_set_fd,
    .free = source_free,
    .add = source_add,
    .del = source_del,
    .add_timer = source_add_timer,
    .del_timer = source_del,
    .add_signal = source_add_signal,
    .del_signal = source_del_signal,
};

static struct ub_event *
base_new_event(struct ub_event_base *base, int fd, short bits, void (*callback)(int, short, void *), void *arg)
{
    struct resolver *r = (struct resolver *)(void *)base;
    struct ub_source *s = mem_new(rt_mem(r->rt), struct ub_source);

    *s = (struct ub_source){
        .event = { UB_EVENT_MAGIC, &r->source_methods },
        .resolver = r,
        .fd = fd,
        .bits = bits,
        .callback = callback,
        .arg = arg,
    };
    return &s->event;
}

static struct ub_event *
base_new_signal(struct ub_event_base *base, int fd, void (*callback)(int, short, void *), void *arg)
{
    (void)fd;
    return base_new_event(base, -1, 0, callback, arg);
}

static void
base_free(struct ub_event_base *base)
{
    (void)base;
}

static int
base_dispatch(struct ub_event_base *base)
{
    (void)base;
    return 0;
}

static int
base_loopexit(struct ub_event_base *base, struct timeval *timeout)
{
    (void)base;
    (void)timeout;
    return 0;
}

static const struct ub_event_base_vmt base_methods = {
    .free = base_free,
    .dispatch = base_dispatch,
    .loopexit = base_loopexit,
    .new_event = base_new_event,
    .new_signal = base_new_signal,
};

/* ---- questions -------------------------------------------------------------------------------------------------- */

struct question {
    struct list node; /* in resolver.queue */
    struct resolver *resolver;
    char name[NAME_TEXT_MAX + 1];
    enum dns_type type;
    int id;           /* libunbound's, while asked and not answered */
    bool asked, answered;
    int security;     /* libunbound's word */
    struct str own_packet, own_why;
    struct event done;
};

static struct str
copy(struct resolver *r, const void *bytes, size_t len)
{
    char *own = len ? mem_alloc(rt_mem(r->rt), len) : NULL;

    if (len)
        memcpy(own, bytes, len);
    return str_new(own, len);
}

/* Packet and why die with this callback, which may come from inside ub_resolve_event(). The rcode it gives stays 0 for
 * NXDOMAIN: the packet's header has the true one. */
static void
answered(void *arg, int rcode, void *packet, int packet_len, int security, char *why, int was_ratelimited)
{
    struct question *q = arg;
    size_t len = packet_len > 0 && packet_len <= PACKET_MAX ? (size_t)packet_len : 0;

    (void)rcode;
    (void)was_ratelimited;
    q->own_packet = copy(q->resolver, packet, len);
    q->own_why = copy(q->resolver, why, why ? strnlen(why, DNS_WHY_MAX) : 0);
    q->security = security;
    q->answered = true;
    event_wake(q->resolver->rt, &q->done);
}

static void
give_to_libunbound(void *arg)
{
    struct resolver *r = arg;
    struct list *node;

    r->hand_over = NULL;
    while ((node = list_pop_front(&r->queue))) {
        struct question *q = container_of(node, struct question, node);
        q->asked = true;
        if (ub_resolve_event(r->ctx, q->name, (int)q->type, CLASS_IN, q, answered, &q->id) != 0 && !q->answered)
            answered(q, 0, NULL, 0, UB_INSECURE, NULL, 0);
    }
}

static enum dns_security
security_of(const struct question *q)
{
    if (q->security == UB_BOGUS)
        return DNS_BOGUS;
    if (!q->resolver->validates)
        return DNS_INDETERMINATE;
    return q->security == UB_SECURE ? DNS_SECURE : DNS_INSECURE;
}

static struct err
ask(struct resolver *r, struct question *q, int64_t until)
{
    struct err e = OK;

    list_push_back(&r->queue, &q->node);
    if (!r->hand_over)
        r->hand_over = timer_start(r->rt, rt_now(r->rt), give_to_libunbound, r);
    while (!q->answered && !err_is(e))
        e = event_wait(r->rt, &q->done, until);
    if (q->answered)
        return OK;
    list_remove(&q->node);
    if (q->asked)
        ub_cancel(r->ctx, q->id); /* no callback comes after it, so that q may go */
    return e;
}

static struct err
take_slot(struct resolver *r, int64_t until)
{
    while (r->outstanding >= r->outstanding_max)
        TRY(event_wait(r->rt, &r->slot_free, until));
    r->outstanding++;
    return OK;
}

static void
give_slot(struct resolver *r)
{
    r->outstanding--;
    event_wake_one(r->rt, &r->slot_free);
}

struct err
resolver_query(struct resolver *r, struct str name, enum dns_type type, int64_t until, struct arena *arena,
               struct dns_answer *out)
{
    struct question q = { .resolver = r, .type = type };
    struct err e;

    if (!name_is_valid(name)) {
        *out = dns_answer_temporary(type, S("not a domain name"));
        return OK;
    }
    name = name_without_dot(name);
    memcpy(q.name, name.ptr, name.len);
    event_init(&q.done);
    e = take_slot(r, until);
    if (!err_is(e)) {
        e = ask(r, &q, until);
        give_slot(r);
    } else {
        event_wake_one(r->rt, &r->slot_free); /* one that came just now was meant for us */
    }
    if (e.kind == ERR_CANCELLED)
        return e;
    if (err_is(e))
        *out = dns_answer_temporary(type, S("the name servers did not answer in time"));
    else if (q.own_packet.len == 0)
        *out = dns_answer_temporary(type, S("no name server could be reached"));
    else
        *out = dns_answer_decode(q.own_packet, name, type, security_of(&q), q.own_why, arena);
    mem_free(rt_mem(r->rt), (void *)(uintptr_t)q.own_packet.ptr, q.own_packet.len);
    mem_free(rt_mem(r->rt), (void *)(uintptr_t)q.own_why.ptr, q.own_why.len);
    return OK;
}

static struct err
hook(void *arg, struct str name, enum dns_type type, int64_t until, struct arena *arena, struct dns_answer *out)
{
    return resolver_query(arg, name, type, until, arena, out);
}

struct dns
resolver_dns(struct resolver *r)
{
    return (struct dns){ hook, r };
}

size_t
resolver_outstanding(const struct resolver *r)
{
    return r->outstanding;
}

/* ---- settings --------------------------------------------------------------------------------------------------- */

static const struct {
    const char *name, *value;
} options[] = {
    { "verbosity:", "0" },
    { "val-log-level:", "0" },
    { "edns-buffer-size:", "1232" },
    /* The library's own defaults are for one question at a time. */
    { "outgoing-range:", "256" },
    { "num-queries-per-thread:", "1024" },
    { "outgoing-num-tcp:", "16" },
    { "msg-cache-size:", "8m" },
    { "rrset-cache-size:", "16m" },
    { "key-cache-size:", "4m" },
    /* Private networks have reverse zones and name servers for them; "test." (RFC 6761 section 6.2) has no chain of
     * trust that could ever be checked, and of "home.arpa." (RFC 8375) the home's own name server need not have one. */
    { "unblock-lan-zones:", "yes" },
    { "insecure-lan-zones:", "yes" },
    { "domain-insecure:", "test." },
    { "domain-insecure:", "home.arpa." },
};

struct opening {
    struct resolver *resolver;
    const struct resolver_settings *settings;
    const char *wrong;
    bool done;
    struct event event;
};

static bool
add_forwarder(struct ub_ctx *ctx, const struct address *a)
{
    char memory[80];
    struct text t = text_init(memory, sizeof memory);

    /* Else one on 127/8 is silently ignored. Not an option for all: a stranger's delegation must not lead there. */
    if (address_is_loopback(a) && ub_ctx_set_option(ctx, "do-not-query-localhost:", "no") != 0)
        return false;
    address_put_ip(&t, a);
    text_putf(&t, "@%u", a->port ? a->port : PORT);
    return ub_ctx_set_fwd(ctx, text_cstr(&t)) == 0;
}

/* The "nameserver" lines of resolv.conf(5); one with a zone ("fe80::1%eth0") cannot be said to libunbound. */
static bool
add_system_forwarders(struct ub_ctx *ctx, struct str text)
{
    size_t count = 0;

    while (text.len > 0 && count < FORWARDERS_MAX) {
        struct str line = str_cut(&text, '\n');
        struct address address;
        if (!str_eq(str_cut_word(&line), S("nameserver")) || !address_from_ip(str_trim(str_cut_word(&line)), &address))
            continue;
        if (!add_forwarder(ctx, &address))
            return false;
        count++;
    }
    return true;
}

/* One record a line; ';' begins a comment. */
static bool
add_anchors(struct resolver *r, struct str text)
{
    char line_memory[ANCHOR_LINE_MAX];

    while (text.len > 0) {
        struct str line = str_cut(&text, '\n');
        line = str_trim(str_cut(&line, ';'));
        if (line.len == 0)
            continue;
        struct text t = text_init(line_memory, sizeof line_memory);
        text_put(&t, line);
        const char *cstr = text_cstr(&t);
        if (t.full || ub_ctx_add_ta(r->ctx, cstr) != 0)
            return false;
        r->validates = true;
    }
    return true;
}

/* NULL: well; else what went wrong. */
static const char *
set_up(struct resolver *r, const struct resolver_settings *settings)
{
    r->ctx = ub_ctx_create_ub_event(&r->base);
    if (!r->ctx)
        return "libunbound does not start";
    for (size_t i = 0; i < sizeof options / sizeof *options; i++)
        if (ub_ctx_set_option(r->ctx, options[i].name, options[i].value) != 0)
            return "libunbound refuses an option";
    for (size_t i = 0; i < settings->forwarder_count; i++)
        if (!add_forwarder(r->ctx, &settings->forwarders[i]))
            return "a forwarder's address is not one";
    if (settings->forwarder_count == 0 && !add_system_forwarders(r->ctx, settings->resolv_conf))
        return "a name server of resolv.conf is not an address";
    if (!add_anchors(r, settings->trust_anchor))
        return "the trust anchor file has a line that is no DS or DNSKEY record";
    if (ub_ctx_set_option(r->ctx, "module-config:", r->validates ? "validator iterator" : "iterator") != 0)
        return "libunbound refuses its modules";
    /* Also finalises the context, for which this stack is large enough. The library would answer for these itself, that there is
     * no such name; who has hosts there has them in the name server that he gives us (RFC 8375 section 4 for "home.arpa."). */
    if (ub_ctx_zone_remove(r->ctx, "test.") != 0 || ub_ctx_zone_remove(r->ctx, "home.arpa.") != 0)
        return "libunbound refuses its settings";
    return NULL;
}

static void
open_now(void *arg)
{
    struct opening *o = arg;

    o->wrong = set_up(o->resolver, o->settings);
    o->done = true;
    event_wake(o->resolver->rt, &o->event);
}

struct err
resolver_open(struct rt *rt, const struct resolver_settings *settings, int64_t until, struct resolver **out,
              struct str *out_why)
{
    struct resolver *r = mem_new(rt_mem(rt), struct resolver);
    struct opening opening = { .resolver = r, .settings = settings };
    struct err e = OK;

    r->base_methods = base_methods;
    r->source_methods = source_methods;
    r->base = (struct ub_event_base){ UB_EVENT_MAGIC, &r->base_methods };
    r->rt = rt;
    r->outstanding_max = settings->outstanding_max ? settings->outstanding_max : OUTSTANDING_DEFAULT;
    list_init(&r->queue);
    event_init(&r->slot_free);
    event_init(&opening.event);
    struct timer *timer = timer_start(rt, rt_now(rt), open_now, &opening);
    while (!opening.done && !err_is(e))
        e = event_wait(rt, &opening.event, until);
    if (!opening.done) {
        timer_stop(timer);
    } else if (opening.wrong) {
        *out_why = str_from_cstr(opening.wrong);
        e = ERR(ERR_SYNTAX, "open resolver");
    } else {
        *out = r;
        return OK;
    }
    resolver_close(r);
    return e;
}

void
resolver_close(struct resolver *r)
{
    if (!r)
        return;
    CHECK(r->outstanding == 0);
    if (r->hand_over)
        timer_stop(r->hand_over);
    ub_ctx_delete(r->ctx);
    mem_free(rt_mem(r->rt), r, sizeof *r);
}
