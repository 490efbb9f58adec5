/* recipients - see recipients.h. */
#include "smtp/recipients.h"

#include "base/check.h"
#include "base/map.h"

#include <string.h>

enum { RECIPIENTS_FIRST_CAP = 4 };

void
recipients_init(struct recipients *r, struct arena *arena, uint64_t seed)
{
    *r = (struct recipients){ .arena = arena, .seed = seed };
}

static bool
is_same(const struct recipient *a, const struct recipient *b)
{
    return (a->origin == RECIPIENT_EXPANDED) == (b->origin == RECIPIENT_EXPANDED) && str_eq(a->address, b->address);
}

/* The slot where it is, or would be. */
static uint32_t *
slot_of(const struct recipients *r, const struct recipient *wanted)
{
    size_t mask = 2 * r->cap - 1, at = hash_bytes(wanted->address, r->seed) & mask;

    while (r->slots[at] != 0 && !is_same(&r->list[r->slots[at] - 1], wanted))
        at = (at + 1) & mask;
    return &r->slots[at];
}

static void
grow(struct recipients *r)
{
    size_t cap = r->cap ? 2 * r->cap : RECIPIENTS_FIRST_CAP;
    struct recipient *list = arena_alloc(r->arena, cap * sizeof *list);

    if (r->count)
        memcpy(list, r->list, r->count * sizeof *list);
    r->list = list;
    r->cap = cap;
    r->slots = arena_alloc(r->arena, 2 * cap * sizeof *r->slots);
    for (size_t i = 0; i < r->count; i++)
        *slot_of(r, &r->list[i]) = (uint32_t)(i + 1);
}

bool
recipients_fit(const struct recipients *r, const struct rcpt_request *request, const struct recipient *found,
               size_t count)
{
    size_t bytes = r->bytes;

    for (size_t i = 0; i < count; i++) { /* at most: who is there already takes no more, and a list drops ORCPT */
        struct recipient one = found[i];
        one.orcpt = request->orcpt;
        one.given = request->address;
        bytes += recipient_size(&one);
    }
    return r->count + count <= LIMIT_RCPT_EXPANDED && bytes <= LIMIT_ENVELOPE_RCPT_BYTES;
}

/* RFC 3461 section 5.2.7.3 (c): members are asked as the alias was, but for SUCCESS, which the alias itself answers.
 * With nothing left to ask for, the sender wanted no other notice either. */
static uint8_t
notify_of_member(uint8_t notify)
{
    uint8_t others = notify & (uint8_t)~NOTIFY_SUCCESS;

    return notify != 0 && others == 0 ? NOTIFY_NEVER : others;
}

void
recipients_add(struct recipients *r, const struct rcpt_request *request, const struct recipient *found, size_t count)
{
    struct str orcpt = { 0 }, given = { 0 };         /* kept once for all, and not for somebody who is there already */
    struct str list_from = { 0 }, list_kept = { 0 }; /* all members of a list name the same owner */

    for (size_t i = 0; i < count; i++) {
        struct recipient one = found[i];
        bool of_list = one.origin == RECIPIENT_MEMBER && !str_is_absent(one.reverse_path);
        CHECK(one.address.len > 0);
        if (r->count == r->cap)
            grow(r);
        uint32_t *slot = slot_of(r, &one);
        if (*slot != 0 && (one.origin == RECIPIENT_MEMBER || r->list[*slot - 1].origin != RECIPIENT_MEMBER))
            continue;
        if (str_is_absent(given)) {
            orcpt = arena_keep(r->arena, request->orcpt);
            given = arena_keep(r->arena, request->address);
        }
        one.orcpt = of_list ? (struct str){ 0 } : orcpt;
        one.notify = of_list ? 0 : one.origin == RECIPIENT_MEMBER ? notify_of_member(request->notify) : request->notify;
        one.given = str_eq(given, one.address) ? (struct str){ 0 } : given;
        one.address = *slot != 0 ? r->list[*slot - 1].address : arena_keep(r->arena, one.address);
        if (one.reverse_path.ptr != list_from.ptr || one.reverse_path.len != list_from.len) {
            list_from = one.reverse_path;
            list_kept = arena_keep(r->arena, list_from);
        }
        one.reverse_path = list_kept;
        if (*slot == 0) {
            r->count++;
            *slot = (uint32_t)r->count;
        } else {
            r->bytes -= recipient_size(&r->list[*slot - 1]);
        }
        r->bytes += recipient_size(&one);
        r->list[*slot - 1] = one;
    }
}
