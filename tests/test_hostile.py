"""Bad input against the whole daemon: clear answers, bounded memory, and no role ends because of it."""
import contextlib
import pathlib
import re
import resource
import socket
import threading
import time

import pytest

from harness import Postrider, c_enum, link_version, wait_until, without_trace
from peers import Client

SITE = """
hostname mx.local.test
state {state}
listen mx {{ address 127.0.0.1:{port}; max-size 1MiB }}
listen mx trusted {{ address 127.0.0.1:{trusted}; relay from 127.0.0.1 }}
domain local.test {{
    mailbox ok u1 u2 u3 u4 u5
    alias postmaster -> ok
    deliver maildir {mail}/{{domain}}/{{local}}
}}
route default {{ via 127.0.0.1:{next_port}; tls off }}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    from harness import free_port

    trusted = free_port()
    with Postrider(tmp_path_factory.mktemp("hostile"), SITE, trusted=trusted,
                   environment={"ASAN_EXTRA": "quarantine_size_mb=1"}) as one:
        one.trusted = trusted
        before = one.role_pids()
        yield one
        assert one.role_pids() == before, "a role ended"
        one.wait_until_empty()
        assert one.figures()["balanced"] == 1


def rss(server):
    """Resident bytes of all roles together, without the sanitizer's shadow being looked at twice."""
    total = 0
    for pid in server.role_pids().values():
        status = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="ascii")
        total += int(re.search(r"RssAnon:\s*(\d+)", status).group(1)) * 1024
    return total


def still_serves(server, to="ok@local.test"):
    mails = len(server.mails())
    server.send(to=to)
    server.wait_for_mail(count=mails + 1)


# ---- command lines ----

def path(length):
    """A forward-path of that many bytes within its brackets, all of whose labels are legal."""
    domain = b"local.test"
    return b"a" * (length - len(domain) - 1) + b"@" + domain


def ids(value):
    return value.replace(" ", "-") if isinstance(value, str) else ""


@pytest.mark.parametrize(("why", "line", "codes"), [
    ("a command line that is one too long", b"NOOP " + b"x" * (2048 - 5 - 2 + 1) + b"\r\n", {500}),
    ("the longest command line", b"NOOP " + b"x" * (2048 - 5 - 2) + b"\r\n", {250}),
    ("a path that is one too long", b"RCPT TO:<" + path(1025) + b">\r\n", {501}),
    ("the longest path", b"RCPT TO:<" + path(1024) + b">\r\n", {550}),
    ("NUL in a command", b"NO\0OP\r\n", {501}),
    ("NUL in an address", b"RCPT TO:<a\0b@local.test>\r\n", {501, 500}),
    ("a bare CR in a command", b"NOOP\rNOOP\r\n", {500, 501, 250}),
    ("an unknown command", b"FROBNICATE\r\n", {500}),
    ("TURN", b"TURN\r\n", {502}), ("SEND", b"SEND FROM:<a@b.test>\r\n", {502}),
    ("SOML", b"SOML FROM:<a@b.test>\r\n", {502}), ("SAML", b"SAML FROM:<a@b.test>\r\n", {502}),
    ("an empty line", b"\r\n", {500}),
    ("8-bit in a command", b"\xff\xfe\r\n", {500}),
    ("MAIL within a transaction", b"MAIL FROM:<b@client.test>\r\n", {503}),
    ("an unknown parameter", b"RCPT TO:<ok@local.test> FROB=1\r\n", {555}),
    ("a local part of 65 bytes that nobody has", b"RCPT TO:<" + b"a" * 65 + b"@local.test>\r\n", {550, 501, 553}),
    ("a domain of 256 bytes", b"RCPT TO:<a@" + b"a." * 126 + b"test>\r\n", {501, 550, 553}),
    ("a label of 64 bytes", b"RCPT TO:<a@" + b"a" * 64 + b".test>\r\n", {501, 550, 553}),
], ids=ids)
def test_a_wrong_line_gets_its_code_and_the_session_goes_on(server, why, line, codes):
    with Client(server.port) as client:
        client.say(b"MAIL FROM:<a@client.test>\r\n", 250)
        client.send(line)
        code, text = client.reply()
        assert code in codes, (why, code, text)
        client.say(b"RCPT TO:<ok@local.test>\r\n", 250)
        client.say(b"RSET\r\n", 250)


def test_command_lines_of_a_mebibyte(server):
    before = rss(server)
    for _ in range(3):
        with Client(server.port) as client:
            client.send(b"NOOP " + b"x" * (1 << 20) + b"\r\n")
            code, _ = client.reply()
            assert code in (500, 421)
            if code == 500:
                client.say(b"NOOP\r\n", 250)
    assert rss(server) - before < 16 << 20


def test_a_line_without_end(server):
    """Nothing is kept of it, and at last the session ends."""
    before = rss(server)
    with Client(server.port) as client:
        client.socket.settimeout(5)
        try:
            for _ in range(256):
                client.send(b"x" * 65536)
        except OSError:
            pass
        assert rss(server) - before < 16 << 20


def test_only_so_many_wrong_commands(server):
    with Client(server.port) as client:
        codes = []
        for _ in range(200):
            client.send(b"FROB\r\n")
            code, _ = client.reply()
            codes.append(code)
            if code in (421, 0):
                break
        assert codes[-1] == 421, codes[-3:]
        assert client.reply()[0] == 0


def test_sizes(server):
    size = 1 << 20
    with Client(server.port) as client:
        client.say(b"MAIL FROM:<a@client.test> SIZE=%d\r\n" % (size + 1), 552)
        client.say(b"MAIL FROM:<a@client.test> SIZE=%d\r\n" % size, 250)
        client.say(b"RSET\r\n", 250)
        for parameter in (b"SIZE=-1", b"SIZE=", b"SIZE=99999999999999999999999", b"SIZE=1x"):
            client.send(b"MAIL FROM:<a@client.test> " + parameter + b"\r\n")
            assert client.reply()[0] in (501, 552), parameter
        for extra, code in ((0, 250), (1, 552)):  # exactly the limit, and one byte more
            head = b"Subject: big\r\n\r\n"
            client.begin(b"u5@local.test")
            client.say(b"DATA\r\n", 354)
            body = b"x" * 998 + b"\r\n"
            left = size + extra - len(head) - 2
            content = head + body * (left // 1000) + b"y" * (left % 1000) + b"\r\n"
            assert len(content) == size + extra
            client.send(content)
            client.say(b".\r\n", code)
    (mail,) = server.wait_for_mail("u5")
    assert len(without_trace(mail)) == len(content.replace(b"\r\n", b"\n")) - 1


def test_endless_data_is_bounded_and_refused(server):
    before = rss(server)
    with Client(server.port) as client:
        client.begin()
        client.say(b"DATA\r\n", 354)
        block = (b"x" * 998 + b"\r\n") * 64
        sent = 0
        try:
            while sent < 48 << 20:
                client.send(block)
                sent += len(block)
        except OSError:
            pass  # it may close instead of reading all of it
        else:
            client.send(b".\r\n")
            assert client.reply()[0] in (552, 421)
    assert rss(server) - before < 24 << 20


def test_ten_thousand_recipients(server):
    """After the limit each gets 452, and those that were taken get the message."""
    with Client(server.trusted) as client:
        client.say(b"MAIL FROM:<a@client.test>\r\n", 250)
        sender = threading.Thread(target=lambda: client.send(b"".join(b"RCPT TO:<ok@local.test>\r\n" if n % 2 else
                                  b"RCPT TO:<u%d@local.test>\r\n" % (n % 5 + 1) for n in range(10000))))
        sender.start()
        codes = [client.reply()[0] for _ in range(10000)]
        sender.join()
        taken = codes.index(452)
        assert taken >= 1000
        assert set(codes[:taken]) == {250}
        assert set(codes[taken:]) == {452}
        client.say(b"DATA\r\n", 354)
        mails = len(server.mails()), len(server.mails("u1"))
        client.say(b"Subject: many\r\n\r\nmany\r\n.\r\n", 250)
    server.wait_for_mail(count=mails[0] + 1)
    server.wait_for_mail("u1", count=mails[1] + 1)


def test_25_unknown_and_5_good_recipients_deliver_to_the_five(server):
    server.wait_until_empty()
    before = {n: len(server.mails(f"u{n}")) for n in range(1, 6)}
    with Client(server.port) as client:
        client.say(b"MAIL FROM:<a@client.test>\r\n", 250)
        codes = []
        for n in range(30):
            name = b"u%d" % (n // 6 + 1) if n % 6 == 0 else b"nobody%d" % n
            client.send(b"RCPT TO:<" + name + b"@local.test>\r\n")
            codes.append(client.reply()[0])
        assert codes.count(250) == 5
        assert codes.count(550) == 25
        client.say(b"DATA\r\n", 354)
        client.say(b"Subject: five\r\n\r\nfive\r\n.\r\n", 250)
        client.say(b"QUIT\r\n", 221)
    for n in range(1, 6):
        assert without_trace(server.wait_for_mail(f"u{n}", before[n] + 1)[-1]) == b"Subject: five\n\nfive\n"


def test_slow_drips_do_not_hold_others(server):
    """Forty clients that send a byte now and then; between their bytes others are served to the end."""
    slow = [Client(server.port, greet=False) for _ in range(40)]
    try:
        assert {client.reply()[0] for client in slow} == {220}
        for byte in (b"E", b"H", b"L", b"O", b" ", b"c"):
            for client in slow:
                client.send(byte)
            still_serves(server)
        for client in slow:
            client.say(b"\r\n", 250)
    finally:
        for client in slow:
            client.socket.close()


def test_nul_in_content_arrives_or_is_refused(server):
    with Client(server.port) as client:
        client.begin()
        client.say(b"DATA\r\n", 354)
        client.send(b"Subject: nul\r\n\r\na\0b\r\n.\r\n")
        code, _ = client.reply()
        assert code in (250, 550, 554)
    if code == 250:
        wait_until(lambda: any(b"a\0b\n" in mail for mail in server.mails()), what="the message")


def test_clients_that_vanish_at_every_point(server):
    dialog = [b"EHLO client.test\r\n", b"MAIL FROM:<a@client.test>\r\n", b"RCPT TO:<ok@local.test>\r\n", b"DATA\r\n",
              b"Subject: gone\r\n\r\n", b"x" * 100000, b"\r\n", b"\r\n."]
    mails = len(server.mails())
    for end in range(len(dialog) + 1):
        for reset in (False, True):
            with Client(server.port, greet=False) as client:
                client.send(b"".join(dialog[:end]))
                if reset:
                    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    still_serves(server)
    assert len(server.mails()) == mails + 1
    wait_until(lambda: server.figures()["messages"] == 0, what="an empty queue")


# ---- chunks and pipelining ----

def chunk(data, last=False):
    return b"BDAT %d%s\r\n" % (len(data), b" LAST" if last else b"") + data


@pytest.mark.parametrize(("why", "chunks", "codes", "arrives"), [
    ("one chunk", [chunk(b"Subject: c\r\n\r\nc\r\n", True)], [250], b"Subject: c\n\nc\n"),
    ("size 0 LAST", [chunk(b"Subject: c\r\n\r\nc\r\n"), b"BDAT 0 LAST\r\n"], [250, 250], b"Subject: c\n\nc\n"),
    ("LAST without a final CRLF", [chunk(b"Subject: c\r\n\r\nc", True)], [250], b"Subject: c\n\nc"),
    ("CRLF split over chunks", [chunk(b"Subject: c\r"), chunk(b"\n\r"), chunk(b"\nc\r"), chunk(b"\n", True)], [250] * 4,
     b"Subject: c\n\nc\n"),
    ("a dot alone is only a dot", [chunk(b"Subject: c\r\n\r\n.\r\nc\r\n", True)], [250], b"Subject: c\n\n.\nc\n"),
    ("zero-length chunks", [chunk(b"")] * 5 + [chunk(b"Subject: c\r\n\r\nc\r\n", True)], [250] * 6, b"Subject: c\n\nc\n"),
    ("ten thousand chunks of one byte", [chunk(b"x") for _ in range(9998)] + [chunk(b"\r"), chunk(b"\n", True)],
     [250] * 10000, b"x" * 9998 + b"\n"),
], ids=ids)
def test_chunks(server, why, chunks, codes, arrives):
    before = len(server.mails("u2"))
    with Client(server.port) as client:
        client.begin(b"u2@local.test")
        sender = threading.Thread(target=client.send, args=(b"".join(chunks),))
        sender.start()
        assert [client.reply()[0] for _ in chunks] == codes, why
        sender.join()
        client.say(b"QUIT\r\n", 221)
    assert without_trace(server.wait_for_mail("u2", before + 1)[-1]) == arrives


def test_a_refused_chunk_with_others_behind_it(server):
    with Client(server.port) as client:
        client.say(b"MAIL FROM:<a@client.test>\r\n", 250)
        client.send(b"RCPT TO:<nobody@local.test>\r\n" + chunk(b"EHLO smuggled.test\r\n") + chunk(b"QUIT\r\n", True) + b"NOOP\r\n")
        codes = [client.reply()[0] for _ in range(4)]
        assert codes[0] == 550
        assert codes[1] // 100 == codes[2] // 100 == 5
        assert codes[3] == 250


def test_data_after_bdat_and_bdat_of_nonsense_sizes(server):
    with Client(server.port) as client:
        client.begin()
        client.send(chunk(b"Subject: mixed\r\n"))
        assert client.reply()[0] == 250
        client.say(b"DATA\r\n", 503)
        client.say(b"RSET\r\n", 250)
    for size in (b"-1", b"x", b"", b"99999999999999999999999999"):
        with Client(server.port) as client:
            client.begin()
            client.send(b"BDAT " + size + b" LAST\r\n")
            assert client.reply()[0] in (501, 552, 421, 500), size
    with Client(server.port) as client:  # over the limit: read and refused
        client.begin()
        client.send(chunk((b"x" * 998 + b"\r\n") * 1049, True))
        assert client.reply()[0] == 552
        client.say(b"NOOP\r\n", 250)
    still_serves(server)


def test_pipelining_a_thousand_recipients_with_small_buffers(server):
    """Nobody waits for the other: the client sends all before it reads anything, in a thread of its own."""
    before = len(server.mails("u3"))
    with Client(server.trusted, buffers=4096) as client:
        commands = b"MAIL FROM:<a@client.test>\r\n" + b"RCPT TO:<u3@local.test>\r\n" * 1000 + b"DATA\r\n"
        sender = threading.Thread(target=client.send, args=(commands,))
        sender.start()
        time.sleep(0.2)  # the server's replies pile up meanwhile: that is the point
        assert {client.reply()[0] for _ in range(1001)} == {250}
        assert client.reply()[0] == 354
        sender.join()
        client.say(b"Subject: thousand\r\n\r\nx\r\n.\r\n", 250)
    assert without_trace(server.wait_for_mail("u3", before + 1)[-1]) == b"Subject: thousand\n\nx\n"
    wait_until(lambda: server.figures()["messages"] == 0, what="an empty queue")
    assert len(server.mails("u3")) == before + 1, "duplicates of one recipient are one delivery"


# ---- links: what the command line's socket is told ----

def frame(kind, body=b"", call=1, flags=0, length=None):
    return (len(body) if length is None else length).to_bytes(4, "little") + kind.to_bytes(2, "little") + \
        flags.to_bytes(2, "little") + call.to_bytes(4, "little") + body


BORDER = c_enum("src/role/border.h", "border_type")
COUNTERS, LIST, SHOW, ACT = (BORDER[f"BORDER_{name}"] for name in ("COUNTERS", "LIST", "SHOW", "ACT"))
VERSION = link_version()


def hello(version=VERSION, build=b"0.1.0"):
    return frame(0xFFFF, version.to_bytes(4, "little") + len(build).to_bytes(4, "little") + build, call=0)


@pytest.mark.parametrize(("why", "data"), [
    ("no hello", frame(COUNTERS)),
    ("another version", hello(version=VERSION + 1) + frame(COUNTERS)),
    ("another build", hello(build=b"9.9.9") + frame(COUNTERS)),
    ("a hello with more behind", frame(0xFFFF, hello()[12:] + b"!", call=0)),
    ("a body that is too long", hello() + frame(COUNTERS, length=65537)),
    ("a body of 4 GiB", hello() + frame(COUNTERS, length=0xFFFFFFFF)),
    ("unknown flags", hello() + frame(COUNTERS, flags=4)),
    ("descriptors that did not come", hello() + frame(COUNTERS, flags=0x100)),
    ("a reply to call 0", hello() + frame(COUNTERS, call=0, flags=1)),
    ("an unknown type", hello() + frame(999)),
    ("a type of another border", hello() + frame(BORDER["BORDER_SUBMIT"], b"x" * 64)),
    ("a one-way message where a call is wanted", hello() + frame(COUNTERS, call=0)),
    ("a LIST that is too short", hello() + frame(LIST, b"\0" * 3)),
    ("a LIST that is too long", hello() + frame(LIST, b"\0" * 60)),
    ("a LIST of too many", hello() + frame(LIST, b"\0" * 8 + b"\xff\xff\xff\xff")),
    ("a SHOW without an id", hello() + frame(SHOW)),
    ("an unknown act", hello() + frame(ACT, b"\xff" + b"\0" * 16)),
    ("a body that never ends", hello() + b"".join(frame(LIST, b"x" * 65536, flags=2) for _ in range(70))),
    ("noise", bytes(range(256)) * 16),
], ids=ids)
def test_wrong_frames_close_the_link_and_nothing_else(server, why, data):
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(20)
        link.connect(str(server.state / "control.sock"))
        try:
            link.sendall(data)
            while link.recv(65536):
                pass
        except (ConnectionResetError, BrokenPipeError):
            pass  # closed, as it should
    wait_until(lambda: server.figures() is not None, what="an answer")


def test_local_programs_may_not_be_too_many(server):
    """They share a role with the users who submit, and its sessions: these have room whatever those do."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)

    def knock():
        local = crowd.enter_context(socket.socket(socket.AF_UNIX))
        local.settimeout(20)
        local.connect(str(server.state / "submission.sock"))
        return local.recv(1000)

    with contextlib.ExitStack() as crowd:
        for _ in range(1000):  # LIMIT_SESSIONS_LOCAL
            assert knock().startswith(b"220")
        assert knock().startswith(b"421 4.3.2 ")
    with contextlib.ExitStack() as crowd:
        wait_until(lambda: knock().startswith(b"220"), what="room again")
    still_serves(server)


def test_local_programs_may_be_hostile_too(server):
    with socket.socket(socket.AF_UNIX) as local:
        local.settimeout(20)
        local.connect(str(server.state / "submission.sock"))
        assert local.recv(1000).startswith(b"220")
        local.sendall(b"\0" * 100000 + b"\r\nQUIT\r\n")
        while local.recv(65536):
            pass
    still_serves(server)
