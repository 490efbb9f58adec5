"""MTA-STS (RFC 8461): policies on a web server of our own, with a CA of our own: when mail goes, and when it must not."""
import contextlib
import http.server
import json
import os
import shutil
import signal
import smtplib
import ssl
import threading

import pytest

from harness import Postrider, is_alive, wait_until
from peers import ScriptedServer, name_server, own_network
from test_dane import association, attempt_to, openssl
from test_routing import end_of, fates, start_message

SITE = """
hostname mx.local.test
state {state}
listen mx {{ address 127.0.0.1:{port}; relay from 127.0.0.1 }}
domain local.test {{ mailbox ok sender; alias postmaster -> sender; deliver maildir {mail}/{{domain}}/{{local}} }}
domain verify-enforce.sts.test verify-testing.sts.test verify-none.sts.test {{ recipients verify; relay mx }}
domain verify-via.test {{ recipients verify; relay via smtp://relay.sts.test }}
mta-sts-ca {certificates}/ca.pem
route wait.test {{ via smtp://192.0.2.250; tls off }}
route smart.test {{ via smtp://relay.sts.test; tls-ca {certificates}/ca.pem; reply-wait 60s }}
route default {{ direct; tls-ca {certificates}/ca.pem; reply-wait 60s }}
retry 1h for 1d {{ delay-notice off }}
resolver {{ forward 127.0.0.1; trust-anchor {anchors} }}
"""
WEB, STALLS, NOBODY = "192.0.2.80", "192.0.2.81", "192.0.2.99"
# Hosts: address, certificate (None: no STARTTLS).
HOSTS = {
    "good": ("192.0.2.20", "good"),
    "other": ("192.0.2.21", "other"),
    "wrong": ("192.0.2.22", "good"),
    "expired": ("192.0.2.23", "expired"),
    "lonely": ("192.0.2.24", "lonely"),
    "clear": ("192.0.2.25", None),
    "relay": ("192.0.2.26", "relay"),
}


def make_certificates(folder):
    folder.mkdir()
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    openssl(folder, "req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.pem", "-days", "30", "-subj", "/CN=Test CA")
    for name, names, days in (("good", "DNS:good.sts.test,DNS:good.both.test", "30"), ("other", "DNS:other.sts.test,DNS:other.both.test", "30"),
                              ("relay", "DNS:relay.sts.test", "30"), ("expired", "DNS:expired.sts.test", "-1"),
                              ("web", "DNS:*.sts.test,DNS:*.both.test,DNS:*.smart.sts.test", "30"), ("deep", "DNS:*.example", "30"),
                              ("old", "DNS:mta-sts.web-expired.sts.test", "-1")):
        if name == "web":  # one wildcard does not reach two labels down
            names = ",".join(f"DNS:mta-sts.{domain}" for domain in (*DOMAINS, "relay.sts.test", *BOTH))
        openssl(folder, "req", *curve, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        (folder / "extensions").write_text(f"subjectAltName={names}\n")
        openssl(folder, "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", days,
                "-extfile", "extensions", "-out", f"{name}.leaf")
        shutil.copy(folder / f"{name}.leaf", folder / f"{name}.pem")
    openssl(folder, "req", "-x509", *curve, "-keyout", "lonely.key", "-out", "lonely.pem", "-days", "30", "-subj", "/CN=lonely",
            "-addext", "subjectAltName=DNS:lonely.sts.test")
    return folder


def context_of(folder, name):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")
    return context


def policy(mode, *mx, max_age=864000):
    return "\r\n".join(["version: STSv1", f"mode: {mode}", *(f"mx: {one}" for one in mx), f"max_age: {max_age}", ""])


class Web:
    """The policies of all domains: pages[domain] is a text, or (status, headers, text). asked: each domain's requests."""

    def __init__(self, folder, pages):
        self.pages, self.asked = pages, {}
        web = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                domain = self.headers["Host"].removeprefix("mta-sts.")
                web.asked[domain] = web.asked.get(domain, 0) + 1
                page = web.pages[domain] if self.path == "/.well-known/mta-sts.txt" else (404, {}, "")
                status, headers, text = page if isinstance(page, tuple) else (200, {"Content-Type": "text/plain; charset=utf-8"}, page)
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(text))}.items():
                    self.send_header(name, value)
                self.end_headers()
                with contextlib.suppress(OSError):
                    self.wfile.write(text.encode())

            def log_message(self, *_):
                pass

        self.contexts = {name: context_of(folder, name) for name in ("web", "deep", "old")}
        self.context = context_of(folder, "web")
        self.context.sni_callback = self._choose
        self.names = []

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_):
                pass

            def get_request(self):
                s, address = super().get_request()
                return web.context.wrap_socket(s, server_side=True, do_handshake_on_connect=False), address

        self.server = Server((WEB, 443), Handler)

    def _choose(self, s, name, _):
        self.names.append(name)
        s.context = self.contexts["deep" if "web-wrong" in (name or "") else "old" if "web-expired" in (name or "") else "web"]

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


# Domain: (its MX hosts, its page, how mail to it ends, the host that gets it, words of the attempt's line).
STS = {"tls-policy-by": "sts", "tls-policy": "verify"}
REFUSED = {"tls-policy-by": "sts", "tls-policy": "refused"}
NO_POLICY = {"tls-policy": "may"}
CASES = {
    "enforce": (["good"], policy("enforce", "good.sts.test"), "delivered", "good", {**STS, "tls": "verified", "tls-result": "ok"}),
    "wildcard": (["good"], policy("enforce", "*.sts.test"), "delivered", "good", {**STS, "tls": "verified"}),
    "next": (["other", "good"], policy("enforce", "good.sts.test"), "delivered", "good", {**STS, "tls": "verified"}),
    "unnamed": (["other"], policy("enforce", "good.sts.test", "*.other.sts.test", "sts.test"), "deferred", None,
                {**REFUSED, "tls-result": "validation-failure"}),
    "mx-wrong": (["wrong"], policy("enforce", "*.sts.test"), "deferred", None, {**STS, "tls-result": "certificate-host-mismatch"}),
    "mx-expired": (["expired"], policy("enforce", "*.sts.test"), "deferred", None, {**STS, "tls-result": "certificate-expired"}),
    "mx-lonely": (["lonely"], policy("enforce", "*.sts.test"), "deferred", None, {**STS, "tls-result": "certificate-not-trusted"}),
    "mx-clear": (["clear"], policy("enforce", "*.sts.test"), "deferred", None, {**STS, "tls-result": "starttls-not-supported"}),
    "testing": (["wrong"], policy("testing", "*.sts.test"), "delivered", "wrong",
                {"tls": "unverified", "tls-policy-by": "sts", "tls-result": "certificate-host-mismatch"}),
    "testing-clear": (["clear"], policy("testing", "*.sts.test"), "delivered", "clear",
                      {"tls": "none", "tls-result": "starttls-not-supported"}),
    "testing-unnamed": (["other"], policy("testing", "good.sts.test"), "delivered", "other",
                        {"tls": "unverified", "tls-policy-by": "sts", "tls-result": "validation-failure"}),
    "none": (["clear"], policy("none"), "delivered", "clear", {**NO_POLICY, "tls-result": "ok", "tls-policy-by": "default"}),
    "web-wrong": (["clear"], policy("enforce", "good.sts.test"), "delivered", "clear", {**NO_POLICY, "tls-result": "sts-webpki-invalid"}),
    "web-expired": (["clear"], policy("enforce", "good.sts.test"), "delivered", "clear", {**NO_POLICY, "tls-result": "sts-webpki-invalid"}),
    "web-redirect": (["clear"], (302, {"Location": "https://mta-sts.enforce.sts.test/.well-known/mta-sts.txt"}, ""), "delivered", "clear",
                     {**NO_POLICY, "tls-result": "sts-policy-fetch-error"}),
    "web-missing": (["clear"], (404, {}, ""), "delivered", "clear", {**NO_POLICY, "tls-result": "sts-policy-fetch-error"}),
    "web-big": (["clear"], policy("enforce", "good.sts.test") + "x: y\r\n" * 11000, "delivered", "clear",
                {**NO_POLICY, "tls-result": "sts-policy-invalid"}),
    "web-html": (["clear"], (200, {"Content-Type": "text/html"}, policy("enforce", "good.sts.test")), "delivered", "clear",
                 {**NO_POLICY, "tls-result": "sts-policy-invalid"}),
    "web-nonsense": (["clear"], "mode: enforce\r\n", "delivered", "clear", {**NO_POLICY, "tls-result": "sts-policy-invalid"}),
    "web-down": (["clear"], "", "delivered", "clear", {**NO_POLICY, "tls-result": "sts-policy-fetch-error"}),
    "two-records": (["clear"], policy("enforce", "good.sts.test"), "delivered", "clear", {**NO_POLICY, "tls-result": "ok"}),
    "no-record": (["clear"], policy("enforce", "good.sts.test"), "delivered", "clear", {**NO_POLICY, "tls-result": "ok"}),
    "shared-a": (["good"], policy("enforce", "good.sts.test"), None, "good", {}),
    "shared-b": (["good"], policy("enforce", "elsewhere.sts.test"), None, "good", {}),
    "shared-c": (["good"], policy("none"), None, "good", {}),
    "shared-d": (["good"], policy("enforce", "*.sts.test"), None, "good", {}),
    "cut-a": (["stall"], policy("enforce", "stall.sts.test"), None, None, {}),
    "cut-b": (["stall"], policy("enforce", "*.sts.test"), None, None, {}),
    "kept": (["good"], policy("enforce", "good.sts.test"), None, "good", {}),
    "verify-enforce": (["clear"], policy("enforce", "clear.sts.test"), None, None, {}),
    "verify-testing": (["clear"], policy("testing", "clear.sts.test"), None, None, {}),
    "verify-none": (["clear"], policy("none"), None, None, {}),
}
DOMAINS = [f"{name}.sts.test" for name in CASES]
BOTH = ["dane-first.both.test", "dane-fails.both.test", "dane-alone.both.test", "dane-junk.both.test"]


def records(web_is_there=True, ids="1"):
    lines = [f"{host} A {address}" for host, (address, _) in HOSTS.items()] + [f"stall A {STALLS}"]
    for name, (hosts, *_) in CASES.items():
        lines += [f"{name} MX {10 * at + 10} {host}" for at, host in enumerate(hosts)]
        lines += [f"mta-sts.{name} A {WEB if web_is_there and name != 'web-down' else NOBODY}"]
        lines += [] if name == "no-record" else [f'_mta-sts.{name} TXT "v=STSv1; id={ids};"']
    lines += ['_mta-sts.two-records TXT "v=STSv1; id=2;"', f"mta-sts.relay A {WEB}", '_mta-sts.relay TXT "v=STSv1; id=1"']
    return lines


def zones(certificates, **how):
    """both.test is signed: good has a TLSA record for its certificate, wrong one for another."""
    both = [f"good A {HOSTS['good'][0]}", f"_25._tcp.good TLSA 3 1 1 {association(certificates, 'good', 1, 1)}",
            f"wrong A {HOSTS['good'][0]}", f"_25._tcp.wrong TLSA 3 1 1 {'00' * 32}", f"other A {HOSTS['other'][0]}"]
    for domain in BOTH:
        name = domain.split(".")[0]
        both += [f"mta-sts.{name} A {WEB}", f'_mta-sts.{name} TXT "v=STSv1; id=1"']
    both += ["dane-first MX 10 good", "dane-first MX 20 other", "dane-fails MX 10 wrong", "dane-fails MX 20 other",
             "dane-alone MX 10 wrong", "dane-junk MX 10 junk", f"junk A {HOSTS['good'][0]}", "_25._tcp.junk TLSA 3 0 0 00"]
    return {"sts.test": records(**how), "both.test": both, "local.test": ["mx A 192.0.2.1"]}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sts")
    certificates = make_certificates(folder / "certificates")
    pages = {f"{name}.sts.test": page for name, (_, page, *_) in CASES.items()}
    pages["relay.sts.test"] = policy("enforce", "relay.sts.test")
    pages |= {"dane-first.both.test": policy("enforce", "other.both.test"), "dane-fails.both.test": policy("enforce", "other.both.test"),
              "dane-alone.both.test": policy("enforce", "wrong.both.test"), "dane-junk.both.test": policy("enforce", "junk.both.test")}
    with contextlib.ExitStack() as stack:
        stack.enter_context(own_network())
        dns = stack.enter_context(contextlib.ExitStack())
        dns.enter_context(name_server(folder / "nsd", zones(certificates), signed=["both.test"]))
        hosts = {name: stack.enter_context(ScriptedServer(host=address, port=25, tls=certificate and context_of(certificates, certificate)))
                 for name, (address, certificate) in HOSTS.items()}
        web = stack.enter_context(Web(certificates, pages))
        server = stack.enter_context(Postrider(folder / "server", config=SITE, certificates=certificates, anchors=folder / "nsd/anchors"))
        yield {"server": server, "hosts": hosts, "web": web, "dns": dns, "folder": folder, "certificates": certificates}


def got(world, address):
    """The hosts that got mail for it."""
    return {name for name, host in world["hosts"].items() if any(f"<{address}>" in rcpt for _, rcpts, _ in list(host.messages) for rcpt in rcpts)}


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case[2]])
def test_what_a_policy_asks_for(world, name):
    _, _, end, host, words = CASES[name]
    address = f"x@{name}.sts.test"
    fate = fates(world["server"], start_message(world["server"], address), 100)[address]
    line = attempt_to(world["server"], address)
    assert end_of(fate) == end, (fate, line)
    assert {key: line.get(key) for key in words} == words, line
    assert got(world, address) == ({host} if host else set())
    if end == "deferred":
        assert fate["reply"].startswith("4.7."), fate
        assert not any(f"{name}.sts.test" in command for peer in world["hosts"].values() for command in list(peer.commands))
    if words.get("tls-policy-by") == "sts":
        assert line["tls-policy-domain"] == f"{name}.sts.test"


def test_the_web_was_asked_by_name_and_not_more_than_needed(world):
    web, server = world["web"], world["server"]
    assert set(web.names) >= {f"mta-sts.{name}.sts.test" for name in ("enforce", "web-wrong", "web-expired")}
    assert "no-record.sts.test" not in web.asked and "two-records.sts.test" not in web.asked
    before = web.asked["enforce.sts.test"], web.asked["web-missing.sts.test"]
    assert before == (2 if "web-redirect" in web.asked else 1, 1)
    for name in ("enforce", "web-missing"):  # kept; and not again for some minutes
        address = f"again@{name}.sts.test"
        assert end_of(fates(server, start_message(server, address))[address]) == "delivered"
    assert (web.asked["enforce.sts.test"], web.asked["web-missing.sts.test"]) == before


@pytest.mark.parametrize("name, exit_code, mode, words", [
    ("enforce", 0, "enforce", {"policy": "verify", "by": "sts", "verified": True, "goes": True}),
    ("unnamed", 1, "enforce", {"policy": "refused", "by": "sts", "result": "validation-failure"}),
    ("mx-wrong", 1, "enforce", {"policy": "verify", "verified": False, "goes": False, "result": "certificate-host-mismatch"}),
    ("testing", 0, "testing", {"policy": "verify", "verified": False, "goes": True, "result": "certificate-host-mismatch"}),
    ("testing-unnamed", 0, "testing", {"policy": "refused", "by": "sts", "goes": True, "result": "validation-failure"}),
    ("no-record", 0, "no-policy", {"policy": "may", "by": "default", "goes": True, "result": "ok"}),
    ("web-wrong", 0, "no-policy", {"policy": "may", "by": "sts", "goes": True, "result": "sts-webpki-invalid"}),
])
def test_the_command_says_what_a_policy_asks_for(world, name, exit_code, mode, words):
    server = world["server"]
    done = server.cli("tls", "--config", str(server.config_path), "--json", f"{name}.sts.test", check=False)
    assert done.returncode == exit_code, done
    answer = json.loads(done.stdout)
    assert answer["mta-sts"] == mode, answer
    [host] = answer["hosts"]
    assert {key: host.get(key) for key in words} == words, host
    told = server.cli("tls", "--config", str(server.config_path), "--no-connect", f"{name}.sts.test", check=False).stdout
    assert f"MTA-STS: {mode.replace('-', ' ')}" in told, told


def test_domains_that_share_a_host_have_policies_of_their_own(world):
    server = world["server"]
    addresses = [f"{who}@shared-{which}.sts.test" for which in "abcd" for who in ("x", "y")]
    found = fates(server, start_message(server, *addresses), 100)
    for address in addresses:
        wanted = "deferred" if "shared-b" in address else "delivered"
        assert end_of(found[address]) == wanted, found[address]
        assert got(world, address) == ({"good"} if wanted == "delivered" else set())
    lines = {address: attempt_to(server, address) for address in addresses}
    assert {lines[a].get("tls-policy") for a in addresses if "shared-b" in a} == {"refused"}


def test_a_sender_without_its_supervisor_begins_nothing_new(world, tmp_path):
    """Two domains of one host have policies of their own: what is to go by the second is not begun when the first is cut off."""
    server = Postrider(tmp_path, config=SITE, certificates=world["certificates"],
                       anchors=world["folder"] / "nsd/anchors").start()
    roles = []
    try:
        message = start_message(server, "x@cut-a.sts.test", "x@cut-b.sts.test")
        fates(server, message)  # nobody is there; but now where both go is known, and they go together
        with ScriptedServer({"GREETING": ScriptedServer.STALL}, host=STALLS, port=25) as host:
            server.cli("queue", "retry", message, "--config", str(server.config_path))
            wait_until(lambda: host.sessions > 0, 60, "the first group's connection")
            roles = list(server.role_pids().values())
            server.process.kill()
            server.process.wait()
            server.process = None
            wait_until(lambda: not any(is_alive(pid) for pid in roles), 60, "the end of all roles")
            assert not server.crashes() and host.sessions == 1
    finally:
        server.kill()
        for pid in filter(is_alive, roles):
            os.kill(pid, signal.SIGKILL)


def test_a_smarthosts_own_policy(world):
    address = "x@smart.test"
    assert end_of(fates(world["server"], start_message(world["server"], address), 100)[address]) == "delivered"
    line = attempt_to(world["server"], address)
    assert line["tls"] == "verified" and line["tls-policy-by"] == "sts" and line["tls-policy-domain"] == "relay.sts.test"
    assert got(world, address) == {"relay"}


@pytest.mark.parametrize("domain, end, host, words", [
    ("dane-first", "delivered", "good", {"tls-policy-by": "dane", "tls": "verified"}),  # although the policy does not name it
    ("dane-fails", "delivered", "other", {"tls-policy-by": "sts", "tls": "verified"}),
    ("dane-alone", "deferred", None, {"tls-policy-by": "dane"}),                        # although the policy names it
    ("dane-junk", "deferred", None, {"tls-policy-by": "dane", "tls": "none", "tls-result": "tlsa-invalid"}),
])
def test_a_domain_with_a_dane_host_and_an_mta_sts_host(world, domain, end, host, words):
    address = f"x@{domain}.both.test"
    fate = fates(world["server"], start_message(world["server"], address), 100)[address]
    line = attempt_to(world["server"], address)
    assert end_of(fate) == end, (fate, line)
    assert {key: line.get(key) for key in words} == words, line
    assert got(world, address) == ({host} if host else set())


@pytest.mark.parametrize("domain, asked", [("verify-enforce.sts.test", False), ("verify-testing.sts.test", True),
                                           ("verify-none.sts.test", True), ("verify-via.test", False)])
def test_recipients_are_asked_for_in_clear_unless_a_policy_is_enforced(world, domain, asked):
    """By "recipients verify": where a policy only tests the mail itself may go in clear."""
    with smtplib.SMTP("127.0.0.1", world["server"].port, timeout=60) as client:
        client.ehlo("client.test")
        client.mail("a@client.test")
        assert client.rcpt(f"whoever@{domain}")[0] == 250
    commands = [command for host in world["hosts"].values() for command in list(host.commands)]
    assert any(f"whoever@{domain}" in command for command in commands) == asked


def test_what_was_fetched_outlives_a_restart_and_a_web_that_is_gone(world):
    server, web = world["server"], world["web"]
    first = "first@kept.sts.test"
    assert end_of(fates(server, start_message(server, first), 100)[first]) == "delivered"
    kept = server.state / "mta-sts" / "kept.sts.test"
    assert kept.read_text().startswith("postrider mta-sts 1\n")
    damaged = server.state / "mta-sts" / "enforce.sts.test"
    damaged.write_bytes(damaged.read_bytes().replace(b"enforce", b"none\r\n", 1))
    server.stop()
    # Another id, whose policy cannot be fetched: the one before counts on, and it does not name what is now the MX host.
    world["dns"].close()
    changed = zones(world["certificates"], web_is_there=False, ids="2")
    changed["sts.test"] = [line.replace("kept MX 10 good", "kept MX 10 clear") for line in changed["sts.test"]]
    with name_server(world["folder"] / "nsd2", changed, signed=["both.test"]):
        asked = web.asked["kept.sts.test"]
        server.write_config(SITE, anchors=world["folder"] / "nsd2/anchors")
        server.start()
        address = "second@kept.sts.test"
        fate = fates(server, start_message(server, address), 100)[address]
        assert end_of(fate) == "deferred" and "MTA-STS" in fate["reply"], fate
        assert got(world, address) == set() and web.asked["kept.sts.test"] == asked
        [told] = server.logged("mta-sts-not-fetched", domain="kept.sts.test")
        assert told["result"] == "sts-policy-fetch-error" and "kept-until" in told
        assert [e["domain"] for e in server.logged("mta-sts-file-damaged")] == ["enforce.sts.test"]
        assert not damaged.exists() and kept.exists()
