"""Crashes: roles killed at random under load, the order of sync and 250, and sendmail over restarts.

POSTRIDER_FULL=1 runs the full counts.
"""
import collections
import contextlib
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import time

import pytest

from harness import Postrider, binary, free_port, wait_until

FULL = os.environ.get("POSTRIDER_FULL") == "1"
KILLS = 300 if FULL else 30
SENDMAILS = 1000 if FULL else 60
READER = pathlib.Path(os.environ.get("READER") or pathlib.Path(__file__).resolve().parent / "spool_reader.py")

SITE = """
hostname mx.local.test
state {state}
listen mx {{ address 127.0.0.1:{port}; relay from 127.0.0.1; connections 1000 per-client }}
domain local.test {{ mailbox ok; alias postmaster -> ok; deliver maildir {mail}/{{domain}}/{{local}} }}
route default {{ via 127.0.0.1:{next_port}; tls off }}
retry 1s 1s 2s for 1h
"""


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
    sink = Tool(folder, "sink", "sink", "--listen", f"127.0.0.1:{port}", "--maildir", str(maildir), "--quiet")
    wait_until(lambda: b"220" in greeting(port), 30, "the sink's greeting")
    return sink


def greeting(port):
    import socket

    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as s:
            s.settimeout(5)
            return s.recv(512)
    except OSError:
        return b""


def load_names(maildir):
    """Counter of the X-Load-Ids of all messages in a Maildir, and when each copy was written."""
    copies = collections.defaultdict(list)
    new = pathlib.Path(maildir) / "new"
    for entry in os.scandir(new) if new.is_dir() else ():
        with open(entry.path, "rb") as mail:
            found = re.search(rb"^X-Load-Id: (\S+)", mail.read(4096), re.M)
        copies[found.group(1).decode()].append(entry.stat().st_mtime)
    return copies


def accepted_names(path):
    return [line.split()[0] for line in pathlib.Path(path).read_text(encoding="utf-8").splitlines()]


def read_spool(state):
    """The independent reader's judgement of the spool as it lies there."""
    result = subprocess.run([sys.executable, str(READER), "verify", str(state / "spool")], capture_output=True, text=True,
                            timeout=120, check=False)
    assert result.returncode == 0, f"the spool is not sound:\n{result.stdout[-3000:]}{result.stderr[-3000:]}"


def suspend(pids, what):
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, what)


def kill_something(server, chooser):
    """Freezes supervisor and store, kills one role or all, reads the spool as it is at that moment. Returns what died."""
    roles = server.role_pids()
    victim = chooser.choice(sorted(roles) + ["supervisor", "all"])
    store = roles.get("store 0")
    frozen = [pid for pid in (server.process.pid, store) if pid]
    if victim in ("all", "supervisor"):
        # A supervisor that dies takes its roles with it: their control links close.
        suspend([server.process.pid, *(roles.values() if victim == "all" else ())], signal.SIGKILL)
        server.process.wait()
        wait_until(lambda: not any(is_alive(pid) for pid in roles.values()), 30, "the end of all roles")
        server.process = None
        read_spool(server.state)
        server.start()
        return victim
    suspend(frozen, signal.SIGSTOP)
    try:
        suspend([roles[victim]], signal.SIGKILL)
        read_spool(server.state)
    finally:
        suspend(frozen, signal.SIGCONT)
    return victim


def is_alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def in_flight(server):
    """Recipients that are handed out, as the store says; None while it cannot be asked."""
    try:
        return server.figures()["in-flight"]
    except (AssertionError, ValueError, KeyError):
        return None


def check_duplicates(copies, kills):
    """A second copy is there only if a kill came between; returns how many."""
    extra = 0
    for name, times in copies.items():
        times.sort()
        for first, second in zip(times, times[1:]):
            # Some seconds before: what was delivered and not yet noted when the kill came.
            assert any(first - 5 <= at <= second for at in kills), f"{name}: twice at {first}, {second} without a kill"
        extra += len(times) - 1
    return extra


@pytest.mark.skipif(not READER.exists(), reason="no spool_reader.py")
def test_nothing_is_lost_when_roles_are_killed(tmp_path):
    chooser = random.Random(int(os.environ.get("POSTRIDER_SEED", "1")))
    sink_port = free_port()
    accepted = {"local": tmp_path / "accepted.local", "relayed": tmp_path / "accepted.relayed"}
    kills, died, flying = [], collections.Counter(), []
    server = Postrider(tmp_path, SITE, next_port=sink_port)
    relayed = tmp_path / "sink"
    with sink_at(tmp_path, sink_port, relayed), server:
        loads = [
            Tool(tmp_path, f"load-{kind}", "load", "--server", f"127.0.0.1:{server.port}", "--to", to, "--keep-going",
                 "--log-accepted", str(accepted[kind]), "--sessions", "10", "--seconds", "3600", "--rate", "40", "--size", size,
                 "--timeout", "20", "--quiet")
            for kind, to, size in (("local", "ok@local.test", "3000"), ("relayed", "x@elsewhere.test", "100000"))
        ]
        with loads[0], loads[1]:
            while len(kills) < KILLS:
                time.sleep(chooser.uniform(0.1, 0.9))  # the interval is what is tested, not a wait for something
                flying.append(in_flight(server))
                kills.append(time.time())
                died[kill_something(server, chooser)] += 1
            outputs = [load.end() for load in loads]
        took = {kind: accepted_names(path) for kind, path in accepted.items()}
        folders = {"local": server.maildir(), "relayed": relayed}
        server.wait_until_empty(120)
        copies = {kind: load_names(folder) for kind, folder in folders.items()}
        for kind in took:
            lost = set(took[kind]) - set(copies[kind])
            assert not lost, f"{len(lost)} of {len(took[kind])} {kind} lost: {sorted(lost)[:5]}"
        extra = sum(check_duplicates(copies[kind], kills) for kind in took)
        figures = server.figures()
        assert figures["balanced"] == 1 and figures["held"] == 0
    count = sum(map(len, took.values()))
    print(f"{len(kills)} kills {dict(died)}: {count} accepted, none lost, {extra} duplicates; "
          f"in flight at the kills: {sum(n or 0 for n in flying)} as far as they could be asked")
    print("".join(outputs))
    assert count > 5 * KILLS
