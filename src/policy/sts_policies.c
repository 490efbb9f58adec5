/*
 * sts_policies - see sts_policies.h.
 *
 * A domain is known here once it had a TXT record; those without are in the DNS cache only. What is kept of a policy is its
 * file's bytes, and each answer parses them: they are short.
 */
#include "policy/sts_policies.h"

#include "base/check.h"
#include "base/map.h"
#include "dns/mx.h"
#include "message/domain.h"
#include "runtime/log.h"

#include <string.h>

#define LOOKUP_NS (20 * SECOND)
#define FETCH_NS (1 * MINUTE) /* section 3.3 */
#define STS_AGAIN_NS (1 * DAY)
#define ROUND_NS (1 * HOUR)   /* between looks at what is to be renewed */

enum { SCRATCH_MAX = HOST_ARENA_BYTES + 2 * STS_ANSWER_ARENA_BYTES + (64 << 10), WHY_KEPT = 200, SMALL_FILE = 2048 };

struct known {
    struct list by_use;  /* asked about last, last */
    struct str own_domain;
    struct str own_file; /* bytes as in the directory; absent: there is no policy */
    struct sts_file file;
    uint8_t mode;
    uint32_t max_age;
    int64_t fetched_at;  /* monotonic, as the next two: before this process began it may be negative */
    int64_t used_at, known_since;
    bool used_again;     /* by mail of more than one day */
    uint8_t failed;      /* enum tls_result: what became of the newest attempt */
    int64_t failed_at;
    uint32_t failures;   /* in a row */
    char failed_id_bytes[STS_ID_MAX], why_bytes[WHY_KEPT];
    struct str failed_id, why;
    bool fetching;
    size_t users;        /* fibers that hold it */
    struct event fetched;
};

struct sts_policies {
    struct rt *rt;
    const struct dns *dns;
    struct sts_policies_hooks hooks;
    struct dir *dir;     /* NULL: nothing is written */
    struct map by_domain;
    struct list by_use;
    size_t bytes, bytes_max;
};

/* ---- the file ---------------------------------------------------------------------------------------------------- */

static const struct str first_line = STR("postrider mta-sts 1\n");

static void
put_check(struct text *out, struct str checked)
{
    text_putf(out, "%016llx", (unsigned long long)hash_bytes(checked, 0));
}

void
sts_file_put(struct text *out, const struct sts_file *f)
{
    static const struct str place = STR("check ................\n");
    char memory[20];
    struct text check = text_init(memory, sizeof memory);

    text_put(out, first_line);
    text_put(out, place);
    size_t from = out->len;
    text_putf(out, "id %.*s\nfetched %lld\n\n", STR_ARG(f->id), (long long)(f->fetched_wall / SECOND));
    text_put(out, f->body);
    if (out->full)
        return;
    put_check(&check, str_from(text_str(out), from));
    memcpy(out->ptr + from - check.len - 1, check.ptr, check.len);
}

bool
sts_file_parse(struct str bytes, struct sts_file *out)
{
    char memory[20];
    struct text check = text_init(memory, sizeof memory);
    struct sts_file f;
    uint64_t seconds;

    if (!str_take(&bytes, first_line) || !str_take(&bytes, S("check ")))
        return false;
    struct str said = str_cut(&bytes, '\n');
    put_check(&check, bytes);
    if (!str_eq(said, text_str(&check)) || !str_take(&bytes, S("id ")))
        return false;
    f.id = str_cut(&bytes, '\n');
    if (!str_take(&bytes, S("fetched ")) || !str_to_u64(str_cut(&bytes, '\n'), &seconds) ||
        seconds > (uint64_t)(INT64_MAX / SECOND) || !str_take(&bytes, S("\n")))
        return false;
    f.fetched_wall = (int64_t)seconds * SECOND;
    f.body = bytes;
    *out = f;
    return f.id.len > 0 && f.id.len <= STS_ID_MAX;
}

/* ---- what is known ----------------------------------------------------------------------------------------------- */

static size_t
weight(const struct known *k)
{
    return sizeof *k + k->own_domain.len + k->own_file.len;
}

static struct known *
known_add(struct sts_policies *p, struct str domain)
{
    struct mem *mem = rt_mem(p->rt);
    struct known *k = mem_new(mem, struct known);
    char *name = mem_alloc(mem, domain.len);

    memcpy(name, domain.ptr, domain.len);
    k->own_domain = str_new(name, domain.len);
    k->used_at = k->known_since = rt_now(p->rt);
    event_init(&k->fetched);
    list_push_back(&p->by_use, &k->by_use);
    map_put(&p->by_domain, k->own_domain, k);
    p->bytes += weight(k);
    return k;
}

static void
drop_file(struct sts_policies *p, struct known *k)
{
    p->bytes -= k->own_file.len;
    mem_free(rt_mem(p->rt), (void *)(uintptr_t)k->own_file.ptr, k->own_file.len);
    k->own_file = (struct str){ NULL, 0 };
    k->file = (struct sts_file){ 0 };
}

static void
known_remove(struct sts_policies *p, struct known *k)
{
    CHECK(k->users == 0);
    drop_file(p, k);
    p->bytes -= weight(k);
    map_remove(&p->by_domain, k->own_domain);
    list_remove(&k->by_use);
    mem_free(rt_mem(p->rt), (void *)(uintptr_t)k->own_domain.ptr, k->own_domain.len);
    mem_free(rt_mem(p->rt), k, sizeof *k);
}

/* Takes bytes, which sts_file_parse() and sts_policy_parse() like. */
static void
known_set_file(struct sts_policies *p, struct known *k, struct str own_bytes, const struct sts_policy *policy)
{
    drop_file(p, k);
    k->own_file = own_bytes;
    p->bytes += own_bytes.len;
    CHECK(sts_file_parse(own_bytes, &k->file));
    k->mode = policy->mode;
    k->max_age = policy->max_age;
    int64_t age = rt_wall(p->rt) - k->file.fetched_wall;
    k->fetched_at = rt_now(p->rt) - (age > 0 ? age : 0);
}

static int64_t
expires(const struct known *k)
{
    return k->file.fetched_wall + (int64_t)k->max_age * SECOND;
}

/* There is a policy that has not expired. */
static bool
is_valid(const struct sts_policies *p, const struct known *k)
{
    return !str_is_absent(k->own_file) && rt_wall(p->rt) < expires(k);
}

static void
unlink_file(struct sts_policies *p, struct str domain)
{
    if (p->dir)
        (void)dir_unlink(p->dir, domain, LANE_BACKGROUND, FOREVER); /* what stays is looked at again at the next start */
}

/*
 * Who goes first: what was wanted by mail of one day only, before what is wanted again and again; and of each the large, before the
 * small. A policy of a few hosts has 200 bytes, and may have 64 KiB: who makes us write to five hundred domains of his, as a
 * forged sender does by our bounces, must not push out what protects others.
 */
static int
worth(const struct known *k)
{
    return (k->used_again ? 2 : 0) + (k->own_file.len <= SMALL_FILE ? 1 : 0);
}

/* What nobody holds, the longest unused of what is worth least first. */
static void
make_room(struct sts_policies *p)
{
    while (p->bytes > p->bytes_max) {
        struct known *oldest = NULL;
        char memory[LIMIT_DOMAIN + 1];
        struct text domain = text_init(memory, sizeof memory);

        list_each (node, &p->by_use) {
            struct known *k = container_of(node, struct known, by_use);
            if (k->users == 0 && (!oldest || worth(k) < worth(oldest)))
                oldest = k;
        }
        if (!oldest)
            return;
        text_put(&domain, oldest->own_domain);
        bool kept = !str_is_absent(oldest->own_file);
        known_remove(p, oldest);
        if (kept)
            unlink_file(p, text_str(&domain));
    }
}

/* ---- the directory ----------------------------------------------------------------------------------------------- */

static void
log_trouble(struct sts_policies *p, const char *what, struct str domain, struct str why, struct err e)
{
    struct log_line line;

    log_begin(&line, p->rt, LOG_WARNING, what);
    log_str(&line, "domain", domain);
    if (why.len)
        log_str(&line, "why", why);
    if (err_is(e))
        log_err(&line, e);
    log_end(&line);
}

static struct err
write_file(struct sts_policies *p, struct str domain, struct str bytes)
{
    char memory[LIMIT_DOMAIN + 2];
    struct text fresh = text_init(memory, sizeof memory);
    struct file *file;

    text_putf(&fresh, "%.*s~", STR_ARG(domain)); /* no domain has that */
    TRY(file_open(p->dir, text_str(&fresh), FILE_WRITE | FILE_CREATE | FILE_TRUNCATE, 0600, LANE_BACKGROUND, FOREVER, &file));
    struct err e = file_write_sync(file, &bytes, 1, 0, LANE_BACKGROUND, FOREVER);
    file_close(file);
    TRY(e);
    TRY(dir_rename(p->dir, text_str(&fresh), p->dir, domain, LANE_BACKGROUND, FOREVER));
    return dir_sync(p->dir, LANE_BACKGROUND, FOREVER);
}

static struct err
read_file(struct sts_policies *p, struct str name, char *memory, struct str *out)
{
    size_t len = 0, got = 1;
    struct file *file;

    TRY(file_open(p->dir, name, FILE_READ, 0, LANE_BACKGROUND, FOREVER, &file));
    struct err e = OK;
    while (got > 0 && len < STS_FILE_MAX + 1 && !err_is(e)) {
        e = file_read(file, memory + len, STS_FILE_MAX + 1 - len, len, LANE_BACKGROUND, FOREVER, &got);
        len += err_is(e) ? 0 : got;
    }
    file_close(file);
    *out = str_new(memory, len);
    return e;
}

/* One file; what cannot be used is removed. */
static struct err
take_up(struct sts_policies *p, struct str domain, char *memory, struct arena *scratch)
{
    struct mem *mem = rt_mem(p->rt);
    struct str bytes, why;
    struct sts_file f;
    struct sts_policy policy;

    struct err e = read_file(p, domain, memory, &bytes);
    if (err_is(e))
        return e;
    if (!sts_file_parse(bytes, &f) || !sts_policy_parse(f.body, scratch, &policy, &why) ||
        !domain_is_hostname(domain)) {
        log_trouble(p, "mta-sts-file-damaged", domain, S("its file is removed, and the policy fetched anew"), OK);
        unlink_file(p, domain);
        return OK;
    }
    char *own = mem_alloc(mem, bytes.len);
    memcpy(own, bytes.ptr, bytes.len);
    struct known *k = map_get(&p->by_domain, domain);
    if (!k)
        k = known_add(p, domain);
    known_set_file(p, k, str_new(own, bytes.len), &policy);
    return OK;
}

struct err
sts_policies_load(struct sts_policies *p, struct dir *dir, int64_t until)
{
    struct mem *mem = rt_mem(p->rt);
    struct arena names, scratch;
    struct str *list;
    size_t count;

    p->dir = dir;
    arena_init(&names, mem, 4096, 64 << 20);
    arena_init(&scratch, mem, 4096, STS_ARENA_BYTES + 4096);
    char *memory = mem_alloc(mem, STS_FILE_MAX + 1);
    struct err e = dir_list(dir, &names, LANE_BACKGROUND, until, &list, &count);
    for (size_t i = 0; i < count && !err_is(e); i++) {
        arena_reset(&scratch);
        if (str_ends(list[i], S("~")))
            unlink_file(p, list[i]); /* was being written */
        else
            e = take_up(p, list[i], memory, &scratch);
    }
    make_room(p);
    mem_free(mem, memory, STS_FILE_MAX + 1);
    arena_done(&scratch);
    arena_done(&names);
    return e;
}

/* ---- fetching ---------------------------------------------------------------------------------------------------- */

/* The id of the domain's record; empty: it has none that counts; absent: it cannot be known now, *out_why says why. */
static struct err
look_up_id(struct sts_policies *p, struct str domain, int64_t until, struct arena *scratch, struct str *out, struct str *out_why)
{
    struct dns_answer a;
    struct str id;
    int64_t soon = within(p->rt, LOOKUP_NS);

    *out = S("");
    TRY(dns_query(p->dns, arena_join(scratch, S("_mta-sts."), domain), DNS_TXT, until < soon ? until : soon, scratch, &a));
    if (a.status == DNS_TEMPORARY) {
        *out = (struct str){ NULL, 0 };
        *out_why = arena_join(scratch, S("its record at _mta-sts cannot be looked up now: "), a.why);
    } else if (a.status == DNS_FOUND && !a.cut && sts_records_parse(a.records, a.count, &id)) {
        *out = arena_keep(scratch, id);
    }
    return OK;
}

static enum tls_result
result_of(enum https_status status)
{
    switch (status) {
    case HTTPS_OK:
        return TLS_RESULT_OK;
    case HTTPS_UNTRUSTED:
        return TLS_RESULT_STS_WEBPKI_INVALID;
    case HTTPS_UNFIT:
        return TLS_RESULT_STS_INVALID;
    case HTTPS_UNREACHABLE:
    case HTTPS_REFUSED:
        break;
    }
    return TLS_RESULT_STS_FETCH_ERROR;
}

/* The policy's text. *out_result: why there is none. An error: cancelled, or nobody was free to fetch it. */
static struct err
get_body(struct sts_policies *p, struct str domain, int64_t until, struct arena *scratch, struct str *out_body,
         enum tls_result *out_result, struct str *out_why)
{
    struct str host = arena_join(scratch, S("mta-sts."), domain);
    struct host_result found;
    struct https_answer answer;

    *out_result = TLS_RESULT_STS_FETCH_ERROR;
    if (!name_is_valid(host)) {
        *out_why = S("there is no room for mta-sts before its name");
        return OK;
    }
    TRY(host_addresses(p->dns, host, HOST_IPV4 | HOST_IPV6, within(p->rt, LOOKUP_NS), scratch, &found));
    if (found.status != HOST_OK) {
        *out_why = found.why;
        return OK;
    }
    const struct https_request request = {
        .host = host, .path = S("/.well-known/mta-sts.txt"), .addresses = found.addresses,
        .address_count = found.address_count, .body_max = STS_BODY_MAX, .time_max = FETCH_NS,
    };
    TRY(p->hooks.get(p->hooks.arg, &request, until, scratch, &answer));
    *out_result = result_of(answer.status);
    *out_body = answer.body;
    *out_why = answer.why;
    return OK;
}

static void
note_failure(struct sts_policies *p, struct known *k, struct str id, enum tls_result result, struct str why)
{
    bool matters = !is_valid(p, k) || k->mode != STS_NONE;
    struct log_line line;

    k->failures = k->failed != TLS_RESULT_OK && str_eq(k->failed_id, id) ? k->failures + 1 : 1;
    k->failed_at = rt_now(p->rt);
    k->failed = (uint8_t)result;
    struct text id_text = text_init(k->failed_id_bytes, sizeof k->failed_id_bytes);
    text_put(&id_text, id);
    k->failed_id = text_str(&id_text);
    struct text why_text = text_init(k->why_bytes, sizeof k->why_bytes);
    text_put(&why_text, str_slice(why, 0, sizeof k->why_bytes));
    k->why = text_str(&why_text);
    log_begin(&line, p->rt, matters ? LOG_WARNING : LOG_INFO, "mta-sts-not-fetched");
    log_str(&line, "domain", k->own_domain);
    log_str(&line, "id", id);
    log_str(&line, "result", tls_result_name(result));
    log_str(&line, "why", why);
    if (is_valid(p, k))
        log_time(&line, "kept-until", expires(k));
    log_end(&line);
}

static void
take_in(struct sts_policies *p, struct known *k, struct str id, struct str body, const struct sts_policy *policy)
{
    struct mem *mem = rt_mem(p->rt);
    struct log_line line;
    size_t cap = body.len + 256;
    char *memory = mem_alloc(mem, cap);
    struct text text = text_init(memory, cap);

    sts_file_put(&text, &(struct sts_file){ id, body, rt_wall(p->rt) / SECOND * SECOND });
    CHECK(!text.full);
    memory = mem_resize(mem, memory, cap, text.len);
    known_set_file(p, k, str_new(memory, text.len), policy);
    k->failed = TLS_RESULT_OK;
    k->why = S("");
    log_begin(&line, p->rt, LOG_INFO, "mta-sts-policy");
    log_str(&line, "domain", k->own_domain);
    log_str(&line, "id", id);
    log_str(&line, "mode", sts_mode_name(policy->mode));
    log_time(&line, "until", expires(k));
    log_end(&line);
    struct err e = p->dir ? write_file(p, k->own_domain, k->own_file) : OK;
    if (err_is(e))
        log_trouble(p, "mta-sts-not-kept", k->own_domain, S(""), e);
}

static struct err
fetch(struct sts_policies *p, struct known *k, struct str id, int64_t until, struct arena *scratch)
{
    enum tls_result result = TLS_RESULT_OK;
    struct str body = S(""), why = S("");
    struct sts_policy policy;

    CHECK(!k->fetching && k->users > 0);
    k->fetching = true;
    struct err e = get_body(p, k->own_domain, until, scratch, &body, &result, &why);
    if (!err_is(e)) {
        if (result == TLS_RESULT_OK && !sts_policy_parse(body, scratch, &policy, &why))
            result = TLS_RESULT_STS_INVALID;
        if (result == TLS_RESULT_OK)
            take_in(p, k, id, body, &policy);
        else
            note_failure(p, k, id, result, why);
    }
    k->fetching = false;
    event_wake(p->rt, &k->fetched);
    return e;
}

/* Each failure in a row doubles the pause: a host that swallows what it gets costs whoever asks a minute, and it shall find an
 * answer here when it comes back, also if that is in half an hour. */
static bool
has_just_failed(const struct sts_policies *p, const struct known *k)
{
    int64_t pause = STS_RETRY_NS;

    for (uint32_t i = 1; i < k->failures && pause < STS_RETRY_MOST_NS; i++)
        pause *= 2;
    return k->failed != TLS_RESULT_OK && rt_now(p->rt) - k->failed_at < pause;
}

static bool
wants_fetch(const struct sts_policies *p, const struct known *k, struct str id)
{
    if (id.len == 0 || (is_valid(p, k) && str_eq(k->file.id, id)))
        return false;
    return !str_eq(k->failed_id, id) || !has_just_failed(p, k);
}

static void
answer(const struct sts_policies *p, const struct known *k, struct arena *arena, struct sts_answer *out)
{
    struct str why;

    out->result = k->failed;
    out->why = arena_keep(arena, k->why);
    if (!is_valid(p, k))
        return;
    out->found = true;
    out->id = arena_keep(arena, k->file.id);
    out->fetched_wall = k->file.fetched_wall;
    out->expires_wall = expires(k);
    CHECK(sts_policy_parse(arena_keep(arena, k->file.body), arena, &out->policy, &why));
}

struct err
sts_policies_find(struct sts_policies *p, struct str domain, int64_t until, struct arena *arena, struct sts_answer *out)
{
    struct arena scratch;
    struct str id, unknown;

    *out = (struct sts_answer){ .why = S("") };
    arena_init(&scratch, rt_mem(p->rt), 4096, SCRATCH_MAX);
    struct err e = look_up_id(p, domain, until, &scratch, &id, &unknown);
    struct known *k = map_get(&p->by_domain, domain);
    if (!k && !err_is(e) && id.len > 0)
        k = known_add(p, domain);
    if (k && !err_is(e)) {
        k->users++;
        k->used_at = rt_now(p->rt);
        k->used_again |= k->used_at - k->known_since >= STS_AGAIN_NS;
        list_remove(&k->by_use);
        list_push_back(&p->by_use, &k->by_use);
        while (k->fetching && !err_is(e))
            e = event_wait(p->rt, &k->fetched, until);
        if (!err_is(e) && wants_fetch(p, k, id))
            e = fetch(p, k, id, until, &scratch);
        if (!err_is(e))
            answer(p, k, arena, out);
        k->users--;
        make_room(p);
    }
    if (!err_is(e) && !out->found && str_is_absent(id)) { /* not the same as none */
        out->result = TLS_RESULT_STS_FETCH_ERROR;
        out->why = arena_keep(arena, str_slice(unknown, 0, WHY_KEPT));
    }
    arena_done(&scratch);
    return e;
}

/* ---- once a day -------------------------------------------------------------------------------------------------- */

/* What has expired goes; true: it is to be renewed. */
static bool
is_due(struct sts_policies *p, struct known *k)
{
    return is_valid(p, k) && !k->fetching && rt_now(p->rt) - k->used_at < STS_UNUSED_NS &&
           rt_now(p->rt) - k->fetched_at >= STS_REFRESH_NS;
}

static void
renew(struct sts_policies *p, struct known *k, struct arena *scratch)
{
    struct str id, unknown;

    k->users++;
    struct err e = look_up_id(p, k->own_domain, FOREVER, scratch, &id, &unknown);
    if (!err_is(e) && !str_is_absent(id) && id.len == 0 && k->mode != STS_NONE) /* section 3.3: administrators are told */
        log_trouble(p, "mta-sts-record-missing", k->own_domain, S("its policy is kept until it expires"), OK);
    if (!err_is(e) && id.len > 0 && !k->fetching)
        e = fetch(p, k, id, within(p->rt, STS_ANSWER_NS), scratch);
    k->users--;
}

/* How often it failed is remembered beyond its pause: or who comes back each half hour would always find the first failure. */
static bool
has_expired(const struct sts_policies *p, const struct known *k)
{
    return !is_valid(p, k) && k->users == 0 &&
           (k->failed == TLS_RESULT_OK || rt_now(p->rt) - k->failed_at >= 2 * STS_RETRY_MOST_NS);
}

/* The domains of that kind, since the list may change while we wait. */
static size_t
gather(struct sts_policies *p, bool expired, struct arena *arena, struct str **out)
{
    size_t count = 0;

    *out = arena_alloc(arena, (p->by_domain.count + 1) * sizeof **out);
    list_each (node, &p->by_use) {
        struct known *k = container_of(node, struct known, by_use);
        if (expired ? has_expired(p, k) : is_due(p, k))
            (*out)[count++] = arena_keep(arena, k->own_domain);
    }
    return count;
}

static void
one_round(struct sts_policies *p)
{
    struct arena names, scratch;
    struct str *domains;

    arena_init(&names, rt_mem(p->rt), 4096, 64 << 20);
    arena_init(&scratch, rt_mem(p->rt), 4096, SCRATCH_MAX);
    size_t count = gather(p, true, &names, &domains);
    for (size_t i = 0; i < count; i++) {
        struct known *k = map_get(&p->by_domain, domains[i]);
        if (!k || !has_expired(p, k))
            continue;
        known_remove(p, k);
        unlink_file(p, domains[i]);
    }
    count = gather(p, false, &names, &domains);
    for (size_t i = 0; i < count; i++) {
        struct known *k = map_get(&p->by_domain, domains[i]);
        arena_reset(&scratch);
        if (k && is_due(p, k))
            renew(p, k, &scratch);
    }
    arena_done(&scratch);
    arena_done(&names);
}

void
sts_policies_refresh(struct sts_policies *p)
{
    while (!err_is(rt_sleep(p->rt, within(p->rt, ROUND_NS))))
        one_round(p);
}

/* ---- the whole --------------------------------------------------------------------------------------------------- */

struct sts_policies *
sts_policies_new(struct rt *rt, const struct dns *dns, const struct sts_policies_hooks *hooks, size_t bytes_max)
{
    struct sts_policies *p = mem_new(rt_mem(rt), struct sts_policies);

    p->rt = rt;
    p->dns = dns;
    p->hooks = *hooks;
    p->bytes_max = bytes_max;
    map_init(&p->by_domain, rt_mem(rt), rt_random(rt));
    list_init(&p->by_use);
    return p;
}

void
sts_policies_free(struct sts_policies *p)
{
    while (!list_is_empty(&p->by_use))
        known_remove(p, container_of(p->by_use.next, struct known, by_use));
    map_done(&p->by_domain);
    mem_free(rt_mem(p->rt), p, sizeof *p);
}

size_t
sts_policies_count(const struct sts_policies *p)
{
    return p->by_domain.count;
}
