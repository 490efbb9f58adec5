/* https - see https.h. */
#include "net/https.h"

#include "base/check.h"
#include "runtime/library.h"

#include <curl/curl.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

enum { PORT = 443, HOST_MAX = 256, URL_MAX = HOST_MAX + 256, CONNECT_S = 10, SLOW_BYTES = 10, SLOW_S = 10 };

/* What we use of libcurl. */
struct curl {
    __typeof__(curl_global_init) *global_init;
    __typeof__(curl_global_cleanup) *global_cleanup;
    __typeof__(curl_easy_init) *easy_init;
    __typeof__(curl_easy_cleanup) *easy_cleanup;
    __typeof__(curl_easy_setopt) *setopt;
    __typeof__(curl_easy_getinfo) *getinfo;
    __typeof__(curl_easy_perform) *perform;
    __typeof__(curl_easy_strerror) *strerror;
    __typeof__(curl_slist_append) *slist_append;
    __typeof__(curl_slist_free_all) *slist_free_all;
};
static const struct library_function functions[] = {
    { "curl_global_init", offsetof(struct curl, global_init) },
    { "curl_global_cleanup", offsetof(struct curl, global_cleanup) },
    { "curl_easy_init", offsetof(struct curl, easy_init) },
    { "curl_easy_cleanup", offsetof(struct curl, easy_cleanup) },
    { "curl_easy_setopt", offsetof(struct curl, setopt) },
    { "curl_easy_getinfo", offsetof(struct curl, getinfo) },
    { "curl_easy_perform", offsetof(struct curl, perform) },
    { "curl_easy_strerror", offsetof(struct curl, strerror) },
    { "curl_slist_append", offsetof(struct curl, slist_append) },
    { "curl_slist_free_all", offsetof(struct curl, slist_free_all) },
};

struct https {
    struct rt *rt;
    struct curl curl;
    struct str authorities;
    atomic_bool stop;
};

/* ---- the library ------------------------------------------------------------------------------------------------- */

struct err
https_open(struct rt *rt, struct str authorities, struct https **out, struct text *out_why)
{
    struct curl curl;

    TRY(library_load("libcurl.so.4", functions, sizeof functions / sizeof *functions, &curl, out_why));
    if (curl.global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        text_put(out_why, S("libcurl does not start"));
        return ERR(ERR_NOT_FOUND, "start libcurl");
    }
    struct https *h = mem_new(rt_mem(rt), struct https);
    h->rt = rt;
    h->curl = curl;
    h->authorities = authorities;
    *out = h;
    return OK;
}

void
https_close(struct https *h)
{
    h->curl.global_cleanup();
    mem_free(rt_mem(h->rt), h, sizeof *h);
}

void
https_stop(struct https *h)
{
    atomic_store(&h->stop, true);
}

/* ---- on the helper thread ---------------------------------------------------------------------------------------- */

struct job {
    struct https *h;
    const struct https_request *request;
    char host[HOST_MAX], url[URL_MAX], resolve[HOST_MAX + HTTPS_ADDRESSES_MAX * 64];
    char *body;
    size_t len;
    bool too_long;
    long code;
    char error[CURL_ERROR_SIZE], type[100];
    CURLcode result;
};

static size_t
take_body(char *piece, size_t one, size_t count, void *arg)
{
    struct job *j = arg;
    size_t len = one * count;

    if (len > j->request->body_max - j->len) {
        j->too_long = true;
        return CURL_WRITEFUNC_ERROR;
    }
    memcpy(j->body + j->len, piece, len);
    j->len += len;
    return len;
}

static int
may_go_on(void *arg, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
    struct job *j = arg;

    (void)a, (void)b, (void)c, (void)d;
    return atomic_load(&j->h->stop);
}

/* RFC 8461 section 3.3: only DNS-IDs count, and a wildcard only as a whole label; curl would also take a subject's CN. */
static CURLcode
name_strictly(CURL *easy, void *ctx, void *arg)
{
    const struct job *j = arg;
    X509_VERIFY_PARAM *param = SSL_CTX_get0_param(ctx);

    (void)easy;
    X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NEVER_CHECK_SUBJECT | X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    return X509_VERIFY_PARAM_set1_host(param, j->host, 0) == 1 ? CURLE_OK : CURLE_SSL_CERTPROBLEM;
}

static CURLcode
configure(struct job *j, CURL *easy, struct curl_slist *resolve, struct curl_slist *headers)
{
    const struct curl *curl = &j->h->curl;
    struct curl_blob authorities = { (void *)(uintptr_t)j->h->authorities.ptr, j->h->authorities.len, CURL_BLOB_NOCOPY };
    long milliseconds = (long)(j->request->time_max / MILLISECOND);
    CURLcode e = CURLE_OK;

#define SET(option, value) e = e == CURLE_OK ? curl->setopt(easy, (option), (value)) : e
    SET(CURLOPT_URL, j->url);
    SET(CURLOPT_PROTOCOLS_STR, "https");
    SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    SET(CURLOPT_FOLLOWLOCATION, 0L);
    SET(CURLOPT_PROXY, ""); /* whatever the environment says */
    SET(CURLOPT_RESOLVE, resolve);
    SET(CURLOPT_HTTPHEADER, headers);
    SET(CURLOPT_USERAGENT, "postrider/" POSTRIDER_VERSION);
    SET(CURLOPT_NOSIGNAL, 1L);
    SET(CURLOPT_FRESH_CONNECT, 1L);
    SET(CURLOPT_FORBID_REUSE, 1L);
    SET(CURLOPT_TIMEOUT_MS, milliseconds);
    SET(CURLOPT_CONNECTTIMEOUT, (long)CONNECT_S);
    SET(CURLOPT_LOW_SPEED_LIMIT, (long)SLOW_BYTES); /* one that says nothing more holds a thread that others wait for */
    SET(CURLOPT_LOW_SPEED_TIME, (long)SLOW_S);
    SET(CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    SET(CURLOPT_SSL_VERIFYPEER, 1L);
    SET(CURLOPT_SSL_VERIFYHOST, 2L);
    SET(CURLOPT_CAPATH, (char *)NULL);
    SET(CURLOPT_CAINFO_BLOB, &authorities);
    SET(CURLOPT_SSL_CTX_FUNCTION, name_strictly);
    SET(CURLOPT_SSL_CTX_DATA, j);
    SET(CURLOPT_ERRORBUFFER, j->error);
    SET(CURLOPT_WRITEFUNCTION, take_body);
    SET(CURLOPT_WRITEDATA, j);
    SET(CURLOPT_NOPROGRESS, 0L);
    SET(CURLOPT_XFERINFOFUNCTION, may_go_on);
    SET(CURLOPT_XFERINFODATA, j);
#undef SET
    return e;
}

static void
perform(struct job *j, CURL *easy)
{
    const struct curl *curl = &j->h->curl;
    struct curl_slist *resolve = curl->slist_append(NULL, j->resolve);
    struct curl_slist *headers = curl->slist_append(NULL, "Accept: text/plain");
    const char *type = NULL;

    j->result = resolve && headers ? configure(j, easy, resolve, headers) : CURLE_OUT_OF_MEMORY;
    if (j->result == CURLE_OK)
        j->result = curl->perform(easy);
    (void)curl->getinfo(easy, CURLINFO_RESPONSE_CODE, &j->code);
    if (curl->getinfo(easy, CURLINFO_CONTENT_TYPE, &type) == CURLE_OK && type)
        snprintf(j->type, sizeof j->type, "%s", type);
    if (j->result != CURLE_OK && !j->error[0])
        snprintf(j->error, sizeof j->error, "%s", curl->strerror(j->result));
    curl->slist_free_all(resolve);
    curl->slist_free_all(headers);
}

static void
run_job(void *arg)
{
    struct job *j = arg;
    CURL *easy = atomic_load(&j->h->stop) ? NULL : j->h->curl.easy_init();

    j->result = CURLE_ABORTED_BY_CALLBACK;
    if (!easy)
        return;
    perform(j, easy);
    j->h->curl.easy_cleanup(easy);
}

/* ---- what it came to --------------------------------------------------------------------------------------------- */

/* Parameters behind the type do not count: section 3.2. */
static bool
is_plain_text(struct str type)
{
    return str_eq_nocase(str_trim(str_cut(&type, ';')), S("text/plain"));
}

static void
put_clean(struct text *out, struct str said)
{
    for (size_t i = 0; i < said.len; i++)
        text_put_byte(out, byte_is_control(said.ptr[i]) ? '?' : said.ptr[i]);
}

static enum https_status
judge(const struct job *j, struct text *why)
{
    if (j->too_long) {
        text_putf(why, "it is longer than %zu bytes", j->request->body_max);
        return HTTPS_UNFIT;
    }
    if (j->result == CURLE_PEER_FAILED_VERIFICATION || j->result == CURLE_SSL_CACERT_BADFILE) {
        put_clean(why, str_from_cstr(j->error));
        return HTTPS_UNTRUSTED;
    }
    if (j->result != CURLE_OK) {
        put_clean(why, str_from_cstr(j->error[0] ? j->error : "interrupted"));
        return HTTPS_UNREACHABLE;
    }
    if (j->code != 200) {
        text_putf(why, "the host answered %ld%s", j->code, j->code / 100 == 3 ? ": redirects are not followed" : "");
        return HTTPS_REFUSED;
    }
    if (!is_plain_text(str_from_cstr(j->type))) {
        text_put(why, S("it is not text/plain but \""));
        put_clean(why, str_from_cstr(j->type));
        text_put(why, S("\""));
        return HTTPS_UNFIT;
    }
    return HTTPS_OK;
}

/* "host:443:192.0.2.1,[2001:db8::1]": as if it had been looked up. */
static void
prepare(struct job *j)
{
    const struct https_request *r = j->request;
    struct text host = text_init(j->host, sizeof j->host), url = text_init(j->url, sizeof j->url),
                resolve = text_init(j->resolve, sizeof j->resolve);
    uint16_t port = r->addresses[0].port ? r->addresses[0].port : PORT;

    text_put(&host, r->host);
    text_cstr(&host);
    text_putf(&url, "https://%s:%u%.*s", j->host, port, STR_ARG(r->path));
    text_cstr(&url);
    text_putf(&resolve, "%s:%u:", j->host, port);
    for (size_t i = 0; i < r->address_count && i < HTTPS_ADDRESSES_MAX; i++) {
        bool six = r->addresses[i].family == ADDRESS_IPV6;
        text_put(&resolve, i ? S(",") : S(""));
        text_put(&resolve, six ? S("[") : S(""));
        address_put_ip(&resolve, &r->addresses[i]);
        text_put(&resolve, six ? S("]") : S(""));
    }
    text_cstr(&resolve);
    CHECK(!host.full && !url.full && !resolve.full);
}

struct err
https_get(struct https *h, const struct https_request *request, int64_t until, struct arena *arena,
          struct https_answer *out)
{
    struct mem *mem = rt_mem(h->rt);
    struct job *j = mem_new(mem, struct job);
    struct text why = text_init(arena_alloc(arena, HTTPS_WHY_MAX), HTTPS_WHY_MAX);

    CHECK(request->address_count > 0);
    CHECK(request->host.len < HOST_MAX && request->path.len < URL_MAX - HOST_MAX - 20);
    j->h = h;
    j->request = request;
    j->body = mem_alloc(mem, request->body_max);
    prepare(j);
    struct err e = rt_offload(h->rt, run_job, j, until);
    if (!err_is(e)) {
        *out = (struct https_answer){ .status = (uint8_t)judge(j, &why), .body = S("") };
        out->why = text_str(&why);
        if (out->status == HTTPS_OK)
            out->body = arena_keep(arena, str_new(j->body, j->len));
    }
    mem_free(mem, j->body, request->body_max);
    mem_free(mem, j, sizeof *j);
    return e;
}
