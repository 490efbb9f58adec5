"""Kills of a server's processes, and which duplicates they excuse.

A server here is anything with `process` (its first process), `role_pids()` ({"sender 0": pid}) and `pending()`: the
(queue id, recipient) of which its spool says on disk that they wait; recipient is None where it can say that of the whole
message only.
"""
import collections
import contextlib
import gc
import os
import signal
import time
import typing

import spool_reader
from harness import is_alive, wait_until
from peers import ports_of

LINGER = 5  # seconds
KEEPERS = ("store", "qmgr")             # they note what became of each recipient
SENDERS = ("sender", "smtp", "relay")
LOCAL = ("mailbox", "virtual")
ALL = ("all", "supervisor", "disk", *KEEPERS)


class Kill(typing.NamedTuple):
    """One kill, and what others than the daemon saw of it. The victim "disk": all processes and the file system."""
    victim: str
    began: float
    over: float      # from here on the dead may be started again
    pending: set     # (queue id, recipient) of which the spool says on disk that it waits: what Python reads there
    ports: set       # of the victim's connections, as the kernel lists them

    def may_have_taken_the_reply_of(self, copy):
        """Whether this copy had come, or was on its way, from a process that died here before its outcome was on disk."""
        role = self.victim.split()[0]
        if (copy.queue_id, copy.recipient) not in self.pending and (copy.queue_id, None) not in self.pending:
            return False
        if role in ALL:
            return copy.born <= self.over + LINGER  # senders and mailboxes outlive the store, with nobody to tell
        if role in SENDERS:
            return copy.port in self.ports
        return role in LOCAL and copy.port == 0 and copy.born <= self.over


def read_spool(path):
    """The independent reader's judgement of a Postrider spool as it lies there: what is pending, and what is not sound."""
    try:
        found = spool_reader.Spool(str(path))
    except FileNotFoundError:
        return set(), []  # the first segment's name was not safe yet, and nothing acknowledged
    except spool_reader.Bad as bad:
        return set(), [str(bad)]
    pending = {(spool_reader.id_text(*number), recipient["address"]) for number, message in found.messages.items()
               for recipient, status in zip(message["base"]["envelope"]["recipients"], message["statuses"])
               if status["state"] == 0}
    problems = found.problems
    del found
    gc.collect()  # it maps the segments, which would keep the disk in use
    return pending, problems


def suspend(pids, what):
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, what)


def kill_everything(server, first_only=False):
    """All processes at once; or the first, whose end the others follow."""
    suspend([server.process.pid], signal.SIGSTOP)  # so that it starts no other meanwhile
    roles = server.role_pids()
    suspend([server.process.pid, *(() if first_only else roles.values())], signal.SIGKILL)
    server.process.wait()
    wait_until(lambda: not any(is_alive(pid) for pid in roles.values()), 30, "the end of all roles")
    server.process = None


def kill_role(server, victim):
    """Freezes those who could note or mend something, kills one role, reads the spool as it is at that moment."""
    roles, began = server.role_pids(), time.time()
    if victim not in roles:
        return None  # it has ended by itself
    frozen = {server.process.pid, roles[victim], *(pid for name, pid in roles.items() if name.split()[0] in KEEPERS)}
    suspend(frozen, signal.SIGSTOP)
    try:
        ports = ports_of(roles[victim]) if is_alive(roles[victim]) else set()
        suspend([roles[victim]], signal.SIGKILL)
        wait_until(lambda: not is_alive(roles[victim]), 30, "its end")
        return Kill(victim, began, time.time(), server.pending(), ports)
    finally:
        suspend(frozen, signal.SIGCONT)


def kill_something(server, chooser):
    """Kills one role or all, and starts again what does not start by itself."""
    victim = chooser.choice(sorted(server.role_pids()) + ["supervisor", "all"])
    if victim not in ("all", "supervisor"):
        return kill_role(server, victim)
    began = time.time()
    # A supervisor that dies takes its roles with it: their control links close.
    kill_everything(server, first_only=victim == "supervisor")
    pending, over = server.pending(), time.time()
    server.start()
    return Kill(victim, began, over, pending, set())


def unexplained(copies, kills):
    """
    At most one duplicate of a recipient for each death that took its final reply, so none but of those in flight at a kill:
    for each copy that another follows, a kill of its own hit the process that delivered it, or the store before it noted
    that. Returns how many followed, and the pairs of which no kill explains the second.
    """
    extra, bad, by_recipient = 0, [], collections.defaultdict(list)
    for copy in copies:
        by_recipient[copy.queue_id, copy.recipient].append(copy)
    for several in by_recipient.values():
        several.sort(key=lambda copy: copy.born)
        unused = list(kills) if len(several) > 1 else []
        for first, second in zip(several, several[1:]):
            extra += 1
            taker = next((kill for kill in unused
                          if kill.began <= second.born and kill.may_have_taken_the_reply_of(first)), None)
            if taker:
                unused.remove(taker)
            else:
                bad.append((first, second))
    return extra, bad


def in_flight(kills, copies):
    """How many recipients these kills could double: their copy had come, and the spool did not say so yet."""
    by_message = collections.defaultdict(list)
    for copy in copies:
        by_message[copy.queue_id].append(copy)
    return sum(len({(copy.queue_id, copy.recipient) for queue_id in {queue_id for queue_id, _ in kill.pending}
                    for copy in by_message[queue_id]
                    if copy.born <= kill.over and kill.may_have_taken_the_reply_of(copy)}) for kill in kills)
