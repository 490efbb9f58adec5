"""Next hops and clients that are not the daemon under test: `postrider sink`, an SMTP server that follows a script, a name
server for a network namespace of our own, and other people's MTAs as Debian packages them.
"""
import contextlib
import ctypes
import fcntl
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time
import typing

import pytest

from harness import binary, free_port, wait_until


def can_connect(port, host="127.0.0.1"):
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=5):
        return True
    return False


class Client:
    """A client that says what it is told to, and reads replies, of which it checks the form."""

    def __init__(self, port, buffers=0, greet=True):
        self.socket = socket.socket()
        if buffers:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffers)
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffers)
        self.socket.settimeout(60)
        self.socket.connect(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.here = b""
        if greet:
            assert self.reply()[0] == 220
            self.say(b"EHLO client.test\r\n", 250)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def reply(self):
        """(code, text); (0, "") at the end of the connection."""
        lines = []
        while True:
            while b"\r\n" not in self.here:
                try:
                    data = self.socket.recv(65536)
                except (ConnectionResetError, BrokenPipeError):
                    data = b""
                if not data:
                    return 0, ""
                self.here += data
            line, self.here = self.here.split(b"\r\n", 1)
            assert re.match(rb"[2-5][0-9][0-9]([ -]|$)", line), line
            assert len(line) <= 510
            lines.append(line[4:].decode())
            if line[3:4] != b"-":
                return int(line[:3]), "\n".join(lines)

    def say(self, data, code):
        self.send(data)
        got, text = self.reply()
        assert got == code, (data[:80], got, text)
        return text

    def begin(self, to=b"ok@local.test"):
        self.say(b"MAIL FROM:<a@client.test>\r\n", 250)
        self.say(b"RCPT TO:<" + to + b">\r\n", 250)


class Sink:
    """`postrider sink OPTIONS` on a port of its own; keeps what it gets."""

    def __init__(self, folder, *options, port=None, host="127.0.0.1"):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.options = options
        self.host = host
        self.port = port or free_port()
        self.process = None

    def __enter__(self):
        self.process = subprocess.Popen(
            [str(binary("RELEASE")), "sink", "--listen", f"{self.host}:{self.port}", "--keep", str(self.folder), "--quiet",
             *self.options],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=open(self.folder / "log", "ab"))
        wait_until(lambda: self.process.poll() is not None or can_connect(self.port, self.host), 30, "a listening sink")
        assert self.process.poll() is None, (self.folder / "log").read_text()
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(20)

    def envelopes(self):
        """{"mail": "FROM:<...> ...", "rcpt": [...], "content": bytes, ...} of each message, in order."""
        found = []
        for path in sorted(self.folder.glob("*.json")):
            content = path.with_suffix(".eml")
            with contextlib.suppress(ValueError, FileNotFoundError):  # it is just being written
                found.append(dict(json.loads(path.read_text()), content=content.read_bytes()))
        return found


class Tool:
    """`postrider load` or `postrider sink` beside the daemon; ended by the block if it has not ended."""

    def __init__(self, folder, name, *words):
        self.output = pathlib.Path(folder) / f"{name}.out"
        with open(self.output, "wb") as out:
            self.process = subprocess.Popen(
                [str(binary("RELEASE")), *words], stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                env=dict(os.environ, ASAN_OPTIONS="detect_leaks=0"),
            )

    def end(self, seconds=60):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.wait(seconds)
        return self.output.read_text(encoding="utf-8", errors="replace")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def sink_at(folder, port, maildir):
    """`postrider sink` that delivers into a Maildir."""
    sink = Tool(folder, "sink", "sink", "--listen", f"127.0.0.1:{port}", "--maildir", str(maildir), "--quiet")
    wait_until(lambda: can_connect(port), 30, "a listening sink")
    return sink


def accepted_counts(path):
    """{X-Load-Id: how many recipients were taken} of what got its 250."""
    lines = (line.split() for line in pathlib.Path(path).read_text(encoding="utf-8").splitlines())
    return {words[0]: int(words[2]) for words in lines}


class ScriptedServer:
    """
    An SMTP server on loopback that answers as `answers` says: {"RCPT": reply or function(line, server) -> reply}. Keys are
    GREETING, EHLO, MAIL, RCPT, DATA, DOT, RSET, QUIT. A reply is text without its line end; CLOSE closes, RESET resets,
    STALL says nothing more until the client has gone, "" says nothing and goes on. What is not named is accepted; CONTENT is
    asked after the first line of it. A function that returns None accepts. tls: an ssl.SSLContext; the server then offers STARTTLS.
    """

    CLOSE = object()
    RESET = object()
    STALL = object()

    def __init__(self, answers=None, extensions=("PIPELINING", "8BITMIME", "DSN", "ENHANCEDSTATUSCODES"), port=0,
                 host="127.0.0.1", tls=None):
        self.answers = dict(answers or {})
        self.extensions = extensions
        self.tls = tls
        self.lock = threading.Lock()
        self.messages = []     # (mail line, [rcpt lines], content) of those that were accepted
        self.commands = []     # all lines, each session's in order
        self.sessions = 0
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.listener = socket.socket(family)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind((host, port))
        # Exim comes with hundreds at once. Whom a full backlog drops believes that he is connected, and waits for a greeting.
        self.listener.listen(4096)
        self.port = self.listener.getsockname()[1]
        self.open = set()
        self.thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        with self.lock:
            for s in self.open:
                with contextlib.suppress(OSError):
                    s.shutdown(socket.SHUT_RDWR)

    def _accept(self):
        while True:
            try:
                s, _ = self.listener.accept()
            except OSError:
                return
            with self.lock:
                self.open.add(s)
                self.sessions += 1
            threading.Thread(target=self._run, args=(s,), daemon=True).start()

    def _run(self, s):
        try:
            with contextlib.suppress(OSError, ValueError):
                self._session(s, s.makefile("rb"))
        finally:
            with self.lock:
                self.open.discard(s)
            s.close()

    def _decide(self, s, name, line, default):
        """What is to be said; CLOSE, RESET and STALL end the session here."""
        answer = self.answers.get(name, default)
        if callable(answer):
            answer = answer(line, self)
            answer = default if answer is None else answer
        if answer is self.CLOSE:
            raise ValueError("closed by the script")
        if answer is self.RESET:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            raise ValueError("reset by the script")
        if answer is self.STALL:
            while s.recv(65536):
                pass
            raise ValueError("stalled by the script")
        return answer

    def _say(self, s, answer):
        if answer:
            s.sendall(answer.encode() + b"\r\n")
        if answer.startswith("421"):
            raise ValueError("closed by 421")

    def _answer(self, s, name, line, default):
        answer = self._decide(s, name, line, default)
        self._say(s, answer)
        return answer

    def _session(self, s, lines):
        if not self._answer(s, "GREETING", "", "220 scripted.test ESMTP").startswith("220"):
            pass  # a client says QUIT after any other greeting
        mail, rcpt = None, []
        while line := lines.readline().decode("latin-1").rstrip("\r\n"):
            verb = line.split(" ")[0].upper()
            with self.lock:
                self.commands.append(line)
            if verb in ("EHLO", "LHLO"):
                offers_tls = self.tls and not isinstance(s, ssl.SSLSocket)
                words = ["scripted.test", *self.extensions, *(["STARTTLS"] if offers_tls else [])]
                text = "\r\n".join(f"250{'-' if i + 1 < len(words) else ' '}{word}" for i, word in enumerate(words))
                self._answer(s, "EHLO", line, text)
            elif verb == "HELO":
                self._answer(s, "HELO", line, "250 scripted.test")
            elif verb == "MAIL":
                good = self._answer(s, "MAIL", line, "250 2.1.0 ok")[0] == "2"
                mail, rcpt = (line if good else None), []
            elif verb == "RCPT":
                if self._answer(s, "RCPT", line, "250 2.1.5 ok" if mail else "503 5.5.1 MAIL first")[0] == "2":
                    rcpt.append(line)
            elif verb == "DATA":
                if self._answer(s, "DATA", line, "354 go on" if rcpt else "503 5.5.1 RCPT first")[0] == "3":
                    self._content(s, lines, mail, rcpt)
                mail, rcpt = None, []
            elif verb == "RSET":
                mail, rcpt = None, []
                self._answer(s, "RSET", line, "250 2.0.0 ok")
            elif verb == "STARTTLS" and self.tls:
                self._answer(s, "STARTTLS", line, "220 2.0.0 go on")
                s = self.tls.wrap_socket(s, server_side=True)
                lines = s.makefile("rb")
            elif verb == "QUIT":
                self._answer(s, "QUIT", line, "221 2.0.0 bye")
                if isinstance(s, ssl.SSLSocket):
                    s.unwrap().close()
                return
            else:
                self._answer(s, verb, line, "500 5.5.2 what?")

    def _content(self, s, lines, mail, rcpt):
        content = bytearray(lines.readline())
        if content == b".\r\n":
            raise ValueError("no content at all")
        self._answer(s, "CONTENT", "", "")
        while (line := lines.readline()) != b".\r\n":
            if not line:
                raise ValueError("the client has gone")
            content += line.removeprefix(b".")
        answer = self._decide(s, "DOT", "", "250 2.0.0 taken")
        if answer[:1] == "2":
            with self.lock:  # first: whoever hears of the reply may look at once
                self.messages.append((mail, rcpt, bytes(content)))
        self._say(s, answer)


class Witness(ScriptedServer):
    """
    A next hop that takes everything and keeps only who, what and when of it: a Copy for each recipient of each message
    whose content it had whole, whatever became of its reply.
    """

    def __init__(self):
        super().__init__()
        self.copies = []
        self.client = threading.local()  # each session has a thread of its own

    def _session(self, s, lines):
        self.client.port = s.getpeername()[1]  # later it may have been reset
        super()._session(s, lines)

    def _content(self, s, lines, _, rcpt):
        queue_id = name = b""
        while (line := lines.readline()) != b".\r\n":
            if not line:
                raise ValueError("the client has gone")
            if not queue_id and (found := RECEIVED_ID.match(line)):
                queue_id = found[1]
            elif not name and line.startswith(b"X-Load-Id: "):
                name = line[11:].strip()
        when = time.time()
        with self.lock:
            for line in rcpt:
                address = line.split("<")[1].split(">")[0]
                self.copies.append(Copy(queue_id.decode(), address, name.decode(), when, self.client.port))
        s.sendall(b"250 2.0.0 taken\r\n")


class Copy(typing.NamedTuple):
    """One recipient's copy of a message that arrived somewhere."""
    queue_id: str   # Postrider's, of its Received field
    recipient: str
    name: str       # its X-Load-Id
    born: float
    port: int       # of the client's end of the connection; 0: it came to a Maildir


RECEIVED_ID = re.compile(rb"\tid ([0-9a-z]{26})\b")


def copies_in(maildir, recipient):
    """What lies in a Maildir, as Copies."""
    found, new = [], pathlib.Path(maildir) / "new"
    for entry in os.scandir(new) if new.is_dir() else ():
        with open(entry.path, "rb") as mail:
            head = mail.read(4096)
        queue_id, name = RECEIVED_ID.search(head), re.search(rb"^X-Load-Id: (\S+)", head, re.M)
        found.append(Copy(queue_id[1].decode(), recipient, name[1].decode() if name else "", entry.stat().st_mtime, 0))
    return found


def ports_of(pid):
    """The local TCP ports (IPv4) of a process, as the kernel lists them."""
    inodes = set()
    for entry in os.scandir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            inodes.add(os.readlink(entry.path))
    rows = [line.split() for line in pathlib.Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]]
    return {int(row[1].split(":")[1], 16) for row in rows if f"socket:[{row[9]}]" in inodes}


# ---- a network of our own ------------------------------------------------------------------------------------------------

CLONE_NEWNET = 0x40000000
NETWORKS = ("192.0.2.0/24", "198.51.100.0/24", "2001:db8::/32")  # all of them are this machine, inside
NOWHERE = "203.0.113.0/24"                                        # packets there are never answered


@contextlib.contextmanager
def own_network():
    """
    This thread, and what it starts, live in a network namespace where documentation addresses are local. Skips the test
    where that is not allowed.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    outside = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        if libc.unshare(CLONE_NEWNET) != 0:
            pytest.skip(f"no network namespaces here: {os.strerror(ctypes.get_errno())}")
        try:
            commands = ["link set lo up", "link add nowhere type veth peer name nobody", "link set nobody up", "link set nowhere arp off",
                        "link set nowhere up", f"route add {NOWHERE} dev nowhere"]
            commands += [f"route add local {network} dev lo" for network in NETWORKS]
            commands += ["addr add 2001:db8::6/128 dev lo nodad"]  # to bind to one, IPv6 wants it said
            for command in commands:
                subprocess.run(["ip", *command.split()], check=True, capture_output=True)
            yield
        finally:
            assert libc.setns(outside, CLONE_NEWNET) == 0
    finally:
        os.close(outside)


def sign_zone(folder, name, tampered):
    def run(*words):
        return subprocess.run(words, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()
    key = run("ldns-keygen", "-k", "-a", "ECDSAP256SHA256", name)
    run("ldns-signzone", "-f", f"{name}.signed", f"{name}.zone", key)
    text = (folder / f"{name}.signed").read_text()
    if tampered:
        assert tampered[0] in text, text
        text = text.replace(*tampered)
    (folder / f"{name}.zone").write_text(text)
    with open(folder / "anchors", "a", encoding="ascii") as anchors:
        anchors.write((folder / f"{key}.key").read_text())


@contextlib.contextmanager
def name_server(folder, zones, broken=(), signed=(), tampered=None):
    """
    NSD on 127.0.0.1:53. zones: {name: records}. The zones in `broken` get SERVFAIL. Those in `signed` are signed, and a file
    `anchors` in the folder has their keys; tampered: {name: (old, new)} is changed in such a zone afterwards.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = [f'server:\n ip-address: 127.0.0.1\n username: ""\n zonesdir: "{folder}"\n database: ""\n pidfile: ""\n'
              f' logfile: "{folder}/log"\n zonelistfile: "{folder}/zone.list"\n xfrdfile: ""\n xfrdir: "{folder}"\n'
              ' server-count: 1\nremote-control:\n control-enable: no\n']
    for name in (*zones, *broken):
        config.append(f'zone:\n name: {name}\n zonefile: {name}.zone\n')
    for name, records in zones.items():
        (folder / f"{name}.zone").write_text(
            f"$ORIGIN {name}.\n$TTL 300\n@ SOA ns h 1 900 900 900 60\n@ NS ns\nns A 127.0.0.1\n" +
            "".join(record + "\n" for record in records))
    for name in signed:
        sign_zone(folder, name, (tampered or {}).get(name))
    (folder / "nsd.conf").write_text("".join(config))
    program = shutil.which("nsd") or "/usr/sbin/nsd"
    with open(folder / "output", "ab") as output:
        process = subprocess.Popen([program, "-d", "-c", str(folder / "nsd.conf")], stdin=subprocess.DEVNULL, stdout=output,
                                   stderr=output)
    try:
        wait_until(lambda: process.poll() is not None or can_connect(53), 30, "a name server")
        assert process.poll() is None, (folder / "output").read_text() + (folder / "log").read_text()
        yield
    finally:
        process.terminate()
        process.wait(20)


# ---- other people's MTAs -------------------------------------------------------------------------------------------------

def downloaded(*packages):
    """Where the Debian packages lie unpacked: MTAs cannot be installed side by side. Skips the test where apt cannot."""
    folder = pathlib.Path(os.environ.get("POSTRIDER_PEERS") or pathlib.Path(tempfile.gettempdir()) / "postrider-peers")
    root = folder / "root"
    folder.mkdir(parents=True, exist_ok=True)
    with only_one(folder / "lock"):
        for package in packages:
            if (folder / f"{package}.unpacked").exists():
                continue
            if subprocess.run(["apt-get", "download", package], cwd=folder, capture_output=True, check=False).returncode != 0:
                pytest.skip(f"apt-get cannot download {package}")
            (archive,) = folder.glob(f"{package}_*.deb")
            subprocess.run(["dpkg", "-x", str(archive), str(root)], check=True)
            (folder / f"{package}.unpacked").touch()
    return root


@contextlib.contextmanager
def only_one(path):
    """Waits until no other test on this machine is inside."""
    with open(path, "ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def system_user(name):
    """A user that the package's installation would have made."""
    if subprocess.run(["id", name], capture_output=True, check=False).returncode != 0:
        subprocess.run(["useradd", "-r", "-M", "-d", "/nonexistent", "-s", "/usr/sbin/nologin", "-U", name], check=True)


class Peer:
    """Another MTA on a loopback port, which passes everything on to 127.0.0.1:next_port; by_data: it offers no CHUNKING."""

    HAS_FIXED_PATHS = False  # then only one of its kind runs at a time on this machine

    def __init__(self, next_port=None, by_data=False):
        # They run as users of their own, who may not look below pytest's folders.
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="postrider-peer-"))
        self.folder.chmod(0o755)
        self.port = free_port()
        self.next_port = next_port
        self.by_data = by_data
        self.process = None
        self.turn = None

    def __enter__(self):
        with contextlib.ExitStack() as turn:
            if self.HAS_FIXED_PATHS:
                turn.enter_context(only_one(pathlib.Path(tempfile.gettempdir()) / f"postrider-{type(self).__name__}.lock"))
            with open(self.folder / "output", "ab") as output:
                self.process = subprocess.Popen(self.prepare(), stdin=subprocess.DEVNULL, stdout=output, stderr=output)
            wait_until(lambda: self.process.poll() is not None or can_connect(self.port), 30, f"{type(self).__name__} listening")
            assert self.process.poll() is None, (self.folder / "output").read_text()
            self.turn = turn.pop_all()
        return self

    def __exit__(self, *_):
        with self.turn:
            self.process.terminate()
            self.process.wait(30)
        shutil.rmtree(self.folder, ignore_errors=True)

    def log_text(self):
        """What it wrote, for a test that fails: the last lines of each of its logs."""
        logs = [path for path in (self.folder / "output", self.folder / "postfix.log", *self.folder.glob("log/*")) if path.exists()]
        return "\n".join(f"{path.name}: {path.read_text(errors='replace')[-3000:]}" for path in logs)


class Postfix(Peer):
    def prepare(self):
        etc, spool, data = (self.folder / name for name in ("etc", "spool", "data"))
        for directory in (etc, spool, data):
            directory.mkdir()
        shutil.chown(data, "postfix")
        (etc / "main.cf").write_text(f"""
compatibility_level = 3.6
queue_directory = {spool}
data_directory = {data}
maillog_file = {self.folder}/postfix.log
maillog_file_prefixes = {self.folder}
myhostname = postfix.local.test
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
alias_maps =
alias_database =
local_recipient_maps =
disable_dns_lookups = yes
smtp_host_lookup = native
smtpd_peername_lookup = no
smtpd_recipient_limit = 3000
smtpd_discard_ehlo_keywords = {"chunking" if self.by_data else ""}
default_transport = smtp:[127.0.0.1]:{self.next_port}
relay_transport = $default_transport
""")
        services = [f"127.0.0.1:{self.port} inet n - n - - smtpd", "pickup unix n - n 60 1 pickup", "cleanup unix n - n - 0 cleanup",
                    "qmgr unix n - n 300 1 qmgr", "rewrite unix - - n - - trivial-rewrite", "bounce unix - - n - 0 bounce",
                    "defer unix - - n - 0 bounce", "trace unix - - n - 0 bounce", "proxymap unix - - n - - proxymap",
                    "smtp unix - - n - - smtp", "showq unix n - n - - showq", "error unix - - n - - error",
                    "retry unix - - n - - error", "anvil unix - - n - 1 anvil", "scache unix - - n - 1 scache",
                    "tlsmgr unix - - n 1000? 1 tlsmgr", "postlog unix-dgram n - n - 1 postlogd"]
        (etc / "master.cf").write_text("\n".join(services) + "\n")
        subprocess.run(["postfix", "-c", str(etc), "check"], check=True, capture_output=True)
        return ["/usr/lib/postfix/sbin/master", "-c", str(etc), "-d"]


MARK = "written by Postrider's tests; may be removed"


class PostfixWith(Postfix):
    """Postfix with more lines in main.cf and master.cf, and, if need be, a resolver of its own."""

    def __init__(self, main, services=(), name_server=None, **options):
        super().__init__(**options)
        self.main, self.services, self.name_server = main, services, name_server

    def prepare(self):
        command = super().prepare()
        etc = self.folder / "etc"
        names = [line.split("=")[0].strip() for line in self.main.splitlines()]
        kept = [line for line in (etc / "main.cf").read_text().splitlines() if line.split("=")[0].strip() not in names]
        (etc / "main.cf").write_text("\n".join(kept) + "\n" + self.main)
        with open(etc / "master.cf", "a", encoding="ascii") as master:
            master.write("".join(line + "\n" for line in self.services))
        if self.name_server:
            (self.folder / "resolv.conf").write_text(f"nameserver {self.name_server}\noptions edns0 trust-ad\n")
            command = ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc/resolv.conf && exec "$@"',
                       str(self.folder / "resolv.conf"), *command]
        return command


class Exim(Peer):
    HAS_FIXED_PATHS = True

    def prepare(self):
        root = downloaded("exim4-base", "exim4-daemon-light")
        system_user("Debian-exim")
        pathlib.Path("/etc/exim4").mkdir(exist_ok=True)
        for name in ("spool", "log"):
            (self.folder / name).mkdir()
            shutil.chown(self.folder / name, "Debian-exim", "Debian-exim")
        config = pathlib.Path("/etc/exim4/exim4.conf")  # Debian's Exim takes none from elsewhere without giving up root
        if config.exists() and MARK not in config.read_text():
            pytest.skip("this machine has an Exim of its own, whose configuration is not ours to replace")
        config.write_text(f"""# {MARK}
exim_path = {root}/usr/sbin/exim4
spool_directory = {self.folder}/spool
log_file_path = {self.folder}/log/%slog
exim_user = Debian-exim
exim_group = Debian-exim
primary_hostname = exim.local.test
daemon_smtp_ports = {self.port}
local_interfaces = 127.0.0.1
disable_ipv6
host_lookup =
rfc1413_query_timeout = 0s
acl_smtp_rcpt = a
acl_smtp_data = a
tls_advertise_hosts =
chunking_advertise_hosts = {"" if self.by_data else "*"}
recipients_max = 0
smtp_accept_max = 0
smtp_accept_queue_per_connection = 0
begin acl
a:
 accept
begin routers
r:
 driver = manualroute
 route_list = * 127.0.0.1
 transport = t
 self = send
begin transports
t:
 driver = smtp
 port = {self.next_port}
 allow_localhost
 hosts_avoid_tls = *
 max_rcpt = 100
begin retry
* * F,2h,5s
""")
        return [f"{root}/usr/sbin/exim4", "-bdf", "-q5s", "-oP", str(self.folder / "pid")]


class OpenSMTPD(Peer):
    """Where this machine has an OpenSMTPD of its own, the test is skipped."""

    HAS_FIXED_PATHS = True

    def prepare(self):
        root = downloaded("opensmtpd")
        if pathlib.Path("/usr/sbin/smtpd").exists():
            pytest.skip("an OpenSMTPD is installed here")
        for user in ("opensmtpd", "opensmtpq"):
            system_user(user)
        for directory in ("/var/spool/smtpd", "/var/lib/opensmtpd/empty", "/run/opensmtpd", "/var/empty"):
            pathlib.Path(directory).mkdir(parents=True, exist_ok=True)
        pathlib.Path("/var/spool/smtpd").chmod(0o711)
        if not pathlib.Path("/usr/libexec/opensmtpd").exists():
            shutil.copytree(root / "usr/libexec/opensmtpd", "/usr/libexec/opensmtpd")
        (self.folder / "conf").write_text(f"""
listen on 127.0.0.1 port {self.port} hostname opensmtpd.local.test
action "on" relay host "smtp+notls://127.0.0.1:{self.next_port}"
match from any for any action "on"
""")
        return [str(root / "usr/sbin/smtpd"), "-F", "-f", str(self.folder / "conf")]


class Dovecot(Peer):
    """Its LMTP server; mail lies in Maildirs below `mail`."""

    def prepare(self):
        for name in ("run", "mail", "state"):
            (self.folder / name).mkdir()
        shutil.chown(self.folder / "mail", "nobody", "nogroup")
        (self.folder / "users").write_text("".join(f"u{i}:{{PLAIN}}x::::::\n" for i in range(60)))
        (self.folder / "conf").write_text(f"""
protocols = lmtp
base_dir = {self.folder}/run
state_dir = {self.folder}/state
log_path = {self.folder}/log
ssl = no
first_valid_uid = 1
mail_uid = nobody
mail_gid = nogroup
mail_location = maildir:{self.folder}/mail/%n
auth_username_format = %n
userdb {{
  driver = passwd-file
  args = {self.folder}/users
}}
passdb {{
  driver = passwd-file
  args = {self.folder}/users
}}
service lmtp {{
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {self.port}
  }}
}}
""")
        return ["dovecot", "-F", "-c", str(self.folder / "conf")]
