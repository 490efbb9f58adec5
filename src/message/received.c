/* received - see received.h. */
#include "message/received.h"

#include "message/date.h"

/* Names come from strangers: what has a meaning in a structured field, or none in a name, becomes "?". So does what
 * is not ASCII, in mail with SMTPUTF8 too: it may go on without, and then the field must be ASCII (RFC 6531 section 3.7.3). */
static void
put_name(struct text *t, struct str name, size_t max)
{
    name = str_slice(name, 0, max);
    for (size_t i = 0; i < name.len; i++) {
        char c = name.ptr[i];
        bool safe = byte_is_alnum(c) || str_has_byte(S("-._:[]!#$%&'*+/=^`{|}~"), c);
        text_put_byte(t, safe ? c : '?');
    }
    if (name.len == 0)
        text_put(t, S("unknown"));
}

static void
put_comment(struct text *t, struct str s, size_t max)
{
    s = str_slice(s, 0, max);
    for (size_t i = 0; i < s.len; i++)
        text_put_byte(t, s.ptr[i] < ' ' || s.ptr[i] > '~' || str_has_byte(S("()\\"), s.ptr[i]) ? '?' : s.ptr[i]);
}

struct str
received_protocol(const struct received *r)
{
    static const struct str names[4][4] = {
        /*            clear           TLS               AUTH              both */
        /* SMTP  */ { STR("ESMTP"),    STR("ESMTPS"),    STR("ESMTPA"),    STR("ESMTPSA") },
        /* LMTP  */ { STR("LMTP"),     STR("LMTPS"),     STR("LMTPA"),     STR("LMTPSA") },
        /* UTF-8 */ { STR("UTF8SMTP"), STR("UTF8SMTPS"), STR("UTF8SMTPA"), STR("UTF8SMTPSA") },
        /* both  */ { STR("UTF8LMTP"), STR("UTF8LMTPS"), STR("UTF8LMTPA"), STR("UTF8LMTPSA") },
    };

    if (!r->smtp_extended && !r->lmtp)
        return S("SMTP");
    return names[(r->utf8 ? 2 : 0) + (r->lmtp ? 1 : 0)][(r->authenticated ? 2 : 0) + (r->tls ? 1 : 0)];
}

static void
put_client(struct text *t, const struct received *r)
{
    if (r->client.family != ADDRESS_IPV4 && r->client.family != ADDRESS_IPV6) {
        put_comment(t, r->local, 64);
        return;
    }
    put_name(t, r->rdns, LIMIT_DOMAIN);
    text_put_byte(t, ' ');
    address_put_literal(t, &r->client);
}

/* Over 900 bytes the line would be too long, and a control character would be a line of somebody else's. */
static bool
may_name_recipient(const struct received *r)
{
    return r->recipient.len > 0 && r->recipient.len < 900 && !str_has_control(r->recipient) &&
           str_is_ascii(r->recipient);
}

/* A line of its own for each clause: the longest, with a HELO name of LIMIT_HELO, stays far below 998. */
void
received_put(struct text *t, const struct received *r)
{
    text_put(t, S("Received: from "));
    put_name(t, r->helo, LIMIT_HELO);
    text_put(t, S(" ("));
    put_client(t, r);
    text_put(t, S(")\r\n\tby "));
    put_name(t, r->by, LIMIT_DOMAIN);
    text_put(t, S(" with "));
    text_put(t, received_protocol(r));
    text_put(t, S("\r\n\tid "));
    message_id_put(t, r->id);
    if (r->tls && r->tls_version.len) {
        text_put(t, S("\r\n\t("));
        put_comment(t, r->tls_version, 128);
        text_put(t, S(")"));
    }
    if (may_name_recipient(r)) {
        text_put(t, S("\r\n\tfor <"));
        text_put(t, r->recipient);
        text_put(t, S(">"));
    }
    text_put(t, S(";\r\n\t"));
    date_put(t, r->wall);
    text_put(t, S("\r\n"));
}

void
received_count(struct received_counter *c, struct str bytes)
{
    static const struct str name = STR("received:");
    size_t i;

    for (i = 0; i < bytes.len && !c->ended; i++) {
        char byte = bytes.ptr[i];
        if (byte == '\n') {
            c->ended = !c->mid_line && c->matched == 0;
            c->mid_line = false;
            c->matched = 0;
        } else if (c->mid_line || byte == '\r') {
            continue;
        } else if (byte_lower(byte) == name.ptr[c->matched]) {
            if (++c->matched == name.len) {
                c->count++;
                c->mid_line = true;
            }
        } else if (!(byte_is_space(byte) && c->matched == name.len - 1)) { /* "Received :" is the obsolete form */
            c->mid_line = true;
        }
    }
    c->bytes += i;
}
