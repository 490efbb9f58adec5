"""SMTP smuggling through the whole daemon (CVE-2023-51764 and its kind): one message in is one message out, and on the
wire behind us the only end of data, by anybody's reading, is the last one.

test_smtp_receiver.py shows what the receiver takes for the end; here the next hop writes down every byte that it gets.
"""
import json
import os
import re
import socket
import threading
import time

import pytest

from harness import Postrider, shared, wait_until
from peers import Exim, Postfix, ScriptedServer

SMUGGLED = b"MAIL FROM:<smuggled@attacker.test>\r\nRCPT TO:<v@local.test>\r\nDATA\r\nx\r\n.\r\n"
# Where sloppy servers see the end of data: a dot between any two line ends.
ANY_END = re.compile(rb"(?:\r\n|\r|\n)\.(?=\r\n|\r|\n)")
BARE = re.compile(rb"\r(?!\n)|(?<!\r)\n")
SITE = """
hostname mx.local.test
state {state}
listen mx {{ address 127.0.0.1:{port}; relay from 127.0.0.1; line-ends {line_ends} }}
route default {{ via 127.0.0.1:{next_port}; tls off }}
retry 1s for 1d
"""


def cases():
    folder = shared()
    path = folder and folder / "conformance/smtp-smuggling/eod.json"
    return json.loads(path.read_text(encoding="utf-8"))["cases"] if path and path.exists() else []


CASES = cases()
if not CASES:
    pytest.skip("no shared conformance data", allow_module_level=True)


class Recorder:
    """A next hop that keeps what each session's client wrote, as (verb, raw bytes): content is one of them."""

    def __init__(self, *extensions):
        self.extensions = extensions
        self.contents = []     # raw octets between 354 and the first CRLF.CRLF, that included; or a message's chunks
        self.commands = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.lock = threading.Lock()

    def __enter__(self):
        threading.Thread(target=self.accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.listener.close()

    def accept(self):
        while True:
            try:
                s, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.talk, args=(s,), daemon=True).start()

    def talk(self, s):
        with s, s.makefile("rb") as lines:
            s.sendall(b"220 recorder.test ESMTP\r\n")
            chunks = b""
            while line := lines.readline():
                verb = line[:4].upper().rstrip()
                with self.lock:
                    self.commands.append(line)
                if verb == b"EHLO":
                    words = (b"recorder.test", *self.extensions)
                    s.sendall(b"".join(b"250-%s\r\n" % word for word in words) + b"250 HELP\r\n")
                elif verb == b"DATA":
                    s.sendall(b"354 go on\r\n")
                    raw = b"\r\n"  # the one of DATA
                    while not raw.endswith(b"\r\n.\r\n"):
                        raw += lines.read1(1) or pytest.fail("the client has gone")
                    with self.lock:
                        self.contents.append(raw[2:])
                    s.sendall(b"250 2.0.0 taken\r\n")
                elif verb == b"BDAT":
                    words = line.split()
                    chunks += lines.read(int(words[1]))
                    if words[2:] == [b"LAST"]:
                        with self.lock:
                            self.contents.append(chunks)
                        chunks = b""
                    s.sendall(b"250 2.0.0 taken\r\n")
                elif verb == b"QUIT":
                    s.sendall(b"221 2.0.0 bye\r\n")
                    return
                else:
                    s.sendall(b"250 2.0.0 ok\r\n")


class Client:
    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), 60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.lines = self.socket.makefile("rb")

    def __enter__(self):
        assert self.reply() == 220
        self.say(b"EHLO client.test\r\n", 250)
        return self

    def __exit__(self, *_):
        self.lines.close()
        self.socket.close()

    def reply(self):
        while (line := self.lines.readline())[3:4] == b"-":
            pass
        return int(line[:3]) if line else 0

    def say(self, data, code):
        self.socket.sendall(data)
        got = self.reply()
        assert got == code, (data[:60], got)

    def envelope(self, number):
        self.say(b"MAIL FROM:<a%d@client.test>\r\n" % number, 250)
        self.say(b"RCPT TO:<v%d@next.test>\r\n" % number, 250)


def body_of(case, by):
    """(what is sent, what the content is) or None where the table says that it ends there and then."""
    octets = bytes.fromhex(case["hex"])
    if case["rule"].startswith("MUST end"):
        if by == "DATA":
            return None
    start = b"Subject: %s\r\n\r\ntext" % case["id"].encode()
    sent = start + octets + SMUGGLED
    if by == "BDAT":
        return sent, sent
    # Behind the octets the attacker's own end of data is a true one: as content it comes dot-stuffed.
    sent = start + octets + SMUGGLED.replace(b"\r\n.\r\n", b"\r\n..\r\n")
    return sent, re.sub(rb"(\A|\r\n)\.", rb"\1", sent)


def repaired(content):
    return re.sub(rb"\r\n|\r|\n", b"\r\n", content)


def hand_over(client, number, by, sent, cut, expected):
    client.envelope(number)
    if by == "DATA":
        client.say(b"DATA\r\n", 354)
        whole = sent + b".\r\n"
    else:
        whole = b"BDAT %d LAST\r\n" % len(sent) + sent
        cut += len(whole) - len(sent)
    client.socket.sendall(whole[:cut])
    time.sleep(0.0005)  # so that it is mostly read as two pieces, too
    client.say(whole[cut:], expected)


def check_relayed(recorder, wanted, stuffed):
    """`wanted`: content as it should be, in any order. stuffed: it left by DATA."""
    assert len(recorder.contents) == len(wanted)
    got = []
    for raw in recorder.contents:
        assert raw.startswith(b"Received: ")
        assert not BARE.search(raw), f"a bare CR or LF left us: {raw[-200:]!r}"
        if stuffed:
            ends = [found.start() for found in ANY_END.finditer(b"\r\n" + raw)]
            assert ends == [len(raw) + 2 - 5], f"an end of data within: {raw[-200:]!r}"
            raw = re.sub(rb"(?m)^\.", b"", raw[:-3])
        got.append(raw[raw.index(b"Subject: "):])
    assert sorted(got) == sorted(wanted)
    for line in recorder.commands:
        assert b"smuggled" not in line and re.match(rb"(EHLO|MAIL|RCPT|DATA|BDAT|RSET|QUIT)\b.*\r\n\Z", line), line


@pytest.mark.parametrize("extensions", [(), (b"PIPELINING", b"CHUNKING", b"8BITMIME")], ids=["to DATA", "to BDAT"])
@pytest.mark.parametrize("by", ["DATA", "BDAT"])
def test_one_in_is_one_out(tmp_path, by, extensions):
    """Every case of the table, from clients whose line ends are repaired, in two packets: cut at every byte on the way
    to DATA, at those around the case on the way to BDAT."""
    wanted = []
    with Recorder(*extensions) as recorder, Postrider(tmp_path, config=SITE, line_ends="repair",
                                                      next_port=recorder.port) as server:
        with Client(server.port) as client:
            for case in CASES:
                if not (bodies := body_of(case, by)):
                    continue
                sent, content = bodies
                at = sent.index(bytes.fromhex(case["hex"]))
                for cut in range(at - 2, at + len(case["hex"]) // 2 + 3) if extensions else range(len(sent)):
                    hand_over(client, len(wanted), by, sent, cut, 250)
                    wanted.append(repaired(content))
        wait_until(lambda: len(recorder.contents) >= len(wanted), 60, "all messages at the next hop")
        server.wait_until_empty()
        check_relayed(recorder, wanted, not extensions)
        print(f"# smuggling by {by}: {len(wanted)} in, {len(recorder.contents)} out, one end of data each")
        assert server.figures()["accepted"] == len(wanted) > 70


@pytest.mark.parametrize("by", ["DATA", "BDAT"])
def test_refused_from_strangers(tmp_path, by):
    """Where bare line ends are refused, nothing of such a message leaves; what has none goes on as it is."""
    wanted = []
    with Recorder() as recorder, Postrider(tmp_path, config=SITE, line_ends="refuse",
                                           next_port=recorder.port) as server:
        with Client(server.port) as client:
            for number, case in enumerate(CASES):
                if bodies := body_of(case, by):
                    bare = BARE.search(bodies[1]) is not None
                    hand_over(client, number, by, bodies[0], len(bodies[0]), 550 if bare else 250)
                    wanted += [] if bare else [bodies[1]]
        wait_until(lambda: len(recorder.contents) >= len(wanted), 60, "the others at the next hop")
        server.wait_until_empty()
        check_relayed(recorder, wanted, True)
        assert 0 < len(wanted) < len(CASES) - 4


def test_the_true_end_ends(tmp_path):
    """What the table calls the end is one: what follows is a second message of that client's own."""
    with Recorder() as recorder, Postrider(tmp_path, config=SITE, line_ends="refuse",
                                           next_port=recorder.port) as server:
        for case in CASES:
            if not case["rule"].startswith("MUST end"):
                continue
            recorder.contents.clear()
            start = b"" if case["id"] == "first-line-dot" else b"Subject: text\r\n\r\ntext"
            with Client(server.port) as client:
                client.envelope(1)
                client.say(b"DATA\r\n", 354)
                client.say(start + bytes.fromhex(case["hex"]), 250)
                client.say(b"MAIL FROM:<second@client.test>\r\n", 250)
            server.wait_until_empty()
            (raw,) = wait_until(lambda: list(recorder.contents), 30, "the message")
            assert raw.endswith(b"text\r\n.\r\n" if start else b"\r\n.\r\n") and raw.count(b"\r\n.\r\n") == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="the other MTAs want to be started as root")
@pytest.mark.parametrize("peer", [Postfix, Exim], ids=lambda peer: peer.__name__)
def test_behind_us(tmp_path, peer):
    """Postfix and Exim, with their own defaults for the end of data, see as many messages as we took: each case by DATA and
    by BDAT, in two packets, cut at every byte."""
    wanted = []
    with ScriptedServer() as behind, peer(behind.port, by_data=True) as mta, Postrider(
            tmp_path / "server", config=SITE, line_ends="repair", next_port=mta.port) as server:
        with Client(server.port) as client:
            for by in ("DATA", "BDAT"):
                for case in CASES:
                    sent, content = body_of(case, by) or (b"", b"")
                    for cut in range(len(sent)):
                        hand_over(client, len(wanted), by, sent, cut, 250)
                        wanted.append(repaired(content))
        server.wait_until_empty(300)
        assert server.figures()["delivered"] == len(wanted)
        while (there := len(behind.messages)) < len(wanted):
            try:
                wait_until(lambda: len(behind.messages) > there, 120, f"message {there + 1} behind {peer.__name__}")
            except AssertionError as e:
                raise AssertionError(f"{e}: {mta.log_text()}") from None
    print(f"# smuggling through {peer.__name__}: {len(wanted)} in, cut at every byte, {len(behind.messages)} behind it")
    assert len(behind.messages) == len(wanted) > 1500
    assert sorted(line.split(" ")[1] for _, rcpt, _ in behind.messages for line in rcpt) == sorted(
        f"TO:<v{n}@next.test>" for n in range(len(wanted)))
    assert not any("smuggled" in line for line in behind.commands)
    assert sorted(body(content) for _, _, content in behind.messages) == sorted(map(body, wanted))


def body(content):
    """What no MTA changes: the first field of the attacker's, and all behind the header."""
    subject = re.search(rb"^Subject: [^\r]*", content, re.M)[0]
    return subject, content[content.index(b"\r\n\r\n"):].rstrip(b"\r\n")
