/* dovecot - see dovecot.h. */
#include "sasl/dovecot.h"

#include "base/base64.h"
#include "base/check.h"

#include <string.h>

enum { HANDSHAKE_LINES = 200, NUMBER = 1 };

struct dovecot {
    struct rt *rt;
    struct stream *own_stream;
    unsigned mechanisms; /* SASL_BITs */
    size_t len, taken;   /* of what was read; of that, what was a line already */
    char read[DOVECOT_LINE_MAX];
    char written[DOVECOT_LINE_MAX];
    char user[LIMIT_USER_NAME];
    size_t user_len;
};

/* ---- lines ------------------------------------------------------------------------------------------------------- */

/* Good until the next one. */
static struct err
read_line(struct dovecot *d, int64_t until, struct str *out)
{
    memmove(d->read, d->read + d->taken, d->len - d->taken);
    d->len -= d->taken;
    d->taken = 0;
    for (;;) {
        struct str here = str_new(d->read, d->len);
        size_t end = str_find_byte(here, '\n'), got;
        if (end < here.len) {
            d->taken = end + 1;
            *out = str_slice(here, 0, end);
            return OK;
        }
        if (d->len == sizeof d->read)
            return ERR(ERR_LIMIT, "read a line of Dovecot's");
        TRY(stream_read(d->own_stream, d->read + d->len, sizeof d->read - d->len, until, &got));
        if (got == 0)
            return ERR(ERR_CLOSED, "read a line of Dovecot's");
        d->len += got;
    }
}

/* A value with its escapes: \001 and a letter. */
static void
put_unescaped(struct text *out, struct str s)
{
    static const struct str letters = STR("01trn"), bytes = STR("\0\001\t\r\n");

    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];
        if (c == '\001' && i + 1 < s.len) {
            size_t at = str_find_byte(letters, s.ptr[++i]);
            c = at < letters.len ? bytes.ptr[at] : s.ptr[i];
        }
        text_put_byte(out, c);
    }
}

/* ---- the handshake ----------------------------------------------------------------------------------------------- */

static struct err
shake_hands(struct dovecot *d, int64_t until)
{
    struct text hello = text_init(d->written, sizeof d->written);
    struct str line;
    bool versed = false;

    /* Dovecot takes the number for a process: no two connections may have the same at once. */
    text_putf(&hello, "VERSION\t1\t1\nCPID\t%u\n", (unsigned)(rt_random(d->rt) >> 33) | 1u);
    TRY(stream_write(d->own_stream, text_str(&hello), until));
    for (int i = 0; i < HANDSHAKE_LINES; i++) {
        TRY(read_line(d, until, &line));
        struct str word = str_cut(&line, '\t');
        if (str_eq(word, S("VERSION"))) {
            versed = str_eq(str_cut(&line, '\t'), S("1"));
        } else if (str_eq(word, S("MECH"))) {
            enum sasl_mechanism m = sasl_mechanism_by_name(str_cut(&line, '\t'));
            d->mechanisms |= m == SASL_MECHANISMS ? 0 : SASL_BIT(m);
        } else if (str_eq(word, S("DONE"))) {
            return versed ? OK : ERR(ERR_PROTOCOL, "speak version 1 with Dovecot");
        }
    }
    return ERR(ERR_PROTOCOL, "greet Dovecot");
}

struct err
dovecot_open(struct rt *rt, const struct address *socket, int64_t until, struct dovecot **out)
{
    struct stream *stream;

    TRY(stream_connect(rt, socket, NULL, until, &stream));
    struct dovecot *d = mem_new(rt_mem(rt), struct dovecot);
    d->rt = rt;
    d->own_stream = stream;
    struct err e = shake_hands(d, until);
    if (err_is(e)) {
        dovecot_close(d);
        return e;
    }
    *out = d;
    return OK;
}

void
dovecot_close(struct dovecot *d)
{
    struct rt *rt = d->rt;

    stream_close(d->own_stream);
    explicit_bzero(d, sizeof *d);
    mem_free(rt_mem(rt), d, sizeof *d);
}

bool
dovecot_knows(const struct dovecot *d, enum sasl_mechanism m)
{
    return d->mechanisms & SASL_BIT(m);
}

/* ---- the exchange ------------------------------------------------------------------------------------------------ */

static enum sasl_status
take_user(struct dovecot *d, struct str fields)
{
    struct text user = text_init(d->user, sizeof d->user);

    while (!str_is_absent(fields)) {
        struct str field = str_cut(&fields, '\t');
        if (str_take(&field, S("user=")))
            put_unescaped(&user, field);
    }
    d->user_len = user.len;
    /* Dovecot may be told to let in any name; one with a line end or the like has no place in an envelope, nor in a log. */
    return user.len > 0 && !user.full && !str_has_control(text_str(&user)) ? SASL_OK : SASL_LATER;
}

/* "temp" is Dovecot's own trouble, or that of what it asks. */
static enum sasl_status
take_failure(struct str fields)
{
    while (!str_is_absent(fields)) {
        struct str field = str_cut(&fields, '\t');
        if (str_eq(field, S("temp")) || str_eq(field, S("code=temp_fail")))
            return SASL_LATER;
    }
    return SASL_REFUSED;
}

static enum sasl_status
ask(struct dovecot *d, struct text *line, int64_t until, struct text *out)
{
    struct str said;

    text_put_byte(line, '\n');
    struct err e = line->full ? ERR(ERR_LIMIT, "ask Dovecot") : stream_write(d->own_stream, text_str(line), until);
    if (!err_is(e))
        e = read_line(d, until, &said);
    explicit_bzero(d->written, sizeof d->written);
    if (err_is(e))
        return SASL_LATER;
    struct str word = str_cut(&said, '\t'), number = str_cut(&said, '\t');
    if (!str_eq(number, S("1")))
        return SASL_LATER;
    if (str_eq(word, S("OK")))
        return take_user(d, said);
    if (str_eq(word, S("FAIL")))
        return take_failure(said);
    return str_eq(word, S("CONT")) && base64_decode_strictly(str_is_absent(said) ? S("") : said, out) ? SASL_CHALLENGE : SASL_LATER;
}

enum sasl_status
dovecot_begin(struct dovecot *d, enum sasl_mechanism m, const struct address *client, struct str initial, int64_t until,
              struct text *out)
{
    struct text line = text_init(d->written, sizeof d->written);

    text_putf(&line, "AUTH\t%d\t", NUMBER);
    text_put(&line, sasl_mechanism_name(m));
    text_put(&line, S("\tservice=smtp\tsecured\tnologin"));
    if (client->family == ADDRESS_IPV4 || client->family == ADDRESS_IPV6) {
        text_put(&line, S("\trip="));
        address_put_ip(&line, client);
    }
    if (!str_is_absent(initial)) { /* the last field */
        text_put(&line, S("\tresp="));
        base64_put(&line, initial);
    }
    return ask(d, &line, until, out);
}

enum sasl_status
dovecot_step(struct dovecot *d, struct str response, int64_t until, struct text *out)
{
    struct text line = text_init(d->written, sizeof d->written);

    text_putf(&line, "CONT\t%d\t", NUMBER);
    base64_put(&line, response);
    return ask(d, &line, until, out);
}

struct str
dovecot_user(const struct dovecot *d)
{
    return str_new(d->user, d->user_len);
}
