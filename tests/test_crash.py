"""Crashes: roles killed at random under load, the order of sync and 250, and sendmail over restarts.

POSTRIDER_FULL=1 runs the full counts.
"""
import collections
import contextlib
import json
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import time
import typing

from harness import Postrider, binary, is_alive, wait_until
from peers import Tool, Witness, accepted_counts, copies_in, ports_of

FULL = os.environ.get("POSTRIDER_FULL") == "1"
KILLS = 300 if FULL else 30
SENDMAILS = 1000 if FULL else 60
READER = pathlib.Path(__file__).resolve().parent / "spool_reader.py"

SITE = """
hostname mx.local.test
state {state}
listen mx {{ address 127.0.0.1:{port}; relay from 127.0.0.1; connections 1000 per-client }}
domain local.test {{ mailbox ok; alias postmaster -> ok; deliver maildir {mail}/{{domain}}/{{local}} }}
route default {{ via 127.0.0.1:{next_port}; tls off }}
retry 1s 1s 2s for 1h
"""


def read_spool(state):
    """The independent reader's judgement of the spool as it lies there; returns {(queue id, recipient)} that are pending."""
    result = subprocess.run([sys.executable, str(READER), str(state / "spool")], capture_output=True, text=True,
                            timeout=120, check=False)
    assert result.returncode == 0, f"the spool is not sound:\n{result.stdout[-3000:]}{result.stderr[-3000:]}"
    return {(message["id"], recipient["address"]) for message in json.loads(result.stdout)["messages"]
            for recipient in message["recipients"] if recipient["state"] == "pending"}


def suspend(pids, what):
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, what)


class Kill(typing.NamedTuple):
    """One kill, and what others than the daemon saw of it."""
    victim: str
    began: float
    over: float      # from here on the dead may be started again
    pending: set     # (queue id, recipient) of which the spool says on disk that it waits: what Python reads there
    ports: set       # of the victim's connections, as the kernel lists them

    def may_have_taken_the_reply_of(self, copy):
        """Whether this copy had come, or was on its way, from a process that died here before its outcome was on disk."""
        role = self.victim.split()[0]
        if (copy.queue_id, copy.recipient) not in self.pending:
            return False
        if role in ("all", "supervisor", "store"):
            return copy.born <= self.over + LINGER  # senders and mailboxes outlive the store, with nobody to tell
        if role == "sender":
            return copy.port in self.ports
        return role == "mailbox" and copy.port == 0 and copy.born <= self.over


LINGER = 5  # seconds


def kill_something(server, chooser):
    """Freezes supervisor and store, kills one role or all, reads the spool as it is at that moment."""
    roles = server.role_pids()
    victim = chooser.choice(sorted(roles) + ["supervisor", "all"])
    began = time.time()
    if victim in ("all", "supervisor"):
        # A supervisor that dies takes its roles with it: their control links close.
        suspend([server.process.pid, *(roles.values() if victim == "all" else ())], signal.SIGKILL)
        server.process.wait()
        wait_until(lambda: not any(is_alive(pid) for pid in roles.values()), 30, "the end of all roles")
        server.process = None
        pending, over = read_spool(server.state), time.time()
        server.start()
        return Kill(victim, began, over, pending, set())
    frozen = {server.process.pid, roles[victim], roles.get("store 0", roles[victim])}
    suspend(frozen, signal.SIGSTOP)
    try:
        ports = ports_of(roles[victim])
        suspend([roles[victim]], signal.SIGKILL)
        wait_until(lambda: not is_alive(roles[victim]), 30, "its end")
        return Kill(victim, began, time.time(), read_spool(server.state), ports)
    finally:
        suspend(frozen, signal.SIGCONT)


def check_duplicates(copies, kills):
    """
    At most one duplicate of a recipient for each death that took its final reply, so none but of those in flight at a kill:
    for each copy that another follows, a kill of its own hit the process that delivered it, or the store before it noted
    that. Returns how many followed.
    """
    extra, by_recipient = 0, collections.defaultdict(list)
    for copy in copies:
        by_recipient[copy.queue_id, copy.recipient].append(copy)
    for several in by_recipient.values():
        several.sort(key=lambda copy: copy.born)
        unused = list(kills)
        for first, second in zip(several, several[1:]):
            taker = next((kill for kill in unused
                          if kill.began <= second.born and kill.may_have_taken_the_reply_of(first)), None)
            assert taker, f"{first} and {second}: twice, and no kill between took the reply"
            unused.remove(taker)
            extra += 1
    return extra


def in_flight(kill, copies):
    """How many recipients this kill could double: their copy had come, and the spool did not say so yet."""
    return len({(copy.queue_id, copy.recipient) for copy in copies
                if copy.born <= kill.over and kill.may_have_taken_the_reply_of(copy)})


def test_nothing_is_lost_when_roles_are_killed(tmp_path):
    chooser = random.Random(int(os.environ.get("POSTRIDER_SEED", "1")))
    accepted = {"local": tmp_path / "accepted.local", "relayed": tmp_path / "accepted.relayed"}
    kills = []
    with Witness() as witness, Postrider(tmp_path, SITE, next_port=witness.port) as server:
        loads = [
            Tool(tmp_path, f"load-{kind}", "load", "--server", f"127.0.0.1:{server.port}", "--to", to, "--keep-going",
                 "--log-accepted", str(accepted[kind]), "--sessions", "10", "--seconds", "3600", "--rate", "40",
                 "--size", size, "--rcpt", rcpt, "--timeout", "20", "--quiet")
            for kind, to, size, rcpt in (("local", "ok@local.test", "3000", "1"),
                                         ("relayed", "x{r}@elsewhere.test", "100000", "3"))
        ]
        with loads[0], loads[1]:
            while len(kills) < KILLS:
                time.sleep(chooser.uniform(0.1, 0.9))  # the interval is what is tested, not a wait for something
                kills.append(kill_something(server, chooser))
            outputs = [load.end() for load in loads]
        took = {kind: accepted_counts(path) for kind, path in accepted.items()}
        server.wait_until_empty(120)
        copies = {"local": copies_in(server.maildir(), "ok@local.test"), "relayed": witness.copies}
        for kind in took:
            came = collections.Counter(name for name, _ in {(copy.name, copy.recipient) for copy in copies[kind]})
            lost = [name for name, count in took[kind].items() if came[name] < count]
            assert not lost, f"{len(lost)} of {len(took[kind])} {kind} lost: {sorted(lost)[:5]}"
        everything = copies["local"] + copies["relayed"]
        extra = check_duplicates(everything, kills)
        flying = sum(in_flight(kill, everything) for kill in kills)
        figures = server.figures()
        assert figures["balanced"] == 1 and figures["held"] == 0
    died = collections.Counter(kill.victim for kill in kills)
    count = sum(map(len, took.values()))
    print(f"{len(kills)} kills {dict(died)}, the spool sound after each: {count} messages for "
          f"{sum(sum(counts.values()) for counts in took.values())} recipients accepted, none lost; "
          f"{flying} recipients in flight at the kills, {extra} of them twice")
    print("".join(outputs))
    assert count > 5 * KILLS


def test_sendmail_loses_nothing_while_the_daemon_restarts(tmp_path):
    server = Postrider(tmp_path, SITE)
    chooser = random.Random(2)
    codes = {}
    with server:
        running, number, restarts = {}, 0, 0
        while number < SENDMAILS or running:
            while number < SENDMAILS and len(running) < 8:
                name = f"sendmail-{number}"
                message = tmp_path / name
                message.write_text(f"Subject: {name}\nX-Load-Id: {name}\n\nhello\n", encoding="utf-8")
                with open(message, "rb") as content:
                    running[name] = subprocess.Popen(
                        [str(binary("RELEASE")), "sendmail", "-C", str(server.config_path), "-f", "a@client.test",
                         "ok@local.test"], stdin=content, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                        env=dict(os.environ, ASAN_OPTIONS="detect_leaks=0", HOME=str(tmp_path)))
                number += 1
            for name, process in list(running.items()):
                if process.poll() is not None:
                    codes[name] = (process.returncode, process.stderr.read())
                    process.stderr.close()
                    del running[name]
            if len(codes) // 15 > restarts and number < SENDMAILS:
                if chooser.random() < 0.5:
                    server.stop()
                else:
                    server.kill()
                server.start()
                restarts += 1
            time.sleep(0.002)
        server.wait_until_empty()
        failed = {name: code for name, code in codes.items() if code[0] != 0}
        assert not failed, failed
        copies = collections.Counter(copy.name for copy in copies_in(server.maildir(), "ok@local.test"))
        assert set(codes) <= set(copies), f"lost: {sorted(set(codes) - set(copies))[:10]}"
    extra = copies.total() - len(copies)
    print(f"{len(codes)} runs of sendmail over {restarts} restarts: none lost, {extra} duplicates")
    assert restarts >= 3


# ---- the order of sync and 250 ----

CALL = re.compile(r"^(\d+) +(\d+\.\d+) (?:<\.\.\. )?(\w+)(.*)$")


def traced_calls(path):
    """(pid, name, text, began, ended): strace's lines in their order, unfinished and resumed ones put together.

    began and ended are places in that order: a call that ended at 5 had returned before one that began at 6 was entered.
    """
    unfinished, calls = {}, []
    with open(path, encoding="utf-8", errors="replace") as trace:
        for place, line in enumerate(trace):
            found = CALL.match(line)
            if not found:
                continue
            pid, _, name, text = found.groups()
            if text.endswith("<unfinished ...>"):
                unfinished[pid, name] = (text, place)
            elif text.startswith(" resumed>"):
                text_before, began = unfinished.pop((pid, name), ("", place))
                calls.append((pid, name, text_before + text, began, place))
            else:
                calls.append((pid, name, text, place, place))
    return calls


def test_no_250_leaves_before_its_sync_returned(tmp_path):
    trace, log = tmp_path / "trace", tmp_path / "accepted"
    count = 2000 if FULL else 300
    tracer = ["strace", "-D", "-f", "-ttt", "-s", "1500", "-o", str(trace),
              "-e", "trace=fdatasync,fsync,pwrite64,pwritev,pwritev2,sendto,sendmsg,write,writev"]
    with Postrider(tmp_path, SITE, binary_path=binary("RELEASE"), command=tracer) as server:
        with Tool(tmp_path, "load", "load", "--server", f"127.0.0.1:{server.port}", "--to", "ok@local.test", "--messages",
                  str(count), "--sessions", "20", "--size", "1000", "--log-accepted", str(log), "--quiet") as load:
            assert load.process.wait(120) == 0, load.end()
        server.wait_until_empty()
    names = dict(line.split()[:2] for line in log.read_text(encoding="utf-8").splitlines())
    assert len(names) == count
    written, syncs, replies = {}, [], {}
    for pid, name, text, began, ended in traced_calls(trace):
        if name.startswith("pwrite"):
            for found in re.findall(r"X-Load-Id: ([0-9a-f]+-\d+)", text):
                written.setdefault(found, (pid, ended))
        elif name in ("fdatasync", "fsync") and text.endswith("= 0"):
            syncs.append((pid, began, ended))
        elif "250 2." in text:
            for found in re.findall(r"250 2\.\d\.\d [^\"]*? as ([0-9A-Za-z]+)", text):
                replies.setdefault(found, began)
    checked = 0
    for load_id, queue_id in names.items():
        pid, at = written[load_id]
        reply = replies[queue_id]
        covering = [sync for sync in syncs if sync[0] == pid and sync[1] > at and sync[2] < reply]
        assert covering, f"{queue_id}: its 250 left before a sync that began after its write had returned"
        checked += 1
    batches = len({at for _, at in written.values()})
    print(f"{checked} messages: each 250 left after the fdatasync that covers it had returned; {batches} writes")
    assert checked == count and batches < count  # several shared one sync, so the order could have been wrong
