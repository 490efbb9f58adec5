/* reply - see reply.h. */
#include "smtp/reply.h"

#include "base/check.h"
#include "base/limits.h"

#include <stdarg.h>
#include <stdio.h>

#define REPLY(name, code, enhanced, text) const struct reply reply_##name = { code, STR(enhanced), STR(text) }

/* Session. */
REPLY(closing, 221, "2.0.0", "Goodbye");
REPLY(ok, 250, "2.0.0", "Ok");
REPLY(shutting_down, 421, "4.3.2", "This server is shutting down; try again in a minute");
REPLY(timeout, 421, "4.4.2", "No command came in time; closing");
REPLY(content_timeout, 421, "4.4.2", "The message stopped coming; closing, nothing of it was kept");
REPLY(content_too_slow, 421, "4.4.2", "The message comes too slowly; closing, nothing of it was kept");
REPLY(too_many_wrong, 421, "4.7.0", "Too many wrong commands; closing. HELP would have listed them");
REPLY(too_many_idle, 421, "4.7.0", "Too many commands without a message; closing");
REPLY(talked_early, 554, "5.5.0", "You spoke before the greeting; wait for the 220");
REPLY(talked_ahead, 554, "5.5.0", "You sent more before the reply to this command; wait for it (RFC 2920 section 3.1)");

REPLY(start_tls, 220, "2.0.0", "Ready to start TLS");
REPLY(tls_already, 503, "5.5.1", "TLS is on already");
REPLY(tls_not_now, 454, "4.7.0", "TLS is not to be had at the moment; go on without it, or try again later");

REPLY(xclient_denied, 550, "5.7.0", "You may not say for whom you speak; our configuration would have to name you");
REPLY(xclient_syntax, 501, "5.5.4", "Say XCLIENT ADDR=192.0.2.1 NAME=host.name and the like, each once, in xtext");
REPLY(xclient_login, 550, "5.7.1", "Nobody logs in at this port: no LOGIN in XCLIENT");

/* AUTH. */
REPLY(auth_done, 235, "2.7.0", "Welcome");
REPLY(auth_needed, 530, "5.7.0", "Log in first: your mail program must send your user name and password (AUTH)");
REPLY(tls_needed, 530, "5.7.0", "Set your mail program to encrypt (STARTTLS), and to log in");
REPLY(auth_refused, 535, "5.7.8", "User name or password is wrong");
REPLY(auth_mechanism, 504, "5.5.4", "This way to log in is not known here; EHLO lists what is");
REPLY(auth_weak, 534, "5.7.9", "This way to log in is too weak for you here; EHLO lists others");
REPLY(auth_in_clear, 538, "5.7.11", "Passwords only under TLS: set your mail program to encrypt (STARTTLS)");
REPLY(auth_malformed, 501, "5.5.2", "That is not what this way to log in says; nobody is logged in");
REPLY(auth_later, 454, "4.7.0", "Logins cannot be checked at the moment; try again later");
REPLY(auth_throttled, 454, "4.7.0", "Too many failed logins of late; try again later");
REPLY(auth_cancelled, 501, "5.7.0", "Login cancelled, as you asked");
REPLY(auth_syntax, 501, "5.5.4", "Say AUTH mechanism, or AUTH mechanism base64");
REPLY(auth_base64, 501, "5.5.2", "That is not base64; nobody is logged in");
REPLY(auth_line_too_long, 500, "5.5.6", "Line too long; at most 12288 bytes when logging in");
REPLY(auth_already, 503, "5.5.1", "You are logged in already; MAIL FROM:<you@example.org> comes next");
REPLY(auth_needs_ehlo, 503, "5.5.1", "Say EHLO your.host.name before AUTH");
REPLY(auth_failures, 421, "4.7.0", "Too many failed logins; closing");

/* Commands. */
REPLY(line_too_long, 500, "5.5.2", "Command line too long; at most 2048 bytes");
REPLY(bare_lf, 500, "5.5.2", "Lines must end with CR LF, yours ended with LF alone (try telnet, or nc -C); closing");
REPLY(control_character, 500, "5.5.2", "A control character in a command; send it again without");
REPLY(nul, 501, "5.5.2", "A NUL byte in a command; send it again without");
REPLY(empty_command, 500, "5.5.2", "An empty line is no command; try HELP");
REPLY(unknown_command, 500, "5.5.1", "Unknown command; try HELP");
REPLY(known_but_off, 502, "5.5.1", "This command is not offered here; try HELP");
REPLY(no_argument_wanted, 501, "5.5.4", "This command stands alone on its line");
REPLY(helo_needs_name, 501, "5.5.4", "Say who you are: EHLO your.host.name");
REPLY(helo_name_too_long, 501, "5.5.4", "Your host name is longer than 255 bytes");
REPLY(not_a_mail_host, 503, "5.5.1", "No mail is taken here, as the greeting said; send QUIT");

REPLY(hello_first, 503, "5.5.1", "Say EHLO your.host.name first");
REPLY(mail_first, 503, "5.5.1", "MAIL FROM:<you@example.org> comes first");
REPLY(rcpt_first, 503, "5.5.1", "RCPT TO:<someone@example.org> comes first");
REPLY(mail_again, 503, "5.5.1", "A transaction is open: RCPT or DATA comes next, or RSET to begin anew");
REPLY(chunks_begun, 503, "5.5.1", "The message has begun: BDAT comes next, or RSET to drop it");
REPLY(chunk_refused_before, 503, "5.5.1", "A chunk before this one was refused: RSET comes next");
REPLY(in_transaction, 503, "5.5.1", "Not inside a transaction: end it first, or RSET");

/* MAIL and RCPT. */
REPLY(sender_ok, 250, "2.1.0", "Sender ok");
REPLY(mail_syntax, 501, "5.5.4", "Say MAIL FROM:<you@example.org>, or MAIL FROM:<> for a notice");
REPLY(bad_sender, 501, "5.1.7", "Bad sender address; say MAIL FROM:<you@example.org>");
REPLY(sender_needs_smtputf8, 553, "5.6.7", "A sender address beyond ASCII needs the parameter SMTPUTF8");
REPLY(no_memory_now, 452, "4.3.1", "Too busy to take another message now; try again later");
REPLY(size_syntax, 501, "5.5.4", "SIZE= wants a number of bytes");
REPLY(body_syntax, 501, "5.5.4", "BODY= wants 7BIT or 8BITMIME");
REPLY(body_binary, 555, "5.5.4", "BODY=BINARYMIME is not offered here; encode the message and say 8BITMIME");
REPLY(smtputf8_value, 501, "5.5.4", "SMTPUTF8 takes no value");
REPLY(require_tls_value, 501, "5.5.4", "REQUIRETLS takes no value");
REPLY(ret_syntax, 501, "5.5.4", "RET= wants FULL or HDRS");
REPLY(envid_syntax, 501, "5.5.4", "ENVID= wants xtext (RFC 3461 section 4) of at most 100 characters");
REPLY(auth_param_syntax, 501, "5.5.4", "AUTH= wants an address in xtext (RFC 3461 section 4), or <>");
REPLY(by_syntax, 501, "5.5.4", "BY= wants seconds and what then, as in BY=3600;N or BY=3600;R");
REPLY(holdfor_syntax, 501, "5.5.4", "HOLDFOR= wants a number of seconds");
REPLY(holduntil_syntax, 501, "5.5.4", "HOLDUNTIL= wants a time such as 2026-11-21T10:00:00Z (RFC 3339)");
REPLY(hold_twice, 501, "5.5.4", "HOLDFOR and HOLDUNTIL do not go together");
REPLY(hold_too_long, 501, "5.5.4", "That is later than mail is held here; EHLO names the limit");
REPLY(parameter_twice, 501, "5.5.4", "A parameter was given twice");
REPLY(parameter_after_helo, 555, "5.5.4", "Parameters need EHLO; you said HELO");

REPLY(recipient_ok, 250, "2.1.5", "Recipient ok");
REPLY(rcpt_syntax, 501, "5.5.4", "Say RCPT TO:<someone@example.org>");
REPLY(bad_recipient, 501, "5.1.3", "Bad recipient address; say RCPT TO:<someone@example.org>");
REPLY(sender_too_long, 501, "5.1.7", "That address is too long; at most 1024 bytes");
REPLY(recipient_too_long, 501, "5.1.3", "That address is too long; at most 1024 bytes");
REPLY(null_recipient, 501, "5.1.3", "A recipient cannot be <>; say RCPT TO:<someone@example.org>");
REPLY(recipient_needs_smtputf8, 553, "5.6.7", "A recipient beyond ASCII needs the parameter SMTPUTF8 at MAIL");
REPLY(notify_syntax, 501, "5.5.4", "NOTIFY= wants NEVER, or a list of SUCCESS,FAILURE,DELAY");
REPLY(orcpt_syntax, 501, "5.5.4", "ORCPT= wants type;xtext (RFC 3461 section 4.2) of at most 500 characters");
REPLY(cannot_verify, 451, "4.4.3", "Whether that mailbox exists cannot be asked now; try again later");
REPLY(too_many_recipients, 452, "4.5.3", "Too many recipients; send this message to the others in another transaction");
REPLY(list_too_large, 550, "5.2.4", "This list has more members than one message may have");
REPLY(too_many_rcpt, 421, "4.5.3", "Far too many RCPT commands in one transaction; closing");
REPLY(too_many_refused, 421, "4.7.0", "Too many refused recipients and none accepted; closing");

/* Content. */
REPLY(start_content, 354, "", "Send the message; end with a line that holds a single dot");
REPLY(no_valid_recipients, 554, "5.5.1", "No valid recipients; nothing to send the message to");
REPLY(too_big, 552, "5.3.4", "The message is larger than the SIZE that EHLO named");
REPLY(envelope_too_big, 552, "5.3.4", "The recipients are too many or too long for one message here; send it in several");
REPLY(no_space, 452, "4.3.1", "No room to store the message now; try again later");
REPLY(try_again, 451, "4.3.0", "The message could not be stored now; try again later");
REPLY(mail_loop, 554, "5.4.6", "Over 100 Received fields: this message goes round in a loop");
REPLY(header_too_big, 554, "5.6.0", "The header is over 1 MiB; an empty line should have ended it");
REPLY(author_unreadable, 550, "5.6.0", "The From or Sender of the message holds what is no address");
REPLY(too_many_authors, 550, "5.6.0", "The From of the message names more than 100 people");
REPLY(lists_of_authors, 550, "5.6.0", "The sender and authors of this message stand for over 20000 members of lists in all");
REPLY(bdat_syntax, 501, "5.5.4", "Say BDAT size or BDAT size LAST; where this chunk ends cannot be known, so closing");
REPLY(bdat_too_big, 552, "5.3.4", "This chunk is far larger than the SIZE that EHLO named; closing");
REPLY(bdat_word, 501, "5.5.4", "Behind the size only LAST may follow; the chunk was dropped");
REPLY(too_many_chunks, 554, "5.5.0", "Too many chunks for one message; send larger ones");

/* The others. */
REPLY(vrfy_off, 252, "2.0.0", "Addresses are not verified here; send the message, and RCPT will tell");
REPLY(needs_utf8, 252, "2.6.8", "The answer needs UTF-8, which our replies do not have; send the message, and RCPT will tell");
REPLY(needs_address, 501, "5.5.4", "Which address?");
REPLY(etrn_syntax, 501, "5.5.4", "Say ETRN example.org");
REPLY(no_such_help, 504, "5.5.4", "No help on that; HELP alone lists the commands");

const struct reply *
reply_make(struct arena *arena, unsigned code, const char *enhanced, const char *format, ...)
{
    char line[LIMIT_REPLY_LINE];
    struct reply *r = arena_new(arena, struct reply);
    va_list args;

    va_start(args, format);
    int n = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    CHECK(n >= 0);
    if ((size_t)n < sizeof line) {
        r->text = arena_keep(arena, str_new(line, (size_t)n));
    } else {
        char *memory = arena_alloc(arena, (size_t)n + 1);
        va_start(args, format);
        vsnprintf(memory, (size_t)n + 1, format, args);
        va_end(args);
        r->text = str_new(memory, (size_t)n);
    }
    r->code = code;
    r->enhanced = str_from_cstr(enhanced);
    return r;
}

const struct reply *
reply_join(struct arena *arena, unsigned code, const char *enhanced, struct str text, struct str more)
{
    struct reply *r = arena_new(arena, struct reply);

    *r = (struct reply){ .code = code, .enhanced = str_from_cstr(enhanced), .text = arena_join(arena, text, more) };
    return r;
}

/* Room for text on a line: without code, separator, enhanced code with its space, and CRLF. */
static size_t
line_room(const struct reply *r)
{
    size_t fixed = 4 + (r->enhanced.len ? r->enhanced.len + 1 : 0) + 2;

    CHECK(fixed < 32);
    return LIMIT_REPLY_LINE - fixed;
}

/* The next line of the text, at most `room` bytes: up to '\n', else up to the last space that fits. After the last
 * one the text is absent. */
static struct str
line_cut(struct str *text, size_t room)
{
    size_t len = str_find_byte(*text, '\n');

    if (len > room) {
        len = str_find_last_byte(str_slice(*text, 0, room + 1), ' ');
        if (len == 0 || len > room)
            len = room;
    }
    struct str line = str_slice(*text, 0, len);
    size_t next = len < text->len && (text->ptr[len] == '\n' || text->ptr[len] == ' ') ? len + 1 : len;
    *text = next < text->len ? str_from(*text, next) : (struct str){ 0 };
    return line;
}

static void
put_clean(struct text *out, struct str line)
{
    for (size_t i = 0; i < line.len; i++) {
        unsigned char c = (unsigned char)line.ptr[i];
        text_put_byte(out, c < ' ' || c >= 0x7F ? '?' : (char)c);
    }
}

void
reply_put(struct text *out, const struct reply *r)
{
    struct str rest = r->text;
    size_t room = line_room(r);

    CHECK(r->code >= 200 && r->code <= 599);
    do {
        struct str line = line_cut(&rest, room);
        text_put_u64(out, r->code);
        text_put_byte(out, str_is_absent(rest) ? ' ' : '-');
        if (r->enhanced.len) {
            text_put(out, r->enhanced);
            text_put_byte(out, ' ');
        }
        put_clean(out, line);
        text_put(out, S("\r\n"));
    } while (!str_is_absent(rest));
}

size_t
reply_size(const struct reply *r)
{
    size_t size = 0, room = line_room(r);
    struct str rest = r->text;

    do
        size += line_cut(&rest, room).len + (LIMIT_REPLY_LINE - room);
    while (!str_is_absent(rest));
    return size;
}
