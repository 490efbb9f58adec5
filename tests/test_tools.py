"""send, sink, load and sendmail: against each other, and against Python's smtplib and email package."""
import email
import email.policy
import fcntl
import hashlib
import json
import os
import pathlib
import signal
import smtplib
import socket
import subprocess
import termios
import threading
import time

import pytest

from harness import wait_until

SOURCE = pathlib.Path(os.environ.get("POSTRIDER_SOURCE", pathlib.Path(__file__).resolve().parent.parent))
POSTRIDER = os.environ.get("POSTRIDER_SANITIZED", SOURCE / "build" / "postrider")


def run(*words, stdin=b"", env=None, timeout=120, **more):
    return subprocess.run([POSTRIDER, *words], input=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          env=os.environ | (env or {}), timeout=timeout, check=False, **more)


class Sink:
    def __init__(self, keep, *words):
        self.keep = pathlib.Path(keep)
        self.process = subprocess.Popen([POSTRIDER, "sink", "--json", "--keep", keep, *words], stdout=subprocess.PIPE)
        said = [self.process.stdout.readline() for _ in range(max(1, words.count("--listen")))]  # one line for each
        self.at = said[0].decode().removeprefix("listening on ").strip()
        self.port = int(self.at.rpartition(":")[2]) if ":" in self.at else None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.stop()

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        return self.end()

    def end(self):
        counts, _ = self.process.communicate(timeout=60)
        assert self.process.returncode == 0
        return json.loads(counts)

    def messages(self):
        return [path.read_bytes() for path in sorted(self.keep.glob("*.eml"))]

    def envelopes(self):
        return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(self.keep.glob("*.json"))]


# ---- sink ----------------------------------------------------------------------------------------------------------

AWKWARD = b"Subject: x\r\n\r\n.\r\n..\r\n.dot\r\n\xff\x80 eight bits\r\n" + b"l" * 100000 + b"\r\n.\r\n\r\n"


def test_sink_keeps_every_byte(tmp_path):
    with Sink(tmp_path / "kept") as sink:
        with smtplib.SMTP("127.0.0.1", sink.port) as client:
            client.sendmail("a@x.test", ["b@y.test", "c@y.test"], AWKWARD)
        assert sink.messages() == [AWKWARD]
        envelope = sink.envelopes()[0]
        assert envelope["mail"].startswith("FROM:<a@x.test>")
        assert envelope["rcpt"] == ["TO:<b@y.test>", "TO:<c@y.test>"]
        assert sink.stop()["recipients"] == 2


def test_sink_takes_only_crlf_dot_crlf_for_the_end(tmp_path):
    content = b"Subject: s\r\n\r\na\n.\nb\r\n.\nc\n.\r\nd\r.\re\r\n"
    whole = (b"EHLO x\r\nMAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\nDATA\r\n" + content.replace(b"\r\n.", b"\r\n..") +
             b".\r\nQUIT\r\n")
    with Sink(tmp_path / "kept") as sink:
        for step in (1, 7, len(whole)):
            with socket.create_connection(("127.0.0.1", sink.port)) as s:
                s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for at in range(0, len(whole), step):
                    s.sendall(whole[at:at + step])
                while s.recv(4096):
                    pass
        assert sink.messages() == [content] * 3


def test_sink_by_bdat_and_into_a_maildir(tmp_path):
    maildir = tmp_path / "md"
    with Sink(tmp_path / "kept", "--maildir", maildir) as sink:
        with smtplib.SMTP("127.0.0.1", sink.port) as client:
            client.ehlo()
            client.docmd("MAIL FROM:<a@x>")
            client.docmd("RCPT TO:<b@y>")
            client.send(b"BDAT 4\r\nS: x" b"BDAT 0\r\n" b"BDAT 6 LAST\r\n\r\n\r\n\r\n")
            assert [client.getreply()[0] for _ in range(3)] == [250, 250, 250]
            client.send(b"BDAT x\r\n")
            assert client.getreply()[0] == 501
        assert sink.messages() == [b"S: x\r\n\r\n\r\n"]
        assert [path.read_bytes() for path in (maildir / "new").iterdir()] == [b"S: x\n\n\n"]


FAULTS = [  # what it is told, the exit code of "send", which message was taken
    ("--refuse", "greeting=554", 69, 0),
    ("--refuse", "ehlo=421", 75, 0),
    ("--refuse", "mail=550", 69, 0),
    ("--refuse", "rcpt=451", 75, 0),
    ("--refuse", "data=554", 69, 0),
    ("--refuse", "dot=452 4.3.1 No room", 75, 0),
    ("--close", "greeting", 75, 0),
    ("--close", "ehlo", 75, 0),
    ("--close", "mail", 75, 0),
    ("--close", "rcpt", 75, 0),
    ("--close", "data", 75, 0),
    ("--close", "content", 75, 0),
    ("--close", "dot", 75, 0),
    ("--reset", "rcpt", 75, 0),
    ("--reset", "content", 75, 0),
    ("--reset", "dot", 75, 0),
    ("--stall", "mail", 75, 0),
    ("--stall", "dot", 75, 0),
    ("--delay", "dot=0.2", 0, 1),
    ("--greylist", None, 75, 0),
    ("--without", "EHLO", 0, 1),
    ("--without", "PIPELINING,CHUNKING,8BITMIME", 0, 1),
    ("--size", "10", 69, 0),
]


@pytest.mark.parametrize("option,value,code,taken", FAULTS, ids=[f"{f[0]} {f[1]}" for f in FAULTS])
def test_each_fault_of_the_sink_as_send_sees_it(tmp_path, option, value, code, taken):
    with Sink(tmp_path / "kept", option, *([value] if value else [])) as sink:
        timeout = "1" if option == "--stall" else "60"
        sent = run("send", "--server", sink.at, "--to", "b@y.test", "--from", "a@x.test", "--timeout", timeout, "--no-bdat")
        assert sent.returncode == code, sent
        assert sink.stop()["messages"] == taken


def test_greylisting_takes_anything_for_a_recipient(tmp_path):
    with Sink(tmp_path / "kept", "--greylist") as sink:
        with smtplib.SMTP("127.0.0.1", sink.port) as client:
            client.ehlo()
            client.docmd("MAIL FROM:x")
            assert [client.docmd("RCPT TO:y")[0] for _ in range(2)] == [450, 250]


def test_shares_are_counted_not_drawn(tmp_path):
    with Sink(tmp_path / "kept", "--refuse", "rcpt=550/20%", "--defer", "dot=50%") as sink:
        with smtplib.SMTP("127.0.0.1", sink.port) as client:
            client.ehlo()
            client.docmd("MAIL FROM:<a@x>")
            assert [client.docmd(f"RCPT TO:<r{i}@y>")[0] for i in range(10)] == [250, 250, 250, 250, 550] * 2
            client.docmd("RSET")
            codes = []
            for _ in range(4):
                client.docmd("MAIL FROM:<a@x>")
                client.docmd("RCPT TO:<b@y>")
                client.docmd("DATA")
                codes.append(client.docmd(".")[0])
            assert codes == [250, 451, 250, 451]


def test_lmtp_answers_for_each_recipient(tmp_path):
    with Sink(tmp_path / "kept", "--lmtp", "--refuse", "dot=550/50%", "--rcpt-max", "4", "--count", "1") as sink:
        sent = run("send", "--lmtp", "--server", sink.at, "--from", "a@x.test",
                   *[word for i in range(5) for word in ("--to", f"r{i}@y.test")])
        assert sent.returncode == 69
        assert b"r4@y.test> was not accepted: 452" in sent.stderr
        assert sent.stderr.count(b"was not accepted: 550") == 2
        assert sink.end()["recipients"] == 2  # it ends of itself


def test_a_chunk_that_lmtp_refuses_is_refused_for_all(tmp_path):
    """There is one reply then, and none for each recipient."""
    with Sink(tmp_path / "kept", "--lmtp", "--refuse", "data=554 5.6.0 Not this") as sink:
        sent = run("send", "--lmtp", "--server", sink.at, "--from", "a@x.test", "--to", "b@y.test", "--to", "c@y.test", "-",
                   stdin=(b"x" * 70 + b"\n") * 10000)
    assert sent.returncode == 69 and sent.stderr.count(b"was not accepted: 554 5.6.0 Not this") == 2, sent


@pytest.mark.parametrize("words", [
    ["--refuse", "rcpt=99"], ["--refuse", "nowhere=550"], ["--defer", "101%"], ["--delay", "dot=x"],
    ["--stall", "dot=1"], ["--without", "FOO"], ["--listen", "nowhere"], ["--nonsense"], ["operand"], ["--count"],
    ["--count", "many"], ["--host", "a\r\nb"],
])
def test_sink_says_what_it_cannot_do(words):
    said = run("sink", *words)
    assert said.returncode == 64 and said.stderr.startswith(b"postrider sink: ") and said.stderr.endswith(b"\n")


# ---- load ----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("words", [[], ["--no-pipelining"], ["--bdat"], ["--per-connection", "3"], ["--rcpt", "7"]],
                         ids=lambda words: " ".join(words) or "plain")
def test_load_counts_what_the_sink_counts(tmp_path, words):
    log = tmp_path / "accepted"
    with Sink(tmp_path / "kept") as sink:
        done = run("load", "--server", sink.at, "--messages", "100", "--sessions", "7", "--size", "3k", "--json",
                   "--to", "r{r}-{n}@y.test", "--log-accepted", log, *words)
        assert done.returncode == 0, done
        figures, counts = json.loads(done.stdout), sink.stop()
        assert figures["accepted"] == figures["tried"] == counts["messages"] == 100
        assert figures["recipients_accepted"] == counts["recipients"]
        assert figures["bytes"] == counts["bytes"] == 100 * 3072
        assert figures["latency_ms"]["p50"] <= figures["latency_ms"]["p99"] <= figures["latency_ms"]["max"]
        if "--per-connection" in words:
            assert counts["sessions"] >= 100 / 3
        ids = {email.message_from_bytes(m)["X-Load-Id"] for m in sink.messages()}
        lines = [line.split() for line in log.read_text(encoding="ascii").splitlines()]
        assert len(ids) == 100 and {line[0] for line in lines} == ids
        assert len({line[1] for line in lines}) == 100  # queue ids


def test_load_tells_every_fate(tmp_path):
    with Sink(tmp_path / "kept", "--refuse", "dot=550/10%", "--refuse", "mail=451/10%", "--reset", "dot/10%",
              "--close", "mail/10%") as sink:
        done = run("load", "--server", sink.at, "--messages", "300", "--sessions", "5", "--json")
        figures, counts = json.loads(done.stdout), sink.stop()
        fates = [figures[name] for name in ("accepted", "deferred", "refused", "lost", "unknown")]
        assert all(fates) and sum(fates) == figures["tried"] == 300
        assert figures["accepted"] == counts["messages"]
        assert done.returncode == 69


def test_load_keeps_going_over_a_restart(tmp_path):
    listen = tmp_path / "sock"
    first = Sink(tmp_path / "one", "--listen", listen, "--count", "20")
    load = subprocess.Popen([POSTRIDER, "load", "--server", listen, "--messages", "60", "--sessions", "3",
                             "--keep-going", "--json"], stdout=subprocess.PIPE)
    before = first.end()["messages"]
    with Sink(tmp_path / "two", "--listen", listen) as second:
        figures = json.loads(load.communicate(timeout=60)[0])
        assert load.returncode == 0
        assert 60 <= figures["accepted"] <= before + second.stop()["messages"]


def test_load_keeps_to_its_rate(tmp_path):
    with Sink(tmp_path / "kept") as sink:
        began = time.monotonic()
        done = run("load", "--server", sink.at, "--messages", "30", "--rate", "20", "--sessions", "10", "--json")
        assert done.returncode == 0 and time.monotonic() - began >= 1.4
        assert json.loads(done.stdout)["rate"] <= 22


def test_sink_tells_how_long_the_way_from_load_was(tmp_path):
    began = time.monotonic_ns()
    with Sink(tmp_path / "kept", "--listen", "127.0.0.1:0", "--listen", tmp_path / "second") as sink:
        for at in (sink.at, tmp_path / "second"):
            done = run("load", "--server", at, "--messages", "40", "--sessions", "3", "--json", "--domains", "5",
                       "--to", "x@d{d}.test")
            assert done.returncode == 0, done
            figures = json.loads(done.stdout)
            assert 0 < figures["dot_ms"]["p50"] <= figures["latency_ms"]["max"]
        with smtplib.SMTP("127.0.0.1", sink.port) as client:
            client.sendmail("a@x.test", ["b@y.test"], AWKWARD)  # not from load: counted, but nobody knows since when
            code, words = client.docmd("HELP")
        counts = json.loads(words)
        assert code == 214 and counts["messages"] == 81
        assert began < counts["first_ns"] < counts["last_ns"] < time.monotonic_ns()
        assert 0 < counts["way_ms"]["p50"] <= counts["way_ms"]["max"] < (counts["last_ns"] - began) / 1e6
        assert {e["rcpt"][0] for e in sink.envelopes()} == {f"TO:<x@d{n}.test>" for n in range(5)} | {"TO:<b@y.test>"}
        assert sink.stop()["way_ms"] == counts["way_ms"]


# ---- send ----------------------------------------------------------------------------------------------------------

def test_send_shows_the_dialog_and_composes(tmp_path):
    picture = tmp_path / "a \"picture\".bin"
    picture.write_bytes(bytes(range(256)) * 400)
    with Sink(tmp_path / "kept") as sink:
        sent = run("send", "--server", sink.at, "--from", "a@x.test", "--to", "b@y.test", "--cc", "c@y.test", "--bcc",
                   "d@y.test", "--subject", "Grüße aus Köln", "--attach", picture, "--attach", __file__, "--header",
                   "X-Color: blue", "--header", "X-Ort: Köln", "--notify", "success,delay", "--envid", "id 1", "-",
                   stdin="Schöne Grüße\n.\n".encode())
        assert sent.returncode == 0
        dialog = sent.stdout.decode().splitlines()
        assert any(line.startswith("> MAIL FROM:<a@x.test>") and "ENVID=id+201" in line for line in dialog)
        assert "> RCPT TO:<d@y.test> NOTIFY=SUCCESS,DELAY" in dialog
        assert any(line.startswith("< 250 2.0.0 Taken") for line in dialog)
        message = email.message_from_bytes(sink.messages()[0], policy=email.policy.default)
        assert message["Subject"] == "Grüße aus Köln" and message["X-Color"] == "blue" and message["X-Ort"] == "Köln"
        assert message["Cc"] == "c@y.test" and b"d@y.test" not in sink.messages()[0]
        text, first, second = message.iter_parts()
        assert text.get_content() == "Schöne Grüße\r\n.\r\n"
        assert first.get_content() == picture.read_bytes() and first.get_filename() == picture.name
        assert second.get_content() == pathlib.Path(__file__).read_bytes()
        assert not any(message.defects for message in message.walk())


def test_send_passes_a_whole_message_on_as_it_is(tmp_path):
    with Sink(tmp_path / "kept") as sink:
        for words in ([], ["--no-bdat"], ["--no-pipelining", "--no-bdat"]):
            assert run("send", "--server", sink.at, "--to", "b@y.test", *words, "-", stdin=AWKWARD).returncode == 0
        assert [hashlib.sha256(m).hexdigest() for m in sink.messages()] == [hashlib.sha256(AWKWARD).hexdigest()] * 3


@pytest.mark.parametrize("words,code", [
    (["--to", "b@y", "--server", "127.0.0.1:1"], 75), (["--to", "b@y", "--server", "no.such.invalid"], (68, 75)),
    (["--server", "127.0.0.1:1"], 64), (["--to", "not an address"], 64), (["--to", "a@b", "/no/such/file"], 66),
    (["--to", "a@b", "--attach", "/no/such/file"], 66), (["--to", "a@b", "one", "two"], 64),
    (["--to", "a@b", "--notify", "often"], 64), (["--to", "a@b", "--notify", "never,delay"], 64),
    (["--to", "a@b", "--header", "no colon"], 64), (["--to", "a@b", "--header", ": no name"], 64),
])
def test_send_says_what_is_wrong(words, code):
    said = run("send", *words)
    assert said.returncode in (code if isinstance(code, tuple) else (code,)) and said.stderr


# ---- sendmail ------------------------------------------------------------------------------------------------------

@pytest.fixture
def submission(tmp_path):
    with Sink(tmp_path / "kept", "--listen", tmp_path / "submission.sock", "--obey") as sink:
        sink.env = {"POSTRIDER_SUBMISSION": sink.at, "HOME": str(tmp_path)}
        sink.home = tmp_path
        yield sink


def sendmail(sink, *words, stdin=b""):
    link = sink.home / "sendmail"
    if not link.exists():
        link.symlink_to(pathlib.Path(POSTRIDER).resolve())
    return subprocess.run([link, *words], input=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          env=os.environ | sink.env, timeout=120, check=False)


def test_sendmail_takes_recipients_from_the_header(submission):
    text = (b"From: Me <me@x.test>\nTo: Ann <ann@y.test>, \"B, C\" <b@y.test>\nCc: group: c@y.test;\n"
            b"Bcc: secret@y.test,\n other@y.test\nSubject: s\n\n.\n..\nbody\n")
    assert sendmail(submission, "-t", "-oi", "-f", "me@x.test", "arg@y.test", stdin=text).returncode == 0
    envelope, message = submission.envelopes()[0], submission.messages()[0]
    assert envelope["rcpt"] == [f"TO:<{name}@y.test>" for name in ("arg", "ann", "b", "c", "secret", "other")]
    assert envelope["mail"].startswith("FROM:<me@x.test>")
    assert b"secret" not in message and b"other@" not in message
    assert message.endswith(b"\r\n\r\n.\r\n..\r\nbody\r\n")
    parsed = email.message_from_bytes(message)
    assert parsed["Date"] and parsed["Message-ID"] and parsed.get_all("From") == ["Me <me@x.test>"]


ENDS = [  # options, input, what the body is
    ([], b"a\n.\nb\n", b"a\r\n"), (["-i"], b"a\n.\nb\n", b"a\r\n.\r\nb\r\n"), (["-oi"], b"a\n.\n", b"a\r\n.\r\n"),
    ([], b"a\n..\n", b"a\r\n..\r\n"), ([], b"a\n.", b"a\r\n"), ([], b"a\r\n.\r\nb", b"a\r\n"), ([], b"", b""),
]


@pytest.mark.parametrize("words,body,want", ENDS, ids=[str(i) for i in range(len(ENDS))])
def test_sendmail_ends_at_a_lone_dot_but_for_i(submission, words, body, want):
    assert sendmail(submission, *words, "-f", "a@x.test", "b@y.test", stdin=b"Subject: s\n\n" + body).returncode == 0
    assert submission.messages()[0].partition(b"\r\n\r\n")[2] == want


OPTIONS = [  # what programs really say
    ["-t", "-i"], ["-ti"], ["-oi", "-oem", "-odb", "-t"], ["-i", "-f", "a@x.test", "--"], ["-fa@x.test", "-Fsomebody"],
    ["-bm", "-r", "a@x.test"], ["-G", "-n", "-U", "-m", "-h", "3", "-L", "tag", "-O", "DeliveryMode=b", "-B8BITMIME"],
    ["-N", "success,failure", "-R", "hdrs", "-V", "id"], ["-Ac", "-oQ/tmp", "-v", "-d0.1", "-X", "/dev/null"],
]


@pytest.mark.parametrize("words", OPTIONS, ids=[" ".join(words) for words in OPTIONS])
def test_sendmail_takes_the_options_of_the_others(submission, words):
    said = sendmail(submission, *words, "b@y.test", stdin=b"To: b@y.test\nSubject: s\n\nx\n")
    assert said.returncode == 0, said
    assert submission.envelopes()[0]["rcpt"][0].startswith("TO:<b@y.test>")


def test_sendmail_qualifies_and_names_the_sender(submission):
    assert sendmail(submission, "-F", "Ännchen", "root", stdin=b"hello\n").returncode == 0
    host = submission.envelopes()[0]["helo"]
    assert submission.envelopes()[0]["rcpt"] == [f"TO:<root@{host}>"]
    message = email.message_from_bytes(submission.messages()[0], policy=email.policy.default)
    assert message["From"].addresses[0].display_name == "Ännchen"
    assert f"FROM:<{message['From'].addresses[0].addr_spec}>" == submission.envelopes()[0]["mail"].split()[0]
    assert sendmail(submission, "-f", "<>", "root", stdin=b"hello\n").returncode == 0
    assert submission.envelopes()[1]["mail"].startswith("FROM:<>")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts another /etc/passwd")
@pytest.mark.parametrize("words, name", [(["sendmail"], "EXAMPLE\\anna"), (["send", "--server", "SINK", "--to"], "EXAMPLE\\anna"),
                                         (["sendmail", "-f", "\"a@b\""], None)])
def test_a_login_name_that_wants_quotes_gets_them(submission, words, name):
    """As winbind and sssd have them. The sink takes anything; a real server says 501 to a bare backslash."""
    passwd = submission.home / "passwd"
    passwd.write_text(f"{name or 'root'}:x:0:0::/:/bin/sh\n")
    said = subprocess.run(["unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc/passwd && exec "$@"', passwd, POSTRIDER,
                           *[submission.at if word == "SINK" else word for word in words], "b@y.test"], input=b"Subject: s\n\nx\n",
                          capture_output=True, env=os.environ | submission.env, timeout=60, check=False)
    assert said.returncode == 0, said
    (envelope,) = submission.envelopes()
    local = '"EXAMPLE\\\\anna"' if name else '"a@b"'
    assert envelope["mail"].split()[0] == f"FROM:<{local}@{envelope['helo'].lower()}>"


def test_sendmail_keeps_what_was_refused(submission):
    said = sendmail(submission, "-f", "a@x.test", "550-x@y.test", "b@y.test", stdin=b"Subject: s\n\nbody\n")
    assert said.returncode == 67 and b"<550-x@y.test> was refused: 550" in said.stderr
    saved = list(submission.home.glob("postrider-unsent-*"))
    assert len(saved) == 1 and saved[0].name.encode() in said.stderr
    assert b"X-Postrider-Unsent-To: <550-x@y.test>" in saved[0].read_bytes() and b"body" in saved[0].read_bytes()
    assert submission.envelopes()[0]["rcpt"] == ["TO:<b@y.test>"]


LONG = "x" * 1100 + "@y.test"


@pytest.mark.parametrize("words, header, code, lost", [
    (["-t", "one@y.test"], "Bcc: a@y.test, bad<\nBcc: c@y.test\n", 67, ["one@y.test", "a@y.test", "bad<", "c@y.test"]),
    (["b@y.test,", "two at once", "c@y.test"], "", 67, ["b@y.test", "two at once", "c@y.test"]),
    (["-t"], f"Bcc: a@y.test, {LONG}, c@y.test\n", 67, ["a@y.test", LONG, "c@y.test"]),
    (["-t", "-f", LONG], "Bcc: a@y.test\n", 64, ["a@y.test"]),
], ids=["bad in Bcc", "bad word", "too long", "sender too long"])
def test_sendmail_keeps_all_of_what_it_refuses_itself(submission, words, header, code, lost):
    said = sendmail(submission, *words, stdin=f"{header}Subject: s\n\nbody\n".encode())
    assert said.returncode == code and b"nothing was sent" in said.stderr, said
    (saved,) = submission.home.glob("postrider-unsent-*")
    text = saved.read_bytes().decode()
    assert str(saved) in said.stderr.decode() and submission.messages() == []
    assert [line.partition(": ")[2] for line in text.splitlines() if line.startswith("X-Postrider-Unsent-To")] == [f"<{a}>" for a in lost]
    assert header.replace("\n", "\r\n") in text and text.endswith("\r\n\r\nbody\n")


@pytest.mark.parametrize("words,stdin,code", [
    (["-t"], b"Subject: nobody\n\n", 64), ([], b"x", 64), (["-t"], b"To: not an address at all\n\n", 67),
    (["-bd"], b"", 64), (["-N", "often", "b@y"], b"", 64), (["-N", "never,delay", "b@y"], b"", 64), (["-R", "x", "b@y"], b"", 64), (["-Z"], b"", 64),
    (["-f"], b"", 64),
])
def test_sendmail_refuses_what_it_cannot_do(submission, words, stdin, code):
    said = sendmail(submission, *words, stdin=stdin)
    assert said.returncode == code and said.stderr
    assert submission.messages() == []


def test_sendmail_does_nothing_where_nothing_is_to_do(submission):
    for words in (["-bi"], ["-I"], ["-q"], ["-q30m"]):
        assert sendmail(submission, *words).returncode == 0
    assert submission.messages() == []


def test_sendmail_waits_for_the_daemon_and_tries_again(tmp_path):
    at = tmp_path / "submission.sock"
    results = []
    env = {"POSTRIDER_SUBMISSION": str(at), "HOME": str(tmp_path)}
    threads = [threading.Thread(target=lambda i=i: results.append(
        run("sendmail", "-f", "a@x.test", f"{i}@y.test", "z@y.test", stdin=b"Subject: s\n\nx\n", env=env)))
        for i in range(10)]
    for thread in threads:
        thread.start()
    with Sink(tmp_path / "kept", "--listen", at, "--refuse", "rcpt=451/30%", "--close", "mail/20%", "--refuse",
              "greeting=421/20%", "--refuse", "dot=452/20%") as sink:
        for thread in threads:
            thread.join()
        assert [r.returncode for r in results] == [0] * 10, results
        counts = sink.stop()
        assert counts["recipients"] == 20  # each once
        assert counts["faults"] > 0


def test_sendmail_says_where_it_left_the_message(tmp_path):
    env = {"POSTRIDER_SUBMISSION": str(tmp_path / "nobody.sock"), "HOME": str(tmp_path)}
    said = run("sendmail", "--wait", "0.5", "-f", "a@x.test", "b@y.test", stdin=b"Subject: s\n\nbody\n", env=env)
    saved = list(tmp_path.glob("postrider-unsent-*"))
    assert said.returncode == 75 and len(saved) == 1 and str(saved[0]).encode() in said.stderr
    assert b"X-Postrider-Unsent-To: <b@y.test>" in saved[0].read_bytes() and b"body" in saved[0].read_bytes()
    assert saved[0].stat().st_mode & 0o777 == 0o600
    talk = run("sendmail", "--wait=0.2", "-bs", stdin=b"QUIT\r\n", env=env)
    assert talk.returncode == 75 and talk.stdout.startswith(b"421 ")


def test_sendmail_with_more_recipients_than_a_transaction_takes(tmp_path):
    """Its patience is for a server that is not there, not for one that takes a few at a time."""
    header = b"To: " + b",\n ".join(b"u%d@y.test" % i for i in range(20000)) + b"\nSubject: s\n\nx\n"
    at = tmp_path / "submission.sock"
    env = {"POSTRIDER_SUBMISSION": str(at), "HOME": str(tmp_path)}
    lost = run("sendmail", "--wait", "0.1", "-t", "-f", "a@x.test", stdin=header, env=env)
    (saved,) = tmp_path.glob("postrider-unsent-*")
    assert lost.returncode == 75 and saved.read_bytes().count(b"X-Postrider-Unsent-To: <u") == 20000
    with Sink(tmp_path / "kept", "--listen", at, "--rcpt-max", "500", "--limits") as sink:
        assert run("sendmail", "--wait", "5", "-t", "-f", "a@x.test", stdin=header, env=env).returncode == 0
        counts = sink.stop()
    assert (counts["messages"], counts["recipients"], counts["refused_recipients"]) == (40, 20000, 0)


@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
def test_sendmail_speaks_smtp_for_a_program(submission, end):
    dialog = b"EHLO x\nMAIL FROM:<a@x>\nRCPT TO:<b@y>\nDATA\nS: s\n\nx\n.\nQUIT\n".replace(b"\n", end)
    said = sendmail(submission, "-bs", stdin=dialog)
    assert said.returncode == 0
    codes = [line[:3] for line in said.stdout.splitlines() if line[3:4] == b" "]
    assert codes == [b"220", b"250", b"250", b"250", b"354", b"250", b"221"]
    assert submission.messages() == [b"S: s\r\n\r\nx\r\n"]


def test_sendmail_speaks_smtp_for_a_program_that_writes_byte_by_byte(tmp_path):
    """What ends its lines is known from the first one, though its CR and LF are read apart."""
    theirs, ours = os.pipe()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "submission.sock"))
        listener.listen()
        with subprocess.Popen([POSTRIDER, "sendmail", "-bs", "--socket", tmp_path / "submission.sock"], stdin=theirs,
                              stdout=subprocess.PIPE) as process:
            with listener.accept()[0] as server:
                for part in (b"EHLO x\r", b"\nQUIT\r\n"):
                    os.write(ours, part)
                    wait_until(lambda: fcntl.ioctl(theirs, termios.FIONREAD, bytes(4)) == bytes(4))
                os.close(ours)
                os.close(theirs)
                assert b"".join(iter(lambda: server.recv(100), b"")) == b"EHLO x\r\nQUIT\r\n"
            assert process.wait(60) == 0


@pytest.mark.parametrize("verb", ["send", "sink", "load", "sendmail"])
def test_help_has_an_example(verb):
    said = run(verb, "--help")
    assert said.returncode == 0 and b"Usage: " in said.stdout and not said.stderr
