"""
Addresses that are commands, files, routes or numbers to somebody, and envelopes that write more than themselves.

A01 | CVE-2019-10149 (Exim) | a recipient's local part is expanded: ${run{...}} | it is a name; nothing is run
A02 | CVE-2020-7247 (OpenSMTPD) | a sender's local part reaches a shell | it is a name; nothing is run
A03 | CVE-1999-0203 (Sendmail) | a bounce goes to a sender that is a pipe | it is a name; nothing is run
A04 | CVE-1999-0096 (Sendmail) | mail to decode, a file or :include: writes or reads files | it is a name; no file is touched
A05 | CVE-2020-28007 (Exim, 21Nails; its idea in mailboxes) | a name leads out of the folder | nothing outside the Maildirs
A06 | CVE-1999-0512 | user%there@here and there!user are relayed | refused at RCPT
A07 | PortSwigger 2024, Splitting the email atom | encoded words in an address are decoded late | never decoded, refused or kept as they are
A08 | MBSD 2015, SMTP injection | CR LF hidden in a quoted recipient becomes a command to the next hop | refused; one RCPT behind us
A09 | CVE-2003-0161 (Sendmail prescan) | bytes 0xFF in an address are taken for "none" | refused without SMTPUTF8; nothing crashes
A10 | CVE-2002-1337 (Sendmail crackaddr) | <><><> in header addresses overflow a buffer | passed on unchanged
A11 | CVE-2019-15846 (Exim) | a trailing backslash makes the reader skip the end | 501, the next command is whole
A12 | CVE-2020-28024 (Exim, 21Nails) | characters are put back before the buffer's begin | empty and one-byte lines answered one by one
A13 | CVE-2019-12290, CVE-2019-18224 (libidn2) | long U-labels overflow the conversion | refused; the receiver lives
A14 | RFC 5321 appendix C | source routes of any length are recursed into | taken or refused; the mail is home
A15 | RFC 5321 section 4.1.3 | literals with odd addresses overflow their buffer | refused, no connection made
A16 | CVE-2020-28026 (Exim, 21Nails) | ENVID with an encoded line feed writes a line into the queue file | refused, or one value
A17 | CVE-2020-28021 (Exim, 21Nails) | AUTH= with an encoded line feed writes a line into the queue file | refused
A18 | CVE-2020-28015 (Exim, 21Nails) | ORCPT with an encoded line feed writes a field into the notice | refused, or one field
A19 | CVE-2000-1047 (Lotus Domino; ENVID) | xtext that is none overflows or is cut | 501 to each
A20 | CVE-2020-8794 (OpenSMTPD; its idea from the other side) | an address that is too long is cut to another one | 501, never cut
A21 | RFC 5321 section 6.1 | a failed notice makes a notice, for ever | no notice to <>
A22 | RFC 5321 section 6.2 (backscatter) | mail to unknown users with a forged sender | refused in the dialog; no notice leaves
A23 | CERT tech tip, Email Bombing and Spamming | an alias multiplies by leading to itself again | each final recipient once
A24 | RFC 5321 section 6.3 (loops of aliases) | an alias that leads to itself hangs or crashes | the configuration is refused at once
"""
import email
import re
import subprocess

import pytest

from harness import binary
from museum import body_of


def names(world, local):
    """It reaches the catch-all as a name."""
    mark = b"name-%d" % world.count("all", "catch.test")
    with world.session() as s:
        s.begin(local + b"@catch.test")
        assert s.content(b"Subject: " + mark + b"\r\n\r\nx\r\n")[0] == 250
    return world.arrives(mark, "all", "catch.test")


def shell(world):
    """Words that would show if anybody ran or expanded them."""
    return f"touch {world.outside}/ran".encode().replace(b" ", b"${IFS}")


def test_a01_expansion_of_recipients(world):
    hexed = "".join(f"\\\\x{byte:02x}" for byte in f"/bin/touch {world.outside}/ran".encode()).encode()
    names(world, b'"${run{' + hexed + b'}}"')
    names(world, b'"${run{/bin/sh -c \\"touch ' + str(world.outside).encode() + b'/ran\\"}}"')
    names(world, b"${run{true}}")
    names(world, b"${readfile{/etc/passwd}{}}".replace(b"/etc/passwd", b"/etc/hostname"))


def test_a02_senders_for_a_shell(world):
    for local in (b";touch", b"`id`", b"$(id)", b"|id", b";for i in 0;do;id;done;".replace(b" ", b"${IFS}")):
        with world.session() as s:
            code, _ = s.say(b"MAIL FROM:<" + local + b">\r\n")
            assert code == 501, local
    with world.session() as s:
        s.begin(sender=b'"; ' + shell(world) + b' ;"@client.test')
        assert s.content(b"Subject: a02\r\n\r\nx\r\n")[0] == 250
    assert b"Return-Path: <\"; touch" in world.arrives(b"a02")


def test_a03_a_bounce_to_a_pipe(world):
    world.hostile.answers = {"RCPT": "550 5.1.1 nobody"}
    far = len(world.far.messages)
    world.gone(world.relay("a03@hostile.test", sender=b'"|' + shell(world) + b'"@far.test'))
    mail, rcpt, _ = world.arrives_far(b"a03@hostile.test")
    assert len(world.far.messages) == far + 1
    assert rcpt[0].startswith("RCPT TO:<|touch") and mail.startswith("MAIL FROM:<>")


def test_a04_files_and_programs_as_recipients(world):
    for local in (b"decode", b"uudecode", b'"|/bin/cat"', b'":include:' + str(world.outside).encode() + b'/secret"',
                  b'"' + str(world.outside).encode() + b'/file"', b'"/dev/null"', b'"error:x"'):
        mail = names(world, local)
        assert b"TOP-SECRET" not in mail
    with world.session() as s:
        assert s.say(b"MAIL FROM:<a@client.test>\r\n")[0] == 250
        assert s.say(b"RCPT TO:<decode@local.test>\r\n")[0] == 550
        assert s.say(b'RCPT TO:<"|/bin/cat"@local.test>\r\n')[0] == 550


def test_a05_names_that_lead_out(world):
    def folders():
        return {str(path.relative_to(world.server.folder)) for path in world.server.folder.rglob("*") if path.is_dir()}
    mailboxes = folders()
    with world.session() as s:
        assert s.say(b"MAIL FROM:<a@client.test>\r\n")[0] == 250
        for local in (b'"../ok"', b'"../../outside/x"', b'".."', b'"ok/../u1"', b"../../x", b'"ok/new"', b'"u1+../../x"'):
            code, text = s.say(b"RCPT TO:<" + local + b"@local.test>\r\n")
            assert code == 550 or (code, local) == (250, b'"u1+../../x"'), (local, code, text)
    for local in (b'"../../x"', b'"/x"', b'".."'):
        names(world, local)
    extra = {path for path in folders() - mailboxes if not re.match(r"(mail/catch.test/all|state)(/|$)|mail/catch.test$", path)}
    assert not extra


def test_a06_routes_within_names(world):
    far = len(world.far.messages)
    with world.session() as s:
        assert s.say(b"MAIL FROM:<ok@local.test>\r\n")[0] == 250
        for path in (b"<victim%far.test@local.test>", b"<far.test!victim@local.test>", b"<@local.test:victim@far.test>",
                     b'<"victim@far.test"@local.test>', b"<victim@far.test>", b"<victim@[127.0.0.2]>", b"<victim%far.test>"):
            assert s.say(b"RCPT TO:" + path + b"\r\n")[0] // 100 == 5, path
    assert len(world.far.messages) == far


def test_a07_encoded_words_in_addresses(world):
    far = len(world.far.messages)
    words = (b"=?x?q?victim=40far.test=3e=00?=", b"=?utf-8?q?ok?=", b"=?utf-8?b?b2s=?=", b"=?utf-7?q?&AG8-k?=")
    with world.session() as s:
        assert s.say(b"MAIL FROM:<a@client.test>\r\n")[0] == 250
        for local in words:
            assert s.say(b"RCPT TO:<" + local + b"@local.test>\r\n")[0] == 550, local
    for local in words:
        world.relay(local + b"@far.test", content=b"Subject: a07-" + local.hex().encode() + b"\r\n\r\nx\r\n")
        _, rcpt, _ = world.arrives_far(b"a07-" + local.hex().encode() + b"\r\n")
        assert rcpt[0].startswith("RCPT TO:<" + local.decode() + "@far.test>")
    assert len(world.far.messages) == far + len(words)


def test_a08_line_ends_in_quoted_recipients(world):
    for hidden in (b"\\\r\nRCPT TO:<evil@far.test>", b"\rRCPT TO:<evil@far.test>\r", b"\nRCPT TO:<evil@far.test>\n"):
        with world.session(world.trusted) as s:
            s.begin("ok@local.test")
            s.send(b'RCPT TO:<"a' + hidden + b'"@far.test>\r\n')
            code, text = s.reply()
            assert code in (500, 501), (hidden, code, text)
    for hidden in (b"%0d%0aRCPT TO:<evil@far.test>", b"\\r\\nRSET", b"+0D+0ARSET"):
        quoted = b'"a' + hidden + b'"@far.test'
        mark = b"a08-" + hidden.hex().encode()
        before = len(world.far.commands)
        world.relay(quoted, content=b"Subject: " + mark + b"\r\n\r\nx\r\n")
        _, rcpt, _ = world.arrives_far(mark)
        assert len(rcpt) == 1
        assert not [line for line in world.far.commands[before:] if line.startswith("RCPT TO:<evil")]


def test_a09_bytes_of_255(world):
    with world.session() as s:
        for count in (1, 100, 1000):
            assert s.say(b"MAIL FROM:<" + b"\xff" * count + b"@client.test>\r\n")[0] in (501, 553)
            assert s.say(b"MAIL FROM:<" + b"\\\xff" * count + b">\r\n")[0] in (501, 553)
            assert s.say(b'MAIL FROM:<"' + b"\\\xff" * count + b'"@client.test> SMTPUTF8\r\n')[0] in (501, 553)
        assert s.is_idle()
    world.relay("ok@local.test", content=b"From: " + b"\xff" * 500 + b" <a@client.test>\r\nSubject: a09\r\n\r\nx\r\n")
    assert b"\xff" * 500 in world.arrives(b"a09")


def test_a10_angles_in_header_addresses(world):
    fields = b"".join(name + b": " + b"<>" * 300 + b"(" * 200 + b")" * 150 + b" <a@client.test>\r\n" for name in (b"From", b"To"))
    content = fields + b"Subject: a10\r\n\r\nx\r\n"
    world.relay("ok@local.test", content=content)
    assert body_of(world.arrives(b"a10")) == content.replace(b"\r\n", b"\n")
    world.relay("someone@far.test", content=content.replace(b"a10", b"a10-far"))
    assert world.arrives_far(b"a10-far")[2].endswith(content.replace(b"a10", b"a10-far"))


def test_a11_trailing_backslashes(world):
    with world.session() as s:
        for path in (b"<a\\>", b'<"a\\>', b'<"a\\">', b"<a@client.test\\>", b"\\", b"<\\", b'<"\\'):
            assert s.say(b"MAIL FROM:" + path + b"\r\n")[0] == 501, path
        assert s.is_idle()


def test_a12_lines_of_nothing(world):
    with world.session() as s:
        for line in (b"", b" ", b"\t", b"  \t  ", b"x", b":"):
            assert s.say(line + b"\r\n")[0] == 500, line
        assert s.is_idle()


def test_a13_long_labels(world):
    with world.session(world.trusted) as s:
        for domain in ("ä" * 64 + ".test", "ä" * 400 + ".test", ".".join(["ä"] * 120) + ".test", "\U0001F4A9" * 63 + ".test",
                       "xn--" + "a" * 60 + ".test", "a\u0300" * 100 + ".test"):
            s.say(b"RSET\r\n")
            code, text = s.say(f"MAIL FROM:<a@{domain}> SMTPUTF8\r\n".encode())
            if code == 250:
                code, text = s.say(f"RCPT TO:<a@{domain}>\r\n".encode())
            assert code in (501, 550, 553), (domain, code, text)


def test_a14_endless_source_routes(world):
    route = b"@" + b",@".join([b"r.test"] * 200) + b":"
    assert len(route) > 1500
    with world.session() as s:
        assert s.say(b"MAIL FROM:<a@client.test>\r\n")[0] == 250
        assert s.say(b"RCPT TO:<" + route + b"ok@local.test>\r\n")[0] in (250, 501)
        assert s.say(b"RCPT TO:<" + route + b"ok@far.test>\r\n")[0] in (501, 550)
        assert s.say(b"RCPT TO:<@r.test,@s.test:ok@local.test>\r\n")[0] == 250
        assert s.content(b"Subject: a14\r\n\r\nx\r\n")[0] == 250
    assert b"Delivered-To: ok@local.test" in world.arrives(b"a14")


def test_a15_odd_literals(world):
    with world.session() as s:
        assert s.say(b"MAIL FROM:<a@client.test>\r\n")[0] == 250
        for literal in (b"[]", b"[", b"[1.2.3.4.5.6]", b"[256.1.1.1]", b"[IPv6:]", b"[IPv6:::::::::]", b"[IPv6:" + b"1:" * 300 + b"]",
                        b"[2130706433]", b"[0x7f.1]", b"[tag:" + b"x" * 900 + b"]", b"[127.0.0.1"):
            code, text = s.say(b"RCPT TO:<ok@" + literal + b">\r\n")
            assert code in (501, 550), (literal, code, text)


ENCODED = (b"x+0A", b"x+0D+0AX-Evil:+20yes", b"x+0Aevil@far.test", b"+00", b"x+7F")


def test_a16_line_feeds_in_envid(world):
    world.hostile.answers = {"RCPT": "550 5.1.1 nobody"}
    for number, value in enumerate(ENCODED):
        with world.session(world.trusted) as s:
            code, text = s.say(b"MAIL FROM:<bounce%d@far.test> ENVID=" % number + value + b"\r\n")
            if code == 501:
                continue
            assert code == 250, text
            assert s.say(b"RCPT TO:<a16-%d@hostile.test>\r\n" % number)[0] == 250
            assert s.content(b"Subject: x\r\n\r\nx\r\n")[0] == 250
        _, _, notice = world.arrives_far(b"a16-%d@hostile.test" % number)
        assert_is_one_notice(notice)


def assert_is_one_notice(notice):
    """Whatever was in the envelope, the notice's header and its report have their fields and no others."""
    assert b"X-Evil" not in notice.replace(b"+0D+0AX-Evil", b"")
    message = email.message_from_bytes(notice)
    assert message.get_content_type() == "multipart/report" and message["X-Evil"] is None
    report = message.get_payload()[1]
    for block in report.get_payload():
        assert set(block.keys()) <= {"Reporting-MTA", "Arrival-Date", "Original-Envelope-Id", "Original-Recipient", "Final-Recipient",
                                     "Action", "Status", "Remote-MTA", "Diagnostic-Code",
                                     "X-Postrider-Queue-Id"}, block.keys()


def test_a17_line_feeds_in_auth(world):
    with world.session(world.trusted) as s:
        for value in ENCODED:
            assert s.say(b"MAIL FROM:<a@client.test> AUTH=" + value + b"\r\n")[0] in (501, 555)
        assert s.is_idle()


def test_a18_line_feeds_in_orcpt(world):
    world.hostile.answers = {"RCPT": "550 5.1.1 nobody"}
    for number, value in enumerate(ENCODED):
        with world.session(world.trusted) as s:
            assert s.say(b"MAIL FROM:<bounce%d@far.test>\r\n" % number)[0] == 250
            code, text = s.say(b"RCPT TO:<a18-%d@hostile.test> NOTIFY=FAILURE ORCPT=rfc822;" % number + value + b"\r\n")
            if code == 501:
                continue
            assert code == 250, text
            assert s.content(b"Subject: x\r\n\r\nx\r\n")[0] == 250
        _, _, notice = world.arrives_far(b"a18-%d@hostile.test" % number)
        assert_is_one_notice(notice)


def test_a19_xtext_that_is_none(world):
    with world.session() as s:
        for value in (b"+", b"+4", b"+zz", b"+4g", b"a=b", b"+" * 100, b"x" * 101, b"+41" * 101, b"a\x80"):
            code, text = s.say(b"MAIL FROM:<a@client.test> ENVID=" + value + b"\r\n")
            assert code == 501, (value, text)
        assert s.is_idle()
    with world.session() as s:
        assert s.say(b"MAIL FROM:<a@client.test>\r\n")[0] == 250
        for value in (b"", b"rfc822", b"rfc822;+", b"rfc822;+4", b";x", b"rfc822;" + b"x" * 501, b"rfc822;+zz"):
            code, text = s.say(b"RCPT TO:<ok@local.test> ORCPT=" + value + b"\r\n")
            assert code == 501, (value, text)


def test_a20_addresses_are_never_cut(world):
    with world.session() as s:
        for length in (1025, 1500, 2000):
            assert s.say(b"MAIL FROM:<" + b"a" * (length - 12) + b"@client.test>\r\n")[0] == 501
        assert s.say(b"MAIL FROM:<a@client.test>\r\n")[0] == 250
        for length in (1014, 1500):
            assert s.say(b"RCPT TO:<ok@local.test" + b"." + b"a" * length + b">\r\n")[0] in (501, 550)
            assert s.say(b"RCPT TO:<" + b"a" * length + b"ok@local.test>\r\n")[0] in (501, 550)


def test_a21_no_notice_of_a_notice(world):
    world.hostile.answers = {"RCPT": "550 5.1.1 nobody"}
    far, ok, hostile = len(world.far.messages), world.count(), len(world.hostile.messages)
    world.gone(world.relay("nobody@hostile.test", sender=""))
    world.server.wait_until_empty()
    assert (len(world.far.messages), len(world.hostile.messages)) == (far, hostile)
    assert world.count() <= ok + 1, "postmaster at most"


def test_a22_no_backscatter(world):
    far = len(world.far.messages)
    with world.session() as s:
        assert s.say(b"MAIL FROM:<forged@far.test>\r\n")[0] == 250
        for local in (b"nobody", b"list-nobody", b"owner-list", b"a22"):
            assert s.say(b"RCPT TO:<" + local + b"@local.test>\r\n")[0] == 550
        assert s.say(b"RCPT TO:<ok@local.test>\r\n")[0] == 250
        assert s.content(b"Subject: a22\n\r\n")[0] == 550
    world.server.wait_until_empty()
    assert len(world.far.messages) == far
    assert not [m for m in world.server.queue() if "a22" in str(m)]


def test_a23_an_alias_that_multiplies(world):
    before = world.count("u1"), world.count("u2")
    with world.session() as s:
        s.begin("twice@local.test", "list@local.test", "u1@local.test", "u1+x@local.test")
        assert s.content(b"Subject: a23\r\n\r\nx\r\n")[0] == 250
    world.server.wait_until_empty()
    assert (world.count("u1"), world.count("u2")) == (before[0] + 1, before[1] + 1)


@pytest.mark.parametrize("aliases", [
    "alias a -> a", "alias a -> b; alias b -> a", "; ".join(f"alias a{n} -> a{n + 1} a{n + 1}" for n in range(40)) + "; alias a40 -> ok",
    "; ".join(f"alias a{n} -> a{n + 1}" for n in range(64)) + "; alias a64 -> a0",
], ids=["itself", "two", "doubling", "a long way"])
def test_a24_aliases_that_lead_to_themselves(whole_world, tmp_path, aliases):
    config = tmp_path / "postrider.conf"
    config.write_text(f"hostname mx.local.test\nstate {tmp_path}\nlisten mx {{ address 127.0.0.1:2525 }}\n"
                      f"domain local.test {{ mailbox ok; {aliases}; alias postmaster -> ok; deliver maildir {tmp_path}/{{local}} }}\n")
    said = subprocess.run([str(binary()), "check", "--config", str(config)], capture_output=True, text=True, timeout=30, check=False)
    assert said.returncode > 0, said.stdout
    assert "alias" in said.stdout + said.stderr, said
    assert whole_world.server.process.poll() is None
