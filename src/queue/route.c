/* route - see route.h. */
#include "queue/route.h"

#include "base/check.h"
#include "base/limits.h"

#include <string.h>

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

static void
put_source(struct text *out, const struct address *a)
{
    if (a->family == ADDRESS_NONE)
        return;
    text_put(out, S(" source "));
    address_put_ip(out, a);
}

void
route_put_key(struct text *out, const struct route *r, struct str hosts)
{
    static const char *const tls[] = { "", " tls off", " tls require", " tls require verify", " tls insecure-override" };
    static const char *const family[] = { "", " ipv4", " ipv6" };

    CHECK(r->tls < sizeof tls / sizeof *tls && r->family < sizeof family / sizeof *family);
    route_put_destination(out, r, hosts);
    put_source(out, &r->source_ipv4);
    put_source(out, &r->source_ipv6);
    if (r->helo.len > 0)
        text_putf(out, " helo %.*s", STR_ARG(r->helo));
    text_putf(out, "%s%s", tls[r->tls], family[r->family]);
    if (r->tls_ca.len > 0)
        text_putf(out, " tls-ca %.*s", STR_ARG(r->tls_ca));
    if (r->mx_secure)
        text_put(out, S(" dnssec"));
    if (r->login_user.len > 0)
        text_putf(out, " login %.*s %s %.*s", STR_ARG(r->login_user), r->login_token ? "token-file" : "password-file",
                  STR_ARG(r->login_file));
    if (r->user.len > 0)
        text_putf(out, " user %.*s", STR_ARG(r->user));
    if (r->quota > 0)
        text_putf(out, " quota %llu", (unsigned long long)r->quota);
    if (r->rate.count > 0)
        text_putf(out, " rate %u/%llds", r->rate.count, (long long)(r->rate.per / SECOND));
    if (r->connections > 0)
        text_putf(out, " connections %u", r->connections);
    if (r->messages_per_connection > 0)
        text_putf(out, " messages %u", r->messages_per_connection);
    if (r->connect_wait > 0)
        text_putf(out, " connect-wait %lldms", (long long)(r->connect_wait / MILLISECOND));
    if (r->reply_wait > 0)
        text_putf(out, " reply-wait %lldms", (long long)(r->reply_wait / MILLISECOND));
    for (size_t i = 0; i < r->allow_private_count; i++) {
        text_put(out, S(" private "));
        address_put_ip(out, &r->allow_private[i].base);
        text_putf(out, "/%u", r->allow_private[i].bits);
    }
}

static size_t
copy_size(const struct route *r)
{
    return sizeof *r + r->host.len + r->path.len + r->user.len + r->helo.len + r->tls_ca.len + r->login_user.len +
           r->login_file.len;
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
    copy->host = move(r->host, &at);
    copy->path = move(r->path, &at);
    copy->user = move(r->user, &at);
    copy->helo = move(r->helo, &at);
    copy->tls_ca = move(r->tls_ca, &at);
    copy->login_user = move(r->login_user, &at);
    copy->login_file = move(r->login_file, &at);
    return copy;
}

void
route_free(struct route *r, struct mem *mem)
{
    mem_free(mem, r, copy_size(r));
}
