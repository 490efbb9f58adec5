"""Links between roles that say what no role says. The test takes the socket of a role that runs (pidfd_getfd), and speaks
in its name: whoever hears it closes the link and nothing else, the supervisor makes a new one, and mail goes on.

What the command line's socket is told is in test_hostile.py; each byte of each message, in role/border_test.c.
"""
import contextlib
import ctypes
import itertools
import os
import re
import select
import signal
import socket
import subprocess
import typing

import pytest

from harness import Postrider, c_enum, link_version, wait_until
from peers import ScriptedServer

FULL = os.environ.get("POSTRIDER_FULL") == "1"
SYS_PIDFD_GETFD = 438
BORDER = c_enum("src/role/border.h", "border_type")
TYPES = range(1, max(BORDER.values()) + 2)
SUBMIT, READ = BORDER["BORDER_SUBMIT"], BORDER["BORDER_READ"]
DENIED = c_enum("src/base/err.h", "err_kind")["ERR_DENIED"]
NEVER = 0x7FFFFFFF    # a call that nobody made
MORE, REPLY = 2, 1

SITE = """
hostname mx.local.test
state {state}
listen mx {{ address 127.0.0.1:{port}; relay from 127.0.0.1 }}
domain local.test {{ mailbox ok; alias postmaster -> ok; deliver maildir {mail}/{{domain}}/{{local}} }}
route default {{ via 127.0.0.1:{next_port}; tls off }}
"""

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may take another process's socket")


def frame(kind, body=b"", call=NEVER, flags=0, length=None):
    return (len(body) if length is None else length).to_bytes(4, "little") + kind.to_bytes(2, "little") + \
        flags.to_bytes(2, "little") + call.to_bytes(4, "little") + body


HEADERS = {  # each field wrong
    "a body over the limit by one": frame(1, length=65537),
    "a body of 4 GiB": frame(1, length=0xFFFFFFFF),
    "an unknown type": frame(999),
    "type 0": frame(0),
    "an unknown flag": frame(1, flags=4),
    "descriptors that did not come": frame(1, flags=0x100),
    "a reply to nothing asked": frame(1, flags=REPLY),
    "a message without end": b"".join(frame(1, b"x" * 65536, flags=MORE) for _ in range(65)),
    "a second hello": frame(0xFFFF, link_version().to_bytes(4, "little") + b"\5\0\0\0" + b"0.1.0", call=0),
}
# A body that its border may take by chance is followed by what is wrong on any.
BODIES = {f"type {kind}, {why}": frame(kind, body, call=call) + frame(kind, flags=REPLY)
          for kind in TYPES for call in (0, NEVER)
          for why, body in ((f"empty, call {call}", b""), (f"ones, call {call}", b"\xff" * 40),
                            (f"zeros, call {call}", b"\0" * 200))}
SOME = dict(itertools.islice(BODIES.items(), 5, None, 29))


class End(typing.NamedTuple):
    role: str
    pid: int
    fd: int


def links(server):
    """[(End, End)]: the Unix sockets between the daemon's processes, as `ss` lists them."""
    names = {pid: name for name, pid in server.role_pids().items()} | {server.process.pid: "supervisor"}
    ends = {}
    for line in subprocess.run(["ss", "-xpnH"], check=True, capture_output=True, text=True).stdout.splitlines():
        words = line.split()
        for pid, fd in re.findall(r"pid=(\d+),fd=(\d+)", line):
            if int(pid) in names:
                ends[words[5]] = (End(names[int(pid)], int(pid), int(fd)), words[7])
    return [(end, ends[peer][0]) for inode, (end, peer) in ends.items() if peer in ends and inode < peer]


def between_roles(server):
    """One of two processes that have two: the other is for signatures, and goes with it (the higher descriptors)."""
    first = {}
    for pair in links(server):
        key = tuple(sorted((end.role, end.pid) for end in pair))
        if "supervisor" not in (pair[0].role, pair[1].role):
            first[key] = min(first.get(key, pair), pair, key=lambda p: max(end.fd for end in p))
    return list(first.values())


def roles_of(pairs):
    return sorted(tuple(sorted(end.role for end in pair)) for pair in pairs)


def say_as(end, data):
    """Writes into the link as if that role had; returns the socket."""
    pidfd = os.pidfd_open(end.pid)
    try:
        fd = ctypes.CDLL(None, use_errno=True).syscall(SYS_PIDFD_GETFD, pidfd, end.fd, 0)
        assert fd >= 0, os.strerror(ctypes.get_errno())
    finally:
        os.close(pidfd)
    link = socket.socket(fileno=fd)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # closed before it had heard all
        while data:
            select.select([], [link], [], 30)
            data = data[link.send(data):]
    return link


def ask_as(end, kind, body):
    """Calls as if that role had, which stands still meanwhile; returns the answer's body."""
    def take(length):
        data = b""
        while len(data) < length:
            select.select([link], [], [], 30)
            data += (more := link.recv(length - len(data)))
            assert more, "the link was closed"
        return data

    with say_as(end, frame(kind, body)) as link:
        while True:
            head = take(12)
            length, flags, call = (int.from_bytes(head[at:to], "little") for at, to in ((0, 4), (6, 8), (8, 12)))
            body = take(length)
            if flags & REPLY and call == NEVER:
                return body


def is_closed(link):
    poll = select.poll()
    poll.register(link, select.POLLHUP)
    return bool(poll.poll(0))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with ScriptedServer() as next_hop, Postrider(tmp_path_factory.mktemp("links"), SITE, next_port=next_hop.port) as server:
        server.next_hop = next_hop
        wait_until(lambda: len(between_roles(server)) > 15, 30, "all links")
        yield server
        server.wait_until_empty()
        assert server.figures()["balanced"] == 1


def still_serves(server):
    mails, relayed = len(server.mails()), len(server.next_hop.messages)
    server.send(to=["ok@local.test", "x@elsewhere.test"])
    server.wait_for_mail(count=mails + 1)
    wait_until(lambda: len(server.next_hop.messages) > relayed, 60, "the relayed one")


def test_nonsense_between_roles(world):
    pids, wanted = world.role_pids(), roles_of(between_roles(world))
    assert {"receiver", "store", "gate", "sender", "mailbox", "resolver", "checker", "console", "submission", "keys", "fetch"} == {
        name.split()[0] for pair in wanted for name in pair}
    rounds = 0
    for turn, (why, data) in enumerate({**HEADERS, **(BODIES if FULL else SOME)}.items()):
        for side in (0, 1) if FULL else (turn % 2,):
            taken = [say_as(pair[side], data) for pair in between_roles(world)]
            try:
                wait_until(lambda: all(map(is_closed, taken)), 30, f"the end of all links that heard {why}")
            finally:
                for link in taken:
                    link.close()
            wait_until(lambda: roles_of(between_roles(world)) == wanted, 30, f"new links after {why}")
            assert world.role_pids() == pids, f"a role ended of {why}"
            still_serves(world)
            rounds += 1
    print(f"{len(wanted)} links heard nonsense {rounds} times: each was closed and made anew, no role ended")


def test_nonsense_on_a_control_link_ends_that_role_only(world):
    """A role without its supervisor must end, and is started again; the supervisor and all others stay."""
    for number, why in enumerate(("an unknown type", "a body over the limit by one", "an unknown flag")):
        for name in sorted(world.role_pids()):
            pids = world.role_pids()
            pair = next(pair for pair in links(world) if {"supervisor", name} == {end.role for end in pair})
            side = (pair[0].role == "supervisor") ^ (number % 2 == 0)
            say_as(pair[side], HEADERS[why]).close()
            wait_until(lambda: not os.path.exists(f"/proc/{pids[name]}"), 30, f"the end of {name}")
            wait_until(lambda: set(pids.values()) & set(world.role_pids().values()) == set(pids.values()) - {pids[name]} and
                       sorted(n.split()[0] for n in world.role_pids()) == sorted(n.split()[0] for n in pids), 30,
                       f"another {name}, and nobody else's end")
        wait_until(lambda: all(role["state"] == "running" for role in world.status()["roles"]), 30, "all roles")
        still_serves(world)


def field(data):
    return b"\xff\xff\xff\xff" if data is None else len(data).to_bytes(4, "little") + data


def submission(recipients, hold_until, number=1):
    """SUBMIT with an envelope (src/message/envelope.c) of a message without content, whose id is that number."""
    times = b"".join(n.to_bytes(8, "little") for n in (0, 0, hold_until))
    strings = [b"s@back.test", None, b"x", b"x", b"x", b""]
    return (bytes(8) + number.to_bytes(8, "little") + b"\1\0\0\0" + times + b"".join(map(field, strings)) +
            len(recipients).to_bytes(4, "little") + b"".join(b"\0\0" + b"".join(map(field, r)) + field(None) for r in recipients) +
            bytes(4))


def test_a_notice_longer_than_a_call_is_told_in_parts(world):
    """What no client can give: a receiver that was taken over hands in a thousand recipients of 4 KiB each."""
    name = next(name for name in world.role_pids() if name.startswith("store"))
    pids, message_id = world.role_pids(), 25 * "0" + "1"
    ends = next(pair for pair in between_roles(world) if {end.role.split()[0] for end in pair} == {"receiver", "store"})
    recipients = [(b"%d@%s" % (i, 2030 * b"x"), 2040 * b"y", 60 * b"z") for i in range(1000)]
    body = submission(recipients, 4 << 60)
    pieces = [body[at:at + 65536] for at in range(0, len(body), 65536)]
    say_as(next(end for end in ends if end.role.startswith("receiver")),
           b"".join(frame(SUBMIT, piece, flags=MORE) for piece in pieces[:-1]) + frame(SUBMIT, pieces[-1])).close()
    wait_until(lambda: world.figures()["messages"] == 1, 30, "the message")
    world.cli("queue", "bounce", message_id, "--config", str(world.config_path))
    wait_until(lambda: world.log_events("notice-too-long") or world.role_pids().get(name) != pids[name], 30, "its notice")
    assert [line["recipients"] for line in world.log_events("notice-too-long")] == [1000]
    world.cli("queue", "rm", message_id, "--config", str(world.config_path))
    world.wait_until_empty()
    assert world.role_pids() == pids
    still_serves(world)


def test_who_has_a_mailbox_role_in_hand_reads_no_other_mail(world):
    """Its user may trace it. It gets the content of what it is to deliver, and no more; what it has is no matter of its own words."""
    links_of_store = {end.role.split()[0]: end for pair in between_roles(world) for end in pair
                      if "store" in {end.role.split()[0] for end in pair}}
    mailbox, receiver = links_of_store["mailbox"], links_of_store["receiver"]

    def read(number):
        return ask_as(mailbox, READ, bytes(8) + number.to_bytes(8, "little") + bytes(8) + (100).to_bytes(4, "little"))

    mails = len(world.mails())
    os.kill(mailbox.pid, signal.SIGSTOP)
    try:
        # At once: the answers, to a receiver that did not ask, end the link.
        say_as(receiver, frame(SUBMIT, submission([(b"x@elsewhere.test", None, None)], 4 << 60, number=3)) +
               frame(SUBMIT, submission([(b"ok@local.test", None, None)], 0, number=4))).close()
        wait_until(lambda: world.figures()["messages"] == 2, 30, "both messages")
        wait_until(lambda: read(4) == bytes(1), 30, "its own")
        assert read(3) == bytes([DENIED])
    finally:
        os.kill(mailbox.pid, signal.SIGKILL)  # it has not heard what was answered in its name
    world.wait_for_mail(count=mails + 1)
    world.cli("queue", "rm", 25 * "0" + "3", "--config", str(world.config_path))
    world.wait_until_empty()
    still_serves(world)
