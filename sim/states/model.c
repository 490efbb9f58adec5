/* model - see states.h: what a spool must hold after some acts. */
#include "sim/states/states.h"

#include "base/check.h"

#include <string.h>

static const char *const names[ACT_KINDS] = {
    [ACT_ACCEPT] = "accept",   [ACT_ACCEPT_TWO] = "accept-two",     [ACT_ACCEPT_CHUNKS] = "accept-chunks",
    [ACT_ABORT] = "abort",     [ACT_DELIVER] = "deliver",           [ACT_DELIVER_LAZY] = "deliver-lazily",
    [ACT_DEFER] = "defer",     [ACT_FAIL] = "fail-with-notice",     [ACT_HOLD] = "hold",
    [ACT_REMOVE] = "remove",
};

const char *
act_name(uint8_t kind)
{
    CHECK(kind < ACT_KINDS);
    return names[kind];
}

bool
act_accepts(uint8_t kind)
{
    return kind <= ACT_ACCEPT_CHUNKS || kind == ACT_FAIL;
}

/* ---- messages from numbers --------------------------------------------------------------------------------------- */

#define ID_HIGH UINT64_C(0x5374617465730000)

struct message_id
id_of(uint32_t number)
{
    return (struct message_id){ ID_HIGH ^ number, number * UINT64_C(0x9e3779b97f4a7c15) };
}

uint32_t
number_of(struct message_id id)
{
    uint32_t number = (uint32_t)(id.hi ^ ID_HIGH);

    return message_id_eq(id_of(number), id) ? number : 0;
}

void
content_fill(uint32_t number, char *memory, size_t size)
{
    struct prng prng;

    prng_seed(&prng, number);
    for (size_t i = 0; i < size; i += 8) {
        uint64_t word = prng_u64(&prng);
        memcpy(memory + i, &word, size - i < 8 ? size - i : 8);
    }
}

struct one
one_of_act(const struct act *act)
{
    static const uint32_t sizes[ACT_KINDS] = { [ACT_ACCEPT] = 300, [ACT_ACCEPT_TWO] = 1500, [ACT_ACCEPT_CHUNKS] = 10000,
                                               [ACT_FAIL] = 200 };

    return (struct one){
        .number = act->number, .size = sizes[act->kind], .recipients = act->kind == ACT_ACCEPT_TWO ? 2 : 1};
}

/* ---- views ------------------------------------------------------------------------------------------------------- */

struct one *
view_find(struct view *v, uint32_t number)
{
    for (size_t i = 0; i < v->count; i++)
        if (v->messages[i].number == number)
            return &v->messages[i];
    return NULL;
}

static void
drop_if_ended(struct view *v, struct one *m)
{
    for (size_t i = 0; i < m->recipients; i++)
        if (m->at[i].state == STATE_PENDING)
            return;
    memmove(m, m + 1, (size_t)(&v->messages[v->count] - (m + 1)) * sizeof *m);
    v->count--;
}

static uint8_t
state_after(uint8_t kind)
{
    static const uint8_t states[ACT_KINDS] = { [ACT_DELIVER] = STATE_DELIVERED, [ACT_DELIVER_LAZY] = STATE_DELIVERED,
                                               [ACT_FAIL] = STATE_FAILED_SENT, [ACT_REMOVE] = STATE_REMOVED };

    return states[kind]; /* else pending */
}

static void
settle(struct view *v, struct one *m, const struct act *act)
{
    uint8_t state = state_after(act->kind);

    if (act->kind == ACT_HOLD)
        m->held = act->holds;
    for (size_t i = 0; i < m->recipients; i++) {
        if (!(act->recipients >> i & 1))
            continue;
        CHECK(m->at[i].state == STATE_PENDING);
        m->at[i].state = state;
        m->at[i].attempts = act->attempts[i];
        m->at[i].reply = act->number;
        v->delivered += state == STATE_DELIVERED;
        v->failed += state == STATE_FAILED_SENT;
        v->removed += state == STATE_REMOVED;
    }
    drop_if_ended(v, m);
}

void
view_apply(struct view *v, const struct act *act)
{
    struct one *m = act->target ? view_find(v, act->target) : NULL;

    CHECK(!act->target || m);
    if (m)
        settle(v, m, act);
    if (act_accepts(act->kind)) {
        CHECK(v->count < MESSAGES_MAX);
        v->messages[v->count] = one_of_act(act);
        v->accepted += v->messages[v->count++].recipients;
    }
}

static const struct one *
one_of(const struct view *v, uint32_t number)
{
    for (size_t i = 0; i < v->count; i++)
        if (v->messages[i].number == number)
            return &v->messages[i];
    return NULL;
}

static bool
one_eq(const struct one *a, const struct one *b)
{
    if (a->number != b->number || a->size != b->size || a->recipients != b->recipients || a->held != b->held)
        return false;
    for (size_t i = 0; i < a->recipients; i++)
        if (a->at[i].state != b->at[i].state || a->at[i].attempts != b->at[i].attempts ||
            a->at[i].reply != b->at[i].reply)
            return false;
    return true;
}

bool
view_eq(const struct view *a, const struct view *b)
{
    if (a->count != b->count || a->accepted != b->accepted || a->delivered != b->delivered || a->failed != b->failed ||
        a->removed != b->removed)
        return false;
    for (size_t i = 0; i < a->count; i++) {
        const struct one *same = one_of(b, a->messages[i].number);
        if (!same || !one_eq(&a->messages[i], same))
            return false;
    }
    return true;
}

/* ---- what an act is about ---------------------------------------------------------------------------------------- */

/* The first pending recipient, the last, or all of them, as bits. */
static uint8_t
pending(const struct one *m, uint8_t kind)
{
    uint8_t all = 0;

    for (int i = 0; i < m->recipients; i++)
        if (m->at[i].state == STATE_PENDING)
            all |= (uint8_t)(1 << i);
    if (kind == ACT_REMOVE)
        return all;
    bool last = kind == ACT_FAIL || kind == ACT_DELIVER_LAZY;
    for (int i = 0; i < m->recipients; i++) {
        int at = last ? m->recipients - 1 - i : i;
        if (all >> at & 1)
            return (uint8_t)(1 << at);
    }
    UNREACHABLE();
}

void
act_aim(struct act *act, const struct one *m)
{
    act->target = m->number;
    act->holds = !m->held;
    if (act->kind == ACT_HOLD)
        return;
    act->recipients = pending(m, act->kind);
    for (size_t i = 0; i < m->recipients; i++)
        act->attempts[i] = (uint16_t)(m->at[i].attempts + 1);
}

/* As if all that has begun had been done; but what is handed in and not acknowledged cannot be settled yet. */
static struct view
view_to_act_on(const struct model *model)
{
    struct view v = model->base;

    for (size_t i = 0; i < model->count; i++) {
        struct act before = model->acts[i];
        if (before.progress == ACT_NOT_BEGUN || before.progress == ACT_REFUSED)
            continue;
        if (act_accepts(before.kind) && before.progress != ACT_DONE)
            before.kind = before.target ? ACT_DELIVER : ACT_ABORT; /* of a notice's target nothing is left to settle */
        view_apply(&v, &before);
    }
    return v;
}

bool
act_choose(const struct model *model, struct act *act)
{
    struct view v = view_to_act_on(model);
    bool newest =
        act->kind == ACT_DELIVER_LAZY || act->kind == ACT_DEFER || act->kind == ACT_HOLD || act->kind == ACT_REMOVE;

    if (act->kind <= ACT_ABORT)
        return true;
    if (v.count == 0)
        return false;
    act_aim(act, &v.messages[newest ? v.count - 1 : 0]);
    return true;
}

/* ---- what is allowed --------------------------------------------------------------------------------------------- */

/* Nobody waits for a lazy settle, but what is acknowledged after it was written behind it. */
static bool
is_certain(const struct model *model, size_t i)
{
    bool certain = model->acts[i].progress == ACT_DONE;

    for (size_t k = i + 1; k < model->count && model->acts[i].kind == ACT_DELIVER_LAZY && !model->at_once; k++)
        certain |= model->acts[k].progress == ACT_DONE && model->acts[k].kind != ACT_DELIVER_LAZY &&
                   model->acts[k].kind != ACT_ABORT;
    return certain && model->acts[i].progress != ACT_REFUSED;
}

/* Acts of which nothing is in the spool before its target is: a settle of a message that came to nothing. */
static bool
can_apply(struct view *v, const struct act *act)
{
    return !act->target || view_find(v, act->target);
}

bool
model_allows(const struct model *model, const struct view *found, struct view *out)
{
    size_t maybe[ACTS_MAX], count = 0;

    for (size_t i = 0; i < model->count; i++)
        if (model->acts[i].progress == ACT_UNDER_WAY && !is_certain(model, i))
            maybe[count++] = i;
    for (uint32_t subset = 0; subset < 1u << count; subset++) {
        bool in[ACTS_MAX] = { false }, possible = true;
        for (size_t k = 0; k < count; k++)
            in[maybe[k]] = subset >> k & 1;
        struct view v = model->base;
        for (size_t i = 0; i < model->count && possible; i++) {
            if (!in[i] && !is_certain(model, i))
                continue;
            possible = can_apply(&v, &model->acts[i]);
            if (possible)
                view_apply(&v, &model->acts[i]);
        }
        if (possible && view_eq(&v, found)) {
            *out = v;
            return true;
        }
    }
    return false;
}

struct model
model_of(const struct view *v)
{
    return (struct model){ .base = *v };
}

/* ---- for people -------------------------------------------------------------------------------------------------- */

void
view_put(struct text *out, const struct view *v)
{
    for (size_t i = 0; i < v->count; i++) {
        const struct one *m = &v->messages[i];
        text_putf(out, "%s%u%s(", i ? " " : "", m->number, m->held ? " held" : "");
        for (size_t k = 0; k < m->recipients; k++)
            text_putf(out, "%s%.*s/%u/%u", k ? ", " : "",
                      STR_ARG(recipient_state_name((enum recipient_state)m->at[k].state)), m->at[k].attempts,
                      m->at[k].reply);
        text_put(out, S(")"));
    }
    text_putf(out, "; accepted %llu, delivered %llu, failed %llu, removed %llu", (unsigned long long)v->accepted,
              (unsigned long long)v->delivered, (unsigned long long)v->failed, (unsigned long long)v->removed);
}

void
model_put(struct text *out, const struct model *model)
{
    static const char *const progress[] = { "not begun", "under way", "done", "refused" };

    for (size_t i = 0; i < model->count; i++) {
        const struct act *a = &model->acts[i];
        text_putf(out, "%s%s", i ? model->at_once ? " | " : ", " : "", act_name(a->kind));
        if (act_accepts(a->kind))
            text_putf(out, " %u", a->number);
        if (a->target)
            text_putf(out, " of %u.%u", a->target, a->recipients);
        text_putf(out, " [%s]", progress[a->progress]);
    }
}
