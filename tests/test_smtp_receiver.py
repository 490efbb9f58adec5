"""The SMTP receiver over real sockets: the conformance tables, smuggling cut at every byte, bad input.

Runs against smtp_test_server (the session with a fake site behind: src/smtp/server_fake.h), which takes the place of the
whole daemon here so that each case can see what was stored.
"""
import json
import os
import pathlib
import re
import socket
import subprocess
import time

import pytest

SOURCE = pathlib.Path(os.environ.get("POSTRIDER_SOURCE", pathlib.Path(__file__).resolve().parent.parent))
SHARED = pathlib.Path(os.environ.get("POSTRIDER_SHARED", SOURCE / ".." / "shared"))
BUILD = pathlib.Path(os.environ.get("POSTRIDER_SANITIZED", SOURCE / "build" / "postrider")).parent
CONFORMANCE = SHARED / "conformance"

# Rows of the tables that we answer otherwise, each with the sentence that justifies it. There is none.
DEVIATIONS = {}


def table(path):
    try:
        return json.loads((CONFORMANCE / path).read_text(encoding="utf-8"))["cases"]
    except FileNotFoundError:
        return []


class Receiver:
    """A server under test: where it listens, and what it has stored, in order."""

    def __init__(self, directory, *words):
        self.directory = directory
        self.errors = open(directory / "stderr", "wb")
        # The sanitizer keeps freed memory for a while; little enough to measure ours.
        options = os.environ.get("ASAN_OPTIONS", "") + ":quarantine_size_mb=1"
        self.process = subprocess.Popen([BUILD / "smtp_test_server", directory, *words], stdout=subprocess.PIPE,
                                        stderr=self.errors, env=os.environ | {"ASAN_OPTIONS": options})
        self.port = int(self.process.stdout.readline())

    def connect(self):
        return Client(self.port)

    def stored(self):
        files = sorted(self.directory.glob("*.eml"), key=lambda path: int(path.stem))
        return [path.read_bytes() for path in files]

    def forget(self):
        for path in self.directory.glob("*.eml"):
            path.unlink()

    def memory(self):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        return int(re.search(r"VmRSS:\s*(\d+)", status).group(1)) * 1024

    def stop(self):
        alive = self.process.poll() is None
        self.process.kill()
        self.process.wait()
        self.errors.close()
        assert alive, (self.directory / "stderr").read_text(errors="replace")


class Client:
    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.here = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data if isinstance(data, bytes) else data.encode("latin-1"))

    def reply(self):
        """Code and text of the next reply; ("end", "") when the server has closed."""
        lines = []
        while True:
            while b"\r\n" not in self.here:
                try:
                    data = self.socket.recv(65536)
                except ConnectionResetError:
                    data = b""
                if not data:
                    assert not self.here and not lines, "closed in the middle of a reply"
                    return "end", ""
                self.here += data
            line, self.here = self.here.split(b"\r\n", 1)
            assert len(line) <= 510 and re.match(rb"[2-5][0-9][0-9]([ -]|$)", line), line
            lines.append(line[4:].decode("ascii"))
            if line[3:4] != b"-":
                return line[:3].decode(), "\n".join(lines)

    def codes(self, count):
        return [self.reply()[0] for _ in range(count)]

    def say(self, data, code):
        self.send(data)
        got, text = self.reply()
        assert got == code, text
        return text

    def rest(self):
        """Codes of all replies up to the end."""
        codes = []
        while True:
            code, _ = self.reply()
            if code == "end":
                return codes
            codes.append(code)

    def begin(self, name="client.test"):
        assert self.reply()[0] == "220"
        return self.say(f"EHLO {name}\r\n", "250")

    def begin_message(self):
        self.begin()
        self.send("MAIL FROM:<a@client.test>\r\nRCPT TO:<v@local.test>\r\n")
        assert self.codes(2) == ["250", "250"]


def receiver_fixture(*words):
    @pytest.fixture(scope="module")
    def start(tmp_path_factory):
        receiver = Receiver(tmp_path_factory.mktemp("mail"), *words)
        yield receiver
        receiver.stop()

    return start


refusing = receiver_fixture()
repairing = receiver_fixture("repair")
quick = receiver_fixture("quick")


# ---- the command table ------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("case", table("smtp-commands/cases.json"), ids=lambda case: case["id"])
def test_commands(refusing, case):
    if case["id"] in DEVIATIONS:
        pytest.skip(DEVIATIONS[case["id"]])
    with refusing.connect() as client:
        assert client.reply()[0] == "220"
        for text, expression in case["steps"]:
            client.send(text.encode("utf-8" if case["id"] == "utf8-without-smtputf8" else "latin-1"))
            code, words = client.reply()
            assert re.fullmatch(expression, code), f"{text[:60]!r}: {code} {words}"


# ---- the end of data --------------------------------------------------------------------------------------------------

SMUGGLED = b"MAIL FROM:<smuggled@attacker.test>\r\nRCPT TO:<v@local.test>\r\nDATA\r\nx\r\n.\r\n"
END_CASES = table("smtp-smuggling/eod.json")
MODES = pytest.mark.parametrize("mode", ["refuse", "repair"])


def octets(case):
    return bytes.fromhex(case["hex"])


def has_bare(data):
    return re.search(rb"\r(?!\n)|(?<!\r)\n", data) is not None


def repaired(data):
    return re.sub(rb"\r\n|\r|\n", b"\r\n", data)


@pytest.mark.parametrize("case", END_CASES, ids=lambda case: case["id"])
@MODES
def test_end_of_data(refusing, repairing, case, mode):
    """The table's recipe, in two packets cut at every byte. (content_test.c cuts for sure, where a socket only may.)"""
    receiver = repairing if mode == "repair" else refusing
    receiver.forget()
    first = b"" if case["id"] == "first-line-dot" else b"text"
    body = first + octets(case) + SMUGGLED + b"\r\n.\r\n"
    end = 0 if body.startswith(b".\r\n") else body.index(b"\r\n.\r\n") + 2
    content = re.sub(rb"(\A|\r\n)\.", rb"\1", body[:end])
    refused = mode == "refuse" and has_bare(content)
    ends_there = case["rule"].startswith("MUST end")
    assert ends_there == (end < len(first) + 3)
    for cut in range(len(first + octets(case)) if ends_there else len(body)):
        with receiver.connect() as client:
            client.begin_message()
            client.say("DATA\r\n", "354")
            client.send(body[:cut])
            if cut % 8 == 0:
                time.sleep(0.001)
            client.send(body[cut:])
            assert client.reply()[0] == ("550" if refused else "250")
            if ends_there:  # what follows is commands by right, but for what was sent behind DATA without waiting
                assert client.codes(3) == ["250", "250", "554"]
                assert client.rest() == []
            else:  # the smuggled commands are content, up to their own end; then an empty line and "." are not commands
                assert client.codes(2) == ["500", "500"]
        assert receiver.stored() == ([] if refused else [repaired(content)])
        receiver.forget()


@pytest.mark.parametrize("case", END_CASES, ids=lambda case: case["id"])
@MODES
def test_end_of_data_in_chunks(refusing, repairing, case, mode):
    """By BDAT nothing but the size ends anything; in two chunks cut at every byte."""
    receiver = repairing if mode == "repair" else refusing
    receiver.forget()
    body = b"text" + octets(case) + SMUGGLED
    for cut in range(len(body)):
        with receiver.connect() as client:
            client.begin_message()
            client.send(b"BDAT %d\r\n" % cut + body[:cut] + b"BDAT %d LAST\r\n" % (len(body) - cut) + body[cut:] + b"NOOP\r\n")
            codes = client.codes(3)
        if has_bare(body) and mode == "refuse":
            assert codes in (["250", "550", "250"], ["550", "503", "250"])
            assert receiver.stored() == []
        else:
            assert codes == ["250", "250", "250"]
            assert receiver.stored() == [repaired(body)]
        receiver.forget()


# ---- bad input --------------------------------------------------------------------------------------------------------

def test_long_command_lines(refusing):
    with refusing.connect() as client:
        client.begin()
        before = refusing.memory()
        for _ in range(16):
            client.say(b"NOOP " + b"x" * (1 << 20) + b"\r\n", "500")
        client.say("NOOP\r\n", "250")
        assert refusing.memory() - before < 4 << 20


def test_a_message_that_is_too_large_is_read_to_its_end(refusing):
    refusing.forget()
    with refusing.connect() as client:
        client.begin_message()
        client.say("DATA\r\n", "354")
        client.send(b"Subject: endless\r\n\r\n")
        block = (b"x" * 98 + b"\r\n") * 655
        for _ in range(850):  # 53 MiB, and 50 are allowed
            client.send(block)
        client.say(".\r\n", "552")
        client.say("MAIL FROM:<>\r\n", "250")
    assert refusing.stored() == []


def test_ten_thousand_recipients(refusing):
    with refusing.connect() as client:
        client.begin()
        client.say("MAIL FROM:<>\r\n", "250")
        codes = []
        for block in range(100):
            client.send("".join(f"RCPT TO:<user{100 * block + i}@local.test>\r\n" for i in range(100)))
            codes += client.codes(100)
        assert codes == ["250"] * 1000 + ["452"] * 9000
        client.say("RCPT TO:<ok@local.test>\r\n", "421")
        assert client.rest() == []


def test_pipelining_through_small_buffers(refusing):
    """1,000 RCPT in one group through small buffers; replies are read only when nothing more can be sent."""
    refusing.forget()
    with refusing.connect() as client:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        client.begin()
        group = "MAIL FROM:<>\r\n" + "".join(f"RCPT TO:<user{i}@local.test>\r\n" for i in range(1000)) + "DATA\r\n"
        data = group.encode()
        codes = []
        while data:
            client.socket.setblocking(False)
            try:
                data = data[client.socket.send(data[:4096]):]
            except BlockingIOError:
                client.socket.settimeout(20)
                codes.append(client.reply()[0])
        client.socket.settimeout(20)
        while len(codes) < 1002:
            codes.append(client.reply()[0])
        assert codes == ["250"] * 1001 + ["354"]
        client.say("Subject: x\r\n\r\nx\r\n.\r\n", "250")
    assert refusing.stored() == [b"Subject: x\r\n\r\nx\r\n"]


def test_odd_content_passes_unchanged(refusing):
    refusing.forget()
    content = (b"Subject: folded" + b"\r\n  more" * 300 + b"\r\n\r\n" + b"\xe4\xf6\xfc\r\n.dot\r\n..\r\n" +
               b"y" * 100000 + b"\r\n" + bytes(range(128, 256)) + b"\0\r\n")
    with refusing.connect() as client:
        client.begin_message()
        client.say("DATA\r\n", "354")
        client.say(re.sub(rb"(?m)^\.", b"..", content) + b".\r\n", "250")
    assert refusing.stored() == [content]


def test_the_client_goes_at_every_byte(refusing):
    refusing.forget()
    dialog = [b"EHLO x\r\n", b"MAIL FROM:<>\r\n", b"RCPT TO:<ok@local.test>\r\n", b"DATA\r\n", b"Subject: x\r\n\r\nx\r\n.\r"]
    for stop in range(len(b"".join(dialog))):
        with refusing.connect() as client:
            client.reply()
            left = stop
            for line in dialog:
                client.send(line[:left])
                if left < len(line):
                    break
                left -= len(line)
                if line.endswith(b"\n"):
                    client.reply()
    with refusing.connect() as client:
        client.begin()
    assert refusing.stored() == []


@pytest.mark.parametrize("where", ["command", "content"])
def test_slow_drip(quick, where):
    """Four seconds stand for the five minutes. Whoever drips is told so and shown out."""
    with quick.connect() as client:
        if where == "content":
            client.begin_message()
            client.say("DATA\r\n", "354")
        else:
            client.begin()
        client.socket.settimeout(0.05)
        end = time.monotonic() + 60
        said = b""
        while b"421" not in said:
            assert time.monotonic() < end
            try:
                client.send("x")
                said += client.socket.recv(1000)
            except TimeoutError:
                pass


# ---- typed by hand -----------------------------------------------------------------------------------------------------

def test_every_reply_helps(refusing):
    with refusing.connect() as client:
        assert client.reply()[0] == "220"
        assert "EHLO" in client.say("MAIL FROM:<a@b.test>\r\n", "503")
        client.say("HELO me\r\n", "250")
        assert "MAIL" in client.say("RCPT TO:<ok@local.test>\r\n", "503")
        assert "MAIL FROM:<" in client.say("MAIL a@b.test\r\n", "501")
        client.say("MAIL FROM:<a@b.test>\r\n", "250")
        assert "RCPT" in client.say("DATA\r\n", "503")
        assert "RCPT TO:<" in client.say("RCPT ok\r\n", "501")
        assert "HELP" in client.say("SENDIT\r\n", "500")
        text = client.say("HELP\r\n", "214")
        for verb in ("EHLO", "MAIL", "RCPT", "DATA", "BDAT", "RSET", "NOOP", "HELP", "QUIT", "ETRN"):
            assert verb in text
        assert "VRFY" not in text and "EXPN" not in text
        assert "NOTIFY" in client.say("HELP RCPT\r\n", "214")
