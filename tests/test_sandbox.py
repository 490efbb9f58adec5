"""What each role may: strace sees only its allow-list; a role that crashes takes nobody with it; weaker kernels are said so."""
import contextlib
import ctypes
import os
import re
import signal
import smtplib
import socket
import sys

import pytest

from harness import Postrider, binary, free_port, wait_until
from peers import Tool

SITE = """
hostname mx.local.test
state {state}
listen mx {{ address 127.0.0.1:{port}; relay from 127.0.0.1; connections 500 per-client }}
domain local.test {{ mailbox ok; alias postmaster -> ok; deliver maildir {mail}/{{domain}}/{{local}} }}
route default {{ via 127.0.0.1:{next_port}; tls off }}
"""

# Written down here once more, so that a wider filter is noticed.
ALWAYS = set("""
read write readv writev pread64 preadv lseek close fstat newfstatat recvfrom recvmsg sendto sendmsg shutdown getsockopt
setsockopt getsockname getpeername epoll_wait epoll_pwait epoll_ctl epoll_create1 eventfd2 signalfd4 poll ppoll nanosleep
clock_nanosleep futex sched_yield clock_gettime clock_getres gettimeofday time getrandom brk munmap mremap madvise getpid
gettid getuid geteuid getgid getegid getrusage sysinfo uname sched_getaffinity set_robust_list rseq membarrier rt_sigaction
rt_sigprocmask rt_sigreturn sigaltstack tgkill restart_syscall exit exit_group mmap mprotect clone clone3 prctl prlimit64
fcntl ioctl
""".split())
ACCEPT = {"accept", "accept4"}
CONNECT = {"connect", "bind", "sendmmsg", "recvmmsg", "socket", "socketpair"}
FILES = set("""openat2 openat open mkdirat renameat renameat2 unlinkat fsync fdatasync ftruncate fallocate fadvise64 getdents64
fstatfs flock pwrite64 pwritev stat lstat statx""".split())
MAY = {
    "receiver": ALWAYS | ACCEPT, "submission": ALWAYS | ACCEPT, "console": ALWAYS | ACCEPT,
    "gate": ALWAYS | CONNECT | FILES, "sender": ALWAYS | CONNECT, "resolver": ALWAYS | CONNECT, "checker": ALWAYS | CONNECT,
    "store": ALWAYS | FILES, "mailbox": ALWAYS | FILES, "keys": ALWAYS | FILES,
    "fetch": ALWAYS | CONNECT | FILES,
}


def calls_after_the_sandbox(folder, threads):
    """The names of the system calls in the traces of these threads, from the filter on (threads that began later: all)."""
    lines = []
    for tid in threads:
        path = folder / f"trace.{tid}"
        if path.exists():
            lines += path.read_text(errors="replace").splitlines()
    timed = sorted((float(line.split(" ", 1)[0]), line.split(" ", 1)[1]) for line in lines if re.match(r"\d+\.\d+ ", line))
    entered = [at for at, line in timed if line.startswith(("seccomp(SECCOMP_SET_MODE_FILTER", "seccomp(0x1"))]
    assert entered, "no seccomp filter was set"
    names = {}
    for at, line in timed:
        if at > entered[-1] and (match := re.match(r"([a-z_0-9]+)\(", line)):
            names.setdefault(match.group(1), line)
    return names


def sanitized(path):
    return b"__asan_init" in path.read_bytes()


@pytest.mark.parametrize("pretend", [None, "landlock=0,no-guard-advice"])
def test_strace_of_each_role_shows_only_its_allow_list(tmp_path, pretend):
    release = binary("RELEASE")
    if sanitized(release):
        pytest.skip("the sanitizers need more calls: POSTRIDER_RELEASE names a build without them")
    traces = tmp_path / "traces"
    traces.mkdir()
    strace = ["strace", "-D", "-ff", "-qq", "-ttt", "-s", "8", "-o", str(traces / "trace")]
    with Postrider(tmp_path / "b", SITE.replace("; relay from 127.0.0.1", "")) as second, \
            Postrider(tmp_path / "a", SITE, binary_path=release, command=strace, next_port=second.port,
                      environment={"POSTRIDER_PRETEND": pretend} if pretend else {}) as server:
        server.send()
        server.send(to="ok@local.test", content=b"Subject: long\r\n\r\n" + b"x" * 900 * 1024 + b"\r\n")
        server.send(to="other@nowhere.test", sender="ok@local.test")  # refused by the next hop: a notice is composed
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            server.send(to="nobody@local.test")
        server.wait_for_mail(count=3)
        server.wait_until_empty()
        server.cli("queue", "list", "--config", str(server.config_path))
        roles = {role: int(pid) for role, pid in server.role_pids().items()}
        threads = {role: {int(t) for t in os.listdir(f"/proc/{pid}/task")} for role, pid in roles.items()}
        server.stop()
    for role, pid in roles.items():
        kind = role.split()[0]
        names = calls_after_the_sandbox(traces, threads[role] | {pid})
        assert len(names) > 5, role
        more = set(names) - MAY[kind]
        assert not more, (role, [names[name] for name in more])
        if kind in ("receiver", "submission", "console"):
            assert not set(names) & {"socket", "connect", "open", "openat", "openat2", "bind", "listen", "execve", "fork"}


def test_what_is_not_allowed_kills(tmp_path):
    """The filter is real: /proc says so of every role."""
    with Postrider(tmp_path, SITE) as server:
        for role, pid in server.role_pids().items():
            with open(f"/proc/{pid}/status", encoding="ascii") as status:
                text = status.read()
            assert re.search(r"^Seccomp:\s+2$", text, re.M), role
            assert re.search(r"^NoNewPrivs:\s+1$", text, re.M), role


def test_a_route_to_a_unix_socket_opens_the_way_to_it(tmp_path):
    """Senders and the gate of a site without one may make no Unix socket; a reload that adds one makes new ones, which may."""
    place = tmp_path / "lmtp"
    with Postrider(tmp_path, SITE) as server, Tool(tmp_path, "sink", "sink", "--lmtp", "--obey", "--listen", str(place), "--quiet",
                                                   "--maildir", str(tmp_path / "got")):
        server.write_config(SITE + "domain lmtp.test {{ recipients verify; alias postmaster -> ok@lmtp.test; deliver lmtp:{place} }}\n",
                            place=place)
        wait_until(place.exists, what="the socket")
        server.cli("reload", "--config", str(server.config_path))
        with pytest.raises(smtplib.SMTPRecipientsRefused):  # the gate has asked there
            server.send(to="550-nobody@lmtp.test")
        server.send(to="somebody@lmtp.test")
        server.wait_until_empty()
        assert len(list((tmp_path / "got/new").iterdir())) == 1


PIDFD_GETFD = 438  # linux/unistd.h; Python knows pidfd_open() alone
PRETEND = [None, "landlock=0,no-guard-advice", "landlock=1", "landlock=2"]


def sockets_of(pid):
    count = 0
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            count += os.readlink(f"/proc/{pid}/fd/{fd}").startswith("socket:")
    return count


@pytest.mark.parametrize("pretend", PRETEND)
def test_a_receiver_that_crashes_takes_nobody_with_it(tmp_path, pretend):
    server = Postrider(tmp_path, SITE, environment={"POSTRIDER_PRETEND": pretend} if pretend else {})
    server.crashes = lambda: ""  # one is meant
    with server:
        roles = server.role_pids()
        first, second = roles["receiver 0"], roles["receiver 1"]
        idle = sockets_of(first), sockets_of(second)
        clients = []
        # All may be taken by the same receiver: it is the one that is awake.
        while len(clients) < 480 and (sockets_of(first) == idle[0] or sockets_of(second) == idle[1]):
            burst = [socket.create_connection(("127.0.0.1", server.port), timeout=30) for _ in range(16)]
            for connection in burst:
                client = smtplib.SMTP(timeout=30)
                client.sock = connection
                assert client.getreply()[0] == 220
                client.ehlo("client.test")
                client.mail("a@client.test")
                client.rcpt("ok@local.test")
                clients.append(client)
        here = sockets_of(second) - idle[1]
        assert here > 0
        os.kill(first, signal.SIGSEGV)
        served = 0
        for n, client in enumerate(clients):
            with contextlib.suppress(smtplib.SMTPException, OSError):
                assert client.data(f"Subject: {n}\r\n\r\n{n}\r\n".encode())[0] == 250
                client.quit()
                served += 1
        assert served == here, "each session of the other receiver goes on"
        mails = server.wait_for_mail(count=served) if served else []
        wait_until(lambda: server.role_pids().get("receiver 0") not in (None, first), what="a new receiver")
        for _ in range(6):
            server.send()
        server.wait_for_mail(count=len(mails) + 6)
        server.wait_until_empty()
        assert len(server.mails()) == len(mails) + 6
        status = server.status()
        assert [r["restarts"] for r in status["roles"] if r["role"] == "receiver"].count(0) == 1
        if pretend and "landlock=0" in pretend:
            assert all("landlock 0" in role["sandbox"] or "no landlock" in role["sandbox"].lower()
                       for role in status["roles"]), status["roles"][0]["sandbox"]
            server.logged("sandbox-weak")
        else:
            assert all("seccomp" in role["sandbox"] for role in status["roles"])


def test_sandbox_require_refuses_a_weak_kernel(tmp_path):
    server = Postrider(tmp_path, SITE + "sandbox require\n", environment={"POSTRIDER_PRETEND": "landlock=0"})
    server.crashes = lambda: ""
    server.start(wait=False)
    try:
        wait_until(lambda: [e for e in server.log_events("sandbox-weak") if e["level"] == "error"], what="the refusal")
        wait_until(lambda: [e for e in server.log_events("role-ended") if e["exit"] == 78], what="the end of a role")
        with pytest.raises(AssertionError):
            server.cli("status", "--config", str(server.config_path))
    finally:
        server.stop()
    with Postrider(tmp_path / "strong", SITE + "sandbox require\n") as strong:
        strong.send()
        strong.wait_for_mail()


def test_a_role_that_breaks_the_rules_of_its_control_link_starts_anew(tmp_path):
    """It could be told nothing any more, not even to stop."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Postrider(tmp_path, SITE) as server:
        for role in ("gate 0", "store 0"):
            pid = server.role_pids()[role]
            control = libc.syscall(PIDFD_GETFD, os.pidfd_open(pid), 3, 0)
            if control < 0:
                pytest.skip("only root may take another process's descriptor here")
            os.write(control, b"\xff" * 12)  # a frame of 4 GiB
            os.close(control)
            wait_until(lambda: server.role_pids().get(role) not in (None, pid), what="a new process")  # noqa: B023
            wait_until(lambda: {r["state"] for r in server.status()["roles"]} == {"running"}, what="all roles")
            server.send()
        assert [e["role"] for e in server.logged("role-violated-control", 2)] == ["gate", "store"]
        server.wait_for_mail(count=2)


def test_a_sender_or_store_that_crashes_loses_nothing(tmp_path):
    server = Postrider(tmp_path, SITE, next_port=free_port())
    server.crashes = lambda: ""
    with server:
        for role in ("sender 0", "store 0", "gate 0", "checker 0", "mailbox 0"):
            server.send(to="ok@local.test")
            pid = server.role_pids()[role]
            os.kill(pid, signal.SIGSEGV)
            wait_until(lambda: server.role_pids().get(role, pid) != pid, what="a new process")  # noqa: B023
            wait_until(lambda: {r["state"] for r in server.status()["roles"]} == {"running"}, what="all roles")
        server.wait_for_mail(count=5)
        server.wait_until_empty()


# Runs the command behind it with openat2() answered by ENOSYS, as systemd does for RestrictSUIDSGID= and old containers do.
HIDES_OPENAT2 = """
import ctypes, os, struct, sys
OPENAT2, LOAD_NUMBER, JUMP_IF_EQUAL, RETURN, ALLOW, ENOSYS = 437, 0x20, 0x15, 0x06, 0x7fff0000, 0x00050000 | 38
steps = [(LOAD_NUMBER, 0, 0, 0), (JUMP_IF_EQUAL, 0, 1, OPENAT2), (RETURN, 0, 0, ENOSYS), (RETURN, 0, 0, ALLOW)]
filter = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(steps), ctypes.addressof(filter)))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, program) == 0, os.strerror(ctypes.get_errno())
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_a_filter_around_us_that_hides_a_call_is_said(tmp_path):
    """No "input/output error", which sends the reader to the disk."""
    server = Postrider(tmp_path, SITE, command=[sys.executable, "-c", HIDES_OPENAT2])
    server.start(wait=False)
    try:
        (first, *_) = wait_until(lambda: server.log_events("spool-cannot-be-opened"), what="the spool's error")
        assert "a filter around this process hides it (ENOSYS)" in first["error"]
    finally:
        server.stop()
    assert not server.crashes()
