"""Users from outside: `postrider user`, logins by our own file and by Dovecot, and what wrong passwords lead to.

POSTRIDER_FULL=1 tries 10,000 wrong passwords instead of some hundreds.
"""
import base64
import contextlib
import json
import os
import pathlib
import pty
import secrets
import shutil
import signal
import smtplib
import socket
import ssl
import statistics
import subprocess
import tempfile
import threading
import time

import pytest

from harness import Postrider, binary, free_port, wait_until
from test_submission import pieces_of, traces

FULL = os.environ.get("POSTRIDER_FULL") == "1"
GUESSES = 10000 if FULL else 300
NETWORKS = 1000 if FULL else 100

SITE = """
hostname mx.local.test
state {state}
listen mx {{ address 127.0.0.1:{port}; connections 1000 per-client }}
listen submissions {{ address 0.0.0.0:{submissions}; connections 1000 per-client }}
domain local.test {{ mailbox anna bob; alias postmaster -> anna; deliver maildir {mail}/{{domain}}/{{local}} }}
route default {{ via 127.0.0.1:{next_port}; tls off }}
users {users}
"""
PASSWORD = "Correct Horse äöü"
MARK = "".join(secrets.choice("ABCDEFGHKMNPQRSTUVWXYZ23456789") for _ in range(20))  # a password to be searched for


def tls():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Server(Postrider):
    def __init__(self, folder, users="file users { failures-within 1h; ban 1h }", **values):
        super().__init__(folder, config=SITE, submissions=free_port(), users=users, **values)

    def user(self, *words, password=None, check=True):
        return self.cli("user", *words, "--config", str(self.config_path), check=check,
                        input=None if password is None else password + "\n")

    @contextlib.contextmanager
    def taken_up(self, event="users"):
        """What is done to the file inside has reached the gate. (Trying until it works would be guessing.)"""
        before = len(self.log_events(event))
        yield
        wait_until(lambda: len(self.log_events(event)) > before, 30, f"the gate's \"{event}\"")

    @contextlib.contextmanager
    def client(self, source="127.0.0.1"):
        with smtplib.SMTP_SSL("127.0.0.1", self.values["submissions"], timeout=60, context=tls(),
                              source_address=(source, 0)) as client:
            client.ehlo("client.test")
            yield client

    def login(self, user, password, source="127.0.0.1", mechanism="PLAIN"):
        """The reply's code."""
        with self.client(source) as client:
            return login(client, user, password, mechanism)


def login(client, user, password, mechanism="PLAIN"):
    def b64(text):
        return base64.b64encode(text.encode()).decode()

    if mechanism == "PLAIN":
        return client.docmd("AUTH", "PLAIN " + b64(f"\0{user}\0{password}"))[0]
    code, _ = client.docmd("AUTH", "LOGIN")
    if code == 334:
        code, _ = client.docmd(b64(user))
    return client.docmd(b64(password))[0] if code == 334 else code


@pytest.fixture(scope="module", name="server")
def fixture_server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("users"))
    server.user("add", "Anna@local.test", "--send-as", "sales@local.test", password=PASSWORD)
    server.user("add", "bob", password="bob's")
    with server:
        yield server


def test_users_log_in(server):
    with server.client() as client:
        offered = client.esmtp_features["auth"].split()
    assert offered == ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN", "LOGIN"]
    for mechanism in ("PLAIN", "LOGIN"):
        assert server.login("anna@local.test", PASSWORD, mechanism=mechanism) == 235
        assert server.login("ANNA@local.test", PASSWORD, mechanism=mechanism) == 235
        assert server.login("anna@local.test", PASSWORD.replace("ä", "a\u0308"), mechanism=mechanism) == 235
        assert server.login("anna@local.test", "correct horse äöü", mechanism=mechanism) == 535
        assert server.login("nobody@local.test", PASSWORD, mechanism=mechanism) == 535


def bound_socket(path):
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(str(path))


def test_the_file_is_taken_up_and_kept_private(server):
    path = server.folder / "users"
    assert path.stat().st_mode & 0o777 == 0o600
    text = path.read_text(encoding="utf-8")
    assert PASSWORD not in text and "\nbob:$y$" in "\n" + text.split("\n", 1)[1]
    with server.taken_up():
        server.user("add", "carol", password="first")
    assert server.login("carol", "first") == 235
    with server.taken_up():
        server.user("passwd", "carol", password="second")
    assert server.login("carol", "second") == 235
    assert server.login("carol", "first") == 535
    listed = [json.loads(line) for line in server.user("list", "--json").stdout.splitlines()]
    assert [user["user"] for user in listed] == ["anna@local.test", "bob", "carol"]
    assert all(user["version"] == 1 for user in listed)
    assert listed[0]["send-as"] == ["sales@local.test"] and all(user["scram"] for user in listed)
    with server.taken_up():
        server.user("rm", "carol")
    assert server.login("carol", "second") == 535
    # Others can read it now: it is as good as lost, and nobody is told that his password is wrong.
    with server.taken_up("no-users"):
        path.chmod(0o644)
    assert server.login("bob", "bob's") == 454
    with server.taken_up():
        path.chmod(0o600)
    assert server.login("bob", "bob's") == 235
    # Whoever owns the folder cannot make us read by a link what only we may, nor have us wait for a pipe's writer.
    kept, other = path.with_name("kept"), path.with_name("other")
    os.link(path, kept)
    for plant in (lambda: other.symlink_to(kept), lambda: os.mkfifo(other, 0o600), lambda: bound_socket(other)):
        plant()
        with server.taken_up("no-users"):
            other.rename(path)
        assert server.login("bob", "bob's") == 454
        os.link(kept, other)
        with server.taken_up():
            other.rename(path)
        assert server.login("bob", "bob's") == 235
    # What stands in the way is said once, and said anew when it is something else.
    first = len(server.log_events("users-not-opened"))
    with server.taken_up("no-users"):
        path.chmod(0o644)
    other.symlink_to(kept)
    other.rename(path)
    wait_until(lambda: len(server.log_events("users-not-opened")) > first + 1, 30, "the link in the log")
    denied, *_, linked = server.log_events("users-not-opened")[first:]
    assert "chmod" in denied["error"] and "chmod" not in linked["error"], (denied, linked)
    kept.chmod(0o600)
    os.link(kept, other)
    with server.taken_up():
        other.rename(path)
    kept.unlink()


@pytest.mark.parametrize("words, password, code, said", [
    (["add", "anna@LOCAL.test"], "x", 65, "there is a user"),
    (["add", "a b"], "x", 64, "can be nobody's name"),
    (["add", "dave"], "", 65, "cannot be a password"),
    (["add", "dave", "--send-as", "sales"], "x", 64, "--send-as wants"),
    (["passwd", "nobody"], "x", 67, "there is no user"),
    (["rm", "nobody"], None, 67, "there is no user"),
    (["add"], None, 64, "say \"add NAME\""),
])
def test_mistakes_are_said(server, words, password, code, said):
    before = (server.folder / "users").read_bytes()
    result = server.user(*words, password=password, check=False)
    assert result.returncode == code and said in result.stderr, result.stderr
    assert (server.folder / "users").read_bytes() == before
    assert not (server.folder / "users.new").exists()


def test_nobody_is_left_of_a_user_who_is_removed(tmp_path):
    """Of two lines of one name the gate takes the first: without it, the second would be the user's."""
    path = tmp_path / "users"
    path.write_bytes(b"# all\nanna:*\nbob:*:off\nanna:$y$old\r\nann:*\n#anna:*\nanna:*")
    path.chmod(0o600)
    subprocess.run([binary(), "user", "rm", "Anna", "--file", path], timeout=60, check=True)
    assert path.read_bytes() == b"# all\nbob:*:off\nann:*\n#anna:*\n"


def test_a_link_is_not_followed(tmp_path):
    """Root may change the users of somebody whose folder it is: what the file leads to is not read, nor written."""
    secret, link = tmp_path / "secret", tmp_path / "users"
    secret.write_text("root:$y$secret\n", encoding="utf-8")
    link.symlink_to(secret)
    for words in (["add", "anna"], ["rm", "root"], ["list"]):
        result = subprocess.run([binary(), "user", *words, "--file", link], input="x\n", capture_output=True, text=True, timeout=60, check=False)
        assert result.returncode == 66 and "must be the file itself" in result.stderr and "root" not in result.stdout, result
    assert link.is_symlink() and secret.read_text(encoding="utf-8") == "root:$y$secret\n"


def test_a_password_is_not_shown(tmp_path):
    """At a terminal: it is asked for twice, and nothing of it appears. What is done meanwhile is not undone."""
    def add(typed, meanwhile=lambda: None):
        pid, terminal = pty.fork()
        if pid == 0:
            os.environ["ASAN_OPTIONS"] = "detect_leaks=0"
            os.execv(binary(), ["postrider", "user", "add", "anna", "--file", str(tmp_path / "users")])
        shown = b""
        for prompt, line in zip((b"Password: ", b"Once more: "), typed):
            while prompt not in shown:
                shown += os.read(terminal, 1000)
            meanwhile()
            os.write(terminal, line)
        with contextlib.suppress(OSError):
            while more := os.read(terminal, 1000):
                shown += more
        os.close(terminal)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown

    code, shown = add([b"tryX\x7f it\n", b"tryY\n"])
    assert code == 65 and b"two different" in shown and b"try" not in shown
    code, shown = add([b"\x03"])
    assert code == 1 and b"given up" in shown and not (tmp_path / "users").exists()
    code, shown = add([b"try it\n", b"try it\n"], lambda: (tmp_path / "users").write_text("# mine\n", encoding="utf-8"))
    assert code == 75 and b"meanwhile" in shown, shown
    assert (tmp_path / "users").read_text(encoding="utf-8") == "# mine\n" and not (tmp_path / "users.new").exists()
    (tmp_path / "users").unlink()
    code, shown = add([b"tryX\x7f it\n", b"try it\n"])
    assert code == 0 and b"try" not in shown, shown
    assert (tmp_path / "users").read_text(encoding="utf-8").startswith("anna:$y$")


class Bystander(threading.Thread):
    """Somebody whose session has nothing to do with users: how long he waits for answers."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.port, self.waits, self.failed, self.stopping = port, [], None, False
        self.start()

    def run(self):
        try:
            while not self.stopping:
                with smtplib.SMTP("127.0.0.1", self.port, timeout=60) as client:
                    for _ in range(20):
                        began = time.monotonic()
                        assert client.noop()[0] == 250
                        self.waits.append(time.monotonic() - began)
                        time.sleep(0.002)
        except (OSError, AssertionError, smtplib.SMTPException) as error:
            self.failed = error

    def end(self, what):
        self.stopping = True
        self.join(120)
        assert not self.failed, self.failed
        waits = sorted(self.waits)
        print(f"{what}: others wait {1000 * statistics.median(waits):.1f} ms in the middle, "
              f"{1000 * waits[len(waits) * 99 // 100]:.1f} ms of 99 %, {1000 * waits[-1]:.1f} ms at most; {len(waits)} commands")


def guess(server, count, source_of, user_of):
    """Wrong passwords, three to a session, by four at once: how often which code came."""
    codes, lock, numbers = {}, threading.Lock(), iter(range(0, count, 3))

    def work():
        while True:
            with lock:
                first = next(numbers, None)
            if first is None:
                return
            with server.client(source_of(first // 3)) as client:
                for number in range(first, min(first + 3, count)):
                    code = login(client, user_of(number), f"guess {number}")
                    with lock:
                        codes[code] = codes.get(code, 0) + 1
                    if code == 421:
                        break

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return codes


def test_guessing_does_not_pay(tmp_path):
    """Line 6 of the promise: from one network, and from many at one account; the user at home does not notice."""
    server = Server(tmp_path, binary_path=binary("RELEASE"))
    server.user("add", "anna@local.test", password=PASSWORD)
    server.user("add", "bob", password="bob's")
    home, away, next_door = "127.77.0.5", "127.78.0.5", "127.77.0.99"
    with server:
        assert server.login("anna@local.test", PASSWORD, home) == 235
    state = server.state / "gate" / "users"
    wait_until(state.exists, 10, "what is kept")
    with server:  # a week later, as far as a test can wait for it: in another life
        watch = Bystander(server.port)
        began = time.monotonic()
        codes = guess(server, GUESSES, lambda i: f"127.{1 + i % NETWORKS // 250}.{i % NETWORKS % 250}.9",
                      lambda _: "anna@local.test")
        took = time.monotonic() - began
        watch.end(f"{GUESSES} wrong passwords from {NETWORKS} networks at one account in {took:.1f} s, {codes}")
        assert codes.get(535) == 10 and codes.get(235) is None and set(codes) <= {535, 454, 421}, codes
        assert server.login("anna@local.test", PASSWORD, away) == 454
        began = time.monotonic()
        assert server.login("anna@local.test", PASSWORD, home) == 235
        print(f"the user at home is let in after {1000 * (time.monotonic() - began):.0f} ms, with connecting and TLS")
        assert server.login("anna@local.test", PASSWORD, next_door) == 235

        watch = Bystander(server.port)
        began = time.monotonic()
        codes = guess(server, GUESSES, lambda i: f"127.99.0.{1 + i % 250}", lambda i: f"user{i}")
        took = time.monotonic() - began
        watch.end(f"{GUESSES} wrong passwords from one network in {took:.1f} s, {codes}")
        assert codes.get(535) == 30 and set(codes) <= {535, 454, 421}, codes
        assert server.login("bob", "bob's", "127.99.0.77") == 454
        assert server.login("bob", "bob's", "127.100.0.77") == 235

        bans = wait_until(lambda: server.status()["bans"], what="the gate's word on bans")
        assert {ban["account"] for ban in bans} == {"anna@local.test", None}
        assert [ban["network"] for ban in bans if not ban["account"]] == ["127.99.0.0/24"]
        assert all(3000 < ban["seconds"] <= 3600 for ban in bans)
        shown = server.cli("status", "--config", str(server.config_path)).stdout
        assert "NO LOGIN FOR" in shown and "127.99.0.0/24" in shown


def test_nobody_is_answered_as_somebody(tmp_path):
    """A wrong password and a user who does not exist: the same words, and (printed) as long until they come."""
    server = Server(tmp_path, users="file users { failures-per-account 1000; failures-per-network 1000 }",
                    binary_path=binary("RELEASE"))
    server.user("add", "anna@local.test", password=PASSWORD)
    took, said = {"anna@local.test": [], "nobody@local.test": []}, set()
    with server:
        for _ in range(15):
            for user, times in took.items():
                with server.client() as client:
                    word = base64.b64encode(f"\0{user}\0wrong".encode()).decode()
                    began = time.monotonic()
                    said.add(client.docmd("AUTH", "PLAIN " + word))
                    times.append(time.monotonic() - began)
    print(", ".join(f"{user}: {1000 * statistics.median(times):.1f} ms" for user, times in took.items()))
    assert len(said) == 1 and said.pop()[0] == 535


def test_a_ban_ends_by_itself(tmp_path):
    server = Server(tmp_path, users="file users { failures-per-account 2; ban 15s }")
    server.user("add", "bob", password="bob's")
    with server:
        assert [server.login("bob", "x") for _ in range(3)] == [535, 535, 454]
        wait_until(lambda: server.login("bob", "bob's") == 235, 60, "the end of the ban")
        assert server.status()["bans"] == []


@pytest.fixture(scope="module", name="dovecot")
def fixture_dovecot():
    if not shutil.which("dovecot") or os.geteuid() != 0:
        pytest.skip("needs Dovecot, and root for it")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="dovecot-auth-"))
    folder.chmod(0o755)
    (folder / "users").write_text(f"anna@local.test:{{PLAIN}}secret::::::\nbob@local.test:{{PLAIN}}{MARK}::::::\n", encoding="utf-8")
    (folder / "conf").write_text(f"""
protocols =
base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/log
ssl = no
first_valid_uid = 1
auth_mechanisms = plain login scram-sha-256
auth_failure_delay = 0
passdb {{
  driver = passwd-file
  args = {folder}/users
}}
userdb {{
  driver = static
  args = uid=nobody gid=nogroup home=/tmp
}}
service auth {{
  unix_listener {folder}/auth {{
    mode = 0666
  }}
}}
service anvil {{
  chroot =
}}
""", encoding="utf-8")
    process = subprocess.Popen(["dovecot", "-F", "-c", str(folder / "conf")], stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
    try:
        wait_until(lambda: (folder / "auth").exists() or process.poll() is not None, 30, "Dovecot")
        assert process.poll() is None, (folder / "log").read_text(encoding="utf-8")
        yield folder
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def test_dovecot_knows_the_users(tmp_path, dovecot):
    users = f"dovecot {dovecot}/auth {{ mechanisms plain login scram-sha-256 scram-sha-1; failures-per-account 3 }}"
    with Server(tmp_path, users=users) as server:
        for mechanism in ("PLAIN", "LOGIN"):
            assert server.login("anna@local.test", "secret", mechanism=mechanism) == 235
        assert server.login("anna@local.test", "wrong", "127.5.0.1") == 535
        with server.client() as client:  # offered by us, but not by this Dovecot
            assert client.docmd("AUTH", "SCRAM-SHA-1 " + base64.b64encode(b"n,,n=anna,r=abc").decode())[0] == 504
        with server.client() as client:
            code, challenge = client.docmd("AUTH", "SCRAM-SHA-256 " + base64.b64encode(b"n,,n=anna@local.test,r=abc").decode())
            assert code == 334 and base64.b64decode(challenge).startswith(b"r=abc")
            assert client.docmd("*")[0] == 501
        assert [server.login("anna@local.test", "wrong", "127.5.0.1") for _ in range(3)] == [535, 535, 454]
        assert server.login("anna@local.test", "secret") == 235  # from home
        (dovecot / "auth").rename(dovecot / "gone")
        assert server.login("anna@local.test", "secret") == 454
        server.logged("dovecot-not-reached")
        (dovecot / "gone").rename(dovecot / "auth")
        assert server.login("anna@local.test", "secret") == 235



def test_no_password_is_kept_on_its_way_to_dovecot(tmp_path, dovecot):
    """Nor in the log; right and wrong ones, by sessions that stay open."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(Server(tmp_path, users=f"dovecot {dovecot}/auth", binary_path=os.environ["POSTRIDER_RELEASE"]))
        for mechanism in ("PLAIN", "LOGIN"):
            for user, code in (("bob@local.test", 235), ("anna@local.test", 535)):
                assert login(stack.enter_context(server.client()), user, MARK, mechanism) == code
        found = {role: list(traces(pid, MARK)) for role, pid in server.role_pids().items()}
        assert {"gate 0", "submission 0"} <= set(found) and not any(found.values()), found
        assert not any(piece in server.log_path.read_bytes() for piece in pieces_of(MARK))
