"""DANE (RFC 7672), both ways with Postfix, over a zone signed by ldns on NSD: when mail goes, and when it must not."""
import base64
import contextlib
import hashlib
import json
import pathlib
import re
import smtplib
import subprocess
import tempfile
import time

import pytest

from harness import Postrider, shared, wait_until
from peers import PostfixWith, ScriptedServer, can_connect, name_server, own_network
from test_routing import end_of, fates, start_message

SITE = """
hostname mx.local.test
state {state}
listen mx {{ address 127.0.0.1:{port} 192.0.2.1:25; relay from 127.0.0.1; hostname us.dane.example }}
domain local.test us.dane.example {{ mailbox ok sender; alias postmaster -> sender; deliver maildir {mail}/{{domain}}/{{local}} }}
domain asked.dane.example unasked.dane.example failing.dane.example lost.plain.example sts.plain.example {{ recipients verify; relay mx }}
domain via.test {{ recipients verify; relay via smtp://mx-clear.dane.example }}
tls {{ certificate {certificates}/ours.pem; key {certificates}/ours.key }}
route wait.test {{ via smtp://192.0.2.250; tls off }}
route override.dane.example {{ direct; tls insecure-override; reply-wait 60s }}
route default {{ direct; reply-wait 60s }}
retry 1h for 1d {{ delay-notice off }}
resolver {{ forward 127.0.0.1; trust-anchor {anchors} }}
"""

AS_IT_SHOULD, WRONG, IN_CLEAR = "192.0.2.20", "192.0.2.21", "192.0.2.30"


# ---- certificates --------------------------------------------------------------------------------------------------------

def openssl(folder, *words, data=None):
    return subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True, input=data).stdout


def make_certificates(folder):
    folder.mkdir()
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    openssl(folder, "req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.pem", "-days", "30", "-subj", "/CN=Test CA")
    for name, names, days in (("good", "DNS:*.dane.example", "30"), ("wrong", "DNS:elsewhere.example", "-1"),
                              ("ours", "DNS:nobody.example", "30")):
        openssl(folder, "req", *curve, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        (folder / "extensions").write_text(f"subjectAltName={names}\n")
        dates = ["-days", days]
        openssl(folder, "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", *dates,
                "-extfile", "extensions", "-out", f"{name}.leaf")
        (folder / f"{name}.pem").write_text((folder / f"{name}.leaf").read_text() + (folder / "ca.pem").read_text())
        (folder / f"{name}.key").chmod(0o600)
    return folder


def der(pem):
    return base64.b64decode("".join(re.search(r"-----BEGIN [^-]+-----(.*?)-----END", pem, re.S)[1].split()))


def association(folder, name, selector, matching):
    """The data of a TLSA record for the certificate NAME.leaf, or ca.pem."""
    path = folder / ("ca.pem" if name == "ca" else f"{name}.leaf")
    if selector == 0:
        data = der(path.read_text())
    else:
        data = der(openssl(folder, "x509", "-in", str(path), "-noout", "-pubkey").decode())
    return data.hex() if matching == 0 else hashlib.new("sha256" if matching == 1 else "sha512", data).hexdigest()


# ---- the cases that are shared ---------------------------------------------------------------------------------------------

def shared_cases():
    folder = shared()
    path = folder and folder / "conformance/dane/cases.json"
    return json.loads(path.read_text()) if path and path.exists() else []


CASES = shared_cases()


def domain_of_case(at, case):
    """Its domain; neither that nor its host are what the certificate is for (*.dane.example), if a wrong name is all that is wrong."""
    deep = ".deep" if case.get("cert_name") == "wrong" and not case.get("cert_expired") else ""
    return f"case{at}{deep}", f"mx{at}{deep}", "dane.example" if case["mx"] == "secure" else "plain.example"


def zone_of_case(certificates, at, case):
    """(zone, records, a zone that gets SERVFAIL or None)."""
    shown = "wrong" if case.get("cert_name") == "wrong" and case.get("cert_expired") else "good"
    domain, host, zone = domain_of_case(at, case)
    records = [f"{domain} MX 10 {host}", f"{host} A {WRONG if shown == 'wrong' else AS_IT_SHOULD}"]
    for usage, selector, matching, what in case["tlsa"] if isinstance(case["tlsa"], list) else []:
        data = association(certificates, "ca" if usage == 2 else shown, selector, matching)
        records.append(f"_25._tcp.{host} TLSA {usage} {selector} {matching} {data if what == 'match' else '00' * (len(data) // 2)}")
    if case["tlsa"] == "servfail":
        records.append(f"_tcp.{host} NS ns")
    return zone, records, f"_tcp.{host}.{zone}" if case["tlsa"] == "servfail" else None


# ---- the world -------------------------------------------------------------------------------------------------------------

@contextlib.contextmanager
def validating_resolver(folder, anchors):
    """unbound on 127.0.0.2, which asks NSD."""
    folder.mkdir()
    (folder / "unbound.conf").write_text(f"""
server:
 interface: 127.0.0.2
 do-daemonize: no
 use-syslog: no
 username: ""
 chroot: ""
 directory: "{folder}"
 pidfile: ""
 do-not-query-localhost: no
 module-config: "validator iterator"
 trust-anchor-file: "{anchors}"
forward-zone:
 name: "."
 forward-addr: 127.0.0.1
remote-control:
 control-enable: no
""")
    with open(folder / "output", "ab") as output:
        process = subprocess.Popen(["/usr/sbin/unbound", "-d", "-c", str(folder / "unbound.conf")], stdin=subprocess.DEVNULL,
                                   stdout=output, stderr=output)
    try:
        wait_until(lambda: process.poll() is not None or can_connect(53, "127.0.0.2"), 30, "unbound")
        assert process.poll() is None, (folder / "output").read_text()
        yield
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dane")
    certificates = make_certificates(folder / "certificates")
    secure, plain, broken = [], [], []
    for at, case in enumerate(CASES):
        zone, records, servfail = zone_of_case(certificates, at, case)
        (secure if zone == "dane.example" else plain).extend(records)
        broken += [servfail] if servfail else []

    def records_for(host, address, *tlsa):
        return [f"{host} A {address}", *(f"_25._tcp.{host} TLSA {record}" for record in tlsa)]

    ee = f"3 1 1 {association(certificates, 'good', 1, 1)}"
    ta = f"2 0 1 {association(certificates, 'ca', 0, 1)}"
    bad = f"3 1 1 {'00' * 32}"
    secure += ["ee MX 10 mx-ee", *records_for("mx-ee", AS_IT_SHOULD, ee)]
    secure += ["ta MX 10 mx-ta", *records_for("mx-ta", AS_IT_SHOULD, ta)]
    secure += ["mismatch MX 10 mx-bad", *records_for("mx-bad", AS_IT_SHOULD, bad)]
    secure += ["next MX 10 mx-bad", "next MX 20 mx-ee"]
    secure += ["rollover MX 10 mx-both", *records_for("mx-both", AS_IT_SHOULD, bad, ee)]
    secure += ["junk MX 10 mx-junk"]
    secure += records_for("mx-junk", AS_IT_SHOULD, "3 0 0 00")  # well-formed, but no certificate
    secure += ["stripped MX 10 mx-clear", *records_for("mx-clear", IN_CLEAR, ee)]
    secure += ["override MX 10 mx-clear"]
    secure += ["unsigned-host MX 10 host.plain.example."]
    secure += ["no-tlsa MX 10 mx-none", *records_for("mx-none", IN_CLEAR)]
    secure += ["alias MX 10 mx-alias", "mx-alias CNAME mx-ee"]
    secure += ["us MX 10 us-host", *records_for("us-host", "192.0.2.1", f"3 1 1 {association(certificates, 'ours', 1, 1)}")]
    secure += [*records_for("mx-failing", IN_CLEAR), "_tcp.mx-failing NS ns"]
    broken += ["_tcp.mx-failing.dane.example", "_mta-sts.lost.plain.example"]
    for domain, host in (("asked", "mx-none"), ("unasked", "mx-clear"), ("failing", "mx-failing")):
        secure += [f"{domain} MX 10 {host}", f"{domain} MX 20 mx.local.test."]
    plain += ["sts MX 10 host", "sts MX 20 mx.local.test.", '_mta-sts.sts TXT "v=STSv1; id=1"']
    plain += ["lost MX 10 host", "lost MX 20 mx.local.test.", "_mta-sts.lost NS ns"]
    plain += ["host A " + IN_CLEAR, f"_25._tcp.host TLSA {bad}"]
    with contextlib.ExitStack() as stack:
        stack.enter_context(own_network())
        dns = folder / "nsd"
        stack.enter_context(name_server(dns, {
            "dane.example": secure, "plain.example": plain, "bogus.example": ["@ MX 10 mx", "mx A 192.0.2.20"],
            "local.test": ["mx A 192.0.2.1"],
        }, broken=broken, signed=["dane.example", "bogus.example"], tampered={"bogus.example": ("MX\t10 mx", "MX\t11 mx")}))
        behind = stack.enter_context(ScriptedServer())
        clear = stack.enter_context(ScriptedServer(host=IN_CLEAR, port=25))
        readable = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="postrider-dane-")))
        readable.chmod(0o755)
        for path in certificates.iterdir():
            (readable / path.name).write_bytes(path.read_bytes())
        postfix = stack.enter_context(PostfixWith(
            "mynetworks = 0.0.0.0/0\ninet_interfaces = all\nsmtpd_tls_security_level = may\nsmtpd_tls_loglevel = 1\n",
            [f"{address}:25 inet n - n - - smtpd -o smtpd_tls_cert_file={readable}/{name}.pem -o smtpd_tls_key_file={readable}/{name}.key"
             for address, name in ((AS_IT_SHOULD, "good"), (WRONG, "wrong"))],
            next_port=behind.port))
        wait_until(lambda: can_connect(25, AS_IT_SHOULD) and can_connect(25, WRONG), 30, "Postfix")
        server = stack.enter_context(Postrider(folder / "server", config=SITE, certificates=certificates, anchors=dns / "anchors"))
        yield {"server": server, "postfix": postfix, "behind": behind, "clear": clear, "folder": folder,
               "anchors": dns / "anchors"}


def attempt_to(server, address):
    return wait_until(lambda: [e for e in server.log_events("attempt") if e["to"] == address], 60, f"an attempt for {address}")[-1]


def reached(world, address):
    def count(peer):
        return sum(f"<{address}>" in rcpt for _, rcpts, _ in list(peer.messages) for rcpt in rcpts)
    return count(world["behind"]) + count(world["clear"])


def send_to(world, address):
    """(how it ended, the attempt's line) of a message."""
    server = world["server"]
    fate = fates(server, start_message(server, address))[address]
    if end_of(fate) == "delivered":
        wait_until(lambda: reached(world, address) == 1, 60, f"the message for {address} behind Postfix")
    else:
        assert reached(world, address) == 0
    return fate, attempt_to(server, address)


@pytest.mark.parametrize("at", range(len(CASES)) or [pytest.param(None, marks=pytest.mark.skip(
    reason="the shared test data is not beside the project"))])
def test_shared_cases(world, at):
    case = CASES[at]
    domain, _, zone = domain_of_case(at, case)
    fate, line = send_to(world, f"x@{domain}.{zone}")
    assert end_of(fate) == ("delivered" if case["deliver"] else "deferred"), (case, fate, line)
    if case["deliver"]:
        assert line["tls"] == ("verified" if case.get("verified", True) else "unverified"), (case, line)
    usable = isinstance(case["tlsa"], list)
    assert line["tls-policy-by"] == ("default" if case["tlsa"] == "not looked up" else "dane"), line
    if usable:
        assert line["tls-policy"] == ("encrypt" if case.get("verified") is False else "dane")
    print(f"ok: {case.get('note', case)}")


def test_all_shared_cases_were_there():
    if not CASES:
        pytest.skip("the shared test data is not beside the project")
    assert len(CASES) == 7
    print(f"{len(CASES)} of {len(CASES)} cases of conformance/dane")


@pytest.mark.parametrize("domain, end, words", [
    ("ee", "delivered", {"tls": "verified", "tls-policy": "dane", "tls-policy-by": "dane", "tls-result": "ok",
                         "tls-policy-domain": "ee.dane.example"}),
    ("ta", "delivered", {"tls": "verified", "tls-policy": "dane"}),
    ("rollover", "delivered", {"tls": "verified", "tls-policy": "dane"}),
    ("alias", "delivered", {"tls": "verified", "tls-policy": "dane"}),
    ("next", "delivered", {"tls": "verified", "tls-policy": "dane"}),
    ("mismatch", "deferred", {"tls": "none", "tls-policy": "dane", "tls-result": "validation-failure"}),
    ("junk", "delivered", {"tls": "unverified", "tls-policy": "dane", "tls-result": "tlsa-invalid"}),
    ("stripped", "deferred", {"tls": "none", "tls-policy": "dane", "tls-result": "starttls-not-supported"}),
    ("override", "delivered", {"tls": "none", "tls-policy": "may", "tls-policy-by": "rule"}),
    ("unsigned-host", "delivered", {"tls": "none", "tls-policy": "may", "tls-policy-by": "default"}),
    ("no-tlsa", "delivered", {"tls": "none", "tls-policy": "may", "tls-policy-by": "default"}),
])
def test_what_records_ask_for(world, domain, end, words):
    before = len(world["clear"].commands)
    fate, line = send_to(world, f"x@{domain}.dane.example")
    assert end_of(fate) == end, (fate, line)
    assert {key: line.get(key) for key in words} == words
    if end == "deferred":
        assert fate["reply"].startswith("4.7."), fate
        assert not any(command.startswith("MAIL") for command in world["clear"].commands[before:])
        failed = world["server"].logged("tls-failed", **{"tls-policy-domain": f"{domain}.dane.example"})
        assert failed[-1]["tls-result"] == words["tls-result"] and failed[-1]["so"] == "not by this host"
    if domain == "override":
        [told] = world["server"].logged("tls-override")
        assert told["host"] == "mx-clear.dane.example" and told["tls-policy"] == "dane"


@pytest.mark.parametrize("domain, code, asked, why", [
    ("asked.dane.example", 250, True, None),
    ("unasked.dane.example", 250, False, "encrypted only"),
    ("via.test", 250, False, "encrypted only"),
    ("failing.dane.example", 450, False, "cannot be known now"),  # whether there are TLSA records
    # A policy that cannot be looked up or fetched: the mail goes as if there were none (RFC 8461 section 3.3), and so does this.
    ("lost.plain.example", 250, True, None),
    ("sts.plain.example", 250, True, None),
])
def test_whom_mail_is_for_is_asked_in_clear_only_where_it_goes_in_clear(world, domain, code, asked, why):
    """By "recipients verify": a destination that asks for TLS is told nothing before, and nobody is taken because a lookup failed."""
    server = world["server"]
    with smtplib.SMTP("127.0.0.1", server.port, timeout=60) as client:
        client.ehlo("client.test")
        client.mail("a@client.test")
        began = time.monotonic()
        assert client.rcpt(f"whoever@{domain}")[0] == code
        slow = time.monotonic() - began >= 1
        assert client.rcpt(f"another@{domain}")[0] == code
    assert any(f"whoever@{domain}" in command for command in list(world["clear"].commands)) == asked
    # What a destination asks for is remembered; what is not known is looked up again, unless that took longer than a second.
    # (It took less if only the client or the receiver was slow.)
    counts = {None: [0], "encrypted only": [1], "cannot be known now": [1, 2] if slow else [2]}[why]
    if counts[0]:
        server.logged("recipient-not-asked", counts[0], domain=domain)
    server.status()  # what was told beside it has been written since, too
    told = [line["why"] for line in server.log_events("recipient-not-asked") if line["domain"] == domain]
    assert len(told) in counts and all(why in one for one in told), told


def test_a_bogus_zone_gets_no_mail(world):
    server, address = world["server"], "x@bogus.example"
    message = start_message(server, address)
    fate = fates(server, message)[address]
    assert end_of(fate) == "deferred" and "DNS" in fate["reason"], fate
    assert reached(world, address) == 0


@pytest.mark.parametrize("domain, exit_code, words", [
    ("ee.dane.example", 0, {"policy": "dane", "by": "dane", "verified": True, "goes": True, "result": "ok"}),
    ("mismatch.dane.example", 1, {"policy": "dane", "verified": False, "goes": False, "encrypted": True, "result": "validation-failure"}),
    ("stripped.dane.example", 1, {"policy": "dane", "encrypted": False, "goes": False, "result": "starttls-not-supported"}),
    ("override.dane.example", 0, {"policy": "may", "by": "rule", "lowered": True, "goes": True}),
    ("no-tlsa.dane.example", 0, {"policy": "may", "by": "default", "tlsa": [], "encrypted": False, "goes": True}),
])
def test_the_command_says_what_would_be_done(world, domain, exit_code, words):
    done = world["server"].cli("tls", "--config", str(world["server"].config_path), "--json", domain, check=False)
    assert done.returncode == exit_code, done.stderr
    answer = json.loads(done.stdout)
    assert answer["direct"] and answer["secure"] and answer["domain"] == domain
    [host] = answer["hosts"]
    assert {key: host[key] for key in words} == words, host
    if host["encrypted"]:
        assert host["certificate-names"] == "*.dane.example" and host["certificate-issuer"] == "Test CA"
        assert host["certificate-key-sha256"] == association(world["folder"] / "certificates", "good", 1, 1)
    told = world["server"].cli("tls", "--config", str(world["server"].config_path), domain, check=False).stdout
    assert f"{domain}: by its MX records; DNSSEC: secure" in told and f"policy       {words['policy']}, by" in told, told


@pytest.mark.parametrize("literal, address", [("[192.0.2.30]", IN_CLEAR), ("[IPv6:2001:db8::6]", "2001:db8::6")])
def test_the_command_takes_an_address_for_what_it_is(world, literal, address):
    with contextlib.ExitStack() as stack:
        if address != IN_CLEAR:
            stack.enter_context(ScriptedServer(host=address, port=25))
        done = world["server"].cli("tls", "--config", str(world["server"].config_path), "--json", f"x@{literal}", check=False)
    assert done.returncode == 0, done
    answer = json.loads(done.stdout)
    [host] = answer["hosts"]
    assert not answer["direct"] and answer["domain"] == literal, answer
    assert (host["name"], host["addresses"], host["policy"], host["goes"]) == (address, [address], "may", True), host


@pytest.mark.parametrize("domain, exit_code", [("bogus.example", 75), ("nobody.dane.example", 68), ("us.dane.example", 65), ("a b", 64)])
def test_the_command_says_why_not(world, domain, exit_code):
    done = world["server"].cli("tls", "--config", str(world["server"].config_path), domain, check=False)
    assert done.returncode == exit_code and done.stderr and not done.stdout, done


def test_without_keys_to_begin_with_the_log_says_so(world, tmp_path):
    config = SITE.replace(" 192.0.2.1:25", "")
    with Postrider(tmp_path, config=config, certificates=world["folder"] / "certificates", anchors=tmp_path / "none") as server:
        told = wait_until(lambda: server.log_events("dnssec-off"), 30, "a word on DNSSEC")
        assert {e["role"] for e in told} <= {"resolver", "checker"} and told[0]["file"] == str(tmp_path / "none")
        done = server.cli("tls", "--config", str(server.config_path), "--json", "--no-connect", "ee.dane.example")
        assert "DNSSEC vouches for nothing" in done.stderr and not json.loads(done.stdout)["secure"]


def test_kept_connections_and_sessions_stay_under_their_policy(world):
    """Of several messages by DANE all are, whether over one connection, a resumed session or a new one."""
    for i in range(3):
        _, line = send_to(world, f"again{i}@ee.dane.example")
        assert (line["tls"], line["tls-policy"], line["tls-result"]) == ("verified", "dane", "ok")


def test_postfix_delivers_to_us_by_dane(world):
    with contextlib.ExitStack() as stack:
        stack.enter_context(validating_resolver(world["folder"] / "unbound", world["anchors"]))
        sender = stack.enter_context(PostfixWith(
            "disable_dns_lookups = no\nsmtp_host_lookup = dns\nsmtp_dns_support_level = dnssec\nsmtp_tls_security_level = dane\n"
            "smtp_tls_loglevel = 1\ndefault_transport = smtp\n", name_server="127.0.0.2"))
        with smtplib.SMTP("127.0.0.1", sender.port, timeout=60) as client:
            client.sendmail("a@client.test", ["ok@us.dane.example"], b"Subject: by DANE\r\n\r\ntext\r\n")
        [mail] = world["server"].wait_for_mail(domain="us.dane.example")
        assert b"by DANE" in mail and b"with ESMTPS" in mail
        log = wait_until(lambda: (text := sender.log_text()) and "TLS connection established to" in text and text, 60, "Postfix's log")
        assert "Verified TLS connection established to us-host.dane.example" in log
