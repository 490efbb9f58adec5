/*
 * Conversion, by cases. Run with --convert it is a filter, 7-bit version of standard input to standard output (exit 65:
 * not possible), for tests/test_mime_convert.py, which decodes every message of the public suites before and after.
 */
#include "message/convert.h"

#include "base/prng.h"
#include "base/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct mime_needs *
scan(struct arena *arena, struct str in, size_t cut)
{
    struct mime_scan *s = mime_scan_new(arena);
    struct str head = test_edge(str_slice(in, 0, cut)), tail = test_edge(str_from(in, cut));

    mime_scan_feed(s, head);
    test_edge_free(head);
    mime_scan_feed(s, tail);
    test_edge_free(tail);
    return mime_scan_end(s);
}

/* Fed in two pieces, with `room` bytes for output at a time. */
static void
convert(struct arena *arena, const struct mime_needs *needs, enum convert_to to, struct str in, size_t cut, size_t room,
        struct text *out)
{
    struct convert *c = convert_new(arena, needs, to);
    char *memory = malloc(room);

    for (int i = 0; i < 2; i++) {
        struct str piece = test_edge(i == 0 ? str_slice(in, 0, cut) : str_from(in, cut)), rest = piece;
        for (bool done = false; !done;) {
            struct text part = text_init(memory, room);
            done = convert_feed(c, &rest, &part);
            text_put(out, text_str(&part));
        }
        test_edge_free(piece);
    }
    for (bool done = false; !done;) {
        struct text part = text_init(memory, room);
        done = convert_end(c, &part);
        text_put(out, text_str(&part));
    }
    free(memory);
}

static const struct {
    const char *why;
    struct str in;
    enum convert_to to;
    enum convert_verdict verdict;
    struct str out; /* absent: as it is */
} cases[] = {
    { "7-bit stays", STR("Subject: a\r\n\r\nbody\r\n"), CONVERT_TO_7BIT, CONVERT_NOT_NEEDED, { 0 } },
    { "8bit label on 7-bit text stays", STR("Content-Transfer-Encoding: 8bit\r\n\r\nbody\r\n"), CONVERT_TO_7BIT,
      CONVERT_NOT_NEEDED, { 0 } },
    { "no MIME fields, UTF-8", STR("Subject: a\r\n\r\nb\xc3\xa4 \r\n"), CONVERT_TO_7BIT, CONVERT_NEEDED,
      STR("Subject: a\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
          "Content-Transfer-Encoding: quoted-printable\r\n\r\nb=C3=A4=20\r\n") },
    { "no MIME fields, not UTF-8", STR("Subject: a\r\n\r\n\xe4\r\n"), CONVERT_TO_7BIT, CONVERT_NEEDED,
      STR("Subject: a\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=unknown-8bit\r\n"
          "Content-Transfer-Encoding: quoted-printable\r\n\r\n=E4\r\n") },
    { "no header at all", STR("\r\n\xe4\r\n"), CONVERT_TO_7BIT, CONVERT_NEEDED,
      STR("MIME-Version: 1.0\r\nContent-Type: text/plain; charset=unknown-8bit\r\n"
          "Content-Transfer-Encoding: quoted-printable\r\n\r\n=E4\r\n") },
    { "text",
      STR("MIME-Version: 1.0\r\ncontent-type: text/plain\r\ncontent-transfer-encoding: 8bit\r\n\r\na=\xe4\t\r\n\r\n."),
      CONVERT_TO_7BIT, CONVERT_NEEDED,
      STR("MIME-Version: 1.0\r\ncontent-type: text/plain\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
          "a=3D=E4=09\r\n\r\n.") },
    { "anything else",
      STR("MIME-Version: 1.0\r\nContent-Type: image/png\r\nContent-Transfer-Encoding: 8BIT (x)\r\n\r\n\xe4""b\r\n"),
      CONVERT_TO_7BIT, CONVERT_NEEDED,
      STR("MIME-Version: 1.0\r\nContent-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\n5GINCg==\r\n") },
    { "multipart, only what needs it",
      STR("MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"b\"\r\nContent-Transfer-Encoding: 8bit\r\n"
          "\r\n"
          "pre\xe4""amble\r\n--b\r\n\r\nseven\r\n--b \r\nContent-Type: text/html\r\n\r\n\xe4\r\n--b\r\n"
          "Content-Type: a/b\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\xe4\r\n--b--\r\nepilogue\r\n"),
      CONVERT_TO_7BIT, CONVERT_NEEDED,
      STR("MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"b\"\r\nContent-Transfer-Encoding: 7bit\r\n"
          "\r\n"
          "pre?amble\r\n--b\r\n\r\nseven\r\n--b \r\nContent-Type: text/html\r\n"
          "Content-Transfer-Encoding: quoted-printable\r\n"
          "\r\n=E4\r\n--b\r\nContent-Type: a/b\r\nContent-Transfer-Encoding: base64\r\n\r\n5A==\r\n--b--\r\n"
          "epilogue\r\n") },
    { "encapsulated message is converted inside",
      STR("MIME-Version: 1.0\r\nContent-Type: message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
          "Subject: inner\r\n\r\n\xe4\r\n"),
      CONVERT_TO_7BIT, CONVERT_NEEDED,
      STR("MIME-Version: 1.0\r\nContent-Type: message/rfc822\r\nContent-Transfer-Encoding: 7bit\r\n\r\n"
          "Subject: inner\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=unknown-8bit\r\n"
          "Content-Transfer-Encoding: quoted-printable\r\n\r\n=E4\r\n") },
    { "digest parts are messages",
      STR("Content-Type: multipart/digest; boundary=b\r\n\r\n--b\r\n\r\nSubject: inner\r\n\r\n\xe4\r\n--b--\r\n"),
      CONVERT_TO_7BIT, CONVERT_NEEDED,
      STR("Content-Type: multipart/digest; boundary=b\r\n\r\n--b\r\n\r\nSubject: inner\r\nMIME-Version: 1.0\r\n"
          "Content-Type: text/plain; charset=unknown-8bit\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
          "=E4\r\n--b--\r\n") },
    { "outer boundary ends inner multipart",
      STR("Content-Type: multipart/a; boundary=o\r\n\r\n--o\r\nContent-Type: multipart/b; boundary=i\r\n\r\n--i\r\n"
          "\r\n\xe4\r\n"
          "--o\r\n\r\n\xe4\r\n--o--\r\n"),
      CONVERT_TO_7BIT, CONVERT_NEEDED,
      STR("Content-Type: multipart/a; boundary=o\r\n\r\n--o\r\nContent-Type: multipart/b; boundary=i\r\n\r\n--i\r\n"
          "Content-Transfer-Encoding: quoted-printable\r\n\r\n=E4\r\n--o\r\n"
          "Content-Transfer-Encoding: quoted-printable\r\n\r\n"
          "=E4\r\n--o--\r\n") },
    { "boundaries that begin alike",
      STR("Content-Type: multipart/a; boundary=b\r\n\r\n--b\r\n\r\n\xe4\r\n--bb\r\n--b--\r\n"), CONVERT_TO_7BIT,
        CONVERT_NEEDED,
      STR("Content-Type: multipart/a; boundary=b\r\n\r\n--b\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
          "=E4\r\n-=2Dbb\r\n--b--\r\n") },
    { "a part that ends without line end",
      STR("Content-Type: multipart/a; boundary=b\r\n\r\n--b\r\n\r\n\xe4"), CONVERT_TO_7BIT, CONVERT_NEEDED,
      STR("Content-Type: multipart/a; boundary=b\r\n\r\n--b\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
          "=E4") },
    { "a part's header without empty line",
      STR("Content-Type: multipart/a; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n--b\r\n\r\n\xe4\r\n--b--"),
      CONVERT_TO_7BIT, CONVERT_NEEDED,
      STR("Content-Type: multipart/a; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n--b\r\n"
          "Content-Transfer-Encoding: quoted-printable\r\n\r\n=E4\r\n--b--") },
    { "a boundary with a quote in it, beside 8-bit bytes",
      STR("Content-Type: multipart/a; boundary=b\"; c=\"\xe4\"\r\n\r\n--b\"\r\n\r\nx\r\n--b\"--\r\n"), CONVERT_TO_7BIT,
      CONVERT_NEEDED,
      STR("Content-Type: multipart/a; boundary=b\"; c*0*=unknown-8bit''%E4\r\n\r\n--b\"\r\n\r\nx\r\n--b\"--\r\n") },
    { "a boundary behind a value with a quote in it",
      STR("Content-Type: multipart/a; c=d\"\xe4; boundary=b\r\n\r\n--b\r\n\r\nx\r\n--b--\r\n"), CONVERT_TO_7BIT, CONVERT_NEEDED,
      STR("Content-Type: multipart/a; c*0*=unknown-8bit''d%22%E4; boundary=b\r\n\r\n--b\r\n\r\nx\r\n--b--\r\n") },
    { "a header that ends within a field",
      STR("Content-Type: message/rfc822\r\nContent-Transfer-Encoding: binary\r\n\r\nSubject: \xe4\r\nX: y"), CONVERT_TO_7BIT,
      CONVERT_NEEDED,
      STR("Content-Type: message/rfc822\r\nMIME-Version: 1.0\r\nContent-Transfer-Encoding: 7bit\r\n\r\n"
          "Subject: =?unknown-8bit?Q?=E4?=\r\nX: y\r\n") },
    { "a bare CR behind a type",
      STR("Content-Type: message/rfc822\rx\r\n\r\nSubject: \xe4\r\n\r\na\r\n"), CONVERT_TO_7BIT, CONVERT_NEEDED,
      STR("Content-Type: message/rfc822 x\r\n\r\nSubject: =?unknown-8bit?Q?=E4?=\r\n\r\na\r\n") },
    { "garbage ends a header", STR("Subject: a\r\nno field\xe4\r\n\r\nb\r\n"), CONVERT_TO_7BIT, CONVERT_NEEDED,
      STR("Subject: a\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=unknown-8bit\r\n"
          "Content-Transfer-Encoding: quoted-printable\r\n\r\nno field=E4\r\n\r\nb\r\n") },
    { "quoted-printable with 8-bit bytes",
      STR("Content-Transfer-Encoding: quoted-printable\r\n\r\na=3D\xe4=\r\nb\r\n"), CONVERT_TO_7BIT, CONVERT_NEEDED,
      STR("Content-Transfer-Encoding: quoted-printable\r\n\r\na=3D=E4=\r\nb\r\n") },
    { "base64 with 8-bit bytes", STR("Content-Transfer-Encoding: base64\r\n\r\nYW\xe4Jj\r\n"), CONVERT_TO_7BIT,
      CONVERT_NEEDED,
      STR("Content-Transfer-Encoding: base64\r\n\r\nYWJj\r\n") },
    { "NUL and bare line ends to 8-bit",
      STR("MIME-Version: 1.0\r\nContent-Type: text/plain\r\nContent-Transfer-Encoding: binary\r\n\r\n"
          "a\0b\rc\nd\xe4\r\n"),
      CONVERT_TO_8BIT, CONVERT_NEEDED,
      STR("MIME-Version: 1.0\r\nContent-Type: text/plain\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
          "a=00b=0Dc=0Ad=E4\r\n") },
    { "8-bit text stays for 8-bit", STR("Subject: a\r\n\r\n\xe4\r\n"), CONVERT_TO_8BIT, CONVERT_NOT_NEEDED, { 0 } },
    { "binary label", STR("Content-Type: multipart/a; boundary=b\r\nContent-Transfer-Encoding: binary\r\n\r\n--b\r\n"
      "Content-Type: a/b\r\nContent-Transfer-Encoding: binary\r\n\r\n\0\r\n--b\r\n"
      "Content-Transfer-Encoding: binary\r\n\r\n\xe4\r\n--b--"),
      CONVERT_TO_8BIT, CONVERT_NEEDED,
      STR("Content-Type: multipart/a; boundary=b\r\nMIME-Version: 1.0\r\nContent-Transfer-Encoding: 8bit\r\n\r\n--b\r\n"
      "Content-Type: a/b\r\nContent-Transfer-Encoding: base64\r\n\r\nAA==\r\n--b\r\n"
      "Content-Transfer-Encoding: 8bit\r\n\r\n\xe4\r\n--b--") },
    { "fields of a report",
      STR("Content-Type: message/delivery-status\r\nContent-Transfer-Encoding: 8bit\r\n\r\nReporting-MTA: dns; a\r\n"
          "\r\n"
          "Diagnostic-Code: smtp; 550 k\xc3\xb6nnte\r\n nicht \xc3\xb6"), CONVERT_TO_7BIT, CONVERT_NEEDED,
      STR("Content-Type: message/delivery-status\r\nMIME-Version: 1.0\r\nContent-Transfer-Encoding: 7bit\r\n\r\n"
          "Reporting-MTA: dns; a\r\n\r\nDiagnostic-Code: smtp; 550 =?utf-8?Q?k=C3=B6nnte?=\r\n"
          " nicht =?utf-8?Q?=C3=B6?=") },
    { "NUL and bare CR in a field, and before a part",
      STR("Subject: a\0b\rFrom: c\r\nContent-Type: multipart/a; boundary=b\r\n\r\np\0\rq\r\n--b\r\n\r\nx\r\n--b--\r\n"),
      CONVERT_TO_8BIT, CONVERT_NEEDED,
      STR("Subject: a?b From: c\r\nContent-Type: multipart/a; boundary=b\r\n\r\np? q\r\n--b\r\n\r\nx\r\n--b--\r\n") },
    { "bare LF ends a header's line for everybody", STR("Subject: a\n\r\nx\r\n"), CONVERT_TO_8BIT, CONVERT_NOT_NEEDED,
      { 0 } },
    { "message/partial cannot be", STR("Content-Type: message/partial\r\n\r\n\xe4\r\n"), CONVERT_TO_7BIT,
      CONVERT_IMPOSSIBLE, { 0 } },
    { "a boundary that is not ASCII", STR("Content-Type: multipart/a; boundary=\xe4\r\n\r\n--\xe4\r\n\r\nx\r\n"),
      CONVERT_TO_7BIT,
      CONVERT_IMPOSSIBLE, { 0 } },
    { "a multipart whose boundary we do not read is not encoded as a whole",
      STR("Content-Type: multipart/a; boundary*=us-ascii''b\r\n\r\n--b\r\n\r\n\xe4\r\n--b--\r\n"), CONVERT_TO_7BIT,
      CONVERT_IMPOSSIBLE, { 0 } },
    { "a multipart without any", STR("Content-Type: multipart/a\r\n\r\nText \xe4\r\n"), CONVERT_TO_7BIT, CONVERT_IMPOSSIBLE, { 0 } },
    { "a boundary that never comes", STR("Content-Type: multipart/a; boundary=x\r\n\r\nText \xe4\r\n"), CONVERT_TO_7BIT,
      CONVERT_IMPOSSIBLE, { 0 } },
    { "8-bit subject", STR("Subject: Gr\xc3\xbc\xc3\x9f" "e an  M\xc3\xbcller\r\n\r\nx\r\n"), CONVERT_TO_7BIT,
      CONVERT_NEEDED,
      STR("Subject: =?utf-8?Q?Gr=C3=BC=C3=9Fe?=\r\n an =?utf-8?Q?M=C3=BCller?=\r\n\r\nx\r\n") },
    { "8-bit names",
      STR("From: \"J\xc3\xbc\\\"rgen\" <j@x.ex>, (\xc3\xa4) b@y.ex, J\xc3\xa4 K <k\xc3\xa4@z.ex>\r\n\r\nx\r\n"),
      CONVERT_TO_7BIT, CONVERT_NEEDED,
      STR("From: =?utf-8?Q?J=C3=BC=22rgen?=\r\n <j@x.ex>, (=?utf-8?Q?=C3=A4?=)\r\n b@y.ex, =?utf-8?Q?J=C3=A4?=\r\n"
          " K <k??@z.ex>\r\n\r\nx\r\n") },
    { "8-bit file name", STR("Content-Disposition: attachment; size=1;\r\n filename=\"\xc3\xa4 b.txt\"\r\n\r\nx\r\n"),
      CONVERT_TO_7BIT, CONVERT_NEEDED,
      STR("Content-Disposition: attachment; size=1; filename*0*=utf-8''%C3%A4%20b.txt\r\n\r\nx\r\n") },
    { "8-bit bytes in a type leave it unknown, and no message", STR("Content-Type: message/rfc822\xff\r\n\r\nTo: x\r\n"),
      CONVERT_TO_7BIT, CONVERT_NEEDED, STR("Content-Type: message/rfc822_\r\n\r\nTo: x\r\n") },
    { "the same where a type has no end", STR("Content-Type: mult\xff\xff\xff\vt/relateXCLIENTd; boundary=0\r\n\r\n"),
      CONVERT_TO_7BIT, CONVERT_NEEDED, STR("Content-Type: mult___\vt/relateXCLIENTd; boundary=0\r\n\r\n") },
    { "8-bit bytes in an encoding leave it unknown", STR("Content-Transfer-Encoding: base64\xff\r\n\r\nYQ==\r\n"),
      CONVERT_TO_7BIT, CONVERT_NEEDED, STR("Content-Transfer-Encoding: base64_\r\n\r\nYQ==\r\n") },
    { "folding within what is encoded", STR("Subject: \xc3\xa9\r\n \xc3\xa9\r\nTo: \"\xc3\xa9\r\n b\" <a@b.ex>\r\n\r\nx\r\n"),
      CONVERT_TO_7BIT, CONVERT_NEEDED,
      STR("Subject: =?utf-8?Q?=C3=A9_=C3=A9?=\r\nTo: =?utf-8?Q?=C3=A9_b?=\r\n <a@b.ex>\r\n\r\nx\r\n") },
    { "white space between encoded words is said in them",
      STR("From: J\xc3\xb6rg M\xc3\xbcller \"\xc3\xa9\" (\xc3\xa9) \xc3\xa9 B <j@x.ex>,\r\n"
          " =?utf-8?Q?=C3=A9?= \xc3\xa9 =?utf-8?Q?=C3=A9?= \"\xc3\xa9\" <k@x.ex>\r\n"
          "Subject: =?utf-8?Q?=C3=A9?= \xc3\xa9 \xc3\xa9 =?utf-8?Q?=C3=A9?= b\r\n\r\nx\r\n"),
      CONVERT_TO_7BIT, CONVERT_NEEDED,
      STR("From: =?utf-8?Q?J=C3=B6rg?= \r\n =?utf-8?Q?_M=C3=BCller?= \r\n =?utf-8?Q?_=C3=A9?=\r\n (=?utf-8?Q?=C3=A9?=) \r\n"
          " =?utf-8?Q?=C3=A9?=\r\n B <j@x.ex>, =?utf-8?Q?=C3=A9?= =?utf-8?Q?_=C3=A9_?=\r\n =?utf-8?Q?=C3=A9?="
          " =?utf-8?Q?_=C3=A9?=\r\n <k@x.ex>\r\n"
          "Subject: =?utf-8?Q?=C3=A9?= =?utf-8?Q?_=C3=A9_=C3=A9_?=\r\n =?utf-8?Q?=C3=A9?= b\r\n\r\nx\r\n") },
    { "also in one that was a quoted string", STR("From: \"\xc3\xa9\" =?utf-8?Q?=C3=A9?= <k@x.ex>\r\n\r\nx\r\n"),
      CONVERT_TO_7BIT, CONVERT_NEEDED, STR("From: =?utf-8?Q?=C3=A9_?=\r\n =?utf-8?Q?=C3=A9?= <k@x.ex>\r\n\r\nx\r\n") },
    { "8-bit comment behind a boundary, which stays",
      STR("Content-Type: multipart/a; boundary=\"b\" (\xc3\xa4)\r\n\r\n--b\r\n\r\nx\r\n--b--\r\n"),
      CONVERT_TO_7BIT, CONVERT_NEEDED,
      STR("Content-Type: multipart/a; boundary=\"b\" (__)\r\n\r\n--b\r\n\r\nx\r\n--b--\r\n") },
    { "8-bit bytes in quotes that are no parameter's",
      STR("Content-Type: multipart/a; \"a=\xe4;boundary=b\"; c=\"\xe4\" \";d=\"\r\n\r\n--b\"\r\n\r\nx\r\n--b\"--\r\n"),
      CONVERT_TO_7BIT, CONVERT_NEEDED,
      STR("Content-Type: multipart/a; \"a=_; boundary=b\"; c*0*=unknown-8bit''%E4 \"; d=\"\r\n\r\n--b\"\r\n\r\nx\r\n--b\"--\r\n") },
    { "no empty line, and a body that would begin like a field",
      STR("Content-Transfer-Encoding: base64\r\nSubj\xff" "ect: YWJj\r\n"), CONVERT_TO_7BIT, CONVERT_NEEDED,
      STR("Content-Transfer-Encoding: base64\r\n\r\nSubject: YWJj\r\n") },
    { "the same before the first part",
      STR("Content-Type: multipart/a; boundary=b\r\nTo\0: x\r\n--b\r\n\r\nx\r\n--b--\r\n"), CONVERT_TO_8BIT, CONVERT_NEEDED,
      STR("Content-Type: multipart/a; boundary=b\r\n\r\nTo?: x\r\n--b\r\n\r\nx\r\n--b--\r\n") },
    { "base64 whose 8-bit bytes hid a boundary",
      STR("Content-Type: multipart/a; boundary=b\r\n\r\n--b\r\nContent-Transfer-Encoding: base64\r\n\r\n"
          "\xe4--b\r\n--b\xe4\r\n--b--"),
      CONVERT_TO_7BIT, CONVERT_NEEDED,
      STR("Content-Type: multipart/a; boundary=b\r\n\r\n--b\r\nContent-Transfer-Encoding: base64\r\n\r\nb\r\nb\r\n--b--") },
    { "a boundary that a line would become, encoded",
      STR("Content-Type: multipart/a; boundary=\"b=E4\"\r\n\r\n--b=E4\r\n\r\n--b\xe4\r\n-\r\n--b=E4--"),
      CONVERT_TO_7BIT, CONVERT_NEEDED,
      STR("Content-Type: multipart/a; boundary=\"b=E4\"\r\n\r\n--b=E4\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
          "-=2Db=E4\r\n-\r\n--b=E4--") },
    { "a message without even a header",
      STR("Content-Type: multipart/a; boundary=b\r\n\r\n--b\r\nContent-Type: message/rfc822\r\n--b\r\nA: \xe4\r\n"
          "Content-Type: message/rfc822\r\n"),
      CONVERT_TO_7BIT, CONVERT_NEEDED,
      STR("Content-Type: multipart/a; boundary=b\r\n\r\n--b\r\nContent-Type: message/rfc822\r\n\r\n--b\r\n"
          "A: =?unknown-8bit?Q?=E4?=\r\nContent-Type: message/rfc822\r\n\r\n") },
    { "a boundary in place of the empty line",
      STR("A: \xe4\r\nContent-Type: multipart/a; boundary=b\r\n--b\r\n\r\nx\0y\r\n--b--"), CONVERT_TO_7BIT, CONVERT_NEEDED,
      STR("A: =?unknown-8bit?Q?=E4?=\r\nContent-Type: multipart/a; boundary=b\r\n\r\n--b\r\n"
          "Content-Transfer-Encoding: quoted-printable\r\n\r\nx=00y\r\n--b--") },
    { "a value that is not quoted, and folded",
      STR("Content-Disposition: attachment; filename=\xc3\xa4\r\n b; x=y\r\n\r\nx\r\n"), CONVERT_TO_7BIT, CONVERT_NEEDED,
      STR("Content-Disposition: attachment; filename*0*=utf-8''%C3%A4%20b; x=y\r\n\r\nx\r\n") },
    { "a comment behind a quoted value, with a \";\" in it",
      STR("Content-Type: multipart/a; c=\"\xe4\" (d; boundary=e); boundary=b\r\n\r\n--b\r\n\r\nx\r\n--b--\r\n"),
      CONVERT_TO_7BIT, CONVERT_NEEDED,
      STR("Content-Type: multipart/a; c=\"_\" (d; boundary=e); boundary=b\r\n\r\n--b\r\n\r\nx\r\n--b--\r\n") },
    { "a boundary that means nothing has 8-bit bytes like others",
      STR("Content-Type: text/plain; boundary=\xe4\r\n\r\nx\r\n"), CONVERT_TO_7BIT, CONVERT_NEEDED,
      STR("Content-Type: text/plain; boundary*0*=unknown-8bit''%E4\r\n\r\nx\r\n") },
    { "a preamble's line that would become a boundary",
      STR("Content-Type: multipart/a; boundary=\"b?\"\r\n\r\n--b\xe4\r\n\r\nx\r\n--b?\r\n\r\ny\r\n--b?--\r\n"),
      CONVERT_TO_7BIT, CONVERT_IMPOSSIBLE, { 0 } },
    { "by a bare CR", STR("Content-Type: multipart/a; boundary=\"b c\"\r\n\r\n--b\rc\r\n\r\nx\r\n--b c--\r\n"),
      CONVERT_TO_8BIT, CONVERT_IMPOSSIBLE, { 0 } },
    { "a report's line that would not, as it has no encoded words",
      STR("Content-Type: multipart/a; boundary=\"b: =?unknown-8bit?Q?=E4?=\"\r\n\r\n--b: =?unknown-8bit?Q?=E4?=\r\n"
          "Content-Type: message/delivery-status\r\n\r\n--b: \xe4\r\n--b: =?unknown-8bit?Q?=E4?=--\r\n"),
      CONVERT_TO_7BIT, CONVERT_NEEDED,
      STR("Content-Type: multipart/a; boundary=\"b: =?unknown-8bit?Q?=E4?=\"\r\n\r\n--b: =?unknown-8bit?Q?=E4?=\r\n"
          "Content-Type: message/delivery-status\r\nContent-Transfer-Encoding: 7bit\r\n\r\n--b: ?\r\n"
          "--b: =?unknown-8bit?Q?=E4?=--\r\n") },
    { "nor a field's",
      STR("Content-Type: multipart/a; boundary=\"b: =?unknown-8bit?Q?=E4?=\"\r\n--b: \xe4\r\n\r\n"
          "--b: =?unknown-8bit?Q?=E4?=\r\n\r\nx\r\n--b: =?unknown-8bit?Q?=E4?=--\r\n"),
      CONVERT_TO_7BIT, CONVERT_NEEDED,
      STR("Content-Type: multipart/a; boundary=\"b: =?unknown-8bit?Q?=E4?=\"\r\n--b: ?\r\n\r\n"
          "--b: =?unknown-8bit?Q?=E4?=\r\n\r\nx\r\n--b: =?unknown-8bit?Q?=E4?=--\r\n") },
    { "NUL ends a type", STR("Content-Type: text\0/plain\r\nA: \xe4\r\n\r\nx\0y\r\n"), CONVERT_TO_7BIT, CONVERT_NEEDED,
      STR("Content-Type: text?/plain\r\nA: =?unknown-8bit?Q?=E4?=\r\nMIME-Version: 1.0\r\n"
          "Content-Transfer-Encoding: quoted-printable\r\n\r\nx=00y\r\n") },
};

static void
converts(struct test *t)
{
    struct mem mem = mem_libc();
    struct arena arena;

    arena_init(&arena, &mem, 64 << 10, 16 << 20);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (size_t cut = 0; cut <= cases[i].in.len; cut++) {
            char memory[4096];
            struct text out = text_init(memory, sizeof memory);
            test_case(t, cases[i].why);
            const struct mime_needs *needs = scan(&arena, cases[i].in, cut);
            EXPECT_INT(t, convert_check(needs, cases[i].to), cases[i].verdict);
            if (cases[i].verdict == CONVERT_NEEDED) {
                convert(&arena, needs, cases[i].to, cases[i].in, cut, CONVERT_ROOM, &out);
                if (!EXPECT_STR(t, text_str(&out), cases[i].out))
                    cut = cases[i].in.len; /* once is enough */
            }
            arena_reset(&arena);
        }
    arena_done(&arena);
}

/* The same bytes give the same entities, whatever they are. */
static void
scans(struct test *t)
{
    struct mem mem = mem_libc();
    struct arena arena;

    arena_init(&arena, &mem, 64 << 10, 16 << 20);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct mime_needs *whole = scan(&arena, cases[i].in, 0);
        for (size_t cut = 1; cut < cases[i].in.len; cut++) {
            const struct mime_needs *n = scan(&arena, cases[i].in, cut);
            test_case(t, cases[i].why);
            EXPECT(t, n->count == whole->count && memcmp(n->entities, whole->entities, 2 * n->count) == 0);
            EXPECT(t, n->longest == whole->longest && n->header_8bit == whole->header_8bit &&
                      n->body_8bit == whole->body_8bit && n->bare == whole->bare && n->odd == whole->odd);
        }
        arena_reset(&arena);
    }
    arena_done(&arena);
}

/* What goes out is 7-bit, has lines of at most 998 and no bare line end. */
static void
expect_seven_bit(struct test *t, struct str out)
{
    EXPECT(t, str_is_ascii(out));
    while (out.len) {
        struct str line = str_cut(&out, '\n');
        if (!EXPECT(t, line.len <= 999))
            return;
    }
}

static void
limits_hold(struct test *t)
{
    enum { SIZE = 4 << 20 };
    struct mem mem = mem_libc();
    struct arena arena;
    char *in_memory = malloc(SIZE), *out_memory = malloc(4 * SIZE);
    struct text in, out;

    arena_init(&arena, &mem, 64 << 10, 16 << 20);
    test_case(t, "nested too deep");
    in = text_init(in_memory, SIZE);
    for (int i = 0; i <= LIMIT_MIME_DEPTH; i++)
        text_putf(&in, "Content-Type: multipart/mixed; boundary=%d\r\n\r\n--%d\r\n", i, i);
    text_put(&in, S("\r\n\xe4\r\n"));
    EXPECT_INT(t, convert_check(scan(&arena, text_str(&in), 0), CONVERT_TO_7BIT), CONVERT_IMPOSSIBLE);

    test_case(t, "encapsulated too deep");
    in = text_init(in_memory, SIZE);
    for (int i = 0; i <= LIMIT_MIME_DEPTH; i++)
        text_put(&in, S("Content-Type: message/rfc822\r\n\r\n"));
    text_put(&in, S("\xe4\r\n"));
    EXPECT_INT(t, convert_check(scan(&arena, text_str(&in), 0), CONVERT_TO_7BIT), CONVERT_IMPOSSIBLE);

    test_case(t, "as deep as may be, again and again");
    in = text_init(in_memory, SIZE);
    text_put(&in, S("Content-Type: multipart/mixed; boundary=x\r\n\r\n"));
    for (int round = 0; round < 30; round++) {
        text_put(&in, S("--x\r\n"));
        for (int i = 0; i < LIMIT_MIME_DEPTH - 2; i++)
            text_putf(&in, "Content-Type: multipart/mixed; boundary=%d\r\n\r\n--%d\r\n", i, i);
        text_put(&in, S("\r\n\xe4\r\n"));
    }
    arena_release(&arena);
    const struct mime_needs *needs = scan(&arena, text_str(&in), 1000);
    EXPECT_INT(t, convert_check(needs, CONVERT_TO_7BIT), CONVERT_NEEDED);
    EXPECT(t, arena.used < 200 << 10);
    out = text_init(out_memory, 4 * SIZE);
    convert(&arena, needs, CONVERT_TO_7BIT, text_str(&in), 1000, 4096, &out);
    expect_seven_bit(t, text_str(&out));

    test_case(t, "too many parts");
    in = text_init(in_memory, SIZE);
    text_put(&in, S("Content-Type: multipart/mixed; boundary=x\r\n\r\n"));
    for (int i = 0; i <= LIMIT_MIME_ENTITIES; i++)
        text_put(&in, S("--x\r\n\r\n"));
    text_put(&in, S("\xe4\r\n"));
    EXPECT_INT(t, convert_check(scan(&arena, text_str(&in), 0), CONVERT_TO_7BIT), CONVERT_IMPOSSIBLE);

    test_case(t, "bare CR and NUL in a long field, cut anywhere");
    in = text_init(in_memory, SIZE);
    text_put(&in, S("X: "));
    for (int i = 0; i < 5000; i++)
        text_put(&in, i % 50 == 0 ? S("\r") : i % 70 == 0 ? S("\r\n ") : i % 3 == 0 ? S("\0") : S("x"));
    text_put(&in, S("\r\n\r\nbody\r\n"));
    for (size_t cut = 4000; cut < 4300; cut++) {
        arena_release(&arena);
        const struct mime_needs *odd = scan(&arena, text_str(&in), cut);
        out = text_init(out_memory, 4 * SIZE);
        EXPECT_INT(t, convert_check(odd, CONVERT_TO_7BIT), CONVERT_NEEDED);
        convert(&arena, odd, CONVERT_TO_7BIT, text_str(&in), cut, CONVERT_ROOM, &out);
        const struct mime_needs *mended = scan(&arena, text_str(&out), 0);
        EXPECT(t, !mended->bare && !str_has_byte(text_str(&out), '\0'));
    }
    arena_release(&arena);

    test_case(t, "what a part is, in a long field, cut anywhere");
    in = text_init(in_memory, SIZE);
    text_put(&in, S("Content-Type: message/rfc822\xe4; x="));
    for (int i = 0; i < 5000; i++)
        text_put_byte(&in, 'x');
    text_put(&in, S("\r\n\r\nSubject: a\r\n\r\n\xe4\r\n"));
    for (size_t cut = 0; cut < in.len; cut += cut < 20 ? 1 : 500) {
        arena_release(&arena);
        const struct mime_needs *part = scan(&arena, text_str(&in), cut);
        out = text_init(out_memory, 4 * SIZE);
        EXPECT_INT(t, convert_check(part, CONVERT_TO_7BIT), CONVERT_NEEDED);
        convert(&arena, part, CONVERT_TO_7BIT, text_str(&in), cut, CONVERT_ROOM, &out);
        EXPECT(t, str_starts(text_str(&out), S("Content-Type: message/rfc822_; x=xxx")));
    }
    arena_release(&arena);

    test_case(t, "a long label in whose place there is another, cut anywhere");
    in = text_init(in_memory, SIZE);
    text_put(&in, S("A: b\r\nContent-Transfer-Encoding : 8bit ("));
    for (int i = 0; i < 5000; i++)
        text_put_byte(&in, 'x');
    text_put(&in, S(")\r\nC: d\r\n\r\n\xe4\r\n"));
    for (size_t cut = 0; cut < in.len; cut += 500) {
        arena_release(&arena);
        const struct mime_needs *labelled = scan(&arena, text_str(&in), cut);
        out = text_init(out_memory, 4 * SIZE);
        EXPECT_INT(t, convert_check(labelled, CONVERT_TO_7BIT), CONVERT_NEEDED);
        convert(&arena, labelled, CONVERT_TO_7BIT, text_str(&in), cut, CONVERT_ROOM, &out);
        EXPECT_STR(t, text_str(&out),
                   S("A: b\r\nC: d\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=unknown-8bit\r\n"
                     "Content-Transfer-Encoding: quoted-printable\r\n\r\n=E4\r\n"));
    }
    arena_release(&arena);

    test_case(t, "a report's line that is too long to be kept, cut anywhere");
    in = text_init(in_memory, SIZE);
    text_put(&in, S("Content-Type: message/delivery-status\r\n\r\n"));
    for (int i = 0; i < 5000; i++)
        text_put(&in, i % 50 == 0 ? S(" \xe4") : S("x"));
    needs = scan(&arena, text_str(&in), 0);
    struct text whole = text_init(out_memory + 2 * SIZE, 2 * SIZE);
    convert(&arena, needs, CONVERT_TO_7BIT, text_str(&in), 0, CONVERT_ROOM, &whole);
    for (size_t cut = 40; cut < in.len; cut += 500) {
        out = text_init(out_memory, 2 * SIZE);
        convert(&arena, needs, CONVERT_TO_7BIT, text_str(&in), cut, CONVERT_ROOM, &out);
        EXPECT_STR(t, text_str(&out), text_str(&whole));
    }
    arena_release(&arena);

    test_case(t, "long lines and long fields");
    in = text_init(in_memory, SIZE);
    text_put(&in, S("Subject:"));
    for (int i = 0; i < 300; i++)
        text_put(&in, S(" w\xc3\xb6rter und w\xc3\xb6rter\r\n"));
    text_put(&in, S("X-A: "));
    for (int i = 0; i < 200; i++)
        text_put(&in, S("\xc3\xb6 a "));
    text_put(&in, S("\r\n\r\n"));
    for (int i = 0; i < 100000; i++)
        text_put(&in, i % 1000 == 999 ? S("-") : i % 77 == 0 ? S("\xc3\xb6") : S("x"));
    text_put(&in, S("\r\nend\r\n"));
    needs = scan(&arena, text_str(&in), 777);
    EXPECT(t, needs->longest > 100000);
    out = text_init(out_memory, 4 * SIZE);
    convert(&arena, needs, CONVERT_TO_7BIT, text_str(&in), 777, CONVERT_ROOM, &out);
    expect_seven_bit(t, text_str(&out));
    EXPECT(t, str_ends(text_str(&out), S("\r\nend\r\n")));
    EXPECT(t, str_find(text_str(&out), S("\n--")) == out.len);
    arena_done(&arena);
    free(in_memory);
    free(out_memory);
}

/* Messages thrown together from what matters: the result is 7-bit, and the same however the input is cut. */
static void
random_messages(struct test *t)
{
    static const struct str scraps[] = {
        STR("\r\n"), STR("\r\n"), STR("\r\n\r\n"), STR("--b\r\n"), STR("--b--\r\n"), STR("--c\r\n"), STR("--c--"),
        STR("--"), STR("-"), STR("Content-Type: multipart/mixed; boundary=b\r\n"), STR("text"), STR(" "), STR("="),
        STR("Content-Type: multipart/digest; boundary=\"c\"\r\n"), STR("Content-Type: message/rfc822\r\n"),
        STR("Content-Type: image/png; name=\"\xc3\xa4\"\r\n"), STR("Content-Type: message/delivery-status\r\n"),
        STR("Content-Transfer-Encoding: 8bit\r\n"), STR("Content-Transfer-Encoding: quoted-printable\r\n"),
        STR("Content-Transfer-Encoding: base64\r\n"), STR("Content-Transfer-Encoding: binary\r\n"), STR("\xe4"),
        STR("\xc3\xa4"), STR("\r"), STR("\n"), STR("\0"), STR("Subject: \xc3\xa4"), STR("From: \"\xe4\" <a@b>\r\n"),
        STR("From a\r\n"),
        STR("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"),
    };
    struct mem mem = mem_libc();
    struct arena arena;
    struct prng prng;
    size_t converted = 0;

    prng_seed(&prng, 7);
    arena_init(&arena, &mem, 64 << 10, 16 << 20);
    for (int round = 0; round < 6000; round++) {
        static char in_memory[8192], out_memory[2][1 << 17];
        char why[32];
        struct text in = text_init(in_memory, sizeof in_memory);
        for (size_t i = prng_below(&prng, 40); i > 0; i--)
            text_put(&in, scraps[prng_below(&prng, sizeof scraps / sizeof *scraps)]);
        snprintf(why, sizeof why, "round %d", round);
        test_case(t, why);
        const struct mime_needs *needs = scan(&arena, text_str(&in), prng_below(&prng, in.len + 1));
        if (convert_check(needs, CONVERT_TO_7BIT) == CONVERT_NEEDED) {
            struct str out[2];
            for (size_t i = 0; i < 2; i++) {
                struct text text = text_init(out_memory[i], sizeof out_memory[i]);
                size_t room = CONVERT_ROOM + prng_below(&prng, 1000);
                convert(&arena, needs, CONVERT_TO_7BIT, text_str(&in), prng_below(&prng, in.len + 1), room, &text);
                EXPECT(t, !text.full);
                out[i] = text_str(&text);
            }
            const struct mime_needs *after = scan(&arena, out[0], 0);
            bool ok = EXPECT_STR(t, out[0], out[1]);
            ok = EXPECT(t, str_is_ascii(out[0])) && ok;
            if (!ok || !EXPECT(t, !after->body_8bit && !after->header_8bit))
                return;
            converted++;
        }
        arena_reset(&arena);
    }
    EXPECT(t, converted > 1000);
    arena_done(&arena);
}

static int
filter(void)
{
    struct mem mem = mem_libc();
    struct arena arena;
    size_t len = 0, cap = 1 << 16, got;
    char *in = malloc(cap), out_memory[1000];

    while ((got = fread(in + len, 1, cap - len, stdin)) > 0)
        if ((len += got) == cap)
            in = realloc(in, cap *= 2);
    arena_init(&arena, &mem, 64 << 10, 16 << 20);
    struct str rest = str_new(in, len);
    const struct mime_needs *needs = scan(&arena, rest, len / 2);
    enum convert_verdict verdict = convert_check(needs, CONVERT_TO_7BIT);
    switch (verdict) {
    case CONVERT_IMPOSSIBLE:
        break;
    case CONVERT_NOT_NEEDED:
        fwrite(in, 1, len, stdout);
        break;
    case CONVERT_NEEDED: {
        struct convert *c = convert_new(&arena, needs, CONVERT_TO_7BIT);
        bool fed = false, done = false;
        while (!done) {
            struct text part = text_init(out_memory, sizeof out_memory);
            if (!fed)
                fed = convert_feed(c, &rest, &part);
            else
                done = convert_end(c, &part);
            fwrite(part.ptr, 1, part.len, stdout);
        }
    }
    }
    arena_done(&arena);
    free(in);
    return verdict == CONVERT_IMPOSSIBLE ? 65 : 0;
}

static const struct test_entry entries[] = {
    { "converts", converts }, { "scans", scans }, { "limits hold", limits_hold },
    { "random messages", random_messages },
};

int
main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--convert") == 0)
        return filter();
    return test_run(entries, sizeof entries / sizeof *entries, argc, argv);
}
