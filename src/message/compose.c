/* compose - see compose.h. */
#include "message/compose.h"

#include "base/base64.h"
#include "message/date.h"
#include "message/header.h"
#include "message/utf8.h"

enum {
    BASE64_LINE = 57,        /* bytes that make a line of 76 */
    LINE_MAX = 998,
    FIXED_SIZE = 4096,       /* all that is not counted below */
    DOMAINS_SIZE = 64 << 10, /* for domains that addresses lack; then they stay as they are */
};

static void
put_boundary(struct text *t, const struct compose *c)
{
    text_put(t, S("=_"));
    message_id_put(t, c->origin.id);
}

static void
put_from(struct text *t, const struct compose_origin *o, bool utf8)
{
    text_put(t, S("From: "));
    if (o->name.len) {
        header_put_phrase(t, o->name, utf8);
        text_put(t, S(" <"));
        text_put(t, o->address);
        text_put(t, S(">\r\n"));
        return;
    }
    text_put(t, o->address);
    text_put(t, S("\r\n"));
}

static void
put_date(struct text *t, const struct compose_origin *o)
{
    text_put(t, S("Date: "));
    date_put(t, o->wall);
    text_put(t, S("\r\n"));
}

static void
put_message_id(struct text *t, const struct compose_origin *o)
{
    text_put(t, S("Message-ID: <"));
    message_id_put(t, o->id);
    text_put_byte(t, '@');
    text_put(t, o->hostname);
    text_put(t, S(">\r\n"));
}

static void
put_base64(struct text *t, struct str content)
{
    while (content.len) {
        base64_put(t, str_slice(content, 0, BASE64_LINE));
        text_put(t, S("\r\n"));
        content = str_from(content, BASE64_LINE);
    }
}

/* Any line ends to CRLF, with one at the end. */
static void
put_lines(struct text *t, struct str text)
{
    while (text.len > 0) {
        struct str line = str_cut(&text, '\n');
        bool has_lf = !str_is_absent(text);
        if (has_lf && str_ends(line, S("\r")))
            line.len--;
        while (str_has_byte(line, '\r')) {
            text_put(t, str_cut(&line, '\r'));
            text_put(t, S("\r\n"));
        }
        text_put(t, line);
        if (has_lf || line.len > 0)
            text_put(t, S("\r\n"));
    }
}

/* Of a field of somebody's header. Only LF ends a line there, so a CR elsewhere must not begin to. */
static void
put_field_part(struct text *t, struct str part)
{
    while (part.len > 0) {
        struct str line = str_cut(&part, '\n');
        while (line.len > 0) {
            text_put(t, str_cut(&line, '\r'));
            if (line.len > 0)
                text_put_byte(t, ' ');
        }
        if (!str_is_absent(part))
            text_put(t, S("\r\n"));
    }
}

static void
put_field_lines(struct text *t, struct str field)
{
    put_field_part(t, field);
    if (!str_ends(field, S("\n")))
        text_put(t, S("\r\n"));
}

static bool
has_long_line(struct str text)
{
    while (text.len > 0)
        for (struct str line = str_cut(&text, '\n'); line.len > 0;)
            if (str_cut(&line, '\r').len > LINE_MAX)
                return true;
    return false;
}

static void
put_text(struct text *t, const struct compose *c)
{
    bool ascii = str_is_ascii(c->text), utf8 = utf8_is_valid(c->text);
    bool encode = str_has_byte(c->text, '\0') || has_long_line(c->text);

    text_put(t, ascii  ? S("Content-Type: text/plain; charset=us-ascii\r\n")
                : utf8 ? S("Content-Type: text/plain; charset=utf-8\r\n")
                       : S("Content-Type: text/plain; charset=unknown-8bit\r\n"));
    if (encode)
        text_put(t, S("Content-Transfer-Encoding: base64\r\n"));
    else if (!ascii)
        text_put(t, S("Content-Transfer-Encoding: 8bit\r\n"));
    text_put(t, S("\r\n"));
    if (encode)
        put_base64(t, c->text);
    else
        put_lines(t, c->text);
}

static void
put_attachment(struct text *t, const struct compose_attachment *a)
{
    bool plain = a->name.len > 0;

    for (size_t i = 0; i < a->name.len; i++)
        plain = plain && a->name.ptr[i] >= ' ' && a->name.ptr[i] <= '~' && !str_has_byte(S("\"\\"), a->name.ptr[i]);
    text_put(t, S("Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n"
                  "Content-Disposition: attachment;\r\n "));
    if (plain) {
        text_put(t, S("filename=\""));
        text_put(t, a->name);
        text_put(t, S("\"\r\n\r\n"));
    } else { /* RFC 2231 section 4; file names are at most 255 bytes */
        text_put(t, utf8_is_valid(a->name) ? S("filename*=utf-8''") : S("filename*=unknown-8bit''"));
        for (size_t i = 0; i < a->name.len; i++) {
            char c = a->name.ptr[i];
            if (byte_is_alnum(c) || str_has_byte(S("._-"), c))
                text_put_byte(t, c);
            else
                text_putf(t, "%%%02X", (unsigned char)c);
        }
        text_put(t, S("\r\n\r\n"));
    }
    put_base64(t, a->content);
}

static void
put_address_list(struct text *t, struct str name, const struct str *addresses, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        text_put(t, i == 0 ? name : S(",\r\n "));
        for (size_t k = 0; k < addresses[i].len; k++) { /* nothing in it may begin a line */
            char c = addresses[i].ptr[k];
            text_put_byte(t, byte_is_control(c) ? ' ' : c);
        }
    }
    if (count > 0)
        text_put(t, S("\r\n"));
}

size_t
compose_size(const struct compose *c)
{
    size_t size = FIXED_SIZE + c->origin.address.len + 8 * (c->origin.name.len + c->subject.len) +
                  2 * c->origin.hostname.len + 2 * c->text.len + 100;

    for (size_t i = 0; i < c->to_count; i++)
        size += 2 * c->to[i].len + 8;
    for (size_t i = 0; i < c->cc_count; i++)
        size += 2 * c->cc[i].len + 8;
    for (size_t i = 0; i < c->field_count; i++)
        size += 8 * c->fields[i].len + 40;
    for (size_t i = 0; i < c->attachment_count; i++)
        size += 512 + 3 * c->attachments[i].name.len + (c->attachments[i].content.len / BASE64_LINE + 1) * 78;
    return size;
}

void
compose_put(struct text *t, const struct compose *c)
{
    put_date(t, &c->origin);
    put_from(t, &c->origin, c->utf8);
    put_address_list(t, S("To: "), c->to, c->to_count);
    put_address_list(t, S("Cc: "), c->cc, c->cc_count);
    if (c->to_count + c->cc_count == 0)
        text_put(t, S("To: undisclosed-recipients:;\r\n"));
    header_put_text(t, S("Subject"), c->subject, c->utf8);
    put_message_id(t, &c->origin);
    for (size_t i = 0; i < c->field_count; i++) {
        struct str value = c->fields[i];
        struct str name = str_cut(&value, ':');
        header_put_text(t, str_trim(name), str_trim(value), c->utf8);
    }
    text_put(t, S("MIME-Version: 1.0\r\n"));
    if (c->attachment_count == 0) {
        put_text(t, c);
        return;
    }
    text_put(t, S("Content-Type: multipart/mixed; boundary=\""));
    put_boundary(t, c);
    text_put(t, str_is_ascii(c->text) ? S("\"\r\n") : S("\"\r\nContent-Transfer-Encoding: 8bit\r\n"));
    text_put(t, S("\r\n--"));
    put_boundary(t, c);
    text_put(t, S("\r\n"));
    put_text(t, c);
    for (size_t i = 0; i < c->attachment_count; i++) {
        text_put(t, S("\r\n--"));
        put_boundary(t, c);
        text_put(t, S("\r\n"));
        put_attachment(t, &c->attachments[i]);
    }
    text_put(t, S("--"));
    put_boundary(t, c);
    text_put(t, S("--\r\n"));
}

size_t
compose_header_size(struct str message, const struct compose_origin *o)
{
    return FIXED_SIZE + DOMAINS_SIZE + 2 * message.len + o->address.len + 8 * o->name.len + o->hostname.len;
}

/* The fields that name people: RFC 5322 sections 3.6.2, 3.6.3 and 3.6.6. */
static bool
holds_addresses(struct str name)
{
    static const struct str names[] = { STR("From"), STR("Sender"), STR("Reply-To"), STR("To"), STR("Cc") };

    str_take_nocase(&name, S("Resent-"));
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (str_eq_nocase(name, names[i]))
            return true;
    return false;
}

/* How many of a field's addresses have no domain. */
static size_t
count_unqualified(struct str value, struct arena *work)
{
    struct mailbox m;
    size_t count = 0;

    for (enum addresses found; (found = addresses_next(&value, work, &m)) != ADDRESSES_END; arena_reset(work))
        count += found == ADDRESSES_ONE && m.path.domain.len == 0;
    return count;
}

/* A field of addresses, each with a domain. Nothing else in it changes. */
static void
put_qualified(struct text *t, const struct header_field *field, struct str domain, size_t *room, struct arena *work)
{
    struct str rest = field->whole, value = field->value;
    struct mailbox m;
    size_t more = count_unqualified(value, work) * (domain.len + sizeof "@ \"\"");

    if (more == 0 || more > *room) {
        put_field_lines(t, rest);
        return;
    }
    *room -= more;
    for (enum addresses found; (found = addresses_next(&value, work, &m)) != ADDRESSES_END; arena_reset(work)) {
        if (found != ADDRESSES_ONE || m.path.domain.len > 0)
            continue;
        size_t at = (size_t)(m.spec.ptr - rest.ptr);
        put_field_part(t, str_slice(rest, 0, at));
        path_put(t, (struct path){ m.path.local, domain });
        if (!str_has_byte(m.path.local, '(') && str_has_byte(m.spec, '(')) { /* "bob (Bob)": who that is */
            text_put_byte(t, ' ');
            put_field_part(t, str_from(m.spec, str_find_byte(m.spec, '(')));
        }
        rest = str_from(rest, at + m.spec.len);
    }
    put_field_lines(t, rest);
}

static bool
is_signed(struct str header)
{
    struct header_field field;

    while (header_take(&header, &field))
        if (str_eq_nocase(field.name, S("DKIM-Signature")))
            return true;
    return false;
}

/* "From : me@host.example" is a field, as RFC 5322 section 4.5 still has it. */
static struct str
without_mbox_line(struct str header)
{
    struct header_field field;
    struct str rest = header;

    if ((!str_starts(header, S("From ")) && !str_starts(header, S(">From "))) || header_take(&rest, &field))
        return header;
    return str_from(header, str_find_byte(header, '\n') + 1);
}

void
compose_header(struct text *t, struct str *message, const struct compose_origin *o, struct mem *mem)
{
    struct header_field field;
    struct arena work;
    bool has_from = false, has_date = false, has_id = false;
    struct str rest = without_mbox_line(*message);
    size_t room = DOMAINS_SIZE;

    bool qualifies = o->domain.len > 0 && !is_signed(rest);
    arena_init(&work, mem, 512, 8 * message->len + (64 << 10));
    while (header_take(&rest, &field)) {
        if (!o->keeps_bcc && (str_eq_nocase(field.name, S("Bcc")) || str_eq_nocase(field.name, S("Resent-Bcc"))))
            continue;
        has_from |= str_eq_nocase(field.name, S("From"));
        has_date |= str_eq_nocase(field.name, S("Date"));
        has_id |= str_eq_nocase(field.name, S("Message-ID"));
        if (qualifies && holds_addresses(field.name))
            put_qualified(t, &field, o->domain, &room, &work);
        else
            put_field_lines(t, field.whole);
    }
    arena_done(&work);
    if (!has_from)
        put_from(t, o, false);
    if (!has_date)
        put_date(t, o);
    if (!has_id)
        put_message_id(t, o);
    text_put(t, S("\r\n"));
    if (!str_take(&rest, S("\r\n")))
        str_take(&rest, S("\n"));
    *message = rest;
}

static bool
names_recipients(struct str name, bool resent)
{
    if (resent && !str_take_nocase(&name, S("Resent-")))
        return false;
    return str_eq_nocase(name, S("To")) || str_eq_nocase(name, S("Cc")) || str_eq_nocase(name, S("Bcc"));
}

enum addresses
compose_next_recipient(struct compose_recipients *r, struct arena *arena, struct mailbox *out)
{
    struct header_field field;

    if (!r->started) {
        r->started = true;
        r->header = without_mbox_line(r->header);
        for (struct str rest = r->header; header_take(&rest, &field);)
            r->resent |= names_recipients(field.name, true);
        r->fields = r->header;
        r->value = S("");
    }
    for (;;) {
        enum addresses next = addresses_next(&r->value, arena, out);
        if (next != ADDRESSES_END)
            return next;
        if (!header_take(&r->fields, &field))
            return ADDRESSES_END;
        if (names_recipients(field.name, r->resent))
            r->value = field.value;
    }
}
