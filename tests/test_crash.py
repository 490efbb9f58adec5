"""Crashes: roles killed at random under load, the order of sync and 250, and sendmail over restarts.

POSTRIDER_FULL=1 runs the full counts.
"""
import collections
import os
import random
import re
import subprocess
import time

from crash.faults import in_flight, kill_something, read_spool, unexplained
from harness import Postrider, binary
from peers import Tool, Witness, accepted_counts, copies_in

FULL = os.environ.get("POSTRIDER_FULL") == "1"
KILLS = 300 if FULL else 30
SENDMAILS = 1000 if FULL else 60

SITE = """
hostname mx.local.test
state {state}
listen mx {{ address 127.0.0.1:{port}; relay from 127.0.0.1; connections 1000 per-client }}
domain local.test {{ mailbox ok; alias postmaster -> ok; deliver maildir {mail}/{{domain}}/{{local}} }}
route default {{ via 127.0.0.1:{next_port}; tls off }}
retry 1s 1s 2s for 1h
"""


class Judged(Postrider):
    def pending(self):
        pending, problems = read_spool(self.state / "spool")
        assert not problems, problems
        return pending


def test_nothing_is_lost_when_roles_are_killed(tmp_path):
    chooser = random.Random(int(os.environ.get("POSTRIDER_SEED", "1")))
    accepted = {"local": tmp_path / "accepted.local", "relayed": tmp_path / "accepted.relayed"}
    kills = []
    with Witness() as witness, Judged(tmp_path, SITE, next_port=witness.port) as server:
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
        extra, bad = unexplained(everything, kills)
        assert not bad, f"{len(bad)} twice, and no kill between took the reply: {bad[:3]}"
        flying = in_flight(kills, everything)
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
            assert load.process.wait(900) == 0, load.end()
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
