"""
Messages that harm who looks into them, and what of them reaches logs and operators.

C01 | CVE-2026-26312 (Stalwart) | message/rfc822 in message/rfc822, hundreds deep, is walked for ever | delivered or bounced, bounded
C02 | CVE-2026-26312 (Stalwart) | parts that share one boundary make a cycle | delivered or bounced, bounded
C03 | CVE-2026-27859 (Dovecot) | a flood of RFC 2231 parameters takes time squared | passed on, bounded
C04 | CVE-2024-23184 (Dovecot) | very many address fields | passed on, bounded
C05 | CVE-2024-23185 (Dovecot) | a header of many megabytes | 554, bounded memory
C06 | CVE-2026-34752 (Haraka) | a field with the name __proto__ ends the worker | passed on unchanged
C07 | RFC 5321 section 6.3 | Received for ever: a loop | 554 5.4.6 past a hundred
C08 | RFC 5321 section 4.5.2 | dots at the begin of lines, lost or doubled | the same bytes at both ends
C09 | CVE-2023-51764 (its idea in a header) | a bare CR ends a field for some readers | refused, or repaired where we may
C10 | CVE-2009-2408 (its idea in content) | NUL ends a string in the message | all or nothing
C11 | Postfix audit of 2026 (long lines) | a line is cut at 998 bytes, and its rest begins with a dot | the same line at both ends
C12 | CVE-2020-28018 (Exim, 21Nails; what comes in parts) | the message's end comes in single bytes, late | one message
C13 | RFC 5321 section 3.3 | a message that ends its header never, or has none | stored as it came
C14 | CVE-2024-39929 (Exim) | a file name over several RFC 2231 lines hides | passed on unchanged
C15 | CVE-2000-0573 (wu-ftpd; format strings) | %n and %s in what is logged | logged as text
C16 | CVE-2007-3102 (OpenSSH; forged lines in a log) | quotes, line ends and broken UTF-8 in what is logged | each line of the log is one JSON object
C17 | CVE-2003-0020 (terminal escapes in logs) | ESC in names and replies reaches the operator's terminal | no control character in the log or in `queue show`
C18 | CVE-2020-28015 (Exim, 21Nails; its idea in notices) | a returned header brings its own fields into the notice | the notice's header is ours alone
C19 | RFC 5321 section 4.4 | Return-Path that the sender wrote | one, and it is the envelope's
C20 | CVE-2020-28026 (Exim, 21Nails; its idea in our records) | a message that holds what a record of the queue looks like | one message, whole
C22 | RFC 5321 section 6.3 (loops of aliases and forwards between hosts) | a message that was in this mailbox before comes again | 5.4.6, one notice, no second copy
C21 | CVE-2026-40016 (Dovecot; work that grows, its idea) | 8-bit content for a host without 8BITMIME grows at each part | encoded once, bounded
"""
import email
import json
import re

import pytest

from museum import body_of


def passes(world, content, mark, to="someone@far.test", **options):
    """Through us to the far host, byte for byte."""
    world.relay(to, content=content, **options)
    got = world.arrives_far(mark)[2]
    assert got.startswith(b"Received:")
    assert got.endswith(content), (got[-200:], content[-200:])


def nested(depth, inner):
    return b"Content-Type: message/rfc822\r\n\r\n" * depth + inner


def ends(world, queue_id):
    """It is delivered, or the sender is told; in any case it does not stay."""
    world.gone(queue_id, 90)


@pytest.fixture()
def seven_bits(world):
    """The hostile host does not offer 8BITMIME: 8-bit content has to be converted for it."""
    offered = world.hostile.extensions
    world.forget_connections()
    world.hostile.extensions = ("PIPELINING", "DSN", "ENHANCEDSTATUSCODES")
    yield
    world.forget_connections()
    world.hostile.extensions = offered


def test_c01_messages_in_messages(world, seven_bits):
    memory = world.rss()
    for depth in (50, 500, 5000):
        content = b"Subject: c01-%d\r\nMIME-Version: 1.0\r\n" % depth + nested(depth, "ä\r\n".encode())
        ends(world, world.relay("a@hostile.test", content=content, mail=b" BODY=8BITMIME"))
        passes(world, content.replace(b"c01-", b"c01-far-"), b"c01-far-%d\r\n" % depth)
    assert world.rss() - memory < 32 << 20


def test_c02_parts_that_share_a_boundary(world, seven_bits):
    part = b"--b\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
    content = b"Subject: c02\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n" + part * 300 + \
        "ä\r\n--b--\r\n".encode() * 5
    ends(world, world.relay("a@hostile.test", content=content, mail=b" BODY=8BITMIME"))
    passes(world, content.replace(b"c02", b"c02-far"), b"c02-far")


def test_c03_a_flood_of_parameters(world, seven_bits):
    parameters = b"".join(b";\r\n name*%d*=utf-8''%%41" % (n % 7) for n in range(9000))
    content = b"Subject: c03\r\nContent-Type: text/plain" + parameters + b"\r\n\r\n" + "ä\r\n".encode()
    ends(world, world.relay("a@hostile.test", content=content, mail=b" BODY=8BITMIME"))
    passes(world, content.replace(b"c03", b"c03-far"), b"c03-far")


def test_c04_very_many_address_fields(world):
    content = b"Subject: c04\r\n" + b"".join(b"To: a%d@client.test,\r\n b@client.test\r\n" % n for n in range(4000)) + b"\r\nx\r\n"
    passes(world, content, b"c04")


def test_c05_a_header_of_megabytes(world):
    memory = world.rss()
    with world.session() as s:
        s.begin()
        code, text = s.content(b"Subject: c05\r\n" + b"X: y\r\n" * 300000 + b"\r\nx\r\n")
        assert (code, text[:5]) == (554, "5.6.0")
    assert world.rss() - memory < 16 << 20


def test_c06_a_field_with_a_name_of_objects(world):
    content = b"__proto__: x\r\nconstructor: y\r\nSubject: c06\r\ntoString:\r\n\r\nx\r\n"
    passes(world, content, b"c06")


def test_c07_received_for_ever(world):
    with world.session() as s:
        s.begin()
        code, text = s.content(b"Received: from a by b; x\r\n" * 101 + b"Subject: c07\r\n\r\nx\r\n")
        assert (code, text[:5]) == (554, "5.4.6")
        s.begin()
        assert s.content(b"Received: from a by b; x\r\n" * 99 + b"Subject: c07-fine\r\n\r\nReceived: x\r\n" * 3 + b"x\r\n")[0] == 250
    world.arrives(b"c07-fine")


def test_c08_dots(world):
    content = b"Subject: c08\r\n\r\n.\r\n..\r\n...\r\n.x\r\n \r\n.\r\n. \r\n..QUIT\r\n.\r\n"
    passes(world, content, b"c08")
    world.relay("ok@local.test", content=content.replace(b"c08", b"c08-here"))
    assert body_of(world.arrives(b"c08-here")) == content.replace(b"c08", b"c08-here").replace(b"\r\n", b"\n")


def test_c09_a_field_behind_a_bare_cr(world):
    content = b"Subject: c09\rBcc: evil@far.test\r\n\r\nx\r\n"
    with world.session() as s:
        s.begin()
        code, text = s.content(content)
        assert code == 550 and "CR" in text
    world.relay("someone@far.test", content=content)
    mail, rcpt, got = world.arrives_far(b"c09")
    assert b"\r" not in got.replace(b"\r\n", b"") and len(rcpt) == 1


def test_c10_nul_in_content(world):
    content = b"Subject: c10\0nul\r\n\r\nbefore\0behind\r\n\0\r\nend-c10\r\n"
    with world.session() as s:
        s.begin()
        code, _ = s.content(content)
        assert code in (250, 550, 554)
        if code == 250:
            assert body_of(world.arrives(b"end-c10")) == content.replace(b"\r\n", b"\n")


def test_c11_long_lines_are_not_cut(world):
    for length in (998, 999, 1000, 4096, 65536, 1000000):
        line = b"x" * (length - 20) + b".\\r\\n.RCPT TO:<evil>x"
        passes(world, b"Subject: c11-%d\r\n\r\n" % length + line + b"\r\n.\r\n", b"c11-%d\r\n" % length)
    with world.session() as s:
        s.begin()
        assert s.content(b"Subject: c11\r\n\r\n" + b"x" * ((1 << 20) + 1) + b"\r\n")[0] == 554
        assert s.is_idle()


def test_c12_the_end_in_single_bytes(world):
    with world.session() as s:
        s.begin()
        assert s.say(b"DATA\r\n")[0] == 354
        for byte in b"Subject: c12\r\n\r\nx\r\n..\r\n.x\r\n.\r\n":
            s.send(bytes([byte]))
        assert s.reply()[0] == 250
        assert s.is_idle()
    assert body_of(world.arrives(b"c12")) == b"Subject: c12\n\nx\n.\nx\n"


def test_c13_no_header_or_no_body(world):
    for content in (b"c13-1 no field here\r\n", b"\r\nc13-2 body\r\n", b" folded c13-3\r\n", b":c13-4\r\n", b"Subject: c13-5\r\n",
                    b"Subject\r\n :c13-6\r\n\r\nx\r\n"):
        passes(world, content, re.search(rb"c13-\d", content)[0])


def test_c14_file_names_over_several_lines(world):
    content = (b"Subject: c14\r\nMIME-Version: 1.0\r\nContent-Disposition: attachment; filename*0=\"a.\";\r\n filename*1=\"ex\r\n e\";\r\n"
               b" filename*2*=utf-8''%2e%00\r\n\r\nx\r\n")
    passes(world, content, b"c14")


HARM = ["%n%n%n%s%s%s%x", "%1000000s", 'quote"brace}{,', "\\\\back\\slash\\u0000", "${jndi:ldap://x}", "<script>alert(1)</script>", "'; DROP"]


def say_harm(world, words):
    """Where strangers' words get into the log: hello, sender, recipient, unknown commands, replies of a next hop."""
    for word in words:
        with world.session(hello=None) as s:
            s.say(b"EHLO " + word + b"\r\n")
            s.say(b"MAIL FROM:<\"" + word.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b"\"@client.test>\r\n")
            s.say(b"RCPT TO:<\"" + word.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b"\"@local.test>\r\n")
            s.say(b"FROB " + word + b"\r\n")
        with world.session(hello=None) as s:
            s.say(word + b"\r\n")


def log_is_whole(world):
    """Every line that the daemon wrote is an object of its own, and holds no control character."""
    text = world.server.log_path.read_bytes()
    for line in text.splitlines(keepends=True):
        assert line.endswith(b"\n")
        event = json.loads(line.decode("utf-8"))
        assert isinstance(event, dict) and event["event"]
        assert not re.search(rb"[\x00-\x09\x0b-\x1f\x7f]|\xc2[\x80-\x9f]", line), line


def test_c15_format_strings(world):
    say_harm(world, [word.encode() for word in HARM])
    world.hostile.answers = {"RCPT": "550 5.1.1 %n%n%s%s%1000000d c15"}
    world.gone(world.relay("c15@hostile.test", sender="%n%s@far.test"))
    assert b"%n%n%s%s%1000000d c15" in world.arrives_far(b"c15@hostile.test")[2]
    log_is_whole(world)


def test_c16_the_log_stays_json(world):
    say_harm(world, [b'","event":"forged","x":"', b"\xff\xfe\xc0\x80\xed\xa0\x80", b'a\\', "\u2028\u2029\u0085".encode(), b"\xf4\x90\x80\x80"])
    world.hostile.answers = {"RCPT": '550 5.1.1 ","event":"forged"} \x00\x08\x0c\n{"event":"forged"}'}
    world.gone(world.relay("c16@hostile.test", sender="bounce@far.test"))
    world.arrives_far(b"c16@hostile.test")
    log_is_whole(world)
    assert not [event for event in world.server.log_events() if event["event"] == "forged"]


def test_c17_escapes_for_terminals(world):
    escape = "\x1b]0;owned\x07\x1b[2J\x9b31m"
    say_harm(world, [escape.encode("latin-1"), escape.encode()])
    world.hostile.answers = {"RCPT": "450 4.2.0 " + escape + "c17"}
    queue_id = world.relay("c17@hostile.test", sender="bounce@far.test")
    world.deferred(queue_id)
    config = ("--config", str(world.server.config_path))
    for words in (("queue", "show", queue_id), ("queue", "show", queue_id, "--json"), ("queue", "list"), ("status",)):
        out = world.server.cli(*words, *config, text=False).stdout
        assert not re.search(rb"[\x00-\x08\x0b-\x1f\x7f]|\xc2[\x80-\x9f]|[\xff\xfe]", out), out
    assert b"c17" in world.server.cli("queue", "show", queue_id, *config, text=False).stdout
    world.remove(queue_id)
    log_is_whole(world)


def test_c18_a_returned_header(world):
    world.hostile.answers = {"RCPT": "550 5.1.1 nobody"}
    content = (b"Subject: c18\r\nContent-Type: multipart/report; boundary=\"x\"\r\nAuto-Submitted: no\r\nX-Evil: 1\r\n\r\n--x\r\n"
               b"X-Evil: 2\r\n\r\n--x--\r\n")
    world.gone(world.relay("c18@hostile.test", sender="bounce@far.test", content=content, mail=b" RET=FULL"))
    notice = email.message_from_bytes(world.arrives_far(b"c18@hostile.test")[2])
    assert notice["X-Evil"] is None and notice["Auto-Submitted"] != "no"
    assert notice.get_boundary().encode() not in content
    returned = notice.get_payload()[-1]
    assert returned.get_content_type() in ("message/rfc822", "text/rfc822-headers")
    assert len(notice.get_payload()) == 3


def test_c19_return_paths_of_the_sender(world):
    world.relay("ok@local.test", sender="real@client.test",
                content=b"Return-Path: <forged@far.test>\r\nReturn-Path: <>\r\nSubject: c19\r\n\r\nx\r\n")
    mail = email.message_from_bytes(world.arrives(b"c19"))
    assert mail.get_all("Return-Path") == ["<real@client.test>"]


def test_c22_delivered_before(world):
    before = world.count()
    world.gone(world.relay("ok@local.test", sender="c22@far.test", content=b"Delivered-To: ok@local.test\r\nSubject: c22\r\n\r\nx\r\n"))
    assert b"Status: 5.4.6" in world.arrives_far(b"Subject: c22")[2]
    assert world.count() == before


def test_c20_a_message_like_a_record(world):
    spool = world.server.state / "spool"
    segments = [path for path in spool.rglob("*") if path.is_file() and path.stat().st_size > 4096]
    assert segments
    record = segments[0].read_bytes()[:200000].rstrip(b"\0")[-60000:]
    text = b"Subject: c20\r\n\r\n" + record.replace(b"\r", b"").replace(b"\n", b"\r\n") + b"\r\nend-c20\r\n"
    before = world.count("victim")
    with world.session() as s:
        s.begin("victim@local.test")
        assert s.content(text)[0] == 250
    assert body_of(world.arrives(b"end-c20", "victim")) == text.replace(b"\r\n", b"\n")
    assert world.count("victim") == before + 1
    said = world.server.cli("spool", "verify", str(spool), check=False)
    assert said.returncode == 0, said.stdout + said.stderr


def test_c21_growth_by_encoding(world, seven_bits):
    part = "--b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\näöü=\r\n".encode()
    content = b"Subject: c21\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n" + part * 5000 + b"--b--\r\n"
    world.gone(world.relay("c21@hostile.test", content=content, mail=b" BODY=8BITMIME", sender="bounce@far.test"), 90)
    got = [message for message in world.hostile.messages if b"Subject: c21\r\n" in message[2]]
    told = [message for message in world.far.messages if b"c21@hostile.test" in message[2]]
    assert len(got) + len(told) == 1
    assert all(message[2].isascii() and len(message[2]) < 4 * len(content) for message in got)
