/*
 * compose - messages of our users' making: a new one from what a command line says (`send`), and one that came with a
 * header of its own made complete (`sendmail`, RFC 6409 section 8). For the command line: everything is in memory.
 */
#ifndef MESSAGE_COMPOSE_H
#define MESSAGE_COMPOSE_H

#include "message/addresses.h"
#include "message/envelope.h"

/* Who and when: for the fields that are missing. */
struct compose_origin {
    struct str address;   /* of the sender, "user@host" */
    struct str name;      /* full name, or empty */
    struct str hostname;  /* for the Message-ID */
    struct str domain;    /* for addresses of the header that have none; absent: they stay so */
    bool keeps_bcc;       /* the header is for the sender's own eyes */
    struct message_id id; /* random */
    int64_t wall;
};

struct compose_attachment {
    struct str name;      /* file name without folders */
    struct str content;
};
struct compose {
    struct compose_origin origin;
    const struct str *to, *cc;         /* addresses as they are to stand there */
    size_t to_count, cc_count;
    const struct str *fields;          /* "Name: value": more header fields */
    size_t field_count;
    struct str subject;
    struct str text;                   /* any line ends; UTF-8 if it is not ASCII */
    const struct compose_attachment *attachments;
    size_t attachment_count;
    bool utf8;                         /* addresses and names may go out as UTF-8 (SMTPUTF8) */
};
/* Bytes that compose_put() needs at most. */
size_t compose_size(const struct compose *);
/* The whole message, lines ended by CRLF, 7-bit unless `utf8` or the text says otherwise (then 8bit). */
void compose_put(struct text *, const struct compose *);

/*
 * A message with a header: its fields without Bcc and Resent-Bcc (unless kept), and with From, Date and Message-ID where
 * they are missing; then the empty line. Addresses without a domain get the origin's, unless a signature (DKIM) may cover them.
 * *message is left at the body. A "From " line of mbox is dropped, "From :" is none; lines end with CRLF. The text needs
 * compose_header_size().
 */
void compose_header(struct text *, struct str *message, const struct compose_origin *, struct mem *);
size_t compose_header_size(struct str message, const struct compose_origin *);

/*
 * The recipients that a header names: To, Cc and Bcc, or if there are any, Resent-To, Resent-Cc and Resent-Bcc. Starts
 * with .header set. END, ONE or BAD as in addresses.h.
 */
struct compose_recipients {
    struct str header;
    struct str fields, value; /* what is left of both */
    bool started, resent;
};
enum addresses compose_next_recipient(struct compose_recipients *, struct arena *, struct mailbox *out);

#endif
