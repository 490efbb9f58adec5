"""Users and their mail programs: who logs in, by what, over both ports; whom one may send as; what a message lacks gets.

The last test prints the table of client, port and mechanism.
"""
import base64
import contextlib
import fcntl
import hashlib
import hmac
import os
import re
import secrets
import shutil
import smtplib
import ssl
import subprocess
import termios
import threading
import time

import pytest

from harness import Postrider, free_port, parse, wait_until
from peers import ScriptedServer
from test_tls import context, make_certificate, memory_of

USER, PASSWORD = "anna@local.test", "pencil & paper"
SITE = """
hostname mx.local.test
state {state}
listen mx          {{ address 127.0.0.1:{port} }}
listen submission  {{ address 127.0.0.1:{start}; client-certificates ask {place}/authority.pem; hide-client on }}
listen submissions {{ address 127.0.0.1:{at_once}; client-certificates ask {place}/authority.pem }}
tls {{ certificate {place}/mx.pem; key {place}/mx.key }}
domain local.test {{
    mailbox anna bob carol limited
    alias   postmaster -> anna
    alias   team -> anna, bob
    alias   info -> bob
    alias   many -> include:{place}/many
    subaddress +
    deliver maildir {mail}/{{domain}}/{{local}}
}}
users file {place}/users {{ messages-per-day 300; recipients-per-day {recipients} }}
route default {{ via 127.0.0.1:{next_port}; tls off }}
"""
TABLE = {}
MESSAGE = b"From: anna@local.test\nTo: bob@local.test\nSubject: %s\n\nhello\n"


def make_client_certificate(folder):
    """An authority, and a certificate of anna that it signed."""
    def openssl(*words):
        subprocess.run(["openssl", *words], check=True, capture_output=True, cwd=folder)

    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    openssl("req", "-x509", *key, "-subj", "/CN=authority", "-days", "30", "-keyout", "authority.key", "-out", "authority.pem")
    openssl("req", *key, "-subj", "/CN=Anna", "-addext", f"subjectAltName=email:{USER}", "-keyout", "anna.key", "-out", "anna.csr")
    openssl("x509", "-req", "-in", "anna.csr", "-CA", "authority.pem", "-CAkey", "authority.key", "-CAcreateserial", "-days", "30",
            "-copy_extensions", "copyall", "-out", "anna.pem")


class Site(Postrider):
    def __init__(self, folder, recipients=2000, config=SITE, **values):
        folder.mkdir(parents=True, exist_ok=True)
        make_certificate(folder, "mx")
        make_client_certificate(folder)
        (folder / "many").write_text("anna@local.test\n" + "".join(f"m{i}@elsewhere.test\n" for i in range(9999)))
        self.ports = {"587": free_port(), "465": free_port()}
        super().__init__(folder, config, place=folder, start=self.ports["587"], at_once=self.ports["465"], recipients=recipients,
                         **values)
        for user, options in ((USER, ()), ("carol@local.test", ("--send-as", "info@local.test", "--send-as", "@granted.test")),
                              ("limited@local.test", ()), ("eva@b\u00fccher.test", ("--send-as", "info@b\u00fccher.test"))):
            self.add_user(user, *options)

    def add_user(self, user, *options, password=PASSWORD, verb="add"):
        subprocess.run([self.binary, "user", verb, "--config", self.config_path, user, *options], input=password + "\n", text=True,
                       check=True, capture_output=True)

    def connect(self, port="587", ctx=None):
        """smtplib, encrypted."""
        ctx = ctx or context()
        if port == "465":
            client = smtplib.SMTP_SSL("127.0.0.1", self.ports[port], context=ctx, timeout=60, local_hostname="client.test")
        else:
            client = smtplib.SMTP("127.0.0.1", self.ports[port], timeout=60, local_hostname="client.test")
            client.starttls(context=ctx)
        client.ehlo()
        return client

    def login(self, user=USER, port="587"):
        client = self.connect(port)
        client.login(user, PASSWORD)
        return client


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with Site(tmp_path_factory.mktemp("submission")) as running:
        yield running


def run(*words, **options):
    result = subprocess.run([str(w) for w in words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120, **options)
    assert result.returncode == 0, f"{words[0]}: exit {result.returncode}\n{result.stdout[-3000:].decode(errors='replace')}"
    return result.stdout.decode(errors="replace")


def installed(program):
    found = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if not found:
        pytest.skip(f"{program} is not installed")
    return found


def b64(data):
    return base64.b64encode(data).decode()


# ---- mail programs: each submits MESSAGE with a subject of its own ----

def by_smtplib(server, port, mechanism, subject):
    with server.connect(port) as client:
        client.user, client.password = USER, PASSWORD
        client.auth(mechanism, getattr(client, "auth_" + mechanism.lower().replace("-", "_")))
        client.sendmail(USER, ["bob@local.test"], MESSAGE % subject)


def by_swaks(server, port, mechanism, subject):
    run(installed("swaks"), "--server", f"127.0.0.1:{server.ports[port]}", "--tls" if port == "587" else "--tls-on-connect",
        "--auth", mechanism, "--auth-user", USER, "--auth-password", PASSWORD, "--from", USER, "--to", "bob@local.test",
        "--header", f"Subject: {subject.decode()}", "--ehlo", "client.test")


def by_curl(server, port, mechanism, subject):
    url = f"smtp://127.0.0.1:{server.ports[port]}" if port == "587" else f"smtps://127.0.0.1:{server.ports[port]}"
    run(installed("curl"), "-sS", "--ssl-reqd", "--insecure", f"{url}/client.test", "--user", f"{USER}:{PASSWORD}",
        "--login-options", f"AUTH={mechanism}", "--mail-from", USER, "--mail-rcpt", "bob@local.test", "--upload-file", "-",
        input=MESSAGE % subject)


def by_msmtp(server, port, mechanism, subject):
    words = ["--host=127.0.0.1", f"--port={server.ports[port]}", "--tls=on", "--tls-certcheck=off", f"--from={USER}", f"--user={USER}",
             f"--tls-starttls={'on' if port == '587' else 'off'}", f"--auth={mechanism.lower()}", "--domain=client.test"]
    if mechanism == "EXTERNAL":
        words += [f"--tls-cert-file={server.folder}/anna.pem", f"--tls-key-file={server.folder}/anna.key"]
    run(installed("msmtp"), "--file=/dev/null", *words, f"--passwordeval=echo '{PASSWORD}'", "bob@local.test", input=MESSAGE % subject)


NODEMAILER = """
const [port, secure, method, user, pass, subject] = process.argv.slice(1);
const server = { host: "127.0.0.1", port: Number(port), secure: secure == "1", requireTLS: secure != "1", authMethod: method,
                 auth: { user, pass }, tls: { rejectUnauthorized: false } };
require("nodemailer").createTransport(server).sendMail(
    { from: user, to: "bob@local.test", subject, text: "hello" },
    (error, info) => { console.log(error ? String(error) : info.response); process.exit(error ? 1 : 0); });
"""


def by_nodemailer(server, port, mechanism, subject):
    run(installed("node"), "-e", NODEMAILER, server.ports[port], "1" if port == "465" else "0", mechanism, USER, PASSWORD, subject.decode(),
        env=dict(os.environ, NODE_PATH="/usr/share/nodejs"))


def read_reply(pipe):
    lines = []
    while not lines or lines[-1][3:4] == b"-":
        line = pipe.readline()
        assert line, f"no reply, only {lines}"
        lines.append(line.rstrip())
    return lines[-1].decode()


def play(process, steps):
    """Says each and waits for the code."""
    for say, code in steps:
        process.stdin.write(say + b"\r\n")
        process.stdin.flush()
        reply = read_reply(process.stdout)
        assert reply.startswith(code), f"{say}: {reply}"


def transaction(subject):
    return [(b"MAIL FROM:<%s>" % USER.encode(), "250"), (b"RCPT TO:<bob@local.test>", "250"), (b"DATA", "354"),
            ((MESSAGE % subject).replace(b"\n", b"\r\n") + b".", "250"), (b"QUIT", "221")]


def by_openssl(server, port, mechanism, subject):
    """By hand, as people test servers."""
    words = ["timeout", "60", "openssl", "s_client", "-quiet", "-connect", f"127.0.0.1:{server.ports[port]}"]
    words += ["-starttls", "smtp"] if port == "587" else []
    if mechanism == "PLAIN":
        steps = [(b"AUTH PLAIN " + b64(f"\0{USER}\0{PASSWORD}".encode()).encode(), "235")]
    else:
        steps = [(b"AUTH LOGIN", "334"), (b64(USER.encode()).encode(), "334"), (b64(PASSWORD.encode()).encode(), "235")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        if port == "465":
            assert read_reply(process.stdout).startswith("220")
        play(process, [(b"EHLO client.test", "250"), *steps, *transaction(subject)])
        process.stdin.close()


def by_gsasl(server, port, mechanism, subject, priority="NORMAL"):
    """It speaks STARTTLS only, logs in, and hands over what it is given line by line."""
    words = ["timeout", "60", installed("gsasl"), "--smtp", f"--connect=127.0.0.1:{server.ports[port]}", f"--mechanism={mechanism}",
             f"--authentication-id={USER}", f"--password={PASSWORD}", "--x509-ca-file=", f"--priority={priority}",
             "--hostname=mx.local.test", "--verbose"]
    if mechanism in ("SCRAM-SHA-1", "SCRAM-SHA-256"):
        words.append("--no-cb")  # it will not do without what it could have
    if mechanism == "EXTERNAL":
        words += [f"--x509-cert-file={server.folder}/anna.pem", f"--x509-key-file={server.folder}/anna.key"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        seen = b""

        def wait_for(code):
            nonlocal seen
            while True:
                line = process.stdout.readline()
                assert line, seen.decode(errors="replace")
                seen += line
                if line.startswith(code):
                    return

        wait_for(b"235")
        # It must get each line alone: what it read beside one it forgets until its input has something new.
        for say, code in transaction(subject):
            for line in say.split(b"\r\n"):
                process.stdin.write(line + b"\r\n")
                process.stdin.flush()
                wait_until(lambda: fcntl.ioctl(process.stdin, termios.FIONREAD, bytes(4)) == bytes(4))
            wait_for(code.encode())
        process.stdin.close()
        process.stdout.read()


def scram(client, mechanism, binding=b"", binding_type=b"tls-server-end-point"):
    """RFC 5802, 7677: our own, which can bind to the certificate (RFC 5929) as well."""
    header = b"p=%s,," % binding_type if mechanism.endswith("-PLUS") else b"n,,"
    first = b"n=%s,r=%s" % (USER.encode(), secrets.token_hex(12).encode())
    code, challenge = client.docmd("AUTH", f"{mechanism} {b64(header + first)}")
    assert code == 334, challenge
    server_first = base64.b64decode(challenge)
    fields = dict(part.split(b"=", 1) for part in server_first.split(b","))
    salted = hashlib.pbkdf2_hmac("sha256", PASSWORD.encode(), base64.b64decode(fields[b"s"]), int(fields[b"i"]))

    def mac(key, text):
        return hmac.digest(key, text, "sha256")

    client_key = mac(salted, b"Client Key")
    final = b"c=%s,r=%s" % (b64(header + binding).encode(), fields[b"r"])
    message = b",".join([first, server_first, final])
    signature = mac(hashlib.sha256(client_key).digest(), message)
    proof = bytes(a ^ b for a, b in zip(client_key, signature))
    code, answer = client.docmd(b64(final + b",p=" + b64(proof).encode()))
    if code != 334:
        return code, answer
    assert base64.b64decode(answer) == b"v=" + b64(mac(mac(salted, b"Server Key"), message)).encode()
    return client.docmd("")


def by_our_own(server, port, mechanism, subject, version=None):
    ctx = context(version)
    if mechanism == "EXTERNAL":
        ctx.load_cert_chain(server.folder / "anna.pem", server.folder / "anna.key")
    with server.connect(port, ctx) as client:
        if mechanism == "EXTERNAL":
            code, answer = client.docmd("AUTH", "EXTERNAL =")
        else:
            binding = hashlib.sha256(client.sock.getpeercert(binary_form=True)).digest() if mechanism.endswith("-PLUS") else b""
            code, answer = scram(client, mechanism, binding)
        assert code == 235, answer
        client.sendmail(USER, ["bob@local.test"], MESSAGE % subject)


EXPORTER = """
const socket = require("tls").connect({port: +process.argv[1], host: "127.0.0.1", rejectUnauthorized: false,
                                       minVersion: process.argv[2], maxVersion: process.argv[2]}, () => {
    console.log(socket.exportKeyingMaterial(32, "EXPORTER-Channel-Binding", Buffer.alloc(0)).toString("hex"));
    process.stdin.pipe(socket).pipe(process.stdout);
});
"""


class Exporter:
    """A session by Node's TLS, which tells what tls-exporter binds to (RFC 9266); Python's does not, and openssl s_client leaves
    out the context, which under TLS 1.2 is not the same as an empty one (RFC 5705 section 4)."""

    def __init__(self, server, version):
        self.process = subprocess.Popen(["timeout", "60", installed("node"), "-e", EXPORTER, str(server.ports["465"]), f"TLSv{version}"],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.exporter = bytes.fromhex(self.process.stdout.readline().decode())
        assert self.reply()[0] == 220
        assert self.docmd("EHLO client.test")[0] == 250

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.stdout.read()
        self.process.wait()

    def docmd(self, command, words=""):
        self.process.stdin.write(f"{command} {words}".strip().encode() + b"\r\n")
        self.process.stdin.flush()
        return self.reply()

    def reply(self):
        last = read_reply(self.process.stdout)
        return int(last[:3]), last[4:]


def by_exporter(server, version, subject):
    with Exporter(server, version) as client:
        assert scram(client, "SCRAM-SHA-256-PLUS", bytes(32), b"tls-exporter")[0] == 535
        code, answer = scram(client, "SCRAM-SHA-256-PLUS", client.exporter, b"tls-exporter")
        assert code == 235, answer
        play(client.process, transaction(subject))


BOTH = ("587", "465")
CLIENTS = [
    ("openssl s_client", by_openssl, BOTH, ("PLAIN", "LOGIN")),
    ("swaks", by_swaks, BOTH, ("PLAIN", "LOGIN")),
    ("curl", by_curl, BOTH, ("PLAIN", "LOGIN")),
    ("msmtp", by_msmtp, BOTH, ("PLAIN", "LOGIN", "SCRAM-SHA-256", "EXTERNAL")),
    ("smtplib", by_smtplib, BOTH, ("PLAIN", "LOGIN")),
    ("nodemailer", by_nodemailer, BOTH, ("PLAIN", "LOGIN")),
    ("gsasl", by_gsasl, ("587",), ("PLAIN", "LOGIN", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS", "EXTERNAL")),
    ("our own", by_our_own, BOTH, ("SCRAM-SHA-256", "SCRAM-SHA-256-PLUS", "EXTERNAL")),
]


def subjects(server):
    return {parse(mail)["Subject"]: mail for mail in server.mails("bob")}


def accepted(server, client, port, mechanism, submit, **options):
    subject = f"{client} {port} {mechanism} {secrets.token_hex(4)}".encode()
    submit(server, port, mechanism, subject, **options)
    mail = wait_until(lambda: subjects(server).get(subject.decode()))
    assert b"with ESMTPSA\n" in mail
    assert (b"127.0.0.1" in mail.split(b"\n\n")[0]) == (port == "465"), "hide-client is on for 587 only"
    TABLE[client, port, mechanism] = "yes"


@pytest.mark.parametrize("client, submit, ports, mechanisms", CLIENTS, ids=[c[0] for c in CLIENTS])
def test_mail_programs(server, client, submit, ports, mechanisms):
    for port in ports:
        for mechanism in mechanisms:
            accepted(server, client, port, mechanism, submit)


OLD = "scram-sha-1 cram-md5"  # known, and off where nobody asks for them
OLD_CLIENTS = [
    ("swaks", by_swaks, BOTH, ("CRAM-MD5",)),
    ("curl", by_curl, BOTH, ("CRAM-MD5",)),
    ("msmtp", by_msmtp, BOTH, ("SCRAM-SHA-1", "CRAM-MD5")),
    ("smtplib", by_smtplib, BOTH, ("CRAM-MD5",)),
    ("nodemailer", by_nodemailer, BOTH, ("CRAM-MD5",)),
    ("gsasl", by_gsasl, ("587",), ("SCRAM-SHA-1", "CRAM-MD5")),
]


@pytest.fixture(scope="module")
def old_server(tmp_path_factory):
    config = SITE.replace("{{ messages-per-day", f"{{{{ mechanisms plain {OLD}; messages-per-day")
    site = Site(tmp_path_factory.mktemp("old"), config=config)
    site.add_user(USER, "--legacy", verb="passwd")
    with site as running:
        with running.connect() as client:
            assert client.esmtp_features["auth"].split() == ["SCRAM-SHA-1", "CRAM-MD5", "PLAIN"]
        yield running


@pytest.mark.parametrize("client, submit, ports, mechanisms", OLD_CLIENTS, ids=[c[0] for c in OLD_CLIENTS])
def test_old_mechanisms(old_server, client, submit, ports, mechanisms):
    """By whoever needs them, where the configuration has them and the users file what they need."""
    for port in ports:
        for mechanism in mechanisms:
            accepted(old_server, client, port, mechanism, submit)


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_channel_binding(server, version):
    """tls-exporter by gsasl, both kinds by our own client, under each version of TLS. Under 1.2 gsasl 2.2 binds to
    tls-unique, which is not safe everywhere (RFC 9266 section 1) and is refused."""
    def gsasl(server, port, _, subject):
        by_gsasl(server, port, "SCRAM-SHA-256-PLUS", subject, f"NORMAL:-VERS-ALL:+VERS-TLS{version}")

    if version == "1.3":
        accepted(server, "gsasl", "587", "SCRAM-SHA-256-PLUS 1.3", gsasl)
    else:
        with pytest.raises(AssertionError, match="535 5.7.8"):
            gsasl(server, "587", "", b"refused")
    for port in BOTH:
        accepted(server, "our own", port, f"SCRAM-SHA-256-PLUS {version}", lambda s, p, m, subject: by_our_own(
            s, p, "SCRAM-SHA-256-PLUS", subject, getattr(ssl.TLSVersion, "TLSv" + version.replace(".", "_"))))
    accepted(server, "own, tls-exporter", "465", f"SCRAM-SHA-256-PLUS {version}",
             lambda s, p, m, subject: by_exporter(s, version, subject))
    with server.connect() as client:  # whoever stands between has another certificate
        assert scram(client, "SCRAM-SHA-256-PLUS", bytes(32))[0] == 535


def test_posttls_finger(server):
    program = installed("posttls-finger")
    for port in BOTH:
        words = ["-w"] if port == "465" else []
        said = run(program, "-c", "-l", "encrypt", *words, f"[127.0.0.1]:{server.ports[port]}")
        assert "TLS connection established" in said
        TABLE["posttls-finger", port, "(TLS only)"] = "yes"


# ---- what is refused ----

def code_of(client, *words):
    code, text = client.docmd(*words)
    return code, text.split()[0].decode()


def test_not_without_tls_nor_login(server):
    plain = b64(f"\0{USER}\0{PASSWORD}".encode())
    with smtplib.SMTP("127.0.0.1", server.ports["587"], timeout=60) as client:
        client.ehlo()
        assert not client.has_extn("auth") and client.has_extn("starttls")
        assert code_of(client, "AUTH", "PLAIN " + plain) == (538, "5.7.11")
        assert code_of(client, "MAIL", f"FROM:<{USER}>") == (530, "5.7.0")
    with server.connect() as client:
        assert client.esmtp_features["auth"].split() == ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN", "LOGIN"]
        assert code_of(client, "MAIL", f"FROM:<{USER}>") == (530, "5.7.0")
        assert code_of(client, "AUTH", "PLAIN " + b64(f"\0{USER}\0wrong".encode())) == (535, "5.7.8")
        assert code_of(client, "AUTH", "PLAIN " + b64(b"\0nobody@local.test\0wrong")) == (535, "5.7.8")
        assert code_of(client, "AUTH", "NTLM") == (504, "5.5.4")
        assert code_of(client, "AUTH", "PLAIN " + plain) == (235, "2.7.0")
        assert code_of(client, "AUTH", "PLAIN " + plain)[0] == 503
    with smtplib.SMTP("127.0.0.1", server.port, timeout=60) as client:
        client.starttls(context=context())
        client.ehlo()
        assert not client.has_extn("auth"), "port 25 takes no passwords"
        assert code_of(client, "AUTH", "PLAIN " + plain)[0] == 502


def submit(client, sender, header, to="bob@local.test"):
    """The reply to MAIL where that is refused, else to the message."""
    code, text = client.docmd("MAIL", f"FROM:<{sender}>")
    if code == 250:
        assert client.docmd("RCPT", f"TO:<{to}>")[0] == 250
        code, text = client.data(header + b"\r\n\r\nhello\r\n")
    client.docmd("RSET")
    return code, text.split()[0].decode()


REFUSED = (550, "5.7.1")
SENDERS = [
    (USER, USER, b"From: anna@local.test", 250),
    (USER, "ANNA@Local.Test", b"From: Anna <Anna@LOCAL.test>", 250),
    (USER, "anna+lists@local.test", b"From: anna+x@local.test", 250),
    (USER, "team@local.test", b"From: postmaster@local.test", 250),
    (USER, "", b"From: anna@local.test", 250),
    (USER, "bob@local.test", b"From: anna@local.test", REFUSED),
    (USER, "info@local.test", b"From: anna@local.test", REFUSED),
    (USER, "anna@elsewhere.test", b"From: anna@local.test", REFUSED),
    (USER, USER, b"From: bob@local.test", REFUSED),
    (USER, USER, b"From: anna@local.test, bob@local.test", REFUSED),
    (USER, USER, b"From: anna@local.test\r\nfrom: bob@local.test", REFUSED),
    (USER, USER, b"From: anna@local.test, team@local.test\r\nSender: bob@local.test", REFUSED),
    (USER, USER, b"From: anna@local.test, team@local.test\r\nSender: anna@local.test", 250),
    (USER, USER, b"From: anna@local.test\r\nSender: bob@local.test", REFUSED),
    (USER, USER, b"From: anna@local.test\r\nsender: a b c", (550, "5.6.0")),
    (USER, USER, b"From: anna@local.test\r\nSender: team@local.test", 250),
    (USER, USER, b"Resent-From: anna@local.test\r\nFrom: anna@local.test", 250),
    (USER, USER, b"Resent-From: bob@local.test\r\nFrom: anna@local.test", REFUSED),
    (USER, USER, b"From: anna@local.test\r\nresent-from: a b c", (550, "5.6.0")),
    (USER, USER, b"Resent-From: anna@local.test, bob@local.test\r\nFrom: anna@local.test", REFUSED),
    (USER, USER, b"Resent-From: anna@local.test, team@local.test\r\nResent-Sender: anna@local.test\r\nFrom: anna@local.test", 250),
    (USER, USER, b"Resent-From: anna@local.test\r\nResent-Sender: bob@local.test\r\nFrom: anna@local.test", REFUSED),
    (USER, USER, b"Resent-Sender: bob@local.test\r\nResent-From: anna@local.test\r\nFrom: anna@local.test", REFUSED),
    # Who sent it again before anna did: RFC 5322 section 3.6.6 has the newest first.
    (USER, USER, b"Resent-From: anna@local.test\r\nResent-From: bob@local.test\r\nResent-Sender: bob@local.test\r\n"
                 b"From: anna@local.test", 250),
    (USER, USER, b"Resent-From: anna@local.test\r\nReceived: by x; now\r\nResent-Sender: bob@local.test\r\nFrom: anna@local.test", 250),
    (USER, USER, b"Resent-From: anna@local.test\r\nResent-Sender: bob@local.test\r\nResent-From: bob@local.test\r\n"
                 b"From: anna@local.test", 250),
    (USER, USER, b"Resent-From: anna@local.test\r\nResent-Sender: bob@local.test\r\nResent-Sender: bob@local.test\r\n"
                 b"Resent-From: bob@local.test\r\nFrom: anna@local.test", REFUSED),
    (USER, USER, b"Resent-From: anna@local.test\r\nResent-Sender: bob@local.test\r\nReceived: by x; now\r\n"
                 b"Resent-From: bob@local.test\r\nFrom: anna@local.test", REFUSED),
    (USER, USER, b"Resent-From: anna@local.test\r\nResent-Received: by x; now\r\nResent-Sender: bob@local.test\r\n"
                 b"From: anna@local.test", REFUSED),
    (USER, USER, b"Resent-From:\r\nResent-From: bob@local.test\r\nFrom: anna@local.test", (550, "5.6.0")),
    (USER, USER, b"Resent-From: ,\r\nResent-From: bob@local.test\r\nFrom: anna@local.test", (550, "5.6.0")),
    (USER, USER, b"Resent-From: nobody:;\r\nResent-From: bob@local.test\r\nFrom: anna@local.test", (550, "5.6.0")),
    (USER, USER, b"Resent-From: anna@local.test\r\nFrom: bob@local.test", REFUSED),
    (USER, "", b"From: \"anna@local.test\" <bob@local.test>", REFUSED),
    (USER, USER, b"From: a b c", (550, "5.6.0")),
    (USER, USER, b"From: " + b"a" * 1024 + b"@local.test", (550, "5.6.0")),
    (USER, USER, b"From: " + b",\r\n ".join([b"anna@local.test"] * 100), 250),  # LIMIT_AUTHORS
    (USER, USER, b"From: " + b",\r\n ".join([b"anna@local.test"] * 101), (550, "5.6.0")),
    # A list is looked up anew each time, and stands for 10,000; with 20,000 it is enough.
    (USER, USER, b"From: " + b", ".join([b"many@local.test"] * 2), 250),
    (USER, USER, b"From: " + b", ".join([b"many@local.test"] * 3), (550, "5.6.0")),
    (USER, "many@local.test", b"From: " + b", ".join([b"many@local.test"] * 2), (550, "5.6.0")),
    (USER, USER, b"From: many@local.test\r\nSender: anna@local.test", 250),
    (USER, "anna@laptop", b"From: anna@local.test", (501, "5.1.8")),
    ("carol@local.test", "info@local.test", b"From: anyone@granted.test", 250),
    ("carol@local.test", "info@local.test", b"From: boss@granted.test\r\nSender: carol@local.test", 250),
    ("carol@local.test", "carol@local.test", b"From: carol@local.test\r\nSender: boss@granted.test", 250),
    ("carol@local.test", "carol@local.test", b"From: anna@local.test", REFUSED),
]


def test_whom_one_may_send_as(server):
    for user in (USER, "carol@local.test"):
        with server.login(user) as client:
            for who, sender, header, want in SENDERS:
                if who == user:
                    got = submit(client, sender, header)
                    assert got == want or got[0] == want, (user, sender, header, got)


# ---- repair ----

def test_what_is_missing_is_completed(server):
    token = secrets.token_hex(4)
    with server.login() as client:
        assert client.docmd("MAIL", "FROM:<anna>")[0] == 250
        assert client.docmd("RCPT", "TO:<bob>")[0] == 250
        body = "gr\u00fc\u00dfe\r\n".encode() + b"Bcc: this is text\r\n"
        assert client.data(b"Subject: " + token.encode() + b"\r\nTo: bob, Carol <carol>\r\nBcc: secret@local.test\r\n\r\n" + body)[0] == 250
        chunk = b"From: anna\r\nSubject: chunks " + token.encode() + b"\r\nBcc: x@local.test\r\n\r\nbody\r\n"
        for cut in (1, 20, len(chunk) - 3):
            client.docmd("MAIL", f"FROM:<{USER}>")
            client.docmd("RCPT", "TO:<bob@local.test>")
            client.sock.sendall(b"BDAT %d\r\n" % cut + chunk[:cut] + b"BDAT %d LAST\r\n" % (len(chunk) - cut) + chunk[cut:])
            assert client.getreply()[0] == 250 and client.getreply()[0] == 250
    mail = wait_until(lambda: subjects(server).get(token))
    seen = parse(mail)
    assert seen["From"] == USER and seen["To"] == "bob@local.test, Carol <carol@local.test>"
    assert seen["Date"] and seen["Message-ID"].endswith("@mx.local.test>") and seen["Bcc"] is None
    assert mail.endswith(b"\n\n" + body.replace(b"\r\n", b"\n")) and b"secret@" not in mail
    wait_until(lambda: [parse(m)["Subject"] for m in server.mails("bob")].count("chunks " + token) == 3)
    for mail in server.mails("bob"):
        if parse(mail)["Subject"] == "chunks " + token:
            assert parse(mail)["From"] == USER and b"x@local.test" not in mail and mail.endswith(b"\n\nbody\n")


def test_what_is_completed_stays_ascii(server):
    """A user whose domain has letters of its own, and no SMTPUTF8: what is added to the header are A-labels."""
    token = secrets.token_hex(4)
    with server.connect() as client:
        assert client.docmd("AUTH", "PLAIN " + base64.b64encode(f"\0eva@b\u00fccher.test\0{PASSWORD}".encode()).decode())[0] == 235
        for sender, header in (("eva", b"To: bob"), ("", b"To: bob"), ("eva", b"From: eva@xn--bcher-kva.test"), ("info", b"From: info"),
                               ("eva", "From: eva@b\u00fccher.test".encode())):
            assert submit(client, sender, b"Subject: " + token.encode() + b"\r\n" + header)[0] == 250, header
        assert submit(client, "eva", b"From: bob") == REFUSED
    wait_until(lambda: [parse(m)["Subject"] for m in server.mails("bob")].count(token) == 5)
    mails = [mail for mail in server.mails("bob") if parse(mail)["Subject"] == token]
    assert [mail.isascii() for mail in mails].count(True) == 4
    assert [parse(mail)["From"] for mail in mails].count("info@xn--bcher-kva.test") == 1


# ---- FUTURERELEASE ----

def test_held_and_released(server):
    token = secrets.token_hex(4)
    with server.login() as client:
        most, until = client.esmtp_features["futurerelease"].split()
        assert most == str(30 * 86400) and until.endswith("Z")
        assert code_of(client, "MAIL", f"FROM:<{USER}> HOLDFOR={int(most) + 1}") == (501, "5.5.4")
        assert code_of(client, "MAIL", f"FROM:<{USER}> HOLDFOR=1 HOLDUNTIL=2100-01-01T00:00:00Z") == (501, "5.5.4")
        sent = {}
        for name, option in (("soon", "HOLDFOR=3"), ("past", "HOLDUNTIL=2020-01-01T00:00:00Z"), ("late", "HOLDFOR=86400")):
            began = time.monotonic()  # HOLDFOR counts from MAIL
            assert client.docmd("MAIL", f"FROM:<{USER}> {option}")[0] == 250
            assert client.docmd("RCPT", "TO:<bob@local.test>")[0] == 250
            code, text = client.data(f"Subject: {name} {token}\r\n\r\nhello\r\n".encode())
            assert code == 250
            sent[name] = began, text.split()[-1].decode()
    wait_until(lambda: subjects(server).get(f"past {token}"))
    wait_until(lambda: subjects(server).get(f"soon {token}"))
    assert time.monotonic() - sent["soon"][0] >= 2.9, "not before its time"
    assert f"late {token}" not in subjects(server)
    assert [m for m in server.queue() if m["id"] == sent["late"][1]], "it waits"
    server.cli("queue", "retry", sent["late"][1], "--config", str(server.config_path))
    wait_until(lambda: subjects(server).get(f"late {token}"))


# ---- DELIVERBY ----

def test_delivered_in_time_or_returned(tmp_path):
    """What is left of the time is told to a next hop that knows DELIVERBY; one that does not gets N only, and R comes back."""
    site = SITE.replace("users file", "route plain.test {{ via 127.0.0.1:{plain}; tls off }}\nusers file")
    with ScriptedServer(extensions=("DELIVERBY 0", "DSN")) as knows, ScriptedServer() as plain:
        with Site(tmp_path, config=site, next_port=knows.port, plain=plain.port) as server, server.login() as client:
            assert client.has_extn("deliverby")
            assert code_of(client, "MAIL", f"FROM:<{USER}> BY=0;R") == (501, "5.5.4")
            for to, by in (("a@knows.test", "BY=600;R"), ("b@knows.test", "BY=600;NT"), ("x@plain.test", "BY=600;N"),
                           ("y@plain.test", "BY=3;R")):
                assert client.docmd("MAIL", f"FROM:<{USER}> {by}")[0] == 250
                assert client.docmd("RCPT", f"TO:<{to}>")[0] == 250
                assert client.data(b"Subject: %s\r\n\r\nhello\r\n" % to.encode())[0] == 250
            wait_until(lambda: len(knows.messages) == 2 and len(plain.messages) == 1 and len(server.mails("anna")) == 3)
            notices = {action: [m for m in server.mails("anna") if b"Action: " + action in m] for action in (b"failed", b"relayed")}
            bounce, = notices[b"failed"]
            told = b"".join(notices[b"relayed"])  # of the one that is traced, and of the one whose time nobody keeps from here on
            assert len(notices[b"relayed"]) == 2 and b"b@knows.test" in told and b"x@plain.test" in told
            assert b"y@plain.test" in bounce and b"Status: 5.4.7" in bounce and b"(DELIVERBY)" in bounce
            passed_on = {rcpts[0].split("<")[1].split(">")[0]: mail for mail, rcpts, _ in knows.messages + plain.messages}
            for to, mode in (("a@knows.test", "R"), ("b@knows.test", "NT")):
                left, told = re.search(r" BY=(\d+);(\w+)", passed_on[to]).groups()
                assert told == mode and 500 < int(left) <= 600
            assert "BY=" not in passed_on["x@plain.test"] and "y@plain.test" not in passed_on
            assert len(server.mails("anna")) == 3


def test_told_of_the_delay_at_that_time(tmp_path):
    """Mode N: at the time that the sender said a notice of the delay comes, and the message goes on."""
    ready = threading.Event()
    answers = {"RCPT": lambda line, server: None if ready.is_set() else "451 4.2.1 not now"}
    with ScriptedServer(answers, extensions=("DELIVERBY",)) as slow:
        with Site(tmp_path, next_port=slow.port) as server, server.login() as client:
            assert client.docmd("MAIL", f"FROM:<{USER}> BY=2;N")[0] == 250
            assert client.docmd("RCPT", "TO:<a@slow.test>")[0] == 250
            said = client.data(b"Subject: x\r\n\r\nhello\r\n")[1].decode()
            wait_until(lambda: server.mails("anna"))
            notice, = server.mails("anna")
            assert b"Action: delayed" in notice and b"a@slow.test" in notice and b"Status: 4." in notice and not slow.messages
            ready.set()
            server.cli("queue", "retry", said.split()[-1], "--config", str(server.config_path))
            wait_until(lambda: slow.messages and len(server.mails("anna")) == 2)
            assert b"Action: relayed" in b"".join(server.mails("anna"))


# ---- limits ----

def test_limits_of_a_day(tmp_path):
    with Site(tmp_path, recipients=5) as server, server.login("limited@local.test") as client:
        assert client.docmd("MAIL", "FROM:<limited@local.test>")[0] == 250
        codes = [client.docmd("RCPT", f"TO:<bob+{i}@local.test>") for i in range(7)]
        assert [c for c, _ in codes] == [250] * 5 + [450] * 2
        assert codes[-1][1].startswith(b"4.7.1") and b"5 recipients" in codes[-1][1]
        assert client.data(b"Subject: those that fit\r\n\r\nhello\r\n")[0] == 250
        with server.login() as other:  # whose day has not begun
            assert submit(other, USER, b"From: anna@local.test")[0] == 250


def test_failures_end_a_session(server):
    with server.connect() as client:
        wrong = "PLAIN " + b64(b"\0nobody@local.test\0x")
        codes = []
        with contextlib.suppress(smtplib.SMTPServerDisconnected):
            for _ in range(7):
                codes.append(client.docmd("AUTH", wrong)[0])
        assert codes == [535] * 5 + [421]


# What a client says after EHLO, and the code of the last reply. {u} is the user and {p} the password, both in base64; {plain} is PLAIN's
# message, {clear} the password as it is. A line may be two, sent at once.
WITHIN, TOO_LONG = 3000 * "A", 13000 * "A"
LOGINS = [
    ("PLAIN", ["AUTH PLAIN {plain}"], 235),
    ("PLAIN when asked", ["AUTH PLAIN", "{plain}"], 235),
    ("LOGIN", ["AUTH LOGIN {u}", "{p}"], 235),
    ("LOGIN when asked", ["AUTH LOGIN", "{u}", "{p}"], 235),
    ("PLAIN, wrong", ["AUTH PLAIN {plain}"], 535),
    ("LOGIN, wrong", ["AUTH LOGIN", "{u}", "{p}"], 535),
    ("bad base64", ["AUTH PLAIN {plain}!"], 501),
    ("bad base64 when asked", ["AUTH PLAIN", "!{plain}"], 501),
    ("bad base64 for LOGIN", ["AUTH LOGIN {u}", "{p}!"], 501),
    ("bad base64 for LOGIN when asked", ["AUTH LOGIN", "{u}", "{p}!"], 501),
    ("no base64 at all", ["AUTH LOGIN {u}", "{clear}."], 501),
    ("too long", ["AUTH PLAIN {plain}" + TOO_LONG], 500),
    ("too long when asked", ["AUTH PLAIN", "{plain}" + TOO_LONG], 500),
    ("too long for LOGIN", ["AUTH LOGIN", "{u}", "{p}" + TOO_LONG], 500),
    ("too long before the password", ["AUTH PLAIN", TOO_LONG + "{plain}"], 500),
    ("cancelled", ["AUTH LOGIN", "{p}", "*"], 501),
    ("another mechanism", ["AUTH XOAUTH2 {plain}"], 504),
    ("a mechanism that is none", ["AUTH {plain} {plain}"], 501),
    ("a word too many", ["AUTH PLAIN {plain} {plain}"], 501),
    ("no message of PLAIN", ["AUTH PLAIN {p}"], 501),
    ("the password as a command", ["{clear}"], 500),
    ("a command too long", ["{clear}" + WITHIN], 500),
    ("sent ahead of a refusal", ["AUTH XOAUTH2\r\n{p}"], 500),
    ("as in POP3", ["USER anna", "PASS {clear}"], 500),
    ("behind a space", [" AUTH PLAIN {plain}"], 500),
    ("right, after too many that failed", ["AUTH XOAUTH2"] * 5 + ["AUTH PLAIN {plain}"], 421),
    ("logged in before", ["AUTH PLAIN {plain}", "AUTH PLAIN {plain}"], 503),
    ("logged in before, by steps", ["AUTH LOGIN {u}", "{p}", "AUTH LOGIN {u}\r\n{p}"], 500),
    ("logged in before, as a command", ["AUTH PLAIN {plain}", "{clear}"], 500),
    ("logged in before, mail begun", ["AUTH PLAIN {plain}", "MAIL FROM:<{user}>", "AUTH PLAIN {plain}"], 503),
]


def logs_in(case):
    return case[-1] == 235 or "logged in" in case[-3]


def pieces_of(mark):
    """What would give a password away: parts of `mark`, also in wide characters, and in base64 however that is aligned."""
    pieces = set()
    for part in mark[:10], mark[10:]:
        pieces |= {part.encode(), part.encode("utf-32-le")}
        for before in range(3):
            coded = b64(b"\0" * before + part.encode()).rstrip("=")
            pieces.add(coded[before + (before > 0):-1].encode())
    return pieces


def traces(pid, mark):
    """Places in a process's memory. Not of a core: gcore leaves out what lies behind a guard, and with it the fibers' stacks."""
    for memory in memory_of(pid):
        for piece in pieces_of(mark):
            at = memory.find(piece)
            while at >= 0:
                yield memory[max(0, at - 24):at + 56]
                at = memory.find(piece, at + 1)


def lies_on_a_stack(pid, mark):
    """Between two guards, so far apart as those of a fiber's stack (STACK_BYTES)."""
    return any(len(memory) == 64 << 10 and mark in memory for memory in memory_of(pid))


def test_no_password_is_kept(tmp_path):
    """After logins that went well, wrong or astray, by sessions that are open and by such as are over: not in memory, nor logged."""
    cases = [(port, stays, *case) for port in BOTH for stays in (True, False) for case in LOGINS]
    mark = "".join(secrets.choice("ABCDEFGHKMNPQRSTUVWXYZ23456789") for _ in range(20))
    passwords = [f"{number:03}{mark}{number:03}" for number in range(len(cases))]
    opened = []

    def say(server, number):
        port, stays, why, lines, code = cases[number]
        user, password = f"user{number}@local.test" if logs_in(cases[number]) else USER, passwords[number]
        words = {"u": b64(user.encode()), "p": b64(password.encode()), "clear": password, "user": user,
                 "plain": b64(f"\0{user}\0{password}".encode())}
        client = server.connect(port)
        client.docmd("EHLO", name_of(number))
        for line in lines:
            client.send(line.format(**words) + "\r\n")
            for _ in line.split("\r\n"):
                reply = client.getreply()
        assert reply[0] == code, (port, why, reply)
        if stays:
            opened.append(client)
        else:
            client.close()

    def name_of(number):
        return f"{mark[::-1].lower()}-{number}.client.test"

    site = Site(tmp_path, config=SITE.replace("{{ address", "{{ connections 1000 per-client; address"), binary_path=os.environ["POSTRIDER_RELEASE"])
    for number, case in enumerate(cases):
        if logs_in(case):
            site.add_user(f"user{number}@local.test", password=passwords[number])
    with site as server:
        for number in reversed(range(len(cases))):
            say(server, number)
        pids = {role: pid for role, pid in server.role_pids().items() if role.split()[0] in {"submission", "gate"}}
        on_stacks = [number for number in range(len(cases)) if any(lies_on_a_stack(pid, name_of(number).encode()) for pid in pids.values())]
        assert on_stacks, "the search sees the stacks of fibers, where the name of a client lies that says EHLO"
        found = {role: list(traces(pid, mark)) for role, pid in pids.items()}
        print(f"{len(on_stacks)} stacks of sessions seen; traces of passwords: " +
              ", ".join(f"{role}: {len(places)}" for role, places in found.items()))
        assert not any(found.values()), found

        waits = server.connect()
        waits.send("AUTH PLAIN " + b64(f"\0{USER}\0{mark}".encode()))
        wait_until(lambda: any(True for pid in pids.values() for _ in traces(pid, mark)), what="memory in which the search finds one")
        for client in [waits, *opened]:
            client.close()
    site.logged("session", len(cases))
    assert not any(piece in site.log_path.read_bytes() for piece in pieces_of(mark))


def test_the_table():
    names = sorted({(client, mechanism) for client, _, mechanism in TABLE})
    print(f"\n{'client':<18}{'mechanism':<26}{'587':<5}465")
    for client, mechanism in names:
        print(f"{client:<18}{mechanism:<26}{TABLE.get((client, '587', mechanism), '-'):<5}{TABLE.get((client, '465', mechanism), '-')}")
