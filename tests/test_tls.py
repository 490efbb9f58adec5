"""TLS at the door: what clients see, which certificate, what becomes of those that misbehave, and where the keys are."""
import base64
import collections
import contextlib
import datetime
import functools
import itertools
import os
import pathlib
import re
import signal
import smtplib
import socket
import ssl
import subprocess
import threading
import time

import pytest

from harness import Postrider, free_port, wait_until

SITE = """
hostname mx.local.test
state {state}
listen mx {{ address 127.0.0.1:{port}; relay from 127.0.0.1; connections 5000 per-client }}
domain local.test {{ mailbox ok; alias postmaster -> ok; deliver maildir {mail}/{{domain}}/{{local}} }}
route default {{ via 127.0.0.1:{next_port}; tls off }}
{more}
"""
FULL = os.environ.get("POSTRIDER_FULL") == "1"


def context(version=None, ciphers=None):
    """Of a client that takes any certificate."""
    c = ssl.create_default_context()
    c.check_hostname = False
    c.verify_mode = ssl.CERT_NONE
    if version:
        c.minimum_version = c.maximum_version = version
    if ciphers:
        c.set_ciphers(ciphers)
    return c


def make_certificate(folder, name, key=("ec", "-pkeyopt", "ec_paramgen_curve:P-256"), host="mx.local.test"):
    """Writes name.pem and name.key: first beside, then into their place, as tools that renew certificates do."""
    for end in (".pem", ".key"):
        (folder / f"{name}{end}.new").unlink(missing_ok=True)
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", *key, "-nodes", "-subj", f"/CN={host}", "-addext", f"subjectAltName=DNS:{host}",
         "-days", "30", "-keyout", folder / f"{name}.key.new", "-out", folder / f"{name}.pem.new"],
        check=True, capture_output=True,
    )
    for end in (".key", ".pem"):
        (folder / f"{name}{end}.new").rename(folder / f"{name}{end}")
    return ssl.PEM_cert_to_DER_cert((folder / f"{name}.pem").read_text())


def tls_blocks(folder, *names):
    return "\n".join(f"tls {{ certificate {folder}/{n}.pem; key {folder}/{n}.key }}" for n in names)


def shown(server, ctx=None, name="mx.local.test", port=None):
    """The certificate that a new session gets, DER."""
    with smtplib.SMTP("127.0.0.1", port or server.port, timeout=60) as client:
        client._host = name  # what starttls() asks for
        client.starttls(context=ctx or context())
        return client.sock.getpeercert(binary_form=True)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_from_the_first_minute(tmp_path, version):
    with Postrider(tmp_path, SITE, more="") as server:
        with smtplib.SMTP("127.0.0.1", server.port, timeout=60) as client:
            client.ehlo("before.client.test")
            assert client.has_extn("starttls")
            client.starttls(context=context(version))
            assert client.docmd("MAIL FROM:<a@client.test>")[0] == 503
            client.ehlo("after.client.test")
            assert not client.has_extn("starttls")
            client.sendmail("a@client.test", ["ok@local.test"], b"Subject: hello\r\n\r\nhello\r\n")
        mail = server.wait_for_mail()[0]
        protocol = {ssl.TLSVersion.TLSv1_2: "TLSv1.2", ssl.TLSVersion.TLSv1_3: "TLSv1.3"}[version]
        assert b"from after.client.test" in mail and b"with ESMTPS\n" in mail
        assert f"({protocol} with cipher ".encode() in mail
        session = wait_until(lambda: server.log_events("session"))[0]
        assert session["tls"] == protocol and session["cipher"] and session["helo"] == "after.client.test"
        [told] = server.logged("certificate-signed-by-ourselves")
        assert "tls {" in told["advice"]
        first = shown(server)
    with server:
        assert shown(server) == first, "the certificate is made once"


def test_certificates_by_name_and_kind(tmp_path):
    ec = make_certificate(tmp_path, "ec")
    rsa = make_certificate(tmp_path, "rsa", ("rsa:2048",))
    other = make_certificate(tmp_path, "other", host="mail.other.test")
    with Postrider(tmp_path, SITE, more=tls_blocks(tmp_path, "ec", "rsa", "other")) as server:
        assert shown(server) == ec
        assert shown(server, context(ssl.TLSVersion.TLSv1_2, "ECDHE-RSA-AES128-GCM-SHA256")) == rsa
        assert shown(server, name="mail.other.test") == other
        assert shown(server, name="nobody.test") == ec
        assert not server.log_events("certificate-signed-by-ourselves")


TWO_DOORS = SITE + "listen mx second {{ address 127.0.0.1:{second_port}; {second} }}\n"


def test_a_listener_has_certificates_of_its_own(tmp_path):
    site = make_certificate(tmp_path, "site")
    own = make_certificate(tmp_path, "own", host="second.local.test")
    rsa = make_certificate(tmp_path, "rsa", ("rsa:2048",), host="second.local.test")
    port = free_port()
    with Postrider(tmp_path, TWO_DOORS, more=tls_blocks(tmp_path, "site"), second_port=port,
                   second=tls_blocks(tmp_path, "own", "rsa").replace("\n", ";")) as server:
        rsa_only = context(ssl.TLSVersion.TLSv1_2, "ECDHE-RSA-AES128-GCM-SHA256")
        assert shown(server, name="second.local.test") == site
        assert shown(server, port=port, name="mx.local.test") == own
        assert shown(server, rsa_only, port=port) == rsa
        with pytest.raises(ssl.SSLError):
            shown(server, rsa_only)


def make_client(folder, name, issuer, extension=None, subject=None, expired=False):
    """Writes name.both: a client's certificate that the issuer signed, and its key. Without an issuer it signs itself."""
    signed = ["-CA", folder / f"{issuer}.pem", "-CAkey", folder / f"{issuer}.key"] if issuer else []
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                    "-subj", subject or f"/CN={name}", *(["-addext", extension] if extension else []), *([] if expired else signed),
                    "-addext", "basicConstraints=critical,CA:FALSE", "-keyout", folder / "k", "-out", folder / "c"],
                   check=True, capture_output=True)
    if expired:
        subprocess.run(["openssl", "x509", "-in", folder / "c", *signed, "-CAcreateserial", "-days", "-1", "-out", folder / "late"],
                       check=True, capture_output=True)
        (folder / "late").rename(folder / "c")
    (folder / f"{name}.both").write_bytes((folder / "c").read_bytes() + (folder / "k").read_bytes())
    return folder / f"{name}.both"


def test_client_certificates_are_asked_for_where_configured(tmp_path):
    make_certificate(tmp_path, "ca", host="authority.test")
    make_certificate(tmp_path, "other", host="other.authority.test")
    clients = {  # who is told in the log; None: nobody
        make_client(tmp_path, "anna", "ca", "subjectAltName=DNS:x.test,email:anna@local.test,email:b@local.test"): "anna@local.test",
        make_client(tmp_path, "printer", "ca"): "printer",
        make_client(tmp_path, "stranger", "other", "subjectAltName=email:anna@local.test"): None,
        make_client(tmp_path, "self", None, "subjectAltName=email:anna@local.test"): None,
        make_client(tmp_path, "late", "ca", "subjectAltName=email:anna@local.test", expired=True): None,
        make_client(tmp_path, "server", "ca", "extendedKeyUsage=serverAuth"): None,
        make_client(tmp_path, "nobody", "ca", subject="/O=nobody"): None,
        make_client(tmp_path, "control", "ca", subject="/CN=anna\x01x"): None,
    }
    ports = {"ask": free_port(), "require": free_port()}
    site = SITE + "".join(f"listen mx {how} {{{{ address 127.0.0.1:{port}; client-certificates {how} {tmp_path}/ca.pem }}}}\n"
                          for how, port in ports.items())

    def meet(port, certificate, version, session=None):
        """A session to its end: whether it was resumed, and what could be resumed next."""
        with smtplib.SMTP("127.0.0.1", port, timeout=60) as client:
            client.ehlo()
            client.docmd("STARTTLS")
            ctx = contexts.setdefault((certificate, version), context(version))
            if certificate:
                ctx.load_cert_chain(certificate)
            with ctx.wrap_socket(client.sock, session=session, server_hostname="mx.local.test") as tls:
                client.sock, client.file = tls, None
                assert client.noop()[0] == 250  # by now tickets are here
                found = tls.session_reused, tls.session
                assert client.quit()[0] == 221
                return found

    contexts = {}
    # As it is shipped: sanitizers open files, so with them the filter lets that pass, and a certificate is looked at in the sandbox.
    with Postrider(tmp_path, site, binary_path=os.environ["POSTRIDER_RELEASE"], more="") as server:
        want = []  # (listener, tls-client, resumed)
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            meet(server.port, next(iter(clients)), version)
            want.append(("mx", None, False))
            for certificate, name in {**clients, None: None}.items():
                _, session = meet(ports["ask"], certificate, version)
                # Its certificate may have ended meanwhile, or one on the way to the authority: it is looked at each time.
                assert meet(ports["ask"], certificate, version, session)[0] == (certificate is None)
                want += [("ask", name, False), ("ask", name, certificate is None)]
                # A certificate that is for nobody whom we could name is good all the same.
                if name or (certificate and certificate.name in {"nobody.both", "control.both"}):
                    resumed, session = meet(ports["require"], certificate, version, session)
                    assert not resumed, "it was less that was asked for there"
                    assert not meet(ports["require"], certificate, version, session)[0]
                    want += [("require", name, False)] * 2
                else:
                    with pytest.raises((ssl.SSLError, OSError, smtplib.SMTPServerDisconnected)):
                        meet(ports["require"], certificate, version)
        sessions = wait_until(lambda: len(told := [e for e in server.log_events("session") if "tls" in e]) >= len(want) and told)
        key = str
        assert sorted(((e["listener"], e.get("tls-client"), "tls-resumed" in e) for e in sessions), key=key) == sorted(want, key=key)
        assert all(e["tls"].startswith("TLSv1.") and e["cipher"] and e["tls-name"] == "mx.local.test" for e in sessions)
        failures = wait_until(lambda: len(told := [e for e in server.log_events("session") if "tls-failure" in e]) >= 2 * 5 and told)
        assert len(failures) == 2 * 5


def test_certificates_are_replaced_under_sessions(tmp_path):
    count = 1000 if FULL else 100
    first = {name: make_certificate(tmp_path, name, host=f"{name}.local.test") for name in ("mx", "other", "more")}
    with Postrider(tmp_path, SITE, more=tls_blocks(tmp_path, *first)) as server, contextlib.ExitStack() as stack:
        clients = []
        for i in range(count):
            client = stack.enter_context(smtplib.SMTP("127.0.0.1", server.port, timeout=60))
            if i % 2 == 0:
                client._host = f"{('mx', 'other')[i % 4 // 2]}.local.test"
                client.starttls(context=context())
            clients.append(client)

        def all_shown():
            return {name: shown(server, name=f"{name}.local.test") for name in first}

        def wait_for(want, since):
            """Until the server shows these; meanwhile every handshake succeeds."""
            wait_until(lambda: all_shown() == want, what="the new certificates")
            return time.monotonic() - since

        def all_stay():
            assert all(client.noop()[0] == 250 for client in clients)

        assert all_shown() == first
        second = {**first, "other": make_certificate(tmp_path, "other", host="other.local.test")}
        one = wait_for(second, time.monotonic())
        all_stay()
        third = {name: make_certificate(tmp_path, name, ("rsa:2048",), host=f"{name}.local.test") for name in ("mx", "other")}
        third["more"] = first["more"]
        two = wait_for(third, time.monotonic())
        all_stay()
        print(f"{count} sessions open: one new certificate of three was shown after {one:.1f} s, two after {two:.1f} s; none dropped")
        # What cannot be used: the one before stays, also when others are taken up.
        good = (tmp_path / "mx.key").read_bytes()
        for event, key in (("certificate-unusable", good.replace(b"PRIVATE", b"NO")), ("certificate-unusable", b""),
                           ("certificate-of-another-key", (tmp_path / "other.key").read_bytes())):
            seen = len(server.log_events(event))
            (tmp_path / "mx.key").write_bytes(key)
            told = wait_until(lambda: server.log_events(event)[seen:])
            assert told[0]["file"] == f"{tmp_path}/mx.pem" and told[0]["so"] == "the one before stays in use" and told[0]["level"] == "error"
            assert all_shown() == third
        (tmp_path / "more.key").unlink()
        wait_until(lambda: [e for e in server.log_events("certificate-not-opened") if e["path"] == f"{tmp_path}/more.key"])
        assert all_shown() == third
        # Nor does a reload put what nobody can use in place of what is shown.
        kept = server.cli("reload", "--config", str(server.config_path), check=False)
        assert kept.returncode != 0, kept
        for name, fault in (("mx", "is not for its key"), ("more", "cannot be read, or its key")):
            assert re.search(rf'postrider\.conf:\d+:\d+: the certificate "{tmp_path}/{name}\.pem" {fault}', kept.stdout + kept.stderr), kept
        assert '/other.pem"' not in kept.stdout + kept.stderr
        assert all_shown() == third
        fourth = {name: make_certificate(tmp_path, name, host=f"{name}.local.test") for name in first}
        wait_for(fourth, time.monotonic())
        all_stay()
        server.cli("reload", "--config", str(server.config_path))
        assert all_shown() == fourth
        all_stay()
        assert not server.log_events("certificate-signed-by-ourselves")


def test_a_file_that_only_a_reload_has_named_is_watched_at_once(tmp_path):
    with Postrider(tmp_path, SITE, more="") as server:
        first = make_certificate(tmp_path, "mx")
        server.write_config(SITE, more=tls_blocks(tmp_path, "mx"))
        server.cli("reload", "--config", str(server.config_path))
        wait_until(lambda: shown(server) == first, what="the first certificate")  # old receivers may take some more
        second = make_certificate(tmp_path, "mx")
        wait_until(lambda: shown(server) == second, 20, what="the second certificate")

        # A second reload is told to come again while the first one asks the role `keys`, which does not answer.
        keys = max((role for role in server.status()["roles"] if role["role"] == "keys"), key=lambda role: role["generation"])
        os.kill(keys["pid"], signal.SIGSTOP)
        both = [subprocess.Popen([str(server.binary), "reload", "--config", str(server.config_path)], stderr=subprocess.PIPE)
                for _ in range(2)]
        wait_until(lambda: any(one.poll() is not None for one in both), what="the answer to one of two reloads")
        os.kill(keys["pid"], signal.SIGCONT)
        said = {one.wait(60): one.communicate()[1] for one in both}
        assert set(said) == {0, 75} and b"another reload is under way" in said[75], said


def test_a_certificate_that_could_not_be_opened_just_then(tmp_path):
    """No descriptor was left when it was to be opened: it is tried again, though the file does not change."""
    want = make_certificate(tmp_path, "mx")
    # Once for each thread that opens files for the supervisor.
    scarce = ["strace", "-D", "-f", "-qq", "-o", str(tmp_path / "trace"), "-P", f"{tmp_path}/mx.pem", "-e", "trace=openat",
              "-e", "inject=openat:error=EMFILE:when=1"]
    with Postrider(tmp_path, SITE, more=tls_blocks(tmp_path, "mx"), command=scarce) as server:
        wait_until(lambda: shown(server) == want, what="the certificate")
        assert {e["path"] for e in server.logged("certificate-not-opened")} == {f"{tmp_path}/mx.pem"}
        server.logged("certificate-signed-by-ourselves")


def test_a_stop_while_files_are_looked_at(tmp_path):
    """The supervisor looks every other second whether they changed; the disk takes its time, and the stop comes meanwhile."""
    make_certificate(tmp_path, "mx")
    slow = ["strace", "-D", "-f", "-qq", "-o", str(tmp_path / "trace"), "-P", f"{tmp_path}/mx.pem", "-e", "trace=newfstatat",
            "-e", "inject=newfstatat:delay_enter=4000000"]
    held = collections.Counter()

    def is_held(pid):
        """strace holds a thread in that call: other calls it lets go at once."""
        for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                held[task.name] = held[task.name] + 1 if "\nState:\tt" in (task / "status").read_text() else 0
        return max(held.values()) >= 10

    with Postrider(tmp_path, SITE, more=tls_blocks(tmp_path, "mx"), command=slow) as server:
        wait_until(lambda: is_held(server.process.pid), what="a look at the certificate")
        assert server.stop() == 0
    assert server.log_events("stopped")


def test_a_certificate_too_weak_to_be_shown(tmp_path):
    """It can be read, and is its key's; OpenSSL shows none that is signed with SHA-1. The others are shown all the same."""
    make_certificate(tmp_path, "authority", host="authority.test")
    want = make_certificate(tmp_path, "mx")
    subprocess.run(["openssl", "req", "-x509", "-sha1", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=mx.local.test", "-days", "30",
                    "-CA", tmp_path / "authority.pem", "-CAkey", tmp_path / "authority.key",
                    "-keyout", tmp_path / "weak.key", "-out", tmp_path / "weak.pem"], check=True, capture_output=True)
    with Postrider(tmp_path, SITE, more=tls_blocks(tmp_path, "weak", "mx")) as server:
        assert shown(server) == want
        assert {e["file"] for e in server.logged("certificate-unusable")} == {f"{tmp_path}/weak.pem"}
        assert not server.log_events("link-violated")


def test_a_key_that_others_can_read(tmp_path):
    """It is used, and said; check calls it an error."""
    want = {name: make_certificate(tmp_path, name) for name in ("mx", "closed")}
    (tmp_path / "mx.key").chmod(0o644)
    (tmp_path / "closed.key").chmod(0o640)
    with Postrider(tmp_path, SITE, more=tls_blocks(tmp_path, *want)) as server:
        assert shown(server) == want["mx"]
        assert {e["path"] for e in server.logged("secret-open-to-others")} == {f"{tmp_path}/mx.key"}


def core_of(pid, folder):
    """As the kernel would write it: gdb's gcore."""
    said = subprocess.run(["gcore", "-o", folder / "core", str(pid)], capture_output=True, text=True, timeout=120, check=False)
    path = folder / f"core.{pid}"
    assert path.exists(), said
    core = path.read_bytes()
    path.unlink()
    return core


def memory_of(pid):
    """All that a process can read of itself, in pieces that end at what it cannot: the guards between fibers' stacks."""
    page = os.sysconf("SC_PAGE_SIZE")
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as mem:
        for line in pathlib.Path(f"/proc/{pid}/maps").read_text().splitlines():
            at, end = (int(x, 16) for x in line.split()[0].split("-"))
            if " r" not in line or "[v" in line or end - at > 1 << 32:
                continue
            piece = b""
            while at < end:
                with contextlib.suppress(OSError, OverflowError, ValueError):
                    mem.seek(at)
                    piece += (more := mem.read(end - at))
                    at += len(more)
                    if more:
                        continue
                if piece:
                    yield piece
                piece = b""
                at += page
            if piece:
                yield piece


def secret_parts(path):
    """What would give the key away: its secret numbers in both byte orders, and its file as it is and decoded."""
    text = subprocess.run(["openssl", "pkey", "-in", path, "-noout", "-text"], check=True, capture_output=True, text=True).stdout
    found = re.findall(r"(?:priv|privateExponent|prime1|prime2|exponent1|exponent2|coefficient):\n((?:\s+[0-9a-f:]+\n)+)", text)
    numbers = [bytes.fromhex(re.sub(r"[^0-9a-f]", "", digits)).lstrip(b"\0") for digits in found]
    assert len(numbers) in {1, 6} and all(len(number) >= 30 for number in numbers)
    lines = path.read_bytes().splitlines()[1:-1]
    der = base64.b64decode(b"".join(lines))
    return numbers + [number[::-1] for number in numbers] + [b"\n".join(lines)[:64], der]


@contextlib.contextmanager
def load(work, threads=4):
    """Calls work() again and again, by several threads, and gives the list of what it returned, as it grows."""
    done, results = threading.Event(), []

    def run():
        while not done.is_set():
            results.append(work())

    running = [threading.Thread(target=run, daemon=True) for _ in range(threads)]
    for thread in running:
        thread.start()
    try:
        yield results
    finally:
        done.set()
        for thread in running:
            thread.join()


def test_no_key_outside_its_role(tmp_path):
    make_certificate(tmp_path, "ec")
    make_certificate(tmp_path, "rsa", ("rsa:2048",))
    parts = secret_parts(tmp_path / "ec.key") + secret_parts(tmp_path / "rsa.key")
    rsa_only = context(ssl.TLSVersion.TLSv1_2, "ECDHE-RSA-AES128-GCM-SHA256")
    release = os.environ["POSTRIDER_RELEASE"]
    with Postrider(tmp_path / "next", SITE, binary_path=release, more="") as next_hop, \
            Postrider(tmp_path / "a", RELAY.replace("local.test", "a.test"), next_port=next_hop.port, binary_path=release,
                      more=tls_blocks(tmp_path, "ec", "rsa")) as server:

        def one_of_each():
            handshake(server, rsa_only)
            # While gcore holds `keys`, nobody can sign.
            with contextlib.suppress(smtplib.SMTPException, OSError), smtplib.SMTP("127.0.0.1", server.port, timeout=60) as client:
                client.starttls(context=context())
                client.sendmail("a@client.test", ["ok@local.test"], b"Subject: x\r\n\r\nx\r\n")

        with load(one_of_each) as done:
            wait_until(lambda: len(done) > 20 and len(next_hop.mails()) > 20)
            pids = server.role_pids()
            cores = {role: core_of(pid, tmp_path) for role, pid in pids.items() if role.split()[0] in {"receiver", "sender", "keys"}}
            found = {role: sum(part in core for part in parts) for role, core in cores.items()}
            for role, pid in pids.items():
                if role not in cores:
                    found[role] = sum(part in piece for piece in memory_of(pid) for part in parts)
            so_far = len(done)
            wait_until(lambda: len(done) > so_far)
        print(f"{len(parts)} parts of two keys after {len(done)} rounds, in cores of "
              + ", ".join(f"{role} ({len(core) >> 20} MiB): {found[role]}" for role, core in cores.items()))
        assert len(cores) >= 5
        assert {"TLSv1.3", "TLSv1.2"} <= {e.get("tls") for e in server.log_events("session")}
        assert all(e["tls"] for e in next_hop.log_events("accepted"))
        assert found.pop("keys 0") > 0, "the search finds what is there"
        assert not any(found.values()), found


POOLS = SITE.replace("listen mx {{", "listen mx {{ {mx};") + """
listen submission {{ address 127.0.0.1:{submission}; {own_submission} }}
listen submissions {{ address 127.0.0.1:{submissions}; {own_submissions} }}
users file users
"""


def test_pools_share_no_keys(tmp_path):
    """Each listener shows its own, and whoever serves the one kind has nothing of the other: no certificate to name a key by."""
    names = ("mx", "submission", "submissions")
    made = {name: make_certificate(tmp_path, name) for name in names}
    blocks = {name: tls_blocks(tmp_path, name) for name in names}
    public = {}
    for name in names:
        der = subprocess.run(["openssl", "x509", "-in", tmp_path / f"{name}.pem", "-noout", "-pubkey"], check=True,
                             capture_output=True).stdout
        public[name] = base64.b64decode(b"".join(der.splitlines()[1:-1]))[-64:]
    with Postrider(tmp_path, POOLS, binary_path=os.environ["POSTRIDER_RELEASE"], more="", mx=blocks["mx"], submission=free_port(),
                   own_submission=blocks["submission"], submissions=free_port(), own_submissions=blocks["submissions"]) as server:
        assert shown(server) == made["mx"]
        assert shown(server, port=server.values["submission"]) == made["submission"]
        with smtplib.SMTP_SSL("127.0.0.1", server.values["submissions"], context=context(), timeout=60) as client:
            assert client.sock.getpeercert(binary_form=True) == made["submissions"]

        def due(role):
            return set(names) if role == "keys 0" else {"mx"} if role.startswith("receiver") else {"submission", "submissions"}

        def found():
            known = {role: {name for piece in memory_of(pid) for name in names if public[name] in piece}
                     for role, pid in server.role_pids().items() if role.split()[0] in {"keys", "receiver", "submission"}}
            return known if all(known[role] >= due(role) for role in known) else None

        known = wait_until(found, what="certificates wherever they are due")  # who has served nobody may not have them yet
    assert {role.split()[0] for role in known} == {"keys", "receiver", "submission"}
    assert known == {role: due(role) for role in known}, known


def test_nobody_logs_in_before_tls(tmp_path):
    with Postrider(tmp_path, POOLS, more="", mx="", submission=free_port(), own_submission="", submissions=free_port(),
                   own_submissions="") as server:
        server.cli("user", "add", "anna", "--config", str(server.config_path), input="password of anna\n")
        server.logged("users")
        plain = "AUTH PLAIN " + base64.b64encode(b"\0anna\0password of anna").decode()
        with smtplib.SMTP("127.0.0.1", server.values["submission"], timeout=60) as client:
            client.ehlo("early.test")
            assert not client.has_extn("auth")
            assert client.docmd(plain)[0] == 538 and client.docmd("AUTH PLAIN")[0] == 538
            assert client.docmd("MAIL FROM:<anna@local.test>")[0] == 530
            client.starttls(context=context())
            assert client.docmd("MAIL FROM:<anna@local.test>")[0] == 503
            client.ehlo("late.test")
            assert client.has_extn("auth")
            assert client.docmd("MAIL FROM:<anna@local.test>")[0] == 530, "nothing of before counts"
            wait_until(lambda: client.docmd(plain)[0] == 235, what="the login")
        with smtplib.SMTP("127.0.0.1", server.port, timeout=60) as client:
            client.starttls(context=context())
            client.ehlo()
            assert not client.has_extn("auth"), "port 25 is no place for users"


def test_a_certificate_logs_in(tmp_path):
    """SASL EXTERNAL goes by the name of a certificate that was verified, and is offered to nobody else."""
    make_certificate(tmp_path, "ca", host="authority.test")
    make_certificate(tmp_path, "other", host="other.authority.test")
    ask = f"client-certificates ask {tmp_path}/ca.pem"
    with Postrider(tmp_path, POOLS, more="", mx=ask, submission=free_port(), own_submission=ask, submissions=free_port(),
                   own_submissions=ask) as server:
        server.cli("user", "add", "anna", "--config", str(server.config_path), input="password of anna\n")
        server.logged("users")

        def login(certificate, port, starttls):
            ctx = context()
            if certificate:
                ctx.load_cert_chain(certificate)
            kind = smtplib.SMTP if starttls else functools.partial(smtplib.SMTP_SSL, context=ctx)
            with kind("127.0.0.1", port, timeout=60) as client:
                if starttls:
                    client.starttls(context=ctx)
                client.ehlo()
                if "EXTERNAL" not in client.esmtp_features.get("auth", "").split():
                    return "not offered", client.docmd("AUTH EXTERNAL =")[0]
                return client.docmd("AUTH EXTERNAL =")[0]

        anna = make_client(tmp_path, "anna", "ca")
        wait_until(lambda: login(anna, server.values["submissions"], False) == 235, what="the login")
        assert login(anna, server.values["submission"], True) == 235
        assert login(make_client(tmp_path, "bob", "ca"), server.values["submissions"], False) == 535
        for stranger in (make_client(tmp_path, "anna", "other"), make_client(tmp_path, "anna", None), None):
            assert login(stranger, server.values["submissions"], False) == ("not offered", 504)
        assert login(anna, server.port, True)[0] == "not offered", "port 25 is no place for users"


def handshake(server, ctx=None):
    """How it went: nothing but these may happen."""
    try:
        return shown(server, ctx) and "done"
    except smtplib.SMTPNotSupportedError:
        return "not offered"
    except smtplib.SMTPResponseException as e:
        return e.smtp_code
    except (ssl.SSLError, OSError, smtplib.SMTPServerDisconnected):
        return "broken off"


def test_keys_that_die_under_load(tmp_path):
    kills = 50 if FULL else 5
    with Postrider(tmp_path, SITE, more="") as server, smtplib.SMTP("127.0.0.1", server.port, timeout=60) as open_before:
        open_before.starttls(context=context())
        receivers = {role: pid for role, pid in server.role_pids().items() if role.startswith("receiver")}
        with load(lambda: handshake(server)) as results:
            for _ in range(kills):
                pid = server.role_pids()["keys 0"]
                so_far = results.count("done")
                wait_until(lambda: results.count("done") >= so_far + 8, what="handshakes go through")
                os.kill(pid, signal.SIGKILL)
                assert open_before.noop()[0] == 250
                wait_until(lambda: server.role_pids().get("keys 0", pid) != pid)
            so_far = results.count("done")
            wait_until(lambda: results.count("done") >= so_far + 8, what="handshakes after the last restart")
        counts = collections.Counter(results)
        print(f"keys killed {kills} times under load: " + ", ".join(f"{count} {how}" for how, count in counts.most_common()))
        assert set(counts) <= {"done", "not offered", 454, "broken off"}
        assert receivers == {role: pid for role, pid in server.role_pids().items() if role in receivers}
        assert open_before.noop()[0] == 250


@pytest.mark.parametrize("at_once", [False, True], ids=["STARTTLS", "at once"])
def test_clients_wait_for_keys(tmp_path, at_once):
    """Whoever comes while `keys` is being started anew is offered STARTTLS all the same, and its handshake succeeds."""
    def handshake_at_once(server):
        try:
            with smtplib.SMTP_SSL("127.0.0.1", server.values["submissions"], context=context(), timeout=60) as client:
                return client.noop()[0] == 250 and "done"
        except (ssl.SSLError, OSError, smtplib.SMTPServerDisconnected) as e:
            return repr(e)

    with Postrider(tmp_path, POOLS, more="", mx="", submission=free_port(), own_submission="", submissions=free_port(),
                   own_submissions="") as server:
        done = 0
        for deaths in range(1, 6):
            pid = wait_until(lambda: server.role_pids().get("keys 0"))
            killed = time.monotonic()
            os.kill(pid, signal.SIGKILL)
            server.logged("role-ended", deaths, role="keys")
            how = handshake_at_once(server) if at_once else handshake(server)
            assert how == "done" or time.monotonic() - killed > 5, how  # KEYS_WAIT_NS: no longer
            done += how == "done"
        assert done


def read_to_end(sock):
    said = b""
    with contextlib.suppress(OSError):
        while piece := sock.recv(65536):
            said += piece
    return said


class NextHop:
    """A server that offers STARTTLS and then does as told: "refuse" it, "garbage" instead of a handshake, or "hang" up."""

    def __init__(self, how):
        self.how = how
        self.sessions, self.messages = [], []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.talk, args=(sock,), daemon=True).start()

    def talk(self, sock):
        verbs = []
        self.sessions.append(verbs)
        with sock, contextlib.suppress(OSError), sock.makefile("rb") as lines:
            sock.sendall(b"220 next.hop\r\n")
            for line in lines:
                verb = line.split()[0].upper()
                verbs.append(verb.decode())
                if verb == b"STARTTLS":
                    if self.how == "hang":
                        return
                    sock.sendall(b"454 4.7.0 no\r\n" if self.how == "refuse" else b"220 go\r\nnot a handshake, is it?\r\n")
                elif verb == b"DATA":
                    sock.sendall(b"354 go\r\n")
                    self.messages.append(b"".join(iter(lines.readline, b".\r\n")))
                    sock.sendall(b"250 ok\r\n")
                else:
                    sock.sendall(b"250-next.hop\r\n250 STARTTLS\r\n" if verb == b"EHLO" else b"250 ok\r\n")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.close()


@contextlib.contextmanager
def at_starttls(server):
    """A socket on which the server waits for a handshake."""
    with socket.create_connection(("127.0.0.1", server.port), 60) as sock:
        for said, ends in ((b"", b"\r\n"), (b"EHLO client.test\r\n", b"250 HELP\r\n"), (b"STARTTLS\r\n", b"\r\n")):
            sock.sendall(said)
            got = b""
            while not got.endswith(ends):
                piece = sock.recv(4096)
                assert piece
                got += piece
        assert got.startswith(b"220 ")
        yield sock


def test_who_misbehaves_in_the_handshake_is_shown_out_alone(tmp_path):
    with Postrider(tmp_path, SITE, more="") as server, smtplib.SMTP("127.0.0.1", server.port, timeout=60) as other:
        other.starttls(context=context())
        with at_starttls(server) as silent:  # a handshake that never ends: it holds nobody up
            silent.sendall(b"\x16\x03\x01\x02\x00")
            for garbage in (b"RSET\r\nNOOP\r\n", b"\0" * 65536, os.urandom(65536), b"\x16\x03\x01\xff\xff" + b"x" * 65536):
                with at_starttls(server) as sock:
                    with contextlib.suppress(OSError):
                        sock.sendall(garbage)
                    said = read_to_end(sock)
                assert not re.search(rb"^[2345]\d\d[ -]", said), said  # an alert, or nothing: never a reply in clear
                assert other.noop()[0] == 250
            failed = wait_until(lambda: [e for e in server.log_events("session") if "tls-failure" in e])
            assert failed[0]["ended"] == "TLS handshake failed"
            with at_starttls(server) as sock:  # a byte at a time
                tls = context().wrap_bio(incoming := ssl.MemoryBIO(), outgoing := ssl.MemoryBIO(), server_hostname="mx.local.test")
                while not tls.version():
                    try:
                        tls.do_handshake()
                    except ssl.SSLWantReadError:
                        while byte := outgoing.read(1):
                            sock.sendall(byte)
                        incoming.write(sock.recv(1))
                assert tls.version()
        assert other.noop()[0] == 250


@pytest.fixture(name="door", scope="module")
def one_server_for_those_who_misbehave(tmp_path_factory):
    """And a session beside them, which none of them may hold up."""
    site = SITE.replace("listen mx {{", "listen mx {{ tls-wait 15s;")
    with Postrider(tmp_path_factory.mktemp("door"), site, more="") as server, \
            smtplib.SMTP("127.0.0.1", server.port, timeout=60) as other:
        other.starttls(context=context())
        server.other = other
        yield server


def all_is_well_beside(server):
    assert server.other.noop()[0] == 250


def sessions_of(server, helo):
    return wait_until(lambda: [e for e in server.log_events("session") if e.get("helo") == helo], what=f"the end of {helo}")


class Records:
    """A client that holds TLS in its own hands: what it says, and in which records and segments it leaves."""

    def __init__(self, server, version=None, helo="records.test"):
        self.sock = socket.create_connection(("127.0.0.1", server.port), 60)
        self.here = b""
        self.tls = None
        assert self.reply().startswith(b"220 ")
        assert self.command(b"EHLO before.test").startswith(b"250")
        assert self.command(b"STARTTLS").startswith(b"220 ")
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.version, self.helo = version, helo

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def shake_hands(self, leave=None):
        """leave: what becomes of the first flight's bytes."""
        tls = context(self.version).wrap_bio(self.incoming, self.outgoing, server_hostname="mx.local.test")
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                flight = self.outgoing.read()
                self.sock.sendall(leave(flight) if leave else flight)
                leave = None
                self.feed()
        self.sock.sendall(self.outgoing.read())
        self.tls = tls
        return self

    def feed(self):
        piece = self.sock.recv(65536)
        if not piece:
            raise ConnectionResetError
        self.incoming.write(piece)

    def send(self, data):
        if self.tls:
            self.tls.write(data)
            data = self.outgoing.read()
        self.sock.sendall(data)

    def reply(self):
        while not re.search(rb"^\d{3} .*\r\n", self.here, re.M):
            if not self.tls:
                piece = self.sock.recv(4096)
            else:
                try:
                    piece = self.tls.read(4096)
                except ssl.SSLWantReadError:
                    self.feed()
                    continue
            assert piece, "the server closed"
            self.here += piece
        end = re.search(rb"^\d{3} .*\r\n", self.here, re.M).end()
        said, self.here = self.here[:end], self.here[end:]
        return said

    def command(self, line):
        self.send(line + b"\r\n")
        return self.reply()

    def begin_message(self):
        assert self.command(b"EHLO " + self.helo.encode()).startswith(b"250")
        assert self.command(b"MAIL FROM:<a@client.test>").startswith(b"250 ")
        assert self.command(b"RCPT TO:<ok@local.test>").startswith(b"250 ")
        return self

    def say_goodbye(self):
        """close_notify, without waiting for the other's."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        self.sock.sendall(self.outgoing.read())


@pytest.mark.parametrize("behind", [b"RSET\r\n", b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<ok@local.test>\r\nDATA\r\nx\r\n.\r\n", b"\x16"])
def test_injected_commands_are_not_run(door, behind):
    with socket.create_connection(("127.0.0.1", door.port), 60) as sock:
        sock.sendall(b"EHLO injected.test\r\n")
        got = b""
        while not got.endswith(b"250 HELP\r\n"):
            got += sock.recv(4096)
        sock.sendall(b"STARTTLS\r\n" + behind)
        said = read_to_end(sock)
    assert said.startswith(b"554 ") and said.count(b"\r\n") == 1
    assert not any("tls" in e or e["messages"] for e in sessions_of(door, "injected.test"))
    all_is_well_beside(door)


def test_what_was_said_in_clear_is_forgotten(door):
    """Session fixation: neither a name, nor a transaction that somebody else began, is the client's own behind TLS."""
    seen = len(door.mails())
    with smtplib.SMTP("127.0.0.1", door.port, timeout=60) as client:
        assert client.docmd("EHLO fixed.test")[0] == 250
        assert client.docmd("MAIL FROM:<victim@local.test>")[0] == 250
        assert client.docmd("STARTTLS")[0] == 503, "not in a transaction"
        assert client.docmd("RSET")[0] == 250
        assert client.docmd("AUTH PLAIN AGEAYg==")[0] in {502, 503, 538}
        client.starttls(context=context())
        for before_ehlo in ("MAIL FROM:<a@client.test>", "RCPT TO:<ok@local.test>", "DATA", "BDAT 3 LAST", "STARTTLS"):
            if before_ehlo.startswith("BDAT"):
                client.send(b"BDAT 3 LAST\r\nx\r\n")
                assert client.getreply()[0] == 503
            else:
                assert client.docmd(before_ehlo)[0] in {503, 554}, before_ehlo
        assert client.docmd("HELO own.test")[0] == 250
        assert client.mail("a@client.test")[0] == client.rcpt("ok@local.test")[0] == client.data(b"Subject: own\r\n\r\n")[0] == 250
    mail = door.wait_for_mail(count=seen + 1)[-1]
    assert b"fixed.test" not in mail and b"from own.test" in mail
    assert sessions_of(door, "own.test")[0]["messages"] == 1
    all_is_well_beside(door)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
@pytest.mark.parametrize("goodbye", [True, False], ids=["farewell", "cut"])
@pytest.mark.parametrize("how", ["DATA", "BDAT"])
def test_a_message_that_is_cut_is_none(door, how, goodbye, version):
    helo = f"cut-{how}-{goodbye}-{version.name}.test".lower()
    seen = len(door.mails())
    with Records(door, version, helo) as client:
        client.shake_hands().begin_message()
        if how == "DATA":
            assert client.command(b"DATA").startswith(b"354 ")
            client.send(b"Subject: cut\r\n\r\nfirst line\r\n")
        else:
            assert client.command(b"BDAT 20\r\nSubject: cut\r\n\r\n12").startswith(b"250 ")
            client.send(b"BDAT 1000 LAST\r\nfirst line\r\n")
        if goodbye:
            client.say_goodbye()
            client.sock.sendall(b".\r\n")  # in clear: it is not read
        else:
            client.sock.shutdown(socket.SHUT_WR)
        rest = read_to_end(client.sock)
        assert b"250" not in rest
    [session] = sessions_of(door, helo)
    assert session["messages"] == 0 and session["ended"] != "quit", session
    print(f"{how}, {'with' if goodbye else 'without'} a farewell, {session['tls']}: {session['ended']}")
    assert len(door.mails()) == seen
    all_is_well_beside(door)


def test_renegotiation_is_refused(door):
    with subprocess.Popen(["openssl", "s_client", "-starttls", "smtp", "-connect", f"127.0.0.1:{door.port}", "-tls1_2", "-name", "again.test"],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as client:
        said = b""
        while b"250 HELP" not in said:  # what s_client read last in clear
            piece = client.stdout.read1()
            assert piece, said
            said += piece
        client.stdin.write(b"R\n")
        client.stdin.flush()
        said += client.communicate(b"", timeout=60)[0]
    assert b"RENEGOTIATING" in said and b"no renegotiation" in said, said[-1000:]
    all_is_well_beside(door)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def test_records_of_one_byte(door, version):
    def in_small_records(flight):
        kind, payload = flight[:3], flight[5:]
        return b"".join(kind + b"\0\1" + bytes([byte]) for byte in payload)

    seen = len(door.mails())
    with Records(door, version, "small.test") as client:
        client.shake_hands(in_small_records).begin_message()
        assert client.command(b"DATA").startswith(b"354 ")
        for byte in b"Subject: small\r\n\r\n" + b"x" * 1000 + b"\r\n.\r\n":
            client.send(bytes([byte]))
        assert client.reply().startswith(b"250 ")
    assert b"x" * 1000 in door.wait_for_mail(count=seen + 1)[-1]
    all_is_well_beside(door)


def test_a_handshake_that_does_not_end(door):
    """It ends by tls-wait, also when bytes go on to come."""
    with at_starttls(door) as silent, at_starttls(door) as slow, at_starttls(door) as mute:
        hello = context().wrap_bio(ssl.MemoryBIO(), outgoing := ssl.MemoryBIO(), server_hostname="x.test")
        with contextlib.suppress(ssl.SSLWantReadError):
            hello.do_handshake()
        silent.sendall(b"\x16\x03\x01\x02\x00")
        mute.sendall(outgoing.read())  # and then says nothing to the answer

        def drip():
            with contextlib.suppress(OSError):
                for byte in itertools.chain(b"\x16\x03\x01\x3f\xff\x01\x00\x3f\xfb", itertools.repeat(0, 16000)):
                    slow.sendall(bytes([byte]))
                    if ended.wait(0.01):
                        break

        ended = threading.Event()
        dripping = threading.Thread(target=drip, daemon=True)
        dripping.start()
        began = time.monotonic()
        for sock in (silent, slow, mute):
            assert not re.search(rb"^[2345]\d\d[ -]", read_to_end(sock))
            all_is_well_beside(door)
        took = time.monotonic() - began
        ended.set()
        dripping.join()
    failed = wait_until(lambda: len(e := [e for e in door.log_events("session") if "tls-failure" in e and "tim" in e["tls-failure"]]) >= 3 and e)
    print(f"three handshakes that do not end: over after {took:.1f} s, tls-failure {failed[0]['tls-failure']!r}")
    assert failed[0]["ended"] == "TLS handshake failed"


def test_the_tools_that_administrators_use(tmp_path):
    make_certificate(tmp_path, "mx")
    with Postrider(tmp_path, SITE, more=tls_blocks(tmp_path, "mx")) as server:
        at = f"127.0.0.1:{server.port}"
        for version in ("-tls1_2", "-tls1_3"):
            said = subprocess.run(["openssl", "s_client", "-starttls", "smtp", "-connect", at, version, "-CAfile", tmp_path / "mx.pem",
                                   "-verify_return_error", "-servername", "mx.local.test"], input="QUIT\r\n",
                                  capture_output=True, text=True, timeout=60, check=True).stdout
            assert "Verify return code: 0 (ok)" in said
        old = subprocess.run(["openssl", "s_client", "-starttls", "smtp", "-connect", at, "-tls1_1", "-cipher", "ALL@SECLEVEL=0"],
                             input="QUIT\r\n", capture_output=True, text=True, timeout=60, check=False)
        assert old.returncode != 0
        said = subprocess.run(["swaks", "--server", at, "--tls", "--from", "a@client.test", "--to", "ok@local.test"],
                              capture_output=True, text=True, timeout=60, check=True).stdout
        assert "TLS started with cipher TLSv1.3" in said and "~> QUIT" in said
        found = subprocess.run(["posttls-finger", "-c", "-l", "encrypt", "-o", "inet_protocols=ipv4", f"[127.0.0.1]:{server.port}"],
                               capture_output=True, text=True, timeout=60, check=False)
        assert "TLS connection established to 127.0.0.1" in found.stdout + found.stderr, found
        server.wait_for_mail()


def test_tickets_resume_with_every_receiver_until_their_key_is_gone(tmp_path):
    """TLS 1.2, where a session can be offered again and again."""
    ctx = context(ssl.TLSVersion.TLSv1_2)
    names = itertools.count()
    with Postrider(tmp_path, SITE, more="tls-tickets 4s") as server:

        def meet(session=None):
            """The session, whether it was resumed, and with which receiver."""
            with smtplib.SMTP("127.0.0.1", server.port, timeout=60) as client:
                client.ehlo()
                client.docmd("STARTTLS")
                with ctx.wrap_socket(client.sock, session=session, server_hostname="mx.local.test") as tls:
                    client.sock, client.file = tls, None
                    client.ehlo(name := f"c{next(names)}.test")
                    found = tls.session, tls.session_reused
                    client.quit()
            told = wait_until(lambda: [e for e in server.log_events("session") if e.get("helo") == name])[0]
            assert ("tls-resumed" in told) == found[1]
            return *found, told["pid"]

        def meet_only(receiver, session):
            """Whether that one resumes it: the others stand still meanwhile."""
            for pid in receivers - {receiver}:
                os.kill(pid, signal.SIGSTOP)
            try:
                _, resumed, pid = meet(session)
                assert pid == receiver
                return resumed
            finally:
                for pid in receivers - {receiver}:
                    os.kill(pid, signal.SIGCONT)

        def replaced():
            return len(server.log_events("ticket-key-replaced"))

        receivers = {pid for role, pid in server.role_pids().items() if role.startswith("receiver")}
        assert len(receivers) > 1
        while True:  # until it fits between two replacements: a slow machine takes some
            at = replaced()
            session, resumed, _ = meet()
            assert not resumed
            if replaced() != at:
                continue
            wait_until(lambda: replaced() > at)
            met = [meet_only(pid, session) for pid in receivers]
            if replaced() == at + 1:
                break
        assert all(met), "its key was replaced once"
        wait_until(lambda: not meet(session)[1], what="the end of the ticket's key")
        ended = time.time()
        # Its line in the log may come after the receivers have the key.
        line = wait_until(lambda: server.log_events("ticket-key-replaced")[at + 1:], what="the second replacement's line")[0]
        assert datetime.datetime.fromisoformat(line["time"]).timestamp() < ended + 1
        for _ in range(10):
            assert not meet(session)[1]


def test_tickets_resume_over_a_reload(tmp_path):
    """The next generation has the keys of the one before."""
    ctx = context(ssl.TLSVersion.TLSv1_2)

    def meet(session=None):
        with smtplib.SMTP("127.0.0.1", server.port, timeout=60) as client:
            client.ehlo()
            client.docmd("STARTTLS")
            with ctx.wrap_socket(client.sock, session=session, server_hostname="mx.local.test") as tls:
                client.sock, client.file = tls, None
                client.ehlo("client.test")
                found = tls.session, tls.session_reused
                client.quit()
        return found

    with Postrider(tmp_path, SITE, more="") as server:
        session, _ = meet()
        assert meet(session)[1]
        for _ in range(2):
            server.cli("reload", "--config", str(server.config_path))
            assert meet(session)[1]


RELAY = SITE.replace("; tls off }}", " }}")


def test_mail_leaves_encrypted(tmp_path):
    with Postrider(tmp_path / "b", SITE, more="") as next_hop, \
            Postrider(tmp_path / "a", RELAY.replace("local.test", "a.test"), next_port=next_hop.port, more="") as server:
        for i in range(3):
            server.send(to="ok@local.test", content=b"Subject: %d\r\n\r\n" % i + b"x" * 70000 + b"\r\n")
        mails = next_hop.wait_for_mail(count=3)
        assert all(b"from mx.a.test" in mail and b"with ESMTPS\n" in mail and b"x" * 70000 in mail for mail in mails)
        server.wait_until_empty()
        assert not server.log_events("tls-failed")
        assert {e["tls"] for e in server.logged("attempt", 3)} == {"unverified"}
        accepted = next_hop.logged("accepted", 3)
        assert {e["tls"] for e in accepted} == {"TLSv1.3"}


@pytest.mark.parametrize("how", ["refuse", "garbage", "hang"])
def test_without_tls_mail_leaves_all_the_same(tmp_path, how):
    with NextHop(how) as next_hop, Postrider(tmp_path, RELAY, next_port=next_hop.port, more="") as server:
        server.send(to="someone@elsewhere.test")
        server.wait_until_empty()
        assert len(next_hop.messages) == 1
        assert next_hop.sessions[0][:2] == ["EHLO", "STARTTLS"] and "MAIL" not in next_hop.sessions[0]
        assert "STARTTLS" not in next_hop.sessions[1] and "MAIL" in next_hop.sessions[1]
        [told] = server.logged("tls-failed")
        assert told["why"] and told["so"] == "once more in clear"
        assert [e["tls"] for e in server.logged("attempt")] == ["none"]


def test_where_the_route_says_off_nothing_is_encrypted(tmp_path):
    with NextHop("refuse") as next_hop, Postrider(tmp_path, SITE, next_port=next_hop.port, more="") as server:
        server.send(to="someone@elsewhere.test")
        server.wait_until_empty()
        assert len(next_hop.sessions) == 1 and "STARTTLS" not in next_hop.sessions[0]
