"""
What servers and names of others did to clients.

R01 | CVE-2020-8794 (OpenSMTPD) | a multi-line reply without its end is read beyond, and its lines get into the envelope | put off; the envelope and the notice are as they were
R02 | CVE-2020-8794 (OpenSMTPD; replies as long as the server likes) | a reply line of a megabyte | put off, bounded memory
R03 | CVE-2020-8794 (OpenSMTPD) | a reply of lines without end | put off, bounded memory
R04 | CVE-2026-43964 (Postfix) | a code and no text | taken as what the code says
R05 | RFC 5321 section 4.2 | codes that are none | put off, never lost or delivered
R06 | CVE-2003-0020 (its idea in notices) | a reply with line ends and fields for the notice | one Diagnostic-Code, no further field
R07 | CVE-2009-2408 (its idea in replies) | NUL in a reply | the reply is whole or put off
R08 | RFC 2920 section 3.1 | 354 although no recipient was taken | a lone dot, never the message
R09 | CVE-2021-38371 (Exim), response injection | replies that came before their command | delivered once or put off, never lost
R10 | RFC 5321 section 4.5.3.2 | a server that stops in the middle of anything | put off, others are served
R11 | CVE-2026-27858 (Dovecot; memory for a stranger, its idea at the other end) | EHLO answers of thousands of keywords | bounded; delivered or put off
R12 | RFC 2033 section 4.2 | fewer replies than recipients behind the dot | each without a reply is put off
R13 | RFC 2033 section 4.2 | more replies than recipients behind the dot | each is delivered once
R14 | CVE-2020-8794 (OpenSMTPD; what a server says is input too) | keywords with strange parameters | used as far as they are right
N01 | CVE-2020-27009 (NAME:WRECK) | names whose compression points at itself | put off; the resolver lives
N02 | Postfix audit of 2026 (MX and SRV) | records that are shorter than their type | put off; the resolver lives
N03 | CVE-2008-1447 | records of other names come along | never used
N04 | RFC 5321 section 5.1 (loops through oneself) | an MX that is loopback or no address | never connected to
N05 | CVE-2023-50387 (KeyTrap; its idea: answers that make work) | hundreds of MX hosts | a bounded number is asked and tried
N06 | CVE-2014-8500 (BIND; endless delegation) | CNAMEs in a circle | put off or failed; the resolver lives
N07 | CVE-2026-40684 (Exim) | host names with control characters, spaces and dots within labels | never in a log or a command as they are
N08 | CVE-1999-0204 (Sendmail ident) | a reverse name that brings a line into Received | one field, and no foreign byte in it
N09 | CVE-2002-0906 (Sendmail) | answers whose counts and lengths lie | put off; the resolver lives
"""
import ipaddress
import re
import struct

import pytest

from harness import wait_until
from museum import A, AAAA, CNAME, HERE, MX, PTR, record, wire_name
from peers import ScriptedServer


def put_off(world, to, **options):
    """It waits; with the next hop mended it arrives, once."""
    mark = b"put-off-" + to.encode()
    queue_id = world.relay(to, content=b"Subject: " + mark + b"\r\n\r\nx\r\n", **options)
    world.deferred(queue_id)
    return queue_id, mark


def mended(world, queue_id, mark):
    world.hostile.answers = {}
    world.gone(queue_id, 90)
    assert len([message for message in world.hostile.messages if mark in message[2]]) == 1


@pytest.mark.parametrize("step", ["GREETING", "MAIL", "RCPT", "DATA", "DOT"])
def test_r01_replies_without_end(world, step):
    def half(_, server):
        """Lines that go on, and the end of the connection."""
        for session in list(server.open):
            session.sendall(b"250-5.1.1 x\r\n250-from: <root@local.test>\r\n250-\0mda: id")
        return ScriptedServer.CLOSE
    world.forget_connections()
    world.hostile.answers = {step: half}
    queue_id, mark = put_off(world, f"r01-{step.lower()}@hostile.test", sender="bounce@far.test")
    shown = world.server.queue_show(queue_id)
    assert shown["from"] == "bounce@far.test" and len(shown["recipients"]) == 1
    mended(world, queue_id, mark)


def test_r02_a_line_of_a_megabyte(world):
    memory = world.rss()
    world.hostile.answers = {"RCPT": "550 5.1.1 " + "x" * (1 << 20)}
    queue_id, mark = put_off(world, "r02@hostile.test")
    assert world.rss() - memory < 8 << 20
    mended(world, queue_id, mark)


def test_r03_lines_without_end(world):
    memory = world.rss()
    world.hostile.answers = {"RCPT": "\r\n".join(["550-5.1.1 no"] * 100000)}
    queue_id, mark = put_off(world, "r03@hostile.test")
    assert world.rss() - memory < 8 << 20
    mended(world, queue_id, mark)


def test_r04_codes_without_text(world):
    world.hostile.answers = {"MAIL": "250", "RCPT": "250 ", "DATA": "354", "DOT": "250"}
    queue_id = world.relay("r04@hostile.test", content=b"Subject: r04\r\n\r\nx\r\n")
    mended(world, queue_id, b"Subject: r04\r\n")
    world.hostile.answers = {"RCPT": "550"}
    world.gone(world.relay("r04@hostile.test", sender="r04-bounce@far.test"))
    assert b"Status: 5." in world.arrives_far(b"r04@hostile.test")[2]


@pytest.mark.parametrize("reply", ["2500 ok", "25 ok", "999 x", "199 x", "600 x", "-50 x", "abc", "", " 250 ok", "250\tok", "2x0 ok", "٢٥٠ ok",
                                   "250-x\r\n550 y", "000 x"], ids=repr)
def test_r05_codes_that_are_none(world, reply):
    world.hostile.answers = {"RCPT": lambda line, server: "\r\n" if reply == "" else reply}
    queue_id, mark = put_off(world, f"r05-{reply.encode().hex()}@hostile.test")
    assert not [message for message in world.hostile.messages if mark in message[2]]
    mended(world, queue_id, mark)


def test_r06_fields_in_replies(world):
    world.hostile.answers = {"RCPT": "550-5.1.1 no\r\n550-X-Evil: 1\r\n550-\r\n550-Action: delivered\r\n550 \rX-Evil: 2\x0bX-Evil: 3"}
    world.gone(world.relay("r06@hostile.test", sender="r06-bounce@far.test"))
    notice = world.arrives_far(b"r06@hostile.test")[2]
    assert not re.search(rb"(?m)^(X-Evil|Action: delivered)", notice) and b"\r" not in notice.replace(b"\r\n", b"")
    assert len(re.findall(rb"(?m)^Diagnostic-Code:", notice)) == len(re.findall(rb"(?m)^Action: failed", notice)) == 1


def test_r07_nul_in_replies(world):
    world.hostile.answers = {"RCPT": "550 5.1.1 before\x00behind"}
    queue_id = world.relay("r07@hostile.test", sender="r07-bounce@far.test")
    if world.tried(queue_id):
        world.remove(queue_id)
    else:
        notice = world.arrives_far(b"r07@hostile.test")[2]
        assert b"behind" in notice and b"\0" not in notice


def test_r08_content_for_nobody(world):
    world.hostile.answers = {"RCPT": "550 5.1.1 no", "DATA": "354 go on"}
    world.gone(world.relay("r08@hostile.test", sender="", content=b"Subject: r08-secret\r\n\r\nx\r\n"))
    world.server.wait_until_empty()
    assert not [message for message in world.hostile.messages if b"r08-secret" in message[2]]


def test_r09_replies_before_their_commands(world):
    burst = "220 x\r\n250 early\r\n250 early\r\n250 early\r\n354 early\r\n250 2.0.0 early"
    world.hostile.answers = {"GREETING": burst}
    world.forget_connections()
    queue_id = world.relay("r09@hostile.test", content=b"Subject: r09\r\n\r\nx\r\n")
    world.tried(queue_id)
    world.hostile.answers = {}
    world.gone(queue_id, 90)
    assert len([message for message in world.hostile.messages if b"Subject: r09" in message[2]]) >= 1


@pytest.mark.parametrize("step", ["GREETING", "EHLO", "RCPT", "DATA", "DOT"])
def test_r10_a_server_that_stops(world, step):
    world.forget_connections()
    world.hostile.answers = {step: ScriptedServer.STALL}
    queue_id = world.relay(f"r10-{step.lower()}@hostile.test", content=b"Subject: r10-" + step.encode() + b"-\r\n\r\nx\r\n")
    world.still_serves()
    if step != "EHLO":  # then HELO is tried on a new connection
        world.deferred(queue_id)
    mended(world, queue_id, b"r10-" + step.encode() + b"-")


def test_r11_thousands_of_keywords(world):
    memory = world.rss()
    for number, lines in enumerate((90, 5000)):
        text = "\r\n".join(f"250-X{n} " + "y" * 400 for n in range(lines)) + "\r\n250 8BITMIME"
        world.forget_connections()
        world.hostile.answers = {"EHLO": text}
        queue_id = world.relay(f"r11-{number}@hostile.test", content=b"Subject: r11-%d\r\n\r\nx\r\n" % number)
        world.tried(queue_id)
        mended(world, queue_id, b"r11-%d\r\n" % number)
    assert world.rss() - memory < 8 << 20


def lmtp(world, replies):
    world.hostile.answers = {"DOT": replies}
    names = [f"r-{n}@lmtp.test" for n in range(3)]
    with world.session(world.trusted) as s:
        s.begin(*names, sender="bounce@far.test")
        code, text = s.content(b"Subject: x\r\n\r\nx\r\n")
        assert code == 250
        queue_id = re.search(r"\b[0-9a-z]{26}\b", text)[0]
    return queue_id, names


def test_r12_fewer_replies_than_recipients(world):
    queue_id, names = lmtp(world, "250 2.0.0 first")
    shown = wait_until(lambda: (shown := world.shown(queue_id)) and
                       all(r["state"] != "pending" or r["attempts"] > 0 for r in shown["recipients"]) and shown, 60, "an attempt")
    states = {r["to"]: r["state"].split(",")[0] for r in shown["recipients"]}
    assert states[names[0]] != "pending" and {states[name] for name in names[1:]} == {"pending"}, states
    world.remove(queue_id)


def test_r13_more_replies_than_recipients(world):
    queue_id, _ = lmtp(world, "\r\n".join(["250 2.0.0 taken"] * 50))
    world.gone(queue_id)
    queue_id = world.relay("plain@hostile.test", content=b"Subject: r13\r\n\r\nx\r\n")
    mended(world, queue_id, b"Subject: r13\r\n")


def test_r14_strange_keywords(world):
    world.hostile.answers = {"EHLO": "250-scripted.test\r\n250-SIZE 99999999999999999999999\r\n250-SIZE -1\r\n250-SIZE x\r\n250-LIMITS RCPTMAX=0"
                                     " MAILMAX=-1 RCPTDOMAINMAX=x\r\n250-8BITMIME\x01\r\n250-PIPELINING=\r\n250 AUTH="}
    world.forget_connections()
    queue_id = world.relay("r14@hostile.test", content=b"Subject: r14\r\n\r\nx\r\n")
    world.tried(queue_id)
    mended(world, queue_id, b"Subject: r14\r\n")


# ---- names ---------------------------------------------------------------------------------------------------------------

def lies(world, names, answers=None):
    """Mail to x@NAME.lies.test, for each: it waits or is given up, and nobody is connected to. What is said about each."""
    world.names.answers.update(answers or {})
    sessions, reasons = world.hostile.sessions, []
    queued = [(f"x@{name}.lies.test", world.relay(f"x@{name}.lies.test", sender=f"{name}-bounce@far.test")) for name in names]
    for address, queue_id in queued:
        waits = world.tried(queue_id)
        if waits:
            reasons.append(waits["reason"])
            world.remove(queue_id)
        else:
            notice = world.arrives_far(address.encode())[2].decode()
            reasons.append(re.search(r"(?ms)^Diagnostic-Code: (.*?)\r\n\S", notice)[1])
    assert world.hostile.sessions == sessions, "it was connected to"
    return reasons


def test_n01_compression_in_circles(world):
    targets = (b"\xc0\x0c", b"\xc0\x2d", b"\x01a\xc0\x2d", b"\xff\xff", b"\xc0", b"\x40x", b"\x3f" + b"a" * 63 + b"\xc0\x2d")
    for number, target in enumerate(targets):
        world.names.raw(f"n01-{number}.lies.test", MX, [record(HERE, MX, b"\0\x0a" + target)])
    world.names.raw("n01-owner.lies.test", MX, [record(b"\xc0\x24", MX, b"\0\x0a\0")])
    lies(world, [*(f"n01-{number}" for number in range(len(targets))), "n01-owner"])


def test_n02_records_that_are_too_short(world):
    exchangers, addresses = (b"", b"\0", b"\0\x0a", b"\0\x0a\x05ab"), (b"", b"\x7f\0\0", b"\x7f\0\0\1\0")
    for number, data in enumerate(exchangers):
        world.names.raw(f"n02-{number}.lies.test", MX, [record(HERE, MX, data)])
    for number, data in enumerate(addresses):
        name = f"n02-a{number}.lies.test"
        world.names.raw(name, MX, [record(HERE, MX, b"\0\x0a" + wire_name(f"h.{name}"))])
        world.names.raw(f"h.{name}", A, [record(HERE, A, data)])
    lies(world, [*(f"n02-{number}" for number in range(len(exchangers))), *(f"n02-a{number}" for number in range(len(addresses)))])


def test_n03_records_of_other_names(world):
    stray = [record(wire_name("bank.lies.test"), MX, b"\0\1" + wire_name("evil.lies.test")),
             record(wire_name("evil.lies.test"), A, bytes([192, 0, 2, 66]))]
    world.names.raw("n03.lies.test", MX, stray)
    lies(world, ["n03"])
    (reason,) = lies(world, ["bank"], {("bank.lies.test", MX): []})
    assert "192.0.2.66" not in reason and "evil" not in reason
    assert "192.0.2.66" not in world.server.log_text()


def test_n04_exchangers_at_home(world):
    answers, homes = {}, ("127.0.0.1", "127.9.9.9", "0.0.0.0", "224.0.0.1", "255.255.255.255", "::1", "::", "::ffff:127.0.0.1", "ff02::1")
    for number, home in enumerate(homes):
        name, ip = f"n04-{number}.lies.test", ipaddress.ip_address(home)
        answers[name, MX] = [record(HERE, MX, b"\0\x0a" + wire_name(f"h.{name}"))]
        answers[f"h.{name}", A if ip.version == 4 else AAAA] = [record(HERE, A if ip.version == 4 else AAAA, ip.packed)]
    lies(world, [f"n04-{number}" for number in range(len(homes))], answers)


def test_n05_hundreds_of_exchangers(world):
    name = "n05.open.test"
    world.names.answers[name, MX] = [record(HERE, MX, struct.pack(">H", n) + wire_name(f"h{n}.{name}")) for n in range(400)]
    for n in range(400):
        world.names.answers[f"h{n}.{name}", A] = [record(HERE, A, bytes([127, 0, 5, 1 + n % 250]))]
    world.names.asked.clear()
    queue_id = world.relay(f"x@{name}")
    world.deferred(queue_id)
    asked = {asked for asked, kind in list(world.names.asked) if kind in (A, AAAA)}
    world.remove(queue_id)
    assert 0 < len(asked) <= 20, len(asked)


def test_n06_names_in_circles(world):
    ring = {(f"n06{a}.lies.test", kind): [record(HERE, CNAME, wire_name(f"n06{b}.lies.test"))]
            for a, b in (("", "b"), ("b", "c"), ("c", "")) for kind in (MX, A, AAAA, CNAME)}
    chain = {(f"n06x{n}.lies.test", kind): [record(HERE, CNAME, wire_name(f"n06x{n + 1}.lies.test"))] for n in range(60)
             for kind in (MX, A, AAAA)}
    lies(world, ["n06", "n06x0"], ring | chain)


def test_n07_names_for_a_terminal(world):
    hosts = ([b"a\r\nRSET", b"test"], [b"\x1b[2J", b"test"], [b"a b", b"test"], [b"a.b", b"test"], [b"\0", b"test"], [b'"quote"', b"test"],
             [b"$(id)", b"test"], [b"-oProxyCommand=id", b"test"])
    answers = {(f"n07-{number}.lies.test", MX): [record(HERE, MX, b"\0\x0a" + wire_name(labels))] for number, labels in enumerate(hosts)}
    for reason in lies(world, [f"n07-{number}" for number in range(len(hosts))], answers):
        assert not re.search(r"[\x00-\x1f\x7f]", reason.replace("\r\n", "")), reason
    assert b"\x1b" not in world.server.log_path.read_bytes()


def test_n08_reverse_names_that_write(world):
    for number, labels in enumerate(([b"a\r\nX-Evil: 1", b"test"], [b"a (b", b"test"], [b"x)y", b"test"], [b"\x1b[2J", b"test"], [b"a.b", b"c"],
                                     [b"x" * 63] * 3 + [b"y" * 61], [b"\xff\xfe", b"test"], [b"[127.0.0.1]", b"test"])):
        world.names.answers[f"{number + 1}.8.0.127.in-addr.arpa", PTR] = [record(HERE, PTR, wire_name(labels))]
        mark = b"n08-%d-" % number
        with world.session(source=f"127.0.8.{number + 1}") as s:
            s.begin()
            assert s.content(b"Subject: " + mark + b"\r\n\r\nx\r\n")[0] == 250
        mail = world.arrives(mark)
        assert b"X-Evil" not in mail and b"\x1b" not in mail
        received = re.search(rb"(?ms)^Received: (.*?)\n\S", mail)[1]
        assert re.match(rb"from client\.test \([A-Za-z0-9._-]+ \[127\.0\.8\.%d\]\)\n" % (number + 1), received), received


def test_n09_counts_that_lie(world):
    good = record(HERE, MX, b"\0\x0a" + wire_name("h.lies.test"))
    cases = (([good], 65535), ([good], 0), ([good[:-3]], 1), ([good[:10] + b"\xff\xff" + good[12:]], 1))
    for number, (records, count) in enumerate(cases):
        world.names.raw(f"n09-{number}.lies.test", MX, records, answers=count)
    packets = (b"", b"\x81", b"\x81\x80\0\1", b"\x81\x80" + b"\xff" * 8 + wire_name("n09-r3.lies.test"), b"\0" * 500)
    for number, packet in enumerate(packets):
        world.names.answers[f"n09-r{number}.lies.test", MX] = packet
    lies(world, [*(f"n09-{number}" for number in range(len(cases))), *(f"n09-r{number}" for number in range(len(packets)))])
