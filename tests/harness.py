"""What end-to-end tests share: running Postrider daemons on free loopback ports, and looking at what they did.

    with Postrider(tmp_path, config="...") as server:       # {port}, {state}, {mail} are filled in
        server.send(...)                                    # or any client against server.port
        server.wait_for_mail("ok", 1)

Nothing here sleeps in place of a condition: wait_until() looks again until it is true or the time is up.
"""
import contextlib
import email
import itertools
import json
import os
import pathlib
import random
import re
import signal
import smtplib
import socket
import subprocess
import sys
import time

SOURCE = pathlib.Path(__file__).resolve().parent.parent


def binary(name="SANITIZED"):
    """The daemon to test: POSTRIDER_SANITIZED, or POSTRIDER_RELEASE where memory or speed is looked at."""
    given = os.environ.get(f"POSTRIDER_{name}")
    candidates = [pathlib.Path(given)] if given else []
    candidates += [SOURCE / "build-gcc/postrider", SOURCE / "build/postrider"]
    for path in candidates:
        if path.exists():
            return path
    raise FileNotFoundError("build Postrider first: ./test, or ninja -C build")


def c_enum(path, name):
    """{name: number} of `enum NAME` in one of our headers: what a test says in place of a process follows the source."""
    body = re.search(rf"enum {name} {{(.*?)}};", (SOURCE / path).read_text(), re.DOTALL)[1]
    numbers, number = {}, -1
    for word, value in re.findall(r"(\w+)(?: = (\d+))?\s*,", re.sub(r"/\*.*?\*/", "", body, flags=re.DOTALL)):
        number = int(value) if value else number + 1
        numbers[word] = number
    return numbers


def link_version():
    return int(re.search(r"LINK_VERSION = (\d+)", (SOURCE / "src/link/link.h").read_text())[1])


def shared():
    """The folder of public test data beside the project, or None."""
    for path in (os.environ.get("POSTRIDER_SHARED"), SOURCE.parent / "shared"):
        if path and pathlib.Path(path).is_dir():
            return pathlib.Path(path)
    return None


# Below those that the system gives to whoever connects; each of the test runner's workers has some of its own.
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % 4
PORTS = range(10000 + 5500 * WORKER, 15500 + 5500 * WORKER)
_ports = itertools.islice(itertools.cycle(PORTS), random.randrange(len(PORTS)), None)


def free_port(host="127.0.0.1"):
    """One that nobody listens at, and that no other worker is given before our server listens there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for port in itertools.islice(_ports, len(PORTS)):
        with socket.socket(family) as s, contextlib.suppress(OSError):
            s.bind((host, port))
            return port
    raise AssertionError("no port is free")


def is_ready(notify):
    with contextlib.suppress(TimeoutError):
        return b"READY=1" in notify.recv(4096)
    return False


def is_alive(pid):
    """Whether the process runs: one that is only not waited for yet does not."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def wait_until(condition, seconds=30, what="the condition"):
    """Returns the first true value of condition()."""
    until = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > until:
            raise AssertionError(f"{what} did not come true in {seconds} s")
        time.sleep(0.02)


LOCAL_SITE = """
hostname mx.local.test
state {state}
listen mx {{ address 127.0.0.1:{port}; relay from 127.0.0.1 }}
domain local.test {{ mailbox ok; alias postmaster -> ok; deliver maildir {mail}/{{domain}}/{{local}} }}
route default {{ via 127.0.0.1:{next_port}; tls off }}
"""


class Postrider:
    """One daemon: a configuration, a state directory, a process; ended with the block."""

    def __init__(self, folder, config=LOCAL_SITE, binary_path=None, environment=None, command=(), **values):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.state = self.folder / "state"
        self.mail = self.folder / "mail"
        self.log_path = self.folder / "log"
        self.config_path = self.folder / "postrider.conf"
        self.binary = binary_path or binary()
        self.port = values.pop("port", None) or free_port()
        self.values = {"next_port": 1, **values}
        self.environment = environment or {}
        self.command = list(command)  # in front of the daemon: strace, prlimit, ip netns exec
        self.process = None
        self.write_config(config)

    def write_config(self, config, **values):
        self.values.update(values)
        self.config_path.write_text(
            config.format(port=self.port, state=self.state, mail=self.mail, **self.values), encoding="utf-8"
        )

    # ---- life ----

    def start(self, wait=True):
        notify_path = self.folder / "notify"
        notify_path.unlink(missing_ok=True)
        notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        notify.bind(str(notify_path))
        environment = dict(os.environ, NOTIFY_SOCKET=str(notify_path), **self.environment)
        # A role drops its heap whole when it ends: leaks are looked for in unit tests.
        environment["ASAN_OPTIONS"] = "detect_leaks=0:" + self.environment.get("ASAN_EXTRA", "")
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [*self.command, str(self.binary), "run", "--config", str(self.config_path)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment,
            )
        try:
            if wait:
                notify.settimeout(0.1)
                wait_until(lambda: is_ready(notify) or self.process.poll() is not None, 60)
                assert self.process.poll() is None
        except AssertionError:
            raise AssertionError(f"not ready in 60 s, or ended; its log:\n{self.log_text()[-4000:]}") from None
        finally:
            notify.close()
        return self

    def stop(self, seconds=60):
        """Ends it in good order; returns its exit code."""
        if self.process is None:
            return None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"did not stop in {seconds} s; its log:\n{self.log_text()[-4000:]}") from None
        self.process = None
        return code

    def kill(self):
        """SIGKILL to the supervisor and every role, at once."""
        if self.process is None:
            return
        roles = self.role_pids().values()
        for pid in [self.process.pid, *roles]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self.process = None
        # Until they are gone they hold the listening sockets.
        wait_until(lambda: not any(is_alive(pid) for pid in roles), 30, "the end of all roles")

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        try:
            self.stop()
        finally:
            self.kill()
        crashes = self.crashes()
        assert not crashes, f"a role crashed:\n{crashes}"

    def crashes(self):
        """What sanitizers and CHECKs said, and roles that died of a signal that the tests do not send."""
        text = self.log_text()
        bad = [line for line in text.splitlines() if "CHECK failed" in line or "runtime error:" in line]
        if "AddressSanitizer" in text:
            at = text.index("AddressSanitizer")
            bad.append(text[at - 200 : at + 3000])
        return "\n".join(bad)

    # ---- looking ----

    def log_text(self):
        return self.log_path.read_text(encoding="utf-8", errors="replace") if self.log_path.exists() else ""

    def log_events(self, event=None):
        """The log's JSON lines, only those of one event if it is named."""
        events = []
        for line in self.log_text().splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if event is None or entry.get("event") == event:
                events.append(entry)
        return events

    def logged(self, event, count=1, seconds=30, **members):
        """The lines of one event that have these members, once there are so many. A role writes its log at the end of its turn:
        who was answered may look before."""
        def found():
            lines = [line for line in self.log_events(event) if members.items() <= line.items()]
            return lines if len(lines) >= count else None
        return wait_until(found, seconds, f"{count} lines {event} {members or ''} in the log")

    def cli(self, *words, check=True, text=True, **options):
        """`postrider WORDS`, with this daemon's configuration for the verbs that want it."""
        result = subprocess.run(
            [str(self.binary), *words], capture_output=True, text=text, timeout=120,
            env=dict(os.environ, ASAN_OPTIONS="detect_leaks=0"), **options,
        )
        if check and result.returncode != 0:
            raise AssertionError(f"{words}: exit {result.returncode}\n{result.stdout}\n{result.stderr}")
        return result

    def status(self):
        return json.loads(self.cli("status", "--json", "--config", str(self.config_path)).stdout)

    def figures(self):
        return self.status()["figures"]

    def role_pids(self):
        """{"receiver 0": pid, ...}, from /proc, the oldest first: works while the console is down. After a reload, those that drain too."""
        roles = {}
        children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for pid in children:
            with contextlib.suppress(OSError):
                words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                if b"--role" in words:
                    name = words[words.index(b"--role") + 1].decode()
                    number = sum(key.split()[0] == name for key in roles)
                    roles[f"{name} {number}"] = int(pid)
        return roles

    def queue(self):
        """The queue's messages, as dictionaries."""
        out = self.cli("queue", "list", "--json", "--limit", "0", "--config", str(self.config_path)).stdout
        return [json.loads(line) for line in out.splitlines()]

    def queue_show(self, message_id):
        return json.loads(self.cli("queue", "show", message_id, "--json", "--config", str(self.config_path)).stdout)

    def wait_until_empty(self, seconds=60):
        wait_until(lambda: self.figures()["messages"] == 0, seconds, "an empty queue")

    # ---- mail ----

    def maildir(self, mailbox="ok", domain="local.test"):
        return self.mail / domain / mailbox

    def mails(self, mailbox="ok", domain="local.test"):
        """The files' bytes, oldest first."""
        new = self.maildir(mailbox, domain) / "new"
        if not new.is_dir():
            return []
        files = sorted(new.iterdir(), key=lambda path: (path.stat().st_mtime_ns, path.name))
        return [path.read_bytes() for path in files]

    def wait_for_mail(self, mailbox="ok", count=1, seconds=60, domain="local.test"):
        return wait_until(
            lambda: (mails := self.mails(mailbox, domain)) and len(mails) >= count and mails, seconds,
            f"{count} messages for {mailbox}@{domain}; log:\n{self.log_text()[-3000:]}\n",
        )

    def send(self, sender="a@client.test", to="ok@local.test", content=b"Subject: hello\r\n\r\nhello\r\n", options=(),
             rcpt_options=()):
        """One message by Python's smtplib, bytes as they are (CRLF). Returns the refused recipients."""
        with smtplib.SMTP("127.0.0.1", self.port, timeout=60) as client:
            recipients = [to] if isinstance(to, str) else list(to)
            return client.sendmail(sender, recipients, content, list(options), list(rcpt_options))


def without_trace(mail):
    """A Maildir's message without what we put in front: Return-Path, Delivered-To and our one Received field."""
    lines = mail.split(b"\n")
    at = 0
    for name in (b"Return-Path:", b"Delivered-To:", b"Received:"):
        if at < len(lines) and lines[at].startswith(name):
            at += 1
            while at < len(lines) and lines[at][:1] in (b" ", b"\t"):
                at += 1
    return b"\n".join(lines[at:])


def parse(mail):
    return email.message_from_bytes(mail)


if __name__ == "__main__":
    print(binary(), shared(), file=sys.stderr)
