/* sts - see sts.h. Field names and values count case, as the grammar has it; host names do not. */
#include "policy/sts.h"

#include "base/check.h"
#include "message/domain.h"

/* ---- the record -------------------------------------------------------------------------------------------------- */

static bool
is_id(struct str s)
{
    for (size_t i = 0; i < s.len; i++)
        if (!byte_is_alnum(s.ptr[i]))
            return false;
    return s.len >= 1 && s.len <= STS_ID_MAX;
}

/* sts-ext-name and sts-policy-ext-name */
static bool
is_field_name(struct str s)
{
    for (size_t i = 0; i < s.len; i++)
        if (!byte_is_alnum(s.ptr[i]) && (i == 0 || !str_has_byte(S("_-."), s.ptr[i])))
            return false;
    return s.len >= 1 && s.len <= 32;
}

/* sts-ext-value: any printable character but ";", "=" and space */
static bool
is_extension_value(struct str s)
{
    for (size_t i = 0; i < s.len; i++)
        if (s.ptr[i] < 0x21 || s.ptr[i] > 0x7e || s.ptr[i] == ';' || s.ptr[i] == '=')
            return false;
    return s.len >= 1;
}

bool
sts_record_parse(struct str record, struct str *out_id)
{
    struct str id = { NULL, 0 };

    if (!str_take(&record, S("v=STSv1;")))
        return false;
    while (!str_is_absent(record)) {
        struct str field = str_trim(str_cut(&record, ';'));
        if (field.len == 0 && str_is_absent(record)) /* a semicolon at the end */
            break;
        struct str name = str_cut(&field, '=');
        if (!is_field_name(name) || str_is_absent(field))
            return false;
        if (!str_eq(name, S("id"))) {
            if (!is_extension_value(field))
                return false;
        } else if (!is_id(field)) {
            return false;
        } else if (str_is_absent(id)) {
            id = field;
        }
    }
    if (str_is_absent(id))
        return false;
    *out_id = id;
    return true;
}

bool
sts_records_parse(const struct dns_record *records, size_t count, struct str *out_id)
{
    const struct dns_record *found = NULL;

    for (size_t i = 0; i < count; i++) {
        if (!str_starts(records[i].data, S("v=STSv1;")))
            continue;
        if (found) /* "If the number of resulting records is not one": as if there were none */
            return false;
        found = &records[i];
    }
    return found && sts_record_parse(found->data, out_id);
}

/* ---- the policy -------------------------------------------------------------------------------------------------- */

static const struct str mode_names[STS_MODES] = {
    [STS_NONE] = STR("none"),
    [STS_TESTING] = STR("testing"),
    [STS_ENFORCE] = STR("enforce"),
};

struct str
sts_mode_name(enum sts_mode mode)
{
    CHECK(mode < STS_MODES);
    return mode_names[mode];
}

/* The next line, without its end and the white space before that. False: no more. Lines that are empty are passed over. */
static bool
next_line(struct str *rest, struct str *out)
{
    do {
        if (str_is_absent(*rest))
            return false;
        struct str line = str_cut(rest, '\n');
        if (line.len > 0 && line.ptr[line.len - 1] == '\r')
            line.len--;
        while (line.len > 0 && byte_is_space(line.ptr[line.len - 1]))
            line.len--;
        *out = line;
    } while (out->len == 0);
    return true;
}

static bool
is_text(struct str s)
{
    for (size_t i = 0; i < s.len; i++)
        if (byte_is_control(s.ptr[i]) && s.ptr[i] != '\t')
            return false;
    return true;
}

static bool
is_pattern(struct str s)
{
    str_take(&s, S("*."));
    return str_is_ascii(s) && domain_is_name(s);
}

/* What stands there once, as it was first given. */
struct fields {
    struct str version, mode, max_age;
    size_t mx;
};

static bool
keep_first(struct str name, struct str value, struct fields *f)
{
    struct str *field = str_eq(name, S("version")) ? &f->version
                        : str_eq(name, S("mode"))  ? &f->mode
                        : str_eq(name, S("max_age")) ? &f->max_age
                                                     : NULL;

    if (str_eq(name, S("mx"))) {
        f->mx++;
        return is_pattern(value);
    }
    if (field && str_is_absent(*field))
        *field = value;
    return true;
}

/* Cuts one line in two. False: not a field. */
static bool
split(struct str line, struct str *out_name, struct str *out_value)
{
    *out_name = str_cut(&line, ':');
    if (str_is_absent(line) || !is_field_name(*out_name) || !is_text(line))
        return false;
    while (line.len > 0 && byte_is_space(line.ptr[0]))
        line = str_from(line, 1);
    *out_value = line;
    return true;
}

static const char *
read_fields(struct str body, struct fields *f)
{
    struct str line, name, value;

    while (next_line(&body, &line)) {
        if (!split(line, &name, &value))
            return "a line is not a field";
        if (!keep_first(name, value, f))
            return "mx is not a host name or *. and a name";
    }
    return NULL;
}

static const char *
understand(const struct fields *f, struct sts_policy *out)
{
    uint64_t max_age;

    if (!str_eq(f->version, S("STSv1")))
        return "version is not STSv1";
    for (out->mode = 0; out->mode < STS_MODES; out->mode++)
        if (str_eq(f->mode, mode_names[out->mode]))
            break;
    if (out->mode == STS_MODES)
        return "mode is not enforce, testing or none";
    if (f->max_age.len > 10 || !str_to_u64(f->max_age, &max_age) || max_age > STS_MAX_AGE_MAX)
        return "max_age is not a number of seconds up to 31557600";
    out->max_age = (uint32_t)max_age;
    if (f->mx == 0 && out->mode != STS_NONE)
        return "there is no mx";
    return NULL;
}

bool
sts_policy_parse(struct str body, struct arena *arena, struct sts_policy *out, struct str *out_why)
{
    struct fields fields = { 0 };
    struct sts_policy policy = { 0 };
    struct str line, name, value;

    const char *why = body.len > STS_BODY_MAX ? "it is longer than 64 KiB" : read_fields(body, &fields);
    if (!why)
        why = understand(&fields, &policy);
    if (why) {
        *out_why = str_from_cstr(why);
        return false;
    }
    policy.mx = arena_alloc(arena, fields.mx * sizeof *policy.mx);
    while (next_line(&body, &line))
        if (split(line, &name, &value) && str_eq(name, S("mx")))
            policy.mx[policy.mx_count++] = value;
    CHECK(policy.mx_count == fields.mx);
    *out = policy;
    return true;
}

/* "*" is exactly the left-most label: neither none nor two. */
static bool
pattern_allows(struct str pattern, struct str host)
{
    if (!str_take(&pattern, S("*.")))
        return str_eq_nocase(pattern, host);
    struct str label = str_cut(&host, '.');
    return label.len > 0 && !str_is_absent(host) && str_eq_nocase(pattern, host);
}

bool
sts_policy_allows(const struct sts_policy *policy, struct str host)
{
    for (size_t i = 0; i < policy->mx_count; i++)
        if (pattern_allows(policy->mx[i], domain_without_dot(host)))
            return true;
    return false;
}
