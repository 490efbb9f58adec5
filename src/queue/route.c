/* route - see route.h. */
#include "queue/route.h"

#include "base/check.h"
#include "base/limits.h"

#include <string.h>

const struct route *
route_find(const struct route_entry *entries, size_t count, struct str domain)
{
    const struct route_entry *best = NULL;

    for (size_t i = 0; i < count; i++) {
        const struct route_entry *e = &entries[i];
        bool parent = e->match.len > 0 && e->match.ptr[0] == '.';

        if (!parent && str_eq_nocase(e->match, domain))
            return &e->route;
        bool fits = parent ? domain.len > e->match.len && str_ends_nocase(domain, e->match) : str_eq(e->match, S("default"));
        if (fits && (!best || (parent && (best->match.ptr[0] != '.' || e->match.len > best->match.len))))
            best = e;
    }
    return best ? &best->route : NULL;
}

void
route_put_destination(struct text *out, const struct route *r, struct str hosts)
{
    switch ((enum route_kind)r->kind) {
    case ROUTE_MAILDIR:
        text_put(out, S("maildir:"));
        text_put(out, r->path);
        return;
    case ROUTE_LMTP:
    case ROUTE_SMTP:
        text_put(out, r->kind == ROUTE_LMTP ? S("lmtp:") : r->implicit_tls ? S("smtps:") : S("smtp:"));
        if (r->path.len > 0)
            text_put(out, r->path);
        else
            text_putf(out, "//%.*s:%u", STR_ARG(r->host), r->port);
        return;
    case ROUTE_MX:
        text_put(out, hosts);
        if (r->port != 25)
            text_putf(out, " port %u", r->port);
        return;
    }
    UNREACHABLE();
}

void
route_put_key(struct text *out, const struct route *r, struct str hosts)
{
    static const char *const tls[] = { "", " tls off", " tls require" };
    static const char *const family[] = { "", " ipv4", " ipv6" };

    CHECK(r->tls < sizeof tls / sizeof *tls && r->family < sizeof family / sizeof *family);
    route_put_destination(out, r, hosts);
    if (r->source.len > 0)
        text_putf(out, " source %.*s", STR_ARG(r->source));
    if (r->helo.len > 0)
        text_putf(out, " helo %.*s", STR_ARG(r->helo));
    text_putf(out, "%s%s%s", tls[r->tls], family[r->family], r->relay_mx ? " relay" : "");
    if (r->kind == ROUTE_MAILDIR)
        text_putf(out, " user %u:%u", r->uid, r->gid);
    if (r->rate.count > 0)
        text_putf(out, " rate %u/%llds+%u", r->rate.count, (long long)(r->rate.per / SECOND), r->rate.burst);
    for (size_t i = 0; i < r->allow_private_count; i++) {
        text_put(out, S(" private "));
        address_put_ip(out, &r->allow_private[i].base);
        text_putf(out, "/%u", r->allow_private[i].bits);
    }
}

static size_t
copy_size(const struct route *r)
{
    return sizeof *r + r->name.len + r->host.len + r->path.len + r->source.len + r->helo.len;
}

static struct str
move(struct str s, char **at)
{
    if (s.len > 0)
        memcpy(*at, s.ptr, s.len);
    struct str copy = str_new(*at, s.len);
    *at += s.len;
    return copy;
}

struct route *
route_copy(const struct route *r, struct mem *mem)
{
    struct route *copy = mem_alloc(mem, copy_size(r));
    char *at = (char *)(copy + 1);

    *copy = *r;
    copy->name = move(r->name, &at);
    copy->host = move(r->host, &at);
    copy->path = move(r->path, &at);
    copy->source = move(r->source, &at);
    copy->helo = move(r->helo, &at);
    return copy;
}

void
route_free(struct route *r, struct mem *mem)
{
    mem_free(mem, r, copy_size(r));
}
