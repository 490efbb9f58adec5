/*
 * envelope - see envelope.h.
 *
 * Encoded, little-endian (base/codec.h); bytes fields are u32 length and the bytes, absent ones have length 2^32-1:
 *
 *     +---------+--------+---------+----------+---------+------------------+---------------+
 *     | version | ret u8 | body u8 | flags u8 | size    | accepted_wall    | hold_until    |
 *     | u8 = 1  |        |         | FLAG_*   | u64     | i64              | i64           |
 *     +---------+--------+---------+----------+---------+------------------+---------------+
 *     | reverse_path | envid | helo | client | session | trace | recipient count u32        |
 *     +--------------+-------+------+--------+---------+-------+----------------------------+
 *     with FLAG_BY, deliver_within i64 stands before reverse_path;
 *     then for each recipient:
 *     | notify u8 | origin u8 | address | orcpt | given | reverse_path |
 *
 * Nothing but `trace` may hold a control character: these strings end up in commands, header fields and logs, where a
 * CR or LF would be an injection. That holds before it is written and after it is read.
 */
#include "message/envelope.h"

#include "base/check.h"

enum {
    VERSION = 1,
    FLAG_SMTPUTF8 = 1,
    FLAG_TRUSTED = 2,
    FLAG_NOTICE = 4,
    FLAG_REQUIRE_TLS = 8,
    FLAG_TLS_OPTIONAL = 16,
    FLAG_BY = 32,
    FLAG_BY_RETURN = 64,
    FLAG_BY_TRACE = 128,
    FLAG_ALL = 255,
    HEAD_FIXED = 4 + 3 * 8 + 6 * 4 + 4,
    BY_BYTES = 8,
    RECIPIENT_FIXED = 2 + 4 * 4,
    NOTIFY_ALL = NOTIFY_NEVER | NOTIFY_SUCCESS | NOTIFY_FAILURE | NOTIFY_DELAY,
};
static_assert(HEAD_FIXED + BY_BYTES + LIMIT_COMMAND_LINE + LIMIT_ENVELOPE_WORD * 4 + LIMIT_ENVELOPE_TRACE <= LIMIT_ENVELOPE_FIXED,
              "all maxima together fit");

static const struct str base32 = STR("0123456789abcdefghjkmnpqrstvwxyz");

void
message_id_put(struct text *t, struct message_id id)
{
    char out[MESSAGE_ID_TEXT];

    for (size_t i = MESSAGE_ID_TEXT; i-- > 0;) {
        out[i] = base32.ptr[id.lo & 31];
        id.lo = id.lo >> 5 | id.hi << 59;
        id.hi >>= 5;
    }
    text_put(t, str_new(out, sizeof out));
}

struct str
message_id_text(struct message_id id, char memory[MESSAGE_ID_TEXT])
{
    struct text t = text_init(memory, MESSAGE_ID_TEXT);

    message_id_put(&t, id);
    return text_str(&t);
}

/* Crockford's reading: either case, and the letters that people take for digits. */
static int
base32_value(char c)
{
    c = byte_lower(c);
    if (c == 'o')
        c = '0';
    if (c == 'i' || c == 'l')
        c = '1';
    size_t at = str_find_byte(base32, c);
    return at < 32 ? (int)at : -1;
}

bool
message_id_parse(struct str s, struct message_id *out)
{
    struct message_id id = { 0 };

    if (s.len != MESSAGE_ID_TEXT || base32_value(s.ptr[0]) > 7) /* 26 x 5 bits are two too many */
        return false;
    for (size_t i = 0; i < s.len; i++) {
        int value = base32_value(s.ptr[i]);
        if (value < 0)
            return false;
        id.hi = id.hi << 5 | id.lo >> 59;
        id.lo = id.lo << 5 | (uint64_t)value;
    }
    *out = id;
    return true;
}

bool
notify_parse(struct str words, uint8_t *out_bits)
{
    static const struct {
        struct str word;
        uint8_t bit;
    } known[] = {
        { STR("SUCCESS"), NOTIFY_SUCCESS },
        { STR("FAILURE"), NOTIFY_FAILURE },
        { STR("DELAY"), NOTIFY_DELAY },
    };
    uint8_t bits = 0;

    if (str_eq_nocase(words, S("NEVER"))) {
        *out_bits = NOTIFY_NEVER;
        return true;
    }
    do {
        struct str word = str_cut(&words, ',');
        uint8_t bit = 0;
        for (size_t i = 0; i < sizeof known / sizeof *known; i++)
            if (str_eq_nocase(word, known[i].word))
                bit = known[i].bit;
        if (bit == 0)
            return false;
        bits |= bit;
    } while (!str_is_absent(words));
    *out_bits = bits;
    return true;
}

static bool
is_clean(struct str s, size_t max)
{
    return s.len <= max && !str_has_control(s);
}

/* Whole header lines only: what follows them must begin a line. */
static bool
trace_is_sound(struct str trace)
{
    return trace.len <= LIMIT_ENVELOPE_TRACE && (trace.len == 0 || str_ends(trace, S("\r\n"))) &&
           str_find_byte(trace, '\0') == trace.len && !str_starts(trace, S("\r\n")) &&
           str_find(trace, S("\r\n\r\n")) == trace.len;
}

static bool
recipient_is_sound(const struct recipient *r)
{
    return is_clean(r->address, LIMIT_COMMAND_LINE) && r->address.len > 0 && is_clean(r->orcpt, LIMIT_COMMAND_LINE) &&
           is_clean(r->given, LIMIT_COMMAND_LINE) && is_clean(r->reverse_path, LIMIT_COMMAND_LINE) &&
           r->notify <= NOTIFY_ALL && r->origin <= RECIPIENT_EXPANDED;
}

static bool
head_is_sound(const struct envelope *e)
{
    return e->deliver_within >= 0 && (e->deliver_within > 0 || (!e->deliver_or_return && !e->deliver_trace)) &&
           is_clean(e->reverse_path, LIMIT_COMMAND_LINE) && is_clean(e->envid, LIMIT_ENVELOPE_WORD) &&
           is_clean(e->helo, LIMIT_ENVELOPE_WORD) && is_clean(e->client, LIMIT_ENVELOPE_WORD) &&
           is_clean(e->session, LIMIT_ENVELOPE_WORD) && trace_is_sound(e->trace) && e->ret <= RET_HDRS &&
           e->body <= BODY_BINARYMIME && e->recipient_count <= LIMIT_ENVELOPE_RECIPIENTS;
}

size_t
envelope_size(const struct envelope *e)
{
    size_t size = HEAD_FIXED + e->reverse_path.len + e->envid.len + e->helo.len + e->client.len + e->session.len +
                  e->trace.len + (e->deliver_within > 0 ? BY_BYTES : 0);

    for (size_t i = 0; i < e->recipient_count; i++)
        size += recipient_size(&e->recipients[i]);
    return size;
}

size_t
recipient_size(const struct recipient *r)
{
    return RECIPIENT_FIXED + r->address.len + r->orcpt.len + r->given.len + r->reverse_path.len;
}

static void
recipient_put(struct put *p, const struct recipient *r)
{
    CHECK(recipient_is_sound(r));
    put_u8(p, r->notify);
    put_u8(p, r->origin);
    put_bytes(p, r->address);
    put_bytes(p, r->orcpt);
    put_bytes(p, r->given);
    put_bytes(p, r->reverse_path);
}

void
envelope_put(struct put *p, const struct envelope *e)
{
    CHECK(head_is_sound(e));
    put_u8(p, VERSION);
    put_u8(p, e->ret);
    put_u8(p, e->body);
    put_u8(p, (uint8_t)((e->smtputf8 ? FLAG_SMTPUTF8 : 0) | (e->trusted ? FLAG_TRUSTED : 0) |
                        (e->notice ? FLAG_NOTICE : 0) | (e->require_tls ? FLAG_REQUIRE_TLS : 0) |
                        (e->tls_optional ? FLAG_TLS_OPTIONAL : 0) | (e->deliver_within > 0 ? FLAG_BY : 0) |
                        (e->deliver_or_return ? FLAG_BY_RETURN : 0) | (e->deliver_trace ? FLAG_BY_TRACE : 0)));
    put_u64(p, e->size);
    put_i64(p, e->accepted_wall);
    put_i64(p, e->hold_until);
    if (e->deliver_within > 0)
        put_i64(p, e->deliver_within);
    put_bytes(p, e->reverse_path);
    put_bytes(p, e->envid);
    put_bytes(p, e->helo);
    put_bytes(p, e->client);
    put_bytes(p, e->session);
    put_bytes(p, e->trace);
    put_u32(p, (uint32_t)e->recipient_count);
    for (size_t i = 0; i < e->recipient_count; i++)
        recipient_put(p, &e->recipients[i]);
}

static struct str
keep_bytes(struct take *t, struct arena *arena, size_t max)
{
    return arena_keep(arena, take_bytes(t, max));
}

bool
envelope_take_head(struct take *t, struct arena *arena, struct envelope *out)
{
    struct envelope e = { 0 };

    if (take_u8(t) != VERSION)
        t->bad = true;
    e.ret = (uint8_t)take_enum(t, RET_HDRS);
    e.body = (uint8_t)take_enum(t, BODY_BINARYMIME);
    uint32_t flags = take_enum(t, FLAG_ALL);
    e.smtputf8 = flags & FLAG_SMTPUTF8;
    e.trusted = flags & FLAG_TRUSTED;
    e.notice = flags & FLAG_NOTICE;
    e.require_tls = flags & FLAG_REQUIRE_TLS;
    e.tls_optional = flags & FLAG_TLS_OPTIONAL;
    e.size = take_u64(t);
    e.accepted_wall = take_i64(t);
    e.hold_until = take_i64(t);
    if (flags & FLAG_BY)
        e.deliver_within = take_i64(t);
    e.deliver_or_return = flags & FLAG_BY_RETURN;
    e.deliver_trace = flags & FLAG_BY_TRACE;
    if (flags & FLAG_BY ? e.deliver_within <= 0 : (flags & (FLAG_BY_RETURN | FLAG_BY_TRACE)) != 0)
        t->bad = true;
    e.reverse_path = keep_bytes(t, arena, LIMIT_COMMAND_LINE);
    e.envid = keep_bytes(t, arena, LIMIT_ENVELOPE_WORD);
    e.helo = keep_bytes(t, arena, LIMIT_ENVELOPE_WORD);
    e.client = keep_bytes(t, arena, LIMIT_ENVELOPE_WORD);
    e.session = keep_bytes(t, arena, LIMIT_ENVELOPE_WORD);
    e.trace = keep_bytes(t, arena, LIMIT_ENVELOPE_TRACE);
    e.recipient_count = take_count(t, LIMIT_ENVELOPE_RECIPIENTS);
    /* Each takes RECIPIENT_FIXED bytes at least: a count that cannot be true must not make us reserve memory for it. */
    if (e.recipient_count > t->rest.len / RECIPIENT_FIXED || !head_is_sound(&e))
        t->bad = true;
    if (t->bad)
        return false;
    *out = e;
    return true;
}

bool
recipient_take(struct take *t, struct arena *arena, struct recipient *out)
{
    struct recipient r = { 0 };

    r.notify = (uint8_t)take_enum(t, NOTIFY_ALL);
    r.origin = (uint8_t)take_enum(t, RECIPIENT_EXPANDED);
    r.address = keep_bytes(t, arena, LIMIT_COMMAND_LINE);
    r.orcpt = keep_bytes(t, arena, LIMIT_COMMAND_LINE);
    r.given = keep_bytes(t, arena, LIMIT_COMMAND_LINE);
    r.reverse_path = keep_bytes(t, arena, LIMIT_COMMAND_LINE);
    if (!recipient_is_sound(&r))
        t->bad = true;
    if (t->bad)
        return false;
    *out = r;
    return true;
}

bool
envelope_take(struct take *t, struct arena *arena, struct envelope *out)
{
    struct envelope e;

    if (!envelope_take_head(t, arena, &e))
        return false;
    e.recipients = arena_alloc(arena, e.recipient_count * sizeof *e.recipients);
    for (size_t i = 0; i < e.recipient_count; i++)
        if (!recipient_take(t, arena, &e.recipients[i]))
            return false;
    *out = e;
    return true;
}

struct str
recipient_state_name(enum recipient_state state)
{
    static const struct str names[] = {
        [STATE_PENDING] = STR("pending"),
        [STATE_DELIVERED] = STR("delivered"),
        [STATE_FAILED_OWED] = STR("failed, notice owed"),
        [STATE_FAILED_SENT] = STR("failed, notice sent"),
        [STATE_FAILED_SILENT] = STR("failed, no notice"),
        [STATE_RELAYED] = STR("relayed"),
        [STATE_EXPANDED] = STR("expanded"),
        [STATE_SUPPRESSED] = STR("suppressed"),
        [STATE_REMOVED] = STR("removed"),
    };
    static_assert(sizeof names / sizeof *names == STATE_LAST + 1, "each state has a name");

    CHECK(state <= STATE_LAST);
    return names[state];
}
