"""Who lives here, asked of the whole daemon: aliases, lists, forwards, subaddresses, gateways, backups, VRFY and EXPN."""
import os
import pwd
import signal
import smtplib
import socket
import subprocess

import pytest

from harness import Postrider, binary, free_port, wait_until
from peers import ScriptedServer

SITE = """
hostname mx.local.test
state {state}
listen mx outside {{ address 127.0.0.1:{port}; vrfy on; expn on }}
listen mx inside {{ address 127.0.0.1:{inside}; relay from 127.0.0.1; line-ends repair }}
listen mx shy {{ address 127.0.0.1:{shy}; hostname shy.local.test; max-size 64KiB; connections 2 per-client }}
domain local.test alt.test {{
    mailbox anna bob carl jürgen
    mailbox file {boxes}
    alias postmaster abuse -> anna
    alias sales -> anna, bob, carol@elsewhere.test
    alias list-dev -> include:{list}
    alias owner-list-dev -> bob
    alias nested -> sales
    subaddress +
    forward old -> new@partner.test
    forward said -> new@partner.test reply 251
    forward gone -> new@partner.test reply 551
    deliver maildir {mail}/{{domain}}/{{local}}
}}
domain old.test {{ same-as local.test }}
domain all.test {{ mailbox one; alias postmaster -> one; catch-all -> one; deliver maildir {mail}/{{domain}}/{{local}} }}
domain gateway.test {{ recipients verify; relay via smtp://127.0.0.1:{next_port} }}
domain gw.test {{ same-as gateway.test }}
domain any-gateway.test {{ recipients any; relay via smtp://127.0.0.1:{next_port} }}
domain any.test {{ same-as any-gateway.test }}
domain backup.test {{ recipients file {backup}; relay via smtp://127.0.0.1:{next_port} }}
domain second.test {{ recipients file {backup}; relay mx }}
route default {{ via 127.0.0.1:{next_port}; tls off }}
"""
BEHIND = """
hostname behind.local.test
state {state}
listen mx {{ address 127.0.0.1:{port} }}
domain gateway.test backup.test partner.test elsewhere.test {{
    mailbox u1 u2 u3 new carol
    alias postmaster -> u1
    deliver maildir {mail}/{{domain}}/{{local}}
}}
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("directory")
    (folder / "boxes").write_text("# more of them\ndora\n\nemil\n")
    (folder / "list").write_text("anna\nbob@local.test\ncarl@alt.test\n")
    (folder / "backup").write_text("u1@backup.test\nu2@backup.test\nu1@second.test\n")
    behind = Postrider(folder / "behind", BEHIND)
    server = Postrider(folder / "server", SITE, next_port=behind.port, inside=free_port(), shy=free_port(),
                       boxes=folder / "boxes", list=folder / "list", backup=folder / "backup")
    with behind, server:
        server.behind = behind
        yield server
        server.wait_until_empty()
        assert server.figures()["balanced"] == 1


def rcpt(port, address, options=()):
    with smtplib.SMTP("127.0.0.1", port, timeout=30) as client:
        client.ehlo("client.test")
        client.mail("a@client.test")
        code, text = client.rcpt(address, list(options))
        return code, text.decode()


def say(port, line, source="127.0.0.1"):
    with smtplib.SMTP("127.0.0.1", port, timeout=30, source_address=(source, 0)) as client:
        client.ehlo("client.test")
        client.sock.sendall(line.encode() + b"\r\n")
        code, text = client.getreply()
        return code, text.decode()


@pytest.mark.parametrize(("address", "code", "says"), [
    ("anna@local.test", 250, ""), ("ANNA@LOCAL.TEST", 250, ""), ("anna@local.test.", 250, ""), ("dora@local.test", 250, ""),
    ("anna@alt.test", 250, ""), ("anna@old.test", 250, ""), ("anna+x@local.test", 250, ""), ("postmaster", 250, ""),
    ("Postmaster@old.test", 250, ""), ("sales@local.test", 250, ""), ("nested@local.test", 250, ""),
    ("old@local.test", 250, ""), ("said@local.test", 251, "new@partner.test"), ("gone@local.test", 551, "new@partner.test"),
    ("anyone@all.test", 250, ""), ("nobody@local.test", 550, "5.1.1"), ("nobody+anna@local.test", 550, "5.1.1"),
    ("u1@backup.test", 250, ""), ("u3@backup.test", 550, "5.1.1"), ("u1@second.test", 250, ""),
    ("u2@second.test", 550, "5.1.1"), ("u1@gateway.test", 250, ""), ("nobody@gateway.test", 550, "5.1.1"),
    ("someone@elsewhere.test", 550, "5.7.1"), ("anna%elsewhere.test@local.test", 550, ""),
    ("elsewhere.test!anna@local.test", 550, ""), ('"anna@elsewhere.test"@local.test', 550, ""),
    ("@elsewhere.test:anna@local.test", 250, ""), ('"../../x"@local.test', 550, ""), ("anna@[127.0.0.1]", 250, ""),
    ("u1%elsewhere.test@gateway.test", 550, ""), ("u1%elsewhere.test@backup.test", 550, ""),
    *((n * "a" + "@any.test", 501, "5.1.3") for n in (1008, 1015)), (1007 * "a" + "@any.test", 250, ""),
    *((n * "a" + "@gw.test", 501, "5.1.3") for n in (1012, 1016)), (1011 * "a" + "@gw.test", 550, "5.1.1"),
])
def test_each_recipient_is_answered_as_configured(site, address, code, says):
    got, text = rcpt(site.port, f"<{address}>")
    assert got == code, text
    assert says in text


def send(site, to, port=None, sender="a@client.test", subject="x"):
    with smtplib.SMTP("127.0.0.1", port or site.port, timeout=30) as client:
        client.sendmail(sender, [to] if isinstance(to, str) else to, f"Subject: {subject}\r\n\r\n{subject}\r\n".encode())


def having(server, mailbox, domain, subject):
    return [mail for mail in server.mails(mailbox, domain) if f"Subject: {subject}\n".encode() in mail]


def arrives(server, subject, *where):
    for mailbox, domain in where:
        wait_until(lambda: having(server, mailbox, domain, subject), what=f"{subject} at {mailbox}@{domain}")  # noqa: B023
        assert len(having(server, mailbox, domain, subject)) == 1


def test_aliases_and_duplicates(site):
    send(site, ["nested@local.test", "sales@local.test", "anna@local.test", "ANNA+x@old.test"], subject="aliases")
    arrives(site, "aliases", ("anna", "local.test"), ("bob", "local.test"))
    arrives(site.behind, "aliases", ("carol", "elsewhere.test"))
    site.wait_until_empty()
    assert len(having(site, "anna", "local.test", "aliases")) == 1


def test_a_list_with_an_owner(site):
    send(site, "list-dev@local.test", subject="list")
    arrives(site, "list", ("anna", "local.test"), ("bob", "local.test"), ("carl", "alt.test"))
    (mail,) = having(site, "carl", "alt.test", "list")
    assert mail.startswith(b"Return-Path: <owner-list-dev@local.test>\n")


def test_subaddress_catch_all_and_same_as(site):
    send(site, "bob+tag@old.test", subject="sub")
    arrives(site, "sub", ("bob", "local.test"))
    send(site, ["x@all.test", "y+z@all.test", "one@all.test"], subject="all")
    arrives(site, "all", ("one", "all.test"))
    assert not (site.mail / "all.test" / "x").exists()


def test_forwards_gateways_and_backups_reach_the_host_behind(site):
    send(site, ["old@local.test", "said@local.test"], subject="forwarded")
    arrives(site.behind, "forwarded", ("new", "partner.test"))
    send(site, ["u1@gateway.test", "u2@gateway.test"], subject="gateway")
    arrives(site.behind, "gateway", ("u1", "gateway.test"), ("u2", "gateway.test"))
    send(site, "u1@backup.test", subject="backup")
    arrives(site.behind, "backup", ("u1", "backup.test"))


def test_a_gateway_goes_on_while_the_host_behind_is_down(site):
    assert rcpt(site.port, "<u3@gateway.test>")[0] == 250
    site.behind.stop()
    try:
        assert rcpt(site.port, "<u3@gateway.test>")[0] == 250  # it said so before
        assert rcpt(site.port, "<u4@gateway.test>")[0] == 450  # cannot be asked
        assert rcpt(site.port, "<u2@backup.test>")[0] == 250   # the file knows
        send(site, "u3@gateway.test", subject="waits")
        wait_until(lambda: [m for m in site.queue() if m["to"] == "u3@gateway.test"], what="it in the queue")
    finally:
        site.behind.start()
    site.cli("queue", "retry", "--all", "--config", str(site.config_path))
    arrives(site.behind, "waits", ("u3", "gateway.test"))


@pytest.mark.parametrize(("line", "code", "says"), [
    ("VRFY anna@local.test", 250, "<anna@local.test>"), ("VRFY <Anna@Local.Test>", 250, "<anna@local.test>"),
    ("VRFY nobody@local.test", 550, "5.1.1"), ("VRFY dora", 553, "ambiguous"), ("VRFY one", 250, "<one@all.test>"),
    ("VRFY", 501, ""), ("VRFY u1@gateway.test", 252, ""), ("VRFY someone@elsewhere.test", 550, "5.7.1"),
    ("VRFY said@local.test", 251, "<new@partner.test>"), ("VRFY gone@local.test", 551, "<new@partner.test>"),
    ("EXPN u1@gateway.test", 252, "u1@gateway.test"), ("EXPN x@all.test", 250, "<one@all.test>"),
    ("EXPN list-dev@local.test", 250, "carl@alt.test"), ("EXPN sales@local.test", 250, "carol@elsewhere.test"),
    ("EXPN nobody@local.test", 550, ""), ("EXPN", 501, ""),
    ("VRFY jürgen@local.test SMTPUTF8", 252, "2.6.8"), ("EXPN jürgen@local.test", 252, "2.6.8"),
])
def test_vrfy_and_expn_where_they_are_on(site, line, code, says):
    got, text = say(site.port, line)
    assert got == code, text
    assert says in text


def test_vrfy_and_expn_where_they_are_off(site):
    shy = site.values["shy"]  # two sessions a client, and those before may not quite have ended: each from a client of its own
    assert say(shy, "VRFY anna@local.test", "127.0.0.11")[0] == 252
    assert say(shy, "VRFY nobody@local.test", "127.0.0.12")[0] == 252
    assert say(shy, "EXPN list-dev@local.test", "127.0.0.13")[0] == 502


def test_what_was_refused_stands_in_the_log(site):
    with smtplib.SMTP("127.0.0.1", site.port, timeout=30) as client:
        client.ehlo("refused.test")
        client.mail("a@client.test")
        client.rcpt("<nobody@local.test>")
        client.rcpt("<anna@local.test>")
        client.docmd("DATA")
        client.sock.sendall(b"Subject: x\r\n\r\nbare\n\r\n.\r\n")
        assert client.getreply()[0] == 550
    wait_until(lambda: [e for e in site.log_events("session") if e.get("helo") == "refused.test"], what="the session's line")
    lines = [e for e in site.log_events("refused") if e["helo"] == "refused.test"]
    assert [(e["from"], e["to-command"], e["refusal"][:9]) for e in lines] == [
        ("a@client.test", "rcpt TO:<nobody@local.test>", "550 5.1.1"), ("a@client.test", "DATA", "550 5.6.0")]


VERIFIES = """
hostname mx.local.test
state {state}
listen mx {{ address 127.0.0.1:{port} }}
domain local.test {{ mailbox ok; alias postmaster -> ok; deliver maildir {mail}/{{domain}}/{{local}} }}
domain gateway.test {{ recipients verify; relay via smtp://127.0.0.1:{next_port} }}
"""


def test_a_next_hop_that_says_nothing_means_nobody_and_only_the_first_waits(tmp_path):
    stalls = ScriptedServer({"RCPT": ScriptedServer.STALL})
    with stalls as behind, Postrider(tmp_path, VERIFIES, next_port=behind.port) as server:
        assert rcpt(server.port, "<u1@gateway.test>")[0] == 450
        assert rcpt(server.port, "<u2@gateway.test>")[0] == 450
        assert behind.sessions == 1


def test_without_the_gate_nobody_is_known_behind_it(tmp_path):
    with ScriptedServer({"RCPT": ScriptedServer.STALL}) as behind, \
            Postrider(tmp_path, VERIFIES, next_port=behind.port) as server, \
            smtplib.SMTP("127.0.0.1", server.port, timeout=60) as client:
        client.ehlo("client.test")
        client.mail("a@client.test")
        client.putcmd("rcpt", "TO:<u1@gateway.test>")
        wait_until(lambda: any(line.startswith("RCPT") for line in behind.commands), what="the question behind")
        os.kill(server.role_pids()["gate 0"], signal.SIGKILL)
        assert client.getreply()[0] == 451
        assert client.docmd("DATA")[0] == 554


def test_each_listener_has_its_own_settings(site):
    shy, inside = site.values["shy"], site.values["inside"]
    me = ("127.0.0.14", 0)
    with socket.create_connection(("127.0.0.1", shy), timeout=30, source_address=me) as first:
        assert first.recv(200).startswith(b"220 shy.local.test ")
        with smtplib.SMTP("127.0.0.1", shy, timeout=30, source_address=me) as second:
            second.ehlo("client.test")
            assert second.esmtp_features["size"] == str(64 << 10)
            with socket.create_connection(("127.0.0.1", shy), timeout=30, source_address=me) as third:
                assert third.recv(200).startswith(b"421 ")
    assert rcpt(inside, "<new@partner.test>")[0] == 250  # `relay from`
    with smtplib.SMTP("127.0.0.1", inside, timeout=30) as client:
        client.ehlo("client.test")
        client.mail("a@client.test")
        client.rcpt("anna@local.test")
        client.docmd("DATA")
        client.send(b"Subject: repaired\n\nx\n\r\n.\r\n")
        assert client.getreply()[0] == 250
    arrives(site, "repaired", ("anna", "local.test"))


def test_each_domain_has_its_own_quota_in_a_directory_that_they_share(tmp_path):
    """Mail for both goes by the same pattern; what is too long for one domain's mailboxes is not for the other's."""
    site = """
hostname mx.local.test
state {state}
listen mx {{ address 127.0.0.1:{port} }}
domain large.test {{ mailbox anna bob; alias postmaster -> anna; deliver maildir {mail}/{{local}} }}
domain small.test {{ mailbox carl dora; alias postmaster -> carl; deliver maildir {mail}/{{local}} quota 1KiB }}
"""
    with Postrider(tmp_path, site) as server:
        for to in (["anna@large.test", "carl@small.test"], ["dora@small.test", "bob@large.test"]):
            server.send(to=to, content=b"Subject: long\r\n\r\n" + 50 * (70 * b"x" + b"\r\n"))
        wait_until(lambda: len(server.log_events("attempt")) == 4, what="four attempts")
        assert {(line["to"], line["result"], line["status"]) for line in server.log_events("attempt")} == {
            ("anna@large.test", "delivered", "2.0.0"), ("bob@large.test", "delivered", "2.0.0"),
            ("carl@small.test", "deferred", "4.2.2"), ("dora@small.test", "deferred", "4.2.2")}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives its roles to another user")
def test_roles_do_not_run_as_root_because_a_look_up_fails(tmp_path):
    config = tmp_path / "postrider.conf"
    config.write_text(f"hostname mx.local.test\nstate {tmp_path}/state\n")
    names = tmp_path / "nsswitch.conf"
    names.write_text("passwd: files\n")
    broken = ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc/nsswitch.conf && exec "$@"', str(names),
              "strace", "-f", "-qq", "-o", str(tmp_path / "trace"), "-P", "/etc/passwd", "-e", "trace=openat",
              "-e", "inject=openat:error=EIO", "timeout", "60"]
    ended = subprocess.run([*broken, str(binary()), "run", "--config", str(config)], capture_output=True, text=True, timeout=120,
                           env=dict(os.environ, ASAN_OPTIONS="detect_leaks=0"))
    assert ended.returncode == 71
    assert "user-not-looked-up" in ended.stderr
    assert not (tmp_path / "state").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root delivers as other users")
def test_a_directory_like_var_mail_gets_one_for_each_domain(tmp_path):
    """Whoever delivers can make nothing in it: root makes each domain's directory, and gives it away."""
    site = """
hostname mx.local.test
state {state}
listen mx {{ address 127.0.0.1:{port} }}
domain local.test other.test {{
    mailbox ok; alias postmaster -> ok; deliver maildir {mail}/{{domain}}/{{local}} user nobody
}}
"""
    (tmp_path / "mail").mkdir(mode=0o755)
    with Postrider(tmp_path, site) as server:
        server.send(to=["ok@local.test", "ok@other.test"])
        for domain in ("local.test", "other.test"):
            server.wait_for_mail(domain=domain)
            assert (server.mail / domain).stat().st_uid == pwd.getpwnam("nobody").pw_uid
    assert server.mail.stat().st_uid == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root delivers as other users")
def test_each_user_has_a_process_that_delivers_his_mail_and_no_other(tmp_path):
    """Also when a reload takes the first one away, so that the others' processes have other numbers."""
    head = "\nhostname mx.local.test\nstate {state}\nlisten mx {{ address 127.0.0.1:{port} }}\n"
    domains = {"a.test": "nobody", "b.test": "daemon", "c.test": None, "d.test": "nobody"}

    def site(names):
        return head + "".join(
            f"domain {name} {{{{ mailbox ok; alias postmaster -> ok; deliver maildir {{mail}}-{name}/{{{{domain}}}}/{{{{local}}}}"
            f"{f' user {domains[name]}' if domains[name] else ''} }}}}\n" for name in names)

    def mails(name):
        return list((tmp_path / f"mail-{name}" / name / "ok/new").glob("*"))

    def has(pid):
        """The domains in whose directory a process can do something: it has them open."""
        paths = {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
        return {name for name in domains if any(path.startswith(f"{tmp_path}/mail-{name}") for path in paths)}

    with Postrider(tmp_path, site(domains)) as server:
        for count, names in ((1, list(domains)), (2, list(domains)[1:])):
            server.write_config(site(names))
            server.cli("reload", "--config", str(server.config_path))
            server.send(to=[f"ok@{name}" for name in names])
            server.wait_until_empty()
            roles = server.status()["roles"]
            pids = [role["pid"] for role in roles if role["role"] == "mailbox" and role["generation"] == count + 1]
            assert sorted(sorted(has(pid)) for pid in pids) == sorted(
                sorted(name for name in names if domains[name] == user) for user in {domains[name] for name in names})
            for name in names:
                assert len(mails(name)) == count
                owner = mails(name)[0].stat()
                if domains[name]:
                    user = pwd.getpwnam(domains[name])
                    assert (owner.st_uid, owner.st_gid) == (user.pw_uid, user.pw_gid)
