"""
What clients did to servers within the dialog.

D01 | CVE-2023-51764 (Postfix) | a dot between bare LFs ends the message for some, and commands follow in it | one message refused, no second one
D02 | CVE-2023-51765 (Sendmail) | LF . CRLF as the end | one message refused, no second one
D03 | CVE-2023-51766 (Exim) | CRLF . LF as the end | one message refused, no second one
D04 | CVE-2024-27305 (aiosmtpd) | CR . CR as the end | one message refused, no second one
D05 | CVE-2011-0411 (Postfix and others) | commands behind STARTTLS in the same packet are run after the handshake | 554, closed, none of them run
D06 | USENIX Security 2021, NO STARTTLS | commands sent along with EHLO, before its answer can be known | 554, closed, none of them run
D07 | CVE-2020-28018 (21Nails) | a pipelined group is cut in the middle of its buffer and freed too early | content along with DATA: 554, closed, nothing stored
D08 | CVE-2017-16943 (Exim) | BDAT with sizes that are none, after a chunk: use after free | answered or closed, nothing stored
D09 | CVE-2017-16944 (Exim) | BDAT whose chunk is a dot line: the receiver looked for the end and never came back | the chunk is content; the session goes on
D10 | CVE-2020-28019 (Exim, 21Nails) | after a failed BDAT the function that reads is not set back | DATA of the next transaction is whole
D11 | Postfix audit of 2026-07-24 | no recipient is left after a failed BDAT, then DATA: NULL is read | 503 or 554, the receiver lives
D12 | Postfix audit of 2026-08-03 | no reset after a message was refused at its end: the next one skips the recipient's checks | RCPT is 503 and relaying 550, nothing stored
D13 | CVE-2026-45185 (Exim) | the connection ends inside a chunk | nothing stored, the receiver lives
D14 | Postfix audit of 2026-08-05 | memory kept for each of very many tiny chunks | bounded memory, 554 at last
D15 | CVE-2020-28020 (Exim, 21Nails) | a header without end overflows a length | 554, bounded memory
D16 | CVE-2020-28017 (Exim, 21Nails) | so many recipients that their count overflows | 452 beyond the limit, the others get it
D17 | CVE-2019-16928 (Exim) | a very long EHLO grows a string beyond its memory | 500 or 501, the session goes on
D18 | CVE-2020-28023 (Exim, 21Nails) | commands without their arguments: what lies behind is read | 501 or 503 to each, the session goes on
D19 | CVE-2005-1513 (qmail) | sizes that do not fit their integer, in BDAT | refused, nothing allocated or stored
D20 | CVE-2005-1514 (qmail; Guninski) | a command line of many megabytes | bounded memory, 500, the session goes on
D21 | CVE-2005-1515 (qmail; Guninski) | numbers beyond 2^31 and 2^64, signs, in SIZE | 501 or 552, never a small number
D22 | CVE-1999-0531 | VRFY and EXPN tell who exists | the same answer for everybody
D23 | CVE-1999-0531 | RCPT tells who exists, tried in bulk | 421 after twenty refusals
D24 | CVE-1999-0095, CVE-1999-0145 (Sendmail) | DEBUG, WIZ and KILL | 500, and nothing else
D25 | RFC 5321 F.1 | TURN gives a stranger the mail of others | 502, no connection turned
D26 | CVE-1999-1109 (Sendmail) | ETRN starts a process each time | refused to strangers, and counted
D27 | CVE-2018-6789, CVE-2023-42115 (Exim) | AUTH payloads of wrong base64 and unknown mechanisms | 502, no payload read as one
D28 | CVE-2011-1720 (Postfix) | one SASL handle for two mechanisms in a session | 502 each time, the transaction at hand stays
D29 | CERT VU#150227 | a browser or proxy is made to speak HTTP to a mail server | closed without a word, nothing run
D30 | CVE-1999-0098 (Sendmail) | a HELO so long that the client's address is lost from the trace | refused, and Received always names the address
D31 | CVE-2007-6750 | clients that hold connections and say nothing | so many for one address, then 421; others are served
D32 | Postfix audit of 2026-08-12 | VRFY with SMTPUTF8 brings replies out of step | one reply to one command
D33 | CVE-2021-38371 (Exim) | replies that were made for another phase are taken for later ones | one reply to each of a long group, in order, none behind 554
D34 | CVE-2009-2408 (its idea in an address) | NUL ends a name early for one reader and not for another | 501, nothing stored
D35 | CVE-2020-28022 (Exim, 21Nails) | options of MAIL with separators in strange places | 501 or 555, never accepted in part
"""
import re

import pytest

from harness import wait_until
from museum import chunk, body_of

SMUGGLED = b"MAIL FROM:<smuggled@client.test>\r\nRCPT TO:<victim@local.test>\r\nDATA\r\nSubject: smuggled\r\n\r\nx"


def smuggle(world, end):
    """A message with a false end and a second one behind it: refused as one, and nothing is left to be answered."""
    before = world.count(), world.count("victim")
    with world.session() as s:
        s.begin()
        code, text = s.say(b"DATA\r\n")
        assert code == 354, text
        code, text = s.say(b"Subject: first\r\n\r\nx" + end + SMUGGLED + b"\r\n.\r\n")
        assert (code, text[:5]) == (550, "5.6.0")
        assert s.is_idle()
    world.server.wait_until_empty()
    assert (world.count(), world.count("victim")) == before


def test_d01_dot_between_line_feeds(world):
    smuggle(world, b"\n.\n")


def test_d02_line_feed_before_the_dot(world):
    smuggle(world, b"\n.\r\n")


def test_d03_line_feed_behind_the_dot(world):
    smuggle(world, b"\r\n.\n")


def test_d04_dot_between_carriage_returns(world):
    smuggle(world, b"\r.\r")


def test_d05_commands_behind_starttls(world):
    before = world.count()
    for behind in (b"MAIL FROM:<a@client.test>\r\nRSET\r\n", b"NOOP", b"\n"):
        with world.session() as s:
            assert s.codes(b"STARTTLS\r\n" + behind, 2) == [554, 0]
    world.still_serves()
    assert world.count() == before


def test_d06_commands_behind_ehlo(world):
    before = world.count("victim")
    with world.session(hello=None) as s:
        assert s.say(b"EHLO client.test\r\n" + SMUGGLED + b"\r\n.\r\n")[0] == 554
        assert s.reply()[0] == 0
    world.still_serves()
    assert world.count("victim") == before + 1


def test_d07_content_along_with_data(world):
    before = world.count()
    with world.session() as s:
        s.begin()
        assert s.say(b"DATA\r\nSubject: early\r\n\r\nx\r\n.\r\n")[0] == 554
        assert s.reply()[0] == 0
    world.server.wait_until_empty()
    assert world.count() == before


def test_d08_sizes_that_are_none(world):
    before = world.count()
    for size in (b"\x7f", b"-1", b"+1", b"1x", b"0x10", b"1.5", b"", b"1\0", b"1\t\x01",
                 b"10 LAST LAST", b"10 FIRST"):
        with world.session() as s:
            s.begin()
            assert s.say(chunk(b"Subject: d08\r\n"))[0] == 250
            s.send(b"BDAT " + size + b"\r\n" + b"x" * 20 + b"\r\n.\r\nBDAT 0 LAST\r\n")
            code, _ = s.reply()
            assert code == 501, (size, code)
    world.server.wait_until_empty()
    assert world.count() == before, [mail[-40:] for mail in world.server.mails()][before:]


def test_d08_a_hole_where_a_line_was_too_long(world):
    before = world.count()
    with world.session() as s:
        s.begin()
        assert s.codes(chunk(b"Subject: d08\r\n") + b"BDAT 5" + b" " * 3000 + b"\r\n" + b"BDAT 0 LAST\r\n", 3) == [250, 500, 503]
        assert s.is_idle()
    world.server.wait_until_empty()
    assert world.count() == before


def test_d09_a_dot_in_a_chunk(world):
    with world.session() as s:
        s.begin()
        assert s.codes(chunk(b".\r\n") + chunk(b"\r\n.\r\nd09\r\n.\r\n") + b"BDAT 0 LAST\r\nNOOP\r\n", 4) == [250] * 4
    assert body_of(world.arrives(b"d09")) == b".\n\n.\nd09\n.\n"


def test_d10_data_after_a_failed_chunk(world):
    with world.session() as s:
        s.begin()
        assert s.say(chunk(b"Subject: bad\n\r\n"))[0] == 550
        assert s.say(b"DATA\r\n")[0] == 503
        assert s.say(b"RSET\r\n")[0] == 250
        s.begin()
        assert s.content(b"Subject: d10\r\n\r\n.\r\nbody\r\n")[0] == 250
    assert body_of(world.arrives(b"d10")) == b"Subject: d10\n\n.\nbody\n"


def test_d11_data_without_a_recipient_after_a_failed_chunk(world):
    with world.session() as s:
        assert s.say(b"MAIL FROM:<a@client.test>\r\n")[0] == 250
        assert s.say(b"RCPT TO:<nobody@local.test>\r\n")[0] == 550
        assert s.say(chunk(b"QUIT\r\n", last=True))[0] in (503, 554)
        assert s.say(b"DATA\r\n")[0] in (503, 554)
        assert s.say(b"NOOP\r\n")[0] == 250


def test_d12_a_second_message_after_a_refused_one(world):
    far, before = len(world.far.messages), world.count()
    with world.session() as s:
        s.begin()
        assert s.content(b"Subject: d12\n\r\n")[0] == 550
        assert s.say(b"RCPT TO:<somebody@far.test>\r\n")[0] == 503
        assert s.say(b"DATA\r\n")[0] == 503
        assert s.say(b"MAIL FROM:<a@client.test>\r\n")[0] == 250
        assert s.say(b"RCPT TO:<somebody@far.test>\r\n")[0] == 550
        assert s.say(b"DATA\r\n")[0] in (503, 554)
    world.server.wait_until_empty()
    assert (len(world.far.messages), world.count()) == (far, before)


def test_d13_the_end_inside_a_chunk(world):
    before = world.count()
    for cut in (b"", b"Subject: d13\r\n", b"Subject: d13\r\n\r\n.\r\n"):
        with world.session() as s:
            s.begin()
            s.send(b"BDAT 1000 LAST\r\n" + cut)
    world.still_serves()
    assert world.count() == before


def test_d14_very_many_tiny_chunks(world):
    before, memory = world.count(), world.rss()
    with world.session() as s:
        s.begin()
        codes = set()
        for _ in range(21):
            codes.update(s.codes(b"BDAT 0\r\n" * 1000, 1000))
        assert codes <= {250, 554, 503} and 554 in codes, codes
        assert s.say(b"RSET\r\n")[0] == 250
    assert world.rss() - memory < 16 << 20
    assert world.count() == before


def test_d15_a_header_without_end(world):
    memory = world.rss()
    with world.session() as s:
        s.begin()
        assert s.say(b"DATA\r\n")[0] == 354
        for _ in range(40):
            s.send(b"X-Long: " + b"x" * 50000 + b"\r\n")
        assert s.say(b".\r\n")[0] == 554
        assert s.is_idle()
    assert world.rss() - memory < 16 << 20


def test_d16_very_many_recipients(world):
    with world.session(world.trusted) as s:
        s.begin("u1@local.test")
        codes = []
        for _ in range(6):
            codes += s.codes(b"RCPT TO:<u1@local.test>\r\n" * 500, 500)
        assert codes == [250] * 999 + [452] * 2001
        assert s.content(b"Subject: d16\r\n\r\nx\r\n")[0] == 250
    world.arrives(b"d16", "u1")


def test_d17_a_very_long_hello(world):
    for length in (256, 2000, 11000, 70000):
        with world.session(hello=None) as s:
            assert s.say(b"EHLO " + b"A" * length + b"\r\n")[0] in (500, 501), length
            assert s.say(b"EHLO client.test\r\n")[0] == 250


def test_d18_commands_without_arguments(world):
    with world.session() as s:
        for line in (b"MAIL", b"MAIL ", b"MAIL FROM", b"MAIL FROM:", b"MAIL FROM:<", b"EHLO ", b"HELO"):
            assert s.say(line + b"\r\n")[0] == 501, line
    with world.session() as s:
        assert s.say(b"MAIL FROM:<a@client.test>\r\n")[0] == 250
        for line in (b"RCPT", b"RCPT TO", b"RCPT TO:", b"RCPT TO:<", b"RCPT TO:<>", b"VRFY", b"BDAT 5x"):
            assert s.say(line + b"\r\n")[0] == 501, line


def test_d19_chunk_sizes_beyond_integers(world):
    before, memory = world.count(), world.rss()
    for size in (2**31, 2**32, 2**32 + 5, 2**63, 2**64, 2**64 + 5, 10**30):
        with world.session() as s:
            s.begin()
            assert s.say(b"BDAT %d LAST\r\n" % size)[0] in (501, 552), size
            assert s.reply()[0] == 0
    assert world.rss() - memory < 8 << 20
    assert world.count() == before


def test_d20_a_command_of_sixteen_megabytes(world):
    memory = world.rss()
    with world.session() as s:
        for _ in range(256):
            s.send(b"x" * 65536)
        assert world.rss() - memory < 8 << 20
        assert s.say(b"\r\n")[0] == 500
        assert s.say(b"NOOP\r\n")[0] == 250


def test_d21_sizes_beyond_integers(world):
    with world.session() as s:
        for size in (b"2147483649", b"4294967297", b"18446744073709551617", b"-1", b"+1", b"0x1", b"1e3", b"", b"9" * 40):
            assert s.say(b"MAIL FROM:<a@client.test> SIZE=" + size + b"\r\n")[0] in (501, 552), size
        assert s.is_idle()


def test_d22_verification_tells_nothing(world):
    with world.session() as s:
        said = {s.say(b"VRFY " + who + b"\r\n") for who in (b"ok", b"ok@local.test", b"nobody@local.test", b"root", b"<u1>")}
        assert {code for code, _ in said} == {252} and len(said) == 1
        assert {s.say(b"EXPN " + who + b"\r\n") for who in (b"list", b"nobody")} == {s.say(b"EXPN postmaster\r\n")}
        assert s.say(b"EXPN list\r\n")[0] == 502


def test_d23_guessing_recipients(world):
    with world.session() as s:
        assert s.say(b"MAIL FROM:<a@client.test>\r\n")[0] == 250
        codes = []
        while (code := s.say(b"RCPT TO:<guess%d@local.test>\r\n" % len(codes))[0]) == 550:
            codes.append(code)
        assert len(codes) == 20 and code == 421
        assert s.reply()[0] == 0


def test_d24_back_doors(world):
    with world.session() as s:
        for line in (b"DEBUG", b"WIZ", b"WIZ wizard", b"KILL", b"SHOWQ", b"ONEX", b"XADR", b"XUSR"):
            assert s.say(line + b"\r\n")[0] == 500, line
        assert s.is_idle()


def test_d25_turn(world):
    with world.session() as s:
        assert s.say(b"TURN\r\n")[0] == 502
        assert s.is_idle()


def test_d26_etrn_by_a_stranger(world):
    with world.session() as s:
        codes = []
        while (code := s.say(b"ETRN far.test\r\n")[0]) not in (421, 0):
            codes.append(code)
            assert len(codes) <= 200
        assert set(codes) <= {458, 459, 502, 550}, set(codes)
        assert code == 421


def test_d27_authentication_that_is_not_offered(world):
    payloads = (b"PLAIN", b"PLAIN =", b"PLAIN " + b"A" * 1000 + b"==x", b"CRAM-MD5 " + b"HfHf" * 300, b"EXTERNAL =", b"EXTERNAL",
                b"NTLM TlRMTVNTUAAB", b"GSSAPI \x80", b"", b"LOGIN dXNlcg==")
    for payload in payloads:
        with world.session() as s:
            assert s.say(b"AUTH " + payload + b"\r\n")[0] == 502, payload
            assert s.is_idle()


def test_d28_authentication_again_and_again(world):
    with world.session() as s:
        s.begin()
        for line in (b"AUTH CRAM-MD5", b"AUTH DIGEST-MD5", b"AUTH PLAIN AGEAYg=="):
            assert s.say(line + b"\r\n")[0] == 502
        assert s.say(b"*\r\n")[0] == 500
        assert s.content(b"Subject: d28\r\n\r\nx\r\n")[0] == 250
    world.arrives(b"d28")


def test_d29_http(world):
    before = world.count("victim")
    for verb in (b"POST / HTTP/1.1", b"GET / HTTP/1.0", b"CONNECT far.test:25 HTTP/1.1", b"PUT /x HTTP/1.1"):
        with world.session(hello=None) as s:
            s.send(verb + b"\r\nHost: mx.local.test:25\r\n\r\nEHLO x\r\n" + SMUGGLED + b"\r\n.\r\n")
            assert s.reply()[0] == 0, verb
    world.still_serves()
    assert world.count("victim") == before + 1


def test_d30_the_trace_names_the_address(world):
    with world.session(hello=b"HELO " + b"x" * 255 + b"\r\n", source="127.0.0.30") as s:
        assert s.say(b"HELO " + b"x" * 1000 + b"\r\n")[0] == 501
        s.begin()
        assert s.content(b"Subject: d30\r\n\r\nx\r\n")[0] == 250
    assert b"[127.0.0.30]" in world.arrives(b"d30")
    with world.session(hello=b"HELO (evil[192.0.2.1])by;<x>\"\\\xff\r\n", source="127.0.0.30") as s:
        s.begin()
        assert s.content(b"Subject: d30-strange\r\n\r\nx\r\n")[0] == 250
    received = re.search(rb"(?m)^Received: (.*)$", world.arrives(b"d30-strange"))[1]
    assert re.fullmatch(rb"from [!-'*-:=?-~]+ \(\S+ \[127\.0\.0\.30\]\)", received), received


def test_d31_silent_connections(world):
    silent = [world.session(hello=None, source="127.0.0.31") for _ in range(50)]
    try:
        with world.session(hello=None, source="127.0.0.31") as one_more:
            assert one_more.greeting[0] == 421
        world.still_serves()
        silent.pop().__exit__()
        wait_until(lambda: is_welcome(world), 30, "room for one more")
    finally:
        for session in silent:
            session.__exit__()


def is_welcome(world):
    with world.session(hello=None, source="127.0.0.31") as s:
        return s.greeting[0] == 220


def test_d32_verification_in_utf8(world):
    with world.session() as s:
        assert s.codes("VRFY ä@local.test SMTPUTF8\r\nVRFY ok SMTPUTF8\r\nEXPN ä SMTPUTF8\r\nNOOP\r\n".encode(), 4) == \
            [252, 252, 502, 250]
        s.socket.settimeout(0.3)
        with pytest.raises(TimeoutError):
            s.lines.readline()


def test_d33_one_reply_to_each(world):
    with world.session() as s:
        group = b"MAIL FROM:<a@client.test>\r\nRCPT TO:<ok@local.test>\r\nRCPT TO:<nobody@local.test>\r\nRSET\r\n"
        assert s.codes(group * 12, 48) == [250, 250, 550, 250] * 12
        assert s.codes(b"MAIL FROM:<a@client.test>\r\nRCPT TO:<nobody@local.test>\r\nDATA\r\nNOOP\r\n", 4) == \
            [250, 550, 554, 250]
        assert s.say(b"RSET\r\n")[0] == 250
        s.begin()
        assert s.say(b"DATA\r\nQUIT\r\n")[0] == 554
        assert s.reply()[0] == 0


def test_d34_nul_in_addresses(world):
    before = world.count(), world.count("all", "catch.test")
    with world.session() as s:
        assert s.say(b"MAIL FROM:<a@client.test\0@x.test>\r\n")[0] == 501
        assert s.say(b"MAIL FROM:<a@client.test>\r\n")[0] == 250
        for path in (b"<ok\0@local.test>", b"<ok@local.test\0.far.test>", b'<"a\0b"@catch.test>', b"<ok@local.test>\0"):
            assert s.say(b"RCPT TO:" + path + b"\r\n")[0] == 501, path
        assert s.say(b"DATA\r\n")[0] in (503, 554)
    assert (world.count(), world.count("all", "catch.test")) == before


def test_d35_options_with_strange_separators(world):
    with world.session() as s:
        for options in (b"=", b" =", b" =1", b" SIZE", b" SIZE==1", b" SIZE=1=2", b" BODY", b" BODY=", b" RET=", b" SMTPUTF8=1",
                        b" SIZE=1 SIZE=1", b" AUTH=", b"SIZE=1", b" " + b"A" * 500, b" " + b"X=1 " * 300, b" \x01=1"):
            code, text = s.say(b"MAIL FROM:<a@client.test>" + options + b"\r\n")
            if code == 421:  # so many wrong ones
                break
            assert code in (500, 501, 555), (options, code, text)
    world.still_serves()
