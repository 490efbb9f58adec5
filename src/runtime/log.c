/* log - see log.h: the line, its escapes, its time. How it leaves is the world's. */
#include "runtime/log.h"

#include "base/check.h"
#include "runtime/log_sink.h"
#include "runtime/sched.h"

enum {
    VALUE_BYTES = 2560, /* of one value, escaped: what follows it must fit as well */
    TAIL_BYTES = 16,    /* ,"cut":true} and LF always fit */
};

static const struct str level_names[] = {
    [LOG_DEBUG] = STR("debug"),
    [LOG_INFO] = STR("info"),
    [LOG_WARNING] = STR("warning"),
    [LOG_ERROR] = STR("error"),
};

void
log_sink_init(struct log_sink *sink, struct rt *rt, bool (*put)(struct log_sink *, struct str line))
{
    sink->put = put;
    sink->rt = rt;
    sink->least = LOG_INFO;
    rt->log = sink;
}

void
log_set_role(struct rt *rt, struct str role)
{
    struct text t = text_init(rt->log->role, sizeof rt->log->role - 1);

    text_put(&t, str_slice(role, 0, t.cap));
    rt->log->role_len = t.len;
}

void
log_set_level(struct rt *rt, enum log_level least)
{
    rt->log->least = (uint8_t)least;
}

uint64_t
log_dropped(struct rt *rt)
{
    return rt->log->dropped;
}

/* ---- values ------------------------------------------------------------------------------------------------------ */

/* Bytes of the UTF-8 character that s begins with, and its number; 0: it is none (RFC 3629: not overlong, no
 * surrogate). */
static size_t
take_character(struct str s, uint32_t *out)
{
    const unsigned char *b = (const unsigned char *)s.ptr;
    size_t len = b[0] < 0x80 ? 1 : b[0] >= 0xc2 && b[0] < 0xe0 ? 2 : (b[0] & 0xf0) == 0xe0 ? 3
                 : b[0] >= 0xf0 && b[0] < 0xf5 ? 4 : 0;
    uint32_t c = len < 2 ? b[0] : b[0] & (0x7fu >> len);

    if (len == 0 || len > s.len)
        return 0;
    for (size_t i = 1; i < len; i++) {
        if ((b[i] & 0xc0) != 0x80)
            return 0;
        c = c << 6 | (b[i] & 0x3fu);
    }
    if ((len == 3 && (c < 0x800 || (c >= 0xd800 && c < 0xe000))) || (len == 4 && (c < 0x10000 || c > 0x10ffff)))
        return 0;
    *out = c;
    return len;
}

/* Controls of both kinds, line separators, marks that turn the direction of writing (a terminal could be made to lie).
 * */
static bool
is_unsafe(uint32_t c)
{
    return c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0x200e || c == 0x200f || (c >= 0x2028 && c <= 0x202e)
           || (c >= 0x2066 && c <= 0x2069) || c == 0xfeff;
}

/* Appends the character at the front of *s, as it is or escaped. */
static void
put_character(struct text *out, struct str *s)
{
    uint32_t c = 0;
    size_t len = take_character(*s, &c);

    if (len == 0) {
        text_putf(out, "\\\\x%02x", (unsigned char)s->ptr[0]);
        *s = str_from(*s, 1);
        return;
    }
    if (c == '"' || c == '\\') {
        text_put_byte(out, '\\');
        text_put_byte(out, (char)c);
    } else if (c == '\n' || c == '\r' || c == '\t') {
        text_put(out, c == '\n' ? S("\\n") : c == '\r' ? S("\\r") : S("\\t"));
    } else if (is_unsafe(c)) {
        text_putf(out, "\\u%04x", c);
    } else {
        text_put(out, str_slice(*s, 0, len));
    }
    *s = str_from(*s, len);
}

static void
put_escaped(struct log_sink *sink, struct str value)
{
    struct text *line = &sink->line;
    size_t most = line->len + VALUE_BYTES;

    while (value.len > 0) {
        char memory[16];
        struct text one = text_init(memory, sizeof memory);
        put_character(&one, &value);
        if (line->len + one.len > most || line->len + one.len + 1 > line->cap) {
            sink->cut = true;
            return;
        }
        text_put(line, text_str(&one));
    }
}

/* For people: a word stands as it is, anything that could be misread gets quotes. */
static bool
needs_quotes(struct str value)
{
    for (size_t i = 0; i < value.len; i++)
        if ((unsigned char)value.ptr[i] <= ' ' || value.ptr[i] == '"' || value.ptr[i] == '=' || value.ptr[i] == '\\')
            return true;
    return value.len == 0;
}

static void
put_quoted(struct log_sink *sink, struct str value)
{
    bool quotes = !sink->readable || needs_quotes(value);

    if (quotes)
        text_put_byte(&sink->line, '"');
    put_escaped(sink, value);
    if (quotes)
        text_put_byte(&sink->line, '"');
}

/* False: no room for it. */
static bool
put_key(struct log_sink *sink, const char *key, size_t room)
{
    struct str name = str_from_cstr(key);

    if (sink->line.cap - sink->line.len < name.len + 8 + room) {
        sink->cut = true;
        return false;
    }
    if (sink->readable) {
        text_put_byte(&sink->line, ' ');
        text_put(&sink->line, name);
        text_put_byte(&sink->line, '=');
    } else {
        text_put(&sink->line, S(",\""));
        text_put(&sink->line, name);
        text_put(&sink->line, S("\":"));
    }
    return true;
}

/* Days since 1970-01-01 to a date; the year begins in March, so that the leap day is its last. */
static void
put_time(struct text *out, int64_t wall_ns, bool for_people)
{
    int64_t ms = wall_ns / MILLISECOND, second = ms / 1000, days = second / 86400, day_second = second % 86400;
    int64_t z = days + 719468, era = z / 146097, day_of_era = z % 146097;
    int64_t year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    int64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    int64_t from_march = (5 * day_of_year + 2) / 153, day = day_of_year - (153 * from_march + 2) / 5 + 1;
    int64_t month = from_march < 10 ? from_march + 3 : from_march - 9;
    int64_t year = year_of_era + era * 400 + (month <= 2);

    text_putf(out, "%04d-%02d-%02d%c%02d:%02d:%02d.%03d%s", (int)year, (int)month, (int)day, for_people ? ' ' : 'T',
              (int)(day_second / 3600), (int)(day_second / 60 % 60), (int)(day_second % 60), (int)(ms % 1000),
              for_people ? "" : "Z");
}

/* ---- the line ---------------------------------------------------------------------------------------------------- */

static void
begin(struct log_sink *sink, enum log_level level, const char *event)
{
    struct text *line = &sink->line;
    struct str role = str_new(sink->role, sink->role_len);

    CHECK(!sink->open); /* nothing suspends in between, and lines do not nest */
    sink->open = true;
    sink->cut = false;
    *line = text_init(sink->memory, sizeof sink->memory - TAIL_BYTES);
    if (sink->readable) {
        put_time(line, rt_wall(sink->rt), true);
        text_putf(line, " %-7.*s ", STR_ARG(level_names[level]));
        if (role.len > 0)
            text_putf(line, "%.*s[%u]: ", STR_ARG(role), (unsigned)sink->pid);
        text_put(line, str_from_cstr(event));
        return;
    }
    text_put(line, S("{\"time\":\""));
    put_time(line, rt_wall(sink->rt), false);
    text_put(line, S("\",\"level\":\""));
    text_put(line, level_names[level]);
    text_put(line, S("\""));
    if (role.len > 0 && put_key(sink, "role", role.len))
        put_quoted(sink, role);
    if (put_key(sink, "pid", 10))
        text_put_u64(line, sink->pid);
    if (put_key(sink, "event", 64))
        put_quoted(sink, str_from_cstr(event));
}

static struct str
finish(struct log_sink *sink)
{
    struct text *line = &sink->line;

    CHECK(sink->open);
    CHECK(!line->full);
    line->cap = sizeof sink->memory;
    if (sink->cut)
        text_put(line, sink->readable ? S(" cut=true") : S(",\"cut\":true"));
    text_put(line, sink->readable ? S("\n") : S("}\n"));
    CHECK(!line->full);
    sink->open = false;
    return text_str(line);
}

/* Tells what is missing, before the line that comes next. False: there is still no room. */
static bool
tell_dropped(struct log_sink *sink)
{
    struct log_line notice = { sink };

    begin(sink, LOG_WARNING, "log-lines-dropped");
    log_int(&notice, "count", (int64_t)sink->dropped_untold);
    if (!sink->put(sink, finish(sink)))
        return false;
    sink->dropped_untold = 0;
    return true;
}

void
log_begin(struct log_line *l, struct rt *rt, enum log_level level, const char *event)
{
    struct log_sink *sink = rt->log;

    l->sink = level >= sink->least ? sink : NULL;
    if (!l->sink)
        return;
    if (sink->dropped_untold > 0 && !tell_dropped(sink)) {
        sink->dropped++;
        sink->dropped_untold++;
        l->sink = NULL;
        return;
    }
    begin(sink, level, event);
}

void
log_end(struct log_line *l)
{
    struct log_sink *sink = l->sink;

    if (sink && !sink->put(sink, finish(sink))) {
        sink->dropped++;
        sink->dropped_untold++;
    }
}

void
log_str(struct log_line *l, const char *key, struct str value)
{
    if (l->sink && !str_is_absent(value) && put_key(l->sink, key, 8))
        put_quoted(l->sink, value);
}

void
log_int(struct log_line *l, const char *key, int64_t value)
{
    if (l->sink && put_key(l->sink, key, 20))
        text_put_i64(&l->sink->line, value);
}

void
log_bool(struct log_line *l, const char *key, bool value)
{
    if (l->sink && put_key(l->sink, key, 5))
        text_put(&l->sink->line, value ? S("true") : S("false"));
}

void
log_seconds(struct log_line *l, const char *key, int64_t ns)
{
    uint64_t ms = (ns < 0 ? 0 - (uint64_t)ns : (uint64_t)ns) / (uint64_t)MILLISECOND;

    if (l->sink && put_key(l->sink, key, 24))
        text_putf(&l->sink->line, "%s%llu.%03u", ns < 0 ? "-" : "", (unsigned long long)(ms / 1000),
                  (unsigned)(ms % 1000));
}

void
log_time(struct log_line *l, const char *key, int64_t wall_ns)
{
    char memory[40];
    struct text t = text_init(memory, sizeof memory);

    put_time(&t, wall_ns < 0 ? 0 : wall_ns, false);
    log_str(l, key, text_str(&t));
}

void
log_address(struct log_line *l, const char *key, const struct address *a)
{
    char memory[160];
    struct text t = text_init(memory, sizeof memory);

    address_put(&t, a);
    log_str(l, key, text_str(&t));
}

void
log_err(struct log_line *l, struct err e)
{
    char memory[256];
    struct text t = text_init(memory, sizeof memory);

    err_text(e, &t);
    log_str(l, "error", text_str(&t));
}
