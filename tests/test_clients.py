"""Mail programs as people use them, each handing over the same hard message: what lies in the Maildir is what was sent,
by hash, after our own trace headers.
"""
import base64
import hashlib
import os
import random
import shutil
import smtplib
import socket
import subprocess

import pytest

from harness import Postrider, binary, wait_until, without_trace

CLIENTS = ("swaks", "msmtp", "curl", "smtplib", "nodemailer", "sendmail", "telnet", "bdat")
SITE = """
hostname mx.local.test
state {state}
listen mx {{ address 127.0.0.1:{port}; relay from 127.0.0.1 }}
domain local.test {{ mailbox """ + " ".join(CLIENTS) + """; alias postmaster -> curl
                     deliver maildir {mail}/{{domain}}/{{local}} }}
"""
ATTACHMENT = 20 << 20
NODEMAILER = """
const [port, file, from, to] = process.argv.slice(1);
const server = { host: "127.0.0.1", port: Number(port), secure: false, ignoreTLS: true };
require("nodemailer").createTransport(server).sendMail(
    { envelope: { from, to }, raw: require("fs").createReadStream(file) },
    (error, info) => { console.log(error ? String(error) : info.response); process.exit(error ? 1 : 0); });
"""


def hard_message(name, attachment=ATTACHMENT):
    """With LF line ends, as it lies in a file."""
    seed = random.Random(name)
    folded = b"X-Folded: begins" + b"".join(b"\n %04d.in-the-middle-of-a-very-long-field" % i for i in range(60))
    assert len(folded) > 2000
    header = [
        b"From: Sender <a@client.test>", b"To: %s@local.test" % name.encode(), b"Subject: from " + name.encode(),
        b"Date: Sat, 21 Nov 2026 10:00:00 +0000", b"Message-ID: <%s@client.test>" % name.encode(), folded,
        b"MIME-Version: 1.0", b'Content-Type: multipart/mixed; boundary="=_b"', b"",
    ]
    body = [
        b"--=_b", b"Content-Type: text/plain; charset=iso-8859-1", b"Content-Transfer-Encoding: 8bit", b"",
        b"Gr\xfc\xdfe, and in UTF-8: Gr\xc3\xbc\xc3\x9fe \xe2\x82\xac", b".", b"..", b"...", b".dot", b". dot", b".\t",
        b"",
        b"From here on: ", b"x" * 99_999 + b"y", b".z", b"trailing spaces   ", b"", b".", b"",
    ]
    if attachment:
        data = base64.encodebytes(seed.randbytes(attachment)).rstrip(b"\n")
        body += [
            b"--=_b", b"Content-Type: application/octet-stream", b"Content-Transfer-Encoding: base64", b"", data,
        ]
    return b"\n".join(header + body + [b"--=_b--", b""])


def hash_of(data):
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with Postrider(tmp_path_factory.mktemp("server"), config=SITE) as running:
        yield running


def run(*words, **options):
    result = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=240, **options)
    shown = result.stdout[-3000:].decode(errors="replace")
    assert result.returncode == 0, f"{words[0]}: exit {result.returncode}\n{shown}"


def installed(program):
    found = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if not found:
        pytest.skip(f"{program} is not installed")
    return found


def check_arrival(server, name, sent):
    (mail,) = server.wait_for_mail(name, 1, 120)
    assert mail.startswith(b"Return-Path: <a@client.test>\nDelivered-To: %s@local.test\nReceived: from "
                           % name.encode())
    got = without_trace(mail)
    if hash_of(got) != hash_of(sent):
        at = next((i for i, (a, b) in enumerate(zip(got, sent)) if a != b), min(len(got), len(sent)))
        raise AssertionError(f"{len(sent)} octets sent, {len(got)} arrived; they differ at {at}:\n"
                             f"sent {sent[max(0, at - 80) : at + 80]!r}\ngot  {got[max(0, at - 80) : at + 80]!r}")


@pytest.fixture
def message(request, tmp_path):
    """(name of the client, the message, the file it lies in with LF, the file with CRLF)"""
    name = request.function.__name__.removeprefix("test_")
    content = hard_message(name, 0 if name == "telnet" else ATTACHMENT)
    plain, wire = tmp_path / "message", tmp_path / "message.crlf"
    plain.write_bytes(content)
    wire.write_bytes(content.replace(b"\n", b"\r\n"))
    yield name, content, plain, wire
    plain.unlink()
    wire.unlink()


def test_swaks(server, message):
    name, content, _, wire = message
    wire.write_bytes(wire.read_bytes().removesuffix(b"\r\n"))  # swaks always adds one
    run(installed("swaks"), "--server", "127.0.0.1", "--port", str(server.port), "--helo", "client.test", "--from",
        "a@client.test", "--to", f"{name}@local.test", "--data", f"@{wire}", "--suppress-data", "--timeout", "120")
    check_arrival(server, name, content)


def test_msmtp(server, message):
    name, content, plain, _ = message
    with open(plain, "rb") as file:
        run(installed("msmtp"), "--host=127.0.0.1", f"--port={server.port}", "--domain=client.test",
            "--from=a@client.test", "--auth=off", "--tls=off", "--", f"{name}@local.test", stdin=file)
    check_arrival(server, name, content)


def test_curl(server, message):
    name, content, _, wire = message
    run(installed("curl"), "--silent", "--show-error", f"smtp://127.0.0.1:{server.port}/client.test", "--mail-from",
        "a@client.test", "--mail-rcpt", f"{name}@local.test", "--upload-file", str(wire))
    check_arrival(server, name, content)


def test_smtplib(server, message):
    name, content, _, wire = message
    with smtplib.SMTP("127.0.0.1", server.port, local_hostname="client.test", timeout=120) as client:
        assert client.sendmail("a@client.test", [f"{name}@local.test"], wire.read_bytes(), ["BODY=8BITMIME"]) == {}
    check_arrival(server, name, content)


def test_nodemailer(server, message):
    name, content, plain, _ = message
    node = installed("node")
    search = dict(os.environ, NODE_PATH=f"{os.environ.get('NODE_PATH', '')}:/usr/share/nodejs")
    if subprocess.run([node, "-e", 'require("nodemailer")'], env=search, capture_output=True).returncode != 0:
        pytest.skip("node is here, nodemailer is not")
    run(node, "-e", NODEMAILER, str(server.port), str(plain), "a@client.test", f"{name}@local.test", env=search)
    check_arrival(server, name, content)


@pytest.mark.parametrize(("name", "more"), [("send-mail", ["--help"]), ("newaliases", []), ("newaliases", ["-oi"]), ("sendmail", ["-bi"])])
def test_other_names_of_sendmail(tmp_path, name, more):
    """BSD's mailwrapper calls what sendmail is with "send-mail"; installers of lists call newaliases, which has nothing to do."""
    (tmp_path / name).symlink_to(binary())
    result = subprocess.run([str(tmp_path / name), *more, "-C", "/nonexistent"], stdin=subprocess.DEVNULL, capture_output=True,
                            text=True, timeout=30, env=dict(os.environ, ASAN_OPTIONS="detect_leaks=0"))
    assert result.returncode == 0, result
    assert result.stderr == ""
    assert result.stdout.startswith("Usage: sendmail") == (more == ["--help"])


def test_sendmail(server, message, tmp_path):
    """By its own name, over the daemon's socket; recipients from the header."""
    name, content, plain, _ = message
    (tmp_path / "sendmail").symlink_to(binary())
    with open(plain, "rb") as file:
        run(str(tmp_path / "sendmail"), "-t", "-oi", "-f", "a@client.test", "-C", str(server.config_path), stdin=file,
            env=dict(os.environ, ASAN_OPTIONS="detect_leaks=0"))
    check_arrival(server, name, content)


def test_telnet(server, message, tmp_path):
    """A dialog typed, each command when the reply to the one before is there."""
    name, content, _, _ = message
    shown = tmp_path / "shown"
    with open(shown, "wb") as screen:
        telnet = subprocess.Popen([installed("telnet"), "-E", "127.0.0.1", str(server.port)], stdin=subprocess.PIPE,
                                  stdout=screen, stderr=subprocess.STDOUT)

    def reply(code):
        def is_there():
            lines = [line for line in shown.read_bytes().split(b"\n") if line[:3].isdigit()]
            return lines[-1:] and lines[-1].startswith(code + b" ")
        wait_until(is_there, 60, f"{code} on the screen:\n{shown.read_bytes()[-2000:]!r}\n")

    def typed(data):
        telnet.stdin.write(data)  # telnet itself sends CRLF for a line end
        telnet.stdin.flush()

    try:
        reply(b"220")
        for line, code in ((b"EHLO client.test", b"250"), (b"HELP", b"214"), (b"MAIL FROM:<a@client.test>", b"250"),
                           (b"NOOP", b"250"), (b"HELP RCPT", b"214"), (b"RCPT TO:<telnet@local.test>", b"250"),
                           (b"DATA", b"354")):
            typed(line + b"\n")
            reply(code)
        typed(b"".join(b"." + line if line.startswith(b".") else line for line in content.splitlines(True)) + b".\n")
        reply(b"250")
        typed(b"QUIT\n")
        reply(b"221")
    finally:
        telnet.stdin.close()
        telnet.kill()
        telnet.wait()
    check_arrival(server, name, content)


def test_bdat(server, message):
    """No program of the list sends BDAT: chunks of all sizes, and no CRLF at the end, which a Maildir keeps so."""
    name, content, _, wire = message
    data = wire.read_bytes()[:-2]
    seed = random.Random(1)
    with socket.create_connection(("127.0.0.1", server.port), timeout=120) as s:
        lines = s.makefile("rb")

        def expect(code):
            while (line := lines.readline())[3:4] == b"-":
                pass
            assert line.startswith(code), line

        expect(b"220")
        for command, code in ((b"EHLO client.test", b"250"), (b"MAIL FROM:<a@client.test> BODY=8BITMIME", b"250"),
                              (b"RCPT TO:<bdat@local.test>", b"250")):
            s.sendall(command + b"\r\n")
            expect(code)
        at = 0
        while at < len(data):
            size = min(len(data) - at, seed.choice((1, 2, 3, 100, 4096, 65536, 1 << 20)))
            s.sendall(b"BDAT %d%s\r\n" % (size, b" LAST" if at + size == len(data) else b"") + data[at : at + size])
            expect(b"250")
            at += size
        s.sendall(b"QUIT\r\n")
        expect(b"221")
    check_arrival(server, name, content[:-1])


def test_each_has_arrived_once(server):
    """Runs last, and only says something about the clients that are installed."""
    server.wait_until_empty()
    counts = {name: len(server.mails(name)) for name in CLIENTS}
    print(f"# clients whose message arrived, by hash: {counts}")
    figures = server.figures()
    assert figures["accepted"] == figures["delivered"] == sum(counts.values()) and figures["balanced"] == 1
    assert set(counts.values()) <= {0, 1}
