"""The works: each brings one peer up on a fresh disk, has mail sent to it and notes what that cost.

A work is a function of (bench, peer); `bench` is what bench/run told and where results go. Works in ROUNDS run in every round,
peer after peer; those in ONCE hold much and run in the first round only.
"""
import contextlib
import json
import os
import select
import signal
import smtplib
import subprocess
import time

import machine
import peers
from figures import together
from machine import NEXT_HOPS, PORT, SINK

KEPT, ONE = 0, 1  # messages a connection: all, one


class Bench:
    def __init__(self, folder, disk, options):
        self.folder, self.disk, self.quick = folder, disk, options.quick
        self.seconds, self.idle = options.seconds, options.idle
        self.results, self.round = [], 0
        self.client = machine.Group("client")
        self.others = set(options.peers) - {"postrider", "postfix"}

    def note(self, cell, peer, **found):
        result = {"cell": cell, "peer": peer.name, "round": self.round,
                  **{name: round(value, 6) if isinstance(value, float) else value for name, value in found.items()}}
        self.results.append(result)
        print("  " + " ".join(str(value) if name in ("cell", "peer") else f"{name}={value}" for name, value in result.items()),
              flush=True)

    # ---- a server, a sink, a client

    @contextlib.contextmanager
    def server(self, peer, mode, tls=False, cpus=None):
        with self.disk.fresh() as at:
            try:
                self.start(peer, at, mode, tls, cpus)
                yield at
            finally:
                peer.stop()

    def start(self, peer, at, mode, tls=False, cpus=None):
        """Seconds until it greets."""
        began = time.monotonic()
        peer.start(at, mode, tls, cpus)
        greeted = machine.greets(PORT, began + 60)
        if not greeted:
            raise RuntimeError(f"{peer.name} did not greet within a minute")
        if hasattr(peer, "ready"):
            peer.ready(mode)
        return greeted - began

    def tool(self, *words, **more):
        return subprocess.Popen([peers.Postrider.binary, *(str(word) for word in words)], stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=self.client.join, **more)

    def load(self, *words, clients=1, timeout=30):
        """Figures of `postrider load`; of several that work at the same time, where one would be the bound."""
        processes = [self.tool("load", "--server", f"127.0.0.1:{PORT}", "--json", "--quiet", "--to", "x@d{d}.test", *words)
                     for _ in range(clients)]
        return together([self.figures_of(process, timeout) for process in processes])

    def figures_of(self, process, timeout):
        """A server that stops answering is waited for no longer; what it took is told all the same."""
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=60)  # sessions without an answer count as lost
        if not out.startswith("{"):
            raise RuntimeError(f"load: {err.strip()[-300:]}")
        return json.loads(out)

    @contextlib.contextmanager
    def sink(self):
        process = self.tool("sink", "--json", "--quiet",
                            *(word for hop in range(NEXT_HOPS) for word in ("--listen", f"127.0.0.1:{SINK + hop}")))
        for _ in range(NEXT_HOPS):
            process.stdout.readline()
        try:
            with smtplib.SMTP("127.0.0.1", SINK) as client:
                yield lambda: json.loads(client.docmd("HELP")[1])
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=60)

    @contextlib.contextmanager
    def accounts(self, peer):
        """What was spent meanwhile; add() makes a result of it."""
        began, cpu, client, whole = time.monotonic(), peer.group.seconds(), self.client.seconds(), machine.machine_seconds()
        spent = {}
        yield spent
        spent["cpu_s"] = peer.group.seconds() - cpu
        others = machine.machine_seconds() - whole - spent["cpu_s"] - (self.client.seconds() - client)
        spent["other"] = max(0.0, others / (time.monotonic() - began))  # processors that did something else: the run was disturbed
        spent["peak_mib"] = peer.group.memory()[1] / 2**20

    def accept(self, peer, cell, *words, warm=True, clients=1, **more):
        """Sends for the time that is told, and notes how much was taken."""
        machine.forget()
        if warm:
            self.load("--sessions", 5, "--messages", 20)
        with self.accounts(peer) as spent:
            figures = self.load("--seconds", self.seconds, *words, clients=clients)
        taken = max(1, figures["accepted"])
        self.note(cell, peer, rate=figures["rate"], accepted=figures["accepted"], failed=figures["tried"] - figures["accepted"],
                  cpu=1000 * spent["cpu_s"] / taken, p50=figures["latency_ms"]["p50"], p99=figures["latency_ms"]["p99"],
                  dot_p50=figures["dot_ms"]["p50"], other=spent["other"], peak_mib=spent["peak_mib"], **more)
        return figures

    def drain(self, peer, cell, words, arrived, way=None, limit=60):
        """Sends for the time that is told and waits until all that was taken has arrived(): the rate counts both."""
        with self.accounts(peer) as spent:
            began = time.monotonic()
            figures = self.load(*words)
            until = time.monotonic() + limit
            while (count := arrived()) < figures["accepted"] and time.monotonic() < until:
                time.sleep(0.02)
            ended = time.monotonic()
        found = way() if way else {}
        last = found.pop("last", ended)
        self.note(cell, peer, rate=count / (last - began), arrived=count, left=figures["accepted"] - count,
                  accept_rate=figures["rate"], cpu=1000 * spent["cpu_s"] / max(1, count), other=spent["other"],
                  peak_mib=spent["peak_mib"], **found)


def sizes(*words):
    return [str(word) for word in words]


def session_words(size, sessions, per_connection):
    return sizes("--size", size, "--sessions", sessions, "--per-connection", per_connection)


def cell_name(size, sessions, per_connection):
    return f"accept/{size}/s{sessions}/k{per_connection}"


# ---- in every round ------------------------------------------------------------------------------------------------

SESSIONS, SIZES, RECIPIENTS = (1, 20, 100, 400), (1024, 10240, 102400, 5 << 20), (1, 10, 100)


def accept(bench, peer):
    """Durable, nothing delivered."""
    cells = [(10240, sessions, KEPT) for sessions in SESSIONS]
    if bench.quick and peer.name in bench.others:
        cells = [(10240, 100, KEPT)]
    elif bench.quick:
        cells += [(10240, 20, ONE), (102400, 20, KEPT)]
    else:
        cells += [(10240, sessions, ONE) for sessions in SESSIONS]
        cells += [(size, 20, per) for size in SIZES if size != 10240 for per in (KEPT, ONE)]
    with bench.server(peer, "hold"):
        for cell in cells:
            bench.accept(peer, cell_name(*cell), *session_words(*cell))
        if not bench.quick:
            for count in RECIPIENTS:
                bench.accept(peer, f"recipients/{count}", "--sessions", 20, "--rcpt", count, "--to", "x{r}@d{d}.test")


def light(bench, peer):
    """One message at a time, with nothing else to do: from the final dot to 250, and from the client to the next hop."""
    if bench.quick and peer.name in bench.others:
        return
    with bench.server(peer, "hold"):
        bench.accept(peer, "light/dot", "--sessions", 1, "--rate", 50, "--seconds", 2)
    with bench.server(peer, "relay"):
        with bench.sink() as count:
            bench.load("--sessions", 1, "--messages", 5, "--rate", 20)
        with bench.sink() as count:
            bench.drain(peer, "light/way", sizes("--sessions", 1, "--rate", 25, "--seconds", 2),
                        lambda: count()["messages"], one_way(bench, count))


TLS_SESSIONS = (20, 100)


def tls(bench, peer):
    if bench.quick and peer.name in bench.others:
        return
    with bench.server(peer, "hold", tls=True):
        # A handshake costs a client more than the server: one client would be the bound.
        bench.accept(peer, "tls/new", "--tls", "--visit", "--sessions", 10, clients=2, warm=False)
        for sessions in TLS_SESSIONS:
            bench.accept(peer, f"tls/kept/s{sessions}", "--tls", "--sessions", sessions)


def one_way(bench, count):
    """What the sink tells of the messages on their way, beside when the last one came."""
    def found():
        counts = count()
        return {"last": counts["last_ns"] / 1e9, "way_p50": counts["way_ms"]["p50"], "way_p99": counts["way_ms"]["p99"]}
    return found


def relay(bench, peer):
    """Taken and passed on to one next hop, until all is there. OpenSMTPD is left out: with as many sessions as this its relay
    stops for minutes after the first few hundred messages, whatever limits it is given, and nothing is promised to beat it."""
    if peer.name == "opensmtpd":
        return
    with bench.server(peer, "relay"), bench.sink() as count:
        bench.drain(peer, "relay/one", sizes("--sessions", 50, "--seconds", bench.seconds, "--domains", 1),
                    lambda: count()["messages"], one_way(bench, count))


def fanout(bench, peer):
    """To 200 domains that live on 8 next hops."""
    if bench.quick and peer.name in bench.others:
        return
    with bench.server(peer, "fanout"), bench.sink() as count:
        bench.drain(peer, "relay/many", sizes("--sessions", 50, "--seconds", bench.seconds),
                    lambda: count()["messages"], one_way(bench, count))


def maildir(bench, peer):
    """Into 1 and into 100 Maildirs, until all of it is there."""
    if peer.name in bench.others:
        return
    for boxes in (1, peers.BOXES):
        with bench.server(peer, "maildir") as at:
            def arrived(at=at):
                count = 0
                for n in range(peers.BOXES):
                    with contextlib.suppress(FileNotFoundError), os.scandir(at / f"mail/u{n}/new") as found:
                        count += sum(1 for _ in found)
                return count
            bench.drain(peer, f"maildir/{boxes}", sizes("--sessions", 50, "--seconds", bench.seconds, "--domains", boxes, "--to",
                                                        "u{d}@local.test"), arrived)


def cores(bench, peer):
    """The server on one processor and on two; the client is where it likes."""
    if bench.quick:
        return
    every = sorted(os.sched_getaffinity(0))
    for count in (1, 2):
        if len(every) < count:
            continue
        with bench.server(peer, "hold", cpus=every[:count]):
            bench.accept(peer, f"cores/accept/{count}", "--sessions", 100)
        with bench.server(peer, "relay", cpus=every[:count]), bench.sink() as counts:
            bench.drain(peer, f"cores/relay/{count}", sizes("--sessions", 50, "--seconds", bench.seconds),
                        lambda: counts()["messages"], one_way(bench, counts))


# ---- once ----------------------------------------------------------------------------------------------------------

HELD = {"postrider", "haraka"}  # they hold as many as --idle says


def idle(bench, peer):
    """What a session costs that is open and says nothing. Peers with a process a session hold fewer."""
    if bench.quick and peer.name in bench.others:
        return
    for kind in ("plain", "tls"):
        count = bench.idle if peer.name in HELD else min(400, bench.idle)
        with bench.server(peer, "hold", tls=kind == "tls"):
            bench.load("--sessions", 2, "--messages", 4)
            before = peer.group.memory()[0]
            holder = bench.tool("load", "--server", f"127.0.0.1:{PORT}", "--visit", "--sessions", count, "--messages", count,
                                "--hold", 600, "--timeout", 120, "--json", "--quiet", *(["--tls"] if kind == "tls" else []))
            try:
                held, now = settle(peer, count)
                bench.note(f"idle/{kind}", peer, held=held, kib=(now - before) / 1024 / max(1, held), pss_mib=now / 2**20)
            finally:
                holder.kill()
                holder.communicate()


SETTLED_S = 8  # some give back what they need no more some seconds after their sessions fell silent


def settle(peer, count, limit=120):
    """Waits until so many sessions stand, and memory and processor have been at rest for a while."""
    until, before, since = time.monotonic() + limit, 0, time.monotonic()
    while True:
        held, now, cpu = machine.established(PORT), peer.group.memory()[0], peer.group.seconds()
        time.sleep(0.5)
        # Handshakes may go on behind the connections: no processor time is taken any more when all is done.
        if held < count or peer.group.seconds() - cpu > 0.05 or abs(now - before) > now / 500:
            before, since = now, time.monotonic()
        if time.monotonic() - since > SETTLED_S or time.monotonic() > until:
            return held, now


def queue(bench, peer):
    """Many messages wait: does it still accept as fast, list a page, come up again, deliver what is new?"""
    if bench.quick and peer.name in bench.others:
        return
    large = {"postrider": [100000] if bench.quick else [100000, 1000000], "postfix": [3000] if bench.quick else [100000]}
    for count in large.get(peer.name, [20000]):
        long_queue(bench, peer, "queue/full" if count == large.get(peer.name, [20000])[-1] else f"queue/{count}", count)


def long_queue(bench, peer, cell, count):
    crowd = ["--sessions", 100, "--size", 1024 if count >= 1000000 else 10240]
    with bench.server(peer, "defer") as at:
        bench.load("--sessions", 20, "--seconds", bench.seconds)  # its memory was used before, as it is when the queue is long
        machine.forget()
        empty = [bench.load("--sessions", 20, "--seconds", bench.seconds) for _ in range(3)]
        # What is always there, what so many sessions take and what is kept of the newest mail is there before, too: what is
        # counted is what each more takes.
        first = bench.load(*crowd, "--messages", count // 5, timeout=600)
        before = peer.group.memory()[0]
        fill = bench.load(*crowd, "--messages", count, timeout=1200)
        now, most = peer.group.memory()
        machine.forget()  # the page cache is empty, as it was before the first looks
        full = [bench.load("--sessions", 20, "--seconds", bench.seconds) for _ in range(3)]
        began = time.monotonic()
        listed = len(peer.page().splitlines()) if hasattr(peer, "page") else None
        page = time.monotonic() - began
        peer.stop()
        with bench.sink() as counts:
            began = time.monotonic()
            greeting = bench.start(peer, at, "relay")
            bench.load("--sessions", 1, "--messages", 1)
            while not counts()["messages"] and time.monotonic() < began + 120:
                time.sleep(0.005)
            delivery = counts()["first_ns"] / 1e9 - began if counts()["messages"] else None
    empty_rate, rate = (sorted(figures["rate"] for figures in three)[1] for three in (empty, full))
    bench.note(cell, peer, messages=sum(figures["accepted"] for figures in [first, fill, *empty, *full]), empty_rate=empty_rate,
               rate=rate, of_empty=rate / empty_rate, bytes_each=(now - before) / fill["accepted"], peak_mib=most / 2**20,
               page_s=page if listed else None, greeting_s=greeting, delivery_s=delivery)


def disk(bench, peer):
    """What each more queued message takes on disk, written by many sessions at once: what lies ready before the first, and is
    filled by those before, is not counted. Postrider takes disk by segments of 64 MiB, so that the last digits are chance."""
    if bench.quick and peer.name in bench.others:
        return
    count = 5000 if bench.quick and peer.name != "postrider" else 100000 if bench.quick else 200000
    with bench.server(peer, "hold"):
        bench.load("--sessions", 100, "--messages", count // 5, timeout=600)
        before = bench.disk.kept()
        figures = bench.load("--sessions", 100, "--messages", count, timeout=600)
        subprocess.run(["sync", "-f", bench.disk.at], check=True)
        bench.note("disk/10240", peer, kb_each=(bench.disk.kept() - before) / 1000 / figures["accepted"], messages=count)


SYNCS = "fsync,fdatasync,sync_file_range,sync,syncfs,msync"


def durability(bench, peer):
    """The system calls that sync, counted by strace, against the messages acknowledged meanwhile."""
    counts = bench.folder / "strace"
    with bench.server(peer, "hold"):
        bench.load("--sessions", 5, "--messages", 20)
        tracer = subprocess.Popen(["strace", "-f", "-c", "-e", f"trace={SYNCS}", "-o", counts,
                                   *(word for pid in peer.group.pids() for word in ("-p", str(pid)))],
                                  stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        while b"attached" not in tracer.stderr.readline():
            if tracer.poll() is not None:
                raise RuntimeError("strace cannot attach")
        figures = bench.load("--sessions", 20, "--seconds", bench.seconds)
        tracer.send_signal(signal.SIGINT)
        select.select([tracer.stderr], [], [], 0)
        tracer.communicate(timeout=60)
    calls = {}
    for line in counts.read_text(encoding="ascii").splitlines():
        words = line.split()
        if words and words[-1] in SYNCS.split(","):
            calls[words[-1]] = calls.get(words[-1], 0) + int(words[3])
    bench.note("durability", peer, accepted=figures["accepted"], syncs=sum(calls.values()), calls=calls)


def crosscheck(bench, peer):
    """Postfix's own generator and sink on the same work, so that nobody has to trust ours."""
    if peer.name in bench.others:
        return
    count = 20000 if peer.name == "postrider" else 2000
    source = ["smtp-source", "-d", "-s", "20", "-l", "10240", "-m", str(count), "-f", "load@load.invalid", "-t", "x@d0.test",
              f"inet:127.0.0.1:{PORT}"]

    def run_source():
        subprocess.run(source, check=True, capture_output=True, preexec_fn=bench.client.join, timeout=300)

    with bench.server(peer, "hold"):
        bench.load("--sessions", 5, "--messages", 20)
        with bench.accounts(peer) as spent:
            began = time.monotonic()
            run_source()
            rate = count / (time.monotonic() - began)
        bench.note("crosscheck/accept", peer, rate=rate, cpu=1000 * spent["cpu_s"] / count, other=spent["other"])
    with bench.server(peer, "relay"):
        sink = subprocess.Popen(["smtp-sink", "-M", str(count), f"inet:127.0.0.1:{SINK}", "1000"], stdin=subprocess.DEVNULL,
                                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, preexec_fn=bench.client.join)
        try:
            with bench.accounts(peer) as spent:
                began = time.monotonic()
                run_source()
                sink.wait(300)
                rate = count / (time.monotonic() - began)
            bench.note("crosscheck/relay", peer, rate=rate, cpu=1000 * spent["cpu_s"] / count, other=spent["other"])
        finally:
            sink.kill()
            sink.communicate()


ROUNDS = {work.__name__: work for work in (accept, light, relay, fanout, maildir, tls, cores)}
ONCE = {work.__name__: work for work in (idle, queue, disk, durability, crosscheck)}

PLOTS = {  # name: title, x axis, y axis, figure, {cell: scale}
    "accept-sessions": ("accept 10 KiB on kept connections", "sessions", "messages/s", "rate",
                        {cell_name(10240, n, KEPT): n for n in SESSIONS}),
    "accept-one-message": ("accept 10 KiB, one message per connection", "sessions", "messages/s", "rate",
                           {cell_name(10240, n, ONE): n for n in SESSIONS}),
    "accept-size": ("accept on 20 kept connections", "bytes a message", "messages/s", "rate",
                    {cell_name(n, 20, KEPT): n for n in SIZES}),
    "accept-cpu": ("CPU to accept 10 KiB on kept connections", "sessions", "s per 1000 messages", "cpu",
                   {cell_name(10240, n, KEPT): n for n in SESSIONS}),
    "recipients": ("accept 10 KiB on 20 kept connections", "recipients", "messages/s", "rate",
                   {f"recipients/{n}": n for n in RECIPIENTS}),
    "maildir": ("delivery into Maildirs", "Maildirs", "messages/s", "rate", {"maildir/1": 1, "maildir/100": 100}),
    "relay": ("relay 10 KiB, drained", "next hops", "messages/s", "rate", {"relay/one": 1, "relay/many": NEXT_HOPS}),
    "cores-accept": ("accept on processors", "processors", "messages/s", "rate", {f"cores/accept/{n}": n for n in (1, 2)}),
    "cores-relay": ("relay on processors", "processors", "messages/s", "rate", {f"cores/relay/{n}": n for n in (1, 2)}),
}
