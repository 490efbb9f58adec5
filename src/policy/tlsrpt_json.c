/* tlsrpt_json - see tlsrpt.h: the JSON of a report, by libjansson, which is spoken to here alone. */
#include "message/utf8.h"
#include "policy/tlsrpt.h"
#include "runtime/library.h"

#include <jansson.h>

/* What we use of it. Its macros and inline functions would want it linked. */
struct tlsrpt_json {
    struct mem *mem;
    __typeof__(json_loadb) *loadb;
    __typeof__(json_delete) *delete;
    __typeof__(json_object_get) *get;
    __typeof__(json_array_size) *size;
    __typeof__(json_array_get) *at;
    __typeof__(json_string_value) *string;
    __typeof__(json_string_length) *string_len;
    __typeof__(json_integer_value) *integer;
};
static const struct library_function functions[] = {
    { "json_loadb", offsetof(struct tlsrpt_json, loadb) },
    { "json_delete", offsetof(struct tlsrpt_json, delete) },
    { "json_object_get", offsetof(struct tlsrpt_json, get) },
    { "json_array_size", offsetof(struct tlsrpt_json, size) },
    { "json_array_get", offsetof(struct tlsrpt_json, at) },
    { "json_string_value", offsetof(struct tlsrpt_json, string) },
    { "json_string_length", offsetof(struct tlsrpt_json, string_len) },
    { "json_integer_value", offsetof(struct tlsrpt_json, integer) },
};

struct err
tlsrpt_json_open(struct mem *mem, struct tlsrpt_json **out, struct text *out_why)
{
    struct tlsrpt_json j = { .mem = mem };

    TRY(library_load("libjansson.so.4", functions, sizeof functions / sizeof *functions, &j, out_why));
    *out = mem_new(mem, struct tlsrpt_json);
    **out = j;
    return OK;
}

void
tlsrpt_json_close(struct tlsrpt_json *j)
{
    mem_free(j->mem, j, sizeof *j);
}

/* ---- a report ---------------------------------------------------------------------------------------------------- */

struct reading {
    const struct tlsrpt_json *json;
    struct arena *arena;
    struct text *why;
    const char *part; /* where we are, for a complaint: of policies[policy], and failure-details[failure]; NULL: not within */
    size_t policy, failure;
    bool in_policy, in_failure;
};

static bool
complain(struct reading *r, const char *name, const char *what)
{
    if (r->in_policy)
        text_putf(r->why, "policies[%zu]%s%s", r->policy, r->part ? "." : "", r->part ? r->part : "");
    if (r->in_failure)
        text_putf(r->why, "[%zu]", r->failure);
    text_putf(r->why, "%s%s %s", r->in_policy && name[0] ? "." : "", name, what);
    return false;
}

static struct str
keep_string(struct reading *r, const json_t *value)
{
    if (!value || json_typeof(value) != JSON_STRING)
        return (struct str){ NULL, 0 };
    return arena_keep(r->arena, utf8_cut(str_new(r->json->string(value), r->json->string_len(value)), TLSRPT_WORD_MAX));
}

static struct str
keep_word(struct reading *r, const json_t *object, const char *name)
{
    return keep_string(r, r->json->get(object, name));
}

/* A member that must be there and of this type. */
static bool
find(struct reading *r, const json_t *object, const char *name, json_type type, const json_t **out)
{
    *out = r->json->get(object, name);
    if (!*out)
        return complain(r, name, "is missing");
    return json_typeof(*out) == type || complain(r, name, type == JSON_ARRAY ? "is not an array" : "is not an object");
}

/* How many sessions; not said is none. */
static bool
read_count(struct reading *r, const json_t *object, const char *name, uint64_t *out)
{
    const json_t *value = r->json->get(object, name);

    *out = 0;
    if (!value)
        return true;
    if (json_typeof(value) == JSON_INTEGER && r->json->integer(value) >= 0)
        *out = (uint64_t)r->json->integer(value);
    else if (json_typeof(value) != JSON_STRING || !str_to_u64(str_new(r->json->string(value), r->json->string_len(value)), out))
        return complain(r, name, "is not a number of sessions");
    return true;
}

/* An array of words; some write one word instead. */
static struct str *
keep_words(struct reading *r, const json_t *object, const char *name, size_t *out_count)
{
    const json_t *value = r->json->get(object, name);
    bool one = value && json_typeof(value) == JSON_STRING;
    size_t count = one ? 1 : r->json->size(value);
    struct str *words = arena_alloc(r->arena, count * sizeof *words);

    *out_count = 0;
    for (size_t i = 0; i < count; i++) {
        words[*out_count] = keep_string(r, one ? value : r->json->at(value, i));
        *out_count += !str_is_absent(words[*out_count]);
    }
    return words;
}

static bool
read_failure(struct reading *r, const json_t *entry, struct tlsrpt_failure *out)
{
    if (json_typeof(entry) != JSON_OBJECT)
        return complain(r, "", "is not an object");
    out->result = keep_word(r, entry, "result-type");
    out->sending_address = keep_word(r, entry, "sending-mta-ip");
    out->receiving_host = keep_word(r, entry, "receiving-mx-hostname");
    out->receiving_helo = keep_word(r, entry, "receiving-mx-helo");
    out->receiving_address = keep_word(r, entry, "receiving-ip");
    out->reason = keep_word(r, entry, "failure-reason-code");
    out->information = keep_word(r, entry, "additional-information");
    if (str_is_absent(out->result))
        return complain(r, "result-type", "is missing");
    return read_count(r, entry, "failed-session-count", &out->sessions);
}

static bool
read_failures(struct reading *r, const json_t *failures, struct tlsrpt_policy *out)
{
    if (!failures || json_typeof(failures) == JSON_NULL) /* none failed, or nobody kept why */
        return true;
    r->part = "failure-details";
    if (json_typeof(failures) != JSON_ARRAY)
        return complain(r, "", "is not an array");
    out->failure_count = r->json->size(failures);
    out->failures = arena_alloc(r->arena, out->failure_count * sizeof *out->failures);
    r->in_failure = true;
    for (r->failure = 0; r->failure < out->failure_count; r->failure++)
        if (!read_failure(r, r->json->at(failures, r->failure), &out->failures[r->failure]))
            return false;
    r->in_failure = false;
    return true;
}

static bool
read_policy(struct reading *r, const json_t *entry, struct tlsrpt_policy *out)
{
    const json_t *policy, *summary;

    r->part = NULL;
    if (json_typeof(entry) != JSON_OBJECT)
        return complain(r, "", "is not an object");
    if (!find(r, entry, "policy", JSON_OBJECT, &policy) || !find(r, entry, "summary", JSON_OBJECT, &summary))
        return false;
    r->part = "policy";
    out->type = keep_word(r, policy, "policy-type");
    if (str_is_absent(out->type))
        return complain(r, "policy-type", "is missing");
    out->domain = keep_word(r, policy, "policy-domain");
    out->lines = keep_words(r, policy, "policy-string", &out->line_count);
    out->hosts = keep_words(r, policy, "mx-host", &out->host_count);
    r->part = "summary";
    return read_count(r, summary, "total-successful-session-count", &out->succeeded) &&
           read_count(r, summary, "total-failure-session-count", &out->failed) &&
           read_failures(r, r->json->get(entry, "failure-details"), out);
}

static bool
read_report(struct reading *r, const json_t *root, struct tlsrpt_report *out)
{
    const json_t *policies, *range;

    if (json_typeof(root) != JSON_OBJECT) {
        text_put(r->why, S("its JSON is an array, and no report"));
        return false;
    }
    if (!find(r, root, "policies", JSON_ARRAY, &policies) || !find(r, root, "date-range", JSON_OBJECT, &range))
        return false;
    *out = (struct tlsrpt_report){
        .organization = keep_word(r, root, "organization-name"), .contact = keep_word(r, root, "contact-info"),
        .id = keep_word(r, root, "report-id"), .begin = keep_word(r, range, "start-datetime"),
        .end = keep_word(r, range, "end-datetime"), .policy_count = r->json->size(policies),
    };
    out->policies = arena_alloc(r->arena, out->policy_count * sizeof *out->policies);
    r->in_policy = true;
    for (r->policy = 0; r->policy < out->policy_count; r->policy++)
        if (!read_policy(r, r->json->at(policies, r->policy), &out->policies[r->policy]))
            return false;
    return true;
}

/* The library recurses on arrays and objects, and a value costs it two hundred bytes: what is too much is seen before. */
static bool
fits(struct str text, struct tlsrpt_budget *budget, struct text *why)
{
    size_t depth = 0, values = 1;
    bool in_string = false;

    for (size_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];
        if (in_string && c == '\\')
            i++;
        else if (c == '"')
            in_string = !in_string;
        if (in_string)
            continue;
        values += c == '{' || c == '[' || c == ',';
        depth += c == '{' || c == '[';
        depth -= depth > 0 && (c == '}' || c == ']');
        if (depth > TLSRPT_DEPTH_MAX) {
            text_putf(why, "its JSON nests deeper than %d", TLSRPT_DEPTH_MAX);
            return false;
        }
    }
    if (values > budget->values) {
        text_putf(why, "its JSON has more than %d values", TLSRPT_VALUES_MAX);
        return false;
    }
    budget->values -= values;
    return true;
}

bool
tlsrpt_json_read(struct tlsrpt_json *j, struct str text, struct arena *arena, struct tlsrpt_budget *budget, struct tlsrpt_report *out,
                 struct text *out_why)
{
    struct reading r = { .json = j, .arena = arena, .why = out_why };
    json_error_t error;

    str_take(&text, S("\xef\xbb\xbf")); /* some write a byte order mark */
    if (!fits(text, budget, out_why))
        return false;
    json_t *root = j->loadb(text.ptr, text.len, JSON_REJECT_DUPLICATES, &error);
    if (!root) {
        text_putf(out_why, "its JSON is broken at line %d, column %d: %s", error.line, error.column, error.text);
        return false;
    }
    bool ok = read_report(&r, root, out);
    j->delete(root);
    return ok;
}
