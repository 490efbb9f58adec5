"""A smarthost that wants a login: each mechanism against Postfix with Dovecot's passwords and tokens, and who must not hear a password."""
import base64
import contextlib
import hmac
import json
import os
import secrets
import ssl
import time

import pytest

from harness import Postrider, free_port, wait_until
from peers import Peer, PostfixWith, ScriptedServer, Sink, can_connect
from test_submission import traces
from test_tls import memory_of
from test_tls_out import certificates  # noqa: F401: a fixture

SITE = """
hostname mx.local.test
state {state}
listen mx {{ address 127.0.0.1:{port}; relay from 127.0.0.1 }}
domain local.test {{ mailbox ok; alias postmaster -> ok; deliver maildir {mail}/{{domain}}/{{local}} }}
{routes}
route default {{ via 127.0.0.1:9; tls off }}
retry 1h for 1d {{ delay-notice off }}
"""
SECRET = "p\N{LATIN SMALL LETTER A WITH DIAERESIS}ss,w=rd \"1\""


TOKEN_KEY = secrets.token_bytes(32)


def token_for(user, key):
    """A JSON Web Token (RFC 7519), as an authorization server would sign it."""
    def part(data):
        return base64.urlsafe_b64encode(data).rstrip(b"=")

    said = part(json.dumps({"typ": "JWT", "alg": "HS256"}).encode()) + b"." + part(json.dumps({"sub": user, "exp": int(time.time()) + 3600}).encode())
    return (said + b"." + part(hmac.digest(key, said, "sha256"))).decode()


class DovecotAuth(Peer):
    """Only its passwords and tokens: Postfix asks them by TCP."""

    def prepare(self):
        for name in ("run", "state", "keys/default/HS256"):
            (self.folder / name).mkdir(parents=True)
        (self.folder / "users").write_text("u:{PLAIN}" + SECRET + "\n", encoding="utf-8")
        (self.folder / "keys/default/HS256/default").write_bytes(base64.b64encode(TOKEN_KEY))
        (self.folder / "tokens").write_text(f"introspection_mode = local\nusername_attribute = sub\n"
                                            f"local_validation_key_dict = fs:posix:prefix={self.folder}/keys/\n")
        (self.folder / "conf").write_text(f"""
protocols =
base_dir = {self.folder}/run
state_dir = {self.folder}/state
log_path = {self.folder}/log
ssl = no
auth_mechanisms = plain login scram-sha-256 xoauth2
auth_failure_delay = 0
passdb {{
  driver = oauth2
  mechanisms = xoauth2
  args = {self.folder}/tokens
}}
passdb {{
  driver = passwd-file
  args = {self.folder}/users
}}
userdb {{
  driver = static
  args = uid=nobody gid=nogroup home=/
}}
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service auth {{
  inet_listener {{
    address = 127.0.0.1
    port = {self.port}
  }}
}}
""")
        return ["dovecot", "-F", "-c", str(self.folder / "conf")]


MECHANISMS = {"scram": "SCRAM-SHA-256", "plain": "PLAIN", "login": "LOGIN", "xoauth2": "XOAUTH2"}


def server_context(folder, name):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")
    return context


def secret_file(path, text, mode=0o600):
    path.write_text(text + "\n", encoding="utf-8")
    path.chmod(mode)
    return path


@pytest.fixture(scope="module")
def world(tmp_path_factory, certificates):  # noqa: F811
    folder = tmp_path_factory.mktemp("login-out")
    ports = {name: free_port() for name in (*MECHANISMS, "smtps", "wrong")}
    with contextlib.ExitStack() as stack:
        dovecot = stack.enter_context(DovecotAuth())
        behind = stack.enter_context(Sink(folder / "sink"))
        readable = dovecot.folder / "certificates"
        readable.mkdir()
        for path in certificates.iterdir():
            (readable / path.name).write_bytes(path.read_bytes())
        services = [f"127.0.0.1:{port} inet n - n - - smtpd -o smtpd_sasl_mechanism_filter={MECHANISMS.get(name, 'static:rest')}"
                    + (" -o smtpd_tls_wrappermode=yes" if name == "smtps" else "") for name, port in ports.items()]
        postfix = stack.enter_context(PostfixWith(
            f"mynetworks =\nsmtpd_tls_security_level = may\nsmtpd_tls_auth_only = yes\nsmtpd_tls_cert_file = {readable}/good.pem\n"
            f"smtpd_tls_key_file = {readable}/good.key\nsmtpd_sasl_auth_enable = yes\nsmtpd_sasl_type = dovecot\n"
            f"smtpd_sasl_path = inet:127.0.0.1:{dovecot.port}\nsmtpd_relay_restrictions = permit_sasl_authenticated, reject\n"
            "smtpd_recipient_restrictions =\nsmtpd_hard_error_limit = 1000\n",
            services, next_port=behind.port))
        for port in ports.values():
            wait_until(lambda: can_connect(port), 30, "Postfix")  # noqa: B023

        def token_only(line, _):
            said = base64.b64decode(line.split(" ")[2]).decode() if line.startswith("AUTH XOAUTH2 ") else ""
            return "235 2.7.0 welcome" if said == "user=u\1auth=Bearer ya29.token\1\1" else "535 5.7.8 no"

        scripted = {
            "token": ScriptedServer({"AUTH": token_only}, ("PIPELINING", "AUTH PLAIN XOAUTH2"), tls=server_context(certificates, "good")),
            "token-wrong": ScriptedServer({"AUTH": token_only}, ("AUTH XOAUTH2",), tls=server_context(certificates, "good")),
            "impostor": ScriptedServer({"AUTH": "235 2.7.0 anybody is welcome"}, ("AUTH SCRAM-SHA-256 PLAIN",),
                                       tls=server_context(certificates, "good")),
            "stranger": ScriptedServer({"AUTH": "235 2.7.0 welcome"}, ("AUTH PLAIN",), tls=server_context(certificates, "lonely")),
            "clear": ScriptedServer({"AUTH": "235 2.7.0 welcome"}, ("AUTH PLAIN",)),
            "none": ScriptedServer({}, (), tls=server_context(certificates, "good")),
            "odd": ScriptedServer({}, ("AUTH GSSAPI CRAM-MD5",), tls=server_context(certificates, "good")),
            "later": ScriptedServer({"AUTH": "454 4.7.0 not now"}, ("AUTH PLAIN",), tls=server_context(certificates, "good")),
            "weak": ScriptedServer({"AUTH": "534 5.7.9 too weak"}, ("AUTH LOGIN",), tls=server_context(certificates, "good")),
            "two": ScriptedServer({"AUTH": "235 2.7.0 welcome"}, ("AUTH PLAIN",), tls=server_context(certificates, "good")),
        }
        for server in scripted.values():
            stack.enter_context(server)
        right, wrong, token = (secret_file(folder / name, text) for name, text in (("right", SECRET), ("wrong", "not it"),
                                                                                   ("token", "ya29.token")))
        old_token = secret_file(folder / "old-token", "ya29.expired")

        def route(name, port, login, scheme="smtp", rule=f"tls-ca {certificates}/ca.pem"):
            return (f"route {name}.test {{ via {scheme}://localhost:{port} {{ {login} }}; family ipv4; "
                    f"reply-wait 60s; {rule} }}")
        signed = secret_file(folder / "signed", token_for("u", TOKEN_KEY))
        forged = secret_file(folder / "forged", token_for("u", secrets.token_bytes(32)))
        routes = [route(name, ports[name], f"user u; {f'token-file {signed}' if name == 'xoauth2' else f'password-file {right}'}")
                  for name in MECHANISMS]
        routes.append(route("smtps", ports["smtps"], f"user u; password-file {right}", "smtps"))
        routes.append(route("wrong", ports["wrong"], f"user u; password-file {wrong}"))
        routes.append(route("forged", ports["xoauth2"], f"user u; token-file {forged}"))
        routes += [route(name, server.port, f"user u; token-file {token if name == 'token' else old_token}" if "token" in name
                         else f"user u; password-file {right}") for name, server in scripted.items() if name != "two"]
        routes.append(route("fileless", ports["plain"], f"user u; password-file {folder}/nowhere"))
        routes.append(route("two", scripted["two"].port, f"user u; password-file {right}"))
        routes.append(route("also-two", scripted["two"].port, f"user v; password-file {right}"))
        server = stack.enter_context(Postrider(folder / "server", SITE, routes="\n".join(routes)))
        yield {"server": server, "postfix": postfix, "behind": behind, "scripted": scripted, "folder": folder, "wrong": wrong}


def attempt_of(server, name, count=1):
    return wait_until(lambda: (found := [e for e in server.log_events("attempt") if e["to"] == f"x@{name}.test"])[count - 1:] and found,
                      60, f"an attempt for {name}; log:\n{server.log_text()[-3000:]}")[-1]


@pytest.mark.parametrize("name", [*MECHANISMS, "smtps"])
def test_by_each_mechanism(world, name):
    server, postfix = world["server"], world["postfix"]
    server.send(to=f"x@{name}.test")
    line = attempt_of(server, name)
    assert line["result"] == "delivered" and line["tls"] == "verified", (line, postfix.log_text())
    wait_until(lambda: [e for e in world["behind"].envelopes() if f"x@{name}.test" in str(e["rcpt"])], 30, "Postfix passing it on")
    said = f"sasl_method={MECHANISMS.get(name, 'SCRAM-SHA-256')}, sasl_username=u"
    # The strongest of those that are offered. A process of its own writes the log.
    wait_until(lambda: said in (postfix.folder / "postfix.log").read_text(), 30, f"{said} in Postfix's log")
    print(f"{name}: Postfix says {said}")


def test_a_forged_token(world):
    """Dovecot does look at what it is shown."""
    world["server"].send(to="x@forged.test")
    assert attempt_of(world["server"], "forged")["result"] == "deferred"


def test_by_a_token(world):
    server, next_hop = world["server"], world["scripted"]["token"]
    server.send(to="x@token.test")
    assert attempt_of(server, "token")["result"] == "delivered"
    assert sum(command.startswith("AUTH ") for command in next_hop.commands) == 1 and len(next_hop.messages) == 1


# what the log says, and what the attempt's line; AUTH may be said only where a word for it stands
CASES = {
    "token-wrong": ("XOAUTH2", "535", "XOAUTH2"), "impostor": ("SCRAM-SHA-256", "has not shown that it knows", "SCRAM-SHA-256"),
    "none": (None, "does not offer AUTH", None), "odd": (None, "no way to log in that we know", None),
    "later": ("PLAIN", "454", "PLAIN"), "weak": ("LOGIN", "534", "LOGIN"),
}


@pytest.mark.parametrize("name", CASES)
def test_mail_waits(world, name):
    """Whatever is wrong with a login is the operator's trouble: nobody's mail comes back for it."""
    server, next_hop = world["server"], world["scripted"][name]
    mechanism, why, said = CASES[name]
    server.send(to=f"x@{name}.test")
    line = attempt_of(server, name)
    assert line["result"] == "deferred" and line["status"].startswith("4."), line
    [failed] = server.logged("login-failed", id=line["id"])
    assert why in failed["why"] and failed.get("mechanism") == mechanism and failed["user"] == "u", failed
    assert [c.split(" ")[1] for c in next_hop.commands if c.startswith("AUTH ")] == ([said] if said else [])
    assert not any(c.startswith("MAIL") for c in next_hop.commands)


@pytest.mark.parametrize("name", ["stranger", "clear"])
def test_no_password_for_those(world, name):
    """A certificate that nobody vouches for, and no TLS at all."""
    server, next_hop = world["server"], world["scripted"][name]
    server.send(to=f"x@{name}.test")
    assert attempt_of(server, name)["result"] == "deferred"
    assert not any(c.startswith(("AUTH", "MAIL")) for c in next_hop.commands)


def test_a_file_that_is_not_there(world):
    server = world["server"]
    server.send(to="x@fileless.test")
    assert attempt_of(server, "fileless")["result"] == "deferred"
    assert any(e["path"].endswith("/nowhere") for e in server.logged("secret-not-read"))
    wait_until(lambda: any("its file is missing" in e["why"] for e in server.log_events("login-failed")), what="why in the log")


def test_connections_belong_to_a_login(world):
    """One after the other while connections are kept: by the other's connection nobody would have said AUTH."""
    server, next_hop = world["server"], world["scripted"]["two"]
    for count, name in enumerate(("two", "also-two", "two", "also-two"), 1):
        server.send(to=f"x@{name}.test")
        wait_until(lambda: len(next_hop.messages) == count, 30)  # noqa: B023
    users = [base64.b64decode(c.split(" ")[2]).split(b"\0")[1] for c in next_hop.commands if c.startswith("AUTH ")]
    assert set(users) == {b"u", b"v"}, users


def test_a_wrong_password_is_mended(world):
    """Last: it reloads."""
    server = world["server"]
    server.send(to="x@wrong.test")
    line = attempt_of(server, "wrong")
    assert line["result"] == "deferred" and line["status"] == "4.7.8", line
    [failed] = server.logged("login-failed", id=line["id"])
    assert "535" in failed["why"] and failed["see"] == str(world["wrong"])
    secret_file(world["wrong"], SECRET)
    server.cli("reload", "--config", str(server.config_path))
    server.cli("queue", "retry", line["id"], "--config", str(server.config_path))
    wait_until(lambda: [e for e in server.log_events("attempt") if e["to"] == "x@wrong.test" and e["result"] == "delivered"], 60)


def test_nothing_says_a_secret(world):
    server = world["server"]
    text = server.log_text() + server.cli("status", "--config", str(server.config_path)).stdout
    text += server.cli("queue", "list", "--config", str(server.config_path)).stdout
    hidden = [SECRET, "not it", "ya29", base64.b64encode(b"\0u\0" + SECRET.encode()).decode(), base64.b64encode(SECRET.encode()).decode()]
    assert not [word for word in hidden if word in text]


def test_check_looks_at_the_files(world, tmp_path):
    server = world["server"]
    for mode, exit_code in ((0o604, 1), (0o600, 0)):
        path = secret_file(tmp_path / f"secret-{mode:o}", SECRET, mode)
        config = tmp_path / f"conf-{mode:o}"
        config.write_text(f"""hostname mx.local.test
state {tmp_path}/state
listen mx {{ address 127.0.0.1:2525 }}
domain local.test {{ mailbox ok; alias postmaster -> ok; deliver maildir {tmp_path}/mail/{{domain}}/{{local}} }}
route default {{ via smtps://smtp.isp.example {{ user u; password-file {path} }} }}
""")
        said = server.cli("check", "--config", str(config), check=False)
        assert (said.returncode != 0) == bool(exit_code), said.stdout + said.stderr
        assert ("others can read the secret file" in said.stdout + said.stderr) == bool(exit_code)
        assert SECRET not in said.stdout + said.stderr


def test_only_senders_know_a_secret(tmp_path, certificates):  # noqa: F811
    """They keep it, or could not log in again; the supervisor, which reads its file, does not."""
    mark = "".join(secrets.choice("ABCDEFGHKMNPQRSTUVWXYZ23456789") for _ in range(20))
    next_hop = ScriptedServer({"AUTH": "235 2.7.0 welcome"}, ("AUTH PLAIN",), tls=server_context(certificates, "good"))
    route = (f"route hop.test {{ via smtp://localhost:{next_hop.port} {{ user u; password-file {secret_file(tmp_path / 'file', mark)} }}; "
             f"family ipv4; tls-ca {certificates}/ca.pem }}")
    with next_hop, Postrider(tmp_path / "server", SITE, routes=route, binary_path=os.environ["POSTRIDER_RELEASE"]) as server:
        server.send(to="x@hop.test")
        assert attempt_of(server, "hop")["result"] == "delivered"
        pids = {"supervisor": server.process.pid, **server.role_pids()}
        known = {role.split()[0] for role, pid in pids.items() if any(True for _ in traces(pid, mark))}
        assert known == {"sender"}, known
        # What was said to the server is not kept: OpenSSL's buffers and ours are wiped.
        coded = base64.b64encode(f"\0u\0{mark}".encode())
        assert not any(coded in memory for role, pid in pids.items() for memory in memory_of(pid))
