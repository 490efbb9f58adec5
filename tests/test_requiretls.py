"""REQUIRETLS and TLS-Required (RFC 8689): kept over each hop or bounced, never in clear; and mail that would rather arrive."""
import contextlib
import pathlib
import re
import smtplib
import ssl
import tempfile

import pytest

from harness import Postrider, parse, wait_until
from peers import PostfixWith, ScriptedServer, can_connect, name_server, own_network
from test_dane import association, attempt_to, openssl
from test_mta_sts import context_of
from test_routing import end_of, fates

SITE = """
hostname mx.local.test
state {state}
listen mx {{ address 127.0.0.1:{port}; relay from 127.0.0.1 }}
domain local.test {{ mailbox ok sender; alias postmaster -> sender; deliver maildir {mail}/{{domain}}/{{local}} }}
domain asked.test {{ recipients verify; relay via smtp://192.0.2.42 }}
tls {{ certificate {certificates}/good.pem; key {certificates}/good.key }}
mta-sts off
route wait.test {{ via smtp://192.0.2.250; tls off }}
route chain.test {{ via smtp://second.req.test; tls-ca {certificates}/ca.pem }}
route raised.req.test {{ direct; tls require; reply-wait 60s }}
route default {{ direct; tls-ca {certificates}/ca.pem; reply-wait 60s }}
retry 1h for 1d {{ delay-notice off }}
resolver {{ forward 127.0.0.1; trust-anchor {anchors} }}
"""
SECOND = """
hostname second.req.test
state {state}
listen mx {{ address 192.0.2.50:25; relay from 192.0.2.0/24 127.0.0.0/8 }}
tls {{ certificate {certificates}/good.pem; key {certificates}/good.key }}
mta-sts off
route chain.test {{ via smtp://keeps.req.test; tls-ca {certificates}/ca.pem }}
route default {{ direct; tls-ca {certificates}/ca.pem; reply-wait 60s }}
resolver {{ forward 127.0.0.1; trust-anchor {anchors} }}
"""
PLAIN = ("PIPELINING", "8BITMIME", "DSN", "ENHANCEDSTATUSCODES")
POSTFIX = "192.0.2.43"


def make_certificates(folder):
    folder.mkdir()
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    openssl(folder, "req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.pem", "-days", "30", "-subj", "/CN=Test CA")
    names = ",".join([*(f"DNS:{name}.req.test" for name in ("keeps", "lacks", "second", "postfix")), "IP:192.0.2.40", "IP:2001:db8::6"])
    openssl(folder, "req", *curve, "-keyout", "good.key", "-out", "good.csr", "-subj", "/CN=good")
    (folder / "extensions").write_text(f"subjectAltName={names}\n")
    openssl(folder, "x509", "-req", "-in", "good.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "30",
            "-extfile", "extensions", "-out", "good.pem")
    (folder / "good.leaf").write_text((folder / "good.pem").read_text())
    (folder / "good.key").chmod(0o600)
    return folder


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("requiretls")
    certificates = make_certificates(folder / "certificates")
    signed = ["keeps A 192.0.2.40", "wrong A 192.0.2.40", "lacks A 192.0.2.41", "clear A 192.0.2.42", f"postfix A {POSTFIX}",
              "second A 192.0.2.50", "dead A 192.0.2.99", "bad A 192.0.2.41", f"_25._tcp.bad TLSA 3 1 1 {'00' * 32}", "ee A 192.0.2.40",
              f"_25._tcp.ee TLSA 3 1 1 {association(certificates, 'good', 1, 1)}",
              "kept MX 10 keeps", "dane MX 10 ee", "next MX 10 lacks", "next MX 20 keeps", "lacking MX 10 lacks", "stripped MX 10 clear",
              "misnamed MX 10 wrong", "by-postfix MX 10 postfix", "away MX 10 dead", "away MX 20 lacks", "mismatch MX 10 bad",
              "junk MX 10 junk", "junk A 192.0.2.40", "_25._tcp.junk TLSA 3 0 0 00", "dark A 192.0.2.42", f"_25._tcp.dark TLSA 3 1 1 {'00' * 32}", "raised MX 10 dark", "loose MX 10 dark"]
    with contextlib.ExitStack() as stack:
        stack.enter_context(own_network())
        dns = folder / "nsd"
        stack.enter_context(name_server(dns, {"req.test": signed, "plain.test": ["kept MX 10 keeps.req.test."],
                                              "local.test": ["mx A 192.0.2.1"]}, signed=["req.test"]))
        tls, named = context_of(certificates, "good"), []
        tls.sni_callback = lambda _, name, __: named.append(name)
        keeps = stack.enter_context(ScriptedServer(host="192.0.2.40", port=25, tls=tls, extensions=(*PLAIN, "REQUIRETLS")))
        six = stack.enter_context(ScriptedServer(host="2001:db8::6", port=25, tls=tls, extensions=(*PLAIN, "REQUIRETLS")))
        lacks = stack.enter_context(ScriptedServer(host="192.0.2.41", port=25, tls=tls))
        clear = stack.enter_context(ScriptedServer(host="192.0.2.42", port=25, extensions=(*PLAIN, "REQUIRETLS")))
        readable = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="postrider-requiretls-")))
        readable.chmod(0o755)
        for path in certificates.iterdir():
            (readable / path.name).write_bytes(path.read_bytes())
        behind = stack.enter_context(ScriptedServer())
        postfix = stack.enter_context(PostfixWith(
            "mynetworks = 0.0.0.0/0\ninet_interfaces = all\nsmtpd_tls_security_level = may\n",
            [f"{POSTFIX}:25 inet n - n - - smtpd -o smtpd_tls_cert_file={readable}/good.pem -o smtpd_tls_key_file={readable}/good.key"],
            next_port=behind.port))
        wait_until(lambda: can_connect(25, POSTFIX), 30, "Postfix")
        values = {"certificates": certificates, "anchors": dns / "anchors"}
        second = stack.enter_context(Postrider(folder / "second", config=SECOND, **values))
        server = stack.enter_context(Postrider(folder / "server", config=SITE, **values))
        yield {"server": server, "second": second, "keeps": keeps, "lacks": lacks, "clear": clear, "behind": behind, "postfix": postfix,
               "six": six, "named": named}


@contextlib.contextmanager
def session(server):
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with smtplib.SMTP("127.0.0.1", server.port, timeout=60) as client:
        client.ehlo("client.test")
        assert not client.has_extn("requiretls")
        client.starttls(context=context)
        client.ehlo("client.test")
        assert client.has_extn("requiretls")
        yield client


def send(server, recipient, options=("REQUIRETLS",), sender="sender@local.test", header="", kept=True):
    """The message's id; kept: another recipient keeps it in the queue, and its notices are gathered for a while."""
    with session(server) as client:
        assert client.mail(sender, options)[0] == 250
        for one in (recipient, *(["anchor@wait.test"] if kept else [])):
            assert client.rcpt(one)[0] == 250
        code, words = client.data(f"Subject: secret\r\n{header}\r\nthe body\r\n".encode())
        assert code == 250
        return re.search(r"\b[0-9a-z]{26}\b", words.decode()).group(0)


def mail_lines(peer, recipient):
    return [mail for mail, rcpts, _ in list(peer.messages) if any(f"<{recipient}>" in rcpt for rcpt in rcpts)]


def test_it_is_a_parameter_under_tls_only(world):
    server = world["server"]
    with smtplib.SMTP("127.0.0.1", server.port, timeout=60) as client:
        client.ehlo("client.test")
        assert client.mail("sender@local.test", ["REQUIRETLS"]) == (555, b"5.5.4 The parameter REQUIRETLS is not known here; EHLO lists what is")
    with session(server) as client:
        assert client.mail("sender@local.test", ["REQUIRETLS=1"])[0] == 501
        assert client.mail("sender@local.test", ["REQUIRETLS", "REQUIRETLS"])[0] == 501
        assert client.mail("sender@local.test", ["REQUIRETLS"])[0] == 250


def test_its_recipients_are_not_asked_for_in_clear(world):
    """By "recipients verify"; what mail without it asked is remembered, and costs nobody a question."""
    clear, asked = world["clear"], "RCPT TO:<{}@asked.test>".format
    clear.answers["RCPT"] = lambda line, _: "550 5.1.1 no" if "known" in line else "250 2.1.5 ok"
    for name, options, code, is_asked in (("secret", ["REQUIRETLS"], 250, False), ("secret", [], 250, True),
                                          ("known", [], 550, True), ("known", ["REQUIRETLS"], 550, True)):
        with session(world["server"]) as client:
            assert client.mail("sender@local.test", options)[0] == 250
            assert client.rcpt(f"{name}@asked.test")[0] == code
        assert (asked(name) in clear.commands) == is_asked, (name, options)
    del clear.answers["RCPT"]


@pytest.mark.parametrize("domain", ["kept.req.test", "dane.req.test", "next.req.test"])
def test_it_is_passed_on(world, domain):
    address = f"x@{domain}"
    assert end_of(fates(world["server"], send(world["server"], address))[address]) == "delivered"
    [line] = mail_lines(world["keeps"], address)
    assert line.endswith(" REQUIRETLS")
    assert attempt_to(world["server"], address)["tls"] == "verified"
    assert not mail_lines(world["lacks"], address)


def test_it_waits_where_the_records_cannot_be_used(world):
    address = "x@junk.req.test"
    fate = fates(world["server"], send(world["server"], address))[address]
    assert end_of(fate) == "deferred" and fate["reply"].startswith("4.7."), fate
    assert attempt_to(world["server"], address)["tls-result"] == "tlsa-invalid" and not mail_lines(world["keeps"], address)


@pytest.mark.parametrize("literal, peer", [("[192.0.2.40]", "keeps"), ("[IPv6:2001:db8::6]", "six")])
def test_an_address_is_verified_as_one_and_is_no_servers_name(world, literal, peer):
    address, before = f"x@{literal.lower()}", len(world["named"])  # as the queue writes it
    assert end_of(fates(world["server"], send(world["server"], f"x@{literal}"))[address]) == "delivered"
    assert attempt_to(world["server"], address)["tls"] == "verified" and mail_lines(world[peer], address)
    assert None in world["named"][before:] and not any("2001" in name or "192" in name for name in world["named"] if name)


def test_it_is_kept_over_a_relay_of_two(world):
    address = "x@chain.test"
    assert end_of(fates(world["server"], send(world["server"], address))[address]) == "delivered"
    wait_until(lambda: mail_lines(world["keeps"], address), 60, "the message behind the second")
    [line] = mail_lines(world["keeps"], address)
    assert line.endswith(" REQUIRETLS")
    assert attempt_to(world["second"], address)["tls"] == "verified"


@pytest.mark.parametrize("domain, status", [
    ("lacking.req.test", "5.7.30"),
    ("by-postfix.req.test", "5.7.30"),
    ("kept.plain.test", "5.7.30"),     # nobody vouches for the name of its host
    ("stripped.req.test", "5.7.10"),
    ("misnamed.req.test", "5.7.10"),
])
def test_it_is_bounced_where_the_way_ends(world, domain, status):
    server, address = world["server"], f"x@{domain}"
    before = len(server.mails("sender"))
    send(server, address, ("REQUIRETLS", "RET=FULL"), kept=False)
    server.wait_for_mail("sender", before + 1)
    [notice] = [mail for mail in map(parse, server.mails("sender")) if address in mail.as_string() and "delivery-status" in mail.as_string()]
    text = notice.as_string()
    assert f"Status: {status}" in text, text
    assert "Subject: secret" in text and "the body" not in text, "RET=HDRS over RET=FULL"
    assert not any(mail_lines(world[peer], address) for peer in ("keeps", "lacks", "clear", "behind"))
    commands = [c for peer in ("lacks", "clear") for c in list(world[peer].commands) if address in c]
    assert not commands


def test_what_is_only_away_is_waited_for(world):
    address = "x@away.req.test"
    fate = fates(world["server"], send(world["server"], address))[address]
    assert end_of(fate) == "deferred", fate
    assert not mail_lines(world["lacks"], address)


def test_its_bounces_require_it_too_and_go_without_where_they_must(world):
    server = world["server"]
    for home, peer, passed_on in (("kept", "keeps", True), ("lacking", "lacks", False)):
        sender = f"{home}-sender@{home}.req.test"
        send(server, "x@lacking.req.test", sender=sender, kept=False)
        wait_until(lambda: mail_lines(world[peer], sender), 60, f"the bounce for {sender}")
        [line] = mail_lines(world[peer], sender)
        assert line.startswith("MAIL FROM:<>") and line.endswith(" REQUIRETLS") == passed_on, line


def test_tls_required_no(world):
    server = world["server"]
    for header, options, end in (("", (), "deferred"), ("TLS-Required: Yes\r\n", (), "deferred"), ("TLS-Required: No\r\n", (), "delivered"),
                                 ("TLS-Required: No\r\n", ("REQUIRETLS",), "deferred")):
        address = f"x{len(header)}{len(options)}@mismatch.req.test"
        fate = fates(server, send(server, address, options, header=header))[address]
        assert end_of(fate) == end, (header, options, fate)
    line = attempt_to(server, f"x{len('TLS-Required: No') + 2}0@mismatch.req.test")
    assert line["tls"] == "unverified" and line["tls-policy-by"] == "dane" and line["tls-result"] == "validation-failure"


def test_tls_required_no_lets_go_what_the_destination_asks_for_and_not_what_the_route_does(world):
    for domain, end in (("loose.req.test", "delivered"), ("raised.req.test", "deferred")):
        address = f"x@{domain}"
        fate = fates(world["server"], send(world["server"], address, (), header="TLS-Required: No\r\n"))[address]
        assert end_of(fate) == end, (domain, fate)
    assert not mail_lines(world["clear"], "x@raised.req.test")
