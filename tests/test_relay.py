"""Never an open relay; and where we are the relay for others, unknown users are refused at RCPT and mail waits for its
host.

Strangers come from 127.0.0.1; 127.0.0.7 is a network of ours (`relay from`). Whatever is relayed lands in a sink.
"""
import os
import pathlib
import pwd
import shutil
import smtplib
import socket
import subprocess
import tempfile
import time

import pytest

from harness import Postrider, free_port, wait_until, without_trace
from peers import ScriptedServer, Sink, can_connect

SITE = """
hostname mx.local.test
state {state}
listen mx {{ address 127.0.0.1:{port}; relay from 127.0.0.7 }}
retry 1s for 1d
domain local.test bücher.test {{ mailbox ok; alias postmaster -> ok; alias far -> someone@elsewhere.test
                     deliver maildir {mail}/{{domain}}/{{local}} }}
domain catch.test {{ mailbox all; subaddress +; catch-all -> all; deliver maildir {mail}/{{domain}}/{{local}} }}
domain gate.test {{ recipients verify; relay via smtp://127.0.0.1:{gate} }}
domain any.test {{ recipients any; relay via smtp://127.0.0.1:{gate} }}
domain listed.test {{ recipients file {listed}; relay via smtp://127.0.0.1:{gate} }}
route default {{ via 127.0.0.1:{world}; tls off }}
"""


class Site:
    """The daemon, a host inside (the gateways' next hop), and the whole world."""

    def __init__(self, folder):
        (folder / "listed").write_text("anna\n")
        self.folder = folder
        self.gate = Sink(folder / "gate", "--obey")
        self.world = Sink(folder / "world")
        self.server = Postrider(folder / "server", config=SITE, gate=self.gate.port, world=self.world.port,
                                listed=folder / "listed")

    def __enter__(self):
        self.gate.__enter__()
        self.world.__enter__()
        self.server.__enter__()
        return self

    def __exit__(self, *error):
        try:
            self.server.__exit__(*error)
        finally:
            self.gate.__exit__(*error)
            self.world.__exit__(*error)

    def offer(self, recipient, source="127.0.0.1", sender="FROM:<a@client.test>", smtputf8=False):
        """A message to RCPT TO:<recipient>, just so; the last code and words that decided."""
        with socket.create_connection(("127.0.0.1", self.server.port), 60, (source, 0)) as s:
            lines = s.makefile("rb")

            def reply():
                while (line := lines.readline())[3:4] == b"-":
                    pass
                return int(line[:3]), line[4:].decode().rstrip()

            assert reply()[0] == 220
            s.sendall(b"EHLO client.test\r\n")
            assert reply()[0] == 250
            for line in (f"MAIL {sender}{' SMTPUTF8' if smtputf8 else ''}", f"RCPT TO:{recipient}", "DATA"):
                s.sendall(line.encode() + b"\r\n")
                code, words = reply()
                if code >= 400:
                    return code, words
            s.sendall(b"Subject: offered\r\n\r\noffered\r\n.\r\n")
            return reply()


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with Site(tmp_path_factory.mktemp("site")) as running:
        yield running


# What leads nowhere but home, by any reading: the mailbox it is for.
HOME = [
    ("a plain address", "<ok@local.test>", "ok@local.test"),
    ("any case", "<OK@LOCAL.TEST>", "ok@local.test"),
    ("quotes without need", '<"ok"@local.test>', "ok@local.test"),
    ("quoted pairs without need", '<"\\o\\k"@local.test>', "ok@local.test"),
    ("a source route to us", "<@relay.test,@b.test:ok@local.test>", "ok@local.test"),
    ("a trailing dot", "<ok@local.test.>", "ok@local.test"),
    ("a literal of ours", "<ok@[127.0.0.1]>", "ok@local.test"),
    ("no domain", "<postmaster>", "ok@local.test"),
    ("no domain, any case", "<PostMaster>", "ok@local.test"),
    ("U-labels", "<ok@bücher.test>", "ok@xn--bcher-kva.test"),
    ("A-labels", "<ok@xn--bcher-kva.test>", "ok@xn--bcher-kva.test"),
    ("percent in a catch-all", "<victim%elsewhere.test@catch.test>", "all@catch.test"),
    ("bang in a catch-all", "<elsewhere.test!victim@catch.test>", "all@catch.test"),
    ("quoted at-sign in a catch-all", '<"victim@elsewhere.test"@catch.test>', "all@catch.test"),
    ("a subaddress like an address", '<"all+victim@elsewhere.test"@catch.test>', "all@catch.test"),
    ("a source route in quotes", '<"@elsewhere.test:victim"@catch.test>', "all@catch.test"),
    ("a pipe", '<"|/bin/sh"@catch.test>', "all@catch.test"),
    ("an include", '<":include:/etc/passwd"@catch.test>', "all@catch.test"),
    ("a file", '<"/etc/passwd"@catch.test>', "all@catch.test"),
    ("an option", "<-oQ/tmp@catch.test>", "all@catch.test"),
    ("a placeholder", "<{{domain}}@catch.test>".replace("{{", "{").replace("}}", "}"), "all@catch.test"),
]
TRAVERSALS = [
    '"../../x"', '"../x"', '".."', '"."', '"/x"', '"x/../../../y"', '"all/../../x"', '"..\\/..\\/x"',
    '"new/../../../x"', "../../x", "x/y", "all+../../x", '"all+../../x"', '"all/new"', "%2e%2e%2fx",
    '"..\\\\x"', '"~root"', '"x/."',
]

# What would leave us, or might at the host behind us.
REFUSED = [
    ("elsewhere", "<victim@elsewhere.test>"),
    ("percent", "<victim%elsewhere.test@local.test>"),
    ("percent twice", "<victim%elsewhere.test%local.test@local.test>"),
    ("percent elsewhere", "<ok%local.test@elsewhere.test>"),
    ("bang", "<elsewhere.test!victim@local.test>"),
    ("bang without a domain", "<elsewhere.test!victim>"),
    ("bang path", "<local.test!elsewhere.test!victim>"),
    ("a source route through us", "<@local.test:victim@elsewhere.test>"),
    ("a source route through us twice", "<@local.test,@mx.local.test:victim@elsewhere.test>"),
    ("a source route and percent", "<@local.test:victim%elsewhere.test@local.test>"),
    ("quoted at-sign", '<"victim@elsewhere.test"@local.test>'),
    ("quoted at-sign, no domain", '<"victim@elsewhere.test">'),
    ("nested quotes", '<"\\"victim@elsewhere.test\\""@local.test>'),
    ("nested quotes, no domain", '<"\\"victim\\"@elsewhere.test">'),
    ("quoted percent", '<"victim%elsewhere.test"@local.test>'),
    ("quoted pair at-sign", '<"victim\\@elsewhere.test"@local.test>'),
    ("a route in quotes", '<"@local.test:victim@elsewhere.test"@local.test>'),
    ("two at-signs", "<victim@elsewhere.test@local.test>"),
    ("two at-signs, home first", "<ok@local.test@elsewhere.test>"),
    ("missing domain", "<victim>"),
    ("empty domain", "<victim@>"),
    ("a dot for a domain", "<victim@.>"),
    ("empty local part", "<@elsewhere.test>"),
    ("a literal elsewhere", "<victim@[192.0.2.1]>"),
    ("a literal of ours with percent", "<victim%elsewhere.test@[127.0.0.1]>"),
    ("a literal of ours, quoted at-sign", '<"victim@elsewhere.test"@[127.0.0.1]>'),
    ("an IPv6 literal", "<victim@[IPv6:2001:db8::1]>"),
    ("an IPv4 address in IPv6", "<victim@[IPv6:::ffff:192.0.2.1]>"),
    ("an address without brackets", "<victim@192.0.2.1>"),
    ("ours as an address without brackets", "<victim@127.0.0.1>"),
    ("trailing dot", "<victim@elsewhere.test.>"),
    ("two trailing dots", "<ok@local.test..>"),
    ("a subdomain of ours", "<victim@sub.local.test>"),
    ("ours as a subdomain", "<victim@local.test.elsewhere.test>"),
    ("ours as an ending", "<victim@notlocal.test>"),
    ("our name in front", "<victim@local.test-elsewhere.test>"),
    ("look-alike: Cyrillic о", "<ok@lоcal.test>"),
    ("look-alike: full width", "<ok@ｌｏｃａｌ．elsewhere.test>"),
    ("look-alike: ideographic full stop", "<victim@elsewhere。test>"),
    ("look-alike: small commercial at", "<victim﹫elsewhere.test@local.test>"),
    ("look-alike: full width percent", "<victim％elsewhere.test@local.test>"),
    ("a comment", "<victim@elsewhere.test(@local.test)>"),
    ("a comment before", "<victim(@local.test)@elsewhere.test>"),
    ("two paths", "<ok@local.test>,<victim@elsewhere.test>"),
    ("two paths, a space", "<ok@local.test> <victim@elsewhere.test>"),
    ("a path in a path", "<<victim@elsewhere.test>@local.test>"),
    ("text behind the path", "<victim@elsewhere.test>@local.test"),
    ("no brackets", "victim@elsewhere.test"),
    ("a bracket short", "<victim@elsewhere.test"),
    ("a name before", "ok@local.test <victim@elsewhere.test>"),
    ("spaces around", "< victim@elsewhere.test >"),
    ("a tab in the domain", "<victim@elsewhere.test\t@local.test>"),
    ("a backslash", "<victim\\@elsewhere.test@local.test>"),
    ("a colon", "<victim:elsewhere.test@local.test>"),
    ("an equals sign", "<victim=elsewhere.test@local.test>"),
    ("two colons", "<elsewhere.test::victim@local.test>"),
    ("a carriage return", "<ok@local.test\r@elsewhere.test>"),
    ("an original recipient", "<victim@elsewhere.test> ORCPT=rfc822;ok@local.test"),
    ("gateway: percent, verified", "<victim%elsewhere.test@gate.test>"),
    ("gateway: percent, anybody", "<victim%elsewhere.test@any.test>"),
    ("gateway: bang, anybody", "<elsewhere.test!victim@any.test>"),
    ("gateway: quoted at-sign, anybody", '<"victim@elsewhere.test"@any.test>'),
    ("gateway: nested quotes, anybody", '<"\\"victim@elsewhere.test\\""@any.test>'),
    ("gateway: source route, anybody", "<@any.test:victim@elsewhere.test>"),
    ("gateway: quoted source route, anybody", '<"@elsewhere.test:victim"@any.test>'),
    ("gateway: not listed", "<victim@listed.test>"),
    ("gateway: listed, then percent", "<anna%elsewhere.test@listed.test>"),
    ("gateway: unknown there", "<550-victim@gate.test>"),
]


def test_tricks_are_not_relayed(site):
    wrong = []
    for why, recipient in REFUSED:
        code, words = site.offer(recipient, smtputf8=not recipient.isascii())
        if not 500 <= code < 600 and code != 421:
            wrong.append(f"{why}: {recipient} got {code} {words}")
    assert not wrong, "\n".join(wrong)
    assert site.server.figures()["messages"] == 0
    assert not site.world.envelopes() and not site.gate.envelopes()
    print(f"# address tricks: {len(REFUSED)} refused, none relayed")
    assert len(REFUSED) >= 40


@pytest.mark.parametrize("why,sender", [
    ("one of us", "FROM:<ok@local.test>"), ("nobody", "FROM:<>"), ("postmaster", "FROM:<postmaster@local.test>"),
    ("a route", "FROM:<@local.test:ok@local.test>"), ("a login", "FROM:<ok@local.test> AUTH=<>"),
], ids=lambda value: value if " " in value else None)
def test_no_sender_makes_a_relay_of_us(site, why, sender):
    code, words = site.offer("<victim@elsewhere.test>", sender=sender)
    assert 500 <= code < 600, (code, words)


def test_home_is_home(site):
    """Each is in its mailbox, none anywhere else."""
    before = sum(len(site.server.mails(*mailbox.split("@"))) for mailbox in {case[2] for case in HOME})
    wrong, want = [], {}
    for why, recipient, mailbox in HOME:
        code, words = site.offer(recipient, smtputf8=not recipient.isascii())
        if code != 250:
            wrong.append(f"{why}: {recipient} got {code} {words}")
        want[mailbox] = want.get(mailbox, 0) + 1
    assert not wrong, "\n".join(wrong)
    site.server.wait_until_empty()
    assert {mailbox: len(site.server.mails(*mailbox.split("@"))) for mailbox in want} == want, before
    assert not site.world.envelopes() and not site.gate.envelopes()


def test_nothing_leaves_the_maildir_tree(site):
    count = len(site.server.mails("all", "catch.test"))
    for local in TRAVERSALS:
        code, words = site.offer(f"<{local}@local.test>")
        assert 500 <= code < 600, (local, code, words)
        code, words = site.offer(f"<{local}@catch.test>")
        assert code in (250, 501, 553), (local, code, words)
        count += code == 250
    site.server.wait_until_empty()
    assert len(site.server.mails("all", "catch.test")) == count
    known = {"ok@local.test", "all@catch.test", "ok@xn--bcher-kva.test"}
    for path in site.folder.rglob("*"):
        inside = path.relative_to(site.folder).parts
        if inside[:2] == ("server", "mail"):
            domain, mailbox, folder = (inside[2:] + ("", "", ""))[:3]
            assert not mailbox or f"{mailbox}@{domain}" in known, path
            assert folder in ("", "new", "cur", "tmp") or not path.is_dir(), path
        else:
            assert inside[0] in ("listed", "gate", "world", "server") and "x" not in inside and "y" not in inside, path
    assert not (site.folder.parent / "x").exists() and not (site.folder.parent.parent / "x").exists()


def test_an_alias_of_ours_may_lead_elsewhere(site):
    """Ours to say, and only where it leads to; a client of ours may send anywhere."""
    assert site.offer("<far@local.test>")[0] == 250
    assert site.offer("<friend@elsewhere.test>", source="127.0.0.7")[0] == 250
    assert site.offer("<anna@listed.test>")[0] == 250
    assert site.offer("<anybody@gate.test>")[0] == 250
    site.server.wait_until_empty()
    assert sorted(one["rcpt"][0].split(" ")[0] for one in site.world.envelopes()) == [
        "TO:<friend@elsewhere.test>", "TO:<someone@elsewhere.test>"]
    assert sorted(one["rcpt"][0].split(" ")[0] for one in site.gate.envelopes()) == [
        "TO:<anna@listed.test>", "TO:<anybody@gate.test>"]


# ---- gateways and backups --------------------------------------------------------------------------------------------

def installed(program):
    return shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin")


class Dovecot:
    """Its LMTP server, with three users of one Unix user; on a port of its own."""

    CONFIG = """
base_dir = {folder}/run
log_path = {folder}/log
protocols = lmtp
ssl = no
mail_location = maildir:{folder}/mail/%n
first_valid_uid = 1
auth_username_format = %n
passdb {{
  driver = passwd-file
  args = {folder}/users
}}
userdb {{
  driver = passwd-file
  args = {folder}/users
}}
service lmtp {{
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {port}
  }}
  unix_listener lmtp {{
    mode = 0666
  }}
}}
"""

    def __init__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="dovecot-"))
        self.port = free_port()
        nobody = pwd.getpwnam("nobody")
        self.folder.chmod(0o755)
        (self.folder / "mail").mkdir()
        os.chown(self.folder / "mail", nobody.pw_uid, nobody.pw_gid)
        (self.folder / "users").write_text("".join(
            f"{user}:{{PLAIN}}x:{nobody.pw_uid}:{nobody.pw_gid}::{self.folder}/mail/{user}::\n"
            for user in ("anna", "bert", "carl")))
        (self.folder / "dovecot.conf").write_text(self.CONFIG.format(folder=self.folder, port=self.port))
        self.process = None

    def start(self):
        self.process = subprocess.Popen(
            [installed("dovecot"), "-F", "-c", str(self.folder / "dovecot.conf")], stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=open(self.folder / "stderr", "ab"))
        wait_until(lambda: self.process.poll() is not None or can_connect(self.port), 30, "Dovecot's LMTP server")
        assert self.process.poll() is None, (self.folder / "stderr").read_text()

    def stop(self):
        if self.process:
            self.process.terminate()
            self.process.wait(30)
            wait_until(lambda: not can_connect(self.port), 30, "the end of Dovecot's LMTP server")
        self.process = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()
        shutil.rmtree(self.folder)

    def mails(self, user):
        return [path.read_bytes() for path in sorted((self.folder / "mail" / user / "new").glob("*"))]


def rcpt_codes(server, recipients):
    with smtplib.SMTP("127.0.0.1", server.port, local_hostname="client.test", timeout=60) as client:
        client.ehlo()
        client.mail("a@client.test")
        return [client.rcpt(one)[0] for one in recipients]


@pytest.mark.skipif(not installed("dovecot") or os.geteuid() != 0, reason="needs Dovecot, and root for it")
@pytest.mark.parametrize("way", ["relay via", "deliver"])
def test_dovecot_knows_its_users(tmp_path, way):
    """The unknown one is refused at RCPT; while Dovecot is down nobody is told so for good; then it is up again."""
    site = ("hostname mx.local.test\nstate {state}\nretry 1s for 1d\nlisten mx {{ address 127.0.0.1:{port} }}\n"
            "domain inside.test {{ recipients verify; " + way + " lmtp://127.0.0.1:{lmtp} }}\n")
    with Dovecot() as dovecot, Postrider(tmp_path, config=site, lmtp=dovecot.port) as server:
        content = b"Subject: to Dovecot\r\n\r\n.dot\r\nGr\xc3\xbc\xc3\x9fe\r\n"
        users = [f"{user}@inside.test" for user in ("anna", "bert", "carl")]
        assert rcpt_codes(server, [*users, "nobody@inside.test", "anna@inside.test"]) == [250, 250, 250, 550, 250]
        refused = server.send(to=[*users, "nobody@inside.test"], content=content)
        assert list(refused) == ["nobody@inside.test"] and refused["nobody@inside.test"][0] == 550
        assert refused["nobody@inside.test"][1].startswith(b"5.1.1 ")
        server.wait_until_empty()
        for user in ("anna", "bert", "carl"):
            (mail,) = dovecot.mails(user)
            assert mail.replace(b"\r\n", b"\n").endswith(b"\n" + content.replace(b"\r\n", b"\n"))

        dovecot.stop()
        assert server.send(to="anna@inside.test", content=content) == {}  # known since, so it waits here
        (code,) = rcpt_codes(server, ["dora@inside.test"])
        assert code in (450, 451), code
        (waiting,) = server.queue()
        assert waiting["to"] == "anna@inside.test" and not server.queue_show(waiting["id"]).get("failed")
        dovecot.start()
        wait_until(lambda: len(dovecot.mails("anna")) == 2, 60, "the delivery when Dovecot is up again")
        server.wait_until_empty()
        assert rcpt_codes(server, ["dora@inside.test"]) in ([550], [450], [451])


@pytest.mark.parametrize("word", ["554 5.3.0 closing", "421 4.3.2 closing", "250 2.1.5 yes"])
def test_a_word_too_early_says_nothing_of_a_mailbox(tmp_path, word):
    """Behind the answer to MAIL, in one piece with it: nobody has named a mailbox then."""
    site = ("hostname mx.local.test\nstate {state}\nlisten mx {{ address 127.0.0.1:{port} }}\n"
            "domain inside.test {{ recipients verify; relay via smtp://127.0.0.1:{inside} }}\n")
    with ScriptedServer({"MAIL": f"250 2.1.0 ok\r\n{word}"}) as inside, Postrider(tmp_path, config=site, inside=inside.port) as server:
        began = time.monotonic()
        assert rcpt_codes(server, ["anna@inside.test"]) == [450]
        slow = time.monotonic() - began >= 1  # then nobody is asked for half a minute
        inside.answers.clear()
        wait_until(lambda: rcpt_codes(server, ["anna@inside.test"]) == [250], 60 if slow else 0, "a good word")


def test_who_cannot_be_told_of_a_mailbox_has_none_beyond_ascii(tmp_path):
    """A next hop without SMTPUTF8: the mail could not be delivered, today or ever, and the client hears it at RCPT."""
    site = ("hostname mx.local.test\nstate {state}\nlisten mx {{ address 127.0.0.1:{port} }}\n"
            "domain inside.test {{ recipients verify; relay via smtp://127.0.0.1:{inside} }}\n")

    def code(server):
        with smtplib.SMTP("127.0.0.1", server.port, local_hostname="client.test", timeout=60) as client:
            client.ehlo()
            client.mail("a@client.test", ["SMTPUTF8"])
            client.command_encoding = "utf-8"
            return client.rcpt("größe@inside.test")[0]
    with ScriptedServer() as inside, Postrider(tmp_path / "without", config=site, inside=inside.port) as server:
        assert code(server) == 550
        assert not [line for line in inside.commands if not line.isascii()], inside.commands
    with ScriptedServer(extensions=("SMTPUTF8",)) as inside, Postrider(tmp_path / "with", config=site, inside=inside.port) as server:
        assert code(server) == 250


ZONE = """$ORIGIN backup.test.
$TTL 60
@ SOA ns hostmaster 1 3600 600 86400 60
@ NS ns
ns A 127.0.0.1
@ MX 10 primary
@ MX 20 mx.local.test.
@ MX 30 worse
primary A 127.0.0.1
worse A 127.0.0.1
"""


class NameServer:
    """NSD with one zone, on a port of its own."""

    def __init__(self, folder, name, zone):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir()
        self.port = free_port()
        self.process = None
        (self.folder / "zone").write_text(zone)
        (self.folder / "nsd.conf").write_text(f"""
server:
    ip-address: 127.0.0.1@{self.port}
    username: ""
    chroot: ""
    zonesdir: "{self.folder}"
    database: ""
    pidfile: ""
    xfrdfile: ""
    xfrdir: "{self.folder}"
    zonelistfile: "{self.folder}/zonelist"
    logfile: "{self.folder}/log"
remote-control:
    control-enable: no
zone:
    name: "{name}"
    zonefile: "zone"
""")

    def __enter__(self):
        self.process = subprocess.Popen(
            [installed("nsd"), "-d", "-c", str(self.folder / "nsd.conf")], stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(lambda: self.process.poll() is not None or can_connect(self.port), 30, "NSD")
        assert self.process.poll() is None, (self.folder / "log").read_text()
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(30)


@pytest.mark.skipif(not installed("nsd"), reason="NSD is not installed")
def test_a_backup_waits_for_the_primary(tmp_path):
    """We are the second of three MX hosts: mail waits for the first while it is down, and never goes to the third."""
    primary = Sink(tmp_path / "primary")
    (tmp_path / "list").write_text("anna@backup.test\nbert\n")
    site = ("hostname mx.local.test\nstate {state}\nretry 1s for 1d\nlisten mx {{ address 127.0.0.1:{port} }}\n"
            "resolver {{ forward 127.0.0.1:{dns} }}\n"
            "domain backup.test {{ recipients file {list}; relay mx }}\n"
            "route default {{ direct; port {primary}; allow-private 127.0.0.0/8; tls off }}\n")
    with NameServer(tmp_path / "nsd", "backup.test", ZONE) as dns, Postrider(
            tmp_path / "server", config=site, dns=dns.port, primary=primary.port, list=tmp_path / "list") as server:
        assert rcpt_codes(server, ["anna@backup.test", "bert@backup.test", "nobody@backup.test"]) == [250, 250, 550]
        content = b"Subject: for the primary\r\n\r\n.hello\r\n"
        refused = server.send(to=["anna@backup.test", "nobody@backup.test"], content=content)
        assert list(refused) == ["nobody@backup.test"] and refused["nobody@backup.test"][0] == 550
        (waiting,) = server.queue()
        wait_until(lambda: "onnect" in str(server.queue_show(waiting["id"])), 30, "an attempt that could not connect")
        with primary:
            (got,) = wait_until(primary.envelopes, 60, "the delivery when the primary is up again")
            assert got["rcpt"] == ["TO:<anna@backup.test>"] or got["rcpt"][0].startswith("TO:<anna@backup.test> ")
            assert without_trace(got["content"].replace(b"\r\n", b"\n")) == content.replace(b"\r\n", b"\n")
            server.wait_until_empty()
            assert len(primary.envelopes()) == 1
