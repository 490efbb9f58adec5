"""
What local users, files and resources did to mailers.

L01 | CVE-2010-4345 (Exim -C) | a configuration that the caller names is read with our rights, or printed in its errors | no special rights; no line of it in the errors
L02 | CVE-2016-10033 (PHPMailer, sendmail -X) | -X writes a log anywhere | nothing is written
L03 | CVE-2016-10045 (PHPMailer, Exim -be) | options of others that run or read | refused or ignored; nothing is run
L04 | CVE-2016-10074 (SwiftMailer) | an address that begins with a hyphen is taken for an option | behind -- and in fields it is an address
L05 | CVE-2020-28010, CVE-2020-28011 (Exim, 21Nails) | arguments of many kilobytes overflow | an exit code, no crash
L06 | CVE-2020-28009 (Exim, 21Nails) | an endless header on standard input overflows a count | an exit code, no crash
L07 | CVE-2020-28016 (Exim, 21Nails) | -F that is empty or holds line ends | one From field
L08 | CVE-2020-28015 (Exim, 21Nails) | -f with a line end writes into the queue file | refused, or one sender
L09 | CVE-2010-4345 (Exim; set-user-id mailers) | the program that users call has rights of its own | no set-id bit, no capability
L10 | CVE-2025-62875 (OpenSMTPD) | garbage on the control socket ends the daemon | the connection is closed; every role lives
L11 | CVE-2025-62875 (OpenSMTPD) | anybody may open the control socket | its owner and his group only
L12 | CVE-2020-8793 (OpenSMTPD) | other users read the queue | folders and files of the spool are ours alone
L13 | CVE-2008-2936 (Postfix) | a link in the mailbox's place leads the delivery elsewhere | put off; nothing outside; delivered when mended
L14 | CVE-2008-2937 (Postfix) | a file is in the place where a mailbox will be | put off; the file stays as it was
L15 | CVE-2020-28008 (Exim, 21Nails) | links in the spool folder are followed at start | refused; nothing outside
L16 | CVE-2020-28014 (Exim, 21Nails) | a file with a name that can be guessed, followed through a link | a new file with mode 0600, links not followed
L17 | RFC 5321 section 7.8 (resources that run out) | descriptors run out, and accepting spins or ends | others wait, then are served; nobody dies
L18 | CVE-2025-62875 (OpenSMTPD) | a local program says nothing or noise on the submission socket | closed or answered; others are served
L19 | CVE-2010-4345 (Exim; its idea in the environment) | strange environments of the caller | an exit code; nothing is run or written
L20 | CVE-2001-0653 (Sendmail debug levels) | numbers as options, negative or beyond 2^31 | an exit code, no crash
L21 | CVE-2007-3102 (OpenSSH; forged lines in a log) | line ends in arguments reach the log | one line of JSON each
L22 | CVE-2024-27305 (its idea in local mail) | a lone dot and bare line feeds on standard input smuggle | one message
"""
import json
import os
import pathlib
import resource
import select
import shutil
import signal
import socket
import stat
import subprocess
import tempfile

import pytest

from harness import Postrider, wait_until
from museum import Session, body_of

CRASHES = {-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS, -signal.SIGILL, -signal.SIGFPE, 128 + signal.SIGSEGV}


def survives(said):
    """It ended by itself, by one of sysexits.h's codes, and no sanitizer spoke."""
    assert said.returncode == 0 or 64 <= said.returncode <= 78, said
    assert b"AddressSanitizer" not in said.stderr and b"CHECK failed" not in said.stderr, said.stderr[-2000:]
    return said


def test_l01_the_callers_configuration(world, tmp_path):
    """As a user who may not read it: nobody else's rights are used for reading."""
    secret = tmp_path / "secret"
    secret.write_text("TOP-SECRET-LINE\n")
    secret.chmod(0o600)
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        program = shutil.copy(world.server.binary, pathlib.Path(folder) / "sendmail")
        os.chown(folder, 65534, 65534)  # the home that what is not sent is left in
        for words in (["-C", str(secret), "u1@local.test"], ["-bp", "-C", str(secret)], [f"-C{secret}", "-t"], ["-bv", "-C", str(secret), "x"]):
            said = survives(subprocess.run([program, "--wait", "0", *words], input=b"To: u1@local.test\n\nx\n", capture_output=True, timeout=60,
                                           check=False, user=65534, group=65534, extra_groups=[], cwd="/",
                                           env={"POSTRIDER_CONFIG": str(secret), "ASAN_OPTIONS": "detect_leaks=0", "HOME": folder}))
            assert said.returncode != 0 or b"-bv" in words
            assert b"the message lies in" not in said.stderr or f"{folder}/postrider-unsent-".encode() in said.stderr
            assert b"TOP-SECRET" not in said.stdout + said.stderr
        assert list(pathlib.Path(folder).glob("postrider-unsent-*")), "what is not sent is left to its sender"


def test_l02_a_log_anywhere(world):
    for words in (["-X", str(world.outside / "new")], ["-X" + str(world.outside / "file")], ["-OQueueDirectory=/tmp", "-X" + str(world.outside / "n")],
                  ["-D", str(world.outside / "new2")]):
        survives(world.sendmail(*words, "-f", "a@client.test", "u3@local.test"))
    world.server.wait_until_empty()


def test_l03_options_of_others(world):
    run = f"${{run{{/bin/touch {world.outside}/ran}}}}"
    for words in (["-be", run], ["-bt", run], ["-bP"], ["-bV"], ["-bd"], ["-bi"], ["-q"], ["-Mset", "x"], ["-oMa", "1.2.3.4"], ["-D", f"X={run}"],
                  ["-oQ" + str(world.outside)], ["-ps"], ["-d+all"], ["-bs", "-oem"]):
        said = survives(world.sendmail(*words, stdin=b"QUIT\r\n"))
        assert b"TOP-SECRET" not in said.stdout + said.stderr


def test_l04_addresses_that_begin_with_a_hyphen(world):
    survives(world.sendmail("-i", "-f", "-oQ/tmp@client.test", "--", "-X" + str(world.outside / "ran") + "@catch.test", stdin=b"Subject: l04-a\n\nx\n"))
    survives(world.sendmail("-t", "-i", "-f", "a@client.test", stdin=b"To: <-X/tmp/ran@catch.test>\nSubject: l04-b\n\nx\n"))
    world.arrives(b"l04-b", "all", "catch.test")
    world.server.wait_until_empty()


def test_l05_very_long_arguments(world):
    for words in (["-f", "a" * 100000 + "@client.test"], ["-F", "x" * 120000], ["-r", "<" * 100000], ["-V", "v" * 100000],
                  ["x" * 120000 + "@local.test"], ["a@" + "x." * 60000 + "test"], ["-N", "success," * 10000], ["-R", "x" * 100000],
                  ["-O", "y" * 100000], ['"' + "\\" * 100000]):
        survives(world.sendmail("-i", *words, "u3@local.test"))
    world.server.wait_until_empty()


def test_l06_an_endless_header(world):
    before = world.count("u3")
    text = b"".join(b"To: a%d@far.test,\n" % n for n in range(3)) + b"X: y\n" * 250000 + b"\nx\n"
    assert survives(world.sendmail("-t", "-i", "u3@local.test", stdin=text)).returncode != 0
    assert survives(world.sendmail("-i", "u3@local.test", stdin=b"Subject: " + b"l06 " * 500000 + b"\n\nx\n")).returncode != 0
    world.server.wait_until_empty()
    assert world.count("u3") == before


def header_of(mail):
    return mail.split(b"\n\n")[0].decode("utf-8", "replace").splitlines()


def test_l07_full_names(world):
    for number, name in enumerate(["", "x\nBcc: evil@far.test", "x\r\nX-Evil: 1", '"', "a" * 900, "(", "\\", "<evil@far.test>", "\x1b[2J"]):
        said = survives(world.sendmail("-i", "-F", name, "-f", "a@client.test", "u2@local.test", stdin=b"Subject: l07-%d-\n\nx\n" % number))
        if said.returncode:
            continue
        lines = header_of(world.arrives(b"l07-%d-" % number, "u2"))
        assert sum(line.startswith("From:") for line in lines) == 1
        assert not [line for line in lines if line.startswith(("Bcc:", "X-Evil:"))], lines


def test_l08_senders_with_line_ends(world):
    for number, sender in enumerate(["a\nb@client.test", "a@client.test\nRCPT TO:<evil@far.test>", "a@client.test> SIZE=1\r\nRCPT TO:<evil@far.test>",
                                     '"a\r\nRSET"@client.test', "<>\r\nQUIT", "a@client.test\0"]):
        if "\0" in sender:
            continue  # no argument can hold one
        before = len(world.far.messages)
        said = survives(world.sendmail("-i", "-f", sender, "u2@local.test", stdin=b"Subject: l08-%d-\n\nx\n" % number))
        if said.returncode == 0:
            lines = header_of(world.arrives(b"l08-%d-" % number, "u2"))
            assert sum(line.startswith("Return-Path:") for line in lines) == 1
        assert len(world.far.messages) == before


def test_l09_no_special_rights(world):
    mode = world.server.binary.stat().st_mode
    assert not mode & (stat.S_ISUID | stat.S_ISGID)
    assert "security.capability" not in os.listxattr(world.server.binary)


def test_l10_garbage_for_the_console(world):
    noise = (b"\0" * 5000, b"\xff" * 100000, b"GET / HTTP/1.0\r\n\r\n", bytes(range(256)) * 100, b"\xff\xff\xff\x7f" * 10, b"x", b"")
    for name in ("control.sock", "submission.sock"):
        for data in noise:
            with socket.socket(socket.AF_UNIX) as s:
                s.settimeout(30)
                s.connect(str(world.server.state / name))
                try:
                    s.sendall(data)
                    s.shutdown(socket.SHUT_WR)
                    while s.recv(65536):
                        pass
                except ConnectionError:
                    pass
    assert world.server.figures()["balanced"] == 1


def test_l11_the_console_is_its_owners(world):
    assert stat.S_IMODE((world.server.state / "control.sock").stat().st_mode) & 0o007 == 0


def test_l12_the_spool_is_ours(world):
    spool = world.server.state / "spool"
    assert stat.S_IMODE(spool.stat().st_mode) & 0o077 == 0 or stat.S_IMODE(world.server.state.stat().st_mode) & 0o077 == 0
    for path in spool.rglob("*"):
        assert not path.is_symlink() and stat.S_IMODE(path.stat().st_mode) & 0o022 == 0, path
        assert path.is_dir() or stat.S_IMODE(path.stat().st_mode) & 0o044 == 0 or stat.S_IMODE(spool.stat().st_mode) & 0o077 == 0, path


def delivered_when_mended(world, mailbox, break_it, mend_it):
    """While the Maildir is broken the message waits; then it is there, once."""
    with world.session() as s:
        s.begin(f"{mailbox}@local.test")
        assert s.content(b"Subject: l-before\r\n\r\nx\r\n")[0] == 250
    wait_until(lambda: world.count(mailbox) > 0, 60, "the mailbox")
    world.server.wait_until_empty()
    folder = world.server.maildir(mailbox)
    before = len(list((folder / "new").iterdir()))
    break_it(folder)
    queue_id = world.relay(f"{mailbox}@local.test", content=b"Subject: l-mended\r\n\r\nx\r\n")
    world.deferred(queue_id)
    assert world.outside_now() == world.before
    mend_it(folder)
    world.gone(queue_id)
    assert len(list((folder / "new").iterdir())) == before + 1


def test_l13_links_in_a_mailbox(world):
    for name in ("tmp", "new"):
        def break_it(folder, name=name):
            (folder / name).rename(folder / "aside")
            (folder / name).symlink_to(world.outside / "directory")

        def mend_it(folder, name=name):
            (folder / name).unlink()
            (folder / "aside").rename(folder / name)
        delivered_when_mended(world, "u3", break_it, mend_it)


def test_l13_links_by_the_rules_for_paths_alone(tmp_path):
    """Without the sandbox, which would stop it too."""
    outside = tmp_path / "outside"
    outside.mkdir()
    with Postrider(tmp_path / "server", SMALL + "sandbox off\nretry 1s for 1d\n") as server:
        server.send()
        server.wait_for_mail()
        server.wait_until_empty()
        for name in ("tmp", "new"):
            folder = server.maildir()
            (folder / name).rename(folder / "aside")
            (folder / name).symlink_to(outside)
            server.send()
            (waits,) = wait_until(lambda: [m for m in server.queue() if server.queue_show(m["id"])["recipients"][0]["attempts"] > 0], 60, "an attempt")
            assert waits["to"] == "ok@local.test" and not list(outside.iterdir())
            (folder / name).unlink()
            (folder / "aside").rename(folder / name)
            server.wait_until_empty()
        assert len(server.mails()) == 3 and not list(outside.iterdir())


def test_l14_a_file_where_a_mailbox_should_be(world):
    def break_it(folder):
        folder.rename(folder.with_name("aside"))
        folder.write_text("somebody's file\n")

    def mend_it(folder):
        assert folder.read_text() == "somebody's file\n"
        folder.unlink()
        folder.with_name("aside").rename(folder)
    delivered_when_mended(world, "u3", break_it, mend_it)


SMALL = """
hostname mx.local.test
state {state}
listen mx {{ address 127.0.0.1:{port}; connections 10000 per-client }}
domain local.test {{ mailbox ok; alias postmaster -> ok; deliver maildir {mail}/{{domain}}/{{local}} }}
route default {{ via 127.0.0.1:1; tls off }}
"""


def test_l15_links_in_the_spool(tmp_path):
    """Each is planted before a start: it says no, and what is behind the link stays as it was."""
    with Postrider(tmp_path / "first", SMALL) as first:
        first.send()
        first.wait_for_mail()
        names = sorted(path.relative_to(first.state) for path in first.state.rglob("*") if path.is_file() or path.is_socket())
    tls = pathlib.Path("tls/self-signed.pem")
    assert tls in names, names
    names = [name for name in names if name.suffix != ".segment" and name != tls] + [name for name in names if name.suffix == ".segment"][:1]
    assert len(names) == 4, names
    for number, name in enumerate(names):
        target = tmp_path / f"target{number}"
        target.write_text("canary\n")
        server = Postrider(tmp_path / f"s{number}", SMALL + "sandbox off\n")
        (server.state / name).parent.mkdir(parents=True, exist_ok=True)
        (server.state / name).symlink_to(target)
        server.start(wait=False)
        try:
            wait_until(lambda server=server: server.process.poll() is not None or server.log_events("spool-cannot-be-opened"), 60, f"no to {name}")
        finally:
            if server.process.poll() is None:
                server.kill()
            else:
                assert server.process.returncode != 0
            server.process = None
        assert target.read_text() == "canary\n", name
        assert not server.log_events("ready") and not server.crashes()


@pytest.mark.parametrize("name, word", [("self-signed.pem", "certificate-not-read"), ("self-signed.new", "certificate-not-kept")])
def test_l15_a_link_in_the_folder_of_our_own_certificate(tmp_path, name, word):
    """The server starts, as mail goes on; what is behind the link is neither read nor written."""
    server = Postrider(tmp_path / "server", SMALL + "sandbox off\n")
    (server.state / "tls").mkdir(parents=True)
    target = tmp_path / name
    target.write_text("canary\n")
    (server.state / "tls" / name).symlink_to(target)
    with server:
        server.send()
        server.wait_for_mail()
        wait_until(lambda: server.log_events(word), 60, "a word about the link")
    assert target.read_text() == "canary\n"
    assert not server.crashes()


def test_l16_the_message_that_was_left(world, tmp_path):
    target = tmp_path / "target"
    target.write_text("canary\n")
    home = tmp_path / "home"
    home.mkdir()
    for name in ("dead.letter", "unsent", "mbox"):
        (home / name).symlink_to(target)
    said = world.sendmail("-i", "--wait", "0", "--socket", str(tmp_path / "nobody"), "u1@local.test", stdin=b"Subject: l16\n\nx\n",
                          environment={"HOME": str(home), "TMPDIR": str(home), "POSTRIDER_SUBMISSION": ""})
    assert said.returncode == 75, said
    assert target.read_text() == "canary\n"
    left = [pathlib.Path(word.strip(b".,:;'\"").decode()) for word in said.stderr.split() if word.startswith(b"/")]
    left = [path for path in left if path.is_file() and b"l16" in path.read_bytes()]
    assert len(left) == 1, said.stderr
    assert stat.S_IMODE(left[0].stat().st_mode) == 0o600 and not left[0].is_symlink()
    left[0].unlink()


def test_l17_descriptors_run_out(tmp_path):
    with Postrider(tmp_path, SMALL) as server:
        pids = server.role_pids()
        receivers = [pid for name, pid in pids.items() if name.startswith("receiver")]
        assert receivers
        for pid in receivers:
            count = len(os.listdir(f"/proc/{pid}/fd"))
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (count + 5, count + 5))
        clients = []
        for _ in range(60):
            clients.append(socket.create_connection(("127.0.0.1", server.port), 60))
        began = sum(cpu(pid) for pid in pids.values())
        wait_until(lambda: select.select(clients, [], [], 0)[0], 60, "a first greeting")
        greeted = [client for client in clients if is_greeted(client)]
        assert 0 < len(greeted) < 60
        assert sum(cpu(pid) for pid in pids.values()) - began < 20, "it spins"
        for client in clients:
            client.close()
        with Session(server.port) as s:
            s.begin()
            assert s.content(b"Subject: l17\r\n\r\nx\r\n")[0] == 250
        server.wait_for_mail()
        assert server.role_pids() == pids


def is_greeted(client):
    client.settimeout(0.05)
    try:
        return client.recv(1000).startswith(b"220")
    except TimeoutError:
        return False


def cpu(pid):
    """Seconds of processor time."""
    words = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def test_l18_silent_local_programs(world):
    silent = []
    for _ in range(30):
        s = socket.socket(socket.AF_UNIX)
        s.connect(str(world.server.state / "submission.sock"))
        silent.append(s)
    try:
        survives(world.sendmail("-i", "-f", "a@client.test", "u2@local.test", stdin=b"Subject: l18\n\nx\n"))
        world.arrives(b"l18", "u2")
    finally:
        for s in silent:
            s.close()


def test_l19_strange_environments(world):
    harm = f"$(touch {world.outside}/ran)"
    for environment in ({"HOME": harm, "USER": harm, "LOGNAME": harm, "TZ": "../../" + str(world.outside / "secret"), "LANG": "%n%s"},
                        {"TZ": ":" + "x" * 5000, "NO_COLOR": "x" * 5000, "HOME": "x" * 100000}, {"HOSTNAME": "a\nb", "LC_ALL": "\xff" * 100},
                        {"USER": "a\nBcc: evil@far.test", "LOGNAME": "a\r\nRSET", "NAME": "x\nX-Evil: 1"}, {"POSTRIDER_CONFIG": "/proc/self/environ"}):
        said = survives(world.sendmail("-i", "u2@local.test", stdin=b"Subject: l19\n\nx\n", environment=environment))
        assert b"TOP-SECRET" not in said.stdout + said.stderr
    world.server.wait_until_empty()
    lines = [line for mail in world.server.mails("u2") for line in header_of(mail)]
    assert not [line for line in lines if line.startswith(("X-Evil", "Bcc"))]


def test_l20_numbers_as_options(world):
    for number in ("-1", "4294967296", "-2147483649", "99999999999999999999", "0x7fffffff", "1e9", ""):
        for words in (["-d" + number], ["-d0-" + number + "." + number], ["-h", number], ["-q" + number], ["--wait", number], ["-O", "x=" + number]):
            survives(world.sendmail("-i", *words, "-f", "a@client.test", "u3@local.test"))
        for words in (["queue", "list", "--limit", number], ["status", "--timeout", number]):
            assert world.server.cli(*words, "--config", str(world.server.config_path), check=False).returncode not in CRASHES
    world.server.wait_until_empty()


def test_l21_line_ends_in_arguments(world):
    forged = '\n{"event":"forged","level":"info"}'
    survives(world.sendmail("-i", "-f", "a" + forged + "@client.test", "u3@local.test"))
    survives(world.sendmail("-i", "-V", "id" + forged, "u3" + forged + "@local.test"))
    world.server.cli("queue", "show", "x" + forged, "--config", str(world.server.config_path), check=False)
    world.server.wait_until_empty()
    for line in world.server.log_text().splitlines():
        assert json.loads(line)["event"] != "forged"


def test_l22_dots_and_line_feeds_on_standard_input(world):
    before = world.count("u1"), world.count("victim")
    body = "x\n.\r\nMAIL FROM:<a@client.test>\r\n\r.\r\n\n.\nRCPT TO:<victim@local.test>\nDATA\n.\n"
    survives(world.sendmail("-i", "-f", "a@client.test", "u1@local.test", stdin=b"Subject: l22\n\n" + body.encode()))
    mail = body_of(world.arrives(b"l22", "u1"))
    assert b"\nRCPT TO:<victim@local.test>\nDATA\n.\n" in mail
    world.server.wait_until_empty()
    assert (world.count("u1"), world.count("victim")) == (before[0] + 1, before[1])
