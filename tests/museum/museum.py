"""
The world of the museum: a daemon, a host that does what an exhibit tells it, one that takes everything, a name server that
lies, and a canary: files beside the daemon that nothing may touch.

Each exhibit is a function test_ID_... ; the table at the top of its file has a row for it: id, the CVE or advisory, the idea,
what must be true with us. test_museum_catalogue.py holds table and functions together.
"""
import contextlib
import hashlib
import json
import os
import pathlib
import re
import socket
import struct
import subprocess
import threading

from harness import Postrider, free_port, wait_until, without_trace
from peers import ScriptedServer

SITE = """
hostname mx.local.test
state {state}
listen mx outside {{ address 127.0.0.1:{port}; max-size 4MiB }}
listen mx trusted {{ address 127.0.0.1:{trusted}; relay from 127.0.0.1; line-ends repair }}
domain local.test {{
    mailbox ok u1 u2 u3 victim
    subaddress +
    alias postmaster -> ok
    alias list -> u1 u2
    alias twice -> list list u1
    forward old -> somebody@far.test
    deliver maildir {mail}/{{domain}}/{{local}}
}}
domain catch.test {{ mailbox all; alias postmaster -> all; catch-all -> all; deliver maildir {mail}/{{domain}}/{{local}} }}
route hostile.test {{ via smtp://127.0.0.1:{hostile}; tls off; connect-wait 5s; reply-wait 5s }}
route lmtp.test {{ via lmtp://127.0.0.1:{hostile}; tls off; connect-wait 5s; reply-wait 5s }}
route .lies.test {{ direct; tls off; connect-wait 1s; reply-wait 2s; port {hostile} }}
route .open.test {{ direct; tls off; connect-wait 1s; reply-wait 2s; port {closed}; allow-private 127.0.0.0/8 }}
route default {{ via smtp://127.0.0.1:{far}; tls off }}
retry 1s for 1d {{ delay-notice off }}
resolver {{ forward 127.0.0.1:{names} }}
"""


def without_ids(mail):
    """Queue ids are random: three letters of a mark may stand in one."""
    return re.sub(rb"\b[0-9a-z]{26}\b", b"", mail)


class World:
    def __init__(self, folder):
        self.folder = folder
        self.hostile = ScriptedServer()
        self.far = ScriptedServer()
        self.names = Names()
        self.trusted, self.closed = free_port(), free_port()
        self.server = Postrider(folder / "server", SITE, trusted=self.trusted, closed=self.closed, hostile=self.hostile.port,
                                far=self.far.port, names=self.names.port,
                                environment={"ASAN_EXTRA": "quarantine_size_mb=1"})
        self.outside = folder / "outside"
        (self.outside / "directory").mkdir(parents=True)
        (self.outside / "file").write_text("canary\n")
        (self.outside / "secret").write_text("TOP-SECRET-LINE\n")
        self.before = self.outside_now()

    def __enter__(self):
        self.hostile.__enter__()
        self.far.__enter__()
        self.names.start()
        self.server.__enter__()
        self.pids = self.server.role_pids()
        return self

    def __exit__(self, *error):
        try:
            self.server.__exit__(*error)
        finally:
            self.names.stop()
            self.far.__exit__(*error)
            self.hostile.__exit__(*error)

    def outside_now(self):
        """What the canary looks like: every file's mode and bytes."""
        return {str(path.relative_to(self.outside)): (path.lstat().st_mode,
                path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest()) for path in self.outside.rglob("*")}

    def look(self):
        """After each exhibit."""
        self.hostile.answers = {}
        assert self.server.process.poll() is None, "the daemon ended"
        assert self.server.role_pids() == self.pids, "a role ended"
        assert not self.server.crashes(), self.server.crashes()
        assert self.outside_now() == self.before, "a file outside was touched"

    def end(self):
        self.server.wait_until_empty(120)
        status = self.server.status()
        assert status["figures"]["balanced"] == 1
        assert [role["restarts"] for role in status["roles"]] == [0] * len(status["roles"])

    # ---- sending and looking ----

    def session(self, port=None, **options):
        return Session(port or self.server.port, **options)

    def relay(self, to, sender="a@client.test", content=b"Subject: x\r\n\r\nx\r\n", mail=b"", rcpt=b""):
        """A message from a trusted client; its queue id."""
        with self.session(self.trusted) as s:
            s.begin(to, sender=sender, mail=mail, rcpt=rcpt)
            code, text = s.content(content)
            assert code == 250, text
            return re.search(r"\b[0-9a-z]{26}\b", text)[0]

    def count(self, mailbox="ok", domain="local.test"):
        return len(self.server.mails(mailbox, domain))

    def arrives(self, mark, mailbox="ok", domain="local.test", seconds=60):
        """The one message in that mailbox that holds these bytes."""
        def found():
            return [mail for mail in self.server.mails(mailbox, domain) if mark in without_ids(mail)]
        wait_until(found, seconds, f"{mark} for {mailbox}@{domain}; log:\n{self.server.log_text()[-3000:]}\n")
        (mail,) = found()
        return mail

    def arrives_far(self, mark, seconds=60):
        """(mail line, [rcpt lines], content) at the host that takes everything. The mark is a word: an id may have its letters within."""
        word = re.compile(rb"(?<![0-9A-Za-z])" + re.escape(mark) + (rb"(?![0-9A-Za-z])" if mark[-1:].isalnum() else b""))
        def found():
            return [message for message in self.far.messages if word.search(message[2]) or mark.decode() in message[0]]
        wait_until(found, seconds, f"{mark} at the far host; log:\n{self.server.log_text()[-3000:]}\n")
        (message,) = found()
        return message

    def shown(self, queue_id):
        """`queue show`; None: it is not in the queue."""
        said = self.server.cli("queue", "show", queue_id, "--json", "--config", str(self.server.config_path), check=False)
        assert said.returncode in (0, 1), said
        return json.loads(said.stdout) if said.returncode == 0 else None

    def tried(self, queue_id, seconds=60):
        """Its first recipient once it has been tried and put off; None: the message is gone."""
        def look():
            shown = self.shown(queue_id)
            first = shown and shown["recipients"][0]
            return not shown or (first["state"] == "pending" and (first["attempts"] > 0 or first["reason"])) and first
        first = wait_until(look, seconds, f"an attempt at {queue_id}")
        return None if first is True else first

    def deferred(self, queue_id, seconds=60):
        first = self.tried(queue_id, seconds)
        assert first, f"{queue_id} is gone; log:\n{self.server.log_text()[-2000:]}"
        return first

    def forget_connections(self):
        """The hostile host hangs up: the next mail to it begins with a greeting."""
        with self.hostile.lock:
            for session in self.hostile.open:
                with contextlib.suppress(OSError):  # it was reset just now
                    session.shutdown(socket.SHUT_RDWR)
        wait_until(lambda: not self.hostile.open, 30, "no connection")

    def gone(self, queue_id, seconds=60):
        wait_until(lambda: queue_id not in {m["id"] for m in self.server.queue()}, seconds, f"the end of {queue_id}")

    def remove(self, queue_id):
        self.server.cli("queue", "rm", queue_id, "--config", str(self.server.config_path))
        self.gone(queue_id)

    def still_serves(self):
        """A plain message goes in and comes out."""
        before = self.count("victim")
        with self.session() as s:
            s.begin("victim@local.test")
            assert s.content(b"Subject: plain\r\n\r\nplain\r\n")[0] == 250
        wait_until(lambda: self.count("victim") == before + 1, 60, "a plain message")

    def rss(self):
        """Resident bytes of all roles."""
        return sum(int(re.search(r"RssAnon:\s*(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text(encoding="ascii"))[1])
                   for pid in self.pids.values()) * 1024

    def sendmail(self, *words, stdin=b"Subject: s\n\nbody\n", environment=None):
        """`sendmail WORDS` as a program of this machine."""
        link = self.folder / "sendmail"
        if not link.exists():
            link.symlink_to(self.server.binary)
        return subprocess.run([link, *words], input=stdin, capture_output=True, timeout=120, check=False, cwd=self.folder,
                              env={**os.environ, "POSTRIDER_SUBMISSION": str(self.server.state / "submission.sock"),
                                   "HOME": str(self.folder), "ASAN_OPTIONS": "detect_leaks=0", **(environment or {})})


class Session:
    """An SMTP client that says anything."""

    def __init__(self, port, hello=b"EHLO client.test\r\n", source="127.0.0.1"):
        self.socket = socket.create_connection(("127.0.0.1", port), 60, (source, 0))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.lines = self.socket.makefile("rb")
        self.greeting = self.reply()
        if hello:
            assert self.say(hello)[0] == 250

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.lines.close()
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def reply(self):
        """(code, text); (0, "") at the end of the connection."""
        text = []
        while True:
            try:
                line = self.lines.readline()
            except ConnectionError:
                line = b""
            if not line:
                return 0, ""
            assert re.fullmatch(rb"[2-5][0-9][0-9][ -][\x20-\x7e]*\r\n", line), line
            text.append(line[4:-2].decode())
            if line[3:4] == b" ":
                return int(line[:3]), "\n".join(text)

    def say(self, data):
        self.send(data)
        return self.reply()

    def codes(self, data, count):
        """The codes of so many replies to one write."""
        self.send(data)
        return [self.reply()[0] for _ in range(count)]

    def begin(self, *to, sender="a@client.test", mail=b"", rcpt=b""):
        code, text = self.say(b"MAIL FROM:<" + as_bytes(sender) + b">" + mail + b"\r\n")
        assert code == 250, text
        for recipient in to or ("ok@local.test",):
            code, text = self.say(b"RCPT TO:<" + as_bytes(recipient) + b">" + rcpt + b"\r\n")
            assert code in (250, 251), text

    def content(self, content):
        """By DATA, dots hidden, as bytes otherwise; the reply to its end."""
        code, text = self.say(b"DATA\r\n")
        if code != 354:
            return code, text
        return self.say(re.sub(rb"(?m)^\.", b"..", content) + b".\r\n")

    def is_idle(self):
        """No transaction is open, and the next reply is to the next command."""
        return self.say(b"RCPT TO:<ok@local.test>\r\n")[0] == 503 and self.say(b"NOOP\r\n")[0] == 250


def as_bytes(text):
    return text if isinstance(text, bytes) else text.encode()


def chunk(data, last=False):
    return b"BDAT %d%s\r\n" % (len(data), b" LAST" if last else b"") + data


def body_of(mail):
    return without_trace(mail)


# ---- a name server that says what an exhibit wants -----------------------------------------------------------------------

A, CNAME, PTR, MX, AAAA = 1, 5, 12, 15, 28


def wire_name(name):
    """Labels from text, or as they are from a list of bytes."""
    labels = name if isinstance(name, list) else [label.encode() for label in name.rstrip(".").split(".")]
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def record(owner, kind, data, ttl=1):
    return owner + struct.pack(">HHIH", kind, 1, ttl, len(data)) + data


HERE = b"\xc0\x0c"  # a pointer to the question's name


class Names:
    """On a port of loopback, UDP and TCP. answers: {(name, type): [records] or bytes behind the header's id}."""

    def __init__(self):
        self.answers, self.asked = {}, []
        while True:
            self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.udp.bind(("127.0.0.1", 0))
            self.port = self.udp.getsockname()[1]
            self.tcp = socket.socket()
            self.tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                self.tcp.bind(("127.0.0.1", self.port))
                self.tcp.listen(16)
                return
            self.udp.close()
            self.tcp.close()

    def start(self):
        for serve in (self.serve_udp, self.serve_tcp):
            threading.Thread(target=serve, daemon=True).start()

    def stop(self):
        self.udp.close()
        self.tcp.close()

    def answer(self, query):
        at, labels = 12, []
        while query[at]:
            labels.append(query[at + 1 : at + 1 + query[at]].decode("latin-1").lower())
            at += 1 + query[at]
        kind = int.from_bytes(query[at + 1 : at + 3], "big")
        name, question = ".".join(labels), query[12 : at + 5]
        self.asked.append((name, kind))
        answer = self.answers.get((name, kind))
        if isinstance(answer, bytes):
            return query[:2] + answer
        known = any(n == name for n, _ in self.answers)
        flags = 0x8180 if answer is not None or known else 0x8183
        return query[:2] + struct.pack(">HHHHH", flags, 1, len(answer or []), 0, 0) + question + b"".join(answer or [])

    def raw(self, name, kind, records, flags=0x8180, answers=None):
        """Sets an answer whose count of records and their bytes need not agree."""
        question = wire_name(name) + struct.pack(">HH", kind, 1)
        count = len(records) if answers is None else answers
        self.answers[name, kind] = struct.pack(">HHHHH", flags, 1, count, 0, 0) + question + b"".join(records)

    def serve_udp(self):
        with contextlib.suppress(OSError):
            while True:
                query, client = self.udp.recvfrom(4096)
                answer = self.answer(query)
                if len(answer) > 1200:
                    answer = answer[:2] + struct.pack(">HHHHH", 0x8380, 1, 0, 0, 0) + query[12:query.index(b"\0", 12) + 5]
                self.udp.sendto(answer, client)

    def serve_tcp(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.tcp.accept()
                threading.Thread(target=self.serve_one, args=(client,), daemon=True).start()

    def serve_one(self, client):
        with contextlib.suppress(OSError, IndexError), client, client.makefile("rb") as data:
            while len(head := data.read(2)) == 2:
                answer = self.answer(data.read(int.from_bytes(head, "big")))
                client.sendall(len(answer).to_bytes(2, "big") + answer)
