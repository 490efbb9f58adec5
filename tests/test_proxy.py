"""A proxy in front: every shape of PROXY header by hand, the shared table, and HAProxy itself."""
import contextlib
import http.server
import json
import pathlib
import shutil
import smtplib
import socket
import ssl
import struct
import subprocess
import threading
import time

import pytest

from harness import Postrider, free_port, shared, wait_until
from peers import can_connect
from test_tls import context, make_certificate

SITE = """
hostname mx.local.test
state {state}
listen mx          {{ address 127.0.0.1:{port}; proxy from 127.0.0.1 127.0.1.0/24; relay from 127.0.0.0/8 192.0.2.0/24 2001:db8::/64
                      vrfy local; connections 3 per-client }}
listen mx unproxied {{ address 127.0.0.1:{plain_port} }}
listen mx told {{ address 127.0.0.1:{told_port}; xclient from 127.0.0.1 127.0.1.0/24; relay from 192.0.2.0/24 127.0.0.1
                  connections 3 per-client }}
domain local.test {{ mailbox ok; alias postmaster -> ok; deliver maildir {mail}/{{domain}}/{{local}} }}
route default {{ via 127.0.0.1:{next_port}; tls off }}
"""
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
LINE = b"PROXY TCP4 192.0.2.7 198.51.100.2 56324 25\r\n"
SILENT = "127.0.1.9"  # where one comes from that says nothing
LOCAL = SIGNATURE + b"\x20\0\0\0"


def binary_header(address=(192, 0, 2, 7), fields=b""):
    return SIGNATURE + b"\x21\x11" + struct.pack(">H", 12 + len(fields)) + bytes(address) + bytes((198, 51, 100, 2)) + struct.pack(
        ">HH", 56324, 25) + fields


class Talk:
    """A connection that sends what it is told to, and takes lines."""

    def __init__(self, port, data=b"", source="127.0.0.1"):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60, source_address=(source, 0))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.socket.makefile("rb")
        self.socket.sendall(data)

    def say(self, data, code):
        self.socket.sendall(data)
        return self.wants(code)

    def wants(self, code):
        lines = []
        while not lines or lines[-1][3:4] == b"-":
            lines.append(self.file.readline())
        assert lines[-1].startswith(b"%d" % code), (code, lines)
        return b"".join(lines)

    def rest(self):
        """All that comes until the other side ends it."""
        try:
            return self.file.read()
        except ConnectionResetError:
            return b""

    def end(self):
        """No more comes from us. What comes from the other side until it ends."""
        with contextlib.suppress(OSError):  # it has ended already
            self.socket.shutdown(socket.SHUT_WR)
        return self.rest()

    def __enter__(self):
        return self

    def close(self):
        self.file.close()
        self.socket.close()

    def __exit__(self, *_):
        self.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with Postrider(tmp_path_factory.mktemp("proxy"), SITE, plain_port=free_port(), told_port=free_port()) as server:
        server.silent = Talk(server.port, source=SILENT), time.monotonic()  # says nothing: looked at by the last test
        yield server


def events(server, event):
    """But for the silent one's, whose time may be over during any test."""
    return [line for line in server.log_events(event) if line["client"] != SILENT]


def new_events(server, event, before):
    return wait_until(lambda: events(server, event)[before:])


@pytest.mark.skipif(not shared(), reason="no shared conformance data")
def test_the_shared_table(server):
    cases = json.loads((shared() / "conformance/proxy-protocol/vectors.json").read_text())["cases"]
    counts = {}
    for case in cases:
        header = bytes.fromhex(case["hex"])
        if case["expect"] == "abort":
            before = len(events(server, "proxy-refused"))
            with Talk(server.port, header) as talk:
                assert talk.end() == b"", case["id"]
            [refused] = new_events(server, "proxy-refused", before)
            assert refused["client"] == "127.0.0.1" and refused["listener"] == "mx"
        else:
            source = case["source"].rsplit(":", 1)[0].strip("[]") if case["expect"] == "accept" else "127.0.0.1"
            for pieces in ([header], [header[i : i + 1] for i in range(len(header))]):
                before = len(events(server, "session"))
                with Talk(server.port) as talk:
                    for piece in pieces:
                        talk.socket.sendall(piece)
                    talk.wants(220)
                    talk.say(b"QUIT\r\n", 221)
                [session] = new_events(server, "session", before)
                assert (session["client"], session["proxy"]) == (source, "127.0.0.1"), case["id"]
        counts[case["expect"]] = counts.get(case["expect"], 0) + 1
        before = len(events(server, "proxy-refused"))
        with Talk(server.port, header, "127.0.0.2") as talk:
            assert talk.rest() == b""
        assert "none of them" in new_events(server, "proxy-refused", before)[0]["reason"]
    print(f"{len(cases)} headers of the shared table: {counts}, each also from a stranger, the good ones also octet by octet")
    assert len(cases) == 14


@pytest.mark.parametrize("header", [LINE, binary_header()], ids=["v1", "v2"])
def test_what_follows_in_one_piece(server, header):
    """The bytes behind the header belong to the session, and everything goes by the client that it tells of."""
    before = len(server.mails())
    with Talk(server.port, header + b"EHLO client.test\r\n") as talk:
        talk.wants(220)
        talk.wants(250)
        assert b"local.test" in talk.say(b"VRFY ok@local.test\r\n", 250)  # `relay from` has it, so it is "local"
        talk.say(b"MAIL FROM:<a@client.test>\r\n", 250)
        talk.say(b"RCPT TO:<ok@local.test>\r\n", 250)
        talk.say(b"RCPT TO:<x@elsewhere.test>\r\n", 250)
        talk.say(b"DATA\r\n", 354)
        talk.say(b"Subject: x\r\n\r\nx\r\n.\r\n", 250)
        talk.say(b"QUIT\r\n", 221)
    mail = server.wait_for_mail(count=before + 1)[-1]
    assert b"Received: from client.test (unknown [192.0.2.7])" in mail.replace(b"client.test ([", b"client.test (unknown [")
    assert b"127.0.0.1" not in mail.split(b"Subject")[0]


@pytest.mark.parametrize("header,relays", [
    (LINE, True), (LINE.replace(b"192.0.2.7", b"203.0.113.9"), False), (b"PROXY TCP6 2001:db8::7 2001:db8:1::1 1 25\r\n", True),
    (b"PROXY TCP6 2001:db8:0:1::7 2001:db8:1::1 1 25\r\n", False), (LOCAL, False), (b"PROXY UNKNOWN\r\n", False),
    (binary_header((127, 0, 0, 1)), True), (binary_header((203, 0, 113, 9)), False),
])
def test_relay_from_goes_by_what_was_told(server, header, relays):
    """Never by the proxy's own address: behind it is the world."""
    with Talk(server.port, header) as talk:
        talk.wants(220)
        talk.say(b"EHLO client.test\r\n", 250)
        talk.say(b"VRFY ok@local.test\r\n", 250 if relays else 252)
        talk.say(b"MAIL FROM:<a@client.test>\r\n", 250)
        talk.say(b"RCPT TO:<x@elsewhere.test>\r\n", 250 if relays else 550)


def test_limits_count_clients_and_not_proxies(server):
    header = LINE.replace(b"192.0.2.7", b"203.0.113.50")
    talks = [Talk(server.port, header) for _ in range(3)]
    for talk in talks:
        talk.wants(220)
    with Talk(server.port, header) as talk:
        talk.wants(421)
    with Talk(server.port, LINE) as talk:
        talk.wants(220)
    for talk in talks:
        talk.close()


def test_the_log_says_what_the_proxy_saw_of_tls(server):
    fields = b"\x02\0\x0dmx.local.test\x20\0\x0f\1\0\0\0\0\x21\0\7TLSv1.3\x05\0\3abc"
    with Talk(server.port, binary_header((192, 0, 2, 99), fields)) as talk:
        talk.wants(220)
        talk.say(b"QUIT\r\n", 221)
    [session] = wait_until(lambda: [s for s in server.log_events("session") if s["client"] == "192.0.2.99"])
    assert (session["proxy-tls"], session["proxy-tls-name"]) == ("TLSv1.3", "mx.local.test")
    assert "tls" not in session


def test_a_header_where_none_is_expected(server):
    """It is never guessed: another listener takes it for what a client says before its turn."""
    for header in (LINE, binary_header()):
        with Talk(server.values["plain_port"], header + b"QUIT\r\n") as talk:
            said = talk.rest()
            assert b"554" in said or said.startswith(b"220 mx.local.test") and b"\r\n50" in said, said


def test_the_end_of_a_header_that_does_not_come(server):
    for part in (LINE[:20], binary_header()[:20], SIGNATURE[:5]):
        before = len(events(server, "proxy-refused"))
        with Talk(server.port, part) as talk:
            assert talk.end() == b""
        assert "closed" in new_events(server, "proxy-refused", before)[0]["reason"]


class HAProxy:
    """In TCP mode in front of a listener: `plain_port` in clear, `tls_port` ends TLS; looks whether the server is there."""

    def __init__(self, folder, server_port, words):
        make_certificate(folder, "front")
        (folder / "front.both").write_text((folder / "front.pem").read_text() + (folder / "front.key").read_text())
        self.plain_port, self.tls_port = free_port(), free_port()
        self.output = folder / "haproxy.log"
        (folder / "haproxy.cfg").write_text(f"""
global
  stats socket {folder}/haproxy.sock
defaults
  mode tcp
  timeout connect 20s
  timeout client 60s
  timeout server 60s
frontend plain
  bind 127.0.0.1:{self.plain_port}
  default_backend mx
frontend tls
  bind 127.0.0.1:{self.tls_port} ssl crt {folder}/front.both
  default_backend mx
backend mx
  source 127.0.0.1
  option smtpchk EHLO check.test
  server mx 127.0.0.1:{server_port} check check-send-proxy inter 1s rise 1 {words}
""")
        self.folder = folder

    def __enter__(self):
        self.process = subprocess.Popen(["haproxy", "-f", str(self.folder / "haproxy.cfg"), "-db"], stdin=subprocess.DEVNULL,
                                        stdout=open(self.output, "wb"), stderr=subprocess.STDOUT)
        wait_until(lambda: self.process.poll() is not None or can_connect(self.plain_port) and (self.folder / "haproxy.sock").exists(),
                   30, "HAProxy listening")
        assert self.process.poll() is None, self.output.read_text()
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(30)

    def check(self):
        """What its own look at the server came to."""
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(str(self.folder / "haproxy.sock"))
            s.sendall(b"show stat\n")
            rows = [line.split(",") for line in s.makefile().read().splitlines() if line]
        names = rows[0]
        return next(dict(zip(names, row)) for row in rows if row[0] == "mx" and row[1] == "mx")


@pytest.mark.parametrize("words", ["send-proxy", "send-proxy-v2 proxy-v2-options ssl,cert-cn,authority,crc32c,unique-id"],
                         ids=["send-proxy", "send-proxy-v2"])
def test_haproxy_in_front(server, tmp_path, words):
    with HAProxy(tmp_path, server.port, words) as proxy:
        wait_until(lambda: proxy.check()["check_status"] == "L7OK", 30, "HAProxy's own check")
        before = len(server.mails())
        sessions = len(server.log_events("session"))
        for source, port in (("127.0.0.33", proxy.plain_port), ("127.0.0.34", proxy.tls_port)):
            if port == proxy.plain_port:
                client = smtplib.SMTP("127.0.0.1", port, "client.test", timeout=60, source_address=(source, 0))
            else:
                client = smtplib.SMTP_SSL("127.0.0.1", port, "client.test", timeout=60, source_address=(source, 0), context=context())
                client._host = "mx.local.test"
            with client:
                client.sendmail("a@client.test", ["ok@local.test"], b"Subject: x\r\n\r\n" + source.encode() + b"\r\n")
        mails = server.wait_for_mail(count=before + 2)[before:]
        for source in (b"127.0.0.33", b"127.0.0.34"):
            assert any(b"[" + source + b"])" in mail and mail.endswith(b"\n" + source + b"\n") for mail in mails), mails
        told = {s["client"]: s for s in wait_until(lambda: [s for s in server.log_events("session")[sessions:] if s["messages"]][1:]
                                                   and server.log_events("session")[sessions:])}
        assert told["127.0.0.33"]["proxy"] == told["127.0.0.34"]["proxy"] == "127.0.0.1"
        if "v2" in words:
            assert told["127.0.0.34"]["proxy-tls"] == "TLSv1.3"
            assert "proxy-tls" not in told["127.0.0.33"]
        print(f"{words.split()[0]}: HAProxy's check {proxy.check()['check_status']}, {told['127.0.0.34']}")


TELL = b"XCLIENT NAME=host.told.test ADDR=%s PORT=4711 PROTO=ESMTP HELO=helo.told.test\r\n"


@pytest.mark.parametrize("address,relays", [(b"192.0.2.200", True), (b"IPV6:2001:db8::5", False), (b"[UNAVAILABLE]", False)])
def test_xclient_by_hand(server, address, relays):
    before = len(server.mails())
    with Talk(server.values["told_port"]) as talk:
        talk.wants(220)
        assert b"XCLIENT NAME ADDR PORT" in talk.say(b"EHLO proxy.test\r\n", 250)
        talk.say(TELL % address, 220)
        talk.say(b"MAIL FROM:<a@client.test>\r\n", 503)
        talk.say(b"EHLO proxy.test\r\n", 250)
        talk.say(b"MAIL FROM:<a@client.test>\r\n", 250)
        talk.say(TELL % b"192.0.2.201", 503)
        talk.say(b"RCPT TO:<x@elsewhere.test>\r\n", 250 if relays else 550)
        talk.say(b"RSET\r\n", 250)
        talk.say(b"MAIL FROM:<a@client.test>\r\n", 250)
        talk.say(b"RCPT TO:<ok@local.test>\r\n", 250)
        talk.say(b"DATA\r\n", 354)
        talk.say(b"Subject: x\r\n\r\nx\r\n.\r\n", 250)
        talk.say(b"QUIT\r\n", 221)
    mail = server.wait_for_mail(count=before + 1)[-1]
    shown = address.replace(b"IPV6:", b"IPv6:") if address != b"[UNAVAILABLE]" else b"127.0.0.1"
    assert b"from helo.told.test (host.told.test [" + shown + b"])" in mail, mail
    client = address.replace(b"IPV6:", b"").decode() if address != b"[UNAVAILABLE]" else "127.0.0.1"
    [session] = wait_until(lambda: [s for s in server.log_events("session") if s["listener"] == "told" and s["client"] == client])
    assert (session["proxy"], session["name"], session["helo"]) == ("127.0.0.1", "host.told.test", "helo.told.test")


def test_xclient_of_nobody_is_no_proxy(server):
    """Who was said to have no address gets none by further words of it: least of all the proxy's, which may relay."""
    with Talk(server.values["told_port"]) as talk:
        talk.wants(220)
        talk.say(b"EHLO proxy.test\r\n", 250)
        for words, relays in ((b"PROTO=ESMTP", True), (b"ADDR=[UNAVAILABLE] NAME=[UNAVAILABLE]", False), (b"PROTO=ESMTP", False),
                              (b"ADDR=192.0.2.200", True), (b"ADDR=[TEMPUNAVAIL]", False), (b"PORT=4711", False)):
            talk.say(b"XCLIENT " + words + b"\r\n", 220)
            talk.say(b"EHLO proxy.test\r\n", 250)
            talk.say(b"MAIL FROM:<a@client.test>\r\n", 250)
            talk.say(b"RCPT TO:<x@elsewhere.test>\r\n", 250 if relays else 550)
            talk.say(b"RSET\r\n", 250)


def test_xclient_from_others(server):
    with Talk(server.values["told_port"], source="127.0.0.2") as talk:
        talk.wants(220)
        assert b"XCLIENT" not in talk.say(b"EHLO client.test\r\n", 250)
        talk.say(TELL % b"192.0.2.200", 550)


def test_xclient_counts_clients(server):
    source = "127.0.1.10"  # no session of an earlier test counts as its
    talks = [Talk(server.values["told_port"], source=source) for _ in range(3)]  # as many as one client may have
    for talk in talks:
        talk.wants(220)
        talk.say(TELL % b"192.0.2.210", 220)
    with Talk(server.values["told_port"], source=source) as talk:
        talk.wants(220)
        talk.say(TELL % b"192.0.2.210", 421)
    for talk in talks:
        talk.close()


def test_xclient_by_swaks(server):
    before = len(server.mails())
    said = subprocess.run(
        ["swaks", "--server", "127.0.0.1", "--port", str(server.values["told_port"]), "--from", "a@client.test", "--to", "ok@local.test",
         "--xclient-addr", "192.0.2.77", "--xclient-name", "swaks.told.test", "--xclient-helo", "helo.swaks.test"],
        capture_output=True, text=True, timeout=60)
    assert said.returncode == 0, said.stdout + said.stderr
    mail = server.wait_for_mail(count=before + 1)[-1]
    assert b"(swaks.told.test [192.0.2.77])" in mail, mail
    print(next(line for line in said.stdout.splitlines() if "XCLIENT " in line and "->" in line))


class SendsToUs(http.server.BaseHTTPRequestHandler):
    """What nginx asks, for each session, where it goes: to the server's `port`."""

    def do_GET(self):
        self.send_response(200)
        for name, value in (("Auth-Status", "OK"), ("Auth-Server", "127.0.0.1"), ("Auth-Port", self.server.goes_to)):
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def nginx_mail_proxy(folder, server_port):
    """Its port."""
    module = pathlib.Path("/usr/lib/nginx/modules/ngx_mail_module.so")
    if not shutil.which("nginx", path="/usr/sbin:/usr/bin") or not module.exists():
        pytest.skip("nginx and libnginx-mod-mail are not installed")
    port = free_port()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), SendsToUs) as tells:
        tells.goes_to = server_port
        (folder / "nginx.conf").write_text(f"""
load_module {module};
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr info;
events {{}}
mail {{
    server_name nginx.test;
    auth_http 127.0.0.1:{tells.server_port}/;
    server {{ listen 127.0.0.1:{port}; protocol smtp; smtp_auth none; xclient on; }}
}}
""")
        thread = threading.Thread(target=tells.serve_forever)
        thread.start()
        output = folder / "nginx.log"
        process = subprocess.Popen(["/usr/sbin/nginx", "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "stderr"],
                                   stdin=subprocess.DEVNULL, stdout=open(output, "wb"), stderr=subprocess.STDOUT)
        try:
            wait_until(lambda: process.poll() is not None or can_connect(port), 30, "nginx listening")
            assert process.poll() is None, output.read_text()
            yield port
        finally:
            process.terminate()
            process.wait(30)
            tells.shutdown()
            thread.join()


@pytest.mark.parametrize("greeting", ["ehlo", "helo"])
def test_xclient_by_nginx(server, tmp_path, greeting):
    before = len(server.mails())
    source = {"ehlo": "127.0.0.35", "helo": "127.0.0.36"}[greeting]
    with nginx_mail_proxy(tmp_path, server.values["told_port"]) as port, \
            smtplib.SMTP("127.0.0.1", port, "client.test", timeout=60, source_address=(source, 0)) as client:
        assert getattr(client, greeting)()[0] == 250
        assert client.mail("a@client.test")[0] == 250
        assert client.rcpt("x@elsewhere.test")[0] == 550
        assert client.rcpt("ok@local.test")[0] == 250
        assert client.data(b"Subject: x\r\n\r\nby nginx\r\n")[0] == 250
    mail = server.wait_for_mail(count=before + 1)[-1]
    assert b"from client.test (" in mail and f"[{source}])".encode() in mail and mail.endswith(b"by nginx\n"), mail
    [session] = wait_until(lambda: [s for s in server.log_events("session") if s["client"] == source])
    assert (session["listener"], session["proxy"], session["helo"]) == ("told", "127.0.0.1", "client.test")
    print(f"{greeting}: {session}")


def test_who_says_nothing(server):
    """Waits its time, and is not answered."""
    talk, since = server.silent
    assert talk.rest() == b""
    assert time.monotonic() - since >= 9
    wait_until(lambda: any("time" in e["reason"] for e in server.log_events("proxy-refused") if e["client"] == SILENT),
               what="its line in the log")


USERS_SITE = """
hostname mx.local.test
state {state}
listen submission {{ address 127.0.0.1:{port}; xclient from 127.0.0.1 }}
users file {users}
domain local.test {{ mailbox anna bob; alias postmaster -> anna; deliver maildir {mail}/{{domain}}/{{local}} }}
route default {{ via 127.0.0.1:{next_port}; tls off }}
"""


def test_xclient_login(tmp_path):
    """Who has logged in at the proxy is somebody else than who logged in here before: what was granted to the one stays his."""
    server = Postrider(tmp_path, USERS_SITE, users=tmp_path / "users")
    subprocess.run([server.binary, "user", "add", "--config", server.config_path, "anna@local.test", "--send-as", "@granted.test"],
                   input="secret\n", text=True, check=True, capture_output=True)
    with server, smtplib.SMTP("127.0.0.1", server.port, "proxy.test", timeout=60) as client:
        client.starttls(context=context())
        client.login("anna@local.test", "secret")
        assert client.docmd("MAIL FROM:<x@granted.test>")[0] == 250
        assert client.docmd("RSET")[0] == 250
        assert client.docmd("XCLIENT ADDR=192.0.2.9 LOGIN=bob@local.test")[0] == 220
        client.ehlo("proxy.test")
        assert client.docmd("MAIL FROM:<x@granted.test>")[0] == 550
        assert client.docmd("MAIL FROM:<bob@local.test>")[0] == 250
        assert client.docmd("RSET")[0] == 250
        assert client.docmd("XCLIENT ADDR=192.0.2.10")[0] == 220
        client.ehlo("proxy.test")
        assert client.docmd("MAIL FROM:<bob@local.test>")[0] == 530
