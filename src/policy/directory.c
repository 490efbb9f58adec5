/*
 * directory - see directory.h: the answers. How it is built is in directory_config.c.
 *
 * A name is looked for as it is, then without its subaddress, then as postmaster at home, then behind the gateway, then
 * by catch-all. An alias is expanded breadth first from a queue of addresses; what was expanded once is not expanded
 * again.
 */
#include "policy/directory.h"

#include "base/check.h"
#include "base/limits.h"
#include "message/domain.h"
#include "policy/directory_data.h"

#include <string.h>

struct str
directory_fold(struct arena *arena, struct str s)
{
    struct text lower = text_init(arena_alloc(arena, s.len), s.len);

    text_put_lower(&lower, s);
    return text_str(&lower);
}

const struct domain *
directory_find_domain(const struct directory *d, struct str name)
{
    const struct domain *domain = map_get(&d->domains, name);

    return domain && domain->same_as ? domain->same_as : domain;
}

/* A list whose file is empty is nobody. */
static const struct entry *
find_folded(const struct rules *rules, struct str folded)
{
    const struct entry *entry = map_get(&rules->names, folded);

    return entry && (entry->mailbox || entry->listed || entry->target_count > 0) ? entry : NULL;
}

static const struct entry *
find_name(const struct rules *rules, struct str local, struct arena *arena)
{
    return find_folded(rules, directory_fold(arena, local));
}

/* Could the host behind us take this local part for a route to elsewhere? */
static bool
is_suspicious(struct str local)
{
    return str_find_byte(local, '%') < local.len || str_find_byte(local, '!') < local.len ||
           str_find_byte(local, '@') < local.len;
}

struct found
directory_find(const struct directory *d, const struct domain *domain, struct str local, struct arena *arena)
{
    const struct rules *rules = domain->rules;
    const struct entry *entry = find_name(rules, local, arena);
    struct str user = local, detail;

    if (!entry && !str_is_absent(rules->subaddress) && path_split_detail(local, rules->subaddress, &user, &detail))
        entry = find_name(rules, user, arena);
    if (entry)
        return (struct found){ FOUND_ENTRY, domain, entry };
    bool is_relayed = rules->recipients != RECIPIENTS_UNSAID;
    if (is_relayed && rules->recipients != RECIPIENTS_FILE) {
        if (is_suspicious(local))
            return (struct found){ FOUND_SUSPICIOUS, domain, NULL };
        return (struct found){ rules->recipients == RECIPIENTS_ANY ? FOUND_RELAYED : FOUND_VERIFY, domain, NULL };
    }
    /* RFC 5321 section 4.5.1: every domain that we take mail for has a postmaster. */
    if (str_eq_nocase(local, S("postmaster")) && !rules->catch_all && d->home && d->home != domain)
        return directory_find(d, d->home, local, arena); /* once: at home there is no further home */
    if (rules->catch_all)
        return (struct found){ FOUND_ENTRY, domain, rules->catch_all };
    return (struct found){ FOUND_NOBODY, domain, NULL };
}

/* ---- expansion ------------------------------------------------------------------------------------------------- */

struct item { /* an address that an alias led to */
    const struct target *target;
    const struct domain *from;  /* the domain of the alias */
    struct str reverse_path;    /* of its list; absent: none */
    unsigned depth;
};

struct walk {
    const struct directory *d;
    struct arena *arena;
    struct map seen;            /* "a" address: an alias that was expanded; "f" address: a final recipient */
    struct item *items;
    size_t head, count, cap;
    struct recipient *recipients;
    size_t recipient_count, recipient_cap;
    enum expansion expansion;
};

static struct str
address_of(struct arena *arena, struct str local, struct str domain)
{
    return path_text((struct path){ local, domain }, arena);
}

static struct str
entry_address(struct arena *arena, const struct found *found)
{
    return address_of(arena, found->entry->name, found->domain->name);
}

static bool
see(struct walk *w, struct str prefix, struct str address)
{
    return map_put(&w->seen, arena_join(w->arena, prefix, address), w) == NULL;
}

static void
add_final(struct walk *w, struct str address, struct str reverse_path)
{
    if (!see(w, S("f"), address))
        return;
    if (w->recipient_count == LIMIT_RCPT_EXPANDED) {
        w->expansion = EXPANSION_TOO_MANY;
        return;
    }
    if (w->recipient_count == w->recipient_cap) {
        size_t cap = w->recipient_cap ? 2 * w->recipient_cap : 4;
        struct recipient *more = arena_alloc(w->arena, cap * sizeof *more);
        if (w->recipient_count > 0)
            memcpy(more, w->recipients, w->recipient_count * sizeof *more);
        w->recipients = more;
        w->recipient_cap = cap;
    }
    w->recipients[w->recipient_count++] = (struct recipient){ .address = address, .reverse_path = reverse_path };
}

/* "owner-NAME@DOMAIN", if such a name exists (and is not itself the alias); else what the alias inherits. */
static struct str
owner_of(struct arena *arena, const struct found *alias, struct str inherited)
{
    struct str name = alias->entry->name;
    struct str owner = arena_join(arena, S("owner-"), name);

    if (str_starts_nocase(name, S("owner-")) || !find_name(alias->domain->rules, owner, arena))
        return inherited;
    return address_of(arena, owner, alias->domain->name);
}

static void
push_targets(struct walk *w, const struct found *alias, struct str reverse_path, unsigned depth)
{
    const struct entry *entry = alias->entry;

    if (!see(w, S("a"), entry_address(w->arena, alias)))
        return;
    if (depth > LIMIT_ALIAS_DEPTH) {
        w->expansion = EXPANSION_TOO_DEEP;
        return;
    }
    reverse_path = owner_of(w->arena, alias, reverse_path);
    if (entry->target_count > w->cap - w->count) {
        size_t cap = 2 * (w->count + entry->target_count);
        struct item *more = arena_alloc(w->arena, cap * sizeof *more);
        if (w->count > 0)
            memcpy(more, w->items, w->count * sizeof *more);
        w->items = more;
        w->cap = cap;
    }
    for (size_t i = 0; i < entry->target_count; i++)
        w->items[w->count++] = (struct item){ &entry->targets[i], alias->domain, reverse_path, depth };
}

static void
follow(struct walk *w, const struct item *item)
{
    const struct target *target = item->target;
    const struct domain *domain = item->from;
    struct arena *arena = w->arena;

    if (!str_is_absent(target->domain)) {
        domain = directory_find_domain(w->d, target->domain);
        if (!domain) {
            add_final(w, address_of(arena, target->local, target->domain), item->reverse_path);
            return;
        }
    }
    struct found found = directory_find(w->d, domain, target->local, arena);
    if (found.kind !=
        FOUND_ENTRY) /* behind a gateway; or unknown, and fails visibly at delivery rather than vanish here */
        add_final(w, address_of(arena, target->local, domain->name), item->reverse_path);
    else if (found.entry->target_count > 0 && !target->own_mailbox)
        push_targets(w, &found, item->reverse_path, item->depth + 1);
    else
        add_final(w, entry_address(arena, &found), item->reverse_path);
}

enum expansion
directory_expand(const struct directory *d, const struct found *found, struct arena *arena,
                 struct recipient **out_recipients, size_t *out_count)
{
    struct walk w = { .d = d, .arena = arena };

    map_init(&w.seen, d->mem, d->seed);
    push_targets(&w, found, (struct str){ NULL, 0 }, 1);
    while (w.head < w.count && w.expansion == EXPANSION_WHOLE) {
        struct item item = w.items[w.head++];
        follow(&w, &item);
    }
    map_done(&w.seen);
    *out_recipients = w.recipients;
    *out_count = w.recipient_count;
    return w.expansion;
}

/* ---- RCPT ------------------------------------------------------------------------------------------------------ */

static void
answer_one(struct directory_verdict *out, enum directory_answer answer, struct str address,
           enum recipient_origin origin, struct arena *arena)
{
    *out = (struct directory_verdict){ .answer = (uint8_t)answer, .count = 1 };
    out->recipients = arena_new(arena, struct recipient);
    *out->recipients = (struct recipient){ .address = address, .origin = (uint8_t)origin };
}

static void
answer_alias(const struct directory *d, const struct found *found, struct str address, struct arena *arena,
             struct directory_verdict *out)
{
    struct recipient *finals;
    size_t count;

    enum expansion expansion = directory_expand(d, found, arena, &finals, &count);
    if (expansion == EXPANSION_TOO_MANY) {
        *out = (struct directory_verdict){ .answer = DIRECTORY_TOO_MANY };
        return;
    }
    if (expansion == EXPANSION_TOO_DEEP || count == 0) {
        *out = (struct directory_verdict){ .answer = DIRECTORY_LOOP };
        return;
    }
    bool several = count > 1 || found->entry->list || !str_is_absent(finals[0].reverse_path);
    *out = (struct directory_verdict){ .answer = DIRECTORY_ACCEPT, .count = count + several };
    out->recipients = arena_alloc(arena, out->count * sizeof *out->recipients);
    if (several) /* RFC 3461 section 5.2.7.3: the alias itself, which ends here */
        out->recipients[0] = (struct recipient){ .address = address, .origin = RECIPIENT_EXPANDED };
    for (size_t i = 0; i < count; i++) {
        finals[i].origin = several ? RECIPIENT_MEMBER : RECIPIENT_ALIAS;
        out->recipients[i + several] = finals[i];
    }
}

static struct str
target_address(const struct target *target, const struct domain *from, struct arena *arena)
{
    return address_of(arena, target->local, str_is_absent(target->domain) ? from->name : target->domain);
}

static void
answer_entry(const struct directory *d, const struct found *found, const struct directory_query *q, struct arena *arena,
             struct directory_verdict *out)
{
    const struct entry *entry = found->entry;

    if (entry->forward == FORWARD_551) {
        *out = (struct directory_verdict){ .answer = DIRECTORY_MOVED };
        out->elsewhere = target_address(&entry->targets[0], found->domain, arena);
    } else if (entry->target_count > 0) {
        answer_alias(d, found, address_of(arena, q->path.local, found->domain->name), arena, out);
        if (entry->forward == FORWARD_251 && out->answer == DIRECTORY_ACCEPT) {
            out->answer = DIRECTORY_FORWARD;
            out->elsewhere = target_address(&entry->targets[0], found->domain, arena);
        }
    } else {
        struct str domain = domain_to_ascii(q->path.domain, arena);
        bool same = str_eq_nocase(q->path.local, entry->name) && str_eq(domain, found->domain->name);
        answer_one(out, DIRECTORY_ACCEPT, entry_address(arena, found), same ? RECIPIENT_GIVEN : RECIPIENT_ALIAS, arena);
    }
}

static bool
is_our_literal(const struct directory *d, struct str literal, const struct address *local)
{
    struct address a;

    if (!domain_parse_literal(literal, &a))
        return false;
    if (local) {
        struct address unmapped = address_unmap(*local);
        if (address_same_ip(&a, &unmapped))
            return true;
    }
    for (size_t i = 0; i < d->ours_count; i++)
        if (address_same_ip(&a, &d->ours[i]))
            return true;
    return false;
}

/* Which domain of ours is meant: NULL and *out_answer: none, and what to say. */
static const struct domain *
domain_of(const struct directory *d, const struct directory_query *q, struct arena *arena,
          enum directory_answer *out_answer)
{
    struct str name = q->path.domain;
    bool role = path_is_postmaster(q->path) || str_eq_nocase(q->path.local, S("abuse"));

    *out_answer = q->trusted ? DIRECTORY_RELAY : DIRECTORY_NOT_RELAYED;
    if (name.len == 0) {
        *out_answer = DIRECTORY_UNQUALIFIED;
        return role ? d->home : NULL;
    }
    if (name.ptr[0] == '[')
        return is_our_literal(d, name, q->local) ? d->home : NULL;
    name = domain_to_ascii(domain_without_dot(name), arena);
    if (str_is_absent(name)) {
        if (q->trusted)
            *out_answer = DIRECTORY_UNQUALIFIED;
        return NULL;
    }
    const struct domain *domain = directory_find_domain(d, name);
    if (!domain && str_eq(name, d->hostname)) {
        *out_answer = DIRECTORY_UNKNOWN; /* we are not going to send to ourselves */
        return role ? d->home : NULL;
    }
    return domain;
}

void
directory_lookup(const struct directory *d, const struct directory_query *q, struct arena *arena,
                 struct directory_verdict *out)
{
    enum directory_answer answer;
    const struct domain *domain = domain_of(d, q, arena, &answer);

    if (q->path.local.len == 0)
        answer = DIRECTORY_UNQUALIFIED;
    if (!domain || q->path.local.len == 0) {
        *out = (struct directory_verdict){ .answer = (uint8_t)answer };
        if (answer == DIRECTORY_RELAY)
            answer_one(out, answer, path_text(q->path, arena), RECIPIENT_GIVEN, arena);
        return;
    }
    struct found found = directory_find(d, domain, q->path.local, arena);
    struct str address = address_of(arena, q->path.local, domain->name);
    switch (found.kind) {
    case FOUND_ENTRY:
        answer_entry(d, &found, q, arena, out);
        return;
    case FOUND_RELAYED:
        answer_one(out, DIRECTORY_ACCEPT, address, RECIPIENT_GIVEN, arena);
        return;
    case FOUND_VERIFY:
        answer_one(out, DIRECTORY_VERIFY, address, RECIPIENT_GIVEN, arena);
        return;
    case FOUND_SUSPICIOUS:
        if (!q->trusted)
            *out = (struct directory_verdict){ .answer = DIRECTORY_NOT_RELAYED };
        else if (domain->rules->recipients == RECIPIENTS_ANY)
            answer_one(out, DIRECTORY_ACCEPT, address, RECIPIENT_GIVEN, arena);
        else
            answer_one(out, DIRECTORY_VERIFY, address, RECIPIENT_GIVEN, arena);
        return;
    case FOUND_NOBODY:
        *out = (struct directory_verdict){ .answer = DIRECTORY_UNKNOWN };
        return;
    }
    UNREACHABLE();
}

size_t
directory_answer_bytes(const struct directory *d)
{
    return d->answer_bytes;
}

/* ---- VRFY and EXPN --------------------------------------------------------------------------------------------- */

/* Where `what` is found. Without a domain every domain of ours is asked. FOUND_NOBODY: *out says why. */
static struct found
find_what(const struct directory *d, struct str what, struct arena *arena, struct directory_verdict *out)
{
    struct directory_query q = { 0 };
    struct found found = { FOUND_NOBODY, NULL, NULL };
    enum directory_answer answer;

    *out = (struct directory_verdict){ .answer = DIRECTORY_UNKNOWN };
    if (!path_parse(str_trim(what), arena, &q.path) || q.path.local.len == 0)
        return found;
    if (q.path.domain.len > 0) {
        const struct domain *domain = domain_of(d, &q, arena, &answer);
        if (domain)
            return directory_find(d, domain, q.path.local, arena);
        out->answer = (uint8_t)answer;
        return found;
    }
    struct str folded = directory_fold(arena, q.path.local);
    for (const struct domain *at = d->first; at; at = at->next) {
        const struct entry *entry = at->same_as ? NULL : find_folded(at->rules, folded);
        if (entry && found.kind == FOUND_ENTRY) {
            out->answer = DIRECTORY_AMBIGUOUS;
            return (struct found){ FOUND_NOBODY, NULL, NULL };
        }
        if (entry)
            found = (struct found){ FOUND_ENTRY, at, entry };
    }
    if (found.kind == FOUND_NOBODY && path_is_postmaster(q.path) && d->home)
        return directory_find(d, d->home, q.path.local, arena);
    return found;
}

void
directory_vrfy(const struct directory *d, struct str what, struct arena *arena, struct directory_verdict *out)
{
    struct found found = find_what(d, what, arena, out);

    if (found.kind == FOUND_VERIFY || found.kind == FOUND_RELAYED) {
        *out = (struct directory_verdict){ .answer = DIRECTORY_VERIFY };
    } else if (found.kind == FOUND_ENTRY) {
        const struct entry *entry = found.entry;
        bool moved = entry->forward == FORWARD_251 || entry->forward == FORWARD_551;
        bool catches_all = entry == found.domain->rules->catch_all;
        if (catches_all) { /* whether the name is somebody's cannot be said */
            *out = (struct directory_verdict){ .answer = DIRECTORY_VERIFY };
            return;
        }
        answer_one(out, DIRECTORY_ACCEPT, entry_address(arena, &found), RECIPIENT_GIVEN, arena);
        if (moved) {
            out->answer = entry->forward == FORWARD_251 ? DIRECTORY_FORWARD : DIRECTORY_MOVED;
            out->count = 0;
            out->elsewhere = target_address(&entry->targets[0], found.domain, arena);
        }
    }
}

void
directory_expn(const struct directory *d, struct str what, struct arena *arena, struct directory_verdict *out)
{
    struct found found = find_what(d, what, arena, out);

    if (found.kind == FOUND_VERIFY || found.kind == FOUND_RELAYED) {
        *out = (struct directory_verdict){ .answer = DIRECTORY_VERIFY };
    } else if (found.kind == FOUND_ENTRY && found.entry->target_count == 0) {
        answer_one(out, DIRECTORY_ACCEPT, entry_address(arena, &found), RECIPIENT_GIVEN, arena);
    } else if (found.kind == FOUND_ENTRY) {
        const struct entry *entry = found.entry;
        *out = (struct directory_verdict){ .answer = DIRECTORY_ACCEPT, .count = entry->target_count };
        out->recipients = arena_alloc(arena, out->count * sizeof *out->recipients);
        for (size_t i = 0; i < out->count; i++)
            out->recipients[i] = (struct recipient){ .address = target_address(&entry->targets[i], found.domain, arena),
                                                     .origin = RECIPIENT_MEMBER };
    }
}

/* ---- routes ---------------------------------------------------------------------------------------------------- */

const struct directory_route *
directory_route(const struct directory *d, struct str domain_name)
{
    static const struct directory_route none = { .kind = DIRECTORY_ROUTE_NONE };
    const struct domain *domain = directory_find_domain(d, domain_name);

    if (!domain) { /* not as we write it ourselves: in other letters perhaps */
        struct arena scratch;
        arena_init(&scratch, d->mem, 512, 64 << 10);
        struct str name = domain_to_ascii(domain_without_dot(domain_name), &scratch);
        domain = str_is_absent(name) ? NULL : directory_find_domain(d, name);
        arena_done(&scratch);
    }
    return domain ? &domain->rules->route : &none;
}

static void
put_path(struct text *out, struct str template, struct str domain, struct str local)
{
    size_t at;

    while ((at = str_find_byte(template, '{')) < template.len) {
        text_put(out, str_slice(template, 0, at));
        template = str_from(template, at);
        if (str_take(&template, S("{domain}")))
            text_put(out, domain);
        else if (str_take(&template, S("{local}")))
            text_put(out, local);
        else
            UNREACHABLE(); /* the configuration was refused */
    }
    text_put(out, template);
}

bool
directory_maildir(const struct directory *d, struct str address, struct text *out_path)
{
    struct arena scratch;
    struct path path;
    bool found = false;

    arena_init(&scratch, d->mem, 1024, 64 << 10);
    if (path_parse(address, &scratch, &path) && path.domain.len > 0) {
        struct str name = domain_to_ascii(path.domain, &scratch);
        const struct domain *domain = str_is_absent(name) ? NULL : directory_find_domain(d, name);
        const struct entry *entry = domain ? find_name(domain->rules, path.local, &scratch) : NULL;
        found = entry && entry->mailbox && domain->rules->route.kind == DIRECTORY_ROUTE_MAILDIR;
        if (found)
            put_path(out_path, domain->rules->route.maildir, domain->name, entry->name);
    }
    arena_done(&scratch);
    return found && !out_path->full;
}

bool
directory_next(const struct directory *d, const struct domain **at, struct directory_domain_info *out)
{
    const struct domain *domain = *at ? (*at)->next : d->first;

    if (!domain)
        return false;
    const struct domain *real = domain->same_as ? domain->same_as : domain;
    *out = (struct directory_domain_info){ .name = domain->name, .route = &real->rules->route };
    out->names = real->rules->names.count;
    if (domain->same_as)
        out->same_as = domain->same_as->name;
    *at = domain;
    return true;
}

bool
directory_has_postmaster(const struct directory *d, struct conf_where *out_where)
{
    *out_where = d->home ? d->home->where : (struct conf_where){ 0 };
    return d->has_postmaster;
}
